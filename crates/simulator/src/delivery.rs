//! A webhook to be sent, what may be forged about it, how its sender retries, and what became of it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Sent deliveries kept in full.
pub const DELIVERIES_MAX: usize = 50_000;

/// Event ids remembered for the balance of sent events and effects.
pub const EVENT_IDS_MAX: usize = 4_000_000;

/// One webhook, not yet signed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Connector whose manifest says how to sign: `stripe`, `hubspot`, `slack`, `github`, `standard-webhooks`.
    pub connector: String,
    /// Where it goes. Loopback only, unless the simulator was allowed more.
    pub url: String,
    /// The URL that is signed, when the receiver is known by another one (a proxy, a public address).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_url: Option<String>,
    /// Signing secrets; with several, schemes that carry several signatures carry one of each.
    pub secrets: Vec<String>,
    /// The event's id at the provider; also the delivery's id where the scheme signs one.
    pub id: String,
    /// Event type, for fault rules: `connector.kind`.
    pub kind: String,
    /// Headers beside the signature, lower case.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The exact body.
    pub body: String,
    /// A way in which the request shall be wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forge: Option<Forge>,
    /// How to retry; the provider's way, compressed, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
}

/// What an impostor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forge {
    /// Signs with a secret of its own.
    WrongSecret,
    /// Changes the body after it was signed.
    TamperedBody,
    /// Replays an hour-old signature.
    Stale,
    /// Sends no signature at all.
    Unsigned,
}

impl Forge {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::WrongSecret, Self::TamperedBody, Self::Stale, Self::Unsigned];
}

/// How a sender retries what was not answered with 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// Waits before the second, third … attempt, in milliseconds. Its length bounds the attempts.
    pub delays_ms: Vec<u64>,
    /// How long one attempt may take, in milliseconds.
    pub timeout_ms: u64,
}

impl RetryPolicy {
    /// One attempt, `timeout_ms` long.
    pub fn none(timeout_ms: u64) -> Self {
        Self {
            delays_ms: Vec::new(),
            timeout_ms,
        }
    }

    /// The provider's own schedule, in real time: Stripe exponential over three days, HubSpot ten times over
    /// a day, Slack at once, after a minute and after five, GitHub never, Standard Webhooks as its
    /// specification advises.
    pub fn of(connector: &str) -> Self {
        const SECOND: u64 = 1000;
        const MINUTE: u64 = 60 * SECOND;
        const HOUR: u64 = 60 * MINUTE;
        let (delays_ms, timeout_ms) = match connector {
            "stripe" => (
                vec![
                    MINUTE,
                    5 * MINUTE,
                    30 * MINUTE,
                    HOUR,
                    2 * HOUR,
                    4 * HOUR,
                    8 * HOUR,
                    12 * HOUR,
                    20 * HOUR,
                    24 * HOUR,
                ],
                20 * SECOND,
            ),
            "hubspot" => (
                vec![
                    MINUTE,
                    5 * MINUTE,
                    15 * MINUTE,
                    30 * MINUTE,
                    HOUR,
                    2 * HOUR,
                    3 * HOUR,
                    4 * HOUR,
                    6 * HOUR,
                    7 * HOUR,
                ],
                5 * SECOND,
            ),
            "slack" => (vec![0, MINUTE, 5 * MINUTE], 3 * SECOND),
            "github" => (Vec::new(), 10 * SECOND),
            _ => (
                vec![
                    5 * SECOND,
                    5 * MINUTE,
                    30 * MINUTE,
                    2 * HOUR,
                    5 * HOUR,
                    10 * HOUR,
                    14 * HOUR,
                    20 * HOUR,
                    24 * HOUR,
                ],
                15 * SECOND,
            ),
        };
        Self { delays_ms, timeout_ms }
    }

    /// The same number of attempts, squeezed so that the last one starts within `total`. The shape stays,
    /// but no two attempts are closer than 20 ms.
    #[must_use]
    pub fn compressed(mut self, total: Duration) -> Self {
        let sum: u64 = self.delays_ms.iter().sum();
        let total_ms = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
        if sum > total_ms {
            for delay in &mut self.delays_ms {
                let scaled = u128::from(*delay) * u128::from(total_ms) / u128::from(sum);
                *delay = u64::try_from(scaled).unwrap_or(total_ms).max(20);
            }
        }
        self
    }
}

