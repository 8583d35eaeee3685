//! Replays: the same event again, from the start or from a step, on the same version or the live one, with the event as
//! it was or as a person edited it.
//!
//! No replay begins before somebody has seen what it would do: the preview gives a confirmation that is only good as
//! long as the ledger, the version and the plan behind it are the same.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use weir_storage::{CopiedEvent, Dedupe, Operation, RunCommit, RunOwner, RunRow, RunStatus, StoredEvent};
use weir_workflow_engine::{
    Document, Entry, Event, EventId, EventSource, Ledger, Past, Plan, PreviewEffect, ReplayPreview, Restart,
    RestartError, RunHead, RunId, RunState, Timestamp, Turn, WorkspaceId, encode, restart,
};

use super::rehearse::Stage;
use super::{Family, Refused, audit, write};
use crate::configure::Actor;
use crate::control::ControlError;
use crate::driver::{ActiveRun, First, WHERE_FAILED};
use crate::ingest::accept::new_run;
use crate::recovery::restore_event;
use crate::retention;
use crate::route;
use crate::runner;
use crate::service::Orchestrator;
use crate::snapshot::Version;
use crate::turns;

/// Most runs in a family: each of them is read before the next one is started.
///
/// Limit: runs of one event and workflow, replays included | a further replay is refused, `NOT_REPLAYABLE` | `an_event_is_replayed_so_many_times`
pub const MAX_FAMILY: usize = 100;

/// Where a replay begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ReplayFrom {
    /// At the failed step of a run that failed, otherwise at the start.
    #[default]
    Automatic,
    /// At the start: reads are made again.
    Start,
    /// At the step at fault; at the start when it was a follow-up read or no step.
    FailedStep,
    /// At the step with this path.
    Step(String),
}

/// Which version a replay runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReplayVersion {
    /// The one that the run was pinned to.
    #[default]
    Pinned,
    /// The one that is published now.
    Live,
}

/// How a run is to be replayed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplayOptions {
    /// Where it begins.
    pub from: ReplayFrom,
    /// On which version.
    pub version: ReplayVersion,
    /// What stands in the place of the event's body; the event's id, type, object and account stay as they are.
    pub body: Option<Value>,
    /// Also when another run has repeated it already.
    pub again: bool,
}

/// What a replay would do, and the word that starts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedReplay {
    /// What it would do.
    pub preview: ReplayPreview,
    /// Path of the step that it would begin at; `None` for the start.
    pub from: Option<String>,
    /// What it would take over: paths of steps, `hydrate.<read>` for reads.
    pub kept: Vec<String>,
    /// Number of the version that it would run on.
    pub version: u32,
    /// The last run that repeated it, or another run of its family after it, and where that stands.
    pub replaced_by: Option<(RunId, RunStatus)>,
    /// To be handed to [`Orchestrator::replay`].
    pub confirm: String,
}

/// A replay that can be started.
pub(super) struct Ready {
    pub(super) prepared: PreparedReplay,
    active: ActiveRun,
    operation: Operation,
}

impl Ready {
    /// The run that it would be.
    pub(super) fn id(&self) -> RunId {
        self.active.state.head().id
    }
}

