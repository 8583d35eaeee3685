//! What the `compensate` steps of a family have undone, as its journals tell.
//!
//! A `compensate` undoes one step after the other, so a step is undone as soon as the next one's turn has come. Where a
//! run ended in the middle, what became of the step at hand follows from the effects of its `undo`, and from what
//! people said about them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::{Doubt, EffectState, Ledger};
use crate::definition::UNDO;
use crate::effect::EffectKey;
use crate::id::RunId;
use crate::journal::{
    Abandoned, AttemptOutcome, Compensating, Decided, Entry, StepFailed, Target, Verdict, is_in_undo,
};
use crate::time::Timestamp;

/// What the `compensate` steps of one run have undone so far.
#[derive(Default)]
pub(super) struct Undoing<'a> {
    /// Those that are not through.
    open: Vec<Open<'a>>,
    /// Paths of what failed.
    failed: Vec<&'a str>,
    /// The effects of the run by the paths of their steps.
    keys: BTreeMap<&'a str, BTreeSet<EffectKey>>,
    /// Paths of steps that wait or failed after their effects had taken place.
    unfinished: BTreeSet<&'a str>,
    /// What could not be undone.
    left: Vec<BrokenOff>,
}

/// A `compensate` that is not through.
struct Open<'a> {
    of: &'a Compensating,
    /// How many of its steps are behind it.
    passed: usize,
}

fn inside(step: &str) -> String {
    format!("{step}.{UNDO}.")
}

impl<'a> Undoing<'a> {
    pub(super) fn take(&mut self, entry: &'a Entry, ledger: &mut Ledger) {
        if let Some(path) = begins(entry) {
            self.come_to(path, ledger);
        }
        match entry {
            Entry::Intended(intent) => {
                self.keys.entry(&intent.step).or_default().insert(intent.key);
            }
            Entry::Answered(answered) => {
                self.keys.entry(&answered.step).or_default().insert(answered.key);
            }
            Entry::Awaited(awaited) => {
                self.unfinished.insert(&awaited.step);
            }
            Entry::Arrived(arrived) => {
                self.unfinished.remove(&*arrived.step);
            }
            Entry::Compensating(of) => self.open.push(Open { of, passed: 0 }),
            Entry::Compensated(compensated) => self.end(&compensated.step, ledger),
            Entry::Caught(caught) => {
                // What could not be undone was left.
                if let Some(part) = &caught.part {
                    let at = self.open.last().filter(|open| open.of.step == caught.step);
                    let left = at.and_then(|open| open.of.of.iter().position(|step| step == part));
                    if let Some(left) = left {
                        self.pass(left + 1, ledger);
                    }
                }
            }
            Entry::StepFailed(StepFailed {
                of: Target::Step(step),
                continued,
                ..
            }) => {
                // It failed because something could not be undone; the rest of it was.
                self.end(step, ledger);
                if !continued {
                    self.failed.push(step);
                    self.unfinished.insert(step);
                }
            }
            Entry::Attempt(attempt) => {
                let is_final = matches!(attempt.outcome, AttemptOutcome::Failed { continued: false, .. });
                if let (Target::Step(step), true) = (&attempt.of, is_final) {
                    self.failed.push(step);
                }
            }
            Entry::Unknown(unknown) => self.failed.push(&unknown.step),
            Entry::Abandoned(Abandoned {
                of: Target::Step(step), ..
            }) => self.failed.push(step),
            _ => {}
        }
    }

    /// A step begins; the one before whose turn it was to be undone is through when this one undoes another.
    fn come_to(&mut self, path: &str, ledger: &mut Ledger) {
        let Some(open) = self.open.last() else { return };
        let at = open.of.of.iter().skip(open.passed).position(|of| is_in_undo(of, path));
        if let Some(at) = at {
            let passed = open.passed + at;
            self.pass(passed, ledger);
        }
    }

    /// So many steps of the last `compensate` are behind it.
    fn pass(&mut self, passed: usize, ledger: &mut Ledger) {
        let Some(open) = self.open.last_mut() else { return };
        let of = open.of;
        let before = open.passed;
        open.passed = before.max(passed);
        (before..passed).for_each(|at| self.undo(of, at, ledger));
    }

    /// A `compensate` is through.
    fn end(&mut self, compensate: &str, ledger: &mut Ledger) {
        let Some(at) = self.open.iter().position(|open| *open.of.step == *compensate) else {
            return;
        };
        let open = self.open.remove(at);
        (open.passed..open.of.of.len()).for_each(|at| self.undo(open.of, at, ledger));
    }

    /// A step is undone, unless that failed: neither it nor what undid it stands any more.
    fn undo(&mut self, of: &'a Compensating, at: usize, ledger: &mut Ledger) {
        let Some(step) = of.of.get(at) else { return };
        let inside = inside(step);
        if self.failed.iter().any(|failed| failed.starts_with(&inside)) {
            let left = self.leave(of, at);
            return self.left.extend(left);
        }
        self.own(step).iter().for_each(|key| ledger.undo(key));
        self.inside(&inside).for_each(|(_, key)| ledger.undo(&key));
    }

    /// What began to be undone and was not, as far as is known.
    fn leave(&self, of: &Compensating, at: usize) -> Option<BrokenOff> {
        let step = of.of.get(at)?;
        let last = of.last.get(at).filter(|last| !self.unfinished.contains(&***last));
        let inside = inside(step);
        let inside: Vec<_> = self.inside(&inside).map(|(path, key)| (Arc::from(path), key)).collect();
        (!inside.is_empty()).then(|| BrokenOff {
            step: Arc::clone(step),
            own: self.own(step),
            inside,
            last: last.cloned(),
        })
    }

