//! Backups: whatever is in one database comes back in another of either kind, all of it or nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqliteConnection};
use tempfile::TempDir;
use weir_storage::backup::{self, BackupError, BackupSummary, RestoreError};
use weir_storage::{Database, DatabaseOptions, Fact, FactOutcome, MasterKey, RefusedRequest, RunStatus, SecretBox};
use weir_workflow_engine::RefusalId;

use crate::support::{Bed, WORKSPACE, at, both_databases, commit, noise};

/// Every kind of row that events and runs leave, a key check among them.
async fn fill(bed: &Bed) {
    let (store, mut seed) = bed.open().await;
    seed.check_key(&SecretBox::new(MasterKey::new([3; 32]))).await.unwrap();
    let node = bed.start(store, seed, "n1").await;
    for number in 0..3 {
        let mut accepted = bed.accepted(&format!("evt_{number}"));
        if number == 1 {
            accepted.event.body = Bytes::from(noise(200_000));
            accepted.event.account = Some("Ünïcödé 'quoted' \\x00".to_owned());
        }
        let run = accepted.runs[0].id;
        node.write(Fact::Accept(accepted)).await.unwrap();
        node.write(commit(run, 0, "first", None)).await.unwrap();
        let status = (number == 0).then_some(RunStatus::Succeeded);
        node.write(commit(run, 1, "second", status)).await.unwrap();
    }
    let refused = RefusedRequest {
        id: RefusalId::from_raw(bed.id()),
        workspace: WORKSPACE,
        endpoint: None,
        received_at: at(0),
        reason: "bad_signature".to_owned(),
        detail: "no".to_owned(),
        client_ip: None,
        headers: "{}".to_owned(),
        body: Bytes::from(vec![0, 1, 2, 255]),
    };
    node.write(Fact::Refused(refused)).await.unwrap();
    node.stop().await;
}

async fn take(url: &str, folder: &Path) -> (PathBuf, BackupSummary) {
    let path = folder.join("backup");
    let file = std::fs::File::create(&path).unwrap();
    let (_, summary) = backup::take(url, file).await.unwrap();
    (path, summary)
}

/// All rows of all tables as text, whatever the database; nodes without what a restore changes.
async fn contents(url: &str) -> BTreeMap<String, Vec<String>> {
    let mut contents = BTreeMap::new();
    for table in tables(url).await {
        if table == "seaql_migrations" {
            continue;
        }
        let columns = match table.as_str() {
            "node" => "slot, name, started_at, id_high_water",
            _ => "*",
        };
        let mut rows = rows(url, &format!("SELECT {columns} FROM {table}")).await;
        rows.sort_unstable();
        contents.insert(table, rows);
    }
    contents
}

async fn tables(url: &str) -> Vec<String> {
    let text = if url.starts_with("sqlite") {
        "SELECT name FROM sqlite_master WHERE type = 'table'"
    } else {
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"
    };
    let rows = rows(url, text).await;
    rows.into_iter()
        .map(|row| row.trim_matches('|').trim_matches('"').to_owned())
        .collect()
}

async fn rows(url: &str, text: &str) -> Vec<String> {
    macro_rules! shown {
        ($connection:expr) => {{
            let rows = sqlx::query(AssertSqlSafe(text))
                .fetch_all(&mut $connection)
                .await
                .unwrap();
            rows.iter()
                .map(|row| {
                    let cells = (0..row.len()).map(|place| {
                        let number = row.try_get::<Option<i64>, _>(place).map(|value| format!("{value:?}"));
                        let number =
                            number.or_else(|_| row.try_get::<Option<i32>, _>(place).map(|value| format!("{value:?}")));
                        let number =
                            number.or_else(|_| row.try_get::<Option<i16>, _>(place).map(|value| format!("{value:?}")));
                        let text = number.or_else(|_| {
                            row.try_get::<Option<String>, _>(place)
                                .map(|value| format!("{value:?}"))
                        });
                        text.or_else(|_| {
                            row.try_get::<Option<Vec<u8>>, _>(place)
                                .map(|value| format!("{value:?}"))
                        })
                        .unwrap()
                    });
                    cells
                        .map(|cell| cell.replace("Some(", "").replace(')', ""))
                        .collect::<Vec<_>>()
                        .join("|")
                })
                .collect()
        }};
    }
    if url.starts_with("sqlite") {
        shown!(SqliteConnection::connect(url).await.unwrap())
    } else {
        shown!(PgConnection::connect(url).await.unwrap())
    }
}

