//! Manifests say where they are wrong: pointer, line, code and suggestion, all of them in one pass.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests load the files beside a manifest, as a host does"
)]

mod polls;
mod register;

use url::Url;
use weir_connector_sdk::{Connector, Hydrate, Problem, Verifier, Window, parse_yaml};

fn no_files(_: &str) -> Option<String> {
    None
}

fn problems(yaml: &str) -> Vec<Problem> {
    Connector::parse(yaml, &no_files).err().unwrap_or_default()
}

/// Where problems are, and of which kind.
fn places(problems: &[Problem]) -> Vec<(&str, &str)> {
    let places = problems.iter();
    places.map(|problem| (problem.pointer.as_str(), problem.code)).collect()
}

const VALID: &str = "\
connector: acme
version: 1.0.0
hosts: [\"https://{{ config.region }}.acme.test\"]
config: { region: { enum: [eu, us], default: eu } }
auth: { bearer: {}, test: { call: me.get, account: /id } }
budget: { window: 100/60s }
operations:
  me.get: { get: /me }
  items.get: { get: \"/items/{{ id }}\" }
  items.list: { get: /items, items: /data, page: { cursor: { next: /next, into: query.after } } }
  items.create: { post: /items, body: json, effect: { keyed: { header: Idempotency-Key, window: 24h } } }
webhook:
  verify: { token: { at: header:X-Token } }
  identify: { id: /id, type: /type }
  recover: { level: A, call: items.list, reach: 30d }
events:
  item.made:
    hydrate_default: always
    reads:
      item: { call: items.get, with: { id: \"{{ ref.id }}\" } }
";

/// Replaces one text of a small valid manifest and expects exactly one problem.
#[track_caller]
fn check(from: &str, to: &str, pointer: &str, code: &str) {
    assert_eq!(problems(VALID), []);
    assert!(VALID.contains(from), "the manifest has no `{from}`");
    let yaml = VALID.replacen(from, to, 1);
    let found = problems(&yaml);
    assert_eq!(found.len(), 1, "{found:#?}");
    let problem = found.into_iter().next().unwrap();
    assert_eq!((problem.pointer.as_str(), problem.code), (pointer, code), "{problem}");
    assert!(problem.line.is_some());
}

#[test]
fn misspelt_words_get_a_suggestion_and_a_line() {
    let check = |from: &str, to: &str, line: usize, suggestion: &str| {
        let found = problems(&VALID.replacen(from, to, 1));
        assert_eq!(
            (found[0].line, found[0].suggestion.as_deref()),
            (Some(line), Some(suggestion)),
            "{found:#?}"
        );
    };
    check("hosts:", "host:", 3, "did you mean `hosts`?");
    check("call: me.get", "call: me.got", 5, "did you mean `me.get`?");
    check("config.region", "config.regoin", 3, "did you mean `config.region`?");
    check("page: {", "pages: {", 10, "did you mean `page`?");
    check(
        "get: \"/items/{{ id }}\"",
        "get: \"/items/{{ id }}\", input: { idd: required }",
        9,
        "did you mean `idd`?",
    );
}

#[test]
fn each_part_is_checked() {
    check("version: 1.0.0", "version: one", "/version", "bad_value");
    check("connector: acme", "connector: Acme Inc", "/connector", "bad_name");
    check("https://{{", "http://{{", "/hosts/0", "bad_value");
    check("config.region }}", "config.regoin }}", "/hosts/0", "unknown_name");
    check("default: eu", "default: asia", "/config/region/default", "bad_value");
    check("call: me.get", "call: me.got", "/auth/test/call", "unknown_operation");
    check("bearer: {},", "", "/auth", "missing_key");
    check("100/60s", "often", "/budget/window", "bad_value");
    check(
        "post: /items",
        "post: items",
        "/operations/items.create/post",
        "bad_value",
    );
    check(
        ", effect: { keyed: { header: Idempotency-Key, window: 24h } }",
        "",
        "/operations/items.create",
        "missing_key",
    );
    check(
        "window: 24h",
        "window: soon",
        "/operations/items.create/effect/keyed/window",
        "bad_value",
    );
    check("items: /data, ", "", "/operations/items.list", "missing_key");
    check(
        "into: query.after",
        "into: after",
        "/operations/items.list/page/cursor/into",
        "bad_value",
    );
    check("{{ id }}", "{{ id + }}", "/operations/items.get/get", "bad_expression");
    check(
        "token: { at: header:X-Token }",
        "mtls: {}",
        "/webhook/verify/mtls",
        "not_supported",
    );
    check(
        "identify: { id: /id, type: /type }",
        "identify: { id: /id }",
        "/webhook/identify",
        "missing_key",
    );
    check("call: items.list, reach", "reach", "/webhook/recover", "bad_value");
    check(
        "call: items.get, with: { id: \"{{ ref.id }}\" }",
        "call: items.get",
        "/events/item.made/reads/item/call",
        "missing_argument",
    );
    check(
        "with: { id:",
        "with: { id: x, ident:",
        "/events/item.made/reads/item/call",
        "unknown_argument",
    );
    check(
        "hydrate_default: always",
        "sample: sample.json\n    hydrate_default: always",
        "/events/item.made/sample",
        "missing_file",
    );
    check(
        "\"{{ ref.id }}\" }",
        "\"{{ ref.id }}\" }, all: { max: 5 }",
        "/events/item.made/reads/item/call",
        "bad_value",
    );
}

#[test]
fn weak_verification_is_refused() {
    let check = |scheme: &str, message: &str| {
        let scheme = parse_yaml(scheme).unwrap().remove(0).value;
        let problems = Verifier::compile(&scheme, "").unwrap_err();
        assert!(problems[0].message.contains(message), "{problems:?}");
    };
    check("ip: [10.0.0.0/8]", "never the only check");
    check(
        "any_of: [{ ip: [10.0.0.0/8] }, { basic: {} }]",
        "cannot be an alternative",
    );
    check(
        "all_of: [{ ip: [10.0.0.0/8] }]",
        "at least one check that proves the sender",
    );
    check(
        "hmac: { alg: sha256, sig: header:S, encoding: hex, parts: [body], timestamp: { from: header:T, unit: s, max_age_s: 5 } }",
        "proves nothing",
    );
    check(
        "hmac: { alg: sha256, sig: header:S, encoding: hex, parts: [\"lit:x\"] }",
        "covers nothing",
    );
    check(
        "digest: { alg: sha256, sig: header:S, encoding: hex, parts: [body] }",
        "can be made by anybody",
    );
    check(
        "hmac: { alg: md5, sig: header:S, encoding: hex, parts: [body] }",
        "`md5` is not known",
    );
    check(
        "hmac: { alg: sha256, sig: header:S, encoding: hex, parts: [\"sig:t\", body] }",
        "needs a `format`",
    );
    check("{}", "exactly one of");
}

#[test]
fn the_example_manifest_is_what_it_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/manifests");
    let load = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).ok();
    let connector = Connector::parse(&load("acme-pay.yaml").unwrap(), &load).unwrap();
    assert_eq!(
        (connector.name(), connector.version(), connector.title()),
        ("acme-pay", "1.2.0", "Acme Pay")
    );
    let config = serde_json::json!({ "region": "us" });
    let base_urls = |config| -> Vec<String> { connector.base_urls(&config).iter().map(Url::to_string).collect() };
    assert_eq!(base_urls(config), ["https://us.api.acme-pay.test/"]);
    assert_eq!(
        base_urls(serde_json::json!({ "base_url": "http://127.0.0.1:9" })),
        ["http://127.0.0.1:9/"]
    );
    assert!(!connector.calls_any_host());
    let budget = connector.budget().unwrap();
    assert_eq!(
        (budget.windows.as_slice(), budget.learn[0].name()),
        (
            [Window {
                requests: 100,
                window_s: 60
            }]
            .as_slice(),
            "ratelimit"
        )
    );
    let charge = connector.operation("charges.create").unwrap();
    assert_eq!(
        (charge.required_args(), charge.known_args()),
        (vec!["amount", "currency"], None)
    );
    assert_eq!(
        connector.operation("charges.get").unwrap().output_schema().unwrap()["required"][0],
        "id"
    );
    let event = connector.event_type("charge.succeeded").unwrap();
    assert_eq!(
        (
            event.hydrate_default,
            event.reads["history"].all_max,
            event.sample.as_ref().unwrap()["id"].as_str()
        ),
        (Hydrate::Missing, Some(300), Some("evt_1"))
    );
    assert_eq!(
        connector.event_type("anything.else").unwrap().hydrate_default,
        Hydrate::Never
    );
    assert_eq!(connector.header_allow(), ["acme-delivery"]);
    let args = connector
        .webhook()
        .unwrap()
        .recover()
        .unwrap()
        .args(1_767_225_600_500, None, None)
        .unwrap();
    assert_eq!(args, serde_json::json!({ "created": { "gte": 1_767_225_600 } }));
}

#[test]
fn settings_are_checked_and_cannot_name_another_host() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/manifests");
    let load = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).ok();
    let connector = Connector::parse(&load("acme-pay.yaml").unwrap(), &load).unwrap();
    let check = |config: serde_json::Value, pointer: &str, code: &str| {
        let found = connector.check_config(&config);
        assert_eq!(places(&found), [(pointer, code)], "{config}");
    };
    assert_eq!(connector.check_config(&serde_json::json!({})), []);
    check(serde_json::json!({ "regin": "eu" }), "/regin", "unknown_key");
    check(serde_json::json!({ "region": "asia" }), "/region", "bad_value");
    check(serde_json::json!({ "base_url": "ftp://x" }), "/base_url", "bad_value");
    check(
        serde_json::json!({ "base_url": "https://user:secret@x.test" }),
        "/base_url",
        "bad_value",
    );
    // Even without the check, a setting stays inside its part of the host name.
    let error = connector
        .base_url(&serde_json::json!({ "region": "evil.test/" }))
        .unwrap_err();
    assert_eq!(error.pointer, "/config/region");
}

