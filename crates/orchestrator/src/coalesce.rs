//! Several runs that want the same object at the same time share one read.
//!
//! A result serves only events that were accepted **before** its request was sent; an event accepted later might describe
//! a change that the answer does not show yet. Those share exactly one trailing read, sent when the current one is back.
//! So at most one read per key is on the wire and at most one waits behind it, however many events arrive.
//! A leader that is dropped never strands its followers: one of them takes over.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use weir_workflow_engine::{Document, Timestamp};

use crate::budget::Class;
use crate::clock::Clock;
use crate::connection::Identity;

/// Reads that may be shared at once. Above it reads go out unshared, which costs requests but never correctness.
pub const MAX_SHARED_READS: usize = 65_536;

/// How far the wall clock may lag behind the monotonic one before nothing is shared any more, milliseconds.
/// Both are read at millisecond resolution and corrected by the system in small steps.
const CLOCK_TOLERANCE_MS: i64 = 20;

/// What makes two reads the same.
#[derive(Debug, Clone)]
pub struct ReadKey {
    /// Identity of the connection object. A changed configuration is another object and shares nothing with the old one.
    pub connection: Identity,
    /// Name of the operation.
    pub operation: String,
    /// The rendered arguments, compared by their bytes.
    pub args: Document,
    /// Item cap of a paged read.
    pub all_max: Option<u32>,
    /// How urgent the read is: an urgent one does not wait behind one that is not.
    pub class: Class,
}

impl PartialEq for ReadKey {
    fn eq(&self, other: &Self) -> bool {
        self.connection == other.connection
            && self.all_max == other.all_max
            && self.class == other.class
            && self.operation == other.operation
            && self.args.raw() == other.args.raw()
    }
}

impl Eq for ReadKey {}

impl Hash for ReadKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.connection.hash(state);
        self.operation.hash(state);
        self.args.raw().hash(state);
        self.all_max.hash(state);
        self.class.hash(state);
    }
}

/// How a caller came by its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served<T, S> {
    /// It sent the request itself.
    Led(T),
    /// It waited for a request that another caller sent, and gets the shared form of the result.
    Followed(S),
}

/// Shares reads among callers. One per process.
pub struct Coalescer<S> {
    clock: Arc<dyn Clock>,
    slots: Mutex<HashMap<ReadKey, Slot<S>>>,
    next_flight: AtomicU64,
    max_shared: usize,
}

struct Slot<T> {
    current: Flight<T>,
    trailing: Option<Flight<T>>,
}

struct Flight<T> {
    id: u64,
    /// `None` until the request is about to be sent.
    sent: Option<SentMark>,
    /// Created by the first follower; most flights never have one.
    waiters: Option<watch::Sender<Landing<T>>>,
}

#[derive(Clone, Copy)]
struct SentMark {
    at: Timestamp,
    monotonic_ms: i64,
}

#[derive(Clone)]
enum Landing<T> {
    Open,
    Result(T),
    /// The leader was dropped.
    Abandoned,
}

enum Part<T> {
    /// Send now.
    Lead(u64),
    /// Wait for the current flight to land, then send.
    LeadTrailing(u64, watch::Receiver<Landing<T>>),
    Follow(watch::Receiver<Landing<T>>),
    /// The map is full.
    Alone,
}

