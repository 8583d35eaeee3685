//! Tokens of the API: made and revoked like configuration, with an audit entry in the same transaction.
//!
//! Only the hash comes here; the token itself is known to its caller alone.

use super::write::outcome;
use super::{Actor, ApplyError};
use crate::service::Orchestrator;
use serde_json::json;
use weir_storage::{ApiTokenRow, AuditEntry, ConfigChange, ConfigRowChange, ConfigSubject, Fact};
use weir_workflow_engine::{Timestamp, TokenId, WorkspaceId};

impl Orchestrator {
    /// Stores a token by its hash. `scopes` is a JSON list.
    ///
    /// # Errors
    /// [`ApplyError::Unavailable`].
    pub async fn token_create(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        name: &str,
        scopes: String,
        hash: [u8; 32],
        expires_at: Option<Timestamp>,
    ) -> Result<TokenId, ApplyError> {
        let now = self.now();
        let id = TokenId::from_raw(self.core.new_id(now));
        let audit = self.token_audit(workspace, actor, "token.create", (id, name), &scopes);
        let row = ApiTokenRow {
            id,
            workspace,
            name: name.to_owned(),
            hash,
            scopes,
            created_at: now,
            expires_at,
        };
        self.change_tokens(ConfigRowChange::PutToken(row), audit).await?;
        Ok(id)
    }

    /// Revokes a token: it is refused from now on.
    ///
    /// # Errors
    /// [`ApplyError::NotFound`], [`ApplyError::Unavailable`].
    pub async fn token_revoke(&self, workspace: WorkspaceId, actor: &Actor, id: TokenId) -> Result<(), ApplyError> {
        let name = self
            .snapshot()
            .tokens(workspace)
            .find(|row| row.id == id)
            .map(|row| row.name.clone())
            .ok_or(ApplyError::NotFound)?;
        let audit = self.token_audit(workspace, actor, "token.revoke", (id, &name), "[]");
        self.change_tokens(
            ConfigRowChange::Delete {
                workspace,
                subject: ConfigSubject::Token(id),
            },
            audit,
        )
        .await
    }

    fn token_audit(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        action: &str,
        (id, name): (TokenId, &str),
        scopes: &str,
    ) -> AuditEntry {
        let now = self.now();
        AuditEntry {
            id: self.core.new_id(now),
            workspace,
            at: now,
            actor: actor.label(),
            action: action.to_owned(),
            subject: name.to_owned(),
            client_ip: None,
            request_id: None,
            detail: json!({ "token": id, "scopes": scopes }).to_string(),
        }
    }

    async fn change_tokens(&self, change: ConfigRowChange, audit: AuditEntry) -> Result<(), ApplyError> {
        let _one_at_a_time = self.core.configuring.lock().await;
        let fact = Fact::Config(ConfigChange {
            changes: vec![change],
            expected: Vec::new(),
            audit: vec![audit],
        });
        outcome(self.writer(), fact).await?;
        self.reload().await.map(drop).map_err(|error| {
            ApplyError::Unavailable(format!("the change is stored, but could not be put in force: {error}"))
        })
    }
}
