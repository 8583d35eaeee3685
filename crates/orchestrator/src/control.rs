//! The doors for people: start a run, look at it, replay it.
//!
//! A replay never begins before somebody has seen what it would do: the preview gives a confirmation that is only good
//! as long as the ledger, the version and the plan behind it are the same.

use crate::configure::Actor;
use crate::driver::{ActiveRun, First};
use crate::ingest::accept::new_run;
use crate::recovery::restore_event;
use crate::retention;
use crate::runner;
use crate::service::{Core, Orchestrator};
use crate::snapshot::SnapshotError;
use crate::start::Start;
use crate::turns;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_storage::{AcceptOutcome, Dedupe, EventRow, Fact, FactOutcome, ReadError, RunRow, RunStatus, WaitingFor};
use weir_workflow_engine::{
    Ending, Entry, EventId, EventSource, Ledger, Problem, ReplayPreview, RunHead, RunId, RunState, StoryStep,
    Timestamp, Trigger, WorkspaceId, decode, preview, story,
};

/// Why a person's request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No such workflow or run in this workspace.
    #[error("not found")]
    NotFound,
    /// The input does not fit.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Problem>),
    /// This run cannot be replayed.
    #[error("the run cannot be replayed: {why}")]
    NotReplayable {
        /// Why.
        why: String,
    },
    /// What the replay would do is no longer what was shown.
    #[error("what the replay would do has changed since it was shown")]
    PreviewChanged(Box<PreparedReplay>),
    /// The database cannot be read or written now; try again later.
    #[error("{0}")]
    Unavailable(String),
}

impl From<ReadError> for ControlError {
    fn from(error: ReadError) -> Self {
        ControlError::Unavailable(error.to_string())
    }
}

impl From<SnapshotError> for ControlError {
    fn from(error: SnapshotError) -> Self {
        ControlError::Unavailable(error.to_string())
    }
}

/// A run that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedRun {
    /// The run. `None` when the same key was used before and its run is older than the memory of this answer.
    pub run: Option<RunId>,
    /// The event that stands for the start.
    pub event: EventId,
    /// True when the same key had started it before: nothing new happened.
    pub replayed: bool,
}

/// What a replay would do, and the word that starts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedReplay {
    /// What it would do.
    pub preview: ReplayPreview,
    /// To be handed to [`Orchestrator::replay`].
    pub confirm: String,
}

/// The whole story of a run.
#[derive(Debug, Clone)]
pub struct RunStory {
    /// Its row.
    pub run: RunRow,
    /// The event it works on.
    pub event: EventRow,
    /// Name of its workflow.
    pub workflow: String,
    /// Number of the version it is pinned to.
    pub version: u32,
    /// Reads and steps in the order in which they began.
    pub steps: Vec<StoryStep>,
    /// What went wrong, for people.
    pub error_message: Option<String>,
    /// What it waits for before it starts.
    pub waiting_for: Option<WaitingFor>,
    /// The run that stands for its event instead of it.
    pub merged_into: Option<RunId>,
}

