//! Undoing what was done, newest first.

use serde_json::{Value, json};
use weir_workflow_engine::{Command, EffectKey, Input, Ledger, Mail, RunId, Sent, Status, story};

use crate::support::{Driver, KEYED, Shop, event, failure, head, plan, plan_in, refused_with, seconds};

const SAGA: &str = r#"
name: bench
on: { event: stripe.payment_intent.succeeded, hydrate: never }
steps:
  - id: book
    try:
      - { id: hotel, call: http.request, connection: crm, with: { method: POST, what: hotel }, undo: [{ id: no_hotel, call: http.request, connection: crm, with: { method: DELETE, booking: "{{ steps.hotel.booking }}" } }] }
      - id: each
        for_each: "{{ event.data.seats }}"
        key: "{{ item }}"
        do:
          - { id: seat, call: http.request, connection: crm, with: { method: POST, seat: "{{ item }}" }, undo: [{ id: no_seat, call: http.request, connection: crm, with: { method: DELETE, seat: "{{ item }}" } }, { id: rest, sleep: 1s }] }
      - { id: car, call: http.request, connection: crm, with: { method: POST, what: car }, undo: [{ id: no_car, call: http.request, connection: crm, with: { method: DELETE, what: car } }] }
    catch:
      - { id: undo, compensate: all }
      - { id: told, set: { undone: "{{ steps.undo.undone }}", why: "{{ error.code }}" } }
"#;

/// The hotel and the first of two seats are booked.
fn half_booked() -> Driver {
    let mut driver = Driver::new(
        plan_in(&Shop::default(), SAGA).unwrap(),
        KEYED,
        json!({ "seats": ["a", "b"] }),
    );
    driver.start();
    driver.done(json!({ "booking": 7 }));
    driver.done(json!({}));
    driver
}

fn booked() -> Driver {
    let mut driver = half_booked();
    driver.done(json!({}));
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    driver
}

fn asked(command: &Command) -> (String, Value) {
    let Command::Call(call) = command else { panic!() };
    (call.step.clone(), call.args.value().clone())
}

#[test]
fn what_was_done_is_undone_newest_first_and_nothing_else() {
    let mut driver = booked();
    let mut undone = Vec::new();
    while driver.last.status != Status::Succeeded {
        if driver.commands.is_empty() {
            driver.due();
            continue;
        }
        // The process is lost before each of them: none is begun twice under another key.
        driver.crash();
        undone.push(asked(&driver.done(json!({}))));
    }
    assert_eq!(
        undone,
        [
            (
                "book.try.each[b].seat.undo.no_seat".to_owned(),
                json!({ "method": "DELETE", "seat": "b" })
            ),
            (
                "book.try.each[a].seat.undo.no_seat".to_owned(),
                json!({ "method": "DELETE", "seat": "a" })
            ),
            (
                "book.try.hotel.undo.no_hotel".to_owned(),
                json!({ "method": "DELETE", "booking": 7 })
            ),
        ]
    );
    let paths = ["book.try.each[b].seat", "book.try.each[a].seat", "book.try.hotel"];
    assert_eq!(driver.last_set(), json!({ "undone": paths, "why": "invalid" }));
    let told = story(Some(&driver.plan), &driver.rows, None);
    let step = told.iter().find(|step| step.path == "book.catch.undo").unwrap();
    assert_eq!((step.kind, step.status), ("compensate", "succeeded"));
    // What is undone does not stand: a replay does it again, each under a key of its own.
    let entries = driver.entries();
    let ledger = Ledger::fold([(RunId::from_raw(1), entries.as_slice())]);
    let first: Vec<EffectKey> = ledger.iter().map(|(key, _)| *key).collect();
    let states: Vec<&str> = ledger.iter().map(|(_, record)| record.state.as_str()).collect();
    assert_eq!(
        states.iter().filter(|state| **state == "undone").count(),
        6,
        "{states:?}"
    );
    let data = event(json!({ "seats": ["a", "b"] }));
    let mut again = Driver::with(plan_in(&Shop::default(), SAGA).unwrap(), KEYED, data, head(2), ledger);
    again.start();
    let mut sent = Vec::new();
    for booking in [json!({ "booking": 8 }), json!({}), json!({})] {
        sent.push(key_of(&again.done(booking)));
    }
    again.fail(failure("invalid", Some(400), Sent::Never, false));
    // This time the second seat cannot be given back.
    sent.push(key_of(&again.fail(failure("invalid", Some(400), Sent::Never, false))));
    sent.push(key_of(&again.done(json!({}))));
    again.due();
    let undone = again.done(json!({}));
    assert_eq!(asked(&undone).1["booking"], 8);
    sent.push(key_of(&undone));
    assert!(sent.iter().all(|key| !first.contains(key)), "{sent:?}");

    // What could not be undone still stands, and a third run is answered for it.
    let second = again.entries();
    let both = [
        (RunId::from_raw(1), entries.as_slice()),
        (RunId::from_raw(2), second.as_slice()),
    ];
    let data = event(json!({ "seats": ["a", "b"] }));
    let ledger = Ledger::fold(both);
    let mut third = Driver::with(plan_in(&Shop::default(), SAGA).unwrap(), KEYED, data, head(3), ledger);
    third.start();
    let mut steps = Vec::new();
    while let Some(command) = third.commands.first().cloned() {
        steps.push(asked(&command).0);
        third.done(json!({ "booking": 9 }));
    }
    assert_eq!(steps, ["book.try.hotel", "book.try.each[a].seat", "book.try.car"]);
    assert_eq!(third.last.status, Status::Succeeded);
}

