//! When a failed call is tried again, and what a failure means for its effect.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::fold::{EFFECT_UNKNOWN, UNPROVEN};
use super::fold_calls::is_not_found;
use super::state::OpenCall;
use crate::command::{CallId, SendMode};
use crate::definition::RetryPolicy;
use crate::effect::{EffectClass, resend_limit};
use crate::id::RunId;
use crate::journal::EffectEnd;
use crate::result::{CallFailure, Retry, Sent};
use crate::time::Timestamp;

/// The longest pause that a provider can ask for with `Retry-After`.
///
/// Limit: pause that a provider asks for with `Retry-After` | cut | `the_default_tries_reach_over_a_day_and_never_differ`
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Answers of a provider that there were too many requests, for one call, that are not counted as tries.
///
/// Limit: tries of a call that a provider turns away with 429 and that do not count | further ones count as tries | `a_try_that_the_provider_throttles_is_not_counted_up_to_a_bound` | `weir_budget_throttled_total`
pub const MAX_THROTTLED_TRIES: u32 = 100;
/// How often one call may be held back by its connection's budget, circuit breaker or access before that counts as a try: a week
/// of a provider that is down, looked at every minute.
///
/// Limit: how often one call is held by budget, circuit breaker or missing access without counting as a try | further ones count as tries, `budget_exhausted`, `circuit_open`, `token_unavailable` or `needs_reauth` | `a_call_is_held_without_a_try_up_to_a_bound` | `weir_budget_held_total`
pub const MAX_HOLDS: u32 = 10_000;
/// The code of a hydration read whose answer is older than its event.
pub(super) const STALE: &str = "stale";
/// When a hydration read did not find its object, or found it older than its event: providers tell of objects before
/// their APIs show them.
const NOT_SHOWN_PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(10)];

/// What follows a failed try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Next {
    /// Another try.
    Retry { at: Timestamp, mode: Option<SendMode> },
    /// The object of a read is not there.
    Gone,
    /// The end of the call: with the failure's own code when `code` is `None`.
    Fail {
        code: Option<&'static str>,
        effect: Option<EffectEnd>,
    },
}

