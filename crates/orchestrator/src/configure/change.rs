//! What a set of documents would change: checked against itself and against what is stored. Writes nothing.

mod workflow;

use workflow::plan_workflow;
pub(super) use workflow::{plan_discard, plan_draft};

use super::catalogue::Prospect;
use super::document::{self, ConnectionDocument, EndpointDocument, Parsed, Reader, WorkflowDocument, nearest};
use super::render::{connection_document, endpoint_document, endpoint_parts, pretty};
use super::sweep::SweepRule;
use super::{Action, ApplyError, Change, ConfigProblem, Expect, Kind, MAX_DOCUMENTS, SourceDocument};
use crate::service::Core;
use crate::snapshot::Snapshot;
use serde_json::Value;
use similar::TextDiff;
use std::collections::BTreeSet;
use weir_connector_sdk::{Connector, Credential, Level, Verifier, Webhook};
use weir_storage::ConfigSubject;
use weir_workflow_engine::{Resolution, WorkspaceId};

/// One change, checked and ready to be written.
pub(super) struct Planned {
    pub(super) change: Change,
    pub(super) write: Write,
}

/// What is to be written.
pub(super) enum Write {
    Nothing,
    Connection(ConnectionDocument),
    Endpoint {
        document: EndpointDocument,
        connector: String,
    },
    Publish {
        document: WorkflowDocument,
        resolution: Box<Resolution>,
    },
    /// An older version again: a draft is kept.
    Restore {
        document: WorkflowDocument,
        resolution: Box<Resolution>,
    },
    Draft(WorkflowDocument),
    /// The draft goes; the workflow too if it was never published.
    Discard,
    Delete(ConfigSubject),
}

/// Checks documents and says what each would change.
pub(super) fn plan(
    core: &Core,
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    sources: &[SourceDocument],
    expect: Expect,
) -> Result<Vec<Planned>, ApplyError> {
    let parsed = read_all(sources)?;
    let mut prospect = prospect(core, snapshot, workspace);
    for document in &parsed {
        match document {
            Parsed::Connection(connection) => {
                let (name, connector) = (connection.name.clone(), connection.connector.clone());
                prospect.connections.insert(name, connector);
            }
            Parsed::Workflow(workflow) => {
                prospect.workflows.insert(workflow.name.clone());
            }
            Parsed::Endpoint(_) => {}
        }
    }
    let mut problems = Vec::new();
    let mut planned = Vec::with_capacity(parsed.len());
    for (index, (document, source)) in parsed.into_iter().zip(sources).enumerate() {
        let mut reader = Reader::of(index, source, &document);
        let (id, revision) = current(snapshot, workspace, document.kind(), document.name());
        meets(expect, document.kind(), document.name(), revision)?;
        let one = match document {
            Parsed::Connection(connection) => plan_connection(core, snapshot, workspace, connection, &mut reader),
            Parsed::Endpoint(endpoint) => plan_endpoint(snapshot, workspace, endpoint, &prospect, &mut reader),
            Parsed::Workflow(workflow) => plan_workflow(snapshot, workspace, workflow, &prospect, &mut reader),
        };
        problems.append(&mut reader.problems);
        if let Some(mut one) = one {
            one.change.id = id.unwrap_or_default();
            one.change.revision = revision.unwrap_or(0);
            planned.push(one);
        }
    }
    if problems.is_empty() {
        Ok(planned)
    } else {
        Err(ApplyError::Invalid(problems))
    }
}

fn read_all(sources: &[SourceDocument]) -> Result<Vec<Parsed>, ApplyError> {
    let mut problems = Vec::new();
    let mut parsed = Vec::with_capacity(sources.len());
    let mut seen = BTreeSet::new();
    for (index, source) in sources.iter().enumerate() {
        match document::read(index, source) {
            Err(found) => problems.extend(found),
            Ok(document) => {
                if !seen.insert((document.kind(), document.name().to_owned())) {
                    let mut reader = Reader::of(index, source, &document);
                    reader.problem(
                        "/name",
                        "duplicate",
                        format!("{} `{}` stands in the set twice", document.kind(), document.name()),
                        None,
                    );
                    problems.append(&mut reader.problems);
                }
                parsed.push(document);
            }
        }
    }
    if sources.len() > MAX_DOCUMENTS {
        problems.push(ConfigProblem {
            document: MAX_DOCUMENTS,
            origin: None,
            kind: None,
            name: None,
            pointer: String::new(),
            line: None,
            code: "too_many".to_owned(),
            message: format!("at most {MAX_DOCUMENTS} documents can be applied at once"),
            suggestion: Some("split the set".to_owned()),
        });
    }
    if problems.is_empty() {
        Ok(parsed)
    } else {
        Err(ApplyError::Invalid(problems))
    }
}

