//! This node's lease by its own clock: no effect leaves while it may be over.
//!
//! The database fences what a stalled node writes, but not the bytes it sends. So the lease is looked at right before the
//! first byte of an effect, by a clock that never steps and does not stand still while the machine sleeps. It is counted
//! from when the heartbeat was asked for, so it ends here before it ends in the database. What is left is a stall between
//! this look and the system call; there the effect's class decides, as after a crash.

use crate::clock::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use weir_storage::LEASE;

/// Time between two looks of a call that waits for the lease.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A heartbeat that comes this long after the one before tells that the database could not be reached.
const MISSED: Duration = Duration::from_millis(2_500);
/// How long a node that could not reach the database leaves the others alone: they have just as much to come back.
const PATIENCE: Duration = Duration::from_secs(8);

/// Whether this node may send effects now.
pub struct Lease {
    clock: Arc<dyn Clock>,
    /// By [`Clock::monotonic_ms`].
    until_ms: AtomicI64,
    /// When it was renewed after heartbeats were missed.
    back_ms: AtomicI64,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("until_ms", &self.until_ms)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// Of a process that keeps all others out by a file lock: it ends with the process.
    #[must_use]
    pub fn exclusive(clock: Arc<dyn Clock>) -> Self {
        Lease {
            clock,
            until_ms: AtomicI64::new(i64::MAX),
            back_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// Of one node among several: over until it is renewed for the first time.
    #[must_use]
    pub fn shared(clock: Arc<dyn Clock>) -> Self {
        Lease {
            clock,
            until_ms: AtomicI64::new(i64::MIN),
            back_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// The database renewed the lease when it was asked at `asked_at_ms` by [`Clock::monotonic_ms`].
    pub fn renew(&self, asked_at_ms: i64) {
        let until_ms = asked_at_ms + ms(LEASE);
        let before = self.until_ms.fetch_max(until_ms, Ordering::AcqRel);
        if before != i64::MIN && until_ms.saturating_sub(before) > ms(MISSED) {
            self.back_ms.fetch_max(asked_at_ms, Ordering::AcqRel);
        }
    }

    /// Whether a lease of another node that is over tells that it is gone. Not right after this node could not renew its
    /// own: what was in the way of one was in the way of all, and whoever is back first would fence the others.
    pub(crate) fn may_judge_others(&self) -> bool {
        let back_ms = self.back_ms.load(Ordering::Acquire);
        self.clock.monotonic_ms() >= back_ms.saturating_add(ms(PATIENCE))
    }

    /// Whether it certainly holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.clock.monotonic_ms() < self.until_ms.load(Ordering::Acquire)
    }

    /// Waits until it holds.
    pub(crate) async fn held(&self) {
        while !self.holds() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use weir_workflow_engine::Timestamp;

    #[test]
    fn it_ends_where_it_began_plus_its_length() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_unix_ms(0)));
        let lease = Lease::shared(clock.clone());
        assert!(!lease.holds());
        lease.renew(clock.monotonic_ms());
        assert!(lease.holds());
        clock.advance(LEASE - Duration::from_millis(1));
        assert!(lease.holds());
        // Setting the wall clock changes nothing.
        clock.set(Timestamp::from_unix_ms(-1_000_000));
        assert!(lease.holds());
        clock.advance(Duration::from_millis(1));
        assert!(!lease.holds());
        // An answer that comes late renews from when it was asked for.
        lease.renew(1_000);
        assert!(lease.holds());
        clock.advance(Duration::from_secs(1));
        assert!(!lease.holds());
        assert!(Lease::exclusive(clock).holds());
    }

    #[test]
    fn who_could_not_renew_leaves_the_others_alone_for_a_while() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_unix_ms(0)));
        let lease = Lease::shared(clock.clone());
        let beat = |after: Duration| {
            clock.advance(after);
            lease.renew(clock.monotonic_ms());
            lease.may_judge_others()
        };
        assert!(lease.may_judge_others());
        assert!(beat(Duration::from_secs(60)), "a start is no absence");
        for _ in 0..20 {
            assert!(beat(Duration::from_secs(1)));
        }
        assert!(beat(MISSED), "one beat may be late");
        assert!(!beat(Duration::from_secs(9)));
        for _ in 0..7 {
            assert!(!beat(Duration::from_secs(1)));
        }
        assert!(beat(Duration::from_secs(1)));
        // Also when its own lease held all the time.
        assert!(!beat(Duration::from_secs(4)));
    }
}
