//! What people do to runs, as one write: start replays of those that are over, add to their journals, ask something of
//! those that are open, with the audit entry.
//!
//! It happens seldom, so it has a transaction of its own and plain statements; the ways of events and runs are not
//! touched by it.

use weir_workflow_engine::{BulkId, EventId, RunId, Timestamp, WorkflowId, WorkspaceId};

use crate::backfill::BackfillAsk;
use crate::config::AuditEntry;
use crate::fact::{Dedupe, EventRow, NewRun, RunCommit, TurnAsk};
use crate::mail::Request;

/// Something that a person did to runs, all or nothing.
#[derive(Debug, Default)]
pub struct Operation {
    /// What must still be true; otherwise the fact fails as [`Stale`](crate::WriteError::Stale).
    pub family: Option<ExpectedFamily>,
    /// A copy of an event with another body, for the runs that are started.
    pub event: Option<Box<CopiedEvent>>,
    /// The run that is started is one of a stored event from now on, and not a replay.
    pub of_event: Option<RunOfEvent>,
    /// Replays. A run that is replayed is no dead letter any more, nor are the others of its family.
    pub starts: Vec<NewRun>,
    /// Journal rows: of the runs started, or behind the end of others. A place that is taken makes the fact fail as
    /// [`Stale`](crate::WriteError::Stale). Their updates and their mail are not looked at.
    pub journal: Vec<RunCommit>,
    /// What is asked of open runs. One that is over makes the fact fail as [`Stale`](crate::WriteError::Stale).
    pub requests: Vec<Request>,
    /// What happens to a run that waits for its turn, or that keeps others waiting.
    pub turn: Option<TurnAsk>,
    /// What changes about an operation on many runs.
    pub bulk: Option<BulkChange>,
    /// What a person asks of a backfill.
    pub backfill: Option<BackfillAsk>,
    /// What is noted about dead letters.
    pub note: Option<CauseNote>,
    /// Entries of the audit trail.
    pub audit: Vec<AuditEntry>,
}

/// How many runs a family had when it was looked at. Two replays of one run, on two nodes, are decided one after the
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedFamily {
    /// The first run of the family.
    pub root: RunId,
    /// How many replays there were.
    pub replays: u64,
}

/// A run that a person starts on a stored event, for a workflow that did not take the event when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOfEvent {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The event. A copy that was made for a replay has no runs of its own.
    pub event: EventId,
    /// The runs of the event that were seen, replays not among them. When it has others, the fact fails as
    /// [`Stale`](crate::WriteError::Stale): so no workflow is started on it twice.
    pub before: Vec<RunId>,
}

/// An event that a person made from another one. It passes no dedupe: its runs are of the family of the other.
#[derive(Debug)]
pub struct CopiedEvent {
    /// The event.
    pub event: EventRow,
    /// What made the original the same as others; the keys of effects are made of it.
    pub dedupe: Dedupe,
}

/// An operation on many runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkRow {
    /// Its id.
    pub id: BulkId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Where it stands.
    pub status: BulkStatus,
    /// Who began it, as in the audit trail.
    pub actor: String,
    /// Which runs were asked for, a JSON object for people.
    pub filter: String,
    /// What is done with them, a JSON object.
    pub options: String,
    /// How many runs belong to it.
    pub total: u32,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was through or stopped.
    pub finished_at: Option<Timestamp>,
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkStatus {
    /// Under way.
    Running,
    /// A person stopped it.
    Stopped,
    /// Every run had its turn.
    Finished,
}

/// Where a run of an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkItemState {
    /// Its turn has not come.
    Pending,
    /// Its replay was started, or it was asked.
    Started,
    /// It was left out.
    Skipped,
}

/// A change of an operation on many runs. Each fails as [`Stale`](crate::WriteError::Stale) when the operation is not
/// under way any more, or the run has had its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkChange {
    /// It begins, with these runs and what was shown for each.
    Begin {
        /// The operation.
        row: BulkRow,
        /// Its runs.
        items: Vec<(RunId, String)>,
    },
    /// The replay of a run is started, or something asked of it, by the same write.
    Started {
        /// The operation.
        bulk: BulkId,
        /// The run.
        run: RunId,
        /// Its replay; `None` when something was asked of the run itself.
        replay: Option<RunId>,
    },
    /// A run is left out.
    Skipped {
        /// The operation.
        bulk: BulkId,
        /// The run.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// It is over.
    End {
        /// The operation.
        bulk: BulkId,
        /// How: stopped or finished.
        status: BulkStatus,
        /// When.
        at: Timestamp,
    },
}

/// What tells dead letters with one cause from others of their workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CauseKey {
    /// Their workflow.
    pub workflow: WorkflowId,
    /// The cause, as [`NewDeadLetter::cause`](crate::NewDeadLetter::cause).
    pub cause: i64,
}

/// Where dead letters with one cause stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseState {
    /// They want a person.
    Open,
    /// Taken care of, up to a run.
    Resolved,
    /// Nobody has to take care of them.
    Ignored,
}

/// A person's note about dead letters with one cause; it replaces the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CauseNote {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Which.
    pub key: CauseKey,
    /// What is said.
    pub state: CauseState,
    /// The last run that it is about.
    pub up_to: RunId,
    /// Why.
    pub note: String,
    /// Who, as in the audit trail.
    pub actor: String,
    /// When.
    pub at: Timestamp,
}
