//! The ordinary way of a run: decisions as snapshots, steps, branches, loops, stops, limits.

use serde_json::json;
use weir_workflow_engine::{
    Command, Document, Entry, Input, MAX_ENTRIES_PER_DECISION, MAX_ITEMS, MAX_RUN_BYTES, Mail, SendMode, Sent, Status,
    encode,
};

use crate::support::{Driver, KEYED, START, Shop, failure, plan, plan_in, seconds};

/// The benchmark workload: one read as a step, one effect.
pub(crate) const HYDRATE_FLOW: &str = r#"
name: bench
on: { event: stripe.payment_intent.succeeded, connection: bench-stripe, hydrate: never }
steps:
  - id: payment
    call: stripe.payment_intents.get
    with: { id: "{{ event.data.object.id }}" }
  - id: deal
    call: http.request
    connection: bench-crm
    with:
      method: POST
      path: "/crm/deals/{{ event.data.object.id }}"
      body:
        event_id: "{{ event.id }}"
        amount: "{{ steps.payment.amount }}"
        currency: "{{ steps.payment.currency }}"
        receipt_email: "{{ steps.payment.receipt_email }}"
"#;

#[test]
fn a_read_and_an_effect_cost_three_commits_of_which_two_come_before_the_effect() {
    let mut driver = Driver::new(
        plan_in(&Shop::default(), HYDRATE_FLOW).unwrap(),
        KEYED,
        json!({ "object": { "id": "pi_1" } }),
    );
    let started = driver.start().clone();
    assert!(started.commands.iter().all(|command| !command.durable_first()));
    driver.done(json!({ "amount": 1999, "currency": "eur", "receipt_email": "a@b.test", "more": [1, 2] }));
    let intended = driver.last.clone();
    assert!(intended.commands.iter().all(Command::durable_first));
    driver.done(json!({ "id": 1 }));
    assert_eq!(driver.last.status, Status::Succeeded);
    let rows: Vec<String> = driver
        .rows
        .iter()
        .map(|(_, at, entries)| String::from_utf8(encode(entries, *at)).unwrap())
        .collect();
    let whole = rows.concat();
    assert_eq!(whole.matches("\"more\":[1,2]").count(), 1, "a response is stored once");
    insta::assert_debug_snapshot!("hydrate_flow_decisions", (&started, &intended, &driver.last));
    insta::assert_snapshot!("hydrate_flow_journal", rows.join("\n"));
}

const CRM: &str = r#"
  - id: contact
    call: hubspot.contacts.search
    connection: hubspot
    with: { email: "{{ event.data.email }}" }
  - id: known
    if: "{{ steps.contact.total > 0 }}"
    then:
      - { id: update, call: hubspot.contacts.update, connection: hubspot, with: { id: "{{ steps.contact.results[0].id }}", paid: "{{ money(event.data.amount, 'eur') }}" } }
    else:
      - { id: create, call: hubspot.contacts.create, connection: hubspot, with: { properties: { email: "{{ event.data.email }}" } } }
  - id: note
    set: { text: "{{ event.data.email }}: {{ steps.known.id }}", updated: "{{ steps.update.id | default(none) }}", status: "{{ results.create.status }}" }
"#;

#[test]
fn a_call_may_ask_for_every_page() {
    let steps = r#"
  - { id: one, call: hubspot.contacts.search, connection: hubspot, with: { email: a } }
  - { id: all, call: hubspot.contacts.search, connection: hubspot, with: { email: a }, all: { max: 250 } }
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    let asked = [driver.done(json!([])), driver.next_command()].map(|command| match command {
        Command::Call(call) => call.all_max,
        Command::Read(_) => panic!("a call"),
    });
    assert_eq!(asked, [None, Some(250)]);
}

