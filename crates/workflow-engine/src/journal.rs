//! The journal: what happened in a run, in order. It is the only truth of a run.
//!
//! These types are what is written to disk, so they are a format: a new field needs a default, and a field is never
//! given another meaning. A change that old readers cannot take raises [`VERSION`]. The state of a run is another
//! type ([`crate::RunState`]) and is never written.

mod calling;
mod held;
mod limited;
mod row;
mod undoing;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::calling::{
    Abandoned, Answered, Attempt, AttemptOutcome, EffectEnd, Intent, Issued, Postponed, UnknownEffect,
};
pub use self::held::Held;
pub use self::limited::{Limited, RanOver};
pub use self::row::{JournalError, VERSION, decode, encode};
pub(crate) use self::undoing::is_in_undo;
pub use self::undoing::{Compensated, Compensating};
pub use self::waiting::{Arrived, Awaited, Awaits, Hurried, HurriedCall, PassedOver, Paused, Resumed};

use crate::document::Document;
use crate::effect::EffectKey;
use crate::result::Exchange;
use crate::time::Timestamp;

/// The exchanges of one try, shared between the journal and the run.
pub type Exchanges = Arc<[Exchange]>;

/// One thing that happened in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A try of a call without effect, or another try of one with effect, was handed out.
    Issued(Issued),
    /// An effect is about to be sent. On disk before it is.
    Intended(Intent),
    /// A call came back.
    Attempt(Attempt),
    /// A call waits before it goes on, for another reason than a failed try.
    Postponed(Postponed),
    /// A call was not made: its connection may not send now.
    Held(Held),
    /// An effect was not sent: the ledger had its result.
    Answered(Answered),
    /// Nobody knows whether an effect took place, and nothing here can find out.
    Unknown(UnknownEffect),
    /// A call was given up because the run ends.
    Abandoned(Abandoned),
    /// A hydration read was left out.
    ReadSkipped(ReadSkipped),
    /// A step was left out because its `when` was false.
    Skipped(Skipped),
    /// An `if` or `switch` chose a branch.
    Branch(BranchTaken),
    /// A `set` computed its object.
    Set(SetDone),
    /// A `for_each` took its list.
    Items(ItemsTaken),
    /// A `sleep` began.
    Slept(Slept),
    /// A `sleep` is over.
    Woke(Woke),
    /// The branches of a `parallel` began.
    Forked(Forked),
    /// A step with steps inside began, and has so long.
    Limited(Limited),
    /// The time limit of a step with steps inside was over before they were through.
    RanOver(RanOver),
    /// A failure was caught or a branch was left, and what was open there has come to an end.
    Caught(Caught),
    /// The run failed, and the steps of `on_failure` begin.
    FailureTaken(FailureTaken),
    /// A `stop` was reached.
    Stopped(Stopped),
    /// A step failed without a call being the cause, or for good.
    StepFailed(StepFailed),
    /// A step began to wait for something from outside.
    Awaited(Awaited),
    /// What a step waited for has come.
    Arrived(Arrived),
    /// An event was not what a step waits for.
    PassedOver(PassedOver),
    /// A `compensate` begins to undo these steps, in this order.
    Compensating(Compensating),
    /// A `compensate` is through.
    Compensated(Compensated),
    /// Somebody had the run stand still.
    Paused(Paused),
    /// Somebody had the run go on.
    Resumed(Resumed),
    /// Somebody had calls that wait for their next tries go on earlier.
    Hurried(Hurried),
    /// Somebody asked for the run to end.
    CancelAsked(CancelAsked),
    /// The run's own time limit was over.
    TimedOut(TimedOut),
    /// The run had become larger than a run may be.
    Outgrown(Outgrown),
    /// The run ended.
    Finished(Finished),
    /// A person said what became of an effect that nobody knew about. Stands behind the end of the run.
    Decided(Decided),
}

impl Entry {
    /// About how many bytes of documents it holds.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Intended(intent) => intent.args.size_bytes(),
            Self::Attempt(Attempt {
                outcome: AttemptOutcome::Done { output, .. },
                ..
            }) => output.size_bytes(),
            Self::Answered(answered) => answered.output.size_bytes(),
            Self::Set(set) => set.output.size_bytes(),
            Self::Awaited(Awaited {
                what: Awaits::Approval { detail, .. },
                ..
            }) => detail.size_bytes(),
            Self::Arrived(arrived) => arrived.output.size_bytes(),
            Self::Items(items) => items.items.iter().map(|item| item.value.size_bytes()).sum(),
            Self::Decided(Decided {
                verdict: Verdict::Happened { output },
                ..
            }) => output.size_bytes(),
            _ => 0,
        }
    }
}

/// What a call belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The step with this path.
    Step(Arc<str>),
    /// The hydration read with this name.
    Read(Arc<str>),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A hydration read was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadSkipped {
    /// Name of the read.
    pub name: Arc<str>,
    /// Why, for people.
    pub reason: Arc<str>,
}

