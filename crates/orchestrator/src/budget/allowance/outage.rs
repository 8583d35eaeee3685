//! Which calls tell of an outage, and which of them wait for its end.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use weir_workflow_engine::{HeldBy, Hold, Timestamp, WorkflowId};

use super::super::breaker::{BREAKER_PATH_SHARE, BREAKER_WINDOW, Breaker, Failure};
use super::{Allowance, Request};

/// Hosts of one connection whose failures are remembered; a host that answers is forgotten.
const MAX_HOSTS: usize = 1_000;
/// Paths of one connection whose failures are remembered; a path that works is forgotten. Those of further ones count for
/// their host alone.
const MAX_PATHS: usize = 1_000;

/// Whose call it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Caller<'a> {
    /// The host, for connectors of any host; otherwise empty.
    pub(crate) host: &'a str,
    /// `None` for calls that people make.
    pub(crate) workflow: Option<WorkflowId>,
    /// The path of the step in its workflow.
    pub(crate) step: &'a str,
    pub(crate) operation: &'a str,
    /// How often the call was tried before.
    pub(crate) tries: u32,
}

impl Caller<'_> {
    /// The step and what it asks for, the same in all runs and for all items of a loop.
    fn path(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.host, self.workflow, self.operation).hash(&mut hasher);
        without_items(self.step).for_each(|part| part.hash(&mut hasher));
        hasher.finish()
    }
}

/// The parts of a step's path that are no keys of items.
fn without_items(step: &str) -> impl Iterator<Item = &str> {
    let mut parts = step.split('[');
    let first = parts.next();
    let rest = parts.filter_map(|part| part.rsplit_once(']').map(|(_, rest)| rest));
    first.into_iter().chain(rest)
}

/// A path that failed lately.
pub(in super::super) struct Path {
    pub(in super::super) host: String,
    pub(in super::super) step: String,
    pub(in super::super) workflow: Option<WorkflowId>,
    pub(in super::super) breaker: Breaker,
    /// Failures that counted since it worked last, or was quiet for a while.
    failures: u32,
    last_failure: Timestamp,
}

impl Path {
    fn new(now: Timestamp, caller: &Caller<'_>, failure: Failure) -> Self {
        Path {
            host: caller.host.to_owned(),
            step: without_items(caller.step).collect(),
            workflow: caller.workflow,
            breaker: Breaker::new(now, failure),
            failures: 0,
            last_failure: now,
        }
    }

    /// True when its breaker opens by it.
    fn failed(&mut self, now: Timestamp, failure: Failure, counts: bool) -> bool {
        if now.since(self.last_failure) > BREAKER_WINDOW && self.breaker.open_until().is_none() {
            self.failures = 0;
        }
        self.last_failure = now;
        self.failures = self.failures.saturating_add(u32::from(counts));
        self.breaker.failed(now, failure, counts)
    }
}

impl Allowance {
    /// Sends a call away that an open breaker holds.
    pub(super) fn held_by_breaker(&mut self, now: Timestamp, request: &Request<'_>) -> Option<Hold> {
        if self.breakers.is_empty() && self.paths.is_empty() {
            return None;
        }
        let caller = &request.caller;
        let key = caller.path();
        let path = self.paths.get(&key);
        let is_untried = caller.tries == 0;
        let of_path = path.and_then(|path| path.breaker.holds(now, is_untried));
        // Of a step that did not fail, most is to be hoped.
        let is_fresh = is_untried && path.is_none();
        let of_host = self.breakers.get(caller.host);
        let of_host = of_host.and_then(|breaker| breaker.holds(now, is_fresh));
        let until = of_path.max(of_host)?;
        let gap_ms = self.return_gap_ms(request.class);
        let (breaker, to_whom, is_first) = if of_path == Some(until) {
            (
                &mut self.paths.get_mut(&key)?.breaker,
                " to calls of this step",
                is_untried,
            )
        } else {
            (self.breakers.get_mut(caller.host)?, "", is_fresh)
        };
        let until = breaker.slot(now, until, is_first, gap_ms);
        let says = breaker.last().says();
        let until = self.sent_away(now, request.class, until.as_unix_ms());
        let name = &self.name;
        let reason = format!("the provider of connection `{name}` {says}{to_whom}; it is asked again from {until} on");
        Some(Hold {
            until,
            by: HeldBy::Breaker,
            reason,
        })
    }

