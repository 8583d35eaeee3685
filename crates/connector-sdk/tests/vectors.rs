//! Every published request vector gives the expected verdict, with each scheme written as manifest data.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde_json::{Value, json};
use weir_connector_sdk::testing::{Selection, run_vectors, vector_providers};
use weir_connector_sdk::{Connector, InboundRequest, KeyDocuments, Registration, Unverified, Verifier, parse_yaml};

const VECTORS: &str = include_str!("data/webhook-vectors.json");
const SCHEMES: &str = include_str!("data/schemes.yaml");

fn schemes() -> Value {
    parse_yaml(SCHEMES).unwrap().remove(0).value
}

/// A connector with the provider's proof and handshakes.
fn connector(provider: &str) -> Connector {
    let schemes = schemes();
    let mut manifest = json!({
        "connector": provider, "version": "1.0.0", "hosts": ["https://api.test"], "auth": { "none": {} },
        "webhook": { "identify": { "type": "/type" }, "verify": schemes["schemes"][provider] },
    });
    if let Some(handshakes) = schemes["handshakes"].get(provider) {
        manifest["webhook"]["handshake"] = handshakes.clone();
    }
    let names = [
        "allowed_topic_arns",
        "issuers",
        "audience",
        "email",
        "allowed_origins",
        "allowed_rate",
    ];
    manifest["webhook"]["context"] = names
        .iter()
        .map(|name| ((*name).to_owned(), json!("optional")))
        .collect();
    // JSON is YAML.
    Connector::parse(&manifest.to_string(), &|_| None).unwrap_or_else(|problems| panic!("{provider}: {problems:#?}"))
}

#[test]
fn every_vector_gives_its_verdict() {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let count = |key: &str| file[key].as_array().unwrap().len();
    let mut ran = 0;
    let mut wrong = Vec::new();
    for provider in vector_providers(VECTORS).unwrap() {
        let provider = provider.unwrap();
        let outcomes = run_vectors(&connector(&provider), VECTORS, Selection::Of(&provider)).unwrap();
        ran += outcomes.len();
        wrong.extend(outcomes.into_iter().filter(|outcome| outcome.failure.is_some()));
    }
    assert_eq!(wrong, Vec::new());
    assert_eq!((count("vectors"), count("handshakes")), (205, 8));
    assert_eq!(ran, 213, "every vector and every handshake ran");
}

/// What a vector that does not hold would say, so that the green line above means something.
#[test]
fn a_vector_with_another_verdict_is_told() {
    let file = json!({ "format": 1, "now_unix_default": 1_767_225_600, "vectors": [
        { "id": "x", "provider": "telegram", "method": "POST", "url": "https://h.test/", "headers": [], "secrets": ["s"], "expect": "accept" },
        { "id": "y", "provider": "telegram", "method": "POST", "url": "https://h.test/", "headers": [], "secrets": ["s"], "expect": "reject", "expect_reason": "bad_signature" },
    ] });
    let outcomes = run_vectors(&connector("telegram"), &file.to_string(), Selection::All).unwrap();
    let found = "reject missing_signature: the header x-telegram-bot-api-secret-token is absent";
    assert_eq!(
        outcomes
            .iter()
            .map(|outcome| (outcome.found.as_str(), outcome.failure.as_deref()))
            .collect::<Vec<_>>(),
        [
            (found, Some("expected accept")),
            (found, Some("expected reject bad_signature"))
        ]
    );
    let problems = run_vectors(
        &connector("telegram"),
        r#"{ "format": 1, "vectors": [{ "id": "x", "expects": 1 }] }"#,
        Selection::All,
    )
    .unwrap_err();
    assert_eq!(problems[0].pointer, "/vectors/0/expects");
    assert_eq!(problems[0].suggestion.as_deref(), Some("did you mean `expect`?"));
}

