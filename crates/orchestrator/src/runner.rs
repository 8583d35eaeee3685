//! Drives runs: ask the engine, commit what must be on disk, perform, feed the outcome back.
//!
//! One task per run and no other writer of its journal, so a run's memory and its journal never disagree. A task ends
//! when its run ends or has nothing but a timer to wait for; then only its id stays in memory.

use crate::mail::{Inbox, Letter};
use crate::own::Parent;
use crate::perform::TraceContext;
use crate::runs::Mailbox;
use crate::service::Core;
use crate::snapshot::Version;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument as _;
use weir_storage::{Fact, MailChange, RunCommit, RunStatus, RunUpdate, WriteError};
use weir_workflow_engine::{
    CallFailure, CallId, CallOutcome, CallResult, Command, Ending, Entry, Finished, Input, OWN, Origin, Retry, RunId,
    RunState, Sent, Status, Timestamp, WorkspaceId, encode,
};

/// How long a task waits before it offers a commit again that the full queue refused, or that the absent database could not take.
const COMMIT_RETRY_FIRST: Duration = Duration::from_millis(5);
/// Longest pause between two such offers.
const COMMIT_RETRY_MAX: Duration = Duration::from_secs(2);
/// Entries of a run after which they are committed although nothing waits for that.
const COMMIT_BEYOND_ENTRIES: usize = 1000;
/// The same for the bytes that these entries hold.
const COMMIT_BEYOND_BYTES: usize = 1 << 20;

/// A run with all it needs to be driven.
pub(crate) struct ActiveRun {
    pub(crate) state: RunState,
    pub(crate) version: Arc<Version>,
    /// Sequence number of the next journal row.
    pub(crate) next_seq: i32,
    pub(crate) first: First,
    /// What was in its inbox when it was loaded.
    pub(crate) mail: Vec<weir_storage::Mail>,
    /// Why the run must not go on. It becomes a dead letter, since skipping it silently could lose what somebody
    /// waits for.
    pub(crate) refused: Option<Refused>,
    /// Trace context of the webhook, if it sent one.
    pub(crate) traceparent: Option<String>,
}

impl ActiveRun {
    fn as_parent(&self) -> Parent {
        Parent {
            head: self.state.head().clone(),
            event: Arc::clone(self.state.event()),
            traceparent: self.traceparent.clone(),
        }
    }
}

/// Why a run ends without being driven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Stable code.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: String,
}

impl Refused {
    /// The trigger's `where` could not be evaluated.
    pub(crate) fn by_filter(error: &weir_workflow_engine::ExpressionError) -> Self {
        Refused {
            code: "where_failed",
            message: error.to_string(),
        }
    }

    /// Its task panicked too often.
    pub(crate) fn by_panics() -> Self {
        Refused {
            code: crate::panics::INTERNAL_ERROR,
            message: format!(
                "driving the run failed {} times by a fault of this program; its log says where",
                crate::panics::MAX_PANICS
            ),
        }
    }
}

/// What makes a run move when its task starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// Accepted a moment ago.
    Started,
    /// Loaded from the database: calls that were under way have an unknown fate.
    Recovered,
}

