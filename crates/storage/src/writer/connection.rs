//! The writer's connection, and plain statements that both databases understand.
//!
//! This is for what happens seldom: configuration, heartbeat, claims. Events and runs go through
//! [`sqlite`](super::sqlite) and [`postgres`](super::postgres), which are written for speed.

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Arguments, AssertSqlSafe, Executor, Row as _, TypeInfo, ValueRef};

use super::failure::Failure;
use super::seed::PAGE_BYTES;
use crate::node::LEASE;

/// A value bound to a statement; `None` is null.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(Some(value.to_vec()))
    }
}

/// Pages that one slice of retention gives back: a few milliseconds.
const PAGES_PER_SLICE: u32 = 256;
/// Empty pages that stay in the file: a sixteenth of it, and 16 MiB at least. While as much is deleted as is written,
/// pages that were given back would only be asked for again, and moving them is work.
const RESERVE_PART: i64 = 16;
const RESERVE_PAGES: i64 = (16 << 20) / PAGE_BYTES as i64;

/// Rows of an answer: the numbers in them.
pub(crate) type Numbers = Vec<Vec<Option<i64>>>;

/// Which database it is, where texts differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// The time of the database in milliseconds since 1970.
    pub(crate) fn now_ms(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Self::Postgres => "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    /// The condition that the lease in this column is over.
    ///
    /// While the database was away nobody could renew. So one that was in force not long before it came up holds until
    /// every node had the time of a whole lease to renew it; otherwise whoever is back first would fence all others.
    pub(crate) fn lease_over(self, column: &str) -> String {
        let now = self.now_ms();
        match self {
            Self::Sqlite => format!("({column} < {now})"),
            Self::Postgres => {
                let came_up = "CAST(extract(epoch FROM pg_postmaster_start_time()) * 1000 AS BIGINT)";
                over_since(column, now, came_up)
            }
        }
    }
}

/// A lease that ended longer before the database came up than this belongs to a node that is gone.
const OUTAGE_MS: i64 = 60 * 60 * 1000;

fn over_since(lease_until: &str, now: &str, came_up: &str) -> String {
    let lease_ms = LEASE.as_millis();
    format!(
        "({lease_until} < {now} AND NOT ({lease_until} > {came_up} - {OUTAGE_MS} AND {now} < {came_up} + {lease_ms}))"
    )
}

/// The one connection that writes.
pub(crate) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(PgConnection),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Connection({:?})", self.dialect())
    }
}

impl Connection {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Runs a statement inside a transaction. Placeholders are `$1`, `$2` … and must first appear in that order.
    pub(crate) async fn run(&mut self, text: &str, values: Vec<Value>) -> Result<u64, Failure> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection
                    .prepare_cached(text)
                    .map_err(|error| Failure::of_sqlite(&error))?;
                let changed = statement.execute(rusqlite::params_from_iter(values.iter().map(SqliteValue)));
                changed
                    .map(|rows| u64::try_from(rows).unwrap_or(u64::MAX))
                    .map_err(|error| Failure::of_sqlite(&error))
            }
            Self::Postgres(connection) => {
                let arguments = arguments(values)?;
                let done = connection
                    .execute(sqlx::query_with(AssertSqlSafe(text), arguments))
                    .await;
                done.map(|done| done.rows_affected())
                    .map_err(|error| Failure::of_postgres(&error, false))
            }
        }
    }

    /// Runs a statement that answers with numbers. `committing` says that it is its own transaction.
    pub(crate) async fn numbers(
        &mut self,
        text: &str,
        values: Vec<Value>,
        committing: bool,
    ) -> Result<Numbers, Failure> {
        match self {
            Self::Sqlite(connection) => {
                sqlite_numbers(connection, text, &values).map_err(|error| Failure::of_sqlite(&error))
            }
            Self::Postgres(connection) => {
                let arguments = arguments(values)?;
                let rows = connection
                    .fetch_all(sqlx::query_with(AssertSqlSafe(text), arguments))
                    .await;
                let rows = rows.map_err(|error| Failure::of_postgres(&error, committing))?;
                rows.iter()
                    .map(postgres_numbers)
                    .collect::<Result<_, _>>()
                    .map_err(|error| Failure::of_postgres(&error, committing))
            }
        }
    }

    /// The rows that prove which master keys are in use.
    pub(crate) async fn key_checks(&mut self) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let text = "SELECT key_id, sealed FROM key_check";
        match self {
            Self::Sqlite(connection) => {
                let read = || -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
                    let mut statement = connection.prepare(text)?;
                    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
                };
                read().map_err(|error| Failure::of_sqlite(&error))
            }
            Self::Postgres(connection) => {
                let rows = sqlx::query_as(text).fetch_all(connection).await;
                rows.map_err(|error| Failure::of_postgres(&error, false))
            }
        }
    }

    /// Gives pages that retention emptied back to the file system; PostgreSQL does it by itself.
    pub(crate) fn give_back_pages(&mut self) {
        if let Self::Sqlite(connection) = self {
            let shrink = || -> rusqlite::Result<()> {
                let pages = |text| {
                    connection
                        .prepare_cached(text)?
                        .query_row([], |row| row.get::<_, i64>(0))
                };
                let reserve = (pages("PRAGMA page_count")? / RESERVE_PART).max(RESERVE_PAGES);
                if pages("PRAGMA freelist_count")? <= reserve {
                    return Ok(());
                }
                let mut statement =
                    connection.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES_PER_SLICE})"))?;
                let mut rows = statement.query([])?;
                while rows.next()?.is_some() {}
                Ok(())
            };
            if let Err(error) = shrink() {
                tracing::warn!(%error, "empty pages could not be given back");
            }
        }
    }

    /// Begins a transaction that will write.
    pub(crate) async fn begin(&mut self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(connection) => connection
                .execute_batch("BEGIN IMMEDIATE")
                .map_err(|error| Failure::of_sqlite(&error)),
            Self::Postgres(connection) => connection
                .execute("BEGIN")
                .await
                .map(drop)
                .map_err(|error| Failure::of_postgres(&error, false)),
        }
    }

    /// Commits. Any error leaves it open whether the transaction happened.
    pub(crate) async fn commit(&mut self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(connection) => connection
                .execute_batch("COMMIT")
                .map_err(|error| Failure::Unknown(error.to_string())),
            Self::Postgres(connection) => connection
                .execute("COMMIT")
                .await
                .map(drop)
                .map_err(|error| Failure::Unknown(error.to_string())),
        }
    }

    /// Rolls back; `false` when the connection is of no further use.
    pub(crate) async fn roll_back(&mut self) -> bool {
        match self {
            Self::Sqlite(connection) => {
                // SQLite has rolled back by itself after some errors.
                connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok()
            }
            Self::Postgres(connection) => connection.execute("ROLLBACK").await.is_ok(),
        }
    }
}

