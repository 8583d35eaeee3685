//! Reads the lists of backfills and puts the events of their ranges through the door, behind live events.

use super::ask::readable;
use super::range::{MAX_BACKFILL_PAGES, Next, Range, Walk};
use crate::budget::Class;
use crate::connection::Connection;
use crate::ingest::EndpointRef;
use crate::perform::ListPage;
use crate::repair::bulk::BULK_IN_FLIGHT;
use crate::service::Core;
use crate::snapshot::Endpoint;
use crate::sweeps::door::{ListDoor, Stop};
use crate::sweeps::pass::PAGE_TIMEOUT;
use crate::sweeps::place::{REMEMBERED, Seen, SeenItem, earlier};
use crate::sweeps::plan::{GO_ON, SweepOutcome, pause};
use futures::FutureExt as _;
use serde_json::Value;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use weir_connector_sdk::{Identified, Recover, Webhook};
use weir_storage::{BackfillLetGo, BackfillMove, BackfillRow, BackfillStatus, BackfillStep, Fact, WriteError};
use weir_workflow_engine::{BackfillId, CallFailure, EventSource, RunId, Timestamp};

/// Backfills that a node reads at the same time; others wait until one of them is over, paused or has failed a try.
///
/// Limit: backfills that a server reads at a time | the others wait | `backfills_wait_for_each_other`
pub const MAX_BACKFILLS_AT_ONCE: usize = 4;
/// Pause before the next look whether there is room.
const CALM_PAUSE: Duration = Duration::from_millis(50);
/// Pause after a write that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Looks for room between two looks whether somebody paused it.
const LOOKS_PER_ROW: u32 = 20;

/// Why a backfill is not read any further now.
enum End {
    /// The range is read.
    Complete,
    /// It cannot go on, ever.
    Failed(String),
    /// For now.
    Stopped(Stop),
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        End::Stopped(stop)
    }
}

/// Takes up backfills until the process stops.
pub(crate) async fn work(core: Arc<Core>) {
    let mut reading: JoinSet<BackfillId> = JoinSet::new();
    let mut mine: BTreeSet<BackfillId> = BTreeSet::new();
    loop {
        tokio::select! {
            () = core.stopping.cancelled() => break,
            () = core.backfills.notified() => {}
            Some(over) = reading.join_next(), if !reading.is_empty() => match over {
                Ok(id) => {
                    mine.remove(&id);
                }
                Err(error) => tracing::error!("a backfill's task ended: {error}"),
            },
        }
        if reading.is_empty() {
            mine.clear();
        }
        let ready = match core.store.backfills_ready(&core.node).await {
            Ok(ready) => ready,
            Err(error) => {
                tracing::warn!("backfills cannot be listed, trying again later: {error}");
                continue;
            }
        };
        for row in ready {
            if reading.len() < MAX_BACKFILLS_AT_ONCE && mine.insert(row.id) {
                reading.spawn(one(Arc::clone(&core), row));
            }
        }
    }
    // Each lets go of its own, so that another node need not wait for the end of the lease.
    while reading.join_next().await.is_some() {}
}

/// One try: take it up, read, let go of it.
async fn one(core: Arc<Core>, row: BackfillRow) -> BackfillId {
    let id = row.id;
    match write(&core, BackfillStep::Claim(id)).await {
        Ok(()) => {}
        // Another node was faster, or it does not run any more.
        Err(WriteError::Stale) => return id,
        Err(error) => {
            tracing::warn!("{id} is not taken up yet: {error}");
            tokio::time::sleep(RETRY_PAUSE).await;
            return id;
        }
    }
    // Whoever read it before may have moved it since the list was made.
    let row = match core.store.backfill_load(row.workspace, id).await {
        Ok(Some(row)) => row,
        Ok(None) => return id,
        Err(error) => {
            let stop = Stop::Failed(format!("database: {error}"));
            let_go(&core, &row, End::Stopped(stop), 0, row.failures).await;
            return id;
        }
    };
    let mut strange = 0;
    let mut failures = row.failures;
    let reading = AssertUnwindSafe(read(&core, &row, &mut strange, &mut failures)).catch_unwind();
    let end = tokio::select! {
        () = core.stopping.cancelled() => End::Stopped(Stop::Interrupted),
        end = reading => end.unwrap_or_else(|_panic| {
            tracing::error!("reading {id} panicked; it is tried again");
            End::Stopped(Stop::Failed("internal: its reading panicked".to_owned()))
        }),
    };
    let_go(&core, &row, end, strange, failures).await;
    id
}

