//! The steps that Weir carries out itself: a run, an outgoing event, an answer.

use serde_json::{Value, json};
use weir_workflow_engine::{
    Command, Document, EffectClass, Ending, Entry, EventSource, Input, Ledger, Mail, OWN, RunId, Sent, Status, story,
};

use crate::support::{
    Driver, KEYED, START, Shop, event, failure, head, plan, plan_in, preview, problems, refused_with, seconds,
};

const CHILD: &str = r#"
  - { id: bill, run: invoice, with: { order: "{{ event.data.id }}" }, timeout: 1d }
  - { id: end, set: { number: "{{ steps.bill.output.number }}", run: "{{ steps.bill.run }}" } }
"#;

fn child() -> RunId {
    RunId::from_raw(4_711)
}

fn ended(driver: &mut Driver, ending: &Ending, output: Value) {
    ended_as(driver, child(), ending, output);
}

/// The child, or a run that repeats it, has ended.
fn ended_as(driver: &mut Driver, run: RunId, ending: &Ending, output: Value) {
    let output = Document::from_value(output);
    driver.input(Input::Mail(Mail::RunEnded {
        root: child(),
        run,
        ending,
        output: &output,
    }));
}

fn failed() -> Ending {
    Ending::Failed {
        code: "http_500".into(),
        message: "no".into(),
        step: Some("send".into()),
    }
}

#[test]
fn a_child_is_started_as_an_effect_and_waited_for() {
    let mut driver = Driver::new(plan(CHILD), KEYED, json!({ "id": 7 }));
    driver.start();
    let Command::Call(call) = &driver.commands[0] else {
        panic!()
    };
    assert_eq!((call.connector.as_str(), call.operation.as_str()), (OWN, "run"));
    assert_eq!(
        *call.args.value(),
        json!({ "workflow": "invoice", "input": { "order": 7 } })
    );
    assert!(driver.commands[0].durable_first());
    // Lost before anybody knows: it is started again under the same key, so it is started once.
    let key = call.effect.as_ref().unwrap().key;
    driver.crash();
    let Command::Call(call) = &driver.commands[0] else {
        panic!()
    };
    assert_eq!(call.effect.as_ref().unwrap().key, key);
    driver.done(json!({ "run": child().to_string() }));
    assert_eq!(
        (&driver.last.status, driver.last.due),
        (&Status::Waiting, Some(START.plus(seconds(86_400))))
    );
    driver.crash();
    ended(&mut driver, &Ending::Succeeded, json!({ "number": "R-1" }));
    assert_eq!(
        driver.last_set(),
        json!({ "number": "R-1", "run": child().to_string() })
    );
    assert_eq!(driver.last.status, Status::Succeeded);
    let told = story(Some(&driver.plan), &driver.rows, None);
    assert_eq!((told[0].kind, told[0].status), ("run", "succeeded"));
}

#[test]
fn a_child_is_repaired_for_the_run_that_waits_for_it() {
    let mut driver = Driver::new(plan(CHILD), KEYED, json!({ "id": 7 }));
    driver.start();
    driver.done(json!({ "run": child().to_string() }));
    let again = RunId::from_raw(9_000);
    ended_as(&mut driver, again, &failed(), json!(null));
    let Status::Failed { code, message, .. } = &driver.last.status else {
        panic!("{:?}", driver.last)
    };
    let expected = format!("{again} failed at `send` (http_500): no; retry {again} first, then this one");
    assert_eq!((code.as_str(), message), ("run_failed", &expected));

    let mut driver = Driver::new(plan(CHILD), KEYED, json!({ "id": 7 }));
    driver.start();
    driver.done(json!({ "run": child().to_string() }));
    ended_as(&mut driver, again, &Ending::Succeeded, json!({ "number": "R-1" }));
    // It keeps the name that what follows has always seen.
    assert_eq!(
        driver.last_set(),
        json!({ "number": "R-1", "run": child().to_string() })
    );
}

#[test]
fn what_becomes_of_a_child_becomes_of_the_step() {
    for (ending, code) in [(failed(), "run_failed"), (Ending::Canceled, "run_canceled")] {
        let mut driver = Driver::new(plan(CHILD), KEYED, json!({ "id": 7 }));
        driver.start();
        driver.done(json!({ "run": child().to_string() }));
        ended(&mut driver, &ending, json!(null));
        assert_eq!(driver.code(), code);
    }
    let caught = CHILD.replace(
        "timeout: 1d }",
        "timeout: 1d, on_error: [{ id: sad, set: { number: \"{{ error.code }}\" } }] }",
    );
    let caught = caught.replace("steps.bill.output.number", "steps.sad.number | default('')");
    let caught = caught.replace("steps.bill.run", "steps.bill | default('') | tojson");
    let mut driver = Driver::new(plan(&caught), KEYED, json!({ "id": 7 }));
    driver.start();
    driver.done(json!({ "run": child().to_string() }));
    driver.due();
    assert_eq!(driver.last_set()["number"], json!("wait_timeout"));
}

