//! The doors for people: start a run, look at it. What they do with runs that are over is in [`crate::repair`].

use crate::configure::{Actor, ROUTING_TRIES};
use crate::repair::{BulkPreview, PreparedReplay, audit};
use crate::service::{Core, Orchestrator};
use crate::snapshot::{Snapshot, SnapshotError, Workflow};
use crate::start::Start;
use crate::turns;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_storage::{
    AcceptOutcome, Dedupe, EventRow, Fact, FactOutcome, ReadError, RunRow, RunStatus, WaitingFor, WriteError,
};
use weir_workflow_engine::{
    Ending, Entry, EventId, EventSource, Ledger, Problem, RunId, StepNames, StoryStep, Timestamp, Trigger, WorkspaceId,
    decode, may_hide_an_item, story, tell_family,
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
    #[error("the run cannot be replayed: {why}{}", brackets(quoted.as_deref()))]
    NotReplayable {
        /// Why.
        why: String,
        /// What went wrong in particular; it may quote contents of events, so not everybody may see it.
        quoted: Option<String>,
    },
    /// It was replayed before.
    #[error("{by} repeated it already and is {}", .status.as_str())]
    AlreadyReplayed {
        /// The last run that repeated it.
        by: RunId,
        /// Where that stands.
        status: RunStatus,
    },
    /// The idempotency key stands for a start with another input.
    #[error("another input was started with this idempotency key, as {first}")]
    KeyReused {
        /// The event of that start.
        first: EventId,
    },
    /// Nothing can be said about this effect.
    #[error("the effect cannot be resolved: {why}")]
    NotResolvable {
        /// Why.
        why: String,
    },
    /// What the replay would do is no longer what was shown.
    #[error("what the replay would do has changed since it was shown")]
    PreviewChanged(Box<PreparedReplay>),
    /// What the replays of many runs would do is no longer what was shown.
    #[error("what the replays would do has changed since it was shown")]
    BulkChanged(Box<BulkPreview>),
    /// The database cannot be read or written now; try again later.
    #[error("{0}")]
    Unavailable(String),
}

/// A particular behind a message.
pub(crate) fn brackets(quoted: Option<&str>) -> String {
    quoted.map(|quoted| format!(" ({quoted})")).unwrap_or_default()
}

impl ControlError {
    /// This run cannot be replayed, for a reason that quotes nothing.
    pub(crate) fn not_replayable(why: impl Into<String>) -> Self {
        Self::NotReplayable {
            why: why.into(),
            quoted: None,
        }
    }
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

/// What became of an attempt to start a run.
enum Attempt {
    Started(StartedRun),
    /// The configuration has changed to this revision meanwhile.
    Outdated {
        revision: i64,
    },
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
    /// How people call its steps.
    pub names: StepNames,
    /// What it waits for before it starts.
    pub waiting_for: Option<WaitingFor>,
    /// The run that stands for its event instead of it.
    pub merged_into: Option<RunId>,
}

impl Orchestrator {
    /// Starts a workflow with `input` as its event's body. Any published workflow can be started; one with a manual
    /// trigger has its input checked.
    ///
    /// With an `idempotency_key`, a second call with the same key and input starts nothing and gives the first event.
    ///
    /// # Errors
    /// [`ControlError::KeyReused`] when the key was used with another input. See [`ControlError`].
    pub async fn run_start(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        workflow: &str,
        input: Value,
        idempotency_key: Option<String>,
    ) -> Result<StartedRun, ControlError> {
        for _ in 0..ROUTING_TRIES {
            let snapshot = self.snapshot();
            let workflow = snapshot.workflow(workspace, workflow).ok_or(ControlError::NotFound)?;
            let (input, key) = (input.clone(), idempotency_key.clone());
            match self
                .run_start_by(&snapshot, workspace, actor, workflow, input, key)
                .await?
            {
                Attempt::Started(run) => return Ok(run),
                Attempt::Outdated { revision } => {
                    let unread = || ControlError::Unavailable("the changed configuration cannot be read".to_owned());
                    self.at_least(revision).await.ok_or_else(unread)?;
                }
            }
        }
        Err(ControlError::Unavailable("the configuration keeps changing".to_owned()))
    }

    async fn run_start_by(
        &self,
        snapshot: &Snapshot,
        workspace: WorkspaceId,
        actor: &Actor,
        workflow: &Arc<Workflow>,
        input: Value,
        idempotency_key: Option<String>,
    ) -> Result<Attempt, ControlError> {
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
        // What a schedule is started with has its time in it.
        let asked = match version.plan.trigger() {
            Trigger::Schedule(_) => None,
            Trigger::Manual { .. } | Trigger::Event { .. } => Some(start.input.clone()),
        };
        let (mut started, run) = start.prepare(&self.core, snapshot)?;
        let detail = json!({ "event": uid.to_string(), "workflow": workflow.row.name });
        let told = audit(
            &self.core,
            workspace,
            actor,
            now,
            ("run.start", run.to_string(), detail),
        );
        started.audit = Some(Box::new(told));
        tracing::info!(actor = %actor.name, workflow.name = %workflow.row.name, "run of `{}` started by {}", workflow.row.name, actor.name);
        let pending = self
            .writer()
            .submit(Fact::Accept(started))
            .map_err(|full| ControlError::Unavailable(full.to_string()))?;
        match pending.await {
            Ok(FactOutcome::Accepted(AcceptOutcome::New)) => Ok(Attempt::Started(StartedRun {
                run: Some(run),
                event: uid,
                replayed: false,
            })),
            Ok(FactOutcome::Accepted(AcceptOutcome::Duplicate { of })) => {
                if let (Some(asked), Some(first)) = (asked, self.core.store.event_load(workspace, of).await?)
                    && serde_json::from_slice::<Value>(&first.row.body).is_ok_and(|first| first != asked)
                {
                    return Err(ControlError::KeyReused { first: of });
                }
                let first = self
                    .core
                    .store
                    .event_runs(workspace, of)
                    .await?
                    .first()
                    .map(|run| run.id);
                Ok(Attempt::Started(StartedRun {
                    run: first,
                    event: of,
                    replayed: true,
                }))
            }
            Err(WriteError::Outdated { revision }) => Ok(Attempt::Outdated { revision }),
            Ok(other) => Err(ControlError::Unavailable(format!("the writer answered with {other:?}"))),
            Err(error) => Err(ControlError::Unavailable(error.to_string())),
        }
    }

