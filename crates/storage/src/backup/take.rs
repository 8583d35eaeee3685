//! Taking a backup: one read transaction over all tables, beside whatever writes.
//!
//! On SQLite the snapshot is that of the write-ahead log: the server goes on, and the log grows until the backup is
//! done. On PostgreSQL it is a repeatable read. Which tables there are is asked of the database, so that a backup is
//! whole whatever schema it finds.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use futures::TryStreamExt;
use rusqlite::OpenFlags;
use rusqlite::types::ValueRef;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Executor, Row as _};
use weir_workflow_engine::Timestamp;

use super::archive::{ArchiveWriter, Cell, Column, ColumnKind, Manifest, Table};
use super::{BackupError, BackupSummary};
use crate::database::{Address, knock};
use crate::error::OpenError;
use crate::writer::connection::Dialect;
use crate::writer::seed::BUSY_TIMEOUT;

/// Page cache of the reading connection on SQLite, in KiB: every page is read once, in order.
const CACHE_KIB: i32 = 2048;
/// The migrations are made anew by the restore, not copied.
const MIGRATIONS: &str = "seaql_migrations";

/// Writes a consistent snapshot of the database at `url` to `out`, whether a server runs on it or not. The caller makes
/// `out` durable. Blocks the thread while it writes.
///
/// # Errors
/// [`BackupError`]; then `out` holds no whole archive.
pub async fn take<W: Write>(url: &str, out: W) -> Result<(W, BackupSummary), BackupError> {
    match Address::parse(url)? {
        Address::Sqlite(path) => take_sqlite(&path, out),
        Address::Postgres(options) => take_postgres(&options, out).await,
    }
}

/// How an error names what was being read.
fn read<E: Into<Box<dyn std::error::Error + Send + Sync>>>(task: impl Into<String>) -> impl Fn(E) -> BackupError {
    let task = task.into();
    move |source| BackupError::Read {
        task: task.clone(),
        source: source.into(),
    }
}

fn manifest(
    database: &str,
    schema: Option<String>,
    now_ms: i64,
    key_ids: Vec<String>,
) -> Result<Manifest, BackupError> {
    Ok(Manifest {
        weir: env!("CARGO_PKG_VERSION").to_owned(),
        schema: schema.ok_or(BackupError::NotWeir)?,
        database: database.to_owned(),
        taken_at: Timestamp::from_unix_ms(now_ms),
        key_ids,
    })
}

/// The tables with their columns, from rows of table, column and type.
fn tables(columns: Vec<(String, String, String)>) -> Result<Vec<Table>, BackupError> {
    let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for (table, name, kind) in columns {
        let kind = match kind.to_ascii_lowercase().as_str() {
            "integer" | "bigint" | "smallint" => ColumnKind::Integer,
            "text" => ColumnKind::Text,
            "blob" | "bytea" => ColumnKind::Bytes,
            other => {
                let reason = format!("the column {name} has the type {other}, which backups do not know");
                return Err(read(format!("the table {table}"))(reason));
            }
        };
        tables.entry(table).or_default().push(Column { name, kind });
    }
    let table = |(name, columns)| Table { name, columns };
    Ok(tables.into_iter().map(table).collect())
}

pub(super) fn column_list(table: &Table) -> String {
    let quoted: Vec<String> = table
        .columns
        .iter()
        .map(|column| format!("\"{}\"", column.name))
        .collect();
    quoted.join(", ")
}

fn take_sqlite<W: Write>(path: &Path, out: W) -> Result<(W, BackupSummary), BackupError> {
    if !path.exists() {
        return Err(BackupError::Missing { path: path.to_owned() });
    }
    // Not opened for reading only: after a crash the log must be recovered before it can be read.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<rusqlite::Connection> {
        let connection = rusqlite::Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.execute_batch("BEGIN")?;
        Ok(connection)
    };
    let connection = open().map_err(read("the database"))?;
    let schema = read("the schema");
    let list = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'";
    let is_weir = format!("SELECT count(*) FROM ({list}) WHERE name = '{MIGRATIONS}'");
    if connection
        .query_row(&is_weir, [], |row| row.get::<_, i64>(0))
        .map_err(&schema)?
        == 0
    {
        return Err(BackupError::NotWeir);
    }
    let head = || -> rusqlite::Result<_> {
        let newest = format!("SELECT max(version) FROM {MIGRATIONS}");
        let version: Option<String> = connection.query_row(&newest, [], |row| row.get(0))?;
        let now = format!("SELECT {}", Dialect::Sqlite.now_ms());
        let now: i64 = connection.query_row(&now, [], |row| row.get(0))?;
        let mut keys = connection.prepare("SELECT key_id FROM key_check ORDER BY key_id")?;
        let keys: Vec<String> = keys.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let columns = format!(
            "SELECT listed.name, field.name, field.type FROM ({list}) AS listed \
             JOIN pragma_table_info(listed.name) AS field WHERE listed.name <> '{MIGRATIONS}' ORDER BY listed.name, field.cid"
        );
        let mut columns = connection.prepare(&columns)?;
        let columns = columns.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok((version, now, keys, columns.collect::<rusqlite::Result<_>>()?))
    };
    let (version, now_ms, keys, columns) = head().map_err(&schema)?;
    let manifest = manifest("sqlite", version, now_ms, keys)?;
    let mut archive = ArchiveWriter::new(out, manifest).map_err(BackupError::Write)?;
    for table in tables(columns)? {
        archive.table(&table).map_err(BackupError::Write)?;
        let failed = read(format!("the table {}", table.name));
        let text = format!("SELECT {} FROM \"{}\"", column_list(&table), table.name);
        let mut statement = connection.prepare(&text).map_err(&failed)?;
        let mut rows = statement.query([]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            let cells = (0..table.columns.len()).map(|column| sqlite_cell(row.get_ref(column)?));
            let cells: Vec<Cell> = cells.collect::<rusqlite::Result<_>>().map_err(&failed)?;
            archive.row(cells).map_err(BackupError::Write)?;
        }
    }
    archive.finish().map_err(BackupError::Write)
}

