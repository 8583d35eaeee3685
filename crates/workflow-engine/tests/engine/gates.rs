//! Lanes and limits: what a document may say, who may start, and that nobody waits for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use weir_workflow_engine::{
    Arrival, Ask, Board, Definition, Entry, Gate, GateKey, GateKind, Input, MAX_BATCH, MAX_GATHERING, MAX_LIMIT,
    MAX_MAX_WAITING, MAX_PERIOD, MAX_PRIORITY, Moves, Outcome, Plan, Rules, RunEnd, RunId, RunState, Stage, Standing,
    Timestamp, TriggerScope, Turn, WorkflowId, WorkspaceId, check, decide,
};

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
        Err("`event.data.id` at /lane: a key is a text that is not empty, a number or a boolean".to_owned())
    );
}

fn lane(key: &str, merge: bool, max_waiting: u32, hold: bool) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, GateKind::Lane, key),
        name: key.to_owned(),
        rules: Rules::Lane {
            merge,
            max_waiting,
            hold,
        },
    }
}

fn limit(key: &str, limit: u32) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, GateKind::Concurrency, key),
        name: key.to_owned(),
        rules: Rules::Concurrency { limit },
    }
}

fn throttle(limit: u32, per_ms: i64) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, GateKind::Throttle, ""),
        name: String::new(),
        rules: Rules::Throttle { limit, per_ms },
    }
}

fn debounce(key: &str, quiet_ms: i64, max_ms: Option<i64>) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, GateKind::Debounce, key),
        name: key.to_owned(),
        rules: Rules::Debounce { quiet_ms, max_ms },
    }
}

fn batch(size: u32, within_ms: i64) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, GateKind::Batch, ""),
        name: String::new(),
        rules: Rules::Batch { size, within_ms },
    }
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

/// What storage does, without storage: it loads no more than a board says it needs.
#[derive(Default)]
struct World {
    gates: BTreeMap<GateKey, Gate>,
    turns: BTreeMap<RunId, Standing>,
    tail: i64,
    now: i64,
    /// What became of each run, the last word.
    outcomes: BTreeMap<RunId, Outcome>,
    /// Runs in the order in which they started.
    started: Vec<RunId>,
    next_run: i64,
    dues: BTreeMap<RunId, Timestamp>,
    started_at: BTreeMap<RunId, i64>,
    /// Replays, and the first runs of their families.
    replays: BTreeMap<RunId, RunId>,
    cancelled: BTreeSet<RunId>,
}

enum Act {
    Arrive(Vec<Arrival>),
    Leave(Vec<(RunId, RunEnd)>),
    Release(RunId),
    Due(RunId),
}

impl World {
    fn now(&self) -> Timestamp {
        START.plus(std::time::Duration::from_millis(u64::try_from(self.now).unwrap()))
    }

