//! A manifest that nobody compiled in says more than JSON over one host: pages, SOAP, GraphQL from a file, bytes, a second
//! host, conditional requests. A workflow uses all of it, and what is on the wire is what was said.

use crate::support::{SOON, Server, eventually, stderr};
use crate::upstream::{Reply, Upstream};
use serde_json::{Value, json};

const MANIFEST: &str = r#"
connector: lab
version: 1.0.0
hosts: { api: "https://api.lab.test", files: "https://files.lab.test" }
config: { tenant: { type: string, pattern: "[a-z]+", required: true } }
auth: { bearer: {} }
headers: { Lab-Version: "2026-11-01", Lab-Tenant: "{{ config.tenant }}" }
operations:
  things.list: { get: /things, items: /data, page: { cursor: { next: /next, into: query.after } } }
  orders.send:
    post: /soap
    soap: { action: urn:send, body: { "o:Send": { "@xmlns:o": urn:o, "o:Count": "{{ count }}" } } }
    effect: { keyed: { field: "/o:Send/o:Key", window: 1h } }
  names.find: { post: /graphql, graphql: { file: names.graphql }, effect: read }
  files.get: { get: /picture, host: files, answer: binary }
  files.put: { put: /picture, host: files, encode: multipart, body: { file: "{{ file }}" }, effect: repeatable }
  state.get: { get: /state, etag: true }
"#;

const QUERY: &str = "query ($id: ID!) { name(id: $id) }";

const WORKFLOW: &str = r#"
kind: Workflow
name: lab
on: { manual: {} }
steps:
  - { id: things, call: lab.things.list, connection: lab, all: { max: 100 } }
  - { id: order, call: lab.orders.send, connection: lab, with: { count: "{{ steps.things | length }}" } }
  - { id: name, call: lab.names.find, connection: lab, with: { id: "{{ steps.order.SendResponse.Id }}" } }
  - { id: picture, call: lab.files.get, connection: lab }
  - { id: copy, call: lab.files.put, connection: lab, with: { file: "{{ steps.picture }}" } }
  - { id: first, call: lab.state.get, connection: lab }
  - { id: second, call: lab.state.get, connection: lab }
  - id: sum
    call: http.request
    connection: sum
    with: { method: POST, path: /sum, body: { things: "{{ steps.things }}", name: "{{ steps.name.name }}", state: "{{ steps.second.v }}" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_uses_every_kind_of_call_of_a_manifest() {
    let (api, files) = (Upstream::start().await, Upstream::start().await);
    let json = "content-type: application/json\r\n";
    api.next([
        Reply::Body(json, r#"{"data":[1,2],"next":"b"}"#),
        Reply::Body(json, r#"{"data":[3],"next":null}"#),
        Reply::Body(
            "content-type: text/xml\r\n",
            "<s:Envelope xmlns:s='u'><s:Body><SendResponse><Id>o-7</Id></SendResponse></s:Body></s:Envelope>",
        ),
        Reply::Body(json, r#"{"data":{"name":"Ann"}}"#),
        Reply::Body("content-type: application/json\r\netag: \"s1\"\r\n", r#"{"v":5}"#),
        Reply::Status(304),
    ]);
    files.next([Reply::Body("content-type: image/png\r\n", "PNG!")]);
    let manifests = tempfile::tempdir().unwrap();
    std::fs::write(manifests.path().join("lab.yaml"), MANIFEST).unwrap();
    std::fs::write(manifests.path().join("names.graphql"), QUERY).unwrap();
    let folder = manifests.path().display().to_string();
    let server = Server::start_with(&[("WEIR_EGRESS_ALLOW", "127.0.0.0/8"), ("WEIR_CONNECTORS", &folder)]).await;
    let checked = server.weir(&["connector", "check", &folder]);
    assert!(checked.status.success(), "{}", stderr(&checked));
    let connections = format!(
        "kind: Connection\nname: lab\nconnector: lab\nconfig: {{ tenant: acme, base_url: \"{}\", base_urls: {{ files: \"{}\" }} }}\ncredential: {{ bearer: {{ token: lab-token-0123 }} }}\n---\nkind: Connection\nname: sum\nconnector: http\nconfig: {{ base_url: \"{}\" }}\n",
        api.url, files.url, api.url
    );
    server.apply(&format!("{connections}---{WORKFLOW}"));
    let started = server.weir(&["run", "start", "lab", "--input", "{}"]);
    assert!(started.status.success(), "{}", stderr(&started));
    let run = eventually("the run is over", SOON, async || {
        let run = server.runs(&[]).into_iter().next()?;
        matches!(run["status"].as_str(), Some("SUCCEEDED" | "FAILED")).then_some(run)
    })
    .await;
    assert_eq!(run["status"], "SUCCEEDED", "{run:#}");

    let sent = api.requests();
    let lines: Vec<&str> = sent.iter().filter_map(|request| request.head.lines().next()).collect();
    assert_eq!(
        lines,
        [
            "GET /things HTTP/1.1",
            "GET /things?after=b HTTP/1.1",
            "POST /soap HTTP/1.1",
            "POST /graphql HTTP/1.1",
            "GET /state HTTP/1.1",
            "GET /state HTTP/1.1",
            "POST /sum HTTP/1.1",
        ]
    );
    for request in &sent[..6] {
        let headers = ["authorization", "lab-version", "lab-tenant"].map(|name| request.header(name));
        assert_eq!(
            headers,
            [Some("Bearer lab-token-0123"), Some("2026-11-01"), Some("acme")]
        );
    }
    let soap = String::from_utf8_lossy(&sent[2].body).into_owned();
    assert_eq!(sent[2].header("soapaction"), Some("\"urn:send\""));
    assert!(soap.contains("<o:Count>3</o:Count><o:Key>weir_"), "{soap}");
    let body = |at: usize| serde_json::from_slice::<Value>(&sent[at].body).unwrap();
    assert_eq!(body(3), json!({ "query": QUERY, "variables": { "id": "o-7" } }));
    assert_eq!(
        [sent[4].header("if-none-match"), sent[5].header("if-none-match")],
        [None, Some("\"s1\"")]
    );
    assert_eq!(body(6), json!({ "things": [1, 2, 3], "name": "Ann", "state": 5 }));

    let files = files.requests();
    assert_eq!(files.len(), 2);
    let upload = String::from_utf8_lossy(&files[1].body).into_owned();
    let part =
        "Content-Disposition: form-data; name=\"file\"; filename=\"file\"\r\nContent-Type: image/png\r\n\r\nPNG!\r\n";
    assert!(upload.contains(part), "{upload}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_of_what_has_none_is_refused_at_publish() {
    let server = Server::start().await;
    server.apply("kind: Connection\nname: crm\nconnector: http\nconfig: { base_url: \"http://127.0.0.1:9\" }\n");
    let document = "kind: Workflow\nname: w\non: { manual: {} }\nsteps: [{ id: a, call: http.request, connection: crm, with: { path: /a }, all: { max: 5 } }]\n";
    let applied = server.try_apply(document, &[]);
    assert!(!applied.status.success());
    let told = stderr(&applied);
    assert!(
        told.contains("`all` needs pages, and `http.request` has none"),
        "{told}"
    );
}
