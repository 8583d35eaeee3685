//! What a run knows. Changed by [`RunState::fold`] alone, cheap to clone, never written anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::parts::Parts;
use crate::command::{CallId, SendMode};
use crate::document::Document;
use crate::effect::{EffectClass, EffectKey};
use crate::event::Event;
use crate::id::{EventId, RunId, VersionId, WorkflowId, WorkspaceId};
use crate::journal::{Awaited, Ending, Exchanges, Intent, Target};
use crate::ledger::Ledger;
use crate::plan::{NodeId, Parent, Plan, Program};
use crate::result::Origin;
use crate::run::Status;
use crate::time::Timestamp;

/// What is fixed about a run from its first moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHead {
    /// The run.
    pub id: RunId,
    /// The first run of its family: itself, unless it is a replay.
    pub root_id: RunId,
    /// The run that it replays.
    pub replay_of: Option<RunId>,
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The workflow.
    pub workflow: WorkflowId,
    /// The name of the workflow.
    pub workflow_name: String,
    /// The version that it is pinned to.
    pub version: VersionId,
    /// The number of that version.
    pub version_number: u32,
    /// The dedupe scope of the event; part of effect keys, so a replay must have the same.
    pub dedupe_scope: String,
    /// The dedupe key of the event; part of effect keys, so a replay must have the same.
    pub dedupe_key: String,
    /// When it began.
    pub started_at: Timestamp,
}

/// An effect that is on its way or waits for its next try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenEffect {
    /// The call.
    pub call: CallId,
    /// Path of the step.
    pub step: String,
    /// Its idempotency key.
    pub key: EffectKey,
    /// How it can be repeated.
    pub class: EffectClass,
    /// When it may have been sent for the first time.
    pub first_sent_at: Timestamp,
}

/// Why nobody knows whether a step that can be undone was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubtful {
    /// Its effect may have taken place.
    Effect(EffectKey),
    /// The run that it started was left before it succeeded.
    Left(RunId),
}

/// A run, as the fold over its journal.
#[derive(Clone, Debug, PartialEq)]
pub struct RunState {
    pub(super) head: Arc<RunHead>,
    pub(super) event: Arc<Event>,
    pub(super) program: SharedProgram,
    pub(super) ledger: Arc<Ledger>,
    pub(super) reads: Vec<ReadState>,
    pub(super) frame: Frame,
    pub(super) calls: BTreeMap<CallId, OpenCall>,
    pub(super) next_call: u32,
    /// How many entries it has taken in, and about how many bytes of documents.
    pub(super) size: (usize, usize),
    /// The steps that sleep or wait, and until when.
    pub(super) sleeps: BTreeSet<(Timestamp, Place)>,
    /// The steps with steps inside that may take only so long, and until when.
    pub(super) limits: BTreeSet<(Timestamp, Place)>,
    /// The steps that wait for something from outside, by their paths.
    pub(super) waits: BTreeMap<Arc<str>, Place>,
    /// The events that steps have waited for and got.
    pub(super) taken: BTreeSet<EventId>,
    /// Steps that were done and can be undone, in the order in which they were done.
    pub(super) undoable: Parts<Place>,
    /// Steps that can be undone and may have been done: nobody knows, and there is no output to undo them with.
    pub(super) doubtful: Vec<(Arc<str>, Doubtful)>,
    /// Steps that a `compensate` is undoing, and that one.
    pub(super) undoing: BTreeMap<Place, Place>,
    /// Since when it stands still, and how long it did so before.
    pub(super) paused: Option<Timestamp>,
    pub(super) paused_for: Duration,
    /// How the run failed, while the steps of `on_failure` run.
    pub(super) failed: Option<Ending>,
    /// How the run is going to end once the effects on their way are back.
    pub(super) ending: Option<Ending>,
    /// The step whose effect nobody knows about.
    pub(super) unknown: Option<Arc<str>>,
    pub(super) finished: Option<Ending>,
    /// A step or read in the journal that the plan does not have.
    pub(super) foreign: Option<String>,
}

/// The steps of the plan; two runs of one version compare equal whatever copy they hold.
#[derive(Clone, Debug)]
pub(super) struct SharedProgram(pub(super) Arc<Program>);

