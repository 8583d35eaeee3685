//! Runs that wait for their turn, through SIGKILL: in order, once, and nobody for ever.

use crate::support::{Database, MASTER_KEY, SOON, Server, eventually, stderr, stdout};
use crate::upstream::Upstream;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use weir_orchestrator::repair::BULK_IN_FLIGHT;

/// Changes of each order.
const CHANGES: u64 = 6;
const ORDERS: [&str; 4] = ["a", "b", "c", "d"];

fn documents(upstream: &Upstream, flow: &str, body: &str) -> String {
    format!(
        r#"
kind: Connection
name: log
connector: http
config: {{ base_url: "{url}", idempotency: {{ header: Idempotency-Key }} }}
---
kind: Endpoint
name: shop
connector: generic
verify: {{ token: {{ at: "header:X-Shop-Token" }} }}
secrets: [shop-token-0123456789]
---
kind: Workflow
name: changes
on: {{ event: generic.order.changed }}
{flow}
steps:
  - {{ id: bad, when: "{{{{ event.data.bad | default(false) }}}}", stop: {{ status: failed, reason: bad }} }}
  - {{ id: note, call: http.request, connection: log, with: {{ method: POST, path: /notes, body: {body} }} }}
  - {{ id: pause, sleep: 100ms }}
"#,
        url = upstream.url,
    )
}

async fn start(upstream: &Upstream, flow: &str, body: &str) -> Server {
    let server = Server::start_with(&[("WEIR_EGRESS_ALLOW", "127.0.0.0/8")]).await;
    server.apply(&documents(upstream, flow, body));
    server
}

