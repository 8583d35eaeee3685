//! Stored things as the documents that people write; also what diffs are made of. Secrets never appear.

use super::sweep::Intake;
use super::{Kind, ordered};
use crate::snapshot::Endpoint;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use weir_connector_sdk::{Registration, context_document};

pub(super) fn connection_document(name: &str, connector: &str, config: &Value) -> Value {
    let mut rest = BTreeMap::from([("connector", json!(connector))]);
    if config.as_object().is_some_and(|config| !config.is_empty()) {
        rest.insert("config", config.clone());
    }
    ordered(Kind::Connection, name, rest, &["connector", "config"])
}

pub(super) fn endpoint_document(endpoint: &Endpoint) -> Value {
    let allow: Vec<String> = endpoint.allow().iter().map(ToString::to_string).collect();
    endpoint_parts(
        endpoint.name(),
        endpoint.connector_reference(),
        endpoint.connection().map(|(_, name)| name),
        endpoint.verify_override(),
        endpoint.context(),
        &allow,
        endpoint.intake(),
    )
}

pub(super) fn endpoint_parts(
    name: &str,
    connector: &str,
    connection: Option<&str>,
    verify: Option<&Value>,
    context: &Registration,
    allow: &[String],
    intake: &Intake,
) -> Value {
    let mut rest = BTreeMap::from([("connector", json!(connector))]);
    if let Some(connection) = connection {
        rest.insert("connection", json!(connection));
    }
    if let Some(verify) = verify {
        rest.insert("verify", verify.clone());
    }
    if !context.is_empty() {
        rest.insert("context", context_document(context));
    }
    if !allow.is_empty() {
        rest.insert("allow", json!(allow));
    }
    let mut said = intake.parts();
    for key in ["receive", "poll", "since", "sweep", "register"] {
        if let Some(value) = said.remove(key) {
            rest.insert(key, value);
        }
    }
    ordered(
        Kind::Endpoint,
        name,
        rest,
        &[
            "connector",
            "connection",
            "verify",
            "context",
            "allow",
            "receive",
            "poll",
            "since",
            "sweep",
            "register",
        ],
    )
}

pub(super) fn workflow_document(definition: &Value) -> Value {
    let mut document = serde_json::Map::new();
    document.insert("kind".to_owned(), json!(Kind::Workflow.as_str()));
    if let Value::Object(definition) = definition {
        document.extend(
            definition
                .iter()
                .filter(|(key, _)| *key != "kind")
                .map(|(key, value)| (key.clone(), value.clone())),
        );
    }
    Value::Object(document)
}

/// The document as YAML, as people write it and `weir export` prints it: what a difference is shown of.
pub(super) fn pretty(value: &Value) -> String {
    let mut text = serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
