//! `weir endpoint`: what there is, sweeps and backfills.

use super::{ServerArguments, time};
use clap::{Args, Subcommand};

/// `weir endpoint`.
#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// See its URL, how it is verified, and where its webhook stands at the provider.
    #[command(after_help = "Example:
  weir endpoint show stripe")]
    Show {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the endpoint.
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Sweep it now, and say what was found.
    #[command(after_help = "Example:
  weir endpoint sweep stripe")]
    Sweep {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the endpoint.
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
    },
    /// Take in what its provider lists for a chosen past range, at low priority.
    ///
    /// First it prints the range, how far back it may begin, and which workflows would take the events, and asks. Then the
    /// server reads the list by itself, behind live events, also when this command ends. What arrived already is known
    /// again and starts nothing.
    #[command(after_help = "Examples:
  weir endpoint backfill stripe --since 2026-11-01 --dry-run
  weir endpoint backfill stripe --since 2026-11-01T00:00:00Z --until 2026-11-15T00:00:00Z --yes --detach")]
    Backfill(BackfillArguments),
    /// List its backfills and how far they are, newest first.
    Backfills {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the endpoint.
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let its backfill stand still.
    PauseBackfill {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the endpoint.
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
    },
    /// Let its paused backfill go on, or try one again at once that waits after a failed try.
    ResumeBackfill {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the endpoint.
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
    },
    /// End its backfill; what is stored stays.
    StopBackfill {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the endpoint.
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
    },
}

/// Which range of which endpoint.
#[derive(Debug, Args)]
pub(crate) struct BackfillArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Name of the endpoint.
    #[arg(value_name = "ENDPOINT")]
    pub(crate) endpoint: String,
    /// Events that happened at this time or later, such as 2026-11-25T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) since: String,
    /// Events that happened before this time. Default: now.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) until: Option<String>,
    /// Print what it would do, and begin nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the backfill and do not wait for its end.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}
