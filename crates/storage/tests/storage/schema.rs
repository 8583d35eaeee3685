//! The schema of each database, as a snapshot: a change of it is a new migration.

use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use weir_storage::{Database, DatabaseOptions, OpenError};

use crate::support::{Bed, both_databases};

both_databases! { a_schema_of_a_later_release_is_left_alone }

async fn a_schema_of_a_later_release_is_left_alone(bed: &Bed) {
    drop(bed.open().await);
    bed.execute("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m99990101_000000_later', 0)")
        .await;
    let reason = Database::open(&bed.url, DatabaseOptions::default())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&reason, OpenError::Newer { schema } if schema == "m99990101_000000_later"),
        "{reason}"
    );
    bed.execute("DELETE FROM seaql_migrations WHERE version = 'm99990101_000000_later'")
        .await;
    drop(bed.open().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    Bed::sqlite().run(sqlite_schema).await;
}

async fn sqlite_schema(bed: &Bed) {
    let (store, seed) = bed.open().await;
    assert_eq!(store.schema_version().await.unwrap(), "m20261101_000015_registrations");
    drop(seed);
    let mut connection = SqliteConnection::connect(&bed.url).await.unwrap();
    let text = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name <> 'seaql_migrations' ORDER BY name";
    let texts: Vec<String> = sqlx::query_scalar(text).fetch_all(&mut connection).await.unwrap();
    let texts: Vec<String> = texts
        .iter()
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    insta::assert_snapshot!("sqlite", texts.join("\n"));
    for (pragma, expected) in [("page_size", 8192), ("auto_vacuum", 2)] {
        let value: i64 = sqlx::query_scalar(AssertSqlSafe(format!("PRAGMA {pragma}")))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(value, expected, "{pragma}");
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    Bed::postgres().await.run(postgres_schema).await;
}

async fn postgres_schema(bed: &Bed) {
    // Nodes that start together do not get into each other's way.
    let (first, second) = futures::join!(bed.open(), bed.open());
    assert_eq!(
        first.0.schema_version().await.unwrap(),
        "m20261101_000015_registrations"
    );
    drop((first, second));
    let mut connection = PgConnection::connect(&bed.url).await.unwrap();
    let columns = "SELECT table_name || ': ' || string_agg(column_name || ' ' || data_type || \
        CASE is_nullable WHEN 'NO' THEN ' NOT NULL' ELSE '' END, ', ' ORDER BY ordinal_position) \
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'seaql_migrations' GROUP BY table_name ORDER BY 1";
    let indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'seaql_migrations' ORDER BY indexdef";
    let mut lines: Vec<String> = sqlx::query_scalar(columns).fetch_all(&mut connection).await.unwrap();
    lines.extend(
        sqlx::query_scalar::<_, String>(indexes)
            .fetch_all(&mut connection)
            .await
            .unwrap(),
    );
    insta::assert_snapshot!("postgres", lines.join("\n"));
}
