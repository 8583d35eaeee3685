//! Time: the only module that asks the machine for it.
//!
//! Everything else takes a [`Clock`] or a [`Timestamp`], so that a test can hold time still.
//! Nothing here may be used to order facts of different nodes; the database's own time does that.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir_workflow_engine::Timestamp;

/// Where "now" comes from.
pub trait Clock: Send + Sync {
    /// Wall-clock time, to the millisecond. May step when the machine's clock is corrected.
    fn now(&self) -> Timestamp;

    /// Milliseconds since some fixed moment, by a clock that never steps. Only differences mean anything.
    fn monotonic_ms(&self) -> i64 {
        self.now().as_unix_ms()
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the machine's clock"
    )]
    fn now(&self) -> Timestamp {
        let unix_ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            // A clock before 1970 is a machine without a battery; zero keeps every later comparison sane.
            Err(_) => 0,
        };
        Timestamp::from_unix_ms(unix_ms)
    }

    fn monotonic_ms(&self) -> i64 {
        static FIRST_USE: OnceLock<Stopwatch> = OnceLock::new();
        let elapsed = FIRST_USE.get_or_init(Stopwatch::start).elapsed();
        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A clock that moves only when it is told to. For tests and rehearsals.
#[derive(Debug)]
pub struct ManualClock {
    unix_ms: AtomicI64,
    monotonic_ms: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        ManualClock {
            unix_ms: AtomicI64::new(start.as_unix_ms()),
            monotonic_ms: AtomicI64::new(0),
        }
    }

    /// Puts the clock to `now`, forwards or backwards, like an administrator: the monotonic clock does not notice.
    pub fn set(&self, now: Timestamp) {
        self.unix_ms.store(now.as_unix_ms(), Ordering::SeqCst);
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.set(self.now().plus(by));
        self.monotonic_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.unix_ms.load(Ordering::SeqCst))
    }

    fn monotonic_ms(&self) -> i64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }
}

/// Measures how long something took, by the monotonic clock, which never steps.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    started: Instant,
}

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the monotonic clock"
    )]
    pub fn start() -> Self {
        Stopwatch {
            started: Instant::now(),
        }
    }

    /// Time since [`Stopwatch::start`].
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// [`Stopwatch::elapsed`] in whole milliseconds, capped at `u32::MAX` (49 days).
    #[must_use]
    pub fn elapsed_ms(&self) -> u32 {
        u32::try_from(self.elapsed().as_millis()).unwrap_or(u32::MAX)
    }
}
