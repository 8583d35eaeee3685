//! The built-in manifests and the fake providers fit: what the SDK describes, the simulator answers, and the
//! SDK understands the answer.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_connector_sdk::{Answer, AnswerBody, CallContext, Connector, Credential, HttpResponse};
use weir_simulator::{Behaviour, Deal, Direction, Fault, FaultRule, Payment, Scenario, Simulator, SimulatorOptions};

use crate::support::client;

/// Pages of one list before something must be wrong.
const PAGES_MAX: usize = 20;

/// A host as small as can be: builds, authorises, sends, reads the answer, follows pages.
struct Host {
    simulator: Simulator,
    connectors: BTreeMap<&'static str, Connector>,
}

impl Host {
    async fn start() -> Self {
        let simulator = Simulator::start(SimulatorOptions::default()).await.unwrap();
        let parse = |builtin: &weir_connectors::Builtin| {
            Connector::parse(builtin.yaml, &|path| builtin.file(path).map(str::to_owned)).expect("a good manifest")
        };
        let connectors = weir_connectors::builtin()
            .iter()
            .map(|builtin| (builtin.name, parse(builtin)))
            .collect();
        Self { simulator, connectors }
    }

    fn token(&self, connector: &str) -> String {
        let keys = self.simulator.api_keys();
        match connector {
            "stripe" => keys.stripe.clone(),
            "hubspot" => keys.hubspot.clone(),
            "slack" => keys.slack.clone(),
            "github" => keys.github.clone(),
            _ => "none".to_owned(),
        }
    }

