//! Budgets as manifests and connections state them, and what answers tell about them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use serde_json::{Value, json};
use weir_connector_sdk::{Budget, Connector, HttpResponse, Told, own_budget};

fn manifest(budget: &str) -> String {
    format!(
        "connector: acme\nversion: 1.0.0\nhosts: [\"https://api.acme.test\"]\nauth: {{ bearer: {{}} }}\nbudget: {budget}\n\
         operations:\n  me.get: {{ get: /me, cost: 3 }}\n"
    )
}

fn read(budget: &str) -> Result<Budget, Vec<String>> {
    let connector = Connector::parse(&manifest(budget), &|_| None);
    match connector {
        Ok(connector) => Ok(connector.budget().unwrap().clone()),
        Err(problems) => Err(problems
            .iter()
            .map(|problem| format!("{} {}", problem.pointer, problem.code))
            .collect()),
    }
}

fn told(learn: &str, headers: &[(&str, &str)], body: &Value) -> Vec<Told> {
    let budget = read(&format!("{{ learn: {learn} }}")).unwrap();
    let response = HttpResponse {
        status: 200,
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        body: Vec::new(),
    };
    let all = budget.learn.iter();
    all.flat_map(|learn| learn.read(&response, Some(body), 1_700_000_000_000))
        .collect()
}

#[test]
fn budgets_are_read_and_what_is_wrong_is_said() {
    let budget = read(
        "{ window: [100/10s, 5000/1h], bucket: { size: 40, refill: 2/1s }, concurrency: 7, reserve: 30%, learn: [hubspot, hubspot_daily], \
         daily: { requests: 500, resets: \"00:00\", timezone: America/Los_Angeles } }",
    )
    .unwrap();
    let windows: Vec<(u64, u64)> = budget
        .windows
        .iter()
        .map(|window| (window.requests, window.window_s))
        .collect();
    assert_eq!(windows, [(100, 10), (5000, 3600)]);
    assert_eq!(budget.bucket.unwrap().refill_per_s, 2.0);
    assert_eq!((budget.concurrency, budget.reserve_percent), (Some(7), Some(30)));
    // 2023-11-14T22:13:20Z: the next midnight in Los Angeles is 08:00 UTC.
    assert_eq!(
        budget.daily.unwrap().next_reset_ms(1_700_000_000_000),
        1_700_035_200_000
    );
    assert_eq!(read("{ daily: 500 }").unwrap().windows[0].window_s, 86_400);
    let check = |budget: &str, problem: &str| {
        assert_eq!(read(budget).unwrap_err(), [problem], "{budget}");
    };
    check("{ window: often }", "/budget/window bad_value");
    check("{ window: [1/1s, 1/1m, 1/1h, 1/1d, 1/2d] }", "/budget/window bad_value");
    check("{ window: [1/1s, 0/1s] }", "/budget/window/1 bad_value");
    check("{ bucket: { size: 0, refill: 1/1s } }", "/budget/bucket/size bad_value");
    check(
        "{ bucket: { size: 1, refill: slow } }",
        "/budget/bucket/refill bad_value",
    );
    check("{ concurrency: 0 }", "/budget/concurrency bad_value");
    check("{ reserve: 100% }", "/budget/reserve bad_value");
    check(
        "{ daily: { requests: 1, resets: noon } }",
        "/budget/daily/resets bad_value",
    );
    check(
        "{ daily: { requests: 1, resets: \"08:00\", timezone: Mars } }",
        "/budget/daily/timezone bad_value",
    );
    check("{ learn: x_ratelimits }", "/budget/learn bad_value");
    check("{ learn: { limit: header:X-Limit } }", "/budget/learn missing_key");
    check(
        "{ learn: { remaining: header } }",
        "/budget/learn/remaining bad_pointer",
    );
    check("{ windows: 1/1s }", "/budget/windows unknown_key");
    let operation = Connector::parse(&manifest("{}"), &|_| None).unwrap();
    assert_eq!(operation.operation("me.get").unwrap().cost(), 3);
    assert!(own_budget(&json!({ "window": "20/1s" })).is_ok());
    let refused = own_budget(&json!({ "learn": "ratelimit" })).unwrap_err();
    assert_eq!(refused[0].pointer, "/learn");
}

