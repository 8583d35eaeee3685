//! Calls out against a real loopback server: what reaches the wire, and what the engine may conclude from what comes back.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which clippy does not take for tests"
)]

mod budgets;
mod calls;
mod conditional;
mod credentials;
mod effects;
mod egress;
mod formats;
mod hostile;
mod reads;
mod server;
mod sessions;
mod setup;
mod signatures;