    fn act(&mut self, act: Act) {
        let mut board = Board::default();
        board.load_tail(WORKFLOW, self.tail);
        let (leaving, arriving): (Vec<RunId>, Vec<Turn>) = match &act {
            Act::Arrive(arrivals) => (
                Vec::new(),
                arrivals.iter().map(|arrival| arrival.turn.clone()).collect(),
            ),
            Act::Leave(runs) => (runs.iter().map(|(run, _)| *run).collect(), Vec::new()),
            Act::Release(run) | Act::Due(run) => (vec![*run], Vec::new()),
        };
        let mut leaving = leaving;
        let ends: &[(RunId, RunEnd)] = if let Act::Leave(runs) = &act { runs } else { &[] };
        let succeeded = ends.iter().filter(|(_, end)| *end == RunEnd::Succeeded);
        let repaired: Vec<RunId> = succeeded
            .filter_map(|(run, _)| self.replays.get(run).copied())
            .collect();
        let held = self
            .turns
            .iter()
            .filter(|(_, turn)| turn.stage == Stage::Holds && repaired.contains(&turn.root));
        leaving.extend(held.map(|(run, _)| *run));
        let mut keys: BTreeSet<GateKey> = arriving
            .iter()
            .flat_map(|turn| &turn.gates)
            .map(|ask| ask.key)
            .collect();
        for run in &leaving {
            if let Some(standing) = self.turns.get(run) {
                board.load_turn(*run, standing.clone());
                keys.extend(standing.turn.gates.iter().map(|ask| ask.key));
            }
        }
        self.load_gates(&mut board, &keys);
        for (key, depth) in board.wanted(leaving.iter().copied(), arriving.iter()) {
            let mut queue: Vec<(&RunId, &Standing)> = self
                .turns
                .iter()
                .filter(|(_, standing)| standing.gate().is_some_and(|ask| ask.key == key))
                .collect();
            queue.sort_by_key(|(run, standing)| (standing.rank, **run));
            for (run, standing) in queue.into_iter().take(usize::try_from(depth).unwrap()) {
                if board.standing(*run).is_none() {
                    board.load_turn(*run, standing.clone());
                }
            }
        }
        let further: BTreeSet<GateKey> = board
            .standings()
            .flat_map(|(_, standing)| &standing.turn.gates)
            .map(|ask| ask.key)
            .collect();
        self.load_gates(&mut board, &further);
        let now = self.now();
        match act {
            Act::Arrive(arrivals) => arrivals.into_iter().for_each(|arrival| board.arrive(arrival, now)),
            Act::Leave(runs) => {
                runs.into_iter().for_each(|(run, end)| board.leave(run, end, now));
                repaired.into_iter().for_each(|root| board.repaired(root, now));
            }
            Act::Release(run) => board.release(run, now),
            Act::Due(run) => board.due(run, now),
        }
        let Moves {
            outcomes,
            gates,
            turns,
            tails,
            ..
        } = board.finish();
        for (key, gate) in gates {
            match gate {
                Some(gate) => self.gates.insert(key, gate),
                None => self.gates.remove(&key),
            };
        }
        for (run, turn) in turns {
            match turn {
                Some(turn) => {
                    self.turns.insert(run, turn);
                }
                None => {
                    self.turns.remove(&run);
                    self.dues.remove(&run);
                }
            }
        }
        self.tail = tails[&WORKFLOW];
        let mut starts: Vec<RunId> = Vec::new();
        for (run, outcome) in outcomes {
            self.dues.remove(&run);
            match outcome {
                Outcome::Starts => {
                    starts.push(run);
                    self.started_at.insert(run, self.now);
                }
                Outcome::Waits { due: Some(due) } => {
                    self.dues.insert(run, due);
                }
                Outcome::Waits { due: None } | Outcome::Merged { .. } | Outcome::LaneFull => {}
            }
            self.outcomes.insert(run, outcome);
        }
        starts.sort_by_key(|run| self.turns.get(run).map(|standing| standing.position));
        self.started.extend(starts);
        self.sound();
    }

    fn load_gates(&self, board: &mut Board, keys: &BTreeSet<GateKey>) {
        for key in keys {
            let Some(gate) = self.gates.get(key).filter(|_| board.gate(key).is_none()) else {
                continue;
            };
            board.load_gate(*key, gate.clone());
            if let Some(holder) = gate.holder.filter(|holder| board.standing(*holder).is_none()) {
                board.load_turn(holder, self.turns[&holder].clone());
            }
        }
    }

    /// The numbers at the gates are those of the runs.
    fn sound(&self) {
        for (key, gate) in &self.gates {
            let waiting = self
                .turns
                .values()
                .filter(|turn| turn.gate().is_some_and(|ask| ask.key == *key));
            assert_eq!(usize::try_from(gate.waiting).unwrap(), waiting.count());
            if !matches!(gate.kind, GateKind::Lane | GateKind::Concurrency) {
                let woken = match gate.kind {
                    GateKind::Throttle => gate.alarm,
                    _ => gate.holder,
                };
                assert_eq!(woken.is_some(), gate.waiting > 0, "{:?}", gate.kind);
                assert!(woken.is_none_or(|run| self.dues.contains_key(&run)), "{:?}", gate.kind);
                continue;
            }
            let inside = self.turns.values().filter(|turn| match turn.stage {
                Stage::At(number) => turn.turn.gates.iter().take(number).any(|ask| ask.key == *key),
                Stage::Inside => turn.turn.gates.iter().any(|ask| ask.key == *key),
                Stage::Holds => false,
            });
            let inside = inside.count() + usize::from(gate.holder.is_some());
            assert_eq!(usize::try_from(gate.inside).unwrap(), inside);
            assert!(gate.inside > 0 || gate.waiting == 0, "nobody waits at an empty gate");
        }
        for turn in self.turns.values().filter(|turn| turn.stage == Stage::Inside) {
            let mut kept = turn
                .turn
                .gates
                .iter()
                .filter(|ask| matches!(ask.rules.kind(), GateKind::Lane | GateKind::Concurrency));
            assert!(kept.all(|ask| self.gates.contains_key(&ask.key)));
        }
    }

