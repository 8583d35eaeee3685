//! Mutations of backfills.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::scalars::DateTime;
use super::super::types::backfill::{self, Backfill, BackfillPlan};
use super::super::user_error::{UserError, UserErrorCode};
use super::{input_id, unavailable};
use crate::auth::Permission;
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use weir_orchestrator::sweeps::BackfillRefusal;
use weir_storage::BackfillRow;
use weir_workflow_engine::{BackfillId, EndpointId};

/// Mutations of backfills.
#[derive(Default)]
pub(crate) struct BackfillMutations;

/// What is asked of a backfill that there is.
#[derive(Clone, Copy)]
enum Ask {
    Pause,
    Resume,
    Stop,
}

#[Object]
impl BackfillMutations {
    /// Takes in what an endpoint's provider lists for a chosen past range, at low priority: what never arrived is
    /// recovered, what did is known again. `backfillCheck` of the endpoint tells what it would do, and gives the word for
    /// `confirm`. One at a time per endpoint. Needs `RUN_OPERATE`.
    async fn endpoint_backfill_start(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which endpoint, and which range.")] input: EndpointBackfillStartInput,
    ) -> ApiResult<BackfillPayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let id = match input_id::<EndpointId>(&input.id, "id") {
            Ok(id) => id,
            Err(errors) => return Ok(BackfillPayload::refused(errors)),
        };
        let range = (input.since.0, input.until.0);
        let begun = orchestrator
            .backfill_start(workspace, &caller.actor(), id, range, &input.confirm)
            .await;
        payload(begun)
    }

    /// Lets a backfill stand still. What is stored stays; the page that is being read is read again when it goes on.
    /// Needs `RUN_OPERATE`.
    async fn endpoint_backfill_pause(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which backfill.")] input: BackfillInput,
    ) -> ApiResult<BackfillPayload> {
        ask(ctx, &input, Ask::Pause).await
    }

    /// Lets a paused backfill go on, and tries one at once that waits after a failed try. Needs `RUN_OPERATE`.
    async fn endpoint_backfill_resume(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which backfill.")] input: BackfillInput,
    ) -> ApiResult<BackfillPayload> {
        ask(ctx, &input, Ask::Resume).await
    }

    /// Ends a backfill. What is stored stays, and its runs go on. Needs `RUN_OPERATE`.
    async fn endpoint_backfill_stop(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which backfill.")] input: BackfillInput,
    ) -> ApiResult<BackfillPayload> {
        ask(ctx, &input, Ask::Stop).await
    }
}

async fn ask(ctx: &Context<'_>, input: &BackfillInput, ask: Ask) -> ApiResult<BackfillPayload> {
    let caller = Caller::of(ctx);
    let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
    let id = match input_id::<BackfillId>(&input.id, "id") {
        Ok(id) => id,
        Err(errors) => return Ok(BackfillPayload::refused(errors)),
    };
    let actor = caller.actor();
    payload(match ask {
        Ask::Pause => orchestrator.backfill_pause(workspace, &actor, id).await,
        Ask::Resume => orchestrator.backfill_resume(workspace, &actor, id).await,
        Ask::Stop => orchestrator.backfill_stop(workspace, &actor, id).await,
    })
}

fn payload(done: Result<BackfillRow, BackfillRefusal>) -> ApiResult<BackfillPayload> {
    let refusal = match done {
        Ok(row) => {
            return Ok(BackfillPayload {
                backfill: Some(row.id),
                ..BackfillPayload::default()
            });
        }
        Err(refusal) => refusal,
    };
    let message = refusal.to_string();
    let error = match refusal {
        BackfillRefusal::NotFound => UserError::not_found("id"),
        BackfillRefusal::NotSwept(_) | BackfillRefusal::NoRange { .. } => {
            UserError::input(UserErrorCode::Invalid, "id", message)
        }
        BackfillRefusal::Empty { .. } | BackfillRefusal::BeforeReach { .. } | BackfillRefusal::BeforeMemory { .. } => {
            UserError::input(UserErrorCode::Invalid, "since", message)
        }
        BackfillRefusal::Open { id, .. } => {
            UserError::precondition(UserErrorCode::InUse, "id", message, vec![id.to_string()])
        }
        BackfillRefusal::Unfit { .. } => UserError::precondition(UserErrorCode::NotOpen, "id", message, Vec::new()),
        BackfillRefusal::Changed(preview) => {
            let error = UserError::precondition(UserErrorCode::PreviewChanged, "confirm", message, Vec::new());
            return Ok(BackfillPayload {
                plan: Some((*preview).into()),
                ..BackfillPayload::refused(vec![error])
            });
        }
        BackfillRefusal::Unavailable(cause) => return Err(unavailable("the backfill was not changed", &cause)),
    };
    Ok(BackfillPayload::refused(vec![error]))
}

/// A backfill that is to begin.
#[derive(Debug, InputObject)]
pub(crate) struct EndpointBackfillStartInput {
    /// Which endpoint.
    id: ID,
    /// Events that happened at this time or later.
    since: DateTime,
    /// And before this time: `until` of the plan that was looked at.
    until: DateTime,
    /// `confirm` of that plan.
    confirm: String,
}

/// Which backfill.
#[derive(Debug, InputObject)]
pub(crate) struct BackfillInput {
    /// Its id.
    id: ID,
}

/// A backfill that began, or of which something was asked.
#[derive(Debug, Default, SimpleObject)]
#[graphql(complex)]
pub(crate) struct BackfillPayload {
    #[graphql(skip)]
    backfill: Option<BackfillId>,
    /// The new plan, when the one that was confirmed is no longer true.
    plan: Option<BackfillPlan>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

#[async_graphql::ComplexObject]
impl BackfillPayload {
    /// Id of the backfill; it needs no permission to read. Null: nothing was done.
    async fn backfill_id(&self) -> Option<ID> {
        self.backfill.map(|id| id.to_string().into())
    }

    /// The backfill. Null: nothing was done. Needs `RUN_READ`.
    async fn backfill(&self, ctx: &Context<'_>) -> ApiResult<Option<Backfill>> {
        match self.backfill {
            Some(id) => backfill::load(ctx, id).await,
            None => Ok(None),
        }
    }
}

impl BackfillPayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        Self {
            user_errors,
            ..Self::default()
        }
    }
}
