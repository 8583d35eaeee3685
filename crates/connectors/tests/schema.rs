//! The JSON Schema of manifests says what the parser says: it takes every built-in manifest, and each of its closed
//! mappings and lists of words is compared with the one that the parser names when it is given something unknown.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise, and renews a file when it is told to"
)]

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use weir_connector_sdk::{Connector, Problem, parse_yaml};
use weir_connectors::builtin;

/// What the built-in manifests do not use.
const RARE: &str = include_str!("rare.yaml");
/// A word that is near to no other.
const UNKNOWN: &str = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";

/// Places of the schema that a value was held against: of closed mappings and of lists of words, with the place of the
/// value.
type Seen = BTreeMap<String, String>;

struct Schema(Value);

impl Schema {
    fn at(&self, place: &str) -> &Value {
        self.0.pointer(place).unwrap_or_else(|| panic!("no {place}"))
    }

    /// Where a schema is once its references are followed.
    fn followed(&self, place: &str) -> String {
        match self.at(place).get("$ref").and_then(Value::as_str) {
            Some(reference) => self.followed(reference.strip_prefix('#').unwrap()),
            None => place.to_owned(),
        }
    }

    /// Holds a value against the schema at a place, as far as the words of this schema go.
    fn check(&self, place: &str, value: &Value, pointer: &str) -> Result<Seen, String> {
        let place = self.followed(place);
        let schema = self.at(&place);
        let mut seen = Seen::new();
        if let Some(ways) = schema.get("anyOf").and_then(Value::as_array) {
            let tried: Vec<_> = (0..ways.len())
                .map(|index| self.check(&format!("{place}/anyOf/{index}"), value, pointer))
                .collect();
            let first = tried.iter().find_map(|way| way.as_ref().ok());
            return first.cloned().ok_or_else(|| format!("{pointer}: none of {tried:?}"));
        }
        let fits = match schema.get("type").and_then(Value::as_str) {
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_u64(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            Some(other) => panic!("{other} at {place}"),
            None => true,
        };
        if !fits {
            return Err(format!("{pointer}: not {}", schema["type"]));
        }
        if schema.get("const").is_some_and(|wanted| wanted != value) {
            return Err(format!("{pointer}: not {}", schema["const"]));
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            if !words.contains(value) {
                return Err(format!("{pointer}: none of {words:?}"));
            }
            seen.insert(place.clone(), pointer.to_owned());
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            if schema.get("items").is_some() {
                seen.extend(self.check(&format!("{place}/items"), item, &format!("{pointer}/{index}"))?);
            }
        }
        if let Some(fields) = value.as_object().filter(|_| schema["type"] == "object") {
            seen.extend(self.check_fields(&place, fields, pointer)?);
        }
        Ok(seen)
    }

    fn check_fields(&self, place: &str, fields: &Map<String, Value>, pointer: &str) -> Result<Seen, String> {
        let schema = self.at(place);
        let mut seen = Seen::new();
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                return Err(format!("{pointer}: {name} is missing"));
            }
        }
        let (least, most) = (schema["minProperties"].as_u64(), schema["maxProperties"].as_u64());
        let count = fields.len() as u64;
        if least.is_some_and(|least| count < least) || most.is_some_and(|most| count > most) {
            return Err(format!("{pointer}: {count} keys"));
        }
        if schema["additionalProperties"] == json!(false) {
            seen.insert(place.to_owned(), pointer.to_owned());
        }
        for (name, value) in fields {
            let escaped = name.replace('~', "~0").replace('/', "~1");
            let inner = format!("{pointer}/{escaped}");
            if schema["properties"].get(name).is_some() {
                seen.extend(self.check(&format!("{place}/properties/{escaped}"), value, &inner)?);
            } else if schema["additionalProperties"] == json!(false) {
                return Err(format!("{inner}: unknown"));
            } else if schema["additionalProperties"].is_object() {
                seen.extend(self.check(&format!("{place}/additionalProperties"), value, &inner)?);
            }
        }
        Ok(seen)
    }

    /// Every closed mapping and every list of words.
    fn closed(&self, place: &str, found: &mut BTreeSet<String>) {
        let schema = self.at(place);
        let Some(fields) = schema.as_object() else { return };
        if fields.get("additionalProperties") == Some(&json!(false)) || fields.contains_key("enum") {
            found.insert(place.to_owned());
        }
        for (name, inner) in fields {
            let inner_place = format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"));
            match (name.as_str(), inner) {
                ("properties" | "$defs", Value::Object(named)) => {
                    for name in named.keys() {
                        self.closed(
                            &format!("{inner_place}/{}", name.replace('~', "~0").replace('/', "~1")),
                            found,
                        );
                    }
                }
                ("anyOf", Value::Array(ways)) => {
                    (0..ways.len()).for_each(|index| self.closed(&format!("{inner_place}/{index}"), found));
                }
                ("items" | "additionalProperties", Value::Object(_)) => self.closed(&inner_place, found),
                _ => {}
            }
        }
    }

    /// The names that the schema takes at a place.
    fn names(&self, place: &str) -> BTreeSet<String> {
        let schema = self.at(place);
        match schema.get("enum") {
            Some(words) => words
                .as_array()
                .unwrap()
                .iter()
                .map(|word| word.as_str().unwrap().to_owned())
                .collect(),
            None => schema["properties"].as_object().unwrap().keys().cloned().collect(),
        }
    }
}

