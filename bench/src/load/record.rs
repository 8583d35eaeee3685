//! What was sent and what arrived, written by the sender and the upstreams without locks.
//!
//! Times are nanoseconds of one clock; 0 means "never".

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use weir_bench::clock::{self, Clock};
use weir_bench::documents::{Deal, Ids};

/// How a webhook ended when it got no HTTP answer. Below 100, so that it fits beside HTTP statuses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NoAnswer {
    /// No connection: nothing was sent.
    NotConnected = 1,
    /// The connection broke after sending: the outcome is unknown to the sender.
    Broken = 2,
    /// No answer within the sender's patience.
    TimedOut = 3,
}

/// One webhook and what followed from it.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub due: AtomicU64,
    pub sent: AtomicU64,
    pub answered: AtomicU64,
    /// 0: still open; below 100: a [`NoAnswer`]; otherwise the HTTP status.
    pub answer: AtomicU32,
    pub gets: AtomicU32,
    pub writes: AtomicU32,
    pub first_write: AtomicU64,
    /// Hash of the first write's idempotency key; 0: it had none.
    pub key: AtomicU64,
}

impl Flow {
    pub(crate) fn accepted(&self) -> bool {
        (200..300).contains(&self.answer.load(Relaxed))
    }

    pub(crate) fn completed(&self) -> bool {
        self.writes.load(Relaxed) > 0
    }
}

/// The whole run.
#[derive(Debug)]
pub(crate) struct Record {
    pub clock: Clock,
    pub ids: Ids,
    flows: Vec<Flow>,
    next: AtomicUsize,
    /// No webhook is sent after this instant.
    pub stop_at: AtomicU64,
    pub accepted: AtomicU64,
    pub completed: AtomicU64,
    pub last_write: AtomicU64,
    pub keyed_repeats: AtomicU64,
    pub keyless_writes: AtomicU64,
    pub wrong_bodies: AtomicU64,
    pub foreign_calls: AtomicU64,
    pub unknown_paths: AtomicU64,
    /// Sum of the time the payment API really held its answers, in microseconds.
    pub held_us: AtomicU64,
    pub held: AtomicU64,
}

