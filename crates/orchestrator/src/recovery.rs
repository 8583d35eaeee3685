//! What nobody asked for at this moment: take back open runs at start, wake runs at their time, load the backlog,
//! renew the lease, notice changes of the configuration.
//!
//! The database is read at start, for due timers, for the backlog and after a commit whose result is unknown; never to
//! look for work that memory knows. Idling costs less than one statement a second, what retention asks now and then included.

use crate::driver::{ActiveRun, First, Refused};
use crate::reading::Of;
use crate::repair::bulk_work::{self, Lot};
use crate::repair::dead_letter;
use crate::retention;
use crate::route;
use crate::runner;
use crate::service::{Core, Orchestrator, StartError};
use crate::settings::Role;
use crate::snapshot::{Snapshot, SnapshotError, Version};
use crate::turns;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use weir_storage::{
    EventRow, Fact, FactOutcome, Heartbeat, HeartbeatReply, NodeIdentity, RunRow, RunStatus, RunUpdate, StoredRun,
    WriteError,
};
use weir_workflow_engine::{
    Document, Event, EventRef, JournalError, Ledger, RunHead, RunId, RunState, Timestamp, WorkflowId, WorkspaceId,
    decode,
};

/// Time between heartbeats. The lease lasts four of them. More than a second, so that with what is asked each minute and
/// each quarter of an hour an idle server asks its database less than once a second.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(1200);
/// Timers further away than this stay in the database only.
const TIMER_HORIZON: Duration = Duration::from_secs(60);
/// How long the loop looks away while memory is full; a run that ends wakes it earlier.
const FULL_PAUSE: Duration = Duration::from_millis(100);
/// Time between two looks for open runs that no task drives, while there is reason to look.
const SCAN_EVERY: Duration = Duration::from_secs(5);
/// Looks after there was reason: a minute of them.
const SCANS_AFTER: u32 = 12;
/// Ids read per statement when open runs are taken back.
const SCAN_PAGE: u32 = 1024;
/// Runs that get their timers per heartbeat, above what a node can start in a second.
const DUE_PAGE: u32 = 10_000;
/// Runs loaded per statement.
const LOAD_BATCH: usize = 128;
/// Pause after a failed read before the same is tried again.
const READ_RETRY: Duration = Duration::from_millis(500);
/// Claims the runs of dead nodes and registers every open run of this one: those that wait for a time as timers, the
/// others as backlog.
pub(crate) async fn take_back(core: &Arc<Core>) -> Result<(), StartError> {
    if !core.settings.roles.has(Role::Worker) {
        return Ok(crate::free::release(core).await?);
    }
    claim(core).await?;
    scan_open(core).await?;
    let (_, backlog, timers) = core.runs.depths();
    if backlog + timers > 0 {
        tracing::info!(
            runs = backlog,
            timers,
            "took back {backlog} open runs and {timers} that wait for their time"
        );
    }
    Ok(())
}

async fn claim(core: &Arc<Core>) -> Result<usize, WriteError> {
    let mut claimed = 0;
    loop {
        let pending = core
            .writer
            .submit(Fact::Claim { limit: SCAN_PAGE })
            .map_err(|_full| WriteError::Unavailable)?;
        match pending.await? {
            FactOutcome::Claimed(runs) if runs.is_empty() => return Ok(claimed),
            FactOutcome::Claimed(runs) => claimed += runs.len(),
            other => {
                tracing::error!("the writer answered a claim with {other:?}");
                return Err(WriteError::Unavailable);
            }
        }
    }
}