impl<S: Clone> Coalescer<S> {
    /// A coalescer that judges "before" by `clock`, the one that stamps events as accepted.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Coalescer {
            clock,
            slots: Mutex::new(HashMap::new()),
            next_flight: AtomicU64::new(1),
            max_shared: MAX_SHARED_READS,
        }
    }

    /// Runs `send`, or waits for the result of an equal read whose request is sent after `accepted_at`.
    /// `share` makes the form that followers get; it is not called when nobody follows.
    ///
    /// Cancel-safe: dropping the future hands the lead to a follower, if there is one.
    pub async fn read<T, Fut>(
        &self,
        key: ReadKey,
        accepted_at: Timestamp,
        send: impl FnOnce() -> Fut,
        share: impl FnOnce(&T) -> S,
    ) -> Served<T, S>
    where
        Fut: Future<Output = T>,
    {
        loop {
            let place = match self.take_part(&key, accepted_at) {
                Part::Alone => return Served::Led(send().await),
                Part::Lead(id) => Place::hold(self, &key, id),
                Part::LeadTrailing(id, current) => {
                    let place = Place::hold(self, &key, id);
                    landed(current).await;
                    self.mark_sent(&key, id);
                    place
                }
                Part::Follow(flight) => match landed(flight).await {
                    Some(result) => return Served::Followed(result),
                    None => continue,
                },
            };
            let result = send().await;
            place.land(|| share(&result));
            return Served::Led(result);
        }
    }

    fn take_part(&self, key: &ReadKey, accepted_at: Timestamp) -> Part<S> {
        let mut slots = self.lock();
        let count = slots.len();
        // The clock is read under the lock: whoever finds this flight later was accepted later, or before this moment.
        match slots.entry(key.clone()) {
            Entry::Vacant(_) if count >= self.max_shared => Part::Alone,
            Entry::Vacant(vacant) => {
                let id = self.new_id();
                vacant.insert(Slot {
                    current: Flight {
                        id,
                        sent: Some(self.sent_now()),
                        waiters: None,
                    },
                    trailing: None,
                });
                Part::Lead(id)
            }
            Entry::Occupied(occupied) => {
                let slot = occupied.into_mut();
                if self.serves(&slot.current, accepted_at) {
                    return Part::Follow(slot.current.subscribe());
                }
                if let Some(trailing) = &mut slot.trailing {
                    return Part::Follow(trailing.subscribe());
                }
                let id = self.new_id();
                slot.trailing = Some(Flight {
                    id,
                    sent: None,
                    waiters: None,
                });
                Part::LeadTrailing(id, slot.current.subscribe())
            }
        }
    }

    fn serves(&self, flight: &Flight<S>, accepted_at: Timestamp) -> bool {
        let Some(sent) = flight.sent else {
            return true;
        };
        // If the wall clock was set back since, "earlier" by that clock means nothing.
        let elapsed_ms = self.clock.monotonic_ms() - sent.monotonic_ms;
        let stepped_back = self.clock.now().as_unix_ms() + CLOCK_TOLERANCE_MS < sent.at.as_unix_ms() + elapsed_ms;
        accepted_at < sent.at && !stepped_back
    }

    fn mark_sent(&self, key: &ReadKey, id: u64) {
        let mut slots = self.lock();
        if let Some(slot) = slots.get_mut(key)
            && slot.current.id == id
        {
            slot.current.sent = Some(self.sent_now());
        }
    }

    /// Ends flight `id`: promotes the trailing one or removes the slot, then tells the followers, if there are any.
    fn end(&self, key: &ReadKey, id: u64, landing: impl FnOnce() -> Landing<S>) {
        let ended = {
            let mut slots = self.lock();
            let Some(slot) = slots.get_mut(key) else {
                return;
            };
            if slot.current.id == id {
                match slot.trailing.take() {
                    Some(trailing) => Some(std::mem::replace(&mut slot.current, trailing)),
                    None => slots.remove(key).map(|slot| slot.current),
                }
            } else if slot.trailing.as_ref().is_some_and(|t| t.id == id) {
                slot.trailing.take()
            } else {
                None
            }
        };
        if let Some(waiters) = ended.and_then(|flight| flight.waiters) {
            waiters.send_replace(landing());
        }
    }

    fn sent_now(&self) -> SentMark {
        SentMark {
            at: self.clock.now(),
            monotonic_ms: self.clock.monotonic_ms(),
        }
    }

    fn new_id(&self) -> u64 {
        self.next_flight.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ReadKey, Slot<S>>> {
        // Each critical section leaves the map whole, so a panic elsewhere does not spoil it.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Flight<T> {
    fn subscribe(&mut self) -> watch::Receiver<Landing<T>> {
        self.waiters
            .get_or_insert_with(|| watch::channel(Landing::Open).0)
            .subscribe()
    }
}

/// Waits for a flight to land; `None` when its leader was dropped.
async fn landed<T: Clone>(mut flight: watch::Receiver<Landing<T>>) -> Option<T> {
    loop {
        match &*flight.borrow_and_update() {
            Landing::Result(result) => return Some(result.clone()),
            Landing::Abandoned => return None,
            Landing::Open => {}
        }
        if flight.changed().await.is_err() {
            // The sender is dropped only after its last word, unless the coalescer itself is going away.
            return match &*flight.borrow() {
                Landing::Result(result) => Some(result.clone()),
                Landing::Abandoned | Landing::Open => None,
            };
        }
    }
}

/// A leader's hold on its flight. Dropping it without landing abandons the flight.
struct Place<'a, S: Clone> {
    coalescer: &'a Coalescer<S>,
    key: &'a ReadKey,
    id: u64,
    landed: bool,
}

