//! What comes from outside: events, in any order and more than once; and what runs ask of Weir itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use weir_connector_sdk::Identified;
use weir_storage::{
    AcceptOutcome, Accepted, Answer, Dedupe, Fact, FactOutcome, Outgoing, RunOwner, WaitKey, WriteError,
};
use weir_workflow_engine::{CallCommand, CallFailure, Document, EventId, EventSource, OutgoingId, Sent};

use super::answers::is_respond;
use super::calls::failure;
use super::flow::KEYS;
use super::item::{Item, Place, Turn, Wish};
use super::rules::Broken;
use super::setting::CONNECTION;
use super::world::{Broke, Lawful, Told, WORKSPACE, World, broke};
use crate::driver::ActiveRun;
use crate::ingest::accept::{Arrival, Door, new_run, start_runs};
use crate::route::{self, Match};

/// When a provider delivers again what was not acknowledged.
const DELIVERED_AGAIN: Duration = Duration::from_secs(7);
/// The first minute of a world: most of what happens to it by chance.
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

impl World<'_> {
    /// What the provider and the people are going to do, and what is going to break.
    pub(super) fn plan(&mut self) {
        let waits: Vec<String> = self
            .workflows
            .iter()
            .flat_map(|workflow| workflow.waits.clone())
            .collect();
        let waiting = self.workflows.iter().any(|workflow| workflow.flow.is_used());
        let orders = match waiting {
            true => 2 + self.chance.below(3),
            false => 1 + self.chance.below(2),
        };
        for order in 0..orders {
            let items: Vec<String> = (0..self.chance.below(4)).map(|item| format!("i{item}")).collect();
            let id = format!("order-{order}");
            let key = *self.chance.pick(KEYS);
            self.announce(&id, "order", json!({ "items": items, "key": key, "rev": 0 }), MINUTE);
            for step in &waits {
                if self.chance.percent(75) {
                    let soon = if self.chance.percent(50) { MINUTE } else { 5 * HOUR };
                    let to = format!("{id}/{step}");
                    self.announce(&format!("answer-{order}-{step}"), "answer", json!({ "to": to }), soon);
                }
            }
        }
        for _ in 0..self.chance.below(3) {
            let soon = if self.chance.percent(70) { MINUTE / 4 } else { 3 * HOUR };
            let at = self.within(soon);
            let item = match self.chance.percent(50) {
                true => Item::TakeOver,
                false => Item::Crash {
                    reboot: self.chance.percent(15),
                },
            };
            self.after(at, item);
        }
        for _ in 0..self.chance.below(3) {
            let soon = if self.chance.percent(60) { MINUTE / 4 } else { 3 * HOUR };
            let at = self.within(soon);
            self.after(at, Item::Ask(Wish::Something));
        }
        for workflow in 0..self.workflows.len() {
            if self.workflows[workflow].next.is_some() {
                let soon = if self.chance.percent(60) { MINUTE } else { 5 * HOUR };
                let at = self.within(soon);
                self.after(at, Item::Publish(workflow));
            }
        }
    }

    fn announce(&mut self, id: &str, kind: &str, data: Value, soon: Duration) {
        let told = self.tell_of(id, kind, &data);
        for _ in 0..=self.chance.below(3) {
            let pause = self.within(soon);
            self.after(pause, Item::Deliver(told));
        }
    }

    /// The provider has an event to tell of.
    pub(super) fn tell_of(&mut self, id: &str, kind: &str, data: &Value) -> usize {
        self.told.push(Told {
            id: id.to_owned(),
            kind: kind.to_owned(),
            body: json!({ "id": id, "type": kind, "data": data }).to_string(),
            acknowledged: false,
            deliveries: 0,
            answer: None,
        });
        self.told.len() - 1
    }

    /// An event is delivered to the process in charge.
    pub(super) fn deliver(&mut self, told: usize) -> Lawful {
        let Some(process) = self.in_charge() else {
            self.after(DELIVERED_AGAIN, Item::Deliver(told));
            return Ok(());
        };
        self.told[told].deliveries += 1;
        let Told {
            id,
            kind,
            body,
            deliveries,
            ..
        } = self.told[told].clone();
        if self.broken == Broken::AckBeforeCommit {
            self.told[told].acknowledged = true;
        }
        let key = match self.broken {
            Broken::DedupeIgnored => format!("{id}#{deliveries}"),
            _ => id.clone(),
        };
        let dedupe = Dedupe {
            scope: "endpoint/shop".to_owned(),
            key,
            anchored_at: None,
        };
        let unit = unit(&id, &kind, "/data");
        let raw = Bytes::from(body);
        let (snapshot, now) = (Arc::clone(&self.snapshot), self.now);
        let ids = &self.processes[process].ids;
        let (event, row) = Arrival {
            door: Door {
                workspace: WORKSPACE,
                connector: "shop",
                connection: Some((CONNECTION, "shop")),
                endpoint: None,
                source: EventSource::Endpoint,
            },
            unit,
            document: &Document::parse(&raw).map_err(|error| Broke(error.to_string()))?,
            raw: &raw,
            headers: &BTreeMap::new(),
            traceparent: None,
            now,
        }
        .event(EventId::from_raw(ids.next_raw(now)));
        let matches = route::matches(&snapshot, WORKSPACE, &event, now);
        let keys = snapshot.wait_keys(WORKSPACE, &event);
        let event = Arc::new(event);
        let started = start_runs((ids, &snapshot), &event, &dedupe, matches, WORKSPACE, None, now);
        let waits = self.has_wait(process, told, &started);
        if self.dies_here() {
            self.crash(false);
            self.deliver_again(told);
            return Ok(());
        }
        let accepted = self.accept(process, row, dedupe, keys, started)?;
        match (accepted, waits) {
            (Ok(AcceptOutcome::New), Some((run, within))) => {
                self.after(within, Item::Impatient(process, run));
                return Ok(());
            }
            (Ok(AcceptOutcome::New), None) => self.told[told].acknowledged = true,
            (Ok(AcceptOutcome::Duplicate { of }), _) => self.answer_again(told, of)?,
            (Err(_), _) => self.deliver_again(told),
        }
        // Nobody is going to answer this one.
        if let Some((run, _)) = waits {
            self.processes[process].callers.remove(&run);
        }
        Ok(())
    }

    pub(super) fn deliver_again(&mut self, told: usize) {
        if !self.told[told].acknowledged {
            self.after(DELIVERED_AGAIN, Item::Deliver(told));
        }
    }

    /// Writes an event with its runs, and starts them when it is new. `Err`: nobody heard what became of it.
    fn accept(
        &mut self,
        process: usize,
        event: weir_storage::EventRow,
        dedupe: Dedupe,
        keys: Vec<WaitKey>,
        started: Vec<ActiveRun>,
    ) -> Lawful<Result<AcceptOutcome, WriteError>> {
        let fact = Fact::Accept(Accepted {
            event,
            dedupe,
            runs: started.iter().map(|run| new_run(run, RunOwner::ThisNode)).collect(),
            keys,
            fires: None,
            routed_by: None,
            audit: None,
            after_commit: None,
        });
        let answer = self.write_in_trouble(process, fact)?;
        let outcome = match &answer.result {
            Ok(FactOutcome::Accepted(outcome)) => *outcome,
            Ok(other) => return broke("an event is answered as one", format!("{other:?}")),
            Err(error) => return Ok(Err(error.clone())),
        };
        if self.in_charge() == Some(process) && self.dies_here() {
            self.crash(false);
            return Ok(Err(WriteError::Unknown));
        }
        self.hand_over(process, &answer);
        if outcome == AcceptOutcome::New {
            for run in started {
                self.launch_if_free(process, run, &answer);
            }
        }
        Ok(Ok(outcome))
    }

    /// A run begins, unless it has to wait for its turn.
    pub(super) fn launch_if_free(&mut self, process: usize, run: ActiveRun, answer: &Answer) {
        if !answer.held.contains(&run.state.head().id) || self.jumps_the_queue(&run) {
            self.launch(process, run);
        }
    }

    /// A run begins, at once or when there is room in memory.
    fn launch(&mut self, process: usize, run: ActiveRun) {
        if self.chance.percent(10) {
            let pause = self.within(Duration::from_secs(3));
            let id = run.state.head().id;
            self.after(pause, Item::Load(process, id));
            return;
        }
        let place = self.enter(process, run);
        self.soon(Item::Turn(place, Turn::Begin));
    }

    /// A step asks for something that Weir itself does.
    pub(super) fn perform_own(&mut self, place: Place, call: &CallCommand) -> Lawful {
        let Some(effect) = &call.effect else {
            return broke("what Weir does is keyed", &call.step);
        };
        let args = call.args.value();
        if is_respond(call) {
            let output = self.respond(place, call)?;
            self.answer_own(place, call, Ok(Document::from_value(output)));
            return Ok(());
        }
        if call.operation == "emit" {
            let raw = self.processes[place.process].ids.next_raw(self.now);
            let event = Outgoing {
                id: OutgoingId::from_raw(raw),
                workspace: WORKSPACE,
                effect_key: effect.key.to_bytes(),
                kind: "shop.told".to_owned(),
                order_key: None,
                run: place.run,
                step: call.step.clone(),
                created_at: self.now,
                body: Bytes::from(args["data"].to_string()),
            };
            let answer = self.write(place.process, Fact::Emit(event))?.result;
            if self.broken == Broken::NoFence || answer != Err(WriteError::Fenced) {
                let output = Document::from_value(json!({}));
                self.answer_own(place, call, answer.map(|_| output));
            }
            return Ok(());
        }
        let snapshot = Arc::clone(&self.snapshot);
        let workflow = snapshot.workflow(WORKSPACE, args["workflow"].as_str().unwrap_or_default());
        let found = workflow.and_then(|workflow| Some((Arc::clone(workflow), workflow.published.clone()?)));
        let Some((workflow, version)) = found else {
            return broke("a run that is started has its workflow", args);
        };
        let (ids, now) = (&self.processes[place.process].ids, self.now);
        let uid = EventId::from_raw(ids.next_raw(now));
        let document = Document::from_value(args["input"].clone());
        let raw = Bytes::copy_from_slice(document.raw().as_bytes());
        let dedupe = Dedupe {
            scope: "run".to_owned(),
            key: effect.key.to_string(),
            anchored_at: None,
        };
        let (event, row) = Arrival {
            door: Door {
                workspace: WORKSPACE,
                connector: "manual",
                connection: None,
                endpoint: None,
                source: EventSource::Workflow,
            },
            unit: unit(&uid.to_string(), &workflow.row.name, ""),
            document: &document,
            raw: &raw,
            headers: &BTreeMap::new(),
            traceparent: None,
            now,
        }
        .event(uid);
        let found = Match {
            workflow,
            version,
            failure: None,
        };
        let started = start_runs(
            (ids, &snapshot),
            &Arc::new(event),
            &dedupe,
            vec![found],
            WORKSPACE,
            None,
            now,
        );
        let fresh = started.first().map(|run| run.state.head().id);
        let accepted = self.accept(place.process, row, dedupe, Vec::new(), started)?;
        let run = match accepted {
            Ok(AcceptOutcome::New) => Ok(fresh),
            Ok(AcceptOutcome::Duplicate { of }) => {
                let first = self.store.event(of).map_err(|error| Broke(error.to_string()))?;
                Ok(first.and_then(|event| event.runs.first().copied()))
            }
            Err(error) => Err(error),
        };
        let output = run.map(|run| Document::from_value(json!({ "run": run.map(|run| run.to_string()) })));
        self.answer_own(place, call, output);
        Ok(())
    }

    fn answer_own(&mut self, place: Place, call: &CallCommand, answer: Result<Document, WriteError>) {
        let answer = answer.map_err(|error| CallFailure {
            sent: Sent::Maybe,
            ..failure(&error.to_string(), None, Sent::Maybe, true)
        });
        self.answer(place, call.call, answer);
    }
}

fn unit(id: &str, kind: &str, data: &str) -> Identified {
    Identified {
        unit_pointer: String::new(),
        id: id.to_owned(),
        id_from_provider: true,
        kind: kind.to_owned(),
        time_unix_ms: None,
        account: None,
        reference: Some(("object".to_owned(), id.to_owned(), None)),
        data_pointer: data.to_owned(),
        dedupe_key: id.to_owned(),
        by_arrival: false,
        sequence: None,
        order_key: None,
        ignored: false,
    }
}
