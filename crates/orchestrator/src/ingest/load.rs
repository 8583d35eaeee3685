//! Sheds webhooks while acknowledging takes too long: a provider that hears 503 at once sends again later, one that waits in
//! a line of thousands gives up and sends again anyway.
//!
//! Two conditions together, so that a burst on an idle server is taken whole: many requests are under way, and those
//! that were answered lately waited too long.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Requests under way below which nothing is shed.
const ALWAYS_TAKEN: usize = 32;
/// Average time to an acknowledgement above which more than [`ALWAYS_TAKEN`] requests are not taken on.
const TOO_SLOW: Duration = Duration::from_millis(25);
/// Weight of one answer in the average: the last eight count.
const WEIGHT: u64 = 8;

/// How busy intake is.
#[derive(Debug, Default)]
pub(crate) struct IntakeLoad {
    under_way: AtomicUsize,
    average_us: AtomicU64,
}

/// One request under way; leaves when dropped.
#[derive(Debug)]
pub(crate) struct UnderWay<'a>(&'a IntakeLoad);

impl IntakeLoad {
    /// Lets a request in, or not.
    pub(crate) fn enter(&self) -> Option<UnderWay<'_>> {
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        let place = UnderWay(self);
        let slow = u128::from(self.average_us.load(Ordering::Relaxed)) > TOO_SLOW.as_micros();
        if before >= ALWAYS_TAKEN && slow {
            None
        } else {
            Some(place)
        }
    }

    /// Notes how long an acknowledgement took.
    pub(crate) fn answered(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / WEIGHT);
        let average = self.average_us.load(Ordering::Relaxed);
        // Two answers at once may overwrite each other; the average does not mind.
        self.average_us
            .store((average * (WEIGHT - 1) + took_us) / WEIGHT, Ordering::Relaxed);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_a_lasting_overload_is_shed() {
        let load = IntakeLoad::default();
        let burst: Vec<_> = (0..1000).map(|_| load.enter()).collect();
        assert!(burst.iter().all(Option::is_some), "an idle server takes a burst");
        (0..50).for_each(|_| load.answered(Duration::from_millis(400)));
        assert!(load.enter().is_none(), "slow and crowded");
        drop(burst);
        let few: Vec<_> = (0..ALWAYS_TAKEN).map(|_| load.enter()).collect();
        assert!(few.iter().all(Option::is_some), "slow alone sheds nothing");
        assert!(load.enter().is_none());
        (0..50).for_each(|_| load.answered(Duration::from_millis(2)));
        assert!(load.enter().is_some(), "it recovers");
    }
}
