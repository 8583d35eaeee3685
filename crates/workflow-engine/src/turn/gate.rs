//! One gate: what runs wait in front of, and when it lets the next one through.

use super::moves::Standing;
use super::{Ask, GateKind};
use crate::id::{RunId, WorkflowId, WorkspaceId};
use crate::time::Timestamp;

/// What runs wait in front of, and who is inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The workflow.
    pub workflow: WorkflowId,
    /// What kind of gate.
    pub kind: GateKind,
    /// The author's key, for people.
    pub name: String,
    /// How many may be inside: what the newest event said. A replay says nothing about it once there is a gate.
    pub limit: u32,
    /// How many are: in a lane one more, while a replay of the failed run that keeps it goes in past that one.
    pub inside: u32,
    /// How many wait.
    pub waiting: u32,
    /// The failed run that keeps a lane until a person has dealt with it, which counts as inside; or the run that gathers
    /// events.
    pub holder: Option<RunId>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The period of a throttle, in milliseconds.
    pub per_ms: i64,
    /// When the last runs were let through a throttle, at most `limit`, in milliseconds.
    pub starts: Vec<i64>,
    /// The waiting run that is woken when a throttle lets the next one through.
    pub alarm: Option<RunId>,
}

impl Gate {
    pub(super) fn new(standing: &Standing, ask: &Ask) -> Self {
        Self {
            workspace: standing.workspace,
            workflow: standing.workflow,
            kind: ask.rules.kind(),
            name: ask.name.clone(),
            limit: ask.rules.limit(),
            inside: 0,
            waiting: 0,
            holder: None,
            since: None,
            per_ms: ask.rules.per_ms(),
            starts: Vec::new(),
            alarm: None,
        }
    }

    /// When the next run may pass; `None` when nobody knows: somebody has to leave first.
    pub(super) fn opens(&self) -> Option<i64> {
        let room = self.inside < self.limit;
        match self.kind {
            GateKind::Lane | GateKind::Concurrency => room.then_some(i64::MIN),
            GateKind::Throttle => {
                let before = self
                    .starts
                    .len()
                    .checked_sub(usize::try_from(self.limit).unwrap_or(usize::MAX));
                let last = before.and_then(|number| self.starts.get(number));
                Some(last.map_or(i64::MIN, |start| start.saturating_add(self.per_ms)))
            }
            // Those that wait are let through by the one who resumes the workflow.
            GateKind::Pause => (room && self.waiting == 0).then_some(i64::MIN),
            GateKind::Debounce | GateKind::Batch => None,
        }
    }

    /// Somebody passes.
    pub(super) fn enter(&mut self, now: Timestamp) {
        if self.kind.is_kept() {
            self.inside += 1;
        } else if self.kind == GateKind::Throttle {
            self.starts.push(now.as_unix_ms());
            let kept = usize::try_from(self.limit).unwrap_or(usize::MAX);
            self.starts.drain(..self.starts.len().saturating_sub(kept));
        }
    }

    /// Until when a throttle must remember who passed.
    pub fn idle_at(&self) -> Option<i64> {
        self.starts.last().map(|start| start.saturating_add(self.per_ms))
    }

    pub(super) fn is_needed(&self, now: Timestamp) -> bool {
        let remembers = self.idle_at().is_some_and(|until| until > now.as_unix_ms());
        self.inside > 0 || self.waiting > 0 || remembers
    }
}
