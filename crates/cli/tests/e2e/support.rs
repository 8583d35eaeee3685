//! Starts the real executable and talks to it the way its users do: files, command line, HTTP.
//!
//! No test sleeps for a fixed time: [`eventually`] waits for a condition, with a deadline and a name.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::{Connection as _, PgConnection};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The executable under test.
pub(crate) const WEIR: &str = env!("CARGO_BIN_EXE_weir");
/// How long a condition may take that normally takes a moment; generous, because machines that test are busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// A master key for tests.
pub(crate) const MASTER_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A `weir` command that inherits no settings and runs in `folder`.
pub(crate) fn weir(folder: &Path) -> Command {
    let mut command = Command::new(WEIR);
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("WEIR_") || name.starts_with("OTEL_"))
        {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// Waits until `probe` gives something; panics with `what` after `limit`.
pub(crate) async fn eventually<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let started = tokio::time::Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < limit, "after {limit:?} still not: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The text of what a command printed.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The text of what a command complained about.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running `weir serve` with a data folder of its own. Dropping it kills the process.
pub(crate) struct Server {
    child: Option<Child>,
    pub(crate) folder: TempDir,
    pub(crate) url: String,
    pub(crate) token: String,
    settings: BTreeMap<String, String>,
    wrapper: Vec<String>,
}

impl Server {
    /// Starts on SQLite in a fresh folder, allowed to call loopback.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[("WEIR_EGRESS_ALLOW", "127.0.0.0/8")]).await
    }

    /// Starts with these settings and no others.
    pub(crate) async fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_under(&[], settings).await
    }

    /// Starts under another program, such as `strace`.
    pub(crate) async fn start_under(wrapper: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut server = Self::not_started(wrapper, settings);
        server.start_again().await;
        server
    }

    /// A folder and settings, for [`Server::start_again`].
    pub(crate) fn not_started(wrapper: &[&str], settings: &[(&str, &str)]) -> Self {
        Server {
            child: None,
            folder: tempfile::tempdir().unwrap(),
            url: String::new(),
            token: "test-admin-token-0123456789".to_owned(),
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            wrapper: wrapper.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("weir-data")
    }

    /// Everything the process wrote to standard error so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Starts the process (again), on the same data and port, and waits until it is ready.
    pub(crate) async fn start_again(&mut self) {
        let announced = self.data().join("weir.url");
        let _none_yet = std::fs::remove_file(&announced);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let mut command = weir(self.folder.path());
        if let Some((program, rest)) = self.wrapper.split_first() {
            let mut wrapped = Command::new(program);
            wrapped
                .args(rest)
                .arg(WEIR)
                .current_dir(self.folder.path())
                .stdin(Stdio::null());
            for (name, value) in command.get_envs() {
                match value {
                    Some(value) => wrapped.env(name, value),
                    None => wrapped.env_remove(name),
                };
            }
            command = wrapped;
        }
        let listen = self.url.strip_prefix("http://").unwrap_or("127.0.0.1:0").to_owned();
        command
            .arg("serve")
            .env("WEIR_LISTEN", listen)
            .env("WEIR_ADMIN_TOKEN", &self.token)
            .env("WEIR_DATA_FOLDER", self.data());
        command.envs(&self.settings);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.child = Some(child);
        self.url = eventually("the server says where it listens", SOON, async || {
            if let Some(status) = self.exit_code() {
                panic!("the server ended with {status:?}:\n{}", self.log());
            }
            std::fs::read_to_string(&announced)
                .ok()
                .filter(|text| text.ends_with('\n'))
                .map(|text| text.trim().to_owned())
        })
        .await;
        let ready = format!("{}/readyz", self.url);
        eventually("the server is ready", SOON, async || {
            let answer = http().get(&ready).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    fn exit_code(&mut self) -> Option<Option<i32>> {
        let child = self.child.as_mut()?;
        child.try_wait().unwrap().map(|status| status.code())
    }

    /// Number of the process.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends the process a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let process = self.process_id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &process]).status();
        assert!(sent.unwrap().success());
    }

    /// Whether the process still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.is_some() && self.exit_code().is_none()
    }

    /// Ends the process like a power cut would: SIGKILL, no warning.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if self.wrapper.is_empty() {
            child.kill().unwrap();
        } else {
            // The wrapper ends with what it runs, not the other way round.
            let pid = std::fs::read_to_string(self.data().join("weir.pid")).unwrap_or_default();
            let _ended = Command::new("kill").args(["-KILL", pid.trim()]).status();
        }
        child.wait().unwrap();
    }

    /// Ends the process the polite way and gives its exit code.
    pub(crate) async fn stop(&mut self) -> Option<i32> {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let code = eventually("the server stops", SOON, async || self.exit_code()).await;
        self.child = None;
        code
    }

    /// A client command against this server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = weir(self.folder.path());
        command
            .args(arguments)
            .env("WEIR_URL", &self.url)
            .env("WEIR_TOKEN", &self.token);
        command
    }

    /// Runs a command with the server's own settings to its end, such as `backup`.
    pub(crate) fn beside(&self, arguments: &[&str]) -> Output {
        self.command_beside(arguments).output().unwrap()
    }

    /// The same, not run yet.
    pub(crate) fn command_beside(&self, arguments: &[&str]) -> Command {
        let mut command = weir(self.folder.path());
        command
            .args(arguments)
            .env("WEIR_LISTEN", "127.0.0.1:0")
            .env("WEIR_ADMIN_TOKEN", &self.token)
            .env("WEIR_DATA_FOLDER", self.data())
            .envs(&self.settings);
        command
    }

    /// Takes a setting away, or gives another one, from the next start on.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.settings.insert(name.to_owned(), value.to_owned()),
            None => self.settings.remove(name),
        };
    }

    /// Runs a client command to its end.
    pub(crate) fn weir(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// `weir apply -f -` with these documents.
    pub(crate) fn try_apply(&self, documents: &str, extra: &[&str]) -> Output {
        let mut command = self.command(&["apply", "-f", "-"]);
        command
            .args(extra)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(documents.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// The same, which must succeed.
    pub(crate) fn apply(&self, documents: &str) {
        let output = self.try_apply(documents, &[]);
        assert!(
            output.status.success(),
            "apply failed:\n{}{}\nserver:\n{}",
            stdout(&output),
            stderr(&output),
            self.log()
        );
    }

    /// The runs as `weir runs --json` tells them, newest first.
    pub(crate) fn runs(&self, extra: &[&str]) -> Vec<Value> {
        let mut arguments = vec!["runs", "--json", "--limit", "1000"];
        arguments.extend(extra);
        self.list(&arguments)
    }

    /// Any list command with `--json`.
    pub(crate) fn list(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.weir(arguments);
        assert!(output.status.success(), "{arguments:?} failed:\n{}", stderr(&output));
        stdout(&output)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// All events, however many: endpoint, id at the provider and source, newest first.
    pub(crate) async fn events(&self) -> Vec<Value> {
        let query = "query Events($after: String) { events(first: 100, after: $after) { \
            nodes { externalId source endpointName } pageInfo { endCursor hasNextPage } } }";
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let (mut found, mut after) = (Vec::new(), Value::Null);
        loop {
            let body = json!({ "query": query, "variables": { "after": after } }).to_string();
            let mut answer = post(&format!("{}/graphql", self.url), &headers, body).await;
            let page = &mut answer.body["data"]["events"];
            match page["nodes"].take() {
                Value::Array(nodes) => found.extend(nodes),
                _ => panic!("{}", answer.text),
            }
            if page["pageInfo"]["hasNextPage"] == false {
                return found;
            }
            after = page["pageInfo"]["endCursor"].take();
        }
    }

    /// Posts a body to an endpoint of the first workspace.
    pub(crate) async fn hook(
        &self,
        endpoint: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        post(&format!("{}/hooks/main/{endpoint}", self.url), headers, body).await
    }

    /// Posts a Stripe event, rightly signed.
    pub(crate) async fn stripe_hook(&self, endpoint: &str, secret: &str, body: &str) -> Answer {
        let signature = stripe_signature(secret, body.as_bytes(), now_unix_s());
        self.hook(
            endpoint,
            &[("stripe-signature", &signature), ("content-type", "application/json")],
            body.to_owned(),
        )
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("server log:\n{}", self.log());
        }
    }
}

/// What the server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    /// Asserts an RFC 9457 problem with this status and code, and gives its detail.
    pub(crate) fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        assert!(
            self.content_type.starts_with("application/problem+json"),
            "{}: {}",
            self.content_type,
            self.text
        );
        assert_eq!(self.body["code"], code, "{}", self.text);
        assert_eq!(self.body["status"], json!(status), "{}", self.text);
        self.body["detail"].as_str().unwrap_or_default().to_owned()
    }
}

