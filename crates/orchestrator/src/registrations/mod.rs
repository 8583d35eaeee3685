//! Registrations: webhooks are made at providers, looked after, and deleted, as the configuration says.
//!
//! What is to be done is decided by `rules`, without IO; `wish` reads the configuration, `pass` talks to the provider and
//! stores each step. The rows are in memory: idling asks the database nothing. Every worker plans, and a claim in the
//! database lets one of them work. Nothing here stands in the way of webhooks that come in.

mod pass;
mod plan;
mod rules;
mod secrets;
mod wish;

pub use pass::MAX_HOOK_PAGES;
pub use rules::{RegistrationState, SECRET_OVERLAP};
pub use secrets::MAX_REGISTERED_SECRETS;

pub(crate) use secrets::Secrets;
pub(crate) use wish::NO_PUBLIC_URL;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use metrics::{describe_counter, describe_gauge, gauge};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use weir_storage::{ReadError, RegistrationRow};
use weir_workflow_engine::{ConnectionId, EndpointId, Timestamp, WorkspaceId};

use crate::ingest::EndpointRef;
use crate::service::{Core, Orchestrator};
use crate::snapshot::Snapshot;
use pass::Passed;
use plan::{Planner, Work};
use rules::{DISCONNECTED, Wish};
use wish::wish;

/// Registrations that this node works at at the same time: one slow provider keeps only its own place.
const AT_ONCE: usize = 4;
/// The longest sleep of the loop: a changed configuration is noticed after it.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How long a connection that goes waits until a webhook of its is deleted, and the pause between two tries.
const LEAVE_PATIENCE: Duration = Duration::from_secs(60);
const LEAVE_AGAIN: Duration = Duration::from_millis(200);

/// The registrations of this node.
#[derive(Default)]
pub(crate) struct Registrations {
    planner: Mutex<Planner>,
    /// There may be something to do.
    changed: Notify,
}

impl Registrations {
    fn with<T>(&self, act: impl FnOnce(&mut Planner) -> T) -> T {
        act(&mut self.planner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A registration as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationView {
    /// Where it stands.
    pub state: RegistrationState,
    /// The provider's id.
    pub provider_id: Option<String>,
    /// Where the provider sends to.
    pub url: Option<String>,
    /// What it sends, in the provider's names.
    pub events: Vec<String>,
    /// When it ends, unless it is renewed before.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When it was made or renewed last.
    pub renewed_at: Option<Timestamp>,
    /// When the provider was last asked.
    pub checked_at: Option<Timestamp>,
    /// What was last found to be otherwise than it was left, and when.
    pub drift: Option<(Timestamp, String)>,
    /// What is wrong, or why there is none.
    pub error: Option<String>,
    /// When a failure is tried again.
    pub retry_at: Option<Timestamp>,
}

impl Orchestrator {
    /// Where the registration of an endpoint stands. `None`: it is not registered by us.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn registration(
        &self,
        workspace: WorkspaceId,
        endpoint: EndpointId,
    ) -> Result<Option<RegistrationView>, ReadError> {
        let snapshot = self.snapshot();
        let found = snapshot
            .endpoint(&EndpointRef::Id(endpoint))
            .filter(|found| found.workspace() == workspace);
        let row = self.store().registration_load(workspace, endpoint).await?;
        let wish = wish(&snapshot, self.settings(), found.map(AsRef::as_ref));
        let Some((state, error)) = rules::state(&wish, row.as_ref()) else {
            return Ok(None);
        };
        let retry_at = row.as_ref().filter(|row| row.failures > 0).map(|row| row.retry_at);
        let row = row.filter(rules::may_be_there);
        Ok(Some(RegistrationView {
            state,
            provider_id: row.as_ref().and_then(|row| row.provider_id.clone()),
            url: row.as_ref().and_then(|row| row.url.clone()),
            events: row.as_ref().map_or_else(Vec::new, |row| row.events.clone()),
            expires_at: row.as_ref().and_then(|row| row.expires_at),
            created_at: row.as_ref().and_then(|row| row.created_at),
            renewed_at: row.as_ref().and_then(|row| row.renewed_at),
            checked_at: row.as_ref().and_then(|row| row.checked_at),
            drift: row.and_then(|row| row.drift),
            error,
            retry_at,
        }))
    }

    /// Deletes the webhooks that were made with a connection at its provider, while its access still works. What cannot be
    /// deleted now is told in the log, and does not stand in the way.
    pub(crate) async fn leave_provider(&self, workspace: WorkspaceId, connection: ConnectionId) {
        let rows = match self.store().registrations_of(workspace, connection).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(
                    "which webhooks were made with a connection cannot be read, so they stay at its provider: {error}"
                );
                return;
            }
        };
        for row in rows.into_iter().filter(rules::may_be_there) {
            let id = row.endpoint;
            let leaving = Box::pin(self.leave_with(row));
            let has_left = tokio::time::timeout(LEAVE_PATIENCE, leaving).await.unwrap_or(false);
            if !has_left {
                tracing::warn!(
                    "the webhook of endpoint {id} was not deleted at its provider before its connection went: delete it there"
                );
            }
        }
        self.core.registrations.changed.notify_one();
    }

