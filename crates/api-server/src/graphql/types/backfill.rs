//! Backfills: what one would do, and how far it is.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::scalars::{DateTime, Long};
use super::endpoint::Endpoint;
use crate::auth::Permission;
use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use weir_connector_sdk::ListOrder;
use weir_orchestrator::sweeps::{BackfillBound, BackfillPreview, BackfillWorkflow, percent};
use weir_storage::{BackfillRow, BackfillStatus as Status};
use weir_workflow_engine::BackfillId;

/// Whether a range can be backfilled, and what that would do.
#[derive(Debug, SimpleObject)]
pub(crate) struct BackfillCheck {
    /// What it would do. Null: it cannot be done.
    plan: Option<BackfillPlan>,
    /// Why it cannot be done. Null: it can.
    refusal: Option<String>,
}

impl BackfillCheck {
    pub(crate) fn possible(preview: BackfillPreview) -> Self {
        BackfillCheck {
            plan: Some(preview.into()),
            refusal: None,
        }
    }

    pub(crate) fn refused(refusal: String) -> Self {
        BackfillCheck {
            plan: None,
            refusal: Some(refusal),
        }
    }
}

/// What a backfill would do. How many events there are is not known before the list is read.
#[derive(Debug, SimpleObject)]
pub(crate) struct BackfillPlan {
    /// It takes events that happened at this time or later.
    since: DateTime,
    /// And before this time; never later than now.
    until: DateTime,
    /// The earliest possible `since`.
    reaches_back_to: DateTime,
    /// What bounds it.
    bound: BackfillReach,
    /// Whether the newest events of the range are read first.
    newest_first: bool,
    /// Whether the provider is told of `until`; otherwise newer items are read too, and left alone.
    end_told: bool,
    /// The workflows that would take its events, if their conditions hold.
    workflows: Vec<BackfillTaker>,
    /// Pass it to `endpointBackfillStart` with `since` and `until` of this plan.
    confirm: String,
}

/// What bounds how far back a backfill may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum BackfillReach {
    /// The provider lists no older events.
    Provider,
    /// Of older events nobody remembers whether they were received: they would be processed a second time.
    Memory,
}

/// A workflow that would take events of a backfill.
#[derive(Debug, SimpleObject)]
pub(crate) struct BackfillTaker {
    /// Its name.
    workflow_name: String,
    /// What it takes, such as `stripe.charge.succeeded`.
    event: String,
    /// Whether it is paused: its runs then wait until it is resumed.
    paused: bool,
}

impl From<BackfillPreview> for BackfillPlan {
    fn from(preview: BackfillPreview) -> Self {
        let taker = |workflow: BackfillWorkflow| BackfillTaker {
            workflow_name: workflow.name,
            event: workflow.event,
            paused: workflow.paused,
        };
        BackfillPlan {
            since: DateTime(preview.since),
            until: DateTime(preview.until),
            reaches_back_to: DateTime(preview.reaches_back_to),
            bound: match preview.bound {
                BackfillBound::Provider => BackfillReach::Provider,
                BackfillBound::Memory => BackfillReach::Memory,
            },
            newest_first: preview.order == ListOrder::NewestFirst,
            end_told: preview.is_end_told,
            workflows: preview.workflows.into_iter().map(taker).collect(),
            confirm: preview.confirm,
        }
    }
}

/// Reads one backfill.
pub(crate) async fn load(ctx: &Context<'_>, id: BackfillId) -> ApiResult<Option<Backfill>> {
    let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
    let row = store.backfill_load(workspace, id).await;
    let row = row.map_err(|error| ApiError::internal("reading a backfill", &error))?;
    Ok(row.map(Backfill))
}

/// A backfill.
#[derive(Debug)]
pub(crate) struct Backfill(pub(super) BackfillRow);

/// A chosen past range of what an endpoint's provider lists, taken in at low priority. It goes on by itself, behind live
/// events, and over restarts.
#[Object]
impl Backfill {
    /// Its id.
    async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// Where it stands.
    async fn status(&self) -> BackfillStatus {
        match self.0.status {
            Status::Running => BackfillStatus::Running,
            Status::Paused => BackfillStatus::Paused,
            Status::Finished => BackfillStatus::Finished,
            Status::Stopped => BackfillStatus::Stopped,
            Status::Failed => BackfillStatus::Failed,
        }
    }

    /// It takes events that happened at this time or later.
    async fn since(&self) -> DateTime {
        DateTime(self.0.since)
    }

    /// And before this time.
    async fn until(&self) -> DateTime {
        DateTime(self.0.until)
    }

    /// The time of the last item that was read, within the range. Null: none was.
    async fn reached(&self) -> Option<DateTime> {
        self.0.reached.map(DateTime)
    }

    /// How much of the range is read, in percent of its time.
    async fn percent(&self, ctx: &Context<'_>) -> i32 {
        let snapshot = Caller::of(ctx).any().snapshot();
        let endpoint = Endpoint::by_id(&snapshot, self.0.workspace, self.0.endpoint);
        endpoint.map_or(0, |endpoint| i32::from(percent(&self.0, endpoint.inner())))
    }

    /// Pages read.
    async fn pages(&self) -> u32 {
        self.0.pages
    }

    /// Items on them, those outside of the range included.
    async fn listed(&self) -> Long {
        Long(self.0.listed)
    }

    /// Events that had never arrived.
    async fn recovered(&self) -> Long {
        Long(self.0.recovered)
    }

    /// Events that were here already. What is read again after a crash or a pause counts here.
    async fn duplicates(&self) -> Long {
        Long(self.0.duplicates)
    }

    /// Items that were passed over: no events as the connector describes them, without a time, or so old by now that nobody
    /// remembers whether they were received.
    async fn passed_over(&self) -> Long {
        Long(self.0.passed_over)
    }

    /// Failed tries in a row.
    async fn failures(&self) -> u32 {
        self.0.failures
    }

    /// What went wrong at the last try, why it cannot go on, or what is worth knowing. Null: nothing.
    async fn error(&self) -> Option<&str> {
        self.0.error.as_deref()
    }

    /// When it is tried again, after a failed try. Null: it does not wait.
    async fn next_try_at(&self) -> Option<DateTime> {
        let waits = self.0.status == Status::Running && self.0.failures > 0;
        waits.then_some(DateTime(self.0.retry_at))
    }

    /// Who began it: `token:` and the token's id, or the name of the bootstrap token.
    async fn created_by(&self) -> &str {
        &self.0.actor
    }

    /// When it began.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// When it was over. Null: it is not.
    async fn finished_at(&self) -> Option<DateTime> {
        self.0.finished_at.map(DateTime)
    }
}

/// Where a backfill stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum BackfillStatus {
    /// Under way.
    Running,
    /// A person paused it.
    Paused,
    /// The range is read.
    Finished,
    /// A person ended it.
    Stopped,
    /// It cannot go on; `error` says why.
    Failed,
}
