//! Sweeps as they are stored: who sweeps an endpoint, how far its list was read, and what arrived by hour.

use weir_workflow_engine::{EndpointId, Timestamp, WorkspaceId};

/// A step of a sweep. Moving and ending prove that this node is the one that sweeps the endpoint;
/// otherwise the fact fails as [`Stale`](crate::WriteError::Stale).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SweepChange {
    /// This node begins to sweep an endpoint that nobody sweeps, or whose node is gone.
    Begin(SweepBegin),
    /// All that was read up to here is stored.
    Move(SweepMove),
    /// The sweep is over.
    End(SweepEnd),
}

/// A sweep begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepBegin {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// When the last sweep began, as this node knows; `None`: there was none. When another node has swept since, the
    /// fact fails as [`Stale`](crate::WriteError::Stale).
    pub after: Option<Timestamp>,
    /// Why it is swept, a stable name.
    pub cause: String,
    /// When.
    pub at: Timestamp,
    /// From when on events are wanted, for the first sweep of an endpoint.
    pub covered_until: Timestamp,
}

/// A sweep moves on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepMove {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Where the next request goes on, in the orchestrator's form.
    pub cursor: Option<String>,
    /// What the provider lists up to then is here; `None` leaves it.
    pub covered_until: Option<Timestamp>,
    /// A span that the provider's list no longer reached.
    pub lost: Option<(Timestamp, Timestamp)>,
    /// Pages read since the last move.
    pub pages: u32,
    /// Events recovered since the last move.
    pub recovered: u64,
    /// Events that were here already, since the last move.
    pub duplicates: u64,
}

/// A sweep ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepEnd {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// When.
    pub at: Timestamp,
    /// How, a stable name.
    pub outcome: String,
    /// What went wrong, without secrets.
    pub error: Option<String>,
    /// Failed sweeps in a row, this one included.
    pub failures: u32,
}

/// What arrived at an endpoint in one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoverageCount {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Hours since 1970.
    pub hour: i32,
    /// New events by webhook.
    pub received: u64,
    /// New events by sweep.
    pub recovered: u64,
    /// New events by backfill.
    pub backfilled: u64,
    /// Events that were here already, by any way.
    pub duplicates: u64,
}

/// Where the sweeps of an endpoint stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepRow {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Whether a node sweeps it now.
    pub running: bool,
    /// Where the next request goes on.
    pub cursor: Option<String>,
    /// What the provider lists up to then is here.
    pub covered_until: Option<Timestamp>,
    /// The oldest span that the provider's list no longer reached.
    pub lost: Option<(Timestamp, Timestamp)>,
    /// Why the last sweep was.
    pub cause: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Pages it read.
    pub pages: u32,
    /// Events it recovered.
    pub recovered: u64,
    /// Events that were here already.
    pub duplicates: u64,
    /// Failed sweeps in a row.
    pub failures: u32,
}

/// One hour of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoverageRow {
    /// Start of the hour.
    pub hour: Timestamp,
    /// New events by webhook.
    pub received: u64,
    /// New events by sweep.
    pub recovered: u64,
    /// New events by backfill.
    pub backfilled: u64,
    /// Events that were here already.
    pub duplicates: u64,
}
