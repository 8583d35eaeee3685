//! Mail reaches a run whoever commits first, once, and only while the run is open.

use std::sync::{Arc, Mutex};

use futures::future::join_all;
use weir_storage::{
    Fact, FactOutcome, Heartbeat, Mail, MailChange, MailKind, NewRun, NewWait, Request, RequestOutcome, RunCommit,
    RunStatus, RunUpdate, WaitKey, WaitKind,
};
use weir_workflow_engine::RunId;

use crate::support::{Bed, Node, WORKSPACE, at, both_databases};

both_databases!(
    an_event_reaches_who_waits_before_or_after_it,
    a_wait_sees_no_event_from_before_its_run_and_none_after_it_is_closed,
    two_nodes_never_miss_each_other,
    the_end_of_a_run_reaches_who_waits_for_it,
    a_repeated_run_counts_for_who_waits_for_the_first,
    a_request_needs_an_open_run_and_an_answer_a_question,
    requests_are_heard_in_the_order_of_their_answers,
    mail_moves_to_the_node_that_takes_over,
);

async fn started(bed: &Bed, node: &Node, key: &str) -> RunId {
    let accepted = bed.accepted(key);
    let run = accepted.runs[0].id;
    node.write(Fact::Accept(accepted)).await.unwrap();
    run
}

fn wait(step: &str, kind: WaitKind) -> NewWait {
    NewWait {
        step: step.to_owned(),
        kind,
        title: (kind == WaitKind::Approval).then(|| "May it?".to_owned()),
        detail: None,
        created_at: at(0),
        due_at: None,
    }
}

fn commit(run: RunId, seq: i32, status: RunStatus, change: MailChange) -> Fact {
    Fact::Run(RunCommit {
        run,
        seq,
        journal: b"entries".to_vec(),
        update: Some(RunUpdate {
            status,
            due_at: None,
            finished_at: None,
            error_code: None,
            error_step: None,
            dead_letter: None,
        }),
        mail: Some(Box::new(change)),
        leaves: None,
    })
}

fn opens(kind: WaitKind) -> MailChange {
    let mut change = MailChange::new(WORKSPACE);
    change.opened.push(wait("paid", kind));
    change
}

fn for_key(key: WaitKey) -> WaitKind {
    WaitKind::Event { key, since: 0 }
}

/// The event that carries `key`; its raw id.
async fn arrives(bed: &Bed, node: &Node, id: &str, key: WaitKey) -> i64 {
    let mut accepted = bed.accepted(id);
    accepted.runs.clear();
    accepted.keys.push(key);
    let event = accepted.event.id.as_raw();
    node.write(Fact::Accept(accepted)).await.unwrap();
    event
}

async fn inbox(node: &Node, run: RunId) -> Vec<(i64, MailKind)> {
    let mail: Vec<Mail> = node.store.run_mail(run, 100).await.unwrap();
    mail.into_iter().map(|mail| (mail.id, mail.kind)).collect()
}

async fn an_event_reaches_who_waits_before_or_after_it(bed: &Bed) {
    let node = bed.node("a").await;
    let told: Arc<Mutex<Vec<RunId>>> = Arc::default();
    let sink = Arc::clone(&told);
    node.writer
        .on_mail(move |runs| sink.lock().unwrap().extend_from_slice(runs));
    let key = WaitKey::of(&["event", "order", "7"]);
    let (early, late) = (started(bed, &node, "1").await, started(bed, &node, "2").await);
    node.write(commit(early, 0, RunStatus::Waiting, opens(for_key(key))))
        .await
        .unwrap();
    let event = arrives(bed, &node, "3", key).await;
    arrives(bed, &node, "4", WaitKey::of(&["event", "order", "8"])).await;
    node.write(commit(late, 0, RunStatus::Waiting, opens(for_key(key))))
        .await
        .unwrap();
    assert_eq!(inbox(&node, early).await, [(event, MailKind::Event)]);
    assert_eq!(inbox(&node, late).await, [(event, MailKind::Event)]);
    assert_eq!(*told.lock().unwrap(), [early, late]);
    assert_eq!(
        node.store.run_ids_with_mail(&node.identity, None, 10).await.unwrap(),
        [early, late]
    );
    assert_eq!(
        node.store
            .run_ids_with_mail(&node.identity, Some(early), 10)
            .await
            .unwrap(),
        [late]
    );

    // Who only looks finds the same.
    let found = async |since: i64| node.store.events_with_key(key, since, 10).await.unwrap();
    let event_id = weir_workflow_engine::EventId::from_raw(event);
    assert_eq!(found(event).await, [event_id]);
    assert_eq!(found(0).await, [event_id]);
    assert_eq!(found(event + 1).await, []);

    // The same event again is a duplicate, and tells nobody anything.
    let mut again = bed.accepted("3");
    again.keys.push(key);
    node.write(Fact::Accept(again)).await.unwrap();
    assert_eq!(inbox(&node, early).await.len(), 1);

    let mut taken = MailChange::new(WORKSPACE);
    taken.taken.push(event);
    taken.closed.push("paid".to_owned());
    node.write(commit(early, 1, RunStatus::Running, taken)).await.unwrap();
    assert_eq!(inbox(&node, early).await, []);
    arrives(bed, &node, "5", key).await;
    assert_eq!(inbox(&node, early).await, [], "it waits no longer");
    assert_eq!(inbox(&node, late).await.len(), 2);
}

