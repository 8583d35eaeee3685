//! From a document to a [`Definition`]: the top of the document and its trigger.

use serde_json::Value;

use super::fields::{Fields, wrong_type};
use super::flow;
use super::schedule::schedule;
use super::steps::Steps;
use super::{Definition, FlowControl, MAX_WORKFLOW_TIMEOUT, Trigger};
use crate::catalogue::HydrateMode;
use crate::expression::Expression;
use crate::problem::Problem;
use crate::run::{EVENT_MEMBERS, TRIGGER_ROOTS};

const WORKFLOW_KEYS: [&str; 12] = [
    "name",
    "description",
    "on",
    "lane",
    "concurrency",
    "throttle",
    "debounce",
    "batch",
    "priority",
    "steps",
    "on_failure",
    "timeout",
];
const EVENT_KEYS: [&str; 4] = ["event", "connection", "where", "hydrate"];
/// The longest name of a workflow in bytes.
///
/// Limit: name of a workflow | refused at publish, `bad_name` | `definitions_stop_at_their_bounds`
const MAX_NAME_BYTES: usize = 64;
/// The longest description in bytes.
///
/// Limit: description of a workflow | refused at publish, `out_of_bounds` | `definitions_stop_at_their_bounds`
const MAX_DESCRIPTION_BYTES: usize = 4096;

pub(super) fn definition(document: &Value) -> Result<Definition, Vec<Problem>> {
    let mut problems = Vec::new();
    let definition = Fields::new(document, "", &WORKFLOW_KEYS, &mut problems).and_then(|fields| {
        let name = name(&fields, &mut problems);
        let description = fields.text("description", &mut problems);
        if description.is_some_and(|text| text.len() > MAX_DESCRIPTION_BYTES) {
            let message = format!("the description is longer than {MAX_DESCRIPTION_BYTES} bytes");
            problems.push(Problem::new("/description", "out_of_bounds", message));
        }
        let on = fields.required("on", &mut problems);
        let trigger = on.and_then(|on| trigger(on, &mut problems));
        let flow = FlowControl {
            lane: flow::lane(&fields, &mut problems),
            concurrency: flow::concurrency(&fields, &mut problems),
            throttle: flow::throttle(&fields, &mut problems),
            debounce: flow::debounce(&fields, &mut problems),
            batch: flow::batch(&fields, &mut problems),
            priority: flow::priority(&fields, &mut problems),
        };
        let timeout = fields.span("timeout", MAX_WORKFLOW_TIMEOUT, &mut problems);
        let steps = fields.required("steps", &mut problems);
        let mut parser = Steps::new(&mut problems);
        let steps = steps.map(|steps| parser.parse(steps, "/steps")).unwrap_or_default();
        let on_failure = fields.get("on_failure");
        let on_failure = on_failure.map(|steps| parser.parse(steps, "/on_failure"));
        parser.finish();
        Some(Definition {
            name: name?.to_owned(),
            description: description.map(str::to_owned),
            trigger: trigger?,
            flow,
            steps,
            on_failure: on_failure.unwrap_or_default(),
            timeout,
        })
    });
    match definition {
        Some(definition) if problems.is_empty() => Ok(definition),
        _ => Err(problems),
    }
}

fn name<'a>(fields: &Fields<'a>, problems: &mut Vec<Problem>) -> Option<&'a str> {
    fields.required("name", problems)?;
    let name = fields.text("name", problems)?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    let begins = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !begins || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) {
        let message =
            format!("a name is 1 to {MAX_NAME_BYTES} of a-z, 0-9, `-` and `_`, and begins with a letter or digit");
        problems.push(Problem::new("/name", "bad_name", message));
        return None;
    }
    Some(name)
}

