//! Webhooks that the simulator signs from the manifests are what the SDK accepts; forged ones are not.

use std::collections::BTreeSet;

use serde_json::Value;
use weir_simulator::{
    Delivery, Direction, Fault, FaultRule, Forge, RetryPolicy, Scenario, SendError, Simulator, SimulatorOptions,
    StreamOptions,
};

use crate::support::Receiver;

/// A secret that every scheme can use: Standard Webhooks wants base64 behind the prefix.
const SECRET: &str = "whsec_d2Vpci1zaW11bGF0b3ItdGVzdC1zZWNyZXQtMDAwMQ==";
const QUICK: RetryPolicy = RetryPolicy {
    delays_ms: Vec::new(),
    timeout_ms: 2000,
};

async fn start() -> Simulator {
    Simulator::start(SimulatorOptions::default()).await.unwrap()
}

fn connector_of(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Payment => "stripe",
        Scenario::DealWon => "hubspot",
        Scenario::IssueOpened => "github",
        Scenario::Mention => "slack",
        Scenario::StandardPayment => "standard-webhooks",
    }
}

#[tokio::test]
async fn every_scenario_is_accepted_and_every_forgery_refused() {
    let simulator = start().await;
    for scenario in Scenario::ALL {
        let receiver = Receiver::start(connector_of(scenario), SECRET);
        // Characters that HubSpot's scheme decodes before it signs.
        let url = format!("{}?from=a%3Ab%2Fc&keep=%20", receiver.url);
        let genuine = simulator.delivery(scenario, 1, &url, &[SECRET]);
        let outcome = simulator.send(&genuine).await.unwrap();
        assert!(outcome.acknowledged, "{scenario:?}: {:?}", receiver.received());
        for forge in Forge::ALL {
            let forged = Delivery {
                forge: Some(forge),
                ..genuine.clone()
            };
            let outcome = simulator.send(&forged).await.unwrap();
            // GitHub signs no time, so an old signature of its is as good as new.
            let expected = if scenario == Scenario::IssueOpened && forge == Forge::Stale {
                200
            } else {
                401
            };
            assert_eq!(
                outcome.last_status(),
                Some(expected),
                "{scenario:?} {forge:?}: {:?}",
                receiver.received().last()
            );
        }
        receiver.stop().await;
    }
    let summary = simulator.deliveries().summary();
    assert_eq!(
        (summary.acknowledged, summary.forged_refused, summary.forged_accepted),
        (5, 19, 1)
    );
    simulator.stop().await;
}

