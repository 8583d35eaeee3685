//! Reading an object of a document: each key once, unknown keys refused, every fault with its place.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::duration;
use crate::expression::Expression;
use crate::problem::{Problem, child};

/// An object of the document and where it stands.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    pub(super) pointer: String,
}

/// What a value is, for people.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

pub(super) fn wrong_type(pointer: &str, wanted: &str, found: &Value) -> Problem {
    Problem::new(
        pointer,
        "wrong_type",
        format!("{wanted} is wanted here, not {}", kind(found)),
    )
}

impl<'a> Fields<'a> {
    /// The object, if `value` is one; keys that are not `known` are reported.
    pub(super) fn new(
        value: &'a Value,
        pointer: impl Into<String>,
        known: &[&str],
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let pointer = pointer.into();
        let Value::Object(map) = value else {
            problems.push(wrong_type(&pointer, "an object", value));
            return None;
        };
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            let message = format!("`{key}` is not supported here; supported: {}", known.join(", "));
            let problem = Problem::new(child(&pointer, key), "unknown_key", message);
            problems.push(problem.did_you_mean(key, known.iter().copied()));
        }
        Some(Self { map, pointer })
    }

    pub(super) fn at(&self, key: &str) -> String {
        child(&self.pointer, key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(super) fn required(&self, key: &str, problems: &mut Vec<Problem>) -> Option<&'a Value> {
        let value = self.get(key);
        if value.is_none() {
            problems.push(Problem::new(
                &self.pointer,
                "missing_key",
                format!("`{key}` is missing"),
            ));
        }
        value
    }

    pub(super) fn text(&self, key: &str, problems: &mut Vec<Problem>) -> Option<&'a str> {
        let value = self.get(key)?;
        if value.as_str().is_none() {
            problems.push(wrong_type(&self.at(key), "text", value));
        }
        value.as_str()
    }

    pub(super) fn expression(&self, key: &str, problems: &mut Vec<Problem>) -> Option<Expression> {
        match self.get(key)? {
            Value::String(text) => match Expression::parse(text, &self.at(key)) {
                Ok(expression) => Some(expression),
                Err(problem) => {
                    problems.push(problem);
                    None
                }
            },
            other => {
                let problem = wrong_type(&self.at(key), "an expression", other);
                problems.push(problem.suggest("write it as \"{{ … }}\""));
                None
            }
        }
    }

    /// A span of time of more than nothing, at most `limit`.
    pub(super) fn span(&self, key: &str, limit: Duration, problems: &mut Vec<Problem>) -> Option<Duration> {
        let value = self.get(key)?;
        let span = value.as_str().and_then(duration::parse);
        match span {
            Some(span) if span.is_zero() || span > limit => {
                let message = format!(
                    "`{key}` must be more than nothing and at most {}",
                    duration::print(limit)
                );
                problems.push(Problem::new(self.at(key), "out_of_bounds", message));
                None
            }
            Some(span) => Some(span),
            None => {
                let message = format!("{value} is not a span of time");
                let hint = "write a number with a unit: \"500ms\", \"30s\", \"5m\", \"24h\", \"7d\"";
                problems.push(Problem::new(self.at(key), "not_a_span", message).suggest(hint));
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn count(&self, key: &str, least: u32, most: u32, problems: &mut Vec<Problem>) -> Option<u32> {
        let value = self.get(key)?;
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Some(number),
            None => {
                let message = format!("`{key}` must be a whole number from {least} to {most}");
                problems.push(Problem::new(self.at(key), "out_of_bounds", message));
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Clone>(&self, key: &str, words: &[(&str, T)], problems: &mut Vec<Problem>) -> Option<T> {
        let value = self.get(key)?;
        let found = value
            .as_str()
            .and_then(|text| words.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("{value} is none of: {}", known.join(", "));
            let problem = Problem::new(self.at(key), "unknown_word", message);
            problems.push(problem.did_you_mean(value.as_str().unwrap_or_default(), known.iter().copied()));
        }
        found.map(|(_, meaning)| meaning.clone())
    }
}

/// A single value without an expression.
pub(super) fn is_plain(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains("{{"),
        Value::Bool(_) | Value::Number(_) => true,
        // Null is an argument that is left out.
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}
