//! A provider loses webhooks: sweeps find what it lists, each event is processed once, and the ledger says so.

use crate::support::{SOON, Server, eventually, now_unix_s, stderr, stdout};
use crate::upstream::Upstream;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use weir_simulator::{Provider, Scenario, Simulator, SimulatorOptions};

const SECRET: &str = "whsec_sweeps";

/// The events of Stripe's list one by one, so that a long list needs few of them.
const SMALL_PAGES: &str = r#"
connector: small-pages
version: 1.0.0
hosts: ["https://api.stripe.com"]
auth: { bearer: {} }
operations:
  events.list:
    get: /v1/events
    query: { limit: 1, created: "{{ created }}", ending_before: "{{ ending_before }}" }
    input: { created: optional, ending_before: optional }
    arrays: brackets
    items: /data
    page: { since_id: { from: /id, into: query.starting_after, more: /has_more } }
webhook:
  verify: endpoint
  identify: { id: /id, type: /type, time: /created, data: /data }
  recover: { level: A, call: events.list, with: { created: { gte: "{{ since_s }}" }, ending_before: "{{ cursor }}" }, cursor: id, order: newest_first, more: /has_more, reach: 30d, settle: 60s }
"#;

fn documents(stripe: &str, endpoint: &str) -> String {
    format!(
        "
kind: Connection
name: stripe
connector: stripe
config: {{ base_url: \"{stripe}\" }}
credential: {{ bearer: {{ token: sk_test_simulator }} }}
---
kind: Endpoint
name: stripe
connection: stripe
{endpoint}
---
kind: Workflow
name: payments
on: {{ event: stripe.payment_intent.succeeded, hydrate: never }}
steps: [{{ id: seen, set: {{ id: '{{{{ event.id }}}}' }} }}]
"
    )
}

async fn simulator() -> Simulator {
    Simulator::start(SimulatorOptions::default()).await.unwrap()
}

fn coverage(server: &Server, endpoint: &str) -> Value {
    let shown = server.weir(&["coverage", endpoint, "--json"]);
    assert!(shown.status.success(), "{}", stderr(&shown));
    serde_json::from_str(&stdout(&shown)).unwrap()
}

/// Waits until the last sweep has ended in this way.
async fn swept(server: &Server, endpoint: &str, outcome: &str) -> Value {
    eventually("the sweep ends", SOON, async || {
        let coverage = coverage(server, endpoint);
        (coverage["lastSweep"]["outcome"] == outcome).then_some(coverage)
    })
    .await
}

/// The provider's ids of all events, each once.
fn ids(server: &Server) -> BTreeSet<String> {
    let events = server.list(&["events", "--json", "--limit", "1000"]);
    let ids: Vec<String> = events
        .iter()
        .map(|event| event["externalId"].as_str().unwrap().to_owned())
        .collect();
    let different: BTreeSet<String> = ids.iter().cloned().collect();
    assert_eq!(ids.len(), different.len(), "an event is stored twice");
    different
}

async fn each_ran_once(server: &Server, expected: usize) {
    let runs = eventually("every event has its run", SOON, async || {
        let open = server.runs(&["--status", "running", "--status", "queued"]);
        let runs = server.list(&["runs", "--json", "--limit", "1000"]);
        (open.is_empty() && runs.len() >= expected).then_some(runs)
    })
    .await;
    assert_eq!(runs.len(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_arrived_is_recovered_and_what_did_is_known() {
    let provider = simulator().await;
    let server = Server::start().await;
    let endpoint = format!("secrets: [{SECRET}]");
    server.apply(&documents(&provider.base_url_of(Provider::Stripe), &endpoint));
    let first = swept(&server, "stripe", "complete").await;
    assert_eq!(
        (&first["level"], &first["lastSweep"]["cause"]),
        (&json!("A"), &json!("start"))
    );
    let hook = format!("{}/hooks/main/stripe", server.url);
    let mut expected = BTreeSet::new();
    for number in 0..250 {
        expected.insert(provider.happen(Scenario::Payment, number).id);
        // Every fifth arrives, every tenth twice.
        if number % 5 == 0 {
            let delivery = provider.delivery(Scenario::Payment, number, &hook, &[SECRET]);
            for _ in 0..=usize::from(number % 10 == 0) {
                provider.send(&delivery).await.unwrap();
            }
        }
    }
    let told = server.weir(&["endpoint", "sweep", "stripe"]);
    assert!(told.status.success(), "{}", stderr(&told));
    assert!(stdout(&told).contains("200 recovered, 50 known"), "{}", stdout(&told));
    assert_eq!(ids(&server), expected);
    each_ran_once(&server, 250).await;
    // 25 came twice, and the sweep knew 50.
    let counted = eventually("the ledger is stored", SOON, async || {
        let coverage = coverage(&server, "stripe");
        (coverage["received"] == 50 && coverage["recovered"] == 200 && coverage["duplicates"] == 75).then_some(coverage)
    })
    .await;
    assert_eq!(counted["lastSweep"]["cause"], "demand");
    assert!(
        counted["coveredUntil"].is_string() && counted["oldestGap"].is_null(),
        "{counted}"
    );
    let again = server.weir(&["endpoint", "sweep", "stripe"]);
    assert!(stdout(&again).contains("0 recovered"), "{}", stdout(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_is_killed_misses_and_doubles_nothing() {
    const EVENTS: usize = 900;
    let provider = simulator().await;
    let mut server = Server::start().await;
    let stripe = provider.base_url_of(Provider::Stripe);
    server.apply(&documents(&stripe, "receive: never\nsweep: { every: 5s }"));
    swept(&server, "stripe", "complete").await;
    let numbers = 0..u64::try_from(EVENTS).unwrap();
    let expected: BTreeSet<String> = numbers
        .map(|number| provider.happen(Scenario::Payment, number).id)
        .collect();
    // The address of an endpoint that only sweeps does not exist.
    let answer = server.stripe_hook("stripe", SECRET, "{}").await;
    assert_eq!(answer.status, 404);
    eventually("the sweep is under way", SOON, async || {
        let stored = server.list(&["events", "--json", "--limit", "1000"]).len();
        (stored > 0).then_some(())
    })
    .await;
    server.kill();
    server.start_again().await;
    eventually("everything is here", SOON, async || {
        (ids(&server) == expected).then_some(())
    })
    .await;
    each_ran_once(&server, EVENTS).await;
    swept(&server, "stripe", "complete").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_read_in_several_passes() {
    let provider = simulator().await;
    let mut server = Server::not_started(
        &[],
        &[("WEIR_EGRESS_ALLOW", "127.0.0.0/8"), ("WEIR_CONNECTORS", "connectors")],
    );
    let folder = server.folder.path().join("connectors");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("small-pages.yaml"), SMALL_PAGES).unwrap();
    server.start_again().await;
    let expected: BTreeSet<String> = (0..130)
        .map(|number| provider.happen(Scenario::Payment, number).id)
        .collect();
    server.apply(&format!(
        "
kind: Connection
name: small
connector: small-pages
config: {{ base_url: \"{}\" }}
credential: {{ bearer: {{ token: sk_test_simulator }} }}
---
kind: Endpoint
name: small
connection: small
receive: never
sweep: never
",
        provider.base_url_of(Provider::Stripe)
    ));
    let told = server.weir(&["endpoint", "sweep", "small"]);
    assert!(
        stdout(&told).contains("partial, 100 page(s), 100 recovered"),
        "{} {}",
        stdout(&told),
        stderr(&told)
    );
    let ended = swept(&server, "small", "complete").await;
    assert_eq!(
        (&ended["lastSweep"]["recovered"], &ended["sweepEveryS"]),
        (&json!(30), &Value::Null)
    );
    assert_eq!(ids(&server), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_a_secret_that_was_changed_is_recovered_soon() {
    let provider = simulator().await;
    let server = Server::start().await;
    let endpoint = format!("secrets: [{SECRET}]\nsweep: {{ every: 1h }}");
    server.apply(&documents(&provider.base_url_of(Provider::Stripe), &endpoint));
    swept(&server, "stripe", "complete").await;
    let mut expected = BTreeSet::new();
    for number in 0..5 {
        expected.insert(provider.happen(Scenario::Payment, number).id);
    }
    for _ in 0..5 {
        let refused = server.stripe_hook("stripe", "whsec_the_new_one", "{}").await;
        assert_eq!(refused.status, 401, "{}", refused.text);
    }
    eventually("they are recovered", SOON, async || {
        (ids(&server) == expected).then_some(())
    })
    .await;
    let ended = swept(&server, "stripe", "complete").await;
    assert_eq!(ended["lastSweep"]["cause"], "refusals", "{ended}");
}

/// A list that does not keep to the time asked for.
const WHOLE_LIST: &str = r#"
connector: whole-list
version: 1.0.0
hosts: ["https://lists.test"]
auth: { none: {} }
operations:
  events.list: { get: /events, query: { since: "{{ since }}" }, input: { since: optional }, items: /data }
webhook:
  verify: endpoint
  identify: { id: /id, type: /type, time: /created }
  recover: { level: A, call: events.list, with: { since: "{{ since_s }}" }, cursor: time }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_the_memory_of_events_is_not_taken_for_new() {
    let ago = |days: u64| now_unix_s() - days * 24 * 3600;
    let list = json!({ "data": [
        { "id": "evt_forgotten", "type": "paid", "created": ago(39) },
        { "id": "evt_remembered", "type": "paid", "created": ago(37) },
        { "id": "evt_new", "type": "paid", "created": ago(0) - 60 },
    ] });
    let provider = Upstream::answering(Box::leak(list.to_string().into_boxed_str())).await;
    let server = Server::start().await;
    std::fs::write(server.folder.path().join("whole-list.yaml"), WHOLE_LIST).unwrap();
    let manifest = server.folder.path().join("whole-list.yaml");
    let published = server.weir(&["apply", "-f", manifest.to_str().unwrap()]);
    assert!(published.status.success(), "{}", stderr(&published));
    server.apply(&format!(
        "
kind: Connection
name: lists
connector: whole-list
config: {{ base_url: \"{}\" }}
---
kind: Endpoint
name: lists
connection: lists
receive: never
sweep: never
",
        provider.url
    ));
    let told = server.weir(&["endpoint", "sweep", "lists"]);
    assert!(
        stdout(&told).contains("2 recovered"),
        "{} {}",
        stdout(&told),
        stderr(&told)
    );
    let expected = ["evt_new", "evt_remembered"].map(str::to_owned);
    assert_eq!(ids(&server), expected.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_provider_keeps_no_other_waiting() {
    let provider = simulator().await;
    let server = Server::start().await;
    // It takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut set = documents(&provider.base_url_of(Provider::Stripe), "receive: never");
    set.push_str(&format!(
        "
---
kind: Connection
name: silent
connector: stripe
config: {{ base_url: \"http://{}\" }}
credential: {{ bearer: {{ token: sk_test_simulator }} }}
---
kind: Endpoint
name: silent
connection: silent
receive: never
---
kind: Connection
name: refusing
connector: stripe
config: {{ base_url: \"http://127.0.0.1:1\" }}
credential: {{ bearer: {{ token: sk_test_simulator }} }}
---
kind: Endpoint
name: refusing
connection: refusing
receive: never
",
        silent.local_addr().unwrap()
    ));
    server.apply(&set);
    swept(&server, "stripe", "complete").await;
    let failed = swept(&server, "refusing", "failed").await;
    let error = failed["lastSweep"]["error"].as_str().unwrap();
    assert!(error.starts_with("connect"), "{error}");
    assert_eq!(coverage(&server, "silent")["lastSweep"]["outcome"], Value::Null);
    // What cannot be swept is refused where it is written.
    let refused = server.try_apply("kind: Endpoint\nname: hub\nconnector: github\nreceive: never\n", &[]);
    assert!(stderr(&refused).contains("level C"), "{}", stderr(&refused));
    let refused = server.try_apply("kind: Endpoint\nname: alone\nconnector: stripe\nreceive: never\n", &[]);
    assert!(
        stderr(&refused).contains("needs a `connection`"),
        "{}",
        stderr(&refused)
    );
}
