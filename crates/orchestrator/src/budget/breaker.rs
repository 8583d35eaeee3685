//! The circuit breaker: a provider that is down is left alone, and tried by one call at a time.
//!
//! There is one for a host and one for each path to it, a step of a workflow: what fails on one path alone is no outage
//! of the others, and what is answered on one path ends the outage of all. A call that was not tried before goes first,
//! for a call that failed may fail for ever.

use std::time::Duration;

use weir_workflow_engine::Timestamp;

use super::limit::{ms, whole_ms};

/// Failures in a row after which a provider, or a path to it, counts as down.
pub const BREAKER_FAILURES: u32 = 10;
/// The failures in a row must have come within this time.
pub const BREAKER_WINDOW: Duration = Duration::from_secs(60);
/// How many failures in a row of one path count for its host: it takes more than one path to say that a host is down.
pub const BREAKER_PATH_SHARE: u32 = 5;
/// The pause before a call that was not tried yet tries it, and the shortest one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The first pause before a call that failed already tries it.
const FIRST_LONG_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause.
pub const BREAKER_MAX_PAUSE: Duration = Duration::from_secs(60);
/// The part of a pause that calls wait that were not tried yet.
const UNTRIED: u32 = 4;
/// A probe of which nothing was heard is over after this time: its process may have dropped it.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// How a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There was no connection.
    Unreachable,
    /// There was a connection, and no answer.
    Silent,
    /// The answer was this status.
    Answered(u16),
}

impl Failure {
    /// What the provider does, as a sentence goes on.
    pub(super) fn says(self) -> String {
        match self {
            Failure::Unreachable => "cannot be reached".to_owned(),
            Failure::Silent => "does not answer".to_owned(),
            Failure::Answered(status) => format!("answers with status {status}"),
        }
    }
}

/// Whether a provider works, as its own calls tell.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Breaker {
    failures: u32,
    first_failure: Timestamp,
    last: Failure,
    state: State,
    /// When the one comes again that finds out for the others.
    early: Timestamp,
    /// When the next of the others comes again.
    slot_ms: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        since: Timestamp,
        pause: Duration,
    },
    /// One call is on its way to find out.
    Probing {
        since: Timestamp,
        pause: Duration,
    },
}

impl Breaker {
    pub(super) fn new(now: Timestamp, failure: Failure) -> Self {
        Breaker {
            failures: 0,
            first_failure: now,
            last: failure,
            state: State::Closed,
            early: now,
            slot_ms: 0.0,
        }
    }

    /// Until when a call may not be sent; `None`: it may be sent now, as a probe when the breaker is open.
    pub(super) fn holds(&self, now: Timestamp, is_untried: bool) -> Option<Timestamp> {
        match self.state {
            State::Open { since, pause } => {
                let pause = match is_untried {
                    true => (pause / UNTRIED).max(FIRST_PAUSE),
                    false => pause,
                };
                Some(since.plus(pause)).filter(|until| now < *until)
            }
            State::Probing { since, .. } if now < since.plus(PROBE_LIMIT) => Some(now.plus(FIRST_PAUSE)),
            State::Closed | State::Probing { .. } => None,
        }
    }

    /// A time of its own for a call that is held, so that nobody stampedes. Of those that were not tried yet one comes
    /// early: it is enough to find out.
    pub(super) fn slot(&mut self, now: Timestamp, until: Timestamp, is_untried: bool, gap_ms: f64) -> Timestamp {
        if is_untried && self.early <= now {
            self.early = until;
            return until;
        }
        let until = self.holds(now, false).unwrap_or(until);
        let mine = self.slot_ms.max(ms(until.as_unix_ms()));
        self.slot_ms = mine + gap_ms;
        Timestamp::from_unix_ms(whole_ms(mine).max(until.as_unix_ms()))
    }

    /// A call that may be sent is on its way.
    pub(super) fn goes(&mut self, now: Timestamp) {
        match self.state {
            State::Closed => {}
            State::Open { pause, .. } | State::Probing { pause, .. } => {
                self.state = State::Probing { since: now, pause };
            }
        }
    }

