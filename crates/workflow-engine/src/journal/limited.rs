//! The time limit of a step with steps inside.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A step with steps inside began, and has so long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limited {
    /// Path of the step.
    pub step: Arc<str>,
    /// Until when. The time that the run stands still comes on top.
    #[serde(with = "crate::time::unix_ms")]
    pub until: Timestamp,
}

/// The time limit of a step was over before the steps in it were through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RanOver {
    /// Path of the step.
    pub step: Arc<str>,
    /// The limit.
    #[serde(with = "crate::duration::in_ms")]
    pub limit: Duration,
}
