//! What the engine wants done outside: values that the host performs after the decision was committed as they ask.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::effect::{EffectClass, EffectKey};
use crate::time::Timestamp;

/// The number of a call inside its run; an outcome names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub u32);

impl fmt::Display for CallId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "#{}", self.0)
    }
}

/// One thing to do outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Perform the call of a step.
    Call(CallCommand),
    /// Perform a hydration read.
    Read(ReadCommand),
}

impl Command {
    /// Whether every entry decided so far must be on disk before this command is performed.
    pub fn durable_first(&self) -> bool {
        match self {
            Self::Call(call) => call.effect.is_some(),
            Self::Read(_) => false,
        }
    }

    /// The number that the outcome has to name.
    pub fn call(&self) -> CallId {
        match self {
            Self::Call(call) => call.call,
            Self::Read(read) => read.call,
        }
    }
}

/// The call of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallCommand {
    /// The number that the outcome has to name.
    pub call: CallId,
    /// Path of the step: ids joined by dots, `then`/`else` for branches, the item's key in brackets.
    pub step: String,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// Name of the connection to use.
    pub connection: String,
    /// Name of the connector.
    pub connector: String,
    /// Name of the operation without the connector.
    pub operation: String,
    /// The arguments: always a JSON object.
    pub args: Document,
    /// JSON pointer of the arguments in the workflow, to say where a wrong one stands; empty when they stand in none.
    pub args_at: String,
    /// Present when all pages of a list are wanted: the largest number of items. Only of calls that read.
    pub all_max: Option<u32>,
    /// How long one try may take; for all pages, how long each page may take.
    pub timeout: Duration,
    /// What the call does outside.
    pub class: EffectClass,
    /// Present when the call changes something outside.
    pub effect: Option<EffectCommand>,
}

/// How to send an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectCommand {
    /// The idempotency key.
    pub key: EffectKey,
    /// When it may have been sent for the first time.
    pub first_sent_at: Timestamp,
    /// Whether and how it may be sent now.
    pub mode: SendMode,
}

/// Whether and how an effect may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendMode {
    /// For the first time.
    First,
    /// Again: the key or the absolute values make that harmless, or it is proven that nothing was sent before.
    Resend,
    /// Look whether it was done; send only if it was not.
    LookFirst,
    /// Look whether it was done; when it cannot be found, answer with the failure `unproven`. Never send.
    LookOnly,
    /// After a crash: send only if it can be proven that no byte left; otherwise answer with the failure `unproven`.
    IfNeverSent,
}

/// A hydration read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadCommand {
    /// The number that the outcome has to name.
    pub call: CallId,
    /// Name of the read in the manifest.
    pub name: String,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// Name of the connection to use.
    pub connection: String,
    /// Name of the connector.
    pub connector: String,
    /// Name of the operation without the connector.
    pub operation: String,
    /// The arguments: always a JSON object.
    pub args: Document,
    /// Present when all pages are wanted: the largest number of items.
    pub all_max: Option<u32>,
    /// How long one try may take.
    pub timeout: Duration,
}
