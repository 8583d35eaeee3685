//! The product as its users meet it: the real executable, real HTTP on loopback, real crashes.

#[cfg(test)]
mod administering;
#[cfg(test)]
mod authorization_server;
#[cfg(test)]
mod backfills;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod budgets;
#[cfg(test)]
mod children;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod connectors;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod crowds;
#[cfg(test)]
mod cursors;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod documentation;
#[cfg(test)]
mod drops;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod grants;
#[cfg(test)]
mod handshakes;
#[cfg(test)]
mod hook_provider;
#[cfg(test)]
mod hydration;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod localstripe;
#[cfg(test)]
mod logins;
#[cfg(test)]
mod loopback;
#[cfg(test)]
mod master_key;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod operating;
#[cfg(test)]
mod patience;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod polls;
#[cfg(test)]
mod proofs;
#[cfg(test)]
mod published;
#[cfg(test)]
mod registrations;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod scheduling;
#[cfg(test)]
mod stops;
#[cfg(test)]
mod support;
#[cfg(test)]
mod suspicions;
#[cfg(test)]
mod sweeps;
#[cfg(test)]
mod timers;
#[cfg(test)]
mod tracing;
#[cfg(test)]
mod turns;
#[cfg(test)]
mod unknown_commits;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod upstream;
#[cfg(test)]
mod vocabulary;
#[cfg(test)]
mod waits;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod woken;
