//! `weir bulk`: many runs.

use super::{ListArguments, RunState, ServerArguments, VerdictArguments, time};
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum BulkCommand {
    /// Run many runs that are over again, chosen by the options; failed ones when --status is not given.
    ///
    /// First it prints how many runs fit, which calls they would make and which effects they would send, and asks. Then
    /// the server starts them one after the other, behind live events, also when this command ends.
    #[command(after_help = "Examples:
  weir bulk replay --workflow payment-to-crm --code http_503
  weir bulk replay --code http_422 --step mail --live --since 2026-11-25T00:00:00Z")]
    Replay {
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        arguments: BulkReplayArguments,
    },
    /// Cancel many open runs, chosen by the options; all open runs when none is given.
    ///
    /// First it prints how many runs fit and how many of their effects are on their way, and asks. A canceled run begins
    /// nothing new and ends when those effects have come back.
    #[command(after_help = "Examples:
  weir bulk cancel --workflow payment-to-crm --status waiting
  weir bulk cancel --since 2026-11-25T08:00:00Z --reason 'sent by mistake'")]
    Cancel(BulkRequestArguments),
    /// Pause many open runs, chosen by the options; all open runs when none is given.
    ///
    /// First it prints how many runs fit, and asks. A paused run begins nothing new, and its time limits stand still,
    /// until `weir bulk resume` or `weir run resume`.
    Pause(BulkRequestArguments),
    /// Let many paused runs go on, chosen by the options; all paused runs when none is given.
    Resume(BulkRequestArguments),
    /// Say what became of many effects that nobody knows about, chosen by the options; all of them when none is given.
    ///
    /// First it prints how many runs and effects fit, by operation, and asks. About each the server notes the same as
    /// `weir run resolve` does about one; nothing is sent by it. `weir bulk replay --code effect_unknown` then goes on with
    /// the runs.
    #[command(after_help = "Examples:
  weir bulk resolve --not-happened --operation crm.notes.create --since 2026-11-25 --note 'their log has none of them'
  weir bulk resolve --look --workflow payment-to-crm")]
    Resolve(BulkResolveArguments),
    /// Let go of many lanes that failed runs keep; all of them when no workflow is given.
    ///
    /// First it prints how many lanes are held and how many runs wait behind them, and asks. The failed runs stay failed;
    /// to repeat them instead, which lets a lane go by its success, use `weir bulk replay`.
    Release(BulkReleaseArguments),
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

/// Runs of which workflow, from when to when.
#[derive(Debug, Args)]
pub(crate) struct RunRange {
    /// Only runs of this workflow, by name.
    #[arg(long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Only runs that started at this time or later, such as 2026-11-25T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) since: Option<String>,
    /// Only runs that started before this time.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) until: Option<String>,
}

/// How an operation is begun and followed.
#[derive(Debug, Args)]
pub(crate) struct Going {
    /// Print the operation and do not wait for its end.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Which open runs to ask something, and why.
#[derive(Debug, Args)]
pub(crate) struct BulkRequestArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Only runs in this state: queued, paused, running or waiting.
    #[arg(long, value_name = "STATE")]
    pub(crate) status: Option<RunState>,
    #[command(flatten)]
    pub(crate) range: RunRange,
    /// Why; it stands in the journals of the runs.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) going: Going,
}

/// Which lanes to let go.
#[derive(Debug, Args)]
pub(crate) struct BulkReleaseArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Only lanes of this workflow, by name.
    #[arg(long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Which effects, and what became of them.
#[derive(Debug, Args)]
pub(crate) struct BulkResolveArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    #[command(flatten)]
    pub(crate) verdict: VerdictArguments,
    /// Only effects of this operation, such as http.request.
    #[arg(long, value_name = "OPERATION")]
    pub(crate) operation: Option<String>,
    #[command(flatten)]
    pub(crate) range: RunRange,
    /// Only of runs that stopped at this step.
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Only of dead letters with this cause; `weir dead-letters list` lists them.
    #[arg(long, value_name = "CAUSE")]
    pub(crate) cause: Option<String>,
    /// Why, for those who look later.
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    #[command(flatten)]
    pub(crate) going: Going,
}

/// Which runs to replay, and how.
#[derive(Debug, Args)]
pub(crate) struct BulkReplayArguments {
    /// Only runs in this state.
    #[arg(long, value_name = "STATE", default_value = "failed")]
    pub(crate) status: RunState,
    #[command(flatten)]
    pub(crate) range: RunRange,
    /// Only runs that failed with this code.
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Only runs that failed at this step.
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Only dead letters with this cause; `weir dead-letters list` lists them.
    #[arg(long, value_name = "CAUSE")]
    pub(crate) cause: Option<String>,
    /// Begin each run at its start. Default: at the step that failed.
    #[arg(long)]
    pub(crate) from_start: bool,
    /// Begin each run at this step, by its path. Runs that never came to it are left out and told.
    #[arg(long, value_name = "STEP", conflicts_with = "from_start")]
    pub(crate) from: Option<String>,
    /// Use the version of the workflow that is published now. Default: the version that each run began on.
    #[arg(long)]
    pub(crate) live: bool,
    #[command(flatten)]
    pub(crate) going: Going,
}
