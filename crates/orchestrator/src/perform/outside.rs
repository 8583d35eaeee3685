//! What calls outside of runs have in common: they have no journal, and are counted like those that have one.

use std::time::Duration;

use weir_connector_sdk::Operation;
use weir_workflow_engine::{CallFailure, CallOutcome, CallResult, Document, Origin};

use super::no_operation;
use crate::connection::Connection;

/// Counts a call outside of a run.
pub(super) fn count_outside<T>(
    connection: &Connection,
    operation: &str,
    result: &Result<T, CallFailure>,
    took: Duration,
) {
    let outcome = match result {
        Ok(_) => CallOutcome::Done {
            output: Document::null(),
        },
        Err(failure) => CallOutcome::Failed(failure.clone()),
    };
    let counted = CallResult {
        outcome,
        exchanges: Vec::new(),
        origin: Origin::Sent,
    };
    connection.meters.of(operation).count(&counted, took);
}

/// The operation of this name.
pub(super) fn known_operation<'a>(connection: &'a Connection, operation: &str) -> Result<&'a Operation, CallFailure> {
    let found = connection.connector.operation(operation);
    found.ok_or_else(|| no_operation(connection, operation))
}
