//! Changes of the configuration as statements. The texts are the same on both databases.
//!
//! Runs inside a transaction of its own. The row of `config_state` is raised first, so that two changes on two
//! nodes follow each other, and what is checked stays true until the commit.

use weir_workflow_engine::{Timestamp, WorkspaceId};

use super::connection::{Connection, Value};
use super::failure::Failure;
use super::grant;
use crate::codes::{version_state_code, workflow_state_code};
use crate::config::{AuditEntry, ConfigChange, ConfigRowChange, ConfigSubject, ExpectedRevision};
use crate::outcome::ConfigOutcome;

fn time(value: Timestamp) -> Value {
    value.as_unix_ms().into()
}

fn text(value: &str) -> Value {
    value.into()
}

/// `Conflict` means that the transaction must be rolled back.
pub(crate) async fn apply(connection: &mut Connection, change: &ConfigChange) -> Result<ConfigOutcome, Failure> {
    let raised = connection
        .numbers(
            "UPDATE config_state SET revision = revision + 1 WHERE id = 1 RETURNING revision",
            Vec::new(),
            false,
        )
        .await?;
    let revision = raised.iter().flatten().copied().flatten().next().unwrap_or(0);
    for expected in &change.expected {
        let current = revision_of(connection, expected, revision - 1).await?;
        if current != expected.revision {
            return Ok(ConfigOutcome::Conflict {
                subject: expected.subject.clone(),
                current,
            });
        }
    }
    for row in &change.changes {
        write(connection, row).await?;
    }
    for entry in &change.audit {
        audit(connection, entry).await?;
    }
    Ok(ConfigOutcome::Applied { revision })
}

async fn revision_of(
    connection: &mut Connection,
    expected: &ExpectedRevision,
    everything: i64,
) -> Result<Option<i64>, Failure> {
    let workspace = expected.workspace.as_raw().into();
    if let ConfigSubject::Manifest { name, version } = &expected.subject {
        // A published version never changes: it is there, or it is not.
        let statement = "SELECT 1 FROM connector_manifest WHERE workspace_id = $1 AND name = $2 AND version = $3";
        let values = vec![workspace, text(name), text(version)];
        let rows = connection.numbers(statement, values, false).await?;
        return Ok(rows.iter().flatten().copied().flatten().next());
    }
    let (statement, key) = match &expected.subject {
        ConfigSubject::Everything | ConfigSubject::Manifest { .. } => return Ok(Some(everything)),
        ConfigSubject::Connection(id) => (
            "SELECT revision FROM connection WHERE workspace_id = $1 AND id = $2",
            id.as_raw().into(),
        ),
        ConfigSubject::Endpoint(id) => (
            "SELECT revision FROM endpoint WHERE workspace_id = $1 AND id = $2",
            id.as_raw().into(),
        ),
        ConfigSubject::Workflow(id) => (
            "SELECT revision FROM workflow WHERE workspace_id = $1 AND id = $2",
            id.as_raw().into(),
        ),
        ConfigSubject::Draft(id) => (
            "SELECT 1 FROM workflow_version WHERE workspace_id = $1 AND id = $2 AND state = 0",
            id.as_raw().into(),
        ),
        // A token never changes: it is there, or it is not.
        ConfigSubject::Token(id) => (
            "SELECT 1 FROM api_token WHERE workspace_id = $1 AND id = $2",
            id.as_raw().into(),
        ),
    };
    let rows = connection.numbers(statement, vec![workspace, key], false).await?;
    Ok(rows.iter().flatten().copied().flatten().next())
}

