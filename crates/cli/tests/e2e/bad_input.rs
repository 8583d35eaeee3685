//! What strangers and mistaken people send: a clear answer each, nothing stored half, the process alive.

use crate::support::{
    SOON, Server, eventually, needed, now_unix_s, payment_event, post, stderr, stdout, stripe_signature, weir,
};
use crate::upstream::Upstream;
use serde_json::json;
use std::net::TcpListener;

const SECRET: &str = "whsec_bad_input";

const ENDPOINT: &str = "
kind: Connection
name: stripe
connector: stripe
config: { base_url: 'http://127.0.0.1:9' }
credential: { bearer: { token: sk_test_e2e } }
---
kind: Endpoint
name: stripe
connection: stripe
secrets: [whsec_bad_input]
";

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_not_genuine_are_refused_and_kept() {
    let mut server = Server::start().await;
    server.apply(ENDPOINT);
    let body = payment_event("evt_1", "pi_1");
    let now = now_unix_s();
    let good = stripe_signature(SECRET, body.as_bytes(), now);
    let cases: Vec<(&str, Vec<String>)> = vec![
        ("forged", vec![stripe_signature("whsec_other", body.as_bytes(), now)]),
        ("stale", vec![stripe_signature(SECRET, body.as_bytes(), now - 3600)]),
        (
            "from the future",
            vec![stripe_signature(SECRET, body.as_bytes(), now + 3600)],
        ),
        ("truncated", vec![good.chars().take(good.len() - 2).collect()]),
        ("duplicated header", vec![good.clone(), good.clone()]),
        ("unsigned", vec![]),
        ("empty", vec![String::new()]),
        ("of another body", vec![stripe_signature(SECRET, b"{}", now)]),
    ];
    for (name, signatures) in &cases {
        let headers: Vec<(&str, &str)> = signatures
            .iter()
            .map(|signature| ("stripe-signature", signature.as_str()))
            .collect();
        let detail = server
            .hook("stripe", &headers, body.clone())
            .await
            .problem(401, "SIGNATURE_REFUSED");
        assert!(!detail.contains(SECRET), "{name}: {detail}");
        // The right signature must not be handed to somebody who lacks it.
        let digest = good.rsplit('=').next().unwrap();
        assert!(!detail.contains(digest), "{name}: {detail}");
    }
    let refused = eventually("the refusals are kept", SOON, async || {
        let refused = server.list(&["refused", "--endpoint", "stripe", "--json"]);
        (refused.len() == cases.len()).then_some(refused)
    })
    .await;
    let reasons: Vec<&str> = refused
        .iter()
        .map(|refused| refused["reason"].as_str().unwrap())
        .collect();
    for reason in [
        "bad_signature",
        "stale_timestamp",
        "duplicated_header",
        "missing_signature",
    ] {
        assert!(reasons.contains(&reason), "{reason} is not among {reasons:?}");
    }

    // The same body with its genuine signature is taken: the refusals were about the signatures.
    assert_eq!(server.stripe_hook("stripe", SECRET, &body).await.status, 200);
    assert_eq!(server.list(&["events", "--json"]).len(), 1);
    assert!(server.is_alive());
}

