//! Mutations of open runs: end them, hold them, let them go on, wake them, decide for them.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::types::run::{self, Run};
use super::super::user_error::{UserError, UserErrorCode};
use super::input_id;
use crate::auth::Permission;
use crate::problem::Code;
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use weir_orchestrator::control::ControlError;
use weir_orchestrator::operate::AskError;
use weir_workflow_engine::RunId;

/// Mutations of open runs.
#[derive(Default)]
pub(crate) struct OperateMutations;

#[Object]
impl OperateMutations {
    /// Asks an open run to end. Nothing new is begun; effects that are on their way are waited for. Answers when the
    /// request is on disk. Needs `RUN_OPERATE`.
    async fn run_cancel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to end.")] input: RunCancelInput,
    ) -> ApiResult<RunOperatePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let id = match input_id::<RunId>(&input.run_id, "runId") {
            Ok(id) => id,
            Err(user_errors) => return Ok(RunOperatePayload::wrong(user_errors)),
        };
        let reason = input.reason.unwrap_or_default();
        let asked = orchestrator.run_cancel(workspace, &caller.actor(), id, &reason).await;
        payload(id, asked)
    }

    /// Has an open run stand still: nothing new is begun, and its time limits stand still with it. What is on its way
    /// comes back and is noted. Needs `RUN_OPERATE`.
    async fn run_pause(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to hold.")] input: RunPauseInput,
    ) -> ApiResult<RunOperatePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let id = match input_id::<RunId>(&input.run_id, "runId") {
            Ok(id) => id,
            Err(user_errors) => return Ok(RunOperatePayload::wrong(user_errors)),
        };
        let reason = input.reason.unwrap_or_default();
        let asked = orchestrator.run_pause(workspace, &caller.actor(), id, &reason).await;
        payload(id, asked)
    }

    /// Lets a run go on that stands still, or is about to; any other is refused, `NOT_PAUSED`. Needs `RUN_OPERATE`.
    async fn run_resume(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What may go on.")] input: RunResumeInput,
    ) -> ApiResult<RunOperatePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let id = match input_id::<RunId>(&input.run_id, "runId") {
            Ok(id) => id,
            Err(user_errors) => return Ok(RunOperatePayload::wrong(user_errors)),
        };
        let asked = orchestrator.run_resume(workspace, &caller.actor(), id).await;
        payload(id, asked)
    }

    /// Has the steps of a run that wait for their next tries make them now, such as after the other side is back. A look
    /// for an effect that may be under way waits until that is sure to be over; a `sleep` goes on. Needs `RUN_OPERATE`.
    async fn run_wake(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to wake.")] input: RunWakeInput,
    ) -> ApiResult<RunOperatePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let id = match input_id::<RunId>(&input.run_id, "runId") {
            Ok(id) => id,
            Err(user_errors) => return Ok(RunOperatePayload::wrong(user_errors)),
        };
        let asked = orchestrator.run_wake(workspace, &caller.actor(), id).await;
        payload(id, asked)
    }

    /// Lets a lane go on that a failed run keeps (`on_block: hold`). The run stays as it is. Needs `RUN_OPERATE`.
    async fn lane_release(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which lane.")] input: LaneReleaseInput,
    ) -> ApiResult<RunOperatePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let id = match input_id::<RunId>(&input.run_id, "runId") {
            Ok(id) => id,
            Err(user_errors) => return Ok(RunOperatePayload::wrong(user_errors)),
        };
        match orchestrator.lane_release(workspace, &caller.actor(), id).await {
            Ok(_) => Ok(RunOperatePayload {
                run: Some(id),
                user_errors: Vec::new(),
            }),
            Err(ControlError::Unavailable(cause)) => {
                tracing::warn!(run.id = %id, "the release of a lane was not stored: {cause}");
                let message = "the database did not confirm it; look before you try again".to_owned();
                Err(ApiError::new(Code::DatabaseUnavailable, message))
            }
            Err(_) => {
                let message = "this run keeps no lane; `heldLanes` lists those that do";
                let error = UserError::input(UserErrorCode::NotFound, "runId", message);
                Ok(RunOperatePayload::wrong(vec![error]))
            }
        }
    }

    /// Decides for or against what an `approve` step asks. The first decision counts. Needs `RUN_APPROVE`.
    async fn approval_decide(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is decided, and how.")] input: ApprovalDecideInput,
    ) -> ApiResult<RunOperatePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunApprove)?;
        let id = match input_id::<RunId>(&input.run_id, "runId") {
            Ok(id) => id,
            Err(user_errors) => return Ok(RunOperatePayload::wrong(user_errors)),
        };
        let note = input.note.unwrap_or_default();
        let question = (id, input.step.as_str());
        let asked = orchestrator
            .decide(workspace, &caller.actor(), question, input.approve, &note)
            .await;
        payload(id, asked)
    }
}

