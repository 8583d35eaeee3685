//! Group commit: a writer turns all queued rows into one transaction and then releases their callers.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DbErr, EntityTrait as _, SqlxPostgresConnector, SqlxSqliteConnector,
    TransactionTrait as _,
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::entity::{event, step};

/// Most rows of one transaction; the same bound as Weir's.
const MAX_BATCH: usize = 512;
/// Rows that may wait for the writer.
const MAX_QUEUED: usize = 8192;
/// PostgreSQL commits overlap with two writers; a third only takes CPU from the rest.
const POSTGRES_WRITERS: u32 = 2;

const SQLITE_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, external_id TEXT NOT NULL, received_at INTEGER NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS step (id INTEGER PRIMARY KEY, status INTEGER NOT NULL, finished_at INTEGER NOT NULL, body BLOB NOT NULL);";
const POSTGRES_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS event (id BIGINT PRIMARY KEY, external_id TEXT NOT NULL, received_at BIGINT NOT NULL, headers TEXT NOT NULL, body BYTEA NOT NULL);
    CREATE TABLE IF NOT EXISTS step (id BIGINT PRIMARY KEY, status INTEGER NOT NULL, finished_at BIGINT NOT NULL, body BYTEA NOT NULL);";

/// A row to be written.
#[derive(Debug)]
pub(crate) enum Row {
    Event(event::Model),
    Step(step::Model),
}

struct Job {
    row: Row,
    done: oneshot::Sender<bool>,
}

/// The way to the writers.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// Returns when the row is committed with fsync; an error means that it is not.
    pub(crate) async fn put(&self, row: Row) -> anyhow::Result<()> {
        let (done, committed) = oneshot::channel();
        self.jobs
            .send(Job { row, done })
            .await
            .map_err(|_closed| anyhow!("the writer has ended"))?;
        committed.await?.then_some(()).context("the row was not committed")
    }
}

/// The running writers.
#[derive(Debug)]
pub(crate) struct Writers {
    tasks: Vec<JoinHandle<()>>,
    database: DatabaseConnection,
}

impl Writers {
    /// Waits for the last batch and closes the database, which moves SQLite's log into its file.
    pub(crate) async fn finish(self) -> anyhow::Result<()> {
        for task in self.tasks {
            task.await?;
        }
        Ok(self.database.close().await?)
    }
}

pub(crate) async fn open(url: &str) -> anyhow::Result<(Store, Writers)> {
    let (database, writers) = connect(url).await?;
    let (jobs, queue) = mpsc::channel(MAX_QUEUED);
    let queue = Arc::new(Mutex::new(queue));
    let tasks = (0..writers)
        .map(|_| tokio::spawn(write_all(database.clone(), Arc::clone(&queue))))
        .collect();
    Ok((Store { jobs }, Writers { tasks, database }))
}

async fn connect(url: &str) -> anyhow::Result<(DatabaseConnection, u32)> {
    if url.starts_with("sqlite:") {
        let options = url
            .parse::<SqliteConnectOptions>()?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", "4000")
            .pragma("cache_size", "-65536");
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        let database = SqlxSqliteConnector::from_sqlx_sqlite_pool(pool);
        database.execute_unprepared(SQLITE_TABLES).await?;
        Ok((database, 1))
    } else {
        let options = url.parse::<PgConnectOptions>()?.options([("synchronous_commit", "on")]);
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_WRITERS)
            .connect_with(options)
            .await?;
        let database = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
        database.execute_unprepared(POSTGRES_TABLES).await?;
        Ok((database, POSTGRES_WRITERS))
    }
}

async fn write_all(database: DatabaseConnection, queue: Arc<Mutex<mpsc::Receiver<Job>>>) {
    let mut jobs = Vec::with_capacity(MAX_BATCH);
    while queue.lock().await.recv_many(&mut jobs, MAX_BATCH).await > 0 {
        let (mut events, mut steps, mut callers) = (Vec::new(), Vec::new(), Vec::with_capacity(jobs.len()));
        for Job { row, done } in jobs.drain(..) {
            callers.push(done);
            match row {
                Row::Event(event) => events.push(event::ActiveModel::from(event)),
                Row::Step(step) => steps.push(step::ActiveModel::from(step)),
            }
        }
        let committed = write(&database, events, steps).await.is_ok();
        for caller in callers {
            // A caller that has gone away needs no answer.
            caller.send(committed).unwrap_or_default();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this program has no Writer: it is what the Writer is compared with"
)]
async fn write(
    database: &DatabaseConnection,
    events: Vec<event::ActiveModel>,
    steps: Vec<step::ActiveModel>,
) -> Result<(), DbErr> {
    let transaction = database.begin().await?;
    if !events.is_empty() {
        event::Entity::insert_many(events)
            .exec_without_returning(&transaction)
            .await?;
    }
    if !steps.is_empty() {
        step::Entity::insert_many(steps)
            .exec_without_returning(&transaction)
            .await?;
    }
    transaction.commit().await
}
