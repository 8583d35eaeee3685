//! One word about the effects of many runs that nobody knows about: chosen by a filter, shown in sum first.
//!
//! Each decision is what [`Orchestrator::effect_resolve`] makes of it. It is on disk before its run's turn is taken, and
//! saying the same twice is saying it once, so after a crash the next process goes on with those whose turn has not come.
//! About an effect that was not shown nothing is said.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use weir_storage::{BulkChange, BulkItemRow, BulkRow, CauseKey, Operation, RunSelection, RunStatus, SelectedRuns};
use weir_workflow_engine::{BulkId, EffectClass, EffectKey, EffectRecord, RunId, Timestamp, WorkspaceId};

use super::bulk::MAX_BULK_RUNS;
use super::bulk_operation::{Beginning, Turn, actor_of, bracketed, plural};
use super::bulk_work::Lot;
use super::resolve::Of;
use super::{Family, Refused, Resolution, write};
use crate::budget::Class;
use crate::configure::Actor;
use crate::control::ControlError;
use crate::perform::Purpose;
use crate::service::Orchestrator;

/// The code of a run that ended because nobody knows about an effect.
const EFFECT_UNKNOWN: &str = "effect_unknown";

/// What is said of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkVerdict {
    /// They took place; steps after them see null as their output.
    Happened,
    /// They did not take place.
    NotHappened,
    /// The provider is to be asked about each.
    Look,
}

impl BulkVerdict {
    const ALL: [Self; 3] = [Self::Happened, Self::NotHappened, Self::Look];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Happened => "happened",
            Self::NotHappened => "not_happened",
            Self::Look => "look",
        }
    }

    /// As it stands in the row of an operation.
    pub(super) fn of(options: &Value) -> Option<Self> {
        let stored = options.get("resolution")?.as_str()?;
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == stored)
    }

    fn resolution(self) -> Resolution {
        match self {
            Self::Happened => Resolution::Happened { output: None },
            Self::NotHappened => Resolution::NotHappened,
            Self::Look => Resolution::Look,
        }
    }
}

/// Which runs that ended with `effect_unknown`, and which of their effects; `None` = any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnknownFilter {
    /// Of the workflow with this name.
    pub workflow: Option<String>,
    /// That stopped at this step, by its path.
    pub error_step: Option<String>,
    /// Only effects of this operation, `connector.operation`.
    pub operation: Option<String>,
    /// That are open dead letters with this cause.
    pub cause: Option<CauseKey>,
    /// That started at this time or later.
    pub since: Option<Timestamp>,
    /// That started before this time.
    pub until: Option<Timestamp>,
}

/// What would be decided, in sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvePreview {
    /// How many runs have effects that fit.
    pub runs: u32,
    /// Whether more runs fit than one operation takes; the oldest come first.
    pub more: bool,
    /// Runs that fit and of which nothing can be said now, with the reason.
    pub left_out: Vec<(RunId, String)>,
    /// The effects by operation, in the order of their names.
    pub effects: Vec<UnknownEffects>,
    /// All of it in a sentence.
    pub summary: String,
    /// To be handed to [`Orchestrator::bulk_resolve`].
    pub confirm: String,
}

/// Effects of one operation that nobody knows about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownEffects {
    /// Connector and operation.
    pub operation: String,
    /// `keyed`, `find_by`, `repeatable` or `blind`.
    pub class: &'static str,
    /// How many.
    pub count: u64,
}

/// A selection with the effects of each of its runs.
struct Shown {
    preview: ResolvePreview,
    items: Vec<(RunId, String)>,
}

/// Why nothing was begun.
#[derive(Debug, thiserror::Error)]
pub enum BulkResolveError {
    /// There is no effect that fits.
    #[error("no effect of unknown fate fits")]
    NoneFits,
    /// It is about other effects than were shown; with the new preview.
    #[error("the effects that fit are not those that were shown")]
    Changed(Box<ResolvePreview>),
    /// No such workflow, or the database cannot be read or written now.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Orchestrator {
    /// Says about which effects something would be said. Writes nothing, asks nobody.
    ///
    /// # Errors
    /// [`ControlError::NotFound`]: no such workflow. Otherwise see [`ControlError`].
    pub async fn bulk_resolve_preview(
        &self,
        workspace: WorkspaceId,
        filter: &UnknownFilter,
        verdict: BulkVerdict,
    ) -> Result<ResolvePreview, ControlError> {
        let shown = self.show_unknown(workspace, filter, verdict).await?;
        Ok(shown.preview)
    }

