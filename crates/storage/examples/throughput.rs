//! What storing one flow costs: an event accepted with its run, and two commits of the run, in batches.
//!
//! `cargo run --release -p weir-storage --example throughput -- sqlite:///tmp/throughput/weir.db 100000 256`
//!
//! The bodies are those of the bench: 1 KB of event, a journal row with an answer of 3 KB, a small last row. The
//! CPU time is this process's own (on PostgreSQL the server's comes on top), the threads of SQLite included.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::fmt::Write;

use bytes::Bytes;
use tokio::time::Instant;
use weir_storage::{
    Accepted, Database, DatabaseOptions, Dedupe, EventRow, Fact, NewRun, RunCommit, RunOwner, RunStatus, RunUpdate,
    Writer, WriterLimits,
};
use weir_workflow_engine::{EventId, EventSource, IdGenerator, RunId, Timestamp, VersionId, WorkflowId, WorkspaceId};

/// The clock of the measurement: ids and days rise as they would.
const START_MS: i64 = 1_795_435_200_000;
/// Clock ticks of /proc per second.
const TICKS: u64 = 100;

fn main() {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(1)
        .build()
        .unwrap()
        .block_on(measure());
}

async fn measure() {
    let arguments: Vec<String> = std::env::args().collect();
    let url = arguments
        .get(1)
        .map_or("sqlite:///tmp/weir-throughput/weir.db", String::as_str);
    let flows: usize = arguments.get(2).map_or(50_000, |text| text.parse().unwrap());
    let batch: usize = arguments.get(3).map_or(256, |text| text.parse().unwrap());
    let (store, mut seed) = Database::open(url, DatabaseOptions::default()).await.unwrap();
    let node = seed.register("throughput").await.unwrap();
    let ids = IdGenerator::new(node.slot, node.id_high_water);
    let (writer, task) = seed.start(node, WriterLimits::default());
    let task = tokio::spawn(task.run());

    let (cpu, wall) = (cpu_us(), Instant::now());
    let mut number = 0;
    while number < flows {
        let now = Timestamp::from_unix_ms(START_MS + i64::try_from(number / 10).unwrap());
        let accepted: Vec<Accepted> = (number..number + batch).map(|n| event(&ids, n, now)).collect();
        let runs: Vec<RunId> = accepted.iter().map(|accepted| accepted.runs[0].id).collect();
        write(&writer, accepted.into_iter().map(Fact::Accept)).await;
        write(&writer, runs.iter().map(|run| commit(*run, 0, 3000, None))).await;
        let finish = RunUpdate {
            status: RunStatus::Succeeded,
            due_at: None,
            finished_at: Some(now),
            error_code: None,
            error_step: None,
            dead_letter: None,
        };
        write(
            &writer,
            runs.iter().map(|run| commit(*run, 1, 600, Some(finish.clone()))),
        )
        .await;
        number += batch;
    }
    let (cpu, wall) = (cpu_us() - cpu, wall.elapsed());
    let per_flow = |total: u128| total / u128::try_from(number).unwrap();
    let statistics = writer.statistics();
    println!(
        "{number} flows at {batch} per batch: {} us wall and {} us CPU per flow, {} commits, {} failed, {} MB resident",
        per_flow(wall.as_micros()),
        per_flow(cpu.into()),
        statistics.commits,
        statistics.failed,
        resident_mb(),
    );
    drop((writer, store));
    task.await.unwrap();
}

async fn write(writer: &Writer, facts: impl Iterator<Item = Fact>) {
    let pending: Vec<_> = facts.map(|fact| writer.submit(fact).unwrap()).collect();
    for answer in pending {
        answer.await.unwrap();
    }
}

/// Text as APIs send it: names repeat, values do not.
fn json(seed: usize, length: usize) -> Vec<u8> {
    let mut text = String::from("{");
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    while text.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        write!(
            text,
            "\"field_{}\":\"{:x}\",\"created\":{},",
            text.len() % 40,
            state >> 16,
            state >> 40
        )
        .unwrap();
    }
    text.push_str("\"object\":\"payment_intent\"}");
    text.into_bytes()
}

fn event(ids: &IdGenerator, number: usize, now: Timestamp) -> Accepted {
    let (event_id, run_id) = (EventId::from_raw(ids.next_raw(now)), RunId::from_raw(ids.next_raw(now)));
    let workspace = WorkspaceId::from_raw(1);
    let key = format!("evt_{number:024}_{event_id}");
    Accepted {
        event: EventRow {
            id: event_id,
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
            body: Bytes::from(json(number, 900)),
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
            id: run_id,
            root_id: run_id,
            replay_of: None,
            workspace,
            event_id,
            workflow_id: WorkflowId::from_raw(1),
            version_id: VersionId::from_raw(1),
            started_at: now,
            turn: None,
            owner: RunOwner::ThisNode,
        }],
        keys: Vec::new(),
        fires: None,
        routed_by: None,
        audit: None,
        after_commit: None,
    }
}

fn commit(run: RunId, seq: i32, length: usize, update: Option<RunUpdate>) -> Fact {
    let number = usize::try_from(run.as_raw()).unwrap();
    Fact::Run(RunCommit {
        run,
        seq,
        journal: json(number, length),
        update,
        mail: None,
        leaves: None,
    })
}

fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) * 1_000_000 / TICKS
}

fn resident_mb() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0)
        * 4096
        / 1_000_000
}
