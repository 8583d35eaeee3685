//! What holds for one connection: the manifest's budget and, inside it, the connection's own.

use weir_connector_sdk::{Budget, DEFAULT_RESERVE_PERCENT};

/// Calls that a connection may have open when nothing is stated: as many idle connections to a host are kept.
pub const DEFAULT_CONCURRENCY: u64 = 256;

/// The rules of one connection.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rules {
    /// Both budgets' windows, buckets and days hold side by side: the own one can only lower.
    pub(super) budgets: Vec<Budget>,
    pub(super) concurrency: u64,
    /// Part that only live calls may use.
    pub(super) reserve: f64,
}

impl Rules {
    pub(crate) fn new(manifest: Option<&Budget>, own: Option<&Budget>) -> Self {
        let budgets: Vec<Budget> = manifest.into_iter().chain(own).cloned().collect();
        let concurrency = budgets.iter().filter_map(|budget| budget.concurrency).min();
        let own_reserve = own.and_then(|budget| budget.reserve_percent);
        let reserve = own_reserve.or_else(|| manifest.and_then(|budget| budget.reserve_percent));
        Rules {
            concurrency: concurrency.unwrap_or(DEFAULT_CONCURRENCY).max(1),
            reserve: f64::from(reserve.unwrap_or(DEFAULT_RESERVE_PERCENT)) / 100.0,
            budgets,
        }
    }
}
