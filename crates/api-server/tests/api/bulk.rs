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
        (json!({ "workflow": "nobody" }), "there is no workflow `nobody`"),
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

const ASK_PREVIEW: &str = "query($filter: OpenRunFilterInput!, $request: BulkRequest!) { bulkRequestPreview(filter: $filter, request: $request) \
    { runs more byStatus { status runs } effects { operation class onTheWay unknown } summary confirm } }";
const ASK: &str =
    "mutation($input: BulkRequestInput!) { bulkRequest(input: $input) { bulkId userErrors { code path message } } }";

/// Runs that sleep for a day, and one whose payment is on its way.
async fn open_runs(server: &TestServer, shop: &Upstream) -> Vec<String> {
    let mut runs = Vec::new();
    for workflow in ["nap", "nap", "order"] {
        if workflow == "order" {
            shop.hold();
        }
        let started = server
            .query(START, json!({ "input": { "workflow": workflow, "input": { "n": 1 } } }))
            .await;
        runs.push(started["runStart"]["runId"].as_str().unwrap().to_owned());
    }
    server
        .until("{ runs(filter: { status: WAITING }) { nodes { id } } }", |data| {
            data["runs"]["nodes"].as_array().unwrap().len() == 2
        })
        .await;
    while shop.count("/pay") == 0 {
        tokio::task::yield_now().await;
    }
    runs
}

async fn asked(server: &TestServer, filter: &Value, request: &str, confirm: &Value) -> Value {
    let input = json!({ "input": { "filter": filter, "request": request, "reason": "a mistake", "confirm": confirm } });
    server.query(ASK, input).await["bulkRequest"].clone()
}

async fn ask_preview(server: &TestServer, filter: &Value, request: &str) -> Value {
    let variables = json!({ "filter": filter, "request": request });
    server.query(ASK_PREVIEW, variables).await["bulkRequestPreview"].clone()
}

