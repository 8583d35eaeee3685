//! Each bound of what comes in from outside: at the bound it is taken, beyond it there is a clear refusal.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on must fail")]

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::SecretString;
use serde_json::{Value, json};
use weir_connector_sdk::{
    CallContext, Connector, InboundRequest, KeyDocuments, Registration, Unverified, Verifier, parse_yaml,
};

const MANIFEST: &str = r#"
connector: limits
version: 1.0.0
hosts: ["https://limits.test"]
auth: { none: {} }
webhook:
  verify: { hmac: { alg: sha256, sig: header:X-Sig, encoding: hex, parts: [body] } }
  split: /events
  identify: { id: /id, type: /type }
"#;

/// How many events a body holds, or the reason why it is refused.
fn identified(body: &Value) -> Result<usize, String> {
    let connector = Connector::parse(MANIFEST, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let (registration, bytes) = (Registration::new(), body.to_string());
    let request = InboundRequest {
        method: "POST",
        url: "https://hooks.test/",
        headers: &[],
        body: bytes.as_bytes(),
        registration: &registration,
        client_ip: None,
    };
    let found = connector.webhook().unwrap().identify(&request, body);
    found.map(|events| events.len()).map_err(|error| error.to_string())
}

#[test]
fn a_request_holds_so_many_events_with_types_of_such_length() {
    let events = |count: usize, kind: &str| {
        let event = |n: usize| json!({ "id": n.to_string(), "type": kind });
        json!({ "events": (0..count).map(event).collect::<Vec<_>>() })
    };
    // MAX_EVENTS_PER_REQUEST
    assert_eq!(identified(&events(4_096, "t")), Ok(4_096));
    let refused = identified(&events(4_097, "t")).unwrap_err();
    assert!(refused.contains("more than 4096"), "{refused}");
    // MAX_TEXT_BYTES
    assert_eq!(identified(&events(1, &"t".repeat(512))), Ok(1));
    let refused = identified(&events(1, &"t".repeat(513))).unwrap_err();
    assert!(refused.contains("too long"), "{refused}");
}

#[test]
fn an_event_type_has_so_many_reads() {
    let problems = |reads: usize| {
        let reads: Vec<String> = (0..reads).map(|n| format!("r{n}: {{ call: things.get }}")).collect();
        let events = format!(
            "operations:\n  things.get: {{ get: /things }}\nevents:\n  t: {{ hydrate_default: always, reads: {{ {} }} }}\n",
            reads.join(", ")
        );
        let parsed = Connector::parse(&format!("{MANIFEST}{events}"), &|_| None);
        parsed
            .err()
            .unwrap_or_default()
            .iter()
            .map(|problem| problem.code)
            .collect::<Vec<_>>()
    };
    assert_eq!(problems(16), [""; 0]);
    assert_eq!(problems(17), ["too_many"]);
}

#[test]
fn yaml_stops_at_its_bounds() {
    // MAX_YAML_BYTES
    let of = |bytes: usize| format!("a: {}", "x".repeat(bytes - 3));
    assert!(parse_yaml(&of(4 << 20)).is_ok());
    let refused = parse_yaml(&of((4 << 20) + 1)).unwrap_err();
    assert!(refused.message.contains("more than 4194304"), "{}", refused.message);
    // MAX_YAML_DEPTH
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    parse_yaml(&deep(48)).unwrap();
    assert!(parse_yaml(&deep(49)).is_err());
    // MAX_ALIASES
    let aliases = |count: usize| {
        let pairs: Vec<String> = (0..count).map(|n| format!("&a{n} x, *a{n}")).collect();
        format!("[{}]", pairs.join(", "))
    };
    parse_yaml(&aliases(1_000)).unwrap();
    assert!(parse_yaml(&aliases(1_001)).is_err());
}

#[test]
fn signatures_are_looked_for_within_bounds() {
    let secrets = [SecretString::from("a secret")];
    let verdict = |verifier: &Verifier, headers: &[(String, String)], body: &str| {
        let registration = Registration::new();
        let request = InboundRequest {
            method: "POST",
            url: "https://hooks.test/",
            headers,
            body: body.as_bytes(),
            registration: &registration,
            client_ip: None,
        };
        match verifier.verify(&request, &secrets, &KeyDocuments::default(), 0) {
            Ok(()) => "accept",
            Err(Unverified::Refused(refusal)) => refusal.reason.as_str(),
            Err(Unverified::Wants(wanted)) => panic!("wants {}", wanted.url),
        }
    };
    let scheme = |scheme: Value| Verifier::compile(&scheme, "");
    // MAX_ENTRIES
    let listed = json!({ "hmac": { "alg": "sha256", "sig": "header:x-sig", "encoding": "hex", "parts": ["body"],
        "format": { "item": ",", "kv": "=", "name": "v1" } } });
    let listed = scheme(listed).unwrap();
    let registration = Registration::new();
    let request = InboundRequest {
        method: "POST",
        url: "https://hooks.test/",
        headers: &[],
        body: b"{}",
        registration: &registration,
        client_ip: None,
    };
    let (name, genuine) = listed.sign(&request, &secrets[0], 0).unwrap().remove(0);
    let after = |others: usize| {
        let wrong = format!("v1={},", "00".repeat(32));
        [(name.clone(), format!("{}{genuine}", wrong.repeat(others)))]
    };
    assert_eq!(verdict(&listed, &after(31), "{}"), "accept");
    assert_eq!(verdict(&listed, &after(32), "{}"), "bad_signature");
    // MAX_TOKENS
    let tokens = json!({ "jwt": { "token": "json:/tokens/*", "algs": ["HS256"], "keys": "secret", "max_age_s": 300 } });
    let tokens = scheme(tokens).unwrap();
    let token = |padding: usize| {
        let claims = json!({ "iat": 0, "padding": "p".repeat(padding) });
        jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &claims,
            &EncodingKey::from_secret(b"a secret"),
        )
        .unwrap()
    };
    let body = |count: usize, token: &str| json!({ "tokens": vec![token; count] }).to_string();
    assert_eq!(verdict(&tokens, &[], &body(32, &token(0))), "accept");
    assert_eq!(verdict(&tokens, &[], &body(33, &token(0))), "malformed_signature");
    // MAX_TOKEN_BYTES
    let longest = (12_000..).map(token).find(|token| token.len() >= 16_384).unwrap();
    assert_eq!(longest.len(), 16_384);
    assert_eq!(verdict(&tokens, &[], &body(1, &longest)), "accept");
    let longer = (12_000..).map(token).find(|token| token.len() > 16_384).unwrap();
    assert_eq!(verdict(&tokens, &[], &body(1, &longer)), "malformed_signature");
    // MAX_SUFFIXES
    let suffixes = |count: usize| {
        scheme(
            json!({ "hmac": { "alg": "sha256", "sig": "header:x-sig", "encoding": "hex", "parts": ["body"],
            "suffix_variants": (0..count).map(|number| format!("-{number}")).collect::<Vec<_>>() } }),
        )
    };
    suffixes(4).unwrap();
    assert_eq!(suffixes(5).unwrap_err()[0].code, "bad_value");
}

