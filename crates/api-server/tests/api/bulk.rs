//! Many runs at once: shown in sum, replayed each once, watched and stopped.

use crate::support::{ADMIN, TestServer};
use crate::upstream::{Reply, Upstream};
use serde_json::{Value, json};

const START: &str = "mutation($input: RunStartInput!) { runStart(input: $input) { runId } }";
const PREVIEW: &str = "query($filter: BulkFilterInput!, $options: ReplayOptionsInput) { bulkReplayPreview(filter: $filter, options: $options) \
    { runs more leftOut { runId reason } reads effects { operation class answered sent blocked } summary confirm } }";
const REPLAY: &str = "mutation($input: BulkReplayInput!) { bulkReplay(input: $input) { bulkId preview { confirm runs } userErrors { code path message } } }";

fn documents(url: &str) -> Vec<Value> {
    vec![
        json!({ "kind": "Connection", "name": "shop", "connector": "http", "config": { "base_url": url } }),
        json!({
            "kind": "Workflow", "name": "order",
            "on": { "manual": {} },
            "steps": [
                { "id": "pay", "call": "http.request", "connection": "shop", "with": { "method": "POST", "path": "/pay", "body": "{{ event.data.n }}" } },
                { "id": "mail", "call": "http.request", "connection": "shop", "with": { "method": "POST", "path": "/mail", "body": "{{ event.data.n }}" } },
            ],
        }),
    ]
}

/// So many runs that failed at their second step, oldest first.
async fn failed_orders(server: &TestServer, shop: &Upstream, count: usize) -> Vec<Value> {
    let mut runs = Vec::new();
    for n in 0..count {
        shop.next([Reply::Json(200, "{}"), Reply::Json(422, "{}")]);
        let started = server
            .query(START, json!({ "input": { "workflow": "order", "input": { "n": n } } }))
            .await;
        let run = server.finished(started["runStart"]["runId"].as_str().unwrap()).await;
        assert_eq!(run["error"]["step"], "mail", "{run:#}");
        runs.push(run);
    }
    runs
}

async fn shown(server: &TestServer, filter: &Value) -> Value {
    server.query(PREVIEW, json!({ "filter": filter })).await["bulkReplayPreview"].clone()
}

async fn begin(server: &TestServer, filter: &Value, confirm: &Value) -> Value {
    let input = json!({ "input": { "filter": filter, "confirm": confirm } });
    server.query(REPLAY, input).await["bulkReplay"].clone()
}

