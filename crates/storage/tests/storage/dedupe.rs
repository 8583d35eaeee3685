//! An event that comes again is the same event: in one batch, later, on the other side of midnight, weeks after.

use futures::future::join_all;
use weir_storage::{AcceptOutcome, Fact, FactOutcome, Prune};
use weir_workflow_engine::{EventId, Timestamp};

use crate::support::{Bed, Node, at, both_databases, days};

both_databases!(
    repeats_in_one_batch,
    repeats_on_other_days,
    scopes_are_apart,
    forgetting,
    both_sides_of_midnight_at_once,
    batches_that_cross_are_all_answered
);

const NEW: FactOutcome = FactOutcome::Accepted(AcceptOutcome::New);

fn duplicate(of: EventId) -> FactOutcome {
    FactOutcome::Accepted(AcceptOutcome::Duplicate { of })
}

async fn repeats_in_one_batch(bed: &Bed) {
    let node = bed.node("a").await;
    let accepted: Vec<_> = (0..60).map(|n| bed.accepted(&format!("key {}", n % 20))).collect();
    let ids: Vec<EventId> = accepted.iter().map(|accepted| accepted.event.id).collect();
    let pending: Vec<_> = accepted
        .into_iter()
        .map(|accepted| node.submit(Fact::Accept(accepted)))
        .collect();
    for (n, answer) in join_all(pending).await.into_iter().enumerate() {
        let expected = if n < 20 { NEW } else { duplicate(ids[n % 20]) };
        assert_eq!(answer, Ok(expected), "{n}");
    }
    assert_eq!(bed.number("SELECT count(*) FROM event").await, 20);
    assert_eq!(bed.number("SELECT count(*) FROM run").await, 20);
    let statistics = node.writer.statistics();
    assert_eq!((statistics.accepted, statistics.duplicates), (20, 40));
}

async fn check(bed: &Bed, node: &Node, key: &str, first: (i64, Option<i64>), again: (i64, Option<i64>)) {
    let accepted = |(received, anchor): (i64, Option<i64>)| bed.accepted_at(key, at(received), anchor.map(at));
    let original = accepted(first);
    let id = original.event.id;
    assert_eq!(node.write(Fact::Accept(original)).await, Ok(NEW), "{key}");
    assert_eq!(
        node.write(Fact::Accept(accepted(again))).await,
        Ok(duplicate(id)),
        "{key}"
    );
}

async fn repeats_on_other_days(bed: &Bed) {
    let node = bed.node("a").await;
    const MIDNIGHT: i64 = 12 * 3_600_000;
    check(bed, &node, "at once", (0, None), (1, None)).await;
    check(
        bed,
        &node,
        "with its time, a second later",
        (0, Some(-10)),
        (1000, Some(-10)),
    )
    .await;
    check(
        bed,
        &node,
        "with its time, three days later",
        (0, Some(-10)),
        (days(3), Some(-10)),
    )
    .await;
    check(
        bed,
        &node,
        "with its time, a month later",
        (0, Some(-10)),
        (days(30), Some(-10)),
    )
    .await;
    check(bed, &node, "with an old time", (days(10), Some(0)), (days(12), Some(0))).await;
    check(bed, &node, "first known without a time", (0, None), (days(9), Some(0))).await;
    check(bed, &node, "over midnight", (MIDNIGHT - 1, None), (MIDNIGHT + 1, None)).await;
    check(
        bed,
        &node,
        "over midnight and an hour",
        (MIDNIGHT - 1, None),
        (MIDNIGHT + 3_600_000, None),
    )
    .await;
    check(
        bed,
        &node,
        "a rounded time over midnight",
        (0, Some(-MIDNIGHT)),
        (1, Some(-MIDNIGHT - 1)),
    )
    .await;
    check(
        bed,
        &node,
        "without a time, two weeks later",
        (0, None),
        (days(14), None),
    )
    .await;
    check(bed, &node, "without a time, a month later", (0, None), (days(30), None)).await;
    check(
        bed,
        &node,
        "a clock that was set back a day",
        (days(1), None),
        (0, None),
    )
    .await;
    check(
        bed,
        &node,
        "a time from the future",
        (0, Some(days(400))),
        (days(2), Some(days(400))),
    )
    .await;
}