impl Record {
    pub(crate) fn new(max_flows: usize) -> Self {
        let nonce = clock::unix_ms().unsigned_abs() & u64::from(u32::MAX);
        let nonce = u32::try_from(nonce).unwrap_or_default() ^ std::process::id().rotate_left(16);
        Self {
            clock: Clock::start(),
            ids: Ids::new(nonce),
            flows: (0..max_flows).map(|_| Flow::default()).collect(),
            next: AtomicUsize::new(0),
            stop_at: AtomicU64::new(u64::MAX),
            accepted: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            last_write: AtomicU64::new(0),
            keyed_repeats: AtomicU64::new(0),
            keyless_writes: AtomicU64::new(0),
            wrong_bodies: AtomicU64::new(0),
            foreign_calls: AtomicU64::new(0),
            unknown_paths: AtomicU64::new(0),
            held_us: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    /// The number of the next webhook; `None` when sending is over.
    pub(crate) fn take(&self) -> Option<usize> {
        if self.clock.now_ns() >= self.stop_at.load(Relaxed) {
            return None;
        }
        let number = self.next.fetch_add(1, Relaxed);
        (number < self.flows.len()).then_some(number)
    }

    /// All flows whose webhook was taken.
    pub(crate) fn taken(&self) -> &[Flow] {
        self.flows.get(..self.next.load(Relaxed)).unwrap_or(&self.flows)
    }

    pub(crate) fn flow(&self, number: usize) -> Option<&Flow> {
        self.flows.get(number)
    }

    pub(crate) fn answered(&self, number: usize, answer: Result<u16, NoAnswer>) {
        let Some(flow) = self.flow(number) else {
            return;
        };
        flow.answered.store(self.clock.now_ns(), Relaxed);
        flow.answer
            .store(answer.map_or_else(|none| none as u32, u32::from), Relaxed);
        if flow.accepted() {
            self.accepted.fetch_add(1, Relaxed);
        }
    }

    /// A GET of a payment intent; gives the flow's number, `None` for a foreign id.
    pub(crate) fn fetched(&self, payment_intent: &str) -> Option<usize> {
        let number = self.ids.flow_of(payment_intent);
        match number.and_then(|number| self.flow(number)) {
            Some(flow) => flow.gets.fetch_add(1, Relaxed),
            None => {
                self.foreign_calls.fetch_add(1, Relaxed);
                return None;
            }
        };
        number
    }

    /// A write to the CRM. With `honour_keys` a repeat that bears the first write's key changes nothing.
    pub(crate) fn written(&self, payment_intent: &str, body: &[u8], key: Option<&str>, honour_keys: bool) {
        let Some((number, flow)) = self
            .ids
            .flow_of(payment_intent)
            .and_then(|number| Some((number, self.flow(number)?)))
        else {
            self.foreign_calls.fetch_add(1, Relaxed);
            return;
        };
        let right = serde_json::from_slice::<Deal>(body).is_ok_and(|deal| deal == Deal::expected(&self.ids, number));
        if !right {
            self.wrong_bodies.fetch_add(1, Relaxed);
            return;
        }
        match key.filter(|_| honour_keys).map(key_hash) {
            None if honour_keys => {
                self.keyless_writes.fetch_add(1, Relaxed);
            }
            None => {}
            Some(hash) => match flow.key.compare_exchange(0, hash, Relaxed, Relaxed) {
                Err(first) if first == hash => {
                    self.keyed_repeats.fetch_add(1, Relaxed);
                    return;
                }
                Ok(_) | Err(_) => {}
            },
        }
        let now = self.clock.now_ns();
        if flow.writes.fetch_add(1, Relaxed) == 0 {
            flow.first_write.store(now, Relaxed);
            self.completed.fetch_add(1, Relaxed);
        }
        self.last_write.store(now, Relaxed);
    }

    /// Whether every accepted webhook has reached the CRM.
    pub(crate) fn complete(&self) -> bool {
        self.completed.load(Relaxed) >= self.accepted.load(Relaxed)
            && self.taken().iter().all(|flow| !flow.accepted() || flow.completed())
    }
}

/// Never 0, which stands for "no key".
fn key_hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(record: &Record, key: Option<&str>, honour_keys: bool) {
        let body = serde_json::to_vec(&Deal::expected(&record.ids, 0)).unwrap();
        record.written(&record.ids.payment_intent(0), &body, key, honour_keys);
    }

    fn writes(record: &Record) -> u32 {
        record.flow(0).unwrap().writes.load(Relaxed)
    }

    #[test]
    fn a_repeat_with_the_same_key_changes_nothing() {
        let record = Record::new(1);
        write(&record, Some("a"), true);
        write(&record, Some("a"), true);
        assert_eq!((writes(&record), record.keyed_repeats.load(Relaxed)), (1, 1));
        write(&record, Some("b"), true);
        write(&record, None, true);
        assert_eq!((writes(&record), record.keyless_writes.load(Relaxed)), (3, 1));
    }

    #[test]
    fn without_key_support_every_repeat_counts() {
        let record = Record::new(1);
        write(&record, Some("a"), false);
        write(&record, Some("a"), false);
        assert_eq!(writes(&record), 2);
    }

    #[test]
    fn a_wrong_body_completes_nothing() {
        let record = Record::new(1);
        let mut deal = Deal::expected(&record.ids, 0);
        deal.amount += 1;
        record.written(
            &record.ids.payment_intent(0),
            &serde_json::to_vec(&deal).unwrap(),
            None,
            false,
        );
        assert_eq!((writes(&record), record.wrong_bodies.load(Relaxed)), (0, 1));
    }

    #[test]
    fn complete_means_each_accepted_webhook_was_written() {
        let record = Record::new(2);
        assert_eq!((record.take(), record.take(), record.take()), (Some(0), Some(1), None));
        record.answered(0, Ok(200));
        assert!(!record.complete());
        write(&record, None, false);
        record.answered(1, Err(NoAnswer::Broken));
        assert!(record.complete());
    }
}
