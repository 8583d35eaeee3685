//! Providers that fail, for all or for some, in virtual time: who finds out, how often they are asked, and who waits.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_workflow_engine::{HeldBy, Timestamp};

use super::allowance::{Allowance, Asked, Caller, MAX_WAIT, Request};
use super::breaker::{BREAKER_FAILURES, BREAKER_PATH_SHARE, Failure};
use super::class::Class;
use super::rules::Rules;

const START_MS: i64 = 1_700_000_000_000;
const LATENCY_MS: i64 = 20;
/// Tries of a call before it is a dead letter, and the pause before the second one: each later one is twice as long.
const TRIES: u32 = 6;
const FIRST_RETRY_MS: i64 = 1_000;
const SERVER_ERROR: Failure = Failure::Answered(500);

#[derive(Clone, Debug)]
struct Call {
    step: &'static str,
    /// How the provider fails it, until when.
    fails: Option<(Failure, i64)>,
    born_ms: i64,
    tries: u32,
}

impl Call {
    fn caller(&self) -> Caller<'static> {
        Caller {
            step: self.step,
            tries: self.tries,
            ..Caller::default()
        }
    }
}

struct World {
    allowance: Allowance,
    next: u64,
    coming: BTreeMap<(i64, u64), Call>,
    flying: BTreeMap<(i64, u64), (Call, f64)>,
    /// Of calls that were answered: their step, and how long it took since they came.
    done: Vec<(&'static str, i64)>,
    dead: u32,
    /// When requests left, since the start.
    sent_ms: Vec<i64>,
    reasons: Vec<String>,
}

impl World {
    fn new() -> Self {
        World {
            allowance: Allowance::new("crm", Rules::new(None, None), 1),
            next: 0,
            coming: BTreeMap::new(),
            flying: BTreeMap::new(),
            done: Vec::new(),
            dead: 0,
            sent_ms: Vec::new(),
            reasons: Vec::new(),
        }
    }

    fn at(&mut self, ms: i64) -> (i64, u64) {
        self.next += 1;
        (ms, self.next)
    }

    fn comes(&mut self, step: &'static str, fails: Option<(Failure, i64)>, ms: i64) {
        let at = self.at(ms);
        let call = Call {
            step,
            fails,
            born_ms: ms,
            tries: 0,
        };
        self.coming.insert(at, call);
    }

    fn asks(&mut self, now_ms: i64, call: Call) {
        let request = Request {
            class: Class::Live,
            cost: 1,
            caller: call.caller(),
            patience: MAX_WAIT,
        };
        match self.allowance.ask(Timestamp::from_unix_ms(now_ms), &request) {
            Asked::Go(cost) => {
                self.sent_ms.push(now_ms);
                let at = self.at(now_ms + LATENCY_MS);
                self.flying.insert(at, (call, cost));
            }
            Asked::Wait(_) => panic!("the budget is not what is tested"),
            Asked::Hold(hold) => {
                assert_eq!(hold.by, HeldBy::Breaker);
                self.reasons.push(hold.reason);
                let at = self.at(hold.until.as_unix_ms());
                self.coming.insert(at, call);
            }
        }
    }

    fn arrives(&mut self, now_ms: i64, mut call: Call, cost: f64) {
        let now = Timestamp::from_unix_ms(now_ms);
        self.allowance.done(now, cost, Duration::from_millis(20));
        match call.fails.filter(|(_, until_ms)| now_ms < *until_ms) {
            None => {
                self.allowance.answered(now, &call.caller());
                self.done.push((call.step, now_ms - call.born_ms));
            }
            Some((failure, _)) => {
                self.allowance.failed(now, &call.caller(), failure);
                call.tries += 1;
                if call.tries == TRIES {
                    self.dead += 1;
                    return;
                }
                let at = self.at(now_ms + (FIRST_RETRY_MS << (call.tries - 1)));
                self.coming.insert(at, call);
            }
        }
    }

