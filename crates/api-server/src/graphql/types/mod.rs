//! The objects of the schema, one file each. They show rows and configuration; they decide nothing.

pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod backfill;
pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod bulk;
pub(crate) mod bulk_request;
pub(crate) mod bulk_resolve;
pub(crate) mod connection;
pub(crate) mod connector;
pub(crate) mod coverage;
pub(crate) mod dead_letter;
pub(crate) mod endpoint;
pub(crate) mod event;
pub(crate) mod exchange;
pub(crate) mod grant;
pub(crate) mod header;
pub(crate) mod lane;
pub(crate) mod node;
pub(crate) mod open_wait;
pub(crate) mod outgoing;
pub(crate) mod refused_request;
pub(crate) mod registration;
pub(crate) mod replay_preview;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod step;
pub(crate) mod token;
pub(crate) mod viewer;
pub(crate) mod workflow;

/// A count that the schema shows as `Int`; what does not fit is shown as the largest.
pub(crate) fn long_to_int(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX })
}
