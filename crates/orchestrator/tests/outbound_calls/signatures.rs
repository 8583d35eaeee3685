//! Signed requests: over the bytes and the address that leave, anew for each try, and for nobody but the provider.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use weir_connector_sdk::Connector;
use weir_orchestrator::connection::Connection;
use weir_workflow_engine::{EffectClass, SendMode};

use crate::server::{Reply, Seen, Server, json as answer};
use crate::setup::{Bench, START, connection_with, failure, output, step};

const MANIFEST: &str = r#"
connector: acme
version: 1.0.0
hosts: { api: "https://api.acme.test", other: "https://other.acme.test" }
headers: { Acme-Version: "7" }
auth:
  signed:
    values: [key_id, secret]
    key: secret
    alg: sha256
    encoding: base64
    separator: "\n"
    parts: [method, host, path, query_sorted, timestamp, nonce, "header:Acme-Version", body]
    timestamp: ms
    headers: { Acme-Key: "{{ key_id }}", Acme-At: "{{ timestamp }}", Acme-Nonce: "{{ nonce }}" }
    query: { sig: "{{ signature }}" }
operations:
  things.get: { get: "/things/{{ id }}", query: { z: "{{ z }}", a: "{{ a }}" } }
  things.create: { post: /things, body: json, effect: { keyed: { header: Idempotency-Key, window: 24h } } }
"#;

const KEYED: EffectClass = EffectClass::Keyed {
    window: Duration::from_secs(86_400),
};

fn signing(server: &Server) -> Arc<Connection> {
    let connector = Arc::new(Connector::parse(MANIFEST, &|_| None).unwrap());
    let credential = json!({ "signed": { "key_id": "key-id-0001", "secret": "s3cret:word" } });
    // One at a time.
    let config = json!({ "base_url": server.url(), "budget": { "concurrency": 1 } });
    connection_with(connector, config, Some(credential))
}

/// What the provider makes of a request: its signature over what arrived, and the one that came.
fn signatures(server: &Server, seen: &Seen) -> (String, String) {
    let url = reqwest::Url::parse(&format!("{}{}", server.url(), seen.path)).unwrap();
    let sent = url
        .query_pairs()
        .find(|(name, _)| name == "sig")
        .unwrap()
        .1
        .into_owned();
    let (mut pairs, header) = (Vec::new(), |name: &str| seen.header(name).unwrap().to_owned());
    pairs.extend(
        url.query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.starts_with("sig=")),
    );
    pairs.sort_unstable();
    let text = [
        seen.method.clone(),
        header("host"),
        url.path().to_owned(),
        pairs.join("&"),
        header("acme-at"),
        header("acme-nonce"),
        "7".to_owned(),
        seen.body.clone(),
    ]
    .join("\n");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"s3cret:word");
    (STANDARD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes())), sent)
}