#[test]
fn expressions_of_a_manifest_stop_at_their_bounds() {
    let manifest = |expression: &str| {
        json!({
            "connector": "e", "version": "1.0.0", "hosts": ["https://e.test"], "auth": { "none": {} },
            "operations": { "x": { "post": "/x", "effect": "blind", "input": { "n": "required" },
                "body": { "made": format!("{{{{ {expression} }}}}") } } },
        })
        .to_string()
    };
    let made = |expression: &str, argument: Value| {
        let connector = Connector::parse(&manifest(expression), &|_| None).unwrap();
        let context = CallContext {
            config: &Value::Null,
            args: &json!({ "n": argument }),
            idempotency_key: None,
            page: None,
        };
        let request = connector.operation("x").unwrap().request(&context);
        request
            .map(|request| request.body.unwrap().len())
            .map_err(|error| error.message)
    };
    // MAX_OUTPUT_BYTES: of text, and around it stands `{"made":""}`.
    let twice = |bytes: usize| made("n ~ n", json!("x".repeat(bytes / 2)));
    assert_eq!(twice(1 << 20), Ok((1 << 20) + 11));
    let refused = twice((1 << 20) + 2).unwrap_err();
    assert!(refused.contains("more than 1048576 bytes"), "{refused}");
    // FUEL_PER_EVALUATION: 64 bytes of text that it makes cost as much as an instruction, of which there are few here.
    let works = |bytes: usize| made("(n ~ n) is string", json!("x".repeat(bytes / 2)));
    assert_eq!(works(64 * 49_990), Ok(r#"{"made":true}"#.len()));
    let refused = works(64 * 50_000).unwrap_err();
    assert!(refused.contains("fuel"), "{refused}");
}
