//! A provider loses, doubles and shuffles its webhooks while Weir is killed and away for a while: what each level of
//! recovery then finds, and that the coverage ledger says what the provider itself counted.
//!
//! Four feeds lose webhooks at the same time: one of each level, and one whose list forgets sooner than Weir is back.
//! `make drop-test` asks for more events than the few of every day, a minute away, and prints the figures.

use crate::support::{Database, SOON, Server, eventually, stderr, stdout};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::Instant;
use weir_simulator::{
    Answered, Change, Fate, LossAttempt, LossOptions, LossPlan, LossRun, LossTally, LossTarget, Simulator,
    SimulatorOptions,
};

const TOKEN: &str = "feed-token";
/// A kill may take the counts of so long with it, and of twice as long as a commit takes: the ledger is stored once a
/// second, in a queue with everything else. A busy machine may be late by another second.
const UNCOUNTED: Duration = Duration::from_secs(2);
/// Webhooks that were answered so long before the kill tell how long a commit took then.
const BEFORE_THE_KILL: Duration = Duration::from_secs(10);

/// How much of it.
#[derive(Debug, Clone, Copy)]
struct Scale {
    events: u64,
    rate_per_s: u32,
    away: Duration,
    seed: u64,
    shows: bool,
}

impl Scale {
    fn of_every_day() -> Self {
        let asked = number("WEIR_DROP_EVENTS");
        Scale {
            events: asked.unwrap_or(300),
            rate_per_s: number("WEIR_DROP_RATE")
                .and_then(|rate| u32::try_from(rate).ok())
                .unwrap_or(60),
            away: Duration::from_secs(number("WEIR_DROP_AWAY_S").unwrap_or(2)),
            seed: number("WEIR_DROP_SEED").unwrap_or(1),
            shows: asked.is_some(),
        }
    }

    /// Changes while Weir is away.
    fn meanwhile(&self) -> u64 {
        self.away.as_secs() * u64::from(self.rate_per_s)
    }
}

#[expect(clippy::disallowed_methods, reason = "a switch of the test, not of the product")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// A log of all changes.
    A,
    /// The last states, by when they changed.
    B,
    /// Nothing.
    C,
    /// A log that forgets what is older than half of the time that Weir is away.
    Short,
}

