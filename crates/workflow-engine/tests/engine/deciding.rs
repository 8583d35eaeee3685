//! What a person said about an effect that nobody knew about: what the ledger, a replay and the story make of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use weir_workflow_engine::{
    AttemptOutcome, Command, Decided, Document, EffectClass, EffectKey, EffectState, Entry, Ledger, RunId, SendMode,
    Sent, Status, Timestamp, Verdict, story, tell_family,
};

use crate::support::{Driver, KEYED, START, event, failure, head, plan, seconds};

const STEPS: &str = r#"
  - { id: pay, call: stripe.refunds.create, with: { charge: "ch_1" } }
  - { id: note, set: { refund: "{{ steps.pay.id }}" } }
"#;

/// A run whose effect is unknown at its end.
fn lost(class: EffectClass) -> Vec<Entry> {
    let mut driver = Driver::new(plan(STEPS), class, json!({}));
    driver.start();
    driver.fail(failure("timeout", None, Sent::Maybe, false));
    driver.entries()
}

fn intended(entries: &[Entry]) -> EffectKey {
    let intent = entries.iter().find_map(|entry| match entry {
        Entry::Intended(intent) => Some(intent.key),
        _ => None,
    });
    intent.unwrap()
}

fn said(key: EffectKey, verdict: Verdict, at: Timestamp) -> Entry {
    Entry::Decided(Decided {
        step: Arc::from("pay"),
        key,
        verdict,
        looked: false,
        by: Arc::from("ann"),
        note: Arc::from("seen in the dashboard"),
        at,
    })
}

fn happened() -> Verdict {
    Verdict::Happened {
        output: Document::from_value(json!({ "id": "re_1" })),
    }
}

fn later(seconds_later: u64) -> Timestamp {
    START.plus(seconds(seconds_later))
}

fn replay(class: EffectClass, journals: &[(i64, Vec<Entry>)]) -> Driver {
    let ledger = Ledger::fold(
        journals
            .iter()
            .map(|(run, entries)| (RunId::from_raw(*run), entries.as_slice())),
    );
    let mut driver = Driver::with(plan(STEPS), class, event(json!({})), head(9), ledger);
    driver.now = later(7200);
    driver.start();
    driver
}

#[test]
fn what_happened_is_answered_and_never_sent() {
    for class in [EffectClass::Blind, KEYED, EffectClass::Repeatable] {
        let mut entries = lost(class);
        entries.push(said(intended(&entries), happened(), later(60)));
        let driver = replay(class, &[(1, entries)]);
        assert!(driver.commands.is_empty());
        assert_eq!(driver.last.status, Status::Succeeded);
        assert_eq!(driver.last_set(), json!({ "refund": "re_1" }));
    }
}

#[test]
fn what_did_not_happen_is_sent_under_the_key_of_the_next_generation() {
    for class in [EffectClass::Blind, KEYED] {
        let mut entries = lost(class);
        let first = intended(&entries);
        entries.push(said(first, Verdict::NotHappened, later(60)));
        let mut driver = replay(class, &[(1, entries)]);
        let Command::Call(call) = driver.next_command() else {
            panic!()
        };
        let effect = call.effect.unwrap();
        assert_eq!(effect.mode, SendMode::First);
        assert_ne!(effect.key, first);
    }
}

/// A replay found the effect unknown too, and the person looked at the first run: the decision is about both.
#[test]
fn a_decision_counts_wherever_in_the_family_it_stands() {
    let mut first = lost(EffectClass::Blind);
    let second = replay(EffectClass::Blind, &[(1, first.clone())]);
    assert_eq!(second.code(), "effect_unknown");
    let second = second.entries();
    first.push(said(intended(&first), happened(), later(9000)));
    let third = replay(EffectClass::Blind, &[(1, first.clone()), (2, second.clone())]);
    assert_eq!(third.last.status, Status::Succeeded);

    // And the story of the run without the decision in its journal tells it.
    let mut told = story(None, &[(0, START, second.clone())], None);
    assert_eq!(told[0].effect.as_ref().unwrap().state, "unknown");
    let ledger = Ledger::fold([
        (RunId::from_raw(1), first.as_slice()),
        (RunId::from_raw(2), second.as_slice()),
    ]);
    tell_family(&mut told, &ledger);
    let effect = told[0].effect.as_ref().unwrap();
    assert_eq!(
        (effect.state, effect.decided.as_ref().map(|decided| &*decided.by)),
        ("confirmed", Some("ann"))
    );
}

#[test]
fn the_last_word_of_people_counts_and_the_word_of_the_provider_above_it() {
    let entries = lost(KEYED);
    let key = intended(&entries);
    let state = |more: Vec<Entry>| {
        let all: Vec<Entry> = entries.iter().cloned().chain(more).collect();
        let ledger = Ledger::fold([(RunId::from_raw(1), all.as_slice())]);
        let record = ledger.get(&key).unwrap();
        (record.state, record.is_open())
    };
    assert_eq!(state(Vec::new()), (EffectState::Unknown, true));
    // Whoever erred can say so, in whatever order the rows are read.
    let (yes, no) = (
        said(key, happened(), later(60)),
        said(key, Verdict::NotHappened, later(120)),
    );
    assert_eq!(state(vec![yes.clone(), no.clone()]), (EffectState::Failed, true));
    assert_eq!(state(vec![no, yes]), (EffectState::Failed, true));
    let confirmed = entries.iter().find_map(|entry| match entry {
        Entry::Attempt(attempt) => Some(Entry::Attempt(weir_workflow_engine::Attempt {
            outcome: AttemptOutcome::Done {
                output: Document::from_value(json!({ "id": "re_2" })),
                origin: weir_workflow_engine::Origin::Sent,
            },
            ..attempt.clone()
        })),
        _ => None,
    });
    let decided = said(key, Verdict::NotHappened, later(60));
    assert_eq!(
        state(vec![decided, confirmed.unwrap()]),
        (EffectState::Confirmed, false)
    );
}

#[test]
fn a_story_tells_who_decided() {
    let class = EffectClass::FindBy {
        consistent: false,
        settle: Duration::from_secs(10),
    };
    let mut entries = lost(class);
    while !entries.iter().any(|entry| matches!(entry, Entry::Finished(_))) {
        // A look follows; it finds nothing that proves anything.
        let mut driver = Driver::new(plan(STEPS), class, json!({}));
        driver.start();
        driver.fail(failure("timeout", None, Sent::Maybe, false));
        driver.due();
        driver.fail(failure("unproven", None, Sent::Maybe, false));
        entries = driver.entries();
    }
    entries.push(said(intended(&entries), Verdict::NotHappened, later(60)));
    let told = story(None, &[(0, START, entries)], None);
    let effect = told[0].effect.as_ref().unwrap();
    assert_eq!((effect.state, told[0].status), ("failed", "unknown"));
    assert_eq!(&*effect.decided.as_ref().unwrap().note, "seen in the dashboard");
}
