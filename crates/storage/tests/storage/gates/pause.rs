//! Runs that wait until their workflow is resumed.

use weir_storage::{Fact, RunStatus, TurnAsk, TurnEvent};
use weir_workflow_engine::{Ask, GateKind, MAX_RESUMED, RunId, Turn};

use super::{Handed, arrive, empty, end, lane, status};
use crate::support::{Bed, Node, WORKFLOW, WORKSPACE, at};

/// These gates behind that of a workflow that is paused, or that was resumed.
fn held(open: bool, gates: Vec<Ask>) -> Vec<Ask> {
    let mut turn = Turn { priority: 0, gates };
    turn.hold(WORKFLOW, open);
    turn.gates
}

fn resume(run: RunId) -> Fact {
    Fact::Turn(TurnAsk {
        run,
        workflow: WORKFLOW,
        at: at(60_000),
        event: TurnEvent::Resume,
    })
}

pub(super) async fn runs_of_a_paused_workflow_wait_and_begin_in_order(bed: &Bed) {
    let node: Node = bed.node("a").await;
    let handed = Handed::of(&node);
    assert_eq!(node.store.held_runs(WORKSPACE, WORKFLOW).await.unwrap(), None);
    let count = usize::try_from(MAX_RESUMED).unwrap() + 6;
    let mut runs = Vec::new();
    for number in 0..count {
        let (run, starts) = arrive(bed, &node, &format!("{number}"), held(false, Vec::new())).await;
        assert!(!starts);
        runs.push(run.id);
    }
    assert_eq!(status(&node, runs[3]).await, RunStatus::Queued);
    let waiting = node.store.run_waiting_for(WORKSPACE, runs[3]).await.unwrap().unwrap();
    assert_eq!((waiting.kind, waiting.ahead), (GateKind::Pause, 3));
    let seen = node.store.held_runs(WORKSPACE, WORKFLOW).await.unwrap().unwrap();
    assert_eq!((seen.first, usize::try_from(seen.count)), (runs[0], Ok(count)));
    // One of them is ended by a person; another has a lane behind the pause.
    node.write(end(runs[1], 0, RunStatus::Canceled)).await.unwrap();
    let ask = || vec![lane("deal/1", false, 10, false)];
    let (first, _) = arrive(bed, &node, "first", held(false, ask())).await;
    let (second, _) = arrive(bed, &node, "second", held(false, ask())).await;
    assert_eq!(handed.take(), []);

    // Another node may let them through, and so may the next one after a crash.
    node.stop().await;
    let node: Node = bed.node("a").await;
    let handed = Handed::of(&node);
    node.write(resume(seen.first)).await.unwrap();
    let begun = handed.take();
    assert_eq!(begun.len(), usize::try_from(MAX_RESUMED).unwrap());
    let row = node.store.run_load(WORKSPACE, runs[0]).await.unwrap().unwrap();
    assert_eq!((row.status, row.started_at), (RunStatus::Running, at(60_000)));
    // Who comes while some still wait goes behind them; said twice is said once.
    let (late, starts) = arrive(bed, &node, "late", held(true, Vec::new())).await;
    assert!(!starts);
    node.write(resume(seen.first)).await.unwrap();
    assert_eq!(handed.take(), []);
    let seen = node.store.held_runs(WORKSPACE, WORKFLOW).await.unwrap().unwrap();
    node.write(resume(seen.first)).await.unwrap();
    let mut all = begun;
    all.extend(handed.take());
    let mut expected: Vec<RunId> = runs.iter().copied().filter(|run| *run != runs[1]).collect();
    expected.extend([first.id, late.id]);
    all.sort_unstable();
    expected.sort_unstable();
    assert_eq!(all, expected, "the second of the lane waits for the first");
    assert_eq!(node.store.held_runs(WORKSPACE, WORKFLOW).await.unwrap(), None);
    let (next, starts) = arrive(bed, &node, "next", held(true, Vec::new())).await;
    assert!(starts, "nobody waits any more");
    node.write(end(first.id, 0, RunStatus::Succeeded)).await.unwrap();
    assert_eq!(handed.take(), [second.id]);
    node.write(end(second.id, 0, RunStatus::Succeeded)).await.unwrap();
    node.write(end(next.id, 0, RunStatus::Succeeded)).await.unwrap();
    empty(bed).await;
}