    /// Why a run failed, as its message says. `None`: it did not fail, or its journal does not tell.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn run_error(&self, workspace: WorkspaceId, row: &RunRow) -> Result<Option<String>, ControlError> {
        let Some(code) = row.error_code.as_deref() else {
            return Ok(None);
        };
        // People decide about effects behind the end of a run.
        let end = self.core.store.journal_end(workspace, row.id, ROWS_OF_AN_END).await?;
        let mut told = ending(&end);
        if told.is_none() && end.first().is_some_and(|(seq, _)| *seq > 0) {
            told = ending(&self.core.store.journal_load(workspace, row.id).await?);
        }
        Ok(told.or_else(|| turns::why_not_begun(code).map(str::to_owned)))
    }

    /// What tells the steps of a run as people name them.
    ///
    /// # Errors
    /// The database does not answer, or the journal cannot be read.
    pub async fn step_names(&self, workspace: WorkspaceId, run: RunId) -> Result<StepNames, ControlError> {
        let mut names = StepNames::default();
        for (seq, body) in self.core.store.journal_load(workspace, run).await? {
            let (_, entries) = decode(&body).map_err(|error| unreadable(run, seq, &error))?;
            entries.iter().for_each(|entry| names.note(entry));
        }
        Ok(names)
    }

    /// The step of a run at this path as people name it, for a list: of a long run only the ends of its journal are read,
    /// where the list of the item mostly stands. What is not found there keeps its path; the run's story has its name.
    ///
    /// # Errors
    /// The database does not answer, or the journal cannot be read.
    pub async fn step_name(&self, workspace: WorkspaceId, run: RunId, path: &str) -> Result<String, ControlError> {
        let store = &self.core.store;
        let mut names = StepNames::default();
        let mut note = |rows: Vec<(i32, Vec<u8>)>| {
            for (seq, body) in rows {
                let (_, entries) = decode(&body).map_err(|error| unreadable(run, seq, &error))?;
                entries.iter().for_each(|entry| names.note(entry));
            }
            Ok::<_, ControlError>(names.name(path))
        };
        let end = store.journal_end(workspace, run, ROWS_OF_AN_END).await?;
        let is_short = end.last().is_none_or(|(seq, _)| *seq < ROWS_FOR_A_NAME);
        let mut name = note(end)?;
        if may_hide_an_item(&name) {
            name = note(match is_short {
                true => store.journal_load(workspace, run).await?,
                false => store.journal_begin(workspace, run, ROWS_OF_AN_END).await?,
            })?;
        }
        Ok(name)
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
        let mut names = StepNames::default();
        let entries = decoded.iter().flat_map(|(_, _, entries)| entries);
        entries.for_each(|entry| names.note(entry));
        let waiting_for = match row.status {
            RunStatus::Queued => self.core.store.run_waiting_for(workspace, run).await?,
            _ => None,
        };
        let merged_into = match row.status {
            RunStatus::Merged => self.core.store.run_merged_into(run).await?,
            _ => None,
        };
        let retried_at = row.replay_of.map(|_| row.started_at);
        let mut steps = story(Some(&version.plan), &decoded, retried_at);
        let is_unknown = |step: &StoryStep| step.effect.as_ref().is_some_and(|effect| effect.state == "unknown");
        if steps.iter().any(is_unknown) {
            // Its class, and what a person said about it, may stand in the journal of another run of the family.
            let ledger = family_ledger(&self.core, workspace, row.root_id, None).await?;
            tell_family(&mut steps, &ledger);
        }
        Ok(Some(RunStory {
            workflow: version.plan.name().to_owned(),
            version: version.number,
            event: event.row,
            run: row,
            steps,
            names,
            waiting_for,
            merged_into,
        }))
    }
}

/// More than what people usually say about effects behind the end of a run.
const ROWS_OF_AN_END: u32 = 4;
/// Journals with fewer rows are read whole for the name of a step.
const ROWS_FOR_A_NAME: i32 = 32;

/// The message of the end that these rows tell; that of a run whose journal cannot be read says so.
fn ending(rows: &[(i32, Vec<u8>)]) -> Option<String> {
    rows.iter().find_map(|(seq, body)| match decode(body) {
        Ok((_, entries)) => entries.iter().find_map(failure_message),
        Err(error) => Some(format!("row {seq} of its journal cannot be read: {error}")),
    })
}

fn unreadable(run: RunId, seq: i32, why: &impl std::fmt::Display) -> ControlError {
    ControlError::Unavailable(format!("journal row {seq} of {run} cannot be read: {why}"))
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
