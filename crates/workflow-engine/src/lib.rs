//! The rules of a run: what a workflow means, what a run does next, what has to be on disk before it.
//!
//! Everything here is synchronous, total and deterministic: [`decide`] takes what is known and the time, and returns
//! entries for the journal and commands for the host. [`RunState::fold`] is the only thing that changes a run, so a
//! replay of the journal is the run. There is no async, no IO, no clock, no randomness, no environment and no map
//! with an unstable order in this crate, and nothing here knows a connector, a database or HTTP.
#![warn(missing_docs)]

mod catalogue;
mod cause;
mod check;
mod command;
mod correlation;
mod definition;
mod difference;
mod document;
mod duration;
mod effect;
mod event;
mod expression;
mod id;
pub mod invariants;
mod journal;
mod ledger;
mod outside;
mod plan;
mod preview;
mod problem;
mod reads;
mod rehearsal;
mod result;
mod run;
mod schedule;
mod story;
mod time;
mod turn;

pub use catalogue::{Catalogue, EventTypeInfo, HydrateMode, OperationInfo, ReadInfo};
pub use cause::{Cause, status_at_fault};
pub use check::{CallResolution, Resolution, check};
pub use command::{CallCommand, CallId, Command, EffectCommand, ReadCommand, SendMode};
pub use correlation::{Correlation, Correlator};
pub use definition::{
    ANSWER_STATUSES, DEFAULT_CALL_TIMEOUT, DEFAULT_MAX_WAITING, DEFAULT_RESPOND_WITHIN, DEFAULT_WAIT, Definition,
    MAX_ALL_ITEMS, MAX_APPROVERS, MAX_BATCH, MAX_BRANCHES, MAX_CALL_TIMEOUT, MAX_CASES, MAX_CONCURRENCY, MAX_GATHERING,
    MAX_LIMIT, MAX_MAX_WAITING, MAX_PERIOD, MAX_PRIORITY, MAX_RESPOND_WITHIN, MAX_STEP_DEPTH, MAX_STEPS, MAX_TRIES,
    MAX_WAIT, MAX_WORKFLOW_TIMEOUT, RESERVED_HEADERS, Trigger, UNFIT_STATUS,
};
pub use difference::{Difference, DifferenceKind, differences};
pub use document::{Document, DocumentError, MAX_JSON_DEPTH, PathPart};
pub use effect::{EffectClass, EffectKey, RequestDigest};
pub use event::{Event, EventRef, EventSource};
pub use expression::{
    Expression, ExpressionError, FUEL_PER_EVALUATION, MAX_EXPRESSION_BYTES, MAX_OUTPUT_BYTES, MAX_READ_BYTES,
};
pub use id::{
    AuditId, BackfillId, BulkId, ConnectionId, EndpointId, EventId, IdError, IdGenerator, NODE_SLOTS, OutgoingId,
    RefusalId, RunId, TokenId, VersionId, WorkflowId, WorkspaceId,
};
pub use journal::{
    Abandoned, Answered, Arrived, Attempt, AttemptOutcome, Awaited, Awaits, BranchSide, BranchTaken, CancelAsked,
    Caught, Compensated, Compensating, Decided, EffectEnd, Ending, Entry, Exchanges, FailureTaken, Finished, Forked,
    Held, Hurried, HurriedCall, Intent, Issued, Item, ItemsTaken, JournalError, Limited, Outgrown, PassedOver, Paused,
    Postponed, RanOver, ReadSkipped, Resumed, SetDone, Skipped, Slept, StepFailed, StopStatus, Stopped, Target,
    TimedOut, UnknownEffect, VERSION as JOURNAL_VERSION, Verdict, Woke, decode, encode,
};
pub use ledger::{Doubt, EffectRecord, EffectState, Ledger};
pub use plan::{CallSite, OWN, Plan, TriggerScope};
pub use preview::{PreviewEffect, PreviewRead, ReplayPreview};
pub use problem::Problem;
pub use reads::{MAX_READS, PlannedRead, read_order};
pub use rehearsal::{Past, Rehearsal, RunStart};
pub use result::{
    CallFailure, CallOutcome, CallResult, Exchange, HeldBy, Hold, Origin, RATE_LIMITED, ResponseBody, Retry, Sent,
};
pub use run::{
    Decision, EngineError, Environment, Input, MAX_ENTRIES_PER_DECISION, MAX_HOLDS, MAX_ITEMS, MAX_RUN_BYTES,
    MAX_RUN_ENTRIES, MAX_SLEEP, MAX_THROTTLED_TRIES, Mail, OpenEffect, OpenWait, Restart, RestartError, RunHead,
    RunState, Status, attend, decide, restart,
};
pub use schedule::{
    CatchUp, DEFAULT_CATCH_UP, Due, MAX_CATCH_UP, MAX_CRON_BYTES, MAX_CRON_LINES, MAX_EVERY, MAX_MISSED_COUNTED,
    MAX_SCHEDULE_INPUT_BYTES, MIN_EVERY, SKIP_AFTER, Schedule,
};
pub use story::{
    MAX_PASSED_OVER_TOLD, StepNames, StoryAttempt, StoryEffect, StoryHold, StoryStep, may_hide_an_item, story,
    tell_family,
};
pub use time::{Timestamp, TimestampError};
pub use turn::{
    Arrival, Ask, Board, Gate, GateChange, GateKey, GateKind, MAX_RESUMED, Moves, Outcome, Rules, RunEnd, Stage,
    Standing, Turn, TurnChange,
};
