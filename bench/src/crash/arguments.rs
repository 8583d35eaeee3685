//! The command line of `weir-crash`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// What the CRM offers against doubled effects, and how the flow reads the payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// The CRM honours Idempotency-Key; the read is a step.
    Keys,
    /// The CRM honours Idempotency-Key; the read is made by hydration.
    Hydrate,
    /// The CRM offers nothing: each request that it takes changes something.
    Blind,
    /// No keys, but a consistent search: the connector says how to look for the effect.
    FindBy,
    /// The CRM honours Idempotency-Key; the flow waits for a run, for a second event and for a person before its effect.
    Waits,
}

impl Mode {
    pub(crate) const ALL: [Mode; 5] = [Mode::Keys, Mode::Hydrate, Mode::Blind, Mode::FindBy, Mode::Waits];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Keys => "keys",
            Mode::Hydrate => "hydrate",
            Mode::Blind => "blind",
            Mode::FindBy => "find_by",
            Mode::Waits => "waits",
        }
    }

    /// Whether the CRM folds requests with the same key.
    pub(crate) fn honours_keys(self) -> bool {
        match self {
            Mode::Keys | Mode::Hydrate | Mode::Waits => true,
            Mode::Blind | Mode::FindBy => false,
        }
    }

    /// Whether an effect may end as `unknown`: only where the provider gives no means to find out.
    pub(crate) fn allows_unknown(self) -> bool {
        match self {
            Mode::Blind => true,
            Mode::Keys | Mode::Hydrate | Mode::FindBy | Mode::Waits => false,
        }
    }

    /// Whether the flow waits for a second event about the same payment, and for people.
    pub(crate) fn waits(self) -> bool {
        self == Mode::Waits
    }
}

/// Kills `weir serve` and its database under load, again and again, and counts what was lost or doubled.
///
/// Exit code 0: nothing was violated; 1: something was; 2: wrong usage.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// The executable under test.
    #[arg(long)]
    pub weir: PathBuf,
    /// Folder with hydrate-flow.yaml and hydrate-always.yaml.
    #[arg(long, default_value = "bench")]
    pub documents: PathBuf,
    /// Folder for data folders, databases and logs; kept when something was violated.
    #[arg(long)]
    pub scratch: PathBuf,
    /// Where the JSON report goes.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Rounds per database, spread over the modes; 0: only the external kit.
    #[arg(long, default_value_t = 20)]
    pub rounds: u32,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Mode::ALL)]
    pub modes: Vec<Mode>,
    /// Leaves the rounds on SQLite out.
    #[arg(long)]
    pub without_sqlite: bool,
    /// Leaves the rounds on PostgreSQL out.
    #[arg(long)]
    pub without_postgres: bool,
    /// A PostgreSQL to make databases in; without it the rounds on PostgreSQL are left out.
    #[arg(long, requires_all = ["postgres_stop", "postgres_start"])]
    pub postgres_url: Option<String>,
    /// Shell command that stops that PostgreSQL as a crash would (`pg_ctl stop -m immediate`).
    #[arg(long)]
    pub postgres_stop: Option<String>,
    /// Shell command that starts it again and waits until it answers.
    #[arg(long)]
    pub postgres_start: Option<String>,
    /// Decides kill times and delays. Default: the clock; it is printed.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Connections that send webhooks, each the next one as soon as the last is answered.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub connections: u32,
    /// Shortest and longest load before the kill, in milliseconds.
    #[arg(long, default_value_t = 800)]
    pub load_min_ms: u64,
    #[arg(long, default_value_t = 3_000)]
    pub load_max_ms: u64,
    /// How long the load goes on after the restart, in milliseconds.
    #[arg(long, default_value_t = 700)]
    pub load_after_ms: u64,
    /// Most webhooks of one round.
    #[arg(long, default_value_t = 30_000)]
    pub max_flows: usize,
    /// From the restart to the first end of a run that was open at the kill, at most.
    #[arg(long, default_value_t = 5_000)]
    pub recovery_limit_ms: u64,
    /// How long a round may take to finish what it accepted, in seconds.
    #[arg(long, default_value_t = 120)]
    pub drain_limit_s: u64,
    /// Three nodes on PostgreSQL in a storm of kills, stops and cuts, instead of rounds.
    #[arg(long, requires = "postgres_url")]
    pub torture: bool,
    /// Events of each storm.
    #[arg(long, default_value_t = 10_000)]
    pub storm_flows: usize,
    /// Events per second, in storms and while the CRM is away.
    #[arg(long, default_value_t = 50)]
    pub storm_rate: u32,
    /// How long the CRM is away, in seconds.
    #[arg(long, default_value_t = 180)]
    pub away_s: u64,
    /// An external load generator (hydrate-bench) to run the same crash with.
    #[arg(long)]
    pub kit: Option<PathBuf>,
    /// Rounds per database with the external load generator.
    #[arg(long, default_value_t = 5)]
    pub kit_rounds: u32,
}

impl Arguments {
    pub(crate) fn drain_limit(&self) -> Duration {
        Duration::from_secs(self.drain_limit_s)
    }
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
