//! Sessions: one login however many want it, another one when the old is over, and none after one that was refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use weir_connector_sdk::Connector;
use weir_orchestrator::clock::Clock as _;
use weir_orchestrator::connection::Connection;
use weir_workflow_engine::{CallOutcome, CallResult, EffectClass, HeldBy, Hold, Retry, SendMode, Sent};

use crate::server::{Reply, Seen, Server, json as answer};
use crate::setup::{Bench, connection_with, failure, output, step};

const MANIFEST: &str = r#"
connector: acme
version: 1.0.0
hosts: ["https://api.acme.test"]
auth:
  session:
    values: [user, password]
    login:
      - { post: /ticket, body: { user: "{{ user }}" }, take: { ticket: /ticket } }
      - { post: /login, encode: form, body: { ticket: "{{ ticket }}", password: "{{ password }}" }, take: { token: /token, sid: "cookie:SID" }, expires: { in: /expires_in } }
    headers: { Authorization: "Token token=\"{{ token }}\", v=1" }
    query: { session: "{{ token }}" }
    cookies: { SID: "{{ sid }}" }
errors:
  - { when: { pointer: /fault, equals: SESSION_OVER }, code: auth_expired, executed: "no" }
  - { when: { pointer: /fault, equals: BROKE_OFF }, code: auth_expired, executed: maybe }
operations:
  things.get: { get: "/things/{{ id }}" }
  pay: { post: /pay, body: json, effect: blind }
"#;

fn session(server: &Server) -> Arc<Connection> {
    let connector = Arc::new(Connector::parse(MANIFEST, &|_| None).unwrap());
    let credential = json!({ "session": { "user": "ann@acme.test", "password": "s3cret:word" } });
    connection_with(connector, json!({ "base_url": server.url() }), Some(credential))
}

/// A provider whose logins are numbered, and whose API answers as `api` says for the number of the session.
fn provider(server: &Server, api: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) {
    let logins = AtomicUsize::new(0);
    server.script(move |seen| {
        Some(match seen.path.as_str() {
            "/ticket" => answer(200, json!({ "ticket": "ticket/1" })),
            "/login" => {
                assert_eq!(seen.body, "ticket=ticket%2F1&password=s3cret%3Aword");
                let number = logins.fetch_add(1, Ordering::SeqCst) + 1;
                let headers = vec![("set-cookie", format!("SID=cookie-{number:04}; Path=/"))];
                let body = json!({ "token": format!("token-{number:04}"), "expires_in": "600" });
                Reply::Answer(200, headers, body.to_string())
            }
            _ => {
                let token = seen.header("authorization").unwrap_or_default();
                let number = token
                    .trim_start_matches("Token token=\"token-")
                    .trim_end_matches("\", v=1");
                api(number.parse().unwrap_or(0), seen)
            }
        })
    });
}

fn logins(server: &Server) -> (usize, usize) {
    (server.count("/ticket"), server.count("/login"))
}

