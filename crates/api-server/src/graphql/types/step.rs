//! Steps, attempts and effects of a run, as its journal tells them.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::scalars::{DateTime, Json, Long};
use super::budget::StepHold;
use super::connector::EffectClass;
use super::exchange::Exchange;
use super::open_wait::OpenWait;
use crate::auth::Permission;
use async_graphql::{Context, Enum, Object, SimpleObject};
use std::sync::Arc;
use weir_workflow_engine::{Decided, StoryAttempt, StoryStep, Verdict};

/// One step of a run.
#[derive(Debug)]
pub(crate) struct Step(pub(crate) StoryStep);

/// One step of a run: a follow-up read, or a step of the workflow.
#[Object]
impl Step {
    /// Its path, such as `known.then.update`; `hydrate.customer` for a follow-up read.
    async fn path(&self) -> &str {
        &self.0.path
    }

    /// Its path as people read it: an item without a `key` is told by its place in the list, from 1.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// What kind of step.
    async fn kind(&self) -> Option<StepKind> {
        StepKind::by_name(self.0.kind)
    }

    /// What it is, in a few words: the operation, the branch taken, the number of items, what is asked or waited for.
    /// What comes from the event is left out without `PAYLOAD_READ`.
    async fn label(&self, ctx: &Context<'_>) -> String {
        match (self.0.kind, may_read_payloads(ctx)) {
            ("approve", false) => String::new(),
            // Behind it stands the key that the event has to have.
            ("wait_for", false) => self.0.label.split(" for ").next().unwrap_or_default().to_owned(),
            _ => self.0.label.clone(),
        }
    }

    /// Where it stands.
    async fn status(&self) -> Option<StepStatus> {
        StepStatus::by_name(self.0.status)
    }

    /// When it began.
    async fn started_at(&self) -> Option<DateTime> {
        self.0.started_at.map(DateTime)
    }

    /// When it ended.
    async fn finished_at(&self) -> Option<DateTime> {
        self.0.finished_at.map(DateTime)
    }

    /// Its tries, for calls and reads.
    async fn attempts(&self, ctx: &Context<'_>) -> Vec<Attempt> {
        let attempts = self.0.attempts.iter();
        attempts.map(|attempt| Attempt::of(attempt, &self.0, ctx)).collect()
    }

    /// What it changes outside, for calls that do.
    async fn effect(&self) -> Option<Effect> {
        let effect = self.0.effect.as_ref()?;
        Some(Effect {
            key: effect.key.to_string(),
            class: EffectClass::by_name(effect.class)?,
            state: EffectState::by_name(effect.state)?,
            decision: effect.decided.as_ref().map(EffectDecision::from),
        })
    }

    /// What it gave back. Needs `PAYLOAD_READ`.
    async fn output(&self, ctx: &Context<'_>) -> ApiResult<Option<Json>> {
        Caller::of(ctx).may(Permission::PayloadRead)?;
        Ok(self.0.output.as_ref().map(Json::from))
    }

    /// Why it failed or was skipped, until when it waits, who decided. Null without `PAYLOAD_READ`: it may quote contents.
    async fn note(&self, ctx: &Context<'_>) -> Option<String> {
        told(ctx, self.0.note.as_deref()?)
    }

    /// What holds its call back, while it waits until its connection may send.
    async fn hold(&self) -> Option<StepHold> {
        self.0.hold.map(StepHold::from)
    }

    /// What it waits for from outside, while it does.
    async fn wait(&self) -> Option<OpenWait> {
        OpenWait::of(&self.0)
    }
}

/// Whether the caller may see what comes from outside.
pub(crate) fn may_read_payloads(ctx: &Context<'_>) -> bool {
    Caller::of(ctx).may(Permission::PayloadRead).is_ok()
}

/// A message as the caller may see it: messages quote what they are about, what the provider answered and what people
/// wrote, and all of that is payload.
pub(crate) fn told(ctx: &Context<'_>, message: &str) -> Option<String> {
    may_read_payloads(ctx).then(|| message.to_owned())
}

/// Why something is not done, with what went wrong in particular for those who may see contents.
pub(crate) fn with_particular(ctx: &Context<'_>, why: String, quoted: Option<String>) -> String {
    match quoted.filter(|_| may_read_payloads(ctx)) {
        Some(quoted) => format!("{why} ({quoted})"),
        None => why,
    }
}

/// One try of a step.
#[derive(Debug, SimpleObject)]
pub(crate) struct Attempt {
    /// Which, from 1.
    number: u32,
    /// When it was handed out or, if that is not known, came back.
    at: DateTime,
    /// How long its exchanges took, milliseconds.
    duration_ms: Long,
    /// What came of it: `sent`, `coalesced` (answered by the request of another run), `found` (it had taken place
    /// already), `retry`, `gone`, `failed`, `held` (not sent, after it looked), `lost` (nobody knows), `running`,
    /// `abandoned` (its branch was left, or its run ended, before it came back).
    outcome: String,
    /// Why it failed. Null without `PAYLOAD_READ`: it may quote contents.
    error: Option<String>,
    /// When the next try is due.
    next_at: Option<DateTime>,
    /// Its HTTP requests and answers.
    exchanges: Vec<Exchange>,
}