/// Posts raw bytes.
pub(crate) async fn post(url: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
    let mut request = http().post(url).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let content_type = response
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let text = response.text().await.unwrap();
    Answer {
        status,
        content_type,
        body: serde_json::from_str(&text).unwrap_or(Value::Null),
        text,
    }
}

/// A client without proxies, so that loopback stays loopback.
pub(crate) fn http() -> reqwest::Client {
    // The second and later installations find it done.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}

/// `Stripe-Signature` of a body (docs.stripe.com/webhooks, "verify manually").
pub(crate) fn stripe_signature(secret: &str, body: &[u8], unix_s: u64) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{unix_s}.").as_bytes());
    mac.update(body);
    let digest: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("t={unix_s},v1={digest}")
}

/// Seconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "a sender of webhooks has a clock of its own")]
pub(crate) fn now_unix_s() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A thin `payment_intent.succeeded`.
pub(crate) fn payment_event(event_id: &str, payment_id: &str) -> String {
    json!({
        "id": event_id, "object": "event", "type": "payment_intent.succeeded", "created": now_unix_s(), "livemode": false,
        "data": { "object": { "id": payment_id, "object": "payment_intent", "amount": 2000, "currency": "eur" } },
    })
    .to_string()
}

/// An endpoint `api` that takes events with the token `t` in `X-Api-Token`.
pub(crate) const API: &str = "
kind: Endpoint
name: api
connector: generic
verify: { token: { at: 'header:X-Api-Token' } }
secrets: [t]
---
";

