//! Mutations of dead letters: a person says that somebody has taken care of them, or that nobody has to.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::types::dead_letter::{self, DeadLetterCause, cause_key};
use super::super::user_error::{UserError, UserErrorCode};
use super::unavailable;
use crate::auth::Permission;
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use weir_orchestrator::control::ControlError;
use weir_orchestrator::repair::MAX_NOTE_CHARACTERS;
use weir_storage::{CauseKey, CauseState};

/// Mutations of dead letters.
#[derive(Default)]
pub(crate) struct DeadLetterMutations;

#[Object]
impl DeadLetterMutations {
    /// Notes what became of the dead letters with one cause: resolved, ignored, or open again. Nothing is sent and no
    /// run is changed by it. Needs `RUN_OPERATE`.
    async fn dead_letter_mark(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which cause, and what to note.")] input: DeadLetterMarkInput,
    ) -> ApiResult<DeadLetterMarkPayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let refused = |user_errors| Ok(DeadLetterMarkPayload { key: None, user_errors });
        let Some(key) = cause_key(&input.cause_id) else {
            let message = "this is not the id of a cause";
            return refused(vec![UserError::input(UserErrorCode::InvalidId, "causeId", message)]);
        };
        let note = input.note.unwrap_or_default();
        if note.chars().count() > MAX_NOTE_CHARACTERS {
            let message = format!("a note has at most {MAX_NOTE_CHARACTERS} characters");
            return refused(vec![UserError::input(UserErrorCode::Invalid, "note", message)]);
        }
        let state = match input.mark {
            DeadLetterMark::Open => CauseState::Open,
            DeadLetterMark::Resolved => CauseState::Resolved,
            DeadLetterMark::Ignored => CauseState::Ignored,
        };
        match orchestrator
            .cause_mark(workspace, &caller.actor(), key, state, note)
            .await
        {
            Ok(()) => Ok(DeadLetterMarkPayload {
                key: Some(key),
                user_errors: Vec::new(),
            }),
            Err(ControlError::NotFound) => refused(vec![UserError::not_found("causeId")]),
            Err(ControlError::Unavailable(cause)) => Err(unavailable("the mark was not noted", &cause)),
            Err(error) => Err(ApiError::internal("marking dead letters", &error)),
        }
    }
}

/// What to note about dead letters.
#[derive(Debug, InputObject)]
pub(crate) struct DeadLetterMarkInput {
    /// The cause.
    cause_id: ID,
    /// What to note.
    mark: DeadLetterMark,
    /// Why, for those who look later.
    note: Option<String>,
}

/// What a person notes about dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum DeadLetterMark {
    /// They want a person.
    Open,
    /// Taken care of. Runs that fail for the same cause from now on make it open again.
    Resolved,
    /// Nobody has to take care of them, and of those to come neither.
    Ignored,
}

/// What was noted.
#[derive(Debug, SimpleObject)]
#[graphql(complex)]
pub(crate) struct DeadLetterMarkPayload {
    #[graphql(skip)]
    key: Option<CauseKey>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

#[async_graphql::ComplexObject]
impl DeadLetterMarkPayload {
    /// The cause as it is now. Needs `RUN_READ`.
    async fn cause(&self, ctx: &Context<'_>) -> ApiResult<Option<DeadLetterCause>> {
        match self.key {
            Some(key) => dead_letter::load(ctx, key).await,
            None => Ok(None),
        }
    }
}
