//! Versions of a workflow: what differs between two, an older one published again, a draft thrown away.

use super::change::{self, Planned, Write};
use super::render::{pretty, workflow_document};
use super::{Action, Actor, ApplyError, Change, Expect, Kind, SourceDocument};
use crate::service::Orchestrator;
use crate::snapshot::Workflow;
use serde_json::{Value, json};
use similar::TextDiff;
use std::sync::Arc;
use weir_storage::{VersionState, WorkflowVersionRow};
use weir_workflow_engine::{Difference, WorkspaceId, differences};

/// What differs between two versions.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionDiff {
    /// Number of the older one; `None`: there was none, and everything is new.
    pub from: Option<u32>,
    /// Number of the newer one.
    pub to: u32,
    /// Step by step, in the order of the newer one.
    pub differences: Vec<Difference>,
    /// The documents as a unified diff.
    pub text: String,
}

impl Orchestrator {
    /// What differs between two versions of a workflow. Left out: `to` is the draft, or else what is published; `from`
    /// is what is published if `to` is another one, or else the version before it.
    ///
    /// # Errors
    /// [`ApplyError::NotFound`]: no such workflow or version.
    pub async fn workflow_diff(
        &self,
        workspace: WorkspaceId,
        name: &str,
        from: Option<u32>,
        to: Option<u32>,
    ) -> Result<VersionDiff, ApplyError> {
        let snapshot = self.snapshot();
        let workflow = snapshot.workflow(workspace, name).ok_or(ApplyError::NotFound)?;
        let published = workflow.published.as_ref().map(|version| version.number);
        let draft = workflow.draft.as_ref().map(|(number, _)| *number);
        let to = to.or(draft).or(published).ok_or(ApplyError::NotFound)?;
        let newer = self
            .version_numbered(workspace, workflow, to)
            .await?
            .ok_or(ApplyError::NotFound)?;
        let older = match from {
            Some(number) => Some(
                self.version_numbered(workspace, workflow, number)
                    .await?
                    .ok_or(ApplyError::NotFound)?,
            ),
            None => match published.filter(|published| *published != to) {
                Some(published) => self.version_numbered(workspace, workflow, published).await?,
                None => self.version_before(workspace, workflow, to).await?,
            },
        };
        let document = |row: &WorkflowVersionRow| {
            let definition: Value = serde_json::from_str(&row.definition).unwrap_or_default();
            workflow_document(&definition)
        };
        let (before, after) = (
            older.as_ref().map(document).unwrap_or_else(|| json!({})),
            document(&newer),
        );
        let (old_text, new_text) = (pretty(&before), pretty(&after));
        Ok(VersionDiff {
            from: older.map(|row| row.number),
            to,
            differences: differences(&before, &after),
            text: TextDiff::from_lines(&old_text, &new_text).unified_diff().to_string(),
        })
    }

    /// Publishes an older version again, as a new version with the old content: numbers only rise, and what was
    /// published never changes. It is checked like any other document. A draft is kept, behind it.
    ///
    /// # Errors
    /// [`ApplyError::NotFound`]: no such workflow, or no such version was published; problems as for
    /// [`Orchestrator::apply`].
    pub async fn workflow_roll_back(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        name: &str,
        number: u32,
        expect: Expect,
    ) -> Result<Change, ApplyError> {
        let _one_at_a_time = self.core.configuring.lock().await;
        let snapshot = self.snapshot();
        let workflow = snapshot.workflow(workspace, name).ok_or(ApplyError::NotFound)?;
        let row = self.version_numbered(workspace, workflow, number).await?;
        let row = row
            .filter(|row| row.state == VersionState::Published)
            .ok_or(ApplyError::NotFound)?;
        let definition: Value =
            serde_json::from_str(&row.definition).map_err(|error| ApplyError::Unavailable(error.to_string()))?;
        let source = SourceDocument::from_value(workflow_document(&definition));
        let planned = change::plan(&self.core, &snapshot, workspace, &[source], expect)?;
        let planned = planned.into_iter().next().ok_or(ApplyError::NotFound)?;
        if planned.change.action == Action::Unchanged {
            return Ok(planned.change);
        }
        let mut change = planned.change;
        change.notes.push(format!("the content of version {number}"));
        let write = match planned.write {
            Write::Publish { document, resolution } => Write::Restore { document, resolution },
            other => other,
        };
        self.write_one(workspace, actor, Planned { change, write }).await
    }

    /// Throws the draft of a workflow away. What is published goes on; a workflow that was never published goes with
    /// its draft.
    ///
    /// # Errors
    /// [`ApplyError::NotFound`]: no such workflow, or it has no draft.
    pub async fn workflow_discard_draft(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        name: &str,
        expect: Expect,
    ) -> Result<Change, ApplyError> {
        let _one_at_a_time = self.core.configuring.lock().await;
        let planned = change::plan_discard(&self.snapshot(), workspace, name, expect)?;
        self.write_one(workspace, actor, planned).await
    }

    async fn version_numbered(
        &self,
        workspace: WorkspaceId,
        workflow: &Arc<Workflow>,
        number: u32,
    ) -> Result<Option<WorkflowVersionRow>, ApplyError> {
        let found = self
            .version_before(workspace, workflow, number.saturating_add(1))
            .await?;
        Ok(found.filter(|row| row.number == number))
    }

    async fn version_before(
        &self,
        workspace: WorkspaceId,
        workflow: &Arc<Workflow>,
        number: u32,
    ) -> Result<Option<WorkflowVersionRow>, ApplyError> {
        let page = self
            .core
            .store
            .version_page(workspace, workflow.row.id, Some(number), 1)
            .await;
        let page = page.map_err(|error| ApplyError::Unavailable(error.to_string()))?;
        Ok(page.rows.into_iter().next())
    }
}

impl Change {
    /// A change of a workflow that is there.
    pub(super) fn of_workflow(workflow: &Workflow, action: Action, diff: String) -> Self {
        Change {
            kind: Kind::Workflow,
            name: workflow.row.name.clone(),
            action,
            id: workflow.row.id.to_string(),
            revision: workflow.row.revision,
            diff,
            notes: Vec::new(),
        }
    }
}
