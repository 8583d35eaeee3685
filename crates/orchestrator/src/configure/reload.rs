//! Keeping up with changes that other nodes make to the configuration.
//!
//! The heartbeat tells of them within a second. Three things cannot wait for it: a signature that would be refused, an
//! endpoint that is not known here and may be new, and an event whose commit found a newer revision than the one it was
//! routed by.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::looks::{LOOK_EVERY, Looks};
use crate::recovery::HEARTBEAT;
use crate::service::Orchestrator;
use crate::snapshot::{Snapshot, SnapshotError};

/// How often an event is routed before whoever sent it is told to try again: each time a change of the configuration
/// came between its routing and its commit.
pub(crate) const ROUTING_TRIES: usize = 5;

/// When the configuration could not be read, and why.
#[derive(Debug, Default)]
pub(crate) struct Reloading {
    /// One reads at a time, so that an older state never takes the place of a newer one. Holds when the last read
    /// failed, by the clock's `monotonic_ms`.
    one_at_a_time: tokio::sync::Mutex<Option<i64>>,
    failing: std::sync::Mutex<Option<String>>,
}

impl Reloading {
    /// Why the changed configuration is not in force.
    pub(crate) fn failing(&self) -> Option<String> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Orchestrator {
    /// The configuration as it was stored at some moment after this call. `None`: too many ask, or the database does not
    /// answer. Those who ask at the same time share one look.
    pub(crate) async fn latest(&self) -> Option<Arc<Snapshot>> {
        self.look_again(&self.core.looks, LOOK_EVERY).await
    }

    /// The same before somebody hears that an endpoint is not there: one look per heartbeat at most, so that strangers
    /// who try addresses cost no more than an idle node does.
    pub(crate) async fn latest_for_strangers(&self) -> Option<Arc<Snapshot>> {
        self.look_again(&self.core.strangers_looks, HEARTBEAT).await
    }

    async fn look_again(&self, looks: &Looks, every: Duration) -> Option<Arc<Snapshot>> {
        let clock = self.clock();
        let asked_at_ms = clock.monotonic_ms();
        let _place = looks.enter()?;
        let mut looked_at_ms = looks.looked_at_ms.lock().await;
        if *looked_at_ms > asked_at_ms {
            return Some(self.snapshot());
        }
        let since_ms = clock.monotonic_ms().saturating_sub(*looked_at_ms);
        if let Some(rest) = u64::try_from(since_ms)
            .ok()
            .and_then(|since_ms| every.checked_sub(Duration::from_millis(since_ms)))
        {
            tokio::time::sleep(rest).await;
        }
        *looked_at_ms = clock.monotonic_ms();
        self.reload_if_changed().await.then(|| self.snapshot())
    }

    /// Reads the configuration again if it has changed; whether the database answered.
    pub(super) async fn reload_if_changed(&self) -> bool {
        // Connections of the database belong to the runtime that the process was started on; webhooks are taken on others.
        let this = self.clone();
        let looked = self.core.runtime.spawn(async move {
            match this.core.store.config_revision().await {
                Ok(revision) if revision == this.snapshot().revision() => true,
                Ok(_newer) => this.reload().await.is_ok(),
                Err(_) => false,
            }
        });
        looked.await.unwrap_or(false)
    }

    /// The configuration at this revision or a later one. `None`: it cannot be read now. Those who ask at the same time
    /// share one read.
    pub(crate) async fn at_least(&self, revision: i64) -> Option<Arc<Snapshot>> {
        let known = self.snapshot();
        if known.revision() >= revision {
            return Some(known);
        }
        let asked_at_ms = self.clock().monotonic_ms();
        let this = self.clone();
        let reading = self.core.runtime.spawn(async move {
            let mut failed_at_ms = this.core.reloading.one_at_a_time.lock().await;
            let known = this.snapshot();
            if known.revision() >= revision {
                return Some(known);
            }
            if failed_at_ms.is_some_and(|at_ms| at_ms >= asked_at_ms) {
                return None;
            }
            this.read(&mut failed_at_ms).await.ok()
        });
        reading.await.ok().flatten()
    }

    /// Reads the configuration again and puts it in force.
    ///
    /// # Errors
    /// The stored configuration cannot be read; the one in force stays.
    pub(crate) async fn reload(&self) -> Result<Arc<Snapshot>, SnapshotError> {
        let mut failed_at_ms = self.core.reloading.one_at_a_time.lock().await;
        self.read(&mut failed_at_ms).await
    }

    async fn read(&self, failed_at_ms: &mut Option<i64>) -> Result<Arc<Snapshot>, SnapshotError> {
        let core = &self.core;
        let before = self.snapshot();
        let read = Snapshot::load(&core.store, &core.secrets, &core.registry, Some(&before)).await;
        let mut failing = core.reloading.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(fresh) => {
                (*failing, *failed_at_ms) = (None, None);
                let fresh = Arc::new(fresh);
                core.snapshot.store(Arc::clone(&fresh));
                if let Some(grants) = &core.performer.grants {
                    grants.forget();
                }
                core.schedules.changed.notify_one();
                core.sweeps.changed.notify_one();
                core.resumed.notify_one();
                Ok(fresh)
            }
            Err(error) => {
                *failing = Some(error.to_string());
                *failed_at_ms = Some(self.clock().monotonic_ms());
                Err(error)
            }
        }
    }
}
