//! Which effects may be sent again, and when nobody can tell.

use std::time::Duration;

use serde_json::{Value, json};
use weir_orchestrator::clock::Clock;
use weir_workflow_engine::{CallCommand, EffectClass, Origin, Retry, SendMode, Sent, Timestamp};

use crate::server::{Reply, Server, json as answer};
use crate::setup::{Bench, START, TIMEOUT, connection, failure, output};

const CONSISTENT: EffectClass = EffectClass::FindBy {
    consistent: true,
    settle: Duration::ZERO,
};
const SETTLING: EffectClass = EffectClass::FindBy {
    consistent: false,
    settle: Duration::from_secs(60),
};

/// A server with an order book that can be searched by reference.
async fn order_book(found: Value) -> Server {
    let server = Server::start().await;
    server.script(move |seen| match seen.method.as_str() {
        "GET" => Some(answer(200, json!({ "data": found }))),
        _ => Some(answer(201, json!({ "id": "new" }))),
    });
    server
}

fn order(bench: &Bench, operation: &str, class: EffectClass, mode: SendMode) -> CallCommand {
    bench.effect(operation, json!({ "ref": "r1" }), class, mode)
}

fn posts(server: &Server) -> usize {
    server.seen().iter().filter(|seen| seen.method == "POST").count()
}

#[tokio::test]
async fn a_hit_is_the_result_and_nothing_is_sent() {
    let server = order_book(json!([{ "id": "old" }])).await;
    let bench = Bench::new();
    for mode in [SendMode::LookFirst, SendMode::LookOnly] {
        let command = order(&bench, "orders.create", CONSISTENT, mode);
        let result = bench.call(&connection(&server.url()), &command).await;
        assert_eq!(
            (output(&result), result.origin),
            (json!({ "id": "old" }), Origin::Found)
        );
    }
    assert_eq!(posts(&server), 0);
}

#[tokio::test]
async fn a_consistent_absence_sends_once_no_earlier_request_can_be_under_way() {
    let server = order_book(json!([])).await;
    let bench = Bench::new();
    let connection = connection(&server.url());
    let command = order(&bench, "orders.create", CONSISTENT, SendMode::LookFirst);
    let early = bench.call(&connection, &command).await;
    let failed = failure(&early);
    assert_eq!((failed.code.as_str(), failed.sent), ("not_settled", Sent::Maybe));
    assert_eq!(failed.retry, Retry::Retryable { after: Some(TIMEOUT) });
    assert_eq!(posts(&server), 0);
    bench.clock.advance(TIMEOUT);
    let later = bench.call(&connection, &command).await;
    assert_eq!((output(&later), later.origin), (json!({ "id": "new" }), Origin::Sent));
    assert_eq!(posts(&server), 1);
}

#[tokio::test]
async fn an_inconsistent_absence_never_sends_without_proof() {
    let server = order_book(json!([])).await;
    let bench = Bench::new();
    let connection = connection(&server.url());
    let command = order(&bench, "orders.slow", SETTLING, SendMode::LookFirst);
    bench.clock.advance(TIMEOUT);
    let early = bench.call(&connection, &command).await;
    let after = Some(Duration::from_secs(60));
    assert_eq!(failure(&early).retry, Retry::Retryable { after });
    bench.clock.advance(Duration::from_secs(60));
    let settled = bench.call(&connection, &command).await;
    assert_eq!(
        (failure(&settled).code.as_str(), failure(&settled).sent),
        ("unproven", Sent::Maybe)
    );
    let only = order(&bench, "orders.slow", SETTLING, SendMode::LookOnly);
    assert_eq!(failure(&bench.call(&connection, &only).await).code, "unproven");
    assert_eq!(posts(&server), 0);
}

#[tokio::test]
async fn a_look_goes_through_the_pages_up_to_a_bound() {
    let server = Server::start().await;
    // A list of that many pages, with a hit on the last one or none.
    let pages = |count: usize, hit: bool| {
        server.script(move |seen| {
            let number = seen
                .path
                .split_once("after=")
                .map_or(0, |(_, after)| after.parse().unwrap());
            let is_last = number + 1 == count;
            let data = if is_last && hit {
                json!([{ "id": "old" }])
            } else {
                json!([])
            };
            let next = if is_last { json!(null) } else { json!(number + 1) };
            Some(answer(200, json!({ "data": data, "next": next })))
        });
    };
    let bench = Bench::new();
    let connection = connection(&server.url());
    let command = order(&bench, "orders.paged", CONSISTENT, SendMode::LookFirst);
    bench.clock.advance(TIMEOUT);
    let mut seen = 0;
    // MAX_LOOK_PAGES
    for (count, hit, looks, found) in [
        (3, true, 3, true),
        (20, true, 20, true),
        (21, true, 20, false),
        (2, false, 2, false),
    ] {
        pages(count, hit);
        let result = bench.call(&connection, &command).await;
        match found {
            true => assert_eq!(
                (output(&result), result.origin),
                (json!({ "id": "old" }), Origin::Found)
            ),
            false => assert_eq!(failure(&result).code, "unproven", "{count} pages"),
        }
        assert_eq!(server.seen().len() - seen, looks, "{count} pages");
        seen = server.seen().len();
    }
    assert_eq!(posts(&server), 0);
}