impl Level {
    const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::Short];

    fn feed(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::Short => "short",
        }
    }

    /// What is said about recovery in the feed's manifest: operations, id and `recover`.
    fn words(self, scale: &Scale) -> String {
        let feed = self.feed();
        let log = format!(
            "operations: {{ changes.list: {{ get: /feed/{feed}/log, query: {{ since: '{{{{ since }}}}', after: '{{{{ after }}}}' }}, \
             input: {{ since: optional, after: optional }}, items: /data, page: {{ since_id: {{ from: /id, into: query.after, more: /has_more }} }} }} }}"
        );
        let by_id = "level: A, call: changes.list, with: { since: '{{ since_ms }}', after: '{{ cursor }}' }, cursor: id, more: /has_more";
        let (operations, id, recover) = match self {
            Self::A => (log, "/id", by_id.to_owned()),
            Self::Short => (log, "/id", format!("{by_id}, reach: {}s", reach_s(scale))),
            Self::B => (
                format!(
                    "operations: {{ objects.list: {{ get: /feed/{feed}/objects, query: {{ since: '{{{{ since }}}}' }}, \
                     input: {{ since: optional }}, items: /data, page: {{ cursor: {{ next: /next, into: query.page }} }} }} }}"
                ),
                "[/object/id, /object/version]",
                "level: B, call: objects.list, with: { since: '{{ since_ms }}' }, cursor: time, dedupe: [/id, /version], \
                 identify: { id: [/id, /version], type: 'lit:changed', time: /updated_ms, ref: { type: 'lit:object', id: /id, version: /version } }"
                    .to_owned(),
            ),
            Self::C => (String::new(), "[/object/id, /object/version]", "level: C".to_owned()),
        };
        format!(
            "{operations}
webhook:
  verify: {{ token: {{ at: 'header:x-feed-token' }} }}
  identify: {{ id: {id}, type: 'lit:changed', time: /time_ms, ref: {{ type: 'lit:object', id: /object/id, version: /object/version }} }}
  dedupe: [/object/id, /object/version]
  recover: {{ {recover} }}
events: {{ changed: {{ hydrate_default: never }} }}
"
        )
    }

    fn manifest(self, scale: &Scale) -> String {
        format!(
            "connector: feed-{}\nversion: 1.0.0\nhosts: ['https://feeds.test']\nauth: {{ none: {{}} }}\n{}",
            self.feed(),
            self.words(scale)
        )
    }

    fn documents(self, provider: &str) -> String {
        let feed = self.feed();
        let connection = format!(
            "kind: Connection\nname: {feed}\nconnector: feed-{feed}\nconfig: {{ base_url: '{provider}' }}\n---\n"
        );
        // Planned sweeps leave the youngest items for later: without them, everything that is listed is taken or known.
        let (connection, way) = match self {
            Self::A | Self::B => (connection, format!("connection: {feed}\nsweep: {{ every: 1h }}")),
            Self::Short => (connection, format!("connection: {feed}\nsweep: {{ every: 5s }}")),
            Self::C => (String::new(), format!("connector: feed-{feed}")),
        };
        let name = "{{ event.ref.id }}.{{ event.ref.version }}";
        format!(
            "---
{connection}kind: Endpoint
name: {feed}
{way}
secrets: [{TOKEN}]
---
kind: Workflow
name: of-{feed}
on: {{ event: feed-{feed}.changed, hydrate: never }}
steps: [{{ id: write, call: http.request, connection: crm, with: {{ method: POST, path: '/crm/changes/{name}', body: {{ event_id: '{name}' }} }} }}]
"
        )
    }
}

fn reach_s(scale: &Scale) -> u64 {
    (scale.away.as_secs() / 2).max(1)
}

/// A feed, what became of its webhooks, and what Weir has of it.
struct Seen<'a> {
    level: Level,
    changes: &'a [Change],
    tally: &'a LossTally,
    shown: BTreeMap<String, u32>,
    /// Source of each event by the change's name.
    stored: BTreeMap<String, String>,
    coverage: Value,
    killed_at: i64,
}

