//! Runs that were accepted while their workflow was paused begin once it is resumed.
//!
//! They are let through in the order of acceptance, so many per commit, and only while there is room for those that
//! arrive meanwhile; these wait behind them. Every worker does so, whoever comes first; after a crash the next one goes on.

use crate::service::{Core, Orchestrator};
use crate::snapshot::Workflow;
use std::sync::Arc;
use std::time::Duration;
use weir_storage::{Fact, HeldRuns, ReadError, TurnAsk, TurnEvent, WriteError};
use weir_workflow_engine::RunId;

/// Pause before it is tried again: the database was away, or there was no room.
const RETRY: Duration = Duration::from_millis(250);

/// What follows a round.
enum Next {
    /// There may be more.
    More,
    /// Nothing can be done now.
    Later,
    /// Nothing waits any more.
    Done,
}

/// Lets runs through until the process stops.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let snapshot = core.snapshot.load_full();
        let mut pause = None;
        for workflow in snapshot.resuming() {
            match round(&core, workflow).await {
                Ok(Next::More) => pause = pause.or(Some(Duration::ZERO)),
                Ok(Next::Later) => pause = Some(RETRY),
                Ok(Next::Done) => {
                    let orchestrator = Orchestrator {
                        core: Arc::clone(&core),
                    };
                    if let Err(error) = orchestrator.workflow_resumed(workflow).await {
                        tracing::warn!(workflow.name = %workflow.row.name, "that `{}` is active again cannot be stored yet: {error}", workflow.row.name);
                        pause = Some(RETRY);
                    }
                }
                Err(error) => {
                    tracing::warn!(workflow.name = %workflow.row.name, "runs of `{}` that waited cannot be let through yet: {error}", workflow.row.name);
                    pause = Some(RETRY);
                }
            }
        }
        tokio::select! {
            biased;
            () = core.stopping.cancelled() => return,
            () = core.resumed.notified() => {}
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

async fn round(core: &Arc<Core>, workflow: &Workflow) -> Result<Next, ReadError> {
    let (workspace, id) = (workflow.row.workspace, workflow.row.id);
    if !core.runs.has_room_for_held() {
        return Ok(Next::Later);
    }
    let held = core.store.held_runs(workspace, id).await?;
    // Asked also when none is seen: whoever accepts a run for the paused workflow at this moment, on another node, has
    // the lock that this waits for, and whoever comes after it sees that the workflow is resumed.
    let ask = TurnAsk {
        run: held.map_or(RunId::from_raw(0), |held: HeldRuns| held.first),
        workflow: id,
        at: core.clock.now(),
        event: TurnEvent::Resume,
    };
    let Ok(pending) = core.writer.submit(Fact::Turn(ask)) else {
        return Ok(Next::Later);
    };
    match pending.await {
        Ok(_) => {}
        Err(WriteError::Unknown) => {
            // Runs may have been let through that no task drives.
            core.rescan.notify_one();
            return Ok(Next::Later);
        }
        Err(_) => return Ok(Next::Later),
    }
    if held.is_some() {
        return Ok(Next::More);
    }
    let left = core.store.held_runs(workspace, id).await?;
    Ok(if left.is_some() { Next::More } else { Next::Done })
}
