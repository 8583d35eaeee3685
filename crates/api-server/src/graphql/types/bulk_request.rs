//! What is asked of many open runs, and which they are, before it is asked.

use super::super::scalars::{DateTime, Long};
use super::connector::EffectClass;
use super::run::RunStatus;
use async_graphql::{Enum, InputObject, SimpleObject};
use weir_orchestrator::repair::{self, BulkAction, OpenEffects, OpenFilter, RequestPreview};

/// What is asked of open runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum BulkRequest {
    /// To end: nothing new is begun, effects that are on their way are waited for.
    Cancel,
    /// To stand still, and their time limits with them.
    Pause,
    /// To go on.
    Resume,
}

impl From<BulkRequest> for repair::BulkRequest {
    fn from(request: BulkRequest) -> Self {
        match request {
            BulkRequest::Cancel => repair::BulkRequest::Cancel,
            BulkRequest::Pause => repair::BulkRequest::Pause,
            BulkRequest::Resume => repair::BulkRequest::Resume,
        }
    }
}

/// What an operation does with its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum BulkOperationAction {
    /// Starts their replays.
    Replay,
    /// Asks them to end.
    Cancel,
    /// Asks them to stand still.
    Pause,
    /// Lets them go on.
    Resume,
    /// Says what became of their effects that nobody knows about.
    Resolve,
}

impl From<BulkAction> for BulkOperationAction {
    fn from(action: BulkAction) -> Self {
        match action {
            BulkAction::Replay => Self::Replay,
            BulkAction::Request(repair::BulkRequest::Cancel) => Self::Cancel,
            BulkAction::Request(repair::BulkRequest::Pause) => Self::Pause,
            BulkAction::Request(repair::BulkRequest::Resume) => Self::Resume,
            BulkAction::Resolve => Self::Resolve,
        }
    }
}

/// Which open runs; all conditions must hold.
#[derive(Debug, Clone, Default, InputObject)]
pub(crate) struct OpenRunFilterInput {
    /// With this status: `QUEUED`, `PAUSED`, `RUNNING` or `WAITING`. Left out: all for which the request makes a difference.
    status: Option<RunStatus>,
    /// Of the workflow with this name.
    workflow: Option<String>,
    /// Started at this time or later.
    since: Option<DateTime>,
    /// Started before this time.
    until: Option<DateTime>,
}

impl OpenRunFilterInput {
    /// The filter as the orchestrator takes it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(self) -> Result<OpenFilter, &'static str> {
        let status: Option<weir_storage::RunStatus> = self.status.map(Into::into);
        if status.is_some_and(|status| !status.is_open()) {
            return Err("only open runs can be asked: QUEUED, PAUSED, RUNNING or WAITING");
        }
        Ok(OpenFilter {
            status,
            workflow: self.workflow,
            since: self.since.map(|time| time.0),
            until: self.until.map(|time| time.0),
        })
    }
}

/// The open runs that fit, in sum. Nothing has been asked yet.
#[derive(Debug, SimpleObject)]
pub(crate) struct BulkRequestPreview {
    /// How many runs would be asked.
    runs: u32,
    /// Whether more runs fit than one operation takes. The oldest come first; repeat it for the next ones.
    more: bool,
    /// How many of them stand where.
    by_status: Vec<OpenRunCount>,
    /// Their effects that have no answer, by operation.
    effects: Vec<OpenRunEffects>,
    /// All of it in a sentence.
    summary: String,
    /// Pass it to `bulkRequest`, with the same filter and request. Runs that start after it are not asked.
    confirm: String,
}

/// How many open runs have a status.
#[derive(Debug, SimpleObject)]
pub(crate) struct OpenRunCount {
    /// The status.
    status: RunStatus,
    /// How many.
    runs: u32,
}

/// Effects of one operation that open runs have begun and that have no answer.
#[derive(Debug, SimpleObject)]
pub(crate) struct OpenRunEffects {
    /// Connector and operation.
    operation: String,
    /// How it can be repeated. Null when that is not recorded.
    class: Option<EffectClass>,
    /// On their way, or waiting for their next try. A run that is canceled waits for them.
    on_the_way: Long,
    /// Nobody knows whether they took place.
    unknown: Long,
}

impl From<RequestPreview> for BulkRequestPreview {
    fn from(preview: RequestPreview) -> Self {
        let effects = |effects: OpenEffects| OpenRunEffects {
            operation: effects.operation,
            class: EffectClass::by_name(effects.class),
            on_the_way: Long(effects.on_the_way),
            unknown: Long(effects.unknown),
        };
        let count = |(status, runs): (weir_storage::RunStatus, u32)| OpenRunCount {
            status: status.into(),
            runs,
        };
        BulkRequestPreview {
            runs: preview.runs,
            more: preview.more,
            by_status: preview.by_status.into_iter().map(count).collect(),
            effects: preview.effects.into_iter().map(effects).collect(),
            summary: preview.summary,
            confirm: preview.confirm,
        }
    }
}
