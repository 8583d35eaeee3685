//! When which endpoint is swept, and why. No IO: whoever asks brings the time.

use super::place::earlier;
use super::suspicion::{Heard, Holes, Silence};
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
/// Shortest time between two sweeps of an endpoint because of a suspicion, whichever: nobody commands sweeps by forging
/// requests, leaving numbers out or failing deliveries.
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
    /// No webhook came for five times as long as usual.
    Silence,
    /// A number of the provider's sequence was left out.
    Sequence,
    /// The provider says that it could not deliver.
    FailedDelivery,
    /// Its webhook was gone or changed at the provider.
    Registration,
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
            SweepCause::Silence => "silence",
            SweepCause::Sequence => "sequence",
            SweepCause::FailedDelivery => "failed_delivery",
            SweepCause::Registration => "registration",
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
    /// How much of the end of the list planned sweeps leave to webhooks.
    pub(crate) leaves: Duration,
    /// How often the provider is asked for failed deliveries, where it lists them.
    pub(crate) failures_every: Option<Duration>,
}

#[derive(Debug)]
struct Standing {
    every: Option<Duration>,
    leaves: Duration,
    due: Option<(Timestamp, SweepCause)>,
    /// When the last sweep began, by whichever node.
    after: Option<Timestamp>,
    /// Up to then everything that the provider lists is here, as this node knows.
    covered: Option<Timestamp>,
    failures_in_a_row: u32,
    running: bool,
    /// Since when requests with wrong proofs are counted, and how many there were.
    refused: (Timestamp, u32),
    silence: Silence,
    holes: Holes,
    failures: Option<Question>,
    /// When a suspicion last led to a sweep.
    suspected_at: Option<Timestamp>,
}

/// When the provider is asked for failed deliveries.
#[derive(Debug)]
struct Question {
    every: Duration,
    due: Timestamp,
    is_open: bool,
    /// Times in a row that it was not answered.
    unanswered: u32,
}

impl Question {
    fn new(every: Duration, now: Timestamp) -> Self {
        Question {
            every,
            due: now.plus(every),
            is_open: false,
            unanswered: 0,
        }
    }
}

impl Standing {
    fn new(one: &Swept, row: Option<&SweepRow>, now: Timestamp) -> Self {
        let mut standing = Standing {
            every: one.every,
            leaves: one.leaves,
            due: one.every.map(|every| (now, first_cause(row, every, now))),
            after: row.map(|row| row.started_at),
            covered: None,
            failures_in_a_row: row.map_or(0, |row| row.failures),
            running: false,
            refused: (now, 0),
            silence: Silence::default(),
            holes: Holes::default(),
            failures: one.failures_every.map(|every| Question::new(every, now)),
            suspected_at: None,
        };
        if let Some(row) = row.filter(|row| is_complete(row)) {
            standing.is_covered(row.started_at, row.cause == SweepCause::Schedule.as_str());
        }
        standing
    }

    /// Whether a suspicion may lead to a sweep now: not of endpoints that are not swept by themselves, nor of those whose
    /// last sweep failed, which keep to their time, nor too often.
    fn may_be_suspected(&self, now: Timestamp) -> bool {
        let is_calm = self.suspected_at.is_none_or(|at| now.since(at) >= SUSPICION_PAUSE);
        self.every.is_some() && self.failures_in_a_row == 0 && is_calm
    }

    /// A suspicion. True: a sweep is due for it.
    fn suspect(&mut self, cause: SweepCause, now: Timestamp) -> bool {
        if !self.may_be_suspected(now) {
            return false;
        }
        self.suspected_at = Some(now);
        // What is due already comes first, and sees the same.
        if self.due.is_none_or(|(at, _)| at > now) {
            self.due = Some((now, cause));
        }
        true
    }

