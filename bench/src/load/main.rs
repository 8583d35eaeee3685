//! `weir-load`: drives one server through the hydrate flow and reports what arrived.
//!
//! ```text
//! webhook POST ─► server under test ─► GET /v1/payment_intents/{id} ─► POST /crm/deals/{id}
//! ```
//! The sender and both upstreams live in this process, so every latency is a difference of two readings
//! of one clock. Prints one JSON object on standard output. Targets other than loopback are refused.

mod arguments;
mod client;
mod generator;
mod process;
mod record;
mod report;
mod upstream;

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;

use crate::arguments::{Arguments, Mode};
use crate::record::Record;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let arguments = Arc::new(Arguments::parse());
    let record = Arc::new(Record::new(arguments.max_flows));

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.upstream_port))
        .with_context(|| format!("cannot listen on upstream port {}", arguments.upstream_port))?;
    upstream::start(listener, Arc::clone(&record), &arguments)?;
    if arguments.mode == Mode::Upstreams {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        return Ok(());
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(generator::measure(&record, &arguments))?;
    let report = report::report(&record, &arguments, &measured);
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}
