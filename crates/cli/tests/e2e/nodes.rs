//! Several servers on one PostgreSQL: killed, stalled, restarted in turn, with a wrong clock.

use crate::support::{Answer, Database, SOON, Server, eventually, http, payment_event, post, stdout};
use crate::wire::Wire;
use futures::future::join_all;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;
use weir_simulator::{
    Direction, Fault, FaultRule, RetryPolicy, Scenario, Simulator, SimulatorOptions, StreamHandle, StreamOptions,
};

const SECRET: &str = "whsec_nodes";
/// The lease, a heartbeat, the claim and the work itself.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);
/// Twice as long as a lease, so that others have certainly taken over.
const STALL: Duration = Duration::from_secs(10);
/// Longer than a lease.
const AWAY: Duration = Duration::from_secs(8);
/// A busy machine may need long for what is normally done in seconds.
const LIMIT: Duration = Duration::from_secs(90);

/// Servers on one database, and the providers they talk to.
struct Cluster {
    database: Database,
    servers: Vec<Server>,
    providers: Simulator,
}

impl Cluster {
    async fn start(name: &str, count: usize) -> Self {
        let database = Database::create(name).await;
        let providers = Simulator::start(SimulatorOptions::default()).await.unwrap();
        let mut servers = Vec::new();
        for number in 0..count {
            servers.push(node(&database, &format!("node-{number}"), &[]).await);
        }
        Self::of(database, servers, providers).await
    }

    /// Servers that share a database, with an endpoint that each of them knows.
    async fn of(database: Database, servers: Vec<Server>, providers: Simulator) -> Self {
        servers[0].apply(&documents(&providers, SECRET));
        let cluster = Cluster {
            database,
            servers,
            providers,
        };
        for server in &cluster.servers {
            cluster.knows_the_endpoint(server).await;
        }
        cluster
    }

    /// Waits until a server has the configuration that another one was given.
    async fn knows_the_endpoint(&self, server: &Server) {
        eventually("the endpoint is known", SOON, async || {
            (server.hook("stripe", &[], "{}").await.status != 404).then_some(())
        })
        .await;
    }

    /// One stream of payments to each server.
    fn streams(&self, count: u64, rate_per_s: f64) -> Vec<StreamHandle> {
        let streams = self.servers.iter().zip(0..).map(|(server, number)| {
            let options = StreamOptions {
                scenario: Scenario::Payment,
                url: format!("{}/hooks/main/stripe", server.url),
                signed_url: None,
                secrets: vec![SECRET.to_owned()],
                rate_per_s,
                first: 1 + number * count,
                count: Some(count),
                forge_every: 0,
                retry: Some(RetryPolicy {
                    delays_ms: vec![250; 400],
                    timeout_ms: 10_000,
                }),
            };
            self.providers.stream(options).unwrap()
        });
        streams.collect()
    }

    async fn acknowledged(&self, wanted: u64) {
        eventually("enough events were acknowledged", LIMIT, async || {
            (self.providers.deliveries().summary().acknowledged >= wanted).then_some(())
        })
        .await;
    }

    /// Every event has its one effect, every run has ended well.
    async fn all_done_once(&self, events: u64) {
        eventually("every event has its effect", LIMIT, async || {
            (self.providers.balance().completed == events).then_some(())
        })
        .await;
        eventually("no run is open", LIMIT, async || {
            (self.database.number("SELECT count(*) FROM run WHERE status < 2").await == Some(0)).then_some(())
        })
        .await;
        let balance = self.providers.balance();
        assert_eq!((balance.missing_count, balance.doubled_count), (0, 0), "{balance:?}");
        let succeeded = self.database.number("SELECT count(*) FROM run WHERE status = 2").await;
        assert_eq!(succeeded, Some(events.try_into().unwrap()));
    }

    async fn end(self) {
        let Cluster {
            database,
            mut servers,
            providers,
        } = self;
        for code in join_all(servers.iter_mut().map(Server::stop)).await {
            assert_eq!(code, Some(0));
        }
        drop(servers);
        providers.stop().await;
        database.drop().await;
    }
}

