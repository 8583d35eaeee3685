//! A server that is asked to stop: what has left comes back and is written down, nothing new leaves, and the next server
//! goes on without a question left open. The provider honours no keys, so nothing may be sent twice.

use crate::nodes::node;
use crate::support::{Database, SOON, Server, eventually, http, stdout};
use crate::upstream::Upstream;
use futures::future::join_all;
use serde_json::Value;
use std::time::Duration;

/// Longer than the answers that are waited for.
const GRACE: (&str, &str) = ("WEIR_SHUTDOWN_GRACE_S", "20");
const LIMIT: Duration = Duration::from_secs(60);

fn documents(url: &str) -> String {
    let post = |id: &str, path: &str| {
        format!("{{ id: {id}, call: http.request, connection: bank, with: {{ method: POST, path: {path} }} }}")
    };
    let (pay, mail) = (post("pay", "/pay"), post("mail", "/mail"));
    let (one, two, three) = (post("one", "/one"), post("two", "/two"), post("three", "/three"));
    let (slow, after) = (post("slow", "/slow/first"), post("after", "/after"));
    format!(
        "kind: Connection\nname: bank\nconnector: http\nconfig: {{ base_url: '{url}' }}\n---\n\
         kind: Workflow\nname: chain\non: {{ manual: {{}} }}\nsteps: [{pay}, {mail}]\n---\n\
         kind: Workflow\nname: fork\non: {{ manual: {{}} }}\nsteps: [{{ id: both, parallel: {{ a: [{one}, {three}], b: [{two}] }} }}]\n---\n\
         kind: Workflow\nname: steady\non: {{ manual: {{}} }}\nsteps: [{slow}, {after}]\n"
    )
}

fn start(server: &Server, workflow: &str) {
    let started = server.weir(&["run", "start", workflow]);
    assert!(started.status.success(), "{}", crate::support::stderr(&started));
    assert!(stdout(&started).starts_with("run_"));
}

async fn asked(bank: &Upstream, part: &str, count: usize) {
    eventually("the provider was asked", SOON, async || {
        (bank.count(part) >= count).then_some(())
    })
    .await;
}

/// Resolves when the server takes no work any more.
async fn stops(url: &str) {
    eventually("the server is stopping", SOON, async || {
        let answer = http().get(format!("{url}/readyz")).send().await;
        answer.map_or(true, |answer| answer.status() != 200).then_some(())
    })
    .await;
}

async fn succeeded(server: &Server, count: usize) -> Vec<Value> {
    eventually("all runs succeeded", LIMIT, async || {
        let failed = server.runs(&["--status", "failed"]);
        assert_eq!(failed, Vec::<Value>::new(), "{}", server.log());
        let done = server.runs(&["--status", "succeeded"]);
        (done.len() == count).then_some(done)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_come_during_a_stop_are_kept_and_what_follows_is_sent_once() {
    const RUNS: usize = 5;
    let bank = Upstream::start().await;
    let mut server = Server::start_with(&[GRACE, ("WEIR_EGRESS_ALLOW", "127.0.0.0/8")]).await;
    server.apply(&documents(&bank.url));
    bank.hold(&["pay", "one", "two"]);
    for _ in 0..RUNS {
        start(&server, "chain");
    }
    start(&server, "fork");
    asked(&bank, "pay", RUNS).await;
    asked(&bank, "one", 1).await;
    asked(&bank, "two", 1).await;
    let url = server.url.clone();
    let release = async {
        stops(&url).await;
        // One branch comes back before the other one.
        bank.hold(&["two"]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        bank.hold(&[]);
    };
    let (code, ()) = futures::join!(server.stop(), release);
    assert_eq!(code, Some(0), "{}", server.log());
    assert_eq!(
        (bank.count("mail"), bank.count("three")),
        (0, 0),
        "something left during the stop"
    );
    server.start_again().await;
    succeeded(&server, RUNS + 1).await;
    for (part, wanted) in [("pay", RUNS), ("mail", RUNS), ("one", 1), ("two", 1), ("three", 1)] {
        assert_eq!(bank.count(part), wanted, "{part}");
    }
    // The story tells why a call was put off, and counts no try for it.
    let told: Vec<String> = server
        .runs(&["--workflow", "chain"])
        .iter()
        .map(|run| stdout(&server.weir(&["run", "show", run["id"].as_str().unwrap()])))
        .collect();
    for told in told {
        assert!(told.contains("mail") && !told.contains("try 2"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_leaves_no_effect_in_doubt() {
    const EACH: usize = 12;
    let bank = Upstream::start().await;
    let database = Database::create("stops").await;
    let mut servers = Vec::new();
    for name in ["first", "second", "third"] {
        servers.push(node(&database, name, &[GRACE]).await);
    }
    servers[0].apply(&documents(&bank.url));
    for server in &mut servers {
        eventually("the workflow is known", SOON, async || {
            let known = server.list(&["workflows", "--json"]);
            (known.len() == 3).then_some(())
        })
        .await;
        for _ in 0..EACH {
            start(server, "steady");
        }
        assert_eq!(server.stop().await, Some(0), "{}", server.log());
        server.start_again().await;
    }
    let all = EACH * servers.len();
    succeeded(&servers[0], all).await;
    assert_eq!((bank.count("slow"), bank.count("after")), (all, all));
    for code in join_all(servers.iter_mut().map(Server::stop)).await {
        assert_eq!(code, Some(0));
    }
    drop(servers);
    database.drop().await;
}
