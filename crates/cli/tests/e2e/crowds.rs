//! Many runs, each with many calls of its own under way, share the few connections that read the database.

use crate::nodes::node;
use crate::support::{Database, Server, eventually};
use serde_json::json;
use std::time::Duration;

/// A start, and all runs; a debug build on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);
const TOKEN: (&str, &str) = ("x-shop-token", "shop-token-0123456789");
const EVENTS: usize = 24;
const ITEMS: usize = 48;

fn documents() -> String {
    let items: Vec<usize> = (1..=ITEMS).collect();
    format!(
        "kind: Endpoint\nname: shop\nconnector: generic\nverify: {{ token: {{ at: 'header:X-Shop-Token' }} }}\nsecrets: [{}]\n---\n\
         kind: Workflow\nname: part\non: {{ manual: {{}} }}\nsteps: [{{ id: told, emit: {{ type: part.made, key: '{{{{ event.data.of }}}}' }} }}]\n---\n\
         kind: Workflow\nname: order\non: {{ event: generic.order }}\nsteps:\n\
         - {{ id: parts, for_each: '{{{{ {items:?} }}}}', key: '{{{{ item }}}}', concurrency: 32, \
             do: [{{ id: part, run: part, with: {{ of: '{{{{ event.data.id }}}}', number: '{{{{ item }}}}' }} }}] }}\n",
        TOKEN.1
    )
}

async fn taken_up_after_a_kill(server: &mut Server) {
    server.apply(&documents());
    for number in 0..EVENTS {
        let order = json!({ "type": "order", "id": format!("o-{number}") });
        assert_eq!(server.hook("shop", &[TOKEN], order.to_string()).await.status, 200);
    }
    // Some have started runs, and wait for them.
    eventually("parts are made", LIMIT, async || {
        (!server.runs(&["--workflow", "part", "--status", "succeeded"]).is_empty()).then_some(())
    })
    .await;
    server.kill();
    server.start_again().await;
    eventually("every order is through", LIMIT, async || {
        (server.runs(&["--workflow", "order", "--status", "succeeded"]).len() == EVENTS).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_start_many_runs_are_taken_up_on_sqlite() {
    taken_up_after_a_kill(&mut Server::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_start_many_runs_are_taken_up_on_postgres() {
    let database = Database::create("crowds").await;
    let mut server = node(&database, "node-1", &[]).await;
    taken_up_after_a_kill(&mut server).await;
    let count = async |of: &str| database.number(&format!("SELECT count(*) FROM run WHERE {of}")).await;
    eventually("all are through", LIMIT, async || {
        (count("status < 2").await == Some(0)).then_some(())
    })
    .await;
    let runs = i64::try_from(EVENTS * (1 + ITEMS)).unwrap();
    assert_eq!(
        (count("status = 2").await, count("true").await),
        (Some(runs), Some(runs))
    );
    drop(server);
    database.drop().await;
}
