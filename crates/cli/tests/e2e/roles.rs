//! Servers that each do a part of the work.

use crate::nodes::{documents, node, ready};
use crate::support::{Database, SOON, Server, eventually, http, payment_event, stdout};
use crate::upstream::Upstream;
use crate::wire::Wire;
use serde_json::json;
use std::time::Duration;
use weir_simulator::{RetryPolicy, Scenario, Simulator, SimulatorOptions, StreamOptions};

const SECRET: &str = "whsec_roles";
const EVENTS: u64 = 150;
/// A busy machine may need long for what is normally done in seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// Without being told of a new run, a worker would find it half a second later on average.
const TOLD_WITHIN_MS: i64 = 400;
/// How long statements are counted, and how often until a round of retention or the like is not among them.
const COUNTED: Duration = Duration::from_secs(5);
const COUNTS: usize = 4;

struct Split {
    wires: Vec<Wire>,
    door: Server,
    workers: [Server; 2],
    desk: Server,
}

async fn split(database: &Database) -> Split {
    let mut wires = Vec::new();
    let mut started = Vec::new();
    for (name, roles) in [("door", "ingest"), ("a", "worker"), ("b", "worker"), ("desk", "api")] {
        let wire = Wire::before(&database.url).await;
        let more = [("WEIR_ROLES", roles), ("WEIR_DATABASE_URL", &wire.url)];
        started.push(node(database, name, &more).await);
        wires.push(wire);
    }
    let [door, first, second, desk] = started.try_into().ok().expect("four were started");
    Split {
        wires,
        door,
        workers: [first, second],
        desk,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_does_its_part_and_idles_on_one_statement_a_second() {
    let database = Database::create("roles").await;
    let providers = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let mut split = split(&database).await;
    split.desk.apply(&documents(&providers, SECRET));
    others_are_named(&split).await;
    eventually("the endpoint is known", SOON, async || {
        (split.door.hook("stripe", &[], "{}").await.status == 401).then_some(())
    })
    .await;

    // One at a time: how soon does a worker hear of it?
    let mut took_ms = Vec::new();
    for number in 0..9 {
        let url = format!("{}/hooks/main/stripe", split.door.url);
        let delivery = providers.delivery(Scenario::Payment, 10_000 + number, &url, &[SECRET]);
        assert!(providers.send(&delivery).await.unwrap().acknowledged);
        let event = delivery.id;
        let text = format!(
            "SELECT min(finished_at - started_at) FROM run JOIN event ON event.id = run.event_id \
             WHERE external_id = '{event}' AND status >= 2"
        );
        took_ms.push(eventually("it is over", LIMIT, async || database.number(&text).await).await);
    }
    took_ms.sort_unstable();
    println!("from acceptance on one server to the end on another: {took_ms:?} ms");
    assert!(took_ms[4] < TOLD_WITHIN_MS, "{took_ms:?}");

    let stream = providers
        .stream(StreamOptions {
            scenario: Scenario::Payment,
            url: format!("{}/hooks/main/stripe", split.door.url),
            signed_url: None,
            secrets: vec![SECRET.to_owned()],
            rate_per_s: 50.0,
            first: 1,
            count: Some(EVENTS),
            forge_every: 0,
            retry: Some(RetryPolicy {
                delays_ms: vec![250; 400],
                timeout_ms: 10_000,
            }),
        })
        .unwrap();
    stream.finished().await;
    eventually("no run is open", LIMIT, async || {
        (database.number("SELECT count(*) FROM run WHERE status < 2").await == Some(0)).then_some(())
    })
    .await;
    let balance = providers.balance();
    assert_eq!((balance.missing_count, balance.doubled_count), (0, 0), "{balance:?}");
    let shares = "SELECT min(share) FROM (SELECT count(*) AS share FROM run GROUP BY owner) AS shares";
    let smaller = database.number(shares).await.unwrap();
    let owners = database.number("SELECT count(DISTINCT owner) FROM run").await;
    println!("the smaller share of {EVENTS} runs: {smaller}");
    assert_eq!(owners, Some(2), "both workers, and nobody else");
    assert!(smaller > i64::try_from(EVENTS / 10).unwrap(), "{smaller}");

    a_caller_is_answered_by_another_server(&split).await;
    idles(&split.wires).await;
    for server in [&mut split.door, &mut split.desk].into_iter().chain(&mut split.workers) {
        assert!(ready(server).await.is_some());
        assert_eq!(server.stop().await, Some(0), "{}", server.log());
    }
    drop(split);
    providers.stop().await;
    database.drop().await;
}

/// What a server does not do, it says so clearly.
async fn others_are_named(split: &Split) {
    let graphql = async |server: &Server| {
        let asked = http()
            .post(format!("{}/graphql", server.url))
            .bearer_auth(&server.token);
        asked.json(&json!({ "query": "{ __typename }" })).send().await.unwrap()
    };
    assert!(graphql(&split.desk).await.status().is_success());
    for server in [&split.door, &split.workers[0]] {
        let refused = graphql(server).await;
        assert_eq!(refused.status().as_u16(), 421);
        assert!(
            refused
                .text()
                .await
                .unwrap()
                .contains("served by those with the role api")
        );
    }
    for server in [&split.desk, &split.workers[1]] {
        let detail = server.hook("stripe", &[], "{}").await.problem(421, "ROLE_ELSEWHERE");
        assert!(detail.contains("served by those with the role ingest"), "{detail}");
    }
}

const ANSWERING: &str = "
kind: Endpoint
name: questions
connector: stripe
secrets: [whsec_roles]
---
kind: Workflow
name: answers
on: { event: stripe.payment_intent.succeeded }
steps:
  - { id: say, respond: { status: 201, body: { amount: '{{ event.data.object.amount }}' }, within: 20s } }
";

async fn a_caller_is_answered_by_another_server(split: &Split) {
    split.desk.apply(ANSWERING);
    let ask = async |event: &str| {
        let body = payment_event(event, "pi_asked");
        split.door.stripe_hook("questions", SECRET, &body).await
    };
    eventually("the endpoint is known", SOON, async || {
        (split.door.hook("questions", &[], "{}").await.status == 401).then_some(())
    })
    .await;
    let answer = ask("evt_question").await;
    assert_eq!(
        (answer.status, &answer.body),
        (201, &json!({ "amount": 2000 })),
        "{}",
        answer.text
    );
}

/// Nobody drives runs: they say so instead of looking as if they were under way.
#[tokio::test(flavor = "multi_thread")]
async fn runs_that_no_server_drives_wait_for_a_worker() {
    let database = Database::create("workerless").await;
    let mut desk = node(&database, "desk", &[("WEIR_ROLES", "ingest,api")]).await;
    desk.apply(
        "kind: Workflow\nname: note\non: { manual: {} }\nsteps: [{ id: a, set: { b: 1 } }]\n---\n\
         kind: Endpoint\nname: shop\nconnector: generic\nverify: { token: { at: 'header:X-Shop-Token' } }\nsecrets: [shop-token-0123456789]\n---\n\
         kind: Workflow\nname: seen\non: { event: generic.order }\nsteps: [{ id: a, set: { b: 1 } }]\n",
    );
    let started = desk.weir(&["run", "start", "note"]);
    let run = stdout(&started).trim().to_owned();
    let waits = "waits for a worker: no server with the role `worker` is up";
    eventually("it waits for a worker", SOON, async || {
        let runs = desk.runs(&["--status", "running"]);
        (runs.len() == 1 && runs[0]["waitingFor"]["reason"] == "WORKER").then_some(())
    })
    .await;
    assert!(stdout(&desk.weir(&["runs"])).contains(waits));
    assert!(stdout(&desk.weir(&["run", "show", &run])).contains(waits));
    let health = ready(&desk).await.expect("it takes what it can");
    assert!(
        health["warnings"][0]
            .as_str()
            .unwrap()
            .contains("no server with the role `worker` is up")
    );
    // What waited for the end of a pause waits for a worker then: nobody else lets it through.
    let waits_for = async |reason: &str| {
        eventually(reason, SOON, async || {
            let runs = desk.runs(&["--workflow", "seen"]);
            (runs.len() == 1 && runs[0]["waitingFor"]["reason"] == reason).then_some(())
        })
        .await;
    };
    assert!(desk.weir(&["workflow", "pause", "seen"]).status.success());
    let order = json!({ "type": "order", "id": "o-1" }).to_string();
    let token = ("x-shop-token", "shop-token-0123456789");
    assert_eq!(desk.hook("shop", &[token], order).await.status, 200);
    waits_for("PAUSE").await;
    assert!(desk.weir(&["workflow", "resume", "seen"]).status.success());
    waits_for("WORKER").await;
    let mut worker = node(&database, "worker", &[("WEIR_ROLES", "worker")]).await;
    eventually("a worker came", SOON, async || {
        let health = ready(&desk).await?;
        let warned = !health["warnings"].as_array()?.is_empty();
        (!warned && desk.runs(&["--status", "succeeded"]).len() == 2).then_some(())
    })
    .await;
    for server in [&mut desk, &mut worker] {
        assert_eq!(server.stop().await, Some(0));
    }
    database.drop().await;
}

/// One server changes the configuration, another takes the event in, a third drives its run: with what was in force when
/// the event was stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_by_the_configuration_that_the_event_met() {
    let database = Database::create("roles_config").await;
    let split = split(&database).await;
    let (old, new) = (Upstream::start().await, Upstream::start().await);
    let documents = |bank: &Upstream| {
        format!(
            "kind: Connection\nname: bank\nconnector: http\nconfig: {{ base_url: '{}', idempotency: {{ header: Key }} }}\n---\n\
             kind: Endpoint\nname: shop\nconnector: generic\nverify: {{ token: {{ at: 'header:X-Shop-Token' }} }}\nsecrets: [shop-token-0123456789]\n---\n\
             kind: Workflow\nname: pay\non: {{ event: generic.order }}\n\
             steps: [{{ id: pay, call: http.request, connection: bank, with: {{ method: POST, path: '/{{{{ event.data.id }}}}' }} }}]\n",
            bank.url
        )
    };
    for number in 0..8 {
        let (there, elsewhere) = if number % 2 == 0 { (&old, &new) } else { (&new, &old) };
        split.desk.apply(&documents(there));
        let (order, token) = (format!("o{number}"), ("x-shop-token", "shop-token-0123456789"));
        let body = json!({ "type": "order", "id": order });
        let taken = split.door.hook("shop", &[token], body.to_string()).await;
        assert_eq!(taken.status, 200, "{}", taken.text);
        eventually("the order is paid", SOON, async || {
            assert_eq!(elsewhere.count(&order), 0, "{order} went to the address of before");
            (there.count(&order) == 1).then_some(())
        })
        .await;
    }
    drop(split);
    database.drop().await;
}

/// At most one statement per server and second.
async fn idles(wires: &[Wire]) {
    let allowed = COUNTED.as_secs();
    let mut counts = Vec::new();
    for _ in 0..COUNTS {
        let before: Vec<u64> = wires.iter().map(Wire::statements).collect();
        tokio::time::sleep(COUNTED).await;
        counts = wires
            .iter()
            .zip(before)
            .map(|(wire, before)| wire.statements() - before)
            .collect();
        println!("statements in {COUNTED:?}: {counts:?}");
        if counts.iter().all(|count| (1..=allowed).contains(count)) {
            return;
        }
    }
    panic!("idling costs {counts:?} statements in {COUNTED:?}");
}
