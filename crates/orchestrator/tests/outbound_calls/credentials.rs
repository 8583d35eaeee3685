//! Tokens: fetched once however many want them, replaced when refused, signed when the connection holds a key.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use weir_workflow_engine::{EffectClass, Retry, SendMode, Sent};

use crate::server::{Reply, Seen, Server, json as answer};
use crate::setup::{Bench, START, connection_with, connector, connector_with, failure, output, step};

fn oauth2(server: &Server) -> std::sync::Arc<weir_orchestrator::connection::Connection> {
    let config = json!({ "base_url": server.url(), "token_url": format!("{}/token", server.url()) });
    let credential = json!({ "oauth2": { "client_id": "weir", "client_secret": "s3cret:word" } });
    connection_with(connector(), config, Some(credential))
}

/// A token endpoint that numbers its tokens, and an API that takes only those `accepts` says.
fn numbered_tokens(server: &Server, accepts: fn(&str) -> bool) {
    let issued = AtomicUsize::new(0);
    server.script(move |seen| {
        Some(if seen.path == "/token" {
            let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
            // No `token_type`, and the lifetime as text: both occur in the wild.
            answer(
                200,
                json!({ "access_token": format!("token-{number}"), "expires_in": "3600" }),
            )
        } else if accepts(seen.header("authorization").unwrap_or_default()) {
            answer(200, json!({ "ok": true }))
        } else {
            answer(401, json!({ "error": "expired" }))
        })
    });
}

#[tokio::test]
async fn fifty_calls_fetch_one_token_and_a_new_one_before_it_expires() {
    let server = Server::start().await;
    numbered_tokens(&server, |authorization| authorization.starts_with("Bearer token-"));
    let bench = Bench::new();
    let connection = oauth2(&server);
    let command = step("things.get", json!({ "id": "1" }));
    let calls = (0..50).map(|_| bench.call(&connection, &command));
    for result in futures::future::join_all(calls).await {
        assert_eq!(output(&result), json!({ "ok": true }));
        assert_eq!(result.exchanges.len(), 1, "token requests are not part of the record");
        assert!(!format!("{:?}", result.exchanges).contains("token-1"));
    }
    assert_eq!(server.count("/token"), 1);
    let asked = server.seen().into_iter().find(|seen| seen.path == "/token").unwrap();
    assert_eq!(asked.header("authorization"), Some("Basic d2VpcjpzM2NyZXQlM0F3b3Jk"));
    for part in ["grant_type=client_credentials", "scope=read+write", "audience=acme"] {
        assert!(asked.body.contains(part), "{}", asked.body);
    }
    bench.clock.advance(Duration::from_secs(3_541));
    output(&bench.call(&connection, &command).await);
    assert_eq!(server.count("/token"), 2);
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let server = Server::start().await;
    numbered_tokens(&server, |authorization| authorization == "Bearer token-2");
    let bench = Bench::new();
    let connection = oauth2(&server);
    let command = bench.effect("pay", json!({ "amount": 1 }), EffectClass::Blind, SendMode::First);
    let result = bench.call(&connection, &command).await;
    assert_eq!(output(&result), json!({ "ok": true }));
    assert_eq!(
        result.exchanges.iter().map(|e| e.status).collect::<Vec<_>>(),
        [Some(401), Some(200)]
    );

    numbered_tokens(&server, |_| false);
    let before = server.seen().len();
    let result = bench.call(&connection, &command).await;
    let failed = failure(&result);
    assert_eq!(
        (failed.code.as_str(), failed.sent, failed.retry),
        ("auth", Sent::Never, Retry::Permanent)
    );
    assert_eq!(server.seen().len() - before, 3, "two tries and one token between them");
}

#[tokio::test]
async fn token_endpoint_failures_are_told_apart_and_never_quote_secrets() {
    let server = Server::start().await;
    let bench = Bench::new();
    for (reply, code, retry) in [
        (
            answer(
                401,
                json!({ "error": "invalid_client", "error_description": "s3cret:word is wrong" }),
            ),
            "auth",
            Retry::Permanent,
        ),
        (
            answer(503, json!({})),
            "token_unavailable",
            Retry::Retryable { after: None },
        ),
        (answer(200, json!({ "hello": "s3cret" })), "auth", Retry::Permanent),
        (Reply::HangUp, "token_unavailable", Retry::Retryable { after: None }),
        (
            Reply::Answer(
                302,
                vec![("location", "https://evil.example.com/".to_owned())],
                String::new(),
            ),
            "auth",
            Retry::Permanent,
        ),
    ] {
        server.reply(reply);
        let command = bench.effect("pay", json!({}), EffectClass::Blind, SendMode::First);
        let result = bench.call(&oauth2(&server), &command).await;
        let failed = failure(&result);
        assert_eq!(
            (failed.code.as_str(), failed.sent, failed.retry),
            (code, Sent::Never, retry)
        );
        assert!(!failed.message.contains("s3cret"), "{}", failed.message);
    }
    assert_eq!(server.count("/token"), server.seen().len());
}

