//! The one thing that changes a run: taking in an entry.
//!
//! Folding is total and looks at nothing but the run and the entry: no expression is evaluated, no time is asked.

use std::sync::Arc;

use super::fork::record;
use super::state::{
    Closed, Failure, Frame, Guard, ItemState, Loop, OpenCall, Owner, Phase, Place, ReadState, RunState, Slot, Verdict,
};
use crate::command::CallId;
use crate::document::Document;
use crate::journal::{Ending, Entry, Item, StopStatus, Target};
use crate::plan::{NodeId, Parent, Task};
use crate::time::Timestamp;

/// The code of a run that stopped because nobody knows whether an effect took place.
pub(super) const EFFECT_UNKNOWN: &str = "effect_unknown";
/// The answer of a host that could not prove what it was asked to prove.
pub(super) const UNPROVEN: &str = "unproven";

impl RunState {
    /// Takes in an entry. Entries that do not belong to the plan are noted and reported by [`crate::decide`].
    pub fn fold(&mut self, entry: &Entry) {
        self.size.0 += 1;
        self.size.1 += entry.size_bytes();
        match entry {
            Entry::Issued(issued) => self.fold_issued(issued),
            Entry::Intended(intent) => self.fold_intent(intent),
            Entry::Attempt(attempt) => self.fold_attempt(attempt),
            Entry::Postponed(postponed) => {
                if let Some(call) = self.calls.get_mut(&postponed.call) {
                    call.maybe_sent = true;
                    call.failed_at = None;
                    call.phase = Phase::Wait {
                        until: postponed.until,
                        mode: Some(postponed.mode),
                    };
                }
            }
            Entry::Held(held) => {
                if let Some(call) = self.calls.get_mut(&held.call) {
                    // The try did not come about.
                    call.attempt = call.attempt.saturating_sub(1);
                    call.holds += 1;
                    call.phase = Phase::Wait {
                        until: held.until,
                        mode: held.mode,
                    };
                }
            }
            Entry::Answered(answered) => {
                self.forget_call(&Target::Step(Arc::clone(&answered.step)));
                let closed = Closed::plain(Verdict::Done, Some(answered.output.clone()));
                self.done(&answered.step, closed);
            }
            Entry::Unknown(unknown) => {
                if let Some(call) = unknown.call {
                    self.calls.remove(&call);
                }
                self.fail_unknown(&unknown.step, &unknown.reason, 0);
            }
            Entry::Abandoned(abandoned) => self.fold_abandoned(abandoned),
            Entry::ReadSkipped(skipped) => self.settle_read(&skipped.name, ReadState::Null),
            Entry::Skipped(skipped) => self.close_path(&skipped.step, Closed::plain(Verdict::Skipped, None)),
            Entry::Branch(branch) => {
                let Some(label) = branch.taken.label() else {
                    let closed = Closed::plain(Verdict::Done, Some(Document::null()));
                    return self.close_path(&branch.step, closed);
                };
                let place = self.place(&branch.step);
                let node = place.as_ref().and_then(|place| self.program.0.nodes.get(place.node));
                let block = node.and_then(|node| node.block(label));
                let is_try = node.is_some_and(|node| matches!(node.task, Task::Try));
                match (place, block) {
                    (Some(place), Some(block)) if is_try => {
                        self.put_slot(&place, |_| Slot::Guard(Arc::new(Guard::new(block))))
                    }
                    (Some(place), Some(block)) => self.put_slot(&place, |_| Slot::Inside(block)),
                    (None, _) | (_, None) => self.note_foreign(&Target::Step(Arc::clone(&branch.step))),
                }
            }
            Entry::Set(set) => {
                self.close_path(&set.step, Closed::plain(Verdict::Done, Some(set.output.clone())));
            }
            Entry::Items(items) => self.fold_items(&items.step, &items.items),
            Entry::Slept(slept) => match self.place(&slept.step) {
                Some(place) => {
                    self.put_slot(&place, |_| Slot::Asleep(slept.until));
                    self.sleeps.insert((slept.until, place));
                }
                None => self.note_foreign(&Target::Step(Arc::clone(&slept.step))),
            },
            Entry::Woke(woke) => {
                let place = self.place(&woke.step);
                self.sleeps.retain(|(_, asleep)| Some(asleep) != place.as_ref());
                self.close_path(&woke.step, Closed::plain(Verdict::Done, Some(Document::null())));
            }
            Entry::Forked(forked) => match self.place(&forked.step) {
                Some(place) => self.begin_fork(&place),
                None => self.note_foreign(&Target::Step(Arc::clone(&forked.step))),
            },
            Entry::Limited(limited) => self.fold_limited(limited),
            Entry::RanOver(over) => self.fold_ran_over(over),
            Entry::Caught(caught) => self.fold_caught(caught),
            Entry::FailureTaken(taken) => {
                self.failed = Some(taken.ending.clone());
                self.ending = None;
                self.sleeps.clear();
                self.limits.clear();
                for place in std::mem::take(&mut self.waits).into_values() {
                    self.note_left_run(&place);
                }
            }
            Entry::Stopped(stopped) => {
                let ending = match stopped.status {
                    StopStatus::Succeeded => Ending::Succeeded,
                    StopStatus::Failed => Ending::Failed {
                        code: Arc::from("stopped"),
                        message: Arc::clone(&stopped.reason),
                        step: Some(Arc::clone(&stopped.step)),
                    },
                };
                self.ending.get_or_insert(ending);
                self.set_slot(&stopped.step, |_| {
                    Slot::Closed(Arc::new(Closed::plain(Verdict::Done, None)))
                });
            }
            Entry::Awaited(awaited) => self.fold_awaited(awaited),
            Entry::Arrived(arrived) => self.fold_arrived(arrived),
            Entry::PassedOver(_) => {}
            Entry::Compensating(compensating) => self.fold_compensating(compensating),
            Entry::Compensated(compensated) => {
                let closed = Closed::plain(Verdict::Done, Some(compensated.output.clone()));
                self.close_path(&compensated.step, closed);
            }
            Entry::Paused(paused) => {
                self.paused.get_or_insert(paused.at);
            }
            Entry::Resumed(resumed) => {
                if let Some(since) = self.paused.take() {
                    // What it stood still before it began does not count: its time limits had not begun.
                    let stood = resumed.at.since(since.max(self.head.started_at));
                    self.paused_for = self.paused_for.saturating_add(stood);
                    self.put_limits_off(stood);
                }
            }
            Entry::Hurried(hurried) => {
                for hurried in &hurried.calls {
                    if let Some(OpenCall {
                        phase: Phase::Wait { until, .. },
                        ..
                    }) = self.calls.get_mut(&hurried.call)
                    {
                        *until = hurried.until;
                    }
                }
            }
            Entry::StepFailed(failed) if failed.continued => {
                self.forget_call(&failed.of);
                self.fail_wait(failed);
                if let Target::Step(step) = &failed.of {
                    let failure = Failure {
                        code: Arc::clone(&failed.code),
                        message: Arc::clone(&failed.message),
                        step: Arc::clone(step),
                    };
                    self.rescue(failure, 0, None);
                }
            }
            Entry::StepFailed(failed) => {
                self.forget_call(&failed.of);
                self.fail_wait(failed);
                self.fail(&failed.of, &failed.code, &failed.message, 0, None);
            }
            Entry::CancelAsked(_) => {
                self.ending.get_or_insert(Ending::Canceled);
            }
            Entry::TimedOut(timed_out) => {
                let limit = crate::duration::print(timed_out.limit);
                self.ending.get_or_insert_with(|| Ending::Failed {
                    code: Arc::from("timeout"),
                    message: Arc::from(format!("the run took longer than its limit of {limit}")),
                    step: None,
                });
            }
            Entry::Outgrown(outgrown) => {
                self.ending.get_or_insert_with(|| Ending::Failed {
                    code: Arc::from("run_too_large"),
                    message: Arc::clone(&outgrown.limit),
                    step: Some(Arc::clone(&outgrown.step)),
                });
            }
            Entry::Finished(finished) => {
                self.calls.clear();
                self.sleeps.clear();
                self.limits.clear();
                self.waits.clear();
                self.paused = None;
                self.finished = Some(finished.ending.clone());
            }
            // It is about the next run: this one is over.
            Entry::Decided(_) => {}
        }
    }

