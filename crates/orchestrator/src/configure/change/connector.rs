//! Connectors that are published, and what follows when a connection moves to another version of its connector.

use super::workflow::plan_workflow;
use super::{Planned, Write, difference};
use crate::configure::catalogue::Prospect;
use crate::configure::connector::ConnectorDocument;
use crate::configure::document::{ConfigProblem, Reader, SourceDocument, WorkflowDocument, nearest};
use crate::configure::{Action, ApplyError, Change, Kind};
use crate::published::{Connectors, name_and_version};
use crate::snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use weir_storage::ConfigSubject;
use weir_workflow_engine::WorkspaceId;

/// A new version is published beside the others; a stored one only ever stays as it is.
pub(super) fn plan_connector(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    document: ConnectorDocument,
    reader: &mut Reader<'_>,
) -> Option<Planned> {
    let connectors = snapshot.connectors(workspace);
    let name = document.name().to_owned();
    if connectors.is_taken(&name) {
        reader.problem(
            "/connector",
            "reserved_name",
            format!("`{name}` is a connector of this server"),
            Some(format!("choose a name of your own, such as `my-{name}`")),
        );
        return None;
    }
    let versions = connectors.versions(&name);
    let stored = versions.and_then(|versions| versions.get(&document.version));
    if let Some(stored) = stored
        && stored.document() != document.document
    {
        let newest_patch = versions
            .into_iter()
            .flat_map(BTreeMap::keys)
            .filter(|version| version.is_patch_of(document.version));
        let free = newest_patch.max().copied().unwrap_or(document.version).next();
        reader.problem(
            "/version",
            "immutable",
            format!(
                "`{}` is published with other content, and stays as it is",
                document.reference
            ),
            Some(format!("raise `version`, for example to {free}")),
        );
        return None;
    }
    // What differs is told against the version before it, which is what a person compares with.
    let older = versions.and_then(|versions| versions.range(..=document.version).next_back());
    let before = older.map(|(_, published)| published.document());
    let after = document.document.clone();
    let is_new = stored.is_none();
    let reference = document.reference.clone();
    let mut planned = difference(
        Kind::Connector,
        reference,
        before,
        after,
        None,
        Write::Connector(document),
    );
    if is_new {
        planned.change.action = Action::Create;
    }
    Some(planned)
}

/// Whether a version of a connector can go. Versions of workflows that were published before are the caller's to ask for.
pub(in crate::configure) fn plan_connector_delete(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    reference: &str,
) -> Result<Planned, ApplyError> {
    let (name, version) = name_and_version(reference);
    let is_there = snapshot.connectors(workspace).published();
    let is_there = is_there
        .filter(|(known, _, _)| *known == name)
        .any(|(_, known, _)| Some(known.to_string().as_str()) == version);
    let (Some(version), true) = (version, is_there) else {
        return Err(ApplyError::NotFound);
    };
    let by = users_of_version(snapshot, workspace, reference);
    if !by.is_empty() {
        return Err(ApplyError::InUse { by });
    }
    Ok(Planned {
        change: Change {
            kind: Kind::Connector,
            name: reference.to_owned(),
            action: Action::Delete,
            id: reference.to_owned(),
            revision: 1,
            diff: String::new(),
            notes: Vec::new(),
        },
        write: Write::Delete(ConfigSubject::Manifest {
            name: name.to_owned(),
            version: version.to_owned(),
        }),
    })
}

/// What is pinned to a version now.
pub(in crate::configure) fn users_of_version(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    reference: &str,
) -> Vec<String> {
    let connections = snapshot
        .connections(workspace)
        .filter(|(_, row)| row.connector == reference)
        .map(|(connection, _)| format!("Connection `{}`", connection.name));
    let endpoints = snapshot
        .endpoints(workspace)
        .filter(|endpoint| endpoint.connector_reference() == reference)
        .map(|endpoint| format!("Endpoint `{}`", endpoint.name()));
    let workflows = snapshot
        .workflows(workspace)
        .filter(|workflow| {
            let published = workflow.published.as_ref();
            published.is_some_and(|version| version.plan.resolution().pins.values().any(|pin| pin == reference))
        })
        .map(|workflow| format!("Workflow `{}`", workflow.row.name));
    connections.chain(endpoints).chain(workflows).collect()
}

/// Says that a connector, or a version of it, is not there.
pub(super) fn unknown_connector(connectors: &Connectors, reference: &str, reader: &mut Reader<'_>) {
    let (name, version) = name_and_version(reference);
    let names = || connectors.iter().map(|connector| connector.name());
    let (message, suggestion) = match (version, connectors.versions(name)) {
        (Some(version), Some(versions)) => {
            let known: Vec<String> = versions.keys().map(ToString::to_string).collect();
            (
                format!("there is no version `{version}` of connector `{name}`"),
                Some(format!("published versions: {}", known.join(", "))),
            )
        }
        (Some(_), None) if connectors.get(name).is_some() => (
            format!("`{name}` is a connector of this server and has no versions to choose from"),
            Some(format!("write `{name}`")),
        ),
        (_, _) => {
            let meant = nearest(name, names());
            let known = || format!("known connectors: {}", names().collect::<Vec<_>>().join(", "));
            (
                format!("there is no connector `{name}`"),
                meant.or_else(|| Some(known())),
            )
        }
    };
    reader.problem("/connector", "unknown_connector", message, suggestion);
}

