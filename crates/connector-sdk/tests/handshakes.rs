//! Handshakes: what is answered, what is handed to the host, and what a stranger cannot get.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use weir_connector_sdk::{Connector, Errand, InboundRequest, Registration, Standing, Verifier};

fn connector(handshake: &Value) -> Connector {
    let manifest = json!({
        "connector": "c", "version": "1.0.0", "hosts": ["https://api.test"], "auth": { "none": {} },
        "webhook": {
            "verify": { "hmac": { "alg": "sha256", "sig": "header:s", "encoding": "hex", "parts": ["body"] } },
            "identify": { "type": "/type" },
            "context": { "origins": "optional" },
            "handshake": handshake,
        },
    });
    Connector::parse(&manifest.to_string(), &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

const SECRET: &str = r#"{"app":"app-secret","word":"agreed"}"#;

struct Case<'a> {
    method: &'a str,
    query: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: Value,
    awaits_secret: bool,
    verified: bool,
}

const CASE: Case<'_> = Case {
    method: "POST",
    query: "",
    headers: &[],
    body: Value::Null,
    awaits_secret: false,
    verified: false,
};

/// Status, headers and body in one line; the errand; or the reason of the refusal.
fn answer(connector: &Connector, case: &Case<'_>) -> String {
    let headers: Vec<(String, String)> = case
        .headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let registration = Registration::from([
        ("origins".to_owned(), vec!["a.test".to_owned(), "b.test".to_owned()]),
        ("public_key".to_owned(), vec!["pk".to_owned()]),
    ]);
    let url = format!("https://hooks.test/in{}", case.query);
    let body = case.body.to_string();
    let request = InboundRequest {
        method: case.method,
        url: &url,
        headers: &headers,
        body: body.as_bytes(),
        registration: &registration,
        client_ip: None,
    };
    let secrets = [SecretString::from(SECRET)];
    let standing = Standing {
        secrets: &secrets,
        awaits_secret: case.awaits_secret,
    };
    let webhook = connector.webhook().unwrap();
    let answer = match case.verified {
        true => webhook.handshake(&request, &case.body, &standing),
        false => webhook.unsigned_handshake(&request, &standing),
    };
    match answer {
        Err(refusal) => refusal.reason.as_str().to_owned(),
        Ok(None) => "none".to_owned(),
        Ok(Some(answer)) => {
            let errand = match answer.errand {
                None => String::new(),
                Some(Errand::StoreSecret(secret)) => format!(" store {}", secret.expose_secret()),
                Some(Errand::ConfirmGet(url)) => format!(" get {url}"),
            };
            let sent = answer.reply.headers.iter().filter(|(name, _)| name.contains("hook"));
            let headers: String = sent.map(|(name, value)| format!(" {name}={value}")).collect();
            let body = String::from_utf8(answer.reply.body).unwrap();
            format!("{}{headers} {body}{errand}", answer.reply.status)
        }
    }
}

#[test]
fn a_challenge_is_answered_only_with_the_agreed_word() {
    let meta = connector(&json!({ "echo": {
        "when": { "query": "hub.mode", "equals": "subscribe" }, "read": "query:hub.challenge", "write": "text",
        "require_token": { "at": "query:hub.verify_token", "key": ["field:word"] }, "signed": false,
    } }));
    let check = |query: &str, wanted: &str| {
        assert_eq!(
            answer(
                &meta,
                &Case {
                    method: "GET",
                    query,
                    ..CASE
                }
            ),
            wanted
        )
    };
    check("?hub.mode=subscribe&hub.challenge=42&hub.verify_token=agreed", "200 42");
    check(
        "?hub.mode=subscribe&hub.challenge=42&hub.verify_token=guess",
        "bad_signature",
    );
    check(
        "?hub.mode=subscribe&hub.challenge=42&hub.verify_token=app-secret",
        "bad_signature",
    );
    check("?hub.mode=subscribe&hub.challenge=42", "missing_signature");
    check("?hub.challenge=42&hub.verify_token=agreed", "none");
}

