//! RFC 6901 JSON Pointers: the one locator notation of manifests.
//!
//! The segment `*` stands for every element of an array where several values are looked for ([`Pointer::expand`]: `split`,
//! `each`, published address lists; [`Pointer::reaches_any`]: conditions on answers). For [`Pointer::lookup`] and
//! [`Pointer::write`], which reach one value, it is an ordinary key.

use std::fmt;

use serde_json::Value;

/// Appends one escaped segment to a pointer under construction.
pub(crate) fn push(pointer: &mut String, segment: &str) {
    pointer.push('/');
    for character in segment.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

/// Appends an array index to a pointer under construction.
pub(crate) fn push_index(pointer: &mut String, index: usize) {
    pointer.push('/');
    pointer.push_str(&index.to_string());
}

/// `pointer` with one more segment.
pub(crate) fn join(pointer: &str, segment: &str) -> String {
    let mut joined = String::with_capacity(pointer.len() + segment.len() + 1);
    joined.push_str(pointer);
    push(&mut joined, segment);
    joined
}

/// A pointer, split and unescaped once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer {
    segments: Vec<String>,
}

impl Pointer {
    /// Reads RFC 6901 text: empty, or starting with `/`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { segments: Vec::new() });
        }
        let rest = text.strip_prefix('/')?;
        Some(Self {
            segments: rest
                .split('/')
                .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
                .collect(),
        })
    }

    pub(crate) fn is_root(&self) -> bool {
        self.segments.is_empty()
    }

    pub(crate) fn has_wildcard(&self) -> bool {
        self.segments.iter().any(|segment| segment == "*")
    }

    pub(crate) fn lookup<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.segments
            .iter()
            .try_fold(value, |value, segment| step(value, segment))
    }

    /// Whether one of the values that the pointer reaches fits, when `*` stands for every element of an array. What is not
    /// there counts as a value that is absent; an empty array has none.
    pub(crate) fn reaches_any(&self, value: &Value, fits: &dyn Fn(Option<&Value>) -> bool) -> bool {
        reaches_any(&self.segments, Some(value), fits)
    }

    /// Every value that the pointer reaches when `*` stands for all elements of an array, with its concrete
    /// pointer. `None` when a named key is missing or a `*` meets something that is not an array.
    pub(crate) fn expand<'v>(&self, value: &'v Value) -> Option<Vec<(String, &'v Value)>> {
        let mut reached = vec![(String::new(), value)];
        for segment in &self.segments {
            let mut next = Vec::with_capacity(reached.len());
            for (place, value) in reached {
                if segment == "*" {
                    for (index, item) in value.as_array()?.iter().enumerate() {
                        let mut place = place.clone();
                        push_index(&mut place, index);
                        next.push((place, item));
                    }
                } else {
                    next.push((join(&place, segment), step(value, segment)?));
                }
            }
            reached = next;
        }
        Some(reached)
    }

    /// Writes `value` where the pointer leads, making objects on the way. `false` when something that is
    /// not an object stands in the way.
    pub(crate) fn write(&self, target: &mut Value, value: Value) -> bool {
        let mut target = target;
        for segment in &self.segments {
            if target.is_null() {
                *target = Value::Object(serde_json::Map::new());
            }
            let Value::Object(map) = target else {
                return false;
            };
            target = map.entry(segment.clone()).or_insert(Value::Null);
        }
        *target = value;
        true
    }
}

fn reaches_any(segments: &[String], value: Option<&Value>, fits: &dyn Fn(Option<&Value>) -> bool) -> bool {
    match (segments.split_first(), value) {
        (None, value) => fits(value),
        (Some((segment, rest)), Some(Value::Array(items))) if segment == "*" => {
            items.iter().any(|item| reaches_any(rest, Some(item), fits))
        }
        (Some((segment, rest)), value) => reaches_any(rest, value.and_then(|value| step(value, segment)), fits),
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for segment in &self.segments {
            push(&mut text, segment);
        }
        f.write_str(&text)
    }
}

fn step<'v>(value: &'v Value, segment: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => map.get(segment),
        Value::Array(list) => {
            // RFC 6901 §4: an index has no leading zeros.
            if segment.len() > 1 && segment.starts_with('0') {
                return None;
            }
            list.get(segment.parse::<usize>().ok()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
