//! What one connection may send now, and who of those that wait goes next. Pure: it takes the time and waits for nobody.
//!
//! A call asks ([`Allowance::ask`]), is let go at once, gets a ticket for a short wait in memory, or is told when to come
//! again. Who comes again late is given a time of its own, at the pace of the allowance, so that nobody stampedes.

mod hold;
mod outage;
mod pace;

pub(crate) use outage::Caller;
pub(super) use outage::Path;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use weir_connector_sdk::Told;
use weir_workflow_engine::{Hold, Timestamp};

use super::breaker::Breaker;
use super::class::Class;
use super::figures::Calls;
use super::limit::{Bucket, Day, Learned, Window, ms, whole_ms};
use super::queue::Queues;
use super::rules::Rules;

/// Longest wait in memory before a request leaves.
///
/// Limit: wait in memory for a connection's budget | the run sleeps on disk and its step says why | `whoever_would_wait_long_is_told_when_to_come_again` | `weir_budget_held_total`
pub const MAX_WAIT: Duration = Duration::from_secs(5);
/// Longest wait in memory between the pages of one read: what was read so far would be lost.
///
/// Limit: wait in memory between the pages of one read | the read begins anew later | `pages_wait_longer_than_first_requests` | `weir_budget_held_total`
pub const MAX_PAGE_WAIT: Duration = Duration::from_secs(600);
/// Calls of the class `live` that wait in memory for one connection.
///
/// Limit: live calls that wait in memory for one connection | further runs sleep on disk | `the_queues_in_memory_are_bounded` | `weir_budget_held_total`
pub const MAX_LIVE_WAITERS: usize = 1_000;
/// The same of each other class.
///
/// Limit: calls of each other class that wait in memory for one connection | further runs sleep on disk | `the_queues_in_memory_are_bounded` | `weir_budget_held_total`
pub const MAX_OTHER_WAITERS: usize = 250;
/// Longest time that a call is sent away for: allowances change, and who comes too early is sent away again.
const MAX_HOLD: Duration = Duration::from_secs(3_600);
/// Pauses after answers of "too many requests" without a time, the first and the longest.
const BACK_OFF_MS: (i64, i64) = (1_000, 60_000);
/// What is left of the pace after an answer of "too many requests".
const SLOWER: f64 = 0.9;
/// The slowest pace.
const SLOWEST: f64 = 0.25;
/// What is added to the pace for each quiet second.
const FASTER: f64 = 0.01;
/// A timer is late by so much without slowing things down.
const TIMER_SLACK_MS: f64 = 20.0;
/// Allowances of the provider that are remembered.
const MAX_LEARNED: usize = 8;

/// What a call wants to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) class: Class,
    /// What the manifest says that it costs.
    pub(crate) cost: u64,
    pub(crate) caller: Caller<'a>,
    /// How long it can wait in memory.
    pub(crate) patience: Duration,
}

/// The answer to a call that asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    /// It may leave now; [`Allowance::done`] gives back this cost.
    Go(f64),
    /// It waits in memory under this ticket.
    Wait(u64),
    Hold(Hold),
}

/// Why nothing of a cost can leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocked {
    Until(i64),
    /// Until another call comes back.
    Full,
}

/// The state of one connection.
pub(crate) struct Allowance {
    rules: Rules,
    nodes: u32,
    name: String,
    pub(super) windows: Vec<Window>,
    pub(super) buckets: Vec<Bucket>,
    pub(super) days: Vec<Day>,
    pub(super) learned: Vec<Learned>,
    /// A window that follows from answers of "too many requests" when nothing else is known.
    pub(super) found: Option<Window>,
    costs: HashMap<String, f64>,
    pub(super) concurrency: u64,
    pub(super) open: u64,
    open_cost: f64,
    pub(super) closed_until_ms: i64,
    strikes: u32,
    pub(super) pace: f64,
    paced_at_ms: i64,
    spread_until_ms: i64,
    not_before_ms: f64,
    /// The same for calls that are not live, at their own pace and at all times.
    bulk_not_before_ms: f64,
    pub(super) queues: Queues,
    /// Tickets that may leave, with their costs.
    granted: HashMap<u64, f64>,
    /// Who looks at the clock for all that wait.
    leader: Option<u64>,
    /// When it looks at the latest, as far as it was told.
    leader_looks_at_ms: i64,
    wakes: Vec<u64>,
    slots_ms: [f64; 4],
    sleepers: BinaryHeap<Reverse<(i64, Class)>>,
    sleepers_of: [usize; 4],
    service_ms: f64,
    pub(super) seen: Window,
    /// By host.
    breakers: HashMap<String, Breaker>,
    /// By what tells a path from the others.
    paths: HashMap<u64, Path>,
    pub(super) calls: Calls,
}

