//! The branches of a `parallel`: how each came out, and what that means for the step.

use std::sync::Arc;

use serde_json::{Value, json};

use super::state::{Branch, Closed, Failure, Fork, Place, RunState, Slot, Verdict};
use crate::definition::Join;
use crate::document::Document;
use crate::plan::Task;

impl RunState {
    /// The branches of a `parallel` begin.
    pub(super) fn begin_fork(&mut self, place: &Place) {
        let count = self.program.0.nodes.get(place.node).map_or(0, |node| node.blocks.len());
        let branches = vec![Branch::Open; count];
        self.put_slot(place, |_| Slot::Fork(Arc::new(Fork { branches })));
    }

    /// Closes a `parallel` when its branches say that it is through and succeeded.
    pub(super) fn join(&mut self, place: Place) {
        let Some(node) = self.program.0.nodes.get(place.node) else {
            return;
        };
        let Task::Parallel(join) = node.task else { return };
        let Some(Slot::Fork(fork)) = self.slot(&place) else {
            return;
        };
        let labels = || node.blocks.iter().map(|block| &*block.label);
        let mut fork = (**fork).clone();
        let decides = |branch: &Branch| match branch {
            Branch::Done(_) => matches!(join, Join::Any | Join::First),
            Branch::Failed(_) | Branch::Settling(_) => join == Join::First,
            Branch::Open | Branch::Leaving | Branch::Left => false,
        };
        if fork.branches.iter().any(decides) {
            for branch in fork.branches.iter_mut().filter(|branch| **branch == Branch::Open) {
                *branch = Branch::Leaving;
            }
        }
        let output = fork.output(join, labels());
        self.put_slot(&place, |_| Slot::Fork(Arc::new(fork)));
        if let Some(output) = output {
            self.close(place, Closed::plain(Verdict::Done, Some(output)));
        }
    }

    pub(super) fn set_branch(&mut self, place: &Place, number: usize, state: Branch) {
        let Some(Slot::Fork(fork)) = self.slot(place) else {
            return;
        };
        let mut fork = (**fork).clone();
        if let Some(branch) = fork.branches.get_mut(number) {
            *branch = state;
        }
        self.put_slot(place, |_| Slot::Fork(Arc::new(fork)));
    }
}

impl Fork {
    /// Whether nothing of it is open any more.
    pub(super) fn is_settled(&self) -> bool {
        let over = |branch: &Branch| matches!(branch, Branch::Done(_) | Branch::Failed(_) | Branch::Left);
        self.branches.iter().all(over)
    }

    /// What the step gives, once it is through and succeeded.
    fn output<'a>(&self, join: Join, labels: impl Iterator<Item = &'a str>) -> Option<Document> {
        if !self.is_settled() {
            return None;
        }
        let named = labels.zip(&self.branches);
        match join {
            Join::All => {
                let outputs: Option<Vec<(&str, &Document)>> = named
                    .map(|(label, branch)| match branch {
                        Branch::Done(output) => Some((label, output)),
                        _ => None,
                    })
                    .collect();
                outputs.map(|outputs| Document::object(outputs.into_iter()))
            }
            Join::Collect => {
                let records: Vec<(&str, Document)> = named
                    .filter_map(|(label, branch)| match branch {
                        Branch::Done(output) => Some((label, record(Ok(output)))),
                        Branch::Failed(failure) => Some((label, record(Err(failure)))),
                        _ => None,
                    })
                    .collect();
                Some(Document::object(records.iter().map(|(label, record)| (*label, record))))
            }
            Join::Any | Join::First => {
                let mut done = named.filter_map(|(label, branch)| match branch {
                    Branch::Done(output) => Some((label, output)),
                    _ => None,
                });
                let (label, output) = done.next()?;
                let branch = Document::from_value(Value::from(label));
                Some(Document::object([("branch", &branch), ("output", output)].into_iter()))
            }
        }
    }
}

/// How one item or branch came out, where a failure leaves the others alone.
pub(super) fn record(outcome: Result<&Document, &Failure>) -> Document {
    let null = Document::null();
    let text = |text: &str| Document::from_value(Value::from(text));
    let error = outcome.err().map(|failure| {
        Document::from_value(json!({ "code": &*failure.code, "message": &*failure.message, "step": &*failure.step }))
    });
    let status = text(if error.is_some() { "failed" } else { "succeeded" });
    let members = [
        ("status", &status),
        ("output", outcome.unwrap_or(&null)),
        ("error", error.as_ref().unwrap_or(&null)),
    ];
    Document::object(members.into_iter())
}
