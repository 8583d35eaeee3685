//! What a replay would do, told before it is done.

use super::super::scalars::Json;
use super::super::user_error::{UserError, UserErrorCode};
use super::connector::EffectClass;
use super::run::RunStatus;
use super::step::told;
use async_graphql::{Context, Enum, ID, InputObject, SimpleObject};
use weir_orchestrator::repair::{PreparedReplay, ReplayFrom, ReplayOptions, ReplayVersion};
use weir_workflow_engine::{PreviewEffect, PreviewRead, StepNames};

/// What a replay of a run would do. Nothing has been sent yet.
#[derive(Debug, SimpleObject)]
pub(crate) struct ReplayPreview {
    /// Path of the step that it would begin at. Null: at the start.
    from: Option<String>,
    /// The same as people read it: an item without a `key` is told by its place in the list, from 1.
    from_name: Option<String>,
    /// Number of the version that it would run on.
    version_number: u32,
    /// What it would take over as it was: paths of steps, `hydrate.<read>` for follow-up reads.
    kept: Vec<String>,
    /// The same as people read it.
    kept_names: Vec<String>,
    /// The last run that repeated it already, or another run of its family after it: then `runReplay` wants `again`.
    replaced_by: Option<ReplacedBy>,
    /// Pass it to `runReplay`, with the same `options`. It stops being valid when the preview would no longer be the same.
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
    /// Whether more may be done than is shown: what follows a call without a recorded answer or a wait whose outcome is
    /// open is not, and of the runs that it would start only the first 100 are.
    in_part: bool,
}

impl ReplayPreview {
    /// As the caller may see it.
    pub(crate) fn shown(prepared: PreparedReplay, ctx: &Context<'_>) -> Self {
        let PreparedReplay {
            preview,
            from,
            kept,
            version,
            replaced_by,
            confirm,
        } = prepared;
        let replaced_by = replaced_by.map(|(run, status)| ReplacedBy {
            run_id: run.to_string().into(),
            status: status.into(),
        });
        let names = preview.names;
        let effects = |effects: Vec<PreviewEffect>| {
            let effects = effects.into_iter();
            effects.map(|effect| PreviewCall::of_effect(effect, &names)).collect()
        };
        ReplayPreview {
            from_name: from.as_deref().map(|step| names.name(step)),
            from,
            version_number: version,
            kept_names: kept.iter().map(|step| names.name(step)).collect(),
            kept,
            replaced_by,
            confirm,
            reads: preview
                .reads
                .into_iter()
                .map(|read| PreviewCall::of_read(read, &names))
                .collect(),
            answered: effects(preview.answered),
            new: effects(preview.new),
            unknown: effects(preview.unknown),
            note: preview.note.and_then(|note| told(ctx, &note)),
            in_part: preview.in_part,
        }
    }
}

/// A run that repeated another one.
#[derive(Debug, SimpleObject)]
pub(crate) struct ReplacedBy {
    /// Its id.
    run_id: ID,
    /// Where it stands.
    status: RunStatus,
}

/// One call that a replay would make or answer from the record.
#[derive(Debug, SimpleObject)]
pub(crate) struct PreviewCall {
    /// Path of the step; `bill/pay` is the step `pay` of the run that the step `bill` would start.
    step: String,
    /// The path as people read it: an item without a `key` is told by its place in the list, from 1.
    step_name: String,
    /// Name of the connector.
    connector_name: String,
    /// Name of the operation.
    operation: String,
    /// How the effect can be repeated. Null for reads, and when it is not recorded.
    class: Option<EffectClass>,
    /// Idempotency key of the effect. Null for reads.
    key: Option<String>,
    /// Whether the same step did this before with another request.
    changed: bool,
    /// Whether the same step took place before and was undone by a `compensate`.
    undone: bool,
    /// Whether a request would be sent.
    sends: bool,
    /// Whether it hangs on a read that would be made again: when that answers otherwise than before, what is answered from
    /// the record here may be another request, and that is sent.
    on_reads: bool,
}

impl PreviewCall {
    fn of_read(read: PreviewRead, names: &StepNames) -> Self {
        PreviewCall {
            step_name: names.name(&read.step),
            step: read.step,
            connector_name: read.connector,
            operation: read.operation,
            class: None,
            key: None,
            changed: false,
            undone: false,
            sends: true,
            on_reads: false,
        }
    }

    fn of_effect(effect: PreviewEffect, names: &StepNames) -> Self {
        PreviewCall {
            step_name: names.name(&effect.step),
            step: effect.step,
            connector_name: effect.connector,
            operation: effect.operation,
            class: EffectClass::by_name(effect.class),
            key: Some(effect.key.to_string()),
            changed: effect.changed,
            undone: effect.undone,
            sends: effect.sends,
            on_reads: effect.on_reads,
        }
    }
}

/// How a run is to be replayed.
#[derive(Debug, Clone, Default, InputObject)]
pub(crate) struct ReplayOptionsInput {
    /// Where it begins. Default: at the failed step of a run that failed, otherwise at the start.
    from: Option<ReplayStart>,
    /// Path of the step for `from: STEP`.
    step: Option<String>,
    /// On which version. Default: the one that the run was pinned to.
    version: Option<ReplayOn>,
    /// What stands in the place of the event's body. The event's id, type, object and account stay as they are, so its
    /// effects keep their identity: a request that comes out differently is a new effect.
    body: Option<Json>,
}

/// Where a replay begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum ReplayStart {
    /// At the start: reads are made again.
    Start,
    /// At the step at fault; at the start when that was a follow-up read or the run as a whole.
    FailedStep,
    /// At the step that `step` names. What came before is taken over as it was.
    Step,
}

/// Which version a replay runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum ReplayOn {
    /// The one that the run was pinned to.
    Pinned,
    /// The one that is published now.
    Live,
}

impl ReplayOptionsInput {
    /// The options as the orchestrator takes them.
    ///
    /// # Errors
    /// `step` does not go with `from`.
    pub(crate) fn parse(self) -> Result<ReplayOptions, Vec<UserError>> {
        let from = match (self.from, self.step) {
            (None, None) => ReplayFrom::Automatic,
            (Some(ReplayStart::Start), None) => ReplayFrom::Start,
            (Some(ReplayStart::FailedStep), None) => ReplayFrom::FailedStep,
            (None | Some(ReplayStart::Step), Some(step)) => ReplayFrom::Step(step),
            (Some(ReplayStart::Step), None) => {
                let message = "the step to begin at is missing";
                return Err(vec![UserError::input(UserErrorCode::Required, "options", message)]);
            }
            (Some(ReplayStart::Start | ReplayStart::FailedStep), Some(_)) => {
                let message = "a step goes with `from: STEP`";
                return Err(vec![UserError::input(UserErrorCode::Invalid, "options", message)]);
            }
        };
        Ok(ReplayOptions {
            from,
            version: match self.version {
                None | Some(ReplayOn::Pinned) => ReplayVersion::Pinned,
                Some(ReplayOn::Live) => ReplayVersion::Live,
            },
            body: self.body.map(|body| body.0),
            again: false,
        })
    }
}
