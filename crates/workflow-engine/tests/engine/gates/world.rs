//! Gates as storage keeps them, and what to ask of them.

use std::collections::{BTreeMap, BTreeSet};

use weir_workflow_engine::{
    Arrival, Ask, Board, Gate, GateKey, GateKind, Moves, Outcome, Rules, RunEnd, RunId, Stage, Standing, Timestamp,
    Turn, WorkspaceId,
};

use super::WORKFLOW;
use crate::support::START;

pub(super) fn lane(key: &str, merge: bool, max_waiting: u32, hold: bool) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, GateKind::Lane, key),
        name: key.to_owned(),
        rules: Rules::Lane {
            merge,
            max_waiting,
            hold,
        },
    }
}

pub(super) fn limit(key: &str, limit: u32) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, GateKind::Concurrency, key),
        name: key.to_owned(),
        rules: Rules::Concurrency { limit },
    }
}

pub(super) fn throttle(limit: u32, per_ms: i64) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, GateKind::Throttle, ""),
        name: String::new(),
        rules: Rules::Throttle { limit, per_ms },
    }
}

pub(super) fn debounce(key: &str, quiet_ms: i64, max_ms: Option<i64>) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, GateKind::Debounce, key),
        name: key.to_owned(),
        rules: Rules::Debounce { quiet_ms, max_ms },
    }
}

/// These gates behind that of a workflow that is paused, or that was resumed.
pub(super) fn held(open: bool, gates: Vec<Ask>) -> Vec<Ask> {
    let mut turn = Turn { priority: 0, gates };
    turn.hold(WORKFLOW, open);
    turn.gates
}

pub(super) fn batch(size: u32, within_ms: i64) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, GateKind::Batch, ""),
        name: String::new(),
        rules: Rules::Batch { size, within_ms },
    }
}

/// What storage does, without storage: it loads no more than a board says it needs.
#[derive(Default)]
pub(super) struct World {
    pub(super) gates: BTreeMap<GateKey, Gate>,
    pub(super) turns: BTreeMap<RunId, Standing>,
    pub(super) tail: i64,
    pub(super) now: i64,
    /// What became of each run, the last word.
    pub(super) outcomes: BTreeMap<RunId, Outcome>,
    /// Runs in the order in which they started.
    pub(super) started: Vec<RunId>,
    pub(super) next_run: i64,
    pub(super) dues: BTreeMap<RunId, Timestamp>,
    pub(super) started_at: BTreeMap<RunId, i64>,
    /// Replays, and the first runs of their families.
    pub(super) replays: BTreeMap<RunId, RunId>,
    pub(super) cancelled: BTreeSet<RunId>,
}

pub(super) enum Act {
    Arrive(Vec<Arrival>),
    Leave(Vec<(RunId, RunEnd)>),
    Release(RunId),
    Due(RunId),
    Resume(RunId),
}

impl World {
    pub(super) fn now(&self) -> Timestamp {
        START.plus(std::time::Duration::from_millis(u64::try_from(self.now).unwrap()))
    }

