//! Facts in the form in which the task writes them: bodies compressed, keys hashed.

use bytes::Bytes;
use weir_workflow_engine::{EventId, RefusalId, RunId, Timestamp, WorkflowId};

use super::dedupe::DedupeKey;
use super::operate::PreparedOperation;
use crate::backfill::BackfillStep;
use crate::blob::Blob;
use crate::config::{AuditEntry, ConfigChange};
use crate::fact::{
    Accepted, AfterCommit, EventRow, Fact, Heartbeat, Leaves, NewRun, Prune, RefusedFurther, RefusedRequest, RunUpdate,
    TurnAsk,
};
use crate::grant::GrantStep;
use crate::mail::{MailChange, Request, WaitKey};
use crate::outgoing::Outgoing;
use crate::registration::RegistrationStep;
use crate::sweep::{CoverageCount, SweepChange};

/// What of a refused request's headers and body is kept.
///
/// Limit: headers and body of a refused request that are kept, each | a longer body is cut, longer headers are left out | `refusals_are_counted_and_bounded`
const REFUSED_PART_BYTES: usize = 16 << 10;
/// What a fact weighs beside its bodies, roughly.
const FACT_BYTES: usize = 256;
/// Claims of fewer runs than this cost as much.
const MIN_CLAIM: u32 = 64;
/// Claims of more than this would hold up the commits behind them.
const MAX_CLAIM: u32 = 1024;

/// Work for the task.
#[derive(Debug)]
pub(crate) enum Work {
    /// Shares a transaction with its neighbours.
    Shared(Row),
    /// Has a transaction of its own.
    Alone(Control),
}

/// What shares transactions.
#[derive(Debug)]
pub(crate) enum Row {
    Accept(Box<AcceptRow>),
    Start(Vec<NewRun>),
    Run(JournalRow),
    Refused(Box<RefusedRow>),
    Turn(TurnAsk),
}

/// What does not.
#[derive(Debug)]
pub(crate) enum Control {
    Request(Request),
    Emit(Blob, Outgoing),
    Config(ConfigChange),
    Heartbeat(Heartbeat),
    Claim { limit: u32 },
    ClaimFree { limit: u32 },
    Release { limit: u32 },
    Prune(Prune),
    Operate(Box<PreparedOperation>),
    Sweep(SweepChange),
    Backfill(BackfillStep),
    Coverage(Vec<CoverageCount>),
    Grant(GrantStep),
    Registration(RegistrationStep),
}

#[derive(Debug)]
pub(crate) struct AcceptRow {
    pub(crate) event: EventRow,
    pub(crate) scope: String,
    /// `None` = the same as the event's external id.
    pub(crate) key_text: Option<String>,
    pub(crate) key: DedupeKey,
    pub(crate) body: Blob,
    pub(crate) body_bytes: i32,
    pub(crate) run_ids: Option<Vec<u8>>,
    pub(crate) runs: Vec<NewRun>,
    pub(crate) keys: Vec<WaitKey>,
    /// The schedule that moves on, and to where.
    pub(crate) fires: Option<(WorkflowId, Timestamp)>,
    /// The revision of the configuration that routed it; the largest number when any will do.
    pub(crate) routed_by: i64,
    pub(crate) audit: Option<Box<AuditEntry>>,
}

#[derive(Debug)]
pub(crate) struct JournalRow {
    pub(crate) run: RunId,
    pub(crate) seq: i32,
    pub(crate) body: Blob,
    pub(crate) update: Option<RunUpdate>,
    pub(crate) mail: Option<Box<MailChange>>,
    pub(crate) leaves: Option<Leaves>,
}

#[derive(Debug)]
pub(crate) struct RefusedRow {
    pub(crate) request: RefusedRequest,
    pub(crate) hour: i32,
    pub(crate) body_bytes: i64,
    /// How many requests it counts.
    pub(crate) count: i64,
    /// Whether more than the count is kept.
    pub(crate) in_detail: bool,
}

