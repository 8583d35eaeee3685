//! One round: load, the blow at a moment that chance decides, the restart, the end of all work, the verdict.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use weir_bench::clock::{Clock, unix_ms};

use crate::arguments::{Arguments, Mode};
use crate::book::{Answer, Book};
use crate::chance::Chance;
use crate::facts::Facts;
use crate::judge::{AtKill, OnDisk, Tally};
use crate::load::{self, Load};
use crate::server::{Installation, Server, shell};

/// One accepted event in so many is delivered a second time: it must be recognised.
const REDELIVER_EVERY: usize = 16;
/// How long the fake CRM gets to read what a dead process had sent.
const LAST_BYTES_LIMIT: Duration = Duration::from_secs(2);
/// Time between two looks at the open runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest pause between the stop of PostgreSQL and its start, in milliseconds.
const DATABASE_DOWN_MAX_MS: u64 = 1_500;
/// Time in which a surplus effect would still show itself.
const SETTLE: Duration = Duration::from_millis(300);

/// What is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Blow {
    /// `kill -9` of weir.
    Weir,
    /// `pg_ctl stop -m immediate`; weir goes on.
    Database,
    /// Both, the database first.
    Both,
}

impl Blow {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Blow::Weir => "weir",
            Blow::Database => "database",
            Blow::Both => "both",
        }
    }
}

/// What a round works with.
pub(crate) struct Stage<'a> {
    pub arguments: &'a Arguments,
    pub mode: Mode,
    pub installation: &'a Installation,
    pub facts: &'a Facts,
    pub book: &'a Arc<Book>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    pub database: &'static str,
    pub mode: Mode,
    pub number: u32,
    pub blow: Blow,
    pub load_ms: u64,
    /// From the start command (weir's, or PostgreSQL's when weir went on) until weir said that it was ready.
    pub ready_ms: u64,
    /// From the start command to the end of the first run that was open at the kill; `None` when there was none, and
    /// when weir went on: then runs end whenever their answers come.
    pub first_old_run_ms: Option<i64>,
    pub drain_ms: u64,
    /// Requests to the upstreams that were cut off, or whose answer nobody took.
    pub broken_connections: u32,
    pub on_disk: OnDisk,
    pub tally: Tally,
    pub violations: Vec<String>,
}

