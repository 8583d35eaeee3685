//! The budget of a connection, seen from its calls: what waits, what is held, what an answer closes.

use std::time::Duration;
use weir_orchestrator::Clock as _;

use serde_json::json;
use weir_orchestrator::budget::{BREAKER_FAILURES, Class};
use weir_orchestrator::perform::Purpose;
use weir_workflow_engine::{CallOutcome, CallResult, EffectClass, HeldBy, Hold, Retry, SendMode, Sent};

use crate::server::{Reply, Server};
use crate::setup::{Bench, connection, connection_with, connector, failure, output, step};

fn hold(result: &CallResult) -> &Hold {
    match &result.outcome {
        CallOutcome::Held(hold) => hold,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_the_budget_does_not_allow_is_held_and_never_sent() {
    let server = Server::start().await;
    let bench = Bench::new();
    let config = json!({ "base_url": server.url(), "budget": { "window": "1/60s" } });
    let connection = connection_with(connector(), config, None);
    server.reply(Reply::Answer(200, Vec::new(), "{}".to_owned()));
    let read = step("things.get", json!({ "id": "1" }));
    assert_eq!(output(&bench.call(&connection, &read).await), json!({}));
    let effect = bench.effect("pay", json!({}), EffectClass::Blind, SendMode::First);
    for command in [&read, &effect] {
        let result = bench.call(&connection, command).await;
        let hold = hold(&result);
        assert_eq!(hold.by, HeldBy::Budget);
        assert!(
            hold.reason.contains("the budget of connection `main`"),
            "{}",
            hold.reason
        );
        assert!(result.exchanges.is_empty());
    }
    assert_eq!(server.seen().len(), 1);
    // A changed connection keeps what was counted.
    let config = json!({ "base_url": server.url(), "budget": { "window": "1/60s", "concurrency": 3 } });
    let changed = connection_with(connector(), config, None);
    bench.clock.advance(Duration::from_secs(62));
    server.reply(Reply::Answer(200, Vec::new(), "{}".to_owned()));
    assert_eq!(output(&bench.call(&changed, &read).await), json!({}));
}

#[tokio::test]
async fn an_answer_that_it_was_too_much_closes_the_gate_for_all() {
    let server = Server::start().await;
    let bench = Bench::new();
    let connection = connection(&server.url());
    let headers = vec![("retry-after", "30".to_owned())];
    server.reply(Reply::Answer(429, headers, "{}".to_owned()));
    let read = step("things.get", json!({ "id": "1" }));
    let first = bench.call(&connection, &read).await;
    let after = Some(Duration::from_secs(30));
    assert_eq!(failure(&first).retry, Retry::Retryable { after });
    assert_eq!(failure(&first).sent, Sent::Never);
    let until = hold(&bench.call(&connection, &read).await).until;
    assert!(until.since(bench.clock.now()) >= Duration::from_secs(30));
    bench.clock.advance(Duration::from_secs(31));
    server.reply(Reply::Answer(200, Vec::new(), "{}".to_owned()));
    assert_eq!(output(&bench.call(&connection, &read).await), json!({}));
}

#[tokio::test]
async fn a_server_that_fails_is_left_alone() {
    let server = Server::start().await;
    let bench = Bench::new();
    let connection = connection(&server.url());
    let read = step("things.get", json!({ "id": "1" }));
    for _ in 0..BREAKER_FAILURES {
        server.reply(Reply::Answer(500, Vec::new(), "{}".to_owned()));
        assert_eq!(failure(&bench.call(&connection, &read).await).code, "http_500");
    }
    let purpose = Purpose {
        class: Class::Replay,
        ..Purpose::default()
    };
    let held = bench.performer.call(&connection, &read, &purpose).await;
    assert_eq!(hold(&held).by, HeldBy::Breaker);
    bench.clock.advance(Duration::from_secs(6));
    server.reply(Reply::Answer(200, Vec::new(), "{}".to_owned()));
    assert_eq!(output(&bench.call(&connection, &read).await), json!({}));
    server.reply(Reply::Answer(200, Vec::new(), "{}".to_owned()));
    assert_eq!(output(&bench.call(&connection, &read).await), json!({}));
}
