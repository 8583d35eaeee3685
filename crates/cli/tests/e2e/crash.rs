//! SIGKILL in the middle of the work: what was acknowledged is done, once.

use crate::support::{Database, Server, eventually};
use std::time::Duration;
use weir_simulator::{RetryPolicy, Scenario, Simulator, SimulatorOptions, StreamOptions};

pub(crate) const SECRET: &str = "whsec_crash";
const EVENTS: u64 = 400;
const RATE_PER_S: f64 = 200.0;
/// How often the server is killed while events come in.
const CRASHES: usize = 3;
/// A busy machine may need long for what is normally done in five seconds.
const LIMIT: Duration = Duration::from_secs(90);

pub(crate) fn documents(providers: &Simulator) -> String {
    let keys = providers.api_keys();
    format!(
        r#"
kind: Connection
name: stripe
connector: stripe
config: {{ base_url: "{url}" }}
credential: {{ bearer: {{ token: {stripe} }} }}
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
name: payments
on: {{ event: stripe.payment_intent.succeeded, connection: stripe, hydrate: always }}
steps:
  - id: deal
    call: http.request
    connection: crm
    with:
      method: POST
      path: "/crm/deals/{{{{ event.ref.id }}}}"
      body: {{ event_id: "{{{{ event.id }}}}", amount: "{{{{ hydrated.payment_intent.amount }}}}" }}
"#,
        url = providers.base_url(),
        stripe = keys.stripe,
    )
}

async fn survives(settings: &[(&str, &str)]) {
    let providers = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let mut settings = settings.to_vec();
    settings.push(("WEIR_EGRESS_ALLOW", "127.0.0.0/8"));
    let mut server = Server::start_with(&settings).await;
    server.apply(&documents(&providers));
    let stream = providers
        .stream(StreamOptions {
            scenario: Scenario::Payment,
            url: format!("{}/hooks/main/stripe", server.url),
            signed_url: None,
            secrets: vec![SECRET.to_owned()],
            rate_per_s: RATE_PER_S,
            first: 1,
            count: Some(EVENTS),
            forge_every: 0,
            retry: Some(RetryPolicy {
                delays_ms: vec![250; 400],
                timeout_ms: 5_000,
            }),
        })
        .unwrap();
    for crash in 1..=CRASHES {
        let wanted = EVENTS * crash as u64 / (CRASHES as u64 + 1);
        eventually("enough events were acknowledged", LIMIT, async || {
            (providers.deliveries().summary().acknowledged >= wanted).then_some(())
        })
        .await;
        server.kill();
        server.start_again().await;
    }
    let sent = stream.finished().await;
    assert_eq!(sent.finished, EVENTS);
    eventually("every acknowledged event has its effect", LIMIT, async || {
        (providers.balance().completed == EVENTS).then_some(())
    })
    .await;
    let balance = providers.balance();
    assert_eq!(balance.missing_count, 0, "{balance:?}");
    assert_eq!(balance.doubled_count, 0, "{balance:?}");
    eventually("no run is open", LIMIT, async || {
        (server.runs(&["--status", "running", "--status", "waiting"]).is_empty()).then_some(())
    })
    .await;
    assert_eq!(server.runs(&["--status", "succeeded"]).len() as u64, EVENTS);
    assert_eq!(server.stop().await, Some(0), "{}", server.log());
    providers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_on_sqlite() {
    survives(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_on_postgres() {
    let database = Database::create("crash").await;
    survives(&database.settings()).await;
    database.drop().await;
}