#[tokio::test]
async fn a_look_that_fails_proves_nothing() {
    let server = Server::start().await;
    server.reply(answer(503, json!({})));
    let bench = Bench::new();
    let command = order(&bench, "orders.create", CONSISTENT, SendMode::LookFirst);
    let result = bench.call(&connection(&server.url()), &command).await;
    let failed = failure(&result);
    assert_eq!((failed.code.as_str(), failed.sent), ("http_503", Sent::Maybe));
    assert!(matches!(failed.retry, Retry::Retryable { .. }));
}

/// A restart on the same boot: the folder stays, the process is new and its clock later.
fn restarted(folder: &std::path::Path) -> Bench {
    let bench = Bench::recording(folder);
    bench.clock.advance(Duration::from_secs(5));
    bench
}

fn again(command: &CallCommand, mode: SendMode) -> CallCommand {
    let mut command = command.clone();
    command.effect.as_mut().unwrap().mode = mode;
    command
}

#[tokio::test]
async fn after_a_crash_a_blind_effect_is_sent_only_when_it_never_left() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let connection = connection(&server.url());
    let before = Bench::recording(folder.path());
    let mut left = Vec::new();
    for (number, operation) in ["pay", "ping"].into_iter().enumerate() {
        server.reply(Reply::HangUp);
        let mut command = before.effect(operation, json!({}), EffectClass::Blind, SendMode::First);
        with_key(&mut command, number);
        assert_eq!(failure(&before.call(&connection, &command).await).sent, Sent::Maybe);
        left.push(command);
    }
    let mut never_left = again(&left[0], SendMode::IfNeverSent);
    with_key(&mut never_left, 99);
    drop(before);

    let after = restarted(folder.path());
    for command in &left {
        let result = after.call(&connection, &again(command, SendMode::IfNeverSent)).await;
        assert_eq!(
            (failure(&result).code.as_str(), failure(&result).sent),
            ("unproven", Sent::Maybe)
        );
    }
    assert_eq!(server.seen().len(), 2);
    assert_eq!(output(&after.call(&connection, &never_left).await), json!({}));
    assert_eq!(server.seen().len(), 3);
    // Now it has left, and that is known too.
    assert_eq!(failure(&after.call(&connection, &never_left).await).code, "unproven");
}

fn with_key(command: &mut CallCommand, number: usize) {
    let key = json!(format!("weir_{number:032x}"));
    command.effect.as_mut().unwrap().key = serde_json::from_value(key).unwrap();
}

#[tokio::test]
async fn without_a_record_or_with_an_older_intent_nothing_is_proven() {
    let server = Server::start().await;
    let connection = connection(&server.url());
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::recording(folder.path());
    let mut command = bench.effect("pay", json!({}), EffectClass::Blind, SendMode::IfNeverSent);
    command.effect.as_mut().unwrap().first_sent_at = Timestamp::from_unix_ms(START.as_unix_ms() - 1);
    assert_eq!(failure(&bench.call(&connection, &command).await).code, "unproven");
    let without = Bench::new();
    let command = without.effect("pay", json!({}), EffectClass::Blind, SendMode::IfNeverSent);
    assert_eq!(failure(&without.call(&connection, &command).await).code, "unproven");
    let unknown = without.effect("gone", json!({}), EffectClass::Blind, SendMode::IfNeverSent);
    assert_eq!((failure(&without.call(&connection, &unknown).await)).sent, Sent::Maybe);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_refusal_or_a_failed_connection_leaves_the_next_attempt_provable() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let connection_now = connection(&server.url());
    let before = Bench::recording(folder.path());
    server.reply(answer(429, json!({})));
    let command = before.effect("pay", json!({ "amount": 5 }), EffectClass::Blind, SendMode::First);
    assert_eq!(failure(&before.call(&connection_now, &command).await).sent, Sent::Never);
    drop(before);
    let after = restarted(folder.path());
    let sent = after
        .call(&connection(&server.url()), &again(&command, SendMode::IfNeverSent))
        .await;
    assert_eq!(output(&sent), json!({}));
    assert!(after.clock.now() > START);
}

#[tokio::test]
async fn a_find_by_effect_that_never_left_is_sent_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let server = order_book(json!([])).await;
    let before = Bench::recording(folder.path());
    let command = order(&before, "orders.slow", SETTLING, SendMode::LookFirst);
    drop(before);
    let after = restarted(folder.path());
    let result = after.call(&connection(&server.url()), &command).await;
    assert_eq!(output(&result), json!({ "id": "new" }));
    assert_eq!(result.exchanges.len(), 2);
}
