//! Endpoints: the way in.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::scalars::{DateTime, Json, Long};
use super::backfill::{Backfill, BackfillCheck};
use super::connection::Connection;
use super::connector::Connector;
use super::coverage::Coverage;
use super::long_to_int;
use super::registration::EndpointRegistration;
use crate::auth::Permission;
use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_orchestrator::ingest::EndpointRef;
use weir_orchestrator::snapshot::Snapshot;
use weir_orchestrator::sweeps::BackfillRefusal;
use weir_workflow_engine::{EndpointId, Timestamp, WorkspaceId};

/// Hours of coverage in one answer: as many as are kept.
const COVERAGE_HOURS: i32 = 90 * 24;

/// An ingest URL with its verification.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint(pub(super) Arc<weir_orchestrator::snapshot::Endpoint>);

impl Endpoint {
    /// All endpoints of a workspace, by name.
    pub(crate) fn all(snapshot: &Snapshot, workspace: WorkspaceId) -> Vec<Self> {
        snapshot.endpoints(workspace).cloned().map(Endpoint).collect()
    }

    /// An endpoint by id.
    pub(crate) fn by_id(snapshot: &Snapshot, workspace: WorkspaceId, id: EndpointId) -> Option<Self> {
        snapshot
            .endpoint(&EndpointRef::Id(id))
            .filter(|endpoint| endpoint.workspace() == workspace)
            .cloned()
            .map(Endpoint)
    }

    /// An endpoint by name.
    pub(crate) fn by_name(snapshot: &Snapshot, workspace: WorkspaceId, name: &str) -> Option<Self> {
        snapshot
            .endpoints(workspace)
            .find(|endpoint| endpoint.name() == name)
            .cloned()
            .map(Endpoint)
    }

    /// What it is in the configuration.
    pub(crate) fn inner(&self) -> &weir_orchestrator::snapshot::Endpoint {
        &self.0
    }
}

/// An ingest URL: where a provider sends its webhooks, and how they are verified. Needs `CONFIG_READ`.
#[Object]
impl Endpoint {
    /// Its id.
    pub(crate) async fn id(&self) -> ID {
        self.0.id().to_string().into()
    }

    /// Its name, unique in the workspace.
    async fn name(&self) -> &str {
        self.0.name()
    }

    /// The URL to give to the provider. It does not change when the endpoint is renamed.
    async fn url(&self, ctx: &Context<'_>) -> String {
        format!("{}/hooks/{}", Caller::of(ctx).any().public_url(), self.0.id())
    }

    /// The same endpoint by names: easier to read, and another URL after a rename.
    async fn named_url(&self, ctx: &Context<'_>) -> Option<String> {
        let orchestrator = Caller::of(ctx).any();
        let snapshot = orchestrator.snapshot();
        let workspace = snapshot.workspace_name(self.0.workspace())?;
        Some(format!(
            "{}/hooks/{workspace}/{}",
            orchestrator.public_url(),
            self.0.name()
        ))
    }

    /// The connector whose webhooks arrive here.
    async fn connector(&self) -> Connector {
        Connector(Arc::clone(self.0.connector()))
    }

