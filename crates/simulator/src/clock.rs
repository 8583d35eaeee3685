//! The simulator's only clock.
//!
//! A fake provider lives outside the product, so it has a wall clock of its own; nothing else in this
//! crate may ask for the time.

use std::time::UNIX_EPOCH;

/// Milliseconds since the Unix epoch; 0 when the machine's clock stands before it.
pub(crate) fn now_unix_ms() -> i64 {
    let elapsed = UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// Seconds since the Unix epoch.
pub(crate) fn now_unix_s() -> i64 {
    now_unix_ms() / 1000
}

/// A moment as RFC 3339 with milliseconds and `Z`.
pub(crate) fn iso(unix_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(unix_ms)
        .unwrap_or_default()
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
