//! What a batch does to gates: which runs arrive, leave and are let go, what has to be known to decide, what changes.
//!
//! The rules are the engine's [`Board`]. The two backends load what is asked for here and write what comes out, under the
//! lock of the workflows concerned.

use std::collections::{BTreeMap, BTreeSet};

use weir_workflow_engine::{
    Arrival, Board, Cause, Gate, GateKey, Moves, Outcome, RunEnd, RunId, Stage, Standing, Timestamp, Turn, WorkflowId,
    WorkspaceId,
};

use super::failure::{Failure, Offence};
use super::prepare::Row;
use crate::fact::{Leaves, NewDeadLetter, NewRun, RunStatus, TurnAsk, TurnEvent};
use crate::gates::{decode, decode_times, encode, encode_times, gate_kind, gate_kind_code};
use crate::outcome::Constraint;

/// Code of a run for which its lane had no room.
const LANE_FULL: &str = "lane_full";
/// What stands for it among the dead letters.
const NO_ROOM: &str = "there was no room in its lane";
/// Stages as they are stored; the gates of a run are numbered from 0.
const INSIDE: i64 = 100;
pub(crate) const HOLDS: i64 = 101;

/// What a batch does to gates, in its order.
#[derive(Debug, Default)]
pub(crate) struct GateWork<'r> {
    steps: Vec<Step<'r>>,
}

#[derive(Debug)]
enum Step<'r> {
    Arrive(&'r NewRun, &'r Turn),
    Leave(RunId, Leaves, RunEnd, Timestamp),
    Ask(&'r TurnAsk),
}

/// What became of runs in a batch.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Runs of the batch that may not start.
    pub(crate) held: BTreeSet<RunId>,
    /// Runs that waited and now belong to this node and may start.
    pub(crate) released: Vec<RunId>,
    /// Waiting runs of this node, and when to look at them again.
    pub(crate) due: Vec<(RunId, Timestamp)>,
    /// Runs for which their lanes had no room.
    pub(crate) lane_full: u64,
}

/// What is to be written about a run.
#[derive(Debug)]
pub(crate) struct RunChange {
    pub(crate) run: RunId,
    pub(crate) status: RunStatus,
    /// When it starts, if it does: its time limit begins then.
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) due_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) error_code: Option<&'static str>,
}

impl RunChange {
    /// How it stands among the dead letters, if it failed.
    pub(crate) fn dead_letter(&self) -> Option<NewDeadLetter> {
        let code = self.error_code?;
        let cause = Cause::of(code, None, NO_ROOM);
        Some(NewDeadLetter {
            cause: cause.id,
            code: code.to_owned(),
            step: None,
            message: cause.message,
        })
    }
}

/// What is to be written.
#[derive(Debug)]
pub(crate) struct GateChanges {
    pub(crate) tails: BTreeMap<WorkflowId, i64>,
    pub(crate) gates: Vec<GateRow>,
    pub(crate) gates_gone: Vec<Vec<u8>>,
    pub(crate) turns: Vec<TurnRow>,
    pub(crate) turns_gone: Vec<i64>,
    pub(crate) runs: Vec<RunChange>,
    /// Runs, the runs that stand for their events, and their places in the order of acceptance.
    pub(crate) merged: Vec<(RunId, RunId, i64)>,
    pub(crate) moved: Moved,
}

impl<'r> GateWork<'r> {
    /// The rows that have to do with gates, of those that `counts`.
    pub(crate) fn collect(rows: &[&'r Row], counts: impl Fn(usize, &Row) -> bool) -> Self {
        let mut steps = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            let started: &[NewRun] = match row {
                Row::Accept(row) => &row.runs,
                Row::Start(runs) => runs,
                Row::Run(row) => {
                    if let (Some(leaves), Some(update)) = (row.leaves, &row.update)
                        && counts(number, rows[number])
                    {
                        let end = match update.status {
                            RunStatus::Failed => RunEnd::Failed,
                            RunStatus::Succeeded => RunEnd::Succeeded,
                            _ => RunEnd::Canceled,
                        };
                        let at = update.finished_at.unwrap_or(Timestamp::from_unix_ms(0));
                        steps.push(Step::Leave(row.run, leaves, end, at));
                    }
                    continue;
                }
                Row::Turn(ask) => {
                    steps.push(Step::Ask(ask));
                    continue;
                }
                Row::Refused(_) => continue,
            };
            let turns = started
                .iter()
                .filter_map(|run| run.turn.as_deref().map(|turn| Step::Arrive(run, turn)));
            if started.iter().any(|run| run.turn.is_some()) && counts(number, rows[number]) {
                steps.extend(turns);
            }
        }
        Self { steps }
    }

