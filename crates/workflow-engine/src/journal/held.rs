//! A call that was not made yet, because its connection may not send now.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::calling::{is_empty, no_exchanges};
use super::{Exchanges, Target};
use crate::command::{CallId, SendMode};
use crate::result::HeldBy;
use crate::time::Timestamp;

/// A call was not made: it is offered again later, under the number of the try that did not come about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The call.
    pub call: CallId,
    /// What it belongs to.
    pub of: Target,
    /// What holds it.
    pub by: HeldBy,
    /// Until when.
    #[serde(with = "crate::time::unix_ms")]
    pub until: Timestamp,
    /// How an effect is sent then; absent for calls without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<SendMode>,
    /// Why, for people.
    pub reason: Arc<str>,
    /// What was exchanged before: looks, first pages.
    #[serde(default = "no_exchanges", skip_serializing_if = "is_empty")]
    pub exchanges: Exchanges,
}
