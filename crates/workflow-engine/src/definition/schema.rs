//! The JSON Schema of a workflow document, for editors. It says what [`super::parse`] takes; a test keeps them alike.

mod flow;

use serde_json::{Value, json};

use super::{DEFAULT_CASE, MAX_ALL_ITEMS, MAX_APPROVERS, MAX_BRANCHES, MAX_CASES, MAX_CONCURRENCY, MAX_TRIES};
use crate::run::STEP_ROOTS;
use crate::schedule::{DEFAULT_CATCH_UP, MAX_CATCH_UP, MAX_CRON_BYTES, MAX_CRON_LINES};

/// What [`crate::duration::parse`] takes: a number and its unit, with space where it does no harm.
const SPAN: &str = r"^\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*(ms|s|m|h|d)\s*$";
/// What begins like a moment of RFC 3339.
const MOMENT: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]";

pub(super) fn workflow() -> Value {
    let mut schema = document();
    flow::add(&mut schema);
    schema
}

fn document() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Weir workflow",
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "on", "steps"],
        "not": { "required": ["debounce", "batch"] },
        "properties": {
            "kind": { "const": "Workflow" },
            "name": { "type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$", "description": "Name of the workflow, unique in its workspace." },
            "description": { "type": "string", "maxLength": 4096 },
            "on": { "$ref": "#/$defs/trigger" },
            "timeout": { "$ref": "#/$defs/span", "description": "Time limit of a whole run." },
            "steps": { "$ref": "#/$defs/steps" },
            "on_failure": { "$ref": "#/$defs/steps", "description": "Done when the run has failed; sees `error`." },
        },
        "$defs": {
            "span": { "type": "string", "pattern": SPAN, "examples": ["500ms", "30s", "5m", "24h"] },
            "expression": { "type": "string", "pattern": "^\\{\\{[\\s\\S]*\\}\\}$", "description": "Exactly one expression in {{ }}." },
            "template": { "type": "string", "pattern": "\\{\\{" },
            "cron": { "type": "string", "maxLength": MAX_CRON_BYTES },
            "input": input(),
            "plain": {
                "not": { "type": "string", "pattern": "\\{\\{" },
                "items": { "$ref": "#/$defs/plain" },
                "additionalProperties": { "$ref": "#/$defs/plain" },
            },
            "trigger": trigger(),
            "steps": { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/step" } },
            "id": { "type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}$" },
            "on_error": {
                "oneOf": [{ "enum": ["fail", "continue"] }, { "$ref": "#/$defs/steps" }],
                "default": "fail",
                "description": "What follows when the step failed for good; steps see `error`.",
            },
            "undo": { "$ref": "#/$defs/steps", "description": "What undoes the step; done by a `compensate` after it was done." },
            "how_long": {
                "anyOf": [{ "$ref": "#/$defs/span" }, { "type": "number", "minimum": 0 }, { "$ref": "#/$defs/template" }],
            },
            "limit": {
                "$ref": "#/$defs/span",
                "description": "How long its steps may take together; then it fails with `step_timeout`.",
            },
            "on_timeout": { "$ref": "#/$defs/steps", "description": "Done when it waited in vain; sees `error`." },
            "step": any_step(),
        },
    })
}

