//! `weir-crash`: the proof that a crash neither loses an accepted event nor doubles an effect.
//!
//! ```text
//! sender ─► weir serve (child process, killed) ─► fake payment API and CRM
//!    └────────────── book: what was promised, what was seen ──────┘
//! ```
//! Sender and upstreams live in this process and survive every blow, so their account of each event is complete. It is
//! compared with Weir's database event by event; any difference that a crash must not make ends with exit code 1.

mod arguments;
mod book;
mod campaign;
mod chance;
#[path = "../load/client.rs"]
mod client;
mod facts;
mod judge;
mod kit;
mod load;
mod people;
mod report;
mod round;
mod server;
mod torture;
mod upstream;

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use serde_json::json;
use weir_bench::clock::unix_ms;

use crate::arguments::{Arguments, Mode};
use crate::campaign::Backend;
use crate::chance::Chance;

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.scratch)
        .with_context(|| format!("cannot make {}", arguments.scratch.display()))?;
    // The server runs in a folder of its own.
    for path in [&mut arguments.weir, &mut arguments.documents, &mut arguments.scratch] {
        *path = path
            .canonicalize()
            .with_context(|| format!("cannot find {}", path.display()))?;
    }
    ensure!(!arguments.modes.is_empty(), "no mode is left to test");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(prove(&arguments))
}

async fn prove(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let seed = arguments.seed.unwrap_or_else(|| unix_ms().unsigned_abs());
    report::say(&format!(
        "seed {seed} (--seed {seed} repeats the kill times); data and logs in {}",
        arguments.scratch.display()
    ))?;
    if arguments.torture {
        return torture::run(arguments, &Chance::new(seed)).await;
    }
    let mut backends = Vec::new();
    if !arguments.without_sqlite {
        backends.push(Backend::Sqlite);
    }
    if arguments.postgres_url.is_some() && !arguments.without_postgres {
        backends.push(Backend::Postgres);
    }
    let (mut campaigns, mut kit_rounds) = (Vec::new(), Vec::new());
    let mut part = 0;
    for backend in backends {
        for (mode, numbers) in spread(&arguments.modes, arguments.rounds) {
            part += 1;
            let chance = Chance::new(seed).branch(part);
            campaigns.push(campaign::run(arguments, backend, mode, &numbers, &chance).await?);
        }
        if let Some(kit) = &arguments.kit {
            part += 1;
            let chance = Chance::new(seed).branch(part);
            kit_rounds.extend(kit::run(arguments, kit, backend, &chance).await?);
        }
    }
    report::table(&campaigns, &kit_rounds)?;
    let violated = campaigns.iter().any(campaign::Campaign::violated)
        || kit_rounds.iter().any(|round| !round.violations.is_empty());
    if let Some(path) = &arguments.report {
        let report = json!({ "seed": seed, "violated": violated, "campaigns": campaigns, "kit": kit_rounds });
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        report::say(&format!("report: {}", path.display()))?;
    }
    report::say(if violated {
        "VIOLATED"
    } else {
        "nothing lost, nothing doubled"
    })?;
    Ok(ExitCode::from(u8::from(violated)))
}

/// Deals the rounds out over the modes, whole blocks of them: the kinds of blow alternate inside each mode.
fn spread(modes: &[Mode], rounds: u32) -> Vec<(Mode, Vec<u32>)> {
    let count = u32::try_from(modes.len()).unwrap_or(u32::MAX);
    let mut next = 0;
    let mut dealt = Vec::new();
    for (&mode, position) in modes.iter().zip(0..count) {
        let share = rounds / count + u32::from(position < rounds % count);
        dealt.push((mode, (next..next + share).collect::<Vec<_>>()));
        next += share;
    }
    dealt.retain(|(_, numbers)| !numbers.is_empty());
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_is_dealt_once() {
        let dealt = spread(&Mode::ALL, 6);
        let numbers: Vec<_> = dealt.iter().flat_map(|(_, numbers)| numbers.clone()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
        assert_eq!(dealt[0].1.len(), 2);
        assert_eq!(spread(&Mode::ALL, 2).len(), 2);
    }
}
