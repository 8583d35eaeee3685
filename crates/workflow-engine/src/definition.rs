//! A workflow as its author wrote it, parsed: unknown keys refused, every expression compiled, nothing looked up.
//!
//! Parsing needs no connector. What a workflow means among connectors is checked in [`crate::check`].

mod bounds;
mod fields;
mod flow;
mod input;
mod own;
mod parse;
mod schedule;
mod schema;
mod steps;
mod waits;

use std::time::Duration;

use serde_json::Value;

pub use bounds::*;
pub(crate) use input::check_input;
pub use own::{ANSWER_STATUSES, RESERVED_HEADERS, UNFIT_STATUS};

use crate::catalogue::HydrateMode;
use crate::expression::{Expression, Template};
use crate::problem::Problem;
use crate::schedule::Schedule;

/// A parsed workflow document.
#[derive(Clone, Debug)]
pub struct Definition {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) trigger: Trigger,
    pub(crate) flow: FlowControl,
    pub(crate) steps: Vec<Step>,
    /// What is done when the run has failed; empty when nothing is.
    pub(crate) on_failure: Vec<Step>,
    pub(crate) timeout: Option<Duration>,
}

/// What decides when runs of a workflow may start. All of it is computed before hydration.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlowControl {
    pub(crate) lane: Option<Lane>,
    pub(crate) concurrency: Option<Concurrency>,
    pub(crate) throttle: Option<Throttle>,
    pub(crate) debounce: Option<Debounce>,
    pub(crate) batch: Option<Batch>,
    pub(crate) priority: Option<Priority>,
}

/// Serial order per key.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) key: Template,
    /// Whether only the last waiting event is kept.
    pub(crate) merge: bool,
    pub(crate) max_waiting: u32,
    pub(crate) on_block: OnBlock,
}

/// What a failed run does to its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnBlock {
    /// The lane waits until a person has dealt with the run.
    Hold,
    /// The run is put aside and the lane goes on.
    Park,
}

/// How many runs may be in progress at a time.
#[derive(Clone, Debug)]
pub(crate) struct Concurrency {
    pub(crate) key: Option<Template>,
    pub(crate) limit: u32,
}

/// How many runs may start in a period.
#[derive(Clone, Debug)]
pub(crate) struct Throttle {
    pub(crate) key: Option<Template>,
    pub(crate) limit: u32,
    pub(crate) per: Duration,
}

/// One run for a burst of events, when it has been quiet for a while.
#[derive(Clone, Debug)]
pub(crate) struct Debounce {
    pub(crate) key: Template,
    pub(crate) quiet: Duration,
    /// How long the first event of a burst may wait.
    pub(crate) max: Option<Duration>,
}

/// One run for several events.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) key: Option<Template>,
    pub(crate) size: u32,
    /// How long the first event may wait.
    pub(crate) within: Duration,
}

/// Who goes first when there is not room for all.
#[derive(Clone, Debug)]
pub(crate) enum Priority {
    Fixed(i32),
    Computed(Expression),
}

/// What starts a workflow.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// An event of a connector.
    Event {
        /// `connector.event_type`.
        event: String,
        /// Only events of the connection with this name.
        connection: Option<String>,
        /// Only events for which this is true.
        filter: Option<Expression>,
        /// Whether the follow-up reads run; `None` leaves it to the connector.
        hydrate: Option<HydrateMode>,
    },
    /// A person or a program starts it.
    Manual {
        /// What the input must look like: a JSON Schema of `type`, `properties`, `required`, `enum`, `items`.
        input: Option<Value>,
    },
    /// The clock.
    Schedule(Box<Schedule>),
}

