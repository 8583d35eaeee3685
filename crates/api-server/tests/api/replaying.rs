//! Replays from a step, on another version, with an edited event: shown first, and nothing sent twice.

use crate::support::{ADMIN, TestServer};
use crate::upstream::{Reply, Upstream};
use serde_json::{Value, json};
use weir_orchestrator::repair::MAX_FAMILY;

const START: &str = "mutation($input: RunStartInput!) { runStart(input: $input) { runId } }";
const CALLS: &str = "{ step operation class changed sends }";
const REPLAY: &str = "mutation($input: RunReplayInput!) { runReplay(input: $input) { runId preview { confirm } userErrors { code path message } } }";

fn documents(url: &str, mail: &str) -> Vec<Value> {
    vec![
        json!({ "kind": "Connection", "name": "shop", "connector": "http",
            "config": { "base_url": url, "idempotency": { "header": "Idempotency-Key" } } }),
        json!({
            "kind": "Workflow", "name": "order",
            "on": { "manual": {} },
            "steps": [
                { "id": "price", "call": "http.request", "connection": "shop", "with": { "method": "GET", "path": "/price" } },
                { "id": "pay", "call": "http.request", "connection": "shop",
                  "with": { "method": "POST", "path": "/pay", "body": { "amount": "{{ steps.price.amount }}" } } },
                { "id": "mail", "call": "http.request", "connection": "shop",
                  "with": { "method": "POST", "path": mail, "body": { "to": "{{ event.data.to }}", "payment": "{{ steps.pay.id }}" } } },
            ],
        }),
    ]
}

