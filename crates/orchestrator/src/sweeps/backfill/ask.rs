//! What people ask of backfills: what one would do, that it begins, stands still, goes on, ends.

use super::range::{NoRange, Range, has_ranges};
use crate::configure::Actor;
use crate::ingest::EndpointRef;
use crate::repair::{Refused, audit, write};
use crate::service::Orchestrator;
use crate::snapshot::{Endpoint, Snapshot};
use crate::sweeps::place::floor;
use crate::sweeps::{SweepRefusal, sweepable};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;
use weir_connector_sdk::{ListOrder, Recover};
use weir_storage::{
    BackfillAsk, BackfillRow, BackfillStatus, NewBackfill, Operation, REMEMBERED_DAYS, ReadError, WorkflowState,
};
use weir_workflow_engine::{BackfillId, EndpointId, Timestamp, Trigger, WorkspaceId};

/// How long a plan that begins as early as possible can be looked at before it begins too early.
const TIME_TO_LOOK: Duration = Duration::from_secs(600);

/// What says how far back a backfill may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillBound {
    /// The provider lists no older events.
    Provider,
    /// Of older events nobody remembers whether they were received.
    Memory,
}

/// A workflow that would take events of a backfill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillWorkflow {
    /// Its name.
    pub name: String,
    /// What it takes, such as `stripe.charge.succeeded`.
    pub event: String,
    /// Whether it is paused: its runs then wait until it is resumed.
    pub paused: bool,
}

/// What a backfill would do. How many events there are is not known before the list is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillPreview {
    /// Events that happened at this time or later.
    pub since: Timestamp,
    /// Events that happened before this time; never later than now.
    pub until: Timestamp,
    /// The earliest possible `since`.
    pub reaches_back_to: Timestamp,
    /// What bounds it.
    pub bound: BackfillBound,
    /// In which order the range is read.
    pub order: ListOrder,
    /// Whether the provider is told of the end of the range; otherwise newer items are read and not taken.
    pub is_end_told: bool,
    /// Workflows that would take its events, if their conditions hold.
    pub workflows: Vec<BackfillWorkflow>,
    /// To be handed to [`Orchestrator::backfill_start`].
    pub confirm: String,
}

/// Why a backfill does not begin, or not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackfillRefusal {
    /// There is no such endpoint, or no such backfill.
    #[error("there is no such endpoint or backfill")]
    NotFound,
    /// Its endpoint cannot be swept.
    #[error("{0}")]
    NotSwept(#[from] SweepRefusal),
    /// Its list has no ranges.
    #[error("connector `{connector}`: {why}")]
    NoRange {
        /// The connector.
        connector: String,
        /// Why.
        why: NoRange,
    },
    /// Nothing lies in the range.
    #[error("the range is empty: `since` ({since}) lies not before `until` ({until})")]
    Empty {
        /// Its beginning.
        since: Timestamp,
        /// Its end.
        until: Timestamp,
    },
    /// The provider does not list so old events.
    #[error(
        "the range begins before {earliest}, and the provider lists no older events: choose `since` at {earliest} or later"
    )]
    BeforeReach {
        /// The earliest possible beginning.
        earliest: Timestamp,
    },
    /// So old events may have been received and forgotten.
    #[error(
        "the range begins before {earliest}: older events may have been received, and since that is remembered for {REMEMBERED_DAYS} days alone, they would be processed a second time; choose `since` at {earliest} or later"
    )]
    BeforeMemory {
        /// The earliest possible beginning.
        earliest: Timestamp,
    },
    /// Another one of the endpoint is not over.
    #[error("{id} of this endpoint is {}; wait for its end, or stop it", status_name(*.status))]
    Open {
        /// The other one.
        id: BackfillId,
        /// Where it stands.
        status: BackfillStatus,
    },
    /// What it would do is not what was shown.
    #[error("what the backfill would do is not what was shown: look at the preview again")]
    Changed(Box<BackfillPreview>),
    /// What was asked does not fit where it stands.
    #[error("{id} is {}: {wanted}", status_name(*.status))]
    Unfit {
        /// Which.
        id: BackfillId,
        /// Where it stands.
        status: BackfillStatus,
        /// What would have to be.
        wanted: &'static str,
    },
    /// The database does not answer.
    #[error("the database does not answer: {0}")]
    Unavailable(String),
}

impl From<ReadError> for BackfillRefusal {
    fn from(error: ReadError) -> Self {
        BackfillRefusal::Unavailable(error.to_string())
    }
}

/// A status for people.
fn status_name(status: BackfillStatus) -> &'static str {
    match status {
        BackfillStatus::Running => "running",
        BackfillStatus::Paused => "paused",
        BackfillStatus::Finished => "finished",
        BackfillStatus::Stopped => "stopped",
        BackfillStatus::Failed => "failed",
    }
}

