//! Workflows paused, resumed and deleted, runs woken, events started again, and who did it: on the command line, with the
//! server killed in between, and with several servers.

use crate::nodes::node;
use crate::support::{Database, SOON, Server, eventually, stderr, stdout};
use crate::upstream::{Reply, Upstream};
use serde_json::Value;

const ORDERS: &str = r#"
kind: Endpoint
name: orders
connector: generic
verify: { token: { at: "header:X-Token" } }
secrets: [order-secret]
"#;

const NOTE: &str = r#"
kind: Workflow
name: note
on: { event: generic.order.placed }
lane: "{{ event.data.customer }}"
steps:
  - { id: seen, set: { order: "{{ event.data.id }}" } }
"#;

async fn order(server: &Server, id: &str) {
    let body = format!(r#"{{"id":"{id}","type":"order.placed","customer":"ann"}}"#);
    let headers = [("x-token", "order-secret"), ("content-type", "application/json")];
    let answer = server.hook("orders", &headers, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Runs a command that must succeed, and gives what it printed.
fn done(server: &Server, arguments: &[&str]) -> String {
    let output = server.weir(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}:\n{}{}",
        stdout(&output),
        stderr(&output)
    );
    stdout(&output)
}

/// Runs a command that must fail, and gives what it said.
fn refused(server: &Server, arguments: &[&str]) -> String {
    let output = server.weir(arguments);
    assert!(!output.status.success(), "{arguments:?}:\n{}", stdout(&output));
    stderr(&output)
}

async fn runs_in(server: &Server, state: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} runs are {state}"), SOON, async || {
        let runs = server.runs(&["--status", state]);
        (runs.len() == count).then_some(runs)
    })
    .await
}

