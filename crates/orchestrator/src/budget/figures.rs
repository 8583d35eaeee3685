//! What people see of a budget.

use weir_workflow_engine::{Timestamp, WorkflowId};

use super::class::Class;

/// Requests of one connection or workflow since this server started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Requests that left.
    pub sent: u64,
    /// Requests that the provider turned away because of too many.
    pub throttled: u64,
    /// How often a call was sent away to come again later.
    pub held: u64,
}

/// One allowance of a connection, as this server counts it.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitFigure {
    /// `window`, `bucket`, `daily`, or `learned`.
    pub shape: &'static str,
    /// What the provider calls it; empty for what the configuration states.
    pub name: String,
    /// The whole of it, for this server.
    pub limit: Option<f64>,
    /// What is left of it.
    pub remaining: f64,
    /// Length of its window in seconds.
    pub window_s: Option<f64>,
    /// When it begins anew.
    pub resets_at: Option<Timestamp>,
}

/// The circuit breaker of one host, or of one step's calls to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerFigure {
    /// The host, for connectors of any host; otherwise empty.
    pub host: String,
    /// The step whose calls alone it holds, with its workflow; `None`: all calls.
    pub step: Option<(Option<WorkflowId>, String)>,
    /// `closed`, `open` or `probing`.
    pub state: &'static str,
    /// Failures in a row.
    pub failures: u32,
    /// Until when nothing is sent.
    pub until: Option<Timestamp>,
}

/// What one connection may send and does, as this server sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetFigures {
    /// Each allowance.
    pub limits: Vec<LimitFigure>,
    /// Calls that may be open at the same time, here.
    pub concurrency: u64,
    /// Calls that are open.
    pub open: u64,
    /// Part that only live calls may use, percent.
    pub reserve_percent: u8,
    /// Calls that wait in memory, by class.
    pub waiting: Vec<(Class, u64)>,
    /// Calls whose runs sleep until they come again.
    pub sleeping: u64,
    /// Requests of the last second.
    pub per_second: f64,
    /// Nothing is sent before this moment: the provider asked for it.
    pub closed_until: Option<Timestamp>,
    /// The part of its allowances that is used: less than 1 after the provider complained.
    pub pace: f64,
    /// `stated`, `headers`, `refusals` or `default`.
    pub source: &'static str,
    /// Since this server started.
    pub calls: Calls,
    /// The same for each workflow.
    pub by_workflow: Vec<(WorkflowId, Calls)>,
    /// Hosts that failed lately, and steps whose calls wait because theirs failed.
    pub breakers: Vec<BreakerFigure>,
}

impl BudgetFigures {
    /// Whether the provider works: false while a breaker is open.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.breakers.iter().all(|breaker| breaker.state == "closed")
    }
}
