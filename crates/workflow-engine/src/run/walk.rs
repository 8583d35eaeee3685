//! The walk over the steps of a run: what can go on does, until only calls and timers are open.
//!
//! The walk holds no state of its own between decisions. It looks at where every step stands and does the next thing,
//! so it does not matter after which entry a process was lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::scope::{ReadNames, RunScope};
use super::state::{Place, ReadState, RunState, Slot};
use super::{Environment, MAX_ITEMS};
use crate::command::{CallId, Command};
use crate::document::{self, Document};
use crate::effect::fingerprint;
use crate::expression::{Expression, ExpressionError, Found};
use crate::journal::{
    BranchSide, BranchTaken, Ending, Entry, Finished, Item, ItemsTaken, ReadSkipped, SetDone, Skipped, StepFailed,
    Stopped, Target,
};
use crate::plan::{LoopTask, NodeId, Program, Task};
use crate::time::Timestamp;

/// The longest item key that is used as it is in paths; longer ones are hashed.
const MAX_KEY_BYTES: usize = 64;

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
        }
    }

    /// Decides an entry: the run takes it in at once.
    pub(super) fn push(&mut self, entry: Entry) {
        self.run.fold(&entry);
        self.entries.push(entry);
    }

    pub(super) fn fail(&mut self, of: Target, fault: Fault, continued: bool) {
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

    fn is_over(&self) -> bool {
        self.run.ending.is_some() || self.run.foreign.is_some()
    }

    /// Does everything that can be done now.
    pub(super) fn advance(&mut self) {
        if self.is_over() {
            return;
        }
        self.issue_due();
        if self.is_over() || !self.reads() {
            return;
        }
        let program = self.program;
        let through = self.block(&program.top, &mut Vec::new());
        if through && !self.is_over() {
            self.push(Entry::Finished(Finished {
                ending: Ending::Succeeded,
                at: self.now,
            }));
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
    fn block(&mut self, block: &'a [NodeId], items: &mut Vec<usize>) -> bool {
        for node in block {
            let place = Place {
                node: *node,
                items: items.clone(),
            };
            if let Some(Slot::Pending) = self.run.slot(&place) {
                self.start(&place);
            }
            if self.is_over() {
                return false;
            }
            let Some(slot) = self.run.slot(&place).cloned() else {
                return false;
            };
            let Some(task) = self.program.nodes.get(*node).map(|node| &node.task) else {
                return false;
            };
            let through = match (slot, task) {
                (Slot::Closed(_), _) => true,
                (Slot::Branch(BranchSide::Then), Task::If { then, .. }) => self.block(then, items),
                (Slot::Branch(_), Task::If { otherwise, .. }) => self.block(otherwise, items),
                (Slot::Loop(_), Task::ForEach(each)) => self.items(&place, each, items),
                (Slot::Pending | Slot::Open | Slot::Branch(_) | Slot::Loop(_), _) => false,
            };
            if !through || self.is_over() {
                return false;
            }
        }
        true
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
                items.push(at);
                let through = self.block(&each.body, items);
                items.pop();
                if self.is_over() {
                    return false;
                }
                if !through {
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
        let path = self.run.path(place);
        let continued = matches!(&node.task, Task::Call(call) if call.continues);
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
            (
                Ok(true),
                Task::If {
                    condition, otherwise, ..
                },
            ) => self.branch(place, &path, condition, otherwise),
            (Ok(true), Task::Set { values }) => match values.render(&self.scope(place)) {
                Ok(output) => Ok(Entry::Set(SetDone {
                    step: Arc::clone(&path),
                    output,
                })),
                Err(error) => Err(error.into()),
            },
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
            Ok(entry) => self.push(entry),
            Err(fault) => self.fail(Target::Step(path), fault, continued),
        }
    }

    fn branch(
        &self,
        place: &Place,
        path: &Arc<str>,
        condition: &Expression,
        otherwise: &[NodeId],
    ) -> Result<Entry, Fault> {
        let taken = match condition.truth(&self.scope(place))? {
            true => BranchSide::Then,
            false if otherwise.is_empty() => BranchSide::None,
            false => BranchSide::Else,
        };
        Ok(Entry::Branch(BranchTaken {
            step: Arc::clone(path),
            taken,
        }))
    }

    fn list(&self, place: &Place, path: &Arc<str>, each: &LoopTask) -> Result<Entry, Fault> {
        let scope = self.scope(place);
        let list = match each.list.find(&scope)? {
            Found::Raw(text) => Document::parse(text.as_bytes()).map_err(|error| error.to_string()),
            found => Ok(Document::from_value(found.into_value())),
        };
        let source = each.list.source();
        let list = list.map_err(|message| Fault {
            code: "not_a_list",
            message: format!("`{source}`: {message}"),
        })?;
        let Some(elements) = list.elements() else {
            let what = match list.value() {
                serde_json::Value::Null => "null",
                serde_json::Value::Object(_) => "an object",
                _ => "a single value",
            };
            return Err(Fault {
                code: "not_a_list",
                message: format!("`{source}` is {what}, not a list"),
            });
        };
        if elements.len() > MAX_ITEMS {
            let message = format!(
                "`{source}` has {} items; a for_each takes at most {MAX_ITEMS}",
                elements.len()
            );
            return Err(Fault {
                code: "too_many_items",
                message,
            });
        }
        let mut keys: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut items = Vec::with_capacity(elements.len());
        for (number, text) in elements.into_iter().enumerate() {
            let key = match &each.key {
                Some(key) => {
                    let scope = self.scope(place).with_candidate(&each.item_name, number, text);
                    let key = path_key(&key.value(&scope)?);
                    if keys.contains(key.as_str()) {
                        let message =
                            format!("two items have the key `{key}`, so their effects could not be told apart");
                        return Err(Fault {
                            code: "duplicate_key",
                            message,
                        });
                    }
                    key
                }
                None => {
                    let plain = fingerprint(&document::parse_text(text));
                    let repeated = (2..).map(|occurrence| format!("{plain}~{occurrence}"));
                    let mut names = std::iter::once(plain.clone()).chain(repeated);
                    names.find(|name| !keys.contains(name.as_str())).unwrap_or(plain)
                }
            };
            let key: Arc<str> = Arc::from(key);
            keys.insert(Arc::clone(&key));
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

/// An item's key as it stands in paths: short plain keys as they are, anything else by its hash.
fn path_key(key: &serde_json::Value) -> String {
    let text = match key {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.to_string(),
        other => return fingerprint(other),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b':' | b'@');
    match !text.is_empty() && text.len() <= MAX_KEY_BYTES && text.bytes().all(plain) {
        true => text,
        false => format!("~{}", fingerprint(key)),
    }
}
