//! Nodes: restart, takeover, timers, ids.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use weir_storage::{Fact, FactOutcome, Heartbeat, RunCommit, RunOwner, RunStatus, RunUpdate, WriteError};
use weir_workflow_engine::RunId;

use crate::support::{Bed, Node, at, both_databases, commit};

both_databases!(
    a_restarted_node_has_its_runs_at_once,
    a_dead_node_is_taken_over,
    timers_are_counted_and_read,
    without_others_every_run_is_ones_own,
    ids_never_repeat
);

fn beat() -> Fact {
    Fact::Heartbeat(Heartbeat {
        id_high_water: 0,
        due_before: at(0),
        free_limit: 1000,
    })
}

async fn heartbeat(node: &Node) -> weir_storage::HeartbeatReply {
    match node.write(beat()).await {
        Ok(FactOutcome::Heartbeat(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

async fn start_runs(bed: &Bed, node: &Node, count: usize) -> Vec<RunId> {
    let mut runs = Vec::new();
    for n in 0..count {
        let accepted = bed.accepted(&format!("key {n}"));
        runs.push(accepted.runs[0].id);
        drop(node.submit(Fact::Accept(accepted)));
    }
    let last = runs[count - 1];
    node.write(commit(last, 0, "journal", None)).await.unwrap();
    runs
}

async fn a_restarted_node_has_its_runs_at_once(bed: &Bed) {
    let node = bed.node("a").await;
    let before = node.identity.clone();
    let runs = start_runs(bed, &node, 150).await;
    node.write(commit(runs[0], 0, "done", Some(RunStatus::Succeeded)))
        .await
        .unwrap();
    // As after a kill: nothing was said to the database.
    node.stop().await;

    let node = bed.node("a").await;
    assert_eq!(node.identity.slot, before.slot);
    assert_ne!(node.identity.incarnation, before.incarnation);
    let first = node.store.run_open_ids(&node.identity, None, 100).await.unwrap();
    let rest = node
        .store
        .run_open_ids(&node.identity, first.last().copied(), 100)
        .await
        .unwrap();
    assert_eq!([first, rest].concat(), runs[1..]);
    let recovered = node.store.run_recover(&runs[1..]).await.unwrap();
    assert_eq!(
        recovered.iter().map(|stored| stored.run.id).collect::<Vec<_>>(),
        runs[1..]
    );
    for stored in &recovered {
        assert_eq!(stored.event.row.id, stored.run.event_id);
        assert_eq!(stored.event.row.body.as_ref(), br#"{"id":"evt_1"}"#);
        let written = stored.run.id == runs[149];
        assert_eq!(
            stored.journal,
            if written {
                vec![(0, b"journal".to_vec())]
            } else {
                Vec::new()
            }
        );
    }
    assert_eq!(heartbeat(&node).await.unclaimed, 0);
}

async fn a_dead_node_is_taken_over(bed: &Bed) {
    let dead = bed.node("dead").await;
    let runs = start_runs(bed, &dead, 150).await;
    let survivor = if bed.is_postgres() {
        let survivor = bed.node("b").await;
        assert_eq!(heartbeat(&survivor).await.unclaimed, 0, "its lease holds");
        assert_eq!(
            survivor.write(Fact::Claim { limit: 1000 }).await,
            Ok(FactOutcome::Claimed(Vec::new()))
        );
        bed.execute("UPDATE node SET lease_until = 1 WHERE name = 'dead'").await;
        survivor
    } else {
        // The file lock proves that the node is gone: no lease to wait for.
        dead.stop().await;
        bed.node("b").await
    };
    assert_eq!(heartbeat(&survivor).await.unclaimed, 150);
    // A claim of one takes 64: small claims cost the same.
    assert_eq!(
        survivor.write(Fact::Claim { limit: 1 }).await,
        Ok(FactOutcome::Claimed(runs[..64].to_vec()))
    );
    assert_eq!(
        survivor.write(Fact::Claim { limit: 500 }).await,
        Ok(FactOutcome::Claimed(runs[64..].to_vec()))
    );
    assert_eq!(heartbeat(&survivor).await.unclaimed, 0);
    assert_eq!(
        survivor
            .store
            .run_open_ids(&survivor.identity, None, 500)
            .await
            .unwrap(),
        runs
    );
    assert_eq!(
        bed.number("SELECT count(*) FROM node").await,
        1,
        "an empty dead node is forgotten"
    );
    survivor
        .write(commit(runs[0], 0, "taken over", Some(RunStatus::Succeeded)))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_node_changes_nothing_after_the_takeover() {
    Bed::postgres().await.run(stalled).await;
}

async fn stalled(bed: &Bed) {
    let stalled = bed.node("stalled").await;
    let runs = start_runs(bed, &stalled, 3).await;
    let survivor = bed.node("b").await;
    bed.execute("UPDATE node SET lease_until = 1 WHERE name = 'stalled'")
        .await;
    assert_eq!(
        survivor.write(Fact::Claim { limit: 64 }).await,
        Ok(FactOutcome::Claimed(runs.clone()))
    );
    // Its session was ended with the takeover, so the first attempt may only learn that the connection is gone.
    let first = stalled.write(commit(runs[0], 0, "late", None)).await;
    assert!(
        matches!(
            first,
            Err(WriteError::Unknown | WriteError::Unavailable | WriteError::Fenced)
        ),
        "{first:?}"
    );
    assert_eq!(
        stalled.write(commit(runs[0], 0, "late", None)).await,
        Err(WriteError::Fenced)
    );
    assert_eq!(stalled.task.await.unwrap(), weir_storage::WriterEnd::Fenced);
    assert_eq!(
        survivor.write(commit(runs[0], 0, "mine", None)).await,
        Ok(FactOutcome::Written)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_node_comes_back_unless_another_has_its_name() {
    Bed::postgres().await.run(rejoined).await;
}

async fn rejoined(bed: &Bed) {
    let stalled = bed.node("a").await;
    let runs = start_runs(bed, &stalled, 100).await;
    let survivor = bed.node("b").await;
    bed.execute("UPDATE node SET lease_until = 1 WHERE name = 'a'").await;
    assert_eq!(
        survivor.write(Fact::Claim { limit: 64 }).await,
        Ok(FactOutcome::Claimed(runs[..64].to_vec()))
    );
    let (store, mut again) = bed.open().await;
    let identity = again
        .rejoin(&stalled.identity)
        .await
        .unwrap()
        .expect("nobody has its name");
    assert_ne!(identity.incarnation, stalled.identity.incarnation);
    // What had not been taken over yet is its own again.
    assert_eq!(store.run_open_ids(&identity, None, 100).await.unwrap(), runs[64..]);
    assert_eq!(heartbeat(&survivor).await.unclaimed, 0);
    // Its row may be gone as well.
    bed.execute("UPDATE run SET status = 2 WHERE owner = (SELECT slot FROM node WHERE name = 'a')")
        .await;
    bed.execute("DELETE FROM node WHERE name = 'a'").await;
    let (_, mut again) = bed.open().await;
    let identity = again.rejoin(&identity).await.unwrap().expect("nobody has its name");
    // Another process came: the name is its own.
    let _other = bed.node("a").await;
    let (_, mut again) = bed.open().await;
    assert!(again.rejoin(&identity).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_with_the_same_name_takes_over() {
    Bed::postgres().await.run(replaced).await;
}

async fn replaced(bed: &Bed) {
    let first = bed.node("a").await;
    let runs = start_runs(bed, &first, 3).await;
    let second = bed.node("a").await;
    assert_eq!(
        second.store.run_open_ids(&second.identity, None, 10).await.unwrap(),
        runs
    );
    drop(first.write(beat()).await.unwrap_err());
    assert_eq!(first.write(beat()).await, Err(WriteError::Fenced));
    assert_eq!(
        second.write(commit(runs[0], 0, "mine", None)).await,
        Ok(FactOutcome::Written)
    );
}

async fn timers_are_counted_and_read(bed: &Bed) {
    let node = bed.node("a").await;
    let runs = start_runs(bed, &node, 5).await;
    for (n, run) in (1_i64..).zip(&runs) {
        let update = RunUpdate {
            status: RunStatus::Waiting,
            due_at: Some(at(-n)),
            finished_at: None,
            error_code: None,
            error_step: None,
            dead_letter: None,
        };
        node.write(Fact::Run(RunCommit {
            run: *run,
            seq: 1,
            journal: Vec::new(),
            update: Some(update),
            mail: None,
            leaves: None,
        }))
        .await
        .unwrap();
    }
    assert_eq!(heartbeat(&node).await.due, 5);
    let reply = node
        .write(Fact::Heartbeat(Heartbeat {
            id_high_water: 0,
            due_before: at(-3),
            free_limit: 1000,
        }))
        .await;
    assert!(
        matches!(reply, Ok(FactOutcome::Heartbeat(reply)) if reply.due == 3),
        "{reply:?}"
    );
    let due = node.store.run_due_ids(&node.identity, at(-3), 2).await.unwrap();
    assert_eq!(due, [(runs[4], at(-5)), (runs[3], at(-4))]);
    assert_eq!(
        node.store.run_open_ids(&node.identity, None, 10).await.unwrap(),
        [],
        "sleepers stay on disk"
    );
    node.write(commit(runs[4], 2, "done", Some(RunStatus::Succeeded)))
        .await
        .unwrap();
    assert_eq!(heartbeat(&node).await.due, 4);
}

async fn ids_never_repeat(bed: &Bed) {
    let node = bed.node("a").await;
    assert_eq!(node.identity.id_high_water, 0);
    node.write(Fact::Heartbeat(Heartbeat {
        id_high_water: 500,
        due_before: at(0),
        free_limit: 1000,
    }))
    .await
    .unwrap();
    node.write(Fact::Heartbeat(Heartbeat {
        id_high_water: 400,
        due_before: at(0),
        free_limit: 1000,
    }))
    .await
    .unwrap();
    node.stop().await;
    let node = bed.node("a").await;
    assert_eq!(node.identity.id_high_water, 500);
    // What was stored after the last heartbeat counts as well.
    let accepted = bed.accepted("k");
    let last = accepted.runs[0].id.as_raw();
    node.write(Fact::Accept(accepted)).await.unwrap();
    node.stop().await;
    let node = bed.node("a").await;
    assert_eq!(node.identity.id_high_water, last);
    let reply = heartbeat(&node).await;
    assert!(node.store.database_time().await.unwrap() >= reply.database_time);
    assert!(reply.lease_until > reply.database_time);
    assert!(reply.database_time >= node.identity.database_time);
}

async fn accept_for_anyone(bed: &Bed, node: &Node, count: usize) -> Vec<RunId> {
    let mut runs = Vec::new();
    let mut pending = Vec::new();
    for n in 0..count {
        let mut accepted = bed.accepted(&format!("free {n} {}", bed.id()));
        accepted.runs[0].owner = RunOwner::Anyone;
        runs.push(accepted.runs[0].id);
        pending.push(node.submit(Fact::Accept(accepted)));
    }
    for pending in pending {
        pending.await.unwrap();
    }
    runs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn free_runs_are_told_of_and_claimed_once() {
    Bed::postgres().await.run(free).await;
}

async fn free(bed: &Bed) {
    let (door, first, second) = (bed.node("door").await, bed.node("a").await, bed.node("b").await);
    let mut heard = first.store.free_runs().await.unwrap().expect("PostgreSQL tells");
    let runs = accept_for_anyone(bed, &door, 150).await;
    heard.heard().await.unwrap();
    let reply = heartbeat(&door).await;
    assert_eq!((reply.free, reply.unclaimed, reply.others), (150, 0, 2));
    let limited = door
        .write(Fact::Heartbeat(Heartbeat {
            id_high_water: 0,
            due_before: at(0),
            free_limit: 10,
        }))
        .await;
    assert!(matches!(limited, Ok(FactOutcome::Heartbeat(reply)) if reply.free == 10));
    // Side by side, and none twice: a claim skips what another one holds.
    let claims = [&first, &second, &first, &second].map(|node| node.submit(Fact::ClaimFree { limit: 64 }));
    let mut claimed = Vec::new();
    for claim in claims {
        match claim.await {
            Ok(FactOutcome::Claimed(runs)) => claimed.extend(runs),
            other => panic!("{other:?}"),
        }
    }
    claimed.sort_unstable();
    assert_eq!(claimed, runs);
    assert_eq!(heartbeat(&door).await.free, 0);
    let own = first.store.run_open_ids(&first.identity, None, 200).await.unwrap();
    // Whoever comes first, the other one's two claims leave it these.
    assert!(own.len() >= 150 - 2 * 64, "{}", own.len());
    // A worker that stops being one leaves them to the others, who hear of it.
    assert_eq!(
        first.write(Fact::Release { limit: 1000 }).await,
        Ok(FactOutcome::Released(own.len().try_into().unwrap()))
    );
    heard.heard().await.unwrap();
    assert_eq!(
        second.write(Fact::ClaimFree { limit: 1000 }).await,
        Ok(FactOutcome::Claimed(own.clone()))
    );
    assert_eq!(
        second
            .write(commit(own[0], 0, "journal", Some(RunStatus::Succeeded)))
            .await,
        Ok(FactOutcome::Written)
    );
    // A fenced node gets nothing.
    accept_for_anyone(bed, &door, 150).await;
    bed.execute("UPDATE node SET incarnation = 0 WHERE name = 'b'").await;
    assert_eq!(
        second.write(Fact::ClaimFree { limit: 64 }).await,
        Ok(FactOutcome::Claimed(Vec::new()))
    );
}

async fn without_others_every_run_is_ones_own(bed: &Bed) {
    let node = bed.node("a").await;
    let runs = accept_for_anyone(bed, &node, 3).await;
    let own = node.store.run_open_ids(&node.identity, None, 10).await.unwrap();
    if bed.is_postgres() {
        assert_eq!((own.len(), heartbeat(&node).await.free), (0, 3));
        node.write(Fact::ClaimFree { limit: 1 }).await.unwrap();
        assert_eq!(node.store.run_open_ids(&node.identity, None, 10).await.unwrap(), runs);
    } else {
        assert_eq!(own, runs);
        assert!(node.store.free_runs().await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_ends_what_a_dead_node_holds() {
    Bed::postgres().await.run(held_up).await;
}

async fn held_up(bed: &Bed) {
    let dead = bed.node("dead").await;
    let survivor = bed.node("b").await;
    let known = bed.accepted("known");
    assert!(survivor.write(Fact::Accept(known)).await.is_ok());
    // It stands still between its insert and its commit, with a key that another delivery brings to the survivor.
    let mut session = PgConnection::connect(&bed.url).await.unwrap();
    let name = format!("SET application_name = 'weir writer {:x}'", dead.identity.incarnation);
    session.execute(AssertSqlSafe(name)).await.unwrap();
    session
        .execute("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0; UPDATE dedupe SET event_id = event_id; UPDATE event SET kind = kind")
        .await
        .unwrap();
    bed.execute("UPDATE node SET lease_until = 1 WHERE name = 'dead'").await;
    let claimed = survivor.write(Fact::Claim { limit: 64 }).await;
    assert_eq!(claimed, Ok(FactOutcome::Claimed(Vec::new())));
    assert!(session.execute("COMMIT").await.is_err(), "its session has been ended");
    let text = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    assert_eq!(bed.number(text).await, 0, "nothing is held any more");
}
