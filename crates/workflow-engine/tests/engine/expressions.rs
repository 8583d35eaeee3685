//! Expressions: what they give, what they refuse, and how they are kept in bounds.

use serde_json::{Value, json};
use weir_workflow_engine::{Definition, Entry, MAX_EXPRESSION_BYTES, Status, TriggerScope};

use crate::support::{Driver, KEYED, START, event, plan, yaml};

/// The value of one template leaf over `data`, or the message of the failure.
fn evaluate(text: &str, data: Value) -> Result<Value, String> {
    let document = json!({
        "name": "t",
        "on": { "event": "stripe.payment_intent.succeeded", "hydrate": "never" },
        "steps": [{ "id": "out", "set": { "v": text } }],
    });
    let definition = Definition::parse(&document).map_err(|problems| problems[0].to_string())?;
    let resolution = weir_workflow_engine::check(&definition, &crate::support::Shop::default())
        .map_err(|problems| problems[0].to_string())?;
    let plan = weir_workflow_engine::Plan::compile(&definition, &resolution).unwrap();
    let mut driver = Driver::new(plan, KEYED, data);
    driver.start();
    match (driver.last.status.clone(), driver.entries().into_iter().next()) {
        (Status::Failed { message, .. }, _) => Err(message),
        (_, Some(Entry::Set(set))) => Ok(set.output.value()["v"].clone()),
        other => panic!("{other:?}"),
    }
}

fn check(text: &str, data: Value, expected: Value) {
    assert_eq!(evaluate(text, data), Ok(expected), "{text}");
}

fn refused(text: &str, data: Value, part: &str) {
    let message = evaluate(text, data).unwrap_err();
    assert!(message.contains(part), "{text}: {message}");
}

#[test]
fn a_sole_expression_keeps_its_type_and_anything_else_is_text() {
    let data = json!({ "n": 5, "s": "a\"b\n", "o": { "z": 1, "a": [true, null] }, "none": null });
    check("{{ event.data.n }}", data.clone(), json!(5));
    check("{{ event.data.o }}", data.clone(), json!({ "z": 1, "a": [true, null] }));
    check("{{ event.data.none }}", data.clone(), Value::Null);
    check("{{ event.data.n }}!", data.clone(), json!("5!"));
    check(
        "<{{ event.data.s }}|{{ event.data.s | upper }}>",
        data.clone(),
        json!("<a\"b\n|A\"B\n>"),
    );
    check(
        "{{ event.data.o }} {{ event.data.o.a[0] }}",
        data.clone(),
        json!("{\"z\":1,\"a\":[true,null]} true"),
    );
    check(
        "{{ event.id }}/{{ event.ref.type }}/{{ event.headers['x-request-id'] }}",
        data.clone(),
        json!("evt_1/payment_intent/r1"),
    );
    check(
        "{{ event.type }} {{ event.source }} {{ connection.config.region }} {{ run.version }} {{ trigger.endpoint }}",
        data.clone(),
        json!("payment_intent.succeeded endpoint eu 4 main"),
    );
    check("{{ now }}", data.clone(), json!("2026-01-01T00:00:00.000Z"));
    check("plain { } text", data, json!("plain { } text"));
    check("{{ '}}' ~ \"{{\" }}", json!({}), json!("}}{{"));
    check("{{ {'a': {'b': 1}} }}", json!({}), json!({ "a": { "b": 1 } }));
}