impl Allowance {
    pub(crate) fn new(name: &str, rules: Rules, nodes: u32) -> Self {
        let mut allowance = Allowance {
            rules: Rules::default(),
            nodes: 0,
            name: name.to_owned(),
            windows: Vec::new(),
            buckets: Vec::new(),
            days: Vec::new(),
            learned: Vec::new(),
            found: None,
            costs: HashMap::new(),
            concurrency: 1,
            open: 0,
            open_cost: 0.0,
            closed_until_ms: 0,
            strikes: 0,
            pace: 1.0,
            paced_at_ms: 0,
            spread_until_ms: 0,
            not_before_ms: 0.0,
            bulk_not_before_ms: 0.0,
            queues: Queues::default(),
            granted: HashMap::new(),
            leader: None,
            leader_looks_at_ms: i64::MAX,
            wakes: Vec::new(),
            slots_ms: [0.0; 4],
            sleepers: BinaryHeap::new(),
            sleepers_of: [0; 4],
            service_ms: 100.0,
            seen: Window::new(f64::MAX, 1_000),
            breakers: HashMap::new(),
            paths: HashMap::new(),
            calls: Calls::default(),
        };
        allowance.follow(&rules, nodes);
        allowance
    }

    /// Takes over rules that changed, or a changed number of nodes among which the allowance is divided. What was
    /// counted under a rule that stays is kept.
    pub(super) fn follow(&mut self, rules: &Rules, nodes: u32) {
        let nodes = nodes.max(1);
        if self.nodes == nodes && self.rules == *rules {
            return;
        }
        let of = f64::from(nodes);
        let mut windows = Vec::new();
        let mut buckets = Vec::new();
        let mut days = Vec::new();
        for budget in &rules.budgets {
            for window in &budget.windows {
                let length_ms = i64::try_from(window.window_s).unwrap_or(i64::MAX / 1_000) * 1_000;
                windows.push(share(count(window.requests), length_ms, of));
            }
            if let Some(bucket) = budget.bucket {
                buckets.push(Bucket::new(
                    (count(bucket.size) / of).max(1.0),
                    bucket.refill_per_s / of,
                ));
            }
            if let Some(day) = &budget.daily {
                days.push(Day::new(day.clone(), (count(day.requests) / of).max(1.0)));
            }
        }
        if self.rules == *rules {
            for (new, old) in windows.iter_mut().zip(&self.windows) {
                if new.length_ms == old.length_ms {
                    let limit = new.limit;
                    new.clone_from(old);
                    new.limit = limit;
                }
            }
            for (new, old) in days.iter_mut().zip(&self.days) {
                (new.used, new.resets_at_ms) = (old.used, old.resets_at_ms);
            }
        }
        (self.windows, self.buckets, self.days) = (windows, buckets, days);
        self.concurrency = (rules.concurrency / u64::from(nodes)).max(1);
        self.rules = rules.clone();
        self.nodes = nodes;
    }