#[tokio::test]
async fn each_try_is_signed_anew_over_what_leaves() {
    let server = Server::start().await;
    server.script(|seen| {
        Some(answer(
            200,
            json!({ "you sent": seen.path, "key": seen.header("acme-key") }),
        ))
    });
    let (bench, connection) = (Bench::new(), signing(&server));
    let create = bench.effect("things.create", json!({ "n": "ä" }), KEYED, SendMode::First);
    for mode in [SendMode::First, SendMode::Resend] {
        let mut command = create.clone();
        command.effect.as_mut().unwrap().mode = mode;
        let result = bench.call(&connection, &command).await;
        let shown = format!("{result:?}");
        for secret in ["s3cret", "key-id-0001"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        assert!(
            output(&result)["you sent"].as_str().unwrap().contains("[redacted]"),
            "{shown}"
        );
        bench.clock.advance(Duration::from_secs(7));
    }
    let get = step("things.get", json!({ "id": "a b", "z": "1", "a": "/" }));
    output(&bench.call(&connection, &get).await);
    let seen = server.seen();
    for seen in &seen {
        let (own, sent) = signatures(&server, seen);
        assert_eq!(own, sent, "{seen:?}");
    }
    let at: Vec<&str> = seen.iter().map(|seen| seen.header("acme-at").unwrap()).collect();
    let after = |s: i64| (START.as_unix_ms() + s * 1_000).to_string();
    assert_eq!(at, [after(1), after(8), after(15)]);
    assert_ne!(seen[0].header("acme-nonce"), seen[1].header("acme-nonce"));
    // What makes the two tries one call is the same.
    assert_eq!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
    assert_eq!(seen[0].body, seen[1].body);
}

#[tokio::test]
async fn a_request_is_signed_after_it_waited() {
    let server = Server::start().await;
    let (bench, connection) = (Bench::new(), signing(&server));
    server.reply(Reply::Gated(json!({ "n": 1 }).to_string()));
    server.reply(Reply::Gated(json!({ "n": 2 }).to_string()));
    let get = step("things.get", json!({ "id": "1", "z": "1", "a": "2" }));
    let calls = futures::future::join(bench.call(&connection, &get), bench.call(&connection, &get));
    let later = async {
        server.arrival().await;
        // The other one waits: the provider takes one at a time.
        bench.clock.advance(Duration::from_secs(60));
        server.release();
        server.arrival().await;
        server.release();
    };
    let ((one, other), ()) = futures::future::join(calls, later).await;
    output(&one);
    output(&other);
    let seen = server.seen();
    let at = |index: usize| seen[index].header("acme-at").unwrap().parse::<i64>().unwrap();
    assert_eq!(at(1) - at(0), 60_000);
}

#[tokio::test]
async fn a_redirect_is_signed_on_its_own_origin_alone() {
    let (server, other) = (Server::start().await, Server::start().await);
    let connector = Arc::new(Connector::parse(MANIFEST, &|_| None).unwrap());
    let credential = json!({ "signed": { "key_id": "key-id-0001", "secret": "s3cret:word" } });
    let config = json!({ "base_url": server.url(), "base_urls": { "other": other.url() } });
    let connection = connection_with(connector, config, Some(credential));
    let elsewhere = format!("{}/there", other.url());
    server.script(move |seen| {
        let to = match seen.path.as_str() {
            path if path.starts_with("/things/near") => "/there?x=1".to_owned(),
            path if path.starts_with("/things/far") => elsewhere.clone(),
            _ => return Some(answer(200, json!({ "ok": true }))),
        };
        Some(Reply::Answer(302, vec![("location", to)], String::new()))
    });
    let bench = Bench::new();
    let get = |id: &str| step("things.get", json!({ "id": id, "z": "1", "a": "2" }));
    output(&bench.call(&connection, &get("near")).await);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for seen in &seen {
        let (own, sent) = signatures(&server, seen);
        assert_eq!(own, sent, "{seen:?}");
    }
    other.reply(answer(200, json!({ "ok": true })));
    output(&bench.call(&connection, &get("far")).await);
    let far = &other.seen()[0];
    assert_eq!((far.path.as_str(), far.header("acme-key")), ("/there", None));
}

#[tokio::test]
async fn what_cannot_be_signed_is_not_sent() {
    let server = Server::start().await;
    let manifest = MANIFEST.replace("key: secret", "key: secret\n    key_encoding: hex");
    let connector = Arc::new(Connector::parse(&manifest, &|_| None).unwrap());
    let credential = json!({ "signed": { "key_id": "key-id-0001", "secret": "s3cret:word" } });
    let connection = connection_with(connector, json!({ "base_url": server.url() }), Some(credential));
    let get = step("things.get", json!({ "id": "1", "z": "1", "a": "2" }));
    let result = Bench::new().call(&connection, &get).await;
    assert_eq!(
        (failure(&result).code.as_str(), failure(&result).message.as_str()),
        ("auth", "`secret` of the credential is not hexadecimal")
    );
    assert!(server.seen().is_empty());
}
