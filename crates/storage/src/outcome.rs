//! What became of a fact.
//!
//! Each error says what the caller must do; the cause stays in the writer's log and in
//! [`Writer::health`](crate::Writer::health).

use weir_workflow_engine::{EventId, OutgoingId, RunId, Timestamp};

use crate::config::ConfigSubject;
use crate::mail::RequestOutcome;

/// The answer to a fact that was written (or needed no writing).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactOutcome {
    /// Answer to `Accept`.
    Accepted(AcceptOutcome),
    /// Answer to `Run`, `Refused`, `Release`, `Sweep`, `Backfill`, `Grant`, `Registration` and `Coverage`: it is on disk.
    Written,
    /// Answer to `Start` and `Operate`: they are on disk.
    Started {
        /// Those that may not start: they wait for their turn, or are over already.
        held: Vec<RunId>,
    },
    /// Answer to `Request`.
    Request(RequestOutcome),
    /// Answer to `Emit`: the event stored under this effect key, now or before.
    Emitted(OutgoingId),
    /// Answer to `Config`.
    Config(ConfigOutcome),
    /// Answer to `Heartbeat`.
    Heartbeat(HeartbeatReply),
    /// Answer to `Claim` and `ClaimFree`: the runs that now belong to this node, oldest first.
    Claimed(Vec<RunId>),
    /// Answer to `Release`: how many runs this node gave away.
    Released(u64),
    /// Answer to `Prune`: what was deleted.
    Pruned(Removed),
}

/// Whether an event was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptOutcome {
    /// It is stored, with its runs.
    New,
    /// It was seen before: nothing was written.
    Duplicate {
        /// The event stored first.
        of: EventId,
    },
}

/// Whether a change of the configuration was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOutcome {
    /// It is stored.
    Applied {
        /// The revision of the whole configuration after it.
        revision: i64,
    },
    /// Somebody was faster: nothing was written.
    Conflict {
        /// What does not have the expected revision.
        subject: ConfigSubject,
        /// The revision it has; `None` when it is not there.
        current: Option<i64>,
    },
}

/// What the heartbeat's one statement found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// Runs of this node that are due, counted up to 1,000.
    pub due: u32,
    /// Open runs whose node is gone, counted up to 1,000: time for a `Claim`.
    pub unclaimed: u32,
    /// Runs that belong to no node, counted up to the heartbeat's limit: time for a `ClaimFree`.
    pub free: u32,
    /// Other nodes whose lease holds.
    pub others: u32,
    /// Those among them that drive runs.
    pub other_workers: u32,
    /// Pieces of mail for open runs of this node, counted up to 1,000.
    pub mail: u32,
    /// Whether there is an operation on many runs that this node has to go on with.
    pub bulk: bool,
    /// Whether there is a backfill that this node may go on with.
    pub backfill: bool,
    /// Revision of the configuration.
    pub config_revision: i64,
    /// The time of the database: the leases' time, and the measure of our own clock.
    pub database_time: Timestamp,
    /// Until when the lease holds, by the time of the database.
    pub lease_until: Timestamp,
}

/// Why a fact has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Another commit has this place in the run's journal, or another node this sweep, backfill or grant: reload it. Nothing was written.
    #[error("the run has moved on")]
    Stale,
    /// This process is no longer the node it was: stop working. Nothing was written.
    #[error("this process is not the node any more that the database knows")]
    Fenced,
    /// The fact itself cannot be stored: this one only, and trying again does not help. Nothing was written.
    #[error("refused: {0}")]
    Refused(Constraint),
    /// The configuration has changed since the event was routed: read it again and route the event anew. Nothing was
    /// written.
    #[error("the configuration has changed since the event was routed")]
    Outdated {
        /// The revision in force.
        revision: i64,
    },
    /// The commit may have happened: read before doing anything again.
    #[error("the result of the commit is unknown")]
    Unknown,
    /// The database cannot write now. Nothing was written.
    #[error("the database cannot write now")]
    Unavailable,
}

/// What a fact offended against.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Constraint {
    /// Something with this name, number or id exists.
    #[error("{name} is taken")]
    Taken {
        /// The constraint, as `table.column`.
        name: String,
    },
    /// The database does not take the value.
    #[error("the database does not take the value: {reason}")]
    Value {
        /// What the database says.
        reason: String,
    },
    /// The fact is larger than the writer's whole queue may be.
    #[error("the value is {bytes} bytes and the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// The queue has no room: say so to whoever asked, do not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the write queue is full ({facts} facts, {bytes} bytes)")]
pub struct Full {
    /// Facts in the queue.
    pub facts: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// What a slice of retention deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Rows of all tables.
    pub rows: u64,
    /// Bytes of the bodies among them, as they were stored.
    pub bytes: u64,
}

impl Removed {
    /// From the sizes that a deleting statement returned.
    pub(crate) fn of(sizes: &[Vec<Option<i64>>]) -> Self {
        let bytes = sizes.iter().flatten().copied().flatten();
        Self {
            rows: u64::try_from(sizes.len()).unwrap_or(u64::MAX),
            bytes: bytes.filter_map(|bytes| u64::try_from(bytes).ok()).sum(),
        }
    }
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}
