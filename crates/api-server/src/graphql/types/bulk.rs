//! Operations on many runs, and what they would do before they begin.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::scalars::{DateTime, Json, Long};
use super::bulk_request::BulkOperationAction;
use super::connector::EffectClass;
use super::dead_letter::cause_key;
use super::run::{self, Run, RunStatus};
use crate::auth::Permission;
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use tokio::sync::OnceCell;
use weir_orchestrator::repair::{BulkAction, BulkEffects, BulkFilter, BulkPreview};
use weir_storage::{BulkCounts, BulkItemRow, BulkItemState, BulkRow, BulkStatus};
use weir_workflow_engine::{BulkId, RunId};

/// Runs that are shown by reason when they are left out of a preview.
const MAX_LEFT_OUT_SHOWN: usize = 100;

/// Which runs; all conditions must hold. Only the last run of each event and workflow belongs to it: what was replayed
/// since is left to its replay.
#[derive(Debug, Clone, Default, InputObject)]
pub(crate) struct BulkFilterInput {
    /// With this status, `FAILED` when left out; only runs that are over.
    status: Option<RunStatus>,
    /// Of the workflow with this name.
    workflow: Option<String>,
    /// That failed with this code.
    error_code: Option<String>,
    /// That failed at this step, by its path.
    error_step: Option<String>,
    /// That are open dead letters with this cause; of failed runs only.
    cause_id: Option<ID>,
    /// Started at this time or later.
    since: Option<DateTime>,
    /// Started before this time.
    until: Option<DateTime>,
}

impl BulkFilterInput {
    /// The filter as the orchestrator takes it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(self) -> Result<BulkFilter, &'static str> {
        let cause = match self.cause_id.as_ref().map(cause_key) {
            None => None,
            Some(Some(key)) => Some(key),
            Some(None) => return Err("`causeId` is not the id of a cause"),
        };
        let status: weir_storage::RunStatus = self.status.unwrap_or(RunStatus::Failed).into();
        if status.is_open() || status == weir_storage::RunStatus::Merged {
            return Err("only runs that are over can be replayed: SUCCEEDED, FAILED or CANCELED");
        }
        Ok(BulkFilter {
            status,
            cause,
            workflow: self.workflow,
            error_code: self.error_code,
            error_step: self.error_step,
            since: self.since.map(|time| time.0),
            until: self.until.map(|time| time.0),
        })
    }
}

/// What replaying many runs would do, in sum. Nothing has been sent yet.
#[derive(Debug, SimpleObject)]
pub(crate) struct BulkReplayPreview {
    /// How many runs would be replayed.
    runs: u32,
    /// Whether more runs fit than one operation takes. The oldest come first; repeat it for the next ones.
    more: bool,
    /// How many runs fit and cannot be replayed.
    left_out_count: u32,
    /// The first of them, with the reason.
    left_out: Vec<LeftOut>,
    /// Of how many of them not all can be shown: what follows a call without a recorded answer or a wait whose outcome
    /// is open, and some of the runs that they start. More may be sent than `effects` says.
    in_part_count: u32,
    /// How many of them would fail again, for a reason that is known now.
    failing_count: u32,
    /// Calls that change nothing outside and would be made.
    reads: Long,
    /// What would become of effects, by operation.
    effects: Vec<BulkPreviewEffects>,
    /// All of it in a sentence.
    summary: String,
    /// Pass it to `bulkReplay`, with the same filter and options. It stops being valid when any of the runs would do
    /// something else.
    confirm: String,
}

/// A run that fits and is left out.
#[derive(Debug, SimpleObject)]
pub(crate) struct LeftOut {
    /// The run.
    run_id: ID,
    /// Why.
    reason: String,
}

/// The first of the runs that are left out.
pub(super) fn left_out(runs: Vec<(RunId, String)>) -> Vec<LeftOut> {
    let shown = runs.into_iter().take(MAX_LEFT_OUT_SHOWN);
    let shown = shown.map(|(run, reason)| LeftOut {
        run_id: run.to_string().into(),
        reason,
    });
    shown.collect()
}

/// What would become of the effects of one operation.
#[derive(Debug, SimpleObject)]
pub(crate) struct BulkPreviewEffects {
    /// Name of the connector.
    connector_name: String,
    /// Name of the operation.
    operation: String,
    /// How it can be repeated. Null when that is not recorded.
    class: Option<EffectClass>,
    /// Took place, and would be answered from the record.
    answered: Long,
    /// Would be sent.
    sent: Long,
    /// Of those that would be sent: the same step did it before with another request.
    changed: Long,
    /// Of those that would be sent: nobody knows whether they took place; they are sent again in the way of their class.
    resent: Long,
    /// Nobody knows whether they took place, and their runs would end there again.
    blocked: Long,
}

impl From<BulkPreview> for BulkReplayPreview {
    fn from(preview: BulkPreview) -> Self {
        let effects = |effects: BulkEffects| BulkPreviewEffects {
            connector_name: effects.connector,
            operation: effects.operation,
            class: EffectClass::by_name(effects.class),
            answered: Long(effects.answered),
            sent: Long(effects.sent),
            changed: Long(effects.changed),
            resent: Long(effects.resent),
            blocked: Long(effects.blocked),
        };
        BulkReplayPreview {
            runs: preview.runs,
            more: preview.more,
            left_out_count: u32::try_from(preview.left_out.len()).unwrap_or(u32::MAX),
            left_out: left_out(preview.left_out),
            in_part_count: preview.in_part,
            failing_count: preview.failing,
            reads: Long(preview.reads),
            effects: preview.effects.into_iter().map(effects).collect(),
            summary: preview.summary,
            confirm: preview.confirm,
        }
    }
}