    /// Begins to say it of every effect that fits. It goes on by itself; [`Orchestrator::bulk_stop`] stops it.
    ///
    /// # Errors
    /// [`BulkResolveError`].
    pub async fn bulk_resolve(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        filter: &UnknownFilter,
        (verdict, note): (BulkVerdict, &str),
        confirm: &str,
    ) -> Result<BulkId, BulkResolveError> {
        let Shown { preview, items } = self.show_unknown(workspace, filter, verdict).await?;
        if items.is_empty() {
            return Err(BulkResolveError::NoneFits);
        }
        if preview.confirm != confirm {
            return Err(BulkResolveError::Changed(Box::new(preview)));
        }
        let beginning = Beginning {
            action: "bulk.resolve".to_owned(),
            filter: filter_json(filter),
            options: json!({
                "resolution": verdict.as_str(), "note": crate::runner::storable(note), "operation": filter.operation,
            }),
            items,
            shown: preview.summary,
            lot: Lot::Decisions,
        };
        Ok(self.begin_bulk(workspace, actor, beginning).await?)
    }

    async fn show_unknown(
        &self,
        workspace: WorkspaceId,
        filter: &UnknownFilter,
        verdict: BulkVerdict,
    ) -> Result<Shown, ControlError> {
        let selection = RunSelection {
            runs: SelectedRuns::Ended(RunStatus::Failed),
            workflow: self.filtered_workflow(workspace, filter.workflow.as_deref())?,
            error_code: Some(EFFECT_UNKNOWN.to_owned()),
            error_step: filter.error_step.clone(),
            cause: filter.cause,
            since: filter.since,
            until: filter.until,
        };
        let store = &self.core.store;
        let mut runs = store.run_select(workspace, &selection, MAX_BULK_RUNS + 1).await?;
        let limit = usize::try_from(MAX_BULK_RUNS).unwrap_or(usize::MAX);
        let mut preview = ResolvePreview {
            more: runs.len() > limit,
            ..ResolvePreview::default()
        };
        runs.truncate(limit);
        let mut items = Vec::with_capacity(runs.len());
        let mut effects: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
        let mut digest = Sha256::new();
        digest.update(verdict.as_str());
        for run in runs {
            let open = match self
                .unknown_effects(workspace, run.root_id, filter.operation.as_deref())
                .await
            {
                Ok(open) => open,
                Err(ControlError::NotResolvable { why } | ControlError::NotReplayable { why, .. }) => {
                    preview.left_out.push((run.id, why));
                    continue;
                }
                Err(other) => return Err(other),
            };
            if open.is_empty() {
                continue;
            }
            if verdict == BulkVerdict::Look
                && let Some(blind) = open.iter().find(|effect| !effect.can_be_looked_for)
            {
                let why = format!(
                    "{} cannot be looked for (its class is {})",
                    blind.operation, blind.class
                );
                preview.left_out.push((run.id, why));
                continue;
            }
            for effect in &open {
                *effects.entry((effect.operation.clone(), effect.class)).or_default() += 1;
            }
            let word = words(&open);
            digest.update(format!("{} {word};", run.id));
            items.push((run.id, word));
        }
        preview.runs = u32::try_from(items.len()).unwrap_or(u32::MAX);
        preview.effects = effects
            .into_iter()
            .map(|((operation, class), count)| UnknownEffects {
                operation,
                class,
                count,
            })
            .collect();
        preview.summary = summary(&preview);
        preview.confirm = hex::encode(digest.finalize().get(..8).unwrap_or_default());
        Ok(Shown { preview, items })
    }

    /// The effects of a family that nobody knows about.
    async fn unknown_effects(
        &self,
        workspace: WorkspaceId,
        root: RunId,
        operation: Option<&str>,
    ) -> Result<Vec<Unknown>, ControlError> {
        let family = Family::load(&self.core, workspace, root).await?;
        if let Some(open) = family.open() {
            let why = format!("{open} is not over yet");
            return Err(ControlError::NotResolvable { why });
        }
        let ledger = family.ledger();
        // About what somebody decided before, nothing is said in a lot.
        let open = ledger
            .iter()
            .filter(|(_, record)| record.is_open() && record.decided.is_none());
        let mut found: Vec<Unknown> = open
            .map(|(key, record)| Unknown::of(*key, record))
            .filter(|effect| operation.is_none_or(|wanted| wanted == effect.operation))
            .collect();
        found.sort_by_key(|one| one.key);
        Ok(found)
    }

