//! Turns checked changes into rows, seals secrets, writes everything in one transaction, and puts the result in force.

use super::change::{Planned, Write};
use super::{Action, Actor, ApplyError, Change, Kind};
use crate::published::name_and_version;
use crate::service::{Core, Orchestrator, StartError};
use crate::snapshot::{Snapshot, Workflow, open_json};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use weir_storage::{
    AuditEntry, ConfigChange, ConfigOutcome, ConfigRowChange, ConfigSubject, ConnectionRow, ConnectorManifestRow,
    CorrelationRow, EndpointRow, ExpectedRevision, Fact, FactOutcome, RowIdentity, ScheduleRow, Store, VersionState,
    WorkflowRow, WorkflowVersionRow, WorkspaceRow, Writer,
};
use weir_workflow_engine::{
    ConnectionId, Correlation, Definition, EndpointId, IdGenerator, Resolution, Timestamp, Trigger, VersionId,
    WorkflowId, WorkspaceId,
};

/// Makes the workspace on the first start.
pub(crate) async fn ensure_workspace(
    store: &Store,
    writer: &Writer,
    ids: &IdGenerator,
    now: Timestamp,
    name: &str,
) -> Result<WorkspaceId, StartError> {
    let rows = store.config_load().await?;
    if let Some(row) = rows.workspaces.iter().find(|row| row.name == name) {
        return Ok(row.id);
    }
    let id = WorkspaceId::from_raw(ids.next_raw(now));
    let audit = AuditEntry {
        id: ids.next_raw(now),
        workspace: id,
        at: now,
        actor: "system".to_owned(),
        action: "workspace.create".to_owned(),
        subject: name.to_owned(),
        client_ip: None,
        request_id: None,
        detail: "{}".to_owned(),
    };
    let change = ConfigChange {
        changes: vec![ConfigRowChange::PutWorkspace(WorkspaceRow {
            id,
            name: name.to_owned(),
            created_at: now,
        })],
        expected: Vec::new(),
        audit: vec![audit],
    };
    let pending = writer
        .submit(Fact::Config(change))
        .map_err(|_full| weir_storage::WriteError::Unavailable)?;
    pending.await?;
    Ok(id)
}

impl Core {
    /// The credential of a connection, opened to be compared. `None` when it does not open: then it counts as changed.
    pub(super) fn open_credential(&self, row: &ConnectionRow, sealed: &[u8]) -> Option<Value> {
        open_json(
            &self.secrets,
            &RowIdentity::connection(row.workspace, row.id),
            sealed,
            || row.name.clone(),
        )
        .ok()
    }

    pub(super) fn seal(&self, identity: &RowIdentity, value: &Value) -> Result<Vec<u8>, ApplyError> {
        let text = serde_json::to_vec(value).map_err(|error| ApplyError::Unavailable(error.to_string()))?;
        Ok(self.secrets.seal(identity, &text))
    }
}

impl Orchestrator {
    /// Writes planned changes in one transaction and reloads. The caller holds the configuration lock.
    pub(super) async fn write(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        planned: Vec<Planned>,
    ) -> Result<Vec<Change>, ApplyError> {
        let now = self.clock().now();
        let snapshot = self.snapshot();
        let mut rows = Rows {
            core: &self.core,
            snapshot: &snapshot,
            workspace,
            now,
            change: ConfigChange::default(),
            connections: Vec::new(),
        };
        let mut changes = Vec::with_capacity(planned.len());
        for Planned { mut change, write } in planned {
            rows.expect_unchanged(&change);
            if let Some(id) = rows.put(&change, write)? {
                change.id = id;
            }
            if change.action != Action::Unchanged {
                rows.audit(actor, &change);
            }
            changes.push(change);
        }
        if let Some(current_revision) = outcome(self.writer(), Fact::Config(rows.change)).await? {
            let (kind, name) = changes.first().map_or((Kind::Workflow, String::new()), |change| {
                (change.kind, change.name.clone())
            });
            return Err(ApplyError::Conflict {
                kind,
                name,
                current_revision,
            });
        }
        let fresh = self.reload().await.map_err(|error| {
            ApplyError::Unavailable(format!("the change is stored, but could not be put in force: {error}"))
        })?;
        for change in &mut changes {
            let revision = match change.kind {
                Kind::Connector => None,
                Kind::Connection => fresh
                    .connection_row(workspace, &change.name)
                    .map(|(_, row)| row.revision),
                Kind::Endpoint => fresh
                    .endpoints(workspace)
                    .find(|endpoint| endpoint.name() == change.name)
                    .map(|endpoint| endpoint.revision()),
                Kind::Workflow => fresh
                    .workflow(workspace, &change.name)
                    .map(|workflow| workflow.row.revision),
            };
            change.revision = revision.unwrap_or(change.revision);
        }
        Ok(changes)
    }
}