    fn own(&self, step: &str) -> Vec<EffectKey> {
        self.keys.get(step).into_iter().flatten().copied().collect()
    }

    fn inside<'s>(&'s self, inside: &'s str) -> impl Iterator<Item = (&'a str, EffectKey)> + 's {
        let paths = self.keys.range::<str, _>((Bound::Included(inside), Bound::Unbounded));
        let paths = paths.take_while(move |(path, _)| path.starts_with(inside));
        paths.flat_map(|(path, keys)| keys.iter().map(|key| (*path, *key)))
    }

    /// What was not undone to its end when the run ended.
    pub(super) fn broken_off(&mut self) -> Vec<BrokenOff> {
        let open = std::mem::take(&mut self.open);
        let at_hand = open.iter().filter_map(|open| self.leave(open.of, open.passed));
        let at_hand: Vec<BrokenOff> = at_hand.collect();
        let mut left = std::mem::take(&mut self.left);
        left.extend(at_hand);
        left
    }
}

/// The path of a step that an entry says has begun or is through.
fn begins(entry: &Entry) -> Option<&str> {
    let path = match entry {
        Entry::Issued(issued) => match &issued.of {
            Target::Step(step) => step,
            Target::Read(_) => return None,
        },
        Entry::StepFailed(failed) => match &failed.of {
            Target::Step(step) => step,
            Target::Read(_) => return None,
        },
        Entry::Intended(intent) => &intent.step,
        Entry::Answered(answered) => &answered.step,
        Entry::Unknown(unknown) => &unknown.step,
        Entry::Skipped(skipped) => &skipped.step,
        Entry::Branch(branch) => &branch.step,
        Entry::Set(set) => &set.step,
        Entry::Items(items) => &items.step,
        Entry::Slept(slept) => &slept.step,
        Entry::Forked(forked) => &forked.step,
        Entry::Limited(limited) => &limited.step,
        Entry::Awaited(awaited) => &awaited.step,
        Entry::Stopped(stopped) => &stopped.step,
        _ => return None,
    };
    Some(path)
}

/// A step whose `undo` was begun and did not come to its end.
pub(super) struct BrokenOff {
    step: Arc<str>,
    /// Its effects.
    own: Vec<EffectKey>,
    /// The effects that undo it, with the paths of their steps.
    inside: Vec<(Arc<str>, EffectKey)>,
    /// The step with which it is undone, as far as that is recorded.
    last: Option<Arc<str>>,
}

impl BrokenOff {
    /// Says what became of it. Everything that runs and people wrote is in the ledger.
    pub(super) fn settle(
        &self,
        (run, ended): (RunId, Timestamp),
        decisions: &[(RunId, &Decided)],
        ledger: &mut Ledger,
    ) {
        let of = |key: &EffectKey| ledger.get(key).map(|record| (record.state, record.run));
        let mut took_place = false;
        let mut is_through = false;
        let mut doubt = None;
        for (path, key) in &self.inside {
            match of(key) {
                Some((EffectState::Intended | EffectState::Unknown, run)) => {
                    let step = Arc::clone(path);
                    doubt.get_or_insert(Doubt { step, run });
                }
                Some((EffectState::Confirmed | EffectState::Undone, _)) => {
                    took_place = true;
                    is_through |= self.last.as_ref() == Some(path);
                }
                Some((EffectState::Failed, _)) | None => {}
            }
        }
        if doubt.is_some() {
            return self.leave_open(doubt, ledger);
        }
        if is_through {
            return self.undo(None, ledger);
        }
        if !took_place {
            // It stands as if nothing had been begun.
            return;
        }
        // Some of it was undone and some was not: only a look at the other side can tell.
        let said = decisions.iter().rev().map(|(_, decided)| *decided);
        let said = said.filter(|decided| decided.at >= ended);
        match said.into_iter().find(|decided| self.own.contains(&decided.key)) {
            Some(decided) if decided.verdict == Verdict::NotHappened => self.undo(Some(decided), ledger),
            Some(decided) => self.own(ledger, |record| record.decided = Some(decided.clone())),
            None => {
                let step = Arc::clone(&self.step);
                self.leave_open(Some(Doubt { step, run }), ledger);
            }
        }
    }

    /// Changes what is known of the effects that took place and were not undone since.
    fn own(&self, ledger: &mut Ledger, change: impl Fn(&mut super::EffectRecord)) {
        for key in &self.own {
            if let Some(record) = ledger.effects.get_mut(key)
                && record.state != EffectState::Undone
            {
                change(record);
            }
        }
    }

    fn leave_open(&self, doubt: Option<Doubt>, ledger: &mut Ledger) {
        self.own(ledger, |record| {
            if record.state != EffectState::Failed {
                record.state = EffectState::Unknown;
                record.decided = None;
                record.doubt.clone_from(&doubt);
            }
        });
    }

    fn undo(&self, decided: Option<&Decided>, ledger: &mut Ledger) {
        self.own(ledger, |record| {
            record.state = EffectState::Undone;
            record.doubt = None;
            record.decided = decided.cloned();
        });
        self.inside.iter().for_each(|(_, key)| ledger.undo(key));
    }
}
