//! The list of built-in connectors in `docs/connectors.md` is made from their manifests.
//! `WEIR_UPDATE_CONNECTORS=1` renews it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise, helpers included")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use weir_connector_sdk::{AuthScheme, Connector, parse_yaml};
use weir_connectors::{Builtin, builtin};

const BEGIN: &str =
    "<!-- This list is made from the manifests: WEIR_UPDATE_CONNECTORS=1 cargo nextest run -p weir-connectors -->\n";
const END: &str = "<!-- End of the list. -->\n";

/// The schemes that a verification is made of; a signature by its algorithm.
fn schemes(verify: &Value) -> BTreeSet<String> {
    let Some(map) = verify.as_object() else {
        return verify
            .as_str()
            .map(|text| format!("by the {text}"))
            .into_iter()
            .collect();
    };
    let named = map.iter().filter(|(name, _)| *name != "when");
    named
        .flat_map(|(name, scheme)| match (name.as_str(), scheme) {
            ("any_of" | "all_of", Value::Array(list)) => list.iter().flat_map(schemes).collect(),
            ("hmac" | "digest", _) => BTreeSet::from([format!("{name} {}", scheme["alg"].as_str().unwrap())]),
            ("token", _) => BTreeSet::from([format!("token in {}", scheme["at"].as_str().unwrap())]),
            _ => BTreeSet::from([name.clone()]),
        })
        .collect()
}

/// The classes of effects that calls are of.
fn effects(effect: &Value, found: &mut BTreeSet<String>) {
    match effect {
        Value::String(word) if word != "read" => {
            found.insert(word.clone());
        }
        Value::Object(map) => {
            for (class, rule) in map {
                match rule {
                    Value::Array(choices) => choices.iter().for_each(|choice| effects(&choice["then"], found)),
                    _ => {
                        found.insert(class.clone());
                    }
                }
            }
        }
        _ => {}
    }
}

fn joined(words: &BTreeSet<String>) -> String {
    match words.is_empty() {
        true => "–".to_owned(),
        false => words.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
    }
}

fn row(builtin: &Builtin) -> String {
    let connector = Connector::parse(builtin.yaml, &|path| builtin.file(path).map(str::to_owned)).unwrap();
    let manifest = parse_yaml(builtin.yaml).unwrap().remove(0).value;
    let (proof, level) = match connector.webhook() {
        None => ("–".to_owned(), "–"),
        Some(webhook) => (
            joined(&schemes(&manifest["webhook"]["verify"])),
            webhook.recover().unwrap().level.as_str(),
        ),
    };
    let auth: BTreeSet<String> = connector
        .auth()
        .iter()
        .map(AuthScheme::as_str)
        .map(str::to_owned)
        .collect();
    let mut classes = BTreeSet::new();
    for operation in manifest["operations"].as_object().into_iter().flatten() {
        effects(&operation.1["effect"], &mut classes);
    }
    let types = connector.events().filter(|(name, _)| *name != "*").count();
    format!(
        "| `{}` | {proof} | {level} | {} | {} | {} | {} |\n",
        connector.name(),
        joined(&auth),
        if types == 0 {
            "–".to_owned()
        } else {
            types.to_string()
        },
        match connector.operations().count() {
            0 => "–".to_owned(),
            count => count.to_string(),
        },
        joined(&classes)
    )
}

#[test]
fn the_page_lists_every_connector() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/connectors.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the mark before the list");
    let (_, after) = rest.split_once(END).expect("the mark behind the list");
    let mut list = String::from(
        "| name | proof of webhooks | level | credentials | event types | calls | effects |\n|---|---|---|---|---|---|---|\n",
    );
    for builtin in builtin() {
        list.push_str(&row(builtin));
    }
    let mut made = String::new();
    write!(made, "{before}{BEGIN}\n{list}\n{END}{after}").unwrap();
    #[expect(clippy::disallowed_methods, reason = "a switch of the test, not of the product")]
    if std::env::var("WEIR_UPDATE_CONNECTORS").is_ok() {
        std::fs::write(&path, &made).unwrap();
        return;
    }
    assert!(
        page == made,
        "docs/connectors.md is not what the manifests say; renew it with WEIR_UPDATE_CONNECTORS=1"
    );
}
