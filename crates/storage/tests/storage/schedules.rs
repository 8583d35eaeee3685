//! Where a schedule stands moves with the event of the instant, and only forwards.

use weir_storage::{
    AcceptOutcome, Accepted, ConfigChange, ConfigOutcome, ConfigRowChange, ConfigSubject, Fact, FactOutcome,
    ScheduleRow, WriteError,
};
use weir_workflow_engine::{Timestamp, WorkflowId, WorkspaceId};

use crate::support::{Bed, NOON, Node, WORKFLOW, WORKSPACE, at, both_databases, noise};

both_databases!(
    a_schedule_moves_with_its_event,
    an_event_that_is_not_stored_moves_nothing,
    new_times_begin_anew,
    many_schedules_fire_in_one_commit,
);

const NEW: Result<FactOutcome, WriteError> = Ok(FactOutcome::Accepted(AcceptOutcome::New));
const MINUTE: i64 = 60_000;

fn fire(bed: &Bed, workflow: WorkflowId, planned: Timestamp) -> Accepted {
    let mut accepted = bed.accepted_at(&planned.to_string(), at(0), Some(planned));
    accepted.dedupe.scope = format!("schedule/{workflow}");
    accepted.event.scheduled_for = Some(planned);
    accepted.fires = Some(workflow);
    accepted
}

async fn begin(node: &Node, workflow: WorkflowId, begins_at: Timestamp) {
    let change = ConfigChange {
        changes: vec![ConfigRowChange::PutSchedule(ScheduleRow {
            workflow,
            workspace: WORKSPACE,
            begins_at,
            fired_for: None,
        })],
        ..ConfigChange::default()
    };
    let applied = node.write(Fact::Config(change)).await;
    assert!(
        matches!(applied, Ok(FactOutcome::Config(ConfigOutcome::Applied { .. }))),
        "{applied:?}"
    );
}

async fn fired_for(node: &Node, workflow: WorkflowId) -> Option<Timestamp> {
    let row = node.store.schedule_load(WORKSPACE, workflow).await.unwrap().unwrap();
    let listed = node.store.config_load().await.unwrap().schedules;
    assert!(listed.contains(&row));
    row.fired_for
}

async fn a_schedule_moves_with_its_event(bed: &Bed) {
    let node = bed.node("a").await;
    begin(&node, WORKFLOW, at(0)).await;
    assert_eq!(fired_for(&node, WORKFLOW).await, None);
    assert_eq!(node.write(Fact::Accept(fire(bed, WORKFLOW, at(2 * MINUTE)))).await, NEW);
    assert_eq!(fired_for(&node, WORKFLOW).await, Some(at(2 * MINUTE)));
    // An older one that comes later is stored, and moves nothing back.
    assert_eq!(node.write(Fact::Accept(fire(bed, WORKFLOW, at(MINUTE)))).await, NEW);
    assert_eq!(fired_for(&node, WORKFLOW).await, Some(at(2 * MINUTE)));
    // Another tenant does not see it.
    let other = WorkspaceId::from_raw(12);
    assert_eq!(node.store.schedule_load(other, WORKFLOW).await.unwrap(), None);
    // Neither does an event of another source touch it.
    assert_eq!(node.write(Fact::Accept(bed.accepted("webhook"))).await, NEW);
    assert_eq!(fired_for(&node, WORKFLOW).await, Some(at(2 * MINUTE)));
}

async fn an_event_that_is_not_stored_moves_nothing(bed: &Bed) {
    let node = bed.node("a").await;
    begin(&node, WORKFLOW, at(0)).await;
    assert_eq!(node.write(Fact::Accept(fire(bed, WORKFLOW, at(MINUTE)))).await, NEW);
    // Seen before, with a planned time that is later.
    let mut again = fire(bed, WORKFLOW, at(MINUTE));
    again.event.scheduled_for = Some(at(5 * MINUTE));
    let answer = node.write(Fact::Accept(again)).await;
    assert!(
        matches!(answer, Ok(FactOutcome::Accepted(AcceptOutcome::Duplicate { .. }))),
        "{answer:?}"
    );
    assert_eq!(fired_for(&node, WORKFLOW).await, Some(at(MINUTE)));
    // Too large to be stored at all.
    let mut large = fire(bed, WORKFLOW, at(6 * MINUTE));
    large.event.body = noise(70 << 20).into();
    assert!(matches!(
        node.write(Fact::Accept(large)).await,
        Err(WriteError::Refused(_))
    ));
    assert_eq!(fired_for(&node, WORKFLOW).await, Some(at(MINUTE)));
}

