//! Whoever sent an event hears the answer of its run: while it waits, when it sends the event again, or when it asks at the
//! address that it was given.

use std::time::Duration;

use serde_json::{Value, json};
use weir_workflow_engine::{CallCommand, EventId, OWN, RunId};

use super::item::{Item, Place};
use super::world::{Broke, Lawful, World, broke, unread};
use crate::answers::{Answer, answering, given};
use crate::driver::ActiveRun;

/// When a sender that was not answered in time asks for the answer; each pause is four times the one before.
const ASKS: Duration = Duration::from_secs(2);
/// How often it asks.
const ASKS_AT_MOST: u32 = 8;

/// Whether a call is the answer of a `respond`.
pub(super) fn is_respond(call: &CallCommand) -> bool {
    call.connector == OWN && call.operation == "respond"
}

impl World<'_> {
    /// Has a sender wait for the first of these runs that answers: which one, and how long.
    pub(super) fn has_wait(&mut self, process: usize, told: usize, started: &[ActiveRun]) -> Option<(RunId, Duration)> {
        let (run, within) = answering(started)?;
        let id = run.state.head().id;
        self.processes[process].callers.insert(id, told);
        Some((id, within))
    }

    /// A sender has waited long enough.
    pub(super) fn lose_patience(&mut self, process: usize, run: RunId) {
        if let Some(told) = self.processes[process].callers.remove(&run) {
            self.come_later(told, run, ASKS_AT_MOST);
        }
    }

    /// The sender hears where the answer is going to be.
    fn come_later(&mut self, told: usize, run: RunId, asks: u32) {
        self.told[told].acknowledged = true;
        let pause = ASKS * 4_u32.pow(ASKS_AT_MOST - asks);
        self.after(pause, Item::Fetch { told, run, asks });
    }

    /// A sender asks for an answer that was not there in time.
    pub(super) fn fetch(&mut self, told: usize, run: RunId, asks: u32) -> Lawful {
        match self.answer_on_disk(run)? {
            Some(answer) => self.hears(told, run, answer),
            None => {
                if asks > 1 {
                    self.come_later(told, run, asks - 1);
                }
                Ok(())
            }
        }
    }

    /// An event came again: its sender hears what the first one heard.
    pub(super) fn answer_again(&mut self, told: usize, event: EventId) -> Lawful {
        let stored = self.store.event(event).map_err(unread)?;
        for run in stored.into_iter().flat_map(|stored| stored.runs) {
            let Some(stored) = self.store.run(run).map_err(unread)? else {
                return broke("an event names the runs that it started", run);
            };
            if self.version_of(&stored.run)?.plan.responds_within().is_none() {
                continue;
            }
            match self.answer_on_disk(run)? {
                Some(answer) => self.hears(told, run, answer)?,
                None => self.come_later(told, run, ASKS_AT_MOST),
            }
            return Ok(());
        }
        self.told[told].acknowledged = true;
        Ok(())
    }

    /// A `respond` is carried out: whoever waits hears it.
    pub(super) fn respond(&mut self, place: Place, call: &CallCommand) -> Lawful<Value> {
        let (answer, _) = Answer::of(call.args.value());
        let caller = self.processes[place.process].callers.remove(&place.run);
        if let Some(told) = caller {
            self.hears(told, place.run, answer)?;
        }
        Ok(json!({ "delivered": caller.is_some() }))
    }

    fn answer_on_disk(&mut self, run: RunId) -> Lawful<Option<Answer>> {
        let journal = self.store.journal(run).map_err(unread)?;
        given(&journal).map_err(|error| Broke(error.to_string()))
    }

    /// A sender hears an answer. It must be on disk, and the one that it heard before.
    fn hears(&mut self, told: usize, run: RunId, answer: Answer) -> Lawful {
        let on_disk = self.answer_on_disk(run)?;
        self.note(|| format!("the sender of event {told} hears {:?} of {run}", answer.status));
        if on_disk.as_ref() != Some(&answer) {
            return broke("an answer is on disk before it is given, and stays what it is", run);
        }
        let told = &mut self.told[told];
        told.acknowledged = true;
        match told.answer.replace(answer.clone()) {
            Some(before) if before != answer => {
                broke("whoever sends an event again hears the answer of the first", &told.id)
            }
            Some(_) | None => Ok(()),
        }
    }
}