    /// A call is on its way: it finds out for the others when a breaker is open.
    pub(super) fn probe(&mut self, now: Timestamp, caller: &Caller<'_>) {
        if let Some(breaker) = self.breakers.get_mut(caller.host) {
            breaker.goes(now);
        }
        if !self.paths.is_empty()
            && let Some(path) = self.paths.get_mut(&caller.path())
        {
            path.breaker.goes(now);
        }
    }

    /// A call was answered without complaint: its host works, and its path.
    pub(super) fn works(&mut self, caller: &Caller<'_>) {
        if !self.paths.is_empty() {
            self.paths.remove(&caller.path());
            for path in self.paths.values_mut().filter(|path| path.host == caller.host) {
                path.breaker.closes();
            }
        }
        if !self.breakers.is_empty()
            && let Some(breaker) = self.breakers.remove(caller.host)
            && breaker.open_until().is_some()
        {
            let name = &self.name;
            tracing::info!(connection = %name, "the provider of connection `{name}` works again");
        }
    }

    /// A request failed on its way, or the server did.
    pub(crate) fn failed(&mut self, now: Timestamp, caller: &Caller<'_>, failure: Failure) {
        // An answer to a call that failed before may be about that call alone.
        let counts = caller.tries == 0 || failure == Failure::Unreachable;
        let share = self.path_failed(now, caller, (failure, counts));
        let counts = failure == Failure::Unreachable || (counts && share <= BREAKER_PATH_SHARE);
        if !self.breakers.contains_key(caller.host) {
            if self.breakers.len() >= MAX_HOSTS {
                self.breakers.retain(|_, breaker| breaker.open_until().is_some());
            }
            if !counts || self.breakers.len() >= MAX_HOSTS {
                return;
            }
        }
        let breaker = self
            .breakers
            .entry(caller.host.to_owned())
            .or_insert_with(|| Breaker::new(now, failure));
        if breaker.failed(now, failure, counts) {
            let name = &self.name;
            tracing::warn!(connection = %name, "the provider of connection `{name}` {}: calls wait, and one at a time tries it", failure.says());
        }
    }

    /// How many failures in a row the path has now.
    fn path_failed(&mut self, now: Timestamp, caller: &Caller<'_>, (failure, counts): (Failure, bool)) -> u32 {
        let key = caller.path();
        if !self.paths.contains_key(&key) {
            if self.paths.len() >= MAX_PATHS {
                self.paths.retain(|_, path| path.breaker.open_until().is_some());
            }
            if self.paths.len() >= MAX_PATHS {
                return 1;
            }
        }
        let path = self.paths.entry(key).or_insert_with(|| Path::new(now, caller, failure));
        if path.failed(now, failure, counts) {
            let name = &self.name;
            tracing::warn!(connection = %name, "the provider of connection `{name}` {} to step `{}`: its calls wait, and one at a time tries it", failure.says(), path.step);
        }
        path.failures
    }

    pub(in super::super) fn breakers(&self) -> impl Iterator<Item = (&str, &Breaker)> {
        self.breakers.iter().map(|(host, breaker)| (host.as_str(), breaker))
    }

    /// Paths whose calls wait.
    pub(in super::super) fn open_paths(&self) -> impl Iterator<Item = &Path> {
        let all = self.paths.values();
        all.filter(|path| path.breaker.open_until().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_for_all_items_and_tries() {
        let of = |step: &'static str, tries: u32| {
            let caller = Caller {
                step,
                tries,
                ..Caller::default()
            };
            caller.path()
        };
        assert_eq!(of("all[a].send", 0), of("all[b[1]].send", 3));
        assert_ne!(of("all[a].send", 0), of("all[a].look", 0));
    }
}
