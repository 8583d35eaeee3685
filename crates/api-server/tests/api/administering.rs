//! Workflows are paused and deleted, events are started again, and who did what is on record.

use crate::support::{ADMIN, ENDPOINT_SECRET, TestServer, note_workflow, orders_endpoint};
use crate::upstream::{Reply, Upstream};
use serde_json::{Value, json};

const PAUSE: &str = "mutation($input: WorkflowPauseInput!) { workflowPause(input: $input) { changed state heldRuns userErrors { code path } } }";
const RESUME: &str = "mutation($input: WorkflowResumeInput!) { workflowResume(input: $input) { changed state userErrors { code path } } }";
const DELETE: &str = "mutation($input: WorkflowDeleteInput!) { workflowDelete(input: $input) { deletedId operationIds userErrors { code path message } } }";
const EVENT_START: &str = "mutation($input: EventStartInput!) { eventStart(input: $input) { runId userErrors { code path message ... on PreconditionError { blockers } } } }";
const NOTE: &str = "{ workflow(name: \"note\") { id state heldRuns revision } }";

async fn order(server: &TestServer, id: &str) -> String {
    let body = json!({ "id": id, "type": "order.placed" }).to_string();
    let answer = server.hook("/hooks/main/orders", ENDPOINT_SECRET, body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let query = format!("{{ events(filter: {{ externalId: \"{id}\" }}) {{ nodes {{ id }} }} }}");
    let found = server.query(&query, json!({})).await;
    found["events"]["nodes"][0]["id"].as_str().unwrap().to_owned()
}

async fn runs(server: &TestServer) -> Vec<Value> {
    let query = "{ runs(first: 100) { nodes { id status workflowName workflowDeleted waitingFor { reason ahead } event { externalId } } } }";
    let mut runs = server.query(query, json!({})).await["runs"]["nodes"]
        .as_array()
        .unwrap()
        .clone();
    runs.reverse();
    runs
}

/// What the audit trail says, oldest first.
async fn audit(server: &TestServer, filter: Value) -> Vec<[String; 3]> {
    let query =
        "query($filter: AuditFilter) { audit(first: 100, filter: $filter) { nodes { actorName action subject } } }";
    let data = server.query(query, json!({ "filter": filter })).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let entries = data["audit"]["nodes"].as_array().unwrap().iter().rev();
    entries
        .map(|entry| {
            [
                text(&entry["actorName"]),
                text(&entry["action"]),
                text(&entry["subject"]),
            ]
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_workflow_keeps_what_arrives_and_begins_it_in_order() {
    let server = TestServer::start().await;
    server.apply(&[orders_endpoint(), note_workflow()]).await;
    let input = json!({ "input": { "workflow": "note", "reason": "the CRM is being moved" } });
    let paused = server.query(PAUSE, input.clone()).await["workflowPause"].clone();
    assert_eq!(
        paused,
        json!({ "changed": true, "state": "PAUSED", "heldRuns": 0, "userErrors": [] })
    );
    for number in 0..70 {
        order(&server, &format!("ord_{number}")).await;
    }
    let paused = server.query(PAUSE, input).await["workflowPause"].clone();
    assert_eq!(
        paused,
        json!({ "changed": false, "state": "PAUSED", "heldRuns": 70, "userErrors": [] })
    );
    let waiting = runs(&server).await;
    assert_eq!(waiting.len(), 70);
    assert!(waiting.iter().all(|run| run["status"] == "QUEUED"), "{waiting:#?}");
    assert_eq!(waiting[3]["waitingFor"], json!({ "reason": "PAUSE", "ahead": 3 }));

    // Publishing another version changes nothing about it, nor does a restart.
    let mut other = note_workflow();
    other["steps"][0]["set"]["more"] = json!(1);
    let query = "mutation($input: ApplyDocumentsInput!) { applyDocuments(input: $input) { changes { action notes } } }";
    let input = json!({ "input": { "documents": [other.to_string()] } });
    let applied = server.query(query, input).await["applyDocuments"]["changes"][0].clone();
    assert_eq!(applied["action"], "UPDATE");
    assert!(applied["notes"].to_string().contains("stays paused"), "{applied:#}");
    let folder = server.stop().await;
    let server = TestServer::start_in(folder, weir_orchestrator::Settings::default()).await;
    let note = server.query(NOTE, json!({})).await["workflow"].clone();
    assert_eq!((&note["state"], &note["heldRuns"]), (&json!("PAUSED"), &json!(70)));

    // One of those that wait can be ended.
    let cancel = "mutation($input: RunCancelInput!) { runCancel(input: $input) { userErrors { message } } }";
    server
        .query(cancel, json!({ "input": { "runId": waiting[5]["id"] } }))
        .await;
    server
        .until(NOTE, |data| data["workflow"]["heldRuns"] == json!(69))
        .await;
    let stale = json!({ "input": { "workflow": "note", "expectedRevision": 1 } });
    let stale = server.query(RESUME, stale).await["workflowResume"].clone();
    assert_eq!(stale["userErrors"][0]["code"], "CONFLICT");
    let resumed = server.query(RESUME, json!({ "input": { "workflow": "note" } })).await["workflowResume"].clone();
    assert_eq!(
        (&resumed["changed"], &resumed["userErrors"]),
        (&json!(true), &json!([]))
    );
    let last = order(&server, "ord_last").await;
    server
        .until(NOTE, |data| {
            data["workflow"]["state"] == "ACTIVE" && data["workflow"]["heldRuns"] == json!(0)
        })
        .await;
    let query = "{ runs(first: 100, filter: { status: SUCCEEDED }) { nodes { id } } }";
    server
        .until(query, |data| data["runs"]["nodes"].as_array().unwrap().len() == 70)
        .await;
    assert!(last.starts_with("evt_"));
    let again = server.query(RESUME, json!({ "input": { "workflow": "note" } })).await["workflowResume"].clone();
    assert_eq!((&again["changed"], &again["state"]), (&json!(false), &json!("ACTIVE")));

    let told = audit(&server, json!({ "subject": "note" })).await;
    let told: Vec<&str> = told.iter().map(|[_, action, _]| action.as_str()).collect();
    assert_eq!(
        told,
        [
            "workflow.create",
            "workflow.pause",
            "workflow.update",
            "workflow.resume"
        ]
    );
    let nobody = json!({ "input": { "workflow": "nobody" } });
    let refused = server.query(PAUSE, nobody).await["workflowPause"].clone();
    assert_eq!(
        refused["userErrors"],
        json!([{ "code": "NOT_FOUND", "path": ["input", "workflow"] }])
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_that_is_not_there_is_told_with_the_one_that_may_be_meant() {
    let server = TestServer::start().await;
    server.apply(&[orders_endpoint(), note_workflow()]).await;
    let told = "userErrors { code message ... on InputError { suggestion } }";
    let missing = json!({ "workflow": "nots" });
    for (mutation, kind, input) in [
        ("runStart", "RunStartInput", missing.clone()),
        ("workflowPause", "WorkflowPauseInput", missing.clone()),
        ("workflowResume", "WorkflowResumeInput", missing.clone()),
        (
            "bulkReplay",
            "BulkReplayInput",
            json!({ "filter": missing, "confirm": "x" }),
        ),
        (
            "bulkResolve",
            "BulkResolveInput",
            json!({ "filter": missing, "resolution": "HAPPENED", "confirm": "x" }),
        ),
    ] {
        let document = format!("mutation($input: {kind}!) {{ {mutation}(input: $input) {{ {told} }} }}");
        let answer = server.query(&document, json!({ "input": input })).await;
        assert_eq!(
            answer[mutation]["userErrors"],
            json!([{
                "code": "NOT_FOUND",
                "message": "there is no workflow `nots`",
                "suggestion": "did you mean `note`?",
            }]),
            "{mutation}"
        );
    }
    for (preview, kind, rest) in [
        ("bulkReplayPreview", "BulkFilterInput", ""),
        ("bulkRequestPreview", "OpenRunFilterInput", ", request: CANCEL"),
        (
            "bulkResolvePreview",
            "UnknownEffectFilterInput",
            ", resolution: HAPPENED",
        ),
    ] {
        let document = format!("query($filter: {kind}!) {{ {preview}(filter: $filter{rest}) {{ runs }} }}");
        let answer = server.raw_query(ADMIN, &document, json!({ "filter": missing })).await;
        assert_eq!(
            answer["errors"][0]["message"], "filter: there is no workflow `nots` (did you mean `note`?)",
            "{preview}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_the_answer_of_a_paused_workflow_is_told_where_it_is_going_to_be() {
    let server = TestServer::start().await;
    let answering = json!({
        "kind": "Workflow", "name": "answer",
        "on": { "event": "generic.order.placed" },
        "steps": [{ "id": "say", "respond": { "status": 201, "within": "10s" } }],
    });
    server.apply(&[orders_endpoint(), answering]).await;
    server.query(PAUSE, json!({ "input": { "workflow": "answer" } })).await;
    let began = tokio::time::Instant::now();
    let body = json!({ "id": "ord_1", "type": "order.placed" }).to_string();
    let answer = server.hook("/hooks/main/orders", ENDPOINT_SECRET, body).await;
    assert_eq!(answer.status(), 202);
    assert!(
        began.elapsed() < std::time::Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
    server.query(RESUME, json!({ "input": { "workflow": "answer" } })).await;
    let query = "{ runs(filter: { status: SUCCEEDED }) { nodes { id } } }";
    server
        .until(query, |data| data["runs"]["nodes"].as_array().unwrap().len() == 1)
        .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_with_open_runs_is_deleted_only_when_these_may_end() {
    let server = TestServer::start().await;
    let sleeps = json!({
        "kind": "Workflow", "name": "note",
        "on": { "event": "generic.order.placed" },
        "steps": [{ "id": "nap", "sleep": "1h" }],
    });
    server.apply(&[orders_endpoint(), sleeps]).await;
    order(&server, "ord_1").await;
    let id = server.query(NOTE, json!({})).await["workflow"]["id"].clone();
    let refused = server.query(DELETE, json!({ "input": { "id": id } })).await["workflowDelete"].clone();
    assert_eq!(refused["deletedId"], Value::Null);
    assert_eq!(
        (&refused["userErrors"][0]["code"], &refused["userErrors"][0]["path"]),
        (&json!("OPEN_RUNS"), &json!(["input", "cancelOpenRuns"])),
        "{refused:#}"
    );
    let input = json!({ "input": { "id": id, "cancelOpenRuns": true } });
    let deleted = server.query(DELETE, input).await["workflowDelete"].clone();
    assert_eq!((&deleted["deletedId"], &deleted["userErrors"]), (&id, &json!([])));
    assert_eq!(deleted["operationIds"].as_array().unwrap().len(), 1);
    let query = "{ runs(filter: { status: CANCELED }) { nodes { workflowName workflowDeleted workflow { id } history { action detail } } } }";
    let data = server
        .until(query, |data| data["runs"]["nodes"].as_array().unwrap().len() == 1)
        .await;
    let run = &data["runs"]["nodes"][0];
    // What it was called can still be read.
    assert_eq!(
        (&run["workflowName"], &run["workflowDeleted"], &run["workflow"]),
        (&json!("note"), &json!(true), &Value::Null)
    );
    assert_eq!(run["history"][0]["action"], "run.cancel", "{run:#}");
    assert_eq!(run["history"][0]["detail"]["reason"], "its workflow `note` was deleted");
    // And its runs are found by it; by another name none are.
    for (name, found) in [("note", 1), ("notes", 0)] {
        let query = format!("{{ runs(filter: {{ workflow: \"{name}\" }}) {{ nodes {{ workflowName }} }} }}");
        let data = server.query(&query, json!({})).await;
        assert_eq!(data["runs"]["nodes"].as_array().unwrap().len(), found, "{name}: {data}");
    }
    // Without open runs nothing has to be said.
    server.apply(&[note_workflow()]).await;
    let id = server.query(NOTE, json!({})).await["workflow"]["id"].clone();
    let deleted = server.query(DELETE, json!({ "input": { "id": id } })).await["workflowDelete"].clone();
    assert_eq!((&deleted["deletedId"], &deleted["operationIds"]), (&id, &json!([])));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_is_started_with_an_event_that_came_before_it() {
    let server = TestServer::start().await;
    server.apply(&[orders_endpoint()]).await;
    let event = order(&server, "ord_1").await;
    let start = async |event: &str, workflow: &str| {
        let input = json!({ "input": { "eventId": event, "workflow": workflow } });
        server.query(EVENT_START, input).await["eventStart"].clone()
    };
    let code = |answer: &Value| answer["userErrors"][0]["code"].as_str().unwrap_or_default().to_owned();
    assert_eq!(code(&start(&event, "note").await), "NOT_FOUND");
    let mut picky = note_workflow();
    picky["name"] = json!("picky");
    picky["on"]["where"] = json!("{{ event.data.id == 'ord_2' }}");
    let mut refunds = note_workflow();
    refunds["name"] = json!("refunds");
    refunds["on"]["event"] = json!("generic.order.refunded");
    let mut by_hand = note_workflow();
    by_hand["name"] = json!("by-hand");
    by_hand["on"] = json!({ "manual": {} });
    server.apply(&[note_workflow(), picky, refunds, by_hand]).await;
    for (workflow, why) in [
        ("picky", "its `where` is not true for it"),
        ("refunds", "this one is `generic.order.placed`"),
        ("by-hand", "started by hand"),
    ] {
        let refused = start(&event, workflow).await;
        assert_eq!(code(&refused), "NOT_STARTABLE", "{refused:#}");
        assert!(refused.to_string().contains(why), "{refused:#}");
    }
    assert_eq!(code(&start("evt_0000000000001", "note").await), "NOT_FOUND");
    let started = start(&event, "note").await;
    let run = started["runId"].as_str().unwrap().to_owned();
    let finished = server.finished(&run).await;
    assert_eq!(finished["status"], "SUCCEEDED", "{finished:#}");
    assert_eq!(finished["steps"][0]["output"], json!({ "order": "ord_1" }));
    // It is a run of that event like any other, and there is one.
    let query = format!(
        "{{ event(id: \"{event}\") {{ runs {{ id }} }} run(id: \"{run}\") {{ rootId history {{ action actorName }} }} }}"
    );
    let data = server.query(&query, json!({})).await;
    assert_eq!(data["event"]["runs"], json!([{ "id": run }]));
    assert_eq!(data["run"]["rootId"], json!(run));
    assert_eq!(
        data["run"]["history"],
        json!([{ "action": "event.start", "actorName": "admin" }])
    );
    let again = start(&event, "note").await;
    assert_eq!(code(&again), "ALREADY_RAN");
    assert_eq!(again["userErrors"][0]["blockers"], json!([run]));
    // A repeat of the event is still one.
    order(&server, "ord_1").await;
    assert_eq!(runs(&server).await.len(), 1);
    server.query(PAUSE, json!({ "input": { "workflow": "note" } })).await;
    let second = order(&server, "ord_2").await;
    assert_eq!(code(&start(&second, "note").await), "NOT_STARTABLE");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_replay_of_a_run_wants_a_word_more() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    server
        .apply(&[
            json!({ "kind": "Connection", "name": "shop", "connector": "http", "config": { "base_url": shop.url } }),
            json!({ "kind": "Workflow", "name": "order", "on": { "manual": {} }, "steps": [
                { "id": "price", "call": "http.request", "connection": "shop", "with": { "method": "GET", "path": "/price" } },
            ] }),
        ])
        .await;
    shop.next([Reply::Json(422, "{}"), Reply::Json(200, "{}")]);
    let start = "mutation { runStart(input: { workflow: \"order\" }) { runId } }";
    let first = server.query(start, json!({})).await["runStart"]["runId"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(server.finished(&first).await["status"], "FAILED");
    let preview = async || {
        let query = "query($id: ID!) { replayPreview(runId: $id) { confirm replacedBy { runId status } } }";
        server.query(query, json!({ "id": first })).await["replayPreview"].clone()
    };
    let replay = async |again: Option<bool>| {
        let query = "mutation($input: RunReplayInput!) { runReplay(input: $input) { runId userErrors { code path ... on PreconditionError { blockers } } } }";
        let confirm = preview().await["confirm"].clone();
        let input = json!({ "input": { "runId": first, "confirm": confirm, "again": again } });
        server.query(query, input).await["runReplay"].clone()
    };
    assert_eq!(preview().await["replacedBy"], Value::Null);
    let second = replay(None).await["runId"].as_str().unwrap().to_owned();
    assert_eq!(server.finished(&second).await["status"], "SUCCEEDED");
    assert_eq!(
        preview().await["replacedBy"],
        json!({ "runId": second, "status": "SUCCEEDED" })
    );
    let query = "{ runs { nodes { id status replacedBy { id status } } } }";
    let listed = server.query(query, json!({})).await["runs"]["nodes"].clone();
    assert_eq!(
        listed,
        json!([
            { "id": second, "status": "SUCCEEDED", "replacedBy": null },
            { "id": first, "status": "FAILED", "replacedBy": { "id": second, "status": "SUCCEEDED" } },
        ])
    );
    let refused = replay(None).await;
    assert_eq!(
        refused["userErrors"],
        json!([{ "code": "ALREADY_REPLAYED", "path": ["input", "again"], "blockers": [second] }])
    );
    assert!(replay(Some(true)).await["runId"].is_string());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_between_tries_is_woken_and_a_sleep_is_not() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    server
        .apply(&[
            json!({ "kind": "Connection", "name": "shop", "connector": "http", "config": { "base_url": shop.url } }),
            json!({ "kind": "Workflow", "name": "order", "on": { "manual": {} }, "steps": [
                { "id": "price", "call": "http.request", "connection": "shop", "retry": { "tries": 5, "first": "30m" },
                  "with": { "method": "GET", "path": "/price" } },
                { "id": "nap", "sleep": "1h" },
            ] }),
        ])
        .await;
    let wake = async |run: &str| {
        let query = "mutation($input: RunWakeInput!) { runWake(input: $input) { runId userErrors { code message } } }";
        server.query(query, json!({ "input": { "runId": run } })).await["runWake"].clone()
    };
    shop.next([Reply::Json(503, "{}")]);
    let start = "mutation { runStart(input: { workflow: \"order\" }) { runId } }";
    let run = server.query(start, json!({})).await["runStart"]["runId"]
        .as_str()
        .unwrap()
        .to_owned();
    let query = format!("{{ run(id: \"{run}\") {{ status dueAt steps {{ status }} history {{ action }} }} }}");
    server.until(&query, |data| data["run"]["status"] == "WAITING").await;
    assert_eq!(wake(&run).await, json!({ "runId": run, "userErrors": [] }));
    let data = server
        .until(&query, |data| {
            data["run"]["status"] == "WAITING" && data["run"]["steps"][0]["status"] == "SUCCEEDED"
        })
        .await;
    assert_eq!(
        data["run"]["history"],
        json!([{ "action": "run.start" }, { "action": "run.wake" }])
    );
    let asleep = wake(&run).await;
    assert_eq!(asleep["userErrors"][0]["code"], "NOTHING_WAITS", "{asleep:#}");
    assert!(asleep.to_string().contains("a `sleep` is a promise"), "{asleep:#}");
    assert_eq!(wake("run_0000000000001").await["userErrors"][0]["code"], "NOT_FOUND");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_trail_is_read_page_by_page_with_the_permission_for_it() {
    let server = TestServer::start().await;
    server.apply(&[orders_endpoint(), note_workflow()]).await;
    let create = "mutation($input: TokenCreateInput!) { tokenCreate(input: $input) { valueOnce token { id } } }";
    let token = async |name: &str, permissions: Value| {
        let input = json!({ "input": { "name": name, "permissions": permissions } });
        let made = server.query(create, input).await["tokenCreate"].clone();
        (
            made["valueOnce"].as_str().unwrap().to_owned(),
            made["token"]["id"].as_str().unwrap().to_owned(),
        )
    };
    let (operator, id) = token("operator", json!(["RUN_OPERATE"])).await;
    let pause = json!({ "input": { "workflow": "note", "reason": "for order 4711" } });
    let paused = server.raw_query(&operator, PAUSE, pause).await;
    assert_eq!(paused["data"]["workflowPause"]["changed"], true, "{paused:#}");
    for actor in ["operator", id.as_str(), &format!("token:{id}")] {
        let told = audit(&server, json!({ "actor": actor })).await;
        assert_eq!(told, [["operator", "workflow.pause", "note"]]);
    }
    let made = audit(&server, json!({ "action": "workflow" })).await;
    assert_eq!(made.len(), 2);
    let first = server
        .query(
            "{ audit(first: 1) { nodes { action detail } pageInfo { endCursor } } }",
            json!({}),
        )
        .await;
    assert_eq!(first["audit"]["nodes"][0]["action"], "workflow.pause");
    assert_eq!(
        first["audit"]["nodes"][0]["detail"],
        json!({ "reason": "for order 4711" })
    );
    let query = "query($after: String) { audit(first: 1, after: $after) { nodes { action subject } } }";
    let second = server
        .query(query, json!({ "after": first["audit"]["pageInfo"]["endCursor"] }))
        .await;
    assert_eq!(
        second["audit"]["nodes"],
        json!([{ "action": "token.create", "subject": "operator" }])
    );
    let none = audit(&server, json!({ "until": "2020-01-01T00:00:00.000Z" })).await;
    assert_eq!(none.len(), 0);

    let refused = server
        .raw_query(&operator, "{ audit { nodes { id } } }", json!({}))
        .await;
    assert_eq!(refused["errors"][0]["extensions"]["code"], "FORBIDDEN");
    // What people wrote may quote payloads.
    let (auditor, _) = token("auditor", json!(["AUDIT_READ"])).await;
    let query = "{ audit(filter: { action: \"workflow.pause\" }) { nodes { detail } } }";
    let told = server.raw_query(&auditor, query, json!({})).await;
    assert_eq!(
        told["data"]["audit"]["nodes"][0]["detail"]["reason"],
        Value::Null,
        "{told:#}"
    );
    assert!(
        server
            .raw_query(ADMIN, query, json!({}))
            .await
            .to_string()
            .contains("4711")
    );
    server.stop().await;
}
