//! Pages: newest first, by id, each tenant its own.

use futures::future::join_all;
use weir_storage::{EventFilter, Fact, RunCommit, RunFilter, RunStatus, RunUpdate};
use weir_workflow_engine::{EventId, RunId, WorkflowId, WorkspaceId};

use crate::support::{Bed, Node, WORKFLOW, WORKSPACE, at, both_databases};

both_databases!(events_by_page_and_filter, runs_by_page_and_filter);

/// A hundred events, one each second; every tenth is another tenant's, every fourth of another type.
async fn fill(bed: &Bed, node: &Node) -> Vec<(EventId, RunId)> {
    let mut pending = Vec::new();
    let mut ids = Vec::new();
    for n in 0..100 {
        let mut accepted = bed.accepted_at(&format!("key {n}"), at(n * 1000), None);
        if n % 10 == 0 {
            accepted.event.workspace = WorkspaceId::from_raw(12);
            accepted.runs[0].workspace = WorkspaceId::from_raw(12);
        }
        if n % 4 == 1 {
            accepted.event.kind = "charge.refunded".to_owned();
            accepted.runs[0].workflow_id = WorkflowId::from_raw(22);
        }
        ids.push((accepted.event.id, accepted.runs[0].id));
        pending.push(node.submit(Fact::Accept(accepted)));
    }
    for answer in join_all(pending).await {
        answer.unwrap();
    }
    ids
}

async fn events_by_page_and_filter(bed: &Bed) {
    let node = bed.node("a").await;
    let ids = fill(bed, &node).await;
    let ours = |filter: fn(usize) -> bool| -> Vec<EventId> {
        (0..100)
            .rev()
            .filter(|n| n % 10 != 0 && filter(*n))
            .map(|n| ids[n].0)
            .collect()
    };
    let check = async |filter: EventFilter, expected: Vec<EventId>| {
        let mut found = Vec::new();
        let mut before = None;
        loop {
            let page = node.store.event_page(WORKSPACE, &filter, before, 20).await.unwrap();
            assert!(page.rows.len() <= 20);
            found.extend(page.rows.iter().map(|row| row.id));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{filter:?}");
    };
    check(EventFilter::default(), ours(|_| true)).await;
    let refunds = EventFilter {
        kind: Some("charge.refunded".to_owned()),
        ..EventFilter::default()
    };
    check(refunds, ours(|n| n % 4 == 1)).await;
    let some = EventFilter {
        since: Some(at(20_000)),
        until: Some(at(60_000)),
        ..EventFilter::default()
    };
    check(some, ours(|n| (20..60).contains(&n))).await;
    let one = EventFilter {
        external_id: Some("key 33".to_owned()),
        ref_id: Some("pi_1".to_owned()),
        ..EventFilter::default()
    };
    check(one, vec![ids[33].0]).await;
    let none = EventFilter {
        connector: Some("hubspot".to_owned()),
        ..EventFilter::default()
    };
    check(none, Vec::new()).await;
    let page = node
        .store
        .event_page(WORKSPACE, &EventFilter::default(), None, 1)
        .await
        .unwrap();
    assert_eq!(
        (page.rows[0].runs.as_slice(), page.rows[0].body_bytes),
        (&[ids[99].1][..], 14)
    );
}

async fn runs_by_page_and_filter(bed: &Bed) {
    let node = bed.node("a").await;
    let ids = fill(bed, &node).await;
    let mut pending = Vec::new();
    for (n, (_, run)) in ids.iter().enumerate() {
        let (status, code) = match n % 5 {
            1 => (RunStatus::Succeeded, None),
            2 => (RunStatus::Failed, Some("http_500")),
            3 => (RunStatus::Failed, Some("effect_unknown")),
            4 => (RunStatus::Waiting, None),
            _ => continue,
        };
        let update = RunUpdate {
            status,
            due_at: None,
            finished_at: None,
            error_code: code.map(ToOwned::to_owned),
            error_step: None,
            dead_letter: None,
        };
        pending.push(node.submit(Fact::Run(RunCommit {
            run: *run,
            seq: 0,
            journal: Vec::new(),
            update: Some(update),
            mail: None,
            leaves: None,
        })));
    }
    join_all(pending).await;
    let check = async |filter: RunFilter, expected: fn(usize) -> bool| {
        let expected: Vec<RunId> = (0..100)
            .rev()
            .filter(|n| n % 10 != 0 && expected(*n))
            .map(|n| ids[n].1)
            .collect();
        let mut found = Vec::new();
        let mut before = None;
        loop {
            let page = node.store.run_page(WORKSPACE, &filter, before, 7).await.unwrap();
            found.extend(page.rows.iter().map(|row| row.id));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{filter:?}");
    };
    let all = RunFilter::default();
    check(all.clone(), |_| true).await;
    check(
        RunFilter {
            status: Some(RunStatus::Succeeded),
            ..all.clone()
        },
        |n| n % 5 == 1,
    )
    .await;
    check(
        RunFilter {
            status: Some(RunStatus::Running),
            ..all.clone()
        },
        |n| n % 5 == 0,
    )
    .await;
    check(
        RunFilter {
            status: Some(RunStatus::Failed),
            ..all.clone()
        },
        |n| n % 5 == 2 || n % 5 == 3,
    )
    .await;
    check(
        RunFilter {
            unknown: true,
            ..all.clone()
        },
        |n| n % 5 == 3,
    )
    .await;
    check(
        RunFilter {
            workflow: Some(WORKFLOW),
            ..all.clone()
        },
        |n| n % 4 != 1,
    )
    .await;
    check(
        RunFilter {
            error_code: Some("effect_unknown".to_owned()),
            ..all.clone()
        },
        |n| n % 5 == 3,
    )
    .await;
    let mixed = RunFilter {
        workflow: Some(WorkflowId::from_raw(22)),
        status: Some(RunStatus::Waiting),
        since: Some(at(40_000)),
        ..all
    };
    check(mixed, |n| n % 4 == 1 && n % 5 == 4 && n >= 40).await;
    let counts = node.store.run_counts(WORKSPACE).await.unwrap();
    assert_eq!(
        (counts.running.value, counts.waiting.value, counts.failed.value),
        (10, 20, 40)
    );
}
