//! What runs under way wait for from outside.

use super::super::scalars::DateTime;
use super::step::may_read_payloads;
use async_graphql::{Context, Enum, ID, Object};
use weir_workflow_engine::{Awaited, Awaits, StoryStep};

/// A step that waits for something from outside.
#[derive(Debug)]
pub(crate) struct OpenWait {
    awaited: Awaited,
    step_name: String,
}

impl OpenWait {
    /// What this step waits for, if it does.
    pub(crate) fn of(step: &StoryStep) -> Option<Self> {
        Some(Self {
            awaited: step.wait.clone()?,
            step_name: step.name.clone(),
        })
    }
}

/// What a step of a run waits for from outside: an event, a person's decision, the end of another run.
#[Object]
impl OpenWait {
    /// Path of the step that waits.
    async fn step(&self) -> &str {
        &self.awaited.step
    }

    /// The path as people read it: an item without a `key` is told by its place in the list, from 1.
    async fn step_name(&self) -> &str {
        &self.step_name
    }

    /// What kind of thing it waits for.
    async fn reason(&self) -> OpenWaitReason {
        match self.awaited.what {
            Awaits::Event { .. } => OpenWaitReason::Event,
            Awaits::Approval { .. } => OpenWaitReason::Decision,
            Awaits::Run { .. } => OpenWaitReason::Run,
        }
    }

    /// Type of the event, such as `stripe.charge.refunded`, when it waits for one.
    async fn event_type(&self) -> Option<String> {
        match &self.awaited.what {
            Awaits::Event { connector, kind, .. } => Some(format!("{connector}.{kind}")),
            Awaits::Approval { .. } | Awaits::Run { .. } => None,
        }
    }

    /// What the key of the event has to be. Null without `PAYLOAD_READ`.
    async fn key(&self, ctx: &Context<'_>) -> Option<&str> {
        match &self.awaited.what {
            Awaits::Event { equals, .. } => may_read_payloads(ctx).then_some(&**equals),
            Awaits::Approval { .. } | Awaits::Run { .. } => None,
        }
    }

    /// What is asked, when it waits for a decision. Null without `PAYLOAD_READ`.
    async fn question(&self, ctx: &Context<'_>) -> Option<&str> {
        match &self.awaited.what {
            Awaits::Approval { title, .. } => may_read_payloads(ctx).then_some(&**title),
            Awaits::Event { .. } | Awaits::Run { .. } => None,
        }
    }

    /// Names of those who may decide. Empty for a decision: everybody with `RUN_APPROVE`.
    async fn by(&self) -> &[String] {
        match &self.awaited.what {
            Awaits::Approval { by, .. } => by,
            Awaits::Event { .. } | Awaits::Run { .. } => &[],
        }
    }

    /// Id of the run whose end it waits for.
    async fn run_id(&self) -> Option<ID> {
        match self.awaited.what {
            Awaits::Run { run } => Some(run.to_string().into()),
            Awaits::Event { .. } | Awaits::Approval { .. } => None,
        }
    }

    /// Since when.
    async fn since(&self) -> DateTime {
        DateTime(self.awaited.at)
    }

    /// When the step gives up.
    async fn until(&self) -> DateTime {
        DateTime(self.awaited.until)
    }
}

/// What a step waits for from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum OpenWaitReason {
    /// An event.
    Event,
    /// A person's decision.
    Decision,
    /// The end of a run that it started.
    Run,
}
