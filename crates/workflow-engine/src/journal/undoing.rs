//! What is written when a run undoes what it did.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::document::Document;

/// A `compensate` begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compensating {
    /// Path of the step.
    pub step: Arc<str>,
    /// Paths of the steps that it undoes, in this order.
    pub of: Vec<Arc<str>>,
}

/// A `compensate` has undone everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compensated {
    /// Path of the step.
    pub step: Arc<str>,
    /// The paths of what it undid.
    pub output: Document,
}
