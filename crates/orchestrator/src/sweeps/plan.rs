//! When which endpoint is swept, and why. No IO: whoever asks brings the time.

use std::collections::BTreeMap;
use std::time::Duration;
use weir_storage::SweepRow;
use weir_workflow_engine::{EndpointId, Timestamp};

/// Nodes were away for longer than this many planned sweeps: that was downtime, not a restart.
const MISSED_SWEEPS: u32 = 2;
/// Pause after a failed sweep: doubled by each failure in a row, up to the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(15 * 60));
/// Pause before a sweep that had more pages than one pass may read goes on.
pub(super) const GO_ON: Duration = Duration::from_secs(1);

/// So many requests with wrong proofs, within this time, tell that something is wrong with the proofs.
const REFUSED_BURST: (u32, Duration) = (5, Duration::from_secs(60));
/// Shortest time between two sweeps of an endpoint because of that: whoever forges requests does not command sweeps.
const SUSPICION_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Why an endpoint is swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SweepCause {
    /// Its time has come.
    Schedule,
    /// The server has just started, or the endpoint is new.
    Start,
    /// Nobody was there for a while.
    Downtime,
    /// Several requests came whose proofs were wrong: the provider may have a new secret, and its events are refused.
    Refusals,
    /// A person asked for it.
    Demand,
}

impl SweepCause {
    /// The stable name, in the ledger and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SweepCause::Schedule => "schedule",
            SweepCause::Start => "start",
            SweepCause::Downtime => "downtime",
            SweepCause::Refusals => "refusals",
            SweepCause::Demand => "demand",
        }
    }
}

/// How a sweep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepOutcome {
    /// Everything that the provider lists is here.
    Complete,
    /// There is more than one pass reads; the next one goes on.
    Partial,
    /// The provider could not be read, or its list not walked.
    Failed,
}

impl SweepOutcome {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SweepOutcome::Complete => "complete",
            SweepOutcome::Partial => "partial",
            SweepOutcome::Failed => "failed",
        }
    }
}

/// An endpoint that can be swept, as the configuration has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) endpoint: EndpointId,
    /// `None`: on demand alone.
    pub(crate) every: Option<Duration>,
}

#[derive(Debug)]
struct Standing {
    every: Option<Duration>,
    due: Option<(Timestamp, SweepCause)>,
    /// When the last sweep began, by whichever node.
    after: Option<Timestamp>,
    failures: u32,
    running: bool,
    /// Since when requests with wrong proofs are counted, and how many there were.
    refused: (Timestamp, u32),
    /// When they last led to a sweep.
    suspected_at: Option<Timestamp>,
}

/// What is to be swept now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) endpoint: EndpointId,
    pub(crate) cause: SweepCause,
    pub(crate) after: Option<Timestamp>,
    pub(crate) failures: u32,
}

/// The sweeps of all endpoints, as this node plans them.
#[derive(Debug, Default)]
pub(crate) struct Planner {
    standings: BTreeMap<EndpointId, Standing>,
}

impl Planner {
    /// Takes over which endpoints there are. `stored`: where their sweeps stood when this node started.
    pub(crate) fn take_over(&mut self, swept: &[Swept], stored: &BTreeMap<EndpointId, SweepRow>, now: Timestamp) {
        let mut before = std::mem::take(&mut self.standings);
        for one in swept {
            let standing = match before.remove(&one.endpoint) {
                Some(known) => {
                    let mut known = known;
                    if known.every != one.every {
                        known.every = one.every;
                        known.due = one.every.map(|every| (now.plus(every), SweepCause::Schedule));
                    }
                    known
                }
                None => {
                    let row = stored.get(&one.endpoint);
                    Standing {
                        every: one.every,
                        due: one.every.map(|every| (now, first_cause(row, every, now))),
                        after: row.map(|row| row.started_at),
                        failures: row.map_or(0, |row| row.failures),
                        running: false,
                        refused: (now, 0),
                        suspected_at: None,
                    }
                }
            };
            self.standings.insert(one.endpoint, standing);
        }
    }

    /// Asks for a sweep as soon as possible. False: the endpoint is not swept at all.
    pub(crate) fn demand(&mut self, endpoint: EndpointId, cause: SweepCause, now: Timestamp) -> bool {
        let Some(standing) = self.standings.get_mut(&endpoint) else {
            return false;
        };
        standing.due = Some((now, cause));
        true
    }

