//! Seeded worlds in virtual time: a provider that counts and refuses, many calls of all classes, one allowance.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use weir_connector_sdk::{Told, own_budget};
use weir_workflow_engine::Timestamp;

use super::allowance::{
    Allowance, Asked, Caller, MAX_LIVE_WAITERS, MAX_OTHER_WAITERS, MAX_PAGE_WAIT, MAX_WAIT, Request,
};
use super::class::Class;
use super::rules::Rules;

/// What became of the calls of one class.
#[derive(Debug, Default)]
struct Seen {
    done: u32,
    waits_ms: Vec<i64>,
}

impl Seen {
    fn quantile_ms(&mut self, percent: usize) -> i64 {
        self.waits_ms.sort_unstable();
        let at = (self.waits_ms.len() * percent / 100).min(self.waits_ms.len().saturating_sub(1));
        self.waits_ms.get(at).copied().unwrap_or(0)
    }
}

/// A provider that refuses more than `limit` requests in any `window_ms`.
struct Provider {
    limit: usize,
    window_ms: i64,
    taken: VecDeque<i64>,
    refused: u32,
}

impl Provider {
    fn takes(&mut self, now_ms: i64) -> bool {
        while self.taken.front().is_some_and(|at| *at <= now_ms - self.window_ms) {
            self.taken.pop_front();
        }
        if self.taken.len() >= self.limit {
            self.refused += 1;
            return false;
        }
        self.taken.push_back(now_ms);
        true
    }
}

struct Call {
    class: Class,
    born_ms: i64,
}

struct World {
    allowance: Allowance,
    provider: Provider,
    seed: u64,
    next: u64,
    /// Calls that come (again) at a time.
    coming: BTreeMap<(i64, u64), Call>,
    /// By ticket, with the end of their patience.
    waiting: BTreeMap<u64, (i64, Call)>,
    /// Who looks at the clock for all, and when.
    wake: Option<(i64, u64)>,
    /// Requests on their way, by arrival.
    flying: BTreeMap<(i64, u64), (Call, f64)>,
    seen: [Seen; 4],
    held: u32,
    /// For classes whose next call comes when one is done: after so many milliseconds.
    follows_after_ms: [Option<i64>; 4],
}

const LATENCY_MS: i64 = 20;
const PATIENCE_MS: i64 = 5_000;

impl World {
    fn new(own: &serde_json::Value, limit: usize, window_ms: i64) -> Self {
        let budget = own_budget(own).unwrap();
        World {
            allowance: Allowance::new("crm", Rules::new(Some(&budget), None), 1),
            provider: Provider {
                limit,
                window_ms,
                taken: VecDeque::new(),
                refused: 0,
            },
            seed: 7,
            next: 0,
            coming: BTreeMap::new(),
            waiting: BTreeMap::new(),
            wake: None,
            flying: BTreeMap::new(),
            seen: Default::default(),
            held: 0,
            follows_after_ms: [None; 4],
        }
    }

