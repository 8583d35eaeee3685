//! Documents that publish a connector: the manifest itself with `kind: Connector`, and under `files` the texts that it names.
//!
//! What is published never changes: the same version is the same document, and runs rely on it.

use super::change::plan_connector_delete;
use super::document::Reader;
use super::{Actor, ApplyError, Kind};
use crate::published::{MAX_PUBLISHED_BYTES, Published, Version};
use crate::registry::compile;
use crate::service::Orchestrator;
use serde_json::Value;
use std::sync::Arc;
use weir_connector_sdk::Connector;
use weir_workflow_engine::{Timestamp, WorkspaceId};

/// A version of a connector that is to be published.
#[derive(Debug, Clone)]
pub(crate) struct ConnectorDocument {
    /// `acme@1.2.0`.
    pub(crate) reference: String,
    pub(crate) version: Version,
    pub(crate) connector: Arc<Connector>,
    /// The document as it is stored.
    pub(crate) document: Value,
}

impl ConnectorDocument {
    pub(crate) fn name(&self) -> &str {
        self.connector.name()
    }

    pub(crate) fn published(&self, now: Timestamp) -> Published {
        Published {
            connector: Arc::clone(&self.connector),
            text: Arc::from(self.document.to_string()),
            created_at: now,
        }
    }
}

/// One published version of a connector, with what uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedVersion {
    /// The connector's name.
    pub name: String,
    /// The version.
    pub version: String,
    /// When it was published.
    pub created_at: Timestamp,
    /// Kinds and names of the connections, endpoints and workflows that are pinned to it.
    pub used_by: Vec<String>,
}

impl Reader<'_> {
    /// Reads a manifest, and checks it as `weir connector check` does.
    pub(super) fn read_connector(&mut self) -> Option<ConnectorDocument> {
        let mut document = self.source.value.clone();
        let said = document.get("connector").and_then(Value::as_str).unwrap_or_default();
        let version = document.get("version").and_then(Value::as_str).unwrap_or_default();
        let reference = format!("{said}@{version}");
        self.name = Some(reference.clone());
        let name = document.get("name").cloned();
        if let Some(name) = name
            && let Value::Object(fields) = &mut document
        {
            fields.shift_remove("name");
            if name != said_name(fields) {
                let suggestion = Some("leave `name` out: `connector` is the name".to_owned());
                self.problem(
                    "/name",
                    "mismatch",
                    "`name` is not the name of the connector",
                    suggestion,
                );
            }
        }
        let bytes = document.to_string().len();
        if bytes > MAX_PUBLISHED_BYTES {
            let message = format!("the manifest with its files has {bytes} bytes, more than {MAX_PUBLISHED_BYTES}");
            self.problem(
                "",
                "too_large",
                message,
                Some("leave out samples and schemas that are not needed".to_owned()),
            );
            return None;
        }
        let connector = match compile(&document, &|_| None) {
            Ok(connector) => connector,
            Err(problems) => {
                for problem in problems {
                    self.problem(&problem.pointer, problem.code, problem.message, problem.suggestion);
                }
                return None;
            }
        };
        let Some(version) = Version::parse(connector.version()) else {
            let message = format!("`{}` is not a version such as 1.4.0", connector.version());
            self.problem("/version", "bad_value", message, None);
            return None;
        };
        Some(ConnectorDocument {
            reference,
            version,
            connector: Arc::new(connector),
            document,
        })
    }
}

fn said_name(fields: &serde_json::Map<String, Value>) -> Value {
    fields.get("connector").cloned().unwrap_or_default()
}

impl Orchestrator {
    /// The published versions of the connectors of a workspace, by name and version, with what is pinned to each now.
    #[must_use]
    pub fn connector_versions(&self, workspace: WorkspaceId) -> Vec<PublishedVersion> {
        let snapshot = self.snapshot();
        let connectors = snapshot.connectors(workspace);
        let all = connectors
            .published()
            .map(|(name, version, published)| PublishedVersion {
                name: name.to_owned(),
                version: version.to_string(),
                created_at: published.created_at,
                used_by: super::change::users_of_version(&snapshot, workspace, &format!("{name}@{version}")),
            });
        all.collect()
    }

    /// Deletes a published version of a connector.
    ///
    /// # Errors
    /// [`ApplyError::InUse`]: a connection, an endpoint or a version of a workflow is pinned to it, also a version that
    /// was published before, since its runs may be replayed. [`ApplyError::NotFound`].
    pub async fn connector_delete(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        name: &str,
        version: &str,
    ) -> Result<(), ApplyError> {
        let _one_at_a_time = self.core.configuring.lock().await;
        let snapshot = self.snapshot();
        let reference = format!("{name}@{version}");
        let planned = plan_connector_delete(&snapshot, workspace, &reference)?;
        let pinned = self
            .core
            .store
            .workflows_resolved_with(workspace, &Value::from(reference).to_string())
            .await
            .map_err(|error| ApplyError::Unavailable(error.to_string()))?;
        if !pinned.is_empty() {
            let by = pinned
                .iter()
                .map(|name| format!("{} `{name}` (a version of it)", Kind::Workflow));
            return Err(ApplyError::InUse { by: by.collect() });
        }
        self.write(workspace, actor, vec![planned]).await.map(drop)
    }
}
