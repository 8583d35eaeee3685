//! What a run makes of a step whose undoing an earlier run of its family left open.

use std::sync::Arc;

use serde_json::json;
use weir_workflow_engine::{
    Command, Decided, Document, EffectClass, EffectKey, EffectRecord, Entry, Input, Ledger, Mail, Past, ReplayPreview,
    RunId, SendMode, Sent, Status, Verdict,
};

use crate::support::{Driver, KEYED, START, World, event, failure, head, plan, preview, seconds};

const UNDO: &str = "{ id: ub, call: http.request, connection: crm, with: { method: DELETE, of: b } }";
const BOOKED: &str = "t.try.b";
const UNDOES: &str = "t.try.b.undo.ub";

fn steps(undo: &str) -> String {
    format!(
        r#"
  - id: t
    try:
      - {{ id: a, call: http.request, connection: crm, with: {{ method: POST, what: a }}, undo: [{{ id: ua, call: http.request, connection: crm, with: {{ method: DELETE, of: a }} }}] }}
      - {{ id: b, call: http.request, connection: crm, with: {{ method: POST, what: b }}, undo: [{undo}] }}
      - {{ id: z, call: http.request, connection: crm, with: {{ method: POST, what: z }}, undo: [{{ id: uz, call: http.request, connection: crm, with: {{ method: DELETE, of: z }} }}] }}
      - {{ id: c, call: http.request, connection: crm, with: {{ method: POST, what: "{{{{ event.data.c }}}}" }} }}
    catch:
      - {{ id: back, compensate: all }}
      - {{ id: over, stop: {{ status: failed }} }}
"#
    )
}

/// A run that has undone `z` and is about to undo `b`.
fn undoing(undo: &str, class: EffectClass) -> Driver {
    let mut driver = Driver::new(plan(&steps(undo)), class, json!({ "c": 1 }));
    driver.start();
    for id in ["a", "b", "z"] {
        driver.done(json!({ "id": id }));
    }
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    driver.done(json!({}));
    driver
}

/// What undoes `b` is lost on its way.
fn lost(undo: &str) -> Vec<Entry> {
    let mut driver = undoing(undo, EffectClass::Blind);
    driver.fail(failure("timeout", None, Sent::Maybe, false));
    assert_eq!(driver.code(), "effect_unknown");
    driver.entries()
}

fn ledger(journals: &[&[Entry]]) -> Ledger {
    Ledger::fold((1..).map(RunId::from_raw).zip(journals.iter().copied()))
}

fn of<'l>(ledger: &'l Ledger, step: &str) -> (&'l EffectKey, &'l EffectRecord) {
    let mut found = ledger.iter().filter(|(_, record)| &*record.step == step);
    let one = found.next().unwrap();
    assert!(found.next().is_none(), "{step} once");
    one
}

fn state(ledger: &Ledger, step: &str) -> &'static str {
    of(ledger, step).1.state.as_str()
}

fn said(entries: &[Entry], step: &str, verdict: Verdict, after: u64) -> Vec<Entry> {
    let (key, record) = {
        let ledger = ledger(&[entries]);
        let (key, record) = of(&ledger, step);
        (*key, record.clone())
    };
    assert!(record.is_open(), "{record:?}");
    let decided = Decided {
        step: Arc::from(step),
        key,
        verdict,
        looked: false,
        by: Arc::from("ann"),
        note: Arc::from(""),
        at: START.plus(seconds(after)),
    };
    entries.iter().cloned().chain([Entry::Decided(decided)]).collect()
}

fn happened() -> Verdict {
    let output = Document::null();
    Verdict::Happened { output }
}

/// A retry with an event with which `c` succeeds: what it sends and how it ends.
fn again(undo: &str, class: EffectClass, journals: &[&[Entry]]) -> (Driver, Vec<String>) {
    let (ledger, data) = (ledger(journals), event(json!({ "c": 2 })));
    let number = i64::try_from(journals.len()).unwrap() + 1;
    let mut driver = Driver::with(plan(&steps(undo)), class, data, head(number), ledger);
    driver.now = START.plus(seconds(7200));
    driver.start();
    let mut sent = Vec::new();
    while !driver.commands.is_empty() {
        let Command::Call(call) = driver.done(json!({})) else {
            panic!()
        };
        assert_eq!(call.effect.unwrap().mode, SendMode::First);
        sent.push(call.step);
    }
    (driver, sent)
}

fn shown(undo: &str, class: EffectClass, entries: &[Entry]) -> ReplayPreview {
    let past = Past {
        recorded: entries,
        kept: &[],
        replaced: None,
    };
    let event = Arc::new(event(json!({ "c": 2 })));
    let now = START.plus(seconds(7200));
    let world = World { class };
    preview(
        &plan(&steps(undo)),
        &head(2),
        &event,
        &ledger(&[entries]),
        past,
        &world,
        now,
    )
}

fn answered(preview: &ReplayPreview) -> Vec<&str> {
    preview.answered.iter().map(|effect| effect.step.as_str()).collect()
}

