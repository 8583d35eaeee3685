//! The shapes of an allowance: window, bucket, day, and what answers tell. Each says whether a cost fits now, and when
//! it will.
//!
//! Costs are numbers of requests, or points where operations have a cost. All times are Unix milliseconds.

use weir_connector_sdk::{Daily, Told};

/// Parts that a window is counted in. What arrives in a part counts until the whole part is a window old.
const SLICES: usize = 50;
/// The parts of a window, the one that ends, and the one in which what is sent now arrives.
const RING: usize = SLICES + 2;
/// A request is counted as if it arrived so much later than it left: one that takes this long on its way does not meet a
/// faster one that left a window later.
const ON_ITS_WAY_MS: i64 = 20;
/// Longest span whose requests are spread evenly.
pub(super) const MAX_SPREAD_MS: i64 = 60_000;

/// Requests of the last so many milliseconds, in bounded memory.
#[derive(Debug, Clone)]
pub(super) struct Window {
    pub(super) limit: f64,
    pub(super) length_ms: i64,
    slice_ms: i64,
    ring: [f64; RING],
    used: f64,
    /// The part of this moment.
    slice: i64,
}

#[expect(clippy::cast_precision_loss, reason = "spans in milliseconds are exact in a double")]
pub(super) fn ms(span_ms: i64) -> f64 {
    span_ms as f64
}

/// Spans and moments alike.
#[expect(clippy::cast_possible_truncation, reason = "far below 2^53 milliseconds")]
pub(super) fn whole_ms(exact_ms: f64) -> i64 {
    exact_ms.clamp(0.0, 1e14).ceil() as i64
}

impl Window {
    pub(super) fn new(limit: f64, length_ms: i64) -> Self {
        let slices = i64::try_from(SLICES).unwrap_or(i64::MAX);
        Window {
            limit,
            length_ms,
            slice_ms: (length_ms / slices).max(1),
            ring: [0.0; RING],
            used: 0.0,
            slice: 0,
        }
    }

    fn place(slice: i64) -> usize {
        let ring = i64::try_from(RING).unwrap_or(i64::MAX);
        usize::try_from(slice.rem_euclid(ring)).unwrap_or(0)
    }

    /// Forgets what is older than the window.
    fn advance(&mut self, now_ms: i64) {
        let slice = now_ms.div_euclid(self.slice_ms);
        // A clock that goes back changes nothing until it has caught up.
        let passed = slice - self.slice;
        if passed <= 0 {
            return;
        }
        if passed >= i64::try_from(RING).unwrap_or(i64::MAX) {
            self.ring = [0.0; RING];
            self.used = 0.0;
        } else {
            for old in self.slice + 1..=slice {
                if let Some(count) = self.ring.get_mut(Self::place(old + 1)) {
                    self.used -= *count;
                    *count = 0.0;
                }
            }
            self.used = self.used.max(0.0);
        }
        self.slice = slice;
    }

    pub(super) fn used(&mut self, now_ms: i64) -> f64 {
        self.advance(now_ms);
        self.used
    }

    /// `None`: `cost` fits under `limit` now. Otherwise when it will, if nothing else is sent.
    pub(super) fn waits_until(&mut self, now_ms: i64, cost: f64, limit: f64) -> Option<i64> {
        self.advance(now_ms);
        let cost = cost.min(limit);
        let mut over = self.used + cost - limit;
        if over <= 0.0 {
            return None;
        }
        let slices = i64::try_from(SLICES).unwrap_or(i64::MAX);
        for slice in self.slice - slices..=self.slice + 1 {
            over -= self.ring.get(Self::place(slice)).copied().unwrap_or(0.0);
            if over <= 1e-9 {
                return Some((slice + slices + 1) * self.slice_ms);
            }
        }
        Some(now_ms + self.length_ms)
    }

    pub(super) fn take(&mut self, now_ms: i64, cost: f64) {
        self.advance(now_ms);
        let arrives = (now_ms + ON_ITS_WAY_MS).div_euclid(self.slice_ms);
        let slice = arrives.clamp(self.slice, self.slice + 1);
        if let Some(count) = self.ring.get_mut(Self::place(slice)) {
            *count += cost;
            self.used += cost;
        }
    }

