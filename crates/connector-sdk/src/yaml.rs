//! YAML to JSON values with line numbers, for everything that people write by hand.
//!
//! Bounded in every direction: text size, nesting, nodes, aliases. A duplicate key is an error, never
//! a silent overwrite, and only what JSON can say is accepted.

use std::collections::HashMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Spanned, options::DuplicateKeyPolicy};

use crate::pointer;

/// Longest YAML text that is read, in bytes. The largest hand-written manifests known are ten times smaller.
///
/// Limit: a manifest or document | refused | `yaml_stops_at_its_bounds`
pub(crate) const MAX_YAML_BYTES: usize = 4 * 1024 * 1024;
/// Deepest nesting. The parser recurses, and unoptimised it takes about 35 KiB of stack for each level: threads have 2 MiB.
///
/// Limit: levels of a manifest or document | refused | `yaml_stops_at_its_bounds`
pub(crate) const MAX_YAML_DEPTH: usize = 48;
/// Most events that aliases may replay; stops "billion laughs" long before memory matters.
const MAX_REPLAYED_EVENTS: usize = 50_000;
/// Most anchors, and most aliases.
///
/// Limit: aliases in a manifest or document | refused | `yaml_stops_at_its_bounds`
const MAX_ALIASES: usize = 1_000;

/// One document of a YAML text, as JSON, with the line of every value.
#[derive(Debug, Clone)]
pub struct YamlDocument {
    /// The document as a JSON value; keys keep their order.
    pub value: Value,
    lines: HashMap<String, usize>,
}

impl YamlDocument {
    /// Line (1-based) of the value at an RFC 6901 `pointer`; for a pointer that leads nowhere, the line of
    /// its nearest existing parent.
    pub fn line_of(&self, pointer: &str) -> Option<usize> {
        let mut pointer = pointer;
        loop {
            if let Some(line) = self.lines.get(pointer) {
                return Some(*line);
            }
            pointer = pointer.rsplit_once('/').map(|(parent, _)| parent)?;
        }
    }
}

/// Why a YAML text could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct YamlError {
    /// Line, 1-based; 0 when the whole text is meant.
    pub line: usize,
    /// Column, 1-based; 0 when the whole line is meant.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads every document of a YAML text (separated by `---`). Empty documents are left out.
///
/// # Errors
/// [`YamlError`] for a text that is too long, too deep, has duplicate keys, too many aliases, numbers
/// that JSON cannot hold, or is not YAML.
pub fn parse_yaml(text: &str) -> Result<Vec<YamlDocument>, YamlError> {
    if text.len() > MAX_YAML_BYTES {
        return Err(YamlError {
            line: 0,
            column: 0,
            message: format!("the text has {} bytes, more than {MAX_YAML_BYTES}", text.len()),
        });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_YAML_DEPTH,
            flow_nesting_limit: MAX_YAML_DEPTH,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED_EVENTS },
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    };
    let nodes: Vec<Spanned<Node>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| yaml_error(&error))?;
    let documents = nodes
        .into_iter()
        .map(document)
        .filter(|document| !document.value.is_null())
        .collect();
    Ok(documents)
}

fn yaml_error(error: &serde_saphyr::Error) -> YamlError {
    let (line, column) = error.location().map_or((0, 0), |location| {
        (line_number(location.line()), line_number(location.column()))
    });
    let message = error.without_snippet().to_string();
    // The place stands in fields of its own, and the reader's own options are nothing that an author can set.
    let place = format!(" at line {line}, column {column}");
    let message = message.strip_suffix(&place).unwrap_or(&message);
    let (message, _options) = message.split_once(", set DuplicateKeyPolicy").unwrap_or((message, ""));
    YamlError {
        line,
        column,
        message: message.to_owned(),
    }
}

fn document(node: Spanned<Node>) -> YamlDocument {
    let mut lines = HashMap::new();
    let mut place = String::new();
    let line = line_number(node.referenced.line());
    let value = to_value(node.value, line, &mut place, &mut lines);
    YamlDocument { value, lines }
}

fn to_value(node: Node, line: usize, place: &mut String, lines: &mut HashMap<String, usize>) -> Value {
    lines.insert(place.clone(), line);
    let length = place.len();
    match node {
        Node::Scalar(value) => value,
        Node::Sequence(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                pointer::push_index(place, index);
                let line = line_number(item.referenced.line());
                list.push(to_value(item.value, line, place, lines));
                place.truncate(length);
            }
            Value::Array(list)
        }
        Node::Mapping(entries) => {
            let mut map = Map::with_capacity(entries.len());
            for (key, item) in entries {
                pointer::push(place, &key.value);
                // The key's line is where a reader looks; a block value starts on the line below it.
                let line = line_number(key.referenced.line());
                let value = to_value(item.value, line, place, lines);
                place.truncate(length);
                map.insert(key.value, value);
            }
            Value::Object(map)
        }
    }
}

fn line_number(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

enum Node {
    Scalar(Value),
    Sequence(Vec<Spanned<Node>>),
    Mapping(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Number(value.into())))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Number(value.into())))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number that JSON cannot hold"))?;
        Ok(Node::Scalar(Value::Number(number)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(Value::String(value.to_owned())))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(Value::String(value)))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key()? {
            entries.push((key, access.next_value()?));
        }
        Ok(Node::Mapping(entries))
    }
}
