//! Who may start: the rules of all gates, on as much of their state as is needed.
//!
//! Storage loads the gates and the waiting runs that a batch can move, has the board decide, and writes what changed, all
//! under a lock on the workflow. The board itself knows no database and no clock. A queue that was not loaded is left
//! alone: whoever makes room loads it.

use std::collections::{BTreeMap, BTreeSet};

use super::gate::Gate;
use super::moves::{Arrival, Moves, Outcome, RunEnd, Stage, Standing};
use super::pause::MAX_RESUMED;
use super::{GateKey, GateKind, Rules, Turn};
use crate::definition::MAX_MAX_WAITING;
use crate::id::{RunId, WorkflowId};
use crate::time::Timestamp;

/// How long a run that waits with one point less of priority goes before a new one, in microseconds: one minute. So no
/// priority makes anybody wait for ever.
const PRIORITY_STEP_US: i64 = 60_000_000;

/// The gates and the runs in front of and behind them, as far as they matter now.
#[derive(Debug)]
pub struct Board {
    pub(super) gates: BTreeMap<GateKey, Gate>,
    pub(super) turns: BTreeMap<RunId, Standing>,
    pub(super) queues: BTreeMap<GateKey, BTreeSet<(i64, RunId)>>,
    /// The last position given out, per workflow.
    tails: BTreeMap<WorkflowId, i64>,
    /// Gates of paused workflows that let runs through.
    pub(super) resumed: BTreeSet<GateKey>,
    touched: BTreeSet<(GateKind, GateKey)>,
    changed_gates: BTreeSet<GateKey>,
    pub(super) changed_turns: BTreeSet<RunId>,
    pub(super) outcomes: BTreeMap<RunId, Outcome>,
    pub(super) positions: BTreeMap<RunId, i64>,
    pub(super) now: Timestamp,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            gates: BTreeMap::new(),
            turns: BTreeMap::new(),
            queues: BTreeMap::new(),
            tails: BTreeMap::new(),
            resumed: BTreeSet::new(),
            touched: BTreeSet::new(),
            changed_gates: BTreeSet::new(),
            changed_turns: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            positions: BTreeMap::new(),
            now: Timestamp::from_unix_ms(i64::MIN),
        }
    }
}

impl Board {
    /// Puts a workflow's last position on the board.
    pub fn load_tail(&mut self, workflow: WorkflowId, tail: i64) {
        self.tails.insert(workflow, tail);
    }

    /// Puts a gate on the board, as it is stored.
    pub fn load_gate(&mut self, key: GateKey, gate: Gate) {
        self.gates.insert(key, gate);
    }

    /// Puts a run on the board, as it is stored. Of those that wait at a gate the first ones are enough.
    pub fn load_turn(&mut self, run: RunId, standing: Standing) {
        if let Some(ask) = standing.gate() {
            self.queues.entry(ask.key).or_default().insert((standing.rank, run));
        }
        self.turns.insert(run, standing);
    }

    /// The gate, as it stands on the board.
    pub fn gate(&self, key: &GateKey) -> Option<&Gate> {
        self.gates.get(key)
    }

    /// The run, as it stands on the board.
    pub fn standing(&self, run: RunId) -> Option<&Standing> {
        self.turns.get(&run)
    }

    /// Every run on the board.
    pub fn standings(&self) -> impl Iterator<Item = (RunId, &Standing)> {
        self.turns.iter().map(|(run, standing)| (*run, standing))
    }

