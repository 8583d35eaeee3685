//! The engine through its public door: documents in, decisions out.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in tests a panic is the report; helpers are tests too"
)]

mod attending;
mod children;
mod choices;
mod deciding;
mod definitions;
mod effects;
mod expressions;
mod failures;
mod flow;
mod gates;
mod holding;
mod hydration;
mod limiting;
mod limits;
mod mistakes;
mod own;
mod parallel;
mod properties;
mod rehearsing;
mod renaming;
mod replay;
mod restarting;
mod schedules;
mod schema;
mod sleeping;
mod support;
mod telling;
mod undoing;
mod undoing_doubt;
mod waiting;
