//! Connectors that are published into a running server: versions side by side, and runs that keep the one they began with.

use crate::nodes::node;
use crate::support::{Database, SOON, Server, eventually, http, stderr, stdout};
use crate::upstream::Upstream;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

const SECRET: &str = "acme-secret-0123";
const EGRESS: [(&str, &str); 1] = [("WEIR_EGRESS_ALLOW", "127.0.0.0/8")];

/// Version `version` of a connector whose calls go to `/{path}/…`.
fn manifest(version: &str, path: &str) -> String {
    format!(
        r#"connector: acme
version: {version}
hosts: ["https://api.acme.test"]
auth: {{ bearer: {{}} }}
operations:
  orders.get: {{ get: "/{path}/orders/{{{{ id }}}}" }}
  orders.note:
    post: "/{path}/orders/{{{{ id }}}}/notes"
    body: json
    input: {{ id: required, text: required }}
    effect: repeatable
webhook:
  verify: {{ hmac: {{ alg: sha256, sig: "header:X-Acme-Signature", encoding: hex, parts: [body] }} }}
  identify: {{ id: /id, type: /type, data: /data, ref: {{ type: "lit:order", id: /data/id }} }}
events:
  order.paid:
    hydrate_default: always
    reads:
      order: {{ call: orders.get, with: {{ id: "{{{{ ref.id }}}}" }} }}
"#
    )
}

fn connection(connector: &str, url: &str) -> String {
    format!(
        "kind: Connection\nname: acme\nconnector: {connector}\nconfig: {{ base_url: \"{url}\" }}\ncredential: {{ bearer: {{ token: acme-token-0123 }} }}\n"
    )
}

const REST: &str = r#"---
kind: Endpoint
name: acme
connection: acme
secrets: [acme-secret-0123]
---
kind: Workflow
name: notes
on: { event: acme.order.paid }
steps:
  - { id: ask, when: "{{ event.data.ask }}", approve: { title: "May it?" } }
  - { id: note, call: acme.orders.note, with: { id: "{{ event.ref.id }}", text: paid } }
"#;

