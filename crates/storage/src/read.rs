//! Reading. Never in a transaction, never under a lock, never for more than a page.
//!
//! Whatever belongs to a tenant takes the workspace first. The few readers without one serve the node itself
//! (recovery, timers, configuration) and say so.

mod audit;
mod backfill;
mod bulk;
mod config;
mod dead_letter;
pub(crate) mod event;
mod free;
mod gates;
mod grant;
mod history;
mod journal;
pub(crate) mod mail;
mod outgoing;
mod recovery;
mod refused;
mod registration;
pub(crate) mod run;
mod sweep;

use std::fs::File;
use std::sync::Arc;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use weir_workflow_engine::{IdGenerator, Timestamp};

pub use audit::AuditFilter;
pub use bulk::{BulkCounts, BulkItemRow, RunSelection, SelectedRuns};
pub use dead_letter::{CauseMark, CauseRow, MAX_CAUSES};
pub use event::{EventFilter, EventSummary, StoredEvent};
pub use free::FreeRuns;
pub use gates::{HeldLane, HeldRuns, MergedRow, WaitingFor};
pub use history::OldEvent;
pub use recovery::StoredRun;
pub use refused::{RefusedCount, RefusedFilter, RefusedRow};
pub use run::{Count, RunCounts, RunFilter, RunRow};

use crate::database::DatabaseKind;
use crate::error::ReadError;
use crate::page::MAX_PAGE;
use crate::writer::Dialect;

/// Rows that a filter without an index looks at for one page.
const SCAN_ROWS: u64 = 20_000;
/// Values of one `IN` list.
const LIST_VALUES: usize = 500;

/// Reads. Clones share the connections.
#[derive(Clone, Debug)]
pub struct Store {
    db: DatabaseConnection,
    kind: DatabaseKind,
    /// Held as long as anybody can reach the file.
    _lock: Option<Arc<File>>,
}

impl Store {
    pub(crate) fn new(db: DatabaseConnection, kind: DatabaseKind, lock: Option<Arc<File>>) -> Self {
        Self { db, kind, _lock: lock }
    }

    /// Which database it is.
    pub fn kind(&self) -> DatabaseKind {
        self.kind
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<(), ReadError> {
        self.query("SELECT 1").await.map(drop)
    }

    /// The name of the newest migration that was applied.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn schema_version(&self) -> Result<String, ReadError> {
        let row = self
            .query("SELECT max(version) AS version FROM seaql_migrations")
            .await?;
        match row {
            Some(row) => Ok(row.try_get("", "version")?),
            None => Ok(String::new()),
        }
    }

    /// The time of the database, by which leases are judged.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn database_time(&self) -> Result<Timestamp, ReadError> {
        let now = match self.kind {
            DatabaseKind::Sqlite => Dialect::Sqlite,
            DatabaseKind::Postgres => Dialect::Postgres,
        }
        .now_ms();
        match self.query(&format!("SELECT {now} AS now")).await? {
            Some(row) => Ok(time(row.try_get("", "now")?)),
            None => Ok(time(0)),
        }
    }

    async fn query(&self, text: &str) -> Result<Option<sea_orm::QueryResult>, ReadError> {
        let backend = match self.kind {
            DatabaseKind::Sqlite => DbBackend::Sqlite,
            DatabaseKind::Postgres => DbBackend::Postgres,
        };
        Ok(self.db.query_one_raw(Statement::from_string(backend, text)).await?)
    }
}

fn page_limit(limit: u32) -> u64 {
    u64::from(limit.clamp(1, MAX_PAGE))
}

/// The lowest id that is made at this time. Ids carry their time, so a span of time is a span of ids.
pub(crate) fn first_id_at(time: Timestamp) -> i64 {
    IdGenerator::new(0, 0).next_raw(time)
}

fn time(value: i64) -> Timestamp {
    Timestamp::from_unix_ms(value)
}

fn optional_time(value: Option<i64>) -> Option<Timestamp> {
    value.map(Timestamp::from_unix_ms)
}