#[test]
fn words_of_recover_are_checked() {
    let from = "call: items.list, reach: 30d";
    for (to, pointer, code) in [
        ("call: items.list, every: 1s", "/webhook/recover/every", "out_of_bounds"),
        ("call: items.list, cursor: token", "/webhook/recover", "bad_value"),
        ("call: items.list, cursor: delta", "/webhook/recover", "bad_value"),
        ("call: items.list, cursor: journal", "/webhook/recover", "bad_value"),
        (
            "call: items.list, cursor: id, next: /next",
            "/webhook/recover",
            "bad_value",
        ),
        ("call: items.list, more: more", "/webhook/recover/more", "bad_pointer"),
        (
            "call: items.list, expired: [500]",
            "/webhook/recover/expired",
            "bad_value",
        ),
        (
            "call: items.list, cursor: offset, order: newest_first",
            "/webhook/recover/order",
            "bad_value",
        ),
    ] {
        check(from, to, pointer, code);
    }
}

#[test]
fn webhooks_and_listed_items_need_the_same_key() {
    // VALID has `id: /id`, which stands in both.
    for id in ["header:X-Delivery", "lit:event", "{{ headers['x-delivery'] }}"] {
        check("id: /id", &format!("id: \"{id}\""), "/webhook/recover", "no_key");
    }
    for id in [
        "{{ body.id }}",
        "[\"lit:x\", /id]",
        "{ first: [header:X-Delivery, /id] }",
    ] {
        let id = if id.starts_with("{{") {
            format!("\"{id}\"")
        } else {
            id.to_owned()
        };
        let yaml = VALID.replacen("id: /id", &format!("id: {id}"), 1);
        assert_ne!(yaml, VALID);
        let problems = Connector::parse(&yaml, &|_| None).err().unwrap_or_default();
        assert!(problems.iter().all(|problem| problem.code != "no_key"), "{problems:#?}");
    }
    check(
        "call: items.list, reach: 30d",
        "call: items.list, identify: { type: \"lit:item.made\", time: /changed }",
        "/webhook/recover",
        "no_key",
    );
}