/// Connections that speak with another version of their connector than before, or that are new and have a version, with
/// the number of their document.
#[derive(Debug, Default)]
pub(super) struct Moved {
    connections: BTreeMap<String, usize>,
    connectors: BTreeSet<String>,
}

impl Moved {
    pub(super) fn note(&mut self, document: usize, connection: &str, before: Option<&str>, after: &str) {
        if before != Some(after) && (after.contains('@') || before.is_some_and(|before| before.contains('@'))) {
            self.connections.insert(connection.to_owned(), document);
            self.connectors.insert(name_and_version(after).0.to_owned());
        }
    }
}

/// What must change with connections that move: published workflows are published again, so that their next runs speak
/// with the new version and those that have begun keep theirs. What does not fit the new version is a problem of the
/// connection's document.
pub(super) fn plan_moved(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    moved: &Moved,
    in_set: &BTreeSet<(Kind, String)>,
    prospect: &Prospect,
    sources: &[SourceDocument],
) -> (Vec<Planned>, Vec<ConfigProblem>) {
    let (mut planned, mut problems) = (Vec::new(), Vec::new());
    let Some(first) = moved.connections.values().min().copied() else {
        return (planned, problems);
    };
    for endpoint in snapshot.endpoints(workspace) {
        let followed = endpoint
            .connection()
            .and_then(|(_, name)| Some((name, *moved.connections.get(name)?)));
        let Some((connection, index)) = followed else { continue };
        if in_set.contains(&(Kind::Endpoint, endpoint.name().to_owned())) {
            continue;
        }
        let Some(source) = sources.get(index) else { continue };
        let mut reader = Reader::at(index, source, Some((Kind::Connection, connection.to_owned())));
        let reference = prospect.connections.get(connection).map_or("", String::as_str);
        let webhook = prospect
            .connectors
            .get(reference)
            .and_then(|connector| match &endpoint.intake().poll {
                Some(poll) => connector.poll(poll),
                None => connector.webhook(),
            });
        let wrong = match (webhook, &endpoint.intake().poll) {
            (None, Some(poll)) => vec![format!("`{reference}` has no poll `{poll}`")],
            (None, None) => vec![format!("`{reference}` takes no webhooks")],
            (Some(webhook), _) => {
                let found = webhook.check_context(endpoint.context(), endpoint.verify_override());
                found.into_iter().map(|problem| problem.message).collect()
            }
        };
        for message in wrong {
            let message = format!("endpoint `{}` would not fit: {message}", endpoint.name());
            reader.problem(
                "/connector",
                "incompatible",
                message,
                Some("apply the endpoint in the same set".to_owned()),
            );
        }
        problems.append(&mut reader.problems);
    }
    for workflow in snapshot.workflows(workspace) {
        let Some(version) = &workflow.published else { continue };
        if in_set.contains(&(Kind::Workflow, workflow.row.name.clone())) {
            continue;
        }
        let resolution = version.plan.resolution();
        let mut used = resolution
            .calls
            .values()
            .map(|call| &call.connector)
            .chain(&resolution.connector);
        if !used.any(|name| moved.connectors.contains(name)) {
            continue;
        }
        let mut named = resolution
            .calls
            .values()
            .filter_map(|call| call.connection.as_ref())
            .chain(&resolution.connection);
        let index = named
            .find_map(|name| moved.connections.get(name))
            .copied()
            .unwrap_or(first);
        let Some(source) = sources.get(index) else { continue };
        let mut reader = Reader::at(index, source, Some((Kind::Connection, String::new())));
        let document = WorkflowDocument {
            name: workflow.row.name.clone(),
            definition: version.definition.clone(),
        };
        let again = plan_workflow(snapshot, workspace, document, prospect, &mut reader);
        problems.extend(reader.problems.into_iter().map(|problem| ConfigProblem {
            message: format!(
                "workflow `{}` would not fit: {}: {}",
                workflow.row.name, problem.pointer, problem.message
            ),
            pointer: "/connector".to_owned(),
            line: source.lines.as_ref().and_then(|line_of| line_of("/connector")),
            code: "incompatible".to_owned(),
            suggestion: Some("apply the workflow in the same set, or keep the version".to_owned()),
            name: source.value["name"].as_str().map(str::to_owned),
            ..problem
        }));
        let Some(mut again) = again.filter(|again| again.change.action != Action::Unchanged) else {
            continue;
        };
        again.change.id = workflow.row.id.to_string();
        again.change.revision = workflow.row.revision;
        planned.push(again);
    }
    (planned, problems)
}
