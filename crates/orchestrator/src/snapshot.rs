//! The configuration as the hot path sees it: immutable, compiled, secrets opened, replaced as a whole.
//!
//! A snapshot is made from the rows of one revision. What did not change is carried over from the one before, so
//! that tokens and connection pools survive a change elsewhere.

mod endpoint;
mod events;
mod open;

pub use endpoint::Endpoint;

pub(crate) use open::open_json;

use crate::configure::catalogue::effect_class;
use crate::configure::nearest;
use crate::connection::Connection;
use crate::ingest::EndpointRef;
use crate::published::{Connectors, name_and_version};
use crate::registry::Registry;
use open::{open_connection, open_endpoint, open_workflow};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use weir_storage::{
    ApiTokenRow, ConfigRows, ConnectionRow, GrantState, GrantedAccount, ReadError, RegistrationRow, ScheduleRow,
    SecretBox, Store, WorkflowRow, WorkflowVersionRow,
};
use weir_workflow_engine::{
    ConnectionId, Correlator, Definition, EffectClass, EndpointId, Environment, Plan, Resolution, Timestamp, Trigger,
    VersionId, WorkflowId, WorkspaceId,
};

/// Why the stored configuration cannot be used. Names rows, never secrets.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The database did not answer, or a row cannot be read.
    #[error("cannot read the configuration")]
    Read(#[from] ReadError),
    /// A sealed value does not open.
    #[error("cannot open the secrets of {row}")]
    Secret {
        /// Kind and name.
        row: String,
        /// Why.
        #[source]
        source: weir_storage::KeyError,
    },
    /// A row was written by a later release.
    #[error("{row} was written by a later release of weir: {reason}")]
    Newer {
        /// Kind and name.
        row: String,
        /// Why.
        reason: String,
    },
    /// A row holds something that no release wrote.
    #[error("{row} cannot be used: {reason}")]
    Corrupt {
        /// Kind and name.
        row: String,
        /// Why.
        reason: String,
    },
}

