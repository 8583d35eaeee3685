//! A `compensate`: the steps of `undo` of what was done, newest first.
//!
//! What undoes a step stands beside that step, in its frame, so it sees the same items and outputs. Its failures go to the
//! `compensate` that has it done: that one goes on with the others, and fails at its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::state::{Closed, Doubtful, Failure, OpenCall, Place, RunState, Slot, Undo, Verdict};
use super::walk::{Fault, Walk};
use crate::definition::UNDO;
use crate::document::Document;
use crate::journal::{Awaits, Caught, Compensated, Compensating, EffectEnd, Entry, Target};
use crate::ledger::EffectState;
use crate::plan::{CATCH, FINALLY, NodeId, Parent, Task};

/// The code of a `compensate` that could not undo everything.
const COMPENSATION_FAILED: &str = "compensation_failed";

impl RunState {
    /// Whether a block of a step holds what undoes it.
    pub(super) fn is_undo(&self, node: NodeId, block: usize) -> bool {
        let node = self.program.0.nodes.get(node);
        node.and_then(|node| node.blocks.get(block))
            .is_some_and(|block| &*block.label == UNDO)
    }

    /// A step is through.
    pub(super) fn note_undoable(&mut self, place: &Place, verdict: Verdict) {
        let node = self.program.0.nodes.get(place.node);
        if verdict == Verdict::Done && node.is_some_and(|node| node.block(UNDO).is_some()) {
            self.undoable.push(place.clone());
        }
    }

    /// A call is given up. When that ended the run with `effect_unknown`, a person is told anyway.
    pub(super) fn note_doubtful(&mut self, call: Option<&OpenCall>, effect: Option<EffectEnd>) {
        let Some(intent) = call.and_then(|call| call.intent.as_ref()) else {
            return;
        };
        let can_be_undone = |place: Place| {
            let node = self.program.0.nodes.get(place.node);
            node.is_some_and(|node| node.block(UNDO).is_some())
        };
        if effect == Some(EffectEnd::Unknown) && self.place(&intent.step).is_some_and(can_be_undone) {
            let doubt = Doubtful::Effect(intent.key);
            self.doubtful.push((Arc::clone(&intent.step), doubt));
        }
    }

    /// A step waits no longer for the end of the run that it started: what that one did, and may still be doing, stands.
    pub(super) fn note_left_run(&mut self, place: &Place) {
        let Some(Slot::Waiting(awaited)) = self.slot(place) else {
            return;
        };
        let node = self.program.0.nodes.get(place.node);
        if let Awaits::Run { run } = awaited.what
            && node.is_some_and(|node| node.block(UNDO).is_some())
        {
            let left = (Arc::clone(&awaited.step), Doubtful::Left(run));
            self.doubtful.push(left);
        }
    }

    /// What a `compensate` at this place would have to undo if it was done, and nobody knows. A person may have said
    /// meanwhile that it was not.
    fn in_doubt(&self, place: &Place) -> impl Iterator<Item = &(Arc<str>, Doubtful)> {
        let inside = self.guarded_before(place);
        let steps = self.doubtful.iter();
        steps
            .filter(move |(path, _)| inside.as_ref().is_none_or(|inside| path.starts_with(inside.as_str())))
            .filter(|(_, doubt)| match doubt {
                Doubtful::Effect(key) => {
                    let known = self.ledger.get(key);
                    known.is_none_or(|record| record.state != EffectState::Failed)
                }
                Doubtful::Left(_) => true,
            })
    }

    /// A loop that is through keeps its items when something in it can be undone.
    pub(super) fn keep_items(&self, place: &Place, closed: Closed) -> Closed {
        let Some(Slot::Loop(items)) = self.slot(place) else {
            return closed;
        };
        let inside = |done: &Place| {
            self.program
                .0
                .nodes
                .get(done.node)
                .is_some_and(|node| node.loops.contains(&place.node))
        };
        match self.undoable.iter().any(inside) {
            true => Closed {
                items: Some(Arc::clone(items)),
                ..closed
            },
            false => closed,
        }
    }

    pub(super) fn fold_compensating(&mut self, compensating: &Compensating) {
        let Some(place) = self.place(&compensating.step) else {
            return self.note_foreign(&Target::Step(Arc::clone(&compensating.step)));
        };
        let of: Vec<Place> = compensating.of.iter().filter_map(|path| self.place(path)).collect();
        let taken: BTreeSet<&Place> = of.iter().collect();
        self.undoable = self
            .undoable
            .iter()
            .filter(|done| !taken.contains(done))
            .cloned()
            .collect();
        for step in &of {
            self.undoing.insert(step.clone(), place.clone());
        }
        let undo = Undo {
            of: Arc::from(of),
            done: 0,
            settling: None,
            failed: Vec::new(),
        };
        self.put_slot(&place, |_| Slot::Undo(Arc::new(undo)));
    }

    /// The steps that undo the one at `place` are through.
    pub(super) fn undone(&mut self, place: &Place) {
        let Some(compensate) = self.undoing.remove(place) else {
            return;
        };
        self.change_undo(&compensate, |undo| undo.done += 1);
    }

    /// Undoing the step at hand failed. The first failure counts.
    pub(super) fn set_undo_settling(&mut self, compensate: &Place, failure: Failure) {
        self.change_undo(compensate, |undo| {
            undo.settling.get_or_insert(failure);
        });
    }

    /// What was open where undoing failed has come to an end.
    pub(super) fn leave_undo(&mut self, compensate: &Place, undo: &Undo) {
        if let Some(step) = undo.of.get(undo.done) {
            self.undoing.remove(step);
        }
        self.change_undo(compensate, |undo| {
            undo.failed.extend(undo.settling.take());
            undo.done += 1;
        });
    }

