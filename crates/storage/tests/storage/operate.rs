//! What people do to runs that are over: all of it or nothing, and only if the family is as it was seen.

use weir_storage::{
    Accepted, AuditEntry, AuditFilter, CopiedEvent, ExpectedFamily, Fact, FactOutcome, NewRun, Operation, RunCommit,
    RunOfEvent, WriteError,
};
use weir_workflow_engine::{EventId, RunId};

use crate::support::{Bed, Node, WORKSPACE, at, both_databases, commit, noise};
use weir_storage::RunStatus;

both_databases!(
    an_operation_is_written_whole,
    who_starts_an_event_is_told_once,
    an_operation_on_a_grown_family_writes_nothing,
    a_stored_event_gets_another_run_once,
    a_fenced_writer_starts_no_replay
);

async fn failed(bed: &Bed, node: &Node, key: &str) -> (RunId, NewRun) {
    let accepted = bed.accepted(key);
    let run = accepted.runs[0].clone();
    node.write(Fact::Accept(accepted)).await.unwrap();
    node.write(commit(run.id, 0, "first", Some(RunStatus::Failed)))
        .await
        .unwrap();
    (run.id, run)
}

fn replay(bed: &Bed, of: &NewRun) -> NewRun {
    NewRun {
        id: RunId::from_raw(bed.id()),
        replay_of: Some(of.id),
        ..of.clone()
    }
}

/// Also beside others in one batch.
async fn who_starts_an_event_is_told_once(bed: &Bed) {
    let node = bed.node("a").await;
    let started = |key: &str| {
        let mut accepted = bed.accepted(key);
        accepted.audit = Some(Box::new(AuditEntry {
            subject: key.to_owned(),
            ..audit(bed)
        }));
        Fact::Accept(accepted)
    };
    let pending = [
        started("1"),
        Fact::Accept(bed.accepted("2")),
        started("1"),
        started("2"),
        started("3"),
    ]
    .map(|fact| node.submit(fact));
    for pending in pending {
        pending.await.unwrap();
    }
    node.write(started("3")).await.unwrap();
    let told = node
        .store
        .audit_page(WORKSPACE, &AuditFilter::default(), None, 10)
        .await;
    let subjects: Vec<String> = told.unwrap().rows.into_iter().map(|entry| entry.subject).collect();
    assert_eq!(subjects, ["3", "1"]);
}

fn row(run: RunId, seq: i32, journal: Vec<u8>) -> RunCommit {
    RunCommit {
        run,
        seq,
        journal,
        update: None,
        mail: None,
        leaves: None,
    }
}

fn audit(bed: &Bed) -> AuditEntry {
    AuditEntry {
        id: bed.id(),
        workspace: WORKSPACE,
        at: at(5),
        actor: "ann".to_owned(),
        action: "run.replay".to_owned(),
        subject: "run".to_owned(),
        client_ip: None,
        request_id: None,
        detail: "{}".to_owned(),
    }
}

async fn an_operation_is_written_whole(bed: &Bed) {
    let node = bed.node("a").await;
    let (run, new) = failed(bed, &node, "1").await;
    let mut copied = bed.accepted("1");
    copied.event.id = EventId::from_raw(bed.id());
    copied.event.body = noise(100_000).into();
    let second = NewRun {
        event_id: copied.event.id,
        ..replay(bed, &new)
    };
    let (large, body) = (noise(90_000), copied.event.body.clone());
    let operation = Operation {
        family: Some(ExpectedFamily { root: run, replays: 0 }),
        event: Some(Box::new(CopiedEvent {
            event: copied.event,
            dedupe: copied.dedupe.clone(),
        })),
        starts: vec![second.clone()],
        journal: vec![row(second.id, 0, large.clone()), row(run, 1, b"decided".to_vec())],
        audit: vec![audit(bed)],
        ..Operation::default()
    };
    let written = node.write(Fact::Operate(Box::new(operation))).await;
    assert_eq!(written, Ok(FactOutcome::Started { held: Vec::new() }));
    let stored = node.store.run_recover(&[second.id]).await.unwrap().remove(0);
    assert_eq!((stored.run.replay_of, stored.run.root_id), (Some(run), run));
    assert_eq!(stored.journal, [(0, large)]);
    assert_eq!((stored.event.row.body, stored.event.dedupe), (body, copied.dedupe));
    let family = node.store.run_family(WORKSPACE, run).await.unwrap();
    let ids: Vec<RunId> = family.iter().map(|run| run.id).collect();
    assert_eq!(ids, [run, second.id]);
    assert_eq!(
        node.store.journal_load(WORKSPACE, run).await.unwrap(),
        [(0, b"first".to_vec()), (1, b"decided".to_vec())]
    );
    assert_eq!(bed.number("SELECT count(*) FROM audit").await, 1);
    // The copy is known by its id alone: the original still is what a repeat is recognised as.
    assert_eq!(bed.number("SELECT count(DISTINCT event_id) FROM dedupe").await, 1);
}