impl Seen<'_> {
    fn names(&self, wanted: impl Fn(Answered) -> bool) -> BTreeSet<String> {
        let attempts = self.tally.attempts.iter().filter(|attempt| wanted(attempt.answered));
        attempts.map(|attempt| self.name(attempt.number)).collect()
    }

    fn name(&self, number: u64) -> String {
        self.changes[usize::try_from(number).unwrap()].identity(self.level.feed())
    }

    fn by(&self, source: &str) -> usize {
        self.stored.values().filter(|found| *found == source).count()
    }

    /// Answers of this kind that came so shortly before the kill that they may not be counted.
    fn uncounted(&self, answered: Answered) -> usize {
        let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap();
        let is_within = |attempt: &&LossAttempt, span_ms: i64| {
            (self.killed_at - span_ms..=self.killed_at + 1_000).contains(&attempt.ended_unix_ms)
        };
        let attempts = || self.tally.attempts.iter();
        let recent = attempts().filter(|attempt| is_within(attempt, ms(BEFORE_THE_KILL)));
        let commit_ms = recent.map(|attempt| attempt.took_ms).max().unwrap_or(0);
        let window_ms = ms(UNCOUNTED) + 2 * i64::try_from(commit_ms).unwrap();
        attempts()
            .filter(|attempt| attempt.answered == answered && is_within(attempt, window_ms))
            .count()
    }

    fn ledger(&self, field: &str) -> usize {
        usize::try_from(self.coverage[field].as_u64().unwrap()).unwrap()
    }

    /// Changes that Weir has not.
    fn missing(&self) -> Vec<&Change> {
        let is_missing = |change: &&Change| !self.stored.contains_key(&change.identity(self.level.feed()));
        self.changes.iter().filter(is_missing).collect()
    }

    /// What was acknowledged or listed is there, and nothing else but what was cut off at the kill.
    fn nothing_is_lost_or_made_up(&self) {
        let acknowledged = self.names(|answered| matches!(answered, Answered::New | Answered::Again));
        let listed: BTreeSet<String> = self.shown.keys().cloned().collect();
        let seen: BTreeSet<String> = acknowledged.union(&listed).cloned().collect();
        let cut = self.names(|answered| answered == Answered::Cut);
        let stored: BTreeSet<String> = self.stored.keys().cloned().collect();
        // What a sweep had read when it was killed is read again, unless the list has forgotten it by then.
        let kept = if self.level == Level::Short {
            &acknowledged
        } else {
            &seen
        };
        let lost: Vec<&String> = kept.difference(&stored).collect();
        assert!(lost.is_empty(), "{:?}: lost {lost:?}", self.level);
        let made_up: Vec<&String> = stored.difference(&seen).filter(|name| !cut.contains(*name)).collect();
        assert!(made_up.is_empty(), "{:?}: made up {made_up:?}", self.level);
    }

    /// The promise of the level.
    fn promise_is_kept(&self) {
        let missing = self.missing();
        match self.level {
            Level::A => assert!(missing.is_empty(), "{missing:?}"),
            Level::B => {
                let mut last: BTreeMap<u64, &Change> = BTreeMap::new();
                for change in self.changes {
                    last.insert(change.object, change);
                }
                let unseen: Vec<_> = missing
                    .iter()
                    .filter(|change| !change.deletes && last[&change.object].number == change.number)
                    .collect();
                assert!(unseen.is_empty(), "last states that are missing: {unseen:?}");
                let told = self.coverage["promise"].as_str().unwrap();
                assert!(told.contains("states in between and deletes are not"), "{told}");
            }
            Level::C => {
                let told = self.coverage["promise"].as_str().unwrap();
                assert!(told.contains("what it does not deliver is not found"), "{told}");
                assert!(missing.len() >= self.changes.iter().filter(|change| change.fate == Fate::Lost).count());
                assert_eq!(self.by("SWEEP"), 0);
            }
            Level::Short => {
                let gap = &self.coverage["oldestGap"];
                let (from, until) = (moment(&gap["from"]), moment(&gap["until"]));
                for change in &missing {
                    let at = self.tally.happened_unix_ms[usize::try_from(change.number).unwrap()];
                    assert!(
                        (from..=until).contains(&at),
                        "{change:?} of {at} is missing outside of {gap}"
                    );
                }
            }
        }
        let has_gap = !self.coverage["oldestGap"].is_null();
        assert_eq!(
            has_gap,
            self.level == Level::Short,
            "{:?}: {}",
            self.level,
            self.coverage
        );
    }

    /// The ledger's numbers are the provider's, but for what a kill makes it forget.
    fn ledger_is_right(&self) -> Result<(), String> {
        let check = |name: &str, range: std::ops::RangeInclusive<usize>| {
            let number = self.ledger(name);
            let is_right = range.contains(&number);
            let what = || {
                format!(
                    "{:?}: {name} {number} is not in {range:?}: {}",
                    self.level, self.coverage
                )
            };
            is_right.then_some(()).ok_or_else(what)
        };
        let cut = self.tally.count(Answered::Cut);
        let (by_webhook, by_sweep) = (self.by("ENDPOINT"), self.by("SWEEP"));
        let fewest = by_webhook.saturating_sub(self.uncounted(Answered::New) + cut);
        check("received", fewest..=by_webhook)?;
        if self.level == Level::Short {
            // Its planned sweeps leave items for later, and one of them may have met the kill.
            return check("recovered", 0..=by_sweep);
        }
        check("recovered", by_sweep..=by_sweep)?;
        let expected = self.known_again();
        check(
            "duplicates",
            expected.saturating_sub(self.uncounted(Answered::Again))..=expected + cut,
        )
    }

    /// How often Weir met a change that it had already: by webhook, and in a list.
    fn known_again(&self) -> usize {
        let listed: u32 = self.shown.values().sum();
        let listed = usize::try_from(listed).unwrap();
        self.tally.count(Answered::Again) + listed.saturating_sub(self.by("SWEEP"))
    }

    /// A row of the table in docs/reliability.md.
    fn row(&self) -> String {
        let count = |answered| self.tally.count(answered);
        let fate = |fate| self.changes.iter().filter(|change| change.fate == fate).count();
        let refused = self.tally.attempts.len()
            - count(Answered::New)
            - count(Answered::Again)
            - count(Answered::Unreachable)
            - count(Answered::Cut);
        format!(
            "| {:?} | {} | {} / {} / {} | {} | {} | {refused} | {} | {} | {} | {} | {} | {} | {} |",
            self.level,
            self.changes.len(),
            fate(Fate::Lost),
            fate(Fate::Twice),
            fate(Fate::Late),
            count(Answered::Unreachable),
            count(Answered::Cut),
            self.by("ENDPOINT"),
            self.ledger("received"),
            self.by("SWEEP"),
            self.ledger("recovered"),
            self.known_again(),
            self.ledger("duplicates"),
            self.missing().len(),
        )
    }
}

