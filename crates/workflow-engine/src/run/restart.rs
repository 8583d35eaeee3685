//! A run that begins at a step of another run: what came before that step is taken over as it was.
//!
//! What is taken over are the entries themselves, so the new run knows outputs, exchanges and provenance as the old one
//! did, and its journal tells the whole of it. Nothing is taken over that did not come to an end, and nothing of a step
//! that the plan of the new run does not have in the same place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::state::{Branch, RunHead, RunState, Slot, Verdict};
use crate::command::CallId;
use crate::definition::Join;
use crate::event::Event;
use crate::journal::{AttemptOutcome, BranchSide, Entry, Limited, Target};
use crate::plan::{Block, NodeId, Parent, Plan, Program, TRY, Task};

/// What a run takes over from another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restart {
    /// The entries, in their order: the first journal row of the new run.
    pub entries: Vec<Entry>,
    /// Paths of what they are about: the outermost steps, and `hydrate.<read>` for the reads.
    pub steps: Vec<String>,
}

/// Why a run cannot begin at a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestartError {
    /// The version has no such step.
    #[error("version {version} has no step `{step}`")]
    UnknownStep {
        /// The path that was asked for.
        step: String,
        /// Number of the version.
        version: u32,
    },
    /// The step belongs to what is done about a failure.
    #[error("step `{step}` takes care of a failure and cannot be begun at; begin {}", around.as_ref().map_or_else(|| "at the start".to_owned(), |around| format!("at `{around}`")))]
    TakesCare {
        /// The path that was asked for.
        step: String,
        /// The step to begin at instead; `None` for the start of the run.
        around: Option<String>,
    },
    /// A step before it did not come to an end.
    #[error("step `{step}` before it did not come to an end in the run; begin there or before")]
    NotThrough {
        /// Path of that step.
        step: String,
    },
    /// A step before it was undone.
    #[error("step `{step}` before it was undone in the run; begin there or before")]
    Undone {
        /// Path of that step.
        step: String,
    },
    /// The run did not come to the block or item that the step is in.
    #[error("the run never came to `{step}`")]
    Unreached {
        /// Path of the step that was not entered.
        step: String,
    },
    /// The loop around it has no such item.
    #[error("`{step}` has no item `{item}` in the run; it has {}", told(items))]
    NoSuchItem {
        /// Path of the loop.
        step: String,
        /// The item that was asked for.
        item: String,
        /// The keys of the items that there are.
        items: Vec<String>,
    },
    /// A step before it is another one in the version to run.
    #[error("step `{step}` before it is another one in version {version}; begin there or before")]
    Changed {
        /// Path of that step.
        step: String,
        /// Number of the version.
        version: u32,
    },
}

