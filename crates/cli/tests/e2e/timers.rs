//! Pauses outlive the process.

use crate::support::{SOON, Server, eventually, now_unix_s, stderr, stdout};
use std::time::Duration;

const PAUSED: &str = "
kind: Workflow
name: paused
on: { manual: {} }
steps:
  - { id: pause, sleep: 4s }
  - { id: end, set: { is: over } }
";
/// As long as the step sleeps.
const PAUSE: Duration = Duration::from_secs(4);
/// How late a sleep may end on a busy machine; on one with nothing else to do it is some hundredths of a second.
const LATE_MS: i64 = 2000;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_sleeps_through_a_crash_and_wakes_up_in_time() {
    let mut server = Server::start().await;
    server.apply(PAUSED);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let started = server.weir(&["run", "start", "paused"]);
        assert!(started.status.success(), "{}", stderr(&started));
        ids.push(stdout(&started).trim().to_owned());
    }
    eventually("all runs sleep", SOON, async || {
        (server.runs(&["--status", "waiting"]).len() == ids.len()).then_some(())
    })
    .await;
    let told = stdout(&server.weir(&["run", "show", &ids[0]]));
    assert!(told.contains("sleep") && told.contains("until 20"), "{told}");
    server.kill();
    server.start_again().await;
    let back = i64::try_from(now_unix_s()).unwrap() + 1;
    let runs = eventually("all runs are over", SOON, async || {
        let runs = server.runs(&["--status", "succeeded"]);
        (runs.len() == ids.len()).then_some(runs)
    })
    .await;
    for run in runs {
        let at = |name: &str| chrono::DateTime::parse_from_rfc3339(run[name].as_str().unwrap()).unwrap();
        let took = (at("finishedAt") - at("startedAt")).to_std().unwrap();
        assert!(took >= PAUSE, "it slept {took:?}");
        let ends = (at("startedAt") + PAUSE).timestamp_millis().max(back * 1000);
        let late_ms = at("finishedAt").timestamp_millis() - ends;
        assert!(late_ms < LATE_MS, "it woke up {late_ms} ms late");
    }
}
