//! Faults on demand: which requests and deliveries go wrong, and how.
//!
//! A rule names a direction, a route and a fault, and fires always, with a probability, or a number of
//! times. Every rule has its own seeded generator, so the n-th request that a rule sees has the same fate
//! in every run with the same seed. Faults are decided here and carried out by the server and the sender;
//! deciding never waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::Instant;

/// Which way the traffic flows that a rule disturbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Calls that arrive at the fake provider's API.
    Api,
    /// Webhooks that the fake provider sends.
    Webhook,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// API: the request is swallowed, nothing is done, the connection closes without an answer.
    /// Webhook: the delivery is lost and never retried, as if the provider had given up.
    Drop,
    /// Webhook only: the same delivery is sent this many times more.
    Duplicate {
        /// Extra copies, at least 1.
        #[serde(default = "one")]
        times: u32,
    },
    /// Webhook only: the delivery waits until a later one has gone out, at most this long.
    Reorder {
        /// The longest wait in milliseconds.
        #[serde(default = "half_a_second")]
        hold_ms: u64,
    },
    /// The request is carried out, the answer (or the delivery) comes this much later.
    Delay {
        /// The delay in milliseconds.
        ms: u64,
    },
    /// API only: 429 with `Retry-After`, nothing is done.
    RateLimited {
        /// Value of `Retry-After` in seconds.
        #[serde(default = "one")]
        retry_after_s: u32,
    },
    /// API only: this status instead of the true answer.
    Status {
        /// The HTTP status, 400–599.
        #[serde(default = "internal_server_error")]
        status: u16,
        /// Whether the request takes effect all the same: the nasty case.
        #[serde(default)]
        executed: bool,
    },
    /// The other side waits in vain. API: the connection stays silent for `hold_ms` and closes.
    /// Webhook: the sender reads no answer and gives up after `hold_ms`.
    TimeOut {
        /// How long the silence lasts, in milliseconds.
        #[serde(default = "half_a_minute")]
        hold_ms: u64,
        /// API: whether the request takes effect before the silence.
        #[serde(default = "yes")]
        executed: bool,
    },
    /// The connection breaks. API: in the middle of the answer, after the request took effect (or before
    /// it, with `executed: false`). Webhook: the sender closes without reading the answer, and retries.
    HangUp {
        /// API: whether the request takes effect before the connection breaks.
        #[serde(default = "yes")]
        executed: bool,
    },
    /// API only: the connection closes at once, as with a stopped server behind a proxy. For a truly closed
    /// port see [`crate::Simulator::set_listening`].
    Refuse,
}

fn one() -> u32 {
    1
}
fn half_a_second() -> u64 {
    500
}
fn half_a_minute() -> u64 {
    30_000
}
fn internal_server_error() -> u16 {
    500
}
fn yes() -> bool {
    true
}

/// One rule. The first rule that matches and fires decides; later ones are not asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// The direction it disturbs.
    pub direction: Direction,
    /// API: a route name (`stripe.invoices.create`) or `METHOD /path`; webhook: `connector.event_type`.
    /// A `*` at the end matches every continuation; `*` alone matches everything.
    pub route: String,
    /// What happens.
    pub fault: Fault,
    /// Chance of each matching request, 0–1; without it the rule always fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// How often the rule fires before it is spent; without it there is no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// How many matching requests pass unharmed first.
    #[serde(default)]
    pub skip: u32,
    /// How many matching requests pass unharmed in any second: a provider's own rate limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above_per_second: Option<u32>,
}

impl FaultRule {
    /// A rule that always fires; narrow it with [`FaultRule::times`], [`FaultRule::with_probability`]
    /// and [`FaultRule::after`].
    pub fn new(direction: Direction, route: impl Into<String>, fault: Fault) -> Self {
        Self {
            direction,
            route: route.into(),
            fault,
            probability: None,
            count: None,
            skip: 0,
            above_per_second: None,
        }
    }

    /// Lets this many matching requests pass in any second.
    #[must_use]
    pub fn above(mut self, per_second: u32) -> Self {
        self.above_per_second = Some(per_second);
        self
    }

    /// Fires this often at most.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = Some(count);
        self
    }

    /// Fires with this chance, 0–1.
    #[must_use]
    pub fn with_probability(mut self, probability: f64) -> Self {
        self.probability = Some(probability);
        self
    }

    /// Lets this many matching requests pass first.
    #[must_use]
    pub fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }
}

