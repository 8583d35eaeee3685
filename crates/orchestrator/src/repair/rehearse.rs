//! What a run would do, told what has come for it: events that are stored, ends of runs that it started.
//!
//! The engine decides; here is only looked up what the run itself would find, in the same order and by the same keys.
//! Nothing is written and nobody is called.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_storage::{RunRow, RunStatus};
use weir_workflow_engine::{Awaited, Awaits, Event, Ledger, Past, Plan, Rehearsal, ReplayPreview, RunHead, Timestamp};

use crate::control::ControlError;
use crate::mail::{Letter, event_key, of_end, of_event};
use crate::service::Core;
use crate::snapshot::Snapshot;

/// Events with the key of a waiting step that are looked at together.
const EVENTS_AT_ONCE: u32 = 20;

/// What is the same for all runs of a preview.
pub(super) struct Stage<'a> {
    pub(super) core: &'a Core,
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: Timestamp,
}

impl Stage<'_> {
    /// What a run would do.
    pub(super) async fn rehearse(
        &self,
        (plan, head, event): (&Plan, &RunHead, &Arc<Event>),
        ledger: &Ledger,
        past: Past<'_>,
    ) -> Result<ReplayPreview, ControlError> {
        let surroundings = self.snapshot.surroundings(head.workspace, plan);
        let mut rehearsal = Rehearsal::begin((plan, head, event), ledger, past, &surroundings, self.now);
        let mut asked = BTreeSet::new();
        loop {
            let waits = rehearsal.waits();
            let Some(wait) = waits.into_iter().find(|wait| !asked.contains(&wait.step)) else {
                return Ok(rehearsal.finish());
            };
            asked.insert(Arc::clone(&wait.step));
            let mut last = None;
            loop {
                let letters = self.came(head, &wait, &mut last).await?;
                letters
                    .iter()
                    .filter_map(Letter::as_mail)
                    .for_each(|mail| rehearsal.hear(mail, &surroundings));
                if letters.is_empty() || !rehearsal.is_waiting(&wait.step) {
                    break;
                }
            }
        }
    }

    /// What has come for a step, oldest first, some at a time: behind `last`. None: no more.
    async fn came(&self, head: &RunHead, wait: &Awaited, last: &mut Option<i64>) -> Result<Vec<Letter>, ControlError> {
        let (store, workspace) = (&self.core.store, head.workspace);
        match &wait.what {
            Awaits::Approval { .. } => Ok(Vec::new()),
            Awaits::Run { .. } if last.is_some() => Ok(Vec::new()),
            Awaits::Run { run } => {
                *last = Some(run.as_raw());
                let family = store.run_family(workspace, *run).await?;
                let Some(ended) = end_that_counts(&family) else {
                    return Ok(Vec::new());
                };
                let journal = store.journal_load(workspace, ended.id).await?;
                Ok(vec![of_end(ended, &journal)])
            }
            Awaits::Event {
                connector,
                kind,
                key,
                equals,
            } => {
                let key = event_key(workspace, connector, kind, key, equals);
                let since = last.map_or(head.root_id.as_raw(), |last| last.saturating_add(1));
                let ids = store.events_with_key(key, since, EVENTS_AT_ONCE).await?;
                *last = ids.last().map(|id| id.as_raw());
                let mut letters = Vec::with_capacity(ids.len());
                for id in ids {
                    letters.push(of_event(self.snapshot, store.event_load(workspace, id).await?.as_ref()));
                }
                Ok(letters)
            }
        }
    }
}

/// The run of a family whose end counts for who waits for it: of those that are over the newest success; while there is
/// none and one is open, none.
fn end_that_counts(family: &[RunRow]) -> Option<&RunRow> {
    let rank = |run: &&RunRow| (run.status == RunStatus::Succeeded, run.status.is_open(), run.id);
    family.iter().max_by_key(rank).filter(|run| !run.status.is_open())
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_workflow_engine::{EventId, RunId, VersionId, WorkflowId, WorkspaceId};

    fn run(id: i64, status: RunStatus) -> RunRow {
        RunRow {
            id: RunId::from_raw(id),
            root_id: RunId::from_raw(1),
            replay_of: None,
            workspace: WorkspaceId::from_raw(1),
            event_id: EventId::from_raw(1),
            workflow_id: WorkflowId::from_raw(1),
            version_id: VersionId::from_raw(1),
            owner: 0,
            status,
            started_at: Timestamp::from_unix_ms(0),
            due_at: None,
            finished_at: None,
            error_code: None,
            error_step: None,
        }
    }

    #[test]
    fn a_success_of_the_family_counts_and_an_open_run_is_waited_for() {
        use RunStatus::{Canceled, Failed, Running, Succeeded};
        let counts = |runs: &[RunStatus]| {
            let rows: Vec<RunRow> = (1..).zip(runs).map(|(id, status)| run(id, *status)).collect();
            end_that_counts(&rows).map(|run| run.id.as_raw())
        };
        assert_eq!(counts(&[Failed, Succeeded, Canceled]), Some(2));
        assert_eq!(counts(&[Succeeded, Running]), Some(1));
        assert_eq!(counts(&[Failed, Running, Failed]), None);
        assert_eq!(counts(&[Failed, Canceled]), Some(2));
        assert_eq!(counts(&[]), None);
    }
}
