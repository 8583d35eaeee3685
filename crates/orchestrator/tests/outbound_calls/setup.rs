//! A connector, connections to a loopback server, and commands for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use weir_connector_sdk::{Connector, Credential};
use weir_orchestrator::clock::{Clock, ManualClock};
use weir_orchestrator::connection::Connection;
use weir_orchestrator::departures::Senders;
use weir_orchestrator::egress::EgressPolicy;
use weir_orchestrator::lease::Lease;
use weir_orchestrator::perform::{Performer, PerformerOptions, Purpose};
use weir_workflow_engine::{
    CallCommand, CallFailure, CallId, CallOutcome, CallResult, ConnectionId, Document, EffectClass, EffectCommand,
    EffectKey, ReadCommand, SendMode, Timestamp, WorkspaceId,
};

const MANIFEST: &str = r#"
connector: acme
version: 1.0.0
hosts: ["https://api.acme.test"]
config: { token_url: { format: url, default: "https://login.acme.test/token" } }
auth:
  none: {}
  bearer: {}
  api_key: { query: acme_key }
  basic: {}
  oauth2: { token_url: "{{ config.token_url }}", scopes: [read, write], client_auth: basic, audience: acme }
  service_account: { alg: ALG, claims: { iss: "{{ account.account }}", aud: acme }, ttl: 5m EXCHANGE }
operations:
  things.get: { get: "/things/{{ id }}" }
  things.list: { get: /things, items: /data, page: { cursor: { next: /next, into: query.after } } }
  things.kept: { get: "/things/{{ id }}", etag: true }
  things.pages: { get: /things, items: /data, page: { cursor: { next: /next, into: query.after } }, etag: true }
  things.create: { post: /things, body: json, effect: { keyed: { header: Idempotency-Key, window: 24h } } }
  pay: { post: /pay, body: json, effect: blind }
  ping: { post: /ping, effect: blind }
  orders.find: { get: /orders, query: { ref: "{{ ref }}" } }
  orders.create: { post: /orders, body: json, effect: { find_by: { call: orders.find, with: { ref: "{{ ref }}" }, found: /data/0, consistent: true } } }
  orders.page: { get: /page, query: { ref: "{{ ref }}" }, items: /data, page: { cursor: { next: /next, into: query.after } } }
  orders.paged: { post: /orders, body: json, effect: { find_by: { call: orders.page, with: { ref: "{{ ref }}" }, found: /0, consistent: true } } }
  orders.slow: { post: /orders, body: json, effect: { find_by: { call: orders.find, with: { ref: "{{ ref }}" }, found: /data/0, settle: 60s } } }
"#;

/// When every test begins.
pub(crate) const START: Timestamp = Timestamp::from_unix_ms(1_790_000_000_000);

pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn connector() -> Arc<Connector> {
    connector_with("HS256", "")
}

pub(crate) fn connector_with(alg: &str, exchange: &str) -> Arc<Connector> {
    let manifest = MANIFEST.replace("ALG", alg).replace(" EXCHANGE", exchange);
    Arc::new(Connector::parse(&manifest, &|_| None).unwrap())
}

pub(crate) fn connection(base_url: &str) -> Arc<Connection> {
    connection_with(connector(), json!({ "base_url": base_url }), None)
}

pub(crate) fn connection_with(connector: Arc<Connector>, config: Value, credential: Option<Value>) -> Arc<Connection> {
    let credential = credential.map(|document| Credential::parse(&document).unwrap());
    let (id, workspace) = (ConnectionId::from_raw(1), WorkspaceId::from_raw(1));
    Arc::new(Connection::new(
        id,
        workspace,
        "main".to_owned(),
        connector,
        config,
        credential,
        None,
    ))
}

/// A performer that may call loopback addresses.
pub(crate) struct Bench {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) performer: Arc<Performer>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::build(&["127.0.0.0/8"], None)
    }

    pub(crate) fn recording(folder: &Path) -> Self {
        Self::build(&["127.0.0.0/8"], Some(folder))
    }

    pub(crate) fn build(allow: &[&str], folder: Option<&Path>) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let allow: Vec<String> = allow.iter().map(|&entry| entry.to_owned()).collect();
        let performer = Performer::new(PerformerOptions {
            clock: clock.clone(),
            egress: EgressPolicy::new(&allow).unwrap(),
            lease: Arc::new(Lease::exclusive(clock.clone())),
            departures: folder.map(Path::to_owned),
            senders: Senders::ThisProcessOnly,
            grants: None,
            user_agent: "weir-test".to_owned(),
        });
        let performer = Arc::new(performer.unwrap());
        // Intents are always later than the departures file.
        clock.advance(Duration::from_secs(1));
        Bench { clock, performer }
    }

    pub(crate) async fn call(&self, connection: &Arc<Connection>, command: &CallCommand) -> CallResult {
        self.performer.call(connection, command, &Purpose::default()).await
    }

    pub(crate) async fn read(&self, connection: &Arc<Connection>, command: &ReadCommand) -> CallResult {
        let accepted_at = Timestamp::from_unix_ms(self.clock.now().as_unix_ms() - 1);
        self.performer
            .read(connection, command, accepted_at, &Purpose::default())
            .await
    }

    /// An effect that is sent for the first time now.
    pub(crate) fn effect(&self, operation: &str, args: Value, class: EffectClass, mode: SendMode) -> CallCommand {
        CallCommand {
            class,
            effect: Some(EffectCommand {
                key: key(),
                first_sent_at: self.clock.now(),
                mode,
            }),
            ..step(operation, args)
        }
    }
}

pub(crate) const KEY_TEXT: &str = "weir_000102030405060708090a0b0c0d0e0f";

pub(crate) fn key() -> EffectKey {
    serde_json::from_value(json!(KEY_TEXT)).unwrap()
}

/// A step that changes nothing.
pub(crate) fn step(operation: &str, args: Value) -> CallCommand {
    CallCommand {
        call: CallId(1),
        step: "step".to_owned(),
        attempt: 1,
        connection: "main".to_owned(),
        connector: "acme".to_owned(),
        operation: operation.to_owned(),
        args: Document::from_value(args),
        args_at: "/steps/0/with".to_owned(),
        all_max: None,
        timeout: TIMEOUT,
        class: EffectClass::Read,
        effect: None,
    }
}

pub(crate) fn read_command(operation: &str, args: Value, all_max: Option<u32>) -> ReadCommand {
    ReadCommand {
        call: CallId(1),
        name: "thing".to_owned(),
        attempt: 1,
        connection: "main".to_owned(),
        connector: "acme".to_owned(),
        operation: operation.to_owned(),
        args: Document::from_value(args),
        all_max,
        timeout: TIMEOUT,
    }
}

#[track_caller]
pub(crate) fn output(result: &CallResult) -> Value {
    match &result.outcome {
        CallOutcome::Done { output } => output.value().clone(),
        CallOutcome::Failed(failure) => panic!("{failure:?}"),
        CallOutcome::Held(hold) => panic!("{hold:?}"),
    }
}

#[track_caller]
pub(crate) fn failure(result: &CallResult) -> &CallFailure {
    match &result.outcome {
        CallOutcome::Done { output } => panic!("done: {}", output.raw()),
        CallOutcome::Failed(failure) => failure,
        CallOutcome::Held(hold) => panic!("{hold:?}"),
    }
}
