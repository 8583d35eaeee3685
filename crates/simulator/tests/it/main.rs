//! The simulator from outside: its APIs, its faults, its webhooks.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise, helpers included"
)]

mod faults;
mod manifests;
mod providers;
mod sending;
mod support;
