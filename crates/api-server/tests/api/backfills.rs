//! Backfills by the API: what one would do, that it begins once, stands still, goes on, is tried again, and ends.

use crate::support::{ENDPOINT_SECRET, TestServer};
use crate::upstream::{Reply, Upstream};
use serde_json::{Value, json};
use std::time::Duration;
use weir_orchestrator::Clock as _;
use weir_orchestrator::clock::SystemClock;
use weir_orchestrator::sweeps::MAX_BACKFILLS_AT_ONCE;
use weir_workflow_engine::Timestamp;

const HOUR: Duration = Duration::from_secs(3600);
const CHECK: &str = "query($name: String!, $since: DateTime, $until: DateTime) { endpoint(name: $name) { id \
    backfillCheck(since: $since, until: $until) { refusal plan { since until bound newestFirst endTold confirm \
    workflows { workflowName event paused } } } } }";
const START: &str = "mutation($input: EndpointBackfillStartInput!) { endpointBackfillStart(input: $input) \
    { backfillId plan { confirm } userErrors { code path message } } }";
const FIELDS: &str = "id status reached percent pages listed recovered duplicates passedOver failures error nextTryAt \
    createdBy finishedAt";

fn documents(url: &str, names: &[String]) -> Vec<Value> {
    let mut all = vec![json!({
        "kind": "Workflow", "name": "seen", "on": { "event": "lists.paid" },
        "steps": [{ "id": "seen", "set": { "id": "{{ event.id }}" } }],
    })];
    for name in names {
        all.push(json!({ "kind": "Connection", "name": name, "connector": "lists", "config": { "base_url": url } }));
        all.push(json!({
            "kind": "Endpoint", "name": name, "connection": name, "secrets": [ENDPOINT_SECRET], "sweep": "never",
        }));
    }
    all
}

fn ago(span: Duration) -> Timestamp {
    let now = SystemClock.now().as_unix_ms();
    Timestamp::from_unix_ms(now - i64::try_from(span.as_millis()).unwrap())
}

fn event(id: &str, at: Timestamp) -> Value {
    json!({ "id": id, "type": "paid", "created": at.as_unix_ms() / 1000 })
}

fn page(events: &[Value], next: Option<&str>) -> Reply {
    let body = json!({ "data": events, "next": next }).to_string();
    Reply::Json(200, Box::leak(body.into_boxed_str()))
}

async fn lists(names: &[&str]) -> (Upstream, TestServer) {
    let upstream = Upstream::start().await;
    let server = TestServer::start().await;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    server.apply(&documents(&upstream.url, &names)).await;
    (upstream, server)
}

async fn check(server: &TestServer, name: &str, since: Timestamp, until: Option<Timestamp>) -> Value {
    let text = |time: Timestamp| time.to_string();
    let variables = json!({ "name": name, "since": text(since), "until": until.map(text) });
    server.query(CHECK, variables).await["endpoint"].clone()
}

/// Begins what was shown.
async fn begin(server: &TestServer, shown: &Value) -> Value {
    let plan = &shown["backfillCheck"]["plan"];
    let input = json!({
        "id": shown["id"], "since": plan["since"], "until": plan["until"], "confirm": plan["confirm"],
    });
    server.query(START, json!({ "input": input })).await["endpointBackfillStart"].clone()
}

async fn begun(server: &TestServer, name: &str) -> String {
    let started = begin(server, &check(server, name, ago(HOUR), None).await).await;
    assert_eq!(started["userErrors"], json!([]), "{started}");
    started["backfillId"].as_str().unwrap().to_owned()
}

/// Waits until the newest backfill of an endpoint is as wanted.
async fn newest(server: &TestServer, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let query = format!("{{ endpoint(name: \"{name}\") {{ backfills {{ {FIELDS} }} }} }}");
    let data = server
        .until(&query, |data| wanted(&data["endpoint"]["backfills"][0]))
        .await;
    data["endpoint"]["backfills"][0].clone()
}

