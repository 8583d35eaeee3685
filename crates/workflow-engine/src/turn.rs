//! Flow control: what a run has to pass before it may start.
//!
//! A run passes its gates in the order of [`GateKind`]: first it is known which events it stands for, then comes its
//! lane, then the limits on runs in progress and on starts. A paused workflow has a gate before all of them. It waits in front of one gate at a time and keeps its place in
//! those behind it, so no two runs can wait for each other. Which gates these are follows from the event alone; what
//! happens at them is decided by a [`Board`].

mod board;
mod gate;
mod gather;
mod moves;
mod pause;

use std::time::Duration;

use sha2::{Digest as _, Sha256};

pub use self::board::Board;
pub use self::gate::Gate;
pub use self::moves::{Arrival, GateChange, Moves, Outcome, RunEnd, Stage, Standing, TurnChange};
pub use self::pause::MAX_RESUMED;
use crate::correlation;
use crate::definition::{FlowControl, MAX_PRIORITY, OnBlock, Priority};
use crate::event::Event;
use crate::expression::{Expression, ExpressionError, Template, sample};
use crate::id::WorkflowId;
use crate::plan::TriggerScope;
use crate::run::TriggerNames;
use crate::time::Timestamp;

/// How much of a key is kept to be shown, in characters; keys are compared whole.
const SHOWN_CHARACTERS: usize = 200;

/// What kind of gate it is. A run passes them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GateKind {
    /// The workflow is paused.
    Pause,
    /// Only the last event of a burst.
    Debounce,
    /// One run for several events.
    Batch,
    /// One run at a time, in the order of acceptance.
    Lane,
    /// So many runs at a time.
    Concurrency,
    /// So many starts in a period.
    Throttle,
}

impl GateKind {
    /// The word of the workflow document; `pause` is none.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Debounce => "debounce",
            Self::Batch => "batch",
            Self::Lane => "lane",
            Self::Concurrency => "concurrency",
            Self::Throttle => "throttle",
        }
    }

    /// Whether a run keeps its place there until it is over.
    pub(crate) const fn is_kept(self) -> bool {
        match self {
            Self::Lane | Self::Concurrency => true,
            Self::Pause | Self::Debounce | Self::Batch | Self::Throttle => false,
        }
    }
}

/// What a gate is found by: the first 16 bytes of a SHA-256 over workflow, kind and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateKey([u8; 16]);

impl GateKey {
    /// The key of a gate.
    pub fn new(workflow: WorkflowId, kind: GateKind, key: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(workflow.as_raw().to_be_bytes());
        digest.update(kind.as_str());
        digest.update([0]);
        digest.update(key);
        let mut short = [0; 16];
        short.copy_from_slice(&digest.finalize()[..16]);
        Self(short)
    }

    /// The key with these bytes, as storage keeps it.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes inside.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// What a gate asks of those who pass it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Nobody, until the workflow is resumed; then one after the other, in the order of acceptance.
    Pause {
        /// It is resumed, and whoever comes waits behind those that are not let through yet.
        open: bool,
    },
    /// One run for a burst of events, the last of them, when it has been quiet for a while.
    Debounce {
        /// How long, in milliseconds.
        quiet_ms: i64,
        /// How long the first event of a burst may wait, in milliseconds.
        max_ms: Option<i64>,
    },
    /// One run for so many events, or for those of so long.
    Batch {
        /// How many.
        size: u32,
        /// How long the first one waits, in milliseconds.
        within_ms: i64,
    },
    /// One after the other.
    Lane {
        /// Only the last waiting event is kept.
        merge: bool,
        /// How many may wait.
        max_waiting: u32,
        /// A failed run keeps its place until a person has dealt with it.
        hold: bool,
    },
    /// At most `limit` at a time.
    Concurrency {
        /// How many.
        limit: u32,
    },
    /// At most `limit` starts in any `per_ms`.
    Throttle {
        /// How many.
        limit: u32,
        /// The period, in milliseconds.
        per_ms: i64,
    },
}

impl Rules {
    /// The kind of gate.
    pub const fn kind(&self) -> GateKind {
        match self {
            Self::Pause { .. } => GateKind::Pause,
            Self::Debounce { .. } => GateKind::Debounce,
            Self::Batch { .. } => GateKind::Batch,
            Self::Lane { .. } => GateKind::Lane,
            Self::Concurrency { .. } => GateKind::Concurrency,
            Self::Throttle { .. } => GateKind::Throttle,
        }
    }

    /// How many may be inside at a time, or pass in a period, or are gathered.
    pub const fn limit(&self) -> u32 {
        match self {
            Self::Pause { open: true } => 1,
            Self::Pause { open: false } => 0,
            Self::Debounce { .. } | Self::Lane { .. } => 1,
            Self::Concurrency { limit } | Self::Throttle { limit, .. } => *limit,
            Self::Batch { size, .. } => *size,
        }
    }

    /// The period of a throttle, in milliseconds.
    pub const fn per_ms(&self) -> i64 {
        match self {
            Self::Throttle { per_ms, .. } => *per_ms,
            Self::Pause { .. }
            | Self::Debounce { .. }
            | Self::Batch { .. }
            | Self::Lane { .. }
            | Self::Concurrency { .. } => 0,
        }
    }
}

/// One gate that a run has to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The gate.
    pub key: GateKey,
    /// The author's key, for people, cut to 200 characters; empty when there is none.
    pub name: String,
    /// What it asks.
    pub rules: Rules,
}

