//! Connections: the way out.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::scalars::{DateTime, Json};
use super::budget::{ConnectionBudget, ConnectionHealth};
use super::connector::Connector;
use super::grant::ConnectionGrant;
use super::long_to_int;
use crate::auth::Permission;
use async_graphql::{Context, ID, Object};
use std::sync::Arc;
use weir_orchestrator::published::name_and_version;
use weir_orchestrator::snapshot::Snapshot;
use weir_storage::{ConnectionRow, GrantRow};
use weir_workflow_engine::{ConnectionId, WorkspaceId};

/// One account at a provider.
#[derive(Debug, Clone)]
pub(crate) struct Connection(ConnectionRow);

impl Connection {
    /// All connections of a workspace, by name.
    pub(crate) fn all(snapshot: &Snapshot, workspace: WorkspaceId) -> Vec<Self> {
        snapshot
            .connections(workspace)
            .map(|(_, row)| Connection(row.clone()))
            .collect()
    }

    /// A connection by id.
    pub(crate) fn by_id(snapshot: &Arc<Snapshot>, workspace: WorkspaceId, id: ConnectionId) -> Option<Self> {
        snapshot
            .connections(workspace)
            .find(|(_, row)| row.id == id)
            .map(|(_, row)| Connection(row.clone()))
    }

    /// A connection by name.
    pub(crate) fn by_name(snapshot: &Arc<Snapshot>, workspace: WorkspaceId, name: &str) -> Option<Self> {
        snapshot
            .connection_row(workspace, name)
            .map(|(_, row)| Connection(row.clone()))
    }

    /// Whether it is used with access that a person gives.
    fn is_granted(&self, ctx: &Context<'_>) -> ApiResult<bool> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        let connection = snapshot.connection(workspace, &self.0.name);
        Ok(connection.is_some_and(|connection| connection.is_granted()))
    }

    /// Why its provider refuses logins with its credential.
    fn refused_login(&self, ctx: &Context<'_>) -> ApiResult<Option<String>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        let connection = snapshot.connection(workspace, &self.0.name);
        Ok(connection.and_then(|connection| connection.refused_login()))
    }

    async fn stored_grant(&self, ctx: &Context<'_>) -> ApiResult<Option<GrantRow>> {
        let (store, workspace) = Caller::of(ctx).read(Permission::ConfigRead)?;
        store
            .grant_load(workspace, self.0.id)
            .await
            .map_err(|error| ApiError::internal("reading what a person granted", &error))
    }

    /// Its row.
    pub(crate) fn row(&self) -> &ConnectionRow {
        &self.0
    }
}

/// One account at a provider: settings and a credential that is never shown. Needs `CONFIG_READ`.
#[Object]
impl Connection {
    /// Its id.
    pub(crate) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// Its name, unique in the workspace.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// Name of its connector.
    async fn connector_name(&self) -> &str {
        name_and_version(&self.0.connector).0
    }

    /// The published version of its connector that it is pinned to. Null: the connector is the server's own.
    async fn connector_version(&self) -> Option<&str> {
        name_and_version(&self.0.connector).1
    }

    /// Its connector. Null when this server does not have it any more.
    async fn connector(&self, ctx: &Context<'_>) -> ApiResult<Option<Connector>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        let connectors = snapshot.connectors(workspace);
        Ok(connectors.get(&self.0.connector).cloned().map(Connector))
    }

    /// Its settings. They hold no secrets.
    async fn config(&self) -> Json {
        Json(serde_json::from_str(&self.0.config).unwrap_or_default())
    }

    /// Whether a credential is stored. The credential itself is never shown.
    async fn has_credential(&self) -> bool {
        self.0.credential.is_some()
    }

    /// Whether it can be used: its provider answers, as this server sees it, and its access is good. Null when the
    /// connection cannot be used, because its connector is gone.
    async fn health(&self, ctx: &Context<'_>) -> ApiResult<Option<ConnectionHealth>> {
        let (orchestrator, workspace) = Caller::of(ctx).orchestrator(Permission::ConfigRead)?;
        let figures = orchestrator.budget(workspace, &self.0.name);
        let Some(health) = figures.as_ref().map(ConnectionHealth::of) else {
            return Ok(None);
        };
        match self.is_granted(ctx)? {
            true => Ok(Some(health.with_grant(self.stored_grant(ctx).await?.as_ref()))),
            false if self.refused_login(ctx)?.is_some() => Ok(Some(ConnectionHealth::NeedsReauth)),
            false => Ok(Some(health)),
        }
    }

    /// The access that a person gave it. Null: nobody has, or its credential needs none.
    async fn grant(&self, ctx: &Context<'_>) -> ApiResult<Option<ConnectionGrant>> {
        match self.is_granted(ctx)? {
            true => Ok(self.stored_grant(ctx).await?.map(ConnectionGrant::from)),
            false => Ok(None),
        }
    }

    /// Why a person has to see to its credential: its provider refuses logins with it, as this server found out. Null: it
    /// does not, or nothing logs in.
    async fn login_error(&self, ctx: &Context<'_>) -> ApiResult<Option<String>> {
        self.refused_login(ctx)
    }

    /// What it may send, what is left of that, and who waits, as this server counts it. Null when the connection cannot
    /// be used, because its connector is gone.
    async fn budget(&self, ctx: &Context<'_>) -> ApiResult<Option<ConnectionBudget>> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::ConfigRead)?;
        let figures = orchestrator.budget(workspace, &self.0.name);
        let (snapshot, _) = caller.config()?;
        let node = orchestrator.node().name.as_str();
        Ok(figures.map(|figures| ConnectionBudget::new(&figures, &snapshot, workspace, node)))
    }

    /// Raised by each change; pass it as `expectedRevision`.
    async fn revision(&self) -> i32 {
        long_to_int(self.0.revision)
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// When it was last changed.
    async fn updated_at(&self) -> DateTime {
        DateTime(self.0.updated_at)
    }
}