async fn paid(server: &Server, id: &str, ask: bool) {
    let body = json!({ "id": format!("evt-{id}"), "type": "order.paid", "data": { "id": id, "ask": ask } }).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let forged = server.hook("acme", &[("x-acme-signature", "00")], body.clone()).await;
    forged.problem(401, "SIGNATURE_REFUSED");
    let answer = server.hook("acme", &[("x-acme-signature", &signature)], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// The request lines that were sent for one order.
async fn sent_for(upstream: &Upstream, id: &str, count: usize) -> Vec<String> {
    eventually("the calls for an order were made", SOON, async || {
        let lines: Vec<String> = upstream
            .requests()
            .iter()
            .filter_map(|request| request.head.lines().next().map(str::to_owned))
            .filter(|line| line.contains(&format!("/orders/{id}")))
            .collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

fn lines(path: &str, id: &str) -> Vec<String> {
    vec![
        format!("GET /{path}/orders/{id} HTTP/1.1"),
        format!("POST /{path}/orders/{id}/notes HTTP/1.1"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_published_used_moved_and_deleted() {
    let upstream = Upstream::start().await;
    let mut server = Server::start_with(&EGRESS).await;
    let folder = server.folder.path().join("acme");
    std::fs::create_dir(&folder).unwrap();
    // A plain manifest with a file beside it, as `weir serve --connectors` reads it.
    let first = manifest("1.0.0", "v1").replace(
        "orders.get: { get: \"/v1/orders/{{ id }}\" }",
        "orders.get: { get: \"/v1/orders/{{ id }}\", output: order.schema }",
    );
    std::fs::write(folder.join("manifest.yaml"), &first).unwrap();
    std::fs::write(folder.join("order.schema"), r#"{"type":"object"}"#).unwrap();
    let dry = server.weir(&["apply", "-f", "acme", "--dry-run"]);
    assert_eq!(dry.status.code(), Some(3), "{}", stderr(&dry));
    assert!(
        stdout(&dry).contains("+ connector acme@1.0.0 would be created"),
        "{}",
        stdout(&dry)
    );
    assert!(
        server.list(&["connector", "list", "--json"]).is_empty(),
        "a dry run publishes nothing"
    );
    for expected in ["+ connector acme@1.0.0 created", "= connector acme@1.0.0 unchanged"] {
        let applied = server.weir(&["apply", "-f", "acme"]);
        assert!(applied.status.success(), "{}", stderr(&applied));
        assert!(stdout(&applied).contains(expected), "{}", stdout(&applied));
    }

    server.apply(&format!("{}{REST}", connection("acme", &upstream.url)));
    paid(&server, "o-1", false).await;
    assert_eq!(sent_for(&upstream, "o-1", 2).await, lines("v1", "o-1"));
    server.kill();
    server.start_again().await;
    paid(&server, "o-2", false).await;
    assert_eq!(sent_for(&upstream, "o-2", 2).await, lines("v1", "o-2"));

    // What is published stays as it is, and a name of the server is not taken.
    let changed = server.try_apply(&manifest("1.0.0", "v9"), &[]);
    let told = stderr(&changed);
    assert_eq!(changed.status.code(), Some(1), "{told}");
    assert!(
        told.contains("standard input:2: /version: `acme@1.0.0` is published with other content")
            && told.contains("raise `version`, for example to 1.0.1"),
        "{told}"
    );
    let taken = server.try_apply(
        &manifest("1.0.0", "v1").replace("connector: acme", "connector: stripe"),
        &[],
    );
    assert!(
        stderr(&taken).contains("`stripe` is a connector of this server"),
        "{}",
        stderr(&taken)
    );
    let mistaken = server.try_apply(&manifest("1.0.1", "v1").replace("hosts:", "hots:"), &[]); // misspelt on purpose
    assert!(
        stderr(&mistaken).contains("did you mean `hosts`?"),
        "{}",
        stderr(&mistaken)
    );

    // A newer version changes nothing by itself; a connection that is applied again moves, and its workflow with it.
    server.apply(&manifest("1.1.0", "v2"));
    paid(&server, "o-3", false).await;
    assert_eq!(sent_for(&upstream, "o-3", 2).await, lines("v1", "o-3"));
    paid(&server, "o-4", true).await;
    let asked = eventually("a run asks", SOON, async || {
        server.list(&["approvals", "--json"]).into_iter().next()
    })
    .await;
    let moved = server.try_apply(&connection("acme", &upstream.url), &[]);
    let shown = stdout(&moved);
    assert!(moved.status.success(), "{}", stderr(&moved));
    assert!(
        shown.contains("acme@1.0.0") && shown.contains("acme@1.1.0") && shown.contains("workflow notes changed"),
        "{shown}"
    );
    assert!(shown.contains("runs that have begun keep their version"), "{shown}");
    paid(&server, "o-5", false).await;
    assert_eq!(sent_for(&upstream, "o-5", 2).await, lines("v2", "o-5"));
    let approved = server.weir(&["approve", asked["runId"].as_str().unwrap(), "ask"]);
    assert!(approved.status.success(), "{}", stderr(&approved));
    assert_eq!(
        sent_for(&upstream, "o-4", 2).await,
        lines("v1", "o-4"),
        "a run keeps the version it began with"
    );

    // An incompatible one is asked for by its version, and is refused where a workflow would not fit.
    server.apply(&manifest("2.0.0", "v3").replace("orders.note:", "orders.remark:"));
    let stays = server.try_apply(&connection("acme", &upstream.url), &[]);
    assert!(
        stdout(&stays).contains("write `connector: acme@2.0.0` to move it"),
        "{}",
        stdout(&stays)
    );
    let refused = server.try_apply(&connection("acme@2.0.0", &upstream.url), &[]);
    let told = stderr(&refused);
    assert!(
        told.contains("standard input:3: /connector: workflow `notes` would not fit") && told.contains("orders.note"),
        "{told}"
    );
    let absent = server.try_apply(&connection("acme@7.0.0", &upstream.url), &[]);
    assert!(
        stderr(&absent).contains("published versions: 1.0.0, 1.1.0, 2.0.0"),
        "{}",
        stderr(&absent)
    );

    // The whole configuration goes out and in again without a difference.
    let exported = stdout(&server.weir(&["export"]));
    let same = server.try_apply(&exported, &["--dry-run"]);
    assert_eq!(
        same.status.code(),
        Some(0),
        "{}{}\n{exported}",
        stdout(&same),
        stderr(&same)
    );
    assert!(
        exported.contains("order.schema") && exported.contains("connector: acme@1.1.0"),
        "{exported}"
    );

    let delete = |reference: &str| {
        let output = server.weir(&["connector", "delete", reference]);
        (output.status.code(), stderr(&output))
    };
    for used in ["acme@1.0.0", "acme@1.1.0"] {
        let (code, told) = delete(used);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("is used by"), "{told}");
    }
    assert_eq!(delete("acme@2.0.0").0, Some(0));
    assert_eq!(delete("acme@2.0.0").0, Some(1), "it is gone");
    assert_eq!(delete("acme").0, Some(2), "a version must be named");
    let left: Vec<Value> = server.list(&["connector", "list", "acme", "--json"]);
    let versions: Vec<&str> = left
        .iter()
        .map(|version| version["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["1.0.0", "1.1.0"]);
    assert_eq!(left[1]["usedBy"], json!(["Connection `acme`", "Workflow `notes`"]));
    let audit = server.list(&["audit", "--json", "--limit", "100"]);
    let noted = |action: &str, subject: &str| {
        audit
            .iter()
            .any(|entry| entry["action"] == action && entry["subject"] == subject)
    };
    assert!(
        noted("connector.create", "acme@1.1.0") && noted("connector.delete", "acme@2.0.0"),
        "{audit:#?}"
    );
}

/// An endpoint without a connection has a version of its own, which only its own document moves.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_connection_is_pinned_too() {
    let server = Server::start().await;
    let endpoint =
        |more: &str| format!("kind: Endpoint\nname: acme\nconnector: acme{more}\nsecrets: [acme-secret-0123]\n");
    server.apply(&format!("{}---\n{}", endpoint(""), manifest("1.0.0", "v1")));
    server.apply(&manifest("1.1.0", "v2"));
    let pinned = || {
        let versions = server.list(&["connector", "list", "--json"]);
        let used = |version: &&Value| version["usedBy"] == json!(["Endpoint `acme`"]);
        let found = versions.iter().find(used).unwrap_or_else(|| panic!("{versions:#?}"));
        found["version"].as_str().unwrap().to_owned()
    };
    assert_eq!(pinned(), "1.0.0");
    server.apply(&endpoint(""));
    assert_eq!(pinned(), "1.1.0");
    server.apply(&endpoint("@1.0.0"));
    assert_eq!(pinned(), "1.0.0");

    // A change of something else over GraphQL leaves it where it is.
    let ask = async |query: &str, variables: Value| {
        let answer = http()
            .post(format!("{}/graphql", server.url))
            .bearer_auth(&server.token)
            .json(&json!({ "query": query, "variables": variables }))
            .send()
            .await
            .unwrap();
        answer.json::<Value>().await.unwrap()["data"].clone()
    };
    let found = ask("{ endpoints { id revision } }", json!({})).await;
    let (id, revision) = (&found["endpoints"][0]["id"], &found["endpoints"][0]["revision"]);
    let changed = ask(
        "mutation($input: EndpointUpdateInput!) { endpointUpdate(input: $input) { endpoint { allow } userErrors { message } } }",
        json!({ "input": { "id": id, "expectedRevision": revision, "allow": ["127.0.0.0/8"] } }),
    )
    .await;
    assert_eq!(
        changed["endpointUpdate"]["endpoint"]["allow"],
        json!(["127.0.0.0/8"]),
        "{changed:#}"
    );
    assert_eq!(pinned(), "1.0.0");
    let of_the_server = server.try_apply("kind: Connection\nname: s\nconnector: stripe@1.0.0\n", &[]);
    assert!(
        stderr(&of_the_server).contains("`stripe` is a connector of this server and has no versions"),
        "{}",
        stderr(&of_the_server)
    );
}

/// Whoever says where a connection's calls go says where its credential goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_moves_to_another_version_only_with_permission() {
    let upstream = Upstream::start().await;
    let server = Server::start_with(&EGRESS).await;
    server.apply(&format!(
        "{}---\n{}",
        manifest("1.0.0", "v1"),
        connection("acme", &upstream.url)
    ));
    let made = server.weir(&[
        "token",
        "create",
        "--name",
        "editor",
        "--scope",
        "config-write",
        "--scope",
        "config-read",
    ]);
    assert!(made.status.success(), "{}", stderr(&made));
    let token = stdout(&made).trim().to_owned();
    let file = server.folder.path().join("documents.yaml");
    let as_editor = |documents: &str| {
        std::fs::write(&file, documents).unwrap();
        let mut apply = server.command(&["apply", "-f", "documents.yaml"]);
        let output = apply.env("WEIR_TOKEN", &token).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let without_credential = |connector: &str| {
        connection(connector, &upstream.url)
            .lines()
            .filter(|line| !line.starts_with("credential"))
            .fold(String::new(), |text, line| text + line + "\n")
    };
    let may = |documents: &str| {
        let (code, told) = as_editor(documents);
        assert_eq!(code, Some(0), "{told}");
    };
    let may_not = |documents: &str| {
        let (code, told) = as_editor(documents);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("SECRET_WRITE"), "{told}");
    };
    let newer = manifest("1.0.1", "v2");
    may(&without_credential("acme"));
    may_not(&format!("{newer}---\n{}", without_credential("acme")));
    may(&newer);
    may_not(&without_credential("acme"));
    may_not(&without_credential("acme@1.0.1"));
    may(&without_credential("acme@1.0.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_published_once_and_bounded() {
    let server = Server::start().await;
    let large = manifest("1.0.0", "v1").replace(
        "version: 1.0.0",
        &format!("version: 1.0.0\ndescription: {}", "a".repeat(512 << 10)),
    );
    let refused = server.try_apply(&large, &[]);
    assert!(stderr(&refused).contains("more than 524288"), "{}", stderr(&refused));
    let versions = |range: std::ops::Range<u32>| {
        range
            .map(|number| {
                format!(
                    "---\nconnector: acme\nversion: 1.0.{number}\nhosts: [\"https://a.test\"]\nauth: {{ none: {{}} }}\n"
                )
            })
            .collect::<String>()
    };
    server.apply(&versions(0..200));
    let refused = server.try_apply(&versions(200..201), &[]);
    assert!(
        stderr(&refused).contains("at most 200 published versions"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(server.list(&["connector", "list", "--json"]).len(), 200);
    let unchanged = server.try_apply(&versions(0..200), &["--dry-run"]);
    assert_eq!(unchanged.status.code(), Some(0), "{}", stderr(&unchanged));
}

/// The guard over addresses holds for what partners publish as for every other manifest.
#[tokio::test(flavor = "multi_thread")]
async fn a_published_manifest_cannot_call_inside() {
    let upstream = Upstream::start().await;
    let server = Server::start_with(&[]).await;
    let inside = manifest("1.0.0", "v1").replace("https://api.acme.test", &upstream.url);
    let refused = server.try_apply(&inside, &[]);
    assert_eq!(refused.status.code(), Some(1), "hosts are https: {}", stdout(&refused));
    server.apply(&format!(
        "{}---\n{}{REST}",
        manifest("1.0.0", "v1"),
        connection("acme", &upstream.url)
    ));
    paid(&server, "o-1", false).await;
    let run = eventually("the run is refused its call", SOON, async || {
        server.runs(&[]).into_iter().find(|run| run["status"] == "FAILED")
    })
    .await;
    assert!(run.to_string().contains("egress"), "{run:#}");
    assert!(upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_nodes_have_a_published_connector_at_once() {
    let upstream = Upstream::start().await;
    let database = Database::create("published").await;
    let (one, other) = (node(&database, "one", &[]).await, node(&database, "other", &[]).await);
    one.apply(&manifest("1.0.0", "v1"));
    one.apply(&format!("{}{REST}", connection("acme", &upstream.url)));
    paid(&other, "o-1", false).await;
    assert_eq!(sent_for(&upstream, "o-1", 2).await, lines("v1", "o-1"));
    let conflicting = eventually("the other node knows the version", SOON, async || {
        let refused = other.try_apply(&manifest("1.0.0", "v9"), &[]);
        stderr(&refused).contains("raise `version`").then_some(())
    });
    conflicting.await;
    other.apply(&manifest("1.1.0", "v2"));
    other.apply(&connection("acme", &upstream.url));
    paid(&one, "o-2", false).await;
    assert_eq!(sent_for(&upstream, "o-2", 2).await, lines("v2", "o-2"));
    drop((one, other));
    database.drop().await;
}
