//! The stories that the fake providers tell: a payment, a deal won, an issue opened, a mention.
//!
//! Each occurrence is numbered, sets the state that a caller will read back, and yields the webhook's body.
//! Nothing here is random or a person: the number decides everything, names are labels.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clock::{iso, now_unix_ms, now_unix_s};
use crate::payment::{Customer, Payment};
use crate::provider::hubspot::{put_link, put_object};
use crate::world::World;

/// HubSpot account of the fake provider.
pub const HUBSPOT_PORTAL: u64 = 424_242;

/// A kind of occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// Stripe: `payment_intent.succeeded` with the least a body may hold.
    Payment,
    /// HubSpot: a deal's stage becomes `closedwon`; deal, contact, company and two line items in state.
    DealWon,
    /// GitHub: `issues` / `opened`.
    IssueOpened,
    /// Slack: `app_mention`.
    Mention,
    /// Standard Webhooks: `payment.received`, a body in the specification's shape.
    StandardPayment,
}

/// One occurrence, ready to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Connector whose scheme signs it.
    pub connector: &'static str,
    /// The event's id at the provider.
    pub id: String,
    /// The event's type, as the connector identifies it.
    pub kind: String,
    /// Headers beside the signature.
    pub headers: Vec<(String, String)>,
    /// The exact body.
    pub body: String,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Payment,
        Self::DealWon,
        Self::IssueOpened,
        Self::Mention,
        Self::StandardPayment,
    ];

    /// The scenario with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        serde_json::from_value(Value::String(name.replace('-', "_"))).ok()
    }

    /// Lets occurrence `number` happen: sets the state and gives the webhook.
    pub(crate) fn happen(self, world: &World, number: u64) -> Occurrence {
        match self {
            Self::Payment => payment(world, number),
            Self::DealWon => deal_won(world, number),
            Self::IssueOpened => issue_opened(world, number),
            Self::Mention => mention(world, number),
            Self::StandardPayment => standard_payment(world, number),
        }
    }
}

fn json_headers() -> Vec<(String, String)> {
    vec![("content-type".to_owned(), "application/json".to_owned())]
}

fn payment(world: &World, number: u64) -> Occurrence {
    let payment = Payment {
        seed: world.seed,
        number,
    };
    let created = now_unix_s();
    let body = payment.event_body(created);
    // The list of events is what a sweep reads; the payment itself is computed on demand.
    if let Ok(event) = serde_json::from_str(&body) {
        world.store.put("stripe/events", &payment.event_id(), event);
    }
    Occurrence {
        connector: "stripe",
        id: payment.event_id(),
        kind: "payment_intent.succeeded".to_owned(),
        headers: json_headers(),
        body,
    }
}

/// Ids of a won deal and what hangs on it; a pure function of the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deal {
    /// The deal's id.
    pub id: String,
    /// The contact's id.
    pub contact_id: String,
    /// The company's id.
    pub company_id: String,
    /// Ids of its two line items.
    pub line_item_ids: [String; 2],
}

impl Deal {
    /// The deal of this number.
    pub fn numbered(number: u64) -> Self {
        let customer = number % crate::payment::CUSTOMERS;
        Self {
            id: (10_000_000 + number).to_string(),
            contact_id: (500_000 + customer).to_string(),
            company_id: (600_000 + customer).to_string(),
            line_item_ids: [
                (20_000_000 + 2 * number).to_string(),
                (20_000_001 + 2 * number).to_string(),
            ],
        }
    }
}