async fn over(server: &TestServer, id: &str) -> Value {
    let query = format!(
        "{{ bulkOperation(id: \"{id}\") {{ status total pending started skipped createdBy finishedAt filter \
         items {{ runId state reason replay {{ id status replayOf {{ id }} }} }} }} }}"
    );
    let over = |data: &Value| {
        let bulk = &data["bulkOperation"];
        let items = bulk["items"].as_array().unwrap();
        bulk["status"] != "RUNNING" && items.iter().all(|item| item["replay"]["status"] != "RUNNING")
    };
    server.until(&query, over).await["bulkOperation"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_runs_are_shown_in_sum_and_replayed_once_each() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&shop.url)).await;
    let runs = failed_orders(&server, &shop, 5).await;
    let filter = json!({ "workflow": "order", "errorCode": runs[0]["error"]["code"], "errorStep": "mail" });
    let preview = shown(&server, &filter).await;
    assert_eq!(
        preview["summary"],
        "5 runs: 0 reads, 0 effects answered from the record, 5 sent (http.request 5)"
    );
    // From the start, the payments are answered.
    let from_start = json!({ "filter": filter, "options": { "from": "START" } });
    let whole = server.query(PREVIEW, from_start).await["bulkReplayPreview"].clone();
    assert_eq!(
        whole["effects"],
        json!([{ "operation": "request", "class": "BLIND", "answered": 5, "sent": 5, "blocked": 0 }])
    );
    let guessed = begin(&server, &filter, &json!("guess")).await;
    assert_eq!(
        (
            &guessed["bulkId"],
            &guessed["userErrors"][0]["code"],
            &guessed["preview"]["confirm"]
        ),
        (&Value::Null, &json!("PREVIEW_CHANGED"), &preview["confirm"])
    );
    let begun = begin(&server, &filter, &preview["confirm"]).await;
    let bulk = over(&server, begun["bulkId"].as_str().unwrap()).await;
    assert_eq!(
        (
            &bulk["status"],
            &bulk["total"],
            &bulk["started"],
            &bulk["skipped"],
            &bulk["pending"]
        ),
        (&json!("FINISHED"), &json!(5), &json!(5), &json!(0), &json!(0)),
        "{bulk:#}"
    );
    for (run, item) in runs.iter().zip(bulk["items"].as_array().unwrap()) {
        assert_eq!(
            (&item["runId"], &item["replay"]["replayOf"]["id"]),
            (&run["id"], &run["id"])
        );
        assert_eq!(item["replay"]["status"], "SUCCEEDED");
    }
    assert_eq!((shop.count("/pay"), shop.count("/mail")), (5, 10));
    // Nothing is left that fits; the failed runs have replays now.
    assert_eq!(shown(&server, &filter).await["runs"], 0);
    let none = begin(&server, &filter, &shown(&server, &filter).await["confirm"]).await;
    assert_eq!(none["userErrors"][0]["code"], "NOT_REPLAYABLE");
    let listed = server
        .query("{ bulkOperations { nodes { id status } } }", json!({}))
        .await;
    assert_eq!(listed["bulkOperations"]["nodes"][0]["id"], begun["bulkId"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_since_it_was_shown_is_left_out() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&shop.url)).await;
    let runs = failed_orders(&server, &shop, 2).await;
    let filter = json!({ "workflow": "order" });
    let preview = shown(&server, &filter).await;
    // Two people confirm the same preview at the same time: each run is replayed once all the same.
    let (one, two) = tokio::join!(
        begin(&server, &filter, &preview["confirm"]),
        begin(&server, &filter, &preview["confirm"])
    );
    let mut started = 0;
    for begun in [one, two] {
        match begun["bulkId"].as_str() {
            Some(id) => started += over(&server, id).await["started"].as_u64().unwrap(),
            None => assert!(
                ["PREVIEW_CHANGED", "NOT_REPLAYABLE"].contains(&begun["userErrors"][0]["code"].as_str().unwrap())
            ),
        }
    }
    assert_eq!((started, shop.count("/mail")), (2, 4), "{runs:#?}");
    for (filter, message) in [
        (json!({ "status": "RUNNING" }), "over"),
        (json!({ "workflow": "nobody" }), "not there"),
    ] {
        let answer = server.raw_query(ADMIN, PREVIEW, json!({ "filter": filter })).await;
        assert!(
            answer["errors"][0]["message"].as_str().unwrap().contains(message),
            "{answer:#}"
        );
    }
    let stop =
        "mutation($input: BulkStopInput!) { bulkStop(input: $input) { bulk { status } userErrors { code message } } }";
    let listed = server.query("{ bulkOperations { nodes { id } } }", json!({})).await;
    let id = &listed["bulkOperations"]["nodes"][0]["id"];
    let late = server.query(stop, json!({ "input": { "id": id } })).await;
    assert_eq!(late["bulkStop"]["userErrors"][0]["message"], "the operation is over");
    server.stop().await;
}

/// Replays that do not end keep further ones waiting; a stop is the end of it, and live events have their place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_stays_behind_live_events_and_can_be_stopped() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&shop.url)).await;
    let bound = weir_orchestrator::repair::BULK_IN_FLIGHT;
    failed_orders(&server, &shop, bound + 4).await;
    let filter = json!({ "workflow": "order" });
    let preview = shown(&server, &filter).await;
    shop.hold();
    let begun = begin(&server, &filter, &preview["confirm"]).await;
    let id = begun["bulkId"].as_str().unwrap();
    let query = format!("{{ bulkOperation(id: \"{id}\") {{ status started pending }} }}");
    let full = server
        .until(&query, |data| data["bulkOperation"]["started"] == json!(bound))
        .await;
    assert_eq!(full["bulkOperation"]["pending"], 4);
    let stop = "mutation($input: BulkStopInput!) { bulkStop(input: $input) { bulk { status } userErrors { code } } }";
    let stopped = server.query(stop, json!({ "input": { "id": id } })).await;
    assert_eq!(stopped["bulkStop"]["bulk"]["status"], "STOPPED");
    shop.release();
    let bulk = over(&server, id).await;
    assert_eq!(
        (&bulk["status"], &bulk["pending"]),
        (&json!("STOPPED"), &json!(4)),
        "{bulk:#}"
    );
    server.stop().await;
}
