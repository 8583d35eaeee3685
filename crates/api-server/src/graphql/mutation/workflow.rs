//! Mutations of workflows: drafts are saved, then published or thrown away; older versions are published again.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::scalars::Json;
use super::super::types::workflow::Workflow;
use super::super::user_error::{UserError, UserErrorCode, in_field, of_apply};
use super::documents::Change;
use super::input_id;
use crate::auth::Permission;
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use serde_json::Value;
use weir_orchestrator::configure::{ApplyError, Expect, Kind, SourceDocument};
use weir_workflow_engine::{Problem, WorkflowId};

/// Mutations of workflows.
#[derive(Default)]
pub(crate) struct WorkflowMutations;

#[Object]
impl WorkflowMutations {
    /// Creates a workflow as a draft: its shape is checked, it takes no events yet. Needs `CONFIG_WRITE`.
    async fn workflow_create(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The new workflow.")] input: WorkflowCreateInput,
    ) -> ApiResult<WorkflowPayload> {
        save_draft(ctx, input.definition.0, Expect::Absent, "name").await
    }

    /// Replaces the draft of a workflow. What is published goes on unchanged. Needs `CONFIG_WRITE`.
    async fn workflow_update(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The new draft.")] input: WorkflowUpdateInput,
    ) -> ApiResult<WorkflowPayload> {
        let found = match find(ctx, &input.id)? {
            Ok(found) => found,
            Err(errors) => return Ok(WorkflowPayload::refused(errors)),
        };
        let mut definition = input.definition.0;
        let own = found.inner().row.name.as_str();
        match definition.get("name").and_then(Value::as_str) {
            Some(name) if name != own => {
                return Ok(WorkflowPayload::refused(vec![UserError::inside(
                    "definition",
                    renamed(own),
                )]));
            }
            Some(_) => {}
            None => {
                if let Value::Object(document) = &mut definition {
                    document.insert("name".to_owned(), own.into());
                }
            }
        }
        save_draft(
            ctx,
            definition,
            Expect::Revision(input.expected_revision.into()),
            "expectedRevision",
        )
        .await
    }

    /// Publishes the draft: from now on it takes events. Runs under way stay on their version. Needs `CONFIG_WRITE`.
    async fn workflow_publish(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which workflow.")] input: WorkflowPublishInput,
    ) -> ApiResult<WorkflowPayload> {
        let found = match find(ctx, &input.id)? {
            Ok(found) => found,
            Err(errors) => return Ok(WorkflowPayload::refused(errors)),
        };
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::ConfigWrite)?;
        let expect = expected(input.expected_revision);
        let outcome = orchestrator
            .workflow_publish(workspace, &caller.actor(), &found.inner().row.name, expect)
            .await;
        match outcome {
            Err(ApplyError::NotFound) => {
                let error = UserError::input(UserErrorCode::NotFound, "id", "the workflow has no draft to publish");
                Ok(WorkflowPayload::refused(vec![error]))
            }
            outcome => payload(ctx, outcome, "expectedRevision"),
        }
    }

    /// Publishes an older version again, as a new version with its content: numbers only rise, and what was published
    /// never changes. It is checked like any other document; a draft is kept. Needs `CONFIG_WRITE`.
    async fn workflow_roll_back(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which workflow, to which version.")] input: WorkflowRollBackInput,
    ) -> ApiResult<WorkflowPayload> {
        let found = match find(ctx, &input.id)? {
            Ok(found) => found,
            Err(errors) => return Ok(WorkflowPayload::refused(errors)),
        };
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::ConfigWrite)?;
        let name = &found.inner().row.name;
        let outcome = orchestrator
            .workflow_roll_back(
                workspace,
                &caller.actor(),
                name,
                input.version,
                expected(input.expected_revision),
            )
            .await;
        match outcome {
            Err(ApplyError::NotFound) => {
                let message = format!("version {} of the workflow was never published", input.version);
                let error = UserError::input(UserErrorCode::NotFound, "version", message);
                Ok(WorkflowPayload::refused(vec![error]))
            }
            outcome => payload(ctx, outcome, "expectedRevision"),
        }
    }

    /// Throws the draft of a workflow away. What is published goes on; a workflow that was never published goes with
    /// its draft. Needs `CONFIG_WRITE`.
    async fn workflow_discard_draft(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which workflow.")] input: WorkflowDiscardDraftInput,
    ) -> ApiResult<WorkflowPayload> {
        let found = match find(ctx, &input.id)? {
            Ok(found) => found,
            Err(errors) => return Ok(WorkflowPayload::refused(errors)),
        };
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::ConfigWrite)?;
        let name = &found.inner().row.name;
        let outcome = orchestrator
            .workflow_discard_draft(workspace, &caller.actor(), name, expected(input.expected_revision))
            .await;
        match outcome {
            Err(ApplyError::NotFound) => {
                let error = UserError::input(UserErrorCode::NotFound, "id", "the workflow has no draft");
                Ok(WorkflowPayload::refused(vec![error]))
            }
            outcome => payload(ctx, outcome, "expectedRevision"),
        }
    }
}