#[tokio::test]
async fn rotation_sends_both_signatures() {
    let simulator = start().await;
    let receiver = Receiver::start("stripe", SECRET);
    let delivery = simulator.delivery(Scenario::Payment, 1, &receiver.url, &["whsec_new", SECRET]);
    assert!(simulator.send(&delivery).await.unwrap().acknowledged);
    assert_eq!(
        receiver.received()[0].headers["stripe-signature"]
            .matches("v1=")
            .count(),
        2
    );
    receiver.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn retries_as_often_as_its_policy_says() {
    let simulator = start().await;
    let receiver = Receiver::start("stripe", SECRET);
    receiver.answer(&[500, 503]);
    let retry = Some(RetryPolicy {
        delays_ms: vec![1, 1, 1],
        timeout_ms: 2000,
    });
    let delivery = Delivery {
        retry,
        ..simulator.delivery(Scenario::Payment, 1, &receiver.url, &[SECRET])
    };
    let outcome = simulator.send(&delivery).await.unwrap();
    let statuses: Vec<Option<u16>> = outcome.attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [Some(500), Some(503), Some(200)]);
    assert!(outcome.acknowledged);

    receiver.answer(&[500, 500]);
    let once = Delivery {
        retry: Some(QUICK),
        ..delivery
    };
    assert!(!simulator.send(&once).await.unwrap().acknowledged);
    assert_eq!(simulator.deliveries().summary().failed, 1);
    receiver.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn loses_doubles_and_abandons_deliveries_on_demand() {
    let simulator = start().await;
    let receiver = Receiver::start("stripe", SECRET);
    let send = async |number, fault| {
        let rule = FaultRule::new(Direction::Webhook, "stripe.payment_intent.*", fault).times(1);
        simulator.faults().add(rule).unwrap();
        let retry = Some(RetryPolicy {
            delays_ms: vec![1],
            timeout_ms: 2000,
        });
        let delivery = Delivery {
            retry,
            ..simulator.delivery(Scenario::Payment, number, &receiver.url, &[SECRET])
        };
        simulator.send(&delivery).await.unwrap()
    };
    let dropped = send(1, Fault::Drop).await;
    assert!(dropped.dropped && dropped.attempts.is_empty());
    let doubled = send(2, Fault::Duplicate { times: 2 }).await;
    assert_eq!(doubled.attempts.len(), 3);
    let abandoned = send(3, Fault::HangUp { executed: true }).await;
    assert_eq!(
        abandoned
            .attempts
            .iter()
            .map(|attempt| attempt.status)
            .collect::<Vec<_>>(),
        [None, Some(200)]
    );
    let bodies = receiver.received();
    let of = |id: &str| bodies.iter().filter(|received| received.body.contains(id)).count();
    assert_eq!((of(&dropped.id), of(&doubled.id)), (0, 3));
    assert!(of(&abandoned.id) >= 1);
    // A lost webhook is still in the provider's list of events, for sweeps to find.
    assert!(simulator.object("stripe/events", &dropped.id).is_some());
    receiver.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_reordered_delivery_is_overtaken() {
    let simulator = start().await;
    let receiver = Receiver::start("stripe", SECRET);
    simulator
        .faults()
        .add(FaultRule::new(Direction::Webhook, "*", Fault::Reorder { hold_ms: 20_000 }).times(1))
        .unwrap();
    let first = simulator.delivery(Scenario::Payment, 1, &receiver.url, &[SECRET]);
    let second = simulator.delivery(Scenario::Payment, 2, &receiver.url, &[SECRET]);
    // `join!` polls in order: the first one meets the fault.
    let (one, two) = tokio::join!(simulator.send(&first), simulator.send(&second));
    assert!(one.unwrap().acknowledged && two.unwrap().acknowledged);
    let order: Vec<bool> = receiver
        .received()
        .iter()
        .map(|received| received.body.contains(&second.id))
        .collect();
    assert_eq!(order, [true, false]);
    receiver.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_stream_is_complete_and_its_balance_shows_what_is_missing() {
    let simulator = start().await;
    let receiver = Receiver::start("stripe", SECRET);
    let options = StreamOptions {
        scenario: Scenario::Payment,
        url: receiver.url.clone(),
        signed_url: None,
        secrets: vec![SECRET.to_owned()],
        rate_per_s: 500.0,
        first: 100,
        count: Some(40),
        forge_every: 10,
        retry: Some(QUICK),
    };
    let status = simulator.stream(options.clone()).unwrap().finished().await;
    assert_eq!((status.happened, status.finished, status.done), (40, 40, true));
    let ids: BTreeSet<String> = receiver
        .received()
        .iter()
        .filter(|received| received.refused.is_none())
        .map(|received| {
            serde_json::from_str::<Value>(&received.body).unwrap()["id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 40);
    assert_eq!(simulator.deliveries().summary().forged_refused, 4);
    let balance = simulator.balance();
    assert_eq!(
        (balance.acknowledged, balance.completed, balance.missing_count),
        (40, 0, 40)
    );

    let remote = StreamOptions {
        url: "http://192.0.2.1/hooks".to_owned(),
        ..options
    };
    assert!(matches!(simulator.stream(remote), Err(SendError::Destination(_))));
    receiver.stop().await;
    simulator.stop().await;
}
