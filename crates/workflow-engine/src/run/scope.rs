//! What expressions see. One scope per place in a run; values are looked up when asked for, never gathered.
//!
//! No scope holds a secret: what is not in these lists cannot be named.

use std::cell::OnceCell;

use serde_json::{Map, Value, json};

use super::Environment;
use super::fold::EFFECT_UNKNOWN;
use super::state::{Closed, Failure, Frame, Place, ReadState, RunState, Slot, Verdict};
use crate::definition::ITEM;
use crate::document::{Document, PathPart};
use crate::event::Event;
use crate::expression::{Found, Scope};
use crate::journal::Exchanges;
use crate::plan::{Program, Task};
use crate::result::Origin;
use crate::time::Timestamp;

/// The names that `where` sees: before hydration.
pub(crate) const TRIGGER_ROOTS: [&str; 4] = ["event", "connection", "trigger", "now"];
/// The names that steps see, beside `item` and its other names.
pub(crate) const STEP_ROOTS: [&str; 9] = [
    "event",
    "hydrated",
    "provenance",
    "steps",
    "results",
    "run",
    "connection",
    "trigger",
    "now",
];
/// The event that a step waits for, where it is looked at.
pub(crate) const ARRIVED: &str = "arrived";
/// The member of `event` that lists a batch; steps of workflows with `batch` see it.
pub(crate) const BATCH: &str = "batch";
/// The members of `event`.
pub(crate) const EVENT_MEMBERS: [&str; 13] = [
    "id",
    "uid",
    "type",
    "time",
    "received_at",
    "source",
    "account",
    "ref",
    "headers",
    "body",
    "data",
    "connector",
    "endpoint",
];

/// A part of a tree.
fn inside<'a>(value: &'a Value, path: &[PathPart]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, part| match part {
        PathPart::Key(key) => value.get(key),
        PathPart::Index(index) => value.get(index),
    })
}

fn in_value(value: Value, path: &[PathPart]) -> Found<'static> {
    match path {
        [] => Found::Owned(value),
        _ => inside(&value, path).map_or(Found::Missing, |part| Found::Owned(part.clone())),
    }
}

fn in_document<'a>(document: &'a Document, path: &[PathPart]) -> Found<'a> {
    document.find(path).map_or(Found::Missing, Found::Raw)
}

/// A text value; it has no members.
fn in_text<'a>(text: &'a str, path: &[PathPart]) -> Found<'a> {
    if path.is_empty() {
        Found::Text(text)
    } else {
        Found::Missing
    }
}

fn in_option<'a>(text: Option<&'a str>, path: &[PathPart]) -> Found<'a> {
    match text {
        Some(text) => in_text(text, path),
        None if path.is_empty() => Found::Owned(Value::Null),
        None => Found::Missing,
    }
}

fn key(path: &[PathPart]) -> Option<(&str, &[PathPart])> {
    match path.split_first() {
        Some((PathPart::Key(key), rest)) => Some((key, rest)),
        Some((PathPart::Index(_), _)) | None => None,
    }
}

fn time_text(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, |time| Value::from(time.to_string()))
}

pub(super) fn reference(event: &Event) -> Value {
    event.reference.as_ref().map_or(Value::Null, |reference| {
        let mut object = json!({ "type": reference.kind, "id": reference.id });
        if let (Some(version), Some(object)) = (&reference.version, object.as_object_mut()) {
            object.insert("version".to_owned(), Value::from(version.as_str()));
        }
        object
    })
}

fn in_reference<'a>(event: &'a Event, path: &[PathPart]) -> Found<'a> {
    match (key(path), &event.reference) {
        (Some(("id", rest)), Some(reference)) => in_text(&reference.id, rest),
        (Some(("type", rest)), Some(reference)) => in_text(&reference.kind, rest),
        _ => in_value(reference(event), path),
    }
}

/// The event with all its members.
pub(crate) fn whole_event(event: &Event) -> Value {
    let member = |member: &str| in_event(event, &[PathPart::Key(member.to_owned())]).into_value();
    let whole: Map<String, Value> = EVENT_MEMBERS
        .iter()
        .map(|name| ((*name).to_owned(), member(name)))
        .collect();
    Value::Object(whole)
}

