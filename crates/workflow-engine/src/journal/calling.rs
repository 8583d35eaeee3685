//! The calls of a run: handed out, intended, come back, put off, given up, or answered by what was recorded.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Exchanges, Target, is_false};
use crate::command::{CallId, SendMode};
use crate::document::Document;
use crate::effect::{EffectClass, EffectKey, RequestDigest};
use crate::id::RunId;
use crate::result::{CallFailure, Origin};
use crate::time::Timestamp;

/// A try was handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The call.
    pub call: CallId,
    /// What it belongs to.
    pub of: Target,
    /// Which try, from 1.
    pub attempt: u32,
    /// When it was decided.
    #[serde(with = "crate::time::unix_ms")]
    pub at: Timestamp,
    /// How an effect is sent; absent for calls without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<SendMode>,
}

/// An effect that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The call.
    pub call: CallId,
    /// Path of the step.
    pub step: Arc<str>,
    /// The idempotency key.
    pub key: EffectKey,
    /// Digest of the request.
    pub digest: RequestDigest,
    /// How often an earlier intent of the same step and digest is proven not to have been carried out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u32,
    /// How the effect can be repeated.
    pub class: EffectClass,
    /// Name of the connection.
    pub connection: Arc<str>,
    /// Name of the connector.
    pub connector: Arc<str>,
    /// Name of the operation.
    pub operation: Arc<str>,
    /// The arguments.
    pub args: Document,
    /// When the key may have been sent for the first time.
    #[serde(with = "crate::time::unix_ms")]
    pub first_sent_at: Timestamp,
    /// How it is sent.
    pub mode: SendMode,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A call came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The call.
    pub call: CallId,
    /// What it belongs to.
    pub of: Target,
    /// Which try, from 1.
    pub attempt: u32,
    /// When its outcome was taken in.
    #[serde(with = "crate::time::unix_ms")]
    pub at: Timestamp,
    /// What came of it and what follows.
    pub outcome: AttemptOutcome,
    /// The exchanges of this try.
    #[serde(default = "no_exchanges", skip_serializing_if = "is_empty")]
    pub exchanges: Exchanges,
}

pub(super) fn no_exchanges() -> Exchanges {
    Arc::from([])
}

pub(super) fn is_empty(exchanges: &Exchanges) -> bool {
    exchanges.is_empty()
}

/// What came of a try and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// Done.
    Done {
        /// What the operation gave back.
        output: Document,
        /// How it was got.
        origin: Origin,
    },
    /// The object of a read is not there (any more): its output is null.
    Gone {
        /// What the provider said.
        failure: CallFailure,
    },
    /// Failed; there will be another try.
    Retry {
        /// Why.
        failure: CallFailure,
        /// When the next try is due.
        #[serde(with = "crate::time::unix_ms")]
        next_at: Timestamp,
        /// How the next try of an effect is sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<SendMode>,
    },
    /// Failed for good.
    Failed {
        /// Why.
        failure: CallFailure,
        /// The code under which the step fails: the failure's own, `retries_exhausted` or `effect_unknown`.
        code: Arc<str>,
        /// What became of the effect; absent for calls without effect.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        effect: Option<EffectEnd>,
        /// Whether the run goes on (`on_error: continue`).
        #[serde(default, skip_serializing_if = "is_false")]
        continued: bool,
    },
}

/// What became of an effect that was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectEnd {
    /// Proven not to have taken place.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// A call waits before it goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postponed {
    /// The call.
    pub call: CallId,
    /// Until when.
    #[serde(with = "crate::time::unix_ms")]
    pub until: Timestamp,
    /// How it goes on.
    pub mode: SendMode,
    /// Why it waits, for people.
    pub reason: Arc<str>,
}

/// The ledger had the result of an effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Path of the step.
    pub step: Arc<str>,
    /// The idempotency key.
    pub key: EffectKey,
    /// Digest of the request.
    pub digest: RequestDigest,
    /// How the effect can be repeated.
    pub class: EffectClass,
    /// The recorded output.
    pub output: Document,
    /// The run that recorded it.
    pub run: RunId,
}

/// An effect of which nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownEffect {
    /// The call; absent when another run left the effect unknown and this one did not send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallId>,
    /// Path of the step.
    pub step: Arc<str>,
    /// The idempotency key.
    pub key: EffectKey,
    /// Why nothing can find out, for people.
    pub reason: Arc<str>,
}

/// A call was given up because the run ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandoned {
    /// The call.
    pub call: CallId,
    /// What it belongs to.
    pub of: Target,
    /// What is known of its effect; absent for calls without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectEnd>,
}
