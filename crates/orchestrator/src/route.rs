//! Which published workflows an event starts. Reads memory only; the answer is committed together with the event.

use crate::snapshot::{Snapshot, Version, Workflow};
use serde_json::json;
use std::sync::Arc;
use weir_workflow_engine::{Event, ExpressionError, Timestamp, Trigger, TriggerScope, WorkspaceId};

/// One run that an event starts.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    /// The workflow.
    pub(crate) workflow: Arc<Workflow>,
    /// Its published version, to which the run is pinned.
    pub(crate) version: Arc<Version>,
    /// Set when `where` could not be evaluated: the run is kept as a dead letter instead of being skipped silently.
    pub(crate) failure: Option<ExpressionError>,
}

/// The runs that `event` starts in workspace `workspace`, in order of the workflows' names.
#[must_use]
pub(crate) fn matches(snapshot: &Snapshot, workspace: WorkspaceId, event: &Event, now: Timestamp) -> Vec<Match> {
    let mut found = Vec::new();
    for (workflow, version) in snapshot.listeners(workspace, &event.connector, &event.kind) {
        let Trigger::Event { connection, .. } = version.plan.trigger() else {
            continue;
        };
        if connection.is_some() && *connection != event.connection {
            continue;
        }
        let failure = match self::filter(snapshot, workspace, version, event, now) {
            Ok(true) => None,
            Ok(false) => continue,
            Err(error) => Some(error),
        };
        found.push(Match {
            workflow: Arc::clone(workflow),
            version: Arc::clone(version),
            failure,
        });
    }
    found
}

/// Whether the trigger's `where` lets the event through; true when there is none.
///
/// # Errors
/// It could not be evaluated: a path that is not there, or not a boolean.
pub(crate) fn filter(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    version: &Version,
    event: &Event,
    now: Timestamp,
) -> Result<bool, ExpressionError> {
    if matches!(
        version.plan.trigger(),
        Trigger::Event { filter: None, .. } | Trigger::Manual { .. } | Trigger::Schedule(_)
    ) {
        return Ok(true);
    }
    with_scope(snapshot, workspace, event, |scope| {
        version.plan.matches(event, &scope, now)
    })
}

/// Calls with what `where`, keys and `priority` see beside the event.
pub(crate) fn with_scope<T>(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    event: &Event,
    evaluate: impl FnOnce(TriggerScope<'_>) -> T,
) -> T {
    let connection = event
        .connection
        .as_deref()
        .and_then(|name| snapshot.connection_scope(workspace, name))
        .unwrap_or_default();
    let about =
        json!({ "kind": event.source.as_str(), "endpoint": event.endpoint, "scheduled_for": event.scheduled_for });
    evaluate(TriggerScope {
        connection: &connection,
        trigger: &about,
    })
}