fn prospect<'a>(core: &'a Core, snapshot: &Snapshot, workspace: WorkspaceId) -> Prospect<'a> {
    let connections = snapshot
        .connections(workspace)
        .map(|(connection, row)| (connection.name.clone(), row.connector.clone()))
        .collect();
    let workflows = snapshot.workflows(workspace);
    Prospect {
        registry: &core.registry,
        connections,
        workflows: workflows.map(|workflow| workflow.row.name.clone()).collect(),
    }
}

/// Public id and revision of what is stored now.
fn current(snapshot: &Snapshot, workspace: WorkspaceId, kind: Kind, name: &str) -> (Option<String>, Option<i64>) {
    match kind {
        Kind::Connection => snapshot
            .connection_row(workspace, name)
            .map(|(_, row)| (row.id.to_string(), row.revision))
            .unzip(),
        Kind::Endpoint => snapshot
            .endpoints(workspace)
            .find(|endpoint| endpoint.name() == name)
            .map(|endpoint| (endpoint.id().to_string(), endpoint.revision()))
            .unzip(),
        Kind::Workflow => snapshot
            .workflow(workspace, name)
            .map(|workflow| (workflow.row.id.to_string(), workflow.row.revision))
            .unzip(),
    }
}

pub(super) fn meets(expect: Expect, kind: Kind, name: &str, revision: Option<i64>) -> Result<(), ApplyError> {
    let met = match expect {
        Expect::Any => true,
        Expect::Absent => revision.is_none(),
        Expect::Revision(expected) => revision == Some(expected),
    };
    if met {
        Ok(())
    } else {
        Err(ApplyError::Conflict {
            kind,
            name: name.to_owned(),
            current_revision: revision,
        })
    }
}

fn plan_connection(
    core: &Core,
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    document: ConnectionDocument,
    reader: &mut Reader<'_>,
) -> Option<Planned> {
    let Some(connector) = core.registry.get(&document.connector) else {
        unknown_connector(core, &document.connector, reader);
        return None;
    };
    for problem in connector.check_config(&document.config) {
        reader.problem(
            &format!("/config{}", problem.pointer),
            problem.code,
            problem.message,
            problem.suggestion,
        );
    }
    if let Some(credential) = &document.credential
        && let Ok(parsed) = Credential::parse(credential)
        && connector.scheme_for(&parsed).is_none()
    {
        let known: Vec<&str> = connector.auth().iter().map(|scheme| scheme.as_str()).collect();
        reader.problem(
            "/credential",
            "wrong_scheme",
            format!(
                "connector `{}` does not authenticate with `{}`",
                connector.name(),
                parsed.kind()
            ),
            Some(format!("it takes: {}", known.join(", "))),
        );
    }
    let stored = snapshot.connection_row(workspace, &document.name);
    if let Some((_, row)) = stored
        && row.connector != document.connector
    {
        reader.problem(
            "/connector",
            "immutable",
            format!("connection `{}` is of connector `{}`", document.name, row.connector),
            Some("delete the connection first, or choose another name".to_owned()),
        );
    }
    let before = stored.map(|(connection, row)| connection_document(&row.name, &row.connector, &connection.config));
    let after = connection_document(&document.name, &document.connector, &document.config);
    let secret_changed = match (&document.credential, stored) {
        (None, _) => false,
        (Some(new), Some((_, row))) => match row.credential.as_ref() {
            Some(sealed) => core.open_credential(row, sealed).is_none_or(|old| old != *new),
            None => true,
        },
        (Some(_), None) => true,
    };
    let has_credential = document.credential.is_some() || stored.is_some_and(|(_, row)| row.credential.is_some());
    let known: Vec<&str> = connector.auth().iter().map(|scheme| scheme.as_str()).collect();
    let lacks = !has_credential && !known.is_empty() && !known.contains(&"none");
    let mut planned = difference(
        Kind::Connection,
        document.name.clone(),
        before,
        after,
        secret_changed.then_some("credential"),
        Write::Connection(document),
    );
    if lacks {
        planned.change.notes.push(format!(
            "it has no credential: calls fail until it has one of {}",
            known.join(", ")
        ));
    }
    Some(planned)
}

