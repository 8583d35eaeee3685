//! Mutations of workflows as a whole, whatever their versions say: pause, resume, delete.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::types::workflow::{Workflow, WorkflowState, held_runs};
use super::super::user_error::{UserError, in_input, of_apply};
use super::input_id;
use crate::auth::Permission;
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use weir_orchestrator::configure::{Action, ApplyError, Change, Expect};
use weir_workflow_engine::WorkflowId;

/// Mutations of workflows as a whole.
#[derive(Default)]
pub(crate) struct WorkflowStateMutations;

#[Object]
impl WorkflowStateMutations {
    /// Pauses a workflow: its events are accepted and acknowledged, and their runs wait until it is resumed; its schedule
    /// does not fire. Runs that were accepted before go on, and so do replays. Needs `RUN_OPERATE`.
    async fn workflow_pause(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which workflow, and why.")] input: WorkflowPauseInput,
    ) -> ApiResult<WorkflowStatePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let reason = input.reason.unwrap_or_default();
        let expect = expected(input.expected_revision);
        let outcome = orchestrator
            .workflow_pause(workspace, &caller.actor(), &input.workflow, &reason, expect)
            .await;
        payload(ctx, outcome, &input.workflow).await
    }

    /// Resumes a workflow: the runs that waited begin in the order of acceptance, before those of events that arrive from
    /// now on. Its schedule fires again; its `catch_up` says what becomes of the times that it missed. Needs `RUN_OPERATE`.
    async fn workflow_resume(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which workflow.")] input: WorkflowResumeInput,
    ) -> ApiResult<WorkflowStatePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let expect = expected(input.expected_revision);
        let outcome = orchestrator
            .workflow_resume(workspace, &caller.actor(), &input.workflow, expect)
            .await;
        payload(ctx, outcome, &input.workflow).await
    }

    /// Deletes a workflow: it takes no more events. Refused while runs of it are not over, unless these are to be asked to
    /// end. Its name and versions stay with the runs that it had. Needs `CONFIG_WRITE`; with `cancelOpenRuns` also
    /// `RUN_OPERATE`.
    async fn workflow_delete(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which workflow.")] input: WorkflowDeleteInput,
    ) -> ApiResult<WorkflowDeletePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::ConfigWrite)?;
        let cancel = input.cancel_open_runs.unwrap_or(false);
        if cancel {
            caller.may(Permission::RunOperate)?;
        }
        let found = input_id::<WorkflowId>(&input.id, "id").and_then(|id| {
            Workflow::by_id(&orchestrator.snapshot(), workspace, id).ok_or_else(|| vec![UserError::not_found("id")])
        });
        let found = match found {
            Ok(found) => found,
            Err(user_errors) => return Ok(WorkflowDeletePayload::refused(user_errors)),
        };
        let name = &found.inner().row.name;
        let expected = input.expected_revision.map(i64::from);
        match orchestrator
            .workflow_delete(workspace, &caller.actor(), name, expected, cancel)
            .await
        {
            Ok(operations) => Ok(WorkflowDeletePayload {
                deleted_id: Some(input.id),
                operation_ids: operations.iter().map(|id| id.to_string().into()).collect(),
                user_errors: Vec::new(),
            }),
            Err(error) => of_apply(error, "expectedRevision", &in_input).map(WorkflowDeletePayload::refused),
        }
    }
}

fn expected(revision: Option<i32>) -> Expect {
    revision.map_or(Expect::Any, |revision| Expect::Revision(revision.into()))
}

async fn payload(
    ctx: &Context<'_>,
    outcome: Result<Change, ApplyError>,
    name: &str,
) -> ApiResult<WorkflowStatePayload> {
    let caller = Caller::of(ctx);
    let change = match outcome {
        Ok(change) => change,
        Err(ApplyError::NotFound) => {
            let error = UserError::no_workflow(caller, "workflow", name);
            return Ok(WorkflowStatePayload::refused(vec![error]));
        }
        Err(error) => {
            return of_apply(error, "expectedRevision", &in_input).map(WorkflowStatePayload::refused);
        }
    };
    let snapshot = caller.any().snapshot();
    let workflow = snapshot.workflow(caller.principal().workspace, &change.name);
    let (state, held) = match workflow {
        Some(workflow) => (Some(workflow.row.state.into()), held_runs(ctx, workflow).await?),
        None => (None, 0),
    };
    Ok(WorkflowStatePayload {
        changed: change.action != Action::Unchanged,
        state,
        held_runs: held,
        user_errors: Vec::new(),
    })
}

/// Which workflow to pause.
#[derive(Debug, InputObject)]
pub(crate) struct WorkflowPauseInput {
    /// Its name.
    workflow: String,
    /// Why, for those who look at it later; it stands in the audit trail.
    reason: Option<String>,
    /// Only if it has this revision.
    expected_revision: Option<i32>,
}

/// Which workflow to resume.
#[derive(Debug, InputObject)]
pub(crate) struct WorkflowResumeInput {
    /// Its name.
    workflow: String,
    /// Only if it has this revision.
    expected_revision: Option<i32>,
}

/// A workflow that was paused or resumed.
#[derive(Debug, SimpleObject)]
pub(crate) struct WorkflowStatePayload {
    /// Whether that changed anything.
    changed: bool,
    /// Its state now. Null: nothing was changed.
    state: Option<WorkflowState>,
    /// How many accepted runs wait until it is resumed, or have not begun since.
    held_runs: u32,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

impl WorkflowStatePayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        WorkflowStatePayload {
            changed: false,
            state: None,
            held_runs: 0,
            user_errors,
        }
    }
}

/// Which workflow to delete.
#[derive(Debug, InputObject)]
pub(crate) struct WorkflowDeleteInput {
    /// Its id.
    id: ID,
    /// Delete it only if it has this revision.
    expected_revision: Option<i32>,
    /// True: its runs that are not over are asked to end. Otherwise it is not deleted while there are any.
    cancel_open_runs: Option<bool>,
}

/// A workflow that was deleted.
#[derive(Debug, SimpleObject)]
pub(crate) struct WorkflowDeletePayload {
    /// Its id. Null: nothing was deleted.
    deleted_id: Option<ID>,
    /// The operations that ask its open runs to end; `bulkOperation` shows how far they are.
    operation_ids: Vec<ID>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

impl WorkflowDeletePayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        WorkflowDeletePayload {
            deleted_id: None,
            operation_ids: Vec::new(),
            user_errors,
        }
    }
}
