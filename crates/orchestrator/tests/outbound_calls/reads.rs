//! Hydration reads: pages and sharing.

use std::time::Duration;

use serde_json::json;
use weir_orchestrator::clock::Clock;
use weir_orchestrator::perform::Purpose;
use weir_workflow_engine::{Origin, ResponseBody};

use crate::server::{Reply, Server, json as answer};
use crate::setup::{Bench, connection, failure, output, read_command, step};

#[tokio::test]
async fn pages_are_followed_until_the_end_or_the_cap() {
    let server = Server::start().await;
    server.script(|seen| {
        Some(match seen.path.as_str() {
            "/things" => answer(200, json!({ "data": [1, 2], "next": "b" })),
            "/things?after=b" => answer(200, json!({ "data": [3, 4], "next": "c" })),
            "/things?after=c" => answer(200, json!({ "data": [5], "next": null })),
            _ => return None,
        })
    });
    let bench = Bench::new();
    let connection = connection(&server.url());
    let all = bench
        .read(&connection, &read_command("things.list", json!({}), Some(100)))
        .await;
    assert_eq!(output(&all), json!([1, 2, 3, 4, 5]));
    assert_eq!(all.exchanges.len(), 3);
    let some = bench
        .read(&connection, &read_command("things.list", json!({}), Some(3)))
        .await;
    assert_eq!(output(&some), json!([1, 2, 3]));
    assert_eq!(some.exchanges.len(), 2);
    let first = bench
        .read(&connection, &read_command("things.list", json!({}), None))
        .await;
    assert_eq!(output(&first), json!([1, 2]));
}

#[tokio::test]
async fn a_step_follows_pages_when_it_asks_for_all() {
    let server = Server::start().await;
    server.script(|seen| {
        Some(match seen.path.as_str() {
            "/things" => answer(200, json!({ "data": [1, 2], "next": "b" })),
            "/things?after=b" => answer(200, json!({ "data": [3], "next": null })),
            _ => return None,
        })
    });
    let bench = Bench::new();
    let connection = connection(&server.url());
    let mut command = step("things.list", json!({}));
    assert_eq!(output(&bench.call(&connection, &command).await), json!([1, 2]));
    command.all_max = Some(1_000);
    let all = bench.call(&connection, &command).await;
    assert_eq!(output(&all), json!([1, 2, 3]));
    assert_eq!(all.exchanges.len(), 2);
    command.all_max = Some(1);
    let some = bench.call(&connection, &command).await;
    assert_eq!((output(&some), some.exchanges.len()), (json!([1]), 1));
}

#[tokio::test]
async fn pages_are_not_gathered_without_bound() {
    let server = Server::start().await;
    let large = "x".repeat(weir_orchestrator::perform::MAX_READ_BYTES / 3);
    server.script(move |seen| {
        let next = seen.path.len().to_string();
        Some(answer(200, json!({ "data": [large], "next": format!("{next}{next}") })))
    });
    let result = Bench::new()
        .read(
            &connection(&server.url()),
            &read_command("things.list", json!({}), Some(100)),
        )
        .await;
    assert_eq!(failure(&result).code, "response_too_large");
    assert_eq!(server.seen().len(), 3);
}

/// `MAX_KEPT_BYTES_PER_CALL`: pages of 15,000 bytes, of which four and a part of the fifth have room.
#[tokio::test]
async fn the_bodies_of_all_pages_are_kept_up_to_a_bound() {
    let server = Server::start().await;
    let page = |number: usize| {
        let next = (number < 6).then(|| number.to_string());
        let empty = json!({ "data": [""], "next": next }).to_string();
        json!({ "data": ["x".repeat(15_000 - empty.len())], "next": next })
    };
    server.script(move |seen| {
        let number = seen
            .path
            .split_once("after=")
            .map_or(0, |(_, last)| last.parse().unwrap());
        Some(answer(200, page(number + 1)))
    });
    let result = Bench::new()
        .read(
            &connection(&server.url()),
            &read_command("things.list", json!({}), Some(100)),
        )
        .await;
    assert_eq!(output(&result).as_array().unwrap().len(), 6, "the output is whole");
    let kept = |exchange: &weir_workflow_engine::Exchange| match &exchange.response_body {
        ResponseBody::Text(text) => text.len(),
        ResponseBody::None | ResponseBody::Output => 0,
    };
    let kept: Vec<usize> = result.exchanges.iter().map(kept).collect();
    assert_eq!(kept, [15_000, 15_000, 15_000, 15_000, 5_536, 0]);
    assert_eq!(kept.iter().sum::<usize>(), 64 * 1024);
}

#[tokio::test]
async fn a_page_that_fails_fails_the_read_and_a_cursor_that_repeats_too() {
    let server = Server::start().await;
    server.reply(answer(200, json!({ "data": [1], "next": "b" })));
    server.reply(answer(500, json!({})));
    let bench = Bench::new();
    let connection = connection(&server.url());
    let result = bench
        .read(&connection, &read_command("things.list", json!({}), Some(9)))
        .await;
    assert_eq!(failure(&result).code, "http_500");
    server.script(|_| Some(answer(200, json!({ "data": [1], "next": "b" }))));
    let result = bench
        .read(&connection, &read_command("things.list", json!({}), Some(9)))
        .await;
    assert_eq!(failure(&result).code, "paging_loop");
}

#[tokio::test]
async fn reads_share_a_request_that_was_sent_after_their_event_and_only_that() {
    let server = Server::start().await;
    let bench = std::sync::Arc::new(Bench::new());
    let connection = connection(&server.url());
    server.script(|_| Some(Reply::Gated(r#"{"v":1}"#.to_owned())));
    let start = |accepted_before: bool| {
        let (bench, connection) = (bench.clone(), connection.clone());
        let now = bench.clock.now();
        let accepted_at = match accepted_before {
            true => weir_workflow_engine::Timestamp::from_unix_ms(now.as_unix_ms() - 5),
            false => now,
        };
        tokio::spawn(async move {
            let command = read_command("things.get", json!({ "id": "1" }), None);
            bench
                .performer
                .read(&connection, &command, accepted_at, &Purpose::default())
                .await
        })
    };
    let leader = start(true);
    server.arrival().await;
    let shared = start(true);
    bench.clock.advance(Duration::from_millis(10));
    let late: Vec<_> = (0..5).map(|_| start(false)).collect();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.seen().len(), 1, "later events wait for the one trailing read");
    server.release();
    let leader = leader.await.unwrap();
    let shared = shared.await.unwrap();
    assert_eq!((leader.origin, leader.exchanges.len()), (Origin::Sent, 1));
    assert_eq!((shared.origin, shared.exchanges.len()), (Origin::Coalesced, 0));
    assert_eq!(output(&shared), output(&leader));
    server.arrival().await;
    server.release();
    let late = futures::future::join_all(late).await;
    let sent = late
        .iter()
        .filter(|result| result.as_ref().unwrap().origin == Origin::Sent)
        .count();
    assert_eq!(sent, 1);
    assert_eq!(server.seen().len(), 2);
}
