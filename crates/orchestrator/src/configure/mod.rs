//! Configuration as code: documents in, one transaction out, or a list of everything that is wrong.
//!
//! The GraphQL mutations and `weir apply` come through the same door. What does not change is not written; secrets that
//! a document leaves out are kept; the whole set is checked against itself and what is stored before anything is written.

pub(crate) mod catalogue;
mod change;
mod connector;
mod document;
mod kind;
mod looks;
mod pause;
mod reload;
mod render;
mod secret;
mod sweep;
mod token;
mod version;
mod write;

pub use connector::PublishedVersion;
pub use document::{ConfigProblem, Lines, MAX_ENDPOINT_SECRETS, MAX_NAME_CHARACTERS, SourceDocument};
pub(crate) use document::{escape, nearest};
pub use kind::Kind;
pub(crate) use looks::Looks;
pub(crate) use reload::{ROUTING_TRIES, Reloading};
pub use sweep::{Intake, RegisterRule, SweepRule};
pub use version::VersionDiff;
pub(crate) use write::{ensure_workspace, outcome};

use crate::control::ControlError;
use crate::service::Orchestrator;
use change::Planned;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use weir_workflow_engine::{BulkId, TokenId, WorkspaceId};

/// Who asks for a change; stands in the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Name of the token, or `bootstrap`.
    pub name: String,
    /// The token, unless it is the bootstrap token.
    pub token: Option<TokenId>,
}

impl Actor {
    /// As it stands in the audit trail.
    pub(crate) fn label(&self) -> String {
        self.token
            .map_or_else(|| self.name.clone(), |token| format!("token:{token}"))
    }
}

/// What must be true of a thing for a change to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// It is not there yet.
    Absent,
    /// It has this revision.
    Revision(i64),
}

/// How documents are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Report what would change and write nothing.
    pub dry_run: bool,
    /// Holds for each document of the set.
    pub expect: Expect,
}

/// What an application did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyReport {
    /// One entry per document, in the order given; behind them the workflows that are published again because a
    /// connection of theirs speaks with another version of its connector.
    pub changes: Vec<Change>,
    /// Whether it was written. False for a dry run and when nothing changed.
    pub applied: bool,
}

/// What becomes of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What happens.
    pub action: Action,
    /// The thing's public id; empty in a dry run for what does not exist yet.
    pub id: String,
    /// Its revision afterwards.
    pub revision: i64,
    /// Unified diff of the documents with secrets redacted; empty when unchanged.
    pub diff: String,
    /// What a person should know besides, such as "secrets changed".
    pub notes: Vec<String>,
}

/// What happens to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It stays as it is.
    Unchanged,
    /// It is removed.
    Delete,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The documents are wrong; every problem is listed.
    #[error("{} problem(s) in the documents", .0.len())]
    Invalid(Vec<ConfigProblem>),
    /// Somebody was faster, or it exists though it was expected not to.
    #[error("{kind} `{name}` has another revision than expected")]
    Conflict {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// The revision it has; `None` when it is not there.
        current_revision: Option<i64>,
    },
    /// It has runs that are not over.
    #[error("{count}{} run(s) of it are not over", if *.more { " or more" } else { "" })]
    OpenRuns {
        /// How many.
        count: u32,
        /// Whether there are more.
        more: bool,
    },
    /// Other things need it.
    #[error("in use by {}", by.join(", "))]
    InUse {
        /// Kinds and names.
        by: Vec<String>,
    },
    /// There is no such thing.
    #[error("not found")]
    NotFound,
    /// The database cannot write now; try again later.
    #[error("{0}")]
    Unavailable(String),
}

/// Most documents in one call.
///
/// Limit: documents in one `apply` | refused, `TOO_MANY` | `inputs_stop_at_their_bounds`
pub const MAX_DOCUMENTS: usize = 500;

impl Orchestrator {
    /// Applies a set of documents in one transaction.
    ///
    /// # Errors
    /// See [`ApplyError`]; after any of them nothing has changed.
    pub async fn apply(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        documents: Vec<SourceDocument>,
        options: ApplyOptions,
    ) -> Result<ApplyReport, ApplyError> {
        let _one_at_a_time = self.core.configuring.lock().await;
        let snapshot = self.snapshot();
        let planned = change::plan(&self.core, &snapshot, workspace, &documents, options.expect)?;
        if options.dry_run || planned.iter().all(|planned| planned.change.action == Action::Unchanged) {
            return Ok(ApplyReport {
                changes: planned.into_iter().map(|planned| planned.change).collect(),
                applied: false,
            });
        }
        let changes = self.write(workspace, actor, planned).await?;
        Ok(ApplyReport { changes, applied: true })
    }

