//! What can be written: each [`Fact`] is a value, atomic by itself, handed to the [`Writer`](crate::Writer).
//!
//! Facts say what happened, never how a table looks. Nothing outside this crate writes in any other way.

use std::collections::BTreeSet;

use bytes::Bytes;
use weir_workflow_engine::{
    ConnectionId, EndpointId, EventId, EventSource, RefusalId, RunId, Timestamp, Turn, VersionId, WorkflowId,
    WorkspaceId,
};

use crate::backfill::BackfillStep;
use crate::config::{AuditEntry, ConfigChange};
use crate::grant::GrantStep;
use crate::mail::{MailChange, Request, WaitKey};
use crate::operation::Operation;
use crate::outcome::AcceptOutcome;
use crate::outgoing::Outgoing;
use crate::registration::RegistrationStep;
use crate::sweep::{CoverageCount, SweepChange};

/// One durable write.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one, Accept, is also the common one: a box would cost each event an allocation"
)]
pub enum Fact {
    /// An event with the runs that it starts.
    Accept(Accepted),
    /// Runs of events that are stored already: replays.
    Start(Vec<NewRun>),
    /// One commit of a run: a journal entry, and the run's new place in the lists.
    Run(RunCommit),
    /// A request that was turned away.
    Refused(RefusedRequest),
    /// Requests that were turned away and are only counted.
    RefusedFurther(RefusedFurther),
    /// Somebody asks something of an open run.
    Request(Request),
    /// An outgoing event.
    Emit(Outgoing),
    /// Something happens to a run that waits for its turn, or that keeps others waiting.
    Turn(TurnAsk),
    /// A change of the configuration.
    Config(ConfigChange),
    /// Renews the node's lease and asks what there is to do; once a second.
    Heartbeat(Heartbeat),
    /// Takes over runs whose node is gone.
    Claim {
        /// How many runs at most; raised to 64, because small claims cost the same as large ones.
        limit: u32,
    },
    /// Takes a slice of the runs that belong to no node yet.
    ClaimFree {
        /// How many runs at most; raised to 64.
        limit: u32,
    },
    /// Gives a slice of this node's open runs to whoever claims them.
    Release {
        /// How many runs at most; raised to 64.
        limit: u32,
    },
    /// Deletes what has had its time, one slice per fact.
    Prune(Prune),
    /// A sweep begins, moves on or ends.
    Sweep(SweepChange),
    /// A step in the life of a connection's grant.
    Grant(GrantStep),
    /// A step in the upkeep of a webhook at its provider.
    Registration(RegistrationStep),
    /// What arrived at endpoints, added to their hours.
    Coverage(Vec<CoverageCount>),
    /// The node that reads a backfill's list takes it up, moves on or lets go of it.
    Backfill(BackfillStep),
    /// What a person does to runs that are over.
    Operate(Box<Operation>),
}

/// An event as it enters, already routed.
pub struct Accepted {
    /// The event.
    pub event: EventRow,
    /// What makes the event the same as one seen before.
    pub dedupe: Dedupe,
    /// The runs that it starts; written only if the event is new.
    pub runs: Vec<NewRun>,
    /// What steps that wait for an event can find it by.
    pub keys: Vec<WaitKey>,
    /// The workflow whose schedule made the event: its row moves on to the event's `scheduled_for`, if the event is new
    /// and the row is not further already.
    pub fires: Option<WorkflowId>,
    /// The revision of the configuration that said which runs it starts and what waits for it. When another one is in
    /// force at the commit, the fact fails as [`Outdated`](crate::WriteError::Outdated). `None`: whichever is in force.
    pub routed_by: Option<i64>,
    /// What the audit trail tells of it, written only if the event is new.
    pub audit: Option<Box<AuditEntry>>,
    /// Called by the writer right after the commit and before the `Pending` resolves: the hand-off in memory.
    /// It must not block. It is not called when the commit failed or its result is unknown.
    pub after_commit: Option<AfterCommit>,
}

/// What [`Accepted::after_commit`] holds: called with what became of the event, and with those of its runs that may not
/// start, if any.
pub type AfterCommit = Box<dyn FnOnce(&AcceptOutcome, &BTreeSet<RunId>) + Send + Sync>;

impl std::fmt::Debug for Accepted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Accepted")
            .field("event", &self.event.id)
            .field("runs", &self.runs.len())
            .finish_non_exhaustive()
    }
}

