//! Restoring: first the whole archive is checked, then an empty database is filled, and only a full one is seen.
//!
//! On SQLite the rows go into a file beside the target, which takes its name when it is on disk. On PostgreSQL schema
//! and rows are one transaction. The restored nodes are fenced: no process is the one that wrote the rows, so whoever
//! starts takes the open runs over, and nobody ends the sessions of a server that still runs elsewhere.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use sea_orm::{ConnectionTrait, DatabaseConnection, SqlxPostgresConnector, Statement, TransactionTrait, Value};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use weir_migrations::{Migrator, MigratorTrait};

use super::archive::{ArchiveReader, Cell, ColumnKind, Record, Table};
use super::take::column_list;
use super::{ArchiveError, BackupSummary, RestoreError};
use crate::database::{Address, MIGRATION_LOCK, knock, lock, new_sqlite};
use crate::error::OpenError;

/// Values of one statement: PostgreSQL takes 65,535, SQLite 32,766.
const STATEMENT_VALUES: usize = 32_000;
/// Rows of one statement: more save nothing.
const STATEMENT_ROWS: usize = 500;
/// Bytes of one statement, above which the next row begins another.
const STATEMENT_BYTES: usize = 4 << 20;

/// Makes the database at `url` from an archive, and brings its schema up to date. The target must be empty: no SQLite
/// file, no table in PostgreSQL.
///
/// # Errors
/// [`RestoreError`]; then the target is as it was.
pub async fn restore(url: &str, archive: &Path) -> Result<BackupSummary, RestoreError> {
    let address = Address::parse(url)?;
    let checked = check(archive)?;
    let migrations = Migrator::migrations();
    let schema = &checked.manifest.schema;
    let known = migrations.iter().position(|migration| migration.name() == schema);
    let Some(steps) = known.and_then(|place| u32::try_from(place + 1).ok()) else {
        return Err(RestoreError::Newer {
            weir: checked.manifest.weir,
            schema: checked.manifest.schema,
        });
    };
    match address {
        Address::Sqlite(path) => into_sqlite(&path, archive, steps).await?,
        Address::Postgres(options) => into_postgres(&options, archive, steps).await?,
    }
    Ok(checked)
}

fn open(archive: &Path) -> Result<ArchiveReader<BufReader<File>>, ArchiveError> {
    let file = File::open(archive).map_err(ArchiveError::Read)?;
    ArchiveReader::open(BufReader::with_capacity(1 << 20, file))
}

/// Reads the archive to its end.
fn check(archive: &Path) -> Result<BackupSummary, ArchiveError> {
    let mut reader = open(archive)?;
    while reader.next()?.is_some() {}
    Ok(reader.into_summary())
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(task: impl Into<String>) -> impl Fn(E) -> RestoreError {
    let task = task.into();
    move |source| RestoreError::Load {
        task: task.clone(),
        source: source.into(),
    }
}

async fn into_sqlite(path: &Path, archive: &Path, steps: u32) -> Result<(), RestoreError> {
    let _lock = lock(path)?;
    for suffix in ["", "-wal"] {
        let existing = with_suffix(path, suffix);
        if existing.exists() {
            let what = existing.display().to_string();
            return Err(RestoreError::NotEmpty { what });
        }
    }
    let beside = with_suffix(path, ".restoring");
    remove(&beside).map_err(failed("into a file beside the target"))?;
    let filled = fill_sqlite(&beside, archive, steps).await;
    let moved = filled.and_then(|()| {
        let publish = || {
            File::open(&beside)?.sync_all()?;
            std::fs::rename(&beside, path)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
        };
        publish().map_err(failed("the file to its place"))
    });
    if moved.is_err()
        && let Err(error) = remove(&beside)
    {
        tracing::warn!(%error, "{} is left over", beside.display());
    }
    moved
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a file that was half restored, with what SQLite keeps beside it.
fn remove(path: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        match std::fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

async fn fill_sqlite(beside: &Path, archive: &Path, steps: u32) -> Result<(), RestoreError> {
    let connection = new_sqlite(beside).await?;
    // Nobody sees the file before it is synced, so nothing on the way there need be safe.
    let quick = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536";
    connection
        .execute_unprepared(quick)
        .await
        .map_err(failed("the settings of the file"))?;
    let filled = fill(&connection, archive, steps).await;
    let settled = match filled {
        Ok(()) => connection
            .execute_unprepared("PRAGMA journal_mode = WAL")
            .await
            .map(drop)
            .map_err(failed("the settings of the file")),
        Err(error) => Err(error),
    };
    let closed = connection.close().await.map_err(failed("the end of the file"));
    settled.and(closed)
}

async fn into_postgres(options: &PgConnectOptions, archive: &Path, steps: u32) -> Result<(), RestoreError> {
    knock(options).await?;
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone());
    let pool = pool.await.map_err(OpenError::Connect)?;
    let connection: DatabaseConnection = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
    let schema = failed("the schema");
    #[expect(
        clippy::disallowed_methods,
        reason = "the database is empty: there is no writer whose facts this could be"
    )]
    let transaction = connection.begin().await.map_err(&schema)?;
    let alone = format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
         SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
    );
    transaction.execute_unprepared(&alone).await.map_err(&schema)?;
    let tables = "SELECT relname::text AS name FROM pg_class WHERE relnamespace = current_schema()::regnamespace \
        AND relkind IN ('r', 'p') LIMIT 1";
    let found = Statement::from_string(transaction.get_database_backend(), tables);
    if let Some(row) = transaction.query_one_raw(found).await.map_err(&schema)? {
        let name: String = row.try_get("", "name").map_err(&schema)?;
        return Err(RestoreError::NotEmpty {
            what: format!("the table {name}"),
        });
    }
    fill(&transaction, archive, steps).await?;
    transaction.commit().await.map_err(failed("to the end"))?;
    connection.close().await.map_err(failed("to the end"))
}

