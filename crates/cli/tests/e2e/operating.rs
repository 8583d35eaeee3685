//! When something went wrong: what a person does about it on the command line, with the server killed in between.

use crate::support::{SOON, Server, eventually, stderr, stdout};
use crate::upstream::{Reply, Upstream};
use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection};

fn documents(url: &str) -> String {
    format!(
        r#"
kind: Connection
name: bank
connector: http
config: {{ base_url: "{url}" }}
---
kind: Workflow
name: pay
on: {{ manual: {{}} }}
steps:
  - {{ id: price, call: http.request, connection: bank, with: {{ method: GET, path: /price }} }}
  - {{ id: pay, call: http.request, connection: bank, with: {{ method: POST, path: /pay, body: {{ to: "{{{{ event.data.to }}}}" }} }} }}
  - {{ id: mail, call: http.request, connection: bank, with: {{ method: POST, path: /mail, body: {{ to: "{{{{ event.data.to }}}}" }} }} }}
"#
    )
}

/// How often a path was called.
fn count(bank: &Upstream, path: &str) -> usize {
    let calls = bank.requests();
    let at = |head: &str| head.split(' ').nth(1) == Some(path);
    calls.iter().filter(|request| at(&request.head)).count()
}

/// Runs a command that must succeed, and gives what it printed.
fn done(server: &Server, arguments: &[&str]) -> String {
    let output = server.weir(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}:\n{}{}",
        stdout(&output),
        stderr(&output)
    );
    stdout(&output)
}

/// The last word of a command's output: the id of a run.
fn run_id(output: &str) -> String {
    output.split_whitespace().last().unwrap().to_owned()
}

async fn finished(server: &Server, run: &str) -> Value {
    eventually("the run is over", SOON, async || {
        let told: Value = serde_json::from_str(&done(server, &["run", "show", run, "--json"])).unwrap();
        ["SUCCEEDED", "FAILED"]
            .contains(&told["status"].as_str().unwrap())
            .then_some(told)
    })
    .await
}

const ORDERED: &str = r#"
kind: Workflow
name: order
on: { manual: {} }
steps:
  - { id: note, call: http.request, connection: bank, with: { method: POST, path: /note, body: { to: "{{ event.data.to }}" } } }
  - { id: paid, run: paying, with: { to: "{{ event.data.to }}" } }
  - { id: done, call: http.request, connection: bank, with: { method: POST, path: /done, body: { run: "{{ steps.paid.run }}" } } }