    /// A call wants to send a request.
    pub(crate) fn ask(&mut self, now: Timestamp, request: &Request<'_>) -> Asked {
        let now_ms = now.as_unix_ms();
        if let Some(held) = self.held_by_breaker(now, request) {
            return Asked::Hold(held);
        }
        let cost = self.cost_of(request);
        let is_early = request.class.is_bulk() && ms(now_ms) < self.bulk_not_before_ms;
        if self.queues.is_empty() && !is_early && self.blocked(now_ms, request.class, cost, false).is_none() {
            self.take(now_ms, request.class, cost);
            self.probe(now, &request.caller);
            return Asked::Go(cost);
        }
        let at_ms = self.estimate(now_ms, request.class, cost);
        let is_full = match request.class {
            Class::Live => self.queues.len(Class::Live) >= MAX_LIVE_WAITERS,
            other => self.queues.len(other) >= MAX_OTHER_WAITERS,
        };
        let patience_ms = i64::try_from(request.patience.as_millis()).unwrap_or(i64::MAX);
        if is_full || at_ms > now_ms.saturating_add(patience_ms) {
            return Asked::Hold(self.hold(now, request.class, at_ms, cost));
        }
        self.probe(now, &request.caller);
        let ticket = self.queues.enter(request.class, cost);
        self.pump(now_ms);
        if self.granted.remove(&ticket).is_some() {
            return Asked::Go(cost);
        }
        Asked::Wait(ticket)
    }

    /// Whether the call with this ticket may leave; otherwise when it is to look again, for the one that looks for all.
    pub(crate) fn look(&mut self, now: Timestamp, ticket: u64) -> Result<f64, Option<Timestamp>> {
        let wake = self.pump(now.as_unix_ms());
        if let Some(cost) = self.granted.remove(&ticket) {
            return Ok(cost);
        }
        Err(wake
            .filter(|_| self.leader == Some(ticket))
            .map(Timestamp::from_unix_ms))
    }

    /// A call has waited in memory as long as it can.
    pub(crate) fn give_up(&mut self, now: Timestamp, ticket: u64, request: &Request<'_>) -> Hold {
        self.leave(now, ticket);
        let cost = self.cost_of(request);
        let at_ms = self.estimate(now.as_unix_ms(), request.class, cost);
        self.hold(now, request.class, at_ms, cost)
    }

    /// A call that waits in memory is no longer there.
    pub(super) fn leave(&mut self, now: Timestamp, ticket: u64) {
        if let Some(cost) = self.granted.remove(&ticket) {
            self.open = self.open.saturating_sub(1);
            self.open_cost = (self.open_cost - cost).max(0.0);
        }
        self.queues.remove(ticket);
        if self.leader == Some(ticket) {
            self.leader = None;
        }
        self.pump(now.as_unix_ms());
    }

    /// A request came back, or was given up.
    pub(crate) fn done(&mut self, now: Timestamp, cost: f64, took: Duration) {
        self.open = self.open.saturating_sub(1);
        self.open_cost = (self.open_cost - cost).max(0.0);
        self.service_ms = 0.9 * self.service_ms + 0.1 * took.as_secs_f64() * 1_000.0;
        if !self.queues.is_empty() {
            self.pump(now.as_unix_ms());
        }
    }

    /// What an answer told about the allowance, and about the cost of its operation.
    pub(super) fn learn(&mut self, now: Timestamp, operation: &str, told: &Told) {
        let now_ms = now.as_unix_ms();
        if let Some(cost) = told.cost.filter(|cost| cost.is_finite() && *cost >= 0.0) {
            self.costs.insert(operation.to_owned(), cost.max(1.0));
        }
        let open = if told.remaining.is_some() { self.open_cost } else { 0.0 };
        if let Some(learned) = Learned::new(told, now_ms, open) {
            self.learned
                .retain(|known| known.name != learned.name && !known.is_over(now_ms));
            if self.learned.len() < MAX_LEARNED {
                self.learned.push(learned);
            }
        }
    }

    /// The provider turned a request away because of too many.
    pub(crate) fn throttled(&mut self, now: Timestamp, after: Option<Duration>) {
        let now_ms = now.as_unix_ms();
        self.calls.throttled += 1;
        let was_open = now_ms >= self.closed_until_ms;
        if was_open {
            self.strikes = self.strikes.saturating_add(1);
            self.pace = (self.pace * SLOWER).max(SLOWEST);
            self.paced_at_ms = now_ms;
            self.find(now_ms);
        }
        let doubled = BACK_OFF_MS.0 << self.strikes.saturating_sub(1).min(6);
        let pause_ms = match after {
            Some(after) => i64::try_from(after.min(MAX_HOLD * 24).as_millis()).unwrap_or(i64::MAX),
            // Every request of one burst says the same.
            None if was_open => doubled.min(BACK_OFF_MS.1),
            None => 0,
        };
        self.closed_until_ms = self.closed_until_ms.max(now_ms.saturating_add(pause_ms));
        self.spread_until_ms = self.spread_until_ms.max(self.closed_until_ms + self.spread_ms());
    }

