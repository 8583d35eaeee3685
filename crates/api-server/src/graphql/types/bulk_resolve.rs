//! One word about many effects that nobody knows about, and which they are, before it is said.

use super::super::scalars::{DateTime, Long};
use super::bulk::{LeftOut, left_out};
use super::connector::EffectClass;
use super::dead_letter::cause_key;
use async_graphql::{Enum, ID, InputObject, SimpleObject};
use weir_orchestrator::repair::{BulkVerdict, ResolvePreview, UnknownEffects, UnknownFilter};

/// What a person says about an effect, or about many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum EffectResolution {
    /// It took place: it is not sent again.
    Happened,
    /// It did not take place: the next retry sends it. What undoes a step is sent when a run undoes that again.
    NotHappened,
    /// Weir asks the provider, where the connector says how. What is found counts as happened; finding nothing decides
    /// nothing.
    Look,
}

impl From<EffectResolution> for BulkVerdict {
    fn from(resolution: EffectResolution) -> Self {
        match resolution {
            EffectResolution::Happened => Self::Happened,
            EffectResolution::NotHappened => Self::NotHappened,
            EffectResolution::Look => Self::Look,
        }
    }
}

/// Which runs that failed with `effect_unknown`, and which of their effects; all conditions must hold. Only the last run
/// of each event and workflow belongs to it.
#[derive(Debug, Clone, Default, InputObject)]
pub(crate) struct UnknownEffectFilterInput {
    /// Of the workflow with this name.
    workflow: Option<String>,
    /// That stopped at this step, by its path.
    error_step: Option<String>,
    /// Only effects of this operation, as `connector.operation`.
    operation: Option<String>,
    /// That are open dead letters with this cause.
    cause_id: Option<ID>,
    /// Started at this time or later.
    since: Option<DateTime>,
    /// Started before this time.
    until: Option<DateTime>,
}

impl UnknownEffectFilterInput {
    /// The filter as the orchestrator takes it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(self) -> Result<UnknownFilter, &'static str> {
        let cause = match self.cause_id.as_ref().map(cause_key) {
            None => None,
            Some(Some(key)) => Some(key),
            Some(None) => return Err("`causeId` is not the id of a cause"),
        };
        Ok(UnknownFilter {
            workflow: self.workflow,
            error_step: self.error_step,
            operation: self.operation,
            cause,
            since: self.since.map(|time| time.0),
            until: self.until.map(|time| time.0),
        })
    }
}

/// The effects of unknown fate that fit, in sum. Nothing has been said about them yet.
#[derive(Debug, SimpleObject)]
pub(crate) struct BulkResolvePreview {
    /// How many runs have such effects.
    runs: u32,
    /// Whether more runs fit than one operation takes. The oldest come first; repeat it for the next ones.
    more: bool,
    /// Of how many runs that fit nothing can be said now.
    left_out_count: u32,
    /// The first of them, with the reason.
    left_out: Vec<LeftOut>,
    /// The effects, by operation.
    effects: Vec<UnknownEffectCount>,
    /// All of it in a sentence.
    summary: String,
    /// Pass it to `bulkResolve`, with the same filter and resolution. It stops being valid when other effects fit.
    confirm: String,
}

/// How many effects of one operation nobody knows about.
#[derive(Debug, SimpleObject)]
pub(crate) struct UnknownEffectCount {
    /// Connector and operation.
    operation: String,
    /// How it can be repeated. Null when that is not recorded.
    class: Option<EffectClass>,
    /// How many.
    count: Long,
}

impl From<ResolvePreview> for BulkResolvePreview {
    fn from(preview: ResolvePreview) -> Self {
        let effects = |effects: UnknownEffects| UnknownEffectCount {
            operation: effects.operation,
            class: EffectClass::by_name(effects.class),
            count: Long(effects.count),
        };
        BulkResolvePreview {
            runs: preview.runs,
            more: preview.more,
            left_out_count: u32::try_from(preview.left_out.len()).unwrap_or(u32::MAX),
            left_out: left_out(preview.left_out),
            effects: preview.effects.into_iter().map(effects).collect(),
            summary: preview.summary,
            confirm: preview.confirm,
        }
    }
}
