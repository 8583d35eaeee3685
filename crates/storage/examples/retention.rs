//! What retention costs those who wait for a 2xx: the time from handing over an event to its commit, while as much is
//! deleted as is written, and without.
//!
//! `cargo run --release -p weir-storage --example retention -- sqlite:///tmp/retention/weir.db 2000 20 100000`
//! (database, flows per second, seconds of each measurement, flows that are there before).
//!
//! Each flow is an event of 1 KB with one run and two journal rows (3 KB and 600 bytes), as in the bench. The load
//! is open: a flow begins when its time has come, whatever became of the others. Slices and pauses are those of the
//! product.

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
/// As in the product.
const SLICE_EVENTS: usize = 100;
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));
const TICK: Duration = Duration::from_millis(1);

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
    println!("{before} flows written in {:.1} s", begun.elapsed().as_secs_f64());
    let mut first = before;
    for (name, deletes) in [
        ("warm-up", false),
        ("without", false),
        ("with", true),
        ("without", false),
        ("with", true),
    ] {
        let stop = Arc::new(AtomicBool::new(false));
        let deleted = Arc::new(AtomicU64::new(0));
        let retention = deletes.then(|| {
            let (store, writer, stop, deleted) =
                (store.clone(), writer.clone(), Arc::clone(&stop), Arc::clone(&deleted));
            tokio::spawn(delete(store, writer, stop, deleted, rate))
        });
        let latencies = load(&writer, &ids, first, rate, seconds).await;
        stop.store(true, Ordering::Relaxed);
        if let Some(retention) = retention {
            retention.await.unwrap();
        }
        first += rate * seconds;
        let at = |part: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a place in a list"
            )]
            let place = ((latencies.len() - 1) as f64 * part) as usize;
            latencies[place].as_secs_f64() * 1e3
        };
        println!(
            "{name:<8} {rate} flows/s, {} events deleted: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.1} ms",
            deleted.load(Ordering::Relaxed),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }
    drop((writer, store));
    task.await.unwrap();
}

/// The times to the commit of each event, sorted.
async fn load(writer: &Writer, ids: &Arc<IdGenerator>, first: u64, rate: u64, seconds: u64) -> Vec<Duration> {
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
    }
    let mut latencies = Vec::new();
    for flow in flows {
        latencies.push(flow.await.unwrap());
    }
    latencies.sort_unstable();
    latencies
}

/// Deletes the oldest events, as many in a second as come.
async fn delete(store: Store, writer: Writer, stop: Arc<AtomicBool>, deleted: Arc<AtomicU64>, rate: u64) {
    let begun = Instant::now();
    let mut after = None;
    while !stop.load(Ordering::Relaxed) {
        let page = store
            .old_events(after, Timestamp::from_unix_ms(i64::MAX >> 24), 500)
            .await
            .unwrap();
        after = page.last().map(|old| old.history.event);
        for slice in page.chunks(SLICE_EVENTS) {
            let began = Instant::now();
            let histories = slice.iter().map(|old| old.history.clone()).collect();
            let pending = writer.submit(Fact::Prune(Prune::History(histories))).unwrap();
            assert!(matches!(pending.await, Ok(FactOutcome::Pruned(_))));
            let count = deleted.fetch_add(slice.len() as u64, Ordering::Relaxed) + slice.len() as u64;
            tokio::time::sleep(began.elapsed().clamp(PAUSE.0, PAUSE.1)).await;
            let due = begun + Duration::from_micros(count * 1_000_000 / rate);
            tokio::time::sleep_until(due).await;
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
        after_commit: None,
    }
}
