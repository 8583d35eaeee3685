//! Mutations of runs: start and replay.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::scalars::Json;
use super::super::types::event::{self, Event};
use super::super::types::replay_preview::{ReplayOptionsInput, ReplayPreview};
use super::super::types::run::{self, Run};
use super::super::types::step::with_particular;
use super::super::user_error::{UserError, UserErrorCode};
use super::{input_id, unavailable};
use crate::auth::Permission;
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use weir_orchestrator::control::ControlError;
use weir_orchestrator::repair::ReplayOptions;
use weir_workflow_engine::{EventId, RunId};

/// Longest idempotency key, bytes: a UUID with room to spare.
///
/// Limit: `idempotencyKey` of `runStart` | `INVALID` | `inputs_stop_at_their_bounds`
const MAX_KEY_BYTES: usize = 200;

/// Mutations of runs.
#[derive(Default)]
pub(crate) struct RunMutations;

#[Object]
impl RunMutations {
    /// Starts a workflow by hand. Answers when the start is on disk; the run goes on by itself. Needs `RUN_OPERATE`.
    async fn run_start(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to start.")] input: RunStartInput,
    ) -> ApiResult<RunStartPayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        if input
            .idempotency_key
            .as_ref()
            .is_some_and(|key| key.is_empty() || key.len() > MAX_KEY_BYTES)
        {
            let error = UserError::input(
                UserErrorCode::Invalid,
                "idempotencyKey",
                format!("a key has 1 to {MAX_KEY_BYTES} bytes"),
            );
            return Ok(RunStartPayload::refused(error));
        }
        let body = input.input.map(|input| input.0).unwrap_or_default();
        match orchestrator
            .run_start(workspace, &caller.actor(), &input.workflow, body, input.idempotency_key)
            .await
        {
            Ok(started) => Ok(RunStartPayload {
                run: started.run,
                event: Some(started.event),
                replayed: started.replayed,
                user_errors: Vec::new(),
            }),
            Err(ControlError::NotFound) => {
                let error = UserError::no_workflow(caller, "workflow", &input.workflow);
                Ok(RunStartPayload::refused(error))
            }
            Err(ControlError::Invalid(problems)) => Ok(RunStartPayload {
                run: None,
                event: None,
                replayed: false,
                user_errors: misfits("input", problems),
            }),
            Err(error @ ControlError::KeyReused { first }) => {
                let message = format!("{error}: take another key for another input");
                Ok(RunStartPayload::refused(UserError::precondition(
                    UserErrorCode::IdempotencyKeyReused,
                    "idempotencyKey",
                    message,
                    vec![first.to_string()],
                )))
            }
            Err(ControlError::NotReplayable { why, .. } | ControlError::NotResolvable { why }) => Ok(
                RunStartPayload::refused(UserError::input(UserErrorCode::Invalid, "workflow", why)),
            ),
            Err(
                ControlError::PreviewChanged(_) | ControlError::AlreadyReplayed { .. } | ControlError::BulkChanged(_),
            ) => Err(ApiError::internal_text(
                "starting a run",
                "answered as if it were a replay",
            )),
            Err(ControlError::Unavailable(cause)) => Err(unavailable("a run was not started", &cause)),
        }
    }

    /// Replays a run that is over. Effects that took place are answered from the record; `replayPreview` tells which
    /// would be sent, and gives the word for `confirm`. Needs `RUN_OPERATE`.
    async fn run_replay(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to replay.")] input: RunReplayInput,
    ) -> ApiResult<RunReplayPayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let id = match input_id::<RunId>(&input.run_id, "runId") {
            Ok(id) => id,
            Err(user_errors) => {
                return Ok(RunReplayPayload {
                    user_errors,
                    ..RunReplayPayload::default()
                });
            }
        };
        let options = match input.options.unwrap_or_default().parse() {
            Ok(options) => ReplayOptions {
                again: input.again.unwrap_or(false),
                ..options
            },
            Err(user_errors) => {
                return Ok(RunReplayPayload {
                    user_errors,
                    ..RunReplayPayload::default()
                });
            }
        };
        match orchestrator
            .replay(workspace, &caller.actor(), id, &options, &input.confirm)
            .await
        {
            Ok(run) => Ok(RunReplayPayload {
                run: Some(run),
                preview: None,
                user_errors: Vec::new(),
            }),
            Err(ControlError::NotFound) => Ok(RunReplayPayload::refused(UserError::not_found("runId"))),
            Err(ControlError::NotReplayable { why, quoted }) => {
                let why = with_particular(ctx, why, quoted);
                Ok(RunReplayPayload::refused(UserError::precondition(
                    UserErrorCode::NotReplayable,
                    "runId",
                    why,
                    Vec::new(),
                )))
            }
            Err(error @ ControlError::AlreadyReplayed { by, .. }) => {
                let message = format!("{error}; set `again` to replay this one nevertheless");
                Ok(RunReplayPayload::refused(UserError::precondition(
                    UserErrorCode::AlreadyReplayed,
                    "again",
                    message,
                    vec![by.to_string()],
                )))
            }
            Err(ControlError::PreviewChanged(prepared)) => {
                let message = "what the replay would do is not what was shown: look at the preview again";
                let error = UserError::precondition(UserErrorCode::PreviewChanged, "confirm", message, Vec::new());
                Ok(RunReplayPayload {
                    preview: Some(ReplayPreview::shown(*prepared, ctx)),
                    ..RunReplayPayload::refused(error)
                })
            }
            Err(ControlError::Invalid(problems)) => Ok(RunReplayPayload {
                run: None,
                preview: None,
                user_errors: misfits("options", problems),
            }),
            Err(
                error @ (ControlError::BulkChanged(_)
                | ControlError::KeyReused { .. }
                | ControlError::NotResolvable { .. }),
            ) => Err(ApiError::internal("replaying a run", &error)),
            Err(ControlError::Unavailable(cause)) => Err(unavailable("a run was not replayed", &cause)),
        }
    }
}