impl Orchestrator {
    /// Says what a replay of `run` would do. Writes nothing, calls nobody.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn replay_preview(
        &self,
        workspace: WorkspaceId,
        run: RunId,
        options: &ReplayOptions,
    ) -> Result<PreparedReplay, ControlError> {
        self.prepare(workspace, run, options).await.map(|ready| ready.prepared)
    }

    /// Replays a run. `confirm` comes from the preview with the same options.
    ///
    /// # Errors
    /// [`ControlError::PreviewChanged`] with the new preview when it would now do something else than was shown;
    /// [`ControlError::AlreadyReplayed`] when it was replayed before, and `again` is not set.
    pub async fn replay(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        run: RunId,
        options: &ReplayOptions,
        confirm: &str,
    ) -> Result<RunId, ControlError> {
        // One after the other: what the second would do depends on what the first does.
        let _one_at_a_time = self.core.replaying.lock().await;
        let ready = self.prepare(workspace, run, options).await?;
        if ready.prepared.confirm != confirm {
            return Err(ControlError::PreviewChanged(Box::new(ready.prepared)));
        }
        if let Some((by, status)) = ready.prepared.replaced_by.filter(|_| !options.again) {
            return Err(ControlError::AlreadyReplayed { by, status });
        }
        self.start_replay(workspace, actor, run, ready, Operation::default())
            .await
            .map_err(|refused| match refused {
                Refused::Stale => ControlError::not_replayable("another replay of it was started at the same moment"),
                Refused::Other(error) => error,
            })
    }

    /// Starts what was prepared, together with what `with` holds.
    pub(super) async fn start_replay(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        run: RunId,
        ready: Ready,
        with: Operation,
    ) -> Result<RunId, Refused> {
        let Ready {
            prepared,
            active,
            mut operation,
        } = ready;
        let id = active.state.head().id;
        let detail = json!({
            "run": id.to_string(), "from": prepared.from, "version": prepared.version,
            "edited": operation.event.is_some(),
        });
        let now = active.state.head().started_at;
        operation.audit = vec![audit(
            &self.core,
            workspace,
            actor,
            now,
            ("run.replay", run.to_string(), detail),
        )];
        operation.bulk = with.bulk;
        operation.audit.extend(with.audit);
        let owner = operation.starts.first().map(|run| run.owner);
        let held = write(&self.core, operation).await?;
        tracing::info!(actor = %actor.name, run.id = %id, replay_of = %run, "run {run} replayed as {id} by {}", actor.name);
        if !held.contains(&id) && owner == Some(RunOwner::ThisNode) {
            runner::launch(&self.core, active);
        }
        Ok(id)
    }

    /// Decides what a replay would be.
    pub(super) async fn prepare(
        &self,
        workspace: WorkspaceId,
        run: RunId,
        options: &ReplayOptions,
    ) -> Result<Ready, ControlError> {
        let core = &self.core;
        let not_replayable = |why: String| ControlError::not_replayable(why);
        let stored = core.store.run_load(workspace, run).await?;
        let stored = stored.ok_or(ControlError::NotFound)?;
        let family = Family::load(core, workspace, stored.root_id).await?;
        let member = family.member(run).ok_or(ControlError::NotFound)?;
        if let Some(open) = family.open() {
            return Err(not_replayable(if open == run {
                "it is not over yet".to_owned()
            } else {
                format!("{open} of the same event is not over yet")
            }));
        }
        if family.runs.len() >= MAX_FAMILY {
            return Err(not_replayable(format!("its event was replayed {MAX_FAMILY} times")));
        }
        if stored.status == RunStatus::Merged {
            let into = core.store.run_merged_into(run).await?;
            let into = into.map_or_else(|| "another run".to_owned(), |run| run.to_string());
            let why = format!("it never began: {into} stands for its event; replay that one");
            return Err(not_replayable(why));
        }
        let original = core.store.event_load(workspace, stored.event_id).await?;
        let original = original.ok_or_else(|| not_replayable("its event is no longer stored".to_owned()))?;
        let now = self.clock().now();
        // A replay with an edited event goes when the event of the first run goes.
        let first = family
            .member(stored.root_id)
            .map_or(stored.event_id, |first| first.row.event_id);
        let all = core.store.event_runs(workspace, first).await?;
        let stands: Vec<_> = all.iter().map(|run| (run.status, run.finished_at)).collect();
        if retention::is_leaving(&core.settings.retention, original.row.received_at, &stands, now) {
            let why = "the time is over for which its event and journal are kept (keep_runs_days, keep_failed_days)";
            return Err(not_replayable(why.to_owned()));
        }
        let snapshot = self.snapshot();
        let pinned = snapshot
            .version(&core.store, workspace, stored.workflow_id, stored.version_id)
            .await?;
        let version = match options.version {
            ReplayVersion::Pinned => Arc::clone(&pinned),
            ReplayVersion::Live => {
                let workflow = snapshot.workflow_by_id(workspace, stored.workflow_id);
                let live = workflow.and_then(|workflow| workflow.published.clone());
                live.ok_or_else(|| not_replayable("its workflow has no published version any more".to_owned()))?
            }
        };
        let copied = match &options.body {
            None => None,
            Some(body) => Some(self.edited(&original, &version, body, now)?),
        };
        let event_row = copied.as_ref().map_or(&original.row, |copied| &copied.event);
        let traceparent = event_row.traceparent.clone();
        let mut event = restore_event(&snapshot, event_row).map_err(ControlError::Unavailable)?;
        if version.plan.is_batched() {
            if copied.is_some() {
                let why = "it ran on a batch of events, which cannot be edited as one".to_owned();
                return Err(not_replayable(why));
            }
            let others = turns::batch_of(core, &snapshot, &stored, event.uid).await?;
            event = event.with_batch(&others);
        }
        // Whether the event starts the workflow at all was never answered for this run.
        if stored.error_code.as_deref() == Some(WHERE_FAILED) {
            let mut asked = event.clone();
            if copied.is_some() {
                // An edited body changes nothing about how the event came.
                let first = restore_event(&snapshot, &original.row).map_err(ControlError::Unavailable)?;
                (asked.source, asked.endpoint) = (first.source, first.endpoint);
            }
            let wanted = route::filter(&snapshot, workspace, &version, &asked, now);
            let number = version.number;
            match wanted {
                Ok(true) => {}
                Ok(false) => return Err(not_replayable(not_wanted(number))),
                Err(error) => {
                    let what = format!("the `where` of version {number} cannot be evaluated");
                    return Err(cannot_begin(&what, error.to_string()));
                }
            }
        }
        let turn = turns::of_replay(&snapshot, workspace, &version, &event, now).map_err(|refused| {
            let what = format!("the flow control of version {} fails", version.number);
            cannot_begin(&what, refused.message)
        })?;
        let ledger = family.ledger();
        let parts = Parts {
            id: RunId::from_raw(core.new_id(now)),
            run: &stored,
            recorded: &member.entries,
            dedupe: &original.dedupe,
            pinned: &pinned.plan,
            version: Arc::clone(&version),
            event,
            turn,
            traceparent,
            now,
        };
        let Assembled {
            active,
            journal,
            from,
            taken,
        } = assemble(parts, &ledger, &options.from)?;
        let past = Past {
            recorded: &member.entries,
            kept: &taken.entries,
            replaced: None,
        };
        let stage = Stage {
            core,
            snapshot: &snapshot,
            now,
        };
        let (head, event) = (active.state.head(), active.state.event());
        let shown = stage.rehearse((&version.plan, head, event), &ledger, past).await?;
        let confirm = confirmation((&shown, &from, options), version.id.as_raw(), run, family.runs.len());
        let later = family.runs.iter().rev().find(|member| member.row.id > run);
        let replaced_by = later.map(|member| (member.row.id, member.row.status));
        let number = version.number;
        let owner = core.new_run_owner();
        let operation = Operation {
            family: Some(family.expected()),
            event: copied.map(Box::new),
            starts: vec![new_run(&active, owner)],
            journal,
            ..Operation::default()
        };
        Ok(Ready {
            prepared: PreparedReplay {
                preview: shown,
                from,
                kept: taken.steps,
                version: number,
                replaced_by,
                confirm,
            },
            active,
            operation,
        })
    }

    /// The event with another body. It stands beside the original, which never changes.
    fn edited(
        &self,
        original: &StoredEvent,
        version: &Version,
        body: &Value,
        now: Timestamp,
    ) -> Result<CopiedEvent, ControlError> {
        let document = Document::from_value(body.clone());
        let limit = self.settings().max_body_bytes;
        if document.raw().len() > limit {
            let why = format!(
                "the edited event has {} bytes, and the limit is {limit}",
                document.raw().len()
            );
            return Err(ControlError::not_replayable(why));
        }
        version
            .plan
            .trigger()
            .check_input(document.value())
            .map_err(ControlError::Invalid)?;
        Ok(copy_of(original, EventId::from_raw(self.core.new_id(now)), &document))
    }
}