async fn scopes_are_apart(bed: &Bed) {
    let node = bed.node("a").await;
    let mut other = bed.accepted("k");
    other.dedupe.scope = "another endpoint".to_owned();
    let mut elsewhere = bed.accepted("k");
    elsewhere.event.workspace = weir_workflow_engine::WorkspaceId::from_raw(99);
    for accepted in [bed.accepted("k"), other, elsewhere] {
        assert_eq!(node.write(Fact::Accept(accepted)).await, Ok(NEW));
    }
}

async fn forgetting(bed: &Bed) {
    let node = bed.node("a").await;
    let accepted = bed.accepted("k");
    let id = accepted.event.id;
    assert_eq!(node.write(Fact::Accept(accepted)).await, Ok(NEW));
    let prune = |day: i64| Fact::Prune(Prune::Dedupe { now: at(days(day)) });
    assert_eq!(node.prune(prune(45)).await.rows, 0);
    assert_eq!(node.write(Fact::Accept(bed.accepted("k"))).await, Ok(duplicate(id)));
    assert_eq!(node.prune(prune(46)).await.rows, 1);
    assert_eq!(bed.number("SELECT count(*) FROM dedupe").await, 0);
}

/// Two nodes with clocks a second apart get the same delivery at midnight.
async fn both_sides_of_midnight_at_once(bed: &Bed) {
    const MIDNIGHT: i64 = 12 * 3_600_000;
    let first = bed.node("a").await;
    let second = if bed.is_postgres() {
        Some(bed.node("b").await)
    } else {
        None
    };
    let second = second.as_ref().unwrap_or(&first);
    for round in 0..50 {
        let key = format!("key {round}");
        let before = bed.accepted_at(&key, at(MIDNIGHT - 500), None::<Timestamp>);
        let after = bed.accepted_at(&key, at(MIDNIGHT + 500), None::<Timestamp>);
        let ids = [before.event.id, after.event.id];
        let answers = join_all([first.submit(Fact::Accept(before)), second.submit(Fact::Accept(after))]).await;
        let new: Vec<usize> = (0..2).filter(|n| answers[*n] == Ok(NEW)).collect();
        assert_eq!(new.len(), 1, "{answers:?}");
        assert_eq!(answers[1 - new[0]], Ok(duplicate(ids[new[0]])));
    }
    assert_eq!(bed.number("SELECT count(*) FROM event").await, 50);
    assert_eq!(
        bed.number("SELECT count(*) FROM dedupe WHERE event_id NOT IN (SELECT id FROM event)")
            .await,
        0
    );
}

/// Two nodes get the same deliveries in opposite order, batch by batch.
async fn batches_that_cross_are_all_answered(bed: &Bed) {
    const EVENTS: usize = 256;
    let first = bed.node("a").await;
    let second = if bed.is_postgres() {
        Some(bed.node("b").await)
    } else {
        None
    };
    let second = second.as_ref().unwrap_or(&first);
    for round in 0..5 {
        let key = |n: usize| format!("key {round} {n}");
        // Repeats inside of a batch as well.
        let forwards = (0..EVENTS).map(|n| first.submit(Fact::Accept(bed.accepted(&key(n / 2)))));
        let backwards = (0..EVENTS)
            .rev()
            .map(|n| second.submit(Fact::Accept(bed.accepted(&key(n / 2)))));
        let answers = join_all(forwards.zip(backwards).flat_map(|(one, other)| [one, other])).await;
        let new = answers.iter().filter(|answer| **answer == Ok(NEW)).count();
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(new, EVENTS / 2);
    }
}