fn held(result: &CallResult) -> &Hold {
    match &result.outcome {
        CallOutcome::Held(hold) => hold,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn fifty_calls_log_in_once_and_again_before_the_session_ends() {
    let server = Server::start().await;
    provider(&server, |number, seen| {
        assert_eq!(seen.header("cookie"), Some(format!("SID=cookie-{number:04}").as_str()));
        assert!(
            seen.path.ends_with(&format!("?session=token-{number:04}")),
            "{}",
            seen.path
        );
        // Some servers show people what they were sent.
        answer(
            200,
            json!({ "ok": number, "you sent": seen.header("authorization"), "cookie": seen.header("cookie") }),
        )
    });
    let (bench, connection) = (Bench::new(), session(&server));
    let command = step("things.get", json!({ "id": "1" }));
    let calls = (0..50).map(|_| bench.call(&connection, &command));
    for result in futures::future::join_all(calls).await {
        assert_eq!(output(&result)["ok"], 1);
        assert_eq!(result.exchanges.len(), 1, "logins are not part of the record");
        let shown = format!("{result:?}");
        for secret in ["token-0001", "cookie-0001", "ticket/1", "s3cret", "ann@acme.test"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
    assert_eq!(logins(&server), (1, 1));
    bench.clock.advance(Duration::from_secs(539));
    output(&bench.call(&connection, &command).await);
    assert_eq!(logins(&server), (1, 1));
    // A minute before the end.
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(output(&bench.call(&connection, &command).await)["ok"], 2);
    assert_eq!(logins(&server), (2, 2));
}

#[tokio::test]
async fn a_refused_session_is_replaced_once_per_request() {
    let statuses = |result: &CallResult| result.exchanges.iter().map(|e| e.status.unwrap()).collect::<Vec<_>>();
    for over in [answer(401, json!({})), answer(200, json!({ "fault": "SESSION_OVER" }))] {
        let server = Server::start().await;
        let first = over.clone();
        provider(&server, move |number, _| match number {
            1 => first.clone(),
            _ => answer(200, json!({ "ok": true })),
        });
        let (bench, connection) = (Bench::new(), session(&server));
        let command = bench.effect("pay", json!({ "amount": 1 }), EffectClass::Blind, SendMode::First);
        let result = bench.call(&connection, &command).await;
        assert_eq!(output(&result), json!({ "ok": true }));
        assert_eq!(statuses(&result).len(), 2);
        assert_eq!(logins(&server), (2, 2));

        // It is refused for ever: each call logs in at most once more.
        let server = Server::start().await;
        provider(&server, move |_, _| over.clone());
        let connection = session(&server);
        for (calls, wanted) in [(1, 2), (2, 3), (3, 4)] {
            let result = bench.call(&connection, &command).await;
            let failed = failure(&result);
            assert_eq!((failed.sent, failed.retry), (Sent::Never, Retry::Permanent));
            assert!(
                ["auth", "auth_expired"].contains(&failed.code.as_str()),
                "{}",
                failed.code
            );
            assert_eq!(
                (result.exchanges.len(), logins(&server)),
                (2, (wanted, wanted)),
                "call {calls}"
            );
        }
    }
}

#[tokio::test]
async fn what_may_have_been_executed_is_not_sent_again() {
    let server = Server::start().await;
    provider(&server, |_, _| answer(500, json!({ "fault": "BROKE_OFF" })));
    let (bench, connection) = (Bench::new(), session(&server));
    let command = bench.effect("pay", json!({}), EffectClass::Blind, SendMode::First);
    let result = bench.call(&connection, &command).await;
    assert_eq!(failure(&result).sent, Sent::Maybe);
    assert_eq!((server.count("/pay?session=token-0001"), logins(&server)), (1, (1, 1)));
}

#[tokio::test]
async fn after_a_refused_login_calls_wait_for_a_person() {
    let server = Server::start().await;
    let bench = Bench::new();
    let connection = session(&server);
    let refusing = || {
        server.script(|seen| {
            Some(match seen.path.as_str() {
                "/ticket" => answer(403, json!({ "error": "s3cret:word is wrong" })),
                other => panic!("{other}"),
            })
        });
    };
    refusing();
    let command = bench.effect("pay", json!({}), EffectClass::Blind, SendMode::First);
    let calls = (0..20).map(|_| bench.call(&connection, &command));
    for result in futures::future::join_all(calls).await {
        let hold = held(&result);
        assert_eq!(hold.by, HeldBy::Reauth);
        assert_eq!(
            hold.reason,
            "the login was refused: http_403; see to the `credential` of `main`, what waits goes on by itself"
        );
        assert!(hold.until > bench.clock.now() && result.exchanges.is_empty());
    }
    assert_eq!(logins(&server), (1, 0));
    assert!(connection.refused_login().is_some());
    bench.clock.advance(Duration::from_secs(299));
    held(&bench.call(&connection, &command).await);
    assert_eq!(logins(&server), (1, 0), "looking costs no login");
    bench.clock.advance(Duration::from_secs(1));
    held(&bench.call(&connection, &command).await);
    assert_eq!(logins(&server), (2, 0));

    // Another credential is another connection, which begins anew.
    provider(&server, |_, _| answer(200, json!({ "ok": true })));
    let changed = session(&server);
    assert_eq!(output(&bench.call(&changed, &command).await), json!({ "ok": true }));
    assert!(changed.refused_login().is_none());
    // And the old one after a while, when the account is open again.
    bench.clock.advance(Duration::from_secs(600));
    assert_eq!(output(&bench.call(&connection, &command).await), json!({ "ok": true }));
    assert!(connection.refused_login().is_none());
}

#[tokio::test]
async fn what_may_pass_by_itself_needs_nobody() {
    let bench = Bench::new();
    let unavailable = ("token_unavailable", Retry::Retryable { after: None });
    for reply in [
        answer(503, json!({})),
        answer(429, json!({})),
        answer(408, json!({})),
        Reply::HangUp,
    ] {
        let server = Server::start().await;
        let connection = session(&server);
        for _ in 0..2 {
            server.reply(reply.clone());
            let command = bench.effect("pay", json!({}), EffectClass::Blind, SendMode::First);
            let result = bench.call(&connection, &command).await;
            let failed = failure(&result);
            assert_eq!((failed.code.as_str(), failed.retry), unavailable);
            assert_eq!(failed.sent, Sent::Never);
            assert!(!failed.message.contains("s3cret"), "{}", failed.message);
        }
        assert!(connection.refused_login().is_none());
        assert_eq!(logins(&server), (2, 0), "it is tried again each time");
    }
}

#[tokio::test]
async fn logins_pass_the_egress_guard() {
    let server = Server::start().await;
    let bench = Bench::build(&["10.0.0.0/8"], None);
    let result = bench
        .call(&session(&server), &step("things.get", json!({ "id": "1" })))
        .await;
    assert_eq!(failure(&result).code, "egress_refused");
    assert!(server.seen().is_empty());
    let incomplete: Value = json!({ "session": { "user": "ann" } });
    let connector = Arc::new(Connector::parse(MANIFEST, &|_| None).unwrap());
    let connection = connection_with(connector, json!({ "base_url": server.url() }), Some(incomplete));
    provider(&server, |_, _| answer(200, json!({})));
    let result = Bench::new()
        .call(&connection, &step("things.get", json!({ "id": "1" })))
        .await;
    assert_eq!(failure(&result).message, "the credential has no `password`");
}
