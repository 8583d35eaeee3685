//! Each bound of the GraphQL API: at the bound a request is answered, beyond it there is the code that is promised.

use crate::support::{
    ADMIN, ENDPOINT_SECRET, TestServer, note_workflow, orders_endpoint, post_workflow, shop_connection,
};
use serde_json::{Value, json};
use std::time::Duration;
use weir_orchestrator::Settings;

/// The code of the first error, or an empty text.
async fn code(server: &TestServer, query: &str) -> String {
    let answer = server.raw_query(ADMIN, query, json!({})).await;
    answer["errors"][0]["extensions"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_stop_at_their_bound() {
    let server = TestServer::start().await;
    // MAX_PAGE
    for (first, expected) in [(100, ""), (101, "BAD_REQUEST")] {
        let query = format!("{{ runs(first: {first}) {{ nodes {{ id }} }} }}");
        assert_eq!(code(&server, &query).await, expected, "{first}");
    }
    // MAX_READS: a run reads its story.
    let part = |n: usize| format!("a{n}: runs(first: 100) {{ nodes {{ steps {{ path }} }} }}");
    let query = format!("{{ {} }}", (0..6).map(part).collect::<Vec<_>>().join(" "));
    server.apply(&[orders_endpoint(), note_workflow()]).await;
    for number in 0..100 {
        let body = json!({ "type": "order.placed", "id": number.to_string() }).to_string();
        assert_eq!(
            server.hook("/hooks/main/orders", ENDPOINT_SECRET, body).await.status(),
            200
        );
    }
    assert_eq!(code(&server, &query).await, "COST_EXCEEDED");
    // MAX_STEPS_SHOWN: a loop has a step for each item.
    server
        .apply(&[json!({
            "kind": "Workflow", "name": "loop", "on": { "manual": {} },
            "steps": [{ "id": "each", "for_each": "{{ event.data.items }}", "do": [{ "id": "one", "set": { "a": 1 } }] }],
        })])
        .await;
    let start = "mutation($input: RunStartInput!) { runStart(input: $input) { runId } }";
    let items: Vec<usize> = (0..1_001).collect();
    let started = server
        .query(
            start,
            json!({ "input": { "workflow": "loop", "input": { "items": items } } }),
        )
        .await;
    let run = started["runStart"]["runId"].as_str().unwrap();
    assert_eq!(server.finished(run).await["status"], "SUCCEEDED");
    let query = format!(
        "{{ run(id: \"{run}\") {{ stepCount steps {{ path }} all: steps(first: 1000) {{ path }} rest: steps(skip: 1000) {{ path }} }} }}"
    );
    let shown = server.query(&query, json!({})).await["run"].clone();
    let count = |name: &str| shown[name].as_array().unwrap().len();
    assert_eq!((count("steps"), count("all")), (1_000, 1_000));
    assert!(count("rest") > 0 && shown["stepCount"] == json!(1_000 + count("rest")));
    // And MAX_MERGED_SHOWN.
    for field in ["steps(first: FIRST) { path }", "merged(first: FIRST) { id }"] {
        for (first, expected) in [("1000", ""), ("1001", "BAD_REQUEST")] {
            let query = format!("{{ run(id: \"{run}\") {{ {} }} }}", field.replace("FIRST", first));
            assert_eq!(code(&server, &query).await, expected, "{query}");
        }
    }
    server.stop().await;
}

/// Nothing is lost at the bound of the backlog: the sender is told to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_wait_outside_when_the_backlog_is_full() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let server = TestServer::start_with(Settings {
        max_runs_in_memory: 1,
        max_backlog_runs: 2,
        shutdown_grace: Duration::ZERO,
        ..Settings::default()
    })
    .await;
    let mut workflow = note_workflow();
    workflow["steps"] = json!([{ "id": "hang", "call": "http.request", "connection": "shop", "with": { "method": "GET", "path": "/" } }]);
    server
        .apply(&[orders_endpoint(), shop_connection(&url), workflow])
        .await;
    let mut accepted = 0;
    let refused = loop {
        let body = json!({ "type": "order.placed", "id": accepted.to_string() }).to_string();
        let answer = server.hook("/hooks/main/orders", ENDPOINT_SECRET, body).await;
        if answer.status() != 200 {
            break answer;
        }
        accepted += 1;
    };
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "5");
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "BACKLOG_FULL", "{problem:#}");
    // One in memory, two on disk.
    assert_eq!(accepted, 3);
    server.stop().await;
}

