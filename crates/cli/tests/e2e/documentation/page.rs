//! The examples of a page, and what they have to show.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

pub(super) const PAGE: &str = include_str!("../../../../../docs/workflows.md");
const SCHEMA: &str = include_str!("../../../../../docs/schemas/workflow.json");

/// A YAML block of the page.
#[derive(Debug, Clone)]
pub(super) struct Example {
    /// The heading of its chapter.
    pub(super) chapter: String,
    /// The heading right above it.
    pub(super) heading: String,
    pub(super) text: String,
}

/// Every YAML block of the page.
pub(super) fn examples() -> Vec<Example> {
    let mut found = Vec::new();
    for chapter in PAGE.split("\n## ").skip(1) {
        let title = chapter.lines().next().unwrap();
        for section in chapter.split("\n### ") {
            let heading = section.lines().next().unwrap();
            for block in section.split("```yaml\n").skip(1) {
                found.push(Example {
                    chapter: title.to_owned(),
                    heading: heading.to_owned(),
                    text: block.split("```").next().unwrap().to_owned(),
                });
            }
        }
    }
    found
}

/// What the schema names and a document can have: `call.retry.tries`, `on.schedule.cron`, `timeout`.
fn named(schema: &Value, part: &Value, place: &str, found: &mut BTreeSet<String>) {
    if let Some(reference) = part["$ref"].as_str() {
        // Steps are looked at by themselves, and plain data has no options.
        let shared = reference.strip_prefix('#').unwrap();
        if !matches!(shared, "/$defs/steps" | "/$defs/step" | "/$defs/plain") && !place.ends_with(".input.items") {
            named(schema, schema.pointer(shared).unwrap(), place, found);
        }
    }
    for way in ["oneOf", "anyOf"]
        .iter()
        .flat_map(|way| part[way].as_array().into_iter().flatten())
    {
        named(schema, way, place, found);
    }
    for list in [&part["items"]].into_iter().filter(|list| list.is_object()) {
        named(schema, list, place, found);
    }
    let Some(properties) = part["properties"].as_object() else {
        return;
    };
    for (name, inner) in properties {
        let inside = if place.is_empty() {
            name.clone()
        } else {
            format!("{place}.{name}")
        };
        found.insert(inside.clone());
        if place.matches(".input").count() == 0 {
            named(schema, inner, &inside, found);
        }
    }
}

/// Every option of a document and of each kind of step, the latter with the kind in front.
pub(super) fn options() -> BTreeSet<String> {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let mut found = BTreeSet::new();
    let mut top = schema.clone();
    for elsewhere in ["steps", "on_failure"] {
        top["properties"][elsewhere] = Value::Bool(true);
    }
    named(&schema, &top, "", &mut found);
    for kind in schema["$defs"]["step"]["oneOf"].as_array().unwrap() {
        let title = kind["title"].as_str().unwrap();
        let mut of_kind = BTreeSet::new();
        named(&schema, kind, "", &mut of_kind);
        // The same on every step.
        found.extend(
            of_kind
                .into_iter()
                .filter(|name| name != "id" && name != "when")
                .map(|name| format!("{title}: {name}")),
        );
    }
    found.extend(["step: id".to_owned(), "step: when".to_owned()]);
    found
}

/// Every place of a value by the names that lead to it.
fn paths(value: &Value, place: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let inside = if place.is_empty() {
                    name.clone()
                } else {
                    format!("{place}.{name}")
                };
                paths(member, &inside, found);
                // A schema of data holds schemas of its parts.
                if place.starts_with("on.manual.input.") {
                    found.insert(format!("on.manual.input.{name}"));
                }
                found.insert(inside);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, place, found)),
        _ => {}
    }
}

/// What an example shows, in the words of [`options`].
pub(super) fn shown(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let kinds: BTreeSet<String> = options()
        .iter()
        .filter_map(|option| option.split_once(": "))
        .map(|(kind, _)| kind.to_owned())
        .collect();
    for document in text.replace("[ … ]", "[]").split("---\n") {
        match serde_saphyr::from_str::<Value>(document).unwrap() {
            Value::Object(fields) if fields.get("kind").is_none_or(|kind| kind == "Workflow") => {
                paths(&Value::Object(fields.clone()), "", &mut found);
                fields.values().for_each(|inside| steps(inside, &kinds, &mut found));
            }
            list @ Value::Array(_) => steps(&list, &kinds, &mut found),
            _ => {}
        }
    }
    found
}

/// The options of the steps in a value.
fn steps(value: &Value, kinds: &BTreeSet<String>, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(kind) = kind(fields, kinds) {
                let mut of_step = BTreeSet::new();
                paths(value, "", &mut of_step);
                found.extend(of_step.into_iter().map(|path| match path.as_str() {
                    "id" | "when" => format!("step: {path}"),
                    _ => format!("{kind}: {path}"),
                }));
            }
            fields.values().for_each(|inside| steps(inside, kinds, found));
        }
        Value::Array(items) => items.iter().for_each(|item| steps(item, kinds, found)),
        _ => {}
    }
}

fn kind(fields: &Map<String, Value>, kinds: &BTreeSet<String>) -> Option<String> {
    let is_step = fields.contains_key("id");
    fields.keys().find(|key| is_step && kinds.contains(*key)).cloned()
}

/// Examples are what people copy: there is one of every option, and the tests here run them all.
#[test]
fn every_option_of_the_schema_has_an_example() {
    let shown: BTreeSet<String> = examples().iter().flat_map(|example| shown(&example.text)).collect();
    let options = options();
    assert!(options.len() > 90, "{options:#?}");
    let missing: Vec<&String> = options.difference(&shown).collect();
    assert!(missing.is_empty(), "docs/workflows.md has no example of {missing:#?}");
}
