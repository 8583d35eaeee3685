//! What a failure does to a run: the way from the step at fault to whatever takes care of it.
//!
//! A failure goes outwards until a `try` catches it, or ends the run. What is open beside the failed step inside of that
//! `try` comes to an end first, so that no step of `catch` runs while an effect of `try` may still take place.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fold::EFFECT_UNKNOWN;
use super::fork::record;
use super::state::{Branch, Closed, Failure, Guard, Place, ReadState, Rescue, RunState, Slot, Verdict};
use crate::definition::{Join, UNDO};
use crate::document::Document;
use crate::journal::{Caught, Ending, Exchanges, Target};
use crate::plan::{CATCH, FINALLY, Parent, TRY, Task};

impl Failure {
    fn ending(self) -> Ending {
        Ending::Failed {
            code: self.code,
            message: self.message,
            step: Some(self.step),
        }
    }

    fn closed(&self, attempts: u32) -> Closed {
        Closed {
            error: Some(self.clone()),
            attempts,
            ..Closed::plain(Verdict::Failed, None)
        }
    }
}

impl Guard {
    pub(super) fn new(block: usize) -> Self {
        Self {
            block,
            settling: false,
            failure: None,
            output: None,
        }
    }
}

impl RunState {
    /// A step or read failed.
    pub(super) fn fail(&mut self, of: &Target, code: &str, message: &str, attempts: u32, exchanges: Option<Exchanges>) {
        let failure = |step: Arc<str>| Failure {
            code: Arc::from(code),
            message: Arc::from(message),
            step,
        };
        match of {
            Target::Read(name) => {
                self.settle_read(name, ReadState::Null);
                let failure = failure(Arc::from(format!("hydrate.{name}")));
                self.ending.get_or_insert_with(|| failure.ending());
            }
            Target::Step(path) => {
                let failure = failure(Arc::clone(path));
                let closed = Arc::new(Closed {
                    exchanges,
                    ..failure.closed(attempts)
                });
                match self.place(path) {
                    Some(place) => {
                        self.forget_limit(&place);
                        self.put_slot(&place, |_| Slot::Closed(closed));
                        self.raise(place, failure);
                    }
                    None => self.note_foreign(of),
                }
            }
        }
    }

    /// Nobody knows whether the effect of a step took place. That is for a person: nothing catches it.
    pub(super) fn fail_unknown(&mut self, step: &Arc<str>, message: &str, attempts: u32) {
        let failure = Failure {
            code: Arc::from(EFFECT_UNKNOWN),
            message: Arc::from(message),
            step: Arc::clone(step),
        };
        self.unknown.get_or_insert_with(|| Arc::clone(step));
        let closed = Arc::new(failure.closed(attempts));
        self.set_slot(step, |_| Slot::Closed(closed));
        self.ending.get_or_insert_with(|| failure.ending());
    }

    /// Whether the run goes on when this fails with this code.
    pub(super) fn goes_on(&self, of: &Target, code: &str) -> bool {
        let Target::Step(path) = of else { return false };
        let place = self.place(path);
        let node = place.and_then(|place| self.program.0.nodes.get(place.node));
        node.is_some_and(|node| node.continues || node.handler(code).is_some())
    }

    /// A step failed after which the run goes on: with the steps for that if it has any.
    pub(super) fn rescue(&mut self, failure: Failure, attempts: u32, exchanges: Option<Exchanges>) {
        let closed = Closed {
            exchanges,
            ..failure.closed(attempts)
        };
        let Some(place) = self.place(&failure.step) else {
            return self.note_foreign(&Target::Step(failure.step));
        };
        let node = self.program.0.nodes.get(place.node);
        match node.and_then(|node| node.handler(&failure.code)) {
            Some(block) => {
                let rescue = Rescue { block, failure, closed };
                self.put_slot(&place, |_| Slot::Rescue(Arc::new(rescue)));
            }
            None => self.close(place, closed),
        }
    }

    /// Takes a failure from the step at `place` outwards.
    pub(super) fn raise(&mut self, place: Place, failure: Failure) {
        let mut left = vec![place.clone()];
        let way = self.outwards(&place).find(|(outer, via)| {
            let holds = self.holds(outer, *via);
            if !holds {
                left.push(outer.clone());
            }
            holds
        });
        left.iter().for_each(|place| self.note_left(place, &failure));
        let Some(way) = way else {
            self.ending.get_or_insert_with(|| failure.ending());
            return;
        };
        match way {
            (outer, Via::Block(block)) => self.catch(&outer, block, failure),
            (outer, Via::Item(item)) => self.set_item_settling(&outer, item, failure),
            (outer, Via::Undo) => self.set_undo_settling(&outer, failure),
        }
    }

    /// A failure went out of this step; what its block came to counts no more. One that is through says itself how.
    fn note_left(&mut self, place: &Place, failure: &Failure) {
        let slot = self.program.0.nodes.get(place.node).map(|node| node.slot);
        let is_open = matches!(
            self.slot(place),
            Some(Slot::Inside(_) | Slot::Loop(_) | Slot::Fork(_) | Slot::Guard(_))
        );
        if let (Some(slot), true) = (slot, is_open)
            && let Some(frame) = self.frame_mut(place)
        {
            frame.left.entry(slot).or_insert_with(|| failure.clone());
        }
    }