    fn arrival(&mut self, gates: Vec<Ask>) -> Arrival {
        self.next_run += 1;
        let run = RunId::from_raw(self.next_run);
        Arrival {
            run,
            root: run,
            replay: false,
            workspace: WorkspaceId::from_raw(1),
            workflow: WORKFLOW,
            turn: Turn { priority: 0, gates },
        }
    }

    fn arrive(&mut self, gates: Vec<Ask>) -> RunId {
        self.arrive_with(gates, 0)
    }

    fn arrive_with(&mut self, gates: Vec<Ask>, priority: i32) -> RunId {
        let mut arrival = self.arrival(gates);
        arrival.turn.priority = priority;
        let run = arrival.run;
        self.act(Act::Arrive(vec![arrival]));
        run
    }

    fn replay(&mut self, of: RunId, gates: Vec<Ask>) -> RunId {
        let mut arrival = self.arrival(gates);
        arrival.root = self.replays.get(&of).copied().unwrap_or(of);
        arrival.replay = true;
        let run = arrival.run;
        self.replays.insert(run, arrival.root);
        self.act(Act::Arrive(vec![arrival]));
        run
    }

    fn leave(&mut self, run: RunId, end: RunEnd) {
        self.act(Act::Leave(vec![(run, end)]));
    }

