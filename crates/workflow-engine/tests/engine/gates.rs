//! Lanes and limits: what a document may say, who may start, and that nobody waits for ever.

mod pause;
mod random;
mod world;

use std::sync::Arc;

use serde_json::json;
use weir_workflow_engine::{
    Ask, Definition, Entry, GateKey, GateKind, Input, MAX_BATCH, MAX_GATHERING, MAX_LIMIT, MAX_MAX_WAITING, MAX_PERIOD,
    MAX_PRIORITY, Outcome, Plan, Rules, RunEnd, RunId, RunState, TriggerScope, Turn, WorkflowId, check, decide,
};

use self::world::{Act, World, batch, debounce, lane, limit, throttle};
use crate::support::{KEYED, START, Shop, World as Surroundings, event, head, yaml};

const WORKFLOW: WorkflowId = WorkflowId::from_raw(7);

fn document(words: &str) -> String {
    format!("name: t\non: {{ event: stripe.charge.refunded }}\n{words}\nsteps: [{{ id: x, set: {{ a: 1 }} }}]")
}

fn problems(words: &str, expected: &[&str]) {
    let found = match Definition::parse(&yaml(&document(words))) {
        Ok(definition) => check(&definition, &Shop::default()).err().unwrap_or_default(),
        Err(found) => found,
    };
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "{words}");
}

