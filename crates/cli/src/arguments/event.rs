//! `weir event`: one event.

use super::ServerArguments;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// Start a workflow with an event that is stored already, as if the workflow had been there when it came.
    #[command(
        after_help = "Its trigger must fit the event. When a run of it worked on the event already, replay that one.

Example:
  weir event start evt_0abc… --workflow payment-to-crm"
    )]
    Start {
        #[command(flatten)]
        server: ServerArguments,
        /// The event; `weir events` lists them.
        #[arg(value_name = "EVENT")]
        id: String,
        /// Name of the workflow.
        #[arg(long, value_name = "NAME")]
        workflow: String,
    },
}
