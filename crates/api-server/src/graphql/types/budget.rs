//! What a connection may send, and how its provider answers, as this server sees it.

use super::super::scalars::{DateTime, Long};
use super::long_to_int;
use async_graphql::{Enum, SimpleObject};
use weir_orchestrator::budget::{BreakerFigure, BudgetFigures, Calls, LimitFigure};
use weir_orchestrator::snapshot::Snapshot;
use weir_storage::{GrantRow, GrantState};
use weir_workflow_engine::{HeldBy, StoryHold, WorkflowId, WorkspaceId};

/// Whether a provider answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum ConnectionHealth {
    /// Calls go through.
    Healthy,
    /// A circuit breaker is open: calls wait, and one at a time tries whether the provider works again. Or its access
    /// cannot be renewed now; `grant { error }` says why.
    Degraded,
    /// A person has to let it in (again) at its provider, or to see to a credential with which logins are refused. Calls
    /// wait.
    NeedsReauth,
}

impl ConnectionHealth {
    pub(crate) fn of(figures: &BudgetFigures) -> Self {
        match figures.is_healthy() {
            true => ConnectionHealth::Healthy,
            false => ConnectionHealth::Degraded,
        }
    }

    /// The same for a connection that people let in. `grant`: what is stored of that.
    pub(crate) fn with_grant(self, grant: Option<&GrantRow>) -> Self {
        match grant.map(|row| row.state) {
            Some(GrantState::Healthy) => self,
            Some(GrantState::Degraded) => ConnectionHealth::Degraded,
            Some(GrantState::NeedsReauth) | None => ConnectionHealth::NeedsReauth,
        }
    }
}

/// Where what is known of a budget comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
enum BudgetSource {
    /// Nothing is stated or known: only the number of open calls is bounded.
    Default,
    /// The manifest, or the connection's own settings.
    Stated,
    /// Headers or bodies of the provider's answers.
    Headers,
    /// Answers of the provider that there were too many requests.
    Refusals,
}

/// The shape of an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
enum BudgetShape {
    /// So many in any span of a length.
    Window,
    /// What was not used is kept up to a size.
    Bucket,
    /// So many from one reset to the next.
    Daily,
    /// What the provider's answers tell.
    Learned,
}

/// One allowance of a connection, the part of it that is this server's.
#[derive(Debug, SimpleObject)]
struct BudgetLimit {
    /// Its shape.
    shape: BudgetShape,
    /// What the provider calls it.
    name: Option<String>,
    /// The whole of it.
    limit: Option<f64>,
    /// What is left of it.
    remaining: f64,
    /// Length of its window in seconds.
    window_seconds: Option<f64>,
    /// When it is whole again; null when it is.
    resets_at: Option<DateTime>,
}

/// Calls of one class that wait.
#[derive(Debug, SimpleObject)]
struct BudgetQueue {
    /// `live`, `sweep`, `backfill` or `replay`.
    class: String,
    /// Calls that wait in memory.
    waiting: Long,
}

/// Requests since this server started.
#[derive(Debug, SimpleObject)]
struct BudgetCalls {
    /// Requests that left.
    sent: Long,
    /// Requests that the provider turned away because of too many.
    throttled: Long,
    /// How often a call was sent away to come again later.
    held: Long,
}

/// Requests of one workflow with one connection since this server started.
#[derive(Debug, SimpleObject)]
struct WorkflowCalls {
    /// Name of the workflow. Null when there is no such workflow any more.
    workflow_name: Option<String>,
    /// Its requests.
    calls: BudgetCalls,
}

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
enum BreakerState {
    /// Calls go through; some failed lately.
    Closed,
    /// Nothing is sent.
    Open,
    /// One call is on its way to find out whether the provider works.
    Probing,
}

/// The circuit breaker of a host, or of a step whose calls alone fail.
#[derive(Debug, SimpleObject)]
struct Breaker {
    /// The host, with connectors that call any.
    host: Option<String>,
    /// The step or read whose calls alone it holds; null: all calls.
    step: Option<String>,
    /// The workflow of that step.
    workflow_name: Option<String>,
    /// Its state.
    state: BreakerState,
    /// Failures in a row.
    failures: i32,
    /// Until when nothing is sent.
    until: Option<DateTime>,
}

/// What a connection may send, as this server counts it.
#[derive(Debug, SimpleObject)]
pub(crate) struct ConnectionBudget {
    /// Its allowances; each of them holds.
    limits: Vec<BudgetLimit>,
    /// Calls that may be open at the same time.
    concurrency: i32,
    /// Calls that are open.
    open: i32,
    /// Part of each allowance that only live events may use, percent.
    reserve_percent: i32,
    /// Calls that wait in memory, by class.
    queues: Vec<BudgetQueue>,
    /// Calls whose runs sleep until they come again.
    sleeping: i32,
    /// Requests of the last second.
    per_second: f64,
    /// Nothing is sent before this moment, because the provider asked for it.
    closed_until: Option<DateTime>,
    /// The part of its allowances that is used: below 1 after the provider complained.
    pace: f64,
    /// Where what is known comes from.
    learned_from: BudgetSource,
    /// Its requests.
    calls: BudgetCalls,
    /// The same by workflow, the busiest first.
    workflows: Vec<WorkflowCalls>,
    /// Hosts that failed lately, and steps whose calls wait because theirs failed.
    breakers: Vec<Breaker>,
    /// Name of the server whose figures these are: with several, each has its part.
    node: String,
}

