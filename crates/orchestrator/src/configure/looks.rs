//! Bounds how often and by how many the stored configuration is asked for before a signature is refused or an endpoint is
//! said to be unknown: a flood of bad requests must become neither a flood of statements nor a crowd that waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// Time between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Requests that may wait for a look. Those beyond are refused at once; a rightful sender sends again.
///
/// Limit: requests that wait at once for a second look at secrets and endpoints, before they are refused | refused without it: 401 or 404 | `a_crowd_is_bounded_and_places_come_back`
const MAX_WAITING: usize = 16;

/// Who looks, and when it was looked last.
#[derive(Debug)]
pub(crate) struct Looks {
    waiting: AtomicUsize,
    /// When the last look began, by the clock's `monotonic_ms`.
    pub(crate) looked_at_ms: Mutex<i64>,
}

impl Default for Looks {
    fn default() -> Self {
        Looks {
            waiting: AtomicUsize::new(0),
            looked_at_ms: Mutex::new(i64::MIN),
        }
    }
}

/// A place among those who wait; given back when dropped.
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl Looks {
    pub(crate) fn enter(&self) -> Option<Waiting<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Waiting(&self.waiting);
        (before < MAX_WAITING).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_bounded_and_places_come_back() {
        let looks = Looks::default();
        let places: Vec<_> = (0..MAX_WAITING).map(|_| looks.enter()).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(looks.enter().is_none());
        drop(places);
        assert!(looks.enter().is_some());
    }
}