    /// A request was refused because its proof is wrong. True: a sweep is due for it. Endpoints that are not swept by
    /// themselves, and those whose last sweep failed, keep to their time.
    pub(crate) fn refused(&mut self, endpoint: EndpointId, now: Timestamp) -> bool {
        let Some(standing) = self.standings.get_mut(&endpoint) else {
            return false;
        };
        let (burst, within) = REFUSED_BURST;
        let (since, count) = standing.refused;
        standing.refused = match now.since(since) > within {
            true => (now, 1),
            false => (since, count.saturating_add(1)),
        };
        let is_calm = standing.suspected_at.is_none_or(|at| now.since(at) >= SUSPICION_PAUSE);
        if standing.every.is_none() || standing.failures > 0 || standing.refused.1 < burst || !is_calm {
            return false;
        }
        standing.refused = (now, 0);
        standing.suspected_at = Some(now);
        // What is due already comes first, and sees the same.
        if standing.due.is_none_or(|(at, _)| at > now) {
            standing.due = Some((now, SweepCause::Refusals));
        }
        true
    }

    /// Takes the next endpoint whose time has come, the longest overdue first.
    pub(crate) fn take(&mut self, now: Timestamp) -> Option<Due> {
        let (endpoint, _) = self
            .standings
            .iter()
            .filter(|(_, standing)| !standing.running)
            .filter_map(|(id, standing)| standing.due.filter(|(at, _)| *at <= now).map(|(at, _)| (*id, at)))
            .min_by_key(|(_, at)| *at)?;
        let standing = self.standings.get_mut(&endpoint)?;
        let (_, cause) = standing.due.take()?;
        standing.running = true;
        Some(Due {
            endpoint,
            cause,
            after: standing.after,
            failures: standing.failures,
        })
    }

    /// How long nothing is due; `None`: nothing is planned.
    pub(crate) fn rest(&self, now: Timestamp) -> Option<Duration> {
        let waiting = self.standings.values().filter(|standing| !standing.running);
        let next = waiting.filter_map(|standing| standing.due).map(|(at, _)| at).min()?;
        Some(next.since(now))
    }

    /// A sweep of this node is over.
    pub(crate) fn ended(&mut self, due: &Due, began_at: Timestamp, outcome: SweepOutcome, now: Timestamp) {
        let Some(standing) = self.standings.get_mut(&due.endpoint) else {
            return;
        };
        standing.running = false;
        standing.after = Some(began_at);
        standing.failures = failures_after(due.failures, outcome);
        let planned = match outcome {
            SweepOutcome::Complete => standing.every.map(|every| (now.plus(every), SweepCause::Schedule)),
            SweepOutcome::Partial => Some((now.plus(GO_ON), due.cause)),
            SweepOutcome::Failed => Some((now.plus(pause(standing.failures)), due.cause)),
        };
        // What was asked for meanwhile comes first.
        standing.due = standing.due.or(planned);
    }

    /// Another node sweeps the endpoint, or has swept it since.
    pub(crate) fn overtaken(&mut self, due: &Due, row: Option<&SweepRow>, now: Timestamp) {
        let Some(standing) = self.standings.get_mut(&due.endpoint) else {
            return;
        };
        standing.running = false;
        standing.after = row.map(|row| row.started_at);
        standing.failures = row.map_or(0, |row| row.failures);
        let is_over = row.is_some_and(|row| !row.running && row.outcome.as_deref() == Some("complete"));
        let wait = match (due.cause, standing.every) {
            // Somebody wants to see one that began after he asked.
            (SweepCause::Demand, _) => Some(GO_ON),
            (_, Some(every)) if is_over => Some(every),
            // Its node may be gone; then the claim is free.
            (_, Some(every)) => Some(every.min(BACK_OFF.0)),
            (_, None) => None,
        };
        let cause = match is_over {
            true if due.cause != SweepCause::Demand => SweepCause::Schedule,
            _ => due.cause,
        };
        standing.due = standing.due.or_else(|| wait.map(|wait| (now.plus(wait), cause)));
    }

    /// The sweep could not begin: the database does not answer.
    pub(crate) fn postponed(&mut self, due: &Due, now: Timestamp) {
        if let Some(standing) = self.standings.get_mut(&due.endpoint) {
            standing.running = false;
            standing.due = standing.due.or_else(|| Some((now.plus(BACK_OFF.0), due.cause)));
        }
    }
}

/// Failed sweeps in a row.
pub(crate) fn failures_after(before: u32, outcome: SweepOutcome) -> u32 {
    match outcome {
        SweepOutcome::Complete | SweepOutcome::Partial => 0,
        SweepOutcome::Failed => before.saturating_add(1),
    }
}

pub(super) fn pause(failures: u32) -> Duration {
    let (first, longest) = BACK_OFF;
    let doubled = 1_u32
        .checked_shl(failures.saturating_sub(1).min(16))
        .unwrap_or(u32::MAX);
    first.saturating_mul(doubled).min(longest)
}

fn first_cause(row: Option<&SweepRow>, every: Duration, now: Timestamp) -> SweepCause {
    match row {
        Some(row) if now.since(row.finished_at.unwrap_or(row.started_at)) > every * MISSED_SWEEPS => {
            SweepCause::Downtime
        }
        Some(_) | None => SweepCause::Start,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