    fn change_undo(&mut self, compensate: &Place, change: impl FnOnce(&mut Undo)) {
        if let Some(Slot::Undo(undo)) = self.slot(compensate) {
            let mut undo = (**undo).clone();
            change(&mut undo);
            self.put_slot(compensate, |_| Slot::Undo(Arc::new(undo)));
        }
    }

    /// What a `compensate` at this place undoes, in this order: in `catch` and `finally` what `try` did, elsewhere all.
    /// With the last step that may change something outside for each.
    fn to_undo(&self, place: &Place) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let inside = self.guarded_before(place);
        let done = self.undoable.iter().rev().map(|done| (done, self.path(done)));
        done.filter(|(_, path)| inside.as_ref().is_none_or(|inside| path.starts_with(inside.as_str())))
            .map(|(done, path)| {
                let last = self.last_that_undoes(done.node, &path);
                (path, last)
            })
            .unzip()
    }

    /// The path of the last step of `undo` that is a call or may hold one; empty when there is none.
    fn last_that_undoes(&self, node: NodeId, path: &str) -> Arc<str> {
        let nodes = &self.program.0.nodes;
        let block = nodes.get(node).and_then(|node| node.blocks.get(node.block(UNDO)?));
        let mut steps = block.into_iter().flat_map(|block| block.steps.iter().rev());
        let last = steps.find_map(|step| {
            let step = nodes.get(*step)?;
            let changes_nothing = matches!(
                step.task,
                Task::Set { .. } | Task::Sleep(_) | Task::WaitFor(_) | Task::Approve(_) | Task::Stop { .. }
            );
            (!changes_nothing || !step.blocks.is_empty()).then(|| format!("{path}.{UNDO}.{}", step.id))
        });
        Arc::from(last.unwrap_or_default())
    }

    /// What the paths of the steps in the `try` begin with in whose `catch` or `finally` the step stands.
    fn guarded_before(&self, place: &Place) -> Option<String> {
        let mut at = place.clone();
        loop {
            match self.program.0.nodes.get(at.node)?.parent {
                Parent::Workflow | Parent::OnFailure => return None,
                Parent::Loop(outer) => {
                    at.node = outer;
                    at.items.pop()?;
                }
                Parent::Block(outer, block) => {
                    at.node = outer;
                    let is_try = matches!(self.program.0.nodes.get(outer)?.task, Task::Try);
                    if is_try && matches!(block, CATCH | FINALLY) {
                        return Some(format!("{}.try.", self.path(&at)));
                    }
                }
            }
        }
    }
}

impl Walk<'_> {
    /// A `compensate` begins.
    pub(super) fn compensate(&self, place: &Place, path: &Arc<str>) -> Entry {
        let (of, last) = self.run.to_undo(place);
        Entry::Compensating(Compensating {
            step: Arc::clone(path),
            of,
            last,
        })
    }

    /// Walks what a `compensate` has done; true when it is through.
    pub(super) fn undo(&mut self, place: &Place) -> bool {
        while !self.is_over() {
            let Some(Slot::Undo(undo)) = self.run.slot(place).cloned() else {
                break;
            };
            let Some(step) = undo.of.get(undo.done) else {
                self.end_undo(place, &undo);
                break;
            };
            let path = self.run.path(step);
            if undo.settling.is_some() {
                if !self.settle(&format!("{path}.{UNDO}.")) {
                    return false;
                }
                let part = Some(path);
                let step = self.run.path(place);
                self.push(Entry::Caught(Caught { step, part }));
                continue;
            }
            let program = self.program;
            let Some(node) = program.nodes.get(step.node) else {
                return false;
            };
            let block = node.block(UNDO).and_then(|block| node.blocks.get(block));
            let Some(block) = block else { return false };
            let mut items = step.items.clone();
            if !self.block(&block.steps, &mut items) {
                // A step of it may have failed just now.
                match self.run.slot(place) {
                    Some(Slot::Undo(undo)) if undo.settling.is_some() => {}
                    _ => return false,
                }
            }
        }
        !self.is_over() && matches!(self.run.slot(place), Some(Slot::Closed(_)))
    }

    fn end_undo(&mut self, place: &Place, undo: &Undo) {
        let step = self.run.path(place);
        let in_doubt: Vec<&(Arc<str>, Doubtful)> = self.run.in_doubt(place).collect();
        if undo.failed.is_empty() && in_doubt.is_empty() {
            let undone: Vec<String> = undo.of.iter().map(|step| self.run.path(step).to_string()).collect();
            let output = Document::from_value(json!({ "undone": undone }));
            return self.push(Entry::Compensated(Compensated { step, output }));
        }
        let failed = undo.failed.iter();
        let failed = failed.map(|failure| format!("`{}`: {}", failure.step, failure.message));
        let of = undo.of.len() + in_doubt.len();
        let in_doubt = in_doubt.into_iter();
        let in_doubt = in_doubt.map(|(step, doubt)| match doubt {
            Doubtful::Effect(_) => format!("`{step}`: nobody knows whether it took place"),
            Doubtful::Left(run) => {
                format!("`{step}`: {run} was left or canceled before its end, and what it did stands")
            }
        });
        let each: Vec<String> = failed.chain(in_doubt).collect();
        let message = format!("{} of {of} could not be undone: {}", each.len(), each.join("; "));
        let code = COMPENSATION_FAILED;
        self.fail(Target::Step(step), Fault { code, message });
    }
}
