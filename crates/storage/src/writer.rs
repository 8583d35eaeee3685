//! The one door for durable writes.
//!
//! Facts are queued without waiting, packed into transactions by one task, and answered one by one. The door is
//! bounded in number and bytes and says [`Full`] instead of waiting; work that is under way has a reserve of half
//! as much again, so that intake never starves the runs it started. What was submitted is written even if nobody
//! waits for the answer.

mod backfill;
mod checkpoint;
mod config;
pub(crate) mod connection;
pub(crate) mod control;
mod dedupe;
pub(crate) mod failure;
pub(crate) mod gates;
mod grant;
mod mail;
mod operate;
mod outgoing;
mod postgres;
pub(crate) mod prepare;
mod registration;
mod retention;
pub(crate) mod seed;
pub(crate) mod sqlite;
mod sweep;
pub(crate) mod task;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use weir_workflow_engine::{RunId, Timestamp};

pub(crate) use connection::Dialect;
pub use dedupe::{DEDUPE_DAYS, REMEMBERED_DAYS};
pub use seed::WriterSeed;
pub use task::{WriterEnd, WriterTask};

use crate::fact::{AfterCommit, Fact};
use crate::node::Fence;
use crate::outcome::{Constraint, FactOutcome, Full, WriteError};
use prepare::Work;

/// How much may wait in the queue, and how much goes into one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterLimits {
    /// Facts that may wait. Default 4,096: about half a second at full speed.
    ///
    /// Limit: facts in the queue before the database; work under way has half as much again | 503 with `Retry-After` | `the_queue_is_bounded` | `weir_writer_queue_facts`
    pub max_facts: usize,
    /// Bytes that may wait. Default 64 MiB: bodies, not facts, fill the memory.
    ///
    /// Limit: bytes in the queue before the database; work under way has half as much again | 503 with `Retry-After` | `the_queue_is_bounded` | `weir_writer_queue_bytes`
    pub max_bytes: usize,
    /// Facts of one transaction. Default 512: beyond that a larger batch saves nothing.
    pub max_batch: usize,
}

impl Default for WriterLimits {
    fn default() -> Self {
        Self {
            max_facts: 4096,
            max_bytes: 64 << 20,
            max_batch: 512,
        }
    }
}

/// Hands facts to the writer's task. Clones share one queue; the task ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    sender: mpsc::UnboundedSender<Queued>,
}

/// What the task and its doors know of each other.
#[derive(Debug)]
pub(crate) struct Shared {
    limits: WriterLimits,
    facts: AtomicUsize,
    bytes: AtomicUsize,
    /// Why the node is not the one any more that the database knows, once it is not.
    fenced: OnceLock<Fence>,
    closing: Notify,
    failing: Mutex<Option<(Instant, String)>>,
    /// Refused requests since the last slice of their retention: a flood of them must not fill the disk before it.
    refused_details: AtomicI64,
    counters: Counters,
    on_mail: OnceLock<OnMail>,
    on_turn: OnceLock<OnTurn>,
}

/// Called with runs of this node that have got mail.
struct OnMail(Box<HandOver>);

type HandOver = dyn Fn(&[RunId]) + Send + Sync;

/// Called with runs of this node whose turn it is, and with those that wait until some time.
struct OnTurn(Box<TurnHandOver>);

type TurnHandOver = dyn Fn(&[RunId], &[(RunId, Timestamp)]) + Send + Sync;

impl std::fmt::Debug for OnTurn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("OnTurn")
    }
}

impl std::fmt::Debug for OnMail {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("OnMail")
    }
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    facts: AtomicU64,
    accepted: AtomicU64,
    duplicates: AtomicU64,
    failed: AtomicU64,
    lane_full: AtomicU64,
}

/// One fact on its way.
pub(crate) struct Queued {
    work: Work,
    after_commit: Option<AfterCommit>,
    facts: usize,
    bytes: usize,
    answer: oneshot::Sender<Result<FactOutcome, WriteError>>,
}

impl std::fmt::Debug for Queued {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Queued")
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}

/// The answer to come. Dropping it withdraws nothing.
#[derive(Debug)]
pub struct Pending(State);

#[derive(Debug)]
enum State {
    Waiting(oneshot::Receiver<Result<FactOutcome, WriteError>>),
    Known(WriteError),
}