    /// The connection its events belong to. Null: the event's account decides.
    async fn connection(&self, ctx: &Context<'_>) -> ApiResult<Option<Connection>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        Ok(self
            .0
            .connection()
            .and_then(|(id, _)| Connection::by_id(&snapshot, workspace, id)))
    }

    /// How requests are verified.
    async fn verification(&self) -> Verification {
        match self.0.verify_override() {
            Some(definition) => Verification {
                source: VerificationSource::Endpoint,
                definition: Some(Json(definition.clone())),
            },
            None => Verification {
                source: VerificationSource::Connector,
                definition: None,
            },
        }
    }

    /// What it knows of its registration at the provider, which `ctx:NAME` in a verification stands for.
    async fn context(&self) -> Json {
        Json(weir_connector_sdk::context_document(self.0.context()))
    }

    /// How many secrets are active. Two during a rotation. The secrets themselves are never shown.
    async fn secret_count(&self) -> usize {
        self.0.secret_count()
    }

    /// The networks that may send, in CIDR notation. Empty: all.
    async fn allow(&self) -> Vec<String> {
        self.0.allow().iter().map(ToString::to_string).collect()
    }

    /// How many requests were refused in the last 24 hours, by reason. Needs `RUN_READ`.
    async fn refused(&self, ctx: &Context<'_>) -> ApiResult<Option<Vec<RefusedCount>>> {
        let mut by_reason: BTreeMap<&str, RefusedCount> = BTreeMap::new();
        for hourly in Caller::of(ctx)
            .refused_counts()
            .await?
            .iter()
            .filter(|count| count.endpoint == Some(self.0.id()))
        {
            let total = by_reason.entry(&hourly.reason).or_insert_with(|| RefusedCount {
                reason: hourly.reason.clone(),
                count: Long(0),
                // The newest hour comes first.
                last_hour: DateTime(hourly.hour),
            });
            total.count.0 += hourly.count;
        }
        Ok(Some(by_reason.into_values().collect()))
    }

    /// Whether it takes webhooks. False (`receive: never`): its events come by sweeps alone.
    async fn receives(&self) -> bool {
        self.0.receives()
    }

    /// The list of its connector that it reads instead of taking webhooks. Null: none.
    async fn poll(&self) -> Option<&str> {
        self.0.poll()
    }

    /// From when on its poll takes items: `since`, or when it was made. Null: it polls nothing.
    async fn polls_from(&self) -> Option<DateTime> {
        self.0.polls_from().map(DateTime)
    }

    /// What it says about sweeps: `"never"`, or an object with `every`. Null: as its connector says.
    async fn sweep(&self) -> Option<Json> {
        self.0.intake().parts().remove("sweep").map(Json)
    }

    /// Its webhook at the provider, which Weir makes and looks after (`register`). Null: a person does that. Needs `RUN_READ`.
    async fn registration(&self, ctx: &Context<'_>) -> ApiResult<Option<EndpointRegistration>> {
        let (orchestrator, workspace) = Caller::of(ctx).orchestrator(Permission::RunRead)?;
        let found = orchestrator.registration(workspace, self.0.id()).await;
        let found = found.map_err(|error| ApiError::internal("reading the registration of an endpoint", &error))?;
        Ok(found.map(Into::into))
    }

    /// What it says about the registration of its webhook: `true`, or an object with `events` and `with`. Null: nothing.
    async fn register(&self) -> Option<Json> {
        self.0.intake().parts().remove("register").map(Json)
    }

    /// What arrived in the last hours, what sweeps recovered, and how sure it is that nothing is missing. Needs `RUN_READ`.
    async fn coverage(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many hours back, at most 2160 (90 days).", default = 24)] hours: i32,
    ) -> ApiResult<Option<Coverage>> {
        let caller = Caller::of(ctx);
        let (store, workspace) = caller.read(Permission::RunRead)?;
        let back_ms = i64::from(hours.clamp(1, COVERAGE_HOURS)) * 3_600_000;
        let since = Timestamp::from_unix_ms(caller.any().now().as_unix_ms() - back_ms);
        let failed = |error| ApiError::internal("reading the coverage of an endpoint", &error);
        let row = store.sweep_load(workspace, self.0.id()).await.map_err(failed)?;
        let hours = store.coverage(workspace, self.0.id(), since).await.map_err(failed)?;
        Ok(Some(Coverage::of(&self.0, row, &hours)))
    }

    /// What a backfill of a range would do, or why it cannot be done. Nothing is read from the provider. Needs `RUN_READ`.
    async fn backfill_check(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "Events that happened at this time or later; when left out, ten minutes after the earliest possible time."
        )]
        since: Option<DateTime>,
        #[graphql(desc = "Events that happened before this time; now when left out.")] until: Option<DateTime>,
    ) -> ApiResult<Option<BackfillCheck>> {
        let (orchestrator, workspace) = Caller::of(ctx).orchestrator(Permission::RunRead)?;
        let range = (since.map(|since| since.0), until.map(|until| until.0));
        Ok(match orchestrator.backfill_preview(workspace, self.0.id(), range) {
            Ok(preview) => Some(BackfillCheck::possible(preview)),
            Err(BackfillRefusal::NotFound) => None,
            Err(refusal) => Some(BackfillCheck::refused(refusal.to_string())),
        })
    }

    /// Its backfills, newest first: the last twenty. Needs `RUN_READ`.
    async fn backfills(&self, ctx: &Context<'_>) -> ApiResult<Option<Vec<Backfill>>> {
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let rows = store.backfills_of(workspace, self.0.id()).await;
        let rows = rows.map_err(|error| ApiError::internal("reading the backfills of an endpoint", &error))?;
        Ok(Some(rows.into_iter().map(Backfill).collect()))
    }

    /// Raised by each change; pass it as `expectedRevision`.
    async fn revision(&self) -> i32 {
        long_to_int(self.0.revision())
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at())
    }

    /// When it was last changed.
    async fn updated_at(&self) -> DateTime {
        DateTime(self.0.updated_at())
    }
}

/// How an endpoint verifies requests.
#[derive(Debug, SimpleObject)]
pub(crate) struct Verification {
    /// Where the rule stands.
    source: VerificationSource,
    /// The endpoint's own rule, in the vocabulary of manifests. Null when the connector's rule holds.
    definition: Option<Json>,
}

/// Where the verification of an endpoint is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum VerificationSource {
    /// In the connector's manifest.
    Connector,
    /// In the endpoint itself; it replaces the connector's.
    Endpoint,
}

/// How often requests were refused for one reason.
#[derive(Debug, SimpleObject)]
pub(crate) struct RefusedCount {
    /// Stable name of the reason, such as `bad_signature`.
    reason: String,
    /// How many.
    count: Long,
    /// Start of the hour in which the last one came.
    last_hour: DateTime,
}
