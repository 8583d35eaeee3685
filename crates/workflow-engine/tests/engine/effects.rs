//! Effects under failure: what is sent again, how, until when, and when a person has to look.

use std::time::Duration;

use serde_json::json;
use weir_workflow_engine::{
    CallFailure, CallResult, Command, EffectClass, EffectCommand, EffectState, Entry, Input, Ledger, Mail, Origin,
    Retry, RunId, SendMode, Sent, Status,
};

use crate::support::{Driver, KEYED, START, done, failed, failure, plan, seconds};

const FIND_BY: EffectClass = EffectClass::FindBy {
    consistent: true,
    settle: Duration::ZERO,
};
const LAGGING: EffectClass = EffectClass::FindBy {
    consistent: false,
    settle: Duration::from_secs(15),
};

fn pay(class: EffectClass) -> Driver {
    let steps = "  - { id: pay, call: stripe.refunds.create, retry: { tries: 3, first: 10s }, with: { charge: \"{{ event.data.id }}\" } }";
    let mut driver = Driver::new(plan(steps), class, json!({ "id": "ch_1" }));
    driver.start();
    driver
}

#[test]
fn a_look_waits_until_the_request_of_the_last_try_is_over() {
    // The default time of one try.
    let over = seconds(30);
    let lost = || failure("connection_lost", None, Sent::Maybe, true);
    let mut driver = pay(FIND_BY);
    driver.now = START.plus(seconds(5));
    driver.fail(lost());
    assert_eq!(driver.last.due, Some(START.plus(seconds(5)).plus(over)));
    driver.due();
    // However long ago the first try was.
    let second = driver.now.plus(seconds(3_600));
    driver.now = second;
    driver.fail(lost());
    assert!(driver.last.due >= Some(second.plus(over)), "{:?}", driver.last.due);

    let mut lagging = pay(LAGGING);
    lagging.fail(lost());
    assert_eq!(lagging.last.due, Some(START.plus(over).plus(seconds(15))));
}

#[test]
fn nobody_hurries_a_look_for_a_request_that_may_be_under_way() {
    let steps = "  - { id: pay, call: stripe.refunds.create, retry: { tries: 3, first: 30m }, with: { charge: \"{{ event.data.id }}\" } }";
    let lost = || failure("connection_lost", None, Sent::Maybe, true);
    let never = || failure("connect", None, Sent::Never, true);
    let over = seconds(30);
    let cases = [
        (FIND_BY, lost(), Some(over)),
        (LAGGING, lost(), Some(over + seconds(15))),
        // Sure not to have been sent, or harmless to send again.
        (LAGGING, never(), None),
        (EffectClass::Blind, never(), None),
        (KEYED, lost(), None),
        (EffectClass::Repeatable, lost(), None),
    ];
    for (class, failure, later) in cases {
        let mut driver = Driver::new(plan(steps), class, json!({ "id": "ch_1" }));
        driver.start();
        driver.fail(failure.clone());
        assert!(
            driver.last.due > Some(START.plus(seconds(900))),
            "{class:?} {failure:?}"
        );
        driver.input(Input::Mail(Mail::Hurry { by: "me" }));
        match later {
            Some(later) => {
                assert_eq!(driver.last.due, Some(START.plus(later)), "{class:?} {failure:?}");
                assert!(driver.last.commands.is_empty(), "{class:?} {failure:?}");
                // What was hurried is in the journal.
                driver.crash();
                assert_eq!(driver.last.due, Some(START.plus(later)));
            }
            None => assert_eq!(driver.last.commands.len(), 1, "{class:?} {failure:?}"),
        }
    }
}

fn effect(command: &Command) -> EffectCommand {
    let Command::Call(call) = command else { panic!("a call") };
    call.effect.clone().expect("an effect")
}

fn ledger_state(driver: &Driver) -> Option<EffectState> {
    let entries = driver.entries();
    let ledger = Ledger::fold([(RunId::from_raw(1), entries.as_slice())]);
    ledger.iter().next().map(|(_, record)| record.state)
}

fn timeout() -> CallFailure {
    failure("timeout", None, Sent::Maybe, true)
}

/// One failure, and what follows: another try in a mode, or an end with a code and a state of the effect.
fn check(class: EffectClass, failure: CallFailure, expected: Result<SendMode, (&str, EffectState)>) {
    let mut driver = pay(class);
    let first = effect(&driver.commands[0]);
    assert_eq!(first.mode, SendMode::First);
    driver.fail(failure.clone());
    match expected {
        Ok(mode) => {
            assert_eq!(driver.last.status, Status::Waiting, "{class:?} {failure:?}");
            assert!(driver.commands.is_empty());
            driver.due();
            let again = effect(&driver.commands[0]);
            assert_eq!((again.mode, again.key), (mode, first.key), "{class:?} {failure:?}");
        }
        Err((code, state)) => {
            assert_eq!(
                (driver.code().as_str(), ledger_state(&driver)),
                (code, Some(state)),
                "{class:?} {failure:?}"
            );
        }
    }
}

