//! Connections that people let in, on the real executable: connecting, renewing, losing and finding access again.

use crate::authorization_server::{AuthorizationServer, CLIENT, Refresh};
use crate::nodes::node;
use crate::support::{Answer, Database, SOON, Server, eventually, http, now_unix_s, post, stderr, stdout};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

const MANIFEST: &str = r#"
connector: acme-crm
version: 1.0.0
hosts: ["https://api.acme-crm.test"]
config: { login: { format: url, required: true } }
auth:
  oauth2:
    grant: authorization_code
    authorize_url: "{{ config.login }}/authorize"
    token_url: "{{ config.login }}/token"
    revoke_url: "{{ config.login }}/revoke"
    issuer: "{{ config.login }}"
    scopes: [read, write]
    scope_separator: ","
    authorize_params: { access_type: offline }
    refresh_rotates: yes
  test: { call: me.get, account: /id, label: /email }
operations:
  me.get: { get: /me }
  things.create: { post: /things, body: json, effect: { keyed: { header: Idempotency-Key, window: 24h } } }
  things.forbidden: { get: /forbidden }
"#;

/// Longer than two pauses between refreshes that fail, and a look of whoever waits for a person.
const PATIENCE: Duration = Duration::from_secs(50);

/// Servers with the connector, and the provider.
struct Bed {
    provider: AuthorizationServer,
    servers: Vec<Server>,
    database: Option<Database>,
    _manifests: TempDir,
}

impl Bed {
    async fn sqlite() -> Self {
        let manifests = manifests();
        let folder = manifests.path().display().to_string();
        let server = Server::start_with(&[("WEIR_EGRESS_ALLOW", "127.0.0.0/8"), ("WEIR_CONNECTORS", &folder)]).await;
        Self::of(vec![server], None, manifests).await
    }

    async fn postgres(name: &str, nodes: usize) -> Self {
        let manifests = manifests();
        let folder = manifests.path().display().to_string();
        let database = Database::create(name).await;
        let mut servers = Vec::new();
        for number in 0..nodes {
            servers.push(node(&database, &format!("node-{number}"), &[("WEIR_CONNECTORS", &folder)]).await);
        }
        Self::of(servers, Some(database), manifests).await
    }

    async fn of(servers: Vec<Server>, database: Option<Database>, manifests: TempDir) -> Self {
        let provider = AuthorizationServer::start().await;
        let (id, secret) = CLIENT;
        servers[0].apply(&format!(
            r#"
kind: Connection
name: crm
connector: acme-crm
config: {{ login: "{0}", base_url: "{0}" }}
credential: {{ oauth2: {{ client_id: "{id}", client_secret: "{secret}" }} }}
---
kind: Workflow
name: flows
on: {{ manual: {{ input: {{ type: object, required: [id], properties: {{ id: {{ type: string }} }} }} }} }}
steps:
  - id: make
    call: acme-crm.things.create
    connection: crm
    with: {{ id: "{{{{ event.data.id }}}}" }}
"#,
            provider.url
        ));
        Bed {
            provider,
            servers,
            database,
            _manifests: manifests,
        }
    }

    fn server(&self) -> &Server {
        &self.servers[0]
    }

    /// Where `weir connection authorize` sends a person.
    fn authorize_url(&self, more: &[&str]) -> String {
        let mut arguments = vec!["connection", "authorize", "crm", "--json"];
        arguments.extend(more);
        let told = self.server().weir(&arguments);
        assert!(told.status.success(), "{}", stderr(&told));
        let told: Value = serde_json::from_str(&stdout(&told)).unwrap();
        told["authorizeUrl"].as_str().unwrap().to_owned()
    }

    async fn connect(&self) {
        let back = self.provider.agree(&self.authorize_url(&[]));
        let page = get(back.as_str()).await;
        assert_eq!(page.status, 200, "{}", page.text);
    }

