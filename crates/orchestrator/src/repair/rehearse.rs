//! What a run would do, told what has come for it: events that are stored, ends of runs that it started.
//!
//! The engine decides; here is only looked up what the run itself would find, in the same order and by the same keys.
//! Nothing is written and nobody is called.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use weir_storage::{RunRow, RunStatus};
use weir_workflow_engine::{
    Awaited, Awaits, Event, EventId, Ledger, Past, Plan, Rehearsal, ReplayPreview, RunHead, RunId, RunStart, Timestamp,
};

use super::Family;
use crate::control::ControlError;
use crate::mail::{Letter, event_key, looks_back_to, of_end, of_event};
use crate::own::{self, Parent};
use crate::service::Core;
use crate::snapshot::{Snapshot, Version};

/// Most runs that a preview looks into beside the one that is replayed.
///
/// Limit: runs that the steps of a replay would start, and that its preview looks into | the others are not shown, and the preview says that it shows a part | `a_preview_looks_into_so_many_runs`
pub const MAX_PREVIEWED_RUNS: usize = 100;
/// Events with the key of a waiting step that are looked at together.
const EVENTS_AT_ONCE: u32 = 20;
/// Stands for ids that are not given yet: a preview that is made again is the same.
const NOT_YET: i64 = i64::MAX;

/// What is the same for all runs of a preview.
pub(super) struct Stage<'a> {
    pub(super) core: &'a Core,
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: Timestamp,
}

/// A run that would be started.
struct Child {
    plan: Arc<Version>,
    parent: Arc<Parent>,
    replaced: Option<Family>,
}

impl Stage<'_> {
    /// What a run would do, and what the runs would do that it starts, and those that they start.
    pub(super) async fn rehearse(
        &self,
        (plan, head, event): (&Plan, &RunHead, &Arc<Event>),
        ledger: &Ledger,
        past: Past<'_>,
    ) -> Result<ReplayPreview, ControlError> {
        let (mut preview, starts) = self.one((plan, head, event), ledger, past).await?;
        let parent = |head: &RunHead, event: &Arc<Event>| {
            Arc::new(Parent {
                head: RunHead {
                    id: RunId::from_raw(NOT_YET),
                    ..head.clone()
                },
                event: Arc::clone(event),
                traceparent: None,
            })
        };
        let mut waiting: VecDeque<(String, Arc<Parent>, RunStart)> = VecDeque::new();
        let first = parent(head, event);
        waiting.extend(
            starts
                .into_iter()
                .map(|start| (start.step.to_string(), Arc::clone(&first), start)),
        );
        let mut shown = 0;
        while let Some((path, parent, start)) = waiting.pop_front() {
            if shown == MAX_PREVIEWED_RUNS {
                preview.shown_in_part(format!(
                    "what the runs do that `{path}` and later steps start is not shown: a preview looks into \
                     {MAX_PREVIEWED_RUNS} runs"
                ));
                break;
            }
            shown += 1;
            let child = match self.child(&parent, &start).await? {
                Ok(child) => child,
                Err(why) => {
                    preview.shown_in_part(why);
                    continue;
                }
            };
            let replaced = child.replaced.as_ref().map(Family::ledger);
            let past = Past {
                recorded: child.replaced.as_ref().map_or(&[], Family::last_word),
                kept: &[],
                replaced: replaced.as_ref(),
            };
            let place = (&child.plan.plan, &child.parent.head, &child.parent.event);
            let (does, starts) = self.one(place, &Ledger::default(), past).await?;
            preview.add_run(&path, does);
            waiting.extend(
                starts
                    .into_iter()
                    .map(|start| (format!("{path}/{}", start.step), Arc::clone(&child.parent), start)),
            );
        }
        Ok(preview)
    }

    /// The run that a step would start, or why what it does is not known.
    async fn child(&self, parent: &Parent, start: &RunStart) -> Result<Result<Child, String>, ControlError> {
        let step = &start.step;
        if start.may_be_there {
            return Ok(Err(format!(
                "nobody knows whether `{step}` has started its run already, so what that does is not shown"
            )));
        }
        let nothing = |why: &dyn std::fmt::Display| Ok(Err(format!("`{step}` would start no run: {why}")));
        let place = (EventId::from_raw(NOT_YET), parent.event.received_at);
        let made = match own::child(self.snapshot, parent, (&start.args, start.key), place) {
            Ok(child) => child.rehearsed(self.core, self.snapshot),
            Err(failure) => return nothing(&failure.message),
        };
        let run = match made {
            Ok(run) => run,
            Err(ControlError::Invalid(problems)) => {
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                return nothing(&problems.join("; "));
            }
            Err(error) => return nothing(&error),
        };
        if let Some(refused) = &run.refused {
            return nothing(&refused.message);
        }
        let head = run.state.head();
        let replaced = match start.before {
            Some(before) => self.replaced(head, before).await?,
            None => None,
        };
        Ok(Ok(Child {
            parent: Arc::new(Parent {
                head: RunHead {
                    id: RunId::from_raw(NOT_YET),
                    root_id: RunId::from_raw(NOT_YET),
                    started_at: self.now,
                    ..head.clone()
                },
                event: Arc::clone(run.state.event()),
                traceparent: None,
            }),
            plan: run.version,
            replaced,
        }))
    }

    /// The family of the run that the recorded step had started, when it was one of the same workflow: it tells how
    /// calls answered.
    async fn replaced(&self, head: &RunHead, before: RunId) -> Result<Option<Family>, ControlError> {
        let row = self.core.store.run_load(head.workspace, before).await?;
        let Some(row) = row.filter(|row| row.workflow_id == head.workflow) else {
            return Ok(None);
        };
        match Family::load(self.core, head.workspace, row.root_id).await {
            Ok(family) => Ok(Some(family)),
            Err(ControlError::NotReplayable { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What one run would do, and which runs it would start.
    async fn one(
        &self,
        (plan, head, event): (&Plan, &RunHead, &Arc<Event>),
        ledger: &Ledger,
        past: Past<'_>,
    ) -> Result<(ReplayPreview, Vec<RunStart>), ControlError> {
        let surroundings = self.snapshot.surroundings(head.workspace, plan);
        let mut rehearsal = Rehearsal::begin((plan, head, event), ledger, past, &surroundings, self.now);
        let mut asked = BTreeSet::new();
        loop {
            let waits = rehearsal.waits();
            let Some(wait) = waits.into_iter().find(|wait| !asked.contains(&wait.step)) else {
                let starts = rehearsal.starts().to_vec();
                return Ok((rehearsal.finish(), starts));
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
                let since = last.map_or_else(|| looks_back_to(head.root_id).as_raw(), |last| last.saturating_add(1));
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
    use weir_workflow_engine::{VersionId, WorkflowId, WorkspaceId};

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