/// Identity of an event across deliveries, sweeps and replays of the provider.
///
/// The scope and key are hashed together with the workspace. See [`Dedupe::anchored_at`] for how far back the
/// writer looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedupe {
    /// Whose keys these are, e.g. the endpoint or the connection: keys of different scopes never collide.
    pub scope: String,
    /// The provider's own id of the event, or what stands for it.
    pub key: String,
    /// The time that the provider's record of the event carries, **identical in every delivery and in every list
    /// that shows the event** (a creation time, never the time of a delivery attempt). With it a repeat is looked
    /// for around that day only. `None` when the provider gives none, or one that is not known to be stable: then
    /// a repeat is looked for on every day that is remembered, which costs a little more and is always right.
    pub anchored_at: Option<Timestamp>,
}

/// An event in all its columns.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// Our id.
    pub id: EventId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The endpoint it came in by.
    pub endpoint: Option<EndpointId>,
    /// Name of the connector that understood it.
    pub connector: String,
    /// The connection it belongs to.
    pub connection: Option<ConnectionId>,
    /// How it came in.
    pub source: EventSource,
    /// The provider's id.
    pub external_id: String,
    /// The provider's event type.
    pub kind: String,
    /// The provider's account, where one endpoint serves several.
    pub account: Option<String>,
    /// Type of the object the event is about.
    pub ref_kind: Option<String>,
    /// Id of the object the event is about.
    pub ref_id: Option<String>,
    /// Version of the object the event is about.
    pub ref_version: Option<String>,
    /// When it happened, says the provider.
    pub occurred_at: Option<Timestamp>,
    /// When we got it.
    pub received_at: Timestamp,
    /// The allow-listed headers, a JSON object.
    pub headers: String,
    /// The bytes of the event exactly as they came. Stored compressed from 512 bytes on, apart from the event's
    /// row above 64 KiB; neither shows outside.
    pub body: Bytes,
    /// JSON pointer to the event's data within the body; empty for the whole body.
    pub data_pointer: String,
    /// The instant a schedule planned it for.
    pub scheduled_for: Option<Timestamp>,
    /// The W3C `traceparent` it arrived with.
    pub traceparent: Option<String>,
}

/// A run at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// The first run of its family: itself, or for a replay the root of the run replayed.
    pub root_id: RunId,
    /// The run that it repeats.
    pub replay_of: Option<RunId>,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The event it works on.
    pub event_id: EventId,
    /// Its workflow.
    pub workflow_id: WorkflowId,
    /// The version it is pinned to.
    pub version_id: VersionId,
    /// When it started.
    pub started_at: Timestamp,
    /// What it has to pass first; `None` when it may start at once.
    pub turn: Option<Box<Turn>>,
    /// Who drives it.
    pub owner: RunOwner,
}

/// Who drives a new run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOwner {
    /// The node that writes it.
    ThisNode,
    /// Whichever node claims it first; all that listen are told of it once per commit. On SQLite the same as
    /// `ThisNode`.
    Anyone,
}

/// Something happens to a run that waits for its turn, or that keeps others waiting. Nothing happens when it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnAsk {
    /// The run.
    pub run: RunId,
    /// Its workflow.
    pub workflow: WorkflowId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: TurnEvent,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnEvent {
    /// The time has come until which it waits at most.
    Due,
    /// A person lets the lane go on that it keeps, having failed.
    Release,
    /// Its workflow is resumed: it may begin, and so may some of those that waited with it, in the order of acceptance.
    Resume,
}

/// Where a run stands, as the lists show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunStatus {
    /// Has not started: it waits for its turn.
    Queued,
    /// Begins nothing until a person lets it go on.
    Paused,
    /// In the hands of its node.
    Running,
    /// Sleeps until its `due_at`.
    Waiting,
    /// Finished well.
    Succeeded,
    /// Finished badly; a dead letter.
    Failed,
    /// Stopped by a person.
    Canceled,
    /// Never started: the run of a later event took its place.
    Merged,
}

impl RunStatus {
    /// The name in texts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Paused => "paused",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Merged => "merged",
        }
    }

    /// Whether the run is not over.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Paused | Self::Running | Self::Waiting)
    }
}

/// One commit of a run.
#[derive(Clone, Debug)]
pub struct RunCommit {
    /// The run.
    pub run: RunId,
    /// Number of the journal row, counted from 0: how many rows the caller has seen. A row with this number that
    /// exists already makes the fact fail as [`Stale`](crate::WriteError::Stale). Gaps are not noticed.
    pub seq: i32,
    /// The encoded journal entries. Compressed by the writer.
    pub journal: Vec<u8>,
    /// What changes in the run's own row; `None` leaves it as it is.
    pub update: Option<RunUpdate>,
    /// What changes about its waiting and its inbox.
    pub mail: Option<Box<MailChange>>,
    /// The run ends with this commit, and what it keeps at gates is free again.
    pub leaves: Option<Leaves>,
}

