//! Runs that were accepted while their workflow was paused, let through when it is resumed.
//!
//! They go in the order of acceptance, so many per commit, and count as accepted in the moment in which they are let
//! through: a burst that waited is still a burst. Whoever comes meanwhile waits behind them.

use super::GateKind;
use super::board::Board;
use super::moves::Stage;
use crate::id::RunId;
use crate::time::Timestamp;

/// How many runs are let through in one commit.
pub const MAX_RESUMED: u32 = 64;

impl Board {
    /// Lets the first runs through that wait where `run` waits until their workflow is resumed. Nothing happens when it
    /// does not. Once per board: only as many of those that wait are known.
    pub fn resume(&mut self, run: RunId, now: Timestamp) {
        self.now = now;
        let ask = self.turns.get(&run).and_then(|standing| standing.gate());
        let Some(key) = ask.filter(|ask| ask.rules.kind() == GateKind::Pause).map(|ask| ask.key) else {
            return;
        };
        if !self.resumed.insert(key) {
            return;
        }
        let most = usize::try_from(MAX_RESUMED).unwrap_or(usize::MAX);
        let first: Vec<(i64, RunId)> = self
            .queues
            .get(&key)
            .into_iter()
            .flatten()
            .take(most)
            .copied()
            .collect();
        for (rank, run) in first {
            let Some(mut standing) = self.turns.get(&run).cloned() else {
                continue;
            };
            let Stage::At(number) = standing.stage else { continue };
            self.dequeue(key, rank, run);
            standing.position = self.next_position(standing.workflow);
            self.positions.insert(run, standing.position);
            self.pass(run, standing, number + 1);
        }
        self.settle();
    }

    /// Of which merging lanes the waiting runs are needed, because runs that may be let through come to them.
    pub fn wanted_behind(&self) -> std::collections::BTreeMap<super::GateKey, u32> {
        let held = self.turns.values().filter(|standing| {
            let ask = standing.gate();
            ask.is_some_and(|ask| ask.rules.kind() == GateKind::Pause)
        });
        let asks = held.flat_map(|standing| &standing.turn.gates);
        let merging = asks.filter(|ask| matches!(ask.rules, super::Rules::Lane { merge: true, .. }));
        merging
            .filter_map(|ask| {
                let waiting = self.gates.get(&ask.key)?.waiting;
                (waiting > 0).then_some((ask.key, waiting))
            })
            .collect()
    }
}