#[test]
fn an_if_takes_one_branch_and_has_its_output() {
    let data = json!({ "email": "a@b.test", "amount": 123456 });
    let check =
        |found: serde_json::Value, expected_step: &str, expected_args: serde_json::Value, note: serde_json::Value| {
            let mut driver = Driver::new(plan(CRM), KEYED, data.clone());
            driver.start();
            driver.done(found);
            let Command::Call(call) = driver.done(json!({ "id": "c9" })) else {
                panic!("a call")
            };
            assert_eq!((call.step.as_str(), call.args.value()), (expected_step, &expected_args));
            assert_eq!(driver.last.status, Status::Succeeded);
            let set = driver.entries().into_iter().find_map(|entry| match entry {
                Entry::Set(set) => Some(set.output.value().clone()),
                _ => None,
            });
            assert_eq!(set, Some(note));
        };
    check(
        json!({ "total": 1, "results": [{ "id": "c1" }] }),
        "known.then.update",
        json!({ "id": "c1", "paid": "1234.56 EUR" }),
        json!({ "text": "a@b.test: c9", "updated": "c9", "status": "not_run" }),
    );
    check(
        json!({ "total": 0, "results": [] }),
        "known.else.create",
        json!({ "properties": { "email": "a@b.test" } }),
        json!({ "text": "a@b.test: c9", "updated": null, "status": "succeeded" }),
    );
}

const LOOP: &str = r#"
  - id: each
    for_each: "{{ event.data.lines }}"
    as: line
    key: "{{ line.sku }}"
    concurrency: 2
    do:
      - { id: pay, when: "{{ line.amount > 0 }}", call: http.request, connection: crm, with: { method: POST, n: "{{ index }}", sku: "{{ line.sku }}" } }
      - { id: label, set: { text: "{{ line.sku }}={{ steps.pay.ok | default('free') }}" } }
  - id: all
    set: { list: "{{ steps.each | map(attribute='text') | join(' ') }}" }
"#;

#[test]
fn a_loop_runs_as_many_items_at_a_time_as_it_may_and_keeps_their_order() {
    let lines = json!([{ "sku": "a", "amount": 1 }, { "sku": "b", "amount": 0 }, { "sku": "c", "amount": 1 }, { "sku": "d/1", "amount": 2 }]);
    let mut driver = Driver::new(plan(LOOP), KEYED, json!({ "lines": lines }));
    driver.start();
    let steps = |driver: &Driver| -> Vec<String> {
        driver
            .commands
            .iter()
            .map(|command| match command {
                Command::Call(call) => call.step.clone(),
                Command::Read(read) => read.name.clone(),
            })
            .collect()
    };
    // b is through at once, so c takes its place.
    assert_eq!(steps(&driver), ["each[a].pay", "each[c].pay"]);
    let second = driver.commands.remove(1);
    driver.answer(second.call(), &crate::support::done(json!({ "ok": "C" })));
    assert_eq!(driver.commands.len(), 2, "d begins when c is through");
    driver.done(json!({ "ok": "A" }));
    let Command::Call(last) = driver.done(json!({ "ok": "D" })) else {
        panic!("a call")
    };
    assert!(
        last.step.starts_with("each[~") && last.step.ends_with("].pay"),
        "{}",
        last.step
    );
    assert_eq!(last.args.value(), &json!({ "method": "POST", "n": 3, "sku": "d/1" }));
    assert_eq!(driver.last.status, Status::Succeeded);
    let Some(Entry::Set(all)) = driver
        .entries()
        .into_iter()
        .rev()
        .find(|entry| matches!(entry, Entry::Set(_)))
    else {
        panic!()
    };
    assert_eq!(all.output.value(), &json!({ "list": "a=A b=free c=C d/1=D" }));
}