#[test]
fn what_follows_a_failed_try_depends_on_the_class_and_on_what_was_sent() {
    let connect = failure("connect", None, Sent::Never, true);
    let refused = failure("invalid", Some(400), Sent::Never, false);
    let broken = failure("http_500", Some(500), Sent::Maybe, true);
    let odd = failure("unreadable", Some(200), Sent::Maybe, false);
    for class in [KEYED, EffectClass::Repeatable, FIND_BY, LAGGING, EffectClass::Blind] {
        // Proven not to have been sent: any class may try again, and a refusal is a plain failure.
        check(class, connect.clone(), Ok(SendMode::Resend));
        check(class, refused.clone(), Err(("invalid", EffectState::Failed)));
    }
    for class in [KEYED, EffectClass::Repeatable] {
        check(class, timeout(), Ok(SendMode::Resend));
        check(class, broken.clone(), Ok(SendMode::Resend));
        check(class, odd.clone(), Err(("unreadable", EffectState::Unknown)));
    }
    check(FIND_BY, timeout(), Ok(SendMode::LookFirst));
    check(FIND_BY, odd.clone(), Ok(SendMode::LookOnly));
    check(LAGGING, timeout(), Ok(SendMode::LookOnly));
    for blind in [timeout(), broken, odd] {
        check(EffectClass::Blind, blind, Err(("effect_unknown", EffectState::Unknown)));
    }
}

#[test]
fn a_crash_never_sends_a_first_time_again() {
    let recovered = |class: EffectClass| {
        let mut driver = pay(class);
        let first = effect(&driver.commands[0]);
        driver.now = driver.now.plus(seconds(5));
        driver.crash();
        (driver, first)
    };
    for class in [KEYED, EffectClass::Repeatable] {
        let (driver, first) = recovered(class);
        assert_eq!(
            effect(&driver.commands[0]),
            EffectCommand {
                mode: SendMode::Resend,
                ..first
            }
        );
    }
    let (mut driver, _) = recovered(EffectClass::Blind);
    assert_eq!(effect(&driver.commands[0]).mode, SendMode::IfNeverSent);
    driver.fail(failure("unproven", None, Sent::Maybe, false));
    assert_eq!(
        (driver.code().as_str(), ledger_state(&driver)),
        ("effect_unknown", Some(EffectState::Unknown))
    );

    // A host that could prove it sent: from here on it is an ordinary try.
    let (mut driver, _) = recovered(EffectClass::Blind);
    driver.fail(failure("connect", None, Sent::Never, true));
    driver.due();
    assert_eq!(effect(&driver.commands[0]).mode, SendMode::Resend);

    // The lost process may have sent up to now, and the provider may take a whole time limit to act.
    let (mut driver, _) = recovered(FIND_BY);
    assert_eq!(
        (driver.last.status.clone(), driver.last.due),
        (Status::Waiting, Some(START.plus(seconds(35))))
    );
    driver.due();
    assert_eq!(effect(&driver.commands[0]).mode, SendMode::LookFirst);
    let found = CallResult {
        origin: Origin::Found,
        ..done(json!({ "id": "re_1" }))
    };
    let call = driver.next_command().call();
    driver.answer(call, &found);
    assert_eq!(
        (driver.code().as_str(), ledger_state(&driver)),
        ("succeeded", Some(EffectState::Confirmed))
    );

    let (mut driver, _) = recovered(LAGGING);
    assert_eq!(driver.last.due, Some(START.plus(seconds(50))));
    driver.due();
    assert_eq!(effect(&driver.commands[0]).mode, SendMode::LookOnly);
    driver.fail(failure("unproven", None, Sent::Maybe, false));
    assert_eq!(driver.code(), "effect_unknown");
}

#[test]
fn a_key_is_sent_again_only_while_the_provider_remembers_it() {
    let hour = seconds(3600);
    // Monday's intent, Wednesday's resume: the process was down in between.
    let mut driver = pay(KEYED);
    driver.now = START.plus(hour * 23 - Duration::from_millis(1));
    driver.crash();
    assert_eq!(effect(&driver.commands[0]).mode, SendMode::Resend);
    let mut driver = pay(KEYED);
    driver.now = START.plus(hour * 23);
    driver.crash();
    assert_eq!(
        (driver.code().as_str(), ledger_state(&driver)),
        ("effect_unknown", Some(EffectState::Unknown))
    );

    // A provider that asks for a pause beyond the window.
    let mut driver = pay(KEYED);
    driver.fail(CallFailure {
        retry: Retry::Retryable { after: Some(hour * 24) },
        ..timeout()
    });
    assert_eq!(driver.code(), "effect_unknown");

    // Nothing was ever sent: the window has not begun.
    let mut driver = pay(KEYED);
    driver.fail(CallFailure {
        retry: Retry::Retryable { after: Some(hour * 24) },
        ..failure("needs_reauth", None, Sent::Never, true)
    });
    driver.due();
    let again = effect(&driver.commands[0]);
    assert_eq!(
        (again.mode, again.first_sent_at),
        (SendMode::Resend, START.plus(hour * 24))
    );
}

