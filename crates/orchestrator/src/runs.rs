//! Which runs are in memory, which wait on disk, and which sleep.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use weir_workflow_engine::{RunId, Timestamp};

use crate::crowding::Crowding;

/// Longest time that an acknowledgement is held back while runs crowd. Providers wait for seconds.
const INTAKE_PATIENCE: Duration = Duration::from_millis(20);
/// Below this share of the memory bound, runs left on disk are loaded again.
const REFILL_BELOW_PERCENT: usize = 50;

/// What a point of priority is worth in milliseconds of waiting.
const PRIORITY_STEP_MS: i64 = 60_000;

/// Runs in memory, runs left on disk, and timers: ids and counters only.
#[derive(Debug)]
pub(crate) struct Runs {
    max_in_memory: usize,
    max_bytes: usize,
    max_backlog: usize,
    crowding: Crowding,
    in_memory: AtomicUsize,
    bytes: AtomicUsize,
    /// Runs that a task drives.
    active: Mutex<HashMap<RunId, Active>>,
    backlog: Mutex<Backlog>,
    backlog_len: AtomicUsize,
    /// Runs that belong to no node, by the last heartbeat.
    free: AtomicUsize,
    /// Other nodes, by the last heartbeat.
    others: AtomicUsize,
    /// Whether one of them drives runs; taken for granted until a heartbeat has looked.
    other_workers: AtomicBool,
    timers: Mutex<BTreeSet<(Timestamp, RunId)>>,
    /// Signalled when there is room for the backlog or an earlier timer.
    pub(crate) wake: Notify,
    /// Signalled when a run leaves memory: an acknowledgement may be waiting for that.
    left: Notify,
}

/// A run that a task drives.
#[derive(Debug)]
struct Active {
    /// When its event was accepted.
    accepted_at: Timestamp,
    mailbox: Arc<Mailbox>,
}

/// Tells the task of a run that there is mail for it.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    waiting: AtomicBool,
    arrived: Notify,
}

impl Mailbox {
    /// Mail has arrived.
    fn tell(&self) {
        self.waiting.store(true, Ordering::Release);
        self.arrived.notify_one();
    }

    /// Whether mail has arrived since the last call.
    pub(crate) fn take(&self) -> bool {
        self.waiting.swap(false, Ordering::AcqRel)
    }

    /// Resolves when mail has arrived.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

/// Runs left on disk, each once; those with the lowest place are taken first.
#[derive(Debug, Default)]
struct Backlog {
    queue: BTreeSet<(i64, RunId)>,
    places: HashMap<RunId, i64>,
}

impl Runs {
    pub(crate) fn new(max_in_memory: usize, max_bytes: usize, max_backlog: usize) -> Self {
        Runs {
            max_in_memory,
            max_bytes,
            max_backlog,
            crowding: Crowding::new(max_in_memory),
            in_memory: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            active: Mutex::default(),
            backlog: Mutex::default(),
            backlog_len: AtomicUsize::new(0),
            free: AtomicUsize::new(0),
            others: AtomicUsize::new(0),
            other_workers: AtomicBool::new(true),
            timers: Mutex::default(),
            wake: Notify::new(),
            left: Notify::new(),
        }
    }

    /// Whether so many accepted runs wait on disk, here or for anybody, that no more are taken.
    pub(crate) fn backlog_is_full(&self) -> bool {
        self.backlog_len.load(Ordering::Relaxed) + self.free.load(Ordering::Relaxed) >= self.max_backlog
    }

    /// Whether runs that waited until their workflow is resumed may join: those that arrive must find room beside them.
    pub(crate) fn has_room_for_held(&self) -> bool {
        let waiting = self.backlog_len.load(Ordering::Relaxed) + self.free.load(Ordering::Relaxed);
        waiting < self.max_backlog / 2
    }