fn trigger(on: &Value, problems: &mut Vec<Problem>) -> Option<Trigger> {
    if on.get("manual").is_some() {
        let fields = Fields::new(on, "/on", &["manual"], problems)?;
        let manual = Fields::new(fields.get("manual")?, "/on/manual", &["input"], problems)?;
        let input = manual.get("input");
        if let Some(schema) = input {
            check_schema(schema, "/on/manual/input", 0, problems);
        }
        return Some(Trigger::Manual { input: input.cloned() });
    }
    if on.get("schedule").is_some() {
        let fields = Fields::new(on, "/on", &["schedule"], problems)?;
        let schedule = schedule(fields.get("schedule")?, problems)?;
        return Some(Trigger::Schedule(Box::new(schedule)));
    }
    let fields = Fields::new(on, "/on", &EVENT_KEYS, problems)?;
    if !fields.has("event") {
        let message = "a trigger is one of `event`, `schedule` and `manual`";
        problems.push(Problem::new("/on", "missing_key", message));
        return None;
    }
    let filter = fields.expression("where", problems);
    if let Some(filter) = &filter {
        check_before_hydration("`where`", filter, "/on/where", problems);
    }
    let modes = [
        ("always", HydrateMode::Always),
        ("missing", HydrateMode::Missing),
        ("never", HydrateMode::Never),
    ];
    let hydrate = fields.word("hydrate", &modes, problems);
    let connection = fields.text("connection", problems).map(str::to_owned);
    let event = fields.text("event", problems)?;
    if !event
        .split_once('.')
        .is_some_and(|(connector, kind)| !connector.is_empty() && !kind.is_empty())
    {
        let message = format!("{event:?} is not `connector.event_type`");
        problems.push(Problem::new("/on/event", "bad_event", message));
    }
    Some(Trigger::Event {
        event: event.to_owned(),
        connection,
        filter,
        hydrate,
    })
}

/// What is computed before hydration sees little.
pub(super) fn check_before_hydration(what: &str, expression: &Expression, place: &str, problems: &mut Vec<Problem>) {
    for used in expression.uses() {
        if !TRIGGER_ROOTS.contains(&used.root.as_str()) {
            let message = format!(
                "{what} runs before hydration and does not see `{}`; it sees {}",
                used.root,
                TRIGGER_ROOTS.join(", ")
            );
            let problem = Problem::new(place, "unknown_name", message);
            problems.push(problem.did_you_mean(&used.root, TRIGGER_ROOTS));
        } else if let ("event", Some(member)) = (used.root.as_str(), used.first_key())
            && !EVENT_MEMBERS.contains(&member)
        {
            let message = format!("`event` has no `{member}`; it has {}", EVENT_MEMBERS.join(", "));
            problems.push(Problem::new(place, "unknown_path", message).did_you_mean(member, EVENT_MEMBERS));
        }
    }
}

const SCHEMA_KEYS: [&str; 8] = [
    "type",
    "properties",
    "required",
    "enum",
    "items",
    "title",
    "description",
    "additionalProperties",
];
const SCHEMA_TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];
/// How deeply the schema of a manual input may be nested.
///
/// Limit: levels of an input schema | refused at publish, `out_of_bounds` | `definitions_stop_at_their_bounds`
const MAX_SCHEMA_DEPTH: usize = 16;

/// The schema of a manual input: a small part of JSON Schema, so that forms can be made of it.
fn check_schema(schema: &Value, pointer: &str, depth: usize, problems: &mut Vec<Problem>) {
    let Some(fields) = Fields::new(schema, pointer, &SCHEMA_KEYS, problems) else {
        return;
    };
    if depth > MAX_SCHEMA_DEPTH {
        let message = format!("a schema is nested deeper than {MAX_SCHEMA_DEPTH}");
        problems.push(Problem::new(pointer, "out_of_bounds", message));
        return;
    }
    if fields.has("type") {
        let types: Vec<(&str, ())> = SCHEMA_TYPES.iter().map(|name| (*name, ())).collect();
        fields.word("type", &types, problems);
    }
    match fields.get("properties") {
        Some(Value::Object(properties)) => {
            let place = fields.at("properties");
            for (name, property) in properties {
                check_schema(property, &crate::problem::child(&place, name), depth + 1, problems);
            }
        }
        Some(other) => problems.push(wrong_type(&fields.at("properties"), "an object", other)),
        None => {}
    }
    if let Some(required) = fields.get("required")
        && !required
            .as_array()
            .is_some_and(|names| names.iter().all(Value::is_string))
    {
        problems.push(wrong_type(&fields.at("required"), "a list of texts", required));
    }
    if let Some(values) = fields.get("enum")
        && !values.is_array()
    {
        problems.push(wrong_type(&fields.at("enum"), "a list", values));
    }
    if let Some(flag) = fields.get("additionalProperties")
        && !flag.is_boolean()
    {
        problems.push(wrong_type(&fields.at("additionalProperties"), "true or false", flag));
    }
    if let Some(items) = fields.get("items") {
        check_schema(items, &fields.at("items"), depth + 1, problems);
    }
}
