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

/// Either of these shows who is asked what, and where.
pub(crate) const TO_SEE: [Permission; 2] = [Permission::RunRead, Permission::RunApprove];

impl Approval {
    /// Whoever is to decide must see about what.
    fn may_read(&self, caller: &Caller) -> bool {
        let principal = caller.principal();
        let named = self.0.by.is_empty() || self.0.by.contains(&principal.name);
        named && principal.may(Permission::RunApprove) || principal.may(Permission::PayloadRead)
    }
}

/// A decision that an `approve` step asks for. It is gone from the list once somebody decided. Needs `RUN_READ`, or
/// `RUN_APPROVE`.
#[Object]
impl Approval {
    /// Id of the run that waits.
    async fn run_id(&self) -> ID {
        self.0.row.run.to_string().into()
    }

    /// Name of the workflow that asks, also of one that was deleted.
    async fn workflow_name(&self, ctx: &Context<'_>) -> ApiResult<Option<String>> {
        let caller = Caller::of(ctx);
        let (store, workspace) = caller.read(caller.any_of(&TO_SEE)?)?;
        let row = store.run_load(workspace, self.0.row.run).await;
        let row = row.map_err(|error| ApiError::internal("reading a run", &error))?;
        let Some(row) = row else { return Ok(None) };
        run::workflow_name(ctx, &row, caller.any_of(&TO_SEE)?).await
    }

    /// The run that waits. Needs `RUN_READ`.
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
        let caller = Caller::of(ctx);
        let (_, workspace) = caller.read(caller.any_of(&TO_SEE)?)?;
        let names = caller.any().step_names(workspace, self.0.row.run).await;
        let names = names.map_err(|error| ApiError::internal("reading a run's journal", &error))?;
        Ok(names.name(step))
    }

    /// What is asked. Null without `PAYLOAD_READ`, but for those with `RUN_APPROVE` who may decide it.
    async fn title(&self, ctx: &Context<'_>) -> Option<&str> {
        self.may_read(Caller::of(ctx)).then_some(&*self.0.row.title)
    }

    /// What belongs to the question. Null for the same as `title`.
    async fn detail(&self, ctx: &Context<'_>) -> Option<Json> {
        self.may_read(Caller::of(ctx)).then(|| Json(self.0.detail.clone()))
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