impl PartialEq for SharedProgram {
    fn eq(&self, other: &Self) -> bool {
        self.0.nodes.len() == other.0.nodes.len()
    }
}

/// Where a hydration read stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ReadState {
    Pending,
    Open,
    Done {
        output: Document,
        origin: Origin,
        at: Timestamp,
        exchanges: Exchanges,
    },
    /// Skipped, gone, or failed with the run: null.
    Null,
}

/// The steps of a run, or of one item of a loop.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) slots: Vec<Slot>,
    /// By their slots: steps with steps inside that a failure went out of on its way to what takes care of it. They stay
    /// as they were then, and nothing goes on in them.
    pub(super) left: BTreeMap<usize, Failure>,
}

impl Frame {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: vec![Slot::Pending; slots],
            left: BTreeMap::new(),
        }
    }
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Slot {
    Pending,
    /// A call is open.
    Open,
    /// A `sleep`, until then.
    Asleep(Timestamp),
    /// A `run` whose run was started, and which is going to wait for its end.
    Begun(RunId),
    /// It waits for something from outside.
    Waiting(Arc<Awaited>),
    /// A step that is in this one of its blocks and not through.
    Inside(usize),
    /// A `for_each` that is not through.
    Loop(Arc<Loop>),
    /// A `parallel` that is not through.
    Fork(Arc<Fork>),
    /// A `try` that is not through.
    Guard(Arc<Guard>),
    /// A step that failed, and the steps for that are not through.
    Rescue(Arc<Rescue>),
    /// A `compensate` that is not through.
    Undo(Arc<Undo>),
    Closed(Arc<Closed>),
}

impl Slot {
    /// The items of a loop, also of one that is through, if they may have to be undone.
    pub(super) fn items(&self) -> Option<&Arc<Loop>> {
        match self {
            Self::Loop(items) => Some(items),
            Self::Closed(closed) => closed.items.as_ref(),
            _ => None,
        }
    }
}

/// A `parallel` that is not through.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fork {
    pub(super) branches: Vec<Branch>,
}

/// Where a branch of a `parallel` stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Branch {
    Open,
    /// It failed, and what is open in it comes to an end.
    Settling(Failure),
    /// Another branch decided, and what is open in this one comes to an end.
    Leaving,
    Done(Document),
    Failed(Failure),
    Left,
}

/// A failure on its way to whatever handles it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) code: Arc<str>,
    pub(super) message: Arc<str>,
    /// Path of the step at fault.
    pub(super) step: Arc<str>,
}

/// A `try` that is not through.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Guard {
    /// The number of the block that it is in.
    pub(super) block: usize,
    /// The block failed, and what is open in it comes to an end before the next one begins.
    pub(super) settling: bool,
    /// What was caught; in `finally` what is passed on afterwards.
    pub(super) failure: Option<Failure>,
    /// What it gives when nothing more fails.
    pub(super) output: Option<Document>,
}

/// A step that failed, and the steps for that are not through.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rescue {
    /// The number of their block.
    pub(super) block: usize,
    pub(super) failure: Failure,
    pub(super) closed: Closed,
}

/// A `compensate` that is not through.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Undo {
    /// The steps that it undoes, in this order.
    pub(super) of: Arc<[Place]>,
    /// How many of them it is through with.
    pub(super) done: usize,
    /// Undoing the one at hand failed, and what is open there comes to an end.
    pub(super) settling: Option<Failure>,
    /// What could not be undone.
    pub(super) failed: Vec<Failure>,
}

/// A `for_each` that is not through.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Loop {
    pub(super) items: Parts<Arc<ItemState>>,
    pub(super) by_key: Arc<BTreeMap<Arc<str>, usize>>,
    pub(super) done: usize,
    /// All items before this one are done.
    pub(super) first_open: usize,
}

/// One item of a loop.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ItemState {
    pub(super) key: Arc<str>,
    pub(super) value: Document,
    pub(super) frame: Frame,
    /// The output of its last step, when through; null when that was skipped.
    pub(super) output: Option<Document>,
    /// It failed without failing the loop, and what is open in it comes to an end.
    pub(super) settling: Option<Failure>,
}

