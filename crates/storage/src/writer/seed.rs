//! From an open database to a running writer: key check, registration, start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::OpenFlags;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Executor};

use super::checkpoint::LOG_CAP_BYTES;
use super::connection::{Connection, Value};
use super::control::{self, Registered};
use super::failure::Failure;
use super::task::WriterTask;
use super::{Writer, WriterLimits, sqlite};
use crate::error::OpenError;
use crate::node::NodeIdentity;
use crate::secret_box::SecretBox;

/// Page size of SQLite files: rows of one to two kilobytes fit, and more of them per write.
pub(crate) const PAGE_BYTES: u32 = 8192;
/// How long a statement waits for another connection of this process.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long an earlier session may take to end, in milliseconds; as long as its statements may wait for locks.
const SESSION_END_MS: i64 = 2_000;

/// How to connect to the database.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Sqlite(SqliteTarget),
    Postgres(Box<PgConnectOptions>),
}

/// A SQLite file.
#[derive(Clone, Debug)]
pub(crate) struct SqliteTarget {
    pub(crate) path: PathBuf,
    pub(crate) cache_kib: u32,
    pub(crate) max_pages: Option<u32>,
    /// Keeps other processes out as long as anybody holds it.
    pub(crate) _lock: Arc<std::fs::File>,
}

impl SqliteTarget {
    pub(crate) fn open(&self) -> rusqlite::Result<rusqlite::Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(sqlite::STATEMENTS);
        // A commit that was answered survives a loss of power.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -i64::from(self.cache_kib))?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.query_row(&format!("PRAGMA journal_size_limit = {LOG_CAP_BYTES}"), [], |_| Ok(()))?;
        // The checkpoint thread does it; this is for the case that it cannot.
        let pages = LOG_CAP_BYTES / u64::from(PAGE_BYTES);
        connection.query_row(&format!("PRAGMA wal_autocheckpoint = {pages}"), [], |_| Ok(()))?;
        if let Some(pages) = self.max_pages {
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        }
        Ok(connection)
    }
}

impl Target {
    /// A connection for the writer of this node, once there is one.
    pub(crate) async fn connect(&self, node: Option<&NodeIdentity>) -> Result<Connection, OpenError> {
        match self {
            Self::Sqlite(target) => {
                let opened = target.open();
                opened.map(Connection::Sqlite).map_err(|error| OpenError::Statement {
                    task: "open the database",
                    source: error.into(),
                })
            }
            Self::Postgres(options) => {
                let connecting = connect_postgres(options, node);
                let connected = tokio::time::timeout(CONNECT_LIMIT, connecting).await;
                let connected =
                    connected.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(std::io::Error::other(elapsed))));
                connected.map(Connection::Postgres).map_err(OpenError::Connect)
            }
        }
    }
}

async fn connect_postgres(
    options: &PgConnectOptions,
    node: Option<&NodeIdentity>,
) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    // What the server's configuration says does not matter for what we promise. The plans never change with the
    // length of the arrays, so planning once is enough. What is joined are a few rows of a batch with a table by its
    // key: a plan made while that table is empty would otherwise hash it, and read all of it in every commit to come.
    // Nor is any statement so large that starting processes for it could pay.
    connection
        .execute(
            "SET synchronous_commit = on; SET lock_timeout = '2s'; SET idle_in_transaction_session_timeout = '2s'; \
             SET statement_timeout = '10s'; SET plan_cache_mode = force_generic_plan; SET jit = off; \
             SET enable_hashjoin = off; SET enable_mergejoin = off; \
             SET max_parallel_workers_per_gather = 0",
        )
        .await?;
    if let Some(node) = node {
        name_session(&mut connection, node).await?;
        end_own_sessions(&mut connection, node).await?;
    }
    Ok(connection)
}

/// Which history of its data a PostgreSQL server goes by: its identity and its timeline, which a promotion changes.
/// `None` on SQLite, on a server in recovery, and where the role may not ask.
pub(crate) async fn lineage(connection: &mut Connection) -> Option<String> {
    let Connection::Postgres(connection) = connection else {
        return None;
    };
    let query = sqlx::query_scalar::<_, Option<String>>(
        "SELECT CASE WHEN NOT pg_is_in_recovery() THEN system_identifier::text || '/' || \
         left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END FROM pg_control_system()",
    );
    query.fetch_one(connection).await.unwrap_or_else(|error| {
        tracing::warn!("a failover of the database cannot be noticed: {error}");
        None
    })
}

/// Ends what is left of this node's earlier session, and waits until it is gone: a commit that was in the wire when
/// that was lost must not land after somebody has looked whether it did.
async fn end_own_sessions(connection: &mut PgConnection, node: &NodeIdentity) -> Result<(), sqlx::Error> {
    let query = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FILTER (WHERE NOT pg_terminate_backend(pid, $2)) FROM pg_stat_activity \
         WHERE application_name = $1 AND usename = current_user AND pid <> pg_backend_pid()",
    );
    let left = query
        .bind(control::session_name(node.incarnation))
        .bind(SESSION_END_MS)
        .fetch_one(connection)
        .await?;
    match left {
        0 => Ok(()),
        _ => Err(sqlx::Error::Protocol(
            "the node's earlier session is still there".to_owned(),
        )),
    }
}