impl Attempt {
    fn of(attempt: &StoryAttempt, step: &StoryStep, ctx: &Context<'_>) -> Self {
        let exchange = |recorded: &weir_workflow_engine::Exchange| Exchange {
            recorded: Arc::new(recorded.clone()),
            output: step.output.clone(),
        };
        Attempt {
            number: attempt.number,
            at: DateTime(attempt.at),
            duration_ms: Long(attempt.duration_ms),
            outcome: attempt.outcome.to_owned(),
            error: attempt.error.as_deref().and_then(|error| told(ctx, error)),
            next_at: attempt.next_at.map(DateTime),
            exchanges: attempt.exchanges.iter().map(exchange).collect(),
        }
    }
}

/// A change outside that a step makes.
#[derive(Debug, SimpleObject)]
pub(crate) struct Effect {
    /// Its idempotency key: the same in every retry and replay.
    key: String,
    /// How it can be repeated.
    class: EffectClass,
    /// What is known of it.
    state: EffectState,
    /// What a person said of it, when nobody knew. The state goes by it.
    decision: Option<EffectDecision>,
}

/// What a person said about an effect.
#[derive(Debug, Clone, SimpleObject)]
pub(crate) struct EffectDecision {
    /// What became of it.
    verdict: EffectVerdict,
    /// Whether the provider was asked and had it.
    looked: bool,
    /// Who: `token:` and the token's id, or the name of the bootstrap token.
    by: String,
    /// When.
    at: DateTime,
    /// Why, in the person's words.
    note: Option<String>,
}

impl From<&Decided> for EffectDecision {
    fn from(decided: &Decided) -> Self {
        EffectDecision {
            verdict: match decided.verdict {
                Verdict::Happened { .. } => EffectVerdict::Happened,
                Verdict::NotHappened => EffectVerdict::NotHappened,
            },
            looked: decided.looked,
            by: decided.by.to_string(),
            at: DateTime(decided.at),
            note: Some(decided.note.to_string()).filter(|note| !note.is_empty()),
        }
    }
}

/// What became of an effect, in the words of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum EffectVerdict {
    /// It took place.
    Happened,
    /// It did not take place.
    NotHappened,
}

/// Declares an enum whose values the engine names in `snake_case`.
macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
        pub(crate) enum $name {
            $($(#[$value_doc])* $value,)*
        }

        impl $name {
            fn by_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$value),)*
                    _ => None,
                }
            }
        }
    };
}

named_enum! {
    /// What kind of step.
    StepKind {
        /// A follow-up read of the event.
        Read = "read",
        /// A call of a connector.
        Call = "call",
        /// A choice between two branches.
        If = "if",
        /// A choice among cases.
        Switch = "switch",
        /// Values that later steps use.
        Set = "set",
        /// Steps for each item of a list.
        ForEach = "for_each",
        /// Steps side by side.
        Parallel = "parallel",
        /// A pause.
        Sleep = "sleep",
        /// A pause until an event arrives.
        WaitFor = "wait_for",
        /// A pause until a person decides.
        Approve = "approve",
        /// A run of another workflow.
        Run = "run",
        /// An outgoing event.
        Emit = "emit",
        /// An answer to whoever sent the event.
        Respond = "respond",
        /// Steps whose failure is handled.
        Try = "try",
        /// Undoes what was done.
        Compensate = "compensate",
        /// The end of the run.
        Stop = "stop",
    }
}

named_enum! {
    /// Where a step stands.
    StepStatus {
        /// Not reached yet.
        Pending = "pending",
        /// Under way.
        Running = "running",
        /// Between two tries, or asleep.
        Waiting = "waiting",
        /// Done.
        Succeeded = "succeeded",
        /// Left out by its condition.
        Skipped = "skipped",
        /// The object to read does not exist any more.
        Gone = "gone",
        /// Answered from the record of an earlier run: nothing was sent.
        Answered = "answered",
        /// It failed.
        Failed = "failed",
        /// Nobody knows whether it took place: a person must look.
        Unknown = "unknown",
        /// The run was stopped before it was done.
        Canceled = "canceled",
    }
}

named_enum! {
    /// What is known of an effect.
    EffectState {
        /// About to be sent, or sent and not answered yet.
        Intended = "intended",
        /// It took place.
        Confirmed = "confirmed",
        /// It is proven not to have taken place.
        Failed = "failed",
        /// Nobody knows: a person must look.
        Unknown = "unknown",
        /// It took place and was undone by a `compensate`: a replay does it again.
        Undone = "undone",
    }
}
