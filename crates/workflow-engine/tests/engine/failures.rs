//! `try`, `on_error` and `on_failure`: what takes care of a failure, and what has to come to an end before.

use serde_json::{Value, json};
use weir_workflow_engine::{Command, EffectClass, Entry, Input, Mail, Plan, Sent, Status, StoryStep, story};

use crate::support::{Driver, KEYED, Shop, failure, plan, plan_in, refused_with, seconds};

fn refused() -> weir_workflow_engine::CallFailure {
    failure("invalid", Some(400), Sent::Never, false)
}

/// The object of the `set` step with this path.
fn set(driver: &Driver, step: &str) -> Option<Value> {
    driver.entries().into_iter().find_map(|entry| match entry {
        Entry::Set(set) if &*set.step == step => Some(set.output.value().clone()),
        _ => None,
    })
}

fn told(driver: &Driver) -> Vec<StoryStep> {
    story(Some(&driver.plan), &driver.rows, None)
}

fn status_of(driver: &Driver, path: &str) -> &'static str {
    let story = told(driver);
    let step = story.iter().find(|step| step.path == path);
    step.unwrap_or_else(|| panic!("no {path} in {story:#?}")).status
}

fn on(workflow: &str) -> Plan {
    let text = format!("name: bench\non: {{ event: stripe.payment_intent.succeeded, hydrate: never }}\n{workflow}");
    plan_in(&Shop::default(), &text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

const GUARDED: &str = r#"
  - id: guard
    try:
      - { id: pay, call: http.request, connection: crm, with: { method: POST, n: 1 } }
      - { id: paid, set: { is: paid } }
    catch:
      - { id: caught, set: { code: "{{ error.code }}", at: "{{ error.step }}", pay: "{{ results.pay.status }}", http: "{{ results.pay.http.status }}" } }
    finally:
      - { id: last, set: { paid: "{{ steps.paid.is | default('no') }}" } }
  - { id: end, set: { guard: "{{ steps.guard }}" } }
"#;

#[test]
fn a_try_without_a_failure_passes_by_its_catch() {
    let mut driver = Driver::new(plan(GUARDED), KEYED, json!({}));
    driver.start();
    let Command::Call(call) = driver.done(json!({})) else {
        panic!("a call")
    };
    assert_eq!(call.step, "guard.try.pay");
    assert_eq!(driver.last.status, Status::Succeeded);
    assert_eq!(set(&driver, "guard.catch.caught"), None);
    assert_eq!(set(&driver, "guard.finally.last"), Some(json!({ "paid": "paid" })));
    assert_eq!(set(&driver, "end"), Some(json!({ "guard": { "is": "paid" } })));
}

#[test]
fn a_caught_failure_is_seen_by_the_catch_and_the_run_goes_on() {
    let mut driver = Driver::new(plan(GUARDED), KEYED, json!({}));
    driver.start();
    driver.fail(refused());
    assert_eq!(driver.last.status, Status::Succeeded);
    let caught = json!({ "code": "invalid", "at": "guard.try.pay", "pay": "failed", "http": 400 });
    assert_eq!(set(&driver, "guard.catch.caught"), Some(caught.clone()));
    assert_eq!(set(&driver, "guard.finally.last"), Some(json!({ "paid": "no" })));
    assert_eq!(set(&driver, "end"), Some(json!({ "guard": caught })));
    assert_eq!(status_of(&driver, "guard"), "succeeded");
    assert_eq!(status_of(&driver, "guard.try.pay"), "failed");
}

#[test]
fn expressions_that_fail_are_caught_as_well() {
    let steps = r#"
  - id: guard
    try:
      - { id: number, set: { n: "{{ event.data.missing }}" } }
      - { id: never, call: http.request, connection: crm, with: { method: POST } }
    catch:
      - { id: caught, set: { code: "{{ error.code }}" } }
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    assert_eq!((&driver.last.status, driver.commands.len()), (&Status::Succeeded, 0));
    assert_eq!(
        set(&driver, "guard.catch.caught"),
        Some(json!({ "code": "expression_failed" }))
    );
}

#[test]
fn a_failure_in_catch_goes_on_after_finally() {
    let steps = r#"
  - id: outer
    try:
      - id: inner
        try: [{ id: a, call: http.request, connection: crm, with: { method: POST, n: 1 } }]
        catch: [{ id: b, call: http.request, connection: crm, with: { method: POST, n: 2 } }]
        finally: [{ id: c, set: { is: finally } }]
      - { id: never, call: http.request, connection: crm, with: { method: POST, n: 3 } }
    catch: [{ id: d, set: { step: "{{ error.step }}", a: "{{ results.a.status }}" } }]
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    driver.fail(refused());
    driver.crash();
    driver.fail(refused());
    assert_eq!((&driver.last.status, driver.commands.len()), (&Status::Succeeded, 0));
    assert!(set(&driver, "outer.try.inner.finally.c").is_some());
    let seen = json!({ "step": "outer.try.inner.catch.b", "a": "failed" });
    assert_eq!(set(&driver, "outer.catch.d"), Some(seen));
}

#[test]
fn finally_alone_passes_the_failure_on() {
    let steps = r#"
  - id: guard
    try: [{ id: a, call: http.request, connection: crm, with: { method: POST } }]
    finally: [{ id: b, call: http.request, connection: crm, with: { method: PUT } }]
  - { id: never, set: { a: "{{ steps.a.id }}" } }
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    driver.fail(refused());
    assert_eq!(driver.last.status, Status::Running);
    driver.done(json!({}));
    let Status::Failed { code, step, .. } = driver.last.status.clone() else {
        panic!("{:?}", driver.last.status)
    };
    assert_eq!((code.as_str(), step.as_deref()), ("invalid", Some("guard.try.a")));
    assert_eq!(status_of(&driver, "guard"), "failed");
}

const BESIDE: &str = r#"
  - id: guard
    try:
      - id: each
        for_each: "{{ event.data.lines }}"
        key: "{{ item }}"
        concurrency: 4
        do:
          - { id: pay, call: http.request, connection: crm, with: { method: POST, line: "{{ item }}" } }
    catch:
      - { id: undo, call: http.request, connection: crm, with: { method: DELETE } }
"#;

#[test]
fn a_catch_waits_for_effects_that_are_on_their_way() {
    let mut driver = Driver::new(plan(BESIDE), KEYED, json!({ "lines": ["a", "b", "c"] }));
    driver.start();
    assert_eq!(driver.commands.len(), 3);
    driver.fail(refused());
    assert_eq!(
        (driver.last.commands.len(), driver.last.entries.len()),
        (0, 1),
        "it waits"
    );
    driver.done(json!({ "ok": true }));
    assert_eq!(driver.last.commands.len(), 0, "it waits for the third");
    // The third may have taken place, so it is sent again until that is known.
    driver.fail(failure("timeout", None, Sent::Maybe, true));
    assert_eq!(driver.last.status, Status::Waiting);
    driver.due();
    let Command::Call(again) = driver.done(json!({ "ok": true })) else {
        panic!("a call")
    };
    assert_eq!(again.step, "guard.try.each[c].pay");
    let Command::Call(undo) = driver.done(json!({})) else {
        panic!("a call")
    };
    assert_eq!(undo.step, "guard.catch.undo");
    assert_eq!(driver.last.status, Status::Succeeded);
}

#[test]
fn what_was_never_sent_is_given_up_beside_a_failure() {
    let mut driver = Driver::new(plan(BESIDE), KEYED, json!({ "lines": ["a", "b", "c", "d", "e"] }));
    driver.start();
    assert_eq!(driver.commands.len(), 4);
    // The first waits for its second try and was never sent.
    driver.fail(failure("connect", None, Sent::Never, true));
    driver.now = driver.now.plus(seconds(1));
    driver.fail(refused());
    assert_eq!(status_of(&driver, "guard.try.each[a].pay"), "canceled");
    // One that could be tried again is not, since it never left.
    driver.fail(failure("connect", None, Sent::Never, true));
    driver.crash();
    // What was on its way when the process was lost is followed up, and nothing else.
    let Command::Call(followed) = driver.done(json!({})) else {
        panic!("a call")
    };
    assert_eq!(followed.step, "guard.try.each[d].pay");
    let Command::Call(undo) = driver.done(json!({})) else {
        panic!("a call")
    };
    assert_eq!(undo.step, "guard.catch.undo");
    assert_eq!(driver.last.status, Status::Succeeded);
    assert!(
        !told(&driver).iter().any(|step| step.path.contains("[e]")),
        "the fifth never began"
    );
}

#[test]
fn an_unknown_effect_is_not_caught() {
    let mut driver = Driver::new(plan(BESIDE), EffectClass::Blind, json!({ "lines": ["a", "b"] }));
    driver.start();
    driver.fail(refused());
    driver.fail(failure("timeout", None, Sent::Maybe, true));
    assert_eq!((driver.code().as_str(), driver.commands.len()), ("effect_unknown", 0));
}

#[test]
fn the_steps_of_on_error_run_in_place_of_a_failed_call() {
    let steps = r#"
  - id: price
    call: stripe.payment_intents.get
    with: { id: pi_1 }
    retry: { tries: 1 }
    on_error:
      - { id: fallback, set: { amount: 7, why: "{{ error.code }} at {{ error.step }}, {{ results.price.http.status }}" } }
  - { id: end, set: { amount: "{{ steps.price.amount }}", status: "{{ results.price.status }}" } }
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    driver.fail(failure("server", Some(503), Sent::Maybe, true));
    assert_eq!(driver.last.status, Status::Succeeded);
    assert_eq!(
        set(&driver, "price.on_error.fallback"),
        Some(json!({ "amount": 7, "why": "retries_exhausted at price, 503" }))
    );
    assert_eq!(set(&driver, "end"), Some(json!({ "amount": 7, "status": "failed" })));

    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    driver.done(json!({ "amount": 3 }));
    assert_eq!(set(&driver, "end"), Some(json!({ "amount": 3, "status": "succeeded" })));
}

const REPORTED: &str = r#"
timeout: 1h
steps:
  - { id: pay, call: http.request, connection: crm, with: { method: POST, n: 1 } }
  - { id: wait, sleep: 1d }
on_failure:
  - { id: report, call: http.request, connection: crm, with: { method: PUT, code: "{{ error.code }}", at: "{{ error.step }}", pay: "{{ results.pay.status }}" } }
"#;

#[test]
fn a_run_that_failed_does_the_steps_of_on_failure_and_ends_as_it_failed() {
    let mut driver = Driver::new(on(REPORTED), KEYED, json!({}));
    driver.start();
    driver.fail(refused());
    let Command::Call(report) = driver.done(json!({})) else {
        panic!("a call")
    };
    assert_eq!(report.step, "on_failure.report");
    let said = json!({ "method": "PUT", "code": "invalid", "at": "pay", "pay": "failed" });
    assert_eq!(report.args.value(), &said);
    assert_eq!(driver.code(), "invalid");
    assert_eq!(status_of(&driver, "on_failure.report"), "succeeded");
}

#[test]
fn a_time_limit_is_a_failure_and_on_failure_is_not_bound_by_it() {
    let mut driver = Driver::new(on(REPORTED), KEYED, json!({}));
    driver.start();
    driver.done(json!({}));
    driver.due();
    driver.crash();
    assert_eq!(driver.last.status, Status::Running);
    driver.fail(failure("connect", None, Sent::Never, true));
    driver.due();
    driver.done(json!({}));
    assert_eq!(driver.code(), "timeout");
}

#[test]
fn on_failure_that_fails_changes_nothing_about_the_end() {
    let mut driver = Driver::new(on(REPORTED), KEYED, json!({}));
    driver.start();
    driver.fail(refused());
    driver.fail(failure("auth", Some(401), Sent::Never, false));
    assert_eq!(driver.code(), "invalid");

    let mut canceled = Driver::new(on(REPORTED), KEYED, json!({}));
    canceled.start();
    canceled.done(json!({}));
    canceled.input(Input::Mail(Mail::Cancel {
        by: "me",
        reason: "enough",
    }));
    assert_eq!((&canceled.last.status, canceled.commands.len()), (&Status::Canceled, 0));
}

#[test]
fn an_effect_of_on_failure_that_nobody_knows_about_is_said() {
    let mut driver = Driver::new(on(REPORTED), EffectClass::Blind, json!({}));
    driver.start();
    driver.fail(refused());
    driver.fail(failure("timeout", None, Sent::Maybe, true));
    let Status::Failed { code, message, step } = driver.last.status.clone() else {
        panic!("{:?}", driver.last.status)
    };
    assert_eq!(
        (code.as_str(), step.as_deref()),
        ("effect_unknown", Some("on_failure.report"))
    );
    assert!(message.contains("the call ended in invalid"), "{message}");
}

#[test]
fn what_is_wrong_about_handlers_is_said_with_its_place() {
    let try_ = "id: t, try: [{ id: a, set: { x: 1 } }]";
    let read = "id: r, set: { x: '{{ steps.a.x }}' }";
    refused_with(&[
        (format!("steps: [{{ {try_} }}]"), "/steps/0: a `try` has a `catch`"),
        (
            format!("steps: [{{ {try_}, catch: [{{ id: c, set: {{ y: 1 }} }}] }}, {{ {read} }}]"),
            "`a` may not have run",
        ),
        (
            format!("steps: [{{ {try_}, finally: [{{ {read} }}] }}]"),
            "`a` may not have run",
        ),
        (
            "steps: [{ id: a, set: { x: '{{ error.code }}' } }]".to_owned(),
            "`error` exists only in",
        ),
        (
            format!("steps: [{{ {try_}, catch: [{{ id: c, set: {{ y: '{{{{ error.cod }}}}' }} }}] }}]"),
            "there is no `cod`",
        ),
        (
            format!("steps: [{{ id: a, set: {{ x: 1 }} }}]\non_failure: [{{ {read} }}]"),
            "/on_failure/0/set/x: `a` may not have run",
        ),
        (
            "steps: [{ id: a, set: { x: 1 } }]\non_failure: [{ id: a, set: { x: 1 } }]".to_owned(),
            "/on_failure/0/id: the id `a` is taken",
        ),
    ]);
    // Behind a `try` without `catch` all of it ran.
    plan(&format!(
        "  - {{ {try_}, finally: [{{ id: f, set: {{ y: 1 }} }}] }}\n  - {{ {read} }}"
    ));
}

#[test]
fn what_a_failure_went_out_of_has_failed_with_it() {
    let fails = "{ id: boom, set: { x: \"{{ event.data.nope }}\" } }";
    let containers = [
        ("if: \"{{ true }}\", then: [FAILS]", "box.then.boom"),
        ("switch: \"{{ event.data.id }}\", cases: { s1: [FAILS] }", "box.s1.boom"),
        ("parallel: { a: [FAILS] }", "box.a.boom"),
        (
            "for_each: \"{{ event.data.ls }}\", key: \"{{ item }}\", do: [FAILS]",
            "box[7].boom",
        ),
        (
            "try: [{ id: first, set: { x: \"{{ event.data.nope }}\" } }], catch: [FAILS]",
            "box.catch.boom",
        ),
        (
            "if: \"{{ true }}\", then: [{ id: deep, for_each: \"{{ event.data.ls }}\", key: \"{{ item }}\", do: [{ id: fork, parallel: { a: [FAILS] } }] }]",
            "box.then.deep[7].fork.a.boom",
        ),
    ];
    let result = "{ status: \"{{ results.box.status }}\", error: \"{{ results.box.error }}\" }";
    for (container, step) in containers {
        let container = container.replace("FAILS", fails);
        let check = |text: &str, prefix: &str, seen: &[&str]| {
            let mut driver = Driver::new(on(text), KEYED, json!({ "id": "s1", "ls": [7] }));
            driver.start();
            driver.crash();
            for path in seen {
                let set = set(&driver, path).unwrap_or_else(|| panic!("{text}: {:?}", driver.run.status()));
                assert_eq!(set["status"], "failed", "{text}");
                assert_eq!(set["error"]["step"], format!("{prefix}{step}"), "{text}");
                assert_eq!(set["error"]["code"], "expression_failed", "{text}");
                assert!(set["error"]["message"].as_str().unwrap().contains("nope"), "{text}");
            }
        };
        // In `catch`, in `finally`, and after the `try`.
        check(
            &format!(
                "steps:\n  - id: t\n    try: [{{ id: box, {container} }}]\n    catch: [{{ id: seen, set: {result} }}]\n    finally: [{{ id: last, set: {result} }}]\n  - {{ id: after, set: {result} }}"
            ),
            "t.try.",
            &["t.catch.seen", "t.finally.last", "after"],
        );
        check(
            &format!("steps:\n  - {{ id: box, {container} }}\non_failure: [{{ id: seen, set: {result} }}]"),
            "",
            &["on_failure.seen"],
        );
    }
}