    /// A call failed; `counts`: it says something about the provider, not only about itself. True when the breaker opens
    /// by it.
    pub(super) fn failed(&mut self, now: Timestamp, failure: Failure, counts: bool) -> bool {
        let open = |pause: Duration| State::Open { since: now, pause };
        match self.state {
            State::Closed => {
                if !counts {
                    return false;
                }
                self.last = failure;
                if self.failures == 0 || now.since(self.first_failure) > BREAKER_WINDOW {
                    self.failures = 0;
                    self.first_failure = now;
                }
                self.failures += 1;
                if self.failures < BREAKER_FAILURES {
                    return false;
                }
                self.state = open(FIRST_LONG_PAUSE);
                true
            }
            State::Probing { pause, .. } => {
                self.last = failure;
                self.state = open((pause * 2).min(BREAKER_MAX_PAUSE));
                false
            }
            // A call that left before it opened.
            State::Open { .. } => false,
        }
    }

    /// The provider works for others: calls go through until it fails as often again.
    pub(super) fn closes(&mut self) {
        self.failures = 0;
        self.state = State::Closed;
    }

    /// Since when nothing goes through, or until when; `None` while calls go through.
    pub(super) fn open_until(&self) -> Option<Timestamp> {
        match self.state {
            State::Closed => None,
            State::Open { since, pause } => Some(since.plus(pause)),
            State::Probing { since, .. } => Some(since.plus(PROBE_LIMIT)),
        }
    }

    pub(super) fn is_probing(&self) -> bool {
        matches!(self.state, State::Probing { .. })
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The latest failure that counted.
    pub(super) fn last(&self) -> Failure {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURE: Failure = Failure::Answered(503);

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    fn opened(now: Timestamp) -> Breaker {
        let mut breaker = Breaker::new(now, FAILURE);
        for _ in 1..BREAKER_FAILURES {
            assert!(!breaker.failed(now, FAILURE, true));
            assert_eq!(breaker.holds(now, false), None);
        }
        assert!(breaker.failed(now, FAILURE, true));
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_call_at_a_time_probe() {
        let mut breaker = opened(at(100));
        assert_eq!(breaker.holds(at(101), false), Some(at(10_100)));
        // One probe; whoever comes meanwhile waits.
        assert_eq!(breaker.holds(at(10_100), false), None);
        breaker.goes(at(10_100));
        for is_untried in [false, true] {
            assert_eq!(breaker.holds(at(10_101), is_untried), Some(at(15_101)));
        }
        assert!(!breaker.failed(at(10_200), FAILURE, false));
        assert_eq!(breaker.holds(at(10_201), false), Some(at(30_200)));
        // The pause grows to its bound.
        let mut now = 30_200;
        for _ in 0..6 {
            assert_eq!(breaker.holds(at(now), false), None);
            breaker.goes(at(now));
            breaker.failed(at(now), FAILURE, false);
            let until = breaker.holds(at(now), false).unwrap().as_unix_ms();
            assert!(until - now <= 60_000);
            now = until;
        }
        // A probe that never came back is tried again.
        assert_eq!(breaker.holds(at(now), false), None);
        breaker.goes(at(now));
        assert!(breaker.holds(at(now + 1), true).is_some());
        assert_eq!(breaker.holds(at(now + 60_000), false), None);
    }

    #[test]
    fn a_call_that_was_not_tried_goes_before_those_that_failed() {
        let mut breaker = opened(at(0));
        let mut now = 0;
        for (untried_s, failed_s) in [(5, 10), (5, 20), (10, 40), (15, 60), (15, 60)] {
            let until = |seconds: i64| Some(at(now + seconds * 1_000));
            assert_eq!(breaker.holds(at(now), true), until(untried_s));
            assert_eq!(breaker.holds(at(now), false), until(failed_s));
            now += untried_s * 1_000;
            assert_eq!(breaker.holds(at(now), true), None);
            breaker.goes(at(now));
            breaker.failed(at(now), FAILURE, true);
        }
    }

    #[test]
    fn failures_far_apart_and_failures_of_calls_that_failed_before_are_no_outage() {
        let mut breaker = Breaker::new(at(0), FAILURE);
        for failure in 0..100 {
            assert!(!breaker.failed(at(failure * 61_000), FAILURE, true));
            assert!(!breaker.failed(at(failure * 61_000), FAILURE, false));
        }
    }
}
