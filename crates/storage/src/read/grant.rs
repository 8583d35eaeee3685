//! Grants and authorizations under way.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use weir_workflow_engine::{ConnectionId, WorkspaceId};

use super::{Store, optional_time, time};
use crate::codes;
use crate::entity::{oauth_attempt, oauth_grant};
use crate::error::ReadError;
use crate::grant::{AuthorizationAttempt, GrantRow};

impl Store {
    /// The grant of a connection. `None`: it was never connected.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn grant_load(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
    ) -> Result<Option<GrantRow>, ReadError> {
        let found = oauth_grant::Entity::find_by_id(connection.as_raw())
            .filter(oauth_grant::Column::WorkspaceId.eq(workspace.as_raw()))
            .one(&self.db)
            .await?;
        found.map(row).transpose()
    }

    /// The grants of all connections of a workspace.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn grants(&self, workspace: WorkspaceId) -> Result<Vec<GrantRow>, ReadError> {
        let found = oauth_grant::Entity::find()
            .filter(oauth_grant::Column::WorkspaceId.eq(workspace.as_raw()))
            .all(&self.db)
            .await?;
        found.into_iter().map(row).collect()
    }

    /// A person on the way to a provider. `None`: there is no such attempt any more.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn authorization_load(
        &self,
        workspace: WorkspaceId,
        id: i64,
    ) -> Result<Option<AuthorizationAttempt>, ReadError> {
        let found = oauth_attempt::Entity::find_by_id(id)
            .filter(oauth_attempt::Column::WorkspaceId.eq(workspace.as_raw()))
            .one(&self.db)
            .await?;
        Ok(found.map(|model| AuthorizationAttempt {
            id: model.id,
            workspace: WorkspaceId::from_raw(model.workspace_id),
            connection: ConnectionId::from_raw(model.connection_id),
            sealed: model.sealed,
            expires_at: time(model.expires_at),
            at: time(0),
        }))
    }
}

fn row(model: oauth_grant::Model) -> Result<GrantRow, ReadError> {
    let connection = ConnectionId::from_raw(model.connection_id);
    Ok(GrantRow {
        connection,
        workspace: WorkspaceId::from_raw(model.workspace_id),
        state: codes::grant_state(model.state, || format!("oauth_grant {connection}"))?,
        state_since: time(model.state_since),
        tokens: model.tokens,
        generation: model.generation,
        refreshing: optional_time(model.refreshing_since).zip(model.refreshing_by),
        expires_at: optional_time(model.expires_at),
        account: model.account,
        label: model.label,
        scopes: model.scopes,
        instance_url: model.instance_url,
        error: model.error,
        failures: u32::try_from(model.failures).unwrap_or(0),
        retry_at: time(model.retry_at),
        connected_at: optional_time(model.connected_at),
        refreshed_at: optional_time(model.refreshed_at),
    })
}
