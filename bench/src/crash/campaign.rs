//! Rounds on one installation: its database, its documents, its upstreams, and the last look at everything.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde::Serialize;
use tokio::net::TcpListener;
use weir_bench::documents::Ids;

use crate::arguments::{Arguments, Mode};
use crate::book::Book;
use crate::chance::Chance;
use crate::facts::{Facts, create_database};
use crate::judge::Tally;
use crate::people::People;
use crate::report;
use crate::round::{Blow, Round, Stage, play};
use crate::server::Installation;
use crate::upstream;

const FIND_BY_CONNECTOR: &str = include_str!("find_by_connector.yaml");
const FIND_BY_FLOW: &str = include_str!("find_by_flow.yaml");
const WAITS_FLOW: &str = include_str!("waits_flow.yaml");
/// Where the documents of the benchmark expect both upstreams.
const WRITTEN_UPSTREAM: &str = "http://127.0.0.1:9900";
const KEYS_LINE: &str = "idempotency:";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Backend::Sqlite => "sqlite",
            Backend::Postgres => "postgres",
        }
    }

    fn blow(self, number: u32) -> Blow {
        match (self, number % 3) {
            (Backend::Sqlite, _) | (Backend::Postgres, 0) => Blow::Weir,
            (Backend::Postgres, 1) => Blow::Database,
            (Backend::Postgres, _) => Blow::Both,
        }
    }
}

/// What one installation went through.
#[derive(Debug, Serialize)]
pub(crate) struct Campaign {
    pub database: &'static str,
    pub mode: Mode,
    pub folder: PathBuf,
    pub rounds: Vec<Round>,
    /// What people did in the flow that waits, and what was refused to them.
    pub deeds: BTreeMap<String, u64>,
    /// What the rounds could not see one by one: late effects, wrong bodies, missing keys.
    pub violations: Vec<String>,
}

impl Campaign {
    pub(crate) fn violated(&self) -> bool {
        !self.violations.is_empty() || self.rounds.iter().any(|round| !round.violations.is_empty())
    }
}

/// A new installation in the scratch folder, and where its facts stand.
pub(crate) async fn install(
    arguments: &Arguments,
    backend: Backend,
    name: &str,
) -> anyhow::Result<(Installation, Facts)> {
    let folder = arguments.scratch.join(format!("{}-{name}", backend.name()));
    let (url, facts) = match backend {
        Backend::Sqlite => {
            let path = folder.join("weir.db");
            (format!("sqlite://{}", path.display()), Facts::Sqlite { path })
        }
        Backend::Postgres => {
            let server = arguments.postgres_url.as_deref().context("no PostgreSQL was given")?;
            let database = format!("crash_{name}_{}", std::process::id());
            let url = create_database(server, &database).await?;
            (url.clone(), Facts::Postgres { url })
        }
    };
    Ok((Installation::new(&arguments.weir, url, folder)?, facts))
}

