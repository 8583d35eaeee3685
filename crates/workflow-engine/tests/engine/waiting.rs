//! Steps that wait for something from outside, and what people ask of a run.

use serde_json::{Value, json};
use weir_workflow_engine::{
    Correlation, Correlator, Definition, Document, Entry, Event, EventId, Input, Ledger, Mail, Past, Plan, Rehearsal,
    Sent, Status, story,
};

use crate::support::{Driver, KEYED, START, event, failure, head, plan, refused_with, seconds, yaml};

const PAID: &str = r#"
  - id: paid
    wait_for:
      event: stripe.charge.refunded
      key: "{{ arrived.data.order }}"
      equals: "{{ event.data.id }}"
      where: "{{ arrived.data.amount >= event.data.total }}"
    timeout: 7d
    on_timeout: [{ id: late, set: { why: "{{ error.code }}" } }]
  - { id: tell, call: http.request, connection: crm, with: { method: POST, amount: "{{ steps.paid.data.amount | default(0) }}" } }
"#;

fn refund(uid: i64, data: Value) -> Event {
    Event {
        uid: EventId::from_raw(uid),
        kind: "charge.refunded".to_owned(),
        ..event(data)
    }
}

fn arrives(driver: &mut Driver, event: &Event) {
    driver.input(Input::Mail(Mail::Event(event)));
}

#[test]
fn an_event_is_taken_when_key_and_condition_fit() {
    let mut driver = Driver::new(plan(PAID), KEYED, json!({ "id": 7, "total": 50 }));
    driver.start();
    assert_eq!(driver.last.status, Status::Waiting);
    assert_eq!(driver.last.due, Some(START.plus(seconds(7 * 86_400))));
    let open: Vec<String> = driver.run.open_waits().map(|wait| wait.step.to_string()).collect();
    assert_eq!(open, ["paid"]);
    // Another order, another type, too little, and one without what is compared.
    arrives(&mut driver, &refund(101, json!({ "order": 8, "amount": 90 })));
    arrives(&mut driver, &event(json!({ "order": 7, "amount": 90 })));
    arrives(&mut driver, &refund(102, json!({ "order": 7, "amount": 49 })));
    arrives(&mut driver, &refund(103, json!({ "order": 7 })));
    assert_eq!(driver.last.status, Status::Waiting);
    let told = story(Some(&driver.plan), &driver.rows, None);
    assert_eq!((told[0].kind, told[0].status), ("wait_for", "waiting"));
    assert_eq!(told[0].label, "stripe.charge.refunded for \"7\"");
    driver.crash();
    assert_eq!(driver.last.status, Status::Waiting);
    arrives(&mut driver, &refund(104, json!({ "order": "7", "amount": 50 })));
    assert_eq!(driver.run.open_waits().count(), 0);
    let command = driver.done(json!({}));
    let weir_workflow_engine::Command::Call(call) = command else {
        panic!()
    };
    assert_eq!(call.args.value()["amount"], json!(50));
    assert_eq!(driver.last.status, Status::Succeeded);
}

#[test]
fn one_event_serves_one_step_and_steps_take_them_in_turn() {
    let steps = r#"
  - { id: first, wait_for: { event: stripe.charge.refunded, key: "{{ arrived.data.order }}", equals: "{{ event.data.id }}" } }
  - { id: second, wait_for: { event: stripe.charge.refunded, key: "{{ arrived.data.order }}", equals: "{{ event.data.id }}" } }
  - { id: sum, set: { n: "{{ steps.first.data.n + steps.second.data.n }}" } }
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({ "id": 7 }));
    driver.start();
    let one = refund(101, json!({ "order": 7, "n": 1 }));
    arrives(&mut driver, &one);
    arrives(&mut driver, &one);
    assert_eq!(
        driver.last.status,
        Status::Waiting,
        "the second step looks back and finds the same"
    );
    driver.crash();
    arrives(&mut driver, &one);
    assert_eq!(driver.last.status, Status::Waiting);
    arrives(&mut driver, &refund(102, json!({ "order": 7, "n": 2 })));
    assert_eq!(driver.last.status, Status::Succeeded);
    assert_eq!(driver.last_set(), json!({ "n": 3 }));
}