#[test]
fn tries_come_to_an_end() {
    let mut driver = pay(KEYED);
    let mut pauses = Vec::new();
    for _ in 0..2 {
        driver.fail(timeout());
        pauses.push(driver.last.due.unwrap().since(driver.now));
        driver.due();
    }
    assert!(pauses[0] >= seconds(8) && pauses[0] <= seconds(12), "{pauses:?}");
    assert!(pauses[1] >= seconds(24) && pauses[1] <= seconds(36), "{pauses:?}");
    driver.fail(timeout());
    assert_eq!(
        (driver.code().as_str(), ledger_state(&driver)),
        ("retries_exhausted", Some(EffectState::Unknown))
    );

    let mut driver = pay(EffectClass::Blind);
    for _ in 0..2 {
        driver.fail(failure("connect", None, Sent::Never, true));
        driver.due();
    }
    driver.fail(failure("connect", None, Sent::Never, true));
    assert_eq!(
        (driver.code().as_str(), ledger_state(&driver)),
        ("retries_exhausted", Some(EffectState::Failed))
    );
}

#[test]
fn a_provider_may_ask_for_a_later_try_and_a_crash_does_not_shorten_it() {
    let mut driver = pay(KEYED);
    driver.fail(CallFailure {
        retry: Retry::Retryable {
            after: Some(seconds(90)),
        },
        ..failure("rate_limited", Some(429), Sent::Never, true)
    });
    assert_eq!(driver.last.due, Some(START.plus(seconds(90))));
    driver.now = START.plus(seconds(30));
    driver.crash();
    assert!(driver.commands.is_empty());
    assert_eq!(
        (driver.last.status.clone(), driver.last.due),
        (Status::Waiting, Some(START.plus(seconds(90))))
    );
    driver.due();
    let Command::Call(call) = &driver.commands[0] else {
        panic!()
    };
    assert_eq!(call.attempt, 2);
}

#[test]
fn an_unknown_effect_is_the_end_of_the_run_whatever_else_it_was_about_to_say() {
    let steps = r#"
  - id: each
    for_each: "{{ event.data }}"
    concurrency: 2
    do:
      - { id: pay, call: stripe.refunds.create, on_error: continue, with: { n: "{{ item }}" } }
"#;
    let mut driver = Driver::new(plan(steps), EffectClass::Blind, json!([1, 2]));
    driver.start();
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    assert_eq!(driver.last.status, Status::Running);
    driver.fail(timeout());
    assert_eq!(
        driver.code(),
        "effect_unknown",
        "`on_error: continue` does not hide an unknown effect"
    );
}

#[test]
fn the_body_of_a_key_never_changes() {
    let key = |class: EffectClass, id: &str, step: &str| {
        let steps = format!(
            "  - {{ id: {step}, call: stripe.refunds.create, with: {{ charge: \"{{{{ event.data.id }}}}\" }} }}"
        );
        let mut driver = Driver::new(plan(&steps), class, json!({ "id": id }));
        driver.start();
        effect(&driver.commands[0]).key
    };
    assert_eq!(key(KEYED, "ch_1", "pay"), key(EffectClass::Blind, "ch_1", "pay"));
    assert_ne!(key(KEYED, "ch_1", "pay"), key(KEYED, "ch_2", "pay"));
    assert_ne!(key(KEYED, "ch_1", "pay"), key(KEYED, "ch_1", "refund"));
    // What was intended is what is sent again, not what the expressions would give by now.
    let steps = "  - { id: pay, call: stripe.refunds.create, with: { at: \"{{ now }}\" } }";
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    let Command::Call(first) = driver.commands[0].clone() else {
        panic!()
    };
    driver.now = START.plus(seconds(60));
    driver.crash();
    let Command::Call(again) = driver.commands[0].clone() else {
        panic!()
    };
    assert_eq!(
        (first.args, first.effect.unwrap().key),
        (again.args, again.effect.unwrap().key)
    );
}

#[test]
fn an_outcome_after_the_end_is_not_lost_while_the_run_winds_down() {
    let steps = r#"
  - id: each
    for_each: "{{ event.data }}"
    concurrency: 2
    do:
      - { id: pay, call: stripe.refunds.create, with: { n: "{{ item }}" } }
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!([1, 2, 3]));
    driver.start();
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    assert_eq!(
        (driver.last.status.clone(), driver.last.commands.len()),
        (Status::Running, 0)
    );
    // The process is lost while the other effect is on its way: its outcome is still wanted.
    driver.crash();
    assert_eq!(effect(&driver.commands[0]).mode, SendMode::Resend);
    let call = driver.next_command().call();
    driver.answer(call, &failed(failure("invalid", Some(400), Sent::Never, false)));
    assert_eq!(driver.code(), "invalid");
    assert!(matches!(driver.entries().last(), Some(Entry::Finished(_))));
}
