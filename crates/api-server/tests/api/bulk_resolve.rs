//! One word about many effects that nobody knows about: shown in sum first, said of each once, and of no other.

use crate::support::TestServer;
use crate::upstream::{Reply, Upstream};
use serde_json::{Value, json};

const START: &str = "mutation($input: RunStartInput!) { runStart(input: $input) { runId } }";
const PREVIEW: &str = "query($filter: UnknownEffectFilterInput!, $resolution: EffectResolution!) { \
    bulkResolvePreview(filter: $filter, resolution: $resolution) \
    { runs more leftOutCount leftOut { runId reason } effects { operation class count } summary confirm } }";
const RESOLVE: &str = "mutation($input: BulkResolveInput!) { bulkResolve(input: $input) { bulkId preview { confirm } \
    userErrors { code path message } } }";

fn documents(url: &str) -> Vec<Value> {
    let call = |id: &str, path: &str| json!({ "id": id, "call": "http.request", "connection": "bank", "with": { "method": "POST", "path": path } });
    vec![
        json!({ "kind": "Connection", "name": "bank", "connector": "http", "config": { "base_url": url } }),
        json!({ "kind": "Connection", "name": "notes", "connector": "notes", "config": { "base_url": url } }),
        json!({ "kind": "Workflow", "name": "pay", "on": { "manual": {} }, "steps": [call("pay", "/pay"), call("mail", "/mail")] }),
        json!({
            "kind": "Workflow", "name": "note", "on": { "manual": {} },
            "steps": [{ "id": "write", "call": "notes.create", "connection": "notes", "timeout": "1s", "with": { "text": "hello" } }],
        }),
    ]
}

/// A run that ended because an answer never came.
async fn lost(server: &TestServer, workflow: &str) -> String {
    let started = server.query(START, json!({ "input": { "workflow": workflow } })).await;
    let run = server.finished(started["runStart"]["runId"].as_str().unwrap()).await;
    assert_eq!(run["error"]["code"], "effect_unknown", "{run:#}");
    run["id"].as_str().unwrap().to_owned()
}

async fn shown(server: &TestServer, filter: &Value, resolution: &str) -> Value {
    let variables = json!({ "filter": filter, "resolution": resolution });
    server.query(PREVIEW, variables).await["bulkResolvePreview"].clone()
}

async fn say(server: &TestServer, filter: &Value, resolution: &str, confirm: &Value) -> Value {
    let input = json!({ "filter": filter, "resolution": resolution, "note": "their log", "confirm": confirm });
    server.query(RESOLVE, json!({ "input": input })).await["bulkResolve"].clone()
}

async fn over(server: &TestServer, begun: &Value) -> Value {
    let id = begun["bulkId"].as_str().unwrap_or_else(|| panic!("{begun:#}"));
    let query =
        format!("{{ bulkOperation(id: \"{id}\") {{ action status started skipped items {{ runId state reason }} }} }}");
    let over = |data: &Value| data["bulkOperation"]["status"] != "RUNNING";
    server.until(&query, over).await["bulkOperation"].clone()
}

