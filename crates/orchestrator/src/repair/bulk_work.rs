//! Goes on with operations on many runs: each run of one has its turn, replays behind live events.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use weir_storage::{BulkChange, BulkItemState, BulkRow, BulkStatus, Operation};
use weir_workflow_engine::RunId;

use super::bulk::{BULK_IN_FLIGHT, parse_options};
use super::bulk_operation::Turn;
use super::bulk_request::{BulkAction, BulkRequest};
use super::bulk_resolve::BulkVerdict;
use super::{Refused, ReplayOptions, write};
use crate::service::{Core, Orchestrator};

/// Pause before the next look whether there is room.
const CALM_PAUSE: Duration = Duration::from_millis(50);
/// The same when what was begun waits for its turn, which the database is asked for.
const TURN_PAUSE: Duration = Duration::from_millis(200);
/// Pause after a read or write that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Which operations a loop goes on with. What is asked of open runs does not stand behind replays that take their time,
/// and neither of them behind looks at a provider that takes its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lot {
    Replays,
    Requests,
    Decisions,
}

impl Lot {
    /// Tells its loop that an operation has begun.
    pub(super) fn begun(self, core: &Core) -> &Notify {
        match self {
            Self::Replays => &core.bulk,
            Self::Requests => &core.bulk_requests,
            Self::Decisions => &core.bulk_decisions,
        }
    }
}

/// Goes on with the operations of this node until the process stops.
pub(crate) async fn work(core: Arc<Core>, lot: Lot) {
    let begun = lot.begun(&core);
    let orchestrator = Orchestrator {
        core: Arc::clone(&core),
    };
    loop {
        tokio::select! {
            () = begun.notified() => {}
            () = core.stopping.cancelled() => return,
        }
        let open = match core.store.bulk_open(&core.node).await {
            Ok(open) => open,
            Err(error) => {
                tracing::warn!("operations on runs cannot be listed, trying again later: {error}");
                continue;
            }
        };
        for bulk in open {
            let Some(task) = parse_task(&bulk) else {
                tracing::error!(bulk.id = %bulk.id, "the options of {} cannot be read", bulk.id);
                continue;
            };
            let its_lot = match task {
                Task::Replay(_) => Lot::Replays,
                Task::Request { .. } => Lot::Requests,
                Task::Resolve { .. } => Lot::Decisions,
            };
            if its_lot != lot {
                continue;
            }
            tokio::select! {
                () = drive(&orchestrator, &bulk, &task) => {}
                () = core.stopping.cancelled() => return,
            }
        }
    }
}

/// Gives each run of an operation its turn. What is cut off by a stop of the process goes on at the next start.
async fn drive(orchestrator: &Orchestrator, bulk: &BulkRow, task: &Task) {
    let core = &orchestrator.core;
    let mut flying: Vec<RunId> = Vec::new();
    loop {
        if matches!(task, Task::Replay(_))
            && let Some(pause) = room(core, &mut flying).await
        {
            tokio::time::sleep(pause).await;
            continue;
        }
        let next = async {
            let row = core.store.bulk_load(bulk.workspace, bulk.id).await?;
            if row.is_none_or(|row| row.status != BulkStatus::Running) {
                return Ok(None);
            }
            let pending = Some(BulkItemState::Pending);
            match core.store.bulk_items(bulk.id, pending, None, 1).await?.pop() {
                Some(item) => match task {
                    Task::Replay(options) => orchestrator.turn(bulk, options, &item).await.map(Some),
                    Task::Request { request, reason } => {
                        orchestrator.ask_turn(bulk, *request, reason, &item).await.map(Some)
                    }
                    Task::Resolve {
                        verdict,
                        note,
                        operation,
                    } => {
                        let said = (*verdict, note.as_str(), operation.as_deref());
                        orchestrator.resolve_turn(bulk, said, &item).await.map(Some)
                    }
                },
                None => {
                    let end = BulkChange::End {
                        bulk: bulk.id,
                        status: BulkStatus::Finished,
                        at: core.clock.now(),
                    };
                    let operation = Operation {
                        bulk: Some(end),
                        ..Operation::default()
                    };
                    match write(core, operation).await {
                        Ok(_) | Err(Refused::Stale) => Ok(None),
                        Err(Refused::Other(error)) => Err(error),
                    }
                }
            }
        };
        match next.await {
            Ok(Some(Turn::Started(run))) => flying.push(run),
            Ok(Some(Turn::Again)) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(bulk.id = %bulk.id, "{} waits: {error}", bulk.id);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// How long to wait before the next replay, if at all. Live events come first: nothing is added while any wait on disk,
/// or memory fills, or what was begun waits for its turn, where they would wait behind it.
async fn room(core: &Core, flying: &mut Vec<RunId>) -> Option<Duration> {
    let (_, backlog, _) = core.runs.depths();
    if backlog > 0 || core.runs.room() == 0 {
        return Some(CALM_PAUSE);
    }
    if flying.len() < BULK_IN_FLIGHT {
        return None;
    }
    let (active, gone): (Vec<RunId>, Vec<RunId>) = flying.iter().partition(|run| core.runs.is_active(**run));
    // Who left memory is over, asleep, or waits for its turn.
    let queued = match gone.is_empty() {
        true => Vec::new(),
        false => core.store.queued_among(&gone).await.unwrap_or(gone),
    };
    let pause = if queued.is_empty() { CALM_PAUSE } else { TURN_PAUSE };
    *flying = active.into_iter().chain(queued).collect();
    (flying.len() >= BULK_IN_FLIGHT).then_some(pause)
}

/// What an operation does with its runs.
enum Task {
    Replay(ReplayOptions),
    Request {
        request: BulkRequest,
        reason: String,
    },
    Resolve {
        verdict: BulkVerdict,
        note: String,
        /// The only operation it is about.
        operation: Option<String>,
    },
}

fn parse_task(bulk: &BulkRow) -> Option<Task> {
    let stored: Value = serde_json::from_str(&bulk.options).ok()?;
    let text = |name: &str| stored.get(name).and_then(Value::as_str).map(str::to_owned);
    match BulkAction::of(bulk) {
        BulkAction::Replay => parse_options(&stored).map(Task::Replay),
        BulkAction::Request(request) => {
            let reason = text("reason").unwrap_or_default();
            Some(Task::Request { request, reason })
        }
        BulkAction::Resolve => Some(Task::Resolve {
            verdict: BulkVerdict::of(&stored)?,
            note: text("note").unwrap_or_default(),
            operation: text("operation"),
        }),
    }
}