    /// Time goes by; whoever is due is looked at on the way.
    fn later(&mut self, ms: i64) {
        let until = self.now + ms;
        loop {
            let next = self.dues.iter().map(|(run, due)| (*due, *run)).min();
            match next {
                Some((due, run)) if due.as_unix_ms() <= START.as_unix_ms() + until => {
                    self.now = self.now.max(due.as_unix_ms() - START.as_unix_ms());
                    self.act(Act::Due(run));
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn is(&self, run: RunId, outcome: Outcome) {
        assert_eq!(self.outcomes[&run], outcome, "{run}");
    }
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

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    /// Several events of one commit: lane, limit, something with time, priority of each.
    Accept(Vec<(u8, u8, u8, i32)>),
    /// Some of the runs under way end in one commit.
    End(Vec<(prop::sample::Index, RunEnd)>),
    /// A waiting run is cancelled.
    Cancel(prop::sample::Index),
    /// A failed run is replayed; true: with other keys.
    Replay(prop::sample::Index, bool),
    Later(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let event = (0..4_u8, 0..3_u8, 0..6_u8, -2..=2_i32);
    let end = prop_oneof![3 => Just(RunEnd::Succeeded), 1 => Just(RunEnd::Failed), 1 => Just(RunEnd::Canceled)];
    prop_oneof![
        4 => prop::collection::vec(event, 1..5).prop_map(Step::Accept),
        4 => prop::collection::vec((any::<prop::sample::Index>(), end), 1..4).prop_map(Step::End),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        1 => (any::<prop::sample::Index>(), prop::bool::weighted(0.3)).prop_map(|(index, other)| Step::Replay(index, other)),
        3 => (0..3000_i64).prop_map(Step::Later),
    ]
}

fn asks(lane_number: u8, limit_number: u8, time_number: u8) -> Vec<Ask> {
    let mut gates = Vec::new();
    match time_number {
        2 => gates.push(debounce(&format!("d{lane_number}"), 500, Some(1200))),
        3 => gates.push(batch(3, 700)),
        _ => {}
    }
    if lane_number > 0 {
        let name = format!("l{lane_number}");
        gates.push(lane(&name, lane_number == 3, 3, lane_number == 2));
    }
    if limit_number > 0 {
        gates.push(limit(&format!("c{limit_number}"), u32::from(limit_number)));
    }
    if time_number == 1 {
        gates.push(throttle(2, 1000));
    }
    gates
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_history_keeps_order_and_limits_and_comes_to_an_end(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::default();
        let mut asked: BTreeMap<RunId, Vec<Ask>> = BTreeMap::new();
        for step in steps {
            let inside: Vec<RunId> = world.turns.iter().filter(|(_, turn)| turn.stage == Stage::Inside).map(|(run, _)| *run).collect();
            let waiting: Vec<RunId> = world.turns.iter().filter(|(_, turn)| turn.gate().is_some()).map(|(run, _)| *run).collect();
            let held: Vec<RunId> = world.turns.iter().filter(|(_, turn)| turn.stage == Stage::Holds).map(|(run, _)| *run).collect();
            match step {
                Step::Accept(events) => {
                    let mut arrivals = Vec::new();
                    for (lane_number, limit_number, time_number, priority) in events {
                        let gates = asks(lane_number, limit_number, time_number);
                        if gates.is_empty() { continue; }
                        let mut arrival = world.arrival(gates.clone());
                        arrival.turn.priority = priority;
                        asked.insert(arrival.run, gates);
                        arrivals.push(arrival);
                    }
                    world.act(Act::Arrive(arrivals));
                }
                Step::End(ends) if !inside.is_empty() => {
                    let ends: BTreeMap<RunId, RunEnd> = ends.into_iter().map(|(index, end)| (*index.get(&inside), end)).collect();
                    world.act(Act::Leave(ends.into_iter().collect()));
                }
                Step::Cancel(index) if !waiting.is_empty() => {
                    let run = *index.get(&waiting);
                    world.cancelled.insert(run);
                    world.leave(run, RunEnd::Succeeded);
                }
                Step::Replay(index, other) if !held.is_empty() => {
                    let run = *index.get(&held);
                    let root = world.turns[&run].root;
                    // A family has one open run at a time.
                    if world.turns.values().any(|turn| turn.root == root && turn.stage != Stage::Holds) { continue; }
                    let gates = if other { asks(1, 1, 0) } else { asked[&run].clone() };
                    let replay = world.replay(run, gates.clone());
                    asked.insert(replay, gates);
                    // It goes past the failed run at once, whoever waits.
                    let waits = world.turns.get(&replay).and_then(Standing::gate).is_some_and(|ask| ask.rules.kind() == GateKind::Lane);
                    prop_assert!(other || !waits);
                    prop_assert!(world.turns.contains_key(&run));
                }
                Step::End(_) | Step::Cancel(_) | Step::Replay(..) => {}
                Step::Later(ms) => world.later(ms),
            }
            for gate in world.gates.values() {
                // A replay goes in past the failed run that keeps a lane.
                let held = gate.kind == GateKind::Lane && gate.holder.is_some();
                prop_assert!(gate.inside <= gate.limit + u32::from(held));
            }
            world.now += 1;
        }
        // Whoever is still there comes to an end, with a person for the held lanes.
        for _ in 0..10_000 {
            let next = world.turns.iter().find(|(_, turn)| turn.gate().is_none()).map(|(run, turn)| (*run, turn.stage));
            match next {
                Some((run, Stage::Holds)) => world.act(Act::Release(run)),
                Some((run, _)) => world.leave(run, RunEnd::Succeeded),
                None if world.turns.is_empty() => break,
                None => world.later(500),
            }
        }
        prop_assert!(world.turns.is_empty(), "somebody waits for ever");
        prop_assert!(world.gates.values().all(|gate| gate.kind == GateKind::Throttle));
        let throttled = |run: &RunId| asked[run].iter().any(|ask| ask.rules.kind() == GateKind::Throttle);
        let mut starts: Vec<i64> = world.started_at.iter().filter(|(run, _)| throttled(run)).map(|(_, at)| *at).collect();
        starts.sort_unstable();
        prop_assert!(starts.windows(3).all(|three| three[2] - three[0] >= 1000), "{starts:?}");
        // Whoever was merged is stood for by a run that was done, by one that was cancelled, or by a dead letter.
        for (run, outcome) in &world.outcomes {
            let Outcome::Merged { mut into } = *outcome else { continue };
            prop_assert!(!world.started_at.contains_key(run));
            while let Outcome::Merged { into: next } = world.outcomes[&into] { into = next; }
            let ended = world.cancelled.contains(&into) || world.outcomes[&into] == Outcome::LaneFull;
            prop_assert!(ended || world.started_at.contains_key(&into), "{run} was merged into {into}");
        }
        // In a lane, runs of events start in the order of acceptance.
        for number in 1..4_u8 {
            let key = GateKey::new(WORKFLOW, GateKind::Lane, &format!("l{number}"));
            let originals: Vec<RunId> = world.started.iter().copied().filter(|run| {
                // Who gathers events comes to its lane later than it was accepted.
                let gathers = asked[run].iter().any(|ask| matches!(ask.rules.kind(), GateKind::Debounce | GateKind::Batch));
                !gathers && asked[run].iter().any(|ask| ask.key == key)
            }).collect();
            let replays_left_out: Vec<RunId> = originals.into_iter().filter(|run| !world.replays.contains_key(run)).collect();
            prop_assert!(replays_left_out.is_sorted(), "{replays_left_out:?}");
        }
        for (run, outcome) in &world.outcomes {
            prop_assert!(!matches!(outcome, Outcome::Waits { .. }) || world.cancelled.contains(run), "{run} {outcome:?}");
        }
    }
}