    fn run(&mut self, until_ms: i64) {
        loop {
            let flying = self.flying.keys().next().map(|(at, _)| *at);
            let coming = self.coming.keys().next().map(|(at, _)| *at);
            let Some(now_ms) = flying.into_iter().chain(coming).min().filter(|at| *at <= until_ms) else {
                return;
            };
            if flying == Some(now_ms) {
                let (_, (call, cost)) = self.flying.pop_first().unwrap();
                self.arrives(now_ms, call, cost);
            } else {
                let (_, call) = self.coming.pop_first().unwrap();
                self.asks(now_ms, call);
            }
        }
    }

    fn slowest_ms(&self, step: &str) -> i64 {
        let all = self.done.iter().filter(|(of, _)| *of == step);
        all.map(|(_, took)| *took).max().unwrap()
    }
}

const MINUTE_MS: i64 = 60_000;

/// Twelve calls that always fail at once, and a good one every two seconds for ten minutes.
fn poison_beside(healthy: &'static str, failure: Failure) -> World {
    let mut world = World::new();
    for _ in 0..12 {
        world.comes("poison", Some((failure, i64::MAX)), START_MS);
    }
    for call in 0..300 {
        world.comes(healthy, None, START_MS + 100 + call * 2_000);
    }
    // Their pauses, and once those of a breaker.
    world.run(START_MS + MINUTE_MS);
    assert_eq!(world.dead, 12, "{failure:?}");
    world.run(START_MS + 11 * MINUTE_MS);
    assert_eq!(world.done.len(), 300, "{failure:?}");
    world
}

#[test]
fn calls_that_always_fail_use_up_their_tries_and_the_others_do_not_notice() {
    for failure in [SERVER_ERROR, Failure::Silent] {
        let world = poison_beside("healthy", failure);
        assert_eq!(world.slowest_ms("healthy"), LATENCY_MS, "{failure:?}");
    }
    // Of one step as well some calls may always fail.
    let world = poison_beside("poison", SERVER_ERROR);
    let slow = world.done.iter().filter(|(_, took)| *took > LATENCY_MS).count();
    assert!(world.slowest_ms("poison") < 11_000, "{} ms", world.slowest_ms("poison"));
    assert!(slow <= 5, "{slow} of 300 waited");
}

#[test]
fn a_stream_of_calls_that_always_fail_is_held_alone() {
    for steps in [&["one"][..], &["one", "two", "three"]] {
        let mut world = World::new();
        for call in 0..3_000 {
            for step in steps {
                world.comes(step, Some((SERVER_ERROR, i64::MAX)), START_MS + call * 200);
            }
        }
        for call in 0..300 {
            world.comes("healthy", None, START_MS + 1_500 + call * 2_000);
        }
        world.run(START_MS + 11 * MINUTE_MS);
        assert_eq!(world.done.len(), 300);
        assert!(
            world.slowest_ms("healthy") < 11_000,
            "{} ms",
            world.slowest_ms("healthy")
        );
        let slow = world.done.iter().filter(|(_, took)| *took > LATENCY_MS).count();
        assert!(slow <= 6, "{slow} of 300 waited beside {steps:?}");
    }
}

#[test]
fn a_provider_that_is_down_for_all_is_tried_by_one_call_at_a_time_and_found_again() {
    const STEPS: [&str; 4] = ["a", "b", "c", "d"];
    for failure in [SERVER_ERROR, Failure::Silent, Failure::Unreachable] {
        let until_ms = START_MS + 10 * MINUTE_MS;
        let mut world = World::new();
        for call in 0..1_200 {
            world.comes(
                STEPS[call % 4],
                Some((failure, until_ms)),
                START_MS + i64::try_from(call).unwrap() * 500,
            );
        }
        world.run(until_ms);
        let later: Vec<i64> = world
            .sent_ms
            .iter()
            .copied()
            .filter(|at| *at > START_MS + MINUTE_MS)
            .collect();
        // One after the other; four in a minute at the most for each kind of pause.
        let gap_ms = later.windows(2).map(|two| two[1] - two[0]).min().unwrap();
        assert!(gap_ms >= 5_000, "{failure:?}: two within {gap_ms} ms");
        assert!(later.len() < 9 * 12, "{failure:?}: {} in nine minutes", later.len());
        assert!(world.done.is_empty());
        world.run(until_ms + 3 * MINUTE_MS);
        assert_eq!(world.done.len() + world.dead as usize, 1_200, "{failure:?}");
        assert!(world.dead < 30, "{failure:?}: {} dead", world.dead);
        let says = world.reasons.last().unwrap();
        assert_eq!(says.contains("does not answer"), failure == Failure::Silent, "{says}");
    }
}

fn call(step: &'static str, tries: u32) -> Request<'static> {
    Request {
        class: Class::Live,
        cost: 1,
        caller: Caller {
            step,
            tries,
            ..Caller::default()
        },
        patience: MAX_WAIT,
    }
}

#[test]
fn an_outage_holds_calls_and_one_finds_out_that_it_is_over() {
    let mut allowance = Allowance::new("crm", Rules::new(None, None), 1);
    let mut now = Timestamp::from_unix_ms(START_MS);
    for failure in 0..BREAKER_FAILURES {
        let request = call(if failure < BREAKER_PATH_SHARE { "a" } else { "b" }, 0);
        assert!(matches!(allowance.ask(now, &request), Asked::Go(_)));
        allowance.done(now, 1.0, Duration::from_millis(1));
        allowance.failed(now, &request.caller, SERVER_ERROR);
    }
    let Asked::Hold(hold) = allowance.ask(now, &call("c", 0)) else {
        panic!("it goes")
    };
    assert_eq!(hold.by, HeldBy::Breaker);
    let says = "the provider of connection `crm` answers with status 500; it is asked again from ";
    assert!(hold.reason.starts_with(says), "{}", hold.reason);
    now = now.plus(Duration::from_secs(6));
    // Those that failed, and those of steps that failed, leave it to one that did not.
    assert!(matches!(allowance.ask(now, &call("c", 1)), Asked::Hold(_)));
    assert!(matches!(allowance.ask(now, &call("c", 0)), Asked::Go(_)));
    assert!(matches!(allowance.ask(now, &call("d", 0)), Asked::Hold(_)));
    // Another host of the same connection is not meant.
    let elsewhere = Request {
        caller: Caller {
            host: "other.test",
            ..Caller::default()
        },
        ..call("c", 0)
    };
    assert!(matches!(allowance.ask(now, &elsewhere), Asked::Go(_)));
    allowance.answered(now, &call("c", 0).caller);
    assert!(matches!(allowance.ask(now, &call("d", 0)), Asked::Go(_)));
}

#[test]
fn failures_of_one_step_hold_its_calls_alone_and_say_so() {
    let mut allowance = Allowance::new("crm", Rules::new(None, None), 1);
    let now = Timestamp::from_unix_ms(START_MS);
    for _ in 0..100 {
        allowance.failed(now, &call("a", 0).caller, SERVER_ERROR);
    }
    let Asked::Hold(hold) = allowance.ask(now, &call("a", 0)) else {
        panic!("it goes")
    };
    let says = "the provider of connection `crm` answers with status 500 to calls of this step; ";
    assert!(hold.reason.starts_with(says), "{}", hold.reason);
    assert!(matches!(allowance.ask(now, &call("b", 0)), Asked::Go(_)));
    // A host that takes no connection does so for every step.
    for _ in 0..BREAKER_FAILURES {
        allowance.failed(now, &call("a", 3).caller, Failure::Unreachable);
    }
    assert!(matches!(allowance.ask(now, &call("b", 0)), Asked::Hold(_)));
}
