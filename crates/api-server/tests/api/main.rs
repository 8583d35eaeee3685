//! The API through its front door: a real server on a real port, a real orchestrator, SQLite in a folder of its own.

mod configuration;
mod graphql_rules;
mod hooks;
mod pages;
mod runs;
mod schema;
mod support;
