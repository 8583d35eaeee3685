//! Every SQL statement of Weir, on SQLite and PostgreSQL.
//!
//! Writes are [`Fact`]s handed to the one [`Writer`]; reads are methods of [`Store`]. What is promised:
//! a fact that was answered is on disk; a fact that was refused left no trace; an error says whether anything may
//! have been written. Nothing here knows what a workflow means: journals and documents are bytes.
//!
//! The way in: [`Database::open`] → [`WriterSeed`] (key check, registration) → [`Writer`] and its task.

mod backfill;
pub mod backup;
mod blob;
mod codes;
mod config;
mod database;
mod entity;
mod error;
mod fact;
mod gates;
mod grant;
mod mail;
mod master_key;
mod node;
mod operation;
mod outcome;
mod outgoing;
mod page;
mod read;
mod registration;
mod secret_box;
#[cfg(feature = "simulation")]
mod simulation;
mod sweep;
mod writer;

pub use backfill::{
    BackfillAsk, BackfillLetGo, BackfillMove, BackfillRow, BackfillStatus, BackfillStep, MAX_BACKFILLS_KEPT,
    NewBackfill,
};
pub use config::{
    ApiTokenRow, AuditEntry, ConfigChange, ConfigRowChange, ConfigRows, ConfigSubject, ConnectionRow,
    ConnectorManifestRow, CorrelationRow, EndpointRow, ExpectedRevision, ScheduleRow, VersionState, WorkflowRow,
    WorkflowState, WorkflowVersionRow, WorkspaceRow, token_hash,
};
pub use database::{Database, DatabaseKind, DatabaseOptions};
pub use error::{OpenError, ReadError};
pub use fact::{
    Accepted, AfterCommit, Dedupe, EventRow, Fact, Heartbeat, History, Leaves, NewDeadLetter, NewRun, Prune,
    RefusedFurther, RefusedRequest, RunCommit, RunOwner, RunStatus, RunUpdate, TurnAsk, TurnEvent,
};
pub use grant::{
    AuthorizationAttempt, DroppedGrant, GrantClaim, GrantNote, GrantRefused, GrantRow, GrantSave, GrantState,
    GrantStep, GrantedAccount, MAX_OPEN_AUTHORIZATIONS, NewGrant,
};
pub use mail::{ApprovalRow, Mail, MailChange, MailKind, NewWait, Request, RequestOutcome, WaitKey, WaitKind};
pub use master_key::{MasterKey, MasterKeyError};
pub use node::{Fence, LEASE, NodeIdentity};
pub use operation::{
    BulkChange, BulkItemState, BulkRow, BulkStatus, CauseKey, CauseNote, CauseState, CopiedEvent, ExpectedFamily,
    Operation, RunOfEvent,
};
pub use outcome::{AcceptOutcome, ConfigOutcome, Constraint, FactOutcome, Full, HeartbeatReply, Removed, WriteError};
pub use outgoing::{Outgoing, OutgoingRow};
pub use page::{MAX_PAGE, Page};
pub use read::{
    AuditFilter, BulkCounts, BulkItemRow, CauseMark, CauseRow, Count, EventFilter, EventSummary, FreeRuns, HeldLane,
    HeldRuns, MAX_CAUSES, MergedRow, OldEvent, RefusedCount, RefusedFilter, RefusedRow, RunCounts, RunFilter, RunRow,
    RunSelection, SelectedRuns, Store, StoredEvent, StoredRun, WaitingFor,
};
pub use registration::{RegistrationClaim, RegistrationDrop, RegistrationRow, RegistrationSave, RegistrationStep};
pub use secret_box::{KeyError, RowIdentity, SecretBox};
#[cfg(feature = "simulation")]
pub use simulation::{Answer, SyncStore};
pub use sweep::{CoverageCount, CoverageRow, SweepBegin, SweepChange, SweepEnd, SweepMove, SweepRow};
pub use writer::{
    DEDUPE_DAYS, Pending, REMEMBERED_DAYS, Writer, WriterEnd, WriterHealth, WriterLimits, WriterSeed, WriterStatistics,
    WriterTask,
};
