//! What is written when a run undoes what it did.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::definition::UNDO;
use crate::document::Document;

/// A `compensate` begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compensating {
    /// Path of the step.
    pub step: Arc<str>,
    /// Paths of the steps that it undoes, in this order.
    pub of: Vec<Arc<str>>,
    /// For each of them the path of the last step that undoes it and can have an effect; empty in journals from before
    /// it was kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<Arc<str>>,
}

impl Compensating {
    /// Whether a step, by its path, is one of those that undo what this one undoes.
    pub fn undoes(&self, path: &str) -> bool {
        self.of.iter().any(|of| is_in_undo(of, path))
    }
}

/// Whether a path leads into what undoes a step.
pub(crate) fn is_in_undo(of: &str, path: &str) -> bool {
    let rest = path.strip_prefix(of).and_then(|rest| rest.strip_prefix('.'));
    let rest = rest.and_then(|rest| rest.strip_prefix(UNDO));
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// A `compensate` has undone everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compensated {
    /// Path of the step.
    pub step: Arc<str>,
    /// The paths of what it undid.
    pub output: Document,
}