impl Future for Pending {
    type Output = Result<FactOutcome, WriteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            // A task that went away without an answer may have been in the middle of a commit.
            State::Waiting(receiver) => Pin::new(receiver)
                .poll(context)
                .map(|answer| answer.unwrap_or(Err(WriteError::Unknown))),
            State::Known(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

/// Whether commits succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriterHealth {
    /// The last commit succeeded.
    Healthy,
    /// Commits fail.
    Failing {
        /// For how long.
        since: Duration,
        /// Why, in the database's words.
        reason: String,
    },
    /// This process is not the node any more that the database knows: it must stop.
    Fenced {
        /// Why.
        why: Fence,
    },
}

/// Totals since the writer started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterStatistics {
    /// Transactions committed.
    pub commits: u64,
    /// Facts in them.
    pub facts: u64,
    /// New events.
    pub accepted: u64,
    /// Events seen before.
    pub duplicates: u64,
    /// Facts answered with an error.
    pub failed: u64,
    /// Runs for which their lanes had no room.
    pub lane_full: u64,
}

impl Writer {
    fn new(limits: WriterLimits) -> (Self, mpsc::UnboundedReceiver<Queued>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared = Shared {
            limits,
            facts: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            fenced: OnceLock::new(),
            closing: Notify::new(),
            failing: Mutex::new(None),
            refused_details: AtomicI64::new(0),
            counters: Counters::default(),
            on_mail: OnceLock::new(),
            on_turn: OnceLock::new(),
        };
        (
            Self {
                shared: Arc::new(shared),
                sender,
            },
            receiver,
        )
    }

    /// Has `hand_over` called with runs of this node that have got mail, right after the commit that left it. It must
    /// not block. Only the first call counts.
    pub fn on_mail(&self, hand_over: impl Fn(&[RunId]) + Send + Sync + 'static) {
        let first = self.shared.on_mail.set(OnMail(Box::new(hand_over)));
        debug_assert!(first.is_ok(), "there is one hand-over of mail");
    }

    /// Has `hand_over` called with runs that waited for their turn and now are this node's to start, and with runs of this
    /// node that wait until some time at most, right after the commit that decided it. It must not block. Only the first
    /// call counts.
    pub fn on_turn(&self, hand_over: impl Fn(&[RunId], &[(RunId, Timestamp)]) + Send + Sync + 'static) {
        let first = self.shared.on_turn.set(OnTurn(Box::new(hand_over)));
        debug_assert!(first.is_ok(), "there is one hand-over of runs whose turn it is");
    }

    /// Queues a fact. Never waits. Bodies are compressed here, on the caller's thread.
    ///
    /// # Errors
    /// [`Full`] when the queue has no room; nothing was queued then. Heartbeats, claims, changes of the
    /// configuration and retention always have room: they are few, and the node lives by them.
    pub fn submit(&self, fact: Fact) -> Result<Pending, Full> {
        let limits = self.shared.limits;
        let share = Share::of(&fact);
        let (room_facts, room_bytes) = match share {
            Share::Intake => (limits.max_facts, limits.max_bytes),
            Share::UnderWay => (
                limits.max_facts + limits.max_facts / 2,
                limits.max_bytes + limits.max_bytes / 2,
            ),
            Share::Control => (usize::MAX, usize::MAX),
        };
        let (facts_now, bytes_now) = self.queue_depth();
        if facts_now >= room_facts || bytes_now >= room_bytes {
            return Err(Full {
                facts: facts_now,
                bytes: bytes_now,
            });
        }
        let refused_in_detail = matches!(fact, Fact::Refused(_))
            && self.shared.refused_details.fetch_add(1, Ordering::Relaxed) < retention::REFUSED_MAX_ROWS;
        let (work, after_commit) = Work::prepare(fact, refused_in_detail);
        let (facts, bytes) = work.weight();
        if bytes > limits.max_bytes && !matches!(share, Share::Control) {
            let limit = limits.max_bytes;
            return Ok(Pending(State::Known(WriteError::Refused(Constraint::TooLarge {
                bytes,
                limit,
            }))));
        }
        let facts_before = self.shared.facts.fetch_add(facts, Ordering::Relaxed);
        let bytes_before = self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        if facts_before.saturating_add(facts) > room_facts || bytes_before.saturating_add(bytes) > room_bytes {
            self.shared.leave(facts, bytes);
            return Err(Full {
                facts: facts_before,
                bytes: bytes_before,
            });
        }
        let (answer, receiver) = oneshot::channel();
        if self
            .sender
            .send(Queued {
                work,
                after_commit,
                facts,
                bytes,
                answer,
            })
            .is_err()
        {
            self.shared.leave(facts, bytes);
            return Ok(Pending(State::Known(if self.shared.fenced.get().is_some() {
                WriteError::Fenced
            } else {
                WriteError::Unavailable
            })));
        }
        Ok(Pending(State::Waiting(receiver)))
    }

