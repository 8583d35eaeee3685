//! Where requests go: settings in host names, several hosts, and what can never be reached.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use serde_json::{Value, json};
use url::Url;
use weir_connector_sdk::{CallContext, Connector};

fn parse(hosts: &str, config: &str, operation: &str) -> Result<Connector, Vec<String>> {
    let manifest = format!(
        "connector: h\nversion: 1.0.0\nhosts: {hosts}\nconfig: {config}\nauth: {{ none: {{}} }}\noperations:\n  x: {operation}\n"
    );
    Connector::parse(&manifest, &|_| None).map_err(|problems| {
        let told = problems.into_iter().map(|mut problem| {
            assert!(problem.line.take().is_some(), "{problem}");
            problem.to_string()
        });
        told.collect()
    })
}

fn connector(hosts: &str, config: &str, operation: &str) -> Connector {
    parse(hosts, config, operation).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The URL of a call, or where and why there is none.
fn url(connector: &Connector, config: &Value) -> Result<String, String> {
    let ctx = CallContext {
        config,
        args: &Value::Null,
        idempotency_key: None,
        page: None,
    };
    let request = connector.operation("x").unwrap().request(&ctx);
    request
        .map(|request| request.url)
        .map_err(|error| format!("{}: {error}", error.pointer))
}

const GET: &str = "{ get: /a }";

#[test]
fn a_setting_is_a_whole_host_only_under_declared_domains() {
    let config = "{ domain: { format: host, under: [.my.acme.test, .acme-cloud.test], required: true } }";
    let connector = connector("[\"https://{{ config.domain }}/api\"]", config, GET);
    let check = |domain: &str, ok: bool| {
        let settings = json!({ "domain": domain });
        assert_eq!(connector.check_config(&settings).is_empty(), ok, "{domain}");
        // Settings that were never checked go nowhere else either.
        let found = url(&connector, &settings);
        match ok {
            true => assert_eq!(found, Ok(format!("https://{domain}/api/a"))),
            false => assert!(found.unwrap_err().starts_with("/config/domain: not a part"), "{domain}"),
        }
    };
    check("shop-7.my.acme.test", true);
    check("a.b.acme-cloud.test", true);
    for domain in [
        "evil.test",
        "my.acme.test",
        "x.my.acme.test.evil.test",
        "evil.test/.my.acme.test",
        "evil.test#.my.acme.test",
        "user@x.my.acme.test",
        "x.my.acme.test:8443",
        "x..my.acme.test",
        "-.my.acme.test",
        "",
    ] {
        check(domain, false);
    }
    let problems = connector.check_config(&json!({ "domain": "evil.test" }));
    assert_eq!(
        problems[0].to_string(),
        "/domain: `domain` must be a host under .my.acme.test or .acme-cloud.test"
    );
    assert_eq!(connector.config_schema()["properties"]["domain"]["format"], "hostname");
}

#[test]
fn settings_match_their_pattern_as_a_whole() {
    let config = "{ tenant: { type: string, pattern: \"[a-z]{3}-[0-9]+\", required: true } }";
    let connector = connector("[\"https://{{ config.tenant }}.acme.test\"]", config, GET);
    assert_eq!(connector.check_config(&json!({ "tenant": "abc-12" })), []);
    for tenant in ["abc-", "xabc-1", "abc-1x", "ABC-1"] {
        let problems = connector.check_config(&json!({ "tenant": tenant }));
        assert_eq!(
            problems[0].to_string(),
            "/tenant: `tenant` does not match ^(?:[a-z]{3}-[0-9]+)$"
        );
    }
    assert_eq!(
        connector.config_schema()["properties"]["tenant"]["pattern"],
        "^(?:[a-z]{3}-[0-9]+)$"
    );
}

#[test]
fn an_operation_may_live_on_another_host() {
    let hosts = "{ api: \"https://api.acme.test/v1\", files: \"https://files-{{ config.region }}.acme.test\" }";
    let config = "{ region: { enum: [eu, us], default: eu } }";
    let files = connector(hosts, config, "{ get: /a, host: files }");
    assert_eq!(url(&files, &Value::Null).unwrap(), "https://files-eu.acme.test/a");
    assert_eq!(
        url(&files, &json!({ "region": "us" })).unwrap(),
        "https://files-us.acme.test/a"
    );
    // The first is replaced by `base_url`, the others by their names.
    let settings = json!({ "base_url": "http://127.0.0.1:1", "base_urls": { "files": "http://127.0.0.1:2/f/" } });
    assert_eq!(files.check_config(&settings), []);
    assert_eq!(url(&files, &settings).unwrap(), "http://127.0.0.1:2/f/a");
    let base_urls = |config| -> Vec<String> { files.base_urls(config).iter().map(Url::to_string).collect() };
    assert_eq!(base_urls(&settings), ["http://127.0.0.1:1/", "http://127.0.0.1:2/f"]);
    assert_eq!(
        base_urls(&Value::Null),
        ["https://api.acme.test/v1", "https://files-eu.acme.test/"]
    );
    let api = connector(hosts, config, GET);
    assert_eq!(url(&api, &settings).unwrap(), "http://127.0.0.1:1/a");
    let problems = files.check_config(&json!({ "base_urls": { "file": "http://a.test" } }));
    assert_eq!(problems[0].pointer, "/base_urls/file");
}

#[test]
fn words_of_hosts_are_checked() {
    let check = |hosts: &str, config: &str, operation: &str, wanted: &str| {
        let found = parse(hosts, config, operation).err().unwrap_or_default();
        assert_eq!(found, [wanted], "{hosts} {config} {operation}");
    };
    let one = "[\"https://h.test\"]";
    let named = "{ api: \"https://h.test\", files: \"https://f.test\" }";
    check(
        named,
        "{}",
        "{ get: /a, host: file }",
        "/operations/x/host: there is no host named `file` (did you mean `files`?)",
    );
    check(
        one,
        "{}",
        "{ get: /a, host: files }",
        "/operations/x/host: there is no host named `files` (name them: `hosts: { api: https://…, files: https://… }`)",
    );
    check(
        "{ \"a b\": \"https://h.test\" }",
        "{}",
        GET,
        "/hosts/a b: `a b` is not a name: lower-case letters, digits and `_`",
    );
    check(
        "{ api: \"http://h.test\" }",
        "{}",
        GET,
        "/hosts/api: a host is an https URL without user, query and fragment",
    );
    check(
        "[]",
        "{}",
        GET,
        "/hosts: `hosts` is a list of URLs, a mapping of names to URLs, or `any`",
    );
    check(
        "[\"https://{{ config.d }}\"]",
        "{ d: { format: host } }",
        GET,
        "/hosts/0: a setting that is a whole host could lead anywhere (say under which domains it is: `under: [.example.com]`)",
    );
    check(
        "[\"https://{{ config.d }}.evil.test\"]",
        "{ d: { format: host, under: [.a.test] } }",
        GET,
        "/hosts/0: a setting with `format: host` is the whole host: `https://{{ config.… }}/path`",
    );
    check(
        one,
        "{ d: { format: host, under: [.com] } }",
        GET,
        "/config/d/under: `.com` is not a domain with a leading dot (such as `.example.com`)",
    );
    check(
        one,
        "{ d: { under: [.a.test] } }",
        GET,
        "/config/d/under: `under` belongs to `format: host`",
    );
    for pattern in ["(", "a)|(b"] {
        let found = parse(one, &format!("{{ d: {{ pattern: \"{pattern}\" }} }}"), GET).unwrap_err();
        let wanted = format!("/config/d/pattern: `{pattern}` is not a regular expression: ");
        assert!(found[0].starts_with(&wanted), "{found:?}");
    }
}