/// A run ends that may keep something at gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaves {
    /// The workflow whose gates they are.
    pub workflow: WorkflowId,
    /// It is a replay that succeeded: whatever lanes failed runs of its family keep go on, also such as it never came
    /// to. The first run of that family.
    pub repairs: Option<RunId>,
}

/// The changing columns of a run, all of them set by each update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunUpdate {
    /// The new status.
    pub status: RunStatus,
    /// When the run wants to be woken; `None` when nothing is to be waited for.
    pub due_at: Option<Timestamp>,
    /// When it finished.
    pub finished_at: Option<Timestamp>,
    /// Why it failed, a stable code; `effect_unknown` marks those whose effects a person must judge.
    pub error_code: Option<String>,
    /// The step that failed.
    pub error_step: Option<String>,
    /// What is listed of it as a dead letter, when it failed.
    pub dead_letter: Option<Box<NewDeadLetter>>,
}

/// A run that failed, as it stands among those with the same cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDeadLetter {
    /// What is the same for all runs of a workflow that failed for one reason.
    pub cause: i64,
    /// Stable code of the failure.
    pub code: String,
    /// Path of the step, without what is particular to one run.
    pub step: Option<String>,
    /// The message, without what is particular to one run.
    pub message: String,
}

/// A request that was turned away, kept for a day so that a person can see why.
///
/// Between two [`Prune::Refused`] at most 10,000 are kept in detail; beyond that they are only counted. So prune once
/// a minute.
#[derive(Clone, Debug)]
pub struct RefusedRequest {
    /// Its id.
    pub id: RefusalId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The endpoint; `None` when no endpoint was found.
    pub endpoint: Option<EndpointId>,
    /// When it came.
    pub received_at: Timestamp,
    /// Stable code of the reason.
    pub reason: String,
    /// The reason in words, without secrets.
    pub detail: String,
    /// Address of the sender.
    pub client_ip: Option<String>,
    /// The headers, redacted, a JSON object. Cut to 16 KiB.
    pub headers: String,
    /// The body. Only its first 16 KiB are kept; its size is kept in full.
    pub body: Bytes,
}

/// Requests that were turned away and of which nothing is kept: they are only counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFurther {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// When the first of them came; the others came in the same hour.
    pub received_at: Timestamp,
    /// Stable code of the reason.
    pub reason: String,
    /// How many.
    pub count: u32,
}

/// The node's sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The largest raw id given out so far, so that none is given out again after a restart with a clock set back.
    pub id_high_water: i64,
    /// Runs due until here are counted.
    pub due_before: Timestamp,
    /// Runs that belong to no node are counted up to here: as many as this node lets wait.
    pub free_limit: u32,
}

/// One slice of retention. The outcome says how many rows went; call again while it is not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prune {
    /// Events with all that came of them. Those with an open run, and those that wait in an inbox, stay. What one slice
    /// has no room for is no longer to be seen, and is deleted by [`Prune::Leftovers`].
    History(Vec<History>),
    /// What is left of histories that were dropped.
    Leftovers,
    /// Outgoing events from before this time.
    Outgoing {
        /// Older ones go.
        before: Timestamp,
    },
    /// Entries of the audit trail from before this time.
    Audit {
        /// Older ones go.
        before: Timestamp,
    },
    /// Refused requests received before this time, and the oldest of those beyond the bounds in number and bytes.
    Refused {
        /// Older ones go.
        before: Timestamp,
    },
    /// The counters of refusals for hours that ended before this time.
    RefusedCounts {
        /// Older ones go.
        before: Timestamp,
    },
    /// What arrived at endpoints in hours that ended before this time.
    Coverage {
        /// Older ones go.
        before: Timestamp,
    },
    /// What was remembered of events until this day. Must be longer ago than every provider's retries and every
    /// sweep's reach; younger than [`DEDUPE_DAYS`](crate::DEDUPE_DAYS) is refused by doing nothing.
    Dedupe {
        /// Today.
        now: Timestamp,
    },
    /// What throttles remember of starts that are longer ago than their period.
    Gates {
        /// The time.
        now: Timestamp,
    },
}

/// An event to be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The event.
    pub event: EventId,
    /// The runs it started when it came; their replays go with them.
    pub runs: Vec<RunId>,
}
