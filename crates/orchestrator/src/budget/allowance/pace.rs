//! How fast calls may leave where an allowance is to be used evenly: all of them once it was used up, and those that are
//! not live at all times. What these used up at once, a live call would have to wait for until the end of the window.

use super::super::class::Class;
use super::super::limit::{MAX_SPREAD_MS, Window, ms};
use super::Allowance;

/// Calls that are not live leave at their pace, and so many milliseconds of it at once.
const BULK_BURST_MS: f64 = 100.0;

impl Allowance {
    /// How much may leave in one millisecond; `None` when nothing says. Windows that are too long to be used evenly count
    /// only where there are no others.
    pub(super) fn rate(&self) -> Option<f64> {
        let all = || self.windows.iter().chain(&self.found);
        let is_any_even = all().any(Window::is_even);
        let windows = all().filter(|window| window.is_even() || !is_any_even);
        let windows = windows.map(|window| window.rate() * self.pace);
        let rates = windows.chain(self.buckets.iter().map(|bucket| bucket.per_ms));
        rates.min_by(f64::total_cmp).filter(|rate| *rate > 0.0)
    }

    /// How much of the calls that are not live may leave in one millisecond. Buckets fill up all the time, so nobody
    /// waits for long once one is empty; who empties a long window does so for a reason.
    pub(super) fn bulk_rate(&self) -> Option<f64> {
        let even = self.windows.iter().chain(&self.found).filter(|window| window.is_even());
        let rates =
            even.map(|window| (window.limit - (window.limit * self.rules.reserve).floor()) / ms(window.length_ms));
        let rate = rates.min_by(f64::total_cmp).map(|rate| rate * self.pace);
        rate.filter(|rate| *rate > 0.0)
    }

    /// What calls of a class may use of the allowance in one millisecond.
    pub(super) fn rate_of(&self, class: Class) -> Option<f64> {
        let bulk = class.is_bulk().then(|| self.bulk_rate()).flatten();
        bulk.into_iter().chain(self.rate()).min_by(f64::total_cmp)
    }

    pub(super) fn spread_ms(&self) -> i64 {
        let windows = self.windows.iter().chain(&self.found).map(|window| window.length_ms);
        windows.max().unwrap_or(0).min(MAX_SPREAD_MS)
    }

    /// A call of any class leaves: those that are not live get what it leaves of their pace, so that both together never
    /// use up the window while live calls alone would not.
    pub(super) fn pace_bulk(&mut self, now_ms: i64, cost: f64) {
        let Some(rate) = self.bulk_rate() else { return };
        let from = self.bulk_not_before_ms.max(ms(now_ms) - BULK_BURST_MS);
        // After a window nobody has to wait for what was sent in it.
        let latest = ms(now_ms + self.spread_ms());
        self.bulk_not_before_ms = (from + cost / rate).min(latest);
    }
}
