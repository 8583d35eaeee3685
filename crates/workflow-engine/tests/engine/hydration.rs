//! Follow-up reads: their order, which of them run, and what happens when an object is not there.

use serde_json::json;
use weir_workflow_engine::{
    AttemptOutcome, Command, Entry, HydrateMode, MAX_READS, Plan, ReadInfo, Sent, Status, read_order,
};

use crate::support::{Driver, KEYED, START, Shop, failure, plan_in, read, seconds};

/// Five reads as a diamond: `a` first, `b`, `c` and `d` after it, `e` after all.
fn diamond() -> Vec<ReadInfo> {
    vec![
        read(
            "e",
            "payment_intents.get",
            json!({ "id": "{{ b.id }}/{{ c.id }}/{{ d.id }}" }),
        ),
        read("b", "payment_intents.get", json!({ "id": "{{ a.left }}" })),
        read("c", "payment_intents.get", json!({ "id": "{{ a.right }}" })),
        ReadInfo {
            when: Some("{{ a.middle }}".to_owned()),
            ..read("d", "payment_intents.get", json!({ "id": "{{ a.middle }}" }))
        },
        read("a", "payment_intents.get", json!({ "id": "{{ ref.id }}" })),
    ]
}

fn plan(reads: Vec<ReadInfo>, hydrate: &str, steps: &str) -> Plan {
    let text =
        format!("name: bench\non: {{ event: stripe.payment_intent.succeeded, hydrate: {hydrate} }}\nsteps:\n{steps}");
    plan_in(
        &Shop {
            reads,
            hydrate: HydrateMode::Always,
        },
        &text,
    )
    .unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn names(driver: &Driver) -> Vec<(String, String)> {
    driver
        .commands
        .iter()
        .map(|command| match command {
            Command::Read(read) => (read.name.clone(), read.args.value()["id"].to_string()),
            Command::Call(call) => (call.step.clone(), String::new()),
        })
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(name, id)| ((*name).to_owned(), format!("\"{id}\"")))
        .collect()
}

const STEP: &str = "  - { id: all, set: { e: \"{{ hydrated.e.id }}\", d: \"{{ hydrated.d }}\", from: \"{{ provenance.e.origin }}\" } }";

#[test]
fn a_diamond_of_five_reads_runs_as_parallel_as_its_names_allow() {
    let mut driver = Driver::new(plan(diamond(), "always", STEP), KEYED, json!({}));
    driver.start();
    assert_eq!(names(&driver), pairs(&[("a", "pi_1")]));
    assert!(!driver.commands[0].durable_first());
    driver.done(json!({ "left": "l", "right": "r", "middle": "m" }));
    assert_eq!(names(&driver), pairs(&[("b", "l"), ("c", "r"), ("d", "m")]));
    driver.done(json!({ "id": "1" }));
    driver.done(json!({ "id": "2" }));
    assert_eq!(names(&driver), pairs(&[("d", "m")]));
    driver.done(json!({ "id": "3" }));
    assert_eq!(names(&driver), pairs(&[("e", "1/2/3")]));
    // Lost in the middle: what was answered is not read again, what was open is.
    driver.crash();
    assert_eq!(names(&driver), pairs(&[("e", "1/2/3")]));
    driver.done(json!({ "id": "E" }));
    assert_eq!(driver.last.status, Status::Succeeded);
    let Some(Entry::Set(set)) = driver
        .entries()
        .into_iter()
        .find(|entry| matches!(entry, Entry::Set(_)))
    else {
        panic!()
    };
    assert_eq!(
        set.output.value(),
        &json!({ "e": "E", "d": { "id": "3" }, "from": "sent" })
    );
}

#[test]
fn a_skipped_read_takes_those_that_need_it_with_it() {
    let steps = "  - { id: all, set: { e: \"{{ hydrated.e.id | default('none') }}\", d: \"{{ hydrated.d }}\" } }";
    let mut driver = Driver::new(plan(diamond(), "always", steps), KEYED, json!({}));
    driver.start();
    driver.done(json!({ "left": "l", "right": "r", "middle": null }));
    assert_eq!(names(&driver), pairs(&[("b", "l"), ("c", "r")]));
    driver.done(json!({ "id": "1" }));
    driver.done(json!({ "id": "2" }));
    assert_eq!(driver.last.status, Status::Succeeded);
    let skipped: Vec<String> = driver
        .entries()
        .iter()
        .filter_map(|entry| match entry {
            Entry::ReadSkipped(skipped) => Some(format!("{}: {}", skipped.name, skipped.reason)),
            _ => None,
        })
        .collect();
    assert_eq!(skipped, ["d: `a.middle` is not true", "e: `d` has no output"]);
}