    /// Of which gates the first waiting runs are needed, and how many of them, before these runs leave and these turns
    /// arrive. The gates and the leaving runs themselves are on the board already.
    pub fn wanted<'t>(
        &self,
        leaving: impl IntoIterator<Item = RunId>,
        arriving: impl IntoIterator<Item = &'t Turn>,
    ) -> BTreeMap<GateKey, u32> {
        let mut wanted: BTreeMap<GateKey, u32> = BTreeMap::new();
        for run in leaving {
            for ask in self
                .turns
                .get(&run)
                .into_iter()
                .flat_map(|standing| &standing.turn.gates)
            {
                let depth = wanted.entry(ask.key).or_default();
                *depth = match ask.rules {
                    Rules::Pause { .. } => MAX_RESUMED,
                    _ => *depth + 1,
                };
            }
        }
        for ask in arriving.into_iter().flat_map(|turn| &turn.gates) {
            let merges = matches!(ask.rules, Rules::Lane { merge: true, .. });
            let opens = ask.rules.kind() != GateKind::Pause
                && self
                    .gates
                    .get(&ask.key)
                    .is_some_and(|gate| gate.limit < ask.rules.limit());
            if merges || opens {
                let all = if merges { MAX_MAX_WAITING } else { ask.rules.limit() };
                let depth = wanted.entry(ask.key).or_default();
                *depth = all.max(*depth);
            }
        }
        wanted.retain(|key, depth| {
            let Some(gate) = self.gates.get(key) else { return false };
            *depth = depth
                .saturating_add(gate.limit.saturating_sub(gate.inside))
                .min(gate.waiting);
            *depth > 0
        });
        wanted
    }

    /// A run was accepted: it starts, waits, or is over. Runs come in the order of acceptance.
    pub fn arrive(&mut self, arrival: Arrival, now: Timestamp) {
        self.now = now;
        let position = self.next_position(arrival.workflow);
        let standing = Standing {
            workspace: arrival.workspace,
            workflow: arrival.workflow,
            root: arrival.root,
            replay: arrival.replay,
            turn: arrival.turn,
            position,
            stage: Stage::At(0),
            rank: position,
        };
        self.positions.insert(arrival.run, standing.position);
        // A replay may come with the rules of an older version, which must not be those of everybody.
        let says = if standing.replay { &[][..] } else { &standing.turn.gates };
        for ask in says {
            let limit = ask.rules.limit();
            let per_ms = ask.rules.per_ms();
            let gate = self.gates.get_mut(&ask.key);
            if let Some(gate) = gate.filter(|gate| gate.limit != limit || gate.per_ms != per_ms) {
                if gate.limit < limit {
                    self.touched.insert((gate.kind, ask.key));
                }
                gate.limit = limit;
                gate.per_ms = per_ms;
                self.changed_gates.insert(ask.key);
            }
        }
        self.pass(arrival.run, standing, 0);
        self.settle();
    }

    /// The next place in the order of acceptance.
    pub(super) fn next_position(&mut self, workflow: WorkflowId) -> i64 {
        let tail = self.tails.entry(workflow).or_default();
        *tail = self.now.as_unix_ms().saturating_mul(1000).max(tail.saturating_add(1));
        *tail
    }

    /// A run is over: what it kept is free, but for the lane of a failed run that keeps it. Success also lets go of what
    /// others of its family keep, as far as they are on the board. Nothing happens when it is not on the board.
    pub fn leave(&mut self, run: RunId, end: RunEnd, now: Timestamp) {
        self.now = now;
        let Some(mut standing) = self.turns.remove(&run) else {
            return;
        };
        self.changed_turns.insert(run);
        let passed = match standing.stage {
            Stage::At(number) => {
                if let Some(ask) = standing.turn.gates.get(number) {
                    self.dequeue(ask.key, standing.rank, run);
                    self.touched.insert((ask.rules.kind(), ask.key));
                }
                number
            }
            Stage::Inside => standing.turn.gates.len(),
            Stage::Holds => 0,
        };
        let mut holds = false;
        for ask in standing.turn.gates.iter().take(passed) {
            if !ask.rules.kind().is_kept() {
                continue;
            }
            let keeps = matches!(ask.rules, Rules::Lane { hold: true, .. });
            if keeps && end == RunEnd::Failed && standing.stage == Stage::Inside {
                self.hold(ask.key, run);
                holds = true;
            } else {
                self.go_out(ask.key);
            }
        }
        match (standing.stage, end) {
            (Stage::Holds, _) => self.let_go(run, &standing),
            (_, RunEnd::Succeeded) => self.let_family_go(standing.root),
            (_, RunEnd::Failed | RunEnd::Canceled) => {}
        }
        if holds {
            standing.stage = Stage::Holds;
            self.turns.insert(run, standing);
        }
        self.settle();
    }

    /// A person lets the lane go on that a failed run keeps. Nothing happens when it keeps none.
    pub fn release(&mut self, run: RunId, now: Timestamp) {
        if self
            .turns
            .get(&run)
            .is_some_and(|standing| standing.stage == Stage::Holds)
        {
            self.leave(run, RunEnd::Canceled, now);
        }
    }

    /// A run of this family has succeeded, wherever it stood: the lanes that failed ones keep go on, as far as these are
    /// on the board.
    pub fn repaired(&mut self, root: RunId, now: Timestamp) {
        self.now = now;
        self.let_family_go(root);
        self.settle();
    }

    fn let_family_go(&mut self, root: RunId) {
        let held = self.turns.iter();
        let held = held.filter(|(_, standing)| standing.root == root && standing.stage == Stage::Holds);
        let held: Vec<RunId> = held.map(|(run, _)| *run).collect();
        for run in held {
            if let Some(standing) = self.turns.remove(&run) {
                self.changed_turns.insert(run);
                self.let_go(run, &standing);
            }
        }
    }

    /// What a failed run kept is free.
    fn let_go(&mut self, run: RunId, standing: &Standing) {
        for ask in &standing.turn.gates {
            let held = self.gates.get_mut(&ask.key).filter(|gate| gate.holder == Some(run));
            if let Some(gate) = held {
                gate.holder = None;
                gate.since = None;
                self.go_out(ask.key);
            }
        }
    }

    /// A run that fails keeps its lane. When it had gone in past one of its family, it stands for both from now on.
    fn hold(&mut self, key: GateKey, run: RunId) {
        let now = self.now;
        let Some(gate) = self.gates.get_mut(&key) else { return };
        let before = gate.holder.replace(run);
        gate.since = Some(now);
        self.changed_gates.insert(key);
        if let Some(before) = before {
            gate.inside = gate.inside.saturating_sub(1);
            self.turns.remove(&before);
            self.changed_turns.insert(before);
        }
    }

    /// The time of a waiting run has come, or somebody thinks so.
    pub fn due(&mut self, run: RunId, now: Timestamp) {
        self.now = now;
        let Some(standing) = self.turns.get(&run).cloned() else {
            return;
        };
        let (Stage::At(number), Some(ask)) = (standing.stage, standing.gate().cloned()) else {
            return;
        };
        match ask.rules {
            Rules::Debounce { .. } | Rules::Batch { .. } => {
                match self.gathers_until(&ask, &standing).filter(|until| *until > now) {
                    Some(until) => {
                        self.outcomes.insert(run, Outcome::Waits { due: Some(until) });
                    }
                    None => self.gathered(&ask, run, standing, number),
                }
            }
            Rules::Throttle { .. } => {
                if let Some(gate) = self.gates.get_mut(&ask.key) {
                    // Whoever waits first is woken next.
                    gate.alarm = None;
                    self.changed_gates.insert(ask.key);
                }
                self.outcomes.insert(run, Outcome::Waits { due: None });
                self.touched.insert((GateKind::Throttle, ask.key));
            }
            Rules::Pause { .. } | Rules::Lane { .. } | Rules::Concurrency { .. } => {}
        }
        self.settle();
    }

    /// What was decided, and what is to be written.
    pub fn finish(self) -> Moves {
        let gates = self.changed_gates.iter().map(|key| {
            let gate = self.gates.get(key).filter(|gate| gate.is_needed(self.now));
            (*key, gate.cloned())
        });
        let turns = self
            .changed_turns
            .iter()
            .map(|run| (*run, self.turns.get(run).cloned()));
        Moves {
            gates: gates.collect(),
            turns: turns.collect(),
            outcomes: self.outcomes,
            tails: self.tails,
            positions: self.positions,
        }
    }

    /// Lets a run through as many of its gates as have room, beginning with the one of this number.
    pub(super) fn pass(&mut self, run: RunId, mut standing: Standing, from: usize) {
        self.changed_turns.insert(run);
        for number in from..standing.turn.gates.len() {
            let Some(ask) = standing.turn.gates.get(number).cloned() else {
                break;
            };
            self.changed_gates.insert(ask.key);
            if self.goes_past(run, &standing, ask.key) {
                continue;
            }
            // A gate has a row only while somebody is in front of it or behind it.
            let gate = self.gates.entry(ask.key).or_insert_with(|| Gate::new(&standing, &ask));
            match ask.rules {
                // Replays were asked for by a person: they are no part of a burst.
                Rules::Debounce { .. } | Rules::Batch { .. } if standing.replay => continue,
                Rules::Debounce { .. } | Rules::Batch { .. } => {
                    if self.gather(run, &standing, &ask, number) {
                        return;
                    }
                    continue;
                }
                Rules::Pause { .. } | Rules::Lane { .. } | Rules::Concurrency { .. } | Rules::Throttle { .. } => {}
            }
            let open = gate.opens().is_some_and(|at| at <= self.now.as_unix_ms());
            if open && gate.waiting == 0 {
                gate.enter(self.now);
                continue;
            }
            if let Rules::Lane { merge, max_waiting, .. } = ask.rules {
                if merge && !standing.replay {
                    self.merge_waiting(ask.key, run);
                }
                let full = self.gates.get(&ask.key).is_some_and(|gate| gate.waiting >= max_waiting);
                if full {
                    self.go_out_of(&standing, number);
                    // It may have stood at a gate before this one.
                    self.turns.remove(&run);
                    self.outcomes.insert(run, Outcome::LaneFull);
                    return;
                }
            }
            standing.stage = Stage::At(number);
            standing.rank = match ask.rules {
                Rules::Pause { .. } | Rules::Debounce { .. } | Rules::Batch { .. } | Rules::Lane { .. } => {
                    standing.position
                }
                Rules::Concurrency { .. } | Rules::Throttle { .. } => {
                    let head_start = i64::from(standing.turn.priority) * PRIORITY_STEP_US;
                    standing.position.saturating_sub(head_start)
                }
            };
            // Only a queue that was empty is known whole; the others are looked at by whoever makes room.
            if self.gates.get(&ask.key).is_some_and(|gate| gate.waiting == 0) {
                self.touched.insert((ask.rules.kind(), ask.key));
            }
            self.enqueue(ask.key, run, standing);
            self.outcomes.insert(run, Outcome::Waits { due: None });
            return;
        }
        standing.stage = Stage::Inside;
        match standing
            .turn
            .gates
            .iter()
            .all(|ask| ask.rules.kind() == GateKind::Pause)
        {
            // It has nothing to do with gates any more.
            true => self.turns.remove(&run),
            false => self.turns.insert(run, standing),
        };
        self.outcomes.insert(run, Outcome::Starts);
    }

    /// Whether `run` repeats the failed run that keeps this gate: then it goes in past it. The failed one keeps its place
    /// until one of its family has succeeded.
    fn goes_past(&mut self, run: RunId, standing: &Standing, key: GateKey) -> bool {
        let Some(gate) = self.gates.get_mut(&key).filter(|gate| gate.kind == GateKind::Lane) else {
            return false;
        };
        let held = gate.holder.and_then(|holder| self.turns.get(&holder));
        let goes = gate.holder != Some(run)
            && held.is_some_and(|held| held.root == standing.root)
            // One after the other, also within a family.
            && gate.inside <= gate.limit;
        if goes {
            gate.enter(self.now);
        }
        goes
    }

    pub(super) fn enqueue(&mut self, key: GateKey, run: RunId, standing: Standing) {
        if let Some(gate) = self.gates.get_mut(&key) {
            gate.waiting += 1;
            self.changed_gates.insert(key);
        }
        self.queues.entry(key).or_default().insert((standing.rank, run));
        self.changed_turns.insert(run);
        self.turns.insert(run, standing);
    }

    /// Gives the places at the first gates of a run back.
    fn go_out_of(&mut self, standing: &Standing, gates: usize) {
        let kept = standing.turn.gates.iter().take(gates);
        let kept: Vec<GateKey> = kept
            .filter(|ask| ask.rules.kind().is_kept())
            .map(|ask| ask.key)
            .collect();
        kept.into_iter().for_each(|key| self.go_out(key));
    }

    /// Only the last waiting event is kept; replays were asked for by a person and stay.
    fn merge_waiting(&mut self, key: GateKey, into: RunId) {
        let queued: Vec<(i64, RunId)> = self.queues.get(&key).into_iter().flatten().copied().collect();
        for (rank, run) in queued {
            let Some(standing) = self.turns.get(&run) else { continue };
            if standing.replay {
                continue;
            }
            let standing = standing.clone();
            let passed = match standing.stage {
                Stage::At(number) => number,
                Stage::Inside | Stage::Holds => 0,
            };
            self.turns.remove(&run);
            self.changed_turns.insert(run);
            self.dequeue(key, rank, run);
            self.go_out_of(&standing, passed);
            self.outcomes.insert(run, Outcome::Merged { into });
        }
    }

    pub(super) fn dequeue(&mut self, key: GateKey, rank: i64, run: RunId) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.remove(&(rank, run));
        }
        if let Some(gate) = self.gates.get_mut(&key) {
            gate.waiting = gate.waiting.saturating_sub(1);
            if gate.alarm == Some(run) {
                gate.alarm = None;
            }
            if gate.holder == Some(run) && !gate.kind.is_kept() {
                gate.holder = None;
                gate.inside = 0;
                // A burst goes on with the next event; a batch is over.
                if gate.kind == GateKind::Batch {
                    gate.since = None;
                }
            }
            self.changed_gates.insert(key);
        }
    }

    fn go_out(&mut self, key: GateKey) {
        if let Some(gate) = self.gates.get_mut(&key) {
            gate.inside = gate.inside.saturating_sub(1);
            self.changed_gates.insert(key);
            self.touched.insert((gate.kind, key));
        }
    }

    /// Lets in whoever there is room for, at every gate where something changed.
    pub(super) fn settle(&mut self) {
        while let Some((kind, key)) = self.touched.pop_first() {
            while let Some(run) = self.next(key) {
                let Some(standing) = self.turns.get(&run).cloned() else {
                    continue;
                };
                let Stage::At(number) = standing.stage else { continue };
                if let Some(gate) = self.gates.get_mut(&key) {
                    gate.enter(self.now);
                }
                self.pass(run, standing, number + 1);
            }
            if kind == GateKind::Throttle {
                self.set_alarm(key);
            }
        }
    }

    /// Has the first waiting run of a throttle woken when it may pass.
    fn set_alarm(&mut self, key: GateKey) {
        let first = self.queues.get(&key).and_then(|queue| queue.first().copied());
        let (Some(gate), Some((_, run))) = (self.gates.get_mut(&key), first) else {
            return;
        };
        if gate.alarm.is_none() {
            gate.alarm = Some(run);
            let due = gate.opens().map(Timestamp::from_unix_ms);
            self.changed_gates.insert(key);
            self.outcomes.insert(run, Outcome::Waits { due });
        }
    }

    /// Takes the first waiting run out of the queue of a gate that has room.
    fn next(&mut self, key: GateKey) -> Option<RunId> {
        let gate = self.gates.get(&key)?;
        if gate.opens().is_none_or(|at| at > self.now.as_unix_ms()) {
            return None;
        }
        let (rank, run) = self.queues.get(&key)?.first().copied()?;
        self.dequeue(key, rank, run);
        Some(run)
    }
}
