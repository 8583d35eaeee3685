//! Retention: an event goes with all that came of it, or stays whole.

use bytes::Bytes;
use weir_storage::{Accepted, AuditEntry, ConfigChange, Fact, History, NewRun, Prune, RunStatus};
use weir_workflow_engine::{EventId, RunId};

use crate::support::{Bed, Node, WORKSPACE, at, both_databases, commit, days, noise};

both_databases!(
    an_event_goes_with_all_that_came_of_it,
    an_open_run_keeps_its_event,
    large_histories_go_in_slices,
    the_oldest_are_looked_at_in_order,
    old_entries_of_the_audit_trail_go
);

fn history(accepted: &Accepted) -> History {
    History {
        event: accepted.event.id,
        runs: accepted.runs.iter().map(|run| run.id).collect(),
    }
}

/// An event whose run wrote two journal rows and stands like this.
async fn event(bed: &Bed, node: &Node, key: &str, body: usize, status: RunStatus) -> History {
    let mut accepted = bed.accepted(key);
    accepted.event.body = Bytes::from(noise(body));
    let history = history(&accepted);
    node.write(Fact::Accept(accepted)).await.unwrap();
    node.write(commit(history.runs[0], 0, "first", None)).await.unwrap();
    node.write(commit(history.runs[0], 1, "second", Some(status)))
        .await
        .unwrap();
    history
}

async fn replay(bed: &Bed, node: &Node, of: &History, status: RunStatus) -> RunId {
    let id = RunId::from_raw(bed.id());
    let run = NewRun {
        id,
        root_id: of.runs[0],
        replay_of: Some(of.runs[0]),
        workspace: WORKSPACE,
        event_id: of.event,
        workflow_id: crate::support::WORKFLOW,
        version_id: weir_workflow_engine::VersionId::from_raw(31),
        started_at: at(0),
        turn: None,
        owner: weir_storage::RunOwner::ThisNode,
    };
    node.write(Fact::Start(vec![run])).await.unwrap();
    node.write(commit(id, 0, "again", Some(status))).await.unwrap();
    id
}

/// Rows of each table that a history has rows in.
async fn left(bed: &Bed) -> [i64; 5] {
    let mut left = [0; 5];
    for (count, table) in left.iter_mut().zip(["event", "run", "journal", "payload", "dropped"]) {
        *count = bed.number(&format!("SELECT count(*) FROM {table}")).await;
    }
    left
}

async fn an_event_goes_with_all_that_came_of_it(bed: &Bed) {
    let node = bed.node("a").await;
    let gone = event(bed, &node, "1", 100_000, RunStatus::Succeeded).await;
    replay(bed, &node, &gone, RunStatus::Failed).await;
    let stays = event(bed, &node, "2", 100_000, RunStatus::Succeeded).await;
    let without_runs = {
        let mut accepted = bed.accepted("3");
        accepted.runs.clear();
        let history = history(&accepted);
        node.write(Fact::Accept(accepted)).await.unwrap();
        history
    };
    assert_eq!(left(bed).await, [3, 3, 5, 2, 0]);
    let removed = node
        .prune(Fact::Prune(Prune::History(vec![gone.clone(), without_runs])))
        .await;
    assert_eq!(left(bed).await, [1, 1, 2, 1, 0]);
    // Two events, two runs, three journal rows, one large value.
    assert_eq!(removed.rows, 8);
    assert!((100_000..101_000).contains(&removed.bytes), "{removed:?}");
    assert!(node.store.event_load(WORKSPACE, gone.event).await.unwrap().is_none());
    assert!(node.store.run_load(WORKSPACE, gone.runs[0]).await.unwrap().is_none());
    assert_eq!(node.store.journal_load(WORKSPACE, gone.runs[0]).await.unwrap(), []);
    assert_eq!(
        node.store.journal_load(WORKSPACE, stays.runs[0]).await.unwrap().len(),
        2
    );
    // It is still recognised.
    let again = node.write(Fact::Accept(bed.accepted("1"))).await.unwrap();
    assert!(format!("{again:?}").contains("Duplicate"), "{again:?}");
    let again = node.prune(Fact::Prune(Prune::History(vec![gone]))).await;
    assert_eq!(again.rows, 0);
}

async fn an_open_run_keeps_its_event(bed: &Bed) {
    let node = bed.node("a").await;
    let mut open = Vec::new();
    for (key, status) in [
        ("1", RunStatus::Running),
        ("2", RunStatus::Waiting),
        ("3", RunStatus::Paused),
    ] {
        open.push(event(bed, &node, key, 10, status).await);
    }
    let replayed = event(bed, &node, "4", 10, RunStatus::Succeeded).await;
    replay(bed, &node, &replayed, RunStatus::Waiting).await;
    open.push(replayed);
    let mailed = event(bed, &node, "5", 10, RunStatus::Succeeded).await;
    bed.execute(&format!(
        "INSERT INTO inbox (run_id, id, kind, created_at) VALUES (1, {}, 0, 0)",
        mailed.event.as_raw()
    ))
    .await;
    open.push(mailed);
    let before = left(bed).await;
    let over = event(bed, &node, "6", 10, RunStatus::Succeeded).await;
    open.push(over);
    node.prune(Fact::Prune(Prune::History(open))).await;
    assert_eq!(left(bed).await, before);
}