fn actions(server: &Server, filter: &[&str]) -> Vec<String> {
    let mut arguments = vec!["audit", "--json"];
    arguments.extend(filter);
    let entries = server.list(&arguments);
    let action = |entry: &Value| entry["action"].as_str().unwrap().to_owned();
    entries.iter().map(action).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_workflow_loses_nothing_over_a_crash() {
    let mut server = Server::start().await;
    server.apply(&format!("{ORDERS}---{NOTE}"));
    order(&server, "ord_0").await;
    runs_in(&server, "succeeded", 1).await;
    let told = done(
        &server,
        &["workflow", "pause", "note", "--reason", "the CRM is being moved"],
    );
    assert!(told.contains("note: paused"), "{told}");
    for number in 1..=5 {
        order(&server, &format!("ord_{number}")).await;
    }
    let held = runs_in(&server, "queued", 5).await;
    assert_eq!(held[0]["waitingFor"]["reason"], "PAUSE");
    let listed = done(&server, &["workflows"]);
    assert!(listed.contains("paused, 5 waiting"), "{listed}");
    let shown = done(&server, &["run", "show", held[0]["id"].as_str().unwrap()]);
    assert!(shown.contains("its workflow is paused, 4 ahead"), "{shown}");
    // Applying the same or another document does not resume it, and an export says so.
    server.apply(&format!("{ORDERS}---{}", NOTE.replace("seen", "noted")));
    let exported = done(&server, &["export"]);
    assert!(exported.contains("# This workflow is paused."), "{exported}");
    server.apply(&exported);
    assert!(done(&server, &["workflows"]).contains("paused, 5 waiting"));
    server.kill();
    server.start_again().await;
    order(&server, "ord_6").await;
    runs_in(&server, "queued", 6).await;

    let told = done(&server, &["workflow", "resume", "note"]);
    assert!(told.contains("note: resumed, "), "{told}");
    server.kill();
    server.start_again().await;
    order(&server, "ord_7").await;
    let runs = runs_in(&server, "succeeded", 8).await;
    // One lane: who came first, began first.
    let mut begun: Vec<(&str, &str)> = runs
        .iter()
        .map(|run| {
            (
                run["startedAt"].as_str().unwrap(),
                run["event"]["externalId"].as_str().unwrap(),
            )
        })
        .collect();
    begun.sort_unstable();
    let order: Vec<&str> = begun.iter().map(|(_, event)| *event).collect();
    let expected: Vec<String> = (0..8).map(|number| format!("ord_{number}")).collect();
    assert_eq!(order, expected);
    eventually("it is active again", SOON, async || {
        let listed = server.list(&["workflows", "--json"]);
        (listed[0]["state"] == "ACTIVE").then_some(())
    })
    .await;
    assert_eq!(
        actions(&server, &["--subject", "note"]),
        [
            "workflow.resume",
            "workflow.update",
            "workflow.pause",
            "workflow.create"
        ]
    );
    assert_eq!(server.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_that_is_paused_on_one_server_is_paused_on_the_others() {
    let database = Database::create("paused").await;
    let mut servers = vec![node(&database, "one", &[]).await, node(&database, "two", &[]).await];
    let [first, second] = &servers[..] else {
        panic!("two servers")
    };
    first.apply(&format!("{ORDERS}---{NOTE}"));
    for round in 0..4 {
        done(first, &["workflow", "pause", "note"]);
        // The heartbeat of the second server tells it within a second; the event is there before.
        order(second, &format!("ord_{round}_a")).await;
        order(first, &format!("ord_{round}_b")).await;
        assert_eq!(runs_in(first, "queued", 2).await.len(), 2);
        done(second, &["workflow", "resume", "note"]);
        order(first, &format!("ord_{round}_c")).await;
        runs_in(first, "succeeded", 3 * (round + 1)).await;
    }
    for table in ["gate", "turn"] {
        let left = async || database.number(&format!("SELECT count(*) FROM {table}")).await;
        eventually("nothing is left", SOON, async || {
            (left().await == Some(0)).then_some(())
        })
        .await;
    }
    for server in &mut servers {
        assert_eq!(server.stop().await, Some(0));
    }
    drop(servers);
    database.drop().await;
}

fn calls(url: &str) -> String {
    format!(
        r#"
kind: Connection
name: bank
connector: http
config: {{ base_url: "{url}" }}
---
kind: Workflow
name: pay
on: {{ manual: {{}} }}
steps:
  - {{ id: price, call: http.request, connection: bank, retry: {{ tries: 3, first: 30m }}, with: {{ method: GET, path: /price }} }}
  - {{ id: nap, sleep: 1h }}
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_between_tries_is_woken_after_a_crash_and_ended_with_its_workflow() {
    let bank = Upstream::start().await;
    bank.next([Reply::Status(503)]);
    let mut server = Server::start().await;
    server.apply(&calls(&bank.url));
    let run = done(&server, &["run", "start", "pay"]).trim().to_owned();
    runs_in(&server, "waiting", 1).await;
    server.kill();
    server.start_again().await;
    done(&server, &["run", "wake", &run]);
    eventually("the next try was made", SOON, async || {
        (bank.requests().len() == 2).then_some(())
    })
    .await;
    let asleep = eventually("it sleeps", SOON, async || {
        let shown: Value = serde_json::from_str(&done(&server, &["run", "show", &run, "--json"])).unwrap();
        (shown["status"] == "WAITING" && shown["steps"][0]["status"] == "SUCCEEDED").then_some(shown)
    })
    .await;
    assert_eq!(asleep["history"][1]["action"], "run.wake");
    let told = refused(&server, &["run", "wake", &run]);
    assert!(told.contains("a `sleep` is a promise of the workflow"), "{told}");

    let told = refused(&server, &["workflow", "delete", "pay", "--yes"]);
    assert!(
        told.contains("1 run(s) of it are not over") && told.contains("--cancel-open-runs"),
        "{told}"
    );
    done(&server, &["workflow", "delete", "pay", "--cancel-open-runs", "--yes"]);
    let ended = runs_in(&server, "canceled", 1).await;
    assert_eq!(
        (&ended[0]["workflowName"], &ended[0]["workflowDeleted"]),
        (&"pay".into(), &true.into())
    );
    let shown = done(&server, &["run", "show", &run]);
    assert!(shown.contains("pay (deleted)"), "{shown}");
    assert!(
        shown.contains("run.wake by ") && shown.contains("run.cancel by "),
        "{shown}"
    );
    assert!(shown.contains("its workflow `pay` was deleted"), "{shown}");
    assert_eq!(
        actions(&server, &["--subject", &run, "--action", "run"]),
        ["run.cancel", "run.wake", "run.start"]
    );
    assert_eq!(actions(&server, &["--action", "workflow.delete"]), ["workflow.delete"]);
    let table = done(&server, &["audit", "--limit", "3"]);
    assert!(table.contains("run.cancel"), "{table}");
    assert_eq!(server.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_given_to_a_workflow_that_was_published_after_it() {
    let server = Server::start().await;
    server.apply(ORDERS);
    order(&server, "ord_1").await;
    let event = server.list(&["events", "--json"])[0]["id"].as_str().unwrap().to_owned();
    let told = refused(&server, &["event", "start", &event, "--workflow", "note"]);
    assert!(told.contains("there is no workflow `note`"), "{told}");
    server.apply(NOTE);
    let run = done(&server, &["event", "start", &event, "--workflow", "note"])
        .trim()
        .to_owned();
    let runs = runs_in(&server, "succeeded", 1).await;
    assert_eq!(runs[0]["id"], run.as_str());
    let told = refused(&server, &["event", "start", &event, "--workflow", "note"]);
    assert!(told.contains(&run) && told.contains("replay that one"), "{told}");

    // It is replayed as any other run is, and a second time only when that is said.
    let again = done(&server, &["run", "replay", &run, "--yes"]);
    let again = again.split_whitespace().last().unwrap().to_owned();
    runs_in(&server, "succeeded", 2).await;
    let output = server.weir(&["run", "replay", &run, "--yes"]);
    assert!(!output.status.success());
    assert!(stdout(&output).contains(&format!("note: {again} repeated this run already: succeeded")));
    assert!(stderr(&output).contains("--again"), "{}", stderr(&output));
    let listed = done(&server, &["runs"]);
    assert!(listed.contains(&format!("replayed by {again}: succeeded")), "{listed}");
    done(&server, &["run", "replay", &run, "--yes", "--again"]);
    runs_in(&server, "succeeded", 3).await;
    let shown = done(&server, &["run", "show", &run]);
    assert!(shown.contains("event.start by "), "{shown}");
}
