//! Operations on many runs: each run has its turn once, whoever asks, and a stop is the end.

use std::sync::{Arc, Mutex};

use weir_storage::{
    BulkChange, BulkItemState, BulkRow, BulkStatus, Fact, FactOutcome, NewRun, Operation, Request, RunSelection,
    RunStatus, SelectedRuns, WriteError,
};
use weir_workflow_engine::{BulkId, RunId};

use crate::support::{Bed, Node, WORKSPACE, at, both_databases, commit};

both_databases!(
    each_run_has_its_turn_once,
    a_stopped_operation_starts_nothing,
    a_selection_means_the_last_of_each_family,
    an_orphaned_operation_is_taken_up,
    an_open_run_is_asked_with_its_turn,
    open_runs_are_selected_by_status_and_up_to_the_last_one_shown,
);

async fn failed(bed: &Bed, node: &Node, key: &str) -> NewRun {
    let accepted = bed.accepted(key);
    let run = accepted.runs[0].clone();
    node.write(Fact::Accept(accepted)).await.unwrap();
    node.write(commit(run.id, 0, "first", Some(RunStatus::Failed)))
        .await
        .unwrap();
    run
}

async fn begun(bed: &Bed, node: &Node, runs: &[RunId]) -> BulkId {
    let id = BulkId::from_raw(bed.id());
    let row = BulkRow {
        id,
        workspace: WORKSPACE,
        status: BulkStatus::Running,
        actor: "ann".to_owned(),
        filter: "{}".to_owned(),
        options: "{}".to_owned(),
        total: u32::try_from(runs.len()).unwrap(),
        created_at: at(0),
        finished_at: None,
    };
    let items = runs.iter().map(|run| (*run, "as shown".to_owned())).collect();
    assert_eq!(
        change(node, BulkChange::Begin { row, items }).await,
        Ok(FactOutcome::Written)
    );
    id
}

async fn change(node: &Node, change: BulkChange) -> Result<FactOutcome, WriteError> {
    let operation = Operation {
        bulk: Some(change),
        ..Operation::default()
    };
    node.write(Fact::Operate(Box::new(operation))).await
}

/// Starts the replay of a run as its turn in an operation.
async fn turn(bed: &Bed, node: &Node, bulk: BulkId, run: &NewRun) -> Result<FactOutcome, WriteError> {
    let replay = NewRun {
        id: RunId::from_raw(bed.id()),
        replay_of: Some(run.id),
        ..run.clone()
    };
    let operation = Operation {
        bulk: Some(BulkChange::Started {
            bulk,
            run: run.id,
            replay: Some(replay.id),
        }),
        starts: vec![replay],
        ..Operation::default()
    };
    node.write(Fact::Operate(Box::new(operation))).await
}

async fn each_run_has_its_turn_once(bed: &Bed) {
    let node = bed.node("a").await;
    let (one, two) = (failed(bed, &node, "1").await, failed(bed, &node, "2").await);
    let bulk = begun(bed, &node, &[one.id, two.id]).await;
    assert_eq!(
        turn(bed, &node, bulk, &one).await,
        Ok(FactOutcome::Started { held: Vec::new() })
    );
    // The process was killed after the commit and tries again.
    assert_eq!(turn(bed, &node, bulk, &one).await, Err(WriteError::Stale));
    assert_eq!(node.store.run_family(WORKSPACE, one.id).await.unwrap().len(), 2);
    let pending = node
        .store
        .bulk_items(bulk, Some(BulkItemState::Pending), None, 10)
        .await
        .unwrap();
    assert_eq!((pending.len(), pending[0].run), (1, two.id));
    let skipped = BulkChange::Skipped {
        bulk,
        run: two.id,
        reason: "it changed".to_owned(),
    };
    assert_eq!(change(&node, skipped.clone()).await, Ok(FactOutcome::Written));
    assert_eq!(change(&node, skipped).await, Err(WriteError::Stale));
    let counts = node.store.bulk_counts(bulk).await.unwrap();
    assert_eq!((counts.pending, counts.started, counts.skipped), (0, 1, 1));
    let end = |status| BulkChange::End {
        bulk,
        status,
        at: at(9),
    };
    assert_eq!(change(&node, end(BulkStatus::Finished)).await, Ok(FactOutcome::Written));
    assert_eq!(change(&node, end(BulkStatus::Stopped)).await, Err(WriteError::Stale));
    let row = node.store.bulk_load(WORKSPACE, bulk).await.unwrap().unwrap();
    assert_eq!(
        (row.status, row.finished_at, row.total),
        (BulkStatus::Finished, Some(at(9)), 2)
    );
    assert_eq!(node.store.bulk_page(WORKSPACE, None, 10).await.unwrap().rows, [row]);
}

async fn a_stopped_operation_starts_nothing(bed: &Bed) {
    let node = bed.node("a").await;
    let run = failed(bed, &node, "1").await;
    let bulk = begun(bed, &node, &[run.id]).await;
    let stop = BulkChange::End {
        bulk,
        status: BulkStatus::Stopped,
        at: at(9),
    };
    change(&node, stop).await.unwrap();
    assert_eq!(turn(bed, &node, bulk, &run).await, Err(WriteError::Stale));
    assert_eq!(node.store.run_family(WORKSPACE, run.id).await.unwrap().len(), 1);
    assert_eq!(node.store.bulk_open(&node.identity).await.unwrap(), []);
}

