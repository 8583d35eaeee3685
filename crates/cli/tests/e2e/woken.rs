//! Runs that a child's end, an event, a person or a resume has woken are taken up at once after a crash, not when the
//! time is over for which they would have waited.

use crate::nodes::node;
use crate::support::{Database, SOON, Server, eventually, stderr};
use crate::upstream::Upstream;
use serde_json::json;
use std::time::Duration;

/// A crash, a takeover, and the calls after it.
const LIMIT: Duration = Duration::from_secs(60);
const TOKEN: (&str, &str) = ("x-shop-token", "shop-token-0123456789");

fn documents(url: &str) -> String {
    let post = |path: &str| {
        format!("{{ id: {path}, call: http.request, connection: bank, with: {{ method: POST, path: /{path} }} }}")
    };
    let (begin, end) = (post("begin"), post("end"));
    format!(
        "kind: Connection\nname: bank\nconnector: http\nconfig: {{ base_url: '{url}', idempotency: {{ header: Key }} }}\n---\n\
         kind: Endpoint\nname: shop\nconnector: generic\nverify: {{ token: {{ at: 'header:X-Shop-Token' }} }}\nsecrets: [{}]\n---\n\
         kind: Workflow\nname: part\non: {{ manual: {{}} }}\nsteps: [{{ id: nap, sleep: 1s }}]\n---\n\
         kind: Workflow\nname: child\non: {{ manual: {{}} }}\nsteps: [{{ id: part, run: part }}, {end}]\n---\n\
         kind: Workflow\nname: event\non: {{ manual: {{}} }}\nsteps: [{{ id: paid, wait_for: {{ event: generic.order.paid, key: '{{{{ arrived.data.id }}}}', equals: '{{{{ \"pay-1\" }}}}' }} }}, {end}]\n---\n\
         kind: Workflow\nname: person\non: {{ manual: {{}} }}\nsteps: [{{ id: ok, approve: 'Go on?' }}, {end}]\n---\n\
         kind: Workflow\nname: held\non: {{ manual: {{}} }}\nsteps: [{begin}, {end}]\n",
        TOKEN.1
    )
}

fn done(server: &Server, arguments: &[&str]) {
    let output = server.weir(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
}

async fn asked(bank: &Upstream, part: &str, count: usize) {
    eventually("the provider was asked", SOON, async || {
        (bank.count(part) >= count).then_some(())
    })
    .await;
}

async fn are(server: &Server, status: &str, count: usize, limit: Duration) {
    eventually(&format!("{count} runs are {status}"), limit, async || {
        (server.runs(&["--status", status]).len() == count).then_some(())
    })
    .await;
}

/// Starts a run of each workflow and wakes it; its last call is under way, and the provider has not answered.
async fn woken(server: &Server, bank: &Upstream) {
    server.apply(&documents(&bank.url));
    bank.hold(&["begin", "end"]);
    for workflow in ["child", "event", "person", "held"] {
        done(server, &["run", "start", workflow]);
    }
    asked(bank, "begin", 1).await;
    let held = server.runs(&["--workflow", "held"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    done(server, &["run", "pause", &held]);
    bank.hold(&["end"]);
    are(server, "paused", 1, SOON).await;
    done(server, &["run", "resume", &held]);
    eventually("the person is asked", SOON, async || {
        let asks = server.list(&["approvals", "--json"]);
        (asks.len() == 1).then_some(())
    })
    .await;
    let person = server.runs(&["--workflow", "person"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    done(server, &["approve", &person, "ok"]);
    let paid = json!({ "type": "order.paid", "id": "pay-1" });
    assert_eq!(server.hook("shop", &[TOKEN], paid.to_string()).await.status, 200);
    asked(bank, "end", 4).await;
    // Whoever looks sees that they are under way, and not that they wait for what has come.
    are(server, "running", 4, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_woken_goes_on_after_a_crash() {
    let bank = Upstream::start().await;
    let mut server = Server::start_with(&[("WEIR_EGRESS_ALLOW", "127.0.0.0/8")]).await;
    woken(&server, &bank).await;
    server.kill();
    bank.hold(&[]);
    server.start_again().await;
    // The child of one of them has succeeded as well.
    are(&server, "succeeded", 5, LIMIT).await;
    assert_eq!(
        bank.count("end"),
        8,
        "each call that was under way is sent again, with its key"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_woken_is_taken_over_from_a_dead_node() {
    let bank = Upstream::start().await;
    let database = Database::create("woken").await;
    let mut first = node(&database, "first", &[]).await;
    woken(&first, &bank).await;
    let mut second = node(&database, "second", &[]).await;
    first.kill();
    bank.hold(&[]);
    are(&second, "succeeded", 5, LIMIT).await;
    assert_eq!(
        bank.count("end"),
        8,
        "each call that was under way is sent again, with its key"
    );
    second.stop().await;
    database.drop().await;
}
