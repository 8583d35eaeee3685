//! What partners do: check a manifest, publish it, begin a new one. Nobody touches the source of the server.

use crate::support::{stderr, stdout, weir};
use serde_json::{Value, json};

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
