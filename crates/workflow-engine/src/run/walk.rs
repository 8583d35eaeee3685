//! The walk over the steps of a run: what can go on does, until only calls and timers are open.
//!
//! The walk holds no state of its own between decisions. It looks at where every step stands and does the next thing,
//! so it does not matter after which entry a process was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::scope::{ReadNames, RunScope};
use super::sleep::{self, MAX_SLEEP};
use super::state::{Place, ReadState, RunState, Slot, Verdict};
use super::{Environment, MAX_ENTRIES_PER_DECISION, MAX_ITEMS};
use crate::command::{CallId, Command};
use crate::definition::{Choice, DEFAULT_CASE, Sleep, SleepHow};
use crate::document::{self, Document};
use crate::effect::{fingerprint, path_text};
use crate::expression::{Expression, ExpressionError, Found, sample};
use crate::journal::{
    BranchSide, BranchTaken, Ending, Entry, Forked, Item, ItemsTaken, Outgrown, ReadSkipped, SetDone, Skipped, Slept,
    StepFailed, Stopped, Target, Woke,
};
use crate::plan::{Block, LoopTask, Node, NodeId, Program, Task};
use crate::time::Timestamp;

/// A decision in the making.
pub(super) struct Walk<'a> {
    pub(super) program: &'a Program,
    pub(super) run: RunState,
    pub(super) environment: &'a dyn Environment,
    pub(super) now: Timestamp,
    pub(super) entries: Vec<Entry>,
    pub(super) commands: Vec<Command>,
    /// Calls that began in this decision.
    pub(super) fresh: BTreeSet<CallId>,
    /// The decision is long enough; there is more to do.
    pub(super) cut: bool,
}