/// A rule together with what it has done so far.
#[derive(Clone, Debug, Serialize)]
pub struct FaultStatus {
    /// Number of the rule, for removing it.
    pub id: u64,
    /// The rule.
    pub rule: FaultRule,
    /// Matching requests so far.
    pub seen: u64,
    /// How often it fired.
    pub fired: u64,
}

/// Why a rule is refused.
#[derive(Debug, Error, PartialEq)]
pub enum FaultError {
    /// The fault has no meaning in this direction.
    #[error("fault `{fault}` cannot happen in direction `{direction}`")]
    WrongDirection {
        /// The fault's name.
        fault: &'static str,
        /// The direction's name.
        direction: &'static str,
    },
    /// The probability is not a chance.
    #[error("probability {0} is not between 0 and 1")]
    Probability(f64),
    /// The status is not an error status.
    #[error("status {0} is not between 400 and 599")]
    Status(u16),
}

/// The set of active rules.
pub struct Faults {
    seed: u64,
    next_id: AtomicU64,
    /// True while there are rules at all: the fast path of ten thousand requests per second.
    any: AtomicBool,
    rules: Mutex<Vec<Active>>,
}

struct Active {
    status: FaultStatus,
    generator: StdRng,
    /// When requests passed in the last second.
    passed: VecDeque<Instant>,
}

impl Faults {
    /// An empty set; `seed` decides the draws of rules with a probability.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            next_id: AtomicU64::new(1),
            any: AtomicBool::new(false),
            rules: Mutex::new(Vec::new()),
        }
    }

    /// Adds a rule behind the others and returns its number.
    ///
    /// # Errors
    /// [`FaultError`] when the rule has no meaning.
    pub fn add(&self, rule: FaultRule) -> Result<u64, FaultError> {
        validate(&rule)?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let generator = StdRng::seed_from_u64(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(id));
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.push(Active {
            status: FaultStatus {
                id,
                rule,
                seen: 0,
                fired: 0,
            },
            generator,
            passed: VecDeque::new(),
        });
        self.any.store(true, Ordering::Release);
        Ok(id)
    }

    /// Removes one rule; false when there is none with this number.
    pub fn remove(&self, id: u64) -> bool {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let before = rules.len();
        rules.retain(|active| active.status.id != id);
        self.any.store(!rules.is_empty(), Ordering::Release);
        rules.len() < before
    }

    /// Removes all rules.
    pub fn clear(&self) {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.clear();
        self.any.store(false, Ordering::Release);
    }

    /// All rules with their counters, in the order in which they are asked.
    pub fn list(&self) -> Vec<FaultStatus> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.iter().map(|active| active.status.clone()).collect()
    }

    /// What happens to this request or delivery. `route` is the route's name, `line` is `METHOD /path`
    /// (the same as `route` for webhooks).
    pub fn decide(&self, direction: Direction, route: &str, line: &str) -> Option<Fault> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.iter_mut().find_map(|active| active.ask(direction, route, line))
    }
}

impl Active {
    fn ask(&mut self, direction: Direction, route: &str, line: &str) -> Option<Fault> {
        let Self {
            status,
            generator,
            passed,
        } = self;
        let rule = &status.rule;
        if rule.direction != direction || !(matches(&rule.route, route) || matches(&rule.route, line)) {
            return None;
        }
        status.seen += 1;
        if status.seen <= u64::from(rule.skip) || rule.count.is_some_and(|count| status.fired >= u64::from(count)) {
            return None;
        }
        if let Some(limit) = rule.above_per_second {
            let now = Instant::now();
            while passed
                .front()
                .is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(1))
            {
                passed.pop_front();
            }
            if passed.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
                passed.push_back(now);
                return None;
            }
        }
        if rule
            .probability
            .is_some_and(|probability| !generator.random_bool(probability))
        {
            return None;
        }
        status.fired += 1;
        Some(rule.fault.clone())
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => text.starts_with(prefix),
        None => text == pattern,
    }
}