impl From<&LimitFigure> for BudgetLimit {
    fn from(figure: &LimitFigure) -> Self {
        BudgetLimit {
            shape: match figure.shape {
                "bucket" => BudgetShape::Bucket,
                "daily" => BudgetShape::Daily,
                "learned" => BudgetShape::Learned,
                _ => BudgetShape::Window,
            },
            name: Some(figure.name.clone()).filter(|name| !name.is_empty()),
            limit: figure.limit,
            remaining: figure.remaining,
            window_seconds: figure.window_s,
            resets_at: figure.resets_at.map(DateTime),
        }
    }
}

impl From<Calls> for BudgetCalls {
    fn from(calls: Calls) -> Self {
        let long = Long;
        BudgetCalls {
            sent: long(calls.sent),
            throttled: long(calls.throttled),
            held: long(calls.held),
        }
    }
}

impl Breaker {
    fn new(figure: &BreakerFigure, name_of: impl Fn(WorkflowId) -> Option<String>) -> Self {
        let step = figure.step.as_ref();
        Breaker {
            host: Some(figure.host.clone()).filter(|host| !host.is_empty()),
            step: step.map(|(_, step)| step.clone()),
            workflow_name: step.and_then(|(workflow, _)| name_of((*workflow)?)),
            state: match figure.state {
                "open" => BreakerState::Open,
                "probing" => BreakerState::Probing,
                _ => BreakerState::Closed,
            },
            failures: i32::try_from(figure.failures).unwrap_or(i32::MAX),
            until: figure.until.map(DateTime),
        }
    }
}

impl ConnectionBudget {
    pub(crate) fn new(figures: &BudgetFigures, snapshot: &Snapshot, workspace: WorkspaceId, node: &str) -> Self {
        let int = |number: u64| long_to_int(i64::try_from(number).unwrap_or(i64::MAX));
        let name_of = |id: WorkflowId| {
            let mut all = snapshot.workflows(workspace);
            all.find(|workflow| workflow.row.id == id)
                .map(|workflow| workflow.row.name.clone())
        };
        ConnectionBudget {
            limits: figures.limits.iter().map(BudgetLimit::from).collect(),
            concurrency: int(figures.concurrency),
            open: int(figures.open),
            reserve_percent: i32::from(figures.reserve_percent),
            queues: figures
                .waiting
                .iter()
                .map(|(class, waiting)| BudgetQueue {
                    class: class.as_str().to_owned(),
                    waiting: Long(*waiting),
                })
                .collect(),
            sleeping: int(figures.sleeping),
            per_second: figures.per_second,
            closed_until: figures.closed_until.map(DateTime),
            pace: figures.pace,
            learned_from: match figures.source {
                "headers" => BudgetSource::Headers,
                "refusals" => BudgetSource::Refusals,
                "stated" => BudgetSource::Stated,
                _ => BudgetSource::Default,
            },
            calls: figures.calls.into(),
            workflows: figures
                .by_workflow
                .iter()
                .map(|(workflow, calls)| WorkflowCalls {
                    workflow_name: name_of(*workflow),
                    calls: (*calls).into(),
                })
                .collect(),
            breakers: figures
                .breakers
                .iter()
                .map(|figure| Breaker::new(figure, name_of))
                .collect(),
            node: node.to_owned(),
        }
    }
}

/// What holds a step's call back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
enum HoldReason {
    /// The budget of its connection.
    Budget,
    /// A circuit breaker of its connection: the provider is down, or fails the calls of this step.
    Breaker,
    /// The server that drove the run was stopping: the next one makes the call.
    Stop,
    /// The tokens of its connection cannot be renewed now.
    Token,
    /// Its connection waits until a person lets it in again, or sees to its credential.
    Reauth,
}

/// A call that waits until its connection may send. It is no failure, and no try is counted.
#[derive(Debug, SimpleObject)]
pub(crate) struct StepHold {
    /// What holds it.
    by: HoldReason,
    /// When it is offered again.
    until: DateTime,
}

impl From<StoryHold> for StepHold {
    fn from(hold: StoryHold) -> Self {
        StepHold {
            by: match hold.by {
                HeldBy::Budget => HoldReason::Budget,
                HeldBy::Breaker => HoldReason::Breaker,
                HeldBy::Stop => HoldReason::Stop,
                HeldBy::Token => HoldReason::Token,
                HeldBy::Reauth => HoldReason::Reauth,
            },
            until: DateTime(hold.until),
        }
    }
}