#[test]
fn who_waits_in_vain_takes_the_branch_for_that_or_fails() {
    let mut driver = Driver::new(plan(PAID), KEYED, json!({ "id": 7, "total": 50 }));
    driver.start();
    driver.due();
    assert_eq!(driver.last_set(), json!({ "why": "wait_timeout" }));
    arrives(&mut driver, &refund(101, json!({ "order": 7, "amount": 90 })));
    driver.done(json!({}));
    assert_eq!(driver.last.status, Status::Succeeded);

    let bare = PAID.split("    on_timeout").next().unwrap();
    let mut driver = Driver::new(plan(bare), KEYED, json!({ "id": 7, "total": 50 }));
    driver.start();
    driver.due();
    let Status::Failed { code, message, step } = &driver.last.status else {
        panic!()
    };
    assert_eq!((code.as_str(), step.as_deref()), ("wait_timeout", Some("paid")));
    assert_eq!(message, "no `stripe.charge.refunded` for \"7\" came within 7d");
    // A key that nothing could be found by.
    let mut driver = Driver::new(plan(bare), KEYED, json!({ "id": null, "total": 50 }));
    driver.start();
    assert_eq!(driver.code(), "bad_key");
}

#[test]
fn a_branch_that_is_left_waits_no_longer() {
    let steps = r#"
  - id: race
    parallel:
      event: [{ id: came, wait_for: { event: stripe.charge.refunded, key: "{{ arrived.data.order }}", equals: "7" }, timeout: 5d }]
      clock: [{ id: nap, sleep: 1h }]
    join: first
  - { id: who, set: { won: "{{ steps.race.branch }}" } }
"#;
    let steps = &steps.replace("equals: \"7\"", "equals: \"{{ 7 }}\"");
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    driver.due();
    assert_eq!(driver.last_set(), json!({ "won": "clock" }));
    assert_eq!(driver.run.open_waits().count(), 0);
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    arrives(&mut driver, &refund(101, json!({ "order": 7 })));
    assert_eq!(driver.last_set(), json!({ "won": "event" }));
    assert_eq!(driver.last.status, Status::Succeeded);
}

const ASK: &str = r#"
  - id: ok
    approve: { title: "Refund {{ event.data.total }}?", detail: { order: "{{ event.data.id }}" }, by: [finance] }
    timeout: 2d
  - { id: pay, call: http.request, connection: crm, with: { method: POST, by: "{{ steps.ok.by }}" } }
"#;

fn decides(driver: &mut Driver, step: &str, approved: bool, note: &str) {
    driver.input(Input::Mail(Mail::Decision {
        step,
        approved,
        by: "finance",
        note,
    }));
}

#[test]
fn a_person_decides_once() {
    let mut driver = Driver::new(plan(ASK), KEYED, json!({ "id": 7, "total": 50 }));
    driver.start();
    let told = story(Some(&driver.plan), &driver.rows, None);
    assert_eq!((told[0].kind, told[0].label.as_str()), ("approve", "Refund 50?"));
    decides(&mut driver, "pay", true, "");
    assert_eq!(driver.last.status, Status::Waiting, "that step does not ask");
    decides(&mut driver, "ok", true, "fine");
    decides(&mut driver, "ok", false, "or not");
    driver.done(json!({}));
    assert_eq!(driver.last.status, Status::Succeeded);

    let mut driver = Driver::new(plan(ASK), KEYED, json!({ "id": 7, "total": 50 }));
    driver.start();
    decides(&mut driver, "ok", false, "too much");
    let Status::Failed { code, message, .. } = &driver.last.status else {
        panic!()
    };
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("rejected", "finance decided against it: too much")
    );
    assert_eq!(driver.commands, []);

    let mut driver = Driver::new(plan(ASK), KEYED, json!({ "id": 7, "total": 50 }));
    driver.start();
    driver.due();
    assert_eq!(driver.code(), "wait_timeout");
}

#[test]
fn each_way_out_of_a_question_has_its_steps() {
    let steps = r#"
  - id: ok
    approve: Shall we?
    on_reject: [{ id: nope, set: { what: "{{ error.code }}" } }]
    on_timeout: [{ id: late, set: { what: "{{ error.message }}" } }]
    on_error: [{ id: other, set: { what: "other" } }]
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    driver.crash();
    decides(&mut driver, "ok", false, "");
    assert_eq!(driver.last_set(), json!({ "what": "rejected" }));
    assert_eq!(driver.last.status, Status::Succeeded);
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    driver.due();
    assert_eq!(driver.last_set(), json!({ "what": "nobody decided within 30d" }));
}

