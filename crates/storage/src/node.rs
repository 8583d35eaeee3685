//! The process as the database knows it.

use std::time::Duration;

use weir_workflow_engine::Timestamp;

/// How long a lease holds after the heartbeat that renewed it: four missed heartbeats.
pub const LEASE: Duration = Duration::from_secs(5);

/// The owner of runs that no node has taken yet.
pub(crate) const NOBODY: i16 = -1;
/// What nodes are told by when there are such runs.
pub(crate) const FREE_RUNS: &str = "weir_runs";

/// Why a process is no longer the node that the database knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fence {
    /// It did not renew its lease for too long.
    #[error("its lease ran out, and other servers took its runs over")]
    LeaseOver,
    /// Another process registered under its name.
    #[error("another process took this node's place, under the same name")]
    NameTaken,
    /// Another history of the data answers.
    #[error("the database was replaced by a copy of itself")]
    OtherCopy,
    /// It could not be seen.
    #[error("the database does not know this node any more")]
    Unclear,
}

/// The identity of this process, made by [`WriterSeed::register`](crate::WriterSeed::register).
///
/// A node is its name: a process that registers under the same name takes the place of the one before at once,
/// with all its open runs, and the one before is fenced. So names must differ between machines, and stay the same
/// over restarts where they can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The name.
    pub name: String,
    /// The place among the nodes, below 1,024: part of every id the node makes.
    pub slot: u16,
    /// Random, new with every registration: what fences the process before.
    pub incarnation: i64,
    /// No raw id above this was given out from this slot.
    pub id_high_water: i64,
    /// The time of the database at registration.
    pub database_time: Timestamp,
    /// Whether it drives runs. One that does not leaves every run that may start to the others. On SQLite it must.
    pub drives_runs: bool,
}

impl NodeIdentity {
    /// Who is to drive what this node writes.
    pub(crate) fn owner(&self) -> i16 {
        if self.drives_runs {
            i16::try_from(self.slot).unwrap_or(i16::MAX)
        } else {
            NOBODY
        }
    }
}