    /// The server asked to be left alone for a while.
    pub(super) fn pause(&mut self, now: Timestamp, after: Duration) {
        let until = now.plus(after.min(MAX_HOLD)).as_unix_ms();
        self.closed_until_ms = self.closed_until_ms.max(until);
    }

    /// Nothing is known but that it was too much: four fifths of what was sent in the last second may be right.
    fn find(&mut self, now_ms: i64) {
        let is_known = !(self.windows.is_empty() && self.buckets.is_empty() && self.learned.is_empty());
        if is_known {
            return;
        }
        let sent = self.seen.used(now_ms);
        let limit = match &self.found {
            Some(found) => (found.limit * 0.8).max(1.0),
            None => (sent * 0.8).floor().max(1.0),
        };
        match &mut self.found {
            Some(found) => found.limit = limit,
            None => self.found = Some(Window::new(limit, 1_000)),
        }
        self.pace = 1.0;
    }

    /// The provider answered without complaint.
    pub(crate) fn answered(&mut self, now: Timestamp, caller: &Caller<'_>) {
        self.works(caller);
        if self.strikes == 0 && self.pace >= 1.0 && self.found.is_none() {
            return;
        }
        let now_ms = now.as_unix_ms();
        if now_ms < self.closed_until_ms || now_ms - self.paced_at_ms < 1_000 {
            return;
        }
        self.paced_at_ms = now_ms;
        self.strikes = 0;
        self.pace = (self.pace + FASTER).min(1.0);
        if let Some(found) = &mut self.found {
            found.limit *= 1.0 + FASTER;
        }
    }

    /// When a call that the provider turned away is to come again.
    pub(crate) fn come_again(&mut self, now: Timestamp, class: Class) -> Timestamp {
        let at_ms = self.closed_until_ms.max(now.as_unix_ms());
        Timestamp::from_unix_ms(self.slot(class, at_ms, 1.0))
    }