impl Work {
    /// The work, and what to call after its commit. A refused request beyond the bound on details is only counted.
    pub(crate) fn prepare(fact: Fact, refused_in_detail: bool) -> (Self, Option<AfterCommit>) {
        let work = match fact {
            Fact::Accept(accepted) => {
                let (row, after_commit) = AcceptRow::new(accepted);
                return (Self::Shared(Row::Accept(Box::new(row))), after_commit);
            }
            Fact::Start(runs) => Self::Shared(Row::Start(runs)),
            Fact::Run(commit) => Self::Shared(Row::Run(JournalRow::new(commit))),
            Fact::Turn(ask) => Self::Shared(Row::Turn(ask)),
            Fact::Request(request) => Self::Alone(Control::Request(request)),
            Fact::Emit(event) => Self::Alone(Control::Emit(Blob::encode(&event.body), event)),
            Fact::Refused(request) => Self::Shared(Row::Refused(Box::new(RefusedRow::new(request, refused_in_detail)))),
            Fact::RefusedFurther(further) => Self::Shared(Row::Refused(Box::new(RefusedRow::further(further)))),
            Fact::Config(change) => Self::Alone(Control::Config(change)),
            Fact::Heartbeat(heartbeat) => Self::Alone(Control::Heartbeat(heartbeat)),
            Fact::Claim { limit } => Self::Alone(Control::Claim {
                limit: limit.clamp(MIN_CLAIM, MAX_CLAIM),
            }),
            Fact::ClaimFree { limit } => Self::Alone(Control::ClaimFree {
                limit: limit.clamp(MIN_CLAIM, MAX_CLAIM),
            }),
            Fact::Release { limit } => Self::Alone(Control::Release {
                limit: limit.clamp(MIN_CLAIM, MAX_CLAIM),
            }),
            Fact::Sweep(change) => Self::Alone(Control::Sweep(change)),
            Fact::Backfill(step) => Self::Alone(Control::Backfill(step)),
            Fact::Grant(step) => Self::Alone(Control::Grant(step)),
            Fact::Registration(step) => Self::Alone(Control::Registration(step)),
            Fact::Coverage(counts) => Self::Alone(Control::Coverage(counts)),
            Fact::Prune(prune) => Self::Alone(Control::Prune(prune)),
            Fact::Operate(operation) => Self::Alone(Control::Operate(Box::new(PreparedOperation::new(*operation)))),
        };
        (work, None)
    }

    /// Facts and bytes that it takes of the queue's room.
    pub(crate) fn weight(&self) -> (usize, usize) {
        let (facts, bytes) = match self {
            Self::Shared(Row::Accept(row)) => (1, row.body.bytes.len() + row.event.headers.len()),
            Self::Shared(Row::Start(runs)) => (runs.len().max(1), 0),
            Self::Shared(Row::Run(row)) => (1, row.body.bytes.len()),
            Self::Shared(Row::Turn(_)) => (1, 0),
            Self::Shared(Row::Refused(row)) => (1, row.request.body.len() + row.request.headers.len()),
            Self::Alone(Control::Emit(body, _)) => (1, body.bytes.len()),
            Self::Alone(Control::Request(request)) => (1, request.body.len()),
            Self::Alone(Control::Operate(operation)) => (1, operation.size_bytes()),
            Self::Alone(_) => (1, 0),
        };
        (facts, bytes + facts * FACT_BYTES)
    }
}

impl AcceptRow {
    pub(super) fn new(accepted: Accepted) -> (Self, Option<AfterCommit>) {
        let Accepted {
            mut event,
            dedupe,
            runs,
            keys,
            fires,
            routed_by,
            audit,
            after_commit,
        } = accepted;
        let fires = fires.zip(event.scheduled_for);
        let key = DedupeKey::new(event.workspace, &dedupe, event.received_at);
        let body = Blob::encode(&event.body);
        let body_bytes = i32::try_from(event.body.len()).unwrap_or(i32::MAX);
        event.body = Bytes::new();
        let run_ids = (!runs.is_empty()).then(|| runs.iter().flat_map(|run| run.id.as_raw().to_be_bytes()).collect());
        let key_text = (dedupe.key != event.external_id).then_some(dedupe.key);
        (
            Self {
                event,
                scope: dedupe.scope,
                key_text,
                key,
                body,
                body_bytes,
                run_ids,
                runs,
                keys,
                fires,
                routed_by: routed_by.unwrap_or(i64::MAX),
                audit,
            },
            after_commit,
        )
    }

    pub(crate) fn id(&self) -> EventId {
        self.event.id
    }
}

impl RefusedRow {
    fn new(mut request: RefusedRequest, in_detail: bool) -> Self {
        let body_bytes = i64::try_from(request.body.len()).unwrap_or(i64::MAX);
        // A copy: a slice would keep the whole request in memory.
        request.body = Bytes::copy_from_slice(request.body.get(..REFUSED_PART_BYTES).unwrap_or(&request.body));
        request.headers = cut(request.headers);
        request.detail = cut(request.detail);
        Self {
            hour: hour_of(request.received_at),
            request,
            body_bytes,
            count: 1,
            in_detail,
        }
    }

    fn further(further: RefusedFurther) -> Self {
        Self {
            hour: hour_of(further.received_at),
            request: RefusedRequest {
                id: RefusalId::from_raw(0),
                workspace: further.workspace,
                endpoint: Some(further.endpoint),
                received_at: further.received_at,
                reason: further.reason,
                detail: String::new(),
                client_ip: None,
                headers: String::new(),
                body: Bytes::new(),
            },
            body_bytes: 0,
            count: i64::from(further.count),
            in_detail: false,
        }
    }

    pub(crate) fn stored_bytes(&self) -> i32 {
        let request = &self.request;
        i32::try_from(request.body.len() + request.headers.len() + request.detail.len()).unwrap_or(i32::MAX)
    }
}

/// Hours since 1970.
fn hour_of(at: Timestamp) -> i32 {
    i32::try_from(at.as_unix_ms().div_euclid(3_600_000)).unwrap_or(i32::MAX)
}

/// Headers that are too long are left out whole: half of a JSON object is none.
fn cut(text: String) -> String {
    if text.len() <= REFUSED_PART_BYTES {
        text
    } else {
        "{}".to_owned()
    }
}
