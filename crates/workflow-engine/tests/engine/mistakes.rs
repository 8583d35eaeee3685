//! What is said of an expression that fails at run time, wherever one may stand: its place in the document, what is there
//! instead of a path that leads nowhere, and the value of something that is of the wrong type.

use serde_json::{Value, json};
use weir_workflow_engine::{Definition, Entry, Input, Mail, TriggerScope, WorkflowId};

use crate::support::{Driver, KEYED, START, Shop, event, plan_in, yaml};

/// An expression that fails, and all that must be said of it.
struct Mistake {
    expression: &'static str,
    told: &'static [&'static str],
}

/// A path that leads nowhere: the known names nearby, and the one that was probably meant with its value.
const ABSENT: Mistake = Mistake {
    expression: "event.data.customer.emial", // misspelt on purpose
    told: &[
        "`event.data.customer.emial` at PLACE: ", // misspelt on purpose
        "`event.data.customer` has email, id, name (did you mean `email`, which is \"a@b.test\"?)",
    ],
};
/// A value of a type with which the operation can do nothing.
const MISFIT: Mistake = Mistake {
    expression: "event.data.customer.name * 2",
    told: &[
        "`event.data.customer.name * 2` at PLACE: ",
        "one side is a string",
        "(`event.data.customer.name` is \"Ann\")",
    ],
};
/// A step that fails, so that what takes care of that runs.
const FAILS: &str = "set: { v: \"{{ event.data.gone }}\" }";

fn data() -> Value {
    json!({
        "customer": { "email": "a@b.test", "id": 7, "name": "Ann" }, "lines": [{ "sku": "x" }, { "sku": "x" }],
        "long": "y".repeat(300), "note": null, "cents": "12", "rows": [{ "sku": "x" }, { "suk": "y" }],
    })
}

/// Lives through the run until nothing is left to do: calls succeed, people say no, and time passes. Everything that was
/// said of a step that failed, or of an event that was passed over.
fn said(rest: &str) -> Vec<String> {
    let head = "name: bench\non: { event: stripe.payment_intent.succeeded, hydrate: never }";
    let plan = plan_in(&Shop::default(), &format!("{head}\n{rest}\n"));
    let plan = plan.unwrap_or_else(|problems| panic!("{rest}: {problems:#?}"));
    let mut driver = Driver::new(plan, KEYED, data());
    driver.start();
    let mut arrived = event(json!({ "order": 7 }));
    (arrived.kind, arrived.uid) = (
        "charge.refunded".to_owned(),
        weir_workflow_engine::EventId::from_raw(78),
    );
    for _ in 0..20 {
        let asked = driver.run.open_waits().next().map(|wait| wait.step.to_string());
        if driver.last.status.is_final() {
            break;
        } else if !driver.commands.is_empty() {
            driver.done(json!({ "ok": true }));
        } else if let Some(step) = asked.filter(|step| step.starts_with("ask")) {
            let (approved, by, note) = (false, "finance", "");
            driver.input(Input::Mail(Mail::Decision {
                step: &step,
                approved,
                by,
                note,
            }));
        } else if !driver
            .entries()
            .iter()
            .any(|entry| matches!(entry, Entry::PassedOver(_)))
        {
            driver.input(Input::Mail(Mail::Event(&arrived)));
            if driver.last.entries.is_empty() && driver.last.due.is_some() {
                driver.due();
            }
        } else if driver.last.due.is_some() {
            driver.due();
        }
    }
    let told = |entry: &Entry| match entry {
        Entry::StepFailed(failed) => Some(failed.message.to_string()),
        Entry::PassedOver(passed) => Some(passed.reason.to_string()),
        _ => None,
    };
    driver.entries().iter().filter_map(told).collect()
}

/// What is said of the trigger's `where` or of flow control.
fn said_before_the_start(words: &str) -> Vec<String> {
    let text = format!("name: bench\n{words}\nsteps: [{{ id: a, set: {{ v: 1 }} }}]\n");
    Definition::parse(&yaml(&text)).unwrap_or_else(|problems| panic!("{words}: {problems:#?}"));
    let plan = plan_in(&Shop::default(), &text).unwrap_or_else(|problems| panic!("{words}: {problems:#?}"));
    let (connection, trigger) = (json!({}), json!({}));
    let scope = TriggerScope {
        connection: &connection,
        trigger: &trigger,
    };
    let event = event(data());
    let filter = plan.matches(&event, &scope, START).err();
    let turn = plan.turn(WorkflowId::from_raw(2), &event, &scope, START).err();
    filter.into_iter().chain(turn).map(|error| error.to_string()).collect()
}

