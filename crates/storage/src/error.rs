//! Errors of opening and of reading.

use std::path::PathBuf;

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address of the database is not understood.
    #[error("cannot use the database address {url:?}: {reason}")]
    Address {
        /// The address, without a password.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The folder or the lock file could not be made.
    #[error("cannot use {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the database open.
    #[error("another weir process has this database open: {path} is locked")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Nothing answers as PostgreSQL at the address.
    #[error("cannot reach PostgreSQL at {server}")]
    Unreachable {
        /// Host and port, or the folder of the socket.
        server: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// PostgreSQL answers, and turns this user away (SQLSTATE class 28).
    #[error("PostgreSQL at {server} does not let the user {user:?} in: {reason}")]
    Denied {
        /// Host and port, or the folder of the socket.
        server: String,
        /// Who asked.
        user: String,
        /// The server's words.
        reason: String,
    },
    /// PostgreSQL has no database of this name (SQLSTATE `3D000`).
    #[error("PostgreSQL at {server} has no database {database:?}")]
    NoDatabase {
        /// Host and port, or the folder of the socket.
        server: String,
        /// The name.
        database: String,
    },
    /// The database answers, and cannot be used.
    #[error("cannot connect to the database")]
    Connect(#[source] sqlx::Error),
    /// A later release made the schema.
    #[error("the database has schema {schema}, which a later release of weir made")]
    Newer {
        /// The last migration that this release does not know.
        schema: String,
    },
    /// The schema could not be brought up to date.
    #[error("cannot bring the database schema up to date")]
    Migrate(#[source] sea_orm::DbErr),
    /// A statement at start failed.
    #[error("cannot {task}")]
    Statement {
        /// What was tried.
        task: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// All 1,024 places for nodes are taken.
    #[error("there is no place for another node")]
    NoSlot,
    /// The master key does not fit the secrets in the database.
    #[error(transparent)]
    Key(#[from] crate::secret_box::KeyError),
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database did not answer; try again later.
    #[error("the database did not answer")]
    Unavailable(#[source] sea_orm::DbErr),
    /// A stored row no longer makes sense; nothing repairs itself.
    #[error("stored row {row} cannot be read: {reason}")]
    Corrupt {
        /// Table and id.
        row: String,
        /// What is wrong.
        reason: String,
    },
}

impl From<sea_orm::DbErr> for ReadError {
    fn from(error: sea_orm::DbErr) -> Self {
        Self::Unavailable(error)
    }
}

/// An error with its causes, in one line.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
