//! A workflow is started with an event that is stored already: it was published, or mended, after the event had come.
//!
//! The run is one of the event's, as if the workflow had been there in time: with the event's own identity, so the keys of
//! its effects are those that every later replay has. Nothing of the workflow ran on the event, so there is nothing to be
//! shown first; when something did, that run is to be replayed.

use std::sync::Arc;

use serde_json::json;
use weir_storage::{Operation, RunOfEvent, RunOwner, RunStatus, StoredEvent, WorkflowState};
use weir_workflow_engine::{Event, EventId, RunId, Timestamp, Trigger, WorkspaceId};

use super::{Refused, audit, write};
use crate::configure::Actor;
use crate::control::{ControlError, brackets};
use crate::ingest::accept::{new_run, start_runs};
use crate::recovery::restore_event;
use crate::retention;
use crate::route::{self, Match};
use crate::runner;
use crate::service::Orchestrator;
use crate::snapshot::{Snapshot, Version, Workflow};

/// How often it is looked again when another workflow is started with the event at the same moment.
const TRIES: usize = 5;

/// Why a workflow was not started with a stored event.
#[derive(Debug, thiserror::Error)]
pub enum EventStartError {
    /// No such event in this workspace.
    #[error("there is no such event")]
    EventNotFound,
    /// No published workflow has this name.
    #[error("there is no published workflow with this name")]
    WorkflowNotFound,
    /// The workflow cannot take the event.
    #[error("the workflow cannot be started with this event: {why}{}", brackets(quoted.as_deref()))]
    NotStartable {
        /// Why.
        why: String,
        /// What went wrong in particular; it may quote contents of the event, so not everybody may see it.
        quoted: Option<String>,
    },
    /// A run of the workflow worked on the event already.
    #[error("{run} of this workflow works on the event already and is {}; replay that one", .status.as_str())]
    AlreadyRan {
        /// The first one.
        run: RunId,
        /// Where it stands.
        status: RunStatus,
    },
    /// The database cannot be read or written now; try again later.
    #[error("{0}")]
    Unavailable(String),
}

impl From<ControlError> for EventStartError {
    fn from(error: ControlError) -> Self {
        EventStartError::Unavailable(error.to_string())
    }
}

impl From<weir_storage::ReadError> for EventStartError {
    fn from(error: weir_storage::ReadError) -> Self {
        EventStartError::Unavailable(error.to_string())
    }
}

impl Orchestrator {
    /// Starts a workflow with a stored event, which its trigger must fit. Once per workflow and event.
    ///
    /// # Errors
    /// See [`EventStartError`].
    pub async fn event_start(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        event: EventId,
        workflow: &str,
    ) -> Result<RunId, EventStartError> {
        // One after the other: whether the workflow ran on the event depends on what the other one does.
        let _one_at_a_time = self.core.replaying.lock().await;
        for _ in 0..TRIES {
            if let Some(run) = self.event_start_once(workspace, actor, event, workflow).await? {
                return Ok(run);
            }
        }
        Err(EventStartError::Unavailable(
            "other workflows are started with the event at the same moment".to_owned(),
        ))
    }

