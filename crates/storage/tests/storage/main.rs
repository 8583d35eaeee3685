//! Every promise of the storage crate, on both databases.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on must fail")]

mod accept;
mod backfills;
mod backup;
mod bulk;
mod claim;
mod configuration;
mod dead_letters;
mod dedupe;
mod failure;
mod gates;
mod grants;
mod lists;
mod mail;
mod operate;
mod proxy;
mod refusals;
mod registrations;
mod retention;
mod routing;
mod runs;
mod schedules;
mod schema;
mod support;
mod sweeps;