fn key_of(command: &Command) -> EffectKey {
    let Command::Call(call) = command else { panic!() };
    call.effect.as_ref().unwrap().key
}

#[test]
fn what_cannot_be_undone_does_not_keep_the_others() {
    let mut driver = booked();
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    let second = asked(&driver.done(json!({})));
    assert_eq!(second.1["seat"], "a");
    driver.due();
    let third = asked(&driver.done(json!({})));
    assert_eq!(third.1["booking"], 7);
    let Status::Failed { code, message, step } = &driver.last.status else {
        panic!("{:?}", driver.last.status)
    };
    assert_eq!(
        (code.as_str(), step.as_deref()),
        ("compensation_failed", Some("book.catch.undo"))
    );
    assert!(
        message.starts_with("1 of 3 could not be undone: `book.try.each["),
        "{message}"
    );
}

#[test]
fn a_failed_run_undoes_all_and_a_pause_in_it_is_kept() {
    let steps = r#"
name: bench
on: { event: stripe.payment_intent.succeeded, hydrate: never }
on_failure:
  - { id: undo, compensate: all }
steps:
  - { id: one, call: http.request, connection: crm, with: { method: POST, n: 1 }, undo: [{ id: wait, sleep: 1h }, { id: un_one, call: http.request, connection: crm, with: { method: DELETE, n: 1 } }] }
  - { id: skipped, when: "{{ false }}", call: http.request, connection: crm, with: { method: POST, n: 0 }, undo: [{ id: never, set: { a: 1 } }] }
  - { id: two, call: http.request, connection: crm, with: { method: POST, n: 2 } }
"#;
    let mut driver = Driver::new(plan_in(&Shop::default(), steps).unwrap(), KEYED, json!({}));
    driver.start();
    driver.done(json!({}));
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    assert_eq!(driver.last.due, Some(driver.now.plus(seconds(3600))));
    driver.crash();
    driver.due();
    assert_eq!(asked(&driver.done(json!({}))).0, "one.undo.un_one");
    assert_eq!(driver.code(), "invalid", "the run ends as it failed");

    // Nothing was done, so nothing is undone; and a canceled run undoes nothing by itself.
    let mut driver = Driver::new(plan_in(&Shop::default(), steps).unwrap(), KEYED, json!({}));
    driver.start();
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    assert_eq!((driver.code().as_str(), driver.commands.len()), ("invalid", 0));
    let mut driver = Driver::new(plan_in(&Shop::default(), steps).unwrap(), KEYED, json!({}));
    driver.start();
    driver.done(json!({}));
    driver.input(Input::Mail(Mail::Cancel { by: "me", reason: "" }));
    driver.done(json!({}));
    assert_eq!(driver.last.status, Status::Canceled);
}

