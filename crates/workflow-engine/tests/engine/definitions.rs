//! Workflow documents: what is accepted, and what is said about what is not.

use serde_json::{Value, json};
use weir_workflow_engine::{Definition, HydrateMode, Trigger, check};

use crate::support::{Shop, plan_in, yaml};

const HEAD: &str = "name: t\non: { event: stripe.payment_intent.succeeded, connection: stripe }\n";

fn problems(text: &str) -> Vec<String> {
    let found = match Definition::parse(&yaml(text)) {
        Ok(definition) => check(&definition, &Shop::default()).err().unwrap_or_default(),
        Err(found) => found,
    };
    found.iter().map(ToString::to_string).collect()
}

/// The one problem with these steps.
fn wrong(steps: &str, expected: &str) {
    assert_eq!(problems(&format!("{HEAD}steps:\n{steps}")), [expected], "{steps}");
}

#[test]
fn a_value_that_an_argument_cannot_have_is_told_before_anything_runs() {
    let call = |method: &str| {
        format!("  - {{ id: a, call: http.request, connection: crm, with: {{ method: {method}, path: /a }} }}")
    };
    wrong(
        &call("FETCH"),
        "/steps/0/with/method: `http.request` takes no method `FETCH` (it takes GET, HEAD, POST, PUT, PATCH, DELETE)",
    );
    assert!(problems(&format!("{HEAD}steps:\n{}", call("PATCH"))).is_empty());
    // What is computed is known with the run.
    assert!(problems(&format!("{HEAD}steps:\n{}", call("\"{{ event.type }}\""))).is_empty());
}

/// Runs keep to the versions that were in force when their workflow was published.
#[test]
fn publishing_freezes_the_versions_that_runs_may_call_over() {
    let pins = |steps: &str| {
        let text = format!("{HEAD}steps:\n{steps}");
        let resolution = check(&Definition::parse(&yaml(&text)).unwrap(), &Shop::default()).unwrap();
        serde_json::to_value(&resolution).unwrap()["pins"].clone()
    };
    let search = "  - { id: a, call: hubspot.contacts.search, connection: hubspot, with: { email: x } }";
    assert_eq!(pins(search), json!({ "hubspot": "hubspot@2.0.0" }));
    let inside = "  - { id: b, if: \"{{ event.id }}\", then: [{ id: a, call: hubspot.contacts.search, connection: hubspot, with: { email: x } }] }";
    assert_eq!(pins(inside), json!({ "hubspot": "hubspot@2.0.0" }));
    // Connectors of the server have no versions of choice, and what was stored before there were any reads as none.
    let without = "  - { id: a, set: { b: 1 } }";
    assert_eq!(pins(without), Value::Null);
}

