//! Runs that begin at a step of another run: what is taken over, what is done again, and where that is refused.

use std::sync::Arc;

use serde_json::{Value, json};
use weir_workflow_engine::{
    Command, Decided, EffectClass, Entry, Ledger, Past, Plan, Restart, RestartError, RunId, RunState, Sent, Status,
    Verdict, restart, story,
};

use crate::support::{
    Driver, HYDRATED, KEYED, START, Shop, World, event, failure, head, plan, plan_in, preview, seconds,
};

/// What a run of `target` that begins at `from` takes over from these entries.
fn taken(old: &Plan, target: &Plan, entries: &[Entry], data: &Value, from: &str) -> Result<Restart, RestartError> {
    restart((old, target), &head(2), &Arc::new(event(data.clone())), entries, from)
}

/// A run that begins there, as the host begins it.
fn begun(target: Plan, class: EffectClass, entries: &[Entry], restart: &Restart, data: &Value) -> Driver {
    let ledger = Ledger::fold([(RunId::from_raw(1), entries)]);
    let mut driver = Driver::with(target, class, event(data.clone()), head(2), ledger);
    driver.now = START.plus(seconds(3600));
    restart.entries.iter().for_each(|entry| driver.run.fold(entry));
    driver.rows.push((0, driver.now, restart.entries.clone()));
    driver.start();
    driver
}

fn asked(driver: &Driver) -> Vec<String> {
    let told = driver.commands.iter().map(|command| match command {
        Command::Call(call) => call.step.clone(),
        Command::Read(read) => format!("hydrate.{}", read.name),
    });
    told.collect()
}

const LINE: &str = r#"
  - { id: look, call: stripe.payment_intents.get, with: { id: "{{ event.data.id }}" } }
  - { id: pay, call: stripe.refunds.create, with: { charge: "{{ steps.look.customer }}" } }
  - { id: mail, call: http.request, connection: crm, with: { method: POST, paid: "{{ steps.pay.id }}", to: "{{ event.data.mail }}" } }
  - { id: end, set: { at: "{{ steps.mail.at }}" } }
"#;

fn data() -> Value {
    json!({ "id": "pi_1", "mail": "a@b.test" })
}

/// The third call fails.
fn failed(class: EffectClass) -> Vec<Entry> {
    let mut driver = Driver::new(plan(LINE), class, data());
    driver.start();
    driver.done(json!({ "customer": "cus_1" }));
    driver.done(json!({ "id": "re_1" }));
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    assert_eq!(driver.code(), "invalid");
    driver.entries()
}

#[test]
fn what_came_before_is_taken_over_as_it_was() {
    let entries = failed(EffectClass::Blind);
    let restart = taken(&plan(LINE), &plan(LINE), &entries, &data(), "mail").unwrap();
    assert_eq!(restart.steps, ["look", "pay"]);
    let mut driver = begun(plan(LINE), EffectClass::Blind, &entries, &restart, &data());
    assert_eq!(asked(&driver), ["mail"]);
    driver.done(json!({ "at": "noon" }));
    assert_eq!(driver.last.status, Status::Succeeded);
    assert_eq!(driver.last_set(), json!({ "at": "noon" }));
    // The story of the new run is whole, with the exchanges of what was taken over.
    let told = story(None, &driver.rows, Some(START.plus(seconds(3600))));
    let paths: Vec<&str> = told.iter().map(|step| step.path.as_str()).collect();
    assert_eq!(paths, ["look", "pay", "mail", "end"]);
    assert_eq!(told[1].attempts[0].exchanges.len(), 1);
    assert_eq!(told[1].effect.as_ref().unwrap().state, "confirmed");
    // It says when that came back, and that it was not sent again.
    for step in &told[..2] {
        assert!(
            step.started_at <= step.finished_at && step.finished_at < Some(driver.now),
            "{step:?}"
        );
        assert_eq!(
            step.note.as_deref(),
            Some("taken over from the run before, not sent again")
        );
    }
    assert_eq!(told[2].note, None);

    // A preview says the same beforehand.
    let (event, ledger) = (
        Arc::new(event(data())),
        Ledger::fold([(RunId::from_raw(1), entries.as_slice())]),
    );
    let past = Past {
        recorded: &entries,
        kept: &restart.entries,
        replaced: None,
    };
    let world = World {
        class: EffectClass::Blind,
    };
    let shown = preview(
        &plan(LINE),
        &head(2),
        &event,
        &ledger,
        past,
        &world,
        START.plus(seconds(3600)),
    );
    assert_eq!((shown.reads.len(), shown.answered.len(), shown.new.len()), (0, 0, 1));
    assert_eq!((shown.new[0].step.as_str(), shown.new[0].class), ("mail", "blind"));
}

