//! Backups: the whole database at one instant as one file, from which either kind of database is made again.
//!
//! A backup is logical (tables, columns, rows), so it moves between SQLite and PostgreSQL, and an archive of an older
//! schema is restored into a newer Weir: the empty database gets the archive's schema, then the rows, then the newer
//! migrations. Taking one only reads, in a transaction of its own beside a running server. Master keys are never in
//! it; the manifest names the keys that the secrets want. Restoring is all or nothing.

mod archive;
mod restore;
mod take;

use std::path::PathBuf;

pub use archive::{ArchiveError, Manifest};
pub use restore::restore;
pub use take::take;

use crate::error::OpenError;

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// From where, when, and which keys it needs.
    pub manifest: Manifest,
    /// Rows by table, in the order of the archive.
    pub rows: Vec<(String, u64)>,
}

/// Why no backup was taken. Nothing was changed; what was written of the archive is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database cannot be reached or opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no SQLite file.
    #[error("there is no database {path}")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The database holds no schema of Weir.
    #[error("the database holds no tables of Weir")]
    NotWeir,
    /// A table could not be read.
    #[error("cannot read {task}")]
    Read {
        /// What was being read.
        task: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The archive could not be written.
    #[error("cannot write the archive")]
    Write(#[source] std::io::Error),
}

/// Why nothing was restored. The target is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The target cannot be reached or opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The target holds something.
    #[error("the target is not empty: {what} exists")]
    NotEmpty {
        /// A file or a table.
        what: String,
    },
    /// The archive has a schema that this program does not know.
    #[error("the archive was made by Weir {weir} with the schema {schema}, which this Weir does not know")]
    Newer {
        /// Version of the program that made it.
        weir: String,
        /// Its newest migration.
        schema: String,
    },
    /// The rows could not be written.
    #[error("cannot restore {task}")]
    Load {
        /// What was being written.
        task: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
