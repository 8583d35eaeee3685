//! The circuit breaker: a provider that does not answer is left alone, and tried by one call at a time.

use std::time::Duration;

use weir_workflow_engine::Timestamp;

/// Failures in a row after which a provider counts as down.
pub const BREAKER_FAILURES: u32 = 10;
/// The failures in a row must have come within this time.
pub const BREAKER_WINDOW: Duration = Duration::from_secs(60);
/// The first pause before a call tries it.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
pub const BREAKER_MAX_PAUSE: Duration = Duration::from_secs(60);
/// A probe of which nothing was heard is over after this time: its process may have dropped it.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// Whether a provider answers, as its own calls tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Breaker {
    failures: u32,
    first_failure: Timestamp,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Timestamp,
        pause: Duration,
    },
    /// One call is on its way to find out.
    Probing {
        since: Timestamp,
        pause: Duration,
    },
}

impl Breaker {
    pub(super) fn new(now: Timestamp) -> Self {
        Breaker {
            failures: 0,
            first_failure: now,
            state: State::Closed,
        }
    }

    /// Until when nothing may be sent; `None`: a call may be sent now, as a probe when the breaker is open.
    pub(super) fn holds(&self, now: Timestamp) -> Option<Timestamp> {
        match self.state {
            State::Open { until, .. } if now < until => Some(until),
            State::Probing { since, .. } if now < since.plus(PROBE_LIMIT) => Some(now.plus(FIRST_PAUSE)),
            State::Closed | State::Open { .. } | State::Probing { .. } => None,
        }
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

    /// A call failed. True when the breaker opens by it.
    pub(super) fn failed(&mut self, now: Timestamp) -> bool {
        let open = |pause: Duration| State::Open {
            until: now.plus(pause),
            pause,
        };
        match self.state {
            State::Closed => {
                if self.failures == 0 || now.since(self.first_failure) > BREAKER_WINDOW {
                    self.failures = 0;
                    self.first_failure = now;
                }
                self.failures += 1;
                if self.failures < BREAKER_FAILURES {
                    return false;
                }
                self.state = open(FIRST_PAUSE);
                true
            }
            State::Probing { pause, .. } => {
                self.state = open((pause * 2).min(BREAKER_MAX_PAUSE));
                false
            }
            // A call that left before it opened.
            State::Open { .. } => false,
        }
    }

    /// Since when nothing goes through, or until when; `None` while calls go through.
    pub(super) fn open_until(&self) -> Option<Timestamp> {
        match self.state {
            State::Closed => None,
            State::Open { until, .. } => Some(until),
            State::Probing { since, .. } => Some(since.plus(PROBE_LIMIT)),
        }
    }

    pub(super) fn is_probing(&self) -> bool {
        matches!(self.state, State::Probing { .. })
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_call_at_a_time_probe() {
        let mut breaker = Breaker::new(at(0));
        for failure in 1..BREAKER_FAILURES {
            assert!(!breaker.failed(at(i64::from(failure))));
            assert_eq!(breaker.holds(at(50)), None);
        }
        assert!(breaker.failed(at(100)));
        assert_eq!(breaker.holds(at(101)), Some(at(5_100)));
        // One probe; whoever comes meanwhile waits.
        assert_eq!(breaker.holds(at(5_100)), None);
        breaker.goes(at(5_100));
        assert_eq!(breaker.holds(at(5_101)), Some(at(10_101)));
        assert!(!breaker.failed(at(5_200)));
        assert_eq!(breaker.holds(at(5_201)), Some(at(15_200)));
        // The pause grows to its bound.
        let mut now = 15_200;
        for _ in 0..6 {
            assert_eq!(breaker.holds(at(now)), None);
            breaker.goes(at(now));
            breaker.failed(at(now));
            let until = breaker.holds(at(now)).unwrap().as_unix_ms();
            assert!(until - now <= 60_000);
            now = until;
        }
        // A probe that never came back is tried again.
        assert_eq!(breaker.holds(at(now)), None);
        breaker.goes(at(now));
        assert!(breaker.holds(at(now + 1)).is_some());
        assert_eq!(breaker.holds(at(now + 60_000)), None);
    }

    #[test]
    fn failures_far_apart_are_no_outage() {
        let mut breaker = Breaker::new(at(0));
        for failure in 0..100 {
            assert!(!breaker.failed(at(failure * 61_000)));
        }
    }
}