/// Plays the rounds of one mode; `numbers` are those of the whole database, so that the blows alternate.
pub(crate) async fn run(
    arguments: &Arguments,
    backend: Backend,
    mode: Mode,
    numbers: &[u32],
    chance: &Chance,
) -> anyhow::Result<Campaign> {
    let (mut installation, facts) = install(arguments, backend, mode.name()).await?;
    let nonce = u32::try_from(chance.clone().next() & u64::from(u32::MAX)).unwrap_or_default();
    let book = Arc::new(Book::new(Ids::new(nonce), mode));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let upstream = format!("http://{}", listener.local_addr()?);
    let upstreams = tokio::spawn(upstream::serve(
        listener,
        Arc::clone(&book),
        Arc::default(),
        chance.branch(1),
    ));
    if mode == Mode::FindBy {
        let connectors = installation.folder.join("connectors");
        std::fs::create_dir_all(&connectors)?;
        std::fs::write(connectors.join("crash-crm.yaml"), FIND_BY_CONNECTOR)?;
        installation.connectors = Some(connectors);
    }

    let mut server = installation.start()?;
    server.ready().await?;
    let documents = documents(&arguments.documents, mode, &upstream)?;
    let file = installation.folder.join("flow.yaml");
    std::fs::write(&file, documents)?;
    installation.apply(&file).await?;

    let people = match mode.waits() {
        true => Some(People::start(vec![installation.address], chance.branch(2))?),
        false => None,
    };
    let stage = Stage {
        arguments,
        mode,
        installation: &installation,
        facts: &facts,
        book: &book,
    };
    let mut rounds = Vec::new();
    for &number in numbers {
        let told = (backend.name(), number, backend.blow(number));
        let played = play(&stage, server, told, chance.branch(1000 + u64::from(number))).await;
        let (next, round) = played.with_context(|| {
            let log = installation.log_file();
            format!("round {number} on {}; see {}", backend.name(), log.display())
        })?;
        report::round(&round)?;
        server = next;
        rounds.push(round);
    }
    let violations = last_look(&book, &facts, mode, &rounds).await?;
    server.kill().await?;
    upstreams.abort();
    let deeds = people.map(|people| people.deeds.all()).unwrap_or_default();
    Ok(Campaign {
        database: backend.name(),
        mode,
        folder: installation.folder,
        rounds,
        deeds,
        violations,
    })
}

/// Everything once more, after the last round: no round may have been harmed by a later one.
async fn last_look(book: &Book, facts: &Facts, mode: Mode, rounds: &[Round]) -> anyhow::Result<Vec<String>> {
    let all = book.open().flows.len();
    let runs = facts.runs(0).await?;
    let tally = Tally::of(book, 0..all, &runs);
    let doubled: usize = rounds.iter().map(|round| round.tally.doubled).sum();
    let unknown: usize = rounds.iter().map(|round| round.tally.unknown).sum();
    let counts = book.open().counts;
    let keyless = if mode.honours_keys() { counts.keyless } else { 0 };
    let mut violations = Vec::new();
    for (count, words) in [
        (
            tally.doubled.saturating_sub(doubled),
            "effects doubled after their round",
        ),
        (
            tally.unknown.saturating_sub(unknown),
            "effects unknown after their round",
        ),
        (counts.wrong_bodies as usize, "CRM bodies wrong"),
        (counts.foreign as usize, "calls that nobody asked for"),
        (keyless as usize, "CRM requests without a key"),
    ] {
        if count > 0 {
            violations.push(format!("{count} {words}"));
        }
    }
    Ok(violations)
}

/// The documents of `mode`, with the upstreams at `upstream`.
pub(crate) fn documents(folder: &Path, mode: Mode, upstream: &str) -> anyhow::Result<String> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let text = match mode {
        Mode::Keys => read("hydrate-flow.yaml")?,
        Mode::Hydrate => read("hydrate-always.yaml")?,
        Mode::FindBy => FIND_BY_FLOW.to_owned(),
        Mode::Waits => WAITS_FLOW.to_owned(),
        Mode::Blind => {
            let text = read("hydrate-flow.yaml")?;
            let lines = text.lines();
            let kept: Vec<_> = lines.filter(|line| !line.trim_start().starts_with(KEYS_LINE)).collect();
            kept.join("\n")
        }
    };
    Ok(text.replace(WRITTEN_UPSTREAM, upstream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_modes_with_keys_say_so() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        for mode in Mode::ALL {
            let text = documents(folder, mode, "http://127.0.0.1:1").unwrap();
            let says = text.lines().any(|line| line.trim_start().starts_with(KEYS_LINE));
            assert_eq!(says, mode.honours_keys(), "{mode:?}");
            assert!(!text.contains(WRITTEN_UPSTREAM), "{mode:?}");
        }
    }

    #[test]
    fn blows_alternate_on_postgres_only() {
        let blows = |backend: Backend| (0..3).map(|number| backend.blow(number)).collect::<Vec<_>>();
        assert_eq!(blows(Backend::Sqlite), [Blow::Weir; 3]);
        assert_eq!(blows(Backend::Postgres), [Blow::Weir, Blow::Database, Blow::Both]);
    }
}