async fn large_histories_go_in_slices(bed: &Bed) {
    let node = bed.node("a").await;
    let accepted = bed.accepted("1");
    let wanted = history(&accepted);
    let run = wanted.runs[0];
    node.write(Fact::Accept(accepted)).await.unwrap();
    let large = String::from_utf8(noise(150_000).iter().map(|byte| b'a' + byte % 26).collect()).unwrap();
    let mut pending = Vec::new();
    for seq in 0..2500 {
        let text = if seq < 40 { large.as_str() } else { "small" };
        let status = (seq == 2499).then_some(RunStatus::Succeeded);
        pending.push(node.submit(commit(run, seq, text, status)));
    }
    for answer in pending {
        answer.await.unwrap();
    }
    let first = node.prune(Fact::Prune(Prune::History(vec![wanted.clone()]))).await;
    // Gone for everybody at once; a thousand journal rows and 32 large values with it.
    assert!(node.store.event_load(WORKSPACE, wanted.event).await.unwrap().is_none());
    assert!(node.store.run_load(WORKSPACE, run).await.unwrap().is_none());
    assert_eq!(left(bed).await, [0, 0, 1500, 8, 1]);
    let mut rows = first.rows;
    loop {
        let removed = node.prune(Fact::Prune(Prune::Leftovers)).await;
        if removed.rows == 0 {
            break;
        }
        assert!(removed.rows <= 1000 + 32 + 100, "{removed:?}");
        rows += removed.rows;
    }
    assert_eq!(left(bed).await, [0; 5]);
    // Event, run, journal, large values, and the note of what was left.
    assert_eq!(rows, 1 + 1 + 2500 + 40 + 1);
}

async fn the_oldest_are_looked_at_in_order(bed: &Bed) {
    let node = bed.node("a").await;
    let mut expected: Vec<EventId> = Vec::new();
    for day in 0..4 {
        let accepted = bed.accepted_at(&format!("{day}"), at(days(day)), None);
        expected.push(accepted.event.id);
        let history = history(&accepted);
        node.write(Fact::Accept(accepted)).await.unwrap();
        if day == 1 {
            node.write(commit(history.runs[0], 0, "x", Some(RunStatus::Failed)))
                .await
                .unwrap();
            replay(bed, &node, &history, RunStatus::Succeeded).await;
        }
    }
    assert_eq!(node.store.oldest_event().await.unwrap(), Some(at(0)));
    let page = node.store.old_events(None, at(days(2)), 500).await.unwrap();
    let ids: Vec<EventId> = page.iter().map(|old| old.history.event).collect();
    assert_eq!(ids, expected[..2]);
    assert_eq!(
        (page[0].received_at, page[0].runs.as_slice()),
        (at(0), &[(RunStatus::Running, None)][..])
    );
    assert_eq!(page[1].runs.len(), 2);
    assert!(page[1].runs.iter().any(|(status, _)| *status == RunStatus::Failed));
    let rest = node.store.old_events(Some(expected[0]), at(days(9)), 2).await.unwrap();
    let ids: Vec<EventId> = rest.iter().map(|old| old.history.event).collect();
    assert_eq!(ids, expected[1..3]);
}

async fn old_entries_of_the_audit_trail_go(bed: &Bed) {
    let node = bed.node("a").await;
    let entry = |day| AuditEntry {
        id: bed.ids.next_raw(at(days(day))),
        workspace: WORKSPACE,
        at: at(days(day)),
        actor: "system".to_owned(),
        action: "x".to_owned(),
        subject: "y".to_owned(),
        client_ip: None,
        request_id: None,
        detail: "{}".to_owned(),
    };
    let change = ConfigChange {
        audit: vec![entry(0), entry(1), entry(2)],
        ..ConfigChange::default()
    };
    node.write(Fact::Config(change)).await.unwrap();
    let removed = node.prune(Fact::Prune(Prune::Audit { before: at(days(2)) })).await;
    assert_eq!(removed.rows, 2);
    assert_eq!(bed.number("SELECT count(*) FROM audit").await, 1);
}

/// Disk that was used is given back to the file system, but for a reserve.
#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_shrinks() {
    let bed = Bed::sqlite();
    let node = bed.node("a").await;
    let mut histories = Vec::new();
    for number in 0..80 {
        histories.push(event(&bed, &node, &number.to_string(), 1 << 20, RunStatus::Succeeded).await);
    }
    let pages = "SELECT page_count FROM pragma_page_count";
    let before = bed.number(pages).await;
    assert!(before > (80 << 20) / 8192);
    for slice in histories.chunks(20) {
        node.prune(Fact::Prune(Prune::History(slice.to_vec()))).await;
    }
    while node.prune(Fact::Prune(Prune::Leftovers)).await.rows > 0 {}
    // Each slice gives back a few: others follow with what is deleted later.
    for number in 0..200 {
        let small = event(&bed, &node, &format!("small {number}"), 10, RunStatus::Succeeded).await;
        node.prune(Fact::Prune(Prune::History(vec![small]))).await;
    }
    let (after, free) = (
        bed.number(pages).await,
        bed.number("SELECT freelist_count FROM pragma_freelist_count").await,
    );
    assert!(after < before / 3, "{before} {after}");
    assert!((1..=(17 << 20) / 8192).contains(&free), "the reserve is {free} pages");
}