/// What starts a workflow.
fn trigger() -> Value {
    json!({
        "oneOf": [
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["event"],
                "properties": {
                    "event": { "type": "string", "pattern": "^[^.]+\\..+$", "description": "connector.event_type" },
                    "connection": { "type": "string", "description": "Only events of this connection." },
                    "where": { "$ref": "#/$defs/expression", "description": "Only events for which this is true. Sees event, connection, trigger, now." },
                    "hydrate": { "enum": ["always", "missing", "never"], "description": "Whether the follow-up reads run; the connector decides by default." },
                },
            },
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["manual"],
                "properties": {
                    "manual": {
                        "type": "object",
                        "additionalProperties": false,
                        "properties": { "input": { "$ref": "#/$defs/input", "description": "JSON Schema of the input." } },
                    },
                },
            },
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["schedule"],
                "properties": {
                    "schedule": {
                        "type": "object",
                        "additionalProperties": false,
                        "oneOf": [{ "required": ["cron"] }, { "required": ["every"], "not": { "required": ["timezone"] } }],
                        "dependentSchemas": { "max_catch_up": { "required": ["catch_up"], "properties": { "catch_up": { "const": "all" } } } },
                        "properties": {
                            "cron": {
                                "description": "Minute, hour, day of month, month, day of week; with six fields seconds stand in front.",
                                "examples": ["0 9 * * mon-fri", "*/15 * * * *", "@daily"],
                                "oneOf": [
                                    { "$ref": "#/$defs/cron" },
                                    { "type": "array", "minItems": 1, "maxItems": MAX_CRON_LINES, "items": { "$ref": "#/$defs/cron" } },
                                ],
                            },
                            "timezone": { "type": "string", "default": "UTC", "examples": ["Europe/Berlin"], "description": "IANA name." },
                            "every": { "$ref": "#/$defs/span", "description": "Whole seconds; counted from 1970-01-01T00:00Z." },
                            "catch_up": { "enum": ["skip", "one", "all"], "default": "one", "description": "What becomes of times that passed while nobody could fire them." },
                            "max_catch_up": { "type": "integer", "minimum": 1, "maximum": MAX_CATCH_UP, "default": DEFAULT_CATCH_UP, "description": "Runs that `catch_up: all` starts at most." },
                            "input": { "type": "object", "$ref": "#/$defs/plain", "description": "Plain data for each run: `event.data.input`." },
                        },
                    },
                },
            },
        ],
    })
}

