//! The rules of a run's life in memory, without its IO: what an input leads to, whether that must be on disk first,
//! what the commit holds, and what the run does after it.
//!
//! A [`Driver`] is synchronous and takes the time. Whoever holds it makes each [`Step`] in its order: the commit, then
//! the calls, then what follows. `runner` does so with the real writer and network, the simulation with made-up ones.

use std::sync::Arc;
use std::time::Duration;

use weir_storage::{Leaves, Mail as Row, RunCommit, RunStatus, RunUpdate};
use weir_workflow_engine::{
    CallId, CallResult, Command, Ending, Entry, Environment, EventSource, Finished, IdGenerator, Input, RunState,
    Status, Timestamp, Turn, attend, decide, encode,
};

use crate::mail::{Inbox, Letter};
use crate::own::Parent;
use crate::repair::dead_letter;
use crate::runner::storable;
use crate::snapshot::Version;

/// Entries of a run after which they are committed although nothing waits for that.
const COMMIT_BEYOND_ENTRIES: usize = 1000;
/// The same for the bytes that these entries hold.
const COMMIT_BEYOND_BYTES: usize = 1 << 20;
/// And how long they may be in memory alone while the run waits: people see what is on disk, and a slow call in one branch
/// must not hide for minutes what the others do.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// Code of a run that never began because the `where` of its trigger could not be evaluated.
pub(crate) const WHERE_FAILED: &str = "where_failed";
/// Code of a run that never began because a key of its flow control or its priority could not be computed.
const FLOW_CONTROL_FAILED: &str = "flow_control_failed";

/// A run with all it needs to be driven.
pub(crate) struct ActiveRun {
    pub(crate) state: RunState,
    pub(crate) version: Arc<Version>,
    /// Sequence number of the next journal row.
    pub(crate) next_seq: i32,
    pub(crate) first: First,
    /// What it has to pass before it may start; only of a run that is just being stored.
    pub(crate) turn: Option<Box<Turn>>,
    /// Whether its row says that it waits or is held: so it is found by its mail or in its time alone.
    pub(crate) asleep: bool,
    /// What was in its inbox when it was loaded.
    pub(crate) mail: Vec<Row>,
    /// Why the run must not go on. It becomes a dead letter, since skipping it silently could lose what somebody
    /// waits for.
    pub(crate) refused: Option<Refused>,
    /// Trace context of the webhook, if it sent one.
    pub(crate) traceparent: Option<String>,
}

impl ActiveRun {
    pub(crate) fn as_parent(&self) -> Parent {
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
            code: WHERE_FAILED,
            message: error.to_string(),
        }
    }

    /// A key of its flow control or its priority could not be computed.
    pub(crate) fn by_gate(error: &weir_workflow_engine::ExpressionError) -> Self {
        Refused {
            code: FLOW_CONTROL_FAILED,
            message: error.to_string(),
        }
    }

    /// Whether a run that failed with this code was refused when its event came: it never began.
    pub(crate) fn is_at_the_door(code: Option<&str>) -> bool {
        matches!(code, Some(WHERE_FAILED | FLOW_CONTROL_FAILED))
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
    /// Not at all: it waits for its turn, but has mail.
    Queued,
}

/// What a run takes in, once it has begun.
#[derive(Debug)]
pub(crate) enum Given {
    /// A call came back.
    Outcome(CallId, CallResult),
    /// The first piece of the inbox, opened.
    Mail(Letter),
    /// Its time has come, or there is more to do at once.
    Due,
}

/// What is to be done, in this order: the commit, the calls, what follows.
#[derive(Debug)]
pub(crate) struct Step {
    /// What must be on disk before anything else of this step; then [`Driver::committed`] is to be called.
    pub(crate) commit: Option<RunCommit>,
    /// Calls to make; each comes back as [`Given::Outcome`].
    pub(crate) commands: Vec<Command>,
    /// What follows.
    pub(crate) then: Then,
}

