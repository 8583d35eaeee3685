//! Faults on the API side are seen by callers, and the ledger tells what happened behind them.

use std::time::Duration;

use serde_json::{Value, json};
use weir_simulator::{Direction, Fault, FaultRule, Provider, Simulator, SimulatorOptions};

use crate::support::{client, json};

async fn start() -> Simulator {
    Simulator::start(SimulatorOptions::default()).await.unwrap()
}

fn write(simulator: &Simulator, event: &str) -> reqwest::RequestBuilder {
    client()
        .post(format!("{}/crm/deals/{event}", simulator.base_url()))
        .timeout(Duration::from_millis(500))
        .json(&json!({ "event_id": event, "amount": 1 }))
}

fn once(simulator: &Simulator, fault: Fault) {
    simulator
        .faults()
        .add(FaultRule::new(Direction::Api, "crm.deals.*", fault).times(1))
        .unwrap();
}

#[tokio::test]
async fn answers_with_errors_before_or_after_the_deed() {
    let simulator = start().await;
    once(&simulator, Fault::RateLimited { retry_after_s: 3 });
    let limited = write(&simulator, "a").send().await.unwrap();
    assert_eq!(
        (
            limited.status().as_u16(),
            limited.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "3")
    );
    once(
        &simulator,
        Fault::Status {
            status: 503,
            executed: false,
        },
    );
    assert_eq!(json(write(&simulator, "a")).await.0, 503);
    assert_eq!(simulator.ledger().effects_of("event:a"), 0);
    once(
        &simulator,
        Fault::Status {
            status: 500,
            executed: true,
        },
    );
    assert_eq!(json(write(&simulator, "a")).await.0, 500);
    assert_eq!(simulator.ledger().effects_of("event:a"), 1);
    assert_eq!(json(write(&simulator, "a")).await.0, 200);
    let summary = simulator.ledger().summary();
    assert_eq!((summary.surplus_effects, summary.unanswered_effects), (1, 1));
    simulator.stop().await;
}

#[tokio::test]
async fn breaks_connections_in_three_ways() {
    let simulator = start().await;
    once(&simulator, Fault::HangUp { executed: true });
    let half = write(&simulator, "half").send().await.unwrap();
    assert_eq!(half.status().as_u16(), 200);
    assert!(half.bytes().await.is_err(), "the body must end early");
    assert_eq!(simulator.ledger().effects_of("event:half"), 1);

    once(&simulator, Fault::Drop);
    let error = write(&simulator, "dropped").send().await.unwrap_err();
    assert!(!error.is_timeout() && !error.is_connect(), "{error:?}");
    assert_eq!(simulator.ledger().effects_of("event:dropped"), 0);

    once(
        &simulator,
        Fault::TimeOut {
            hold_ms: 60_000,
            executed: true,
        },
    );
    assert!(write(&simulator, "silent").send().await.unwrap_err().is_timeout());
    assert_eq!(simulator.ledger().effects_of("event:silent"), 1);
    assert_eq!(simulator.ledger().summary().unanswered_effects, 2);
    simulator.stop().await;
}

#[tokio::test]
async fn a_stopped_crm_refuses_connections_while_the_others_go_on() {
    let options = SimulatorOptions {
        own_ports: true,
        ..SimulatorOptions::default()
    };
    let simulator = Simulator::start(options).await.unwrap();
    let url = format!("{}/crm/deals/1", simulator.base_url_of(Provider::Crm));
    let post = || client().post(&url).json(&json!({ "event_id": "e" }));
    assert_eq!(json(post()).await.0, 200);
    assert!(simulator.set_listening(Provider::Crm, false).await.unwrap());
    assert!(post().send().await.unwrap_err().is_connect());
    let stripe = format!("{}/v1/account", simulator.base_url_of(Provider::Stripe));
    assert_eq!(json(client().get(stripe).bearer_auth("sk_test_simulator")).await.0, 200);
    assert!(simulator.set_listening(Provider::Crm, true).await.unwrap());
    assert_eq!(json(post()).await.0, 200);
    simulator.stop().await;
}

#[tokio::test]
async fn the_control_api_sets_and_lifts_faults() {
    let simulator = start().await;
    let faults = format!("{}/_sim/faults", simulator.base_url());
    let rule =
        json!({ "direction": "api", "route": "POST /crm/*", "fault": { "kind": "status", "status": 500 }, "count": 1 });
    let (_, added) = json(client().post(&faults).json(&rule)).await;
    assert_eq!(json(write(&simulator, "a")).await.0, 500);
    assert_eq!(json(write(&simulator, "a")).await.0, 200);
    let (_, listed) = json(client().get(&faults)).await;
    assert_eq!((&listed[0]["seen"], &listed[0]["fired"]), (&json!(2), &json!(1)));
    assert_eq!(json(client().delete(format!("{faults}/{}", added["id"]))).await.0, 200);
    assert_eq!(simulator.faults().list().len(), 0);
    let (status, error) = json(
        client()
            .post(&faults)
            .json(&json!({ "direction": "api", "route": "*", "fault": { "kind": "reorder" } })),
    )
    .await;
    assert_eq!((status, error["error"].is_string()), (400, true));

    let state = format!("{}/_sim/state/hubspot/contacts/77", simulator.base_url());
    assert_eq!(json(client().put(&state).json(&json!({ "id": "77" }))).await.0, 200);
    assert_eq!(simulator.object("hubspot/contacts", "77"), Some(json!({ "id": "77" })));
    assert_eq!(
        json(client().post(format!("{}/_sim/reset", simulator.base_url()))).await,
        (200, Value::Object(serde_json::Map::new()))
    );
    assert_eq!(simulator.object("hubspot/contacts", "77"), None);
    simulator.stop().await;
}