/// The archive's schema, its rows, then the newer migrations.
async fn fill<C>(connection: &C, archive: &Path, steps: u32) -> Result<(), RestoreError>
where
    C: ConnectionTrait,
    for<'c> &'c C: weir_migrations::IntoSchemaManagerConnection<'c>,
{
    Migrator::up(connection, Some(steps))
        .await
        .map_err(OpenError::Migrate)?;
    let mut reader = open(archive)?;
    let mut batch: Option<Batch> = None;
    while let Some(record) = reader.next()? {
        match record {
            Record::Table(table) => {
                if let Some(before) = &mut batch {
                    before.flush(connection).await?;
                }
                // Some migrations leave a row.
                let empty = format!("DELETE FROM \"{}\"", table.name);
                connection
                    .execute_unprepared(&empty)
                    .await
                    .map_err(failed(format!("the table {}", table.name)))?;
                batch = Some(Batch::new(table));
            }
            Record::Row(cells) => {
                if let Some(batch) = &mut batch {
                    batch.push(cells);
                    if batch.is_full() {
                        batch.flush(connection).await?;
                    }
                }
            }
        }
    }
    if let Some(last) = &mut batch {
        last.flush(connection).await?;
    }
    connection
        .execute_unprepared("UPDATE node SET incarnation = 0, lease_until = 0")
        .await
        .map_err(failed("the nodes"))?;
    Migrator::up(connection, None).await.map_err(OpenError::Migrate)?;
    Ok(())
}

/// Rows of one table on their way into one statement.
struct Batch {
    table: Table,
    values: Vec<Value>,
    rows: usize,
    bytes: usize,
}

impl Batch {
    fn new(table: Table) -> Self {
        Self {
            table,
            values: Vec::new(),
            rows: 0,
            bytes: 0,
        }
    }

    fn push(&mut self, cells: Vec<Cell>) {
        for (cell, column) in cells.into_iter().zip(&self.table.columns) {
            self.bytes += match &cell {
                Cell::Null | Cell::Integer(_) => 8,
                Cell::Text(text) => text.len(),
                Cell::Bytes(bytes) => bytes.len(),
            };
            // PostgreSQL wants to know of what type a null is.
            self.values.push(match (cell, column.kind) {
                (Cell::Integer(value), _) => Value::BigInt(Some(value)),
                (Cell::Text(value), _) => Value::String(Some(value)),
                (Cell::Bytes(value), _) => Value::Bytes(Some(value)),
                (Cell::Null, ColumnKind::Integer) => Value::BigInt(None),
                (Cell::Null, ColumnKind::Text) => Value::String(None),
                (Cell::Null, ColumnKind::Bytes) => Value::Bytes(None),
            });
        }
        self.rows += 1;
    }

    fn is_full(&self) -> bool {
        self.rows >= STATEMENT_ROWS
            || self.bytes >= STATEMENT_BYTES
            || self.values.len() + self.table.columns.len() > STATEMENT_VALUES
    }

    async fn flush(&mut self, connection: &impl ConnectionTrait) -> Result<(), RestoreError> {
        if self.rows == 0 {
            return Ok(());
        }
        let width = self.table.columns.len();
        let row = |row: usize| {
            let places: Vec<String> = (1..=width).map(|place| format!("${}", row * width + place)).collect();
            format!("({})", places.join(", "))
        };
        let rows: Vec<String> = (0..self.rows).map(row).collect();
        let text = format!(
            "INSERT INTO \"{}\" ({}) VALUES {}",
            self.table.name,
            column_list(&self.table),
            rows.join(", ")
        );
        let values = std::mem::take(&mut self.values);
        (self.rows, self.bytes) = (0, 0);
        let statement = Statement::from_sql_and_values(connection.get_database_backend(), text, values);
        connection
            .execute_raw(statement)
            .await
            .map(drop)
            .map_err(failed(format!("the table {}", self.table.name)))
    }
}