#[test]
fn computations_and_words() {
    let data = json!({
        "a": 7, "price": 19.5, "cents": 123405, "lines": [{ "sku": "x", "n": 2 }, { "sku": "y", "n": 3 }], "t": "2026-03-01T10:00:00Z",
    });
    check("{{ event.data.a * 2 + 1 }}", data.clone(), json!(15));
    check("{{ event.data.price * 2 }}", data.clone(), json!(39.0));
    check(
        "{{ 'big' if event.data.a > 5 else 'small' }}",
        data.clone(),
        json!("big"),
    );
    check("{{ event.data.nope.deep | default('x') }}", data.clone(), json!("x"));
    check("{{ event.data.nope is defined }}", data.clone(), json!(false));
    check(
        "{{ event.data.lines | map(attribute='sku') | join('+') }}",
        data.clone(),
        json!("x+y"),
    );
    check(
        "{{ event.data.lines | map(attribute='n') | sum }}",
        data.clone(),
        json!(5),
    );
    check(
        "{{ event.data.lines | selectattr('n', '>', 2) | map(attribute='sku') | list }}",
        data.clone(),
        json!(["y"]),
    );
    check("{{ event.data.lines[-1].sku }}", data.clone(), json!("y"));
    check("{{ event.data.lines | length }}", data.clone(), json!(2));
    check(
        "{{ event.data.t | date('%d.%m.%Y %H:%M') }} {{ event.data.t | timestamp }}",
        data.clone(),
        json!("01.03.2026 10:00 1772359200"),
    );
    check(
        "{{ money(event.data.cents, 'usd') }} {{ money(event.data.a, 'EUR') }}",
        data.clone(),
        json!("1234.05 USD 0.07 EUR"),
    );
    check(
        "{{ decimal_amount(event.data.cents, 'jpy') }} {{ decimal_amount(-1234, 'kwd') }}",
        data.clone(),
        json!("123405 -1.234"),
    );
    check(
        "{{ 'a' | sha256 }}",
        json!({}),
        json!("ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
    );
    check(
        "{{ 'ü?' | base64 }} {{ 'w7w/' | base64_decode }} {{ 'a b/ü' | urlencode }}",
        json!({}),
        json!("w7w/ ü? a%20b%2F%C3%BC"),
    );
    check(
        "{{ event.data | tojson }}",
        json!({ "b": 1, "a": [2] }),
        json!("{\"b\": 1, \"a\": [2]}"),
    );
    check(
        "{{ event.data.id if event.data.kind == 'b' else event.data.other }}",
        json!({ "kind": "a", "other": 1 }),
        json!(1),
    );
}

#[test]
fn what_is_not_there_is_an_error_with_a_way_out() {
    refused("{{ event.data.nope }}", json!({}), "event.data.nope is not there");
    refused("{{ event.data.nope }}", json!({}), "default(");
    refused(
        "{{ event.data.a + event.data.nope }}",
        json!({ "a": 1 }),
        "event.data.nope is not there",
    );
    refused(
        "x{{ event.data.none }}",
        json!({ "none": null }),
        "is null and cannot stand in a text",
    );
    refused(
        "{{ event.data.list[0].x }}",
        json!({ "list": [] }),
        "event.data.list[0].x is not there",
    );
    refused(
        "{{ event.data.list[event.data.i] }}",
        json!({ "list": [], "i": 3 }),
        "leads to something that is not there",
    );
    refused("{{ money(event.data.n, 'eur') }}", json!({ "n": 1.5 }), "whole number");
    refused("{{ event.data.t | date }}", json!({ "t": "soon" }), "RFC 3339");
    refused(
        "{{ event.data.t | date('%Q') }}",
        json!({ "t": 0 }),
        "not a date format",
    );
    refused("{{ event.data.a + 1 }}", json!({ "a": "x" }), "");
}

#[test]
fn faulty_expressions_are_refused_at_publish() {
    refused(
        "{{ event.data.a | uper }}",
        json!({}),
        "there is no filter `uper` (did you mean `upper`?)",
    );
    refused("{{ event.data.a.lower() }}", json!({}), "values have no methods");
    refused("{{ range(10) }}", json!({}), "there is no function `range`");
    refused("{{ evnt.id }}", json!({}), "there is no `evnt` (did you mean `event`?)");
    refused("{{ event.data.a", json!({}), "is never closed");
    refused(
        "{% for x in y %}",
        json!({}),
        "statements and comments are not part of texts",
    );
    refused(
        &format!("{{{{ '{}' }}}}", "x".repeat(MAX_EXPRESSION_BYTES)),
        json!({}),
        "is longer than 4096",
    );
    let message = evaluate("{{ money(event.data.a, }}", json!({})).unwrap_err();
    assert_eq!(message.lines().nth(1), Some("  money(event.data.a,"), "{message}");
    assert!(
        message.lines().nth(2).is_some_and(|line| line.trim().starts_with('^')),
        "{message}"
    );
}

#[test]
fn bombs_run_out_of_fuel_or_room() {
    let big: Vec<u32> = (0..2000).collect();
    let fuel = "400000 units of work";
    let doubling = format!(
        "{{{{ event.data.s{} }}}}",
        " | replace('a', 'aaaaaaaaaaaaaaaaaaaa')".repeat(12)
    );
    refused(&doubling, json!({ "s": "a" }), fuel);
    let sorting = format!("{{{{ event.data{} | length }}}}", " | sort | reverse".repeat(30));
    refused(&sorting, json!(big), fuel);
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(1500), ")".repeat(1500));
    assert!(evaluate(&nested, json!({})).is_err());
    let copies = "{{ event.data }}".repeat(200);
    refused(&copies, json!({ "s": "x".repeat(10_000) }), "more than 1048576 bytes");
}

