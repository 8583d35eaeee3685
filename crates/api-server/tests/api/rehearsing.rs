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

/// No two runs have the same id, so a request that holds it is another one in each preview.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_shown_can_be_confirmed_although_requests_hold_the_id_of_their_run() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    let body = json!({ "run": "{{ run.id }}", "at": "{{ run.started_at }}" });
    let mut documents = documents(&shop.url);
    documents.pop();
    documents.push(json!({
        "kind": "Workflow", "name": "tell",
        "on": { "event": "generic.order.told" },
        "steps": [{ "id": "tell", "call": "http.request", "connection": "shop",
            "with": { "method": "POST", "path": "/tell", "body": body } }],
    }));
    server.apply(&documents).await;
    shop.next([Reply::Json(422, r#"{"error":"no"}"#), Reply::Json(200, "{}")]);
    let event = hook(&server, json!({ "type": "order.told", "id": "o_1" })).await["event"].clone();
    let query = format!("{{ event(id: {event}) {{ runs {{ id status }} }} }}");
    let told = server
        .until(&query, |data| data["event"]["runs"][0]["status"] == "FAILED")
        .await;
    let run = told["event"]["runs"][0]["id"].as_str().unwrap();
    let shown = preview(&server, run, Value::Null).await;
    assert_eq!(steps(&shown, "new"), ["tell"], "{shown:#}");
    let replay = "mutation($input: RunReplayInput!) { runReplay(input: $input) { runId userErrors { code message } } }";
    let input = json!({ "input": { "runId": run, "confirm": shown["confirm"] } });
    let begun = server.query(replay, input).await["runReplay"].clone();
    assert_eq!(begun["userErrors"], json!([]), "{begun:#}");
    let again = server.finished(begun["runId"].as_str().unwrap()).await;
    assert_eq!(again["status"], "SUCCEEDED", "{again:#}");
    server.stop().await;
}

/// Orders that are billed by another workflow, which tells a third one.
fn billed(url: &str) -> Vec<Value> {
    let post = |path: &str| json!({ "method": "POST", "path": path, "body": "{{ event.data.n }}" });
    let input = json!({ "n": "{{ event.data.n }}" });
    vec![
        json!({ "kind": "Connection", "name": "shop", "connector": "http", "config": { "base_url": url } }),
        json!({ "kind": "Workflow", "name": "note", "on": { "manual": {} }, "steps": [
            { "id": "write", "call": "http.request", "connection": "shop", "with": post("/note") },
            { "id": "again", "call": "http.request", "connection": "shop", "with": post("/again") },
        ] }),
        json!({ "kind": "Workflow", "name": "bill", "on": { "manual": {} }, "steps": [
            { "id": "charge", "call": "http.request", "connection": "shop", "with": post("/charge") },
            { "id": "tell", "run": "note", "with": input, "detach": true },
        ] }),
        json!({ "kind": "Workflow", "name": "order", "on": { "manual": {} }, "steps": [
            { "id": "bill", "run": "bill", "with": input },
            { "id": "ship", "call": "http.request", "connection": "shop", "with": post("/ship") },
        ] }),
    ]
}

const START: &str = "mutation($input: RunStartInput!) { runStart(input: $input) { runId } }";

async fn start(server: &TestServer, workflow: &str, input: Value) -> Value {
    let input = json!({ "input": { "workflow": workflow, "input": input } });
    let started = server.query(START, input).await;
    server.finished(started["runStart"]["runId"].as_str().unwrap()).await
}

async fn in_full(server: &TestServer, run: &Value, options: Value) -> Value {
    let query = "query($id: ID!, $options: ReplayOptionsInput) { replayPreview(runId: $id, options: $options) { note \
                 inPart confirm answered { step } new { step operation changed } } }";
    let variables = json!({ "id": run["id"], "options": options });
    server.query(query, variables).await["replayPreview"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_shows_what_the_runs_do_that_it_starts() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&billed(&shop.url)).await;
    let run = start(&server, "order", json!({ "n": 1 })).await;
    assert_eq!(run["status"], "SUCCEEDED", "{run:#}");
    let known = "{ runs { nodes { status } } }";
    server
        .until(known, |data| {
            let runs = data["runs"]["nodes"].as_array().unwrap();
            runs.len() == 3 && runs.iter().all(|run| run["status"] == "SUCCEEDED")
        })
        .await;
    // The same once more finds the run that it had started: nothing of that is done again.
    let same = in_full(&server, &run, json!({ "from": "START" })).await;
    assert_eq!(
        (steps(&same, "answered"), steps(&same, "new"), &same["inPart"]),
        (vec!["bill".to_owned(), "ship".to_owned()], vec![], &json!(false)),
        "{same:#}"
    );
    // Another order starts another run, and that another one: all of it is new.
    let options = json!({ "from": "START", "body": { "n": 2 } });
    let other = in_full(&server, &run, options.clone()).await;
    assert_eq!(
        steps(&other, "new"),
        [
            "bill",
            "ship",
            "bill/charge",
            "bill/tell",
            "bill/tell/write",
            "bill/tell/again"
        ],
        "{other:#}"
    );
    assert_eq!((&other["inPart"], &other["note"]), (&json!(false), &Value::Null));
    assert!(
        other["new"]
            .as_array()
            .unwrap()
            .iter()
            .all(|call| call["changed"] == true)
    );
    let again = in_full(&server, &run, options.clone()).await;
    assert_eq!(again["confirm"], other["confirm"], "what is shown again is the same");
    // In sum it is counted, and what is confirmed is what is done.
    let query = "query($options: ReplayOptionsInput) { bulkReplayPreview(filter: { status: SUCCEEDED, workflow: \
                 \"order\" }, options: $options) { summary inPartCount } }";
    let sum = server.query(query, json!({ "options": options })).await["bulkReplayPreview"].clone();
    assert_eq!(
        sum["summary"],
        "1 run: 0 reads, 0 effects answered from the record, 6 sent (http.request 4, weir.run 2)"
    );
    let replay = "mutation($input: RunReplayInput!) { runReplay(input: $input) { runId userErrors { message } } }";
    let input = json!({ "input": { "runId": run["id"], "confirm": again["confirm"], "options": options } });
    let replayed = server.query(replay, input).await["runReplay"].clone();
    let second = server.finished(replayed["runId"].as_str().unwrap()).await;
    assert_eq!(second["status"], "SUCCEEDED", "{second:#}");
    server
        .until(known, |data| {
            let runs = data["runs"]["nodes"].as_array().unwrap();
            runs.len() == 6 && runs.iter().all(|run| run["status"] == "SUCCEEDED")
        })
        .await;
    for path in ["/charge", "/note", "/again", "/ship"] {
        assert_eq!(shop.count(path), 2, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_recorded_answers_is_shown_as_far_as_it_is_known() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    let mut all = billed(&shop.url);
    all.push(
        json!({ "kind": "Workflow", "name": "first", "on": { "manual": {} }, "steps": [
        { "id": "stop", "when": "{{ event.data.stops }}", "stop": { "status": "failed", "reason": "not yet" } },
        { "id": "note", "run": "note", "with": { "n": 1 }, "detach": true },
    ] }),
    );
    server.apply(&all).await;
    let run = start(&server, "first", json!({ "stops": true })).await;
    assert_eq!(run["status"], "FAILED", "{run:#}");
    let options = json!({ "from": "START", "body": { "stops": false } });
    let shown = in_full(&server, &run, options.clone()).await;
    assert_eq!(steps(&shown, "new"), ["note", "note/write"], "{shown:#}");
    assert_eq!(shown["inPart"], true);
    assert_eq!(
        shown["note"],
        "of the run that `note` starts: what follows `write` is not shown: no answer of it was recorded"
    );
    // A workflow that takes nothing now is told.
    let pause = "mutation { workflowPause(input: { workflow: \"note\" }) { userErrors { message } } }";
    server.query(pause, json!({})).await;
    let shown = in_full(&server, &run, options).await;
    assert_eq!(steps(&shown, "new"), ["note"], "{shown:#}");
    assert_eq!(
        shown["note"],
        "`note` would start no run: the workflow `note` is paused"
    );
    server.stop().await;
}

/// `MAX_PREVIEWED_RUNS`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_looks_into_so_many_runs() {
    let server = TestServer::start().await;
    let branch = |name: &str| {
        let note = json!({ "id": name, "run": "note", "with": { "n": "{{ item }}", "of": name }, "detach": true });
        (name.to_owned(), json!([note]))
    };
    let branches: serde_json::Map<String, Value> = ["a", "b", "c", "d"].map(branch).into_iter().collect();
    server
        .apply(&[
            json!({ "kind": "Workflow", "name": "note", "on": { "manual": {} }, "steps": [
                { "id": "tell", "emit": { "type": "noted", "data": { "n": "{{ event.data.n }}" } } },
            ] }),
            json!({ "kind": "Workflow", "name": "many", "on": { "manual": {} }, "steps": [
                { "id": "each", "for_each": "{{ event.data.all }}", "concurrency": 32, "do": [
                    { "id": "both", "parallel": branches },
                ] },
            ] }),
        ])
        .await;
    let run = start(&server, "many", json!({ "all": [] })).await;
    assert_eq!(run["status"], "SUCCEEDED", "{run:#}");
    let limit = weir_orchestrator::repair::MAX_PREVIEWED_RUNS;
    for count in [limit / 4, limit / 4 + 1] {
        let all: Vec<usize> = (0..count).collect();
        let shown = in_full(&server, &run, json!({ "from": "START", "body": { "all": all } })).await;
        let new = steps(&shown, "new");
        let within = new.iter().filter(|step| step.ends_with("/tell")).count();
        assert_eq!((new.len() - within, within), (4 * count, limit), "{}", shown["note"]);
        assert_eq!(shown["inPart"], true);
    }
    server.stop().await;
}