/// Each misfit of an input, below the field that was given.
pub(super) fn misfits(field: &str, problems: Vec<weir_workflow_engine::Problem>) -> Vec<UserError> {
    problems
        .into_iter()
        .map(|problem| UserError::inside(field, problem))
        .collect()
}

/// What to start.
#[derive(Debug, InputObject)]
pub(crate) struct RunStartInput {
    /// Name of the workflow.
    workflow: String,
    /// What expressions see as `event.body`; checked when the workflow says what its input looks like. A scheduled workflow
    /// sees it as `event.data.input`; left out or empty, it sees the input of its schedule.
    input: Option<Json>,
    /// A second start of this workflow with the same key starts nothing and gives the first run.
    idempotency_key: Option<String>,
}

/// A run that was started.
#[derive(Debug, Default, SimpleObject)]
#[graphql(complex)]
pub(crate) struct RunStartPayload {
    #[graphql(skip)]
    run: Option<RunId>,
    #[graphql(skip)]
    event: Option<EventId>,
    /// Whether the key had been used before: then nothing new was started.
    replayed: bool,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

#[async_graphql::ComplexObject]
impl RunStartPayload {
    /// Id of the run; it needs no permission to read. Null: nothing was started.
    async fn run_id(&self) -> Option<ID> {
        self.run.map(|id| id.to_string().into())
    }

    /// The run. Null: nothing was started. Needs `RUN_READ`.
    async fn run(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        match self.run {
            Some(id) => run::load(ctx, id).await,
            None => Ok(None),
        }
    }

    /// The event that stands for the start. Needs `RUN_READ`.
    async fn event(&self, ctx: &Context<'_>) -> ApiResult<Option<Event>> {
        match self.event {
            Some(id) => event::load(ctx, id).await,
            None => Ok(None),
        }
    }
}

impl RunStartPayload {
    fn refused(error: UserError) -> Self {
        RunStartPayload {
            user_errors: vec![error],
            ..RunStartPayload::default()
        }
    }
}

/// What to replay.
#[derive(Debug, InputObject)]
pub(crate) struct RunReplayInput {
    /// The run.
    run_id: ID,
    /// `confirm` of the preview that was looked at.
    confirm: String,
    /// The same as for the preview.
    options: Option<ReplayOptionsInput>,
    /// True: also when the run was replayed before, as `replacedBy` of the preview says.
    again: Option<bool>,
}

/// A run that was replayed.
#[derive(Debug, Default, SimpleObject)]
#[graphql(complex)]
pub(crate) struct RunReplayPayload {
    #[graphql(skip)]
    run: Option<RunId>,
    /// The new preview, when the one that was confirmed is no longer true.
    preview: Option<ReplayPreview>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

#[async_graphql::ComplexObject]
impl RunReplayPayload {
    /// Id of the new run; it needs no permission to read. Null: nothing was started.
    async fn run_id(&self) -> Option<ID> {
        self.run.map(|id| id.to_string().into())
    }

    /// The new run. Null: nothing was started. Needs `RUN_READ`.
    async fn run(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        match self.run {
            Some(id) => run::load(ctx, id).await,
            None => Ok(None),
        }
    }
}

impl RunReplayPayload {
    fn refused(error: UserError) -> Self {
        RunReplayPayload {
            user_errors: vec![error],
            ..RunReplayPayload::default()
        }
    }
}
