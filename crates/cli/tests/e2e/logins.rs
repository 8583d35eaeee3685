//! Credentials of several secrets on the real executable: sessions that a login begins, and requests that are signed.

use crate::loopback::{Loopback, Request};
use crate::support::{SOON, Server, eventually, post, stderr, stdout};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const MANIFESTS: [(&str, &str); 2] = [
    (
        "acme-desk.yaml",
        r#"
connector: acme-desk
version: 1.0.0
hosts: ["https://api.acme-desk.test"]
auth:
  session:
    values: [user, password]
    login:
      - { post: /ticket, body: { user: "{{ user }}", password: "{{ password }}" }, take: { ticket: /ticket } }
      - { post: /session, headers: { X-Ticket: "{{ ticket }}" }, take: { token: /data/token }, expires: { in: /data/lasts_ms, unit: ms } }
    headers: { Authorization: "Session {{ token }}" }
    logout: { delete: /session }
operations:
  things.create: { post: /things, body: json, effect: { keyed: { header: Idempotency-Key, window: 24h } } }
"#,
    ),
    (
        "acme-pay.yaml",
        r#"
connector: acme-pay
version: 1.0.0
hosts: ["https://api.acme-pay.test"]
auth:
  signed:
    values: [key_id, secret]
    key: secret
    alg: sha256
    encoding: hex
    separator: "\n"
    parts: [method, target, timestamp, nonce, body]
    timestamp: ms
    headers: { Acme-Key: "{{ key_id }}", Acme-At: "{{ timestamp }}", Acme-Nonce: "{{ nonce }}", Acme-Signature: "v1={{ signature }}" }
  keys:
    values: [api_key, app_key]
    headers: { Acme-Api-Key: "{{ api_key }}" }
    query: { app: "{{ app_key }}" }
operations:
  payments.create: { post: "/payments", query: { b: "2", a: "1" }, body: json, effect: { keyed: { header: Idempotency-Key, window: 24h } } }
"#,
    ),
];

const PASSWORDS: [&str; 2] = ["first-password-0123", "second-password-4567"];
const KEY: (&str, &str) = ("key-id-0123456789", "signing-secret-0123456789");
const KEYS: (&str, &str) = ("api-key-0123456789", "app-key-0123456789");

/// Longer than what waits for a person takes to look again, and than the pause between two tries.
const PATIENCE: Duration = Duration::from_secs(50);

#[derive(Debug, Default)]
struct Books {
    password: String,
    sessions: BTreeSet<String>,
    /// Requests to `/ticket` and to `/session`, and how many of the first were refused.
    logins: (u32, u32, u32),
    logouts: u32,
    /// API requests without a session that is known.
    refused: u32,
    effects: BTreeMap<String, u32>,
    /// Answers 503 so many times.
    fails: u32,
    nonces: BTreeSet<String>,
    /// Signed requests that were taken, by key and moment.
    signed: Vec<(String, i64)>,
    keyed: u32,
}

/// Both providers. They end with the runtime of their test.
#[derive(Clone)]
struct Provider {
    url: String,
    books: Arc<Mutex<Books>>,
}

impl Provider {
    async fn start() -> Self {
        let loopback = Loopback::bind().await;
        let books = Books {
            password: PASSWORDS[0].to_owned(),
            ..Books::default()
        };
        let provider = Provider {
            url: loopback.url.clone(),
            books: Arc::new(Mutex::new(books)),
        };
        let serving = provider.clone();
        loopback.serve(move |request| {
            let answer = serving.answer(&request);
            async move { answer }
        });
        provider
    }

    fn with<T>(&self, look: impl FnOnce(&mut Books) -> T) -> T {
        look(&mut self.books.lock().unwrap())
    }

    fn answer(&self, request: &Request) -> (u16, Value) {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        self.with(|books| match request.line() {
            ("POST", "/ticket") => {
                books.logins.0 += 1;
                if body["user"] != "ann@acme.test" || body["password"] != books.password.as_str() {
                    books.logins.2 += 1;
                    return (401, json!({ "error": format!("{} is wrong", body["password"]) }));
                }
                (200, json!({ "ticket": format!("ticket-{:08}", books.logins.0) }))
            }
            ("POST", "/session") => {
                books.logins.1 += 1;
                let ticket = request.header("x-ticket").unwrap_or_default();
                assert_eq!(ticket, format!("ticket-{:08}", books.logins.0));
                let token = format!("session-token-{:08}", books.logins.1);
                books.sessions.insert(token.clone());
                (200, json!({ "data": { "token": token, "lasts_ms": 3_600_000 } }))
            }
            ("POST", target) if target.starts_with("/payments") => books.payment(request),
            (method, _) => {
                let token = request
                    .header("authorization")
                    .and_then(|text| text.strip_prefix("Session "));
                let token = token.unwrap_or_default().to_owned();
                if !books.sessions.contains(&token) {
                    books.refused += 1;
                    return (401, json!({ "error": format!("{token} is over") }));
                }
                if method == "DELETE" {
                    books.sessions.remove(&token);
                    books.logouts += 1;
                    return (200, json!({}));
                }
                let key = request.header("idempotency-key").unwrap_or_default().to_owned();
                *books.effects.entry(key).or_default() += 1;
                // Some servers show what they were sent.
                (200, json!({ "ok": true, "by": token }))
            }
        })
    }
}

