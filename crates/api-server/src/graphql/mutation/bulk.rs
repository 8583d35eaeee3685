//! Mutations of many runs at once.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::types::bulk::{self, BulkFilterInput, BulkOperation, BulkReplayPreview};
use super::super::types::bulk_request::{BulkRequest, OpenRunFilterInput};
use super::super::types::bulk_resolve::{BulkResolvePreview, EffectResolution, UnknownEffectFilterInput};
use super::super::types::replay_preview::ReplayOptionsInput;
use super::super::user_error::{UserError, UserErrorCode};
use super::effect::wrong_note;
use super::run::misfits;
use super::{input_id, unavailable};
use crate::auth::Permission;
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use weir_orchestrator::control::ControlError;
use weir_orchestrator::repair::{BulkResolveError, RequestError};
use weir_workflow_engine::BulkId;

/// Mutations of many runs at once.
#[derive(Default)]
pub(crate) struct BulkMutations;

#[Object]
impl BulkMutations {
    /// Replays every run that fits the filter, one after the other and behind live events. `bulkReplayPreview` tells
    /// what it would do, and gives the word for `confirm`. Needs `RUN_OPERATE`.
    async fn bulk_replay(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which runs, and how.")] input: BulkReplayInput,
    ) -> ApiResult<BulkReplayPayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let options = match input.options.unwrap_or_default().parse() {
            Ok(options) => options,
            Err(user_errors) => return Ok(BulkReplayPayload::refused(user_errors)),
        };
        let filter = match input.filter.parse() {
            Ok(filter) => filter,
            Err(wrong) => {
                let error = UserError::input(UserErrorCode::Invalid, "filter", wrong);
                return Ok(BulkReplayPayload::refused(vec![error]));
            }
        };
        let begun = orchestrator
            .bulk_replay(workspace, &caller.actor(), &filter, &options, &input.confirm)
            .await;
        match begun {
            Ok(id) => Ok(BulkReplayPayload {
                bulk: Some(id),
                ..BulkReplayPayload::default()
            }),
            Err(ControlError::NotFound) => {
                let error = UserError::no_workflow(caller, "filter", filter.workflow.as_deref().unwrap_or_default());
                Ok(BulkReplayPayload::refused(vec![error]))
            }
            Err(ControlError::NotReplayable { why, .. } | ControlError::NotResolvable { why }) => {
                let error = UserError::precondition(UserErrorCode::NotReplayable, "filter", why, Vec::new());
                Ok(BulkReplayPayload::refused(vec![error]))
            }
            Err(ControlError::BulkChanged(preview)) => {
                let message = "what the replays would do is not what was shown: look at the preview again";
                let error = UserError::precondition(UserErrorCode::PreviewChanged, "confirm", message, Vec::new());
                Ok(BulkReplayPayload {
                    preview: Some((*preview).into()),
                    ..BulkReplayPayload::refused(vec![error])
                })
            }
            Err(ControlError::Invalid(problems)) => Ok(BulkReplayPayload::refused(misfits("options", problems))),
            Err(
                error @ (ControlError::PreviewChanged(_)
                | ControlError::AlreadyReplayed { .. }
                | ControlError::KeyReused { .. }),
            ) => Err(ApiError::internal("replaying runs", &error)),
            Err(ControlError::Unavailable(cause)) => Err(unavailable("the runs are not replayed", &cause)),
        }
    }

    /// Asks something of every open run that fits the filter, one after the other: to end, to stand still, to go on.
    /// `bulkRequestPreview` tells which they are, and gives the word for `confirm`. Needs `RUN_OPERATE`.
    async fn bulk_request(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which runs, and what is asked.")] input: BulkRequestInput,
    ) -> ApiResult<BulkRequestPayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let refused = |error| {
            Ok(BulkRequestPayload {
                bulk: None,
                user_errors: vec![error],
            })
        };
        let filter = match input.filter.parse() {
            Ok(filter) => filter,
            Err(wrong) => return refused(UserError::input(UserErrorCode::Invalid, "filter", wrong)),
        };
        let reason = input.reason.unwrap_or_default();
        let asked = (input.request.into(), reason.as_str());
        let begun = orchestrator
            .bulk_request(workspace, &caller.actor(), &filter, asked, &input.confirm)
            .await;
        match begun {
            Ok(id) => Ok(BulkRequestPayload {
                bulk: Some(id),
                user_errors: Vec::new(),
            }),
            Err(error @ RequestError::NoneFits) => refused(UserError::precondition(
                UserErrorCode::NotFound,
                "filter",
                error.to_string(),
                Vec::new(),
            )),
            Err(error @ RequestError::Changed) => refused(UserError::precondition(
                UserErrorCode::PreviewChanged,
                "confirm",
                format!("{error}: look at the preview again"),
                Vec::new(),
            )),
            Err(error @ RequestError::ReasonTooLong) => {
                refused(UserError::input(UserErrorCode::Invalid, "reason", error.to_string()))
            }
            Err(RequestError::Control(ControlError::NotFound)) => {
                let name = filter.workflow.as_deref().unwrap_or_default();
                refused(UserError::no_workflow(caller, "filter", name))
            }
            Err(RequestError::Control(ControlError::Unavailable(cause))) => {
                Err(unavailable("the runs are not asked", &cause))
            }
            Err(RequestError::Control(error)) => Err(ApiError::internal("asking many runs", &error)),
        }
    }

    /// Says the same about every effect of unknown fate that fits the filter, as `effectResolve` does about one.
    /// `bulkResolvePreview` tells which they are, and gives the word for `confirm`. Needs `RUN_OPERATE`.
    async fn bulk_resolve(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which effects, and what became of them.")] input: BulkResolveInput,
    ) -> ApiResult<BulkResolvePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let refused = |error| {
            Ok(BulkResolvePayload {
                user_errors: vec![error],
                ..BulkResolvePayload::default()
            })
        };
        let filter = match input.filter.parse() {
            Ok(filter) => filter,
            Err(wrong) => return refused(UserError::input(UserErrorCode::Invalid, "filter", wrong)),
        };
        let note = input.note.unwrap_or_default();
        if let Some(wrong) = wrong_note(&note) {
            return refused(wrong);
        }
        let said = (input.resolution.into(), note.as_str());
        let begun = orchestrator
            .bulk_resolve(workspace, &caller.actor(), &filter, said, &input.confirm)
            .await;
        match begun {
            Ok(id) => Ok(BulkResolvePayload {
                bulk: Some(id),
                ..BulkResolvePayload::default()
            }),
            Err(error @ BulkResolveError::NoneFits) => refused(UserError::precondition(
                UserErrorCode::NotFound,
                "filter",
                error.to_string(),
                Vec::new(),
            )),
            Err(BulkResolveError::Changed(preview)) => {
                let message = "the effects that fit are not those that were shown: look at the preview again";
                let error = UserError::precondition(UserErrorCode::PreviewChanged, "confirm", message, Vec::new());
                Ok(BulkResolvePayload {
                    bulk: None,
                    preview: Some((*preview).into()),
                    user_errors: vec![error],
                })
            }
            Err(BulkResolveError::Control(ControlError::NotFound)) => {
                let name = filter.workflow.as_deref().unwrap_or_default();
                refused(UserError::no_workflow(caller, "filter", name))
            }
            Err(BulkResolveError::Control(ControlError::Unavailable(cause))) => {
                Err(unavailable("the effects were not resolved", &cause))
            }
            Err(BulkResolveError::Control(error)) => Err(ApiError::internal("resolving many effects", &error)),
        }
    }

    /// Stops an operation on many runs: no further run has its turn. What was started goes on. Needs `RUN_OPERATE`.
    async fn bulk_stop(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to stop.")] input: BulkStopInput,
    ) -> ApiResult<BulkStopPayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let refused = |user_errors| {
            Ok(BulkStopPayload {
                bulk: None,
                user_errors,
            })
        };
        let id = match input_id::<BulkId>(&input.id, "id") {
            Ok(id) => id,
            Err(user_errors) => return refused(user_errors),
        };
        match orchestrator.bulk_stop(workspace, &caller.actor(), id).await {
            Ok(()) => Ok(BulkStopPayload {
                bulk: Some(id),
                user_errors: Vec::new(),
            }),
            Err(ControlError::NotFound) => refused(vec![UserError::not_found("id")]),
            Err(ControlError::NotReplayable { why, .. } | ControlError::NotResolvable { why }) => {
                refused(vec![UserError::precondition(
                    UserErrorCode::Invalid,
                    "id",
                    why,
                    Vec::new(),
                )])
            }
            Err(ControlError::Unavailable(cause)) => Err(unavailable("the operation was not stopped", &cause)),
            Err(
                error @ (ControlError::Invalid(_)
                | ControlError::AlreadyReplayed { .. }
                | ControlError::KeyReused { .. }
                | ControlError::PreviewChanged(_)
                | ControlError::BulkChanged(_)),
            ) => Err(ApiError::internal("stopping an operation", &error)),
        }
    }
}