    fn random(&mut self, below: i64) -> i64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.seed >> 40).unwrap() % below.max(1)
    }

    fn at(&mut self, at_ms: i64) -> (i64, u64) {
        self.next += 1;
        (at_ms, self.next)
    }

    fn comes(&mut self, class: Class, at_ms: i64) {
        let at = self.at(at_ms);
        let call = Call { class, born_ms: at_ms };
        self.coming.insert(at, call);
    }

    fn fly(&mut self, now_ms: i64, call: Call, cost: f64) {
        // Requests do not arrive in the order in which they left.
        let arrives_ms = now_ms + LATENCY_MS / 2 + self.random(LATENCY_MS);
        let at = self.at(arrives_ms);
        self.flying.insert(at, (call, cost));
    }

    fn arrives(&mut self, now_ms: i64, call: Call, cost: f64) {
        let now = Timestamp::from_unix_ms(now_ms);
        self.allowance.done(now, cost, Duration::from_millis(20));
        if self.provider.takes(now_ms) {
            self.allowance.answered(now, &Caller::default());
            let seen = &mut self.seen[call.class.index()];
            seen.done += 1;
            seen.waits_ms.push(now_ms - call.born_ms);
            if let Some(after_ms) = self.follows_after_ms[call.class.index()] {
                self.comes(call.class, now_ms + after_ms);
            }
        } else {
            self.allowance.throttled(now, Some(Duration::from_secs(1)));
            let again = self.allowance.come_again(now, call.class).as_unix_ms();
            let at = self.at(again);
            self.coming.insert(at, call);
        }
    }

    fn asks(&mut self, now_ms: i64, call: Call) {
        let now = Timestamp::from_unix_ms(now_ms);
        match self.allowance.ask(now, &request(call.class)) {
            Asked::Go(cost) => self.fly(now_ms, call, cost),
            Asked::Wait(ticket) => {
                self.waiting.insert(ticket, (now_ms + PATIENCE_MS, call));
            }
            Asked::Hold(hold) => {
                self.held += 1;
                assert!(hold.until > now);
                let at = self.at(hold.until.as_unix_ms());
                self.coming.insert(at, call);
            }
        }
    }

    fn looks(&mut self, now_ms: i64, ticket: u64) {
        let now = Timestamp::from_unix_ms(now_ms);
        if !self.waiting.contains_key(&ticket) {
            return;
        }
        match self.allowance.look(now, ticket) {
            Ok(cost) => {
                let (_, call) = self.waiting.remove(&ticket).unwrap();
                self.fly(now_ms, call, cost);
            }
            Err(at) => self.wake = at.map(|at| (at.as_unix_ms(), ticket)).or(self.wake),
        }
    }

    fn step(&mut self, now_ms: i64) {
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= now_ms) {
            let (call, cost) = entry.remove();
            self.arrives(now_ms, call, cost);
        }
        while let Some(entry) = self.coming.first_entry().filter(|entry| entry.key().0 <= now_ms) {
            let call = entry.remove();
            self.asks(now_ms, call);
        }
        if let Some((_, ticket)) = self.wake.take_if(|(at, _)| *at <= now_ms) {
            self.looks(now_ms, ticket);
        }
        self.wakes(now_ms);
        let now = Timestamp::from_unix_ms(now_ms);
        let impatient: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, (until, _))| *until <= now_ms)
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in impatient {
            // One that gave up may have let it go.
            let Some((_, call)) = self.waiting.remove(&ticket) else {
                continue;
            };
            self.held += 1;
            let hold = self.allowance.give_up(now, ticket, &request(call.class));
            let at = self.at(hold.until.as_unix_ms());
            self.coming.insert(at, call);
            self.wakes(now_ms);
        }
    }

    /// Those that are to look do so, until none is left.
    fn wakes(&mut self, now_ms: i64) {
        loop {
            let woken = self.allowance.take_wakes();
            if woken.is_empty() {
                break;
            }
            for ticket in woken {
                self.looks(now_ms, ticket);
            }
        }
    }

    /// Goes from event to event; how long that took in the world.
    fn run(&mut self, from_ms: i64, limit_ms: i64) -> i64 {
        let mut now_ms = from_ms;
        loop {
            self.step(now_ms);
            let patience = self.waiting.values().map(|(until, _)| *until).min();
            let next = [
                self.flying.keys().next().map(|(at, _)| *at),
                self.coming.keys().next().map(|(at, _)| *at),
                self.wake.map(|(at, _)| at),
                patience,
            ];
            match next.into_iter().flatten().min() {
                Some(at) if at <= from_ms + limit_ms => now_ms = at.max(now_ms + 1),
                Some(_) => return limit_ms,
                None => return now_ms - from_ms,
            }
        }
    }
}

fn request(class: Class) -> Request<'static> {
    Request {
        class,
        cost: 1,
        caller: Caller {
            operation: "contacts.create",
            ..Caller::default()
        },
        patience: MAX_WAIT,
    }
}

const START_MS: i64 = 1_700_000_000_000;

#[test]
fn a_provider_of_fifty_a_second_is_used_in_full_and_complains_about_less_than_one_in_a_hundred() {
    let mut world = World::new(&serde_json::json!({ "window": "50/1s", "reserve": "0%" }), 50, 1_000);
    for _ in 0..5_000 {
        world.comes(Class::Live, START_MS);
    }
    let took_ms = world.run(START_MS, 200_000);
    let refused = world.provider.refused;
    assert_eq!(world.seen[0].done, 5_000, "refused {refused}, {took_ms} ms");
    assert!(refused < 50, "{refused} of 5000 refused in {took_ms} ms");
    assert!(took_ms < 125_000, "{took_ms} ms for 100 s of work, refused {refused}");
}

#[test]
fn live_calls_overtake_a_backfill_and_the_backfill_goes_on() {
    let mut world = World::new(&serde_json::json!({ "window": "50/1s" }), 50, 1_000);
    for _ in 0..3_000 {
        world.comes(Class::Backfill, START_MS);
    }
    for second in 0..60 {
        for call in 0..5 {
            world.comes(Class::Live, START_MS + second * 1_000 + call * 190);
        }
    }
    world.run(START_MS, 60_000);
    let (p50, p99) = (world.seen[0].quantile_ms(50), world.seen[0].quantile_ms(99));
    assert_eq!(world.seen[0].done, 300);
    assert!(p50 <= 60 && p99 <= 500, "live p50 {p50} ms, p99 {p99} ms");
    let backfilled = world.seen[2].done;
    assert!(backfilled > 1_500, "{backfilled} in a minute beside live calls");
}

