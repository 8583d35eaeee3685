//! What a replay would do, told before it is done.

use async_graphql::SimpleObject;
use weir_orchestrator::control::PreparedReplay;
use weir_workflow_engine::{PreviewEffect, PreviewRead};

/// What a replay of a run would do. Nothing has been sent yet.
#[derive(Debug, SimpleObject)]
pub(crate) struct ReplayPreview {
    /// Pass it to `runReplay`. It stops being valid when the preview would no longer be the same.
    confirm: String,
    /// Calls that change nothing outside and would be made again.
    reads: Vec<PreviewCall>,
    /// Effects that took place: their recorded results would be used, nothing would be sent.
    answered: Vec<PreviewCall>,
    /// Effects that would be sent.
    new: Vec<PreviewCall>,
    /// Effects of which nobody knows whether they took place.
    unknown: Vec<PreviewCall>,
    /// Why the preview ends before the workflow does, if it does.
    note: Option<String>,
}

impl From<PreparedReplay> for ReplayPreview {
    fn from(prepared: PreparedReplay) -> Self {
        let PreparedReplay { preview, confirm } = prepared;
        let effects = |effects: Vec<PreviewEffect>| effects.into_iter().map(PreviewCall::from).collect();
        ReplayPreview {
            confirm,
            reads: preview.reads.into_iter().map(PreviewCall::from).collect(),
            answered: effects(preview.answered),
            new: effects(preview.new),
            unknown: effects(preview.unknown),
            note: preview.note,
        }
    }
}

/// One call that a replay would make or answer from the record.
#[derive(Debug, SimpleObject)]
pub(crate) struct PreviewCall {
    /// Path of the step.
    step: String,
    /// Name of the connector.
    connector_name: String,
    /// Name of the operation.
    operation: String,
    /// Idempotency key of the effect. Null for reads.
    key: Option<String>,
    /// Whether the same step did this before with another request.
    changed: bool,
    /// Whether a request would be sent.
    sends: bool,
}

impl From<PreviewRead> for PreviewCall {
    fn from(read: PreviewRead) -> Self {
        PreviewCall {
            step: read.step,
            connector_name: read.connector,
            operation: read.operation,
            key: None,
            changed: false,
            sends: true,
        }
    }
}

impl From<PreviewEffect> for PreviewCall {
    fn from(effect: PreviewEffect) -> Self {
        PreviewCall {
            step: effect.step,
            connector_name: effect.connector,
            operation: effect.operation,
            key: Some(effect.key.to_string()),
            changed: effect.changed,
            sends: effect.sends,
        }
    }
}