async fn load(ctx: &Context<'_>, bulk: Option<BulkId>) -> ApiResult<Option<BulkOperation>> {
    match bulk {
        Some(id) => bulk::load(ctx, id).await,
        None => Ok(None),
    }
}

/// Which runs to replay, and how.
#[derive(Debug, InputObject)]
pub(crate) struct BulkReplayInput {
    /// Which runs.
    filter: BulkFilterInput,
    /// Where each begins and on which version; the same as for the preview.
    options: Option<ReplayOptionsInput>,
    /// `confirm` of the preview that was looked at.
    confirm: String,
}

/// An operation that began.
#[derive(Debug, Default, SimpleObject)]
#[graphql(complex)]
pub(crate) struct BulkReplayPayload {
    #[graphql(skip)]
    bulk: Option<BulkId>,
    /// The new preview, when the one that was confirmed is no longer true.
    preview: Option<BulkReplayPreview>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

#[async_graphql::ComplexObject]
impl BulkReplayPayload {
    /// Id of the operation; it needs no permission to read. Null: nothing began.
    async fn bulk_id(&self) -> Option<ID> {
        self.bulk.map(|id| id.to_string().into())
    }

    /// The operation. Null: nothing began. Needs `RUN_READ`.
    async fn bulk(&self, ctx: &Context<'_>) -> ApiResult<Option<BulkOperation>> {
        load(ctx, self.bulk).await
    }
}

impl BulkReplayPayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        Self {
            user_errors,
            ..Self::default()
        }
    }
}

