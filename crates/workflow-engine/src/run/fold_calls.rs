//! What the calls of a run do to its state.

use std::sync::Arc;

use super::fold::{EFFECT_UNKNOWN, UNPROVEN};
use super::retry::MAX_THROTTLED_TRIES;
use super::state::{Closed, Failure, OpenCall, Phase, ReadState, RunState, Verdict};
use crate::command::SendMode;
use crate::journal::{Abandoned, Attempt, AttemptOutcome, EffectEnd, Intent, Issued, Target};
use crate::result::{CallFailure, Sent};

impl RunState {
    pub(super) fn fold_issued(&mut self, issued: &Issued) {
        self.next_call = self.next_call.max(issued.call.0 + 1);
        if let Some(call) = self.calls.get_mut(&issued.call) {
            // Handed out again while it was on its way: the process that knew what became of it is gone.
            call.maybe_sent |= call.phase == Phase::Flight;
            if !call.maybe_sent {
                call.first_sent_at = issued.at;
            }
            call.attempt = issued.attempt;
            call.mode = issued.mode;
            call.phase = Phase::Flight;
            return;
        }
        let Some(owner) = self.owner(&issued.of) else {
            return;
        };
        self.open_slot(&owner);
        self.calls.insert(
            issued.call,
            OpenCall {
                of: issued.of.clone(),
                owner,
                attempt: issued.attempt,
                phase: Phase::Flight,
                intent: None,
                mode: None,
                first_sent_at: issued.at,
                maybe_sent: false,
                not_found: 0,
                throttled: 0,
                holds: 0,
                failed_at: None,
            },
        );
    }

    pub(super) fn fold_intent(&mut self, intent: &Intent) {
        self.next_call = self.next_call.max(intent.call.0 + 1);
        let of = Target::Step(Arc::clone(&intent.step));
        let Some(owner) = self.owner(&of) else { return };
        self.open_slot(&owner);
        self.calls.insert(
            intent.call,
            OpenCall {
                of,
                owner,
                attempt: 1,
                phase: Phase::Flight,
                mode: Some(intent.mode),
                first_sent_at: intent.first_sent_at,
                // Sent again for another run: that one may have been carried out.
                maybe_sent: intent.mode != SendMode::First,
                not_found: 0,
                throttled: 0,
                holds: 0,
                failed_at: None,
                intent: Some(Arc::new(intent.clone())),
            },
        );
    }

    pub(super) fn fold_attempt(&mut self, attempt: &Attempt) {
        match &attempt.outcome {
            AttemptOutcome::Retry { failure, next_at, mode } => {
                if let Some(call) = self.calls.get_mut(&attempt.call) {
                    call.learn(failure);
                    call.failed_at = Some(attempt.at);
                    call.phase = Phase::Wait {
                        until: *next_at,
                        mode: *mode,
                    };
                }
            }
            AttemptOutcome::Done { output, origin } => {
                self.calls.remove(&attempt.call);
                match &attempt.of {
                    Target::Read(name) => self.settle_read(
                        name,
                        ReadState::Done {
                            output: output.clone(),
                            origin: *origin,
                            at: attempt.at,
                            exchanges: Arc::clone(&attempt.exchanges),
                        },
                    ),
                    Target::Step(path) => self.done(
                        path,
                        Closed {
                            verdict: Verdict::Done,
                            output: Some(output.clone()),
                            error: None,
                            attempts: attempt.attempt,
                            exchanges: Some(Arc::clone(&attempt.exchanges)),
                            items: None,
                        },
                    ),
                }
            }
            AttemptOutcome::Gone { .. } => {
                self.calls.remove(&attempt.call);
                if let Target::Read(name) = &attempt.of {
                    self.settle_read(name, ReadState::Null);
                }
            }
            AttemptOutcome::Failed {
                failure,
                code,
                continued,
                effect,
            } => {
                let call = self.calls.remove(&attempt.call);
                if &**code != EFFECT_UNKNOWN {
                    self.note_doubtful(call.as_ref(), *effect);
                }
                match &attempt.of {
                    Target::Step(step) if &**code == EFFECT_UNKNOWN => {
                        self.fail_unknown(step, &failure.message, attempt.attempt);
                    }
                    Target::Step(step) if *continued => {
                        let failure = Failure {
                            code: Arc::clone(code),
                            message: Arc::from(failure.message.as_str()),
                            step: Arc::clone(step),
                        };
                        self.rescue(failure, attempt.attempt, Some(Arc::clone(&attempt.exchanges)));
                    }
                    of => {
                        let exchanges = Some(Arc::clone(&attempt.exchanges));
                        self.fail(of, code, &failure.message, attempt.attempt, exchanges);
                    }
                }
            }
        }
    }

    pub(super) fn fold_abandoned(&mut self, abandoned: &Abandoned) {
        let Some(call) = self.calls.remove(&abandoned.call) else {
            return;
        };
        if !call.intent.as_ref().is_some_and(|intent| intent.class.asks_a_person()) {
            return self.note_doubtful(Some(&call), abandoned.effect);
        }
        if abandoned.effect == Some(EffectEnd::Unknown)
            && let Target::Step(step) = &abandoned.of
        {
            self.unknown.get_or_insert_with(|| Arc::clone(step));
        }
    }
}

/// Whether a failure says that the object of a read is not there.
pub(super) fn is_not_found(failure: &CallFailure) -> bool {
    failure.http_status == Some(404) || failure.code == "not_found"
}

impl OpenCall {
    /// What a failed try says about the world outside.
    pub(super) fn learn(&mut self, failure: &CallFailure) {
        match failure.sent {
            Sent::Maybe => self.maybe_sent = true,
            // The host sent in this mode only after proof that nothing was sent before.
            Sent::Never if self.mode == Some(SendMode::IfNeverSent) && failure.code != UNPROVEN => {
                self.maybe_sent = false;
            }
            Sent::Never => {}
        }
        if self.intent.is_none() && is_not_found(failure) {
            self.not_found += 1;
        }
        if failure.is_throttled() && self.throttled < MAX_THROTTLED_TRIES {
            self.throttled += 1;
        }
    }
}