/// Every run of this node that is under way and that no task drives goes to the backlog. Those that sleep are found when
/// they are due.
async fn scan_open(core: &Arc<Core>) -> Result<(), weir_storage::ReadError> {
    let mut after: Option<RunId> = None;
    loop {
        let page = core.store.run_open_ids(&core.node, after, SCAN_PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(*last);
        for run in page {
            if !core.runs.is_active(run) {
                core.runs.leave_on_disk(run);
            }
        }
    }
    load_due(core, core.clock.now().plus(TIMER_HORIZON)).await
}

/// Starts the loops; they end when the process stops.
pub(crate) fn spawn_loops(core: &Arc<Core>) {
    core.loops.spawn(feed(Arc::clone(core)));
    if core.settings.roles.has(Role::Worker) {
        core.loops.spawn(crate::free::listen(Arc::clone(core)));
        core.loops.spawn(crate::free::claim(Arc::clone(core)));
        core.loops.spawn(crate::resume::run(Arc::clone(core)));
        core.loops.spawn(bulk_work::work(Arc::clone(core), Lot::Replays));
        core.loops.spawn(bulk_work::work(Arc::clone(core), Lot::Requests));
        core.loops.spawn(bulk_work::work(Arc::clone(core), Lot::Decisions));
        core.loops.spawn(crate::sweeps::backfills(Arc::clone(core)));
        core.loops.spawn(crate::registrations::run(Arc::clone(core)));
    }
    let (beats, heard) = mpsc::channel(1);
    core.loops.spawn(heartbeat(Arc::clone(core), beats));
    core.loops.spawn(chores(Arc::clone(core), heard));
    core.loops.spawn(crate::ingest::tell_further_refusals(Arc::clone(core)));
    core.loops.spawn(retention::run(Arc::clone(core)));
    core.loops.spawn(crate::schedules::run(Arc::clone(core)));
    core.loops.spawn(crate::queued::run(Arc::clone(core)));
    core.loops.spawn(crate::sweeps::run(Arc::clone(core)));
    core.runs.wake.notify_one();
}

/// Starts tasks for runs whose time has come and for the backlog as there is room.
async fn feed(core: Arc<Core>) {
    loop {
        let now = core.clock.now();
        let room = core.runs.room();
        let (mut ids, next) = core.runs.take_due(now, room);
        ids.extend(core.runs.take_backlog(room.saturating_sub(ids.len())));
        if ids.is_empty() {
            let pause = if room == 0 {
                FULL_PAUSE
            } else {
                next.map_or(TIMER_HORIZON, |at| at.since(now).max(Duration::from_millis(1)))
            };
            tokio::select! {
                () = core.runs.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = core.stopping.cancelled() => return,
            }
            continue;
        }
        for batch in ids.chunks(LOAD_BATCH) {
            while let Err(error) = load(&core, batch).await {
                core.reading.note(Of::Runs, false, core.clock.monotonic_ms());
                tracing::warn!("open runs cannot be loaded, trying again: {error}");
                tokio::select! {
                    () = tokio::time::sleep(READ_RETRY) => {}
                    () = core.stopping.cancelled() => return,
                }
            }
            core.reading.note(Of::Runs, true, core.clock.monotonic_ms());
        }
        if core.stopping.is_cancelled() {
            return;
        }
    }
}

async fn load(core: &Arc<Core>, ids: &[RunId]) -> Result<(), SnapshotError> {
    let (active, wanted): (Vec<RunId>, Vec<RunId>) = ids.iter().copied().partition(|id| core.runs.is_active(*id));
    // What was asked for may have been its mail.
    core.runs.mailed(&active);
    let stored = core.store.run_recover(&wanted).await?;
    let mut mail = core.store.mail_of(&wanted).await?;
    let snapshot = match stored.is_empty() {
        true => core.snapshot.load_full(),
        false => in_force(core).await?,
    };
    for run in stored {
        if !is_wanted(&run.run, &core.node) {
            continue;
        }
        let queued = run.run.status == RunStatus::Queued;
        let (workspace, id) = (run.run.workspace, run.run.id);
        let letters = mail.remove(&id).unwrap_or_default();
        if queued {
            turns::look(core, &run.run, core.clock.now());
            if letters.is_empty() {
                continue;
            }
        }
        let workflow = run.run.workflow_id;
        match wake_up(core, &snapshot, run).await {
            Ok(mut active) => {
                active.mail = letters;
                runner::launch(core, active);
            }
            Err(SnapshotError::Read(error)) => return Err(SnapshotError::Read(error)),
            // It goes on when this server is of that release, too.
            Err(error @ SnapshotError::Newer { .. }) => {
                tracing::warn!(run.id = %id, "{error}; it waits for that release")
            }
            Err(error) => give_up(core, (workspace, workflow), id, &error.to_string()).await,
        }
    }
    Ok(())
}

/// The configuration with which runs that were stored until now go on: not an older one than that of their events, which
/// another server took in. When the changed one cannot be read, `/readyz` says so, and the one before goes on.
async fn in_force(core: &Arc<Core>) -> Result<Arc<Snapshot>, SnapshotError> {
    let revision = core.store.config_revision().await?;
    let orchestrator = Orchestrator { core: Arc::clone(core) };
    let newer = orchestrator.at_least(revision).await;
    Ok(newer.unwrap_or_else(|| core.snapshot.load_full()))
}

/// Whether a node has anything to do with a stored run. Whoever lets a waiting run start takes it over: it may be another
/// node's by now.
pub(crate) fn is_wanted(run: &RunRow, node: &NodeIdentity) -> bool {
    run.status.is_open() && run.owner == node.slot
}

/// A run whose journal or version cannot be read any more is a dead letter, not a task that fails for ever.
async fn give_up(core: &Core, owner: (WorkspaceId, WorkflowId), run: RunId, why: &str) {
    tracing::error!(run.id = %run, "run cannot be continued: {why}");
    let update = RunUpdate {
        status: RunStatus::Failed,
        due_at: None,
        finished_at: Some(core.clock.now()),
        error_code: Some("unreadable".to_owned()),
        error_step: None,
        dead_letter: Some(dead_letter("unreadable", None, why)),
    };
    if let Err(error) = runner::commit_update(core, owner, run, update).await {
        tracing::error!(run.id = %run, "the run's failure cannot be stored: {error}");
    }
}

async fn wake_up(core: &Core, snapshot: &Snapshot, stored: StoredRun) -> Result<ActiveRun, SnapshotError> {
    let row = &stored.run;
    let version = snapshot
        .version(&core.store, row.workspace, row.workflow_id, row.version_id)
        .await?;
    let ledger = match row.replay_of {
        Some(_) => Some(crate::control::family_ledger(core, row.workspace, row.root_id, Some(row.id)).await?),
        None => None,
    };
    let gave_up = core.panics.gave_up(row.id);
    let others = match version.plan.is_batched() {
        true => turns::batch_of(core, snapshot, row, stored.event.row.id).await?,
        false => Vec::new(),
    };
    let mut run = revive(snapshot, version, (ledger, &others), stored, core.clock.now())?;
    if gave_up && run.first != First::Queued {
        run.refused = Some(Refused::by_panics());
    }
    Ok(run)
}

/// A run as it was when its last commit was made, ready to go on. `ledger`: what the other runs of its family did, for
/// a replay; `others`: the events it stands for beside its own.
pub(crate) fn revive(
    snapshot: &Snapshot,
    version: Arc<Version>,
    (ledger, others): (Option<Ledger>, &[Event]),
    stored: StoredRun,
    now: Timestamp,
) -> Result<ActiveRun, SnapshotError> {
    let StoredRun {
        run: row,
        event,
        journal,
    } = stored;
    let corrupt = |reason: String| SnapshotError::Corrupt {
        row: format!("run {}", row.id),
        reason,
    };
    let mut event_body = restore_event(snapshot, &event.row).map_err(&corrupt)?;
    if version.plan.is_batched() {
        event_body = event_body.with_batch(others);
    }
    let head = RunHead {
        id: row.id,
        root_id: row.root_id,
        replay_of: row.replay_of,
        workspace: row.workspace,
        workflow: row.workflow_id,
        workflow_name: version.plan.name().to_owned(),
        version: row.version_id,
        version_number: version.number,
        dedupe_scope: event.dedupe.scope.clone(),
        dedupe_key: event.dedupe.key.clone(),
        started_at: row.started_at,
    };
    let mut state = RunState::new(head, Arc::new(event_body), &version.plan);
    if let Some(ledger) = ledger {
        state = state.with_ledger(ledger);
    }
    let mut next_seq = 0;
    for (seq, body) in &journal {
        let (_, entries) = decode(body).map_err(|error| match error {
            JournalError::Newer { .. } => SnapshotError::Newer {
                row: format!("run {}", row.id),
                reason: error.to_string(),
            },
            JournalError::Damaged { .. } => corrupt(error.to_string()),
        })?;
        for entry in &entries {
            state.fold(entry);
        }
        next_seq = seq + 1;
    }
    // One that waits for its turn comes into memory for its mail alone.
    let first = match row.status {
        RunStatus::Queued => First::Queued,
        _ if journal.is_empty() => First::Started,
        _ => First::Recovered,
    };
    // A run that has not begun may have been kept only because its `where` could not be evaluated.
    let begins = first == First::Started && row.replay_of.is_none() && event.row.endpoint.is_some();
    let refused = if begins {
        route::filter(snapshot, row.workspace, &version, state.event(), now)
            .err()
            .map(|error| Refused::by_filter(&error))
    } else {
        None
    };
    // Nor may one whose keys cannot be computed.
    let refused = match refused {
        None if first == First::Started => turns::of(snapshot, row.workspace, &version, state.event(), now).err(),
        refused => refused,
    };
    Ok(ActiveRun {
        state,
        version,
        next_seq,
        first,
        asleep: matches!(row.status, RunStatus::Waiting | RunStatus::Paused),
        mail: Vec::new(),
        turn: None,
        refused,
        traceparent: event.row.traceparent.clone(),
    })
}

/// The event as runs see it, from its row.
pub(crate) fn restore_event(snapshot: &Snapshot, row: &EventRow) -> Result<Event, String> {
    let body = Document::parse(&row.body).map_err(|error| error.to_string())?;
    let data = if row.data_pointer.is_empty() {
        body.clone()
    } else {
        body.part(&row.data_pointer).unwrap_or_else(|| body.clone())
    };
    let headers: BTreeMap<String, String> = serde_json::from_str(&row.headers).map_err(|error| error.to_string())?;
    let reference = match (&row.ref_kind, &row.ref_id) {
        (Some(kind), Some(id)) => Some(EventRef {
            kind: kind.clone(),
            id: id.clone(),
            version: row.ref_version.clone(),
        }),
        (_, _) => None,
    };
    let connection = row
        .connection
        .and_then(|id| {
            snapshot
                .connections(row.workspace)
                .find(|(connection, _)| connection.id == id)
        })
        .map(|(connection, _)| connection.name.clone());
    let endpoint = row
        .endpoint
        .and_then(|id| snapshot.endpoint(&crate::ingest::EndpointRef::Id(id)))
        .map(|endpoint| endpoint.name().to_owned());
    Ok(Event {
        id: row.external_id.clone(),
        uid: row.id,
        kind: row.kind.clone(),
        time: row.occurred_at,
        received_at: row.received_at,
        source: row.source,
        account: row.account.clone(),
        reference,
        headers,
        body,
        data,
        connector: row.connector.clone(),
        connection,
        endpoint,
        scheduled_for: row.scheduled_for,
        batch: None,
    })
}

/// What the heartbeat found, and scans that were asked for. Not in the heartbeat's own loop: while the database is away a
/// read waits as long as a lease lasts.
async fn chores(core: Arc<Core>, mut beats: mpsc::Receiver<HeartbeatReply>) {
    let mut rounds = tokio::time::interval(SCAN_EVERY);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rounds_left = 0;
    loop {
        let asked = tokio::select! {
            reply = beats.recv() => match reply {
                Some(reply) => {
                    attend(&core, reply).await;
                    continue;
                }
                None => return,
            },
            _ = rounds.tick() => false,
            () = core.rescan.notified() => true,
            () = core.stopping.cancelled() => return,
        };
        if asked {
            // And some more: a commit whose answer was lost may come through long after the question, in a session of
            // the database that outlived its connection.
            rounds_left = SCANS_AFTER;
        } else if rounds_left == 0 {
            continue;
        }
        rounds_left -= 1;
        if let Err(error) = scan_open(&core).await {
            tracing::warn!("the scan for open runs failed, it is made again: {error}");
            tokio::time::sleep(READ_RETRY).await;
            core.rescan.notify_one();
        }
    }
}

async fn attend(core: &Arc<Core>, reply: HeartbeatReply) {
    let worker = core.settings.roles.has(Role::Worker);
    if worker && reply.free > 0 {
        core.free.notify_one();
    }
    if worker && reply.bulk {
        core.bulk.notify_one();
        core.bulk_requests.notify_one();
        core.bulk_decisions.notify_one();
    }
    if worker && reply.backfill {
        core.backfills.notify_one();
    }
    if worker && reply.unclaimed > 0 && core.lease.may_judge_others() {
        match claim(core).await {
            Ok(0) => {}
            Ok(claimed) => {
                tracing::info!(runs = claimed, "took over {claimed} runs of a node that is gone");
                core.rescan.notify_one();
            }
            Err(error) => {
                tracing::warn!("runs of a node that is gone cannot be claimed yet: {error}");
                // The claim may have come through.
                core.rescan.notify_one();
            }
        }
    }
    let mut works = true;
    if reply.mail > 0
        && let Err(error) = deliver_mail(core).await
    {
        works = false;
        tracing::warn!("mail for runs cannot be listed, trying again: {error}");
    }
    if reply.due > 0
        && let Err(error) = load_due(core, core.clock.now().plus(TIMER_HORIZON)).await
    {
        works = false;
        tracing::warn!("due runs cannot be listed, trying again: {error}");
    }
    core.reading.note(Of::Due, works, core.clock.monotonic_ms());
    if reply.config_revision != core.snapshot.load().revision() || core.reloading.failing().is_some() {
        let orchestrator = Orchestrator { core: Arc::clone(core) };
        if let Err(error) = orchestrator.reload().await {
            tracing::error!("the changed configuration cannot be loaded: {error}");
        }
    }
}

/// Renews the lease every [`HEARTBEAT`]; what the answer says is left to [`chores`].
async fn heartbeat(core: Arc<Core>, beats: mpsc::Sender<HeartbeatReply>) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = core.halted.cancelled() => return,
        }
        let now = core.clock.now();
        let asked_at_ms = core.clock.monotonic_ms();
        let beat = Heartbeat {
            id_high_water: core.new_id(now),
            due_before: now.plus(HEARTBEAT),
            free_limit: u32::try_from(core.settings.max_backlog_runs).unwrap_or(u32::MAX),
        };
        let Ok(pending) = core.writer.submit(Fact::Heartbeat(beat)) else {
            continue;
        };
        match pending.await {
            Ok(FactOutcome::Heartbeat(reply)) => {
                core.lease.renew(asked_at_ms);
                // Who could not renew either is still there.
                let others = match core.lease.may_judge_others() {
                    true => reply.others,
                    false => reply.others.max(core.runs.others()),
                };
                core.runs.note_others(reply.free, others, reply.other_workers);
                core.performer.budgets().set_nodes(others.saturating_add(1));
                core.clock.learn(reply.database_time, now, core.clock.now());
                // Chores that are still busy hear the same again with the next one.
                if beats.try_send(reply).is_err() {
                    tracing::debug!("the chores of an earlier heartbeat are not done yet");
                }
                gauges(&core);
            }
            Ok(other) => tracing::error!("the writer answered a heartbeat with {other:?}"),
            Err(WriteError::Fenced) => {
                core.lose_place();
                return;
            }
            Err(error) => tracing::warn!("the lease was not renewed: {error}"),
        }
    }
}

