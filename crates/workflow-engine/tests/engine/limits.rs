//! Each bound of documents and expressions: at the bound it is taken, one beyond it is refused with its code.

use std::time::Duration;

use serde_json::json;
use weir_workflow_engine::{
    Command, DEFAULT_CALL_TIMEOUT, DEFAULT_RESPOND_WITHIN, DEFAULT_WAIT, Definition, Input, MAX_ALL_ITEMS,
    MAX_APPROVERS, MAX_BRANCHES, MAX_CALL_TIMEOUT, MAX_CASES, MAX_CONCURRENCY, MAX_OUTPUT_BYTES, MAX_READ_BYTES,
    MAX_RESPOND_WITHIN, MAX_STEP_DEPTH, MAX_STEPS, MAX_TRIES, MAX_WAIT, MAX_WORKFLOW_TIMEOUT, Sent,
};

use crate::support::{Driver, KEYED, START, failure, plan, yaml};

/// The codes of a document's problems.
fn codes(head: &str, steps: &str) -> Vec<&'static str> {
    let text = format!("{head}\nsteps:\n{steps}");
    match Definition::parse(&yaml(&text)) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|problem| problem.code).collect(),
    }
}

const HEAD: &str = "name: t\non: { manual: {} }";
const STEP: &str = "  - { id: x, set: { a: 1 } }";

#[test]
fn definitions_stop_at_their_bounds() {
    let check = |of: &dyn Fn(usize) -> (String, String), bound: usize, code: &'static str| {
        let (head, steps) = of(bound);
        assert_eq!(codes(&head, &steps), [""; 0], "{bound} is fine");
        let (head, steps) = of(bound + 1);
        assert_eq!(codes(&head, &steps), [code], "{} is too much", bound + 1);
    };
    let steps = |steps: String| (HEAD.to_owned(), steps);
    let listed = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(", ");

    let many = |count| {
        steps(format!(
            "  [{}]",
            listed(count, &|n| format!("{{ id: s{n}, set: {{ a: 1 }} }}"))
        ))
    };
    check(&many, MAX_STEPS, "too_many_steps");
    let deep = |depth: usize| {
        let mut inner = "{ id: s0, set: { a: 1 } }".to_owned();
        for level in 1..=depth {
            inner = format!("{{ id: s{level}, for_each: \"{{{{ event.data }}}}\", do: [{inner}] }}");
        }
        steps(format!("  - {inner}"))
    };
    check(&deep, MAX_STEP_DEPTH, "nested_too_deeply");
    let cases = |count| {
        let cases = listed(count, &|n| format!("c{n}: [{{ id: s{n}, set: {{ a: 1 }} }}]"));
        steps(format!(
            "  - {{ id: x, switch: \"{{{{ event.id }}}}\", cases: {{ {cases} }} }}"
        ))
    };
    check(&cases, MAX_CASES, "out_of_bounds");
    let branches = |count| {
        let branches = listed(count, &|n| format!("b{n}: [{{ id: s{n}, set: {{ a: 1 }} }}]"));
        steps(format!("  - {{ id: x, parallel: {{ {branches} }} }}"))
    };
    check(&branches, MAX_BRANCHES, "out_of_bounds");
    let concurrency = |count| {
        steps(format!(
            "  - {{ id: x, for_each: \"{{{{ event.data }}}}\", concurrency: {count}, do: [{{ id: inner, set: {{ a: 1 }} }}] }}"
        ))
    };
    check(&concurrency, MAX_CONCURRENCY as usize, "out_of_bounds");
    let tries = |tries| {
        steps(format!(
            "  - {{ id: x, call: http.request, retry: {{ tries: {tries} }} }}"
        ))
    };
    check(&tries, MAX_TRIES as usize, "out_of_bounds");
    let all = |max| steps(format!("  - {{ id: x, call: http.request, all: {{ max: {max} }} }}"));
    check(&all, MAX_ALL_ITEMS as usize, "out_of_bounds");
    let call = |seconds| steps(format!("  - {{ id: x, call: http.request, timeout: {seconds}s }}"));
    let seconds = |span: std::time::Duration| usize::try_from(span.as_secs()).unwrap();
    check(&call, seconds(MAX_CALL_TIMEOUT), "out_of_bounds");
    let timeout = |seconds| (format!("{HEAD}\ntimeout: {seconds}s"), STEP.to_owned());
    check(&timeout, seconds(MAX_WORKFLOW_TIMEOUT), "out_of_bounds");
    let waits = |seconds| steps(format!("  - {{ id: x, approve: {{ title: q }}, timeout: {seconds}s }}"));
    check(&waits, seconds(MAX_WAIT), "out_of_bounds");
    let approvers = |count| {
        let names = listed(count, &|n| format!("p{n}"));
        steps(format!("  - {{ id: x, approve: {{ title: q, by: [{names}] }} }}"))
    };
    check(&approvers, MAX_APPROVERS, "out_of_bounds");
    let respond = |seconds| {
        steps(format!(
            "  - {{ id: x, respond: {{ body: {{ a: 1 }}, within: {seconds}s }} }}"
        ))
    };
    check(&respond, seconds(MAX_RESPOND_WITHIN), "out_of_bounds");
    let kind = |length: usize| {
        steps(format!(
            "  - {{ id: x, emit: {{ type: {}, data: {{ a: 1 }} }} }}",
            "t".repeat(length)
        ))
    };
    check(&kind, 256, "bad_event");
    // The private constants of the parser, by what the documentation says of them.
    let id = |length: usize| steps(format!("  - {{ id: {}, set: {{ a: 1 }} }}", "x".repeat(length)));
    check(&id, 64, "bad_id");
    let name = |length: usize| {
        (
            HEAD.replace("name: t", &format!("name: {}", "t".repeat(length))),
            STEP.to_owned(),
        )
    };
    check(&name, 64, "bad_name");
    let description = |length: usize| (format!("{HEAD}\ndescription: {}", "d".repeat(length)), STEP.to_owned());
    check(&description, 4096, "out_of_bounds");
    let schema = |depth: usize| {
        let mut inner = "{ type: string }".to_owned();
        for _ in 0..depth {
            inner = format!("{{ type: object, properties: {{ p: {inner} }} }}");
        }
        (
            format!("name: t\non: {{ manual: {{ input: {inner} }} }}"),
            STEP.to_owned(),
        )
    };
    check(&schema, 16, "out_of_bounds");
}

