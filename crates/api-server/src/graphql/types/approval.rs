//! Decisions that people are asked for.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::scalars::{DateTime, Json};
use super::run::{self, Run};
use crate::auth::Permission;
use async_graphql::{Context, ID, Object};
use weir_orchestrator::operate::Approval as Asked;
use weir_workflow_engine::may_hide_an_item;

/// A decision that a person is asked for.
#[derive(Debug)]
pub(crate) struct Approval(pub(crate) Asked);

/// A decision that an `approve` step asks for. It is gone from the list once somebody decided. Needs `RUN_READ`.
#[Object]
impl Approval {
    /// Id of the run that waits.
    async fn run_id(&self) -> ID {
        self.0.row.run.to_string().into()
    }

    /// The run that waits.
    async fn run(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        run::load(ctx, self.0.row.run).await
    }

    /// Path of the step that asks.
    async fn step(&self) -> &str {
        &self.0.row.step
    }

    /// The path as people read it: an item without a `key` is told by its place in the list, from 1.
    async fn step_name(&self, ctx: &Context<'_>) -> ApiResult<String> {
        let step = &self.0.row.step;
        if !may_hide_an_item(step) {
            return Ok(step.clone());
        }
        let (orchestrator, workspace) = Caller::of(ctx).orchestrator(Permission::RunRead)?;
        let story = orchestrator.run_story(workspace, self.0.row.run).await;
        let story = story.map_err(|error| ApiError::internal("reading a run's journal", &error))?;
        Ok(story.map_or_else(|| step.clone(), |story| story.names.name(step)))
    }

    /// What is asked. Needs `PAYLOAD_READ`.
    async fn title(&self, ctx: &Context<'_>) -> ApiResult<&str> {
        Caller::of(ctx).may(Permission::PayloadRead)?;
        Ok(&self.0.row.title)
    }

    /// What belongs to the question. Needs `PAYLOAD_READ`.
    async fn detail(&self, ctx: &Context<'_>) -> ApiResult<Json> {
        Caller::of(ctx).may(Permission::PayloadRead)?;
        Ok(Json(self.0.detail.clone()))
    }

    /// Names of those who may decide. Empty: everybody with `RUN_APPROVE`.
    async fn by(&self) -> &[String] {
        &self.0.by
    }

    /// Since when it is asked.
    async fn asked_at(&self) -> DateTime {
        DateTime(self.0.row.created_at)
    }

    /// When the step gives up waiting.
    async fn due_at(&self) -> Option<DateTime> {
        self.0.row.due_at.map(DateTime)
    }
}
