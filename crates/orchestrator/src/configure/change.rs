//! What a set of documents would change: checked against itself and against what is stored. Writes nothing.

mod connector;
mod delete;
mod intake;
mod register;
mod workflow;

use connector::{Moved, plan_connector, plan_moved, unknown_connector};
pub(super) use connector::{plan_connector_delete, users_of_version};
pub(super) use delete::plan_delete;
use intake::{check_intake, way_in};
use workflow::plan_workflow;
pub(super) use workflow::{plan_discard, plan_draft};

use super::catalogue::{Callee, Prospect};
use super::connector::ConnectorDocument;
use super::document::{self, ConnectionDocument, EndpointDocument, Parsed, Reader, WorkflowDocument, nearest};
use super::render::{connection_document, endpoint_document, endpoint_parts, pretty};
use super::{Action, ApplyError, Change, ConfigProblem, Expect, Kind, MAX_DOCUMENTS, SourceDocument};
use crate::published::{MAX_PUBLISHED_VERSIONS, name_and_version};
use crate::service::Core;
use crate::snapshot::{Snapshot, Workflow};
use serde_json::Value;
use similar::TextDiff;
use std::collections::BTreeSet;
use weir_connector_sdk::{Credential, Verifier};
use weir_storage::ConfigSubject;
use weir_workflow_engine::{Definition, Resolution, WorkspaceId};

/// One change, checked and ready to be written.
pub(super) struct Planned {
    pub(super) change: Change,
    pub(super) write: Write,
}