struct SqliteValue<'a>(&'a Value);

impl rusqlite::ToSql for SqliteValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self.0 {
            Value::Int(value) => value.to_sql(),
            Value::Text(value) => value.to_sql(),
            Value::Bytes(value) => value.to_sql(),
        }
    }
}

fn sqlite_numbers(connection: &rusqlite::Connection, text: &str, values: &[Value]) -> rusqlite::Result<Numbers> {
    let mut statement = connection.prepare_cached(text)?;
    let width = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(values.iter().map(SqliteValue)))?;
    let mut numbers = Numbers::new();
    while let Some(row) = rows.next()? {
        numbers.push(
            (0..width)
                .map(|column| row.get(column))
                .collect::<rusqlite::Result<_>>()?,
        );
    }
    Ok(numbers)
}

fn postgres_numbers(row: &PgRow) -> Result<Vec<Option<i64>>, sqlx::Error> {
    let number = |column: usize| -> Result<Option<i64>, sqlx::Error> {
        let value = row.try_get_raw(column)?;
        let kind = value.type_info();
        match kind.name() {
            "INT2" => Ok(row.try_get::<Option<i16>, _>(column)?.map(i64::from)),
            "INT4" => Ok(row.try_get::<Option<i32>, _>(column)?.map(i64::from)),
            _ => row.try_get::<Option<i64>, _>(column),
        }
    };
    (0..row.len()).map(number).collect()
}

fn arguments(values: Vec<Value>) -> Result<PgArguments, Failure> {
    let mut arguments = PgArguments::default();
    for value in values {
        let added = match value {
            Value::Int(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value),
            Value::Bytes(value) => arguments.add(value),
        };
        added.map_err(|error| Failure::of_postgres(&sqlx::Error::Encode(error), false))?;
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::over_since;

    #[test]
    fn a_lease_that_could_not_be_renewed_is_not_over() {
        let memory = rusqlite::Connection::open_in_memory().unwrap();
        let is_over = |lease_until: i64, now: i64, came_up: i64| {
            let over = over_since(&lease_until.to_string(), &now.to_string(), &came_up.to_string());
            let answer = memory.query_row(&format!("SELECT {over}"), [], |row| row.get::<_, bool>(0));
            answer.unwrap()
        };
        let up = 100_000_000;
        // The database has been there all the time.
        assert!(!is_over(up + 60_000, up + 60_000, up));
        assert!(is_over(up + 60_000, up + 60_001, up));
        // It was away for eight seconds: everybody gets a whole lease to come back.
        assert!(!is_over(up - 3_000, up + 1, up));
        assert!(!is_over(up - 3_000, up + 4_999, up));
        assert!(is_over(up - 3_000, up + 5_000, up));
        // Who renewed since is judged by that.
        assert!(!is_over(up + 5_500, up + 5_200, up));
        assert!(is_over(up + 5_500, up + 5_501, up));
        // Who is gone for hours is not waited for.
        assert!(is_over(up - 3_600_000, up + 1, up));
        assert!(is_over(1, up + 1, up));
    }
}
