//! The budget of the connection, in worlds that have one: the product's rules, with the world's clock in the place of its
//! timers. Each process counts for itself, and one that starts knows nothing of what was sent before it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::json;
use weir_connector_sdk::own_budget;
use weir_workflow_engine::{CallId, CallOutcome, CallResult, Command, Origin, Retry, RunId, Timestamp};

use super::calls::result;
use super::item::{Item, Place};
use super::rules::Broken;
use super::world::{Lawful, World, broke};
use crate::budget::{Allowance, Asked, Caller, Class, Failure, MAX_WAIT, Request, Rules};

/// What a world says about budgets.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    pub(super) rules: Rules,
    /// Requests in a second.
    pub(super) per_second: usize,
    /// Requests take about as long on their way as the rules say.
    pub(super) evenly: bool,
}

impl Budget {
    pub(super) fn new(per_second: usize) -> Self {
        let own = own_budget(&json!({ "window": format!("{per_second}/1s") })).expect("it is a budget");
        Self {
            rules: Rules::new(Some(&own), None),
            per_second,
            evenly: false,
        }
    }
}

/// What a process knows of the budget.
pub(super) struct Purse {
    allowance: Allowance,
    /// Calls that wait in memory by their tickets, with the end of their patience.
    waiting: BTreeMap<u64, (Place, Command, Class, Timestamp)>,
    /// Requests under way: what they cost, and when they left.
    open: BTreeMap<(RunId, CallId), (f64, Timestamp)>,
    /// When its last requests left.
    left: VecDeque<Timestamp>,
    /// When they reached the provider.
    arrived: VecDeque<Timestamp>,
}

impl Purse {
    pub(super) fn new(budget: &Budget) -> Self {
        Self {
            allowance: Allowance::new("shop", budget.rules.clone(), 1),
            waiting: BTreeMap::new(),
            open: BTreeMap::new(),
            left: VecDeque::new(),
            arrived: VecDeque::new(),
        }
    }
}

const CALLER: Caller<'_> = Caller {
    host: "",
    workflow: None,
    step: "charge",
    operation: "charge",
    tries: 0,
};

fn request(class: Class) -> Request<'static> {
    Request {
        class,
        cost: 1,
        caller: CALLER,
        patience: MAX_WAIT,
    }
}

