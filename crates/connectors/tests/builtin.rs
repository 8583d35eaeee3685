//! Every built-in manifest parses, and says what the design promises about it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise, helpers included"
)]

use serde_json::{Value, json};
use weir_connector_sdk::{CallContext, Connector, Effect, Hydrate, KeyCarrier, Level, Operation};
use weir_connectors::{Builtin, builtin, find};

fn parse(builtin: &Builtin) -> Result<Connector, String> {
    Connector::parse(builtin.yaml, &|path| builtin.file(path).map(str::to_owned)).map_err(|problems| {
        let listed: Vec<String> = problems.iter().map(ToString::to_string).collect();
        format!("{}:\n{}", builtin.name, listed.join("\n"))
    })
}

fn connector(name: &str) -> Connector {
    parse(find(name).expect("a built-in connector")).unwrap()
}

fn operation<'c>(connector: &'c Connector, name: &str) -> &'c Operation {
    connector
        .operation(name)
        .unwrap_or_else(|| panic!("{} has no {name}", connector.name()))
}

fn effect(connector: &Connector, name: &str, args: &Value) -> Effect {
    operation(connector, name).effect(&json!({}), args)
}

#[test]
fn every_manifest_parses_under_its_own_name() {
    let failures: Vec<String> = builtin().iter().filter_map(|builtin| parse(builtin).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    for builtin in builtin() {
        assert_eq!(connector(builtin.name).name(), builtin.name);
    }
    assert!(builtin().is_sorted_by_key(|builtin| builtin.name));
}

#[test]
fn every_post_of_stripe_is_keyed_for_a_day() {
    let stripe = connector("stripe");
    let header = Effect::Keyed {
        carrier: KeyCarrier::Header("Idempotency-Key".to_owned()),
        window_s: 86_400,
    };
    for operation in stripe.operations() {
        let effect = operation.effect(&json!({}), &json!({}));
        let takes_no_key = [
            "customers.delete",
            "subscriptions.cancel",
            "webhook_endpoints.delete",
            "related_object.get",
        ];
        if takes_no_key.contains(&operation.name()) {
            assert_ne!(effect, header, "{}", operation.name());
        } else if operation.is_safe_method() {
            assert_eq!(effect, Effect::Read, "{}", operation.name());
        } else {
            assert_eq!(effect, header, "{}", operation.name());
        }
    }
    let recover = stripe.webhook().unwrap().recover().unwrap();
    assert_eq!(
        (recover.level, recover.call.as_deref(), recover.reach_s),
        (Level::EventLog, Some("events.list"), 30 * 86_400)
    );
    let args = recover.args(1_767_225_600_000, None, None).unwrap();
    let request = operation(&stripe, "events.list")
        .request(&CallContext {
            config: &json!({}),
            args: &args,
            idempotency_key: None,
            page: None,
        })
        .unwrap();
    assert_eq!(
        request.url,
        "https://api.stripe.com/v1/events?limit=100&created[gte]=1767225600"
    );
    // A range has an end, which takes in the second it lies in.
    let args = recover.args(1_767_225_600_000, Some(1_767_312_000_500), None).unwrap();
    assert_eq!(args["created"], json!({ "gte": 1_767_225_600, "lte": 1_767_312_001 }));
}

#[test]
fn stripe_bodies_are_bracket_forms_and_settings_become_headers() {
    let stripe = connector("stripe");
    let config = json!({ "base_url": "http://127.0.0.1:9900", "account": "acct_1" });
    let args = json!({ "customer": "cus_1", "collection_method": "send_invoice", "days_until_due": 14, "metadata": { "deal_id": "42" } });
    let request = operation(&stripe, "invoices.create")
        .request(&CallContext {
            config: &config,
            args: &args,
            idempotency_key: Some("weir_k"),
            page: None,
        })
        .unwrap();
    assert_eq!(
        (request.method.as_str(), request.url.as_str()),
        ("POST", "http://127.0.0.1:9900/v1/invoices")
    );
    assert_eq!(
        String::from_utf8(request.body.clone().unwrap()).unwrap(),
        "customer=cus_1&collection_method=send_invoice&days_until_due=14&metadata[deal_id]=42"
    );
    assert_eq!(
        request.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(request.header("idempotency-key"), Some("weir_k"));
    assert_eq!(
        (request.header("stripe-account"), request.header("stripe-version")),
        (Some("acct_1"), None)
    );
}

#[test]
fn hubspot_creates_look_first_and_updates_repeat() {
    let hubspot = connector("hubspot");
    let by_email = effect(
        &hubspot,
        "contacts.create",
        &json!({ "properties": { "email": "a@example.test" } }),
    );
    let Effect::FindBy {
        operation,
        with,
        found,
        consistent,
        settle_s,
    } = by_email
    else {
        panic!("{by_email:?}")
    };
    assert_eq!(
        (operation.as_str(), found.as_str(), consistent, settle_s),
        ("contacts.search", "/results/0", false, 30)
    );
    assert_eq!(with, json!({ "email": "a@example.test" }));
    let deal = json!({ "properties": { "dealname": "Order 1", "order_number": "1" } });
    assert_eq!(effect(&hubspot, "deals.create", &deal), Effect::Blind);
    let mut unique = deal;
    unique["unique_by"] = json!("order_number");
    let found = effect(&hubspot, "deals.create", &unique);
    let Effect::FindBy { with, .. } = found else {
        panic!("{found:?}")
    };
    assert_eq!(with["filter_groups"][0]["filters"][0]["value"], "1");
    for name in ["contacts.update", "companies.update", "deals.update"] {
        assert_eq!(
            effect(&hubspot, name, &json!({ "id": "1", "properties": {} })),
            Effect::Repeatable,
            "{name}"
        );
    }
    for (name, event_type) in hubspot.events().filter(|(name, _)| *name != "*") {
        assert_eq!(event_type.hydrate_default, Hydrate::Always, "{name}");
    }
}

#[test]
fn hubspot_search_takes_an_email_or_filters() {
    let hubspot = connector("hubspot");
    let body = |args: Value| -> Value {
        let request = operation(&hubspot, "contacts.search")
            .request(&CallContext {
                config: &json!({}),
                args: &args,
                idempotency_key: None,
                page: None,
            })
            .unwrap();
        serde_json::from_slice(&request.body.unwrap()).unwrap()
    };
    let by_email = body(json!({ "email": "a@example.test" }));
    assert_eq!(
        by_email["filterGroups"],
        json!([{ "filters": [{ "propertyName": "email", "operator": "EQ", "value": "a@example.test" }] }])
    );
    let groups = json!([{ "filters": [{ "propertyName": "phone", "operator": "HAS_PROPERTY" }] }]);
    let by_filter = body(json!({ "filter_groups": groups, "limit": 3 }));
    assert_eq!((&by_filter["filterGroups"], &by_filter["limit"]), (&groups, &json!(3)));
    assert!(by_filter.get("query").is_none() && by_filter.get("after").is_none());
}

#[test]
fn http_effects_follow_method_and_settings() {
    let http = connector("http");
    let request = operation(&http, "request");
    let keyed = json!({ "base_url": "https://crm.example.test", "idempotency": { "header": "Idempotency-Key" } });
    let class = |config: &Value, method: &str| request.effect(config, &json!({ "method": method, "path": "/x" }));
    let expected = Effect::Keyed {
        carrier: KeyCarrier::Header("Idempotency-Key".to_owned()),
        window_s: 86_400,
    };
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(class(&keyed, method), expected, "{method}");
    }
    let plain = json!({ "base_url": "https://crm.example.test" });
    let classes = ["GET", "HEAD", "PUT", "DELETE", "POST", "PATCH"].map(|method| class(&plain, method));
    assert_eq!(
        classes,
        [
            Effect::Read,
            Effect::Read,
            Effect::Repeatable,
            Effect::Repeatable,
            Effect::Blind,
            Effect::Blind
        ]
    );
    let schemes: Vec<&str> = http.auth().iter().map(weir_connector_sdk::AuthScheme::as_str).collect();
    assert_eq!(
        schemes,
        ["none", "bearer", "basic", "api_key", "oauth2", "service_account"]
    );
}

#[test]
fn blind_where_a_repeat_would_be_seen_by_people() {
    assert_eq!(
        effect(
            &connector("slack"),
            "chat.post_message",
            &json!({ "channel": "C1", "text": "x" })
        ),
        Effect::Blind
    );
    let issue = json!({ "owner": "acme-test", "repo": "shop", "title": "x" });
    assert_eq!(effect(&connector("github"), "issues.create", &issue), Effect::Blind);
}

/// The manifests in the documentation are manifests.
#[test]
fn documented_manifests_parse() {
    let page = include_str!("../../../docs/connectors.md");
    let blocks = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|block| block.split("```").next());
    let manifests: Vec<&str> = blocks.filter(|block| block.starts_with("connector: ")).collect();
    assert!(manifests.len() >= 4, "{}", manifests.len());
    for manifest in manifests {
        if let Err(problems) = weir_connector_sdk::Connector::parse(manifest, &|_| None) {
            panic!("{manifest}\n{problems:#?}");
        }
    }
}
