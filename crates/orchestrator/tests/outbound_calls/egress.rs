//! Where calls may go, and where credentials may.

use serde_json::json;
use weir_workflow_engine::{EffectClass, Retry, SendMode, Sent};

use crate::server::{Reply, Server, json as answer};
use crate::setup::{Bench, connection, connection_with, connector, failure, output, step};

fn redirect(to: &str) -> Reply {
    Reply::Answer(302, vec![("location", to.to_owned())], String::new())
}

#[tokio::test]
async fn loopback_is_refused_by_address_and_by_name_and_the_message_says_what_to_set() {
    let server = Server::start().await;
    let port = server.address.port();
    let bench = Bench::build(&[], None);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"] {
        let connection = connection(&format!("http://{host}:{port}"));
        let command = bench.effect("pay", json!({}), EffectClass::Blind, SendMode::First);
        let result = bench.call(&connection, &command).await;
        let failed = failure(&result);
        assert_eq!(
            (failed.code.as_str(), failed.sent, failed.retry),
            ("egress_refused", Sent::Never, Retry::Permanent),
            "{host}"
        );
        assert!(
            failed.message.contains("WEIR_EGRESS_ALLOW") && failed.message.contains("loopback"),
            "{}",
            failed.message
        );
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_name_can_be_allowed() {
    let server = Server::start().await;
    let bench = Bench::build(&["localhost"], None);
    let by_name = connection(&format!("http://localhost:{}", server.address.port()));
    output(&bench.call(&by_name, &step("things.get", json!({ "id": "1" }))).await);
    let by_address = connection(&server.url());
    let result = bench.call(&by_address, &step("things.get", json!({ "id": "1" }))).await;
    assert_eq!(failure(&result).code, "egress_refused");
}

#[tokio::test]
async fn a_redirect_stays_within_declared_hosts_and_allowed_addresses() {
    let server = Server::start().await;
    let bench = Bench::new();
    let connection = connection(&server.url());
    for (target, code) in [
        ("http://169.254.169.254/latest/meta-data", "egress_refused"),
        ("http://10.0.0.1/", "egress_refused"),
        ("https://evil.example.com/", "egress_refused"),
        ("ftp://127.0.0.1/", "invalid"),
        ("http://user:word@127.0.0.1/", "invalid"),
    ] {
        server.reply(redirect(target));
        let result = bench.call(&connection, &step("things.get", json!({ "id": "1" }))).await;
        assert_eq!(failure(&result).code, code, "{target}");
    }
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn the_http_connector_style_follows_anywhere_public_but_never_into_the_network() {
    let server = Server::start().await;
    let manifest = r#"
connector: anywhere
version: 1.0.0
hosts: any
auth: { none: {}, bearer: {} }
operations:
  get: { get: "/start" }
"#;
    let connector = std::sync::Arc::new(weir_connector_sdk::Connector::parse(manifest, &|_| None).unwrap());
    let credential = json!({ "bearer": "s3cret" });
    let connection = connection_with(connector, json!({ "base_url": server.url() }), Some(credential));
    let bench = Bench::new();
    server.reply(redirect("http://192.168.0.1/admin"));
    let result = bench.call(&connection, &step("get", json!({}))).await;
    assert_eq!(failure(&result).code, "egress_refused");
    assert!(failure(&result).message.contains("192.168.0.1"));

    let other = Server::start().await;
    server.reply(redirect(&format!("{}/elsewhere", other.url())));
    output(&bench.call(&connection, &step("get", json!({}))).await);
    assert_eq!(server.seen()[1].header("authorization"), Some("Bearer s3cret"));
    assert_eq!(
        other.seen()[0].header("authorization"),
        None,
        "a credential never travels to another origin"
    );
}

#[tokio::test]
async fn reads_follow_redirects_with_their_credential_on_the_same_origin_and_not_for_ever() {
    let server = Server::start().await;
    let bench = Bench::new();
    let credential = json!({ "api_key": "s3cret" });
    let connection = connection_with(connector(), json!({ "base_url": server.url() }), Some(credential));
    server.reply(redirect("/things/2"));
    server.reply(answer(200, json!({ "id": 2 })));
    let result = bench.call(&connection, &step("things.get", json!({ "id": "1" }))).await;
    assert_eq!(output(&result), json!({ "id": 2 }));
    assert_eq!(server.seen()[1].path, "/things/2?acme_key=s3cret");
    assert_eq!(result.exchanges.len(), 2);

    server.script(|_| Some(redirect("/things/1")));
    let result = bench.call(&connection, &step("things.get", json!({ "id": "1" }))).await;
    assert_eq!(failure(&result).code, "too_many_redirects");
    assert_eq!(result.exchanges.len(), 4);
}

#[tokio::test]
async fn effects_are_not_redirected() {
    let server = Server::start().await;
    server.reply(redirect("/elsewhere"));
    let bench = Bench::new();
    let command = bench.effect("pay", json!({}), EffectClass::Blind, SendMode::First);
    let result = bench.call(&connection(&server.url()), &command).await;
    assert_eq!(failure(&result).code, "http_302");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_operation_on_another_host_goes_there_with_its_credential_and_nowhere_else() {
    let manifest = "connector: two\nversion: 1.0.0\nhosts: { api: \"https://api.two.test\", files: \"https://files.two.test\" }\nauth: { bearer: {} }\noperations:\n  a: { get: /a }\n  f: { get: /f, host: files }\n";
    let connector = std::sync::Arc::new(weir_connector_sdk::Connector::parse(manifest, &|_| None).unwrap());
    let (api, files, other) = (Server::start().await, Server::start().await, Server::start().await);
    let config = json!({ "base_url": api.url(), "base_urls": { "files": files.url() } });
    let credential = json!({ "bearer": { "token": "token-0123456789" } });
    let connection = connection_with(connector, config, Some(credential));
    let bench = Bench::new();
    output(&bench.call(&connection, &step("a", json!({}))).await);
    output(&bench.call(&connection, &step("f", json!({}))).await);
    assert_eq!((api.count("/a"), api.seen().len()), (1, 1));
    assert_eq!((files.count("/f"), files.seen().len()), (1, 1));
    let bearer = Some("Bearer token-0123456789");
    assert_eq!(files.seen()[0].header("authorization"), bearer);
    // From one declared host to another is allowed, but the credential was meant for the first.
    files.reply(redirect(&format!("{}/a", api.url())));
    output(&bench.call(&connection, &step("f", json!({}))).await);
    assert_eq!(api.seen()[1].header("authorization"), None);
    files.reply(redirect(&format!("{}/x", other.url())));
    let result = bench.call(&connection, &step("f", json!({}))).await;
    assert_eq!(failure(&result).code, "egress_refused");
    assert!(other.seen().is_empty());
}
