//! The walk through a `try`, and how what is open in a block comes to an end.

use super::state::{OpenCall, Owner, Phase, Place, Slot};
use super::walk::Walk;
use crate::command::CallId;
use crate::journal::{Abandoned, Caught, EffectEnd, Entry, Target};
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
                self.push(Entry::Caught(Caught { step }));
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

    /// Gives up what is open in the steps whose paths begin with `inside`; true when nothing is any more.
    ///
    /// An effect that may have taken place is followed up until it is known: whatever comes next may have to undo it.
    fn settle(&mut self, inside: &str) -> bool {
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
