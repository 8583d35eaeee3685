//! A server for one test, a client for it, and a fake system for workflows to call.

use secrecy::SecretString;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use weir_api_server::{Server, ServerOptions};
use weir_orchestrator::clock::SystemClock;
use weir_orchestrator::registry::Registry;
use weir_orchestrator::{Options, Orchestrator, Settings};
use weir_storage::{Database, DatabaseOptions, MasterKey, SecretBox};

/// The admin token of every test server.
pub(crate) const ADMIN: &str = "admin-token-of-the-test";
/// The secret of the endpoint `orders`; no answer may ever hold it.
pub(crate) const ENDPOINT_SECRET: &str = "endpoint-s3cret-never-shown";
/// The credential of the connection `shop`; no answer may ever hold it.
pub(crate) const CREDENTIAL: &str = "credential-s3cret-never-shown";

const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A connector whose effect can be looked for, a moment after it was made.
const NOTES: &str = "
connector: notes
version: 1.0.0
title: Notes
hosts: any
auth: { none: {} }
operations:
  create:
    post: /notes
    body: { text: \"{{ text }}\" }
    input: { text: { type: string, required: true } }
    effect: { find_by: { call: search, with: { text: \"{{ text }}\" }, found: /0, consistent: false, settle: 1s } }
  search:
    get: /notes
    query: { text: \"{{ text }}\" }
    input: { text: { type: string, required: true } }
";

/// A connector whose provider lists its events of the last 30 days, page by page, the newest first.
const LISTS: &str = "
connector: lists
version: 1.0.0
title: Lists
hosts: any
auth: { none: {} }
operations:
  events.list:
    get: /events
    query: { since: \"{{ since }}\", until: \"{{ until }}\" }
    input: { since: optional, until: optional }
    items: /data
    page: { cursor: { next: /next, into: query.page } }
webhook:
  verify: { token: { at: \"header:X-Token\" } }
  identify: { id: /id, type: /type, time: /created }
  recover:
    level: A
    call: events.list
    with: { since: \"{{ since_s }}\", until: \"{{ until_s }}\" }
    cursor: time
    order: newest_first
    reach: 30d
    expired: [410]
events:
  \"*\": { hydrate_default: never }
";

/// One running server.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) orchestrator: Orchestrator,
    pub(crate) http: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
    folder: TempDir,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    pub(crate) async fn start_with(settings: Settings) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), settings).await
    }

    /// Starts on what an earlier server left in a folder.
    pub(crate) async fn start_in(folder: TempDir, settings: Settings) -> Self {
        let url = format!("sqlite://{}", folder.path().join("weir.db").display());
        let (store, mut writer) = Database::open(&url, DatabaseOptions::default()).await.unwrap();
        let secrets = SecretBox::new(MasterKey::from_base64(MASTER_KEY).unwrap());
        writer.check_key(&secrets).await.unwrap();
        let node = writer.register("test").await.unwrap();
        let mut connectors = Registry::default();
        for builtin in weir_connectors::builtin() {
            connectors
                .add(builtin.name, builtin.yaml, &|path| {
                    builtin.file(path).map(str::to_owned)
                })
                .unwrap();
        }
        connectors.add("notes", NOTES, &|_path| None).unwrap();
        connectors.add("lists", LISTS, &|_path| None).unwrap();
        let settings = Settings {
            data_folder: Some(folder.path().to_owned()),
            public_url: "https://hooks.example.test".to_owned(),
            egress_allow: vec!["127.0.0.0/8".to_owned()],
            ..settings
        };
        let orchestrator = Orchestrator::start(Options {
            settings,
            clock: Arc::new(SystemClock),
            store,
            writer,
            node,
            secrets,
            connectors,
        })
        .await
        .unwrap();
        let server = Server::bind(
            orchestrator.clone(),
            ServerOptions {
                listen: "127.0.0.1:0".parse().unwrap(),
                admin_token: Some(SecretString::from(ADMIN)),
                render_metrics: Arc::new(|| "# metrics\n".to_owned()),
                workers: 1,
            },
        )
        .unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async move {
            let _gone = stopped.await;
        }));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        TestServer {
            address,
            orchestrator,
            http,
            stop: Some(stop),
            task,
            folder,
        }
    }

    /// Stops gracefully and waits until it has stopped; gives its folder.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap().unwrap();
        self.orchestrator.shutdown().await;
        self.folder
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A GraphQL request with the admin token; fails the test unless it was executed without errors.
    pub(crate) async fn query(&self, query: &str, variables: Value) -> Value {
        let answer = self.raw_query(ADMIN, query, variables).await;
        assert!(answer.get("errors").is_none(), "{query}\n{answer:#}");
        answer["data"].clone()
    }

    /// A GraphQL request as it is answered.
    pub(crate) async fn raw_query(&self, token: &str, query: &str, variables: Value) -> Value {
        let body = json!({ "query": query, "variables": variables });
        let request = self.http.post(self.url("/graphql")).bearer_auth(token).json(&body);
        request.send().await.unwrap().json().await.unwrap()
    }

    /// Applies documents; fails the test when they are refused.
    pub(crate) async fn apply(&self, documents: &[Value]) {
        let texts: Vec<String> = documents.iter().map(Value::to_string).collect();
        let query = "mutation($input: ApplyDocumentsInput!) { applyDocuments(input: $input) { applied userErrors { message path } } }";
        let data = self.query(query, json!({ "input": { "documents": texts } })).await;
        assert_eq!(data["applyDocuments"]["userErrors"], json!([]));
    }

    /// Sends a webhook to a path.
    pub(crate) async fn hook(&self, path: &str, secret: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        self.http
            .post(self.url(path))
            .header("x-token", secret)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap()
    }

    /// Repeats a query until its answer is as wanted; fails the test after about ten seconds.
    pub(crate) async fn until(&self, query: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..500 {
            let data = self.query(query, json!({})).await;
            if wanted(&data) {
                return data;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("never came true: {query}\n{:#}", self.query(query, json!({})).await);
    }

    /// Waits until a run is over and gives it with its story.
    pub(crate) async fn finished(&self, run: &str) -> Value {
        let query = format!(
            "{{ run(id: \"{run}\") {{ id status error {{ code step message }} steps {{ path kind status output note \
             effect {{ key class state }} attempts {{ number outcome error exchanges {{ method url status \
             requestHeaders {{ name value }} requestBody responseBody curl }} }} }} }} }}"
        );
        let over = |data: &Value| data["run"]["status"] != "RUNNING" && data["run"]["status"] != "WAITING";
        self.until(&query, over).await["run"].clone()
    }
}

/// An endpoint whose requests carry a shared token.
pub(crate) fn orders_endpoint() -> Value {
    json!({
        "kind": "Endpoint", "name": "orders", "connector": "generic",
        "verify": { "token": { "at": "header:X-Token" } },
        "secrets": [ENDPOINT_SECRET],
    })
}

/// A workflow that any order starts and that calls nobody.
pub(crate) fn note_workflow() -> Value {
    json!({
        "kind": "Workflow", "name": "note",
        "on": { "event": "generic.order.placed" },
        "steps": [{ "id": "seen", "set": { "order": "{{ event.data.id }}" } }],
    })
}

/// A connection to a system of our own.
pub(crate) fn shop_connection(base_url: &str) -> Value {
    json!({
        "kind": "Connection", "name": "shop", "connector": "http",
        "config": { "base_url": base_url, "idempotency": { "header": "Idempotency-Key" } },
        "credential": { "bearer": { "token": CREDENTIAL } },
    })
}

/// A workflow that is started by hand and posts to the shop.
pub(crate) fn post_workflow() -> Value {
    json!({
        "kind": "Workflow", "name": "post-order",
        "on": { "manual": { "input": { "type": "object", "required": ["order"], "properties": { "order": { "type": "string" } } } } },
        "steps": [{
            "id": "send", "call": "http.request", "connection": "shop",
            "with": { "method": "POST", "path": "/orders", "body": { "order": "{{ event.data.order }}" } },
        }],
    })
}

/// A system that answers every request with `{"ok":true}` and keeps what it saw.
pub(crate) struct FakeShop {
    pub(crate) url: String,
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

impl FakeShop {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::serve(stream, Arc::clone(&kept)));
            }
        });
        FakeShop { url, seen }
    }

    async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>) {
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            received.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&received).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .to_lowercase()
                .lines()
                .find_map(|line| {
                    line.strip_prefix("content-length:")
                        .map(|value| value.trim().parse::<usize>().unwrap())
                })
                .unwrap_or(0);
            if body.len() < length {
                continue;
            }
            seen.lock().unwrap().push(text);
            received.clear();
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
