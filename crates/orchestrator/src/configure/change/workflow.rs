//! What would change about a workflow: published, drafted, its draft discarded.

use similar::TextDiff;
use weir_storage::WorkflowState;
use weir_workflow_engine::{Catalogue as _, Definition, Plan, Resolution, WorkspaceId};

use super::{Planned, Write, current, difference, meets};
use crate::configure::catalogue::Prospect;
use crate::configure::document::{self, Parsed, Reader, WorkflowDocument, nearest};
use crate::configure::render::{pretty, workflow_document};
use crate::configure::{Action, ApplyError, Change, Expect, Kind, SourceDocument};
use crate::snapshot::Snapshot;

/// As whom the administrator decides, without an API token of that name.
const ADMIN: &str = "admin";

pub(super) fn plan_workflow(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    document: WorkflowDocument,
    prospect: &Prospect,
    reader: &mut Reader<'_>,
) -> Option<Planned> {
    let mut note = |problems: Vec<weir_workflow_engine::Problem>| {
        for problem in problems {
            reader.problem(&problem.pointer, problem.code, problem.message, problem.suggestion);
        }
    };
    let definition = Definition::parse(&document.definition).map_err(&mut note).ok()?;
    let resolution = weir_workflow_engine::check(&definition, prospect)
        .map_err(&mut note)
        .ok()?;
    Plan::compile(&definition, &resolution).map_err(&mut note).ok()?;
    let notes = notes(snapshot, workspace, &definition, &resolution, prospect);
    let before = snapshot
        .workflow(workspace, &document.name)
        .and_then(|workflow| workflow.published.as_ref())
        .map(|version| workflow_document(&version.definition));
    let after = workflow_document(&document.definition);
    let moved = published_again(snapshot, workspace, &document, &resolution);
    let mut planned = difference(
        Kind::Workflow,
        document.name.clone(),
        before,
        after,
        None,
        Write::Publish {
            document,
            resolution: Box::new(resolution),
        },
    );
    planned.change.notes.extend(notes);
    if let Some((write, note)) = moved.filter(|_| planned.change.action == Action::Unchanged) {
        planned.change.action = Action::Update;
        planned.change.notes.push(note);
        planned.write = write;
    }
    let stored = snapshot.workflow(workspace, &planned.change.name);
    if stored.is_some_and(|workflow| workflow.row.state == WorkflowState::Paused) {
        let note = "it stays paused; `weir workflow resume` lets it go on";
        planned.change.notes.push(note.to_owned());
    }
    Some(planned)
}

/// The published content again, because connections speak with other versions of their connectors than when it was
/// published, or because it was published when `item` meant something else. A draft is kept.
fn published_again(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    document: &WorkflowDocument,
    resolution: &Resolution,
) -> Option<(Write, String)> {
    let stored = snapshot.workflow(workspace, &document.name)?;
    let published = stored.published.as_ref()?.plan.resolution();
    let write = || Write::Restore {
        document: document.clone(),
        resolution: Box::new(resolution.clone()),
    };
    let before = &published.pins;
    if *before == resolution.pins {
        let note = "published again with the same content: `item` in a `for_each` with `as` is now that of the loop \
                    around it; runs that have begun keep their version";
        return (published.item_is_outer != resolution.item_is_outer).then(|| (write(), note.to_owned()));
    }
    let new = resolution
        .pins
        .iter()
        .filter(|(name, pin)| before.get(*name) != Some(pin));
    let new: Vec<String> = new
        .map(|(name, pin)| format!("connection `{name}` speaks with {pin}"))
        .collect();
    let note = format!(
        "published again with the same content: {}; runs that have begun keep their version",
        if new.is_empty() {
            "a connection has no version any more".to_owned()
        } else {
            new.join(", ")
        }
    );
    Some((write(), note))
}