fn is_told(words: &str, messages: &[String], place: &str, told: &[&str]) {
    let is_it = |message: &&String| told.iter().all(|part| message.contains(&part.replace("PLACE", place)));
    let found = messages.iter().find(is_it);
    let found = found.unwrap_or_else(|| panic!("{words} at {place}: {messages:#?}"));
    assert!(found.len() < 500, "{found}");
}

/// Steps and the place of `{{ WRONG }}` in them.
const STEPS: &[(&str, &str)] = &[
    ("set: { v: \"{{ WRONG }}\" }", "/steps/0/set/v"),
    ("set: { v: [1, { w: \"of {{ WRONG }}\" }] }", "/steps/0/set/v/1/w"),
    ("when: \"{{ WRONG }}\", set: { v: 1 }", "/steps/0/when"),
    (
        "call: stripe.customers.get, with: { id: \"{{ WRONG }}\" }",
        "/steps/0/with/id",
    ),
    (
        "call: http.request, connection: crm, with: { method: POST, body: { lines: [\"{{ WRONG }}\"] } }",
        "/steps/0/with/body/lines/0",
    ),
    (
        "call: http.request, connection: crm, when: \"{{ WRONG }}\", with: { method: POST }",
        "/steps/0/when",
    ),
    ("if: \"{{ WRONG }}\", then: [{ id: a, set: { v: 1 } }]", "/steps/0/if"),
    (
        "if: \"{{ true }}\", then: [{ id: a, set: { v: \"{{ WRONG }}\" } }]",
        "/steps/0/then/0/set/v",
    ),
    (
        "if: \"{{ false }}\", then: [{ id: a, set: { v: 1 } }], else: [{ id: b, set: { v: \"{{ WRONG }}\" } }]",
        "/steps/0/else/0/set/v",
    ),
    (
        "switch: \"{{ WRONG }}\", cases: { a: [{ id: a, set: { v: 1 } }] }",
        "/steps/0/switch",
    ),
    (
        "switch: \"{{ 'a/b' }}\", cases: { a/b: [{ id: a, set: { v: \"{{ WRONG }}\" } }] }",
        "/steps/0/cases/a~1b/0/set/v",
    ),
    (
        "switch: \"{{ 1 }}\", cases: { a: [{ id: a, set: { v: 1 } }] }, default: [{ id: b, set: { v: \"{{ WRONG }}\" } }]",
        "/steps/0/default/0/set/v",
    ),
    (
        "switch: [{ when: \"{{ false }}\", do: [{ id: a, set: { v: 1 } }] }, { when: \"{{ WRONG }}\", do: [{ id: b, set: { v: 1 } }] }]",
        "/steps/0/switch/1/when",
    ),
    (
        "switch: [{ when: \"{{ true }}\", do: [{ id: a, set: { v: \"{{ WRONG }}\" } }] }]",
        "/steps/0/switch/0/do/0/set/v",
    ),
    (
        "for_each: \"{{ WRONG }}\", do: [{ id: a, set: { v: 1 } }]",
        "/steps/0/for_each",
    ),
    (
        "for_each: \"{{ [1] }}\", key: \"{{ WRONG }}\", do: [{ id: a, set: { v: 1 } }]",
        "/steps/0/key",
    ),
    (
        "for_each: \"{{ [1] }}\", do: [{ id: a, set: { v: 1 } }, { id: b, when: \"{{ WRONG }}\", set: { v: 1 } }]",
        "/steps/0/do/1/when",
    ),
    (
        "parallel: { left: [{ id: a, set: { v: 1 } }], right: [{ id: b, set: { v: \"{{ WRONG }}\" } }] }",
        "/steps/0/parallel/right/0/set/v",
    ),
    ("sleep: \"{{ WRONG }}\"", "/steps/0/sleep"),
    ("sleep: { for: \"{{ WRONG }}\" }", "/steps/0/sleep/for"),
    ("sleep: { until: \"{{ WRONG }}\" }", "/steps/0/sleep/until"),
    (
        "wait_for: { event: stripe.charge.refunded, key: \"{{ arrived.data.order }}\", equals: \"{{ WRONG }}\" }",
        "/steps/0/wait_for/equals",
    ),
    (
        "wait_for: { event: stripe.charge.refunded, key: \"{{ arrived.data.order }}\", equals: \"{{ 7 }}\", where: \"{{ WRONG }}\" }",
        "/steps/0/wait_for/where",
    ),
    (
        "wait_for: { event: stripe.charge.refunded, key: \"{{ arrived.data.none }}\", equals: \"{{ 7 }}\" }, timeout: 1h, on_timeout: [{ id: a, set: { v: \"{{ WRONG }}\" } }]",
        "/steps/0/on_timeout/0/set/v",
    ),
    ("approve: \"Pay {{ WRONG }}?\"", "/steps/0/approve"),
    ("approve: { title: \"Pay {{ WRONG }}?\" }", "/steps/0/approve/title"),
    (
        "approve: { title: Pay?, detail: { sum: [\"{{ WRONG }}\"] } }",
        "/steps/0/approve/detail/sum/0",
    ),
    (
        "run: invoice, with: { order: { id: \"{{ WRONG }}\" } }",
        "/steps/0/with/order/id",
    ),
    (
        "run: invoice, detach: true, with: { order: \"{{ WRONG }}\" }",
        "/steps/0/with/order",
    ),
    (
        "emit: { type: order.paid, key: \"{{ WRONG }}\", data: {} }",
        "/steps/0/emit/key",
    ),
    (
        "emit: { type: order.paid, data: { lines: [\"{{ WRONG }}\"] } }",
        "/steps/0/emit/data/lines/0",
    ),
    ("respond: { status: \"{{ WRONG }}\" }", "/steps/0/respond/status"),
    (
        "respond: { status: 200, headers: { x-order: \"{{ WRONG }}\" } }",
        "/steps/0/respond/headers/x-order",
    ),
    (
        "respond: { status: 200, body: { a: \"{{ WRONG }}\" } }",
        "/steps/0/respond/body/a",
    ),
    (
        "respond: { status: 200, body: \"{{ WRONG }}\" }",
        "/steps/0/respond/body",
    ),
    ("stop: { reason: \"since {{ WRONG }}\" }", "/steps/0/stop/reason"),
    (
        "try: [{ id: a, set: { v: \"{{ WRONG }}\" } }], catch: [{ id: b, set: { v: 1 } }]",
        "/steps/0/try/0/set/v",
    ),
    (
        "try: [{ id: a, FAILS }], catch: [{ id: b, set: { v: \"{{ WRONG }}\" } }]",
        "/steps/0/catch/0/set/v",
    ),
    (
        "try: [{ id: a, set: { v: 1 } }], finally: [{ id: b, set: { v: \"{{ WRONG }}\" } }]",
        "/steps/0/finally/0/set/v",
    ),
    (
        "FAILS, on_error: [{ id: a, set: { v: \"{{ WRONG }}\" } }]",
        "/steps/0/on_error/0/set/v",
    ),
    ("set: { v: \"{{ WRONG }}\" }, on_error: continue", "/steps/0/set/v"),
];

