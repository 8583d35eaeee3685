//! The task behind the door: takes what is queued, packs it into transactions, answers each fact.
//!
//! It never waits for more to come. When a batch fails because of one fact, the batch is split in halves until
//! that fact stands alone. A commit whose result is unknown is never repeated. While the database is away, facts
//! are answered at once instead of piling up, and the connection is tried again with growing pauses.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use weir_workflow_engine::RunId;

use super::checkpoint::Checkpoints;
use super::connection::Connection;
use super::failure::{Failure, Offence};
use super::gates::Moved;
use super::prepare::{Control, Row, Work};
use super::seed::{self, Target};
use super::{
    Queued, Shared, backfill, config, control, grant, mail, operate, outgoing, postgres, registration, retention,
    sqlite, sweep,
};
use crate::fact::Prune;
use crate::mail::RequestOutcome;
use crate::node::{Fence, NodeIdentity};
use crate::outcome::{AcceptOutcome, ConfigOutcome, FactOutcome, WriteError};

/// Bytes of bodies in one transaction, above which the rest waits for the next.
const BATCH_BYTES: usize = 16 << 20;
/// How often a batch is tried when others are in the way. Each try may wait two seconds for a lock, and the lease
/// holds for five.
const CONTENDED_TRIES: u32 = 2;
/// Pauses between attempts to connect, the first and the longest: well below a lease, so that every node is back before
/// another one may take it for dead.
const RECONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// A statement that takes longer than this never comes back: the server's own limit is shorter.
const STATEMENT_LIMIT: Duration = Duration::from_secs(15);

/// What became of one row of a committed batch.
#[derive(Debug)]
pub(crate) enum Verdict {
    Accepted(AcceptOutcome),
    Started,
    Written,
    Stale,
    /// Not written: the configuration has this revision, and a later one than the event was routed by.
    Outdated(i64),
}

/// A committed batch.
#[derive(Debug)]
pub(crate) struct Written {
    /// What became of each row.
    pub(crate) verdicts: Vec<Verdict>,
    /// Runs of this node that got mail.
    pub(crate) mailed: Vec<RunId>,
    /// What became of runs at gates.
    pub(crate) moved: Moved,
}

/// Why the task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterEnd {
    /// Every [`Writer`](super::Writer) was dropped, and what they submitted is answered.
    Closed,
    /// Another process took this node's place: stop working.
    Fenced,
    /// The writer's thread could not be started or panicked; nothing can be written any more.
    Broken,
}

/// The writer's work, to be spawned by the caller: `tokio::spawn(task.run())`.
#[derive(Debug)]
pub struct WriterTask {
    receiver: mpsc::UnboundedReceiver<Queued>,
    shared: Arc<Shared>,
    target: Target,
    /// Which history of the data the node registered in.
    lineage: Option<String>,
    node: NodeIdentity,
    connection: Option<Connection>,
    checkpoints: Option<Checkpoints>,
    failed_connects: u32,
    next_connect: Option<Instant>,
    connect_error: String,
}

impl WriterTask {
    pub(super) fn new(
        receiver: mpsc::UnboundedReceiver<Queued>,
        shared: Arc<Shared>,
        (target, lineage): (Target, Option<String>),
        node: NodeIdentity,
        connection: Connection,
    ) -> Self {
        Self {
            receiver,
            shared,
            target,
            lineage,
            node,
            connection: Some(connection),
            checkpoints: None,
            failed_connects: 0,
            next_connect: None,
            connect_error: String::new(),
        }
    }