fn sqlite_cell(value: ValueRef<'_>) -> rusqlite::Result<Cell> {
    Ok(match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(value) => Cell::Integer(value),
        ValueRef::Text(_) => Cell::Text(value.as_str()?.to_owned()),
        ValueRef::Blob(value) => Cell::Bytes(value.to_vec()),
        // The tables are strict, and no column is of this type.
        ValueRef::Real(_) => return Err(rusqlite::Error::InvalidQuery),
    })
}

async fn take_postgres<W: Write>(options: &PgConnectOptions, out: W) -> Result<(W, BackupSummary), BackupError> {
    knock(options).await?;
    let mut connection = PgConnection::connect_with(options).await.map_err(OpenError::Connect)?;
    let schema = read("the schema");
    let begin = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
        BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    connection.execute(begin).await.map_err(&schema)?;
    let is_weir = format!("SELECT to_regclass('{MIGRATIONS}') IS NOT NULL");
    let is_weir: bool = sqlx::query_scalar(AssertSqlSafe(is_weir))
        .fetch_one(&mut connection)
        .await
        .map_err(&schema)?;
    if !is_weir {
        return Err(BackupError::NotWeir);
    }
    let newest = format!("SELECT max(version) FROM {MIGRATIONS}");
    let version: Option<String> = sqlx::query_scalar(AssertSqlSafe(newest))
        .fetch_one(&mut connection)
        .await
        .map_err(&schema)?;
    let now = format!("SELECT {}", Dialect::Postgres.now_ms());
    let now_ms: i64 = sqlx::query_scalar(AssertSqlSafe(now))
        .fetch_one(&mut connection)
        .await
        .map_err(&schema)?;
    let keys: Vec<String> = sqlx::query_scalar("SELECT key_id FROM key_check ORDER BY key_id")
        .fetch_all(&mut connection)
        .await
        .map_err(&schema)?;
    let columns = format!(
        "SELECT listed.relname::text, field.attname::text, format_type(field.atttypid, NULL) FROM pg_class AS listed \
         JOIN pg_attribute AS field ON field.attrelid = listed.oid AND field.attnum > 0 AND NOT field.attisdropped \
         WHERE listed.relnamespace = current_schema()::regnamespace AND listed.relkind IN ('r', 'p') \
         AND listed.relname <> '{MIGRATIONS}' ORDER BY listed.relname, field.attnum"
    );
    let columns: Vec<(String, String, String)> = sqlx::query_as(AssertSqlSafe(columns))
        .fetch_all(&mut connection)
        .await
        .map_err(&schema)?;
    let manifest = manifest("postgres", version, now_ms, keys)?;
    let mut archive = ArchiveWriter::new(out, manifest).map_err(BackupError::Write)?;
    for table in tables(columns)? {
        archive.table(&table).map_err(BackupError::Write)?;
        let failed = read(format!("the table {}", table.name));
        // One type for all numbers.
        let fields: Vec<String> = table
            .columns
            .iter()
            .map(|column| match column.kind {
                ColumnKind::Integer => format!("\"{}\"::bigint", column.name),
                ColumnKind::Text | ColumnKind::Bytes => format!("\"{}\"", column.name),
            })
            .collect();
        let text = format!("SELECT {} FROM \"{}\"", fields.join(", "), table.name);
        let mut rows = connection.fetch(AssertSqlSafe(text));
        while let Some(row) = rows.try_next().await.map_err(&failed)? {
            let cells = table.columns.iter().enumerate();
            let cells = cells.map(|(place, column)| postgres_cell(&row, place, column.kind));
            let cells: Vec<Cell> = cells.collect::<Result<_, _>>().map_err(&failed)?;
            archive.row(cells).map_err(BackupError::Write)?;
        }
    }
    connection.execute("COMMIT").await.map_err(read("to the end"))?;
    archive.finish().map_err(BackupError::Write)
}

fn postgres_cell(row: &PgRow, place: usize, kind: ColumnKind) -> Result<Cell, sqlx::Error> {
    Ok(match kind {
        ColumnKind::Integer => row.try_get::<Option<i64>, _>(place)?.map_or(Cell::Null, Cell::Integer),
        ColumnKind::Text => row.try_get::<Option<String>, _>(place)?.map_or(Cell::Null, Cell::Text),
        ColumnKind::Bytes => row
            .try_get::<Option<Vec<u8>>, _>(place)?
            .map_or(Cell::Null, Cell::Bytes),
    })
}
