//! Changing the configuration: round trips, mistakes, revisions, permissions.

use crate::support::{CREDENTIAL, ENDPOINT_SECRET, TestServer, note_workflow, orders_endpoint};
use serde_json::{Value, json};

const ERRORS: &str = "userErrors { __typename code message path ... on InputError { pointer line problem suggestion } ... on ConflictError { currentRevision } ... on PreconditionError { blockers } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_and_endpoints_round_trip() {
    let server = TestServer::start().await;
    let create = format!(
        "mutation($input: ConnectionCreateInput!) {{ connectionCreate(input: $input) {{ connection {{ id name connectorName config hasCredential revision connector {{ title }} }} {ERRORS} }} }}"
    );
    let input = json!({ "name": "shop", "connector": "http", "config": { "base_url": "https://shop.test" }, "credential": { "bearer": { "token": CREDENTIAL } } });
    let created = server.query(&create, json!({ "input": input })).await["connectionCreate"].clone();
    assert_eq!(created["userErrors"], json!([]));
    let shop = &created["connection"];
    assert_eq!(
        (
            &shop["hasCredential"],
            &shop["config"]["base_url"],
            &shop["connector"]["title"]
        ),
        (&json!(true), &json!("https://shop.test"), &json!("HTTP"))
    );

    let twice = server.query(&create, json!({ "input": input })).await["connectionCreate"]["userErrors"].clone();
    assert_eq!(
        (&twice[0]["__typename"], &twice[0]["code"], &twice[0]["path"]),
        (&json!("ConflictError"), &json!("TAKEN"), &json!(["input", "name"]))
    );
    let wrong = json!({ "name": "Bad Name", "connector": "nope", "config": { "base_url": 7 } });
    let wrong = server.query(&create, json!({ "input": wrong })).await["connectionCreate"].clone();
    assert_eq!(wrong["connection"], Value::Null);
    assert_eq!(
        (&wrong["userErrors"][0]["code"], &wrong["userErrors"][0]["path"]),
        (&json!("INVALID"), &json!(["input", "name"]))
    );

    let update = format!(
        "mutation($input: ConnectionUpdateInput!) {{ connectionUpdate(input: $input) {{ connection {{ config hasCredential revision }} {ERRORS} }} }}"
    );
    let revision = shop["revision"].as_i64().unwrap();
    let change = |revision: i64| json!({ "input": { "id": shop["id"], "expectedRevision": revision, "config": { "base_url": "https://shop2.test" } } });
    let stale = server.query(&update, change(revision + 7)).await["connectionUpdate"]["userErrors"][0].clone();
    assert_eq!(
        (&stale["code"], &stale["currentRevision"]),
        (&json!("CONFLICT"), &json!(revision))
    );
    let updated = server.query(&update, change(revision)).await["connectionUpdate"].clone();
    assert_eq!(updated["userErrors"], json!([]));
    assert_eq!(
        (
            &updated["connection"]["config"]["base_url"],
            &updated["connection"]["hasCredential"]
        ),
        (&json!("https://shop2.test"), &json!(true))
    );
    // What is left out stays: an omitted variable must not clear the settings.
    let omitted = "mutation($id: ID!, $revision: Int!, $config: JSON) { connectionUpdate(input: { id: $id, expectedRevision: $revision, config: $config }) { connection { config revision } userErrors { message } } }";
    let kept = server
        .query(
            omitted,
            json!({ "id": shop["id"], "revision": updated["connection"]["revision"] }),
        )
        .await["connectionUpdate"]
        .clone();
    assert_eq!(
        (&kept["userErrors"], &kept["connection"]["config"]["base_url"]),
        (&json!([]), &json!("https://shop2.test"))
    );

    let create = format!(
        "mutation($input: EndpointCreateInput!) {{ endpointCreate(input: $input) {{ endpoint {{ id url secretCount allow revision verification {{ source definition }} connection {{ name }} }} {ERRORS} }} }}"
    );
    let input = json!({ "name": "orders", "connector": "generic", "verify": { "token": { "at": "header:X-Token" } }, "secrets": [ENDPOINT_SECRET, "older"], "allow": ["10.0.0.0/8"] });
    let created = server.query(&create, json!({ "input": input })).await["endpointCreate"].clone();
    assert_eq!(created["userErrors"], json!([]));
    let orders = &created["endpoint"];
    assert_eq!(
        (
            &orders["secretCount"],
            &orders["allow"],
            &orders["verification"]["source"]
        ),
        (&json!(2), &json!(["10.0.0.0/8"]), &json!("ENDPOINT"))
    );
    let unverified = json!({ "name": "open", "connector": "generic", "secrets": [] });
    let unverified = server.query(&create, json!({ "input": unverified })).await["endpointCreate"].clone();
    assert!(
        unverified["endpoint"].is_null() || unverified["endpoint"]["verification"]["source"] == "CONNECTOR",
        "{unverified}"
    );

    let update = format!(
        "mutation($input: EndpointUpdateInput!) {{ endpointUpdate(input: $input) {{ endpoint {{ secretCount allow revision }} {ERRORS} }} }}"
    );
    let change = json!({ "id": orders["id"], "expectedRevision": orders["revision"], "allow": null });
    let updated = server.query(&update, json!({ "input": change })).await["endpointUpdate"].clone();
    assert_eq!(
        (
            &updated["userErrors"],
            &updated["endpoint"]["allow"],
            &updated["endpoint"]["secretCount"]
        ),
        (&json!([]), &json!([]), &json!(2))
    );

    let delete = |kind: &str| {
        format!("mutation($input: DeleteInput!) {{ {kind}Delete(input: $input) {{ deletedId {ERRORS} }} }}")
    };
    let stale = server
        .query(
            &delete("endpoint"),
            json!({ "input": { "id": orders["id"], "expectedRevision": 99 } }),
        )
        .await["endpointDelete"]
        .clone();
    assert_eq!(
        (&stale["deletedId"], &stale["userErrors"][0]["code"]),
        (&Value::Null, &json!("CONFLICT"))
    );
    let deleted = server
        .query(&delete("endpoint"), json!({ "input": { "id": orders["id"] } }))
        .await["endpointDelete"]
        .clone();
    assert_eq!(deleted["deletedId"], orders["id"]);
    let gone = server
        .query(&delete("endpoint"), json!({ "input": { "id": orders["id"] } }))
        .await["endpointDelete"]
        .clone();
    assert_eq!(gone["userErrors"][0]["code"], "NOT_FOUND");
    let foreign = server
        .query(&delete("endpoint"), json!({ "input": { "id": shop["id"] } }))
        .await["endpointDelete"]
        .clone();
    assert_eq!(foreign["userErrors"][0]["code"], "INVALID_ID");
    server.stop().await;
}

