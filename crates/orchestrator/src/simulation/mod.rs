//! A seeded simulation of engine and orchestrator: virtual time, a made-up network and provider, a real SQLite.
//!
//! Each seed is a world of its own: random workflows, events that come twice and out of order, failures, slow answers,
//! people who pause and cancel, processes that die between any two statements or stand still while another takes over.
//! What drives a run is the product's own code (`driver`, `recovery`, `mail`, `route`, the engine, the statements of the
//! writer); what is made up here is the shell around it. `docs/reliability.md` says how a seed is played again.

mod answers;
mod budget;
mod calls;
mod chance;
mod definitions;
mod doors;
mod flow;
mod item;
mod laws;
mod loading;
mod order;
mod outage;
mod people;
mod process;
mod provider;
mod replays;
mod rules;
mod setting;
mod tests;
mod turns;
mod world;
