//! `parallel`, and loops that leave the other items alone when one fails.

use serde_json::json;
use weir_workflow_engine::{CallFailure, Command, EffectClass, Sent, Status, story};

use crate::support::{Driver, KEYED, failure, plan, refused_with, seconds};

fn refused() -> CallFailure {
    failure("invalid", Some(400), Sent::Never, false)
}

fn fan(options: &str) -> String {
    format!(
        r#"
  - id: fan
    parallel:
      crm:
        - {{ id: deal, call: http.request, connection: crm, with: {{ method: POST, n: 1 }} }}
        - {{ id: pause, sleep: 10s }}
        - {{ id: dealt, set: {{ deal: "{{{{ steps.deal.id }}}}" }} }}
      chat:
        - {{ id: tell, call: http.request, connection: crm, with: {{ method: POST, n: 2 }} }}
{options}
  - {{ id: end, set: {{ fan: "{{{{ steps.fan }}}}" }} }}
"#
    )
}

fn started(options: &str, class: EffectClass) -> Driver {
    let mut driver = Driver::new(plan(&fan(options)), class, json!({}));
    driver.start();
    let steps: Vec<String> = driver
        .commands
        .iter()
        .map(|command| match command {
            Command::Call(call) => call.step.clone(),
            Command::Read(read) => read.name.clone(),
        })
        .collect();
    assert_eq!(
        steps,
        ["fan.chat.tell", "fan.crm.deal"]
            .map(str::to_owned)
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
    driver
}

fn statuses(driver: &Driver) -> Vec<(String, &'static str)> {
    let story = story(Some(&driver.plan), &driver.rows, None);
    story.into_iter().map(|step| (step.path, step.status)).collect()
}

fn status_of(driver: &Driver, path: &str) -> &'static str {
    let all = statuses(driver);
    all.iter()
        .find(|(told, _)| told == path)
        .unwrap_or_else(|| panic!("no {path} in {all:?}"))
        .1
}

#[test]
fn branches_run_side_by_side_and_their_outputs_come_by_name() {
    let mut driver = started("", KEYED);
    driver.done(json!({ "id": 7 }));
    driver.crash();
    driver.done(json!({ "ok": true }));
    assert_eq!(driver.last.status, Status::Waiting);
    driver.due();
    assert_eq!(driver.last.status, Status::Succeeded);
    assert_eq!(
        driver.last_set(),
        json!({ "fan": { "crm": { "deal": 7 }, "chat": { "ok": true } } })
    );
}

#[test]
fn a_failed_branch_fails_the_run_after_the_effects_beside_it_are_known() {
    let mut driver = started("", KEYED);
    driver.fail(refused());
    assert_eq!(driver.last.status, Status::Running, "the other is on its way");
    driver.done(json!({ "ok": true }));
    assert_eq!(driver.code(), "invalid");
    assert_eq!(status_of(&driver, "fan"), "failed");
}

#[test]
fn collect_leaves_the_other_branches_alone() {
    let mut driver = started("    on_error: collect", KEYED);
    driver.fail(refused());
    driver.done(json!({ "ok": true }));
    assert_eq!(driver.last.status, Status::Succeeded);
    let error = json!({ "code": "invalid", "message": "the call ended in invalid", "step": "fan.crm.deal" });
    let expected = json!({ "fan": {
        "crm": { "status": "failed", "output": null, "error": error },
        "chat": { "status": "succeeded", "output": { "ok": true }, "error": null },
    } });
    assert_eq!(driver.last_set(), expected);
    assert_eq!(status_of(&driver, "fan"), "succeeded");
}

#[test]
fn any_takes_the_first_success_and_leaves_the_rest() {
    let mut driver = started("    join: any", KEYED);
    driver.done(json!({ "id": 7 }));
    assert_eq!(
        driver.last.status,
        Status::Running,
        "the first branch sleeps, the second calls"
    );
    driver.done(json!({ "ok": true }));
    assert_eq!(driver.last.status, Status::Succeeded);
    assert_eq!(
        driver.last_set(),
        json!({ "fan": { "branch": "chat", "output": { "ok": true } } })
    );
    assert_eq!(driver.last.due, None, "the sleep was left");

    // One failure is no matter, two are.
    let mut driver = started("    join: any", KEYED);
    driver.fail(refused());
    driver.done(json!({ "ok": true }));
    assert_eq!(driver.last.status, Status::Succeeded);
    let mut driver = started("    join: any", KEYED);
    driver.fail(refused());
    driver.fail(failure("auth", Some(401), Sent::Never, false));
    let Status::Failed { code, message, step } = driver.last.status.clone() else {
        panic!("{:?}", driver.last.status)
    };
    assert_eq!((code.as_str(), step.as_deref()), ("all_branches_failed", Some("fan")));
    assert!(message.contains("`crm`: ") && message.contains("`chat`: "), "{message}");
}