async fn status_of(server: &TestServer, run: &str, wanted: &str) {
    let query = format!("{{ run(id: \"{run}\") {{ status }} }}");
    server.until(&query, |data| data["run"]["status"] == wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_runs_are_shown_and_then_held_let_go_on_and_canceled() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    let mut all = documents(&shop.url);
    all.push(
        json!({ "kind": "Workflow", "name": "nap", "on": { "manual": {} }, "steps": [{ "id": "nap", "sleep": "1d" }] }),
    );
    server.apply(&all).await;
    let runs = open_runs(&server, &shop).await;

    let naps = json!({ "workflow": "nap" });
    let preview = ask_preview(&server, &naps, "PAUSE").await;
    assert_eq!(
        preview["summary"],
        "2 runs (2 waiting): 0 effects on their way, 0 of unknown fate"
    );
    let begun = asked(&server, &naps, "PAUSE", &preview["confirm"]).await;
    let id = begun["bulkId"].as_str().unwrap();
    let query = format!("{{ bulkOperation(id: \"{id}\") {{ action status total started skipped pending }} }}");
    let done = server
        .until(&query, |data| data["bulkOperation"]["status"] == "FINISHED")
        .await;
    assert_eq!(
        done["bulkOperation"],
        json!({ "action": "PAUSE", "status": "FINISHED", "total": 2, "started": 2, "skipped": 0, "pending": 0 })
    );
    for run in &runs[..2] {
        status_of(&server, run, "PAUSED").await;
    }
    // Who stands still is not asked to again; one of them is let go on by hand, which is not what was shown.
    assert_eq!(ask_preview(&server, &naps, "PAUSE").await["runs"], 0);
    let resume = ask_preview(&server, &json!({}), "RESUME").await;
    assert_eq!(resume["byStatus"], json!([{ "status": "PAUSED", "runs": 2 }]));
    let one = "mutation($input: RunResumeInput!) { runResume(input: $input) { userErrors { message } } }";
    server.query(one, json!({ "input": { "runId": runs[0] } })).await;
    status_of(&server, &runs[0], "WAITING").await;
    let begun = asked(&server, &json!({}), "RESUME", &resume["confirm"]).await;
    assert!(
        begun["bulkId"].is_string(),
        "fewer than were shown is no surprise: {begun:#}"
    );
    status_of(&server, &runs[1], "WAITING").await;

    // What is on its way is said before, and waited for.
    let everything = json!({});
    let preview = ask_preview(&server, &everything, "CANCEL").await;
    assert_eq!(
        preview["summary"],
        "3 runs (1 running, 2 waiting): 1 effect on their way (http.request 1), 0 of unknown fate"
    );
    assert_eq!(
        preview["effects"],
        json!([{ "operation": "http.request", "class": "BLIND", "onTheWay": 1, "unknown": 0 }])
    );
    let later = server
        .query(START, json!({ "input": { "workflow": "nap", "input": {} } }))
        .await["runStart"]["runId"]
        .as_str()
        .unwrap()
        .to_owned();
    let begun = asked(&server, &everything, "CANCEL", &preview["confirm"]).await;
    assert!(begun["bulkId"].is_string(), "{begun:#}");
    for run in &runs[..2] {
        status_of(&server, run, "CANCELED").await;
    }
    shop.release();
    status_of(&server, &runs[2], "CANCELED").await;
    assert_eq!((shop.count("/pay"), shop.count("/mail")), (1, 0));
    status_of(&server, &later, "WAITING").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_asked_who_was_not_shown() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    let mut all = documents(&shop.url);
    all.push(
        json!({ "kind": "Workflow", "name": "nap", "on": { "manual": {} }, "steps": [{ "id": "nap", "sleep": "1d" }] }),
    );
    server.apply(&all).await;
    open_runs(&server, &shop).await;
    let preview = ask_preview(&server, &json!({ "workflow": "nap" }), "CANCEL").await;
    for (filter, request, confirm, code) in [
        (
            json!({ "workflow": "nap" }),
            "CANCEL",
            json!("guess"),
            "PREVIEW_CHANGED",
        ),
        (json!({}), "CANCEL", preview["confirm"].clone(), "PREVIEW_CHANGED"),
        (
            json!({ "workflow": "nap" }),
            "PAUSE",
            preview["confirm"].clone(),
            "PREVIEW_CHANGED",
        ),
        (
            json!({ "workflow": "nap", "status": "QUEUED" }),
            "CANCEL",
            preview["confirm"].clone(),
            "NOT_FOUND",
        ),
        (
            json!({ "workflow": "nobody" }),
            "CANCEL",
            preview["confirm"].clone(),
            "NOT_FOUND",
        ),
        (
            json!({ "status": "FAILED" }),
            "CANCEL",
            preview["confirm"].clone(),
            "INVALID",
        ),
    ] {
        let answer = asked(&server, &filter, request, &confirm).await;
        assert_eq!(answer["userErrors"][0]["code"], code, "{filter}: {answer:#}");
        assert_eq!(answer["bulkId"], Value::Null);
    }
    let long = json!({ "input": {
        "filter": { "workflow": "nap" }, "request": "CANCEL", "reason": "x".repeat(4097), "confirm": preview["confirm"],
    } });
    let answer = server.query(ASK, long).await["bulkRequest"].clone();
    assert_eq!(
        answer["userErrors"][0]["path"],
        json!(["input", "reason"]),
        "{answer:#}"
    );
    shop.release();
    server.stop().await;
}

/// `MAX_BULK_RUNS`: of 1,001 runs, 1,000 are taken; the next operation finds the last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_takes_the_oldest_runs_and_the_next_one_the_rest() {
    let server = TestServer::start().await;
    server
        .apply(&[json!({ "kind": "Workflow", "name": "nap", "on": { "manual": {} }, "steps": [{ "id": "nap", "sleep": "1d" }] })])
        .await;
    let starts = |count: usize| {
        let start = |n: usize| format!("a{n}: runStart(input: {{ workflow: \"nap\" }}) {{ runId }}");
        format!("mutation {{ {} }}", (0..count).map(start).collect::<Vec<_>>().join(" "))
    };
    for _ in 0..20 {
        server.query(&starts(50), json!({})).await;
    }
    let last = server.query(&starts(1), json!({})).await["a0"]["runId"].clone();
    let last = last.as_str().unwrap();
    server
        .until(
            "{ runs(first: 1, filter: { status: RUNNING }) { nodes { id } } }",
            |data| data["runs"]["nodes"] == json!([]),
        )
        .await;
    let naps = json!({ "workflow": "nap" });
    for (runs, more) in [(1_000, true), (1, false)] {
        let preview = ask_preview(&server, &naps, "CANCEL").await;
        assert_eq!(
            (&preview["runs"], &preview["more"]),
            (&json!(runs), &json!(more)),
            "{preview:#}"
        );
        let begun = asked(&server, &naps, "CANCEL", &preview["confirm"]).await;
        let query = format!(
            "{{ bulkOperation(id: {}) {{ status total started }} }}",
            begun["bulkId"]
        );
        let mut bulk = server.query(&query, json!({})).await["bulkOperation"].clone();
        while bulk["status"] == "RUNNING" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            bulk = server.query(&query, json!({})).await["bulkOperation"].clone();
        }
        assert_eq!(bulk, json!({ "status": "FINISHED", "total": runs, "started": runs }));
        if more {
            status_of(&server, last, "WAITING").await;
        }
    }
    status_of(&server, last, "CANCELED").await;
    server.stop().await;
}
