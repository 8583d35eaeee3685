//! Strict reading of JSON objects: every key is asked for by name, and what nobody asked for is refused.

use serde_json::{Map, Value};

use crate::pointer;
use crate::problem::{Problems, nearest};

/// An object under reading, with its place in the document.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'v> {
    map: &'v Map<String, Value>,
    place: String,
}

impl<'v> Fields<'v> {
    /// Opens `value`, which must be an object with keys out of `known` only.
    pub(crate) fn open(value: &'v Value, place: &str, known: &[&str], problems: &mut Problems) -> Option<Self> {
        let fields = Self::open_any(value, place, problems)?;
        for key in fields.map.keys() {
            if known.contains(&key.as_str()) {
                continue;
            }
            let place = pointer::join(place, key);
            let message = format!("`{key}` is not a key here");
            match nearest(key, known.iter().copied()) {
                Some(near) => {
                    problems.add_with_suggestion(&place, "unknown_key", message, format!("did you mean `{near}`?"))
                }
                None => problems.add_with_suggestion(
                    &place,
                    "unknown_key",
                    message,
                    format!("known keys: {}", known.join(", ")),
                ),
            }
        }
        Some(fields)
    }

    /// Opens `value`, which must be an object with keys of the author's choice.
    pub(crate) fn open_any(value: &'v Value, place: &str, problems: &mut Problems) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self {
                map,
                place: place.to_owned(),
            }),
            other => {
                problems.add(
                    place,
                    "bad_type",
                    format!("expected a mapping, found {}", kind_of(other)),
                );
                None
            }
        }
    }

    pub(crate) fn map(&self) -> &'v Map<String, Value> {
        self.map
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The pointer of `key`.
    pub(crate) fn at(&self, key: &str) -> String {
        pointer::join(&self.place, key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'v Value> {
        self.map.get(key)
    }

    pub(crate) fn required(&self, key: &str, problems: &mut Problems) -> Option<&'v Value> {
        let found = self.map.get(key);
        if found.is_none() {
            problems.add(&self.place, "missing_key", format!("`{key}` is missing"));
        }
        found
    }

    pub(crate) fn text(&self, key: &str, problems: &mut Problems) -> Option<&'v str> {
        let value = self.map.get(key)?;
        let text = value.as_str();
        if text.is_none() {
            problems.add(
                &self.at(key),
                "bad_type",
                format!("`{key}` must be text, found {}", kind_of(value)),
            );
        }
        text
    }

    pub(crate) fn required_text(&self, key: &str, problems: &mut Problems) -> Option<&'v str> {
        self.required(key, problems)?;
        self.text(key, problems)
    }

    pub(crate) fn flag(&self, key: &str, problems: &mut Problems) -> Option<bool> {
        let value = self.map.get(key)?;
        let flag = value.as_bool();
        if flag.is_none() {
            problems.add(
                &self.at(key),
                "bad_type",
                format!("`{key}` must be true or false, found {}", kind_of(value)),
            );
        }
        flag
    }

    pub(crate) fn number(&self, key: &str, problems: &mut Problems) -> Option<u64> {
        let value = self.map.get(key)?;
        let number = value.as_u64();
        if number.is_none() {
            problems.add(
                &self.at(key),
                "bad_type",
                format!("`{key}` must be a whole number, found {}", kind_of(value)),
            );
        }
        number
    }

    /// A duration such as `60s`, `5m`, `24h`, `30d`, in seconds.
    pub(crate) fn duration_s(&self, key: &str, problems: &mut Problems) -> Option<u64> {
        let text = self.text(key, problems)?;
        let seconds = duration_s(text);
        if seconds.is_none() {
            problems.add(
                &self.at(key),
                "bad_value",
                format!("`{text}` is not a duration such as 60s, 5m, 24h or 30d"),
            );
        }
        seconds
    }

    /// One of `allowed`, by its text.
    pub(crate) fn choice<T: Copy>(&self, key: &str, allowed: &[(&str, T)], problems: &mut Problems) -> Option<T> {
        let text = self.text(key, problems)?;
        choose(text, allowed, &self.at(key), problems)
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &str, problems: &mut Problems) -> Option<Vec<String>> {
        let value = self.map.get(key)?;
        let texts = value.as_array().and_then(|items| {
            items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
        });
        if texts.is_none() {
            problems.add(&self.at(key), "bad_type", format!("`{key}` must be a list of texts"));
        }
        texts
    }

    /// The only entry of a mapping with one key.
    pub(crate) fn single(&self, what: &str, problems: &mut Problems) -> Option<(&'v str, &'v Value)> {
        let mut entries = self.map.iter();
        match (entries.next(), entries.next()) {
            (Some((key, value)), None) => Some((key, value)),
            _ => {
                problems.add(
                    &self.place,
                    "bad_value",
                    format!("{what} is a mapping with exactly one key"),
                );
                None
            }
        }
    }
}

/// The value of `text` in a closed list, or a problem with the nearest word.
pub(crate) fn choose<T: Copy>(text: &str, allowed: &[(&str, T)], place: &str, problems: &mut Problems) -> Option<T> {
    let found = allowed.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
        let suggestion = match nearest(text, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of: {}", names.join(", ")),
        };
        problems.add_with_suggestion(place, "bad_value", format!("`{text}` is not known here"), suggestion);
    }
    found
}

/// Seconds in `60s`, `5m`, `24h`, `30d`.
pub fn duration_s(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The kind of a value in words.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// Lower-case words of letters, digits and `_`, separated by dots: operation names, read names.
pub(crate) fn is_name(text: &str, dots: bool) -> bool {
    text.split('.').all(|word| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word
                .chars()
                .all(|next| next.is_ascii_lowercase() || next.is_ascii_digit() || next == '_')
    }) && (dots || !text.contains('.'))
}

/// Lower-case words separated by hyphens: connector names.
pub(crate) fn is_connector_name(text: &str) -> bool {
    text.split('-').all(|word| {
        word.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && word
                .chars()
                .all(|next| next.is_ascii_lowercase() || next.is_ascii_digit())
    }) && text.starts_with(|first: char| first.is_ascii_lowercase())
}

/// An HTTP header name (RFC 9110 §5.6.2 token).
pub(crate) fn is_header_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