#[test]
fn first_takes_whatever_comes_first_but_waits_for_what_may_have_taken_place() {
    let mut driver = started("    join: first", KEYED);
    driver.fail(refused());
    assert_eq!(driver.last.status, Status::Running);
    driver.done(json!({ "ok": true }));
    assert_eq!(driver.code(), "invalid");

    let mut driver = started("    join: first", KEYED);
    let chat = driver.commands.remove(1);
    driver.answer(chat.call(), &crate::support::done(json!({ "ok": true })));
    assert_eq!(driver.last.status, Status::Running, "the deal may have been made");
    driver.fail(failure("timeout", None, Sent::Maybe, true));
    driver.due();
    driver.done(json!({ "id": 7 }));
    assert_eq!(driver.last.status, Status::Succeeded);
    assert_eq!(
        driver.last_set(),
        json!({ "fan": { "branch": "chat", "output": { "ok": true } } })
    );
    assert_eq!(status_of(&driver, "fan.crm.deal"), "succeeded");
}

#[test]
fn an_unknown_effect_ends_the_run_in_every_kind_of_branch() {
    for options in ["", "    on_error: collect", "    join: any", "    join: first"] {
        let mut driver = started(options, EffectClass::Blind);
        driver.fail(failure("timeout", None, Sent::Maybe, true));
        driver.done(json!({}));
        assert_eq!(driver.code(), "effect_unknown", "{options}");
    }
}

#[test]
fn items_that_fail_leave_the_others_alone() {
    let steps = r#"
  - id: each
    for_each: "{{ event.data.lines }}"
    key: "{{ item.sku }}"
    concurrency: 2
    on_error: collect
    do:
      - { id: check, set: { twice: "{{ item.n * 2 }}" } }
      - { id: push, call: http.request, connection: crm, with: { method: POST, sku: "{{ item.sku }}" } }
  - { id: end, set: { each: "{{ steps.each }}", failed: "{{ steps.each | rejectattr('error', 'none') | list | length }}" } }
"#;
    let lines =
        json!([{ "sku": "a", "n": 1 }, { "sku": "b", "n": "x" }, { "sku": "c", "n": 3 }, { "sku": "d", "n": 4 }]);
    let mut driver = Driver::new(plan(steps), KEYED, json!({ "lines": lines }));
    driver.start();
    // `b` failed at once, so `a` and `c` are under way.
    driver.fail(failure("connect", None, Sent::Never, true));
    driver.fail(refused());
    driver.crash();
    driver.done(json!({ "id": "d" }));
    driver.now = driver.now.plus(seconds(5));
    driver.due();
    driver.done(json!({ "id": "a" }));
    assert_eq!(driver.last.status, Status::Succeeded);
    let end = driver.last_set();
    let statuses: Vec<&str> = end["each"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["succeeded", "failed", "failed", "succeeded"]);
    assert_eq!(end["each"][0]["output"], json!({ "id": "a" }));
    assert_eq!(end["each"][1]["error"]["code"], "expression_failed");
    assert_eq!(end["each"][2]["error"]["step"], "each[c].push");
    assert_eq!(status_of(&driver, "each"), "succeeded");
}

#[test]
fn a_try_around_branches_settles_them_all() {
    let steps = r#"
  - id: guard
    try:
      - id: fan
        parallel:
          a:
            - id: each
              for_each: "{{ event.data.lines }}"
              concurrency: 2
              do: [{ id: pay, call: http.request, connection: crm, with: { method: POST, line: "{{ item }}" } }]
          b: [{ id: pause, sleep: 1d }]
          c: [{ id: fails, set: { x: "{{ event.data.missing }}" } }]
    catch: [{ id: caught, set: { step: "{{ error.step }}" } }]
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({ "lines": ["x", "y"] }));
    driver.start();
    // All of it was decided at once, so nothing has left.
    assert_eq!((&driver.last.status, driver.commands.len()), (&Status::Succeeded, 0));
    assert_eq!(driver.last_set(), json!({ "step": "guard.try.fan.c.fails" }));
}

#[test]
fn what_is_wrong_with_branches_is_said_with_its_place() {
    let a = "a: [{ id: x, set: { v: 1 } }]";
    let cases = [
        (
            "{ id: p, parallel: {} }".to_owned(),
            "/steps/0/parallel: a `parallel` has 1 to 32",
        ),
        (
            "{ id: p, parallel: [] }".to_owned(),
            "/steps/0/parallel: an object of names",
        ),
        (
            "{ id: p, parallel: { A-b: [{ id: x, set: { v: 1 } }] } }".to_owned(),
            "/steps/0/parallel/A-b: \"A-b\" cannot be the name",
        ),
        (
            format!("{{ id: p, parallel: {{ {a} }}, join: any, on_error: collect }}"),
            "/steps/0/on_error: `collect` waits for all",
        ),
        (
            format!("{{ id: p, parallel: {{ {a}, b: [{{ id: z, set: {{ v: '{{{{ steps.x.v }}}}' }} }}] }} }}"),
            "`x` has not run when this is evaluated",
        ),
        (
            format!("{{ id: p, parallel: {{ {a} }}, join: any }}, {{ id: z, set: {{ v: '{{{{ steps.x.v }}}}' }} }}"),
            "`x` may not have run",
        ),
    ];
    refused_with(&cases.map(|(step, expected)| (format!("steps: [{step}]"), expected)));
    plan(&format!(
        "  - {{ id: p, parallel: {{ {a} }} }}\n  - {{ id: z, set: {{ v: \"{{{{ steps.x.v }}}}\" }} }}"
    ));
}
