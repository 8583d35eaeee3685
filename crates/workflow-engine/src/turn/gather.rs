//! Runs that stand for several events: the last of a burst, or the first of a batch.

use super::board::Board;
use super::moves::{Outcome, Stage, Standing};
use super::{Ask, Rules};
use crate::id::RunId;
use crate::time::Timestamp;

impl Board {
    /// Events are gathered: the run waits for more, or another one stands for its event. False: it goes on at once.
    pub(super) fn gather(&mut self, run: RunId, standing: &Standing, ask: &Ask, number: usize) -> bool {
        let Some(gate) = self.gates.get_mut(&ask.key) else {
            return false;
        };
        let before = gate.holder;
        let mut waits = standing.clone();
        waits.stage = Stage::At(number);
        waits.rank = standing.position;
        match ask.rules {
            Rules::Batch { size, .. } => {
                gate.inside += 1;
                if let Some(first) = before {
                    let complete = gate.inside >= size;
                    self.outcomes.insert(run, Outcome::Merged { into: first });
                    if complete && let Some(standing) = self.turns.get(&first).cloned() {
                        self.gathered(ask, first, standing, number);
                    }
                    return true;
                }
                if size <= 1 {
                    gate.inside = 0;
                    return false;
                }
            }
            Rules::Debounce { .. } => {
                if let Some(earlier) = before {
                    let rank = self.turns.remove(&earlier).map_or(0, |standing| standing.rank);
                    self.changed_turns.insert(earlier);
                    self.dequeue(ask.key, rank, earlier);
                    self.outcomes.insert(earlier, Outcome::Merged { into: run });
                }
            }
            Rules::Pause { .. } | Rules::Lane { .. } | Rules::Concurrency { .. } | Rules::Throttle { .. } => {
                return false;
            }
        }
        if let Some(gate) = self.gates.get_mut(&ask.key) {
            gate.holder = Some(run);
            gate.since.get_or_insert(self.now);
        }
        let until = self.gathers_until(ask, &waits);
        self.enqueue(ask.key, run, waits.clone());
        match until.filter(|until| *until > self.now) {
            Some(until) => {
                self.outcomes.insert(run, Outcome::Waits { due: Some(until) });
            }
            None => self.gathered(ask, run, waits, number),
        }
        true
    }

    /// Until when a run waits for more events.
    pub(super) fn gathers_until(&self, ask: &Ask, standing: &Standing) -> Option<Timestamp> {
        let since = self.gates.get(&ask.key)?.since?.as_unix_ms();
        let until = match ask.rules {
            Rules::Debounce { quiet_ms, max_ms } => {
                let quiet = (standing.position / 1000).saturating_add(quiet_ms);
                max_ms.map_or(quiet, |max_ms| quiet.min(since.saturating_add(max_ms)))
            }
            Rules::Batch { within_ms, .. } => since.saturating_add(within_ms),
            Rules::Pause { .. } | Rules::Lane { .. } | Rules::Concurrency { .. } | Rules::Throttle { .. } => {
                return None;
            }
        };
        Some(Timestamp::from_unix_ms(until))
    }

    /// A run has waited for events long enough, and passes the gates behind.
    pub(super) fn gathered(&mut self, ask: &Ask, run: RunId, standing: Standing, number: usize) {
        self.dequeue(ask.key, standing.rank, run);
        if let Some(gate) = self.gates.get_mut(&ask.key) {
            gate.holder = None;
            gate.since = None;
            gate.inside = 0;
        }
        self.pass(run, standing, number + 1);
    }
}