impl Step {
    /// Whether something leaves that cannot be taken back.
    pub(crate) fn leaves(&self) -> bool {
        self.commands.iter().any(Command::durable_first)
    }
}

/// What follows a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Then {
    /// [`Given::Due`] at once: the decision was cut so that others get their turn.
    Again,
    /// The first piece of the inbox, if there is one; otherwise whatever comes first of an outcome, mail and this time.
    Wait {
        /// When to come back at the latest.
        due: Option<Timestamp>,
    },
    /// It may leave memory: only a timer is open, or something that comes from outside.
    Park {
        /// When it wants to be woken.
        due: Option<Timestamp>,
    },
    /// It is over.
    End(Status),
}

/// A run in memory.
pub(crate) struct Driver {
    run: ActiveRun,
    inbox: Inbox,
    uncommitted: Vec<Entry>,
    /// When the first of these was decided.
    untold_since: Option<Timestamp>,
    committed_bytes: usize,
    /// Calls under way.
    calls: usize,
    /// The process may end any moment: what is known is written down at once.
    stopping: bool,
}

impl Driver {
    /// A run that begins, or goes on from its journal.
    pub(crate) fn new(mut run: ActiveRun) -> Self {
        Self {
            inbox: Inbox::new(&run.state, std::mem::take(&mut run.mail)),
            uncommitted: Vec::new(),
            untold_since: None,
            committed_bytes: run.state.gathered_bytes(),
            calls: 0,
            stopping: false,
            run,
        }
    }

    /// From now on whatever was decided is committed with the step that decided it.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// The run as it is in memory.
    pub(crate) fn run(&self) -> &ActiveRun {
        &self.run
    }

    /// What the commits so far and everything since have gathered, in bytes.
    pub(crate) fn gathered_bytes(&self) -> usize {
        self.run.state.gathered_bytes()
    }

    /// What was decided since the last commit was made ready.
    #[cfg(test)]
    pub(crate) fn uncommitted(&self) -> &[Entry] {
        &self.uncommitted
    }

    /// The oldest piece of mail that was read and not taken in.
    pub(crate) fn next_mail(&self) -> Option<&Row> {
        self.inbox.first()
    }

    /// What stands in the inbox now.
    pub(crate) fn refill(&mut self, rows: Vec<Row>) {
        self.inbox.refill(rows);
    }

    /// The first step.
    pub(crate) fn begin(&mut self, environment: &dyn Environment, ids: &IdGenerator, now: Timestamp) -> Step {
        if let Some(refused) = self.run.refused.take() {
            return self.refuse(&refused, ids, now);
        }
        let input = match self.run.first {
            First::Started => Input::Started,
            First::Recovered => Input::Recovered,
            First::Queued => return self.attended(None, ids, now),
        };
        self.decide(environment, ids, input, now)
    }

    /// The step that follows from what came.
    pub(crate) fn take(
        &mut self,
        environment: &dyn Environment,
        ids: &IdGenerator,
        given: &Given,
        now: Timestamp,
    ) -> Step {
        if self.run.first == First::Queued {
            return self.attend(environment, ids, given, now);
        }
        let input = match given {
            Given::Outcome(call, result) => {
                self.calls = self.calls.saturating_sub(1);
                Input::Outcome { call: *call, result }
            }
            Given::Mail(letter) => {
                self.inbox.take_first();
                letter.as_mail().map_or(Input::Due, Input::Mail)
            }
            Given::Due => Input::Due,
        };
        self.decide(environment, ids, input, now)
    }

    /// The commit of the last step is on disk.
    pub(crate) fn committed(&mut self) {
        self.run.next_seq += 1;
        self.committed_bytes = self.run.state.gathered_bytes();
        self.inbox.committed(&self.run.state);
    }