/// `MAX_REFUSED_PER_MINUTE`
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_requests_is_counted_in_full_and_kept_in_part() {
    let server = Server::start().await;
    let endpoint = |name: &str| {
        format!(
            "---\nkind: Endpoint\nname: {name}\nconnector: generic\nverify: {{ token: {{ at: 'header:X-Token' }} }}\nsecrets: [t]\n"
        )
    };
    let kept = |name: &str| {
        server
            .list(&["refused", "--endpoint", name, "--json", "--limit", "1000"])
            .len()
    };
    let mut sent = 0;
    for attempt in 0.. {
        let (flooded, last) = (format!("flooded-{attempt}"), format!("last-{attempt}"));
        server.apply(&(endpoint(&flooded) + &endpoint(&last)));
        let begun = now_unix_s() / 60;
        for name in [&flooded; 70].into_iter().chain([&last]) {
            let answer = server.hook(name, &[("x-token", "guess")], "{}").await;
            answer.problem(401, "SIGNATURE_REFUSED");
            sent += 1;
        }
        // What was refused last is stored last.
        eventually("the last refusal is kept", SOON, async || {
            (kept(&last) == 1).then_some(())
        })
        .await;
        // A minute that turned meanwhile brought another allowance.
        if now_unix_s() / 60 == begun {
            assert_eq!(kept(&flooded), 60);
            let query = format!("{{ endpoint(name: \"{flooded}\") {{ refused {{ reason count }} }} }}");
            let all = json!([{ "reason": "bad_signature", "count": 70 }]);
            eventually("all are counted", SOON, async || {
                let asked = crate::support::http().post(format!("{}/graphql", server.url));
                let asked = asked.bearer_auth(&server.token).json(&json!({ "query": query }));
                let answer: serde_json::Value = asked.send().await.ok()?.json().await.ok()?;
                (answer["data"]["endpoint"]["refused"] == all).then_some(())
            })
            .await;
            break;
        }
    }
    let metrics = crate::support::http().get(format!("{}/metrics", server.url));
    let metrics = metrics
        .bearer_auth(&server.token)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let counted = format!("weir_webhooks_refused_total{{reason=\"bad_signature\"}} {sent}\n");
    assert!(metrics.contains(&counted), "{counted}{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_cannot_be_read_are_refused() {
    let mut server = Server::start().await;
    server.apply(ENDPOINT);
    let nested = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let deep = format!("{{\"id\":\"evt_deep\",\"type\":\"x\",\"data\":{nested}}}");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("not JSON: expected value, at line 1", b"amount=1&currency=eur".to_vec()),
        ("deeper than 128, at line 1, column 163", deep.into_bytes()),
        ("not UTF-8, at line 1, column 12", b"{\"id\":\"evt_\xff\"}".to_vec()),
        ("no type where", Vec::new()),
    ];
    for (reason, body) in cases {
        let signature = stripe_signature(SECRET, &body, now_unix_s());
        let answer = server.hook("stripe", &[("stripe-signature", &signature)], body).await;
        let detail = answer.problem(400, "BODY_INVALID");
        assert!(detail.contains(reason), "{reason}: {detail}");
    }
    let large = "x".repeat(10 * 1024 * 1024);
    server
        .hook("stripe", &[("stripe-signature", "t=1,v1=00")], large)
        .await
        .problem(413, "BODY_TOO_LARGE");
    let nowhere = post(&format!("{}/hooks/main/nobody", server.url), &[], "{}").await;
    nowhere.problem(404, "ENDPOINT_UNKNOWN");
    post(&format!("{}/hooks/ep_0000000000000", server.url), &[], "{}")
        .await
        .problem(404, "ENDPOINT_UNKNOWN");
    assert!(server.list(&["events", "--json"]).is_empty());
    assert!(server.is_alive());
}

