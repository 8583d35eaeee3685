//! The story of a run, for people: what the API and the terminal show.
//!
//! Told from the journal alone; a plan only adds what has not been reached yet and better labels.

mod attempt;
mod names;
mod outer;
mod step;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use self::names::{StepNames, may_hide_an_item};
pub use self::step::{StoryAttempt, StoryEffect, StoryHold, StoryStep};

use crate::command::CallId;
use crate::definition::Choice;
use crate::document::Document;
use crate::journal::{Awaits, EffectEnd, Entry, Target};
use crate::ledger::{EffectState, Ledger};
use crate::plan::{By, Node, NodeId, OWN, Plan, Program, Task};
use crate::time::Timestamp;

/// Events that were found by the key of a `wait_for` and not taken, as told with the step: the newest.
///
/// Limit: events told with a step that waited and did not take them | the newest are told, of the others how many | `events_that_a_step_did_not_take_stay_in_its_story`
pub const MAX_PASSED_OVER_TOLD: usize = 5;

/// Tells in a story what only its family knows of its unknown effects: how those that other runs left behind can be
/// repeated, and what people said. A decision stands in the journal of one run and is about the effect in all of them.
pub fn tell_family(steps: &mut [StoryStep], ledger: &Ledger) {
    for effect in steps.iter_mut().filter_map(|step| step.effect.as_mut()) {
        if effect.state == EffectState::Unknown.as_str()
            && let Some(record) = ledger.get(&effect.key)
        {
            effect.class = record.class.as_str();
            if let Some(decided) = &record.decided {
                effect.decide(decided);
            }
        }
    }
}

/// The story that the journal rows of one run tell, in the order in which it happened.
///
/// With the plan of an unfinished run, the steps that are still to come follow as `pending`.
///
/// `retried_at`: for a run that goes on where an earlier one failed, when it began. What came back before that was taken
/// over and is told so.
pub fn story(
    plan: Option<&Plan>,
    journals: &[(i32, Timestamp, Vec<Entry>)],
    retried_at: Option<Timestamp>,
) -> Vec<StoryStep> {
    let mut teller = Teller {
        program: plan.map(|plan| &*plan.program),
        steps: Vec::new(),
        by_path: BTreeMap::new(),
        calls: BTreeMap::new(),
        handled: BTreeSet::new(),
        limits: BTreeMap::new(),
        over: BTreeSet::new(),
        failed_parts: BTreeMap::new(),
        caught: BTreeSet::new(),
        passed_over: BTreeMap::new(),
        retried_at,
        names: StepNames::default(),
    };
    let mut ended = None;
    for (_, at, entries) in journals {
        for entry in entries {
            if let Entry::Finished(finished) = entry {
                ended = Some(finished.at);
            }
            teller.names.note(entry);
            teller.tell(entry, *at);
        }
    }
    teller.finish(ended);
    teller.tell_passed_over();
    let Teller { mut steps, names, .. } = teller;
    steps.iter_mut().for_each(|step| step.name = names.name(&step.path));
    steps
}

struct Teller<'a> {
    program: Option<&'a Program>,
    steps: Vec<StoryStep>,
    by_path: BTreeMap<String, usize>,
    calls: BTreeMap<CallId, String>,
    /// Paths of failures that something took care of, or with a dot at the end what such paths begin with.
    handled: BTreeSet<String>,
    /// Until when the steps in these may go on.
    limits: BTreeMap<String, Timestamp>,
    /// Steps that failed because the steps in them took too long.
    over: BTreeSet<String>,
    /// How many items or branches failed of those that collect failures.
    failed_parts: BTreeMap<String, usize>,
    /// `try` steps whose `try` failed.
    caught: BTreeSet<String>,
    /// The newest of the events that steps did not take, with why, and how many there were.
    passed_over: BTreeMap<String, (VecDeque<String>, usize)>,
    /// When a run began that goes on where another one failed.
    retried_at: Option<Timestamp>,
    names: StepNames,
}

fn path_of(of: &Target) -> String {
    match of {
        Target::Step(path) => path.to_string(),
        Target::Read(name) => format!("hydrate.{name}"),
    }
}

