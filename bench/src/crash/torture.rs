//! Several nodes on one PostgreSQL, struck again and again while events come in at a steady rate.
//!
//! The verdict is that of a round: the book against the database, event by event. An effect may be `unknown` only where
//! the CRM takes no keys, and only for an event whose request the CRM cut off or whose run was open at a blow.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use weir_bench::documents::Ids;

use crate::arguments::{Arguments, Mode};
use crate::book::{Answer, Book};
use crate::campaign::{Backend, documents, install};
use crate::chance::Chance;
use crate::client::Connection;
use crate::facts::Facts;
use crate::judge::{OnDisk, Tally};
use crate::load;
use crate::people::People;
use crate::report::say;
use crate::server::{Installation, Server, shell};
use crate::upstream::{self, Weather};

const NODES: usize = 3;
/// The clock of the last node is off by so much.
const CLOCK_SHIFT_S: i64 = 90;
/// Shortest and longest pause between two blows, in milliseconds.
const BLOWS_MS: (u64, u64) = (2_000, 6_000);
/// Longest time that a killed node stays away, in milliseconds.
const AWAY_MAX_MS: u64 = 3_000;
/// How long a node stands still.
const STILL: Duration = Duration::from_secs(30);
/// How often PostgreSQL is stopped as in a crash, and how long it stays down at most, in milliseconds.
const DATABASE_STOPS: usize = 2;
const DATABASE_DOWN_MAX_MS: u64 = 1_500;
/// In a storm the CRM cuts so many of 1,000 requests off.
const CUTS_PER_MILLE: u32 = 10;
/// How long a sender waits for an answer, and how often it tries to get a connection.
const PATIENCE: Duration = Duration::from_secs(15);
const CONNECTION_TRIES: usize = 60;
/// Effects at a time in the flow that meets a CRM which is away.
const CRM_LIMIT: u32 = 64;
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lines that make a failed call patient enough for a CRM that is away for minutes.
const PATIENT: &str = "    retry: { tries: 100, first: 500ms, max: 5s }\n";

/// One node and how it stands.
struct Node {
    installation: Installation,
    state: State,
}

enum State {
    Up(Server),
    /// Stands still until then.
    Still(Server, Instant),
    /// Was killed and is started then.
    Away(Instant),
}

