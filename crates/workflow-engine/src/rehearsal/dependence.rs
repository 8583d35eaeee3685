//! Which steps hang on reads that a replay makes again: what they do is known only as long as these answer as before.

use std::collections::BTreeSet;

use crate::definition::{Action, Definition, Step};
use crate::document::PathPart;
use crate::expression::Use;

/// What is read again, and what hangs on it.
#[derive(Debug, Default)]
pub(super) struct Dependence {
    /// Hydration reads that are made again.
    reads: BTreeSet<String>,
    /// Ids of steps whose output may be another one.
    outputs: BTreeSet<String>,
    /// Ids of steps that may be left out or may do something else.
    steps: BTreeSet<String>,
}

impl Dependence {
    /// What hangs on the reads with these paths, in the order of the document.
    pub(super) fn of<'a>(definition: &Definition, reads: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for path in reads {
            match path.strip_prefix("hydrate.") {
                Some(read) => found.reads.insert(read.to_owned()),
                None => found.outputs.insert(id_of(path).to_owned()),
            };
        }
        found.visit(&definition.steps, false, &mut Vec::new());
        found.visit(&definition.on_failure, false, &mut Vec::new());
        found
    }

    /// Whether the step at this path may be left out or may do something else.
    pub(super) fn reaches(&self, path: &str) -> bool {
        self.steps.contains(id_of(path))
    }

    /// `hangs`: whether the steps stand in something that may go another way. `items`: names of items of lists that may be
    /// others. Whether an output among the steps may be another one.
    fn visit<'a>(&mut self, steps: &'a [Step], hangs: bool, items: &mut Vec<&'a str>) -> bool {
        let mut any = false;
        for step in steps {
            let mut uses = step
                .all_expressions()
                .into_iter()
                .flat_map(|expression| expression.uses());
            let own = hangs || uses.any(|used| self.is_of(used, items));
            let names = items.len();
            if let Action::ForEach(each) = &step.action
                && own
            {
                items.extend([each.item_name.as_str(), "item", "index"]);
            }
            let mut inside = false;
            for block in step.blocks() {
                inside |= self.visit(block, own, items);
            }
            items.truncate(names);
            if own {
                self.steps.insert(step.id.clone());
            }
            if own || inside {
                self.outputs.insert(step.id.clone());
            }
            any |= self.outputs.contains(&step.id);
        }
        any
    }

    fn is_of(&self, used: &Use, items: &[&str]) -> bool {
        let known = match used.root.as_str() {
            "steps" | "results" => &self.outputs,
            "hydrated" | "provenance" => &self.reads,
            root => return items.contains(&root),
        };
        match used.parts.first() {
            Some(PathPart::Key(name)) => known.contains(name),
            Some(PathPart::Index(_)) | None => !known.is_empty(),
        }
    }
}

/// `lines[a].push` is the step `push`.
fn id_of(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
