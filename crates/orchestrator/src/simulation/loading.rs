//! What a process reads: runs, their mail, and work that nobody told it of.

use std::sync::Arc;
use std::time::Duration;

use weir_storage::{Mail, MailChange, MailKind, RunStatus, StoredRun};
use weir_workflow_engine::{Entry, Event, EventId, Ledger, RunId, decode};

use super::item::{Item, Place, Turn};
use super::rules::Broken;
use super::world::{Broke, Lawful, Life, WORKSPACE, World, broke, unread};
use crate::driver::ActiveRun;
use crate::mail::{self, Letter};
use crate::recovery::{is_wanted, restore_event, revive};

/// How often a node looks for work that nobody told it of.
const HEARTBEAT: Duration = Duration::from_secs(5);

impl World<'_> {
    /// Work that nobody told the process in charge of, as its heartbeat and its scans find it.
    pub(super) fn heartbeat(&mut self) -> Lawful {
        let next = self.queue.first_key_value().map(|((at, ..), _)| *at);
        // Nothing changes while nothing happens: one look before each longer pause stands for all of them.
        let pauses = next.is_none_or(|at| at.since(self.now) >= HEARTBEAT) && self.heard != Some(self.happened);
        let Some(process) = self.in_charge().filter(|_| pauses) else {
            return Ok(());
        };
        self.heard = Some(self.happened);
        let node = self.processes[process].node.clone();
        let due = self.store.due_runs(&node).map_err(unread)?;
        if let Some((at, run)) = due.first().filter(|_| next.is_none()) {
            // Nothing else is going to happen until then.
            self.at((*at).max(self.now), Item::Load(process, *run));
        }
        let by_now = due.into_iter().filter(|(at, _)| *at <= self.now);
        let mut found: Vec<RunId> = by_now.map(|(_, run)| run).collect();
        if std::mem::take(&mut self.processes[process].rescan) && self.broken != Broken::NotLookedAgain {
            found.extend(self.store.open_runs(&node).map_err(unread)?);
        }
        found.retain(|run| !self.processes[process].runs.contains_key(run));
        found.extend(self.store.runs_with_mail(&node).map_err(unread)?);
        for run in found {
            // A run may keep its mail until a call comes back, so the next look finds it again: time must go by.
            self.after(HEARTBEAT, Item::Load(process, run));
        }
        Ok(())
    }

    /// A run is wanted in memory: it is there, or it is read.
    pub(super) fn load(&mut self, process: usize, run: RunId) -> Lawful {
        if let Some(live) = self.processes[process].runs.get(&run) {
            let stay = live.stay;
            return self.turn(Place { process, run, stay }, Turn::Mail);
        }
        if self.order.is_lost(run) {
            return Ok(());
        }
        let node = self.processes[process].node.clone();
        let stored = self.store.run(run).map_err(unread)?;
        let Some(stored) = stored.filter(|stored| is_wanted(&stored.run, &node)) else {
            return Ok(());
        };
        let mail = self.store.mail(run).map_err(unread)?;
        if stored.run.status == RunStatus::Queued {
            self.look_at_turn(process, &stored.run)?;
            // Whoever looked may have died of it.
            if mail.is_empty() || self.processes[process].state != Life::Alive {
                return Ok(());
            }
        }
        let mut active = self.revived(stored)?;
        active.mail = mail;
        let place = self.enter(process, active);
        self.turn(place, Turn::Begin)
    }

    /// A run as it was read.
    pub(super) fn revived(&mut self, stored: StoredRun) -> Lawful<ActiveRun> {
        let run = stored.run.id;
        let snapshot = Arc::clone(&self.snapshot);
        let version = self.version_of(&stored.run)?;
        let ledger = match stored.run.replay_of {
            Some(_) => Some(self.family(stored.run.root_id, Some(run))?),
            None => None,
        };
        let others = match version.plan.is_batched() {
            true => self.events_of_batch(stored.run.root_id)?,
            false => Vec::new(),
        };
        match revive(&snapshot, version, (ledger, &others), stored, self.now) {
            Ok(active) => Ok(active),
            Err(error) => broke("a stored run can be read", format!("{run}: {error}")),
        }
    }

    /// The events that a run stands for, beside its own.
    pub(super) fn events_of_batch(&mut self, root: RunId) -> Lawful<Vec<Event>> {
        let mut others = Vec::new();
        for id in self.store.merged_events(root).map_err(unread)? {
            let stored = self.store.event(id).map_err(unread)?;
            let Some(stored) = stored else {
                return broke("an event of a batch is stored", id);
            };
            others.push(restore_event(&self.snapshot, &stored.row).map_err(Broke)?);
        }
        Ok(others)
    }

    /// What the runs of a family did.
    pub(super) fn family(&mut self, root: RunId, but: Option<RunId>) -> Lawful<Ledger> {
        let mut journals: Vec<(RunId, Vec<Entry>)> = Vec::new();
        for row in self.store.runs().map_err(|error| Broke(error.to_string()))? {
            if row.root_id == root && Some(row.id) != but {
                journals.push((row.id, self.entries(row.id)?));
            }
        }
        Ok(Ledger::fold(
            journals.iter().map(|(run, entries)| (*run, entries.as_slice())),
        ))
    }

    /// The journal of a run.
    pub(super) fn entries(&mut self, run: RunId) -> Lawful<Vec<Entry>> {
        let mut all = Vec::new();
        for (_, body) in self.store.journal(run).map_err(|error| Broke(error.to_string()))? {
            let (_, entries) = decode(&body).map_err(|error| Broke(error.to_string()))?;
            all.extend(entries);
        }
        Ok(all)
    }

    pub(super) fn mail_of(&mut self, run: RunId) -> Lawful<Vec<Mail>> {
        self.store.mail(run).map_err(unread)
    }

    /// The first piece of mail, opened.
    pub(super) fn letter(&mut self, place: Place) -> Lawful<Option<Letter>> {
        let row = self.live(place).and_then(|live| live.driver.next_mail().cloned());
        let Some(row) = row else { return Ok(None) };
        let letter = match row.kind {
            MailKind::Event => {
                let stored = self.store.event(EventId::from_raw(row.id)).map_err(unread)?;
                mail::of_event(&self.snapshot, stored.as_ref())
            }
            MailKind::RunEnded => match self.store.run(RunId::from_raw(row.id)).map_err(unread)? {
                Some(ended) => mail::of_end(&ended.run, &ended.journal),
                None => Letter::Lost,
            },
            MailKind::Request => mail::of_request(&row),
        };
        if self.broken == Broken::MailLost {
            let mut change = MailChange::new(WORKSPACE);
            change.taken.push(row.id);
            self.commit_alone(place, change)?;
        }
        Ok(Some(letter))
    }
}