/// What is allowed and yet probably not meant: event types that only the connector's `*` covers but that read like a
/// listed one, and people who may decide and whom nobody knows.
fn notes(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    definition: &Definition,
    resolution: &Resolution,
    prospect: &Prospect,
) -> Vec<String> {
    let trigger = resolution.connector.as_deref().zip(resolution.event_type.as_deref());
    let trigger = trigger.and_then(|(connector, kind)| {
        let meant = unlisted(connector, kind, prospect)?;
        Some(format!(
            "`{connector}` lists no event type `{kind}`, so nothing is read for it; {meant}"
        ))
    });
    let waits = definition.correlations().into_iter().filter_map(|wait| {
        let (connector, kind) = (&wait.connector, &wait.kind);
        let meant = unlisted(connector, kind, prospect)?;
        Some(format!(
            "a `wait_for` waits for `{connector}.{kind}`, and `{connector}` lists no such event type; {meant}"
        ))
    });
    let tokens: Vec<&str> = snapshot.tokens(workspace).map(|token| token.name.as_str()).collect();
    let deciders = definition.deciders().into_iter().filter(|name| name != ADMIN);
    let strangers = deciders.filter(|name| !tokens.contains(&name.as_str())).map(|name| {
        let cure = nearest(&name, tokens.iter().copied())
            .unwrap_or_else(|| format!("`weir token create --name {name} --scope run-approve` makes one"));
        format!("`by` names `{name}`, and no API token has that name: nobody decides as `{name}`; {cure}")
    });
    trigger.into_iter().chain(waits).chain(strangers).collect()
}

/// The listed event type that one which only `*` covers reads like.
fn unlisted(connector: &str, kind: &str, prospect: &Prospect) -> Option<String> {
    let listed = prospect.event_types(connector);
    let listed = || listed.iter().map(String::as_str).filter(|known| *known != "*");
    match listed().any(|known| known == kind) {
        true => None,
        false => nearest(kind, listed()),
    }
}

/// A draft must have the shape of a workflow; what it names may not exist yet.
pub(in crate::configure) fn plan_draft(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    source: &SourceDocument,
    expect: Expect,
) -> Result<Planned, ApplyError> {
    let parsed = document::read(0, source).map_err(ApplyError::Invalid)?;
    let mut reader = Reader::of(0, source, &parsed);
    let Parsed::Workflow(document) = parsed else {
        reader.problem("/kind", "wrong_kind", "only workflows have drafts", None);
        return Err(ApplyError::Invalid(reader.problems));
    };
    if let Err(problems) = Definition::parse(&document.definition) {
        for problem in problems {
            reader.problem(&problem.pointer, problem.code, problem.message, problem.suggestion);
        }
        return Err(ApplyError::Invalid(reader.problems));
    }
    let (id, revision) = current(snapshot, workspace, Kind::Workflow, &document.name);
    meets(expect, Kind::Workflow, &document.name, revision)?;
    let before = snapshot
        .workflow(workspace, &document.name)
        .and_then(|workflow| workflow.draft.as_ref())
        .map(|(_, draft)| workflow_document(draft));
    let after = workflow_document(&document.definition);
    let mut planned = difference(
        Kind::Workflow,
        document.name.clone(),
        before,
        after,
        None,
        Write::Draft(document),
    );
    if revision.is_some() && planned.change.action == Action::Create {
        planned.change.action = Action::Update;
    }
    planned.change.id = id.unwrap_or_default();
    planned.change.revision = revision.unwrap_or(0);
    Ok(planned)
}

/// Whether there is a draft to throw away.
pub(in crate::configure) fn plan_discard(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    name: &str,
    expect: Expect,
) -> Result<Planned, ApplyError> {
    let workflow = snapshot.workflow(workspace, name).ok_or(ApplyError::NotFound)?;
    let (number, draft) = workflow.draft.as_ref().ok_or(ApplyError::NotFound)?;
    meets(expect, Kind::Workflow, name, Some(workflow.row.revision))?;
    let action = match workflow.published {
        Some(_) => Action::Update,
        None => Action::Delete,
    };
    let text = pretty(&workflow_document(draft));
    let diff = TextDiff::from_lines(text.as_str(), "").unified_diff().to_string();
    let mut change = Change::of_workflow(workflow, action, diff);
    change.notes.push(format!("draft {number} discarded"));
    let write = Write::Discard;
    Ok(Planned { change, write })
}