/// Why a step fails without a call.
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl From<ExpressionError> for Fault {
    fn from(error: ExpressionError) -> Self {
        Self {
            code: "expression_failed",
            message: error.to_string(),
        }
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(program: &'a Program, run: RunState, environment: &'a dyn Environment, now: Timestamp) -> Self {
        Self {
            program,
            run,
            environment,
            now,
            entries: Vec::new(),
            commands: Vec::new(),
            fresh: BTreeSet::new(),
            cut: false,
        }
    }

    /// Decides an entry: the run takes it in at once.
    pub(super) fn push(&mut self, entry: Entry) {
        self.run.fold(&entry);
        self.entries.push(entry);
    }

    pub(super) fn fail(&mut self, of: Target, fault: Fault) {
        let continued = self.run.goes_on(&of, fault.code);
        let message = Arc::from(fault.message);
        self.push(Entry::StepFailed(StepFailed {
            of,
            code: Arc::from(fault.code),
            message,
            continued,
        }));
    }

    pub(super) fn scope<'s>(&'s self, place: &'s Place) -> RunScope<'s> {
        RunScope::new(&self.run, self.program, self.environment, self.now, place)
    }

    pub(super) fn is_over(&self) -> bool {
        self.run.ending.is_some() || self.run.foreign.is_some() || self.run.paused.is_some() || self.cut
    }

    /// Does everything that can be done now.
    pub(super) fn advance(&mut self) {
        if self.is_over() {
            return;
        }
        self.issue_due();
        // A run that failed reads nothing more.
        if self.is_over() || (self.run.failed.is_none() && !self.reads()) {
            return;
        }
        let program = self.program;
        let (block, ending) = match &self.run.failed {
            Some(ending) => (&program.on_failure, ending.clone()),
            None => (&program.top, Ending::Succeeded),
        };
        let through = self.block(block, &mut Vec::new());
        if through && !self.is_over() {
            self.finish(ending);
        }
    }

    /// Begins every hydration read that can begin; true when all of them are over.
    fn reads(&mut self) -> bool {
        let mut over = true;
        let mut moved = true;
        while moved && !self.is_over() {
            moved = false;
            over = true;
            for (position, read) in self.program.reads.iter().enumerate() {
                let state = |at: usize| self.run.reads.get(at).unwrap_or(&ReadState::Null);
                match state(position) {
                    _ if !read.wanted => continue,
                    ReadState::Done { .. } | ReadState::Null => continue,
                    ReadState::Open => {
                        over = false;
                        continue;
                    }
                    ReadState::Pending => {}
                }
                over = false;
                let is_through = |at: &usize| match state(*at) {
                    ReadState::Done { .. } | ReadState::Null => true,
                    ReadState::Pending | ReadState::Open => false,
                };
                if !read.after.iter().all(is_through) {
                    continue;
                }
                moved = true;
                let is_null = |at: &&usize| matches!(state(**at), ReadState::Null);
                let absent = read
                    .needs
                    .iter()
                    .find(is_null)
                    .and_then(|at| self.program.reads.get(*at));
                let reason = match (&read.when, absent) {
                    (Some(when), _) if !when.truth_or_absent(&ReadNames { run: &self.run }) => {
                        Some(format!("`{}` is not true", when.source()))
                    }
                    (_, Some(absent)) => Some(format!("`{}` has no output", absent.name())),
                    (_, None) => None,
                };
                let name: Arc<str> = Arc::from(read.name());
                match reason {
                    Some(reason) => {
                        self.push(Entry::ReadSkipped(ReadSkipped {
                            name,
                            reason: Arc::from(reason),
                        }));
                    }
                    None => self.start_read(position, name),
                }
                if self.is_over() {
                    break;
                }
            }
        }
        over
    }

    /// Walks the steps of a block in order; true when all are through.
    pub(super) fn block(&mut self, block: &'a [NodeId], items: &mut Vec<usize>) -> bool {
        for node in block {
            let place = Place {
                node: *node,
                items: items.clone(),
            };
            match self.run.slot(&place) {
                Some(Slot::Pending) => {
                    self.start(&place);
                    // A replay knows at once which run its first run started.
                    if let Some(Slot::Begun(_)) = self.run.slot(&place) {
                        self.wait(&place);
                    }
                }
                Some(Slot::Begun(_) | Slot::Waiting(_)) => self.wait(&place),
                _ => {}
            }
            if self.is_over() {
                return false;
            }
            let Some(slot) = self.run.slot(&place).cloned() else {
                return false;
            };
            let Some(node) = self.program.nodes.get(*node) else {
                return false;
            };
            let through = match (slot, &node.task) {
                (Slot::Closed(_), _) => true,
                (Slot::Inside(number), _) => match node.blocks.get(number) {
                    Some(inside) => self.block(&inside.steps, items),
                    None => false,
                },
                (Slot::Loop(_), Task::ForEach(each)) => self.items(&place, each, items),
                (Slot::Fork(_), _) => self.forked(&place, node, items),
                (Slot::Guard(_), _) => self.guarded(&place, node, items),
                (Slot::Undo(_), _) => self.undo(&place),
                (Slot::Rescue(rescue), _) => match node.blocks.get(rescue.block) {
                    Some(inside) => self.block(&inside.steps, items),
                    None => false,
                },
                (Slot::Asleep(until), _) if until <= self.now => {
                    let step = self.run.path(&place);
                    self.push(Entry::Woke(Woke { step }));
                    true
                }
                (
                    Slot::Pending | Slot::Open | Slot::Asleep(_) | Slot::Begun(_) | Slot::Waiting(_) | Slot::Loop(_),
                    _,
                ) => false,
            };
            if !through || self.is_over() || self.was_left(&place) {
                return false;
            }
        }
        true
    }

    /// Whether a step that is through failed, and what follows it is not reached.
    fn was_left(&self, place: &Place) -> bool {
        let failed = matches!(self.run.slot(place), Some(Slot::Closed(closed)) if closed.verdict == Verdict::Failed);
        failed && self.run.is_settling(place)
    }

    /// Walks the items of a loop, as many at a time as it allows; true when all are through.
    fn items(&mut self, place: &Place, each: &'a LoopTask, items: &mut Vec<usize>) -> bool {
        let mut at = match self.run.slot(place) {
            Some(Slot::Loop(state)) => state.first_open,
            _ => return true,
        };
        let mut active = 0;
        while active < each.concurrency {
            let item = match self.run.slot(place) {
                Some(Slot::Loop(state)) => state.items.get(at),
                // The last open item was through at once.
                _ => return true,
            };
            let Some(item) = item else { return false };
            if item.output.is_none() {
                let settles = item.settling.is_some();
                items.push(at);
                let through = !settles && self.block(&each.body, items);
                items.pop();
                if self.is_over() {
                    return false;
                }
                if !through && !self.item_is_settled(place, at) {
                    if self.run.is_settling(place) {
                        return false;
                    }
                    active += 1;
                }
            }
            at += 1;
        }
        !matches!(self.run.slot(place), Some(Slot::Loop(_)))
    }

    fn start(&mut self, place: &Place) {
        let Some(node) = self.program.nodes.get(place.node) else {
            return;
        };
        if self.entries.len() >= MAX_ENTRIES_PER_DECISION {
            self.cut = true;
            return;
        }
        let path = self.run.path(place);
        if let Some(limit) = self.run.outgrown() {
            let limit = Arc::from(limit);
            return self.push(Entry::Outgrown(Outgrown { step: path, limit }));
        }
        let wanted = node
            .when
            .as_ref()
            .map_or(Ok(true), |when| when.truth(&self.scope(place)));
        let entry = match (wanted, &node.task) {
            (Err(error), _) => Err(Fault::from(error)),
            (Ok(false), _) => Ok(Entry::Skipped(Skipped {
                step: Arc::clone(&path),
            })),
            (Ok(true), Task::Call(call)) => return self.start_call(place, &path, call, None),
            (Ok(true), Task::If { condition }) => self.branch(place, condition).map(|taken| branch(&path, node, taken)),
            (Ok(true), Task::Switch(choice)) => self
                .choose(place, choice, &node.blocks)
                .map(|taken| branch(&path, node, taken)),
            (Ok(true), Task::Set { values }) => match values.render(&self.scope(place)) {
                Ok(output) => Ok(Entry::Set(SetDone {
                    step: Arc::clone(&path),
                    output,
                })),
                Err(error) => Err(error.into()),
            },
            (Ok(true), Task::Parallel(_)) => Ok(Entry::Forked(Forked {
                step: Arc::clone(&path),
            })),
            (Ok(true), Task::Try) => Ok(branch(&path, node, BranchSide::Case(Arc::from("try")))),
            (Ok(true), Task::Sleep(sleep)) => self.sleep(place, sleep).map(|until| {
                Entry::Slept(Slept {
                    step: Arc::clone(&path),
                    until,
                })
            }),
            (Ok(true), Task::WaitFor(wait)) => self.await_event(place, &path, wait),
            (Ok(true), Task::Approve(approve)) => self.ask(place, &path, approve),
            (Ok(true), Task::Compensate) => Ok(self.compensate(place, &path)),
            (Ok(true), Task::ForEach(each)) => self.list(place, &path, each),
            (Ok(true), Task::Stop { status, reason }) => match reason.render(&self.scope(place)) {
                Ok(reason) => {
                    let reason = reason
                        .value()
                        .as_str()
                        .map_or_else(|| reason.raw().to_owned(), str::to_owned);
                    Ok(Entry::Stopped(Stopped {
                        step: Arc::clone(&path),
                        status: *status,
                        reason: Arc::from(reason),
                    }))
                }
                Err(error) => Err(error.into()),
            },
        };
        match entry {
            Ok(entry) => {
                self.push(entry);
                self.limit(place, node);
            }
            Err(fault) => self.fail(Target::Step(path), fault),
        }
    }

    fn branch(&self, place: &Place, condition: &Expression) -> Result<BranchSide, Fault> {
        Ok(match condition.truth(&self.scope(place))? {
            true => BranchSide::Then,
            false => BranchSide::Else,
        })
    }

    fn choose(&self, place: &Place, choice: &Choice, cases: &[Block]) -> Result<BranchSide, Fault> {
        let scope = self.scope(place);
        let label = match choice {
            Choice::Conditions(conditions) => {
                let mut holds = None;
                for (condition, case) in conditions.iter().zip(cases) {
                    if condition.truth(&scope)? {
                        holds = Some(Arc::clone(&case.label));
                        break;
                    }
                }
                holds
            }
            Choice::Value(value) => {
                let found = value.value(&scope)?;
                let text = match &found {
                    serde_json::Value::Null => None,
                    serde_json::Value::String(text) => Some(text.clone()),
                    serde_json::Value::Number(number) => Some(number.to_string()),
                    serde_json::Value::Bool(flag) => Some(flag.to_string()),
                    serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                        let what = if found.is_array() { "a list" } else { "an object" };
                        return Err(Fault {
                            code: "not_a_case",
                            message: format!(
                                "`{}` at {} is {what}, {}; a case is a text, a number or a boolean",
                                value.source(),
                                value.pointer(),
                                sample(&found)
                            ),
                        });
                    }
                };
                let label = text.map(|text| crate::definition::case_label(&text));
                let case = cases.iter().find(|case| Some(&*case.label) == label.as_deref());
                case.map(|case| Arc::clone(&case.label))
            }
        };
        Ok(BranchSide::Case(label.unwrap_or_else(|| Arc::from(DEFAULT_CASE))))
    }

    /// Until when a step sleeps.
    fn sleep(&self, place: &Place, sleep: &Sleep) -> Result<Timestamp, Fault> {
        let value = sleep.value.render(&self.scope(place))?;
        let source = sleep.value.expressions().next();
        let bad = |message: String| Fault {
            code: "bad_sleep",
            message: match source {
                Some(source) => format!("`{}` at {}: {message}", source.source(), source.pointer()),
                None => message,
            },
        };
        let until = match sleep.how {
            SleepHow::For => self.now.plus(sleep::span(value.value()).map_err(bad)?),
            SleepHow::Until => sleep::moment(value.value()).map_err(bad)?,
        };
        if until > self.now.plus(MAX_SLEEP) {
            let limit = crate::duration::print(MAX_SLEEP);
            return Err(bad(format!("{until} is more than {limit} away")));
        }
        Ok(until)
    }

    fn list(&self, place: &Place, path: &Arc<str>, each: &LoopTask) -> Result<Entry, Fault> {
        let scope = self.scope(place);
        let list = match each.list.find(&scope)? {
            Found::Raw(text) => Document::parse(text.as_bytes()).map_err(|error| error.to_string()),
            found => Ok(Document::from_value(found.into_value())),
        };
        let source = format!("`{}` at {}", each.list.source(), each.list.pointer());
        let list = list.map_err(|message| Fault {
            code: "not_a_list",
            message: format!("{source}: {message}"),
        })?;
        let Some(elements) = list.elements() else {
            return Err(Fault {
                code: "not_a_list",
                message: format!("{source} is {}, not a list", sample(list.value())),
            });
        };
        if elements.len() > MAX_ITEMS {
            let message = format!(
                "{source} has {} items; a for_each takes at most {MAX_ITEMS}",
                elements.len()
            );
            return Err(Fault {
                code: "too_many_items",
                message,
            });
        }
        // With the place of the item, from 1.
        let mut keys: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        let mut occurrences: BTreeMap<String, usize> = BTreeMap::new();
        let mut items = Vec::with_capacity(elements.len());
        for (number, text) in elements.into_iter().enumerate() {
            let key = match &each.key {
                Some(key) => {
                    let scope = self.scope(place).with_candidate(&each.item_name, number, text);
                    let value = key.value(&scope).map_err(|error| {
                        let fault = Fault::from(error);
                        let message = format!("item {} of the list: {}", number + 1, fault.message);
                        Fault { message, ..fault }
                    })?;
                    let (source, place) = (key.source(), key.pointer());
                    let key = path_key(&value);
                    if let Some(first) = keys.get(key.as_str()) {
                        let message = format!(
                            "`{source}` at {place} is {} for two items, {first} and {} of the list, so their effects \
                             could not be told apart",
                            sample(&value),
                            number + 1
                        );
                        return Err(Fault {
                            code: "duplicate_key",
                            message,
                        });
                    }
                    key
                }
                None => {
                    let plain = fingerprint(&document::parse_text(text));
                    let count = occurrences.entry(plain.clone()).or_insert(0_usize);
                    *count += 1;
                    match *count {
                        1 => plain,
                        count => format!("{plain}~{count}"),
                    }
                }
            };
            let key: Arc<str> = Arc::from(key);
            keys.insert(Arc::clone(&key), number + 1);
            let value = Document::parse(text.as_bytes()).map_err(|error| Fault {
                code: "not_a_list",
                message: error.to_string(),
            })?;
            items.push(Item { key, value });
        }
        Ok(Entry::Items(ItemsTaken {
            step: Arc::clone(path),
            items: Arc::from(items),
        }))
    }
}

/// The entry for a choice; what leads to a block without steps leads nowhere.
fn branch(path: &Arc<str>, node: &Node, taken: BranchSide) -> Entry {
    let leads = taken.label().and_then(|label| node.block(label)).is_some();
    Entry::Branch(BranchTaken {
        step: Arc::clone(path),
        taken: if leads { taken } else { BranchSide::None },
    })
}

/// An item's key as it stands in paths: short plain keys as they are, anything else by its hash.
fn path_key(key: &serde_json::Value) -> String {
    match key {
        serde_json::Value::String(text) => path_text(text, key),
        serde_json::Value::Number(number) => path_text(&number.to_string(), key),
        other => fingerprint(other),
    }
}
