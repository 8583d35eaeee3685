//! What arrives at endpoints, counted in memory and added to the hours of the coverage ledger now and then, so that the
//! way of a webhook gets no statement more. A crash loses the counts of the last second, never an event.

use super::suspicion::Heard;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use weir_storage::CoverageCount;
use weir_workflow_engine::{EndpointId, Timestamp, WorkspaceId};

/// How an event came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// New, by webhook.
    Received,
    /// New, by poll: nobody would have sent it.
    Polled,
    /// New, by sweep.
    Recovered,
    /// New, by backfill.
    Backfilled,
    /// It was here already, and came by webhook.
    Again,
    /// It was here already, and was listed.
    Known,
}

/// The counts that are not stored yet.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    counts: HashMap<(EndpointId, i32), CoverageCount>,
    heard: HashMap<EndpointId, Heard>,
}

impl Open {
    fn add(&mut self, more: CoverageCount) {
        let known = self.counts.entry((more.endpoint, more.hour)).or_insert(CoverageCount {
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
}

impl Ledger {
    fn with<T>(&self, act: impl FnOnce(&mut Open) -> T) -> T {
        act(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts one event.
    pub(crate) fn count(&self, endpoint: (WorkspaceId, EndpointId), came: Came, now: Timestamp) {
        let hour = i32::try_from(now.as_unix_ms().div_euclid(3_600_000)).unwrap_or(i32::MAX);
        let any = |ways: &[Came]| u64::from(ways.contains(&came));
        let count = CoverageCount {
            endpoint: endpoint.1,
            workspace: endpoint.0,
            hour,
            received: any(&[Came::Received, Came::Polled]),
            recovered: any(&[Came::Recovered]),
            backfilled: any(&[Came::Backfilled]),
            duplicates: any(&[Came::Again, Came::Known]),
        };
        let by_webhook = any(&[Came::Received, Came::Again]);
        self.with(|open| {
            open.add(count);
            if by_webhook > 0 {
                let heard = open.heard.entry(endpoint.1).or_insert(Heard {
                    count: 0,
                    first: now,
                    last: now,
                });
                heard.count += by_webhook;
                heard.first = now.min(heard.first);
                heard.last = now.max(heard.last);
            }
        });
    }

    /// Adds counts that could not be stored.
    pub(crate) fn add(&self, more: CoverageCount) {
        self.with(|open| open.add(more));
    }

    /// Takes which webhooks came to which endpoint.
    pub(crate) fn take_heard(&self) -> HashMap<EndpointId, Heard> {
        self.with(|open| std::mem::take(&mut open.heard))
    }

    /// Takes what there is to store.
    pub(crate) fn take(&self) -> Vec<CoverageCount> {
        self.with(|open| open.counts.drain().map(|(_, count)| count).collect())
    }
}