async fn let_go(core: &Core, row: &BackfillRow, end: End, strange: u64, failures: u32) {
    let now = core.clock.now();
    let (end, outcome, error, failures, retry_at) = match end {
        End::Complete => {
            let remark = crate::sweeps::pass::remark(strange);
            (
                Some(BackfillStatus::Finished),
                Some(SweepOutcome::Complete),
                remark,
                0,
                now,
            )
        }
        End::Failed(error) => {
            tracing::warn!(backfill.id = %row.id, "{} cannot go on: {error}", row.id);
            (
                Some(BackfillStatus::Failed),
                Some(SweepOutcome::Failed),
                Some(error),
                failures,
                now,
            )
        }
        End::Stopped(Stop::Failed(error)) => {
            tracing::warn!(backfill.id = %row.id, "{} is tried again later: {error}", row.id);
            let failures = failures.saturating_add(1);
            (
                None,
                Some(SweepOutcome::Failed),
                Some(error),
                failures,
                now.plus(pause(failures)),
            )
        }
        End::Stopped(Stop::Partial(why)) => (None, Some(SweepOutcome::Partial), Some(why), failures, now.plus(GO_ON)),
        End::Stopped(Stop::Overtaken | Stop::Interrupted) => {
            let error = row.error.clone().filter(|_| failures > 0);
            (None, None, error, failures, now)
        }
    };
    if let Some(outcome) = outcome {
        metrics::counter!("weir_sweeps_total", "cause" => "backfill", "outcome" => outcome.as_str()).increment(1);
    }
    let step = BackfillStep::LetGo(BackfillLetGo {
        id: row.id,
        end,
        error,
        failures,
        retry_at,
        at: now,
    });
    match write(core, step).await {
        Ok(()) | Err(WriteError::Stale) => {}
        // Its claim stays with this node, which takes it up again.
        Err(error) => {
            tracing::warn!("{} is not let go of: {error}", row.id);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// One backfill that this node reads.
struct Reading<'a> {
    core: &'a Arc<Core>,
    row: &'a BackfillRow,
    range: Range,
    connection: Arc<Connection>,
    door: ListDoor<'a>,
    /// Runs of its events that were under way when last looked.
    flying: Vec<RunId>,
    /// Items within the range that were passed over since the last move.
    passed_over: u64,
}

async fn read(core: &Arc<Core>, row: &BackfillRow, strange: &mut u64, failures: &mut u32) -> End {
    match read_on(core, row, strange, failures).await {
        Ok(()) => End::Complete,
        Err(end) => end,
    }
}

async fn read_on(core: &Arc<Core>, row: &BackfillRow, strange: &mut u64, failures: &mut u32) -> Result<(), End> {
    let snapshot = core.snapshot.load_full();
    // Its row goes with its endpoint; until then this node has not read the configuration.
    let unread = || Stop::Failed("its endpoint or connection is not there; apply the configuration anew".to_owned());
    let endpoint: &Arc<Endpoint> = snapshot.endpoint(&EndpointRef::Id(row.endpoint)).ok_or_else(unread)?;
    let recover = readable(endpoint).map_err(|refusal| End::Failed(refusal.to_string()))?;
    let webhook = endpoint.way_in().ok_or_else(unread)?;
    let connection = endpoint
        .connection()
        .and_then(|(_, name)| snapshot.connection(endpoint.workspace(), name))
        .ok_or_else(unread)?;
    let range = Range {
        since: row.since,
        until: row.until,
    };
    let mut walk = match row.place.as_deref().map(serde_json::from_str) {
        Some(Ok(walk)) => walk,
        // A later release wrote it: the range is read anew.
        Some(Err(_)) | None => Walk::new(range),
    };
    let mut reading = Reading {
        core,
        row,
        range,
        connection: Arc::clone(connection),
        door: ListDoor::new(core, endpoint, EventSource::Backfill),
        flying: Vec::new(),
        passed_over: 0,
    };
    loop {
        // It takes hours: what was changed meanwhile, a credential or where it is sent, holds from the next page on.
        if core.snapshot.load().revision() != snapshot.revision() {
            return Err(Stop::Interrupted.into());
        }
        reading.calm().await?;
        let page = match reading.ask(recover, &walk).await {
            Ok(page) => page,
            Err(failure) => {
                let is_expired = failure
                    .http_status
                    .is_some_and(|status| recover.expired.contains(&status));
                if is_expired && walk.forget(range) {
                    tracing::warn!(endpoint.name = %endpoint.name(), "the provider no longer knows where {} stood; its range is read anew", row.id);
                    reading.note(Some(&walk), 0, 0).await?;
                    continue;
                }
                return Err(Stop::Failed(format!("{}: {}", failure.code, failure.message)).into());
            }
        };
        metrics::counter!("weir_sweep_pages_total").increment(1);
        let seen = reading.take(webhook, recover, page, strange).await?;
        let next = walk.advance(recover, range, &seen);
        reading.note(Some(&walk), 1, seen.count as u64).await?;
        *failures = 0;
        match next {
            Next::More => {}
            Next::End => return Ok(()),
            Next::TooLong => {
                let reached = walk
                    .reached()
                    .map_or_else(String::new, |reached| format!(" and came to {reached}"));
                return Err(End::Failed(format!(
                    "the list has more than {MAX_BACKFILL_PAGES} pages for this range{reached}; begin another backfill for the rest"
                )));
            }
            Next::Broken(why) => return Err(End::Failed(format!("paging_broken: {why}"))),
        }
    }
}

impl Reading<'_> {
    async fn ask(&self, recover: &Recover, walk: &Walk) -> Result<ListPage, CallFailure> {
        let question = walk.question(recover);
        let until = recover.takes_until().then(|| question.until.as_unix_ms());
        let args = recover.args(question.since.as_unix_ms(), until, question.cursor.as_deref());
        let call = recover.call.as_deref().unwrap_or_default();
        let bounds = (Class::Backfill, PAGE_TIMEOUT);
        self.core
            .performer
            .list_page(&self.connection, call, args, question.page.as_ref(), bounds)
            .await
    }

    /// Waits until there is room for more behind live events, and makes sure that it is still to be read.
    async fn calm(&mut self) -> Result<(), Stop> {
        let runs = &self.core.runs;
        self.flying.append(&mut self.door.runs);
        let mut looks: u32 = 0;
        loop {
            if looks.is_multiple_of(LOOKS_PER_ROW) {
                self.look().await?;
            }
            self.flying.retain(|run| runs.is_active(*run));
            let (_, backlog, _) = runs.depths();
            // While any run waits on disk, here or for anybody, or memory fills, nothing is added.
            let is_calm = backlog == 0 && runs.free() == 0 && runs.room() > 0;
            if is_calm && self.flying.len() + self.asleep() < BULK_IN_FLIGHT {
                return Ok(());
            }
            looks = looks.saturating_add(1);
            tokio::time::sleep(CALM_PAUSE).await;
        }
    }

    /// Runs of backfills of the workspace that sleep until a budget lets them call: what was added already comes first.
    fn asleep(&self) -> usize {
        let snapshot = self.core.snapshot.load();
        let budgets = self.core.performer.budgets();
        let connections = snapshot.connections(self.row.workspace);
        connections
            .map(|(connection, _)| budgets.gate(connection).sleeping(Class::Backfill))
            .sum()
    }

    /// Whether somebody paused or ended it.
    async fn look(&self) -> Result<(), Stop> {
        match self.core.store.backfill_load(self.row.workspace, self.row.id).await {
            Ok(Some(row)) if row.status == BackfillStatus::Running => Ok(()),
            Ok(_) => Err(Stop::Overtaken),
            Err(error) => Err(Stop::Failed(format!("database: {error}"))),
        }
    }

    /// Stores the events of a page that lie in the range, and says what was on it.
    async fn take(
        &mut self,
        webhook: &Webhook,
        recover: &Recover,
        page: ListPage,
        strange: &mut u64,
    ) -> Result<Seen, Stop> {
        let mut seen = Seen {
            count: page.items.len(),
            next: page.next,
            token: recover.next_cursor(&page.body),
            more: recover.says_more(&page.body),
            items: Vec::with_capacity(page.items.len()),
        };
        // The memory moves on while a backfill stands still.
        let remembered_from = earlier(self.core.clock.now(), REMEMBERED);
        let mut found: Vec<(Identified, Value)> = Vec::with_capacity(page.items.len());
        for item in page.items {
            let unit = match webhook.identify_unit(&item) {
                Ok(unit) => unit,
                Err(error) => {
                    *strange += 1;
                    self.passed_over += 1;
                    tracing::warn!(
                        "an item of the list that {} reads is not what the connector describes: {error}",
                        self.row.id
                    );
                    continue;
                }
            };
            let time = unit.time_unix_ms.map(Timestamp::from_unix_ms);
            seen.items.push(SeenItem {
                id: unit.id.clone(),
                time,
                position: None,
            });
            match time {
                _ if unit.ignored => {}
                Some(time) if !self.range.holds(time) => {}
                Some(time) if time >= remembered_from => found.push((unit, item)),
                // It may have been received and forgotten; or nobody knows when it happened.
                Some(_) | None => self.passed_over += 1,
            }
        }
        // Oldest first, so that lanes see events in their order.
        found.sort_by_key(|(unit, _)| unit.time_unix_ms);
        let mut left = found.as_slice();
        while !left.is_empty() {
            self.calm().await?;
            let room = BULK_IN_FLIGHT.saturating_sub(self.flying.len()).max(1);
            let (now, later) = left.split_at(room.min(left.len()));
            let stored = self.door.store(webhook, now.iter().collect()).await;
            // What was stored before a failure is told as well.
            self.note(None, 0, 0).await?;
            stored?;
            left = later;
        }
        self.passed_over += std::mem::take(&mut self.door.refused);
        Ok(seen)
    }

    /// Stores what was done since the last time, and with `walk` how far the list was read.
    async fn note(&mut self, walk: Option<&Walk>, pages: u32, listed: u64) -> Result<(), Stop> {
        let place = walk
            .map(serde_json::to_string)
            .transpose()
            .map_err(|error| Stop::Failed(format!("the place cannot be stored: {error}")))?;
        let step = BackfillStep::Move(BackfillMove {
            id: self.row.id,
            place,
            reached: walk.and_then(Walk::reached),
            pages,
            listed,
            recovered: std::mem::take(&mut self.door.recovered),
            duplicates: std::mem::take(&mut self.door.duplicates),
            passed_over: std::mem::take(&mut self.passed_over),
        });
        match write(self.core, step).await {
            Ok(()) => Ok(()),
            Err(WriteError::Stale) => Err(Stop::Overtaken),
            Err(WriteError::Fenced) => {
                self.core.lose_place();
                Err(Stop::Interrupted)
            }
            Err(error) => Err(Stop::Failed(format!("database: {error}"))),
        }
    }
}

async fn write(core: &Core, step: BackfillStep) -> Result<(), WriteError> {
    match core.writer.submit(Fact::Backfill(step)) {
        Ok(pending) => pending.await.map(drop),
        Err(_full) => Err(WriteError::Unavailable),
    }
}
