//! One node sweeps an endpoint, its place moves only while it does, and the ledger of arrivals adds up.

use weir_storage::{
    CoverageCount, Fact, FactOutcome, Prune, SweepBegin, SweepChange, SweepEnd, SweepMove, SweepRow, WriteError,
};
use weir_workflow_engine::{EndpointId, Timestamp, WorkspaceId};

use crate::support::{Bed, Node, WORKSPACE, at, both_databases};

both_databases!(
    a_sweep_is_claimed_moved_and_ended,
    a_dead_nodes_sweep_is_taken_over_and_its_late_moves_change_nothing,
    arrivals_add_up_by_hour_and_go_with_their_time,
);

const ENDPOINT: EndpointId = EndpointId::from_raw(41);
const DONE: Result<FactOutcome, WriteError> = Ok(FactOutcome::Written);
const HOUR_MS: i64 = 3_600_000;

fn begin(after: Option<Timestamp>, now: Timestamp) -> Fact {
    Fact::Sweep(SweepChange::Begin(SweepBegin {
        endpoint: ENDPOINT,
        workspace: WORKSPACE,
        after,
        cause: "start".to_owned(),
        at: now,
        covered_until: at(-5),
    }))
}

fn step(cursor: &str, recovered: u64) -> Fact {
    Fact::Sweep(SweepChange::Move(SweepMove {
        endpoint: ENDPOINT,
        cursor: Some(cursor.to_owned()),
        covered_until: Some(at(7)),
        lost: Some((at(-100), at(-50))),
        pages: 1,
        recovered,
        duplicates: 2,
    }))
}

fn end(now: Timestamp) -> Fact {
    Fact::Sweep(SweepChange::End(SweepEnd {
        endpoint: ENDPOINT,
        at: now,
        outcome: "failed".to_owned(),
        error: Some("timeout: no answer".to_owned()),
        failures: 3,
    }))
}

async fn stored(node: &Node) -> SweepRow {
    let row = node.store.sweep_load(WORKSPACE, ENDPOINT).await.unwrap().unwrap();
    assert_eq!(node.store.sweeps_load().await.unwrap(), std::slice::from_ref(&row));
    row
}

async fn a_sweep_is_claimed_moved_and_ended(bed: &Bed) {
    let node = bed.node("a").await;
    assert_eq!(
        node.write(step("early", 1)).await,
        Err(WriteError::Stale),
        "nobody began"
    );
    assert_eq!(node.write(begin(None, at(0))).await, DONE);
    let row = stored(&node).await;
    assert_eq!(
        (row.running, row.covered_until, row.finished_at),
        (true, Some(at(-5)), None)
    );
    assert_eq!(node.write(step("c1", 3)).await, DONE);
    assert_eq!(node.write(step("c2", 4)).await, DONE);
    assert_eq!(node.write(end(at(9))).await, DONE);
    assert_eq!(
        node.write(step("late", 1)).await,
        Err(WriteError::Stale),
        "it has ended"
    );
    let row = stored(&node).await;
    assert_eq!(
        (row.running, row.cursor.as_deref(), row.covered_until),
        (false, Some("c2"), Some(at(7)))
    );
    assert_eq!((row.pages, row.recovered, row.duplicates, row.failures), (2, 7, 4, 3));
    assert_eq!((row.lost, row.finished_at), (Some((at(-100), at(-50))), Some(at(9))));
    assert_eq!(row.error.as_deref(), Some("timeout: no answer"));
    // Only who knows of the last sweep begins the next, and what was read is kept.
    assert_eq!(node.write(begin(None, at(20))).await, Err(WriteError::Stale));
    assert_eq!(node.write(begin(Some(at(0)), at(20))).await, DONE);
    let row = stored(&node).await;
    assert_eq!(
        (row.cursor.as_deref(), row.pages, row.outcome, row.error),
        (Some("c2"), 0, None, None)
    );
    let other = WorkspaceId::from_raw(12);
    assert_eq!(node.store.sweep_load(other, ENDPOINT).await.unwrap(), None);
}

async fn a_dead_nodes_sweep_is_taken_over_and_its_late_moves_change_nothing(bed: &Bed) {
    let first = bed.node("a").await;
    assert_eq!(first.write(begin(None, at(0))).await, DONE);
    assert_eq!(first.write(step("c1", 3)).await, DONE);
    if bed.is_postgres() {
        let second = bed.node("b").await;
        let refused = second.write(begin(Some(at(0)), at(5))).await;
        assert_eq!(refused, Err(WriteError::Stale), "its node is alive");
        bed.execute("UPDATE node SET lease_until = 0 WHERE name = 'a'").await;
        assert_eq!(second.write(begin(Some(at(0)), at(6))).await, DONE);
        assert_eq!(first.write(step("stale", 1)).await, Err(WriteError::Stale));
        assert_eq!(stored(&second).await.cursor.as_deref(), Some("c1"));
    } else {
        first.stop().await;
        let again = bed.node("a").await;
        assert_eq!(again.write(step("stale", 1)).await, Err(WriteError::Stale));
        assert_eq!(again.write(begin(Some(at(0)), at(6))).await, DONE);
        assert_eq!(stored(&again).await.cursor.as_deref(), Some("c1"));
    }
}

async fn arrivals_add_up_by_hour_and_go_with_their_time(bed: &Bed) {
    let node = bed.node("a").await;
    bed.execute(&format!(
        "INSERT INTO endpoint (id, workspace_id, name, connector, allow, revision, created_at, updated_at) \
         VALUES (41, {}, 'stripe', 'stripe', '[]', 1, 0, 0)",
        WORKSPACE.as_raw()
    ))
    .await;
    let hour = i32::try_from(at(0).as_unix_ms() / HOUR_MS).unwrap();
    let count = |endpoint, hour, received| CoverageCount {
        endpoint,
        workspace: WORKSPACE,
        hour,
        received,
        recovered: 1,
        backfilled: 3,
        duplicates: 2,
    };
    let gone = EndpointId::from_raw(99);
    let counts = vec![
        count(ENDPOINT, hour, 5),
        count(ENDPOINT, hour - 1, 1),
        count(gone, hour, 9),
    ];
    assert_eq!(node.write(Fact::Coverage(counts)).await, DONE);
    assert_eq!(node.write(Fact::Coverage(vec![count(ENDPOINT, hour, 7)])).await, DONE);
    let hours = node.store.coverage(WORKSPACE, ENDPOINT, at(-HOUR_MS)).await.unwrap();
    let seen: Vec<_> = hours
        .iter()
        .map(|hour| (hour.received, hour.recovered, hour.backfilled, hour.duplicates))
        .collect();
    assert_eq!(seen, [(12, 2, 6, 4), (1, 1, 3, 2)]);
    assert_eq!(node.store.coverage(WORKSPACE, gone, at(-HOUR_MS)).await.unwrap(), []);
    let removed = node.prune(Fact::Prune(Prune::Coverage { before: at(0) })).await;
    assert_eq!(removed.rows, 1);
    assert_eq!(
        node.store
            .coverage(WORKSPACE, ENDPOINT, at(-HOUR_MS))
            .await
            .unwrap()
            .len(),
        1
    );
}