/// A pause that somebody forgot ends in an answer that senders understand, and in words that people do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_wait_outside_when_too_many_runs_are_queued() {
    let server = TestServer::start_with(Settings {
        max_queued_runs: 4,
        ..Settings::default()
    })
    .await;
    server.apply(&[orders_endpoint(), note_workflow()]).await;
    let change = |word: &str| {
        format!(
            "mutation($input: Workflow{word}Input!) {{ workflow{word}(input: $input) {{ userErrors {{ message }} }} }}"
        )
    };
    let input = json!({ "input": { "workflow": note_workflow()["name"] } });
    server.query(&change("Pause"), input.clone()).await;
    let send = async |number: usize| {
        let body = json!({ "type": "order.placed", "id": number.to_string() }).to_string();
        server.hook("/hooks/main/orders", ENDPOINT_SECRET, body).await
    };
    for number in 0..4 {
        assert_eq!(send(number).await.status(), 200);
    }
    let mut number = 4;
    let refused = loop {
        let answer = send(number).await;
        if answer.status() != 200 {
            break answer;
        }
        number += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (503, &"5".parse().unwrap())
    );
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "BACKLOG_FULL", "{problem:#}");
    let ready: Value = reqwest::get(server.url("/readyz")).await.unwrap().json().await.unwrap();
    let reason = ready["reasons"][0].as_str().unwrap();
    assert!(
        reason.contains("accepted runs are queued") && reason.contains("weir workflows"),
        "{reason}"
    );
    // When they may go, the door opens again.
    server.query(&change("Resume"), input).await;
    while send(number).await.status() != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_stop_at_their_bounds() {
    let server = TestServer::start().await;
    let error = async |query: &str, of: &str, input: Value| -> String {
        let data = server.query(query, json!({ "input": input })).await;
        data[of]["userErrors"][0]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    // MAX_DOCUMENTS
    let apply = "mutation($input: ApplyDocumentsInput!) { applyDocuments(input: $input) { userErrors { code } } }";
    let documents = |count: usize| {
        let document = |n: usize| {
            let mut workflow = note_workflow();
            workflow["name"] = json!(format!("note-{n}"));
            workflow.to_string()
        };
        json!({ "documents": (0..count).map(document).collect::<Vec<_>>() })
    };
    assert_eq!(error(apply, "applyDocuments", documents(501)).await, "TOO_MANY");
    // MAX_NAME_CHARACTERS of a token
    let token = "mutation($input: TokenCreateInput!) { tokenCreate(input: $input) { userErrors { code } } }";
    for (length, expected) in [(100, ""), (101, "INVALID")] {
        let input = json!({ "name": "t".repeat(length), "permissions": ["RUN_READ"] });
        assert_eq!(error(token, "tokenCreate", input).await, expected, "{length}");
    }
    // MAX_KEY_BYTES
    let mut workflow = post_workflow();
    workflow["steps"] = json!([{ "id": "x", "set": { "a": 1 } }]);
    server.apply(&[workflow]).await;
    let start = "mutation($input: RunStartInput!) { runStart(input: $input) { userErrors { code } } }";
    for (length, expected) in [(200, ""), (201, "INVALID")] {
        let input =
            json!({ "workflow": "post-order", "input": { "order": "1" }, "idempotencyKey": "k".repeat(length) });
        assert_eq!(error(start, "runStart", input).await, expected, "{length}");
    }
    // MAX_NOTE_BYTES
    let cancel = "mutation($input: RunCancelInput!) { runCancel(input: $input) { userErrors { code } } }";
    let input = json!({ "runId": "run_0000000000001", "reason": "r".repeat(4097) });
    assert_eq!(error(cancel, "runCancel", input).await, "INVALID");
    // MAX_ENDPOINT_SECRETS, MAX_NAME_CHARACTERS of connections and endpoints
    let endpoint = |name: &str, secrets: usize| {
        let secrets: Vec<String> = (0..secrets).map(|n| format!("secret-number-{n}-long-enough")).collect();
        let document = json!({ "kind": "Endpoint", "name": name, "connector": "generic",
            "verify": { "token": { "at": "header:X-Token" } }, "secrets": secrets });
        json!({ "documents": [document.to_string()] })
    };
    assert_eq!(error(apply, "applyDocuments", endpoint("orders", 8)).await, "");
    assert_ne!(error(apply, "applyDocuments", endpoint("orders", 9)).await, "");
    assert_eq!(error(apply, "applyDocuments", endpoint(&"e".repeat(64), 1)).await, "");
    assert_ne!(error(apply, "applyDocuments", endpoint(&"e".repeat(65), 1)).await, "");
    server.stop().await;
}
