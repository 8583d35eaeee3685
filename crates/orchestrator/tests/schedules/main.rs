//! Schedules on a running node: what fires, what does not, and where they stand after whatever happened.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod bed;

use bed::{Bed, both_databases, time, workflow};
use serde_json::{Value, json};
use weir_orchestrator::configure::Actor;
use weir_storage::EventFilter;
use weir_workflow_engine::EventSource;

both_databases!(
    an_instant_is_an_event_with_a_run,
    after_downtime_the_policy_decides,
    new_times_do_not_fire_for_the_past,
    a_paused_workflow_catches_up_when_it_is_resumed,
    a_clock_that_is_set_back_fires_nothing_twice,
    a_scheduled_workflow_can_be_started_by_hand,
);

async fn an_instant_is_an_event_with_a_run(bed: &Bed) {
    let node = bed.node("a").await;
    let schedule = json!({ "cron": "*/15 9 * * *", "timezone": "UTC", "input": { "region": "eu" } });
    node.apply(workflow("report", &schedule)).await;
    bed.set("09:00:00");
    node.times("report", 1).await;
    bed.set("09:15:00.250");
    assert_eq!(node.times("report", 2).await, ["09:00:00", "09:15:00"]);
    let fired = node.fired("report").await;
    assert_eq!(fired[0].data["previous"], Value::Null);
    let data = json!({
        "scheduled_for": "2026-11-25T09:15:00.000Z",
        "previous": "2026-11-25T09:00:00.000Z",
        "missed": 0,
        "schedule": { "cron": "*/15 9 * * *", "timezone": "UTC" },
        "input": { "region": "eu" },
    });
    assert_eq!(fired[1].data, data);
    assert_eq!(fired[1].runs.len(), 1);
    let told = node.told(fired[1].runs[0]).await;
    let expected = json!({
        "kind": "schedule", "for": "2026-11-25T09:15:00.000Z", "source": "schedule", "type": "report", "data": data,
    });
    assert_eq!(told, expected);
    let snapshot = node.0.snapshot();
    let stored = snapshot.workflow(node.0.default_workspace(), "report").unwrap();
    let next = [
        time("2026-11-25T09:30:00Z"),
        time("2026-11-25T09:45:00Z"),
        time("2026-11-26T09:00:00Z"),
    ];
    assert_eq!(node.0.next_runs(stored, 3), next);
    assert_eq!(node.0.fired_for(stored.row.id), Some(time("2026-11-25T09:15:00Z")));
    node.stop().await;
}