#[test]
fn item_keys_are_what_the_item_is_never_where_it_stands() {
    let keys = |lines: serde_json::Value| {
        let steps = "  - { id: each, for_each: \"{{ event.data }}\", do: [{ id: pay, call: http.request, connection: crm, with: { method: POST } }] }";
        let mut driver = Driver::new(plan(steps), KEYED, lines);
        driver.start();
        driver
            .entries()
            .into_iter()
            .find_map(|entry| match entry {
                Entry::Items(items) => Some(items.items.iter().map(|item| item.key.to_string()).collect::<Vec<_>>()),
                _ => None,
            })
            .unwrap()
    };
    let straight = keys(json!([{ "a": 1, "b": 2 }, { "c": 3 }, { "b": 2, "a": 1 }]));
    let reversed = keys(json!([{ "c": 3 }, { "b": 2, "a": 1 }, { "a": 1, "b": 2 }]));
    assert_eq!(straight[0], reversed[1]);
    assert_eq!(straight[1], reversed[0]);
    assert_eq!(straight[2], format!("{}~2", straight[0]));
}

#[test]
fn a_loop_refuses_what_it_cannot_keep_apart_or_hold() {
    let run = |data: serde_json::Value| {
        let mut driver = Driver::new(plan(LOOP), KEYED, data);
        driver.start();
        assert!(driver.commands.is_empty());
        driver.code()
    };
    assert_eq!(
        run(json!({ "lines": [{ "sku": "a", "amount": 1 }, { "sku": "a", "amount": 1 }] })),
        "duplicate_key"
    );
    assert_eq!(run(json!({ "lines": { "sku": "a" } })), "not_a_list");
    assert_eq!(run(json!({ "lines": vec![0; MAX_ITEMS + 1] })), "too_many_items");
    assert_eq!(run(json!({ "lines": null })), "not_a_list");
    assert_eq!(run(json!({})), "expression_failed");
    assert_eq!(run(json!({ "lines": [] })), "succeeded");
}

#[test]
fn a_stop_ends_the_run_and_waits_for_effects_on_their_way() {
    let steps = r#"
  - id: each
    for_each: "{{ event.data }}"
    concurrency: 3
    do:
      - { id: halt, when: "{{ item == 'stop' }}", stop: { status: failed, reason: "met {{ item }}" } }
      - { id: pay, call: http.request, connection: crm, with: { method: POST, item: "{{ item }}" } }
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!(["a", "b"]));
    driver.start();
    assert_eq!(driver.commands.len(), 2);
    driver.input(Input::Mail(Mail::Cancel {
        by: "me",
        reason: "enough",
    }));
    assert_eq!(driver.last.status, Status::Running, "two effects are on their way");
    driver.done(json!({}));
    driver.fail(failure("timeout", None, Sent::Maybe, true));
    assert_eq!(driver.last.status, Status::Canceled, "nothing is tried again");
    assert!(matches!(driver.rows.last(), Some((_, _, entries)) if matches!(entries.last(), Some(Entry::Finished(_)))));

    let mut driver = Driver::new(plan(steps), KEYED, json!(["a", "stop", "c"]));
    driver.start();
    // The call for `a` was only just decided when the stop was reached: it is never sent.
    assert!(driver.commands.is_empty());
    let Status::Failed { code, message, step } = driver.last.status.clone() else {
        panic!()
    };
    assert_eq!((code.as_str(), message.as_str()), ("stopped", "met stop"));
    assert!(step.unwrap().ends_with("].halt"));
}

#[test]
fn a_run_has_its_own_time_limit() {
    let text = "name: slow\ntimeout: 1m\non: { event: stripe.payment_intent.succeeded, hydrate: never }\nsteps:\n  - { id: pay, call: stripe.refunds.create, with: { x: 1 } }";
    let mut driver = Driver::new(plan_in(&Shop::default(), text).unwrap(), KEYED, json!({}));
    driver.start();
    assert_eq!(driver.last.due, Some(START.plus(seconds(60))));
    driver.due();
    assert_eq!(
        driver.last.status,
        Status::Running,
        "the effect on its way is waited for"
    );
    driver.done(json!({}));
    assert_eq!(driver.code(), "timeout");
}