fn plan_endpoint(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    document: EndpointDocument,
    prospect: &Prospect<'_>,
    reader: &mut Reader<'_>,
) -> Option<Planned> {
    let implied = match &document.connection {
        None => None,
        Some(name) => match prospect.connections.get(name) {
            Some(connector) => Some(connector.clone()),
            None => {
                let meant = nearest(name, prospect.connections.keys().map(String::as_str));
                reader.problem(
                    "/connection",
                    "unknown_connection",
                    format!("there is no connection `{name}`"),
                    meant.or_else(|| Some("apply the connection first, or in the same set".to_owned())),
                );
                return None;
            }
        },
    };
    if let (Some(implied), Some(named)) = (&implied, &document.connector)
        && implied != named
    {
        reader.problem(
            "/connector",
            "mismatch",
            format!("the connection is of connector `{implied}`, not `{named}`"),
            Some("leave `connector` out".to_owned()),
        );
    }
    let name = implied.or_else(|| document.connector.clone())?;
    let Some(connector) = prospect.registry.get(&name) else {
        let meant = nearest(&name, prospect.registry.iter().map(|connector| connector.name()));
        reader.problem(
            "/connector",
            "unknown_connector",
            format!("there is no connector `{name}`"),
            meant,
        );
        return None;
    };
    let Some(webhook) = connector.webhook() else {
        reader.problem(
            "/connector",
            "no_webhooks",
            format!("connector `{name}` takes no webhooks"),
            None,
        );
        return None;
    };
    let own = document
        .verify
        .as_ref()
        .and_then(|value| Verifier::compile(value, "/verify").ok());
    let stored = snapshot
        .endpoints(workspace)
        .find(|endpoint| endpoint.name() == document.name);
    check_intake(connector, webhook, &document, reader);
    match own.as_ref().or_else(|| webhook.verifier()) {
        // Nothing arrives there, so nothing is to be verified.
        _ if document.intake.sweeps_only => {}
        None => reader.problem(
            "/verify",
            "missing",
            format!("connector `{name}` has no verification of its own, so the endpoint must say `verify`"),
            Some("for example verify: { token: { at: \"header:X-Token\" } }".to_owned()),
        ),
        // The provider brings it, or a person adds it later.
        Some(_) if webhook.sends_secret_for(own.as_ref()) => {}
        Some(verifier) if verifier.needs_secret() => {
            let count = document
                .secrets
                .as_ref()
                .map_or_else(|| stored.map_or(0, |endpoint| endpoint.secret_count()), Vec::len);
            if count == 0 {
                reader.problem(
                    "/secrets",
                    "missing",
                    "the verification needs a secret and there is none",
                    Some("add `secrets: [ … ]` with the secret that the provider shows".to_owned()),
                );
            }
        }
        Some(_) => {}
    }
    for problem in webhook.check_context(&document.context, document.verify.as_ref()) {
        reader.problem(&problem.pointer, problem.code, problem.message, problem.suggestion);
    }
    if let Some(endpoint) = stored
        && endpoint.connector().name() != name
    {
        reader.problem(
            "/connector",
            "immutable",
            format!(
                "endpoint `{}` is of connector `{}`",
                document.name,
                endpoint.connector().name()
            ),
            Some("delete the endpoint first, or choose another name".to_owned()),
        );
    }
    let secret_changed = match (&document.secrets, stored) {
        (None, _) => false,
        (Some(new), Some(endpoint)) => !endpoint.has_secrets(new),
        (Some(new), None) => !new.is_empty(),
    };
    let before = stored.map(|endpoint| endpoint_document(endpoint));
    let after = endpoint_parts(
        &document.name,
        &name,
        document.connection.as_deref(),
        document.verify.as_ref(),
        &document.context,
        &document.allow,
        &document.intake,
    );
    Some(difference(
        Kind::Endpoint,
        document.name.clone(),
        before,
        after,
        secret_changed.then_some("secrets"),
        Write::Endpoint {
            document,
            connector: name,
        },
    ))
}