#[test]
fn only_what_has_an_order_is_compared() {
    let amount = "{{ event.data.amount > 1000 }}";
    refused(
        amount,
        json!({ "amount": "1200" }),
        "the text \"1200\" meets the number 1000",
    );
    refused(amount, json!({ "amount": "1200" }), "| int");
    refused(
        amount,
        json!({ "amount": { "value": 1200 } }),
        "an object meets the number 1000",
    );
    refused(amount, json!({ "amount": null }), "default(");
    refused(
        "{{ event.data.list | max }}",
        json!({ "list": [1, "2"] }),
        "the number 1 meets the text \"2\"",
    );
    refused(
        "{{ event.data.list | min(attribute='a.b') }}",
        json!({ "list": [{ "a": { "b": 1 } }, { "a": { "b": null } }] }),
        "the number 1 meets null",
    );
    for (expression, holds) in [
        ("{{ event.data.text | int > 1000 }}", true),
        ("{{ event.data.text > '1000' }}", true),
        ("{{ event.data.text == 1200 }}", false),
        ("{{ 1 < event.data.list | max <= 3 }}", true),
        (
            "{{ event.data.list | select('gt', 2) | list | length > 0 and not 3 < 2 }}",
            true,
        ),
    ] {
        let data = json!({ "text": "1200", "list": [1, 3, 2] });
        check(expression, data, json!(holds));
    }
}

#[test]
fn where_lets_events_in() {
    let matches = |filter: &str, data: Value| {
        let text = format!(
            "name: w\non: {{ event: stripe.payment_intent.succeeded, where: \"{filter}\" }}\nsteps: [{{ id: x, set: {{ a: 1 }} }}]"
        );
        let plan = crate::support::plan_in(&crate::support::Shop::default(), &text).unwrap();
        let scope = TriggerScope {
            connection: &json!({ "account": "acct_1" }),
            trigger: &json!({ "kind": "endpoint" }),
        };
        plan.matches(&event(data), &scope, START)
    };
    assert_eq!(
        matches(
            "{{ event.data.object.amount >= 1000 }}",
            json!({ "object": { "amount": 1000 } })
        ),
        Ok(true)
    );
    assert_eq!(
        matches(
            "{{ event.data.object.amount >= 1000 }}",
            json!({ "object": { "amount": 999 } })
        ),
        Ok(false)
    );
    let mixed = matches(
        "{{ event.data.object.amount >= 1000 }}",
        json!({ "object": { "amount": "1000" } }),
    );
    assert!(mixed.is_err(), "a text has no order among numbers: {mixed:?}");
    assert_eq!(matches("{{ event.data.live }}", json!({ "live": true })), Ok(true));
    assert_eq!(
        matches(
            "{{ connection.account == 'acct_1' and trigger.kind == 'endpoint' }}",
            json!({})
        ),
        Ok(true)
    );
    assert!(matches("{{ event.data.object.amount >= 1000 }}", json!({})).is_err());
    let problems = Definition::parse(&yaml(
        "name: w\non: { event: a.b, where: \"{{ hydrated.x }}\" }\nsteps: [{ id: x, set: { a: 1 } }]",
    ))
    .unwrap_err();
    assert!(
        problems[0]
            .to_string()
            .starts_with("/on/where: `where` runs before hydration"),
        "{problems:?}"
    );
}