#[test]
fn the_document_itself() {
    let check = |text: &str, expected: &[&str]| assert_eq!(problems(text), expected, "{text}");
    let steps = "steps: [{ id: x, set: { a: 1 } }]";
    check(
        &format!("name: t\non: {{ evnt: x }}\n{steps}"),
        &[
            "/on/evnt: `evnt` is not supported here; supported: event, connection, where, hydrate (did you mean `event`?)",
            "/on: a trigger is one of `event`, `schedule` and `manual`",
        ],
    );
    check(
        &format!("name: t\non: {{ event: stripe.charge.refunded }}\nlain: \"{{{{ event.id }}}}\"\n{steps}"),
        &[
            "/lain: `lain` is not supported here; supported: name, description, on, lane, concurrency, throttle, debounce, batch, priority, steps, on_failure, timeout (did you mean `lane`?)",
        ],
    );
    check(
        &format!("nmae: t\non: {{ event: stripe.charge.refunded }}\n{steps}"),
        &[
            "/nmae: `nmae` is not supported here; supported: name, description, on, lane, concurrency, throttle, debounce, batch, priority, steps, on_failure, timeout (did you mean `name`?)",
            "/: `name` is missing",
        ],
    );
    check(
        &format!("name: T\non: {{ schedule: {{ cron: x }} }}\n{steps}"),
        &[
            "/name: a name is 1 to 64 of a-z, 0-9, `-` and `_`, and begins with a letter or digit",
            "/on/schedule/cron: a cron line has 5 fields (minute, hour, day of month, month, day of week), or 6 with seconds in front; this one has 1",
        ],
    );
    check(
        &format!("name: t\non: {{ event: strip.charge.refunded }}\n{steps}"),
        &["/on/event: there is no connector `strip` (did you mean `stripe`?)"],
    );
    check(
        &format!("name: t\non: {{ event: stripe.charge.refund, hydrate: allways }}\n{steps}"),
        &["/on/hydrate: \"allways\" is none of: always, missing, never (did you mean `always`?)"],
    );
    check(
        &format!("name: t\non: {{ event: stripe.charge.refund, connection: crm }}\n{steps}"),
        &[
            "/on/event: the connector `stripe` has no event type `charge.refund` (did you mean `charge.refunded`?)",
            "/on/connection: the connection `crm` is of `http`, not of `stripe`",
        ],
    );
    check(
        "name: t\non: { manual: {} }\nsteps: [{ id: all, try: [{ id: a, set: { b: 1 } }], catch: [{ id: c, set: { b: \"{{ eror.code }}\" } }] }]", // misspelt on purpose
        &["/steps/0/catch/0/set/b: there is no `eror` (did you mean `error`?)"],
    );
    check(
        &format!("name: t\ntimeout: 5 weeks\non: {{ event: stripe.charge.refunded }}\n{steps}"),
        &[
            "/timeout: \"5 weeks\" is not a span of time (write a number with a unit: \"500ms\", \"30s\", \"5m\", \"24h\", \"7d\")",
        ],
    );
    check(
        "name: t\non: { manual: { input: { type: objekt } } }\nsteps: []",
        &[
            "/on/manual/input/type: \"objekt\" is none of: object, array, string, number, integer, boolean, null (did you mean `object`?)",
            "/steps: there is no step here",
        ],
    );
}

const KINDS: &str =
    "call, if, switch, set, for_each, parallel, sleep, wait_for, approve, run, emit, respond, try, compensate, stop";

#[test]
fn the_shape_of_steps() {
    wrong(
        "  - { id: a, snooze: 5m }",
        &format!("/steps/0: this step does nothing that is supported; it needs one of: {KINDS}"),
    );
    wrong(
        "  - { id: a, foreach: x, do: [] }",
        &format!(
            "/steps/0: this step does nothing that is supported; it needs one of: {KINDS} (did you mean `for_each`?)"
        ),
    );
    wrong(
        "  - { id: a, set: { b: 1 }, stop: {} }",
        "/steps/0: a step does one thing, this one has set and stop",
    );
    wrong(
        "  - { id: a, set: { b: 1 }, retry: { tries: 3 } }",
        "/steps/0/retry: `retry` is not supported here; supported: id, when, set, on_error",
    );
    wrong(
        "  - { id: My-Step, set: { b: 1 } }",
        "/steps/0/id: \"My-Step\" cannot be an id: a small letter, then small letters, digits and `_`, at most 64 (write `my_step`)",
    );
    wrong(
        "  - { id: a, set: { b: 1 } }\n  - { id: c, if: \"{{ event.id }}\", then: [{ id: a, set: { b: 1 } }] }",
        "/steps/1/then/0/id: the id `a` is taken by the step at /steps/0",
    );
    wrong(
        "  - { id: a, if: event.id, then: [{ id: b, set: { c: 1 } }] }",
        "/steps/0/if: \"event.id\" is not one expression (write it as \"{{ … }}\")",
    );
    wrong(
        "  - { id: a, if: true, then: [{ id: b, set: { c: 1 } }] }",
        "/steps/0/if: an expression is wanted here, not true or false (write it as \"{{ … }}\")",
    );
    wrong(
        "  - { id: a, for_each: \"{{ event.data }}\", concurrency: 33, do: [{ id: b, set: { c: 1 } }] }",
        "/steps/0/concurrency: `concurrency` must be a whole number from 1 to 32",
    );
    wrong(
        "  - { id: a, for_each: \"{{ event.data }}\", as: steps, do: [{ id: b, set: { c: 1 } }] }",
        "/steps/0/as: \"steps\" cannot be the name of an item",
    );
    wrong(
        "  - { id: a, set: { b: \"{{ event.id | }}\" } }",
        "/steps/0/set/b: syntax error: unexpected end of input, expected identifier\n  event.id |\n           ^",
    );
    wrong(
        "  - { id: a, call: http.request, connection: crm, timeout: 1h, with: { method: GET } }",
        "/steps/0/timeout: `timeout` must be more than nothing and at most 10m",
    );
    let deep = (0..10).fold("{ id: z, set: { a: 1 } }".to_owned(), |inner, level| {
        format!("{{ id: s{level}, if: \"{{{{ event.id }}}}\", then: [{inner}] }}")
    });
    assert!(
        problems(&format!("{HEAD}steps:\n  - {deep}"))
            .iter()
            .any(|problem| problem.contains("nested deeper than 8"))
    );
    let many: String = (0..501)
        .map(|n| format!("  - {{ id: s{n}, set: {{ a: 1 }} }}\n"))
        .collect();
    wrong(&many, "/steps: 501 steps are more than 500");
}

