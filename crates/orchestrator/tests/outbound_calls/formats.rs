//! Bodies and answers that are not JSON, over the wire.

use std::sync::Arc;

use serde_json::json;
use weir_connector_sdk::Connector;
use weir_orchestrator::connection::Connection;
use weir_workflow_engine::{EffectClass, Retry, SendMode, Sent};

use crate::server::{Reply, Server};
use crate::setup::{Bench, KEY_TEXT, connection_with, failure, output, step};

const MANIFEST: &str = r#"
connector: acme
version: 1.0.0
hosts: ["https://api.acme.test"]
auth: { none: {} }
operations:
  pay:
    post: /pay
    body: form
    effect: { keyed: { field: /meta/key, window: 1h } }
  order:
    post: /orders
    soap: { action: urn:order, body: { "m:Order": { "@xmlns:m": urn:o, "m:Sku": "{{ sku }}", "m:Password": "{{ word }}" } } }
    effect: { keyed: { field: "/m:Order/m:Key", window: 1h } }
  rename:
    post: /graphql
    graphql: "mutation ($name: String!) { rename(name: $name) { id } }"
    effect: { keyed: { field: /variables/key, window: 1h } }
  picture.get: { get: /picture, answer: binary }
  picture.put: { put: /picture, encode: binary, body: "{{ content }}", effect: repeatable }
"#;

const KEYED: EffectClass = EffectClass::Keyed {
    window: std::time::Duration::from_secs(3_600),
};

fn connection(server: &Server) -> Arc<Connection> {
    let connector = Arc::new(Connector::parse(MANIFEST, &|_| None).unwrap());
    connection_with(connector, json!({ "base_url": server.url() }), None)
}

fn xml(status: u16, body: &str) -> Reply {
    let body = format!("<s:Envelope xmlns:s=\"urn:s\"><s:Body>{body}</s:Body></s:Envelope>");
    Reply::Answer(status, vec![("content-type", "text/xml".to_owned())], body)
}

#[tokio::test]
async fn keys_travel_in_bodies_of_every_kind() {
    let server = Server::start().await;
    let bench = Bench::new();
    let connection = connection(&server);
    let calls = [
        ("pay", json!({ "amount": 5, "meta": { "a": [1, 2] } })),
        ("rename", json!({ "name": "{{ x }}" })),
    ];
    for (operation, args) in calls {
        let command = bench.effect(operation, args, KEYED, SendMode::First);
        bench.call(&connection, &command).await;
    }
    let seen = server.seen();
    assert_eq!(
        seen[0].body,
        format!("amount=5&meta[a][0]=1&meta[a][1]=2&meta[key]={KEY_TEXT}")
    );
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&seen[1].body).unwrap()["variables"],
        json!({ "name": "{{ x }}", "key": KEY_TEXT })
    );
}

#[tokio::test]
async fn faults_tell_what_may_be_concluded() {
    let server = Server::start().await;
    let bench = Bench::new();
    let connection = connection(&server);
    let args = json!({ "sku": "A&B", "word": "hidden-word" });
    let command = bench.effect("order", args, KEYED, SendMode::First);
    server.reply(xml(
        200,
        "<o:OrderResponse xmlns:o='urn:o'><o:Id>7</o:Id></o:OrderResponse>",
    ));
    let result = bench.call(&connection, &command).await;
    assert_eq!(output(&result), json!({ "OrderResponse": { "Id": "7" } }));
    let sent = &server.seen()[0];
    assert_eq!(sent.header("soapaction"), Some("\"urn:order\""));
    let order = format!(
        "<m:Order xmlns:m=\"urn:o\"><m:Sku>A&amp;B</m:Sku><m:Password>hidden-word</m:Password><m:Key>{KEY_TEXT}</m:Key></m:Order>"
    );
    assert!(sent.body.contains(&order), "{}", sent.body);
    let kept = result.exchanges[0].request_body.as_ref().unwrap();
    assert!(kept.contains("A&amp;B") && !kept.contains("hidden-word"), "{kept}");

    let transient = Retry::Retryable { after: None };
    for (code, wanted) in [
        ("s:Client", (Sent::Never, Retry::Permanent)),
        ("s:Server", (Sent::Maybe, transient)),
        ("o:Stock", (Sent::Maybe, Retry::Permanent)),
    ] {
        let fault = format!("<s:Fault><faultcode>{code}</faultcode><faultstring>no stock</faultstring></s:Fault>");
        server.reply(xml(500, &fault));
        let result = bench.call(&connection, &command).await;
        let failed = failure(&result);
        assert_eq!(
            (failed.code.as_str(), failed.message.as_str()),
            ("soap_fault", "no stock")
        );
        assert_eq!((failed.sent, failed.retry), wanted, "{code}");
    }
    server.reply(Reply::Answer(200, Vec::new(), "<html>".to_owned()));
    let result = bench.call(&connection, &command).await;
    assert_eq!(
        (failure(&result).code.as_str(), failure(&result).sent),
        ("unreadable", Sent::Maybe)
    );
}

#[tokio::test]
async fn bytes_of_one_call_are_the_body_of_another() {
    let server = Server::start().await;
    let bench = Bench::new();
    let connection = connection(&server);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 4\r\n\r\n";
    server.reply(Reply::Raw([head.as_bytes(), b"\x89PNG"].concat()));
    let picture = output(&bench.call(&connection, &step("picture.get", json!({}))).await);
    assert_eq!(
        (&picture["content_type"], &picture["bytes"]),
        (&json!("image/png"), &json!(4))
    );
    let args = json!({ "content": picture });
    let command = bench.effect("picture.put", args, EffectClass::Repeatable, SendMode::First);
    output(&bench.call(&connection, &command).await);
    let sent = &server.seen()[1];
    assert_eq!(sent.header("content-type"), Some("image/png"));
    assert_eq!(
        (sent.header("content-length"), sent.bytes.as_slice()),
        (Some("4"), b"\x89PNG".as_slice())
    );
}
