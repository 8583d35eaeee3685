//! How long the server waits: for a sender that drips, and for an answer that does not come. In real time.

use crate::support::{Database, SOON, Server, eventually, http};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

const ENDPOINT: &str = "
kind: Endpoint
name: orders
connector: generic
verify: { token: { at: 'header:X-Token' } }
secrets: [t]
";

/// Sends a text, and then a byte now and then, until the server closes the connection. Gives what it said before, and
/// how long that took.
async fn drip(server: &Server, text: &str) -> (String, Duration) {
    let address = server.url.strip_prefix("http://").unwrap();
    let (mut receiving, mut sending) = TcpStream::connect(address).await.unwrap().into_split();
    let begun = Instant::now();
    sending.write_all(text.as_bytes()).await.unwrap();
    let dripping = tokio::spawn(async move {
        while sending.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(500)).await;
        }
    });
    let mut said = Vec::new();
    let over = timeout(Duration::from_secs(60), async {
        while receiving.read_buf(&mut said).await.is_ok_and(|read| read > 0) {}
    });
    over.await.expect("the server closes the connection");
    dripping.abort();
    (String::from_utf8(said).unwrap(), begun.elapsed())
}

/// `HEADER_PATIENCE`, `BODY_PATIENCE`
#[tokio::test(flavor = "multi_thread")]
async fn senders_that_drip_are_sent_away() {
    let mut server = Server::start().await;
    server.apply(ENDPOINT);
    let head = "POST /hooks/main/orders HTTP/1.1\r\nhost: weir.test\r\n";
    let in_headers = format!("{head}x-slow: ");
    let in_body = format!("{head}x-token: t\r\ncontent-length: 1000\r\n\r\n");
    let ((headers, headers_took), (body, body_took)) =
        tokio::join!(drip(&server, &in_headers), drip(&server, &in_body));
    assert!(headers.starts_with("HTTP/1.1 408 "), "{headers}");
    // The clock of the HTTP server is half a second coarse.
    let about = |took: Duration, seconds: u64| (seconds - 1..seconds + 9).contains(&took.as_secs());
    assert!(about(headers_took, 10), "{headers_took:?}");
    assert!(
        body.starts_with("HTTP/1.1 408 ") && body.contains("BODY_TIMEOUT") && body.contains("within 30 s"),
        "{body}"
    );
    assert!(about(body_took, 30), "{body_took:?}");
    assert!(server.is_alive());
    let quick = server.hook("orders", &[("x-token", "t")], r#"{"type":"made"}"#).await;
    assert_eq!(quick.status, 200, "{}", quick.text);
}

/// `TIME_LIMIT`: nobody reads the runs while their table is locked.
#[tokio::test(flavor = "multi_thread")]
async fn a_graphql_request_has_ten_seconds() {
    let database = Database::create("patience").await;
    let server = Server::start_with(&database.settings()).await;
    let ask = async || {
        let request = http()
            .post(format!("{}/graphql", server.url))
            .bearer_auth(&server.token);
        let request = request
            .header("accept", "application/graphql-response+json")
            .json(&json!({ "query": "{ runs { nodes { id } } }" }));
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let locked = database.locked("run").await;
    let begun = Instant::now();
    let (status, body) = ask().await;
    let took = begun.elapsed();
    assert_eq!(
        (status, &body["errors"][0]["extensions"]["code"]),
        (504, &json!("TIMEOUT")),
        "{body:#}"
    );
    assert!((10..20).contains(&took.as_secs()), "{took:?}");
    drop(locked);
    eventually("the runs are read again", SOON, async || {
        let (status, body) = ask().await;
        (status == 200 && body["data"]["runs"]["nodes"] == json!([])).then_some(())
    })
    .await;
    drop(server);
    database.drop().await;
}