#[test]
fn undoing_has_its_place() {
    refused_with(&[
        (
            "steps:\n  - { id: p, parallel: { a: [{ id: c, compensate: all }] } }".to_owned(),
            "/steps/0/parallel/a/0/compensate: a `compensate` undoes one step after the other and cannot stand in a `parallel`",
        ),
        (
            "steps:\n  - { id: r, run: invoice, undo: [{ id: c, compensate: all }] }".to_owned(),
            "cannot stand in `undo`",
        ),
        (
            "steps:\n  - { id: c, compensate: some }".to_owned(),
            "/steps/0/compensate: \"some\" is none of: all",
        ),
        (
            "steps:\n  - { id: s, set: { a: 1 }, undo: [] }".to_owned(),
            "/steps/0/undo: `undo` is not supported here",
        ),
    ]);
    let undo = "  - { id: r, run: invoice, undo: [{ id: u, set: { of: \"{{ steps.r.run }}\" } }] }\n  - { id: c, compensate: all }\n";
    assert_eq!(plan(undo).call_sites().len(), 0);
}

#[test]
fn a_compensate_needs_something_to_undo() {
    let nothing = "/on_failure/0/compensate: there is nothing to undo: no step of this workflow has `undo` (give each step that it is to undo its `undo: [ … ]`, the steps that do so)";
    refused_with(&[
        (
            "steps:\n  - { id: r, run: invoice }\non_failure: [{ id: c, compensate: all }]".to_owned(),
            nothing,
        ),
        (
            "steps:\n  - { id: t, try: [{ id: r, run: invoice }], catch: [{ id: i, if: \"{{ true }}\", then: [{ id: c, compensate: all }] }] }".to_owned(),
            "/steps/0/catch/0/then/0/compensate: there is nothing to undo",
        ),
    ]);
    // Wherever the step stands that can be undone.
    plan(
        "  - { id: i, if: \"{{ true }}\", then: [{ id: e, for_each: \"{{ event.data.ls }}\", do: [{ id: r, run: invoice, undo: [{ id: u, set: { a: 1 } }] }] }] }\n  - { id: c, compensate: all }\n",
    );
}

/// What may have taken place has no output to undo it with: it is named, and nobody believes that all was undone.
#[test]
fn what_may_have_been_done_is_not_passed_over_in_silence() {
    let mut driver = half_booked();
    // The second seat: nobody knows, and it is not tried again.
    driver.fail(failure("timeout", None, Sent::Maybe, false));
    driver.crash();
    assert_eq!(asked(&driver.done(json!({}))).1["seat"], "a");
    driver.due();
    assert_eq!(asked(&driver.done(json!({}))).1["booking"], 7);
    let Status::Failed { code, message, .. } = &driver.last.status else {
        panic!("{:?}", driver.last.status)
    };
    assert_eq!(
        (code.as_str(), message.as_str()),
        (
            "compensation_failed",
            "1 of 3 could not be undone: `book.try.each[b].seat`: nobody knows whether it took place"
        )
    );
    // It is open, so a person can say what became of it.
    let ledger = Ledger::fold([(RunId::from_raw(1), driver.entries().as_slice())]);
    let open: Vec<&str> = ledger
        .iter()
        .filter(|(_, record)| record.is_open())
        .map(|(_, record)| &*record.step)
        .collect();
    assert_eq!(open, ["book.try.each[b].seat"]);
}
