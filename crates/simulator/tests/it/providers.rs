//! The fake providers' APIs: state, keys, strangers, pages.

use serde_json::{Value, json};
use weir_simulator::{Behaviour, Deal, Payment, Scenario, Simulator, SimulatorOptions};

use crate::support::{client, json};

const STRIPE: &str = "sk_test_simulator";

async fn start() -> Simulator {
    Simulator::start(SimulatorOptions {
        seed: 7,
        ..SimulatorOptions::default()
    })
    .await
    .unwrap()
}

async fn get(simulator: &Simulator, path: &str, token: &str) -> (u16, Value) {
    json(
        client()
            .get(format!("{}{path}", simulator.base_url()))
            .bearer_auth(token),
    )
    .await
}

async fn post_form(simulator: &Simulator, path: &str, key: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}{path}", simulator.base_url());
    json(
        client()
            .post(url)
            .bearer_auth(STRIPE)
            .header("idempotency-key", key)
            .form(form),
    )
    .await
}

#[tokio::test]
async fn stripe_state_goes_round_and_strangers_stay_out() {
    let simulator = start().await;
    let occurrence = simulator.happen(Scenario::Payment, 42);
    let event: Value = serde_json::from_str(&occurrence.body).unwrap();
    let id = event["data"]["object"]["id"].as_str().unwrap();

    let (status, intent) = get(&simulator, &format!("/v1/payment_intents/{id}"), STRIPE).await;
    assert_eq!(
        (status, &intent["amount"]),
        (200, &json!(Payment { seed: 7, number: 42 }.amount()))
    );
    let customer = intent["customer"].as_str().unwrap();
    let (_, customer) = get(&simulator, &format!("/v1/customers/{customer}"), STRIPE).await;
    assert_eq!(customer["email"], "customer-0042@example.test");
    let (_, expanded) = get(
        &simulator,
        &format!("/v1/payment_intents/{id}?expand[]=latest_charge"),
        STRIPE,
    )
    .await;
    assert_eq!(expanded["latest_charge"]["payment_intent"], id);

    let (status, refusal) = get(&simulator, &format!("/v1/payment_intents/{id}"), "sk_test_wrong").await;
    assert_eq!(
        (status, &refusal["error"]["type"]),
        (401, &json!("invalid_request_error"))
    );
    let (status, missing) = get(&simulator, "/v1/payment_intents/pi_unknown", STRIPE).await;
    assert_eq!((status, &missing["error"]["code"]), (404, &json!("resource_missing")));

    simulator.happen(Scenario::Payment, 43);
    let (_, first) = get(
        &simulator,
        "/v1/events?limit=1&types[]=payment_intent.succeeded",
        STRIPE,
    )
    .await;
    assert_eq!(
        (&first["has_more"], first["data"].as_array().unwrap().len()),
        (&json!(true), 1)
    );
    let after = first["data"][0]["id"].as_str().unwrap();
    let (_, second) = get(
        &simulator,
        &format!("/v1/events?limit=1&starting_after={after}"),
        STRIPE,
    )
    .await;
    assert_eq!(
        (&second["has_more"], &second["data"][0]["id"]),
        (&json!(false), &json!(occurrence.id))
    );
    simulator.stop().await;
}

#[tokio::test]
async fn stripe_honours_idempotency_keys_until_told_otherwise() {
    let simulator = start().await;
    let customer = Payment { seed: 7, number: 1 }.customer().id();
    let form = [("customer", customer.as_str()), ("metadata[deal_id]", "10000001")];
    let (status, first) = post_form(&simulator, "/v1/invoices", "weir_a", &form).await;
    assert_eq!((status, &first["status"]), (200, &json!("draft")));

    let (status, again) = post_form(&simulator, "/v1/invoices", "weir_a", &form).await;
    assert_eq!((status, &again["id"]), (200, &first["id"]));
    assert_eq!(simulator.objects("stripe/invoices").len(), 1);

    let other = [("customer", customer.as_str()), ("metadata[deal_id]", "10000002")];
    let (status, refusal) = post_form(&simulator, "/v1/invoices", "weir_a", &other).await;
    assert_eq!((status, &refusal["error"]["type"]), (400, &json!("idempotency_error")));
    assert_eq!(simulator.ledger().summary().doubled, []);

    simulator.set_behaviour(&Behaviour {
        stripe_keys: false,
        ..Behaviour::default()
    });
    post_form(&simulator, "/v1/invoices", "weir_a", &form).await;
    let summary = simulator.ledger().summary();
    assert_eq!(summary.doubled[0].identity, "invoice:deal_id:10000001");
    assert_eq!((summary.doubled[0].effects, summary.surplus_effects), (2, 1));
    let counts = simulator.ledger().route("stripe.invoices.create");
    assert_eq!(
        (counts.requests, counts.effects, counts.replayed, counts.refused),
        (4, 2, 1, 1)
    );
    simulator.stop().await;
}

#[tokio::test]
async fn stripe_bills_from_draft_to_open() {
    let simulator = start().await;
    let customer = Payment { seed: 7, number: 1 }.customer().id();
    let (_, invoice) = post_form(&simulator, "/v1/invoices", "k1", &[("customer", &customer)]).await;
    let id = invoice["id"].as_str().unwrap();
    let item = [
        ("customer", customer.as_str()),
        ("invoice", id),
        ("amount", "1450"),
        ("description", "mug"),
    ];
    assert_eq!(post_form(&simulator, "/v1/invoiceitems", "k2", &item).await.0, 200);
    let (_, opened) = post_form(&simulator, &format!("/v1/invoices/{id}/finalize"), "k3", &[]).await;
    assert_eq!((&opened["status"], &opened["total"]), (&json!("open"), &json!(1450)));
    assert_eq!(opened["lines"]["data"][0]["description"], "mug");
    let (status, _) = post_form(&simulator, &format!("/v1/invoices/{id}/finalize"), "k4", &[]).await;
    assert_eq!(status, 400);

    let charge = Payment { seed: 7, number: 1 }.charge_id();
    assert_eq!(
        post_form(&simulator, "/v1/refunds", "k5", &[("charge", &charge)])
            .await
            .0,
        200
    );
    assert_eq!(
        post_form(&simulator, "/v1/refunds", "k6", &[("charge", &charge)])
            .await
            .0,
        400
    );
    simulator.stop().await;
}

