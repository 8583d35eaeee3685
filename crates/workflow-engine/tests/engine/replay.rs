//! Replays: what the ledger answers, what is sent again, and what a preview says about it beforehand.

use serde_json::json;
use weir_workflow_engine::{
    Command, EffectClass, EffectState, Entry, Ledger, Past, Plan, ReplayPreview, RunId, SendMode, Sent, Status,
};

use crate::support::{Driver, KEYED, START, World, event, failure, head, plan, preview, seconds};

const STEPS: &str = r#"
  - { id: look, call: stripe.payment_intents.get, with: { id: "{{ event.data.id }}" } }
  - { id: pay, call: stripe.refunds.create, with: { charge: "{{ steps.look.customer }}" } }
  - { id: mail, call: http.request, connection: crm, with: { method: POST, to: "{{ event.data.mail }}", paid: "{{ steps.pay.id }}" } }
"#;

fn data(mail: &str) -> serde_json::Value {
    json!({ "id": "pi_1", "mail": mail })
}

/// A run up to the point that `drive` takes it to, and its journal.
fn original(class: EffectClass, drive: impl FnOnce(&mut Driver)) -> Vec<Entry> {
    let mut driver = Driver::new(plan(STEPS), class, data("a@b.test"));
    driver.start();
    driver.done(json!({ "customer": "cus_1" }));
    drive(&mut driver);
    driver.entries()
}

fn ledger(entries: &[Entry]) -> Ledger {
    Ledger::fold([(RunId::from_raw(1), entries)])
}

fn replay(class: EffectClass, entries: &[Entry], mail: &str) -> Driver {
    let mut driver = Driver::with(plan(STEPS), class, event(data(mail)), head(2), ledger(entries));
    driver.now = START.plus(seconds(3600));
    driver.start();
    driver.done(json!({ "customer": "cus_1" }));
    driver
}

fn told(plan: &Plan, class: EffectClass, entries: &[Entry], mail: &str) -> (ReplayPreview, [usize; 4]) {
    let event = std::sync::Arc::new(event(data(mail)));
    let world = World { class };
    let preview = preview(
        plan,
        &head(2),
        &event,
        &ledger(entries),
        Past {
            recorded: entries,
            kept: &[],
            replaced: None,
        },
        &world,
        START.plus(seconds(3600)),
    );
    let counts = [
        preview.reads.len(),
        preview.answered.len(),
        preview.new.len(),
        preview.unknown.len(),
    ];
    (preview, counts)
}

#[test]
fn a_confirmed_effect_is_never_sent_again() {
    let entries = original(EffectClass::Blind, |driver| {
        driver.done(json!({ "id": "re_1" }));
        driver.done(json!({ "ok": true }));
    });
    let driver = replay(EffectClass::Blind, &entries, "a@b.test");
    assert!(driver.commands.is_empty());
    assert_eq!(driver.last.status, Status::Succeeded);
    let answered: Vec<String> = driver
        .entries()
        .iter()
        .filter_map(|entry| match entry {
            Entry::Answered(answered) => Some(format!(
                "{} by {}: {}",
                answered.step,
                answered.run,
                answered.output.raw()
            )),
            _ => None,
        })
        .collect();
    assert_eq!(
        answered,
        [
            "pay by run_0000000000001: {\"id\":\"re_1\"}",
            "mail by run_0000000000001: {\"ok\":true}"
        ]
    );
    let (preview, counts) = told(&plan(STEPS), EffectClass::Blind, &entries, "a@b.test");
    assert_eq!(counts, [1, 2, 0, 0]);
    // What was paid hangs on what is looked up again, and the mail on what was paid.
    assert!(preview.in_part && preview.answered.iter().all(|effect| effect.on_reads));
    let note = preview.note.unwrap();
    assert!(
        note.starts_with("`pay` and 1 more: answered from the record as long as what is read again answers as before"),
        "{note}"
    );
}

#[test]
fn a_preview_tells_what_hangs_on_reads_that_are_made_again() {
    let steps = r#"
  - { id: look, call: stripe.payment_intents.get, with: { id: "{{ event.data.id }}" } }
  - { id: plain, call: stripe.refunds.create, with: { charge: "{{ event.data.id }}" } }
  - { id: of, set: { customer: "{{ steps.look.customer }}" } }
  - { id: by, if: "{{ steps.of.customer == 'cus_1' }}", then: [{ id: inside, call: stripe.refunds.create, with: { charge: fixed } }] }
  - { id: each, for_each: "{{ [steps.look.customer] }}", as: who, do: [{ id: one, call: stripe.refunds.create, with: { charge: "{{ who }}" } }] }
  - { id: other, for_each: "{{ [1] }}", do: [{ id: two, call: stripe.refunds.create, with: { charge: "{{ item }}" } }] }
  - { id: last, when: "{{ results.look.status == 'succeeded' }}", call: stripe.refunds.create, with: { charge: last } }
"#;
    let mut driver = Driver::new(plan(steps), KEYED, data("a@b.test"));
    driver.start();
    driver.done(json!({ "customer": "cus_1" }));
    while driver.last.status == Status::Running {
        driver.done(json!({ "id": "re" }));
    }
    let (preview, _) = told(&plan(steps), KEYED, &driver.entries(), "a@b.test");
    let hangs: Vec<(&str, bool)> = preview
        .answered
        .iter()
        .map(|effect| (effect.step.rsplit('.').next().unwrap(), effect.on_reads))
        .collect();
    assert_eq!(
        hangs,
        [
            ("plain", false),
            ("inside", true),
            ("one", true),
            ("two", false),
            ("last", true)
        ]
    );
}

