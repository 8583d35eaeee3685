//! Sweeps: what a provider lists and never delivered is found, and enters by the same door as its webhooks.
//!
//! When which endpoint is swept is decided by `plan`, how a list is walked by `place`, both without IO; `pass` reads,
//! stores and moves on. The times are in memory: idling asks the database nothing. Every node plans, and a claim in
//! the database lets one of them sweep.

mod backfill;
mod door;
mod failures;
mod ledger;
mod pass;
mod place;
mod plan;
mod suspicion;

pub use backfill::{
    BackfillBound, BackfillPreview, BackfillRefusal, BackfillWorkflow, MAX_BACKFILL_PAGES, MAX_BACKFILLS_AT_ONCE,
    NoRange, percent,
};
pub use pass::MAX_PAGES_PER_PASS;
pub use plan::{SweepCause, SweepOutcome};
pub use suspicion::{MAX_NUMBERS_AHEAD, MAX_SEQUENCES};

pub(crate) use backfill::work as backfills;
pub(crate) use ledger::{Came, Ledger};

use crate::ingest::EndpointRef;
use crate::service::{Core, Orchestrator};
use crate::snapshot::{Endpoint, Snapshot};
use futures::FutureExt as _;
use pass::Passed;
use plan::{Due, Planner, Swept};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use weir_connector_sdk::{Level, Recover};
use weir_storage::{Fact, SweepRow};
use weir_workflow_engine::{EndpointId, Timestamp, WorkspaceId};

/// Sweeps of this node at the same time: one slow provider keeps only its own place.
const SWEEPS_AT_ONCE: usize = 8;
/// The longest sleep of the loop: counts are stored, and a clock that was set is noticed, after it.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The sweeps of this node.
#[derive(Default)]
pub(crate) struct Sweeps {
    planner: Mutex<Planner>,
    /// There may be something to do.
    pub(crate) changed: Notify,
}

