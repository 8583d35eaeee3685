//! `weir workflow`: one workflow.

use super::ServerArguments;
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum WorkflowCommand {
    /// List the versions, newest first.
    Versions {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the workflow.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Show what differs between two versions, step by step.
    #[command(
        after_help = "Without versions: what is live and the draft, or else the version before and what is live."
    )]
    Diff {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the workflow.
        #[arg(value_name = "NAME")]
        name: String,
        /// Number of the older version.
        #[arg(value_name = "A")]
        from: Option<u32>,
        /// Number of the newer version.
        #[arg(value_name = "B")]
        to: Option<u32>,
        /// As a unified diff of the documents.
        #[arg(long)]
        text: bool,
    },
    /// Keep workflows as drafts: their shape is checked, and they take no events until they are published.
    #[command(
        after_help = "What is live goes on unchanged. What a draft names need not exist yet; publishing checks that.

Example:
  weir workflow draft -f flows/payment-to-crm.yaml
  weir workflow diff payment-to-crm
  weir workflow publish payment-to-crm"
    )]
    Draft {
        #[command(flatten)]
        server: ServerArguments,
        /// A file, a folder (its .yaml, .yml and .json files, by name) or - for standard input. May be given several times.
        #[arg(short = 'f', long = "file", required = true, value_name = "FILE|DIR|-")]
        files: Vec<PathBuf>,
    },
    /// Publish the draft.
    Publish {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the workflow.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Publish an older version again, as a new version with its content.
    RollBack {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the workflow.
        #[arg(value_name = "NAME")]
        name: String,
        /// Number of the version.
        #[arg(value_name = "VERSION")]
        version: u32,
    },
    /// Throw the draft away.
    DiscardDraft {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the workflow.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Have what arrives wait: it is kept and acknowledged, and its runs begin when the workflow is resumed.
    #[command(
        after_help = "Its schedule does not fire meanwhile. Runs that were accepted before go on; `weir bulk pause --workflow NAME` holds
those. `weir apply` leaves the workflow paused.

Example:
  weir workflow pause payment-to-crm --reason 'the CRM is being moved'"
    )]
    Pause {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the workflow.
        #[arg(value_name = "NAME")]
        name: String,
        /// Why, for those who look at it later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let it go on: the runs that waited begin, in the order in which their events came.
    Resume {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the workflow.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Delete it. Runs that it had keep its name and stay as long as others.
    #[command(after_help = "Refused while runs of it are not over, unless --cancel-open-runs is given.")]
    Delete {
        #[command(flatten)]
        server: ServerArguments,
        /// Name of the workflow.
        #[arg(value_name = "NAME")]
        name: String,
        /// Ask its runs that are not over to end.
        #[arg(long)]
        cancel_open_runs: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}
