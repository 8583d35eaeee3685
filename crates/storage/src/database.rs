//! Opening the database: the folder, the lock, the settings, the schema.
//!
//! A SQLite file belongs to one process; a second one is turned away before it touches anything. PostgreSQL serves
//! many nodes. Nothing is written here but the schema.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{DatabaseConnection, SqlxPostgresConnector, SqlxSqliteConnector};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use weir_migrations::{Migrator, MigratorTrait};

use crate::error::OpenError;
use crate::read::Store;
use crate::writer::WriterSeed;
use crate::writer::seed::{BUSY_TIMEOUT, PAGE_BYTES, SqliteTarget, Target};

/// Page cache of each reading connection on SQLite, in KiB.
const READ_CACHE_KIB: u32 = 2048;
/// How long a read waits for a connection.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(5);
/// Number of the lock on PostgreSQL that whoever changes the schema holds.
pub(crate) const MIGRATION_LOCK: i64 = 1_466_263_923;

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// One file, one process.
    Sqlite,
    /// A server, many nodes.
    Postgres,
}

/// Settings that have sensible defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseOptions {
    /// Connections that read. Default 4.
    pub read_connections: u32,
    /// Page cache of the writing connection on SQLite, in KiB. Default 16 MiB: the ends of the tables and indexes,
    /// where all writing happens, fit several times over.
    pub write_cache_kib: u32,
    /// The size that a SQLite file must not outgrow, in bytes; beyond it writes fail as on a full disk. Default
    /// none.
    pub max_bytes: Option<u64>,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            read_connections: 4,
            write_cache_kib: 16 << 10,
            max_bytes: None,
        }
    }
}

/// Opens databases.
#[derive(Debug)]
pub struct Database;

impl Database {
    /// Opens `sqlite://PATH` (relative or absolute, made if missing) or `postgres://…`, and brings the schema up to
    /// date.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::Locked`] when another process has the SQLite file.
    pub async fn open(url: &str, options: DatabaseOptions) -> Result<(Store, WriterSeed), OpenError> {
        match Address::parse(url)? {
            Address::Sqlite(path) => open_sqlite(path, options).await,
            Address::Postgres(connect) => open_postgres(*connect, options).await,
        }
    }
}

/// Where a database is.
pub(crate) enum Address {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, OpenError> {
        match url.split_once(':') {
            Some(("sqlite", rest)) => {
                let path = rest.trim_start_matches("//").split('?').next().unwrap_or_default();
                if path.is_empty() || path == ":memory:" {
                    return Err(address(&format!("sqlite://{path}"), "it needs the path of a file"));
                }
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            Some(("postgres" | "postgresql", _)) => {
                let connect = PgConnectOptions::from_str(url).map_err(|error| address(url, &error.to_string()))?;
                let connect = connect.application_name("weir").disable_statement_logging();
                Ok(Self::Postgres(Box::new(connect)))
            }
            _ => Err(address(url, "it must begin with sqlite:// or postgres://")),
        }
    }
}

fn address(url: &str, reason: &str) -> OpenError {
    // What stands between the scheme and the host may be a password.
    let shown = match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.to_owned(),
    };
    OpenError::Address {
        url: shown,
        reason: reason.to_owned(),
    }
}

async fn open_sqlite(path: PathBuf, options: DatabaseOptions) -> Result<(Store, WriterSeed), OpenError> {
    let lock = Arc::new(lock(&path)?);
    migrate_sqlite(&path).await?;
    let read = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("query_only", "1")
        .pragma("cache_size", format!("-{READ_CACHE_KIB}"))
        .pragma("temp_store", "MEMORY")
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new()
        .max_connections(options.read_connections.max(1))
        .min_connections(1)
        .acquire_timeout(ACQUIRE_LIMIT)
        .test_before_acquire(false)
        .connect_with(read)
        .await
        .map_err(OpenError::Connect)?;
    let target = SqliteTarget {
        path,
        cache_kib: options.write_cache_kib,
        max_pages: options
            .max_bytes
            .map(|bytes| u32::try_from(bytes / u64::from(PAGE_BYTES)).unwrap_or(u32::MAX)),
        _lock: Arc::clone(&lock),
    };
    let seed = WriterSeed::new(Target::Sqlite(target)).await?;
    Ok((
        Store::new(
            SqlxSqliteConnector::from_sqlx_sqlite_pool(pool),
            DatabaseKind::Sqlite,
            Some(lock),
        ),
        seed,
    ))
}

/// The lock is a file of its own beside the database: locks on the database itself belong to SQLite. It is freed by
/// the operating system however the process ends, so the file may stay.
pub(crate) fn lock(path: &Path) -> Result<File, OpenError> {
    let file_error = |path: &Path, source| OpenError::File {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| file_error(folder, error))?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&lock_path);
    let file = file.map_err(|error| file_error(&lock_path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: lock_path }),
        Err(TryLockError::Error(error)) => Err(file_error(&lock_path, error)),
    }
}

