//! Schedules and SIGKILL: what was planned while nobody was there is made up for as the workflow says, and nothing twice.

use crate::support::{SOON, Server, eventually, needed, now_unix_s, stderr, stdout};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use std::collections::BTreeSet;
use std::time::Duration;

const WORKFLOWS: &str = "
kind: Workflow
name: skip
on: { schedule: { every: 1s, catch_up: skip } }
steps: [{ id: told, set: { missed: '{{ event.data.missed }}' } }]
---
kind: Workflow
name: one
on: { schedule: { cron: '* * * * * *', timezone: Europe/Berlin, catch_up: one } }
steps: [{ id: told, set: { missed: '{{ event.data.missed }}' } }]
---
kind: Workflow
name: all
on: { schedule: { every: 1s, catch_up: all, max_catch_up: 1000 } }
steps: [{ id: told, set: { missed: '{{ event.data.missed }}' } }]
";
const NAMES: [&str; 3] = ["skip", "one", "all"];
/// How often the servers are killed.
const CRASHES: usize = 2;
/// How long nobody is there, in planned times.
const DOWN_S: u64 = 4;

/// Planned times in seconds since 1970, one for each event of this workflow, oldest first.
fn planned(server: &Server, workflow: &str) -> Vec<u64> {
    let events = server.list(&["events", "--json", "--limit", "1000", "--type", workflow]);
    let mut planned: Vec<u64> = events
        .iter()
        .map(|event| {
            assert_eq!(
                (&event["source"], &event["connectorName"]),
                (&Value::from("SCHEDULE"), &Value::from("schedule"))
            );
            let text = event["externalId"].as_str().unwrap();
            let at = chrono::DateTime::parse_from_rfc3339(text).unwrap();
            u64::try_from(at.timestamp()).unwrap()
        })
        .collect();
    planned.sort_unstable();
    planned
}

async fn fires_after(server: &Server, moment: u64) {
    eventually("everything fires again", SOON, async || {
        let again = |name: &&str| planned(server, name).last().is_some_and(|last| *last > moment + 1);
        NAMES.iter().all(again).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_the_policy_decides_and_nothing_fires_twice() {
    let mut server = Server::start().await;
    server.apply(WORKFLOWS);
    fires_after(&server, now_unix_s()).await;
    let mut outages = Vec::new();
    for _ in 0..CRASHES {
        server.kill();
        let down = now_unix_s();
        eventually("some planned times have passed", SOON, async || {
            (now_unix_s() > down + DOWN_S).then_some(())
        })
        .await;
        let before = now_unix_s();
        server.start_again().await;
        fires_after(&server, now_unix_s()).await;
        outages.push((down, before));
    }
    let fired = NAMES.map(|name| planned(&server, name));
    for (name, fired) in NAMES.iter().zip(&fired) {
        let different: BTreeSet<u64> = fired.iter().copied().collect();
        assert_eq!(different.len(), fired.len(), "`{name}` fired twice: {fired:?}");
    }
    let [skip, one, all] = &fired;
    let gaps = |fired: &[u64]| -> Vec<u64> {
        fired
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .filter(|gap| *gap > 1)
            .collect()
    };
    assert_eq!(gaps(all), [0; 0], "every planned time has its run: {all:?}");
    for (down, up) in outages {
        // From the second after the kill to the one in which the process came back.
        let inside = |fired: &[u64]| fired.iter().filter(|at| (down + 1..up).contains(*at)).count();
        assert_eq!(inside(all) as u64, up - down - 1, "{all:?}");
        assert!(
            inside(one) <= 1 && inside(skip) <= 1,
            "{down} to {up}: {one:?} {skip:?}"
        );
    }
    for name in NAMES {
        let runs = eventually("every run succeeds", SOON, async || {
            let open = server.runs(&["--workflow", name, "--status", "running", "--status", "failed"]);
            open.is_empty().then(|| server.runs(&["--workflow", name]))
        })
        .await;
        assert!(runs.len() >= planned(&server, name).len() - 1, "a run for each event");
    }
    let listed = server.weir(&["workflows"]);
    assert!(listed.status.success(), "{}", stderr(&listed));
    let text = stdout(&listed);
    assert!(
        text.contains("every 1 s") && text.contains("* * * * * * (Europe/Berlin)"),
        "{text}"
    );
    let json = server.list(&["workflows", "--json"]);
    assert_eq!(json.len(), NAMES.len());
    assert!(
        json.iter()
            .all(|workflow| workflow["nextRuns"].as_array().unwrap().len() == 5),
        "{json:?}"
    );
    assert!(
        json.iter().all(|workflow| workflow["lastScheduledFor"].is_string()),
        "{json:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_fire_each_instant_once() {
    let admin = needed("WEIR_TEST_POSTGRES_URL");
    let name = format!("weir_schedules_{}", std::process::id());
    let mut connection = PgConnection::connect(&admin).await.unwrap();
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut connection).await.unwrap();
    let mut url = reqwest::Url::parse(&admin).unwrap();
    url.set_path(&name);
    let settings = [
        ("WEIR_DATABASE_URL", url.as_str()),
        ("WEIR_MASTER_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
    ];
    let node = |name: &'static str| [settings[0], settings[1], ("WEIR_NODE", name)];
    let mut first = Server::start_with(&node("first")).await;
    let second = Server::start_with(&node("second")).await;
    first.apply(WORKFLOWS);
    fires_after(&second, now_unix_s() + 3).await;
    // One goes, and the other is there all the time: there is nothing to make up for.
    first.kill();
    fires_after(&second, now_unix_s() + 3).await;
    first.start_again().await;
    fires_after(&first, now_unix_s() + 3).await;
    for name in NAMES {
        let fired = planned(&second, name);
        let different: BTreeSet<u64> = fired.iter().copied().collect();
        assert_eq!(different.len(), fired.len(), "`{name}` fired twice: {fired:?}");
        // The others may leave one out when the machine is busy for longer than a second.
        if name == "all" {
            let expected: Vec<u64> = (fired[0]..).take(fired.len()).collect();
            assert_eq!(fired, expected, "none is left out");
        }
    }
    let runs = eventually("the runs of both are over", Duration::from_secs(60), async || {
        second
            .runs(&["--workflow", "all", "--status", "running"])
            .is_empty()
            .then(|| second.runs(&["--workflow", "all"]))
    })
    .await;
    let events: BTreeSet<&str> = runs
        .iter()
        .map(|run| run["event"]["externalId"].as_str().unwrap())
        .collect();
    assert_eq!(events.len(), runs.len(), "an instant has two runs");
    drop((first, second));
    let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
    sqlx::query(drop).execute(&mut connection).await.unwrap();
}