#[test]
fn an_item_of_the_list_may_be_identified_in_its_own_way() {
    let yaml = VALID.replacen(
        "call: items.list, reach: 30d",
        "call: items.list, cursor: journal, position: /offset, more: /more, \
         identify: { id: [/key, /changed], type: \"lit:item.made\", time: /changed }",
        1,
    );
    let connector = Connector::parse(&yaml, &|_| None).unwrap();
    let webhook = connector.webhook().unwrap();
    let recover = webhook.recover().unwrap();
    let item = serde_json::json!({ "key": "k1", "changed": 1_767_225_600, "offset": 7 });
    let found = webhook.identify_unit(&item).unwrap();
    assert_eq!((found.id.as_str(), found.kind.as_str()), ("k1.1767225600", "item.made"));
    assert!(!webhook.lists_events());
    assert_eq!(recover.position(&item), Some(7));
    assert_eq!(recover.says_more(&serde_json::json!({ "more": true })), Some(true));
    assert_eq!(recover.says_more(&serde_json::json!({})), Some(false));
}

#[test]
fn words_of_failures_are_checked() {
    let from = "call: items.list, reach: 30d";
    let place = "/webhook/recover/failures";
    for (words, pointer, code) in [
        ("{ with: {} }", "", "missing_key"),
        ("{ call: items.gone }", "/call", "unknown_operation"),
        ("{ call: items.list, every: 1s }", "/every", "out_of_bounds"),
        ("{ call: items.list, time: at }", "/time", "bad_pointer"),
        ("{ call: items.list, when: { at: /status } }", "/when", "bad_value"),
        (
            "{ call: items.list, when: { at: /status, is: [a], not: [b] } }",
            "/when",
            "bad_value",
        ),
        (
            "{ call: items.list, when: { at: /status, is: failed } }",
            "/when/is",
            "bad_type",
        ),
        (
            "{ call: items.list, when: { at: status, not: [OK] } }",
            "/when/at",
            "bad_pointer",
        ),
    ] {
        check(
            from,
            &format!("call: items.list, failures: {words}"),
            &format!("{place}{pointer}"),
            code,
        );
    }
    let nothing_to_sweep = "level: C, failures: { call: items.list }";
    check(
        "level: A, call: items.list, reach: 30d",
        nothing_to_sweep,
        place,
        "bad_value",
    );
}

