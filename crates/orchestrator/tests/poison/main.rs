//! A run whose task panics: tried again, given up, listed, and no concern of the runs beside it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]
#![expect(clippy::panic, reason = "the panic is what is tested")]

#[path = "../schedules/bed.rs"]
#[expect(dead_code, reason = "half of it is about schedules")]
mod bed;

use std::sync::atomic::{AtomicU32, Ordering};

use bed::{Bed, Node, both_databases, eventually};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde_json::json;
use weir_orchestrator::configure::Actor;
use weir_orchestrator::registry::Registry;
use weir_storage::{CauseState, RunFilter, RunStatus};

both_databases!(a_run_whose_task_panics_is_given_up_and_stays_alone);

const MANIFEST: &str = r#"
connector: bomb
version: 1.0.0
hosts: ["https://bomb.acme.test"]
auth: { none: {} }
operations:
  fuse.light: { get: /fuse }
"#;
/// What a run may cost before it is given up.
const TRIES: u32 = 3;
/// With all their tries fewer than the failures at which the breaker of a connection opens.
const BOMBS: u32 = 3;
const OTHERS: usize = 39;

static EXPLOSIONS: AtomicU32 = AtomicU32::new(0);

/// Stands for a fault of the program: counting the calls of this operation panics.
struct Faulty;

impl Recorder for Faulty {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.labels().any(|label| label.value() == "fuse.light") {
            EXPLOSIONS.fetch_add(1, Ordering::SeqCst);
            panic!("boom");
        }
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

async fn started(node: &Node, workflow: &str) {
    let actor = Actor {
        name: "test".to_owned(),
        token: None,
    };
    let workspace = node.0.default_workspace();
    let started = node.0.run_start(workspace, &actor, workflow, json!({}), None).await;
    started.unwrap();
}

async fn a_run_whose_task_panics_is_given_up_and_stays_alone(bed: &Bed) {
    // Another test of this process may have set it.
    let _set_before = metrics::set_global_recorder(Faulty);
    let before = EXPLOSIONS.load(Ordering::SeqCst);
    let mut connectors = Registry::default();
    connectors.add("bomb.yaml", MANIFEST, &|_| None).unwrap();
    let node = bed.node_with("a", connectors).await;
    node.apply(json!({ "kind": "Connection", "name": "bomb", "connector": "bomb" }))
        .await;
    let light = json!({ "id": "light", "call": "bomb.fuse.light", "connection": "bomb" });
    node.apply(json!({ "kind": "Workflow", "name": "bomb", "on": { "manual": {} }, "steps": [light] }))
        .await;
    let calm = json!({ "id": "calm", "set": { "calm": true } });
    node.apply(json!({ "kind": "Workflow", "name": "calm", "on": { "manual": {} }, "steps": [calm] }))
        .await;
    for _ in 0..BOMBS {
        started(&node, "bomb").await;
        for _ in 0..OTHERS / usize::try_from(BOMBS).unwrap() {
            started(&node, "calm").await;
        }
    }
    let (store, workspace) = (node.0.store(), node.0.default_workspace());
    let ended = async |status| {
        let filter = RunFilter {
            status: Some(status),
            ..RunFilter::default()
        };
        store.run_page(workspace, &filter, None, 200).await.unwrap().rows
    };
    let bombs = usize::try_from(BOMBS).unwrap();
    let failed = eventually("every run has ended", async || {
        let failed = ended(RunStatus::Failed).await;
        (failed.len() == bombs && ended(RunStatus::Succeeded).await.len() == OTHERS).then_some(failed)
    })
    .await;
    assert!(
        failed
            .iter()
            .all(|run| run.error_code.as_deref() == Some("internal_error")),
        "{failed:?}"
    );
    let (causes, more) = store.cause_list(workspace, None).await.unwrap();
    let told: Vec<_> = causes
        .iter()
        .map(|cause| (cause.state, cause.count.value, cause.code.as_str()))
        .collect();
    assert_eq!(
        (told, more),
        (vec![(CauseState::Open, u64::from(BOMBS), "internal_error")], false)
    );
    assert!(
        EXPLOSIONS.load(Ordering::SeqCst) - before >= TRIES * BOMBS,
        "each was tried again"
    );
    // The node goes on.
    started(&node, "calm").await;
    eventually("a later run ends well", async || {
        (ended(RunStatus::Succeeded).await.len() == OTHERS + 1).then_some(())
    })
    .await;
    node.stop().await;
}