/// How a step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    Skipped,
    Failed,
}

/// A step that is through.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Closed {
    pub(super) verdict: Verdict,
    pub(super) output: Option<Document>,
    pub(super) error: Option<Failure>,
    pub(super) attempts: u32,
    pub(super) exchanges: Option<Exchanges>,
    /// The items of a loop in which something was done that can be undone.
    pub(super) items: Option<Arc<Loop>>,
}

impl Closed {
    pub(super) fn plain(verdict: Verdict, output: Option<Document>) -> Self {
        Self {
            verdict,
            output,
            error: None,
            attempts: 0,
            exchanges: None,
            items: None,
        }
    }
}

/// Which instance of a step: the step and the item of each loop around it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub(super) node: NodeId,
    pub(super) items: Vec<usize>,
}

/// What an open call belongs to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Owner {
    Read(usize),
    Step(Place),
}

/// A call that is not over.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OpenCall {
    pub(super) of: Target,
    pub(super) owner: Owner,
    /// The number of the last try that was handed out.
    pub(super) attempt: u32,
    pub(super) phase: Phase,
    pub(super) intent: Option<Arc<Intent>>,
    /// How the last try of an effect was handed out.
    pub(super) mode: Option<SendMode>,
    /// When the effect may have been sent for the first time.
    pub(super) first_sent_at: Timestamp,
    /// Whether the provider may have acted already.
    pub(super) maybe_sent: bool,
    /// How often the object of a read was not found.
    pub(super) not_found: u32,
    /// How many of its tries the provider turned away because of too many requests, and do not count.
    pub(super) throttled: u32,
    /// How often it was not made because its connection may not send.
    pub(super) holds: u32,
    /// When its last try failed; `None` when nobody knows when that was over, or whether.
    pub(super) failed_at: Option<Timestamp>,
}

/// Whether an open call is on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Phase {
    Flight,
    Wait { until: Timestamp, mode: Option<SendMode> },
}

impl RunState {
    /// A run before its first entry.
    pub fn new(head: RunHead, event: Arc<Event>, plan: &Plan) -> Self {
        let program = &plan.program;
        Self {
            head: Arc::new(head),
            event,
            program: SharedProgram(Arc::clone(program)),
            ledger: Arc::default(),
            reads: vec![ReadState::Pending; program.reads.len()],
            frame: Frame::new(program.slots),
            calls: BTreeMap::new(),
            next_call: 0,
            size: (0, 0),
            sleeps: BTreeSet::new(),
            limits: BTreeSet::new(),
            waits: BTreeMap::new(),
            taken: BTreeSet::new(),
            undoable: Parts::default(),
            doubtful: Vec::new(),
            undoing: BTreeMap::new(),
            paused: None,
            paused_for: Duration::ZERO,
            failed: None,
            ending: None,
            unknown: None,
            finished: None,
            foreign: None,
        }
    }

    /// The same run knowing the effects of its family. Needed for replays, harmless otherwise.
    pub fn with_ledger(mut self, ledger: Ledger) -> Self {
        self.ledger = Arc::new(ledger);
        self
    }

    /// What is fixed about the run.
    pub fn head(&self) -> &RunHead {
        &self.head
    }

    /// The event it runs on.
    pub fn event(&self) -> &Arc<Event> {
        &self.event
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        match &self.finished {
            Some(Ending::Succeeded) => Status::Succeeded,
            Some(Ending::Canceled) => Status::Canceled,
            Some(Ending::Failed { code, message, step }) => Status::Failed {
                code: code.to_string(),
                message: message.to_string(),
                step: step.as_deref().map(str::to_owned),
            },
            None => {
                let waits = !self.calls.is_empty() || !self.sleeps.is_empty();
                let flies = self.calls.values().any(|call| call.phase == Phase::Flight);
                if self.paused.is_some() && !flies {
                    Status::Paused
                } else if waits && !flies {
                    Status::Waiting
                } else {
                    Status::Running
                }
            }
        }
    }

    /// About how many bytes of documents it has gathered, those of its event not included.
    pub fn gathered_bytes(&self) -> usize {
        self.size.1
    }

