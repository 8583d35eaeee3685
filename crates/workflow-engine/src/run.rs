//! A run: what it knows, what it takes in, what it decides.
//!
//! [`decide`] never changes a run; folding the entries of its decision does. Whatever a decision depends on later is
//! in an entry, so a run that lost its memory continues from its journal.

mod calls;
mod decide;
mod failure;
mod fold;
mod fold_calls;
mod fork;
mod guard;
mod hurry;
mod limit;
mod parts;
mod restart;
mod retry;
mod scope;
pub(crate) mod sleep;
mod state;
mod undo;
mod wait;
mod walk;

use serde_json::Value;

pub use self::decide::{attend, decide};
pub use self::restart::{Restart, RestartError, restart};
pub use self::retry::{MAX_HOLDS, MAX_THROTTLED_TRIES};
pub(crate) use self::scope::{
    ARRIVED, ArrivedNames, BATCH, EVENT_MEMBERS, STEP_ROOTS, TRIGGER_ROOTS, TriggerNames, whole_event,
};
pub use self::sleep::MAX_SLEEP;
pub use self::state::{OpenEffect, RunHead, RunState};
pub(crate) use self::wait::started_run;
pub use self::wait::{Mail, OpenWait};
pub(crate) use self::wait::{REJECTED, WAIT_TIMEOUT};
use crate::command::{CallId, Command};
use crate::effect::EffectClass;
use crate::journal::Entry;
use crate::result::CallResult;
use crate::time::Timestamp;

/// How many items a `for_each` may take: the state of every item is held while the run is open.
///
/// Limit: items of a `for_each` | the step fails, `too_many_items` | `a_loop_refuses_what_it_cannot_keep_apart_or_hold`
pub const MAX_ITEMS: usize = 10_000;

/// How many entries a run may have: the state of every step is held while the run is open.
///
/// Limit: journal entries of a run (a step has one to four) | the run fails, `run_too_large`; `on_failure` has a tenth more | `a_run_that_grows_without_bound_is_ended` | `weir_runs_finished_total`
pub const MAX_RUN_ENTRIES: usize = 200_000;
/// How many bytes of arguments, items and outputs a run may gather, 32 MiB, for the same reason.
///
/// Limit: arguments, items and outputs that a run gathers | the run fails, `run_too_large` | `a_run_that_grows_without_bound_is_ended` | `weir_runs_finished_total`
pub const MAX_RUN_BYTES: usize = 32 << 20;
/// After how many entries a decision is cut, so that others get their turn before the run goes on.
pub const MAX_ENTRIES_PER_DECISION: usize = 200;

/// What a decision asks of its surroundings. Answers come from memory; they must not block.
pub trait Environment {
    /// What a call with these arguments does outside.
    fn effect_class(&self, connection: &str, operation: &str, args: &Value) -> EffectClass;
    /// `{name, connector, account, config}` of a connection, without secrets.
    fn connection(&self, name: &str) -> Option<Value>;
}

/// What a run takes in.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The run begins.
    Started,
    /// The process that ran it is gone: what became of calls that were handed out is not known.
    Recovered,
    /// A call came back. Outcomes of calls that are not handed out (any more) change nothing.
    Outcome {
        /// Which call.
        call: CallId,
        /// What came of it.
        result: &'a CallResult,
    },
    /// The due time of the last decision is reached. Earlier is harmless.
    Due,
    /// Something reached the run from outside. What concerns nothing in it changes nothing.
    Mail(Mail<'a>),
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Calls are on their way.
    Running,
    /// Only timers are open, and what is waited for from outside.
    Waiting,
    /// Stands still because somebody said so, and nothing is on its way.
    Paused,
    /// Ended well.
    Succeeded,
    /// Ended in failure; code `effect_unknown` when nobody knows whether an effect took place.
    Failed {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
        /// Path of the step at fault, `hydrate.<read>` for a read.
        step: Option<String>,
    },
    /// Ended because somebody asked for it.
    Canceled,
}

impl Status {
    /// Whether the run is over.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Running | Self::Waiting | Self::Paused => false,
            Self::Succeeded | Self::Failed { .. } | Self::Canceled => true,
        }
    }

    /// The name in storage and the API.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// What follows from an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to append to the journal, and to fold into the run.
    pub entries: Vec<Entry>,
    /// What to do outside, each after what [`Command::durable_first`] says.
    pub commands: Vec<Command>,
    /// Where the run stands after the entries.
    pub status: Status,
    /// When to come back with [`Input::Due`] at the latest, if nothing else happens. `None` with a run that waits: it
    /// stands still until somebody lets it go on.
    pub due: Option<Timestamp>,
    /// More can be done at once: come back with [`Input::Due`] when this is taken in.
    pub more: bool,
}

/// A run and a plan that do not fit together; nothing was decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The journal names a step that the plan does not have: the run belongs to another version.
    #[error("run {run} names {what}, which version {version} of the workflow does not have")]
    Foreign {
        /// The run.
        run: crate::id::RunId,
        /// The step or read.
        what: String,
        /// The version the run is pinned to.
        version: u32,
    },
}
