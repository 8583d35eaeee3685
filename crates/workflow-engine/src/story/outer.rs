//! Steps with steps inside: how those in them came out is how they did, but for what they took care of.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{StoryStep, Teller};
use crate::definition::{Join, UNDO};
use crate::journal::{Caught, RanOver, Target};
use crate::plan::{CATCH, Task};
use crate::time::Timestamp;

/// Of the steps in a step, the one with the status that comes first here gives the step its own.
const WORST_FIRST: [&str; 5] = ["unknown", "failed", "running", "waiting", "canceled"];

impl Teller<'_> {
    /// What was open beside a failure, or in a part that failed or was left, has come to an end.
    pub(super) fn caught(&mut self, caught: &Caught, at: Timestamp) {
        let step = &caught.step;
        if let Some(part) = &caught.part {
            let task = self.node(step).map(|node| &node.task);
            let (branch, item) = (format!("{step}.{part}."), format!("{step}[{part}]."));
            self.leave(&branch, at);
            self.leave(&item, at);
            self.handled.extend([branch, item]);
            let collects = match task {
                Some(Task::Compensate) => {
                    self.leave(&format!("{part}.{UNDO}."), at);
                    false
                }
                Some(Task::ForEach(each)) => each.collects,
                Some(Task::Parallel(join)) => *join == Join::Collect,
                _ => false,
            };
            if collects {
                *self.failed_parts.entry(step.to_string()).or_default() += 1;
            }
            return;
        }
        self.leave(&format!("{step}."), at);
        // A second time it is `catch` that failed, and `finally` comes next.
        if self.caught.insert(step.to_string()) && self.node(step).is_none_or(|node| node.has_block(CATCH)) {
            self.handled.insert(format!("{step}.try."));
        }
        self.through(&Target::Step(Arc::clone(step)), "try", "succeeded", at);
    }

    /// What slept or waited in the steps whose paths begin with `prefix` does so no longer.
    fn leave(&mut self, prefix: &str, at: Timestamp) {
        for step in positions(&self.by_path, prefix) {
            if let Some(step) = self.steps.get_mut(step).filter(|step| step.status == "waiting") {
                step.leave(at);
            }
        }
    }

    /// How many parts of a step failed that collects failures, as it stands behind what it is.
    fn told_parts(&self, path: &str) -> Option<String> {
        let failed = self.failed_parts.get(path).filter(|failed| **failed > 0)?;
        let node = self.node(path)?;
        Some(match node.task {
            Task::Parallel(_) => format!("{} branches, {failed} failed", node.blocks.len()),
            _ => format!(", {failed} failed"),
        })
    }

    /// What became of the failure of a `try`.
    fn told_caught(&self, position: usize, path: &str) -> String {
        let status = self.steps.get(position).map_or("", |step| step.status);
        if self.node(path).is_some_and(|node| !node.has_block(CATCH)) {
            let goes = if status == "running" { "goes" } else { "went" };
            return format!("there is no `catch`: its failure {goes} outwards after `finally`");
        }
        let fails = |block: &str| {
            let mut inside = self.inside(block);
            inside.any(|step| step.status == "failed" && !self.is_handled(&step.path, path))
        };
        let blocks = ["catch", "finally"];
        let failed = blocks.iter().find(|block| fails(&format!("{path}.{block}.")));
        match failed {
            Some(block) => format!("a failure was caught, then a step of `{block}` failed"),
            None => "a failure was caught".to_owned(),
        }
    }

    pub(super) fn ran_over(&mut self, over: &RanOver, at: Timestamp) {
        let goes_on = self.node(&over.step).is_some_and(|node| match &node.task {
            Task::ForEach(each) => each.collects,
            Task::Parallel(join) => *join == Join::Collect,
            _ => node.has_block(CATCH),
        });
        let of = Target::Step(Arc::clone(&over.step));
        let status = if goes_on { "succeeded" } else { "failed" };
        let limit = crate::duration::print(over.limit);
        self.through(&of, "try", status, at).note = Some(format!("its steps took longer than {limit}"));
        if goes_on && self.node(&over.step).is_some_and(|node| node.task.for_each().is_some()) {
            // Items of which nothing has begun fail at once; the others when what is open in them is over.
            let keys = self.names.keys(&over.step);
            let begun = |key: &&str| self.inside(&format!("{}[{key}].", over.step)).next().is_some();
            let pending = keys.filter(|key| !begun(key)).count();
            *self.failed_parts.entry(over.step.to_string()).or_default() += pending;
        }
        if !goes_on {
            self.over.insert(over.step.to_string());
        }
    }

    /// Steps with steps inside are as far as these are; what is open when a run ended was given up.
    pub(super) fn finish(&mut self, ended: Option<Timestamp>) {
        if let Some(at) = ended {
            for step in self
                .steps
                .iter_mut()
                .filter(|step| matches!(step.status, "running" | "waiting"))
            {
                step.leave(at);
            }
        }
        for position in (0..self.steps.len()).rev() {
            let Some(outer) = self.steps.get(position).filter(|step| has_steps_inside(step)) else {
                continue;
            };
            let (mut worst, mut last) = (usize::MAX, None);
            for prefix in [format!("{}.", outer.path), format!("{}[", outer.path)] {
                for step in self.inside(&prefix) {
                    last = last.max(step.finished_at);
                    let rank = WORST_FIRST.iter().position(|status| step.status == *status);
                    // One that a person has to look at ends the run, whatever is around it.
                    let fails = match step.status {
                        "failed" | "canceled" => true,
                        "unknown" => step
                            .effect
                            .as_ref()
                            .is_some_and(|effect| may_be_sent_again(effect.class)),
                        _ => false,
                    };
                    let forgiven = fails && self.is_handled(&step.path, &outer.path);
                    if let Some(rank) = rank.filter(|_| !forgiven) {
                        worst = worst.min(rank);
                    }
                }
            }
            let worst = match WORST_FIRST.get(worst).copied() {
                None | Some("canceled") if self.over.contains(&outer.path) => Some("failed"),
                worst => worst,
            };
            let parts = self.told_parts(&outer.path);
            let until = self.limits.get(&outer.path).copied();
            let Some(outer) = self.steps.get_mut(position) else {
                continue;
            };
            outer.finished_at = outer.finished_at.max(last);
            if let Some(worst) = worst {
                outer.status = if worst == "waiting" { "running" } else { worst };
                if outer.status == "running" {
                    outer.finished_at = None;
                    let limit = || until.map(|until| format!("its steps have until {until}"));
                    outer.note = outer.note.take().or_else(limit);
                }
            }
            if let Some(parts) = parts {
                outer.label.push_str(&parts);
            }
            let path = outer.path.clone();
            if self.caught.contains(&path) {
                let note = self.told_caught(position, &path);
                if let Some(outer) = self.steps.get_mut(position) {
                    outer.note.get_or_insert(note);
                }
            }
        }
        if let (Some(program), None) = (self.program, ended) {
            self.pending(program, &program.top, "");
        }
    }

    /// The steps whose paths begin with `prefix`.
    pub(super) fn inside<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = &'s StoryStep> {
        positions(&self.by_path, prefix).filter_map(|at| self.steps.get(at))
    }

    /// Whether something in the step at `outer` took care of the failure of this step: of the step itself, or of a block,
    /// branch or item around it. What takes care of it further out leaves `outer` a step that failed.
    fn is_handled(&self, path: &str, outer: &str) -> bool {
        let blocks = path.match_indices('.').filter_map(|(at, _)| path.get(..=at));
        let mut inner = blocks.chain([path]).filter(|block| block.len() > outer.len());
        inner.any(|block| self.handled.contains(block))
    }
}

/// Where the steps stand whose paths begin with `prefix`.
fn positions<'s>(by_path: &'s BTreeMap<String, usize>, prefix: &'s str) -> impl Iterator<Item = usize> + 's {
    let after = by_path.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
    let inside = after.take_while(move |(path, _)| path.starts_with(prefix));
    inside.map(|(_, at)| *at)
}

/// Whether the status of a step is that of the steps in it.
fn has_steps_inside(step: &StoryStep) -> bool {
    matches!(step.kind, "if" | "switch" | "for_each" | "parallel" | "try")
}

/// Whether an effect of this class is a failure like any other when its tries are used up.
fn may_be_sent_again(class: &str) -> bool {
    matches!(class, "keyed" | "repeatable")
}
