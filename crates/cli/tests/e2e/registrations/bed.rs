//! Servers beside a provider that makes webhooks, and the endpoint `things` that one is made for.

use crate::hook_provider::{HookProvider, plain};
use crate::nodes::node;
use crate::support::{Database, Server, eventually, now_unix_s, post};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

/// Two looks and a pause after failures, on a machine that is busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

const HOOKS: &str = r#"
connector: acme-hooks
version: 1.0.0
hosts: ["https://api.acme-hooks.test"]
auth: { bearer: {} }
operations:
  hooks.list: { get: /hooks, items: /data, page: { next_url: { from: /next } } }
  hooks.create: { post: /hooks, body: json, input: { to: { type: string, required: true }, what: { type: array } }, effect: blind }
  hooks.update: { patch: "/hooks/{{ id }}", body: json, input: { id: required, to: { type: string }, what: { type: array } }, effect: repeatable }
  hooks.delete: { delete: "/hooks/{{ id }}", effect: repeatable }
  events.list: { get: /events, items: /data }
webhook:
  verify: { hmac: { alg: sha256, sig: "header:X-Signature", encoding: hex, parts: [body] } }
  identify: { id: /id, type: /type, time: /at }
  recover: { level: A, call: events.list, cursor: time, every: 1h }
  register:
    secret: returned
    event_names: { all: "*" }
    create: { call: hooks.create, with: { to: "{{ url }}", what: "{{ events }}" } }
    list: { call: hooks.list }
    update: { call: hooks.update, with: { id: "{{ id }}", to: "{{ url }}", what: "{{ events }}" } }
    delete: { call: hooks.delete, with: { id: "{{ id }}" } }
    hook: { id: /id, url: /to, events: /what, secret: /secret, works: { at: /state, is: [on] } }
    every: 5s
events:
  thing.made: { hydrate_default: never }
  thing.sold: { hydrate_default: never }
"#;

/// Its webhooks end, are renewed, cannot be changed, and carry a secret of ours; people let it in.
const LEASES: &str = r#"
connector: acme-leases
version: 1.0.0
hosts: ["https://api.acme-leases.test"]
config: { login: { format: url, required: true } }
auth:
  oauth2:
    grant: authorization_code
    authorize_url: "{{ config.login }}/authorize"
    token_url: "{{ config.login }}/token"
    revoke_url: "{{ config.login }}/revoke"
  bearer: {}
operations:
  hooks.list: { get: /hooks, items: /data }
  hooks.create: { post: /hooks, body: json, input: { to: required, what: { type: array }, until: required, secret: required, team: required }, effect: blind }
  hooks.renew: { post: "/hooks/{{ id }}/renew", body: json, input: { id: required, until: required }, effect: repeatable }
  hooks.delete: { delete: "/hooks/{{ id }}", effect: repeatable }
webhook:
  verify: { hmac: { alg: sha256, sig: "header:X-Signature", encoding: hex, parts: [body] } }
  identify: { id: /id, type: /type, time: /at }
  register:
    secret: ours
    input: { team: { type: string, required: true } }
    create: { call: hooks.create, with: { to: "{{ url }}", what: "{{ events }}", until: "{{ expires }}", secret: "{{ secret }}", team: "{{ team }}" } }
    list: { call: hooks.list }
    renew: { call: hooks.renew, with: { id: "{{ id }}", until: "{{ expires }}" } }
    delete: { call: hooks.delete, with: { id: "{{ id }}" } }
    hook: { id: /id, url: /to, events: /what, expires: /until }
    lifetime: 20s
    margin: 15s
events:
  thing.made: { hydrate_default: never }
"#;

/// What an endpoint `things` needs, with what it says about its registration.
pub(super) fn documents(provider: &HookProvider, register: &str) -> String {
    format!(
        r#"
kind: Connection
name: acme
connector: acme-hooks
config: {{ base_url: "{}" }}
credential: {{ bearer: {{ token: t0 }} }}
---
kind: Workflow
name: things
on: {{ event: acme-hooks.thing.made, connection: acme }}
steps: [{{ id: note, set: {{ id: "{{{{ event.id }}}}" }} }}]
---
kind: Endpoint
name: things
connection: acme
{register}
"#,
        provider.url
    )
}

