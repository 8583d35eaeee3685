//! Every example in the documentation of workflows is applied and run.

mod others;
mod page;

use crate::support::{SOON, Server, eventually, payment_event, post, stderr, stdout};
use crate::upstream::Upstream;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What everybody outside answers, whatever is asked.
const ANSWER: &str = r#"{
    "ok": true, "id": "7", "total": 1, "results": [{ "id": "7", "toObjectId": "8" }], "usd": 1.1, "data": [{ "id": "8" }],
    "has_more": false, "amount_refunded": 500, "currency": "eur", "customer": "cus_1", "email": "a@example.com"
}"#;
const SECRET: &str = "whsec_documentation";

/// Steps that examples take for granted.
const BEFORE: [(&str, &str); 2] = [
    (
        "contact",
        "- { id: contact, set: { total: 1, results: [{ id: \"7\" }] } }\n",
    ),
    (
        "lines",
        "- { id: lines, for_each: \"{{ event.data.lines }}\", do: [{ id: price, set: { cents: 5 } }] }\n",
    ),
];

/// The runs that the examples start: each `run` step, and the `undo` of one.
const CHILDREN: [&str; 5] = ["audit-trail", "credit-note", "invoice", "invoice", "invoice"];
/// What steps of the examples give that say what becomes of a failure.
const GIVEN: [(&str, &str, &str); 5] = [
    ("id: pushed", "missing", r#"{ "count": 2 }"#),
    ("id: rates", "usd", r#"{ "usd": 1.1, "by": "bank" }"#),
    ("id: race", "answered", r#"{ "in_time": true }"#),
    ("id: copies", "archived", r#"{ "is": "failed" }"#),
    ("id: share", "whole", r#"{ "cents": 1500 }"#),
];

/// The YAML blocks of the chapter about steps, each with the heading above it.
fn examples() -> Vec<(String, String)> {
    let found = page::examples()
        .into_iter()
        .filter(|example| example.chapter == "Steps");
    found.map(|example| (example.heading, example.text)).collect()
}

fn documents(url: &str, examples: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, base) in [
        ("crm", ""),
        ("rates", ""),
        ("erp", ""),
        ("hotels", ""),
        ("flights", "/fail"),
    ] {
        writeln!(
            text,
            "---\nkind: Connection\nname: {name}\nconnector: http\nconfig: {{ base_url: \"{url}{base}\", idempotency: {{ header: Idempotency-Key, window: 24h }} }}"
        )
        .unwrap();
    }
    for name in ["hubspot", "slack", "stripe"] {
        writeln!(
            text,
            "---\nkind: Connection\nname: {name}\nconnector: {name}\nconfig: {{ base_url: \"{url}\" }}\ncredential: {{ bearer: {{ token: test }} }}"
        )
        .unwrap();
    }
    writeln!(
        text,
        "---\nkind: Endpoint\nname: stripe\nconnection: stripe\nsecrets: [{SECRET}]\nsweep: never"
    )
    .unwrap();
    writeln!(
        text,
        "---\nkind: Endpoint\nname: orders\nconnector: generic\nverify: {{ token: {{ at: \"header:X-Orders-Token\" }} }}\nsecrets: [orders-token-0123]"
    )
    .unwrap();
    for child in ["invoice", "audit-trail", "credit-note"] {
        writeln!(
            text,
            "---\nkind: Workflow\nname: {child}\non: {{ manual: {{}} }}\nsteps: [{{ id: end, set: {{ given: \"{{{{ event.data }}}}\" }} }}]"
        )
        .unwrap();
    }
    for (number, (_, example)) in examples.iter().enumerate() {
        let mut steps = String::new();
        for (id, before) in BEFORE {
            if example.contains(&format!("steps.{id}")) && !example.contains(&format!("id: {id}\n")) {
                steps.push_str(before);
            }
        }
        steps.push_str(example);
        writeln!(
            text,
            "---\nkind: Workflow\nname: doc-{number}\non: {{ event: generic.order.placed }}\nsteps:\n{steps}"
        )
        .unwrap();
    }
    text
}

/// What a step of a run gave, by its id.
fn output(server: &Server, run: &Value, step: &str) -> Value {
    let told = server.weir(&["run", "show", run["id"].as_str().unwrap(), "--json", "--bodies"]);
    let told: Value = serde_json::from_str(&stdout(&told)).unwrap();
    let steps = told["steps"].as_array().unwrap();
    let is_it = |path: &str| path.rsplit('.').next() == Some(step);
    let found = steps.iter().find(|found| is_it(found["path"].as_str().unwrap()));
    found.unwrap_or_else(|| panic!("no {step} in {steps:#?}"))["output"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_a_step_runs() {
    let examples = examples();
    let kinds: std::collections::BTreeSet<&str> = examples.iter().map(|(heading, _)| heading.as_str()).collect();
    assert_eq!(kinds.len(), 15, "a heading for each kind of step: {kinds:?}");
    let upstream = Upstream::answering(ANSWER).await;
    let server = Server::start().await;
    server.apply(&documents(&upstream.url, &examples));
    let made = server.weir(&["token", "create", "--name", "finance", "--scope", "run-approve"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let finance = stdout(&made).trim().to_owned();

    let order = json!({
        "type": "order.placed", "id": "o-7", "status": "paid", "total_cents": 1500, "currency": "eur",
        "customer": { "email": "a@example.com" }, "charge": "ch_7", "lines": [{ "id": "l1", "sku": "A" }, { "id": "l2", "sku": "B" }],
        "grace_s": 1, "due": "2020-01-01T00:00:00Z",
    });
    let token = [("x-orders-token", "orders-token-0123")];
    let answer = server.hook("orders", &token, order.to_string()).await;
    assert_eq!(
        (answer.status, &answer.body["total"]),
        (201, &json!(1500)),
        "{}",
        answer.text
    );
    let mut payment: Value = serde_json::from_str(&payment_event("evt_7", "pi_7")).unwrap();
    payment["data"]["object"]["metadata"] = json!({ "order": "o-7" });
    assert_eq!(
        server.stripe_hook("stripe", SECRET, &payment.to_string()).await.status,
        200
    );

    let runs = eventually("every example is over, or asleep for days", SOON * 3, async || {
        for asked in server.list(&["approvals", "--json"]) {
            let (run, step) = (asked["runId"].as_str().unwrap(), asked["step"].as_str().unwrap());
            let mut decide = server.command(&["approve", run, step, "--note", "fine"]);
            let _decided = decide.env("WEIR_TOKEN", &finance).output().unwrap();
        }
        let runs = server.runs(&[]);
        let asleep = |run: &Value| {
            let name = run["workflowName"].as_str().unwrap_or_default();
            let number = name
                .strip_prefix("doc-")
                .and_then(|number| number.parse::<usize>().ok());
            run["status"] == "WAITING" && number.is_some_and(|number| examples[number].0 == "sleep")
        };
        let open = |run: &&Value| matches!(run["status"].as_str(), Some("RUNNING" | "WAITING")) && !asleep(run);
        (runs.len() == examples.len() + CHILDREN.len() && runs.iter().filter(open).count() == 0).then_some(runs)
    })
    .await;
    let failed: Vec<&Value> = runs.iter().filter(|run| run["status"] == "FAILED").collect();
    let codes: Vec<&str> = failed
        .iter()
        .map(|run| run["error"]["code"].as_str().unwrap())
        .collect();
    assert_eq!(
        codes,
        ["stopped"],
        "only the example that undoes what it did: {failed:#?}"
    );
    let undone = upstream
        .requests()
        .iter()
        .any(|request| request.head.starts_with("DELETE /bookings/7 "));
    assert!(undone, "the hotel was given back");
    let mut children: Vec<&str> = runs.iter().filter_map(|run| run["workflowName"].as_str()).collect();
    children.retain(|name| !name.starts_with("doc-"));
    children.sort_unstable();
    assert_eq!(children, CHILDREN);
    for (example, step, given) in GIVEN {
        let number = examples.iter().position(|(_, text)| text.contains(example)).unwrap();
        let run = runs
            .iter()
            .find(|run| run["workflowName"] == format!("doc-{number}"))
            .unwrap();
        let (found, given) = (
            output(&server, run, step),
            serde_json::from_str::<Value>(given).unwrap(),
        );
        let has = given
            .as_object()
            .unwrap()
            .iter()
            .all(|(name, value)| found[name] == *value);
        assert!(has, "{step} gave {found}, not {given}");
    }
    let query = json!({ "query": "{ outgoingEvents { nodes { type } } }" }).to_string();
    let bearer = format!("Bearer {}", server.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let told = post(&format!("{}/graphql", server.url), &headers, query).await.body;
    let nodes = told["data"]["outgoingEvents"]["nodes"].as_array().unwrap();
    let mut kinds: Vec<&str> = nodes.iter().filter_map(|event| event["type"].as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["order.booked", "order.shipped", "order.withdrawn"]);
}
