//! `weir-bare`: the hydrate flow with the same I/O as Weir and no engine, the yardstick of every ratio.
//!
//! ```text
//! POST ─► verify the signature ─► event row committed ─► 200 ─► GET ─► step row committed ─► POST ─► step row committed
//! ```
//! It never recovers, retries or checks anything twice: what Weir costs on top of it is the price of that.

mod entity;
mod server;
mod store;

use std::path::PathBuf;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The hydrate flow in a plain program: durable at every step, but with no engine.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// Port on 127.0.0.1; webhooks go to /hooks/main/bench.
    #[arg(long, default_value_t = 9800)]
    port: u16,
    /// `sqlite://PATH` or `postgres://USER@HOST:PORT/DATABASE`.
    #[arg(long)]
    database_url: String,
    /// Secret of the Stripe-Signature header; requests without a right signature are refused.
    #[arg(long)]
    secret: String,
    /// Where both upstreams are.
    #[arg(long, default_value = "http://127.0.0.1:9900")]
    upstream: String,
    /// Answer only: no flow follows.
    #[arg(long)]
    ack_only: bool,
    /// Accepted but unfinished flows before the next answer is held back.
    #[arg(long, default_value_t = 1024)]
    max_open: usize,
    /// Written when the port is open.
    #[arg(long)]
    pid_file: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // The writer has a runtime of its own, so that a commit never waits behind requests.
    let writer_runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("writer")
        .enable_all()
        .build()?;
    let (store, writers) = writer_runtime.block_on(store::open(&arguments.database_url))?;
    server::serve(&arguments, store)?;
    // The server's end dropped the last sender: the writers finish what is queued and close the database.
    writer_runtime.block_on(writers.finish())
}
