//! Runs the recorded cases of every built-in connector, and sees that each has the cases it needs.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise, helpers included")]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use weir_connector_sdk::testing::{Selection, run_cases, run_vectors};
use weir_connector_sdk::{Connector, InboundRequest, KeyDocuments, Registration, Verifier};
use weir_connectors::{Builtin, builtin, find};

fn connector(builtin: &Builtin) -> Connector {
    Connector::parse(builtin.yaml, &|path| builtin.file(path).map(str::to_owned)).expect("checked by the other tests")
}

/// Runs all case files of a connector; gives the names of the cases.
fn run(builtin: &Builtin, failures: &mut Vec<String>) -> Vec<String> {
    let connector = connector(builtin);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases").join(builtin.name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut names = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let place = format!("{}/{}", builtin.name, file.file_name().unwrap().to_string_lossy());
        match run_cases(&connector, &text, &|path| builtin.file(path).map(str::to_owned)) {
            Ok(outcomes) => {
                for outcome in outcomes {
                    if let Some(failure) = outcome.failure {
                        failures.push(format!(
                            "{place}:{} {}: {failure}",
                            outcome.line.unwrap_or_default(),
                            outcome.name
                        ));
                    }
                    names.push(outcome.name);
                }
            }
            Err(problems) => failures.extend(problems.iter().map(|problem| format!("{place}: {problem}"))),
        }
    }
    names
}

#[test]
fn every_case_holds_and_none_is_missing() {
    let mut failures = Vec::new();
    for builtin in builtin() {
        let names = run(builtin, &mut failures);
        let connector = connector(builtin);
        let mut needed = Vec::new();
        if connector.operations().next().is_some() {
            needed.extend(["success", "retryable", "permanent"]);
        }
        if connector.webhook().is_some() {
            needed.push("verify-forged");
            // `generic` has no scheme of its own; what rests on keys of the provider is accepted in the vectors below.
            let accepted_elsewhere = ["aws-sns", "generic", "google-pubsub", "paypal"];
            needed.extend((!accepted_elsewhere.contains(&builtin.name)).then_some("verify-ok"));
        }
        for kind in needed {
            if !names.iter().any(|name| name.starts_with(&format!("{kind}:"))) {
                failures.push(format!("{}: no case of kind {kind}", builtin.name));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn generic_takes_the_endpoints_scheme() {
    let generic = connector(find("generic").unwrap());
    let webhook = generic.webhook().unwrap();
    let schemes: [(Value, &str); 3] = [
        (
            json!({ "hmac": { "alg": "sha256", "sig": "header:X-Signature", "encoding": "hex", "parts": ["body"] } }),
            "secret-1",
        ),
        (
            json!({ "token": { "at": "header:Authorization", "prefix": "Bearer " } }),
            "secret-2",
        ),
        (json!({ "basic": {} }), "user:secret-3"),
    ];
    let registration = Registration::new();
    for (scheme, secret) in schemes {
        let verifier = Verifier::compile(&scheme, "/verify").unwrap();
        let body = br#"{"event_id":"e1","event":"order.paid","created_at":"2026-01-01T00:00:00Z"}"#;
        let draft = InboundRequest {
            method: "POST",
            url: "https://hooks.example.test/hooks/ep_1",
            headers: &[],
            body,
            registration: &registration,
            client_ip: None,
        };
        let headers = verifier.sign(&draft, &secret.into(), 0).unwrap();
        let request = InboundRequest {
            headers: &headers,
            ..draft
        };
        verifier
            .verify(&request, &[secret.into()], &KeyDocuments::default(), 0)
            .unwrap();
        assert!(
            verifier
                .verify(&request, &["other:wrong".into()], &KeyDocuments::default(), 0)
                .is_err(),
            "{scheme}"
        );
        assert!(
            webhook
                .verify(&request, &[secret.into()], &KeyDocuments::default(), 0)
                .is_err(),
            "the default accepts nothing: {scheme}"
        );
        let events = webhook
            .identify(&request, &serde_json::from_slice(body).unwrap())
            .unwrap();
        assert_eq!((events[0].id.as_str(), events[0].kind.as_str()), ("e1", "order.paid"));
        assert_eq!(events[0].time_unix_ms, Some(1_767_225_600_000));
    }
}

/// The providers of published request vectors, and the built-in connector that receives from each.
const VECTORS_OF: [(&str, &str); 13] = [
    ("aws-sns", "aws-sns"),
    ("calendly", "calendly"),
    ("cloudevents", "cloudevents"),
    ("github", "github"),
    ("google-pubsub", "google-pubsub"),
    ("hubspot-v3", "hubspot"),
    ("intercom", "intercom"),
    ("pipedrive", "pipedrive"),
    ("slack", "slack"),
    ("standard-webhooks", "standard-webhooks"),
    ("stripe", "stripe"),
    ("twilio", "twilio"),
    ("zendesk", "zendesk"),
];

/// Every published vector of a provider gives its verdict with the manifest as it is shipped.
#[test]
fn published_vectors_give_their_verdicts() {
    let published = include_str!("../../connector-sdk/tests/data/webhook-vectors.json");
    // The file has a name of its own for what the connector calls by the provider's word.
    let published = published.replace("allowed_topic_arns", "topic_arn");
    let own = [("paypal", "paypal")];
    for (provider, name) in VECTORS_OF.into_iter().chain(own) {
        let text = if own.contains(&(provider, name)) {
            include_str!("../vectors/paypal.json")
        } else {
            published.as_str()
        };
        let connector = connector(find(name).unwrap());
        let outcomes = run_vectors(&connector, text, Selection::Of(provider)).unwrap();
        assert!(!outcomes.is_empty(), "{provider}");
        let wrong: Vec<_> = outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
        assert!(wrong.is_empty(), "{provider}: {wrong:#?}");
    }
}