/// What an endpoint knows of its registration is part of the proof, shown, kept, and asked for by name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_context_of_an_endpoint_takes_part_in_its_proof() {
    let server = TestServer::start().await;
    let fields = "endpoint { id revision context }";
    let create =
        format!("mutation($input: EndpointCreateInput!) {{ endpointCreate(input: $input) {{ {fields} {ERRORS} }} }}");
    let verify =
        json!({ "hmac": { "alg": "sha256", "sig": "header:x-sig", "encoding": "hex", "parts": ["ctx:hook", "body"] } });
    let mut input =
        json!({ "name": "signed", "connector": "generic", "verify": verify, "secrets": ["hook-secret-0001"] });
    let missing = server.query(&create, json!({ "input": input })).await["endpointCreate"].clone();
    assert_eq!(
        (
            &missing["endpoint"],
            &missing["userErrors"][0]["path"],
            &missing["userErrors"][0]["message"]
        ),
        (
            &Value::Null,
            &json!(["input", "context", "hook"]),
            &json!("`hook` is missing")
        )
    );
    input["context"] = json!({ "hook": "h7", "hooks": "h7" });
    let unknown = server.query(&create, json!({ "input": input })).await["endpointCreate"].clone();
    assert_eq!(
        (
            &unknown["userErrors"][0]["pointer"],
            &unknown["userErrors"][0]["suggestion"]
        ),
        (&json!("/context/hooks"), &json!("did you mean `hook`?"))
    );
    input["context"] = json!({ "hook": "h7" });
    let created = server.query(&create, json!({ "input": input })).await["endpointCreate"].clone();
    assert_eq!(
        (&created["userErrors"], &created["endpoint"]["context"]),
        (&json!([]), &json!({ "hook": "h7" }))
    );

    let send = async |signature: &str| {
        let request = server
            .http
            .post(server.url("/hooks/main/signed"))
            .header("x-sig", signature);
        let answer = request.body(r#"{"type":"made","id":"e1"}"#).send().await.unwrap();
        answer.status().as_u16()
    };
    // HMAC-SHA256 over the context's value and the body, by the secret.
    let with_h7 = "e0d195dc9799bcd481d50b824a53bdcb676c5d707651c8c86e8da37e247c110a";
    let with_h8 = "5e600d8cc65695aa6079a15303f99df21ffdcc16c3e41fed4353c77d3afc42f3";
    assert_eq!((send(with_h8).await, send(with_h7).await), (401, 200));

    let update =
        format!("mutation($input: EndpointUpdateInput!) {{ endpointUpdate(input: $input) {{ {fields} {ERRORS} }} }}");
    let mut revision = created["endpoint"]["revision"].clone();
    let mut change = async |change: Value| {
        let mut input = json!({ "id": created["endpoint"]["id"], "expectedRevision": revision });
        input
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let changed = server.query(&update, json!({ "input": input })).await["endpointUpdate"].clone();
        if !changed["endpoint"].is_null() {
            revision = changed["endpoint"]["revision"].clone();
        }
        changed
    };
    let kept = change(json!({ "allow": ["127.0.0.0/8"] })).await;
    assert_eq!(kept["endpoint"]["context"], json!({ "hook": "h7" }));
    let other = change(json!({ "context": { "hook": ["h8", "h9"] } })).await;
    assert_eq!(other["endpoint"]["context"], json!({ "hook": ["h8", "h9"] }));
    change(json!({ "context": { "hook": "h8" } })).await;
    assert_eq!((send(with_h8).await, send(with_h7).await), (200, 401));
    let removed = change(json!({ "context": null })).await;
    assert_eq!(removed["userErrors"][0]["message"], json!("`hook` is missing"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflows_go_from_draft_to_published_and_away() {
    let server = TestServer::start().await;
    let fields = "workflow { id revision draft { number state } published { number definition } trigger { kind event where } versions { number state } }";
    let create =
        format!("mutation($input: WorkflowCreateInput!) {{ workflowCreate(input: $input) {{ {fields} {ERRORS} }} }}");
    let mut document = note_workflow();
    document["on"]["where"] = json!("{{ event.data.total > 10 }}");
    let created = server
        .query(&create, json!({ "input": { "definition": document } }))
        .await["workflowCreate"]
        .clone();
    assert_eq!(created["userErrors"], json!([]));
    let workflow = &created["workflow"];
    assert_eq!(
        (&workflow["draft"]["state"], &workflow["published"]),
        (&json!("DRAFT"), &Value::Null)
    );

    let mut broken = document.clone();
    broken["steps"][0]["sett"] = json!({});
    let update =
        format!("mutation($input: WorkflowUpdateInput!) {{ workflowUpdate(input: $input) {{ {fields} {ERRORS} }} }}");
    let refused = server.query(&update, json!({ "input": { "id": workflow["id"], "expectedRevision": workflow["revision"], "definition": broken } })).await["workflowUpdate"].clone();
    let error = &refused["userErrors"][0];
    assert!(error["pointer"].as_str().unwrap().starts_with("/steps/0"), "{error}");
    assert_eq!(
        (&error["path"][0], &error["path"][1], &error["path"][2]),
        (&json!("input"), &json!("definition"), &json!("steps"))
    );
    let mut renamed = document.clone();
    renamed["name"] = json!("other");
    let refused = server.query(&update, json!({ "input": { "id": workflow["id"], "expectedRevision": workflow["revision"], "definition": renamed } })).await["workflowUpdate"].clone();
    assert_eq!(refused["userErrors"][0]["path"], json!(["input", "definition", "name"]));

    let publish = format!(
        "mutation($input: WorkflowPublishInput!) {{ workflowPublish(input: $input) {{ {fields} change {{ kind action }} {ERRORS} }} }}"
    );
    let published = server
        .query(
            &publish,
            json!({ "input": { "id": workflow["id"], "expectedRevision": workflow["revision"] } }),
        )
        .await["workflowPublish"]
        .clone();
    assert_eq!(published["userErrors"], json!([]));
    let now = &published["workflow"];
    assert_eq!(
        (
            &now["published"]["number"],
            &now["trigger"]["event"],
            &now["trigger"]["where"]
        ),
        (&json!(1), &json!("generic.order.placed"), &document["on"]["where"])
    );
    let again = server
        .query(&publish, json!({ "input": { "id": workflow["id"] } }))
        .await["workflowPublish"]
        .clone();
    assert_eq!(
        again["userErrors"][0]["code"], "NOT_FOUND",
        "nothing to publish: {again}"
    );

    let node = server
        .query(
            "query($id: ID!) { node(id: $id) { __typename id ... on Workflow { name } } }",
            json!({ "id": workflow["id"] }),
        )
        .await["node"]
        .clone();
    assert_eq!(
        node,
        json!({ "__typename": "Workflow", "id": workflow["id"], "name": "note" })
    );
    let deleted = server
        .query(
            "mutation($input: DeleteInput!) { workflowDelete(input: $input) { deletedId userErrors { message } } }",
            json!({ "input": { "id": workflow["id"] } }),
        )
        .await;
    assert_eq!(deleted["workflowDelete"]["deletedId"], workflow["id"]);
    assert_eq!(
        server
            .query("{ workflows { name } workflow(name: \"note\") { id } }", json!({}))
            .await,
        json!({ "workflows": [], "workflow": null })
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn document_sets_apply_as_one_and_export_without_secrets() {
    let server = TestServer::start().await;
    let apply = format!(
        "mutation($input: ApplyDocumentsInput!) {{ applyDocuments(input: $input) {{ applied changes {{ kind name action id diff notes }} {ERRORS} }} }}"
    );
    let yaml = format!(
        "kind: Connection\nname: shop\nconnector: http\nconfig:\n  base_url: https://shop.test\ncredential:\n  bearer:\n    token: {CREDENTIAL}\n---\nkind: Endpoint\nname: orders\nconnector: generic\nverify: {{ token: {{ at: 'header:X-Token' }} }}\nsecrets: [{ENDPOINT_SECRET}]\n"
    );
    let dry = server
        .query(&apply, json!({ "input": { "documents": [yaml], "dryRun": true } }))
        .await["applyDocuments"]
        .clone();
    assert_eq!(
        (&dry["applied"], &dry["changes"][0]["action"], &dry["changes"][0]["id"]),
        (&json!(false), &json!("CREATE"), &Value::Null)
    );
    assert_eq!(
        server.query("{ connections { name } }", json!({})).await["connections"],
        json!([])
    );
    let done = server
        .query(
            &apply,
            json!({ "input": { "documents": [yaml, note_workflow().to_string()] } }),
        )
        .await["applyDocuments"]
        .clone();
    assert_eq!(
        (
            &done["userErrors"],
            &done["applied"],
            done["changes"].as_array().unwrap().len()
        ),
        (&json!([]), &json!(true), 3)
    );
    for answer in [&dry, &done] {
        let text = answer.to_string();
        assert!(!text.contains(CREDENTIAL) && !text.contains(ENDPOINT_SECRET), "{text}");
    }
    let again = server
        .query(
            &apply,
            json!({ "input": { "documents": [note_workflow().to_string()] } }),
        )
        .await["applyDocuments"]
        .clone();
    assert_eq!(
        (
            &again["applied"],
            &again["changes"][0]["action"],
            &again["changes"][0]["diff"]
        ),
        (&json!(false), &json!("UNCHANGED"), &json!(""))
    );

    let bad = "kind: Endpoint\nname: second\nconnector: generic\nsecretz: [x]\n";
    let refused = server
        .query(
            &apply,
            json!({ "input": { "documents": [note_workflow().to_string(), bad] } }),
        )
        .await["applyDocuments"]
        .clone();
    let error = &refused["userErrors"][0];
    assert_eq!(
        (&error["path"], &error["pointer"], &error["line"], &error["problem"]),
        (
            &json!(["input", "documents", "1"]),
            &json!("/secretz"),
            &json!(4),
            &json!("unknown_key")
        )
    );
    let unreadable = server
        .query(&apply, json!({ "input": { "documents": ["kind: [\n"] } }))
        .await["applyDocuments"]
        .clone();
    assert_eq!(
        (
            &unreadable["userErrors"][0]["problem"],
            &unreadable["userErrors"][0]["path"]
        ),
        (&json!("yaml"), &json!(["input", "documents", "0"]))
    );
    let none = server.query(&apply, json!({ "input": { "documents": [] } })).await["applyDocuments"].clone();
    assert_eq!(none["userErrors"][0]["code"], "REQUIRED");

    let exported = server.query("{ documents }", json!({})).await["documents"].clone();
    let kinds: Vec<_> = exported
        .as_array()
        .unwrap()
        .iter()
        .map(|document| document["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["Connection", "Endpoint", "Workflow"]);
    let text = exported.to_string();
    assert!(!text.contains(CREDENTIAL) && !text.contains(ENDPOINT_SECRET));
    let texts: Vec<String> = exported.as_array().unwrap().iter().map(Value::to_string).collect();
    let reapplied = server.query(&apply, json!({ "input": { "documents": texts } })).await["applyDocuments"].clone();
    assert!(
        reapplied["changes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|change| change["action"] == "UNCHANGED"),
        "an export is what is there: {reapplied:#}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_is_shown_with_its_next_times() {
    let server = TestServer::start().await;
    let schedule = json!({
        "cron": ["0 9 * * mon-fri", "@monthly"], "timezone": "Europe/Berlin", "catch_up": "all", "max_catch_up": 7,
        "input": { "region": "eu" },
    });
    let steps = json!([{ "id": "told", "set": { "region": "{{ event.data.input.region }}" } }]);
    let report = json!({ "kind": "Workflow", "name": "report", "on": { "schedule": schedule }, "steps": steps });
    let every =
        json!({ "kind": "Workflow", "name": "every", "on": { "schedule": { "every": "90m" } }, "steps": steps });
    server.apply(&[report, every, orders_endpoint(), note_workflow()]).await;
    let fields =
        "trigger { kind event schedule { cron timezone everySeconds catchUp maxCatchUp input } } lastScheduledFor";
    let query = format!(
        "query($name: String!, $first: Int!) {{ workflow(name: $name) {{ {fields} nextRuns(first: $first) }} }}"
    );
    let shown = async |name: &str, first: u32| {
        let variables = json!({ "name": name, "first": first });
        server.query(&query, variables).await["workflow"].clone()
    };
    let report = shown("report", 3).await;
    assert_eq!(
        report["trigger"],
        json!({ "kind": "SCHEDULE", "event": null, "schedule": {
            "cron": ["0 9 * * mon-fri", "@monthly"], "timezone": "Europe/Berlin", "everySeconds": null,
            "catchUp": "ALL", "maxCatchUp": 7, "input": { "region": "eu" },
        } })
    );
    let times = |workflow: &Value| -> Vec<String> {
        let listed = workflow["nextRuns"].as_array().unwrap();
        listed.iter().map(|time| time.as_str().unwrap().to_owned()).collect()
    };
    let next = times(&report);
    assert!(
        next.len() == 3 && next.is_sorted() && next[0] > server.orchestrator.now().to_string(),
        "{next:?}"
    );
    assert_eq!(report["lastScheduledFor"], Value::Null);
    let every = shown("every", 1000).await;
    let schedule = &every["trigger"]["schedule"];
    assert_eq!(
        (&schedule["everySeconds"], &schedule["catchUp"]),
        (&json!(5400), &json!("ONE"))
    );
    assert_eq!(times(&every).len(), 100);
    assert_eq!(shown("note", 5).await["nextRuns"], json!([]));

    let wrong = json!({ "kind": "Workflow", "name": "wrong", "steps": steps, "on": { "schedule": { "cron": "0 25 * * *", "timezone": "Europe/Berln" } } });
    let query = format!("mutation($input: ApplyDocumentsInput!) {{ applyDocuments(input: $input) {{ {ERRORS} }} }}");
    let refused = server
        .query(&query, json!({ "input": { "documents": [wrong.to_string()] } }))
        .await;
    let errors = refused["applyDocuments"]["userErrors"].clone();
    let pointers: Vec<&Value> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["pointer"])
        .collect();
    assert_eq!(pointers, ["/on/schedule/timezone", "/on/schedule/cron"]);
    assert_eq!(errors[0]["suggestion"], "did you mean `Europe/Berlin`?");
    server.stop().await;
}
