//! What an endpoint states of its registration: declared by the connector, checked when the endpoint is made.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use serde_json::{Value, json};
use weir_connector_sdk::{
    Connector, MAX_CONTEXT_NAMES, MAX_CONTEXT_VALUE_BYTES, MAX_CONTEXT_VALUES, Problem, Registration, context_document,
    parse_context,
};

const MANIFEST: &str = r#"
connector: topics
version: 1.0.0
hosts: ["https://topics.test"]
auth: { none: {} }
webhook:
  context:
    topic: { required: true, description: "the topic's name, from its page" }
    audience: optional
  verify: { jwt: { token: bearer, algs: [RS256], keys: { jwks_url: "https://keys.test/jwks" }, audience: ctx:audience, claims: { topic: ctx:topic } } }
  identify: { type: /type }
"#;

fn words(problems: Vec<Problem>) -> Vec<String> {
    let words = |problem: Problem| {
        let suggestion = problem.suggestion.unwrap_or_default();
        format!(
            "{} {}: {} ({suggestion})",
            problem.pointer, problem.code, problem.message
        )
    };
    problems.into_iter().map(words).collect()
}

fn context(value: &Value) -> Registration {
    parse_context(value, "/context").unwrap()
}

#[test]
fn an_endpoint_states_what_the_connector_asks_for() {
    let connector = Connector::parse(MANIFEST, &|_| None).unwrap();
    let webhook = connector.webhook().unwrap();
    let fields: Vec<(&str, bool)> = webhook.context().map(|(name, field)| (name, field.required)).collect();
    assert_eq!(fields, [("topic", true), ("audience", false)]);
    let check = |given: &Value, own: Option<&Value>| words(webhook.check_context(&context(given), own));
    assert_eq!(
        check(&json!({ "topic": "t", "audience": ["a", "b"] }), None),
        Vec::<String>::new()
    );
    assert_eq!(
        check(&json!({ "topics": "t" }), None),
        [
            "/context/topic missing: `topic` is missing (the topic's name, from its page)",
            "/context/topics unknown_key: `topics` is not used by this endpoint (did you mean `topic`?)",
        ]
    );
    // A verification of the endpoint's own has needs of its own, and none of the connector's.
    let own =
        json!({ "hmac": { "alg": "sha256", "sig": "header:s", "encoding": "hex", "parts": ["ctx:hook", "body"] } });
    assert_eq!(check(&json!({ "hook": 7 }), Some(&own)), Vec::<String>::new());
    assert_eq!(
        check(&json!({}), Some(&own)),
        ["/context/hook missing: `hook` is missing (`verify` uses it as `ctx:hook`)"]
    );
}

#[test]
fn what_is_used_is_declared() {
    let refused = |manifest: &str| words(Connector::parse(manifest, &|_| None).unwrap_err());
    assert_eq!(
        refused(&MANIFEST.replace("    audience: optional\n", "")),
        ["/webhook/verify unknown_name: `ctx:audience` is used and not declared (context: { audience: required })"]
    );
    assert_eq!(
        refused(&MANIFEST.replace("audience: optional", "audience: sometimes")),
        [
            "/webhook/context/audience bad_value: a value of the context is required or optional (required, optional, or { \
             required, description })",
            "/webhook/verify unknown_name: `ctx:audience` is used and not declared (context: { audience: required })",
        ]
    );
}

#[test]
fn a_context_stops_at_its_bounds() {
    let code = |value: &Value| parse_context(value, "/context").unwrap_err().remove(0).code;
    let names = |count: usize| -> Value { (0..count).map(|n| (format!("n{n}"), json!("x"))).collect() };
    assert_eq!(context(&names(MAX_CONTEXT_NAMES)).len(), MAX_CONTEXT_NAMES);
    assert_eq!(code(&names(MAX_CONTEXT_NAMES + 1)), "too_many");
    let values = |count: usize| json!({ "a": vec!["x"; count] });
    assert_eq!(context(&values(MAX_CONTEXT_VALUES))["a"].len(), MAX_CONTEXT_VALUES);
    assert_eq!(code(&values(MAX_CONTEXT_VALUES + 1)), "too_many");
    assert_eq!(code(&values(0)), "too_many");
    let text = |bytes: usize| json!({ "a": "x".repeat(bytes) });
    assert_eq!(
        context(&text(MAX_CONTEXT_VALUE_BYTES))["a"][0].len(),
        MAX_CONTEXT_VALUE_BYTES
    );
    assert_eq!(code(&text(MAX_CONTEXT_VALUE_BYTES + 1)), "too_long");
    for wrong in [
        json!({ "a": "" }),
        json!({ "a": null }),
        json!({ "a": [{}] }),
        json!({ "a": -1 }),
    ] {
        assert_eq!(code(&wrong), "wrong_type", "{wrong}");
    }
    assert_eq!(code(&json!(["a"])), "bad_type");
    let document = json!({ "a": "x", "b": ["1", "y"] });
    assert_eq!(context_document(&context(&document)), document);
    assert_eq!(context_document(&context(&json!({ "n": 7 }))), json!({ "n": "7" }));
}
