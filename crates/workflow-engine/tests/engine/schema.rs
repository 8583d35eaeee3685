//! The JSON Schema of workflows against the parser, with a validator that knows neither: what the parser takes the
//! schema takes, and what the parser refuses for its shape the schema refuses.

#![expect(
    clippy::disallowed_methods,
    reason = "it reads what the repository shows, and renews a file when it is told to"
)]

use std::path::{Path, PathBuf};

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::{Map, Value, json};
use weir_workflow_engine::{Definition, Problem};

use crate::definitions::OF_EACH_KIND;
use crate::support::yaml;

const PAGE: &str = include_str!("../../../../docs/workflows.md");
/// What only the parser can tell: the language of expressions, sets of names, and how long a span is.
const PARSER_ALONE: [&str; 10] = [
    "bad_cron",
    "bad_sleep",
    "duplicate_id",
    "expression_in_name",
    "expression_syntax",
    "expression_too_long",
    "nested_too_deeply",
    "unknown_name",
    "unknown_path",
    "unknown_timezone",
];
/// The part of a message about a span that is well written and too long, too short or not whole.
const BOUNDS_OF_SPANS: [&str; 3] = [
    "more than nothing and at most",
    "must be whole seconds",
    "shorter than `for`",
];

struct Schema {
    schemas: Schemas,
    whole: SchemaIndex,
}

impl Schema {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.set_default_draft(Draft::V2020_12);
        let place = "http://weir.invalid/schemas/workflow.json";
        compiler.add_resource(place, Definition::json_schema()).unwrap();
        let whole = compiler.compile(place, &mut schemas).unwrap();
        Schema { schemas, whole }
    }

    fn takes(&self, document: &Value) -> bool {
        self.schemas.validate(document, self.whole).is_ok()
    }

    /// Why a document does not fit, which takes longer than to know that.
    fn why_not(&self, document: &Value) -> String {
        let checked = self.schemas.validate(document, self.whole);
        checked.err().map(|error| format!("{error:#}")).unwrap_or_default()
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The workflows among the documents of a file.
fn workflows(text: &str) -> Vec<Value> {
    let documents = text.split("\n---").map(|document| document.trim_start_matches('-'));
    let parsed = documents
        .filter(|document| document.contains("kind: Workflow"))
        .map(yaml);
    parsed.filter(|document| document["kind"] == "Workflow").collect()
}

/// The YAML blocks of a page, each as the whole document that it is a part of.
fn examples(page: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for block in page.split("```yaml\n").skip(1) {
        let block = block
            .split("```")
            .next()
            .unwrap()
            .replace("[ … ]", "[{ id: only, set: { a: 1 } }]");
        if block.starts_with("kind: ") || block.contains("\nkind: ") {
            found.extend(workflows(&block));
            continue;
        }
        let mut document = json!({ "name": "example", "on": { "event": "generic.order.placed" }, "steps": [{ "id": "only", "set": {} }] });
        let fields = document.as_object_mut().unwrap();
        match yaml(&block) {
            Value::Object(given) => fields.extend(given),
            steps => drop(fields.insert("steps".to_owned(), steps)),
        }
        found.push(document);
    }
    found
}

/// Every workflow that the repository shows to people.
fn shown() -> Vec<Value> {
    let mut found = examples(PAGE);
    let mut folders: Vec<PathBuf> = ["README.md", "docs", "bench", "deploy", "crates"]
        .map(|name| repository().join(name))
        .into();
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            folders.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = |path: &Path| std::fs::read_to_string(path).unwrap();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => found.extend(workflows(&text(&path))),
            Some("md") if !path.ends_with("docs/workflows.md") => {
                for block in text(&path).split("```yaml\n").skip(1) {
                    found.extend(workflows(block.split("```").next().unwrap()));
                }
            }
            _ => {}
        }
    }
    found
}

/// A document with one step of each kind.
fn of_each_kind() -> impl Iterator<Item = (&'static str, Value)> {
    OF_EACH_KIND
        .into_iter()
        .map(|(kind, sound, ..)| (kind, with_step(sound)))
}