/// One attempt to deliver.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryAttempt {
    /// When it started, milliseconds since the Unix epoch.
    pub at_unix_ms: i64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The status that was answered.
    pub status: Option<u16>,
    /// Why there was no status.
    pub error: Option<String>,
    /// The beginning of the answer's body, at most 2 KiB.
    pub answer: String,
}

/// What became of a delivery.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryOutcome {
    /// The event's id.
    pub id: String,
    /// `connector.kind`.
    pub kind: String,
    /// Where it went.
    pub url: String,
    /// All attempts, copies by the duplicate fault included.
    pub attempts: Vec<DeliveryAttempt>,
    /// Whether some attempt was answered with 2xx, and the sender read it.
    pub acknowledged: bool,
    /// Whether a fault lost it before it was sent.
    pub dropped: bool,
    /// What was forged.
    pub forged: Option<Forge>,
}

impl DeliveryOutcome {
    /// Status of the last attempt.
    pub fn last_status(&self) -> Option<u16> {
        self.attempts.last().and_then(|attempt| attempt.status)
    }
}

/// Deliveries in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeliverySummary {
    /// Deliveries, whatever became of them.
    pub deliveries: u64,
    /// HTTP requests sent.
    pub attempts: u64,
    /// Deliveries that were acknowledged.
    pub acknowledged: u64,
    /// Deliveries given up without acknowledgement.
    pub failed: u64,
    /// Deliveries lost by a fault.
    pub dropped: u64,
    /// Forged deliveries that were refused with a 4xx, as they should be.
    pub forged_refused: u64,
    /// Forged deliveries that were answered with 2xx.
    pub forged_accepted: u64,
}

/// The record of what was sent.
#[derive(Default)]
pub struct DeliveryLog {
    inner: Mutex<LogInner>,
}

#[derive(Default)]
struct LogInner {
    summary: DeliverySummary,
    recent: VecDeque<DeliveryOutcome>,
    acknowledged: HashSet<String>,
    failed: HashSet<String>,
}

impl LogInner {
    fn fail(&mut self, id: &str) {
        if !self.acknowledged.contains(id) && self.failed.len() < EVENT_IDS_MAX {
            self.failed.insert(id.to_owned());
        }
    }
}

impl DeliveryLog {
    /// Records a finished delivery.
    pub(crate) fn record(&self, outcome: DeliveryOutcome) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let summary = &mut inner.summary;
        summary.deliveries += 1;
        summary.attempts += outcome.attempts.len() as u64;
        if outcome.dropped {
            summary.dropped += 1;
            inner.fail(&outcome.id);
        } else if outcome.forged.is_some() {
            summary.forged_accepted += u64::from(outcome.acknowledged);
            summary.forged_refused +=
                u64::from(outcome.last_status().is_some_and(|status| (400..500).contains(&status)));
        } else if outcome.acknowledged {
            summary.acknowledged += 1;
            if inner.acknowledged.len() < EVENT_IDS_MAX {
                inner.acknowledged.insert(outcome.id.clone());
            }
            inner.failed.remove(&outcome.id);
        } else {
            summary.failed += 1;
            inner.fail(&outcome.id);
        }
        inner.recent.push_back(outcome);
        if inner.recent.len() > DELIVERIES_MAX {
            inner.recent.pop_front();
        }
    }

    /// Whether an event was sent, or lost by a fault, and no delivery of it was acknowledged so far.
    pub fn has_failed(&self, id: &str) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.failed.contains(id)
    }

    /// Deliveries in numbers.
    pub fn summary(&self) -> DeliverySummary {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).summary
    }

    /// The newest deliveries, oldest first.
    pub fn recent(&self, limit: usize) -> Vec<DeliveryOutcome> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = inner.recent.len().saturating_sub(limit);
        inner.recent.iter().skip(skip).cloned().collect()
    }

    /// Ids of all acknowledged events.
    pub fn acknowledged_ids(&self) -> Vec<String> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.acknowledged.iter().cloned().collect()
    }

    /// Starts a new record.
    pub fn clear(&self) {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = LogInner::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_keeps_attempts_and_bounds_the_whole() {
        let squeezed = RetryPolicy::of("stripe").compressed(Duration::from_secs(10));
        assert_eq!(squeezed.delays_ms.len(), RetryPolicy::of("stripe").delays_ms.len());
        assert!(squeezed.delays_ms.iter().sum::<u64>() <= 10_200);
        assert!(squeezed.delays_ms.is_sorted());
        assert_eq!(RetryPolicy::of("github"), RetryPolicy::none(10_000));
    }
}