#[test]
fn calls_are_resolved() {
    wrong(
        "  - { id: a, call: hubspt.contacts.search }",
        "/steps/0/call: there is no connector `hubspt` (did you mean `hubspot`?)",
    );
    wrong(
        "  - { id: a, call: hubspot.contact.search, connection: hubspot, with: { email: x } }",
        "/steps/0/call: the connector `hubspot` has no operation `contact.search` (did you mean `contacts.search`?)",
    );
    wrong(
        "  - { id: a, call: hubspot.contacts.search, with: { email: x } }",
        "/steps/0: the trigger is not of `hubspot`, so this call must name its `connection` (connections of `hubspot`: hubspot)",
    );
    wrong(
        "  - { id: a, call: hubspot.contacts.search, connection: hubspott, with: { email: x } }",
        "/steps/0/connection: there is no connection `hubspott` (did you mean `hubspot`?)",
    );
    wrong(
        "  - { id: a, call: hubspot.contacts.search, connection: stripe, with: { email: x } }",
        "/steps/0/connection: the connection `stripe` is of `stripe`, not of `hubspot`",
    );
    wrong(
        "  - { id: a, call: hubspot.contacts.update, connection: hubspot, all: { max: 5 } }",
        "/steps/0/all: `all` needs pages, and `hubspot.contacts.update` has none",
    );
    wrong(
        "  - { id: a, call: hubspot.contacts.search, connection: hubspot, with: { email: x }, all: {} }",
        "/steps/0/all: `max` is missing: how many items at most? (all: { max: 1000 })",
    );
    wrong(
        "  - { id: a, call: hubspot.contacts.search, connection: hubspot, with: { email: x }, all: { max: 0 } }",
        "/steps/0/all/max: `max` must be a whole number from 1 to 100000",
    );
    assert_eq!(
        problems(&format!(
            "{HEAD}steps:\n  - {{ id: a, call: hubspot.contacts.search, connection: hubspot, with: {{ emial: x }} }}"
        )),
        [
            "/steps/0/with: `hubspot.contacts.search` needs the argument `email`",
            "/steps/0/with/emial: `hubspot.contacts.search` has no argument `emial`; it has email, limit (did you mean `email`?)",
        ]
    );
    let text = format!(
        "{HEAD}steps:\n  - {{ id: a, call: stripe.customers.get }}\n  - {{ id: b, call: http.request, connection: crm, with: {{ method: GET }} }}"
    );
    let sites = plan_in(&Shop::default(), &text).unwrap().call_sites();
    let sites: Vec<_> = sites
        .iter()
        .map(|site| {
            (
                site.pointer.as_str(),
                site.connection.as_deref(),
                site.operation.as_str(),
            )
        })
        .collect();
    assert_eq!(
        sites,
        [
            ("/steps/0", Some("stripe"), "customers.get"),
            ("/steps/1", Some("crm"), "request")
        ]
    );
}