async fn whatever_is_in_it_comes_back_on_either_database(bed: &Bed) {
    fill(bed).await;
    let folder = tempfile::tempdir().unwrap();
    let (archive, summary) = take(&bed.url, folder.path()).await;
    let rows: BTreeMap<&str, u64> = summary.rows.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
    assert_eq!(
        (
            rows["event"],
            rows["run"],
            rows["journal"],
            rows["payload"],
            rows["dedupe"]
        ),
        (3, 3, 6, 1, 3)
    );
    assert_eq!(summary.manifest.key_ids, [MasterKey::new([3; 32]).id()]);
    let original = contents(&bed.url).await;
    for target in [Bed::sqlite(), Bed::postgres().await] {
        let (archive, summary, original) = (&archive, &summary, &original);
        target
            .run(async |target: &Bed| {
                assert_eq!(&backup::restore(&target.url, archive).await.unwrap(), summary);
                assert_eq!(&contents(&target.url).await, original);
                let reason = backup::restore(&target.url, archive).await.unwrap_err();
                assert!(matches!(reason, RestoreError::NotEmpty { .. }), "{reason}");

                // Its open runs are taken over under any name, and what was seen is known.
                let node = target.node("another").await;
                let claimed = node.write(Fact::Claim { limit: 64 }).await.unwrap();
                let FactOutcome::Claimed(runs) = claimed else {
                    panic!("{claimed:?}")
                };
                assert_eq!(runs.len(), 2);
                let again = node.write(Fact::Accept(target.accepted("evt_1"))).await.unwrap();
                assert!(format!("{again:?}").contains("Duplicate"), "{again:?}");
                node.stop().await;
            })
            .await;
    }
}

async fn a_damaged_archive_leaves_nothing_behind(bed: &Bed) {
    fill(bed).await;
    let folder = tempfile::tempdir().unwrap();
    let (archive, _) = take(&bed.url, folder.path()).await;
    let whole = std::fs::read(&archive).unwrap();
    let empty = if bed.is_postgres() {
        Bed::postgres().await
    } else {
        Bed::sqlite()
    };
    empty
        .run(async |empty: &Bed| {
            let mut middle = whole.clone();
            let half = middle.len() / 2;
            middle[half] ^= 1;
            for bad in [&whole[..whole.len() - 1], &middle, b"something else"] {
                std::fs::write(&archive, bad).unwrap();
                let reason = backup::restore(&empty.url, &archive).await.unwrap_err();
                assert!(matches!(reason, RestoreError::Archive(_)), "{reason}");
            }
            if empty.is_postgres() {
                assert_eq!(tables(&empty.url).await, Vec::<String>::new());
            } else {
                assert!(!Path::new(empty.url.trim_start_matches("sqlite://")).exists());
            }
            std::fs::write(&archive, &whole).unwrap();
            backup::restore(&empty.url, &archive).await.unwrap();
        })
        .await;
}

/// A row that the target refuses half-way: nothing of what came before it stays.
async fn a_restore_that_fails_half_way_leaves_nothing_behind(bed: &Bed) {
    fill(bed).await;
    // Restoring it breaks the unique name of a workspace, after other tables are full.
    bed.execute("ALTER TABLE workspace RENAME TO old").await;
    bed.execute("CREATE TABLE workspace (id BIGINT NOT NULL, name TEXT NOT NULL, created_at BIGINT NOT NULL)")
        .await;
    bed.execute("DROP TABLE old").await;
    bed.execute("INSERT INTO workspace VALUES (1, 'a', 0), (2, 'a', 0)")
        .await;
    let folder = tempfile::tempdir().unwrap();
    let (archive, _) = take(&bed.url, folder.path()).await;
    for target in [Bed::sqlite(), Bed::postgres().await] {
        let archive = &archive;
        target
            .run(async |target: &Bed| {
                let reason = backup::restore(&target.url, archive).await.unwrap_err();
                assert!(reason.to_string().contains("workspace"), "{reason}");
                if target.is_postgres() {
                    assert_eq!(tables(&target.url).await, Vec::<String>::new());
                } else {
                    let data = Path::new(target.url.trim_start_matches("sqlite://")).parent().unwrap();
                    let left: Vec<_> = std::fs::read_dir(data)
                        .unwrap()
                        .map(|entry| entry.unwrap().file_name())
                        .collect();
                    assert_eq!(left, ["weir.db.lock"]);
                }
            })
            .await;
    }
}

