//! The clock as a source of events: fires what is planned, through the same door as webhooks.
//!
//! The next instants are in memory, made from the snapshot; a timer wakes the loop, and idling asks the database nothing.
//! Where a schedule stands moves only in the fact that stores the event of the instant, so a crash repeats nothing and
//! loses nothing. Several nodes fire the same instant: its dedupe key is the instant, and one of them stores it.

mod standing;

use crate::control::ControlError;
use crate::ingest::accept::{Arrival, Door, accept_fact, start_runs};
use crate::route::Match;
use crate::service::{Core, Orchestrator};
use crate::snapshot::{Snapshot, Version, Workflow};
use bytes::Bytes;
use serde_json::Value;
use standing::{Standing, Step};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use weir_connector_sdk::Identified;
use weir_storage::{AcceptOutcome, Accepted, Dedupe, Fact, FactOutcome, Pending, WorkflowState, WriteError};
use weir_workflow_engine::{Document, EventSource, Problem, Schedule, Timestamp, Trigger, WorkflowId};

/// The name that stands for the connector in events of schedules.
pub(crate) const CONNECTOR: &str = "schedule";
/// The longest sleep of the loop: a clock that was set, or a machine that slept, is noticed after it.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Pause before an instant that could not be stored is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How far a schedule may stand in the future before that is worth a warning.
const FUTURE_TOLERANCE: Duration = Duration::from_secs(60);

/// Where the schedules of published workflows stand, as this node knows.
#[derive(Default)]
pub(crate) struct Schedules {
    standings: Mutex<BTreeMap<WorkflowId, Standing>>,
    /// The configuration is another one now.
    pub(crate) changed: Notify,
}

/// An instant on its way to the database.
struct Firing {
    workflow: WorkflowId,
    planned: Timestamp,
    pending: Pending,
}

