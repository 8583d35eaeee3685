//! The command line: every command, its options and its help. Parsing only; `config` decides what serving settings mean.
#![expect(
    clippy::doc_markdown,
    reason = "these comments are the help texts of the command line"
)]

mod audit;
mod bulk;
mod connection;
mod endpoint;
mod event;
mod run;
mod time;
mod workflow;

pub(crate) use audit::AuditArguments;
pub(crate) use bulk::{
    BulkCommand, BulkReleaseArguments, BulkReplayArguments, BulkRequestArguments, BulkResolveArguments,
};
pub(crate) use connection::ConnectionCommand;
pub(crate) use endpoint::{BackfillArguments, EndpointCommand};
pub(crate) use event::EventCommand;
pub(crate) use run::{ReplayArguments, ResolveArguments, RunCommand, RunState, VerdictArguments};
pub(crate) use workflow::WorkflowCommand;

use crate::config::SettingsSource;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const EXIT_CODES: &str =
    "Exit codes: 0 done · 1 failed · 2 wrong usage or settings, or port taken · 3 `apply --dry-run` found a difference.

Commands that talk to a server use WEIR_URL (http://127.0.0.1:8080) and WEIR_TOKEN. When neither is set and the folder
./weir-demo or ./weir-data belongs to a local server, its address and token are used, and a line says so.";

/// Event-driven integrations: no missed webhooks, no blind repeats, every answer on one screen.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server: webhooks in, workflows, calls out, GraphQL.
    #[command(after_help = "Settings come from flags, then the environment, then weir.toml.

Examples:
  weir serve
  weir serve --listen 0.0.0.0:8080 --public-url https://hooks.example.com
  WEIR_DATABASE_URL=postgres://weir@db/weir WEIR_MASTER_KEY=… WEIR_ADMIN_TOKEN=… weir serve")]
    Serve(Box<ServeArguments>),
    /// Run a server with simulated providers and two sample flows, to look around.
    #[command(after_help = "Examples:
  weir demo                           start it; Ctrl-C stops it
  weir demo --rate 20 --for 10        twenty events a second for ten seconds, then stop
  weir demo forge                     send a webhook with a forged signature
  weir demo crm stop                  the simulated CRM stops answering: runs wait
  weir demo crm start                 it answers again: they finish
  kill -9 $(cat weir-demo/weir.pid)   crash it; start it again and nothing is lost or doubled
  weir demo ledger                    what the simulated providers really saw")]
    Demo(DemoArguments),
    /// The simulated providers of `weir demo`, as a process of their own.
    #[command(hide = true)]
    Simulator(SimulatorArguments),
    /// Make the server's configuration what the documents say.
    #[command(
        after_help = "Values may be { env: NAME } or { file: PATH } (relative to the document); they are filled in here, on your machine.

Examples:
  weir apply -f flows/                every .yaml, .yml and .json file in the folder, one transaction
  weir apply -f flows/ --dry-run      show the difference; exit code 3 when there is one
  cat flow.yaml | weir apply -f -"
    )]
    Apply(ApplyArguments),
    /// Print the server's configuration as documents that `weir apply` takes.
    #[command(
        after_help = "Secrets are never exported: to apply the documents to another server, add `credential` to its connections and `secrets` to its
endpoints first, for example { env: STRIPE_TOKEN }.

