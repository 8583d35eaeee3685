//! Runs: one version of a workflow on one event.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::scalars::DateTime;
use super::audit::AuditEntry;
use super::event::{self, Event};
use super::lane::{HeldLane, WaitingFor};
use super::long_to_int;
use super::open_wait::OpenWait;
use super::step::{self, Step};
use super::workflow::{Workflow, WorkflowVersion, load_version};
use crate::auth::Permission;
use crate::problem::Code;
use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use tokio::sync::OnceCell;
use weir_orchestrator::control::RunStory;
use weir_storage::{AuditFilter, MergedRow, RunRow, RunStatus as Stored, WorkflowState};
use weir_workflow_engine::{GateKind, RunId, may_hide_an_item};

/// How many steps one answer shows: a run may have as many as its journal has entries.
///
/// Limit: steps of a run in one answer | `BAD_REQUEST`; the rest with `steps(skip: …)` | `pages_stop_at_their_bound`
const MAX_STEPS_SHOWN: usize = 1000;
/// How many merged runs one answer shows: a burst or a lane may have merged many more.
///
/// Limit: merged runs in one answer | `BAD_REQUEST`; the rest with `merged(skip: …)` | `pages_stop_at_their_bound`
const MAX_MERGED_SHOWN: u32 = 1000;
/// How many entries of the audit trail one run shows.
const MAX_HISTORY_SHOWN: u32 = 100;

/// One run, with its story once somebody asks for it.
#[derive(Debug)]
pub(crate) struct Run {
    row: RunRow,
    story: OnceCell<Option<RunStory>>,
}

impl Run {
    /// From its row.
    pub(crate) fn from_row(row: RunRow) -> Self {
        Run {
            row,
            story: OnceCell::new(),
        }
    }

    /// What its journal tells, read at most once. `None`: it is no longer kept.
    async fn story(&self, ctx: &Context<'_>) -> ApiResult<Option<&RunStory>> {
        let story = self.story.get_or_try_init(|| async {
            let (orchestrator, workspace) = Caller::of(ctx).orchestrator(Permission::RunRead)?;
            let story = orchestrator.run_story(workspace, self.row.id).await;
            story.map_err(|error| ApiError::internal("reading a run's journal", &error))
        });
        Ok(story.await?.as_ref())
    }
}

/// One version of a workflow at work on one event. Needs `RUN_READ`.
#[Object]
impl Run {
    /// Its id.
    pub(crate) async fn id(&self) -> ID {
        self.row.id.to_string().into()
    }

    /// Its workflow. Null: it was deleted.
    async fn workflow(&self, ctx: &Context<'_>) -> ApiResult<Option<Workflow>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        Ok(Workflow::by_id(&snapshot, workspace, self.row.workflow_id))
    }

    /// Name of its workflow, also of one that was deleted.
    async fn workflow_name(&self, ctx: &Context<'_>) -> ApiResult<Option<String>> {
        workflow_name(ctx, &self.row, Permission::RunRead).await
    }

    /// Whether its workflow was deleted.
    async fn workflow_deleted(&self, ctx: &Context<'_>) -> ApiResult<bool> {
        let caller = Caller::of(ctx);
        let workspace = caller.may(Permission::RunRead)?;
        let snapshot = caller.any().snapshot();
        Ok(snapshot.workflow_by_id(workspace, self.row.workflow_id).is_none())
    }

    /// Number of the version it is pinned to.
    async fn version_number(&self, ctx: &Context<'_>) -> ApiResult<Option<i32>> {
        let version = load_version(ctx, Some(self.row.version_id), Permission::RunRead).await?;
        Ok(version.map(|version| long_to_int(version.number_of().into())))
    }

    /// The version it is pinned to. Needs `CONFIG_READ`.
    async fn version(&self, ctx: &Context<'_>) -> ApiResult<Option<WorkflowVersion>> {
        load_version(ctx, Some(self.row.version_id), Permission::ConfigRead).await
    }

    /// The event it works on. Null: it is no longer kept.
    async fn event(&self, ctx: &Context<'_>) -> ApiResult<Option<Event>> {
        event::load(ctx, self.row.event_id).await
    }

    /// Where it stands.
    async fn status(&self) -> RunStatus {
        RunStatus::from(self.row.status)
    }

    /// When it started.
    async fn started_at(&self) -> DateTime {
        DateTime(self.row.started_at)
    }

