//! The one executable of Weir: arguments, settings, telemetry and wiring.
//!
//! Nothing is decided here about events and runs; commands either start the crates below (`serve`, `demo`) or talk to a
//! running server over its public GraphQL address, with nothing a stranger's script could not do as well.

mod arguments;
mod client;
mod commands;
mod config;
mod data_folder;
mod demo;
mod failure;
mod output;
mod scheduling;
mod serve;
mod telemetry;

use crate::arguments::{Arguments, Command};
use clap::Parser;
use std::process::ExitCode;

/// Long-lived servers with many small allocations fragment less with it than with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Several libraries bring rustls; it refuses to guess between providers, so it is told before anything opens a socket.
    // A second call answers with an error that means "already done".
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if provider.install_default().is_err() {
        tracing::debug!("the TLS provider was installed before");
    }
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

/// Runs one command on a runtime of the size that fits it: servers get a worker per core, commands that only ask one thread.
fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Serve(settings) => serve::main(settings),
        Command::Demo(demo) => demo::main(demo),
        Command::Simulator(simulator) => demo::simulator::main(&simulator),
        other => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(commands::run(other))
        }
    }
}
