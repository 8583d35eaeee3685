//! The world of one seed: its clock, what is going to happen in it, and the order in which it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use weir_storage::{Mail, NodeIdentity, RunCommit, SyncStore};
use weir_workflow_engine::{CallCommand, CallId, CallResult, Command, IdGenerator, RunId, Timestamp, WorkspaceId};

use super::chance::Chance;
use super::definitions::{self, Written};
use super::provider::{Fate, Provider};
use super::rules::Broken;
use super::setting;
use crate::driver::Driver;
use crate::snapshot::Snapshot;

/// When every world begins: 2026-01-01T00:00:00Z.
pub(super) const BEGIN: Timestamp = Timestamp::from_unix_ms(1_767_225_600_000);
/// What happens in a world at most; a world that goes on longer never ends. The busiest of 10,000 had 827.
const MAX_HAPPENINGS: u32 = 3_000;
/// How often a node looks for work that nobody told it of.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// In so many of 100 places where a process may die it does.
const DIES: u64 = 4;
pub(super) const WORKSPACE: WorkspaceId = WorkspaceId::from_raw(1);

/// A rule that does not hold in a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broke(pub(super) String);

pub(super) type Lawful<T = ()> = Result<T, Broke>;

/// Fails with the rule that is broken.
pub(super) fn broke<T>(rule: &str, detail: impl std::fmt::Display) -> Lawful<T> {
    Err(Broke(format!("{rule}: {detail}")))
}

/// One thing that is going to happen.
#[derive(Debug)]
pub(super) enum Item {
    /// The provider delivers an event.
    Deliver(usize),
    /// A run is to be loaded by a process, or told that there is mail for it.
    Load(usize, RunId),
    /// A run in memory gets its turn.
    Turn(Place, Turn),
    /// A commit is offered again.
    Offer(Place, Box<RunCommit>, Box<Rest>),
    /// A process looks whether an effect was done.
    Look(Place, Box<CallCommand>),
    /// A process sends a request.
    Send(Place, Box<Command>),
    /// A request arrives at the provider.
    Arrive(Box<Flight>),
    /// A result comes back to a process.
    Return(Place, CallId, Box<CallResult>),
    /// The process in charge dies and is started again.
    Crash { reboot: bool },
    /// The process in charge stands still, and another node takes over.
    TakeOver,
    /// A process that stood still goes on.
    Awake(usize),
    /// Somebody wants something of a run.
    Ask(Wish),
}

/// A run in the memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) process: usize,
    pub(super) run: RunId,
    /// Another one each time it is loaded.
    pub(super) stay: u64,
}

/// Why a run gets its turn.
#[derive(Debug)]
pub(super) enum Turn {
    Begin,
    /// There is more to do at once, or the first piece of mail.
    Next,
    /// Its time has come.
    Due,
    /// There may be mail.
    Mail,
}

/// What of a step comes after its commit.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) commands: Vec<Command>,
    pub(super) then: crate::driver::Then,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) place: Place,
    pub(super) command: Command,
    pub(super) fate: Fate,
    /// The key as it stands in the request.
    pub(super) key: String,
    /// When whoever sent it stops waiting.
    pub(super) deadline: Timestamp,
}

/// What somebody may want of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// A cancel or a pause of some open run.
    Something,
    Cancel(RunId),
    Pause(RunId),
    Resume(RunId),
    Decide(RunId, String),
    Replay(RunId),
}

/// A process of a node, alive, standing still or dead.
pub(super) struct Process {
    pub(super) node: NodeIdentity,
    pub(super) ids: IdGenerator,
    pub(super) state: Life,
    pub(super) runs: BTreeMap<RunId, Live>,
    /// What happens to it while it stands still.
    pub(super) frozen: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    Still,
    Dead,
}

/// A run in memory.
pub(super) struct Live {
    pub(super) driver: Driver,
    pub(super) stay: u64,
    /// A commit of it is under way: nothing else is taken in.
    pub(super) committing: bool,
    /// What came meanwhile.
    pub(super) held: Vec<Item>,
}

/// An event of the provider.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) body: String,
    pub(super) acknowledged: bool,
    pub(super) deliveries: u32,
}

/// What a node's record of departures says. It survives its processes, not its machine.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    pub(super) complete_after: Option<Timestamp>,
    pub(super) intended: BTreeMap<String, Timestamp>,
    pub(super) departed: BTreeSet<String>,
}

