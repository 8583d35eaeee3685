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
}

impl Condition {
    pub(super) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(
            value,
            place,
            &["status", "pointer", "header", "equals", "in", "present"],
            problems,
        )?;
        let mut condition = Self::default();
        if let Some(status) = fields.get("status") {
            condition.statuses = read_statuses(status, &fields.at("status"), problems);
        }
        let matcher = match (fields.get("equals"), fields.get("in"), fields.get("present")) {
            (Some(value), None, None) => Some(Matcher::Equals(value.clone())),
            (None, Some(Value::Array(values)), None) => Some(Matcher::OneOf(values.clone())),
            (None, None, Some(_)) => fields.flag("present", problems).map(Matcher::Present),
            (None, None, None) => None,
            _ => {
                problems.add(place, "bad_value", "state one of `equals`, `in: […]` or `present`");
                None
            }
        };
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
                "`equals`, `in` and `present` need a `pointer` or a `header`",
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
                .is_none_or(|(pointer, matcher)| matcher.holds(seen.body().and_then(|body| pointer.lookup(body))))
    }
}

impl Matcher {
    fn holds(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Equals(wanted) => value == Some(wanted),
            Self::OneOf(wanted) => value.is_some_and(|value| wanted.contains(value)),
            Self::Present(wanted) => value.is_some_and(|value| !value.is_null()) == *wanted,
        }
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