    /// Whether what it allows is used evenly where that matters. Longer ones are there to be used when there is need.
    pub(super) fn is_even(&self) -> bool {
        self.length_ms <= MAX_SPREAD_MS
    }

    /// What one millisecond allows.
    pub(super) fn rate(&self) -> f64 {
        self.limit / ms(self.length_ms)
    }
}

/// A bucket that refills all the time.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub(super) size: f64,
    pub(super) per_ms: f64,
    left: f64,
    at_ms: i64,
}

impl Bucket {
    pub(super) fn new(size: f64, refill_per_s: f64) -> Self {
        Bucket {
            size,
            per_ms: refill_per_s / 1_000.0,
            left: size,
            at_ms: 0,
        }
    }

    pub(super) fn left(&mut self, now_ms: i64) -> f64 {
        let passed = (now_ms - self.at_ms).max(0);
        self.left = (self.left + ms(passed) * self.per_ms).min(self.size);
        self.at_ms = self.at_ms.max(now_ms);
        self.left
    }

    pub(super) fn waits_until(&mut self, now_ms: i64, cost: f64, reserve: f64) -> Option<i64> {
        let missing = cost.min(self.size - reserve) + reserve - self.left(now_ms);
        (missing > 1e-9).then(|| now_ms + whole_ms(missing / self.per_ms).max(1))
    }

    pub(super) fn take(&mut self, now_ms: i64, cost: f64) {
        self.left = (self.left(now_ms) - cost).max(0.0);
    }
}

/// An allowance from one reset to the next.
#[derive(Debug, Clone)]
pub(super) struct Day {
    pub(super) limit: f64,
    pub(super) used: f64,
    pub(super) resets_at_ms: i64,
    rule: Daily,
}

impl Day {
    pub(super) fn new(rule: Daily, limit: f64) -> Self {
        Day {
            limit,
            used: 0.0,
            resets_at_ms: 0,
            rule,
        }
    }

    pub(super) fn advance(&mut self, now_ms: i64) {
        if now_ms >= self.resets_at_ms {
            self.used = 0.0;
            self.resets_at_ms = self.rule.next_reset_ms(now_ms);
        }
    }

    pub(super) fn waits_until(&mut self, now_ms: i64, cost: f64, reserve: f64) -> Option<i64> {
        self.advance(now_ms);
        let limit = self.limit - reserve;
        (self.used + cost.min(limit) > limit).then_some(self.resets_at_ms)
    }
}

/// How long what an answer told is believed when it does not say until when, and nothing is left.
const FORGET_NOTHING_LEFT_MS: i64 = 60_000;
/// The same when something is left.
const FORGET_MS: i64 = 10_000;

/// What the last answers told of one allowance of the provider.
#[derive(Debug, Clone)]
pub(super) struct Learned {
    pub(super) name: String,
    pub(super) limit: Option<f64>,
    remaining: f64,
    pub(super) resets_at_ms: i64,
    restore_per_ms: f64,
    at_ms: i64,
}

impl Learned {
    /// `open`: what was sent and has not been answered; the provider may not have counted it yet.
    pub(super) fn new(told: &Told, now_ms: i64, open: f64) -> Option<Self> {
        let remaining = told.remaining.filter(|remaining| remaining.is_finite())? - open;
        let stated = told.resets_in_ms.and_then(|span| i64::try_from(span).ok());
        let window = told.window_s.map(|seconds| whole_ms(seconds * 1_000.0));
        let forget = if remaining < 1.0 {
            FORGET_NOTHING_LEFT_MS
        } else {
            FORGET_MS
        };
        Some(Learned {
            name: told.name.clone(),
            limit: told.limit.filter(|limit| limit.is_finite() && *limit >= 1.0),
            remaining,
            resets_at_ms: now_ms.saturating_add(stated.or(window).unwrap_or(forget).max(1)),
            restore_per_ms: told
                .restore_per_s
                .filter(|rate| rate.is_finite() && *rate > 0.0)
                .unwrap_or(0.0)
                / 1_000.0,
            at_ms: now_ms,
        })
    }

    pub(super) fn is_over(&self, now_ms: i64) -> bool {
        now_ms >= self.resets_at_ms
    }

