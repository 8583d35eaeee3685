//! Group commit: every fact gets its own answer.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::join_all;
use weir_storage::{AcceptOutcome, Constraint, Fact, FactOutcome, WriteError, WriterEnd, WriterHealth, WriterLimits};
use weir_workflow_engine::EventId;

use crate::support::{Bed, WORKSPACE, at, both_databases, commit, noise};

both_databases!(
    each_fact_is_answered,
    an_event_comes_back_as_it_was,
    values_of_every_size_come_back,
    a_bad_fact_fails_alone,
    the_queue_is_bounded,
    an_abandoned_fact_is_written,
    a_closed_door_writes_what_is_queued,
);

const NEW: FactOutcome = FactOutcome::Accepted(AcceptOutcome::New);

async fn each_fact_is_answered(bed: &Bed) {
    let node = bed.node("a").await;
    let handed_over = Arc::new(Mutex::new(Vec::new()));
    let mut pending = Vec::new();
    for n in 0..700 {
        let mut accepted = bed.accepted(&format!("key {n}"));
        let (list, id) = (Arc::clone(&handed_over), accepted.event.id);
        accepted.after_commit = Some(Box::new(move |outcome, _| list.lock().unwrap().push((id, *outcome))));
        pending.push((id, node.submit(Fact::Accept(accepted))));
    }
    for (id, pending) in pending {
        assert_eq!(pending.await, Ok(NEW));
        assert!(
            handed_over.lock().unwrap().contains(&(id, AcceptOutcome::New)),
            "handed over before it was answered"
        );
    }
    let statistics = node.writer.statistics();
    assert_eq!(
        (statistics.facts, statistics.accepted, statistics.failed),
        (700, 700, 0)
    );
    assert!(statistics.commits < 100, "{} commits for 700 facts", statistics.commits);
    assert_eq!(node.writer.queue_depth(), (0, 0));
    assert_eq!(node.writer.health(), WriterHealth::Healthy);
    assert_eq!(bed.number("SELECT count(*) FROM event").await, 700);
    assert_eq!(bed.number("SELECT count(*) FROM run").await, 700);
}

async fn an_event_comes_back_as_it_was(bed: &Bed) {
    let node = bed.node("a").await;
    let mut accepted = bed.accepted_at("k", at(0), Some(at(-5)));
    accepted.event.external_id = "another".to_owned();
    accepted.event.account = Some("acct".to_owned());
    accepted.event.ref_version = Some("7".to_owned());
    accepted.event.scheduled_for = Some(at(3));
    accepted.event.traceparent = Some("00-1-2-01".to_owned());
    let (event, dedupe, run) = (accepted.event.clone(), accepted.dedupe.clone(), accepted.runs[0].id);
    assert_eq!(node.write(Fact::Accept(accepted)).await, Ok(NEW));
    let stored = node.store.event_load(WORKSPACE, event.id).await.unwrap().unwrap();
    assert_eq!(format!("{:?}", stored.row), format!("{event:?}"));
    assert_eq!((stored.dedupe.scope, stored.dedupe.key), (dedupe.scope, dedupe.key));
    assert_eq!(stored.runs, [run]);
    assert!(
        node.store
            .event_load(weir_workflow_engine::WorkspaceId::from_raw(12), event.id)
            .await
            .unwrap()
            .is_none()
    );
}

async fn values_of_every_size_come_back(bed: &Bed) {
    let node = bed.node("a").await;
    for (n, body) in [
        Vec::new(),
        b"{}".to_vec(),
        vec![b' '; 100_000],
        noise(70_000),
        noise(1 << 20),
    ]
    .into_iter()
    .enumerate()
    {
        let mut accepted = bed.accepted(&n.to_string());
        accepted.event.body = Bytes::from(body.clone());
        let (event, run) = (accepted.event.id, accepted.runs[0].id);
        assert_eq!(node.write(Fact::Accept(accepted)).await, Ok(NEW));
        assert_eq!(
            node.store.event_load(WORKSPACE, event).await.unwrap().unwrap().row.body,
            body
        );

        let mut journal = commit(run, 0, "", None);
        if let Fact::Run(commit) = &mut journal {
            commit.journal.clone_from(&body);
        }
        assert_eq!(node.write(journal).await, Ok(FactOutcome::Written));
        assert_eq!(node.store.journal_load(WORKSPACE, run).await.unwrap(), [(0, body)]);
    }
    assert_eq!(
        bed.number("SELECT count(*) FROM payload").await,
        4,
        "two of each stand apart"
    );
    assert_eq!(
        bed.number("SELECT count(*) FROM event WHERE length(body) > 65536")
            .await,
        0
    );
    assert_eq!(
        bed.number("SELECT count(*) FROM journal WHERE length(body) > 65536")
            .await,
        0
    );
}