pub(super) struct World<'a> {
    pub(super) chance: Chance,
    pub(super) broken: Broken,
    pub(super) now: Timestamp,
    pub(super) store: &'a mut SyncStore,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) workflows: Vec<Written>,
    pub(super) provider: Provider,
    pub(super) processes: Vec<Process>,
    pub(super) recorders: BTreeMap<String, Recorder>,
    /// Other nodes may take over, so that a record of departures alone proves nothing.
    pub(super) several: bool,
    /// In so many of 100 requests something goes wrong.
    pub(super) trouble: u64,
    /// Crashes and takeovers still to come by chance alone.
    pub(super) crashes_left: u32,
    pub(super) told: Vec<Told>,
    pub(super) stays: u64,
    /// Decisions that reached the inbox, with the time.
    pub(super) decided: BTreeMap<(RunId, String), Timestamp>,
    pub(super) asked: u64,
    pub(super) replays_left: u32,
    /// Nothing goes wrong any more: everything must come to its end.
    pub(super) calm: bool,
    queue: BTreeMap<(Timestamp, u64, u64), Item>,
    queued: u64,
    /// What had happened at the last heartbeat.
    heard: Option<u32>,
    happened: u32,
    trace: Option<String>,
}

/// What a world was like, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lived {
    pub(super) runs: usize,
    pub(super) happenings: u32,
    pub(super) processes: usize,
}

/// Lives through the world of a seed. With `traced` everything that happens is written down.
pub(super) fn live(store: &mut SyncStore, seed: u64, broken: Broken, traced: bool) -> (Lawful<Lived>, String) {
    let mut chance = Chance::new(seed);
    store.clear().expect("the tables can be emptied");
    let workflows = definitions::all(&mut chance);
    let snapshot = match setting::snapshot(&workflows) {
        Ok(snapshot) => Arc::new(snapshot),
        Err(reason) => return (broke("every random workflow is a right one", reason), String::new()),
    };
    let mut world = World {
        several: chance.percent(40),
        trouble: *chance.pick(&[0, 10, 25, 50]),
        crashes_left: u32::try_from(chance.below(5)).unwrap_or_default(),
        replays_left: 3,
        chance,
        broken,
        now: BEGIN,
        store,
        snapshot,
        workflows,
        provider: Provider::default(),
        processes: Vec::new(),
        recorders: BTreeMap::new(),
        told: Vec::new(),
        stays: 0,
        decided: BTreeMap::new(),
        asked: 0,
        calm: false,
        queue: BTreeMap::new(),
        queued: 0,
        heard: None,
        happened: 0,
        trace: traced.then(String::new),
    };
    let lived = world.run();
    (lived, world.trace.unwrap_or_default())
}