/// The pause after a try: exponential, spread by a fifth to both sides so that runs do not march in step.
///
/// The spread is a hash of run, call and try: the same in every replay.
fn pause(policy: &RetryPolicy, run: RunId, call: CallId, attempt: u32, asked: Option<Duration>) -> Duration {
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = policy.first.as_secs_f64() * policy.factor.powi(exponent);
    let plain = if seconds < policy.max.as_secs_f64() {
        seconds
    } else {
        policy.max.as_secs_f64()
    };
    let mut hash = Sha256::new();
    hash.update(run.as_raw().to_be_bytes());
    hash.update(call.0.to_be_bytes());
    hash.update(attempt.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let chance = digest.first_chunk::<2>().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    let spread = 0.8 + 0.4 * f64::from(chance) / f64::from(u16::MAX);
    let own = Duration::try_from_secs_f64(plain * spread).unwrap_or(policy.max);
    // Whole milliseconds: what the journal can hold.
    let own = Duration::from_millis(u64::try_from(own.as_millis()).unwrap_or(u64::MAX));
    own.max(asked.unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// Where a failure happened.
pub(super) struct Situation {
    pub(super) run: RunId,
    pub(super) call: CallId,
    /// How long one try may take.
    pub(super) timeout: Duration,
    /// The run is ending, so nothing is tried again.
    pub(super) closing: bool,
    pub(super) now: Timestamp,
}

/// What follows when `open` failed with `failure`.
pub(super) fn next(open: &OpenCall, failure: &CallFailure, policy: &RetryPolicy, situation: &Situation) -> Next {
    let Situation {
        run,
        call,
        timeout,
        closing,
        now,
    } = *situation;
    let (retryable, asked) = match failure.retry {
        Retry::Retryable { after } => (true, after),
        Retry::Permanent => (false, None),
    };
    let tries = open.counted_tries(failure);
    let at = now.plus(pause(policy, run, call, tries.max(1), asked));
    let tries_left = tries < policy.tries && !closing;
    let exhausted = if closing { None } else { Some("retries_exhausted") };
    let Some(intent) = &open.intent else {
        let is_read = matches!(open.of, crate::journal::Target::Read(_));
        if is_read && failure.http_status == Some(410) {
            return Next::Gone;
        }
        if is_read && is_not_found(failure) && !closing {
            let pause = usize::try_from(open.not_found)
                .ok()
                .and_then(|tries| NOT_SHOWN_PAUSES.get(tries));
            return pause.map_or(Next::Gone, |pause| Next::Retry {
                at: now.plus(*pause),
                mode: None,
            });
        }
        let soon = usize::try_from(tries.saturating_sub(1))
            .ok()
            .and_then(|tries| NOT_SHOWN_PAUSES.get(tries));
        return match (retryable, soon) {
            (true, Some(pause)) if tries_left && is_read && failure.code == STALE => Next::Retry {
                at: now.plus(*pause),
                mode: None,
            },
            (true, _) if tries_left => Next::Retry { at, mode: None },
            (true, _) => Next::Fail {
                code: exhausted,
                effect: None,
            },
            (false, _) => Next::Fail {
                code: None,
                effect: None,
            },
        };
    };
    let proven = open.mode == Some(SendMode::IfNeverSent) && failure.sent == Sent::Never && failure.code != UNPROVEN;
    let maybe_sent = failure.sent == Sent::Maybe || open.maybe_sent && !proven;
    let unknown = Next::Fail {
        code: Some(EFFECT_UNKNOWN),
        effect: Some(EffectEnd::Unknown),
    };
    if failure.code == UNPROVEN {
        return unknown;
    }
    if !maybe_sent {
        let effect = Some(EffectEnd::Failed);
        return match retryable {
            true if tries_left => Next::Retry {
                at,
                mode: Some(SendMode::Resend),
            },
            true => Next::Fail {
                code: exhausted,
                effect,
            },
            false => Next::Fail { code: None, effect },
        };
    }
    // The request of this try may be under way at the provider for as long as a try takes, also when its connection
    // broke at once: a look before that may be too early. How long ago the first try was does not matter.
    let over = now.plus(timeout);
    match intent.class {
        EffectClass::Blind => unknown,
        EffectClass::Keyed { .. } | EffectClass::Repeatable | EffectClass::Read => {
            let effect = Some(EffectEnd::Unknown);
            match retryable {
                true if tries_left && !may_resend(intent.class, open.first_sent_at, at) => unknown,
                true if tries_left => Next::Retry {
                    at,
                    mode: Some(SendMode::Resend),
                },
                true => Next::Fail {
                    code: exhausted,
                    effect,
                },
                false => Next::Fail { code: None, effect },
            }
        }
        EffectClass::FindBy { .. } if !tries_left => unknown,
        EffectClass::FindBy { consistent: true, .. } => {
            let mode = if retryable {
                SendMode::LookFirst
            } else {
                SendMode::LookOnly
            };
            Next::Retry {
                at: at.max(over),
                mode: Some(mode),
            }
        }
        EffectClass::FindBy {
            consistent: false,
            settle,
        } => {
            let settled = over.plus(settle);
            Next::Retry {
                at: at.max(settled),
                mode: Some(SendMode::LookOnly),
            }
        }
    }
}

impl OpenCall {
    /// The tries that count, with the one that ended in `failure`.
    fn counted_tries(&self, failure: &CallFailure) -> u32 {
        let free = u32::from(failure.is_throttled() && self.throttled < MAX_THROTTLED_TRIES);
        self.attempt.saturating_sub(self.throttled + free)
    }

    /// How the call is sent when it is offered again after it was held: nothing left in this try.
    pub(super) fn mode_when_held(&self) -> Option<SendMode> {
        match self.mode {
            Some(SendMode::First) => Some(SendMode::Resend),
            mode => mode,
        }
    }
}

/// Whether an effect that may have been sent before may be sent again at `at`.
pub(super) fn may_resend(class: EffectClass, first_sent_at: Timestamp, at: Timestamp) -> bool {
    match class {
        EffectClass::Keyed { window } => at.since(first_sent_at) < resend_limit(window),
        EffectClass::Repeatable | EffectClass::Read => true,
        EffectClass::FindBy { .. } | EffectClass::Blind => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_tries_reach_over_a_day_and_never_differ() {
        let policy = RetryPolicy::default();
        let pauses = |run| -> Vec<Duration> {
            (1..policy.tries)
                .map(|attempt| pause(&policy, RunId::from_raw(run), CallId(3), attempt, None))
                .collect()
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
        let total: Duration = pauses(1).iter().sum();
        assert!((18..32).contains(&(total.as_secs() / 3600)), "{total:?}");
        let asked = pause(&policy, RunId::from_raw(1), CallId(0), 1, Some(Duration::from_secs(77)));
        assert_eq!(asked, Duration::from_secs(77));
        let greedy = pause(&policy, RunId::from_raw(1), CallId(0), 1, Some(Duration::MAX));
        assert_eq!(greedy, MAX_RETRY_AFTER);
    }
}