async fn send(server: &Server, order: &str, change: u64, bad: bool) {
    let body = json!({
        "type": "order.changed", "event_id": format!("{order}-{change}"), "id": format!("{order}-{change}"),
        "order": order, "change": change, "bad": bad,
    });
    let answer = server
        .hook("shop", &[("x-shop-token", "shop-token-0123456789")], body.to_string())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// What the upstream was told, each request once, in the order of their first arrival.
fn notes(upstream: &Upstream) -> Vec<Value> {
    let mut seen = HashSet::new();
    let requests = upstream.requests().into_iter();
    requests
        .filter(|request| seen.insert(request.header("idempotency-key").unwrap().to_owned()))
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect()
}

async fn done(server: &Server, count: usize) {
    eventually(&format!("{count} runs are done"), SOON, async || {
        (server.runs(&["--status", "succeeded"]).len() == count).then_some(())
    })
    .await;
    for status in ["queued", "running", "waiting"] {
        assert_eq!(server.runs(&["--status", status]).len(), 0, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_is_told_in_order_whenever_the_process_dies() {
    let upstream = Upstream::start().await;
    let body = r#"{ order: "{{ event.data.order }}", change: "{{ event.data.change }}" }"#;
    let flow = "lane: \"order {{ event.data.order }}\"\nconcurrency: 3";
    let mut server = start(&upstream, flow, body).await;
    for change in 1..=CHANGES {
        for order in ORDERS {
            send(&server, order, change, false).await;
        }
        if change % 2 == 0 {
            server.kill();
            server.start_again().await;
        }
    }
    told_in_order(&server, &upstream).await;
}

/// Every change of every order was told once, and those of each order one after the other.
async fn told_in_order(server: &Server, upstream: &Upstream) {
    done(server, ORDERS.len() * usize::try_from(CHANGES).unwrap()).await;
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for note in notes(upstream) {
        let order = note["order"].as_str().unwrap().to_owned();
        told.entry(order).or_default().push(note["change"].as_u64().unwrap());
    }
    let all: Vec<u64> = (1..=CHANGES).collect();
    for order in ORDERS {
        assert_eq!(told[order], all, "order {order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_keep_one_order_and_one_takes_over_from_the_other() {
    let database = Database::create("turns").await;
    let upstream = Upstream::start().await;
    let settings = |node| {
        [
            ("WEIR_EGRESS_ALLOW", "127.0.0.0/8"),
            ("WEIR_DATABASE_URL", database.url.as_str()),
            ("WEIR_MASTER_KEY", MASTER_KEY),
            ("WEIR_NODE", node),
        ]
    };
    let body = r#"{ order: "{{ event.data.order }}", change: "{{ event.data.change }}" }"#;
    let flow = "lane: \"order {{ event.data.order }}\"\nconcurrency: 3";
    let mut first = Server::start_with(&settings("one")).await;
    first.apply(&documents(&upstream, flow, body));
    let mut second = Server::start_with(&settings("two")).await;
    for change in 1..=CHANGES {
        for order in ORDERS {
            let node = if change % 2 == 0 { &first } else { &second };
            send(node, order, change, false).await;
        }
    }
    second.kill();
    told_in_order(&first, &upstream).await;
    assert_eq!(first.stop().await, Some(0), "{}", first.log());
    database.drop().await;
}

const PACKS: &str = r#"
kind: Workflow
name: packs
on: { event: generic.order.packed }
batch: { size: 2, for: 10m }
steps:
  - id: note
    call: http.request
    connection: log
    with: { method: POST, path: /notes, body: { numbers: "{{ event.batch | map(attribute='data') | map(attribute='number') | list }}" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn turns_hold_where_events_come_in_at_one_server_and_runs_are_driven_by_others() {
    let database = Database::create("turns_of_parts").await;
    let upstream = Upstream::start().await;
    let node = async |name, roles| {
        let mut settings = database.settings().to_vec();
        settings.extend([
            ("WEIR_EGRESS_ALLOW", "127.0.0.0/8"),
            ("WEIR_NODE", name),
            ("WEIR_ROLES", roles),
        ]);
        Server::start_with(&settings).await
    };
    let desk = node("desk", "api").await;
    let body = r#"{ order: "{{ event.data.order }}", change: "{{ event.data.change }}" }"#;
    let flow = "lane: \"order {{ event.data.order }}\"\nconcurrency: 3";
    desk.apply(&documents(&upstream, flow, body));
    desk.apply(PACKS);
    let door = node("door", "ingest").await;
    let mut first = node("a", "worker").await;
    let _second = node("b", "worker").await;
    for change in 1..=CHANGES {
        for order in ORDERS {
            send(&door, order, change, false).await;
        }
        if change == CHANGES / 2 {
            first.kill();
        }
    }
    told_in_order(&desk, &upstream).await;
    // The second event of a pack, which comes in where no run is driven, lets the first one start.
    for number in 1..=2 {
        let body = json!({ "type": "order.packed", "event_id": format!("pack-{number}"), "number": number });
        let token = [("x-shop-token", "shop-token-0123456789")];
        assert_eq!(door.hook("shop", &token, body.to_string()).await.status, 200);
    }
    eventually("the pack is told", SOON, async || {
        notes(&upstream).contains(&json!({ "numbers": [1, 2] })).then_some(())
    })
    .await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_order_holds_its_own_lane_until_a_person_lets_it_go() {
    let upstream = Upstream::start().await;
    let body = r#"{ order: "{{ event.data.order }}", change: "{{ event.data.change }}" }"#;
    let flow = "lane: { key: \"{{ event.data.order }}\", on_block: hold }";
    let mut server = start(&upstream, flow, body).await;
    send(&server, "a", 1, true).await;
    send(&server, "a", 2, false).await;
    send(&server, "b", 1, false).await;
    done_in(&server, "succeeded", 1).await;
    let failed = done_in(&server, "failed", 1).await;
    server.kill();
    server.start_again().await;
    let waiting = done_in(&server, "queued", 1).await;
    let holder = failed[0]["id"].as_str().unwrap();
    assert_eq!(waiting[0]["waitingFor"]["heldBy"]["id"], failed[0]["id"]);
    let told = stdout(&server.weir(&["run", "show", waiting[0]["id"].as_str().unwrap()]));
    assert!(
        told.contains(&format!("waits for its lane, held by {holder}")),
        "{told}"
    );
    let held = server.list(&["lanes", "--json"]);
    assert_eq!((held.len(), held[0]["runId"].as_str()), (1, Some(holder)));
    // It says so itself, too.
    for told in [
        stdout(&server.weir(&["run", "show", holder])),
        stdout(&server.weir(&["runs", "--status", "failed"])),
    ] {
        assert!(told.contains("keeps its lane, 1 waiting behind it"), "{told}");
    }
    // One that waits can be ended, and never begins.
    send(&server, "a", 3, false).await;
    let newest = done_in(&server, "queued", 2).await[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let canceled = server.weir(&["run", "cancel", &newest]);
    assert!(canceled.status.success(), "{}", stderr(&canceled));
    done_in(&server, "canceled", 1).await;
    let wrong = server.weir(&["run", "release", &newest]);
    assert!(
        !wrong.status.success() && stderr(&wrong).contains("keeps no lane"),
        "{}",
        stderr(&wrong)
    );
    let released = server.weir(&["run", "release", holder]);
    assert!(released.status.success(), "{}", stderr(&released));
    done(&server, 2).await;
    assert_eq!(server.list(&["lanes", "--json"]).len(), 0);
    assert_eq!(notes(&upstream).len(), 2);
    let told = server.list(&["audit", "--action", "lane.release", "--json"]);
    assert_eq!((told.len(), told[0]["subject"].as_str()), (1, Some(holder)), "{told:?}");
    // Many of them are let go together, those of other workflows are not.
    for order in ["c", "d"] {
        send(&server, order, 1, true).await;
        send(&server, order, 2, false).await;
    }
    done_in(&server, "queued", 2).await;
    let other = server.weir(&["bulk", "release", "--workflow", "nothing", "--yes"]);
    assert!(!other.status.success() && stderr(&other).contains("no held lane fits"));
    assert_eq!(server.list(&["lanes", "--json"]).len(), 2);
    let all = server.weir(&["bulk", "release", "--yes"]);
    assert!(
        stdout(&all).contains("2 held lanes, 2 runs wait behind them") && stdout(&all).contains("2 of 2 lanes let go"),
        "{}{}",
        stdout(&all),
        stderr(&all)
    );
    done(&server, 4).await;
}

async fn done_in(server: &Server, status: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} runs are {status}"), SOON, async || {
        let runs = server.runs(&["--status", status]);
        (runs.len() == count).then_some(runs)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_gathered_over_a_crash() {
    let upstream = Upstream::start().await;
    let body = r#"{ changes: "{{ event.batch | map(attribute='data') | map(attribute='change') | list }}" }"#;
    let mut server = start(
        &upstream,
        "batch: { key: \"{{ event.data.order }}\", size: 4, for: 3s }",
        body,
    )
    .await;
    for change in 1..=3 {
        send(&server, "a", change, false).await;
    }
    server.kill();
    server.start_again().await;
    // A repeat of an event is no new one.
    send(&server, "a", 3, false).await;
    done(&server, 1).await;
    assert_eq!(notes(&upstream), [json!({ "changes": [1, 2, 3] })]);
    let merged = server.runs(&["--status", "merged"]);
    let run = &server.runs(&["--status", "succeeded"])[0];
    assert!(merged.len() == 2 && merged.iter().all(|other| other["mergedInto"]["id"] == run["id"]));
    // The run names each event that it stands for.
    let shown = stdout(&server.weir(&["run", "show", run["id"].as_str().unwrap()]));
    for other in &merged {
        let (id, event) = (other["id"].as_str().unwrap(), other["event"]["id"].as_str().unwrap());
        assert!(shown.contains(id) && shown.contains(event), "{shown}");
    }
    for change in 4..=7 {
        send(&server, "a", change, false).await;
    }
    done(&server, 2).await;
    assert_eq!(notes(&upstream)[1], json!({ "changes": [4, 5, 6, 7] }));
    // The replay works on the same events, and tells nobody a second time.
    let replayed = server.weir(&["run", "replay", run["id"].as_str().unwrap(), "--yes"]);
    assert!(replayed.status.success(), "{}", stderr(&replayed));
    done(&server, 3).await;
    assert_eq!(notes(&upstream).len(), 2);
    let other = server.weir(&["run", "replay", merged[0]["id"].as_str().unwrap(), "--yes"]);
    assert!(stderr(&other).contains("stands for its event"), "{}", stderr(&other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_and_a_throttle_outlive_the_process() {
    let upstream = Upstream::start().await;
    let body = r#"{ order: "{{ event.data.order }}", change: "{{ event.data.change }}" }"#;
    let flow = "debounce: { key: \"{{ event.data.order }}\", for: 1s }\nthrottle: { limit: 1, per: 1s }";
    let mut server = start(&upstream, flow, body).await;
    for order in ["a", "b", "c"] {
        for change in 1..=3 {
            send(&server, order, change, false).await;
        }
    }
    server.kill();
    server.start_again().await;
    done(&server, 3).await;
    let mut told = notes(&upstream);
    told.sort_by_key(|note| note["order"].to_string());
    let last = |order: &str| json!({ "order": order, "change": 3 });
    assert_eq!(told, [last("a"), last("b"), last("c")]);
    let mut starts: Vec<i64> = server
        .runs(&["--status", "succeeded"])
        .iter()
        .map(|run| millis(&run["finishedAt"]))
        .collect();
    starts.sort_unstable();
    // Each ends a tenth of a second after it began, a little more or less.
    assert!(starts.windows(2).all(|two| two[1] - two[0] >= 700), "{starts:?}");
}

/// Replays of many runs stand in the queue of their workflow a few at a time, so that what comes in waits for those alone.
#[tokio::test(flavor = "multi_thread")]
async fn replays_of_many_runs_leave_room_in_the_queue_for_what_comes_in() {
    let upstream = Upstream::start().await;
    let limited = |path: &str| {
        documents(
            &upstream,
            "concurrency: { limit: 1 }",
            "{ id: \"{{ event.data.id }}\" }",
        )
        .replace("/notes", path)
        .replace("100ms", "1ms")
    };
    let server = Server::start_with(&[("WEIR_EGRESS_ALLOW", "127.0.0.0/8")]).await;
    server.apply(&limited("/fail"));
    for change in 0..24 {
        send(&server, "a", change, false).await;
    }
    done_in(&server, "failed", 24).await;
    let failed = upstream.requests().len();
    server.apply(&limited("/notes"));
    upstream.hold(&["notes"]);
    done_by(
        &server,
        &["bulk", "replay", "--workflow", "changes", "--live", "--yes", "--detach"],
    );
    let open = || server.runs(&["--status", "queued"]).len() + server.runs(&["--status", "running"]).len();
    eventually("as many replays as may be are begun", SOON, async || {
        (open() == BULK_IN_FLIGHT).then_some(())
    })
    .await;
    send(&server, "b", 1, false).await;
    assert_eq!(open(), BULK_IN_FLIGHT + 1);
    upstream.hold(&[]);
    done(&server, 25).await;
    let told: Vec<Value> = notes(&upstream).split_off(failed);
    let place = told.iter().position(|note| note["id"] == "b-1").unwrap();
    assert_eq!((told.len(), place), (25, BULK_IN_FLIGHT), "{told:?}");
}

fn millis(time: &Value) -> i64 {
    chrono::DateTime::parse_from_rfc3339(time.as_str().unwrap())
        .unwrap()
        .timestamp_millis()
}

/// A run that waits for its turn can be held and let go on as often as people like: its time has not begun, and nothing of
/// it happens before its turn comes.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_begins_nothing_however_often_it_is_held_and_let_go_on() {
    let server = Server::start().await;
    let workflow = |name: &str, more: &str| {
        format!(
            "kind: Workflow\nname: {name}\non: {{ manual: {{}} }}\n{more}steps:\n  - {{ id: seen, set: {{ at: \"{{{{ now }}}}\" }} }}\n\
             on_failure: [{{ id: told, set: {{ it: failed }} }}]\n"
        )
    };
    server.apply(&workflow("limited", "timeout: 1s\nthrottle: { limit: 1, per: 10s }\n"));
    server.apply(&workflow("off", ""));
    done_by(&server, &["workflow", "pause", "off"]);
    let first = done_by(&server, &["run", "start", "limited"]);
    eventually("the first one is through", SOON, async || {
        (server.runs(&["--status", "succeeded"]).len() == 1).then_some(())
    })
    .await;
    let held: Vec<String> = ["limited", "limited", "off"]
        .iter()
        .map(|name| done_by(&server, &["run", "start", name]).trim().to_owned())
        .collect();
    // Longer than the time limit of a run.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    for run in &held {
        done_by(&server, &["run", "pause", run]);
    }
    let listed = eventually("all of them are held", SOON, async || {
        let listed = stdout(&server.weir(&["runs", "--status", "queued"]));
        (listed.matches("paused until somebody resumes it").count() == 3).then_some(listed)
    })
    .await;
    assert!(listed.contains("throttle"), "{listed}");
    // Many at once reach those that wait for their turn, too.
    let resumed = server.weir(&["bulk", "resume", "--yes"]);
    let told = stdout(&resumed);
    assert!(
        resumed.status.success() && told.contains("3 of 3 asked"),
        "{told}{}",
        stderr(&resumed)
    );
    eventually("nobody is held", SOON, async || {
        let listed = stdout(&server.weir(&["runs", "--status", "queued"]));
        (!listed.contains("paused until")).then_some(())
    })
    .await;
    for run in &held {
        let told = done_by(&server, &["run", "show", run]);
        assert!(told.contains("queued") || told.contains("succeeded"), "{told}");
    }
    assert!(stderr(&server.weir(&["bulk", "resume", "--yes"])).contains("no open run fits"));
    // The throttle lets one start each ten seconds, and the workflow that is paused none.
    let started = |run: &str| {
        let runs = server.runs(&[]);
        let run = runs.iter().find(|found| found["id"] == run.trim()).cloned().unwrap();
        assert_ne!(run["status"], "FAILED", "{run:#}");
        (run["status"] == "SUCCEEDED").then(|| {
            run["startedAt"]
                .as_str()
                .unwrap()
                .parse::<chrono::DateTime<chrono::Utc>>()
                .unwrap()
        })
    };
    let limit = std::time::Duration::from_secs(60);
    let [second, third] = [0, 1].map(|at| held[at].clone());
    let (second, third) = eventually("both are through", limit, async || {
        Some((started(&second)?, started(&third)?))
    })
    .await;
    let first = started(&first).unwrap();
    for (one, other) in [(first, second), (second, third)] {
        let apart = (other - one).num_milliseconds();
        assert!(apart >= 9_900, "they started {apart} ms apart");
    }
    assert_eq!(started(&held[2]), None, "its workflow is paused");
    done_by(&server, &["workflow", "resume", "off"]);
    eventually("the last one is through", SOON, async || started(&held[2])).await;
}

fn done_by(server: &Server, arguments: &[&str]) -> String {
    let output = server.weir(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}