    /// Which limit of size the run has reached, if any. What is done about a failure has a tenth more.
    pub(super) fn outgrown(&self) -> Option<String> {
        let room = |limit: usize| limit + if self.failed.is_some() { limit / 10 } else { 0 };
        let (entries, bytes) = self.size;
        if entries >= room(super::MAX_RUN_ENTRIES) {
            return Some(format!(
                "the run has more than {} journal entries",
                super::MAX_RUN_ENTRIES
            ));
        }
        let mib = super::MAX_RUN_BYTES >> 20;
        (bytes >= room(super::MAX_RUN_BYTES)).then(|| format!("the run has gathered more than {mib} MiB"))
    }

    /// The effects that are on their way or wait for their next try.
    pub fn open_effects(&self) -> Vec<OpenEffect> {
        let open = |(call, open): (&CallId, &OpenCall)| {
            let intent = open.intent.as_ref()?;
            Some(OpenEffect {
                call: *call,
                step: intent.step.to_string(),
                key: intent.key,
                class: intent.class,
                first_sent_at: open.first_sent_at,
            })
        };
        self.calls.iter().filter_map(open).collect()
    }

    /// The frame that the items lead to.
    pub(super) fn frame(&self, loops: &[NodeId], items: &[usize]) -> Option<&Frame> {
        let mut frame = &self.frame;
        for (node, item) in loops.iter().zip(items) {
            let slot = self.program.0.nodes.get(*node)?.slot;
            frame = &frame.slots.get(slot)?.items()?.items.get(*item)?.frame;
        }
        Some(frame)
    }

    /// Where the step at `place` stands.
    pub(super) fn slot(&self, place: &Place) -> Option<&Slot> {
        let node = self.program.0.nodes.get(place.node)?;
        self.frame(&node.loops, &place.items)?.slots.get(node.slot)
    }

    /// The path of the step at `place`.
    pub(super) fn path(&self, place: &Place) -> Arc<str> {
        let Some(node) = self.program.0.nodes.get(place.node) else {
            return Arc::from("");
        };
        if let Parent::Workflow = node.parent {
            return Arc::clone(&node.id);
        }
        let mut path = String::new();
        self.write_path(place.node, &place.items, &mut path);
        Arc::from(path)
    }

    fn write_path(&self, at: NodeId, items: &[usize], path: &mut String) {
        let Some(node) = self.program.0.nodes.get(at) else {
            return;
        };
        match node.parent {
            Parent::Workflow => {}
            Parent::OnFailure => path.push_str("on_failure."),
            Parent::Block(parent, number) => {
                self.write_path(parent, items, path);
                let block = self
                    .program
                    .0
                    .nodes
                    .get(parent)
                    .and_then(|node| node.blocks.get(number));
                path.push('.');
                path.push_str(block.map_or("", |block| &block.label));
                path.push('.');
            }
            Parent::Loop(parent) => {
                let (outer, last) = match items.split_last() {
                    Some((last, outer)) => (outer, Some(*last)),
                    None => (items, None),
                };
                self.write_path(parent, outer, path);
                let place = Place {
                    node: parent,
                    items: outer.to_vec(),
                };
                let items = self.slot(&place).and_then(Slot::items);
                let key = items
                    .zip(last)
                    .and_then(|(items, last)| Some(&items.items.get(last)?.key));
                path.push('[');
                path.push_str(key.map_or("", |key| key));
                path.push_str("].");
            }
        }
        path.push_str(&node.id);
    }

    /// The step that a path in the journal names.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        let id = path.rsplit('.').next().unwrap_or(path);
        let node = *self.program.0.by_id.get(id)?;
        let loops = &self.program.0.nodes.get(node)?.loops;
        if loops.is_empty() {
            return Some(Place {
                node,
                items: Vec::new(),
            });
        }
        let mut items = Vec::with_capacity(loops.len());
        let mut keys = path.split('[').skip(1).filter_map(|rest| rest.split(']').next());
        for outer in loops {
            let place = Place {
                node: *outer,
                items: items.clone(),
            };
            let state = self.slot(&place)?.items()?;
            items.push(*state.by_key.get(keys.next()?)?);
        }
        Some(Place { node, items })
    }
}
