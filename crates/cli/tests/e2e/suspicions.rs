//! Webhooks stop, one is left out, the provider says that it could not deliver: each leads to a sweep before its time,
//! and the ledger names the cause.

use crate::support::{SOON, Server, eventually, stderr};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use weir_simulator::{Change, Fate, LossTarget, Provider, Scenario, Simulator, SimulatorOptions};
use weir_simulator::{Direction, Fault, FaultRule};

const TOKEN: &str = "feed-token";

/// A feed that is swept once an hour, numbers its changes, and lists the deliveries that failed.
const FEED: &str = r#"
connector: numbered
version: 1.0.0
hosts: ["https://feeds.test"]
auth: { none: {} }
operations:
  changes.list:
    get: /feed/main/log
    query: { since: "{{ since }}", after: "{{ after }}" }
    input: { since: optional, after: optional }
    items: /data
    page: { since_id: { from: /id, into: query.after, more: /has_more } }
  failures.list: { get: /feed/main/failures, query: { since: "{{ since }}" }, items: /data }
webhook:
  verify: { token: { at: "header:x-feed-token" } }
  identify: { id: /id, type: "lit:changed", time: /time_ms }
  sequence: /seq
  recover:
    level: A
    call: changes.list
    with: { since: "{{ since_ms }}", after: "{{ cursor }}" }
    cursor: id
    more: /has_more
    every: 1h
    failures: { call: failures.list, with: { since: "{{ since_ms }}" }, time: /time_ms, when: { at: /status, is: [failed] }, every: 5s }
"#;

struct World {
    provider: Simulator,
    server: Server,
    target: LossTarget,
}

impl World {
    async fn start() -> Self {
        let provider = Simulator::start(SimulatorOptions::default()).await.unwrap();
        let server = Server::start().await;
        let manifest = server.folder.path().join("numbered.yaml");
        std::fs::write(&manifest, FEED).unwrap();
        let published = server.weir(&["apply", "-f", manifest.to_str().unwrap()]);
        assert!(published.status.success(), "{}", stderr(&published));
        server.apply(&format!(
            "
kind: Connection
name: feed
connector: numbered
config: {{ base_url: '{}' }}
---
kind: Endpoint
name: feed
connection: feed
secrets: [{TOKEN}]
",
            provider.base_url()
        ));
        swept(&server, "feed", "start").await;
        let target = LossTarget {
            feed: "main".to_owned(),
            url: format!("{}/hooks/main/feed", server.url),
            secret: TOKEN.to_owned(),
        };
        World {
            provider,
            server,
            target,
        }
    }

    /// Lets changes happen, and sends the webhooks of some. Gives the ids of all.
    async fn change(&self, numbers: std::ops::Range<u64>, sent: impl Fn(u64) -> bool) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        for number in numbers {
            let change = Change {
                number,
                object: number,
                version: 1,
                deletes: false,
                fate: Fate::Once,
            };
            let occurrence = self.provider.change(&self.target.feed, &change);
            ids.insert(occurrence.id.clone());
            if sent(number) {
                let delivery = self.provider.feed_delivery(occurrence, &self.target);
                let outcome = self.provider.send(&delivery).await.unwrap();
                assert!(outcome.acknowledged, "{outcome:?}");
            }
        }
        ids
    }
}

/// Waits for the end of a sweep with this cause.
async fn swept(server: &Server, endpoint: &str, cause: &str) -> Value {
    let coverage = || server.list(&["coverage", endpoint, "--json"]).remove(0);
    eventually("it is swept for this cause", SOON * 3, async || {
        let last = &coverage()["lastSweep"];
        (last["cause"] == cause && last["outcome"] == "complete").then_some(())
    })
    .await;
    // One answer is several reads: its counts may be older than the end of the sweep that it tells of.
    coverage()
}

fn ids(server: &Server) -> BTreeSet<String> {
    let events = server.list(&["events", "--json", "--limit", "1000"]);
    let id = |event: &Value| event["externalId"].as_str().unwrap().to_owned();
    events.iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_that_is_too_long_is_looked_into() {
    let world = World::start().await;
    let mut expected = world.change(0..12, |_| true).await;
    expected.extend(world.change(12..20, |_| false).await);
    let coverage = swept(&world.server, "feed", "silence").await;
    assert_eq!(coverage["recovered"], 8, "{coverage}");
    assert_eq!(ids(&world.server), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_left_out_is_looked_for() {
    let world = World::start().await;
    // Too few to have a usual interval.
    let expected = world.change(0..6, |number| number != 3).await;
    let coverage = swept(&world.server, "feed", "sequence").await;
    assert_eq!(coverage["recovered"], 1, "{coverage}");
    assert_eq!(ids(&world.server), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_the_provider_says_failed_is_fetched() {
    let world = World::start().await;
    let expected = world.change(0..4, |number| number < 3).await;
    let asked = world.provider.feed_failures_asked("main");
    eventually("failed deliveries are asked for", SOON, async || {
        (world.provider.feed_failures_asked("main") > asked).then_some(())
    })
    .await;
    assert_eq!(ids(&world.server).len(), 3, "nothing has failed so far");
    let now = i64::try_from(crate::support::now_unix_s()).unwrap() * 1_000;
    world
        .provider
        .set_feed_undelivered("main", "chg_main_000003", Some(now));
    let coverage = swept(&world.server, "feed", "failed_delivery").await;
    assert_eq!(coverage["recovered"], 1, "{coverage}");
    assert_eq!(ids(&world.server), expected);
}

/// Stripe's own list, but looked at more often than once a minute.
#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_could_not_deliver_is_in_its_list_of_failures() {
    const SECRET: &str = "whsec_suspicions";
    let provider = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let server = Server::start().await;
    let stripe = include_str!("../../../connectors/manifests/stripe.yaml")
        .replace("connector: stripe", "connector: hasty-stripe")
        .replace("every: 1m }", "every: 5s }")
        .replace("    settle: 60s\n", "")
        .lines()
        .filter(|line| !line.contains("sample:"))
        .fold(String::new(), |text, line| text + line + "\n");
    let manifest = server.folder.path().join("hasty-stripe.yaml");
    std::fs::write(&manifest, stripe).unwrap();
    let published = server.weir(&["apply", "-f", manifest.to_str().unwrap()]);
    assert!(published.status.success(), "{}", stderr(&published));
    server.apply(&format!(
        "
kind: Connection
name: stripe
connector: hasty-stripe
config: {{ base_url: '{}' }}
credential: {{ bearer: {{ token: sk_test_simulator }} }}
---
kind: Endpoint
name: stripe
connection: stripe
secrets: [{SECRET}]
sweep: {{ every: 1h }}
",
        provider.base_url_of(Provider::Stripe)
    ));
    swept(&server, "stripe", "start").await;
    let hook = format!("{}/hooks/main/stripe", server.url);
    let lost = FaultRule::new(Direction::Webhook, "stripe.*", Fault::Drop);
    provider.faults().add(lost.after(2).times(1)).unwrap();
    let mut expected = BTreeSet::new();
    for number in 0..4 {
        // Signed as Stripe does.
        let delivery = provider.delivery(Scenario::Payment, number, &hook, &[SECRET]);
        expected.insert(delivery.id.clone());
        provider.send(&delivery).await.unwrap();
    }
    let coverage = swept(&server, "stripe", "failed_delivery").await;
    assert_eq!(
        (&coverage["received"], &coverage["recovered"]),
        (&json!(3), &json!(1)),
        "{coverage}"
    );
    assert_eq!(ids(&server), expected);
}