    /// Calls an operation; lists are read to their end.
    async fn call(&self, operation: &str, args: Value, key: Option<&str>) -> Answer {
        let (name, operation) = operation.split_once('.').unwrap();
        let connector = &self.connectors[name];
        let operation = connector
            .operation(operation)
            .unwrap_or_else(|| panic!("{name} has no {operation}"));
        let config = json!({ "base_url": self.simulator.base_url() });
        let credential = Credential::parse(&json!({ "bearer": { "token": self.token(name) } })).unwrap();
        let scheme = connector.scheme_for(&credential).unwrap();
        let mut page = None;
        let mut items = Vec::new();
        for _ in 0..PAGES_MAX {
            let context = CallContext {
                config: &config,
                args: &args,
                idempotency_key: key,
                page: page.as_ref(),
            };
            let mut request = operation.request(&context).unwrap();
            credential.apply_static(scheme, &mut request).unwrap();
            let method = reqwest::Method::from_bytes(request.method.as_bytes()).unwrap();
            let mut sent = client()
                .request(method, &request.url)
                .body(request.body.unwrap_or_default());
            for (name, value) in &request.headers {
                sent = sent.header(name, value);
            }
            let received = sent.send().await.unwrap();
            let headers = received
                .headers()
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()))
                .collect();
            let status = received.status().as_u16();
            let response = HttpResponse {
                status,
                headers,
                body: received.bytes().await.unwrap().to_vec(),
            };
            match operation.response(&context, &response) {
                Answer::Done {
                    output: AnswerBody::Value(Value::Array(part)),
                    next,
                } => {
                    items.extend(part);
                    if next.is_none() {
                        return Answer::Done {
                            output: AnswerBody::Value(Value::Array(items)),
                            next: None,
                        };
                    }
                    page = next;
                }
                Answer::Done {
                    output: AnswerBody::Whole,
                    next,
                } => {
                    let value = serde_json::from_slice(&response.body).unwrap();
                    return Answer::Done {
                        output: AnswerBody::Value(value),
                        next,
                    };
                }
                other => return other,
            }
        }
        panic!("{name}: the list does not end");
    }

    async fn output(&self, operation: &str, args: Value) -> Value {
        match self.call(operation, args, Some("weir_test")).await {
            Answer::Done {
                output: AnswerBody::Value(value),
                ..
            } => value,
            other => panic!("{operation}: {other:?}"),
        }
    }

    async fn failure(&self, operation: &str, args: Value) -> (String, bool) {
        match self.call(operation, args, None).await {
            Answer::Failed { code, retryable, .. } => (code, retryable),
            other => panic!("{operation}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_payment_is_read_back_and_reaches_the_crm() {
    let host = Host::start().await;
    host.simulator.happen(Scenario::Payment, 9);
    let payment = Payment { seed: 1, number: 9 };
    let intent = host
        .output("stripe.payment_intents.get", json!({ "id": payment.id() }))
        .await;
    let customer = host
        .output("stripe.customers.get", json!({ "id": intent["customer"] }))
        .await;
    assert_eq!(customer["email"], "customer-0009@example.test");

    let by_email = json!({ "email": customer["email"] });
    assert_eq!(
        host.output("hubspot.contacts.search", by_email.clone()).await["total"],
        0
    );
    let contact = json!({ "properties": { "email": customer["email"] } });
    let created = host.output("hubspot.contacts.create", contact.clone()).await;
    assert_eq!(
        host.failure("hubspot.contacts.create", contact).await,
        ("conflict".to_owned(), false)
    );
    let found = host.output("hubspot.contacts.search", by_email).await;
    assert_eq!(
        (&found["total"], &found["results"][0]["id"]),
        (&json!(1), &created["id"])
    );
    let update = json!({ "id": created["id"], "properties": { "phone": "000" } });
    assert_eq!(
        host.output("hubspot.contacts.update", update).await["properties"]["phone"],
        "000"
    );

    let body = json!({ "event_id": payment.event_id(), "amount": intent["amount"] });
    let request = json!({ "method": "POST", "path": format!("/crm/deals/{}", payment.id()), "body": body });
    assert_eq!(host.output("http.request", request).await["updated"], true);
    assert_eq!(
        host.simulator
            .ledger()
            .effects_of(&format!("event:{}", payment.event_id())),
        1
    );
    let message = json!({ "channel": "CSIMULATOR", "text": "paid" });
    assert_eq!(host.output("slack.chat.post_message", message).await["ok"], true);
    let lost = json!({ "channel": "missing", "text": "paid" });
    assert_eq!(
        host.failure("slack.chat.post_message", lost).await,
        ("not_found".to_owned(), false)
    );
    host.simulator.stop().await;
}

#[tokio::test]
async fn a_won_deal_becomes_one_invoice() {
    let host = Host::start().await;
    host.simulator.happen(Scenario::DealWon, 3);
    let deal = Deal::numbered(3);
    let found = host.output("hubspot.deals.get", json!({ "id": deal.id })).await;
    assert_eq!(found["properties"]["dealstage"], "closedwon");
    let links = host
        .output(
            "hubspot.associations.list",
            json!({ "from": "deals", "id": deal.id, "to": "contacts" }),
        )
        .await;
    let contact = host
        .output("hubspot.contacts.get", json!({ "id": links[0]["toObjectId"] }))
        .await;
    assert_eq!(contact["id"], deal.contact_id);
    let lines = host
        .output("hubspot.line_items.for_deal", json!({ "deal": deal.id }))
        .await;
    assert_eq!(lines.as_array().unwrap().len(), 2);

    let create = async |operation: &str, key: &str, args: Value| match host.call(operation, args, Some(key)).await {
        Answer::Done {
            output: AnswerBody::Value(value),
            ..
        } => value,
        other => panic!("{operation}: {other:?}"),
    };
    let email = &contact["properties"]["email"];
    let customer = create(
        "stripe.customers.create",
        "k1",
        json!({ "email": email, "metadata": { "deal_id": deal.id } }),
    )
    .await;
    let draft = json!({ "customer": customer["id"], "collection_method": "send_invoice", "days_until_due": 14, "metadata": { "deal_id": deal.id } });
    let invoice = create("stripe.invoices.create", "k2", draft.clone()).await;
    // The same effect again, as after a crash: the same invoice.
    assert_eq!(create("stripe.invoices.create", "k2", draft).await["id"], invoice["id"]);
    for line in lines.as_array().unwrap() {
        let id = line["id"].as_str().unwrap();
        let item = json!({ "customer": customer["id"], "invoice": invoice["id"], "amount": 1450, "currency": "eur", "metadata": { "line_item_id": id } });
        create("stripe.invoice_items.create", id, item).await;
    }
    let opened = create("stripe.invoices.finalize", "k3", json!({ "id": invoice["id"] })).await;
    assert_eq!(
        (&opened["status"], &opened["total"], &opened["days_until_due"]),
        (&json!("open"), &json!(2900), &json!(14))
    );
    assert_eq!(host.simulator.ledger().doubled(""), []);
    assert_eq!(
        host.simulator
            .ledger()
            .effects_of(&format!("invoice:deal_id:{}", deal.id)),
        1
    );
    host.simulator.stop().await;
}

#[tokio::test]
async fn events_that_were_never_delivered_are_found_in_the_list() {
    let host = Host::start().await;
    for number in 0..230 {
        host.simulator.happen(Scenario::Payment, number);
    }
    let stripe = &host.connectors["stripe"];
    let webhook = stripe.webhook().unwrap();
    let args = webhook.recover().unwrap().args(1_767_225_600_000, None, None).unwrap();
    let listed = host.output("stripe.events.list", args).await;
    let ids: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|event| webhook.identify_unit(event).unwrap().dedupe_key)
        .collect();
    assert_eq!(ids.len(), 230);
    assert_eq!(ids.first().unwrap(), &Payment { seed: 1, number: 229 }.event_id());

    host.simulator.happen(Scenario::IssueOpened, 1);
    for number in 0..120 {
        let title = json!({ "owner": "acme-test", "repo": "shop", "title": format!("issue {number}") });
        host.output("github.issues.create", title).await;
    }
    let issues = host
        .output("github.issues.list", json!({ "owner": "acme-test", "repo": "shop" }))
        .await;
    assert_eq!(issues.as_array().unwrap().len(), 121);
    host.simulator.stop().await;
}

#[tokio::test]
async fn faults_and_wrong_keys_are_understood() {
    let host = Host::start().await;
    let get = || host.failure("stripe.account.get", json!({}));
    let once = |fault| FaultRule::new(Direction::Api, "stripe.account.get", fault).times(1);
    for (fault, code) in [
        (Fault::RateLimited { retry_after_s: 1 }, "rate_limited"),
        (
            Fault::Status {
                status: 503,
                executed: false,
            },
            "http_503",
        ),
    ] {
        host.simulator.faults().add(once(fault)).unwrap();
        assert_eq!(get().await, (code.to_owned(), true));
    }
    let missing = host.failure("stripe.customers.get", json!({ "id": "cus_gone" })).await;
    assert_eq!(missing, ("not_found".to_owned(), false));
    host.simulator.set_behaviour(&Behaviour::default());
    let other = json!({ "email": "a@example.test" });
    host.call("stripe.customers.create", other, Some("same")).await;
    let mismatch = host
        .call(
            "stripe.customers.create",
            json!({ "email": "b@example.test" }),
            Some("same"),
        )
        .await;
    assert!(
        matches!(mismatch, Answer::Failed { ref code, retryable: false, .. } if code == "idempotency_mismatch"),
        "{mismatch:?}"
    );
    for (name, operation) in [
        ("stripe", "account.get"),
        ("hubspot", "account.get"),
        ("slack", "auth.test"),
        ("github", "user.get"),
    ] {
        let test = host.connectors[name].auth_test().unwrap();
        assert_eq!(test.call, operation);
        let output = host.output(&format!("{name}.{operation}"), json!({})).await;
        assert!(
            output.pointer(test.account.as_deref().unwrap()).is_some(),
            "{name}: {output}"
        );
    }
    host.simulator.stop().await;
}
