//! Runs that wait for events, people and other runs; runs that are held, ended, and answer their callers.

use crate::support::{SOON, Server, eventually, http, stderr, stdout};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const ORDERS: &str = r#"
kind: Endpoint
name: shop
connector: generic
verify: { token: { at: "header:X-Shop-Token" } }
secrets: [shop-token-0123456789]
---
kind: Workflow
name: ship
on: { event: generic.order.placed }
steps:
  - id: paid
    wait_for:
      event: generic.order.paid
      key: "{{ arrived.data.order }}"
      equals: "{{ event.data.id }}"
    timeout: 1d
  - { id: end, set: { amount: "{{ steps.paid.data.amount }}" } }
"#;

async fn sent(server: &Server, body: Value) {
    let answer = server
        .hook("shop", &[("x-shop-token", "shop-token-0123456789")], body.to_string())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

fn placed(order: u32) -> Value {
    json!({ "type": "order.placed", "id": order, "event_id": order })
}

fn paid(order: u32, amount: u32) -> Value {
    json!({ "type": "order.paid", "id": format!("pay-{order}"), "order": order, "amount": amount })
}

fn id(server: &Server, arguments: &[&str]) -> String {
    let output = server.weir(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output).trim().to_owned()
}

async fn runs_in(server: &Server, status: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} runs are {status}"), SOON, async || {
        let runs = server.runs(&["--status", status]);
        (runs.len() == count).then_some(runs)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_finds_the_run_that_waits_for_it_also_over_a_crash() {
    let mut server = Server::start().await;
    server.apply(ORDERS);
    for order in 1..=3 {
        sent(&server, placed(order)).await;
    }
    runs_in(&server, "waiting", 3).await;
    sent(&server, paid(2, 20)).await;
    runs_in(&server, "succeeded", 1).await;
    server.kill();
    server.start_again().await;
    sent(&server, paid(1, 10)).await;
    sent(&server, paid(1, 10)).await;
    sent(&server, paid(9, 90)).await;
    let runs = runs_in(&server, "succeeded", 2).await;
    let first = runs.last().unwrap()["id"].as_str().unwrap();
    let told = stdout(&server.weir(&["run", "show", first]));
    assert!(
        told.contains("wait_for") && told.contains("generic.order.paid"),
        "{told}"
    );
    let waiting = server.runs(&["--status", "waiting"]);
    assert_eq!(waiting.len(), 1);
    let wait = &waiting[0]["waits"][0];
    assert_eq!(
        (&wait["step"], &wait["reason"], &wait["eventType"], &wait["key"]),
        (
            &json!("paid"),
            &json!("EVENT"),
            &json!("generic.order.paid"),
            &json!("3")
        )
    );
    let last = waiting[0]["id"].as_str().unwrap();
    let told = stdout(&server.weir(&["run", "show", last]));
    let line = told.lines().find(|line| line.starts_with("  waits"));
    let line = line.unwrap_or_else(|| panic!("{told}"));
    assert!(
        line.starts_with("  waits    for generic.order.paid for \"3\" since ") && line.ends_with(" (step paid)"),
        "{line}"
    );
    let listed = stdout(&server.weir(&["runs", "--status", "waiting"]));
    assert!(
        listed.contains("waits for generic.order.paid for \"3\", until "),
        "{listed}"
    );
}

const ASKS: &str = "
kind: Workflow
name: refund
on: { manual: {} }
steps:
  - { id: ok, approve: { title: \"Refund {{ event.data.amount }}?\", by: [admin] }, timeout: 1d }
  - { id: end, set: { by: \"{{ steps.ok.by }}\", note: \"{{ steps.ok.note }}\" } }
---
kind: Workflow
name: others
on: { manual: {} }
steps:
  - { id: ok, approve: { title: For somebody else, by: [somebody] } }
";

#[tokio::test(flavor = "multi_thread")]
async fn people_decide_hold_and_end_runs() {
    let mut server = Server::start().await;
    server.apply(ASKS);
    let yes = id(&server, &["run", "start", "refund", "--input", r#"{"amount": 5}"#]);
    let no = id(&server, &["run", "start", "refund", "--input", r#"{"amount": 500}"#]);
    let theirs = id(&server, &["run", "start", "others"]);
    runs_in(&server, "waiting", 3).await;
    let asked = server.list(&["approvals", "--json"]);
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[2]["title"], "Refund 5?");
    let told = stdout(&server.weir(&["run", "show", &yes]));
    let decides = format!("`weir approve {yes} ok`");
    assert!(
        told.contains("  waits    for a decision by admin since ") && told.contains("           Refund 5?\n"),
        "{told}"
    );
    assert!(told.contains(&decides), "{told}");
    let reader = server.weir(&["token", "create", "--name", "reader", "--scope", "RUN_READ"]);
    let reader = stdout(&reader).trim().to_owned();
    let query = json!({ "query": "query($id: ID!) { run(id: $id) { waits { reason question by } } }", "variables": { "id": yes } });
    let answer = http()
        .post(format!("{}/graphql", server.url))
        .bearer_auth(reader)
        .json(&query);
    let answer: Value = answer.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        answer["data"]["run"]["waits"],
        json!([{ "reason": "DECISION", "question": null, "by": ["admin"] }])
    );
    server.kill();
    server.start_again().await;
    id(&server, &["approve", &yes, "ok", "--note", "fine"]);
    id(&server, &["reject", &no, "ok", "--note", "too much"]);
    let refused = server.weir(&["approve", &theirs, "ok"]);
    assert!(!refused.status.success() && stderr(&refused).contains("only somebody may decide this"));
    runs_in(&server, "succeeded", 1).await;
    let failed = runs_in(&server, "failed", 1).await;
    assert_eq!(failed[0]["error"]["code"], "rejected");
    let again = server.weir(&["approve", &yes, "ok"]);
    assert!(
        stderr(&again).contains("does not ask for a decision"),
        "{}",
        stderr(&again)
    );

    let early = server.weir(&["run", "resume", &theirs]);
    assert!(
        !early.status.success() && stderr(&early).contains("the run is not paused: it is waiting"),
        "{}",
        stderr(&early)
    );
    let paused = server.weir(&["run", "pause", &theirs, "--reason", "let me look"]);
    assert_eq!(stdout(&paused).trim(), theirs, "the id alone is for programs");
    let look = format!("`weir run show {theirs}` shows it");
    assert!(stderr(&paused).contains("asked to stand still") && stderr(&paused).contains(&look));
    runs_in(&server, "paused", 1).await;
    server.kill();
    server.start_again().await;
    let paused = runs_in(&server, "paused", 1).await;
    assert_eq!(paused[0]["waits"][0]["by"], json!(["somebody"]));
    id(&server, &["run", "resume", &theirs]);
    runs_in(&server, "waiting", 1).await;
    id(&server, &["run", "cancel", &theirs, "--reason", "not needed"]);
    runs_in(&server, "canceled", 1).await;
    let late = server.weir(&["run", "cancel", &theirs]);
    assert!(
        stderr(&late).contains("the run has ended: canceled"),
        "{}",
        stderr(&late)
    );
    assert_eq!(server.list(&["approvals", "--json"]), Vec::<Value>::new());
}

/// Items without a key of their own have paths that nobody can read; people name them by their place.
#[tokio::test(flavor = "multi_thread")]
async fn items_are_named_by_their_place_wherever_a_step_is_told_or_asked_for() {
    let server = Server::start().await;
    server.apply(
        "kind: Workflow\nname: gifts\non: { manual: {} }\nsteps:\n  - id: lines\n    for_each: \"{{ event.data.lines }}\"\n    \
         concurrency: 2\n    do: [{ id: ok, approve: { title: \"A gift for {{ item }}?\" } }]\n",
    );
    let run = id(
        &server,
        &["run", "start", "gifts", "--input", r#"{"lines": ["ada", "bob"]}"#],
    );
    runs_in(&server, "waiting", 1).await;
    let listed = stdout(&server.weir(&["approvals"]));
    assert!(
        listed.contains("lines[1].ok") && listed.contains("lines[2].ok"),
        "{listed}"
    );
    let told = stdout(&server.weir(&["run", "show", &run]));
    assert!(
        told.contains("… lines[2].ok  approve  A gift for bob?  waiting"),
        "{told}"
    );
    assert!(told.contains(&format!("`weir approve {run} lines[2].ok`")), "{told}");
    // Whoever may decide and nothing else sees what is asked, and answers it by the same name.
    let token = server.weir(&["token", "create", "--name", "boss", "--scope", "RUN_APPROVE"]);
    let boss = |arguments: &[&str]| {
        let mut command = server.command(arguments);
        command.env("WEIR_TOKEN", stdout(&token).trim()).output().unwrap()
    };
    assert_eq!(stdout(&boss(&["approvals"])), listed);
    // What others are to decide stands in the list without its words.
    server.apply(
        "kind: Workflow\nname: pay\non: { manual: {} }\nsteps: [{ id: pay, approve: { title: Salary of Ada, by: [somebody] } }]\n",
    );
    id(&server, &["run", "start", "pay"]);
    runs_in(&server, "waiting", 2).await;
    let both = eventually("both are asked", SOON, async || {
        let both = stdout(&boss(&["approvals"]));
        both.contains("(hidden)").then_some(both)
    })
    .await;
    assert!(both.contains("A gift for bob?") && !both.contains("Ada"), "{both}");
    assert!(stderr(&boss(&["runs"])).contains("this needs the permission RUN_READ"));
    let decided = boss(&["approve", &run, "lines[1].ok"]);
    assert_eq!(stdout(&decided).trim(), run, "{}", stderr(&decided));
    let unasked = boss(&["approve", &run, "lines[3].ok"]);
    assert!(stderr(&unasked).contains("does not ask for a decision"));
    id(&server, &["reject", &run, "lines[2].ok"]);
    let failed = runs_in(&server, "failed", 1).await;
    let error = &failed[0]["error"];
    assert_eq!(error["stepName"], "lines[2].ok");
    assert_ne!(error["step"], error["stepName"], "the path stays what it is");
    assert!(stdout(&server.weir(&["runs"])).contains("rejected in lines[2].ok"));
    let again = server.weir(&["run", "retry", &run, "--from", "lines[2].ok", "--yes"]);
    let shown = stdout(&again);
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(shown.contains("lines[1].ok"), "{shown}");
}

const FAMILY: &str = "
kind: Workflow
name: parent
on: { manual: {} }
steps:
  - { id: child, run: child, with: { n: \"{{ event.data.n }}\" } }
  - { id: end, set: { double: \"{{ steps.child.output.double }}\" } }
---
kind: Workflow
name: child
on: { manual: { input: { type: object, required: [n], properties: { n: { type: integer } } } } }
steps:
  - { id: nap, sleep: 1s }
  - { id: sum, set: { double: \"{{ event.data.n * 2 }}\" } }
---
kind: Workflow
name: forever
on: { manual: {} }
steps:
  - { id: again, when: \"{{ event.data.times | default(1) > 0 }}\", run: forever }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_starts_another_once_and_hears_of_its_end() {
    let mut server = Server::start().await;
    server.apply(FAMILY);
    for n in 0..5 {
        id(
            &server,
            &["run", "start", "parent", "--input", &json!({ "n": n }).to_string()],
        );
    }
    server.kill();
    server.start_again().await;
    let runs = runs_in(&server, "succeeded", 10).await;
    let children = runs.iter().filter(|run| run["workflowName"] == "child").count();
    assert_eq!(children, 5);
    // Canceled together: nobody waits for the child any more.
    let parent = id(&server, &["run", "start", "parent", "--input", r#"{"n": 1}"#]);
    runs_in(&server, "waiting", 2).await;
    let child = server.runs(&["--workflow", "child"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let told = stdout(&server.weir(&["run", "show", &parent]));
    assert!(
        told.contains(&format!("  waits    for the end of {child} since ")),
        "{told}"
    );
    assert!(told.contains(&format!("child  run  child {child}  waiting")), "{told}");
    id(&server, &["run", "cancel", &parent]);
    runs_in(&server, "canceled", 2).await;
    // A wrong input, and a workflow that starts itself.
    id(&server, &["run", "start", "parent", "--input", r#"{"n": "x"}"#]);
    let failed = runs_in(&server, "failed", 1).await;
    assert_eq!(failed[0]["error"]["code"], "invalid_input");
    id(&server, &["run", "start", "forever"]);
    let failed = runs_in(&server, "failed", 18).await;
    let deepest = failed
        .iter()
        .filter(|run| run["error"]["code"] == "runs_too_deep")
        .count();
    assert_eq!(deepest, 1);
}

const ANSWERS: &str = r#"
kind: Endpoint
name: api
connector: generic
verify: { token: { at: "header:X-Api-Token" } }
secrets: [api-token-0123456789]
---
kind: Workflow
name: quote
on: { event: generic.quote }
steps:
  - { id: slow, when: "{{ event.data.slow | default(false) }}", sleep: 2s }
  - id: say
    respond:
      status: 201
      headers: { x-total: "{{ event.data.n * 3 }}", x-note: "{{ event.data.note | default('none') }}" }
      body: { total: "{{ event.data.n * 3 }}" }
      within: 1s
  - { id: tell, emit: { type: quote.made, key: "{{ event.data.n }}", data: { total: "{{ event.data.n * 3 }}" } } }
---
kind: Workflow
name: silent
on: { event: generic.silent }
steps:
  - { id: stop, when: "{{ event.data.n > 0 }}", stop: { status: failed, reason: no } }
  - { id: say, respond: { within: 50s } }
---
kind: Workflow
name: an_offer_that_cannot_be_judged
on: { event: generic.offer, where: "{{ event.data.gone > 1 }}" }
steps:
  - { id: say, respond: { status: 299 } }
---
kind: Workflow
name: offer
on: { event: generic.offer }
steps:
  - { id: say, respond: { status: 201, body: { offer: "{{ event.data.n }}" } } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_answered_now_or_at_an_address_of_its_own() {
    let server = Server::start().await;
    server.apply(ANSWERS);
    let url = format!("{}/hooks/main/api", server.url);
    let post = async |body: Value| {
        let request = http().post(&url).header("x-api-token", "api-token-0123456789");
        request.body(body.to_string()).send().await.unwrap()
    };
    let answer = post(json!({ "type": "quote", "id": "q1", "n": 2, "note": "one\nset-cookie: a=b" })).await;
    assert_eq!(answer.status(), 201);
    let header = |name: &str| {
        answer
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(header("x-total").as_deref(), Some("6"));
    // What no header can carry is left out, and the step says so.
    assert_eq!((header("x-note"), header("set-cookie")), (None, None));
    let run = server.runs(&[])[0]["id"].as_str().unwrap().to_owned();
    let shown = stdout(&server.weir(&["run", "show", &run, "--bodies"]));
    let shown: String = shown.split_whitespace().collect();
    assert!(shown.contains(r#""unfit":["x-note"]"#), "{shown}");
    assert!(shown.contains("leftout,asnoanswercancarryit:headerx-note"), "{shown}");
    assert_eq!(header("content-security-policy").as_deref(), Some("sandbox"));
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "total": 6 }));
    // The same event again gets the same answer, and nothing runs again.
    let answer = post(json!({ "type": "quote", "id": "q1", "n": 2 })).await;
    assert_eq!(
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()),
        (201, json!({ "total": 6 }))
    );
    assert_eq!(server.runs(&[]).len(), 1);
    // Another type with the same id is another event.
    let paid = post(json!({ "type": "unheard", "id": "q1" })).await;
    assert_eq!(paid.status(), 200);
    let types: Vec<String> = server
        .list(&["events", "--json"])
        .iter()
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(types, ["unheard", "quote"]);

    let late = post(json!({ "type": "quote", "id": "q2", "n": 5, "slow": true })).await;
    assert_eq!(late.status(), 202);
    let body: Value = late.json().await.unwrap();
    let address = body["answer_url"].as_str().unwrap().to_owned();
    assert_eq!(http().get(&address).send().await.unwrap().status(), 202);
    let answer = eventually("the answer is there", SOON, async || {
        let answer = http().get(&address).send().await.unwrap();
        (answer.status() == 201).then_some(answer)
    })
    .await;
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "total": 15 }));
    // The same proof for another run, and no proof at all.
    let (run, proof) = address.rsplit_once('.').unwrap();
    for forged in [
        format!("{}/answers/run_0000000000001.{proof}", server.url),
        run.to_owned(),
    ] {
        assert_eq!(http().get(&forged).send().await.unwrap().status(), 404, "{forged}");
    }

    // A run that is over keeps nobody waiting.
    let silent = post(json!({ "type": "silent", "id": "s1", "n": 1 }));
    let silent = tokio::time::timeout(Duration::from_secs(25), silent).await.unwrap();
    assert_eq!(silent.status(), 202);
    let body: Value = silent.json().await.unwrap();
    let gone = http().get(body["answer_url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(gone.status(), 410);

    // Whoever never began answers nobody, not even when the event comes again.
    for time in ["first", "again"] {
        let offer = post(json!({ "type": "offer", "id": "o1", "n": 4 })).await;
        assert_eq!(offer.status(), 201, "{time}");
        assert_eq!(offer.json::<Value>().await.unwrap(), json!({ "offer": 4 }), "{time}");
    }

    let told = eventually("both events are stored", Duration::from_secs(10), async || {
        let query = json!({ "query": "{ outgoingEvents { nodes { type key data step } } }" });
        let answer = http()
            .post(format!("{}/graphql", server.url))
            .bearer_auth(&server.token)
            .json(&query);
        let body: Value = answer.send().await.unwrap().json().await.unwrap();
        let nodes = body["data"]["outgoingEvents"]["nodes"].as_array().unwrap().clone();
        (nodes.len() == 2).then_some(nodes)
    })
    .await;
    assert_eq!(
        told[1],
        json!({ "type": "quote.made", "key": "2", "data": { "total": 6 }, "step": "tell" })
    );
}

/// How long a workflow takes to answer tells nothing about how busy the way in is.
#[tokio::test(flavor = "multi_thread")]
async fn callers_that_wait_for_answers_shed_no_webhooks() {
    let server = Server::start().await;
    server.apply(
        "kind: Endpoint\nname: api\nconnector: generic\nverify: { token: { at: \"header:X-Api-Token\" } }\nsecrets: [t]\n---\n\
         kind: Workflow\nname: slow\non: { event: generic.quote }\nsteps:\n  - { id: think, sleep: 1s }\n  - { id: say, respond: { status: 201, within: 40s } }\n",
    );
    let url = format!("{}/hooks/main/api", server.url);
    let client = http();
    let burst = async |name: &str| {
        let posts = (0..64).map(|number| {
            let body = json!({ "type": "quote", "id": format!("{name}{number}") });
            let request = client.post(&url).header("x-api-token", "t");
            request.body(body.to_string()).send()
        });
        let answers = futures::future::join_all(posts).await;
        let statuses: BTreeSet<u16> = answers
            .into_iter()
            .map(|answer| answer.unwrap().status().as_u16())
            .collect();
        statuses
    };
    // The first burst is taken by any server at rest; the second one by a server that is not slow.
    assert_eq!(burst("a").await, BTreeSet::from([201]));
    assert_eq!(burst("b").await, BTreeSet::from([201]));
}
