//! Runs that were started and are left before their end: they are asked to end, and nobody takes what they did for undone.

use serde_json::json;
use weir_workflow_engine::{Awaits, CallId, Command, Document, Ending, Entry, Input, Mail, RunId, Sent, Status, story};

use crate::support::{Driver, KEYED, Shop, done, failed, failure, plan_in, seconds};

const ORDER: &str = r#"
name: bench
on: { event: stripe.payment_intent.succeeded, hydrate: never }
steps:
  - id: order
    try:
      - id: both
        parallel:
          a: [ { id: bill, run: invoice, with: { order: 7 }, timeout: 1h, undo: [ { id: credit, run: invoice, with: { order: -7 } } ] } ]
          b: [ { id: pay, call: http.request, connection: crm, with: { method: POST, what: pay } } ]
    catch:
      - { id: back, compensate: all }
"#;
const BILL: &str = "order.try.both.a.bill";

fn child() -> RunId {
    RunId::from_raw(4_711)
}

/// Both calls are on their way.
fn begun() -> (Driver, CallId, CallId) {
    let mut driver = Driver::new(plan_in(&Shop::default(), ORDER).unwrap(), KEYED, json!({}));
    driver.start();
    let (bill, pay) = (call_of(&driver, BILL), call_of(&driver, "order.try.both.b.pay"));
    (driver, bill, pay)
}

fn call_of(driver: &Driver, path: &str) -> CallId {
    let found = driver.commands.iter().find_map(|command| match command {
        Command::Call(call) if call.step == path => Some(call.call),
        _ => None,
    });
    found.expect("a call of this step")
}

/// The payment is made, and the end of the run is waited for.
fn only_the_run_is_open() -> Driver {
    let (mut driver, bill, pay) = begun();
    start_is_known(&mut driver, bill);
    driver.answer(pay, &done(json!({})));
    driver
}

fn start_is_known(driver: &mut Driver, bill: CallId) {
    driver.answer(bill, &done(json!({ "run": child().to_string() })));
}

fn payment_fails(driver: &mut Driver, pay: CallId) {
    driver.answer(pay, &failed(failure("invalid", Some(400), Sent::Maybe, false)));
}

fn ended(driver: &mut Driver, ending: &Ending) {
    let output = Document::null();
    driver.input(Input::Mail(Mail::RunEnded {
        root: child(),
        run: child(),
        ending,
        output: &output,
    }));
}

fn says_that_it_stands(driver: &Driver) {
    let Status::Failed { code, message, .. } = &driver.last.status else {
        panic!("{:?}", driver.last.status)
    };
    let expected = format!(
        "1 of 1 could not be undone: `{BILL}`: {} was left or canceled before its end, and what it did stands",
        child()
    );
    assert_eq!((code.as_str(), message), ("compensation_failed", &expected));
}

#[test]
fn what_a_run_did_that_was_left_is_not_taken_for_undone() {
    let (mut driver, bill, pay) = begun();
    start_is_known(&mut driver, bill);
    payment_fails(&mut driver, pay);
    says_that_it_stands(&driver);
    let told = story(Some(&driver.plan), &driver.rows, None);
    let step = told.iter().find(|step| step.path == BILL).unwrap();
    assert_eq!((step.status, step.note.as_deref()), ("canceled", None));
    assert_eq!(step.label, format!("invoice {}", child()));
}

#[test]
fn a_run_whose_start_was_under_way_when_it_was_left_is_known() {
    let (mut driver, bill, pay) = begun();
    payment_fails(&mut driver, pay);
    // What is under way is waited for, over a crash, too.
    assert_eq!(driver.last.status, Status::Running);
    driver.crash();
    start_is_known(&mut driver, bill);
    let waited = driver.entries().into_iter().any(|entry| match entry {
        Entry::Awaited(awaited) => matches!(awaited.what, Awaits::Run { run } if run == child()),
        _ => false,
    });
    assert!(waited, "whoever commits this learns which run to ask to end");
    says_that_it_stands(&driver);
}

#[test]
fn a_run_that_took_too_long_or_was_canceled_has_not_undone_what_it_did() {
    let mut driver = only_the_run_is_open();
    driver.due();
    says_that_it_stands(&driver);

    let mut driver = only_the_run_is_open();
    ended(&mut driver, &Ending::Canceled);
    says_that_it_stands(&driver);
}

#[test]
fn a_run_that_failed_had_to_undo_what_it_did_itself() {
    let mut driver = only_the_run_is_open();
    let ending = Ending::Failed {
        code: "http_500".into(),
        message: "no".into(),
        step: None,
    };
    ended(&mut driver, &ending);
    assert_eq!(driver.last.status, Status::Succeeded);
}

#[test]
fn a_run_is_known_that_was_started_for_one_that_is_canceled_or_stands_still() {
    for paused in [false, true] {
        let (mut driver, bill, _) = begun();
        if paused {
            driver.input(Input::Mail(Mail::Pause {
                by: "a person",
                reason: "",
            }));
        } else {
            driver.input(Input::Mail(Mail::Cancel {
                by: "a person",
                reason: "",
            }));
        }
        start_is_known(&mut driver, bill);
        let entries = driver.entries();
        let waits = entries.iter().filter(|entry| matches!(entry, Entry::Awaited(_)));
        assert_eq!(waits.count(), 1);
        if paused {
            let open: Vec<_> = driver.run.open_waits().map(|wait| wait.step.to_string()).collect();
            assert_eq!(open, [BILL]);
            assert_eq!(
                driver.run.open_waits().next().unwrap().awaited.until,
                driver.now.plus(seconds(3_600))
            );
        }
    }
}

#[test]
fn a_run_that_was_to_undo_something_and_is_left_is_told_so() {
    let steps = r#"
name: bench
on: { event: stripe.payment_intent.succeeded, hydrate: never }
steps:
  - id: order
    try:
      - id: pay
        call: http.request
        connection: crm
        with: { method: POST, what: pay }
        undo:
          - id: both
            parallel:
              a: [ { id: bill, run: invoice, with: { order: -7 } } ]
              b: [ { id: refund, call: http.request, connection: crm, with: { method: DELETE, what: pay } } ]
      - { id: send, call: http.request, connection: crm, with: { method: POST, what: send } }
    catch:
      - { id: back, compensate: all, on_error: continue }
      - { id: rest, sleep: 1h }
"#;
    let refused = || failed(failure("invalid", Some(400), Sent::Never, false));
    let mut driver = Driver::new(plan_in(&Shop::default(), steps).unwrap(), KEYED, json!({}));
    driver.start();
    driver.done(json!({}));
    let send = call_of(&driver, "order.try.send");
    driver.answer(send, &refused());
    let undo = "order.try.pay.undo.both";
    let (bill, refund) = (
        call_of(&driver, &format!("{undo}.a.bill")),
        call_of(&driver, &format!("{undo}.b.refund")),
    );
    start_is_known(&mut driver, bill);
    driver.answer(refund, &refused());
    assert_eq!(driver.last.status, Status::Waiting);
    let told = story(Some(&driver.plan), &driver.rows, None);
    let status = |path: &str| told.iter().find(|step| step.path == path).map(|step| step.status);
    assert_eq!(
        [
            status(&format!("{undo}.a.bill")),
            status(undo),
            status("order.catch.back"),
            status("order.catch.rest")
        ],
        [Some("canceled"), Some("failed"), Some("failed"), Some("waiting")]
    );
}
