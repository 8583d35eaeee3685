//! What is written when a run waits for something from outside, or stands still because somebody said so.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Target;
use crate::command::CallId;
use crate::document::Document;
use crate::id::{EventId, RunId};
use crate::time::Timestamp;

/// A step began to wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// Path of the step.
    pub step: Arc<str>,
    /// What for.
    pub what: Awaits,
    /// Since when.
    #[serde(with = "crate::time::unix_ms")]
    pub at: Timestamp,
    /// When it gives up.
    #[serde(with = "crate::time::unix_ms")]
    pub until: Timestamp,
}

/// What a step waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Awaits {
    /// An event.
    Event {
        /// Name of the connector.
        connector: Arc<str>,
        /// The event type.
        kind: Arc<str>,
        /// The expression that is computed of the event.
        key: Arc<str>,
        /// What it has to be.
        equals: Arc<str>,
    },
    /// A person's decision.
    Approval {
        /// What is asked.
        title: Arc<str>,
        /// What belongs to it.
        detail: Document,
        /// Who may decide; anybody who may decide at all when it is empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        by: Vec<String>,
    },
    /// The end of a run that this one started.
    Run {
        /// That run.
        run: RunId,
    },
}

/// What a step waited for has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrived {
    /// Path of the step.
    pub step: Arc<str>,
    /// What came: the output of the step.
    pub output: Document,
    /// The event, when it was one. No other step of the run takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventId>,
}

/// An event was found by its key, and the step does not take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// Path of the step.
    pub step: Arc<str>,
    /// The event.
    pub event: EventId,
    /// Why, for people.
    pub reason: Arc<str>,
}

/// Somebody had the run stand still: nothing new is begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Who.
    pub by: Arc<str>,
    /// Why, for people.
    pub reason: Arc<str>,
    /// Since when.
    #[serde(with = "crate::time::unix_ms")]
    pub at: Timestamp,
}

/// Somebody had the run go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Who.
    pub by: Arc<str>,
    /// When.
    #[serde(with = "crate::time::unix_ms")]
    pub at: Timestamp,
}

/// Somebody had calls that wait for their next tries go on earlier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hurried {
    /// Who.
    pub by: Arc<str>,
    /// When.
    #[serde(with = "crate::time::unix_ms")]
    pub at: Timestamp,
    /// Which calls.
    pub calls: Vec<HurriedCall>,
}

/// A call that goes on earlier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HurriedCall {
    /// The call.
    pub call: CallId,
    /// What it belongs to.
    pub of: Target,
    /// When it goes on now.
    #[serde(with = "crate::time::unix_ms")]
    pub until: Timestamp,
}