    pub(super) fn owner(&mut self, of: &Target) -> Option<Owner> {
        let owner = match of {
            Target::Read(name) => self
                .program
                .0
                .reads
                .iter()
                .position(|read| read.name() == &**name)
                .map(Owner::Read),
            Target::Step(path) => self.place(path).map(Owner::Step),
        };
        if owner.is_none() {
            self.note_foreign(of);
        }
        owner
    }

    pub(super) fn note_foreign(&mut self, of: &Target) {
        let what = match of {
            Target::Read(name) => format!("read `{name}`"),
            Target::Step(path) => format!("step `{path}`"),
        };
        self.foreign.get_or_insert(what);
    }

    pub(super) fn open_slot(&mut self, owner: &Owner) {
        match owner {
            Owner::Read(position) => {
                if let Some(read) = self.reads.get_mut(*position) {
                    *read = ReadState::Open;
                }
            }
            Owner::Step(place) => self.put_slot(place, |_| Slot::Open),
        }
    }

    fn fold_items(&mut self, step: &Arc<str>, items: &[Item]) {
        let place = self.place(step);
        let node = place.as_ref().and_then(|place| self.program.0.nodes.get(place.node));
        let slots = node.and_then(|node| node.task.for_each()).map(|each| each.slots);
        let Some(slots) = slots else {
            return self.note_foreign(&Target::Step(Arc::clone(step)));
        };
        if items.is_empty() {
            let output = Document::from_value(serde_json::Value::Array(Vec::new()));
            return self.close_path(step, Closed::plain(Verdict::Done, Some(output)));
        }
        let by_key = items
            .iter()
            .enumerate()
            .map(|(position, item)| (Arc::clone(&item.key), position))
            .collect();
        let state = |item: &Item| {
            Arc::new(ItemState {
                key: Arc::clone(&item.key),
                value: item.value.clone(),
                frame: Frame::new(slots),
                output: None,
                settling: None,
            })
        };
        let items = items.iter().map(state).collect();
        let state = Loop {
            items,
            by_key: Arc::new(by_key),
            done: 0,
            first_open: 0,
        };
        self.set_slot(step, |_| Slot::Loop(Arc::new(state)));
    }