#[test]
fn a_run_that_began_in_the_middle_survives_a_crash() {
    let entries = failed(KEYED);
    let restart = taken(&plan(LINE), &plan(LINE), &entries, &data(), "mail").unwrap();
    let mut driver = begun(plan(LINE), KEYED, &entries, &restart, &data());
    driver.crash();
    assert_eq!(asked(&driver), ["mail"]);
    driver.done(json!({ "at": "noon" }));
    assert_eq!(driver.last.status, Status::Succeeded);
}

#[test]
fn an_effect_at_or_behind_the_step_is_still_answered_by_the_ledger() {
    let entries = failed(EffectClass::Blind);
    let restart = taken(&plan(LINE), &plan(LINE), &entries, &data(), "pay").unwrap();
    assert_eq!(restart.steps, ["look"]);
    let driver = begun(plan(LINE), EffectClass::Blind, &entries, &restart, &data());
    assert_eq!(asked(&driver), ["mail"], "pay took place already");
    // With another event the request of the same step is another one.
    let other = json!({ "id": "pi_1", "mail": "other@b.test" });
    let restart = taken(&plan(LINE), &plan(LINE), &entries, &other, "mail").unwrap();
    let driver = begun(plan(LINE), EffectClass::Blind, &entries, &restart, &other);
    let keys = driver.commands.iter().filter_map(|command| match command {
        Command::Call(call) => call.effect.as_ref().map(|effect| effect.key),
        Command::Read(_) => None,
    });
    let known = Ledger::fold([(RunId::from_raw(1), entries.as_slice())]);
    assert!(keys.into_iter().all(|key| known.get(&key).is_none()));
}

#[test]
fn a_run_begins_only_where_it_came_to() {
    let entries = failed(KEYED);
    let refused = |from: &str| taken(&plan(LINE), &plan(LINE), &entries, &data(), from).unwrap_err();
    assert_eq!(
        refused("end"),
        RestartError::NotThrough {
            step: "mail".to_owned()
        }
    );
    assert_eq!(
        refused("nowhere"),
        RestartError::UnknownStep {
            step: "nowhere".to_owned(),
            version: 4
        }
    );
    assert!(matches!(refused("pay.then.mail"), RestartError::UnknownStep { .. }));
}

#[test]
fn another_version_takes_over_what_it_has_in_the_same_place() {
    let entries = failed(KEYED);
    let to = |steps: &str| taken(&plan(LINE), &plan(steps), &entries, &data(), "mail");
    // A step was removed: the others are taken over.
    let without = r#"
  - { id: pay, call: stripe.refunds.create, with: { charge: "ch_2" } }
  - { id: mail, call: http.request, connection: crm, with: { method: POST, new: "{{ steps.pay.id }}" } }
"#;
    let restart = to(without).unwrap();
    assert_eq!(restart.steps, ["pay"]);
    let driver = begun(plan(without), KEYED, &entries, &restart, &data());
    assert_eq!(asked(&driver), ["mail"]);
    // A step was added before: it has never run.
    let added = format!(
        "  - {{ id: fresh, set: {{ a: 1 }} }}\n{}",
        LINE.trim_start_matches('\n')
    );
    assert_eq!(
        to(&added).unwrap_err(),
        RestartError::NotThrough {
            step: "fresh".to_owned()
        }
    );
    // A step became another kind of step.
    let other = LINE.replace(
        r#"{ id: pay, call: stripe.refunds.create, with: { charge: "{{ steps.look.customer }}" } }"#,
        r#"{ id: pay, set: { id: "x" } }"#,
    );
    assert_eq!(
        to(&other).unwrap_err(),
        RestartError::Changed {
            step: "pay".to_owned(),
            version: 4
        }
    );
    assert!(matches!(
        to("  - { id: letter, set: { a: 1 } }\n").unwrap_err(),
        RestartError::UnknownStep { .. }
    ));
}

const BLOCKS: &str = r#"
  - id: safe
    try:
      - { id: first, call: http.request, connection: crm, with: { method: POST, n: 1 } }
      - { id: second, call: http.request, connection: crm, with: { method: POST, n: 2 } }
    catch:
      - { id: undo, call: http.request, connection: crm, with: { method: POST, n: 3 } }
  - id: beside
    parallel:
      left:
        - { id: l, call: http.request, connection: crm, with: { method: POST, n: 4 } }
      right:
        - { id: r, call: http.request, connection: crm, with: { method: POST, n: 5 } }
        - { id: r2, call: http.request, connection: crm, with: { method: POST, n: 6 } }
"#;