    /// Notes what the heartbeat saw: runs that belong to nobody, how many other nodes there are, and how many of these
    /// drive runs.
    pub(crate) fn note_others(&self, free: u32, others: u32, workers: u32) {
        self.other_workers.store(workers > 0, Ordering::Relaxed);
        self.free
            .store(usize::try_from(free).unwrap_or(usize::MAX), Ordering::Relaxed);
        self.others
            .store(usize::try_from(others).unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// How many other nodes there are, by the last heartbeat.
    pub(crate) fn others(&self) -> u32 {
        u32::try_from(self.others.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }

    /// Whether another node drives runs, by the last heartbeat.
    pub(crate) fn has_other_workers(&self) -> bool {
        self.other_workers.load(Ordering::Relaxed)
    }

    /// Runs that belong to no node, by the last heartbeat.
    pub(crate) fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    /// Whether a new run is better left to whoever has room: there is none here, and others are there.
    pub(crate) fn shares(&self) -> bool {
        self.is_full() && self.others.load(Ordering::Relaxed) > 0
    }

    /// How many runs may be taken that belong to nobody: the room that this node's own do not need.
    pub(crate) fn room_for_others(&self) -> usize {
        self.room().saturating_sub(self.backlog_len.load(Ordering::Relaxed))
    }

    fn is_full(&self) -> bool {
        self.in_memory.load(Ordering::Relaxed) >= self.max_in_memory
            || self.bytes.load(Ordering::Relaxed) >= self.max_bytes
    }

    /// Runs in memory and runs waiting on disk, for the gauges.
    pub(crate) fn depths(&self) -> (usize, usize, usize) {
        (
            self.in_memory.load(Ordering::Relaxed),
            self.backlog_len.load(Ordering::Relaxed),
            lock(&self.timers).len(),
        )
    }

    /// How many more runs may be loaded; zero while memory is more than half full.
    pub(crate) fn room(&self) -> usize {
        let (used, bytes) = (
            self.in_memory.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        );
        let low = used * 100 < self.max_in_memory * REFILL_BELOW_PERCENT
            && bytes * 100 < self.max_bytes * REFILL_BELOW_PERCENT;
        if low { self.max_in_memory - used } else { 0 }
    }

    /// When the oldest event was accepted whose run is being driven.
    pub(crate) fn oldest_accepted(&self) -> Option<Timestamp> {
        lock(&self.active).values().map(|run| run.accepted_at).min()
    }

    /// Notes how long a run waited for the processor before it began.
    pub(crate) fn began(&self, waited: Duration) {
        self.crowding.began(waited, self.in_memory.load(Ordering::Relaxed));
    }

    /// Holds an acknowledgement back for a moment while runs crowd, so that intake, which costs less than a run, cannot
    /// starve the runs of the same processor. Bounded: a slow upstream must not cost a webhook.
    pub(crate) async fn hold_intake(&self) {
        let crowd = || self.in_memory.load(Ordering::Relaxed) >= self.crowding.bound();
        if !crowd() {
            return;
        }
        let until_room = async {
            while crowd() {
                self.left.notified().await;
            }
            // One departure makes room for more than one arrival when several left at once.
            self.left.notify_one();
        };
        // Out of patience: the run is left on disk, and its event is acknowledged all the same.
        let _patience = tokio::time::timeout(INTAKE_PATIENCE, until_room).await;
    }

    /// Claims a place in memory. `None`: it is full, or the run is being driven already.
    pub(crate) fn enter(&self, run: RunId, accepted_at: Timestamp, bytes: usize) -> Option<Arc<Mailbox>> {
        if self.is_full() {
            return None;
        }
        let mailbox = Arc::new(Mailbox::default());
        match lock(&self.active).entry(run) {
            std::collections::hash_map::Entry::Occupied(_) => return None,
            std::collections::hash_map::Entry::Vacant(place) => place.insert(Active {
                accepted_at,
                mailbox: Arc::clone(&mailbox),
            }),
        };
        self.in_memory.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(mailbox)
    }

    /// Counts more bytes for a run in memory; [`Self::leave`] gives them back.
    pub(crate) fn grow(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives a place in memory back, with all the bytes that it counted.
    pub(crate) fn leave(&self, run: RunId, bytes: usize) {
        lock(&self.active).remove(&run);
        self.in_memory.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.left.notify_one();
        self.wake_for_backlog();
    }

    /// Whether a task drives this run now.
    pub(crate) fn is_active(&self, run: RunId) -> bool {
        lock(&self.active).contains_key(&run)
    }

    /// There is mail for these runs of this node: whoever drives one is told, the others are loaded.
    pub(crate) fn mailed(&self, runs: &[RunId]) {
        for run in runs {
            let mailbox = lock(&self.active).get(run).map(|run| Arc::clone(&run.mailbox));
            match mailbox {
                Some(mailbox) => mailbox.tell(),
                None => self.leave_on_disk(*run),
            }
        }
    }

    /// Wakes the loop that loads runs, if some are left on disk and there is room for them.
    ///
    /// Called after either of the two changed. The fence lets two callers at the same moment not both look past what the
    /// other one changed: then nobody would wake the loop, and a run would stay on disk until some other run leaves.
    fn wake_for_backlog(&self) {
        fence(Ordering::SeqCst);
        if self.backlog_len.load(Ordering::Relaxed) > 0 && self.room() > 0 {
            self.wake.notify_one();
        }
    }

    /// Leaves a run on disk until there is room, and has it loaded at once if there is. Once is enough.
    pub(crate) fn leave_on_disk(&self, run: RunId) {
        self.leave_on_disk_with(run, 0);
    }

    /// The same, for a run with a priority: a point of it is worth a minute of waiting, so that nobody waits for ever.
    pub(crate) fn leave_on_disk_with(&self, run: RunId, priority: i32) {
        let mut backlog = lock(&self.backlog);
        if let std::collections::hash_map::Entry::Vacant(place) = backlog.places.entry(run) {
            let place = *place.insert(run.made_at().as_unix_ms() - i64::from(priority) * PRIORITY_STEP_MS);
            backlog.queue.insert((place, run));
        }
        self.backlog_len.store(backlog.queue.len(), Ordering::Relaxed);
        drop(backlog);
        self.wake_for_backlog();
    }

    /// Runs left on disk whose turn it is, at most `limit`.
    pub(crate) fn take_backlog(&self, limit: usize) -> Vec<RunId> {
        let mut backlog = lock(&self.backlog);
        let mut taken = Vec::with_capacity(limit.min(backlog.queue.len()));
        while taken.len() < limit {
            let Some((_, run)) = backlog.queue.pop_first() else {
                break;
            };
            backlog.places.remove(&run);
            taken.push(run);
        }
        self.backlog_len.store(backlog.queue.len(), Ordering::Relaxed);
        taken
    }

    /// Remembers that `run` is due at `due`.
    pub(crate) fn set_timer(&self, due: Timestamp, run: RunId) {
        let mut timers = lock(&self.timers);
        let first = timers.first().copied();
        timers.insert((due, run));
        if first.is_none_or(|(earliest, _)| due < earliest) {
            drop(timers);
            self.wake.notify_one();
        }
    }

    /// Ids whose time has come, and the time of the next one.
    pub(crate) fn take_due(&self, now: Timestamp, limit: usize) -> (Vec<RunId>, Option<Timestamp>) {
        let mut timers = lock(&self.timers);
        let mut due = Vec::new();
        while due.len() < limit {
            match timers.first().copied() {
                Some((at, run)) if at <= now => {
                    timers.pop_first();
                    due.push(run);
                }
                Some(_) | None => break,
            }
        }
        (due, timers.first().map(|(at, _)| *at))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_node_among_others_shares() {
        let runs = Runs::new(4, 1_000, 10);
        let at = Timestamp::from_unix_ms(0);
        (0..4).for_each(|id| assert!(runs.enter(RunId::from_raw(id), at, 1).is_some()));
        assert!(!runs.shares(), "there is nobody else");
        runs.note_others(0, 1, 1);
        assert!(runs.shares());
        runs.leave(RunId::from_raw(0), 1);
        assert!(!runs.shares());
    }

    #[test]
    fn runs_beyond_the_bytes_wait_on_disk() {
        let max_run_bytes_in_memory = crate::Settings::default().max_run_bytes_in_memory;
        let runs = Runs::new(1_000, max_run_bytes_in_memory, 10);
        let (run, at) = (RunId::from_raw, Timestamp::from_unix_ms(0));
        assert!(runs.enter(run(1), at, max_run_bytes_in_memory - 10).is_some());
        // The last one may be larger than what is left: else a large event would never find room.
        assert!(runs.enter(run(2), at, 20).is_some());
        assert!(runs.enter(run(3), at, 1).is_none());
        runs.leave(run(2), 20);
        assert!(runs.enter(run(3), at, 1).is_some());
    }

    #[test]
    fn a_run_that_is_left_on_disk_while_there_is_room_is_loaded_at_once() {
        let runs = Runs::new(4, 1_000, 10);
        let is_woken = || futures::FutureExt::now_or_never(runs.wake.notified()).is_some();
        let (one, at) = (RunId::from_raw(1), Timestamp::from_unix_ms(0));
        // As its task does that has to read it again: nothing else is in memory that could leave later.
        assert!(runs.enter(one, at, 1).is_some());
        runs.leave(one, 1);
        assert!(!is_woken(), "nothing is left on disk");
        runs.leave_on_disk(one);
        assert!(is_woken());
        assert_eq!(runs.take_backlog(4), [one]);
        // While memory is full, whoever makes room wakes.
        (2..6).for_each(|id| assert!(runs.enter(RunId::from_raw(id), at, 1).is_some()));
        runs.leave_on_disk(one);
        assert!(!is_woken());
        (2..5).for_each(|id| runs.leave(RunId::from_raw(id), 1));
        assert!(is_woken());
    }

    #[test]
    fn what_nobody_has_taken_counts_for_the_backlog_and_own_work_comes_first() {
        let runs = Runs::new(8, 1_000, 10);
        assert_eq!(runs.room_for_others(), 8);
        (0..6).for_each(|id| runs.leave_on_disk(RunId::from_raw(id)));
        assert_eq!(runs.room_for_others(), 2);
        assert!(!runs.backlog_is_full());
        runs.note_others(4, 0, 0);
        assert!(runs.backlog_is_full());
    }
}
