//! A node's processes: they drive runs as `runner` does, with every fault that can come between two statements.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use weir_storage::{Answer, Fact, FactOutcome, MailChange, RunCommit, RunStatus, WaitKind, WriteError};
use weir_workflow_engine::{CallId, CallResult, Command, IdGenerator, Status, encode};

use super::answers::is_respond;
use super::budget::Purse;
use super::item::{Item, Place, Rest, Turn};
use super::rules::Broken;
use super::turns::News;
use super::world::{Broke, Lawful, Life, Live, Process, WORKSPACE, World, broke};
use crate::driver::{ActiveRun, Driver, First, Found, Given, Step, Then, look_for, may_let_others_start};

/// How long a process waits before it offers a commit again.
const OFFER_AGAIN: Duration = Duration::from_millis(50);
/// How long a process may stand still.
const STILL: Duration = Duration::from_secs(90);
/// In so many of 100 commits with effects it stands still right after them.
const STALLS: u64 = 12;

impl World<'_> {
    /// A process begins in this node's place, and takes back its runs.
    pub(super) fn start(&mut self, name: &str) {
        let incarnation = i64::try_from(self.chance.below(1 << 62)).unwrap_or(1) + 1;
        let node = self.store.register(name, incarnation).expect("a node can register");
        let ids = IdGenerator::new(node.slot, node.id_high_water);
        self.recorders.entry(name.to_owned()).or_default();
        let process = self.processes.len();
        self.note(|| format!("process {process} starts as {name}"));
        self.processes.push(Process {
            node: node.clone(),
            ids,
            state: Life::Alive,
            runs: BTreeMap::new(),
            frozen: Vec::new(),
            rescan: false,
            callers: BTreeMap::new(),
            purse: self.budget.as_ref().map(Purse::new),
        });
        loop {
            match self.store.write(&node, Fact::Claim { limit: 64 }).result {
                Ok(FactOutcome::Claimed(runs)) if !runs.is_empty() => {}
                _ => break,
            }
        }
        for run in self.store.open_runs(&node).expect("open runs can be read") {
            self.soon(Item::Load(process, run));
        }
        for (due, run) in self.store.due_runs(&node).expect("due runs can be read") {
            self.at(due.max(self.now), Item::Load(process, run));
        }
    }

    /// The process in charge dies; another one of the same node starts.
    pub(super) fn crash(&mut self, reboot: bool) {
        let Some(process) = self.in_charge() else { return };
        let name = self.processes[process].node.name.clone();
        self.note(|| format!("process {process} dies"));
        self.die(process);
        if reboot {
            let now = self.now;
            let recorder = self.recorders.entry(name.clone()).or_default();
            recorder.intended.clear();
            recorder.departed.clear();
            recorder.complete_after = Some(now);
        }
        self.start(&name);
    }

    fn die(&mut self, process: usize) {
        let process = &mut self.processes[process];
        process.state = Life::Dead;
        process.runs.clear();
        process.frozen.clear();
        for told in std::mem::take(&mut process.callers).into_values() {
            self.deliver_again(told);
        }
    }

    /// The process in charge stands still, and the other node takes its place.
    pub(super) fn take_over(&mut self) -> Lawful {
        let Some(process) = self.in_charge() else { return Ok(()) };
        if !self.several {
            self.crash(false);
            return Ok(());
        }
        self.processes[process].state = Life::Still;
        let other = match self.processes[process].node.name.as_str() {
            "node-a" => "node-b",
            _ => "node-a",
        };
        self.start(other);
        let still = self.within(STILL);
        self.after(still, Item::Awake(process));
        Ok(())
    }

    /// A process that stood still goes on where it was.
    pub(super) fn awake(&mut self, process: usize) {
        let process = &mut self.processes[process];
        if process.state != Life::Still {
            return;
        }
        process.state = Life::Alive;
        for item in std::mem::take(&mut process.frozen) {
            self.soon(item);
        }
    }

    /// Writes a fact as this process. Whoever lost its place must not get anything written.
    pub(super) fn write(&mut self, process: usize, fact: Fact) -> Lawful<Answer> {
        let last = self.processes.len() - 1;
        let by = if self.broken == Broken::NoFence { last } else { process };
        let node = self.processes[by].node.clone();
        let news = News::of(&fact);
        let answer = self.store.write(&node, fact);
        self.order.note(news, &answer);
        if answer.result.is_ok() && process != last {
            return broke("a process whose place was taken writes nothing", process);
        }
        if answer.result == Err(WriteError::Fenced) {
            self.die(process);
        }
        Ok(answer)
    }

    /// Takes a run into memory.
    pub(super) fn enter(&mut self, process: usize, run: ActiveRun) -> Place {
        self.stays += 1;
        let place = Place {
            process,
            run: run.state.head().id,
            stay: self.stays,
        };
        let live = Live {
            driver: Driver::new(run),
            stay: place.stay,
            committing: false,
            held: Vec::new(),
        };
        self.processes[process].runs.insert(place.run, live);
        place
    }

    pub(super) fn live(&mut self, place: Place) -> Option<&mut Live> {
        let live = self.processes[place.process].runs.get_mut(&place.run)?;
        (live.stay == place.stay).then_some(live)
    }

    /// A run in memory gets its turn.
    pub(super) fn turn(&mut self, place: Place, turn: Turn) -> Lawful {
        let Some(live) = self.live(place) else {
            // It left memory meanwhile; whatever mail it has wants it back.
            if matches!(turn, Turn::Mail) {
                self.soon(Item::Load(place.process, place.run));
            }
            return Ok(());
        };
        if live.committing {
            live.held.push(Item::Turn(place, turn));
            return Ok(());
        }
        if live.driver.run().first == First::Queued && matches!(turn, Turn::Mail) {
            // It leaves memory at once, and whoever told it comes back then.
            live.held.push(Item::Turn(place, turn));
            return Ok(());
        }
        let given = match turn {
            Turn::Begin => None,
            Turn::Due => Some(Given::Due),
            Turn::Next => Some(self.letter(place)?.map_or(Given::Due, Given::Mail)),
            Turn::Mail => {
                let rows = self.mail_of(place.run)?;
                if let Some(live) = self.live(place) {
                    live.driver.refill(rows);
                }
                Some(self.letter(place)?.map_or(Given::Due, Given::Mail))
            }
        };
        self.take(place, given.as_ref())
    }

    /// A call came back.
    pub(super) fn returned(&mut self, place: Place, call: CallId, result: CallResult) -> Lawful {
        let Some(live) = self.live(place) else { return Ok(()) };
        if live.committing {
            live.held.push(Item::Return(place, call, Box::new(result)));
            return Ok(());
        }
        self.take(place, Some(&Given::Outcome(call, result)))
    }

    fn take(&mut self, place: Place, given: Option<&Given>) -> Lawful {
        let (snapshot, now) = (Arc::clone(&self.snapshot), self.now);
        let Process { runs, ids, .. } = &mut self.processes[place.process];
        let Some(live) = runs.get_mut(&place.run) else {
            return Ok(());
        };
        let version = Arc::clone(&live.driver.run().version);
        let surroundings = snapshot.surroundings(WORKSPACE, &version.plan);
        if live.driver.run().first != First::Queued {
            self.order.begins(place.run);
        }
        let step = match given {
            None => live.driver.begin(&surroundings, ids, now),
            Some(given) => live.driver.take(&surroundings, ids, given, now),
        };
        let open = live.driver.uncommitted().to_vec();
        self.note(|| {
            let commit = step
                .commit
                .as_ref()
                .map(|row| String::from_utf8_lossy(&row.journal).into_owned());
            format!("then {:?}, open {open:?}, commit {commit:?}", step.then)
        });
        self.make(place, step)
    }

    /// Only for a broken rule: takes mail out of the inbox before it is taken in.
    pub(super) fn commit_alone(&mut self, place: Place, change: MailChange) -> Lawful {
        let now = self.now;
        let Some(live) = self.live(place) else { return Ok(()) };
        let row = RunCommit {
            run: place.run,
            seq: live.driver.run().next_seq,
            journal: encode(&[], now),
            update: None,
            mail: Some(Box::new(change)),
            leaves: None,
        };
        if self.write(place.process, Fact::Run(row))?.result.is_ok()
            && let Some(live) = self.live(place)
        {
            live.driver.committed();
        }
        if self.dies_here() {
            self.crash(false);
        }
        Ok(())
    }

    fn make(&mut self, place: Place, step: Step) -> Lawful {
        self.intend(place, &step.commands);
        let Step {
            commit,
            mut commands,
            then,
        } = step;
        if self.broken == Broken::EffectsBeforeCommit {
            for command in std::mem::take(&mut commands) {
                self.dispatch(place, command);
            }
        }
        if self.broken == Broken::AnswerBeforeCommit {
            for command in &commands {
                if let Command::Call(call) = command
                    && is_respond(call)
                {
                    self.respond(place, call)?;
                }
            }
        }
        let rest = Rest { commands, then };
        match commit {
            Some(row) => {
                self.begins_nothing_while_it_waits(place, &row)?;
                self.offer(place, row, rest)
            }
            None => self.follow(place, rest),
        }
    }

    /// Commits, as long as it takes.
    pub(super) fn offer(&mut self, place: Place, row: RunCommit, rest: Rest) -> Lawful {
        if self.live(place).is_none() {
            return Ok(());
        }
        if self.dies_here() {
            self.crash(false);
            return Ok(());
        }
        let mishap = if self.calm { 100 } else { self.chance.below(100) };
        let answer = match mishap {
            0 | 1 => Answer::lost(WriteError::Unavailable),
            // The answer is lost, whether it was written or not.
            2 => Answer::lost(WriteError::Unknown),
            3 | 4 => {
                let answer = self.write(place.process, Fact::Run(self.bent(place, row.clone())))?;
                Answer::lost(answer.result.err().unwrap_or(WriteError::Unknown))
            }
            _ => self.write(place.process, Fact::Run(self.bent(place, row.clone())))?,
        };
        self.note(|| format!("commit {} of {}: {:?}", row.seq, row.run, answer.result));
        let found = match &answer.result {
            Ok(_) => Found::Made,
            Err(WriteError::Stale) => Found::Overtaken,
            // Only events are routed.
            Err(WriteError::Unavailable | WriteError::Outdated { .. }) => Found::Missing,
            Err(WriteError::Fenced) => return Ok(()),
            Err(WriteError::Refused(constraint)) => return broke("every commit can be stored", constraint),
            Err(WriteError::Unknown) => {
                if may_let_others_start(&row) {
                    self.processes[place.process].rescan = true;
                }
                let journal = self.store.journal(row.run).map_err(|error| Broke(error.to_string()))?;
                look_for(&row, &journal)
            }
        };
        match found {
            Found::Made => {}
            Found::Overtaken => {
                self.processes[place.process].runs.remove(&place.run);
                self.soon(Item::Load(place.process, place.run));
                return Ok(());
            }
            Found::Missing => {
                if let Some(live) = self.live(place) {
                    live.committing = true;
                }
                self.after(OFFER_AGAIN, Item::Offer(place, Box::new(row), Box::new(rest)));
                return Ok(());
            }
        }
        self.ask_about(place, &row);
        if self.dies_here() {
            self.crash(false);
            return Ok(());
        }
        self.hand_over(place.process, &answer);
        let Some(live) = self.live(place) else { return Ok(()) };
        live.driver.committed();
        live.committing = false;
        for item in std::mem::take(&mut live.held) {
            self.soon(item);
        }
        if self.chance.percent(self.folds) {
            self.folds_to_memory(place)?;
            self.sleeps_with_nothing_to_do(place.run)?;
        }
        self.follow(place, rest)
    }

    /// The commit as it goes out when a rule is broken.
    fn bent(&self, place: Place, mut row: RunCommit) -> RunCommit {
        if self.broken == Broken::StaysAsleep {
            row.update = row.update.filter(|update| update.status != RunStatus::Running);
        }
        let Some(change) = &mut row.mail else { return row };
        match self.broken {
            Broken::MailKept => change.taken.clear(),
            Broken::NoLookBack => {
                let fresh = self.processes[place.process].ids.next_raw(self.now);
                for wait in &mut change.opened {
                    if let WaitKind::Event { since, .. } = &mut wait.kind {
                        *since = fresh;
                    }
                }
            }
            _ => {}
        }
        row
    }

    /// What comes after the commit.
    fn follow(&mut self, place: Place, rest: Rest) -> Lawful {
        // It stands still between a commit and what comes after it.
        let stalls = self.several && rest.commands.iter().any(Command::durable_first) && self.is_struck(STALLS);
        for command in rest.commands {
            match command {
                // Answers are given at once, in the order of their steps.
                Command::Call(call) if is_respond(&call) => self.send(place, Command::Call(call))?,
                command => self.dispatch(place, command),
            }
        }
        if stalls {
            self.soon(Item::TakeOver);
        }
        match rest.then {
            Then::End(status) => {
                self.processes[place.process].runs.remove(&place.run);
                if matches!(status, Status::Failed { .. }) {
                    self.see_failure(place.run);
                }
            }
            Then::Park { due } => {
                let left = self.processes[place.process].runs.remove(&place.run);
                for item in left.into_iter().flat_map(|live| live.held) {
                    self.soon(item);
                }
                if let Some(due) = due {
                    self.at(due.max(self.now), Item::Load(place.process, place.run));
                }
            }
            Then::Again => self.soon(Item::Turn(place, Turn::Next)),
            Then::Wait { due } => {
                if self.live(place).is_some_and(|live| live.driver.next_mail().is_some()) {
                    self.soon(Item::Turn(place, Turn::Next));
                } else if let Some(due) = due {
                    self.at(due.max(self.now), Item::Turn(place, Turn::Due));
                }
            }
        }
        Ok(())
    }
}
