//! Lanes and limits in the database: who may start, what is handed over, and that it survives nodes that die.

mod nodes;
mod pause;
mod random;

use std::sync::{Arc, Mutex};

use weir_storage::{
    Accepted, Fact, FactOutcome, History, Leaves, NewRun, Operation, Prune, Removed, RunCommit, RunStatus, RunUpdate,
    TurnAsk, TurnEvent, WriteError,
};
use weir_workflow_engine::{Ask, GateKey, GateKind, Rules, RunId, Turn};

use self::pause::runs_of_a_paused_workflow_wait_and_begin_in_order;
use self::random::random_histories_come_to_an_end;
use crate::proxy::Proxy;
use crate::support::{Bed, Node, WORKFLOW, WORKSPACE, at, both_databases};

both_databases!(
    a_lane_hands_over_in_the_final_commit,
    a_held_lane_waits_for_a_person,
    only_success_in_the_family_repairs_a_held_lane,
    a_replay_leaves_the_limit_as_it_is,
    merged_and_full_are_on_record,
    duplicates_and_conflicts_take_no_part,
    limits_hold_and_queues_are_ordered_by_priority,
    what_has_a_time_is_woken,
    runs_of_a_paused_workflow_wait_and_begin_in_order,
    random_histories_come_to_an_end,
);

fn lane(key: &str, merge: bool, max_waiting: u32, hold: bool) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, GateKind::Lane, key),
        name: key.to_owned(),
        rules: Rules::Lane {
            merge,
            max_waiting,
            hold,
        },
    }
}

fn limit(limit: u32) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, GateKind::Concurrency, ""),
        name: String::new(),
        rules: Rules::Concurrency { limit },
    }
}

/// Runs that a node was handed, in order.
#[derive(Clone, Default)]
struct Handed(Arc<Mutex<Vec<RunId>>>);

impl Handed {
    fn of(node: &Node) -> Self {
        let handed = Self::default();
        let list = Arc::clone(&handed.0);
        node.writer.on_turn(move |runs, _| list.lock().unwrap().extend(runs));
        handed
    }

