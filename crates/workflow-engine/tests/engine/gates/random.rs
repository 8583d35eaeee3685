//! Any history of a workflow with gates: order, limits, and an end.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_workflow_engine::{Ask, GateKey, GateKind, Outcome, RunEnd, RunId, Stage, Standing};

use super::WORKFLOW;
use super::world::{Act, World, batch, debounce, lane, limit, throttle};

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