async fn new_times_begin_anew(bed: &Bed) {
    let node = bed.node("a").await;
    begin(&node, WORKFLOW, at(0)).await;
    assert_eq!(node.write(Fact::Accept(fire(bed, WORKFLOW, at(5 * MINUTE)))).await, NEW);
    begin(&node, WORKFLOW, at(3 * MINUTE)).await;
    assert_eq!(fired_for(&node, WORKFLOW).await, None);
    // A node that still has the old times.
    assert_eq!(node.write(Fact::Accept(fire(bed, WORKFLOW, at(2 * MINUTE)))).await, NEW);
    assert_eq!(fired_for(&node, WORKFLOW).await, None);
    assert_eq!(node.write(Fact::Accept(fire(bed, WORKFLOW, at(4 * MINUTE)))).await, NEW);
    assert_eq!(fired_for(&node, WORKFLOW).await, Some(at(4 * MINUTE)));
    let change = ConfigChange {
        changes: vec![ConfigRowChange::Delete {
            workspace: WORKSPACE,
            subject: ConfigSubject::Workflow(WORKFLOW),
        }],
        ..ConfigChange::default()
    };
    node.write(Fact::Config(change)).await.unwrap();
    assert_eq!(node.store.schedule_load(WORKSPACE, WORKFLOW).await.unwrap(), None);
    // An event of a schedule that is gone is stored like any other.
    assert_eq!(node.write(Fact::Accept(fire(bed, WORKFLOW, at(9 * MINUTE)))).await, NEW);
}

/// Durability line 17: the clock strikes on two nodes, and there is one event with one run. Only PostgreSQL has several.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_store_an_instant_once() {
    Bed::postgres().await.run(two_nodes).await;
}

async fn two_nodes(bed: &Bed) {
    let (one, two) = (bed.node("a").await, bed.node("b").await);
    let workflows: Vec<WorkflowId> = (0..20).map(|n| WorkflowId::from_raw(100 + n)).collect();
    for workflow in &workflows {
        begin(&one, *workflow, at(0)).await;
    }
    for minute in 1..=20 {
        // Each node has them in another order.
        let instants = |node: &Node, workflows: &mut dyn Iterator<Item = &WorkflowId>| -> Vec<_> {
            workflows
                .map(|workflow| node.submit(Fact::Accept(fire(bed, *workflow, at(minute * MINUTE)))))
                .collect()
        };
        let pending = instants(&one, &mut workflows.iter());
        let rival = instants(&two, &mut workflows.iter().rev());
        for answer in futures::future::join_all(pending.into_iter().chain(rival)).await {
            assert!(matches!(answer, Ok(FactOutcome::Accepted(_))), "{answer:?}");
        }
    }
    assert_eq!(bed.number("SELECT count(*) FROM event").await, 400);
    assert_eq!(bed.number("SELECT count(*) FROM run").await, 400);
    let late = format!(
        "SELECT count(*) FROM schedule WHERE fired_for <> {}",
        NOON + 20 * MINUTE
    );
    assert_eq!(bed.number(&late).await, 0);
}

async fn many_schedules_fire_in_one_commit(bed: &Bed) {
    let node = bed.node("a").await;
    for n in 0..50 {
        begin(&node, WorkflowId::from_raw(100 + n), at(0)).await;
    }
    let mut pending = Vec::new();
    for minute in 1..=3 {
        for n in 0..50 {
            pending.push(node.submit(Fact::Accept(fire(
                bed,
                WorkflowId::from_raw(100 + n),
                at(minute * MINUTE),
            ))));
        }
    }
    for pending in pending {
        assert_eq!(pending.await, NEW);
    }
    let on_time = format!("SELECT count(*) FROM schedule WHERE fired_for = {}", NOON + 3 * MINUTE);
    assert_eq!(bed.number(&on_time).await, 50);
}