#[test]
fn missing_reads_only_what_the_workflow_uses_and_what_that_needs() {
    let wanted = |steps: &str| -> Vec<String> {
        let plan = plan(diamond(), "missing", steps);
        plan.reads()
            .iter()
            .filter(|read| read.is_wanted())
            .map(|read| read.name().to_owned())
            .collect()
    };
    assert_eq!(wanted("  - { id: x, set: { a: 1 } }"), [""; 0]);
    assert_eq!(wanted("  - { id: x, set: { a: \"{{ hydrated.c.id }}\" } }"), ["c", "a"]);
    assert_eq!(
        wanted("  - { id: x, set: { a: \"{{ hydrated.e.id }}\" } }"),
        ["e", "b", "c", "d", "a"]
    );
    assert_eq!(
        wanted("  - { id: x, set: { a: \"{{ hydrated | length }}\" } }").len(),
        5
    );

    let mut driver = Driver::new(
        plan(diamond(), "missing", "  - { id: x, set: { a: 1 } }"),
        KEYED,
        json!({}),
    );
    driver.start();
    assert_eq!(driver.last.status, Status::Succeeded);
}

#[test]
fn an_object_that_is_not_there_yet_gets_three_more_tries_and_is_then_gone() {
    let reads = vec![read("p", "payment_intents.get", json!({ "id": "{{ ref.id }}" }))];
    let steps = "  - { id: x, set: { p: \"{{ hydrated.p }}\" } }";
    let missing = || failure("not_found", Some(404), Sent::Never, false);
    let mut driver = Driver::new(plan(reads.clone(), "always", steps), KEYED, json!({}));
    driver.start();
    for pause in [1, 4, 10] {
        driver.fail(missing());
        assert_eq!(driver.last.due, Some(driver.now.plus(seconds(pause))));
        driver.due();
    }
    driver.fail(missing());
    assert_eq!(driver.last.status, Status::Succeeded);
    let Some(Entry::Set(set)) = driver
        .entries()
        .into_iter()
        .find(|entry| matches!(entry, Entry::Set(_)))
    else {
        panic!()
    };
    assert_eq!(
        (set.output.value(), driver.now),
        (&json!({ "p": null }), START.plus(seconds(15)))
    );

    let mut driver = Driver::new(plan(reads.clone(), "always", steps), KEYED, json!({}));
    driver.start();
    driver.fail(failure("http_410", Some(410), Sent::Never, false));
    assert_eq!(
        driver.last.status,
        Status::Succeeded,
        "gone for good is not asked again"
    );

    let mut driver = Driver::new(plan(reads, "always", steps), KEYED, json!({}));
    driver.start();
    driver.fail(failure("auth", Some(401), Sent::Never, false));
    let Status::Failed { code, step, .. } = driver.last.status.clone() else {
        panic!()
    };
    assert_eq!((code.as_str(), step.as_deref()), ("auth", Some("hydrate.p")));
}

