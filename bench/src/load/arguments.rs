//! The command line of `weir-load`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// How webhooks are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Each connection sends its next webhook when the last one was answered.
    Closed,
    /// Webhooks are due at fixed instants, whatever the server does; latency counts from the due instant.
    Open,
    /// Runs `--run`, then sends a webhook every 10 ms until a flow is complete.
    ColdStart,
    /// Sends nothing: the upstreams answer until standard input ends.
    Upstreams,
}

/// Drives a server through the hydrate flow: webhook in, one GET, one POST.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Copied into the report.
    #[arg(long, default_value = "")]
    pub label: String,
    #[arg(long, value_enum, default_value = "closed")]
    pub mode: Mode,
    /// Where webhooks go: http://127.0.0.1:PORT/PATH. Given several times, the connections of a closed loop are dealt out
    /// among them; the other modes take the first.
    #[arg(long, required = true)]
    pub url: Vec<Target>,
    /// Secret of the Stripe-Signature header; without it requests are not signed.
    #[arg(long)]
    pub secret: Option<String>,
    /// Port of the fake payment API and the fake CRM on 127.0.0.1.
    #[arg(long, default_value_t = 9900)]
    pub upstream_port: u16,
    /// How long the payment API holds each GET, in milliseconds.
    #[arg(long, default_value_t = 5)]
    pub get_delay_ms: u64,
    /// Connections (closed), most connections at once (open).
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub connections: u32,
    /// Webhooks per second in open mode.
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Seconds before the measured window.
    #[arg(long, default_value_t = 3.0)]
    pub warm_up_s: f64,
    /// Length of the measured window in seconds; in cold-start mode the longest wait.
    #[arg(long, default_value_t = 20.0)]
    pub duration_s: f64,
    /// Most webhooks of one run; also the memory that is set aside.
    #[arg(long, default_value_t = 1_000_000)]
    pub max_flows: usize,
    /// Only the answers count: nothing is expected to reach the CRM.
    #[arg(long)]
    pub ack_only: bool,
    /// The CRM honours Idempotency-Key: a repeat with the key of the first call changes nothing.
    #[arg(long)]
    pub crm_keys: bool,
    /// File with the process id of the server under test (first line); its whole tree is measured.
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// The same for a database server beside it; only its CPU is reported.
    #[arg(long)]
    pub database_pid_file: Option<PathBuf>,
    /// Shell command: starts the server (cold-start), or kills and restarts it (closed, open).
    #[arg(long)]
    pub run: Option<String>,
    /// When `--run` happens, in seconds after the first webhook; sending ends half a second later.
    #[arg(long, default_value_t = 8.0)]
    pub run_at_s: f64,
    /// Give up on open flows after so many seconds without a CRM call.
    #[arg(long, default_value_t = 10.0)]
    pub drain_idle_s: f64,
}

impl Arguments {
    /// Where the connection with this number sends to.
    pub(crate) fn target(&self, connection: usize) -> &Target {
        let at = connection.checked_rem(self.url.len()).unwrap_or(0);
        self.url.get(at).expect("clap requires one")
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_s)
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.duration_s)
    }
}

/// A loopback URL, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub address: SocketAddr,
    pub path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or("must start with http://")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address: SocketAddr = authority.parse().map_err(|error| format!("{authority}: {error}"))?;
        if !address.ip().is_loopback() {
            return Err(format!("{} is not a loopback address", address.ip()));
        }
        Ok(Self {
            address,
            path: format!("/{path}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_targets_are_taken() {
        let target: Target = "http://127.0.0.1:8080/hooks/main/bench".parse().unwrap();
        assert_eq!(
            (target.address.port(), target.path.as_str()),
            (8080, "/hooks/main/bench")
        );
        for refused in [
            "https://127.0.0.1:1/",
            "http://192.0.2.1:80/",
            "http://localhost:1/",
            "127.0.0.1:1",
        ] {
            assert!(refused.parse::<Target>().is_err(), "{refused}");
        }
    }
}
