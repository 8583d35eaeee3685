//! Something asked of many open runs: end, stand still, go on. Chosen by a filter, shown in sum first.
//!
//! What open runs do changes every moment, so what was shown is an upper bound: only runs that were there then are asked,
//! and those that have ended since are left out. Each run is asked by the same write that takes its turn, so after a crash
//! the next process goes on with those whose turn has not come, and no run is asked twice.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use weir_storage::{
    BulkChange, BulkItemRow, BulkRow, Operation, Request, RunRow, RunSelection, RunStatus, SelectedRuns,
};
use weir_workflow_engine::{BulkId, RunId, Timestamp, WorkflowId, WorkspaceId};

use super::bulk::MAX_BULK_RUNS;
use super::bulk_operation::{Beginning, Turn, actor_of, bracketed, plural};
use super::bulk_resolve::BulkVerdict;
use super::bulk_work::Lot;
use super::{Refused, audit, write};
use crate::configure::Actor;
use crate::control::ControlError;
use crate::mail::Asked;
use crate::operate::MAX_NOTE_BYTES;
use crate::service::Orchestrator;

/// What is asked of open runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkRequest {
    /// To end: nothing new is begun, effects that are on their way are waited for.
    Cancel,
    /// To stand still, and their time limits with them.
    Pause,
    /// To go on.
    Resume,
}

impl BulkRequest {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// The statuses of runs for which it makes a difference.
    fn statuses(self) -> &'static [RunStatus] {
        use RunStatus::{Paused, Queued, Running, Waiting};
        match self {
            Self::Cancel => &[Queued, Paused, Running, Waiting],
            Self::Pause => &[Queued, Running, Waiting],
            // What waits for its turn, or still has a call under way, is held without being paused yet.
            Self::Resume => &[Paused, Queued, Running, Waiting],
        }
    }

    fn asked(self, by: String, reason: String) -> Asked {
        match self {
            Self::Cancel => Asked::Cancel { by, reason },
            Self::Pause => Asked::Pause { by, reason },
            Self::Resume => Asked::Resume { by },
        }
    }
}

/// What an operation on many runs does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkAction {
    /// Starts replays of runs that are over.
    Replay,
    /// Asks something of open runs.
    Request(BulkRequest),
    /// Says what became of effects that nobody knows about.
    Resolve,
}

impl BulkAction {
    /// As the operation's row says.
    #[must_use]
    pub fn of(bulk: &BulkRow) -> Self {
        let options: Value = serde_json::from_str(&bulk.options).unwrap_or_default();
        match options.get("request").and_then(Value::as_str) {
            Some("cancel") => Self::Request(BulkRequest::Cancel),
            Some("pause") => Self::Request(BulkRequest::Pause),
            Some("resume") => Self::Request(BulkRequest::Resume),
            None if BulkVerdict::of(&options).is_some() => Self::Resolve,
            Some(_) | None => Self::Replay,
        }
    }
}

/// Which open runs; `None` = any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenFilter {
    /// With this status.
    pub status: Option<RunStatus>,
    /// Of the workflow with this name.
    pub workflow: Option<String>,
    /// That started at this time or later.
    pub since: Option<Timestamp>,
    /// That started before this time.
    pub until: Option<Timestamp>,
}

/// The open runs that fit, in sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestPreview {
    /// How many runs would be asked.
    pub runs: u32,
    /// Whether more runs fit than one operation takes; the oldest come first.
    pub more: bool,
    /// How many of them stand where, those that there are.
    pub by_status: Vec<(RunStatus, u32)>,
    /// Their effects that have no answer, by operation.
    pub effects: Vec<OpenEffects>,
    /// All of it in a sentence.
    pub summary: String,
    /// To be handed to [`Orchestrator::bulk_request`].
    pub confirm: String,
}

/// Effects of one operation in open runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenEffects {
    /// Connector and operation.
    pub operation: String,
    /// `keyed`, `find_by`, `repeatable` or `blind`.
    pub class: &'static str,
    /// Begun and without an answer: on its way, or waiting for its next try.
    pub on_the_way: u64,
    /// Nobody knows whether it took place.
    pub unknown: u64,
}

/// Every open run of a workflow.
fn open_of(workflow: WorkflowId, since: Option<Timestamp>) -> RunSelection {
    RunSelection {
        runs: SelectedRuns::Open {
            statuses: BulkRequest::Cancel.statuses().to_vec(),
            up_to: None,
        },
        workflow: Some(workflow),
        error_code: None,
        error_step: None,
        cause: None,
        since,
        until: None,
    }
}