    async fn connection(&self, number: usize) -> Value {
        let asked = "{ connection(name: \"crm\") { health grant { account label scopes error connectedAt refreshedAt \
            refreshingSince refreshingBy } } }";
        query(&self.servers[number], asked, json!({})).await["connection"].take()
    }

    async fn is(&self, health: &str) -> Value {
        eventually(&format!("the connection is {health}"), PATIENCE, async || {
            let connection = self.connection(0).await;
            (connection["health"] == health).then_some(connection)
        })
        .await
    }

    /// Waits until the access token is over, for the provider and for us.
    async fn token_ends(&self) {
        eventually("the access token is over", SOON, async || {
            let asked = "{ connection(name: \"crm\") { grant { expiresAt } } }";
            let mut told = query(self.server(), asked, json!({})).await;
            let ends_at = told["connection"]["grant"]["expiresAt"].take();
            let ends_at = chrono::DateTime::parse_from_rfc3339(ends_at.as_str()?).unwrap();
            (ends_at.timestamp_millis() / 1_000 < i64::try_from(now_unix_s()).unwrap()).then_some(())
        })
        .await;
        self.provider.expire();
    }

    async fn run(&self, number: usize, id: &str) {
        let mutation =
            "mutation Start($input: RunStartInput!) { runStart(input: $input) { userErrors { code message } } }";
        let input = json!({ "input": { "workflow": "flows", "input": { "id": id } } });
        let started = query(&self.servers[number], mutation, input).await;
        assert_eq!(started["runStart"]["userErrors"], json!([]), "{started}");
    }

    /// Waits until so many runs have succeeded; no other has ended.
    async fn all_succeed(&self, count: usize) {
        eventually("all runs have succeeded", PATIENCE, async || {
            (self.server().runs(&["--status", "succeeded"]).len() == count).then_some(())
        })
        .await;
        assert_eq!(self.server().runs(&["--status", "failed"]), Vec::<Value>::new());
        let (made, most) = self.provider.effects();
        assert_eq!((made, most), (count, 1), "each thing was made once");
    }

    /// Waits until a step of the only run is held by this, and gives its note.
    async fn held_by(&self, what: &str) -> String {
        eventually(&format!("the run is held by {what}"), PATIENCE, async || {
            let asked = "{ runs(first: 1) { nodes { status steps { note hold { by } } } } }";
            let mut told = query(self.server(), asked, json!({})).await;
            let run = told["runs"]["nodes"][0].take();
            let held = run["status"] == "WAITING" && run["steps"][0]["hold"]["by"] == what;
            held.then(|| run["steps"][0]["note"].as_str().unwrap_or_default().to_owned())
        })
        .await
    }

    async fn end(self) {
        let Bed { servers, database, .. } = self;
        drop(servers);
        if let Some(database) = database {
            database.drop().await;
        }
    }
}

fn manifests() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("acme-crm.yaml"), MANIFEST).unwrap();
    folder
}

