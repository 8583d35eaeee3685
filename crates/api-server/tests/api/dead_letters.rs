//! Dead letters through the API: what fails stands together by its cause and stops nothing else.

use crate::support::{ADMIN, ENDPOINT_SECRET, TestServer, note_workflow, orders_endpoint};
use crate::upstream::{Reply, Upstream};
use serde_json::{Value, json};

const CAUSES: &str = "query($workflow: String, $state: DeadLetterState) { deadLetterCauses(workflow: $workflow, state: $state) \
    { more nodes { id state workflowName step code httpStatus message count sample { id } mark { state note by } runs { nodes { id } } } } }";
const MARK: &str = "mutation($input: DeadLetterMarkInput!) { deadLetterMark(input: $input) { cause { state mark { note } } userErrors { code path } } }";

async fn causes(server: &TestServer, variables: Value) -> Vec<Value> {
    let found = server.query(CAUSES, variables).await;
    found["deadLetterCauses"]["nodes"].as_array().unwrap().clone()
}

/// A workflow with a filter that cannot be evaluated for every event, and one that posts to a shop.
fn documents(url: &str) -> Vec<Value> {
    vec![
        orders_endpoint(),
        note_workflow(),
        json!({ "kind": "Connection", "name": "shop", "connector": "http", "config": { "base_url": url } }),
        json!({
            "kind": "Workflow", "name": "picky",
            "on": { "event": "generic.order.placed", "where": "{{ event.data.amount * 2 > 10 }}" },
            "steps": [{ "id": "seen", "set": { "order": "{{ event.data.id }}" } }],
        }),
        json!({
            "kind": "Workflow", "name": "post",
            "on": { "event": "generic.order.placed" },
            "steps": [{ "id": "lines", "for_each": "{{ event.data.lines }}", "do": [
                { "id": "send", "call": "http.request", "connection": "shop", "with": { "method": "POST", "path": "/lines", "body": "{{ item }}" } },
            ] }],
        }),
    ]
}

