//! The names in expressions: whether they exist, and whether they exist at that point of the workflow.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Resolution;
use super::schema::{Unknown, rules_out};
use crate::catalogue::{Catalogue, HydrateMode};
use crate::definition::{Action, Definition, ITEM, Join, OnError, Step, Trigger, Try};
use crate::document::PathPart;
use crate::expression::{Expression, Use};
use crate::problem::Problem;
use crate::run::{ARRIVED, BATCH, EVENT_MEMBERS, STEP_ROOTS};

const RUN_MEMBERS: [&str; 6] = ["id", "root_id", "replay_of", "workflow", "version", "started_at"];
const CONNECTION_MEMBERS: [&str; 4] = ["name", "connector", "account", "config"];
const ERROR_MEMBERS: [&str; 3] = ["code", "message", "step"];
const TRIGGER_MEMBERS: [&str; 3] = ["kind", "endpoint", "scheduled_for"];

/// Whether a step has an output at some point.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    /// It ran.
    Surely,
    /// It may have been skipped, failed, or stand in a branch not taken.
    Perhaps,
    /// It runs once per item of a loop that is over.
    InLoop,
}

/// What is known of the output of a step.
enum Shape {
    Schema(Value),
    Names(Vec<String>),
    Open,
}

/// The walk over the steps that knows what has run.
pub(super) struct Names<'a> {
    resolution: &'a Resolution,
    catalogue: &'a dyn Catalogue,
    problems: &'a mut Vec<Problem>,
    /// Whether the trigger itself says `hydrate: never`.
    says_never: bool,
    /// Whether a run stands for several events.
    has_batch: bool,
    /// Every id of the document.
    ids: Vec<&'a str>,
    known: BTreeMap<&'a str, Known>,
    /// For steps in loops that are over: the loop.
    loops: BTreeMap<&'a str, &'a str>,
    shapes: BTreeMap<&'a str, Shape>,
    /// Names of the items of the loops around.
    items: Vec<&'a str>,
    /// Whether `item` was used where the innermost loop calls its own otherwise.
    item_is_outer: bool,
    /// How many blocks around handle a failure.
    handlers: usize,
    /// Whether the event that a step waits for is there.
    sees_arrived: bool,
}

fn ids<'a>(steps: &'a [Step], into: &mut Vec<&'a str>) {
    for step in steps {
        into.push(&step.id);
        for block in step.blocks() {
            ids(block, into);
        }
    }
}

impl<'a> Names<'a> {
    pub(super) fn new(
        definition: &'a Definition,
        resolution: &'a Resolution,
        catalogue: &'a dyn Catalogue,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        let mut all = Vec::new();
        ids(&definition.steps, &mut all);
        ids(&definition.on_failure, &mut all);
        Self {
            resolution,
            catalogue,
            problems,
            says_never: matches!(
                definition.trigger(),
                Trigger::Event {
                    hydrate: Some(HydrateMode::Never),
                    ..
                }
            ),
            has_batch: definition.flow.batch.is_some(),
            ids: all,
            known: BTreeMap::new(),
            loops: BTreeMap::new(),
            shapes: BTreeMap::new(),
            items: Vec::new(),
            item_is_outer: false,
            handlers: 0,
            sees_arrived: false,
        }
    }

    /// Checks the steps of a block in order.
    pub(super) fn block(&mut self, steps: &'a [Step]) {
        let mut stopped: Option<&Step> = None;
        for step in steps {
            if let Some(stop) = stopped {
                let message = format!("this step is never reached: `{}` always ends the run", stop.id);
                self.problems
                    .push(Problem::new(&step.pointer, "unreachable_step", message));
            }
            for expression in step.expressions() {
                self.expression(expression);
            }
            self.inside(step);
            self.handlers_of(step);
            let may_fail = matches!(step.on_error, OnError::Continue);
            let surely = step.when.is_none() && !may_fail;
            self.known
                .insert(&step.id, if surely { Known::Surely } else { Known::Perhaps });
            let shape = self.shape(step);
            self.shapes.insert(&step.id, shape);
            self.undo_of(step);
            if step.always_ends() {
                stopped = stopped.or(Some(step));
            }
        }
    }