impl World<'_> {
    fn class_of(&mut self, place: Place) -> Class {
        let run = self.live(place).map(|live| live.driver.run());
        run.map_or(Class::Live, |run| {
            Class::of(run.state.event().source, run.state.head().replay_of.is_some())
        })
    }

    /// A request asks for the budget; it departs now, or later.
    pub(super) fn ask_budget(&mut self, place: Place, command: Command) -> Lawful {
        let (now, class) = (self.now, self.class_of(place));
        let Some(purse) = &mut self.processes[place.process].purse else {
            return self.depart(place, command);
        };
        if self.broken == Broken::BudgetIgnored {
            purse.open.insert((place.run, command.call()), (0.0, now));
            return self.depart(place, command);
        }
        match purse.allowance.ask(now, &request(class)) {
            Asked::Go(cost) => {
                purse.open.insert((place.run, command.call()), (cost, now));
                self.depart(place, command)?;
            }
            Asked::Wait(ticket) => {
                let until = now.plus(MAX_WAIT);
                purse.waiting.insert(ticket, (place, command, class, until));
                self.at(until, Item::Pass(place.process, ticket));
            }
            Asked::Hold(hold) => {
                let held = Box::new(result(CallOutcome::Held(hold), Origin::Sent));
                self.soon(Item::Return(place, command.call(), held));
            }
        }
        self.ring(place.process);
        Ok(())
    }

    /// Those that are to look again do so.
    fn ring(&mut self, process: usize) {
        let Some(purse) = &mut self.processes[process].purse else {
            return;
        };
        for ticket in purse.allowance.take_wakes() {
            self.soon(Item::Pass(process, ticket));
        }
    }

    /// A call that waits for the budget looks whether it may leave.
    pub(super) fn pass(&mut self, process: usize, ticket: u64) -> Lawful {
        let now = self.now;
        let Some(purse) = &mut self.processes[process].purse else {
            return Ok(());
        };
        let Some((place, _, class, until)) = purse.waiting.get(&ticket) else {
            return Ok(());
        };
        let (place, class, until) = (*place, *class, *until);
        match purse.allowance.look(now, ticket) {
            Ok(cost) => {
                if let Some((_, command, ..)) = purse.waiting.remove(&ticket) {
                    purse.open.insert((place.run, command.call()), (cost, now));
                    self.depart(place, command)?;
                }
            }
            Err(_) if now >= until => {
                if let Some((_, command, ..)) = purse.waiting.remove(&ticket) {
                    let hold = purse.allowance.give_up(now, ticket, &request(class));
                    let held = Box::new(result(CallOutcome::Held(hold), Origin::Sent));
                    self.soon(Item::Return(place, command.call(), held));
                }
            }
            Err(Some(at)) => self.at(at.max(now.plus(Duration::from_millis(1))), Item::Pass(process, ticket)),
            Err(None) => {}
        }
        self.ring(process);
        Ok(())
    }

    /// What a request that came back says about the budget.
    pub(super) fn settle_budget(&mut self, place: Place, call: CallId, result: &mut CallResult) {
        let (now, class) = (self.now, self.class_of(place));
        let Some(purse) = &mut self.processes[place.process].purse else {
            return;
        };
        let Some((cost, left_at)) = purse.open.remove(&(place.run, call)) else {
            return;
        };
        purse.allowance.done(now, cost, now.since(left_at));
        match &mut result.outcome {
            CallOutcome::Failed(failure) if failure.is_throttled() => {
                if let Retry::Retryable { after } = failure.retry {
                    purse.allowance.throttled(now, after);
                    let again = purse.allowance.come_again(now, class);
                    failure.retry = Retry::Retryable {
                        after: Some(again.since(now)),
                    };
                }
            }
            CallOutcome::Failed(failure) => match failure.http_status {
                Some(status) if status < 500 => purse.allowance.answered(now, &CALLER),
                Some(status) => purse.allowance.failed(now, &CALLER, Failure::Answered(status)),
                None => purse.allowance.failed(now, &CALLER, Failure::Silent),
            },
            _ => purse.allowance.answered(now, &CALLER),
        }
        self.ring(place.process);
    }

    /// A request does not leave, since its run has left memory.
    pub(super) fn give_back(&mut self, place: Place, call: CallId) {
        let now = self.now;
        if let Some(purse) = &mut self.processes[place.process].purse
            && let Some((cost, left_at)) = purse.open.remove(&(place.run, call))
        {
            purse.allowance.done(now, cost, now.since(left_at));
        }
        self.ring(place.process);
    }

    /// A request leaves: those of one process are never more than the budget says.
    pub(super) fn count_departure(&mut self, process: usize) -> Lawful {
        let now = self.now;
        match (&self.budget, &mut self.processes[process].purse) {
            (Some(budget), Some(purse)) => count(&mut purse.left, budget.per_second, now).map(drop),
            _ => Ok(()),
        }
    }

    /// A request has reached the provider. Where they take about as long as the rules say, no more of them reach it in a
    /// second than the budget says.
    pub(super) fn count_arrival(&mut self, process: usize) -> Lawful {
        let now = self.now;
        match (&self.budget, &mut self.processes[process].purse) {
            (Some(budget), Some(purse)) if budget.evenly => {
                let within = count(&mut purse.arrived, budget.per_second, now)?;
                self.busiest_second = self.busiest_second.max(within);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Counts a request, and how many there were within a second.
fn count(last: &mut VecDeque<Timestamp>, most: usize, now: Timestamp) -> Lawful<usize> {
    let is_over = |at: &Timestamp| now.since(*at) >= Duration::from_secs(1);
    last.drain(..last.partition_point(is_over));
    last.push_back(now);
    match last.len() <= most {
        true => Ok(last.len()),
        false => broke("no more requests leave in a second than the budget says", last.len()),
    }
}