async fn order(server: &TestServer, id: &str, amount: Value) {
    let body = json!({ "type": "order.placed", "id": id, "amount": amount, "lines": [format!("line of {id}")] });
    let answer = server
        .hook("/hooks/main/orders", ENDPOINT_SECRET, body.to_string())
        .await;
    assert!(answer.status().is_success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_stands_together_and_stops_nothing_else() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&shop.url)).await;
    for n in 0..3 {
        shop.next([Reply::Json(422, r#"{"message":"no such line"}"#)]);
        // A poison event for `picky`: it cannot even be asked whether it wants it.
        order(&server, &format!("ord_{n}"), json!({ "not": "a number" })).await;
        let done = n + 1;
        server
            .until("{ deadLetterCauses { nodes { workflowName count } } runs(filter: { status: SUCCEEDED }) { nodes { id } } }", |data| {
                let nodes = data["deadLetterCauses"]["nodes"].as_array().unwrap();
                let both = nodes.len() == 2 && nodes.iter().all(|node| node["count"] == json!(done));
                // The third workflow on the same event goes on as if nothing were.
                both && data["runs"]["nodes"].as_array().unwrap().len() == done
            })
            .await;
    }
    let found = causes(&server, json!({ "workflow": "picky" })).await;
    assert_eq!(
        (found.len(), &found[0]["code"], &found[0]["step"], &found[0]["count"]),
        (1, &json!("where_failed"), &Value::Null, &json!(3)),
        "{found:#?}"
    );
    let found = causes(&server, json!({ "workflow": "post" })).await;
    assert_eq!(found[0]["httpStatus"], 422, "{found:#?}");
    // Three orders, three items, one cause.
    assert_eq!(
        (found.len(), &found[0]["step"], &found[0]["count"]),
        (1, &json!("lines[].send"), &json!(3)),
        "{found:#?}"
    );
    assert_eq!(found[0]["runs"]["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(found[0]["runs"]["nodes"][0]["id"], found[0]["sample"]["id"]);
    assert_eq!(
        causes(&server, json!({ "workflow": "nobody" })).await,
        Vec::<Value>::new()
    );

    // A whole cause is retried at once; what is retried is no dead letter any more.
    let filter = json!({ "causeId": found[0]["id"] });
    let query = "query($filter: BulkFilterInput!) { bulkReplayPreview(filter: $filter) { runs confirm } }";
    let shown = server.query(query, json!({ "filter": filter })).await["bulkReplayPreview"].clone();
    assert_eq!(shown["runs"], 3);
    let begin = "mutation($input: BulkReplayInput!) { bulkReplay(input: $input) { bulkId userErrors { code } } }";
    server
        .query(
            begin,
            json!({ "input": { "filter": filter, "confirm": shown["confirm"] } }),
        )
        .await;
    server
        .until("{ deadLetterCauses(workflow: \"post\") { nodes { id } } runs(filter: { workflow: \"post\", status: SUCCEEDED }) { nodes { id } } }", |data| {
            let retried = data["runs"]["nodes"].as_array().unwrap().len();
            data["deadLetterCauses"]["nodes"] == json!([]) && retried == 3
        })
        .await;
    server.stop().await;
}

/// `picky` with this condition, and a lane with this key.
fn picky(condition: &str, key: &str) -> Value {
    json!({
        "kind": "Workflow", "name": "picky",
        "on": { "event": "generic.order.placed", "where": condition },
        "lane": { "key": key },
        "steps": [{ "id": "seen", "set": { "order": "{{ event.data.id }}" } }],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_before_it_began_is_asked_again_whether_it_may_begin() {
    let server = TestServer::start().await;
    let amount = "{{ event.data.amount * 2 > 10 }}";
    server
        .apply(&[orders_endpoint(), picky(amount, "{{ event.data.id }}")])
        .await;
    order(&server, "ord_1", json!({ "not": "a number" })).await;
    let failed = |data: &Value| data["runs"]["nodes"].as_array().unwrap().len() == 1;
    let list = "{ runs(filter: { status: FAILED, errorCode: \"where_failed\" }) { nodes { id } } }";
    let run = server.until(list, failed).await["runs"]["nodes"][0]["id"].clone();
    let preview = async |options: Value| {
        let query = "query($id: ID!, $options: ReplayOptionsInput) { replayPreview(runId: $id, options: $options) { confirm } }";
        let variables = json!({ "id": run, "options": options });
        server.raw_query(ADMIN, query, variables).await
    };
    let refused = async |options: Value, why: &str| {
        let answer = preview(options).await;
        let message = answer["errors"][0]["message"].as_str().unwrap_or_default();
        assert!(message.contains(why), "{answer:#}");
    };
    // The same again would fail again, and is not promised to do anything.
    refused(Value::Null, "the `where` of version 1 cannot be evaluated").await;
    let body = |amount: u32| json!({ "type": "order.placed", "id": "ord_1", "amount": amount });
    refused(json!({ "body": body(1) }), "is false for its event").await;
    // The version to run is the one that is asked.
    server
        .apply(&[
            orders_endpoint(),
            picky("{{ event.data.id == 'ord_9' }}", "{{ event.data.id }}"),
        ])
        .await;
    refused(json!({ "version": "LIVE" }), "the `where` of version 2 is false").await;
    server
        .apply(&[
            orders_endpoint(),
            picky("{{ event.data.id == 'ord_1' }}", "{{ event.data.none.at_all }}"),
        ])
        .await;
    refused(json!({ "version": "LIVE" }), "the flow control of version 3 fails").await;
    // Many at once leave it out and tell why.
    let query = "query($filter: BulkFilterInput!) { bulkReplayPreview(filter: $filter) { runs leftOut { reason } } }";
    let shown = server.query(query, json!({ "filter": { "workflow": "picky" } })).await["bulkReplayPreview"].clone();
    assert_eq!(shown["runs"], 0, "{shown:#}");
    assert!(
        shown["leftOut"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("before it begins")
    );
    let fits = preview(json!({ "body": body(7) })).await;
    assert!(fits["data"]["replayPreview"]["confirm"].is_string(), "{fits:#}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_note_what_became_of_a_cause() {
    let shop = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&shop.url)).await;
    order(&server, "ord_1", json!(7)).await;
    order(&server, "ord_2", json!("x")).await;
    let open = |data: &Value| data["deadLetterCauses"]["nodes"].as_array().unwrap().len() == 1;
    server.until("{ deadLetterCauses { nodes { id } } }", open).await;
    let cause = causes(&server, json!({})).await[0].clone();
    let mark = async |mark: &str| {
        let input = json!({ "input": { "causeId": cause["id"], "mark": mark, "note": "known" } });
        server.query(MARK, input).await["deadLetterMark"].clone()
    };
    let resolved = mark("RESOLVED").await;
    assert_eq!(
        resolved["cause"],
        json!({ "state": "RESOLVED", "mark": { "note": "known" } }),
        "{resolved:#}"
    );
    assert_eq!(causes(&server, json!({})).await, Vec::<Value>::new());
    assert_eq!(causes(&server, json!({ "state": "RESOLVED" })).await.len(), 1);
    // It happens again: it is open again, with what is new.
    order(&server, "ord_3", json!("x")).await;
    server.until("{ deadLetterCauses { nodes { id } } }", open).await;
    assert_eq!(causes(&server, json!({})).await[0]["count"], 1);
    mark("IGNORED").await;
    order(&server, "ord_4", json!("x")).await;
    let counted = |data: &Value| data["deadLetterCauses"]["nodes"][0]["count"] == json!(3);
    server
        .until("{ deadLetterCauses(state: IGNORED) { nodes { count } } }", counted)
        .await;
    assert_eq!(causes(&server, json!({})).await, Vec::<Value>::new());
    for (id, code) in [
        ("cause_x", "INVALID_ID"),
        ("cause_0000000000000_0000000000000001", "NOT_FOUND"),
    ] {
        let input = json!({ "input": { "causeId": id, "mark": "RESOLVED" } });
        let refused = server.query(MARK, input).await["deadLetterMark"].clone();
        assert_eq!(refused["userErrors"][0]["code"], code, "{id}");
    }
    let workspace = server.orchestrator.default_workspace();
    let audit = server
        .orchestrator
        .store()
        .audit_page(workspace, &weir_storage::AuditFilter::default(), None, 10)
        .await
        .unwrap();
    let marks = audit
        .rows
        .iter()
        .filter(|entry| entry.action == "dead_letter.mark")
        .count();
    assert_eq!(marks, 2);
    let create = "mutation($input: TokenCreateInput!) { tokenCreate(input: $input) { valueOnce } }";
    let input = json!({ "input": { "name": "watcher", "permissions": ["RUN_READ"] } });
    let token = server.query(create, input).await["tokenCreate"]["valueOnce"]
        .as_str()
        .unwrap()
        .to_owned();
    let input = json!({ "input": { "causeId": cause["id"], "mark": "OPEN" } });
    let answer = server.raw_query(&token, MARK, input).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "FORBIDDEN");
    assert!(
        server
            .raw_query(ADMIN, "{ deadLetterCause(id: \"x\") { id } }", json!({}))
            .await["errors"]
            .is_array()
    );
    server.stop().await;
}

/// What a `stop` says, what a provider answers and what an expression found are contents.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_read_payloads_is_told_codes_and_no_messages() {
    let server = TestServer::start().await;
    let workflow =
        |name: &str, step: Value| json!({ "kind": "Workflow", "name": name, "on": { "manual": {} }, "steps": [step] });
    server
        .apply(&[
            workflow(
                "leave",
                json!({ "id": "end", "stop": { "status": "failed", "reason": "Ada {{ event.data.who }} left" } }),
            ),
            workflow(
                "read",
                json!({ "id": "look", "set": { "is": "{{ event.data.whom }}" } }),
            ),
        ])
        .await;
    let start = "mutation($input: RunStartInput!) { runStart(input: $input) { run { id } } }";
    for name in ["leave", "read"] {
        let input = json!({ "input": { "workflow": name, "input": { "who": "Lovelace" } } });
        let run = server.query(start, input).await["runStart"]["run"]["id"].clone();
        server.finished(run.as_str().unwrap()).await;
    }
    let query = "{ runs { nodes { error { code step message } steps { note } } } \
        deadLetterCauses { nodes { code step message } } }";
    let shown = server.query(query, json!({})).await.to_string();
    for held in [
        "Ada Lovelace left",
        "event.data.whom is not there: `event.data` has who",
    ] {
        assert!(shown.contains(held), "{shown}");
    }
    let create = "mutation($input: TokenCreateInput!) { tokenCreate(input: $input) { valueOnce } }";
    let input = json!({ "input": { "name": "watcher", "permissions": ["RUN_READ"] } });
    let token = server.query(create, input).await["tokenCreate"]["valueOnce"].clone();
    let shown = server.raw_query(token.as_str().unwrap(), query, json!({})).await;
    assert_eq!(shown["errors"], Value::Null, "{shown:#}");
    let text = shown.to_string();
    assert!(
        !["Ada", "Lovelace", "who"].iter().any(|held| text.contains(held)),
        "{shown:#}"
    );
    let mut codes: Vec<&Value> = shown["data"]["runs"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| &run["error"]["code"])
        .collect();
    codes.sort_by_key(|code| code.to_string());
    assert_eq!(codes, ["expression_failed", "stopped"]);
    assert_eq!(shown["data"]["deadLetterCauses"]["nodes"][0]["message"], Value::Null);
    // Many at once say how many of them would only fail again.
    let query = "query($filter: BulkFilterInput!) { bulkReplayPreview(filter: $filter) { runs failingCount summary } }";
    let shown = server.query(query, json!({ "filter": { "workflow": "read" } })).await["bulkReplayPreview"].clone();
    assert_eq!(
        (&shown["runs"], &shown["failingCount"]),
        (&json!(1), &json!(1)),
        "{shown:#}"
    );
    assert!(
        shown["summary"].as_str().unwrap().contains("1 run would fail again"),
        "{shown:#}"
    );
    server.stop().await;
}