async fn after_downtime_the_policy_decides(bed: &Bed) {
    let node = bed.node("a").await;
    let policies = [
        ("skip", json!({ "every": "1m", "catch_up": "skip" })),
        ("one", json!({ "every": "1m", "catch_up": "one" })),
        ("all", json!({ "every": "1m", "catch_up": "all", "max_catch_up": 3 })),
    ];
    for (name, schedule) in &policies {
        node.apply(workflow(name, schedule)).await;
    }
    bed.set("09:00:00");
    for (name, _) in &policies {
        node.times(name, 1).await;
    }
    node.stop().await;
    bed.set("09:05:30");
    let node = bed.node("a").await;
    assert_eq!(
        node.times("all", 4).await,
        ["09:00:00", "09:03:00", "09:04:00", "09:05:00"]
    );
    assert_eq!(node.times("one", 2).await, ["09:00:00", "09:05:00"]);
    assert_eq!(node.times("skip", 1).await, ["09:00:00"]);
    bed.set("09:06:00");
    for (name, count) in [("skip", 2), ("one", 3), ("all", 5)] {
        let times = node.times(name, count).await;
        assert_eq!(
            (times.len(), times.last().map(String::as_str)),
            (count, Some("09:06:00")),
            "{name}"
        );
    }
    // What was dropped is told to the run that comes after it.
    let missed = async |name: &str| -> Vec<u64> {
        let fired = node.fired(name).await;
        fired
            .iter()
            .map(|fired| fired.data["missed"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(missed("skip").await, [0, 5]);
    assert_eq!(missed("one").await, [0, 4, 0]);
    assert_eq!(missed("all").await, [0, 2, 0, 0, 0]);
    assert_eq!(node.fired("skip").await[1].data["previous"], "2026-11-25T09:00:00.000Z");
    node.stop().await;
}

async fn new_times_do_not_fire_for_the_past(bed: &Bed) {
    let node = bed.node("a").await;
    bed.set("09:30:00");
    // Published at half past: the full hour before is none of its business.
    node.apply(workflow("hourly", &json!({ "cron": "0 * * * *", "catch_up": "all" })))
        .await;
    node.has_looked(bed).await;
    assert_eq!(node.fired("hourly").await.len(), 0);
    bed.set("10:00:00");
    node.times("hourly", 1).await;
    bed.set("10:30:00");
    node.apply(workflow("hourly", &json!({ "cron": "15 * * * *", "catch_up": "all" })))
        .await;
    node.has_looked(bed).await;
    bed.set("11:15:00");
    assert_eq!(node.times("hourly", 2).await, ["10:00:00", "11:15:00"]);
    // Deleted and made again: as if it had never been there.
    let actor = Actor {
        name: "test".to_owned(),
        token: None,
    };
    let kind = weir_orchestrator::configure::Kind::Workflow;
    node.0
        .delete(node.0.default_workspace(), &actor, kind, "hourly", None)
        .await
        .unwrap();
    bed.set("13:30:00");
    node.apply(workflow("hourly", &json!({ "cron": "15 * * * *", "catch_up": "all" })))
        .await;
    bed.set("14:15:00");
    assert_eq!(node.times("hourly", 3).await, ["10:00:00", "11:15:00", "14:15:00"]);
    node.stop().await;
}

async fn a_paused_workflow_catches_up_when_it_is_resumed(bed: &Bed) {
    let node = bed.node("a").await;
    let hourly = json!({ "cron": "0 * * * *" });
    node.apply(workflow("hourly", &hourly)).await;
    bed.set("09:00:00");
    node.times("hourly", 1).await;
    bed.set_paused(&node, "hourly", true).await;
    let stored = || {
        let snapshot = node.0.snapshot();
        snapshot
            .workflow(node.0.default_workspace(), "hourly")
            .cloned()
            .unwrap()
    };
    assert_eq!(node.0.next_runs(&stored(), 3), []);
    bed.set("12:30:00");
    node.has_looked(bed).await;
    assert_eq!(node.fired("hourly").await.len(), 1);
    // Other steps at the same times: it stands where it stood.
    let mut document = workflow("hourly", &hourly);
    document["description"] = json!("another version");
    node.apply(document).await;
    bed.set_paused(&node, "hourly", false).await;
    assert_eq!(node.times("hourly", 2).await, ["09:00:00", "12:00:00"]);
    assert_eq!(node.fired("hourly").await[1].data["missed"], 2);
    // Other times while it is paused: nothing is left to catch up with.
    bed.set_paused(&node, "hourly", true).await;
    bed.set("15:30:00");
    node.apply(workflow("hourly", &json!({ "cron": "10 * * * *" }))).await;
    bed.set_paused(&node, "hourly", false).await;
    node.has_looked(bed).await;
    bed.set("16:10:00");
    assert_eq!(node.times("hourly", 3).await, ["09:00:00", "12:00:00", "16:10:00"]);
    node.stop().await;
}

async fn a_clock_that_is_set_back_fires_nothing_twice(bed: &Bed) {
    let node = bed.node("a").await;
    node.apply(workflow("each", &json!({ "every": "1m", "catch_up": "all" })))
        .await;
    bed.set("09:00:00");
    node.times("each", 1).await;
    bed.set("09:01:00");
    node.times("each", 2).await;
    bed.set("08:59:59");
    node.has_looked(bed).await;
    bed.set("09:01:00");
    node.has_looked(bed).await;
    assert_eq!(node.fired("each").await.len(), 2);
    node.stop().await;
    // Neither does a process that starts while it is back.
    bed.set("08:59:59");
    let node = bed.node("a").await;
    bed.set("09:00:00");
    node.has_looked(bed).await;
    bed.set("09:02:00");
    assert_eq!(node.times("each", 3).await, ["09:00:00", "09:01:00", "09:02:00"]);
    node.stop().await;
}

/// Durability line 17: the clock strikes on two nodes. Only PostgreSQL has several.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_share_a_database_fire_an_instant_once() {
    Bed::postgres().await.run(two_nodes).await;
}

async fn two_nodes(bed: &Bed) {
    let (one, two) = (bed.node("a").await, bed.node("b").await);
    let names = ["first", "second", "third"];
    for name in names {
        one.apply(workflow(name, &json!({ "every": "1m", "catch_up": "all" })))
            .await;
    }
    bed::eventually("the other node knows them", async || {
        let snapshot = two.0.snapshot();
        let known = |name: &&str| snapshot.workflow(two.0.default_workspace(), name).is_some();
        names.iter().all(known).then_some(())
    })
    .await;
    for minute in 0..8 {
        bed.set(&format!("09:{minute:02}:00"));
        for name in names {
            one.times(name, minute + 1).await;
        }
    }
    one.has_looked(bed).await;
    two.has_looked(bed).await;
    for name in names {
        let fired = one.fired(name).await;
        let expected: Vec<String> = (0..8).map(|minute| format!("09:{minute:02}:00")).collect();
        assert_eq!(
            fired.iter().map(|fired| fired.at.clone()).collect::<Vec<_>>(),
            expected,
            "{name}"
        );
        assert!(
            fired
                .iter()
                .all(|fired| fired.runs.len() == 1 && fired.data["missed"] == 0),
            "{fired:?}"
        );
    }
    one.stop().await;
    two.stop().await;
}

async fn a_scheduled_workflow_can_be_started_by_hand(bed: &Bed) {
    let node = bed.node("a").await;
    let schedule = json!({ "every": "1h", "input": { "region": "eu" } });
    node.apply(workflow("report", &schedule)).await;
    bed.set("09:00:00");
    node.times("report", 1).await;
    let workspace = node.0.default_workspace();
    let report = node.0.snapshot().workflow(workspace, "report").unwrap().row.id;
    // The event is on disk a moment before whoever fired it has the answer.
    bed::eventually("the server knows that it fired", async || node.0.fired_for(report)).await;
    bed.set("09:20:00");
    let actor = Actor {
        name: "test".to_owned(),
        token: None,
    };
    let start = async |input: Value| node.0.run_start(workspace, &actor, "report", input, None).await;
    let told = node.told(start(json!({})).await.unwrap().run.unwrap()).await;
    assert_eq!((&told["kind"], &told["for"]), (&json!("manual"), &Value::Null));
    assert_eq!(told["data"]["scheduled_for"], "2026-11-25T09:20:00.000Z");
    assert_eq!(told["data"]["previous"], "2026-11-25T09:00:00.000Z");
    assert_eq!(told["data"]["input"], json!({ "region": "eu" }));
    let told = node
        .told(start(json!({ "region": "us" })).await.unwrap().run.unwrap())
        .await;
    assert_eq!(told["data"]["input"], json!({ "region": "us" }));
    assert!(start(json!(["us"])).await.is_err());
    // It is no instant of the schedule.
    let page = node
        .0
        .store()
        .event_page(workspace, &EventFilter::default(), None, 10)
        .await
        .unwrap();
    let by_clock = page.rows.iter().filter(|event| event.source == EventSource::Schedule);
    assert_eq!((by_clock.count(), page.rows.len()), (1, 3));
    bed.set("10:00:00");
    let deadline = bed::eventually("the next instant fires", async || {
        let fired = node
            .0
            .store()
            .event_page(workspace, &EventFilter::default(), None, 10)
            .await
            .unwrap();
        (fired.rows.len() == 4).then_some(fired.rows[0].source)
    });
    assert_eq!(deadline.await, EventSource::Schedule);
    node.stop().await;
}