fn with_step(step: &str) -> Value {
    yaml(&format!(
        "name: w\non: {{ event: stripe.payment_intent.succeeded }}\nsteps: [{{ id: s, {step} }}]"
    ))
}

/// The parser does not see `kind`, which says who reads the rest.
fn parse(document: &Value) -> Result<Definition, Vec<Problem>> {
    let mut document = document.clone();
    if let Some(fields) = document.as_object_mut() {
        fields.shift_remove("kind");
    }
    Definition::parse(&document)
}

/// Holds parser and schema against each other.
fn alike(schema: &Schema, document: &Value) -> Result<(), String> {
    let problems = parse(document).err().unwrap_or_default();
    if problems.is_empty() {
        return match schema.takes(document) {
            true => Ok(()),
            false => Err(format!(
                "the parser takes what the schema refuses:\n{document}\n{}",
                schema.why_not(document)
            )),
        };
    }
    let of_shape = problems.iter().find(|problem| {
        !PARSER_ALONE.contains(&problem.code) && !BOUNDS_OF_SPANS.iter().any(|part| problem.message.contains(part))
    });
    match of_shape {
        Some(problem) if schema.takes(document) => Err(format!(
            "the schema takes what the parser refuses:\n{document}\n{} {problem}",
            problem.code
        )),
        _ => Ok(()),
    }
}

#[test]
fn every_workflow_that_people_see_fits_the_schema() {
    let schema = Schema::new();
    let shown = shown();
    assert!(shown.len() > 45, "{}", shown.len());
    let kinds = of_each_kind().map(|(_, document)| document);
    for document in shown.into_iter().chain(kinds) {
        let parsed = parse(&document);
        assert!(parsed.is_ok(), "{document}\n{:#?}", parsed.err());
        assert!(schema.takes(&document), "{document}\n{}", schema.why_not(&document));
    }
}

#[test]
fn what_is_broken_in_a_step_of_any_kind_fits_neither() {
    let schema = Schema::new();
    for (kind, sound, misspelt, _, wrong_value) in OF_EACH_KIND {
        let rest = sound.split_once(&format!("{kind}: ")).unwrap().0;
        for broken in [
            format!("{sound}, {misspelt}: 1"),
            format!("{rest}{kind}: {wrong_value}"),
            format!("{sound}, when: 7"),
            format!("{sound}, {}: 1", if kind == "set" { "stop" } else { "set" }),
        ] {
            let document = with_step(&broken);
            assert!(parse(&document).is_err(), "the parser takes {broken}");
            assert!(!schema.takes(&document), "the schema takes {broken}");
        }
    }
}

/// Values of every type, good ones for one key or another among them.
fn values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(7),
        json!(-1),
        json!(1.5),
        json!(1_000_000),
        json!(""),
        json!("a.b"),
        json!("item"),
        json!("all"),
        json!("collect"),
        json!("5m"),
        json!(" .5 m "),
        json!("2026-01-01T00:00:00Z"),
        json!("{{ event.id }}"),
        json!("id {{ event.id }}"),
        json!([]),
        json!([7]),
        json!([{ "id": "more", "set": {} }]),
        json!({}),
        json!({ "zzz": 1 }),
    ]
}

/// One or two of each type, for where there is much to try.
fn few_values() -> [Value; 8] {
    [
        json!(true),
        json!(7),
        json!("all"),
        json!("5m"),
        json!("{{ event.id }}"),
        json!([{ "id": "more", "set": {} }]),
        json!({}),
        json!({ "zzz": 1 }),
    ]
}

/// Every place of a document.
fn places(value: &Value, place: &str, found: &mut Vec<String>) {
    found.push(place.to_owned());
    let inside = |name: &str| format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, member)| places(member, &inside(name), found)),
        Value::Array(items) => {
            (0..items.len()).for_each(|index| places(&items[index], &inside(&index.to_string()), found));
        }
        _ => {}
    }
}