#[test]
fn what_a_document_may_say() {
    problems(r#"lane: "{{ event.ref.type }}/{{ event.ref.id }}""#, &[]);
    problems(
        r#"lane: { key: "{{ event.ref.id }}", merge: true, max_waiting: 5, on_block: hold }"#,
        &[],
    );
    problems("concurrency: 5", &[]);
    problems(r#"concurrency: { key: "{{ event.account }}", limit: 5 }"#, &[]);
    problems(r#"throttle: { key: "{{ event.account }}", limit: 10, per: 1m }"#, &[]);
    problems(r#"debounce: { key: "{{ event.ref.id }}", for: 30s, max: 5m }"#, &[]);
    problems("batch: { size: 100, for: 1m }", &[]);
    problems(
        "throttle: { limit: 10, per: 2d }",
        &["/throttle/per: `per` must be more than nothing and at most 1d"],
    );
    problems("throttle: { limit: 10 }", &["/throttle: `per` is missing"]);
    problems(
        r#"debounce: { key: "{{ event.id }}", for: 30s, max: 10s }"#,
        &["/debounce/max: `max` must not be shorter than `for`"],
    );
    problems("debounce: { for: 30s }", &["/debounce: `key` is missing"]);
    problems(
        "batch: { size: 1, for: 1m }",
        &["/batch/size: `size` must be a whole number from 2 to 100"],
    );
    problems(
        "debounce: { key: \"{{ event.id }}\", for: 1s }\nbatch: { size: 2, for: 1m }",
        &["/batch: a workflow has either `debounce` or `batch`: one keeps the last event, the other all of them"],
    );
    problems("priority: -100", &[]);
    problems(r#"priority: "{{ 10 if event.data.vip else 0 }}""#, &[]);
    problems("lane: {}", &["/lane: `key` is missing"]);
    problems(
        "lane: always",
        &[
            "/lane: \"always\" is the same for every event (write an expression, such as \"{{ event.ref.id }}\", or `concurrency: 1`)",
        ],
    );
    problems("lane: 5", &["/lane: an object is wanted here, not a number"]);
    problems(
        r#"lane: { key: "{{ hydrated.payment_intent.id }}" }"#,
        &[
            "/lane/key: a key runs before hydration and does not see `hydrated`; it sees event, connection, trigger, now",
        ],
    );
    problems(
        r#"lane: { key: "{{ event.dta }}", onblock: hold }"#,
        &[
            "/lane/onblock: `onblock` is not supported here; supported: key, merge, max_waiting, on_block (did you mean `on_block`?)",
            "/lane/key: `event` has no `dta`; it has id, uid, type, time, received_at, source, account, ref, headers, body, data, connector, endpoint (did you mean `data`?)",
        ],
    );
    problems(
        r#"lane: { key: "{{ event.id }}", on_block: held, merge: 1, max_waiting: 0 }"#,
        &[
            "/lane/merge: true or false is wanted here, not a number",
            "/lane/max_waiting: `max_waiting` must be a whole number from 1 to 10000",
            "/lane/on_block: \"held\" is none of: park, hold (did you mean `hold`?)",
        ],
    );
    problems(
        "concurrency: 0",
        &["/concurrency: `concurrency` must be a whole number from 1 to 1000"],
    );
    problems("concurrency: {}", &["/concurrency: `limit` is missing"]);
    problems(
        "priority: 101",
        &["/priority: `priority` must be a whole number from -100 to 100"],
    );
    problems(
        "priority: high",
        &["/priority: \"high\" is not one expression (write it as \"{{ … }}\")"],
    );
}

#[test]
fn turns_stop_at_their_bounds() {
    let seconds = |span: std::time::Duration| span.as_secs();
    let (day, week) = (seconds(MAX_PERIOD), seconds(MAX_GATHERING));
    let (waiting, limit, batch, priority) = (MAX_MAX_WAITING, MAX_LIMIT, MAX_BATCH, MAX_PRIORITY);
    let key = r#"key: "{{ event.id }}""#;
    let cases: [(&dyn Fn(u64) -> String, &str); 8] = [
        (
            &|more| format!("lane: {{ {key}, max_waiting: {} }}", u64::from(waiting) + more),
            "/lane/max_waiting",
        ),
        (
            &|more| format!("concurrency: {}", u64::from(limit) + more),
            "/concurrency",
        ),
        (
            &|more| format!("throttle: {{ limit: 1, per: {}s }}", day + more),
            "/throttle/per",
        ),
        (
            &|more| format!("debounce: {{ {key}, for: {}s }}", week + more),
            "/debounce/for",
        ),
        (
            &|more| format!("batch: {{ size: 2, for: {}s }}", week + more),
            "/batch/for",
        ),
        (
            &|more| format!("batch: {{ size: {}, for: 1s }}", u64::from(batch) + more),
            "/batch/size",
        ),
        (
            &|more| format!("priority: {}", i64::from(priority) + i64::try_from(more).unwrap()),
            "/priority",
        ),
        (
            &|more| format!("priority: {}", -i64::from(priority) - i64::try_from(more).unwrap()),
            "/priority",
        ),
    ];
    for (words, place) in cases {
        problems(&words(0), &[]);
        let beyond = Definition::parse(&yaml(&document(&words(1)))).unwrap_err();
        let found: Vec<(&str, &str)> = beyond
            .iter()
            .map(|problem| (problem.pointer.as_str(), problem.code))
            .collect();
        assert_eq!(found, [(place, "out_of_bounds")], "{}", words(1));
    }
}

fn turn_of(words: &str, data: serde_json::Value) -> Result<Option<Turn>, String> {
    let definition = Definition::parse(&yaml(&document(words))).unwrap();
    let resolution = check(&definition, &Shop::default()).unwrap();
    let plan = Plan::compile(&definition, &resolution).unwrap();
    let scope = TriggerScope {
        connection: &json!(null),
        trigger: &json!({ "kind": "endpoint" }),
    };
    plan.turn(WORKFLOW, &event(data), &scope, START)
        .map_err(|error| error.to_string())
}

#[test]
fn what_an_event_asks_for() {
    assert_eq!(turn_of("", json!({})), Ok(None));
    let words = "lane: { key: \"deal {{ event.data.id }}\", on_block: hold }\nconcurrency: 3\npriority: \"{{ event.data.rank }}\"";
    let turn = turn_of(words, json!({ "id": 12, "rank": 250 })).unwrap().unwrap();
    assert_eq!(turn.priority, 100);
    assert_eq!(
        turn.gates,
        [
            Ask {
                key: GateKey::new(WORKFLOW, GateKind::Lane, "deal 12"),
                name: "deal 12".to_owned(),
                rules: Rules::Lane {
                    merge: false,
                    max_waiting: 1000,
                    hold: true
                },
            },
            Ask {
                key: GateKey::new(WORKFLOW, GateKind::Concurrency, ""),
                name: String::new(),
                rules: Rules::Concurrency { limit: 3 },
            },
        ]
    );
    let refused = |data, expected: &str| assert_eq!(turn_of(words, data), Err(expected.to_owned()));
    refused(
        json!({ "rank": 1 }),
        "`event.data.id` at /lane/key: event.data.id is not there: `event.data` has rank; if that can happen, say what to use instead with `| default(…)`",
    );
    refused(
        json!({ "id": 1, "rank": "x" }),
        "`event.data.rank` at /priority: a priority is a number, not \"x\"",
    );
    assert_eq!(
        turn_of("lane: \"{{ event.data.id }}\"", json!({ "id": null })),
        Err("`event.data.id` at /lane: a key is a text that is not empty, a number or a boolean, not null".to_owned())
    );
}

#[test]
fn a_batch_is_seen_as_a_list() {
    let steps =
        "steps: [{ id: x, set: { count: \"{{ event.batch | length }}\", second: \"{{ event.batch[1].data.id }}\" } }]";
    let text = |words: &str| format!("name: t\non: {{ event: stripe.charge.refunded }}\n{words}\n{steps}");
    let definition = Definition::parse(&yaml(&text("batch: { size: 2, for: 1m }"))).unwrap();
    let resolution = check(&definition, &Shop::default()).unwrap();
    let plan = Plan::compile(&definition, &resolution).unwrap();
    let first = event(json!({ "id": 1 })).with_batch(&[event(json!({ "id": 2 }))]);
    assert!(first.size_bytes() > first.body.size_bytes());
    let state = RunState::new(head(1), Arc::new(first), &plan);
    let decision = decide(&plan, &state, &Surroundings { class: KEYED }, Input::Started, START).unwrap();
    let Some(Entry::Set(set)) = decision.entries.iter().find(|entry| matches!(entry, Entry::Set(_))) else {
        panic!("{:?}", decision.entries)
    };
    assert_eq!(*set.output.value(), json!({ "count": 2, "second": 2 }));
    let without = Definition::parse(&yaml(&text(""))).unwrap();
    let found = check(&without, &Shop::default()).unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "/steps/0/set/count: `event.batch` exists only in a workflow with `batch`"
    );
}

#[test]
fn a_lane_lets_one_through_after_the_other() {
    let mut world = World::default();
    let ask = || vec![lane("a", false, 10, false)];
    let [first, second, third] = [(); 3].map(|()| world.arrive(ask()));
    let other = world.arrive(vec![lane("b", false, 10, false)]);
    world.is(first, Outcome::Starts);
    world.is(second, Outcome::Waits { due: None });
    world.is(other, Outcome::Starts);
    // Parked, the lane goes on after a failure.
    world.leave(first, RunEnd::Failed);
    world.is(second, Outcome::Starts);
    world.is(third, Outcome::Waits { due: None });
    // One that is cancelled while it waits gives its place up.
    world.leave(third, RunEnd::Succeeded);
    world.leave(second, RunEnd::Succeeded);
    world.leave(other, RunEnd::Succeeded);
    assert!(world.gates.is_empty() && world.turns.is_empty());
}

#[test]
fn a_held_lane_waits_for_a_person() {
    let mut world = World::default();
    let ask = || vec![lane("a", false, 10, true), limit("", 1)];
    let failed = world.arrive(ask());
    let waits = world.arrive(ask());
    let other = world.arrive(vec![lane("b", false, 10, true), limit("", 1)]);
    world.leave(failed, RunEnd::Failed);
    // The place among the runs in progress is free again, the lane is not.
    world.is(waits, Outcome::Waits { due: None });
    world.is(other, Outcome::Starts);
    world.leave(other, RunEnd::Succeeded);
    // A replay goes in past the failed run, and may fail again.
    let replay = world.replay(failed, ask());
    world.is(replay, Outcome::Starts);
    world.leave(replay, RunEnd::Failed);
    world.is(waits, Outcome::Waits { due: None });
    // It stands for both now.
    world.act(Act::Release(failed));
    world.is(waits, Outcome::Waits { due: None });
    world.act(Act::Release(waits));
    world.is(waits, Outcome::Waits { due: None });
    world.act(Act::Release(replay));
    world.is(waits, Outcome::Starts);
    world.leave(waits, RunEnd::Succeeded);
    assert!(world.gates.is_empty() && world.turns.is_empty());
}

#[test]
fn only_success_or_a_person_frees_a_held_lane() {
    let ask = || vec![lane("a", false, 10, true), limit("", 1)];
    let mut world = World::default();
    let failed = world.arrive(ask());
    let waits = world.arrive(ask());
    world.leave(failed, RunEnd::Failed);
    // A replay that somebody ends has repaired nothing, before it starts or after.
    let busy = world.arrive(vec![limit("", 1)]);
    let early = world.replay(failed, ask());
    world.is(early, WAITS);
    world.leave(early, RunEnd::Canceled);
    world.is(waits, WAITS);
    world.leave(busy, RunEnd::Succeeded);
    let late = world.replay(failed, ask());
    world.is(late, Outcome::Starts);
    world.leave(late, RunEnd::Canceled);
    world.is(waits, WAITS);
    // Nor has one on a version that holds no lanes when it fails.
    let parks = world.replay(failed, vec![lane("a", false, 10, false)]);
    world.is(parks, Outcome::Starts);
    world.leave(parks, RunEnd::Failed);
    world.is(waits, WAITS);
    // A person may let go while a replay is under way; that one is still alone.
    let mut other = World::default();
    let broken = other.arrive(ask());
    let next = other.arrive(ask());
    other.leave(broken, RunEnd::Failed);
    let again = other.replay(broken, ask());
    other.act(Act::Release(broken));
    other.is(next, WAITS);
    other.leave(again, RunEnd::Canceled);
    other.is(next, Outcome::Starts);

    let repairs = world.replay(parks, ask());
    world.is(repairs, Outcome::Starts);
    world.leave(repairs, RunEnd::Succeeded);
    world.is(waits, Outcome::Starts);
    world.leave(waits, RunEnd::Succeeded);
    assert!(world.gates.is_empty() && world.turns.is_empty());
}

#[test]
fn a_repair_frees_the_lane_wherever_it_ran() {
    for gates in [vec![lane("b", false, 10, true)], vec![limit("", 1)], Vec::new()] {
        let ask = || vec![lane("a", false, 10, true), limit("", 1)];
        let mut world = World::default();
        let failed = world.arrive(ask());
        let waits = [(); 2].map(|()| world.arrive(ask()));
        world.leave(failed, RunEnd::Failed);
        let replay = world.replay(failed, gates.clone());
        world.is(replay, Outcome::Starts);
        world.leave(replay, RunEnd::Canceled);
        let replay = world.replay(failed, gates);
        world.is(waits[0], WAITS);
        world.leave(replay, RunEnd::Succeeded);
        world.is(waits[0], Outcome::Starts);
        world.is(waits[1], WAITS);
        world.leave(waits[0], RunEnd::Succeeded);
        world.is(waits[1], Outcome::Starts);
    }
}

#[test]
fn a_replay_changes_no_rules() {
    let mut world = World::default();
    let first = world.arrive(vec![limit("", 2), throttle(5, 1000)]);
    let older = [(); 2].map(|()| world.replay(RunId::from_raw(99), vec![limit("", 5), throttle(1, 9000)]));
    world.is(older[0], Outcome::Starts);
    world.is(older[1], WAITS);
    let throttled = world.gates[&throttle(5, 1000).key].clone();
    assert_eq!((throttled.limit, throttled.per_ms), (5, 1000));
    world.replay(RunId::from_raw(98), vec![limit("", 1)]);
    world.leave(first, RunEnd::Succeeded);
    world.is(older[1], Outcome::Starts);
}

#[test]
fn limits_are_taken_from_the_live_version() {
    let of = |words: &str| turn_of(words, json!({ "id": 1 })).unwrap().unwrap();
    let key = "lane: { key: \"{{ event.data.id }}\"";
    let mut old = of(&format!("{key}, on_block: hold }}\nconcurrency: 5\npriority: 7"));
    old.take_limits(&of(&format!(
        "{key} }}\nconcurrency: 1\nthrottle: {{ limit: 1, per: 1s }}"
    )));
    assert_eq!(
        old,
        of(&format!("{key}, on_block: hold }}\nconcurrency: 1\npriority: 7"))
    );
    // Another key is another limit.
    let kept = old.clone();
    old.take_limits(&of("concurrency: { key: \"{{ event.data.id }}\", limit: 9 }"));
    assert_eq!(old, kept);
}

#[test]
fn merge_keeps_the_last_event_but_no_replay_is_merged() {
    let mut world = World::default();
    let ask = || vec![lane("a", true, 10, false)];
    let first = world.arrive(ask());
    let second = world.arrive(ask());
    let replay = world.replay(second, ask());
    let third = world.arrive(ask());
    world.is(first, Outcome::Starts);
    world.is(second, Outcome::Merged { into: third });
    world.is(replay, Outcome::Waits { due: None });
    world.leave(first, RunEnd::Succeeded);
    world.is(replay, Outcome::Starts);
    world.leave(replay, RunEnd::Succeeded);
    world.is(third, Outcome::Starts);
}

#[test]
fn a_full_lane_says_so() {
    let mut world = World::default();
    let ask = || vec![lane("a", false, 2, false)];
    let runs = [(); 4].map(|()| world.arrive(ask()));
    world.is(runs[2], Outcome::Waits { due: None });
    world.is(runs[3], Outcome::LaneFull);
    assert!(!world.turns.contains_key(&runs[3]));
}

#[test]
fn a_full_lane_forgets_who_came_from_a_gate_before_it() {
    let mut world = World::default();
    let alone = || vec![lane("a", false, 1, false)];
    let first = world.arrive(alone());
    world.arrive(alone());
    let gathers = world.arrive(vec![batch(3, 700), lane("a", false, 1, false)]);
    world.later(700);
    world.is(gathers, Outcome::LaneFull);
    assert!(!world.turns.contains_key(&gathers));
    world.leave(first, RunEnd::Succeeded);
}

#[test]
fn priority_goes_first_but_nobody_waits_for_ever() {
    let mut world = World::default();
    let ask = || vec![limit("", 1)];
    let first = world.arrive(ask());
    let low = world.arrive_with(ask(), 0);
    let high = world.arrive_with(ask(), 2);
    world.leave(first, RunEnd::Succeeded);
    world.is(high, Outcome::Starts);
    // Two points are two minutes: what came later than that waits behind, however urgent.
    world.now = 120_001;
    let late = world.arrive_with(ask(), 2);
    world.leave(high, RunEnd::Succeeded);
    world.is(low, Outcome::Starts);
    world.leave(low, RunEnd::Succeeded);
    world.is(late, Outcome::Starts);
}

#[test]
fn a_raised_limit_lets_more_in_and_a_lowered_one_fewer() {
    let mut world = World::default();
    let runs = [(); 3].map(|()| world.arrive(vec![limit("", 1)]));
    let newer = world.arrive(vec![limit("", 3)]);
    world.is(runs[1], Outcome::Starts);
    world.is(runs[2], Outcome::Starts);
    world.is(newer, Outcome::Waits { due: None });
    world.arrive(vec![limit("", 1)]);
    world.leave(runs[0], RunEnd::Succeeded);
    world.leave(runs[1], RunEnd::Succeeded);
    world.is(newer, Outcome::Waits { due: None });
    world.leave(runs[2], RunEnd::Succeeded);
    world.is(newer, Outcome::Starts);
}

const WAITS: Outcome = Outcome::Waits { due: None };

fn until(ms: u64) -> Outcome {
    Outcome::Waits {
        due: Some(START.plus(std::time::Duration::from_millis(ms))),
    }
}

#[test]
fn a_throttle_spreads_starts() {
    let mut world = World::default();
    let ask = || vec![throttle(2, 1000)];
    let first = world.arrive(ask());
    world.now = 400;
    let second = world.arrive(ask());
    let third = world.arrive(ask());
    let fourth = world.arrive(ask());
    let urgent = world.arrive_with(ask(), 1);
    world.is(first, Outcome::Starts);
    world.is(second, Outcome::Starts);
    // The head of the queue is woken when the oldest start is out of the period; the most urgent one goes.
    world.is(third, until(1000));
    world.is(fourth, WAITS);
    world.later(600);
    world.is(urgent, Outcome::Starts);
    world.is(third, until(1400));
    world.leave(third, RunEnd::Succeeded);
    world.is(fourth, until(1400));
    world.later(400);
    world.is(fourth, Outcome::Starts);
    for run in [first, second, urgent, fourth] {
        world.leave(run, RunEnd::Succeeded);
    }
    assert_eq!(
        world.started_at.values().copied().collect::<Vec<_>>(),
        [0, 400, 1400, 1000]
    );
    assert_eq!(world.gates.len(), 1, "it remembers its last starts");
}

#[test]
fn a_debounce_waits_until_it_is_quiet_but_not_for_ever() {
    let mut world = World::default();
    let ask = || vec![debounce("a", 100, Some(250)), lane("a", false, 10, false)];
    let first = world.arrive(ask());
    world.is(first, until(100));
    world.later(90);
    let second = world.arrive(ask());
    world.is(first, Outcome::Merged { into: second });
    world.is(second, until(190));
    // Looked at too early: nothing happens.
    world.act(Act::Due(second));
    world.is(second, until(190));
    let replay = world.replay(first, ask());
    world.is(replay, Outcome::Starts);
    world.later(90);
    let third = world.arrive(ask());
    world.is(third, until(250));
    world.later(70);
    // The burst is over; its run waits for its lane now.
    world.is(third, WAITS);
    let fresh = world.arrive(ask());
    world.is(fresh, until(350));
    world.leave(replay, RunEnd::Succeeded);
    world.is(third, Outcome::Starts);
    world.leave(fresh, RunEnd::Succeeded);
    world.leave(third, RunEnd::Succeeded);
    assert!(world.gates.is_empty() && world.turns.is_empty());
}

#[test]
fn a_batch_is_full_or_over() {
    let mut world = World::default();
    let ask = || vec![batch(3, 100), limit("", 1)];
    let [first, second, third, fourth] = [(); 4].map(|()| world.arrive(ask()));
    world.is(first, Outcome::Starts);
    world.is(second, Outcome::Merged { into: first });
    world.is(third, Outcome::Merged { into: first });
    world.is(fourth, until(100));
    world.later(50);
    let fifth = world.arrive(ask());
    world.is(fifth, Outcome::Merged { into: fourth });
    world.later(50);
    world.is(fourth, WAITS);
    let sixth = world.arrive(ask());
    world.is(sixth, until(200));
    world.leave(first, RunEnd::Succeeded);
    world.is(fourth, Outcome::Starts);
    world.leave(sixth, RunEnd::Succeeded);
    world.leave(fourth, RunEnd::Succeeded);
    assert!(world.gates.is_empty() && world.turns.is_empty());
}

#[test]
fn a_batch_that_is_full_comes_to_gates_that_others_have_passed() {
    let mut world = World::default();
    let first = world.arrive(vec![batch(2, 1000), limit("", 1)]);
    let inside = world.arrive(vec![limit("", 1)]);
    world.arrive(vec![batch(2, 1000)]);
    world.is(first, WAITS);
    world.leave(inside, RunEnd::Succeeded);
    world.is(first, Outcome::Starts);
}
