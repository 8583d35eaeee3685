//! Runs that others started, when these need them no longer.

use crate::nodes::node;
use crate::support::{Database, Server, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const TOKEN: (&str, &str) = ("x-shop-token", "shop-token-0123456789");
const EVENTS: usize = 20;

/// The sibling of the `run` step fails about when the start of the run is committed: before, at that moment, or after.
fn documents() -> String {
    format!(
        "kind: Endpoint\nname: shop\nconnector: generic\nverify: {{ token: {{ at: 'header:X-Shop-Token' }} }}\nsecrets: [{}]\n",
        TOKEN.1
    ) + "---\n\
         kind: Workflow\nname: part\non: { manual: {} }\nsteps:\n\
         - { id: rest, sleep: 5s }\n\
         - { id: told, emit: { type: part.made, key: '{{ event.data.of }}' } }\n\
         ---\n\
         kind: Workflow\nname: order\non: { event: generic.order }\nsteps:\n\
         - id: book\n  try:\n  - id: both\n    parallel:\n\
         \x20     a: [{ id: part, run: part, with: { of: '{{ event.data.id }}' }, \
         undo: [{ id: back, emit: { type: part.returned, key: '{{ event.data.id }}' } }] }]\n\
         \x20     b: [{ id: seen, emit: { type: order.seen, key: '{{ event.data.id }}' } }, { id: bad, set: { total: '{{ event.data.total }}' } }]\n\
         \x20 catch: [{ id: undo, compensate: all }]\n"
}

async fn left(server: &mut Server) {
    server.apply(&documents());
    for number in 0..EVENTS {
        let order = json!({ "type": "order", "id": format!("o-{number}") });
        assert_eq!(server.hook("shop", &[TOKEN], order.to_string()).await.status, 200);
    }
    let status = |run: &Value| run["status"].as_str().unwrap_or_default().to_owned();
    let orders = eventually("every order is over", LIMIT, async || {
        let orders = server.runs(&["--workflow", "order"]);
        let over = orders
            .iter()
            .filter(|run| matches!(&*status(run), "SUCCEEDED" | "FAILED"));
        (over.count() == EVENTS).then_some(orders)
    })
    .await;
    let parts = eventually("every part is over", LIMIT, async || {
        let parts = server.runs(&["--workflow", "part"]);
        let open = parts
            .iter()
            .any(|run| !matches!(&*status(run), "SUCCEEDED" | "FAILED" | "CANCELED"));
        (!open).then_some(parts)
    })
    .await;
    // A start that never left is given up; whatever was started was asked to end, and whoever undoes says that it stands.
    assert!(!parts.is_empty(), "no order got as far as starting its part");
    assert!(parts.iter().all(|run| status(run) == "CANCELED"), "{parts:#?}");
    let stands = orders
        .iter()
        .filter(|run| run["errorCode"] == "compensation_failed" || run["error"]["code"] == "compensation_failed")
        .count();
    assert_eq!(stands, parts.len(), "{orders:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_needs_any_more_is_asked_to_end_on_sqlite() {
    left(&mut Server::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_needs_any_more_is_asked_to_end_on_postgres() {
    let database = Database::create("children").await;
    left(&mut node(&database, "node-1", &[]).await).await;
    database.drop().await;
}
