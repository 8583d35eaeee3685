//! What partners do: check a manifest, publish it, begin a new one. Nobody touches the source of the server.

use crate::support::{SOON, Server, eventually, stderr, stdout, weir};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

/// A manifest with one call, one kind of proof and one event type.
pub(crate) const ACME: &str = r#"connector: acme
version: 1.0.0
hosts: ["https://api.acme.test"]
auth: { bearer: {} }
operations:
  orders.get: { get: "/v1/orders/{{ id }}" }
webhook:
  verify: { hmac: { alg: sha256, sig: "header:X-Acme-Signature", encoding: hex, parts: [body] } }
  identify: { id: /id, type: /type, data: /data, ref: { type: { first: [lit:order] }, id: /data/id } }
events:
  order.paid:
    hydrate_default: always
    reads:
      order: { call: orders.get, with: { id: "{{ ref.id }}" } }
"#;

#[test]
fn manifests_are_checked_with_line_pointer_and_the_nearest_word() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("many")).unwrap();
    std::fs::write(folder.path().join("many/good.yaml"), ACME).unwrap();
    let bad = ACME
        .replace("operations:", "operatoins:") // misspelt on purpose
        .replace("alg: sha256", "alg: sha265");
    std::fs::write(folder.path().join("bad.yml"), bad).unwrap();
    let check = |arguments: &[&str]| {
        let output = weir(folder.path())
            .args(["connector", "check"])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), stdout(&output), stderr(&output))
    };

    let (code, text, _) = check(&["many"]);
    assert_eq!(
        (code, text.trim()),
        (Some(0), "many/good.yaml: ok: acme 1.0.0, 1 operations, 1 event types")
    );

    let (code, text, remarks) = check(&["bad.yml", "many"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("bad.yml:5: /operatoins: `operatoins` is not a key here (did you mean `operations`?)\n"), // misspelt on purpose
        "{text}"
    );
    assert!(
        text.contains("bad.yml:8: /webhook/verify/hmac/alg: `sha265` is not known here (did you mean `sha256`?)\n"),
        "{text}"
    );
    assert!(text.contains("many/good.yaml: ok"), "{text}");
    assert!(remarks.contains("1 of 2 manifests cannot be used"), "{remarks}");

    let (code, text, _) = check(&["bad.yml", "many", "--json"]);
    assert_eq!(code, Some(1));
    let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let problems = objects[0]["problems"].as_array().unwrap();
    let slip = json!({
        "line": 5,
        "pointer": "/operatoins", // misspelt on purpose
        "code": "unknown_key",
        "message": "`operatoins` is not a key here", // misspelt on purpose
        "suggestion": "did you mean `operations`?",
    });
    assert!(problems.contains(&slip), "{problems:#?}");
    assert_eq!(objects[0]["ok"], false);
    assert_eq!(
        objects[1],
        json!({
            "file": "many/good.yaml", "ok": true, "connector": "acme", "version": "1.0.0",
            "operations": 1, "eventTypes": 1, "problems": [],
        })
    );

    std::fs::create_dir(folder.path().join("empty")).unwrap();
    for nothing in ["empty", "absent.yaml"] {
        let (code, text, remarks) = check(&[nothing]);
        assert_eq!(code, Some(2), "{text}{remarks}");
        assert!(remarks.contains(nothing), "{remarks}");
    }
}

fn told(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), stdout(output) + &stderr(output))
}

