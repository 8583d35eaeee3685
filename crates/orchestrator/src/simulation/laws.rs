//! What must hold in every world, looked at while it goes on and at its end.

use std::collections::{BTreeMap, BTreeSet};

use weir_storage::{RunCommit, RunStatus};
use weir_workflow_engine::{
    AttemptOutcome, Awaits, CallId, EffectClass, EffectKey, EffectState, Ending, Entry, EventSource, Input, Ledger,
    RunId, Target, Timestamp, decide, decode, invariants,
};

use super::item::Place;
use super::world::{Broke, Lawful, WORKSPACE, World, broke};
use crate::driver::{ActiveRun, First};

/// Codes of runs that end because something is wrong with the program.
const FAULTS: [&str; 3] = ["engine_error", "unreadable", "internal_error"];
/// The code of a step that waited in vain.
const WAIT_TIMEOUT: &str = "wait_timeout";

impl World<'_> {
    /// The run as it would be read from disk now.
    fn stored(&mut self, run: RunId) -> Lawful<ActiveRun> {
        let stored = self.store.run(run).map_err(|error| Broke(error.to_string()))?;
        let Some(stored) = stored else {
            return broke("a run is stored", run);
        };
        self.revived(stored)
    }

    /// What was committed is what is in memory.
    pub(super) fn folds_to_memory(&mut self, place: Place) -> Lawful {
        let on_disk = self.stored(place.run)?;
        let Some(live) = self.processes[place.process].runs.get(&place.run) else {
            return Ok(());
        };
        // It waited, has mail, and was let start meanwhile: it begins nothing before it is read again.
        if live.driver.run().first == First::Queued && on_disk.first != First::Queued {
            return Ok(());
        }
        if on_disk.state != live.driver.run().state {
            return broke("the journal folds to what is in memory", place.run);
        }
        if on_disk.next_seq != live.driver.run().next_seq {
            return broke("memory knows how long the journal is", place.run);
        }
        Ok(())
    }

    /// A run that waits for its turn can be held, let go on and canceled; nothing else happens to it.
    pub(super) fn begins_nothing_while_it_waits(&mut self, place: Place, row: &RunCommit) -> Lawful {
        let law = "a run begins nothing while it waits for its turn";
        let waits = self
            .live(place)
            .is_some_and(|live| live.driver.run().first == First::Queued);
        if !waits {
            return Ok(());
        }
        let (_, entries) = decode(&row.journal).map_err(|error| Broke(error.to_string()))?;
        let mut more = entries.iter().filter(|entry| {
            let canceled = matches!(entry, Entry::Finished(finished) if finished.ending == Ending::Canceled);
            !canceled && !matches!(entry, Entry::Paused(_) | Entry::Resumed(_) | Entry::CancelAsked(_))
        });
        match more.next() {
            Some(entry) => broke(law, format!("{entry:?} in {}", row.run)),
            None => Ok(()),
        }
    }

    /// Who sleeps on disk is found by its mail or in its time alone, so after a crash nothing else may be left to do in it.
    pub(super) fn sleeps_with_nothing_to_do(&mut self, run: RunId) -> Lawful {
        let stored = self.store.run(run).map_err(|error| Broke(error.to_string()))?;
        let Some(stored) = stored.filter(|stored| matches!(stored.run.status, RunStatus::Waiting | RunStatus::Paused))
        else {
            return Ok(());
        };
        let is_due = stored.run.due_at.is_some_and(|due| due <= self.now);
        if is_due || !self.mail_of(run)?.is_empty() {
            return Ok(());
        }
        let asleep = self.revived(stored)?;
        let plan = &asleep.version.plan;
        let surroundings = self.snapshot.surroundings(WORKSPACE, plan);
        match decide(plan, &asleep.state, &surroundings, Input::Recovered, self.now) {
            Ok(decision) if decision.commands.is_empty() => Ok(()),
            Ok(decision) => broke(
                "who sleeps on disk has nothing to do",
                format!("{run}: {:?}", decision.commands),
            ),
            Err(error) => broke("who sleeps on disk has nothing to do", format!("{run}: {error}")),
        }
    }

    /// An effect leaves only when its intent is on disk.
    pub(super) fn prefix_is_on_disk(&mut self, place: Place, call: CallId, key: EffectKey) -> Lawful {
        let intended = self
            .entries(place.run)?
            .iter()
            .any(|entry| matches!(entry, Entry::Intended(intent) if intent.call == call && intent.key == key));
        match intended {
            true => Ok(()),
            false => broke(
                "no effect leaves without its intent on disk",
                format!("{call} of {}", place.run),
            ),
        }
    }

    /// Everything has come to its end.
    pub(super) fn judge(&mut self) -> Lawful {
        let rows = self.store.runs().map_err(|error| Broke(error.to_string()))?;
        let mut journals: BTreeMap<RunId, Vec<Entry>> = BTreeMap::new();
        for row in &rows {
            if row.status.is_open() {
                return broke("every run comes to its end", format!("{} is {:?}", row.id, row.status));
            }
            if let Some(code) = row.error_code.as_deref().filter(|code| FAULTS.contains(code)) {
                return broke("no run ends by a fault of the program", format!("{code} in {}", row.id));
            }
            let entries = self.entries(row.id)?;
            if let Some(violation) = invariants::journal(&entries).first() {
                return broke(violation.rule, format!("{} in {}", violation.detail, row.id));
            }
            journals.insert(row.id, entries);
        }
        self.events_have_their_runs()?;
        self.effects_are_done_once(&journals)?;
        self.ledgers_tell_the_truth(&rows.iter().map(|row| row.root_id).collect())?;
        self.nobody_is_heard_twice(&journals)?;
        self.what_was_taken_over_stands(&journals)?;
        self.nobody_waits_in_vain(&journals)?;
        self.turns_were_kept()?;
        let waits = self.store.waits().map_err(|error| Broke(error.to_string()))?;
        match waits.first() {
            Some((run, step, _)) => broke("who ended waits for nothing", format!("{step} of {run}")),
            None => Ok(()),
        }
    }

    /// Each event that was acknowledged is stored once, and its runs are those that it starts.
    fn events_have_their_runs(&mut self) -> Lawful {
        let events = self.store.events().map_err(|error| Broke(error.to_string()))?;
        let rows = self.store.runs().map_err(|error| Broke(error.to_string()))?;
        let mut by_id: BTreeMap<&str, usize> = BTreeMap::new();
        for event in events.iter().filter(|event| event.row.source == EventSource::Endpoint) {
            *by_id.entry(&event.row.external_id).or_default() += 1;
        }
        for told in &self.told {
            let stored = by_id.get(told.id.as_str()).copied().unwrap_or_default();
            if stored > 1 || (told.acknowledged && stored == 0) {
                return broke(
                    "an acknowledged event is stored once",
                    format!("{}: {stored} times", told.id),
                );
            }
            if !told.acknowledged {
                return broke("every event is acknowledged in the end", &told.id);
            }
        }
        let orders = self.workflows.len() - 1;
        for event in &events {
            let first: BTreeSet<RunId> = rows
                .iter()
                .filter(|row| row.event_id == event.row.id && row.replay_of.is_none())
                .map(|row| row.id)
                .collect();
            let expected = match (event.row.source, event.row.kind.as_str()) {
                (EventSource::Workflow, _) => 1,
                // Edited by a person, for a replay.
                (EventSource::Manual, _) => 0,
                (_, "order") => orders,
                _ => 0,
            };
            if first.len() != expected || first != event.runs.iter().copied().collect() {
                let found = format!(
                    "{}: {first:?}, and the event says {:?}",
                    event.row.external_id, event.runs
                );
                return broke("an event ends in exactly one set of runs", found);
            }
        }
        Ok(())
    }

    /// How often each thing was undone, by its reference.
    fn undone(&mut self, journals: &BTreeMap<RunId, Vec<Entry>>) -> Lawful<BTreeMap<String, usize>> {
        let mut families: BTreeMap<RunId, Vec<RunId>> = BTreeMap::new();
        for row in self.store.runs().map_err(|error| Broke(error.to_string()))? {
            families.entry(row.root_id).or_default().push(row.id);
        }
        let mut undone: BTreeMap<String, usize> = BTreeMap::new();
        for runs in families.values() {
            let of = |run: &RunId| Some((*run, journals.get(run)?.as_slice()));
            let ledger = Ledger::fold(runs.iter().filter_map(of));
            let all = runs.iter().filter_map(|run| journals.get(run));
            let named = all.flat_map(|entries| intents(entries).into_values());
            let names: BTreeMap<EffectKey, String> = named.map(|(key, reference, _)| (key, reference)).collect();
            for (key, record) in ledger.iter().filter(|(_, record)| record.state == EffectState::Undone) {
                let name = names.get(key).cloned().unwrap_or_else(|| record.step.to_string());
                *undone.entry(name).or_default() += 1;
            }
        }
        Ok(undone)
    }

    fn effects_are_done_once(&mut self, journals: &BTreeMap<RunId, Vec<Entry>>) -> Lawful {
        let undone = self.undone(journals)?;
        for (reference, count) in self.provider.counts() {
            // What a `compensate` undid is done again by the run that comes to the step next.
            if count > 1 + undone.get(reference).copied().unwrap_or_default() {
                return broke("no effect is done twice", format!("{reference}: {count} times"));
            }
        }
        let mut told: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for event in self.store.outgoing().map_err(|error| Broke(error.to_string()))? {
            *told.entry(event.body).or_default() += 1;
        }
        if let Some((body, count)) = told.iter().find(|(_, count)| **count > 1) {
            let body = String::from_utf8_lossy(body);
            return broke("an outgoing event is stored once", format!("{body}: {count} times"));
        }
        let mut confirmed: BTreeMap<EffectKey, RunId> = BTreeMap::new();
        for (run, entries) in journals {
            let keys = intents(entries);
            let taken = self.taken.get(run).map_or(0, Vec::len);
            for entry in entries.iter().skip(taken) {
                if let Entry::Attempt(attempt) = entry
                    && let AttemptOutcome::Done { .. } = attempt.outcome
                    && let Some((key, ..)) = keys.get(&attempt.call)
                    && let Some(before) = confirmed.insert(*key, *run)
                {
                    return broke(
                        "an effect key is confirmed once",
                        format!("{key} in {before} and {run}"),
                    );
                }
            }
        }
        Ok(())
    }

    /// What took place is never taken for something that did not, nor the other way round.
    fn ledgers_tell_the_truth(&mut self, roots: &BTreeSet<RunId>) -> Lawful {
        for root in roots {
            let ledger = self.family(*root, None)?;
            let mut by_reference: BTreeMap<String, (bool, bool, EffectClass)> = BTreeMap::new();
            let mut names: BTreeMap<EffectKey, String> = BTreeMap::new();
            let rows = self.store.runs().map_err(|error| Broke(error.to_string()))?;
            for row in rows.iter().filter(|row| row.root_id == *root) {
                let entries = self.entries(row.id)?;
                for (key, reference, own) in intents(&entries).into_values() {
                    if !own {
                        names.insert(key, reference);
                    }
                }
            }
            for (key, record) in ledger.iter() {
                let Some(reference) = names.get(key) else { continue };
                let known = by_reference
                    .entry(reference.clone())
                    .or_insert((false, false, record.class));
                known.0 |= record.state == EffectState::Confirmed;
                known.1 |= matches!(
                    record.state,
                    EffectState::Unknown | EffectState::Intended | EffectState::Undone
                );
            }
            for (reference, (confirmed, unknown, class)) in by_reference {
                let count = self.provider.count(&reference);
                if confirmed && count == 0 {
                    return broke("what is confirmed took place", reference);
                }
                if count > 0 && !confirmed && !unknown {
                    let detail = format!("{reference}, {} ({count} times)", class.as_str());
                    return broke("what took place is not taken for undone", detail);
                }
            }
        }
        Ok(())
    }

    /// A run that begins at a step has in its journal what came before, and does nothing of that again.
    fn what_was_taken_over_stands(&self, journals: &BTreeMap<RunId, Vec<Entry>>) -> Lawful {
        for (run, taken) in &self.taken {
            let Some(entries) = journals.get(run) else { continue };
            let Some(own) = entries.strip_prefix(taken.as_slice()) else {
                return broke("a run that begins at a step takes over what came before it", run);
            };
            let through: Vec<Target> = taken
                .iter()
                .filter_map(|entry| match entry {
                    Entry::Attempt(attempt) if matches!(attempt.outcome, AttemptOutcome::Done { .. }) => {
                        Some(attempt.of.clone())
                    }
                    Entry::Answered(answered) => Some(Target::Step(answered.step.clone())),
                    _ => None,
                })
                .collect();
            let begun = own.iter().filter_map(|entry| match entry {
                Entry::Issued(issued) => Some(issued.of.clone()),
                Entry::Intended(intent) => Some(Target::Step(intent.step.clone())),
                _ => None,
            });
            if let Some(again) = begun.into_iter().find(|of| through.contains(of)) {
                return broke("what a run took over is not done again", format!("{again:?} in {run}"));
            }
        }
        Ok(())
    }

    /// What a person asked is taken in once.
    fn nobody_is_heard_twice(&mut self, journals: &BTreeMap<RunId, Vec<Entry>>) -> Lawful {
        for (run, entries) in journals {
            let mut heard: BTreeSet<&str> = BTreeSet::new();
            for entry in entries {
                let by = match entry {
                    Entry::Paused(paused) => &paused.by,
                    Entry::Resumed(resumed) => &resumed.by,
                    Entry::CancelAsked(asked) => &asked.by,
                    _ => continue,
                };
                if !heard.insert(by) {
                    return broke("mail is taken in once", format!("{by} in {run}"));
                }
            }
            let mut arrived = BTreeSet::new();
            for entry in entries {
                if let Entry::Arrived(came) = entry
                    && let Some(event) = came.event
                    && !arrived.insert(event)
                {
                    return broke("an event serves one step of a run", format!("{event} in {run}"));
                }
            }
        }
        Ok(())
    }

    /// A step gives up waiting only when what it waits for had not come.
    fn nobody_waits_in_vain(&mut self, journals: &BTreeMap<RunId, Vec<Entry>>) -> Lawful {
        let events = self.store.events().map_err(|error| Broke(error.to_string()))?;
        let rows = self.store.runs().map_err(|error| Broke(error.to_string()))?;
        let mut came: BTreeMap<String, (i64, Timestamp)> = BTreeMap::new();
        for event in events.iter().filter(|event| event.row.kind == "answer") {
            let body: serde_json::Value =
                serde_json::from_slice(&event.row.body).map_err(|error| Broke(error.to_string()))?;
            let to = body["data"]["to"].as_str().unwrap_or_default().to_owned();
            came.insert(to, (event.row.id.as_raw(), event.row.received_at));
        }
        for (run, entries) in journals {
            let Some(row) = rows.iter().find(|row| row.id == *run) else {
                continue;
            };
            for entry in entries {
                let Entry::Awaited(awaited) = entry else { continue };
                let gave_up = entries.iter().any(|entry| {
                    matches!(entry, Entry::StepFailed(failed)
                        if failed.of == Target::Step(awaited.step.clone()) && &*failed.code == WAIT_TIMEOUT)
                });
                if !gave_up {
                    continue;
                }
                let in_time = |at: Timestamp| at < awaited.until;
                let missed = match &awaited.what {
                    Awaits::Event { equals, .. } => came
                        .get(&**equals)
                        .is_some_and(|(id, at)| *id >= row.root_id.as_raw() && in_time(*at)),
                    Awaits::Approval { .. } => self
                        .decided
                        .get(&(*run, awaited.step.to_string()))
                        .is_some_and(|at| in_time(*at)),
                    Awaits::Run { run: child } => rows
                        .iter()
                        .find(|row| row.id == *child)
                        .and_then(|row| row.finished_at)
                        .is_some_and(in_time),
                };
                if missed {
                    let detail = format!("{} of {run}, since {}", awaited.step, awaited.at);
                    return broke("nobody waits in vain for what has come", detail);
                }
            }
        }
        Ok(())
    }
}

/// The effects of a run by their calls: key, what they ask for, and whether Weir itself does it.
fn intents(entries: &[Entry]) -> BTreeMap<CallId, (EffectKey, String, bool)> {
    let intents = entries.iter().filter_map(|entry| match entry {
        Entry::Intended(intent) => {
            let reference = intent.args.value().get("ref").and_then(serde_json::Value::as_str);
            let own = &*intent.connector == weir_workflow_engine::OWN;
            Some((intent.call, (intent.key, reference.unwrap_or_default().to_owned(), own)))
        }
        _ => None,
    });
    intents.collect()
}