/// Whether what the endpoint says about sweeps can be done.
fn check_intake(connector: &Connector, webhook: &Webhook, document: &EndpointDocument, reader: &mut Reader<'_>) {
    let wants = document.intake.sweeps_only || matches!(document.intake.sweep, SweepRule::Every(..));
    let place = if document.intake.sweeps_only {
        "/receive"
    } else {
        "/sweep"
    };
    if !wants {
        return;
    }
    let level = webhook.recover().map_or(Level::PushOnly, |recover| recover.level);
    if level == Level::PushOnly {
        reader.problem(
            place,
            "not_recoverable",
            format!(
                "connector `{}` has level C: its provider lists no events, so they come by webhook alone",
                connector.name()
            ),
            Some("leave it out".to_owned()),
        );
    } else if document.connection.is_none() {
        reader.problem(
            place,
            "missing",
            "a sweep asks the provider, and for that the endpoint needs a `connection`",
            Some("add `connection: NAME`".to_owned()),
        );
    }
}

/// Whether a thing can go, and what would be left hanging.
pub(super) fn plan_delete(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    kind: Kind,
    name: &str,
    expected: Option<i64>,
) -> Result<Planned, ApplyError> {
    let (id, revision) = current(snapshot, workspace, kind, name);
    let (Some(id), Some(revision)) = (id, revision) else {
        return Err(ApplyError::NotFound);
    };
    if let Some(expected) = expected {
        meets(Expect::Revision(expected), kind, name, Some(revision))?;
    }
    let subject = match kind {
        Kind::Connection => {
            let by = users_of_connection(snapshot, workspace, name);
            if !by.is_empty() {
                return Err(ApplyError::InUse { by });
            }
            snapshot
                .connection_row(workspace, name)
                .map(|(_, row)| ConfigSubject::Connection(row.id))
        }
        Kind::Endpoint => snapshot
            .endpoints(workspace)
            .find(|endpoint| endpoint.name() == name)
            .map(|endpoint| ConfigSubject::Endpoint(endpoint.id())),
        Kind::Workflow => snapshot
            .workflow(workspace, name)
            .map(|workflow| ConfigSubject::Workflow(workflow.row.id)),
    };
    let subject = subject.ok_or(ApplyError::NotFound)?;
    let change = Change {
        kind,
        name: name.to_owned(),
        action: Action::Delete,
        id,
        revision,
        diff: String::new(),
        notes: Vec::new(),
    };
    Ok(Planned {
        change,
        write: Write::Delete(subject),
    })
}

fn users_of_connection(snapshot: &Snapshot, workspace: WorkspaceId, name: &str) -> Vec<String> {
    let endpoints = snapshot
        .endpoints(workspace)
        .filter(|endpoint| endpoint.connection().is_some_and(|(_, connection)| connection == name))
        .map(|endpoint| format!("Endpoint `{}`", endpoint.name()));
    let workflows = snapshot
        .workflows(workspace)
        .filter(|workflow| {
            workflow.published.as_ref().is_some_and(|version| {
                version
                    .plan
                    .call_sites()
                    .iter()
                    .any(|site| site.connection.as_deref() == Some(name))
            })
        })
        .map(|workflow| format!("Workflow `{}`", workflow.row.name));
    endpoints.chain(workflows).collect()
}

fn unknown_connector(core: &Core, name: &str, reader: &mut Reader<'_>) {
    let meant = nearest(name, core.registry.iter().map(|connector| connector.name()));
    let known = || {
        format!(
            "known connectors: {}",
            core.registry
                .iter()
                .map(|connector| connector.name())
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    reader.problem(
        "/connector",
        "unknown_connector",
        format!("there is no connector `{name}`"),
        meant.or_else(|| Some(known())),
    );
}

fn difference(
    kind: Kind,
    name: String,
    before: Option<Value>,
    after: Value,
    secret: Option<&str>,
    write: Write,
) -> Planned {
    let action = match &before {
        None => Action::Create,
        Some(before) if *before == after && secret.is_none() => Action::Unchanged,
        Some(_) => Action::Update,
    };
    let diff = if action == Action::Unchanged {
        String::new()
    } else {
        let (old, new) = (before.as_ref().map(pretty).unwrap_or_default(), pretty(&after));
        TextDiff::from_lines(&old, &new)
            .unified_diff()
            .context_radius(2)
            .header("stored", "new")
            .to_string()
    };
    let notes = secret.map(|what| vec![format!("{what} set")]).unwrap_or_default();
    let write = if action == Action::Unchanged {
        Write::Nothing
    } else {
        write
    };
    Planned {
        change: Change {
            kind,
            name,
            action,
            id: String::new(),
            revision: 0,
            diff,
            notes,
        },
        write,
    }
}
