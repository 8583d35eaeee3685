//! Runs that wait for their turn before they start: what they have to pass, what happens when a time has come, what a
//! person does about it.
//!
//! Who may start is decided by storage, in the commit that accepts an event, ends a run, or says that a time has come.
//! Here is only what leads to such a commit and what follows from it. A run that waits is on disk alone.

use crate::configure::Actor;
use crate::control::ControlError;
use crate::driver::Refused;
use crate::repair::audit;
use crate::route;
use crate::service::{Core, Orchestrator};
use crate::settings::Role;
use crate::snapshot::{Snapshot, SnapshotError, Version};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use weir_storage::{Fact, HeldLane, Operation, RunRow, TurnAsk, TurnEvent, WorkflowRow, WorkflowState, WriteError};
use weir_workflow_engine::{Event, EventId, EventSource, RunId, Timestamp, Turn, WorkspaceId};

/// When it is tried again to say that a time has come, after the full queue refused it.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// What the run of an event has to pass before it may start; `None` when it may start at once.
///
/// # Errors
/// A key or the priority cannot be computed: the run must not start.
pub(crate) fn of(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    version: &Version,
    event: &Event,
    now: Timestamp,
) -> Result<Option<Box<Turn>>, Refused> {
    // What a `run` step starts is part of the run that waits for it: it must not wait for that one.
    if event.source == EventSource::Workflow || !version.plan.has_flow_control() {
        return Ok(None);
    }
    let turn = route::with_scope(snapshot, workspace, event, |scope| {
        version.plan.turn(version.workflow, event, &scope, now)
    });
    turn.map(|turn| turn.map(Box::new))
        .map_err(|error| Refused::by_gate(&error))
}

/// The same while its workflow is paused, or let through what waited meanwhile: everything else comes after that. A
/// replay is not held, since a person asked for it; what a `run` step starts never waits.
pub(crate) fn held(turn: Option<Box<Turn>>, workflow: &WorkflowRow, event: &Event) -> Option<Box<Turn>> {
    let open = match workflow.state {
        WorkflowState::Active => return turn,
        WorkflowState::Paused => false,
        WorkflowState::Resuming => true,
    };
    if event.source == EventSource::Workflow {
        return turn;
    }
    let mut turn = turn.unwrap_or_default();
    turn.hold(workflow.id, open);
    Some(turn)
}

/// The same for a replay on `version`. A limit that the live version has too is the live one's: how many may be under
/// way is no matter of the version that a run began on.
///
/// # Errors
/// See [`of`].
pub(crate) fn of_replay(
    snapshot: &Snapshot,
    workspace: WorkspaceId,
    version: &Version,
    event: &Event,
    now: Timestamp,
) -> Result<Option<Box<Turn>>, Refused> {
    let mut turn = of(snapshot, workspace, version, event, now)?;
    let live = snapshot.workflow_by_id(workspace, version.workflow);
    let live = live.and_then(|workflow| workflow.published.as_ref());
    if let (Some(turn), Some(live)) = (&mut turn, live.filter(|live| live.id != version.id)) {
        // What cannot be computed for this event limits nothing.
        if let Ok(Some(newer)) = of(snapshot, workspace, live, event, now) {
            turn.take_limits(&newer);
        }
    }
    Ok(turn)
}

/// Listens to what storage decides about turns.
pub(crate) fn listen(core: &Arc<Core>) {
    if !core.settings.roles.has(Role::Worker) {
        return;
    }
    let runs = Arc::downgrade(core);
    core.writer.on_turn(move |released, due| {
        let Some(core) = runs.upgrade() else { return };
        for run in released {
            core.runs.leave_on_disk(*run);
        }
        for (run, due) in due {
            core.runs.set_timer(*due, *run);
        }
    });
}

/// What follows when somebody looks at a run that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing: somebody else lets it start.
    Nothing,
    /// It is to be looked at again then.
    Later(Timestamp),
    /// Its time has come, and storage is to be told.
    Tell(TurnAsk),
}

