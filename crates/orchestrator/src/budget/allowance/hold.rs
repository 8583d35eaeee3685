//! When a call could leave, and when one that is sent away is to come again.

use std::cmp::Reverse;
use std::time::Duration;

use weir_workflow_engine::{HeldBy, Hold, Timestamp};

use super::super::class::Class;
use super::super::limit::{ms, whole_ms};
use super::super::queue::MAX_PASSED_OVER;
use super::{Allowance, Blocked, MAX_HOLD, count};

/// Shortest time that a call is sent away for.
const MIN_HOLD: Duration = Duration::from_secs(1);
/// Calls that come again after an outage, per millisecond, when nothing else says how fast.
const RETURN_RATE: f64 = 0.1;
/// Calls that sleep on disk are counted up to here.
const MAX_SLEEPERS_COUNTED: usize = 100_000;

impl Allowance {
    /// About when a newcomer of this class could leave: behind all that go before it, or with the share that its class
    /// has even then.
    pub(super) fn estimate(&mut self, now_ms: i64, class: Class, cost: f64) -> i64 {
        let ahead = self.queues.cost_ahead(class);
        let in_turn = self.leaves_at(now_ms, (class, cost), false, ahead);
        let own = self.queues.cost_of(class);
        if ahead <= own {
            // Nobody more urgent waits, so nobody passes it over.
            return in_turn;
        }
        let own = (own + cost) * f64::from(MAX_PASSED_OVER + 1);
        in_turn.min(self.leaves_at(now_ms, (class, cost), true, own))
    }

    fn leaves_at(&mut self, now_ms: i64, (class, cost): (Class, f64), is_due: bool, ahead: f64) -> i64 {
        let by_calls = self.service_ms.max(1.0) / count(self.concurrency);
        let rate = match is_due {
            true => self.rate(),
            false => self.rate_of(class),
        };
        let (from_ms, per_cost) = match self.blocked(now_ms, class, cost, is_due) {
            None => (now_ms, rate.map_or(by_calls, |rate| 1.0 / rate)),
            Some(Blocked::Full) => (now_ms, rate.map_or(by_calls, |rate| by_calls.max(1.0 / rate))),
            Some(Blocked::Until(at_ms)) => (at_ms, rate.map_or(0.0, |rate| 1.0 / rate)),
        };
        let paced_ms = match class.is_bulk() && !is_due {
            true => whole_ms(self.bulk_not_before_ms),
            false => 0,
        };
        let from_ms = from_ms.max(paced_ms);
        from_ms.saturating_add(whole_ms(ahead * per_cost))
    }

    /// A time of its own for a call that comes again.
    pub(super) fn slot(&mut self, class: Class, at_ms: i64, cost: f64) -> i64 {
        let rate = self.rate_of(class).unwrap_or(RETURN_RATE);
        let Some(slot) = self.slots_ms.get_mut(class.index()) else {
            return at_ms;
        };
        let mine = slot.max(ms(at_ms));
        *slot = mine + cost / rate;
        whole_ms(mine).max(at_ms)
    }

    /// Sends a call away until its budget has room.
    pub(super) fn hold(&mut self, now: Timestamp, class: Class, at_ms: i64, cost: f64) -> Hold {
        let at_ms = at_ms.max(now.plus(MIN_HOLD).as_unix_ms());
        let until_ms = self.slot(class, at_ms, cost);
        let until = self.sent_away(now, class, until_ms);
        Hold {
            until,
            by: HeldBy::Budget,
            reason: format!("waits for the budget of connection `{}` until {until}", self.name),
        }
    }

    /// Counts a call that is to come again, and says when.
    pub(super) fn sent_away(&mut self, now: Timestamp, class: Class, until_ms: i64) -> Timestamp {
        self.calls.held += 1;
        let until = bounded(now.as_unix_ms(), until_ms);
        self.sleepers(now);
        if self.sleepers.len() < MAX_SLEEPERS_COUNTED {
            self.sleepers.push(Reverse((until, class)));
            if let Some(count) = self.sleepers_of.get_mut(class.index()) {
                *count += 1;
            }
        }
        Timestamp::from_unix_ms(until)
    }

    /// Milliseconds between two calls that come again after an outage.
    pub(super) fn return_gap_ms(&mut self, class: Class) -> f64 {
        1.0 / self.rate_of(class).unwrap_or(RETURN_RATE)
    }
}

/// A time to come again that is not too far off. Those beyond it are spread over the second half of the time.
fn bounded(now_ms: i64, until_ms: i64) -> i64 {
    let longest_ms = i64::try_from(MAX_HOLD.as_millis()).unwrap_or(i64::MAX);
    let span_ms = until_ms.saturating_sub(now_ms);
    match span_ms <= longest_ms {
        true => until_ms,
        false => now_ms + longest_ms / 2 + span_ms % (longest_ms / 2),
    }
}
