//! Whether a thing can be deleted.

use super::{Planned, Write, current, meets};
use crate::configure::{Action, ApplyError, Change, Expect, Kind};
use crate::snapshot::Snapshot;
use weir_storage::ConfigSubject;
use weir_workflow_engine::WorkspaceId;

/// Whether a thing can go, and what would be left hanging.
pub(in crate::configure) fn plan_delete(
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
        // Its versions are deleted one by one, see `plan_connector_delete`.
        Kind::Connector => None,
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
