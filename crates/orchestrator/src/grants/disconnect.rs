//! Disconnecting: access is given back to the provider where it takes it, and the tokens are forgotten.

use secrecy::SecretString;
use serde_json::json;
use weir_connector_sdk::HttpRequest;
use weir_storage::{ConfigChange, ConfigRowChange, DroppedGrant};
use weir_workflow_engine::WorkspaceId;

use super::callback::ConnectError;
use super::connect::granting;
use super::tokens::Tokens;
use crate::configure::Actor;
use crate::connection::Connection;
use crate::credentials::{self, Leaving};
use crate::service::Orchestrator;

/// What became of the access at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// The provider took it back.
    Yes,
    /// Its connector knows no way to give it back: it ends by itself, or in the account's settings at the provider.
    NotOffered,
    /// The provider did not take it back, with the reason: see to the account's settings there.
    Failed(String),
}

/// A connection that has no tokens any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnected {
    /// What became of the access at the provider.
    pub revoked: Revoked,
}

impl Orchestrator {
    /// Gives access back and forgets the tokens. Calls over the connection wait from now on, until somebody connects it
    /// again. What cannot be given back is forgotten all the same. Where a credential logs in by itself, the session that
    /// this server has ends, and the next call begins another one.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing was forgotten.
    pub async fn connection_disconnect(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        name: &str,
    ) -> Result<Disconnected, ConnectError> {
        let (this, actor, name) = (self.clone(), actor.label(), name.to_owned());
        // Begun is done, whether or not somebody waits for it.
        let disconnecting = self.core.tasks.spawn_on(
            async move { Box::pin(this.disconnect(workspace, &actor, &name)).await },
            &self.core.runtime,
        );
        let unavailable = |_panic| ConnectError::Unavailable("disconnecting failed; try again".to_owned());
        disconnecting.await.map_err(unavailable)?
    }

    async fn disconnect(&self, workspace: WorkspaceId, actor: &str, name: &str) -> Result<Disconnected, ConnectError> {
        let snapshot = self.snapshot();
        let connection = snapshot.connection(workspace, name).ok_or(ConnectError::NotFound)?;
        if connection.has_sessions() {
            return self.log_out(workspace, actor, connection).await;
        }
        granting(connection)?;
        self.leave_provider(workspace, connection.id).await;
        // No refresh of this server replaces the tokens meanwhile.
        let place = self.grants()?.alone_with(connection.id).await;
        let row = self
            .store()
            .grant_load(workspace, connection.id)
            .await
            .map_err(|_error| ConnectError::Unavailable("the database does not answer; try again".to_owned()))?;
        let sealed = row
            .and_then(|row| row.tokens)
            .ok_or_else(|| ConnectError::NotConnected(name.to_owned()))?;
        let revoked = match Tokens::open(&sealed, self.grants()?.secrets(), (workspace, connection.id)) {
            Ok(tokens) => {
                self.revoke(connection, tokens.refresh.as_ref().unwrap_or(&tokens.access))
                    .await?
            }
            Err(_closed) => Revoked::Failed("what is stored does not open".to_owned()),
        };
        let now = self.now();
        let change = ConfigChange {
            changes: vec![ConfigRowChange::DropGrant(DroppedGrant {
                connection: connection.id,
                workspace,
                reason: format!("it was disconnected; connect it again with `weir connection authorize {name}`"),
                at: now,
            })],
            expected: Vec::new(),
            audit: vec![self.grant_audit(
                workspace,
                now,
                (actor, "connection.disconnect"),
                name,
                &json!({ "revoked": told(&revoked) }),
            )],
        };
        self.change_grant(change).await?;
        drop(place);
        tracing::info!(connection.name = %name, actor = %actor, "`{name}` was disconnected");
        Ok(Disconnected { revoked })
    }

    /// Ends the session that this server has. The connection stays as it is: its next call logs in anew.
    async fn log_out(
        &self,
        workspace: WorkspaceId,
        actor: &str,
        connection: &Connection,
    ) -> Result<Disconnected, ConnectError> {
        let name = &connection.name;
        let left = credentials::leave(connection).await;
        let left = left.ok_or_else(|| ConnectError::NotConnected(name.clone()))?;
        let revoked = match left {
            Ok(Leaving { logout: None }) => Revoked::NotOffered,
            Ok(Leaving { logout: Some(request) }) => self.give_back(request).await?,
            Err(error) => Revoked::Failed(error.message),
        };
        let entry = self.grant_audit(
            workspace,
            self.now(),
            (actor, "connection.disconnect"),
            name,
            &json!({ "revoked": told(&revoked) }),
        );
        self.change_grant(ConfigChange {
            changes: Vec::new(),
            expected: Vec::new(),
            audit: vec![entry],
        })
        .await?;
        tracing::info!(connection.name = %name, actor = %actor, "`{name}` was logged out");
        Ok(Disconnected { revoked })
    }

    async fn revoke(&self, connection: &Connection, token: &SecretString) -> Result<Revoked, ConnectError> {
        let (scheme, credential) = granting(connection)?;
        let settings = (&connection.config, connection.connector.config_defaults());
        let request = match scheme.revoke_request(settings, credential, token) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(Revoked::NotOffered),
            Err(error) => return Ok(Revoked::Failed(error.message)),
        };
        self.give_back(request).await
    }

    async fn give_back(&self, request: HttpRequest) -> Result<Revoked, ConnectError> {
        Ok(match self.grants()?.send(request).await {
            // RFC 7009 §2.2: also for a token that is worth nothing any more.
            Ok(response) if (200..300).contains(&response.status) => Revoked::Yes,
            Ok(response) => Revoked::Failed(format!("it answered with HTTP {}", response.status)),
            Err(error) => Revoked::Failed(error.kind.to_string()),
        })
    }
}

/// What became of the access, for the audit.
fn told(revoked: &Revoked) -> &'static str {
    match revoked {
        Revoked::Yes => "yes",
        Revoked::NotOffered => "not offered",
        Revoked::Failed(_) => "failed",
    }
}