#[test]
fn names_in_expressions_must_exist_at_that_point() {
    let set = |expression: &str| format!("  - {{ id: x, set: {{ v: \"{{{{ {expression} }}}}\" }} }}");
    let before = "  - { id: pay, call: stripe.payment_intents.get, with: { id: x } }\n  - { id: maybe, when: \"{{ event.id }}\", set: { a: 1 } }\n  - { id: each, for_each: \"{{ event.data }}\", do: [{ id: inner, set: { a: 1 } }] }\n  - { id: fork, if: \"{{ event.id }}\", then: [{ id: left, set: { a: 1 } }] }\n";
    let wrong_in = |expression: &str, expected: &str| {
        let steps = format!("{before}{}\n  - {{ id: later, set: {{ a: 1 }} }}", set(expression));
        let found = problems(&format!("{HEAD}steps:\n{steps}"));
        assert_eq!(found, [format!("/steps/4/set/v: {expected}")], "{expression}");
    };
    wrong_in(
        "steps.pay.amuont",
        "`steps.pay.amuont`: there is no `amuont`; there are id, amount, currency, receipt_email, customer, charges, metadata (did you mean `amount`?)",
    );
    wrong_in(
        "steps.pay.charges[0].idd",
        "`steps.pay.charges[0].idd`: there is no `idd`; there are id (did you mean `id`?)",
    );
    wrong_in("steps.pey.amount", "there is no step `pey` (did you mean `pay`?)");
    wrong_in(
        "steps.later.a",
        "`later` has not run when this is evaluated (use only steps that come before)",
    );
    wrong_in(
        "steps.x.v",
        "`x` has not run when this is evaluated (use only steps that come before)",
    );
    wrong_in(
        "steps.maybe.a",
        "`maybe` may not have run, so `steps.maybe.a` may not be there (say what to use instead: `steps.maybe.a | default(…)`)",
    );
    wrong_in(
        "steps.left.a",
        "`left` may not have run, so `steps.left.a` may not be there (say what to use instead: `steps.left.a | default(…)`)",
    );
    wrong_in(
        "steps.inner.a",
        "`inner` runs once per item of `each` and is seen only inside of it (`steps.each` is the list of what its last step gave for each item)",
    );
    wrong_in(
        "results.pay.state",
        "`results.pay.state`: there is no `state`; there are status, http, error, attempts (did you mean `status`?)",
    );
    wrong_in(
        "hydrated.payment_intnt.id",
        "there is no read `payment_intnt`; there are payment_intent (did you mean `payment_intent`?)",
    );
    wrong_in(
        "hydrated.payment_intent.amout",
        "`hydrated.payment_intent.amout`: there is no `amout`; there are id, amount, currency, receipt_email, customer, charges, metadata (did you mean `amount`?)",
    );
    wrong_in("event.dta.id", "`event.dta`: there is no `dta`; there are id, uid, type, time, received_at, source, account, ref, headers, body, data, connector, endpoint (did you mean `data`?)".replace("`event.dta`", "`event.dta.id`").as_str());
    wrong_in("item", "`item` exists only inside a `for_each`");
    wrong_in("pay.amount", "there is no `pay` (did you mean `steps.pay`?)");
    wrong_in("now.year", "`now` has no members");
    for fine in [
        "steps.pay.metadata.any.thing",
        "steps.maybe.a | default(1)",
        "steps.left is defined",
        "steps.fork",
        "steps.each[0].a",
        "results.left.status",
        "steps.maybe is not defined and event.id",
    ] {
        assert_eq!(
            problems(&format!("{HEAD}steps:\n{before}{}", set(fine))),
            [""; 0],
            "{fine}"
        );
    }
    let inside = "  - { id: fork, if: \"{{ event.id }}\", then: [{ id: left, set: { a: 1 } }, { id: next, set: { b: \"{{ steps.left.a }}\" } }], else: [{ id: right, set: { b: \"{{ steps.left.a | default(1) }}\" } }] }";
    wrong(
        inside,
        "/steps/0/else/0/set/b: `left` has not run when this is evaluated (use only steps that come before)",
    );
    wrong(
        "  - { id: end, stop: {} }\n  - { id: x, set: { a: 1 } }",
        "/steps/1: this step is never reached: `end` always ends the run",
    );
    let (end, other) = ("[{ id: end, stop: {} }]", "[{ id: other, stop: {} }]");
    let last = "\n  - { id: x, set: { a: 1 } }";
    for ends in [
        format!("{{ id: w, if: \"{{{{ event.id }}}}\", then: {end}, else: {other} }}"),
        format!("{{ id: w, try: {end}, catch: {other} }}"),
        format!("{{ id: w, try: {end}, finally: [{{ id: noted, set: {{ a: 1 }} }}] }}"),
        format!("{{ id: w, switch: \"{{{{ event.type }}}}\", cases: {{ a: {end} }}, default: {other} }}"),
        format!("{{ id: w, parallel: {{ a: {end}, b: {other} }} }}"),
    ] {
        let message = "/steps/1: this step is never reached: `w` always ends the run";
        wrong(&format!("  - {ends}{last}"), message);
        // One that may be left out, or one way through, and it is reached.
        for way in [
            ends.replacen("{ id: w,", "{ id: w, when: \"{{ event.id }}\",", 1),
            ends.replacen("stop: {}", "set: { b: 1 }", 1),
        ] {
            assert_eq!(problems(&format!("{HEAD}steps:\n  - {way}{last}\n")), [""; 0], "{way}");
        }
    }
    let never = "name: t\non: { event: stripe.charge.refunded, hydrate: never }\nsteps: [{ id: x, set: { a: \"{{ hydrated.payment_intent.id }}\" } }]";
    assert_eq!(
        problems(never),
        ["/steps/0/set/a: `hydrated` is empty: the trigger says `hydrate: never` (remove `hydrate: never`)"]
    );
    let silent = Shop {
        hydrate: HydrateMode::Never,
        ..Shop::default()
    };
    let by_connector = plan_in(&silent, &never.replace(", hydrate: never", "")).expect_err("nothing is read");
    assert_eq!(
        by_connector[0].to_string(),
        "/steps/0/set/a: `hydrated` is empty: the connector reads nothing for `stripe.charge.refunded` \
         (write `hydrate: always` in the trigger)"
    );
}