fn validate(rule: &FaultRule) -> Result<(), FaultError> {
    if let Some(probability) = rule.probability
        && !(0.0..=1.0).contains(&probability)
    {
        return Err(FaultError::Probability(probability));
    }
    if let Fault::Status { status, .. } = rule.fault
        && !(400..600).contains(&status)
    {
        return Err(FaultError::Status(status));
    }
    let wrong = match (&rule.fault, rule.direction) {
        (Fault::Duplicate { .. }, Direction::Api) => Some(("duplicate", "api")),
        (Fault::Reorder { .. }, Direction::Api) => Some(("reorder", "api")),
        (Fault::RateLimited { .. }, Direction::Webhook) => Some(("rate_limited", "webhook")),
        (Fault::Status { .. }, Direction::Webhook) => Some(("status", "webhook")),
        (Fault::Refuse, Direction::Webhook) => Some(("refuse", "webhook")),
        (
            Fault::Drop
            | Fault::Delay { .. }
            | Fault::TimeOut { .. }
            | Fault::HangUp { .. }
            | Fault::Duplicate { .. }
            | Fault::Reorder { .. }
            | Fault::RateLimited { .. }
            | Fault::Status { .. }
            | Fault::Refuse,
            Direction::Api | Direction::Webhook,
        ) => None,
    };
    match wrong {
        Some((fault, direction)) => Err(FaultError::WrongDirection { fault, direction }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(seed: u64) -> Vec<bool> {
        let faults = Faults::new(seed);
        let rule = FaultRule::new(Direction::Api, "crm.*", Fault::Drop).with_probability(0.5);
        faults.add(rule).unwrap();
        (0..64)
            .map(|_| {
                faults
                    .decide(Direction::Api, "crm.deals.write", "POST /crm/deals/1")
                    .is_some()
            })
            .collect()
    }

    #[test]
    fn same_seed_same_fates() {
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
        let fired = fates(7).into_iter().filter(|fired| *fired).count();
        assert!((16..48).contains(&fired), "{fired} of 64 at one half");
    }

    #[test]
    fn skips_then_counts_then_is_spent() {
        let faults = Faults::new(0);
        let status = Fault::Status {
            status: 500,
            executed: false,
        };
        let id = faults
            .add(
                FaultRule::new(Direction::Api, "POST /v1/*", status.clone())
                    .after(1)
                    .times(2),
            )
            .unwrap();
        let decide = || faults.decide(Direction::Api, "stripe.invoices.create", "POST /v1/invoices");
        assert_eq!(
            [decide(), decide(), decide(), decide()],
            [None, Some(status.clone()), Some(status), None]
        );
        assert_eq!(
            faults.decide(Direction::Webhook, "stripe.invoice.paid", "stripe.invoice.paid"),
            None
        );
        let listed = faults.list();
        assert_eq!((listed[0].seen, listed[0].fired), (4, 2));
        assert!(faults.remove(id));
        assert!(faults.list().is_empty());
    }

    #[test]
    fn a_rate_limit_lets_so_many_pass_in_any_second() {
        let faults = Faults::new(0);
        let limited = Fault::RateLimited { retry_after_s: 1 };
        faults
            .add(FaultRule::new(Direction::Api, "*", limited).above(1_000))
            .unwrap();
        let passes = || faults.decide(Direction::Api, "x", "GET /x").is_none();
        assert_eq!((0..1_000).filter(|_| passes()).count(), 1_000);
        assert!(!passes());
    }

    #[test]
    fn refuses_rules_without_meaning() {
        let faults = Faults::new(0);
        let reorder = FaultRule::new(Direction::Api, "*", Fault::Reorder { hold_ms: 1 });
        assert_eq!(
            faults.add(reorder),
            Err(FaultError::WrongDirection {
                fault: "reorder",
                direction: "api"
            })
        );
        let chance = FaultRule::new(Direction::Webhook, "*", Fault::Drop).with_probability(1.5);
        assert_eq!(faults.add(chance), Err(FaultError::Probability(1.5)));
        let fine = FaultRule::new(
            Direction::Api,
            "*",
            Fault::Status {
                status: 200,
                executed: true,
            },
        );
        assert_eq!(faults.add(fine), Err(FaultError::Status(200)));
    }

    #[test]
    fn the_json_form_has_defaults_and_refuses_unknown_words() {
        let rule: FaultRule =
            serde_json::from_str(r#"{"direction":"api","route":"*","fault":{"kind":"hang_up"}}"#).unwrap();
        assert_eq!(rule.fault, Fault::HangUp { executed: true });
        let wrong = r#"{"direction":"api","route":"*","fault":{"kind":"delay","ms":1,"second":2}}"#;
        assert!(serde_json::from_str::<FaultRule>(wrong).is_err());
    }
}
