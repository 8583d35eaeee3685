//! A paused workflow: whoever comes waits, and nobody is lost or overtaken when it is resumed.

use weir_workflow_engine::{Outcome, RunEnd, RunId};

use super::world::{Act, World, debounce, held, lane, limit};

/// Lets through whoever waits, in as many steps as it takes.
fn resume(world: &mut World) -> usize {
    let mut steps = 0;
    while let Some(first) = world.first_held() {
        world.act(Act::Resume(first));
        steps += 1;
    }
    steps
}

#[test]
fn who_was_held_starts_in_order_and_leaves_nothing_behind() {
    let mut world = World::default();
    let before = world.arrive(vec![]);
    world.is(before, Outcome::Starts);
    let runs: Vec<RunId> = (0..200)
        .map(|_| {
            world.now += 1;
            world.arrive(held(false, vec![]))
        })
        .collect();
    for run in &runs {
        world.is(*run, Outcome::Waits { due: None });
    }
    // One of them is ended by a person, and asking about a run that does not wait changes nothing.
    world.leave(runs[70], RunEnd::Canceled);
    world.act(Act::Resume(RunId::from_raw(0)));
    world.act(Act::Resume(runs[70]));
    assert_eq!(world.started, [before]);
    // Resumed, but not through yet: whoever comes waits behind those that do.
    world.act(Act::Resume(runs[0]));
    assert_eq!(world.started.len(), 65, "so many in one commit");
    let late = world.arrive(held(true, vec![]));
    world.is(late, Outcome::Waits { due: None });
    assert_eq!(resume(&mut world), 3);
    let expected = runs.iter().filter(|run| **run != runs[70]).copied();
    let expected: Vec<RunId> = [before].into_iter().chain(expected).chain([late]).collect();
    let mut started = world.started.clone();
    started.sort_unstable();
    assert_eq!(started, expected);
    // Nobody waits any more: it is passed without a stop.
    let next = world.arrive(held(true, vec![]));
    world.is(next, Outcome::Starts);
    assert!(world.gates.is_empty() && world.turns.is_empty());
}

#[test]
fn lanes_and_limits_hold_behind_a_pause() {
    let mut world = World::default();
    let gates = |key: &str| vec![lane(key, false, 100, false), limit("", 2)];
    let first = world.arrive(gates("a"));
    let held_runs: Vec<RunId> = ["a", "b", "c", "a", "b"]
        .iter()
        .map(|key| {
            world.now += 1;
            world.arrive(held(false, gates(key)))
        })
        .collect();
    assert_eq!(world.started, [first]);
    resume(&mut world);
    // The lane of the first is taken, and of the others one fits beside it.
    assert_eq!(world.started, [first, held_runs[1]]);
    let mut over = 0;
    while over < world.started.len() {
        let run = world.started[over];
        world.leave(run, RunEnd::Succeeded);
        over += 1;
    }
    let order = |runs: &[RunId]| -> Vec<usize> {
        let place = |run: &RunId| world.started.iter().position(|started| started == run).unwrap();
        runs.iter().map(place).collect()
    };
    assert_eq!(world.started.len(), 6);
    for lane in [
        vec![first, held_runs[0], held_runs[3]],
        vec![held_runs[1], held_runs[4]],
    ] {
        assert!(order(&lane).is_sorted(), "a lane keeps the order of acceptance");
    }
    assert!(world.gates.is_empty() && world.turns.is_empty());
}

#[test]
fn a_burst_that_waited_is_still_a_burst() {
    let mut world = World::default();
    let runs: Vec<RunId> = (0..3)
        .map(|_| {
            world.now += 60_000;
            world.arrive(held(false, vec![debounce("deal", 1_000, None)]))
        })
        .collect();
    world.now += 3_600_000;
    resume(&mut world);
    world.is(runs[0], Outcome::Merged { into: runs[1] });
    world.is(runs[1], Outcome::Merged { into: runs[2] });
    assert_eq!(world.started, []);
    world.later(1_000);
    assert_eq!(world.started, [runs[2]]);
}

#[test]
fn a_merging_lane_keeps_the_last_of_those_that_were_held() {
    let mut world = World::default();
    let merging = || vec![lane("deal", true, 100, false)];
    let first = world.arrive(merging());
    let waiting = world.arrive(merging());
    let late = world.arrive(held(false, merging()));
    let last = world.arrive(held(false, merging()));
    resume(&mut world);
    world.is(waiting, Outcome::Merged { into: late });
    world.is(late, Outcome::Merged { into: last });
    world.leave(first, RunEnd::Succeeded);
    assert_eq!(world.started, [first, last]);
}