    /// Stores a workflow as a draft: checked for shape, not running. Unknown names in it are allowed until it is published.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn workflow_save_draft(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        document: SourceDocument,
        expect: Expect,
    ) -> Result<Change, ApplyError> {
        let _one_at_a_time = self.core.configuring.lock().await;
        let planned = change::plan_draft(&self.snapshot(), workspace, &document, expect)?;
        if planned.change.action == Action::Unchanged {
            return Ok(planned.change);
        }
        self.write_one(workspace, actor, planned).await
    }

    /// Publishes the draft of a workflow: from now on it takes events.
    ///
    /// # Errors
    /// [`ApplyError::NotFound`] when there is no such workflow or it has no draft; problems as for [`Orchestrator::apply`].
    pub async fn workflow_publish(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        name: &str,
        expect: Expect,
    ) -> Result<Change, ApplyError> {
        let _one_at_a_time = self.core.configuring.lock().await;
        let snapshot = self.snapshot();
        let (_, draft) = snapshot
            .workflow(workspace, name)
            .and_then(|workflow| workflow.draft.as_ref())
            .ok_or(ApplyError::NotFound)?;
        let mut document = draft.clone();
        if let Value::Object(map) = &mut document {
            map.insert("kind".to_owned(), json!(Kind::Workflow.as_str()));
        }
        let planned = change::plan(
            &self.core,
            &snapshot,
            workspace,
            &[SourceDocument::from_value(document)],
            expect,
        )?;
        let planned = planned.into_iter().next().ok_or(ApplyError::NotFound)?;
        self.write_one(workspace, actor, planned).await
    }

    /// Writes one planned change.
    async fn write_one(&self, workspace: WorkspaceId, actor: &Actor, planned: Planned) -> Result<Change, ApplyError> {
        self.write(workspace, actor, vec![planned])
            .await?
            .into_iter()
            .next()
            .ok_or(ApplyError::NotFound)
    }

    /// Deletes a connection or endpoint. For a workflow see [`Orchestrator::workflow_delete`].
    ///
    /// # Errors
    /// [`ApplyError::InUse`] for a connection that an endpoint or a published workflow names.
    pub async fn delete(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        kind: Kind,
        name: &str,
        expected_revision: Option<i64>,
    ) -> Result<(), ApplyError> {
        let snapshot = self.snapshot();
        if kind == Kind::Connection {
            change::plan_delete(&snapshot, workspace, kind, name, expected_revision)?;
            if let Some((connection, _)) = snapshot.connection_row(workspace, name) {
                // Of endpoints that are gone: nobody could delete them later.
                Box::pin(self.leave_provider(workspace, connection.id)).await;
            }
        }
        let _one_at_a_time = self.core.configuring.lock().await;
        let planned = change::plan_delete(&self.snapshot(), workspace, kind, name, expected_revision)?;
        self.write(workspace, actor, vec![planned]).await.map(drop)
    }

    /// Deletes a workflow: it takes no more events. Its versions and its name stay with the runs that it had. With
    /// `cancel_open_runs` those that are not over are asked to end; the operations that do so are given back.
    ///
    /// A run of an event that another server accepts at the same moment comes to its end.
    ///
    /// # Errors
    /// [`ApplyError::OpenRuns`] without `cancel_open_runs`.
    pub async fn workflow_delete(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        name: &str,
        expected_revision: Option<i64>,
        cancel_open_runs: bool,
    ) -> Result<Vec<BulkId>, ApplyError> {
        let unavailable = |error: ControlError| ApplyError::Unavailable(error.to_string());
        let id = {
            let _one_at_a_time = self.core.configuring.lock().await;
            let snapshot = self.snapshot();
            let planned = change::plan_delete(&snapshot, workspace, Kind::Workflow, name, expected_revision)?;
            let id = snapshot.workflow(workspace, name).ok_or(ApplyError::NotFound)?.row.id;
            if !cancel_open_runs {
                let (count, more) = self.count_open(workspace, id).await.map_err(unavailable)?;
                if count > 0 {
                    return Err(ApplyError::OpenRuns { count, more });
                }
            }
            self.write(workspace, actor, vec![planned]).await?;
            id
        };
        if !cancel_open_runs {
            return Ok(Vec::new());
        }
        let reason = format!("its workflow `{name}` was deleted");
        let asked = self.cancel_all_of(workspace, actor, (id, name), &reason).await;
        asked.map_err(|error| {
            ApplyError::Unavailable(format!(
                "the workflow is deleted, but its open runs could not be asked to end: {error}"
            ))
        })
    }

    /// The workspace's configuration as documents, in an order in which they can be applied. Secrets are left out, so that
    /// applying the documents again keeps them.
    #[must_use]
    pub fn export(&self, workspace: WorkspaceId) -> Vec<Value> {
        let snapshot = self.snapshot();
        let connectors = snapshot
            .connectors(workspace)
            .published()
            .map(|(_, _, published)| published.document());
        let connections = snapshot
            .connections(workspace)
            .map(|(connection, row)| render::connection_document(&connection.name, &row.connector, &connection.config));
        let endpoints = snapshot
            .endpoints(workspace)
            .map(|endpoint| render::endpoint_document(endpoint));
        let workflows = snapshot
            .workflows(workspace)
            .filter_map(|workflow| workflow.published.as_ref())
            .map(|version| render::workflow_document(&version.definition));
        connectors
            .chain(connections)
            .chain(endpoints)
            .chain(workflows)
            .collect()
    }
}

/// Keys in the order in which people write them.
fn ordered(kind: Kind, name: &str, rest: BTreeMap<&str, Value>, order: &[&str]) -> Value {
    let mut document = Map::new();
    document.insert("kind".to_owned(), json!(kind.as_str()));
    document.insert("name".to_owned(), json!(name));
    let mut rest = rest;
    for key in order {
        if let Some(value) = rest.remove(key) {
            document.insert((*key).to_owned(), value);
        }
    }
    Value::Object(document)
}
