//! Registrations at providers.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use weir_workflow_engine::{ConnectionId, EndpointId, WorkspaceId};

use super::{Store, optional_time, time};
use crate::entity::registration;
use crate::error::ReadError;
use crate::registration::RegistrationRow;

impl Store {
    /// The registration of an endpoint, which may be gone. `None`: there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn registration_load(
        &self,
        workspace: WorkspaceId,
        endpoint: EndpointId,
    ) -> Result<Option<RegistrationRow>, ReadError> {
        let found = registration::Entity::find_by_id(endpoint.as_raw())
            .filter(registration::Column::WorkspaceId.eq(workspace.as_raw()))
            .one(&self.db)
            .await?;
        found.map(row).transpose()
    }

    /// The registrations that were made with a connection, also those of endpoints that are gone.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn registrations_of(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
    ) -> Result<Vec<RegistrationRow>, ReadError> {
        let found = registration::Entity::find()
            .filter(registration::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(registration::Column::ConnectionId.eq(connection.as_raw()))
            .all(&self.db)
            .await?;
        found.into_iter().map(row).collect()
    }
}

pub(super) fn row(model: registration::Model) -> Result<RegistrationRow, ReadError> {
    let endpoint = EndpointId::from_raw(model.endpoint_id);
    let events = serde_json::from_str(&model.events).map_err(|error| ReadError::Corrupt {
        row: format!("registration {endpoint}"),
        reason: error.to_string(),
    })?;
    Ok(RegistrationRow {
        endpoint,
        workspace: WorkspaceId::from_raw(model.workspace_id),
        connection: ConnectionId::from_raw(model.connection_id),
        place: model.place,
        provider_id: model.provider_id,
        url: model.url,
        events,
        secrets: model.secrets,
        secrets_until: optional_time(model.secrets_until),
        expires_at: optional_time(model.expires_at),
        created_at: optional_time(model.created_at),
        renewed_at: optional_time(model.renewed_at),
        checked_at: optional_time(model.checked_at),
        drift: optional_time(model.drifted_at).zip(model.drift),
        error: model.error,
        failures: u32::try_from(model.failures).unwrap_or(0),
        retry_at: time(model.retry_at),
        generation: model.generation,
    })
}