#[test]
fn on_error_continue_goes_on_and_tells_why() {
    let steps = r#"
  - { id: pay, call: stripe.refunds.create, on_error: continue, retry: { tries: 1 }, with: { x: 1 } }
  - { id: after, set: { ok: "{{ steps.pay.id | default('none') }}", status: "{{ results.pay.status }}", code: "{{ results.pay.error.code }}", http: "{{ results.pay.http.status }}" } }
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    driver.fail(failure("invalid", Some(422), Sent::Never, false));
    assert_eq!(driver.last.status, Status::Succeeded);
    let Some(Entry::Set(set)) = driver
        .entries()
        .into_iter()
        .find(|entry| matches!(entry, Entry::Set(_)))
    else {
        panic!()
    };
    assert_eq!(
        set.output.value(),
        &json!({ "ok": "none", "status": "failed", "code": "invalid", "http": 422 })
    );
}

#[test]
fn an_answer_that_still_holds_is_seen_as_if_it_had_come_anew() {
    let steps = r#"
  - { id: item, call: stripe.refunds.create, with: { x: 1 } }
  - { id: after, set: { http: "{{ results.item.http }}" } }
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    let mut result = crate::support::done(json!({ "id": 1 }));
    let exchange = &mut result.exchanges[0];
    exchange.status = Some(304);
    exchange.response_headers = vec![("date".to_owned(), "today".to_owned())];
    exchange.kept_headers = Some(vec![("ETag".to_owned(), "1".to_owned())]);
    let call = driver.commands[0].call();
    driver.answer(call, &result);
    assert_eq!(driver.last.status, Status::Succeeded);
    let seen = driver.entries().into_iter().find_map(|entry| match entry {
        Entry::Set(set) => Some(set.output.value().clone()),
        _ => None,
    });
    assert_eq!(
        seen,
        Some(json!({ "http": { "status": 200, "headers": { "etag": "1" } } }))
    );
}

#[test]
fn outcomes_nobody_waits_for_change_nothing() {
    let mut driver = Driver::new(plan(CRM), KEYED, json!({ "email": "a@b.test", "amount": 1 }));
    driver.start();
    let search = driver.commands[0].call();
    driver.done(json!({ "total": 0 }));
    let before = driver.run.clone();
    driver.answer(search, &crate::support::done(json!({ "total": 5 })));
    assert!(driver.last.entries.is_empty() && driver.last.commands.is_empty());
    assert_eq!(driver.run, before);
    let Command::Call(create) = &driver.commands[0] else {
        panic!()
    };
    assert_eq!(create.effect.as_ref().unwrap().mode, SendMode::First);
}

#[test]
fn a_journal_of_another_version_is_refused() {
    let other = plan("  - { id: other, set: { a: 1 } }");
    let mut driver = Driver::new(plan(CRM), KEYED, json!({ "email": "a@b.test", "amount": 1 }));
    driver.start();
    let mut run = weir_workflow_engine::RunState::new(crate::support::head(1), driver.event.clone(), &other);
    driver.entries().iter().for_each(|entry| run.fold(entry));
    let error = weir_workflow_engine::decide(&other, &run, &driver.world, Input::Recovered, START).unwrap_err();
    assert!(error.to_string().contains("step `contact`"), "{error}");
}