impl Sweeps {
    fn with<T>(&self, act: impl FnOnce(&mut Planner) -> T) -> T {
        act(&mut self.planner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A webhook request was refused because its proof is wrong.
    pub(crate) fn refused(&self, endpoint: EndpointId, now: Timestamp) {
        if self.with(|planner| planner.refused(endpoint, now)) {
            self.changed.notify_one();
        }
    }

    /// The webhook of an endpoint was gone or changed at its provider, and is right again.
    pub(crate) fn registered_anew(&self, endpoint: EndpointId, now: Timestamp) {
        if self.with(|planner| planner.demand(endpoint, SweepCause::Registration, now)) {
            self.changed.notify_one();
        }
    }

    /// An event came that has this place in its account's sequence.
    pub(crate) fn saw(&self, endpoint: EndpointId, account: &str, number: u64, now: Timestamp) {
        self.with(|planner| planner.saw(endpoint, account, number, now));
    }
}

/// Why an endpoint cannot be swept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SweepRefusal {
    /// There is no such endpoint.
    #[error("there is no such endpoint")]
    NotFound,
    /// Its connector lists nothing.
    #[error("connector `{0}` has level C: its provider lists no events that were missed")]
    PushOnly(String),
    /// It has no connection to ask with.
    #[error("endpoint `{0}` has no `connection`, and without one the provider cannot be asked; add it to the endpoint")]
    NoConnection(String),
    /// The configuration is being read.
    #[error("the endpoint is not planned yet; try again in a moment")]
    NotPlanned,
}

/// What can be swept of an endpoint: its level, and why not.
pub(crate) fn sweepable(endpoint: &Endpoint) -> Result<Level, SweepRefusal> {
    let connector = endpoint.connector();
    let level = endpoint
        .way_in()
        .and_then(|webhook| webhook.recover())
        .map_or(Level::PushOnly, |recover| recover.level);
    if level == Level::PushOnly {
        return Err(SweepRefusal::PushOnly(connector.name().to_owned()));
    }
    if endpoint.connection().is_none() {
        return Err(SweepRefusal::NoConnection(endpoint.name().to_owned()));
    }
    Ok(level)
}

impl Orchestrator {
    /// Asks for a sweep of an endpoint now. It runs behind the answer; the coverage ledger says what became of it.
    ///
    /// # Errors
    /// [`SweepRefusal`].
    pub fn sweep(&self, workspace: WorkspaceId, endpoint: EndpointId) -> Result<(), SweepRefusal> {
        let snapshot = self.snapshot();
        let found = snapshot
            .endpoint(&EndpointRef::Id(endpoint))
            .filter(|found| found.workspace() == workspace)
            .ok_or(SweepRefusal::NotFound)?;
        sweepable(found)?;
        let now = self.core.clock.now();
        let planned = self
            .core
            .sweeps
            .with(|planner| planner.demand(endpoint, SweepCause::Demand, now));
        if !planned {
            return Err(SweepRefusal::NotPlanned);
        }
        self.core.sweeps.changed.notify_one();
        Ok(())
    }
}

fn swept(snapshot: &Snapshot) -> Vec<Swept> {
    let able = snapshot.all_endpoints().filter(|endpoint| sweepable(endpoint).is_ok());
    able.map(|endpoint| {
        let recover = endpoint.way_in().and_then(|webhook| webhook.recover());
        let seconds =
            |of: fn(&Recover) -> u64| recover.map_or(Duration::ZERO, |recover| Duration::from_secs(of(recover)));
        let failures = recover.and_then(|recover| recover.failures.as_ref());
        Swept {
            endpoint: endpoint.id(),
            every: endpoint.swept_every(),
            leaves: match endpoint.receives() {
                true => seconds(|recover| recover.settle_s),
                false => Duration::ZERO,
            },
            failures_every: failures
                .filter(|_| endpoint.receives())
                .map(|failures| Duration::from_secs(failures.every_s)),
        }
    })
    .collect()
}

/// Sweeps until the process stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut revision = None;
    let mut passes: JoinSet<()> = JoinSet::new();
    loop {
        let snapshot = core.snapshot.load_full();
        if revision != Some(snapshot.revision()) && plan_anew(&core, &snapshot).await {
            revision = Some(snapshot.revision());
        }
        flush(&core).await;
        while passes.try_join_next().is_some() {}
        let now = core.clock.now();
        let heard = core.ledger.take_heard();
        core.sweeps.with(|planner| {
            for (endpoint, heard) in heard {
                planner.heard(endpoint, heard);
            }
            planner.look_for_suspicions(now);
        });
        while passes.len() < SWEEPS_AT_ONCE {
            let now = core.clock.now();
            let Some(due) = core.sweeps.with(|planner| planner.take(now)) else {
                break;
            };
            let Some(endpoint) = snapshot.endpoint(&EndpointRef::Id(due.endpoint)).cloned() else {
                continue;
            };
            passes.spawn(one(Arc::clone(&core), endpoint, due));
        }
        while passes.len() < SWEEPS_AT_ONCE {
            let now = core.clock.now();
            let Some((id, since)) = core.sweeps.with(|planner| planner.take_question(now)) else {
                break;
            };
            if let Some(endpoint) = snapshot.endpoint(&EndpointRef::Id(id)).cloned() {
                passes.spawn(ask_for_failures(Arc::clone(&core), endpoint, since));
            }
        }
        let now = core.clock.now();
        let rest = core.sweeps.with(|planner| planner.rest(now));
        let rest = match rest {
            Some(rest) if passes.len() < SWEEPS_AT_ONCE => rest.min(LONGEST_SLEEP),
            Some(_) | None => LONGEST_SLEEP,
        };
        tokio::select! {
            biased;
            () = core.stopping.cancelled() => break,
            () = core.sweeps.changed.notified() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
    // What is half done is done again by whoever sweeps next.
    passes.shutdown().await;
    flush(&core).await;
}

async fn plan_anew(core: &Core, snapshot: &Snapshot) -> bool {
    let swept = swept(snapshot);
    let rows = match swept.is_empty() {
        true => Ok(Vec::new()),
        false => core.store.sweeps_load().await,
    };
    match rows {
        Ok(rows) => {
            let stored: BTreeMap<EndpointId, SweepRow> = rows.into_iter().map(|row| (row.endpoint, row)).collect();
            let now = core.clock.now();
            core.sweeps.with(|planner| planner.take_over(&swept, &stored, now));
            true
        }
        Err(error) => {
            tracing::warn!("where sweeps stand cannot be read, trying again: {error}");
            false
        }
    }
}

async fn one(core: Arc<Core>, endpoint: Arc<Endpoint>, due: Due) {
    let sweeping = AssertUnwindSafe(pass::sweep(&core, &endpoint, &due)).catch_unwind();
    let passed = sweeping.await.unwrap_or_else(|_panic| {
        tracing::error!(endpoint.name = %endpoint.name(), "the sweep of `{}` panicked; it is tried again", endpoint.name());
        Passed::Postponed
    });
    let now = core.clock.now();
    core.sweeps.with(|planner| match passed {
        Passed::Ended(began_at, outcome) => planner.ended(&due, began_at, outcome, now),
        Passed::Overtaken(row) => planner.overtaken(&due, row.as_ref(), now),
        Passed::Postponed => planner.postponed(&due, now),
    });
    core.sweeps.changed.notify_one();
}

async fn ask_for_failures(core: Arc<Core>, endpoint: Arc<Endpoint>, since: Timestamp) {
    let asking = AssertUnwindSafe(failures::any(&core, &endpoint, since)).catch_unwind();
    let answer = asking.await.unwrap_or_else(|_panic| Err("it panicked".to_owned()));
    let now = core.clock.now();
    let failed = answer.as_ref().ok().copied();
    let unanswered = core.sweeps.with(|planner| planner.answered(endpoint.id(), failed, now));
    match answer {
        Ok(failed) => tracing::debug!(endpoint.name = %endpoint.name(), failed, "asked for failed deliveries"),
        Err(error) if unanswered == 1 => {
            tracing::warn!(endpoint.name = %endpoint.name(), "whether deliveries to `{}` failed cannot be asked, sweeps go on as planned: {error}", endpoint.name());
        }
        Err(error) => {
            tracing::debug!(endpoint.name = %endpoint.name(), "failed deliveries cannot be asked for: {error}")
        }
    }
    core.sweeps.changed.notify_one();
}

/// Stores what arrived since the last time; nothing when nothing did.
async fn flush(core: &Core) {
    let counts = core.ledger.take();
    if counts.is_empty() {
        return;
    }
    let written = match core.writer.submit(Fact::Coverage(counts.clone())) {
        Ok(pending) => pending.await.map(drop),
        Err(_full) => Err(weir_storage::WriteError::Unavailable),
    };
    match written {
        // When it is unknown whether they are stored, better too few than counted twice.
        Ok(()) | Err(weir_storage::WriteError::Unknown | weir_storage::WriteError::Fenced) => {}
        Err(_) => counts.into_iter().for_each(|count| core.ledger.add(count)),
    }
}
