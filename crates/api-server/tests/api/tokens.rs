//! API tokens: what each may do, and their end.

use crate::support::{ADMIN, TestServer, note_workflow, orders_endpoint, shop_connection};
use serde_json::{Value, json};

const ERRORS: &str = "userErrors { __typename code message path ... on InputError { pointer line problem suggestion } ... on ConflictError { currentRevision } ... on PreconditionError { blockers } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_allow_what_they_say_and_end_when_revoked() {
    let server = TestServer::start().await;
    server
        .apply(&[shop_connection("https://shop.test"), orders_endpoint(), note_workflow()])
        .await;
    let create = format!(
        "mutation($input: TokenCreateInput!) {{ tokenCreate(input: $input) {{ valueOnce token {{ id name permissions }} {ERRORS} }} }}"
    );
    let made = server.query(&create, json!({ "input": { "name": "reader", "permissions": ["CONFIG_READ", "TOKEN_ADMIN"], "expiresAt": "2090-01-01T00:00:00.000Z" } })).await["tokenCreate"].clone();
    assert_eq!(made["userErrors"], json!([]));
    let reader = made["valueOnce"].as_str().unwrap().to_owned();
    assert!(reader.starts_with("weir_tok_") && reader.len() > 50);
    for (input, path) in [
        (json!({ "name": " ", "permissions": ["RUN_READ"] }), "name"),
        (json!({ "name": "x", "permissions": [] }), "permissions"),
        (
            json!({ "name": "x", "permissions": ["RUN_READ"], "expiresAt": "2001-01-01T00:00:00.000Z" }),
            "expiresAt",
        ),
    ] {
        let refused = server.query(&create, json!({ "input": input })).await["tokenCreate"].clone();
        assert_eq!(
            (&refused["valueOnce"], &refused["userErrors"][0]["path"][1]),
            (&Value::Null, &json!(path))
        );
    }

    let code = |answer: &Value| answer["errors"][0]["extensions"]["code"].as_str().map(str::to_owned);
    let viewer = server
        .raw_query(
            &reader,
            "{ viewer { name tokenId permissions workspace { name } } connections { name } }",
            json!({}),
        )
        .await["data"]
        .clone();
    assert_eq!(
        viewer["viewer"],
        json!({ "name": "reader", "tokenId": made["token"]["id"], "permissions": ["CONFIG_READ", "TOKEN_ADMIN"], "workspace": { "name": "main" } })
    );
    assert_eq!(viewer["connections"], json!([{ "name": "shop" }]));
    for (query, variables) in [
        ("{ runs { nodes { id } } }", json!({})),
        ("{ events { nodes { id } } }", json!({})),
        ("{ refusedRequests { nodes { id } } }", json!({})),
        ("{ replayPreview(runId: \"run_0000000000000\") { confirm } }", json!({})),
        ("{ endpoints { refused { count } } }", json!({})),
        (
            "mutation($input: RunStartInput!) { runStart(input: $input) { replayed } }",
            json!({ "input": { "workflow": "note" } }),
        ),
        (
            "mutation($input: ApplyDocumentsInput!) { applyDocuments(input: $input) { applied } }",
            json!({ "input": { "documents": ["{}"] } }),
        ),
        (
            "mutation($input: ConnectionCreateInput!) { connectionCreate(input: $input) { userErrors { message } } }",
            json!({ "input": { "name": "x", "connector": "http" } }),
        ),
        // Nobody gives what they do not have.
        (
            "mutation($input: TokenCreateInput!) { tokenCreate(input: $input) { valueOnce } }",
            json!({ "input": { "name": "more", "permissions": ["RUN_OPERATE"] } }),
        ),
    ] {
        assert_eq!(
            code(&server.raw_query(&reader, query, variables).await).as_deref(),
            Some("FORBIDDEN"),
            "{query}"
        );
    }
    // Configuration without secrets is not enough to set a secret.
    let writer = server
        .query(
            &create,
            json!({ "input": { "name": "writer", "permissions": ["CONFIG_READ", "CONFIG_WRITE"] } }),
        )
        .await["tokenCreate"]["valueOnce"]
        .as_str()
        .unwrap()
        .to_owned();
    let with_secret = "mutation($input: ConnectionCreateInput!) { connectionCreate(input: $input) { connection { id } userErrors { message } } }";
    let input =
        json!({ "input": { "name": "two", "connector": "http", "credential": { "bearer": { "token": "x" } } } });
    assert_eq!(
        code(&server.raw_query(&writer, with_secret, input).await).as_deref(),
        Some("FORBIDDEN")
    );
    let applied = server
        .raw_query(
            &writer,
            "mutation($input: ApplyDocumentsInput!) { applyDocuments(input: $input) { applied } }",
            json!({ "input": { "documents": [orders_endpoint().to_string()] } }),
        )
        .await;
    assert_eq!(code(&applied).as_deref(), Some("FORBIDDEN"));
    // Nor to have one that is stored sent somewhere else.
    let stored = json!({
        "kind": "Connection", "name": "kept", "connector": "http",
        "config": { "base_url": "https://shop.example.com" }, "credential": { "bearer": { "token": "stored-token" } },
    });
    server.apply(std::slice::from_ref(&stored)).await;
    let elsewhere = json!({
        "kind": "Connection", "name": "kept", "connector": "http", "config": { "base_url": "https://evil.example.com" },
    });
    let apply = "mutation($input: ApplyDocumentsInput!) { applyDocuments(input: $input) { applied } }";
    let moved = json!({ "input": { "documents": [elsewhere.to_string()] } });
    assert_eq!(
        code(&server.raw_query(&writer, apply, moved).await).as_deref(),
        Some("FORBIDDEN")
    );
    let found = server
        .query("{ connection(name: \"kept\") { id revision } }", json!({}))
        .await;
    let update = "mutation($input: ConnectionUpdateInput!) { connectionUpdate(input: $input) { connection { id } } }";
    let input = json!({ "input": {
        "id": found["connection"]["id"], "expectedRevision": found["connection"]["revision"],
        "config": { "base_url": "https://evil.example.com" },
    } });
    assert_eq!(
        code(&server.raw_query(&writer, update, input).await).as_deref(),
        Some("FORBIDDEN")
    );
    let mut same = elsewhere;
    same["config"] = stored["config"].clone();
    let same = json!({ "input": { "documents": [same.to_string()] } });
    assert_eq!(code(&server.raw_query(&writer, apply, same).await), None);

    let listed = server
        .query("{ tokens { name permissions expiresAt } }", json!({}))
        .await;
    assert!(!listed.to_string().contains(&reader), "a token is shown once");
    let revoke = "mutation($input: TokenRevokeInput!) { tokenRevoke(input: $input) { deletedId userErrors { code } } }";
    let revoked = server
        .query(revoke, json!({ "input": { "id": made["token"]["id"] } }))
        .await["tokenRevoke"]
        .clone();
    assert_eq!(revoked["deletedId"], made["token"]["id"]);
    assert_eq!(
        code(&server.raw_query(&reader, "{ viewer { name } }", json!({})).await).as_deref(),
        Some("UNAUTHENTICATED")
    );
    let again = server
        .query(revoke, json!({ "input": { "id": made["token"]["id"] } }))
        .await["tokenRevoke"]
        .clone();
    assert_eq!(again["userErrors"][0]["code"], "NOT_FOUND");
    assert_eq!(
        server.raw_query(ADMIN, "{ viewer { name } }", json!({})).await["data"]["viewer"]["name"],
        "admin"
    );
    server.stop().await;
}

/// Approvals and the audit trail know people by the names of their tokens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_tokens_have_one_name_and_none_is_called_as_the_server_is() {
    let server = TestServer::start().await;
    let create = "mutation($input: TokenCreateInput!) { tokenCreate(input: $input) { token { id } userErrors { code message } } }";
    let make = async |name: &str| {
        let input = json!({ "input": { "name": name, "permissions": ["RUN_READ"] } });
        let data = server.query(create, input).await;
        data["tokenCreate"].clone()
    };
    let first = make("finance").await;
    assert_eq!(first["userErrors"], json!([]));
    for name in ["finance", " finance ", "admin", "system", "provider", "token:tok_1"] {
        let refused = make(name).await;
        assert_eq!(refused["userErrors"][0]["code"], "TAKEN", "{name}: {refused}");
        assert_eq!(refused["token"], Value::Null);
    }
    // A name is free again when its token is revoked.
    let revoke = "mutation($id: ID!) { tokenRevoke(input: { id: $id }) { userErrors { code } } }";
    server.query(revoke, json!({ "id": first["token"]["id"] })).await;
    assert_eq!(make("finance").await["userErrors"], json!([]));
}
