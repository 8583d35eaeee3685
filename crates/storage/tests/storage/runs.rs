//! Commits of runs: the place in the journal is the guard.

use futures::future::join_all;
use weir_storage::{Fact, FactOutcome, NewRun, RunCommit, RunStatus, RunUpdate, WriteError};
use weir_workflow_engine::RunId;

use crate::support::{Bed, Node, WORKSPACE, at, both_databases, commit};

both_databases!(
    a_taken_place_is_stale,
    commits_of_one_run_keep_their_order,
    a_family_is_read_together,
    a_fenced_writer_writes_nothing
);

async fn started(bed: &Bed, node: &Node, key: &str) -> RunId {
    let accepted = bed.accepted(key);
    let run = accepted.runs[0].id;
    node.write(Fact::Accept(accepted)).await.unwrap();
    run
}

async fn a_taken_place_is_stale(bed: &Bed) {
    let node = bed.node("a").await;
    let (one, two) = (started(bed, &node, "1").await, started(bed, &node, "2").await);
    assert_eq!(
        node.write(commit(one, 0, "first", Some(RunStatus::Waiting))).await,
        Ok(FactOutcome::Written)
    );
    let pending = vec![
        node.submit(commit(two, 0, "two", None)),
        node.submit(commit(one, 0, "again", Some(RunStatus::Failed))),
        node.submit(commit(two, 1, "two more", Some(RunStatus::Succeeded))),
    ];
    assert_eq!(
        join_all(pending).await,
        [
            Ok(FactOutcome::Written),
            Err(WriteError::Stale),
            Ok(FactOutcome::Written)
        ]
    );
    assert_eq!(
        node.store.journal_load(WORKSPACE, one).await.unwrap(),
        [(0, b"first".to_vec())]
    );
    assert_eq!(
        node.store.run_load(WORKSPACE, one).await.unwrap().unwrap().status,
        RunStatus::Waiting
    );
    assert_eq!(
        node.store.run_load(WORKSPACE, two).await.unwrap().unwrap().status,
        RunStatus::Succeeded
    );
    let other_tenant = weir_workflow_engine::WorkspaceId::from_raw(12);
    assert_eq!(node.store.journal_load(other_tenant, one).await.unwrap(), []);
}

async fn commits_of_one_run_keep_their_order(bed: &Bed) {
    let node = bed.node("a").await;
    let run = started(bed, &node, "1").await;
    let update = |n: i64| RunUpdate {
        status: if n == 49 { RunStatus::Failed } else { RunStatus::Waiting },
        due_at: (n < 49).then(|| at(n)),
        finished_at: (n == 49).then(|| at(n)),
        error_code: (n == 49).then(|| "effect_unknown".to_owned()),
        error_step: (n == 49).then(|| "pay".to_owned()),
        dead_letter: None,
    };
    let pending: Vec<_> = (0..50)
        .map(|n| {
            let journal = format!("entry {n}").into_bytes();
            node.submit(Fact::Run(RunCommit {
                run,
                seq: i32::try_from(n).unwrap(),
                journal,
                update: Some(update(n)),
                mail: None,
                leaves: None,
            }))
        })
        .collect();
    for answer in join_all(pending).await {
        assert_eq!(answer, Ok(FactOutcome::Written));
    }
    let journal = node.store.journal_load(WORKSPACE, run).await.unwrap();
    let expected: Vec<_> = (0..50).map(|n| (n, format!("entry {n}").into_bytes())).collect();
    assert_eq!(journal, expected);
    let row = node.store.run_load(WORKSPACE, run).await.unwrap().unwrap();
    assert_eq!(
        (row.status, row.due_at, row.finished_at),
        (RunStatus::Failed, None, Some(at(49)))
    );
    assert_eq!(
        (row.error_code.as_deref(), row.error_step.as_deref()),
        (Some("effect_unknown"), Some("pay"))
    );
}

async fn a_family_is_read_together(bed: &Bed) {
    let node = bed.node("a").await;
    let accepted = bed.accepted("k");
    let (event, root) = (accepted.event.id, accepted.runs[0].clone());
    node.write(Fact::Accept(accepted)).await.unwrap();
    let replay = NewRun {
        id: RunId::from_raw(bed.id()),
        replay_of: Some(root.id),
        ..root.clone()
    };
    let second = NewRun {
        id: RunId::from_raw(bed.id()),
        replay_of: Some(replay.id),
        ..root.clone()
    };
    assert_eq!(
        node.write(Fact::Start(vec![replay.clone(), second.clone()])).await,
        Ok(FactOutcome::Started { held: Vec::new() })
    );
    for (n, run) in [root.id, replay.id, second.id].into_iter().enumerate() {
        node.write(commit(run, 0, &format!("journal {n}"), None)).await.unwrap();
    }
    let family = node.store.family_journals(WORKSPACE, root.id).await.unwrap();
    let expected: Vec<_> = [root.id, replay.id, second.id]
        .into_iter()
        .enumerate()
        .map(|(n, run)| (run, vec![(0, format!("journal {n}").into_bytes())]))
        .collect();
    assert_eq!(family, expected);
    let runs = node.store.event_runs(WORKSPACE, event).await.unwrap();
    assert_eq!(
        runs.iter().map(|run| (run.id, run.replay_of)).collect::<Vec<_>>(),
        [
            (root.id, None),
            (replay.id, Some(root.id)),
            (second.id, Some(replay.id))
        ]
    );
    assert_eq!(
        node.store
            .event_runs(weir_workflow_engine::WorkspaceId::from_raw(12), event)
            .await
            .unwrap(),
        []
    );
}

async fn a_fenced_writer_writes_nothing(bed: &Bed) {
    let node = bed.node("a").await;
    let run = started(bed, &node, "1").await;
    bed.execute("UPDATE node SET incarnation = 12345 WHERE name = 'a'")
        .await;
    let mut pending = Vec::new();
    for n in 0..20 {
        pending.push(node.submit(Fact::Accept(bed.accepted(&format!("late {n}")))));
        pending.push(node.submit(commit(run, n, "late", Some(RunStatus::Succeeded))));
        pending.push(node.submit(Fact::Claim { limit: 64 }));
    }
    for answer in join_all(pending).await {
        assert_eq!(answer, Err(WriteError::Fenced));
    }
    assert_eq!(node.writer.queue_depth(), (0, 0));
    assert_eq!(
        node.writer.health(),
        weir_storage::WriterHealth::Fenced {
            why: weir_storage::Fence::NameTaken
        }
    );
    assert_eq!(
        node.write(Fact::Accept(bed.accepted("3"))).await,
        Err(WriteError::Fenced)
    );
    assert_eq!(
        node.store.run_load(WORKSPACE, run).await.unwrap().unwrap().status,
        RunStatus::Running
    );
    for table in ["event", "run", "dedupe"] {
        assert_eq!(bed.number(&format!("SELECT count(*) FROM {table}")).await, 1, "{table}");
    }
    assert_eq!(bed.number("SELECT count(*) FROM journal").await, 0);
    assert_eq!(node.task.await.unwrap(), weir_storage::WriterEnd::Fenced);
}