/// The steps by what they do.
fn any_step() -> Value {
    let taken: Vec<&str> = STEP_ROOTS.into_iter().chain(["index", "error"]).collect();
    json!({
        "oneOf": [
            step("call", json!({
                "call": { "type": "string", "pattern": "^[^.]+\\..+$", "description": "connector.operation" },
                "connection": { "type": "string", "description": "The connection to use; by default the trigger's." },
                "with": { "type": "object", "description": "Arguments; texts may hold {{ }}." },
                "all": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["max"],
                    "properties": { "max": { "type": "integer", "minimum": 1, "maximum": MAX_ALL_ITEMS } },
                    "description": "Every page of a list, up to so many items; otherwise the first page.",
                },
                "retry": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "tries": { "type": "integer", "minimum": 1, "maximum": MAX_TRIES, "default": 12 },
                        "first": { "$ref": "#/$defs/span", "default": "1s" },
                        "max": { "$ref": "#/$defs/span", "default": "24h" },
                        "factor": { "type": "number", "minimum": 1, "maximum": 10, "default": 3 },
                    },
                },
                "timeout": { "$ref": "#/$defs/span", "default": "30s", "description": "Time limit of one try." },
                "on_error": { "$ref": "#/$defs/on_error" },
                "undo": { "$ref": "#/$defs/undo" },
            }), &["call"]),
            step("if", json!({
                "if": { "$ref": "#/$defs/expression" },
                "then": { "$ref": "#/$defs/steps" },
                "else": { "$ref": "#/$defs/steps" },
            }), &["if", "then"]),
            related(step("switch", json!({
                "switch": {
                    "oneOf": [
                        { "$ref": "#/$defs/expression", "description": "A text, number or boolean that chooses among `cases`." },
                        {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": MAX_CASES,
                            "description": "The first whose `when` is true.",
                            "items": {
                                "type": "object",
                                "additionalProperties": false,
                                "required": ["when", "do"],
                                "properties": { "when": { "$ref": "#/$defs/expression" }, "do": { "$ref": "#/$defs/steps" } },
                            },
                        },
                    ],
                },
                "cases": {
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": MAX_CASES,
                    "propertyNames": { "not": { "const": DEFAULT_CASE } },
                    "additionalProperties": { "$ref": "#/$defs/steps" },
                    "description": "Values and their steps.",
                },
                "default": { "$ref": "#/$defs/steps", "description": "When no case holds." },
            }), &["switch"]), json!({
                "if": { "properties": { "switch": { "type": "array" } } },
                "then": { "not": { "required": ["cases"] } },
                "else": { "required": ["cases"] },
            })),
            step("set", json!({
                "set": { "type": "object", "description": "Names and values; the output of the step." },
                "on_error": { "$ref": "#/$defs/on_error" },
            }), &["set"]),
            step("for_each", json!({
                "for_each": { "$ref": "#/$defs/expression", "description": "A list." },
                "as": { "$ref": "#/$defs/id", "default": "item", "not": { "enum": taken } },
                "key": { "$ref": "#/$defs/expression", "description": "What tells an item from the others; its content by default." },
                "concurrency": { "type": "integer", "minimum": 1, "maximum": MAX_CONCURRENCY, "default": 1 },
                "on_error": { "enum": ["fail", "collect"], "default": "fail", "description": "`collect`: a failed item leaves the others alone." },
                "timeout": { "$ref": "#/$defs/limit" },
                "do": { "$ref": "#/$defs/steps" },
            }), &["for_each", "do"]),
            related(step("parallel", json!({
                "parallel": {
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": MAX_BRANCHES,
                    "propertyNames": { "$ref": "#/$defs/id" },
                    "additionalProperties": { "$ref": "#/$defs/steps" },
                    "description": "Names and the steps of each branch.",
                },
                "join": { "enum": ["all", "any", "first"], "default": "all", "description": "When the step is through: all branches are, one has succeeded, one is through." },
                "on_error": { "enum": ["fail", "collect"], "default": "fail", "description": "`collect`: a failed branch leaves the others alone." },
                "timeout": { "$ref": "#/$defs/limit" },
            }), &["parallel"]), json!({
                "if": { "required": ["on_error"], "properties": { "on_error": { "const": "collect" } } },
                "then": { "properties": { "join": { "const": "all" } } },
            })),
            step("sleep", json!({
                "sleep": {
                    "oneOf": [
                        { "$ref": "#/$defs/how_long", "description": "A span or a number of seconds, or {{ }} that gives one." },
                        {
                            "type": "object",
                            "additionalProperties": false,
                            "minProperties": 1,
                            "maxProperties": 1,
                            "properties": {
                                "for": { "$ref": "#/$defs/how_long", "description": "A span or a number of seconds." },
                                "until": {
                                    "anyOf": [{ "type": "string", "pattern": MOMENT }, { "type": "integer" }, { "$ref": "#/$defs/template" }],
                                    "description": "RFC 3339, or seconds since 1970.",
                                },
                            },
                        },
                    ],
                },
                "on_error": { "$ref": "#/$defs/on_error" },
            }), &["sleep"]),
            step("wait_for", json!({
                "wait_for": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["event", "key", "equals"],
                    "properties": {
                        "event": { "type": "string", "pattern": "^[^.]+\\..+$", "description": "connector.event_type" },
                        "connection": { "type": "string", "description": "Only events of this connection." },
                        "key": { "$ref": "#/$defs/expression", "description": "Computed of every such event when it arrives; sees `arrived` alone." },
                        "equals": { "$ref": "#/$defs/expression", "description": "What the key has to be for this run." },
                        "where": { "$ref": "#/$defs/expression", "description": "Only an event for which this is true; sees `arrived` too." },
                    },
                },
                "timeout": { "$ref": "#/$defs/span", "default": "30d" },
                "on_timeout": { "$ref": "#/$defs/on_timeout" },
                "on_error": { "$ref": "#/$defs/on_error" },
            }), &["wait_for"]),
            step("approve", json!({
                "approve": {
                    "oneOf": [
                        { "type": "string", "description": "What is asked." },
                        {
                            "type": "object",
                            "additionalProperties": false,
                            "required": ["title"],
                            "properties": {
                                "title": { "type": "string", "description": "What is asked." },
                                "detail": { "type": "object", "description": "What else the person sees." },
                                "by": { "type": "array", "minItems": 1, "maxItems": MAX_APPROVERS, "items": { "type": "string" }, "description": "Who may decide." },
                            },
                        },
                    ],
                },
                "timeout": { "$ref": "#/$defs/span", "default": "30d" },
                "on_timeout": { "$ref": "#/$defs/on_timeout" },
                "on_reject": { "$ref": "#/$defs/steps", "description": "Done when a person said no; sees `error`." },
                "on_error": { "$ref": "#/$defs/on_error" },
            }), &["approve"]),
            related(step("run", json!({
                "run": { "type": "string", "description": "Name of the workflow to start." },
                "with": { "type": "object", "description": "Its input; texts may hold {{ }}." },
                "detach": { "type": "boolean", "default": false, "description": "Whether its end is not waited for." },
                "timeout": { "$ref": "#/$defs/span", "default": "30d" },
                "on_timeout": { "$ref": "#/$defs/on_timeout" },
                "on_error": { "$ref": "#/$defs/on_error" },
                "undo": { "$ref": "#/$defs/undo" },
            }), &["run"]), json!({
                "if": { "required": ["detach"], "properties": { "detach": { "const": true } } },
                "then": { "properties": { "timeout": false, "on_timeout": false } },
            })),
            step("emit", json!({
                "emit": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["type"],
                    "properties": {
                        "type": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,256}$", "description": "Type of the outgoing event." },
                        "key": { "type": "string", "description": "Outgoing events with the same key keep their order." },
                        "data": { "description": "What it says; texts may hold {{ }}." },
                    },
                },
                "on_error": { "$ref": "#/$defs/on_error" },
                "undo": { "$ref": "#/$defs/undo" },
            }), &["emit"]),
            step("respond", json!({
                "respond": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "status": { "oneOf": [{ "type": "integer", "minimum": 200, "maximum": 599 }, { "type": "string" }], "default": 200 },
                        "headers": {
                            "type": "object",
                            "propertyNames": { "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" },
                            "additionalProperties": { "type": ["string", "number", "boolean"] },
                        },
                        "body": { "description": "JSON, or text as it is; texts may hold {{ }}." },
                        "within": { "$ref": "#/$defs/span", "default": "10s", "description": "How long the sender of the event is kept waiting." },
                    },
                },
                "on_error": { "$ref": "#/$defs/on_error" },
            }), &["respond"]),
            related(step("try", json!({
                "try": { "$ref": "#/$defs/steps" },
                "timeout": { "$ref": "#/$defs/limit" },
                "catch": { "$ref": "#/$defs/steps", "description": "When a step of `try` failed; sees `error`." },
                "finally": { "$ref": "#/$defs/steps", "description": "In any case." },
            }), &["try"]), json!({ "anyOf": [{ "required": ["catch"] }, { "required": ["finally"] }] })),
            step("compensate", json!({
                "compensate": { "const": "all", "description": "Does the steps of `undo` of what was done, newest first." },
                "on_error": { "$ref": "#/$defs/on_error" },
            }), &["compensate"]),
            step("stop", json!({
                "stop": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "status": { "enum": ["succeeded", "failed"], "default": "succeeded" },
                        "reason": { "type": "string" },
                    },
                },
            }), &["stop"]),
        ],
    })
}

