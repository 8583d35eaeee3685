//! Where requests wait for their connection's allowance: the pure rules behind a lock, and the waiting around them.
//!
//! No lock is held while anything waits. Dropping a wait gives the place to the next one.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use tokio::sync::Notify;
use tokio::time::Instant;
use weir_connector_sdk::Told;
use weir_workflow_engine::{HeldBy, Hold, Timestamp, WorkflowId};

use super::allowance::{Allowance, Asked, Caller, Request, count};
use super::breaker::{Breaker, Failure};
use super::class::Class;
use super::figures::{BreakerFigure, BudgetFigures, Calls, LimitFigure};
use super::rules::Rules;
use crate::clock::{Clock, Stopwatch};

const WAIT: &str = "weir_budget_wait_seconds";
const HELD: &str = "weir_budget_held_total";
const THROTTLED: &str = "weir_budget_throttled_total";
const QUEUE: &str = "weir_budget_queue";
const SLEEPING: &str = "weir_budget_sleeping";
const BREAKERS: &str = "weir_breakers_open";

/// Workflows of one connection that are counted apart; the calls of further ones count for the connection alone.
const MAX_WORKFLOWS: usize = 1_000;

/// Says what the figures mean, to whoever scrapes them.
pub(super) fn describe() {
    describe_histogram!(
        WAIT,
        metrics::Unit::Seconds,
        "how long requests waited in memory for the budget of their connection"
    );
    describe_counter!(
        HELD,
        "calls that were sent away to come again later, by budget or breaker"
    );
    describe_counter!(THROTTLED, "answers of providers that there were too many requests");
    describe_gauge!(QUEUE, "calls that wait in memory for a budget, by class");
    describe_gauge!(
        SLEEPING,
        "calls whose runs sleep on disk until a budget or breaker lets them come again"
    );
    describe_gauge!(BREAKERS, "circuit breakers that are open");
}

/// Shows how many calls wait at these gates.
pub(super) fn show(gates: &[Arc<Gate>]) {
    let mut waiting: BTreeMap<(&str, Class), u64> = BTreeMap::new();
    let mut sleeping: BTreeMap<&str, u64> = BTreeMap::new();
    let mut open: BTreeMap<&str, u64> = BTreeMap::new();
    for gate in gates {
        let now = gate.clock.now();
        let mut state = gate.lock();
        for class in Class::ALL {
            *waiting.entry((&gate.connector, class)).or_default() += to_u64(state.allowance.queues.len(class));
        }
        *sleeping.entry(&gate.connector).or_default() += to_u64(state.allowance.sleepers(now));
        let breakers = state.allowance.breakers();
        let is_open = breakers.filter(|(_, breaker)| breaker.open_until().is_some()).count();
        *open.entry(&gate.connector).or_default() += to_u64(is_open + state.allowance.open_paths().count());
    }
    for ((connector, class), calls) in waiting {
        gauge!(QUEUE, "connector" => connector.to_owned(), "class" => class.as_str()).set(count(calls));
    }
    for (connector, calls) in sleeping {
        gauge!(SLEEPING, "connector" => connector.to_owned()).set(count(calls));
    }
    for (connector, breakers) in open {
        gauge!(BREAKERS, "connector" => connector.to_owned()).set(count(breakers));
    }
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The gate of one connection.
pub(crate) struct Gate {
    connector: String,
    clock: Arc<dyn Clock>,
    nodes: Arc<AtomicU32>,
    state: Mutex<State>,
    waits: Histogram,
    held_by_budget: Counter,
    held_by_breaker: Counter,
    held_by_token: Counter,
    held_by_reauth: Counter,
    throttled: Counter,
}

struct State {
    rules: Rules,
    allowance: Allowance,
    waiters: HashMap<u64, Arc<Notify>>,
    by_workflow: HashMap<WorkflowId, Calls>,
}

/// A request that may leave. Dropped when it came back.
pub(crate) struct Permit<'g> {
    gate: &'g Gate,
    cost: f64,
    since: Stopwatch,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let now = self.gate.clock.now();
        let mut state = self.gate.lock();
        state.allowance.done(now, self.cost, self.since.elapsed());
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        for ticket in self.allowance.take_wakes() {
            if let Some(waiter) = self.waiters.get(&ticket) {
                waiter.notify_one();
            }
        }
    }

    fn count(&mut self, workflow: Option<WorkflowId>, count: impl FnOnce(&mut Calls)) {
        let Some(workflow) = workflow else { return };
        if self.by_workflow.len() < MAX_WORKFLOWS || self.by_workflow.contains_key(&workflow) {
            count(self.by_workflow.entry(workflow).or_default());
        }
    }
}

