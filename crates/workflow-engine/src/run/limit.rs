//! The time limits of steps with steps inside.
//!
//! A limit counts from the moment when the step began, and is put off while the run stands still. When it is over, the
//! step fails like one whose own step failed: what is open inside comes to an end first, so an effect on its way is
//! followed up until it is known. A `for_each` or `parallel` that collects ends with what is through by then.

use std::sync::Arc;
use std::time::Duration;

use super::fork::record;
use super::state::{Branch, Failure, Place, RunState, Slot};
use super::walk::Walk;
use crate::definition::Join;
use crate::journal::{Entry, Limited, RanOver, Target};
use crate::plan::{Node, TRY, Task};
use crate::time::Timestamp;

/// The code of a step that was not through in time.
pub(crate) const STEP_TIMEOUT: &str = "step_timeout";

impl RunState {
    pub(super) fn fold_limited(&mut self, limited: &Limited) {
        match self.place(&limited.step) {
            Some(place) => {
                self.limits.insert((limited.until, place));
            }
            None => self.note_foreign(&Target::Step(Arc::clone(&limited.step))),
        }
    }

    pub(super) fn fold_ran_over(&mut self, over: &RanOver) {
        let Some(place) = self.place(&over.step) else {
            return self.note_foreign(&Target::Step(Arc::clone(&over.step)));
        };
        self.forget_limit(&place);
        let limit = crate::duration::print(over.limit);
        let failure = Failure {
            code: Arc::from(STEP_TIMEOUT),
            message: Arc::from(format!("its steps took longer than its limit of {limit}")),
            step: Arc::clone(&over.step),
        };
        let collects = match self.program.0.nodes.get(place.node).map(|node| &node.task) {
            Some(Task::ForEach(each)) => each.collects,
            Some(Task::Parallel(join)) => *join == Join::Collect,
            _ => false,
        };
        match self.slot(&place) {
            Some(Slot::Guard(guard)) if guard.block == TRY => self.catch(&place, TRY, failure),
            Some(Slot::Loop(_)) if collects => self.leave_items(&place, &failure),
            Some(Slot::Fork(fork)) if collects => {
                let count = fork.branches.len();
                (0..count).for_each(|branch| self.catch(&place, branch, failure.clone()));
            }
            Some(Slot::Loop(_) | Slot::Fork(_)) => self.raise(place, failure),
            _ => {}
        }
    }

    /// Every item that is not through fails: at once if nothing of it has begun, else when what is open has come to
    /// an end.
    fn leave_items(&mut self, place: &Place, failure: &Failure) {
        let Some(Slot::Loop(state)) = self.slot(place) else {
            return;
        };
        let is_pending = |slot: &Slot| *slot == Slot::Pending;
        let open = state.items.iter().enumerate().filter(|(_, item)| item.output.is_none());
        let open: Vec<(usize, bool)> = open
            .map(|(at, item)| (at, item.frame.slots.iter().all(is_pending)))
            .collect();
        let output = record(Err(failure));
        for (item, is_pending) in open {
            self.set_item_settling(place, item, failure.clone());
            if is_pending {
                self.finish_item(place.clone(), item, output.clone());
            }
        }
    }

    /// The run stood still for this long.
    pub(super) fn put_limits_off(&mut self, by: Duration) {
        let limits = std::mem::take(&mut self.limits);
        self.limits = limits
            .into_iter()
            .map(|(until, place)| (until.plus(by), place))
            .collect();
    }

    pub(super) fn forget_limit(&mut self, place: &Place) {
        self.limits.retain(|(_, bounded)| bounded != place);
    }

    /// The step whose limit is over first, and when. What comes to an end anyway has none.
    fn next_limit(&self) -> Option<&(Timestamp, Place)> {
        if self.ending.is_some() || self.paused.is_some() {
            return None;
        }
        let counts = |place: &Place| match self.slot(place) {
            Some(Slot::Guard(guard)) => !guard.settling && !self.is_settling(place),
            // One that is decided only waits for what it leaves.
            Some(Slot::Fork(fork)) => fork.branches.contains(&Branch::Open) && !self.is_settling(place),
            _ => !self.is_settling(place),
        };
        self.limits.iter().find(|(_, place)| counts(place))
    }

    /// When the first limit is over.
    pub(super) fn first_limit(&self) -> Option<Timestamp> {
        self.next_limit().map(|(until, _)| *until)
    }
}

impl Walk<'_> {
    /// A step with steps inside has begun: its time runs.
    pub(super) fn limit(&mut self, place: &Place, node: &Node) {
        let has_begun = matches!(
            self.run.slot(place),
            Some(Slot::Loop(_) | Slot::Fork(_) | Slot::Guard(_))
        );
        if let Some(limit) = node.limit.filter(|_| has_begun) {
            let step = self.run.path(place);
            let until = self.now.plus(limit);
            self.push(Entry::Limited(Limited { step, until }));
        }
    }

    /// Takes note of the limits that are over.
    pub(super) fn run_over(&mut self) {
        while let Some((until, place)) = self.run.next_limit().cloned()
            && until <= self.now
        {
            let limit = self.program.nodes.get(place.node).and_then(|node| node.limit);
            let step = self.run.path(&place);
            let limit = limit.unwrap_or_default();
            self.push(Entry::RanOver(RanOver { step, limit }));
        }
    }
}