pub(crate) async fn node(database: &Database, name: &str, more: &[(&str, &str)]) -> Server {
    let mut settings = database.settings().to_vec();
    settings.extend([("WEIR_EGRESS_ALLOW", "127.0.0.0/8"), ("WEIR_NODE", name)]);
    settings.extend(more);
    Server::start_with(&settings).await
}

pub(crate) fn documents(providers: &Simulator, secret: &str) -> String {
    format!(
        r#"
kind: Connection
name: stripe
connector: stripe
config: {{ base_url: "{url}" }}
credential: {{ bearer: {{ token: {stripe} }} }}
---
kind: Connection
name: crm
connector: http
config: {{ base_url: "{url}", idempotency: {{ header: Idempotency-Key }} }}
---
kind: Endpoint
name: stripe
connection: stripe
secrets: [{secret}]
---
kind: Workflow
name: payments
on: {{ event: stripe.payment_intent.succeeded, connection: stripe, hydrate: always }}
steps:
  - id: deal
    call: http.request
    connection: crm
    with:
      method: POST
      path: "/crm/deals/{{{{ event.ref.id }}}}"
      body: {{ event_id: "{{{{ event.id }}}}", amount: "{{{{ hydrated.payment_intent.amount }}}}" }}
"#,
        url = providers.base_url(),
        stripe = providers.api_keys().stripe,
    )
}

