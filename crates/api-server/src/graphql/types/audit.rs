//! The audit trail: who changed what.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::scalars::{DateTime, Json};
use super::step;
use crate::auth::Permission;
use async_graphql::{Context, ID, InputObject, Object};
use serde_json::Value;
use weir_orchestrator::snapshot::Snapshot;
use weir_storage::AuditFilter as Stored;
use weir_workflow_engine::{AuditId, TokenId, WorkspaceId};

/// How the audit trail names a token.
const TOKEN: &str = "token:";

/// One change that a person or a program made, written together with the change itself.
#[derive(Debug)]
pub(crate) struct AuditEntry(pub(crate) weir_storage::AuditEntry);

/// One change that a person or a program made, written together with the change itself.
#[Object]
impl AuditEntry {
    /// Its id.
    async fn id(&self) -> ID {
        AuditId::from_raw(self.0.id).to_string().into()
    }

    /// When.
    async fn at(&self) -> DateTime {
        DateTime(self.0.at)
    }

    /// Who: `token:` and the token's id, `admin` for the admin token, `system`, `provider`.
    async fn actor(&self) -> &str {
        &self.0.actor
    }

    /// The same with the name of the token in place of its id, as long as it is not revoked.
    async fn actor_name(&self, ctx: &Context<'_>) -> String {
        let snapshot = Caller::of(ctx).any().snapshot();
        actor_name(&snapshot, self.0.workspace, &self.0.actor)
    }

    /// What was done, such as `run.cancel` or `workflow.update`; stable, and more may be added.
    async fn action(&self) -> &str {
        &self.0.action
    }

    /// To what: the id of a run, an operation or a workflow, or the name of a part of the configuration.
    async fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The address it came from, where a provider did it by itself.
    async fn client_ip(&self) -> Option<&str> {
        self.0.client_ip.as_deref()
    }

    /// What belongs to it: a reason or note, the difference, the run that was started. Never secrets. Reasons and notes
    /// are shown without what they quote to who may not read payloads.
    async fn detail(&self, ctx: &Context<'_>) -> Json {
        let mut detail = serde_json::from_str(&self.0.detail).unwrap_or_default();
        if !step::may_read_payloads(ctx) {
            hide(&mut detail);
        }
        Json(detail)
    }
}

fn actor_name(snapshot: &Snapshot, workspace: WorkspaceId, actor: &str) -> String {
    let token = actor
        .strip_prefix(TOKEN)
        .and_then(|id| id.parse::<TokenId>().ok())
        .and_then(|id| snapshot.tokens(workspace).find(|row| row.id == id));
    token.map_or_else(|| actor.to_owned(), |row| row.name.clone())
}

/// What people wrote, and what a failure says, may quote contents.
fn hide(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(_) if ["reason", "note", "message"].contains(&key.as_str()) => *value = Value::Null,
                    other => hide(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Which entries of the audit trail. All conditions must hold; what is left out does not matter.
#[derive(Debug, Default, InputObject)]
pub(crate) struct AuditFilter {
    /// Written at this time or later.
    since: Option<DateTime>,
    /// Written before this time.
    until: Option<DateTime>,
    /// By this one: `admin`, the name or id of a token, `token:` and its id, `system`, `provider`.
    actor: Option<String>,
    /// This action, such as `run.cancel`, or all of a kind, such as `run`.
    action: Option<String>,
    /// On this: the id of a run, or the name of a part of the configuration.
    subject: Option<String>,
}

impl AuditFilter {
    /// The filter as storage takes it.
    pub(crate) fn parse(self, ctx: &Context<'_>) -> ApiResult<Stored> {
        let caller = Caller::of(ctx);
        let workspace = caller.may(Permission::AuditRead)?;
        let snapshot = caller.any().snapshot();
        let actors = |actor: String| {
            let tokens = snapshot.tokens(workspace).filter(|row| row.name == actor);
            let mut actors: Vec<String> = tokens.map(|row| format!("{TOKEN}{}", row.id)).collect();
            if let Ok(id) = actor.parse::<TokenId>() {
                actors.push(format!("{TOKEN}{id}"));
            }
            actors.push(actor);
            actors
        };
        Ok(Stored {
            since: self.since.map(|time| time.0),
            until: self.until.map(|time| time.0),
            actors: self.actor.map(actors),
            action: self.action,
            subject: self.subject,
        })
    }
}