impl Books {
    fn payment(&mut self, request: &Request) -> (u16, Value) {
        let header = |name: &str| request.header(name).unwrap_or_default();
        if header("acme-api-key") == KEYS.0 {
            let (_, target) = request.line();
            assert_eq!(target, format!("/payments?b=2&a=1&app={}", KEYS.1));
            self.keyed += 1;
            return (200, json!({ "app": KEYS.1 }));
        }
        let (method, target) = request.line();
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let text = [method, target, header("acme-at"), header("acme-nonce"), &body].join("\n");
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY.1.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        let wanted = format!("v1={}", hex(&mac.finalize().into_bytes()));
        let is_new = self.nonces.insert(header("acme-nonce").to_owned());
        if header("acme-key") != KEY.0 || header("acme-signature") != wanted || !is_new {
            return (401, json!({ "error": "this request is not signed as it should be" }));
        }
        let at = header("acme-at").parse().unwrap();
        self.signed.push((header("idempotency-key").to_owned(), at));
        if self.fails > 0 {
            self.fails -= 1;
            return (503, json!({}));
        }
        (200, json!({ "signature": wanted }))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn server() -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in MANIFESTS {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let path = folder.path().display().to_string();
    let server = Server::start_with(&[("WEIR_EGRESS_ALLOW", "127.0.0.0/8"), ("WEIR_CONNECTORS", &path)]).await;
    let checked = server.weir(&["connector", "check", &path]);
    assert!(checked.status.success(), "{}", stderr(&checked));
    (server, folder)
}

fn connection(name: &str, connector: &str, url: &str, credential: &Value) -> String {
    format!(
        "kind: Connection\nname: {name}\nconnector: {connector}\nconfig: {{ base_url: \"{url}\" }}\ncredential: {credential}\n"
    )
}

fn workflow(name: &str, call: &str, connection: &str) -> String {
    format!(
        "---\nkind: Workflow\nname: {name}\non: {{ manual: {{ input: {{ type: object }} }} }}\nsteps:\n  - {{ id: make, call: {call}, connection: {connection}, with: {{ n: 1 }} }}\n"
    )
}

fn run(server: &Server, workflow: &str) {
    let started = server.weir(&["run", "start", workflow, "--input", "{}"]);
    assert!(started.status.success(), "{}", stderr(&started));
}

async fn succeeded(server: &Server, count: usize) {
    eventually(&format!("{count} runs have succeeded"), PATIENCE, async || {
        (server.runs(&["--status", "succeeded"]).len() == count).then_some(())
    })
    .await;
    assert_eq!(server.runs(&["--status", "failed"]), Vec::<Value>::new());
}

async fn query(server: &Server, query: &str) -> Value {
    let bearer = format!("Bearer {}", server.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let answer = post(
        &format!("{}/graphql", server.url),
        &headers,
        json!({ "query": query }).to_string(),
    )
    .await;
    let mut answered: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(answered["errors"], Value::Null, "{answered}");
    answered["data"].take()
}

/// Nothing of these is told or on disk in clear: in stories of runs, the log, an export, the data folder.
async fn nowhere(server: &Server, secrets: &[&str]) {
    let asked = "{ runs(first: 20) { nodes { steps { note attempts { error exchanges { curl url requestHeaders { name value } requestBody responseHeaders { name value } responseBody } } } } } }";
    let stories = query(server, asked).await.to_string();
    let shown: String = server
        .runs(&[])
        .iter()
        .map(|run| stdout(&server.weir(&["run", "show", run["id"].as_str().unwrap()])))
        .collect();
    let told = format!("{stories}{shown}{}{}", stdout(&server.weir(&["export"])), server.log());
    let entries = std::fs::read_dir(server.data())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files: Vec<Vec<u8>> = entries
        .filter(|path| path.is_file())
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    for secret in secrets {
        assert!(!told.contains(secret), "{secret} is told");
        let is_in = |file: &Vec<u8>| file.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!files.iter().any(is_in), "{secret} is on disk");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_logs_in_again_after_a_crash_and_a_refusal_and_waits_for_a_person() {
    let provider = Provider::start().await;
    let (mut server, _manifests) = server().await;
    let desk = |values: Value| connection("desk", "acme-desk", &provider.url, &json!({ "session": values }));

    // The names are the connector's.
    let refused = server.try_apply(
        &desk(json!({ "user": "ann@acme.test", "pasword": "first-password-0123" })), // misspelt on purpose
        &[],
    );
    assert!(!refused.status.success());
    let told = stderr(&refused);
    assert!(
        told.contains("`password` is missing") && told.contains("did you mean `password`?"),
        "{told}"
    );
    assert!(!told.contains("first-password"), "{told}");

    let credential = json!({ "user": "ann@acme.test", "password": PASSWORDS[0] });
    server.apply(&format!(
        "{}{}",
        desk(credential),
        workflow("flows", "acme-desk.things.create", "desk")
    ));
    for _ in 0..8 {
        run(&server, "flows");
    }
    succeeded(&server, 8).await;
    assert_eq!(provider.with(|books| books.logins), (1, 1, 0), "one login for all");

    // The provider ends the session: one more.
    provider.with(|books| books.sessions.clear());
    for _ in 0..4 {
        run(&server, "flows");
    }
    succeeded(&server, 12).await;
    assert_eq!(provider.with(|books| books.logins), (2, 2, 0));

    // A session dies with its process, and the next one begins another.
    server.kill();
    server.start_again().await;
    run(&server, "flows");
    succeeded(&server, 13).await;
    assert_eq!(provider.with(|books| (books.logins, books.logouts)), ((3, 3, 0), 0));

    // Disconnected: the session ends there, and the next call begins another one.
    let left = server.weir(&["connection", "disconnect", "desk"]);
    assert!(left.status.success(), "{}", stderr(&left));
    assert!(stdout(&left).contains("took its access back"), "{}", stdout(&left));
    assert_eq!(provider.with(|books| books.logouts), 1);
    let again = server.weir(&["connection", "disconnect", "desk"]);
    assert!(stderr(&again).contains("is not connected"), "{}", stderr(&again));
    run(&server, "flows");
    succeeded(&server, 14).await;
    assert_eq!(provider.with(|books| books.logins), (4, 4, 0));

    // Another password there: one login is refused, and what waits goes on with the right one.
    provider.with(|books| {
        PASSWORDS[1].clone_into(&mut books.password);
        books.sessions.clear();
    });
    for _ in 0..3 {
        run(&server, "flows");
    }
    let connection = eventually("the connection waits for a person", SOON, async || {
        let mut told = query(&server, "{ connection(name: \"desk\") { health loginError } }").await;
        let connection = told["connection"].take();
        (connection["health"] == "NEEDS_REAUTH").then_some(connection)
    })
    .await;
    let reason = connection["loginError"].as_str().unwrap();
    assert!(
        reason.contains("the login was refused: http_401") && reason.contains("`desk`"),
        "{reason}"
    );
    eventually("all three wait", SOON, async || {
        let told = query(&server, "{ runs(first: 3) { nodes { status steps { hold { by } } } } }").await;
        let nodes = told["runs"]["nodes"].as_array().unwrap();
        let waits = |run: &Value| run["status"] == "WAITING" && run["steps"][0]["hold"]["by"] == "REAUTH";
        nodes.iter().all(waits).then_some(())
    })
    .await;
    assert_eq!(
        provider.with(|books| books.logins),
        (5, 4, 1),
        "no more than one login was tried"
    );
    server.apply(&desk(json!({ "user": "ann@acme.test", "password": PASSWORDS[1] })));
    succeeded(&server, 17).await;
    assert_eq!(provider.with(|books| books.logins), (6, 5, 1));
    let health = query(&server, "{ connection(name: \"desk\") { health loginError } }").await;
    assert_eq!(health["connection"], json!({ "health": "HEALTHY", "loginError": null }));
    provider.with(|books| {
        assert_eq!(books.effects.len(), 17);
        assert!(books.effects.values().all(|times| *times == 1));
    });
    let tokens: Vec<String> = (1..=6).map(|number| format!("session-token-{number:08}")).collect();
    let mut secrets: Vec<&str> = tokens.iter().map(String::as_str).collect();
    secrets.extend(PASSWORDS);
    secrets.extend(["ann@acme.test", "ticket-0000"]);
    nowhere(&server, &secrets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_signed_for_each_try_and_several_keys_stand_where_they_belong() {
    let provider = Provider::start().await;
    let (server, _manifests) = server().await;
    let signed = json!({ "signed": { "key_id": KEY.0, "secret": KEY.1 } });
    let keys = json!({ "keys": { "api_key": KEYS.0, "app_key": KEYS.1 } });
    server.apply(&format!(
        "{}---\n{}{}{}",
        connection("signed", "acme-pay", &provider.url, &signed),
        connection("keyed", "acme-pay", &provider.url, &keys),
        workflow("signs", "acme-pay.payments.create", "signed"),
        workflow("shows", "acme-pay.payments.create", "keyed"),
    ));
    provider.with(|books| books.fails = 1);
    run(&server, "signs");
    run(&server, "shows");
    succeeded(&server, 2).await;
    provider.with(|books| {
        let [(one, first_at), (other, second_at)] = books.signed.as_slice() else {
            panic!("{:?}", books.signed)
        };
        assert_eq!(one, other, "the same call");
        assert!(
            second_at > first_at && books.nonces.len() == 2,
            "signed anew: {first_at} {second_at}"
        );
        assert_eq!(books.keyed, 1);
    });
    nowhere(&server, &[KEY.0, KEY.1, KEYS.0, KEYS.1]).await;
}