    /// Writes until every [`Writer`](super::Writer) is dropped or the node is fenced. Dropping the future while
    /// facts are under way leaves their results unknown.
    pub async fn run(mut self) -> WriterEnd {
        let Target::Sqlite(target) = &self.target else {
            return self.serve().await;
        };
        // SQLite blocks, so it gets a thread; a second one copies the log back into the database.
        self.checkpoints = Checkpoints::start(target);
        let runtime = tokio::runtime::Handle::current();
        let (ended, end) = oneshot::channel();
        let thread = std::thread::Builder::new().name("weir-writer".to_owned());
        let spawned = thread.spawn(move || {
            let end = runtime.block_on(self.serve());
            if let Some(Connection::Sqlite(connection)) = &mut self.connection {
                super::checkpoint::fold_in(connection);
            }
            // The file is let go before anybody hears of the end.
            drop(self);
            // The task that waited may be gone; the work is done either way.
            ended.send(end).ok();
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "the writer's thread cannot be started");
            return WriterEnd::Broken;
        }
        end.await.unwrap_or(WriterEnd::Broken)
    }

    async fn serve(&mut self) -> WriterEnd {
        let most = self.shared.limits.max_batch.max(1);
        let mut items = Vec::with_capacity(most);
        loop {
            let connect_at = self.next_connect;
            let connect = async {
                match connect_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let received = tokio::select! {
                biased;
                received = self.receiver.recv_many(&mut items, most) => received,
                () = connect => {
                    if let Err(failure) = self.connect().await {
                        self.failed(failure).await;
                        return self.fenced();
                    }
                    continue;
                }
                () = self.shared.closing.notified() => {
                    self.receiver.close();
                    continue;
                }
            };
            if received == 0 {
                return WriterEnd::Closed;
            }
            if let Some(checkpoints) = &mut self.checkpoints
                && let Some(Connection::Sqlite(connection)) = &mut self.connection
            {
                checkpoints.between_batches(connection);
            }
            if self.take(&mut items).await.is_err() {
                return self.fenced();
            }
        }
    }

    /// Writes what was received, in its order. `Err` when the node is fenced.
    async fn take(&mut self, items: &mut Vec<Queued>) -> Result<(), ()> {
        let mut groups = group(items).into_iter();
        while let Some(mut group) = groups.next() {
            let alone = matches!(
                group.first(),
                Some(Queued {
                    work: Work::Alone(_),
                    ..
                })
            );
            let taken = match group.pop() {
                Some(item) if alone => self.alone(item).await,
                Some(item) => {
                    group.push(item);
                    self.batch(group).await
                }
                None => Ok(()),
            };
            if taken.is_err() {
                groups
                    .flatten()
                    .for_each(|item| self.answer(item, Err(WriteError::Fenced)));
                return Err(());
            }
        }
        Ok(())
    }

    async fn batch(&mut self, batch: Vec<Queued>) -> Result<(), ()> {
        let mut parts = vec![batch];
        let mut contended = 0;
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.write(&rows(&part)).await {
                Ok(written) => self.committed(part, written),
                Err(Failure::Fact(offence)) if part.len() == 1 => {
                    let error = match offence {
                        Offence::Journal => WriteError::Stale,
                        Offence::Other(constraint) => WriteError::Refused(constraint),
                    };
                    part.into_iter().for_each(|item| self.answer(item, Err(error.clone())));
                }
                Err(Failure::Fact(_)) => {
                    let second = part.split_off(part.len() / 2);
                    parts.push(second);
                    parts.push(part);
                }
                Err(Failure::Contended(reason)) => {
                    contended += 1;
                    if contended < CONTENDED_TRIES {
                        tracing::debug!(reason, "a batch met others and is tried again");
                        parts.push(part);
                    } else {
                        self.shared.failed(&reason);
                        part.into_iter()
                            .for_each(|item| self.answer(item, Err(WriteError::Unavailable)));
                    }
                }
                Err(failure) => {
                    let error = self.failed(failure).await;
                    let fenced = error == WriteError::Fenced;
                    part.into_iter().for_each(|item| self.answer(item, Err(error.clone())));
                    if fenced {
                        parts
                            .into_iter()
                            .flatten()
                            .for_each(|item| self.answer(item, Err(WriteError::Fenced)));
                        return Err(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn alone(&mut self, item: Queued) -> Result<(), ()> {
        let Work::Alone(control) = &item.work else {
            return Ok(());
        };
        let result = match self.control(control).await {
            Ok((outcome, moved)) => {
                self.shared.succeeded();
                self.shared.moved(&moved);
                if let (Control::Request(request), FactOutcome::Request(RequestOutcome::Delivered)) =
                    (control, &outcome)
                {
                    // Another node's run is found by that node.
                    self.shared.mailed(&[request.run]);
                }
                if let Control::Operate(operation) = control {
                    self.shared.mailed(&operation.mailed());
                }
                self.shared.counters.commits.fetch_add(1, Ordering::Relaxed);
                if matches!(control, Control::Prune(Prune::Refused { .. })) {
                    self.shared.refused_details.store(0, Ordering::Relaxed);
                }
                Ok(outcome)
            }
            Err(Failure::Fact(Offence::Other(constraint))) => Err(WriteError::Refused(constraint)),
            Err(Failure::Fact(Offence::Journal)) => Err(WriteError::Stale),
            Err(failure) => Err(self.failed(failure).await),
        };
        let fenced = result == Err(WriteError::Fenced);
        self.answer(item, result);
        if fenced { Err(()) } else { Ok(()) }
    }

    async fn write(&mut self, rows: &[&Row]) -> Result<Written, Failure> {
        self.connected().await?;
        match &mut self.connection {
            Some(Connection::Sqlite(connection)) => sqlite::write(connection, &self.node, rows),
            Some(Connection::Postgres(connection)) => {
                let writing = postgres::write(connection, &self.node, rows);
                match tokio::time::timeout(STATEMENT_LIMIT, writing).await {
                    Ok(written) => written,
                    Err(elapsed) => Err(Failure::Unknown(format!("no answer: {elapsed}"))),
                }
            }
            None => Err(Failure::NotWritten("there is no connection".to_owned())),
        }
    }

    async fn control(&mut self, control: &Control) -> Result<(FactOutcome, Moved), Failure> {
        self.connected().await?;
        let Some(connection) = &mut self.connection else {
            return Err(Failure::NotWritten("there is no connection".to_owned()));
        };
        let mut moved = Moved::default();
        let work = async {
            match control {
                Control::Heartbeat(beat) => control::heartbeat(connection, &self.node, *beat).await,
                Control::ClaimFree { limit } => control::claim_free(connection, &self.node, *limit).await,
                Control::Request(_)
                | Control::Emit(..)
                | Control::Config(_)
                | Control::Claim { .. }
                | Control::Release { .. }
                | Control::Prune(_)
                | Control::Sweep(_)
                | Control::Backfill(_)
                | Control::Coverage(_)
                | Control::Grant(_)
                | Control::Registration(_)
                | Control::Operate(_) => transaction(connection, &self.node, control, &mut moved).await,
            }
        };
        match tokio::time::timeout(STATEMENT_LIMIT, work).await {
            Ok(done) => done.map(|outcome| (outcome, moved)),
            Err(elapsed) => Err(Failure::Unknown(format!("no answer: {elapsed}"))),
        }
    }

    /// Answers, and hands over in memory. Nothing is answered before everything is handed over.
    fn committed(&mut self, part: Vec<Queued>, written: Written) {
        let Written {
            verdicts,
            mailed,
            moved,
        } = written;
        self.shared.succeeded();
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.committed();
        }
        let counters = &self.shared.counters;
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters
            .facts
            .fetch_add(u64::try_from(part.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.shared.moved(&moved);
        for (mut item, verdict) in part.into_iter().zip(verdicts) {
            let result = match verdict {
                Verdict::Accepted(outcome) => {
                    let counter = match outcome {
                        AcceptOutcome::New => &counters.accepted,
                        AcceptOutcome::Duplicate { .. } => &counters.duplicates,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                    if let Some(after_commit) = item.after_commit.take() {
                        // Somebody else's code must not end everybody's writing.
                        if catch_unwind(AssertUnwindSafe(|| after_commit(&outcome, &moved.held))).is_err() {
                            tracing::error!("the hand-off of an event panicked");
                        }
                    }
                    Ok(FactOutcome::Accepted(outcome))
                }
                Verdict::Started => Ok(FactOutcome::Started {
                    held: held_of(&item.work, &moved.held),
                }),
                Verdict::Written => Ok(FactOutcome::Written),
                Verdict::Stale => Err(WriteError::Stale),
                Verdict::Outdated(revision) => Err(WriteError::Outdated { revision }),
            };
            self.answer(item, result);
        }
        self.shared.mailed(&mailed);
    }

    fn answer(&self, item: Queued, result: Result<FactOutcome, WriteError>) {
        if result.is_err() {
            self.shared.counters.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.leave(item.facts, item.bytes);
        // Whoever asked may have gone; the fact stands.
        drop(item.answer.send(result));
    }

    /// What a failure of the whole transaction means for its facts, and for the connection.
    async fn failed(&mut self, failure: Failure) -> WriteError {
        match failure {
            Failure::Fenced => {
                let why = self.why_fenced().await;
                self.shared.fenced.get_or_init(|| why);
                WriteError::Fenced
            }
            Failure::Unknown(reason) => {
                self.shared.failed(&reason);
                self.disconnect();
                WriteError::Unknown
            }
            Failure::NotWritten(reason) | Failure::Contended(reason) => {
                self.shared.failed(&reason);
                let keep =
                    matches!(&self.connection, Some(Connection::Sqlite(connection)) if connection.is_autocommit());
                if !keep && self.connection.is_some() {
                    self.disconnect();
                }
                WriteError::Unavailable
            }
            // Only a fact that stands alone comes here, and its caller has handled it.
            Failure::Fact(_) => WriteError::Unavailable,
        }
    }

    /// What took the node's place.
    async fn why_fenced(&mut self) -> Fence {
        let Some(connection) = &mut self.connection else {
            return Fence::OtherCopy;
        };
        let looking = control::successor(connection, &self.node);
        match tokio::time::timeout(STATEMENT_LIMIT, looking).await {
            Ok(Ok(why)) => why,
            Ok(Err(_)) | Err(_) => Fence::Unclear,
        }
    }

    fn disconnect(&mut self) {
        self.connection = None;
        self.failed_connects = 0;
        self.next_connect = Some(Instant::now());
    }

    /// Makes sure of a connection, unless the last attempt was just now.
    async fn connected(&mut self) -> Result<(), Failure> {
        if self.connection.is_none() && self.next_connect.is_none_or(|at| at <= Instant::now()) {
            self.connect().await?;
        }
        match self.connection {
            Some(_) => Ok(()),
            None => Err(Failure::NotWritten(self.connect_error.clone())),
        }
    }

    /// # Errors
    /// [`Failure::Fenced`] when another history of the data answers: what this node knows may not be in it.
    async fn connect(&mut self) -> Result<(), Failure> {
        match self.target.connect(Some(&self.node)).await {
            Ok(mut connection) => {
                let found = seed::lineage(&mut connection).await;
                if let (Some(before), Some(now)) = (&self.lineage, &found)
                    && before != now
                {
                    tracing::error!(
                        "the database was replaced by a copy of itself (a failover, {before} is {now} now): commits that the \
                         copy had not received are lost, and this node registers anew"
                    );
                    return Err(Failure::Fenced);
                }
                self.lineage = found.or_else(|| self.lineage.take());
                self.connection = Some(connection);
                self.failed_connects = 0;
                self.next_connect = None;
            }
            Err(error) => {
                self.connect_error = crate::error::with_causes(&error);
                self.shared.failed(&self.connect_error);
                let (first, longest) = RECONNECT_PAUSE;
                let pause = first.saturating_mul(1 << self.failed_connects.min(10)).min(longest);
                self.failed_connects = self.failed_connects.saturating_add(1);
                self.next_connect = Some(Instant::now() + pause);
            }
        }
        Ok(())
    }

    /// Answers whatever is still queued and shuts the door.
    fn fenced(&mut self) -> WriterEnd {
        let why = self.shared.fenced.get().copied().unwrap_or(Fence::Unclear);
        tracing::error!(
            node = self.node.name,
            "node {} is not the one any more that the database knows: {why}",
            self.node.name
        );
        self.receiver.close();
        while let Ok(item) = self.receiver.try_recv() {
            self.answer(item, Err(WriteError::Fenced));
        }
        WriterEnd::Fenced
    }
}

/// Neighbours that share a transaction, up to its size in bytes; what needs its own stands alone.
fn group(items: &mut Vec<Queued>) -> Vec<Vec<Queued>> {
    let mut groups: Vec<Vec<Queued>> = Vec::new();
    let (mut open, mut bytes) = (false, 0);
    for item in items.drain(..) {
        let shared = matches!(item.work, Work::Shared(_));
        bytes = if open && shared { bytes + item.bytes } else { item.bytes };
        match groups.last_mut() {
            Some(group) if open && shared && bytes <= BATCH_BYTES => group.push(item),
            _ => {
                bytes = item.bytes;
                groups.push(vec![item]);
            }
        }
        open = shared;
    }
    groups
}

/// Those runs of a start that may not start.
fn held_of(work: &Work, held: &BTreeSet<RunId>) -> Vec<RunId> {
    match work {
        Work::Shared(Row::Start(runs)) => {
            let ids = runs.iter().map(|run| run.id);
            ids.filter(|run| held.contains(run)).collect()
        }
        Work::Shared(_) | Work::Alone(_) => Vec::new(),
    }
}

fn rows(part: &[Queued]) -> Vec<&Row> {
    let mut rows = Vec::with_capacity(part.len());
    for item in part {
        if let Work::Shared(row) = &item.work {
            rows.push(row);
        }
    }
    rows
}

/// One control in a transaction of its own.
pub(crate) async fn transaction(
    connection: &mut Connection,
    node: &NodeIdentity,
    control: &Control,
    moved: &mut Moved,
) -> Result<FactOutcome, Failure> {
    connection.begin().await?;
    let done = match control {
        Control::Config(change) => match control::prove_lease(connection, node).await {
            Ok(()) => config::apply(connection, change).await.map(FactOutcome::Config),
            Err(failure) => Err(failure),
        },
        Control::Emit(body, event) => outgoing::emit(connection, node, body, event).await,
        Control::Request(request) => mail::request(connection, node, request).await,
        Control::Claim { limit } => control::claim(connection, node, *limit).await,
        Control::Release { limit } => control::release(connection, node, *limit).await,
        Control::Sweep(change) => sweep::apply(connection, node, change).await,
        Control::Backfill(step) => backfill::apply(connection, node, step).await,
        Control::Grant(step) => grant::apply(connection, node, step).await,
        Control::Registration(step) => registration::apply(connection, node, step).await,
        Control::Coverage(counts) => sweep::count(connection, node, counts).await,
        Control::Prune(slice) => retention::prune(connection, node, slice).await,
        Control::Operate(operation) => match control::prove_lease(connection, node).await {
            Ok(()) => operate::apply(connection, node, operation, moved).await,
            Err(failure) => Err(failure),
        },
        // Single statements; they need no transaction around them.
        Control::ClaimFree { limit } => control::claim_free(connection, node, *limit).await,
        Control::Heartbeat(beat) => control::heartbeat(connection, node, *beat).await,
    };
    match done {
        Ok(FactOutcome::Config(conflict @ ConfigOutcome::Conflict { .. })) => {
            if connection.roll_back().await {
                Ok(FactOutcome::Config(conflict))
            } else {
                Err(Failure::NotWritten("a rollback failed".to_owned()))
            }
        }
        Ok(outcome) => {
            connection.commit().await?;
            if matches!(outcome, FactOutcome::Pruned(removed) if removed.rows > 0) {
                connection.give_back_pages();
            }
            Ok(outcome)
        }
        Err(failure) => {
            if connection.roll_back().await {
                Err(failure)
            } else {
                Err(Failure::NotWritten("a rollback failed".to_owned()))
            }
        }
    }
}