async fn failed_order(server: &TestServer, shop: &Upstream) -> Value {
    shop.next([
        Reply::Json(200, r#"{"amount":7}"#),
        Reply::Json(200, r#"{"id":"p_1"}"#),
        Reply::Json(422, r#"{"error":"no such mailbox"}"#),
    ]);
    let input = json!({ "input": { "workflow": "order", "input": { "to": "a@b.test" } } });
    let started = server.query(START, input).await;
    let run = server.finished(started["runStart"]["runId"].as_str().unwrap()).await;
    assert_eq!(
        (&run["status"], &run["error"]["step"]),
        (&json!("FAILED"), &json!("mail")),
        "{run:#}"
    );
    run
}

async fn preview(server: &TestServer, run: &Value, options: Value) -> Value {
    let query = format!(
        "query($id: ID!, $options: ReplayOptionsInput) {{ replayPreview(runId: $id, options: $options) {{ confirm from \
         versionNumber kept note reads {CALLS} answered {CALLS} new {CALLS} unknown {CALLS} }} }}"
    );
    let variables = json!({ "id": run["id"], "options": options });
    server.query(&query, variables).await["replayPreview"].clone()
}

fn counts(preview: &Value) -> [usize; 4] {
    ["reads", "answered", "new", "unknown"].map(|kind| preview[kind].as_array().unwrap().len())
}

/// Replays as shown, and gives the new run when it is over.
async fn replay(server: &TestServer, run: &Value, options: Value) -> Value {
    let shown = preview(server, run, options.clone()).await;
    let input =
        json!({ "input": { "runId": run["id"], "confirm": shown["confirm"], "options": options, "again": true } });
    let replayed = server.query(REPLAY, input).await["runReplay"].clone();
    assert_eq!(replayed["userErrors"], json!([]), "{replayed:#}");
    server.finished(replayed["runId"].as_str().unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_run_is_retried_from_its_failed_step() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&shop.url, "/mail")).await;
    let run = failed_order(&server, &shop).await;
    let shown = preview(&server, &run, Value::Null).await;
    assert_eq!(
        (&shown["from"], &shown["kept"], counts(&shown)),
        (&json!("mail"), &json!(["price", "pay"]), [0, 0, 1, 0]),
        "{shown:#}"
    );
    assert_eq!(shown["new"][0]["class"], "KEYED");
    // From the start the read is made again and the payment answered.
    let from_start = preview(&server, &run, json!({ "from": "START" })).await;
    assert_eq!(counts(&from_start), [1, 1, 1, 0], "{from_start:#}");
    let second = replay(&server, &run, Value::Null).await;
    assert_eq!(second["status"], "SUCCEEDED", "{second:#}");
    assert_eq!(
        second["steps"][1]["attempts"][0]["exchanges"][0]["status"], 200,
        "taken over as it was"
    );
    assert_eq!(
        (shop.count("/price"), shop.count("/pay"), shop.count("/mail")),
        (1, 1, 2)
    );
    // What succeeded has no failed step.
    let query = "query($id: ID!) { replayPreview(runId: $id, options: { from: FAILED_STEP }) { confirm } }";
    let answer = server.raw_query(ADMIN, query, json!({ "id": second["id"] })).await;
    assert!(
        answer["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("did not fail")
    );
    let audit = server
        .orchestrator
        .store()
        .run_family(
            server.orchestrator.default_workspace(),
            run["id"].as_str().unwrap().parse().unwrap(),
        )
        .await
        .unwrap();
    assert_eq!(audit.len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_event_changes_requests_and_keeps_the_rest() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&shop.url, "/mail")).await;
    let run = failed_order(&server, &shop).await;
    shop.next([Reply::Json(200, r#"{"amount":7}"#)]);
    let options = json!({ "from": "START", "body": { "to": "other@b.test" } });
    let shown = preview(&server, &run, options.clone()).await;
    // The same payment, another mail.
    assert_eq!(counts(&shown), [1, 1, 1, 0], "{shown:#}");
    assert_eq!(shown["answered"][0]["step"], "pay");
    // A confirmation is good for what was shown and nothing else.
    let input = json!({ "input": { "runId": run["id"], "confirm": shown["confirm"], "options": { "from": "START" } } });
    let other = server.query(REPLAY, input).await["runReplay"].clone();
    assert_eq!(other["userErrors"][0]["code"], "PREVIEW_CHANGED");
    let second = replay(&server, &run, options).await;
    assert_eq!(second["status"], "SUCCEEDED", "{second:#}");
    assert_eq!((shop.count("/pay"), shop.count("/mail")), (1, 2));
    let mails = shop.requests();
    assert_eq!(mails.last().unwrap().1, r#"{"to":"other@b.test","payment":"p_1"}"#);
    // The new run has an event of its own, the old one is as it was; a replay of the replay is of the same family.
    let query = "query($id: ID!) { run(id: $id) { rootId event { source body { text } } } }";
    let told = server.query(query, json!({ "id": second["id"] })).await["run"].clone();
    assert_eq!(
        (&told["rootId"], &told["event"]["body"]["text"]),
        (&run["id"], &json!(r#"{"to":"other@b.test"}"#))
    );
    let old = server.query(query, json!({ "id": run["id"] })).await["run"].clone();
    assert_eq!(old["event"]["body"]["text"], r#"{"to":"a@b.test"}"#);
    shop.next([Reply::Json(200, r#"{"amount":7}"#)]);
    let third = replay(&server, &second, json!({ "from": "START" })).await;
    assert_eq!(third["status"], "SUCCEEDED");
    assert_eq!(
        (shop.count("/pay"), shop.count("/mail")),
        (1, 2),
        "all answered by the ledger"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_live_version_takes_over_what_the_old_one_did() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&shop.url, "/mail")).await;
    let run = failed_order(&server, &shop).await;
    server.apply(&documents(&shop.url, "/letters")).await;
    let pinned = preview(&server, &run, Value::Null).await;
    let live = preview(&server, &run, json!({ "version": "LIVE" })).await;
    assert_eq!(
        (&pinned["versionNumber"], &live["versionNumber"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        (&live["from"], &live["new"][0]["step"]),
        (&json!("mail"), &json!("mail"))
    );
    let second = replay(&server, &run, json!({ "version": "LIVE" })).await;
    assert_eq!(second["status"], "SUCCEEDED", "{second:#}");
    assert_eq!(
        (shop.count("/pay"), shop.count("/mail"), shop.count("/letters")),
        (1, 1, 1)
    );
    for (options, part) in [
        (json!({ "from": "STEP", "step": "nowhere" }), "has no step `nowhere`"),
        (json!({ "from": "STEP" }), "missing"),
        (json!({ "from": "START", "step": "mail" }), "goes with"),
    ] {
        let query = "query($id: ID!, $options: ReplayOptionsInput) { replayPreview(runId: $id, options: $options) { confirm } }";
        let answer = server
            .raw_query(ADMIN, query, json!({ "id": run["id"], "options": options }))
            .await;
        let message = answer["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_replayed_so_many_times() {
    let server = TestServer::start().await;
    server
        .apply(&[json!({
            "kind": "Workflow", "name": "order",
            "on": { "manual": {} },
            "steps": [{ "id": "note", "set": { "a": 1 } }],
        })])
        .await;
    let started = server
        .query(START, json!({ "input": { "workflow": "order", "input": {} } }))
        .await;
    let first = server.finished(started["runStart"]["runId"].as_str().unwrap()).await;
    for _ in 1..MAX_FAMILY {
        replay(&server, &first, json!({})).await;
    }
    let input = json!({ "input": { "runId": first["id"], "confirm": "x" } });
    let refused = server.query(REPLAY, input).await["runReplay"].clone();
    assert_eq!(refused["userErrors"][0]["code"], "NOT_REPLAYABLE", "{refused:#}");
    server.stop().await;
}