#[test]
fn a_run_begins_inside_of_branches_and_keeps_those_that_are_through() {
    let mut driver = Driver::new(plan(BLOCKS), KEYED, json!({}));
    driver.start();
    driver.done(json!(1));
    driver.done(json!(2));
    assert_eq!(asked(&driver), ["beside.left.l", "beside.right.r"]);
    driver.done(json!(4));
    driver.done(json!(5));
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    let entries = driver.entries();
    let steps = |from: &str| {
        let restart = taken(&plan(BLOCKS), &plan(BLOCKS), &entries, &json!({}), from)?;
        // Nothing is in the ledger: so it shows what is not taken over.
        let mut driver = Driver::new(plan(BLOCKS), KEYED, json!({}));
        restart.entries.iter().for_each(|entry| driver.run.fold(entry));
        driver.start();
        Ok::<_, RestartError>(asked(&driver))
    };
    assert_eq!(steps("beside.right.r2").unwrap(), ["beside.right.r2"]);
    assert_eq!(steps("beside.right.r").unwrap(), ["beside.right.r"]);
    // The right branch did not come to its end: it is done again beside the left one.
    assert_eq!(steps("beside.left.l").unwrap(), ["beside.left.l", "beside.right.r"]);
    assert_eq!(steps("beside").unwrap(), ["beside.left.l", "beside.right.r"]);
    assert_eq!(steps("safe.try.second").unwrap(), ["safe.try.second"]);
    assert_eq!(
        steps("safe.catch.undo").unwrap_err(),
        RestartError::TakesCare {
            step: "safe.catch.undo".to_owned(),
            around: Some("safe".to_owned())
        }
    );
}

