//! A backup taken under load, and a server that goes on from it elsewhere.

use crate::crash::{SECRET, documents};
use crate::support::{Database, MASTER_KEY, SOON, Server, eventually, stderr, stdout};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use weir_simulator::{RetryPolicy, Scenario, Simulator, SimulatorOptions, StreamOptions};

const EVENTS: u64 = 400;
const RATE_PER_S: f64 = 60.0;
/// Acknowledged before the backup begins.
const BEFORE: u64 = 100;
/// A busy machine may need long for what is normally done in five seconds.
const LIMIT: Duration = Duration::from_secs(90);

const PAUSED: &str = "
---
kind: Workflow
name: paused
on: { manual: {} }
steps:
  - { id: pause, sleep: 8s }
  - { id: end, set: { is: over } }
";

/// The providers' ids of the events that have a run.
fn event_ids(runs: &[Value]) -> BTreeSet<String> {
    runs.iter()
        .map(|run| run["event"]["externalId"].as_str().unwrap().to_owned())
        .collect()
}

async fn goes_on_elsewhere(from: &[(&str, &str)], to: &[(&str, &str)]) {
    let providers = Simulator::start(SimulatorOptions::default()).await.unwrap();
    let common = [("WEIR_EGRESS_ALLOW", "127.0.0.0/8"), ("WEIR_MASTER_KEY", MASTER_KEY)];
    let mut server = Server::start_with(&[&common[..], from].concat()).await;
    server.apply(&format!("{}{PAUSED}", documents(&providers)));
    let stream = providers
        .stream(StreamOptions {
            scenario: Scenario::Payment,
            url: format!("{}/hooks/main/stripe", server.url),
            signed_url: None,
            secrets: vec![SECRET.to_owned()],
            rate_per_s: RATE_PER_S,
            first: 1,
            count: Some(EVENTS),
            forge_every: 0,
            retry: Some(RetryPolicy {
                delays_ms: vec![250; 400],
                timeout_ms: 5_000,
            }),
        })
        .unwrap();
    assert!(server.weir(&["run", "start", "paused"]).status.success());
    eventually("enough events were acknowledged", LIMIT, async || {
        (providers.deliveries().summary().acknowledged >= BEFORE).then_some(())
    })
    .await;
    let accepted: BTreeSet<String> = providers.deliveries().acknowledged_ids().into_iter().collect();
    let folder = tempfile::tempdir().unwrap();
    let backups = folder.path().to_str().unwrap();
    let taken = server.beside(&["backup", backups]);
    assert!(taken.status.success(), "{}", stderr(&taken));
    server.kill();
    assert!(
        providers.deliveries().summary().acknowledged < EVENTS,
        "the backup was not taken under load"
    );
    let files: Vec<_> = std::fs::read_dir(backups)
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let mut restored = Server::not_started(&[], &[&common[..], to].concat());
    // The provider still sends to the old address.
    restored.url.clone_from(&server.url);
    let done = restored.beside(&["restore", backups]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(
        stdout(&done).contains("the master key") && stdout(&done).contains("fits"),
        "{}",
        stdout(&done)
    );
    let again = restored.beside(&["restore", backups]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("not empty") && stderr(&again).contains("fix:"),
        "{}",
        stderr(&again)
    );

    restored.start_again().await;
    stream.finished().await;
    eventually("no run is open", LIMIT, async || {
        (restored
            .runs(&["--status", "running", "--status", "waiting"])
            .is_empty())
        .then_some(())
    })
    .await;
    let runs = restored.runs(&["--status", "succeeded"]);
    let done = event_ids(&runs);
    let lost: Vec<_> = accepted.difference(&done).collect();
    assert!(lost.is_empty(), "accepted before the backup and not done: {lost:?}");
    assert_eq!(done.len(), runs.len(), "an event ran twice");
    assert_eq!(runs.len(), restored.runs(&[]).len());
    assert!(runs.iter().any(|run| run["workflowName"] == "paused"));
    assert_eq!(providers.balance().doubled_count, 0, "{:?}", providers.balance());
    assert_eq!(restored.stop().await, Some(0), "{}", restored.log());
    providers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_goes_on_elsewhere() {
    goes_on_elsewhere(&[], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_goes_on_elsewhere() {
    let (from, to) = (
        Database::create("backup_from").await,
        Database::create("backup_to").await,
    );
    goes_on_elsewhere(&[("WEIR_DATABASE_URL", &from.url)], &[("WEIR_DATABASE_URL", &to.url)]).await;
    from.drop().await;
    to.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_goes_on_as_postgres() {
    let to = Database::create("backup_moved").await;
    goes_on_elsewhere(&[], &[("WEIR_DATABASE_URL", &to.url)]).await;
    to.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_is_backed_up_too_and_the_missing_key_is_named() {
    let mut server = Server::start().await;
    server.apply("kind: Connection\nname: crm\nconnector: http\nconfig: { base_url: 'http://127.0.0.1:9' }\ncredential: { bearer: { token: secret } }\n");
    assert_eq!(server.stop().await, Some(0));
    let taken = server.beside(&["backup", "weir.backup"]);
    assert!(taken.status.success(), "{}", stderr(&taken));
    let archive = server.folder.path().join("weir.backup");
    let archive = archive.to_str().unwrap();
    let again = server.beside(&["backup", "weir.backup"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("nothing is overwritten"), "{}", stderr(&again));
    let piped = server.beside(&["backup", "-"]);
    assert!(piped.stdout.starts_with(b"weir-backup 1\n"), "{}", stderr(&piped));
    let key = std::fs::read_to_string(server.data().join("master.key")).unwrap();
    assert!(
        !std::fs::read(archive)
            .unwrap()
            .windows(20)
            .any(|part| part == &key.as_bytes()[..20])
    );

    let mut restored = Server::not_started(&[], &[("WEIR_EGRESS_ALLOW", "127.0.0.0/8")]);
    let done = restored.beside(&["restore", archive]);
    assert!(done.status.success(), "{}", stderr(&done));
    let said = stderr(&done);
    assert!(
        said.contains("which is not here") && said.contains("master.key"),
        "{said}"
    );
    let refused = restored.beside(&["serve"]);
    assert!(
        stderr(&refused).contains("master.key is missing"),
        "{}",
        stderr(&refused)
    );
    std::fs::write(restored.data().join("master.key"), key).unwrap();
    restored.start_again().await;
    let exported = stdout(&restored.weir(&["export"]));
    assert!(exported.contains("name: crm"), "{exported}");
    eventually("it answers", SOON, async || restored.is_alive().then_some(())).await;
}

#[test]
fn a_damaged_backup_is_refused() {
    let restored = Server::not_started(&[], &[]);
    let path = restored.folder.path().join("weir.backup");
    std::fs::write(&path, b"SQLite format 3\0").unwrap();
    let refused = restored.beside(&["restore", "weir.backup"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("this is no backup of Weir"),
        "{}",
        stderr(&refused)
    );
    assert!(!restored.data().exists(), "the folder was made for nothing");
}

#[test]
fn a_backup_that_cannot_be_written_says_what_helps() {
    let server = Server::not_started(&[], &[]);
    let refused = server.beside(&["backup", "no-such-folder/weir.backup"]);
    assert_eq!(refused.status.code(), Some(1));
    let text = stderr(&refused);
    assert!(
        text.contains("could not write") && text.contains("fix: give a path in a folder that is there"),
        "{text}"
    );
}