async fn a_schema_from_the_future_is_named(bed: &Bed) {
    fill(bed).await;
    bed.execute("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m99990101_000000_later', 0)")
        .await;
    let folder = tempfile::tempdir().unwrap();
    let (archive, _) = take(&bed.url, folder.path()).await;
    let target = Bed::sqlite();
    let reason = backup::restore(&target.url, &archive).await.unwrap_err();
    assert!(
        matches!(&reason, RestoreError::Newer { schema, .. } if schema == "m99990101_000000_later"),
        "{reason}"
    );
}

/// What commits while the backup is read is not in it, and waits for nothing.
async fn a_backup_beside_a_writer_is_one_instant(bed: &Bed) {
    fill(bed).await;
    let node = bed.node("n1").await;
    let folder = TempDir::new().unwrap();
    let mut number = 0;
    // Each event is finished before the next: at one instant at most the last is under way.
    for _ in 0..5 {
        let (url, path) = (bed.url.clone(), folder.path().to_owned());
        let taking = tokio::spawn(async move { take(&url, &path).await });
        let writing = async {
            for _ in 0..40 {
                number += 1;
                let accepted = bed.accepted(&format!("more_{number}"));
                let run = accepted.runs[0].id;
                node.write(Fact::Accept(accepted)).await.unwrap();
                node.write(commit(run, 0, "first", Some(RunStatus::Succeeded)))
                    .await
                    .unwrap();
            }
        };
        writing.await;
        let (archive, summary) = taking.await.unwrap();
        let rows: BTreeMap<&str, u64> = summary.rows.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
        assert_eq!(rows["event"], rows["run"]);
        assert_eq!(rows["event"], rows["dedupe"]);
        let target = Bed::sqlite();
        backup::restore(&target.url, &archive).await.unwrap();
        let unfinished = target.number("SELECT count(*) FROM run WHERE status < 2").await;
        let begun = target.number("SELECT count(*) FROM journal WHERE seq = 0").await;
        let events = i64::try_from(rows["event"]).unwrap();
        assert!(begun >= events - 1 && unfinished <= 3, "{begun} {events} {unfinished}");
    }
    node.stop().await;
}

both_databases! {
    whatever_is_in_it_comes_back_on_either_database,
    a_damaged_archive_leaves_nothing_behind,
    a_restore_that_fails_half_way_leaves_nothing_behind,
    a_schema_from_the_future_is_named,
    a_backup_beside_a_writer_is_one_instant,
}

#[tokio::test]
async fn a_place_without_weir_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("no.db").display());
    let reason = backup::take(&url, Vec::new()).await.unwrap_err();
    assert!(matches!(reason, BackupError::Missing { .. }), "{reason}");
    assert!(!folder.path().join("no.db").exists());
    drop(SqliteConnection::connect(&format!("{url}?mode=rwc")).await.unwrap());
    let reason = backup::take(&url, Vec::new()).await.unwrap_err();
    assert!(matches!(reason, BackupError::NotWeir), "{reason}");
    Bed::postgres()
        .await
        .run(async |bed: &Bed| {
            let reason = backup::take(&bed.url, Vec::new()).await.unwrap_err();
            assert!(matches!(reason, BackupError::NotWeir), "{reason}");
        })
        .await;
}

#[tokio::test]
async fn a_running_server_is_not_overwritten() {
    let bed = Bed::sqlite();
    fill(&bed).await;
    let folder = tempfile::tempdir().unwrap();
    let (archive, _) = take(&bed.url, folder.path()).await;
    let held = Database::open(&bed.url, DatabaseOptions::default()).await.unwrap();
    let reason = backup::restore(&bed.url, &archive).await.unwrap_err();
    assert!(matches!(reason, RestoreError::Open(_)), "{reason}");
    drop(held);
}