fn properties(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

fn deal_won(world: &World, number: u64) -> Occurrence {
    let deal = Deal::numbered(number);
    let customer = Customer {
        seed: world.seed,
        number: number % crate::payment::CUSTOMERS,
    };
    let now = now_unix_ms();
    let [first, second] = &deal.line_item_ids;
    let (mugs, posters) = (1 + number % 5, 1 + number % 3);
    let amount = mugs * 1450 + posters * 2990;
    let decimal = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);

    let contact = json!({ "email": customer.email(), "firstname": "Accounts", "lastname": customer.name(), "company": customer.name() });
    // Contact and company may have been changed by callers since an earlier deal of theirs.
    if world.store.get("hubspot/contacts", &deal.contact_id).is_none() {
        put_object(world, "contacts", &deal.contact_id, properties(contact), now);
    }
    let company = json!({ "name": customer.name(), "domain": format!("customer-{:04}.example.test", customer.number) });
    if world.store.get("hubspot/companies", &deal.company_id).is_none() {
        put_object(world, "companies", &deal.company_id, properties(company), now);
    }
    let mug = json!({ "name": "Enamel mug", "quantity": mugs.to_string(), "price": "14.50", "amount": decimal(mugs * 1450), "hs_sku": "MUG-01", "hs_line_item_currency_code": "EUR" });
    put_object(world, "line_items", first, properties(mug), now);
    let poster = json!({ "name": "Poster A2", "quantity": posters.to_string(), "price": "29.90", "amount": decimal(posters * 2990), "hs_sku": "POS-A2", "hs_line_item_currency_code": "EUR" });
    put_object(world, "line_items", second, properties(poster), now);
    let body = json!({
        "dealname": format!("Order {number:06} of {}", customer.name()), "dealstage": "closedwon", "pipeline": "default",
        "amount": decimal(amount), "deal_currency_code": "EUR", "closedate": iso(now),
    });
    put_object(world, "deals", &deal.id, properties(body), now);
    put_link(world, "deals", &deal.id, "contacts", &deal.contact_id);
    put_link(world, "deals", &deal.id, "companies", &deal.company_id);
    put_link(world, "contacts", &deal.contact_id, "companies", &deal.company_id);
    for line_item in &deal.line_item_ids {
        put_link(world, "deals", &deal.id, "line_items", line_item);
    }

    let event_id = 700_000_000 + number;
    let object_id = 10_000_000 + number;
    let body = json!([{
        "eventId": event_id, "subscriptionId": 31_337, "portalId": HUBSPOT_PORTAL, "appId": 1_010, "occurredAt": now,
        "subscriptionType": "deal.propertyChange", "attemptNumber": 0, "objectId": object_id, "propertyName": "dealstage",
        "propertyValue": "closedwon", "changeSource": "CRM_UI", "sourceId": "userId:1",
    }]);
    Occurrence {
        connector: "hubspot",
        id: event_id.to_string(),
        kind: "deal.propertyChange".to_owned(),
        headers: json_headers(),
        body: body.to_string(),
    }
}

fn issue_opened(world: &World, number: u64) -> Occurrence {
    let issue_number = 1000 + number;
    let at = iso(now_unix_ms());
    let issue = json!({
        "id": 2_000_000 + number, "number": issue_number, "title": format!("Simulated issue {number:04}"), "body": "Opened by the simulator.",
        "state": "open", "labels": [{ "name": "simulated" }], "user": { "login": "weir-simulator", "id": 1 }, "comments": 0,
        "created_at": at, "updated_at": at, "closed_at": null,
        "url": format!("https://api.github.com/repos/acme-test/shop/issues/{issue_number}"),
        "html_url": format!("https://github.com/acme-test/shop/issues/{issue_number}"),
    });
    world
        .store
        .put("github/acme-test/shop/issues", &issue_number.to_string(), issue.clone());
    let body = json!({
        "action": "opened", "issue": issue,
        "repository": { "id": 42, "name": "shop", "full_name": "acme-test/shop", "private": false, "owner": { "login": "acme-test", "id": 2, "type": "Organization" } },
        "sender": { "login": "weir-simulator", "id": 1, "type": "User" },
    });
    let id = format!("{:08x}-0000-4000-8000-{number:012}", world.seed);
    let mut headers = json_headers();
    headers.push(("x-github-event".to_owned(), "issues".to_owned()));
    headers.push(("x-github-delivery".to_owned(), id.clone()));
    headers.push(("x-github-hook-id".to_owned(), "4242".to_owned()));
    headers.push(("user-agent".to_owned(), "GitHub-Hookshot/simulator".to_owned()));
    Occurrence {
        connector: "github",
        id,
        kind: "issues.opened".to_owned(),
        headers,
        body: body.to_string(),
    }
}

fn mention(world: &World, number: u64) -> Occurrence {
    let at = now_unix_s();
    let id = format!("EvSIM{:08X}{number:08}", world.seed);
    let body = json!({
        "token": "simulated", "team_id": "TSIMULATOR", "api_app_id": "ASIMULATOR", "type": "event_callback", "event_id": id, "event_time": at,
        "event": { "type": "app_mention", "user": "USIMULATOR", "channel": "CSIMULATOR", "text": format!("<@UWEIR> status of order {number:06}?"), "ts": format!("{at}.{:06}", number % 1_000_000), "event_ts": format!("{at}.{:06}", number % 1_000_000) },
    });
    Occurrence {
        connector: "slack",
        id,
        kind: "app_mention".to_owned(),
        headers: json_headers(),
        body: body.to_string(),
    }
}

fn standard_payment(world: &World, number: u64) -> Occurrence {
    let payment = Payment {
        seed: world.seed,
        number,
    };
    let body = json!({
        "type": "payment.received", "timestamp": iso(now_unix_ms()),
        "data": { "id": payment.id(), "amount": payment.amount(), "currency": "eur", "customer": payment.customer().id() },
    });
    Occurrence {
        connector: "standard-webhooks",
        id: format!("msg_sim{:08x}{number:012}", world.seed),
        kind: "payment.received".to_owned(),
        headers: json_headers(),
        body: body.to_string(),
    }
}