#[test]
fn a_run_that_stands_still_begins_nothing_and_loses_nothing() {
    let steps = r#"
  - { id: one, call: http.request, connection: crm, with: { method: POST, n: 1 } }
  - { id: nap, sleep: 1h }
  - { id: two, call: http.request, connection: crm, with: { method: POST, n: 2 } }
"#;
    let text = format!(
        "name: bench\ntimeout: 2h\non: {{ event: stripe.payment_intent.succeeded, hydrate: never }}\nsteps:\n{steps}"
    );
    let limited = crate::support::plan_in(&crate::support::Shop::default(), &text).unwrap();
    let mut driver = Driver::new(limited, KEYED, json!({}));
    driver.start();
    let pause = Mail::Pause {
        by: "me",
        reason: "the CRM is being moved",
    };
    driver.input(Input::Mail(pause));
    assert_eq!(driver.last.status, Status::Running, "a call is on its way");
    driver.done(json!({}));
    assert_eq!((&driver.last.status, driver.last.due), (&Status::Paused, None));
    driver.input(Input::Mail(pause));
    assert_eq!(driver.last.entries, []);
    driver.now = START.plus(seconds(30 * 86_400));
    driver.input(Input::Due);
    assert_eq!(
        driver.last.status,
        Status::Paused,
        "its time limit stands still with it"
    );
    driver.crash();
    assert_eq!(driver.last.status, Status::Paused);
    driver.input(Input::Mail(Mail::Resume { by: "me" }));
    assert_eq!(driver.last.due, Some(driver.now.plus(seconds(3600))));
    driver.due();
    driver.done(json!({}));
    assert_eq!(driver.last.status, Status::Succeeded);
    let resumed = driver
        .entries()
        .iter()
        .filter(|entry| matches!(entry, Entry::Resumed(_)))
        .count();
    assert_eq!(resumed, 1);

    // A run that stands still can be ended.
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    driver.done(json!({}));
    driver.input(Input::Mail(pause));
    driver.input(Input::Mail(Mail::Cancel { by: "me", reason: "" }));
    assert_eq!(driver.last.status, Status::Canceled);
}

#[test]
fn what_arrives_is_found_by_what_reads_alike() {
    assert_eq!(
        plan(PAID).correlations(),
        [Correlation {
            connector: "stripe".to_owned(),
            kind: "charge.refunded".to_owned(),
            key: "{{ arrived.data.order }}".to_owned(),
        }]
    );
    let correlator = Correlator::parse("{{ arrived.data.order }}").unwrap();
    let value = |data: Value| correlator.value(&refund(1, data));
    assert_eq!(value(json!({ "order": 7 })), Some("7".to_owned()));
    assert_eq!(value(json!({ "order": "7" })), Some("7".to_owned()));
    for none in [json!({}), json!({ "order": null }), json!({ "order": [7] })] {
        assert_eq!(value(none.clone()), None, "{none}");
    }
}

#[test]
fn a_replay_is_shown_what_arrived_and_stops_at_a_question() {
    let both = format!(
        "{}  - {{ id: ok, approve: Really? }}\n  - {{ id: after, call: http.request, connection: crm, with: {{ method: PUT }} }}\n",
        PAID
    );
    let mut driver = Driver::new(plan(&both), KEYED, json!({ "id": 7, "total": 50 }));
    driver.start();
    arrives(&mut driver, &refund(104, json!({ "order": "7", "amount": 50 })));
    driver.done(json!({}));
    let (ledger, head, entries) = (Ledger::default(), head(2), driver.entries());
    let past = Past {
        recorded: &entries,
        kept: &[],
        replaced: None,
    };
    let place = (&driver.plan, &head, &driver.event);
    let mut rehearsal = Rehearsal::begin(place, &ledger, past, &driver.world, START);
    assert_eq!(rehearsal.waits().len(), 1);
    let refund = refund(104, json!({ "order": "7", "amount": 50 }));
    rehearsal.hear(Mail::Event(&refund), &driver.world);
    assert_eq!(rehearsal.waits().len(), 0, "nobody can look what a person will say");
    let shown = rehearsal.finish();
    let steps: Vec<&str> = shown.new.iter().map(|effect| effect.step.as_str()).collect();
    assert_eq!(steps, ["tell"]);
    assert_eq!(
        shown.note.as_deref(),
        Some("the run would wait at `ok` before it goes on")
    );
}