/// Each call to the providers takes this long, so that many runs are in the middle of something.
fn slow(providers: &Simulator, ms: u64) {
    let rule = FaultRule::new(Direction::Api, "*", Fault::Delay { ms });
    providers.faults().add(rule).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_killed_server_are_finished_by_the_others() {
    const EVENTS: u64 = 80;
    let mut cluster = Cluster::start("killed", 3).await;
    slow(&cluster.providers, 400);
    let streams = cluster.streams(EVENTS, 40.0);
    cluster.acknowledged(EVENTS).await;
    cluster.servers[1].kill();
    let killed = Instant::now();
    let slot = "(SELECT slot FROM node WHERE name = 'node-1')";
    let left_open = cluster
        .database
        .number(&format!("SELECT count(*) FROM run WHERE status < 2 AND owner = {slot}"))
        .await
        .unwrap();
    assert!(left_open > 0, "it was killed in the middle of its work");
    let last = cluster.database.number("SELECT max(id) FROM run").await.unwrap();
    eventually("what it had begun is finished", TAKEOVER_LIMIT, async || {
        let text = format!("SELECT count(*) FROM run WHERE status < 2 AND id <= {last}");
        (cluster.database.number(&text).await == Some(0)).then_some(())
    })
    .await;
    println!(
        "{left_open} runs of the killed server were finished after {:?}",
        killed.elapsed()
    );
    // Its provider goes on knocking; it comes back as a node without work.
    cluster.servers[1].start_again().await;
    for stream in &streams {
        assert_eq!(stream.finished().await.finished, EVENTS);
    }
    cluster.all_done_once(3 * EVENTS).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_server_changes_nothing_and_comes_back_by_itself() {
    const EVENTS: u64 = 80;
    let mut cluster = Cluster::start("stalled", 2).await;
    slow(&cluster.providers, 300);
    let streams = cluster.streams(EVENTS, 40.0);
    cluster.acknowledged(EVENTS).await;
    let process = cluster.servers[1].process_id();
    cluster.servers[1].signal("STOP");
    let open = cluster
        .database
        .number("SELECT count(*) FROM run WHERE status < 2 AND owner = (SELECT slot FROM node WHERE name = 'node-1')")
        .await;
    assert!(open > Some(0), "it was stopped in the middle of its work");
    let stopped = Instant::now();
    eventually("the other server took its runs over", TAKEOVER_LIMIT, async || {
        let text = "SELECT count(*) FROM node WHERE name = 'node-1' AND incarnation <> 0";
        (cluster.database.number(text).await == Some(0)).then_some(())
    })
    .await;
    tokio::time::sleep(STALL.saturating_sub(stopped.elapsed())).await;
    cluster.servers[1].signal("CONT");
    eventually("it is back", SOON, async || {
        let back = cluster.servers[1].log().contains("this server is back");
        (back && ready(&cluster.servers[1]).await.is_some()).then_some(())
    })
    .await;
    assert!(cluster.servers[1].is_alive());
    assert_eq!(cluster.servers[1].process_id(), process);
    let log = cluster.servers[1].log();
    assert!(
        log.contains("this node stops: its lease ran out") && !log.contains("another process"),
        "{log}"
    );
    for stream in &streams {
        assert_eq!(stream.finished().await.finished, EVENTS);
    }
    cluster.all_done_once(2 * EVENTS).await;
    cluster.end().await;
}

/// Nobody can renew a lease while the database is away: whoever is back first must not take the others for dead.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_lose_the_database_together_go_on_as_who_they_are() {
    const EVENTS: u64 = 40;
    let database = Database::create("away").await;
    let providers = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let (mut servers, mut wires) = (Vec::new(), Vec::new());
    for name in ["node-0", "node-1"] {
        let wire = Wire::before(&database.url).await;
        servers.push(node(&database, name, &[("WEIR_DATABASE_URL", &wire.url)]).await);
        wires.push(wire);
    }
    let cluster = Cluster::of(database, servers, providers).await;
    slow(&cluster.providers, 300);
    let streams = cluster.streams(EVENTS, 40.0);
    cluster.acknowledged(EVENTS).await;
    let incarnations = "SELECT CAST(sum(incarnation % 1000000007) AS BIGINT) FROM node";
    let before = cluster.database.number(incarnations).await;
    wires.iter().for_each(|wire| wire.set_away(true));
    tokio::time::sleep(AWAY).await;
    // The one that is back first finds the lease of the other one over.
    wires[0].set_away(false);
    eventually("the first is back", SOON, async || ready(&cluster.servers[0]).await).await;
    wires[1].set_away(false);
    for stream in &streams {
        assert_eq!(stream.finished().await.finished, EVENTS);
    }
    cluster.all_done_once(2 * EVENTS).await;
    assert_eq!(cluster.database.number(incarnations).await, before);
    for server in &cluster.servers {
        assert!(!server.log().contains("took over"), "{}", server.log());
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_restart_in_turn_refuse_nothing() {
    const EVENTS: u64 = 120;
    let mut cluster = Cluster::start("rolling", 3).await;
    slow(&cluster.providers, 50);
    let streams = cluster.streams(EVENTS, 10.0);
    cluster.acknowledged(EVENTS / 4).await;
    for number in 0..3 {
        let server = &mut cluster.servers[number];
        let began = Instant::now();
        assert_eq!(server.stop().await, Some(0), "{}", server.log());
        println!("server {number} stopped in {:?}", began.elapsed());
        server.start_again().await;
    }
    for stream in &streams {
        assert_eq!(stream.finished().await.finished, EVENTS);
    }
    cluster.all_done_once(3 * EVENTS).await;
    // A connection may be refused or end; a server that answers must not say no. What waited for it comes all at once
    // though, and how much of that a busy machine takes at a time is another question.
    let refused: Vec<_> = cluster
        .providers
        .deliveries()
        .recent(10_000)
        .into_iter()
        .flat_map(|delivery| delivery.attempts)
        .filter(|attempt| attempt.status.is_some_and(|status| !(200..300).contains(&status)))
        .map(|attempt| attempt.answer)
        .filter(|answer| !answer.contains("QUEUE_FULL"))
        .collect();
    assert_eq!(refused, Vec::<String>::new());
    cluster.end().await;
}

async fn signed(server: &Server, secret: &str, event: &str) -> Answer {
    server
        .stripe_hook("stripe", secret, &payment_event(event, "pi_1"))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_on_one_server_is_in_force_on_the_others() {
    let cluster = Cluster::start("published", 2).await;
    let [first, second] = &cluster.servers[..] else {
        panic!("two servers")
    };
    // A secret rotated a moment ago is known before anybody hears 401, also right after a forged request.
    for round in 0..3 {
        let secret = format!("whsec_rotated_{round}");
        assert_eq!(
            signed(second, "whsec_forged", &format!("evt_forged_{round}"))
                .await
                .status,
            401
        );
        first.apply(&documents(&cluster.providers, &secret));
        let answer = signed(second, &secret, &format!("evt_rotated_{round}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let new = "kind: Endpoint\nname: other\nconnector: stripe\nsecrets: [whsec_other]";
    // A new endpoint is known before anybody hears 404, also right after a stranger tried an address.
    assert_eq!(second.hook("nobody", &[], "{}").await.status, 404);
    first.apply(new);
    assert_eq!(second.hook("other", &[], "{}").await.status, 401);
    first.apply(&new.replace("other", "another"));
    let found = graphql(first, r#"{ endpoint(name: \"another\") { id } }"#).await;
    let id = found["data"]["endpoint"]["id"].as_str().unwrap();
    let answer = post(&format!("{}/hooks/{id}", second.url), &[], "{}").await;
    assert_eq!(answer.status, 401, "{}", answer.text);
    // An id that was made long ago is no new one: nobody waits for a look at it.
    let answer = post(&format!("{}/hooks/ep_0000000000001", second.url), &[], "{}").await;
    assert_eq!(answer.status, 404, "{}", answer.text);
    cluster.end().await;
}

async fn graphql(server: &Server, query: &str) -> Value {
    let bearer = format!("Bearer {}", server.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = format!(r#"{{"query":"{query}"}}"#);
    post(&format!("{}/graphql", server.url), &headers, body).await.body
}

/// A workflow of its own for payments; each mark makes another version.
fn listener(name: &str, mark: u32) -> String {
    format!(
        "kind: Workflow\nname: {name}\non: {{ event: stripe.payment_intent.succeeded, connection: stripe, hydrate: never }}\n\
         steps:\n  - {{ id: mark, set: {{ mark: {mark} }} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_routed_by_what_was_published_before_it() {
    const ROUNDS: u32 = 8;
    let cluster = Cluster::start("routed", 2).await;
    let [first, second] = &cluster.servers[..] else {
        panic!("two servers")
    };
    for round in 1..=ROUNDS {
        // The heartbeat of the second server tells it within a second; the event is there before.
        first.apply(&listener("published", round));
        first.apply(&listener(&format!("added_{round}"), round));
        let event = format!("evt_routed_{round}");
        let answer = signed(second, SECRET, &event).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let text = format!(
            "SELECT CAST(v.number AS BIGINT) FROM run r JOIN workflow w ON w.id = r.workflow_id JOIN event e ON e.id = r.event_id \
             JOIN workflow_version v ON v.id = r.version_id WHERE w.name = 'published' AND e.external_id = '{event}'"
        );
        assert_eq!(cluster.database.number(&text).await, Some(round.into()));
        let text = format!(
            "SELECT count(*) FROM run r JOIN workflow w ON w.id = r.workflow_id JOIN event e ON e.id = r.event_id \
             WHERE w.name LIKE 'added%' AND e.external_id = '{event}'"
        );
        assert_eq!(cluster.database.number(&text).await, Some(round.into()));
    }
    let found = graphql(first, r#"{ workflow(name: \"published\") { id } }"#).await;
    let id = found["data"]["workflow"]["id"].as_str().unwrap().to_owned();
    let delete = format!(r#"mutation {{ workflowDelete(input: {{ id: \"{id}\" }}) {{ deletedId }} }}"#);
    let deleted = graphql(first, &delete).await;
    assert_eq!(deleted["data"]["workflowDelete"]["deletedId"], id, "{deleted}");
    assert_eq!(signed(second, SECRET, "evt_after_delete").await.status, 200);
    let text = "SELECT count(*) FROM run r JOIN event e ON e.id = r.event_id \
        WHERE e.external_id = 'evt_after_delete'";
    assert_eq!(cluster.database.number(text).await, Some(i64::from(ROUNDS) + 1));
    // What was taken away is not good any more, whatever the second server remembers.
    first.apply(&documents(&cluster.providers, "whsec_rotated"));
    assert_eq!(signed(second, SECRET, "evt_old_secret").await.status, 401);
    let text = "SELECT count(*) FROM event WHERE external_id = 'evt_old_secret'";
    assert_eq!(cluster.database.number(text).await, Some(0));
    assert_eq!(signed(second, "whsec_rotated", "evt_new_secret").await.status, 200);
    cluster.end().await;
}

/// Whoever comes second to a data folder, as by a restart that is too early, waits for the first and harms it not.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_one_folder_waits_for_the_first() {
    let database = Database::create("nodes_folder").await;
    let mut server = node(&database, "alone", &[]).await;
    let log = server.folder.path().join("second.log");
    let file = std::fs::File::create(&log).unwrap();
    let mut second = server.command_beside(&["serve"]);
    let mut second = second.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
    eventually("the second one says for whom it waits", SOON, async || {
        let log = std::fs::read_to_string(&log).unwrap();
        log.contains(&format!("(process {})", server.process_id()))
            .then_some(())
    })
    .await;
    // Longer than a lease: had the name been taken, the first one would have stopped.
    tokio::time::sleep(AWAY).await;
    assert!(server.is_alive() && second.try_wait().unwrap().is_none());
    assert!(ready(&server).await.is_some());
    assert_eq!(server.stop().await, Some(0));
    let announced = server.data().join("weir.url");
    let before = server.url.clone();
    server.url = eventually("the second one listens", SOON, async || {
        let url = std::fs::read_to_string(&announced).ok()?;
        let url = url.ends_with('\n').then(|| url.trim().to_owned());
        url.filter(|url| *url != before)
    })
    .await;
    eventually("the second one is ready", SOON, async || ready(&server).await).await;
    second.kill().unwrap();
    second.wait().unwrap();
    drop(server);
    database.drop().await;
}

pub(crate) async fn ready(server: &Server) -> Option<Value> {
    let answer = http().get(format!("{}/readyz", server.url)).send().await.ok()?;
    answer.status().is_success().then_some(())?;
    answer.json().await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_six_minutes_off_harms_nothing_and_is_reported() {
    const PAUSED: &str = "
kind: Workflow
name: paused
on: { manual: {} }
steps:
  - { id: pause, sleep: 8s }
";
    let mut cluster = Cluster::start("clock", 1).await;
    let off = node(&cluster.database, "off", &[("WEIR_CLOCK_SHIFT_S", "-360")]).await;
    cluster.servers.push(off);
    let off = &mut cluster.servers[1];
    let answer = signed(off, SECRET, "evt_clock").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let warnings = ready(off).await.unwrap()["warnings"].to_string();
    assert!(warnings.contains("360 s behind"), "{warnings}");
    let mut doctor = off.command(&["doctor"]);
    doctor
        .envs(cluster.database.settings())
        .env("WEIR_CLOCK_SHIFT_S", "-360");
    let told = doctor.output().unwrap();
    assert_eq!(told.status.code(), Some(1));
    assert!(
        stdout(&told).contains("360 s behind the database's"),
        "{}",
        stdout(&told)
    );
    // It would wake up six minutes late or early by the clock of the wrong one.
    off.apply(PAUSED);
    let began = Instant::now();
    assert!(off.weir(&["run", "start", "paused"]).status.success());
    eventually("it sleeps", SOON, async || {
        (off.runs(&["--status", "waiting"]).len() == 1).then_some(())
    })
    .await;
    off.kill();
    let first = &cluster.servers[0];
    eventually("it wakes up in time", Duration::from_secs(15), async || {
        (first.runs(&["--status", "succeeded", "--workflow", "paused"]).len() == 1).then_some(())
    })
    .await;
    assert!(began.elapsed() > Duration::from_secs(7), "{:?}", began.elapsed());
    assert_eq!(ready(first).await.unwrap()["warnings"].to_string(), "[]");
    let left = cluster.servers.pop();
    drop(left);
    cluster.end().await;
}