    pub(super) fn settle_read(&mut self, name: &Arc<str>, state: ReadState) {
        let position = self.program.0.reads.iter().position(|read| read.name() == &**name);
        match position.and_then(|position| self.reads.get_mut(position)) {
            Some(read) => *read = state,
            None => self.note_foreign(&Target::Read(Arc::clone(name))),
        }
    }

    pub(super) fn set_slot(&mut self, path: &Arc<str>, change: impl FnOnce(&Slot) -> Slot) {
        match self.place(path) {
            Some(place) => self.put_slot(&place, change),
            None => self.note_foreign(&Target::Step(Arc::clone(path))),
        }
    }

    pub(super) fn frame_mut(&mut self, place: &Place) -> Option<&mut Frame> {
        let program = Arc::clone(&self.program.0);
        let mut frame = &mut self.frame;
        for (node, item) in program.nodes.get(place.node)?.loops.iter().zip(&place.items) {
            let slot = program.nodes.get(*node)?.slot;
            let state = match frame.slots.get_mut(slot)? {
                Slot::Loop(state) => state,
                Slot::Closed(closed) => Arc::make_mut(closed).items.as_mut()?,
                _ => return None,
            };
            let item = Arc::make_mut(state).items.get_mut(*item)?;
            frame = &mut Arc::make_mut(item).frame;
        }
        Some(frame)
    }

    pub(super) fn put_slot(&mut self, place: &Place, change: impl FnOnce(&Slot) -> Slot) {
        let slot = self.program.0.nodes.get(place.node).map(|node| node.slot);
        if let Some(slot) = slot
            && let Some(slot) = self.frame_mut(place).and_then(|frame| frame.slots.get_mut(slot))
        {
            *slot = change(slot);
        }
    }