    pub(super) fn remaining(&mut self, now_ms: i64) -> f64 {
        let passed = ms((now_ms - self.at_ms).max(0));
        self.remaining += passed * self.restore_per_ms;
        if let Some(limit) = self.limit {
            self.remaining = self.remaining.min(limit);
        }
        self.at_ms = self.at_ms.max(now_ms);
        self.remaining
    }

    /// `share`: the part of the whole that is kept.
    pub(super) fn waits_until(&mut self, now_ms: i64, cost: f64, share: f64) -> Option<i64> {
        if self.is_over(now_ms) {
            return None;
        }
        let reserve = self.limit.map_or(0.0, |limit| (limit * share).floor());
        let cost = self.limit.map_or(cost, |limit| cost.min(limit - reserve));
        let missing = cost + reserve - self.remaining(now_ms);
        if missing <= 1e-9 {
            return None;
        }
        let restored = (self.restore_per_ms > 0.0).then(|| now_ms + whole_ms(missing / self.restore_per_ms).max(1));
        Some(restored.map_or(self.resets_at_ms, |at| at.min(self.resets_at_ms)))
    }

    pub(super) fn take(&mut self, cost: f64) {
        self.remaining -= cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_span_of_a_window_holds_more_than_its_limit() {
        let mut window = Window::new(50.0, 1_000);
        let mut sent: Vec<i64> = Vec::new();
        // Bursts, pauses, a clock that steps back.
        let mut now = 1_000_000_i64;
        for round in 0..20_000_i64 {
            now += [0, 0, 1, 3, 40, -2][usize::try_from(round % 6).unwrap()];
            if window.waits_until(now, 1.0, 50.0).is_none() {
                window.take(now, 1.0);
                sent.push(now);
            }
        }
        for at in &sent {
            let near = sent
                .iter()
                .filter(|other| (**other > at - 998) && **other <= *at)
                .count();
            assert!(near <= 50, "{near} in the second before {at}");
        }
        assert!(sent.len() > 5_000, "{}", sent.len());
    }

    #[test]
    fn a_window_says_when_there_is_room() {
        let mut window = Window::new(2.0, 10_000);
        let start = 1_000_000;
        window.take(start, 2.0);
        let at = window.waits_until(start + 5_000, 1.0, 2.0).unwrap();
        assert!((start + 10_000..=start + 10_400).contains(&at), "{at}");
        assert_eq!(window.waits_until(at - 1, 1.0, 2.0), Some(at));
        assert_eq!(window.waits_until(at, 1.0, 2.0), None);
        // What costs more than all there is waits for all there is.
        assert_eq!(window.waits_until(at, 9.0, 2.0), None);
    }

    #[test]
    fn a_bucket_refills_to_its_size() {
        let mut bucket = Bucket::new(40.0, 2.0);
        let start = 1_000_000;
        bucket.take(start, 40.0);
        assert_eq!(bucket.waits_until(start, 3.0, 0.0), Some(start + 1_500));
        assert_eq!(bucket.waits_until(start + 1_500, 3.0, 0.0), None);
        assert_eq!(bucket.waits_until(start + 1_500, 3.0, 8.0), Some(start + 5_500));
        assert!((bucket.left(start + 1_000_000) - 40.0).abs() < 1e-9);
    }

    #[test]
    fn what_an_answer_told_holds_until_its_reset() {
        let told = Told {
            limit: Some(100.0),
            remaining: Some(22.0),
            resets_in_ms: Some(5_000),
            ..Told::default()
        };
        let start = 1_000_000;
        let mut learned = Learned::new(&told, start, 1.0).unwrap();
        assert_eq!(learned.waits_until(start, 1.0, 0.2), None);
        learned.take(1.0);
        assert_eq!(learned.waits_until(start, 1.0, 0.2), Some(start + 5_000));
        assert_eq!(learned.waits_until(start, 1.0, 0.0), None);
        assert_eq!(learned.waits_until(start + 5_000, 1.0, 0.2), None);
        let points = Told {
            remaining: Some(0.0),
            restore_per_s: Some(100.0),
            ..told
        };
        let mut learned = Learned::new(&points, start, 0.0).unwrap();
        assert_eq!(learned.waits_until(start, 50.0, 0.0), Some(start + 500));
    }
}
