//! What retention costs those who wait for a 2xx: the time from handing over an event to its commit, while as much is
//! deleted as is written, and without; and how much can be written at most, with and without.
//!
//! `cargo run --release -p weir-storage --example retention -- sqlite:///tmp/retention/weir.db 2000 20 100000`
//! (database, flows per second, seconds of each measurement, flows that are there before). Prints one JSON object per
//! measurement.
//!
//! Each flow is an event of 1 KB with one run and two journal rows (3 KB and 600 bytes), as in the bench. With a rate
//! the load is open: a flow begins when its time has come, whatever became of the others. Without one (`maximum`) some
//! hundred flows are under way at any time, and none begins while deleting is behind: what is measured is a store that
//! does not grow. Slices and pauses are those of the product.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use weir_storage::{
    Accepted, Database, DatabaseOptions, Dedupe, EventRow, Fact, FactOutcome, NewRun, Prune, RunCommit, RunStatus,
    RunUpdate, Store, Writer, WriterLimits,
};
use weir_workflow_engine::{EventId, EventSource, IdGenerator, RunId, Timestamp, VersionId, WorkflowId, WorkspaceId};

/// The clock of the measurement: what was there before is older than what comes.
const START_MS: i64 = 1_795_435_200_000;
/// After everything that is written.
const END_MS: i64 = START_MS + 365 * 24 * 3_600_000;
/// As in the product.
const SLICE_EVENTS: usize = 100;
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));
const TICK: Duration = Duration::from_millis(1);
/// Flows under way while the maximum is measured.
const AT_ONCE: u64 = 256;
/// How far deleting may be behind writing.
const MAX_BEHIND: u64 = 2_000;

fn main() {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .unwrap()
        .block_on(measure());
}

async fn measure() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |place: usize, default: u64| arguments.get(place).map_or(default, |text| text.parse().unwrap());
    let url = arguments
        .get(1)
        .map_or("sqlite:///tmp/weir-retention/weir.db", String::as_str);
    let (rate, seconds, before) = (number(2, 2000), number(3, 20), number(4, 100_000));
    let (store, mut seed) = Database::open(url, DatabaseOptions::default()).await.unwrap();
    let node = seed.register("retention").await.unwrap();
    let ids = Arc::new(IdGenerator::new(node.slot, node.id_high_water));
    let (writer, task) = seed.start(node, WriterLimits::default());
    let task = tokio::spawn(task.run());

    let begun = Instant::now();
    for part in 0..before / 200 {
        let flows = (0..200).map(|n| tokio::spawn(flow(writer.clone(), Arc::clone(&ids), part * 200 + n)));
        futures::future::join_all(flows).await;
    }
    println!(
        r#"{{"phase":"filled","flows":{before},"seconds":{:.1}}}"#,
        begun.elapsed().as_secs_f64()
    );
    let mut first = before;
    let pair = [false, true];
    let phases = [Some(rate), None].map(|rate| [pair, pair].concat().into_iter().map(move |deletes| (rate, deletes)));
    for (phase, (rate, deletes)) in [(Some(rate), false)]
        .into_iter()
        .chain(phases.into_iter().flatten())
        .enumerate()
    {
        let counts = Arc::new(Counts::default());
        let retention = deletes.then(|| tokio::spawn(delete(store.clone(), writer.clone(), Arc::clone(&counts))));
        let begun = Instant::now();
        let mut latencies = match rate {
            Some(rate) => open_loop(&writer, &ids, &counts, first, rate, seconds).await,
            None => closed_loop(&writer, &ids, &counts, first, (seconds, deletes)).await,
        };
        let took = begun.elapsed();
        counts.stop.store(true, Ordering::Relaxed);
        if let Some(retention) = retention {
            retention.await.unwrap();
        }
        latencies.sort_unstable();
        let written = u64::try_from(latencies.len()).unwrap();
        first += written;
        let ms = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        let name = match (phase, rate) {
            (0, _) => "warm-up",
            (_, Some(_)) => "rate",
            (_, None) => "maximum",
        };
        println!(
            r#"{{"phase":"{name}","deletes":{deletes},"flows_per_s":{},"deleted":{},"p50_ms":{:.2},"p99_ms":{:.2},"max_ms":{:.1}}}"#,
            written * 1000 / u64::try_from(took.as_millis()).unwrap(),
            counts.deleted.load(Ordering::Relaxed),
            ms(50),
            ms(99),
            ms(100)
        );
    }
    drop((writer, store));
    task.await.unwrap();
}

/// What was written and deleted in one measurement.
#[derive(Default)]
struct Counts {
    written: AtomicU64,
    deleted: AtomicU64,
    stop: AtomicBool,
}

impl Counts {
    fn behind(&self) -> u64 {
        let deleted = self.deleted.load(Ordering::Relaxed);
        self.written.load(Ordering::Relaxed).saturating_sub(deleted)
    }
}

/// The times to the commit of each event.
async fn open_loop(
    writer: &Writer,
    ids: &Arc<IdGenerator>,
    counts: &Counts,
    first: u64,
    rate: u64,
    seconds: u64,
) -> Vec<Duration> {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    let (mut sent, mut flows) = (0, Vec::new());
    while sent < rate * seconds {
        ticks.tick().await;
        let wanted = u64::try_from(begun.elapsed().as_micros()).unwrap() * rate / 1_000_000;
        while sent < wanted.min(rate * seconds) {
            flows.push(tokio::spawn(flow(writer.clone(), Arc::clone(ids), first + sent)));
            sent += 1;
        }
        counts.written.store(sent, Ordering::Relaxed);
    }
    let mut latencies = Vec::new();
    for flow in flows {
        latencies.push(flow.await.unwrap());
    }
    latencies
}

