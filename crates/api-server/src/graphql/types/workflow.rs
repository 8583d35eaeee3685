//! Workflows, their versions and triggers.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::scalars::{DateTime, Json};
use super::connector::HydrateMode;
use super::long_to_int;
use super::schedule::Schedule;
use crate::auth::Permission;
use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use std::sync::Arc;
use weir_orchestrator::configure::{ApplyError, VersionDiff};
use weir_orchestrator::snapshot::{Snapshot, Version};
use weir_storage::{VersionState as StoredState, WorkflowState as StoredWorkflowState, WorkflowVersionRow};
use weir_workflow_engine::{Definition, Difference, DifferenceKind, VersionId, WorkflowId, WorkspaceId};

/// How many planned times one answer shows.
const MAX_NEXT_RUNS: u32 = 100;

/// A workflow over all its versions.
#[derive(Debug, Clone)]
pub(crate) struct Workflow(pub(super) Arc<weir_orchestrator::snapshot::Workflow>);

impl Workflow {
    /// All workflows of a workspace, by name.
    pub(crate) fn all(snapshot: &Snapshot, workspace: WorkspaceId) -> Vec<Self> {
        snapshot.workflows(workspace).cloned().map(Workflow).collect()
    }

    /// A workflow by id.
    pub(crate) fn by_id(snapshot: &Snapshot, workspace: WorkspaceId, id: WorkflowId) -> Option<Self> {
        snapshot.workflow_by_id(workspace, id).cloned().map(Workflow)
    }

    /// A workflow by name.
    pub(crate) fn by_name(snapshot: &Snapshot, workspace: WorkspaceId, name: &str) -> Option<Self> {
        snapshot.workflow(workspace, name).cloned().map(Workflow)
    }

    /// What it is in the configuration.
    pub(crate) fn inner(&self) -> &weir_orchestrator::snapshot::Workflow {
        &self.0
    }
}

/// What to do when an event arrives: a document that is changed as a draft and published as a version. Needs `CONFIG_READ`.
#[Object]
impl Workflow {
    /// Its id.
    pub(crate) async fn id(&self) -> ID {
        self.0.row.id.to_string().into()
    }

    /// Its name, unique in the workspace.
    async fn name(&self) -> &str {
        &self.0.row.name
    }

    /// Whether its runs begin. No part of its document: `workflowPause` and `workflowResume` change it.
    async fn state(&self) -> WorkflowState {
        self.0.row.state.into()
    }

    /// How many accepted runs wait until it is resumed.
    async fn held_runs(&self, ctx: &Context<'_>) -> ApiResult<u32> {
        held_runs(ctx, &self.0).await
    }

    /// The version that takes events. Null: it has never been published.
    async fn published(&self, ctx: &Context<'_>) -> ApiResult<Option<WorkflowVersion>> {
        Caller::of(ctx).may(Permission::ConfigRead)?;
        Ok(self.0.published.clone().map(WorkflowVersion::Live))
    }

    /// The version being worked on. Null: there is no draft.
    async fn draft(&self, ctx: &Context<'_>) -> ApiResult<Option<WorkflowVersion>> {
        match self.0.draft {
            Some(_) => load_version(ctx, self.0.row.draft_version, Permission::ConfigRead).await,
            None => Ok(None),
        }
    }

    /// Every version, newest first, at most 100.
    async fn versions(&self, ctx: &Context<'_>) -> ApiResult<Option<Vec<WorkflowVersion>>> {
        let (store, workspace) = Caller::of(ctx).read(Permission::ConfigRead)?;
        let page = store
            .version_page(workspace, self.0.row.id, None, 100)
            .await
            .map_err(|error| ApiError::internal("reading versions", &error))?;
        Ok(Some(page.rows.into_iter().map(WorkflowVersion::Row).collect()))
    }

    /// What differs between two versions. Null: there is no such version, or the two left out mean none.
    async fn diff(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Number of the older version. Default: what is published, or else the version before `to`.")]
        from: Option<u32>,
        #[graphql(desc = "Number of the newer version. Default: the draft, or else what is published.")] to: Option<
            u32,
        >,
    ) -> ApiResult<Option<WorkflowDiff>> {
        let (orchestrator, workspace) = Caller::of(ctx).orchestrator(Permission::ConfigRead)?;
        match orchestrator.workflow_diff(workspace, &self.0.row.name, from, to).await {
            Ok(diff) => Ok(Some(diff.into())),
            Err(ApplyError::NotFound) => Ok(None),
            Err(other) => Err(ApiError::internal("comparing versions", &other)),
        }
    }

    /// What starts the published version. Null: it has never been published.
    async fn trigger(&self) -> Option<Trigger> {
        self.0
            .published
            .as_ref()
            .map(|version| Trigger::of(version.plan.trigger(), &version.definition))
    }