/// The event at a path below `event`.
fn in_event<'a>(event: &'a Event, path: &[PathPart]) -> Found<'a> {
    let Some((member, rest)) = key(path) else {
        if !path.is_empty() {
            return Found::Missing;
        }
        return Found::Owned(whole_event(event));
    };
    match member {
        "data" => in_document(&event.data, rest),
        "body" => in_document(&event.body, rest),
        BATCH => match &event.batch {
            Some(batch) => in_document(batch, rest),
            None => in_value(Value::Null, rest),
        },
        "id" => in_text(&event.id, rest),
        "type" => in_text(&event.kind, rest),
        "ref" => in_reference(event, rest),
        "account" => in_option(event.account.as_deref(), rest),
        "source" => in_text(event.source.as_str(), rest),
        "connector" => in_text(&event.connector, rest),
        "endpoint" => in_option(event.endpoint.as_deref(), rest),
        "uid" => in_value(Value::from(event.uid.to_string()), rest),
        "time" => in_value(time_text(event.time), rest),
        "received_at" => in_value(Value::from(event.received_at.to_string()), rest),
        "headers" => match key(rest) {
            Some((name, rest)) => event
                .headers
                .get(name)
                .map_or(Found::Missing, |value| in_text(value, rest)),
            None => in_value(json!(event.headers), rest),
        },
        _ => Found::Missing,
    }
}

/// `trigger`: how the event came.
pub(super) fn trigger_value(event: &Event) -> Value {
    json!({
        "kind": event.source.as_str(),
        "endpoint": event.endpoint,
        "scheduled_for": time_text(event.scheduled_for),
    })
}

/// The scope of `where`.
pub(crate) struct TriggerNames<'a> {
    pub(crate) event: &'a Event,
    pub(crate) connection: &'a Value,
    pub(crate) trigger: &'a Value,
    pub(crate) now: Timestamp,
}

impl Scope for TriggerNames<'_> {
    fn find(&self, root: &str, path: &[PathPart]) -> Found<'_> {
        match root {
            "event" => in_event(self.event, path),
            "connection" => in_value(self.connection.clone(), path),
            "trigger" => in_value(self.trigger.clone(), path),
            "now" => in_value(Value::from(self.now.to_string()), path),
            _ => Found::Missing,
        }
    }
}

/// The scope of the `key` of a `wait_for`: the event that arrives, and nothing else.
pub(crate) struct ArrivedNames<'a> {
    pub(crate) event: &'a Event,
}

impl Scope for ArrivedNames<'_> {
    fn find(&self, root: &str, path: &[PathPart]) -> Found<'_> {
        match root {
            ARRIVED => in_event(self.event, path),
            _ => Found::Missing,
        }
    }
}

/// The scope of a hydration read: the event, what it is about, and the reads before this one by their names.
pub(super) struct ReadNames<'a> {
    pub(super) run: &'a RunState,
}

impl<'a> ReadNames<'a> {
    fn find_in(&self, root: &str, path: &[PathPart]) -> Found<'a> {
        match root {
            "event" => in_event(&self.run.event, path),
            "ref" => in_reference(&self.run.event, path),
            name => in_read(self.run, name, path),
        }
    }
}

impl Scope for ReadNames<'_> {
    fn find(&self, root: &str, path: &[PathPart]) -> Found<'_> {
        self.find_in(root, path)
    }
}

/// What a read's `fresh` sees: the answer at hand by the read's name, and what its `with` sees.
pub(super) struct FreshNames<'a> {
    pub(super) run: &'a RunState,
    pub(super) name: &'a str,
    pub(super) answer: &'a Document,
}

impl Scope for FreshNames<'_> {
    fn find(&self, root: &str, path: &[PathPart]) -> Found<'_> {
        match root == self.name {
            true => in_document(self.answer, path),
            false => ReadNames { run: self.run }.find_in(root, path),
        }
    }
}

fn read<'a>(run: &'a RunState, name: &str) -> Option<&'a ReadState> {
    let position = run.program.0.reads.iter().position(|read| read.name() == name)?;
    run.reads.get(position)
}

fn in_read<'a>(run: &'a RunState, name: &str, path: &[PathPart]) -> Found<'a> {
    match read(run, name) {
        Some(ReadState::Done { output, .. }) => in_document(output, path),
        Some(ReadState::Null | ReadState::Pending | ReadState::Open) if path.is_empty() => Found::Owned(Value::Null),
        Some(ReadState::Null | ReadState::Pending | ReadState::Open) | None => Found::Missing,
    }
}

