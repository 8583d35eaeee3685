//! Versions of a workflow through the API: compared, rolled back, and drafts thrown away.

use crate::support::TestServer;
use serde_json::{Value, json};

const DIFF: &str = "query($from: Int, $to: Int) { workflow(name: \"w\") { id revision published { number } draft { number definition } \
    diff(from: $from, to: $to) { from to text differences { kind step pointer beforePointer before after } } } }";

fn document(steps: Value) -> Value {
    json!({ "kind": "Workflow", "name": "w", "on": { "manual": {} }, "steps": steps })
}

fn step(id: &str, value: i32) -> Value {
    json!({ "id": id, "set": { "value": value } })
}

async fn workflow(server: &TestServer, from: Option<u32>, to: Option<u32>) -> Value {
    server.query(DIFF, json!({ "from": from, "to": to })).await["workflow"].clone()
}

fn told(diff: &Value) -> Vec<String> {
    let line = |difference: &Value| {
        let text = |name: &str| difference[name].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", text("kind"), text("step"), text("pointer"))
    };
    diff["differences"].as_array().unwrap().iter().map(line).collect()
}

async fn mutate(server: &TestServer, name: &str, input: Value) -> Value {
    let (first, rest) = name.split_at(1);
    let kind = format!("{}{rest}Input", first.to_uppercase());
    let query = format!(
        "mutation($input: {kind}!) {{ changed: {name}(input: $input) {{ workflow {{ published {{ number }} draft {{ number }} }} \
         change {{ action notes }} userErrors {{ code path message }} }} }}"
    );
    server.query(&query, json!({ "input": input })).await["changed"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_compared_step_by_step_and_rolled_back_to() {
    let server = TestServer::start().await;
    server.apply(&[document(json!([step("a", 1), step("b", 1)]))]).await;
    let first = workflow(&server, None, None).await;
    assert_eq!(
        (&first["diff"]["from"], &first["diff"]["to"]),
        (&Value::Null, &json!(1))
    );
    let started = server
        .query("mutation { runStart(input: { workflow: \"w\" }) { runId } }", json!({}))
        .await;
    let run = started["runStart"]["runId"].as_str().unwrap().to_owned();
    server
        .apply(&[document(json!([step("new", 0), step("a", 2), step("b", 1)]))])
        .await;
    let second = workflow(&server, None, None).await["diff"].clone();
    assert_eq!((&second["from"], &second["to"]), (&json!(1), &json!(2)));
    assert_eq!(told(&second), ["ADDED new /steps/0", "CHANGED a /steps/1/set/value"]);
    assert_eq!(
        (&second["differences"][1]["before"], &second["differences"][1]["after"]),
        (&json!(1), &json!(2))
    );
    assert!(second["text"].as_str().unwrap().contains("+"), "{second:#}");
    let back = workflow(&server, Some(2), Some(1)).await["diff"].clone();
    assert_eq!(told(&back), ["CHANGED a /steps/0/set/value", "REMOVED new /steps/0"]);
    assert_eq!(workflow(&server, Some(1), Some(9)).await["diff"], Value::Null);

    // With a draft open: the old content becomes a new version, and the draft stays behind it.
    let draft = json!({ "id": first["id"], "expectedRevision": second_revision(&server).await, "definition": document(json!([step("draft", 9)])) });
    let saved = mutate(&server, "workflowUpdate", draft).await;
    assert_eq!(saved["workflow"]["draft"]["number"], 3, "{saved:#}");
    let rolled = mutate(&server, "workflowRollBack", json!({ "id": first["id"], "version": 1 })).await;
    assert_eq!(
        (
            &rolled["workflow"]["published"]["number"],
            &rolled["workflow"]["draft"]["number"],
            &rolled["userErrors"]
        ),
        (&json!(3), &json!(4), &json!([])),
        "{rolled:#}"
    );
    assert_eq!(rolled["change"]["notes"], json!(["the content of version 1"]));
    let now = workflow(&server, Some(1), Some(3)).await;
    assert_eq!(told(&now["diff"]), Vec::<String>::new());
    assert_eq!(now["draft"]["definition"]["steps"][0]["id"], "draft");
    // Version 2 is as it was, and runs stay with the version they began on.
    assert_eq!(told(&workflow(&server, Some(1), Some(2)).await["diff"]).len(), 2);
    let query = format!("{{ run(id: \"{run}\") {{ version {{ number }} }} }}");
    assert_eq!(server.query(&query, json!({})).await["run"]["version"]["number"], 1);
    // Once more is nothing new; versions that were never published cannot be gone back to.
    let again = mutate(&server, "workflowRollBack", json!({ "id": first["id"], "version": 3 })).await;
    assert_eq!(
        (&again["change"]["action"], &again["workflow"]["published"]["number"]),
        (&json!("UNCHANGED"), &json!(3))
    );
    for version in [4, 9] {
        let refused = mutate(
            &server,
            "workflowRollBack",
            json!({ "id": first["id"], "version": version }),
        )
        .await;
        assert_eq!(
            (&refused["userErrors"][0]["code"], &refused["userErrors"][0]["path"]),
            (&json!("NOT_FOUND"), &json!(["input", "version"]))
        );
    }
    let stale = mutate(
        &server,
        "workflowRollBack",
        json!({ "id": first["id"], "version": 2, "expectedRevision": 1 }),
    )
    .await;
    assert_eq!(stale["userErrors"][0]["code"], "CONFLICT");
    let published = mutate(&server, "workflowPublish", json!({ "id": first["id"] })).await;
    assert_eq!(published["workflow"]["published"]["number"], 4);
    server.stop().await;
}

async fn second_revision(server: &TestServer) -> Value {
    workflow(server, None, None).await["revision"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drafts_are_thrown_away() {
    let server = TestServer::start().await;
    server.apply(&[document(json!([step("a", 1)]))]).await;
    let first = workflow(&server, None, None).await;
    let draft = json!({ "id": first["id"], "expectedRevision": first["revision"], "definition": document(json!([step("a", 2)])) });
    mutate(&server, "workflowUpdate", draft).await;
    assert_eq!(
        told(&workflow(&server, None, None).await["diff"]),
        ["CHANGED a /steps/0/set/value"]
    );
    let gone = mutate(&server, "workflowDiscardDraft", json!({ "id": first["id"] })).await;
    assert_eq!(
        (&gone["workflow"]["published"]["number"], &gone["workflow"]["draft"]),
        (&json!(1), &Value::Null),
        "{gone:#}"
    );
    let none = mutate(&server, "workflowDiscardDraft", json!({ "id": first["id"] })).await;
    assert_eq!(none["userErrors"][0]["code"], "NOT_FOUND");
    // A workflow that was never published goes with its draft.
    let mut fresh = document(json!([step("a", 1)]));
    fresh["name"] = json!("fresh");
    let made = server
        .query(
            "mutation($input: WorkflowCreateInput!) { workflowCreate(input: $input) { workflow { id } } }",
            json!({ "input": { "definition": fresh } }),
        )
        .await;
    let id = &made["workflowCreate"]["workflow"]["id"];
    let gone = mutate(&server, "workflowDiscardDraft", json!({ "id": id })).await;
    assert_eq!(
        (&gone["change"]["action"], &gone["workflow"]),
        (&json!("DELETE"), &Value::Null),
        "{gone:#}"
    );
    let workspace = server.orchestrator.default_workspace();
    let audit = server
        .orchestrator
        .store()
        .audit_page(workspace, &weir_storage::AuditFilter::default(), None, 3)
        .await
        .unwrap();
    let actions: Vec<&str> = audit.rows.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions[0], "workflow.delete");
    server.stop().await;
}
