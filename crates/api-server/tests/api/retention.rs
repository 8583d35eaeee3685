//! Retention as users of the API meet it: what has had its time is gone with everything, the rest answers as before.

use crate::support::TestServer;
use serde_json::{Value, json};
use std::time::Duration;
use weir_orchestrator::Settings;
use weir_orchestrator::retention::Retention;

const START: &str =
    "mutation($input: RunStartInput!) { runStart(input: $input) { run { id } event { id } userErrors { code } } }";

fn workflow(name: &str, step: Value) -> Value {
    json!({ "kind": "Workflow", "name": name, "on": { "manual": {} }, "steps": [step] })
}

fn keep(runs: Option<Duration>, failed: Option<Duration>) -> Settings {
    Settings {
        retention: Retention {
            runs,
            failed,
            ..Retention::default()
        },
        ..Settings::default()
    }
}

async fn started(server: &TestServer, workflow: &str) -> (String, String) {
    let data = server.query(START, json!({ "input": { "workflow": workflow } })).await;
    let id = |of: &str| data["runStart"][of]["id"].as_str().unwrap().to_owned();
    (id("run"), id("event"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_had_its_time_is_null_and_the_rest_stays() {
    let server = TestServer::start_with(keep(None, None)).await;
    server
        .apply(&[
            workflow("good", json!({ "id": "a", "set": { "b": 1 } })),
            workflow(
                "bad",
                json!({ "id": "a", "stop": { "status": "failed", "reason": "no" } }),
            ),
            workflow("asleep", json!({ "id": "a", "sleep": "30d" })),
        ])
        .await;
    let (good, good_event) = started(&server, "good").await;
    let (bad, _) = started(&server, "bad").await;
    let (asleep, asleep_event) = started(&server, "asleep").await;
    for run in [&good, &bad] {
        server.finished(run).await;
    }
    let waiting = format!("{{ run(id: \"{asleep}\") {{ status }} }}");
    server.until(&waiting, |data| data["run"]["status"] == "WAITING").await;

    // A moment after its end a good run has had its time, and a failed one has not.
    let folder = server.stop().await;
    let server = TestServer::start_in(
        folder,
        keep(Some(Duration::from_millis(1)), Some(Duration::from_secs(3600))),
    )
    .await;
    let gone = format!("{{ run(id: \"{good}\") {{ id }} event(id: \"{good_event}\") {{ id }} }}");
    let gone = server.until(&gone, |data| data["run"].is_null()).await;
    assert_eq!(gone, json!({ "run": null, "event": null }), "both go at once");
    let preview = "query($id: ID!) { replayPreview(runId: $id) { confirm } }";
    let answer = server.query(preview, json!({ "id": good })).await;
    assert_eq!(answer["replayPreview"], Value::Null);
    let kept = format!(
        "{{ bad: run(id: \"{bad}\") {{ status steps {{ path }} }} asleep: run(id: \"{asleep}\") {{ status }} event(id: \"{asleep_event}\") {{ id }} }}"
    );
    let kept = server.query(&kept, json!({})).await;
    assert_eq!(
        (
            &kept["bad"]["status"],
            &kept["bad"]["steps"][0]["path"],
            &kept["asleep"]["status"],
            &kept["event"]["id"]
        ),
        (&json!("FAILED"), &json!("a"), &json!("WAITING"), &json!(asleep_event))
    );
    let listed = server.query("{ runs(first: 10) { nodes { id } } }", json!({})).await;
    assert_eq!(listed["runs"]["nodes"].as_array().unwrap().len(), 2, "{listed:#}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_replayed_in_its_last_minutes() {
    // Five minutes are less than a run that begins may need.
    let server = TestServer::start_with(keep(Some(Duration::from_secs(300)), None)).await;
    server
        .apply(&[workflow("good", json!({ "id": "a", "set": { "b": 1 } }))])
        .await;
    let (good, _) = started(&server, "good").await;
    server.finished(&good).await;
    let replay =
        "mutation($input: RunReplayInput!) { runReplay(input: $input) { run { id } userErrors { code message } } }";
    let input = json!({ "input": { "runId": good, "confirm": "x" } });
    let answer = server.raw_query(crate::support::ADMIN, replay, input).await;
    let error = &answer["data"]["runReplay"]["userErrors"][0];
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("keep_runs_days")),
        "{answer:#}"
    );
    server.stop().await;
}
