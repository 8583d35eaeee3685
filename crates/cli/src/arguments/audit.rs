//! `weir audit`.

use super::{ListArguments, ServerArguments, time};
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    #[command(flatten)]
    pub(crate) list: ListArguments,
    /// Only what was done at this time or later, such as 2026-11-25T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) since: Option<String>,
    /// Only what was done before this time.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) until: Option<String>,
    /// Only what this one did: admin, a token's name or id, system, provider.
    #[arg(long, value_name = "WHO")]
    pub(crate) actor: Option<String>,
    /// Only this action, such as run.cancel, or all of a kind, such as run.
    #[arg(long, value_name = "ACTION")]
    pub(crate) action: Option<String>,
    /// Only what was done to this: the id of a run, the name of a workflow or another part of the configuration.
    #[arg(long, value_name = "WHAT")]
    pub(crate) subject: Option<String>,
}