    /// `None`: the event has got another run meanwhile.
    async fn event_start_once(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        event: EventId,
        name: &str,
    ) -> Result<Option<RunId>, EventStartError> {
        let core = &self.core;
        let not_startable = |why: String| EventStartError::NotStartable { why, quoted: None };
        let stored = core.store.event_load(workspace, event).await?;
        let stored = stored.ok_or(EventStartError::EventNotFound)?;
        let snapshot = self.snapshot();
        let workflow = snapshot.workflow(workspace, name);
        let published = workflow.and_then(|workflow| Some((workflow, workflow.published.as_ref()?)));
        let (workflow, version) = published.ok_or(EventStartError::WorkflowNotFound)?;
        if stored.is_copy {
            let why = "it is a copy that was edited for a replay; start with the event that it was made from";
            return Err(not_startable(why.to_owned()));
        }
        if workflow.row.state == WorkflowState::Paused {
            return Err(not_startable("it is paused; resume it first".to_owned()));
        }
        let runs = core.store.event_runs(workspace, event).await?;
        if let Some(run) = runs.iter().find(|run| run.workflow_id == workflow.row.id) {
            let (run, status) = (run.id, run.status);
            return Err(EventStartError::AlreadyRan { run, status });
        }
        let now = self.clock().now();
        let stands: Vec<_> = runs.iter().map(|run| (run.status, run.finished_at)).collect();
        if retention::is_leaving(&core.settings.retention, stored.row.received_at, &stands, now) {
            let why = "the time is over for which the event is kept (keep_runs_days, keep_failed_days)";
            return Err(not_startable(why.to_owned()));
        }
        let restored = restore_event(&snapshot, &stored.row).map_err(EventStartError::Unavailable)?;
        fits(version, &restored).map_err(not_startable)?;
        match route::filter(&snapshot, workspace, version, &restored, now) {
            Ok(true) => {}
            Ok(false) => return Err(not_startable("its `where` is not true for it".to_owned())),
            Err(error) => {
                return Err(EventStartError::NotStartable {
                    why: "its `where` cannot be evaluated for it".to_owned(),
                    quoted: Some(error.to_string()),
                });
            }
        }
        self.begin(&snapshot, actor, (workflow, version), (stored, restored), now)
            .await
    }

    async fn begin(
        &self,
        snapshot: &Snapshot,
        actor: &Actor,
        (workflow, version): (&Arc<Workflow>, &Arc<Version>),
        (stored, event): (StoredEvent, Event),
        now: Timestamp,
    ) -> Result<Option<RunId>, EventStartError> {
        let core = &self.core;
        let workspace = workflow.row.workspace;
        let found = Match {
            workflow: Arc::clone(workflow),
            version: Arc::clone(version),
            failure: None,
        };
        let started = start_runs(
            (&core.ids, snapshot),
            &Arc::new(event),
            &stored.dedupe,
            vec![found],
            workspace,
            stored.row.traceparent.as_deref(),
            now,
        );
        let Some(active) = started.into_iter().next() else {
            return Err(EventStartError::Unavailable("nothing was started".to_owned()));
        };
        let id = active.state.head().id;
        let owner = core.new_run_owner();
        let detail = json!({ "event": stored.row.id.to_string(), "workflow": workflow.row.name });
        let operation = Operation {
            of_event: Some(RunOfEvent {
                workspace,
                event: stored.row.id,
                before: stored.runs,
            }),
            starts: vec![new_run(&active, owner)],
            audit: vec![audit(
                core,
                workspace,
                actor,
                now,
                ("event.start", id.to_string(), detail),
            )],
            ..Operation::default()
        };
        let held = match write(core, operation).await {
            Ok(held) => held,
            Err(Refused::Stale) => return Ok(None),
            Err(Refused::Other(error)) => return Err(error.into()),
        };
        tracing::info!(actor = %actor.name, run.id = %id, "`{}` started with {} as {id} by {}", workflow.row.name, stored.row.id, actor.name);
        if !held.contains(&id) && owner == RunOwner::ThisNode {
            runner::launch(core, active);
        }
        Ok(Some(id))
    }
}

/// Whether the trigger of a workflow takes an event; why not.
fn fits(version: &Version, event: &Event) -> Result<(), String> {
    let (wanted, connection) = match version.plan.trigger() {
        Trigger::Event {
            event: wanted,
            connection,
            ..
        } => (wanted, connection),
        Trigger::Manual { .. } => return Err("it is started by hand, with an input of its own".to_owned()),
        Trigger::Schedule(_) => return Err("the clock starts it".to_owned()),
    };
    let (connector, kind) = wanted.split_once('.').unwrap_or((wanted, ""));
    if connector != event.connector || (kind != "*" && kind != event.kind) {
        let (connector, kind) = (&event.connector, &event.kind);
        return Err(format!(
            "it takes events of the type `{wanted}`, and this one is `{connector}.{kind}`"
        ));
    }
    if connection.is_some() && *connection != event.connection {
        let wanted = connection.as_deref().unwrap_or_default();
        let found = event.connection.as_deref().unwrap_or("none");
        return Err(format!(
            "it takes events of the connection `{wanted}`, and that of this one is `{found}`"
        ));
    }
    Ok(())
}
