//! `timeout` of steps with steps inside: what is open comes to an end first, and a run that stands still loses no time.

use serde_json::{Value, json};
use weir_workflow_engine::{Input, Mail, Sent, Status, story};

use crate::support::{Driver, KEYED, START, failure, plan, refused_with, seconds};

fn started(steps: &str, data: Value) -> Driver {
    let mut driver = Driver::new(plan(steps), KEYED, data);
    driver.start();
    driver
}

fn at(second: u64) -> Option<weir_workflow_engine::Timestamp> {
    Some(START.plus(seconds(second)))
}

/// `path status note` of every step.
fn told(driver: &Driver) -> Vec<String> {
    let story = story(Some(&driver.plan), &driver.rows, None);
    let line = |step: weir_workflow_engine::StoryStep| {
        format!("{} {} {}", step.path, step.status, step.note.unwrap_or_default())
    };
    story.into_iter().map(line).collect()
}

const GUARDED: &str = r#"
  - id: guard
    timeout: 10s
    try:
      - { id: pause, sleep: 6s }
      - { id: pay, call: http.request, connection: crm, with: { method: POST } }
      - { id: more, sleep: 1h }
    catch:
      - { id: rest, sleep: 1m }
      - { id: why, set: { code: "{{ error.code }}", step: "{{ error.step }}", message: "{{ error.message }}" } }
"#;

#[test]
fn a_try_that_takes_too_long_is_caught_after_its_effect_is_known() {
    let mut driver = started(GUARDED, json!({}));
    assert_eq!(driver.last.due, at(6));
    driver.due();
    assert_eq!(driver.last.due, at(10), "the call is on its way, and the limit counts");
    driver.crash();
    driver.now = at(10).unwrap();
    driver.input(Input::Due);
    assert_eq!(
        driver.last.status,
        Status::Running,
        "what becomes of the payment is awaited"
    );
    assert!(
        told(&driver).contains(&"guard running its steps took longer than 10s".to_owned()),
        "{:?}",
        told(&driver)
    );
    driver.now = at(11).unwrap();
    driver.done(json!({ "id": "re_1" }));
    // The steps of `catch` have all the time they want.
    assert_eq!((&driver.last.status, driver.last.due), (&Status::Waiting, at(71)));
    driver.due();
    assert_eq!(driver.last.status, Status::Succeeded);
    let message = "its steps took longer than its limit of 10s";
    assert_eq!(
        driver.last_set(),
        json!({ "code": "step_timeout", "step": "guard", "message": message })
    );
    assert!(
        !told(&driver).iter().any(|line| line.starts_with("guard.try.more")),
        "{:?}",
        told(&driver)
    );
}

#[test]
fn what_was_through_in_time_is_not_touched() {
    let mut driver = started(&GUARDED.replace("sleep: 1h", "sleep: 1s"), json!({}));
    driver.due();
    driver.done(json!({ "id": "re_1" }));
    assert_eq!(driver.last.due, at(7));
    driver.due();
    assert_eq!((&driver.last.status, driver.last.due), (&Status::Succeeded, None));

    // A failure before the limit is the one that is caught, and the limit is over with it.
    let mut driver = started(GUARDED, json!({}));
    driver.due();
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    assert_eq!(driver.last.due, at(66));
    driver.due();
    assert_eq!(driver.last_set()["code"], json!("invalid"));
}

const LOOP: &str = r#"
  - id: each
    for_each: "{{ event.data.spans }}"
    concurrency: 2
    timeout: 10s
OPTIONS
    do:
      - { id: pause, sleep: "{{ item }}" }
      - { id: label, set: { slept: "{{ item }}" } }
  - { id: end, set: { each: "{{ steps.each }}" } }
"#;

#[test]
fn a_loop_that_takes_too_long_fails_or_gives_what_it_has() {
    let spans = json!({ "spans": ["4s", "1h", "2s", "1m", "5s"] });
    let mut driver = started(&LOOP.replace("OPTIONS", ""), spans.clone());
    while driver.last.due.is_some() {
        driver.due();
    }
    assert_eq!(driver.now, at(10).unwrap());
    let Status::Failed { code, step, .. } = driver.last.status.clone() else {
        panic!("{:?}", driver.last.status)
    };
    assert_eq!((code.as_str(), step.as_deref()), ("step_timeout", Some("each")));
    assert!(
        told(&driver).contains(&"each failed its steps took longer than 10s".to_owned()),
        "{:?}",
        told(&driver)
    );

    let mut driver = started(&LOOP.replace("OPTIONS", "    on_error: collect"), spans);
    while driver.last.due.is_some() {
        driver.due();
        if driver.now == at(6).unwrap() {
            driver.crash();
        }
    }
    assert_eq!((driver.now, &driver.last.status), (at(10).unwrap(), &Status::Succeeded));
    let each = driver.last_set();
    let of = |item: usize, name: &str| each["each"][item][name].clone();
    let statuses: Vec<Value> = (0..5).map(|item| of(item, "status")).collect();
    assert_eq!(statuses, ["succeeded", "failed", "succeeded", "failed", "failed"]);
    assert_eq!(of(0, "output"), json!({ "slept": "4s" }));
    assert_eq!(
        (of(1, "error")["code"].clone(), of(4, "error")["step"].clone()),
        (json!("step_timeout"), json!("each"))
    );
}

