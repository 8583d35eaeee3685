//! What arrives at endpoints, counted in memory and added to the hours of the coverage ledger now and then, so that the
//! way of a webhook gets no statement more. A crash loses the counts of the last second, never an event.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use weir_storage::CoverageCount;
use weir_workflow_engine::{EndpointId, Timestamp, WorkspaceId};

/// How an event came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// New, by webhook.
    Received,
    /// New, by sweep.
    Recovered,
    /// New, by backfill.
    Backfilled,
    /// It was here already.
    Again,
}

/// The counts that are not stored yet.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    open: Mutex<HashMap<(EndpointId, i32), CoverageCount>>,
}

impl Ledger {
    /// Counts one event.
    pub(crate) fn count(&self, endpoint: (WorkspaceId, EndpointId), came: Came, now: Timestamp) {
        let hour = i32::try_from(now.as_unix_ms().div_euclid(3_600_000)).unwrap_or(i32::MAX);
        let one = |way: Came| u64::from(came == way);
        self.add(CoverageCount {
            endpoint: endpoint.1,
            workspace: endpoint.0,
            hour,
            received: one(Came::Received),
            recovered: one(Came::Recovered),
            backfilled: one(Came::Backfilled),
            duplicates: one(Came::Again),
        });
    }

    /// Adds counts, also such as could not be stored.
    pub(crate) fn add(&self, more: CoverageCount) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = open.entry((more.endpoint, more.hour)).or_insert(CoverageCount {
            received: 0,
            recovered: 0,
            backfilled: 0,
            duplicates: 0,
            ..more
        });
        known.received += more.received;
        known.recovered += more.recovered;
        known.backfilled += more.backfilled;
        known.duplicates += more.duplicates;
    }

    /// Takes what there is to store.
    pub(crate) fn take(&self) -> Vec<CoverageCount> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.drain().map(|(_, count)| count).collect()
    }
}