    pub(super) fn act(&mut self, act: Act) {
        let mut board = Board::default();
        board.load_tail(WORKFLOW, self.tail);
        let (leaving, arriving): (Vec<RunId>, Vec<Turn>) = match &act {
            Act::Arrive(arrivals) => (
                Vec::new(),
                arrivals.iter().map(|arrival| arrival.turn.clone()).collect(),
            ),
            Act::Leave(runs) => (runs.iter().map(|(run, _)| *run).collect(), Vec::new()),
            Act::Release(run) | Act::Due(run) | Act::Resume(run) => (vec![*run], Vec::new()),
        };
        let mut leaving = leaving;
        let ends: &[(RunId, RunEnd)] = if let Act::Leave(runs) = &act { runs } else { &[] };
        let succeeded = ends.iter().filter(|(_, end)| *end == RunEnd::Succeeded);
        let repaired: Vec<RunId> = succeeded
            .filter_map(|(run, _)| self.replays.get(run).copied())
            .collect();
        let held = self
            .turns
            .iter()
            .filter(|(_, turn)| turn.stage == Stage::Holds && repaired.contains(&turn.root));
        leaving.extend(held.map(|(run, _)| *run));
        let mut keys: BTreeSet<GateKey> = arriving
            .iter()
            .flat_map(|turn| &turn.gates)
            .map(|ask| ask.key)
            .collect();
        for run in &leaving {
            if let Some(standing) = self.turns.get(run) {
                board.load_turn(*run, standing.clone());
                keys.extend(standing.turn.gates.iter().map(|ask| ask.key));
            }
        }
        self.load_gates(&mut board, &keys);
        let wanted = board.wanted(leaving.iter().copied(), arriving.iter());
        self.load_queues(&mut board, wanted);
        self.load_further(&mut board);
        if matches!(act, Act::Resume(_)) {
            let behind = board.wanted_behind();
            self.load_queues(&mut board, behind);
            self.load_further(&mut board);
        }
        let now = self.now();
        match act {
            Act::Arrive(arrivals) => arrivals.into_iter().for_each(|arrival| board.arrive(arrival, now)),
            Act::Leave(runs) => {
                runs.into_iter().for_each(|(run, end)| board.leave(run, end, now));
                repaired.into_iter().for_each(|root| board.repaired(root, now));
            }
            Act::Release(run) => board.release(run, now),
            Act::Due(run) => board.due(run, now),
            Act::Resume(run) => board.resume(run, now),
        }
        let Moves {
            outcomes,
            gates,
            turns,
            tails,
            ..
        } = board.finish();
        for (key, gate) in gates {
            match gate {
                Some(gate) => self.gates.insert(key, gate),
                None => self.gates.remove(&key),
            };
        }
        for (run, turn) in turns {
            match turn {
                Some(turn) => {
                    self.turns.insert(run, turn);
                }
                None => {
                    self.turns.remove(&run);
                    self.dues.remove(&run);
                }
            }
        }
        self.tail = tails[&WORKFLOW];
        let mut starts: Vec<RunId> = Vec::new();
        for (run, outcome) in outcomes {
            self.dues.remove(&run);
            match outcome {
                Outcome::Starts => {
                    starts.push(run);
                    self.started_at.insert(run, self.now);
                }
                Outcome::Waits { due: Some(due) } => {
                    self.dues.insert(run, due);
                }
                Outcome::Waits { due: None } | Outcome::Merged { .. } | Outcome::LaneFull => {}
            }
            self.outcomes.insert(run, outcome);
        }
        starts.sort_by_key(|run| self.turns.get(run).map(|standing| standing.position));
        self.started.extend(starts);
        self.sound();
    }

    fn load_queues(&self, board: &mut Board, wanted: BTreeMap<GateKey, u32>) {
        for (key, depth) in wanted {
            let mut queue: Vec<(&RunId, &Standing)> = self
                .turns
                .iter()
                .filter(|(_, standing)| standing.gate().is_some_and(|ask| ask.key == key))
                .collect();
            queue.sort_by_key(|(run, standing)| (standing.rank, **run));
            for (run, standing) in queue.into_iter().take(usize::try_from(depth).unwrap()) {
                if board.standing(*run).is_none() {
                    board.load_turn(*run, standing.clone());
                }
            }
        }
    }

    fn load_further(&self, board: &mut Board) {
        let further: BTreeSet<GateKey> = board
            .standings()
            .flat_map(|(_, standing)| &standing.turn.gates)
            .map(|ask| ask.key)
            .collect();
        self.load_gates(board, &further);
    }

    /// The first run that waits until the workflow is resumed.
    pub(super) fn first_held(&self) -> Option<RunId> {
        let held = self.turns.iter().filter(|(_, standing)| {
            let ask = standing.gate();
            ask.is_some_and(|ask| ask.rules.kind() == GateKind::Pause)
        });
        held.min_by_key(|(_, standing)| standing.rank).map(|(run, _)| *run)
    }

