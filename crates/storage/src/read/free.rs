//! Hearing of runs that belong to no node yet.

use sea_orm::{DbErr, RuntimeErr};
use sqlx::postgres::PgListener;

use super::Store;
use crate::database::DatabaseKind;
use crate::error::ReadError;
use crate::node::FREE_RUNS;

/// Hears of runs that anyone may claim, on a connection of its own. What is missed while it is away, the heartbeat finds.
#[derive(Debug)]
pub struct FreeRuns(PgListener);

impl Store {
    /// Begins to listen; `None` on SQLite, where every run is this process's own.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] when the database does not answer.
    pub async fn free_runs(&self) -> Result<Option<FreeRuns>, ReadError> {
        let DatabaseKind::Postgres = self.kind else {
            return Ok(None);
        };
        let pool = self.db.get_postgres_connection_pool();
        let mut listener = PgListener::connect_with(pool).await.map_err(unavailable)?;
        listener.listen(FREE_RUNS).await.map_err(unavailable)?;
        Ok(Some(FreeRuns(listener)))
    }
}

impl FreeRuns {
    /// Waits until there may be such runs. Several commits may be heard as one. Cancel-safe.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] when the connection is lost and cannot be made again; then listen anew.
    pub async fn heard(&mut self) -> Result<(), ReadError> {
        self.0.recv().await.map_err(unavailable)?;
        while self.0.next_buffered().is_some() {}
        Ok(())
    }
}

fn unavailable(error: sqlx::Error) -> ReadError {
    ReadError::from(DbErr::Conn(RuntimeErr::SqlxError(error.into())))
}
