//! One backfill of an endpoint at a time, read by one node, moved only while that node reads it, paused and ended by people.

use weir_storage::{
    BackfillAsk, BackfillLetGo, BackfillMove, BackfillRow, BackfillStatus, BackfillStep, Fact, FactOutcome,
    MAX_BACKFILLS_KEPT, NewBackfill, Operation, WriteError,
};
use weir_workflow_engine::{BackfillId, EndpointId, WorkspaceId};

use crate::support::{Bed, Node, WORKSPACE, at, both_databases};

both_databases!(
    a_backfill_is_taken_up_moved_and_finished,
    an_endpoint_has_one_open_backfill,
    a_pause_keeps_what_was_read_and_takes_it_from_the_node,
    a_dead_nodes_backfill_is_taken_over_and_its_late_moves_change_nothing,
    old_backfills_make_room,
);

const ENDPOINT: EndpointId = EndpointId::from_raw(41);
const DONE: Result<FactOutcome, WriteError> = Ok(FactOutcome::Written);
const STALE: Result<FactOutcome, WriteError> = Err(WriteError::Stale);

async fn with_endpoint(bed: &Bed) {
    bed.execute(&format!(
        "INSERT INTO endpoint (id, workspace_id, name, connector, allow, revision, created_at, updated_at) \
         VALUES (41, {}, 'stripe', 'stripe', '[]', 1, 0, 0)",
        WORKSPACE.as_raw()
    ))
    .await;
}

fn operate(asked: BackfillAsk) -> Fact {
    Fact::Operate(Box::new(Operation {
        backfill: Some(asked),
        ..Operation::default()
    }))
}

fn begin(id: i64) -> Fact {
    operate(BackfillAsk::Begin(NewBackfill {
        id: BackfillId::from_raw(id),
        workspace: WORKSPACE,
        endpoint: ENDPOINT,
        actor: "token:ops".to_owned(),
        since: at(-1000),
        until: at(-10),
        at: at(0),
    }))
}

fn set(id: i64, from: BackfillStatus, to: BackfillStatus) -> Fact {
    let (id, workspace, at) = (BackfillId::from_raw(id), WORKSPACE, at(3));
    operate(BackfillAsk::Set {
        workspace,
        id,
        from,
        to,
        at,
    })
}

fn claim(id: i64) -> Fact {
    Fact::Backfill(BackfillStep::Claim(BackfillId::from_raw(id)))
}

fn step(id: i64, place: Option<&str>, recovered: u64) -> Fact {
    Fact::Backfill(BackfillStep::Move(BackfillMove {
        id: BackfillId::from_raw(id),
        place: place.map(str::to_owned),
        reached: place.map(|_| at(-500)),
        pages: 1,
        listed: 7,
        recovered,
        duplicates: 2,
        passed_over: 1,
    }))
}

fn let_go(id: i64, end: Option<BackfillStatus>, error: Option<&str>) -> Fact {
    Fact::Backfill(BackfillStep::LetGo(BackfillLetGo {
        id: BackfillId::from_raw(id),
        end,
        error: error.map(str::to_owned),
        failures: u32::from(error.is_some()),
        retry_at: at(0),
        at: at(9),
    }))
}

async fn stored(node: &Node, id: i64) -> BackfillRow {
    let found = node.store.backfill_load(WORKSPACE, BackfillId::from_raw(id)).await;
    found.unwrap().unwrap()
}

async fn ready(node: &Node) -> Vec<i64> {
    let rows = node.store.backfills_ready(&node.identity).await.unwrap();
    rows.iter().map(|row| row.id.as_raw()).collect()
}

async fn a_backfill_is_taken_up_moved_and_finished(bed: &Bed) {
    let node = bed.node("a").await;
    with_endpoint(bed).await;
    assert_eq!(ready(&node).await, Vec::<i64>::new());
    assert_eq!(node.write(begin(5)).await, DONE);
    assert_eq!(ready(&node).await, [5]);
    assert_eq!(node.write(step(5, Some("p0"), 1)).await, STALE, "nobody took it up");
    assert_eq!(node.write(claim(5)).await, DONE);
    assert_eq!(node.write(step(5, Some("p1"), 3)).await, DONE);
    assert_eq!(node.write(step(5, None, 4)).await, DONE);
    let row = stored(&node, 5).await;
    assert_eq!(
        (row.place.as_deref(), row.reached, row.pages, row.listed),
        (Some("p1"), Some(at(-500)), 2, 14)
    );
    assert_eq!((row.recovered, row.duplicates, row.passed_over), (7, 4, 2));
    assert_eq!(
        (row.since, row.until, row.actor.as_str()),
        (at(-1000), at(-10), "token:ops")
    );
    // A failed try: somebody takes it up again.
    assert_eq!(node.write(let_go(5, None, Some("timeout: no answer"))).await, DONE);
    let row = stored(&node, 5).await;
    assert_eq!(
        (row.status, row.failures, row.error.as_deref(), row.finished_at),
        (BackfillStatus::Running, 1, Some("timeout: no answer"), None)
    );
    assert_eq!(node.write(claim(5)).await, DONE);
    // Another page came: what went wrong is over.
    assert_eq!(node.write(step(5, Some("p2"), 0)).await, DONE);
    let row = stored(&node, 5).await;
    assert_eq!((row.failures, row.error), (0, None));
    assert_eq!(node.write(let_go(5, Some(BackfillStatus::Finished), None)).await, DONE);
    let row = stored(&node, 5).await;
    assert_eq!(
        (row.status, row.failures, row.error, row.finished_at),
        (BackfillStatus::Finished, 0, None, Some(at(9)))
    );
    assert_eq!(node.write(step(5, Some("late"), 1)).await, STALE, "it is over");
    assert_eq!(node.write(claim(5)).await, STALE, "it is over");
    assert_eq!(ready(&node).await, Vec::<i64>::new());
    let other = WorkspaceId::from_raw(12);
    assert_eq!(node.store.backfill_load(other, row.id).await.unwrap(), None);
    assert_eq!(node.store.backfills_of(other, ENDPOINT).await.unwrap(), []);
}

