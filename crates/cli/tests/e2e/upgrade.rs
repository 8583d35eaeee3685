//! Databases that older versions left behind, with runs in the middle of everything, are taken over by this one.
//!
//! The files are made by `scripts/upgrade-fixture.sh` and never changed. Each holds the same work: two runs that
//! succeeded, one that failed, one that sleeps (on a version of its workflow that is not the published one), one that
//! waits for its next try, and six in mid-call: two reads (one of an event above 64 KiB), a hydration, a repeatable
//! effect, a blind effect, a loop inside `try`.

use crate::support::{Database, MASTER_KEY, Server, eventually, stderr, stdout};
use crate::upstream::Upstream;
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Each release that changed the schema or the journal.
const VERSIONS: [&str; 1] = ["0.1"];
const LIMIT: Duration = Duration::from_secs(60);

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/upgrade")
        .join(name);
    zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap()
}

/// The connections call an upstream that is gone; this one takes its place.
fn moved(upstream: &Upstream) -> String {
    format!("UPDATE connection SET config = '{{\"base_url\":\"{}\"}}'", upstream.url)
}

async fn finishes(mut server: Server, upstream: &Upstream) {
    server.start_again().await;
    eventually("no run is open", LIMIT, async || {
        (server.runs(&["--status", "running", "--status", "waiting"]).is_empty()).then_some(())
    })
    .await;
    let mut ends: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for run in server.runs(&[]) {
        let end = match &run["error"] {
            Value::Null => run["status"].as_str().unwrap().to_owned(),
            error => error["code"].as_str().unwrap().to_owned(),
        };
        ends.entry(run["workflowName"].as_str().unwrap().to_owned())
            .or_default()
            .push(end);
    }
    let expected = [
        ("blind", vec!["effect_unknown"]),
        ("done", vec!["SUCCEEDED", "SUCCEEDED"]),
        ("failing", vec!["invalid"]),
        ("hydrating", vec!["SUCCEEDED"]),
        ("looping", vec!["SUCCEEDED"]),
        ("paused", vec!["SUCCEEDED"]),
        ("putting", vec!["SUCCEEDED"]),
        ("reading", vec!["SUCCEEDED", "SUCCEEDED"]),
        ("retrying", vec!["SUCCEEDED"]),
    ];
    let expected: BTreeMap<String, Vec<String>> = expected
        .into_iter()
        .map(|(name, ends)| (name.to_owned(), ends.into_iter().map(str::to_owned).collect()))
        .collect();
    assert_eq!(ends, expected);

    let requests: Vec<String> = upstream
        .requests()
        .iter()
        .map(|request| request.head.lines().next().unwrap_or_default().to_owned())
        .collect();
    let count = |start: &str| requests.iter().filter(|request| request.starts_with(start)).count();
    // Pinned to its version; sent anew, for the first time, or not at all.
    assert_eq!(
        (count("PUT /after/1 "), count("PUT /after/2 ")),
        (1, 0),
        "{requests:#?}"
    );
    assert_eq!(count("PUT /hang/put "), 1, "{requests:#?}");
    assert_eq!(count("POST /hang/blind "), 0, "{requests:#?}");
    assert_eq!((count("PUT /loop/"), count("PUT /hang/loop/")), (0, 3), "{requests:#?}");
    assert_eq!(
        (count("GET /hang/read-small "), count("GET /hang/read-large ")),
        (1, 1),
        "{requests:#?}"
    );
    assert_eq!(count("GET /v1/payment_intents/pi_fixture"), 1, "{requests:#?}");
    // The credential still opens.
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_some()),
        "{requests:#?}"
    );

    // Old stories can be told, and an old failure replayed.
    for run in server.runs(&[]) {
        let told = server.weir(&["run", "show", run["id"].as_str().unwrap()]);
        assert!(told.status.success(), "{}", stderr(&told));
    }
    let failed = server.runs(&["--workflow", "failing"]);
    let replayed = server.weir(&["run", "replay", failed[0]["id"].as_str().unwrap(), "--yes"]);
    assert!(replayed.status.success(), "{}{}", stdout(&replayed), stderr(&replayed));
    eventually("the replay succeeds", LIMIT, async || {
        let runs = server.runs(&["--workflow", "failing", "--status", "succeeded"]);
        (runs.len() == 1).then_some(())
    })
    .await;
    assert_eq!(server.stop().await, Some(0), "{}", server.log());
}

/// Old runs are looked at, so they stay.
fn settings(url: &str) -> [(&'static str, &str); 5] {
    [
        ("WEIR_KEEP_RUNS_DAYS", "0"),
        ("WEIR_KEEP_FAILED_DAYS", "0"),
        ("WEIR_DATABASE_URL", url),
        ("WEIR_MASTER_KEY", MASTER_KEY),
        ("WEIR_EGRESS_ALLOW", "127.0.0.0/8"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_in_flight_finish_on_sqlite() {
    for version in VERSIONS {
        let upstream = Upstream::start().await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weir.db");
        std::fs::write(&path, fixture(&format!("{version}.sqlite.zst"))).unwrap();
        let url = format!("sqlite://{}", path.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(moved(&upstream))).await.unwrap();
        connection.close().await.unwrap();
        assert!(Path::new(&path).exists());
        finishes(Server::not_started(&[], &settings(&url)), &upstream).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_in_flight_finish_on_postgres() {
    for version in VERSIONS {
        let upstream = Upstream::start().await;
        let database = Database::create("upgrade").await;
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        let dump = String::from_utf8(fixture(&format!("{version}.postgres.sql.zst"))).unwrap();
        connection.execute(sqlx::AssertSqlSafe(dump)).await.unwrap();
        connection.close().await.unwrap();
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(moved(&upstream))).await.unwrap();
        connection.close().await.unwrap();
        finishes(Server::not_started(&[], &settings(&database.url)), &upstream).await;
        database.drop().await;
    }
}
