//! What is to be fired now, and what is not to be fired any more.

use std::time::Duration;

use super::{CatchUp, Schedule, Times};
use crate::time::Timestamp;

/// With `catch_up: skip` an instant is still fired when it passed less than this long ago: a restart or a short stall
/// must not cost a daily job its day.
pub const SKIP_AFTER: Duration = Duration::from_secs(10);
/// Missed instants are counted up to here; more than this is said as this.
pub const MAX_MISSED_COUNTED: u64 = 10_000;
/// Width of the first look back for the last instants; each further look is four times as wide.
const FIRST_LOOK_BACK: Duration = Duration::from_secs(60);
const LOOK_BACK_GROWTH: u32 = 4;

/// The instants of a schedule that have passed and were not fired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// To be fired, oldest first.
    pub fire: Vec<Timestamp>,
    /// How many others are dropped, counted up to [`MAX_MISSED_COUNTED`].
    pub missed: u64,
}

impl Schedule {
    /// What is due at `now`, when everything planned up to `after` is settled.
    ///
    /// A single instant that has just passed is the ordinary case, and fires under every policy.
    pub fn due(&self, after: Timestamp, now: Timestamp) -> Due {
        if self.next_after(after).is_none_or(|next| next > now) {
            return Due::default();
        }
        let most = match self.catch_up() {
            CatchUp::Skip | CatchUp::One => 1,
            CatchUp::All { most } => usize::try_from(most).unwrap_or(usize::MAX),
        };
        let mut fire = self.last(after, now, most);
        let kept_from = fire.first().copied().unwrap_or(now);
        let mut missed = self.count(after, kept_from);
        let late = |at: &Timestamp| now.since(*at) >= SKIP_AFTER;
        if self.catch_up() == CatchUp::Skip && fire.last().is_some_and(late) {
            missed = missed.saturating_add(1).min(MAX_MISSED_COUNTED);
            fire.clear();
        }
        Due { fire, missed }
    }

    /// The last `most` instants after `after` and not after `now`, oldest first.
    fn last(&self, after: Timestamp, now: Timestamp, most: usize) -> Vec<Timestamp> {
        let mut width = FIRST_LOOK_BACK;
        loop {
            let width_ms = i64::try_from(width.as_millis()).unwrap_or(i64::MAX);
            let from = after.max(Timestamp::from_unix_ms(now.as_unix_ms().saturating_sub(width_ms)));
            let mut found: Vec<Timestamp> = self.from(from).take_while(|at| *at <= now).collect();
            if found.len() >= most || from == after {
                return found.split_off(found.len().saturating_sub(most));
            }
            width = width.saturating_mul(LOOK_BACK_GROWTH);
        }
    }

    /// How many instants lie between the two, up to [`MAX_MISSED_COUNTED`].
    fn count(&self, after: Timestamp, before: Timestamp) -> u64 {
        if let Times::Every(span) = &self.times {
            let span_ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
            let passed = |at: i64| at.div_euclid(span_ms);
            let count = passed(before.as_unix_ms() - 1) - passed(after.as_unix_ms());
            return u64::try_from(count).unwrap_or(0).min(MAX_MISSED_COUNTED);
        }
        let limit = usize::try_from(MAX_MISSED_COUNTED).unwrap_or(usize::MAX);
        let count = self.from(after).take_while(|at| *at < before).take(limit).count();
        u64::try_from(count).unwrap_or(MAX_MISSED_COUNTED)
    }

    fn from(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(after), |last| self.next_after(*last))
    }
}
