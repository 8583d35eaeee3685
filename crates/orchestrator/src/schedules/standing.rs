//! Where one schedule stands, and what it fires next. No IO.

use crate::snapshot::{Version, Workflow};
use std::collections::VecDeque;
use std::sync::Arc;
use weir_storage::{ScheduleRow, WorkflowState};
use weir_workflow_engine::{Due, Schedule, Timestamp, Trigger, WorkspaceId};

/// One schedule of a published workflow.
pub(super) struct Standing {
    workflow: Arc<Workflow>,
    version: Arc<Version>,
    begins_at: Timestamp,
    fired_for: Option<Timestamp>,
    /// Everything planned up to here has fired or is given up.
    settled: Timestamp,
    /// Planned, due, not fired yet; oldest first.
    queue: VecDeque<Timestamp>,
    /// Planned instants since `fired_for` that will not fire.
    missed: u64,
    next: Option<Timestamp>,
}

/// One instant to fire.
pub(super) struct Step {
    pub(super) workflow: Arc<Workflow>,
    pub(super) version: Arc<Version>,
    pub(super) planned: Timestamp,
    pub(super) previous: Option<Timestamp>,
    pub(super) missed: u64,
}

impl Standing {
    /// As the row says, or further when this node has gone further since.
    pub(super) fn new(
        workflow: Arc<Workflow>,
        version: Arc<Version>,
        row: &ScheduleRow,
        known: Option<Standing>,
    ) -> Self {
        let mut standing = Self {
            workflow,
            version,
            begins_at: row.begins_at,
            fired_for: row.fired_for,
            settled: row.fired_for.unwrap_or(row.begins_at),
            queue: VecDeque::new(),
            missed: 0,
            next: None,
        };
        if let Some(known) = known.filter(|known| known.begins_at == row.begins_at) {
            standing.fired_for = standing.fired_for.max(known.fired_for);
            standing.settled = standing.settled.max(known.settled);
            standing.missed = known.missed;
        }
        standing.plan_next();
        standing
    }

    /// When something is due; `None` while the workflow is paused.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.queue.front().copied().or(self.next)
    }

    pub(super) fn fired_for(&self) -> Option<Timestamp> {
        self.fired_for
    }

    pub(super) fn settled(&self) -> Timestamp {
        self.settled
    }

    pub(super) fn workspace(&self) -> WorkspaceId {
        self.workflow.row.workspace
    }

    fn schedule(&self) -> Option<&Schedule> {
        match self.version.plan.trigger() {
            Trigger::Schedule(schedule) => Some(schedule),
            Trigger::Event { .. } | Trigger::Manual { .. } => None,
        }
    }

    fn plan_next(&mut self) {
        let paused = self.workflow.row.state == WorkflowState::Paused;
        self.next = self
            .schedule()
            .filter(|_| !paused)
            .and_then(|schedule| schedule.next_after(self.settled));
    }

    fn due(&self, now: Timestamp) -> Due {
        self.schedule()
            .map(|schedule| schedule.due(self.settled, now))
            .unwrap_or_default()
    }

    /// Whether more is due than the one instant that has just passed.
    pub(super) fn is_behind(&self, now: Timestamp) -> bool {
        if !self.queue.is_empty() {
            return false;
        }
        let due = self.due(now);
        due.missed > 0 || due.fire.len() > 1
    }

    /// Takes over what other nodes have fired.
    pub(super) fn catch_up_with(&mut self, row: &ScheduleRow) {
        if row.begins_at == self.begins_at && row.fired_for > self.fired_for {
            self.fired_for = row.fired_for;
            self.settled = self.settled.max(row.fired_for.unwrap_or(self.settled));
            self.missed = 0;
            self.plan_next();
        }
    }

    /// The next instant to fire at `now`, and nothing when what is due is only to be dropped.
    pub(super) fn step(&mut self, now: Timestamp) -> Option<Step> {
        if self.queue.is_empty() && self.next.is_some_and(|next| next <= now) {
            let due = self.due(now);
            if due.missed > 0 {
                self.tell_missed(&due);
                self.missed = self.missed.saturating_add(due.missed);
            }
            if due.fire.is_empty() {
                self.settled = self.settled.max(now);
                self.plan_next();
            }
            self.queue = due.fire.into();
        }
        let planned = *self.queue.front()?;
        Some(Step {
            workflow: Arc::clone(&self.workflow),
            version: Arc::clone(&self.version),
            planned,
            previous: self.fired_for,
            missed: self.missed,
        })
    }

    fn tell_missed(&self, due: &Due) {
        metrics::counter!("weir_schedule_missed_total").increment(due.missed);
        let name = &self.workflow.row.name;
        let policy = self.schedule().map_or("", |schedule| schedule.catch_up().as_str());
        let (missed, runs) = (due.missed, due.fire.len());
        tracing::warn!(
            workflow.name = %name,
            missed,
            "planned times of `{name}` after {} passed while no run could be started: with `catch_up: {policy}` {runs} of \
             them get a run now, {missed} never do",
            self.settled,
        );
    }

    /// The event of an instant is stored, here or by another node.
    pub(super) fn fired(&mut self, planned: Timestamp) {
        self.fired_for = self.fired_for.max(Some(planned));
        self.missed = 0;
        self.pass(planned);
    }

    /// The event of an instant can never be stored.
    pub(super) fn give_up(&mut self, planned: Timestamp) {
        self.missed = self.missed.saturating_add(1);
        self.pass(planned);
    }

    fn pass(&mut self, planned: Timestamp) {
        self.settled = self.settled.max(planned);
        while self.queue.front().is_some_and(|front| *front <= planned) {
            self.queue.pop_front();
        }
        self.plan_next();
    }
}
