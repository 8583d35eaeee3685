//! Whether the work that waits in the database can be read: a server that writes and cannot read keeps its lease, and so
//! its runs, and has to say that it does nothing with them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Failures that are over sooner are told by the log alone.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// Open runs, to drive them.
    Runs,
    /// Mail of runs, and runs whose time has come.
    Due,
}

/// Since when each cannot be read, by the clock's `monotonic_ms`.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    failing: Mutex<[Option<i64>; 2]>,
}

impl Reading {
    /// How a read came out at `now_ms`.
    pub(crate) fn note(&self, of: Of, works: bool, now_ms: i64) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let [runs, due] = &mut *failing;
        let since = match of {
            Of::Runs => runs,
            Of::Due => due,
        };
        *since = (!works).then(|| since.unwrap_or(now_ms));
    }

    /// How long the work that waits cannot be read, if that is worth telling.
    pub(crate) fn failing(&self, now_ms: i64) -> Option<Duration> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let first = failing.iter().flatten().min()?;
        let since = Duration::from_millis(u64::try_from(now_ms - first).unwrap_or(0));
        (since >= TOLD_AFTER).then_some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_for_long_is_told_until_it_works() {
        let reading = Reading::default();
        reading.note(Of::Runs, false, 1_000);
        reading.note(Of::Due, false, 3_000);
        reading.note(Of::Runs, false, 4_000);
        assert_eq!(reading.failing(5_999), None, "a blip");
        assert_eq!(reading.failing(7_000), Some(Duration::from_secs(6)));
        reading.note(Of::Runs, true, 7_000);
        assert_eq!(reading.failing(7_000), None);
        assert_eq!(reading.failing(8_000), Some(Duration::from_secs(5)));
        reading.note(Of::Due, true, 8_000);
        assert_eq!(reading.failing(99_000), None);
    }
}
