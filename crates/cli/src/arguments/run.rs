//! `weir run`: one run.

use super::ServerArguments;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunState {
    Queued,
    Paused,
    Running,
    Waiting,
    Succeeded,
    Failed,
    Canceled,
    Merged,
}

impl RunState {
    /// The name of the state in GraphQL.
    pub(crate) fn wire(self) -> &'static str {
        match self {
            RunState::Queued => "QUEUED",
            RunState::Paused => "PAUSED",
            RunState::Running => "RUNNING",
            RunState::Waiting => "WAITING",
            RunState::Succeeded => "SUCCEEDED",
            RunState::Failed => "FAILED",
            RunState::Canceled => "CANCELED",
            RunState::Merged => "MERGED",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// Tell the whole story of a run: event, reads, steps, attempts, exchanges, effects.
    #[command(after_help = "Example:
  weir run show run_0abc… --bodies")]
    Show {
        #[command(flatten)]
        server: ServerArguments,
        /// The run, e.g. run_01h2….
        #[arg(value_name = "RUN")]
        id: String,
        /// Print request and response bodies (redacted) as well.
        #[arg(long)]
        bodies: bool,
        /// The story as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Start a run of a workflow: of a manual trigger with its input, of an event trigger with an event's data.
    #[command(after_help = "Example:
  weir run start refund --input '{\"payment\": \"pi_1\"}'")]
    Start {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the workflow.
        #[arg(value_name = "WORKFLOW")]
        workflow: String,
        /// The input, JSON.
        #[arg(long, default_value = "{}", value_name = "JSON")]
        input: String,
        /// Two starts with the same key are one run.
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// Ask a run to end: nothing new is begun, effects that are on their way are waited for.
    Cancel {
        #[command(flatten)]
        server: ServerArguments,
        /// The run to end.
        #[arg(value_name = "RUN")]
        id: String,
        /// Why, for those who look at it later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Have a run stand still: nothing new is begun, and its time limits stand still with it.
    Pause {
        #[command(flatten)]
        server: ServerArguments,
        /// The run to hold.
        #[arg(value_name = "RUN")]
        id: String,
        /// Why, for those who look at it later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let a run go on that stands still.
    Resume {
        #[command(flatten)]
        server: ServerArguments,
        /// The run that may go on.
        #[arg(value_name = "RUN")]
        id: String,
    },
    /// Have steps that wait for their next tries make them now, such as after the other side is back; a `sleep` goes on.
    #[command(
        after_help = "A look for an effect that may be under way waits until that is sure to be over.
Example:
  weir run wake run_0abc…"
    )]
    Wake {
        #[command(flatten)]
        server: ServerArguments,
        /// The run that waits.
        #[arg(value_name = "RUN")]
        id: String,
    },
    /// Let the lane go on that a failed run keeps (`on_block: hold`); the run stays as it is.
    Release {
        #[command(flatten)]
        server: ServerArguments,
        /// The failed run; `weir lanes` shows it.
        #[arg(value_name = "RUN")]
        id: String,
    },
    /// Say what became of an effect whose fate nobody knows. Nothing is sent by it; retry the run afterwards.
    #[command(after_help = "Examples:
  weir run resolve run_0abc… --look
  weir run resolve run_0abc… pay --happened --output '{\"id\": \"re_1\"}' --note 'seen in the dashboard'
  weir run resolve run_0abc… pay --not-happened")]
    Resolve {
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        arguments: ResolveArguments,
    },
    /// Run a failed run again from the failed step, after showing what would happen.
    #[command(
        after_help = "What came before is taken over as it was; effects that are known to have happened are not sent again.
Examples:
  weir run retry run_0abc…
  weir run retry run_0abc… --live --yes
  weir run retry run_0abc… --body fixed.json"
    )]
    Retry {
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        arguments: ReplayArguments,
    },
    /// Run it again from the start, after showing what would happen.
    #[command(after_help = "Effects that are known to have happened are answered from their record, not sent again.")]
    Replay {
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        arguments: ReplayArguments,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArguments {
    /// The run to repeat.
    #[arg(value_name = "RUN")]
    pub(crate) id: String,
    /// Begin at this step; what came before is taken over as it was.
    #[arg(long, value_name = "STEP")]
    pub(crate) from: Option<String>,
    /// On the version that is published now, not on the one the run was pinned to.
    #[arg(long)]
    pub(crate) live: bool,
    /// A file with what stands in the place of the event's body, JSON; - for standard input.
    #[arg(long, value_name = "FILE|-")]
    pub(crate) body: Option<PathBuf>,
    /// Also when the run was replayed before; the preview says by which run, and how that came out.
    #[arg(long)]
    pub(crate) again: bool,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResolveArguments {
    /// The run that ended with `effect_unknown`.
    #[arg(value_name = "RUN")]
    pub(crate) id: String,
    /// Path of the step, as `weir run show` tells it. Default: the only one that is unknown.
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    #[command(flatten)]
    pub(crate) verdict: VerdictArguments,
    /// With --happened: what later steps see as its output, JSON. Default: null.
    #[arg(long, value_name = "JSON", requires = "happened")]
    pub(crate) output: Option<String>,
    /// Why, for those who look later.
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
}

/// What became of it.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct VerdictArguments {
    /// It took place: it is never sent again.
    #[arg(long)]
    pub(crate) happened: bool,
    /// It did not take place: the next retry sends it. What undoes a step is sent when a run undoes that again.
    #[arg(long)]
    pub(crate) not_happened: bool,
    /// Let Weir ask the provider, where the connector says how.
    #[arg(long)]
    pub(crate) look: bool,
}

impl VerdictArguments {
    /// Its name in GraphQL.
    pub(crate) fn wire(&self) -> &'static str {
        match (self.happened, self.not_happened) {
            (true, _) => "HAPPENED",
            (false, true) => "NOT_HAPPENED",
            (false, false) => "LOOK",
        }
    }
}
