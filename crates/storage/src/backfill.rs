//! Backfills as they are stored: which range of an endpoint's list is read, how far, and by which node.

use weir_workflow_engine::{BackfillId, EndpointId, Timestamp, WorkspaceId};

/// Backfills of one endpoint that are kept, with the one that is open.
///
/// Limit: backfills of an endpoint that are kept | the oldest that is over is deleted when another one begins | `old_backfills_make_room`
pub const MAX_BACKFILLS_KEPT: u32 = 20;

/// Where a backfill stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackfillStatus {
    /// Under way.
    Running,
    /// A person paused it.
    Paused,
    /// The range is read.
    Finished,
    /// A person ended it.
    Stopped,
    /// It cannot go on.
    Failed,
}

impl BackfillStatus {
    /// Whether it may still go on.
    #[must_use]
    pub const fn is_open(self) -> bool {
        match self {
            Self::Running | Self::Paused => true,
            Self::Finished | Self::Stopped | Self::Failed => false,
        }
    }
}

/// A backfill that is to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBackfill {
    /// Its id.
    pub id: BackfillId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Who began it, as in the audit trail.
    pub actor: String,
    /// Events that happened at this time or later.
    pub since: Timestamp,
    /// Events that happened before this time.
    pub until: Timestamp,
    /// When it begins.
    pub at: Timestamp,
}

/// What a person asks of a backfill. What does not fit where it stands fails as [`Stale`](crate::WriteError::Stale).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackfillAsk {
    /// It begins, if none of the endpoint is open.
    Begin(NewBackfill),
    /// It changes from one of these to another one.
    Set {
        /// The tenant.
        workspace: WorkspaceId,
        /// Which.
        id: BackfillId,
        /// Where it stands.
        from: BackfillStatus,
        /// Where it shall stand.
        to: BackfillStatus,
        /// When.
        at: Timestamp,
    },
}

/// A step of the node that reads the list. All but the first prove that this node does; otherwise the fact fails as
/// [`Stale`](crate::WriteError::Stale).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackfillStep {
    /// This node takes up one that is under way and that nobody reads, or whose node is gone.
    Claim(BackfillId),
    /// What was read up to here is stored.
    Move(BackfillMove),
    /// This node reads no further.
    LetGo(BackfillLetGo),
}

/// A backfill moves on. It counts also when somebody paused it meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackfillMove {
    /// The backfill.
    pub id: BackfillId,
    /// Where the walk goes on, in the orchestrator's form; `None` leaves it.
    pub place: Option<String>,
    /// The time of the last item; `None` leaves it.
    pub reached: Option<Timestamp>,
    /// Pages read since the last move.
    pub pages: u32,
    /// Items on them.
    pub listed: u64,
    /// Events recovered since the last move.
    pub recovered: u64,
    /// Events that were here already.
    pub duplicates: u64,
    /// Items within the range that are no events, or of which nobody knows whether they were received.
    pub passed_over: u64,
}

/// A node lets go of a backfill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackfillLetGo {
    /// The backfill.
    pub id: BackfillId,
    /// How it ends, if it is still under way; `None`: somebody goes on with it.
    pub end: Option<BackfillStatus>,
    /// What went wrong at the last try, or what is worth knowing, without secrets.
    pub error: Option<String>,
    /// Failed tries in a row.
    pub failures: u32,
    /// When it may be taken up again.
    pub retry_at: Timestamp,
    /// Now.
    pub at: Timestamp,
}

/// A backfill and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackfillRow {
    /// Its id.
    pub id: BackfillId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Where it stands.
    pub status: BackfillStatus,
    /// Who began it.
    pub actor: String,
    /// Events that happened at this time or later.
    pub since: Timestamp,
    /// Events that happened before this time.
    pub until: Timestamp,
    /// Where the walk goes on, in the orchestrator's form.
    pub place: Option<String>,
    /// The time of the last item that was read.
    pub reached: Option<Timestamp>,
    /// Pages read.
    pub pages: u32,
    /// Items on them.
    pub listed: u64,
    /// Events recovered.
    pub recovered: u64,
    /// Events that were here already.
    pub duplicates: u64,
    /// Items within the range that were passed over.
    pub passed_over: u64,
    /// Failed tries in a row.
    pub failures: u32,
    /// What went wrong at the last try, or why it ended.
    pub error: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it is taken up again, after a failed try.
    pub retry_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
}