/// State of the first effect of a run, and by whose word.
async fn effect(server: &TestServer, run: &str) -> (Value, Value) {
    let run = server.finished(run).await;
    let query = "query($id: ID!) { run(id: $id) { steps { effect { decision { by note } } } } }";
    let decided = server.query(query, json!({ "id": run["id"] })).await;
    let effect = &run["steps"][0]["effect"];
    let decision = &decided["run"]["steps"][0]["effect"]["decision"];
    (effect["state"].clone(), decision["note"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_is_said_of_every_effect_that_was_shown() {
    let bank = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&bank.url)).await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        bank.next([Reply::HangUp]);
        runs.push(lost(&server, "pay").await);
    }
    let filter = json!({ "workflow": "pay", "operation": "http.request" });
    let preview = shown(&server, &filter, "NOT_HAPPENED").await;
    assert_eq!(
        (&preview["summary"], &preview["effects"]),
        (
            &json!("3 runs: 3 effects of unknown fate (http.request 3)"),
            &json!([{ "operation": "http.request", "class": "BLIND", "count": 3 }])
        )
    );
    // Another word than the one that was shown, and one that nobody gave.
    for (resolution, confirm) in [("HAPPENED", &preview["confirm"]), ("NOT_HAPPENED", &json!("guess"))] {
        let refused = say(&server, &filter, resolution, confirm).await;
        assert_eq!(refused["userErrors"][0]["code"], "PREVIEW_CHANGED", "{refused:#}");
        assert!(refused["preview"]["confirm"].is_string());
    }
    // One of them is decided by itself before; one more is lost after it was shown.
    let one = "mutation($input: EffectResolveInput!) { effectResolve(input: $input) { userErrors { code } } }";
    let input = json!({ "runId": runs[0], "step": "pay", "resolution": "HAPPENED", "note": "seen it" });
    server.query(one, json!({ "input": input })).await;
    bank.next([Reply::HangUp]);
    let later = lost(&server, "pay").await;
    let changed = say(&server, &filter, "NOT_HAPPENED", &preview["confirm"]).await;
    assert_eq!(changed["userErrors"][0]["code"], "PREVIEW_CHANGED");
    let until = json!({ "workflow": "pay", "causeId": null });
    assert_eq!(shown(&server, &until, "NOT_HAPPENED").await["runs"], 3);

    let confirm = &changed["preview"]["confirm"];
    let done = over(&server, &say(&server, &filter, "NOT_HAPPENED", confirm).await).await;
    assert_eq!(
        (&done["action"], &done["status"], &done["started"], &done["skipped"]),
        (&json!("RESOLVE"), &json!("FINISHED"), &json!(3), &json!(0)),
        "{done:#}"
    );
    assert_eq!(effect(&server, &runs[0]).await, (json!("CONFIRMED"), json!("seen it")));
    for run in [&runs[1], &runs[2], &later] {
        assert_eq!(
            effect(&server, run).await,
            (json!("FAILED"), json!("their log")),
            "{run}"
        );
    }
    assert_eq!(bank.count("/pay"), 4, "nothing is sent by saying so");
    let none = say(&server, &filter, "NOT_HAPPENED", confirm).await;
    assert_eq!(none["userErrors"][0]["code"], "NOT_FOUND");
    // Each decision stands in the audit trail beside the operation.
    let query = "{ audit(first: 20) { nodes { action } } }";
    let audit = server.query(query, json!({})).await["audit"]["nodes"].clone();
    let count = |action: &str| {
        let entries = audit.as_array().unwrap().iter();
        entries.filter(|entry| entry["action"] == action).count()
    };
    assert_eq!((count("effect.resolve"), count("bulk.resolve")), (4, 1), "{audit:#}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_decides_what_it_finds_and_leaves_the_rest_out() {
    let notes = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&notes.url)).await;
    let mut runs = Vec::new();
    for _ in 0..2 {
        notes.next([Reply::HangUp, Reply::Json(200, "[]")]);
        runs.push(lost(&server, "note").await);
    }
    notes.next([Reply::HangUp]);
    let blind = lost(&server, "pay").await;
    let preview = shown(&server, &json!({}), "LOOK").await;
    assert_eq!(
        (
            &preview["runs"],
            &preview["leftOutCount"],
            &preview["leftOut"][0]["runId"]
        ),
        (&json!(2), &json!(1), &json!(blind)),
        "{preview:#}"
    );
    let reason = preview["leftOut"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("http.request cannot be looked for"), "{reason}");
    notes.next([Reply::Json(200, r#"[{"id":"n_1"}]"#), Reply::Json(200, "[]")]);
    let done = over(&server, &say(&server, &json!({}), "LOOK", &preview["confirm"]).await).await;
    assert_eq!((&done["started"], &done["skipped"]), (&json!(1), &json!(1)), "{done:#}");
    let left_out = &done["items"][1];
    assert!(left_out["reason"].as_str().unwrap().contains("not found"), "{done:#}");
    assert_eq!(effect(&server, &runs[0]).await.0, "CONFIRMED");
    assert_eq!(effect(&server, &runs[1]).await.0, "UNKNOWN");

    for (filter, field) in [
        (json!({ "workflow": "nowhere" }), "filter"),
        (json!({ "causeId": "cause_x" }), "filter"),
    ] {
        let wrong = say(&server, &filter, "HAPPENED", &json!("")).await;
        assert_eq!(wrong["userErrors"][0]["path"], json!(["input", field]), "{wrong:#}");
    }
    server.stop().await;
}
