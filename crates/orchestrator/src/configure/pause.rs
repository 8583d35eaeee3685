//! A workflow is paused and resumed: what arrives meanwhile is kept, and its runs begin afterwards.
//!
//! It is a state of the workflow and no part of its document: publishing changes nothing about it.

use super::change::meets;
use super::write::outcome;
use super::{Action, Actor, ApplyError, Change, ConfigProblem, Expect, Kind};
use crate::operate::MAX_NOTE_BYTES;
use crate::service::Orchestrator;
use crate::snapshot::Workflow;
use serde_json::json;
use weir_storage::{
    AuditEntry, ConfigChange, ConfigRowChange, ConfigSubject, ExpectedRevision, Fact, WorkflowRow, WorkflowState,
};
use weir_workflow_engine::WorkspaceId;

/// How often a change of the state is tried when somebody else changes the workflow meanwhile.
const TRIES: usize = 5;

impl Orchestrator {
    /// Pauses a workflow: its events are accepted, and their runs wait until it is resumed; its schedule does not fire.
    /// Runs that were accepted before go on. Harmless for one that is paused.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn workflow_pause(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        name: &str,
        reason: &str,
        expect: Expect,
    ) -> Result<Change, ApplyError> {
        if reason.len() > MAX_NOTE_BYTES {
            return Err(ApplyError::Invalid(vec![ConfigProblem {
                document: 0,
                origin: None,
                kind: Some(Kind::Workflow),
                name: Some(name.to_owned()),
                pointer: "/reason".to_owned(),
                line: None,
                code: "too_long".to_owned(),
                message: format!("the text has {} bytes, at most {MAX_NOTE_BYTES} are kept", reason.len()),
                suggestion: None,
            }]));
        }
        let reason = crate::runner::storable(reason);
        self.set_state((workspace, name), actor, WorkflowState::Paused, &reason, expect)
            .await
    }

    /// Resumes a workflow: the runs that waited begin in the order of acceptance, before those of events that arrive
    /// from now on, and its schedule fires again; `catch_up` says what becomes of the times that it missed. Harmless for
    /// one that is not paused.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn workflow_resume(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        name: &str,
        expect: Expect,
    ) -> Result<Change, ApplyError> {
        self.set_state((workspace, name), actor, WorkflowState::Resuming, "", expect)
            .await
    }

    async fn set_state(
        &self,
        (workspace, name): (WorkspaceId, &str),
        actor: &Actor,
        state: WorkflowState,
        reason: &str,
        expect: Expect,
    ) -> Result<Change, ApplyError> {
        let _one_at_a_time = self.core.configuring.lock().await;
        let mut conflict = ApplyError::NotFound;
        for _ in 0..TRIES {
            // What another server has just done to it counts.
            if !self.reload_if_changed().await {
                return Err(ApplyError::Unavailable("the configuration cannot be read".to_owned()));
            }
            let snapshot = self.snapshot();
            let workflow = snapshot.workflow(workspace, name).ok_or(ApplyError::NotFound)?;
            let revision = workflow.row.revision;
            meets(expect, Kind::Workflow, name, Some(revision))?;
            let is_paused = |state: WorkflowState| state == WorkflowState::Paused;
            if is_paused(workflow.row.state) == is_paused(state) {
                return Ok(Change::of_workflow(workflow, Action::Unchanged, String::new()));
            }
            let now = self.now();
            let audit = AuditEntry {
                id: self.core.new_id(now),
                workspace,
                at: now,
                actor: actor.label(),
                action: match state {
                    WorkflowState::Paused => "workflow.pause",
                    WorkflowState::Active | WorkflowState::Resuming => "workflow.resume",
                }
                .to_owned(),
                subject: name.to_owned(),
                client_ip: None,
                request_id: None,
                detail: json!({ "reason": reason }).to_string(),
            };
            let Some(current_revision) = self.put_state(workflow, state, vec![audit]).await? else {
                tracing::info!(actor = %actor.name, workflow.name = %name, "`{name}` {} by {}", if is_paused(state) { "paused" } else { "resumed" }, actor.name);
                let mut change = Change::of_workflow(workflow, Action::Update, String::new());
                change.revision = revision + 1;
                return Ok(change);
            };
            conflict = ApplyError::Conflict {
                kind: Kind::Workflow,
                name: name.to_owned(),
                current_revision,
            };
        }
        Err(conflict)
    }

    /// Nothing waits any more until a workflow is resumed.
    ///
    /// # Errors
    /// The database cannot be written or read now. That somebody else changed the workflow is none.
    pub(crate) async fn workflow_resumed(&self, workflow: &Workflow) -> Result<(), ApplyError> {
        let _one_at_a_time = self.core.configuring.lock().await;
        self.put_state(workflow, WorkflowState::Active, Vec::new())
            .await
            .map(drop)
    }

    /// Writes a state and puts it in force. `Some`: the workflow has another revision by now, and nothing was written.
    async fn put_state(
        &self,
        workflow: &Workflow,
        state: WorkflowState,
        audit: Vec<AuditEntry>,
    ) -> Result<Option<Option<i64>>, ApplyError> {
        let row = &workflow.row;
        let change = ConfigChange {
            changes: vec![ConfigRowChange::PutWorkflow(WorkflowRow {
                state,
                updated_at: self.now(),
                ..row.clone()
            })],
            expected: vec![ExpectedRevision {
                workspace: row.workspace,
                subject: ConfigSubject::Workflow(row.id),
                revision: Some(row.revision),
            }],
            audit,
        };
        let refused = outcome(self.writer(), Fact::Config(change)).await?;
        self.reload().await.map_err(|error| {
            ApplyError::Unavailable(format!("the change is stored, but could not be put in force: {error}"))
        })?;
        Ok(refused)
    }
}