/// What the README of a new connector says, done with the files as they are written.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_connector_works_as_it_is_written() {
    let server = Server::start().await;
    let (code, text) = told(&server.weir(&["connector", "new", "acme-billing", "--dir", "partners"]));
    assert_eq!(code, Some(0), "{text}");
    let folder = server.folder.path().join("partners/acme-billing");
    for file in [
        "manifest.yaml",
        "cases/order_paid.json",
        "cases/vectors.json",
        "try/try.yaml",
        "README.md",
    ] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        assert!(
            !text.to_lowercase().contains("my-connector") && !text.contains("My Connector"),
            "{file}: {text}"
        );
    }
    assert!(
        std::fs::read_to_string(folder.join("README.md"))
            .unwrap()
            .starts_with("# Acme Billing\n")
    );
    let (code, text) = told(&server.weir(&["connector", "check", "partners/acme-billing"]));
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = told(&server.weir(&["connector", "test", "partners/acme-billing"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("4 vectors, 0 with another verdict"), "{text}");
    for documents in ["partners/acme-billing", "partners/acme-billing/try"] {
        let (code, text) = told(&server.weir(&["apply", "-f", documents]));
        assert_eq!(code, Some(0), "{text}");
    }

    // The signed request of the vectors is what the service would send.
    let vectors: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("cases/vectors.json")).unwrap()).unwrap();
    let header = &vectors["vectors"][0]["headers"][0];
    let (name, signature) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
    assert_eq!(name, "x-acme-billing-signature");
    let body = std::fs::read(folder.join("cases/order_paid.json")).unwrap();
    let forged = server.hook("acme-billing", &[(name, "00")], body.clone()).await;
    forged.problem(401, "SIGNATURE_REFUSED");
    let answer = server.hook("acme-billing", &[(name, signature)], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let run = eventually("the run is over", SOON, async || {
        server.runs(&[]).into_iter().find(|run| run["status"] == "SUCCEEDED")
    })
    .await;
    let (_, story) = told(&server.weir(&["run", "show", run["id"].as_str().unwrap()]));
    assert!(story.contains("about order o-1"), "{story}");

    // Nothing is written over, and names that cannot be used are told before anything is written.
    let again = told(&server.weir(&["connector", "new", "acme-billing", "--dir", "partners"]));
    assert!(again.0 == Some(1) && again.1.contains("is there already"), "{again:?}");
    for (name, reason) in [
        ("stripe", "is a connector of every server"),
        ("Acme", "is not a name"),
        ("../up", "is not a name"),
    ] {
        let (code, text) = told(&server.weir(&["connector", "new", name]));
        assert!(code == Some(2) && text.contains(reason), "{name}: {text}");
    }
    assert!(!server.folder.path().join("stripe").exists());
}

const TUTORIAL: &str = include_str!("../../../../docs/connector-tutorial.md");

/// The commands of the tutorial, each with the lines that it says they print.
fn lessons() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut lessons: Vec<(&str, Vec<&str>)> = Vec::new();
    for block in TUTORIAL.split("```").skip(1).step_by(2) {
        let (kind, text) = block.split_once('\n').unwrap();
        match kind {
            "sh" => lessons.push((text, Vec::new())),
            "text" => lessons.last_mut().unwrap().1.extend(text.lines()),
            other => panic!("a block of `{other}` in the tutorial, which nothing runs"),
        }
    }
    lessons
}

/// Whether a line of the tutorial was printed: blanks count once, and `…` stands for anything.
fn is_printed(line: &str, output: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let printed = words(output);
    line.split('…').all(|part| printed.contains(&words(part)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_does_what_it_says() {
    let mut lessons = lessons().into_iter();
    assert_eq!(lessons.next().unwrap().0, "weir serve\n", "the server is this test's");
    let server = Server::start().await;
    let binaries = Path::new(crate::support::WEIR).parent().unwrap().display().to_string();
    let mut count = 0;
    for (commands, expected) in lessons {
        count += 1;
        // What is written a moment after the answer is looked for again; everything else is there at once.
        let outcome = eventually(commands, SOON, async || {
            let mut shell = Command::new("sh");
            shell
                .args(["-euc", &format!("PATH={binaries}:$PATH; {commands}")])
                .current_dir(server.folder.path());
            shell.env("WEIR_URL", &server.url).env("WEIR_TOKEN", &server.token);
            let (code, text) = told(&shell.output().unwrap());
            let missing: Vec<&str> = expected
                .iter()
                .copied()
                .filter(|line| !is_printed(line, &text))
                .collect();
            let is_late = commands.contains("weir refused") && !missing.is_empty();
            (!is_late).then_some((code, missing, text))
        })
        .await;
        let (code, missing, text) = outcome;
        assert_eq!(code, Some(0), "{commands}\n{text}");
        assert!(missing.is_empty(), "{commands}\nprints no {missing:?}\n{text}");
    }
    assert!(count >= 9, "{count}");
}