/// What is to be written.
pub(super) enum Write {
    Nothing,
    Connector(ConnectorDocument),
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
    let mut prospect = prospect(snapshot, workspace);
    let now = core.clock.now();
    for document in &parsed {
        if let Parsed::Connector(connector) = document {
            let (name, version) = (connector.name(), connector.version);
            prospect.connectors.insert(name, version, connector.published(now));
        }
    }
    let mut moved = Moved::default();
    for (index, document) in parsed.iter().enumerate() {
        match document {
            Parsed::Connection(connection) => {
                let stored = snapshot.connection_row(workspace, &connection.name);
                let before = stored.map(|(_, row)| row.connector.clone());
                let pinned = prospect.connectors.pin(&connection.connector, before.as_deref());
                let after = pinned.unwrap_or_else(|| connection.connector.clone());
                moved.note(index, &connection.name, before.as_deref(), &after);
                prospect.connections.insert(connection.name.clone(), after);
            }
            Parsed::Workflow(workflow) => {
                let definition = Definition::parse(&workflow.definition);
                // What is wrong with it is told below.
                let callee = definition.map(|definition| Callee::of(&definition));
                prospect
                    .workflows
                    .insert(workflow.name.clone(), callee.unwrap_or_default());
            }
            Parsed::Connector(_) | Parsed::Endpoint(_) => {}
        }
    }
    let mut problems = Vec::new();
    let mut planned = Vec::with_capacity(parsed.len());
    let names: BTreeSet<(Kind, String)> = parsed
        .iter()
        .map(|document| (document.kind(), document.name().to_owned()))
        .collect();
    for (index, (document, source)) in parsed.into_iter().zip(sources).enumerate() {
        let mut reader = Reader::of(index, source, &document);
        let (id, revision) = current(snapshot, workspace, document.kind(), document.name());
        meets(expect, document.kind(), document.name(), revision)?;
        let one = match document {
            Parsed::Connector(connector) => plan_connector(snapshot, workspace, connector, &mut reader),
            Parsed::Connection(connection) => {
                plan_connection(core, snapshot, workspace, connection, &prospect, &mut reader)
            }
            Parsed::Endpoint(endpoint) => plan_endpoint(core, snapshot, workspace, endpoint, &prospect, &mut reader),
            Parsed::Workflow(workflow) => plan_workflow(snapshot, workspace, workflow, &prospect, &mut reader),
        };
        problems.append(&mut reader.problems);
        if let Some(mut one) = one {
            one.change.id = id.unwrap_or_default();
            one.change.revision = revision.unwrap_or(0);
            planned.push(one);
        }
    }
    let versions = planned
        .iter()
        .filter(|planned| matches!(planned.write, Write::Connector(_)));
    let there = snapshot.connectors(workspace).published().count();
    if there + versions.count() > MAX_PUBLISHED_VERSIONS
        && let Some(index) = sources
            .iter()
            .position(|source| source.value["kind"] == Kind::Connector.as_str())
    {
        let mut reader = Reader::at(index, &sources[index], None);
        let message = format!("a workspace has at most {MAX_PUBLISHED_VERSIONS} published versions of connectors");
        let fix = "delete versions that nothing uses: weir connector delete NAME@VERSION";
        reader.problem("", "too_many", message, Some(fix.to_owned()));
        problems.append(&mut reader.problems);
    }
    if problems.is_empty() {
        let (more, found) = plan_moved(snapshot, workspace, &moved, &names, &prospect, sources);
        planned.extend(more);
        problems = found;
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

fn prospect(snapshot: &Snapshot, workspace: WorkspaceId) -> Prospect {
    let connections = snapshot
        .connections(workspace)
        .map(|(connection, row)| (connection.name.clone(), row.connector.clone()))
        .collect();
    let callee = |workflow: &Workflow| {
        let published = workflow.published.as_ref();
        published.map_or_else(Callee::default, |version| Callee::of(version.plan.definition()))
    };
    let workflows = snapshot.workflows(workspace);
    Prospect {
        connectors: snapshot.connectors(workspace).clone(),
        connections,
        workflows: workflows
            .map(|workflow| (workflow.row.name.clone(), callee(workflow)))
            .collect(),
    }
}

/// Public id and revision of what is stored now.
fn current(snapshot: &Snapshot, workspace: WorkspaceId, kind: Kind, name: &str) -> (Option<String>, Option<i64>) {
    match kind {
        Kind::Connector => snapshot
            .connectors(workspace)
            .get(name)
            .map(|_| (name.to_owned(), 1))
            .unzip(),
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
    mut document: ConnectionDocument,
    prospect: &Prospect,
    reader: &mut Reader<'_>,
) -> Option<Planned> {
    let pinned = prospect.connections.get(&document.name).cloned();
    let pinned = pinned.unwrap_or_else(|| document.connector.clone());
    let Some(connector) = prospect.connectors.get(&pinned) else {
        unknown_connector(&prospect.connectors, &document.connector, reader);
        return None;
    };
    let newest = prospect.connectors.pin(connector.name(), None);
    let is_behind = !document.connector.contains('@') && newest.as_ref().is_some_and(|newest| *newest != pinned);
    document.connector = pinned;
    for problem in connector.check_config(&document.config) {
        reader.problem(
            &format!("/config{}", problem.pointer),
            problem.code,
            problem.message,
            problem.suggestion,
        );
    }
    let parsed = document.credential.as_ref().map(Credential::parse);
    if let Some(Ok(parsed)) = &parsed {
        for problem in connector.check_credential(parsed) {
            reader.problem(
                &format!("/credential{}", problem.pointer),
                problem.code,
                problem.message,
                problem.suggestion,
            );
        }
    }
    if let Some(Ok(parsed)) = &parsed
        && connector.scheme_for(parsed).is_none()
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
        && name_and_version(&row.connector).0 != connector.name()
    {
        reader.problem(
            "/connector",
            "immutable",
            format!(
                "connection `{}` is of connector `{}`",
                document.name,
                name_and_version(&row.connector).0
            ),
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
    let stays = document.connector.clone();
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
    if let Some(newest) = newest.filter(|_| is_behind) {
        planned.change.notes.push(format!(
            "it stays at {stays}, with which `{newest}` is not compatible; write `connector: {newest}` to move it"
        ));
    }
    Some(planned)
}

fn plan_endpoint(
    core: &Core,
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    document: EndpointDocument,
    prospect: &Prospect,
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
    let differs = |implied: &str, named: &str| match name_and_version(named) {
        (_, Some(_)) => implied != named,
        (name, None) => name_and_version(implied).0 != name,
    };
    if let (Some(implied), Some(named)) = (&implied, &document.connector)
        && differs(implied, named)
    {
        reader.problem(
            "/connector",
            "mismatch",
            format!("the connection is of connector `{implied}`, not `{named}`"),
            Some("leave `connector` out".to_owned()),
        );
    }
    let stored = snapshot
        .endpoints(workspace)
        .find(|endpoint| endpoint.name() == document.name);
    // With a connection, its version counts; otherwise the endpoint has one of its own.
    let (spoken, reference) = match (&implied, &document.connector) {
        (Some(implied), _) => (implied.clone(), name_and_version(implied).0.to_owned()),
        (None, Some(named)) => {
            let before = stored.map(|endpoint| endpoint.connector_reference());
            let pinned = prospect.connectors.pin(named, before);
            let pinned = pinned.unwrap_or_else(|| named.clone());
            (pinned.clone(), pinned)
        }
        (None, None) => return None,
    };
    let Some(connector) = prospect.connectors.get(&spoken) else {
        unknown_connector(&prospect.connectors, &spoken, reader);
        return None;
    };
    let name = connector.name().to_owned();
    let webhook = way_in(connector, document.intake.poll.as_deref(), reader)?;
    let own = document
        .verify
        .as_ref()
        .and_then(|value| Verifier::compile(value, "/verify").ok());
    check_intake(connector, webhook, &document, reader);
    let makes_secret = register::check(core, connector, webhook, &document, reader);
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
        // It comes with the registration.
        Some(_) if makes_secret => {}
        Some(verifier) if verifier.needs_secret() => {
            let count = document
                .secrets
                .as_ref()
                .map_or_else(|| stored.map_or(0, |endpoint| endpoint.own_secret_count()), Vec::len);
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
    if let Some(endpoint) = stored
        && endpoint.poll() != document.intake.poll.as_deref()
    {
        let now = endpoint
            .poll()
            .map_or_else(|| "takes webhooks".to_owned(), |poll| format!("polls `{poll}`"));
        reader.problem(
            "/poll",
            "immutable",
            format!(
                "endpoint `{}` {now}: where it stands in one list means nothing in another",
                document.name
            ),
            Some("make another endpoint, or delete this one first".to_owned()),
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
        &reference,
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
            connector: reference,
        },
    ))
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