/// Reads one operation.
pub(crate) async fn load(ctx: &Context<'_>, id: BulkId) -> ApiResult<Option<BulkOperation>> {
    let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
    let row = store.bulk_load(workspace, id).await;
    let row = row.map_err(|error| ApiError::internal("reading an operation on runs", &error))?;
    Ok(row.map(BulkOperation::from_row))
}

/// An operation on many runs.
#[derive(Debug)]
pub(crate) struct BulkOperation {
    row: BulkRow,
    counts: OnceCell<BulkCounts>,
}

impl BulkOperation {
    /// From its row.
    pub(crate) fn from_row(row: BulkRow) -> Self {
        BulkOperation {
            row,
            counts: OnceCell::new(),
        }
    }

    async fn counts(&self, ctx: &Context<'_>) -> ApiResult<&BulkCounts> {
        let counts = self.counts.get_or_try_init(|| async {
            let (store, _) = Caller::of(ctx).read(Permission::RunRead)?;
            let counts = store.bulk_counts(self.row.id).await;
            counts.map_err(|error| ApiError::internal("counting the runs of an operation", &error))
        });
        counts.await
    }
}

/// An operation on many runs. It goes on by itself, behind live events, and over restarts.
#[Object]
impl BulkOperation {
    /// Its id.
    async fn id(&self) -> ID {
        self.row.id.to_string().into()
    }

    /// Where it stands.
    async fn status(&self) -> BulkOperationStatus {
        match self.row.status {
            BulkStatus::Running => BulkOperationStatus::Running,
            BulkStatus::Stopped => BulkOperationStatus::Stopped,
            BulkStatus::Finished => BulkOperationStatus::Finished,
        }
    }

    /// What it does with its runs.
    async fn action(&self) -> BulkOperationAction {
        BulkAction::of(&self.row).into()
    }

    /// How many runs belong to it.
    async fn total(&self) -> u32 {
        self.row.total
    }

    /// How many of them wait for their turn.
    async fn pending(&self, ctx: &Context<'_>) -> ApiResult<Long> {
        Ok(Long(self.counts(ctx).await?.pending))
    }

    /// Of how many the replay was started, how many were asked, or about how many it was said.
    async fn started(&self, ctx: &Context<'_>) -> ApiResult<Long> {
        Ok(Long(self.counts(ctx).await?.started))
    }

    /// How many were left out: what their replay would do was not what had been shown, they had ended before they were
    /// asked, or a look at the provider found nothing.
    async fn skipped(&self, ctx: &Context<'_>) -> ApiResult<Long> {
        Ok(Long(self.counts(ctx).await?.skipped))
    }

    /// Its runs, in the order of their turns.
    async fn items(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only those that stand here.")] state: Option<BulkRunState>,
        #[graphql(desc = "How many, 1 to 100; 25 when left out.")] first: Option<i32>,
        #[graphql(desc = "Only those after this run.")] after: Option<ID>,
    ) -> ApiResult<Vec<BulkRun>> {
        let limit = super::super::paging::Listing::limit(first)?;
        let after = after.as_ref().map(super::node::parse_id::<RunId>).transpose()?;
        let state = state.map(|state| match state {
            BulkRunState::Pending => BulkItemState::Pending,
            BulkRunState::Started => BulkItemState::Started,
            BulkRunState::Skipped => BulkItemState::Skipped,
        });
        let (store, _) = Caller::of(ctx).read(Permission::RunRead)?;
        let items = store.bulk_items(self.row.id, state, after, limit).await;
        let items = items.map_err(|error| ApiError::internal("reading the runs of an operation", &error))?;
        Ok(items.into_iter().map(BulkRun).collect())
    }

    /// Which runs were asked for.
    async fn filter(&self) -> Json {
        Json(serde_json::from_str(&self.row.filter).unwrap_or_default())
    }

    /// Who began it: `token:` and the token's id, or the name of the bootstrap token.
    async fn created_by(&self) -> &str {
        &self.row.actor
    }

    /// When it began.
    async fn created_at(&self) -> DateTime {
        DateTime(self.row.created_at)
    }

    /// When every run had had its turn, or it was stopped.
    async fn finished_at(&self) -> Option<DateTime> {
        self.row.finished_at.map(DateTime)
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum BulkOperationStatus {
    /// Under way.
    Running,
    /// A person stopped it; what was started goes on.
    Stopped,
    /// Every run had its turn.
    Finished,
}

/// Where a run of an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum BulkRunState {
    /// Its turn has not come.
    Pending,
    /// Its replay was started, it was asked, or it was said what became of its effects.
    Started,
    /// It was left out.
    Skipped,
}

/// One run of an operation.
#[derive(Debug)]
pub(crate) struct BulkRun(BulkItemRow);

/// One run of an operation.
#[Object]
impl BulkRun {
    /// The run.
    async fn run_id(&self) -> ID {
        self.0.run.to_string().into()
    }

    /// Where it stands.
    async fn state(&self) -> BulkRunState {
        match self.0.state {
            BulkItemState::Pending => BulkRunState::Pending,
            BulkItemState::Started => BulkRunState::Started,
            BulkItemState::Skipped => BulkRunState::Skipped,
        }
    }

    /// Its replay. Null: none was started.
    async fn replay(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        match self.0.started {
            Some(id) => run::load(ctx, id).await,
            None => Ok(None),
        }
    }

    /// Why it was left out.
    async fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }
}
