//! The clocks of the benchmark: a monotonic one for every latency, the wall clock for signatures.
//!
//! All latencies of a run are differences of readings of one [`Clock`]; the wall clock never enters one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the start of the process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    /// A clock that reads 1 now; 0 is free to mean "never".
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Nanoseconds since the start, at least 1.
    pub fn now_ns(&self) -> u64 {
        nanoseconds(self.began.elapsed()) + 1
    }
}

/// `duration` in nanoseconds; saturates after 584 years.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a benchmark signs with the real time")]
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