fn moment(value: &Value) -> i64 {
    let text = value.as_str().unwrap_or_default();
    chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
}

fn coverage(server: &Server, endpoint: &str) -> Value {
    server.list(&["coverage", endpoint, "--json"]).remove(0)
}

async fn swept(server: &Server, endpoint: &str) {
    eventually("the sweep is complete", SOON * 6, async || {
        (coverage(server, endpoint)["lastSweep"]["outcome"] == "complete").then_some(())
    })
    .await;
}

async fn started(database: Option<&Database>, scale: &Scale) -> Server {
    let mut settings = vec![("WEIR_EGRESS_ALLOW", "127.0.0.0/8"), ("WEIR_CONNECTORS", "connectors")];
    settings.extend(database.iter().flat_map(|database| database.settings()));
    let mut server = Server::not_started(&[], &settings);
    let folder = server.folder.path().join("connectors");
    std::fs::create_dir(&folder).unwrap();
    for level in Level::ALL {
        std::fs::write(folder.join(format!("{}.yaml", level.feed())), level.manifest(scale)).unwrap();
    }
    server.start_again().await;
    server
}

async fn each_level_keeps_its_promise(database: Option<&Database>) {
    let scale = Scale::of_every_day();
    eprintln!("{scale:?}; WEIR_DROP_SEED={} plays it again", scale.seed);
    let provider = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let mut server = started(database, &scale).await;
    let mut documents = format!(
        "kind: Connection\nname: crm\nconnector: http\nconfig: {{ base_url: '{}', idempotency: {{ header: Idempotency-Key }} }}\n",
        provider.base_url()
    );
    for level in Level::ALL {
        documents.push_str(&level.documents(&provider.base_url()));
    }
    server.apply(&documents);
    let listed = [Level::A, Level::B, Level::Short];
    for level in listed {
        swept(&server, level.feed()).await;
    }
    provider.set_feed_keeps_ms("short", Some((reach_s(&scale) + 5) * 1_000));
    let plans: Vec<(Level, LossPlan)> = Level::ALL
        .into_iter()
        .zip(scale.seed..)
        .map(|(level, seed)| {
            let options = LossOptions {
                seed,
                events: scale.events,
                objects: (scale.events / 5).max(1),
                rate_per_s: f64::from(scale.rate_per_s),
                ..LossOptions::default()
            };
            (level, LossPlan::new(&options).unwrap())
        })
        .collect();
    let runs: Vec<LossRun> = plans
        .iter()
        .map(|(level, plan)| {
            let target = LossTarget {
                feed: level.feed().to_owned(),
                url: format!("{}/hooks/main/{}", server.url, level.feed()),
                secret: TOKEN.to_owned(),
            };
            provider.lose(plan.clone(), target)
        })
        .collect();
    let patience = SOON + Duration::from_secs(scale.events / u64::from(scale.rate_per_s)) * 2;
    let reached = async |count: u64| {
        eventually("so much has happened", patience, async || {
            (runs[0].happened() >= count).then_some(())
        })
        .await;
    };
    let half = scale.events.saturating_sub(scale.meanwhile()) / 2;
    reached(half).await;
    server.kill();
    let killed_at = chrono::DateTime::<chrono::Utc>::from(now()).timestamp_millis();
    reached(half + scale.meanwhile()).await;
    server.start_again().await;
    let back = Instant::now();
    let mut tallies = Vec::new();
    for run in runs {
        tallies.push(run.finish().await.unwrap());
    }
    for level in listed {
        let told = server.weir(&["endpoint", "sweep", level.feed()]);
        assert!(told.status.success(), "{}{}", stdout(&told), stderr(&told));
        swept(&server, level.feed()).await;
    }
    let found = server.events().await;
    eventually("every event is processed", patience + SOON * 3, async || {
        (provider.ledger().summary().effects >= found.len() as u64).then_some(())
    })
    .await;
    let took = back.elapsed();
    let mut table = String::new();
    for ((level, plan), tally) in plans.iter().zip(&tallies) {
        let feed = level.feed();
        let mut stored = BTreeMap::new();
        for event in found.iter().filter(|event| event["endpointName"] == feed) {
            let text = |field: &str| event[field].as_str().unwrap().to_owned();
            let (id, source) = (text("externalId"), text("source"));
            let name = match id.rsplit_once('_').filter(|_| id.starts_with("chg_")) {
                Some((_, number)) => plan.changes()[number.parse::<usize>().unwrap()].identity(feed),
                None => id.clone(),
            };
            let before = stored.insert(name, source);
            assert_eq!(before, None, "{id} is stored twice");
        }
        for change in plan.changes() {
            let name = change.identity(feed);
            let effects = provider.ledger().effects_of(&format!("event:{name}"));
            assert_eq!(
                effects,
                u32::from(stored.contains_key(&name)),
                "{name} is not processed once"
            );
        }
        let mut seen = Seen {
            level: *level,
            changes: plan.changes(),
            tally,
            shown: BTreeMap::new(),
            stored,
            coverage: Value::Null,
            killed_at,
        };
        // The ledger is stored once a second, and an endpoint that is swept by itself goes on.
        let began = Instant::now();
        while let Err(wrong) = {
            seen.shown = provider.feed_shown(feed);
            seen.coverage = coverage(&server, feed);
            seen.ledger_is_right()
        } {
            assert!(began.elapsed() < SOON, "{wrong}");
        }
        seen.nothing_is_lost_or_made_up();
        seen.promise_is_kept();
        writeln!(table, "{}", seen.row()).unwrap();
    }
    assert_eq!(server.runs(&["--status", "failed"]), Vec::<Value>::new());
    assert_eq!(provider.ledger().doubled("event:"), Vec::new());
    if scale.shows {
        let store = if database.is_some() { "PostgreSQL" } else { "SQLite" };
        eprintln!("{store}, all done {took:?} after the start\n{table}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a provider has a clock of its own")]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_level_keeps_its_promise_on_sqlite() {
    each_level_keeps_its_promise(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_level_keeps_its_promise_on_postgres() {
    let database = Database::create("drops").await;
    each_level_keeps_its_promise(Some(&database)).await;
    database.drop().await;
}
