//! A published version made ready to run: names resolved, expressions compiled, the place of every step fixed.
//!
//! A plan is made from what publish froze, never from the configuration of today: a run is pinned to its version.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::catalogue::HydrateMode;
use crate::check::{CallResolution, Resolution};
use crate::correlation::Correlation;
use crate::definition::{
    Action, Approve, Call, Choice, DEFAULT_CALL_TIMEOUT, Definition, Join, ON_ERROR, ON_REJECT, ON_TIMEOUT, OnError,
    RetryPolicy, Sleep, Step, Trigger, WaitFor,
};
use crate::event::Event;
use crate::expression::{Expression, ExpressionError, Template};
use crate::id::WorkflowId;
use crate::journal::StopStatus;
use crate::problem::Problem;
use crate::reads::{self, PlannedRead};
use crate::run::{REJECTED, TriggerNames, WAIT_TIMEOUT};
use crate::time::Timestamp;
use crate::turn::Turn;

/// What `where` sees beside the event.
#[derive(Clone, Copy, Debug)]
pub struct TriggerScope<'a> {
    /// The connection of the event: `{name, connector, account, config}`, or null.
    pub connection: &'a Value,
    /// `{kind, endpoint, scheduled_for}`.
    pub trigger: &'a Value,
}

/// One place where a workflow calls out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSite {
    /// Id of the step.
    pub step: String,
    /// JSON pointer of the step in the document.
    pub pointer: String,
    /// Name of the connection; `None` when it is the connection of the event.
    pub connection: Option<String>,
    /// Name of the connector.
    pub connector: String,
    /// Name of the operation.
    pub operation: String,
}

/// The position of a step in the document: steps are numbered from the top, nested ones included.
pub(crate) type NodeId = usize;

/// What a step stands in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parent {
    Workflow,
    /// The steps for a run that failed.
    OnFailure,
    /// A block of the step, by its number.
    Block(NodeId, usize),
    /// The steps of a loop, for each of its items.
    Loop(NodeId),
}

/// Steps that stand in another one, such as those of `then`.
#[derive(Debug)]
pub(crate) struct Block {
    /// What it is called in paths; free of `.`, `[` and `]`.
    pub(crate) label: Arc<str>,
    pub(crate) steps: Vec<NodeId>,
}

/// One step of a plan.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: Arc<str>,
    pub(crate) pointer: String,
    pub(crate) parent: Parent,
    /// Whether the block it stands in is over when it is.
    pub(crate) closes_block: bool,
    /// The loops around it, outermost first.
    pub(crate) loops: Vec<NodeId>,
    /// Its place in the frame of its innermost loop, or of the run.
    pub(crate) slot: usize,
    pub(crate) when: Option<Expression>,
    /// Whether the run goes on when it failed, whatever the reason: with the steps of `on_error`, if there are any.
    pub(crate) continues: bool,
    /// How long the steps in it may take.
    pub(crate) limit: Option<Duration>,
    pub(crate) task: Task,
    /// The blocks inside it, those of a loop not included.
    pub(crate) blocks: Vec<Block>,
}

/// What a step does, ready to run.
#[derive(Debug)]
pub(crate) enum Task {
    Call(CallTask),
    /// The blocks are `then` and `else`.
    If {
        condition: Expression,
    },
    /// The blocks are the cases in their order, and the default as the last.
    Switch(Choice),
    Set {
        values: Template,
    },
    ForEach(LoopTask),
    /// The blocks are its branches.
    Parallel(Join),
    Sleep(Sleep),
    /// The blocks are `try`, `catch` and `finally`; of the last two one may be empty.
    Try,
    WaitFor(WaitFor),
    Approve(Approve),
    Compensate,
    Stop {
        status: StopStatus,
        reason: Template,
    },
}

/// Who carries a call out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A connector.
    Connector,
    /// Weir: it starts another run, and waits for its end for as long as this.
    Run(Option<Duration>),
    /// Weir: it stores an outgoing event.
    Emit,
    /// Weir: it answers whoever sent the event.
    Respond,
}

#[derive(Debug)]
pub(crate) struct CallTask {
    pub(crate) by: By,
    pub(crate) connection: Option<Arc<str>>,
    pub(crate) connector: Arc<str>,
    pub(crate) operation: Arc<str>,
    pub(crate) with: Template,
    pub(crate) all_max: Option<u32>,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeout: Duration,
}