    fn inside(&mut self, step: &'a Step) {
        match &step.action {
            // One of the blocks is taken, or none.
            Action::If { .. } | Action::Switch(_) => {
                let before = self.known.clone();
                let mut after = before.clone();
                for block in step.blocks() {
                    self.known.clone_from(&before);
                    self.block(block);
                    after.append(&mut self.known);
                }
                self.known = after;
                self.doubt(&before);
            }
            Action::WaitFor(wait) => {
                self.sees_arrived = true;
                if let Some(filter) = &wait.filter {
                    self.expression(filter);
                }
                self.sees_arrived = false;
            }
            Action::Try(guarded) => self.guarded(guarded),
            // The branches do not see each other.
            Action::Parallel(parallel) => {
                let before = self.known.clone();
                let mut after = before.clone();
                for (_, block) in &parallel.branches {
                    self.known.clone_from(&before);
                    self.block(block);
                    after.append(&mut self.known);
                }
                self.known = after;
                if parallel.join != Join::All {
                    self.doubt(&before);
                }
            }
            Action::ForEach(each) => {
                let before = self.known.clone();
                self.items.push(&each.item_name);
                if let Some(key) = &each.key {
                    self.expression(key);
                }
                self.block(&each.steps);
                self.items.pop();
                let mut inner = Vec::new();
                ids(&each.steps, &mut inner);
                self.known = before;
                for id in inner {
                    self.known.insert(id, Known::InLoop);
                    self.loops.entry(id).or_insert(&step.id);
                }
            }
            Action::Call(_)
            | Action::Set { .. }
            | Action::Sleep(_)
            | Action::Approve(_)
            | Action::Run(_)
            | Action::Emit(_)
            | Action::Respond(_)
            | Action::Compensate
            | Action::Stop { .. } => {}
        }
    }

    /// What undoes the step is done after it was done, and nothing else sees it.
    fn undo_of(&mut self, step: &'a Step) {
        if step.undo.is_empty() {
            return;
        }
        let before = self.known.clone();
        self.known.insert(&step.id, Known::Surely);
        self.block(&step.undo);
        self.known = before;
    }

    /// The steps for a failure of the step itself: one of these blocks is taken, or none.
    fn handlers_of(&mut self, step: &'a Step) {
        let on_error: &[Step] = match &step.on_error {
            OnError::Steps(steps) => steps,
            OnError::Fail | OnError::Continue => &[],
        };
        let blocks = [on_error, &step.on_timeout, &step.on_reject];
        if blocks.iter().all(|block| block.is_empty()) {
            return;
        }
        let before = self.known.clone();
        let mut after = before.clone();
        for block in blocks {
            self.known.clone_from(&before);
            // They see how the step came out.
            self.known.insert(&step.id, Known::Perhaps);
            self.handler(block);
            after.append(&mut self.known);
        }
        self.known = after;
        self.doubt(&before);
    }

    fn guarded(&mut self, guarded: &'a Try) {
        let before = self.known.clone();
        self.block(&guarded.steps);
        // Without `catch`, what follows is only reached when all of `try` ran.
        let passed = guarded.catch.is_empty().then(|| self.known.clone());
        self.doubt(&before);
        self.handler(&guarded.catch);
        self.doubt(&before);
        self.block(&guarded.finally);
        if let Some(mut passed) = passed {
            let after = std::mem::take(&mut self.known);
            for (id, known) in after {
                passed.entry(id).or_insert(known);
            }
            self.known = passed;
        }
    }

    /// Steps that run after a failure and see it.
    fn handler(&mut self, steps: &'a [Step]) {
        self.handlers += 1;
        self.block(steps);
        self.handlers -= 1;
    }

    /// The steps of `on_failure`, after any of the others may have failed.
    pub(super) fn on_failure(&mut self, steps: &'a [Step]) {
        self.doubt(&BTreeMap::new());
        self.handler(steps);
    }

