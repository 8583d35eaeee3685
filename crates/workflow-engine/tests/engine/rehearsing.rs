//! Previews of runs that wait: what came is told to them, and only what is open ends them.

use std::sync::Arc;

use serde_json::{Value, json};
use weir_workflow_engine::{
    EffectClass, Entry, Event, EventId, Ledger, Mail, Past, Rehearsal, ReplayPreview, RunId, Sent, restart,
};

use crate::support::{Driver, START, Shop, World, event, failure, head, plan, plan_in, preview, seconds};

const STEPS: &str = r#"
  - { id: pay, call: stripe.refunds.create, with: { charge: "{{ event.data.id }}" } }
  - id: paid
    wait_for: { event: stripe.charge.refunded, key: "{{ arrived.data.order }}", equals: "{{ event.data.id }}" }
    timeout: 7d
  - { id: ship, call: http.request, connection: crm, with: { method: POST, order: "{{ steps.paid.data.order }}" } }
  - { id: tell, call: http.request, connection: crm, with: { method: PUT, order: "{{ event.data.id }}" } }
"#;

fn refund(order: &str) -> Event {
    Event {
        uid: EventId::from_raw(104),
        kind: "charge.refunded".to_owned(),
        ..event(json!({ "order": order }))
    }
}

/// A run that failed at its last step.
fn failed() -> Vec<Entry> {
    let mut driver = Driver::new(plan(STEPS), EffectClass::Blind, json!({ "id": "o_1" }));
    driver.start();
    driver.done(json!({ "id": "re_1" }));
    driver.input(weir_workflow_engine::Input::Mail(Mail::Event(&refund("o_1"))));
    driver.done(json!({ "at": "noon" }));
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    assert_eq!(driver.code(), "invalid");
    driver.entries()
}

/// What its replay from a step would do, when these events have come.
fn shown(entries: &[Entry], from: Option<&str>, data: &Value, came: &[Event]) -> ReplayPreview {
    let (plan, head, event) = (plan(STEPS), head(2), Arc::new(event(data.clone())));
    let ledger = Ledger::fold([(RunId::from_raw(1), entries)]);
    let world = World {
        class: EffectClass::Blind,
    };
    let taken = from.map(|from| restart((&plan, &plan), &head, &event, entries, from).unwrap());
    let past = Past {
        recorded: entries,
        kept: taken.as_ref().map_or(&[], |taken| &taken.entries),
        replaced: None,
    };
    let now = START.plus(seconds(3600));
    let mut rehearsal = Rehearsal::begin((&plan, &head, &event), &ledger, past, &world, now);
    for event in came {
        rehearsal.hear(Mail::Event(event), &world);
    }
    rehearsal.finish()
}

fn check(preview: &ReplayPreview, answered: &[&str], new: &[&str], note: Option<&str>) {
    let steps = |effects: &[weir_workflow_engine::PreviewEffect]| -> Vec<String> {
        effects.iter().map(|effect| effect.step.clone()).collect()
    };
    assert_eq!(
        (steps(&preview.answered), steps(&preview.new), preview.note.as_deref()),
        (
            answered.iter().map(ToString::to_string).collect(),
            new.iter().map(ToString::to_string).collect(),
            note
        )
    );
}

#[test]
fn a_wait_that_is_taken_over_ends_no_preview() {
    let entries = failed();
    let data = json!({ "id": "o_1" });
    let at_the_failed = shown(&entries, Some("tell"), &data, &[]);
    check(&at_the_failed, &[], &["tell"], None);
    assert!(!at_the_failed.in_part);
    let behind_it = shown(&entries, Some("ship"), &data, &[]);
    check(&behind_it, &["ship"], &["tell"], None);
    assert!(!behind_it.in_part);
}

#[test]
fn a_wait_that_is_done_again_goes_on_when_its_event_is_there() {
    let entries = failed();
    let data = json!({ "id": "o_1" });
    for from in [None, Some("pay"), Some("paid")] {
        let answered: &[&str] = if from == Some("paid") {
            &["ship"]
        } else {
            &["pay", "ship"]
        };
        let came = shown(&entries, from, &data, &[refund("o_2"), refund("o_1")]);
        check(&came, answered, &["tell"], None);
        assert!(!came.in_part, "{came:?}");
        // The event is gone, or it never came.
        let open = shown(&entries, from, &data, &[]);
        let note = Some("the run would wait at `paid` before it goes on");
        check(&open, &answered[..answered.len() - 1], &[], note);
        assert!(open.in_part);
    }
}

#[test]
fn an_edited_event_waits_for_another_one() {
    let entries = failed();
    let shown = shown(&entries, Some("pay"), &json!({ "id": "o_2" }), &[refund("o_1")]);
    let note = Some("the run would wait at `paid` before it goes on");
    check(&shown, &[], &["pay"], note);
    assert!(shown.new[0].changed);
}

/// A replay that sends nothing but the news of its failure would be in vain.
#[test]
fn a_replay_that_only_tells_of_its_failure_is_stuck() {
    let document = "name: bench\non: { event: stripe.payment_intent.succeeded, hydrate: never }\n\
        on_failure: [{ id: told, call: http.request, connection: crm, with: { method: POST, why: \"{{ error.code }}\" } }]\n\
        steps: [{ id: pay, call: http.request, connection: crm, with: { method: POST, n: 1 } }]\n";
    let plan = || plan_in(&Shop::default(), document).unwrap();
    let class = EffectClass::Blind;
    let mut driver = Driver::new(plan(), class, json!({}));
    driver.start();
    driver.fail(failure("timeout", None, Sent::Maybe, false));
    driver.done(json!({}));
    assert_eq!(driver.code(), "effect_unknown");
    let entries = driver.entries();
    let ledger = Ledger::fold([(RunId::from_raw(1), entries.as_slice())]);
    let past = Past {
        recorded: &entries,
        kept: &[],
        replaced: None,
    };
    let (head, event) = (head(2), Arc::new(event(json!({}))));
    let shown = preview(
        &plan(),
        &head,
        &event,
        &ledger,
        past,
        &World { class },
        START.plus(seconds(60)),
    );
    assert_eq!(shown.stuck_at().map(|effect| effect.step.as_str()), Some("pay"));
}