/// Which open runs to ask, and what.
#[derive(Debug, InputObject)]
pub(crate) struct BulkRequestInput {
    /// Which open runs.
    filter: OpenRunFilterInput,
    /// What is asked of them.
    request: BulkRequest,
    /// Why; it stands in their journals and in the audit trail, at most 4,096 bytes. Not kept for `RESUME`.
    reason: Option<String>,
    /// `confirm` of the preview that was looked at.
    confirm: String,
}

/// An operation that began.
#[derive(Debug, SimpleObject)]
#[graphql(complex)]
pub(crate) struct BulkRequestPayload {
    #[graphql(skip)]
    bulk: Option<BulkId>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

#[async_graphql::ComplexObject]
impl BulkRequestPayload {
    /// Id of the operation; it needs no permission to read. Null: nothing began.
    async fn bulk_id(&self) -> Option<ID> {
        self.bulk.map(|id| id.to_string().into())
    }

    /// The operation. Null: nothing began. Needs `RUN_READ`.
    async fn bulk(&self, ctx: &Context<'_>) -> ApiResult<Option<BulkOperation>> {
        load(ctx, self.bulk).await
    }
}

/// Which effects, and what became of them.
#[derive(Debug, InputObject)]
pub(crate) struct BulkResolveInput {
    /// Which effects.
    filter: UnknownEffectFilterInput,
    /// What became of them.
    resolution: EffectResolution,
    /// Why, for those who look later.
    note: Option<String>,
    /// `confirm` of the preview that was looked at.
    confirm: String,
}

/// An operation that began.
#[derive(Debug, Default, SimpleObject)]
#[graphql(complex)]
pub(crate) struct BulkResolvePayload {
    #[graphql(skip)]
    bulk: Option<BulkId>,
    /// The new preview, when the one that was confirmed is no longer true.
    preview: Option<BulkResolvePreview>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

#[async_graphql::ComplexObject]
impl BulkResolvePayload {
    /// Id of the operation; it needs no permission to read. Null: nothing began.
    async fn bulk_id(&self) -> Option<ID> {
        self.bulk.map(|id| id.to_string().into())
    }

    /// The operation. Null: nothing began. Needs `RUN_READ`.
    async fn bulk(&self, ctx: &Context<'_>) -> ApiResult<Option<BulkOperation>> {
        load(ctx, self.bulk).await
    }
}

/// What to stop.
#[derive(Debug, InputObject)]
pub(crate) struct BulkStopInput {
    /// The operation.
    id: ID,
}

/// An operation that was stopped.
#[derive(Debug, SimpleObject)]
#[graphql(complex)]
pub(crate) struct BulkStopPayload {
    #[graphql(skip)]
    bulk: Option<BulkId>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

#[async_graphql::ComplexObject]
impl BulkStopPayload {
    /// The operation. Null: nothing was stopped. Needs `RUN_READ`.
    async fn bulk(&self, ctx: &Context<'_>) -> ApiResult<Option<BulkOperation>> {
        load(ctx, self.bulk).await
    }
}
