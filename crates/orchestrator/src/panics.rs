//! Runs whose task panicked: a fault of ours must cost one run, never the node, and must not be repeated for ever.
//!
//! A run is loaded from its journal and tried again, since the cause may be gone; after [`MAX_PANICS`] it ends as a
//! failure that a person sees.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt as _;
use weir_workflow_engine::RunId;

/// How often the task of one run may panic in the life of a process before the run is given up.
pub(crate) const MAX_PANICS: u32 = 3;

/// The code under which such a run ends.
pub(crate) const INTERNAL_ERROR: &str = "internal_error";

/// How often the tasks of runs panicked. Holds only runs that did and have not ended since.
#[derive(Debug, Default)]
pub(crate) struct Panics {
    counts: Mutex<HashMap<RunId, u32>>,
}

impl Panics {
    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more; gives how many there are.
    pub(crate) fn note(&self, run: RunId) -> u32 {
        let mut counts = self.counts();
        let count = counts.entry(run).or_default();
        *count += 1;
        *count
    }

    /// Whether the run must not be tried again.
    pub(crate) fn gave_up(&self, run: RunId) -> bool {
        self.counts().get(&run).is_some_and(|count| *count >= MAX_PANICS)
    }

    /// The run ended.
    pub(crate) fn forget(&self, run: RunId) {
        self.counts().remove(&run);
    }
}

/// What `work` gives, or the message of its panic.
pub(crate) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_message_and_nothing_else_changes() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let index = std::hint::black_box(9);
        let out_of_bounds = caught(async move { [1, 2, 3][index] }).await.unwrap_err();
        assert!(out_of_bounds.contains("index out of bounds"), "{out_of_bounds}");
    }

    #[test]
    fn a_run_is_given_up_after_its_last_try_and_others_are_not() {
        let panics = Panics::default();
        let (one, other) = (RunId::from_raw(1), RunId::from_raw(2));
        for count in 1..=MAX_PANICS {
            assert!(!panics.gave_up(one));
            assert_eq!(panics.note(one), count);
        }
        assert!(panics.gave_up(one) && !panics.gave_up(other));
        panics.forget(one);
        assert!(!panics.gave_up(one));
    }
}
