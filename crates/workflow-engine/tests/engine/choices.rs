//! `switch`: by value and by conditions.

use serde_json::{Value, json};
use weir_workflow_engine::{Command, Status, story};

use crate::support::{Driver, KEYED, plan, refused_with};

const BY_VALUE: &str = r#"
  - id: route
    switch: "{{ event.data.state }}"
    cases:
      paid:
        - { id: deal, call: http.request, connection: crm, with: { method: POST } }
        - { id: won, set: { is: won } }
      "3":
        - { id: three, set: { is: three } }
      "needs a person":
        - { id: ask, call: http.request, connection: crm, with: { method: PUT } }
      "true":
        - { id: agreed, set: { is: "yes" } }
    default:
      - { id: other, set: { is: other } }
  - { id: end, set: { route: "{{ steps.route.is }}", deal: "{{ results.deal.status }}" } }
"#;

fn routed(state: &Value) -> Driver {
    let mut driver = Driver::new(plan(BY_VALUE), KEYED, json!({ "state": state }));
    driver.start();
    driver
}

#[test]
fn a_switch_takes_the_case_of_its_value_and_has_its_output() {
    let cases = [
        (json!(3), "three"),
        (json!("3"), "three"),
        (json!(true), "yes"),
        (json!("open"), "other"),
        (json!(null), "other"),
        (json!("default"), "other"),
    ];
    for (state, expected) in cases {
        let driver = routed(&state);
        assert_eq!(driver.last.status, Status::Succeeded, "{state}");
        assert_eq!(
            driver.last_set(),
            json!({ "route": expected, "deal": "not_run" }),
            "{state}"
        );
    }
    let mut driver = routed(&json!("paid"));
    let Command::Call(call) = driver.done(json!({ "id": 1 })) else {
        panic!("a call")
    };
    assert_eq!(call.step, "route.paid.deal");
    assert_eq!(driver.last_set(), json!({ "route": "won", "deal": "succeeded" }));
}

#[test]
fn a_case_that_cannot_stand_in_a_path_has_a_stable_name_there() {
    let mut driver = routed(&json!("needs a person"));
    driver.crash();
    let Command::Call(call) = driver.next_command() else {
        panic!("a call")
    };
    let (before, after) = (call.step.starts_with("route.~"), call.step.ends_with(".ask"));
    assert!(before && after && !call.step.contains(' '), "{}", call.step);
}

#[test]
fn a_value_with_members_is_no_case() {
    let driver = routed(&json!({ "a": 1 }));
    assert_eq!(driver.code(), "not_a_case");
}

#[test]
fn conditions_are_tried_in_their_order() {
    let steps = r#"
  - id: size
    switch:
      - { when: "{{ event.data.amount > 100 }}", do: [{ id: large, set: { is: large } }] }
      - { when: "{{ event.data.amount > 10 }}", do: [{ id: middle, set: { is: middle } }] }
  - { id: end, set: { size: "{{ steps.size.is | default('small') }}", middle: "{{ steps.middle.is | default(none) }}" } }
"#;
    for (amount, size, middle) in [
        (500, "large", Value::Null),
        (50, "middle", json!("middle")),
        (5, "small", Value::Null),
    ] {
        let mut driver = Driver::new(plan(steps), KEYED, json!({ "amount": amount }));
        driver.start();
        assert_eq!(driver.last_set(), json!({ "size": size, "middle": middle }), "{amount}");
        let story = story(Some(&driver.plan), &driver.rows, None);
        assert_eq!((story[0].kind, story[0].status), ("switch", "succeeded"));
    }
}

#[test]
fn what_is_wrong_with_a_switch_is_said_with_its_place() {
    let cases = [
        ("{ id: s, switch: '{{ event.id }}' }", "/steps/0"),
        ("{ id: s, switch: '{{ event.id }}', cases: {} }", "1 to 100 cases"),
        (
            "{ id: s, switch: '{{ event.id }}', cases: { default: [{ id: a, set: { x: 1 } }] } }",
            "/steps/0/cases/default",
        ),
        (
            "{ id: s, switch: [{ when: '{{ event.id }}', do: [{ id: a, set: { x: 1 } }] }], cases: {} }",
            "/steps/0/cases",
        ),
        (
            "{ id: s, switch: [{ do: [{ id: a, set: { x: 1 } }] }] }",
            "/steps/0/switch/0",
        ),
        (
            "{ id: s, switch: '{{ event.id }}', cases: { b: [{ id: a, set: { x: 1 } }] } }",
            "`a` may not have run",
        ),
    ];
    let end = "{ id: end, set: { x: '{{ steps.a.x }}' } }";
    refused_with(&cases.map(|(step, expected)| (format!("steps: [{step}, {end}]"), expected)));
}