impl Trigger {
    /// Checks the input of a manual start. Any input fits a trigger that describes none.
    ///
    /// # Errors
    /// Everything that does not fit, each with its place in the input.
    pub fn check_input(&self, input: &Value) -> Result<(), Vec<Problem>> {
        let Self::Manual { input: Some(schema) } = self else {
            return Ok(());
        };
        let mut problems = Vec::new();
        input::check(schema, input, "", false, &mut problems);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// One step of a workflow.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) id: String,
    pub(crate) pointer: String,
    pub(crate) when: Option<Expression>,
    pub(crate) on_error: OnError,
    /// What is done when it waited in vain; empty when that is an error like any other.
    pub(crate) on_timeout: Vec<Step>,
    /// What is done when a person said no; empty when that is an error like any other.
    pub(crate) on_reject: Vec<Step>,
    /// How long the steps in it may take; `None` for steps that have none or bring their own.
    pub(crate) limit: Option<Duration>,
    /// What undoes it, for a `compensate` after it was done; empty when nothing does.
    pub(crate) undo: Vec<Step>,
    pub(crate) action: Action,
}

/// What a step does.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Call(Call),
    If {
        condition: Expression,
        then: Vec<Step>,
        otherwise: Vec<Step>,
    },
    Switch(Switch),
    Set {
        values: Template,
        names: Vec<String>,
    },
    ForEach(ForEach),
    Sleep(Sleep),
    Try(Try),
    Parallel(Parallel),
    WaitFor(WaitFor),
    Approve(Approve),
    Run(ChildRun),
    Emit(Template),
    Respond(Respond),
    /// The steps of `undo` of what was done, newest first.
    Compensate,
    Stop {
        status: crate::journal::StopStatus,
        reason: Template,
    },
}

impl Step {
    /// The expressions of this step, those of steps inside it not included.
    pub(crate) fn expressions(&self) -> Vec<&Expression> {
        let mut found: Vec<&Expression> = self.when.iter().collect();
        match &self.action {
            Action::Call(call) => found.extend(call.with.expressions()),
            Action::If { condition, .. } => found.push(condition),
            Action::Switch(switch) => match &switch.choice {
                Choice::Value(value) => found.push(value),
                Choice::Conditions(conditions) => found.extend(conditions),
            },
            Action::Set { values, .. } => found.extend(values.expressions()),
            Action::ForEach(each) => found.push(&each.list),
            Action::Sleep(sleep) => found.extend(sleep.value.expressions()),
            Action::WaitFor(wait) => found.push(&wait.equals),
            Action::Approve(approve) => {
                found.extend(approve.title.expressions());
                found.extend(approve.detail.expressions());
            }
            Action::Run(run) => found.extend(run.with.expressions()),
            Action::Emit(with) => found.extend(with.expressions()),
            Action::Respond(respond) => found.extend(respond.with.expressions()),
            Action::Stop { reason, .. } => found.extend(reason.expressions()),
            Action::Try(_) | Action::Parallel(_) | Action::Compensate => {}
        }
        found
    }

    /// Every expression of this step, also those that see more than the step itself does.
    pub(crate) fn all_expressions(&self) -> Vec<&Expression> {
        let mut found = self.expressions();
        match &self.action {
            Action::ForEach(each) => found.extend(&each.key),
            Action::WaitFor(wait) => found.extend(&wait.filter),
            _ => {}
        }
        found
    }

    /// Whether no step after it in its block is ever reached.
    pub(crate) fn always_ends(&self) -> bool {
        let ends = |steps: &[Step]| steps.iter().any(Step::always_ends);
        self.when.is_none()
            && match &self.action {
                Action::Stop { .. } => true,
                Action::If { then, otherwise, .. } => ends(then) && ends(otherwise),
                Action::Switch(switch) => switch.cases.iter().all(|case| ends(&case.steps)) && ends(&switch.default),
                // Without `catch` a failure goes on outwards.
                Action::Try(guarded) => {
                    ends(&guarded.finally) || ends(&guarded.steps) && (guarded.catch.is_empty() || ends(&guarded.catch))
                }
                Action::Parallel(parallel) => parallel.branches.iter().all(|(_, steps)| ends(steps)),
                _ => false,
            }
    }

    /// The blocks of steps inside this one.
    pub(crate) fn blocks(&self) -> Vec<&[Step]> {
        match &self.action {
            Action::ForEach(each) => vec![&each.steps],
            _ => self.branches().into_iter().map(|(_, steps)| steps).collect(),
        }
    }

    /// The blocks of steps inside this one, each with its label.
    pub(crate) fn labelled_blocks(&self) -> Vec<(&str, &[Step])> {
        match &self.action {
            Action::ForEach(each) => vec![("do", &each.steps)],
            _ => self.branches(),
        }
    }