async fn query(server: &Server, query: &str, variables: Value) -> Value {
    let bearer = format!("Bearer {}", server.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = json!({ "query": query, "variables": variables }).to_string();
    let answer = post(&format!("{}/graphql", server.url), &headers, body).await;
    let mut answered: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(answered["errors"], Value::Null, "{answered}");
    answered["data"].take()
}

async fn get(url: &str) -> Answer {
    let answer = http().get(url).send().await.unwrap();
    let status = answer.status().as_u16();
    let header = |name: &str| {
        answer
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    assert_eq!(header("cache-control").as_deref(), Some("no-store"));
    let content_type = header("content-type").unwrap_or_default();
    let text = answer.text().await.unwrap();
    Answer {
        status,
        content_type,
        body: Value::Null,
        text,
    }
}

/// A way back that leads nowhere: its page, which says this.
async fn refused(url: &reqwest::Url, status: u16, code: &str, part: &str) {
    let page = get(url.as_str()).await;
    assert_eq!(page.status, status, "{}", page.text);
    assert!(page.content_type.starts_with("text/plain"), "{}", page.content_type);
    assert!(page.text.contains(code) && page.text.contains(part), "{}", page.text);
}

fn changed(url: &reqwest::Url, name: &str, value: Option<&str>) -> reqwest::Url {
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let mut url = url.clone();
    url.query_pairs_mut().clear();
    for (key, old) in pairs {
        match (key == name, value) {
            (true, None) => {}
            (true, Some(value)) => {
                url.query_pairs_mut().append_pair(&key, value);
            }
            (false, _) => {
                url.query_pairs_mut().append_pair(&key, &old);
            }
        }
    }
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_let_in_waited_for_and_given_back_on_sqlite() {
    let bed = Bed::sqlite().await;
    round_trip(&bed).await;
    // Nothing of a token is on disk in clear, nor was it told.
    let data = bed.server().data();
    let exported = stdout(&bed.server().weir(&["export"]));
    let told = format!("{exported}{}", bed.server().log());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            files.push(std::fs::read(&path).unwrap());
        }
    }
    for secret in bed.provider.secrets() {
        assert!(!told.contains(&secret), "{secret} is in the log or an export");
        let is_in = |file: &Vec<u8>| file.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!files.iter().any(is_in), "{secret} is on disk");
    }
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_let_in_waited_for_and_given_back_on_postgres() {
    let bed = Bed::postgres("grants_trip", 1).await;
    round_trip(&bed).await;
    bed.end().await;
}

async fn round_trip(bed: &Bed) {
    // A run that came too early waits for a person, and is not failed.
    assert_eq!(
        bed.connection(0).await,
        json!({ "health": "NEEDS_REAUTH", "grant": null })
    );
    bed.run(0, "early").await;
    let note = bed.held_by("REAUTH").await;
    assert!(note.contains("weir connection authorize crm"), "{note}");

    let back = bed.provider.agree(&bed.authorize_url(&[]));
    let unsent = changed(&back, "state", None);
    refused(&unsent, 400, "OAUTH_STATE", "not made by this server").await;
    let state = back
        .query_pairs()
        .find(|(name, _)| name == "state")
        .unwrap()
        .1
        .into_owned();
    let forged = format!(
        "{}{}",
        if state.starts_with('A') { "B" } else { "A" },
        state.split_at(1).1
    );
    refused(
        &changed(&back, "state", Some(&forged)),
        400,
        "OAUTH_STATE",
        "changed on its way",
    )
    .await;
    assert_eq!(bed.provider.exchanges(), 0, "nothing was asked of the provider");

    let page = get(back.as_str()).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(
        page.text.contains("`crm` is connected to 1@acme.test (1)"),
        "{}",
        page.text
    );
    refused(&back, 400, "OAUTH_STATE", "used already").await;
    let connection = bed.connection(0).await;
    assert_eq!(connection["health"], "HEALTHY", "{connection}");
    assert_eq!(connection["grant"]["account"], "1");
    assert_eq!(connection["grant"]["scopes"], "read,write");
    bed.all_succeed(1).await;
    let shown = stdout(&bed.server().weir(&["connection", "show", "crm"]));
    assert!(
        shown.contains("crm (acme-crm): healthy") && shown.contains("account: 1@acme.test (1)"),
        "{shown}"
    );
    let listed = stdout(&bed.server().weir(&["connection", "list"]));
    assert!(listed.contains("crm") && listed.contains("healthy"), "{listed}");

    // A person who says no, an answer from somewhere else, another account.
    let way = || bed.provider.agree(&bed.authorize_url(&[]));
    let denied = changed(&changed(&way(), "code", None), "none", None);
    let denied = reqwest::Url::parse(&format!("{denied}&error=access_denied&error_description=secret-words")).unwrap();
    refused(&denied, 400, "OAUTH_REFUSED", "(access_denied)").await;
    let elsewhere = changed(&way(), "iss", Some("https://evil.test"));
    refused(&elsewhere, 400, "OAUTH_REFUSED", "another authorization server").await;
    refused(&changed(&way(), "iss", None), 400, "OAUTH_REFUSED", "does not say").await;
    refused(
        &changed(&way(), "code", Some("code-99")),
        400,
        "OAUTH_REFUSED",
        "invalid_grant",
    )
    .await;
    bed.provider.sign_in("2");
    refused(&way(), 409, "OAUTH_ACCOUNT", "signed in to 2@acme.test (2)").await;
    let connection = bed.connection(0).await;
    assert_eq!(connection["health"], "HEALTHY", "what worked works: {connection}");
    let page = get(bed.provider.agree(&bed.authorize_url(&["--another-account"])).as_str()).await;
    assert!(page.text.contains("2@acme.test"), "{}", page.text);
    bed.run(0, "second").await;
    bed.all_succeed(2).await;

    // Given back, and needed again.
    let told = bed.server().weir(&["connection", "disconnect", "crm"]);
    assert!(
        stdout(&told).contains("took its access back"),
        "{}{}",
        stdout(&told),
        stderr(&told)
    );
    assert_eq!(bed.provider.revoked(), 1);
    let connection = bed.connection(0).await;
    assert_eq!(connection["health"], "NEEDS_REAUTH", "{connection}");
    let again = bed.server().weir(&["connection", "disconnect", "crm"]);
    assert!(stderr(&again).contains("not connected"), "{}", stderr(&again));
    bed.run(0, "third").await;
    bed.held_by("REAUTH").await;
    bed.connect().await;
    bed.all_succeed(3).await;
    let trail = stdout(&bed.server().weir(&["audit", "--json"]));
    assert!(
        trail.contains("connection.connect") && trail.contains("connection.disconnect"),
        "{trail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_on_three_servers_refresh_once() {
    let bed = Bed::postgres("grants_race", 3).await;
    bed.provider.lifetime(1);
    bed.connect().await;
    for number in 1..3 {
        eventually("every server knows", SOON, async || {
            (bed.connection(number).await["health"] == "HEALTHY").then_some(())
        })
        .await;
    }
    bed.provider.lifetime(3_600);
    bed.token_ends().await;
    // All calls are there while the provider is still at it.
    bed.provider.set(Refresh::Hangs);
    let starts = (0..200_usize).map(|flow| {
        let bed = &bed;
        async move { bed.run(flow % 3, &format!("f{flow}")).await }
    });
    stream::iter(starts).buffer_unordered(16).collect::<()>().await;
    eventually("somebody refreshes", SOON, async || {
        (bed.provider.refreshes() > 0).then_some(())
    })
    .await;
    bed.provider.set(Refresh::Works);
    bed.all_succeed(200).await;
    assert_eq!(bed.provider.refreshes(), 1);
    assert_eq!(bed.connection(2).await["health"], "HEALTHY");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_is_down_fails_nothing() {
    let bed = Bed::sqlite().await;
    bed.provider.lifetime(1);
    bed.connect().await;
    bed.provider.lifetime(3_600);
    bed.token_ends().await;
    bed.provider.set(Refresh::IsDown);
    bed.run(0, "one").await;
    let note = bed.held_by("TOKEN").await;
    assert!(note.contains("http_503"), "{note}");
    assert_eq!(bed.is("DEGRADED").await["grant"]["account"], "1");
    bed.provider.set(Refresh::Works);
    bed.all_succeed(1).await;
    bed.is("HEALTHY").await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_token_endpoint_is_waited_for() {
    let bed = Bed::sqlite().await;
    bed.provider.lifetime(1);
    bed.connect().await;
    bed.provider.lifetime(3_600);
    bed.token_ends().await;
    // Longer than a heartbeat, a lease and what a call may wait for its budget.
    bed.provider.slow(Duration::from_secs(7));
    bed.run(0, "one").await;
    bed.all_succeed(1).await;
    assert_eq!(bed.provider.refreshes(), 1);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_rotating_is_survived_where_the_provider_allows_it_and_told_where_not() {
    let bed = Bed::sqlite().await;
    bed.provider.lifetime(1);
    bed.connect().await;
    bed.provider.lifetime(2);
    bed.token_ends().await;
    bed.provider.grace(1);
    bed.provider.set(Refresh::FailsAfterRotating);
    bed.run(0, "one").await;
    assert!(bed.held_by("TOKEN").await.contains("http_500"));
    bed.provider.set(Refresh::Works);
    bed.all_succeed(1).await;

    // The second time there is no grace.
    bed.provider.set(Refresh::FailsAfterRotating);
    bed.token_ends().await;
    bed.run(0, "two").await;
    bed.held_by("TOKEN").await;
    bed.provider.set(Refresh::Works);
    let connection = bed.is("NEEDS_REAUTH").await;
    let error = connection["grant"]["error"].as_str().unwrap();
    assert!(
        error.contains("began a refresh at 20") && error.contains("invalid_grant") && error.contains("authorize crm"),
        "{error}"
    );
    bed.held_by("REAUTH").await;
    bed.connect().await;
    bed.all_succeed(2).await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_answer_and_save_is_survived_or_told_on_sqlite() {
    let bed = Bed::sqlite().await;
    crash(bed, "the process dies while the provider has rotated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_answer_and_save_is_survived_or_told_on_postgres() {
    let bed = Bed::postgres("grants_crash", 1).await;
    crash(bed, "the process dies while the new tokens wait for the database").await;
}

async fn crash(mut bed: Bed, what: &str) {
    bed.provider.lifetime(1);
    bed.connect().await;
    for (round, grace) in [(1, 1), (2, 0)] {
        bed.provider.grace(grace);
        bed.provider.lifetime(if round == 1 { 2 } else { 3_600 });
        bed.token_ends().await;
        bed.provider.set(Refresh::Hangs);
        let before = bed.provider.refreshes();
        bed.run(0, &format!("run-{round}")).await;
        eventually("the provider has rotated", SOON, async || {
            (bed.provider.refreshes() > before).then_some(())
        })
        .await;
        // On PostgreSQL the answer arrives and cannot be stored.
        let lock = match &bed.database {
            Some(database) => Some(database.locked("oauth_grant").await),
            None => None,
        };
        if let Some(database) = bed.database.as_ref().filter(|_| lock.is_some()) {
            bed.provider.set(Refresh::Works);
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            eventually("the new tokens wait to be stored", SOON, async || {
                (database.number(waiting).await > Some(0)).then_some(())
            })
            .await;
        }
        bed.servers[0].kill();
        drop(lock);
        bed.provider.set(Refresh::Works);
        bed.servers[0].start_again().await;
        if round == 1 {
            bed.all_succeed(1).await;
            bed.is("HEALTHY").await;
            continue;
        }
        let connection = bed.is("NEEDS_REAUTH").await;
        let error = connection["grant"]["error"].as_str().unwrap();
        assert!(
            error.contains("was never stored") && error.contains("authorize crm"),
            "{what}: {error}"
        );
        bed.held_by("REAUTH").await;
        bed.connect().await;
        bed.all_succeed(2).await;
    }
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_refuses_fresh_tokens_puts_calls_off() {
    let bed = Bed::sqlite().await;
    bed.connect().await;
    bed.provider.takes_tokens(false);
    bed.run(0, "one").await;
    let note = bed.held_by("TOKEN").await;
    assert!(note.contains("refused a fresh token"), "{note}");
    bed.is("DEGRADED").await;
    assert_eq!(
        (bed.provider.refused(), bed.provider.refreshes()),
        (1, 0),
        "a fresh token is not renewed"
    );
    bed.provider.takes_tokens(true);
    bed.all_succeed(1).await;
    bed.is("HEALTHY").await;
    assert_eq!(bed.provider.refreshes(), 1);
    bed.end().await;
}