async fn an_endpoint_has_one_open_backfill(bed: &Bed) {
    let node = bed.node("a").await;
    with_endpoint(bed).await;
    assert_eq!(node.write(begin(5)).await, DONE);
    assert_eq!(node.write(begin(6)).await, STALE);
    assert_eq!(
        node.write(set(5, BackfillStatus::Running, BackfillStatus::Paused))
            .await,
        DONE
    );
    assert_eq!(node.write(begin(6)).await, STALE, "it is paused and not over");
    assert_eq!(
        node.write(set(5, BackfillStatus::Paused, BackfillStatus::Stopped))
            .await,
        DONE
    );
    let row = stored(&node, 5).await;
    assert_eq!((row.status, row.finished_at), (BackfillStatus::Stopped, Some(at(3))));
    assert_eq!(node.write(begin(6)).await, DONE);
    // Of an endpoint that is gone there is none, and no more of one that is deleted.
    bed.execute("DELETE FROM endpoint").await;
    assert_eq!(node.write(begin(7)).await, STALE);
}

async fn a_pause_keeps_what_was_read_and_takes_it_from_the_node(bed: &Bed) {
    use BackfillStatus::{Finished, Paused, Running};
    let node = bed.node("a").await;
    with_endpoint(bed).await;
    assert_eq!(node.write(begin(5)).await, DONE);
    assert_eq!(node.write(claim(5)).await, DONE);
    assert_eq!(node.write(set(5, Running, Paused)).await, DONE);
    assert_eq!(node.write(set(5, Running, Paused)).await, STALE, "it is paused");
    assert_eq!(node.write(step(5, None, 3)).await, DONE, "what is stored counts");
    // That its node had come to the end meanwhile does not undo the pause.
    assert_eq!(node.write(let_go(5, Some(Finished), None)).await, DONE);
    let row = stored(&node, 5).await;
    assert_eq!((row.status, row.recovered, row.finished_at), (Paused, 3, None));
    assert_eq!(node.write(claim(5)).await, STALE);
    assert_eq!(ready(&node).await, Vec::<i64>::new());
    assert_eq!(node.write(set(5, Paused, Running)).await, DONE);
    assert_eq!(ready(&node).await, [5]);
    assert_eq!(node.write(claim(5)).await, DONE);
}

async fn a_dead_nodes_backfill_is_taken_over_and_its_late_moves_change_nothing(bed: &Bed) {
    let first = bed.node("a").await;
    with_endpoint(bed).await;
    assert_eq!(first.write(begin(5)).await, DONE);
    assert_eq!(first.write(claim(5)).await, DONE);
    assert_eq!(first.write(step(5, Some("p1"), 3)).await, DONE);
    if bed.is_postgres() {
        let second = bed.node("b").await;
        assert_eq!(ready(&second).await, Vec::<i64>::new(), "its node is alive");
        assert_eq!(second.write(claim(5)).await, STALE, "its node is alive");
        bed.execute("UPDATE node SET lease_until = 0 WHERE name = 'a'").await;
        assert_eq!(ready(&second).await, [5]);
        assert_eq!(second.write(claim(5)).await, DONE);
        assert_eq!(first.write(step(5, Some("stale"), 1)).await, STALE);
        assert_eq!(stored(&second, 5).await.place.as_deref(), Some("p1"));
    } else {
        first.stop().await;
        let again = bed.node("a").await;
        assert_eq!(again.write(step(5, Some("stale"), 1)).await, STALE);
        assert_eq!(ready(&again).await, [5]);
        assert_eq!(again.write(claim(5)).await, DONE);
        assert_eq!(stored(&again, 5).await.place.as_deref(), Some("p1"));
    }
}

async fn old_backfills_make_room(bed: &Bed) {
    let node = bed.node("a").await;
    with_endpoint(bed).await;
    let last = i64::from(MAX_BACKFILLS_KEPT) + 2;
    for id in 1..=last {
        assert_eq!(node.write(begin(id)).await, DONE);
        if id < last {
            let stopped = set(id, BackfillStatus::Running, BackfillStatus::Stopped);
            assert_eq!(node.write(stopped).await, DONE);
        }
    }
    let kept = node.store.backfills_of(WORKSPACE, ENDPOINT).await.unwrap();
    let ids: Vec<i64> = kept.iter().map(|row| row.id.as_raw()).collect();
    assert_eq!(ids, (3..=last).rev().collect::<Vec<_>>());
    assert_eq!(
        bed.number("SELECT count(*) FROM backfill").await,
        i64::from(MAX_BACKFILLS_KEPT)
    );
}
