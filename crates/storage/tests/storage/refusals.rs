//! Refused requests: counted exactly, kept in detail within bounds.

use bytes::Bytes;
use futures::future::join_all;
use weir_storage::{Fact, FactOutcome, Prune, RefusedFilter, RefusedFurther, RefusedRequest};
use weir_workflow_engine::{EndpointId, RefusalId};

use crate::support::{Bed, WORKSPACE, at, both_databases, days};

both_databases!(refusals_are_counted_and_bounded);

fn refused(bed: &Bed, offset_ms: i64, reason: &str, body: usize) -> RefusedRequest {
    RefusedRequest {
        id: RefusalId::from_raw(bed.ids.next_raw(at(offset_ms))),
        workspace: WORKSPACE,
        endpoint: Some(EndpointId::from_raw(41)),
        received_at: at(offset_ms),
        reason: reason.to_owned(),
        detail: "the signature does not match".to_owned(),
        client_ip: Some("192.0.2.1".to_owned()),
        headers: "{}".to_owned(),
        body: Bytes::from(vec![b'x'; body]),
    }
}

async fn refusals_are_counted_and_bounded(bed: &Bed) {
    let node = bed.node("a").await;
    let mut pending = Vec::new();
    for n in 0..60 {
        let reason = if n % 3 == 0 { "stale_timestamp" } else { "bad_signature" };
        pending.push(node.submit(Fact::Refused(refused(bed, n, reason, 20_000))));
    }
    pending.push(node.submit(Fact::Refused(refused(bed, days(2), "bad_signature", 3))));
    for answer in join_all(pending).await {
        assert_eq!(answer, Ok(FactOutcome::Written));
    }
    let all = RefusedFilter::default();
    let newest = node.store.refused_page(WORKSPACE, &all, None, 2).await.unwrap();
    assert_eq!((newest.rows[0].body_bytes, newest.rows[0].body.len()), (3, 3));
    assert_eq!(
        (newest.rows[1].body_bytes, newest.rows[1].body.len()),
        (20_000, 16 << 10)
    );
    let older = node
        .store
        .refused_page(WORKSPACE, &all, newest.next, 200)
        .await
        .unwrap();
    assert_eq!((older.rows.len(), older.next), (59, None));
    let stale = RefusedFilter {
        reason: Some("stale_timestamp".to_owned()),
        ..RefusedFilter::default()
    };
    assert_eq!(
        node.store
            .refused_page(WORKSPACE, &stale, None, 200)
            .await
            .unwrap()
            .rows
            .len(),
        20
    );

    let count = |rows: Vec<weir_storage::RefusedCount>| {
        rows.into_iter()
            .map(|row| (row.hour, row.reason, row.count))
            .collect::<Vec<_>>()
    };
    let mut counts = count(node.store.refused_counts(WORKSPACE, at(0)).await.unwrap());
    counts.sort();
    let expected = [
        (at(0), "bad_signature", 40),
        (at(0), "stale_timestamp", 20),
        (at(days(2)), "bad_signature", 1),
    ];
    assert_eq!(
        counts,
        expected.map(|(hour, reason, count)| (hour, reason.to_owned(), count))
    );

    let prune = |before| Fact::Prune(Prune::Refused { before });
    assert_eq!(node.prune(prune(at(days(1)))).await.rows, 60);
    assert_eq!(node.prune(prune(at(days(1)))).await.rows, 0);
    assert_eq!(
        node.store.refused_counts(WORKSPACE, at(0)).await.unwrap().len(),
        3,
        "the counters outlive the rows"
    );
    assert_eq!(
        node.prune(Fact::Prune(Prune::RefusedCounts { before: at(days(1)) }))
            .await
            .rows,
        2
    );

    // In a flood the counters stay exact, and the details stop at their bound until the next slice.
    for part in 0..6_i64 {
        let flood = (0..2000).map(|n| {
            let offset = days(2) + part * 2000 + n;
            node.submit(Fact::Refused(refused(bed, offset, "flood", 100)))
        });
        join_all(flood.collect::<Vec<_>>()).await;
    }
    // Those of which nothing is kept count as well.
    let further = RefusedFurther {
        workspace: WORKSPACE,
        endpoint: EndpointId::from_raw(41),
        received_at: at(days(2)),
        reason: "flood".to_owned(),
        count: 7,
    };
    for _ in 0..2 {
        let counted = node.write(Fact::RefusedFurther(further.clone())).await;
        assert_eq!(counted, Ok(FactOutcome::Written));
    }
    let kept = "SELECT count(*) FROM refused WHERE reason = 'flood'";
    assert_eq!(bed.number(kept).await, 10_000);
    let counted = "SELECT CAST(sum(count) AS BIGINT) FROM refused_count WHERE reason = 'flood'";
    assert_eq!(bed.number(counted).await, 12_014);

    // Beyond their bounds the oldest go, however young.
    bed.execute("UPDATE refused SET stored_bytes = 8388").await;
    let mut left = bed.number("SELECT count(*) FROM refused").await;
    loop {
        let rows = node.prune(prune(at(0))).await.rows;
        if rows == 0 {
            break;
        }
        assert!(rows <= 1000, "one slice at a time");
        left -= i64::try_from(rows).unwrap();
    }
    assert_eq!(bed.number("SELECT count(*) FROM refused").await, left);
    assert_eq!(left, (32 << 20) / 8388);
}