/// How much of its range a backfill has read, in percent. `endpoint`: its endpoint, which says in which order.
#[must_use]
pub fn percent(row: &BackfillRow, endpoint: &Endpoint) -> u8 {
    let range = Range {
        since: row.since,
        until: row.until,
    };
    match (row.status, recover_of(endpoint)) {
        (BackfillStatus::Finished, _) => 100,
        (_, Some(recover)) => range.percent(recover.order, row.reached).min(99),
        (_, None) => 0,
    }
}

fn recover_of(endpoint: &Endpoint) -> Option<&Recover> {
    endpoint.way_in().and_then(|webhook| webhook.recover())
}

/// Whether lists of the endpoint can be read for a range, now.
pub(super) fn readable(endpoint: &Endpoint) -> Result<&Recover, BackfillRefusal> {
    sweepable(endpoint)?;
    let push_only = || SweepRefusal::PushOnly(endpoint.connector().name().to_owned());
    let webhook = endpoint.way_in().ok_or_else(push_only)?;
    let recover = webhook.recover().ok_or_else(push_only)?;
    has_ranges(webhook, recover).map_err(|why| BackfillRefusal::NoRange {
        connector: endpoint.connector().name().to_owned(),
        why,
    })?;
    Ok(recover)
}

fn shown(
    snapshot: &Snapshot,
    endpoint: &Endpoint,
    (since, until): (Timestamp, Option<Timestamp>),
    now: Timestamp,
) -> Result<BackfillPreview, BackfillRefusal> {
    let recover = readable(endpoint)?;
    let until = until.map_or(now, |until| until.min(now));
    if since >= until {
        return Err(BackfillRefusal::Empty { since, until });
    }
    let earliest = floor(recover.reach_s, now);
    let bound = match earliest > floor(0, now) {
        true => BackfillBound::Provider,
        false => BackfillBound::Memory,
    };
    if since < earliest {
        return Err(match bound {
            BackfillBound::Provider => BackfillRefusal::BeforeReach { earliest },
            BackfillBound::Memory => BackfillRefusal::BeforeMemory { earliest },
        });
    }
    let workflows = takers(snapshot, endpoint);
    let mut digest = Sha256::new();
    digest.update(format!("{} {since} {until} ", endpoint.id()));
    for workflow in &workflows {
        digest.update(format!("{} {} {} ", workflow.name, workflow.event, workflow.paused));
    }
    Ok(BackfillPreview {
        since,
        until,
        reaches_back_to: earliest,
        bound,
        order: recover.order,
        is_end_told: recover.takes_until(),
        workflows,
        confirm: hex::encode(digest.finalize().get(..8).unwrap_or_default()),
    })
}

/// The published workflows that listen to events of the endpoint, in order of their names.
fn takers(snapshot: &Snapshot, endpoint: &Endpoint) -> Vec<BackfillWorkflow> {
    let connector = endpoint.connector().name();
    let connection = endpoint.connection().map(|(_, name)| name);
    let workflows = snapshot.workflows(endpoint.workspace());
    let found = workflows.filter_map(|workflow| {
        let Trigger::Event {
            event,
            connection: wanted,
            ..
        } = workflow.published.as_ref()?.plan.trigger()
        else {
            return None;
        };
        let is_its = event.strip_prefix(connector).is_some_and(|rest| rest.starts_with('.'));
        let fits = wanted.is_none() || wanted.as_deref() == connection;
        (is_its && fits).then(|| BackfillWorkflow {
            name: workflow.row.name.clone(),
            event: event.clone(),
            paused: workflow.row.state == WorkflowState::Paused,
        })
    });
    found.collect()
}

impl Orchestrator {
    /// Says what a backfill of an endpoint would do. Writes nothing, asks nobody. Without a beginning, the range begins a
    /// while after the earliest possible time, which moves on while somebody looks at it; without an end, it ends now.
    ///
    /// # Errors
    /// [`BackfillRefusal`].
    pub fn backfill_preview(
        &self,
        workspace: WorkspaceId,
        endpoint: EndpointId,
        (since, until): (Option<Timestamp>, Option<Timestamp>),
    ) -> Result<BackfillPreview, BackfillRefusal> {
        let snapshot = self.snapshot();
        let found = self.backfilled(&snapshot, workspace, endpoint)?;
        let now = self.clock().now();
        let since = match since {
            Some(since) => since,
            None => floor(readable(&found)?.reach_s, now).plus(TIME_TO_LOOK),
        };
        shown(&snapshot, &found, (since, until), now)
    }