/// A place in the queue; given up when the wait is dropped.
struct Place<'g> {
    gate: &'g Gate,
    ticket: u64,
    bell: Arc<Notify>,
    is_over: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let now = self.gate.clock.now();
        let mut state = self.gate.lock();
        state.waiters.remove(&self.ticket);
        if !self.is_over {
            state.allowance.leave(now, self.ticket);
        }
        state.wake();
    }
}

impl Gate {
    pub(super) fn new((connector, name): (&str, &str), clock: Arc<dyn Clock>, nodes: Arc<AtomicU32>) -> Self {
        let held = |by: HeldBy| counter!(HELD, "connector" => connector.to_owned(), "by" => by.as_str());
        let rules = Rules::new(None, None);
        Gate {
            connector: connector.to_owned(),
            clock,
            state: Mutex::new(State {
                allowance: Allowance::new(name, rules.clone(), nodes.load(Ordering::Relaxed)),
                rules,
                waiters: HashMap::new(),
                by_workflow: HashMap::new(),
            }),
            nodes,
            waits: histogram!(WAIT, "connector" => connector.to_owned()),
            held_by_budget: held(HeldBy::Budget),
            held_by_breaker: held(HeldBy::Breaker),
            held_by_token: held(HeldBy::Token),
            held_by_reauth: held(HeldBy::Reauth),
            throttled: counter!(THROTTLED, "connector" => connector.to_owned()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn follow(&self, rules: &Rules) {
        let mut state = self.lock();
        state.rules = rules.clone();
        let nodes = self.nodes.load(Ordering::Relaxed);
        state.allowance.follow(rules, nodes);
    }

    /// Waits until the request may leave.
    ///
    /// Cancel-safe: a wait that is dropped gives its place away.
    ///
    /// # Errors
    /// [`Hold`] when the wait would be longer than the request's patience.
    pub(crate) async fn pass(&self, request: &Request<'_>) -> Result<Permit<'_>, Hold> {
        let workflow = request.caller.workflow;
        let now = self.clock.now();
        let asked = {
            let mut state = self.lock();
            let nodes = self.nodes.load(Ordering::Relaxed);
            let State { rules, allowance, .. } = &mut *state;
            allowance.follow(rules, nodes);
            let asked = allowance.ask(now, request);
            match &asked {
                Asked::Go(_) => state.count(workflow, |calls| calls.sent += 1),
                Asked::Hold(_) => state.count(workflow, |calls| calls.held += 1),
                Asked::Wait(ticket) => {
                    let ticket = *ticket;
                    state.waiters.insert(ticket, Arc::default());
                }
            }
            state.wake();
            asked
        };
        match asked {
            Asked::Go(cost) => Ok(self.permit(cost)),
            Asked::Hold(hold) => Err(self.held(hold)),
            Asked::Wait(ticket) => self.wait(request, ticket).await,
        }
    }

    async fn wait(&self, request: &Request<'_>, ticket: u64) -> Result<Permit<'_>, Hold> {
        let workflow = request.caller.workflow;
        let watch = Stopwatch::start();
        let deadline = Instant::now() + request.patience;
        let bell = self.lock().waiters.get(&ticket).cloned().unwrap_or_default();
        let mut place = Place {
            gate: self,
            ticket,
            bell,
            is_over: false,
        };
        loop {
            let now = self.clock.now();
            let again = {
                let mut state = self.lock();
                let looked = state.allowance.look(now, ticket);
                let again = match looked {
                    Ok(cost) => {
                        place.is_over = true;
                        state.count(workflow, |calls| calls.sent += 1);
                        Ok(Ok(self.permit(cost)))
                    }
                    Err(_) if Instant::now() >= deadline => {
                        place.is_over = true;
                        state.count(workflow, |calls| calls.held += 1);
                        Ok(Err(state.allowance.give_up(now, ticket, request)))
                    }
                    Err(at) => Err(at),
                };
                state.wake();
                again
            };
            let at = match again {
                Ok(passed) => {
                    self.waits.record(watch.elapsed());
                    return passed.map_err(|hold| self.held(hold));
                }
                Err(at) => at,
            };
            let wake = at.map_or(deadline, |at: Timestamp| {
                deadline.min(Instant::now() + at.since(now).max(Duration::from_millis(1)))
            });
            tokio::select! {
                () = place.bell.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn permit(&self, cost: f64) -> Permit<'_> {
        Permit {
            gate: self,
            cost,
            since: Stopwatch::start(),
        }
    }

    fn held(&self, hold: Hold) -> Hold {
        self.count_held(hold.by);
        hold
    }

    /// Counts a call that is to come again.
    pub(crate) fn count_held(&self, by: HeldBy) {
        match by {
            HeldBy::Budget => self.held_by_budget.increment(1),
            HeldBy::Breaker => self.held_by_breaker.increment(1),
            HeldBy::Token => self.held_by_token.increment(1),
            HeldBy::Reauth => self.held_by_reauth.increment(1),
            // Held by the run's own task, before it comes here.
            HeldBy::Stop => {}
        }
    }

    /// What an answer told about the allowance.
    pub(crate) fn learn(&self, operation: &str, told: &[Told]) {
        let now = self.clock.now();
        let mut state = self.lock();
        for told in told {
            state.allowance.learn(now, operation, told);
        }
    }

    /// The provider turned a call away because of too many requests: when it is to come again.
    pub(crate) fn throttled(&self, workflow: Option<WorkflowId>, class: Class, after: Option<Duration>) -> Duration {
        self.throttled.increment(1);
        let now = self.clock.now();
        let mut state = self.lock();
        state.count(workflow, |calls| calls.throttled += 1);
        state.allowance.throttled(now, after);
        state.allowance.come_again(now, class).since(now)
    }

    /// The server asked to be left alone for a while.
    pub(crate) fn pause(&self, after: Duration) {
        self.lock().allowance.pause(self.clock.now(), after);
    }

    /// The server of a request answered, and not that it failed.
    pub(crate) fn answered(&self, caller: &Caller<'_>) {
        self.lock().allowance.answered(self.clock.now(), caller);
    }

    /// A request failed on its way, or its server did.
    pub(crate) fn failed(&self, caller: &Caller<'_>, failure: Failure) {
        self.lock().allowance.failed(self.clock.now(), caller, failure);
    }

    /// Calls of one class whose runs sleep until they come again.
    pub(crate) fn sleeping(&self, class: Class) -> usize {
        self.lock().allowance.sleepers_of(self.clock.now(), class)
    }

    /// What people see.
    pub(crate) fn figures(&self) -> BudgetFigures {
        let now = self.clock.now();
        let mut state = self.lock();
        let nodes = self.nodes.load(Ordering::Relaxed);
        let State { rules, allowance, .. } = &mut *state;
        allowance.follow(rules, nodes);
        let mut figures = figures_of(allowance, now);
        figures.by_workflow = state.by_workflow.iter().map(|(id, calls)| (*id, *calls)).collect();
        figures
            .by_workflow
            .sort_unstable_by_key(|(_, calls)| std::cmp::Reverse(calls.sent));
        figures
    }
}

fn figures_of(allowance: &mut Allowance, now: Timestamp) -> BudgetFigures {
    let now_ms = now.as_unix_ms();
    let pace = allowance.pace;
    let stated = |shape: &'static str, limit: f64, remaining: f64| LimitFigure {
        shape,
        name: String::new(),
        limit: Some(limit),
        remaining: remaining.max(0.0),
        window_s: None,
        resets_at: None,
    };
    let mut limits = Vec::new();
    for window in allowance.windows.iter_mut().chain(&mut allowance.found) {
        let left = window.limit * pace - window.used(now_ms);
        let resets_at = window.waits_until(now_ms, window.limit * pace, window.limit * pace);
        limits.push(LimitFigure {
            window_s: Some(super::limit::ms(window.length_ms) / 1_000.0),
            resets_at: resets_at.map(Timestamp::from_unix_ms),
            ..stated("window", window.limit, left)
        });
    }
    for bucket in &mut allowance.buckets {
        let left = bucket.left(now_ms);
        limits.push(stated("bucket", bucket.size, left));
    }
    for day in &mut allowance.days {
        day.advance(now_ms);
        limits.push(LimitFigure {
            resets_at: Some(Timestamp::from_unix_ms(day.resets_at_ms)),
            ..stated("daily", day.limit, day.limit - day.used)
        });
    }
    allowance.learned.retain(|learned| !learned.is_over(now_ms));
    for learned in &mut allowance.learned {
        limits.push(LimitFigure {
            shape: "learned",
            name: learned.name.clone(),
            limit: learned.limit,
            remaining: learned.remaining(now_ms).max(0.0),
            window_s: None,
            resets_at: Some(Timestamp::from_unix_ms(learned.resets_at_ms)),
        });
    }
    let is_stated = !(allowance.windows.is_empty() && allowance.buckets.is_empty() && allowance.days.is_empty());
    let source = match () {
        () if !allowance.learned.is_empty() => "headers",
        () if is_stated => "stated",
        () if allowance.found.is_some() => "refusals",
        () => "default",
    };
    let of_hosts = allowance
        .breakers()
        .map(|(host, breaker)| breaker_figure(host, None, breaker));
    let of_paths = allowance.open_paths().map(|path| {
        let step = Some((path.workflow, path.step.clone()));
        breaker_figure(&path.host, step, &path.breaker)
    });
    let mut breakers: Vec<BreakerFigure> = of_hosts.chain(of_paths).collect();
    breakers.sort_unstable_by(|one, other| (&one.host, &one.step).cmp(&(&other.host, &other.step)));
    BudgetFigures {
        limits,
        concurrency: allowance.concurrency,
        open: allowance.open,
        reserve_percent: percent(allowance.reserve()),
        waiting: Class::ALL
            .map(|class| (class, to_u64(allowance.queues.len(class))))
            .to_vec(),
        sleeping: to_u64(allowance.sleepers(now)),
        per_second: allowance.seen.used(now_ms),
        closed_until: (allowance.closed_until_ms > now_ms).then(|| Timestamp::from_unix_ms(allowance.closed_until_ms)),
        pace,
        source,
        calls: allowance.calls,
        by_workflow: Vec::new(),
        breakers,
    }
}

fn breaker_figure(host: &str, step: Option<(Option<WorkflowId>, String)>, breaker: &Breaker) -> BreakerFigure {
    BreakerFigure {
        host: host.to_owned(),
        step,
        state: match breaker.open_until() {
            None => "closed",
            Some(_) if breaker.is_probing() => "probing",
            Some(_) => "open",
        },
        failures: breaker.failures(),
        until: breaker.open_until(),
    }
}

fn percent(share: f64) -> u8 {
    u8::try_from(super::limit::whole_ms((share * 100.0).round())).unwrap_or(100)
}