/// A step was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Path of the step.
    pub step: Arc<str>,
}

/// Which way an `if` or `switch` went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BranchSide {
    /// Into `then`.
    Then,
    /// Into `else`.
    Else,
    /// Into the case with this label, or into `default`.
    Case(Arc<str>),
    /// Nowhere: nothing holds, and there is no `else` or `default`.
    None,
}

impl BranchSide {
    /// The label of the block; `None` when there is none.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Then => Some("then"),
            Self::Else => Some("else"),
            Self::Case(label) => Some(label),
            Self::None => None,
        }
    }
}

/// An `if` or `switch` chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchTaken {
    /// Path of the step.
    pub step: Arc<str>,
    /// Which way.
    pub taken: BranchSide,
}

/// A `set` computed its object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDone {
    /// Path of the step.
    pub step: Arc<str>,
    /// The object.
    pub output: Document,
}

/// A `for_each` took its list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemsTaken {
    /// Path of the step.
    pub step: Arc<str>,
    /// The items in the order of the list.
    pub items: Arc<[Item]>,
}

/// One item of a `for_each`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What tells it from the others; part of the path of the steps for it.
    pub key: Arc<str>,
    /// Its value.
    pub value: Document,
}

/// A `sleep` began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slept {
    /// Path of the step.
    pub step: Arc<str>,
    /// Until when.
    #[serde(with = "crate::time::unix_ms")]
    pub until: Timestamp,
}

/// A `sleep` is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Woke {
    /// Path of the step.
    pub step: Arc<str>,
}

/// The branches of a `parallel` began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forked {
    /// Path of the step.
    pub step: Arc<str>,
}

/// A failure was caught, or a branch was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caught {
    /// Path of the step that takes care of it.
    pub step: Arc<str>,
    /// The branch of a `parallel`, or the key of the item of a `for_each`, that came to an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Arc<str>>,
}

/// The steps of `on_failure` begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureTaken {
    /// How the run ends when they are through.
    pub ending: Ending,
}

/// How a `stop` ends the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopStatus {
    /// As a success.
    Succeeded,
    /// As a failure with the code `stopped`.
    Failed,
}

/// A `stop` was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Path of the step.
    pub step: Arc<str>,
    /// How the run ends.
    pub status: StopStatus,
    /// Why, for people.
    pub reason: Arc<str>,
}

/// A step failed without an attempt that says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailed {
    /// What failed.
    pub of: Target,
    /// Stable code.
    pub code: Arc<str>,
    /// For people.
    pub message: Arc<str>,
    /// Whether the run goes on (`on_error: continue`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub continued: bool,
}

/// Somebody asked for the run to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelAsked {
    /// Who; empty in journals from before it was kept.
    #[serde(default = "nobody", skip_serializing_if = "is_nobody")]
    pub by: Arc<str>,
    /// Why, for people.
    pub reason: Arc<str>,
}

fn nobody() -> Arc<str> {
    Arc::from("")
}

fn is_nobody(by: &Arc<str>) -> bool {
    by.is_empty()
}

/// The run's own time limit was over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedOut {
    /// The limit.
    #[serde(with = "crate::duration::in_ms")]
    pub limit: Duration,
}

/// The run had become too large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgrown {
    /// Path of the step that was not begun any more.
    pub step: Arc<str>,
    /// Which limit, for people.
    pub limit: Arc<str>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All steps done, or a `stop` as a success.
    Succeeded,
    /// Failed.
    Failed {
        /// Stable code.
        code: Arc<str>,
        /// For people.
        message: Arc<str>,
        /// Path of the step at fault, `hydrate.<read>` for a read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<Arc<str>>,
    },
    /// Ended because somebody asked for it.
    Canceled,
}

/// The run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// How.
    pub ending: Ending,
    /// When.
    #[serde(with = "crate::time::unix_ms")]
    pub at: Timestamp,
    /// What it gave, for the run that waits for it; absent when none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Document>,
}

/// What became of an effect, in the words of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It took place: it is never sent again, and steps after it see this output.
    Happened {
        /// Null when the person gave none.
        output: Document,
    },
    /// It did not take place: the next retry sends it, under a key of the next generation.
    NotHappened,
}

impl Verdict {
    /// The name in the API.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Happened { .. } => "happened",
            Self::NotHappened => "not_happened",
        }
    }
}

/// A person said what became of an effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Path of the step.
    pub step: Arc<str>,
    /// The idempotency key.
    pub key: EffectKey,
    /// What became of it.
    pub verdict: Verdict,
    /// Whether a look at the provider said so, and the person only asked for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub looked: bool,
    /// Who, as in the audit trail.
    pub by: Arc<str>,
    /// Why, in the person's words; empty when nothing was said.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub note: Arc<str>,
    /// When.
    #[serde(with = "crate::time::unix_ms")]
    pub at: Timestamp,
}
