//! Conditions on answers: status, a value in the body, a header.

use serde_json::Value;

use super::{Seen, read_pointer};
use crate::fields::Fields;
use crate::pointer::Pointer;
use crate::problem::Problems;

/// All that is stated must hold.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    statuses: Option<Vec<StatusMatch>>,
    pointer: Option<(Pointer, Matcher)>,
    header: Option<(String, Matcher)>,
}

#[derive(Debug)]
enum StatusMatch {
    Exactly(u16),
    Class(u16),
}

#[derive(Debug)]
enum Matcher {
    Equals(Value),
    OneOf(Vec<Value>),
    Present(bool),
    /// Text that has this in it.
    Contains(String),
    /// Nothing, empty text, or a list or mapping without content.
    Empty(bool),
}

impl Condition {
    pub(super) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(
            value,
            place,
            &[
                "status", "pointer", "header", "equals", "in", "present", "contains", "empty",
            ],
            problems,
        )?;
        let mut condition = Self::default();
        if let Some(status) = fields.get("status") {
            condition.statuses = read_statuses(status, &fields.at("status"), problems);
        }
        let matcher = Matcher::read(&fields, problems);
        match (fields.get("pointer"), fields.get("header")) {
            (Some(_), Some(_)) => problems.add(place, "bad_value", "state `pointer` or `header`, not both"),
            (Some(_), None) => {
                if let Some(pointer) = read_pointer(&fields, "pointer", problems) {
                    condition.pointer = Some((pointer, matcher.unwrap_or(Matcher::Present(true))));
                }
            }
            (None, Some(_)) => {
                let name = fields.text("header", problems)?.to_owned();
                condition.header = Some((name, matcher.unwrap_or(Matcher::Present(true))));
            }
            (None, None) if matcher.is_some() => problems.add(
                place,
                "missing_key",
                "`equals`, `in`, `present`, `contains` and `empty` need a `pointer` or a `header`",
            ),
            (None, None) if condition.statuses.is_none() => problems.add(
                place,
                "missing_key",
                "a condition states `status`, `pointer` or `header`",
            ),
            (None, None) => {}
        }
        Some(condition)
    }

    /// Whether it holds as soon as one of several items fits: the others may be otherwise.
    pub(super) fn looks_over_items(&self) -> bool {
        self.pointer.as_ref().is_some_and(|(pointer, _)| pointer.has_wildcard())
    }

    pub(super) fn holds(&self, seen: &Seen<'_>) -> bool {
        let status = seen.response.status;
        let status_holds = self.statuses.as_ref().is_none_or(|statuses| {
            statuses.iter().any(|known| match known {
                StatusMatch::Exactly(code) => *code == status,
                StatusMatch::Class(class) => *class == status / 100,
            })
        });
        status_holds
            && self
                .header
                .as_ref()
                .is_none_or(|(name, matcher)| match seen.response.header(name) {
                    Some(text) => matcher.holds(Some(&Value::String(text.to_owned()))),
                    None => matcher.holds(None),
                })
            && self
                .pointer
                .as_ref()
                .is_none_or(|(pointer, matcher)| match seen.body() {
                    Some(body) if pointer.has_wildcard() => pointer.reaches_any(body, &|value| matcher.holds(value)),
                    body => matcher.holds(body.and_then(|body| pointer.lookup(body))),
                })
    }
}

impl Matcher {
    /// The one that is stated.
    fn read(fields: &Fields<'_>, problems: &mut Problems) -> Option<Self> {
        let stated: Vec<&str> = ["equals", "in", "present", "contains", "empty"]
            .into_iter()
            .filter(|key| fields.get(key).is_some())
            .collect();
        match stated.as_slice() {
            [] => None,
            ["equals"] => fields.get("equals").cloned().map(Self::Equals),
            ["in"] if fields.get("in").is_some_and(Value::is_array) => {
                fields.get("in").and_then(Value::as_array).cloned().map(Self::OneOf)
            }
            ["present"] => fields.flag("present", problems).map(Self::Present),
            ["contains"] => {
                let text = fields.text("contains", problems)?;
                if text.is_empty() {
                    problems.add(&fields.at("contains"), "bad_value", "every text contains this one");
                }
                Some(Self::Contains(text.to_owned()))
            }
            ["empty"] => fields.flag("empty", problems).map(Self::Empty),
            _ => {
                let message = "state one of `equals`, `in: […]`, `present`, `contains` or `empty`";
                problems.add(fields.place(), "bad_value", message);
                None
            }
        }
    }

    fn holds(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Equals(wanted) => value == Some(wanted),
            Self::OneOf(wanted) => value.is_some_and(|value| wanted.contains(value)),
            Self::Present(wanted) => value.is_some_and(|value| !value.is_null()) == *wanted,
            Self::Contains(part) => value.and_then(Value::as_str).is_some_and(|text| text.contains(part)),
            Self::Empty(wanted) => value.is_none_or(is_empty) == *wanted,
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn read_statuses(value: &Value, place: &str, problems: &mut Problems) -> Option<Vec<StatusMatch>> {
    let one = |value: &Value| match value {
        Value::Number(number) => number
            .as_u64()
            .and_then(|code| u16::try_from(code).ok())
            .filter(|code| (100..600).contains(code))
            .map(StatusMatch::Exactly),
        Value::String(text) => text
            .strip_suffix("xx")
            .and_then(|class| class.parse::<u16>().ok())
            .filter(|class| (1..6).contains(class))
            .map(StatusMatch::Class),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let statuses: Option<Vec<StatusMatch>> = match value {
        Value::Array(items) => items.iter().map(one).collect(),
        other => one(other).map(|status| vec![status]),
    };
    if statuses.is_none() {
        problems.add(
            place,
            "bad_value",
            "`status` is a code, a class such as 5xx, or a list of them",
        );
    }
    statuses
}