impl Schedules {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<WorkflowId, Standing>) -> T) -> T {
        act(&mut self.standings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The planned instant that fired last. `None`: none did, or the workflow has no schedule.
    pub(crate) fn fired_for(&self, workflow: WorkflowId) -> Option<Timestamp> {
        self.with(|standings| standings.get(&workflow).and_then(Standing::fired_for))
    }

    /// Up to when nothing is planned any more. `None`: the workflow has no schedule.
    pub(crate) fn settled(&self, workflow: WorkflowId) -> Option<Timestamp> {
        self.with(|standings| standings.get(&workflow).map(Standing::settled))
    }

    /// Takes over what a new snapshot says; what this node has fired since it was read is kept.
    fn take_over(&self, snapshot: &Snapshot, now: Timestamp) {
        self.with(|standings| {
            let mut fresh = BTreeMap::new();
            for (workflow, version) in snapshot.scheduled() {
                let id = workflow.row.id;
                let Some(row) = snapshot.schedule_row(id) else {
                    tracing::error!(workflow.name = %workflow.row.name, "nothing says since when the schedule of `{}` holds; publish it again", workflow.row.name);
                    continue;
                };
                let known = standings.remove(&id);
                let is_new = known.is_none();
                let standing = Standing::new(Arc::clone(workflow), Arc::clone(version), row, known);
                let ahead = standing.settled().since(now);
                if is_new && ahead > FUTURE_TOLERANCE {
                    tracing::warn!(
                        workflow.name = %workflow.row.name,
                        "the schedule of `{}` fired for {} already: the clock must have been ahead, and nothing fires before it is there again",
                        workflow.row.name, standing.settled(),
                    );
                }
                fresh.insert(id, standing);
            }
            *standings = fresh;
        });
    }

    /// How long nothing is due.
    fn rest(&self, now: Timestamp) -> Duration {
        let next = self.with(|standings| standings.values().filter_map(Standing::next).min());
        next.map_or(LONGEST_SLEEP, |next| next.since(now).min(LONGEST_SLEEP))
    }
}

/// Fires until the process stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut revision = None;
    loop {
        let snapshot = core.snapshot.load_full();
        let now = core.clock.now();
        if revision != Some(snapshot.revision()) {
            core.schedules.take_over(&snapshot, now);
            revision = Some(snapshot.revision());
        }
        let rest = match round(&core, &snapshot, now).await {
            Round::Done => core.schedules.rest(core.clock.now()),
            Round::Later => RETRY,
        };
        tokio::select! {
            biased;
            () = core.stopping.cancelled() => return,
            () = core.schedules.changed.notified() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

enum Round {
    /// What could be fired is fired.
    Done,
    /// Something could not be stored now.
    Later,
}

/// Fires one instant of each schedule that is due. The instants of one schedule follow each other, each committed
/// before the next: otherwise one that fails would be passed by its successor.
async fn round(core: &Arc<Core>, snapshot: &Snapshot, now: Timestamp) -> Round {
    let due: Vec<WorkflowId> = core.schedules.with(|standings| {
        let due = standings
            .iter()
            .filter(|(_, standing)| standing.next().is_some_and(|next| next <= now));
        due.map(|(id, _)| *id).collect()
    });
    if due.is_empty() {
        return Round::Done;
    }
    if core.runs.backlog_is_full() || core.queued.is_full() {
        // Webhooks get 503 for the same reason.
        return Round::Later;
    }
    let mut round = Round::Done;
    let mut firing = Vec::with_capacity(due.len());
    for id in due {
        let step = match plan(core, id, now).await {
            Ok(step) => step,
            Err(error) => {
                tracing::warn!("where a schedule stands cannot be read, trying again: {error}");
                round = Round::Later;
                continue;
            }
        };
        let Some(step) = step else { continue };
        match submit(core, snapshot, &step, now) {
            Some(pending) => firing.push(Firing {
                workflow: id,
                planned: step.planned,
                pending,
            }),
            None => round = Round::Later,
        }
    }
    let mut outdated = None;
    for Firing {
        workflow,
        planned,
        pending,
    } in firing
    {
        match pending.await {
            Err(WriteError::Outdated { revision }) => outdated = outdated.max(Some(revision)),
            outcome => {
                if !settle(core, workflow, planned, outcome) {
                    round = Round::Later;
                }
            }
        }
    }
    if let Some(revision) = outdated {
        // The workflow may have another version, other times or none now.
        let orchestrator = Orchestrator { core: Arc::clone(core) };
        if orchestrator.at_least(revision).await.is_none() {
            round = Round::Later;
        }
    }
    round
}

/// What is to be fired next. More than one instant at once, or a missed one, is looked up first: another node may have
/// been awake.
async fn plan(core: &Core, id: WorkflowId, now: Timestamp) -> Result<Option<Step>, weir_storage::ReadError> {
    let unclear = core.schedules.with(|standings| {
        let standing = standings.get(&id)?;
        standing.is_behind(now).then(|| standing.workspace())
    });
    if let Some(workspace) = unclear {
        let row = core.store.schedule_load(workspace, id).await?;
        if let Some(row) = row {
            core.schedules.with(|standings| {
                if let Some(standing) = standings.get_mut(&id) {
                    standing.catch_up_with(&row);
                }
            });
        }
    }
    Ok(core.schedules.with(|standings| standings.get_mut(&id)?.step(now)))
}

/// Hands the event of an instant to the writer. `None`: there is no room now.
fn submit(core: &Arc<Core>, snapshot: &Snapshot, step: &Step, now: Timestamp) -> Option<Pending> {
    let fact = fact(core, snapshot, step, now)?;
    match core.writer.submit(fact) {
        Ok(pending) => Some(pending),
        Err(full) => {
            tracing::warn!(workflow.name = %step.workflow.row.name, "`{}` cannot be fired for {} yet: {full}", step.workflow.row.name, step.planned);
            None
        }
    }
}

fn fact(core: &Arc<Core>, snapshot: &Snapshot, step: &Step, now: Timestamp) -> Option<Fact> {
    let Trigger::Schedule(schedule) = step.version.plan.trigger() else {
        return None;
    };
    let (workspace, name) = (step.workflow.row.workspace, &step.workflow.row.name);
    let uid = core.new_event_id(now);
    let key = step.planned.to_string();
    let body = Document::from_value(schedule.event_data(step.planned, step.previous, step.missed));
    let raw = Bytes::copy_from_slice(body.raw().as_bytes());
    let dedupe = Dedupe {
        scope: format!("schedule/{name}"),
        key: key.clone(),
        anchored_at: Some(step.planned),
    };
    let headers = BTreeMap::new();
    let arrival = Arrival {
        door: Door {
            workspace,
            connector: CONNECTOR,
            connection: None,
            endpoint: None,
            source: EventSource::Schedule,
        },
        unit: unit(name, key, step.planned),
        document: &body,
        raw: &raw,
        headers: &headers,
        traceparent: None,
        now,
    };
    let (mut event, mut row) = arrival.event(uid);
    event.scheduled_for = Some(step.planned);
    row.scheduled_for = Some(step.planned);
    let found = Match {
        workflow: Arc::clone(&step.workflow),
        version: Arc::clone(&step.version),
        failure: None,
    };
    let started = start_runs(
        (&core.ids, snapshot),
        &Arc::new(event),
        &dedupe,
        vec![found],
        workspace,
        None,
        now,
    );
    // No step waits for an event that a clock made.
    Some(Fact::Accept(Accepted {
        fires: Some(step.workflow.row.id),
        ..accept_fact(core, snapshot, row, dedupe, Vec::new(), started)
    }))
}

fn unit(workflow: &str, id: String, planned: Timestamp) -> Identified {
    Identified {
        unit_pointer: String::new(),
        dedupe_key: id.clone(),
        id,
        id_from_provider: false,
        kind: workflow.to_owned(),
        time_unix_ms: Some(planned.as_unix_ms()),
        account: None,
        reference: None,
        data_pointer: String::new(),
        by_arrival: false,
        sequence: None,
        order_key: None,
        ignored: false,
    }
}

/// Takes note of what became of an instant; false when it has to be tried again.
fn settle(core: &Core, workflow: WorkflowId, planned: Timestamp, outcome: Result<FactOutcome, WriteError>) -> bool {
    let stored = match outcome {
        Ok(FactOutcome::Accepted(AcceptOutcome::New)) => {
            metrics::counter!("weir_events_accepted_total").increment(1);
            true
        }
        // Another node was faster, or this one did not hear of its own commit.
        Ok(FactOutcome::Accepted(AcceptOutcome::Duplicate { .. })) => true,
        Ok(other) => {
            tracing::error!("the writer answered an event with {other:?}");
            false
        }
        Err(WriteError::Refused(constraint)) => {
            tracing::error!("the event of the schedule of {workflow} for {planned} cannot be stored: {constraint}");
            core.schedules.with(|standings| {
                if let Some(standing) = standings.get_mut(&workflow) {
                    standing.give_up(planned);
                }
            });
            return true;
        }
        Err(WriteError::Fenced) => {
            core.lose_place();
            false
        }
        Err(WriteError::Unknown) => {
            // On disk or not: the next try tells, and the scan finds a run that was committed unseen.
            core.rescan.notify_one();
            false
        }
        Err(error @ (WriteError::Stale | WriteError::Outdated { .. } | WriteError::Unavailable)) => {
            tracing::warn!("the schedule of {workflow} cannot be fired for {planned} yet: {error}");
            false
        }
    };
    if stored {
        core.schedules.with(|standings| {
            if let Some(standing) = standings.get_mut(&workflow) {
                standing.fired(planned);
            }
        });
    }
    stored
}

/// What a scheduled workflow is given when somebody starts it: as if this moment were planned. An input that is given
/// stands in place of the schedule's own.
pub(crate) fn by_hand(
    core: &Core,
    workflow: &Workflow,
    schedule: &Schedule,
    input: &Value,
    now: Timestamp,
) -> Result<Document, ControlError> {
    let previous = core.schedules.fired_for(workflow.row.id);
    let mut data = schedule.event_data(now, previous, 0);
    match (input, data.as_object_mut()) {
        (Value::Object(given), Some(data)) if !given.is_empty() => {
            data.insert("input".to_owned(), input.clone());
        }
        (Value::Object(_) | Value::Null, _) => {}
        (_, _) => {
            return Err(ControlError::Invalid(vec![Problem::new(
                "",
                "wrong_type",
                "the input of a scheduled workflow is an object: it becomes `event.data.input`",
            )]));
        }
    }
    Ok(Document::from_value(data))
}

/// The next planned instants of a published workflow, at most `count`; none while it is paused or without a schedule.
#[must_use]
pub(crate) fn upcoming(core: &Core, workflow: &Workflow, count: usize) -> Vec<Timestamp> {
    let Some(schedule) = schedule_of(workflow) else {
        return Vec::new();
    };
    let now = core.clock.now();
    let after = core.schedules.settled(workflow.row.id).unwrap_or(now).max(now);
    schedule.upcoming(after, count)
}

fn schedule_of(workflow: &Workflow) -> Option<&Schedule> {
    let version: &Version = workflow.published.as_ref()?;
    match version.plan.trigger() {
        Trigger::Schedule(schedule) if workflow.row.state != WorkflowState::Paused => Some(schedule),
        Trigger::Schedule(_) | Trigger::Event { .. } | Trigger::Manual { .. } => None,
    }
}