/// Whole documents from `steps` on.
const DOCUMENTS: &[(&str, &str)] = &[
    (
        "steps:
  - id: t
    try:
      - { id: a, call: http.request, connection: crm, with: { method: POST }, undo: [{ id: u, set: { v: \"{{ WRONG }}\" } }] }
      - { id: b, FAILS }
    catch: [{ id: c, compensate: all }]",
        "/steps/0/try/0/undo/0/set/v",
    ),
    (
        "steps:
  - { id: b, FAILS }
on_failure:
  - { id: f, set: { v: \"{{ WRONG }}\" } }",
        "/on_failure/0/set/v",
    ),
    (
        "steps:
  - { id: ask, approve: Pay?, on_reject: [{ id: a, set: { v: \"{{ WRONG }}\" } }] }",
        "/steps/0/on_reject/0/set/v",
    ),
    (
        "steps:
  - { id: a, set: { v: 1 } }
  - { id: b, set: { v: \"{{ WRONG }}\" } }",
        "/steps/1/set/v",
    ),
];

/// What is computed before a run starts.
const BEFORE: &[(&str, &str)] = &[
    ("where: \"{{ WRONG }}\"", "/on/where"),
    ("lane: \"{{ WRONG }}\"", "/lane"),
    ("lane: { key: \"a/{{ WRONG }}\", merge: true }", "/lane/key"),
    ("concurrency: { key: \"{{ WRONG }}\", limit: 1 }", "/concurrency/key"),
    ("throttle: { key: \"{{ WRONG }}\", limit: 1, per: 1m }", "/throttle/key"),
    ("debounce: { key: \"{{ WRONG }}\", for: 1m }", "/debounce/key"),
    ("batch: { key: \"{{ WRONG }}\", size: 2, for: 1m }", "/batch/key"),
    ("priority: \"{{ WRONG }}\"", "/priority"),
];

fn before(words: &str) -> Vec<String> {
    let on = "event: stripe.payment_intent.succeeded, hydrate: never";
    said_before_the_start(&match words.starts_with("where") {
        true => format!("on: {{ {on}, {words} }}"),
        false => format!("on: {{ {on} }}\n{words}"),
    })
}

#[test]
fn wherever_an_expression_fails_its_place_what_is_near_and_the_value_are_told() {
    for mistake in [ABSENT, MISFIT] {
        let with = |words: &str| words.replace("WRONG", mistake.expression).replace("FAILS", FAILS);
        for (step, place) in STEPS {
            let words = with(&format!("steps:\n  - {{ id: s, {step} }}"));
            is_told(&words, &said(&words), place, mistake.told);
        }
        for (document, place) in DOCUMENTS {
            let words = with(document);
            is_told(&words, &said(&words), place, mistake.told);
        }
        for (words, place) in BEFORE {
            let words = with(words);
            is_told(&words, &before(&words), place, mistake.told);
        }
    }
}

/// The expression gives a value, and the step can do nothing with it.
#[test]
fn a_value_that_a_step_can_do_nothing_with_is_told_with_its_place() {
    let customer = "{\"email\":\"a@b.test\",\"id\":7,\"name\":\"Ann\"}";
    let customer = |words: &str| words.replace("VALUE", customer);
    for (step, told) in [
        (
            "switch: \"{{ event.data.customer }}\", cases: { a: [{ id: a, set: { v: 1 } }] }",
            customer("`event.data.customer` at /steps/0/switch is an object, VALUE; a case is"),
        ),
        (
            "for_each: \"{{ event.data.customer }}\", do: [{ id: a, set: { v: 1 } }]",
            customer("`event.data.customer` at /steps/0/for_each is VALUE, not a list"),
        ),
        (
            "for_each: \"{{ event.data.long }}\", do: [{ id: a, set: { v: 1 } }]",
            format!("`event.data.long` at /steps/0/for_each is \"{}…, not a list", "y".repeat(79)),
        ),
        (
            "for_each: \"{{ event.data.lines }}\", as: line, key: \"{{ line.sku }}\", do: [{ id: a, set: { v: 1 } }]",
            "`line.sku` at /steps/0/key is \"x\" for two items, 1 and 2 of the list, so".to_owned(),
        ),
        (
            "for_each: \"{{ event.data.rows }}\", key: \"{{ item.sku }}\", do: [{ id: a, set: { v: 1 } }]",
            "item 2 of the list: `item.sku` at /steps/0/key: ".to_owned(),
        ),
        (
            "set: { v: \"{{ money(event.data.cents, 'eur') }}\" }",
            "the amount is text: minor units are a whole number, as `| int` makes of a text (`event.data.cents` is \"12\")".to_owned(),
        ),
        (
            "set: { v: \"{{ money(event.data.note, 'eur') }}\" }",
            "the amount is null: minor units are a whole number".to_owned(),
        ),
        (
            "sleep: \"{{ event.data.customer.name }}\"",
            "at /steps/0/sleep: \"Ann\" is no span of time".to_owned(),
        ),
        (
            "sleep: { until: \"{{ event.data.customer.name }}\" }",
            "at /steps/0/sleep/until: \"Ann\" is no moment".to_owned(),
        ),
        (
            "wait_for: { event: stripe.charge.refunded, key: \"{{ arrived.data.order }}\", equals: \"{{ event.data.customer }}\" }",
            customer("`event.data.customer` at /steps/0/wait_for/equals is VALUE; an event is found by"),
        ),
        (
            "set: { v: \"of {{ event.data.note }}\" }",
            "`event.data.note` at /steps/0/set/v: is null".to_owned(),
        ),
        (
            "set: { v: \"{{ event.data.lines[event.data.customer.id] }}\" }",
            "at /steps/0/set/v: leads to something that is not there (`event.data.lines` is [{\"sku\":\"x\"},{\"sku\":\"x\"}], `event.data.customer.id` is 7)".to_owned(),
        ),
    ] {
        let words = format!("steps:\n  - {{ id: s, {step} }}");
        is_told(&words, &said(&words), "", &[&told]);
    }
    for (words, told) in [
        (
            "lane: \"{{ event.data.customer }}\"",
            customer(
                "`event.data.customer` at /lane: a key is a text that is not empty, a number or a boolean, not VALUE",
            ),
        ),
        (
            "priority: \"{{ event.data.customer.name }}\"",
            "`event.data.customer.name` at /priority: a priority is a number, not \"Ann\"".to_owned(),
        ),
    ] {
        is_told(words, &before(words), "", &[&told]);
    }
}