async fn write(connection: &mut Connection, change: &ConfigRowChange) -> Result<(), Failure> {
    let (statement, values) = match change {
        ConfigRowChange::PutWorkspace(row) => (
            "INSERT INTO workspace (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            vec![row.id.as_raw().into(), text(&row.name), time(row.created_at)],
        ),
        ConfigRowChange::PutConnection(row) => (
            "INSERT INTO connection (id, workspace_id, name, connector, config, credential, revision, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
             connector = excluded.connector, config = excluded.config, credential = excluded.credential, \
             revision = connection.revision + 1, updated_at = excluded.updated_at \
             WHERE connection.workspace_id = excluded.workspace_id",
            vec![
                row.id.as_raw().into(),
                row.workspace.as_raw().into(),
                text(&row.name),
                text(&row.connector),
                text(&row.config),
                Value::Bytes(row.credential.clone()),
                time(row.created_at),
                time(row.updated_at),
            ],
        ),
        ConfigRowChange::PutEndpoint(row) => (
            "INSERT INTO endpoint (id, workspace_id, name, connector, connection_id, verify, allow, context, sweep, secrets, revision, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, $11, $12) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
             connector = excluded.connector, connection_id = excluded.connection_id, verify = excluded.verify, \
             allow = excluded.allow, context = excluded.context, sweep = excluded.sweep, secrets = excluded.secrets, \
             revision = endpoint.revision + 1, \
             updated_at = excluded.updated_at WHERE endpoint.workspace_id = excluded.workspace_id",
            vec![
                row.id.as_raw().into(),
                row.workspace.as_raw().into(),
                text(&row.name),
                text(&row.connector),
                Value::Int(row.connection.map(|id| id.as_raw())),
                Value::Text(row.verify.clone()),
                text(&row.allow),
                Value::Text(row.context.clone()),
                Value::Text(row.sweep.clone()),
                Value::Bytes(row.secrets.clone()),
                time(row.created_at),
                time(row.updated_at),
            ],
        ),
        ConfigRowChange::PutWorkflow(row) => (
            "INSERT INTO workflow (id, workspace_id, name, paused, published_version_id, draft_version_id, revision, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
             paused = excluded.paused, published_version_id = excluded.published_version_id, \
             draft_version_id = excluded.draft_version_id, revision = workflow.revision + 1, \
             updated_at = excluded.updated_at WHERE workflow.workspace_id = excluded.workspace_id",
            vec![
                row.id.as_raw().into(),
                row.workspace.as_raw().into(),
                text(&row.name),
                i64::from(workflow_state_code(row.state)).into(),
                Value::Int(row.published_version.map(|id| id.as_raw())),
                Value::Int(row.draft_version.map(|id| id.as_raw())),
                time(row.created_at),
                time(row.updated_at),
            ],
        ),
        ConfigRowChange::PutVersion(row) => (
            "INSERT INTO workflow_version (id, workspace_id, workflow_id, number, state, definition, resolution, checksum, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO UPDATE SET state = excluded.state, \
             definition = excluded.definition, resolution = excluded.resolution, checksum = excluded.checksum \
             WHERE workflow_version.workspace_id = excluded.workspace_id AND workflow_version.state = 0",
            vec![
                row.id.as_raw().into(),
                row.workspace.as_raw().into(),
                row.workflow.as_raw().into(),
                i64::from(row.number).into(),
                i64::from(version_state_code(row.state)).into(),
                text(&row.definition),
                text(&row.resolution),
                text(&row.checksum),
                time(row.created_at),
            ],
        ),
        ConfigRowChange::PutSchedule(row) => (
            "INSERT INTO schedule (workflow_id, workspace_id, begins_at) VALUES ($1, $2, $3) \
             ON CONFLICT (workflow_id) DO UPDATE SET begins_at = excluded.begins_at, fired_for = NULL \
             WHERE schedule.workspace_id = excluded.workspace_id",
            vec![
                row.workflow.as_raw().into(),
                row.workspace.as_raw().into(),
                time(row.begins_at),
            ],
        ),
        ConfigRowChange::PutManifest(row) => (
            "INSERT INTO connector_manifest (workspace_id, name, version, document, created_at) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (workspace_id, name, version) DO NOTHING",
            vec![
                row.workspace.as_raw().into(),
                text(&row.name),
                text(&row.version),
                text(&row.document),
                time(row.created_at),
            ],
        ),
        ConfigRowChange::PutToken(row) => (
            "INSERT INTO api_token (id, workspace_id, name, hash, scopes, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            vec![
                row.id.as_raw().into(),
                row.workspace.as_raw().into(),
                text(&row.name),
                row.hash.as_slice().into(),
                text(&row.scopes),
                time(row.created_at),
                Value::Int(row.expires_at.map(Timestamp::as_unix_ms)),
            ],
        ),
        ConfigRowChange::PutGrant(grant) => grant::put(grant),
        ConfigRowChange::DropGrant(grant) => grant::forget(grant),
        ConfigRowChange::AddCorrelation(row) => (
            "INSERT INTO correlation (workspace_id, connector, kind, key) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (workspace_id, connector, kind, key) DO UPDATE SET key = excluded.key",
            vec![
                row.workspace.as_raw().into(),
                text(&row.connector),
                text(&row.kind),
                text(&row.key),
            ],
        ),
        ConfigRowChange::Delete { workspace, subject } => {
            return delete(connection, *workspace, subject).await;
        }
    };
    let changed = connection.run(statement, values).await?;
    if changed == 0 {
        // The id belongs to another workspace, or to a version that is published, of a workflow or a connector.
        return Err(Failure::taken_id());
    }
    Ok(())
}

