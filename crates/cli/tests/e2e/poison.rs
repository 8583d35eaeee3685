//! Events that can never be worked on: they become dead letters under the cause of each, and nobody else notices.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Database, Server, eventually, now_unix_s};
use crate::upstream::Upstream;

const SECRET: &str = "whsec_poison";
/// What every read gets.
const OBJECT: &str = r#"{"id":"pi_1","customer":null,"receipt_email":"ann@acme.test"}"#;
/// Events of each kind.
const EACH: usize = 5;
/// Good ones among each of the others.
const GOOD: usize = 10;
const LIMIT: Duration = Duration::from_secs(60);

/// One workflow for everything. The object of an event says by its metadata where its deal stands.
fn documents(url: &str) -> String {
    format!(
        r#"
kind: Connection
name: stripe
connector: stripe
config: {{ base_url: "{url}" }}
credential: {{ bearer: {{ token: sk_test }} }}
---
kind: Connection
name: crm
connector: http
config: {{ base_url: "{url}", idempotency: {{ header: Idempotency-Key }} }}
---
kind: Endpoint
name: stripe
connection: stripe
secrets: [{SECRET}]
---
kind: Workflow
name: deals
on: {{ event: stripe.payment_intent.succeeded, connection: stripe, hydrate: always }}
steps:
  - {{ id: place, set: {{ path: "/{{{{ event.data.object.metadata.place }}}}" }} }}
  - id: deal
    call: http.request
    connection: crm
    with: {{ method: POST, path: "{{{{ steps.place.path }}}}/{{{{ event.id }}}}", body: {{ paid: true }} }}
    retry: {{ tries: 2, first: 100ms, max: 100ms }}
---
kind: Workflow
name: large
on:
  event: stripe.payment_intent.succeeded
  connection: stripe
  hydrate: never
  where: "{{{{ event.data.object.metadata.place == 'nowhere' }}}}"
steps:
  - {{ id: never, set: {{ never: true }} }}
"#
    )
}

/// What is the matter with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poison {
    None,
    /// Expressions find nothing where they look.
    NoMetadata,
    /// The follow-up read is refused.
    Unreadable,
    /// The other system refuses this one object.
    Refused,
    /// The other system is broken for this one object.
    Broken,
}

const POISONS: [Poison; 4] = [Poison::NoMetadata, Poison::Unreadable, Poison::Refused, Poison::Broken];

impl Poison {
    fn event(self, number: usize) -> String {
        let (id, metadata) = match self {
            Poison::None => ("pi_good", json!({ "place": "deals" })),
            Poison::NoMetadata => ("pi_bare", Value::Null),
            Poison::Unreadable => ("fail", json!({ "place": "deals" })),
            Poison::Refused => ("pi_refused", json!({ "place": "fail" })),
            Poison::Broken => ("pi_broken", json!({ "place": "busy" })),
        };
        let mut object = json!({ "id": id, "object": "payment_intent", "amount": 2000, "currency": "eur" });
        if !metadata.is_null() {
            object["metadata"] = metadata;
        }
        json!({
            "id": format!("evt_{self:?}_{number}"), "object": "event", "type": "payment_intent.succeeded",
            "created": now_unix_s(), "livemode": false, "data": { "object": object },
        })
        .to_string()
    }
}

async fn stay_alone(server: &Server, upstream: &Upstream) {
    server.apply(&documents(&upstream.url));
    // One after the other through the same door, good ones between and behind all others.
    let mut good = 0;
    for number in 0..EACH {
        for poison in POISONS {
            let mut events = vec![poison.event(number)];
            events.extend((good..good + GOOD).map(|number| Poison::None.event(number)));
            good += GOOD;
            for event in events {
                let answer = server.stripe_hook("stripe", SECRET, &event).await;
                assert_eq!(answer.status, 200, "{event}: {}", answer.text);
            }
        }
    }
    let runs = eventually("every run has ended", LIMIT, async || {
        let open = ["queued", "paused", "running", "waiting"]
            .iter()
            .any(|status| !server.runs(&["--status", status]).is_empty());
        (!open).then(|| server.runs(&["--workflow", "deals"]))
    })
    .await;
    let ended = |status: &str| runs.iter().filter(|run| run["status"] == status).count();
    assert_eq!((ended("SUCCEEDED"), ended("FAILED")), (good, EACH * POISONS.len()));
    // Each good one was done once, whatever happened beside it.
    let deals = |place: &str| {
        let requests = upstream.requests();
        let path = format!("POST /{place}/");
        requests
            .iter()
            .filter(|request| request.head.starts_with(&path))
            .count()
    };
    assert_eq!((deals("deals"), deals("fail"), deals("busy")), (good, EACH, 2 * EACH));
    // And each cause stands by itself, with all of its runs.
    let causes = server.list(&["dead-letters", "list", "--json"]);
    let mut told: Vec<(String, String, String, u64)> = causes
        .iter()
        .map(|cause| {
            let text = |name: &str| cause[name].as_str().unwrap_or_default().to_owned();
            (
                text("workflowName"),
                text("code"),
                text("step"),
                cause["count"].as_u64().unwrap_or_default(),
            )
        })
        .collect();
    told.sort();
    let each = EACH as u64;
    let expected = [
        ("deals", "expression_failed", "place", each),
        ("deals", "invalid", "deal", each),
        ("deals", "invalid", "hydrate.payment_intent", each),
        ("deals", "retries_exhausted", "deal", each),
        ("large", "where_failed", "", each),
    ];
    let expected =
        expected.map(|(workflow, code, step, count)| (workflow.to_owned(), code.to_owned(), step.to_owned(), count));
    assert_eq!(told, expected, "{causes:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn poisonous_events_stay_alone_on_sqlite() {
    let upstream = Upstream::answering(OBJECT).await;
    let server = Server::start().await;
    stay_alone(&server, &upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poisonous_events_stay_alone_on_postgresql() {
    let upstream = Upstream::answering(OBJECT).await;
    let database = Database::create("poison").await;
    let mut server = crate::nodes::node(&database, "poison", &[]).await;
    stay_alone(&server, &upstream).await;
    assert_eq!(server.stop().await, Some(0));
    drop(server);
    database.drop().await;
}
