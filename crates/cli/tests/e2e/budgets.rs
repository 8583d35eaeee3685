//! Budgets of connections, on the real executable: a provider that allows so many requests, flows that all want it, and
//! live events that come while old ones are replayed.
//!
//! `WEIR_BUDGET_FLOWS` asks for more flows than the few of every day; `make budget-test` does, and prints the figures.

use crate::support::{SOON, Server, eventually, post, stderr, stdout};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;
use weir_simulator::{Direction, Fault, FaultRule, Simulator, SimulatorOptions};

/// What the provider allows in a second.
const RATE: u32 = 50;
/// Flows that begin beside replays, and the time between two: together they want half of what the provider allows.
const LIVE_FLOWS: u32 = 25;
const LIVE_EVERY: Duration = Duration::from_millis(200);

fn documents(base_url: &str, budget: &str) -> String {
    format!(
        r#"
kind: Connection
name: crm
connector: http
config: {{ base_url: "{base_url}", idempotency: {{ header: Idempotency-Key }}, budget: {budget} }}
---
kind: Workflow
name: flows
on: {{ manual: {{ input: {{ type: object, required: [id], properties: {{ id: {{ type: string }} }} }} }} }}
steps:
  - id: read
    call: http.request
    connection: crm
    with: {{ method: GET, path: "/crm/things/one" }}
  - id: write
    call: http.request
    connection: crm
    with: {{ method: POST, path: "/crm/deals/{{{{ event.data.id }}}}", body: {{ size: "{{{{ steps.read.size }}}}" }} }}
"#
    )
}

/// How many flows, and whether somebody wants the figures.
#[expect(clippy::disallowed_methods, reason = "a switch of the test, not of the product")]
fn flows(of_every_day: u32) -> (u32, bool) {
    let asked = std::env::var("WEIR_BUDGET_FLOWS")
        .ok()
        .and_then(|text| text.parse().ok());
    (asked.unwrap_or(of_every_day), asked.is_some())
}

async fn limited_crm(rate: u32) -> Simulator {
    let crm = Simulator::start(SimulatorOptions::default()).await.unwrap();
    crm.put_object("crm/things", "one", json!({ "id": "one", "size": 7 }));
    let limited = FaultRule::new(Direction::Api, "crm.*", Fault::RateLimited { retry_after_s: 1 });
    crm.faults().add(limited.above(rate)).unwrap();
    crm
}