#[test]
fn a_run_that_nobody_waits_for_is_only_started() {
    let steps = r#"
  - { id: bill, run: invoice, detach: true }
  - { id: out, emit: { type: order.billed, key: "{{ event.data.id }}", data: { run: "{{ steps.bill.run }}" } } }
  - { id: say, respond: { status: 201, body: { ok: true, id: "{{ steps.out.id }}" }, within: 20s } }
"#;
    let plan = plan(steps);
    assert_eq!(plan.responds_within(), Some(seconds(20)));
    assert!(plan.call_sites().is_empty());
    let mut driver = Driver::new(plan, EffectClass::Blind, json!({ "id": 7 }));
    driver.start();
    let mut asked = Vec::new();
    for output in [
        json!({ "run": child().to_string() }),
        json!({ "id": "msg_1" }),
        json!({ "delivered": true }),
    ] {
        let Command::Call(call) = driver.done(output) else {
            panic!()
        };
        asked.push((call.operation, call.args.value().clone()));
    }
    assert_eq!(driver.last.status, Status::Succeeded);
    assert_eq!(
        asked,
        [
            ("run".to_owned(), json!({ "workflow": "invoice", "input": {} })),
            (
                "emit".to_owned(),
                json!({ "type": "order.billed", "key": 7, "data": { "run": child().to_string() } })
            ),
            (
                "respond".to_owned(),
                json!({ "status": 201, "headers": {}, "body": { "ok": true, "id": "msg_1" } })
            ),
        ]
    );
    // A replay does none of it again.
    let entries = driver.entries();
    let ledger = Ledger::fold([(RunId::from_raw(1), entries.as_slice())]);
    let shown = preview(
        &driver.plan,
        &head(2),
        &driver.event,
        &ledger,
        weir_workflow_engine::Past {
            recorded: &entries,
            kept: &[],
            replaced: None,
        },
        &driver.world,
        START,
    );
    assert_eq!((shown.answered.len(), shown.new.len()), (3, 0));
    let mut again = Driver::with(
        crate::support::plan(steps),
        EffectClass::Blind,
        event(json!({ "id": 7 })),
        head(2),
        ledger,
    );
    again.start();
    assert_eq!((&again.last.status, again.commands.len()), (&Status::Succeeded, 0));
}

#[test]
fn a_replay_waits_for_the_run_that_its_first_run_started() {
    let mut first = Driver::new(plan(CHILD), KEYED, json!({ "id": 7 }));
    first.start();
    first.done(json!({ "run": child().to_string() }));
    let entries = first.entries();
    let ledger = Ledger::fold([(RunId::from_raw(1), entries.as_slice())]);
    let mut again = Driver::with(plan(CHILD), KEYED, event(json!({ "id": 7 })), head(2), ledger);
    again.start();
    assert_eq!((&again.last.status, again.commands.len()), (&Status::Waiting, 0));
    ended(&mut again, &Ending::Succeeded, json!({ "number": "R-1" }));
    assert_eq!(again.last_set(), json!({ "number": "R-1", "run": child().to_string() }));
}

/// What the end of the run says that it gave.
fn gave(driver: &Driver) -> Option<Value> {
    driver.entries().into_iter().find_map(|entry| match entry {
        Entry::Finished(finished) => finished.output.map(|output| output.value().clone()),
        _ => None,
    })
}

#[test]
fn a_child_tells_what_it_gave() {
    let steps = "  - { id: end, set: { number: R-1 } }\n";
    let mut plain = Driver::new(plan(steps), KEYED, json!({}));
    plain.start();
    assert_eq!(gave(&plain), None, "nobody asks");
    let from_parent = weir_workflow_engine::Event {
        source: EventSource::Workflow,
        ..event(json!({}))
    };
    let mut child = Driver::with(plan(steps), KEYED, from_parent, head(1), Ledger::default());
    child.start();
    assert_eq!(gave(&child), Some(json!({ "number": "R-1" })));
}

