//! Runs the world: the only crate that joins engine, storage, connectors, time and network.
//!
//! Data goes one way: [`ingest`] verifies and persists, `route` finds the workflows in memory, `runner` drives runs,
//! [`perform`] calls out. [`configure`] and [`control`] are the doors for people; they change facts, never a run's memory.
//! Nothing here knows HTTP servers or GraphQL.

pub mod answers;
pub mod budget;
pub mod clock;
pub mod coalesce;
pub mod configure;
pub mod connection;
pub mod control;
pub mod credentials;
mod crowding;
pub mod departures;
mod driver;
pub mod egress;
mod free;
pub mod grants;
pub mod http_client;
pub mod ingest;
pub mod lease;
mod mail;
pub mod operate;
pub mod own;
mod panics;
pub mod perform;
pub mod published;
mod queued;
mod reading;
mod recovery;
pub mod registrations;
pub mod registry;
pub mod repair;
mod resume;
pub mod retention;
mod route;
mod runner;
mod runs;
mod schedules;
mod service;
mod settings;
#[cfg(test)]
mod simulation;
pub mod snapshot;
mod start;
pub mod sweeps;
mod trace;
mod turns;

pub use clock::{Clock, SystemClock};
pub use service::{DEFAULT_WORKSPACE, Options, Orchestrator, Readiness, StartError, skew_warning};
pub use settings::{Role, Roles, Settings};