/// The same, as many as can be written, and if deletes go on beside it: as many as can be deleted too.
async fn closed_loop(
    writer: &Writer,
    ids: &Arc<IdGenerator>,
    counts: &Arc<Counts>,
    first: u64,
    (seconds, deletes): (u64, bool),
) -> Vec<Duration> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let flows = (0..AT_ONCE).map(|_| {
        let (writer, ids, counts) = (writer.clone(), Arc::clone(ids), Arc::clone(counts));
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < end {
                if deletes && counts.behind() > MAX_BEHIND {
                    tokio::time::sleep(TICK).await;
                    continue;
                }
                let number = first + counts.written.fetch_add(1, Ordering::Relaxed);
                latencies.push(flow(writer.clone(), Arc::clone(&ids), number).await);
            }
            latencies
        })
    });
    let latencies = futures::future::join_all(flows).await;
    latencies.into_iter().flat_map(Result::unwrap).collect()
}

/// Deletes the oldest events, as many as are written.
async fn delete(store: Store, writer: Writer, counts: Arc<Counts>) {
    let mut after = None;
    while !counts.stop.load(Ordering::Relaxed) {
        let page = store
            .old_events(after, Timestamp::from_unix_ms(END_MS), 500)
            .await
            .unwrap();
        after = page.last().map(|old| old.history.event);
        for slice in page.chunks(SLICE_EVENTS) {
            while counts.behind() < SLICE_EVENTS as u64 {
                if counts.stop.load(Ordering::Relaxed) {
                    return;
                }
                tokio::time::sleep(TICK).await;
            }
            if counts.stop.load(Ordering::Relaxed) {
                return;
            }
            let began = Instant::now();
            let histories = slice.iter().map(|old| old.history.clone()).collect();
            let pending = writer.submit(Fact::Prune(Prune::History(histories))).unwrap();
            assert!(matches!(pending.await, Ok(FactOutcome::Pruned(_))));
            counts.deleted.fetch_add(slice.len() as u64, Ordering::Relaxed);
            tokio::time::sleep(began.elapsed().clamp(PAUSE.0, PAUSE.1)).await;
        }
    }
}

async fn flow(writer: Writer, ids: Arc<IdGenerator>, number: u64) -> Duration {
    let now = Timestamp::from_unix_ms(START_MS + i64::try_from(number / 2).unwrap());
    let (event_id, run) = (EventId::from_raw(ids.next_raw(now)), RunId::from_raw(ids.next_raw(now)));
    let begun = Instant::now();
    writer
        .submit(Fact::Accept(event(event_id, run, number, now)))
        .unwrap()
        .await
        .unwrap();
    let accepted = begun.elapsed();
    for (seq, bytes) in [(0, 3000), (1, 600)] {
        let update = (seq == 1).then_some(RunUpdate {
            status: RunStatus::Succeeded,
            due_at: None,
            finished_at: Some(now),
            error_code: None,
            error_step: None,
            dead_letter: None,
        });
        let commit = RunCommit {
            run,
            seq,
            journal: text(number, bytes),
            update,
            mail: None,
            leaves: None,
        };
        writer.submit(Fact::Run(commit)).unwrap().await.unwrap();
    }
    accepted
}

/// Text as APIs send it: names repeat, values do not.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let mut text = String::from("{");
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    while text.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!(
            "\"field_{}\":\"{:x}\",\"created\":{},",
            text.len() % 40,
            state >> 16,
            state >> 40
        ));
    }
    text.push_str("\"object\":\"payment_intent\"}");
    text.into_bytes()
}

fn event(id: EventId, run: RunId, number: u64, now: Timestamp) -> Accepted {
    let workspace = WorkspaceId::from_raw(1);
    let key = format!("evt_{number:024}_{id}");
    Accepted {
        event: EventRow {
            id,
            workspace,
            endpoint: None,
            connector: "stripe".to_owned(),
            connection: None,
            source: EventSource::Endpoint,
            external_id: key.clone(),
            kind: "payment_intent.succeeded".to_owned(),
            account: None,
            ref_kind: Some("payment_intent".to_owned()),
            ref_id: Some(format!("pi_{number:024}")),
            ref_version: None,
            occurred_at: Some(now),
            received_at: now,
            headers: r#"{"content-type":"application/json","user-agent":"Stripe/1.0"}"#.to_owned(),
            body: Bytes::from(text(number, 900)),
            data_pointer: "/data".to_owned(),
            scheduled_for: None,
            traceparent: None,
        },
        dedupe: Dedupe {
            scope: "ep_0000000000001".to_owned(),
            key,
            anchored_at: Some(now),
        },
        runs: vec![NewRun {
            id: run,
            root_id: run,
            replay_of: None,
            workspace,
            event_id: id,
            workflow_id: WorkflowId::from_raw(1),
            version_id: VersionId::from_raw(1),
            started_at: now,
            turn: None,
            owner: weir_storage::RunOwner::ThisNode,
        }],
        keys: Vec::new(),
        fires: None,
        routed_by: None,
        audit: None,
        after_commit: None,
    }
}