/// Waits for a change of configuration. `Some`: another revision was there, and nothing was written.
pub(crate) async fn outcome(writer: &Writer, fact: Fact) -> Result<Option<Option<i64>>, ApplyError> {
    let pending = writer
        .submit(fact)
        .map_err(|full| ApplyError::Unavailable(full.to_string()))?;
    match pending
        .await
        .map_err(|error| ApplyError::Unavailable(error.to_string()))?
    {
        FactOutcome::Config(ConfigOutcome::Applied { .. }) => Ok(None),
        FactOutcome::Config(ConfigOutcome::Conflict { current, .. }) => Ok(Some(current)),
        other => Err(ApplyError::Unavailable(format!("the writer answered with {other:?}"))),
    }
}

struct Rows<'a> {
    core: &'a Core,
    snapshot: &'a Snapshot,
    workspace: WorkspaceId,
    now: Timestamp,
    change: ConfigChange,
    /// Connections of this set by name: endpoints of the same set refer to them.
    connections: Vec<(String, ConnectionId)>,
}

impl Rows<'_> {
    fn expect_unchanged(&mut self, change: &Change) {
        let subject = match change.kind {
            Kind::Connector => {
                self.expect_version(&change.name, change.action == Action::Create);
                None
            }
            Kind::Connection => self
                .snapshot
                .connection_row(self.workspace, &change.name)
                .map(|(_, row)| ConfigSubject::Connection(row.id)),
            Kind::Endpoint => self
                .snapshot
                .endpoints(self.workspace)
                .find(|endpoint| endpoint.name() == change.name)
                .map(|endpoint| ConfigSubject::Endpoint(endpoint.id())),
            Kind::Workflow => self
                .snapshot
                .workflow(self.workspace, &change.name)
                .map(|workflow| ConfigSubject::Workflow(workflow.row.id)),
        };
        if let Some(subject) = subject {
            self.change.expected.push(ExpectedRevision {
                workspace: self.workspace,
                subject,
                revision: Some(change.revision),
            });
        }
    }

    /// That a published version is there, or not yet. Deletes go against the whole configuration: something may be
    /// pinned to the version at this moment.
    fn expect_version(&mut self, reference: &str, is_new: bool) {
        let (name, Some(version)) = name_and_version(reference) else {
            return;
        };
        let is_stored = self.snapshot.connectors(self.workspace).get(reference).is_some();
        if is_stored == is_new {
            // It is published by this very change.
            return;
        }
        self.change.expected.push(ExpectedRevision {
            workspace: self.workspace,
            subject: ConfigSubject::Manifest {
                name: name.to_owned(),
                version: version.to_owned(),
            },
            revision: is_stored.then_some(1),
        });
    }

    fn expect_pins(&mut self, resolution: &Resolution) {
        for pin in resolution.pins.values() {
            self.expect_version(pin, false);
        }
    }

    fn audit(&mut self, actor: &Actor, change: &Change) {
        let verb = match change.action {
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
            Action::Unchanged => "keep",
        };
        self.change.audit.push(AuditEntry {
            id: self.core.new_id(self.now),
            workspace: self.workspace,
            at: self.now,
            actor: actor.label(),
            action: format!("{}.{verb}", change.kind.as_str().to_ascii_lowercase()),
            subject: change.name.clone(),
            client_ip: None,
            request_id: None,
            detail: json!({ "diff": change.diff, "notes": change.notes }).to_string(),
        });
    }

    /// Adds the rows of one change; gives the public id of what is made or changed.
    fn put(&mut self, change: &Change, write: Write) -> Result<Option<String>, ApplyError> {
        let (workspace, now) = (self.workspace, self.now);
        match write {
            Write::Nothing => Ok(None),
            Write::Connector(document) => {
                let (name, version) = (document.name().to_owned(), document.version.to_string());
                self.change
                    .changes
                    .push(ConfigRowChange::PutManifest(ConnectorManifestRow {
                        workspace,
                        name,
                        version,
                        document: document.document.to_string(),
                        created_at: now,
                    }));
                Ok(Some(document.reference))
            }
            Write::Delete(subject) => {
                if let ConfigSubject::Manifest { .. } = &subject {
                    self.change.expected.push(ExpectedRevision {
                        workspace,
                        subject: ConfigSubject::Everything,
                        revision: Some(self.snapshot.revision()),
                    });
                }
                self.change.changes.push(ConfigRowChange::Delete { workspace, subject });
                Ok(None)
            }
            Write::Connection(document) => {
                let stored = self
                    .snapshot
                    .connection_row(workspace, &document.name)
                    .map(|(_, row)| row);
                let id = stored.map_or_else(|| ConnectionId::from_raw(self.core.new_id(now)), |row| row.id);
                let credential = match &document.credential {
                    Some(value) => Some(self.core.seal(&RowIdentity::connection(workspace, id), value)?),
                    None => stored.and_then(|row| row.credential.clone()),
                };
                self.connections.push((document.name.clone(), id));
                self.expect_version(&document.connector, false);
                self.change.changes.push(ConfigRowChange::PutConnection(ConnectionRow {
                    id,
                    workspace,
                    name: document.name,
                    connector: document.connector,
                    config: document.config.to_string(),
                    credential,
                    revision: 0,
                    created_at: now,
                    updated_at: now,
                }));
                Ok(Some(id.to_string()))
            }
            Write::Endpoint { document, connector } => {
                let stored = self
                    .snapshot
                    .endpoints(workspace)
                    .find(|endpoint| endpoint.name() == document.name);
                let id = stored.map_or_else(|| EndpointId::from_raw(self.core.new_id(now)), |endpoint| endpoint.id());
                let secrets = match &document.secrets {
                    Some(list) => Some(self.core.seal(&RowIdentity::endpoint(workspace, id), &json!(list))?),
                    None => stored.and_then(|endpoint| endpoint.sealed_secrets()),
                };
                self.expect_version(&connector, false);
                let connection = document.connection.as_ref().and_then(|name| {
                    let new = self
                        .connections
                        .iter()
                        .find(|(known, _)| known == name)
                        .map(|(_, id)| *id);
                    new.or_else(|| self.snapshot.connection_row(workspace, name).map(|(_, row)| row.id))
                });
                self.change.changes.push(ConfigRowChange::PutEndpoint(EndpointRow {
                    id,
                    workspace,
                    name: document.name,
                    connector,
                    connection,
                    verify: document.verify.map(|value| value.to_string()),
                    allow: json!(document.allow).to_string(),
                    context: (!document.context.is_empty()).then(|| json!(document.context).to_string()),
                    sweep: document.intake.stored(),
                    secrets,
                    revision: 0,
                    created_at: now,
                    updated_at: now,
                }));
                Ok(Some(id.to_string()))
            }
            Write::Publish { document, resolution } => {
                self.expect_pins(&resolution);
                let resolution =
                    serde_json::to_string(&resolution).map_err(|error| ApplyError::Unavailable(error.to_string()))?;
                Ok(Some(self.put_version(
                    change,
                    &document.name,
                    &document.definition,
                    resolution,
                    VersionState::Published,
                )))
            }
            Write::Restore { document, resolution } => {
                self.expect_pins(&resolution);
                let resolution =
                    serde_json::to_string(&resolution).map_err(|error| ApplyError::Unavailable(error.to_string()))?;
                let id = self.put_version(
                    change,
                    &document.name,
                    &document.definition,
                    resolution,
                    VersionState::Published,
                );
                self.keep_draft(&document.name);
                Ok(Some(id))
            }
            Write::Discard => {
                self.discard_draft(&change.name);
                Ok(None)
            }
            Write::Draft(document) => Ok(Some(self.put_version(
                change,
                &document.name,
                &document.definition,
                "null".to_owned(),
                VersionState::Draft,
            ))),
        }
    }

    /// Puts the draft behind the version that has just taken its number: published numbers only rise.
    fn keep_draft(&mut self, name: &str) {
        let (workspace, now) = (self.workspace, self.now);
        let Some(workflow) = self.snapshot.workflow(workspace, name) else {
            return;
        };
        let Some((number, definition)) = &workflow.draft else {
            return;
        };
        let id = VersionId::from_raw(self.core.new_id(now));
        for change in &mut self.change.changes {
            if let ConfigRowChange::PutWorkflow(row) = change
                && row.id == workflow.row.id
            {
                row.draft_version = Some(id);
            }
        }
        let text = definition.to_string();
        self.change
            .changes
            .push(ConfigRowChange::PutVersion(WorkflowVersionRow {
                id,
                workspace,
                workflow: workflow.row.id,
                number: number + 1,
                state: VersionState::Draft,
                checksum: hex::encode(Sha256::digest(text.as_bytes())),
                definition: text,
                resolution: "null".to_owned(),
                created_at: now,
            }));
    }

    fn discard_draft(&mut self, name: &str) {
        let workspace = self.workspace;
        let Some(workflow) = self.snapshot.workflow(workspace, name) else {
            return;
        };
        let gone = match workflow.row.published_version {
            Some(_) => ConfigRowChange::PutWorkflow(WorkflowRow {
                draft_version: None,
                updated_at: self.now,
                ..workflow.row.clone()
            }),
            None => ConfigRowChange::Delete {
                workspace,
                subject: ConfigSubject::Workflow(workflow.row.id),
            },
        };
        self.change.changes.push(gone);
        if let Some(draft) = workflow.row.draft_version {
            let subject = ConfigSubject::Draft(draft);
            self.change.changes.push(ConfigRowChange::Delete { workspace, subject });
        }
    }

    /// A published version is new each time; a draft is written over until it is published.
    fn put_version(
        &mut self,
        _change: &Change,
        name: &str,
        definition: &Value,
        resolution: String,
        state: VersionState,
    ) -> String {
        let (workspace, now) = (self.workspace, self.now);
        let stored = self.snapshot.workflow(workspace, name);
        let workflow = stored.map_or_else(
            || WorkflowId::from_raw(self.core.new_id(now)),
            |workflow| workflow.row.id,
        );
        let draft = stored.and_then(|workflow| Some((workflow.row.draft_version?, workflow.draft.as_ref()?.0)));
        let (id, number) = match draft {
            Some(draft) => draft,
            None => (
                VersionId::from_raw(self.core.new_id(now)),
                stored.map_or(1, |workflow| workflow.last_number() + 1),
            ),
        };
        if state == VersionState::Published
            && let Ok(parsed) = Definition::parse(definition)
        {
            let add = |correlation: Correlation| {
                ConfigRowChange::AddCorrelation(CorrelationRow {
                    workspace,
                    connector: correlation.connector,
                    kind: correlation.kind,
                    key: correlation.key,
                })
            };
            self.change.changes.extend(parsed.correlations().into_iter().map(add));
        }
        let text = definition.to_string();
        let checksum = hex::encode(Sha256::digest(text.as_bytes()));
        // The workflow stands first: a version belongs to it.
        self.change.changes.push(ConfigRowChange::PutWorkflow(WorkflowRow {
            id: workflow,
            workspace,
            name: name.to_owned(),
            state: stored.map(|workflow| workflow.row.state).unwrap_or_default(),
            published_version: if state == VersionState::Published {
                Some(id)
            } else {
                stored.and_then(|workflow| workflow.row.published_version)
            },
            draft_version: (state == VersionState::Draft).then_some(id),
            revision: 0,
            created_at: now,
            updated_at: now,
        }));
        self.change
            .changes
            .push(ConfigRowChange::PutVersion(WorkflowVersionRow {
                id,
                workspace,
                workflow,
                number,
                state,
                definition: text,
                resolution,
                checksum,
                created_at: now,
            }));
        if state == VersionState::Published {
            self.put_schedule(workflow, stored.map(|stored| &**stored), definition);
        }
        workflow.to_string()
    }

    /// New times hold from now on: nothing that they would have fired in the past is fired. A version with the same
    /// times goes on where the one before it stands.
    fn put_schedule(&mut self, workflow: WorkflowId, stored: Option<&Workflow>, definition: &Value) {
        let times = |trigger: &Trigger| match trigger {
            Trigger::Schedule(schedule) => Some(schedule.times()),
            Trigger::Event { .. } | Trigger::Manual { .. } => None,
        };
        let new = Definition::parse(definition)
            .ok()
            .and_then(|definition| times(definition.trigger()));
        let old = stored
            .filter(|_| self.snapshot.schedule_row(workflow).is_some())
            .and_then(|stored| times(stored.published.as_ref()?.plan.trigger()));
        if new.is_none() || new == old {
            return;
        }
        self.change.changes.push(ConfigRowChange::PutSchedule(ScheduleRow {
            workflow,
            workspace: self.workspace,
            begins_at: self.now,
            fired_for: None,
        }));
    }
}