impl<'a, S: Clone> Place<'a, S> {
    fn hold(coalescer: &'a Coalescer<S>, key: &'a ReadKey, id: u64) -> Self {
        Place {
            coalescer,
            key,
            id,
            landed: false,
        }
    }

    fn land(mut self, shared: impl FnOnce() -> S) {
        self.landed = true;
        self.coalescer.end(self.key, self.id, || Landing::Result(shared()));
    }
}

impl<S: Clone> Drop for Place<'_, S> {
    fn drop(&mut self) {
        if !self.landed {
            self.coalescer.end(self.key, self.id, || Landing::Abandoned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use crate::clock::ManualClock;
    use tokio::sync::Semaphore;

    /// A read that counts its requests and answers with the request's number once the gate lets it.
    struct Upstream {
        clock: Arc<ManualClock>,
        coalescer: Arc<Coalescer<usize>>,
        sent: Arc<AtomicUsize>,
        gate: Arc<Semaphore>,
    }

    type Caller = tokio::task::JoinHandle<Served<usize, usize>>;

    impl Upstream {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::new(Timestamp::from_unix_ms(1_000)));
            Upstream {
                coalescer: Arc::new(Coalescer::new(clock.clone())),
                clock,
                sent: Arc::default(),
                gate: Arc::new(Semaphore::new(0)),
            }
        }

        fn now(&self) -> i64 {
            self.clock.now().as_unix_ms()
        }

        /// Starts a caller whose event was accepted at `accepted_ms` and lets it get as far as it can.
        async fn call(&self, accepted_ms: i64) -> Caller {
            let (coalescer, sent, gate) = (self.coalescer.clone(), self.sent.clone(), self.gate.clone());
            let caller = tokio::spawn(async move {
                let send = || async {
                    let number = sent.fetch_add(1, Ordering::SeqCst) + 1;
                    gate.acquire().await.unwrap().forget();
                    number
                };
                let accepted_at = Timestamp::from_unix_ms(accepted_ms);
                coalescer.read(key("1"), accepted_at, send, |number| *number).await
            });
            settle().await;
            caller
        }

        fn requests(&self) -> usize {
            self.sent.load(Ordering::SeqCst)
        }

        async fn answer(&self) {
            self.gate.add_permits(1);
            settle().await;
        }

        fn is_empty(&self) -> bool {
            self.coalescer.lock().is_empty()
        }
    }

    static CONNECTION: LazyLock<Identity> = LazyLock::new(Identity::default);

    fn key(id: &str) -> ReadKey {
        ReadKey {
            connection: CONNECTION.clone(),
            operation: "invoices.get".to_owned(),
            args: Document::from_value(serde_json::json!({ "id": id })),
            all_max: None,
            class: Class::Live,
        }
    }

    /// Lets every ready task of this single-threaded runtime run until it waits.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn events_accepted_before_the_request_share_it_and_later_ones_share_one_trailing_read() {
        let upstream = Upstream::new();
        let leader = upstream.call(900).await;
        let early = upstream.call(999).await;
        upstream.clock.advance(Duration::from_millis(5));
        let mut late = Vec::new();
        for _ in 0..20 {
            late.push(upstream.call(upstream.now()).await);
        }
        assert_eq!(upstream.requests(), 1, "the trailing read waits for the current one");
        upstream.answer().await;
        assert_eq!(leader.await.unwrap(), Served::Led(1));
        assert_eq!(early.await.unwrap(), Served::Followed(1));
        assert_eq!(upstream.requests(), 2);
        upstream.answer().await;
        let results: Vec<_> = futures::future::join_all(late)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(results.iter().filter(|served| **served == Served::Led(2)).count(), 1);
        assert_eq!(
            results.iter().filter(|served| **served == Served::Followed(2)).count(),
            19
        );
        assert!(upstream.is_empty());
    }

    #[tokio::test]
    async fn an_event_of_the_same_millisecond_does_not_share() {
        let upstream = Upstream::new();
        let leader = upstream.call(900).await;
        let same = upstream.call(1_000).await;
        upstream.answer().await;
        upstream.answer().await;
        assert_eq!(leader.await.unwrap(), Served::Led(1));
        assert_eq!(same.await.unwrap(), Served::Led(2));
    }

    #[tokio::test]
    async fn arrivals_during_the_trailing_read_get_a_third() {
        let upstream = Upstream::new();
        let first = upstream.call(900).await;
        let second = upstream.call(1_000).await;
        upstream.answer().await;
        upstream.clock.advance(Duration::from_millis(10));
        let third = upstream.call(upstream.now()).await;
        upstream.answer().await;
        upstream.answer().await;
        for (number, caller) in (1..).zip([first, second, third]) {
            assert_eq!(caller.await.unwrap(), Served::Led(number));
        }
        assert!(upstream.is_empty());
    }

    #[tokio::test]
    async fn a_dropped_leader_strands_nobody() {
        let upstream = Upstream::new();
        let leader = upstream.call(900).await;
        let follower = upstream.call(950).await;
        let trailing_leader = upstream.call(2_000).await;
        let trailing_follower = upstream.call(2_000).await;
        leader.abort();
        settle().await;
        trailing_leader.abort();
        settle().await;
        for _ in 0..3 {
            upstream.answer().await;
        }
        assert!(follower.await.is_ok());
        assert!(trailing_follower.await.is_ok());
        assert!(upstream.is_empty());
    }

    #[tokio::test]
    async fn nothing_is_shared_after_the_clock_was_set_back() {
        let upstream = Upstream::new();
        let leader = upstream.call(900).await;
        upstream.clock.set(Timestamp::from_unix_ms(400));
        // Accepted after the request by any true clock, before it by this one.
        let later = upstream.call(500).await;
        upstream.answer().await;
        upstream.answer().await;
        assert_eq!(leader.await.unwrap(), Served::Led(1));
        assert_eq!(later.await.unwrap(), Served::Led(2));
    }

    #[tokio::test]
    async fn different_keys_share_nothing_and_a_full_map_still_reads() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_unix_ms(1_000)));
        let mut coalescer = Coalescer::new(clock);
        coalescer.max_shared = 1;
        let early = Timestamp::from_unix_ms(1);
        let inner = coalescer.read(key("2"), early, || async { 7 }, |seven| *seven);
        let outer = coalescer.read(key("1"), early, || inner, |_| 0).await;
        assert_eq!(outer, Served::Led(Served::Led(7)));
        assert!(coalescer.lock().is_empty());
    }
}
