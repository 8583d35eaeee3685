//! Asking whether something has changed instead of asking for it anew.

use serde_json::json;
use weir_workflow_engine::ResponseBody;

use crate::server::{Reply, Seen, Server, json as answer};
use crate::setup::{Bench, connection, connection_with, connector, failure, output, read_command, step};

fn tagged(tag: &str, body: serde_json::Value) -> Reply {
    let kind = ("content-type", "application/json".to_owned());
    Reply::Answer(200, vec![kind, ("etag", tag.to_owned())], body.to_string())
}

fn not_modified() -> Reply {
    Reply::Answer(304, vec![("etag", "\"9\"".to_owned())], String::new())
}

fn asked(seen: &[Seen]) -> Vec<Option<&str>> {
    seen.iter().map(|seen| seen.header("if-none-match")).collect()
}

#[tokio::test]
async fn an_object_that_has_not_changed_is_not_sent_again() {
    let server = Server::start().await;
    let bench = Bench::new();
    let connection = connection(&server.url());
    let command = step("things.kept", json!({ "id": "1" }));
    for reply in [
        tagged("\"1\"", json!({ "v": 1 })),
        not_modified(),
        tagged("W/\"2\"", json!({ "v": 2 })),
        not_modified(),
    ] {
        server.reply(reply);
    }
    let mut found = Vec::new();
    let mut last = None;
    for _ in 0..4 {
        let result = bench.call(&connection, &command).await;
        found.push(output(&result)["v"].clone());
        last = Some(result);
    }
    assert_eq!(found, [1, 1, 2, 2]);
    let seen = server.seen();
    assert_eq!(asked(&seen), [None, Some("\"1\""), Some("\"1\""), Some("W/\"2\"")]);
    // What went over the wire is told as it was.
    let exchange = &last.unwrap().exchanges[0];
    assert_eq!((exchange.status, exchange.response_bytes), (Some(304), 0));
    assert_eq!(exchange.response_body, ResponseBody::None);
    // And beside it the answer that it stands for, as the author sees it.
    let kept = exchange.kept_headers.as_ref().unwrap();
    let header = |wanted: &str| {
        kept.iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("etag"), Some("\"9\""), "{kept:?}");
    // Another object, an operation without the word, and another connection know nothing of it.
    output(
        &bench
            .call(&connection, &step("things.kept", json!({ "id": "2" })))
            .await,
    );
    output(&bench.call(&connection, &step("things.get", json!({ "id": "1" }))).await);
    let other = connection_with(connector(), json!({ "base_url": server.url() }), None);
    output(&bench.call(&other, &command).await);
    assert_eq!(asked(&server.seen()[4..]), [None, None, None]);
}

#[tokio::test]
async fn a_busy_server_says_nothing_about_the_object() {
    let server = Server::start().await;
    let bench = Bench::new();
    let connection = connection(&server.url());
    let command = step("things.kept", json!({ "id": "1" }));
    server.reply(tagged("\"1\"", json!({ "v": 1 })));
    output(&bench.call(&connection, &command).await);
    server.reply(answer(503, json!({})));
    assert_eq!(failure(&bench.call(&connection, &command).await).code, "http_503");
    server.reply(not_modified());
    assert_eq!(output(&bench.call(&connection, &command).await), json!({ "v": 1 }));
    assert_eq!(asked(&server.seen()), [None, Some("\"1\""), Some("\"1\"")]);
}

#[tokio::test]
async fn each_page_is_asked_for_by_itself() {
    let server = Server::start().await;
    server.script(|seen| {
        let kept = seen.header("if-none-match");
        Some(match (seen.path.as_str(), kept) {
            ("/things", Some("\"a\"")) => not_modified(),
            ("/things", _) => tagged("\"a\"", json!({ "data": [1], "next": "b" })),
            ("/things?after=b", None) => tagged("\"b\"", json!({ "data": [2], "next": null })),
            _ => answer(200, json!({ "data": [3], "next": null })),
        })
    });
    let bench = Bench::new();
    let connection = connection(&server.url());
    let command = read_command("things.pages", json!({}), Some(9));
    assert_eq!(output(&bench.read(&connection, &command).await), json!([1, 2]));
    assert_eq!(output(&bench.read(&connection, &command).await), json!([1, 3]));
    assert_eq!(asked(&server.seen()), [None, None, Some("\"a\""), Some("\"b\"")]);
}

#[tokio::test]
async fn what_is_gone_or_secret_or_elsewhere_is_not_kept() {
    let server = Server::start().await;
    let bench = Bench::new();
    let connection = connection(&server.url());
    let call = async || {
        bench
            .call(&connection, &step("things.kept", json!({ "id": "1" })))
            .await
    };
    server.reply(tagged("\"1\"", json!({ "v": 1 })));
    output(&call().await);
    server.reply(answer(404, json!({})));
    assert_eq!(failure(&call().await).code, "not_found");
    let no_store = ("cache-control", "no-store".to_owned());
    server.reply(Reply::Answer(
        200,
        vec![no_store, ("etag", "\"2\"".to_owned())],
        "{}".to_owned(),
    ));
    output(&call().await);
    server.reply(tagged("\"3\"", json!({ "v": 3 })));
    output(&call().await);
    // The condition is not passed on to another address, whose answer is not kept for this one.
    server.reply(Reply::Answer(
        302,
        vec![("location", "/moved".to_owned())],
        String::new(),
    ));
    server.reply(tagged("\"4\"", json!({ "v": 4 })));
    assert_eq!(output(&call().await), json!({ "v": 4 }));
    let wanted = [None, Some("\"1\""), None, None, Some("\"3\""), None];
    assert_eq!(asked(&server.seen()), wanted);
    // Nobody asked, so nothing stands for it.
    let connection = connection_with(connector(), json!({ "base_url": server.url() }), None);
    server.reply(not_modified());
    let result = bench
        .call(&connection, &step("things.kept", json!({ "id": "1" })))
        .await;
    assert_eq!(failure(&result).code, "http_304");
}