/// Applies documents of which the last is wrong; gives the complaint.
fn refused_documents(server: &Server, wrong: &str) -> String {
    let output = server.try_apply(&format!("{ENDPOINT}---\n{wrong}"), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    stderr(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_wrong_change_nothing() {
    let mut server = Server::start().await;
    let step = |step: &str| {
        format!(
            "kind: Workflow\nname: wrong\non: {{ event: stripe.payment_intent.succeeded, connection: stripe }}\nsteps:\n  - {step}\n"
        )
    };
    let cases = [
        (
            "an unknown operation",
            step("{ id: a, call: stripe.payment_intents.got, with: { id: x } }"),
            vec!["payment_intents.get", "standard input:"],
        ),
        (
            "an expression typo",
            step("{ id: a, call: stripe.payment_intents.get, with: { id: '{{ evnt.data }}' } }"),
            vec!["evnt", "/steps/0/with/id"],
        ),
        (
            "an unclosed expression",
            step("{ id: a, call: stripe.payment_intents.get, with: { id: '{{ event.data' } }"),
            vec!["/steps/0/with/id"],
        ),
        (
            "a step that does not exist",
            step("{ id: a, set: { b: '{{ steps.z.id }}' } }"),
            vec!["z"],
        ),
        (
            "an unknown key",
            step("{ id: a, cal: stripe.payment_intents.get }"),
            vec!["cal"],
        ),
        (
            "an unknown connection",
            "kind: Endpoint\nname: other\nconnection: strip\nsecrets: [s]\n".to_owned(),
            vec!["strip"],
        ),
        (
            "a missing secret",
            "kind: Endpoint\nname: other\nconnection: stripe\n".to_owned(),
            vec!["secret"],
        ),
        (
            "a reference to a variable that is not set",
            "kind: Endpoint\nname: other\nconnection: stripe\nsecrets: [{ env: NOT_SET_ANYWHERE }]\n".to_owned(),
            vec!["NOT_SET_ANYWHERE"],
        ),
    ];
    for (name, document, parts) in cases {
        let complaint = if name.starts_with("a reference") {
            // Found before anything is sent: wrong usage.
            let output = server.try_apply(&document, &[]);
            assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
            stderr(&output)
        } else {
            refused_documents(&server, &document)
        };
        for part in parts {
            assert!(complaint.contains(part), "{name}: {part:?} is not in\n{complaint}");
        }
    }
    let exported = server.weir(&["export"]);
    assert_eq!(stdout(&exported).trim(), "", "something was stored");
    assert!(server.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_bomb_costs_one_run_and_nothing_else() {
    let mut server = Server::start().await;
    let bomb = "{{ ('x' * 1000000 * 1000000) | length }}";
    let loops = "{{ [1,2,3,4,5,6,7,8,9] | map('string') | join | length }}{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
    let mut refused_or_failed = 0;
    for expression in [bomb, loops] {
        let document = format!(
            "kind: Workflow\nname: bomb\non: {{ manual: {{}} }}\nsteps:\n  - {{ id: a, set: {{ b: {} }} }}\n",
            json!(expression)
        );
        let output = server.try_apply(&document, &[]);
        if !output.status.success() {
            refused_or_failed += 1;
            continue;
        }
        let started = server.weir(&["run", "start", "bomb"]);
        assert!(started.status.success(), "{}", stderr(&started));
        let id = stdout(&started).trim().to_owned();
        let run = eventually("the run ends", SOON, async || {
            server
                .runs(&["--status", "failed"])
                .into_iter()
                .find(|run| run["id"] == id.as_str())
        })
        .await;
        assert!(
            run["error"]["code"].as_str().is_some_and(|code| !code.is_empty()),
            "{run}"
        );
        refused_or_failed += 1;
    }
    assert_eq!(refused_or_failed, 2);
    assert!(server.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_grow_without_bound_end_and_cost_the_others_nothing() {
    let mut server = Server::start().await;
    server.apply(
        "kind: Workflow\nname: grows\non: { manual: {} }\nsteps:\n\
         - { id: outer, for_each: '{{ event.data.l }}', do: [{ id: inner, for_each: '{{ event.data.l }}', do: [\
         { id: copy, set: { x: '{{ event.data.l }}' } }] }] }\n---\n\
         kind: Workflow\nname: small\non: { manual: {} }\nsteps: [{ id: a, set: { b: 1 } }]\n",
    );
    let input = json!({ "l": (0..3000).collect::<Vec<u32>>() }).to_string();
    for _ in 0..3 {
        let started = server.weir(&["run", "start", "grows", "--input", &input]);
        assert!(started.status.success(), "{}", stderr(&started));
    }
    // Others get their turn meanwhile.
    let started = server.weir(&["run", "start", "small"]);
    assert!(started.status.success(), "{}", stderr(&started));
    eventually("the small run is done", SOON, async || {
        let done = server.runs(&["--status", "succeeded"]);
        (done.len() == 1).then_some(())
    })
    .await;
    let failed = eventually("the large runs are ended", SOON * 3, async || {
        // A busy machine may take longer than a request may while three runs compute; it is asked again.
        let listed = server.weir(&["runs", "--json", "--limit", "1000", "--status", "failed"]);
        let lines = stdout(&listed);
        let failed: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (failed.len() == 3).then_some(failed)
    })
    .await;
    for run in failed {
        assert_eq!(run["error"]["code"], "run_too_large", "{run}");
    }
    assert!(server.is_alive());
    assert_eq!(server.stop().await, Some(0), "{}", server.log());
}

#[test]
fn a_manifest_with_cyclic_reads_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = "
connector: loops
version: 1.0.0
title: Loops
hosts: ['https://api.loops.test']
auth: { bearer: {} }
operations:
  a.get: { get: '/a/{{ id }}' }
webhook:
  verify: { hmac: { alg: sha256, sig: 'header:X-Sig', encoding: hex, parts: [body] } }
  identify: { id: /id, type: /type, data: /data }
events:
  a.changed:
    hydrate_default: always
    reads:
      one: { call: a.get, with: { id: '{{ two.id }}' } }
      two: { call: a.get, with: { id: '{{ one.id }}' } }
";
    std::fs::write(folder.path().join("loops.yaml"), manifest).unwrap();
    let check = weir(folder.path())
        .args(["connector", "check", "loops.yaml"])
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(1), "{}", stdout(&check));
    let text = stdout(&check);
    assert!(
        text.contains("loops.yaml:")
            && text.contains("/events/a.changed/reads")
            && text.contains("reads wait for each other"),
        "{text}"
    );
    let serve = weir(folder.path())
        .args(["serve", "--listen", "127.0.0.1:0", "--connectors", "."])
        .output()
        .unwrap();
    assert_eq!(serve.status.code(), Some(2), "{}", stderr(&serve));
    assert!(stderr(&serve).contains("loops.yaml"), "{}", stderr(&serve));
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_not_called_without_the_setting() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    upstream.set_nonblocking(true).unwrap();
    let server = Server::start_with(&[]).await;
    let document = format!(
        "kind: Connection\nname: inside\nconnector: http\nconfig: {{ base_url: 'http://{}' }}\n---\n\
         kind: Workflow\nname: reach\non: {{ manual: {{}} }}\nsteps:\n  - {{ id: a, call: http.request, connection: inside, with: {{ method: GET, path: / }}, retry: {{ tries: 1 }} }}\n",
        upstream.local_addr().unwrap()
    );
    let applied = server.try_apply(&document, &[]);
    let complaint = if applied.status.success() {
        let started = server.weir(&["run", "start", "reach"]);
        let id = stdout(&started).trim().to_owned();
        eventually("the run fails", SOON, async || {
            (!server.runs(&["--status", "failed"]).is_empty()).then_some(())
        })
        .await;
        stdout(&server.weir(&["run", "show", &id]))
    } else {
        stderr(&applied)
    };
    assert!(complaint.contains("WEIR_EGRESS_ALLOW"), "{complaint}");
    assert_eq!(
        upstream.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "it was called"
    );
}

#[test]
fn a_taken_port_is_named_with_the_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = weir(folder.path())
        .args(["serve", "--listen", &address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let complaint = stderr(&output);
    assert!(
        complaint.contains(&address) && complaint.contains("WEIR_LISTEN"),
        "{complaint}"
    );
    assert!(
        !folder.path().join("weir-data").exists(),
        "a start that failed left a folder behind"
    );
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("weir.toml"), "lisen = '127.0.0.1:0'\n").unwrap();
    let output = weir(folder.path()).arg("serve").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("did you mean `listen`?"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_database_that_cannot_be_used_is_named_with_the_cause() {
    let server = needed("WEIR_TEST_POSTGRES_URL");
    let (before, _) = server.rsplit_once('/').unwrap();
    let (_, address) = before.rsplit_once('@').unwrap();
    let cases = [
        (
            "postgres://nobody:hunter2@127.0.0.1:1/none".to_owned(),
            "cannot reach PostgreSQL at 127.0.0.1:1: Connection refused",
            "host and port",
        ),
        (
            format!("postgres://nobody:hunter2@{address}/postgres"),
            "does not let the user \"nobody\" in",
            "user and password",
        ),
        (format!("{before}/none"), "has no database \"none\"", "createdb"),
    ];
    for (url, cause, fix) in cases {
        let folder = tempfile::tempdir().unwrap();
        let output = weir(folder.path())
            .arg("serve")
            .env("WEIR_DATABASE_URL", &url)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let complaint = stderr(&output);
        assert!(complaint.contains(cause) && complaint.contains(fix), "{complaint}");
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
}

/// Readings of instruments have as many digits as a double can hold; none may change between two systems.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_leave_with_every_digit_with_which_they_came() {
    let upstream = Upstream::answering(r#"{"reading":0.10300036900000001}"#).await;
    let server = Server::start().await;
    server.apply(&format!(
        r#"
kind: Connection
name: log
connector: http
config: {{ base_url: "{}", idempotency: {{ header: Idempotency-Key }} }}
---
kind: Workflow
name: readings
on: {{ manual: {{}} }}
steps:
  - {{ id: one, call: http.request, connection: log, with: {{ method: POST, path: /one, body: {{ value: "{{{{ event.data.reading }}}}", written: 0.10600073800000001 }} }} }}
  - {{ id: two, call: http.request, connection: log, with: {{ method: POST, path: /two, body: {{ value: "{{{{ steps.one.reading }}}}" }} }} }}
"#,
        upstream.url
    ));
    let started = server.weir(&[
        "run",
        "start",
        "readings",
        "--input",
        r#"{"reading":0.10100012300000001}"#,
    ]);
    assert!(started.status.success(), "{}", stderr(&started));
    let sent = eventually("both calls are made", SOON, async || {
        let requests = upstream.requests();
        (requests.len() == 2).then_some(requests)
    })
    .await;
    let bodies: Vec<_> = sent
        .iter()
        .map(|request| String::from_utf8_lossy(&request.body))
        .collect();
    assert_eq!(
        bodies,
        [
            r#"{"value":0.10100012300000001,"written":0.10600073800000001}"#,
            r#"{"value":0.10300036900000001}"#
        ]
    );
}