#[tokio::test]
async fn the_token_endpoint_passes_the_egress_guard_too() {
    let server = Server::start().await;
    let bench = Bench::build(&["localhost"], None);
    let config = json!({ "base_url": format!("http://localhost:{}", server.address.port()), "token_url": format!("{}/token", server.url()) });
    let credential = json!({ "oauth2": { "client_id": "weir", "client_secret": "s3cret" } });
    let connection = connection_with(connector(), config, Some(credential));
    let result = bench.call(&connection, &step("things.get", json!({ "id": "1" }))).await;
    assert_eq!(failure(&result).code, "egress_refused");
    assert!(server.seen().is_empty());
}

fn service_account(private_key: &str) -> Value {
    json!({ "service_account": { "account": "robot@acme.test", "key_id": "k1", "private_key": private_key } })
}

fn claims_of(seen: &Seen, algorithm: Algorithm, key: &DecodingKey) -> Value {
    let token = seen.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&["acme"]);
    // The test's clock is not today's.
    validation.validate_exp = false;
    let decoded = jsonwebtoken::decode::<Value>(token, key, &validation).unwrap();
    assert_eq!(decoded.header.kid.as_deref(), Some("k1"));
    decoded.claims
}

#[tokio::test]
async fn a_service_account_signs_its_own_bearer_token() {
    let (rsa, ec) = (include_str!("keys/rs256.pem"), include_str!("keys/es256.pem"));
    let rsa_public = DecodingKey::from_rsa_pem(include_bytes!("keys/rs256.pub.pem")).unwrap();
    let ec_public = DecodingKey::from_ec_pem(include_bytes!("keys/es256.pub.pem")).unwrap();
    let shared = "a shared secret of some length...";
    for (alg, algorithm, private, public) in [
        ("RS256", Algorithm::RS256, rsa, rsa_public),
        ("ES256", Algorithm::ES256, ec, ec_public),
        (
            "HS256",
            Algorithm::HS256,
            shared,
            DecodingKey::from_secret(shared.as_bytes()),
        ),
    ] {
        let server = Server::start().await;
        let config = json!({ "base_url": server.url() });
        let connection = connection_with(connector_with(alg, ""), config, Some(service_account(private)));
        let bench = Bench::new();
        for _ in 0..2 {
            output(&bench.call(&connection, &step("things.get", json!({ "id": "1" }))).await);
        }
        let seen = server.seen();
        assert_eq!(
            seen[0].header("authorization"),
            seen[1].header("authorization"),
            "signed once"
        );
        let claims = claims_of(&seen[0], algorithm, &public);
        let issued_s = START.as_unix_ms() / 1_000 + 1;
        assert_eq!(claims["iss"], "robot@acme.test");
        assert_eq!(
            (claims["iat"].as_i64(), claims["exp"].as_i64()),
            (Some(issued_s), Some(issued_s + 300))
        );
    }
}

#[tokio::test]
async fn a_signed_assertion_is_exchanged_where_the_manifest_says_so() {
    let server = Server::start().await;
    numbered_tokens(&server, |authorization| authorization == "Bearer token-1");
    let config = json!({ "base_url": server.url(), "token_url": format!("{}/token", server.url()) });
    let connector = connector_with("HS256", ", token_url: \"{{ config.token_url }}\"");
    let connection = connection_with(connector, config, Some(service_account("shared")));
    let bench = Bench::new();
    let command = step("things.get", json!({ "id": "1" }));
    let calls = (0..10).map(|_| bench.call(&connection, &command));
    for result in futures::future::join_all(calls).await {
        output(&result);
    }
    assert_eq!(server.count("/token"), 1);
    assert!(
        server.seen()[0]
            .body
            .contains("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer")
    );
}

#[tokio::test]
async fn a_credential_that_does_not_fit_is_explained_without_being_shown() {
    let server = Server::start().await;
    let bench = Bench::new();
    let config = json!({ "base_url": server.url() });
    let bad_key = connection_with(
        connector_with("RS256", ""),
        config.clone(),
        Some(service_account("s3cret, no PEM")),
    );
    let manifest = "{connector: strict, version: 1.0.0, hosts: [\"https://a.test\"], auth: {bearer: {}}, operations: {things.get: {get: \"/things/{{ id }}\"}}}";
    let strict = std::sync::Arc::new(weir_connector_sdk::Connector::parse(manifest, &|_| None).unwrap());
    let missing = connection_with(strict.clone(), config.clone(), None);
    let wrong = connection_with(
        strict,
        config,
        Some(json!({ "basic": { "username": "u", "password": "s3cret" } })),
    );
    for connection in [bad_key, missing, wrong] {
        let result = bench.call(&connection, &step("things.get", json!({ "id": "1" }))).await;
        let failed = failure(&result);
        assert_eq!((failed.code.as_str(), failed.retry), ("auth", Retry::Permanent));
        assert!(!failed.message.contains("s3cret"), "{}", failed.message);
    }
    assert!(server.seen().is_empty());
}