/// The one connection that makes a file, or brings it up to date.
pub(crate) async fn new_sqlite(path: &Path) -> Result<DatabaseConnection, OpenError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        // Both only count before the first table.
        .page_size(PAGE_BYTES)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .map_err(OpenError::Connect)?;
    Ok(SqlxSqliteConnector::from_sqlx_sqlite_pool(pool))
}

pub(crate) async fn migrate_sqlite(path: &Path) -> Result<(), OpenError> {
    let connection = new_sqlite(path).await?;
    let migrated = migrate(&connection).await;
    connection.close().await.map_err(OpenError::Migrate)?;
    migrated
}

/// Brings the schema up to date, unless a later release made it.
async fn migrate(connection: &DatabaseConnection) -> Result<(), OpenError> {
    Migrator::install(connection).await.map_err(OpenError::Migrate)?;
    let applied = Migrator::get_migration_models(connection)
        .await
        .map_err(OpenError::Migrate)?;
    let known = Migrator::migrations();
    let is_unknown = |version: &String| !known.iter().any(|migration| migration.name() == version);
    match applied.into_iter().map(|migration| migration.version).rfind(is_unknown) {
        Some(schema) => Err(OpenError::Newer { schema }),
        None => Migrator::up(connection, None).await.map_err(OpenError::Migrate),
    }
}

async fn open_postgres(connect: PgConnectOptions, options: DatabaseOptions) -> Result<(Store, WriterSeed), OpenError> {
    // One text per set of tables that a batch touches.
    let connect = connect.statement_cache_capacity(256);
    knock(&connect).await?;
    migrate_postgres(&connect).await?;
    let pool = PgPoolOptions::new()
        // One more, which only listens.
        .max_connections(options.read_connections.max(1) + 1)
        .acquire_timeout(ACQUIRE_LIMIT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                let settings = "SET default_transaction_read_only = on; SET statement_timeout = '10s'; SET jit = off";
                connection.execute(settings).await.map(drop)
            })
        })
        .connect_with(connect.clone())
        .await
        .map_err(OpenError::Connect)?;
    let seed = WriterSeed::new(Target::Postgres(Box::new(connect))).await?;
    Ok((
        Store::new(
            SqlxPostgresConnector::from_sqlx_postgres_pool(pool),
            DatabaseKind::Postgres,
            None,
        ),
        seed,
    ))
}

/// Connects once without a pool, which would say no more than that its time is over.
pub(crate) async fn knock(options: &PgConnectOptions) -> Result<(), OpenError> {
    let server = || match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Unreachable {
        server: server(),
        source,
    };
    let error = match tokio::time::timeout(ACQUIRE_LIMIT, options.connect()).await {
        Ok(Ok(connection)) => return connection.close().await.map_err(OpenError::Connect),
        Ok(Err(error)) => error,
        Err(_) => {
            let silence = format!("no answer within {} s", ACQUIRE_LIMIT.as_secs());
            return Err(unreachable(silence.into()));
        }
    };
    let refusal = match error {
        sqlx::Error::Database(refusal) => refusal,
        sqlx::Error::Io(error) => return Err(unreachable(error.into())),
        error @ sqlx::Error::Tls(_) => return Err(unreachable(error.into())),
        error => return Err(OpenError::Connect(error)),
    };
    let user = options.get_username();
    Err(match refusal.code().as_deref() {
        Some(code) if code.starts_with("28") => OpenError::Denied {
            server: server(),
            user: user.to_owned(),
            reason: refusal.message().to_owned(),
        },
        Some("3D000") => OpenError::NoDatabase {
            server: server(),
            database: options.get_database().unwrap_or(user).to_owned(),
        },
        _ => OpenError::Connect(sqlx::Error::Database(refusal)),
    })
}

async fn migrate_postgres(options: &PgConnectOptions) -> Result<(), OpenError> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_LIMIT)
        .connect_with(options.clone());
    let pool = pool.await.map_err(OpenError::Connect)?;
    let connection: DatabaseConnection = SqlxPostgresConnector::from_sqlx_postgres_pool(pool.clone());
    // Nodes that start together go one after the other. The lock belongs to the pool's only connection and goes
    // with it.
    let locked = pool
        .execute(AssertSqlSafe(format!("SELECT pg_advisory_lock({MIGRATION_LOCK})")))
        .await;
    let migrated = match locked {
        Ok(_) => migrate(&connection).await,
        Err(error) => Err(OpenError::Connect(error)),
    };
    pool.close().await;
    migrated
}
