//! Budgets of connections: how many requests may leave, in which order, and what happens when a provider says "too many"
//! or nothing at all.
//!
//! The rules are pure and take the time (`allowance`, `limit`, `queue`, `breaker`); `gate` waits. A request asks
//! right before it leaves: after the commit of an effect's intent, so that a wait is safe, and before its own timeout
//! begins. A short wait happens in memory; a long one is the engine's: the run sleeps on disk and no try is counted.

mod allowance;
mod breaker;
mod class;
mod figures;
mod gate;
mod limit;
#[cfg(test)]
mod outages;
mod queue;
mod rules;
#[cfg(test)]
mod simulation;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use weir_workflow_engine::ConnectionId;

pub use allowance::{MAX_LIVE_WAITERS, MAX_OTHER_WAITERS, MAX_PAGE_WAIT, MAX_WAIT};
pub use breaker::{BREAKER_FAILURES, BREAKER_MAX_PAUSE, BREAKER_PATH_SHARE, BREAKER_WINDOW};
pub use class::Class;
pub use figures::{BreakerFigure, BudgetFigures, Calls, LimitFigure};
pub use queue::MAX_PASSED_OVER;
pub use rules::DEFAULT_CONCURRENCY;

#[cfg(test)]
pub(crate) use allowance::{Allowance, Asked};
pub(crate) use allowance::{Caller, Request};
pub(crate) use breaker::Failure;
pub(crate) use gate::{Gate, Permit};
pub(crate) use rules::Rules;

use crate::clock::Clock;
use crate::connection::Connection;

/// The budgets of all connections of this process.
pub(crate) struct Budgets {
    clock: Arc<dyn Clock>,
    /// Nodes among which every allowance is divided.
    nodes: Arc<AtomicU32>,
    gates: Mutex<HashMap<ConnectionId, Arc<Gate>>>,
}

impl Budgets {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        gate::describe();
        Budgets {
            clock,
            nodes: Arc::new(AtomicU32::new(1)),
            gates: Mutex::default(),
        }
    }

    /// How many nodes are alive, this one included.
    pub(crate) fn set_nodes(&self, nodes: u32) {
        self.nodes.store(nodes.max(1), Ordering::Relaxed);
    }

    /// The gate of a connection. A changed connection keeps what was counted and takes over its new rules.
    pub(crate) fn gate<'c>(&self, connection: &'c Connection) -> &'c Arc<Gate> {
        connection.gate.get_or_init(|| {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            let gate = gates.entry(connection.id).or_insert_with(|| {
                let labels = (connection.connector.name(), connection.name.as_str());
                Arc::new(Gate::new(labels, Arc::clone(&self.clock), Arc::clone(&self.nodes)))
            });
            gate.follow(&connection.rules);
            Arc::clone(gate)
        })
    }

    /// Shows in the metrics how many calls wait.
    pub(crate) fn show(&self) {
        let gates: Vec<Arc<Gate>> = {
            let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            gates.values().cloned().collect()
        };
        gate::show(&gates);
    }
}