#[test]
fn wide_numbers_pass_through_untouched() {
    let steps = "  - { id: copy, set: { n: \"{{ event.data.n }}\", t: \"{{ event.data.n }}!\" } }";
    let mut event = crate::support::event(json!(null));
    event.data = Document::parse(br#"{"n": 123456789012345678901234567890.10}"#).unwrap();
    let mut driver = Driver::with(plan(steps), KEYED, event, crate::support::head(1), Default::default());
    driver.start();
    let Some(Entry::Set(set)) = driver.entries().into_iter().next() else {
        panic!()
    };
    assert_eq!(
        set.output.raw(),
        r#"{"n":123456789012345678901234567890.10,"t":"123456789012345678901234567890.10!"}"#
    );
}

#[test]
fn a_try_whose_arguments_fail_ends_its_call() {
    let steps = r#"
  - { id: look, call: stripe.customers.get, on_error: continue, with: { at: "{{ 1 if now < '2026-01-01T00:00:00.500Z' else event.data.nope }}" } }
  - { id: after, set: { why: "{{ results.look.error.code }}" } }
"#;
    let mut driver = Driver::new(plan(steps), KEYED, json!({}));
    driver.start();
    driver.fail(failure("http_500", Some(500), Sent::Maybe, true));
    driver.due();
    assert_eq!(driver.last.status, Status::Succeeded);
    let set = driver.entries().into_iter().find_map(|entry| match entry {
        Entry::Set(set) => Some(set.output.value().clone()),
        _ => None,
    });
    assert_eq!(set, Some(json!({ "why": "expression_failed" })));
}

/// Runs and plans are shared between the threads of a host.
#[test]
fn what_a_host_shares_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<weir_workflow_engine::Plan>();
    shared::<weir_workflow_engine::RunState>();
    shared::<weir_workflow_engine::Decision>();
}

#[test]
fn a_run_that_grows_without_bound_is_ended() {
    let steps = r#"
  - id: outer
    for_each: "{{ event.data.l }}"
    do:
      - id: inner
        for_each: "{{ event.data.l }}"
        do: [{ id: copy, set: { x: COPY } }]
on_failure: [{ id: report, set: { code: "{{ error.code }}" } }]
"#;
    let trigger = "{ event: stripe.payment_intent.succeeded, hydrate: never }";
    let check = |list: Vec<u32>, copy: &str, limit: &str| {
        let workflow = format!("name: bench\non: {trigger}\nsteps:{}", steps.replace("COPY", copy));
        let mut driver = Driver::new(
            plan_in(&Shop::default(), &workflow).unwrap(),
            KEYED,
            json!({ "l": list }),
        );
        driver.start();
        driver.go_on();
        let longest = driver.rows.iter().map(|(_, _, entries)| entries.len()).max();
        assert!(longest <= Some(MAX_ENTRIES_PER_DECISION + 1), "{longest:?}");
        let Status::Failed { code, message, step } = driver.last.status.clone() else {
            panic!("{:?}", driver.last.status)
        };
        assert_eq!(code, "run_too_large");
        assert!(message.contains(limit), "{message}");
        assert!(step.is_some_and(|step| step.starts_with("outer[")));
        assert!(driver.run.gathered_bytes() < MAX_RUN_BYTES + (1 << 20));
        let reported = driver.entries().into_iter().rev().find_map(|entry| match entry {
            Entry::Set(set) => Some(set.step.to_string()),
            _ => None,
        });
        assert_eq!(reported.as_deref(), Some("on_failure.report"));
    };
    check((0..3000).collect(), "\"{{ event.data.l }}\"", "32 MiB");
    check(vec![1; 600], "1", "200000 journal entries");
}

#[test]
fn a_long_run_is_cut_into_decisions_and_ends_as_it_should() {
    let steps = r#"
  - id: each
    for_each: "{{ event.data.l }}"
    do:
      - { id: once, set: { n: "{{ item }}" } }
      - { id: twice, set: { n: "{{ steps.once.n * 2 }}" } }
  - { id: end, set: { last: "{{ steps.each[9999].n }}" } }
"#;
    let list: Vec<u32> = (0..10_000).collect();
    let mut driver = Driver::new(plan(steps), KEYED, json!({ "l": list }));
    driver.start();
    driver.crash();
    driver.go_on();
    assert_eq!(driver.last.status, Status::Succeeded);
    assert_eq!(driver.last_set(), json!({ "last": 19_998 }));
}
