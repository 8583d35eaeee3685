//! Webhooks: what is taken, what is refused and how, and what a sender that goes away leaves behind.

use crate::support::{ENDPOINT_SECRET, TestServer, note_workflow, orders_endpoint};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weir_orchestrator::Settings;

const ORDER: &str = r#"{"type":"order.placed","id":"ord_1","total":12.50}"#;

/// Status, headers that matter, and body of a refusal, without what differs from run to run.
async fn shown(answer: reqwest::Response) -> Value {
    let status = answer.status().as_u16();
    let header = |name: &str| {
        answer
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let headers: Vec<_> = ["content-type", "allow", "retry-after"]
        .iter()
        .filter_map(|name| Some(format!("{name}: {}", header(name)?)))
        .collect();
    let body: Value = answer.json().await.unwrap();
    json!({ "status": status, "headers": headers, "body": body })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_webhook_is_kept_and_starts_its_workflow() {
    let server = TestServer::start().await;
    server.apply(&[orders_endpoint(), note_workflow()]).await;
    let endpoint = server
        .query("{ endpoint(name: \"orders\") { id url namedUrl } }", json!({}))
        .await["endpoint"]
        .clone();
    let id = endpoint["id"].as_str().unwrap();
    assert_eq!(endpoint["url"], format!("https://hooks.example.test/hooks/{id}"));
    assert_eq!(endpoint["namedUrl"], "https://hooks.example.test/hooks/main/orders");

    let first = server.hook(&format!("/hooks/{id}"), ENDPOINT_SECRET, ORDER).await;
    assert!(first.status().is_success(), "{first:?}");
    // The same delivery by the other name: known already, so the provider hears the same.
    let again = server.hook("/hooks/main/orders", ENDPOINT_SECRET, ORDER).await;
    assert_eq!(again.status(), first.status());
    assert_eq!(first.headers()["content-type"], "application/json");
    let (first, again): (Value, Value) = (first.json().await.unwrap(), again.json().await.unwrap());

    let events = server.query("{ events { nodes { id type externalId source connectorName bodyBytes body { text size truncated } data runs { id } endpoint { name } } pageInfo { hasNextPage } } }", json!({})).await;
    let nodes = events["events"]["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 1, "{events:#}");
    let event = &nodes[0];
    // Each answer names the event, and the second one says that it came before.
    assert_eq!(first, json!({ "event": event["id"], "duplicate": false }));
    assert_eq!(again, json!({ "event": event["id"], "duplicate": true }));
    assert_eq!(
        event["body"],
        json!({ "text": ORDER, "size": ORDER.len(), "truncated": false })
    );
    assert_eq!(
        (&event["type"], &event["externalId"], &event["source"]),
        (&json!("order.placed"), &json!("ord_1"), &json!("ENDPOINT"))
    );
    assert_eq!(
        (&event["data"]["total"], &event["endpoint"]["name"]),
        (&json!(12.50), &json!("orders"))
    );
    let run = server.finished(event["runs"][0]["id"].as_str().unwrap()).await;
    assert_eq!(run["status"], "SUCCEEDED", "{run:#}");
    assert_eq!(run["steps"][0]["output"], json!({ "order": "ord_1" }));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_is_wrong_and_what_to_do() {
    let server = TestServer::start_with(Settings {
        max_body_bytes: 4096,
        ..Settings::default()
    })
    .await;
    let mut closed = orders_endpoint();
    closed["name"] = json!("closed");
    closed["allow"] = json!(["203.0.113.0/24"]);
    server.apply(&[orders_endpoint(), closed, note_workflow()]).await;
    let path = "/hooks/main/orders";

    insta::assert_json_snapshot!(
        "unknown_name",
        shown(server.hook("/hooks/main/nobody", ENDPOINT_SECRET, ORDER).await).await
    );
    insta::assert_json_snapshot!(
        "unknown_id",
        shown(server.hook("/hooks/ep_0000000000000", ENDPOINT_SECRET, ORDER).await).await
    );
    insta::assert_json_snapshot!(
        "wrong_id",
        shown(server.hook("/hooks/run_zzz", ENDPOINT_SECRET, ORDER).await).await
    );
    insta::assert_json_snapshot!("wrong_secret", shown(server.hook(path, "guess", ORDER).await).await);
    insta::assert_json_snapshot!(
        "not_json",
        shown(server.hook(path, ENDPOINT_SECRET, "{oops").await).await
    );
    insta::assert_json_snapshot!("empty", shown(server.hook(path, ENDPOINT_SECRET, "").await).await);
    insta::assert_json_snapshot!(
        "too_large_declared",
        shown(server.hook(path, ENDPOINT_SECRET, "x".repeat(4097)).await).await
    );
    let pieces = futures::stream::iter((0..10).map(|_| Ok::<_, std::io::Error>("x".repeat(1000))));
    insta::assert_json_snapshot!(
        "too_large_chunked",
        shown(
            server
                .hook(path, ENDPOINT_SECRET, reqwest::Body::wrap_stream(pieces))
                .await
        )
        .await
    );
    insta::assert_json_snapshot!(
        "address",
        shown(server.hook("/hooks/main/closed", ENDPOINT_SECRET, ORDER).await).await
    );
    for method in [
        reqwest::Method::GET,
        reqwest::Method::PUT,
        reqwest::Method::DELETE,
        reqwest::Method::OPTIONS,
    ] {
        let answer = server
            .http
            .request(method.clone(), server.url(path))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["allow"].to_str().unwrap()),
            (405, "POST"),
            "{method}"
        );
    }
    insta::assert_json_snapshot!(
        "method",
        shown(server.http.get(server.url(path)).send().await.unwrap()).await
    );

    // Refusals are stored behind the answer, never before it.
    server
        .until("{ refusedRequests(first: 100) { nodes { id } } }", |data| {
            data["refusedRequests"]["nodes"].as_array().unwrap().len() == 6
        })
        .await;
    let refused = server.query("{ refusedRequests(first: 100) { nodes { reason detail clientIp endpoint { name } headers { name value } body { text size } } } endpoint(name: \"orders\") { refused { reason count } } }", json!({})).await;
    let text = refused.to_string();
    assert!(
        !text.contains("guess") && !text.contains(ENDPOINT_SECRET),
        "a presented secret is shown: {text}"
    );
    let reasons: std::collections::BTreeSet<_> = refused["refusedRequests"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["reason"].as_str().unwrap())
        .collect();
    assert!(
        reasons.contains("address_not_allowed") && reasons.contains("body_too_large") && reasons.len() >= 4,
        "{reasons:?}"
    );
    let counted: u64 = refused["endpoint"]["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|count| count["count"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, 5, "{refused:#}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_goes_away_loses_nothing() {
    let server = TestServer::start().await;
    server.apply(&[orders_endpoint(), note_workflow()]).await;
    // A complete request whose sender does not wait for the answer.
    for number in 0..20 {
        let body = format!(r#"{{"type":"order.placed","id":"gone_{number}"}}"#);
        let head = format!(
            "POST /hooks/main/orders HTTP/1.1\r\nhost: test\r\nx-token: {ENDPOINT_SECRET}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        // Half an order after it: must leave no trace.
        let mut half = TcpStream::connect(server.address).await.unwrap();
        half.write_all(format!("{head}{{\"type\":\"order.placed\",\"id\":").as_bytes())
            .await
            .unwrap();
        drop((socket, half));
    }
    let events = "{ events(first: 100) { nodes { externalId runs { id } } } }";
    let data = server
        .until(events, |data| data["events"]["nodes"].as_array().unwrap().len() >= 20)
        .await;
    let seen = data["events"]["nodes"].as_array().unwrap();
    // Whether a request counts is decided when its last byte is read; whatever counts is whole.
    assert!(
        seen.iter().all(|event| event["runs"].as_array().unwrap().len() == 1),
        "{seen:?}"
    );
    assert_eq!(seen.len(), 20);
    for event in seen {
        assert_eq!(
            server.finished(event["runs"][0]["id"].as_str().unwrap()).await["status"],
            "SUCCEEDED"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_finished_before_the_server_stops() {
    let server = TestServer::start().await;
    server.apply(&[orders_endpoint(), note_workflow()]).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /hooks/main/orders HTTP/1.1\r\nhost: test\r\nx-token: {ENDPOINT_SECRET}\r\nexpect: 100-continue\r\n\
         content-length: {}\r\n\r\n",
        ORDER.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // The server has read the head when it asks for the body.
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    let (address, stopping) = (server.address, tokio::spawn(server.stop()));
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    socket.write_all(ORDER.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_says_so() {
    let server = TestServer::start().await;
    server.apply(&[orders_endpoint(), note_workflow()]).await;
    server.orchestrator.shutdown().await;
    insta::assert_json_snapshot!(
        "stopping",
        shown(server.hook("/hooks/main/orders", ENDPOINT_SECRET, ORDER).await).await
    );
    let ready = server.http.get(server.url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status().as_u16(), 503);
    let body: Value = ready.json().await.unwrap();
    assert_eq!(body["ready"], json!(false));
    assert!(!body["reasons"].as_array().unwrap().is_empty());
}

/// Deliveries that look the same are events of their own where the manifest says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_deliveries_are_two_events_where_nothing_names_them() {
    let server = TestServer::start().await;
    let endpoint = |name: &str, connector: &str| json!({ "kind": "Endpoint", "name": name, "connector": connector, "secrets": [ENDPOINT_SECRET] });
    server.apply(&[endpoint("graph", "microsoft-graph")]).await;
    let body = json!({ "value": [{ "subscriptionId": "s1", "changeType": "updated", "resource": "users/1", "clientState": ENDPOINT_SECRET }] });
    for _ in 0..2 {
        let answer = server.hook("/hooks/main/graph", "", body.to_string()).await;
        assert!(answer.status().is_success(), "{answer:?}");
    }
    let events = server.query("{ events { nodes { type } } }", json!({})).await;
    assert_eq!(
        events["events"]["nodes"],
        json!([{ "type": "updated" }, { "type": "updated" }])
    );
    server.stop().await;
}