    fn decide(&mut self, environment: &dyn Environment, ids: &IdGenerator, input: Input<'_>, now: Timestamp) -> Step {
        let decision = match decide(&self.run.version.plan, &self.run.state, environment, input, now) {
            Ok(decision) => decision,
            Err(error) => return self.give_up(&error, ids, now),
        };
        for entry in &decision.entries {
            self.run.state.fold(entry);
        }
        self.inbox.note(&decision.entries);
        self.uncommitted.extend(decision.entries);
        let over = decision.status.is_final();
        let parks = matches!(decision.status, Status::Waiting | Status::Paused)
            && self.calls == 0
            && decision.commands.is_empty()
            && !decision.more
            && self.inbox.is_empty();
        // What is not on disk is done again after a crash, and held twice until then.
        let gathered = self.run.state.gathered_bytes() - self.committed_bytes;
        let many = self.uncommitted.len() >= COMMIT_BEYOND_ENTRIES || gathered >= COMMIT_BEYOND_BYTES;
        let waits_anew = !over && self.inbox.has_news(&self.run.state);
        let leaves = decision.commands.iter().any(Command::durable_first);
        let must_not_be_lost = self.stopping && !self.uncommitted.is_empty();
        if !self.uncommitted.is_empty() {
            self.untold_since.get_or_insert(now);
        }
        let is_late = self.untold_since.is_some_and(|since| now.since(since) >= TOLD_WITHIN);
        let commit = (leaves || parks || over || many || waits_anew || must_not_be_lost || is_late).then(|| {
            let update = match (over, parks) {
                (true, _) => Some(final_update(&decision.status, now)),
                (false, true) => Some(waiting_update(&decision.status, decision.due)),
                // What woke it is in this commit and nowhere else: after a crash it has to be among the open ones.
                (false, false) => self.run.asleep.then(awake_update),
            };
            self.run.asleep = parks;
            self.commit(update, over, ids, now)
        });
        self.calls += decision.commands.len();
        let then = if over {
            Then::End(decision.status)
        } else if parks {
            Then::Park { due: decision.due }
        } else if decision.more {
            Then::Again
        } else {
            let told = self.untold_since.map(|since| since.plus(TOLD_WITHIN));
            let due = decision.due.into_iter().chain(told).min();
            Then::Wait { due }
        };
        Step {
            commit,
            commands: decision.commands,
            then,
        }
    }

    /// Mail of a run that waits for its turn: it can be ended and held, and begins nothing.
    fn attend(&mut self, environment: &dyn Environment, ids: &IdGenerator, given: &Given, now: Timestamp) -> Step {
        let Given::Mail(letter) = given else {
            return self.attended(None, ids, now);
        };
        self.inbox.take_first();
        let mut status = self.run.state.status();
        if let Some(mail) = letter.as_mail() {
            let decision = attend(&self.run.version.plan, &self.run.state, environment, &mail, now);
            for entry in &decision.entries {
                self.run.state.fold(entry);
            }
            self.uncommitted.extend(decision.entries);
            status = decision.status;
        }
        self.attended(Some(status), ids, now)
    }

    /// What follows for a run that waits for its turn, with a commit of the mail that it took in.
    fn attended(&mut self, took: Option<Status>, ids: &IdGenerator, now: Timestamp) -> Step {
        let ended = took.clone().filter(Status::is_final);
        let update = ended.as_ref().map(|status| final_update(status, now));
        let commit = took.map(|_| self.commit(update, ended.is_some(), ids, now));
        let then = match ended {
            Some(status) => Then::End(status),
            None if self.inbox.is_empty() => Then::Park { due: None },
            None => Then::Wait { due: None },
        };
        Step {
            commit,
            commands: Vec::new(),
            then,
        }
    }

    /// The whole uncommitted prefix, with what changes about the run's row and its mail.
    fn commit(&mut self, update: Option<RunUpdate>, over: bool, ids: &IdGenerator, now: Timestamp) -> RunCommit {
        let journal = encode(&self.uncommitted, now);
        self.uncommitted.clear();
        self.untold_since = None;
        let leaves = over.then(|| self.leaves(update.as_ref())).flatten();
        RunCommit {
            run: self.run.state.head().id,
            seq: self.run.next_seq,
            journal,
            update,
            mail: self.inbox.change(ids, &self.run.state, over, now),
            leaves,
        }
    }

