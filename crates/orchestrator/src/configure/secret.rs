//! The secret that a provider sends while its webhook is registered.

use super::ApplyError;
use super::write::outcome;
use crate::service::Orchestrator;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use std::net::IpAddr;
use weir_storage::{
    AuditEntry, ConfigChange, ConfigRowChange, ConfigSubject, EndpointRow, ExpectedRevision, Fact, RowIdentity,
};
use weir_workflow_engine::EndpointId;

use crate::ingest::EndpointRef;

impl Orchestrator {
    /// Seals and stores a secret for an endpoint that awaits one, with an entry in the audit trail, and puts it in force
    /// as soon as the configuration can be read. `false`: it awaits none, or somebody changed it meanwhile; nothing was
    /// written.
    ///
    /// # Errors
    /// The database cannot write now.
    pub(crate) async fn endpoint_take_secret(
        &self,
        id: EndpointId,
        secret: SecretString,
        client: IpAddr,
    ) -> Result<bool, ApplyError> {
        let _one_at_a_time = self.core.configuring.lock().await;
        let snapshot = self.snapshot();
        let now = self.clock().now();
        let Some(endpoint) = snapshot
            .endpoint(&EndpointRef::Id(id))
            .filter(|endpoint| endpoint.awaits_secret(now))
        else {
            return Ok(false);
        };
        let workspace = endpoint.workspace();
        let sealed = self
            .core
            .seal(&RowIdentity::endpoint(workspace, id), &json!([secret.expose_secret()]))?;
        let change = ConfigChange {
            changes: vec![ConfigRowChange::PutEndpoint(EndpointRow {
                secrets: Some(sealed),
                updated_at: now,
                ..endpoint.row().clone()
            })],
            // Two requests at once, also to two servers: one of them wins.
            expected: vec![ExpectedRevision {
                workspace,
                subject: ConfigSubject::Endpoint(id),
                revision: Some(endpoint.revision()),
            }],
            audit: vec![AuditEntry {
                id: self.core.new_id(now),
                workspace,
                at: now,
                actor: "provider".to_owned(),
                action: "endpoint.take_secret".to_owned(),
                subject: endpoint.name().to_owned(),
                client_ip: Some(client.to_string()),
                request_id: None,
                detail: "{}".to_owned(),
            }],
        };
        if outcome(self.writer(), Fact::Config(change)).await?.is_some() {
            return Ok(false);
        }
        if let Err(error) = self.reload().await {
            // The provider must not hear that it was not stored. The heartbeat reads again until it can be read.
            tracing::error!(
                endpoint.name = %endpoint.name(),
                "the secret that a provider sent is stored, but the configuration cannot be read: {error}"
            );
        }
        Ok(true)
    }
}