    /// Whether a failure that comes out of a block or an item of this step goes no further.
    fn holds(&self, place: &Place, via: Via) -> bool {
        let Some(node) = self.program.0.nodes.get(place.node) else {
            return false;
        };
        match (self.slot(place), via) {
            (Some(Slot::Guard(guard)), Via::Block(block)) => {
                let follows = match block {
                    TRY => node.has_block(CATCH) || node.has_block(FINALLY),
                    CATCH => node.has_block(FINALLY),
                    _ => false,
                };
                guard.settling || follows
            }
            (Some(Slot::Fork(_)), Via::Block(_)) => !matches!(node.task, Task::Parallel(Join::All)),
            (Some(Slot::Loop(_)), Via::Item(_)) => self.collects(place.node),
            (Some(Slot::Undo(_)), Via::Undo) => true,
            _ => false,
        }
    }

    /// The step at `place` takes a failure in one of its blocks. The first failure counts.
    pub(super) fn catch(&mut self, place: &Place, block: usize, failure: Failure) {
        match self.slot(place) {
            Some(Slot::Guard(guard)) if !guard.settling => {
                let settling = Guard {
                    settling: true,
                    failure: Some(failure),
                    ..(**guard).clone()
                };
                self.put_slot(place, |_| Slot::Guard(Arc::new(settling)));
            }
            Some(Slot::Fork(fork)) if fork.branches.get(block) == Some(&Branch::Open) => {
                self.set_branch(place, block, Branch::Settling(failure));
            }
            _ => {}
        }
    }

    pub(super) fn set_item_settling(&mut self, place: &Place, item: usize, failure: Failure) {
        let slot = self.program.0.nodes.get(place.node).map(|node| node.slot);
        let frame = slot.and_then(|slot| self.frame_mut(place)?.slots.get_mut(slot));
        if let Some(Slot::Loop(state)) = frame
            && let Some(item) = Arc::make_mut(state).items.get_mut(item)
        {
            Arc::make_mut(item).settling.get_or_insert(failure);
        }
    }

    /// Whether an item of a loop failed and comes to an end.
    pub(super) fn item_settles(&self, place: &Place, item: usize) -> bool {
        match self.slot(place) {
            Some(Slot::Loop(state)) => state.items.get(item).is_some_and(|item| item.settling.is_some()),
            _ => false,
        }
    }

    /// What was open beside a failure or in a branch that is left has come to an end.
    pub(super) fn fold_caught(&mut self, caught: &Caught) {
        let Some(place) = self.place(&caught.step) else {
            return self.note_foreign(&Target::Step(Arc::clone(&caught.step)));
        };
        let slot = self.slot(&place).cloned();
        let inside = match (&slot, caught.part.as_deref()) {
            (Some(Slot::Guard(guard)), _) => {
                let node = self.program.0.nodes.get(place.node);
                let label = node
                    .and_then(|node| node.blocks.get(guard.block))
                    .map_or("", |block| &block.label);
                format!("{}.{label}.", caught.step)
            }
            (Some(Slot::Loop(_)), Some(key)) => format!("{}[{key}].", caught.step),
            (Some(Slot::Undo(_)), Some(step)) => format!("{step}.{UNDO}."),
            (_, Some(label)) => format!("{}.{label}.", caught.step),
            (_, None) => return,
        };
        let mut sleeps = std::mem::take(&mut self.sleeps);
        sleeps.retain(|(_, asleep)| !self.path(asleep).starts_with(&inside));
        self.sleeps = sleeps;
        let mut limits = std::mem::take(&mut self.limits);
        limits.retain(|(_, bounded)| !self.path(bounded).starts_with(&inside));
        self.limits = limits;
        let (left, kept): (BTreeMap<_, _>, _) = std::mem::take(&mut self.waits)
            .into_iter()
            .partition(|(path, _)| path.starts_with(&inside));
        self.waits = kept;
        for place in left.into_values() {
            self.note_left_run(&place);
        }
        match slot {
            Some(Slot::Guard(guard)) => self.leave_block(&place, &guard),
            Some(Slot::Undo(undo)) => self.leave_undo(&place, &undo),
            Some(Slot::Fork(fork)) => {
                let node = self.program.0.nodes.get(place.node);
                let number = node
                    .zip(caught.part.as_deref())
                    .and_then(|(node, label)| node.block(label));
                let Some((number, branch)) = number.and_then(|number| Some((number, fork.branches.get(number)?)))
                else {
                    return;
                };
                let state = match branch {
                    Branch::Settling(failure) => Branch::Failed(failure.clone()),
                    _ => Branch::Left,
                };
                self.set_branch(&place, number, state);
                self.join(place);
            }
            Some(Slot::Loop(state)) => {
                let item = caught.part.as_ref().and_then(|key| state.by_key.get(key)).copied();
                let failure = item.and_then(|item| state.items.get(item)?.settling.clone());
                if let (Some(item), Some(failure)) = (item, failure) {
                    self.finish_item(place, item, record(Err(&failure)));
                }
            }
            _ => {}
        }
    }

