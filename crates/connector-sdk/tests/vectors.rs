//! Every published request vector gives the expected verdict, with each scheme written as manifest data.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde_json::Value;
use weir_connector_sdk::{Connector, InboundRequest, Verifier, parse_yaml};

const VECTORS: &str = include_str!("data/webhook-vectors.json");
const SCHEMES: &str = include_str!("data/schemes.yaml");

struct Vector<'v> {
    value: &'v Value,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    secrets: Vec<SecretString>,
}

impl<'v> Vector<'v> {
    fn new(value: &'v Value) -> Self {
        let headers = value["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| {
                (
                    pair[0].as_str().unwrap().to_owned(),
                    pair[1].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        let secrets = value["secrets"].as_array().unwrap().iter().map(|secret| match secret {
            Value::String(text) => SecretString::from(text.as_str()),
            pair => SecretString::from(format!(
                "{}:{}",
                pair["username"].as_str().unwrap(),
                pair["password"].as_str().unwrap()
            )),
        });
        Self {
            value,
            headers,
            body: STANDARD.decode(value["body_base64"].as_str().unwrap()).unwrap(),
            secrets: secrets.collect(),
        }
    }

    fn verdict(&self, verifier: &Verifier) -> String {
        let context = BTreeMap::new();
        let request = InboundRequest {
            method: self.value["method"].as_str().unwrap(),
            url: self.value["url"].as_str().unwrap(),
            headers: &self.headers,
            body: &self.body,
            context: &context,
            client_ip: None,
        };
        match verifier.verify(
            &request,
            &self.secrets,
            self.value["now_unix"].as_i64().unwrap() * 1_000,
        ) {
            Ok(()) => "accept".to_owned(),
            Err(refusal) => format!("reject {}", refusal.reason.as_str()),
        }
    }
}

fn schemes() -> Value {
    parse_yaml(SCHEMES).unwrap().remove(0).value
}

#[test]
fn every_vector_gives_its_verdict() {
    let schemes = schemes();
    let verifiers: BTreeMap<&str, Verifier> = schemes["schemes"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(provider, scheme)| (provider.as_str(), Verifier::compile(scheme, "").unwrap()))
        .collect();
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let mut ran = 0;
    let mut wrong = Vec::new();
    let mut left_out = BTreeSet::new();
    for vector in file["vectors"].as_array().unwrap() {
        let provider = vector["provider"].as_str().unwrap();
        let Some(verifier) = verifiers.get(provider) else {
            left_out.insert(provider);
            continue;
        };
        ran += 1;
        let verdict = Vector::new(vector).verdict(verifier);
        if verdict.split(' ').next() != vector["expect"].as_str() {
            wrong.push(format!(
                "{}: expected {}, got {verdict} ({})",
                vector["id"], vector["expect"], vector["why"]
            ));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    // Nothing is left out by accident: each missing provider names the primitive it needs.
    assert_eq!(
        left_out,
        schemes["out"].as_object().unwrap().keys().map(String::as_str).collect()
    );
    assert_eq!(ran, 169);
}

/// Slack's signed challenge; the other handshakes of the file need primitives that are refused by name.
#[test]
fn the_slack_handshake_verifies_and_is_echoed() {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let vector = &file["handshakes"][0];
    assert_eq!(vector["id"], "slack/url_verification");
    let mut manifest = serde_json::json!({
        "connector": "chat", "version": "1.0.0", "hosts": ["https://chat.test"], "auth": { "none": {} },
        "webhook": {
            "identify": { "type": "/type" },
            "handshake": { "echo": { "when": { "body": "/type", "equals": "url_verification" }, "read": "json:/challenge", "write": "text", "signed": true } },
        },
    });
    manifest["webhook"]["verify"] = schemes()["schemes"]["slack"].clone();
    // JSON is YAML.
    let connector = Connector::parse(&manifest.to_string(), &|_| None).unwrap();
    let webhook = connector.webhook().unwrap();
    let vector = Vector::new(vector);
    assert_eq!(vector.verdict(webhook.verifier().unwrap()), "accept");
    let body: Value = serde_json::from_slice(&vector.body).unwrap();
    let context = BTreeMap::new();
    let request = InboundRequest {
        method: "POST",
        url: "https://hooks.example.test/in/slack",
        headers: &vector.headers,
        body: &vector.body,
        context: &context,
        client_ip: None,
    };
    let reply = webhook.handshake(&request, Some(&body)).unwrap();
    assert_eq!((reply.status, reply.after_verify), (200, true));
    let expected = vector.value["expect_response"]["body_contains"].as_str().unwrap();
    assert_eq!(String::from_utf8(reply.body).unwrap(), expected);
}

#[test]
fn refusals_name_their_reason() {
    let schemes = schemes();
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let check = |id: &str, reason: &str| {
        let vector = file["vectors"]
            .as_array()
            .unwrap()
            .iter()
            .find(|vector| vector["id"] == id)
            .unwrap();
        let verifier = Verifier::compile(&schemes["schemes"][vector["provider"].as_str().unwrap()], "").unwrap();
        assert_eq!(
            Vector::new(vector).verdict(&verifier),
            format!("reject {reason}"),
            "{id}"
        );
    };
    check("stripe/missing_signature", "missing_signature");
    check("stripe/tampered_body", "bad_signature");
    check("stripe/stale_timestamp", "stale_timestamp");
    check("stripe/only_v0_scheme", "malformed_signature");
    check("stripe/no_timestamp", "malformed_timestamp");
    check("stripe/duplicate_signature_header", "duplicated_header");
    check("standard-webhooks/future_timestamp", "future_timestamp");
    check("standard-webhooks/missing_id", "missing_part");
    check("hubspot-v3/missing_signature", "no_scheme_applies");
    check("mailgun/missing_signature_object", "missing_signature");
    check("pipedrive/bearer_instead", "malformed_signature");
}

#[test]
fn what_is_left_out_is_refused_by_name() {
    for (provider, primitive) in schemes()["out"].as_object().unwrap() {
        let primitive = primitive.as_str().unwrap();
        let problems = Verifier::compile(&serde_json::json!({ primitive: {} }), "/webhook/verify").unwrap_err();
        assert_eq!(problems[0].code, "not_supported", "{provider}");
        assert_eq!(problems[0].pointer, format!("/webhook/verify/{primitive}"));
    }
}

/// Any single changed byte of the signed body, and any changed character of the signature, is refused.
#[test]
fn no_flipped_byte_is_accepted() {
    let schemes = schemes();
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    for (provider, header) in [
        ("stripe", "stripe-signature"),
        ("github", "x-hub-signature-256"),
        ("slack", "x-slack-signature"),
        ("hubspot-v3", "x-hubspot-signature-v3"),
        ("standard-webhooks", "webhook-signature"),
    ] {
        let verifier = Verifier::compile(&schemes["schemes"][provider], "").unwrap();
        let vector = file["vectors"]
            .as_array()
            .unwrap()
            .iter()
            .find(|vector| vector["id"] == format!("{provider}/valid"))
            .unwrap();
        let mut vector = Vector::new(vector);
        assert_eq!(vector.verdict(&verifier), "accept", "{provider}");
        for index in 0..vector.body.len() {
            for mask in [1, 0x20, 0x80] {
                vector.body[index] ^= mask;
                assert_ne!(
                    vector.verdict(&verifier),
                    "accept",
                    "{provider}: body byte {index} ^ {mask}"
                );
                vector.body[index] ^= mask;
            }
        }
        let place = vector.headers.iter().position(|(name, _)| name == header).unwrap();
        let good = vector.headers[place].1.clone();
        for index in 0..good.len() {
            for replacement in ['0', 'f', 'A', '/'] {
                let bad: String = good
                    .chars()
                    .enumerate()
                    .map(|(at, character)| if at == index { replacement } else { character })
                    .collect();
                // Hexadecimal digits may be written in either case; that is the same signature.
                if bad.eq_ignore_ascii_case(&good) && provider != "standard-webhooks" && provider != "hubspot-v3" {
                    continue;
                }
                if bad == good {
                    continue;
                }
                vector.headers[place].1 = bad;
                assert_ne!(
                    vector.verdict(&verifier),
                    "accept",
                    "{provider}: signature character {index} = {replacement}"
                );
            }
        }
    }
}