    /// What was not known before may not have run.
    fn doubt(&mut self, before: &BTreeMap<&'a str, Known>) {
        for (id, known) in &mut self.known {
            if *known == Known::Surely && !before.contains_key(id) {
                *known = Known::Perhaps;
            }
        }
    }

    fn shape(&self, step: &Step) -> Shape {
        let names = |names: &[&str]| Shape::Names(names.iter().map(|name| (*name).to_owned()).collect());
        match &step.action {
            Action::Set { names, .. } => Shape::Names(names.clone()),
            Action::Call(_) => {
                let call = self.resolution.calls.get(&step.id);
                let schema = call.and_then(|call| {
                    self.catalogue
                        .operation(&call.connector, call.connection.as_deref(), &call.operation)
                });
                schema
                    .and_then(|info| info.output_schema)
                    .map_or(Shape::Open, Shape::Schema)
            }
            // What it gives then is what these steps give.
            Action::WaitFor(_) | Action::Approve(_) | Action::Run(_) | Action::Emit(_)
                if !step.branches().is_empty() =>
            {
                Shape::Open
            }
            Action::WaitFor(_) => names(&["id", "uid", "type", "time", "account", "data"]),
            Action::Approve(_) => names(&["approved", "by", "note", "at"]),
            Action::Run(run) if run.wait.is_some() => names(&["run", "output"]),
            Action::Run(_) => names(&["run"]),
            Action::Emit(_) => names(&["id"]),
            Action::Respond(_) => names(&["delivered", "unfit"]),
            Action::Compensate => names(&["undone"]),
            Action::If { .. }
            | Action::Switch(_)
            | Action::ForEach(_)
            | Action::Sleep(_)
            | Action::Try(_)
            | Action::Parallel(_)
            | Action::Stop { .. } => Shape::Open,
        }
    }

    /// Whether `item` is somewhere that of a loop around the innermost one.
    pub(super) fn item_is_outer(&self) -> bool {
        self.item_is_outer
    }

    fn expression(&mut self, expression: &Expression) {
        let renames = self.items.last().is_some_and(|name| *name != ITEM);
        for used in expression.uses() {
            self.item_is_outer |= renames && used.root == ITEM && self.items.contains(&ITEM);
            if let Some(problem) = self.problem(used, expression.pointer()) {
                self.problems.push(problem);
            }
        }
    }

    fn problem(&self, used: &Use, pointer: &str) -> Option<Problem> {
        match used.root.as_str() {
            "event" if used.first_key() == Some(BATCH) => self.batch(pointer),
            "event" => members(used, pointer, &EVENT_MEMBERS),
            "run" => members(used, pointer, &RUN_MEMBERS),
            "connection" => members(used, pointer, &CONNECTION_MEMBERS),
            "trigger" => members(used, pointer, &TRIGGER_MEMBERS),
            "now" => members(used, pointer, &[]),
            "hydrated" => self.hydrated(used, pointer),
            "provenance" => self.hydrated(used, pointer),
            "steps" => self.step(used, pointer),
            "results" => self.result(used, pointer),
            "error" if self.handlers > 0 => members(used, pointer, &ERROR_MEMBERS),
            ARRIVED if self.sees_arrived => members(used, pointer, &EVENT_MEMBERS),
            "index" if !self.items.is_empty() => members(used, pointer, &[]),
            name if self.items.contains(&name) => None,
            name => Some(self.unknown_root(name, pointer)),
        }
    }

    fn batch(&self, pointer: &str) -> Option<Problem> {
        let message = "`event.batch` exists only in a workflow with `batch`";
        (!self.has_batch).then(|| Problem::new(pointer, "unknown_path", message))
    }

