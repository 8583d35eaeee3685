//! What an endpoint knows of its registration at the provider: an id, an address, an audience. `ctx:NAME` stands for it in
//! proofs and handshakes. It is no secret, and never comes from a request.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use crate::fields::{Fields, is_name};
use crate::pointer;
use crate::problem::{Problem, Problems, nearest};
use crate::verify::Registration;

/// Most names in the context of an endpoint.
///
/// Limit: names in the context of an endpoint | refused, `too_many` | `a_context_stops_at_its_bounds`
pub const MAX_CONTEXT_NAMES: usize = 32;
/// Most values of one name.
///
/// Limit: values of one name in the context of an endpoint | refused, `too_many` | `a_context_stops_at_its_bounds`
pub const MAX_CONTEXT_VALUES: usize = 64;
/// Longest value, in bytes.
///
/// Limit: value in the context of an endpoint | refused, `too_long` | `a_context_stops_at_its_bounds`
pub const MAX_CONTEXT_VALUE_BYTES: usize = 1_024;

/// One value that an endpoint may or must state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextField {
    /// Whether requests cannot be verified without it.
    pub required: bool,
    /// What it is and where the provider shows it, for people.
    pub description: Option<String>,
}

/// The values that a connector asks its endpoints for.
#[derive(Debug, Default)]
pub(super) struct ContextShape {
    pub(super) fields: IndexMap<String, ContextField>,
}

impl ContextShape {
    /// Reads `context` of a webhook, and sees that everything that the proof and the handshakes use is declared.
    pub(super) fn read(webhook: &Fields<'_>, problems: &mut Problems) -> Self {
        let mut shape = Self::default();
        if let Some(entries) = webhook
            .get("context")
            .and_then(|value| Fields::open_any(value, &webhook.at("context"), problems))
        {
            for (name, value) in entries.map() {
                let place = entries.at(name);
                if !is_name(name, false) {
                    problems.add(&place, "bad_name", format!("`{name}` is not a snake_case name"));
                }
                if let Some(field) = read_field(value, &place, problems) {
                    shape.fields.insert(name.clone(), field);
                }
            }
        }
        for key in ["verify", "handshake"] {
            let mut used = BTreeSet::new();
            if let Some(value) = webhook.get(key) {
                collect_names(value, &mut used);
            }
            for name in used.iter().filter(|name| !shape.fields.contains_key(**name)) {
                problems.add_with_suggestion(
                    &webhook.at(key),
                    "unknown_name",
                    format!("`ctx:{name}` is used and not declared"),
                    format!("context: {{ {name}: required }}"),
                );
            }
        }
        shape
    }

    /// What is wrong with the values of an endpoint. An endpoint with a `verify` of its own states what that uses; what the
    /// connector's would need is optional then.
    pub(super) fn check(&self, given: &Registration, own_verify: Option<&Value>) -> Vec<Problem> {
        let mut problems = Problems::default();
        let mut own = BTreeSet::new();
        if let Some(verify) = own_verify {
            collect_names(verify, &mut own);
        }
        let missing = |problems: &mut Problems, name: &str, about: String| {
            let place = pointer::join("/context", name);
            problems.add_with_suggestion(&place, "missing", format!("`{name}` is missing"), about);
        };
        for name in own.iter().filter(|name| !given.contains_key(**name)) {
            missing(&mut problems, name, format!("`verify` uses it as `ctx:{name}`"));
        }
        for (name, field) in &self.fields {
            if field.required && own_verify.is_none() && !given.contains_key(name) {
                let about = field.description.clone();
                missing(
                    &mut problems,
                    name,
                    about.unwrap_or_else(|| "the connector needs it".to_owned()),
                );
            }
        }
        let known: Vec<&str> = self
            .fields
            .keys()
            .map(String::as_str)
            .chain(own.iter().copied())
            .collect();
        for name in given.keys().filter(|name| !known.contains(&name.as_str())) {
            let suggestion = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => "the connector asks for no context".to_owned(),
                None => format!("known are {}", known.join(", ")),
            };
            problems.add_with_suggestion(
                &pointer::join("/context", name),
                "unknown_key",
                format!("`{name}` is not used by this endpoint"),
                suggestion,
            );
        }
        problems.into_list()
    }
}

fn read_field(value: &Value, place: &str, problems: &mut Problems) -> Option<ContextField> {
    match value.as_str() {
        Some(word @ ("required" | "optional")) => Some(ContextField {
            required: word == "required",
            description: None,
        }),
        Some(_) => {
            problems.add_with_suggestion(
                place,
                "bad_value",
                "a value of the context is required or optional",
                "required, optional, or { required, description }",
            );
            None
        }
        None => {
            let fields = Fields::open(value, place, &["required", "description"], problems)?;
            Some(ContextField {
                required: fields.flag("required", problems).unwrap_or(false),
                description: fields.text("description", problems).map(str::to_owned),
            })
        }
    }
}

/// Every NAME that stands as `ctx:NAME` in a proof or a handshake.
fn collect_names<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
    match value {
        Value::String(text) => found.extend(text.strip_prefix("ctx:").filter(|name| !name.is_empty())),
        Value::Array(items) => items.iter().for_each(|item| collect_names(item, found)),
        Value::Object(map) => map.values().for_each(|item| collect_names(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Reads the context of an endpoint: a mapping of names to a text, a whole number, or a list of those.
///
/// # Errors
/// [`Problem`]s with pointers below `place`.
pub fn parse_context(value: &Value, place: &str) -> Result<Registration, Vec<Problem>> {
    let mut problems = Problems::default();
    let context = read_context(value, place, &mut problems);
    problems.finish(context)
}

fn read_context(value: &Value, place: &str, problems: &mut Problems) -> Option<Registration> {
    let entries = Fields::open_any(value, place, problems)?;
    if entries.map().len() > MAX_CONTEXT_NAMES {
        let message = format!("a context has at most {MAX_CONTEXT_NAMES} names");
        problems.add(place, "too_many", message);
    }
    let mut context = Registration::new();
    for (name, value) in entries.map() {
        let place = entries.at(name);
        let items = match value {
            Value::Array(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        };
        if items.is_empty() || items.len() > MAX_CONTEXT_VALUES {
            let message = format!("a name has between one and {MAX_CONTEXT_VALUES} values");
            problems.add(&place, "too_many", message);
        }
        let texts: Option<Vec<String>> = items.iter().map(|item| read_value(item, &place, problems)).collect();
        context.insert(name.clone(), texts?);
    }
    Some(context)
}

fn read_value(value: &Value, place: &str, problems: &mut Problems) -> Option<String> {
    let text = match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) if number.is_u64() => number.to_string(),
        Value::String(_) | Value::Number(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            problems.add(
                place,
                "wrong_type",
                "expected a text that is not empty, a whole number, or a list of those",
            );
            return None;
        }
    };
    if text.len() > MAX_CONTEXT_VALUE_BYTES {
        let message = format!("a value has at most {MAX_CONTEXT_VALUE_BYTES} bytes");
        problems.add(place, "too_long", message);
    }
    Some(text)
}

/// A context as documents state it: one value as text, several as a list.
pub fn context_document(context: &Registration) -> Value {
    let entries = context.iter().map(|(name, values)| {
        let value = match values.as_slice() {
            [one] => json!(one),
            several => json!(several),
        };
        (name.clone(), value)
    });
    Value::Object(entries.collect::<Map<_, _>>())
}
