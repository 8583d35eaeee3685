//! Backfills, on the real executable and both databases: a chosen past range of what a provider lists, each event once,
//! also over a crash, paused when somebody wants it, behind live events.

use crate::support::{Database, SOON, Server, eventually, now_unix_s, stderr, stdout};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;
use weir_simulator::{Direction, Fault, FaultRule, Provider, Scenario, Simulator, SimulatorOptions};

const SECRET: &str = "whsec_backfills";
/// Events that the provider lists, and those among them that it delivered.
const LISTED: u64 = 500;
const DELIVERED: u64 = 200;

/// The events of Stripe's list one by one, so that few of them are many pages.
const SMALL_PAGES: &str = r#"
connector: small-pages
version: 1.0.0
hosts: ["https://api.stripe.com"]
auth: { bearer: {} }
operations:
  events.list:
    get: /v1/events
    query: { limit: 1, created: "{{ created }}" }
    input: { created: optional }
    arrays: brackets
    items: /data
    page: { since_id: { from: /id, into: query.starting_after, more: /has_more } }
webhook:
  verify: endpoint
  identify: { id: /id, type: /type, time: /created, data: /data }
  recover: { level: A, call: events.list, with: { created: { gte: "{{ since_s }}", lte: "{{ until_s }}" } }, cursor: id, order: newest_first, more: /has_more, reach: 30d }
events:
  payment_intent.succeeded: { hydrate_default: never }
"#;

fn settings(database: Option<&Database>) -> Vec<(&str, &str)> {
    let mut settings = database
        .map(|database| database.settings().to_vec())
        .unwrap_or_default();
    settings.push(("WEIR_EGRESS_ALLOW", "127.0.0.0/8"));
    settings.push(("WEIR_CONNECTORS", "connectors"));
    settings
}

async fn started(database: Option<&Database>) -> Server {
    let mut server = Server::not_started(&[], &settings(database));
    let folder = server.folder.path().join("connectors");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("small-pages.yaml"), SMALL_PAGES).unwrap();
    server.start_again().await;
    server
}

async fn simulator() -> Simulator {
    Simulator::start(SimulatorOptions::default()).await.unwrap()
}

fn delayed(provider: &Simulator, ms: u64) {
    let slow = FaultRule::new(Direction::Api, "stripe.events.list", Fault::Delay { ms });
    provider.faults().add(slow).unwrap();
}