async fn a_bad_fact_fails_alone(bed: &Bed) {
    let node = bed.node("a").await;
    let first = bed.accepted("first");
    let taken = first.event.id;
    assert_eq!(node.write(Fact::Accept(first)).await, Ok(NEW));
    let mut pending = Vec::new();
    for n in 0..100 {
        let mut accepted = bed.accepted(&format!("key {n}"));
        if n == 37 || n == 38 {
            accepted.event.id = taken;
        }
        pending.push(node.submit(Fact::Accept(accepted)));
    }
    for (n, answer) in join_all(pending).await.into_iter().enumerate() {
        if n == 37 || n == 38 {
            assert!(
                matches!(answer, Err(WriteError::Refused(Constraint::Taken { .. }))),
                "{answer:?}"
            );
        } else {
            assert_eq!(answer, Ok(NEW), "{n}");
        }
    }
    assert_eq!(bed.number("SELECT count(*) FROM event").await, 99);
    assert_eq!(
        bed.number("SELECT count(*) FROM dedupe").await,
        99,
        "a refused event leaves no trace"
    );
    // A text that only SQLite can hold.
    let mut accepted = bed.accepted("zero");
    accepted.event.kind = "a\0b".to_owned();
    let answer = node.write(Fact::Accept(accepted)).await;
    if bed.is_postgres() {
        assert!(
            matches!(answer, Err(WriteError::Refused(Constraint::Value { .. }))),
            "{answer:?}"
        );
    } else {
        assert_eq!(answer, Ok(NEW));
    }
    assert_eq!(node.writer.health(), WriterHealth::Healthy);
}

async fn the_queue_is_bounded(bed: &Bed) {
    let (store, mut seed) = bed.open().await;
    let identity = seed.register("a").await.unwrap();
    let limits = WriterLimits {
        max_facts: 10,
        max_bytes: 100_000,
        max_batch: 4,
    };
    let (writer, task) = seed.start(identity, limits);
    // Nobody takes anything out yet.
    let mut pending = Vec::new();
    for n in 0..10 {
        pending.push(writer.submit(Fact::Accept(bed.accepted(&n.to_string()))).unwrap());
    }
    let full = writer.submit(Fact::Accept(bed.accepted("more"))).unwrap_err();
    assert_eq!(full.facts, 10);
    let run = weir_workflow_engine::RunId::from_raw(bed.id());
    for seq in 0..5 {
        pending.push(
            writer
                .submit(commit(run, seq, "x", None))
                .expect("work under way has a reserve"),
        );
    }
    assert!(writer.submit(commit(run, 5, "x", None)).is_err());
    pending.push(
        writer
            .submit(Fact::Claim { limit: 64 })
            .expect("the node's own facts always have room"),
    );
    let task = tokio::spawn(task.run());
    for answer in join_all(pending).await {
        assert!(answer.is_ok(), "{answer:?}");
    }
    assert_eq!(writer.queue_depth(), (0, 0));

    let mut large = bed.accepted("large");
    large.event.body = Bytes::from(noise(100_001));
    let answer = writer.submit(Fact::Accept(large)).unwrap().await;
    assert!(
        matches!(answer, Err(WriteError::Refused(Constraint::TooLarge { .. }))),
        "{answer:?}"
    );
    drop((writer, store));
    task.await.unwrap();

    let (_store, mut seed) = bed.open().await;
    let identity = seed.register("a").await.unwrap();
    let (writer, _task) = seed.start(
        identity,
        WriterLimits {
            max_facts: 1000,
            ..limits
        },
    );
    let mut taken = 0;
    while taken < 100 {
        let mut accepted = bed.accepted(&format!("bytes {taken}"));
        accepted.event.body = Bytes::from(noise(30_000));
        if writer.submit(Fact::Accept(accepted)).is_err() {
            break;
        }
        taken += 1;
    }
    assert_eq!(taken, 3, "bounded by bytes");
}

async fn an_abandoned_fact_is_written(bed: &Bed) {
    let node = bed.node("a").await;
    let accepted = bed.accepted("k");
    let id: EventId = accepted.event.id;
    drop(node.submit(Fact::Accept(accepted)));
    assert_eq!(node.write(Fact::Accept(bed.accepted("after"))).await, Ok(NEW));
    assert!(node.store.event_load(WORKSPACE, id).await.unwrap().is_some());
}

async fn a_closed_door_writes_what_is_queued(bed: &Bed) {
    let node = bed.node("a").await;
    let queued: Vec<_> = (0..300)
        .map(|n| node.submit(Fact::Accept(bed.accepted(&format!("key {n}")))))
        .collect();
    node.writer.close();
    assert_eq!(node.task.await.unwrap(), WriterEnd::Closed);
    for pending in queued {
        assert_eq!(pending.await, Ok(NEW));
    }
    let late = node.writer.submit(Fact::Accept(bed.accepted("late"))).unwrap();
    assert_eq!(late.await, Err(WriteError::Unavailable));
    // The file alone is the whole database then.
    if let Some(path) = bed.url.strip_prefix("sqlite://") {
        let log = std::fs::metadata(format!("{path}-wal")).map_or(0, |log| log.len());
        assert_eq!(log, 0, "the write-ahead log was left behind");
    }
    assert_eq!(bed.number("SELECT count(*) FROM event").await, 300);
}