Example:
  weir export > weir.yaml"
    )]
    Export(ServerArguments),
    /// List the events received, newest first.
    Events(EventsArguments),
    /// Start a workflow with an event that came before it was published.
    #[command(subcommand)]
    Event(EventCommand),
    /// List the runs, newest first.
    #[command(after_help = "Examples:
  weir runs --status failed
  weir runs --code http_503 --since 2026-11-25T08:00:00Z
  weir runs --workflow payment-to-crm --limit 5 --json")]
    Runs(RunsArguments),
    /// List the workflows, what starts them, and when those that the clock starts go next.
    Workflows(WorkflowsArguments),
    /// Look at a run, start one, hold or end one, retry or replay one, or decide about its effects.
    #[command(subcommand)]
    Run(RunCommand),
    /// List the decisions that people are asked for.
    Approvals(ApprovalsArguments),
    /// List the lanes that a failed run keeps until somebody has dealt with it.
    Lanes(ApprovalsArguments),
    /// Decide for what a step of a run asks.
    #[command(after_help = "Example:
  weir approve run_0abc… ok --note 'checked with the customer'")]
    Approve(DecisionArguments),
    /// Decide against what a step of a run asks.
    Reject(DecisionArguments),
    /// See why runs failed, by cause, and note what became of it.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// See versions of a workflow and what differs between them, publish, roll back.
    #[command(subcommand)]
    Workflow(WorkflowCommand),
    /// Replay many runs at once, and watch or stop that.
    #[command(subcommand)]
    Bulk(BulkCommand),
    /// List the webhook requests that were refused, and why.
    Refused(RefusedArguments),
    /// Let a connection in at its provider, or look at it: its access, what it may send, who waits, whether its provider answers.
    #[command(subcommand)]
    Connection(ConnectionCommand),
    /// See what arrived at an endpoint, what sweeps recovered, and whether anything may be missing.
    #[command(after_help = "Examples:
  weir coverage stripe
  weir coverage stripe --hours 168 --json")]
    Coverage(CoverageArguments),
    /// See an endpoint and its webhook at the provider; sweep or backfill it: find what was never delivered.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// List who changed what, newest first: the audit trail.
    #[command(after_help = "Examples:
  weir audit --action run.cancel --since 2026-11-25T08:00:00Z
  weir audit --actor ci --action workflow
  weir audit --subject run_0abc… --json")]
    Audit(AuditArguments),
    /// Work with connector manifests.
    #[command(subcommand)]
    Connector(ConnectorCommand),
    /// Bring the database schema up to date, and stop.
    #[command(
        after_help = "`weir serve` does the same at start; this command is for deployments that want it as a step of its own."
    )]
    Migrate(Box<ServeArguments>),
    /// Write the whole database, as it is at this instant, into one file; the server may go on.
    #[command(
        after_help = "The file holds everything but the master key: keep that elsewhere. It can be restored into either kind of database.

Examples:
  weir backup /backup                 a file in the folder, named by its time
  weir backup weir.backup
  docker exec weir weir backup - > weir.backup
  WEIR_DATABASE_URL=postgres://weir@db/weir weir backup /backup"
    )]
    Backup(Box<BackupArguments>),
    /// Fill an empty database from a file that `weir backup` wrote, all or nothing.
    #[command(
        after_help = "Runs that were open go on when the server starts. The master key is not in the backup.

Examples:
  weir restore weir.backup
  weir restore /backup                the newest in the folder
  WEIR_DATABASE_URL=postgres://weir@db/new weir restore weir.backup"
    )]
    Restore(Box<BackupArguments>),
    /// Manage API tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Ask a server whether it is ready; for containers. Exit code 0 when it is.
    Healthcheck(HealthcheckArguments),
    /// Check settings, keys, database and clock, and say what is wrong.
    Doctor(Box<ServeArguments>),
}

/// `weir serve`, `weir migrate`, `weir doctor`.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// File with settings; the names are those of the flags, with underscores. Default: ./weir.toml when it exists.
    #[arg(long, env = "WEIR_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: SettingsSource,
}

/// `weir backup`, `weir restore`.
#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// A file, or a folder of backups; `backup` also takes - for standard output.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) target: PathBuf,
    #[command(flatten)]
    pub(crate) serve: ServeArguments,
}

/// `weir coverage`.
#[derive(Debug, Args)]
pub(crate) struct CoverageArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Name of the endpoint.
    #[arg(value_name = "ENDPOINT")]
    pub(crate) endpoint: String,
    /// How many hours back, at most 2160.
    #[arg(long, default_value_t = 24, value_name = "HOURS")]
    pub(crate) hours: u32,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which server, as whom.