async fn load_due(core: &Core, until: Timestamp) -> Result<(), weir_storage::ReadError> {
    for (run, due) in core.store.run_due_ids(&core.node, until, DUE_PAGE).await? {
        if !core.runs.is_active(run) {
            core.runs.set_timer(due, run);
        }
    }
    Ok(())
}

/// Mail that was left by other nodes, or that nobody heard of.
async fn deliver_mail(core: &Core) -> Result<(), weir_storage::ReadError> {
    let mut after = None;
    loop {
        let page = core.store.run_ids_with_mail(&core.node, after, SCAN_PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(*last);
        core.runs.mailed(&page);
    }
}

fn gauges(core: &Core) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge of counts far below 2^52")]
    let set = |name: &'static str, value: usize| metrics::gauge!(name).set(value as f64);
    let (in_memory, backlog, timers) = core.runs.depths();
    let (facts, bytes) = core.writer.queue_depth();
    set("weir_runs_in_memory", in_memory);
    set("weir_runs_backlog", backlog);
    set("weir_runs_free", core.runs.free());
    set("weir_run_timers", timers);
    core.performer.budgets().show();
    set("weir_writer_queue_facts", facts);
    set("weir_writer_queue_bytes", bytes);
    let statistics = core.writer.statistics();
    metrics::counter!("weir_writer_commits_total").absolute(statistics.commits);
    metrics::counter!("weir_writer_facts_total").absolute(statistics.facts);
    if statistics.lane_full > 0 {
        metrics::counter!("weir_runs_lane_full_total").absolute(statistics.lane_full);
    }
    let oldest = core
        .runs
        .oldest_accepted()
        .map_or(0.0, |at| core.clock.now().since(at).as_secs_f64());
    metrics::gauge!("weir_oldest_open_run_seconds").set(oldest);
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("weir_clock_skew_seconds").set(core.clock.skew_ms() as f64 / 1e3);
}