/// The same event with another body, as the event with this id.
pub(crate) fn copy_of(original: &StoredEvent, id: EventId, body: &Document) -> CopiedEvent {
    let mut event = original.row.clone();
    event.id = id;
    event.endpoint = None;
    event.source = EventSource::Manual;
    event.body = Bytes::copy_from_slice(body.raw().as_bytes());
    CopiedEvent {
        event,
        dedupe: original.dedupe.clone(),
    }
}

/// What a replay is made of.
pub(crate) struct Parts<'a> {
    /// Its id.
    pub(crate) id: RunId,
    /// The run that it repeats.
    pub(crate) run: &'a RunRow,
    /// What that one did.
    pub(crate) recorded: &'a [Entry],
    /// What makes its event the same as others.
    pub(crate) dedupe: &'a Dedupe,
    /// What that one ran on.
    pub(crate) pinned: &'a Plan,
    /// What it runs on.
    pub(crate) version: Arc<Version>,
    /// Its event, edited or not.
    pub(crate) event: Event,
    /// What it has to pass.
    pub(crate) turn: Option<Box<Turn>>,
    pub(crate) traceparent: Option<String>,
    pub(crate) now: Timestamp,
}

/// A replay that can be stored and driven.
pub(crate) struct Assembled {
    pub(crate) active: ActiveRun,
    /// What it takes over, as its first journal row; none when it begins at the start.
    pub(crate) journal: Vec<RunCommit>,
    /// The step that it begins at; `None` for the start.
    pub(crate) from: Option<String>,
    /// What it takes over.
    pub(crate) taken: Restart,
}