/// How long live calls take that come one after the other, beside replays of which sixteen are always under way; and
/// how many replays went in the time.
fn beside_replays(budget: &str, (limit, window_ms): (usize, i64), (gap_ms, span_ms): (i64, i64)) -> (i64, i64, u32) {
    let mut world = World::new(&serde_json::json!({ "window": budget }), limit, window_ms);
    world.follows_after_ms = [Some(gap_ms), None, None, Some(5)];
    for replay in 0..16 {
        world.comes(Class::Replay, START_MS + replay * 5);
    }
    world.comes(Class::Live, START_MS + 500);
    world.run(START_MS, span_ms);
    assert_eq!(world.provider.refused, 0, "{budget}");
    let replays = world.seen[3].done;
    let live = &mut world.seen[0];
    let worst_ms = *live.waits_ms.iter().max().unwrap();
    (live.quantile_ms(50), worst_ms, replays)
}

#[test]
fn live_calls_one_after_the_other_wait_for_a_few_calls_beside_replays_and_never_for_a_window() {
    const SPAN_MS: i64 = 180_000;
    for (budget, provider, gap_ms) in [
        ("20/1s", (20, 1_000), 30),
        ("50/1s", (50, 1_000), 10),
        ("100/10s", (100, 10_000), 150),
        ("200/1m", (200, 60_000), 500),
    ] {
        let call_ms = provider.1 / i64::try_from(provider.0).unwrap();
        let (p50, worst, replays) = beside_replays(budget, provider, (gap_ms, SPAN_MS));
        let seen = format!("{budget}: live p50 {p50} ms, worst {worst} ms, {replays} replays");
        assert!(p50 <= 2 * LATENCY_MS + call_ms, "{seen}");
        assert!(worst <= 2 * LATENCY_MS + 3 * call_ms, "{seen}");
        // A tenth of what there is goes to them whatever comes.
        assert!(i64::from(replays) * 10 >= SPAN_MS / call_ms, "{seen}");
    }
}

#[test]
fn classes_go_in_their_order_and_none_starves() {
    let mut world = World::new(&serde_json::json!({ "window": "20/1s" }), 20, 1_000);
    // Live calls alone are more than the provider takes.
    for second in 0..60 {
        for call in 0..30 {
            world.comes(Class::Live, START_MS + second * 1_000 + call * 33);
        }
        for class in [Class::Sweep, Class::Replay] {
            for call in 0..4 {
                world.comes(class, START_MS + second * 1_000 + call * 250);
            }
        }
    }
    world.run(START_MS, 60_000);
    let done: Vec<u32> = world.seen.iter().map(|seen| seen.done).collect();
    assert!(done[0] > 700, "{done:?}");
    assert!(done[1] > 40 && done[3] > 40, "{done:?}");
}

#[test]
fn whoever_would_wait_long_is_told_when_to_come_again() {
    let mut world = World::new(&serde_json::json!({ "window": "10/1s", "reserve": "0%" }), 10, 1_000);
    for _ in 0..2_000 {
        world.comes(Class::Live, START_MS);
    }
    world.step(START_MS);
    // As many as can leave in the time that a call waits in memory; the others have times of their own.
    assert_eq!(MAX_WAIT, Duration::from_secs(5));
    assert!((40..60).contains(&world.waiting.len()), "{}", world.waiting.len());
    let mut times: Vec<i64> = world.coming.keys().map(|(at, _)| *at).collect();
    times.sort_unstable();
    times.dedup();
    assert!(
        times.len() > 1_900,
        "{} times for {} calls",
        times.len(),
        world.coming.len()
    );
    assert_eq!(
        world.allowance.sleepers(Timestamp::from_unix_ms(START_MS)),
        world.coming.len()
    );
}

/// How many of these wait in memory when they could leave soon.
fn waiters(class: Class) -> usize {
    let mut world = World::new(&serde_json::json!({ "window": "1000/1s" }), 1_000, 1_000);
    let start = Timestamp::from_unix_ms(START_MS);
    while matches!(world.allowance.ask(start, &request(Class::Live)), Asked::Go(_)) {}
    while matches!(world.allowance.ask(start, &request(class)), Asked::Wait(_)) {}
    world.allowance.queues.len(class)
}

