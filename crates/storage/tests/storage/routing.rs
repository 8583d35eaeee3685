//! An event is stored only as the configuration in force says.

use futures::future::join_all;
use weir_storage::{
    AcceptOutcome, Accepted, ConfigChange, ConfigOutcome, Fact, FactOutcome, RunStatus, WaitKey, WriteError,
};
use weir_workflow_engine::{Ask, GateKey, GateKind, Rules, Turn};

use crate::support::{Bed, Node, WORKFLOW, WORKSPACE, at, both_databases, commit};

both_databases!(
    an_event_is_stored_as_the_configuration_in_force_says,
    of_one_event_the_latest_routing_counts,
);

/// Changes the configuration; the revision it has then.
async fn changed(node: &Node) -> i64 {
    match node.write(Fact::Config(ConfigChange::default())).await {
        Ok(FactOutcome::Config(ConfigOutcome::Applied { revision })) => revision,
        other => panic!("{other:?}"),
    }
}

fn routed(bed: &Bed, key: &str, revision: i64) -> Accepted {
    let mut accepted = bed.accepted(key);
    accepted.routed_by = Some(revision);
    accepted
}

fn is_new(answer: &Result<FactOutcome, WriteError>) -> bool {
    *answer == Ok(FactOutcome::Accepted(AcceptOutcome::New))
}

/// Every form in which an event may come: alone, with a lane, awaited by a step, with a time of its own.
fn forms(bed: &Bed, revision: i64) -> Vec<Accepted> {
    let plain = routed(bed, "plain", revision);
    let mut turn = routed(bed, "turn", revision);
    turn.runs[0].turn = Some(Box::new(Turn {
        priority: 0,
        gates: vec![Ask {
            key: GateKey::new(WORKFLOW, GateKind::Lane, "a"),
            name: "a".to_owned(),
            rules: Rules::Lane {
                merge: false,
                max_waiting: 10,
                hold: false,
            },
        }],
    }));
    let mut awaited = routed(bed, "awaited", revision);
    awaited.keys.push(WaitKey::end_of(awaited.runs[0].id));
    let mut anchored = bed.accepted_at("anchored", at(0), Some(at(-43_200_000)));
    anchored.routed_by = Some(revision);
    vec![plain, turn, awaited, anchored]
}

async fn an_event_is_stored_as_the_configuration_in_force_says(bed: &Bed) {
    let first = bed.node("a").await;
    // On SQLite there is one server; its own changes count as well.
    let second = if bed.is_postgres() {
        Some(bed.node("b").await)
    } else {
        None
    };
    let second = second.as_ref().unwrap_or(&first);
    let before = changed(&first).await;
    let known = routed(bed, "known", before);
    let run = known.runs[0].id;
    assert!(is_new(&second.write(Fact::Accept(known)).await));
    let now = changed(&first).await;
    assert_eq!(now, before + 1);

    // One batch: what was routed before the change, what does not mind, and the work of a run.
    let mut facts: Vec<Fact> = forms(bed, before).into_iter().map(Fact::Accept).collect();
    let outdated = facts.len();
    facts.push(Fact::Accept(bed.accepted("any")));
    facts.push(Fact::Accept(routed(bed, "fresh", now)));
    facts.push(commit(run, 0, "{}", Some(RunStatus::Waiting)));
    let answers = join_all(facts.into_iter().map(|fact| second.submit(fact)).collect::<Vec<_>>()).await;
    for answer in &answers[..outdated] {
        assert_eq!(*answer, Err(WriteError::Outdated { revision: now }));
    }
    assert!(
        is_new(&answers[outdated]) && is_new(&answers[outdated + 1]),
        "{answers:?}"
    );
    assert_eq!(answers[outdated + 2], Ok(FactOutcome::Written));
    for table in ["event", "run"] {
        assert_eq!(bed.number(&format!("SELECT count(*) FROM {table}")).await, 3, "{table}");
    }

    // Routed anew they are stored, and nothing of the first attempt is in the way.
    for accepted in forms(bed, now) {
        let (event, run) = (accepted.event.id, accepted.runs[0].id);
        assert!(is_new(&second.write(Fact::Accept(accepted)).await));
        let stored = second.store.event_load(WORKSPACE, event).await.unwrap().unwrap();
        assert_eq!(stored.runs, [run]);
    }
    // A repeat is one, whatever routed it.
    let answer = second.write(Fact::Accept(routed(bed, "plain", before))).await;
    let repeats = |answer: &Result<FactOutcome, WriteError>| {
        matches!(
            answer,
            Ok(FactOutcome::Accepted(AcceptOutcome::Duplicate { .. })) | Err(WriteError::Outdated { .. })
        )
    };
    assert!(repeats(&answer), "{answer:?}");
    let answer = second.write(Fact::Accept(routed(bed, "plain", now))).await;
    assert!(repeats(&answer) && answer.is_ok(), "{answer:?}");
}

async fn of_one_event_the_latest_routing_counts(bed: &Bed) {
    let node = bed.node("a").await;
    let before = changed(&node).await;
    let now = changed(&node).await;
    let (old, fresh) = (routed(bed, "twice", before), routed(bed, "twice", now));
    let run = fresh.runs[0].id;
    let answers = join_all([old, fresh].map(|accepted| node.submit(Fact::Accept(accepted)))).await;
    assert_eq!(answers[0], Err(WriteError::Outdated { revision: now }));
    assert!(is_new(&answers[1]), "{answers:?}");
    assert_eq!(bed.number("SELECT count(*) FROM event").await, 1);
    assert_eq!(bed.number("SELECT id FROM run").await, run.as_raw());
}
