//! Pages, health, metrics, and everything that is no API.

use crate::support::{ADMIN, TestServer};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_pages_answer_and_unknown_ones_do_not() {
    let server = TestServer::start().await;
    let get = |path: &str| server.http.get(server.url(path));
    assert_eq!(get("/healthz").send().await.unwrap().text().await.unwrap(), "ok\n");
    let ready: Value = get("/readyz").send().await.unwrap().json().await.unwrap();
    assert_eq!(ready, json!({ "ready": true, "reasons": [], "warnings": [] }));
    let landing: Value = get("/").send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&landing["name"], &landing["graphql"]),
        (&json!("weir"), &json!("/graphql"))
    );
    let html = get("/").header("accept", "text/html,*/*;q=0.8").send().await.unwrap();
    assert!(
        html.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("frame-ancestors 'none'")
    );
    assert!(html.text().await.unwrap().contains(env!("CARGO_PKG_VERSION")));
    let head = server.http.head(server.url("/healthz")).send().await.unwrap();
    assert_eq!(head.status().as_u16(), 200);

    let schema = get("/schemas/workflow.json").send().await.unwrap();
    assert_eq!(schema.headers()["content-type"], "application/schema+json");
    let schema: Value = schema.json().await.unwrap();
    assert_eq!(schema, weir_workflow_engine::Definition::json_schema());

    let schema = get("/schemas/connector.json").send().await.unwrap();
    assert_eq!(schema.headers()["content-type"], "application/schema+json");
    let schema: Value = schema.json().await.unwrap();
    assert_eq!(schema, weir_connector_sdk::Connector::json_schema());

    let unknown = get("/nothing/here").send().await.unwrap();
    assert_eq!(unknown.headers()["content-type"], "application/problem+json");
    let problem: Value = unknown.json().await.unwrap();
    assert_eq!(
        (&problem["status"], &problem["code"]),
        (&json!(404), &json!("NOT_FOUND"))
    );
    // The link in the problem leads to its explanation.
    let page = get(problem["type"].as_str().unwrap()).send().await.unwrap();
    assert!(page.status().is_success() && page.text().await.unwrap().contains("What to do"));
    assert_eq!(get("/errors/NOPE").send().await.unwrap().status().as_u16(), 404);
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/",
        "/graphiql",
        "/errors/NOT_FOUND",
        "/schemas/workflow.json",
        "/schemas/connector.json",
    ] {
        let answer = server.http.post(server.url(path)).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["allow"].to_str().unwrap()),
            (405, "GET, HEAD"),
            "{path}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_for_this_machine_or_a_token() {
    let server = TestServer::start().await;
    let metrics = || server.http.get(server.url("/metrics"));
    assert_eq!(metrics().send().await.unwrap().text().await.unwrap(), "# metrics\n");
    // Behind a proxy every peer looks local.
    for header in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        let proxied = metrics().header(header, "198.51.100.7").send().await.unwrap();
        assert_eq!(proxied.status().as_u16(), 401, "{header}");
        assert!(
            proxied.headers()["www-authenticate"]
                .to_str()
                .unwrap()
                .starts_with("Bearer")
        );
        let with_token = metrics()
            .header(header, "198.51.100.7")
            .bearer_auth(ADMIN)
            .send()
            .await
            .unwrap();
        assert_eq!(with_token.status().as_u16(), 200, "{header}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphiql_is_served_whole_and_from_here() {
    let server = TestServer::start().await;
    for path in ["/graphiql", "/graphiql/"] {
        let page = server.http.get(server.url(path)).send().await.unwrap();
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("script-src 'self';"),
            "{policy}"
        );
        assert_eq!(page.headers()["x-frame-options"], "DENY");
        let html = page.text().await.unwrap();
        assert!(
            !html.contains("://") && !html.contains("onclick"),
            "everything comes from this server"
        );
        let files: Vec<&str> = html.split('"').filter(|part| part.starts_with("/graphiql/")).collect();
        assert_eq!(files.len(), 6, "{files:?}");
        for file in files {
            let asset = server.http.get(server.url(file)).send().await.unwrap();
            assert_eq!(asset.status().as_u16(), 200, "{file}");
            assert_eq!(asset.headers()["x-content-type-options"], "nosniff");
            assert!(asset.text().await.unwrap().len() > 400, "{file}");
        }
    }
    assert_eq!(
        server
            .http
            .get(server.url("/graphiql/../secret"))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        404
    );
    assert_eq!(
        server
            .http
            .get(server.url("/graphiql/none.js"))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        404
    );
    server.stop().await;
}
