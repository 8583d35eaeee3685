//! An effect that nobody knows about, through the API: looked for, decided by a person, and what a replay makes of it.

use crate::support::TestServer;
use crate::upstream::{Reply, Upstream};
use serde_json::{Value, json};
use weir_orchestrator::repair::{MAX_NOTE_CHARACTERS, MAX_STATED_OUTPUT_BYTES};

const START: &str = "mutation($input: RunStartInput!) { runStart(input: $input) { runId } }";
const RESOLVE: &str = "mutation($input: EffectResolveInput!) { effectResolve(input: $input) { message \
    decision { verdict looked by note } run { id } userErrors { code path message } } }";
const PREVIEW: &str = "query($id: ID!) { replayPreview(runId: $id) { confirm reads { step } answered { step } new { step } \
    unknown { step sends } note } }";
const REPLAY: &str = "mutation($input: RunReplayInput!) { runReplay(input: $input) { runId userErrors { code } } }";

fn documents(url: &str) -> Vec<Value> {
    vec![
        json!({ "kind": "Connection", "name": "bank", "connector": "http", "config": { "base_url": url } }),
        json!({ "kind": "Connection", "name": "notes", "connector": "notes", "config": { "base_url": url } }),
        json!({
            "kind": "Workflow", "name": "pay",
            "on": { "manual": {} },
            "steps": [
                { "id": "pay", "call": "http.request", "connection": "bank", "with": { "method": "POST", "path": "/pay", "body": { "amount": 7 } } },
                { "id": "receipt", "call": "http.request", "connection": "bank",
                  "with": { "method": "POST", "path": "/receipt", "body": { "payment": "{{ steps.pay.id }}" } } },
            ],
        }),
        json!({
            "kind": "Workflow", "name": "note",
            "on": { "manual": {} },
            "steps": [{ "id": "write", "call": "notes.create", "connection": "notes", "timeout": "1s", "with": { "text": "hello" } }],
        }),
    ]
}

/// Starts a workflow and gives the run when it is over.
async fn run(server: &TestServer, workflow: &str) -> Value {
    let started = server.query(START, json!({ "input": { "workflow": workflow } })).await;
    server.finished(started["runStart"]["runId"].as_str().unwrap()).await
}

async fn resolve(server: &TestServer, input: Value) -> Value {
    server.query(RESOLVE, json!({ "input": input })).await["effectResolve"].clone()
}

async fn preview(server: &TestServer, run: &Value) -> Value {
    server.query(PREVIEW, json!({ "id": run["id"] })).await["replayPreview"].clone()
}