    /// The next times at which its schedule fires, at most 100. Empty: it has no schedule.
    async fn next_runs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many.", default = 5)] first: u32,
    ) -> ApiResult<Option<Vec<DateTime>>> {
        let caller = Caller::of(ctx);
        caller.may(Permission::ConfigRead)?;
        let first = usize::try_from(first.min(MAX_NEXT_RUNS)).unwrap_or_default();
        let planned = caller.any().next_runs(&self.0, first);
        Ok(Some(planned.into_iter().map(DateTime).collect()))
    }

    /// The planned time for which its schedule fired last. Null: it has no schedule, or it has not fired with these times.
    async fn last_scheduled_for(&self, ctx: &Context<'_>) -> ApiResult<Option<DateTime>> {
        let caller = Caller::of(ctx);
        caller.may(Permission::ConfigRead)?;
        Ok(caller.any().fired_for(self.0.row.id).map(DateTime))
    }

    /// Raised by each change; pass it as `expectedRevision`.
    async fn revision(&self) -> i32 {
        long_to_int(self.0.row.revision)
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.row.created_at)
    }

    /// When it was last changed.
    async fn updated_at(&self) -> DateTime {
        DateTime(self.0.row.updated_at)
    }
}

/// How many accepted runs wait until a workflow is resumed.
pub(crate) async fn held_runs(ctx: &Context<'_>, workflow: &weir_orchestrator::snapshot::Workflow) -> ApiResult<u32> {
    if workflow.row.state == StoredWorkflowState::Active {
        return Ok(0);
    }
    let (store, workspace) = Caller::of(ctx).counting()?;
    let held = store
        .held_runs(workspace, workflow.row.id)
        .await
        .map_err(|error| ApiError::internal("counting runs that wait", &error))?;
    Ok(held.map_or(0, |held| held.count))
}

/// Whether the runs of a workflow begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum WorkflowState {
    /// They do.
    Active,
    /// Its events are accepted, and their runs wait until it is resumed; its schedule does not fire.
    Paused,
    /// It was resumed: the runs that waited begin in the order of acceptance, before those that come now.
    Resuming,
}

impl From<StoredWorkflowState> for WorkflowState {
    fn from(state: StoredWorkflowState) -> Self {
        match state {
            StoredWorkflowState::Active => WorkflowState::Active,
            StoredWorkflowState::Paused => WorkflowState::Paused,
            StoredWorkflowState::Resuming => WorkflowState::Resuming,
        }
    }
}

/// What differs between two versions of a workflow.
#[derive(Debug, SimpleObject)]
pub(crate) struct WorkflowDiff {
    /// Number of the older version. Null: there was none.
    from: Option<u32>,
    /// Number of the newer version.
    to: u32,
    /// Step by step, in the order of the newer version.
    differences: Vec<WorkflowDifference>,
    /// The documents as a unified diff.
    text: String,
}

/// One difference between two versions.
#[derive(Debug, SimpleObject)]
pub(crate) struct WorkflowDifference {
    /// What happened.
    kind: WorkflowDifferenceKind,
    /// Id of the step it is in. Null outside of steps.
    step: Option<String>,
    /// JSON Pointer into the newer document; into the older one for what was removed.
    pointer: String,
    /// JSON Pointer into the older document, for what was moved.
    before_pointer: Option<String>,
    /// What stood there.
    before: Option<Json>,
    /// What stands there.
    after: Option<Json>,
}

/// What happened to a part of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum WorkflowDifferenceKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has another value.
    Changed,
    /// A step that stands in another place.
    Moved,
}

impl From<VersionDiff> for WorkflowDiff {
    fn from(diff: VersionDiff) -> Self {
        let difference = |difference: Difference| WorkflowDifference {
            kind: match difference.kind {
                DifferenceKind::Added => WorkflowDifferenceKind::Added,
                DifferenceKind::Removed => WorkflowDifferenceKind::Removed,
                DifferenceKind::Changed => WorkflowDifferenceKind::Changed,
                DifferenceKind::Moved => WorkflowDifferenceKind::Moved,
            },
            step: difference.step,
            pointer: difference.pointer,
            before_pointer: difference.before_pointer,
            before: difference.before.map(Json),
            after: difference.after.map(Json),
        };
        WorkflowDiff {
            from: diff.from,
            to: diff.to,
            differences: diff.differences.into_iter().map(difference).collect(),
            text: diff.text,
        }
    }
}

/// Reads one version.
pub(crate) async fn load_version(
    ctx: &Context<'_>,
    id: Option<VersionId>,
    permission: Permission,
) -> ApiResult<Option<WorkflowVersion>> {
    let Some(id) = id else { return Ok(None) };
    let (store, workspace) = Caller::of(ctx).read(permission)?;
    let row = store
        .version_load(workspace, id)
        .await
        .map_err(|error| ApiError::internal("reading a workflow version", &error))?;
    Ok(row.map(WorkflowVersion::Row))
}

/// One version of a workflow.
#[derive(Debug)]
pub(crate) enum WorkflowVersion {
    /// As it is stored.
    Row(WorkflowVersionRow),
    /// The published one, as it is in memory: a list of all workflows reads nothing.
    Live(Arc<Version>),
}

impl From<WorkflowVersionRow> for WorkflowVersion {
    fn from(row: WorkflowVersionRow) -> Self {
        WorkflowVersion::Row(row)
    }
}