fn payload(run: RunId, asked: Result<(), AskError>) -> ApiResult<RunOperatePayload> {
    let error = match asked {
        Ok(()) => {
            return Ok(RunOperatePayload {
                run: Some(run),
                user_errors: Vec::new(),
            });
        }
        Err(AskError::NotFound) => UserError::not_found("runId"),
        Err(error @ AskError::NotOpen { .. }) => {
            UserError::precondition(UserErrorCode::NotOpen, "runId", error.to_string(), Vec::new())
        }
        Err(error @ AskError::NotPaused { .. }) => {
            UserError::precondition(UserErrorCode::NotPaused, "runId", error.to_string(), Vec::new())
        }
        Err(error @ AskError::NotAsked) => {
            UserError::precondition(UserErrorCode::NotAsked, "step", error.to_string(), Vec::new())
        }
        Err(error @ AskError::NothingWaits { .. }) => {
            UserError::precondition(UserErrorCode::NothingWaits, "runId", error.to_string(), Vec::new())
        }
        Err(AskError::NotYours { by }) => {
            let message = format!("only {} may decide this", by.join(", "));
            UserError::precondition(UserErrorCode::NotYours, "step", message, by)
        }
        Err(error @ AskError::NoteTooLong { .. }) => {
            UserError::input(UserErrorCode::Invalid, "note", error.to_string())
        }
        Err(AskError::Unavailable(cause)) => {
            tracing::warn!(run.id = %run, "a request for a run was not stored: {cause}");
            let message = "the database did not confirm it; look before you try again".to_owned();
            return Err(ApiError::new(Code::DatabaseUnavailable, message));
        }
    };
    Ok(RunOperatePayload::wrong(vec![error]))
}

/// What to end.
#[derive(Debug, InputObject)]
pub(crate) struct RunCancelInput {
    /// The run.
    run_id: ID,
    /// Why, for those who look at it later.
    reason: Option<String>,
}

/// What to hold.
#[derive(Debug, InputObject)]
pub(crate) struct RunPauseInput {
    /// The run.
    run_id: ID,
    /// Why, for those who look at it later.
    reason: Option<String>,
}

/// What may go on.
#[derive(Debug, InputObject)]
pub(crate) struct RunResumeInput {
    /// The run.
    run_id: ID,
}

/// What to wake.
#[derive(Debug, InputObject)]
pub(crate) struct RunWakeInput {
    /// The run.
    run_id: ID,
}

/// Which lane.
#[derive(Debug, InputObject)]
pub(crate) struct LaneReleaseInput {
    /// The failed run that keeps it.
    run_id: ID,
}

/// What is decided, and how.
#[derive(Debug, InputObject)]
pub(crate) struct ApprovalDecideInput {
    /// The run that waits.
    run_id: ID,
    /// The step that asks: its path, or its name.
    step: String,
    /// True for it, false against it.
    approve: bool,
    /// What to say about it; the workflow sees it.
    note: Option<String>,
}

/// What was asked of a run. The run takes it in by itself, right away or when its node is back.
#[derive(Debug, SimpleObject)]
#[graphql(complex)]
pub(crate) struct RunOperatePayload {
    #[graphql(skip)]
    run: Option<RunId>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

#[async_graphql::ComplexObject]
impl RunOperatePayload {
    /// Id of the run; it needs no permission to read. Null: nothing was asked.
    async fn run_id(&self) -> Option<ID> {
        self.run.map(|id| id.to_string().into())
    }

    /// The run as it stands now. Null: nothing was asked. Needs `RUN_READ`.
    async fn run(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        match self.run {
            Some(id) => run::load(ctx, id).await,
            None => Ok(None),
        }
    }
}

impl RunOperatePayload {
    fn wrong(user_errors: Vec<UserError>) -> Self {
        RunOperatePayload { run: None, user_errors }
    }
}