/// The last answer as the author sees it: whether it came anew or still held makes no difference to the workflow.
fn http(exchanges: Option<&Exchanges>) -> Value {
    let last = exchanges.and_then(|exchanges| exchanges.last());
    last.map_or(Value::Null, |exchange| {
        let (status, headers) = match &exchange.kept_headers {
            Some(headers) => (Some(200), headers),
            None => (exchange.status, &exchange.response_headers),
        };
        let headers: Map<String, Value> = headers
            .iter()
            .map(|(name, value)| (name.to_lowercase(), Value::from(value.as_str())))
            .collect();
        json!({ "status": status, "headers": headers })
    })
}

fn provenance(run: &RunState, name: &str) -> Value {
    let Some(ReadState::Done {
        origin, at, exchanges, ..
    }) = read(run, name)
    else {
        return Value::Null;
    };
    let origin = match origin {
        Origin::Sent => "sent",
        Origin::Coalesced => "coalesced",
        Origin::Found => "found",
    };
    let exchange = exchanges.last().map_or(
        Value::Null,
        |exchange| json!({ "method": exchange.method, "url": exchange.url, "status": exchange.status }),
    );
    json!({ "origin": origin, "time": at.to_string(), "exchange": exchange })
}

/// A failure as expressions see it.
fn error(failure: &Failure) -> Value {
    json!({ "code": &*failure.code, "message": &*failure.message, "step": &*failure.step })
}

/// How a step came out: it is through, or a failure of a step in it went out of it, or it has not run.
fn result(closed: Option<&Closed>, left: Option<&Failure>) -> Value {
    let (verdict, failure) = match (closed, left) {
        (Some(closed), _) => (closed.verdict, closed.error.as_ref()),
        (None, Some(failure)) => (Verdict::Failed, Some(failure)),
        (None, None) => return json!({ "status": "not_run", "http": null, "error": null, "attempts": 0 }),
    };
    let status = match verdict {
        Verdict::Done => "succeeded",
        Verdict::Skipped => "skipped",
        Verdict::Failed if failure.is_some_and(|failure| &*failure.code == EFFECT_UNKNOWN) => "unknown",
        Verdict::Failed => "failed",
    };
    let http = http(closed.and_then(|closed| closed.exchanges.as_ref()));
    let attempts = closed.map_or(0, |closed| closed.attempts);
    json!({ "status": status, "http": http, "error": failure.map_or(Value::Null, error), "attempts": attempts })
}

/// The scope of a step.
pub(crate) struct RunScope<'a> {
    run: &'a RunState,
    program: &'a Program,
    environment: &'a dyn Environment,
    now: Timestamp,
    place: &'a Place,
    connection: OnceCell<Value>,
    /// The list item under consideration, for `key` of a `for_each`: its name, number and value.
    candidate: Option<(&'a str, usize, &'a str)>,
    /// The event under consideration, for `where` of a `wait_for`.
    arrived: Option<&'a Event>,
}

impl<'a> RunScope<'a> {
    pub(super) fn new(
        run: &'a RunState,
        program: &'a Program,
        environment: &'a dyn Environment,
        now: Timestamp,
        place: &'a Place,
    ) -> Self {
        Self {
            run,
            program,
            environment,
            now,
            place,
            connection: OnceCell::new(),
            candidate: None,
            arrived: None,
        }
    }

    pub(super) fn with_candidate(mut self, name: &'a str, number: usize, value: &'a str) -> Self {
        self.candidate = Some((name, number, value));
        self
    }

    pub(super) fn with_arrived(mut self, event: &'a Event) -> Self {
        self.arrived = Some(event);
        self
    }

    /// Where the step with this id is as it is seen from here, in this item or outside of it: its frame and slot there.
    fn seen(&self, id: &str) -> Option<(&'a Frame, usize)> {
        let node = self.program.nodes.get(*self.program.by_id.get(id)?)?;
        let items = self.place.items.get(..node.loops.len())?;
        Some((self.run.frame(&node.loops, items)?, node.slot))
    }

