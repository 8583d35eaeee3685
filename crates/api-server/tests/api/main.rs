//! The API through its front door: a real server on a real port, a real orchestrator, SQLite in a folder of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod administering;
mod backfills;
mod bulk;
mod bulk_resolve;
mod configuration;
mod dead_letters;
mod graphql_rules;
mod hooks;
mod limits;
mod pages;
mod rehearsing;
mod replaying;
mod resolving;
mod retention;
mod runs;
mod schema;
mod support;
mod tokens;
mod upstream;
mod versions;
