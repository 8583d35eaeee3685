//! The same crash with an external load generator, which judges by its own account.
//!
//! It owns load and upstreams; this only keeps the server running: whenever it is killed, it is started again at once.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::arguments::{Arguments, Mode};
use crate::campaign::{Backend, documents, install};
use crate::chance::Chance;
use crate::load::SECRET;
use crate::report;
use crate::server::{Installation, Server};

/// One JSON object as the generator printed it, with the figures that must be 0.
#[derive(Debug, serde::Serialize)]
pub(crate) struct KitRound {
    pub database: &'static str,
    pub number: u32,
    pub exec_at_ms: u64,
    pub violations: Vec<String>,
    pub result: Value,
}

/// Runs `kit_rounds` rounds with `kit`.
pub(crate) async fn run(
    arguments: &Arguments,
    kit: &Path,
    backend: Backend,
    chance: &Chance,
) -> anyhow::Result<Vec<KitRound>> {
    let (installation, _) = install(arguments, backend, "kit").await?;
    let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let mut server = installation.start()?;
    server.ready().await?;
    let file = installation.folder.join("flow.yaml");
    let upstream = format!("http://127.0.0.1:{port}");
    std::fs::write(&file, documents(&arguments.documents, Mode::Keys, &upstream)?)?;
    installation.apply(&file).await?;

    let pid_file = installation.folder.join("weir.pid");
    let mut rounds = Vec::new();
    for number in 0..arguments.kit_rounds {
        let exec_at_ms = chance
            .branch(2000 + u64::from(number))
            .between(arguments.load_min_ms, arguments.load_max_ms);
        let id = server.process_id().context("weir is not running")?;
        std::fs::write(&pid_file, id.to_string())?;
        let kit = Command::new(kit)
            .args(["--mode", "closed", "--warmup-s", "0", "--crm-keys", "--stop-on-exec"])
            .args(["--sign-secret", SECRET])
            .args(["--conns", &arguments.connections.to_string()])
            .args(["--duration-s", &(exec_at_ms / 1000 + 5).to_string()])
            .args(["--exec-at-s", &format!("{:.3}", exec_at_ms as f64 / 1e3)])
            .args(["--exec", &format!("kill -9 {id}")])
            .args(["--upstream-port", &port.to_string()])
            .arg("--url")
            .arg(format!("http://{}/hooks/main/bench", installation.address))
            .arg("--pid-file")
            .arg(&pid_file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let (output, restarted) = tokio::join!(kit, restart(&installation, server));
        server = restarted?;
        let round = judge(backend.name(), number, exec_at_ms, &output?.stdout)?;
        report::kit_round(&round)?;
        rounds.push(round);
    }
    server.kill().await?;
    Ok(rounds)
}

async fn restart(installation: &Installation, server: Server) -> anyhow::Result<Server> {
    server.gone().await?;
    let mut server = installation.start()?;
    server.ready().await?;
    Ok(server)
}

fn judge(database: &'static str, number: u32, exec_at_ms: u64, output: &[u8]) -> anyhow::Result<KitRound> {
    let text = String::from_utf8_lossy(output);
    let result: Value = text
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())
        .context("the load generator printed no result")?;
    ensure!(result.get("lost").is_some(), "the result has no field `lost`");
    let violations = ["lost", "dup_ids", "bad_body", "keyless_crm_calls"]
        .into_iter()
        .filter_map(|field| {
            let count = result.get(field)?.as_u64().filter(|count| *count > 0)?;
            Some(format!("{field} = {count}"))
        })
        .collect();
    Ok(KitRound {
        database,
        number,
        exec_at_ms,
        violations,
        result,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_or_doubled_event_is_a_violation() {
        let violations = |text: &str| judge("sqlite", 0, 1, text.as_bytes()).map(|round| round.violations);
        assert!(violations(r#"{"lost":0,"dup_ids":0}"#).unwrap().is_empty());
        assert_eq!(
            violations("noise\n{\"lost\":1,\"dup_ids\":2}\n").unwrap(),
            ["lost = 1", "dup_ids = 2"]
        );
        assert!(violations("nothing").is_err());
    }
}
