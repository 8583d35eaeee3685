//! What a failure does to a run: the way from the step at fault to whatever takes care of it.
//!
//! A failure goes outwards until a `try` catches it, or ends the run. What is open beside the failed step inside of that
//! `try` comes to an end first, so that no step of `catch` runs while an effect of `try` may still take place.

use std::sync::Arc;

use super::fold::EFFECT_UNKNOWN;
use super::state::{Closed, Failure, Guard, Place, ReadState, Rescue, RunState, Slot, Verdict};
use crate::document::Document;
use crate::journal::{Ending, Exchanges, Target};
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
            error: Some((Arc::clone(&self.code), Arc::clone(&self.message))),
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

    /// A call failed after which the run goes on: with its `on_error` steps if it has any.
    pub(super) fn rescue(&mut self, failure: Failure, attempts: u32, exchanges: Option<Exchanges>) {
        let closed = Closed {
            exchanges,
            ..failure.closed(attempts)
        };
        let Some(place) = self.place(&failure.step) else {
            return self.note_foreign(&Target::Step(failure.step));
        };
        let node = self.program.0.nodes.get(place.node);
        match node.is_some_and(|node| node.has_block(0)) {
            true => self.put_slot(&place, |_| Slot::Rescue(Arc::new(Rescue { failure, closed }))),
            false => self.close(place, closed),
        }
    }

    /// Takes a failure from the step at `place` outwards.
    fn raise(&mut self, mut place: Place, failure: Failure) {
        loop {
            let Some(parent) = self.program.0.nodes.get(place.node).map(|node| node.parent) else {
                return;
            };
            match parent {
                Parent::Workflow | Parent::OnFailure => {
                    self.ending.get_or_insert_with(|| failure.ending());
                    return;
                }
                Parent::Loop(outer) => {
                    place.items.pop();
                    place.node = outer;
                }
                Parent::Block(outer, block) => {
                    place.node = outer;
                    if self.catch(&place, block, &failure) {
                        return;
                    }
                }
            }
        }
    }

    /// Whether the step at `place` catches what failed in its block.
    fn catch(&mut self, place: &Place, block: usize, failure: &Failure) -> bool {
        let Some(node) = self.program.0.nodes.get(place.node) else {
            return false;
        };
        let follows = match block {
            TRY => node.has_block(CATCH) || node.has_block(FINALLY),
            CATCH => node.has_block(FINALLY),
            _ => false,
        };
        let Some(Slot::Guard(guard)) = self.slot(place) else {
            return false;
        };
        // The first failure counts.
        if guard.settling {
            return true;
        }
        if !follows {
            return false;
        }
        let settling = Guard {
            settling: true,
            failure: Some(failure.clone()),
            ..(**guard).clone()
        };
        self.put_slot(place, |_| Slot::Guard(Arc::new(settling)));
        true
    }

    /// What was open beside a caught failure has come to an end: the next block begins.
    pub(super) fn fold_caught(&mut self, step: &Arc<str>) {
        let Some(place) = self.place(step) else {
            return self.note_foreign(&Target::Step(Arc::clone(step)));
        };
        let Some(Slot::Guard(guard)) = self.slot(&place) else {
            return;
        };
        let (number, failure) = (guard.block, guard.failure.clone());
        let Some(node) = self.program.0.nodes.get(place.node) else {
            return;
        };
        let label = node.blocks.get(number).map_or("", |block| &block.label);
        let inside = format!("{step}.{label}.");
        let block = if number == TRY && node.has_block(CATCH) {
            CATCH
        } else {
            FINALLY
        };
        let mut sleeps = std::mem::take(&mut self.sleeps);
        sleeps.retain(|(_, asleep)| !self.path(asleep).starts_with(&inside));
        self.sleeps = sleeps;
        let next = Guard {
            failure,
            ..Guard::new(block)
        };
        self.put_slot(&place, |_| Slot::Guard(Arc::new(next)));
    }

    /// The last step of a block is through.
    pub(super) fn close_block(&mut self, place: Place, block: usize, output: Document) {
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

    /// Whether a step stands in a block whose failure was caught, so that nothing new may begin there.
    pub(super) fn is_settling(&self, place: &Place) -> bool {
        self.outwards(place)
            .any(|(outer, _)| matches!(self.slot(&outer), Some(Slot::Guard(guard)) if guard.settling))
    }

    /// What `error` stands for at a place.
    pub(super) fn failure_at(&self, place: &Place) -> Option<Failure> {
        let handled = self.outwards(place).find_map(|(outer, block)| match self.slot(&outer) {
            Some(Slot::Guard(guard)) if block == Some(CATCH) => guard.failure.clone(),
            Some(Slot::Rescue(rescue)) => Some(rescue.failure.clone()),
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

    /// The steps around a place from the inside, each with the number of the block that leads there.
    fn outwards(&self, place: &Place) -> impl Iterator<Item = (Place, Option<usize>)> + '_ {
        let mut at = place.clone();
        std::iter::from_fn(move || {
            let block = match self.program.0.nodes.get(at.node)?.parent {
                Parent::Workflow | Parent::OnFailure => return None,
                Parent::Loop(outer) => {
                    at.items.pop();
                    at.node = outer;
                    None
                }
                Parent::Block(outer, block) => {
                    at.node = outer;
                    Some(block)
                }
            };
            Some((at.clone(), block))
        })
    }
}