/// Plays a storm per mode and the absence of the CRM.
pub(crate) async fn run(arguments: &Arguments, chance: &Chance) -> anyhow::Result<ExitCode> {
    let mut parts = Vec::new();
    for (mode, number) in arguments.modes.iter().zip(1..) {
        parts.push(storm(arguments, *mode, chance.branch(number)).await?);
    }
    parts.push(absence(arguments, chance.branch(100)).await?);
    let violated = parts.iter().any(|part| part["violations"] != json!([]));
    for part in &parts {
        say(&serde_json::to_string_pretty(part)?)?;
    }
    if let Some(path) = &arguments.report {
        let report = json!({ "violated": violated, "torture": parts });
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    say(if violated {
        "VIOLATED"
    } else {
        "nothing lost, nothing doubled"
    })?;
    Ok(ExitCode::from(u8::from(violated)))
}

struct Cluster {
    nodes: Vec<Node>,
    facts: Facts,
    book: Arc<Book>,
    weather: Arc<Weather>,
    /// Events whose runs were open at a blow.
    struck: BTreeSet<String>,
    kills: u32,
    ended_by_itself: u32,
    people: Option<People>,
}

impl Cluster {
    async fn start(arguments: &Arguments, mode: Mode, name: &str, flow: &str, chance: &Chance) -> anyhow::Result<Self> {
        let (first, facts) = install(arguments, Backend::Postgres, name).await?;
        let nonce = u32::try_from(chance.clone().next() & u64::from(u32::MAX)).unwrap_or_default();
        let book = Arc::new(Book::new(Ids::new(nonce), mode));
        let weather = Arc::<Weather>::default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let text = documents(
            &arguments.documents,
            mode,
            &format!("http://{}", listener.local_addr()?),
        )?;
        let text = text.replace(
            "    connection: bench-crm\n",
            &format!("    connection: bench-crm\n{PATIENT}"),
        );
        let text = text.replace("name: bench\non: { event", &format!("name: bench\n{flow}on: {{ event"));
        tokio::spawn(upstream::serve(
            listener,
            Arc::clone(&book),
            Arc::clone(&weather),
            chance.branch(1),
        ));
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let folder = first.folder.join(format!("node-{number}"));
            let mut installation = Installation::new(&first.weir, first.database_url.clone(), folder)?;
            installation.node = format!("node-{number}");
            installation.clock_shift_s = if number + 1 == NODES { CLOCK_SHIFT_S } else { 0 };
            let mut server = installation.start()?;
            server.ready().await?;
            if number == 0 {
                apply(&installation, &text).await?;
            }
            nodes.push(Node {
                installation,
                state: State::Up(server),
            });
        }
        // Every node has heard of the configuration when its heartbeat has come twice.
        sleep(Duration::from_secs(3)).await;
        let people = match mode.waits() {
            true => {
                let addresses = nodes.iter().map(|node| node.installation.address).collect();
                Some(People::start(addresses, chance.branch(2))?)
            }
            false => None,
        };
        Ok(Self {
            nodes,
            facts,
            book,
            weather,
            struck: BTreeSet::new(),
            kills: 0,
            ended_by_itself: 0,
            people,
        })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.installation.address).collect()
    }

    /// Notes whose runs are open now: each of them may have been struck.
    async fn note_struck(&mut self) -> anyhow::Result<()> {
        let runs = self.facts.runs(0).await?;
        let open = runs.by_event.into_iter().filter(|(_, run)| run.open());
        self.struck.extend(open.map(|(event, _)| event));
        Ok(())
    }

    /// Brings back whoever is due.
    async fn tend(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            let now = Instant::now();
            match &mut node.state {
                State::Still(server, until) if *until <= now => {
                    signal(server, "CONT").await?;
                    let State::Still(server, _) = std::mem::replace(&mut node.state, State::Away(now)) else {
                        bail!("a node changed its state by itself");
                    };
                    node.state = State::Up(server);
                }
                State::Away(until) if *until <= now => node.state = State::Up(node.installation.start()?),
                State::Up(server) => {
                    if let Some(status) = server.ended()? {
                        say(&format!("{} ended by itself with {status}", node.installation.node))?;
                        self.ended_by_itself += 1;
                        node.state = State::Away(now);
                    }
                }
                State::Still(..) | State::Away(_) => {}
            }
        }
        Ok(())
    }

    async fn kill(&mut self, number: usize, away: Duration) -> anyhow::Result<()> {
        let away = State::Away(Instant::now() + away);
        match std::mem::replace(&mut self.nodes[number].state, away) {
            State::Up(server) => server.kill().await?,
            other => self.nodes[number].state = other,
        }
        self.kills += 1;
        self.note_struck().await
    }

    async fn stand_still(&mut self, number: usize) -> anyhow::Result<()> {
        let until = Instant::now() + STILL;
        let state = std::mem::replace(&mut self.nodes[number].state, State::Away(until));
        self.nodes[number].state = match state {
            State::Up(server) => {
                signal(&server, "STOP").await?;
                State::Still(server, until)
            }
            other => other,
        };
        self.note_struck().await
    }

    async fn stop_database(&mut self, arguments: &Arguments, chance: &mut Chance) -> anyhow::Result<()> {
        let command = |command: &Option<String>| command.clone().context("no command for PostgreSQL was given");
        shell(&command(&arguments.postgres_stop)?).await?;
        sleep(Duration::from_millis(chance.between(0, DATABASE_DOWN_MAX_MS))).await;
        shell(&command(&arguments.postgres_start)?).await?;
        self.note_struck().await
    }

    /// Everybody back, everything sent again that was not acknowledged, no run open. Gives the time that took.
    async fn settle(&mut self, arguments: &Arguments) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            self.tend().await?;
            if self.nodes.iter().all(|node| matches!(node.state, State::Up(_))) {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        for node in &mut self.nodes {
            if let State::Up(server) = &mut node.state {
                server.ready().await?;
            }
        }
        let unheard: Vec<usize> = {
            let pages = self.book.open();
            let flows = pages.flows.iter().enumerate();
            flows
                .filter(|(_, flow)| flow.answer != Answer::Accepted)
                .map(|(number, _)| number)
                .collect()
        };
        load::redeliver(&self.book, &self.addresses(), arguments.connections, unheard).await;
        while self.facts.open_runs().await? > 0 {
            self.tend().await?;
            if began.elapsed() > arguments.drain_limit() {
                let open = self.facts.runs(0).await?.by_event.into_iter();
                let open: Vec<String> = open
                    .filter(|(_, run)| run.open())
                    .map(|(event, run)| format!("{event} (status {})", run.status))
                    .collect();
                bail!("{} runs are still open: {}", open.len(), open.join(", "));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(began.elapsed())
    }

    async fn judge(&self, mode: Mode) -> anyhow::Result<(Value, Vec<String>)> {
        let runs = self.facts.runs(0).await?;
        let all = self.book.open().flows.len();
        let tally = Tally::of(&self.book, 0..all, &runs);
        let cut: BTreeSet<String> = {
            let pages = self.book.open();
            let flows = pages.flows.iter().enumerate();
            flows
                .filter(|(_, flow)| flow.cut_off)
                .map(|(number, _)| self.book.ids.event(number))
                .collect()
        };
        let unknown = runs.by_event.iter().filter(|(_, run)| run.unknown());
        let unexplained = unknown.filter(|(event, _)| !cut.contains(*event) && !self.struck.contains(*event));
        let unexplained = unexplained.count();
        let on_disk = OnDisk {
            left_uncommitted: all,
            ..OnDisk::default()
        };
        let mut violations = tally.violations(mode, &on_disk, 0);
        if unexplained > 0 {
            violations.push(format!("{unexplained} effects unknown although nothing befell them"));
        }
        if tally.accepted < tally.sent {
            violations.push(format!("{} events were never accepted", tally.sent - tally.accepted));
        }
        Ok((
            json!({
                "mode": mode, "events": tally.sent, "accepted": tally.accepted, "doneOnce": tally.done_once,
                "lost": tally.lost - tally.lost_but_reported, "doubled": tally.doubled, "unknown": tally.unknown,
                "unknownNeverSeen": tally.unknown_never_seen, "cutOff": cut.len(), "openAtBlows": self.struck.len(),
                "deeds": self.people.as_ref().map(|people| people.deeds.all()),
                "repeats": tally.repeats, "kills": self.kills, "endedByThemselves": self.ended_by_itself,
                "examples": tally.examples,
            }),
            violations,
        ))
    }

    async fn end(self) -> anyhow::Result<()> {
        for node in self.nodes {
            if let State::Up(server) = node.state {
                server.kill().await?;
            }
        }
        Ok(())
    }
}

/// Kills of random nodes every few seconds, one that stands still, two stops of PostgreSQL, one clock that is off.
async fn storm(arguments: &Arguments, mode: Mode, mut chance: Chance) -> anyhow::Result<Value> {
    let name = format!("storm_{}", mode.name());
    let mut cluster = Cluster::start(arguments, mode, &name, "", &chance).await?;
    cluster.weather.cuts_per_mille.store(CUTS_PER_MILLE, Ordering::Relaxed);
    let stream = Stream::start(&cluster, arguments.storm_flows, arguments.storm_rate);
    let lasts = stream.lasts;
    let began = Instant::now();
    let mut database_stops = 0;
    let mut stood_still = false;
    while !stream.is_over() {
        let pause = Duration::from_millis(chance.between(BLOWS_MS.0, BLOWS_MS.1));
        let until = Instant::now() + pause;
        while Instant::now() < until {
            cluster.tend().await?;
            sleep(LOOK_EVERY.min(pause)).await;
        }
        let through = began.elapsed().as_secs_f64() / lasts.as_secs_f64();
        let number = usize::try_from(chance.between(0, NODES as u64 - 1)).unwrap_or_default();
        if through > 0.3 * (database_stops + 1) as f64 && database_stops < DATABASE_STOPS {
            database_stops += 1;
            cluster.stop_database(arguments, &mut chance).await?;
        } else if through > 0.45 && !stood_still && matches!(cluster.nodes[number].state, State::Up(_)) {
            stood_still = true;
            cluster.stand_still(number).await?;
        } else if matches!(cluster.nodes[number].state, State::Up(_)) {
            let away = Duration::from_millis(chance.between(0, AWAY_MAX_MS));
            cluster.kill(number, away).await?;
        }
    }
    stream.finished().await;
    let settled = cluster.settle(arguments).await?;
    let (mut told, violations) = cluster.judge(mode).await?;
    told["part"] = json!("storm");
    told["databaseStops"] = json!(database_stops);
    told["stoodStill"] = json!(stood_still);
    told["settledS"] = json!(settled.as_secs_f64());
    told["violations"] = json!(violations);
    cluster.end().await?;
    Ok(told)
}

/// The CRM is away for minutes while events come in; one node is killed meanwhile.
async fn absence(arguments: &Arguments, chance: Chance) -> anyhow::Result<Value> {
    let mode = Mode::Keys;
    let flow = format!("concurrency: {CRM_LIMIT}\n");
    let mut cluster = Cluster::start(arguments, mode, "absence", &flow, &chance).await?;
    cluster.weather.away.store(true, Ordering::Relaxed);
    let rate = arguments.storm_rate;
    let flows = usize::try_from(arguments.away_s).unwrap_or(usize::MAX) * rate as usize;
    let stream = Stream::start(&cluster, flows, rate);
    let half = stream.lasts / 2;
    sleep(half).await;
    cluster.kill(1, Duration::from_secs(1)).await?;
    while !stream.is_over() {
        cluster.tend().await?;
        sleep(LOOK_EVERY).await;
    }
    stream.finished().await;
    let waiting = cluster.facts.open_runs().await?;
    cluster.weather.away.store(false, Ordering::Relaxed);
    let settled = cluster.settle(arguments).await?;
    let (mut told, mut violations) = cluster.judge(mode).await?;
    let most = cluster.weather.most_at_a_time();
    if most > CRM_LIMIT {
        violations.push(format!("{most} effects at a time, and the limit is {CRM_LIMIT}"));
    }
    told["part"] = json!("absence");
    told["openWhenBack"] = json!(waiting);
    told["drainedS"] = json!(settled.as_secs_f64());
    told["mostAtATime"] = json!(most);
    told["limit"] = json!(CRM_LIMIT);
    told["violations"] = json!(violations);
    cluster.end().await?;
    Ok(told)
}

/// Events at a steady rate, to all nodes in turn; who gets no connection tries the next one.
struct Stream {
    senders: tokio::task::JoinHandle<()>,
    lasts: Duration,
}

impl Stream {
    fn start(cluster: &Cluster, flows: usize, rate: u32) -> Self {
        let (book, addresses) = (Arc::clone(&cluster.book), cluster.addresses());
        let pause = Duration::from_secs(1) / rate;
        let senders = tokio::spawn(async move {
            let mut under_way = JoinSet::new();
            let mut ticks = tokio::time::interval(pause);
            for _ in 0..flows {
                ticks.tick().await;
                let (book, addresses) = (Arc::clone(&book), addresses.clone());
                under_way.spawn(async move { deliver(&book, &addresses).await });
                while under_way.try_join_next().is_some() {}
            }
            under_way.join_all().await;
        });
        Self {
            senders,
            lasts: pause * u32::try_from(flows).unwrap_or(u32::MAX),
        }
    }

    fn is_over(&self) -> bool {
        self.senders.is_finished()
    }

    async fn finished(self) {
        // A sender that panicked left its event unacknowledged, which the verdict sees.
        drop(self.senders.await);
    }
}

async fn deliver(book: &Book, addresses: &[SocketAddr]) {
    let number = book.take();
    for attempt in 0..CONNECTION_TRIES {
        let address = addresses[(number + attempt) % addresses.len()];
        let opened = tokio::time::timeout(PATIENCE, Connection::open(address)).await;
        let Ok(Ok(connection)) = opened else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (answer, _) = load::send(book, address, connection, number).await;
        book.answered(number, answer);
        load::follow(book, addresses, number).await;
        return;
    }
}

async fn apply(installation: &Installation, text: &str) -> anyhow::Result<()> {
    let file: &Path = &installation.folder.join("flow.yaml");
    std::fs::write(file, text)?;
    installation.apply(file).await
}

async fn signal(server: &Server, name: &str) -> anyhow::Result<()> {
    let id = server.process_id().context("the node has ended")?;
    shell(&format!("kill -{name} {id}")).await
}