    /// A `try` goes from the block that failed to the next one.
    fn leave_block(&mut self, place: &Place, guard: &Guard) {
        let has_catch = self
            .program
            .0
            .nodes
            .get(place.node)
            .is_some_and(|node| node.has_block(CATCH));
        self.forget_limit(place);
        let block = if guard.block == TRY && has_catch {
            CATCH
        } else {
            FINALLY
        };
        let next = Guard {
            failure: guard.failure.clone(),
            ..Guard::new(block)
        };
        self.put_slot(place, |_| Slot::Guard(Arc::new(next)));
    }

    /// The last step of a block is through.
    pub(super) fn close_block(&mut self, place: Place, block: usize, output: Document) {
        if self.is_undo(place.node, block) {
            return self.undone(&place);
        }
        let slot = self.slot(&place).cloned();
        let has_finally = self
            .program
            .0
            .nodes
            .get(place.node)
            .is_some_and(|node| matches!(node.task, Task::Try) && node.has_block(FINALLY));
        match slot {
            Some(Slot::Guard(guard)) if guard.settling => {}
            Some(Slot::Guard(_)) if block != FINALLY && has_finally => {
                let next = Guard {
                    output: Some(output),
                    ..Guard::new(FINALLY)
                };
                self.forget_limit(&place);
                self.put_slot(&place, |_| Slot::Guard(Arc::new(next)));
            }
            Some(Slot::Guard(guard)) if block == FINALLY => match guard.failure.clone() {
                Some(failure) => {
                    let closed = Arc::new(failure.closed(0));
                    self.put_slot(&place, |_| Slot::Closed(closed));
                    self.raise(place, failure);
                }
                None => self.close(place, Closed::plain(Verdict::Done, guard.output.clone())),
            },
            Some(Slot::Fork(fork)) if fork.branches.get(block) == Some(&Branch::Open) => {
                self.set_branch(&place, block, Branch::Done(output));
                self.join(place);
            }
            Some(Slot::Fork(_)) => {}
            Some(Slot::Rescue(rescue)) => self.close(
                place,
                Closed {
                    output: Some(output),
                    ..rescue.closed.clone()
                },
            ),
            _ => self.close(place, Closed::plain(Verdict::Done, Some(output))),
        }
    }

    /// Whether a step stands in a block, branch or item that comes to an end, so that nothing new may begin there.
    pub(super) fn is_settling(&self, place: &Place) -> bool {
        self.outwards(place).any(|(outer, via)| match (self.slot(&outer), via) {
            (Some(Slot::Guard(guard)), Via::Block(_)) => guard.settling,
            (Some(Slot::Fork(fork)), Via::Block(block)) => {
                matches!(fork.branches.get(block), Some(Branch::Settling(_) | Branch::Leaving))
            }
            (_, Via::Item(item)) => self.item_settles(&outer, item),
            (Some(Slot::Undo(undo)), Via::Undo) => undo.settling.is_some(),
            _ => false,
        })
    }

    /// What `error` stands for at a place.
    pub(super) fn failure_at(&self, place: &Place) -> Option<Failure> {
        let handled = self
            .outwards(place)
            .find_map(|(outer, via)| match (self.slot(&outer), via) {
                (Some(Slot::Guard(guard)), Via::Block(CATCH)) => guard.failure.clone(),
                (Some(Slot::Rescue(rescue)), _) => Some(rescue.failure.clone()),
                _ => None,
            });
        handled.or_else(|| match &self.failed {
            Some(Ending::Failed { code, message, step }) => Some(Failure {
                code: Arc::clone(code),
                message: Arc::clone(message),
                step: step.clone().unwrap_or_else(|| Arc::from("")),
            }),
            Some(Ending::Succeeded | Ending::Canceled) | None => None,
        })
    }

    /// The steps around a place from the inside, each with the block or item that leads there.
    fn outwards(&self, place: &Place) -> impl Iterator<Item = (Place, Via)> + '_ {
        let mut at = place.clone();
        std::iter::from_fn(move || {
            let via = match self.program.0.nodes.get(at.node)?.parent {
                Parent::Workflow | Parent::OnFailure => return None,
                Parent::Loop(outer) => {
                    at.node = outer;
                    Via::Item(at.items.pop()?)
                }
                Parent::Block(outer, block) => {
                    at.node = outer;
                    // What undoes a step stands in the `compensate` that has it done.
                    match self.undoing.get(&at).filter(|_| self.is_undo(outer, block)) {
                        Some(compensate) => {
                            at = compensate.clone();
                            Via::Undo
                        }
                        None => Via::Block(block),
                    }
                }
            };
            Some((at.clone(), via))
        })
    }
}

/// How a step stands in the one around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    Block(usize),
    Item(usize),
    /// In the steps that undo what it undoes.
    Undo,
}
