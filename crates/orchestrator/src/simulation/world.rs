//! The world of one seed: its clock, what is going to happen in it, and the order in which it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use weir_storage::{NodeIdentity, SyncStore};
use weir_workflow_engine::{Entry, IdGenerator, RunId, Timestamp, VersionId, WorkspaceId};

use super::budget::{Budget, Purse};
use super::chance::Chance;
use super::definitions::{self, Written};
use super::item::Item;
use super::provider::Provider;
use super::replays::Replays;
use super::rules::Broken;
use super::setting;
use super::turns::Order;
use crate::answers::Answer;
use crate::driver::Driver;
use crate::snapshot::{Snapshot, Version};

/// When every world begins: 2026-01-01T00:00:00Z.
pub(super) const BEGIN: Timestamp = Timestamp::from_unix_ms(1_767_225_600_000);
/// What happens in a world at most; a world that goes on longer never ends. The busiest of 10,000 had 716.
const MAX_HAPPENINGS: u32 = 3_000;
/// How long a request takes on its way at most, and its answer.
const ON_THE_WAY: Duration = Duration::from_millis(120);
/// Reading a long journal after each of its commits would take most of the time.
const FOLDS: u64 = 30;
/// In so many of 100 places where a process may die it does.
const DIES: u64 = 4;
pub(super) const WORKSPACE: WorkspaceId = WorkspaceId::from_raw(1);

/// A rule that does not hold in a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broke(pub(super) String);

/// The database of a world can be read.
pub(super) fn unread(error: weir_storage::ReadError) -> Broke {
    Broke(error.to_string())
}

pub(super) type Lawful<T = ()> = Result<T, Broke>;

/// Fails with the rule that is broken.
pub(super) fn broke<T>(rule: &str, detail: impl std::fmt::Display) -> Lawful<T> {
    Err(Broke(format!("{rule}: {detail}")))
}

/// A process of a node, alive, standing still or dead.
pub(super) struct Process {
    pub(super) node: NodeIdentity,
    pub(super) ids: IdGenerator,
    pub(super) state: Life,
    pub(super) runs: BTreeMap<RunId, Live>,
    /// What happens to it while it stands still.
    pub(super) frozen: Vec<Item>,
    /// There is reason to look for runs of this node that nobody drives.
    pub(super) rescan: bool,
    /// Senders of events that wait for the answers of these runs.
    pub(super) callers: BTreeMap<RunId, usize>,
    /// Only in worlds with a budget.
    pub(super) purse: Option<Purse>,
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
    /// What its sender was answered by a `respond`.
    pub(super) answer: Option<Answer>,
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
    /// Versions that were published before.
    pub(super) versions: BTreeMap<VersionId, Arc<Version>>,
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
    pub(super) replays: Replays,
    /// What runs that begin at a step took over.
    pub(super) taken: BTreeMap<RunId, Vec<Entry>>,
    pub(super) order: Order,
    /// Until when every request is refused, lost or answered with an error.
    pub(super) away_until: Option<Timestamp>,
    /// What the connection may send; `None`: as much as it likes.
    pub(super) budget: Option<Budget>,
    pub(super) busiest_second: usize,
    /// After so many of 100 commits the run in memory is compared with the one on disk.
    pub(super) folds: u64,
    /// How long a request takes on its way, and its answer: at least and at most.
    pub(super) way: (Duration, Duration),
    /// What happens at most; a world that goes on longer never ends.
    pub(super) most_happenings: u32,
    /// Nothing goes wrong any more: everything must come to its end.
    pub(super) calm: bool,
    pub(super) queue: BTreeMap<(Timestamp, u64, u64), Item>,
    queued: u64,
    /// What had happened at the last heartbeat.
    pub(super) heard: Option<u32>,
    pub(super) happened: u32,
    trace: Option<String>,
}

/// What a world was like, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lived {
    pub(super) runs: usize,
    pub(super) happenings: u32,
    pub(super) processes: usize,
    /// Runs that waited for their turn and began.
    pub(super) waited: usize,
    /// Runs for whose events others stand.
    pub(super) merged: usize,
    /// Lanes that a person let go on.
    pub(super) let_go: usize,
    pub(super) replays: Replays,
    /// Events whose senders were answered by a `respond`.
    pub(super) answered: usize,
}