    /// What a run that ends may keep at gates. A replay that succeeds lets go of what its family keeps, even if its own
    /// version has no gates.
    fn leaves(&self, update: Option<&RunUpdate>) -> Option<Leaves> {
        let (state, plan) = (&self.run.state, &self.run.version.plan);
        let head = state.head();
        let succeeded = update.is_some_and(|update| update.status == RunStatus::Succeeded);
        // What a `run` step starts passes no gates.
        let repairs = succeeded && head.replay_of.is_some() && state.event().source != EventSource::Workflow;
        // A run that waits for its turn may do so for another reason than what its workflow says: that is paused.
        let waits = self.run.first == First::Queued;
        (repairs || waits || plan.has_gates()).then(|| Leaves {
            workflow: head.workflow,
            repairs: repairs.then_some(head.root_id),
        })
    }

    /// Ends a run that must not be driven.
    fn refuse(&mut self, refused: &Refused, ids: &IdGenerator, now: Timestamp) -> Step {
        self.uncommitted.push(Entry::Finished(Finished {
            ending: Ending::Failed {
                code: refused.code.into(),
                message: refused.message.as_str().into(),
                step: None,
            },
            at: now,
            output: None,
        }));
        self.end(failed(refused.code, &refused.message), ids, now)
    }

    /// Ends a run whose journal and version do not fit together.
    fn give_up(&mut self, error: &weir_workflow_engine::EngineError, ids: &IdGenerator, now: Timestamp) -> Step {
        tracing::error!(run.id = %self.run.state.head().id, "run cannot be decided: {error}");
        self.end(failed("engine_error", &error.to_string()), ids, now)
    }

    fn end(&mut self, status: Status, ids: &IdGenerator, now: Timestamp) -> Step {
        Step {
            commit: Some(self.commit(Some(final_update(&status, now)), true, ids, now)),
            commands: Vec::new(),
            then: Then::End(status),
        }
    }
}

fn failed(code: &str, message: &str) -> Status {
    Status::Failed {
        code: code.to_owned(),
        message: message.to_owned(),
        step: None,
    }
}

fn final_update(status: &Status, now: Timestamp) -> RunUpdate {
    let ended = |status| RunUpdate {
        status,
        due_at: None,
        finished_at: Some(now),
        error_code: None,
        error_step: None,
        dead_letter: None,
    };
    match status {
        Status::Succeeded | Status::Running | Status::Waiting | Status::Paused => ended(RunStatus::Succeeded),
        Status::Canceled => ended(RunStatus::Canceled),
        Status::Failed { code, message, step } => RunUpdate {
            error_code: Some(code.clone()),
            error_step: step.as_deref().map(storable),
            dead_letter: Some(dead_letter(code, step.as_deref(), message)),
            ..ended(RunStatus::Failed)
        },
    }
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
        dead_letter: None,
    }
}

fn awake_update() -> RunUpdate {
    RunUpdate {
        status: RunStatus::Running,
        due_at: None,
        finished_at: None,
        error_code: None,
        error_step: None,
        dead_letter: None,
    }
}

/// What the journal says about a commit whose result is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It was made.
    Made,
    /// Another commit has its place.
    Overtaken,
    /// Its place is free.
    Missing,
}

/// Whether a commit of unknown result may have let waiting runs start: nobody is told of those, so they must be looked for.
pub(crate) fn may_let_others_start(row: &RunCommit) -> bool {
    row.leaves.is_some()
}

/// Looks for a commit in the journal of its run.
pub(crate) fn look_for(row: &RunCommit, journal: &[(i32, Vec<u8>)]) -> Found {
    match journal.iter().find(|(seq, _)| *seq == row.seq) {
        Some((_, found)) if *found == row.journal => Found::Made,
        Some(_) => Found::Overtaken,
        None => Found::Missing,
    }
}
