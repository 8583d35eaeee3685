//! The tries of a call, as they are told.

use super::{StoryAttempt, StoryHold, TAKEN_OVER, Teller, path_of};
use crate::journal::{AttemptOutcome, EffectEnd, Held};
use crate::ledger::EffectState;
use crate::result::Origin;
use crate::time::Timestamp;

impl Teller<'_> {
    /// A try did not come about: the step waits.
    pub(super) fn held(&mut self, held: &Held, at: Timestamp) {
        let step = self.step(&held.of, "call", at);
        step.status = "waiting";
        step.note = Some(held.reason.to_string());
        step.hold = Some(StoryHold {
            by: held.by,
            until: held.until,
        });
        match step.attempts.last_mut().filter(|last| last.outcome == "running") {
            // It looked, or read first pages.
            Some(last) if !held.exchanges.is_empty() => {
                last.outcome = "held";
                last.exchanges = held.exchanges.to_vec();
                last.next_at = Some(held.until);
            }
            Some(_) => {
                step.attempts.pop();
            }
            None => {}
        }
    }

    pub(super) fn came_back(&mut self, attempt: &crate::journal::Attempt) {
        let is_taken_over = self.retried_at.is_some_and(|began| attempt.at < began);
        let step = self.step(&attempt.of, "call", attempt.at);
        if step.attempts.last().is_none_or(|last| last.outcome != "running") {
            step.attempts.push(StoryAttempt {
                number: attempt.attempt,
                at: attempt.at,
                duration_ms: 0,
                outcome: "running",
                error: None,
                exchanges: Vec::new(),
                next_at: None,
            });
        }
        let Some(told) = step.attempts.last_mut() else {
            return;
        };
        if is_taken_over {
            // It left in an earlier run, and when is not known here; certainly not after it came back.
            told.at = told.at.min(attempt.at);
            step.started_at = step.started_at.min(Some(told.at));
        }
        told.duration_ms = u64::try_from(attempt.at.since(told.at).as_millis()).unwrap_or(u64::MAX);
        told.exchanges = attempt.exchanges.to_vec();
        let (outcome, status, failure) = match &attempt.outcome {
            AttemptOutcome::Done { output, origin } => {
                step.output = Some(output.clone());
                let outcome = match origin {
                    Origin::Sent => "sent",
                    Origin::Coalesced => "coalesced",
                    Origin::Found => "found",
                };
                (outcome, "succeeded", None)
            }
            AttemptOutcome::Gone { failure } => ("gone", "gone", Some(failure)),
            AttemptOutcome::Retry { failure, next_at, .. } => {
                told.next_at = Some(*next_at);
                ("retry", "waiting", Some(failure))
            }
            AttemptOutcome::Failed { failure, effect, .. } => {
                let status = if *effect == Some(EffectEnd::Unknown) {
                    "unknown"
                } else {
                    "failed"
                };
                ("failed", status, Some(failure))
            }
        };
        let continued = matches!(attempt.outcome, AttemptOutcome::Failed { continued: true, .. });
        told.outcome = outcome;
        told.error = failure.map(|failure| format!("{}: {}", failure.code, failure.message));
        step.note.clone_from(&told.error);
        if let (AttemptOutcome::Done { output, .. }, "respond") = (&attempt.outcome, step.kind) {
            step.tell_unfit(output);
        }
        if is_taken_over && step.note.is_none() {
            step.note = Some(TAKEN_OVER.to_owned());
        }
        step.status = status;
        if status != "waiting" {
            step.finished_at = Some(attempt.at);
        }
        match &attempt.outcome {
            AttemptOutcome::Done { .. } => {
                if let Some(effect) = &mut step.effect {
                    effect.state = EffectState::Confirmed.as_str();
                }
            }
            AttemptOutcome::Failed { effect, .. } => step.settle(*effect),
            AttemptOutcome::Gone { .. } | AttemptOutcome::Retry { .. } => {}
        }
        if continued {
            self.handled.insert(path_of(&attempt.of));
        }
    }
}