impl<'a> Teller<'a> {
    fn node(&self, path: &str) -> Option<&'a Node> {
        let program = self.program?;
        let node = program.by_id.get(path.rsplit('.').next()?)?;
        program.nodes.get(*node)
    }

    /// What the plan says about a step or read.
    fn label(&self, of: &Target) -> Option<(&'static str, String)> {
        let program = self.program?;
        match of {
            Target::Read(name) => {
                let read = program.reads.iter().find(|read| read.name() == &**name)?;
                Some(("read", format!("{}.{}", program.connector, read.operation())))
            }
            Target::Step(path) => {
                let node = self.node(path)?;
                let label = match &node.task {
                    Task::Call(call) if call.by != By::Connector => String::new(),
                    Task::Call(call) => format!("{}.{}", call.connector, call.operation),
                    Task::WaitFor(wait) => format!("{}.{}", wait.connector, wait.kind),
                    Task::If { condition } => condition.source().to_owned(),
                    Task::Switch(Choice::Value(value)) => value.source().to_owned(),
                    Task::ForEach(each) => each.list.source().to_owned(),
                    Task::Switch(Choice::Conditions(_))
                    | Task::Set { .. }
                    | Task::Parallel(_)
                    | Task::Sleep(_)
                    | Task::Try
                    | Task::Approve(_)
                    | Task::Compensate
                    | Task::Stop { .. } => String::new(),
                };
                Some((node.kind(), label))
            }
        }
    }

    fn step(&mut self, of: &Target, kind: &'static str, at: Timestamp) -> &mut StoryStep {
        let path = path_of(of);
        let position = match self.by_path.get(&path) {
            Some(position) => *position,
            None => {
                let (kind, label) = self.label(of).unwrap_or((kind, String::new()));
                self.by_path.insert(path.clone(), self.steps.len());
                self.steps.push(StoryStep {
                    path,
                    name: String::new(),
                    kind,
                    label,
                    status: "pending",
                    started_at: Some(at),
                    finished_at: None,
                    attempts: Vec::new(),
                    effect: None,
                    output: None,
                    note: None,
                    hold: None,
                    wait: None,
                });
                self.steps.len() - 1
            }
        };
        self.steps
            .get_mut(position)
            .expect("positions are taken from this list")
    }

    fn handed_out(&mut self, of: &Target, kind: &'static str, number: u32, at: Timestamp) -> &mut StoryStep {
        let step = self.step(of, kind, at);
        if let Some(last) = step.attempts.last_mut().filter(|last| last.outcome == "running") {
            last.outcome = "lost";
        }
        step.status = "running";
        step.note = None;
        step.hold = None;
        step.attempts.push(StoryAttempt {
            number,
            at,
            duration_ms: 0,
            outcome: "running",
            error: None,
            exchanges: Vec::new(),
            next_at: None,
        });
        step
    }

    fn through(&mut self, of: &Target, kind: &'static str, status: &'static str, at: Timestamp) -> &mut StoryStep {
        let step = self.step(of, kind, at);
        step.status = status;
        step.finished_at = Some(at);
        step.hold = None;
        step.wait = None;
        step
    }

    fn tell(&mut self, entry: &Entry, at: Timestamp) {
        let step_of = |path: &std::sync::Arc<str>| Target::Step(std::sync::Arc::clone(path));
        match entry {
            Entry::Issued(issued) => {
                self.calls.insert(issued.call, path_of(&issued.of));
                let kind = if matches!(issued.of, Target::Read(_)) {
                    "read"
                } else {
                    "call"
                };
                self.handed_out(&issued.of, kind, issued.attempt, issued.at);
            }
            Entry::Intended(intent) => {
                self.calls.insert(intent.call, intent.step.to_string());
                let step = self.handed_out(&step_of(&intent.step), "call", 1, at);
                step.label = match &*intent.connector {
                    OWN => own_label(&intent.args),
                    connector => format!("{connector}.{}", intent.operation),
                };
                step.effect = Some(StoryEffect::new(
                    intent.key,
                    intent.class.as_str(),
                    EffectState::Intended,
                ));
            }
            Entry::Attempt(attempt) => self.came_back(attempt),
            Entry::Postponed(postponed) => {
                let path = self.calls.get(&postponed.call);
                if let Some(step) = path
                    .and_then(|path| self.by_path.get(path))
                    .and_then(|at| self.steps.get_mut(*at))
                {
                    step.status = "waiting";
                    step.note = Some(postponed.reason.to_string());
                    if let Some(last) = step.attempts.last_mut() {
                        last.outcome = if last.outcome == "running" {
                            "lost"
                        } else {
                            last.outcome
                        };
                        last.next_at = Some(postponed.until);
                    }
                }
            }
            Entry::Held(held) => self.held(held, at),
            Entry::Answered(answered) => {
                let step = self.through(&step_of(&answered.step), "call", "answered", at);
                step.effect = Some(StoryEffect::new(
                    answered.key,
                    answered.class.as_str(),
                    EffectState::Confirmed,
                ));
                step.output = Some(answered.output.clone());
                step.note = Some(format!("run {} did this already", answered.run));
            }
            Entry::Unknown(unknown) => {
                let step = self.through(&step_of(&unknown.step), "call", "unknown", at);
                let class = step.effect.as_ref().map_or("", |effect| effect.class);
                step.effect = Some(StoryEffect::new(unknown.key, class, EffectState::Unknown));
                step.note = Some(unknown.reason.to_string());
            }
            Entry::Abandoned(abandoned) => {
                let status = if abandoned.effect == Some(EffectEnd::Unknown) {
                    "unknown"
                } else {
                    "canceled"
                };
                let step = self.through(&abandoned.of, "call", status, at);
                step.give_up_try();
                step.settle(abandoned.effect);
            }
            Entry::ReadSkipped(skipped) => {
                let of = Target::Read(std::sync::Arc::clone(&skipped.name));
                self.through(&of, "read", "skipped", at).note = Some(skipped.reason.to_string());
            }
            Entry::Skipped(skipped) => {
                self.through(&step_of(&skipped.step), "call", "skipped", at).note =
                    Some("its `when` was not true".to_owned());
            }
            Entry::Branch(branch) if matches!(self.label(&step_of(&branch.step)), Some(("try", _))) => {
                self.through(&step_of(&branch.step), "try", "succeeded", at);
            }
            Entry::Branch(branch) => {
                let step = self.through(&step_of(&branch.step), "if", "succeeded", at);
                let taken = branch.taken.label().unwrap_or("nowhere");
                step.label = if step.label.is_empty() {
                    taken.to_owned()
                } else {
                    format!("{} → {taken}", step.label)
                };
            }
            Entry::Set(set) => {
                self.through(&step_of(&set.step), "set", "succeeded", at).output = Some(set.output.clone())
            }
            Entry::Items(items) => {
                let step = self.through(&step_of(&items.step), "for_each", "succeeded", at);
                let count = items.items.len();
                let noun = if count == 1 { "item" } else { "items" };
                step.label = if step.label.is_empty() {
                    format!("{count} {noun}")
                } else {
                    format!("{}: {count} {noun}", step.label)
                };
            }
            Entry::Forked(forked) => {
                self.through(&step_of(&forked.step), "parallel", "succeeded", at);
            }
            Entry::Limited(limited) => {
                self.limits.insert(limited.step.to_string(), limited.until);
            }
            Entry::RanOver(over) => self.ran_over(over, at),
            Entry::Caught(caught) => self.caught(caught, at),
            Entry::Slept(slept) => {
                let step = self.step(&step_of(&slept.step), "sleep", at);
                step.status = "waiting";
                step.label = format!("until {}", slept.until);
            }
            Entry::Woke(woke) => {
                self.through(&step_of(&woke.step), "sleep", "succeeded", at);
            }
            Entry::Awaited(awaited) => {
                let (kind, label) = match &awaited.what {
                    Awaits::Event {
                        connector,
                        kind,
                        equals,
                        ..
                    } => ("wait_for", format!("{connector}.{kind} for {equals:?}")),
                    Awaits::Approval { title, .. } => ("approve", title.to_string()),
                    Awaits::Run { run } => ("run", run.to_string()),
                };
                let step = self.step(&step_of(&awaited.step), kind, awaited.at);
                step.status = "waiting";
                step.label = match (&awaited.what, step.label.split(' ').next()) {
                    (Awaits::Run { .. }, Some(workflow)) if !workflow.is_empty() => format!("{workflow} {label}"),
                    _ => label,
                };
                step.finished_at = None;
                step.note = Some(format!("until {}", awaited.until));
                step.wait = Some(awaited.clone());
            }
            Entry::Arrived(arrived) => {
                let step = self.through(&step_of(&arrived.step), "wait_for", "succeeded", at);
                step.note = match step.kind {
                    "approve" => Some(decided_by(&arrived.output)),
                    _ => None,
                };
                step.output = Some(arrived.output.clone());
            }
            Entry::PassedOver(passed) => {
                self.step(&step_of(&passed.step), "wait_for", at);
                let (newest, count) = self.passed_over.entry(passed.step.to_string()).or_default();
                *count += 1;
                newest.push_back(format!("{} was not taken: {}", passed.event, passed.reason));
                if newest.len() > MAX_PASSED_OVER_TOLD {
                    newest.pop_front();
                }
            }
            Entry::Compensating(compensating) => {
                let step = self.step(&step_of(&compensating.step), "compensate", at);
                step.status = "running";
                step.label = compensating.of.join(", ");
            }
            Entry::Compensated(compensated) => {
                let step = self.through(&step_of(&compensated.step), "compensate", "succeeded", at);
                step.output = Some(compensated.output.clone());
            }
            Entry::Stopped(stopped) => {
                let step = self.through(&step_of(&stopped.step), "stop", "succeeded", at);
                step.note = Some(stopped.reason.to_string()).filter(|reason| !reason.is_empty());
            }
            Entry::StepFailed(failed) => {
                self.through(&failed.of, "call", "failed", at).note = Some(failed.message.to_string());
                if failed.continued {
                    self.handled.insert(path_of(&failed.of));
                }
            }
            Entry::Decided(decided) => {
                let step = self.by_path.get(&*decided.step).and_then(|at| self.steps.get_mut(*at));
                let effect = step.and_then(|step| step.effect.as_mut());
                if let Some(effect) = effect.filter(|effect| effect.key == decided.key) {
                    effect.decide(decided);
                }
            }
            Entry::Hurried(hurried) => {
                for call in &hurried.calls {
                    let last = self.step(&call.of, "call", at).attempts.last_mut();
                    if let Some(next_at) = last.and_then(|last| last.next_at.as_mut()) {
                        *next_at = call.until;
                    }
                }
            }
            Entry::FailureTaken(_)
            | Entry::Paused(_)
            | Entry::Resumed(_)
            | Entry::CancelAsked(_)
            | Entry::TimedOut(_)
            | Entry::Outgrown(_)
            | Entry::Finished(_) => {}
        }
    }

    /// What a step did not take stands below what became of it, whether it still waits or not.
    fn tell_passed_over(&mut self) {
        for (path, (newest, count)) in &self.passed_over {
            let step = self.by_path.get(path).and_then(|at| self.steps.get_mut(*at));
            let Some(step) = step else { continue };
            let earlier = count - newest.len();
            let earlier = (earlier > 0).then(|| format!("{earlier} earlier ones were not taken either"));
            let lines = step
                .note
                .take()
                .into_iter()
                .chain(newest.iter().cloned())
                .chain(earlier);
            step.note = Some(lines.collect::<Vec<_>>().join("\n"));
        }
    }

    /// The steps that are still to come; those inside loops are known only when their items are.
    fn pending(&mut self, program: &Program, block: &[NodeId], prefix: &str) {
        for node in block {
            let Some(node) = program.nodes.get(*node) else {
                continue;
            };
            let path = format!("{prefix}{}", node.id);
            let of = Target::Step(std::sync::Arc::from(path.as_str()));
            let is_told = self.by_path.contains_key(&path);
            if !is_told {
                self.step(&of, node.kind(), Timestamp::from_unix_ms(0)).started_at = None;
                continue;
            }
            for block in &node.blocks {
                let inside = format!("{path}.{}.", block.label);
                if self.inside(&inside).next().is_some() {
                    self.pending(program, &block.steps, &inside);
                }
            }
        }
    }
}

/// What is said of a call that an earlier run of the family made.
const TAKEN_OVER: &str = "taken over from the run before, not sent again";

/// Who decided for what an `approve` asked, and with which words.
fn decided_by(output: &Document) -> String {
    let output = output.value();
    let text = |name: &str| output.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    match text("note") {
        "" => format!("approved by {}", text("by")),
        note => format!("approved by {}: {note}", text("by")),
    }
}

/// What Weir itself was asked to do, in a word: the workflow, the type of the event, the status.
fn own_label(args: &Document) -> String {
    let args = args.value();
    let named = ["workflow", "type"]
        .into_iter()
        .find_map(|name| args.get(name)?.as_str().map(str::to_owned));
    named.unwrap_or_else(|| args.get("status").map(ToString::to_string).unwrap_or_default())
}
