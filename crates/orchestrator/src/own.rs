//! What Weir carries out itself for a step: start another run, store an outgoing event, answer a caller.
//!
//! All three are keyed effects whose provider is our own database: done again under the same key they do nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use weir_storage::{AcceptOutcome, Dedupe, Fact, FactOutcome, Outgoing, Pending, ReadError, WorkflowState, WriteError};
use weir_workflow_engine::{
    CallCommand, CallFailure, CallOutcome, CallResult, Document, EffectKey, Event, EventId, EventSource, Origin,
    OutgoingId, Retry, RunHead, RunId, Sent, Timestamp, WorkspaceId,
};

use crate::answers::Answer;
use crate::configure::ROUTING_TRIES;
use crate::control::ControlError;
use crate::service::{Core, Orchestrator};
use crate::snapshot::Snapshot;
use crate::start::Start;

/// How deeply runs may start runs: a workflow that starts itself must end somewhere.
///
/// Limit: runs that started each other, one above the other | the step fails, `runs_too_deep` | `a_run_starts_another_once_and_hears_of_its_end`
pub const MAX_RUN_DEPTH: u32 = 16;
/// Names the run that started this one, among the headers of its event.
const PARENT_HEADER: &str = "weir-parent-run";
/// How many runs stand above this one, among the headers of its event.
const DEPTH_HEADER: &str = "weir-run-depth";
/// When a step is tried again that met a workflow which takes nothing now.
const PAUSED_RETRY: Duration = Duration::from_secs(60);

/// The run at work.
pub(crate) struct Parent {
    pub(crate) head: RunHead,
    pub(crate) event: Arc<Event>,
    pub(crate) traceparent: Option<String>,
}

/// Carries out what a step asks of Weir.
pub(crate) async fn perform(core: &Arc<Core>, parent: &Parent, call: &CallCommand) -> CallResult {
    let Some(effect) = &call.effect else {
        return failed(refused("internal_error", "the step has no key".to_owned()));
    };
    let done = match call.operation.as_str() {
        "run" => start(core, parent, call, effect.key).await,
        "emit" => emit(core, parent, call, effect.key).await,
        "respond" => Ok(respond(core, parent, call)),
        other => Err(refused("unknown_operation", format!("Weir itself cannot do `{other}`"))),
    };
    match done {
        Ok(output) => CallResult {
            outcome: CallOutcome::Done {
                output: Document::from_value(output),
            },
            exchanges: Vec::new(),
            origin: Origin::Sent,
        },
        Err(failure) => failed(failure),
    }
}

async fn start(core: &Arc<Core>, parent: &Parent, call: &CallCommand, key: EffectKey) -> Result<Value, CallFailure> {
    for _ in 0..ROUTING_TRIES {
        match start_by(core, &core.snapshot.load_full(), parent, call, key).await? {
            Started::Done(output) => return Ok(output),
            Started::Outdated { revision } => {
                let orchestrator = Orchestrator { core: Arc::clone(core) };
                if orchestrator.at_least(revision).await.is_none() {
                    break;
                }
            }
        }
    }
    let message = "the changed configuration cannot be read".to_owned();
    Err(retryable("unavailable", message, None))
}

/// What became of the start of a run.
enum Started {
    Done(Value),
    /// The configuration has changed to this revision meanwhile.
    Outdated {
        revision: i64,
    },
}

async fn start_by(
    core: &Arc<Core>,
    snapshot: &Snapshot,
    parent: &Parent,
    call: &CallCommand,
    key: EffectKey,
) -> Result<Started, CallFailure> {
    let now = core.clock.now();
    let start = child(snapshot, parent, (&call.args, key), (core.new_event_id(now), now))?;
    let name = start.workflow.row.name.clone();
    let (fact, run) = match start.prepare(core, snapshot) {
        Ok(prepared) => prepared,
        Err(error @ (ControlError::Invalid(_) | ControlError::NotFound)) => {
            return Err(refused("invalid_input", format!("workflow `{name}`: {error}")));
        }
        Err(error) => return Err(retryable("unavailable", error.to_string(), None)),
    };
    let run = match submitted(core, Fact::Accept(fact))?.await {
        Err(WriteError::Outdated { revision }) => return Ok(Started::Outdated { revision }),
        result => match written(core, result)? {
            FactOutcome::Accepted(AcceptOutcome::New) => run,
            FactOutcome::Accepted(AcceptOutcome::Duplicate { of }) => {
                first_run(core, parent.head.workspace, of).await?
            }
            other => return Err(misanswered(&other)),
        },
    };
    Ok(Started::Done(json!({ "run": run.to_string() })))
}