#[test]
fn an_item_is_seen_by_its_name_from_inside_only() {
    let steps = r#"
  - id: outer
    for_each: "{{ event.data }}"
    as: row
    do:
      - id: inner
        for_each: "{{ row.cells }}"
        do: [{ id: cell, set: { text: "{{ row.name }}{{ index }}={{ item }}" } }]
      - { id: line, set: { text: "{{ row.name }}:{{ steps.inner | map(attribute='text') | join(',') }}" } }
"#;
    let mut driver = Driver::new(
        plan(steps),
        KEYED,
        json!([{ "name": "a", "cells": [1, 2] }, { "name": "b", "cells": [] }]),
    );
    driver.start();
    assert_eq!(driver.last.status, Status::Succeeded);
    let lines: Vec<Value> = driver
        .entries()
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Set(set) if set.step.ends_with("line") => Some(set.output.value()["text"].clone()),
            _ => None,
        })
        .collect();
    assert_eq!(lines, [json!("a:a0=1,a1=2"), json!("b:")]);
}

/// The highest memory that this process ever had, in bytes; the test runner gives each test a process of its own.
fn peak_bytes() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test asks the kernel about itself")]
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn bombs_end_before_they_are_large() {
    let long = "x".repeat(100_000);
    let items: Vec<Value> = (0..10_000).map(|n| json!({ "n": n })).collect();
    let data = json!({ "s": long, "items": items });
    let many = vec!["event.data.s"; 250].join(",");
    for bomb in [
        "([event.data.s] * 10000000) | join | length".to_owned(),
        "(10000000 * [event.data.s]) ~ ''".to_owned(),
        "([event.data.s] * 1000) | map('upper') | list | length".to_owned(),
        "'x' * 100000000".to_owned(),
        "event.data.s | replace('x', event.data.s) | length".to_owned(),
        "event.data.items | join(event.data.s) | length".to_owned(),
        "event.data.items | map(attribute='m', default=event.data.s) | join | length".to_owned(),
        "event.data.items | map(attribute='m', default=[event.data.s]) | join | length".to_owned(),
        "event.data.items | map(attribute='m', default=none) | map('default', event.data.s) | map('upper') | join | length".to_owned(),
        format!("[{many}] ~ ''"),
        format!("[{many}] | tojson | length"),
        format!("[{many}] in 'abc'"),
        format!("'abc' | replace([{many}], '')"),
        format!("[{many}] | urlencode | length"),
        format!("[{many}] | date"),
        format!("money([{many}], 'eur')"),
    ] {
        let error = evaluate(&format!("{{{{ {bomb} }}}}"), data.clone()).unwrap_err();
        let bounds = ["units of work", "multiplies numbers", "may read", "`default` of `map`"];
        assert!(
            bounds.iter().any(|bound| error.contains(bound)),
            "{}",
            error.chars().take(200).collect::<String>()
        );
        assert!(error.len() < 10_000);
        assert!(peak_bytes() < 200 << 20, "{bomb:.60}: {} MiB", peak_bytes() >> 20);
    }
}