#[derive(Debug)]
pub(crate) struct LoopTask {
    pub(crate) list: Expression,
    pub(crate) item_name: String,
    pub(crate) key: Option<Expression>,
    pub(crate) concurrency: usize,
    /// Whether a failed item leaves the others alone.
    pub(crate) collects: bool,
    pub(crate) body: Vec<NodeId>,
    /// How many steps run for each item, those of loops inside not counted.
    pub(crate) slots: usize,
}

impl Task {
    pub(crate) fn call(&self) -> Option<&CallTask> {
        if let Self::Call(call) = self { Some(call) } else { None }
    }

    pub(crate) fn for_each(&self) -> Option<&LoopTask> {
        if let Self::ForEach(each) = self {
            Some(each)
        } else {
            None
        }
    }
}

/// The number of the block of a `try`.
pub(crate) const TRY: usize = 0;
/// The number of the block of its `catch`.
pub(crate) const CATCH: usize = 1;
/// The number of the block of its `finally`.
pub(crate) const FINALLY: usize = 2;

impl Node {
    /// Whether there are steps in the block with this number.
    pub(crate) fn has_block(&self, number: usize) -> bool {
        self.blocks.get(number).is_some_and(|block| !block.steps.is_empty())
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self.task {
            Task::Call(CallTask { by: By::Connector, .. }) => "call",
            Task::Call(CallTask { by: By::Run(_), .. }) => "run",
            Task::Call(CallTask { by: By::Emit, .. }) => "emit",
            Task::Call(CallTask { by: By::Respond, .. }) => "respond",
            Task::WaitFor(_) => "wait_for",
            Task::Approve(_) => "approve",
            Task::Compensate => "compensate",
            Task::If { .. } => "if",
            Task::Switch(_) => "switch",
            Task::Set { .. } => "set",
            Task::ForEach(_) => "for_each",
            Task::Parallel(_) => "parallel",
            Task::Sleep(_) => "sleep",
            Task::Try => "try",
            Task::Stop { .. } => "stop",
        }
    }

    /// The number of the block for a failure of the step itself with this code.
    pub(crate) fn handler(&self, code: &str) -> Option<usize> {
        let own = match code {
            WAIT_TIMEOUT => self.block(ON_TIMEOUT),
            REJECTED => self.block(ON_REJECT),
            _ => None,
        };
        own.or_else(|| self.block(ON_ERROR))
    }

    /// The number of the block with this label, if there are steps in it.
    pub(crate) fn block(&self, label: &str) -> Option<usize> {
        self.blocks
            .iter()
            .position(|block| &*block.label == label && !block.steps.is_empty())
    }
}

/// The steps and reads of a plan; shared by all its runs.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) nodes: Vec<Node>,
    pub(crate) by_id: BTreeMap<Arc<str>, NodeId>,
    pub(crate) top: Vec<NodeId>,
    /// The steps for a run that failed; they share the frame of the run.
    pub(crate) on_failure: Vec<NodeId>,
    /// How many steps stand outside of all loops.
    pub(crate) slots: usize,
    pub(crate) reads: Vec<PlannedRead>,
    /// The connector of the reads.
    pub(crate) connector: String,
    /// The connection of the reads, when the event has none.
    pub(crate) connection: Option<String>,
    /// Whether a loop with `as` leaves `item` to the loops around it; in older versions it has both names.
    pub(crate) item_is_outer: bool,
}

/// A version ready to run.
#[derive(Debug)]
pub struct Plan {
    definition: Definition,
    resolution: Resolution,
    pub(crate) program: Arc<Program>,
}

impl Plan {
    /// Compiles a definition with what publish froze.
    ///
    /// # Errors
    /// When the two do not belong together, or a read of the connector cannot be compiled.
    pub fn compile(definition: &Definition, resolution: &Resolution) -> Result<Self, Vec<Problem>> {
        let uses = crate::check::hydrated_uses(definition);
        let reads = reads::plan(&resolution.reads, resolution.hydrate, |name| uses.contains(name))?;
        let mut program = Program {
            reads,
            ..Program::default()
        };
        let mut builder = Builder {
            program: &mut program,
            calls: &resolution.calls,
            problems: Vec::new(),
        };
        let mut slots = 0;
        let top = builder.block(&definition.steps, Parent::Workflow, &[], &mut slots);
        let on_failure = builder.block(&definition.on_failure, Parent::OnFailure, &[], &mut slots);
        let problems = builder.problems;
        if !problems.is_empty() {
            return Err(problems);
        }
        program.top = top;
        program.on_failure = on_failure;
        program.slots = slots;
        program.connector = resolution.connector.clone().unwrap_or_default();
        program.connection.clone_from(&resolution.connection);
        program.item_is_outer = resolution.item_is_outer;
        Ok(Self {
            definition: definition.clone(),
            resolution: resolution.clone(),
            program: Arc::new(program),
        })
    }