/// The run that a step starts under a key, with its event's id and time.
pub(crate) fn child<'a>(
    snapshot: &'a Snapshot,
    parent: &Parent,
    (args, key): (&Document, EffectKey),
    (uid, now): (EventId, Timestamp),
) -> Result<Start<'a>, CallFailure> {
    let args = args.value();
    let name = args.get("workflow").and_then(Value::as_str).unwrap_or_default();
    let depth = parent.event.headers.get(DEPTH_HEADER);
    let depth = depth.and_then(|depth| depth.parse::<u32>().ok()).unwrap_or(0) + 1;
    if depth > MAX_RUN_DEPTH {
        let message = format!("{MAX_RUN_DEPTH} runs that started each other stand above this one, and no more may");
        return Err(refused("runs_too_deep", message));
    }
    let workspace = parent.head.workspace;
    let workflow = snapshot.workflow(workspace, name);
    let published = workflow.and_then(|workflow| Some((workflow, workflow.published.as_ref()?)));
    let Some((workflow, version)) = published else {
        let message = format!("there is no published workflow `{name}`");
        return Err(refused("unknown_workflow", message));
    };
    if workflow.row.state == WorkflowState::Paused {
        let message = format!("the workflow `{name}` is paused");
        return Err(retryable("workflow_paused", message, Some(PAUSED_RETRY)));
    }
    Ok(Start {
        workspace,
        workflow,
        version,
        input: args.get("input").cloned().unwrap_or_else(|| json!({})),
        source: EventSource::Workflow,
        headers: BTreeMap::from([
            (PARENT_HEADER.to_owned(), parent.head.id.to_string()),
            (DEPTH_HEADER.to_owned(), depth.to_string()),
        ]),
        dedupe: Dedupe {
            scope: "run".to_owned(),
            key: key.to_string(),
            anchored_at: None,
        },
        traceparent: parent.traceparent.clone(),
        uid,
        now,
    })
}

/// Whether a run started the workflow with this event, or with the one that it is an edited copy of.
pub(crate) fn has_parent(event: &Event) -> bool {
    event.headers.contains_key(PARENT_HEADER)
}

/// The run that an event started which stands for an earlier start.
async fn first_run(core: &Core, workspace: WorkspaceId, event: EventId) -> Result<RunId, CallFailure> {
    let runs = core.store.event_runs(workspace, event).await;
    let runs = runs.map_err(|error| unread(&error))?;
    let first = runs.iter().find(|run| run.replay_of.is_none());
    let gone = || refused("run_gone", "the run was started, and is no longer stored".to_owned());
    first.map(|run| run.id).ok_or_else(gone)
}

async fn emit(core: &Arc<Core>, parent: &Parent, call: &CallCommand, key: EffectKey) -> Result<Value, CallFailure> {
    let args = call.args.value();
    let text = |name: &str| match args.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    let now = core.clock.now();
    let id = OutgoingId::from_raw(core.new_id(now));
    let data = args.get("data").cloned().unwrap_or(Value::Null);
    let event = Outgoing {
        id,
        workspace: parent.head.workspace,
        effect_key: key.to_bytes(),
        kind: text("type").unwrap_or_default(),
        order_key: text("key").as_deref().map(crate::runner::storable),
        run: parent.head.id,
        step: crate::runner::storable(&call.step),
        created_at: now,
        body: Bytes::from(data.to_string()),
    };
    let result = submitted(core, Fact::Emit(event))?.await;
    match written(core, result)? {
        FactOutcome::Emitted(id) => Ok(json!({ "id": id.to_string() })),
        other => Err(misanswered(&other)),
    }
}

fn respond(core: &Core, parent: &Parent, call: &CallCommand) -> Value {
    let (answer, unfit) = Answer::of(call.args.value());
    let delivered = core.callers.answer(parent.head.id, answer);
    if unfit.is_empty() {
        json!({ "delivered": delivered })
    } else {
        json!({ "delivered": delivered, "unfit": unfit })
    }
}

fn submitted(core: &Core, fact: Fact) -> Result<Pending, CallFailure> {
    let pending = core.writer.submit(fact);
    pending.map_err(|full| retryable("queue_full", full.to_string(), None))
}

fn written(core: &Core, result: Result<FactOutcome, WriteError>) -> Result<FactOutcome, CallFailure> {
    result.map_err(|error| match error {
        WriteError::Unknown => {
            core.rescan.notify_one();
            CallFailure {
                sent: Sent::Maybe,
                ..retryable("unknown_commit", error.to_string(), None)
            }
        }
        WriteError::Refused(_) => refused("not_storable", error.to_string()),
        WriteError::Stale | WriteError::Outdated { .. } | WriteError::Fenced | WriteError::Unavailable => {
            retryable("database_unavailable", error.to_string(), None)
        }
    })
}

fn failure(code: &str, message: String, retry: Retry) -> CallFailure {
    CallFailure {
        code: code.to_owned(),
        message,
        http_status: None,
        sent: Sent::Never,
        retry,
    }
}

fn refused(code: &str, message: String) -> CallFailure {
    failure(code, message, Retry::Permanent)
}

fn retryable(code: &str, message: String, after: Option<Duration>) -> CallFailure {
    failure(code, message, Retry::Retryable { after })
}

/// Whether the run was started is known; which one it is, is not.
fn unread(error: &ReadError) -> CallFailure {
    CallFailure {
        sent: Sent::Maybe,
        ..retryable("database_unavailable", error.to_string(), None)
    }
}

fn misanswered(outcome: &FactOutcome) -> CallFailure {
    CallFailure {
        sent: Sent::Maybe,
        ..retryable("internal_error", format!("the writer answered with {outcome:?}"), None)
    }
}

fn failed(failure: CallFailure) -> CallResult {
    CallResult {
        outcome: CallOutcome::Failed(failure),
        exchanges: Vec::new(),
        origin: Origin::Sent,
    }
}
