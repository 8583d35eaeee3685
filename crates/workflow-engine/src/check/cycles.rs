//! Workflows that start each other without an end.
//!
//! A run that is started under a condition may well start its own workflow again: that is how work is done piece by
//! piece, and the depth of runs is bounded. What is found here is a circle in which each run starts the next one
//! whatever happens, so that none of them can ever succeed.

use std::collections::BTreeSet;

use crate::catalogue::Catalogue;
use crate::definition::{Action, Definition, Join, Step};
use crate::problem::{Problem, child};

/// The `run` steps that every run reaches unless it fails before.
fn certain(steps: &[Step]) -> Vec<(&Step, &str)> {
    let mut found = Vec::new();
    for step in steps {
        if step.when.is_some() {
            // A run that may end here decides by itself whether it goes on.
            if ends(step) {
                break;
            }
            continue;
        }
        match &step.action {
            Action::Run(run) => found.push((step, run.workflow.as_str())),
            Action::Try(guarded) => {
                found.extend(certain(&guarded.steps));
                found.extend(certain(&guarded.finally));
            }
            Action::Parallel(parallel) if matches!(parallel.join, Join::All | Join::Collect) => {
                for (_, steps) in &parallel.branches {
                    found.extend(certain(steps));
                }
            }
            _ => {}
        }
        if ends(step) {
            break;
        }
    }
    found
}

/// Whether a run may end in this step without failing.
fn ends(step: &Step) -> bool {
    let stops = matches!(step.action, Action::Stop { .. });
    stops || step.blocks().into_iter().flatten().any(ends)
}

impl Definition {
    /// The workflows of which every run of this one starts a run, unless it fails before.
    pub fn always_starts(&self) -> Vec<String> {
        let steps = certain(&self.steps);
        steps.into_iter().map(|(_, workflow)| workflow.to_owned()).collect()
    }
}

/// A way from `from` to `to` along runs that are always started.
fn way(from: &str, to: &str, catalogue: &dyn Catalogue, seen: &mut BTreeSet<String>) -> Option<Vec<String>> {
    if from == to {
        return Some(vec![to.to_owned()]);
    }
    if !seen.insert(from.to_owned()) {
        return None;
    }
    let next = catalogue.always_starts(from);
    let rest = next.iter().find_map(|next| way(next, to, catalogue, seen))?;
    Some(std::iter::once(from.to_owned()).chain(rest).collect())
}

pub(super) fn check(definition: &Definition, catalogue: &dyn Catalogue, problems: &mut Vec<Problem>) {
    let name = definition.name();
    for (step, workflow) in certain(&definition.steps) {
        let Some(way) = way(workflow, name, catalogue, &mut BTreeSet::new()) else {
            continue;
        };
        let message = format!(
            "every run of `{name}` would start another one of it, without an end: {name} → {}",
            way.join(" → ")
        );
        let problem = Problem::new(child(&step.pointer, "run"), "run_cycle", message);
        problems.push(problem.suggest("give the step a `when` that is false some time"));
    }
}