    /// Forgets the call of something that is through: a try that was due may end a step before it is handed out.
    pub(super) fn forget_call(&mut self, of: &Target) {
        self.calls.retain(|_, call| call.of != *of);
    }

    pub(super) fn close_path(&mut self, path: &Arc<str>, closed: Closed) {
        match self.place(path) {
            Some(place) => self.close(place, closed),
            None => self.note_foreign(&Target::Step(Arc::clone(path))),
        }
    }

    /// Closes a step, and what is through with it.
    pub(super) fn close(&mut self, place: Place, closed: Closed) {
        let output = closed.output.clone();
        self.forget_limit(&place);
        self.note_undoable(&place, closed.verdict);
        let closed = self.keep_items(&place, closed);
        self.put_slot(&place, |_| Slot::Closed(Arc::new(closed)));
        let node = self.program.0.nodes.get(place.node);
        let Some(parent) = node.filter(|node| node.closes_block).map(|node| node.parent) else {
            return;
        };
        let output = output.unwrap_or_else(Document::null);
        match parent {
            Parent::Workflow | Parent::OnFailure => {}
            Parent::Block(node, block) => {
                let items = place.items;
                self.close_block(Place { node, items }, block, output);
            }
            Parent::Loop(node) => {
                let mut items = place.items;
                let Some(item) = items.pop() else { return };
                if self.item_settles(
                    &Place {
                        node,
                        items: items.clone(),
                    },
                    item,
                ) {
                    return;
                }
                let output = match self.collects(node) {
                    true => record(Ok(&output)),
                    false => output,
                };
                self.finish_item(Place { node, items }, item, output);
            }
        }
    }

    /// Notes the output of an item, and closes the loop when it was the last one open.
    pub(super) fn finish_item(&mut self, place: Place, item: usize, output: Document) {
        if let Some(list) = self.close_item(&place, item, output) {
            self.close(place, Closed::plain(Verdict::Done, Some(list)));
        }
    }

    /// Whether a failed item of this loop leaves the others alone.
    pub(super) fn collects(&self, node: NodeId) -> bool {
        let each = self.program.0.nodes.get(node).and_then(|node| node.task.for_each());
        each.is_some_and(|each| each.collects)
    }

    /// Notes the output of an item; gives the list of all outputs when it was the last one open.
    fn close_item(&mut self, place: &Place, item: usize, output: Document) -> Option<Document> {
        let slot = self.program.0.nodes.get(place.node)?.slot;
        let Slot::Loop(state) = self.frame_mut(place)?.slots.get_mut(slot)? else {
            return None;
        };
        let state = Arc::make_mut(state);
        Arc::make_mut(state.items.get_mut(item)?).output = Some(output);
        state.done += 1;
        while state
            .items
            .get(state.first_open)
            .is_some_and(|item| item.output.is_some())
        {
            state.first_open += 1;
        }
        if state.done < state.items.len() {
            return None;
        }
        Some(Document::list(
            state.items.iter().filter_map(|item| item.output.as_ref()),
        ))
    }

    /// The number for the next call.
    pub(super) fn fresh_call(&self) -> CallId {
        CallId(self.next_call)
    }

    /// When the first step that sleeps wakes up. Nobody does any more in a run that ends, nor in a block that is left.
    pub(crate) fn first_wake(&self) -> Option<Timestamp> {
        if self.ending.is_some() || self.paused.is_some() {
            return None;
        }
        let mut asleep = self.sleeps.iter();
        asleep
            .find(|(_, place)| !self.is_settling(place))
            .map(|(until, _)| *until)
    }

    /// The earliest moment at which something waits to go on.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let wait = |call: &OpenCall| match call.phase {
            Phase::Wait { until, .. } => Some(until),
            Phase::Flight => None,
        };
        if self.paused.is_some() && self.ending.is_none() {
            return None;
        }
        let timers = self.first_wake().into_iter().chain(self.first_limit());
        self.calls.values().filter_map(wait).chain(timers).min()
    }
}
