//! Runs that wait for their turn, and lanes that wait for a person.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::scalars::DateTime;
use super::long_to_int;
use super::run::{self, Run};
use super::workflow::Workflow;
use crate::auth::Permission;
use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use weir_storage::{HeldLane as Stored, WaitingFor as Waiting};
use weir_workflow_engine::{GateKind, RunId, Timestamp};

/// What a run waits for before it starts, or before it goes on: a server that drives runs.
#[derive(Debug, SimpleObject)]
#[graphql(complex)]
pub(crate) struct WaitingFor {
    /// The word of the workflow that has it wait, or what else is missing.
    reason: WaitingReason,
    /// The author's key. Null: the same for the whole workflow. Needs `PAYLOAD_READ`.
    #[graphql(skip)]
    key: String,
    /// Since when.
    since: DateTime,
    /// How many runs wait at the same place and go first, counted up to 1,000.
    ahead: i32,
    /// How many have passed that place and are not over; for a batch, how many events are gathered.
    inside: i32,
    #[graphql(skip)]
    held_by: Option<RunId>,
}

#[async_graphql::ComplexObject]
impl WaitingFor {
    /// The author's key. Null: the same for the whole workflow. Needs `PAYLOAD_READ`.
    async fn key(&self, ctx: &Context<'_>) -> ApiResult<Option<&str>> {
        Caller::of(ctx).may(Permission::PayloadRead)?;
        Ok(Some(self.key.as_str()).filter(|key| !key.is_empty()))
    }

    /// The failed run that keeps the lane until it is replayed with success or let go by `laneRelease`.
    async fn held_by(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        match self.held_by {
            Some(id) => run::load(ctx, id).await,
            None => Ok(None),
        }
    }
}

impl WaitingFor {
    /// Nobody is there to drive the run.
    pub(crate) fn worker(since: Timestamp) -> Self {
        WaitingFor {
            reason: WaitingReason::Worker,
            key: String::new(),
            since: DateTime(since),
            ahead: 0,
            inside: 0,
            held_by: None,
        }
    }
}

impl From<Waiting> for WaitingFor {
    fn from(waiting: Waiting) -> Self {
        WaitingFor {
            reason: waiting.kind.into(),
            key: waiting.key,
            since: DateTime(waiting.since),
            ahead: i32::try_from(waiting.ahead).unwrap_or(i32::MAX),
            inside: long_to_int(waiting.inside.into()),
            // Of the others it is a run that waits itself.
            held_by: waiting.held_by.filter(|_| waiting.kind == GateKind::Lane),
        }
    }
}

/// Why a run does not start, or does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum WaitingReason {
    /// Until its workflow is resumed.
    Pause,
    /// Until it has been quiet for a while.
    Debounce,
    /// Until a batch is full or its time is over.
    Batch,
    /// Until the run before it in its lane is over.
    Lane,
    /// Until one of the runs in progress is over.
    Concurrency,
    /// Until its start fits into the period.
    Throttle,
    /// Until a server with the role `worker` is up.
    Worker,
}

impl From<GateKind> for WaitingReason {
    fn from(kind: GateKind) -> Self {
        match kind {
            GateKind::Pause => WaitingReason::Pause,
            GateKind::Debounce => WaitingReason::Debounce,
            GateKind::Batch => WaitingReason::Batch,
            GateKind::Lane => WaitingReason::Lane,
            GateKind::Concurrency => WaitingReason::Concurrency,
            GateKind::Throttle => WaitingReason::Throttle,
        }
    }
}

/// A lane that a failed run keeps.
#[derive(Debug)]
pub(crate) struct HeldLane(pub(crate) Stored);

/// A lane with `on_block: hold` whose last run failed: the others wait until a person has dealt with it. Needs `RUN_READ`.
#[Object]
impl HeldLane {
    /// Id of the failed run.
    async fn run_id(&self) -> ID {
        self.0.run.to_string().into()
    }

    /// The failed run.
    async fn run(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        run::load(ctx, self.0.run).await
    }

    /// Its workflow. Null: it was deleted. Needs `CONFIG_READ`.
    async fn workflow(&self, ctx: &Context<'_>) -> ApiResult<Option<Workflow>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        Ok(Workflow::by_id(&snapshot, workspace, self.0.workflow))
    }

    /// The author's key. Needs `PAYLOAD_READ`.
    async fn key(&self, ctx: &Context<'_>) -> ApiResult<&str> {
        Caller::of(ctx).may(Permission::PayloadRead)?;
        Ok(&self.0.key)
    }

    /// Since when it is kept.
    async fn since(&self) -> DateTime {
        DateTime(self.0.since)
    }

    /// How many runs wait.
    async fn waiting(&self) -> i32 {
        long_to_int(self.0.waiting.into())
    }
}