    /// The tickets whose calls are to look again.
    pub(crate) fn take_wakes(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.wakes)
    }

    /// Calls that sleep on disk.
    pub(super) fn sleepers(&mut self, now: Timestamp) -> usize {
        while self.sleepers.peek().is_some_and(|next| next.0.0 <= now.as_unix_ms()) {
            if let Some(Reverse((_, class))) = self.sleepers.pop()
                && let Some(count) = self.sleepers_of.get_mut(class.index())
            {
                *count = count.saturating_sub(1);
            }
        }
        self.sleepers.len()
    }

    /// Calls of one class that sleep on disk.
    pub(super) fn sleepers_of(&mut self, now: Timestamp, class: Class) -> usize {
        self.sleepers(now);
        self.sleepers_of.get(class.index()).copied().unwrap_or(0)
    }

    pub(super) fn reserve(&self) -> f64 {
        self.rules.reserve
    }

    fn cost_of(&self, request: &Request<'_>) -> f64 {
        let learned = self.costs.get(request.caller.operation).copied();
        learned.unwrap_or_else(|| count(request.cost))
    }

    /// What keeps a cost from leaving now. `is_due`: it may use what is kept for live calls.
    fn blocked(&mut self, now_ms: i64, class: Class, cost: f64, is_due: bool) -> Option<Blocked> {
        if now_ms < self.closed_until_ms {
            return Some(Blocked::Until(self.closed_until_ms));
        }
        let share = match class.is_bulk() && !is_due {
            true => self.rules.reserve,
            false => 0.0,
        };
        let kept = whole_ms((count(self.concurrency) * share).floor());
        let room = self.concurrency.saturating_sub(u64::try_from(kept).unwrap_or(0)).max(1);
        if self.open >= room {
            return Some(Blocked::Full);
        }
        let mut until: Option<i64> = None;
        let mut note = |at: Option<i64>| until = until.max(at);
        for window in self.windows.iter_mut().chain(&mut self.found) {
            let limit = window.limit * self.pace;
            note(window.waits_until(now_ms, cost, limit - (limit * share).floor()));
        }
        for bucket in &mut self.buckets {
            let reserve = (bucket.size * share).floor();
            note(bucket.waits_until(now_ms, cost, reserve));
        }
        for day in &mut self.days {
            let reserve = (day.limit * share).floor();
            note(day.waits_until(now_ms, cost, reserve));
        }
        for learned in &mut self.learned {
            note(learned.waits_until(now_ms, cost, share));
        }
        until.map(Blocked::Until)
    }

    fn take(&mut self, now_ms: i64, class: Class, cost: f64) {
        self.queues.went(class);
        self.open += 1;
        self.open_cost += cost;
        self.calls.sent += 1;
        self.seen.take(now_ms, 1.0);
        self.pace_bulk(now_ms, cost);
        for window in self.windows.iter_mut().chain(&mut self.found) {
            window.take(now_ms, cost);
        }
        for bucket in &mut self.buckets {
            bucket.take(now_ms, cost);
        }
        for day in &mut self.days {
            day.used += cost;
        }
        for learned in &mut self.learned {
            learned.take(cost);
        }
    }

    /// Lets go whoever may, in their order. When the first of the rest is to look again.
    fn pump(&mut self, now_ms: i64) -> Option<i64> {
        let mut wake = None;
        while let Some(turn) = self.queues.next() {
            // Whoever may use all there is finds out when it is used up.
            let may_use_all = turn.is_due || !turn.class.is_bulk();
            if !may_use_all && ms(now_ms) < self.bulk_not_before_ms {
                wake = Some(whole_ms(self.bulk_not_before_ms));
                break;
            }
            let is_spread = now_ms < self.spread_until_ms;
            if is_spread && ms(now_ms) < self.not_before_ms {
                if may_use_all {
                    // As long as any wait for their time it is not over, or the last of them would leave in a burst.
                    self.spread_until_ms = self.spread_until_ms.max(now_ms + self.spread_ms());
                }
                wake = Some(whole_ms(self.not_before_ms));
                break;
            }
            match self.blocked(now_ms, turn.class, turn.waiter.cost, turn.is_due) {
                None => {}
                Some(Blocked::Full) => break,
                Some(Blocked::Until(at_ms)) => {
                    if may_use_all {
                        // It is used up: it is used evenly once there is room, so that late requests do not meet early
                        // ones, and so that nobody waits for a whole window again.
                        self.spread_until_ms = self.spread_until_ms.max(at_ms.max(now_ms) + self.spread_ms());
                    }
                    wake = Some(at_ms);
                    break;
                }
            }
            if is_spread && let Some(rate) = self.rate() {
                let from = self.not_before_ms.max(ms(now_ms) - TIMER_SLACK_MS);
                self.not_before_ms = from + turn.waiter.cost / rate;
            }
            self.queues.taken(turn.class);
            self.take(now_ms, turn.class, turn.waiter.cost);
            self.granted.insert(turn.waiter.ticket, turn.waiter.cost);
            self.wakes.push(turn.waiter.ticket);
        }
        // Who looks at the clock for all is to know when it may be earlier than it was: the first of them is due now, or
        // there is more room.
        let first = self.queues.next().map(|turn| turn.waiter.ticket);
        let looks_at_ms = wake.unwrap_or(i64::MAX);
        if self.leader != first || looks_at_ms < self.leader_looks_at_ms {
            self.leader = first;
            self.wakes.extend(first);
        }
        self.leader_looks_at_ms = looks_at_ms;
        wake
    }
}

#[expect(clippy::cast_precision_loss, reason = "allowances are far below 2^52")]
pub(super) fn count(number: u64) -> f64 {
    number as f64
}

/// The part of a window that is one node's. Where that is less than one request, the window is longer instead.
fn share(limit: f64, length_ms: i64, nodes: f64) -> Window {
    let part = limit / nodes;
    if part >= 1.0 {
        return Window::new(part, length_ms);
    }
    Window::new(1.0, whole_ms(ms(length_ms) / part))
}
