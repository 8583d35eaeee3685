//! The effect ledger of a family of runs: which effects took place, which did not, of which nobody knows.
//!
//! It is folded from the journals of all runs with the same root, and it is what keeps a replay from doing an effect
//! twice. It never forgets a confirmed effect because of a later failure. What a person decided stands above what the
//! runs did not know, wherever in the family it was written down, and below what a provider confirmed. What a `compensate`
//! undid does not stand any more, and neither does what undid it: the next run that comes to the step does it again, and
//! may have to undo it again. As long as nobody knows whether something was undone, it is neither answered nor sent.

mod undoing;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::CallId;
use crate::document::Document;
use crate::effect::{EffectClass, EffectKey, RequestDigest};
use crate::id::RunId;
use crate::journal::{AttemptOutcome, Decided, EffectEnd, Entry, Verdict};
use crate::time::Timestamp;

use self::undoing::{BrokenOff, Undoing};

/// What is known of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectState {
    /// About to be sent, or sent and not answered yet.
    Intended,
    /// It took place.
    Confirmed,
    /// It is proven not to have taken place.
    Failed,
    /// Nobody knows.
    Unknown,
    /// It took place, and a `compensate` undid it: whoever comes to the step again does it again.
    Undone,
}

impl EffectState {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Undone => "undone",
        }
    }
}

/// Why nobody knows whether an effect that took place still stands: it was being undone when the run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Path of the step of which a person has to say what became of it: the one that undoes, or the effect's own when
    /// the steps that undo it were left half way.
    pub step: Arc<str>,
    /// The run that left it open.
    pub run: RunId,
}

/// One effect of a family of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectRecord {
    /// What is known of it.
    pub state: EffectState,
    /// Path of the step.
    pub step: Arc<str>,
    /// Digest of the request.
    pub digest: RequestDigest,
    /// How it can be repeated.
    pub class: EffectClass,
    /// Name of the connection.
    pub connection: Arc<str>,
    /// Name of the connector.
    pub connector: Arc<str>,
    /// Name of the operation.
    pub operation: Arc<str>,
    /// Its output, when confirmed.
    pub output: Option<Document>,
    /// The run that wrote the last state.
    pub run: RunId,
    /// When its key may have been sent for the first time.
    pub first_sent_at: Timestamp,
    /// What a person said of it, if that is what counts.
    pub decided: Option<Decided>,
    /// Why it is [`EffectState::Unknown`] although it took place, if that is so.
    pub doubt: Option<Doubt>,
}

impl EffectRecord {
    /// Whether a person may say what became of it: nobody knows, or somebody said so before.
    pub fn is_open(&self) -> bool {
        match self.state {
            // As long as a step that undoes it is open, that one is to be decided.
            EffectState::Intended | EffectState::Unknown => {
                self.doubt.as_ref().is_none_or(|doubt| doubt.step == self.step)
            }
            EffectState::Confirmed | EffectState::Failed | EffectState::Undone => self.decided.is_some(),
        }
    }

    /// Whether it does not stand outside, so that it is sent again under a key of its own.
    pub fn is_to_be_done(&self) -> bool {
        matches!(self.state, EffectState::Failed | EffectState::Undone)
    }
}

/// Whether nothing that is written later changes this.
fn stands(state: EffectState) -> bool {
    matches!(state, EffectState::Confirmed | EffectState::Undone)
}

/// The effects of a family of runs by their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    effects: BTreeMap<EffectKey, EffectRecord>,
}

