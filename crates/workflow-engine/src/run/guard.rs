//! The walk through a `try`, and how what is open in a block comes to an end.

use std::sync::Arc;

use super::state::{Branch, Failure, Fork, OpenCall, Owner, Phase, Place, Slot};
use super::walk::Walk;
use crate::command::CallId;
use crate::journal::{Abandoned, Caught, EffectEnd, Entry, StepFailed, Target};
use crate::plan::Node;

impl<'a> Walk<'a> {
    /// Walks the blocks of a `try`; true when it is through.
    pub(super) fn guarded(&mut self, place: &Place, node: &'a Node, items: &mut Vec<usize>) -> bool {
        while !self.is_over() {
            let Some(Slot::Guard(guard)) = self.run.slot(place) else {
                break;
            };
            let Some(block) = node.blocks.get(guard.block) else {
                return false;
            };
            if guard.settling {
                let step = self.run.path(place);
                if !self.settle(&format!("{step}.{}.", block.label)) {
                    return false;
                }
                self.push(Entry::Caught(Caught { step, part: None }));
            } else if !self.block(&block.steps, items) {
                // A step of the block may have failed just now.
                match self.run.slot(place) {
                    Some(Slot::Guard(guard)) if guard.settling => {}
                    _ => return false,
                }
            }
        }
        !self.is_over() && matches!(self.run.slot(place), Some(Slot::Closed(_)))
    }

    /// Walks the branches of a `parallel`; true when it is through.
    pub(super) fn forked(&mut self, place: &Place, node: &'a Node, items: &mut Vec<usize>) -> bool {
        loop {
            let Some(Slot::Fork(before)) = self.run.slot(place).cloned() else {
                break;
            };
            for (number, block) in node.blocks.iter().enumerate() {
                let Some(Slot::Fork(fork)) = self.run.slot(place) else {
                    break;
                };
                match fork.branches.get(number) {
                    Some(Branch::Open) => {
                        self.block(&block.steps, items);
                    }
                    Some(Branch::Settling(_) | Branch::Leaving) => {
                        let step = self.run.path(place);
                        if self.settle(&format!("{step}.{}.", block.label)) {
                            let part = Some(Arc::clone(&block.label));
                            self.push(Entry::Caught(Caught { step, part }));
                        }
                    }
                    Some(Branch::Done(_) | Branch::Failed(_) | Branch::Left) | None => {}
                }
                if self.is_over() || self.run.is_settling(place) {
                    return false;
                }
            }
            // What one branch decides may change what becomes of those before it.
            match self.run.slot(place) {
                Some(Slot::Fork(after)) if Arc::ptr_eq(&before, after) => {
                    if after.is_settled() {
                        self.fail_fork(place, node, &before);
                    }
                    return false;
                }
                Some(Slot::Fork(_)) => {}
                _ => break,
            }
        }
        matches!(self.run.slot(place), Some(Slot::Closed(_)))
    }

    /// No branch is open any more, and none decided for success.
    fn fail_fork(&mut self, place: &Place, node: &Node, fork: &Fork) {
        let failures: Vec<(&str, &Failure)> = node
            .blocks
            .iter()
            .zip(&fork.branches)
            .filter_map(|(block, branch)| match branch {
                Branch::Failed(failure) => Some((&*block.label, failure)),
                _ => None,
            })
            .collect();
        let (code, message) = match failures.as_slice() {
            [(label, failure)] => (
                Arc::clone(&failure.code),
                format!("branch `{label}`: {}", failure.message),
            ),
            several => {
                let each: Vec<String> = several
                    .iter()
                    .map(|(label, failure)| format!("`{label}`: {}", failure.message))
                    .collect();
                (Arc::from("all_branches_failed"), each.join("; "))
            }
        };
        self.push(Entry::StepFailed(StepFailed {
            of: Target::Step(self.run.path(place)),
            code,
            message: Arc::from(message),
            continued: false,
        }));
    }

    /// Brings an item to an end that failed without failing its loop; false while something of it is on its way.
    pub(super) fn item_is_settled(&mut self, place: &Place, item: usize) -> bool {
        let key = match self.run.slot(place) {
            Some(Slot::Loop(state)) => match state.items.get(item) {
                Some(item) if item.settling.is_some() => Arc::clone(&item.key),
                _ => return false,
            },
            _ => return false,
        };
        let step = self.run.path(place);
        if !self.settle(&format!("{step}[{key}].")) {
            return false;
        }
        let part = Some(key);
        self.push(Entry::Caught(Caught { step, part }));
        true
    }

    /// Gives up what is open in the steps whose paths begin with `inside`; true when nothing is any more.
    ///
    /// An effect that may have taken place is followed up until it is known: whatever comes next may have to undo it.
    pub(super) fn settle(&mut self, inside: &str) -> bool {
        let is_inside = |call: &OpenCall| matches!(&call.of, Target::Step(path) if path.starts_with(inside));
        let mut given_up: Vec<(CallId, Target, bool)> = Vec::new();
        let mut stays = false;
        for (id, call) in self.run.calls.iter().filter(|(_, call)| is_inside(call)) {
            let is_fresh = self.fresh.contains(id);
            if call.intent.is_some() && (call.maybe_sent || (call.phase == Phase::Flight && !is_fresh)) {
                stays = true;
            } else {
                given_up.push((*id, call.of.clone(), call.intent.is_some()));
            }
        }
        for (call, of, is_effect) in given_up {
            // What was only begun in this decision is not sent.
            self.fresh.remove(&call);
            self.commands.retain(|command| command.call() != call);
            self.push(Entry::Abandoned(Abandoned {
                call,
                of,
                effect: is_effect.then_some(EffectEnd::Failed),
            }));
        }
        !stays
    }

    /// Whether a call stands in a block whose failure was caught.
    pub(super) fn is_settling(&self, call: &OpenCall) -> bool {
        match &call.owner {
            Owner::Step(place) => self.run.is_settling(place),
            Owner::Read(_) => false,
        }
    }
}