#[test]
fn a_changed_request_is_a_new_effect_and_shown_first() {
    let entries = original(KEYED, |driver| {
        driver.done(json!({ "id": "re_1" }));
        driver.done(json!({ "ok": true }));
    });
    let (preview, counts) = told(&plan(STEPS), KEYED, &entries, "other@b.test");
    assert_eq!(counts, [1, 1, 1, 0]);
    assert_eq!(
        (
            preview.new[0].step.as_str(),
            preview.new[0].changed,
            preview.new[0].sends
        ),
        ("mail", true, true)
    );
    let mut driver = replay(KEYED, &entries, "other@b.test");
    let Command::Call(mail) = driver.next_command() else {
        panic!()
    };
    let effect = mail.effect.unwrap();
    assert_eq!((effect.mode, effect.key), (SendMode::First, preview.new[0].key));
    assert!(
        entries
            .iter()
            .all(|entry| !matches!(entry, Entry::Intended(intent) if intent.key == effect.key))
    );
}

#[test]
fn an_effect_that_is_proven_not_done_is_begun_anew_under_a_new_key() {
    let entries = original(KEYED, |driver| {
        driver.fail(failure("invalid", Some(400), Sent::Never, false));
    });
    let Some(Entry::Intended(first)) = entries.iter().find(|entry| matches!(entry, Entry::Intended(_))) else {
        panic!()
    };
    let driver = replay(KEYED, &entries, "a@b.test");
    let Some(Entry::Intended(again)) = driver
        .last
        .entries
        .iter()
        .find(|entry| matches!(entry, Entry::Intended(_)))
    else {
        panic!()
    };
    assert_eq!(
        (again.generation, again.digest, again.mode),
        (1, first.digest, SendMode::First)
    );
    assert_ne!(again.key, first.key);
    let (preview, counts) = told(&plan(STEPS), KEYED, &entries, "a@b.test");
    assert_eq!(counts, [1, 0, 1, 0]);
    assert!(!preview.new[0].changed);
    assert!(preview.in_part, "a mail follows, and is not shown");
    assert!(preview.note.unwrap().contains("no answer of it was recorded"));
}

#[test]
fn an_unknown_effect_is_repeated_only_where_that_is_harmless() {
    let lost = |class: EffectClass| {
        original(class, |driver| {
            driver.fail(failure("timeout", None, Sent::Maybe, false));
        })
    };
    for class in [KEYED, EffectClass::Repeatable] {
        let entries = lost(class);
        let driver = replay(class, &entries, "a@b.test");
        let Command::Call(pay) = &driver.commands[0] else {
            panic!()
        };
        let effect = pay.effect.as_ref().unwrap();
        assert_eq!((effect.mode, effect.first_sent_at), (SendMode::Resend, START));
        let (preview, counts) = told(&plan(STEPS), class, &entries, "a@b.test");
        assert_eq!((counts, preview.unknown[0].sends), ([1, 0, 0, 1], true));
    }
    let entries = lost(EffectClass::Blind);
    let driver = replay(EffectClass::Blind, &entries, "a@b.test");
    assert!(driver.commands.is_empty());
    assert_eq!(driver.code(), "effect_unknown");
    let (preview, counts) = told(&plan(STEPS), EffectClass::Blind, &entries, "a@b.test");
    assert_eq!((counts, preview.unknown[0].sends), ([1, 0, 0, 1], false));

    // A day later the provider has forgotten the key.
    let entries = lost(KEYED);
    let mut late = Driver::with(plan(STEPS), KEYED, event(data("a@b.test")), head(2), ledger(&entries));
    late.now = START.plus(seconds(23 * 3600));
    late.start();
    late.done(json!({ "customer": "cus_1" }));
    assert_eq!(late.code(), "effect_unknown");
}

#[test]
fn the_ledger_never_forgets_a_confirmed_effect() {
    let confirmed = original(KEYED, |driver| {
        driver.done(json!({ "id": "re_1" }));
    });
    let lost = original(KEYED, |driver| {
        driver.fail(failure("timeout", None, Sent::Maybe, false));
    });
    let state = |journals: [(i64, &[Entry]); 2]| {
        let ledger = Ledger::fold(journals.map(|(run, entries)| (RunId::from_raw(run), entries)));
        let pay = ledger
            .iter()
            .find(|(_, record)| &*record.step == "pay")
            .map(|(_, record)| (record.state, record.run));
        pay.unwrap()
    };
    assert_eq!(
        state([(1, &confirmed), (2, &lost)]),
        (EffectState::Confirmed, RunId::from_raw(1))
    );
    assert_eq!(
        state([(1, &lost), (2, &confirmed)]),
        (EffectState::Confirmed, RunId::from_raw(2))
    );
}
