//! Calls that are not made yet because their connection may not send, and tries that the provider throttles.

use std::time::Duration;

use serde_json::json;
use weir_workflow_engine::{
    CallOutcome, CallResult, Command, EffectClass, Entry, HeldBy, Hold, MAX_HOLDS, MAX_THROTTLED_TRIES, Origin, Retry,
    SendMode, Sent, Status, Timestamp, decode, encode, story,
};

use crate::support::{Driver, KEYED, failure, plan, seconds};

const POST: &str = "  - { id: pay, call: http.request, connection: crm, retry: { tries: 2 }, with: { method: POST } }";
const READ: &str = "  - { id: pay, call: http.request, connection: crm, retry: { tries: 2 }, with: { method: GET } }";

fn hold(driver: &Driver, wait: Duration) -> CallResult {
    CallResult {
        outcome: CallOutcome::Held(Hold {
            until: driver.now.plus(wait),
            by: HeldBy::Budget,
            reason: "waits for the budget".to_owned(),
        }),
        exchanges: Vec::new(),
        origin: Origin::Sent,
    }
}

fn call(command: &Command) -> (u32, Option<SendMode>) {
    match command {
        Command::Call(call) => (call.attempt, call.effect.as_ref().map(|effect| effect.mode)),
        Command::Read(read) => (read.attempt, None),
    }
}

fn steps(class: EffectClass) -> (Driver, Vec<(u32, Option<SendMode>)>) {
    let text = if class == EffectClass::Read { READ } else { POST };
    let mut driver = Driver::new(plan(text), class, json!({}));
    driver.start();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let command = driver.next_command();
        seen.push(call(&command));
        let result = hold(&driver, seconds(7));
        driver.answer(command.call(), &result);
        assert_eq!(driver.last.status, Status::Waiting);
        assert_eq!(driver.last.due, Some(driver.now.plus(seconds(7))));
        driver.crash();
        driver.due();
    }
    let command = driver.next_command();
    seen.push(call(&command));
    (driver, seen)
}

#[test]
fn a_held_call_is_offered_again_under_the_same_number() {
    let (_, read) = steps(EffectClass::Read);
    assert_eq!(read, [(1, None); 4]);
    let (_, effect) = steps(KEYED);
    let again = (1, Some(SendMode::Resend));
    assert_eq!(effect, [(1, Some(SendMode::First)), again, again, again]);
    let (_, blind) = steps(EffectClass::Blind);
    assert_eq!(blind, effect);
}

#[test]
fn what_waits_for_access_is_stored_so_that_older_servers_leave_it_alone() {
    for (by, version) in [
        (HeldBy::Budget, 5),
        (HeldBy::Breaker, 5),
        (HeldBy::Stop, 6),
        (HeldBy::Token, 7),
        (HeldBy::Reauth, 7),
    ] {
        let mut driver = Driver::new(plan(POST), KEYED, json!({}));
        driver.start();
        let command = driver.next_command();
        let mut result = hold(&driver, seconds(60));
        if let CallOutcome::Held(hold) = &mut result.outcome {
            hold.by = by;
        }
        driver.answer(command.call(), &result);
        let (_, at, entries) = driver.rows.last().unwrap();
        let row = encode(entries, *at);
        let stored: serde_json::Value = serde_json::from_slice(&row).unwrap();
        assert_eq!(stored["v"], version, "{by:?}");
        assert_eq!(decode(&row).unwrap(), (*at, entries.clone()));
        let is_it = |entry: &Entry| matches!(entry, Entry::Held(held) if held.by == by);
        assert!(entries.iter().any(is_it), "{by:?}");
    }
}

#[test]
fn the_story_of_a_held_step_says_what_it_waits_for() {
    let mut driver = Driver::new(plan(POST), KEYED, json!({}));
    driver.start();
    let command = driver.next_command();
    let result = hold(&driver, seconds(60));
    driver.answer(command.call(), &result);
    let told = story(Some(&driver.plan), &driver.rows, None);
    let step = told.first().unwrap();
    assert_eq!(
        (step.status, step.note.as_deref()),
        ("waiting", Some("waits for the budget"))
    );
    let until: Timestamp = step.hold.unwrap().until;
    assert_eq!(
        (step.hold.unwrap().by, until),
        (HeldBy::Budget, driver.now.plus(seconds(60)))
    );
    assert!(step.attempts.is_empty());
    driver.due();
    driver.done(json!({}));
    let told = story(Some(&driver.plan), &driver.rows, None);
    let step = told.first().unwrap();
    assert_eq!((step.status, step.hold, step.attempts.len()), ("succeeded", None, 1));
}

/// Fails every try in the same way until the run is over; how many tries that took.
fn fails_after(mut result: impl FnMut(&Driver) -> CallResult) -> (u32, String) {
    let mut driver = Driver::new(plan(POST), KEYED, json!({}));
    driver.start();
    for tries in 1..=MAX_HOLDS + 10 {
        let command = driver.next_command();
        let answer = result(&driver);
        driver.answer(command.call(), &answer);
        if driver.last.status.is_final() {
            return (tries, driver.code());
        }
        driver.due();
    }
    panic!("it never ends");
}

#[test]
fn a_call_is_held_without_a_try_up_to_a_bound() {
    let (tries, code) = fails_after(|driver| hold(driver, seconds(60)));
    assert_eq!((tries, code.as_str()), (MAX_HOLDS + 2, "retries_exhausted"));
}

#[test]
fn a_try_that_the_provider_throttles_is_not_counted_up_to_a_bound() {
    let mut limited = failure("rate_limited", Some(429), Sent::Never, true);
    limited.retry = Retry::Retryable {
        after: Some(seconds(3)),
    };
    let (tries, code) = fails_after(|_| crate::support::failed(limited.clone()));
    assert_eq!((tries, code.as_str()), (MAX_THROTTLED_TRIES + 2, "retries_exhausted"));
    let refused = failure("http_503", Some(503), Sent::Maybe, true);
    let (tries, _) = fails_after(|_| crate::support::failed(refused.clone()));
    assert_eq!(tries, 2);
}

#[test]
fn a_throttled_try_waits_as_long_as_the_provider_asks_and_no_longer_each_time() {
    let mut driver = Driver::new(plan(POST), KEYED, json!({}));
    driver.start();
    let mut limited = failure("rate_limited", Some(429), Sent::Never, true);
    limited.retry = Retry::Retryable {
        after: Some(seconds(3)),
    };
    for _ in 0..10 {
        let command = driver.next_command();
        driver.answer(command.call(), &crate::support::failed(limited.clone()));
        assert_eq!(driver.last.due, Some(driver.now.plus(seconds(3))));
        driver.due();
    }
}

#[test]
fn a_held_call_of_a_run_that_ends_was_never_sent() {
    let steps = r#"
  - id: both
    parallel:
      a: [{ id: pay, call: http.request, connection: crm, with: { method: POST, n: 1 } }]
      b: [{ id: fail, call: http.request, connection: crm, with: { method: POST, n: 2 } }]
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    let (first, second) = (driver.next_command(), driver.next_command());
    let result = hold(&driver, seconds(60));
    driver.answer(first.call(), &result);
    let refused = failure("invalid", Some(400), Sent::Never, false);
    driver.answer(second.call(), &crate::support::failed(refused));
    assert_eq!(driver.code(), "invalid");
    let given_up = driver.entries().into_iter().any(|entry| {
        matches!(entry, Entry::Abandoned(abandoned)
            if abandoned.effect == Some(weir_workflow_engine::EffectEnd::Failed))
    });
    assert!(given_up);
}