#[test]
fn what_a_wait_needs_is_said() {
    let step = |body: &str| format!("steps:\n  - {{ id: w, wait_for: {{ {body} }} }}");
    refused_with(&[
        (
            step("event: stripe.charge.refunded"),
            "/steps/0/wait_for: `key` is missing",
        ),
        (
            step("event: stripe.charge.refund, key: \"{{ arrived.id }}\", equals: \"{{ event.id }}\""),
            "/steps/0/wait_for/event: the connector `stripe` has no event type `charge.refund` (did you mean `charge.refunded`?)",
        ),
        (
            step("event: stripe.charge.refunded, key: \"{{ event.id }}\", equals: \"{{ event.id }}\""),
            "it sees `arrived`, not `event` (what it has to be for this run stands in `equals`)",
        ),
        (
            step("event: stripe.charge.refunded, key: \"{{ arrived.dta.id }}\", equals: \"{{ event.id }}\""),
            "`arrived` has no `dta`",
        ),
        (
            step("event: stripe.charge.refunded, key: \"{{ arrived.id }}\", equals: \"{{ arrived.id }}\""),
            "/steps/0/wait_for/equals: `arrived` exists only in `key` and `where` of a `wait_for`",
        ),
        (
            step(
                "event: stripe.charge.refunded, connection: crm, key: \"{{ arrived.id }}\", equals: \"{{ event.id }}\"",
            ),
            "/steps/0/wait_for/connection: the connection `crm` is of `http`, not of `stripe`",
        ),
        (
            "steps:\n  - { id: w, approve: { titles: x } }".to_owned(),
            "/steps/0/approve/titles: `titles` is not supported here; supported: title, detail, by (did you mean `title`?)",
        ),
        (
            "steps:\n  - { id: w, approve: x, timeout: 400d }".to_owned(),
            "/steps/0/timeout: `timeout` must be more than nothing and at most 366d",
        ),
        (
            "steps:\n  - { id: w, approve: { title: x, by: [] } }".to_owned(),
            "/steps/0/approve/by: `by` is a list of 1 to 100 names",
        ),
    ]);
    let output = Document::from_value(json!(null));
    let ending = weir_workflow_engine::Ending::Succeeded;
    let mut driver = Driver::new(plan(ASK), KEYED, json!({ "id": 7, "total": 50 }));
    driver.start();
    let stray = Mail::RunEnded {
        root: weir_workflow_engine::RunId::from_raw(9),
        run: weir_workflow_engine::RunId::from_raw(9),
        ending: &ending,
        output: &output,
    };
    driver.input(Input::Mail(stray));
    assert_eq!(driver.last.entries, [], "nobody waits for it");
}

#[test]
fn a_next_try_is_made_now_and_a_sleep_goes_on() {
    let steps = r#"
  - id: both
    parallel:
      call: [{ id: post, call: http.request, connection: crm, with: { method: POST, n: 1 } }]
      nap: [{ id: nap, sleep: 1h }]
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    let began = driver.now;
    driver.fail(failure("http_503", Some(503), Sent::Never, true));
    let planned = driver.last.due.unwrap();
    assert!(planned > began, "{planned}");
    let hurry = Mail::Hurry { by: "me" };
    driver.input(Input::Mail(hurry));
    let hurried = |driver: &Driver| {
        let entries = driver.entries();
        entries
            .iter()
            .filter(|entry| matches!(entry, Entry::Hurried(_)))
            .count()
    };
    assert_eq!(hurried(&driver), 1);
    assert_eq!(driver.last.commands.len(), 1, "it is sent again at once");
    // Nothing waits for a try any more, and the sleep is left alone.
    driver.input(Input::Mail(hurry));
    assert_eq!(hurried(&driver), 1);
    driver.done(json!({}));
    assert_eq!(
        (&driver.last.status, driver.last.due),
        (&Status::Waiting, Some(began.plus(seconds(3600))))
    );
    driver.input(Input::Mail(hurry));
    assert_eq!(
        (driver.last.entries.len(), driver.last.due),
        (0, Some(began.plus(seconds(3600))))
    );
}

#[test]
fn a_question_has_words() {
    let asks = "(say what is to be decided: `Refund {{ event.data.id }}?`)";
    for (approve, place) in [
        ("''", "/steps/0/approve"),
        ("' '", "/steps/0/approve"),
        ("{ title: '' }", "/steps/0/approve/title"),
    ] {
        let steps = format!("steps:\n  - {{ id: ok, approve: {approve} }}\n");
        let told = format!("{place}: nothing is asked: the question is empty {asks}");
        refused_with(&[(steps.clone(), told.as_str())]);
        // What was published before is read as it was.
        let head = "name: w\non: { event: stripe.payment_intent.succeeded, hydrate: never }\n";
        let definition = Definition::parse(&yaml(&format!("{head}{steps}"))).unwrap();
        let stored = json!({ "connector": "stripe", "event_type": "payment_intent.succeeded", "connection": null,
            "hydrate": "never", "reads": [], "calls": {} });
        Plan::compile(&definition, &serde_json::from_value(stored).unwrap()).unwrap();
    }
}
