//! Flow control in the JSON Schema of a workflow.

use serde_json::{Value, json};

use crate::definition::{DEFAULT_MAX_WAITING, MAX_BATCH, MAX_LIMIT, MAX_MAX_WAITING, MAX_PRIORITY};

/// Adds the words of flow control to the schema of a document.
pub(super) fn add(schema: &mut Value) {
    let words = [
        ("lane", lane()),
        ("concurrency", concurrency()),
        ("throttle", throttle()),
        ("debounce", debounce()),
        ("batch", batch()),
        ("priority", priority()),
    ];
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.extend(words.map(|(word, value)| (word.to_owned(), value)));
    }
    if let Some(shared) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
        shared.insert("key".to_owned(), key());
    }
}

fn key() -> Value {
    json!({
        "type": "string",
        "pattern": "\\{\\{[\\s\\S]*\\}\\}",
        "description": "A text with {{ }}. Sees event, connection, trigger, now.",
    })
}

fn lane() -> Value {
    json!({
        "description": "Runs with the same key go one after the other, in the order of acceptance.",
        "oneOf": [
            { "$ref": "#/$defs/key" },
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["key"],
                "properties": {
                    "key": { "$ref": "#/$defs/key" },
                    "merge": { "type": "boolean", "default": false, "description": "Keep only the last waiting event." },
                    "max_waiting": {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": MAX_MAX_WAITING,
                        "default": DEFAULT_MAX_WAITING,
                        "description": "Runs beyond it fail with `lane_full`.",
                    },
                    "on_block": {
                        "enum": ["park", "hold"],
                        "default": "park",
                        "description": "`hold`: after a failure the lane waits for a person.",
                    },
                },
            },
        ],
    })
}

fn concurrency() -> Value {
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT });
    json!({
        "description": "How many runs may be in progress at a time.",
        "oneOf": [
            limit,
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["limit"],
                "properties": { "key": { "$ref": "#/$defs/key" }, "limit": limit },
            },
        ],
    })
}

fn throttle() -> Value {
    json!({
        "description": "At most `limit` runs start in any period; the others wait.",
        "type": "object",
        "additionalProperties": false,
        "required": ["limit", "per"],
        "properties": {
            "key": { "$ref": "#/$defs/key" },
            "limit": { "type": "integer", "minimum": 1, "maximum": MAX_LIMIT },
            "per": { "$ref": "#/$defs/span", "description": "At most 1d." },
        },
    })
}

fn debounce() -> Value {
    json!({
        "description": "One run for a burst of events, with the last of them, when it has been quiet for a while.",
        "type": "object",
        "additionalProperties": false,
        "required": ["key", "for"],
        "properties": {
            "key": { "$ref": "#/$defs/key" },
            "for": { "$ref": "#/$defs/span", "description": "How long it must be quiet; at most 7d." },
            "max": { "$ref": "#/$defs/span", "description": "How long the first event of a burst may wait." },
        },
    })
}

fn batch() -> Value {
    json!({
        "description": "One run for up to `size` events, or for those of so long; it sees them in event.batch.",
        "type": "object",
        "additionalProperties": false,
        "required": ["size", "for"],
        "properties": {
            "key": { "$ref": "#/$defs/key" },
            "size": { "type": "integer", "minimum": 2, "maximum": MAX_BATCH },
            "for": { "$ref": "#/$defs/span", "description": "How long the first event may wait; at most 7d." },
        },
    })
}

fn priority() -> Value {
    json!({
        "oneOf": [
            { "type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY },
            { "$ref": "#/$defs/expression" },
        ],
        "default": 0,
        "description": "Who goes first when there is not room for all; a point is worth a minute of waiting.",
    })
}