const FAN: &str = r#"
  - id: fan
    timeout: 10s
    parallel:
      quick: [{ id: here, set: { ok: true } }]
      paying: [{ id: pay, call: http.request, connection: crm, with: { method: POST } }, { id: paid, set: { id: "{{ steps.pay.id }}" } }]
      slow: [{ id: pause, sleep: 1h }]
OPTIONS
  - { id: end, set: { fan: "{{ steps.fan }}" } }
"#;

#[test]
fn branches_that_are_not_through_in_time_fail() {
    let mut driver = started(&FAN.replace("OPTIONS", "    on_error: collect"), json!({}));
    assert_eq!(driver.last.due, at(10));
    driver.due();
    assert_eq!((&driver.last.status, driver.last.due), (&Status::Running, None));
    driver.done(json!({ "id": 7 }));
    assert_eq!(driver.last.status, Status::Succeeded);
    let fan = driver.last_set();
    let codes = ["quick", "paying", "slow"].map(|branch| fan["fan"][branch]["error"]["code"].clone());
    assert_eq!(codes, [json!(null), json!("step_timeout"), json!("step_timeout")]);

    for options in ["", "    join: all"] {
        let mut driver = started(&FAN.replace("OPTIONS", options), json!({}));
        driver.due();
        driver.done(json!({ "id": 7 }));
        assert_eq!(driver.code(), "step_timeout");
    }
    // One that is decided has no limit any more, whatever it still has to wait for.
    for join in ["any", "first"] {
        let steps = FAN
            .replace("OPTIONS", &format!("    join: {join}"))
            .replace("quick: [", "quick: [{ id: soon, sleep: 5s }, ");
        let mut driver = started(&steps, json!({}));
        driver.due();
        assert_eq!(
            (&driver.last.status, driver.last.due),
            (&Status::Running, None),
            "{join}"
        );
        driver.now = at(30).unwrap();
        driver.done(json!({ "id": 7 }));
        assert_eq!(driver.last.status, Status::Succeeded, "{join}");
    }
}

#[test]
fn a_run_that_stands_still_loses_no_time() {
    let mut driver = started(&LOOP.replace("OPTIONS", ""), json!({ "spans": ["1h"] }));
    driver.now = at(4).unwrap();
    driver.input(Input::Mail(Mail::Pause { by: "me", reason: "" }));
    assert_eq!((&driver.last.status, driver.last.due), (&Status::Paused, None));
    driver.now = at(104).unwrap();
    driver.crash();
    assert_eq!(driver.last.status, Status::Paused);
    driver.input(Input::Mail(Mail::Resume { by: "me" }));
    assert_eq!(driver.last.due, at(110), "six seconds were left");
    driver.due();
    assert_eq!(driver.code(), "step_timeout");
}

#[test]
fn of_limits_in_each_other_the_first_that_is_over_counts() {
    let steps = r#"
  - id: outer
    timeout: OUTER
    try:
      - id: inner
        timeout: INNER
        for_each: "{{ event.data.l }}"
        concurrency: 2
        do: [{ id: pause, sleep: 1h }]
    catch: [{ id: why, set: { step: "{{ error.step }}" } }]
"#;
    for (outer, inner, step) in [
        ("9s", "5s", "outer.try.inner"),
        ("5s", "9s", "outer"),
        ("5s", "5s", "outer"),
    ] {
        let steps = steps.replace("OUTER", outer).replace("INNER", inner);
        let mut driver = started(&steps, json!({ "l": [1, 2, 3] }));
        assert_eq!(driver.last.due, at(5));
        driver.due();
        assert_eq!((driver.last_set(), driver.last.due), (json!({ "step": step }), None));
    }
}

#[test]
fn only_steps_with_steps_inside_and_steps_that_wait_have_a_limit() {
    refused_with(&[
        (
            "steps: [{ id: s, timeout: 5m, set: { a: 1 } }]".to_owned(),
            "/steps/0/timeout: `timeout` is not supported here",
        ),
        (
            "steps: [{ id: s, timeout: soon, for_each: \"{{ event.data.l }}\", do: [{ id: a, set: { b: 1 } }] }]"
                .to_owned(),
            "/steps/0/timeout: ",
        ),
        (
            "steps: [{ id: s, timeout: 91d, parallel: { a: [{ id: a, set: { b: 1 } }] } }]".to_owned(),
            "/steps/0/timeout: ",
        ),
        (
            "steps: [{ id: s, timeout: 0s, try: [{ id: a, set: { b: 1 } }], catch: [{ id: c, set: { b: 1 } }] }]"
                .to_owned(),
            "/steps/0/timeout: ",
        ),
    ]);
}
