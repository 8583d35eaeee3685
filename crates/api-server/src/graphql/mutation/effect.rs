//! Mutations of effects: a person says what became of one that nobody knew about.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::scalars::Json;
use super::super::types::bulk_resolve::EffectResolution;
use super::super::types::run::{self, Run};
use super::super::types::step::EffectDecision;
use super::super::user_error::{UserError, UserErrorCode};
use super::{input_id, unavailable};
use crate::auth::Permission;
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use weir_orchestrator::control::ControlError;
use weir_orchestrator::repair::{MAX_NOTE_CHARACTERS, MAX_STATED_OUTPUT_BYTES, Resolution};
use weir_workflow_engine::RunId;

/// Mutations of effects.
#[derive(Default)]
pub(crate) struct EffectMutations;

#[Object]
impl EffectMutations {
    /// Says what became of an effect whose state is `UNKNOWN`, in a run that is over. Nothing is sent by it: later
    /// replays go by what was said. Saying the same again changes nothing. Needs `RUN_OPERATE`.
    async fn effect_resolve(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which effect, and what became of it.")] input: EffectResolveInput,
    ) -> ApiResult<EffectResolvePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let id = match input_id::<RunId>(&input.run_id, "runId") {
            Ok(id) => id,
            Err(user_errors) => return Ok(EffectResolvePayload::refused(user_errors)),
        };
        let note = input.note.unwrap_or_default();
        let invalid = |field, message: String| {
            let error = UserError::input(UserErrorCode::Invalid, field, message);
            Ok(EffectResolvePayload::refused(vec![error]))
        };
        if let Some(wrong) = wrong_note(&note) {
            return Ok(EffectResolvePayload::refused(vec![wrong]));
        }
        let resolution = match (input.resolution, input.output) {
            (EffectResolution::Happened, output) => Resolution::Happened {
                output: output.map(|output| output.0),
            },
            (EffectResolution::NotHappened, None) => Resolution::NotHappened,
            (EffectResolution::Look, None) => Resolution::Look,
            (EffectResolution::NotHappened | EffectResolution::Look, Some(_)) => {
                return invalid("output", "only what happened has an output".to_owned());
            }
        };
        if let Resolution::Happened { output: Some(output) } = &resolution
            && output.to_string().len() > MAX_STATED_OUTPUT_BYTES
        {
            let limit = MAX_STATED_OUTPUT_BYTES >> 10;
            return invalid("output", format!("an output has at most {limit} KiB"));
        }
        let resolved = orchestrator
            .effect_resolve(workspace, &caller.actor(), id, &input.step, (resolution, note))
            .await;
        match resolved {
            Ok(resolved) => Ok(EffectResolvePayload {
                run: Some(id),
                decision: resolved.decided.as_ref().map(EffectDecision::from),
                message: Some(resolved.message),
                user_errors: Vec::new(),
            }),
            Err(ControlError::NotFound) => Ok(EffectResolvePayload::refused(vec![UserError::not_found("runId")])),
            Err(ControlError::NotResolvable { why } | ControlError::NotReplayable { why, .. }) => {
                let code = UserErrorCode::NotResolvable;
                let error = UserError::precondition(code, "step", why, Vec::new());
                Ok(EffectResolvePayload::refused(vec![error]))
            }
            Err(ControlError::Unavailable(cause)) => Err(unavailable("the effect was not resolved", &cause)),
            Err(
                error @ (ControlError::Invalid(_)
                | ControlError::AlreadyReplayed { .. }
                | ControlError::KeyReused { .. }
                | ControlError::PreviewChanged(_)
                | ControlError::BulkChanged(_)),
            ) => Err(ApiError::internal("resolving an effect", &error)),
        }
    }
}

/// What is wrong with a note about effects.
pub(super) fn wrong_note(note: &str) -> Option<UserError> {
    (note.chars().count() > MAX_NOTE_CHARACTERS).then(|| {
        let message = format!("a note has at most {MAX_NOTE_CHARACTERS} characters");
        UserError::input(UserErrorCode::Invalid, "note", message)
    })
}

/// Which effect, and what became of it.
#[derive(Debug, InputObject)]
pub(crate) struct EffectResolveInput {
    /// The run whose story shows the effect as `UNKNOWN`.
    run_id: ID,
    /// Path of the step, as in the story.
    step: String,
    /// What became of it.
    resolution: EffectResolution,
    /// What later steps see as the output of the step, for `HAPPENED`; null when left out.
    output: Option<Json>,
    /// Why, for those who look later.
    note: Option<String>,
}

/// What is known of the effect now.
#[derive(Debug, Default, SimpleObject)]
#[graphql(complex)]
pub(crate) struct EffectResolvePayload {
    #[graphql(skip)]
    run: Option<RunId>,
    /// What counts from now on. Null: a look found nothing, or the input was wrong.
    decision: Option<EffectDecision>,
    /// What was noted or found, for people.
    message: Option<String>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

#[async_graphql::ComplexObject]
impl EffectResolvePayload {
    /// The run. Needs `RUN_READ`.
    async fn run(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        match self.run {
            Some(id) => run::load(ctx, id).await,
            None => Ok(None),
        }
    }
}

impl EffectResolvePayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        Self {
            user_errors,
            ..Self::default()
        }
    }
}
