//! The commands that people and scripts depend on: exit codes, files, tokens, health.

use crate::support::{SOON, Server, eventually, http, stderr, stdout, weir};
use crate::upstream::Upstream;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use weir_simulator::{Simulator, SimulatorOptions};

fn documents(upstream: &str) -> String {
    format!(
        "kind: Connection\nname: crm\nconnector: http\nconfig: {{ base_url: '{upstream}', idempotency: {{ header: Idempotency-Key }} }}\n---\n\
         kind: Workflow\nname: note\non: {{ manual: {{ input: {{ type: object, required: [text] }} }} }}\nsteps:\n  \
         - {{ id: write, call: http.request, connection: crm, with: {{ method: POST, path: /notes, body: {{ text: '{{{{ event.data.text }}}}' }} }} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_go_in_and_come_out_the_same() {
    let server = Server::start().await;
    let upstream = Upstream::start().await;
    let documents = documents(&upstream.url);
    let dry = server.try_apply(&documents, &["--dry-run"]);
    assert_eq!(dry.status.code(), Some(3), "{}", stderr(&dry));
    assert!(
        stdout(&dry).contains("workflow note would be created"),
        "{}",
        stdout(&dry)
    );
    assert_eq!(stdout(&server.weir(&["export"])).trim(), "");

    server.apply(&documents);
    let again = server.try_apply(&documents, &["--dry-run"]);
    assert_eq!(again.status.code(), Some(0), "{}", stdout(&again));
    let exported = server.weir(&["export"]);
    let same = server.try_apply(&stdout(&exported), &["--dry-run"]);
    assert_eq!(
        same.status.code(),
        Some(0),
        "{}{}\n{}",
        stdout(&same),
        stderr(&same),
        stdout(&exported)
    );

    let changed = server.try_apply(&documents.replace("/notes", "/remarks"), &[]);
    assert_eq!(changed.status.code(), Some(0), "{}", stderr(&changed));
    let shown = stdout(&changed);
    assert!(
        shown.contains("workflow note changed")
            && shown.contains("/remarks")
            && shown.contains("connection crm unchanged"),
        "{shown}"
    );

    // Files are read by name from a folder, and references from beside the file.
    let folder = server.folder.path().join("flows");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("token"), "sk_test_file\n").unwrap();
    std::fs::write(
        folder.join("a.yaml"),
        "kind: Connection\nname: stripe\nconnector: stripe\ncredential: { bearer: { token: { file: token } } }\n",
    )
    .unwrap();
    let from_folder = server.weir(&["apply", "-f", "flows"]);
    assert!(from_folder.status.success(), "{}", stderr(&from_folder));
    let everything = stdout(&server.weir(&["export"])) + &stdout(&from_folder) + &server.log();
    assert!(!everything.contains("sk_test_file"), "a secret was shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_started_once_and_replayed_without_repeating() {
    let server = Server::start().await;
    let upstream = Upstream::start().await;
    server.apply(&documents(&upstream.url));
    let wrong = server.weir(&["run", "start", "note", "--input", "{}"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).contains("text"), "{}", stderr(&wrong));
    assert_eq!(
        server.weir(&["run", "start", "note", "--input", "{"]).status.code(),
        Some(2)
    );

    let start = [
        "run",
        "start",
        "note",
        "--input",
        "{\"text\":\"hello\"}",
        "--idempotency-key",
        "k1",
    ];
    let (first, second) = (server.weir(&start), server.weir(&start));
    assert!(first.status.success(), "{}", stderr(&first));
    assert_eq!(stdout(&first), stdout(&second));
    let other = start.map(|word| word.replace("hello", "bye"));
    let other = server.weir(&other.each_ref().map(String::as_str));
    assert!(!other.status.success(), "{}", stdout(&other));
    let told = stderr(&other);
    assert!(
        told.contains("another input was started with this idempotency key"),
        "{told}"
    );
    let id = stdout(&first).trim().to_owned();
    eventually("the run succeeds", SOON, async || {
        (server.runs(&["--status", "succeeded"]).len() == 1).then_some(())
    })
    .await;
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(
        serde_json::from_slice::<Value>(&upstream.requests()[0].body).unwrap(),
        json!({ "text": "hello" })
    );

    let asked = server.weir(&["run", "replay", &id]);
    assert_eq!(asked.status.code(), Some(2), "{}", stderr(&asked));
    assert!(
        stdout(&asked).contains("1 effect answered from the record, 0 sent"),
        "{}",
        stdout(&asked)
    );
    let replayed = server.weir(&["run", "replay", &id, "--yes"]);
    assert!(replayed.status.success(), "{}", stderr(&replayed));
    eventually("the replay succeeds", SOON, async || {
        (server.runs(&["--status", "succeeded"]).len() == 2).then_some(())
    })
    .await;
    assert_eq!(upstream.requests().len(), 1, "the effect was repeated");
    let new = stdout(&replayed);
    let story = stdout(&server.weir(&["run", "show", new.lines().last().unwrap()]));
    assert!(
        story.contains(&format!("of {id}")) && story.contains("answered"),
        "{story}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_confirmation_starts_one_replay() {
    let server = Server::start().await;
    let crm = Simulator::start(SimulatorOptions::default()).await.unwrap();
    // No keys, and a body that this CRM refuses: the effect is blind, and each attempt is a request.
    let documents = documents(&crm.base_url())
        .replace(", idempotency: { header: Idempotency-Key }", "")
        .replace(
            "path: /notes, body: { text: '{{ event.data.text }}' }",
            "path: /crm/notes/1, body: [1]",
        );
    server.apply(&documents);
    let started = server.weir(&["run", "start", "note", "--input", "{\"text\":\"x\"}"]);
    let id = stdout(&started).trim().to_owned();
    let failed = async || (!server.runs(&["--status", "failed"]).is_empty()).then_some(());
    eventually("the run fails", SOON, failed).await;
    let requests = || crm.ledger().summary().routes["crm.write"].requests;
    assert_eq!(requests(), 1);

    let ask = async |query: &str, variables: Value| -> Value {
        let answer = http()
            .post(format!("{}/graphql", server.url))
            .bearer_auth(&server.token)
            .json(&json!({ "query": query, "variables": variables }))
            .send()
            .await
            .unwrap();
        answer.json().await.unwrap()
    };
    let preview = ask(
        "query($id: ID!) { replayPreview(runId: $id) { confirm } }",
        json!({ "id": id }),
    )
    .await;
    let confirm = &preview["data"]["replayPreview"]["confirm"];
    assert!(confirm.is_string(), "{preview}");
    let replay = "mutation($input: RunReplayInput!) { runReplay(input: $input) { run { id } userErrors { code } } }";
    let input = json!({ "input": { "runId": id, "confirm": confirm } });
    let answers = futures::future::join_all((0..6).map(|_| ask(replay, input.clone()))).await;
    let accepted = answers
        .iter()
        .filter(|answer| answer["data"]["runReplay"]["run"].is_object())
        .count();
    assert_eq!(accepted, 1, "{answers:#?}");
    eventually("the replay fails as well", SOON, async || {
        (server.runs(&["--status", "failed"]).len() == 2).then_some(())
    })
    .await;
    assert_eq!(requests(), 2, "the blind effect was sent once more, not six times");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_what_they_name() {
    let server = Server::start().await;
    let made = server.weir(&[
        "token",
        "create",
        "--name",
        "reader",
        "--scope",
        "run-read",
        "--expires-in-days",
        "1",
    ]);
    assert!(made.status.success(), "{}", stderr(&made));
    let token = stdout(&made).trim().to_owned();
    let run = |arguments: &[&str], token: &str| server.command(arguments).env("WEIR_TOKEN", token).output().unwrap();
    assert!(run(&["runs"], &token).status.success());
    let forbidden = run(&["export"], &token);
    assert_eq!(forbidden.status.code(), Some(1));
    assert!(stderr(&forbidden).contains("CONFIG_READ"), "{}", stderr(&forbidden));
    let unknown = run(&["runs"], "nobody");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("WEIR_TOKEN"), "{}", stderr(&unknown));
    // Whoever may only start a run hears which one it is, and whoever may only read sees its story.
    server.apply("kind: Workflow\nname: note\non: { manual: {} }\nsteps: [{ id: a, set: { b: 1 } }]\n");
    let operator = server.weir(&["token", "create", "--name", "operator", "--scope", "run-operate"]);
    let started = run(&["run", "start", "note"], stdout(&operator).trim());
    assert!(started.status.success(), "{}", stderr(&started));
    let told = run(&["run", "show", stdout(&started).trim()], &token);
    assert!(told.status.success(), "{}", stderr(&told));
    assert!(stdout(&told).contains("note (version 1)"), "{}", stdout(&told));
    let wrong = server.weir(&["token", "create", "--name", "x", "--scope", "run-reed"]);
    assert_eq!(wrong.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_shows_a_token_and_a_stop_is_clean() {
    let mut server = Server::start().await;
    let health = weir(server.folder.path())
        .arg("healthcheck")
        .env("WEIR_URL", &server.url)
        .output()
        .unwrap();
    assert_eq!(health.status.code(), Some(0), "{}", stderr(&health));
    let metrics = http()
        .get(format!("{}/metrics", server.url))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for name in [
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "weir_build_info",
    ] {
        assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
    }
    assert_eq!(server.stop().await, Some(0), "{}", server.log());
    let health = weir(server.folder.path())
        .arg("healthcheck")
        .env("WEIR_URL", &server.url)
        .output()
        .unwrap();
    assert_eq!(health.status.code(), Some(1));
    assert!(
        !server.log().contains("WEIR_TOKEN="),
        "a token that was given was shown:\n{}",
        server.log()
    );

    // Without WEIR_ADMIN_TOKEN the first start makes one and shows it; later starts keep it to themselves.
    let folder = tempfile::tempdir().unwrap();
    let doctor = weir(folder.path()).arg("doctor").output().unwrap();
    assert!(doctor.status.success(), "{}", stdout(&doctor));
    assert!(!folder.path().join("weir-data").exists(), "the doctor made a folder");
    let first = started_and_stopped(folder.path()).await;
    let token = first
        .lines()
        .find_map(|line| line.trim().strip_prefix("WEIR_TOKEN="))
        .unwrap_or_else(|| panic!("{first}"));
    let kept = folder.path().join("weir-data/admin.token");
    assert_eq!(std::fs::read_to_string(&kept).unwrap().trim(), token);
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!started_and_stopped(folder.path()).await.contains(token));
    let doctor = weir(folder.path()).arg("doctor").output().unwrap();
    assert!(
        doctor.status.success() && stdout(&doctor).contains("the master key fits"),
        "{}",
        stdout(&doctor)
    );

    // A token that is set to nothing is a mistake, not a choice.
    let empty = weir(folder.path())
        .arg("serve")
        .env("WEIR_ADMIN_TOKEN", "")
        .output()
        .unwrap();
    assert_eq!(empty.status.code(), Some(2), "{}", stderr(&empty));
}

/// Starts `weir serve` with nothing set but its port, stops it politely, and gives what it wrote.
async fn started_and_stopped(folder: &Path) -> String {
    let mut command = weir(folder);
    let child = command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid_file = folder.join("weir-data/weir.pid");
    let pid = child.id().to_string();
    eventually("the server runs", SOON, async || {
        std::fs::read_to_string(&pid_file)
            .ok()
            .filter(|text| text.trim() == pid)
    })
    .await;
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

/// What a person has a few of on the first day, and hundreds of in the second month.
#[tokio::test(flavor = "multi_thread")]
async fn lists_are_told_however_long_they_are() {
    const MANY: usize = 120;
    let server = Server::start().await;
    let workflows: Vec<String> = (0..MANY)
        .map(|number| {
            format!(
                "kind: Workflow\nname: w{number}\non: {{ manual: {{}} }}\nsteps: [{{ id: lines, for_each: \"{{{{ [1] }}}}\", do: [{{ id: ok, approve: Now? }}] }}]\n"
            )
        })
        .collect();
    server.apply(&workflows.join("---\n"));
    let start = "mutation($input: RunStartInput!) { runStart(input: $input) { runId } }";
    for number in 0..MANY {
        let body = json!({ "query": start, "variables": { "input": { "workflow": format!("w{number}") } } });
        let started = http()
            .post(format!("{}/graphql", server.url))
            .bearer_auth(&server.token)
            .json(&body);
        assert_eq!(started.send().await.unwrap().status(), 200);
    }
    eventually("all of them wait", SOON, async || {
        (server.list(&["approvals", "--json", "--limit", "1000"]).len() == MANY).then_some(())
    })
    .await;
    for list in ["workflows", "runs", "events", "approvals"] {
        let limit: &[&str] = if list == "workflows" { &[] } else { &["--limit", "1000"] };
        let listed = server.list(&[&[list, "--json"], limit].concat());
        assert_eq!(listed.len(), MANY, "{list}");
    }
    assert_eq!(
        server.runs(&["--status", "waiting"])[0]["waits"][0]["stepName"],
        "lines[1].ok"
    );
}