---
kind: Workflow
name: paying
on: { manual: {} }
steps:
  - { id: pay, call: http.request, connection: bank, with: { method: POST, path: /pay, body: { to: "{{ event.data.to }}" } } }
  - { id: mail, call: http.request, connection: bank, with: { method: POST, path: /mail, body: { to: "{{ event.data.to }}" } } }
  - { id: nap, sleep: 2s }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_repaired_by_the_repair_of_the_run_that_it_waits_for() {
    let bank = Upstream::start().await;
    let server = Server::start().await;
    server.apply(&format!("{}---{ORDERED}", documents(&bank.url)));
    // Who waits is retried when the one it waits for is over, and while that is under way.
    for (round, patient) in [(1, true), (2, false)] {
        bank.next([Reply::Status(200), Reply::Status(200), Reply::Status(400)]);
        let input = format!(r#"{{"to":"ann {round}"}}"#);
        let parent = run_id(&done(&server, &["run", "start", "order", "--input", &input]));
        let told = finished(&server, &parent).await;
        assert_eq!(told["error"]["code"], "run_failed", "{told:#}");
        let text = told.to_string();
        let (_, advice) = text.split_once("; retry ").unwrap();
        let (child, rest) = advice.split_once(' ').unwrap();
        assert!(rest.starts_with("first, then this one"), "{told:#}");

        let retried = run_id(&done(&server, &["run", "retry", child, "--yes"]));
        if patient {
            assert_eq!(finished(&server, &retried).await["status"], "SUCCEEDED");
        }
        let again = run_id(&done(&server, &["run", "retry", &parent, "--yes"]));
        let told = finished(&server, &again).await;
        assert_eq!(told["status"], "SUCCEEDED", "{told:#}");
        let calls = ["/note", "/pay", "/mail", "/done"].map(|path| count(&bank, path));
        assert_eq!(calls, [round, round, 2 * round, round]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_payment_is_decided_by_a_person_and_retried_after_a_crash() {
    let bank = Upstream::start().await;
    let mut server = Server::start().await;
    server.apply(&documents(&bank.url));
    bank.next([Reply::Status(200), Reply::HangUp]);
    let run = run_id(&done(&server, &["run", "start", "pay", "--input", r#"{"to":"ann"}"#]));
    let told = finished(&server, &run).await;
    assert_eq!(told["error"]["code"], "effect_unknown", "{told:#}");

    // Retried as it is, it would end in the same way, and says so.
    let unasked = server.weir(&["run", "retry", &run]);
    let hint = format!("weir run resolve {run} ");
    assert!(stdout(&unasked).contains(&hint), "{}", stdout(&unasked));
    assert!(!unasked.status.success(), "nobody is there to say yes");
    let look = server.weir(&["run", "resolve", &run, "--look"]);
    assert!(stderr(&look).contains("cannot be looked for"), "{}", stderr(&look));
    assert!(
        done(
            &server,
            &[
                "run",
                "resolve",
                &run,
                "--not-happened",
                "--note",
                "not on the statement"
            ]
        )
        .contains("not happened")
    );
    server.kill();
    server.start_again().await;
    let story = done(&server, &["run", "show", &run]);
    assert!(
        story.contains("decided not happened") && story.contains("not on the statement"),
        "{story}"
    );

    let retried = done(&server, &["run", "retry", &run, "--yes"]);
    assert!(
        retried.contains("begins at step pay") && retried.contains("price"),
        "{retried}"
    );
    let second = finished(&server, &run_id(&retried)).await;
    assert_eq!(second["status"], "SUCCEEDED", "{second:#}");
    assert_eq!(
        (count(&bank, "/price"), count(&bank, "/pay"), count(&bank, "/mail")),
        (1, 2, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_retried_with_another_event() {
    let bank = Upstream::start().await;
    let server = Server::start().await;
    server.apply(&documents(&bank.url));
    bank.next([Reply::Status(200), Reply::Status(200), Reply::Status(422)]);
    let run = run_id(&done(
        &server,
        &["run", "start", "pay", "--input", r#"{"to":"nobody"}"#],
    ));
    assert_eq!(finished(&server, &run).await["error"]["step"], "mail");
    let file = server.folder.path().join("event.json");
    std::fs::write(&file, r#"{"to":"bob"}"#).unwrap();
    let body = file.to_str().unwrap();
    let retried = done(&server, &["run", "retry", &run, "--body", body, "--live", "--yes"]);
    let second = finished(&server, &run_id(&retried)).await;
    assert_eq!(second["status"], "SUCCEEDED", "{second:#}");
    assert_eq!((count(&bank, "/pay"), count(&bank, "/mail")), (1, 2));
    let last = bank.requests().last().unwrap().body.clone();
    assert_eq!(String::from_utf8(last).unwrap(), r#"{"to":"bob"}"#);
    let from_start = server.weir(&["run", "replay", &run]);
    let shown = stdout(&from_start);
    assert!(
        shown.contains("begins at the start") && shown.contains("1 read"),
        "{shown}"
    );
}

/// The server is killed in the middle of an operation: the next start goes on, and no run is replayed twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_on_many_runs_survives_a_crash() {
    const RUNS: usize = 30;
    let bank = Upstream::start().await;
    let mut server = Server::start().await;
    server.apply(&documents(&bank.url));
    bank.next((0..RUNS).flat_map(|_| [Reply::Status(200), Reply::Status(200), Reply::Status(422)]));
    for _ in 0..RUNS {
        let run = run_id(&done(&server, &["run", "start", "pay", "--input", r#"{"to":"ann"}"#]));
        assert_eq!(finished(&server, &run).await["error"]["step"], "mail");
    }
    let shown = server.weir(&["bulk", "replay", "--workflow", "pay", "--step", "mail"]);
    let text = stdout(&shown);
    assert!(
        text.contains("30 runs: 0 reads, 0 effects answered from the record, 30 sent"),
        "{text}"
    );
    assert!(!shown.status.success(), "nobody is there to say yes");
    let from = |step: &str| stdout(&server.weir(&["bulk", "replay", "--workflow", "pay", "--from", step]));
    let text = from("pay");
    assert!(text.contains("30 effects answered from the record, 30 sent"), "{text}");
    let text = from("nowhere");
    assert!(
        text.contains("left out  run_") && text.contains("nowhere") && text.contains("more left out"),
        "{text}"
    );
    let begun = done(
        &server,
        &[
            "bulk",
            "replay",
            "--workflow",
            "pay",
            "--step",
            "mail",
            "--yes",
            "--detach",
        ],
    );
    let id = run_id(&begun);
    eventually("some replays were started", SOON, async || {
        (count(&bank, "/mail") > RUNS + 2).then_some(())
    })
    .await;
    server.kill();
    server.start_again().await;
    let followed = done(&server, &["bulk", "show", &id, "--wait"]);
    assert!(
        followed.contains("finished: 30 of 30 started, 0 left out"),
        "{followed}"
    );
    let replays = eventually("every replay is over", SOON, async || {
        let runs = server.runs(&["--workflow", "pay"]);
        let open = runs
            .iter()
            .any(|run| ["RUNNING", "WAITING"].contains(&run["status"].as_str().unwrap()));
        (!open).then_some(runs)
    })
    .await;
    assert_eq!(replays.len(), 2 * RUNS, "each run was replayed once");
    assert_eq!((count(&bank, "/price"), count(&bank, "/pay")), (RUNS, RUNS));
    assert!(done(&server, &["bulk", "list"]).contains("finished"));
    assert!(stderr(&server.weir(&["bulk", "stop", &id])).contains("is over"));
}

/// A journal that a later release has written is left to that release.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_later_release_waits_for_it() {
    let mut server = Server::start().await;
    server.apply(
        "kind: Workflow\nname: quick\non: { manual: {} }\nsteps:\n  - { id: rest, sleep: 2s }\n  - { id: seen, set: { ok: true } }\n",
    );
    let newer = run_id(&done(&server, &["run", "start", "quick"]));
    let sound = run_id(&done(&server, &["run", "start", "quick"]));
    eventually("both sleep", SOON, async || {
        (server.runs(&["--status", "waiting"]).len() == 2).then_some(())
    })
    .await;
    server.kill();
    let oldest = "WHERE run_id = (SELECT min(id) FROM run)";
    change(
        &server,
        &format!("UPDATE journal SET body = CAST(replace(body, '\"v\":3', '\"v\":99') AS BLOB) {oldest}"),
    )
    .await;
    server.start_again().await;
    assert_eq!(finished(&server, &sound).await["status"], "SUCCEEDED");
    assert_eq!(server.runs(&["--status", "waiting"])[0]["id"], newer.as_str());
    assert!(server.list(&["dead-letters", "list", "--json"]).is_empty());
    let told = server.log();
    assert!(told.contains("was written by a later release of weir"), "{told}");

    server.kill();
    change(
        &server,
        &format!("UPDATE journal SET body = CAST(replace(body, '\"v\":99', '\"v\":3') AS BLOB) {oldest}"),
    )
    .await;
    server.start_again().await;
    assert_eq!(finished(&server, &newer).await["status"], "SUCCEEDED");
}

/// Changes the database behind the back of its server.
pub(crate) async fn change(server: &Server, statement: &str) {
    let file = server.folder.path().join("weir-data/weir.db");
    let mut database = SqliteConnection::connect(&format!("sqlite://{}", file.display()))
        .await
        .unwrap();
    let statement = sqlx::AssertSqlSafe(statement.to_owned());
    sqlx::query(statement).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}

/// A journal that cannot be read ends its run as a dead letter, and nothing else waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_journal_is_a_dead_letter_and_stops_nothing_else() {
    let mut server = Server::start().await;
    server.apply(
        "kind: Workflow\nname: nap\non: { manual: {} }\nsteps:\n  - { id: rest, sleep: 1h }\n---\n\
         kind: Workflow\nname: quick\non: { manual: {} }\nsteps:\n  - { id: rest, sleep: 2s }\n  - { id: seen, set: { ok: true } }\n",
    );
    let broken = run_id(&done(&server, &["run", "start", "quick"]));
    let sound = run_id(&done(&server, &["run", "start", "quick"]));
    eventually("both sleep", SOON, async || {
        (server.runs(&["--status", "waiting"]).len() == 2).then_some(())
    })
    .await;
    server.kill();
    change(
        &server,
        "UPDATE journal SET body = x'7b' WHERE run_id = (SELECT min(id) FROM run)",
    )
    .await;
    server.start_again().await;
    assert_eq!(finished(&server, &sound).await["status"], "SUCCEEDED");
    let listed = eventually("the broken one is listed", SOON, async || {
        let listed = server.list(&["dead-letters", "list", "--json"]);
        (!listed.is_empty()).then_some(listed)
    })
    .await;
    assert_eq!(listed[0]["code"], "unreadable", "{listed:#?}");
    let cause = listed[0]["id"].as_str().unwrap();
    assert!(done(&server, &["dead-letters", "show", cause]).contains(&broken));
    // Without its journal nobody can tell what it did: it is not replayed.
    let retried = server.weir(&["run", "retry", &broken, "--yes"]);
    assert!(stderr(&retried).contains("cannot be read"), "{}", stderr(&retried));
    done(
        &server,
        &["dead-letters", "mark", cause, "ignored", "--note", "test data"],
    );
    assert!(server.list(&["dead-letters", "list", "--json"]).is_empty());
    assert!(done(&server, &["dead-letters", "list", "--state", "ignored"]).contains("unreadable"));
}

/// The server dies right after the operation began, and asks those whose turn has not come when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn many_open_runs_are_canceled_over_a_crash() {
    const RUNS: usize = 12;
    let mut server = Server::start().await;
    server.apply("kind: Workflow\nname: nap\non: { manual: {} }\nsteps:\n  - { id: rest, sleep: 1d }\n");
    for _ in 0..RUNS {
        done(&server, &["run", "start", "nap"]);
    }
    eventually("all of them sleep", SOON, async || {
        (server.runs(&["--status", "waiting"]).len() == RUNS).then_some(())
    })
    .await;
    let shown = server.weir(&["bulk", "cancel", "--workflow", "nap"]);
    let text = stdout(&shown);
    assert!(
        text.contains("12 runs (12 waiting): 0 effects on their way, 0 of unknown fate"),
        "{text}"
    );
    assert!(!shown.status.success(), "nobody is there to say yes");
    let begun = done(&server, &["bulk", "cancel", "--workflow", "nap", "--yes", "--detach"]);
    server.kill();
    server.start_again().await;
    let followed = done(&server, &["bulk", "show", &run_id(&begun), "--wait"]);
    assert!(followed.contains("finished: 12 of 12 asked, 0 left out"), "{followed}");
    eventually("all of them are canceled", SOON, async || {
        (server.runs(&["--status", "canceled"]).len() == RUNS).then_some(())
    })
    .await;
    assert!(done(&server, &["bulk", "list"]).contains("cancel"));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_compared_and_rolled_back_to() {
    let server = Server::start().await;
    let document = |value: u32| {
        format!(
            "kind: Workflow\nname: count\non: {{ manual: {{}} }}\nsteps:\n  - {{ id: one, set: {{ value: {value} }} }}\n"
        )
    };
    server.apply(&document(1));
    server.apply(&document(2));
    let diff = done(&server, &["workflow", "diff", "count"]);
    assert!(
        diff.contains("version 1 → version 2") && diff.contains("~ /steps/0/set/value in one  1 → 2"),
        "{diff}"
    );
    assert!(done(&server, &["workflow", "diff", "count", "2", "1", "--text"]).contains('-'));
    assert!(stderr(&server.weir(&["workflow", "diff", "count", "7"])).contains("no such version"));
    assert!(done(&server, &["workflow", "roll-back", "count", "1"]).contains("version 3 is live"));
    assert!(done(&server, &["workflow", "diff", "count", "1", "3"]).contains("no difference"));
    let versions = done(&server, &["workflow", "versions", "count"]);
    assert!(
        versions.lines().any(|line| line.contains('3') && line.contains("live")),
        "{versions}"
    );
    assert!(stderr(&server.weir(&["workflow", "discard-draft", "count"])).contains("no draft"));
    assert!(stderr(&server.weir(&["workflow", "roll-back", "count", "9"])).contains("never published"));
    let asked = server.weir(&["workflow", "delete", "count"]);
    assert!(
        stderr(&asked).contains("Delete the workflow count?"),
        "{}",
        stderr(&asked)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn drafts_are_kept_compared_and_published() {
    let server = Server::start().await;
    let draft = |text: &str| {
        let file = server.data().join("draft.yaml");
        std::fs::write(&file, text).unwrap();
        server.weir(&["workflow", "draft", "-f", file.to_str().unwrap()])
    };
    let document = |value: &str| {
        format!(
            "kind: Workflow\nname: count\non: {{ manual: {{}} }}\nsteps:\n  - {{ id: one, set: {{ value: {value} }} }}\n"
        )
    };
    let saved = draft(&document("1"));
    assert!(
        stdout(&saved).contains("count: draft saved as version 1"),
        "{}",
        stderr(&saved)
    );
    let start = server.weir(&["run", "start", "count"]);
    assert!(!start.status.success(), "what is not published starts nothing");
    done(&server, &["workflow", "publish", "count"]);
    assert!(stdout(&draft(&document("2"))).contains("count: draft saved as version 2"));
    // Saved again it is the same draft.
    assert!(stdout(&draft(&document("3"))).contains("count: draft saved as version 2"));
    let diff = done(&server, &["workflow", "diff", "count"]);
    assert!(diff.contains("~ /steps/0/set/value in one  1 → 3"), "{diff}");
    let wrong = draft(&document("1").replace("set:", "sett:")); // misspelt on purpose
    let told = stderr(&wrong);
    assert!(
        !wrong.status.success() && told.contains("draft.yaml:5: /steps/0"),
        "{told}"
    );
    let other = draft("kind: Connection\nname: crm\nconnector: http\nconfig: { base_url: 'http://127.0.0.1:1' }\n");
    assert!(
        stderr(&other).contains("draft.yaml:1: only workflows have drafts"),
        "{}",
        stderr(&other)
    );
}

/// A slow call does not hide what happens beside it.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_beside_a_slow_call_is_told_soon() {
    let bank = Upstream::start().await;
    let server = Server::start_with(&[("WEIR_EGRESS_ALLOW", "127.0.0.0/8")]).await;
    let workflow = "kind: Workflow\nname: beside\non: { manual: {} }\nsteps:\n  - id: both\n    parallel:\n      \
        slow: [{ id: call, call: http.request, connection: bank, with: { method: POST, path: /slowly } }]\n      \
        other: [{ id: nap, sleep: 100ms }, { id: noted, set: { a: 1 } }]\n";
    server.apply(&format!("{}---\n{workflow}", documents(&bank.url)));
    bank.hold(&["slowly"]);
    let run = run_id(&done(&server, &["run", "start", "beside"]));
    eventually("the other branch is told", SOON, async || {
        let told: Value = serde_json::from_str(&done(&server, &["run", "show", &run, "--json"])).unwrap();
        let steps = told["steps"].as_array().unwrap();
        let status = |path: &str| steps.iter().find(|step| step["path"] == path)?["status"].as_str();
        assert_ne!(status("both.slow.call"), Some("SUCCEEDED"));
        (status("both.other.noted") == Some("SUCCEEDED")).then_some(())
    })
    .await;
    bank.hold(&[]);
    assert_eq!(finished(&server, &run).await["status"], "SUCCEEDED");
}