    /// Runs that are started by themselves, and what is asked about another one.
    pub(crate) fn of_operation(runs: &'r [NewRun], ask: Option<&'r TurnAsk>) -> Self {
        let arrive = |run: &'r NewRun| run.turn.as_deref().map(|turn| Step::Arrive(run, turn));
        Self {
            steps: runs.iter().filter_map(arrive).chain(ask.map(Step::Ask)).collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The workflows to be locked.
    pub(crate) fn workflows(&self) -> BTreeSet<i64> {
        let ids = self.steps.iter().map(|step| match step {
            Step::Arrive(run, _) => run.workflow_id.as_raw(),
            Step::Leave(_, leaves, _, _) => leaves.workflow.as_raw(),
            Step::Ask(ask) => ask.workflow.as_raw(),
        });
        ids.collect()
    }

    /// The runs that leave, whose turns are needed.
    pub(crate) fn leaving(&self) -> Vec<RunId> {
        let runs = self.steps.iter().filter_map(|step| match step {
            Step::Arrive(..) => None,
            Step::Leave(run, ..) => Some(*run),
            Step::Ask(ask) => Some(ask.run),
        });
        runs.collect()
    }

    /// First runs of families whose failed runs keep nothing any longer: their turns are needed.
    pub(crate) fn repaired(&self) -> Vec<RunId> {
        let roots = self.steps.iter().filter_map(|step| match step {
            Step::Leave(_, leaves, RunEnd::Succeeded, _) => leaves.repairs,
            Step::Leave(..) | Step::Arrive(..) | Step::Ask(_) => None,
        });
        roots.collect()
    }

    /// Whether runs are let through that waited until their workflow is resumed.
    pub(crate) fn resumes(&self) -> bool {
        let resumes = |step: &Step<'_>| matches!(step, Step::Ask(ask) if ask.event == TurnEvent::Resume);
        self.steps.iter().any(resumes)
    }

    pub(crate) fn arriving(&self) -> impl Iterator<Item = &'r Turn> {
        self.steps.iter().filter_map(|step| match step {
            Step::Arrive(_, turn) => Some(*turn),
            Step::Leave(..) | Step::Ask(_) => None,
        })
    }

    /// The gates that are needed, once the turns of those who leave are on the board.
    pub(crate) fn gates(&self, board: &Board) -> BTreeSet<GateKey> {
        let arriving = self.arriving().flat_map(|turn| &turn.gates).map(|ask| ask.key);
        arriving.chain(gates_of_all(board)).collect()
    }

    /// Decides, on a board that holds what was asked for.
    pub(crate) fn decide(&self, mut board: Board) -> GateChanges {
        let mut fresh = BTreeSet::new();
        let mut last = Timestamp::from_unix_ms(0);
        for step in &self.steps {
            match step {
                Step::Arrive(run, turn) => {
                    fresh.insert(run.id);
                    last = last.max(run.started_at);
                    let arrival = Arrival {
                        run: run.id,
                        root: run.root_id,
                        replay: run.replay_of.is_some(),
                        workspace: run.workspace,
                        workflow: run.workflow_id,
                        turn: (*turn).clone(),
                    };
                    board.arrive(arrival, run.started_at);
                }
                Step::Leave(run, leaves, end, at) => {
                    last = last.max(*at);
                    board.leave(*run, *end, *at);
                    if let (Some(root), RunEnd::Succeeded) = (leaves.repairs, end) {
                        board.repaired(root, *at);
                    }
                }
                Step::Ask(ask) => {
                    last = last.max(ask.at);
                    match ask.event {
                        TurnEvent::Due => board.due(ask.run, ask.at),
                        TurnEvent::Release => board.release(ask.run, ask.at),
                        TurnEvent::Resume => board.resume(ask.run, ask.at),
                    }
                }
            }
        }
        changes(board, &fresh, last)
    }
}

/// The failed runs on the board that keep a lane: they may leave too.
pub(crate) fn holders(board: &Board) -> Vec<RunId> {
    let holds = board.standings().filter(|(_, standing)| standing.stage == Stage::Holds);
    holds.map(|(run, _)| run).collect()
}

/// Every gate that a run on the board has to do with.
pub(crate) fn gates_of_all(board: &Board) -> BTreeSet<GateKey> {
    let asks = board.standings().flat_map(|(_, standing)| &standing.turn.gates);
    asks.map(|ask| ask.key)
        .filter(|key| board.gate(key).is_none())
        .collect()
}

fn changes(board: Board, fresh: &BTreeSet<RunId>, now: Timestamp) -> GateChanges {
    let Moves {
        outcomes,
        gates,
        turns,
        tails,
        positions,
    } = board.finish();
    let mut changes = GateChanges {
        tails,
        gates: Vec::new(),
        gates_gone: Vec::new(),
        turns: Vec::new(),
        turns_gone: Vec::new(),
        runs: Vec::new(),
        merged: Vec::new(),
        moved: Moved::default(),
    };
    for (key, gate) in gates {
        match gate {
            Some(gate) => changes.gates.push(GateRow::new(&key, gate)),
            None => changes.gates_gone.push(key.bytes().to_vec()),
        }
    }
    for (run, standing) in turns {
        match standing {
            Some(standing) => changes.turns.push(TurnRow::new(run, &standing)),
            None => changes.turns_gone.push(run.as_raw()),
        }
    }
    for (run, outcome) in outcomes {
        let is_fresh = fresh.contains(&run);
        let mut change = RunChange {
            run,
            status: RunStatus::Running,
            started_at: None,
            due_at: None,
            finished_at: None,
            error_code: None,
        };
        match outcome {
            Outcome::Starts if is_fresh => continue,
            Outcome::Starts => {
                changes.moved.released.push(run);
                change.started_at = Some(now);
            }
            Outcome::Waits { due } => {
                change.status = RunStatus::Queued;
                change.due_at = due;
                changes.moved.due.extend(due.map(|due| (run, due)));
            }
            Outcome::Merged { into } => {
                let place = positions.get(&run).copied().unwrap_or_default();
                changes.merged.push((run, into, place));
                change.status = RunStatus::Merged;
                change.finished_at = Some(now);
            }
            Outcome::LaneFull => {
                change.status = RunStatus::Failed;
                change.finished_at = Some(now);
                change.error_code = Some(LANE_FULL);
                changes.moved.lane_full += 1;
            }
        }
        if is_fresh {
            changes.moved.held.insert(run);
        }
        changes.runs.push(change);
    }
    changes
}

/// A row of `gate`.
#[derive(Debug)]
pub(crate) struct GateRow {
    pub(crate) id: Vec<u8>,
    pub(crate) workspace_id: i64,
    pub(crate) workflow_id: i64,
    pub(crate) kind: i64,
    pub(crate) name: String,
    pub(crate) max_inside: i64,
    pub(crate) inside: i64,
    pub(crate) waiting: i64,
    pub(crate) holder: Option<i64>,
    pub(crate) since: Option<i64>,
    pub(crate) per_ms: i64,
    pub(crate) starts: Option<Vec<u8>>,
    pub(crate) alarm: Option<i64>,
    pub(crate) idle_at: Option<i64>,
}

/// A row of `turn`.
#[derive(Debug)]
pub(crate) struct TurnRow {
    pub(crate) run_id: i64,
    pub(crate) root_id: i64,
    pub(crate) workspace_id: i64,
    pub(crate) workflow_id: i64,
    pub(crate) is_replay: i64,
    pub(crate) priority: i64,
    pub(crate) position: i64,
    pub(crate) stage: i64,
    pub(crate) gate_id: Option<Vec<u8>>,
    pub(crate) place: i64,
    pub(crate) gates: Vec<u8>,
}

fn corrupt(what: String) -> Failure {
    Failure::Fact(Offence::Other(Constraint::Value { reason: what }))
}

fn number(value: i64) -> u32 {
    u32::try_from(value).unwrap_or_default()
}

impl GateRow {
    fn new(key: &GateKey, gate: Gate) -> Self {
        let idle_at = gate.idle_at();
        Self {
            id: key.bytes().to_vec(),
            workspace_id: gate.workspace.as_raw(),
            workflow_id: gate.workflow.as_raw(),
            kind: i64::from(gate_kind_code(gate.kind)),
            name: gate.name,
            max_inside: i64::from(gate.limit),
            inside: i64::from(gate.inside),
            waiting: i64::from(gate.waiting),
            holder: gate.holder.map(RunId::as_raw),
            since: gate.since.map(Timestamp::as_unix_ms),
            per_ms: gate.per_ms,
            starts: encode_times(&gate.starts),
            alarm: gate.alarm.map(RunId::as_raw),
            idle_at,
        }
    }