fn expected(revision: Option<i32>) -> Expect {
    revision.map_or(Expect::Any, |revision| Expect::Revision(revision.into()))
}

fn renamed(own: &str) -> Problem {
    let message = format!("this workflow is called `{own}`; a workflow keeps its name");
    Problem {
        pointer: "/name".to_owned(),
        code: "renamed",
        message,
        suggestion: None,
    }
}

fn find(ctx: &Context<'_>, id: &ID) -> ApiResult<Result<Workflow, Vec<UserError>>> {
    let caller = Caller::of(ctx);
    let workspace = caller.may(Permission::ConfigWrite)?;
    Ok(input_id::<WorkflowId>(id, "id").and_then(|id| {
        Workflow::by_id(&caller.any().snapshot(), workspace, id).ok_or_else(|| vec![UserError::not_found("id")])
    }))
}

async fn save_draft(
    ctx: &Context<'_>,
    mut definition: Value,
    expect: Expect,
    conflict_field: &str,
) -> ApiResult<WorkflowPayload> {
    let caller = Caller::of(ctx);
    let (orchestrator, workspace) = caller.orchestrator(Permission::ConfigWrite)?;
    if let Value::Object(document) = &mut definition {
        document.entry("kind").or_insert_with(|| Kind::Workflow.as_str().into());
    }
    let outcome = orchestrator
        .workflow_save_draft(
            workspace,
            &caller.actor(),
            SourceDocument::from_value(definition),
            expect,
        )
        .await;
    payload(ctx, outcome, conflict_field)
}

fn payload(
    ctx: &Context<'_>,
    outcome: Result<weir_orchestrator::configure::Change, ApplyError>,
    conflict_field: &str,
) -> ApiResult<WorkflowPayload> {
    match outcome {
        Ok(change) => {
            let caller = Caller::of(ctx);
            let workflow = Workflow::by_name(&caller.any().snapshot(), caller.principal().workspace, &change.name);
            Ok(WorkflowPayload {
                workflow,
                change: Some(change.into()),
                user_errors: Vec::new(),
            })
        }
        Err(error) => of_apply(error, conflict_field, &in_field("definition")).map(WorkflowPayload::refused),
    }
}

/// A new workflow.
#[derive(Debug, InputObject)]
pub(crate) struct WorkflowCreateInput {
    /// The workflow document (`name`, `on`, `steps` …).
    definition: Json,
}

/// A new draft of a workflow.
#[derive(Debug, InputObject)]
pub(crate) struct WorkflowUpdateInput {
    /// Which workflow.
    id: ID,
    /// The revision that the change was made against.
    expected_revision: i32,
    /// The whole workflow document.
    definition: Json,
}

/// Which workflow to publish.
#[derive(Debug, InputObject)]
pub(crate) struct WorkflowPublishInput {
    /// Which workflow.
    id: ID,
    /// Publish only if it has this revision.
    expected_revision: Option<i32>,
}

/// Which version to publish again.
#[derive(Debug, InputObject)]
pub(crate) struct WorkflowRollBackInput {
    /// Which workflow.
    id: ID,
    /// Number of the version whose content is wanted.
    version: u32,
    /// Publish only if the workflow has this revision.
    expected_revision: Option<i32>,
}

/// Whose draft to throw away.
#[derive(Debug, InputObject)]
pub(crate) struct WorkflowDiscardDraftInput {
    /// Which workflow.
    id: ID,
    /// Only if it has this revision.
    expected_revision: Option<i32>,
}

/// A workflow that was created, changed or published.
#[derive(Debug, SimpleObject)]
pub(crate) struct WorkflowPayload {
    /// The workflow as it is now. Null: nothing was changed.
    workflow: Option<Workflow>,
    /// What changed.
    change: Option<Change>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

impl WorkflowPayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        WorkflowPayload {
            workflow: None,
            change: None,
            user_errors,
        }
    }
}
