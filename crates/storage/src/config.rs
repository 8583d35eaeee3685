//! The configuration: its rows, and the one way to change them.
//!
//! A change is a batch: every row of it, the check of the revisions it was made against, and its audit entry go
//! into one transaction, which raises the revision of the whole configuration. Secrets come here sealed
//! ([`SecretBox`](crate::SecretBox)) and tokens hashed; this module never sees either in clear.

use crate::grant::{DroppedGrant, GrantedAccount, NewGrant};
use crate::registration::RegistrationRow;
use weir_workflow_engine::{ConnectionId, EndpointId, Timestamp, TokenId, VersionId, WorkflowId, WorkspaceId};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceRow {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name, unique.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One account at a provider.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionRow {
    /// Its id.
    pub id: ConnectionId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Its name, unique in the workspace.
    pub name: String,
    /// Name of its connector.
    pub connector: String,
    /// Settings, a JSON object.
    pub config: String,
    /// The credential, sealed for the row ([`RowIdentity::connection`](crate::RowIdentity::connection)).
    pub credential: Option<Vec<u8>>,
    /// Counted by storage, from 1; ignored in a change.
    pub revision: i64,
    /// When it was made; kept when the row exists.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// An ingest URL with its verification.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointRow {
    /// Its id.
    pub id: EndpointId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Its name, unique in the workspace.
    pub name: String,
    /// Name of its connector.
    pub connector: String,
    /// Its fixed connection.
    pub connection: Option<ConnectionId>,
    /// What replaces the connector's verification, JSON.
    pub verify: Option<String>,
    /// The networks that may send, a JSON list.
    pub allow: String,
    /// What it knows of its registration at the provider, a JSON object of names and values.
    pub context: Option<String>,
    /// How it is swept and whether it takes webhooks, JSON; `None`: as its connector says.
    pub sweep: Option<String>,
    /// The list of secrets, sealed for the row ([`RowIdentity::endpoint`](crate::RowIdentity::endpoint)).
    pub secrets: Option<Vec<u8>>,
    /// Counted by storage, from 1; ignored in a change.
    pub revision: i64,
    /// When it was made; kept when the row exists.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Whether the runs of a workflow begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkflowState {
    /// They do.
    #[default]
    Active,
    /// They are accepted and wait until it is resumed.
    Paused,
    /// It was resumed, and those that waited are let through; whoever comes waits behind them.
    Resuming,
}

/// A workflow over all its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowRow {
    /// Its id.
    pub id: WorkflowId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Its name, unique in the workspace.
    pub name: String,
    /// Whether its runs begin.
    pub state: WorkflowState,
    /// The version that takes events.
    pub published_version: Option<VersionId>,
    /// The version being worked on.
    pub draft_version: Option<VersionId>,
    /// Counted by storage, from 1; ignored in a change.
    pub revision: i64,
    /// When it was made; kept when the row exists.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Whether a version may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// It may.
    Draft,
    /// It never changes again.
    Published,
}

/// One version of a workflow. A published one is never written again: a change of it is refused as taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowVersionRow {
    /// Its id.
    pub id: VersionId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Its workflow.
    pub workflow: WorkflowId,
    /// Counted from 1 in the workflow.
    pub number: u32,
    /// Draft or published.
    pub state: VersionState,
    /// The document, JSON.
    pub definition: String,
    /// What publishing froze, JSON.
    pub resolution: String,
    /// Checksum of the document.
    pub checksum: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Where the schedule of a workflow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleRow {
    /// Its workflow.
    pub workflow: WorkflowId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Since when these times hold: no instant before it, nor itself, fires.
    pub begins_at: Timestamp,
    /// The planned instant that fired last. Written by [`Accepted::fires`](crate::Accepted::fires) alone; ignored in a
    /// change.
    pub fired_for: Option<Timestamp>,
}

/// One version of a connector that a workspace published. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorManifestRow {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The connector's name.
    pub name: String,
    /// Its version; unique together with the name.
    pub version: String,
    /// The document with the manifest and the files that it names, as JSON.
    pub document: String,
    /// When it was published.
    pub created_at: Timestamp,
}

/// A token of the API.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiTokenRow {
    /// Its id.
    pub id: TokenId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// What people call it.
    pub name: String,
    /// SHA-256 of the token ([`token_hash`]): the token has 256 random bits, so nothing slower is needed.
    pub hash: [u8; 32],
    /// What it may do, a JSON list.
    pub scopes: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

macro_rules! debug_without_secrets {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.debug_struct(stringify!($name)).field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
            }
        }
    )*};
}
debug_without_secrets!(ConnectionRow, EndpointRow, ApiTokenRow);