async fn a_wait_sees_no_event_from_before_its_run_and_none_after_it_is_closed(bed: &Bed) {
    let node = bed.node("a").await;
    let key = WaitKey::of(&["event", "order", "7"]);
    let before = arrives(bed, &node, "1", key).await;
    let run = started(bed, &node, "2").await;
    let since = run.as_raw();
    assert!(before < since);
    node.write(commit(
        run,
        0,
        RunStatus::Waiting,
        opens(WaitKind::Event { key, since }),
    ))
    .await
    .unwrap();
    assert_eq!(inbox(&node, run).await, []);
    let after = arrives(bed, &node, "3", key).await;
    assert_eq!(inbox(&node, run).await, [(after, MailKind::Event)]);
}

/// One node stores events while another one's runs begin to wait for them, again and again at the same moment. On
/// SQLite there is one node, and the batches mix.
async fn two_nodes_never_miss_each_other(bed: &Bed) {
    let here = bed.node("a").await;
    let there = if bed.is_postgres() {
        Some(bed.node("b").await)
    } else {
        None
    };
    let other = there.as_ref().unwrap_or(&here);
    let mut runs = Vec::new();
    for number in 0..64 {
        runs.push(started(bed, &here, &format!("run {number}")).await);
    }
    for round in 0..20 {
        let keys: Vec<WaitKey> = (0..runs.len())
            .map(|run| WaitKey::of(&["k", &format!("{round} {run}")]))
            .collect();
        let mut pending = Vec::new();
        for (number, (run, key)) in runs.iter().zip(&keys).enumerate() {
            let mut change = MailChange::new(WORKSPACE);
            change.opened.push(wait(&format!("step {round}"), for_key(*key)));
            pending.push(here.submit(commit(*run, round, RunStatus::Waiting, change)));
            // The other one writes the same keys in the opposite order.
            let mut accepted = bed.accepted(&format!("event {round} {number}"));
            accepted.runs.clear();
            accepted.keys.push(keys[keys.len() - 1 - number]);
            pending.push(other.submit(Fact::Accept(accepted)));
        }
        for answer in join_all(pending).await {
            answer.unwrap();
        }
    }
    for run in runs {
        assert_eq!(inbox(&here, run).await.len(), 20, "{run}");
    }
}

async fn the_end_of_a_run_reaches_who_waits_for_it(bed: &Bed) {
    let node = bed.node("a").await;
    let (child, early, late) = (
        started(bed, &node, "1").await,
        started(bed, &node, "2").await,
        started(bed, &node, "3").await,
    );
    node.write(commit(early, 0, RunStatus::Waiting, opens(WaitKind::Run(child))))
        .await
        .unwrap();
    assert_eq!(inbox(&node, early).await, []);
    let mut ends = MailChange::new(WORKSPACE);
    ends.ends = Some(child);
    node.write(commit(child, 0, RunStatus::Succeeded, ends)).await.unwrap();
    node.write(commit(late, 0, RunStatus::Waiting, opens(WaitKind::Run(child))))
        .await
        .unwrap();
    for run in [early, late] {
        assert_eq!(inbox(&node, run).await, [(child.as_raw(), MailKind::RunEnded)]);
    }
}

async fn a_repeated_run_counts_for_who_waits_for_the_first(bed: &Bed) {
    let node = bed.node("a").await;
    let accepted = bed.accepted("child");
    let first = accepted.runs[0].clone();
    node.write(Fact::Accept(accepted)).await.unwrap();
    let over = |run: RunId, status: RunStatus| {
        let mut ends = MailChange::new(WORKSPACE);
        ends.ends = Some(first.id);
        commit(run, 0, status, ends)
    };
    let again = async || {
        let replay = NewRun {
            id: RunId::from_raw(bed.id()),
            replay_of: Some(first.id),
            ..first.clone()
        };
        let run = replay.id;
        node.write(Fact::Start(vec![replay])).await.unwrap();
        run
    };
    let waiter = async |key: &str| {
        let run = started(bed, &node, key).await;
        let opened = commit(run, 0, RunStatus::Waiting, opens(WaitKind::Run(first.id)));
        node.write(opened).await.unwrap();
        run
    };
    let told = async |waiter: RunId| {
        let mail = inbox(&node, waiter).await;
        mail.into_iter().map(|(run, _)| run).collect::<Vec<_>>()
    };

    node.write(over(first.id, RunStatus::Failed)).await.unwrap();
    let hopeless = waiter("1").await;
    assert_eq!(told(hopeless).await, [first.id.as_raw()]);
    let second = again().await;
    let patient = waiter("2").await;
    assert!(told(patient).await.is_empty(), "one is under way");
    node.write(over(second, RunStatus::Failed)).await.unwrap();
    assert_eq!(told(patient).await, [second.as_raw()]);
    let late = waiter("3").await;
    assert_eq!(told(late).await, [second.as_raw()], "the newest end");
    let third = again().await;
    node.write(over(third, RunStatus::Succeeded)).await.unwrap();
    // What succeeded has succeeded, whatever is tried after it.
    let fourth = again().await;
    let lucky = waiter("4").await;
    assert_eq!(told(lucky).await, [third.as_raw()]);
    node.write(over(fourth, RunStatus::Failed)).await.unwrap();
    let luckier = waiter("5").await;
    assert_eq!(told(luckier).await, [third.as_raw()]);
}

