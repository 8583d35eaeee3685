//! Commits of which nobody can say whether they took place: an answer that is lost, a sync that fails.

use crate::support::{API, Answer, Database, SOON, Server, eventually};
use crate::wire::Wire;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

const DOCUMENTS: &str = "
kind: Workflow
name: counting
on: { event: generic.order }
steps:
  - { id: pause, sleep: 5ms }
  - { id: note, set: { order: '{{ event.id }}' } }
";

async fn order(server: &Server, id: &str) -> Answer {
    let body = format!(r#"{{"type":"order","id":"{id}"}}"#);
    server.hook("api", &[("x-api-token", "t")], body).await
}

/// How often the runs of each order ended well.
fn succeeded(server: &Server) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for run in server.runs(&["--status", "succeeded"]) {
        *counts
            .entry(run["event"]["externalId"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    counts
}

/// The event is on disk and its owner alive, but no hand-over in memory took place: the scan finds its run.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_commit_lost_its_answer_runs_without_being_sent_again() {
    let database = Database::create("unknown_commit").await;
    let wire = Wire::before(&database.url).await;
    let mut settings = database.settings().to_vec();
    settings[0] = ("WEIR_DATABASE_URL", &wire.url);
    let server = Server::start_with(&settings).await;
    server.apply(&[API, DOCUMENTS].concat());
    assert_eq!(order(&server, "first").await.status, 200);
    wire.lose_the_answer_to("order-that-was-committed");
    let answer = order(&server, "order-that-was-committed").await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    eventually("the run is found", SOON, async || {
        succeeded(&server)
            .contains_key("order-that-was-committed")
            .then_some(())
    })
    .await;
    // The provider does send it again: it is known.
    let answer = order(&server, "order-that-was-committed").await;
    assert_eq!(answer.status, 200);
    assert!(answer.text.contains(r#""duplicate":true"#), "{}", answer.text);
    assert_eq!(succeeded(&server)["order-that-was-committed"], 1);
    drop(server);
    database.drop().await;
}

/// A disk that fails now and then, until this is dropped.
struct Fault(Child);

impl Fault {
    /// The syncs from the `first` to the `last` one fail, counted for each thread.
    fn of(server: &Server, first: u32, last: u32) -> Self {
        // SQLite calls the one or the other, as it was built.
        let fault = format!("inject=fsync,fdatasync:error=EIO:when={first}..{last}");
        let mut tracer = Command::new("strace")
            .args(["-f", "-e", "trace=fsync,fdatasync", "-e", &fault, "-o", "/dev/null"])
            .args(["-p", &server.process_id().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(tracer.stderr.as_mut().unwrap())
            .read_line(&mut said)
            .unwrap();
        assert!(said.contains("attached"), "{said}");
        Self(tracer)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // An interrupted tracer lets its process go on; a killed one may not.
        let interrupted = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        assert!(interrupted.unwrap().success());
        self.0.wait().unwrap();
    }
}

/// A disk that cannot sync: nothing is acknowledged on the word of a second try, and the server goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_refused_while_the_disk_cannot_sync_and_none_is_lost() {
    let server = Server::start().await;
    server.apply(&[API, DOCUMENTS].concat());
    let fault = Fault::of(&server, 10, 12);
    let mut refused = Vec::new();
    let mut accepted = Vec::new();
    for number in 0..120 {
        let id = format!("order-{number}");
        let answer = order(&server, &id).await;
        match answer.status {
            200 => accepted.push(id),
            503 => refused.push(id),
            other => panic!("{other}: {}", answer.text),
        }
    }
    assert!(!refused.is_empty(), "no sync failed");
    assert!(refused.len() < 20, "the server did not come back: {refused:?}");
    assert_eq!(accepted.last().unwrap(), "order-119", "the server takes events again");
    drop(fault);
    for id in &refused {
        assert_eq!(order(&server, id).await.status, 200);
    }
    let all = eventually("every run ends", SOON, async || {
        let counts = succeeded(&server);
        (counts.len() == 120).then_some(counts)
    })
    .await;
    assert!(all.values().all(|count| *count == 1), "{all:?}");
    assert!(server.log().contains("disk I/O error"), "{}", server.log());
}