#[test]
fn every_family_tells_what_is_left() {
    // Name, limit, remaining, milliseconds to the reset, window, what comes back in a second.
    type Figures = (
        &'static str,
        Option<f64>,
        Option<f64>,
        Option<u64>,
        Option<f64>,
        Option<f64>,
    );
    let check = |learn: &str, headers: &[(&str, &str)], expected: Figures| {
        let found = told(learn, headers, &json!({}));
        let [told] = found.as_slice() else {
            panic!("{learn} {headers:?}: {found:?}")
        };
        let figures = (
            told.name.as_str(),
            told.limit,
            told.remaining,
            told.resets_in_ms,
            told.window_s,
            told.restore_per_s,
        );
        assert_eq!(figures, expected, "{learn} {headers:?}");
    };
    let old = [
        ("RateLimit-Limit", "100, 100;w=60"),
        ("RateLimit-Remaining", "9"),
        ("RateLimit-Reset", "30"),
    ];
    check(
        "ratelimit",
        &old,
        ("ratelimit", Some(100.0), Some(9.0), Some(30_000), Some(60.0), None),
    );
    let members = [("RateLimit", "limit=100, remaining=50, reset=5")];
    check(
        "ratelimit",
        &members,
        ("ratelimit", Some(100.0), Some(50.0), Some(5_000), None, None),
    );
    let structured = [
        ("RateLimit", "\"default\";r=50;t=30"),
        ("RateLimit-Policy", "\"burst\";q=9;w=1, \"default\";q=100;w=60"),
    ];
    check(
        "ratelimit",
        &structured,
        ("default", Some(100.0), Some(50.0), Some(30_000), Some(60.0), None),
    );
    // Seconds to go, a moment in seconds, a moment in milliseconds: the bounds tell them apart.
    for reset in ["45", "1700000045", "1700000045000"] {
        let github = [
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", "4999"),
            ("x-ratelimit-reset", reset),
        ];
        let expected = ("x_ratelimit", Some(5000.0), Some(4999.0), Some(45_000), None, None);
        check("x_ratelimit", &github, expected);
    }
    // A moment counts by the provider's own clock.
    let late = [
        ("X-Rate-Limit-Remaining", "0"),
        ("X-Rate-Limit-Reset", "1700000100"),
        ("Date", "Tue, 14 Nov 2023 22:14:50 GMT"),
    ];
    check(
        "x_rate_limit",
        &late,
        ("x_rate_limit", None, Some(0.0), Some(10_000), None, None),
    );
    let hubspot = [
        ("X-HubSpot-RateLimit-Max", "100"),
        ("X-HubSpot-RateLimit-Remaining", "99"),
        ("X-HubSpot-RateLimit-Interval-Milliseconds", "10000"),
    ];
    check(
        "hubspot",
        &hubspot,
        ("hubspot", Some(100.0), Some(99.0), None, Some(10.0), None),
    );
    let shopify = [("X-Shopify-Shop-Api-Call-Limit", "32/40")];
    check(
        "shopify",
        &shopify,
        ("shopify", Some(40.0), Some(8.0), None, None, Some(2.0)),
    );
    let salesforce = [("Sforce-Limit-Info", "api-usage=18/5000")];
    check(
        "salesforce",
        &salesforce,
        ("salesforce", Some(5000.0), Some(4982.0), None, None, None),
    );
    let own = [("Left", "3"), ("Again", "Tue, 14 Nov 2023 22:13:30 GMT")];
    let rule = "{ name: own, remaining: header:Left, reset: { from: header:Again, unit: http_date } }";
    check(rule, &own, ("own", None, Some(3.0), Some(10_000), None, None));
}

#[test]
fn bodies_tell_cost_and_what_comes_back() {
    let body = json!({ "extensions": { "cost": { "requestedQueryCost": 101, "throttleStatus":
        { "maximumAvailable": 2000.0, "currentlyAvailable": 1899, "restoreRate": 100.0 } } } });
    let found = told("shopify_graphql", &[], &body);
    let told = &found[0];
    assert_eq!((told.limit, told.remaining), (Some(2000.0), Some(1899.0)));
    assert_eq!((told.restore_per_s, told.cost), (Some(100.0), Some(101.0)));
}

#[test]
fn what_says_nothing_teaches_nothing() {
    let all =
        "[ratelimit, x_ratelimit, x_rate_limit, hubspot, hubspot_daily, shopify, shopify_graphql, salesforce, aircall]";
    let strange = [
        ("RateLimit", "\"a\";t=x, ;;, r=1"),
        ("RateLimit-Remaining", "many"),
        ("X-RateLimit-Remaining", ""),
        ("X-Shopify-Shop-Api-Call-Limit", "1"),
        ("Sforce-Limit-Info", "api-usage=/"),
    ];
    assert_eq!(told(all, &strange, &json!({})), []);
    assert_eq!(told(all, &[], &json!([])), []);
}