    /// Says it of the effects of a run, as its turn in an operation.
    pub(super) async fn resolve_turn(
        &self,
        bulk: &BulkRow,
        (verdict, note, operation): (BulkVerdict, &str, Option<&str>),
        item: &BulkItemRow,
    ) -> Result<Turn, ControlError> {
        let (workspace, actor) = (bulk.workspace, actor_of(bulk));
        let Some(row) = self.core.store.run_load(workspace, item.run).await? else {
            return self
                .skip_turn(bulk, item.run, "it is no longer stored".to_owned())
                .await;
        };
        let open = match self.unknown_effects(workspace, row.root_id, operation).await {
            Ok(open) => open,
            Err(ControlError::NotResolvable { why } | ControlError::NotReplayable { why, .. }) => {
                return self.skip_turn(bulk, item.run, why).await;
            }
            Err(other) => return Err(other),
        };
        let shown: BTreeSet<&str> = item.confirm.split(' ').collect();
        if open.iter().any(|effect| !shown.contains(effect.word().as_str())) {
            let why = "what is unknown about it is not what was shown any more".to_owned();
            return self.skip_turn(bulk, item.run, why).await;
        }
        let purpose = Purpose {
            class: Class::Replay,
            ..Purpose::default()
        };
        let mut undecided = Vec::new();
        for effect in open {
            let said = (verdict.resolution(), note.to_owned());
            let of = Of {
                run: item.run,
                step: &effect.step,
                key: Some(effect.key),
            };
            match self.resolve_one(workspace, &actor, of, said, &purpose).await {
                Ok(resolved) if resolved.decided.is_some() => {}
                Ok(resolved) => undecided.push(format!("{}: {}", effect.step, resolved.message)),
                Err(ControlError::NotResolvable { why } | ControlError::NotReplayable { why, .. }) => {
                    undecided.push(format!("{}: {why}", effect.step));
                }
                Err(other) => return Err(other),
            }
        }
        if !undecided.is_empty() {
            return self.skip_turn(bulk, item.run, undecided.join("; ")).await;
        }
        let operation = Operation {
            bulk: Some(BulkChange::Started {
                bulk: bulk.id,
                run: item.run,
                replay: None,
            }),
            ..Operation::default()
        };
        match write(&self.core, operation).await {
            // Stale: the operation was stopped, or another process had this turn.
            Ok(_) | Err(Refused::Stale) => Ok(Turn::Again),
            Err(Refused::Other(error)) => Err(error),
        }
    }
}

/// An effect that nobody knows about.
struct Unknown {
    key: EffectKey,
    step: String,
    operation: String,
    class: &'static str,
    can_be_looked_for: bool,
}

impl Unknown {
    fn of(key: EffectKey, record: &EffectRecord) -> Self {
        Self {
            key,
            step: record.step.to_string(),
            operation: format!("{}.{}", record.connector, record.operation),
            class: record.class.as_str(),
            can_be_looked_for: matches!(record.class, EffectClass::FindBy { .. }),
        }
    }

    /// Tells it from the others of its run.
    fn word(&self) -> String {
        let digest = Sha256::digest(self.key.to_string());
        hex::encode(digest.get(..6).unwrap_or_default())
    }
}

/// What stands in the row of a run: the effects that were shown.
fn words(effects: &[Unknown]) -> String {
    let words: Vec<String> = effects.iter().map(Unknown::word).collect();
    words.join(" ")
}

/// All of a preview in a sentence: "103 runs: 104 effects of unknown fate (crm.create 104)".
fn summary(preview: &ResolvePreview) -> String {
    let count = preview.effects.iter().map(|effects| effects.count).sum::<u64>();
    let named: Vec<String> = preview
        .effects
        .iter()
        .map(|effects| format!("{} {}", effects.operation, effects.count))
        .collect();
    let left_out = match preview.left_out.len() {
        0 => String::new(),
        count => format!(", {count} left out"),
    };
    format!(
        "{}: {} of unknown fate{}{left_out}",
        plural(u64::from(preview.runs), "run"),
        plural(count, "effect"),
        bracketed(&named),
    )
}

fn filter_json(filter: &UnknownFilter) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    json!({
        "workflow": filter.workflow, "errorStep": filter.error_step, "operation": filter.operation,
        "cause": filter.cause.map(|key| format!("{} {}", key.workflow, key.cause)),
        "since": time(filter.since), "until": time(filter.until),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_by_operation() {
        let effects = |operation: &str, count| UnknownEffects {
            operation: operation.to_owned(),
            class: "blind",
            count,
        };
        let mut preview = ResolvePreview {
            runs: 103,
            effects: vec![effects("crm.create", 103), effects("slack.post", 1)],
            ..ResolvePreview::default()
        };
        assert_eq!(
            summary(&preview),
            "103 runs: 104 effects of unknown fate (crm.create 103, slack.post 1)"
        );
        preview.left_out.push((RunId::from_raw(1), "it runs".to_owned()));
        assert!(summary(&preview).ends_with("slack.post 1), 1 left out"));
    }

    #[test]
    fn a_verdict_survives_the_database() {
        for verdict in BulkVerdict::ALL {
            let stored = json!({ "resolution": verdict.as_str(), "note": "" });
            assert_eq!(BulkVerdict::of(&stored), Some(verdict));
        }
        assert_eq!(BulkVerdict::of(&json!({ "request": "cancel" })), None);
    }
}