impl Orchestrator {
    /// Starts a workflow with `input` as its event's body. Any published workflow can be started; one with a manual
    /// trigger has its input checked.
    ///
    /// With an `idempotency_key`, a second call with the same key starts nothing and gives the first event.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn run_start(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        workflow: &str,
        input: Value,
        idempotency_key: Option<String>,
    ) -> Result<StartedRun, ControlError> {
        let snapshot = self.snapshot();
        let workflow = snapshot.workflow(workspace, workflow).ok_or(ControlError::NotFound)?;
        let version = workflow.published.as_ref().ok_or(ControlError::NotFound)?;
        let now = self.clock().now();
        let uid = self.core.new_event_id(now);
        let source = match version.plan.trigger() {
            Trigger::Manual { .. } | Trigger::Schedule(_) => EventSource::Manual,
            Trigger::Event { .. } => EventSource::Api,
        };
        let start = Start {
            workspace,
            workflow,
            version,
            input,
            source,
            headers: BTreeMap::new(),
            dedupe: Dedupe {
                scope: format!("start/{}", workflow.row.name),
                key: idempotency_key.unwrap_or_else(|| uid.to_string()),
                anchored_at: None,
            },
            traceparent: None,
            uid,
            now,
        };
        let (fact, run) = start.prepare(&self.core, &snapshot)?;
        tracing::info!(actor = %actor.name, workflow.name = %workflow.row.name, "run of `{}` started by {}", workflow.row.name, actor.name);
        let pending = self
            .writer()
            .submit(fact)
            .map_err(|full| ControlError::Unavailable(full.to_string()))?;
        match pending.await {
            Ok(FactOutcome::Accepted(AcceptOutcome::New)) => Ok(StartedRun {
                run: Some(run),
                event: uid,
                replayed: false,
            }),
            Ok(FactOutcome::Accepted(AcceptOutcome::Duplicate { of })) => {
                let first = self
                    .core
                    .store
                    .event_runs(workspace, of)
                    .await?
                    .first()
                    .map(|run| run.id);
                Ok(StartedRun {
                    run: first,
                    event: of,
                    replayed: true,
                })
            }
            Ok(other) => Err(ControlError::Unavailable(format!("the writer answered with {other:?}"))),
            Err(error) => Err(ControlError::Unavailable(error.to_string())),
        }
    }

    /// Says what a replay of `run` would do. Writes nothing, calls nobody.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn replay_preview(&self, workspace: WorkspaceId, run: RunId) -> Result<PreparedReplay, ControlError> {
        self.prepare(workspace, run).await.map(|(prepared, _)| prepared)
    }

    /// Replays a run on the version it was pinned to. `confirm` comes from the preview.
    ///
    /// # Errors
    /// [`ControlError::PreviewChanged`] with the new preview when it would now do something else than was shown.
    pub async fn replay(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        run: RunId,
        confirm: &str,
    ) -> Result<RunId, ControlError> {
        // One after the other: what the second would do depends on what the first does.
        let _one_at_a_time = self.core.replaying.lock().await;
        let (prepared, active) = self.prepare(workspace, run).await?;
        if prepared.confirm != confirm {
            return Err(ControlError::PreviewChanged(Box::new(prepared)));
        }
        let id = active.state.head().id;
        let fact = Fact::Start(vec![new_run(&active)]);
        let pending = self
            .writer()
            .submit(fact)
            .map_err(|full| ControlError::Unavailable(full.to_string()))?;
        let waits = match pending.await {
            Ok(FactOutcome::Started { held }) => held.contains(&id),
            Ok(_) => false,
            Err(weir_storage::WriteError::Unknown) => {
                self.core.rescan.notify_one();
                return Err(ControlError::Unavailable(
                    "the result of the commit is unknown; look at the runs of the event before you try again"
                        .to_owned(),
                ));
            }
            Err(error) => return Err(ControlError::Unavailable(error.to_string())),
        };
        tracing::info!(actor = %actor.name, run.id = %id, replay_of = %run, "run {run} replayed as {id} by {}", actor.name);
        if !waits {
            runner::launch(&self.core, active);
        }
        Ok(id)
    }

    async fn prepare(&self, workspace: WorkspaceId, run: RunId) -> Result<(PreparedReplay, ActiveRun), ControlError> {
        let stored = self
            .core
            .store
            .run_load(workspace, run)
            .await?
            .ok_or(ControlError::NotFound)?;
        if matches!(
            stored.status,
            RunStatus::Queued | RunStatus::Paused | RunStatus::Running | RunStatus::Waiting
        ) {
            return Err(ControlError::NotReplayable {
                why: "it is not over yet".to_owned(),
            });
        }
        if stored.status == RunStatus::Merged {
            let into = self.core.store.run_merged_into(run).await?;
            let into = into.map_or_else(|| "another run".to_owned(), |run| run.to_string());
            return Err(ControlError::NotReplayable {
                why: format!("it never began: {into} stands for its event; replay that one"),
            });
        }
        let all = self.core.store.event_runs(workspace, stored.event_id).await?;
        let family: Vec<&RunRow> = all.iter().filter(|other| other.root_id == stored.root_id).collect();
        let open = family.iter().find(|other| {
            matches!(
                other.status,
                RunStatus::Queued | RunStatus::Paused | RunStatus::Running | RunStatus::Waiting
            )
        });
        if let Some(open) = open {
            return Err(ControlError::NotReplayable {
                why: format!("{} of the same event is not over yet", open.id),
            });
        }
        let event_row = self.core.store.event_load(workspace, stored.event_id).await?;
        let event_row = event_row.ok_or_else(|| ControlError::NotReplayable {
            why: "its event is no longer stored".to_owned(),
        })?;
        let now = self.clock().now();
        let stands: Vec<_> = all.iter().map(|run| (run.status, run.finished_at)).collect();
        if retention::is_leaving(&self.core.settings.retention, event_row.row.received_at, &stands, now) {
            return Err(ControlError::NotReplayable {
                why: "the time is over for which its event and journal are kept (keep_runs_days, keep_failed_days)"
                    .to_owned(),
            });
        }
        let snapshot = self.snapshot();
        let version = snapshot
            .version(&self.core.store, workspace, stored.workflow_id, stored.version_id)
            .await?;
        let mut event = restore_event(&snapshot, &event_row.row).map_err(ControlError::Unavailable)?;
        if version.plan.is_batched() {
            let others = turns::batch_of(&self.core, &snapshot, &stored, event.uid).await?;
            event = event.with_batch(&others);
        }
        let event = Arc::new(event);
        let head = RunHead {
            id: RunId::from_raw(self.core.new_id(now)),
            root_id: stored.root_id,
            replay_of: Some(run),
            workspace,
            workflow: stored.workflow_id,
            workflow_name: version.plan.name().to_owned(),
            version: stored.version_id,
            version_number: version.number,
            dedupe_scope: event_row.dedupe.scope.clone(),
            dedupe_key: event_row.dedupe.key.clone(),
            started_at: now,
        };
        let ledger = family_ledger(&self.core, workspace, stored.root_id, None).await?;
        let recorded = entries(&self.core, workspace, run).await?;
        let shown = preview(
            &version.plan,
            &head,
            &event,
            &ledger,
            &recorded,
            &snapshot.surroundings(workspace),
            now,
        );
        let confirm = confirmation(&shown, run, family.len());
        let (turn, refused) = match turns::of(&snapshot, workspace, &version, &event, now) {
            Ok(turn) => (turn, None),
            Err(refused) => (None, Some(refused)),
        };
        let state = RunState::new(head, event, &version.plan).with_ledger(ledger);
        let active = ActiveRun {
            turn,
            state,
            version,
            next_seq: 0,
            first: First::Started,
            mail: Vec::new(),
            refused,
            traceparent: event_row.row.traceparent,
        };
        Ok((
            PreparedReplay {
                preview: shown,
                confirm,
            },
            active,
        ))
    }

    /// The whole story of a run, read from its journal. `None`: there is no such run in this workspace.
    ///
    /// # Errors
    /// The database does not answer, or the journal cannot be read.
    pub async fn run_story(&self, workspace: WorkspaceId, run: RunId) -> Result<Option<RunStory>, ControlError> {
        let Some(row) = self.core.store.run_load(workspace, run).await? else {
            return Ok(None);
        };
        let Some(event) = self.core.store.event_load(workspace, row.event_id).await? else {
            return Ok(None);
        };
        let snapshot = self.snapshot();
        let version = snapshot
            .version(&self.core.store, workspace, row.workflow_id, row.version_id)
            .await?;
        let journal = self.core.store.journal_load(workspace, run).await?;
        let mut decoded: Vec<(i32, Timestamp, Vec<Entry>)> = Vec::with_capacity(journal.len());
        for (seq, body) in journal {
            let (at, entries) = decode(&body).map_err(|error| {
                ControlError::Unavailable(format!("journal row {seq} of {run} cannot be read: {error}"))
            })?;
            decoded.push((seq, at, entries));
        }
        let error_message = decoded
            .iter()
            .flat_map(|(_, _, entries)| entries)
            .find_map(failure_message)
            .or_else(|| turns::why_not_begun(row.error_code.as_deref()?).map(str::to_owned));
        let waiting_for = match row.status {
            RunStatus::Queued => self.core.store.run_waiting_for(workspace, run).await?,
            _ => None,
        };
        let merged_into = match row.status {
            RunStatus::Merged => self.core.store.run_merged_into(run).await?,
            _ => None,
        };
        let steps = story(Some(&version.plan), &decoded);
        Ok(Some(RunStory {
            workflow: version.plan.name().to_owned(),
            version: version.number,
            event: event.row,
            run: row,
            steps,
            error_message,
            waiting_for,
            merged_into,
        }))
    }
}