    /// A sweep that began at this time has read the whole list, by whichever node.
    fn is_covered(&mut self, began_at: Timestamp, was_planned: bool) {
        let left = if was_planned { self.leaves } else { Duration::ZERO };
        self.covered = self.covered.max(Some(earlier(began_at, left)));
        self.holes.swept(began_at);
    }
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
                    known.leaves = one.leaves;
                    if known.failures.as_ref().map(|question| question.every) != one.failures_every {
                        known.failures = one.failures_every.map(|every| Question::new(every, now));
                    }
                    if known.every != one.every {
                        known.every = one.every;
                        known.due = one.every.map(|every| (now.plus(every), SweepCause::Schedule));
                    }
                    known
                }
                None => Standing::new(one, stored.get(&one.endpoint), now),
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

    /// A request was refused because its proof is wrong. True: a sweep is due for it.
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
        if standing.refused.1 < burst || !standing.suspect(SweepCause::Refusals, now) {
            return false;
        }
        standing.refused = (now, 0);
        true
    }

    /// Webhooks came since this was told last.
    pub(crate) fn heard(&mut self, endpoint: EndpointId, heard: Heard) {
        if let Some(standing) = self.standings.get_mut(&endpoint) {
            standing.silence.heard(heard);
        }
    }

    /// An event with this place in its account's sequence came, by whatever way.
    pub(crate) fn saw(&mut self, endpoint: EndpointId, account: &str, number: u64, now: Timestamp) {
        if let Some(standing) = self.standings.get_mut(&endpoint) {
            standing.holes.saw(account, number, now);
        }
    }

    /// Makes sweeps due for silences that are too long and for numbers that were left out. Endpoints that are being swept
    /// are looked at when that is over.
    pub(crate) fn look_for_suspicions(&mut self, now: Timestamp) {
        for standing in self.standings.values_mut().filter(|standing| !standing.running) {
            if standing.holes.is_suspicious(now) {
                standing.suspect(SweepCause::Sequence, now);
            }
            if standing.silence.is_suspicious(now) && standing.suspect(SweepCause::Silence, now) {
                standing.silence.looked_into();
            }
        }
    }

    /// Takes an endpoint whose provider is to be asked for deliveries that failed, and since when.
    pub(crate) fn take_question(&mut self, now: Timestamp) -> Option<(EndpointId, Timestamp)> {
        self.standings.iter_mut().find_map(|(id, standing)| {
            let may_ask = !standing.running && standing.may_be_suspected(now);
            let covered = standing.covered.filter(|_| may_ask)?;
            let question = standing.failures.as_mut()?;
            if question.is_open || question.due > now {
                return None;
            }
            question.is_open = true;
            Some((*id, covered))
        })
    }

    /// The provider has said whether a delivery failed; `None`: it did not answer. Gives how often it has not, in a row.
    pub(crate) fn answered(&mut self, endpoint: EndpointId, failed: Option<bool>, now: Timestamp) -> u32 {
        let Some(standing) = self.standings.get_mut(&endpoint) else {
            return 0;
        };
        let Some(question) = &mut standing.failures else {
            return 0;
        };
        question.is_open = false;
        question.unanswered = match failed {
            Some(_) => 0,
            None => question.unanswered.saturating_add(1),
        };
        let wait = match question.unanswered {
            0 => question.every,
            unanswered => question.every.max(pause(unanswered)),
        };
        question.due = now.plus(wait);
        let unanswered = question.unanswered;
        if failed == Some(true) {
            standing.suspect(SweepCause::FailedDelivery, now);
        }
        unanswered
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
            failures: standing.failures_in_a_row,
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
        standing.failures_in_a_row = failures_after(due.failures, outcome);
        if outcome == SweepOutcome::Complete {
            standing.is_covered(began_at, due.cause == SweepCause::Schedule);
        }
        let planned = match outcome {
            SweepOutcome::Complete => standing.every.map(|every| (now.plus(every), SweepCause::Schedule)),
            SweepOutcome::Partial => Some((now.plus(GO_ON), due.cause)),
            SweepOutcome::Failed => Some((now.plus(pause(standing.failures_in_a_row)), due.cause)),
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
        standing.failures_in_a_row = row.map_or(0, |row| row.failures);
        let over = row.filter(|row| is_complete(row));
        if let Some(row) = over {
            standing.is_covered(row.started_at, row.cause == SweepCause::Schedule.as_str());
        }
        let is_over = over.is_some();
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

fn is_complete(row: &SweepRow) -> bool {
    !row.running && row.outcome.as_deref() == Some(SweepOutcome::Complete.as_str())
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
