//! `sleep`: durable pauses.

use serde_json::{Value, json};
use weir_workflow_engine::{Input, Ledger, MAX_SLEEP, Mail, Status, story};

use crate::support::{Driver, KEYED, START, Shop, head, plan, plan_in, preview, problems, seconds};

const REMIND: &str = r#"
  - { id: first, call: http.request, connection: crm, with: { method: POST, n: 1 } }
  - { id: pause, sleep: 3d }
  - { id: second, call: http.request, connection: crm, with: { method: POST, n: 2 } }
"#;

#[test]
fn a_sleep_ends_when_it_is_over_and_not_before() {
    let mut driver = Driver::new(plan(REMIND), KEYED, json!({}));
    driver.start();
    driver.now = START.plus(seconds(60));
    driver.done(json!({}));
    let over = START.plus(seconds(60 + 3 * 86_400));
    assert_eq!((&driver.last.status, driver.last.due), (&Status::Waiting, Some(over)));
    let told = story(Some(&driver.plan), &driver.rows, None);
    assert_eq!((told[1].kind, told[1].status), ("sleep", "waiting"));
    assert_eq!(told[1].label, format!("until {over}"));

    driver.now = START.plus(seconds(86_400));
    let early = driver.input(Input::Due).clone();
    assert_eq!((early.entries.len(), early.due), (0, Some(over)));
    // The process is lost while it sleeps, and is back only long after the end.
    driver.now = over.plus(seconds(7_200));
    driver.crash();
    driver.done(json!({}));
    assert_eq!(driver.last.status, Status::Succeeded);
    assert_eq!(story(Some(&driver.plan), &driver.rows, None)[1].status, "succeeded");
}

#[test]
fn a_moment_that_is_over_is_no_pause() {
    let steps = r#"
  - { id: pause, sleep: { until: "{{ event.data.at }}" } }
  - { id: end, set: { slept: "{{ steps.pause }}" } }
"#;
    for at in [json!("2020-01-01T00:00:00Z"), json!(1_577_836_800)] {
        let mut driver = Driver::new(plan(steps), KEYED, json!({ "at": at }));
        driver.start();
        assert_eq!(driver.last.status, Status::Succeeded, "{at}");
    }
    let mut driver = Driver::new(plan(steps), KEYED, json!({ "at": "2026-01-01T00:00:05Z" }));
    driver.start();
    assert_eq!(driver.last.due, Some(START.plus(seconds(5))));
    driver.due();
    assert_eq!(driver.last.status, Status::Succeeded);
}

#[test]
fn what_is_no_span_and_no_moment_fails_the_step() {
    let check = |steps: &str, data: Value| {
        let mut driver = Driver::new(plan(steps), KEYED, data);
        driver.start();
        driver.code()
    };
    let until = "  - { id: pause, sleep: { until: \"{{ event.data.at }}\" } }";
    let far = START.plus(MAX_SLEEP).plus(seconds(1)).to_string();
    for at in [json!("tomorrow"), json!(null), json!(far)] {
        assert_eq!(check(until, json!({ "at": at })), "bad_sleep", "{at}");
    }
    let span = "  - { id: pause, sleep: \"{{ event.data.span }}\" }";
    for wrong in [json!("a while"), json!(-5), json!("400d")] {
        assert_eq!(check(span, json!({ "span": wrong })), "bad_sleep", "{wrong}");
    }
    assert_eq!(check(span, json!({ "span": "2h" })), "waiting");
    assert_eq!(check(span, json!({ "span": 0.5 })), "waiting");
}

#[test]
fn constants_are_checked_at_publish() {
    for (sleep, expected) in [
        ("soon", "/steps/0/sleep: \"soon\" is no span"),
        ("{ for: 400d }", "/steps/0/sleep/for: \"400d\" is longer than 366d"),
        (
            "{ until: 2026-12-01 }",
            "/steps/0/sleep/until: \"2026-12-01\" is no moment",
        ),
        ("{ for: 1s, until: 5 }", "/steps/0/sleep: a `sleep` has either"),
        ("{}", "/steps/0/sleep: a `sleep` has either"),
        ("{ till: 5 }", "/steps/0/sleep/till: `till` is not supported"),
    ] {
        let found = &problems(&format!("steps: [{{ id: s, sleep: {sleep} }}]"))[0];
        assert!(found.starts_with(expected), "{sleep}: {found}");
    }
}

#[test]
fn items_of_a_loop_sleep_side_by_side() {
    let steps = r#"
  - id: each
    for_each: "{{ event.data.spans }}"
    concurrency: 3
    do:
      - { id: pause, sleep: "{{ item }}" }
      - { id: label, set: { slept: "{{ item }}" } }
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({ "spans": ["30s", "10s", "20s", "5s"] }));
    driver.start();
    let mut dues = vec![driver.last.due];
    while !driver.last.status.is_final() {
        driver.due();
        dues.push(driver.last.due);
    }
    // The fourth begins when the first place is free, at 10 s, and lasts 5 s.
    let at = |second| Some(START.plus(seconds(second)));
    assert_eq!(dues, [at(10), at(15), at(20), at(30), None]);
    assert_eq!(driver.last.status, Status::Succeeded);
}

#[test]
fn a_run_that_sleeps_can_be_canceled_and_runs_out_of_time() {
    let mut driver = Driver::new(plan(REMIND), KEYED, json!({}));
    driver.start();
    driver.done(json!({}));
    driver.input(Input::Mail(Mail::Cancel {
        by: "me",
        reason: "enough",
    }));
    assert_eq!((&driver.last.status, driver.last.due), (&Status::Canceled, None));
    assert_eq!(story(Some(&driver.plan), &driver.rows, None)[1].status, "canceled");

    let text = format!(
        "name: bench\ntimeout: 1h\non: {{ event: stripe.payment_intent.succeeded, hydrate: never }}\nsteps:\n{REMIND}"
    );
    let mut driver = Driver::new(plan_in(&Shop::default(), &text).unwrap(), KEYED, json!({}));
    driver.start();
    driver.done(json!({}));
    assert_eq!(driver.last.due, Some(START.plus(seconds(3600))));
    driver.due();
    assert_eq!(driver.code(), "timeout");
}

#[test]
fn a_rehearsal_does_not_wait() {
    let mut driver = Driver::new(plan(REMIND), KEYED, json!({}));
    driver.start();
    driver.done(json!({}));
    driver.due();
    driver.done(json!({}));
    let ledger = Ledger::default();
    let preview = preview(
        &driver.plan,
        &head(2),
        &driver.event,
        &ledger,
        weir_workflow_engine::Past {
            recorded: &driver.entries(),
            kept: &[],
            replaced: None,
        },
        &driver.world,
        driver.now,
    );
    let steps: Vec<&str> = preview.new.iter().map(|effect| effect.step.as_str()).collect();
    assert_eq!((steps, preview.note), (vec!["first", "second"], None));
}
