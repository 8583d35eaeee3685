//! Drives runs: the IO around [`Driver`], which says what is to be committed, performed and waited for.
//!
//! One task per run and no other writer of its journal, so a run's memory and its journal never disagree. A task ends
//! when its run ends or has nothing but a timer to wait for; then only its id stays in memory.

mod calls;

use self::calls::{Call, Calls};
use crate::budget::Class;
use crate::connection::Connection;
use crate::driver::{ActiveRun, Driver, Found, Given, Then, look_for, may_let_others_start};
use crate::mail::{self, Letter};
use crate::perform::Purpose;
use crate::repair::dead_letter;
use crate::runs::Mailbox;
use crate::service::{Core, Orchestrator};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument as _;
use weir_storage::{Fact, Leaves, RunCommit, RunStatus, RunUpdate, WriteError};
use weir_workflow_engine::{
    CallFailure, CallOutcome, CallResult, Command, HeldBy, Hold, OWN, Origin, Retry, RunId, Sent, Timestamp,
    WorkflowId, WorkspaceId, encode,
};

/// Pieces of mail that are taken out of an inbox at once.
const MAIL_AT_ONCE: u32 = 100;
/// How long a task waits before it offers a commit again that the full queue refused, or that the absent database could not take.
const COMMIT_RETRY_FIRST: Duration = Duration::from_millis(5);
/// Longest pause between two such offers.
const COMMIT_RETRY_MAX: Duration = Duration::from_secs(2);
/// How long a call is put off by a stop, so that the stopping process does not offer it again itself: less than a start
/// takes.
const PUT_OFF: Duration = Duration::from_secs(1);
/// Starts a task for `run`, which belongs to this node, or leaves it on disk when memory is full. Never waits: the writer
/// calls it between commits.
pub(crate) fn launch(core: &Arc<Core>, run: ActiveRun) {
    let id = run.state.head().id;
    let bytes = run.state.event().size_bytes();
    if core.stopping.is_cancelled() {
        return;
    }
    let Some(mailbox) = core.runs.enter(id, run.state.event().received_at, bytes) else {
        if !core.runs.is_active(id) {
            let priority = run.turn.as_ref().map_or(0, |turn| turn.priority);
            core.runs.leave_on_disk_with(id, priority);
        }
        return;
    };
    let task_core = Arc::clone(core);
    let ready_at = Instant::now();
    core.tasks.spawn(async move {
        task_core.runs.began(ready_at.elapsed());
        let mut place = Place {
            core: Arc::clone(&task_core),
            id,
            event_bytes: bytes,
            bytes,
            mailbox: Arc::clone(&mailbox),
        };
        let span = crate::trace::run(run.state.head(), run.traceparent.as_deref());
        let driven = crate::panics::caught(drive(&task_core, run, &mut place).instrument(span));
        let ended = tokio::select! {
            ended = driven => ended,
            // The run is somebody else's: what is under way ends as in a crash.
            () = task_core.lost_signal.cancelled() => Ok(Ended::Stopped),
        };
        drop(place);
        let ended = ended.unwrap_or_else(|panic| {
            let count = task_core.panics.note(id);
            metrics::counter!("weir_run_panics_total").increment(1);
            tracing::error!(run.id = %id, count, "the task of run {id} panicked: {panic}");
            Ended::Reload
        });
        match ended {
            // Mail that came while it was leaving.
            Ended::Parked { .. } if mailbox.take() => task_core.runs.mailed(&[id]),
            Ended::Parked { due: Some(due) } => task_core.runs.set_timer(due, id),
            Ended::Parked { due: None } => {}
            Ended::Reload => task_core.runs.leave_on_disk(id),
            Ended::Finished | Ended::Stopped => {}
        }
    });
}

/// A run's place in memory; given back also when its task panics.
struct Place {
    core: Arc<Core>,
    id: RunId,
    /// Bytes of its event.
    event_bytes: usize,
    /// What it counts for among all runs in memory.
    bytes: usize,
    mailbox: Arc<Mailbox>,
}