#[test]
fn filters_take_all_their_arguments() {
    let data = json!({ "s": "a-b-c", "lines": [{ "sku": "x", "n": 2 }, { "n": 3 }] });
    check(
        "{{ event.data.s | replace('-', '+', 1) }}",
        data.clone(),
        json!("a+b-c"),
    );
    check(
        "{{ event.data.lines | join(', ', attribute='n') }}",
        data.clone(),
        json!("2, 3"),
    );
    check("{{ ['a', 'b'] | join(d='-') }}", data.clone(), json!("a-b"));
    check("{{ '--a--' | trim('-') }}", data.clone(), json!("a"));
    check(
        "{{ 'hello wORLD' | title }} {{ 'hELLO' | capitalize }}",
        data.clone(),
        json!("Hello World Hello"),
    );
    check(
        "{{ event.data.lines | map(attribute='sku', default='?') | join }}",
        data.clone(),
        json!("x?"),
    );
    check(
        "{{ event.data.lines | tojson }}",
        data.clone(),
        json!("[{\"sku\": \"x\", \"n\": 2}, {\"n\": 3}]"),
    );
    check("{{ event.data.lines[0].n * 2.5 + 3 * -2 }}", data.clone(), json!(-1.0));
    check("{{ 2 ** 3 * 2 }}", data.clone(), json!(16));
    refused(
        "{{ event.data.s * 2 }}",
        data.clone(),
        "`*` multiplies numbers, and one side is a string",
    );
    refused(
        "{{ event.data.lines * 2 }}",
        data,
        "`*` multiplies numbers, and one side is a sequence",
    );
}

#[test]
fn a_document_as_large_as_an_output_may_be_can_be_printed() {
    let rows: Vec<Value> = (0..20_000)
        .map(|n| json!({ "id": n, "name": "twenty bytes of text" }))
        .collect();
    let value = evaluate("{{ event.data.rows | tojson | length }}", json!({ "rows": rows })).unwrap();
    assert!(value.as_u64().unwrap() > 900_000, "{value}");
}

#[test]
fn a_path_that_leads_nowhere_says_how_far_it_leads_and_what_is_there() {
    let data = json!({
        "customer": { "email": "a@b.test", "id": 7, "name": "x".repeat(300) },
        "lines": [1, 2], "note": null, "nothing": {},
        "wide": (0..40).map(|n| (format!("key_{n:02}"), json!(n))).collect::<serde_json::Map<_, _>>(),
    });
    let told = |text: &str| evaluate(text, data.clone()).unwrap_err();
    let hint = "if that can happen, say what to use instead with `| default(…)`";
    assert_eq!(
        told("{{ event.data.customer.emial }}"),
        format!(
            "`event.data.customer.emial` at /steps/0/set/v: event.data.customer.emial is not there: \
             `event.data.customer` has email, id, name (did you mean `email`, which is \"a@b.test\"?); {hint}"
        )
    );
    // The same of a path inside of a larger expression, and only of the one that was read.
    let inside = told("{{ event.data.gone.x if false else event.data.customer.emial | upper }}");
    assert!(inside.contains("(did you mean `email`, which is"), "{inside}");
    for (text, expected) in [
        ("{{ event.data.note.text }}", "`event.data.note` is null;"),
        ("{{ event.data.customer.id.x }}", "`event.data.customer.id` is 7;"),
        ("{{ event.data.lines[2] }}", "`event.data.lines` is a list of 2;"),
        (
            "{{ event.data.lines.sku }}",
            "a list of 2, whose elements are `event.data.lines[0]` and so on;",
        ),
        ("{{ event.data.nothing.x }}", "`event.data.nothing` is an empty object;"),
        ("{{ event.data.wide.x }}", "key_10, key_11 and 28 more;"),
        ("{{ event.data.customer.name.first }}", "xxx…;"),
        ("{{ event.data.customer.nam }}", "(did you mean `name`, which is \"xxx"),
    ] {
        let message = told(text);
        assert!(message.contains(expected) && message.len() < 500, "{text}: {message}");
    }
}