/// Starts a task for `run`, or leaves it on disk when memory is full. Never waits: the writer calls it between commits.
pub(crate) fn launch(core: &Arc<Core>, run: ActiveRun) {
    let id = run.state.head().id;
    let bytes = run.state.event().body.size_bytes();
    if core.stopping.is_cancelled() {
        return;
    }
    let Some(mailbox) = core.runs.enter(id, run.state.event().received_at, bytes) else {
        if !core.runs.is_active(id) {
            core.runs.leave_on_disk(id);
        }
        return;
    };
    let task_core = Arc::clone(core);
    core.tasks.spawn(async move {
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

type Call = BoxFuture<'static, (CallId, CallResult)>;

async fn drive(core: &Arc<Core>, mut run: ActiveRun, place: &mut Place) -> Ended {
    let mut calls: FuturesUnordered<Call> = FuturesUnordered::new();
    let mut uncommitted: Vec<Entry> = Vec::new();
    let mut arrived: Option<(CallId, CallResult)> = None;
    let mut inbox = Inbox::new(&run.state, std::mem::take(&mut run.mail));
    let mut letter: Option<Letter> = None;
    let mut committed_bytes = run.state.gathered_bytes();
    place.grow_to(committed_bytes);
    let mut input_kind = match run.first {
        First::Started => NextInput::Started,
        First::Recovered => NextInput::Recovered,
    };
    if let Some(refused) = run.refused.take() {
        return refuse(core, run, &refused).await;
    }
    let trace = TraceContext {
        traceparent: run.traceparent.clone(),
    };
    loop {
        let now = core.clock.now();
        let input = match (&input_kind, &arrived) {
            (NextInput::Started, _) => Input::Started,
            (NextInput::Recovered, _) => Input::Recovered,
            (NextInput::Outcome, Some((call, result))) => Input::Outcome { call: *call, result },
            (NextInput::Mail, _) => match letter.as_ref().and_then(Letter::as_mail) {
                Some(mail) => Input::Mail(mail),
                None => Input::Due,
            },
            (NextInput::Outcome | NextInput::Due, _) => Input::Due,
        };
        let snapshot = core.snapshot.load();
        let surroundings = snapshot.surroundings(run.state.head().workspace);
        let decision = match weir_workflow_engine::decide(&run.version.plan, &run.state, &surroundings, input, now) {
            Ok(decision) => decision,
            Err(error) => {
                tracing::error!(run.id = %run.state.head().id, "run cannot be decided: {error}");
                let update = RunUpdate {
                    status: RunStatus::Failed,
                    due_at: None,
                    finished_at: Some(now),
                    error_code: Some("engine_error".to_owned()),
                    error_step: None,
                };
                return match commit(core, &mut run, &mut uncommitted, Some(update), None, now).await {
                    Committed::Yes => Ended::Finished,
                    Committed::Reload => Ended::Reload,
                    Committed::Stop => Ended::Stopped,
                };
            }
        };
        for entry in &decision.entries {
            run.state.fold(entry);
        }
        inbox.note(&decision.entries);
        uncommitted.extend(decision.entries);
        let gathered = run.state.gathered_bytes();
        place.grow_to(gathered);

        let leaves = decision.commands.iter().any(Command::durable_first);
        if leaves && core.stopping.is_cancelled() {
            // The intent was not committed, so nothing has to be remembered of it.
            return Ended::Stopped;
        }
        let waits_only = matches!(decision.status, Status::Waiting | Status::Paused)
            && calls.is_empty()
            && decision.commands.is_empty()
            && !decision.more
            && inbox.is_empty();
        // What is not on disk is done again after a crash, and held twice until then.
        let many = uncommitted.len() >= COMMIT_BEYOND_ENTRIES || gathered - committed_bytes >= COMMIT_BEYOND_BYTES;
        let over = decision.status.is_final();
        let waits_anew = !over && inbox.has_news(&run.state);
        if leaves {
            core.performer.intend(&decision.commands);
        }
        if leaves || waits_only || over || many || waits_anew {
            let update = if over {
                Some(final_update(&decision.status, now))
            } else {
                waits_only.then(|| waiting_update(&decision.status, decision.due))
            };
            let mail = inbox.change(core, &run.state, over, now);
            match commit(core, &mut run, &mut uncommitted, update, mail, now).await {
                Committed::Yes => {
                    committed_bytes = gathered;
                    inbox.committed(&run.state);
                }
                Committed::Reload => return Ended::Reload,
                Committed::Stop => return Ended::Stopped,
            }
        }
        if over {
            core.note_finished(&run, &decision.status, now);
            return Ended::Finished;
        }
        for command in decision.commands {
            calls.push(perform(core, &run, command, &trace));
        }
        if waits_only {
            return Ended::Parked { due: decision.due };
        }
        if !decision.more {
            match next_letter(core, &mut inbox).await {
                Ok(None) => {}
                Ok(found) => {
                    (input_kind, letter) = (NextInput::Mail, found);
                    continue;
                }
                Err(()) => return Ended::Stopped,
            }
        }
        let due = if decision.more { Some(now) } else { decision.due };
        (input_kind, arrived) = next_input(&mut calls, due, now, &place.mailbox).await;
        if matches!(input_kind, NextInput::Mail) {
            place.mailbox.take();
            letter = match refill(core, &mut inbox).await {
                Ok(()) => match next_letter(core, &mut inbox).await {
                    Ok(found) => found,
                    Err(()) => return Ended::Stopped,
                },
                Err(()) => return Ended::Stopped,
            };
        }
    }
}

/// Ends a run that must not be driven.
async fn refuse(core: &Arc<Core>, mut run: ActiveRun, refused: &Refused) -> Ended {
    let now = core.clock.now();
    let ending = Ending::Failed {
        code: refused.code.into(),
        message: refused.message.as_str().into(),
        step: None,
    };
    let status = Status::Failed {
        code: refused.code.to_owned(),
        message: refused.message.clone(),
        step: None,
    };
    let mut entries = vec![Entry::Finished(Finished {
        ending,
        at: now,
        output: None,
    })];
    let inbox = Inbox::new(&run.state, Vec::new());
    let mail = inbox.change(core, &run.state, true, now);
    match commit(
        core,
        &mut run,
        &mut entries,
        Some(final_update(&status, now)),
        mail,
        now,
    )
    .await
    {
        Committed::Yes => {
            core.note_finished(&run, &status, now);
            Ended::Finished
        }
        Committed::Reload => Ended::Reload,
        Committed::Stop => Ended::Stopped,
    }
}

enum NextInput {
    Started,
    Recovered,
    Outcome,
    Mail,
    Due,
}

/// Reads the inbox, as long as the database is away; `Err` when the process ends.
async fn refill(core: &Core, inbox: &mut Inbox) -> Result<(), ()> {
    loop {
        match inbox.refill(core).await {
            Ok(()) => return Ok(()),
            Err(error) => pause_for(core, &error).await?,
        }
    }
}

/// The next piece of mail, as long as the database is away; `Err` when the process ends.
async fn next_letter(core: &Core, inbox: &mut Inbox) -> Result<Option<Letter>, ()> {
    loop {
        match inbox.next(core).await {
            Ok(letter) => return Ok(letter),
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

async fn next_input(
    calls: &mut FuturesUnordered<Call>,
    due: Option<Timestamp>,
    now: Timestamp,
    mailbox: &Mailbox,
) -> (NextInput, Option<(CallId, CallResult)>) {
    let until = async {
        match due {
            Some(due) => tokio::time::sleep(due.since(now)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        Some(arrived) = calls.next() => (NextInput::Outcome, Some(arrived)),
        () = until => (NextInput::Due, None),
        () = mailbox.arrived() => (NextInput::Mail, None),
    }
}

fn perform(core: &Arc<Core>, run: &ActiveRun, command: Command, trace: &TraceContext) -> Call {
    let workspace = run.state.head().workspace;
    if let Command::Call(call) = &command
        && call.connector == OWN
    {
        let (core, call) = (Arc::clone(core), call.clone());
        let parent = run.as_parent();
        return Box::pin(async move { (call.call, crate::own::perform(&core, &parent, &call).await) });
    }
    let name = match &command {
        Command::Call(call) => &call.connection,
        Command::Read(read) => &read.connection,
    };
    let Some(connection) = core.snapshot.load().connection(workspace, name).cloned() else {
        let (id, name) = (command.call(), name.clone());
        return Box::pin(async move { (id, connection_missing(&name)) });
    };
    let core = Arc::clone(core);
    let trace = trace.clone();
    let accepted_at = run.state.event().received_at;
    match command {
        Command::Call(call) => {
            Box::pin(async move { (call.call, core.performer.call(&connection, &call, &trace).await) })
        }
        Command::Read(read) => Box::pin(async move {
            (
                read.call,
                core.performer.read(&connection, &read, accepted_at, &trace).await,
            )
        }),
    }
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

fn final_update(status: &Status, now: Timestamp) -> RunUpdate {
    let (status, error_code, error_step) = match status {
        Status::Succeeded | Status::Running | Status::Waiting | Status::Paused => (RunStatus::Succeeded, None, None),
        Status::Canceled => (RunStatus::Canceled, None, None),
        Status::Failed { code, step, .. } => (RunStatus::Failed, Some(code.clone()), step.as_deref().map(storable)),
    };
    RunUpdate {
        status,
        due_at: None,
        finished_at: Some(now),
        error_code,
        error_step,
    }
}

/// Text as both databases take it: PostgreSQL has no NUL in texts.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn waiting_update(status: &Status, due: Option<Timestamp>) -> RunUpdate {
    RunUpdate {
        status: match status {
            Status::Paused => RunStatus::Paused,
            _ => RunStatus::Waiting,
        },
        due_at: due,
        finished_at: None,
        error_code: None,
        error_step: None,
    }
}

/// Ends a run that cannot be loaded, behind whatever its journal holds.
pub(crate) async fn commit_update(
    core: &Core,
    workspace: WorkspaceId,
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
    run: &mut ActiveRun,
    uncommitted: &mut Vec<Entry>,
    update: Option<RunUpdate>,
    mail: Option<Box<MailChange>>,
    now: Timestamp,
) -> Committed {
    let journal = encode(uncommitted, now);
    uncommitted.clear();
    let mut pause = COMMIT_RETRY_FIRST;
    loop {
        let fact = Fact::Run(RunCommit {
            run: run.state.head().id,
            seq: run.next_seq,
            journal: journal.clone(),
            update: update.clone(),
            mail: mail.clone(),
        });
        let answer = match core.writer.submit(fact) {
            Ok(pending) => pending.await.map(drop),
            Err(_full) => Err(WriteError::Unavailable),
        };
        match answer {
            Ok(()) => {
                run.next_seq += 1;
                return Committed::Yes;
            }
            Err(WriteError::Unavailable) => {}
            Err(WriteError::Unknown) => match core
                .store
                .journal_load(run.state.head().workspace, run.state.head().id)
                .await
            {
                Ok(rows) => match rows.into_iter().find(|(seq, _)| *seq == run.next_seq) {
                    Some((_, found)) if found == journal => {
                        run.next_seq += 1;
                        return Committed::Yes;
                    }
                    Some(_) => return Committed::Reload,
                    None => {}
                },
                Err(error) => tracing::debug!("the journal cannot be read back yet: {error}"),
            },
            Err(WriteError::Stale) => return Committed::Reload,
            Err(WriteError::Fenced) => return Committed::Stop,
            Err(WriteError::Refused(constraint)) => {
                // The same would be refused for ever: the run becomes a dead letter instead of a task that never ends.
                let head = run.state.head();
                tracing::error!(run.id = %head.id, "journal row refused by the database: {constraint}");
                let update = RunUpdate {
                    status: RunStatus::Failed,
                    due_at: None,
                    finished_at: Some(now),
                    error_code: Some("not_storable".to_owned()),
                    error_step: None,
                };
                if let Err(error) = commit_update(core, head.workspace, head.id, update).await {
                    tracing::error!(run.id = %head.id, "the run's failure cannot be stored: {error}");
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