/// Lives through the world of a seed. With `traced` everything that happens is written down.
pub(super) fn live(store: &mut SyncStore, seed: u64, broken: Broken, traced: bool) -> (Lawful<Lived>, String) {
    let mut chance = Chance::new(seed);
    store.clear().expect("the tables can be emptied");
    let workflows = definitions::all(&mut chance);
    let mut world = match World::new(store, chance, workflows) {
        Ok(world) => world,
        Err(broke) => return (Err(broke), String::new()),
    };
    world.several = world.chance.percent(40);
    world.trouble = *world.chance.pick(&[0, 10, 25, 50]);
    if world.chance.percent(20) {
        world.budget = Some(Budget::new(*world.chance.pick(&[1, 2, 5])));
    }
    world.crashes_left = u32::try_from(world.chance.below(5)).unwrap_or_default();
    world.broken = broken;
    world.trace = traced.then(String::new);
    let lived = world.run();
    (lived, world.trace.unwrap_or_default())
}

impl<'a> World<'a> {
    /// A world in which nothing goes wrong yet.
    pub(super) fn new(store: &'a mut SyncStore, chance: Chance, workflows: Vec<Written>) -> Lawful<Self> {
        let snapshot = match setting::snapshot(&workflows) {
            Ok(snapshot) => Arc::new(snapshot),
            Err(reason) => return broke("every random workflow is a right one", reason),
        };
        Ok(Self {
            several: false,
            trouble: 0,
            crashes_left: 0,
            replays_left: 3,
            replays: Replays::default(),
            taken: BTreeMap::new(),
            versions: BTreeMap::new(),
            chance,
            broken: Broken::Nothing,
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
            order: Order::default(),
            away_until: None,
            budget: None,
            busiest_second: 0,
            folds: FOLDS,
            way: (Duration::ZERO, ON_THE_WAY),
            most_happenings: MAX_HAPPENINGS,
            calm: false,
            queue: BTreeMap::new(),
            queued: 0,
            heard: None,
            happened: 0,
            trace: None,
        })
    }

    /// What the workflows say holds from now on.
    pub(super) fn configure(&mut self) -> Lawful {
        match setting::snapshot(&self.workflows) {
            Ok(snapshot) => {
                self.snapshot = Arc::new(snapshot);
                Ok(())
            }
            Err(reason) => broke("every random workflow is a right one", reason),
        }
    }

    fn run(&mut self) -> Lawful<Lived> {
        let documents: Vec<String> = self
            .workflows
            .iter()
            .flat_map(|workflow| workflow.next.iter().chain([&workflow.document]))
            .map(ToString::to_string)
            .collect();
        for document in documents {
            self.note(|| document);
        }
        self.start("node-a");
        self.plan();
        loop {
            self.go_on(None)?;
            if self.calm && !self.is_anybody_kept()? {
                break;
            }
            if !self.calm {
                self.calm_down()?;
            }
        }
        self.judge()?;
        let runs = self.store.runs().map_err(|error| Broke(error.to_string()))?.len();
        Ok(Lived {
            runs,
            happenings: self.happened,
            processes: self.processes.len(),
            waited: self
                .order
                .released
                .intersection(&self.order.began.keys().copied().collect())
                .count(),
            merged: self.store.merged().map_err(unread)?.len(),
            let_go: self.order.let_go.len(),
            replays: self.replays,
            answered: self.told.iter().filter(|told| told.answer.is_some()).count(),
        })
    }

    /// Lets happen what is going to happen before this time, or all of it.
    pub(super) fn go_on(&mut self, until: Option<Timestamp>) -> Lawful {
        loop {
            self.heartbeat()?;
            let is_later = |((at, ..), _): &(&(Timestamp, u64, u64), &Item)| until.is_some_and(|until| *at >= until);
            if self.queue.first_key_value().filter(|first| !is_later(first)).is_none() {
                return Ok(());
            }
            let Some(((at, ..), item)) = self.queue.pop_first() else {
                return Ok(());
            };
            self.now = self.now.max(at);
            self.happened += 1;
            if self.happened > self.most_happenings {
                return broke("every run comes to its end", "too much happens");
            }
            self.happen(item)?;
        }
    }

    fn happen(&mut self, item: Item) -> Lawful {
        let process = match &item {
            Item::Load(process, _) | Item::Pass(process, _) | Item::Impatient(process, _) => Some(*process),
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
            | Item::Fetch { .. }
            | Item::Publish(_)
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
            Item::Pass(process, ticket) => self.pass(process, ticket),
            Item::Arrive(flight) => self.arrive(*flight),
            Item::Return(place, call, mut result) => {
                self.settle_budget(place, call, &mut result);
                self.returned(place, call, *result)
            }
            Item::Crash { reboot } => {
                self.crash(reboot);
                Ok(())
            }
            Item::TakeOver => self.take_over(),
            Item::Awake(process) => {
                self.awake(process);
                Ok(())
            }
            Item::Impatient(process, run) => {
                self.lose_patience(process, run);
                Ok(())
            }
            Item::Fetch { told, run, asks } => self.fetch(told, run, asks),
            Item::Publish(workflow) => self.publish(workflow),
            Item::Ask(wish) => self.ask(&wish),
        }
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
}