/// Waits until the provider was asked so often.
async fn asked(upstream: &Upstream, times: usize) {
    let waiting = async {
        while upstream.requests().len() < times {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    waited.unwrap_or_else(|_late| panic!("the provider was asked {} times", upstream.requests().len()));
}

async fn ask(server: &TestServer, what: &str, id: &str) -> Value {
    let query = format!(
        "mutation($input: BackfillInput!) {{ endpointBackfill{what}(input: $input) {{ backfillId backfill {{ status }} \
         userErrors {{ code message }} }} }}"
    );
    let data = server.query(&query, json!({ "input": { "id": id } })).await;
    data[format!("endpointBackfill{what}")].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_is_shown_read_page_by_page_and_told() {
    let (upstream, server) = lists(&["pay"]).await;
    let body = event("e2", ago(HOUR / 4)).to_string();
    assert_eq!(
        server.hook("/hooks/main/pay", ENDPOINT_SECRET, body).await.status(),
        200
    );
    let shown = check(&server, "pay", ago(HOUR), None).await;
    let plan = &shown["backfillCheck"]["plan"];
    assert_eq!(
        (
            &plan["bound"],
            &plan["newestFirst"],
            &plan["endTold"],
            &plan["workflows"]
        ),
        (
            &json!("PROVIDER"),
            &json!(true),
            &json!(true),
            &json!([{ "workflowName": "seen", "event": "lists.paid", "paused": false }])
        )
    );
    let outside = event("e0", ago(HOUR * 2));
    let broken = json!({ "id": "e9" });
    upstream.next([
        page(
            &[event("e3", ago(HOUR / 5)), event("e2", ago(HOUR / 4)), broken],
            Some("p2"),
        ),
        page(&[event("e1", ago(HOUR / 2)), outside], None),
    ]);
    let started = begin(&server, &shown).await;
    assert_eq!(started["userErrors"], json!([]), "{started}");
    let over = newest(&server, "pay", |row| row["status"] == "FINISHED").await;
    assert_eq!(
        (
            &over["pages"],
            &over["listed"],
            &over["recovered"],
            &over["duplicates"],
            &over["passedOver"]
        ),
        (&json!(2), &json!(5), &json!(2), &json!(1), &json!(1)),
        "{over:#}"
    );
    assert_eq!((&over["percent"], &over["createdBy"]), (&json!(100), &json!("admin")));
    assert!(over["error"].as_str().unwrap().contains("1 item(s)"), "{over:#}");
    // The provider was told of the range, and of the page to go on with.
    let asked: Vec<String> = upstream.requests().into_iter().map(|(line, _)| line).collect();
    assert!(
        asked
            .iter()
            .all(|line| line.contains("since=") && line.contains("until=")),
        "{asked:?}"
    );
    assert!(asked[1].contains("page=p2"), "{asked:?}");
    let told = server
        .query(
            "{ events(first: 10) { nodes { externalId source } } endpoint(name: \"pay\") { coverage { received recovered lastSweep { cause } } } }",
            json!({}),
        )
        .await;
    let mut sources: Vec<String> = told["events"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            format!(
                "{} {}",
                node["externalId"].as_str().unwrap(),
                node["source"].as_str().unwrap()
            )
        })
        .collect();
    sources.sort();
    assert_eq!(sources, ["e1 BACKFILL", "e2 ENDPOINT", "e3 BACKFILL"]);
    assert_eq!(
        told["endpoint"]["coverage"]["lastSweep"],
        Value::Null,
        "sweeps are not touched"
    );
    let counted = "{ endpoint(name: \"pay\") { coverage { received recovered backfilled duplicates } } }";
    let is_counted = |data: &Value| {
        data["endpoint"]["coverage"] == json!({ "received": 1, "recovered": 0, "backfilled": 2, "duplicates": 1 })
    };
    server.until(counted, is_counted).await;
    let trail = server
        .query("{ audit(first: 5) { nodes { action subject } } }", json!({}))
        .await;
    let noted = trail["audit"]["nodes"].as_array().unwrap();
    assert!(
        noted.contains(&json!({ "action": "backfill.start", "subject": started["backfillId"] })),
        "{trail}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_backfilled_is_refused_with_the_reason() {
    let (_upstream, server) = lists(&["pay"]).await;
    let day = HOUR * 24;
    let refusal = async |since, until| {
        let shown = check(&server, "pay", since, until).await;
        assert_eq!(shown["backfillCheck"]["plan"], Value::Null);
        shown["backfillCheck"]["refusal"].as_str().unwrap().to_owned()
    };
    let reach = refusal(ago(day * 31), None).await;
    assert!(
        reach.contains("the provider lists no older events: choose `since` at"),
        "{reach}"
    );
    // What is possible at the earliest is what is shown when nobody says.
    let earliest = server.query(CHECK, json!({ "name": "pay" })).await["endpoint"].clone();
    let since: String = earliest["backfillCheck"]["plan"]["since"].as_str().unwrap().to_owned();
    assert!(
        since > ago(day * 30).to_string() && since < ago(day * 29).to_string(),
        "{since}"
    );
    let empty = refusal(ago(HOUR), Some(ago(HOUR))).await;
    assert!(empty.contains("the range is empty"), "{empty}");
    // Somebody confirms another range than was shown.
    let shown = check(&server, "pay", ago(HOUR), None).await;
    let plan = &shown["backfillCheck"]["plan"];
    let input = json!({
        "id": shown["id"], "since": ago(HOUR * 2).to_string(), "until": plan["until"], "confirm": plan["confirm"],
    });
    let other = server.query(START, json!({ "input": input })).await["endpointBackfillStart"].clone();
    assert_eq!(
        (&other["backfillId"], &other["userErrors"][0]["code"]),
        (&Value::Null, &json!("PREVIEW_CHANGED")),
        "{other}"
    );
    assert_ne!(other["plan"]["confirm"], plan["confirm"]);
    // Level C lists nothing.
    server.apply(&[crate::support::orders_endpoint()]).await;
    let shown = check(&server, "orders", ago(HOUR), None).await;
    let level = shown["backfillCheck"]["refusal"].as_str().unwrap();
    assert!(level.contains("has level C"), "{level}");
    // Whoever may only look begins nothing.
    let create = "mutation($input: TokenCreateInput!) { tokenCreate(input: $input) { valueOnce } }";
    let reader = json!({ "input": { "name": "reader", "permissions": ["CONFIG_READ", "RUN_READ"] } });
    let token = server.query(create, reader).await["tokenCreate"]["valueOnce"]
        .as_str()
        .unwrap()
        .to_owned();
    let shown = check(&server, "pay", ago(HOUR), None).await;
    let plan = &shown["backfillCheck"]["plan"];
    let input = json!({
        "id": shown["id"], "since": plan["since"], "until": plan["until"], "confirm": plan["confirm"],
    });
    let denied = server.raw_query(&token, START, json!({ "input": input })).await;
    assert_eq!(denied["errors"][0]["extensions"]["code"], "FORBIDDEN", "{denied}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_at_a_time_stands_still_goes_on_and_is_ended_by_people() {
    let (upstream, server) = lists(&["pay", "other"]).await;
    upstream.hold();
    let whole = page(&[event("e1", ago(HOUR / 2))], None);
    upstream.next([whole.clone(), page(&[], None), whole]);
    let id = begun(&server, "pay").await;
    let second = begin(&server, &check(&server, "pay", ago(HOUR), None).await).await;
    assert_eq!(second["userErrors"][0]["code"], "IN_USE", "{second}");
    assert!(
        second["userErrors"][0]["message"].as_str().unwrap().contains(&id),
        "{second}"
    );
    asked(&upstream, 1).await;
    assert_eq!(ask(&server, "Pause", &id).await["backfill"]["status"], "PAUSED");
    assert_eq!(ask(&server, "Pause", &id).await["userErrors"][0]["code"], "NOT_OPEN");
    // A page that comes now is not taken; another endpoint goes on.
    upstream.release();
    begun(&server, "other").await;
    newest(&server, "other", |row| row["status"] == "FINISHED").await;
    assert_eq!(ask(&server, "Resume", &id).await["backfill"]["status"], "RUNNING");
    let over = newest(&server, "pay", |row| row["status"] == "FINISHED").await;
    assert_eq!(
        (&over["pages"], &over["recovered"], &over["duplicates"]),
        (&json!(1), &json!(1), &json!(0)),
        "{over:#}"
    );
    assert_eq!(ask(&server, "Stop", &id).await["userErrors"][0]["code"], "NOT_OPEN");
    upstream.hold();
    let id = begun(&server, "pay").await;
    assert_eq!(ask(&server, "Stop", &id).await["backfill"]["status"], "STOPPED");
    // The next one may begin.
    begun(&server, "pay").await;
    upstream.release();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_try_is_told_and_tried_again_and_a_lost_place_is_read_anew() {
    let (upstream, server) = lists(&["pay"]).await;
    let (one, two) = (event("e2", ago(HOUR / 3)), event("e1", ago(HOUR / 2)));
    upstream.next([
        page(std::slice::from_ref(&one), Some("p2")),
        Reply::Json(500, r#"{"error":"down"}"#),
    ]);
    let id = begun(&server, "pay").await;
    let failed = newest(&server, "pay", |row| row["failures"] == 1).await;
    assert_eq!(
        (&failed["status"], &failed["pages"], &failed["recovered"]),
        (&json!("RUNNING"), &json!(1), &json!(1)),
        "{failed:#}"
    );
    assert!(
        failed["nextTryAt"].is_string() && failed["error"].is_string(),
        "{failed:#}"
    );
    assert!(failed["percent"].as_u64().unwrap() > 0, "{failed:#}");
    // Somebody does not want to wait. The provider has forgotten the page meanwhile.
    upstream.next([
        Reply::Json(410, r#"{"error":"gone"}"#),
        page(&[one], Some("p3")),
        page(&[two], None),
    ]);
    assert_eq!(ask(&server, "Resume", &id).await["userErrors"], json!([]));
    let over = newest(&server, "pay", |row| row["status"] == "FINISHED").await;
    assert_eq!(
        (
            &over["pages"],
            &over["recovered"],
            &over["duplicates"],
            &over["failures"],
            &over["error"]
        ),
        (&json!(3), &json!(2), &json!(1), &json!(0), &Value::Null),
        "{over:#}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_changed_meanwhile_holds_from_the_next_page_on() {
    let (before, server) = lists(&["pay"]).await;
    let after = Upstream::start().await;
    before.hold();
    before.next([page(&[event("e2", ago(HOUR / 3))], Some("p2"))]);
    after.next([page(&[event("e1", ago(HOUR / 2))], None)]);
    begun(&server, "pay").await;
    asked(&before, 1).await;
    server.apply(&documents(&after.url, &["pay".to_owned()])).await;
    before.release();
    let over = newest(&server, "pay", |row| row["status"] == "FINISHED").await;
    assert_eq!(
        (&over["recovered"], &over["failures"]),
        (&json!(2), &json!(0)),
        "{over:#}"
    );
    assert_eq!(before.requests().len(), 1);
    assert!(after.requests()[0].0.contains("page=p2"), "{:?}", after.requests());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backfills_wait_for_each_other() {
    let names: Vec<String> = (0..=MAX_BACKFILLS_AT_ONCE)
        .map(|number| format!("pay{number}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (upstream, server) = lists(&names).await;
    upstream.hold();
    upstream.next(names.iter().map(|_| page(&[], None)));
    for name in &names {
        begun(&server, name).await;
    }
    asked(&upstream, MAX_BACKFILLS_AT_ONCE).await;
    // The last one is pushed, and asks for nothing while the others are read.
    let last = *names.last().unwrap();
    let waiting = newest(&server, last, |row| row["status"] == "RUNNING").await;
    ask(&server, "Resume", waiting["id"].as_str().unwrap()).await;
    assert_eq!(upstream.requests().len(), MAX_BACKFILLS_AT_ONCE);
    upstream.release();
    for name in &names {
        newest(&server, name, |row| row["status"] == "FINISHED").await;
    }
    assert_eq!(upstream.requests().len(), names.len());
    server.stop().await;
}
