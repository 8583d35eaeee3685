//! Every example of a step in the documentation is applied and run.

use crate::support::{SOON, Server, eventually, payment_event, stderr, stdout};
use crate::upstream::Upstream;
use serde_json::{Value, json};
use std::fmt::Write as _;

const PAGE: &str = include_str!("../../../../docs/workflows.md");
const ANSWER: &str = r#"{"ok":true,"id":"7","total":1,"results":[{"id":"7"}],"usd":1.1}"#;
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

/// The YAML blocks of the chapter about steps, each with the heading above it.
fn examples() -> Vec<(String, String)> {
    let chapter = PAGE
        .split("\n## Steps\n")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let mut found = Vec::new();
    for section in chapter.split("\n### ").skip(1) {
        let heading = section.lines().next().unwrap().to_owned();
        for block in section.split("```yaml\n").skip(1) {
            found.push((heading.clone(), block.split("```").next().unwrap().to_owned()));
        }
    }
    found
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
        "---\nkind: Endpoint\nname: stripe\nconnection: stripe\nsecrets: [{SECRET}]"
    )
    .unwrap();
    writeln!(
        text,
        "---\nkind: Endpoint\nname: orders\nconnector: generic\nverify: {{ token: {{ at: \"header:X-Orders-Token\" }} }}\nsecrets: [orders-token-0123]"
    )
    .unwrap();
    for child in ["invoice", "audit-trail"] {
        writeln!(
            text,
            "---\nkind: Workflow\nname: {child}\non: {{ manual: {{}} }}\nsteps: [{{ id: end, set: {{ order: \"{{{{ event.data.order }}}}\" }} }}]"
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

/// The YAML blocks of the other chapters, each as a document of its own that can be published.
fn other_examples() -> Vec<String> {
    let without_steps = PAGE.split("\n## ").filter(|chapter| !chapter.starts_with("Steps\n"));
    let blocks = without_steps.flat_map(|chapter| chapter.split("```yaml\n").skip(1));
    let step = "[{ id: only, set: { a: 1 } }]";
    let document = |(number, block): (usize, &str)| {
        let block = block.split("```").next().unwrap().replace("[ … ]", step);
        let has = |key: &str| block.lines().any(|line| line.starts_with(key));
        if has("kind: ") {
            return block;
        }
        let mut text = format!("kind: Workflow\nname: other-{number}\n");
        if !has("on:") {
            text.push_str("on: { event: generic.order.placed }\n");
        }
        match has("- id: ") {
            true => text.push_str(&format!(
                "batch: {{ key: \"{{{{ event.id }}}}\", size: 2, for: 1s }}\nsteps:\n{block}"
            )),
            false if has("steps:") => text.push_str(&block),
            false => text.push_str(&format!("{block}steps: {step}\n")),
        }
        text
    };
    blocks.enumerate().map(document).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_example_can_be_published() {
    let server = Server::start().await;
    server.apply(&documents("http://127.0.0.1:9", &[]));
    let documents = other_examples();
    assert!(documents.len() >= 12, "{documents:#?}");
    for document in documents {
        // Variables of whoever calls `weir apply`, who has none here.
        let document = document
            .replace("{ env: CRM_TOKEN }", "crm-token-0123")
            .replace("{ env: ORDERS_TOKEN }", "orders-token-0123");
        let applied = server.try_apply(&document, &[]);
        assert!(applied.status.success(), "{document}\n{}", stderr(&applied));
    }
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
        "customer": { "email": "a@example.com" }, "lines": [{ "id": "l1", "sku": "A" }, { "id": "l2", "sku": "B" }],
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
        (runs.len() == examples.len() + 2 && runs.iter().filter(open).count() == 0).then_some(runs)
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
}