async fn a_request_needs_an_open_run_and_an_answer_a_question(bed: &Bed) {
    let node = bed.node("a").await;
    let run = started(bed, &node, "1").await;
    let request = |answers: Option<&str>| {
        Fact::Request(Request {
            id: bed.id(),
            workspace: WORKSPACE,
            run,
            body: r#"{"cancel":{}}"#.to_owned(),
            at: at(0),
            answers: answers.map(str::to_owned),
            audit: None,
        })
    };
    let outcome = async |fact| match node.write(fact).await.unwrap() {
        FactOutcome::Request(outcome) => outcome,
        other => panic!("{other:?}"),
    };
    assert_eq!(outcome(request(Some("paid"))).await, RequestOutcome::NotAsked);
    node.write(commit(run, 0, RunStatus::Waiting, opens(WaitKind::Approval)))
        .await
        .unwrap();
    let asked = node.store.approval_page(WORKSPACE, None, 10).await.unwrap();
    assert_eq!(
        asked
            .rows
            .iter()
            .map(|row| (row.run, &*row.step, &*row.title))
            .collect::<Vec<_>>(),
        [(run, "paid", "May it?")]
    );
    let elsewhere = weir_workflow_engine::WorkspaceId::from_raw(12);
    assert_eq!(node.store.approval_page(elsewhere, None, 10).await.unwrap().rows, []);
    assert_eq!(outcome(request(Some("paid"))).await, RequestOutcome::Delivered);
    assert_eq!(
        outcome(request(Some("paid"))).await,
        RequestOutcome::NotAsked,
        "answered once"
    );
    assert_eq!(node.store.approval_page(WORKSPACE, None, 10).await.unwrap().rows, []);
    assert_eq!(outcome(request(None)).await, RequestOutcome::Delivered);
    assert_eq!(inbox(&node, run).await.len(), 2);
    let mut wrong = Request {
        id: bed.id(),
        workspace: elsewhere,
        run,
        body: "{}".to_owned(),
        at: at(0),
        answers: None,
        audit: None,
    };
    assert_eq!(
        outcome(Fact::Request(wrong.clone())).await,
        RequestOutcome::NotOpen,
        "another tenant"
    );
    node.write(commit(run, 1, RunStatus::Succeeded, MailChange::new(WORKSPACE)))
        .await
        .unwrap();
    wrong.workspace = WORKSPACE;
    assert_eq!(
        outcome(Fact::Request(wrong)).await,
        RequestOutcome::NotOpen,
        "it has ended"
    );
}

/// A pause and the resume after it, taken by two servers of which the second one's clock is behind.
async fn requests_are_heard_in_the_order_of_their_answers(bed: &Bed) {
    let node = bed.node("a").await;
    let run = started(bed, &node, "1").await;
    let early = bed.id();
    for (id, body) in [(bed.id(), "first"), (early, "second"), (bed.id(), "third")] {
        let request = Fact::Request(Request {
            id,
            workspace: WORKSPACE,
            run,
            body: body.to_owned(),
            at: at(0),
            answers: None,
            audit: None,
        });
        assert_eq!(
            node.write(request).await.unwrap(),
            FactOutcome::Request(RequestOutcome::Delivered)
        );
    }
    let mail: Vec<Mail> = node.store.run_mail(run, 100).await.unwrap();
    let bodies: Vec<&str> = mail.iter().filter_map(|mail| mail.body.as_deref()).collect();
    assert_eq!(bodies, ["first", "second", "third"]);
}

async fn mail_moves_to_the_node_that_takes_over(bed: &Bed) {
    let node = bed.node("a").await;
    let run = started(bed, &node, "1").await;
    let key = WaitKey::of(&["event", "order", "7"]);
    node.write(commit(run, 0, RunStatus::Waiting, opens(for_key(key))))
        .await
        .unwrap();
    arrives(bed, &node, "2", key).await;
    node.stop().await;
    let successor = bed.node("a").await;
    let beat = Heartbeat {
        id_high_water: bed.id(),
        due_before: at(0),
        free_limit: 1000,
    };
    match successor.write(Fact::Heartbeat(beat)).await.unwrap() {
        FactOutcome::Heartbeat(reply) => assert_eq!(reply.mail, 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        successor
            .store
            .run_ids_with_mail(&successor.identity, None, 10)
            .await
            .unwrap(),
        [run]
    );
}