    /// The blocks that share the frame of the step, each with its label in paths.
    pub(crate) fn branches(&self) -> Vec<(&str, &[Step])> {
        let mut branches = self.action.branches();
        if let OnError::Steps(steps) = &self.on_error {
            branches.push((ON_ERROR, steps));
        }
        let others = [
            (ON_TIMEOUT, &self.on_timeout),
            (ON_REJECT, &self.on_reject),
            (UNDO, &self.undo),
        ];
        for (label, steps) in others {
            if !steps.is_empty() {
                branches.push((label, steps));
            }
        }
        branches
    }
}

impl Action {
    fn branches(&self) -> Vec<(&str, &[Step])> {
        match self {
            Self::If { then, otherwise, .. } => vec![("then", then), ("else", otherwise)],
            Self::Switch(switch) => {
                let cases = switch
                    .cases
                    .iter()
                    .map(|case| (case.label.as_str(), case.steps.as_slice()));
                cases.chain([(DEFAULT_CASE, switch.default.as_slice())]).collect()
            }
            Self::Try(guarded) => vec![
                ("try", &guarded.steps),
                ("catch", &guarded.catch),
                ("finally", &guarded.finally),
            ],
            Self::Parallel(parallel) => {
                let branches = parallel.branches.iter();
                branches
                    .map(|(name, steps)| (name.as_str(), steps.as_slice()))
                    .collect()
            }
            Self::Call(_)
            | Self::Set { .. }
            | Self::ForEach(_)
            | Self::Sleep(_)
            | Self::WaitFor(_)
            | Self::Approve(_)
            | Self::Run(_)
            | Self::Emit(_)
            | Self::Respond(_)
            | Self::Compensate
            | Self::Stop { .. } => Vec::new(),
        }
    }
}

/// The label of the steps for a step that failed.
pub(crate) const ON_ERROR: &str = "on_error";
/// The label of the steps for a step that waited in vain.
pub(crate) const ON_TIMEOUT: &str = "on_timeout";
/// The label of the steps for a decision against it.
pub(crate) const ON_REJECT: &str = "on_reject";

/// The label of the steps that undo a step.
pub(crate) const UNDO: &str = "undo";

/// The label of the steps for which no case holds.
pub(crate) const DEFAULT_CASE: &str = "default";

/// The label of the case for a value, from the value's text.
pub(crate) fn case_label(text: &str) -> String {
    crate::effect::path_text(text, &Value::from(text))
}

/// A `switch` step.
#[derive(Clone, Debug)]
pub(crate) struct Switch {
    pub(crate) choice: Choice,
    pub(crate) cases: Vec<Case>,
    /// Empty when there is none.
    pub(crate) default: Vec<Step>,
}

/// One case of a `switch`.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// What it is called in paths.
    pub(crate) label: String,
    pub(crate) steps: Vec<Step>,
}

/// How a `switch` chooses among its cases.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// The case that is called like this value.
    Value(Expression),
    /// The first case whose condition is true; as many as there are cases.
    Conditions(Vec<Expression>),
}

/// A `call` step.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// `connector.operation` as written.
    pub(crate) call: String,
    pub(crate) connection: Option<String>,
    pub(crate) with: Template,
    /// The arguments given, by name; with the value where it is a plain one that no expression computes.
    pub(crate) arguments: Vec<(String, Option<Value>)>,
    /// Present when all pages are wanted: the largest number of items.
    pub(crate) all_max: Option<u32>,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeout: Duration,
}

/// What follows when a step failed for good.
#[derive(Clone, Debug)]
pub(crate) enum OnError {
    /// The failure goes to whatever catches it around the step.
    Fail,
    /// The run goes on.
    Continue,
    /// These steps, then the run goes on.
    Steps(Vec<Step>),
}

/// A `try` step: at least one of `catch` and `finally` is not empty.
#[derive(Clone, Debug)]
pub(crate) struct Try {
    pub(crate) steps: Vec<Step>,
    pub(crate) catch: Vec<Step>,
    pub(crate) finally: Vec<Step>,
}

/// What a `for_each` without `as` calls its item.
pub(crate) const ITEM: &str = "item";

/// A `for_each` step.
#[derive(Clone, Debug)]
pub(crate) struct ForEach {
    pub(crate) list: Expression,
    pub(crate) item_name: String,
    pub(crate) key: Option<Expression>,
    pub(crate) concurrency: u32,
    /// Whether a failed item leaves the others alone.
    pub(crate) collects: bool,
    pub(crate) steps: Vec<Step>,
}