/// Whoever could have any text signed could have a forged event signed.
#[test]
fn an_unsigned_challenge_is_no_oracle() {
    let twitter = connector(&json!({ "hmac_reply": {
        "when": { "method": "GET" }, "read": "query:crc_token", "alg": "sha256", "encoding": "base64", "key": ["field:app"],
        "prefix": "sha256=", "write": "json:response_token", "signed": false,
    } }));
    let check = |query: &str, wanted: &str| {
        assert_eq!(
            answer(
                &twitter,
                &Case {
                    method: "GET",
                    query,
                    ..CASE
                }
            ),
            wanted
        )
    };
    // echo -n 'abc_1-==' | openssl dgst -sha256 -hmac app-secret -binary | base64
    check(
        "?crc_token=abc_1-%3D%3D",
        "200 {\"response_token\":\"sha256=TuQ5uqWNdjXLCfWkcCpeqbD7dr8wQhYZkrHGpR+1uzA=\"}",
    );
    check("?crc_token=%7B%22type%22%3A%22paid%22%7D", "malformed_body");
    check("?crc_token=type%3Dpaid", "malformed_body");
    check("?crc_token=v0%3A1767225600%3Ax", "malformed_body");
    check(&format!("?crc_token={}", "a".repeat(257)), "malformed_body");
    check("?crc_token=", "malformed_body");
    check("", "none");
    let braintree = connector(&json!({ "hmac_reply": {
        "when": { "query": "bt_challenge" }, "read": "query:bt_challenge", "alg": "sha1", "encoding": "hex", "key": ["field:app", "sha1"],
        "write": { "text": "{{ context.public_key }}|{{ hmac }}" }, "signed": false,
    } }));
    let case = Case {
        method: "GET",
        query: "?bt_challenge=00112233445566778899aabbccddeeff",
        ..CASE
    };
    assert_eq!(
        answer(&braintree, &case),
        "200 pk|c74dd2958d446b628f8450021d8c779ef07dec33"
    );
}

#[test]
fn a_reply_without_a_value_of_the_endpoint_is_a_refusal() {
    let check = |write: Value, wanted: &str| {
        let echo =
            json!({ "echo": { "when": { "method": "GET" }, "read": "query:c", "write": write, "signed": false } });
        let case = Case {
            method: "GET",
            query: "?c=1",
            ..CASE
        };
        assert_eq!(answer(&connector(&echo), &case), wanted);
    };
    check(json!({ "text": "{{ context.nothing }}" }), "missing_context");
    check(
        json!({ "text": "{{ context.nothing }}|{{ challenge }}" }),
        "missing_context",
    );
    check(json!({ "json": { "a": "{{ context.nothing }}" } }), "missing_context");
    check(json!({ "text": "{{ context.origins }}" }), "missing_context");
    check(
        json!({ "json": { "a": "{{ context.origins }}", "c": "{{ challenge }}" } }),
        r#"200 {"a":["a.test","b.test"],"c":"1"}"#,
    );
}

#[test]
fn a_secret_is_taken_only_while_one_is_awaited() {
    let asana = connector(
        &json!({ "store_secret": { "read": "header:X-Hook-Secret", "write": "header:X-Hook-Secret", "status": 204 } }),
    );
    let secret = "b537207f20cbfa02357cf448134da559";
    let check = |headers: &[(&str, &str)], awaits_secret: bool, wanted: &str| {
        assert_eq!(
            answer(
                &asana,
                &Case {
                    headers,
                    awaits_secret,
                    ..CASE
                }
            ),
            wanted
        );
    };
    check(
        &[("x-hook-secret", secret)],
        true,
        &format!("204 x-hook-secret={secret}  store {secret}"),
    );
    check(&[("x-hook-secret", secret)], false, "unexpected_secret");
    check(&[("x-hook-secret", "short")], true, "unexpected_secret");
    check(
        &[("x-hook-secret", "with spaces in it, so it is none")],
        true,
        "unexpected_secret",
    );
    check(
        &[("x-hook-secret", secret), ("x-hook-secret", secret)],
        true,
        "duplicated_header",
    );
    check(&[], true, "none");
    let webhook = asana.webhook().unwrap();
    assert!(webhook.stores_secret());
    assert_eq!(webhook.handshake_secret_names().headers, ["x-hook-secret"]);
    let notion = connector(&json!({ "store_secret": { "read": "json:/verification_token" } }));
    let body = json!({ "verification_token": "secret_0123456789abcdef" });
    let case = Case {
        body,
        awaits_secret: true,
        ..CASE
    };
    assert_eq!(answer(&notion, &case), "200  store secret_0123456789abcdef");
    let webhook = notion.webhook().unwrap();
    assert!(webhook.brings_secret(case.body.to_string().as_bytes()));
    assert!(!webhook.brings_secret(b"{}") && !webhook.brings_secret(b"verification_token"));
    // The provider did not hear the answer and sends the same once more.
    let body = json!({ "verification_token": SECRET });
    assert_eq!(answer(&notion, &Case { body, ..CASE }), "200 ");
}

