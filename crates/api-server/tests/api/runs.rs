//! Runs through the API: started, told, listed, replayed. And no secret in any of it.

use crate::support::{
    CREDENTIAL, ENDPOINT_SECRET, FakeShop, TestServer, note_workflow, orders_endpoint, post_workflow, shop_connection,
};
use serde_json::{Value, json};

const START: &str = "mutation($input: RunStartInput!) { runStart(input: $input) { replayed run { id } event { id source } userErrors { code path message } } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_started_told_and_replayed_without_doing_it_twice() {
    let shop = FakeShop::start().await;
    let server = TestServer::start().await;
    server.apply(&[shop_connection(&shop.url), post_workflow()]).await;

    let input = json!({ "workflow": "post-order", "input": { "order": "ord_9" }, "idempotencyKey": "k-1" });
    let started = server.query(START, json!({ "input": input })).await["runStart"].clone();
    assert_eq!(
        (
            &started["userErrors"],
            &started["replayed"],
            &started["event"]["source"]
        ),
        (&json!([]), &json!(false), &json!("MANUAL"))
    );
    let id = started["run"]["id"].as_str().unwrap().to_owned();
    let run = server.finished(&id).await;
    assert_eq!(run["status"], "SUCCEEDED", "{run:#}");
    let step = &run["steps"][0];
    assert_eq!(
        (
            &step["path"],
            &step["kind"],
            &step["effect"]["class"],
            &step["effect"]["state"]
        ),
        (&json!("send"), &json!("CALL"), &json!("KEYED"), &json!("CONFIRMED"))
    );
    let exchange = &step["attempts"][0]["exchanges"][0];
    assert_eq!(
        (&exchange["method"], &exchange["status"], &exchange["requestBody"]),
        (&json!("POST"), &json!(200), &json!(r#"{"order":"ord_9"}"#))
    );
    assert_eq!(exchange["responseBody"], r#"{"ok":true}"#);
    assert!(
        exchange["curl"].as_str().unwrap().starts_with("curl -X POST "),
        "{exchange:#}"
    );
    assert!(
        shop.seen.lock().unwrap()[0].contains(CREDENTIAL),
        "the credential went where it belongs"
    );

    let again = server.query(START, json!({ "input": input })).await["runStart"].clone();
    assert_eq!((&again["replayed"], &again["run"]["id"]), (&json!(true), &json!(id)));
    let query = "query($id: String) { audit(first: 9, filter: { subject: $id }) { nodes { action detail } } }";
    let told = server.query(query, json!({ "id": id })).await["audit"]["nodes"].clone();
    assert_eq!(
        (told.as_array().unwrap().len(), &told[0]["action"]),
        (1, &json!("run.start")),
        "{told}"
    );
    assert_eq!(told[0]["detail"]["workflow"], "post-order");
    let wrong = server
        .query(
            START,
            json!({ "input": { "workflow": "post-order", "input": { "order": 7 } } }),
        )
        .await["runStart"]
        .clone();
    assert_eq!(
        (&wrong["run"], &wrong["userErrors"][0]["path"]),
        (&Value::Null, &json!(["input", "input", "order"]))
    );
    let unknown = server.query(START, json!({ "input": { "workflow": "nope" } })).await["runStart"].clone();
    assert_eq!(unknown["userErrors"][0]["code"], "NOT_FOUND");

    let preview = server.query("query($id: ID!) { replayPreview(runId: $id) { confirm answered { step connectorName operation sends } new { step } unknown { step } note } }", json!({ "id": id })).await["replayPreview"].clone();
    assert_eq!(
        (
            &preview["answered"][0]["step"],
            &preview["answered"][0]["sends"],
            &preview["new"]
        ),
        (&json!("send"), &json!(false), &json!([]))
    );
    let replay = "mutation($input: RunReplayInput!) { runReplay(input: $input) { run { id replayOf { id } } preview { confirm } userErrors { code } } }";
    let guessed = server
        .query(replay, json!({ "input": { "runId": id, "confirm": "guess" } }))
        .await["runReplay"]
        .clone();
    assert_eq!(
        (
            &guessed["run"],
            &guessed["userErrors"][0]["code"],
            &guessed["preview"]["confirm"]
        ),
        (&Value::Null, &json!("PREVIEW_CHANGED"), &preview["confirm"])
    );
    let replayed = server
        .query(
            replay,
            json!({ "input": { "runId": id, "confirm": preview["confirm"] } }),
        )
        .await["runReplay"]
        .clone();
    assert_eq!(replayed["run"]["replayOf"]["id"], json!(id));
    let second = server.finished(replayed["run"]["id"].as_str().unwrap()).await;
    assert_eq!(
        (&second["status"], &second["steps"][0]["status"]),
        (&json!("SUCCEEDED"), &json!("ANSWERED")),
        "{second:#}"
    );
    assert_eq!(shop.seen.lock().unwrap().len(), 1, "nothing was sent twice");

    let none = server
        .query(
            "{ replayPreview(runId: \"run_0000000000000\") { confirm } run(id: \"run_0000000000000\") { id } }",
            json!({}),
        )
        .await;
    assert_eq!(none, json!({ "replayPreview": null, "run": null }));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_without_permission_is_null_and_the_page_stays() {
    let shop = FakeShop::start().await;
    let server = TestServer::start().await;
    server.apply(&[shop_connection(&shop.url), post_workflow()]).await;
    let started = server
        .query(
            START,
            json!({ "input": { "workflow": "post-order", "input": { "order": "o" } } }),
        )
        .await;
    let id = started["runStart"]["run"]["id"].as_str().unwrap().to_owned();
    server.finished(&id).await;
    let create = "mutation($input: TokenCreateInput!) { tokenCreate(input: $input) { valueOnce } }";
    let input = json!({ "input": { "name": "watcher", "permissions": ["RUN_READ"] } });
    let token = server.query(create, input).await["tokenCreate"]["valueOnce"]
        .as_str()
        .unwrap()
        .to_owned();

    let query = "query($id: ID!) { run(id: $id) { status workflow { name } event { type body { text } } steps { path output attempts { exchanges { url status requestBody curl } } } } }";
    let answer = server.raw_query(&token, query, json!({ "id": id })).await;
    let run = &answer["data"]["run"];
    assert_eq!(
        (&run["status"], &run["workflow"], &run["event"]["body"]),
        (&json!("SUCCEEDED"), &Value::Null, &Value::Null)
    );
    let step = &run["steps"][0];
    assert_eq!((&step["path"], &step["output"]), (&json!("send"), &Value::Null));
    let exchange = &step["attempts"][0]["exchanges"][0];
    // Of the address the host alone: the rest is made of what the event holds.
    let url = exchange["url"].as_str().unwrap();
    assert!(url.starts_with("http://127.0.0.1:") && url.ends_with("/…"), "{url}");
    assert_eq!(
        (&exchange["status"], &exchange["requestBody"], &exchange["curl"]),
        (&json!(200), &Value::Null, &Value::Null)
    );
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 5, "{errors:#?}");
    assert!(
        errors
            .iter()
            .all(|error| error["extensions"]["code"] == "FORBIDDEN" && error["path"].is_array())
    );
    // Where nothing nullable is left, the error takes its parent along, as the specification says.
    let whole = server
        .raw_query(&token, "{ viewer { name } connections { name } }", json!({}))
        .await;
    assert_eq!(
        (&whole["data"], &whole["errors"][0]["path"]),
        (&Value::Null, &json!(["connections"]))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_paged_and_filtered() {
    let server = TestServer::start().await;
    server.apply(&[orders_endpoint(), note_workflow()]).await;
    for number in 0..5 {
        let answer = server
            .hook(
                "/hooks/main/orders",
                ENDPOINT_SECRET,
                format!(r#"{{"type":"order.placed","id":"ord_{number}"}}"#),
            )
            .await;
        assert!(answer.status().is_success());
    }
    let query = "query($after: String, $filter: RunFilter) { runs(first: 2, after: $after, filter: $filter) { nodes { id event { externalId } } pageInfo { hasNextPage endCursor } } }";
    let mut seen = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = server.query(query, json!({ "after": after })).await["runs"].clone();
        let nodes = page["nodes"].as_array().unwrap();
        assert!(nodes.len() <= 2);
        seen.extend(
            nodes
                .iter()
                .map(|node| node["event"]["externalId"].as_str().unwrap().to_owned()),
        );
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(
        seen,
        ["ord_4", "ord_3", "ord_2", "ord_1", "ord_0"],
        "newest first, each once"
    );
    let cursor = server.query(query, json!({})).await["runs"]["pageInfo"]["endCursor"].clone();
    let other = server
        .raw_query(
            crate::support::ADMIN,
            query,
            json!({ "after": cursor, "filter": { "status": "FAILED" } }),
        )
        .await;
    assert_eq!(other["errors"][0]["extensions"]["code"], "INVALID_CURSOR");

    let events = server
        .query(
            "{ events(filter: { externalId: \"ord_3\" }) { nodes { id runs { id } } } }",
            json!({}),
        )
        .await;
    let event = &events["events"]["nodes"][0];
    let of_event = server
        .query(query, json!({ "filter": { "eventId": event["id"] } }))
        .await["runs"]
        .clone();
    assert_eq!(
        (
            of_event["nodes"].as_array().unwrap().len(),
            &of_event["nodes"][0]["id"],
            &of_event["pageInfo"]["hasNextPage"]
        ),
        (1, &event["runs"][0]["id"], &json!(false))
    );
    for filter in [
        json!({ "workflow": "other" }),
        json!({ "unknownEffects": true }),
        json!({ "status": "CANCELED" }),
        json!({ "until": "2001-01-01T00:00:00.000Z" }),
    ] {
        let none = server.query(query, json!({ "filter": filter })).await["runs"].clone();
        assert_eq!(
            none,
            json!({ "nodes": [], "pageInfo": { "hasNextPage": false, "endCursor": null } }),
            "{filter}"
        );
    }
    // A page of everything stays inside the budget of reads.
    server.query("{ runs(first: 100) { nodes { id workflow { name } version { number } event { body { size } endpoint { name } } steps { path } } } }", json!({})).await;
    server.stop().await;
}

/// Every field that the schema has, a few levels deep, asked for with every thing that exists: the secrets are in none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_holds_a_secret() {
    let shop = FakeShop::start().await;
    let server = TestServer::start().await;
    server
        .apply(&[
            shop_connection(&shop.url),
            post_workflow(),
            orders_endpoint(),
            note_workflow(),
        ])
        .await;
    server
        .hook(
            "/hooks/main/orders",
            ENDPOINT_SECRET,
            r#"{"type":"order.placed","id":"ord_1"}"#,
        )
        .await;
    server
        .hook(
            "/hooks/main/orders",
            "another-s3cret-never-shown",
            r#"{"type":"order.placed","id":"ord_2"}"#,
        )
        .await;
    let started = server
        .query(
            START,
            json!({ "input": { "workflow": "post-order", "input": { "order": "ord_9" } } }),
        )
        .await;
    server
        .finished(started["runStart"]["run"]["id"].as_str().unwrap())
        .await;

    let create = "mutation($input: TokenCreateInput!) { tokenCreate(input: $input) { valueOnce } }";
    let input = json!({ "input": { "name": "ci", "permissions": ["RUN_READ"] } });
    let made = server.query(create, input).await["tokenCreate"]["valueOnce"]
        .as_str()
        .unwrap()
        .to_owned();

    let schema = server.query("{ __schema { types { name kind fields { name args { name type { kind } } type { kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } } }", json!({})).await;
    let types = schema["__schema"]["types"].as_array().unwrap().clone();
    let roots = [
        "viewer",
        "serverInfo",
        "connectors",
        "connections",
        "endpoints",
        "workflows",
        "events",
        "runs",
        "refusedRequests",
        "documents",
        "tokens",
    ];
    for root in roots {
        let query = types.iter().find(|kind| kind["name"] == "Query").unwrap();
        let field = query["fields"]
            .as_array()
            .unwrap()
            .iter()
            .find(|field| field["name"] == root)
            .unwrap();
        let selection = everything(&types, &named(&field["type"]), 5);
        let text = server
            .query(&format!("{{ {root} {selection} }}"), json!({}))
            .await
            .to_string();
        assert!(text.len() > 20, "{root} gave nothing: {text}");
        for secret in [
            CREDENTIAL,
            ENDPOINT_SECRET,
            "another-s3cret-never-shown",
            crate::support::ADMIN,
            made.as_str(),
        ] {
            assert!(!text.contains(secret), "{root} shows a secret");
        }
    }
    server.stop().await;
}

/// The name of a type without its wrappers.
fn named(wrapped: &Value) -> String {
    match wrapped["name"].as_str() {
        Some(name) => name.to_owned(),
        None => named(&wrapped["ofType"]),
    }
}

/// A selection of every field without required arguments, `depth` levels deep.
fn everything(types: &[Value], name: &str, depth: usize) -> String {
    let kind = types.iter().find(|kind| kind["name"] == name).unwrap();
    if kind["kind"] != "OBJECT" {
        return String::new();
    }
    let mut fields = String::new();
    for field in kind["fields"].as_array().unwrap() {
        let inner = named(&field["type"]);
        let object = types
            .iter()
            .any(|kind| kind["name"] == inner.as_str() && kind["kind"] == "OBJECT");
        if object && depth == 0 {
            continue;
        }
        // Going back up would only repeat what was asked already.
        if object && ["Workflow", "Event", "Run"].contains(&inner.as_str()) && depth < 5 {
            continue;
        }
        fields.push_str(&format!(
            " {} {}",
            field["name"].as_str().unwrap(),
            everything(types, &inner, depth.saturating_sub(1))
        ));
    }
    format!("{{ __typename {fields} }}")
}
