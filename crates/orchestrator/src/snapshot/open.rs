//! From stored rows to values that work: secrets opened, documents compiled.
//!
//! Errors name rows; what was inside a sealed value is never part of them.

use super::{Endpoint, Snapshot, SnapshotError, Version, Workflow};
use crate::configure::Intake;
use crate::connection::Connection;
use crate::registrations::Secrets;
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use weir_connector_sdk::{Connector, Credential, Registration, Verifier};
use weir_storage::{
    ConnectionRow, EndpointRow, GrantedAccount, RegistrationRow, RowIdentity, SecretBox, VersionState, WorkflowRow,
    WorkflowVersionRow,
};
use weir_workflow_engine::{ConnectionId, VersionId};

pub(super) fn open_connection(
    row: &ConnectionRow,
    connector: &Arc<Connector>,
    secrets: &SecretBox,
    granted: Option<&GrantedAccount>,
) -> Result<Connection, SnapshotError> {
    let name = || format!("connection `{}`", row.name);
    let config: Value = serde_json::from_str(&row.config).map_err(|error| SnapshotError::Corrupt {
        row: name(),
        reason: error.to_string(),
    })?;
    let credential = match &row.credential {
        None => None,
        Some(sealed) => {
            let document = open_json(secrets, &RowIdentity::connection(row.workspace, row.id), sealed, name)?;
            let parsed = Credential::parse(&document).map_err(|_problems| SnapshotError::Corrupt {
                row: name(),
                reason: "its credential is not understood".to_owned(),
            })?;
            Some(parsed)
        }
    };
    let connection = Connection::new(
        row.id,
        row.workspace,
        row.name.clone(),
        Arc::clone(connector),
        config,
        credential,
        None,
    );
    Ok(match granted {
        Some(granted) if connection.is_granted() => {
            connection.at_account(granted.account.clone(), granted.instance_url.clone())
        }
        Some(_) | None => connection,
    })
}

pub(super) fn open_endpoint(
    row: EndpointRow,
    connector: &Arc<Connector>,
    connection_names: &HashMap<ConnectionId, String>,
    secrets: &SecretBox,
    registration: Option<&RegistrationRow>,
) -> Result<Endpoint, SnapshotError> {
    let name = || format!("endpoint `{}`", row.name);
    let corrupt = |reason: String| SnapshotError::Corrupt { row: name(), reason };
    let verify: Option<Value> = row
        .verify
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(|error| corrupt(error.to_string()))?;
    let own_verifier = verify
        .as_ref()
        .map(|value| Verifier::compile(value, "/verify"))
        .transpose()
        .map_err(|_problems| corrupt("its verification is not understood".to_owned()))?;
    let allow: Vec<String> = serde_json::from_str(&row.allow).map_err(|error| corrupt(error.to_string()))?;
    let allow = allow
        .iter()
        .map(|network| network.parse())
        .collect::<Result<Vec<IpNet>, _>>()
        .map_err(|error| corrupt(error.to_string()))?;
    let context: Registration = row
        .context
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(|error| corrupt(error.to_string()))?
        .unwrap_or_default();
    let intake = match row
        .sweep
        .as_deref()
        .map(serde_json::from_str::<serde_json::Map<String, Value>>)
    {
        None => Intake::default(),
        Some(Ok(said)) => Intake::read(&said).map_err(|(_, problem)| corrupt(problem))?,
        Some(Err(error)) => return Err(corrupt(error.to_string())),
    };
    let opened: Vec<String> = match &row.secrets {
        None => Vec::new(),
        Some(sealed) => serde_json::from_value(open_json(
            secrets,
            &RowIdentity::endpoint(row.workspace, row.id),
            sealed,
            name,
        )?)
        .map_err(|_error| corrupt("its secrets are not a list of texts".to_owned()))?,
    };
    let registered = match registration {
        Some(registration) => Secrets::open(registration, secrets)?,
        None => Secrets::default(),
    };
    let own_secrets = opened.len();
    let given = opened.into_iter().map(SecretString::from);
    let connection = row
        .connection
        .and_then(|id| connection_names.get(&id).map(|name| (id, name.clone())));
    Ok(Endpoint {
        connector: Arc::clone(connector),
        connection,
        verify,
        own_verifier,
        secrets: given.chain(registered.all().cloned()).collect(),
        own_secrets,
        allow,
        intake,
        context,
        row,
    })
}

pub(super) fn open_workflow(
    row: WorkflowRow,
    versions: &HashMap<VersionId, WorkflowVersionRow>,
    before: Option<&Snapshot>,
) -> Result<Workflow, SnapshotError> {
    let published = match row.published_version.and_then(|id| versions.get(&id)) {
        None => None,
        Some(version) => {
            let kept = before
                .and_then(|before| before.workflow(row.workspace, &row.name))
                .and_then(|old| old.published.as_ref())
                .filter(|old| old.id == version.id);
            Some(match kept {
                Some(kept) => Arc::clone(kept),
                None => Arc::new(Version::compile(version)?),
            })
        }
    };
    let draft = match row
        .draft_version
        .and_then(|id| versions.get(&id))
        .filter(|version| version.state == VersionState::Draft)
    {
        None => None,
        Some(version) => {
            let document = serde_json::from_str(&version.definition).map_err(|error| SnapshotError::Corrupt {
                row: format!("workflow version {}", version.id),
                reason: error.to_string(),
            })?;
            Some((version.number, document))
        }
    };
    Ok(Workflow { row, published, draft })
}

/// Opens a sealed JSON value. The error names the row; what was inside is never part of it.
pub(crate) fn open_json(
    secrets: &SecretBox,
    identity: &RowIdentity,
    sealed: &[u8],
    row: impl Fn() -> String,
) -> Result<Value, SnapshotError> {
    let opened = secrets
        .open(identity, sealed)
        .map_err(|source| SnapshotError::Secret { row: row(), source })?;
    serde_json::from_slice(opened.expose_secret()).map_err(|_error| SnapshotError::Corrupt {
        row: row(),
        reason: "the opened secret is not JSON".to_owned(),
    })
}
