//! The budget of the connection, in worlds that have one: the product's rules, with the world's clock in the place of its
//! timers. Each process counts for itself, and one that starts knows nothing of what was sent before it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use weir_workflow_engine::{CallId, CallOutcome, CallResult, Command, Origin, Retry, RunId, Timestamp};

use super::calls::result;
use super::item::{Item, Place};
use super::world::{Lawful, World, broke};
use crate::budget::{Allowance, Asked, Class, MAX_WAIT, Request, Rules};

/// What a world says about budgets.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    pub(super) rules: Rules,
    /// Requests in a second.
    pub(super) per_second: usize,
}

/// What a process knows of the budget.
pub(super) struct Purse {
    allowance: Allowance,
    /// Calls that wait in memory by their tickets, with the end of their patience.
    waiting: BTreeMap<u64, (Place, Command, Timestamp)>,
    /// Requests under way: what they cost, and when they left.
    open: BTreeMap<(RunId, CallId), (f64, Timestamp)>,
    /// When its last requests reached the provider.
    arrived: VecDeque<Timestamp>,
}

impl Purse {
    pub(super) fn new(budget: &Budget) -> Self {
        Self {
            allowance: Allowance::new("shop", budget.rules.clone(), 1),
            waiting: BTreeMap::new(),
            open: BTreeMap::new(),
            arrived: VecDeque::new(),
        }
    }
}

fn request() -> Request<'static> {
    Request {
        class: Class::Live,
        cost: 1,
        operation: "charge",
        host: "",
        patience: MAX_WAIT,
    }
}

impl World<'_> {
    /// A request asks for the budget; it departs now, or later.
    pub(super) fn ask_budget(&mut self, place: Place, command: Command) -> Lawful {
        let now = self.now;
        let Some(purse) = &mut self.processes[place.process].purse else {
            return self.depart(place, command);
        };
        match purse.allowance.ask(now, &request()) {
            Asked::Go(cost) => {
                purse.open.insert((place.run, command.call()), (cost, now));
                self.depart(place, command)?;
            }
            Asked::Wait(ticket) => {
                let until = now.plus(MAX_WAIT);
                purse.waiting.insert(ticket, (place, command, until));
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
        let Some((place, _, until)) = purse.waiting.get(&ticket) else {
            return Ok(());
        };
        let (place, until) = (*place, *until);
        match purse.allowance.look(now, ticket) {
            Ok(cost) => {
                if let Some((_, command, _)) = purse.waiting.remove(&ticket) {
                    purse.open.insert((place.run, command.call()), (cost, now));
                    self.depart(place, command)?;
                }
            }
            Err(_) if now >= until => {
                if let Some((_, command, _)) = purse.waiting.remove(&ticket) {
                    let hold = purse.allowance.give_up(now, ticket, &request());
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
        let now = self.now;
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
                    let again = purse.allowance.come_again(now, Class::Live);
                    failure.retry = Retry::Retryable {
                        after: Some(again.since(now)),
                    };
                }
            }
            CallOutcome::Failed(failure) => match failure.http_status {
                Some(status) if status < 500 => purse.allowance.answered(now, ""),
                Some(_) | None => purse.allowance.failed(now, ""),
            },
            _ => purse.allowance.answered(now, ""),
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

    /// A request has reached the provider: those of one process are never more than the budget says.
    pub(super) fn count_arrival(&mut self, process: usize) -> Lawful {
        let (now, most) = (self.now, self.budget.as_ref().map_or(0, |budget| budget.per_second));
        let Some(purse) = &mut self.processes[process].purse else {
            return Ok(());
        };
        if purse.arrived.len() == most
            && let Some(first) = purse.arrived.pop_front()
            && now.since(first) < Duration::from_secs(1)
        {
            let detail = format!("one more than {most} within {:?}", now.since(first));
            return broke(
                "no more requests reach the provider in a second than the budget says",
                detail,
            );
        }
        purse.arrived.push_back(now);
        Ok(())
    }
}