/// The document with one value replaced, and with one member or item left out.
fn changed_at(document: &Value, place: &str) -> Vec<Value> {
    let mut changed: Vec<Value> = values()
        .into_iter()
        .map(|value| {
            let mut other = document.clone();
            *other.pointer_mut(place).unwrap() = value;
            other
        })
        .collect();
    if let Some((parent, name)) = place.rsplit_once('/') {
        let mut other = document.clone();
        match other.pointer_mut(parent).unwrap() {
            Value::Object(members) => drop(members.shift_remove(&name.replace("~1", "/").replace("~0", "~"))),
            Value::Array(items) => drop(items.remove(name.parse().unwrap())),
            _ => {}
        }
        changed.push(other);
    }
    changed
}

/// Parser and schema agreed about many documents.
fn all_alike(held: usize, differences: &[String]) {
    assert!(held > 10_000, "{held}");
    assert!(
        differences.is_empty(),
        "{}: {:#?}",
        differences.len(),
        &differences[..differences.len().min(8)]
    );
}

#[test]
fn parser_and_schema_take_the_same_changes_of_every_example() {
    let schema = Schema::new();
    let mut differences = Vec::new();
    let mut held = 0;
    for document in examples(PAGE)
        .into_iter()
        .chain(of_each_kind().map(|(_, document)| document))
    {
        let (mut document, mut found) = (document, Vec::new());
        // It says who reads the rest, and the parser does not see it.
        document.as_object_mut().unwrap().shift_remove("kind");
        places(&document, "", &mut found);
        for changed in found.iter().flat_map(|place| changed_at(&document, place)) {
            differences.extend(alike(&schema, &changed).err());
            held += 1;
        }
    }
    all_alike(held, &differences);
}

/// The names of all properties below a part of the schema.
fn properties(part: &Value, found: &mut Map<String, Value>) {
    match part {
        Value::Object(members) => {
            if let Some(Value::Object(named)) = members.get("properties") {
                found.extend(named.clone());
            }
            members.values().for_each(|member| properties(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| properties(item, found)),
        _ => {}
    }
}

/// Each key stands where the parser takes it and nowhere else.
#[test]
fn parser_and_schema_take_the_same_keys_everywhere() {
    let schema = Schema::new();
    let mut names = Map::new();
    properties(&Definition::json_schema(), &mut names);
    names.shift_remove("kind");
    assert!(names.len() > 60, "{names:?}");
    let mut differences = Vec::new();
    let triggers = [
        "{ manual: {} }",
        "{ schedule: { every: 1h } }",
        "{ schedule: { cron: \"@daily\" } }",
    ]
    .map(|on| {
        yaml(&format!(
            "name: w\non: {on}\nlane: {{ key: \"{{{{ event.id }}}}\" }}\nsteps: [{{ id: s, set: {{ b: 1 }} }}]"
        ))
    });
    let (mut found, mut held) = (Vec::new(), 0);
    for document in of_each_kind().map(|(_, document)| document).chain(triggers) {
        found.clear();
        places(&document, "", &mut found);
        // What stands around the step is the same for each of them.
        let around = document["steps"][0].get("call").is_some() || document["on"].get("event").is_none();
        found.retain(|place| document.pointer(place).unwrap().is_object() && (around || place.starts_with("/steps")));
        for place in &found {
            for name in names.keys() {
                for value in few_values() {
                    let mut changed = document.clone();
                    let fields = changed.pointer_mut(place).and_then(Value::as_object_mut).unwrap();
                    if !fields.contains_key(name) {
                        fields.insert(name.clone(), value);
                        differences.extend(alike(&schema, &changed).err());
                        held += 1;
                    }
                }
            }
        }
    }
    all_alike(held, &differences);
}

/// `docs/schemas/workflow.json` is what servers give at `/schemas/workflow.json`.
#[test]
fn the_documentation_has_the_schema() {
    let path = repository().join("docs/schemas/workflow.json");
    let text = format!("{:#}\n", Definition::json_schema());
    if std::env::var_os("WEIR_UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/schemas/workflow.json differs: WEIR_UPDATE_SCHEMA=1 renews it"
    );
}
