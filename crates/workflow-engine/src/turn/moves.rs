//! What a board is told of runs, and what it decides about them.

use std::collections::BTreeMap;

use super::gate::Gate;
use super::{Ask, GateKey, Turn};
use crate::id::{RunId, WorkflowId, WorkspaceId};
use crate::time::Timestamp;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits in front of the gate with this number among its own.
    At(usize),
    /// It has passed all of them.
    Inside,
    /// It has failed and keeps its lane.
    Holds,
}

/// A run that has to do with gates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Its workflow.
    pub workflow: WorkflowId,
    /// The first run of its family.
    pub root: RunId,
    /// Whether it repeats another one.
    pub replay: bool,
    /// What it has to pass.
    pub turn: Turn,
    /// Its place in the order of acceptance: microseconds, ever rising within a workflow.
    pub position: i64,
    /// Where it stands.
    pub stage: Stage,
    /// The lower, the sooner it passes the gate it waits at.
    pub rank: i64,
}

impl Standing {
    /// The gate it waits at.
    pub fn gate(&self) -> Option<&Ask> {
        match self.stage {
            Stage::At(number) => self.turn.gates.get(number),
            Stage::Inside | Stage::Holds => None,
        }
    }
}

/// A run that has just been accepted.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The run.
    pub run: RunId,
    /// The first run of its family.
    pub root: RunId,
    /// Whether it repeats another one.
    pub replay: bool,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Its workflow.
    pub workflow: WorkflowId,
    /// What it has to pass.
    pub turn: Turn,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// Badly.
    Failed,
    /// Somebody ended it.
    Canceled,
    /// Well.
    Succeeded,
}

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It may start.
    Starts,
    /// It waits.
    Waits {
        /// When it is to be looked at again, if nothing else happens.
        due: Option<Timestamp>,
    },
    /// Another run stands for its event: it is over.
    Merged {
        /// That run.
        into: RunId,
    },
    /// Too many wait already: it is over, a dead letter.
    LaneFull,
}

/// What to write about a gate; `None` deletes it.
pub type GateChange = (GateKey, Option<Gate>);
/// What to write about a run's standing; `None` deletes it.
pub type TurnChange = (RunId, Option<Standing>);

/// What a board decided.
#[derive(Debug)]
pub struct Moves {
    /// What became of each run that moved.
    pub outcomes: BTreeMap<RunId, Outcome>,
    /// Gates to be written.
    pub gates: Vec<GateChange>,
    /// Standings to be written.
    pub turns: Vec<TurnChange>,
    /// The last position given out, per workflow.
    pub tails: BTreeMap<WorkflowId, i64>,
    /// The places of those that arrived in the order of acceptance.
    pub positions: BTreeMap<RunId, i64>,
}