/// Names as they stand in a message, the first few.
fn told(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match (
        shown.is_empty(),
        names.len().checked_sub(SHOWN).filter(|more| *more > 0),
    ) {
        (true, _) => "none".to_owned(),
        (false, None) => shown.join(", "),
        (false, Some(more)) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What a run of `target` with this head takes over from a run of `old`, to begin at the step with the path `from`.
///
/// # Errors
/// [`RestartError`].
pub fn restart(
    (old, target): (&Plan, &Plan),
    head: &RunHead,
    event: &Arc<Event>,
    recorded: &[Entry],
    from: &str,
) -> Result<Restart, RestartError> {
    let program = &*target.program;
    let version = head.version_number;
    let way = Way::to(program, from).ok_or_else(|| RestartError::UnknownStep {
        step: from.to_owned(),
        version,
    })?;
    way.check(program, from)?;
    let mut before = RunState::new(head.clone(), Arc::clone(event), old);
    recorded.iter().for_each(|entry| before.fold(entry));
    let mut run = RunState::new(head.clone(), Arc::clone(event), target);
    let mut restart = Restart::default();
    let mut seen = BTreeSet::new();
    let undone = undone(program, &way, recorded);
    let over = way.ran_over(recorded);
    let mut calls: BTreeMap<CallId, Target> = BTreeMap::new();
    for entry in recorded {
        let Some((subject, part)) = subject(entry, &mut calls) else {
            continue;
        };
        let mut around = None;
        let whole = match &subject {
            Target::Read(name) if settled_read(recorded, name) && run.has_read(name) => format!("hydrate.{name}"),
            Target::Read(_) => continue,
            Target::Step(path) => match way.place(program, path, part) {
                Where::Before(step) => step,
                Where::Opens(step) if opens(entry) => {
                    around = Some(Arc::clone(path));
                    step
                }
                Where::Beside { level, part }
                    if !over.contains(&level) && before.is_part_through(&way, level, &part) =>
                {
                    path.to_string()
                }
                Where::Opens(_) | Where::Beside { .. } | Where::After => continue,
            },
        };
        if let Target::Step(path) = &subject
            && !same_step(&old.program, program, path)
        {
            let step = path.to_string();
            return Err(RestartError::Changed { step, version });
        }
        if let Target::Step(path) = &subject
            && undone.contains(path)
        {
            return Err(RestartError::Undone { step: path.to_string() });
        }
        run.fold(entry);
        if run.ending.is_some() || run.unknown.is_some() || run.foreign.is_some() {
            return Err(RestartError::NotThrough { step: whole });
        }
        restart.entries.push(entry.clone());
        // Its time begins anew with the run.
        if let Some(limited) = around.and_then(|step| run.limited(step)) {
            run.fold(&limited);
            restart.entries.push(limited);
        }
        let is_ancestor = way.levels.iter().any(|level| level.path == whole);
        if !is_ancestor && seen.insert(whole.clone()) {
            restart.steps.push(whole);
        }
    }
    way.reached(program, &run)?;
    Ok(restart)
}

/// What an entry is about; `None` for what is about the run as a whole, which is not taken over.
fn subject<'e>(entry: &'e Entry, calls: &mut BTreeMap<CallId, Target>) -> Option<(Target, Option<&'e Arc<str>>)> {
    let step = |path: &Arc<str>| Some((Target::Step(Arc::clone(path)), None));
    match entry {
        Entry::Issued(issued) => {
            calls.insert(issued.call, issued.of.clone());
            Some((issued.of.clone(), None))
        }
        Entry::Intended(intent) => {
            calls.insert(intent.call, Target::Step(Arc::clone(&intent.step)));
            step(&intent.step)
        }
        Entry::Attempt(attempt) => Some((attempt.of.clone(), None)),
        Entry::Postponed(postponed) => Some((calls.get(&postponed.call)?.clone(), None)),
        Entry::Held(held) => Some((held.of.clone(), None)),
        Entry::Answered(answered) => step(&answered.step),
        Entry::Unknown(unknown) => step(&unknown.step),
        Entry::Abandoned(abandoned) => Some((abandoned.of.clone(), None)),
        Entry::ReadSkipped(skipped) => Some((Target::Read(Arc::clone(&skipped.name)), None)),
        Entry::Skipped(skipped) => step(&skipped.step),
        Entry::Branch(branch) => step(&branch.step),
        Entry::Set(set) => step(&set.step),
        Entry::Items(items) => step(&items.step),
        Entry::Slept(slept) => step(&slept.step),
        Entry::Woke(woke) => step(&woke.step),
        Entry::Forked(forked) => step(&forked.step),
        Entry::Limited(limited) => step(&limited.step),
        Entry::RanOver(over) => step(&over.step),
        Entry::Caught(caught) => Some((Target::Step(Arc::clone(&caught.step)), caught.part.as_ref())),
        Entry::Awaited(awaited) => step(&awaited.step),
        Entry::Arrived(arrived) => step(&arrived.step),
        Entry::PassedOver(passed) => step(&passed.step),
        Entry::Compensating(compensating) => step(&compensating.step),
        Entry::Compensated(compensated) => step(&compensated.step),
        Entry::StepFailed(failed) => Some((failed.of.clone(), None)),
        Entry::FailureTaken(_)
        | Entry::Paused(_)
        | Entry::Resumed(_)
        | Entry::Hurried(_)
        | Entry::Stopped(_)
        | Entry::CancelAsked(_)
        | Entry::TimedOut(_)
        | Entry::Outgrown(_)
        | Entry::Finished(_)
        | Entry::Decided(_) => None,
    }
}

/// What a `compensate` undid that is not itself taken over.
fn undone(program: &Program, way: &Way<'_>, recorded: &[Entry]) -> BTreeSet<Arc<str>> {
    let undoing = recorded.iter().filter_map(|entry| match entry {
        Entry::Compensating(compensating) => Some(compensating),
        _ => None,
    });
    let lost = undoing.filter(|undoing| !matches!(way.place(program, &undoing.step, None), Where::Before(_)));
    lost.flat_map(|undoing| undoing.of.iter().cloned()).collect()
}

/// Whether an entry leads into a step that has steps inside.
fn opens(entry: &Entry) -> bool {
    match entry {
        Entry::Branch(branch) => branch.taken != BranchSide::None,
        Entry::Items(_) | Entry::Forked(_) => true,
        _ => false,
    }
}

/// Whether a hydration read came to an end that a run can go on with.
fn settled_read(recorded: &[Entry], read: &Arc<str>) -> bool {
    recorded.iter().any(|entry| match entry {
        Entry::ReadSkipped(skipped) => skipped.name == *read,
        Entry::Attempt(attempt) => {
            let is_it = matches!(&attempt.of, Target::Read(name) if name == read);
            is_it
                && matches!(
                    attempt.outcome,
                    AttemptOutcome::Done { .. } | AttemptOutcome::Gone { .. }
                )
        }
        _ => false,
    })
}

/// Whether both plans have this step, of the same kind and in the same place.
fn same_step(old: &Program, target: &Program, path: &str) -> bool {
    let kind = |program: &Program| {
        let way = Way::to(program, path)?;
        let node = program.nodes.get(way.levels.last()?.node)?;
        Some(node.kind())
    };
    let new = kind(target);
    new.is_some() && kind(old) == new
}

/// Where an entry stands, seen from the step to begin at.
enum Where {
    /// In this step, which is through before it is reached.
    Before(String),
    /// It is this step around it.
    Opens(String),
    /// In another branch or item of the step around it at this level.
    Beside { level: usize, part: String },
    /// In the step itself, behind it, or where it is not reached.
    After,
}

/// The way from the top of a workflow to a step.
struct Way<'p> {
    /// The steps around it, outermost first, and the step itself.
    levels: Vec<Level<'p>>,
}