    /// The name of the workflow.
    pub fn name(&self) -> &str {
        self.definition.name()
    }

    /// What the workflow says.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// What starts it.
    pub fn trigger(&self) -> &Trigger {
        self.definition.trigger()
    }

    /// What publish froze.
    pub fn resolution(&self) -> &Resolution {
        &self.resolution
    }

    /// The hydrate mode in effect.
    pub fn hydrate(&self) -> HydrateMode {
        self.resolution.hydrate
    }

    /// The time limit of a whole run.
    pub fn timeout(&self) -> Option<Duration> {
        self.definition.timeout()
    }

    /// Whether `where` lets an event in; true when there is none. Event type and connection are not looked at.
    ///
    /// # Errors
    /// When the expression fails on this event.
    pub fn matches(&self, event: &Event, scope: &TriggerScope<'_>, now: Timestamp) -> Result<bool, ExpressionError> {
        match self.trigger() {
            Trigger::Event {
                filter: Some(filter), ..
            } => filter.truth(&TriggerNames {
                event,
                connection: scope.connection,
                trigger: scope.trigger,
                now,
            }),
            Trigger::Event { filter: None, .. } | Trigger::Manual { .. } | Trigger::Schedule(_) => Ok(true),
        }
    }

    /// Whether anything decides when its runs may start, or which of them goes first.
    pub fn has_flow_control(&self) -> bool {
        self.definition.flow.is_used()
    }

    /// Whether runs may have to wait for others before they start.
    pub fn has_gates(&self) -> bool {
        self.definition.flow.has_gates()
    }

    /// Whether a run stands for several events.
    pub fn is_batched(&self) -> bool {
        self.definition.flow.batch.is_some()
    }

    /// What the run of an event has to pass before it may start, and its priority; `None` when the workflow says nothing about it.
    ///
    /// # Errors
    /// When a key or the priority fails on this event.
    pub fn turn(
        &self,
        workflow: WorkflowId,
        event: &Event,
        scope: &TriggerScope<'_>,
        now: Timestamp,
    ) -> Result<Option<Turn>, ExpressionError> {
        self.definition.flow.turn(workflow, event, scope, now)
    }

    /// The follow-up reads, in the order of the manifest.
    pub fn reads(&self) -> &[PlannedRead] {
        &self.program.reads
    }

    /// What its steps wait for: every event of these types is looked at when it arrives.
    pub fn correlations(&self) -> Vec<Correlation> {
        self.definition.correlations()
    }

    /// How long the sender of an event is kept waiting for the answer of a `respond`; `None` when there is none.
    pub fn responds_within(&self) -> Option<Duration> {
        self.definition.responds_within()
    }

    /// Every place where the workflow calls out, in the order of the document.
    pub fn call_sites(&self) -> Vec<CallSite> {
        let site = |node: &Node| {
            let call = node.task.call().filter(|call| call.by == By::Connector)?;
            Some(CallSite {
                step: node.id.to_string(),
                pointer: node.pointer.clone(),
                connection: call.connection.as_deref().map(str::to_owned),
                connector: call.connector.to_string(),
                operation: call.operation.to_string(),
            })
        };
        self.program.nodes.iter().filter_map(site).collect()
    }
}

/// What Weir itself stands as among connectors and connections. No connector can be called like this.
pub const OWN: &str = "weir";

/// A call that Weir itself carries out.
fn own(by: By, operation: &str, with: &Template) -> Task {
    Task::Call(CallTask {
        by,
        connection: Some(Arc::from(OWN)),
        connector: Arc::from(OWN),
        operation: Arc::from(operation),
        with: with.clone(),
        all_max: None,
        retry: RetryPolicy::default(),
        timeout: DEFAULT_CALL_TIMEOUT,
    })
}