/// What was shown, in one word: changes when anything shown changes, and with every replay, so that it is good for one.
fn confirmation(preview: &ReplayPreview, run: RunId, family: usize) -> String {
    let digest = Sha256::digest(format!("{run} {family} {preview:?}").as_bytes());
    hex::encode(digest.get(..8).unwrap_or_default())
}

fn failure_message(entry: &Entry) -> Option<String> {
    match entry {
        Entry::Finished(finished) => match &finished.ending {
            Ending::Failed { message, .. } => Some(message.to_string()),
            Ending::Succeeded | Ending::Canceled => None,
        },
        _ => None,
    }
}

async fn entries(core: &Core, workspace: WorkspaceId, run: RunId) -> Result<Vec<Entry>, ControlError> {
    let mut all = Vec::new();
    for (seq, body) in core.store.journal_load(workspace, run).await? {
        let (_, entries) = decode(&body).map_err(|error| {
            ControlError::Unavailable(format!("journal row {seq} of {run} cannot be read: {error}"))
        })?;
        all.extend(entries);
    }
    Ok(all)
}

/// What every run of one event did outside, without the run `but` itself.
pub(crate) async fn family_ledger(
    core: &Core,
    workspace: WorkspaceId,
    root: RunId,
    but: Option<RunId>,
) -> Result<Ledger, SnapshotError> {
    let mut runs: Vec<(RunId, Vec<Entry>)> = Vec::new();
    for (run, rows) in core.store.family_journals(workspace, root).await? {
        if Some(run) == but {
            continue;
        }
        let mut all = Vec::new();
        for (seq, body) in rows {
            let (_, entries) = decode(&body).map_err(|error| SnapshotError::Corrupt {
                row: format!("journal row {seq} of {run}"),
                reason: error.to_string(),
            })?;
            all.extend(entries);
        }
        runs.push((run, all));
    }
    Ok(Ledger::fold(
        runs.iter().map(|(run, entries)| (*run, entries.as_slice())),
    ))
}