#[test]
fn the_queues_in_memory_are_bounded() {
    assert!((MAX_LIVE_WAITERS - 1..=MAX_LIVE_WAITERS).contains(&waiters(Class::Live)));
    assert_eq!(waiters(Class::Replay), MAX_OTHER_WAITERS);
}

#[test]
fn pages_wait_longer_than_first_requests() {
    let mut world = World::new(&serde_json::json!({ "window": "1/5m" }), 1, 300_000);
    let start = Timestamp::from_unix_ms(START_MS);
    assert!(matches!(
        world.allowance.ask(start, &request(Class::Live)),
        Asked::Go(_)
    ));
    assert!(matches!(
        world.allowance.ask(start, &request(Class::Live)),
        Asked::Hold(_)
    ));
    let page = Request {
        patience: MAX_PAGE_WAIT,
        ..request(Class::Live)
    };
    assert!(matches!(world.allowance.ask(start, &page), Asked::Wait(_)));
}

#[test]
fn without_a_stated_budget_the_rate_follows_from_refusals() {
    let mut world = World::new(&serde_json::json!({}), 30, 1_000);
    for call in 0..6_000 {
        world.comes(Class::Live, START_MS + call * 12);
    }
    world.run(START_MS, 400_000);
    let (done, refused) = (world.seen[0].done, world.provider.refused);
    assert_eq!(done, 6_000, "refused {refused}");
    assert!(refused < 600, "{refused} refused");
}

#[test]
fn what_headers_tell_closes_the_gate_until_the_reset() {
    let mut allowance = Allowance::new("crm", Rules::new(None, None), 1);
    let now = Timestamp::from_unix_ms(START_MS);
    let told = Told {
        name: "default".to_owned(),
        limit: Some(100.0),
        remaining: Some(1.0),
        resets_in_ms: Some(60_000),
        ..Told::default()
    };
    allowance.learn(now, "x", &told);
    // The last one is kept for live calls.
    let Asked::Hold(hold) = allowance.ask(now, &request(Class::Replay)) else {
        panic!("a replay goes")
    };
    assert_eq!(hold.until, now.plus(Duration::from_secs(60)));
    assert!(matches!(allowance.ask(now, &request(Class::Live)), Asked::Go(_)));
    assert!(matches!(allowance.ask(now, &request(Class::Live)), Asked::Hold(_)));
    let later = now.plus(Duration::from_secs(60));
    assert!(matches!(allowance.ask(later, &request(Class::Live)), Asked::Go(_)));
}

#[test]
fn what_an_operation_really_costs_is_learned() {
    let own = own_budget(&serde_json::json!({ "bucket": { "size": 100, "refill": "1/1s" } })).unwrap();
    let mut allowance = Allowance::new("shop", Rules::new(Some(&own), None), 1);
    let now = Timestamp::from_unix_ms(START_MS);
    let told = Told {
        cost: Some(60.0),
        ..Told::default()
    };
    allowance.learn(now, "contacts.create", &told);
    assert_eq!(allowance.ask(now, &request(Class::Live)), Asked::Go(60.0));
    assert!(matches!(allowance.ask(now, &request(Class::Live)), Asked::Hold(_)));
}

#[test]
fn several_nodes_divide_what_there_is() {
    let budget = own_budget(&serde_json::json!({ "window": "50/1s", "concurrency": 10 })).unwrap();
    let rules = Rules::new(Some(&budget), None);
    let go = |nodes: u32| {
        let mut allowance = Allowance::new("crm", rules.clone(), nodes);
        let now = Timestamp::from_unix_ms(START_MS);
        let mut gone = 0;
        while let Asked::Go(cost) = allowance.ask(now, &request(Class::Live)) {
            allowance.done(now, cost, Duration::from_millis(1));
            gone += 1;
        }
        gone
    };
    assert_eq!([go(1), go(2), go(5)], [50, 25, 10]);
    // Less than one request in a window is one request in a longer one.
    let mut allowance = Allowance::new("crm", rules, 100);
    let now = Timestamp::from_unix_ms(START_MS);
    let Asked::Go(cost) = allowance.ask(now, &request(Class::Live)) else {
        panic!("one goes")
    };
    allowance.done(now, cost, Duration::from_millis(1));
    assert!(matches!(
        allowance.ask(now.plus(Duration::from_millis(1_500)), &request(Class::Live)),
        Asked::Wait(_)
    ));
    // A node that comes or goes keeps what was counted.
    allowance.follow(&Rules::new(Some(&budget), None), 2);
}