/// Plays round `number`; gives the server that runs at its end.
pub(crate) async fn play(
    stage: &Stage<'_>,
    mut server: Server,
    (database, number, blow): (&'static str, u32, Blow),
    mut chance: Chance,
) -> anyhow::Result<(Server, Round)> {
    let arguments = stage.arguments;
    let clock = Clock::start();
    let (first, broken_before) = {
        let pages = stage.book.open();
        (pages.flows.len(), pages.counts.broken)
    };
    let began_ms = unix_ms();
    let load_ms = chance.between(arguments.load_min_ms, arguments.load_max_ms);
    let load = Load::start(
        stage.book,
        stage.installation.address,
        arguments.connections,
        first + arguments.max_flows,
    );
    tokio::time::sleep(Duration::from_millis(load_ms)).await;

    let struck = strike(stage, server, blow, &mut chance, (first, began_ms, &clock)).await?;
    server = struck.server;
    let mut violations = Vec::new();
    if let Err(error) = server.ready().await {
        violations.push(format!("{error:#}"));
        server = stage.installation.start()?;
        server.ready().await?;
    }
    let ready_ms = elapsed_ms(&clock, struck.started_ns);
    tokio::time::sleep(Duration::from_millis(arguments.load_after_ms)).await;
    load.stop().await;

    let drain_from = clock.now_ns();
    let drained = drain(stage, &mut server).await;
    // Before the redelivery: it would hide a loss.
    let last = stage.book.open().flows.len();
    let runs = stage.facts.runs(began_ms).await?;
    let before = Tally::of(stage.book, first..last, &runs);
    let redelivered = choose_redeliveries(stage.book, first..last);
    load::redeliver(
        stage.book,
        &[stage.installation.address],
        arguments.connections,
        redelivered,
    )
    .await;
    let drained = drained.and(drain(stage, &mut server).await);
    let drain_ms = elapsed_ms(&clock, drain_from);
    if let Err(error) = drained {
        violations.push(format!("{error:#}"));
        if server.ended()?.is_some() {
            server = stage.installation.start()?;
            server.ready().await?;
        }
    }
    tokio::time::sleep(SETTLE).await;

    let runs = stage.facts.runs(began_ms).await?;
    let mut tally = Tally::of(stage.book, first..last, &runs);
    // What was lost is lost, whatever the provider's second delivery repaired.
    tally.lost = tally.lost.max(before.lost);
    tally.lost_but_reported = tally.lost_but_reported.max(before.lost_but_reported);
    let first_old_run_ms = struck
        .open
        .iter()
        .filter(|_| blow != Blow::Database)
        .filter_map(|event| runs.by_event.get(event)?.finished_at)
        .min()
        .map(|at| at - struck.started_ms);
    let threads = match blow {
        Blow::Weir | Blow::Both => std::thread::available_parallelism()?.get(),
        Blow::Database => 0,
    };
    violations.extend(tally.violations(stage.mode, &struck.on_disk, threads));
    if tally.accepted < tally.sent {
        let count = tally.sent - tally.accepted;
        violations.push(format!("{count} events not accepted even when redelivered"));
    }
    if first_old_run_ms.is_some_and(|taken| taken > i64::try_from(arguments.recovery_limit_ms).unwrap_or(i64::MAX)) {
        violations.push("old runs were taken up too late".to_owned());
    }
    let round = Round {
        database,
        mode: stage.mode,
        number,
        blow,
        load_ms,
        ready_ms,
        first_old_run_ms,
        drain_ms,
        broken_connections: stage.book.open().counts.broken - broken_before,
        on_disk: struck.on_disk,
        tally,
        violations,
    };
    Ok((server, round))
}

/// The state right after the blow.
struct Struck {
    server: Server,
    on_disk: OnDisk,
    /// Events whose runs were open.
    open: Vec<String>,
    /// When the start command was given, by the wall clock (for the database's times) and by ours.
    started_ms: i64,
    started_ns: u64,
}

async fn strike(
    stage: &Stage<'_>,
    server: Server,
    blow: Blow,
    chance: &mut Chance,
    (first, began_ms, clock): (usize, i64, &Clock),
) -> anyhow::Result<Struck> {
    let command = |command: &Option<String>| command.clone().context("no command for PostgreSQL was given");
    let mut alive = None;
    match blow {
        Blow::Weir => server.kill().await?,
        Blow::Database => {
            shell(&command(&stage.arguments.postgres_stop)?).await?;
            alive = Some(server);
        }
        Blow::Both => {
            shell(&command(&stage.arguments.postgres_stop)?).await?;
            tokio::time::sleep(Duration::from_millis(chance.between(0, 300))).await;
            server.kill().await?;
        }
    }
    if alive.is_none() {
        last_bytes(stage.book).await;
    }
    // While weir lives, answers go on coming; those until here are promises already.
    let at_kill = AtKill::of(stage.book, first);
    let (mut started_ms, mut started_ns) = (unix_ms(), clock.now_ns());
    if blow != Blow::Weir {
        let down = chance.between(0, DATABASE_DOWN_MAX_MS);
        tokio::time::sleep(Duration::from_millis(down)).await;
        (started_ms, started_ns) = (unix_ms(), clock.now_ns());
        shell(&command(&stage.arguments.postgres_start)?).await?;
    }
    let runs = stage.facts.runs_of_the_dead(began_ms).await?;
    let on_disk = OnDisk::of(stage.book, &at_kill, &runs);
    let open = runs
        .by_event
        .into_iter()
        .filter(|(_, run)| run.open())
        .map(|(event, _)| event)
        .collect();
    let server = match alive {
        Some(server) => server,
        None => {
            (started_ms, started_ns) = (unix_ms(), clock.now_ns());
            stage.installation.start()?
        }
    };
    Ok(Struck {
        server,
        on_disk,
        open,
        started_ms,
        started_ns,
    })
}

/// Waits until the upstreams have read and carried out everything that the dead process had sent.
async fn last_bytes(book: &Book) {
    let quiet = async {
        while book.open().counts.connections > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // A connection that does not end holds nothing that was sent: the verdict needs no certainty here.
    drop(tokio::time::timeout(LAST_BYTES_LIMIT, quiet).await);
}

/// Waits until no run is open.
async fn drain(stage: &Stage<'_>, server: &mut Server) -> anyhow::Result<()> {
    let clock = Clock::start();
    let limit = stage.arguments.drain_limit();
    let mut open = 0;
    while Duration::from_nanos(clock.now_ns()) < limit {
        if let Some(status) = server.ended()? {
            bail!("weir ended by itself with {status}");
        }
        open = stage.facts.open_runs().await?;
        if open == 0 {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("{open} runs still open {} s after the load", limit.as_secs())
}

/// The events that a provider would send again, and some that it would not.
fn choose_redeliveries(book: &Book, round: Range<usize>) -> Vec<usize> {
    let mut pages = book.open();
    let flows = pages.flows.iter_mut().enumerate();
    flows
        .skip(round.start)
        .take(round.len())
        .filter(|(number, flow)| flow.answer != Answer::Accepted || number.is_multiple_of(REDELIVER_EVERY))
        .map(|(number, flow)| {
            flow.redelivered = true;
            number
        })
        .collect()
}

fn elapsed_ms(clock: &Clock, since_ns: u64) -> u64 {
    clock.now_ns().saturating_sub(since_ns) / 1_000_000
}