/// Whatever step a run begins at, it comes to the same end as the run it was taken from, and sends nothing again.
#[test]
fn every_step_of_a_run_can_be_begun_at() {
    let shop = Shop {
        hydrate: weir_workflow_engine::HydrateMode::Always,
        ..Shop::default()
    };
    let compile = || plan_in(&shop, HYDRATED).unwrap();
    let data = json!({ "lines": ["a", "skip", "b"] });
    let mut first = Driver::new(compile(), EffectClass::Blind, data.clone());
    first.start();
    first.done(json!({ "amount": 5 }));
    while !first.commands.is_empty() {
        first.done(json!({ "ok": true }));
    }
    assert_eq!(first.last.status, Status::Succeeded);
    let entries = first.entries();
    let told = story(None, &first.rows, None);
    let paths: Vec<String> = told.into_iter().map(|step| step.path).collect();
    assert!(paths.iter().any(|path| path.contains('[')), "{paths:?}");
    for path in paths.iter().filter(|path| !path.starts_with("hydrate.")) {
        let restart =
            taken(&compile(), &compile(), &entries, &data, path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(restart.steps[0], "hydrate.payment_intent", "{path}");
        let again = begun(compile(), EffectClass::Blind, &entries, &restart, &data);
        assert!(again.commands.is_empty(), "{path}: {:?}", again.commands);
        assert_eq!(again.last.status, Status::Succeeded, "{path}");
        assert_eq!(again.last_set(), first.last_set(), "{path}");
    }
}

#[test]
fn an_unknown_effect_is_not_taken_over() {
    let mut driver = Driver::new(plan(LINE), EffectClass::Blind, data());
    driver.start();
    driver.done(json!({ "customer": "cus_1" }));
    driver.fail(failure("timeout", None, Sent::Maybe, false));
    assert_eq!(driver.code(), "effect_unknown");
    let entries = driver.entries();
    let at = |from: &str| taken(&plan(LINE), &plan(LINE), &entries, &data(), from);
    assert_eq!(
        at("mail").unwrap_err(),
        RestartError::NotThrough { step: "pay".to_owned() }
    );
    let restart = at("pay").unwrap();
    let mut run = RunState::new(head(2), Arc::new(event(data())), &plan(LINE));
    restart.entries.iter().for_each(|entry| run.fold(entry));
    assert_eq!(run.status(), Status::Running);
}

const LIMITED: &str = r#"
  - id: each
    for_each: "{{ event.data.l }}"
    key: "{{ item }}"
    concurrency: 2
    timeout: 2h
    on_error: collect
    do:
      - { id: first, call: http.request, connection: crm, with: { method: POST, item: "{{ item }}" } }
      - { id: pause, sleep: 3h }
  - { id: end, call: http.request, connection: crm, with: { method: POST, each: "{{ steps.each }}" } }
"#;

#[test]
fn the_time_of_a_step_begins_anew_in_a_run_that_begins_in_it() {
    let data = json!({ "l": ["a", "b", "c"] });
    let mut driver = Driver::new(plan(LIMITED), EffectClass::Blind, data.clone());
    driver.start();
    driver.done(json!({ "id": 1 }));
    driver.done(json!({ "id": 2 }));
    driver.due();
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    assert_eq!(driver.code(), "invalid");
    let entries = driver.entries();

    // Behind it, it is taken over with what it gave when its time was over.
    let restart_at_end = taken(&plan(LIMITED), &plan(LIMITED), &entries, &data, "end").unwrap();
    let after = begun(plan(LIMITED), EffectClass::Blind, &entries, &restart_at_end, &data);
    assert_eq!(asked(&after), ["end"]);

    // Inside of it, nothing that its end has cut off stays so: it has its time again, and other items theirs.
    let restart_inside = taken(&plan(LIMITED), &plan(LIMITED), &entries, &data, "each[a].first").unwrap();
    let mut inside = begun(plan(LIMITED), EffectClass::Blind, &entries, &restart_inside, &data);
    assert_eq!(
        asked(&inside),
        Vec::<String>::new(),
        "what was done is answered by the ledger"
    );
    assert_eq!(
        inside.last.due,
        Some(START.plus(seconds(7200))),
        "counted from the start of the run"
    );
    inside.crash();
    inside.due();
    let told = story(Some(&inside.plan), &inside.rows, None);
    let of = |path: &str| told.iter().find(|step| step.path == path).map(|step| step.status);
    assert_eq!(
        (of("each[a].first"), of("each[b].first")),
        (Some("answered"), Some("answered"))
    );
    assert_eq!(asked(&inside), ["end"]);
}

/// What a person said was not done needs no undoing.
#[test]
fn what_was_in_doubt_is_not_when_somebody_said_that_it_was_not_done() {
    const DOUBT: &str = r#"
  - { id: car, call: http.request, connection: crm, with: { method: POST, what: car }, on_error: continue, undo: [{ id: no_car, call: http.request, connection: crm, with: { method: DELETE, what: car } }] }
  - id: rest
    try:
      - { id: pay, call: http.request, connection: crm, with: { method: POST, what: pay } }
    finally: [{ id: noted, set: { n: 1 } }]
  - { id: end, set: { n: 2 } }
"#;
    let document = format!(
        "name: bench\non: {{ event: stripe.payment_intent.succeeded, hydrate: never }}\non_failure: [{{ id: back, compensate: all, on_error: continue }}]\nsteps:{DOUBT}"
    );
    let plan = || plan_in(&Shop::default(), &document).unwrap();
    let back = |driver: &Driver| {
        let told = story(None, &driver.rows, None);
        let back = told.into_iter().find(|step| step.path == "on_failure.back").unwrap();
        (back.status, back.note.unwrap_or_default())
    };
    let mut driver = Driver::new(plan(), KEYED, json!({}));
    driver.start();
    driver.fail(failure("timeout", None, Sent::Maybe, false));
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    assert_eq!(driver.code(), "invalid");
    let (status, note) = back(&driver);
    assert!(
        note.contains("`car`: nobody knows whether it took place"),
        "{status} {note}"
    );
    let mut entries = driver.entries();
    let restart = taken(&plan(), &plan(), &entries, &json!({}), "rest").unwrap();
    for verdict in [None, Some(Verdict::NotHappened)] {
        let is_said = verdict.is_some();
        if let Some(verdict) = verdict {
            let ledger = Ledger::fold([(RunId::from_raw(1), entries.as_slice())]);
            let (key, record) = ledger.iter().find(|(_, record)| record.is_open()).unwrap();
            entries.push(Entry::Decided(Decided {
                step: Arc::clone(&record.step),
                key: *key,
                verdict,
                looked: false,
                by: Arc::from("ann"),
                note: Arc::from(""),
                at: START.plus(seconds(60)),
            }));
        }
        let mut again = begun(plan(), KEYED, &entries, &restart, &json!({}));
        assert_eq!(asked(&again), ["rest.try.pay"]);
        again.fail(failure("invalid", Some(400), Sent::Never, false));
        let (status, note) = back(&again);
        assert_eq!(note.contains("`car`"), !is_said, "{status} {note}");
    }
}

#[test]
fn an_item_that_is_not_there_is_told_with_those_that_are() {
    let steps = "  - { id: each, for_each: \"{{ event.data.lines }}\", key: \"{{ item }}\", do: [{ id: pay, call: http.request, connection: crm, with: { method: POST, n: \"{{ item }}\" } }] }\n";
    let data = json!({ "lines": ["one", "two"] });
    let mut driver = Driver::new(plan(steps), KEYED, data.clone());
    driver.start();
    driver.done(json!({}));
    driver.fail(failure("invalid", Some(400), Sent::Never, false));
    let entries = driver.entries();
    assert!(taken(&plan(steps), &plan(steps), &entries, &data, "each[two].pay").is_ok());
    let refused = taken(&plan(steps), &plan(steps), &entries, &data, "each[2].pay").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "`each` has no item `2` in the run; it has `one`, `two`"
    );
}