/// Replays a run as it was shown, and gives the new run when it is over.
async fn replay(server: &TestServer, run: &Value) -> Value {
    let shown = preview(server, run).await;
    let input = json!({ "input": { "runId": run["id"], "confirm": shown["confirm"] } });
    let replayed = server.query(REPLAY, input).await["runReplay"].clone();
    server.finished(replayed["runId"].as_str().unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_is_never_sent_again() {
    let bank = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&bank.url)).await;
    bank.next([Reply::HangUp]);
    let lost = run(&server, "pay").await;
    assert_eq!(lost["error"]["code"], "effect_unknown", "{lost:#}");
    assert_eq!(preview(&server, &lost).await["unknown"][0]["sends"], false);

    let said = json!({ "runId": lost["id"], "step": "pay", "resolution": "HAPPENED", "output": { "id": "p_1" }, "note": "on the statement" });
    let decided = resolve(&server, said.clone()).await;
    let wanted = json!({ "verdict": "HAPPENED", "looked": false, "by": "admin", "note": "on the statement" });
    assert_eq!(
        (
            &decided["decision"]["verdict"],
            &decided["decision"]["note"],
            &decided["userErrors"]
        ),
        (&wanted["verdict"], &wanted["note"], &json!([])),
        "{decided:#}"
    );
    // Said twice is said once; nothing was sent by it.
    assert_eq!(resolve(&server, said).await["decision"], decided["decision"]);
    assert_eq!(bank.requests().len(), 1);
    let told = server.finished(lost["id"].as_str().unwrap()).await;
    assert_eq!(
        (&told["status"], &told["steps"][0]["effect"]["state"]),
        (&json!("FAILED"), &json!("CONFIRMED"))
    );

    let second = replay(&server, &lost).await;
    assert_eq!(second["status"], "SUCCEEDED", "{second:#}");
    assert_eq!(second["steps"][0]["status"], "ANSWERED");
    assert_eq!((bank.count("/pay"), bank.count("/receipt")), (1, 1));
    assert_eq!(bank.requests()[1].1, r#"{"payment":"p_1"}"#);
    // What is known is not to be decided, and what was decided may be corrected.
    let known = resolve(
        &server,
        json!({ "runId": second["id"], "step": "receipt", "resolution": "NOT_HAPPENED" }),
    )
    .await;
    assert_eq!(known["userErrors"][0]["code"], "NOT_RESOLVABLE");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_says_has_bounds() {
    let bank = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&bank.url)).await;
    bank.next([Reply::HangUp]);
    let lost = run(&server, "pay").await;
    let said = |note: usize, output: usize| {
        json!({ "runId": lost["id"], "step": "pay", "resolution": "HAPPENED",
            "note": "n".repeat(note), "output": "o".repeat(output) })
    };
    // Two bytes of the output are its quotes.
    for (note, output, field) in [
        (MAX_NOTE_CHARACTERS + 1, 1, "note"),
        (1, MAX_STATED_OUTPUT_BYTES - 1, "output"),
    ] {
        let refused = resolve(&server, said(note, output)).await;
        assert_eq!(refused["userErrors"][0]["code"], "INVALID", "{refused:#}");
        assert_eq!(refused["userErrors"][0]["path"], json!(["input", field]));
    }
    let taken = resolve(&server, said(MAX_NOTE_CHARACTERS, MAX_STATED_OUTPUT_BYTES - 2)).await;
    assert_eq!(taken["userErrors"], json!([]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_happen_is_sent_by_the_next_replay_and_not_before() {
    let bank = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&bank.url)).await;
    bank.next([Reply::HangUp]);
    let lost = run(&server, "pay").await;
    // Without a decision a replay sends nothing and ends in the same way.
    let blocked = replay(&server, &lost).await;
    assert_eq!(
        (&blocked["error"]["code"], bank.count("/pay")),
        (&json!("effect_unknown"), 1)
    );
    // Decided in the story of the first run, it is told in that of the second too.
    resolve(
        &server,
        json!({ "runId": lost["id"], "step": "pay", "resolution": "NOT_HAPPENED" }),
    )
    .await;
    let told = server.finished(blocked["id"].as_str().unwrap()).await;
    assert_eq!(told["steps"][0]["effect"]["state"], "FAILED", "{told:#}");
    assert_eq!(bank.count("/pay"), 1);
    assert_eq!(preview(&server, &blocked).await["new"][0]["step"], "pay");
    bank.next([Reply::Json(200, r#"{"id":"p_2"}"#)]);
    let second = replay(&server, &blocked).await;
    assert_eq!((&second["status"], bank.count("/pay")), (&json!("SUCCEEDED"), 2));
    assert_ne!(
        second["steps"][0]["effect"]["key"], lost["steps"][0]["effect"]["key"],
        "another generation has another key"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_decides_only_what_it_finds() {
    let notes = Upstream::start().await;
    let server = TestServer::start().await;
    server.apply(&documents(&notes.url)).await;
    // The create is cut off; the look of the run itself finds nothing.
    notes.next([Reply::HangUp, Reply::Json(200, "[]")]);
    let lost = run(&server, "note").await;
    assert_eq!(lost["error"]["code"], "effect_unknown", "{lost:#}");
    let look = json!({ "runId": lost["id"], "step": "write", "resolution": "LOOK" });
    notes.next([Reply::Json(200, "[]")]);
    let nothing = resolve(&server, look.clone()).await;
    assert_eq!(
        (&nothing["decision"], &nothing["userErrors"]),
        (&Value::Null, &json!([]))
    );
    assert!(
        nothing["message"].as_str().unwrap().contains("not found"),
        "{nothing:#}"
    );
    notes.next([Reply::Json(503, "{}")]);
    let unasked = resolve(&server, look.clone()).await;
    assert_eq!(unasked["userErrors"][0]["code"], "NOT_RESOLVABLE");
    notes.next([Reply::Json(200, r#"[{"id":"n_1"}]"#)]);
    let found = resolve(&server, look).await;
    assert_eq!(
        (&found["decision"]["verdict"], &found["decision"]["looked"]),
        (&json!("HAPPENED"), &json!(true)),
        "{found:#}"
    );
    let second = replay(&server, &lost).await;
    assert_eq!(second["steps"][0]["output"], json!({ "id": "n_1" }), "{second:#}");
    let creates = notes
        .requests()
        .iter()
        .filter(|(line, _)| line == "POST /notes")
        .count();
    assert_eq!(creates, 1, "looking sends nothing");

    let blind = {
        notes.next([Reply::HangUp]);
        run(&server, "pay").await
    };
    let refused = resolve(
        &server,
        json!({ "runId": blind["id"], "step": "pay", "resolution": "LOOK" }),
    )
    .await;
    assert!(
        refused["userErrors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("cannot be looked for")
    );
    for (input, code, field) in [
        (
            json!({ "runId": blind["id"], "step": "nowhere", "resolution": "HAPPENED" }),
            "NOT_RESOLVABLE",
            "step",
        ),
        (
            json!({ "runId": "run_0000000000000", "step": "pay", "resolution": "HAPPENED" }),
            "NOT_FOUND",
            "runId",
        ),
        (
            json!({ "runId": blind["id"], "step": "pay", "resolution": "LOOK", "output": 1 }),
            "INVALID",
            "output",
        ),
        (
            json!({ "runId": blind["id"], "step": "pay", "resolution": "HAPPENED", "note": "x".repeat(1001) }),
            "INVALID",
            "note",
        ),
    ] {
        let error = resolve(&server, input).await["userErrors"][0].clone();
        assert_eq!(
            (&error["code"], &error["path"][1]),
            (&json!(code), &json!(field)),
            "{error:#}"
        );
    }
    let create = "mutation($input: TokenCreateInput!) { tokenCreate(input: $input) { valueOnce } }";
    let input = json!({ "input": { "name": "watcher", "permissions": ["RUN_READ"] } });
    let token = server.query(create, input).await["tokenCreate"]["valueOnce"]
        .as_str()
        .unwrap()
        .to_owned();
    let input = json!({ "input": { "runId": blind["id"], "step": "pay", "resolution": "HAPPENED" } });
    let answer = server.raw_query(&token, RESOLVE, input).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "FORBIDDEN");
    server.stop().await;
}

/// What may have been undone is not taken for standing, and is done anew once somebody says that it was undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_undone_by_the_word_of_a_person_is_done_anew() {
    let bank = Upstream::start().await;
    let server = TestServer::start().await;
    let call = |id: &str, path: &str| json!({ "id": id, "call": "http.request", "connection": "bank", "with": { "method": "POST", "path": path } });
    let mut book = call("b", "/book");
    book["undo"] = json!([call("ub", "/unbook")]);
    let mut documents = documents(&bank.url);
    documents.push(json!({
        "kind": "Workflow", "name": "book",
        "on": { "manual": {} },
        "steps": [{
            "id": "t",
            "try": [book, call("c", "/check")],
            "catch": [{ "id": "back", "compensate": "all" }, { "id": "over", "stop": { "status": "failed" } }],
        }],
    }));
    server.apply(&documents).await;
    bank.next([
        Reply::Json(200, r#"{"id":"b_1"}"#),
        Reply::Json(400, "{}"),
        Reply::HangUp,
    ]);
    let lost = run(&server, "book").await;
    assert_eq!(lost["error"]["code"], "effect_unknown", "{lost:#}");
    let shown = preview(&server, &lost).await;
    assert_eq!(
        (
            &shown["answered"],
            &shown["unknown"][0]["step"],
            &shown["unknown"][1]["step"]
        ),
        (&json!([]), &json!("t.try.b.undo.ub"), &json!("t.try.b")),
        "{shown:#}"
    );
    // Nothing is sent before somebody looked, and the step is told.
    let second = replay(&server, &lost).await;
    assert_eq!(second["error"]["code"], "effect_unknown", "{second:#}");
    assert_eq!(bank.requests().len(), 3);
    let of = |run: &Value, step: &str, resolution: &str| json!({ "runId": run["id"], "step": step, "resolution": resolution });
    let refused = resolve(&server, of(&second, "t.try.b", "HAPPENED")).await;
    let message = refused["userErrors"][0]["message"].as_str().unwrap();
    let command = format!("weir run resolve {} t.try.b.undo.ub", lost["id"].as_str().unwrap());
    assert!(message.contains(&command), "{message}");

    let standing = resolve(&server, of(&lost, "t.try.b.undo.ub", "NOT_HAPPENED")).await;
    assert_eq!(
        standing["message"],
        "it counts as not done; it is sent when a run undoes the same again"
    );
    assert_eq!(preview(&server, &lost).await["answered"][0]["step"], "t.try.b");
    // The other run of the family may be named, too; the last word counts.
    let gone = resolve(&server, of(&second, "t.try.b.undo.ub", "HAPPENED")).await;
    assert_eq!(gone["userErrors"], json!([]), "{gone:#}");
    assert_eq!(preview(&server, &lost).await["new"][0]["step"], "t.try.b");
    bank.next([Reply::Json(200, r#"{"id":"b_2"}"#), Reply::Json(200, "{}")]);
    let third = replay(&server, &second).await;
    assert_eq!(third["status"], "SUCCEEDED", "{third:#}");
    assert_eq!(
        (bank.count("/book"), bank.count("/unbook"), bank.count("/check")),
        (2, 1, 2)
    );
    server.stop().await;
}