    /// Shuts the door: what is queued is still written, then the task ends. What comes later is answered with
    /// [`WriteError::Unavailable`].
    pub fn close(&self) {
        self.shared.closing.notify_one();
    }

    /// What waits for its commit, or is in it: facts and bytes.
    pub fn queue_depth(&self) -> (usize, usize) {
        (
            self.shared.facts.load(Ordering::Relaxed),
            self.shared.bytes.load(Ordering::Relaxed),
        )
    }

    /// Whether commits succeed, for `/readyz`.
    pub fn health(&self) -> WriterHealth {
        if let Some(why) = self.shared.fenced.get() {
            return WriterHealth::Fenced { why: *why };
        }
        match &*self.shared.failing.lock().unwrap_or_else(PoisonError::into_inner) {
            None => WriterHealth::Healthy,
            Some((since, reason)) => WriterHealth::Failing {
                since: since.elapsed(),
                reason: reason.clone(),
            },
        }
    }

    /// Totals, for `/metrics`.
    pub fn statistics(&self) -> WriterStatistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        WriterStatistics {
            commits: read(&counters.commits),
            facts: read(&counters.facts),
            accepted: read(&counters.accepted),
            duplicates: read(&counters.duplicates),
            failed: read(&counters.failed),
            lane_full: read(&counters.lane_full),
        }
    }
}

/// Which part of the queue a fact may use.
#[derive(Clone, Copy)]
enum Share {
    Intake,
    UnderWay,
    Control,
}

impl Share {
    fn of(fact: &Fact) -> Self {
        match fact {
            Fact::Accept(_) | Fact::Start(_) | Fact::Refused(_) | Fact::RefusedFurther(_) => Self::Intake,
            Fact::Run(_) | Fact::Request(_) | Fact::Emit(_) | Fact::Turn(_) | Fact::Operate(_) => Self::UnderWay,
            Fact::Config(_)
            | Fact::Heartbeat(_)
            | Fact::Claim { .. }
            | Fact::ClaimFree { .. }
            | Fact::Release { .. }
            | Fact::Prune(_)
            | Fact::Sweep(_)
            | Fact::Backfill(_)
            | Fact::Grant(_)
            | Fact::Registration(_)
            | Fact::Coverage(_) => Self::Control,
        }
    }
}

impl Shared {
    /// Hands over mail in memory. What nobody hears is found by the heartbeat.
    fn mailed(&self, runs: &[RunId]) {
        if let (Some(OnMail(hand_over)), false) = (self.on_mail.get(), runs.is_empty()) {
            hand_over(runs);
        }
    }

    /// Hands over runs whose turn it is. What nobody hears is found by the next look for open and due runs.
    fn moved(&self, moved: &gates::Moved) {
        self.counters.lane_full.fetch_add(moved.lane_full, Ordering::Relaxed);
        let news = !moved.released.is_empty() || !moved.due.is_empty();
        if let (Some(OnTurn(hand_over)), true) = (self.on_turn.get(), news) {
            hand_over(&moved.released, &moved.due);
        }
    }

    fn leave(&self, facts: usize, bytes: usize) {
        self.facts.fetch_sub(facts, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn succeeded(&self) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, _)) = failing.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(failed_for_s = seconds, "commits succeed again after {seconds} s");
        }
    }

    fn failed(&self, reason: &str) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *failing {
            Some((_, known)) => reason.clone_into(known),
            None => {
                tracing::error!(reason, "commits fail: {reason}");
                *failing = Some((Instant::now(), reason.to_owned()));
            }
        }
    }
}