/// The form in which a token of the API is kept and looked up.
pub fn token_hash(token: &str) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(token.as_bytes()).into()
}

/// An expression that is computed of every arriving event of a type, because steps wait for such events by its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CorrelationRow {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Name of the connector.
    pub connector: String,
    /// The event type.
    pub kind: String,
    /// The expression.
    pub key: String,
}

/// One entry of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// A raw id of the id generator: entries are listed by it.
    pub id: i64,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// When.
    pub at: Timestamp,
    /// Who: `token:tok_…`, `bootstrap`, `system`.
    pub actor: String,
    /// What, a stable name such as `connection.update`.
    pub action: String,
    /// On what: a public id or a name.
    pub subject: String,
    /// From where.
    pub client_ip: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
    /// What changed, a JSON object without secrets.
    pub detail: String,
}

/// A change of one row.
#[derive(Clone, Debug)]
pub enum ConfigRowChange {
    /// Makes or replaces a workspace.
    PutWorkspace(WorkspaceRow),
    /// Makes or replaces a connection.
    PutConnection(ConnectionRow),
    /// Makes or replaces an endpoint.
    PutEndpoint(EndpointRow),
    /// Makes or replaces a workflow.
    PutWorkflow(WorkflowRow),
    /// Makes a version, or replaces a draft.
    PutVersion(WorkflowVersionRow),
    /// Begins the times of a workflow's schedule anew; what it fired before is forgotten.
    PutSchedule(ScheduleRow),
    /// Makes a version of a connector. Refused when it is there.
    PutManifest(ConnectorManifestRow),
    /// Has an expression computed of arriving events from now on, if it is not already.
    AddCorrelation(CorrelationRow),
    /// A person let us in. Refused when the connection is not there.
    PutGrant(NewGrant),
    /// The tokens of a connection are forgotten. Refused when it never had any.
    DropGrant(DroppedGrant),
    /// Makes a token. Tokens do not change.
    PutToken(ApiTokenRow),
    /// Deletes what `subject` names, if it is there. Versions stay as long as runs may be pinned to them.
    Delete {
        /// The tenant.
        workspace: WorkspaceId,
        /// What to delete.
        subject: ConfigSubject,
    },
}

/// Names one row of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConfigSubject {
    /// A connection.
    Connection(ConnectionId),
    /// An endpoint.
    Endpoint(EndpointId),
    /// A workflow.
    Workflow(WorkflowId),
    /// A published version of a connector; it has no revision.
    Manifest {
        /// The connector's name.
        name: String,
        /// Its version.
        version: String,
    },
    /// A token; it has no revision.
    Token(TokenId),
    /// A version that was never published; it has no revision.
    Draft(VersionId),
    /// The whole configuration.
    Everything,
}

/// The revision a change was made against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedRevision {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// What was looked at.
    pub subject: ConfigSubject,
    /// What was seen; `None` = it was not there.
    pub revision: Option<i64>,
}

/// A change of the configuration, all or nothing.
#[derive(Clone, Debug, Default)]
pub struct ConfigChange {
    /// The rows, written in this order.
    pub changes: Vec<ConfigRowChange>,
    /// What must still be true; checked first. The first that is not is reported as
    /// [`ConfigOutcome::Conflict`](crate::ConfigOutcome::Conflict).
    pub expected: Vec<ExpectedRevision>,
    /// Entries of the audit trail, written with the change.
    pub audit: Vec<AuditEntry>,
}

/// The whole configuration at one revision.
#[derive(Clone, Debug, Default)]
pub struct ConfigRows {
    /// The revision.
    pub revision: i64,
    /// All workspaces.
    pub workspaces: Vec<WorkspaceRow>,
    /// All connections.
    pub connections: Vec<ConnectionRow>,
    /// All endpoints.
    pub endpoints: Vec<EndpointRow>,
    /// All workflows.
    pub workflows: Vec<WorkflowRow>,
    /// The versions that are published or drafts of the workflows now; older ones by
    /// [`Store::version_load`](crate::Store::version_load).
    pub versions: Vec<WorkflowVersionRow>,
    /// Where the schedules stand.
    pub schedules: Vec<ScheduleRow>,
    /// All published versions of connectors.
    pub manifests: Vec<ConnectorManifestRow>,
    /// The accounts that connections were granted.
    pub grants: Vec<GrantedAccount>,
    /// Webhooks at providers, also of endpoints that are gone.
    pub registrations: Vec<RegistrationRow>,
    /// All tokens.
    pub tokens: Vec<ApiTokenRow>,
    /// Every expression that is computed of arriving events.
    pub correlations: Vec<CorrelationRow>,
}