impl World<'_> {
    fn run(&mut self) -> Lawful<Lived> {
        let documents: Vec<String> = self
            .workflows
            .iter()
            .map(|workflow| workflow.document.to_string())
            .collect();
        for document in documents {
            self.note(|| document);
        }
        self.start("node-a");
        self.plan();
        loop {
            self.heartbeat()?;
            let Some(((at, ..), item)) = self.queue.pop_first() else {
                if self.calm {
                    break;
                }
                self.calm_down()?;
                continue;
            };
            self.now = self.now.max(at);
            self.happened += 1;
            if self.happened > MAX_HAPPENINGS {
                return broke("every run comes to its end", "too much happens");
            }
            self.happen(item)?;
        }
        self.judge()?;
        let runs = self.store.runs().map_err(|error| Broke(error.to_string()))?.len();
        Ok(Lived {
            runs,
            happenings: self.happened,
            processes: self.processes.len(),
        })
    }

    fn happen(&mut self, item: Item) -> Lawful {
        let process = match &item {
            Item::Load(process, _) => Some(*process),
            Item::Turn(place, _)
            | Item::Offer(place, ..)
            | Item::Look(place, _)
            | Item::Send(place, _)
            | Item::Return(place, ..) => Some(place.process),
            Item::Deliver(_)
            | Item::Arrive(_)
            | Item::Crash { .. }
            | Item::TakeOver
            | Item::Awake(_)
            | Item::Ask(_) => None,
        };
        if let Some(process) = process.and_then(|process| self.processes.get_mut(process)) {
            match process.state {
                Life::Alive => {}
                Life::Still => {
                    process.frozen.push(item);
                    return Ok(());
                }
                Life::Dead => return Ok(()),
            }
        }
        self.note(|| item.told());
        match item {
            Item::Deliver(told) => self.deliver(told),
            Item::Load(process, run) => self.load(process, run),
            Item::Turn(place, turn) => self.turn(place, turn),
            Item::Offer(place, row, rest) => self.offer(place, *row, *rest),
            Item::Look(place, command) => self.look(place, *command),
            Item::Send(place, command) => self.send(place, *command),
            Item::Arrive(flight) => {
                self.arrive(*flight);
                Ok(())
            }
            Item::Return(place, call, result) => self.returned(place, call, *result),
            Item::Crash { reboot } => {
                self.crash(reboot);
                Ok(())
            }
            Item::TakeOver => self.take_over(),
            Item::Awake(process) => {
                self.awake(process);
                Ok(())
            }
            Item::Ask(wish) => self.ask(&wish),
        }
    }

    /// Work that nobody told the process in charge of, as its heartbeat and its scans find it.
    fn heartbeat(&mut self) -> Lawful {
        let next = self.queue.first_key_value().map(|((at, ..), _)| *at);
        // Nothing changes while nothing happens: one look before each longer pause stands for all of them.
        let pauses = next.is_none_or(|at| at.since(self.now) >= HEARTBEAT) && self.heard != Some(self.happened);
        let Some(process) = self.in_charge().filter(|_| pauses) else {
            return Ok(());
        };
        self.heard = Some(self.happened);
        let node = self.processes[process].node.clone();
        let mut found = self
            .store
            .runs_with_mail(&node)
            .map_err(|error| Broke(error.to_string()))?;
        found.extend(
            self.store
                .open_runs(&node, self.now)
                .map_err(|error| Broke(error.to_string()))?
                .into_iter()
                .filter(|run| !self.processes[process].runs.contains_key(run)),
        );
        for run in found {
            // A run may keep its mail until a call comes back, so the next look finds it again: time must go by.
            self.after(HEARTBEAT, Item::Load(process, run));
        }
        Ok(())
    }

    /// The process that has the node's place.
    pub(super) fn in_charge(&self) -> Option<usize> {
        let last = self.processes.len().checked_sub(1)?;
        (self.processes[last].state == Life::Alive).then_some(last)
    }

    pub(super) fn after(&mut self, pause: Duration, item: Item) {
        self.at(self.now.plus(pause), item);
    }

    /// At once, in an order left to chance.
    pub(super) fn soon(&mut self, item: Item) {
        self.at(self.now, item);
    }

    pub(super) fn at(&mut self, at: Timestamp, item: Item) {
        self.queued += 1;
        let order = self.chance.number();
        self.queue.insert((at, order, self.queued), item);
    }

    /// Some time up to this one.
    pub(super) fn within(&mut self, longest: Duration) -> Duration {
        let most = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.chance.below(most + 1))
    }

    /// Whether the process dies here.
    pub(super) fn dies_here(&mut self) -> bool {
        self.is_struck(DIES)
    }

    /// Whether the process is struck here, in so many of 100 cases. Never once it is calm.
    pub(super) fn is_struck(&mut self, share: u64) -> bool {
        if self.calm || self.crashes_left == 0 || !self.chance.percent(share) {
            return false;
        }
        self.crashes_left -= 1;
        true
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now.since(BEGIN);
        if let Some(trace) = &mut self.trace {
            writeln!(trace, "{:>12.3} {}", now.as_secs_f64(), text()).expect("text can be written to text");
        }
    }

    pub(super) fn mail_of(&mut self, run: RunId) -> Lawful<Vec<Mail>> {
        self.store.mail(run).map_err(|error| Broke(error.to_string()))
    }
}

impl Item {
    fn told(&self) -> String {
        match self {
            Self::Deliver(told) => format!("event {told} is delivered"),
            Self::Load(process, run) => format!("process {process} is told of {run}"),
            Self::Turn(place, turn) => format!("turn of {} in process {}: {turn:?}", place.run, place.process),
            Self::Offer(place, row, _) => format!("commit {} of {} is offered again", row.seq, place.run),
            Self::Look(place, call) => format!("{} looks for {} {}", place.run, call.step, call.args.raw()),
            Self::Send(place, command) => format!("{} sends {:?}", place.run, command.call()),
            Self::Arrive(flight) => format!("request of {} arrives: {:?}", flight.place.run, flight.fate),
            Self::Return(place, call, result) => format!("{call} of {} comes back: {:?}", place.run, result.outcome),
            Self::Crash { reboot } => format!("crash, reboot: {reboot}"),
            Self::TakeOver => "another node takes over".to_owned(),
            Self::Awake(process) => format!("process {process} goes on"),
            Self::Ask(wish) => format!("somebody wants {wish:?}"),
        }
    }
}
