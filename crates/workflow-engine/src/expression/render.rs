//! From a found value to JSON or to text.

use std::fmt::Write as _;

use serde_json::Value;

use crate::document;

/// What a path or an expression led to.
pub(crate) enum Found<'a> {
    /// Valid JSON text inside a document.
    Raw(&'a str),
    /// A text that is not JSON yet.
    Text(&'a str),
    /// A computed value.
    Owned(Value),
    /// Nothing.
    Missing,
}

impl Found<'_> {
    /// The value as a tree; null when missing.
    pub(crate) fn into_value(self) -> Value {
        match self {
            Self::Raw(text) => document::parse_text(text),
            Self::Text(text) => Value::from(text),
            Self::Owned(value) => value,
            Self::Missing => Value::Null,
        }
    }

    /// How many bytes of JSON it is.
    pub(super) fn json_bytes(&self) -> usize {
        match self {
            Self::Raw(text) | Self::Text(text) => text.len(),
            Self::Owned(value) => {
                let mut counter = Counter(0);
                write!(counter, "{value}").expect("counting never fails");
                counter.0
            }
            Self::Missing => 0,
        }
    }

    /// Appends the value as JSON.
    pub(crate) fn write_json(&self, out: &mut String) {
        match self {
            Self::Raw(text) => out.push_str(text),
            Self::Text(text) => {
                out.push('"');
                write_escaped(text, out);
                out.push('"');
            }
            Self::Owned(value) => {
                write!(out, "{value}").expect("writing to a string never fails");
            }
            Self::Missing => out.push_str("null"),
        }
    }

    /// Appends the value as the inside of a JSON string. Lists and objects become JSON text.
    ///
    /// Fails on null: a text with a hole in it is nearly always a mistake.
    pub(crate) fn write_text(&self, out: &mut String) -> Result<(), &'static str> {
        const NULL: &str = "is null and cannot stand in a text; say what to write instead with `| default(\"…\")`";
        match self {
            Self::Raw("null") | Self::Missing | Self::Owned(Value::Null) => return Err(NULL),
            // The literal is escaped already, and escapes mean the same in the string that it becomes part of.
            Self::Raw(text) => match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(inside) => out.push_str(inside),
                None => write_escaped(text, out),
            },
            Self::Text(text) => write_escaped(text, out),
            Self::Owned(Value::String(text)) => write_escaped(text, out),
            Self::Owned(value) => write_escaped(&value.to_string(), out),
        }
        Ok(())
    }
}

/// Counts what is written to it.
struct Counter(usize);

impl std::fmt::Write for Counter {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// Appends text as the inside of a JSON string.
pub(super) fn write_escaped(text: &str, out: &mut String) {
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    if text.as_bytes().iter().all(plain) {
        out.push_str(text);
        return;
    }
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                write!(out, "\\u{:04x}", u32::from(control)).expect("writing to a string never fails");
            }
            other => out.push(other),
        }
    }
}

/// Whether a value counts as true: not false, null, zero, or empty.
pub(super) fn truth(found: &Found<'_>) -> bool {
    match found {
        Found::Raw("true") => true,
        Found::Raw("false" | "null" | "0" | "\"\"" | "[]" | "{}") | Found::Missing => false,
        Found::Raw(text) => value_truth(&document::parse_text(text)),
        Found::Text(text) => !text.is_empty(),
        Found::Owned(value) => value_truth(value),
    }
}

fn value_truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}