pub(super) fn event(id: &str) -> Value {
    json!({ "id": id, "type": "thing.made", "at": now_unix_s() })
}

pub(super) struct Bed {
    pub(super) provider: HookProvider,
    pub(super) servers: Vec<Server>,
    database: Option<Database>,
    pub(super) manifests: TempDir,
}

impl Bed {
    pub(super) async fn start(name: Option<&str>, nodes: usize) -> Self {
        let manifests = tempfile::tempdir().unwrap();
        std::fs::write(manifests.path().join("acme-hooks.yaml"), HOOKS).unwrap();
        std::fs::write(manifests.path().join("acme-leases.yaml"), LEASES).unwrap();
        let apps = HOOKS.replace("acme-hooks", "acme-apps");
        let apps = apps
            .replace("secret: returned", "secret: app")
            .replace(", secret: /secret", "");
        std::fs::write(manifests.path().join("acme-apps.yaml"), apps).unwrap();
        let folder = manifests.path().display().to_string();
        let (mut servers, mut database) = (Vec::new(), None);
        match name {
            None => {
                let settings = [("WEIR_EGRESS_ALLOW", "127.0.0.0/8"), ("WEIR_CONNECTORS", &folder)];
                servers.push(Server::start_with(&settings).await);
            }
            Some(name) => {
                let made = Database::create(name).await;
                for number in 0..nodes {
                    servers.push(node(&made, &format!("node-{number}"), &[("WEIR_CONNECTORS", &folder)]).await);
                }
                database = Some(made);
            }
        }
        // Now that its port is known.
        let url = servers[0].url.clone();
        for server in &mut servers {
            server.stop().await;
            server.set("WEIR_PUBLIC_URL", Some(&url));
        }
        for server in &mut servers {
            server.start_again().await;
        }
        Bed {
            provider: HookProvider::start().await,
            servers,
            database,
            manifests,
        }
    }

    pub(super) fn server(&self) -> &Server {
        &self.servers[0]
    }

    pub(super) fn apply(&self, register: &str) {
        self.server().apply(&documents(&self.provider, register));
    }

    pub(super) async fn registration(&self) -> Value {
        let asked = "{ endpoint(name: \"things\") { url secretCount registration { state providerId url events expiresAt \
            createdAt checkedAt drift driftedAt error retryAt } coverage { lastSweep { cause outcome } } } }";
        let bearer = format!("Bearer {}", self.server().token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = json!({ "query": asked }).to_string();
        let mut answer = post(&format!("{}/graphql", self.server().url), &headers, body).await;
        assert_eq!(answer.body["errors"], Value::Null, "{}", answer.text);
        answer.body["data"]["endpoint"].take()
    }

    pub(super) async fn is(&self, state: &str) -> Value {
        eventually(&format!("the registration is {state}"), PATIENCE, async || {
            let mut endpoint = self.registration().await;
            (endpoint["registration"]["state"] == state).then(|| endpoint["registration"].take())
        })
        .await
    }

    /// Waits until the provider has one webhook and we know it, and gives it.
    pub(super) async fn made(&self) -> Value {
        eventually("there is one webhook, which is known", PATIENCE, async || {
            let hook = self.provider.only_hook()?;
            let endpoint = self.registration().await;
            let registration = &endpoint["registration"];
            let known = registration["providerId"].as_str()?;
            let is_known = plain(&hook["id"]) == known;
            (is_known && registration["state"] == "ACTIVE").then_some(hook)
        })
        .await
    }

    /// Waits until nothing is at the provider.
    pub(super) async fn none(&self) {
        eventually("there is no webhook", PATIENCE, async || {
            self.provider.hooks().is_empty().then_some(())
        })
        .await;
    }

    pub(super) async fn end(self) {
        let Bed { servers, database, .. } = self;
        drop(servers);
        if let Some(database) = database {
            database.drop().await;
        }
    }
}