    /// The failure that went out of the step with this id.
    fn left(&self, id: &str) -> Option<&'a Failure> {
        let (frame, slot) = self.seen(id)?;
        frame.left.get(&slot)
    }

    /// The step with this id, when it is through.
    fn closed(&self, id: &str) -> Option<&'a Closed> {
        let (frame, slot) = self.seen(id)?;
        match frame.slots.get(slot)? {
            Slot::Closed(closed) => Some(closed),
            Slot::Pending
            | Slot::Open
            | Slot::Asleep(_)
            | Slot::Begun(_)
            | Slot::Waiting(_)
            | Slot::Inside(_)
            | Slot::Loop(_)
            | Slot::Fork(_)
            | Slot::Guard(_)
            | Slot::Undo(_) => None,
            Slot::Rescue(rescue) => Some(&rescue.closed),
        }
    }

    fn in_connection(&self, path: &[PathPart]) -> Found<'_> {
        let known = self.connection.get_or_init(|| {
            let name = self.run.event.connection.as_deref();
            name.and_then(|name| self.environment.connection(name))
                .unwrap_or(Value::Null)
        });
        inside(known, path).map_or(Found::Missing, |part| Found::Owned(part.clone()))
    }

    fn in_run(&self, path: &[PathPart]) -> Found<'_> {
        let head = self.run.head();
        let value = json!({
            "id": head.id.to_string(),
            "root_id": head.root_id.to_string(),
            "replay_of": head.replay_of.map(|run| run.to_string()),
            "workflow": head.workflow_name,
            "version": head.version_number,
            "started_at": head.started_at.to_string(),
        });
        in_value(value, path)
    }

    /// Whether a name stands for the items of a loop that calls them `item_name`.
    fn is_item(&self, name: &str, item_name: &str) -> bool {
        name == item_name || (name == ITEM && !self.program.item_is_outer)
    }

    /// `item`, `index`, and what `as` calls the item, from the innermost loop outwards.
    fn in_loops(&self, root: &str, path: &[PathPart]) -> Found<'_> {
        if let Some((name, number, value)) = self.candidate {
            match root {
                "index" => return in_value(Value::from(number), path),
                _ if self.is_item(root, name) => {
                    return in_value(crate::document::parse_text(value), path);
                }
                _ => {}
            }
        }
        let Some(node) = self.program.nodes.get(self.place.node) else {
            return Found::Missing;
        };
        for depth in (0..node.loops.len().min(self.place.items.len())).rev() {
            let (Some(outer), Some(number)) = (node.loops.get(depth), self.place.items.get(depth)) else {
                continue;
            };
            let Some(outer) = self.program.nodes.get(*outer) else {
                continue;
            };
            let Task::ForEach(task) = &outer.task else {
                continue;
            };
            if root == "index" {
                return in_value(Value::from(*number), path);
            }
            if !self.is_item(root, &task.item_name) {
                continue;
            }
            let items = self.place.items.get(..depth).unwrap_or_default();
            let slot = self
                .run
                .frame(&outer.loops, items)
                .and_then(|frame| frame.slots.get(outer.slot));
            let Some(state) = slot.and_then(Slot::items) else {
                return Found::Missing;
            };
            return state
                .items
                .get(*number)
                .map_or(Found::Missing, |item| in_document(&item.value, path));
        }
        Found::Missing
    }
}

impl Scope for RunScope<'_> {
    fn find(&self, root: &str, path: &[PathPart]) -> Found<'_> {
        match root {
            "event" => in_event(&self.run.event, path),
            "steps" => match key(path) {
                Some((id, rest)) => match self.closed(id).and_then(|closed| closed.output.as_ref()) {
                    Some(output) => in_document(output, rest),
                    None => Found::Missing,
                },
                None => Found::Missing,
            },
            "hydrated" => match key(path) {
                Some((name, rest)) => in_read(self.run, name, rest),
                None if path.is_empty() => {
                    let reads = self.program.reads.iter();
                    let whole =
                        reads.map(|read| (read.name().to_owned(), in_read(self.run, read.name(), &[]).into_value()));
                    Found::Owned(Value::Object(whole.collect()))
                }
                None => Found::Missing,
            },
            "provenance" => match key(path) {
                Some((name, rest)) => in_value(provenance(self.run, name), rest),
                None => Found::Missing,
            },
            "results" => match key(path) {
                Some((id, rest)) => in_value(result(self.closed(id), self.left(id)), rest),
                None => Found::Missing,
            },
            "error" => match self.run.failure_at(self.place) {
                Some(failure) => in_value(error(&failure), path),
                None => Found::Missing,
            },
            "run" => self.in_run(path),
            "connection" => self.in_connection(path),
            "trigger" => in_value(trigger_value(&self.run.event), path),
            "now" => in_value(Value::from(self.now.to_string()), path),
            name => match self.arrived {
                Some(event) if name == ARRIVED => in_event(event, path),
                _ => self.in_loops(name, path),
            },
        }
    }
}