impl Orchestrator {
    /// Says which open runs fit and what they are at. Writes nothing.
    ///
    /// # Errors
    /// [`ControlError::NotFound`]: no such workflow. Otherwise see [`ControlError`].
    pub async fn bulk_request_preview(
        &self,
        workspace: WorkspaceId,
        filter: &OpenFilter,
        request: BulkRequest,
    ) -> Result<RequestPreview, ControlError> {
        let mut runs = self.open_runs(workspace, filter, request, None).await?;
        let limit = usize::try_from(MAX_BULK_RUNS).unwrap_or(usize::MAX);
        let more = runs.len() > limit;
        runs.truncate(limit);
        let mut effects: BTreeMap<(String, &'static str), OpenEffects> = BTreeMap::new();
        for run in &runs {
            let Some(story) = self.run_story(workspace, run.id).await? else {
                continue;
            };
            for step in story.steps {
                let Some(effect) = step
                    .effect
                    .filter(|effect| matches!(effect.state, "intended" | "unknown"))
                else {
                    continue;
                };
                let key = (step.label, effect.class);
                let sum = effects.entry(key).or_insert_with_key(|(operation, class)| OpenEffects {
                    operation: operation.clone(),
                    class,
                    on_the_way: 0,
                    unknown: 0,
                });
                sum.on_the_way += u64::from(effect.state == "intended");
                sum.unknown += u64::from(effect.state == "unknown");
            }
        }
        let by_status = request.statuses().iter().filter_map(|status| {
            let count = runs.iter().filter(|run| run.status == *status).count();
            (count > 0).then(|| (*status, u32::try_from(count).unwrap_or(u32::MAX)))
        });
        let mut preview = RequestPreview {
            runs: u32::try_from(runs.len()).unwrap_or(u32::MAX),
            more,
            by_status: by_status.collect(),
            effects: effects.into_values().collect(),
            summary: String::new(),
            confirm: Bound::of(&runs, filter, request).to_text(),
        };
        preview.summary = summary(&preview);
        Ok(preview)
    }

    /// Begins to ask every run that fits. It goes on by itself; [`Orchestrator::bulk_stop`] stops it.
    ///
    /// # Errors
    /// [`RequestError::NoneFits`]; [`RequestError::Changed`] when more runs fit than were shown, or the word is for
    /// something else: look at the preview again.
    pub async fn bulk_request(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        filter: &OpenFilter,
        (request, reason): (BulkRequest, &str),
        confirm: &str,
    ) -> Result<BulkId, RequestError> {
        if reason.len() > MAX_NOTE_BYTES {
            return Err(RequestError::ReasonTooLong);
        }
        let shown = Bound::parse(confirm).ok_or(RequestError::Changed)?;
        let mut runs = self.open_runs(workspace, filter, request, Some(shown.last)).await?;
        runs.truncate(usize::try_from(MAX_BULK_RUNS).unwrap_or(usize::MAX));
        if runs.is_empty() {
            return Err(RequestError::NoneFits);
        }
        if runs.len() > usize::try_from(shown.runs).unwrap_or(usize::MAX)
            || Bound::digest(filter, request) != shown.digest
        {
            return Err(RequestError::Changed);
        }
        let runs = runs.into_iter().map(|run| run.id).collect();
        Ok(self
            .begin_asking(workspace, actor, (runs, filter_json(filter)), (request, reason))
            .await?)
    }

    /// How many runs of a workflow are not over, counted up to the size of one operation, and whether there are more.
    pub(crate) async fn count_open(
        &self,
        workspace: WorkspaceId,
        workflow: WorkflowId,
    ) -> Result<(u32, bool), ControlError> {
        let selection = open_of(workflow, None);
        let runs = self
            .core
            .store
            .run_select(workspace, &selection, MAX_BULK_RUNS + 1)
            .await?;
        let count = u32::try_from(runs.len()).unwrap_or(u32::MAX);
        Ok((count.min(MAX_BULK_RUNS), count > MAX_BULK_RUNS))
    }

    /// Asks every run of a workflow that is not over to end, whether the workflow is still there or not.
    pub(crate) async fn cancel_all_of(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        (workflow, name): (WorkflowId, &str),
        reason: &str,
    ) -> Result<Vec<BulkId>, ControlError> {
        let mut operations = Vec::new();
        let mut last: Option<RunId> = None;
        loop {
            let selection = open_of(workflow, last.map(RunId::made_at));
            let store = &self.core.store;
            let found = store.run_select(workspace, &selection, 2 * MAX_BULK_RUNS).await?;
            let runs = found
                .iter()
                .map(|run| run.id)
                .filter(|run| last.is_none_or(|last| *run > last));
            let runs: Vec<RunId> = runs
                .take(usize::try_from(MAX_BULK_RUNS).unwrap_or(usize::MAX))
                .collect();
            let Some(newest) = runs.last().copied() else {
                return Ok(operations);
            };
            last = Some(newest);
            let filter = json!({ "workflow": name });
            let ask = (BulkRequest::Cancel, reason);
            operations.push(self.begin_asking(workspace, actor, (runs, filter), ask).await?);
        }
    }

    async fn begin_asking(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        (runs, filter): (Vec<RunId>, Value),
        (request, reason): (BulkRequest, &str),
    ) -> Result<BulkId, ControlError> {
        let beginning = Beginning {
            action: format!("bulk.{}", request.as_str()),
            filter,
            options: json!({ "request": request.as_str(), "reason": crate::runner::storable(reason) }),
            shown: plural(runs.len() as u64, "run"),
            items: runs.into_iter().map(|run| (run, String::new())).collect(),
            lot: Lot::Requests,
        };
        self.begin_bulk(workspace, actor, beginning).await
    }

    async fn open_runs(
        &self,
        workspace: WorkspaceId,
        filter: &OpenFilter,
        request: BulkRequest,
        up_to: Option<RunId>,
    ) -> Result<Vec<RunRow>, ControlError> {
        let fits = |status: &RunStatus| filter.status.is_none_or(|wanted| wanted == *status);
        let mut selection = RunSelection {
            runs: SelectedRuns::Open {
                statuses: request.statuses().iter().copied().filter(fits).collect(),
                up_to,
            },
            workflow: self.filtered_workflow(workspace, filter.workflow.as_deref())?,
            error_code: None,
            error_step: None,
            cause: None,
            since: filter.since,
            until: filter.until,
        };
        let store = &self.core.store;
        if request != BulkRequest::Resume {
            return Ok(store.run_select(workspace, &selection, MAX_BULK_RUNS + 1).await?);
        }
        // Rows do not tell which of them are held, so all are looked at, a page after the other.
        let limit = usize::try_from(MAX_BULK_RUNS + 1).unwrap_or(usize::MAX);
        let mut held: Vec<RunRow> = Vec::new();
        let mut last: Option<RunId> = None;
        loop {
            let page = store.run_select(workspace, &selection, 2 * MAX_BULK_RUNS).await?;
            let fresh = page.into_iter().filter(|run| last.is_none_or(|last| run.id > last));
            let fresh: Vec<RunRow> = fresh.collect();
            let Some(newest) = fresh.last().map(|run| run.id) else {
                return Ok(held);
            };
            for run in fresh {
                if held.len() < limit && (run.status == RunStatus::Paused || self.is_held(workspace, run.id).await?) {
                    held.push(run);
                }
            }
            if held.len() >= limit {
                return Ok(held);
            }
            last = Some(newest);
            selection.since = Some(newest.made_at());
        }
    }

    /// Asks a run, as its turn in an operation.
    pub(super) async fn ask_turn(
        &self,
        bulk: &BulkRow,
        request: BulkRequest,
        reason: &str,
        item: &BulkItemRow,
    ) -> Result<Turn, ControlError> {
        let (now, workspace) = (self.clock().now(), bulk.workspace);
        let actor = actor_of(bulk);
        let asked = request.asked(bulk.actor.clone(), reason.to_owned());
        let detail = json!({ "bulk": bulk.id.to_string(), "reason": reason });
        let action = format!("run.{}", request.as_str());
        let asking = Request {
            id: self.core.new_id(now),
            workspace,
            run: item.run,
            body: asked.to_body(),
            at: now,
            answers: None,
            audit: Some(audit(
                &self.core,
                workspace,
                &actor,
                now,
                (&action, item.run.to_string(), detail),
            )),
        };
        let operation = Operation {
            requests: vec![asking],
            bulk: Some(BulkChange::Started {
                bulk: bulk.id,
                run: item.run,
                replay: None,
            }),
            ..Operation::default()
        };
        match write(&self.core, operation).await {
            Ok(_) => return Ok(Turn::Again),
            Err(Refused::Other(error)) => return Err(error),
            Err(Refused::Stale) => {}
        }
        let reason = match self.core.store.run_load(workspace, item.run).await? {
            // The operation was stopped, or another process had this turn.
            Some(row) if row.status.is_open() => return Ok(Turn::Again),
            Some(row) => format!("it has ended: {}", row.status.as_str()),
            None => "it is no longer stored".to_owned(),
        };
        self.skip_turn(bulk, item.run, reason).await
    }
}

/// Why many runs were not asked.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No open run fits.
    #[error("no open run fits")]
    NoneFits,
    /// More runs fit than were shown, or others.
    #[error("the runs that fit are not those that were shown")]
    Changed,
    /// The reason is longer than [`MAX_NOTE_BYTES`].
    #[error("the reason has more than {MAX_NOTE_BYTES} bytes")]
    ReasonTooLong,
    /// No such workflow, or the database cannot be read or written now.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// What was shown, as the word for it holds it.
#[derive(Debug, PartialEq, Eq)]
struct Bound {
    /// The last run shown.
    last: RunId,
    /// How many there were.
    runs: u32,
    /// Of what was asked for.
    digest: String,
}

impl Bound {
    fn of(runs: &[RunRow], filter: &OpenFilter, request: BulkRequest) -> Self {
        Self {
            last: runs.last().map_or(RunId::from_raw(0), |run| run.id),
            runs: u32::try_from(runs.len()).unwrap_or(u32::MAX),
            digest: Self::digest(filter, request),
        }
    }