/// What follows from a look at a run that waits for its turn.
pub(crate) fn at(run: &RunRow, now: Timestamp) -> Look {
    match run.due_at {
        None => Look::Nothing,
        Some(due) if due > now => Look::Later(due),
        Some(_) => Look::Tell(TurnAsk {
            run: run.id,
            workflow: run.workflow_id,
            at: now,
            event: TurnEvent::Due,
        }),
    }
}

/// Somebody looked at a run that waits for its turn. If its time has come, storage is told.
pub(crate) fn look(core: &Arc<Core>, run: &RunRow, now: Timestamp) {
    let ask = match at(run, now) {
        Look::Nothing => return,
        Look::Later(due) => return core.runs.set_timer(due, run.id),
        Look::Tell(ask) => ask,
    };
    // Not waited for: what follows is handed over by the writer, and what was not written is still due at the next
    // heartbeat.
    let Ok(pending) = core.writer.submit(Fact::Turn(ask)) else {
        return core.runs.set_timer(now.plus(TRY_AGAIN), run.id);
    };
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move {
        if pending.await == Err(WriteError::Unknown) {
            core.rescan.notify_one();
        }
    });
}

/// The events that a run stands for, beside its own.
pub(crate) async fn batch_of(
    core: &Core,
    snapshot: &Snapshot,
    row: &RunRow,
    own: EventId,
) -> Result<Vec<Event>, SnapshotError> {
    // A replay stands for what its first run stood for.
    let ids = core.store.run_batch_events(row.workspace, row.root_id).await?;
    let mut others = Vec::with_capacity(ids.len());
    for id in ids.into_iter().filter(|id| *id != own) {
        let corrupt = |reason: String| SnapshotError::Corrupt {
            row: format!("run {}", row.id),
            reason,
        };
        let stored = core.store.event_load(row.workspace, id).await?;
        let stored = stored.ok_or_else(|| corrupt(format!("event {id} of its batch is missing")))?;
        others.push(crate::recovery::restore_event(snapshot, &stored.row).map_err(corrupt)?);
    }
    Ok(others)
}

/// Why a run that never began ended, for people.
pub(crate) fn why_not_begun(code: &str) -> Option<&'static str> {
    match code {
        "lane_full" => {
            Some("so many runs waited in its lane already that this one was put aside; replay it when there is room")
        }
        _ => None,
    }
}

impl Orchestrator {
    /// Lets a lane go on that a failed run keeps (`on_block: hold`). The run stays as it is.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] when this run keeps no lane.
    pub async fn lane_release(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        run: RunId,
    ) -> Result<HeldLane, ControlError> {
        let held = self.core.store.held_lanes(workspace, Some(run), None, 1).await?;
        let lane = held.rows.into_iter().next().ok_or(ControlError::NotFound)?;
        let now = self.now();
        let ask = TurnAsk {
            run,
            workflow: lane.workflow,
            at: now,
            event: TurnEvent::Release,
        };
        let detail = json!({ "lane": lane.key });
        let operation = Operation {
            turn: Some(ask),
            audit: vec![audit(
                &self.core,
                workspace,
                actor,
                now,
                ("lane.release", run.to_string(), detail),
            )],
            ..Operation::default()
        };
        let pending = self
            .core
            .writer
            .submit(Fact::Operate(Box::new(operation)))
            .map_err(|full| ControlError::Unavailable(full.to_string()))?;
        pending.await.map_err(|error| {
            if error == WriteError::Unknown {
                // Runs may have been let go that no task drives.
                self.core.rescan.notify_one();
            }
            ControlError::Unavailable(error.to_string())
        })?;
        tracing::info!(actor = %actor.name, run.id = %run, "the lane that {run} kept goes on, says {}", actor.name);
        Ok(lane)
    }
}
