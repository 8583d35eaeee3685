//! Runs that people have done again: from the start or from a step, on the version of the run or the live one, with the
//! event as it was or edited. What a replay is made of is the product's code.

use std::sync::Arc;

use serde_json::{Value, json};
use weir_storage::{CopiedEvent, ExpectedFamily, Fact, Operation, RunOwner, RunRow, RunStatus, StoredEvent};
use weir_workflow_engine::{Document, Entry, EventId, EventSource, RunId};

use super::rules::Broken;
use super::world::{Broke, Lawful, WORKSPACE, World, broke, unread};
use crate::ingest::accept::new_run;
use crate::recovery::restore_event;
use crate::repair::{Parts, ReplayFrom, assemble, copy_of};
use crate::snapshot::Version;
use crate::turns;

/// How many replays there were of each kind; one may be of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Replays {
    pub(super) from_step: usize,
    pub(super) edited: usize,
    pub(super) on_newer_version: usize,
}

impl World<'_> {
    /// The version that a run is pinned to.
    pub(super) fn version_of(&self, row: &RunRow) -> Lawful<Arc<Version>> {
        let workflow = self.snapshot.workflow_by_id(WORKSPACE, row.workflow_id);
        let published = workflow.and_then(|workflow| workflow.published.as_ref());
        let is_it = |version: &&Arc<Version>| version.id == row.version_id || self.broken == Broken::VersionIgnored;
        let version = published.filter(is_it).or_else(|| self.versions.get(&row.version_id));
        match version {
            Some(version) => Ok(Arc::clone(version)),
            None => broke("a run has its version", row.id),
        }
    }

    /// A person publishes the next version of a workflow. Its runs keep theirs.
    pub(super) fn publish(&mut self, workflow: usize) -> Lawful {
        let Some(written) = self.workflows.get_mut(workflow) else {
            return Ok(());
        };
        let Some(next) = written.next.take() else { return Ok(()) };
        let before = std::mem::replace(&mut written.document, next);
        written.earlier.push(before);
        let old = self.snapshot.workflow(WORKSPACE, &written.name);
        if let Some(old) = old.and_then(|workflow| workflow.published.clone()) {
            self.versions.insert(old.id, old);
        }
        self.configure()
    }

    /// A person has a run replayed, after having seen what that would do.
    pub(super) fn replay(&mut self, run: RunId) -> Lawful {
        let Some(process) = self.in_charge() else { return Ok(()) };
        let rows = self.store.runs().map_err(unread)?;
        let Some(row) = rows.iter().find(|row| row.id == run) else {
            return broke("a run that ended is there", run);
        };
        let family: Vec<&RunRow> = rows.iter().filter(|other| other.root_id == row.root_id).collect();
        if family.iter().any(|other| other.status.is_open()) || row.status == RunStatus::Merged {
            return Ok(());
        }
        let Some(stored) = self.store.event(row.event_id).map_err(unread)? else {
            return broke("a run has its event", run);
        };
        let snapshot = Arc::clone(&self.snapshot);
        let pinned = self.version_of(row)?;
        let live = snapshot.workflow_by_id(WORKSPACE, row.workflow_id);
        let live = live.and_then(|workflow| workflow.published.clone());
        let version = match live.filter(|_| self.chance.percent(60)) {
            Some(live) => live,
            None => Arc::clone(&pinned),
        };
        let recorded = self.entries(run)?;
        let from = self.beginning(&recorded);
        // A batch is not edited as one, and what another run started says which thing it is about.
        let may_edit = !version.plan.is_batched() && stored.row.source != EventSource::Workflow;
        let copied = match may_edit && self.chance.percent(35) {
            true => Some(self.edit(process, &stored)?),
            false => None,
        };
        let event_row = copied.as_ref().map_or(&stored.row, |copied| &copied.event);
        let mut event = restore_event(&snapshot, event_row).map_err(Broke)?;
        if version.plan.is_batched() {
            let others = self.events_of_batch(row.root_id)?;
            event = event.with_batch(&others);
        }
        let turn = match turns::of_replay(&snapshot, WORKSPACE, &version, &event, self.now) {
            Ok(turn) => turn,
            Err(refused) => return broke("every key can be computed", refused.message),
        };
        let ledger = self.family(row.root_id, None)?;
        let id = RunId::from_raw(self.processes[process].ids.next_raw(self.now));
        let parts = || Parts {
            id,
            run: row,
            recorded: &recorded,
            dedupe: &stored.dedupe,
            pinned: &pinned.plan,
            version: Arc::clone(&version),
            event: event.clone(),
            turn: turn.clone(),
            traceparent: None,
            now: self.now,
        };
        // A step that it cannot begin at is told to whoever asked.
        let Ok(mut assembled) = assemble(parts(), &ledger, &from) else {
            return Ok(());
        };
        let taken = std::mem::take(&mut assembled.taken.entries);
        if self.broken == Broken::TakenOverLost
            && let Ok(whole) = assemble(parts(), &ledger, &ReplayFrom::Start)
        {
            assembled = whole;
        }
        self.replays.from_step += usize::from(!taken.is_empty());
        self.replays.edited += usize::from(copied.is_some());
        self.replays.on_newer_version += usize::from(version.id != pinned.id);
        self.note(|| {
            let (from, number, edited) = (&assembled.from, version.number, copied.is_some());
            format!("{id} repeats {run} from {from:?} on version {number}, edited: {edited}")
        });
        if !taken.is_empty() {
            self.taken.insert(id, taken);
        }
        let replays = family.iter().filter(|member| member.replay_of.is_some()).count();
        let operation = Operation {
            family: Some(ExpectedFamily {
                root: row.root_id,
                replays: u64::try_from(replays).unwrap_or(u64::MAX),
            }),
            event: copied.map(Box::new),
            starts: vec![new_run(&assembled.active, RunOwner::ThisNode)],
            journal: assembled.journal,
            ..Operation::default()
        };
        let answer = self.write_in_trouble(process, Fact::Operate(Box::new(operation)))?;
        if answer.result.is_err() {
            return Ok(());
        }
        if self.dies_here() {
            self.crash(false);
            return Ok(());
        }
        self.hand_over(process, &answer);
        self.launch_if_free(process, assembled.active, &answer);
        Ok(())
    }

    /// Where a person has it begin: where it failed, at the start, or at any step that it came to.
    fn beginning(&mut self, recorded: &[Entry]) -> ReplayFrom {
        let steps: Vec<&str> = recorded
            .iter()
            .filter_map(|entry| match entry {
                Entry::Intended(intent) => Some(&*intent.step),
                Entry::Set(set) => Some(&*set.step),
                Entry::Slept(slept) => Some(&*slept.step),
                Entry::Branch(branch) => Some(&*branch.step),
                Entry::Items(items) => Some(&*items.step),
                Entry::Awaited(awaited) => Some(&*awaited.step),
                _ => None,
            })
            .collect();
        match self.chance.below(100) {
            0..50 => ReplayFrom::Automatic,
            50..80 if !steps.is_empty() => ReplayFrom::Step((*self.chance.pick(&steps)).to_owned()),
            _ => ReplayFrom::Start,
        }
    }

    /// The event as a person edits it: other items, and something that effects name. Its object and its lane stay.
    fn edit(&mut self, process: usize, stored: &StoredEvent) -> Lawful<CopiedEvent> {
        let mut body: Value = serde_json::from_slice(&stored.row.body).map_err(|error| Broke(error.to_string()))?;
        body["data"]["rev"] = json!(self.replays.edited + 1);
        if self.chance.percent(50) {
            let items: Vec<String> = (0..self.chance.below(4)).map(|item| format!("i{item}")).collect();
            body["data"]["items"] = json!(items);
        }
        let id = EventId::from_raw(self.processes[process].ids.next_raw(self.now));
        Ok(copy_of(stored, id, &Document::from_value(body)))
    }
}