async fn query(server: &Server, query: &str, variables: Value) -> Value {
    let bearer = format!("Bearer {}", server.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = json!({ "query": query, "variables": variables }).to_string();
    let answer = post(&format!("{}/graphql", server.url), &headers, body).await;
    let mut answered: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(answered["errors"], Value::Null, "{answered}");
    answered["data"].take()
}

async fn start(server: &Server, id: &str) {
    let mutation = "mutation Start($input: RunStartInput!) { runStart(input: $input) { userErrors { code message } } }";
    let input = json!({ "input": { "workflow": "flows", "input": { "id": id } } });
    let started = query(server, mutation, input).await;
    assert_eq!(started["runStart"]["userErrors"], json!([]), "{started}");
}

/// Starts flows a few at a time, so that they are there soon.
async fn start_all(server: &Server, prefix: &str, count: u32) {
    let starts = (0..count).map(async |flow| start(server, &format!("{prefix}{flow}")).await);
    stream::iter(starts).buffer_unordered(8).collect::<()>().await;
}

fn throttled(crm: &Simulator) -> u64 {
    crm.faults().list().iter().map(|status| status.fired).sum()
}

async fn budget(server: &Server) -> Value {
    let asked = "{ connection(name: \"crm\") { health budget { limits { shape limit remaining } sleeping closedUntil \
        calls { sent throttled held } workflows { workflowName calls { sent } } queues { class waiting } } } }";
    query(server, asked, json!({})).await["connection"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_finish_at_the_rate_of_their_provider_without_storms() {
    let (count, shows) = flows(200);
    let crm = limited_crm(RATE).await;
    let server = Server::start().await;
    server.apply(&documents(&crm.base_url(), "{ window: 50/1s }"));
    // They all come at once: a machine that is slow to start them would spare the provider.
    assert!(server.weir(&["workflow", "pause", "flows"]).status.success());
    start_all(&server, "f", count).await;
    let began = Instant::now();
    assert!(server.weir(&["workflow", "resume", "flows"]).status.success());
    // Two requests each.
    let patience = SOON + Duration::from_secs(u64::from(count) * 4 / u64::from(RATE));
    eventually("all flows are done", patience, async || {
        let done = crm.ledger().summary().effects;
        (done >= u64::from(count)).then_some(())
    })
    .await;
    let took = began.elapsed();
    let seen = budget(&server).await;
    let (sent, refused) = (u64::from(count) * 2, throttled(&crm));
    if shows {
        let refused_share = 100.0 * f64::from(u32::try_from(refused).unwrap()) / f64::from(count * 2);
        eprintln!(
            "{count} flows, {sent} requests at {RATE}/s: {took:?}, {refused} answers 429 ({refused_share:.2} %); {seen}"
        );
    }
    assert!(refused * 100 < sent, "{refused} of {sent} requests were refused");
    assert_eq!(server.runs(&["--status", "failed"]), Vec::<Value>::new());
    assert_eq!(seen["budget"]["workflows"][0]["workflowName"], "flows");
    assert_eq!(seen["health"], "HEALTHY");
    let told = stdout(&server.weir(&["connection", "show", "crm"]));
    assert!(told.contains("of 50 in 1 s"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_events_overtake_replays_at_the_same_provider() {
    let (count, shows) = flows(150);
    // What more of them would do takes a while to be shown, and they wait behind each other all the same.
    let count = count.min(600);
    let crm = Simulator::start(SimulatorOptions::default()).await.unwrap();
    crm.put_object("crm/things", "one", json!({ "id": "one", "size": 7 }));
    let server = Server::start().await;
    server.apply(&documents(&crm.base_url(), "{ concurrency: 50 }"));
    start_all(&server, "old", count).await;
    eventually("the old flows are done", SOON * 3, async || {
        let done = server.runs(&["--status", "succeeded"]).len();
        (done >= usize::try_from(count).unwrap()).then_some(())
    })
    .await;
    let rate = 20;
    let limited = FaultRule::new(Direction::Api, "crm.*", Fault::RateLimited { retry_after_s: 1 });
    crm.faults().add(limited.above(rate)).unwrap();
    server.apply(&documents(&crm.base_url(), "{ window: 20/1s }"));
    // The reads of replays are made again; their effects are answered from the record.
    let replayed = server.weir(&[
        "bulk",
        "replay",
        "--workflow",
        "flows",
        "--status",
        "succeeded",
        "--yes",
        "--detach",
    ]);
    assert!(replayed.status.success(), "{}", stderr(&replayed));
    eventually("replays wait for the budget", SOON, async || {
        let seen = budget(&server).await;
        let queues = seen["budget"]["queues"].as_array().unwrap();
        let waits = queues
            .iter()
            .any(|queue| queue["class"] == "replay" && queue["waiting"] != 0 && queue["waiting"] != "0");
        waits.then_some(())
    })
    .await;
    let mut waits: Vec<Duration> = Vec::new();
    let mut ticks = tokio::time::interval(LIVE_EVERY);
    for flow in 0..LIVE_FLOWS {
        ticks.tick().await;
        let id = format!("live{flow}");
        // How long the command takes is not what is asked for.
        start(&server, &id).await;
        let began = Instant::now();
        eventually("a live flow is done", SOON, async || crm.object("crm/deals", &id)).await;
        waits.push(began.elapsed());
    }
    let seen = budget(&server).await;
    let reads = crm.ledger().summary().routes["crm.get"].requests;
    let is_replaying = reads < u64::from(count * 2 + LIVE_FLOWS);
    waits.sort_unstable();
    let (p50, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
    let refused = throttled(&crm);
    if shows {
        eprintln!(
            "live flows beside {count} replays at {rate}/s: p50 {p50:?}, p99 {p99:?} of {LIVE_FLOWS}; {refused} answers 429; {seen}"
        );
    }
    assert!(
        is_replaying,
        "the replays were over before the live flows: nothing is shown"
    );
    // Each of the two requests of a live flow waits for the next free place, a twentieth of a second away; a replay waits for
    // all the others.
    let place = Duration::from_secs(1) / rate;
    assert!(p50 < place * 6 && p99 < place * 12, "p50 {p50:?}, p99 {p99:?}");
    let sent = reads + crm.ledger().summary().effects - u64::from(count) * 2;
    assert!(refused * 100 < sent, "{refused} of {sent} requests were refused");
    assert_eq!(server.runs(&["--status", "failed"]), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_wait_out_a_provider_that_is_down_and_say_so() {
    let crm = Simulator::start(SimulatorOptions::default()).await.unwrap();
    crm.put_object("crm/things", "one", json!({ "id": "one", "size": 7 }));
    let down = Fault::Status {
        status: 503,
        executed: false,
    };
    let rule = crm.faults().add(FaultRule::new(Direction::Api, "*", down)).unwrap();
    let server = Server::start().await;
    server.apply(&documents(&crm.base_url(), "{ concurrency: 50 }"));
    for flow in 0..30 {
        start(&server, &format!("f{flow}")).await;
    }
    eventually("the breaker opens", SOON, async || {
        (budget(&server).await["health"] == "DEGRADED").then_some(())
    })
    .await;
    start(&server, "late").await;
    let held = eventually("a step says what it waits for", SOON, async || {
        let asked = "{ runs(first: 1) { nodes { status steps { status note hold { by until } } } } }";
        let runs = query(&server, asked, json!({})).await;
        let step = runs["runs"]["nodes"][0]["steps"][0].clone();
        (step["hold"] != Value::Null).then_some(step)
    })
    .await;
    assert_eq!(
        (&held["status"], &held["hold"]["by"]),
        (&json!("WAITING"), &json!("BREAKER"))
    );
    let note = held["note"].as_str().unwrap();
    assert!(note.contains("answers with status 503 to calls of this step"), "{held}");
    let shown = stdout(&server.weir(&["connection", "show", "crm"]));
    assert!(shown.contains(", step read of flows: open, 10 failures"), "{shown}");
    crm.faults().remove(rule);
    eventually("all flows are done", SOON * 3, async || {
        (crm.ledger().summary().effects >= 31).then_some(())
    })
    .await;
    eventually("the connection is healthy", SOON, async || {
        (budget(&server).await["health"] == "HEALTHY").then_some(())
    })
    .await;
}

const POISON: &str = r#"
kind: Workflow
name: poison
on: { manual: { input: { type: object } } }
steps:
  - id: write
    call: http.request
    connection: crm
    with: { method: POST, path: "/crm/broken/{{ event.data.id }}", body: {} }
    retry: { tries: 3, first: 500ms, max: 1s }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn events_that_always_fail_become_dead_letters_and_hold_no_other_workflow() {
    const POISONED: usize = 12;
    const HEALTHY: u64 = 10;
    let crm = Simulator::start(SimulatorOptions::default()).await.unwrap();
    crm.put_object("crm/things", "one", json!({ "id": "one", "size": 7 }));
    let broken = Fault::Status {
        status: 500,
        executed: false,
    };
    let broken = FaultRule::new(Direction::Api, "POST /crm/broken/*", broken);
    crm.faults().add(broken).unwrap();
    let server = Server::start().await;
    let flows = documents(&crm.base_url(), "{ concurrency: 50 }");
    server.apply(&format!("{flows}---{POISON}"));
    let begin = "mutation Start($input: RunStartInput!) { runStart(input: $input) { userErrors { code message } } }";
    for event in 0..POISONED {
        let input = json!({ "input": { "workflow": "poison", "input": { "id": format!("p{event}") } } });
        let started = query(&server, begin, input).await;
        assert_eq!(started["runStart"]["userErrors"], json!([]), "{started}");
    }
    for flow in 0..HEALTHY {
        start(&server, &format!("h{flow}")).await;
        eventually("it is done soon", SOON, async || {
            (crm.ledger().summary().effects > flow).then_some(())
        })
        .await;
    }
    eventually("the others are dead letters", SOON * 2, async || {
        (server.runs(&["--status", "failed"]).len() == POISONED).then_some(())
    })
    .await;
    let asked = "{ connection(name: \"crm\") { health budget { workflows { workflowName calls { sent held } } } } }";
    let seen = query(&server, asked, json!({})).await["connection"].take();
    let workflows = seen["budget"]["workflows"].as_array().unwrap();
    let flows = workflows.iter().find(|calls| calls["workflowName"] == "flows").unwrap();
    assert_eq!(flows["calls"], json!({ "sent": HEALTHY * 2, "held": 0 }), "{seen}");
}