/// Makes a replay. `ledger`: what its family did.
///
/// # Errors
/// It cannot begin there.
pub(crate) fn assemble(parts: Parts<'_>, ledger: &Ledger, from: &ReplayFrom) -> Result<Assembled, ControlError> {
    let Parts {
        id,
        run,
        recorded,
        dedupe,
        pinned,
        version,
        event,
        turn,
        traceparent,
        now,
    } = parts;
    let event = Arc::new(event);
    let head = RunHead {
        id,
        root_id: run.root_id,
        replay_of: Some(run.id),
        workspace: run.workspace,
        workflow: run.workflow_id,
        workflow_name: version.plan.name().to_owned(),
        version: version.id,
        version_number: version.number,
        dedupe_scope: dedupe.scope.clone(),
        dedupe_key: dedupe.key.clone(),
        started_at: now,
    };
    let begin = |from: &str| restart((pinned, &version.plan), &head, &event, recorded, from);
    let (from, taken) = begin_at(run, from, begin)?;
    let mut state = RunState::new(head, event, &version.plan).with_ledger(ledger.clone());
    taken.entries.iter().for_each(|entry| state.fold(entry));
    let journal: Vec<RunCommit> = match taken.entries.is_empty() {
        true => Vec::new(),
        false => vec![RunCommit {
            run: id,
            seq: 0,
            journal: encode(&taken.entries, now),
            update: None,
            mail: None,
            leaves: None,
        }],
    };
    let active = ActiveRun {
        turn,
        state,
        version,
        next_seq: i32::from(!taken.entries.is_empty()),
        first: First::Started,
        asleep: false,
        mail: Vec::new(),
        refused: None,
        traceparent,
    };
    Ok(Assembled {
        active,
        journal,
        from,
        taken,
    })
}

/// Why a replay would end before it begins, and what helps.
fn cannot_begin(what: &str, error: String) -> ControlError {
    ControlError::NotReplayable {
        why: format!(
            "it would fail before it begins, and nothing would be sent: {what}; mend the workflow and replay on the live \
             version, or edit the event"
        ),
        quoted: Some(error),
    }
}

/// Why an event starts no run of this version.
fn not_wanted(version: u32) -> String {
    format!(
        "the `where` of version {version} is false for its event, so there is nothing to do; mark the dead letter as \
         ignored"
    )
}

/// The step that a replay begins at, and what it takes over. No step: the start.
fn begin_at(
    run: &RunRow,
    from: &ReplayFrom,
    begin: impl Fn(&str) -> Result<Restart, RestartError>,
) -> Result<(Option<String>, Restart), ControlError> {
    let start = (None, Restart::default());
    let failed = run.status == RunStatus::Failed;
    let step = match from {
        ReplayFrom::Start => return Ok(start),
        ReplayFrom::Automatic if !failed => return Ok(start),
        ReplayFrom::FailedStep if !failed => {
            return Err(ControlError::not_replayable(
                "it did not fail, so there is no failed step to begin at",
            ));
        }
        ReplayFrom::Automatic | ReplayFrom::FailedStep => match &run.error_step {
            Some(step) if !step.starts_with("hydrate.") => step,
            // A follow-up read failed, or the run as a whole: everything is done again.
            Some(_) | None => return Ok(start),
        },
        ReplayFrom::Step(step) => step,
    };
    let chosen = matches!(from, ReplayFrom::Step(_));
    match begin(step) {
        Ok(restart) => Ok((Some(step.clone()), restart)),
        Err(RestartError::TakesCare { around, .. }) if !chosen => match around {
            Some(around) => match begin(around.as_str()) {
                Ok(restart) => Ok((Some(around), restart)),
                Err(error) => Err(ControlError::not_replayable(error.to_string())),
            },
            None => Ok(start),
        },
        Err(error) => Err(ControlError::not_replayable(error.to_string())),
    }
}

/// What was shown, in one word: changes when anything shown changes, and with every replay, so that it is good for one.
///
/// The keys of effects that would be sent are left out: a request may hold the id of its run or the time of its start,
/// and no two runs have the same.
fn confirmation(
    (preview, from, options): (&ReplayPreview, &Option<String>, &ReplayOptions),
    version: i64,
    run: RunId,
    family: usize,
) -> String {
    let body = options.body.as_ref().map(Value::to_string);
    let effect = |effect: &PreviewEffect| {
        let PreviewEffect {
            step,
            connector,
            operation,
            class,
            key,
            changed,
            undone,
            sends,
            on_reads: _,
        } = effect;
        let key = (!sends).then_some(key);
        format!("{step} {connector}.{operation} {class} {key:?} {changed} {undone} {sends}")
    };
    let effects = |effects: &[PreviewEffect]| effects.iter().map(effect).collect::<Vec<_>>();
    let ReplayPreview {
        reads,
        answered,
        new,
        unknown,
        note,
        in_part,
        // `note` says it, too.
        fails: _,
        names: _,
    } = preview;
    let (answered, new, unknown) = (effects(answered), effects(new), effects(unknown));
    let shown = format!("{reads:?} {answered:?} {new:?} {unknown:?} {note:?} {in_part}");
    let digest = Sha256::digest(format!("{run} {family} {version} {from:?} {body:?} {shown}").as_bytes());
    hex::encode(digest.get(..8).unwrap_or_default())
}