fn unknown(preview: &ReplayPreview) -> Vec<(&str, bool)> {
    let unknown = preview.unknown.iter();
    unknown.map(|effect| (effect.step.as_str(), effect.sends)).collect()
}

#[test]
fn what_may_have_been_undone_is_neither_answered_nor_sent() {
    let entries = lost(UNDO);
    let known = ledger(&[&entries]);
    // `z` was undone before the run ended, the turn of `a` never came.
    let states = ["t.try.a", BOOKED, UNDOES, "t.try.z", "t.try.z.undo.uz"].map(|step| state(&known, step));
    assert_eq!(states, ["confirmed", "unknown", "unknown", "undone", "undone"]);
    // The person says what became of what undoes it, not of the booking.
    assert!(!of(&known, BOOKED).1.is_open());
    let (driver, sent) = again(UNDO, EffectClass::Blind, &[&entries]);
    assert!(sent.is_empty(), "{sent:?}");
    let Status::Failed { code, message, step } = &driver.last.status else {
        panic!("{:?}", driver.last.status)
    };
    assert_eq!((code.as_str(), step.as_deref()), ("effect_unknown", Some(BOOKED)));
    let command = format!("weir run resolve {} {UNDOES}", RunId::from_raw(1));
    assert!(message.contains(&command), "{message}");
    let preview = shown(UNDO, EffectClass::Blind, &entries);
    assert_eq!(answered(&preview), ["t.try.a"]);
    assert_eq!(unknown(&preview), [(UNDOES, false), (BOOKED, false)]);

    // The decision is about both runs, and stands in the journal of the first.
    let entries = said(&entries, UNDOES, happened(), 8000);
    let second = driver.entries();
    let (third, sent) = again(UNDO, EffectClass::Blind, &[&entries, &second]);
    assert_eq!(sent, [BOOKED, "t.try.z", "t.try.c"]);
    assert_eq!(third.last.status, Status::Succeeded);
}

#[test]
fn what_a_person_says_was_undone_is_done_anew_and_can_be_undone_anew() {
    let entries = said(&lost(UNDO), UNDOES, happened(), 60);
    let known = ledger(&[&entries]);
    assert_eq!((state(&known, BOOKED), state(&known, UNDOES)), ("undone", "undone"));
    let preview = shown(UNDO, EffectClass::Blind, &entries);
    assert_eq!((answered(&preview), unknown(&preview)), (vec!["t.try.a"], vec![]));
    assert_eq!((preview.new[0].step.as_str(), preview.new[0].undone), (BOOKED, true));
    let (driver, sent) = again(UNDO, EffectClass::Blind, &[&entries]);
    assert_eq!(sent, [BOOKED, "t.try.z", "t.try.c"]);
    assert_eq!(driver.last.status, Status::Succeeded);
    // What was done since stands: a third run is answered for it.
    let second = driver.entries();
    let (third, sent) = again(UNDO, EffectClass::Blind, &[&entries, &second]);
    assert_eq!((sent, third.last.status), (Vec::new(), Status::Succeeded));

    // It fails again: what undoes it is sent again, under another key.
    let first = *of(&known, UNDOES).0;
    let data = event(json!({ "c": 3 }));
    let blind = EffectClass::Blind;
    let mut driver = Driver::with(plan(&steps(UNDO)), blind, data, head(2), known);
    driver.start();
    driver.done(json!({}));
    driver.done(json!({}));
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    driver.done(json!({}));
    let Command::Call(undoes) = driver.done(json!({})) else {
        panic!()
    };
    assert_eq!(undoes.step, UNDOES);
    assert_ne!(undoes.effect.unwrap().key, first);

    // Whoever erred says so, and the booking stands.
    let corrected = said(&entries, UNDOES, Verdict::NotHappened, 120);
    assert_eq!(state(&ledger(&[&corrected]), BOOKED), "confirmed");
}

#[test]
fn what_was_not_undone_stands() {
    let entries = said(&lost(UNDO), UNDOES, Verdict::NotHappened, 60);
    let preview = shown(UNDO, EffectClass::Blind, &entries);
    assert_eq!(answered(&preview), ["t.try.a", BOOKED]);
    let (driver, sent) = again(UNDO, EffectClass::Blind, &[&entries]);
    assert_eq!(sent, ["t.try.z", "t.try.c"]);
    assert_eq!(driver.last.status, Status::Succeeded);
}