#[tokio::test]
async fn hubspot_has_a_won_deal_with_all_that_hangs_on_it() {
    let simulator = start().await;
    simulator.happen(Scenario::DealWon, 3);
    let deal = Deal::numbered(3);
    let token = "pat-simulator";
    let path = format!(
        "/crm/v3/objects/deals/{}?properties=dealstage,amount&associations=contacts,line_items",
        deal.id
    );
    let (_, found) = get(&simulator, &path, token).await;
    assert_eq!(found["properties"]["dealstage"], "closedwon");
    assert_eq!(found["associations"]["contacts"]["results"][0]["id"], deal.contact_id);
    let (_, links) = get(
        &simulator,
        &format!("/crm/v4/objects/deals/{}/associations/line_items", deal.id),
        token,
    )
    .await;
    assert_eq!(links["results"].as_array().unwrap().len(), 2);

    let url = format!("{}/crm/v3/objects/line_items/search", simulator.base_url());
    let filter = json!({ "filterGroups": [{ "filters": [{ "propertyName": "associations.deal", "operator": "EQ", "value": deal.id }] }], "limit": 1 });
    let (_, page) = json(client().post(&url).bearer_auth(token).json(&filter)).await;
    assert_eq!(
        (&page["total"], &page["paging"]["next"]["after"]),
        (&json!(2), &json!("1"))
    );

    let contacts = format!("{}/crm/v3/objects/contacts", simulator.base_url());
    let contact = json!({ "properties": { "email": "new@example.test" } });
    simulator.set_behaviour(&Behaviour {
        hubspot_search_lag_ms: 60_000,
        ..Behaviour::default()
    });
    assert_eq!(
        json(client().post(&contacts).bearer_auth(token).json(&contact)).await.0,
        201
    );
    assert_eq!(
        json(client().post(&contacts).bearer_auth(token).json(&contact)).await.0,
        409
    );
    let by_email = json!({ "filterGroups": [{ "filters": [{ "propertyName": "email", "operator": "EQ", "value": "new@example.test" }] }] });
    let search = || {
        json(
            client()
                .post(format!("{contacts}/search"))
                .bearer_auth(token)
                .json(&by_email),
        )
    };
    assert_eq!(search().await.1["total"], 0);
    simulator.set_behaviour(&Behaviour::default());
    assert_eq!(search().await.1["total"], 1);
    assert_eq!(
        json(client().post(&contacts).bearer_auth("wrong").json(&contact))
            .await
            .0,
        401
    );
    simulator.stop().await;
}

#[tokio::test]
async fn slack_and_github_answer_in_their_own_way() {
    let simulator = start().await;
    let slack = format!("{}/api/chat.postMessage", simulator.base_url());
    let post = |channel: &str| {
        json(
            client()
                .post(&slack)
                .bearer_auth("xoxb-simulator")
                .json(&json!({ "channel": channel, "text": "hello" })),
        )
    };
    assert_eq!(post("CSIMULATOR").await.1["ok"], true);
    assert_eq!(post("missing").await.1["error"], "channel_not_found");
    let (status, stranger) = json(client().post(&slack).bearer_auth("xoxb-wrong").json(&json!({}))).await;
    assert_eq!((status, &stranger["error"]), (200, &json!("invalid_auth")));

    let issues = format!("{}/repos/acme-test/shop/issues", simulator.base_url());
    for number in 0..3 {
        let (status, _) = json(
            client()
                .post(&issues)
                .bearer_auth("github-simulator")
                .json(&json!({ "title": format!("issue {number}") })),
        )
        .await;
        assert_eq!(status, 201);
    }
    let page = client()
        .get(format!("{issues}?per_page=2"))
        .bearer_auth("github-simulator")
        .send()
        .await
        .unwrap();
    let link = page.headers()["link"].to_str().unwrap().to_owned();
    assert!(link.contains("page=2") && link.contains("rel=\"next\""), "{link}");
    simulator.stop().await;
}

#[tokio::test]
async fn crm_counts_an_event_that_changed_it_twice() {
    let simulator = start().await;
    let url = format!("{}/crm/deals/pi_1", simulator.base_url());
    let body = json!({ "event_id": "evt_1", "amount": 5 });
    assert_eq!(
        json(client().post(&url).header("idempotency-key", "a").json(&body))
            .await
            .0,
        200
    );
    json(client().post(&url).header("idempotency-key", "a").json(&body)).await;
    assert_eq!(simulator.ledger().effects_of("event:evt_1"), 1);
    json(client().post(&url).json(&body)).await;
    assert_eq!(simulator.ledger().doubled("event:")[0].effects, 2);
    assert_eq!(simulator.object("crm/deals", "pi_1").unwrap()["amount"], 5);

    let control = format!("{}/_sim/ledger?identity=event:evt_1", simulator.base_url());
    let (_, ledger) = json(client().get(control)).await;
    let outcomes: Vec<&str> = ledger["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["done", "replayed", "done"]);
    simulator.stop().await;
}
