//! HTTP in: webhooks, the GraphQL admin API, `GraphiQL`, health and metrics.
//!
//! This crate turns requests into calls of the orchestrator and of the storage's reads, and answers back. It decides
//! nothing about events or runs, keeps no state of its own, and never answers a webhook before the orchestrator says so.

mod answers;
mod auth;
mod body;
mod graphiql;
mod graphql;
mod health;
mod hooks;
mod measure;
mod oauth;
mod problem;
mod routes;
mod server;
mod shared;

pub use graphql::schema_sdl;
pub use problem::{Code, Entry, Problem};
pub use server::{BindError, Server, ServerOptions};
