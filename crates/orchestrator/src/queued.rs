//! How many accepted runs wait at gates: in a lane, for a limit, for a workflow that is paused. They are rows and nothing
//! else, so the bound is far away; beyond it webhooks wait outside instead of filling the disk unseen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::service::Core;

/// How often they are counted when nothing asks for it.
const EVERY: Duration = Duration::from_secs(60);
/// How often at the most.
const LEAST: Duration = Duration::from_secs(1);

/// What is known of them: a count, and how many may have joined since.
#[derive(Debug)]
pub(crate) struct Queued {
    max: u64,
    seen: AtomicU64,
    since: AtomicU64,
    count: Notify,
}

impl Queued {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max: u64::try_from(max).unwrap_or(u64::MAX),
            seen: AtomicU64::new(0),
            since: AtomicU64::new(0),
            count: Notify::new(),
        }
    }

    /// Notes runs that came to wait; how many have passed since is found out by counting.
    pub(crate) fn note(&self, count: usize) {
        if count == 0 {
            return;
        }
        self.since
            .fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        if self.seen.load(Ordering::Relaxed) + self.since.load(Ordering::Relaxed) >= self.max {
            self.count.notify_one();
        }
    }

    /// Whether so many wait that no more are taken, as far as they were counted.
    pub(crate) fn is_full(&self) -> bool {
        let seen = self.seen.load(Ordering::Relaxed);
        if seen >= self.max {
            self.count.notify_one();
        }
        seen >= self.max
    }

    /// Whether half of what is allowed waits.
    pub(crate) fn is_half_full(&self) -> bool {
        self.seen.load(Ordering::Relaxed) >= self.max.div_ceil(2)
    }

    /// How many were counted last.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    fn counted(&self, found: u64) {
        self.since.store(0, Ordering::Relaxed);
        self.seen.store(found, Ordering::Relaxed);
    }
}

/// Counts them until the process stops.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        match core.store.queued_runs().await {
            Ok(found) => {
                core.queued.counted(found);
                #[expect(clippy::cast_precision_loss, reason = "a gauge; there are never so many")]
                metrics::gauge!("weir_runs_queued").set(found as f64);
            }
            Err(error) => tracing::debug!("queued runs cannot be counted yet: {error}"),
        }
        tokio::select! {
            () = tokio::time::sleep(LEAST) => {}
            () = core.stopping.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = core.queued.count.notified() => {}
            () = core.stopping.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_count_closes_the_door() {
        let queued = Queued::new(3);
        queued.note(10);
        assert!(!queued.is_full(), "they may all have passed");
        queued.counted(2);
        assert!(queued.is_half_full() && !queued.is_full());
        queued.counted(3);
        assert!(queued.is_full());
        queued.counted(1);
        assert!(!queued.is_full() && !queued.is_half_full());
    }
}