#[test]
fn expressions_stop_at_their_bounds() {
    let code = |expression: &str, bytes: usize| {
        let mut driver = Driver::new(
            plan(&format!("  - {{ id: x, set: {{ a: {expression} }} }}\n")),
            weir_workflow_engine::EffectClass::Read,
            json!({ "text": "x".repeat(bytes) }),
        );
        driver.start();
        driver.code()
    };
    // `{"a":"…"}` around it.
    assert_eq!(code("\"{{ event.data.text }}\"", MAX_OUTPUT_BYTES - 8), "succeeded");
    assert_eq!(code("\"{{ event.data.text }}\"", MAX_OUTPUT_BYTES), "expression_failed");
    let length = "\"{{ event.data.text | length }}\"";
    assert_eq!(code(length, MAX_READ_BYTES - 2), "succeeded");
    assert_eq!(code(length, MAX_READ_BYTES), "expression_failed");
}

#[test]
fn what_says_nothing_waits_so_long() {
    let call = "  - { id: x, call: http.request, connection: crm, retry: { tries: 1 }, with: { method: POST } }";
    let mut driver = Driver::new(plan(call), KEYED, json!({}));
    driver.start();
    let Some(Command::Call(asked)) = driver.commands.first() else {
        panic!("{:?}", driver.commands);
    };
    assert_eq!(asked.timeout, DEFAULT_CALL_TIMEOUT);
    driver.fail(failure("timeout", None, Sent::Never, true));
    assert!(driver.last.status.is_final());

    let ask = "  - { id: x, approve: Shall we? }";
    let mut driver = Driver::new(plan(ask), KEYED, json!({}));
    driver.start();
    let over = START.plus(DEFAULT_WAIT);
    assert_eq!(driver.last.due, Some(over));
    driver.now = START.plus(DEFAULT_WAIT - Duration::from_millis(1));
    driver.input(Input::Due);
    assert!(!driver.last.status.is_final());
    driver.now = over;
    driver.input(Input::Due);
    assert_eq!(driver.code(), "wait_timeout");

    let say = plan("  - { id: x, respond: { body: { a: 1 } } }");
    assert_eq!(say.responds_within(), Some(DEFAULT_RESPOND_WITHIN));
}
