//! Webhooks that Weir makes at providers, on the real executable: making, verifying, renewing, putting right, deleting.

mod bed;

use self::bed::{Bed, PATIENCE, documents, event};
use crate::hook_provider::{Mood, plain, send, send_as_github, send_as_stripe, send_to};
use crate::support::{SOON, eventually, now_unix_s, payment_event, post, stderr, stdout};
use serde_json::{Value, json};
use weir_orchestrator::registrations::MAX_HOOK_PAGES;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_made_and_verified_and_deleted_on_sqlite() {
    made_verified_deleted(Bed::start(None, 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_made_and_verified_and_deleted_on_postgres() {
    made_verified_deleted(Bed::start(Some("registered"), 1).await).await;
}

async fn made_verified_deleted(bed: Bed) {
    bed.apply("register: true");
    let hook = bed.made().await;
    assert_eq!(hook["what"], json!(["thing.made"]), "what workflows take");
    let endpoint = bed.registration().await;
    assert_eq!((&hook["to"], &endpoint["secretCount"]), (&endpoint["url"], &json!(1)));
    let sent = send(&hook, &event("e1")).await;
    assert_eq!(sent.status, 200, "{}", sent.text);
    assert_eq!(
        send_to(hook["to"].as_str().unwrap(), "another", &event("e2"))
            .await
            .status,
        401
    );
    eventually("its run is over", SOON, async || {
        (bed.server().runs(&["--status", "succeeded"]).len() == 1).then_some(())
    })
    .await;
    let shown = bed.server().weir(&["endpoint", "show", "things"]);
    let told = stdout(&shown);
    assert!(
        told.contains("at the provider: active (hook-1)"),
        "{told}{}",
        stderr(&shown)
    );
    let secret = hook["secret"].as_str().unwrap();
    let exported = stdout(&bed.server().weir(&["export"]));
    assert!(exported.contains("register: true"), "{exported}");
    for text in [told, exported, bed.server().log()] {
        assert!(!text.contains(secret), "the secret is told: {text}");
    }
    // Another workflow wants more: the webhook is changed, and stays.
    bed.server().apply(
        "{ kind: Workflow, name: sales, on: { event: acme-hooks.thing.sold }, steps: [{ id: note, set: { a: 1 } }] }",
    );
    eventually("more is sent", PATIENCE, async || {
        let hook = bed.provider.only_hook()?;
        (hook["what"] == json!(["thing.made", "thing.sold"]) && hook["id"] == "hook-1").then_some(())
    })
    .await;
    // It is no longer to be registered: what is under way is taken still.
    bed.apply("secrets: [mine]");
    bed.none().await;
    assert_eq!(send(&hook, &event("e3")).await.status, 200);
    assert_eq!(
        send_to(hook["to"].as_str().unwrap(), "mine", &event("e4")).await.status,
        200
    );
    bed.apply("register: true");
    let again = bed.made().await;
    assert_eq!(again["id"], "hook-2");
    assert_eq!(send(&again, &event("e5")).await.status, 200);
    delete_endpoint(&bed).await;
    bed.none().await;
    assert_eq!(bed.provider.counts(), [2, 1, 0, 2]);
    bed.end().await;
}

async fn delete_endpoint(bed: &Bed) {
    let bearer = format!("Bearer {}", bed.server().token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let asked = json!({ "query": "{ endpoint(name: \"things\") { id revision } }" }).to_string();
    let url = format!("{}/graphql", bed.server().url);
    let endpoint = post(&url, &headers, asked).await.body["data"]["endpoint"].take();
    let mutation = "mutation Delete($input: DeleteInput!) { endpointDelete(input: $input) { userErrors { message } } }";
    let input = json!({ "input": { "id": endpoint["id"], "expectedRevision": endpoint["revision"] } });
    let body = json!({ "query": mutation, "variables": input }).to_string();
    let answer = post(&url, &headers, body).await;
    assert_eq!(
        answer.body["data"]["endpointDelete"]["userErrors"],
        json!([]),
        "{}",
        answer.text
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_making_and_storing_leaves_one_webhook_on_sqlite() {
    crash_between_making_and_storing(Bed::start(None, 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_making_and_storing_leaves_one_webhook_on_postgres() {
    crash_between_making_and_storing(Bed::start(Some("registered_crash"), 1).await).await;
}

async fn crash_between_making_and_storing(mut bed: Bed) {
    bed.provider.set(Mood::Hangs);
    bed.apply("register: true");
    eventually("it is made, and its answer is not there", SOON, async || {
        bed.provider.only_hook().map(drop)
    })
    .await;
    bed.servers[0].kill();
    bed.provider.set(Mood::Fine);
    bed.servers[0].start_again().await;
    let hook = bed.made().await;
    assert_eq!(hook["id"], "hook-2", "nobody knows the secret of the first one");
    assert_eq!(send(&hook, &event("e1")).await.status, 200);
    assert_eq!(bed.provider.counts(), [2, 0, 0, 1]);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_at_the_provider_is_made_anew_and_swept_on_sqlite() {
    drift_is_put_right(Bed::start(None, 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_at_the_provider_is_made_anew_and_swept_on_postgres() {
    drift_is_put_right(Bed::start(Some("registered_drift"), 1).await).await;
}

async fn drift_is_put_right(bed: Bed) {
    bed.apply("register: true\nsweep: { every: 1h }");
    let hook = bed.made().await;
    eventually("its first sweep is over", SOON, async || {
        (bed.registration().await["coverage"]["lastSweep"]["outcome"] == "complete").then_some(())
    })
    .await;
    bed.provider.happens_unheard(event("unheard"));
    bed.provider.by_hand(&hook["id"], None);
    let anew = bed.made().await;
    assert_ne!(anew["id"], hook["id"]);
    eventually("what was not sent meanwhile is found", PATIENCE, async || {
        let events = bed.server().events().await;
        events
            .iter()
            .any(|event| event["externalId"] == "unheard" && event["source"] == "SWEEP")
            .then_some(())
    })
    .await;
    let endpoint = bed.registration().await;
    assert_eq!(endpoint["coverage"]["lastSweep"]["cause"], "registration");
    assert_eq!(endpoint["registration"]["drift"], "the provider no longer had it");
    assert_eq!(endpoint["secretCount"], 2, "what was signed before may still arrive");
    assert_eq!(send(&hook, &event("e1")).await.status, 200);
    assert_eq!(send(&anew, &event("e2")).await.status, 200);
    // It sends elsewhere: that can be changed.
    bed.provider.by_hand(&anew["id"], Some(("what", json!(["thing.sold"]))));
    eventually("it sends what is wanted again", PATIENCE, async || {
        (bed.provider.only_hook()?["what"] == json!(["thing.made"])).then_some(())
    })
    .await;
    assert_eq!(bed.made().await["id"], anew["id"]);
    // It was disabled: another one.
    bed.provider.by_hand(&anew["id"], Some(("state", json!("off"))));
    eventually("another one is made", PATIENCE, async || {
        (bed.provider.only_hook()?["id"] == "hook-3").then_some(())
    })
    .await;
    bed.made().await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_public_address_is_told_to_the_provider() {
    let mut bed = Bed::start(None, 1).await;
    bed.apply("register: { events: [\"*\"] }");
    let hook = bed.made().await;
    assert_eq!(hook["what"], json!(["*"]));
    let other = bed.server().url.replace("127.0.0.1", "localhost");
    bed.servers[0].stop().await;
    bed.servers[0].set("WEIR_PUBLIC_URL", Some(&other));
    bed.servers[0].start_again().await;
    eventually("the provider has the new address", PATIENCE, async || {
        let told = bed.provider.only_hook()?;
        told["to"].as_str()?.starts_with(&other).then_some(())
    })
    .await;
    assert_eq!(
        bed.made().await["id"],
        hook["id"],
        "it is the same one, with the same secret"
    );
    // Without an address nobody is told anything, and people are told why.
    bed.servers[0].stop().await;
    bed.servers[0].set("WEIR_PUBLIC_URL", None);
    bed.servers[0].start_again().await;
    let registration = bed.is("FAILING").await;
    let told = registration["error"].as_str().unwrap();
    assert!(told.contains("WEIR_PUBLIC_URL"), "{told}");
    assert_eq!(bed.provider.counts(), [1, 1, 0, 0]);
    let refused = bed
        .server()
        .try_apply(&documents(&bed.provider, "register: { events: [thing.made] }"), &[]);
    assert!(stderr(&refused).contains("WEIR_PUBLIC_URL"), "{}", stderr(&refused));
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_make_one_webhook() {
    let bed = Bed::start(Some("registered_twice"), 2).await;
    bed.apply("register: true");
    let hook = bed.made().await;
    // Each server looks, and each finds that the other one has looked.
    let first = bed.registration().await["registration"]["checkedAt"].take();
    eventually("it was looked at again", PATIENCE, async || {
        (bed.registration().await["registration"]["checkedAt"] != first).then_some(())
    })
    .await;
    assert_eq!(bed.provider.counts(), [1, 0, 0, 0]);
    for server in &bed.servers {
        let url = hook["to"].as_str().unwrap().replace(&bed.server().url, &server.url);
        let secret = hook["secret"].as_str().unwrap();
        assert_eq!(send_to(&url, secret, &event(&server.url)).await.status, 200);
    }
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_fails_is_asked_again_and_intake_goes_on() {
    let bed = Bed::start(None, 1).await;
    bed.provider.set(Mood::IsDown);
    bed.apply("register: true\nsecrets: [mine]");
    let registration = bed.is("FAILING").await;
    let told = registration["error"].as_str().unwrap();
    assert!(
        told.contains("hooks.list") && registration["retryAt"].is_string(),
        "{registration}"
    );
    let url = bed.registration().await["url"].as_str().unwrap().to_owned();
    assert_eq!(send_to(&url, "mine", &event("e1")).await.status, 200);
    bed.provider.set(Mood::Fine);
    let hook = bed.made().await;
    assert_eq!(send(&hook, &event("e2")).await.status, 200);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_webhooks_is_not_read_without_bound() {
    let bed = Bed::start(None, 1).await;
    bed.provider.set(Mood::Endless);
    bed.apply("register: true");
    let registration = bed.is("FAILING").await;
    let told = registration["error"].as_str().unwrap();
    assert_eq!(
        told,
        format!("the provider lists more than {MAX_HOOK_PAGES} pages of webhooks")
    );
    assert_eq!(bed.provider.counts(), [0, 0, 0, 0]);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_is_renewed_and_goes_when_its_connection_is_disconnected() {
    let bed = Bed::start(None, 1).await;
    bed.server().apply(&format!(
        r#"
kind: Connection
name: acme
connector: acme-leases
config: {{ base_url: "{0}", login: "{0}" }}
credential: {{ oauth2: {{ client_id: app, client_secret: app-secret-0123456789 }} }}
---
kind: Endpoint
name: things
connection: acme
register: {{ events: [thing.made], with: {{ team: blue }} }}
"#,
        bed.provider.url
    ));
    let waiting = bed.is("FAILING").await;
    assert!(
        waiting["error"].as_str().unwrap().contains("weir connection authorize"),
        "{waiting}"
    );
    connect(&bed).await;
    let hook = bed.made().await;
    assert_eq!((&hook["team"], &hook["what"]), (&json!("blue"), &json!(["thing.made"])));
    assert_eq!(send(&hook, &event("e1")).await.status, 200);
    let first = hook["until"].clone();
    eventually("it was renewed", PATIENCE, async || {
        let now = bed.provider.only_hook()?;
        (now["until"] != first && bed.provider.counts()[2] > 0).then_some(())
    })
    .await;
    assert_eq!(bed.provider.only_hook().unwrap()["id"], hook["id"]);
    let disconnected = bed.server().weir(&["connection", "disconnect", "acme"]);
    assert!(disconnected.status.success(), "{}", stderr(&disconnected));
    assert!(bed.provider.is_revoked());
    assert_eq!(
        bed.provider.hooks(),
        Vec::<Value>::new(),
        "it was deleted while that was possible"
    );
    assert_eq!(
        send(&hook, &event("e2")).await.status,
        200,
        "what is under way is taken"
    );
    bed.end().await;
}

async fn connect(bed: &Bed) {
    let told = bed.server().weir(&["connection", "authorize", "acme", "--json"]);
    assert!(told.status.success(), "{}", stderr(&told));
    let told: Value = serde_json::from_str(&stdout(&told)).unwrap();
    let url = reqwest::Url::parse(told["authorizeUrl"].as_str().unwrap()).unwrap();
    let asked: std::collections::HashMap<String, String> = url.query_pairs().into_owned().collect();
    let mut back = reqwest::Url::parse(&asked["redirect_uri"]).unwrap();
    back.query_pairs_mut()
        .append_pair("code", "code-1")
        .append_pair("state", &asked["state"]);
    let page = crate::support::http().get(back).send().await.unwrap();
    assert_eq!(page.status().as_u16(), 200, "{}", page.text().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_place_gets_another_webhook_and_a_missing_manifest_leaves_it_alone() {
    let mut bed = Bed::start(None, 1).await;
    let documents = |team: &str| {
        format!(
            r#"
kind: Connection
name: acme
connector: acme-leases
config: {{ base_url: "{0}", login: "{0}" }}
credential: {{ bearer: {{ token: t0 }} }}
---
kind: Endpoint
name: things
connection: acme
register: {{ events: [thing.made], with: {{ team: {team} }} }}
"#,
            bed.provider.url
        )
    };
    bed.server().apply(&documents("blue"));
    let blue = bed.made().await;
    bed.server().apply(&documents("red"));
    let red = eventually("there is one webhook, for the other team", PATIENCE, async || {
        bed.provider.only_hook().filter(|hook| hook["team"] == "red")
    })
    .await;
    bed.made().await;
    for hook in [&blue, &red] {
        assert_eq!(send(hook, &event(&plain(&hook["id"]))).await.status, 200, "{hook}");
    }
    assert_eq!(bed.provider.counts()[3], 1);
    // Nobody can tell what is wanted without the manifest, so what is there stays.
    let manifest = bed.manifests.path().join("acme-leases.yaml");
    bed.servers[0].stop().await;
    std::fs::rename(&manifest, bed.manifests.path().join("away")).unwrap();
    bed.servers[0].start_again().await;
    let applied = bed.server().try_apply(
        "{ kind: Workflow, name: w, on: { manual: {} }, steps: [{ id: s, set: { a: 1 } }] }",
        &[],
    );
    assert!(applied.status.success(), "{}", stderr(&applied));
    bed.servers[0].stop().await;
    std::fs::rename(bed.manifests.path().join("away"), &manifest).unwrap();
    bed.servers[0].start_again().await;
    assert_eq!(bed.made().await["id"], red["id"]);
    assert_eq!(
        send(&blue, &event("late")).await.status,
        200,
        "its secret is not forgotten"
    );
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_of_an_app_is_given_by_a_person() {
    let bed = Bed::start(None, 1).await;
    let documents = |more: &str| documents(&bed.provider, more).replace("acme-hooks", "acme-apps");
    let refused = bed.server().try_apply(&documents("register: true"), &[]);
    assert!(
        stderr(&refused).contains("the verification needs a secret"),
        "{}",
        stderr(&refused)
    );
    bed.server().apply(&documents("register: true\nsecrets: [of-the-app]"));
    let hook = bed.made().await;
    let url = hook["to"].as_str().unwrap();
    assert_eq!(send_to(url, "of-the-app", &event("e1")).await.status, 200);
    assert_eq!(bed.registration().await["secretCount"], 1);
    delete_endpoint(&bed).await;
    bed.none().await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stripe_and_github_webhooks_are_made_by_their_own_manifests() {
    let bed = Bed::start(None, 1).await;
    bed.server().apply(&format!(
        r#"
kind: Connection
name: stripe
connector: stripe
config: {{ base_url: "{0}" }}
credential: {{ bearer: {{ token: sk_test_1 }} }}
---
kind: Workflow
name: payments
on: {{ event: stripe.payment_intent.succeeded, connection: stripe, hydrate: never }}
steps: [{{ id: note, set: {{ id: "{{{{ event.id }}}}" }} }}]
---
kind: Endpoint
name: things
connection: stripe
register: true
"#,
        bed.provider.url
    ));
    let hook = bed.made().await;
    assert_eq!(hook["enabled_events"], json!(["payment_intent.succeeded"]));
    let sent = send_as_stripe(&hook, payment_event("evt_1", "pi_1"), now_unix_s()).await;
    assert_eq!(sent.status, 200, "{}", sent.text);
    delete_endpoint(&bed).await;
    bed.none().await;
    bed.server().apply(&format!(
        r#"
kind: Connection
name: github
connector: github
config: {{ base_url: "{0}" }}
credential: {{ bearer: {{ token: ghp_1 }} }}
---
kind: Endpoint
name: things
connection: github
register: {{ events: [push, issues.opened, issues.closed], with: {{ owner: acme, repo: shop }} }}
"#,
        bed.provider.url
    ));
    let hook = bed.made().await;
    assert_eq!(hook["events"], json!(["issues", "push"]), "GitHub knows no actions");
    let body = json!({ "ref": "refs/heads/main", "after": "1", "repository": { "full_name": "acme/shop", "id": 1 } });
    let sent = send_as_github(&hook, "push", &body).await;
    assert_eq!(sent.status, 200, "{}", sent.text);
    delete_endpoint(&bed).await;
    bed.none().await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_registered_is_refused_with_its_place() {
    let bed = Bed::start(None, 1).await;
    let check = |documents: &str, place: &str, reason: &str| {
        let refused = bed.server().try_apply(documents, &["--dry-run"]);
        let told = stderr(&refused);
        assert!(
            told.contains(place) && told.contains(reason),
            "{place} {reason}: {told}"
        );
    };
    let with = |register: &str| documents(&bed.provider, register);
    check(&with("register: sometimes"), "/register", "`register` is true, or");
    check(&with("register: { event: [a] }"), "/register", "`register` is true, or");
    check(
        &with("register: { events: [thing.mode] }"),
        "/register/events/0",
        "did you mean `thing.made`?",
    );
    check(
        &with("register: { with: { repo: a } }"),
        "/register/with/repo",
        "not known",
    );
    check(
        &with("register: true\nreceive: never"),
        "/register",
        "takes no webhooks",
    );
    check(
        &with("register: true\nverify: { token: { at: 'header:X' } }\nsecrets: [t]"),
        "/register",
        "as its connector says",
    );
    let github = "{ kind: Endpoint, name: a, connector: github, register: true }";
    check(github, "/register", "the endpoint has none");
    check(github, "/register", "`owner` is missing");
    let notion = "{ kind: Endpoint, name: a, connector: notion, register: true }";
    check(notion, "/register", "does not say how its webhooks are registered");
    bed.end().await;
}
