//! An independent fake of Stripe, written by people who never heard of Weir, sends and answers the requests.

use crate::support::{SOON, Server, eventually, http, needed};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use weir_simulator::{Simulator, SimulatorOptions};

const KEY: &str = "sk_test_weir_e2e";
const SECRET: &str = "whsec_weir_e2e";

/// A localstripe process. It ends when its standard input closes, so it never outlives the test.
struct LocalStripe {
    child: Child,
    url: String,
}

impl LocalStripe {
    fn start() -> Self {
        let python = needed("WEIR_TEST_LOCALSTRIPE");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/localstripe_server.py");
        let mut child = Command::new(&python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("could not start {python} (WEIR_TEST_LOCALSTRIPE; `make test` installs it): {error}")
            });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line
            .trim()
            .strip_prefix("listening ")
            .unwrap_or_else(|| panic!("localstripe did not start: {line:?}"))
            .to_owned();
        LocalStripe {
            child,
            url: format!("http://127.0.0.1:{port}"),
        }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let response = http()
            .post(format!("{}{path}", self.url))
            .bearer_auth(KEY)
            .json(&body)
            .send()
            .await
            .unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The API requests it has seen that Weir made.
    async fn requests_of_weir(&self) -> Vec<Value> {
        let all: Vec<Value> = http()
            .get(format!("{}/_config/requests", self.url))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        all.into_iter()
            .filter(|request| {
                request["user_agent"]
                    .as_str()
                    .is_some_and(|agent| agent.starts_with("weir"))
            })
            .collect()
    }
}

impl Drop for LocalStripe {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait().map(drop));
    }
}

fn documents(stripe: &str, crm: &str) -> String {
    format!(
        r#"
kind: Connection
name: stripe
connector: stripe
config: {{ base_url: "{stripe}" }}
credential: {{ bearer: {{ token: {KEY} }} }}
---
kind: Connection
name: crm
connector: http
config: {{ base_url: "{crm}", idempotency: {{ header: Idempotency-Key }} }}
---
kind: Endpoint
name: stripe
connection: stripe
secrets: [{SECRET}]
sweep: never
---
kind: Workflow
name: payments
on: {{ event: stripe.payment_intent.succeeded, connection: stripe, hydrate: always }}
steps:
  - id: expanded
    call: stripe.payment_intents.get
    with: {{ id: "{{{{ event.ref.id }}}}", expand: [customer, latest_charge] }}
  - id: deal
    call: http.request
    connection: crm
    with:
      method: POST
      path: "/crm/deals/{{{{ event.ref.id }}}}"
      body:
        amount: "{{{{ hydrated.payment_intent.amount }}}}"
        email: "{{{{ hydrated.customer.email }}}}"
        name: "{{{{ steps.expanded.customer.name }}}}"
        charge: "{{{{ steps.expanded.latest_charge.id }}}}"
---
kind: Workflow
name: customers
on: {{ event: stripe.customer.created, connection: stripe, hydrate: always }}
steps:
  - id: contact
    call: http.request
    connection: crm
    with:
      method: POST
      path: "/crm/contacts/{{{{ event.ref.id }}}}"
      body: {{ email: "{{{{ hydrated.customer.email }}}}" }}
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn real_webhooks_are_taken_and_the_objects_reach_the_crm() {
    let stripe = LocalStripe::start();
    let crm = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let server = Server::start().await;
    server.apply(&documents(&stripe.url, &crm.base_url()));
    let hook = json!({ "url": format!("{}/hooks/main/stripe", server.url), "secret": SECRET, "events": ["customer.created", "payment_intent.succeeded"] });
    stripe.post("/_config/webhooks/weir", hook).await;

    let customer = stripe
        .post(
            "/v1/customers",
            json!({ "email": "buyer@example.test", "name": "Example Buyer" }),
        )
        .await;
    let customer = customer["id"].as_str().unwrap();
    let card = json!({ "type": "card", "card": { "number": "4242424242424242", "exp_month": 12, "exp_year": 2030, "cvc": "123" } });
    let method = stripe.post("/v1/payment_methods", card).await;
    let method = method["id"].as_str().unwrap();
    stripe
        .post(
            &format!("/v1/payment_methods/{method}/attach"),
            json!({ "customer": customer }),
        )
        .await;
    let payment =
        json!({ "amount": 4200, "currency": "eur", "customer": customer, "payment_method": method, "confirm": true });
    let payment = stripe.post("/v1/payment_intents", payment).await;
    let payment = payment["id"].as_str().unwrap();

    let deal = eventually("the payment is in the CRM", SOON, async || {
        crm.object("crm/deals", payment)
    })
    .await;
    assert_eq!(deal["amount"], 4200);
    assert_eq!(deal["email"], "buyer@example.test");
    assert_eq!(deal["name"], "Example Buyer");
    assert!(deal["charge"].as_str().unwrap().starts_with("ch_"), "{deal}");
    let contact = eventually("the customer is in the CRM", SOON, async || {
        crm.object("crm/contacts", customer)
    })
    .await;
    assert_eq!(contact["email"], "buyer@example.test");

    let requests = stripe.requests_of_weir().await;
    assert!(
        requests
            .iter()
            .all(|request| request["authorization"] == format!("Bearer {KEY}")),
        "{requests:#?}"
    );
    let expanded = requests
        .iter()
        .find(|request| request["query"].as_array().is_some_and(|query| !query.is_empty()))
        .unwrap();
    let expansions: Vec<&Value> = expanded["query"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| &pair[1])
        .collect();
    assert_eq!(expansions, ["customer", "latest_charge"], "{expanded}");

    let runs = eventually("both runs are finished", SOON, async || {
        let runs = server.runs(&["--status", "succeeded"]);
        (runs.len() == 2).then_some(runs)
    })
    .await;
    assert!(runs.iter().all(|run| run["event"]["source"] == "ENDPOINT"), "{runs:#?}");
    assert!(server.list(&["refused", "--json"]).is_empty());
    crm.stop().await;
}