#[test]
fn an_answer_that_is_older_than_the_event_is_read_again_and_never_used() {
    let guarded = ReadInfo {
        fresh: Some("{{ p.amount >= event.data.amount }}".to_owned()),
        ..read("p", "payment_intents.get", json!({ "id": "{{ ref.id }}" }))
    };
    let steps = "  - { id: x, set: { amount: \"{{ hydrated.p.amount }}\" } }";
    let begin = || {
        let plan = plan(vec![guarded.clone()], "always", steps);
        let mut driver = Driver::new(plan, KEYED, json!({ "amount": 7 }));
        driver.start();
        driver
    };
    let mut driver = begin();
    // A copy of the provider's data lags behind: the first tries are soon after, the later ones as of any other failure.
    for pause in [1, 4, 10] {
        driver.done(json!({ "amount": 6 }));
        assert_eq!(driver.last.due, Some(driver.now.plus(seconds(pause))));
        driver.due();
    }
    driver.done(json!({ "amount": 6 }));
    assert!(
        driver.last.due > Some(driver.now.plus(seconds(10))),
        "{:?}",
        driver.last
    );
    driver.due();
    driver.done(json!({ "amount": 8 }));
    assert_eq!(driver.last.status, Status::Succeeded);
    assert!(
        driver
            .entries()
            .iter()
            .any(|entry| matches!(entry, Entry::Set(set) if set.output.value() == &json!({ "amount": 8 })))
    );
    let stale = driver.entries().into_iter().filter_map(|entry| match entry {
        Entry::Attempt(attempt) => match attempt.outcome {
            AttemptOutcome::Retry { failure, .. } => Some(failure.message),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(
        stale.collect::<Vec<_>>(),
        vec!["the answer is older than the event: `p.amount >= event.data.amount` is not true"; 4]
    );

    // An answer in which there is nothing to compare is a mistake of the manifest, told with its place.
    let mut driver = begin();
    driver.done(json!({ "id": "pi_1" }));
    let Status::Failed { code, step, message } = driver.last.status.clone() else {
        panic!("{:?}", driver.last)
    };
    assert_eq!(
        (code.as_str(), step.as_deref()),
        ("expression_failed", Some("hydrate.p"))
    );
    assert!(
        message.contains("/p/fresh") && message.contains("p.amount"),
        "{message}"
    );
}

#[test]
fn the_benchmark_workflow_with_hydration_runs_as_it_stands() {
    let text = r#"
name: bench
on: { event: stripe.payment_intent.succeeded, connection: bench-stripe, hydrate: always }
steps:
  - id: deal
    call: http.request
    connection: bench-crm
    with:
      method: POST
      path: "/crm/deals/{{ event.data.object.id }}"
      body:
        event_id: "{{ event.id }}"
        amount: "{{ hydrated.payment_intent.amount }}"
        currency: "{{ hydrated.payment_intent.currency }}"
        receipt_email: "{{ hydrated.payment_intent.receipt_email }}"
"#;
    let mut driver = Driver::new(
        plan_in(&Shop::default(), text).unwrap(),
        KEYED,
        json!({ "object": { "id": "pi_1" } }),
    );
    driver.start();
    driver.done(json!({ "amount": 5, "currency": "eur", "receipt_email": null }));
    let Command::Call(deal) = driver.done(json!({})) else {
        panic!("a call")
    };
    assert_eq!(
        deal.args.raw(),
        r#"{"method":"POST","path":"/crm/deals/pi_1","body":{"event_id":"evt_1","amount":5,"currency":"eur","receipt_email":null}}"#
    );
    assert_eq!(driver.last.status, Status::Succeeded);
}

#[test]
fn reads_that_cannot_be_ordered_are_refused_with_their_place() {
    let problem = |reads: &[ReadInfo]| read_order(reads).unwrap_err()[0].to_string();
    let simple = |name: &str, uses: &str| read(name, "get", json!({ "id": format!("{{{{ {uses} }}}}") }));
    assert_eq!(read_order(&diamond()).unwrap(), [4, 1, 2, 3, 0]);
    assert_eq!(
        problem(&[simple("a", "b.id"), simple("b", "a.id")]),
        "/a: reads wait for each other: a, b"
    );
    assert_eq!(problem(&[simple("a", "a.id")]), "/a: reads wait for each other: a");
    assert_eq!(
        problem(&[simple("invoice", "ref.id"), simple("customer", "invoce.customer")]),
        "/customer/with: a read does not see `invoce` (did you mean `invoice`?)"
    );
    assert_eq!(
        problem(&[simple("a", "ref.id"), simple("a", "ref.id")]),
        "/a: the name `a` is taken"
    );
    assert!(problem(&[simple("a", "ref.id |")]).starts_with("/a/with/id: syntax error"));
    let many: Vec<ReadInfo> = (0..=MAX_READS)
        .map(|number| simple(&format!("r{number}"), "ref.id"))
        .collect();
    assert_eq!(problem(&many), "/: 17 reads are more than 16");
}