    fn unknown_root(&self, name: &str, pointer: &str) -> Problem {
        if name == "error" {
            let message = "`error` exists only in `catch`, `on_error` and `on_failure`";
            return Problem::new(pointer, "unknown_name", message);
        }
        if name == ARRIVED {
            let message = format!("`{ARRIVED}` exists only in `key` and `where` of a `wait_for`");
            return Problem::new(pointer, "unknown_name", message);
        }
        if matches!(name, ITEM | "index") && self.items.is_empty() {
            let message = format!("`{name}` exists only inside a `for_each`");
            return Problem::new(pointer, "unknown_name", message);
        }
        let problem = Problem::new(pointer, "unknown_name", format!("there is no `{name}`"));
        if let (ITEM, Some(called)) = (name, self.items.last()) {
            let message = format!("`{ITEM}` is called `{called}` here: the `for_each` says `as: {called}`");
            return Problem::new(pointer, "unknown_name", message).suggest(format!("did you mean `{called}`?"));
        }
        if self.ids.contains(&name) {
            return problem.suggest(format!("did you mean `steps.{name}`?"));
        }
        if self.resolution.reads.iter().any(|read| read.name == name) {
            return problem.suggest(format!("did you mean `hydrated.{name}`?"));
        }
        let mut known: Vec<&str> = STEP_ROOTS.into_iter().chain(self.items.iter().copied()).collect();
        known.extend((self.handlers > 0).then_some("error"));
        known.extend(self.sees_arrived.then_some(ARRIVED));
        known.extend((!self.items.is_empty()).then_some("index"));
        let problem = problem.did_you_mean(name, known.iter().copied());
        match problem.suggestion {
            Some(_) => problem,
            None => problem.suggest(format!("known: {}", known.join(", "))),
        }
    }

    /// Why nothing is read: the trigger says so, or the connector does.
    fn not_hydrated(&self, root: &str, pointer: &str) -> Problem {
        if self.says_never {
            let message = format!("`{root}` is empty: the trigger says `hydrate: never`");
            return Problem::new(pointer, "not_hydrated", message).suggest("remove `hydrate: never`");
        }
        let connector = self.resolution.connector.as_deref().unwrap_or_default();
        let kind = self.resolution.event_type.as_deref().unwrap_or_default();
        let message = format!("`{root}` is empty: the connector reads nothing for `{connector}.{kind}`");
        let problem = Problem::new(pointer, "not_hydrated", message);
        if !self.resolution.reads.is_empty() {
            return problem.suggest("write `hydrate: always` in the trigger");
        }
        let known = self.catalogue.event_types(connector);
        let others = known
            .iter()
            .map(String::as_str)
            .filter(|known| *known != kind && *known != "*");
        problem.did_you_mean(kind, others)
    }

    fn hydrated(&self, used: &Use, pointer: &str) -> Option<Problem> {
        let root = &used.root;
        if self.resolution.connector.is_none() {
            let message = format!("`{root}` is empty: a manual start reads nothing");
            return Some(Problem::new(pointer, "not_hydrated", message));
        }
        if self.resolution.hydrate == HydrateMode::Never {
            return Some(self.not_hydrated(root, pointer));
        }
        let reads = &self.resolution.reads;
        let Some(name) = used.first_key() else {
            return match used.parts.is_empty() {
                true => None,
                false => Some(Problem::new(
                    pointer,
                    "unknown_path",
                    format!("`{root}` has names, no numbers"),
                )),
            };
        };
        let Some(read) = reads.iter().find(|read| read.name == name) else {
            let known: Vec<&str> = reads.iter().map(|read| read.name.as_str()).collect();
            let message = match known.is_empty() {
                true => format!("there is no read `{name}`: this event type has none"),
                false => format!("there is no read `{name}`; there are {}", known.join(", ")),
            };
            return Some(Problem::new(pointer, "unknown_read", message).did_you_mean(name, known.iter().copied()));
        };
        let connector = self.resolution.connector.as_deref().unwrap_or_default();
        let schema = self
            .catalogue
            .operation(connector, self.resolution.connection.as_deref(), &read.operation)
            .and_then(|info| info.output_schema);
        match (root.as_str(), schema, read.all_max) {
            ("hydrated", Some(schema), None) => {
                let rest = used.parts.get(1..).unwrap_or_default();
                rules_out(&schema, rest).map(|unknown| unknown_path(used, pointer, &unknown))
            }
            _ => None,
        }
    }