async fn delete(connection: &mut Connection, workspace: WorkspaceId, subject: &ConfigSubject) -> Result<(), Failure> {
    if let ConfigSubject::Workflow(id) = subject {
        let values = vec![workspace.as_raw().into(), id.as_raw().into()];
        let statement = "DELETE FROM schedule WHERE workspace_id = $1 AND workflow_id = $2";
        connection.run(statement, values).await?;
    }
    if let ConfigSubject::Endpoint(id) = subject {
        for table in ["sweep", "coverage", "backfill"] {
            let values = vec![workspace.as_raw().into(), id.as_raw().into()];
            let statement = format!("DELETE FROM {table} WHERE workspace_id = $1 AND endpoint_id = $2");
            connection.run(&statement, values).await?;
        }
    }
    if let ConfigSubject::Connection(id) = subject {
        grant::delete(connection, workspace, *id).await?;
    }
    if let ConfigSubject::Manifest { name, version } = subject {
        let values = vec![workspace.as_raw().into(), text(name), text(version)];
        let statement = "DELETE FROM connector_manifest WHERE workspace_id = $1 AND name = $2 AND version = $3";
        return connection.run(statement, values).await.map(drop);
    }
    let (statement, key) = match subject {
        ConfigSubject::Connection(id) => (
            "DELETE FROM connection WHERE workspace_id = $1 AND id = $2",
            id.as_raw().into(),
        ),
        ConfigSubject::Endpoint(id) => (
            "DELETE FROM endpoint WHERE workspace_id = $1 AND id = $2",
            id.as_raw().into(),
        ),
        ConfigSubject::Workflow(id) => (
            "DELETE FROM workflow WHERE workspace_id = $1 AND id = $2",
            id.as_raw().into(),
        ),
        ConfigSubject::Token(id) => (
            "DELETE FROM api_token WHERE workspace_id = $1 AND id = $2",
            id.as_raw().into(),
        ),
        ConfigSubject::Draft(id) => (
            "DELETE FROM workflow_version WHERE workspace_id = $1 AND id = $2 AND state = 0",
            id.as_raw().into(),
        ),
        ConfigSubject::Everything | ConfigSubject::Manifest { .. } => return Err(Failure::not_deletable()),
    };
    connection
        .run(statement, vec![workspace.as_raw().into(), key])
        .await
        .map(drop)
}

/// SQLite numbers the parameters of a text as they appear.
pub(super) const AUDIT: &str = "INSERT INTO audit (id, workspace_id, at, actor, action, subject, client_ip, request_id, \
    detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

pub(super) async fn audit(connection: &mut Connection, entry: &AuditEntry) -> Result<(), Failure> {
    let values = vec![
        entry.id.into(),
        entry.workspace.as_raw().into(),
        time(entry.at),
        text(&entry.actor),
        text(&entry.action),
        text(&entry.subject),
        Value::Text(entry.client_ip.clone()),
        Value::Text(entry.request_id.clone()),
        text(&entry.detail),
    ];
    connection.run(AUDIT, values).await.map(drop)
}
