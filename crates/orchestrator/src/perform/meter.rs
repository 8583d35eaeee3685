//! Counters of calls out, registered once per connection and operation so that counting costs an atomic add.
//!
//! Labels come from manifests only, never from data, so their number is bounded.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};
use weir_workflow_engine::{CallOutcome, CallResult, Origin, Retry};

const CALLS: &str = "weir_calls_total";
const DURATION: &str = "weir_call_duration_seconds";

/// Says what the figures mean, to whoever scrapes them.
pub(super) fn describe() {
    describe_counter!(
        CALLS,
        "calls to providers by outcome: done, unchanged, found, coalesced, retryable, permanent, held"
    );
    describe_histogram!(
        DURATION,
        metrics::Unit::Seconds,
        "duration of calls to providers, with token refresh and all pages"
    );
}

/// The meters of one connection.
#[derive(Default)]
pub(crate) struct Meters {
    connector: String,
    by_operation: RwLock<HashMap<String, Arc<Meter>>>,
}

/// The meter of one operation.
pub(crate) struct Meter {
    done: Counter,
    unchanged: Counter,
    found: Counter,
    coalesced: Counter,
    retryable: Counter,
    permanent: Counter,
    held: Counter,
    duration: Histogram,
}

impl Meters {
    pub(crate) fn new(connector: &str) -> Self {
        Meters {
            connector: connector.to_owned(),
            by_operation: RwLock::default(),
        }
    }

    /// The meter of an operation that the connector has.
    pub(crate) fn of(&self, operation: &str) -> Arc<Meter> {
        let known = self
            .by_operation
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(operation)
            .cloned();
        known.unwrap_or_else(|| {
            let meter = Arc::new(self.register(operation));
            let mut all = self.by_operation.write().unwrap_or_else(PoisonError::into_inner);
            all.entry(operation.to_owned()).or_insert(meter).clone()
        })
    }

    fn register(&self, operation: &str) -> Meter {
        let outcome = |outcome: &'static str| counter!(CALLS, "connector" => self.connector.clone(), "operation" => operation.to_owned(), "outcome" => outcome);
        Meter {
            done: outcome("done"),
            unchanged: outcome("unchanged"),
            found: outcome("found"),
            coalesced: outcome("coalesced"),
            retryable: outcome("retryable"),
            permanent: outcome("permanent"),
            held: outcome("held"),
            duration: histogram!(DURATION, "connector" => self.connector.clone(), "operation" => operation.to_owned()),
        }
    }
}

impl Meter {
    pub(super) fn count(&self, result: &CallResult, took: Duration) {
        let counter = match (&result.outcome, result.origin) {
            (_, Origin::Coalesced) => &self.coalesced,
            (CallOutcome::Held(_), Origin::Sent | Origin::Found) => &self.held,
            (CallOutcome::Done { .. }, Origin::Found) => &self.found,
            (CallOutcome::Done { .. }, Origin::Sent) if is_unchanged(result) => &self.unchanged,
            (CallOutcome::Done { .. }, Origin::Sent) => &self.done,
            (CallOutcome::Failed(failure), Origin::Sent | Origin::Found) => match failure.retry {
                Retry::Retryable { .. } => &self.retryable,
                Retry::Permanent => &self.permanent,
            },
        };
        counter.increment(1);
        self.duration.record(took);
    }
}

/// Whether the provider said that what was known of it still holds.
fn is_unchanged(result: &CallResult) -> bool {
    result
        .exchanges
        .last()
        .is_some_and(|exchange| exchange.status == Some(304))
}