impl Place {
    /// Counts what the run has gathered beside its event. It never shrinks.
    fn grow_to(&mut self, gathered: usize) {
        let grown = (self.event_bytes + gathered).saturating_sub(self.bytes);
        if grown > 0 {
            self.bytes += grown;
            self.core.runs.grow(grown);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.core.runs.leave(self.id, self.bytes);
    }
}

/// How a task of a run ended.
enum Ended {
    /// The run is over.
    Finished,
    /// Only a timer is open, or something that comes from outside.
    Parked { due: Option<Timestamp> },
    /// Memory may differ from the journal: read it again.
    Reload,
    /// The process is stopping; the next start takes the run up again.
    Stopped,
}

async fn drive(core: &Arc<Core>, run: ActiveRun, place: &mut Place) -> Ended {
    let mut calls = Calls::default();
    let head = run.state.head();
    let purpose = Purpose {
        traceparent: run.traceparent.clone(),
        class: Class::of(run.state.event().source, head.replay_of.is_some()),
        workflow: Some(head.workflow),
        ..Purpose::default()
    };
    let (workspace, workflow) = (run.state.head().workspace, run.state.head().workflow);
    let version = Arc::clone(&run.version);
    let mut driver = Driver::new(run);
    place.grow_to(driver.gathered_bytes());
    let mut given: Option<Given> = None;
    loop {
        let now = core.clock.now();
        let stopping = core.stopping.is_cancelled();
        if stopping {
            driver.stop();
        }
        let step = {
            let snapshot = core.snapshot.load();
            let surroundings = snapshot.surroundings(workspace, &version.plan);
            match &given {
                None => driver.begin(&surroundings, &core.ids, now),
                Some(given) => driver.take(&surroundings, &core.ids, given, now),
            }
        };
        place.grow_to(driver.gathered_bytes());
        if step.leaves() {
            core.performer.intend(&step.commands);
        }
        if let Some(row) = step.commit {
            match calls.meanwhile(commit(core, (workspace, workflow), row, now)).await {
                Committed::Yes => driver.committed(),
                Committed::Reload => return Ended::Reload,
                Committed::Stop => return Ended::Stopped,
            }
        }
        for command in step.commands {
            calls.push(match stopping && !is_own(&command) {
                // What came back and the intents are on disk, and nothing leaves any more: the next server makes the call.
                true => held_by_stop(&command, now),
                false => perform(core, driver.run(), command, &purpose),
            });
        }
        let due = match step.then {
            Then::End(status) => {
                core.note_finished(driver.run(), &status, now);
                return Ended::Finished;
            }
            Then::Park { due } => return Ended::Parked { due },
            Then::Again => Some(now),
            Then::Wait { due } => match calls.meanwhile(next_letter(core, workspace, &driver)).await {
                Ok(Some(letter)) => {
                    given = Some(Given::Mail(letter));
                    continue;
                }
                Ok(None) => due,
                Err(()) => return Ended::Stopped,
            },
        };
        // What would begin again is held again: only calls that are under way are waited for.
        let due = due.filter(|_| !stopping || calls.is_empty());
        let until_stop = (!stopping).then(|| core.stopping.cancelled());
        given = Some(match calls.next_input((due, now), until_stop, &place.mailbox).await {
            Some(given) => given,
            None => {
                place.mailbox.take();
                if calls.meanwhile(refill(core, &mut driver)).await.is_err() {
                    return Ended::Stopped;
                }
                match calls.meanwhile(next_letter(core, workspace, &driver)).await {
                    Ok(letter) => letter.map_or(Given::Due, Given::Mail),
                    Err(()) => return Ended::Stopped,
                }
            }
        });
    }
}

/// Reads the inbox, as long as the database is away; `Err` when the process ends.
async fn refill(core: &Core, driver: &mut Driver) -> Result<(), ()> {
    let run = driver.run().state.head().id;
    loop {
        match core.store.run_mail(run, MAIL_AT_ONCE).await {
            Ok(rows) => {
                driver.refill(rows);
                return Ok(());
            }
            Err(error) => pause_for(core, &error).await?,
        }
    }
}

/// The next piece of mail, as long as the database is away; `Err` when the process ends.
async fn next_letter(core: &Core, workspace: WorkspaceId, driver: &Driver) -> Result<Option<Letter>, ()> {
    let Some(row) = driver.next_mail() else {
        return Ok(None);
    };
    loop {
        match mail::open(core, workspace, row).await {
            Ok(letter) => return Ok(Some(letter)),
            Err(error) => pause_for(core, &error).await?,
        }
    }
}

async fn pause_for(core: &Core, error: &weir_storage::ReadError) -> Result<(), ()> {
    tracing::debug!("the mail of a run cannot be read yet: {error}");
    tokio::select! {
        () = tokio::time::sleep(COMMIT_RETRY_MAX) => Ok(()),
        () = core.stopping.cancelled() => Err(()),
    }
}

/// Whether a command is carried out inside of this program.
fn is_own(command: &Command) -> bool {
    matches!(command, Command::Call(call) if call.connector == OWN)
}

/// What comes of a command when the process stops: it is no try, and offered again to whoever goes on.
fn held_by_stop(command: &Command, now: Timestamp) -> Call {
    let result = CallResult {
        outcome: CallOutcome::Held(Hold {
            until: now.plus(PUT_OFF),
            by: HeldBy::Stop,
            reason: "the server was stopping".to_owned(),
        }),
        exchanges: Vec::new(),
        origin: Origin::Sent,
    };
    let id = command.call();
    Box::pin(async move { (id, result) })
}

fn perform(core: &Arc<Core>, run: &ActiveRun, command: Command, purpose: &Purpose) -> Call {
    let workspace = run.state.head().workspace;
    if is_own(&command)
        && let Command::Call(call) = &command
    {
        let (core, call) = (Arc::clone(core), call.clone());
        let parent = run.as_parent();
        return Box::pin(async move { (call.call, crate::own::perform(&core, &parent, &call).await) });
    }
    let name = match &command {
        Command::Call(call) => &call.connection,
        Command::Read(read) => &read.connection,
    };
    let pins = &run.version.plan.resolution().pins;
    let known = core.snapshot.load().connection_of(workspace, name, pins);
    let pins = match &known {
        Some(_) => BTreeMap::new(),
        None => pins.clone(),
    };
    let (core, id, name, purpose) = (Arc::clone(core), command.call(), name.clone(), purpose.clone());
    let accepted_at = run.state.event().received_at;
    Box::pin(async move {
        let connection = match known {
            Some(connection) => connection,
            None => match made_elsewhere(&core, workspace, &name, &pins).await {
                Some(connection) => connection,
                None => return (id, connection_missing(&name)),
            },
        };
        let result = match &command {
            Command::Call(call) => core.performer.call(&connection, call, &purpose).await,
            Command::Read(read) => core.performer.read(&connection, read, accepted_at, &purpose).await,
        };
        (id, result)
    })
}

/// A connection that this node does not know yet: another one may have made it a moment ago.
async fn made_elsewhere(
    core: &Arc<Core>,
    workspace: WorkspaceId,
    name: &str,
    pins: &BTreeMap<String, String>,
) -> Option<Arc<Connection>> {
    let orchestrator = Orchestrator { core: Arc::clone(core) };
    if let Err(error) = orchestrator.reload().await {
        tracing::warn!("the configuration cannot be loaded to look for connection `{name}`: {error}");
    }
    core.snapshot.load().connection_of(workspace, name, pins)
}

fn connection_missing(name: &str) -> CallResult {
    CallResult {
        outcome: CallOutcome::Failed(CallFailure {
            code: "connection_missing".to_owned(),
            message: format!("there is no connection named `{name}` any more; create it again and the run goes on"),
            http_status: None,
            sent: Sent::Never,
            retry: Retry::Retryable {
                after: Some(Duration::from_secs(60)),
            },
        }),
        exchanges: Vec::new(),
        origin: Origin::Sent,
    }
}

/// Text as both databases take it: PostgreSQL has no NUL in texts.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Ends a run that cannot be loaded, behind whatever its journal holds.
pub(crate) async fn commit_update(
    core: &Core,
    (workspace, workflow): (WorkspaceId, WorkflowId),
    run: RunId,
    update: RunUpdate,
) -> Result<(), WriteError> {
    let seq = match core.store.journal_load(workspace, run).await {
        Ok(rows) => rows.last().map_or(0, |(seq, _)| seq + 1),
        Err(_) => return Err(WriteError::Unavailable),
    };
    let journal = encode(&[], core.clock.now());
    let pending = core
        .writer
        .submit(Fact::Run(RunCommit {
            run,
            seq,
            journal,
            update: Some(update),
            mail: None,
            leaves: Some(Leaves {
                workflow,
                repairs: None,
            }),
        }))
        .map_err(|_full| WriteError::Unavailable)?;
    pending.await.map(drop)
}

enum Committed {
    Yes,
    /// The journal is ahead of memory.
    Reload,
    /// The node has lost its lease or the process ends.
    Stop,
}

/// Commits the whole uncommitted prefix. Waits as long as the database is away: what has happened must be recorded, so
/// the entries are offered again until they are on disk or somebody else owns the run.
async fn commit(
    core: &Core,
    (workspace, workflow): (WorkspaceId, WorkflowId),
    row: RunCommit,
    now: Timestamp,
) -> Committed {
    let run = row.run;
    let mut pause = COMMIT_RETRY_FIRST;
    loop {
        let answer = match core.writer.submit(Fact::Run(row.clone())) {
            Ok(pending) => pending.await.map(drop),
            Err(_full) => Err(WriteError::Unavailable),
        };
        match answer {
            Ok(()) => return Committed::Yes,
            // Only events are routed.
            Err(WriteError::Unavailable | WriteError::Outdated { .. }) => {}
            Err(WriteError::Unknown) => {
                if may_let_others_start(&row) {
                    core.rescan.notify_one();
                }
                match core.store.journal_load(workspace, run).await {
                    Ok(rows) => match look_for(&row, &rows) {
                        Found::Made => return Committed::Yes,
                        Found::Overtaken => return Committed::Reload,
                        Found::Missing => {}
                    },
                    Err(error) => tracing::debug!("the journal cannot be read back yet: {error}"),
                }
            }
            Err(WriteError::Stale) => return Committed::Reload,
            Err(WriteError::Fenced) => return Committed::Stop,
            Err(WriteError::Refused(constraint)) => {
                // The same would be refused for ever: the run becomes a dead letter instead of a task that never ends.
                tracing::error!(run.id = %run, "journal row refused by the database: {constraint}");
                let update = RunUpdate {
                    status: RunStatus::Failed,
                    due_at: None,
                    finished_at: Some(now),
                    error_code: Some("not_storable".to_owned()),
                    error_step: None,
                    dead_letter: Some(dead_letter("not_storable", None, &constraint.to_string())),
                };
                if let Err(error) = commit_update(core, (workspace, workflow), run, update).await {
                    tracing::error!(run.id = %run, "the run's failure cannot be stored: {error}");
                }
                return Committed::Stop;
            }
        }
        if core.halted.is_cancelled() {
            return Committed::Stop;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(COMMIT_RETRY_MAX);
    }
}