async fn name_session(connection: &mut PgConnection, node: &NodeIdentity) -> Result<(), sqlx::Error> {
    let query =
        sqlx::query("SELECT set_config('application_name', $1, false)").bind(control::session_name(node.incarnation));
    connection.execute(query).await.map(drop)
}

/// An open database before its writer runs.
///
/// The order at start: [`sealed_rows_exist`](Self::sealed_rows_exist) and the master key,
/// [`check_key`](Self::check_key), [`register`](Self::register), [`start`](Self::start).
#[derive(Debug)]
pub struct WriterSeed {
    target: Target,
    connection: Connection,
    lineage: Option<String>,
}

impl WriterSeed {
    pub(crate) async fn new(target: Target) -> Result<Self, OpenError> {
        let mut connection = target.connect(None).await?;
        let lineage = lineage(&mut connection).await;
        Ok(Self {
            target,
            connection,
            lineage,
        })
    }

    /// Whether anything in the database needs a master key to be read: then none may be invented.
    ///
    /// # Errors
    /// [`OpenError::Statement`].
    pub async fn sealed_rows_exist(&mut self) -> Result<bool, OpenError> {
        let text = "SELECT CASE WHEN EXISTS (SELECT 1 FROM key_check) OR EXISTS (SELECT 1 FROM connection WHERE credential IS NOT NULL) \
            OR EXISTS (SELECT 1 FROM endpoint WHERE secrets IS NOT NULL) THEN 1 ELSE 0 END";
        let rows = self
            .connection
            .numbers(text, Vec::new(), false)
            .await
            .map_err(statement("look for sealed rows"))?;
        Ok(rows.iter().flatten().any(|found| *found == Some(1)))
    }

    /// Proves that the key opens what earlier keys sealed, and leaves a proof for the next start. Must succeed
    /// before anything is sealed.
    ///
    /// # Errors
    /// [`OpenError::Key`] when the key does not fit, [`OpenError::Statement`] when the database fails.
    pub async fn check_key(&mut self, secrets: &SecretBox) -> Result<(), OpenError> {
        let failed = statement("check the master key");
        let checks = self.connection.key_checks().await.map_err(&failed)?;
        for (key_id, sealed) in &checks {
            secrets.check_key(key_id, sealed)?;
        }
        if checks.iter().any(|(key_id, _)| key_id == secrets.key_id()) {
            return Ok(());
        }
        let text = "INSERT INTO key_check (key_id, sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let values = vec![secrets.key_id().into(), Value::Bytes(Some(secrets.seal_key_check()))];
        self.connection.run(text, values).await.map(drop).map_err(failed)
    }

    /// Takes the place of the node with this name, and with it all its open runs; a process that had it is fenced.
    ///
    /// # Errors
    /// [`OpenError::NoSlot`] when 1,024 other nodes exist, [`OpenError::Statement`] when the database fails.
    pub async fn register(&mut self, name: &str) -> Result<NodeIdentity, OpenError> {
        match self.take_place(name, None).await? {
            Registered::Node(node) => Ok(node),
            Registered::NoSlot | Registered::Replaced => Err(OpenError::NoSlot),
        }
    }

    /// Registers a node anew whose lease ran out, under its old name and with what is left of its runs. `None`: a
    /// process that came later has the name, and this one must stop.
    ///
    /// # Errors
    /// As for [`register`](Self::register).
    pub async fn rejoin(&mut self, before: &NodeIdentity) -> Result<Option<NodeIdentity>, OpenError> {
        match self.take_place(&before.name, Some(before.incarnation)).await? {
            Registered::Node(node) => Ok(Some(node)),
            Registered::NoSlot => Err(OpenError::NoSlot),
            Registered::Replaced => Ok(None),
        }
    }

    async fn take_place(&mut self, name: &str, before: Option<i64>) -> Result<Registered, OpenError> {
        let failed = statement("register the node");
        let connection = &mut self.connection;
        connection.begin().await.map_err(&failed)?;
        let registered = match register(connection, name, before).await {
            Ok(Registered::Node(node)) => node,
            Ok(without @ (Registered::NoSlot | Registered::Replaced)) => {
                connection.roll_back().await;
                return Ok(without);
            }
            Err(failure) => {
                connection.roll_back().await;
                return Err(failed(failure));
            }
        };
        connection.commit().await.map_err(&failed)?;
        if let Connection::Postgres(connection) = connection {
            name_session(connection, &registered)
                .await
                .map_err(OpenError::Connect)?;
        }
        Ok(Registered::Node(registered))
    }

    /// Makes the writer of a registered node. The caller spawns the task.
    pub fn start(self, node: NodeIdentity, limits: WriterLimits) -> (Writer, WriterTask) {
        let (writer, receiver) = Writer::new(limits);
        let shared = Arc::clone(&writer.shared);
        let task = WriterTask::new(receiver, shared, (self.target, self.lineage), node, self.connection);
        (writer, task)
    }
}

async fn register(connection: &mut Connection, name: &str, before: Option<i64>) -> Result<Registered, Failure> {
    if let Connection::Postgres(_) = connection {
        // One registration at a time; the number is ours alone ("weir").
        connection
            .run("SELECT pg_advisory_xact_lock(1466263922)", Vec::new())
            .await?;
    }
    let incarnation = rand::random_range(1..=i64::MAX);
    control::register(connection, name, incarnation, before).await
}

fn statement(task: &'static str) -> impl Fn(Failure) -> OpenError {
    move |failure| OpenError::Statement {
        task,
        source: failure.into_source(),
    }
}