#[test]
fn all_steps_that_undo_must_have_taken_place() {
    let two = format!("{UNDO}, {{ id: rest, sleep: 1s }}, {}", UNDO.replace("ub", "uc"));
    // The second is lost, and took place.
    let mut driver = undoing(&two, EffectClass::Blind);
    driver.done(json!({}));
    driver.due();
    driver.fail(failure("timeout", None, Sent::Maybe, false));
    let entries = driver.entries();
    assert_eq!(state(&ledger(&[&entries]), BOOKED), "unknown");
    let through = said(&entries, "t.try.b.undo.uc", happened(), 60);
    assert_eq!(state(&ledger(&[&through]), BOOKED), "undone");
    // It did not, and the first did: only a look at the booking tells whether it stands.
    let half = said(&entries, "t.try.b.undo.uc", Verdict::NotHappened, 60);
    // Likewise when the first is lost and the second never left.
    let first = said(&lost(&two), UNDOES, happened(), 60);
    for entries in [half, first] {
        let (driver, sent) = again(&two, EffectClass::Blind, &[&entries]);
        assert_eq!((sent.len(), driver.code().as_str()), (0, "effect_unknown"));
        let Status::Failed { message, .. } = &driver.last.status else {
            panic!()
        };
        let command = format!("weir run resolve {} {BOOKED})", RunId::from_raw(1));
        assert!(message.contains(&command), "{message}");
        let preview = shown(&two, EffectClass::Blind, &entries);
        assert_eq!(unknown(&preview), [(BOOKED, false)]);

        let stands = said(&entries, BOOKED, happened(), 90);
        assert_eq!(state(&ledger(&[&stands]), BOOKED), "confirmed");
        assert_eq!(again(&two, EffectClass::Blind, &[&stands]).1, ["t.try.z", "t.try.c"]);
        // The last word counts.
        let gone = said(&stands, BOOKED, Verdict::NotHappened, 120);
        assert_eq!(state(&ledger(&[&gone]), BOOKED), "undone");
        assert_eq!(
            again(&two, EffectClass::Blind, &[&gone]).1,
            [BOOKED, "t.try.z", "t.try.c"]
        );
    }
}

#[test]
fn a_run_that_is_ended_while_it_undoes_knows_what_it_undid() {
    let cancel = |driver: &mut Driver| {
        driver.input(Input::Mail(Mail::Cancel { by: "me", reason: "" }));
    };
    // What was on its way came back; nothing of `a` had begun.
    let mut driver = undoing(UNDO, KEYED);
    cancel(&mut driver);
    driver.done(json!({}));
    assert_eq!(driver.last.status, Status::Canceled);
    let known = ledger(&[&driver.entries()]);
    let states = ["t.try.a", BOOKED, "t.try.z"].map(|step| state(&known, step));
    assert_eq!(states, ["confirmed", "undone", "undone"]);
    // It came back as refused: it stands.
    let mut driver = undoing(UNDO, KEYED);
    cancel(&mut driver);
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    assert_eq!(state(&ledger(&[&driver.entries()]), BOOKED), "confirmed");
    // Nobody knows. The provider would know its key, which says nothing about the booking.
    let mut driver = undoing(UNDO, KEYED);
    cancel(&mut driver);
    driver.fail(failure("timeout", None, Sent::Maybe, false));
    let entries = driver.entries();
    let (driver, sent) = again(UNDO, KEYED, &[&entries]);
    assert_eq!((sent.len(), driver.code().as_str()), (0, "effect_unknown"));
}

#[test]
fn what_undoes_an_item_is_about_that_item() {
    let steps = r#"
  - id: t
    try:
      - id: each
        for_each: "{{ event.data.seats }}"
        key: "{{ item }}"
        do:
          - { id: seat, call: http.request, connection: crm, with: { method: POST, seat: "{{ item }}" }, undo: [{ id: un, call: http.request, connection: crm, with: { method: DELETE, seat: "{{ item }}" } }] }
      - { id: c, call: http.request, connection: crm, with: { method: POST, what: c } }
    catch: [{ id: back, compensate: all }]
"#;
    let data = json!({ "seats": ["a", "b", "c"] });
    let mut driver = Driver::new(plan(steps), EffectClass::Blind, data);
    driver.start();
    for _ in 0..3 {
        driver.done(json!({}));
    }
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    driver.done(json!({}));
    driver.fail(failure("timeout", None, Sent::Maybe, false));
    let states = |entries: &[Entry]| {
        let known = ledger(&[entries]);
        ["a", "b", "c"].map(|seat| state(&known, &format!("t.try.each[{seat}].seat")))
    };
    let entries = driver.entries();
    assert_eq!(states(&entries), ["confirmed", "unknown", "undone"]);
    let entries = said(&entries, "t.try.each[b].seat.undo.un", happened(), 60);
    assert_eq!(states(&entries), ["confirmed", "undone", "undone"]);
}

#[test]
fn a_journal_that_does_not_say_what_comes_last_leaves_it_to_a_person() {
    let old = |entry: Entry| match entry {
        Entry::Compensating(mut compensating) => {
            assert_eq!(compensating.last.len(), compensating.of.len());
            compensating.last.clear();
            Entry::Compensating(compensating)
        }
        entry => entry,
    };
    let entries: Vec<Entry> = lost(UNDO).into_iter().map(old).collect();
    let entries = said(&entries, UNDOES, happened(), 60);
    assert_eq!(state(&ledger(&[&entries]), BOOKED), "unknown");
    let entries = said(&entries, BOOKED, Verdict::NotHappened, 90);
    assert_eq!(state(&ledger(&[&entries]), BOOKED), "undone");
}