/// The schema of a manual input: the part of JSON Schema that forms can be made of.
fn input() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "type": { "enum": ["object", "array", "string", "number", "integer", "boolean", "null"] },
            "properties": { "type": "object", "additionalProperties": { "$ref": "#/$defs/input" } },
            "required": { "type": "array", "items": { "type": "string" } },
            "enum": { "type": "array" },
            "items": { "$ref": "#/$defs/input" },
            "title": {},
            "description": {},
            "additionalProperties": { "type": "boolean" },
        },
    })
}

/// A step whose keys have to do with each other.
fn related(mut step: Value, rules: Value) -> Value {
    if let (Some(step), Value::Object(rules)) = (step.as_object_mut(), rules) {
        step.extend(rules);
    }
    step
}

fn step(title: &str, own: Value, required: &[&str]) -> Value {
    let mut properties = json!({
        "id": { "$ref": "#/$defs/id" },
        "when": { "$ref": "#/$defs/expression", "description": "The step is left out when this is false." },
    });
    if let (Some(all), Value::Object(own)) = (properties.as_object_mut(), own) {
        all.extend(own);
    }
    let required: Vec<&str> = std::iter::once("id").chain(required.iter().copied()).collect();
    json!({ "title": title, "type": "object", "additionalProperties": false, "required": required, "properties": properties })
}