impl Ledger {
    /// The ledger after these journals; the entries of one run must come in their order.
    pub fn fold<'a>(journals: impl IntoIterator<Item = (RunId, &'a [Entry])>) -> Self {
        let mut ledger = Self::default();
        let mut open: BTreeMap<(RunId, CallId), EffectKey> = BTreeMap::new();
        let mut decisions: Vec<(RunId, &Decided)> = Vec::new();
        let mut broken_off: Vec<((RunId, Timestamp), BrokenOff)> = Vec::new();
        for (run, entries) in journals {
            let mut undoing = Undoing::default();
            for entry in entries {
                undoing.take(entry, &mut ledger);
                if let Entry::Finished(finished) = entry {
                    let left = undoing.broken_off().into_iter();
                    broken_off.extend(left.map(|left| ((run, finished.at), left)));
                }
                if let Entry::Decided(decided) = entry {
                    decisions.push((run, decided));
                }
                ledger.take(run, entry, &mut open);
            }
        }
        // A decision in the journal of one run is about what later runs of the family left open, too.
        decisions.sort_by_key(|(_, decided)| decided.at);
        for (run, decided) in &decisions {
            ledger.decide(*run, decided);
        }
        for (of, left) in &broken_off {
            left.settle(*of, &decisions, &mut ledger);
        }
        ledger
    }

    fn decide(&mut self, run: RunId, decided: &Decided) {
        let Some(record) = self.effects.get_mut(&decided.key) else {
            return;
        };
        let is_confirmed = record.state == EffectState::Confirmed && record.decided.is_none();
        if is_confirmed || record.state == EffectState::Undone {
            return;
        }
        (record.state, record.output) = match &decided.verdict {
            Verdict::Happened { output } => (EffectState::Confirmed, Some(output.clone())),
            Verdict::NotHappened => (EffectState::Failed, None),
        };
        record.run = run;
        record.decided = Some(decided.clone());
    }

    fn take(&mut self, run: RunId, entry: &Entry, open: &mut BTreeMap<(RunId, CallId), EffectKey>) {
        match entry {
            Entry::Intended(intent) => {
                open.insert((run, intent.call), intent.key);
                let first_sent_at = self
                    .effects
                    .get(&intent.key)
                    .map_or(intent.first_sent_at, |known| known.first_sent_at);
                if self.state(&intent.key).is_some_and(stands) {
                    return;
                }
                self.effects.insert(
                    intent.key,
                    EffectRecord {
                        state: EffectState::Intended,
                        step: Arc::clone(&intent.step),
                        digest: intent.digest,
                        class: intent.class,
                        connection: Arc::clone(&intent.connection),
                        connector: Arc::clone(&intent.connector),
                        operation: Arc::clone(&intent.operation),
                        output: None,
                        run,
                        first_sent_at: first_sent_at.min(intent.first_sent_at),
                        decided: None,
                        doubt: None,
                    },
                );
            }
            Entry::Attempt(attempt) => {
                let Some(key) = open.get(&(run, attempt.call)).copied() else {
                    return;
                };
                match &attempt.outcome {
                    AttemptOutcome::Done { output, .. } => {
                        self.settle(&key, run, EffectState::Confirmed, Some(output.clone()));
                    }
                    AttemptOutcome::Failed {
                        effect: Some(EffectEnd::Failed),
                        ..
                    } => {
                        self.settle(&key, run, EffectState::Failed, None);
                    }
                    AttemptOutcome::Failed { .. } => self.settle(&key, run, EffectState::Unknown, None),
                    AttemptOutcome::Retry { .. } | AttemptOutcome::Gone { .. } => {}
                }
            }
            Entry::Abandoned(abandoned) => {
                let Some(key) = open.get(&(run, abandoned.call)).copied() else {
                    return;
                };
                let state = match abandoned.effect {
                    Some(EffectEnd::Failed) => EffectState::Failed,
                    Some(EffectEnd::Unknown) | None => EffectState::Unknown,
                };
                self.settle(&key, run, state, None);
            }
            Entry::Unknown(unknown) => self.settle(&unknown.key, run, EffectState::Unknown, None),
            Entry::Issued(_)
            | Entry::Postponed(_)
            | Entry::Held(_)
            | Entry::Answered(_)
            | Entry::ReadSkipped(_)
            | Entry::Skipped(_)
            | Entry::Branch(_)
            | Entry::Set(_)
            | Entry::Items(_)
            | Entry::Slept(_)
            | Entry::Woke(_)
            | Entry::Forked(_)
            | Entry::Limited(_)
            | Entry::RanOver(_)
            | Entry::Caught(_)
            | Entry::FailureTaken(_)
            | Entry::Stopped(_)
            | Entry::Awaited(_)
            | Entry::Arrived(_)
            | Entry::PassedOver(_)
            | Entry::Compensating(_)
            | Entry::Compensated(_)
            | Entry::Paused(_)
            | Entry::Resumed(_)
            | Entry::Hurried(_)
            | Entry::StepFailed(_)
            | Entry::CancelAsked(_)
            | Entry::TimedOut(_)
            | Entry::Outgrown(_)
            | Entry::Finished(_)
            | Entry::Decided(_) => {}
        }
    }

    fn settle(&mut self, key: &EffectKey, run: RunId, state: EffectState, output: Option<Document>) {
        let Some(record) = self.effects.get_mut(key) else {
            return;
        };
        if stands(record.state) {
            return;
        }
        record.state = state;
        record.output = output;
        record.run = run;
    }

    /// It was undone, or undid what does not stand any more.
    fn undo(&mut self, key: &EffectKey) {
        if let Some(record) = self.effects.get_mut(key)
            && record.state != EffectState::Failed
        {
            record.state = EffectState::Undone;
        }
    }

    fn state(&self, key: &EffectKey) -> Option<EffectState> {
        self.effects.get(key).map(|record| record.state)
    }

    /// What is known of the effect with this key.
    pub fn get(&self, key: &EffectKey) -> Option<&EffectRecord> {
        self.effects.get(key)
    }

    /// All effects, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&EffectKey, &EffectRecord)> {
        self.effects.iter()
    }

    /// Whether there is no effect in it.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }
}