    /// Deletes one. False: it could not be deleted.
    async fn leave_with(&self, row: RegistrationRow) -> bool {
        let (workspace, id) = (row.workspace, row.endpoint);
        let wish = Wish::Absent(Some(DISCONNECTED));
        let mut row = Some(row);
        loop {
            match pass::look(&self.core, (workspace, id), row.clone(), &wish).await {
                Passed::Stored(stored) => {
                    let has_left = !stored.as_ref().is_some_and(rules::may_be_there);
                    self.core.registrations.with(|planner| planner.settle(id, stored));
                    return has_left;
                }
                // Somebody is just looking after it.
                Passed::Overtaken(None) => return true,
                Passed::Overtaken(stored) => row = stored,
                Passed::Postponed => {}
            }
            tokio::time::sleep(LEAVE_AGAIN).await;
        }
    }
}

/// Looks after registrations until the process stops.
pub(crate) async fn run(core: Arc<Core>) {
    describe_counter!(
        "weir_registration_steps_total",
        "what was done about webhooks at their providers: created, updated, renewed, deleted, failed"
    );
    describe_counter!(
        "weir_registration_drifts_total",
        "webhooks that were found gone or changed at their providers"
    );
    describe_gauge!(
        "weir_registrations_failing",
        "endpoints whose webhooks cannot be looked after at their providers"
    );
    let mut revision = None;
    let mut looks: JoinSet<()> = JoinSet::new();
    loop {
        let snapshot = core.snapshot.load_full();
        if revision != Some(snapshot.revision()) {
            revision = Some(snapshot.revision());
            take_over(&core, &snapshot);
        }
        while looks.try_join_next().is_some() {}
        while looks.len() < AT_ONCE {
            let now = core.clock.now();
            let Some(work) = core.registrations.with(|planner| planner.take(now)) else {
                break;
            };
            looks.spawn(one(Arc::clone(&core), work));
        }
        let now = core.clock.now();
        let rest = core.registrations.with(|planner| planner.rest(now));
        let rest = match rest {
            Some(rest) if looks.len() < AT_ONCE => rest.min(LONGEST_SLEEP),
            Some(_) | None => LONGEST_SLEEP,
        };
        tokio::select! {
            biased;
            () = core.stopping.cancelled() => break,
            () = core.registrations.changed.notified() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
    // What is half done is found by its address by whoever looks next.
    looks.shutdown().await;
}

fn take_over(core: &Core, snapshot: &Snapshot) {
    let endpoints = snapshot
        .all_endpoints()
        .filter(|endpoint| endpoint.registers().is_some());
    let wanted = endpoints.map(|endpoint| {
        let id = (endpoint.workspace(), endpoint.id());
        (id, wish(snapshot, &core.settings, Some(endpoint)))
    });
    // Nobody deletes what a manifest is missing for.
    let unusable = snapshot
        .registrations()
        .filter(|row| snapshot.has_unusable_endpoint(row.endpoint));
    let unusable = unusable.map(|row| {
        let id = (row.workspace, row.endpoint);
        (id, Wish::Unclear("its connector is not there".to_owned()))
    });
    let rows = snapshot.registrations().cloned();
    let now = core.clock.now();
    let failing = core.registrations.with(|planner| {
        planner.take_over(wanted.chain(unusable), rows, now);
        planner.failing()
    });
    show_failing(failing);
}

fn show_failing(failing: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a count of endpoints fits a double")]
    gauge!("weir_registrations_failing").set(failing as f64);
}

async fn one(core: Arc<Core>, work: Work) {
    let looking = pass::look(&core, (work.workspace, work.endpoint), work.row.clone(), &work.wish);
    let passed = AssertUnwindSafe(Box::pin(looking)).catch_unwind().await;
    let passed = passed.unwrap_or_else(|_panic| {
        tracing::error!(
            "looking after the webhook of endpoint {} panicked; it is tried again",
            work.endpoint
        );
        Passed::Postponed
    });
    let now = core.clock.now();
    let failing = core.registrations.with(|planner| {
        match passed {
            Passed::Stored(row) => planner.ended(work.endpoint, row, now),
            Passed::Overtaken(row) => planner.overtaken(work.endpoint, row, now),
            Passed::Postponed => planner.postponed(work.endpoint, now),
        }
        planner.failing()
    });
    show_failing(failing);
    core.registrations.changed.notify_one();
}