struct Builder<'a> {
    program: &'a mut Program,
    calls: &'a BTreeMap<String, CallResolution>,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    fn block(&mut self, steps: &[Step], parent: Parent, loops: &[NodeId], slots: &mut usize) -> Vec<NodeId> {
        let mut block = Vec::with_capacity(steps.len());
        for (position, step) in steps.iter().enumerate() {
            let at = self.program.nodes.len();
            let id: Arc<str> = Arc::from(step.id.as_str());
            self.program.by_id.insert(Arc::clone(&id), at);
            self.program.nodes.push(Node {
                id,
                pointer: step.pointer.clone(),
                parent,
                closes_block: position + 1 == steps.len(),
                loops: loops.to_vec(),
                slot: *slots,
                when: step.when.clone(),
                continues: !matches!(step.on_error, OnError::Fail),
                limit: step.limit,
                // Steps inside are numbered after this one, so what it does can only be said when they are known.
                task: Task::Stop {
                    status: StopStatus::Failed,
                    reason: Template::default(),
                },
                blocks: Vec::new(),
            });
            *slots += 1;
            let blocks = self.blocks(step, at, loops, slots);
            let task = self.task(step, at, loops);
            if let Some(node) = self.program.nodes.get_mut(at) {
                node.task = task;
                node.blocks = blocks;
            }
            block.push(at);
        }
        block
    }

    /// The blocks of a step that share its frame.
    fn blocks(&mut self, step: &Step, at: NodeId, loops: &[NodeId], slots: &mut usize) -> Vec<Block> {
        let mut blocks = Vec::new();
        for (label, steps) in step.branches() {
            let parent = Parent::Block(at, blocks.len());
            let steps = self.block(steps, parent, loops, slots);
            blocks.push(Block {
                label: Arc::from(label),
                steps,
            });
        }
        blocks
    }

    fn task(&mut self, step: &Step, at: NodeId, loops: &[NodeId]) -> Task {
        match &step.action {
            Action::Call(call) => Task::Call(self.call(step, call)),
            Action::If { condition, .. } => Task::If {
                condition: condition.clone(),
            },
            Action::Switch(switch) => Task::Switch(switch.choice.clone()),
            Action::Set { values, .. } => Task::Set { values: values.clone() },
            Action::ForEach(each) => {
                let mut inside = loops.to_vec();
                inside.push(at);
                let mut slots = 0;
                let body = self.block(&each.steps, Parent::Loop(at), &inside, &mut slots);
                Task::ForEach(LoopTask {
                    list: each.list.clone(),
                    item_name: each.item_name.clone(),
                    key: each.key.clone(),
                    concurrency: usize::try_from(each.concurrency).unwrap_or(1),
                    collects: each.collects,
                    body,
                    slots,
                })
            }
            Action::Sleep(sleep) => Task::Sleep(sleep.clone()),
            Action::WaitFor(wait) => Task::WaitFor(wait.clone()),
            Action::Approve(approve) => Task::Approve(approve.clone()),
            Action::Run(run) => own(By::Run(run.wait), "run", &run.with),
            Action::Emit(with) => own(By::Emit, "emit", with),
            Action::Respond(respond) => own(By::Respond, "respond", &respond.with),
            Action::Try(_) => Task::Try,
            Action::Compensate => Task::Compensate,
            Action::Parallel(parallel) => Task::Parallel(parallel.join),
            Action::Stop { status, reason } => Task::Stop {
                status: *status,
                reason: reason.clone(),
            },
        }
    }

    fn call(&mut self, step: &Step, call: &Call) -> CallTask {
        let resolved = self.calls.get(&step.id);
        if resolved.is_none() {
            let message = format!("step `{}` was not resolved when the version was published", step.id);
            self.problems.push(Problem::new(&step.pointer, "not_resolved", message));
        }
        CallTask {
            by: By::Connector,
            connection: resolved.and_then(|call| call.connection.as_deref()).map(Arc::from),
            connector: resolved.map_or_else(|| Arc::from(""), |call| Arc::from(call.connector.as_str())),
            operation: resolved.map_or_else(|| Arc::from(""), |call| Arc::from(call.operation.as_str())),
            with: call.with.clone(),
            all_max: call.all_max,
            retry: call.retry,
            timeout: call.timeout,
        }
    }
}
