//! Mutations of events: start a workflow with one that is stored already.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::types::run::{self, Run};
use super::super::types::step::with_particular;
use super::super::user_error::{UserError, UserErrorCode};
use super::{input_id, unavailable};
use crate::auth::Permission;
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use weir_orchestrator::repair::EventStartError;
use weir_workflow_engine::{EventId, RunId};

/// Mutations of events.
#[derive(Default)]
pub(crate) struct EventMutations;

#[Object]
impl EventMutations {
    /// Starts a workflow with an event that came before it was published. Its trigger must fit the event, and no run of
    /// it may have worked on the event yet: replay that one. Needs `RUN_OPERATE`.
    async fn event_start(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which event, which workflow.")] input: EventStartInput,
    ) -> ApiResult<EventStartPayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let id = match input_id::<EventId>(&input.event_id, "eventId") {
            Ok(id) => id,
            Err(user_errors) => return Ok(EventStartPayload { run: None, user_errors }),
        };
        let started = orchestrator
            .event_start(workspace, &caller.actor(), id, &input.workflow)
            .await;
        let error = match started {
            Ok(run) => {
                return Ok(EventStartPayload {
                    run: Some(run),
                    user_errors: Vec::new(),
                });
            }
            Err(EventStartError::EventNotFound) => UserError::not_found("eventId"),
            Err(EventStartError::WorkflowNotFound) => UserError::no_workflow(caller, "workflow", &input.workflow),
            Err(EventStartError::NotStartable { why, quoted }) => {
                let why = with_particular(ctx, why, quoted);
                let message = format!("the workflow cannot be started with this event: {why}");
                UserError::precondition(UserErrorCode::NotStartable, "workflow", message, Vec::new())
            }
            Err(error @ EventStartError::AlreadyRan { run, .. }) => {
                let blockers = vec![run.to_string()];
                UserError::precondition(UserErrorCode::AlreadyRan, "workflow", error.to_string(), blockers)
            }
            Err(EventStartError::Unavailable(cause)) => {
                return Err(unavailable("the workflow was not started", &cause));
            }
        };
        Ok(EventStartPayload {
            run: None,
            user_errors: vec![error],
        })
    }
}

/// Which event, which workflow.
#[derive(Debug, InputObject)]
pub(crate) struct EventStartInput {
    /// The event.
    event_id: ID,
    /// Name of the workflow.
    workflow: String,
}

/// A run that was started.
#[derive(Debug, SimpleObject)]
#[graphql(complex)]
pub(crate) struct EventStartPayload {
    #[graphql(skip)]
    run: Option<RunId>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

#[async_graphql::ComplexObject]
impl EventStartPayload {
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
}
