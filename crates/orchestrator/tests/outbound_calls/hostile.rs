//! A provider that means harm, or has gone mad: each trick costs a bounded amount and ends with a clear failure.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use weir_connector_sdk::Connector;
use weir_orchestrator::connection::Connection;
use weir_orchestrator::http_client::MAX_RESPONSE_BYTES;
use weir_workflow_engine::{CallFailure, CallResult};

use crate::server::{Reply, Server, json as answer};
use crate::setup::{Bench, connection_with, failure, step};

const MANIFEST: &str = r#"
connector: acme
version: 1.0.0
hosts: ["https://api.acme.test"]
auth: { none: {} }
operations:
  get: { get: /x }
  xml: { get: /x, answer: xml }
  list: { get: /x, items: /data, page: { cursor: { next: /next, into: query.after, max_pages: 20 } } }
  numbered: { get: /x, items: /data, page: { page: { into: query.page, max_pages: 20 } } }
  linked: { get: /x, items: /data, page: { next_url: { from: /next } } }
"#;

/// Sockets on both sides hold some bytes that nobody asked for.
const SOCKET_BUFFERS_BYTES: usize = 16 * 1024 * 1024;

fn connection(server: &Server) -> Arc<Connection> {
    let connector = Arc::new(Connector::parse(MANIFEST, &|_| None).unwrap());
    connection_with(connector, json!({ "base_url": server.url() }), None)
}

async fn call(server: &Server, operation: &str, timeout: Duration) -> CallResult {
    let mut command = step(operation, json!({}));
    command.timeout = timeout;
    command.all_max = matches!(operation, "list" | "numbered" | "linked").then_some(100_000);
    Bench::new().call(&connection(server), &command).await
}

/// What one reply ends with.
async fn end(operation: &str, reply: Reply) -> (CallFailure, usize) {
    let server = Server::start().await;
    server.reply(reply);
    let result = call(&server, operation, Duration::from_secs(60)).await;
    (failure(&result).clone(), server.sent_bytes())
}

#[tokio::test]
async fn a_body_that_says_how_huge_it_is_is_not_read() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 5368709120\r\n\r\n";
    let (failed, sent) = end("get", Reply::Endless(head, vec![b'x'; 65_536], Duration::ZERO)).await;
    assert_eq!(failed.code, "response_too_large");
    assert!(failed.message.contains("8388608 bytes"), "{}", failed.message);
    assert!(sent < SOCKET_BUFFERS_BYTES, "{sent}");
}

#[tokio::test]
async fn a_body_without_end_is_read_up_to_the_bound() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65_536], b"\r\n"].concat();
    let (failed, sent) = end("get", Reply::Endless(head, chunk, Duration::ZERO)).await;
    assert_eq!(failed.code, "response_too_large");
    assert!(sent < MAX_RESPONSE_BYTES + SOCKET_BUFFERS_BYTES, "{sent}");
}

#[tokio::test]
async fn headers_without_end_are_no_answer() {
    let (failed, sent) = end(
        "get",
        Reply::Endless(
            "HTTP/1.1 200 OK\r\n",
            b"x-more: and more\r\n".repeat(64),
            Duration::ZERO,
        ),
    )
    .await;
    assert_eq!(failed.code, "connection_lost");
    assert!(sent < SOCKET_BUFFERS_BYTES, "{sent}");
}

#[tokio::test]
async fn a_slow_drip_ends_with_the_timeout() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-drip: ",
    ] {
        let server = Server::start().await;
        server.reply(Reply::Endless(head, b"x".to_vec(), Duration::from_millis(5)));
        let call = call(&server, "get", Duration::from_millis(300));
        let result = tokio::time::timeout(Duration::from_secs(10), call).await.unwrap();
        assert_eq!(failure(&result).code, "timeout");
    }
}

#[tokio::test]
async fn a_small_body_that_unpacks_to_a_huge_one_is_read_up_to_the_bound() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![b'0'; 1024 * 1024];
    for _ in 0..32 {
        packed.write_all(&zeros).unwrap();
    }
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 128 * 1024, "{}", packed.len());
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        packed.len()
    );
    let (failed, _) = end("get", Reply::Raw([head.as_bytes(), &packed].concat())).await;
    assert_eq!(failed.code, "response_too_large");
}

#[tokio::test]
async fn entities_and_depth_do_not_expand() {
    let xml = |body: String| Reply::Answer(200, vec![("content-type", "text/xml".to_owned())], body);
    let mut laughs = String::from("<!DOCTYPE l [<!ENTITY l0 \"ha\">");
    for level in 1..12 {
        let inner = format!("&l{};", level - 1).repeat(10);
        laughs.push_str(&format!("<!ENTITY l{level} \"{inner}\">"));
    }
    laughs.push_str("]><l>&l11;</l>");
    for (body, message) in [
        (laughs, "a document type declaration is refused"),
        (
            "<!DOCTYPE l SYSTEM \"http://169.254.169.254/\"><l/>".to_owned(),
            "a document type declaration is refused",
        ),
        ("<l>&xxe;</l>".to_owned(), "the entity `xxe`"),
        ("<l>".repeat(300_000), "nested more than 100 deep"),
        (
            format!("<l>{}</l>", "<a/>".repeat(300_000)),
            "more than 250000 elements",
        ),
        (format!("<l{}/>", " a=''".repeat(300_000)), "more than 250000 elements"),
    ] {
        let (failed, _) = end("xml", xml(body)).await;
        assert_eq!(failed.code, "unreadable");
        assert!(failed.message.contains(message), "{}", failed.message);
    }
    let deep = Reply::Answer(
        200,
        vec![("content-type", "application/json".to_owned())],
        "[".repeat(100_000),
    );
    assert_eq!(end("get", deep).await.0.code, "unreadable");
}

#[tokio::test]
async fn lists_without_end_stop_at_their_pages() {
    let server = Server::start().await;
    server.script(|seen| Some(answer(200, json!({ "data": [1], "next": seen.path.len() }))));
    let result = call(&server, "numbered", Duration::from_secs(60)).await;
    assert_eq!(failure(&result).code, "page_limit");
    assert!(
        failure(&result).message.contains("more than 20 pages"),
        "{}",
        failure(&result).message
    );
    assert_eq!(server.seen().len(), 20);
}

#[tokio::test]
async fn cursors_that_come_again_are_noticed() {
    for circle in [1_usize, 2, 3, 7] {
        let server = Server::start().await;
        let count = std::sync::atomic::AtomicUsize::new(0);
        server.script(move |_| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Some(answer(
                200,
                json!({ "data": [1], "next": format!("c{}", number % circle) }),
            ))
        });
        let result = call(&server, "list", Duration::from_secs(60)).await;
        assert_eq!(failure(&result).code, "paging_loop", "{circle}");
        assert!(failure(&result).message.contains("same cursor twice"));
    }
}

#[tokio::test]
async fn a_next_page_elsewhere_is_refused() {
    for next in [
        "http://169.254.169.254/latest",
        "https://evil.test/",
        "//10.0.0.1/x",
        "file:///etc/passwd",
    ] {
        let server = Server::start().await;
        server.reply(answer(200, json!({ "data": [1], "next": next })));
        let result = call(&server, "linked", Duration::from_secs(60)).await;
        assert_eq!(failure(&result).code, "paging_refused", "{next}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_refused() {
    for target in [
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]:1/",
        "http://192.168.0.1/",
    ] {
        let (failed, _) = end(
            "get",
            Reply::Answer(302, vec![("location", target.to_owned())], String::new()),
        )
        .await;
        assert_eq!(failed.code, "egress_refused", "{target}");
    }
}