#[test]
fn a_verification_may_ask_for_eight_documents() {
    let check = |lists: usize, wanted: &str| {
        let url = |number: usize| format!("https://lists.test/{number}");
        let list = |number| json!({ "ip": { "url": url(number), "at": ["/p/*"] } });
        let mut checks = vec![json!({ "token": { "at": "header:x-token" } })];
        checks.extend((0..lists).map(list));
        let manifest = json!({
            "connector": "c", "version": "1.0.0", "hosts": ["https://api.test"], "auth": { "none": {} },
            "webhook": { "identify": { "type": "/type" }, "verify": { "all_of": checks } },
        });
        let connector =
            Connector::parse(&manifest.to_string(), &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let documents: Value = (0..lists)
            .map(|number| (url(number), json!(r#"{ "p": ["10.0.0.0/8"] }"#)))
            .collect();
        let file = json!({ "format": 1, "now_unix_default": 1_767_225_600, "vectors": [{
            "id": "x", "method": "POST", "url": "https://h.test/", "headers": [["x-token", "s"]], "secrets": ["s"],
            "client_ip": "10.1.1.1", "keys": { "documents": documents }, "expect": "accept",
        }] });
        let outcomes = run_vectors(&connector, &file.to_string(), Selection::All).unwrap();
        assert!(outcomes[0].found.starts_with(wanted), "{lists}: {outcomes:?}");
    };
    check(8, "accept");
    check(9, "reject keys_unavailable");
}

#[test]
fn vectors_without_a_provider_can_be_chosen() {
    let file = json!({ "format": 1, "now_unix_default": 1_767_225_600, "vectors": [
        { "id": "a", "provider": "telegram", "method": "POST", "url": "https://h.test/", "headers": [], "expect": "reject" },
        { "id": "b", "method": "POST", "url": "https://h.test/", "headers": [], "expect": "reject" },
    ] });
    let file = file.to_string();
    assert_eq!(vector_providers(&file).unwrap(), [Some("telegram".to_owned()), None]);
    let ids = |selection| -> Vec<String> {
        let outcomes = run_vectors(&connector("telegram"), &file, selection).unwrap();
        outcomes.into_iter().map(|outcome| outcome.id).collect()
    };
    assert_eq!(ids(Selection::Of("telegram")), ["a"]);
    assert_eq!(ids(Selection::Nameless), ["b"]);
    assert_eq!(ids(Selection::All), ["a", "b"]);
}

struct Vector<'v> {
    value: &'v Value,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    secrets: Vec<SecretString>,
}

impl<'v> Vector<'v> {
    fn new(value: &'v Value) -> Self {
        let headers = value["headers"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let secrets = value["secrets"].as_array().unwrap().iter();
        Self {
            value,
            headers: headers.map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
            body: STANDARD.decode(value["body_base64"].as_str().unwrap()).unwrap(),
            secrets: secrets.map(|secret| SecretString::from(text(secret))).collect(),
        }
    }

    fn verdict(&self, verifier: &Verifier) -> String {
        let registration = Registration::new();
        let request = InboundRequest {
            method: self.value["method"].as_str().unwrap(),
            url: self.value["url"].as_str().unwrap(),
            headers: &self.headers,
            body: &self.body,
            registration: &registration,
            client_ip: None,
        };
        let now_unix_ms = self.value["now_unix"].as_i64().unwrap() * 1_000;
        match verifier.verify(&request, &self.secrets, &KeyDocuments::default(), now_unix_ms) {
            Ok(()) => "accept".to_owned(),
            Err(Unverified::Refused(refusal)) => format!("reject {}", refusal.reason.as_str()),
            Err(Unverified::Wants(wanted)) => format!("wants {}", wanted.url),
        }
    }
}

#[test]
fn refusals_name_their_reason() {
    let check = |id: &str, reason: &str| {
        let provider = id.split('/').next().unwrap();
        let outcomes = run_vectors(&connector(provider), VECTORS, Selection::Of(provider)).unwrap();
        let outcome = outcomes.iter().find(|outcome| outcome.id == id).unwrap();
        assert!(
            outcome.found.starts_with(&format!("reject {reason}: ")),
            "{id}: {}",
            outcome.found
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
    check("discord/tampered_body", "bad_signature");
    check("sendgrid/crlf_stripped", "bad_signature");
    check("aws-sns/bad_cert_host", "url_not_allowed");
    check("aws-sns/cert_over_http", "url_not_allowed");
    check("aws-sns/unexpected_topic", "value_not_allowed");
    check("aws-sns/wrong_key", "bad_signature");
    check("google-pubsub/wrong_audience", "value_not_allowed");
    check("google-pubsub/wrong_issuer", "value_not_allowed");
    check("google-pubsub/email_not_verified", "value_not_allowed");
    check("google-pubsub/expired", "stale_timestamp");
    check("google-pubsub/missing_token", "missing_signature");
    check("google-pubsub/unknown_kid", "unknown_key");
    check("google-pubsub/alg_none", "algorithm_not_allowed");
    check("google-pubsub/alg_confusion_hs256", "algorithm_not_allowed");
    check("google-pubsub/truncated_signature", "bad_signature");
    check("asana/x_hook_secret_unexpected", "unexpected_secret");
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
