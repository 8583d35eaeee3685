//! The examples beside the steps: triggers, schedules, reads, flow control and what is done after a failure.

use super::page::{self, Example, PAGE};
use super::{ANSWER, SECRET, documents, output};
use crate::support::{SOON, Server, eventually, payment_event, stderr};
use crate::upstream::Upstream;
use serde_json::{Value, json};
use std::cell::RefCell;

/// Steps that wait for a person, where the example is not about steps.
const ASKS: &str = "[{ id: ok, approve: \"Go on?\" }]";

struct World {
    server: Server,
    upstream: Upstream,
    /// Examples that nobody ran yet.
    left: RefCell<Vec<Example>>,
}

impl World {
    async fn start() -> Self {
        let upstream = Upstream::answering(ANSWER).await;
        let server = Server::start().await;
        server.apply(&documents(&upstream.url, &[]));
        let left = page::examples()
            .into_iter()
            .filter(|example| example.chapter != "Steps")
            .collect();
        World {
            server,
            upstream,
            left: RefCell::new(left),
        }
    }

    /// The next example below this heading.
    fn take(&self, heading: &str) -> String {
        let mut left = self.left.borrow_mut();
        let at = left.iter().position(|example| example.heading == heading);
        left.remove(at.unwrap_or_else(|| panic!("no further example below {heading}")))
            .text
    }

    /// Publishes an example as a workflow of this name, with what it leaves out.
    fn publish(&self, name: &str, parts: &[&str]) {
        self.server
            .apply(&format!("kind: Workflow\nname: {name}\n{}", parts.join("\n")));
    }

    fn of(&self, workflow: &str) -> Vec<Value> {
        let runs = self.server.runs(&[]).into_iter();
        runs.filter(|run| run["workflowName"] == workflow).collect()
    }

    /// Runs of a workflow in a state, once there are so many.
    async fn runs(&self, workflow: &str, status: &str, count: usize) -> Vec<Value> {
        eventually(
            &format!("{count} run(s) of {workflow} are {status}"),
            SOON,
            async || {
                let runs = self.of(workflow).into_iter();
                let runs: Vec<Value> = runs.filter(|run| run["status"] == status).collect();
                (runs.len() == count).then_some(runs)
            },
        )
        .await
    }

    fn output(&self, run: &Value, step: &str) -> Value {
        output(&self.server, run, step)
    }

    /// What the other side was sent to this path.
    fn sent(&self, line: &str) -> Vec<Value> {
        let requests = self.upstream.requests().into_iter();
        let sent = requests.filter(|request| request.head.starts_with(&format!("{line} ")));
        sent.map(|request| serde_json::from_slice(&request.body).unwrap_or_default())
            .collect()
    }

    fn start_run(&self, workflow: &str, input: &Value) -> std::process::Output {
        self.server
            .weir(&["run", "start", workflow, "--input", &input.to_string()])
    }

