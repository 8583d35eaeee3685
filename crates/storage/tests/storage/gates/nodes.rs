//! Gates that count the runs of all nodes, on PostgreSQL.

use std::collections::BTreeSet;

use weir_storage::{Fact, RunStatus, TurnAsk, TurnEvent};
use weir_workflow_engine::{Ask, GateKey, GateKind, Rules, RunId};

use super::{accepted, arrive, ask, empty, end, lane, limit, status};
use crate::support::{Bed, Node, WORKFLOW, WORKSPACE, at};

/// Two nodes write at the same time, each with the keys of the other in another order: nobody is turned away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_at_once() {
    Bed::postgres().await.run(two_nodes_at_once_on).await;
}

async fn two_nodes_at_once_on(bed: &Bed) {
    let nodes = [bed.node("a").await, bed.node("b").await];
    let mut pending = Vec::new();
    let mut runs = BTreeSet::new();
    for number in 0..200 {
        for (which, node) in nodes.iter().enumerate() {
            let key = if which == 0 { number % 10 } else { 9 - number % 10 };
            let gates = vec![lane(&key.to_string(), false, 1000, false), limit(3)];
            let (accepted, _) = accepted(bed, &format!("{which}/{number}"), 0, gates);
            runs.insert(accepted.runs[0].id);
            pending.push(node.submit(Fact::Accept(accepted)));
        }
    }
    for pending in pending {
        pending.await.unwrap();
    }
    let mut finished = BTreeSet::new();
    while finished.len() < runs.len() {
        let [a, b] = &nodes;
        let both = async |node: &Node| {
            let open = node.store.run_open_ids(&node.identity, None, 100).await.unwrap();
            let pending: Vec<_> = open
                .iter()
                .map(|run| node.submit(end(*run, 0, RunStatus::Succeeded)))
                .collect();
            for pending in pending {
                pending.await.unwrap();
            }
            open
        };
        let (one, other) = futures::join!(both(a), both(b));
        assert!(
            !one.is_empty() || !other.is_empty(),
            "{} runs are stuck",
            runs.len() - finished.len()
        );
        assert!(one.len() + other.len() <= 6, "at most three at a time, looked at twice");
        finished.extend(one.into_iter().chain(other));
    }
    assert_eq!(finished, runs);
    empty(bed).await;
}

/// What happens on one node holds, frees and wakes the runs of the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_gate_counts_the_runs_of_both_nodes() {
    Bed::postgres().await.run(each_gate_on).await;
}

/// The runs that may work, whoever has them.
async fn working(nodes: [&Node; 2]) -> BTreeSet<RunId> {
    let mut all = BTreeSet::new();
    for node in nodes {
        for run in node.store.run_open_ids(&node.identity, None, 100).await.unwrap() {
            if status(node, run).await == RunStatus::Running {
                all.insert(run);
            }
        }
    }
    all
}

async fn each_gate_on(bed: &Bed) {
    let (a, b) = (&bed.node("a").await, &bed.node("b").await);
    let over = async |node: &Node, run: RunId| node.write(end(run, 0, RunStatus::Succeeded)).await.unwrap();
    let due = |run, ms| {
        Fact::Turn(TurnAsk {
            run,
            workflow: WORKFLOW,
            at: at(ms),
            event: TurnEvent::Due,
        })
    };

    // A throttle: the start on one node is one of all, and the next one has its time.
    let throttle = || vec![ask(GateKind::Throttle, Rules::Throttle { limit: 1, per_ms: 1000 })];
    let (first, starts) = arrive(bed, a, "t1", throttle()).await;
    assert!(starts);
    let (second, starts) = arrive(bed, b, "t2", throttle()).await;
    assert!(!starts);
    b.write(due(second.id, 999)).await.unwrap();
    assert_eq!(working([a, b]).await, [first.id].into());
    b.write(due(second.id, 1000)).await.unwrap();
    assert_eq!(working([a, b]).await, [first.id, second.id].into());
    over(a, first.id).await;
    over(b, second.id).await;

    // A limit of its own for each key, and the order by priority over both nodes.
    let keyed = |key: &str| {
        let rules = Rules::Concurrency { limit: 1 };
        vec![Ask {
            key: GateKey::new(WORKFLOW, GateKind::Concurrency, key),
            name: key.to_owned(),
            rules,
        }]
    };
    let (first, _) = arrive(bed, a, "k1", keyed("x")).await;
    let (_, starts) = {
        let (other, starts) = arrive(bed, b, "k2", keyed("y")).await;
        over(b, other.id).await;
        (other, starts)
    };
    assert!(starts, "another key is another limit");
    let (low, _) = accepted(bed, "k3", 0, keyed("x"));
    let (high, _) = accepted(bed, "k4", 5, keyed("x"));
    let (low_run, high_run) = (low.runs[0].id, high.runs[0].id);
    a.write(Fact::Accept(low)).await.unwrap();
    b.write(Fact::Accept(high)).await.unwrap();
    assert_eq!(working([a, b]).await, [first.id].into());
    over(a, first.id).await;
    assert_eq!(working([a, b]).await, [high_run].into());
    over(b, high_run).await;
    assert_eq!(working([a, b]).await, [low_run].into());
    over(a, low_run).await;

    // A lane that merges, and one that is full.
    let merging = || vec![lane("m", true, 10, false)];
    let (first, _) = arrive(bed, a, "m1", merging()).await;
    let (second, _) = arrive(bed, a, "m2", merging()).await;
    let (third, _) = arrive(bed, b, "m3", merging()).await;
    assert_eq!(status(a, second.id).await, RunStatus::Merged);
    assert_eq!(b.store.run_merged_into(second.id).await.unwrap(), Some(third.id));
    over(a, first.id).await;
    assert_eq!(working([a, b]).await, [third.id].into());
    over(b, third.id).await;
    let small = || vec![lane("s", false, 1, false)];
    let (first, _) = arrive(bed, a, "s1", small()).await;
    let (second, _) = arrive(bed, b, "s2", small()).await;
    let (third, _) = arrive(bed, a, "s3", small()).await;
    assert_eq!(status(b, third.id).await, RunStatus::Failed);
    over(a, first.id).await;
    over(b, second.id).await;

    // A burst and a batch that arrive on both.
    let rules = Rules::Debounce {
        quiet_ms: 500,
        max_ms: None,
    };
    let debounce = || vec![ask(GateKind::Debounce, rules)];
    let (first, _) = arrive(bed, a, "d1", debounce()).await;
    let (second, _) = arrive(bed, b, "d2", debounce()).await;
    assert_eq!(status(b, first.id).await, RunStatus::Merged);
    b.write(due(second.id, 500)).await.unwrap();
    assert_eq!(working([a, b]).await, [second.id].into());
    over(b, second.id).await;
    let rules = Rules::Batch {
        size: 3,
        within_ms: 500,
    };
    let batch = || vec![ask(GateKind::Batch, rules)];
    let mut members = Vec::new();
    for (node, key) in [(a, "b1"), (b, "b2"), (a, "b3")] {
        members.push(arrive(bed, node, key, batch()).await.0);
    }
    assert_eq!(working([a, b]).await, [members[0].id].into(), "it is full");
    let events = b.store.run_batch_events(WORKSPACE, members[0].id).await.unwrap();
    assert_eq!(events, members.iter().map(|run| run.event_id).collect::<Vec<_>>());
    over(a, members[0].id).await;
    let (early, _) = arrive(bed, b, "b4", batch()).await;
    b.write(due(early.id, 500)).await.unwrap();
    assert_eq!(working([a, b]).await, [early.id].into(), "its time has come");
    over(b, early.id).await;
}