    pub(super) fn load_gates(&self, board: &mut Board, keys: &BTreeSet<GateKey>) {
        for key in keys {
            let Some(gate) = self.gates.get(key).filter(|_| board.gate(key).is_none()) else {
                continue;
            };
            board.load_gate(*key, gate.clone());
            if let Some(holder) = gate.holder.filter(|holder| board.standing(*holder).is_none()) {
                board.load_turn(holder, self.turns[&holder].clone());
            }
        }
    }

    /// The numbers at the gates are those of the runs.
    pub(super) fn sound(&self) {
        for (key, gate) in &self.gates {
            let waiting = self
                .turns
                .values()
                .filter(|turn| turn.gate().is_some_and(|ask| ask.key == *key));
            assert_eq!(usize::try_from(gate.waiting).unwrap(), waiting.count());
            if gate.kind == GateKind::Pause {
                continue;
            }
            if !matches!(gate.kind, GateKind::Lane | GateKind::Concurrency) {
                let woken = match gate.kind {
                    GateKind::Throttle => gate.alarm,
                    _ => gate.holder,
                };
                assert_eq!(woken.is_some(), gate.waiting > 0, "{:?}", gate.kind);
                assert!(woken.is_none_or(|run| self.dues.contains_key(&run)), "{:?}", gate.kind);
                continue;
            }
            let inside = self.turns.values().filter(|turn| match turn.stage {
                Stage::At(number) => turn.turn.gates.iter().take(number).any(|ask| ask.key == *key),
                Stage::Inside => turn.turn.gates.iter().any(|ask| ask.key == *key),
                Stage::Holds => false,
            });
            let inside = inside.count() + usize::from(gate.holder.is_some());
            assert_eq!(usize::try_from(gate.inside).unwrap(), inside);
            assert!(gate.inside > 0 || gate.waiting == 0, "nobody waits at an empty gate");
        }
        for turn in self.turns.values().filter(|turn| turn.stage == Stage::Inside) {
            let mut kept = turn
                .turn
                .gates
                .iter()
                .filter(|ask| matches!(ask.rules.kind(), GateKind::Lane | GateKind::Concurrency));
            assert!(kept.all(|ask| self.gates.contains_key(&ask.key)));
        }
    }

    pub(super) fn arrival(&mut self, gates: Vec<Ask>) -> Arrival {
        self.next_run += 1;
        let run = RunId::from_raw(self.next_run);
        Arrival {
            run,
            root: run,
            replay: false,
            workspace: WorkspaceId::from_raw(1),
            workflow: WORKFLOW,
            turn: Turn { priority: 0, gates },
        }
    }

    pub(super) fn arrive(&mut self, gates: Vec<Ask>) -> RunId {
        self.arrive_with(gates, 0)
    }

    pub(super) fn arrive_with(&mut self, gates: Vec<Ask>, priority: i32) -> RunId {
        let mut arrival = self.arrival(gates);
        arrival.turn.priority = priority;
        let run = arrival.run;
        self.act(Act::Arrive(vec![arrival]));
        run
    }

    pub(super) fn replay(&mut self, of: RunId, gates: Vec<Ask>) -> RunId {
        let mut arrival = self.arrival(gates);
        arrival.root = self.replays.get(&of).copied().unwrap_or(of);
        arrival.replay = true;
        let run = arrival.run;
        self.replays.insert(run, arrival.root);
        self.act(Act::Arrive(vec![arrival]));
        run
    }

    pub(super) fn leave(&mut self, run: RunId, end: RunEnd) {
        self.act(Act::Leave(vec![(run, end)]));
    }

    /// Time goes by; whoever is due is looked at on the way.
    pub(super) fn later(&mut self, ms: i64) {
        let until = self.now + ms;
        loop {
            let next = self.dues.iter().map(|(run, due)| (*due, *run)).min();
            match next {
                Some((due, run)) if due.as_unix_ms() <= START.as_unix_ms() + until => {
                    self.now = self.now.max(due.as_unix_ms() - START.as_unix_ms());
                    self.act(Act::Due(run));
                }
                _ => break,
            }
        }
        self.now = until;
    }

    pub(super) fn is(&self, run: RunId, outcome: Outcome) {
        assert_eq!(self.outcomes[&run], outcome, "{run}");
    }
}