    /// The id that a use of `steps` or `results` names, when it exists before this point.
    fn earlier(&self, used: &Use, pointer: &str) -> Result<(&str, Known), Problem> {
        let Some(id) = used.first_key() else {
            let message = format!("`{}` stands for all steps; name one: `{}.<id>`", used.root, used.root);
            return Err(Problem::new(pointer, "unknown_path", message));
        };
        let Some(id) = self.ids.iter().find(|known| **known == id) else {
            let problem = Problem::new(pointer, "unknown_step_id", format!("there is no step `{id}`"));
            return Err(problem.did_you_mean(id, self.ids.iter().copied()));
        };
        match self.known.get(id) {
            Some(Known::InLoop) => {
                let outer = self.loops.get(id).copied().unwrap_or_default();
                let message = format!("`{id}` runs once per item of `{outer}` and is seen only inside of it");
                let problem = Problem::new(pointer, "step_in_loop", message);
                Err(problem.suggest(format!(
                    "`steps.{outer}` is the list of what its last step gave for each item"
                )))
            }
            Some(known) => Ok((id, *known)),
            None => {
                let message = format!("`{id}` has not run when this is evaluated");
                Err(Problem::new(pointer, "forward_reference", message).suggest("use only steps that come before"))
            }
        }
    }

    fn step(&self, used: &Use, pointer: &str) -> Option<Problem> {
        let (id, known) = match self.earlier(used, pointer) {
            Ok(found) => found,
            Err(problem) => return Some(problem),
        };
        if known == Known::Perhaps && !used.guarded {
            let message = format!("`{id}` may not have run, so `{}` may not be there", used.text());
            let hint = format!("say what to use instead: `{} | default(…)`", used.text());
            return Some(Problem::new(pointer, "may_not_have_run", message).suggest(hint));
        }
        let rest = used.parts.get(1..).unwrap_or_default();
        let unknown = match (self.shapes.get(id)?, rest.first()) {
            (Shape::Schema(schema), _) => rules_out(schema, rest)?,
            (Shape::Names(names), Some(PathPart::Key(member))) if !names.contains(member) => Unknown {
                member: member.clone(),
                known: names.clone(),
            },
            (Shape::Names(_) | Shape::Open, _) => return None,
        };
        Some(unknown_path(used, pointer, &unknown))
    }

    fn result(&self, used: &Use, pointer: &str) -> Option<Problem> {
        if let Err(problem) = self.earlier(used, pointer) {
            return Some(problem);
        }
        let known = ["status", "http", "error", "attempts"];
        match used.parts.get(1) {
            Some(PathPart::Key(member)) if !known.contains(&member.as_str()) => {
                let unknown = Unknown {
                    member: member.clone(),
                    known: known.map(str::to_owned).to_vec(),
                };
                Some(unknown_path(used, pointer, &unknown))
            }
            _ => None,
        }
    }
}

fn unknown_path(used: &Use, pointer: &str, unknown: &Unknown) -> Problem {
    let message = format!(
        "`{}`: there is no `{}`; there are {}",
        used.text(),
        unknown.member,
        unknown.known.join(", ")
    );
    let problem = Problem::new(pointer, "unknown_path", message);
    match unknown.suggestion() {
        Some(suggestion) => problem.suggest(suggestion),
        None => problem,
    }
}

fn members(used: &Use, pointer: &str, known: &[&str]) -> Option<Problem> {
    match used.parts.first() {
        None => None,
        Some(PathPart::Key(member)) if known.contains(&member.as_str()) => None,
        Some(PathPart::Key(_)) if known.is_empty() => Some(Problem::new(
            pointer,
            "unknown_path",
            format!("`{}` has no members", used.root),
        )),
        Some(PathPart::Key(member)) => {
            let unknown = Unknown {
                member: member.clone(),
                known: known.iter().map(|name| (*name).to_owned()).collect(),
            };
            Some(unknown_path(used, pointer, &unknown))
        }
        Some(PathPart::Index(_)) => Some(Problem::new(
            pointer,
            "unknown_path",
            format!("`{}` is not a list", used.root),
        )),
    }
}
