//! The transport of `/graphql`: methods, media types, statuses, shapes, and limits that answer fast.

use crate::support::{ADMIN, TestServer};
use reqwest::Method;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::Instant;

const STRICT: &str = "application/graphql-response+json";
const QUERY: &str = r#"{"query":"{ viewer { name } }"}"#;

/// One request and what it must get: status, code of the first error, whether there is a `data` key.
struct Case<'a> {
    name: &'a str,
    method: Method,
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a str,
    expected: (u16, Option<&'a str>, bool),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transport_rules_hold() {
    let server = TestServer::start().await;
    let token = format!("Bearer {ADMIN}");
    let auth = ("authorization", token.as_str());
    let json_type = ("content-type", "application/json");
    let strict = ("accept", STRICT);
    let post = |name, headers: Vec<_>, body, expected| Case {
        name,
        method: Method::POST,
        path: "/graphql",
        headers,
        body,
        expected,
    };
    let get = |name, path, headers: Vec<_>, expected| Case {
        name,
        method: Method::GET,
        path,
        headers,
        body: "",
        expected,
    };
    let mutation = r#"{"query":"mutation { tokenRevoke(input: {id: \"x\"}) { deletedId } }"}"#;
    let required = r#"{"query":"query($id: ID!) { run(id: $id) { id } }"}"#;
    let wrong_type = r#"{"query":"query($n: Int) { runs(first: $n) { nodes { id } } }","variables":{"n":"many"}}"#;
    let cases = [
        post("plain JSON", vec![auth, json_type], QUERY, (200, None, true)),
        post("strict", vec![auth, json_type, strict], QUERY, (200, None, true)),
        post(
            "charset",
            vec![auth, ("content-type", "application/json; charset=utf-8")],
            QUERY,
            (200, None, true),
        ),
        post(
            "unknown keys are left alone",
            vec![auth, json_type],
            r#"{"query":"{ viewer { name } }","extensions":{},"x":1}"#,
            (200, None, true),
        ),
        get(
            "GET",
            "/graphql?query=%7Bviewer%7Bname%7D%7D",
            vec![auth, strict],
            (200, None, true),
        ),
        get(
            "GET with variables",
            "/graphql?query=query(%24id%3AID!)%7Brun(id%3A%24id)%7Bid%7D%7D&variables=%7B%22id%22%3A%22run_0000000000000%22%7D",
            vec![auth],
            (200, None, true),
        ),
        get(
            "GET operationName",
            "/graphql?query=query%20A%7Bviewer%7Bname%7D%7Dquery%20B%7Bviewer%7Bname%7D%7D&operationName=B",
            vec![auth, strict],
            (200, None, true),
        ),
        post(
            "no token",
            vec![json_type],
            QUERY,
            (401, Some("UNAUTHENTICATED"), false),
        ),
        post(
            "wrong token",
            vec![("authorization", "Bearer nope"), json_type, strict],
            QUERY,
            (401, Some("UNAUTHENTICATED"), false),
        ),
        post(
            "basic",
            vec![("authorization", "Basic YTpi"), json_type],
            QUERY,
            (401, Some("UNAUTHENTICATED"), false),
        ),
        post(
            "text/plain",
            vec![auth, ("content-type", "text/plain")],
            QUERY,
            (415, Some("UNSUPPORTED_MEDIA_TYPE"), false),
        ),
        post(
            "form",
            vec![auth, ("content-type", "application/x-www-form-urlencoded")],
            "query=%7Bviewer%7Bname%7D%7D",
            (415, Some("UNSUPPORTED_MEDIA_TYPE"), false),
        ),
        post(
            "multipart",
            vec![auth, ("content-type", "multipart/form-data; boundary=x")],
            QUERY,
            (415, Some("UNSUPPORTED_MEDIA_TYPE"), false),
        ),
        post(
            "no content type",
            vec![auth],
            QUERY,
            (415, Some("UNSUPPORTED_MEDIA_TYPE"), false),
        ),
        get(
            "mutation by GET",
            "/graphql?query=mutation%7BtokenRevoke(input%3A%7Bid%3A%22x%22%7D)%7BdeletedId%7D%7D",
            vec![auth],
            (405, Some("METHOD_NOT_ALLOWED"), false),
        ),
        get(
            "GET without a query",
            "/graphql",
            vec![auth],
            (400, Some("BAD_REQUEST"), false),
        ),
        get(
            "GET with broken variables",
            "/graphql?query=%7Bviewer%7Bname%7D%7D&variables=%7B",
            vec![auth],
            (400, Some("BAD_REQUEST"), false),
        ),
        Case {
            name: "PUT",
            method: Method::PUT,
            path: "/graphql",
            headers: vec![auth, json_type],
            body: QUERY,
            expected: (405, Some("METHOD_NOT_ALLOWED"), false),
        },
        Case {
            name: "OPTIONS",
            method: Method::OPTIONS,
            path: "/graphql",
            headers: vec![],
            body: "",
            expected: (405, Some("METHOD_NOT_ALLOWED"), false),
        },
        post("mutation by POST", vec![auth, json_type], mutation, (200, None, true)),
        post(
            "not JSON",
            vec![auth, json_type],
            "{",
            (400, Some("BAD_REQUEST"), false),
        ),
        post(
            "not an object",
            vec![auth, json_type],
            "7",
            (400, Some("BAD_REQUEST"), false),
        ),
        post(
            "a batch",
            vec![auth, json_type],
            r#"[{"query":"{ viewer { name } }"}]"#,
            (400, Some("BAD_REQUEST"), false),
        ),
        post(
            "no query",
            vec![auth, json_type],
            "{}",
            (400, Some("BAD_REQUEST"), false),
        ),
        post(
            "query is a number",
            vec![auth, json_type],
            r#"{"query":1}"#,
            (400, Some("BAD_REQUEST"), false),
        ),
        post(
            "variables are a list",
            vec![auth, json_type],
            r#"{"query":"{ viewer { name } }","variables":[]}"#,
            (400, Some("BAD_REQUEST"), false),
        ),
        post(
            "operationName is a number",
            vec![auth, json_type],
            r#"{"query":"{ viewer { name } }","operationName":1}"#,
            (400, Some("BAD_REQUEST"), false),
        ),
        post(
            "syntax, plain JSON",
            vec![auth, json_type],
            r#"{"query":"{"}"#,
            (200, Some("PARSE_FAILED"), false),
        ),
        post(
            "syntax, strict",
            vec![auth, json_type, strict],
            r#"{"query":"{"}"#,
            (400, Some("PARSE_FAILED"), false),
        ),
        post(
            "unknown field, plain JSON",
            vec![auth, json_type],
            r#"{"query":"{ nope }"}"#,
            (200, Some("VALIDATION_FAILED"), false),
        ),
        post(
            "unknown field, strict",
            vec![auth, json_type, strict],
            r#"{"query":"{ nope }"}"#,
            (400, Some("VALIDATION_FAILED"), false),
        ),
        post(
            "missing variable, strict",
            vec![auth, json_type, strict],
            required,
            (400, Some("BAD_VARIABLES"), false),
        ),
        post(
            "variable of another type, strict",
            vec![auth, json_type, strict],
            wrong_type,
            (400, Some("VALIDATION_FAILED"), false),
        ),
        post(
            "unknown operation, strict",
            vec![auth, json_type, strict],
            r#"{"query":"query A { viewer { name } }","operationName":"B"}"#,
            (400, Some("BAD_REQUEST"), false),
        ),
        post(
            "no subscriptions",
            vec![auth, json_type, strict],
            r#"{"query":"subscription { x }"}"#,
            (400, Some("VALIDATION_FAILED"), false),
        ),
        post(
            "a resolver's error",
            vec![auth, json_type, strict],
            r#"{"query":"{ run(id: \"evt_0000000000000\") { id } viewer { name } }"}"#,
            (200, Some("INVALID_ID"), true),
        ),
        post(
            "first out of range",
            vec![auth, json_type, strict],
            r#"{"query":"{ runs(first: 101) { nodes { id } } }"}"#,
            (200, Some("BAD_REQUEST"), true),
        ),
        post(
            "a foreign cursor",
            vec![auth, json_type, strict],
            r#"{"query":"{ runs(after: \"AAAA\") { nodes { id } } }"}"#,
            (200, Some("INVALID_CURSOR"), true),
        ),
        post(
            "not acceptable",
            vec![auth, json_type, ("accept", "text/html")],
            QUERY,
            (406, None, false),
        ),
        post(
            "no server-sent events",
            vec![auth, json_type, ("accept", "text/event-stream")],
            QUERY,
            (406, None, false),
        ),
    ];
    for case in cases {
        let mut request = server
            .http
            .request(case.method, server.url(case.path))
            .body(case.body.to_owned());
        for (name, value) in &case.headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
        let asked_strict = case.headers.contains(&strict);
        let body: Value = answer.json().await.unwrap();
        let code = body["errors"][0]["extensions"]["code"].as_str();
        assert_eq!(
            (status, code, body.get("data").is_some()),
            case.expected,
            "{}: {body}",
            case.name
        );
        match (status, asked_strict) {
            (406, _) => assert_eq!(content_type, "application/problem+json"),
            (_, true) => assert_eq!(
                content_type, "application/graphql-response+json; charset=utf-8",
                "{}",
                case.name
            ),
            (_, false) => assert_eq!(content_type, "application/json; charset=utf-8", "{}", case.name),
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_and_explosive_requests_are_refused_at_once() {
    let server = TestServer::start().await;
    let code = |body: &Value| body["errors"][0]["extensions"]["code"].as_str().unwrap().to_owned();

    let mut bomb = String::from("{ runs { nodes { ...F0 } } }");
    for level in 0..30 {
        write!(bomb, " fragment F{level} on Run {{ id ...F{0} ...F{0} }}", level + 1).unwrap();
    }
    bomb.push_str(" fragment F30 on Run { id }");
    let started = Instant::now();
    let answer = server.raw_query(ADMIN, &bomb, json!({})).await;
    assert_eq!(code(&answer), "COST_EXCEEDED");
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "2^30 visits were made: {:?}",
        started.elapsed()
    );

    let circle = "{ runs { nodes { ...A } } } fragment A on Run { ...B } fragment B on Run { ...A }";
    assert_eq!(
        code(&server.raw_query(ADMIN, circle, json!({})).await),
        "VALIDATION_FAILED"
    );
    assert_eq!(
        code(&server.raw_query(ADMIN, &"{".repeat(100_000), json!({})).await),
        "COST_EXCEEDED"
    );

    let large = json!({ "query": "{ viewer { name } }", "variables": { "x": "x".repeat(5_000_000) } }).to_string();
    let post = || {
        server
            .http
            .post(server.url("/graphql"))
            .bearer_auth(ADMIN)
            .header("content-type", "application/json")
    };
    let declared = post().body(large.clone()).send().await.unwrap();
    assert_eq!(declared.status().as_u16(), 413);
    let chunked = reqwest::Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>(large)]));
    let chunked = post().body(chunked).send().await.unwrap();
    assert_eq!(chunked.status().as_u16(), 413);
    let body: Value = chunked.json().await.unwrap();
    assert_eq!(code(&body), "BODY_TOO_LARGE");
    server.stop().await;
}