#[test]
fn what_weir_refuses_itself_fails_the_step() {
    let mut driver = Driver::new(plan(CHILD), KEYED, json!({ "id": 7 }));
    driver.start();
    driver.fail(failure("unknown_workflow", None, Sent::Never, false));
    assert_eq!(driver.code(), "unknown_workflow");
    refused_with(&[
        (
            "steps:\n  - { id: r, run: invoise }".to_owned(),
            "/steps/0/run: there is no workflow `invoise` (did you mean `invoice`?)",
        ),
        (
            "steps:\n  - { id: r, run: bill, with: { lines: [{ amount: 5 }, { amount: many }], speed: fast, order: \"{{ event.id }}\" } }".to_owned(),
            "/steps/0/with/lines/1/amount: the input must be of type integer here, not text: \"many\" (`bill` takes what its trigger says)",
        ),
        (
            "steps:\n  - { id: r, run: bill, with: { ordr: x, order: y, speed: \"{{ event.type }}\" } }".to_owned(), // misspelt on purpose
            "/steps/0/with/ordr: there is no `ordr` in the input (did you mean `order`?)", // misspelt on purpose
        ),
        (
            "steps:\n  - { id: r, run: bill, with: { lines: \"{{ event.data.lines }}\" } }".to_owned(),
            "/steps/0/with: `order` is missing (`bill` takes what its trigger says)",
        ),
        (
            "steps:\n  - { id: r, run: bill, with: { odrer: x } }".to_owned(), // misspelt on purpose
            "/steps/0/with: `order` is missing (did you mean `order` instead of `odrer`?)",
        ),
        // A near name that the input may have is not meant.
        (
            "steps:\n  - { id: r, run: bill, with: { speed: slow } }".to_owned(),
            "/steps/0/with: `order` is missing (`bill` takes what its trigger says)",
        ),
        (
            "steps:\n  - { id: r, run: invoice, detach: true, timeout: 1d }".to_owned(),
            "/steps/0/timeout: a run that is not waited for has no `timeout`",
        ),
        (
            "steps:\n  - { id: r, emit: { type: \"a b\" } }".to_owned(),
            "/steps/0/emit/type: \"a b\" is no type of an event",
        ),
        (
            "steps:\n  - { id: r, emit: { data: 1 } }".to_owned(),
            "/steps/0/emit: `type` is missing",
        ),
        (
            "steps:\n  - { id: r, respond: { status: 99 } }".to_owned(),
            "/steps/0/respond/status: `status` must be a whole number from 200 to 599",
        ),
        (
            "steps:\n  - { id: r, respond: { headers: { Set-Cookie: a=b } } }".to_owned(),
            "/steps/0/respond/headers/Set-Cookie: an answer cannot set `Set-Cookie`: the server does",
        ),
        (
            "steps:\n  - { id: r, respond: { headers: { \"x/y\": 1 } } }".to_owned(),
            "/steps/0/respond/headers/x~1y: \"x/y\" is no name of a header",
        ),
        (
            "steps:\n  - { id: r, respond: { headers: { x-a: \"1\\n2\" } } }".to_owned(),
            "/steps/0/respond/headers/x-a: the value of `x-a` holds a control character",
        ),
        (
            "steps:\n  - { id: r, respond: { headers: { x-a: [1] } } }".to_owned(),
            "/steps/0/respond/headers/x-a: `x-a` is a text or a number",
        ),
        (
            "steps:\n  - { id: r, respond: { within: 2m } }".to_owned(),
            "/steps/0/respond/within: `within` must be more than nothing and at most 55s",
        ),
        (
            "steps:\n  - { id: r, run: invoice, with: { x: \"{{ steps.y.z }}\" } }".to_owned(),
            "there is no step `y`",
        ),
    ]);
}

#[test]
fn workflows_that_start_each_other_without_an_end_are_refused() {
    for steps in [
        "[{ id: a, run: w }]",
        "[{ id: a, run: w, detach: true }]",
        "[{ id: a, set: { x: 1 } }, { id: b, run: w }]",
        "[{ id: a, try: [{ id: b, run: w }], catch: [{ id: c, set: { x: 1 } }] }]",
        "[{ id: a, parallel: { one: [{ id: b, run: w }], two: [{ id: c, set: { x: 1 } }] } }]",
    ] {
        let found = problems(&format!("steps: {steps}"));
        let cycle = found.iter().find(|problem| problem.contains("without an end"));
        assert!(
            cycle.is_some_and(|cycle| cycle.contains("w → w")),
            "{steps}: {found:#?}"
        );
    }
    let found = problems("steps: [{ id: a, run: again }]");
    assert!(
        found[0].contains("/steps/0/run") && found[0].contains("w → again → w"),
        "{found:#?}"
    );
    // Whoever can come to an end is somebody who works piece by piece.
    for steps in [
        "[{ id: a, run: w, when: \"{{ event.data.object.amount > 0 }}\" }]",
        "[{ id: a, if: \"{{ event.data.object.amount > 0 }}\", then: [{ id: b, run: w }] }]",
        "[{ id: a, when: \"{{ event.data.object.amount > 0 }}\", stop: { status: succeeded, reason: done } }, { id: b, run: w }]",
        "[{ id: a, for_each: \"{{ event.data.object.items }}\", do: [{ id: b, run: w }] }]",
        "[{ id: a, parallel: { one: [{ id: b, run: w }], two: [{ id: c, set: { x: 1 } }] }, join: any }]",
        "[{ id: a, run: bench }]",
    ] {
        let text =
            format!("name: w\non: {{ event: stripe.payment_intent.succeeded, hydrate: never }}\nsteps: {steps}\n");
        let refused = plan_in(&Shop::default(), &text).err();
        assert_eq!(refused, None, "{steps}");
    }
}