    /// Puts it on the board; the run that holds it, whose turn is needed too.
    pub(crate) fn load(self, board: &mut Board) -> Result<Option<RunId>, Failure> {
        let key: [u8; 16] = self
            .id
            .as_slice()
            .try_into()
            .map_err(|_damaged| corrupt("the id of a gate is damaged".to_owned()))?;
        let kind = gate_kind(self.kind).ok_or_else(|| corrupt(format!("a gate has the unknown kind {}", self.kind)))?;
        let holder = self.holder.map(RunId::from_raw);
        let gate = Gate {
            workspace: WorkspaceId::from_raw(self.workspace_id),
            workflow: WorkflowId::from_raw(self.workflow_id),
            kind,
            name: self.name,
            limit: number(self.max_inside),
            inside: number(self.inside),
            waiting: number(self.waiting),
            holder,
            since: self.since.map(Timestamp::from_unix_ms),
            per_ms: self.per_ms,
            starts: self.starts.as_deref().map(decode_times).unwrap_or_default(),
            alarm: self.alarm.map(RunId::from_raw),
        };
        board.load_gate(GateKey::from_bytes(key), gate);
        Ok(holder)
    }
}

impl TurnRow {
    fn new(run: RunId, standing: &Standing) -> Self {
        let stage = match standing.stage {
            Stage::At(number) => i64::try_from(number).unwrap_or_default(),
            Stage::Inside => INSIDE,
            Stage::Holds => HOLDS,
        };
        Self {
            run_id: run.as_raw(),
            root_id: standing.root.as_raw(),
            workspace_id: standing.workspace.as_raw(),
            workflow_id: standing.workflow.as_raw(),
            is_replay: i64::from(standing.replay),
            priority: i64::from(standing.turn.priority),
            position: standing.position,
            stage,
            gate_id: standing.gate().map(|ask| ask.key.bytes().to_vec()),
            place: standing.rank,
            gates: encode(&standing.turn.gates),
        }
    }

    /// Puts it on the board.
    pub(crate) fn load(self, board: &mut Board) -> Result<(), Failure> {
        let run = RunId::from_raw(self.run_id);
        let gates = decode(&self.gates).ok_or_else(|| corrupt(format!("the turn of {run} is damaged")))?;
        let stage = match self.stage {
            INSIDE => Stage::Inside,
            HOLDS => Stage::Holds,
            number => Stage::At(usize::try_from(number).unwrap_or_default()),
        };
        let standing = Standing {
            workspace: WorkspaceId::from_raw(self.workspace_id),
            workflow: WorkflowId::from_raw(self.workflow_id),
            root: RunId::from_raw(self.root_id),
            replay: self.is_replay != 0,
            turn: Turn {
                priority: i32::try_from(self.priority).unwrap_or_default(),
                gates,
            },
            position: self.position,
            stage,
            rank: self.place,
        };
        // A run that is on the board may have moved since.
        if board.standing(run).is_none() {
            board.load_turn(run, standing);
        }
        Ok(())
    }
}
