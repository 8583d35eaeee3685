//! Previews of retries and replays that look what has come for waiting steps.

use crate::support::{ENDPOINT_SECRET, TestServer, orders_endpoint};
use crate::upstream::{Reply, Upstream};
use serde_json::{Value, json};

/// Pays, waits until the order is paid, ships it and tells of it.
fn documents(url: &str) -> Vec<Value> {
    let post = |path: &str| json!({ "method": "POST", "path": path, "body": { "order": "{{ event.data.id }}" } });
    vec![
        orders_endpoint(),
        json!({ "kind": "Connection", "name": "shop", "connector": "http", "config": { "base_url": url } }),
        json!({
            "kind": "Workflow", "name": "ship",
            "on": { "event": "generic.order.placed" },
            "steps": [
                { "id": "pay", "call": "http.request", "connection": "shop", "with": post("/pay") },
                { "id": "paid", "timeout": "1d", "wait_for": {
                    "event": "generic.order.paid", "key": "{{ arrived.data.order }}", "equals": "{{ event.data.id }}" } },
                { "id": "ship", "call": "http.request", "connection": "shop", "with": post("/ship") },
                { "id": "tell", "call": "http.request", "connection": "shop", "with": post("/tell") },
            ],
        }),
    ]
}

async fn hook(server: &TestServer, body: Value) -> Value {
    let answer = server
        .hook("/hooks/main/orders", ENDPOINT_SECRET, body.to_string())
        .await;
    assert!(answer.status().is_success(), "{answer:?}");
    answer.json().await.unwrap()
}

async fn preview(server: &TestServer, run: &str, options: Value) -> Value {
    let query = "query($id: ID!, $options: ReplayOptionsInput) { replayPreview(runId: $id, options: $options) { kept \
                 note answered { step } new { step } confirm } }";
    let variables = json!({ "id": run, "options": options });
    server.query(query, variables).await["replayPreview"].clone()
}

fn steps(preview: &Value, kind: &str) -> Vec<String> {
    let calls = preview[kind].as_array().unwrap().iter();
    calls.map(|call| call["step"].as_str().unwrap().to_owned()).collect()
}

/// A run of an order that failed at its last step.
async fn failed_run(server: &TestServer, shop: &Upstream) -> String {
    shop.next([
        Reply::Json(200, "{}"),
        Reply::Json(200, "{}"),
        Reply::Json(422, r#"{"error":"no"}"#),
    ]);
    let event = hook(server, json!({ "type": "order.placed", "id": "o_1" })).await["event"].clone();
    let query = format!("{{ event(id: {event}) {{ runs {{ id status }} }} }}");
    let told = server
        .until(&query, |data| data["event"]["runs"][0]["status"] == "WAITING")
        .await;
    let run = told["event"]["runs"][0]["id"].as_str().unwrap().to_owned();
    hook(server, json!({ "type": "order.paid", "id": "p_1", "order": "o_1" })).await;
    let failed = server.finished(&run).await;
    assert_eq!(failed["error"]["step"], "tell", "{failed:#}");
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_goes_on_behind_a_wait_whose_event_is_there() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&shop.url)).await;
    let run = failed_run(&server, &shop).await;

    // At the failed step, behind the wait: it is taken over.
    let failed_step = preview(&server, &run, Value::Null).await;
    assert_eq!(failed_step["kept"], json!(["pay", "paid", "ship"]), "{failed_step:#}");
    assert_eq!(
        (steps(&failed_step, "new"), &failed_step["note"]),
        (vec!["tell".to_owned()], &Value::Null)
    );
    // Before it: the wait is done again, and the event is found again.
    for options in [
        json!({ "from": "START" }),
        json!({ "from": "STEP", "step": "pay" }),
        json!({ "from": "STEP", "step": "paid" }),
    ] {
        let shown = preview(&server, &run, options).await;
        assert_eq!(steps(&shown, "new"), ["tell"], "{shown:#}");
        assert!(steps(&shown, "answered").contains(&"ship".to_owned()), "{shown:#}");
        assert_eq!(shown["note"], Value::Null);
    }
    // Another order waits for another payment, which is open until it is there.
    let other = json!({ "from": "START", "body": { "type": "order.placed", "id": "o_2" } });
    let open = preview(&server, &run, other.clone()).await;
    assert_eq!(steps(&open, "new"), ["pay"], "{open:#}");
    assert_eq!(open["note"], "the run would wait at `paid` before it goes on");
    hook(&server, json!({ "type": "order.paid", "id": "p_2", "order": "o_2" })).await;
    let there = preview(&server, &run, other).await;
    assert_eq!(steps(&there, "new"), ["pay", "ship", "tell"], "{there:#}");
    assert_ne!(
        open["confirm"], there["confirm"],
        "what was confirmed is not what would be done"
    );
    server.stop().await;
}