#[test]
fn handshakes_stop_at_their_bounds() {
    // MAX_CHALLENGE_BYTES
    let echo = connector(&json!({ "echo": {
        "when": { "method": "GET" }, "read": "query:c", "write": "text", "signed": false,
    } }));
    let challenge = |connector: &Connector, bytes: usize| {
        let query = format!("?c={}", "a".repeat(bytes));
        let case = Case {
            method: "GET",
            query: &query,
            ..CASE
        };
        answer(connector, &case)
    };
    assert_eq!(challenge(&echo, 4_096), format!("200 {}", "a".repeat(4_096)));
    assert_eq!(challenge(&echo, 4_097), "none");
    // MAX_SIGNED_CHALLENGE_BYTES
    let signed = connector(&json!({ "hmac_reply": {
        "when": { "method": "GET" }, "read": "query:c", "alg": "sha256", "encoding": "hex", "key": ["field:app"],
        "write": "text", "signed": false,
    } }));
    assert!(challenge(&signed, 256).starts_with("200 "));
    assert_eq!(challenge(&signed, 257), "malformed_body");
    // MAX_STORED_SECRET_BYTES
    let store = connector(&json!({ "store_secret": { "read": "json:/secret" } }));
    let secret = |bytes: usize| {
        let case = Case {
            body: json!({ "secret": "s".repeat(bytes) }),
            awaits_secret: true,
            ..CASE
        };
        answer(&store, &case)
    };
    assert_eq!(secret(1_024), format!("200  store {}", "s".repeat(1_024)));
    assert_eq!(secret(1_025), "unexpected_secret");
    // MAX_URL_BYTES
    let confirm = connector(&json!({ "confirm_get": {
        "when": { "method": "POST" }, "read": "json:/url", "https_host_allow": ["confirm.test"],
    } }));
    let confirmed = |bytes: usize| {
        let head = "https://confirm.test/?token=";
        let url = format!("{head}{}", "t".repeat(bytes - head.len()));
        let case = Case {
            body: json!({ "url": url }),
            verified: true,
            ..CASE
        };
        (answer(&confirm, &case), url)
    };
    let (answered, url) = confirmed(2_048);
    assert_eq!(answered, format!("200  get {url}"));
    assert_eq!(confirmed(2_049).0, "url_not_allowed");
}

/// A verification of the endpoint's own was written for a secret of its own, and what needs none awaits none.
#[test]
fn a_provider_sends_the_secret_of_its_own_verification() {
    let compile = |scheme: Value| Verifier::compile(&scheme, "").unwrap();
    let own = compile(json!({ "token": { "at": "header:x-token" } }));
    let open = compile(json!({ "jwt": {
        "token": "bearer", "algs": ["EdDSA"], "keys": { "jwks_url": "https://keys.test/" }, "audience": "me",
    } }));
    let manifest = |verify: Value| {
        let manifest = json!({
            "connector": "c", "version": "1.0.0", "hosts": ["https://api.test"], "auth": { "none": {} },
            "webhook": {
                "verify": verify, "identify": { "type": "/type" },
                "handshake": { "store_secret": { "read": "header:x-hook-secret" } },
            },
        });
        Connector::parse(&manifest.to_string(), &|_| None).unwrap()
    };
    let fixed = manifest(json!({ "basic": {} }));
    let fixed = fixed.webhook().unwrap();
    assert!(fixed.sends_secret_for(None) && !fixed.sends_secret_for(Some(&own)));
    let left = manifest(json!("endpoint"));
    let left = left.webhook().unwrap();
    assert!(left.sends_secret_for(Some(&own)) && !left.sends_secret_for(Some(&open)) && !left.sends_secret_for(None));
    assert!(!connector(&json!([])).webhook().unwrap().sends_secret_for(None));
}