async fn a_selection_means_the_last_of_each_family(bed: &Bed) {
    let node = bed.node("a").await;
    let (one, two) = (failed(bed, &node, "1").await, failed(bed, &node, "2").await);
    let select = async |code: Option<&str>| {
        let selection = RunSelection {
            runs: SelectedRuns::Ended(RunStatus::Failed),
            workflow: Some(one.workflow_id),
            error_code: code.map(str::to_owned),
            error_step: None,
            cause: None,
            since: None,
            until: None,
        };
        let runs = node.store.run_select(WORKSPACE, &selection, 10).await.unwrap();
        runs.iter().map(|run| run.id).collect::<Vec<_>>()
    };
    assert_eq!(select(None).await, [one.id, two.id]);
    let bulk = begun(bed, &node, &[one.id]).await;
    turn(bed, &node, bulk, &one).await.unwrap();
    // Its replay is under way: it is not failed, and what it replays is not the last word.
    assert_eq!(select(None).await, [two.id]);
    assert_eq!(select(Some("no_such_code")).await, []);
}

async fn an_orphaned_operation_is_taken_up(bed: &Bed) {
    let node = bed.node("a").await;
    let run = failed(bed, &node, "1").await;
    let bulk = begun(bed, &node, &[run.id]).await;
    let open = async || {
        let open = node.store.bulk_open(&node.identity).await.unwrap();
        open.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(open().await, [bulk]);
    // Another node has it, and lives.
    bed.execute("INSERT INTO node (slot, name, incarnation, started_at, lease_until, id_high_water) VALUES (7, 'b', 5, 0, 9000000000000, 0)").await;
    bed.execute("UPDATE bulk SET owner = 7").await;
    assert_eq!(open().await, []);
    bed.execute("UPDATE node SET lease_until = 1 WHERE slot = 7").await;
    assert_eq!(open().await, [bulk]);
}

/// Asks a run something as its turn in an operation.
async fn ask(bed: &Bed, node: &Node, bulk: BulkId, run: RunId) -> Result<FactOutcome, WriteError> {
    let operation = Operation {
        bulk: Some(BulkChange::Started {
            bulk,
            run,
            replay: None,
        }),
        requests: vec![Request {
            id: bed.id(),
            workspace: WORKSPACE,
            run,
            body: "{}".to_owned(),
            at: at(0),
            answers: None,
            audit: None,
        }],
        ..Operation::default()
    };
    node.write(Fact::Operate(Box::new(operation))).await
}

async fn an_open_run_is_asked_with_its_turn(bed: &Bed) {
    let node = bed.node("a").await;
    let told = Arc::new(Mutex::new(Vec::<RunId>::new()));
    let heard = Arc::clone(&told);
    node.writer.on_mail(move |runs| heard.lock().unwrap().extend(runs));
    let accepted = bed.accepted("open");
    let open = accepted.runs[0].id;
    node.write(Fact::Accept(accepted)).await.unwrap();
    let over = failed(bed, &node, "over").await.id;
    let bulk = begun(bed, &node, &[open, over]).await;
    assert_eq!(ask(bed, &node, bulk, open).await, Ok(FactOutcome::Written));
    assert_eq!(*told.lock().unwrap(), [open], "it is handed over in memory");
    // The process was killed after the commit and tries again; and what is over takes no mail.
    assert_eq!(ask(bed, &node, bulk, open).await, Err(WriteError::Stale));
    assert_eq!(ask(bed, &node, bulk, over).await, Err(WriteError::Stale));
    assert_eq!(bed.number("SELECT count(*) FROM inbox").await, 1);
    let counts = node.store.bulk_counts(bulk).await.unwrap();
    assert_eq!((counts.pending, counts.started, counts.skipped), (1, 1, 0));
    // A stopped operation asks nobody.
    let another = begun(bed, &node, &[open]).await;
    let stop = BulkChange::End {
        bulk: another,
        status: BulkStatus::Stopped,
        at: at(9),
    };
    change(&node, stop).await.unwrap();
    assert_eq!(ask(bed, &node, another, open).await, Err(WriteError::Stale));
    assert_eq!(bed.number("SELECT count(*) FROM inbox").await, 1);
}

async fn open_runs_are_selected_by_status_and_up_to_the_last_one_shown(bed: &Bed) {
    let node = bed.node("a").await;
    let mut runs = Vec::new();
    for (key, status) in [
        ("1", None),
        ("2", Some(RunStatus::Waiting)),
        ("3", Some(RunStatus::Succeeded)),
        ("4", None),
    ] {
        let accepted = bed.accepted(key);
        let run = accepted.runs[0].id;
        node.write(Fact::Accept(accepted)).await.unwrap();
        if status.is_some() {
            node.write(commit(run, 0, "first", status)).await.unwrap();
        }
        runs.push(run);
    }
    let select = async |statuses: &[RunStatus], up_to: Option<RunId>| {
        let selection = RunSelection {
            runs: SelectedRuns::Open {
                statuses: statuses.to_vec(),
                up_to,
            },
            workflow: None,
            error_code: None,
            error_step: None,
            cause: None,
            since: None,
            until: None,
        };
        let found = node.store.run_select(WORKSPACE, &selection, 10).await.unwrap();
        found.iter().map(|run| run.id).collect::<Vec<_>>()
    };
    let both = [RunStatus::Running, RunStatus::Waiting];
    assert_eq!(select(&both, None).await, [runs[0], runs[1], runs[3]]);
    assert_eq!(select(&both, Some(runs[2])).await, [runs[0], runs[1]]);
    assert_eq!(select(&[RunStatus::Waiting], None).await, [runs[1]]);
    assert_eq!(select(&[], None).await, []);
    assert_eq!(
        select(&[RunStatus::Succeeded], None).await,
        [],
        "what is over is not open"
    );
}