/// One version of a workflow, compiled.
#[derive(Debug)]
pub struct Version {
    /// Its id.
    pub id: VersionId,
    /// Its workflow.
    pub workflow: WorkflowId,
    /// Counted from 1 in the workflow.
    pub number: u32,
    /// The document without `kind`.
    pub definition: Value,
    /// What the engine runs.
    pub plan: Plan,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Version {
    pub(crate) fn compile(row: &WorkflowVersionRow) -> Result<Version, SnapshotError> {
        let corrupt = |reason: String| SnapshotError::Corrupt {
            row: format!("workflow version {}", row.id),
            reason,
        };
        let definition: Value = serde_json::from_str(&row.definition).map_err(|error| corrupt(error.to_string()))?;
        let resolution: Resolution =
            serde_json::from_str(&row.resolution).map_err(|error| corrupt(error.to_string()))?;
        let first = |problems: Vec<weir_workflow_engine::Problem>| {
            corrupt(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        };
        let parsed = Definition::parse(&definition).map_err(first)?;
        let plan = Plan::compile(&parsed, &resolution).map_err(first)?;
        Ok(Version {
            id: row.id,
            workflow: row.workflow,
            number: row.number,
            definition,
            plan,
            created_at: row.created_at,
        })
    }
}

/// A workflow with the version that takes events and the one being worked on.
#[derive(Debug)]
pub struct Workflow {
    /// Its row.
    pub row: WorkflowRow,
    /// The version that takes events.
    pub published: Option<Arc<Version>>,
    /// The draft: number and document, not compiled since it may not be right yet.
    pub draft: Option<(u32, Value)>,
}

impl Workflow {
    /// The highest number given to a version so far, 0 when there is none.
    pub(crate) fn last_number(&self) -> u32 {
        let published = self.published.as_ref().map_or(0, |version| version.number);
        self.draft
            .as_ref()
            .map_or(published, |(number, _)| published.max(*number))
    }
}

/// The configuration of all workspaces at one revision.
#[derive(Debug)]
pub struct Snapshot {
    revision: i64,
    workspaces: BTreeMap<String, WorkspaceId>,
    endpoints: HashMap<EndpointId, Arc<Endpoint>>,
    /// Webhooks at providers, also of endpoints that are gone.
    registrations: HashMap<EndpointId, RegistrationRow>,
    /// What is there and cannot be used, for its connector is missing.
    unusable: Unusable,
    tenants: HashMap<WorkspaceId, Tenant>,
    schedules: HashMap<WorkflowId, ScheduleRow>,
    tokens: HashMap<[u8; 32], ApiTokenRow>,
    /// For workspaces that are not known.
    of_process: Connectors,
    /// Connections as runs see them that are pinned to another version of their connector.
    siblings: Mutex<Siblings>,
    /// Versions that open runs are pinned to though a newer one is published.
    pinned: Mutex<HashMap<VersionId, Arc<Version>>>,
}

/// The event type that stands for every type of a connector.
const ANY_TYPE: &str = "*";
/// Most compiled old versions kept for runs that are pinned to them.
const MAX_PINNED_VERSIONS: usize = 256;

/// By connection, its revision, and the version of the connector.
type Siblings = HashMap<(ConnectionId, i64, String), Arc<Connection>>;

/// A workflow that takes an event, with its published version.
type Listener = (Arc<Workflow>, Arc<Version>);

#[derive(Debug, Default)]
struct Unusable {
    endpoints: HashSet<EndpointId>,
    connections: HashSet<ConnectionId>,
}

#[derive(Debug, Default)]
struct Tenant {
    endpoints: BTreeMap<String, Arc<Endpoint>>,
    connections: BTreeMap<String, (Arc<Connection>, ConnectionRow)>,
    workflows: BTreeMap<String, Arc<Workflow>>,
    /// By connector and event type.
    listeners: HashMap<String, HashMap<String, Vec<Listener>>>,
    connectors: Connectors,
    /// What is computed of arriving events, by connector and event type.
    correlations: HashMap<String, HashMap<String, Vec<(String, Correlator)>>>,
}

impl Tenant {
    fn of(process: &Registry) -> Self {
        Tenant {
            connectors: Connectors::of_process(process),
            ..Tenant::default()
        }
    }
}

impl Snapshot {
    /// Reads and compiles the configuration.
    ///
    /// # Errors
    /// See [`SnapshotError`]. A connector that is gone makes its connections and endpoints unusable, not the start: they
    /// are left out with a warning, and their webhooks get 404 until the manifest is back.
    pub(crate) async fn load(
        store: &Store,
        secrets: &SecretBox,
        registry: &Registry,
        before: Option<&Snapshot>,
    ) -> Result<Snapshot, SnapshotError> {
        let rows = store.config_load().await?;
        let able: HashSet<ConnectionId> = rows
            .grants
            .iter()
            .filter(|granted| granted.state != GrantState::NeedsReauth)
            .map(|granted| granted.connection)
            .collect();
        let snapshot = Self::build(rows, secrets, registry, before)?;
        let all = snapshot.tenants.values().flat_map(|tenant| tenant.connections.values());
        let needing = all.filter(|(connection, _)| connection.is_granted() && !able.contains(&connection.id));
        crate::grants::show_needing(needing.count());
        Ok(snapshot)
    }

    pub(crate) fn build(
        rows: ConfigRows,
        secrets: &SecretBox,
        registry: &Registry,
        before: Option<&Snapshot>,
    ) -> Result<Snapshot, SnapshotError> {
        let mut tenants: HashMap<WorkspaceId, Tenant> = rows
            .workspaces
            .iter()
            .map(|row| (row.id, Tenant::of(registry)))
            .collect();
        for row in &rows.manifests {
            if let Some(tenant) = tenants.get_mut(&row.workspace) {
                tenant
                    .connectors
                    .load(row, before.map(|before| before.connectors(row.workspace)));
            }
        }
        let of_process = Connectors::of_process(registry);
        let mut unusable = Unusable::default();
        let mut connection_names: HashMap<ConnectionId, String> = HashMap::new();
        let mut pins: HashMap<ConnectionId, String> = HashMap::new();
        let granted: HashMap<ConnectionId, GrantedAccount> = rows
            .grants
            .into_iter()
            .map(|granted| (granted.connection, granted))
            .collect();
        for row in rows.connections {
            connection_names.insert(row.id, row.name.clone());
            pins.insert(row.id, row.connector.clone());
            let connectors = tenants
                .get(&row.workspace)
                .map_or(&of_process, |tenant| &tenant.connectors);
            let Some(connector) = connectors.get(&row.connector).cloned() else {
                unusable.connections.insert(row.id);
                tracing::warn!(connection.name = %row.name, "connection `{}` is not usable: there is no connector `{}`", row.name, row.connector);
                continue;
            };
            let kept = before
                .and_then(|before| before.connection_row(row.workspace, &row.name))
                .filter(|(_, old)| old.id == row.id && old.revision == row.revision)
                .filter(|(old, _)| old.is_at(granted.get(&row.id)));
            let connection = match kept {
                Some((connection, _)) => Arc::clone(connection),
                None => Arc::new(open_connection(&row, &connector, secrets, granted.get(&row.id))?),
            };
            if let Some(tenant) = tenants.get_mut(&row.workspace) {
                tenant.connections.insert(row.name.clone(), (connection, row));
            }
        }
        let registrations: HashMap<EndpointId, RegistrationRow> =
            rows.registrations.into_iter().map(|row| (row.endpoint, row)).collect();
        let mut endpoints = HashMap::new();
        for row in rows.endpoints {
            let connectors = tenants
                .get(&row.workspace)
                .map_or(&of_process, |tenant| &tenant.connectors);
            // What arrives for a connection is read as the connection's version says.
            let followed = row.connection.and_then(|id| pins.get(&id)).unwrap_or(&row.connector);
            let Some(connector) = connectors.get(followed).cloned() else {
                unusable.endpoints.insert(row.id);
                tracing::warn!(endpoint.name = %row.name, "endpoint `{}` is not usable: there is no connector `{}`", row.name, row.connector);
                continue;
            };
            let registration = registrations
                .get(&row.id)
                .filter(|registration| registration.workspace == row.workspace);
            let endpoint = Arc::new(open_endpoint(
                row,
                &connector,
                &connection_names,
                secrets,
                registration,
            )?);
            if let Some(tenant) = tenants.get_mut(&endpoint.workspace()) {
                tenant
                    .endpoints
                    .insert(endpoint.name().to_owned(), Arc::clone(&endpoint));
            }
            endpoints.insert(endpoint.id(), endpoint);
        }
        for row in rows.correlations {
            let correlator = Correlator::parse(&row.key).map_err(|problem| SnapshotError::Corrupt {
                row: format!("the correlation {:?}", row.key),
                reason: problem.to_string(),
            })?;
            if let Some(tenant) = tenants.get_mut(&row.workspace) {
                let kinds = tenant.correlations.entry(row.connector).or_default();
                kinds.entry(row.kind).or_default().push((row.key, correlator));
            }
        }
        let versions: HashMap<VersionId, WorkflowVersionRow> =
            rows.versions.into_iter().map(|row| (row.id, row)).collect();
        for row in rows.workflows {
            let workflow = Arc::new(open_workflow(row, &versions, before)?);
            let Some(tenant) = tenants.get_mut(&workflow.row.workspace) else {
                continue;
            };
            // A paused one takes its events too: their runs wait.
            if let Some(version) = &workflow.published
                && let Trigger::Event { event, .. } = version.plan.trigger()
                && let Some((connector, kind)) = event.split_once('.')
            {
                let kinds = tenant.listeners.entry(connector.to_owned()).or_default();
                kinds
                    .entry(kind.to_owned())
                    .or_default()
                    .push((Arc::clone(&workflow), Arc::clone(version)));
            }
            tenant.workflows.insert(workflow.row.name.clone(), workflow);
        }
        let pinned = before
            .map(|before| before.pinned.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .unwrap_or_default();
        let siblings = before.map(|before| before.siblings.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let mut siblings: Siblings = siblings.unwrap_or_default();
        let is_current = |id: ConnectionId, revision: i64, sibling: &Connection| {
            let mut all = tenants.values().flat_map(|tenant| tenant.connections.values());
            all.any(|(_, row)| (row.id, row.revision) == (id, revision) && sibling.is_at(granted.get(&id)))
        };
        siblings.retain(|(id, revision, _), sibling| is_current(*id, *revision, sibling));
        Ok(Snapshot {
            revision: rows.revision,
            workspaces: rows.workspaces.into_iter().map(|row| (row.name, row.id)).collect(),
            endpoints,
            registrations,
            unusable,
            tenants,
            schedules: rows.schedules.into_iter().map(|row| (row.workflow, row)).collect(),
            tokens: rows.tokens.into_iter().map(|row| (row.hash, row)).collect(),
            of_process,
            pinned: Mutex::new(pinned),
            siblings: Mutex::new(siblings),
        })
    }

    /// Revision of the whole configuration.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The connectors of a workspace: those that it published, and those of the process.
    #[must_use]
    pub fn connectors(&self, workspace: WorkspaceId) -> &Connectors {
        self.tenants
            .get(&workspace)
            .map_or(&self.of_process, |tenant| &tenant.connectors)
    }

    /// The workspace with this name.
    #[must_use]
    pub fn workspace(&self, name: &str) -> Option<WorkspaceId> {
        self.workspaces.get(name).copied()
    }

    /// The name of a workspace.
    #[must_use]
    pub fn workspace_name(&self, workspace: WorkspaceId) -> Option<&str> {
        self.workspaces
            .iter()
            .find(|(_, id)| **id == workspace)
            .map(|(name, _)| name.as_str())
    }

    /// The endpoint that a URL names.
    #[must_use]
    pub fn endpoint(&self, reference: &EndpointRef<'_>) -> Option<&Arc<Endpoint>> {
        match reference {
            EndpointRef::Id(id) => self.endpoints.get(id),
            EndpointRef::Name { workspace, name } => {
                self.tenants.get(self.workspaces.get(*workspace)?)?.endpoints.get(*name)
            }
        }
    }

    /// The endpoints of all workspaces, in no order.
    pub(crate) fn all_endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.values()
    }

    /// The webhooks that were made at providers, of all workspaces, also of endpoints that are gone.
    pub(crate) fn registrations(&self) -> impl Iterator<Item = &RegistrationRow> {
        self.registrations.values()
    }

    /// Whether an endpoint is there and cannot be used, for its connector is missing.
    pub(crate) fn has_unusable_endpoint(&self, id: EndpointId) -> bool {
        self.unusable.endpoints.contains(&id)
    }

    /// The same for a connection.
    pub(crate) fn has_unusable_connection(&self, id: ConnectionId) -> bool {
        self.unusable.connections.contains(&id)
    }

    /// All endpoints of a workspace by name.
    pub fn endpoints(&self, workspace: WorkspaceId) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.tenants
            .get(&workspace)
            .into_iter()
            .flat_map(|tenant| tenant.endpoints.values())
    }

    /// All connections of a workspace by name, each with its row.
    pub fn connections(&self, workspace: WorkspaceId) -> impl Iterator<Item = (&Arc<Connection>, &ConnectionRow)> {
        self.tenants
            .get(&workspace)
            .into_iter()
            .flat_map(|tenant| tenant.connections.values())
            .map(|(connection, row)| (connection, row))
    }

    /// A connection by name.
    #[must_use]
    pub fn connection(&self, workspace: WorkspaceId, name: &str) -> Option<&Arc<Connection>> {
        self.connection_row(workspace, name).map(|(connection, _)| connection)
    }

    /// A connection by name with its row.
    #[must_use]
    pub fn connection_row(&self, workspace: WorkspaceId, name: &str) -> Option<(&Arc<Connection>, &ConnectionRow)> {
        self.tenants
            .get(&workspace)?
            .connections
            .get(name)
            .map(|(connection, row)| (connection, row))
    }

    /// A connection as runs of a version of a workflow see it: with the version of its connector that was in force when
    /// the workflow was published. `None`: there is no such connection, or that version is gone.
    pub(crate) fn connection_of(
        &self,
        workspace: WorkspaceId,
        name: &str,
        pins: &BTreeMap<String, String>,
    ) -> Option<Arc<Connection>> {
        let (connection, row) = self.connection_row(workspace, name)?;
        let Some(pin) = pins.get(name).filter(|pin| **pin != row.connector) else {
            return Some(Arc::clone(connection));
        };
        if name_and_version(pin).0 != connection.connector.name() {
            // The connection was deleted, and another one has its name.
            return Some(Arc::clone(connection));
        }
        let connector = self.connectors(workspace).get(pin)?;
        let mut siblings = self.siblings.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (row.id, row.revision, pin.clone());
        let sibling = siblings.entry(key).or_insert_with(|| {
            let sibling = Connection::new(
                row.id,
                workspace,
                connection.name.clone(),
                Arc::clone(connector),
                connection.own_config(),
                connection.credential.clone(),
                None,
            );
            Arc::new(sibling.at_account(connection.account.clone(), connection.instance_url.clone()))
        });
        Some(Arc::clone(sibling))
    }

    /// What expressions see of a connection: never its credential.
    #[must_use]
    pub fn connection_scope(&self, workspace: WorkspaceId, name: &str) -> Option<Value> {
        let connection = self.connection(workspace, name)?;
        Some(
            json!({ "name": connection.name, "connector": connection.connector.name(), "account": connection.account, "config": connection.config }),
        )
    }

    /// All workflows of a workspace by name.
    pub fn workflows(&self, workspace: WorkspaceId) -> impl Iterator<Item = &Arc<Workflow>> {
        self.tenants
            .get(&workspace)
            .into_iter()
            .flat_map(|tenant| tenant.workflows.values())
    }

    /// A workflow by name.
    #[must_use]
    pub fn workflow(&self, workspace: WorkspaceId, name: &str) -> Option<&Arc<Workflow>> {
        self.tenants.get(&workspace)?.workflows.get(name)
    }

    /// `did you mean …` for the workflow whose name is nearest to `name`, if one is near.
    #[must_use]
    pub fn near_workflow(&self, workspace: WorkspaceId, name: &str) -> Option<String> {
        nearest(
            name,
            self.workflows(workspace).map(|workflow| workflow.row.name.as_str()),
        )
    }

    /// A workflow by id.
    #[must_use]
    pub fn workflow_by_id(&self, workspace: WorkspaceId, id: WorkflowId) -> Option<&Arc<Workflow>> {
        self.workflows(workspace).find(|workflow| workflow.row.id == id)
    }

    /// A token of the API by its hash.
    #[must_use]
    pub fn token(&self, hash: &[u8; 32]) -> Option<&ApiTokenRow> {
        self.tokens.get(hash)
    }

    /// All tokens of a workspace.
    pub fn tokens(&self, workspace: WorkspaceId) -> impl Iterator<Item = &ApiTokenRow> {
        self.tokens.values().filter(move |row| row.workspace == workspace)
    }

    /// For runs of this plan.
    pub(crate) fn surroundings<'a>(&'a self, workspace: WorkspaceId, plan: &'a Plan) -> Surroundings<'a> {
        Surroundings {
            snapshot: self,
            workspace,
            pins: &plan.resolution().pins,
        }
    }

    /// The compiled version a run is pinned to.
    pub(crate) async fn version(
        &self,
        store: &Store,
        workspace: WorkspaceId,
        workflow: WorkflowId,
        id: VersionId,
    ) -> Result<Arc<Version>, SnapshotError> {
        if let Some(published) = self
            .workflow_by_id(workspace, workflow)
            .and_then(|workflow| workflow.published.as_ref())
            .filter(|version| version.id == id)
        {
            return Ok(Arc::clone(published));
        }
        if let Some(found) = self.pinned.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(found));
        }
        let row = store.version_load(workspace, id).await?;
        let row = row.ok_or_else(|| SnapshotError::Corrupt {
            row: format!("workflow version {id}"),
            reason: "it is not there".to_owned(),
        })?;
        let version = Arc::new(Version::compile(&row)?);
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if pinned.len() >= MAX_PINNED_VERSIONS {
            pinned.clear();
        }
        pinned.insert(id, Arc::clone(&version));
        Ok(version)
    }
}

/// What the engine may ask about connections while it decides.
pub(crate) struct Surroundings<'a> {
    snapshot: &'a Snapshot,
    workspace: WorkspaceId,
    pins: &'a BTreeMap<String, String>,
}

impl Environment for Surroundings<'_> {
    fn effect_class(&self, connection: &str, operation: &str, args: &Value) -> EffectClass {
        match self.snapshot.connection_of(self.workspace, connection, self.pins) {
            Some(connection) => effect_class(&connection.connector, operation, &connection.config, args),
            // Nothing is known of it, so nothing may be taken for granted.
            None => EffectClass::Blind,
        }
    }

    fn connection(&self, name: &str) -> Option<Value> {
        self.snapshot.connection_scope(self.workspace, name)
    }
}