struct Level<'p> {
    node: NodeId,
    path: String,
    /// What stands before the id in the path.
    base: String,
    /// The steps that it stands among.
    block: &'p [NodeId],
    /// The block of this step, or the key of the item, in which the next level stands.
    part: Option<String>,
}

impl<'p> Way<'p> {
    fn to(program: &'p Program, path: &str) -> Option<Self> {
        let id = path.rsplit('.').next()?;
        let at = *program.by_id.get(id)?;
        let node = program.nodes.get(at)?;
        let base = path.strip_suffix(id)?;
        let (mut levels, block): (Vec<Level<'p>>, &'p [NodeId]) = match node.parent {
            Parent::Workflow => (Vec::new(), &program.top),
            Parent::OnFailure => (Vec::new(), &program.on_failure),
            Parent::Block(outer, number) => {
                let block: &'p Block = program.nodes.get(outer)?.blocks.get(number)?;
                let around = base.strip_suffix('.')?.strip_suffix(&*block.label)?.strip_suffix('.')?;
                let mut way = Self::to(program, around)?;
                let last = way.levels.last_mut().filter(|last| last.node == outer)?;
                last.part = Some(block.label.to_string());
                (way.levels, &block.steps)
            }
            Parent::Loop(outer) => {
                let (around, key) = base.strip_suffix("].")?.rsplit_once('[')?;
                let mut way = Self::to(program, around)?;
                let last = way.levels.last_mut().filter(|last| last.node == outer)?;
                last.part = Some(key.to_owned());
                (way.levels, &program.nodes.get(outer)?.task.for_each()?.body)
            }
        };
        let expected = match node.parent {
            Parent::Workflow => base.is_empty(),
            Parent::OnFailure => base == "on_failure.",
            Parent::Block(..) | Parent::Loop(_) => true,
        };
        levels.push(Level {
            node: at,
            path: path.to_owned(),
            base: base.to_owned(),
            block,
            part: None,
        });
        expected.then_some(Self { levels })
    }

    /// Refuses steps that take care of a failure: what failed is not taken over.
    fn check(&self, program: &Program, from: &str) -> Result<(), RestartError> {
        let takes_care = |around: Option<String>| RestartError::TakesCare {
            step: from.to_owned(),
            around,
        };
        for level in &self.levels {
            let Some(node) = program.nodes.get(level.node) else {
                continue;
            };
            if matches!(node.parent, Parent::OnFailure) {
                return Err(takes_care(None));
            }
            let Some(part) = &level.part else { continue };
            let leads_on = match &node.task {
                Task::If { .. } | Task::Switch(_) | Task::Parallel(_) | Task::ForEach(_) => true,
                Task::Try => node.block(part) == Some(TRY),
                _ => false,
            };
            if !leads_on {
                return Err(takes_care(Some(level.path.clone())));
            }
        }
        Ok(())
    }

    fn place(&self, program: &Program, path: &str, part: Option<&Arc<str>>) -> Where {
        for (number, level) in self.levels.iter().enumerate() {
            let Some(rest) = path.strip_prefix(level.base.as_str()) else {
                return Where::After;
            };
            let id = rest.split(['.', '[']).next().unwrap_or(rest);
            let position = |id: &str| {
                let ids = level.block.iter().filter_map(|node| program.nodes.get(*node));
                ids.into_iter().position(|node| &*node.id == id)
            };
            let own = level.path.strip_prefix(level.base.as_str()).unwrap_or_default();
            if id != own {
                return match (position(id), position(own)) {
                    (Some(at), Some(own)) if at < own => Where::Before(format!("{}{id}", level.base)),
                    _ => Where::After,
                };
            }
            let Some(inner) = &level.part else {
                return Where::After;
            };
            let inside = rest.strip_prefix(id).unwrap_or_default();
            if inside.is_empty() {
                return match part {
                    None => Where::Opens(level.path.clone()),
                    Some(part) if **part == **inner => Where::After,
                    Some(part) => Where::Beside {
                        level: number,
                        part: part.to_string(),
                    },
                };
            }
            let found = inside
                .strip_prefix('[')
                .and_then(|inside| inside.split(']').next())
                .or_else(|| inside.strip_prefix('.').and_then(|inside| inside.split('.').next()));
            match found {
                Some(found) if found == inner => {}
                Some(found) => {
                    return Where::Beside {
                        level: number,
                        part: found.to_owned(),
                    };
                }
                None => return Where::After,
            }
        }
        Where::After
    }