async fn an_operation_on_a_grown_family_writes_nothing(bed: &Bed) {
    let node = bed.node("a").await;
    let (run, new) = failed(bed, &node, "1").await;
    let attempt = |replays, seq| {
        let start = replay(bed, &new);
        Fact::Operate(Box::new(Operation {
            family: Some(ExpectedFamily { root: run, replays }),
            starts: vec![start],
            journal: vec![row(run, seq, b"decided".to_vec())],
            audit: vec![audit(bed)],
            ..Operation::default()
        }))
    };
    assert_eq!(
        node.write(attempt(0, 1)).await,
        Ok(FactOutcome::Started { held: Vec::new() })
    );
    // Decided on what was true before the first.
    assert_eq!(node.write(attempt(0, 2)).await, Err(WriteError::Stale));
    // The journal has moved on.
    assert_eq!(node.write(attempt(1, 1)).await, Err(WriteError::Stale));
    assert_eq!(node.store.run_family(WORKSPACE, run).await.unwrap().len(), 2);
    assert_eq!(bed.number("SELECT count(*) FROM audit").await, 1);
    // The writer goes on.
    assert_eq!(
        node.write(attempt(1, 2)).await,
        Ok(FactOutcome::Started { held: Vec::new() })
    );
}

async fn a_fenced_writer_starts_no_replay(bed: &Bed) {
    let node = bed.node("a").await;
    let (_, new) = failed(bed, &node, "1").await;
    bed.execute("UPDATE node SET incarnation = 12345 WHERE name = 'a'")
        .await;
    let operation = Operation {
        starts: vec![replay(bed, &new)],
        audit: vec![audit(bed)],
        ..Operation::default()
    };
    let written = node.write(Fact::Operate(Box::new(operation))).await;
    assert_eq!(written, Err(WriteError::Fenced));
    assert_eq!(node.store.run_family(WORKSPACE, new.id).await.unwrap().len(), 1);
    assert_eq!(bed.number("SELECT count(*) FROM audit").await, 0);
}

async fn a_stored_event_gets_another_run_once(bed: &Bed) {
    let node = bed.node("a").await;
    let none = Accepted {
        runs: Vec::new(),
        ..bed.accepted("1")
    };
    let event = none.event.id;
    node.write(Fact::Accept(none)).await.unwrap();
    let attempt = |before: Vec<RunId>| {
        let start = bed.accepted("later").runs.remove(0);
        let start = NewRun {
            event_id: event,
            ..start
        };
        let fact = Fact::Operate(Box::new(Operation {
            of_event: Some(RunOfEvent {
                workspace: WORKSPACE,
                event,
                before,
            }),
            starts: vec![start.clone()],
            audit: vec![audit(bed)],
            ..Operation::default()
        }));
        (start.id, fact)
    };
    let (first, fact) = attempt(Vec::new());
    assert_eq!(node.write(fact).await, Ok(FactOutcome::Started { held: Vec::new() }));
    // Decided on what was true before the first.
    let (_, fact) = attempt(Vec::new());
    assert_eq!(node.write(fact).await, Err(WriteError::Stale));
    let (second, fact) = attempt(vec![first]);
    assert_eq!(node.write(fact).await, Ok(FactOutcome::Started { held: Vec::new() }));
    let stored = node.store.event_load(WORKSPACE, event).await.unwrap().unwrap();
    assert_eq!((stored.runs, stored.is_copy), (vec![first, second], false));
    // Its replays are found as those of any other run, and which one came last.
    let runs = node.store.event_runs(WORKSPACE, event).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.id).collect::<Vec<_>>(), [first, second]);
    assert_eq!(bed.number("SELECT count(*) FROM audit").await, 2);
    node.write(commit(first, 0, "end", Some(RunStatus::Failed)))
        .await
        .unwrap();
    let failed = node.store.run_load(WORKSPACE, first).await.unwrap().unwrap();
    assert_eq!(node.store.run_replaced_by(WORKSPACE, &failed).await.unwrap(), None);
    let mut again = bed.accepted("again").runs.remove(0);
    again.event_id = event;
    again.root_id = first;
    again.replay_of = Some(first);
    let operation = Operation {
        family: Some(ExpectedFamily {
            root: first,
            replays: 0,
        }),
        starts: vec![again.clone()],
        ..Operation::default()
    };
    node.write(Fact::Operate(Box::new(operation))).await.unwrap();
    let by = node.store.run_replaced_by(WORKSPACE, &failed).await.unwrap();
    assert_eq!(by.map(|run| run.id), Some(again.id));
    let last = node.store.run_load(WORKSPACE, again.id).await.unwrap().unwrap();
    assert_eq!(node.store.run_replaced_by(WORKSPACE, &last).await.unwrap(), None);
}
