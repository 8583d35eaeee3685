//! The numbers that stand for our enums in the tables. They are never reused; a number that is not known is an
//! error with the row's name.

use weir_workflow_engine::EventSource;

use crate::backfill::BackfillStatus;
use crate::config::{VersionState, WorkflowState};
use crate::error::ReadError;
use crate::fact::RunStatus;
use crate::grant::GrantState;
use crate::mail::{MailKind, WaitKind};
use crate::operation::{BulkItemState, BulkStatus, CauseState};

pub(crate) fn run_status_code(status: RunStatus) -> i16 {
    match status {
        RunStatus::Queued => -2,
        RunStatus::Paused => -1,
        RunStatus::Running => 0,
        RunStatus::Waiting => 1,
        RunStatus::Succeeded => 2,
        RunStatus::Failed => 3,
        RunStatus::Canceled => 4,
        RunStatus::Merged => 5,
    }
}

pub(crate) fn run_status(code: i16, row: impl FnOnce() -> String) -> Result<RunStatus, ReadError> {
    match code {
        -2 => Ok(RunStatus::Queued),
        -1 => Ok(RunStatus::Paused),
        0 => Ok(RunStatus::Running),
        1 => Ok(RunStatus::Waiting),
        2 => Ok(RunStatus::Succeeded),
        3 => Ok(RunStatus::Failed),
        4 => Ok(RunStatus::Canceled),
        5 => Ok(RunStatus::Merged),
        other => Err(unknown("status", other, row())),
    }
}

pub(crate) fn grant_state_code(state: GrantState) -> i16 {
    match state {
        GrantState::Healthy => 0,
        GrantState::Degraded => 1,
        GrantState::NeedsReauth => 2,
    }
}

pub(crate) fn grant_state(code: i16, row: impl FnOnce() -> String) -> Result<GrantState, ReadError> {
    match code {
        0 => Ok(GrantState::Healthy),
        1 => Ok(GrantState::Degraded),
        2 => Ok(GrantState::NeedsReauth),
        other => Err(unknown("state", other, row())),
    }
}

pub(crate) fn bulk_item_state_code(state: BulkItemState) -> i16 {
    match state {
        BulkItemState::Pending => 0,
        BulkItemState::Started => 1,
        BulkItemState::Skipped => 2,
    }
}

pub(crate) fn bulk_item_state(code: i16, row: impl FnOnce() -> String) -> Result<BulkItemState, ReadError> {
    match code {
        0 => Ok(BulkItemState::Pending),
        1 => Ok(BulkItemState::Started),
        2 => Ok(BulkItemState::Skipped),
        other => Err(unknown("state", other, row())),
    }
}

pub(crate) fn cause_state_code(state: CauseState) -> i16 {
    match state {
        CauseState::Open => 0,
        CauseState::Resolved => 1,
        CauseState::Ignored => 2,
    }
}

pub(crate) fn cause_state(code: i16, row: impl FnOnce() -> String) -> Result<CauseState, ReadError> {
    match code {
        0 => Ok(CauseState::Open),
        1 => Ok(CauseState::Resolved),
        2 => Ok(CauseState::Ignored),
        other => Err(unknown("state", other, row())),
    }
}

pub(crate) fn bulk_status_code(status: BulkStatus) -> i16 {
    match status {
        BulkStatus::Running => 0,
        BulkStatus::Stopped => 1,
        BulkStatus::Finished => 2,
    }
}

pub(crate) fn bulk_status(code: i16, row: impl FnOnce() -> String) -> Result<BulkStatus, ReadError> {
    match code {
        0 => Ok(BulkStatus::Running),
        1 => Ok(BulkStatus::Stopped),
        2 => Ok(BulkStatus::Finished),
        other => Err(unknown("status", other, row())),
    }
}

pub(crate) fn backfill_status_code(status: BackfillStatus) -> i16 {
    match status {
        BackfillStatus::Running => 0,
        BackfillStatus::Paused => 1,
        BackfillStatus::Finished => 2,
        BackfillStatus::Stopped => 3,
        BackfillStatus::Failed => 4,
    }
}

pub(crate) fn backfill_status(code: i16, row: impl FnOnce() -> String) -> Result<BackfillStatus, ReadError> {
    match code {
        0 => Ok(BackfillStatus::Running),
        1 => Ok(BackfillStatus::Paused),
        2 => Ok(BackfillStatus::Finished),
        3 => Ok(BackfillStatus::Stopped),
        4 => Ok(BackfillStatus::Failed),
        other => Err(unknown("status", other, row())),
    }
}

pub(crate) fn event_source_code(source: EventSource) -> i16 {
    match source {
        EventSource::Endpoint => 0,
        EventSource::Sweep => 1,
        EventSource::Poll => 2,
        EventSource::Schedule => 3,
        EventSource::Manual => 4,
        EventSource::Api => 5,
        EventSource::Workflow => 6,
        EventSource::Backfill => 7,
    }
}

pub(crate) fn event_source(code: i16, row: impl FnOnce() -> String) -> Result<EventSource, ReadError> {
    match code {
        0 => Ok(EventSource::Endpoint),
        1 => Ok(EventSource::Sweep),
        2 => Ok(EventSource::Poll),
        3 => Ok(EventSource::Schedule),
        4 => Ok(EventSource::Manual),
        5 => Ok(EventSource::Api),
        6 => Ok(EventSource::Workflow),
        7 => Ok(EventSource::Backfill),
        other => Err(unknown("source", other, row())),
    }
}

/// They stand in the column `paused`.
pub(crate) fn workflow_state_code(state: WorkflowState) -> i16 {
    match state {
        WorkflowState::Active => 0,
        WorkflowState::Paused => 1,
        WorkflowState::Resuming => 2,
    }
}

pub(crate) fn workflow_state(code: i16, row: impl FnOnce() -> String) -> Result<WorkflowState, ReadError> {
    match code {
        0 => Ok(WorkflowState::Active),
        1 => Ok(WorkflowState::Paused),
        2 => Ok(WorkflowState::Resuming),
        other => Err(unknown("paused", other, row())),
    }
}

pub(crate) fn version_state_code(state: VersionState) -> i16 {
    match state {
        VersionState::Draft => 0,
        VersionState::Published => 1,
    }
}

pub(crate) fn version_state(code: i16, row: impl FnOnce() -> String) -> Result<VersionState, ReadError> {
    match code {
        0 => Ok(VersionState::Draft),
        1 => Ok(VersionState::Published),
        other => Err(unknown("state", other, row())),
    }
}

pub(crate) fn mail_kind_code(kind: MailKind) -> i16 {
    match kind {
        MailKind::Event => 0,
        MailKind::RunEnded => 1,
        MailKind::Request => 2,
    }
}

pub(crate) fn mail_kind(code: i16, row: impl FnOnce() -> String) -> Result<MailKind, ReadError> {
    match code {
        0 => Ok(MailKind::Event),
        1 => Ok(MailKind::RunEnded),
        2 => Ok(MailKind::Request),
        other => Err(unknown("kind", other, row())),
    }
}

/// Statements name 1, the approvals, as it is.
pub(crate) fn wait_kind_code(kind: &WaitKind) -> i16 {
    match kind {
        WaitKind::Event { .. } => 0,
        WaitKind::Approval => 1,
        WaitKind::Run(_) => 2,
    }
}

fn unknown(column: &str, code: i16, row: String) -> ReadError {
    ReadError::Corrupt {
        row,
        reason: format!("{column} {code} is not known"),
    }
}
