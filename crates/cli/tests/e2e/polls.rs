//! Events from a plain list that nobody sends: the example of docs/polls.md, and what is refused.

use crate::loopback::Loopback;
use crate::support::{SOON, Server, eventually, now_unix_s, post, stderr, stdout};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

const PAGE: &str = include_str!("../../../../docs/polls.md");

/// The YAML blocks of the page that begin with this file's name.
fn example(file: &str) -> String {
    let begin = format!("```yaml\n# {file}\n");
    let (_, rest) = PAGE.split_once(&begin).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// A shop that answers each request with its orders.
struct Shop {
    url: String,
    orders: Arc<Mutex<Vec<Value>>>,
}

impl Shop {
    async fn start() -> Self {
        let loopback = Loopback::bind().await;
        let url = loopback.url.clone();
        let orders: Arc<Mutex<Vec<Value>>> = Arc::default();
        let listed = Arc::clone(&orders);
        loopback.serve(move |_| std::future::ready((200, json!({ "orders": *listed.lock().unwrap() }))));
        Shop { url, orders }
    }

    /// Sets an order that was changed so many seconds ago. Gives the id that its event has.
    fn set(&self, id: u64, total: u64, seconds_ago: i64) -> String {
        let at = i64::try_from(now_unix_s()).unwrap() - seconds_ago;
        let at = chrono::DateTime::from_timestamp(at, 0).unwrap().to_rfc3339();
        let mut orders = self.orders.lock().unwrap();
        orders.retain(|order| order["id"] != id);
        orders.push(json!({ "id": id, "updated_at": at, "total": total }));
        format!("{id}.{at}")
    }
}

async fn ids(server: &Server, endpoint: &str) -> BTreeSet<String> {
    let events = server.events().await;
    let mine = events.iter().filter(|event| event["endpointName"] == endpoint);
    mine.map(|event| event["externalId"].as_str().unwrap().to_owned())
        .collect()
}

async fn arrive(server: &Server, endpoint: &str, expected: &[&String]) {
    let expected: BTreeSet<String> = expected.iter().map(|id| (*id).clone()).collect();
    eventually("the events are there", SOON, async || {
        (ids(server, endpoint).await == expected).then_some(())
    })
    .await;
}

/// Waits until the stored ledger of `endpoint` counts `received` events, and gives its row.
async fn counted(server: &Server, endpoint: &str, received: u64) -> Value {
    eventually("the ledger is stored", SOON, async || {
        let coverage = server.list(&["coverage", endpoint, "--json"]).remove(0);
        (coverage["received"] == received).then_some(coverage)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_documentation_runs() {
    let shop = Shop::start().await;
    let mut server = Server::start().await;
    let first = shop.set(1, 500, 3_600);
    let second = shop.set(2, 1_500, 1_800);
    let documents = example("orders.yaml").replace("https://shop.example.com", &shop.url);
    server.apply(&example("shop.yaml"));
    server.apply(&documents);
    eventually("the list was read", SOON, async || {
        let coverage = server.list(&["coverage", "orders", "--json"]).remove(0);
        (coverage["lastSweep"]["outcome"] == "complete").then_some(())
    })
    .await;
    assert_eq!(
        ids(&server, "orders").await,
        BTreeSet::new(),
        "what was before is no news"
    );
    let third = shop.set(3, 2_000, 0);
    arrive(&server, "orders", &[&third]).await;
    // A kill takes the counts of the last second with it, never an event.
    counted(&server, "orders", 1).await;
    server.kill();
    let changed = shop.set(2, 1_700, 0);
    server.start_again().await;
    arrive(&server, "orders", &[&third, &changed]).await;
    let runs = eventually("both runs are done", SOON, async || {
        let runs = server.runs(&["--status", "succeeded"]);
        (runs.len() == 2).then_some(runs)
    })
    .await;
    assert_eq!(runs.len(), 2);
    let events = server.events().await;
    assert!(events.iter().all(|event| event["source"] == "POLL"), "{events:?}");
    let coverage = counted(&server, "orders", 2).await;
    assert_eq!((&coverage["recovered"], &coverage["level"]), (&json!(0), &json!("B")));
    // Another endpoint may begin earlier, and has its own memory.
    let day = chrono::DateTime::from_timestamp(i64::try_from(now_unix_s()).unwrap() - 7_200, 0).unwrap();
    server.apply(&format!(
        "kind: Endpoint\nname: earlier\nconnection: shop\npoll: orders\nsince: '{}'\n",
        day.to_rfc3339()
    ));
    arrive(&server, "earlier", &[&first, &third, &changed]).await;
    assert!(!ids(&server, "earlier").await.contains(&second), "it was changed since");
    let exported = server.weir(&["export"]);
    let text = stdout(&exported);
    assert!(text.contains("poll: orders") && text.contains("since: "), "{text}");
    assert!(!text.contains("receive: never"), "{text}");
    let again = server.try_apply(&text, &["--dry-run"]);
    assert!(again.status.success(), "{}{}", stdout(&again), stderr(&again));
    let answer = post(&format!("{}/hooks/main/orders", server.url), &[], "{}").await;
    assert_eq!(answer.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_with_its_reason() {
    let shop = Shop::start().await;
    let server = Server::start().await;
    let documents = example("orders.yaml").replace("https://shop.example.com", &shop.url);
    server.apply(&example("shop.yaml"));
    server.apply(&documents);
    let endpoint = "kind: Endpoint\nname: other\nconnection: shop\n";
    for (document, expected) in [
        (format!("{endpoint}poll: invoices\n"), "has no poll `invoices`"),
        (endpoint.to_owned(), "name with `poll` the list to read, of its `polls`: orders"),
        (
            format!("{endpoint}poll: orders\nreceive: webhooks\n"),
            "an endpoint with a `poll` takes no webhooks",
        ),
        (format!("{endpoint}since: 2026-11-01\n"), "`since` belongs to `poll`"),
        (format!("{endpoint}poll: orders\nsince: yesterday\n"), "`since` is a time"),
        (
            "kind: Endpoint\nname: other\nconnector: shop\npoll: orders\n".to_owned(),
            "needs a `connection`",
        ),
        (
            "kind: Endpoint\nname: orders\nconnection: stripe\nreceive: never\n---\nkind: Connection\nname: stripe\nconnector: stripe\n"
                .to_owned(),
            "endpoint `orders` polls `orders`",
        ),
    ] {
        let refused = server.try_apply(&document, &[]);
        assert!(
            !refused.status.success() && stderr(&refused).contains(expected),
            "{document}\n{}{}",
            stdout(&refused),
            stderr(&refused)
        );
    }
    // Without a time nothing tells what is news.
    let timeless = example("shop.yaml").replace("      time: /updated_at\n", "");
    let refused = server.try_apply(&timeless, &[]);
    assert!(
        stderr(&refused).contains("without `time` nothing tells"),
        "{}",
        stderr(&refused)
    );
}