fn parse(manifest: &Value, files: &dyn Fn(&str) -> Option<String>) -> Vec<Problem> {
    Connector::from_value(manifest, files).err().unwrap_or_default()
}

/// The names that the parser knows where it is given an unknown one.
fn known_to_the_parser(manifest: &Value, pointer: &str, files: &dyn Fn(&str) -> Option<String>) -> BTreeSet<String> {
    let mut changed = manifest.clone();
    let place = changed.pointer_mut(pointer).unwrap();
    let wanted = match place {
        Value::Object(fields) => {
            fields.insert(UNKNOWN.to_owned(), json!(1));
            format!("{pointer}/{UNKNOWN}")
        }
        word => {
            *word = json!(UNKNOWN);
            pointer.to_owned()
        }
    };
    let problems = parse(&changed, files);
    let told = problems.iter().filter(|problem| problem.pointer == wanted);
    let listed = told
        .filter_map(|problem| problem.suggestion.as_deref())
        .find_map(|suggestion| {
            suggestion
                .strip_prefix("known keys: ")
                .or_else(|| suggestion.strip_prefix("one of: "))
        });
    let listed = listed.unwrap_or_else(|| panic!("the parser lists nothing at {wanted}: {problems:#?}"));
    listed
        .split(", ")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_schema_is_what_the_parser_says() {
    let schema = Schema(Connector::json_schema());
    let mut left = BTreeSet::new();
    schema.closed("", &mut left);
    let mut differences = Vec::new();
    let mut hold = |name: &str, yaml: &str, files: &dyn Fn(&str) -> Option<String>| {
        for document in parse_yaml(yaml).unwrap() {
            let manifest = document.value;
            let problems = parse(&manifest, files);
            assert!(problems.is_empty(), "{name}: {problems:#?}");
            let seen = schema
                .check("", &manifest, "")
                .unwrap_or_else(|wrong| panic!("{name}{wrong}"));
            for (place, pointer) in seen {
                if !left.remove(&place) {
                    continue;
                }
                let (mut said, known) = (schema.names(&place), known_to_the_parser(&manifest, &pointer, files));
                if place.is_empty() {
                    // It stands in documents that are published, beside the manifest.
                    said.remove("files");
                }
                if said != known {
                    differences.push(format!("{place}: the schema has {said:?}, the parser {known:?}"));
                }
            }
        }
    };
    for manifest in builtin() {
        hold(manifest.name, manifest.yaml, &|path| {
            manifest.file(path).map(str::to_owned)
        });
    }
    hold("rare.yaml", RARE, &|_| Some("query { a }".to_owned()));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(
        left.is_empty(),
        "no manifest uses these: give rare.yaml an example\n{left:#?}"
    );
}

#[test]
fn the_documentation_has_the_schema() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schemas/connector.json");
    let text = format!("{:#}\n", Connector::json_schema());
    if std::env::var("WEIR_UPDATE_CONNECTORS").is_ok() {
        std::fs::write(path, &text).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == text,
        "docs/schemas/connector.json differs: WEIR_UPDATE_CONNECTORS=1 renews it"
    );
}