#[test]
fn a_manual_trigger_has_an_input() {
    let definition = Definition::parse(&yaml("name: m\ndescription: By hand.\non: { manual: { input: { type: object, required: [id], properties: { id: { type: string } } } } }\nsteps: [{ id: x, set: { a: \"{{ event.data.id }}\" } }]")).unwrap();
    let resolution = check(&definition, &Shop::default()).unwrap();
    assert_eq!((resolution.connector, resolution.hydrate), (None, HydrateMode::Never));
    let Trigger::Manual { input: Some(input) } = definition.trigger() else {
        panic!()
    };
    assert_eq!(
        (input["required"][0].as_str(), definition.description()),
        (Some("id"), Some("By hand."))
    );
    let wrong = |input: serde_json::Value| {
        let problems = definition.trigger().check_input(&input).err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(wrong(json!({ "id": "x", "more": 1 })), [""; 0]);
    assert_eq!(wrong(json!({})), ["/: `id` is missing"]);
    assert_eq!(
        wrong(json!({ "idd": "x" })),
        ["/: `id` is missing (did you mean `id` instead of `idd`?)"]
    );
    assert_eq!(
        wrong(json!({ "id": 5 })),
        ["/id: the input must be of type string here, not a number: 5"]
    );
    assert_eq!(
        wrong(json!([])),
        ["/: the input must be of type object here, not a list: []"]
    );
}

/// Every key that the parser takes stands in the schema, and no other.
#[test]
fn the_published_schema_says_what_the_parser_takes() {
    let schema = Definition::json_schema();
    let keys = |value: &Value| -> Vec<String> { value["properties"].as_object().unwrap().keys().cloned().collect() };
    let mut top = keys(&schema);
    top.retain(|key| key != "kind");
    top.sort();
    let supported = |text: &str| -> Vec<String> {
        let message = problems(text)
            .into_iter()
            .find(|problem| problem.contains("zzz"))
            .unwrap();
        let list = message
            .split("supported: ")
            .nth(1)
            .unwrap()
            .split(" (did")
            .next()
            .unwrap()
            .to_owned();
        let mut names: Vec<String> = list.split(", ").map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(top, supported("zzz: 1"));
    let trigger = &schema["$defs"]["trigger"]["oneOf"][2]["properties"]["schedule"];
    let mut known = keys(trigger);
    known.sort();
    let text = "name: t\non: { schedule: { every: 1h, zzz: 1 } }\nsteps: []";
    assert_eq!(known, supported(text));
    let bodies = [
        ("call", "call: a.b"),
        ("if", "if: \"{{ event }}\", then: []"),
        ("switch", "switch: \"{{ event }}\", cases: {}"),
        ("set", "set: {}"),
        ("for_each", "for_each: \"{{ event }}\", do: []"),
        ("parallel", "parallel: {}"),
        ("sleep", "sleep: 1s"),
        ("wait_for", "wait_for: {}"),
        ("approve", "approve: ok"),
        ("run", "run: invoice"),
        ("emit", "emit: { type: a }"),
        ("respond", "respond: {}"),
        ("try", "try: [], catch: []"),
        ("compensate", "compensate: all"),
        ("stop", "stop: {}"),
    ];
    for (at, (kind, body)) in bodies.iter().enumerate() {
        let step = &schema["$defs"]["step"]["oneOf"][at];
        assert_eq!(step["title"], json!(kind));
        let mut known = keys(step);
        known.sort();
        assert_eq!(
            known,
            supported(&format!("{HEAD}steps: [{{ id: a, zzz: 1, {body} }}]")),
            "{kind}"
        );
    }
}

/// Of each kind of step: a sound one, a key that is misspelt on purpose with what is meant, and a wrong value of the key
/// that names the kind.
pub(crate) const OF_EACH_KIND: [(&str, &str, &str, &str, &str); 15] = [
    // Misspelt on purpose from here on.
    (
        "call",
        "call: hubspot.contacts.update, connection: hubspot",
        "conection",
        "connection",
        "7",
    ),
    (
        "if",
        "if: \"{{ true }}\", then: [{ id: a, set: { b: 1 } }]",
        "esle",
        "else",
        "[1]",
    ),
    (
        "switch",
        "switch: \"{{ event.id }}\", cases: { a: [{ id: a, set: { b: 1 } }] }",
        "defualt",
        "default",
        "7",
    ),
    ("set", "set: { b: 1 }", "on_eror", "on_error", "7"),
    (
        "for_each",
        "for_each: \"{{ event.data.l }}\", do: [{ id: a, set: { b: 1 } }]",
        "concurency",
        "concurrency",
        "7",
    ),
    (
        "parallel",
        "parallel: { a: [{ id: a, set: { b: 1 } }] }",
        "jion",
        "join",
        "[7]",
    ),
    ("sleep", "sleep: 5m", "on_eror", "on_error", "soon"),
    (
        "wait_for",
        "wait_for: { event: stripe.charge.refunded, key: \"{{ arrived.id }}\", equals: \"{{ event.id }}\" }",
        "timout",
        "timeout",
        "7",
    ),
    ("approve", "approve: Shall we?", "on_rejct", "on_reject", "[7]"),
    ("run", "run: invoice", "detatch", "detach", "[7]"),
    ("emit", "emit: { type: order.paid }", "on_eror", "on_error", "7"),
    ("respond", "respond: { status: 201 }", "on_eror", "on_error", "7"),
    (
        "try",
        "try: [{ id: a, set: { b: 1 } }], catch: [{ id: c, set: { b: 1 } }]",
        "finaly",
        "finally",
        "7",
    ),
    ("compensate", "compensate: all", "on_eror", "on_error", "some"),
    ("stop", "stop: { status: failed }", "whn", "when", "7"),
    // To here.
];

#[test]
fn faults_of_each_kind_of_step_have_their_place_and_a_hint() {
    for (kind, sound, misspelt, meant, wrong_value) in OF_EACH_KIND {
        let of = |step: &str| {
            problems(&format!(
                "name: w\non: {{ event: stripe.payment_intent.succeeded }}\nsteps: [{{ id: s, {step} }}]"
            ))
        };
        let found = of(&format!("{sound}, {misspelt}: 1"));
        let expected = format!("/steps/0/{misspelt}: `{misspelt}` is not supported here; supported: ");
        let hint = format!("(did you mean `{meant}`?)");
        let is_told = |problem: &String| problem.starts_with(&expected) && problem.ends_with(&hint);
        assert!(found.iter().any(is_told), "{kind}: {found:#?}");

        let rest = sound
            .split_once(&format!("{kind}: "))
            .map(|(before, _)| before)
            .unwrap_or_default();
        let found = of(&format!("{rest}{kind}: {wrong_value}"));
        let place = format!("/steps/0/{kind}: ");
        assert!(
            found.iter().any(|problem| problem.starts_with(&place)),
            "{kind}: {found:#?}"
        );

        let mut other = kind.to_owned();
        other.push('x');
        let found = of(&format!("{other}: 1"));
        assert!(
            found
                .iter()
                .any(|problem| problem.starts_with("/steps/0: ")
                    && problem.ends_with(&format!("(did you mean `{kind}`?)"))),
            "{kind}: {found:#?}"
        );
    }
}