/// A `parallel` step.
#[derive(Clone, Debug)]
pub(crate) struct Parallel {
    pub(crate) join: Join,
    pub(crate) branches: Vec<(String, Vec<Step>)>,
}

/// When a `parallel` is through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// When all branches are; a failure in one is the failure of the step.
    All,
    /// When all branches are, failed or not.
    Collect,
    /// When one branch has succeeded, or all have failed.
    Any,
    /// When one branch has succeeded or failed.
    First,
}

/// A `sleep` step.
#[derive(Clone, Debug)]
pub(crate) struct Sleep {
    pub(crate) how: SleepHow,
    pub(crate) value: Template,
}

/// What the value of a `sleep` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SleepHow {
    /// How long it lasts.
    For,
    /// When it ends.
    Until,
}

/// A `wait_for` step.
#[derive(Clone, Debug)]
pub(crate) struct WaitFor {
    pub(crate) connector: String,
    /// The event type, without the connector.
    pub(crate) kind: String,
    /// Only events of this connection.
    pub(crate) connection: Option<String>,
    /// What is computed of every such event when it arrives.
    pub(crate) key: Expression,
    /// What it has to be for this run.
    pub(crate) equals: Expression,
    /// Only events for which this is true.
    pub(crate) filter: Option<Expression>,
    pub(crate) timeout: Duration,
}

/// An `approve` step.
#[derive(Clone, Debug)]
pub(crate) struct Approve {
    pub(crate) title: Template,
    /// Where the title stands when the document gives it no words.
    pub(crate) untitled_at: Option<String>,
    /// What else the person sees.
    pub(crate) detail: Template,
    /// Who may decide; anybody who may decide at all when it is empty.
    pub(crate) by: Vec<String>,
    pub(crate) timeout: Duration,
}

/// A `run` step.
#[derive(Clone, Debug)]
pub(crate) struct ChildRun {
    pub(crate) workflow: String,
    /// The input as it stands in the document.
    pub(crate) input: Value,
    /// `{workflow, input}`.
    pub(crate) with: Template,
    /// How long its end is waited for; `None` when it is not.
    pub(crate) wait: Option<Duration>,
}

/// A `respond` step.
#[derive(Clone, Debug)]
pub(crate) struct Respond {
    /// `{status, headers, body}`.
    pub(crate) with: Template,
    /// How long whoever sent the event is kept waiting for it.
    pub(crate) within: Duration,
}

/// How often and when a failed call is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RetryPolicy {
    /// Tries in all, the first included.
    pub(crate) tries: u32,
    /// Pause after the first try.
    pub(crate) first: Duration,
    /// The longest pause.
    pub(crate) max: Duration,
    /// By how much each pause is longer than the one before.
    pub(crate) factor: f64,
}

impl Default for RetryPolicy {
    /// 12 tries in about 24 hours: 1 s, 3 s, 9 s … 16 h.
    fn default() -> Self {
        Self {
            tries: 12,
            first: Duration::from_secs(1),
            max: Duration::from_secs(86_400),
            factor: 3.0,
        }
    }
}

impl Definition {
    /// Parses a workflow document (without its `kind`).
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn parse(document: &Value) -> Result<Self, Vec<Problem>> {
        parse::definition(document)
    }

    /// The name of the workflow.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the author says about it.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// What starts it.
    pub fn trigger(&self) -> &Trigger {
        &self.trigger
    }

    /// The time limit of a whole run.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// How long the sender of an event is kept waiting for the answer of a `respond`; `None` when there is none.
    pub(crate) fn responds_within(&self) -> Option<Duration> {
        fn longest(steps: &[Step]) -> Option<Duration> {
            let of = |step: &Step| {
                let own = match &step.action {
                    Action::Respond(respond) => Some(respond.within),
                    _ => None,
                };
                own.into_iter()
                    .chain(step.blocks().into_iter().filter_map(longest))
                    .max()
            };
            steps.iter().filter_map(of).max()
        }
        longest(&self.steps).max(longest(&self.on_failure))
    }

    /// JSON Schema (draft 2020-12) of a workflow document, for editors.
    pub fn json_schema() -> Value {
        schema::workflow()
    }
}