/// A database of its own on the PostgreSQL of the tests.
pub(crate) struct Database {
    admin: String,
    name: String,
    pub(crate) url: String,
}

impl Database {
    /// Makes it; `name` must be the test's own.
    pub(crate) async fn create(name: &str) -> Self {
        let admin = needed("WEIR_TEST_POSTGRES_URL");
        let name = format!("weir_{name}_{}", std::process::id());
        let mut url = reqwest::Url::parse(&admin).unwrap();
        url.set_path(&name);
        let database = Database {
            url: url.to_string(),
            admin,
            name,
        };
        database.manage("CREATE DATABASE", "").await;
        database
    }

    /// What a server needs to use it.
    pub(crate) fn settings(&self) -> [(&str, &str); 2] {
        [
            ("WEIR_DATABASE_URL", &self.url),
            ("WEIR_MASTER_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
        ]
    }

    /// The answer to a query with one number, or none.
    pub(crate) async fn number(&self, text: &str) -> Option<i64> {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let answer = sqlx::query_scalar(sqlx::AssertSqlSafe(text));
        answer.fetch_one(&mut connection).await.unwrap()
    }

    /// Locks a table, until the connection is dropped.
    pub(crate) async fn locked(&self, table: &str) -> PgConnection {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        for text in [
            "BEGIN".to_owned(),
            format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(text))
                .execute(&mut connection)
                .await
                .unwrap();
        }
        connection
    }

    /// Removes it.
    pub(crate) async fn drop(self) {
        self.manage("DROP DATABASE", "WITH (FORCE)").await;
    }

    async fn manage(&self, what: &str, how: &str) {
        let mut connection = PgConnection::connect(&self.admin).await.unwrap();
        let text = format!("{what} {} {how}", self.name);
        sqlx::query(sqlx::AssertSqlSafe(text))
            .execute(&mut connection)
            .await
            .unwrap();
    }
}

/// A setting the tests need, or a panic that says where it comes from.
#[expect(clippy::disallowed_methods, reason = "the settings of the tests, not of the product")]
pub(crate) fn needed(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_missing| panic!("{name} is not set; `make test` installs what it needs and sets it"))
}