/// What a run has to pass before it may start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// From -100 to 100; who has more goes first when there is not room for all.
    pub priority: i32,
    /// The gates, in the order in which they are passed.
    pub gates: Vec<Ask>,
}

impl Turn {
    /// Has it wait first until the workflow is resumed, or, when it is `open` again, behind those that still wait.
    pub fn hold(&mut self, workflow: WorkflowId, open: bool) {
        let ask = Ask {
            key: GateKey::new(workflow, GateKind::Pause, ""),
            name: String::new(),
            rules: Rules::Pause { open },
        };
        self.gates.insert(0, ask);
    }

    /// Whether it waits until the workflow is resumed.
    pub fn is_held(&self) -> bool {
        self.gates.iter().any(|ask| ask.rules == Rules::Pause { open: false })
    }

    /// Takes the limits that `other` has at the same gates over, for runs and for starts.
    pub fn take_limits(&mut self, other: &Self) {
        for ask in &mut self.gates {
            let limits = matches!(ask.rules, Rules::Concurrency { .. } | Rules::Throttle { .. });
            let found = other.gates.iter().find(|found| found.key == ask.key);
            if let Some(found) = found.filter(|_| limits) {
                ask.rules = found.rules;
            }
        }
    }
}

impl FlowControl {
    /// Whether it says anything.
    pub(crate) fn is_used(&self) -> bool {
        self.priority.is_some() || self.has_gates()
    }

    /// Whether runs may have to wait for anything.
    pub(crate) fn has_gates(&self) -> bool {
        self.lane.is_some()
            || self.concurrency.is_some()
            || self.throttle.is_some()
            || self.debounce.is_some()
            || self.batch.is_some()
    }

    /// What the run of an event has to pass, and its priority; `None` when nothing is said about it.
    pub(crate) fn turn(
        &self,
        workflow: WorkflowId,
        event: &Event,
        scope: &TriggerScope<'_>,
        now: Timestamp,
    ) -> Result<Option<Turn>, ExpressionError> {
        if !self.is_used() {
            return Ok(None);
        }
        let names = TriggerNames {
            event,
            connection: scope.connection,
            trigger: scope.trigger,
            now,
        };
        let mut turn = Turn {
            priority: self.priority(&names)?,
            gates: Vec::new(),
        };
        let mut pass = |key: Option<&Template>, rules: Rules| -> Result<(), ExpressionError> {
            let name = key.map(|key| key_text(key, &names)).transpose()?.unwrap_or_default();
            turn.gates.push(Ask {
                key: GateKey::new(workflow, rules.kind(), &name),
                name: name
                    .chars()
                    .take(SHOWN_CHARACTERS)
                    .collect::<String>()
                    .replace('\0', "\u{fffd}"),
                rules,
            });
            Ok(())
        };
        if let Some(debounce) = &self.debounce {
            let rules = Rules::Debounce {
                quiet_ms: ms(debounce.quiet),
                max_ms: debounce.max.map(ms),
            };
            pass(Some(&debounce.key), rules)?;
        }
        if let Some(batch) = &self.batch {
            let rules = Rules::Batch {
                size: batch.size,
                within_ms: ms(batch.within),
            };
            pass(batch.key.as_ref(), rules)?;
        }
        if let Some(lane) = &self.lane {
            let rules = Rules::Lane {
                merge: lane.merge,
                max_waiting: lane.max_waiting,
                hold: lane.on_block == OnBlock::Hold,
            };
            pass(Some(&lane.key), rules)?;
        }
        if let Some(concurrency) = &self.concurrency {
            let rules = Rules::Concurrency {
                limit: concurrency.limit,
            };
            pass(concurrency.key.as_ref(), rules)?;
        }
        if let Some(throttle) = &self.throttle {
            let rules = Rules::Throttle {
                limit: throttle.limit,
                per_ms: ms(throttle.per),
            };
            pass(throttle.key.as_ref(), rules)?;
        }
        Ok(Some(turn))
    }

    fn priority(&self, names: &TriggerNames<'_>) -> Result<i32, ExpressionError> {
        match &self.priority {
            None => Ok(0),
            Some(Priority::Fixed(priority)) => Ok(*priority),
            Some(Priority::Computed(expression)) => {
                let value = expression.value(names)?;
                // Beyond the bounds it counts as the bound: an event must not fail for being too urgent.
                let bound = f64::from(MAX_PRIORITY);
                let number = value.as_f64().ok_or_else(|| ExpressionError {
                    pointer: expression.pointer().to_owned(),
                    expression: expression.source().to_owned(),
                    reason: format!("a priority is a number, not {}", sample(&value)),
                })?;
                #[expect(clippy::cast_possible_truncation, reason = "it lies within the bounds")]
                let whole = number.clamp(-bound, bound).round() as i32;
                Ok(whole)
            }
        }
    }
}

fn ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn key_text(key: &Template, names: &TriggerNames<'_>) -> Result<String, ExpressionError> {
    let rendered = key.render(names)?;
    let text = correlation::text(rendered.value()).filter(|text| !text.is_empty());
    text.ok_or_else(|| ExpressionError {
        pointer: key
            .expressions()
            .next()
            .map(Expression::pointer)
            .unwrap_or_default()
            .to_owned(),
        expression: key
            .expressions()
            .map(|expression| expression.source().to_owned())
            .collect::<Vec<_>>()
            .join(", "),
        reason: format!(
            "a key is a text that is not empty, a number or a boolean, not {}",
            sample(rendered.value())
        ),
    })
}
