//! The commands that people and scripts depend on: exit codes, files, tokens, health.

use crate::support::{SOON, Server, eventually, http, stderr, stdout, weir};
use crate::upstream::Upstream;
use serde_json::{Value, json};

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
    assert_eq!(dry.status.code(), Some(2), "{}", stderr(&dry));
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
        stdout(&asked).contains("1 effects answered from the record, 0 sent"),
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
    // No token was given in the folder of this one: it makes one, shows it, and never again.
    let folder = tempfile::tempdir().unwrap();
    let shown = weir(folder.path()).args(["doctor"]).output().unwrap();
    assert!(shown.status.success(), "{}", stdout(&shown));
    assert!(!folder.path().join("weir-data").exists(), "the doctor made a folder");
}