    /// The levels that ran over their time: which of their parts ended by that is not told apart, so none is taken over.
    fn ran_over(&self, recorded: &[Entry]) -> BTreeSet<usize> {
        let over: BTreeSet<&str> = recorded
            .iter()
            .filter_map(|entry| match entry {
                Entry::RanOver(over) => Some(&*over.step),
                _ => None,
            })
            .collect();
        let levels = self.levels.iter().enumerate();
        levels
            .filter(|(_, level)| over.contains(level.path.as_str()))
            .map(|(number, _)| number)
            .collect()
    }

    /// Whether the run has come to the step: everything before it is through, everything around it was entered.
    fn reached(&self, program: &Program, run: &RunState) -> Result<(), RestartError> {
        for level in &self.levels {
            for node in level.block.iter().take_while(|node| **node != level.node) {
                let Some(node) = program.nodes.get(*node) else { continue };
                let step = format!("{}{}", level.base, node.id);
                let is_closed = |slot: &Slot| matches!(slot, Slot::Closed(_));
                if !run.slot_of(&step).is_some_and(is_closed) {
                    return Err(RestartError::NotThrough { step });
                }
            }
            let slot = run.slot_of(&level.path);
            let Some(part) = &level.part else {
                return match slot {
                    Some(Slot::Pending) => Ok(()),
                    _ => Err(RestartError::Unreached {
                        step: level.path.clone(),
                    }),
                };
            };
            let block = program.nodes.get(level.node).and_then(|node| node.block(part));
            let is_entered = match slot {
                Some(Slot::Inside(inside)) => Some(*inside) == block,
                Some(Slot::Guard(guard)) => Some(guard.block) == block,
                Some(Slot::Loop(state)) => state.by_key.contains_key(part.as_str()),
                Some(Slot::Fork(_)) => block.is_some(),
                _ => false,
            };
            if !is_entered && let Some(Slot::Loop(state)) = slot {
                return Err(RestartError::NoSuchItem {
                    step: level.path.clone(),
                    item: part.clone(),
                    items: state.by_key.keys().map(ToString::to_string).collect(),
                });
            }
            if !is_entered {
                return Err(RestartError::Unreached {
                    step: level.path.clone(),
                });
            }
        }
        Ok(())
    }
}

impl RunState {
    fn slot_of(&self, path: &str) -> Option<&Slot> {
        self.slot(&self.place(path)?)
    }

    /// The entry that has the time of this step begin now, if it has a limit and is not through.
    fn limited(&self, step: Arc<str>) -> Option<Entry> {
        let place = self.place(&step)?;
        let limit = self.program.0.nodes.get(place.node)?.limit?;
        let is_open = !matches!(self.slot(&place)?, Slot::Closed(_));
        let until = self.head.started_at.plus(limit);
        is_open.then_some(Entry::Limited(Limited { step, until }))
    }

    fn has_read(&self, name: &str) -> bool {
        self.program.0.reads.iter().any(|read| read.name() == name)
    }

    /// Whether another branch or item of the step at this level is through, so that it need not be done again.
    fn is_part_through(&self, way: &Way<'_>, level: usize, part: &str) -> bool {
        let Some(level) = way.levels.get(level) else {
            return false;
        };
        let Some(place) = self.place(&level.path) else {
            return false;
        };
        let Some(node) = self.program.0.nodes.get(place.node) else {
            return false;
        };
        match self.slot(&place) {
            // With `any` and `first` a branch that is through would close the step, and the one to begin in with it.
            Some(Slot::Fork(_) | Slot::Closed(_))
                if !matches!(node.task, Task::Parallel(Join::All) | Task::ForEach(_)) =>
            {
                false
            }
            Some(Slot::Fork(fork)) => {
                let branch = node.block(part).and_then(|at| fork.branches.get(at));
                matches!(branch, Some(Branch::Done(_)))
            }
            Some(Slot::Loop(state)) => {
                let item = state.by_key.get(part).and_then(|at| state.items.get(*at));
                item.is_some_and(|item| item.output.is_some())
            }
            Some(Slot::Closed(closed)) => closed.verdict == Verdict::Done,
            _ => false,
        }
    }
}
