//! What goes out, what is kept of it, and how failures of the network are told.

use std::time::Duration;

use serde_json::json;
use weir_orchestrator::http_client::CONNECT_TIMEOUT;
use weir_orchestrator::perform::Purpose;
use weir_workflow_engine::{EffectClass, Origin, ResponseBody, Retry, SendMode, Sent};

use crate::server::{Reply, Server, json as answer};
use crate::setup::{Bench, KEY_TEXT, connection, connection_with, connector, failure, output, step};

const KEYED: EffectClass = EffectClass::Keyed {
    window: Duration::from_secs(86_400),
};

const TRANSIENT: Retry = Retry::Retryable { after: None };

#[tokio::test]
async fn a_keyed_effect_carries_key_credential_trace_and_length() {
    let server = Server::start().await;
    server.reply(answer(201, json!({ "id": 7 })));
    let bench = Bench::new();
    let credential = json!({ "bearer": { "token": "s3cret-token" } });
    let connection = connection_with(connector(), json!({ "base_url": server.url() }), Some(credential));
    let command = bench.effect(
        "things.create",
        json!({ "name": "a", "password": "s3cret-word" }),
        KEYED,
        SendMode::First,
    );
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    let purpose = Purpose {
        traceparent: Some(traceparent.clone()),
        ..Purpose::default()
    };
    let result = bench.performer.call(&connection, &command, &purpose).await;
    assert_eq!(output(&result), json!({ "id": 7 }));
    assert_eq!(result.origin, Origin::Sent);

    let seen = server.seen().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/things"));
    assert_eq!(seen.header("authorization"), Some("Bearer s3cret-token"));
    assert_eq!(seen.header("idempotency-key"), Some(KEY_TEXT));
    assert_eq!(seen.header("traceparent"), Some(traceparent.as_str()));
    assert_eq!(seen.header("user-agent"), Some("weir-test"));
    assert_eq!(seen.body, r#"{"name":"a","password":"s3cret-word"}"#);

    let [exchange] = result.exchanges.as_slice() else {
        panic!()
    };
    assert_eq!(exchange.status, Some(201));
    assert_eq!(exchange.response_body, ResponseBody::Output);
    assert_eq!(exchange.response_bytes, 8);
    let kept = serde_json::to_string(exchange).unwrap();
    assert!(kept.contains("[redacted]") && kept.contains(KEY_TEXT), "{kept}");
    assert!(!kept.contains("s3cret"), "{kept}");
}

#[tokio::test]
async fn a_credential_that_the_server_shows_is_hidden_in_what_it_answers() {
    let server = Server::start().await;
    let echo = json!({ "headers": { "Authorization": "Bearer s3cret-token" }, "note": "s3cret-token!" });
    server.reply(answer(200, echo));
    let bench = Bench::new();
    let credential = json!({ "bearer": { "token": "s3cret-token" } });
    let connection = connection_with(connector(), json!({ "base_url": server.url() }), Some(credential));
    let command = bench.effect("things.create", json!({ "name": "a" }), KEYED, SendMode::First);
    let purpose = Purpose::default();
    let result = bench.performer.call(&connection, &command, &purpose).await;
    let hidden = json!({ "headers": { "Authorization": "Bearer [redacted]" }, "note": "[redacted]!" });
    assert_eq!(output(&result), hidden);
    assert!(!format!("{result:?}").contains("s3cret"), "{result:?}");
}

#[tokio::test]
async fn an_api_key_in_the_query_is_sent_and_not_kept() {
    let server = Server::start().await;
    let credential = json!({ "api_key": "s3cret&key" });
    let connection = connection_with(connector(), json!({ "base_url": server.url() }), Some(credential));
    let result = Bench::new()
        .call(&connection, &step("things.get", json!({ "id": "1" })))
        .await;
    assert_eq!(server.seen()[0].path, "/things/1?acme_key=s3cret%26key");
    assert!(!format!("{:?}", result.exchanges).contains("s3cret"));
}

#[tokio::test]
async fn a_refused_connection_was_never_sent() {
    let server = Server::start().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let bench = Bench::new();
    let command = bench.effect("pay", json!({}), EffectClass::Blind, SendMode::First);
    let result = bench.call(&connection(&nobody), &command).await;
    let failed = failure(&result);
    assert_eq!(
        (failed.code.as_str(), failed.sent, failed.retry),
        ("connect", Sent::Never, TRANSIENT)
    );
    assert!(result.exchanges[0].error.is_some());
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_name_that_does_not_resolve_was_never_sent() {
    let bench = Bench::new();
    let command = bench.effect("pay", json!({}), EffectClass::Blind, SendMode::First);
    let result = bench.call(&connection("http://nowhere.invalid"), &command).await;
    let failed = failure(&result);
    assert_eq!((failed.code.as_str(), failed.sent), ("dns", Sent::Never));
}

#[tokio::test]
async fn a_silent_server_times_out_and_may_have_acted() {
    let server = Server::start().await;
    for operation in ["pay", "ping", "things.create"] {
        server.reply(Reply::Silence);
        let bench = Bench::new();
        let mut command = bench.effect(operation, json!({}), EffectClass::Blind, SendMode::First);
        command.timeout = Duration::from_millis(500);
        let result = bench.call(&connection(&server.url()), &command).await;
        let failed = failure(&result);
        assert_eq!(
            (failed.code.as_str(), failed.sent, failed.retry),
            ("timeout", Sent::Maybe, TRANSIENT),
            "{operation}"
        );
    }
}

#[tokio::test]
async fn a_broken_connection_may_have_acted() {
    for (reply, status) in [(Reply::HangUp, None), (Reply::HangUpInside, Some(200))] {
        let server = Server::start().await;
        server.reply(reply);
        let bench = Bench::new();
        let command = bench.effect("pay", json!({ "amount": 1 }), EffectClass::Blind, SendMode::First);
        let result = bench.call(&connection(&server.url()), &command).await;
        let failed = failure(&result);
        assert_eq!(
            (failed.code.as_str(), failed.sent, failed.retry),
            ("connection_lost", Sent::Maybe, TRANSIENT)
        );
        assert_eq!(failed.http_status, status);
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn statuses_say_what_may_be_concluded() {
    let server = Server::start().await;
    let after = |seconds| Retry::Retryable {
        after: Some(Duration::from_secs(seconds)),
    };
    for (status, retry_after, code, sent, retry) in [
        (500, None, "http_500", Sent::Maybe, TRANSIENT),
        (503, Some("7"), "http_503", Sent::Maybe, after(7)),
        (429, Some("30"), "rate_limited", Sent::Never, after(30)),
        (404, None, "not_found", Sent::Never, Retry::Permanent),
        (422, None, "invalid", Sent::Never, Retry::Permanent),
        (302, None, "http_302", Sent::Never, Retry::Permanent),
    ] {
        // Each alone: an answer that asks for patience holds the calls after it.
        let (bench, connection) = (Bench::new(), connection(&server.url()));
        let headers = retry_after.map(|seconds| ("retry-after", seconds.to_owned()));
        server.reply(Reply::Answer(status, headers.into_iter().collect(), "no".to_owned()));
        let command = bench.effect("pay", json!({}), EffectClass::Blind, SendMode::First);
        let result = bench.call(&connection, &command).await;
        let failed = failure(&result);
        assert_eq!(
            (failed.code.as_str(), failed.sent, failed.retry),
            (code, sent, retry),
            "{status}"
        );
        assert_eq!(failed.http_status, Some(status));
        assert_eq!(result.exchanges[0].response_body, ResponseBody::Text("no".to_owned()));
    }
}

#[tokio::test]
async fn an_answer_above_the_cap_is_not_read() {
    let server = Server::start().await;
    let huge = "x".repeat(weir_orchestrator::http_client::MAX_RESPONSE_BYTES + 1);
    server.reply(Reply::Answer(200, Vec::new(), huge));
    let result = Bench::new()
        .call(&connection(&server.url()), &step("things.get", json!({ "id": "1" })))
        .await;
    let failed = failure(&result);
    assert_eq!(
        (failed.code.as_str(), failed.retry),
        ("response_too_large", Retry::Permanent)
    );
}

#[tokio::test]
async fn an_effect_that_answers_with_something_odd_is_done_all_the_same() {
    let server = Server::start().await;
    server.reply(Reply::Answer(
        200,
        vec![("content-type", "application/json".to_owned())],
        "OK, thanks".to_owned(),
    ));
    server.reply(Reply::Answer(204, Vec::new(), String::new()));
    let bench = Bench::new();
    let connection = connection(&server.url());
    let command = bench.effect("pay", json!({}), EffectClass::Blind, SendMode::First);
    assert_eq!(output(&bench.call(&connection, &command).await), json!("OK, thanks"));
    assert_eq!(output(&bench.call(&connection, &command).await), json!(null));
}

#[tokio::test]
async fn what_cannot_be_built_is_never_sent() {
    let bench = Bench::new();
    let connection = connection("http://127.0.0.1:1");
    for (operation, code) in [("things.get", "invalid"), ("things.nope", "unknown_operation")] {
        let result = bench.call(&connection, &step(operation, json!({}))).await;
        let failed = failure(&result);
        assert_eq!(
            (failed.code.as_str(), failed.sent, failed.retry),
            (code, Sent::Never, Retry::Permanent)
        );
        // Its place is that in the workflow.
        let is_placed = failed.message.ends_with(" at /steps/0/with/id");
        assert_eq!(is_placed, code == "invalid", "{}", failed.message);
    }
}

/// A system whose queue of connections is full answers nothing, not even with a refusal.
#[tokio::test]
async fn a_server_that_does_not_take_the_connection_is_given_up() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    let connect = || tokio::time::timeout(Duration::from_millis(500), tokio::net::TcpStream::connect(address));
    while let Ok(connected) = connect().await {
        queued.push(connected.unwrap());
    }
    let bench = Bench::new();
    let mut command = step("things.get", json!({ "id": "1" }));
    command.timeout = 3 * CONNECT_TIMEOUT;
    let begun = tokio::time::Instant::now();
    let result = bench.call(&connection(&format!("http://{address}")), &command).await;
    let failure = failure(&result);
    assert_eq!(
        (failure.code.as_str(), failure.sent, failure.retry),
        ("connect", Sent::Never, TRANSIENT)
    );
    let took = begun.elapsed();
    assert!(took >= CONNECT_TIMEOUT && took < 2 * CONNECT_TIMEOUT, "{took:?}");
}