    /// Has Stripe tell of an object.
    async fn stripe(&self, kind: &str, event: &str, object: Value) {
        let mut body: Value = serde_json::from_str(&payment_event(event, "pi_1")).unwrap();
        (body["type"], body["account"], body["data"]["object"]) = (kind.into(), "acct_1".into(), object);
        let answer = self.server.stripe_hook("stripe", SECRET, &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    fn decide(&self, what: &str, run: &Value) {
        let decided = self.server.weir(&[what, run["id"].as_str().unwrap(), "ok"]);
        assert!(decided.status.success(), "{}", stderr(&decided));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_beside_the_steps_runs() {
    let world = World::start().await;
    an_event_by_a_generic_webhook(&world).await;
    an_event_of_a_connection(&world).await;
    a_start_by_hand(&world).await;
    schedules(&world).await;
    reads(&world).await;
    a_lane_that_holds(&world).await;
    a_lane_that_parks(&world).await;
    places_and_starts(&world).await;
    bursts_and_batches(&world).await;
    a_failure(&world).await;
    let left = world.left.take();
    assert!(left.is_empty(), "no test runs {left:#?}");
}

async fn an_event_by_a_generic_webhook(world: &World) {
    let text = world.take("A complete example");
    world.server.apply(
        &text
            .replace("https://crm.example.com", &world.upstream.url)
            // Variables of whoever calls `weir apply`, who has none here.
            .replace("{ env: CRM_TOKEN }", "crm-token-0123")
            .replace("{ env: ORDERS_TOKEN }", "orders-token-0123"),
    );
    // The body that the page has people send.
    let order = PAGE.split_once("  -d '").unwrap().1.split_once('\'').unwrap().0;
    let token = [
        ("x-orders-token", "orders-token-0123"),
        ("content-type", "application/json"),
    ];
    let first = world.server.hook("orders", &token, order).await;
    assert_eq!(
        (first.status, &first.body["duplicate"]),
        (200, &json!(false)),
        "{}",
        first.text
    );
    let again = world.server.hook("orders", &token, order).await;
    assert_eq!(again.body, json!({ "event": first.body["event"], "duplicate": true }));
    let small = order.replace("ord_1", "ord_2").replace("123456", "999");
    assert_eq!(world.server.hook("orders", &token, small).await.status, 200);
    world.runs("order-to-crm", "SUCCEEDED", 1).await;
    assert_eq!(world.of("order-to-crm").len(), 1);
    let deal = json!({ "order": "ord_1", "amount": "1234.56 EUR", "email": "a@example.com" });
    assert_eq!(world.sent("POST /deals"), [deal]);
}

async fn an_event_of_a_connection(world: &World) {
    let seen = "steps: [{ id: seen, set: { read: \"{{ hydrated.payment_intent.id }}\", amount: \"{{ event.data.object.amount }}\" } }]";
    world.publish("paid", &[&world.take("Triggers"), seen]);
    world.server.apply(&format!(
        "kind: Endpoint\nname: bare\nconnector: stripe\nsecrets: [{SECRET}]\nsweep: never"
    ));
    let payment = |id, amount| {
        let mut body: Value = serde_json::from_str(&payment_event(id, "pi_1")).unwrap();
        body["data"]["object"]["amount"] = json!(amount);
        body.to_string()
    };
    for (endpoint, body) in [
        ("stripe", payment("evt_small", 999)),
        ("bare", payment("evt_elsewhere", 1000)),
        ("stripe", payment("evt_paid", 1000)),
    ] {
        let answer = world.server.stripe_hook(endpoint, SECRET, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let run = &world.runs("paid", "SUCCEEDED", 1).await[0];
    assert_eq!(world.of("paid").len(), 1);
    assert_eq!(world.output(run, "seen"), json!({ "read": "7", "amount": 1000 }));
    assert_eq!(world.sent("GET /v1/payment_intents/pi_1").len(), 1);
}

async fn a_start_by_hand(world: &World) {
    let seen = "steps: [{ id: seen, set: { why: \"{{ event.data.reason }}\" } }]";
    world.publish("by-hand", &[&world.take("Triggers"), seen]);
    for (input, wrong) in [
        (json!({ "reason": "fraud" }), "`payment` is missing"),
        (json!({ "payment": "pi_1", "reason": "boredom" }), "is none of"),
        (
            json!({ "payment": "pi_1", "lines": ["one"] }),
            "must be of type integer",
        ),
        (json!({ "payment": "pi_1", "more": 1 }), "there is no `more`"),
    ] {
        let started = world.start_run("by-hand", &input);
        assert!(
            !started.status.success() && stderr(&started).contains(wrong),
            "{}",
            stderr(&started)
        );
    }
    let started = world.start_run(
        "by-hand",
        &json!({ "payment": "pi_1", "reason": "fraud", "lines": [1] }),
    );
    assert!(started.status.success(), "{}", stderr(&started));
    let runs = world.runs("by-hand", "SUCCEEDED", 1).await;
    assert_eq!(world.output(&runs[0], "seen"), json!({ "why": "fraud" }));
}

async fn schedules(world: &World) {
    let seen = "steps: [{ id: seen, set: { by: \"{{ event.data.schedule }}\", with: \"{{ event.data.input }}\" } }]";
    world.publish("mornings", &[&world.take("Schedules"), seen]);
    world.publish("quarters", &[&world.take("Schedules"), seen]);
    let planned = world.server.list(&["workflows", "--json"]);
    let next = |name: &str| {
        let workflow = planned.iter().find(|workflow| workflow["name"] == name).unwrap();
        let time = workflow["nextRuns"][0].as_str().unwrap();
        chrono::DateTime::parse_from_rfc3339(time).unwrap().timestamp()
    };
    assert_eq!(next("quarters") % 900, 0);
    // Nine o'clock in Berlin, in winter or summer.
    assert!([7 * 3600, 8 * 3600].contains(&(next("mornings") % 86_400)));
    for name in ["mornings", "quarters"] {
        let started = world.server.weir(&["run", "start", name]);
        assert!(started.status.success(), "{}", stderr(&started));
    }
    let run = &world.runs("mornings", "SUCCEEDED", 1).await[0];
    let by = json!({ "cron": "0 9 * * mon-fri", "timezone": "Europe/Berlin" });
    assert_eq!(
        world.output(run, "seen"),
        json!({ "by": by, "with": { "region": "eu" } })
    );
    let run = &world.runs("quarters", "SUCCEEDED", 1).await[0];
    assert_eq!(
        world.output(run, "seen"),
        json!({ "by": { "every": "15m" }, "with": {} })
    );
}

async fn reads(world: &World) {
    world.server.apply(&world.take("Hydration"));
    world
        .stripe(
            "charge.refunded",
            "evt_refund",
            json!({ "id": "ch_1", "object": "charge" }),
        )
        .await;
    world.runs("refund-note", "SUCCEEDED", 1).await;
    let text = "5.00 EUR refunded in 1 part(s) to a@example.com";
    let told = world.sent("POST /api/chat.postMessage");
    assert!(
        told.iter()
            .any(|message| message["text"] == text && message["channel"] == "#refunds"),
        "{told:?}"
    );
}

async fn a_lane_that_holds(world: &World) {
    world.server.apply(&world.take("Flow control").replace("[ … ]", ASKS));
    let change = |number: u64| {
        let event = json!({
            "eventId": number, "subscriptionId": 1, "portalId": 2, "occurredAt": 1_767_225_599_000_u64 + number,
            "subscriptionType": "deal.propertyChange", "objectId": 77, "propertyName": "amount", "propertyValue": "5",
        });
        let started = world.start_run("deal-to-erp", &json!([event]));
        assert!(started.status.success(), "{}", stderr(&started));
    };
    change(1);
    let first = world.runs("deal-to-erp", "WAITING", 1).await.remove(0);
    change(2);
    change(3);
    // Of those that wait the last one stands for all.
    let waits = world.runs("deal-to-erp", "QUEUED", 1).await.remove(0);
    let merged = world.runs("deal-to-erp", "MERGED", 1).await.remove(0);
    assert_eq!(merged["mergedInto"]["id"], waits["id"]);
    world.decide("reject", &first);
    world.runs("deal-to-erp", "FAILED", 1).await;
    let held = world.server.list(&["lanes", "--json"]);
    assert_eq!((held.len(), &held[0]["runId"]), (1, &first["id"]));
    let released = world.server.weir(&["run", "release", first["id"].as_str().unwrap()]);
    assert!(released.status.success(), "{}", stderr(&released));
    let next = world.runs("deal-to-erp", "WAITING", 1).await.remove(0);
    assert_eq!(next["id"], waits["id"]);
    world.decide("approve", &next);
    world.runs("deal-to-erp", "SUCCEEDED", 1).await;
}

async fn a_lane_that_parks(world: &World) {
    world.publish(
        "parks",
        &[
            "on: { event: stripe.customer.created }",
            &world.take("lane"),
            &format!("steps: {ASKS}"),
        ],
    );
    let customer = json!({ "id": "cus_1", "object": "customer" });
    world.stripe("customer.created", "evt_parks_1", customer.clone()).await;
    let first = world.runs("parks", "WAITING", 1).await.remove(0);
    world.stripe("customer.created", "evt_parks_2", customer.clone()).await;
    world.runs("parks", "QUEUED", 1).await;
    world.stripe("customer.created", "evt_parks_3", customer).await;
    let beyond = world.runs("parks", "FAILED", 1).await.remove(0);
    assert_eq!(beyond["error"]["code"], "lane_full");
    // It is put aside, and the next one goes on.
    world.decide("reject", &first);
    world.runs("parks", "FAILED", 2).await;
    let next = world.runs("parks", "WAITING", 1).await.remove(0);
    world.decide("approve", &next);
    world.runs("parks", "SUCCEEDED", 1).await;
}

async fn places_and_starts(world: &World) {
    let steps = format!("steps: {ASKS}");
    world.publish(
        "places",
        &[
            "on: { event: stripe.customer.updated }",
            &world.take("concurrency"),
            &steps,
        ],
    );
    let step = "steps: [{ id: only, set: { a: 1 } }]";
    world.publish(
        "starts",
        &["on: { event: stripe.customer.deleted }", &world.take("throttle"), step],
    );
    for number in 1..=3 {
        let customer = json!({ "id": format!("cus_{number}"), "object": "customer" });
        world
            .stripe("customer.updated", &format!("evt_places_{number}"), customer)
            .await;
    }
    for number in 1..=11 {
        let customer = json!({ "id": format!("cus_{number}"), "object": "customer" });
        world
            .stripe("customer.deleted", &format!("evt_starts_{number}"), customer)
            .await;
    }
    // Long before the minute is over.
    world.runs("starts", "SUCCEEDED", 10).await;
    world.runs("starts", "QUEUED", 1).await;
    let begun = world.runs("places", "WAITING", 2).await;
    world.runs("places", "QUEUED", 1).await;
    for run in &begun {
        world.decide("approve", run);
    }
    world.runs("places", "SUCCEEDED", 2).await;
    let last = world.runs("places", "WAITING", 1).await.remove(0);
    world.decide("approve", &last);
    world.runs("places", "SUCCEEDED", 3).await;
}

async fn bursts_and_batches(world: &World) {
    let seen = "steps: [{ id: seen, set: { name: \"{{ event.data.object.name }}\" } }]";
    let quiet = world.take("debounce").replace("for: 30s", "for: 3s");
    world.publish("bursts", &["on: { event: stripe.invoice.created }", &quiet, seen]);
    let (batch, rows) = (world.take("batch").replace("for: 1m", "for: 3s"), world.take("batch"));
    world.publish("rows", &["on: { event: stripe.invoice.paid }", &batch, "steps:", &rows]);
    for number in 1..=3 {
        let invoice = json!({ "id": "in_1", "object": "invoice", "name": number });
        world
            .stripe("invoice.created", &format!("evt_burst_{number}"), invoice.clone())
            .await;
        world
            .stripe("invoice.paid", &format!("evt_row_{number}"), invoice)
            .await;
    }
    let run = world.runs("bursts", "SUCCEEDED", 1).await.remove(0);
    assert_eq!(world.output(&run, "seen"), json!({ "name": 3 }));
    world.runs("bursts", "MERGED", 2).await;
    world.runs("rows", "SUCCEEDED", 1).await;
    world.runs("rows", "MERGED", 2).await;
    let told: Vec<Value> = world
        .sent("POST /rows")
        .iter()
        .map(|row| row["object"]["name"].clone())
        .collect();
    assert_eq!(told, [1, 2, 3]);
}

async fn a_failure(world: &World) {
    let stops = "[{ id: bad, stop: { status: failed, reason: broken } }]";
    world.publish(
        "fails",
        &[
            "on: { manual: {} }",
            &world.take("When a run fails").replace("[ … ]", stops),
        ],
    );
    assert!(world.server.weir(&["run", "start", "fails"]).status.success());
    let run = world.runs("fails", "FAILED", 1).await.remove(0);
    let text = format!("{} failed at bad: stopped", run["id"].as_str().unwrap());
    let told = world.sent("POST /api/chat.postMessage");
    assert!(told.iter().any(|message| message["text"] == text.as_str()), "{told:?}");
}
