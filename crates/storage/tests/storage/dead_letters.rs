//! Dead letters: one row per failed run, grouped by cause, marked by one row, gone when a replay stands for them.

use weir_storage::{
    CauseKey, CauseNote, CauseRow, CauseState, Fact, NewDeadLetter, NewRun, Operation, RunCommit, RunStatus, RunUpdate,
};
use weir_workflow_engine::RunId;

use crate::support::{Bed, Node, WORKSPACE, at, both_databases, commit};

both_databases!(
    failed_runs_stand_together_by_their_cause,
    a_mark_is_one_row_for_all_and_later_failures_open_it_again,
    a_replay_stands_for_its_family,
    counts_stop_at_their_limit
);

async fn started(bed: &Bed, node: &Node, key: &str) -> NewRun {
    let accepted = bed.accepted(key);
    let run = accepted.runs[0].clone();
    node.write(Fact::Accept(accepted)).await.unwrap();
    run
}

async fn failed(bed: &Bed, node: &Node, key: &str, cause: i64) -> NewRun {
    let run = started(bed, node, key).await;
    let update = RunUpdate {
        status: RunStatus::Failed,
        due_at: None,
        finished_at: Some(at(7)),
        error_code: Some("http_422".to_owned()),
        error_step: Some(format!("each[{key}].pay")),
        dead_letter: Some(Box::new(NewDeadLetter {
            cause,
            code: "http_422".to_owned(),
            step: Some("each[].pay".to_owned()),
            message: format!("cause {cause}"),
        })),
    };
    let commit = RunCommit {
        run: run.id,
        seq: 0,
        journal: b"end".to_vec(),
        update: Some(update),
        mail: None,
        leaves: None,
    };
    node.write(Fact::Run(commit)).await.unwrap();
    run
}

async fn causes(node: &Node) -> Vec<(i64, u64, CauseState, RunId)> {
    let (causes, more) = node.store.cause_list(WORKSPACE, None).await.unwrap();
    assert!(!more);
    let told = |cause: &CauseRow| (cause.key.cause, cause.count.value, cause.state, cause.sample);
    causes.iter().map(told).collect()
}

async fn note(node: &Node, key: CauseKey, state: CauseState, up_to: RunId) {
    let operation = Operation {
        note: Some(CauseNote {
            workspace: WORKSPACE,
            key,
            state,
            up_to,
            note: "the key was renewed".to_owned(),
            actor: "ann".to_owned(),
            at: at(8),
        }),
        ..Operation::default()
    };
    node.write(Fact::Operate(Box::new(operation))).await.unwrap();
}

async fn failed_runs_stand_together_by_their_cause(bed: &Bed) {
    let node = bed.node("a").await;
    let one = failed(bed, &node, "1", -5).await;
    let two = failed(bed, &node, "2", i64::MAX).await;
    let three = failed(bed, &node, "3", -5).await;
    let fine = started(bed, &node, "4").await;
    node.write(commit(fine.id, 0, "end", Some(RunStatus::Succeeded)))
        .await
        .unwrap();
    assert_eq!(
        bed.number("SELECT count(*) FROM dead_letter").await,
        3,
        "success leaves no row"
    );
    assert_eq!(
        causes(&node).await,
        [
            (-5, 2, CauseState::Open, three.id),
            (i64::MAX, 1, CauseState::Open, two.id)
        ]
    );
    let key = CauseKey {
        workflow: one.workflow_id,
        cause: -5,
    };
    let cause = node.store.cause_load(WORKSPACE, key).await.unwrap().unwrap();
    assert_eq!(
        (
            cause.code.as_str(),
            cause.step.as_deref(),
            cause.message.as_str(),
            cause.last_at
        ),
        ("http_422", Some("each[].pay"), "cause -5", at(7))
    );
    let page = node.store.cause_runs(WORKSPACE, key, None, 1).await.unwrap();
    assert_eq!((page.rows[0].id, page.next), (three.id, Some(three.id)));
    let rest = node.store.cause_runs(WORKSPACE, key, page.next, 10).await.unwrap();
    assert_eq!((rest.rows[0].id, rest.next), (one.id, None));
    let other = weir_workflow_engine::WorkspaceId::from_raw(12);
    assert_eq!(node.store.cause_list(other, None).await.unwrap(), (Vec::new(), false));
    assert_eq!(node.store.cause_load(other, key).await.unwrap(), None);
}

async fn a_mark_is_one_row_for_all_and_later_failures_open_it_again(bed: &Bed) {
    let node = bed.node("a").await;
    failed(bed, &node, "1", 1).await;
    let two = failed(bed, &node, "2", 1).await;
    let key = CauseKey {
        workflow: two.workflow_id,
        cause: 1,
    };
    note(&node, key, CauseState::Resolved, two.id).await;
    assert_eq!(causes(&node).await, [(1, 2, CauseState::Resolved, two.id)]);
    let three = failed(bed, &node, "3", 1).await;
    assert_eq!(causes(&node).await, [(1, 1, CauseState::Open, three.id)]);
    note(&node, key, CauseState::Ignored, three.id).await;
    let four = failed(bed, &node, "4", 1).await;
    assert_eq!(causes(&node).await, [(1, 4, CauseState::Ignored, four.id)]);
    note(&node, key, CauseState::Open, four.id).await;
    assert_eq!(causes(&node).await, [(1, 4, CauseState::Open, four.id)]);
    assert_eq!(bed.number("SELECT count(*) FROM dead_letter_mark").await, 1);
}

async fn a_replay_stands_for_its_family(bed: &Bed) {
    let node = bed.node("a").await;
    let one = failed(bed, &node, "1", 1).await;
    let two = failed(bed, &node, "2", 1).await;
    let operation = Operation {
        starts: vec![NewRun {
            id: RunId::from_raw(bed.id()),
            replay_of: Some(one.id),
            ..one.clone()
        }],
        ..Operation::default()
    };
    node.write(Fact::Operate(Box::new(operation))).await.unwrap();
    assert_eq!(causes(&node).await, [(1, 1, CauseState::Open, two.id)]);
}

async fn counts_stop_at_their_limit(bed: &Bed) {
    let node = bed.node("a").await;
    let one = failed(bed, &node, "1", 1).await;
    bed.execute(&format!(
        "INSERT INTO dead_letter (run_id, workspace_id, workflow_id, cause, code, step, message, failed_at, state) \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000) \
         SELECT i, {}, {}, 1 + i % 2 * i, 'x', NULL, 'm', 0, 0 FROM n",
        WORKSPACE.as_raw(),
        one.workflow_id.as_raw()
    ))
    .await;
    // Every other row has a cause of its own: the list is cut, not long.
    let (causes, more) = node.store.cause_list(WORKSPACE, None).await.unwrap();
    assert_eq!((causes.len(), more), (weir_storage::MAX_CAUSES, true));
    bed.execute("UPDATE dead_letter SET cause = 1").await;
    let key = CauseKey {
        workflow: one.workflow_id,
        cause: 1,
    };
    let cause = node.store.cause_load(WORKSPACE, key).await.unwrap().unwrap();
    assert_eq!((cause.count.value, cause.count.at_least), (10_000, true));
}
