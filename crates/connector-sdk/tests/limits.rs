//! Each bound of what comes in from outside: at the bound it is taken, beyond it there is a clear refusal.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on must fail")]

use serde_json::{Value, json};
use weir_connector_sdk::{Connector, InboundRequest, Registration, parse_yaml};

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