    /// When it finished.
    async fn finished_at(&self) -> Option<DateTime> {
        self.row.finished_at.map(DateTime)
    }

    /// When it goes on, while it waits.
    async fn due_at(&self) -> Option<DateTime> {
        self.row.due_at.map(DateTime)
    }

    /// Why it failed.
    async fn error(&self, ctx: &Context<'_>) -> ApiResult<Option<RunError>> {
        let Some(code) = self.row.error_code.clone() else {
            return Ok(None);
        };
        let message = match ctx.look_ahead().field("message").exists() && step::may_read_payloads(ctx) {
            true => {
                let caller = Caller::of(ctx);
                let (_, workspace) = caller.read(Permission::RunRead)?;
                let message = caller.any().run_error(workspace, &self.row).await;
                let message = message.map_err(|error| ApiError::internal("reading a run's journal", &error))?;
                message.and_then(|message| step::told(ctx, &message))
            }
            false => None,
        };
        let step = self.row.error_step.clone();
        let step_name = match step.as_deref().filter(|step| may_hide_an_item(step)) {
            Some(hidden) if ctx.look_ahead().field("stepName").exists() => {
                let caller = Caller::of(ctx);
                let (_, workspace) = caller.read(Permission::RunRead)?;
                let name = caller.any().step_name(workspace, self.row.id, hidden).await;
                // A journal that cannot be read does not hide the other runs of a list.
                name.ok()
            }
            Some(_) | None => None,
        };
        Ok(Some(RunError {
            code,
            step_name: step_name.or_else(|| step.clone()),
            step,
            message,
        }))
    }

    /// What it waits for before it starts; once it has started, a server to drive it, when none is up. Null: it waits for
    /// neither, or is over.
    async fn waiting_for(&self, ctx: &Context<'_>) -> ApiResult<Option<WaitingFor>> {
        let caller = Caller::of(ctx);
        caller.may(Permission::RunRead)?;
        let orchestrator = caller.any();
        let now = orchestrator.now();
        let wants_to_go_on = match self.row.status {
            Stored::Queued => false,
            Stored::Running => true,
            Stored::Waiting => self.row.due_at.is_some_and(|due| due <= now),
            Stored::Paused | Stored::Succeeded | Stored::Failed | Stored::Canceled | Stored::Merged => return Ok(None),
        };
        if wants_to_go_on && !orchestrator.has_workers() {
            return Ok(Some(WaitingFor::worker(self.row.due_at.unwrap_or(self.row.started_at))));
        }
        if self.row.status != Stored::Queued {
            return Ok(None);
        }
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let found = store
            .run_waiting_for(workspace, self.row.id)
            .await
            .map_err(|error| ApiError::internal("reading what a run waits for", &error))?;
        // What waited while its workflow was paused is let through by workers when the pause is over.
        if let Some(waiting) = found.as_ref().filter(|waiting| waiting.kind == GateKind::Pause)
            && !orchestrator.has_workers()
        {
            let snapshot = orchestrator.snapshot();
            let workflow = snapshot.workflow_by_id(workspace, self.row.workflow_id);
            if workflow.is_none_or(|workflow| workflow.row.state != WorkflowState::Paused) {
                return Ok(Some(WaitingFor::worker(waiting.since)));
            }
        }
        Ok(found.map(WaitingFor::from))
    }

    /// The lane that it keeps since it failed: nothing else of the lane begins until it is replayed with success, or lets go
    /// by `laneRelease`.
    async fn kept_lane(&self, ctx: &Context<'_>) -> ApiResult<Option<HeldLane>> {
        if self.row.status != Stored::Failed {
            return Ok(None);
        }
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let found = store.held_lanes(workspace, Some(self.row.id), None, 1).await;
        let found = found.map_err(|error| ApiError::internal("reading the lane that a run keeps", &error))?;
        Ok(found.rows.into_iter().next().map(HeldLane))
    }

    /// Whether it stands still, or is to when its turn comes: somebody paused it, and nobody has let it go on since.
    async fn held(&self, ctx: &Context<'_>) -> ApiResult<bool> {
        match self.row.status {
            Stored::Paused => Ok(true),
            Stored::Queued => {
                let caller = Caller::of(ctx);
                let (_, workspace) = caller.read(Permission::RunRead)?;
                let held = caller.any().is_held(workspace, self.row.id).await;
                held.map_err(|error| ApiError::internal("reading whether a run is held", &error))
            }
            _ => Ok(false),
        }
    }