/// An endpoint of a connector that reads the provider's list, never swept by itself, and the workflow of its events.
fn documents(provider: &Simulator, connector: &str, steps: &str) -> String {
    let intake = match connector {
        "stripe" => format!("secrets: [{SECRET}]"),
        _ => "receive: never".to_owned(),
    };
    format!(
        "
kind: Connection
name: {connector}
connector: {connector}
config: {{ base_url: \"{}\" }}
credential: {{ bearer: {{ token: sk_test_simulator }} }}
---
kind: Endpoint
name: {connector}
connection: {connector}
{intake}
sweep: never
---
kind: Workflow
name: of-{connector}
on: {{ event: {connector}.payment_intent.succeeded, hydrate: never }}
steps: [{steps}]
",
        provider.base_url_of(Provider::Stripe)
    )
}

const SEEN: &str = "{ id: seen, set: { id: '{{ event.id }}' } }";

fn ago(hours: u64) -> String {
    let at = i64::try_from(now_unix_s() - hours * 3600).unwrap();
    chrono::DateTime::from_timestamp(at, 0).unwrap().to_rfc3339()
}

fn begin(server: &Server, endpoint: &str) -> String {
    let since = ago(1);
    let begun = server.weir(&["endpoint", "backfill", endpoint, "--since", &since, "--yes", "--detach"]);
    assert!(begun.status.success(), "{}", stderr(&begun));
    stdout(&begun).lines().last().unwrap().to_owned()
}

fn backfill(server: &Server, endpoint: &str) -> Value {
    server.list(&["endpoint", "backfills", endpoint, "--json"]).remove(0)
}

async fn over(server: &Server, endpoint: &str) -> Value {
    eventually("the backfill is over", SOON * 3, async || {
        let row = backfill(server, endpoint);
        (row["status"] != "RUNNING").then_some(row)
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
    let runs = eventually("every event has its run", SOON * 2, async || {
        let open = server.runs(&["--status", "running", "--status", "queued"]);
        let runs = server.runs(&[]);
        (open.is_empty() && runs.len() >= expected).then_some(runs)
    })
    .await;
    assert_eq!(runs.len(), expected);
    let events: BTreeSet<&str> = runs.iter().map(|run| run["event"]["id"].as_str().unwrap()).collect();
    assert_eq!(events.len(), expected, "an event has two runs");
}

async fn what_was_not_delivered_is_recovered_once_also_over_a_crash(database: Option<&Database>) {
    let provider = simulator().await;
    let mut server = started(database).await;
    server.apply(&documents(&provider, "stripe", SEEN));
    let hook = format!("{}/hooks/main/stripe", server.url);
    let mut expected = BTreeSet::new();
    for number in 0..LISTED {
        if number % 5 < 2 {
            let delivery = provider.delivery(Scenario::Payment, number, &hook, &[SECRET]);
            provider.send(&delivery).await.unwrap();
            expected.insert(delivery.id);
        } else {
            expected.insert(provider.happen(Scenario::Payment, number).id);
        }
    }
    // Further back than the provider lists: refused, with the earliest possible beginning.
    let refused = server.weir(&["endpoint", "backfill", "stripe", "--since", &ago(31 * 24), "--yes"]);
    assert!(
        !refused.status.success() && stderr(&refused).contains("the provider lists no older events: choose `since` at"),
        "{}",
        stderr(&refused)
    );
    let shown = server.weir(&["endpoint", "backfill", "stripe", "--since", &ago(1), "--dry-run"]);
    assert!(
        stdout(&shown).contains("workflow of-stripe  stripe.payment_intent.succeeded"),
        "{}",
        stdout(&shown)
    );
    assert_eq!(
        server.list(&["endpoint", "backfills", "stripe", "--json"]),
        Vec::<Value>::new()
    );
    delayed(&provider, 100);
    begin(&server, "stripe");
    eventually("it is under way", SOON, async || {
        (backfill(&server, "stripe")["recovered"].as_u64().unwrap() > 0).then_some(())
    })
    .await;
    server.kill();
    let before = Instant::now();
    server.start_again().await;
    let row = over(&server, "stripe").await;
    assert_eq!(row["status"], "FINISHED", "{row} after {:?}", before.elapsed());
    assert_eq!(ids(&server), expected);
    each_ran_once(&server, expected.len()).await;
    let missed = LISTED - DELIVERED;
    let events = server.list(&["events", "--json", "--limit", "1000"]);
    let found = events.iter().filter(|event| event["source"] == "BACKFILL").count();
    assert_eq!(u64::try_from(found).unwrap(), missed);
    // Counts that a crash swallows are those of the events that were being stored.
    let (recovered, known) = (row["recovered"].as_u64().unwrap(), row["duplicates"].as_u64().unwrap());
    assert!(recovered <= missed && recovered + known >= LISTED, "{row}");
    // Sweeps have a cursor of their own, which nobody moved.
    let coverage = server.list(&["coverage", "stripe", "--json"]).remove(0);
    assert_eq!(coverage["lastSweep"], Value::Null, "{coverage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_delivered_is_recovered_once_on_sqlite() {
    what_was_not_delivered_is_recovered_once_also_over_a_crash(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_delivered_is_recovered_once_on_postgres() {
    let database = Database::create("backfill").await;
    what_was_not_delivered_is_recovered_once_also_over_a_crash(Some(&database)).await;
    database.drop().await;
}

async fn a_paused_backfill_stands_still_until_it_is_resumed(database: Option<&Database>) {
    const EVENTS: u64 = 60;
    let provider = simulator().await;
    let mut server = started(database).await;
    server.apply(&documents(&provider, "small-pages", SEEN));
    server.apply(&documents(&provider, "stripe", SEEN));
    let expected: BTreeSet<String> = (0..EVENTS)
        .map(|number| provider.happen(Scenario::Payment, number).id)
        .collect();
    delayed(&provider, 30);
    begin(&server, "small-pages");
    eventually("it is under way", SOON, async || {
        (backfill(&server, "small-pages")["recovered"].as_u64().unwrap() > 3).then_some(())
    })
    .await;
    let paused = server.weir(&["endpoint", "pause-backfill", "small-pages"]);
    assert!(
        stdout(&paused).starts_with("paused: "),
        "{} {}",
        stdout(&paused),
        stderr(&paused)
    );
    let count = |server: &Server| server.list(&["events", "--json", "--limit", "1000"]).len();
    let when_paused = count(&server);
    // Over a restart, and while the backfill of another endpoint goes through, it takes no more than the page that was
    // being read.
    server.kill();
    server.start_again().await;
    begin(&server, "stripe");
    assert_eq!(over(&server, "stripe").await["status"], "FINISHED");
    let others = usize::try_from(EVENTS).unwrap();
    let taken = count(&server) - others;
    assert!(
        (when_paused..=when_paused + 1).contains(&taken),
        "{when_paused}, then {taken}"
    );
    assert_eq!(backfill(&server, "small-pages")["status"], "PAUSED");
    let resumed = server.weir(&["endpoint", "resume-backfill", "small-pages"]);
    assert!(
        stdout(&resumed).starts_with("running: "),
        "{} {}",
        stdout(&resumed),
        stderr(&resumed)
    );
    let row = over(&server, "small-pages").await;
    assert_eq!(
        (&row["status"], &row["percent"]),
        (&json!("FINISHED"), &json!(100)),
        "{row}"
    );
    let events = server.list(&["events", "--json", "--limit", "1000"]);
    let mine: Vec<String> = events
        .iter()
        .filter(|event| event["connectorName"] == "small-pages")
        .map(|event| event["externalId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((mine.len(), mine.into_iter().collect()), (others, expected));
    let again = server.weir(&["endpoint", "stop-backfill", "small-pages"]);
    assert!(
        stderr(&again).contains("no backfill that is not over"),
        "{}",
        stderr(&again)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_backfill_stands_still_on_sqlite() {
    a_paused_backfill_stands_still_until_it_is_resumed(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_backfill_stands_still_on_postgres() {
    let database = Database::create("backfill_pause").await;
    a_paused_backfill_stands_still_until_it_is_resumed(Some(&database)).await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_events_overtake_a_backfill() {
    const OLD: u64 = 200;
    const LIVE: u64 = 20;
    const RATE: u32 = 20;
    let provider = simulator().await;
    let server = started(None).await;
    let crm = format!(
        "
kind: Connection
name: crm
connector: http
config: {{ base_url: \"{}\", idempotency: {{ header: Idempotency-Key }}, budget: {{ window: {RATE}/1s }} }}
---{}",
        provider.base_url(),
        documents(
            &provider,
            "stripe",
            "{ id: write, call: http.request, connection: crm, with: { method: POST, path: '/crm/deals/{{ event.id }}', body: {} } }"
        )
    );
    server.apply(&crm);
    let limited = FaultRule::new(Direction::Api, "crm.*", Fault::RateLimited { retry_after_s: 1 });
    provider.faults().add(limited.above(RATE)).unwrap();
    for number in 0..OLD {
        provider.happen(Scenario::Payment, number);
    }
    begin(&server, "stripe");
    eventually("runs of the backfill wait for the budget", SOON, async || {
        let shown = stdout(&server.weir(&["connection", "show", "crm"]));
        let waits = shown
            .lines()
            .find_map(|line| line.split_once(" backfill,")?.0.rsplit(' ').next()?.parse().ok());
        waits.is_some_and(|waiting: u32| waiting > 0).then_some(())
    })
    .await;
    let hook = format!("{}/hooks/main/stripe", server.url);
    let mut waits: Vec<Duration> = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    for number in OLD..OLD + LIVE {
        ticks.tick().await;
        let delivery = provider.delivery(Scenario::Payment, number, &hook, &[SECRET]);
        let began = Instant::now();
        provider.send(&delivery).await.unwrap();
        eventually("a live event is processed", SOON, async || {
            provider.object("crm/deals", &delivery.id)
        })
        .await;
        waits.push(began.elapsed());
    }
    let row = backfill(&server, "stripe");
    assert_eq!(
        row["status"], "RUNNING",
        "it was over before the live events: nothing is shown: {row}"
    );
    waits.sort_unstable();
    let (p50, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
    // A live event waits for the next free place, a twentieth of a second away; one of the backfill for all before it.
    let place = Duration::from_secs(1) / RATE;
    assert!(p50 < place * 6 && p99 < place * 12, "p50 {p50:?}, p99 {p99:?}");
    // What is in flight is bounded: the others are not even stored, so they are in nobody's way.
    let row = backfill(&server, "stripe");
    assert!(row["recovered"].as_u64().unwrap() < OLD, "{row}");
    assert_eq!(server.runs(&["--status", "failed"]), Vec::<Value>::new());
    let ended = server.weir(&["endpoint", "stop-backfill", "stripe"]);
    assert!(
        stdout(&ended).starts_with("stopped: "),
        "{} {}",
        stdout(&ended),
        stderr(&ended)
    );
}