#[derive(Debug, Args, Clone, Default)]
pub(crate) struct ServerArguments {
    #[arg(
        long,
        env = "WEIR_URL",
        value_name = "URL",
        help = "Address of the server. Default: http://127.0.0.1:8080"
    )]
    pub(crate) url: Option<String>,
    /// API token. Prefer the environment: flags can be seen by other users of the machine.
    #[arg(long, env = "WEIR_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    #[command(subcommand)]
    pub(crate) command: Option<DemoCommand>,
    #[command(flatten)]
    pub(crate) folder: DemoFolder,
    /// Payments per second; deals are won half as often.
    #[arg(long, default_value_t = 1.0, value_name = "PER_SECOND")]
    pub(crate) rate: f64,
    /// Stop after so many seconds; for scripts. Default: run until Ctrl-C.
    #[arg(long = "for", value_name = "SECONDS")]
    pub(crate) seconds: Option<u64>,
    /// Address to listen on; when its port is taken the next free one is used. Port 0 takes any.
    #[arg(long, env = "WEIR_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub(crate) listen: String,
}

/// Where the demo lives.
#[derive(Debug, Args, Clone)]
pub(crate) struct DemoFolder {
    /// Data folder of the demo.
    #[arg(long, default_value = "weir-demo", value_name = "DIR", global = true)]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DemoCommand {
    /// Send a webhook with a forged signature and show what became of it.
    Forge,
    /// Stop or start the simulated CRM.
    Crm {
        /// What to do with it.
        action: CrmAction,
    },
    /// Print what the simulated providers really saw: events, effects, repeats.
    Ledger {
        /// Machine-readable output.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CrmAction {
    /// Calls to it fail from now on; runs wait and retry.
    Stop,
    /// It answers again.
    Start,
}

#[derive(Debug, Args)]
pub(crate) struct SimulatorArguments {
    /// Data folder of the demo the simulated providers belong to.
    #[arg(long)]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// A file, a folder (its .yaml, .yml and .json files, by name) or - for standard input. May be given several times.
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE|DIR|-")]
    pub(crate) files: Vec<PathBuf>,
    /// Change nothing; exit with 3 when something would change.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How much a list shows, and how.
#[derive(Debug, Args, Clone)]
pub(crate) struct ListArguments {
    /// At most so many, 1 to 1000.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "COUNT")]
    pub(crate) limit: u32,
    /// One JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    #[command(flatten)]
    pub(crate) list: ListArguments,
    /// Only events of this type, e.g. payment_intent.succeeded.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct WorkflowsArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// One JSON document per line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunsArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    #[command(flatten)]
    pub(crate) list: ListArguments,
    /// Only runs in this state. May be given several times.
    #[arg(long, value_name = "STATE")]
    pub(crate) status: Vec<RunState>,
    /// Only runs of this workflow, by name.
    #[arg(long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,
    /// Only runs of this event, replays included: its id in Weir, as `weir events` lists it.
    #[arg(long, value_name = "EVENT")]
    pub(crate) event: Option<String>,
    /// Only runs that failed with this code, such as http_503.
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Only runs that started at this time or later, such as 2026-11-25T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) since: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ApprovalsArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    #[command(flatten)]
    pub(crate) list: ListArguments,
}

#[derive(Debug, Args)]
pub(crate) struct DecisionArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// The run that waits.
    #[arg(value_name = "RUN")]
    pub(crate) id: String,
    /// Path of the step that asks; `weir approvals` shows it.
    #[arg(value_name = "STEP")]
    pub(crate) step: String,
    /// What to say about it; the workflow sees it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List the causes for which runs failed, the last failed first.
    List {
        #[command(flatten)]
        server: ServerArguments,
        /// Only those of this workflow, by name.
        #[arg(long, value_name = "NAME")]
        workflow: Option<String>,
        /// Only those that stand here.
        #[arg(long, value_name = "STATE", default_value = "open")]
        state: DeadLetterState,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Show one cause with its last runs.
    Show {
        #[command(flatten)]
        server: ServerArguments,
        /// The cause, e.g. cause_01h2….
        #[arg(value_name = "CAUSE")]
        id: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Note that it is taken care of, that nobody has to, or that it is open again.
    #[command(after_help = "Example:
  weir dead-letters mark cause_0abc… resolved --note 'the key was renewed'")]
    Mark {
        #[command(flatten)]
        server: ServerArguments,
        /// The cause.
        #[arg(value_name = "CAUSE")]
        id: String,
        /// What to note. What is resolved opens again when another run fails for the same cause; what is ignored does not.
        #[arg(value_name = "MARK")]
        mark: DeadLetterState,
        /// Why, for those who look later.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeadLetterState {
    Open,
    Resolved,
    Ignored,
}

impl DeadLetterState {
    /// The name in GraphQL.
    pub(crate) fn wire(self) -> &'static str {
        match self {
            DeadLetterState::Open => "OPEN",
            DeadLetterState::Resolved => "RESOLVED",
            DeadLetterState::Ignored => "IGNORED",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RefusedArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    #[command(flatten)]
    pub(crate) list: ListArguments,
    /// Only requests to this endpoint, by name.
    #[arg(long, value_name = "NAME")]
    pub(crate) endpoint: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectorCommand {
    /// Begin a connector: write a folder that works, to be changed line by line.
    #[command(
        after_help = "The folder holds a manifest, signed requests with their verdicts, an event, documents to try it with, and a
README that says how. Nothing that is there is written over.

Example:
  weir connector new acme
  weir connector check acme && weir connector test acme && weir apply -f acme"
    )]
    New {
        /// The connector's name: lower-case words joined by hyphens.
        #[arg(value_name = "NAME")]
        name: String,
        /// Where to make the folder.
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Read manifests (or every manifest of a folder) and print what is wrong with them.
    #[command(
        after_help = "Each problem is told with its file and line, its JSON pointer, the reason, and the valid word that was probably
meant. The exit code is 1 when something is wrong. No server is asked.

Examples:
  weir connector check connectors/acme.yaml
  weir connector check connectors/ --json"
    )]
    Check {
        /// Manifests, or folders of manifests.
        #[arg(value_name = "FILE|DIR", required = true)]
        paths: Vec<PathBuf>,
        /// Print one JSON object per manifest.
        #[arg(long)]
        json: bool,
    },
    /// List the versions of connectors that were published, with what is pinned to each.
    #[command(after_help = "Manifests are published by `weir apply -f FILE|DIR`.")]
    List {
        #[command(flatten)]
        server: ServerArguments,
        /// Those of this connector alone.
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Print one JSON object per version.
        #[arg(long)]
        json: bool,
    },
    /// Delete a published version that nothing is pinned to.
    #[command(after_help = "Example:
  weir connector delete acme@1.2.0")]
    Delete {
        #[command(flatten)]
        server: ServerArguments,
        /// The connector and its version.
        #[arg(value_name = "NAME@VERSION")]
        reference: String,
    },
    /// Run the request vectors of a folder against its manifests: one line per vector, with the reason of each refusal.
    #[command(
        after_help = "The folder holds manifests (*.yaml) and vector files (*vectors*.json), in itself or in its folder `cases`.
The vectors of a provider run
against the manifest of that name; when there is one manifest and no vector names it, all run against it, as do
vectors without a provider. Nothing is sent or fetched. The exit code is 1 when a vector has another verdict than it
states, or could not run.

Example:
  weir connector test connectors/acme"
    )]
    Test {
        /// A folder with manifests and vectors.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make an API token. It is printed once and stored only as a hash.
    Create {
        #[command(flatten)]
        server: ServerArguments,
        /// What it is for; shown in lists.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it may do: config-read, config-write, secret-write, run-read, run-operate, run-approve, payload-read,
        /// token-admin, audit-read, metrics-read. May be given several times; default: everything its maker may do.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Days until it stops working. Default: it does not.
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct HealthcheckArguments {
    #[arg(
        long,
        env = "WEIR_URL",
        value_name = "URL",
        help = "Address of the server. Default: the one it listens on (WEIR_LISTEN), else http://127.0.0.1:8080"
    )]
    pub(crate) url: Option<String>,
    /// What the server was told to listen on.
    #[arg(long, env = "WEIR_LISTEN", value_name = "ADDRESS", hide = true)]
    pub(crate) listen: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
