//! When this node looks at which registration. No IO: whoever asks brings the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weir_storage::RegistrationRow;
use weir_workflow_engine::{EndpointId, Timestamp, WorkspaceId};

use super::rules::{self, BACK_OFF, DISCONNECTED, Wish};

/// Pause after another node was found at work, or the database did not answer.
const STAND_BACK: Duration = Duration::from_secs(3);

/// A look that is due.
pub(super) struct Work {
    pub(super) workspace: WorkspaceId,
    pub(super) endpoint: EndpointId,
    pub(super) row: Option<RegistrationRow>,
    pub(super) wish: Wish,
}

struct Standing {
    workspace: WorkspaceId,
    row: Option<RegistrationRow>,
    wish: Wish,
    running: bool,
    not_before: Option<Timestamp>,
    due: Option<Timestamp>,
}

impl Standing {
    fn plan(&mut self, now: Timestamp) {
        let due = rules::due(now, &self.wish, self.row.as_ref());
        self.due = due.map(|due| self.not_before.map_or(due, |at| at.max(due)));
    }

    /// The configuration has changed: that may be what was missing, so a failure is tried again before its time.
    fn hope(&mut self, now: Timestamp) {
        let failing = self.row.as_ref().filter(|row| row.failures > 0);
        if failing.is_some_and(|row| row.error.as_deref() != Some(DISCONNECTED)) && self.due.is_some() {
            self.due = Some(self.not_before.map_or(now, |at| at.max(now)));
        }
    }

    fn newest(&mut self, row: Option<RegistrationRow>) {
        let generation = |row: &Option<RegistrationRow>| row.as_ref().map_or(0, |row| row.generation);
        // The configuration may have been read before our last write.
        if row.is_none() || generation(&row) >= generation(&self.row) {
            self.row = row;
        }
    }
}

/// The registrations of all endpoints, as this node plans them.
#[derive(Default)]
pub(super) struct Planner {
    standings: BTreeMap<EndpointId, Standing>,
}

impl Planner {
    /// Takes over what the configuration says. Rows without a wish belong to endpoints that are not to be registered.
    pub(super) fn take_over(
        &mut self,
        wishes: impl Iterator<Item = ((WorkspaceId, EndpointId), Wish)>,
        rows: impl Iterator<Item = RegistrationRow>,
        now: Timestamp,
    ) {
        let mut rows: BTreeMap<EndpointId, RegistrationRow> = rows.map(|row| (row.endpoint, row)).collect();
        let mut before = std::mem::take(&mut self.standings);
        let mut wanted: Vec<((WorkspaceId, EndpointId), Wish)> = wishes.collect();
        let ids: BTreeSet<EndpointId> = wanted.iter().map(|((_, id), _)| *id).collect();
        let left: Vec<_> = rows
            .values()
            .filter(|row| !ids.contains(&row.endpoint))
            .map(|row| ((row.workspace, row.endpoint), Wish::Absent(None)))
            .collect();
        wanted.extend(left);
        for ((workspace, id), wish) in wanted {
            let row = rows.remove(&id);
            let mut standing = before.remove(&id).unwrap_or(Standing {
                workspace,
                row: None,
                wish: Wish::Absent(None),
                running: false,
                not_before: None,
                due: None,
            });
            // One that is not there may have been stored after the configuration was read: a claim tells.
            if !standing.running && row.is_some() {
                standing.newest(row);
            }
            standing.wish = wish;
            standing.plan(now);
            standing.hope(now);
            self.standings.insert(id, standing);
        }
        // What is being worked at comes to its end.
        self.standings.extend(
            before
                .into_iter()
                .filter(|(_, standing)| standing.running)
                .map(|(id, mut standing)| {
                    standing.wish = Wish::Absent(None);
                    (id, standing)
                }),
        );
    }

    /// Takes the registration that is due for the longest time.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Work> {
        let waiting = self.standings.iter_mut().filter(|(_, standing)| !standing.running);
        let due = waiting.filter_map(|(id, standing)| {
            let due = standing.due.filter(|due| *due <= now)?;
            Some((due, *id, standing))
        });
        let (_, endpoint, standing) = due.min_by_key(|(due, _, _)| *due)?;
        standing.running = true;
        Some(Work {
            workspace: standing.workspace,
            endpoint,
            row: standing.row.clone(),
            wish: standing.wish.clone(),
        })
    }

    /// How long nothing is due; `None`: nothing is planned.
    pub(super) fn rest(&self, now: Timestamp) -> Option<Duration> {
        let waiting = self.standings.values().filter(|standing| !standing.running);
        let next = waiting.filter_map(|standing| standing.due).min()?;
        Some(next.since(now))
    }

    /// How many cannot be looked after.
    pub(super) fn failing(&self) -> usize {
        let failing = |standing: &&Standing| {
            matches!(standing.wish, Wish::Unclear(_)) || standing.row.as_ref().is_some_and(|row| row.failures > 0)
        };
        self.standings.values().filter(failing).count()
    }

    /// A look of this node is over.
    pub(super) fn ended(&mut self, endpoint: EndpointId, row: Option<RegistrationRow>, now: Timestamp) {
        self.end(endpoint, Some(row), None, now);
    }

    /// Another node has it, or has changed it.
    pub(super) fn overtaken(&mut self, endpoint: EndpointId, row: Option<RegistrationRow>, now: Timestamp) {
        self.end(endpoint, Some(row), Some(STAND_BACK), now);
    }

    /// It could not begin, or what became of it could not be stored.
    pub(super) fn postponed(&mut self, endpoint: EndpointId, now: Timestamp) {
        self.end(endpoint, None, Some(STAND_BACK), now);
    }

    /// Somebody else in this process has written the row.
    pub(super) fn settle(&mut self, endpoint: EndpointId, row: Option<RegistrationRow>) {
        if let Some(standing) = self.standings.get_mut(&endpoint).filter(|standing| !standing.running) {
            standing.due = row.as_ref().filter(|row| row.failures > 0).map(|row| row.retry_at);
            standing.newest(row);
        }
    }

    fn end(
        &mut self,
        endpoint: EndpointId,
        row: Option<Option<RegistrationRow>>,
        pause: Option<Duration>,
        now: Timestamp,
    ) {
        let Some(standing) = self.standings.get_mut(&endpoint) else {
            return;
        };
        standing.running = false;
        if let Some(row) = row {
            standing.newest(row);
        }
        let is_failing = standing.row.as_ref().is_some_and(|row| row.failures > 0);
        let pause = pause.or_else(|| is_failing.then_some(BACK_OFF.0));
        standing.not_before = pause.map(|pause| now.plus(pause));
        standing.plan(now);
        if standing.row.is_none() && matches!(standing.wish, Wish::Absent(_)) {
            self.standings.remove(&endpoint);
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
