//! How many runs may be in memory before intake gives way to them.
//!
//! An acknowledgement costs less than a run, so a busy processor takes events faster than it works on them. What it
//! takes beyond that only makes everything later: more memory, fewer hits in its caches, a longer way for each event.
//! So the bound follows what can be seen of the processor: how long a run that may begin has to wait for it. A slow
//! provider is no reason to take less: runs that wait for an answer keep nobody waiting.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// So many runs are always worked on side by side: enough for full commits, for calls that are under way, and for what
/// comes in while a disk takes its time.
const FEW: usize = 128;
/// A run that waited longer than this for the processor began late.
const LATE: Duration = Duration::from_millis(10);
/// How much the bound grows with each run that began in time.
const GROWTH: usize = 1;

/// The bound, between [`FEW`] and half of what memory holds.
#[derive(Debug)]
pub(crate) struct Crowding {
    most: usize,
    bound: AtomicUsize,
}

impl Crowding {
    /// `max_in_memory`: how many runs may be in memory at all.
    pub(crate) fn new(max_in_memory: usize) -> Self {
        let most = max_in_memory / 2;
        Self {
            most,
            bound: AtomicUsize::new(most),
        }
    }

    /// From how many runs in memory on intake gives way.
    pub(crate) fn bound(&self) -> usize {
        self.bound.load(Ordering::Relaxed)
    }

    /// A run began that had waited for the processor, with so many in memory.
    pub(crate) fn began(&self, waited: Duration, in_memory: usize) {
        let bound = self.bound();
        let next = if waited > LATE {
            let crowd = bound.min(in_memory);
            (crowd - crowd / 8).max(FEW)
        } else {
            bound + GROWTH
        };
        // Two at once may overwrite each other; the next ones mend it.
        self.bound.store(next.min(self.most), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(300);
    const LATER: Duration = Duration::from_millis(40);

    #[test]
    fn a_busy_processor_lowers_the_bound_and_an_idle_one_raises_it_again() {
        let crowding = Crowding::new(2048);
        assert_eq!(crowding.bound(), 1024, "half of what memory holds");
        (0..40).for_each(|_| crowding.began(LATER, 700));
        assert_eq!(crowding.bound(), FEW);
        (0..1000).for_each(|_| crowding.began(SOON, FEW));
        assert_eq!(crowding.bound(), 1024);
    }

    #[test]
    fn runs_that_wait_for_a_slow_provider_are_not_in_the_way() {
        let crowding = Crowding::new(2048);
        (0..1000).for_each(|in_memory| crowding.began(SOON, in_memory));
        assert_eq!(crowding.bound(), 1024);
    }

    #[test]
    fn a_small_memory_has_a_small_bound() {
        let crowding = Crowding::new(10);
        (0..10).for_each(|_| crowding.began(LATER, 5));
        assert_eq!(crowding.bound(), 5);
    }
}