    fn digest(filter: &OpenFilter, request: BulkRequest) -> String {
        let digest = Sha256::digest(format!("{} {}", request.as_str(), filter_json(filter)));
        hex::encode(digest.get(..8).unwrap_or_default())
    }

    fn to_text(&self) -> String {
        format!("{}-{}-{}", self.last, self.runs, self.digest)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        Some(Self {
            last: parts.next()?.parse().ok()?,
            runs: parts.next()?.parse().ok()?,
            digest: parts.next()?.to_owned(),
        })
    }
}

/// All of a preview in a sentence: "12 runs (9 running, 3 waiting): 2 effects on their way (shop.pay 2), 0 of unknown fate".
fn summary(preview: &RequestPreview) -> String {
    let parts: Vec<String> = preview
        .by_status
        .iter()
        .map(|(status, count)| format!("{count} {}", status.as_str()))
        .collect();
    let named: Vec<String> = preview
        .effects
        .iter()
        .filter(|effects| effects.on_the_way > 0)
        .map(|effects| format!("{} {}", effects.operation, effects.on_the_way))
        .collect();
    let sum = |of: fn(&OpenEffects) -> u64| preview.effects.iter().map(of).sum::<u64>();
    format!(
        "{}{}: {} on their way{}, {} of unknown fate",
        plural(u64::from(preview.runs), "run"),
        bracketed(&parts),
        plural(sum(|effects| effects.on_the_way), "effect"),
        bracketed(&named),
        sum(|effects| effects.unknown),
    )
}

fn filter_json(filter: &OpenFilter) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    json!({
        "status": filter.status.map(RunStatus::as_str), "workflow": filter.workflow,
        "since": time(filter.since), "until": time(filter.until),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown_survives_its_word() {
        let filter = OpenFilter::default();
        let bound = Bound {
            last: RunId::from_raw(77),
            runs: 3,
            digest: Bound::digest(&filter, BulkRequest::Cancel),
        };
        assert_eq!(Bound::parse(&bound.to_text()), Some(bound));
        assert_eq!(Bound::parse("guess"), None);
        assert_ne!(
            Bound::digest(&filter, BulkRequest::Cancel),
            Bound::digest(&filter, BulkRequest::Pause)
        );
    }

    #[test]
    fn a_summary_says_what_is_under_way() {
        let preview = RequestPreview {
            runs: 12,
            by_status: vec![(RunStatus::Running, 9), (RunStatus::Waiting, 3)],
            effects: vec![OpenEffects {
                operation: "shop.pay".to_owned(),
                class: "blind",
                on_the_way: 2,
                unknown: 1,
            }],
            ..RequestPreview::default()
        };
        assert_eq!(
            summary(&preview),
            "12 runs (9 running, 3 waiting): 2 effects on their way (shop.pay 2), 1 of unknown fate"
        );
    }
}
