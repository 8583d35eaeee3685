//! What Weir's database says about the runs, read from outside.
//!
//! After a kill the SQLite file is copied with its log and the copy is read, so that the server finds its files exactly as
//! the kill left them. Nothing here ever writes to Weir's database.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::postgres::{PgConnection, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

/// Status codes below it are open (running, waiting).
const FIRST_CLOSED_STATUS: i64 = 2;
const UNKNOWN: &str = "effect_unknown";
const RUNS: &str = "SELECT e.external_id, CAST(r.status AS BIGINT), r.error_code, r.finished_at \
    FROM run r JOIN event e ON e.id = r.event_id WHERE r.started_at >= $1";
const OPEN_RUNS: &str = "SELECT COUNT(*) FROM run WHERE status < 2";
/// How long a connection is waited for.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(20);

type Row = (String, i64, Option<String>, Option<i64>);

/// Where the facts stand.
#[derive(Debug, Clone)]
pub(crate) enum Facts {
    Sqlite { path: PathBuf },
    Postgres { url: String },
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub status: i64,
    pub error_code: Option<String>,
    /// Milliseconds since 1970.
    pub finished_at: Option<i64>,
}

impl Run {
    pub(crate) fn open(&self) -> bool {
        self.status < FIRST_CLOSED_STATUS
    }

    /// Whether Weir says that it does not know whether the effect happened.
    pub(crate) fn unknown(&self) -> bool {
        self.error_code.as_deref() == Some(UNKNOWN)
    }

    /// Failed, canceled, but not because of an unknown effect: the load gives no reason for that.
    pub(crate) fn failed_otherwise(&self) -> bool {
        self.status > FIRST_CLOSED_STATUS && !self.unknown()
    }
}

/// The runs by the event's id at the sender. One workflow listens, so an event has one run.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    pub by_event: HashMap<String, Run>,
    /// Events that have more than one run: the same event was taken for two.
    pub twice: Vec<String>,
}

impl Facts {
    /// The runs that began at `since_ms` (milliseconds since 1970) or later, while the server may be running.
    pub(crate) async fn runs(&self, since_ms: i64) -> anyhow::Result<Runs> {
        let rows: Vec<Row> = match self {
            Facts::Sqlite { path } => {
                let pool = sqlite(path.clone(), true).await?;
                let rows = sqlx::query_as(RUNS).bind(since_ms).fetch_all(&pool).await;
                pool.close().await;
                rows?
            }
            Facts::Postgres { url } => {
                let pool = PgPoolOptions::new()
                    .max_connections(1)
                    .acquire_timeout(ACQUIRE_LIMIT)
                    .connect(url)
                    .await?;
                let rows = sqlx::query_as(RUNS).bind(since_ms).fetch_all(&pool).await;
                pool.close().await;
                rows?
            }
        };
        Ok(collect(rows))
    }

    /// The same for a server that was killed and not started again.
    pub(crate) async fn runs_of_the_dead(&self, since_ms: i64) -> anyhow::Result<Runs> {
        match self {
            Facts::Postgres { .. } => self.runs(since_ms).await,
            Facts::Sqlite { path } => {
                let copy = path.with_extension("copy");
                std::fs::create_dir_all(&copy)?;
                for suffix in ["", "-wal"] {
                    let mut name = path.as_os_str().to_owned();
                    name.push(suffix);
                    let from = PathBuf::from(name);
                    if from.exists() {
                        let to = copy.join(format!("weir.db{suffix}"));
                        std::fs::copy(&from, to).with_context(|| format!("cannot copy {}", from.display()))?;
                    }
                }
                let pool = sqlite(copy.join("weir.db"), false).await?;
                let rows = sqlx::query_as(RUNS).bind(since_ms).fetch_all(&pool).await;
                pool.close().await;
                std::fs::remove_dir_all(&copy)?;
                Ok(collect(rows?))
            }
        }
    }

    /// Runs that are running or waiting.
    pub(crate) async fn open_runs(&self) -> anyhow::Result<i64> {
        let count: (i64,) = match self {
            Facts::Sqlite { path } => {
                let pool = sqlite(path.clone(), true).await?;
                let count = sqlx::query_as(OPEN_RUNS).fetch_one(&pool).await;
                pool.close().await;
                count?
            }
            Facts::Postgres { url } => {
                let mut connection = PgConnection::connect(url).await?;
                let count = sqlx::query_as(OPEN_RUNS).fetch_one(&mut connection).await;
                connection.close().await?;
                count?
            }
        };
        Ok(count.0)
    }
}

fn collect(rows: Vec<Row>) -> Runs {
    let mut runs = Runs::default();
    for (event, status, error_code, finished_at) in rows {
        let run = Run {
            status,
            error_code,
            finished_at,
        };
        if runs.by_event.insert(event.clone(), run).is_some() {
            runs.twice.push(event);
        }
    }
    runs
}

async fn sqlite(path: PathBuf, read_only: bool) -> anyhow::Result<sqlx::SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .read_only(read_only)
        .busy_timeout(ACQUIRE_LIMIT);
    SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_LIMIT)
        .connect_with(options)
        .await
        .with_context(|| format!("cannot read {}", path.display()))
}

/// Makes the database `name` on the server of `url` and gives its address.
pub(crate) async fn create_database(url: &str, name: &str) -> anyhow::Result<String> {
    let mut connection = PgConnection::connect(url)
        .await
        .with_context(|| "cannot connect to PostgreSQL")?;
    connection
        .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await?;
    connection.close().await?;
    let (server, _) = url
        .rsplit_once('/')
        .context("the address of PostgreSQL has no database")?;
    Ok(format!("{server}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn runs_are_read_without_a_trace() {
        let folder = std::env::temp_dir().join(format!("weir-crash-facts-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("weir.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
        let script = "CREATE TABLE event (id INTEGER PRIMARY KEY, external_id TEXT);
            CREATE TABLE run (id INTEGER PRIMARY KEY, event_id INTEGER, status INTEGER, error_code TEXT, started_at INTEGER, finished_at INTEGER);
            INSERT INTO event VALUES (1, 'evt_a'), (2, 'evt_b');
            INSERT INTO run VALUES (1, 1, 0, NULL, 5, NULL), (2, 2, 3, 'effect_unknown', 5, 9), (3, 2, 2, NULL, 4, 9);";
        pool.execute(script).await.unwrap();
        pool.close().await;
        let facts = Facts::Sqlite { path };
        let runs = facts.runs_of_the_dead(5).await.unwrap();
        assert!(runs.by_event["evt_a"].open() && runs.by_event["evt_b"].unknown());
        assert_eq!((runs.by_event.len(), runs.twice.len()), (2, 0));
        assert_eq!(facts.runs(0).await.unwrap().twice, ["evt_b"]);
        assert_eq!(facts.open_runs().await.unwrap(), 1);
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
        assert_eq!(left.len(), 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
