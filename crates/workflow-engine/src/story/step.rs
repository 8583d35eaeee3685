//! What a story is made of: steps, their tries and effects.

use serde_json::Value;

use crate::definition::{ANSWER_STATUSES, UNFIT_STATUS};
use crate::document::Document;
use crate::effect::EffectKey;
use crate::journal::{Awaited, Decided, EffectEnd, Verdict};
use crate::ledger::EffectState;
use crate::result::{Exchange, HeldBy};
use crate::time::Timestamp;

/// One step or read of a run; steps in a `for_each` once per item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryStep {
    /// Path of the step, `hydrate.<read>` for a read.
    pub path: String,
    /// The path as people read it: an item without a readable key is told by its place in the list, from 1.
    pub name: String,
    /// `read`, `call`, `if`, `switch`, `set`, `for_each`, `parallel`, `sleep`, `try`, `wait_for`, `approve`, `run`,
    /// `emit`, `respond`, `compensate` or `stop`.
    pub kind: &'static str,
    /// What it is, in a few words: the operation, the branch taken, the number of items.
    pub label: String,
    /// `pending`, `running`, `waiting`, `succeeded`, `answered`, `skipped`, `gone`, `failed`, `unknown` or `canceled`.
    pub status: &'static str,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Its tries, for calls and reads.
    pub attempts: Vec<StoryAttempt>,
    /// Its effect, for calls that have one.
    pub effect: Option<StoryEffect>,
    /// Its output; not repeated for steps with steps inside.
    pub output: Option<Document>,
    /// Why it failed, waits, or was left out, and which events it did not take, a line each.
    pub note: Option<String>,
    /// What holds its call back while it waits for its connection.
    pub hold: Option<StoryHold>,
    /// What it waits for from outside, while it does: an event, a decision, the end of another run.
    pub wait: Option<Awaited>,
}

/// A call that waits until its connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoryHold {
    /// What holds it.
    pub by: HeldBy,
    /// When it is offered again.
    pub until: Timestamp,
}

/// One try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryAttempt {
    /// Which, from 1.
    pub number: u32,
    /// When it was handed out.
    pub at: Timestamp,
    /// From then until it came back, in milliseconds; 0 while it is on its way.
    pub duration_ms: u64,
    /// `running`, `sent`, `coalesced`, `found`, `gone`, `retry`, `failed`, `held` (not sent, after it looked), `abandoned` (its branch was left, or its run ended, before it came back) or `lost`
    /// (with its process).
    pub outcome: &'static str,
    /// Why it failed.
    pub error: Option<String>,
    /// Its HTTP exchanges.
    pub exchanges: Vec<Exchange>,
    /// When the next one is due.
    pub next_at: Option<Timestamp>,
}

/// The effect of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryEffect {
    /// Its idempotency key.
    pub key: EffectKey,
    /// `keyed`, `find_by`, `repeatable` or `blind`; empty when this run never intended it.
    pub class: &'static str,
    /// `intended`, `confirmed`, `failed` or `unknown`.
    pub state: &'static str,
    /// What a person said of it.
    pub decided: Option<Decided>,
}

impl StoryEffect {
    pub(super) fn new(key: EffectKey, class: &'static str, state: EffectState) -> Self {
        Self {
            key,
            class,
            state: state.as_str(),
            decided: None,
        }
    }

    pub(super) fn decide(&mut self, decided: &Decided) {
        let state = match decided.verdict {
            Verdict::Happened { .. } => EffectState::Confirmed,
            Verdict::NotHappened => EffectState::Failed,
        };
        self.state = state.as_str();
        self.decided = Some(decided.clone());
    }
}

impl StoryStep {
    /// What of a `respond` could not be sent, and what the sender of the event got instead.
    pub(super) fn tell_unfit(&mut self, output: &Document) {
        let output = output.value();
        let unfit = output.get("unfit").and_then(Value::as_array).into_iter().flatten();
        let mut unfit: Vec<&str> = unfit.filter_map(Value::as_str).collect();
        let asked = self.label.trim_matches('"').to_owned();
        let is_status = asked.parse().is_ok_and(|status| ANSWER_STATUSES.contains(&status));
        let mut told = Vec::new();
        if unfit.first() == Some(&"status") && !is_status {
            unfit.remove(0);
            let (least, most) = (ANSWER_STATUSES.start(), ANSWER_STATUSES.end());
            let who = match output.get("delivered") {
                Some(Value::Bool(true)) => "the caller got",
                _ => "whoever asks for the answer gets",
            };
            told.push(format!(
                "no answer can have the status {asked} ({least} to {most} can be sent): {who} {UNFIT_STATUS}"
            ));
            self.label = format!("{asked} → {UNFIT_STATUS}");
        }
        if !unfit.is_empty() {
            let noun = if unfit.len() == 1 { "header" } else { "headers" };
            told.push(format!(
                "left out, as no answer can carry it: {noun} {}",
                unfit.join(", ")
            ));
        }
        self.note = Some(told.join("; ")).filter(|told| !told.is_empty());
    }

    /// Nobody goes on with it: the run ended, or what it stands in was left.
    pub(super) fn leave(&mut self, at: Timestamp) {
        self.status = "canceled";
        self.finished_at = Some(at);
        if self.wait.take().is_some() {
            // Until when it would have waited.
            self.note = None;
        }
        self.give_up_try();
    }

    /// A try that was under way is nobody's any more.
    pub(super) fn give_up_try(&mut self) {
        if let Some(last) = self.attempts.last_mut().filter(|last| last.outcome == "running") {
            last.outcome = "abandoned";
        }
    }

    pub(super) fn settle(&mut self, end: Option<EffectEnd>) {
        if let (Some(effect), Some(end)) = (&mut self.effect, end) {
            effect.state = match end {
                EffectEnd::Failed => EffectState::Failed.as_str(),
                EffectEnd::Unknown => EffectState::Unknown.as_str(),
            };
        }
    }
}