    fn take(&self) -> Vec<RunId> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// An event with one run that has to pass these gates; true in the second when it may start.
fn accepted(bed: &Bed, key: &str, priority: i32, gates: Vec<Ask>) -> (Accepted, Arc<Mutex<Option<bool>>>) {
    let mut accepted = bed.accepted(key);
    accepted.runs[0].turn = Some(Box::new(Turn { priority, gates }));
    let run = accepted.runs[0].id;
    let starts = Arc::new(Mutex::new(None));
    let said = Arc::clone(&starts);
    accepted.after_commit = Some(Box::new(move |_, held| {
        *said.lock().unwrap() = Some(!held.contains(&run))
    }));
    (accepted, starts)
}

async fn arrive(bed: &Bed, node: &Node, key: &str, gates: Vec<Ask>) -> (NewRun, bool) {
    let (accepted, starts) = accepted(bed, key, 0, gates);
    let run = accepted.runs[0].clone();
    node.write(Fact::Accept(accepted)).await.unwrap();
    let starts = starts.lock().unwrap().unwrap();
    (run, starts)
}

fn end(run: RunId, seq: i32, status: RunStatus) -> Fact {
    Fact::Run(RunCommit {
        run,
        seq,
        journal: b"end".to_vec(),
        update: Some(RunUpdate {
            status,
            due_at: None,
            finished_at: Some(at(1)),
            error_code: (status == RunStatus::Failed).then(|| "broken".to_owned()),
            error_step: None,
            dead_letter: None,
        }),
        mail: None,
        leaves: Some(Leaves {
            workflow: WORKFLOW,
            repairs: None,
        }),
    })
}

async fn status(node: &Node, run: RunId) -> RunStatus {
    node.store.run_load(WORKSPACE, run).await.unwrap().unwrap().status
}

async fn a_lane_hands_over_in_the_final_commit(bed: &Bed) {
    let node = bed.node("a").await;
    let handed = Handed::of(&node);
    let ask = || vec![lane("deal/1", false, 10, false)];
    let (first, starts) = arrive(bed, &node, "1", ask()).await;
    assert!(starts);
    let (second, starts) = arrive(bed, &node, "2", ask()).await;
    assert!(!starts);
    let (third, _) = arrive(bed, &node, "3", ask()).await;
    let (other, starts) = arrive(bed, &node, "4", vec![lane("deal/2", false, 10, false)]).await;
    assert!(starts, "another key is another lane");
    assert_eq!(status(&node, second.id).await, RunStatus::Queued);
    // Whoever waits is not found by those who look for work.
    let open = node.store.run_open_ids(&node.identity, None, 10).await.unwrap();
    assert_eq!(open, [first.id, other.id]);
    let waiting = node.store.run_waiting_for(WORKSPACE, third.id).await.unwrap().unwrap();
    assert_eq!(
        (
            waiting.kind,
            waiting.key.as_str(),
            waiting.ahead,
            waiting.inside,
            waiting.held_by
        ),
        (GateKind::Lane, "deal/1", 1, 1, None)
    );
    assert_eq!(node.store.run_waiting_for(WORKSPACE, first.id).await.unwrap(), None);
    // A commit that does not end the run changes nothing.
    node.write(crate::support::commit(first.id, 0, "goes on", None))
        .await
        .unwrap();
    assert_eq!(handed.take(), []);
    node.write(end(first.id, 1, RunStatus::Succeeded)).await.unwrap();
    assert_eq!(handed.take(), [second.id]);
    let row = node.store.run_load(WORKSPACE, second.id).await.unwrap().unwrap();
    // Its time limit begins now.
    assert_eq!((row.status, row.started_at), (RunStatus::Running, at(1)));
    // Parked, the lane goes on after a failure.
    node.write(end(second.id, 0, RunStatus::Failed)).await.unwrap();
    assert_eq!(handed.take(), [third.id]);
    node.write(end(third.id, 0, RunStatus::Succeeded)).await.unwrap();
    node.write(end(other.id, 0, RunStatus::Canceled)).await.unwrap();
    assert_eq!(handed.take(), []);
    empty(bed).await;
}

/// Nothing is left of turns that are over.
async fn empty(bed: &Bed) {
    for table in ["gate", "turn"] {
        assert_eq!(bed.number(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
}

async fn a_held_lane_waits_for_a_person(bed: &Bed) {
    let node = bed.node("a").await;
    let handed = Handed::of(&node);
    let ask = || vec![lane("deal/1", false, 10, true), limit(1)];
    let (first, _) = arrive(bed, &node, "1", ask()).await;
    let (second, _) = arrive(bed, &node, "2", ask()).await;
    let (other, starts) = arrive(bed, &node, "3", vec![lane("deal/2", false, 10, true), limit(1)]).await;
    assert!(!starts);
    let waiting = node.store.run_waiting_for(WORKSPACE, other.id).await.unwrap().unwrap();
    assert_eq!((waiting.kind, waiting.key.as_str()), (GateKind::Concurrency, ""));
    node.write(end(first.id, 0, RunStatus::Failed)).await.unwrap();
    assert_eq!(handed.take(), [other.id], "a failed object blocks only its own lane");
    let waiting = node.store.run_waiting_for(WORKSPACE, second.id).await.unwrap().unwrap();
    assert_eq!(waiting.held_by, Some(first.id));
    let held = node.store.held_lanes(WORKSPACE, None, None, 10).await.unwrap().rows;
    assert_eq!(
        held.iter()
            .map(|lane| (lane.run, lane.workflow, lane.key.as_str(), lane.waiting))
            .collect::<Vec<_>>(),
        [(first.id, WORKFLOW, "deal/1", 1)]
    );
    node.write(end(other.id, 0, RunStatus::Succeeded)).await.unwrap();
    // Retention leaves it alone as long as it keeps the lane.
    stays(&node, &first).await;
    // A replay of the failed run goes in past it, before those who wait.
    let replay = NewRun {
        id: RunId::from_raw(bed.id()),
        replay_of: Some(first.id),
        ..first.clone()
    };
    let answer = node.write(Fact::Start(vec![replay.clone()])).await;
    assert_eq!(answer, Ok(FactOutcome::Started { held: Vec::new() }));
    assert_eq!(status(&node, replay.id).await, RunStatus::Running);
    // It is not repaired yet.
    let held = node.store.held_lanes(WORKSPACE, None, None, 10).await.unwrap().rows;
    assert_eq!(held.iter().map(|lane| lane.run).collect::<Vec<_>>(), [first.id]);
    node.write(end(replay.id, 0, RunStatus::Failed)).await.unwrap();
    assert_eq!(handed.take(), []);
    let release = |run| {
        let ask = TurnAsk {
            run,
            workflow: WORKFLOW,
            at: at(2),
            event: TurnEvent::Release,
        };
        let turn = Some(ask);
        Fact::Operate(Box::new(Operation {
            turn,
            ..Operation::default()
        }))
    };
    node.write(release(first.id)).await.unwrap();
    assert_eq!(handed.take(), [], "it keeps the lane no longer");
    let held = node
        .store
        .held_lanes(WORKSPACE, Some(replay.id), None, 10)
        .await
        .unwrap();
    assert_eq!(held.rows.len(), 1);
    node.write(release(replay.id)).await.unwrap();
    assert_eq!(handed.take(), [second.id]);
    // Another replay now waits like everybody else.
    let late = NewRun {
        id: RunId::from_raw(bed.id()),
        replay_of: Some(first.id),
        ..first
    };
    let answer = node.write(Fact::Start(vec![late.clone()])).await;
    assert_eq!(answer, Ok(FactOutcome::Started { held: vec![late.id] }));
    node.write(end(second.id, 0, RunStatus::Succeeded)).await.unwrap();
    node.write(end(late.id, 0, RunStatus::Succeeded)).await.unwrap();
    empty(bed).await;
}

/// A replay of the first run of a family, with these gates.
async fn replay(bed: &Bed, node: &Node, first: &NewRun, gates: Option<Vec<Ask>>) -> (RunId, bool) {
    let replay = NewRun {
        id: RunId::from_raw(bed.id()),
        replay_of: Some(first.id),
        turn: gates.map(|gates| Box::new(Turn { priority: 0, gates })),
        ..first.clone()
    };
    let run = replay.id;
    match node.write(Fact::Start(vec![replay])).await {
        Ok(FactOutcome::Started { held }) => (run, held.is_empty()),
        other => panic!("{other:?}"),
    }
}

/// A replay that succeeds, of any version.
fn repaired(run: RunId, root: RunId) -> Fact {
    let Fact::Run(mut commit) = end(run, 0, RunStatus::Succeeded) else {
        unreachable!("it is the end of a run")
    };
    commit.leaves = Some(Leaves {
        workflow: WORKFLOW,
        repairs: Some(root),
    });
    Fact::Run(commit)
}

async fn only_success_in_the_family_repairs_a_held_lane(bed: &Bed) {
    let node = bed.node("a").await;
    let handed = Handed::of(&node);
    let ask = || vec![lane("deal/1", false, 10, true)];
    // The same lane, another one, and a version without lanes.
    for (number, gates) in [Some(ask()), Some(vec![lane("deal/2", false, 10, true)]), None]
        .into_iter()
        .enumerate()
    {
        let (first, _) = arrive(bed, &node, &format!("first {number}"), ask()).await;
        let (next, starts) = arrive(bed, &node, &format!("next {number}"), ask()).await;
        assert!(!starts);
        node.write(end(first.id, 0, RunStatus::Failed)).await.unwrap();
        let (canceled, starts) = replay(bed, &node, &first, Some(ask())).await;
        assert!(starts);
        node.write(end(canceled, 0, RunStatus::Canceled)).await.unwrap();
        assert_eq!(handed.take(), [], "nothing is repaired");
        // What holds it may be a replay itself.
        let (failed, _) = replay(bed, &node, &first, Some(ask())).await;
        node.write(end(failed, 0, RunStatus::Failed)).await.unwrap();
        let held = node.store.held_lanes(WORKSPACE, None, None, 10).await.unwrap().rows;
        assert_eq!(held.iter().map(|lane| lane.run).collect::<Vec<_>>(), [failed]);
        let (good, starts) = replay(bed, &node, &first, gates).await;
        assert!(starts);
        node.write(repaired(good, first.id)).await.unwrap();
        assert_eq!(handed.take(), [next.id]);
        node.write(end(next.id, 0, RunStatus::Succeeded)).await.unwrap();
        empty(bed).await;
    }
}

async fn a_replay_leaves_the_limit_as_it_is(bed: &Bed) {
    let node = bed.node("a").await;
    let (first, _) = arrive(bed, &node, "1", vec![limit(1)]).await;
    node.write(end(first.id, 0, RunStatus::Failed)).await.unwrap();
    let (second, starts) = arrive(bed, &node, "2", vec![limit(3)]).await;
    assert!(starts);
    let (again, starts) = replay(bed, &node, &first, Some(vec![limit(1)])).await;
    assert!(starts, "there is room");
    let (third, starts) = arrive(bed, &node, "3", vec![limit(3)]).await;
    assert!(starts);
    assert_eq!(bed.number("SELECT cast(max_inside AS bigint) FROM gate").await, 3);
    for run in [second.id, again, third.id] {
        node.write(end(run, 0, RunStatus::Succeeded)).await.unwrap();
    }
    empty(bed).await;
}

/// The event of a run is not deleted, whatever retention wants.
async fn stays(node: &Node, run: &NewRun) {
    let history = History {
        event: run.event_id,
        runs: vec![run.root_id],
    };
    let pruned = node.write(Fact::Prune(Prune::History(vec![history]))).await;
    assert_eq!(pruned, Ok(FactOutcome::Pruned(Removed::default())));
    assert!(node.store.event_load(WORKSPACE, run.event_id).await.unwrap().is_some());
}

async fn merged_and_full_are_on_record(bed: &Bed) {
    let node = bed.node("a").await;
    let handed = Handed::of(&node);
    let ask = || vec![lane("deal/1", true, 10, false)];
    let (first, _) = arrive(bed, &node, "1", ask()).await;
    let (second, _) = arrive(bed, &node, "2", ask()).await;
    let (third, starts) = arrive(bed, &node, "3", ask()).await;
    assert!(!starts);
    let row = node.store.run_load(WORKSPACE, second.id).await.unwrap().unwrap();
    assert_eq!((row.status, row.finished_at.is_some()), (RunStatus::Merged, true));
    assert_eq!(node.store.run_merged_into(second.id).await.unwrap(), Some(third.id));
    node.write(end(first.id, 0, RunStatus::Succeeded)).await.unwrap();
    assert_eq!(handed.take(), [third.id]);
    node.write(end(third.id, 0, RunStatus::Succeeded)).await.unwrap();
    let small = || vec![lane("deal/2", false, 1, false)];
    let (first, _) = arrive(bed, &node, "4", small()).await;
    let (second, _) = arrive(bed, &node, "5", small()).await;
    let (third, starts) = arrive(bed, &node, "6", small()).await;
    assert!(!starts);
    let row = node.store.run_load(WORKSPACE, third.id).await.unwrap().unwrap();
    assert_eq!(
        (row.status, row.error_code.as_deref()),
        (RunStatus::Failed, Some("lane_full"))
    );
    node.write(end(first.id, 0, RunStatus::Succeeded)).await.unwrap();
    node.write(end(second.id, 0, RunStatus::Succeeded)).await.unwrap();
    empty(bed).await;
}

async fn duplicates_and_conflicts_take_no_part(bed: &Bed) {
    let node = bed.node("a").await;
    let handed = Handed::of(&node);
    let ask = || vec![lane("deal/1", false, 10, false)];
    // In one batch: an event, the same event again, and a second one.
    let (one, first_starts) = accepted(bed, "1", 0, ask());
    let (again, _) = accepted(bed, "1", 0, ask());
    let (two, second_starts) = accepted(bed, "2", 0, ask());
    let (first, second) = (one.runs[0].clone(), two.runs[0].clone());
    let pending = [one, again, two].map(|accepted| node.submit(Fact::Accept(accepted)));
    for pending in pending {
        pending.await.unwrap();
    }
    assert_eq!(
        (*first_starts.lock().unwrap(), *second_starts.lock().unwrap()),
        (Some(true), Some(false))
    );
    assert_eq!(bed.number("SELECT count(*) FROM turn").await, 2);
    // A commit that comes too late leaves no lane.
    node.write(crate::support::commit(first.id, 0, "journal", None))
        .await
        .unwrap();
    let stale = node.write(end(first.id, 0, RunStatus::Succeeded)).await;
    assert_eq!(stale, Err(WriteError::Stale));
    assert_eq!(handed.take(), []);
    node.write(end(first.id, 1, RunStatus::Succeeded)).await.unwrap();
    assert_eq!(handed.take(), [second.id]);
    // A run without a turn leaves nothing.
    let plain = bed.accepted("3");
    let run = plain.runs[0].id;
    node.write(Fact::Accept(plain)).await.unwrap();
    node.write(end(run, 0, RunStatus::Failed)).await.unwrap();
    node.write(end(second.id, 0, RunStatus::Succeeded)).await.unwrap();
    empty(bed).await;
}

async fn limits_hold_and_queues_are_ordered_by_priority(bed: &Bed) {
    let node = bed.node("a").await;
    let handed = Handed::of(&node);
    let mut runs = Vec::new();
    let mut pending = Vec::new();
    for (number, priority) in [0, 0, 0, -1, 1].into_iter().enumerate() {
        let (accepted, _) = accepted(bed, &number.to_string(), priority, vec![limit(2)]);
        runs.push(accepted.runs[0].id);
        pending.push(node.submit(Fact::Accept(accepted)));
    }
    for pending in pending {
        pending.await.unwrap();
    }
    let open = node.store.run_open_ids(&node.identity, None, 10).await.unwrap();
    assert_eq!(open, runs[..2]);
    for (over, next) in [(0, 4), (1, 2), (4, 3)] {
        node.write(end(runs[over], 0, RunStatus::Succeeded)).await.unwrap();
        assert_eq!(handed.take(), [runs[next]]);
    }
    for over in [2, 3] {
        node.write(end(runs[over], 0, RunStatus::Succeeded)).await.unwrap();
    }
    empty(bed).await;
}

fn ask(kind: GateKind, rules: Rules) -> Ask {
    Ask {
        key: GateKey::new(WORKFLOW, kind, ""),
        name: String::new(),
        rules,
    }
}

/// Throttle, debounce and batch: the time stands in the run's row, and the fact that it has come does the rest.
async fn what_has_a_time_is_woken(bed: &Bed) {
    let node = bed.node("a").await;
    let handed = Handed::of(&node);
    let due = |run, ms| {
        Fact::Turn(TurnAsk {
            run,
            workflow: WORKFLOW,
            at: at(ms),
            event: TurnEvent::Due,
        })
    };
    let timers = async || {
        let found = node.store.run_due_ids(&node.identity, at(1_000_000), 10).await.unwrap();
        found
            .into_iter()
            .map(|(run, due)| (run, due.since(at(0)).as_millis()))
            .collect::<Vec<_>>()
    };
    let gates = || vec![ask(GateKind::Throttle, Rules::Throttle { limit: 1, per_ms: 1000 })];
    let (first, starts) = arrive(bed, &node, "1", gates()).await;
    assert!(starts);
    let (second, _) = arrive(bed, &node, "2", gates()).await;
    let (third, _) = arrive(bed, &node, "3", gates()).await;
    assert_eq!(timers().await, [(second.id, 1000)]);
    node.write(due(second.id, 1000)).await.unwrap();
    assert_eq!(handed.take(), [second.id]);
    assert_eq!(timers().await, [(third.id, 2000)]);
    node.write(due(third.id, 2000)).await.unwrap();
    assert_eq!(handed.take(), [third.id]);
    for run in [first, second, third] {
        node.write(end(run.id, 0, RunStatus::Succeeded)).await.unwrap();
    }
    let pruned = node.write(Fact::Prune(Prune::Gates { now: at(3001) })).await;
    let one = Removed { rows: 1, bytes: 0 };
    assert_eq!(
        pruned,
        Ok(FactOutcome::Pruned(one)),
        "its last start is longer ago than its period"
    );
    empty(bed).await;

    let gates = || {
        let rules = Rules::Debounce {
            quiet_ms: 500,
            max_ms: None,
        };
        vec![ask(GateKind::Debounce, rules)]
    };
    let (first, _) = arrive(bed, &node, "4", gates()).await;
    let (second, _) = arrive(bed, &node, "5", gates()).await;
    assert_eq!(node.store.run_merged_into(first.id).await.unwrap(), Some(second.id));
    assert_eq!(status(&node, first.id).await, RunStatus::Merged);
    assert_eq!(timers().await, [(second.id, 500)]);
    node.write(due(first.id, 9000)).await.unwrap();
    node.write(due(second.id, 499)).await.unwrap();
    assert_eq!(handed.take(), [], "too early");
    node.write(due(second.id, 500)).await.unwrap();
    assert_eq!(handed.take(), [second.id]);
    assert_eq!(timers().await, []);
    node.write(end(second.id, 0, RunStatus::Succeeded)).await.unwrap();
    empty(bed).await;

    // The last run of a burst stands for all the others, one after the other.
    let mut burst = Vec::new();
    for number in 10..14 {
        burst.push(arrive(bed, &node, &number.to_string(), gates()).await.0);
    }
    let (last, earlier) = burst.split_last().unwrap();
    let merged = async |skip, limit| -> Vec<RunId> {
        let rows = node
            .store
            .run_merged_here(WORKSPACE, last.id, skip, limit)
            .await
            .unwrap();
        rows.iter().map(|row| row.run).collect()
    };
    let earlier: Vec<RunId> = earlier.iter().map(|run| run.id).collect();
    assert_eq!(merged(0, 10).await, earlier);
    assert_eq!(merged(1, 1).await, earlier[1..2]);
    assert_eq!(node.store.run_merged_count(last.id).await.unwrap(), 3);
    assert_eq!(node.store.run_merged_count(earlier[0]).await.unwrap(), 0);
    node.write(due(last.id, 500)).await.unwrap();
    assert_eq!(handed.take(), [last.id]);
    node.write(end(last.id, 0, RunStatus::Succeeded)).await.unwrap();
    empty(bed).await;

    let gates = || {
        vec![ask(
            GateKind::Batch,
            Rules::Batch {
                size: 3,
                within_ms: 500,
            },
        )]
    };
    let (first, _) = arrive(bed, &node, "6", gates()).await;
    let (second, _) = arrive(bed, &node, "7", gates()).await;
    assert_eq!(handed.take(), []);
    let (third, starts) = arrive(bed, &node, "8", gates()).await;
    assert!(!starts);
    assert_eq!(handed.take(), [first.id]);
    let members = node.store.run_batch_events(WORKSPACE, first.id).await.unwrap();
    assert_eq!(members, [first.event_id, second.event_id, third.event_id]);
    stays(&node, &second).await;
    assert_eq!(timers().await, []);
    node.write(end(first.id, 0, RunStatus::Succeeded)).await.unwrap();
    let (fourth, _) = arrive(bed, &node, "9", gates()).await;
    assert_eq!(timers().await, [(fourth.id, 500)]);
    node.write(due(fourth.id, 500)).await.unwrap();
    assert_eq!(handed.take(), [fourth.id]);
    node.write(end(fourth.id, 0, RunStatus::Succeeded)).await.unwrap();
    empty(bed).await;
}

/// Whoever uses no lanes pays nothing for them; whoever does pays the same for one run and for a hundred.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_counted() {
    Bed::postgres().await.run(statements_on).await;
}

async fn statements_on(bed: &Bed) {
    let proxy = Proxy::before(&bed.url).await;
    let (store, seed) = weir_storage::Database::open(&proxy.url, weir_storage::DatabaseOptions::default())
        .await
        .unwrap();
    let node = bed.start(store, seed, "a").await;
    let mut count = proxy.executed();
    let mut statements = || {
        let before = std::mem::replace(&mut count, proxy.executed());
        proxy.executed() - before
    };
    // The first statement of all is prepared, not more.
    let plain = bed.accepted_at("1", at(0), Some(at(0)));
    let run = plain.runs[0].id;
    node.write(Fact::Accept(plain)).await.unwrap();
    assert_eq!(statements(), 1, "an event is one statement");
    let ended = crate::support::commit(run, 0, "end", Some(RunStatus::Succeeded));
    node.write(ended).await.unwrap();
    assert_eq!(statements(), 1, "a commit of a run is one statement");
    let batch = async |from: usize, to: usize| {
        let mut pending = Vec::new();
        for number in from..to {
            let mut accepted = bed.accepted_at(&format!("lane {number}"), at(0), Some(at(0)));
            accepted.runs[0].turn = Some(Box::new(Turn {
                priority: 0,
                gates: vec![lane("x", false, 1000, false)],
            }));
            pending.push(node.submit(Fact::Accept(accepted)));
        }
        for pending in pending {
            pending.await.unwrap();
        }
    };
    batch(0, 1).await;
    let one = statements();
    assert!(one <= 10, "{one}");
    batch(1, 2).await;
    let waits = statements();
    assert!(waits <= 11, "{waits}");
    batch(2, 300).await;
    let many = statements();
    // A queue is taken as it is: the first of them may be alone.
    assert!(many <= 3 * waits, "{many}");
}