    /// Begins a backfill. It goes on by itself, over restarts, until the range is read.
    ///
    /// # Errors
    /// [`BackfillRefusal::Changed`] with the new preview when it would now do something else than was shown.
    pub async fn backfill_start(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        endpoint: EndpointId,
        (since, until): (Timestamp, Timestamp),
        confirm: &str,
    ) -> Result<BackfillRow, BackfillRefusal> {
        let snapshot = self.snapshot();
        let found = self.backfilled(&snapshot, workspace, endpoint)?;
        let now = self.clock().now();
        let preview = shown(&snapshot, &found, (since, Some(until)), now)?;
        if preview.confirm != confirm {
            return Err(BackfillRefusal::Changed(Box::new(preview)));
        }
        let id = BackfillId::from_raw(self.core.new_id(now));
        let new = NewBackfill {
            id,
            workspace,
            endpoint,
            actor: actor.label(),
            since: preview.since,
            until: preview.until,
            at: now,
        };
        let detail = json!({
            "endpoint": found.name(), "since": preview.since.to_string(), "until": preview.until.to_string(),
        });
        let operation = Operation {
            backfill: Some(BackfillAsk::Begin(new)),
            audit: vec![audit(
                &self.core,
                workspace,
                actor,
                now,
                ("backfill.start", id.to_string(), detail),
            )],
            ..Operation::default()
        };
        match write(&self.core, operation).await {
            Ok(_) => {}
            Err(Refused::Stale) => {
                let open = self.core.store.backfills_of(workspace, endpoint).await?;
                let open = open.into_iter().find(|row| row.status.is_open());
                return Err(open.map_or(BackfillRefusal::NotFound, |row| BackfillRefusal::Open {
                    id: row.id,
                    status: row.status,
                }));
            }
            Err(Refused::Other(error)) => return Err(BackfillRefusal::Unavailable(error.to_string())),
        }
        tracing::info!(actor = %actor.name, endpoint.name = %found.name(), "{id} of `{}` began by {}: from {since} to {until}", found.name(), actor.name);
        self.core.backfills.notify_one();
        self.backfill_load(workspace, id).await
    }

    /// Lets a backfill stand still. What is stored stays; the page that is being read is read again when it goes on.
    ///
    /// # Errors
    /// [`BackfillRefusal::Unfit`]: it is not under way.
    pub async fn backfill_pause(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        id: BackfillId,
    ) -> Result<BackfillRow, BackfillRefusal> {
        let wanted = "only one that is running can be paused";
        let from = &[BackfillStatus::Running];
        self.backfill_set(
            workspace,
            actor,
            id,
            ("backfill.pause", from, BackfillStatus::Paused, wanted),
        )
        .await
    }

    /// Lets a paused backfill go on. One that waits after a failed try is tried at once.
    ///
    /// # Errors
    /// [`BackfillRefusal::Unfit`]: it is over.
    pub async fn backfill_resume(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        id: BackfillId,
    ) -> Result<BackfillRow, BackfillRefusal> {
        let wanted = "only one that is paused can go on";
        let from = &[BackfillStatus::Paused, BackfillStatus::Running];
        let row = self
            .backfill_set(
                workspace,
                actor,
                id,
                ("backfill.resume", from, BackfillStatus::Running, wanted),
            )
            .await?;
        self.core.backfills.notify_one();
        Ok(row)
    }

    /// Ends a backfill. What is stored stays.
    ///
    /// # Errors
    /// [`BackfillRefusal::Unfit`]: it is over.
    pub async fn backfill_stop(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        id: BackfillId,
    ) -> Result<BackfillRow, BackfillRefusal> {
        let wanted = "it is over";
        let from = &[BackfillStatus::Running, BackfillStatus::Paused];
        self.backfill_set(
            workspace,
            actor,
            id,
            ("backfill.stop", from, BackfillStatus::Stopped, wanted),
        )
        .await
    }

    async fn backfill_set(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        id: BackfillId,
        (action, from, to, wanted): (&str, &[BackfillStatus], BackfillStatus, &'static str),
    ) -> Result<BackfillRow, BackfillRefusal> {
        let mut row = self.backfill_load(workspace, id).await?;
        // It may change in between, but not for ever: each of its states is left for another one.
        for _ in 0..from.len() + 1 {
            if !from.contains(&row.status) {
                break;
            }
            let now = self.clock().now();
            let operation = Operation {
                backfill: Some(BackfillAsk::Set {
                    workspace,
                    id,
                    from: row.status,
                    to,
                    at: now,
                }),
                audit: vec![audit(
                    &self.core,
                    workspace,
                    actor,
                    now,
                    (action, id.to_string(), json!({})),
                )],
                ..Operation::default()
            };
            match write(&self.core, operation).await {
                Ok(_) => return self.backfill_load(workspace, id).await,
                Err(Refused::Stale) => row = self.backfill_load(workspace, id).await?,
                Err(Refused::Other(error)) => return Err(BackfillRefusal::Unavailable(error.to_string())),
            }
        }
        let status = row.status;
        Err(BackfillRefusal::Unfit { id, status, wanted })
    }

    async fn backfill_load(&self, workspace: WorkspaceId, id: BackfillId) -> Result<BackfillRow, BackfillRefusal> {
        let row = self.core.store.backfill_load(workspace, id).await?;
        row.ok_or(BackfillRefusal::NotFound)
    }

    fn backfilled(
        &self,
        snapshot: &Snapshot,
        workspace: WorkspaceId,
        endpoint: EndpointId,
    ) -> Result<Arc<Endpoint>, BackfillRefusal> {
        let found = snapshot.endpoint(&EndpointRef::Id(endpoint));
        let found = found.filter(|found| found.workspace() == workspace);
        found.cloned().ok_or(BackfillRefusal::NotFound)
    }
}