impl WorkflowVersion {
    /// The name of its workflow, as its document says.
    pub(crate) fn workflow_name(&self) -> Option<String> {
        Some(self.document()?.get("name")?.as_str()?.to_owned())
    }

    /// Counted from 1 in the workflow.
    pub(crate) fn number_of(&self) -> u32 {
        match self {
            Self::Row(row) => row.number,
            Self::Live(version) => version.number,
        }
    }

    fn document(&self) -> Option<serde_json::Value> {
        match self {
            Self::Row(row) => serde_json::from_str(&row.definition).ok(),
            Self::Live(version) => Some(version.definition.clone()),
        }
    }
}

/// One version of a workflow. A published one never changes, and runs stay with the version they started on.
#[Object]
impl WorkflowVersion {
    /// Its id.
    pub(crate) async fn id(&self) -> ID {
        let id = match self {
            Self::Row(row) => row.id,
            Self::Live(version) => version.id,
        };
        id.to_string().into()
    }

    /// Counted from 1 in the workflow.
    async fn number(&self) -> u32 {
        self.number_of()
    }

    /// Whether it may still change.
    async fn state(&self) -> VersionState {
        match self {
            Self::Row(row) if row.state == StoredState::Draft => VersionState::Draft,
            Self::Row(_) | Self::Live(_) => VersionState::Published,
        }
    }

    /// Its workflow. Null: it was deleted.
    async fn workflow(&self, ctx: &Context<'_>) -> ApiResult<Option<Workflow>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        let workflow = match self {
            Self::Row(row) => row.workflow,
            Self::Live(version) => version.workflow,
        };
        Ok(Workflow::by_id(&snapshot, workspace, workflow))
    }

    /// The document, without `kind`.
    async fn definition(&self) -> Json {
        Json(self.document().unwrap_or_default())
    }

    /// What starts it. Null for a draft that is not right yet.
    async fn trigger(&self) -> Option<Trigger> {
        let document = self.document()?;
        let definition = Definition::parse(&document).ok()?;
        Some(Trigger::of(definition.trigger(), &document))
    }

    /// Checksum of the document.
    async fn checksum(&self, ctx: &Context<'_>) -> ApiResult<String> {
        let id = match self {
            Self::Row(row) => return Ok(row.checksum.clone()),
            Self::Live(version) => version.id,
        };
        let (store, workspace) = Caller::of(ctx).read(Permission::ConfigRead)?;
        let row = store.version_load(workspace, id).await;
        let row = row.map_err(|error| ApiError::internal("reading a workflow version", &error))?;
        let row = row.ok_or_else(|| ApiError::internal_text("reading a workflow version", "it is no longer stored"))?;
        Ok(row.checksum)
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        DateTime(match self {
            Self::Row(row) => row.created_at,
            Self::Live(version) => version.created_at,
        })
    }
}

/// Whether a version may still change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum VersionState {
    /// It may; it takes no events.
    Draft,
    /// It never changes again.
    Published,
}

/// What starts a workflow: the `on` block of its document, to read.
#[derive(Debug, SimpleObject)]
pub(crate) struct Trigger {
    /// What kind of start.
    kind: TriggerKind,
    /// The event type with its connector, such as `stripe.invoice.paid`.
    event: Option<String>,
    /// Only events of the connection with this name.
    connection: Option<String>,
    /// Only events for which this expression is true.
    #[graphql(name = "where")]
    filter: Option<String>,
    /// Whether the follow-up reads run. Null: as the connector says.
    hydrate: Option<HydrateMode>,
    /// What the input must look like, for manual starts.
    input_schema: Option<Json>,
    /// When it fires, for schedules.
    schedule: Option<Schedule>,
}

impl Trigger {
    /// `document` is the one that `trigger` was parsed from; expressions are shown as they were written.
    fn of(trigger: &weir_workflow_engine::Trigger, document: &serde_json::Value) -> Self {
        use weir_workflow_engine::Trigger as Parsed;
        match trigger {
            Parsed::Event {
                event,
                connection,
                filter: _,
                hydrate,
            } => Trigger {
                kind: TriggerKind::Event,
                event: Some(event.clone()),
                connection: connection.clone(),
                filter: document
                    .pointer("/on/where")
                    .and_then(|text| text.as_str())
                    .map(str::to_owned),
                hydrate: hydrate.map(HydrateMode::from),
                input_schema: None,
                schedule: None,
            },
            Parsed::Schedule(schedule) => Trigger {
                kind: TriggerKind::Schedule,
                event: None,
                connection: None,
                filter: None,
                hydrate: None,
                input_schema: None,
                schedule: Some(Schedule::of(schedule)),
            },
            Parsed::Manual { input } => Trigger {
                kind: TriggerKind::Manual,
                event: None,
                connection: None,
                filter: None,
                hydrate: None,
                input_schema: input.clone().map(Json),
                schedule: None,
            },
        }
    }
}

/// What kind of start a workflow has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum TriggerKind {
    /// An event of a connector.
    Event,
    /// A person or a program.
    Manual,
    /// The clock.
    Schedule,
}