    /// What its steps wait for from outside, in the order in which they began to.
    async fn waits(&self, ctx: &Context<'_>) -> ApiResult<Vec<OpenWait>> {
        if !matches!(self.row.status, Stored::Running | Stored::Waiting | Stored::Paused) {
            return Ok(Vec::new());
        }
        // A journal that cannot be read does not hide the other runs of a list; whoever asks for its story is told.
        let story = self.story(ctx).await.ok().flatten();
        let steps = story.into_iter().flat_map(|story| &story.steps);
        let waits = steps.filter_map(OpenWait::of);
        Ok(waits.take(MAX_STEPS_SHOWN).collect())
    }

    /// The run that stands for its event instead of it, when it is `MERGED`.
    async fn merged_into(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        if self.row.status != Stored::Merged {
            return Ok(None);
        }
        let (store, _workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let found = store
            .run_merged_into(self.row.id)
            .await
            .map_err(|error| ApiError::internal("reading where a run went", &error))?;
        match found {
            Some(id) => load(ctx, id).await,
            None => Ok(None),
        }
    }

    /// The runs that this one stands for beside itself, in the order of acceptance: those of the other events of its
    /// batch, or those that it took the place of in `debounce` or in a lane that merges, with all that these had taken
    /// the place of before. A replay stands for the same.
    async fn merged(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many, 1 to 1,000.", default = 100)] first: i32,
        #[graphql(desc = "How many to leave out before them.", default = 0)] skip: i32,
    ) -> ApiResult<Vec<MergedRun>> {
        let (limit, skip) = (u32::try_from(first), u64::try_from(skip));
        let (Ok(limit @ 1..=MAX_MERGED_SHOWN), Ok(skip)) = (limit, skip) else {
            let message = format!("first must be between 1 and {MAX_MERGED_SHOWN}, and skip is not negative");
            return Err(ApiError::new(Code::BadRequest, message));
        };
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let rows = store
            .run_merged_here(workspace, self.row.root_id, skip, limit)
            .await
            .map_err(|error| ApiError::internal("reading what a run stands for", &error))?;
        Ok(rows.into_iter().map(MergedRun::from).collect())
    }

    /// How many `merged` there are.
    async fn merged_count(&self, ctx: &Context<'_>) -> ApiResult<i32> {
        let (store, _workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let count = store
            .run_merged_count(self.row.root_id)
            .await
            .map_err(|error| ApiError::internal("counting what a run stands for", &error))?;
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }

    /// The first run of its family: itself, or for a replay the run that was replayed first.
    async fn root_id(&self) -> ID {
        self.row.root_id.to_string().into()
    }

    /// The run that it repeats.
    async fn replay_of(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        match self.row.replay_of {
            Some(id) => load(ctx, id).await,
            None => Ok(None),
        }
    }

    /// The newest run that repeats it, or another run of its family after it; how that came out counts. Null: none does.
    async fn replaced_by(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let found = store
            .run_replaced_by(workspace, &self.row)
            .await
            .map_err(|error| ApiError::internal("reading the replays of a run", &error))?;
        Ok(found.map(Run::from_row))
    }

    /// What happened, step by step, in the order in which it happened; steps not reached yet come last. Null: the run is
    /// no longer kept.
    async fn steps(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many, 1 to 1,000.", default = 1000)] first: i32,
        #[graphql(desc = "How many to leave out before them.", default = 0)] skip: i32,
    ) -> ApiResult<Option<Vec<Step>>> {
        let (Ok(first), Ok(skip)) = (usize::try_from(first), usize::try_from(skip)) else {
            return Err(ApiError::new(
                Code::BadRequest,
                "first and skip are not negative".to_owned(),
            ));
        };
        if !(1..=MAX_STEPS_SHOWN).contains(&first) {
            let message = format!("first must be between 1 and {MAX_STEPS_SHOWN}");
            return Err(ApiError::new(Code::BadRequest, message));
        }
        let story = self.story(ctx).await?;
        Ok(story.map(|story| story.steps.iter().skip(skip).take(first).cloned().map(Step).collect()))
    }

    /// What people and programs did about it, oldest first: asked it to end, held it, let it go on, decided for it, said
    /// what became of an effect, replayed it. The last 100.
    async fn history(&self, ctx: &Context<'_>) -> ApiResult<Vec<AuditEntry>> {
        let filter = AuditFilter {
            subject: Some(self.row.id.to_string()),
            ..AuditFilter::default()
        };
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let page = store
            .audit_page(workspace, &filter, None, MAX_HISTORY_SHOWN)
            .await
            .map_err(|error| ApiError::internal("reading the audit trail of a run", &error))?;
        Ok(page.rows.into_iter().rev().map(AuditEntry).collect())
    }

    /// How many `steps` there are.
    async fn step_count(&self, ctx: &Context<'_>) -> ApiResult<Option<i32>> {
        let story = self.story(ctx).await?;
        Ok(story.map(|story| i32::try_from(story.steps.len()).unwrap_or(i32::MAX)))
    }
}

/// Reads one run.
pub(crate) async fn load(ctx: &Context<'_>, id: RunId) -> ApiResult<Option<Run>> {
    let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
    let row = store
        .run_load(workspace, id)
        .await
        .map_err(|error| ApiError::internal("reading a run", &error))?;
    Ok(row.map(Run::from_row))
}

/// Name of a run's workflow, also of one that was deleted.
pub(crate) async fn workflow_name(
    ctx: &Context<'_>,
    row: &RunRow,
    permission: Permission,
) -> ApiResult<Option<String>> {
    let caller = Caller::of(ctx);
    let workspace = caller.may(permission)?;
    let workflow = Workflow::by_id(&caller.any().snapshot(), workspace, row.workflow_id);
    if let Some(workflow) = workflow {
        return Ok(Some(workflow.0.row.name.clone()));
    }
    let version = load_version(ctx, Some(row.version_id), permission).await?;
    Ok(version.and_then(|version| version.workflow_name()))
}

/// A run that never started because another one stands for its event.
#[derive(Debug, SimpleObject)]
pub(crate) struct MergedRun {
    /// Its id.
    id: ID,
    /// Id of its event.
    event_id: ID,
    /// The provider's id of the event.
    external_id: String,
    /// Type of the event, such as `stripe.charge.refunded`.
    #[graphql(name = "type")]
    kind: String,
    /// When the event was accepted.
    received_at: DateTime,
}

impl From<MergedRow> for MergedRun {
    fn from(row: MergedRow) -> Self {
        MergedRun {
            id: row.run.to_string().into(),
            event_id: row.event.to_string().into(),
            external_id: row.external_id,
            kind: format!("{}.{}", row.connector, row.kind),
            received_at: DateTime(row.received_at),
        }
    }
}

/// Why a run failed.
#[derive(Debug, SimpleObject)]
pub(crate) struct RunError {
    /// Stable name in `snake_case`, such as `retries_exhausted`; `effect_unknown` wants a person.
    code: String,
    /// Path of the step that failed.
    step: Option<String>,
    /// The path as people read it: an item without a `key` is told by its place in the list, from 1.
    step_name: Option<String>,
    /// What went wrong, for people. Null without `PAYLOAD_READ`: it may quote contents.
    message: Option<String>,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum RunStatus {
    /// Has not started: `waitingFor` says why.
    Queued,
    /// Begins nothing until somebody lets it go on.
    Paused,
    /// Under way.
    Running,
    /// Sleeps until `dueAt`.
    Waiting,
    /// Finished well.
    Succeeded,
    /// Finished badly: a person may look and replay it.
    Failed,
    /// Stopped by a person.
    Canceled,
    /// Never started: `mergedInto` stands for its event.
    Merged,
}

impl From<Stored> for RunStatus {
    fn from(status: Stored) -> Self {
        match status {
            Stored::Queued => RunStatus::Queued,
            Stored::Paused => RunStatus::Paused,
            Stored::Running => RunStatus::Running,
            Stored::Waiting => RunStatus::Waiting,
            Stored::Succeeded => RunStatus::Succeeded,
            Stored::Failed => RunStatus::Failed,
            Stored::Canceled => RunStatus::Canceled,
            Stored::Merged => RunStatus::Merged,
        }
    }
}

impl From<RunStatus> for Stored {
    fn from(status: RunStatus) -> Self {
        match status {
            RunStatus::Queued => Stored::Queued,
            RunStatus::Paused => Stored::Paused,
            RunStatus::Running => Stored::Running,
            RunStatus::Waiting => Stored::Waiting,
            RunStatus::Succeeded => Stored::Succeeded,
            RunStatus::Failed => Stored::Failed,
            RunStatus::Canceled => Stored::Canceled,
            RunStatus::Merged => Stored::Merged,
        }
    }
}