#[test]
fn a_failed_delivery_is_told_by_its_value_and_its_time() {
    let tells = |words: &str, item: serde_json::Value| {
        let to = format!("call: items.list, failures: {{ call: items.list, {words} }}");
        let yaml = VALID.replacen("call: items.list, reach: 30d", &to, 1);
        let connector = Connector::parse(&yaml, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let recover = connector.webhook().unwrap().recover().unwrap();
        recover
            .failures
            .as_ref()
            .unwrap()
            .tells(&item, (1_700_000_000_000, 1_700_000_100_000))
    };
    assert!(tells("every: 1m", serde_json::json!({})));
    let not = "when: { at: /status, not: [OK, 202] }";
    assert!(!tells(not, serde_json::json!({ "status": "OK" })));
    assert!(!tells(not, serde_json::json!({ "status": 202 })));
    assert!(tells(not, serde_json::json!({ "status": "timed out" })));
    assert!(tells(not, serde_json::json!({})));
    let is = "when: { at: /status, is: [failed] }, time: /at";
    assert!(tells(
        is,
        serde_json::json!({ "status": "failed", "at": 1_700_000_050 })
    ));
    assert!(!tells(is, serde_json::json!({ "status": "sent", "at": 1_700_000_050 })));
    assert!(!tells(
        is,
        serde_json::json!({ "status": "failed", "at": 1_699_999_999 })
    ));
    assert!(
        !tells(
            is,
            serde_json::json!({ "status": "failed", "at": "2023-11-14T22:15:01Z" })
        ),
        "it may be on its way"
    );
    assert!(tells(is, serde_json::json!({ "status": "failed", "at": "later" })));
}

#[test]
fn a_sequence_is_a_number_in_the_event() {
    let yaml = VALID.replacen("  recover:", "  sequence: /seq\n  recover:", 1);
    let connector = Connector::parse(&yaml, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let webhook = connector.webhook().unwrap();
    let sequence = |item: serde_json::Value| webhook.identify_unit(&item).unwrap().sequence;
    let item = |seq: serde_json::Value| serde_json::json!({ "id": "a", "type": "t", "seq": seq });
    assert_eq!(sequence(item(7.into())), Some(7));
    assert_eq!(sequence(item("8".into())), Some(8));
    assert_eq!(sequence(item("x".into())), None);
    assert_eq!(sequence(item(serde_json::Value::Null)), None);
}