#[test]
fn a_confirmation_calls_permitted_hosts_only() {
    let sns = connector(&json!({ "confirm_get": {
        "when": { "body": "/Type", "equals": "SubscriptionConfirmation" }, "read": "json:/SubscribeURL", "https_host_allow": ["sns.*.amazonaws.com"],
    } }));
    let check = |url: Value, verified: bool, wanted: &str| {
        let body = json!({ "Type": "SubscriptionConfirmation", "SubscribeURL": url });
        assert_eq!(answer(&sns, &Case { body, verified, ..CASE }), wanted);
    };
    let good = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=1";
    check(json!(good), true, &format!("200  get {good}"));
    check(json!(good), false, "none");
    check(
        json!("https://evil.test/?Action=ConfirmSubscription"),
        true,
        "url_not_allowed",
    );
    check(json!("http://sns.eu-west-1.amazonaws.com/"), true, "url_not_allowed");
    check(json!("https://169.254.169.254/latest"), true, "url_not_allowed");
    check(Value::Null, true, "malformed_body");
}

#[test]
fn origins_and_probes() {
    let events = connector(&json!([
        { "allow_origin": { "origins": "ctx:origins", "rate": 100 } },
        { "status_only": { "when": { "method": "HEAD" }, "signed": false } },
        { "status_only": { "when": { "body": "/type", "equals": 0 }, "status": 204, "signed": true } },
        { "status_only": "refusals" },
    ]));
    let options = |headers: &[(&str, &str)]| {
        answer(
            &events,
            &Case {
                method: "OPTIONS",
                headers,
                ..CASE
            },
        )
    };
    let (origin, other) = (
        ("webhook-request-origin", "b.test"),
        ("webhook-request-origin", "evil.test"),
    );
    assert_eq!(options(&[origin]), "200 webhook-allowed-origin=b.test ");
    assert_eq!(
        options(&[origin, ("webhook-request-rate", "50")]),
        "200 webhook-allowed-origin=b.test webhook-allowed-rate=50 "
    );
    assert_eq!(
        options(&[origin, ("webhook-request-rate", "5000")]),
        "200 webhook-allowed-origin=b.test webhook-allowed-rate=100 "
    );
    assert_eq!(options(&[other]), "value_not_allowed");
    assert_eq!(options(&[]), "none");
    assert_eq!(answer(&events, &Case { method: "HEAD", ..CASE }), "200 ");
    let ping = |verified: bool| Case {
        body: json!({ "type": 0 }),
        verified,
        ..CASE
    };
    assert_eq!(
        (answer(&events, &ping(true)), answer(&events, &ping(false))),
        ("204 ".to_owned(), "none".to_owned())
    );
    assert!(events.webhook().unwrap().refuses_barely());
}

#[test]
fn wrong_handshakes_are_told_with_their_place() {
    let check = |handshake: Value, pointer: &str, told: &str| {
        let manifest = json!({
            "connector": "c", "version": "1.0.0", "hosts": ["https://api.test"], "auth": { "none": {} },
            "webhook": { "verify": { "basic": {} }, "identify": { "type": "/type" }, "handshake": handshake },
        });
        let problems = Connector::parse(&manifest.to_string(), &|_| None).unwrap_err();
        let first = &problems[0];
        assert_eq!(first.pointer, format!("/webhook/handshake{pointer}"), "{problems:#?}");
        assert!(first.to_string().contains(told), "{problems:#?}");
    };
    let when = json!({ "method": "GET" });
    // misspelt on purpose
    check(
        json!({ "store_secrt": {} }),
        "/store_secrt",
        "did you mean `store_secret`?",
    );
    check(
        // misspelt on purpose
        json!({ "hmac_reply": { "when": when, "read": "query:c", "alg": "sha265", "encoding": "hex", "write": "text", "signed": false } }),
        "/hmac_reply/alg",
        "did you mean `sha256`?",
    );
    check(
        json!({ "echo": { "when": when, "write": { "json": { "a": "{{ secret }}" } }, "signed": false } }),
        "/echo/write/json",
        "`secret` is not known here",
    );
    check(
        json!({ "echo": { "when": when, "write": "text", "signed": false } }),
        "/echo",
        "`read` says where",
    );
    check(
        json!({ "confirm_get": { "when": when, "read": "json:/url", "https_host_allow": ["*"] } }),
        "/confirm_get/https_host_allow/0",
        "hosts of anybody",
    );
    check(
        json!({ "store_secret": { "read": "query:s" } }),
        "/store_secret/read",
        "header:NAME or json:/pointer",
    );
    check(json!({ "status_only": "refusal" }), "/status_only", "refusals");
    check(
        json!({ "echo": { "when": { "method": "get" }, "write": { "text": "x" }, "signed": false } }),
        "/echo/when/method",
        "upper case",
    );
}
