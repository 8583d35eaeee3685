//! The story of a run, as people read it.

use std::fmt::Write as _;

use serde_json::json;
use weir_workflow_engine::{EffectClass, EventId, Input, MAX_PASSED_OVER_TOLD, Mail, Sent, StoryStep, story};

use crate::support::{Driver, HYDRATED, KEYED, failure, plan, plan_in, seconds};

fn print(story: &[StoryStep]) -> String {
    let mut text = String::new();
    for step in story {
        let effect = step
            .effect
            .as_ref()
            .map(|effect| format!(" [{} {}]", effect.class, effect.state))
            .unwrap_or_default();
        let note = step
            .note
            .as_deref()
            .map(|note| format!(" ({note})"))
            .unwrap_or_default();
        writeln!(
            text,
            "{} {} {}: {}{effect}{note}",
            step.kind, step.path, step.label, step.status
        )
        .unwrap();
        for attempt in &step.attempts {
            let statuses: Vec<String> = attempt
                .exchanges
                .iter()
                .map(|exchange| format!("{:?}", exchange.status))
                .collect();
            let next = attempt.next_at.map(|at| format!(", next at {at}")).unwrap_or_default();
            writeln!(
                text,
                "    {} at {} {} ms: {} {}{next}",
                attempt.number,
                attempt.at,
                attempt.duration_ms,
                attempt.outcome,
                statuses.join(" ")
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn a_story_has_every_try_and_what_is_still_to_come() {
    let mut driver = Driver::new(
        plan_in(&crate::support::Shop::default(), HYDRATED).unwrap(),
        KEYED,
        json!({ "lines": ["a", "b"] }),
    );
    driver.start();
    driver.now = driver.now.plus(seconds(1));
    driver.done(json!({ "amount": 5 }));
    driver.fail(failure("http_500", Some(500), Sent::Maybe, true));
    let open = print(&story(Some(&driver.plan), &driver.rows, None));
    driver.crash();
    driver.due();
    driver.crash();
    driver.done(json!({ "ok": 1 }));
    driver.done(json!({ "ok": 2 }));
    driver.done(json!({ "ok": 3 }));
    assert_eq!(driver.code(), "succeeded");
    insta::assert_snapshot!(
        "story",
        format!("{open}\n{}", print(&story(Some(&driver.plan), &driver.rows, None)))
    );
    // Without the plan the same story is told, with poorer labels.
    let alone = story(None, &driver.rows, None);
    assert_eq!(alone.len(), story(Some(&driver.plan), &driver.rows, None).len());
    assert!(
        alone.iter().all(|step| matches!(step.status, "succeeded" | "skipped")),
        "{}",
        print(&alone)
    );
}

#[test]
fn a_failed_run_shows_where_it_ended() {
    let mut driver = Driver::new(
        plan("  - { id: pay, call: stripe.refunds.create, with: { a: 1 } }\n  - { id: after, set: { a: 1 } }"),
        weir_workflow_engine::EffectClass::Blind,
        json!({}),
    );
    driver.start();
    driver.fail(failure("timeout", None, Sent::Maybe, true));
    insta::assert_snapshot!(
        "story_of_an_unknown_effect",
        print(&story(Some(&driver.plan), &driver.rows, None))
    );
}

#[test]
fn items_without_a_readable_key_are_told_by_their_place() {
    let names = |key: &str, lines: serde_json::Value| -> Vec<String> {
        let steps = format!(
            "  - id: lines\n    for_each: \"{{{{ event.data.lines }}}}\"\n{key}    do:\n      - id: parts\n        for_each: \"{{{{ item.parts }}}}\"\n        as: part\n        do: [{{ id: put, set: {{ a: \"{{{{ part }}}}\" }} }}]"
        );
        let mut driver = Driver::new(plan(&steps), KEYED, json!({ "lines": lines }));
        driver.start();
        assert_eq!(driver.code(), "succeeded");
        let told = story(Some(&driver.plan), &driver.rows, None);
        let puts = told.iter().filter(|step| step.path.ends_with(".put"));
        puts.map(|step| step.name.clone()).collect()
    };
    let lines = json!([{ "id": 7, "parts": ["a", "a"] }, { "id": 9, "parts": [{ "b": 1 }] }, { "id": 9, "parts": [{ "b": 1 }] }]);
    assert_eq!(
        names("", lines),
        [
            "lines[1].parts[1].put",
            "lines[1].parts[2].put",
            "lines[2].parts[1].put",
            "lines[3].parts[1].put"
        ]
    );
    let key = "    key: \"{{ item.id }}\"\n";
    let two = |id: serde_json::Value| json!([{ "id": 7, "parts": ["a"] }, { "id": id, "parts": ["b"] }]);
    assert_eq!(
        names(key, two(json!("0123456789abcdef"))),
        ["lines[7].parts[1].put", "lines[0123456789abcdef].parts[1].put"]
    );
    // A place beside readable keys would be taken for one of them.
    let mixed = names(key, two(json!("two words")));
    assert!(
        mixed[0] == "lines[7].parts[1].put" && mixed[1].starts_with("lines[~"),
        "{mixed:?}"
    );
    let hidden = |path| weir_workflow_engine::may_hide_an_item(path);
    assert!(hidden("lines[0123456789abcdef~2].put") && hidden("a[1].b[~0123456789abcdef]"));
    assert!(!hidden("lines[7].put") && !hidden("pay"));
}

/// The lines of a run to its end, calls aside.
fn lines(steps: &str, data: serde_json::Value) -> Vec<String> {
    let mut driver = Driver::new(plan(steps), KEYED, data);
    driver.start();
    assert!(driver.last.status.is_final(), "{:?}", driver.last.status);
    let told = story(Some(&driver.plan), &driver.rows, None);
    let outer = told.iter().filter(|step| step.kind != "set");
    outer
        .map(|step| {
            let note = step.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
            format!("{} [{}] {}{note}", step.path, step.label, step.status)
        })
        .collect()
}

#[test]
fn what_a_failure_went_out_of_is_told_as_failed() {
    let boom = "{ id: boom, set: { x: \"{{ event.data.nope }}\" } }";
    let told = lines(
        &format!(
            "  - id: t\n    try:\n      - id: fork\n        parallel: {{ a: [{{ id: known, if: \"{{{{ true }}}}\", then: [{boom}] }}] }}\n    catch: [{{ id: k, set: {{ a: 1 }} }}]"
        ),
        json!({}),
    );
    assert_eq!(
        told,
        [
            "t [] succeeded (a failure was caught)",
            "t.try.fork [] failed",
            "t.try.fork.a.known [true → then] failed"
        ]
    );
    let finally = "finally: [{ id: fin, set: { a: 1 } }]";
    let told = lines(
        &format!(
            "  - id: t\n    try:\n      - id: inner\n        try: [{boom}]\n        {finally}\n    catch: [{{ id: k, set: {{ a: 1 }} }}]"
        ),
        json!({}),
    );
    assert_eq!(
        told,
        [
            "t [] succeeded (a failure was caught)",
            "t.try.inner [] failed (there is no `catch`: its failure went outwards after `finally`)"
        ]
    );
    let told = lines(
        &format!(
            "  - id: t\n    try: [{{ id: first, set: {{ x: \"{{{{ event.data.nope }}}}\" }} }}]\n    catch: [{boom}]\n    {finally}"
        ),
        json!({}),
    );
    assert_eq!(
        told,
        ["t [] failed (a failure was caught, then a step of `catch` failed)"]
    );
}

#[test]
fn a_step_that_collects_failures_says_how_many_there_were() {
    let steps = r#"
  - id: lines
    for_each: "{{ event.data.lines }}"
    key: "{{ item.id }}"
    on_error: collect
    do:
      - id: parts
        for_each: "{{ item.parts }}"
        as: part
        do: [{ id: put, set: { a: "{{ part.sku }}" } }]
  - id: fan
    parallel: { a: [{ id: one, set: { a: 1 } }], b: [{ id: two, set: { a: "{{ event.data.nope }}" } }] }
    on_error: collect
"#;
    let parts = json!([{ "sku": 1 }]);
    let told = lines(
        steps,
        json!({ "lines": [{ "id": 1, "parts": parts }, { "id": 2, "parts": [{}] }, { "id": 3, "parts": [7] }] }),
    );
    assert_eq!(
        told,
        [
            "lines [event.data.lines: 3 items, 2 failed] succeeded",
            "lines[1].parts [item.parts: 1 item] succeeded",
            "lines[2].parts [item.parts: 1 item] failed",
            "lines[3].parts [item.parts: 1 item] failed",
            "fan [2 branches, 1 failed] succeeded",
        ]
    );
}

/// An effect that may be sent again is a failure like any other when its tries are used up; one that a person has to look
/// at is not.
#[test]
fn what_collects_failures_succeeds_when_what_failed_may_have_been_done() {
    let steps = r#"
  - id: fan
    on_error: collect
    parallel:
      a: [{ id: one, call: http.request, connection: crm, with: { method: POST, n: 1 } }]
      b: [{ id: two, set: { a: 1 } }]
"#;
    for (class, expected) in [(KEYED, "succeeded"), (EffectClass::Blind, "unknown")] {
        let mut driver = Driver::new(plan(steps), class, json!({}));
        driver.start();
        driver.fail(failure("timeout", None, Sent::Maybe, false));
        let told = story(None, &driver.rows, Some(driver.now));
        let status = |path: &str| told.iter().find(|step| step.path == path).unwrap().status;
        assert_eq!((status("fan.a.one"), status("fan")), ("unknown", expected));
    }
}

#[test]
fn items_that_a_limit_left_unbegun_count_as_failed() {
    let steps = "  - { id: lines, for_each: \"{{ event.data.lines }}\", timeout: 5s, on_error: collect, do: [{ id: nap, when: \"{{ item > 1 }}\", sleep: 1h }] }";
    let mut driver = Driver::new(plan(steps), KEYED, json!({ "lines": [1, 2, 3, 4] }));
    driver.start();
    driver.due();
    assert_eq!(driver.code(), "succeeded");
    let told = story(Some(&driver.plan), &driver.rows, None);
    assert_eq!(
        (told[0].label.as_str(), told[0].status),
        ("event.data.lines: 4 items, 3 failed", "succeeded")
    );
}

#[test]
fn an_answer_that_could_not_be_sent_as_it_is_says_what_was_sent() {
    let steps = "  - { id: say, respond: { status: \"{{ event.data.status }}\", headers: { x-a: \"{{ event.data.a }}\" } } }\n  - { id: end, set: { unfit: \"{{ steps.say.unfit | default([]) }}\" } }";
    for (status, output, label, note) in [
        (
            json!(999),
            json!({ "delivered": true, "unfit": ["status"] }),
            "999 → 500",
            Some("no answer can have the status 999 (200 to 599 can be sent): the caller got 500"),
        ),
        (
            json!("soon"),
            json!({ "delivered": false, "unfit": ["status", "x-a"] }),
            "soon → 500",
            Some(
                "no answer can have the status soon (200 to 599 can be sent): whoever asks for the answer gets 500; \
                 left out, as no answer can carry it: header x-a",
            ),
        ),
        (
            json!(201),
            json!({ "delivered": true, "unfit": ["x-a"] }),
            "201",
            Some("left out, as no answer can carry it: header x-a"),
        ),
        (json!(201), json!({ "delivered": true }), "201", None),
    ] {
        let mut driver = Driver::new(plan(steps), KEYED, json!({ "status": status, "a": "b" }));
        driver.start();
        driver.done(output.clone());
        assert_eq!(driver.code(), "succeeded");
        let told = story(Some(&driver.plan), &driver.rows, None);
        assert_eq!(
            (told[0].label.as_str(), told[0].note.as_deref()),
            (label, note),
            "{output}"
        );
        let unfit = output.get("unfit").cloned().unwrap_or(json!([]));
        assert_eq!(driver.last_set()["unfit"], unfit);
    }
}

#[test]
fn events_that_a_step_did_not_take_stay_in_its_story() {
    let steps = "  - { id: paid, wait_for: { event: stripe.charge.refunded, key: \"{{ arrived.data.order }}\", equals: \"{{ event.data.order }}\", where: \"{{ arrived.data.amount >= 10 }}\" }, timeout: 1h }";
    let mut driver = Driver::new(plan(steps), KEYED, json!({ "order": 7 }));
    driver.start();
    let mut arrive = |uid: i64, amount: i64| {
        let mut event = crate::support::event(json!({ "order": 7, "amount": amount }));
        event.kind = "charge.refunded".to_owned();
        event.uid = EventId::from_raw(uid);
        driver.input(Input::Mail(Mail::Event(&event)));
        let told = story(Some(&driver.plan), &driver.rows, None);
        (event.uid, told[0].status, told[0].note.clone().unwrap_or_default())
    };
    let (first, _, note) = arrive(100, 1);
    let why = "was not taken: its `where` was not true";
    assert_eq!(note, format!("until 2026-01-01T01:00:00.000Z\n{first} {why}"));
    let mut passed = vec![first];
    passed.extend((101..107).map(|uid| arrive(uid, 2).0));
    let (_, status, note) = arrive(107, 10);
    let mut told: Vec<String> = passed[passed.len() - MAX_PASSED_OVER_TOLD..]
        .iter()
        .map(|event| format!("{event} {why}"))
        .collect();
    told.push("2 earlier ones were not taken either".to_owned());
    assert_eq!((status, note), ("succeeded", told.join("\n")));
}
