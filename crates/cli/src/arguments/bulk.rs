//! `weir bulk`: many runs.

use super::{ListArguments, RunState, ServerArguments};
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum BulkCommand {
    /// Replay every run that fits, after showing in sum what would happen. It goes on in the server, behind live events.
    #[command(after_help = "Examples:
  weir bulk replay --workflow payment-to-crm --code http_503
  weir bulk replay --code http_422 --step mail --live --since 2026-11-25T00:00:00Z")]
    Replay {
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        arguments: BulkReplayArguments,
    },
    /// Ask every open run that fits to end, after showing which they are and which effects are on their way. Nothing
    /// new is begun; those effects are waited for.
    #[command(after_help = "Examples:
  weir bulk cancel --workflow payment-to-crm --status waiting
  weir bulk cancel --since 2026-11-25T08:00:00Z --reason 'sent by mistake'")]
    Cancel(BulkRequestArguments),
    /// Have every open run that fits stand still, and its time limits with it.
    Pause(BulkRequestArguments),
    /// Let every paused run that fits go on.
    Resume(BulkRequestArguments),
    /// List operations on many runs.
    List {
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        list: ListArguments,
    },
    /// Show how far an operation is, and what was left out.
    Show {
        #[command(flatten)]
        server: ServerArguments,
        /// The operation, e.g. bulk_01h2….
        #[arg(value_name = "OPERATION")]
        id: String,
        /// Follow it to its end.
        #[arg(long)]
        wait: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stop an operation: no further run has its turn, what was started goes on.
    Stop {
        #[command(flatten)]
        server: ServerArguments,
        /// The operation.
        #[arg(value_name = "OPERATION")]
        id: String,
    },
}

/// Which open runs to ask something, and why.
#[derive(Debug, Args)]
pub(crate) struct BulkRequestArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Only runs in this state: queued, paused, running or waiting.
    #[arg(long, value_name = "STATE")]
    pub(crate) status: Option<RunState>,
    /// Only runs of this workflow, by name.
    #[arg(long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Only runs that started at this time or later, such as 2026-11-25T08:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only runs that started before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Why; it stands in the journals of the runs.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Print the operation and do not wait for its end.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Which runs to replay, and how.
#[derive(Debug, Args)]
pub(crate) struct BulkReplayArguments {
    /// Only runs in this state.
    #[arg(long, value_name = "STATE", default_value = "failed")]
    pub(crate) status: RunState,
    /// Only runs of this workflow, by name.
    #[arg(long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Only runs that failed with this code.
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Only runs that failed at this step.
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Only dead letters with this cause; `weir dead-letters list` lists them.
    #[arg(long, value_name = "CAUSE")]
    pub(crate) cause: Option<String>,
    /// Only runs that started at this time or later, such as 2026-11-25T08:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only runs that started before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// From the start, not from the failed step.
    #[arg(long)]
    pub(crate) from_start: bool,
    /// On the version that is published now, not on the one each run was pinned to.
    #[arg(long)]
    pub(crate) live: bool,
    /// Print the operation and do not wait for its end.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}
