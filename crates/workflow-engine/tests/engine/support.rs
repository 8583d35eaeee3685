//! A catalogue, an environment and a driver: what the host would do, without a host.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use weir_workflow_engine::{
    CallFailure, CallId, CallOutcome, CallResult, Catalogue, Command, Decision, Definition, Document, EffectClass,
    Entry, Environment, Event, EventId, EventRef, EventSource, EventTypeInfo, Exchange, HydrateMode, Input, Ledger,
    OperationInfo, Origin, Past, Plan, Problem, ReadInfo, Rehearsal, ReplayPreview, ResponseBody, Retry, RunHead,
    RunId, RunState, Sent, Status, Timestamp, VersionId, WorkflowId, WorkspaceId, check, decide, decode, encode,
    invariants,
};

pub(crate) const START: Timestamp = Timestamp::from_unix_ms(1_767_225_600_000);

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The documents of `yaml` are workflows with everything a test does not care about left to defaults.
pub(crate) fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

pub(crate) struct Shop {
    pub(crate) reads: Vec<ReadInfo>,
    pub(crate) hydrate: HydrateMode,
}

impl Default for Shop {
    fn default() -> Self {
        Self {
            reads: vec![read(
                "payment_intent",
                "payment_intents.get",
                json!({ "id": "{{ ref.id }}" }),
            )],
            hydrate: HydrateMode::Missing,
        }
    }
}

pub(crate) fn read(name: &str, operation: &str, with: Value) -> ReadInfo {
    ReadInfo {
        name: name.to_owned(),
        operation: operation.to_owned(),
        with,
        when: None,
        all_max: None,
        fresh: None,
    }
}

impl Catalogue for Shop {
    fn connection(&self, name: &str) -> Option<String> {
        let known = [
            ("stripe", "stripe"),
            ("bench-stripe", "stripe"),
            ("bench-crm", "http"),
            ("crm", "http"),
            ("hubspot", "hubspot"),
        ];
        known
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, connector)| connector.to_owned())
    }

    fn connections(&self) -> Vec<String> {
        ["stripe", "bench-stripe", "bench-crm", "crm", "hubspot"]
            .map(str::to_owned)
            .to_vec()
    }

    fn connectors(&self) -> Vec<String> {
        ["stripe", "http", "hubspot"].map(str::to_owned).to_vec()
    }

    fn pinned(&self, connection: &str) -> Option<String> {
        (connection == "hubspot").then(|| "hubspot@2.0.0".to_owned())
    }

    fn operation(&self, connector: &str, _connection: Option<&str>, operation: &str) -> Option<OperationInfo> {
        if !self.operations(connector).iter().any(|known| known == operation) {
            return None;
        }
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
            .map(Value::from)
            .to_vec();
        Some(match operation {
            "request" => OperationInfo {
                required: names(&["method"]),
                known: None,
                allowed: BTreeMap::from([("method".to_owned(), methods)]),
                ..OperationInfo::default()
            },
            "payment_intents.get" => OperationInfo {
                required: names(&["id"]),
                known: Some(names(&["id", "expand"])),
                output_schema: Some(json!({
                    "type": "object",
                    "properties": {
                        "id": { "type": "string" }, "amount": { "type": "integer" }, "currency": { "type": "string" },
                        "receipt_email": { "type": "string" }, "customer": { "type": "string" },
                        "charges": { "type": "array", "items": { "type": "object", "properties": { "id": {} } } },
                        "metadata": { "type": "object", "properties": { "known": {} }, "additionalProperties": true },
                    },
                })),
                ..OperationInfo::default()
            },
            "contacts.search" => OperationInfo {
                required: names(&["email"]),
                known: Some(names(&["email", "limit"])),
                paged: true,
                ..OperationInfo::default()
            },
            _ => OperationInfo::default(),
        })
    }

    fn operations(&self, connector: &str) -> Vec<String> {
        let operations: &[&str] = match connector {
            "stripe" => &["payment_intents.get", "customers.get", "refunds.create"],
            "http" => &["request"],
            _ => &["contacts.search", "contacts.update", "contacts.create"],
        };
        operations.iter().map(|name| (*name).to_owned()).collect()
    }

    fn event_type(&self, connector: &str, _connection: Option<&str>, event_type: &str) -> Option<EventTypeInfo> {
        let known = self.event_types(connector).iter().any(|known| known == event_type);
        known.then(|| EventTypeInfo {
            hydrate_default: self.hydrate,
            reads: self.reads.clone(),
        })
    }

    fn event_types(&self, connector: &str) -> Vec<String> {
        match connector {
            "stripe" => vec!["payment_intent.succeeded".to_owned(), "charge.refunded".to_owned()],
            _ => Vec::new(),
        }
    }

    fn workflows(&self) -> Vec<String> {
        ["bench", "bill", "invoice", "again", "w"].map(str::to_owned).to_vec()
    }

    fn always_starts(&self, workflow: &str) -> Vec<String> {
        let started: &[&str] = match workflow {
            "again" => &["invoice", "w"],
            _ => &[],
        };
        started.iter().map(|name| (*name).to_owned()).collect()
    }

    fn input_schema(&self, workflow: &str) -> Option<Value> {
        (workflow == "bill").then(|| {
            json!({
                "type": "object",
                "required": ["order"],
                "properties": {
                    "order": { "type": "string" },
                    "lines": { "type": "array", "items": { "properties": { "amount": { "type": "integer" } } } },
                    "speed": { "enum": ["slow", "fast"] },
                },
                "additionalProperties": false,
            })
        })
    }
}

/// Operations ending in `get` or `search` read; `http.request` is of the class of its connection.
pub(crate) struct World {
    pub(crate) class: EffectClass,
}

impl Environment for World {
    fn effect_class(&self, _connection: &str, operation: &str, _args: &Value) -> EffectClass {
        match operation.ends_with(".get") || operation.ends_with(".search") {
            true => EffectClass::Read,
            false => self.class,
        }
    }

    fn connection(&self, name: &str) -> Option<Value> {
        Some(json!({ "name": name, "connector": "stripe", "account": "acct_1", "config": { "region": "eu" } }))
    }
}

pub(crate) const KEYED: EffectClass = EffectClass::Keyed {
    window: Duration::from_secs(86_400),
};

pub(crate) fn event(data: Value) -> Event {
    let body = Document::from_value(json!({ "id": "evt_1", "type": "payment_intent.succeeded", "data": data }));
    Event {
        id: "evt_1".to_owned(),
        uid: EventId::from_raw(77),
        kind: "payment_intent.succeeded".to_owned(),
        time: Some(START),
        received_at: START,
        source: EventSource::Endpoint,
        account: Some("acct_1".to_owned()),
        reference: Some(EventRef {
            kind: "payment_intent".to_owned(),
            id: "pi_1".to_owned(),
            version: None,
        }),
        headers: BTreeMap::from([("x-request-id".to_owned(), "r1".to_owned())]),
        data: body.part("/data").unwrap(),
        body,
        connector: "stripe".to_owned(),
        connection: Some("stripe".to_owned()),
        endpoint: Some("main".to_owned()),
        scheduled_for: None,
        batch: None,
    }
}

pub(crate) fn head(run: i64) -> RunHead {
    RunHead {
        id: RunId::from_raw(run),
        root_id: RunId::from_raw(1),
        replay_of: (run != 1).then(|| RunId::from_raw(1)),
        workspace: WorkspaceId::from_raw(1),
        workflow: WorkflowId::from_raw(2),
        workflow_name: "bench".to_owned(),
        version: VersionId::from_raw(3),
        version_number: 4,
        dedupe_scope: "ep_1".to_owned(),
        dedupe_key: "evt_1".to_owned(),
        started_at: START,
    }
}

pub(crate) fn plan_in(shop: &Shop, text: &str) -> Result<Plan, Vec<Problem>> {
    let definition = Definition::parse(&yaml(text))?;
    let resolution = check(&definition, shop)?;
    // What is stored beside a version is all that a plan needs.
    let stored = serde_json::to_string(&resolution).unwrap();
    Plan::compile(&definition, &serde_json::from_str(&stored).unwrap())
}

/// A plan from steps in YAML, on the usual trigger.
pub(crate) fn plan(steps: &str) -> Plan {
    let text =
        format!("name: bench\non: {{ event: stripe.payment_intent.succeeded, hydrate: never }}\nsteps:\n{steps}");
    plan_in(&Shop::default(), &text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// What is wrong with a workflow on the usual trigger; `rest` is its `steps` and what stands beside them.
pub(crate) fn problems(rest: &str) -> Vec<String> {
    let text = format!("name: w\non: {{ event: stripe.payment_intent.succeeded, hydrate: never }}\n{rest}\n");
    let problems = plan_in(&Shop::default(), &text).expect_err(rest);
    problems.iter().map(ToString::to_string).collect()
}

/// Each of these is refused, with a problem that says what is expected.
pub(crate) fn refused_with(cases: &[(String, &str)]) {
    for (rest, expected) in cases {
        let found = problems(rest);
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{rest}: {found:#?}"
        );
    }
}

/// One run driven by hand. Every decision is checked, journaled, folded.
pub(crate) struct Driver {
    pub(crate) plan: Plan,
    pub(crate) world: World,
    pub(crate) event: Arc<Event>,
    pub(crate) run: RunState,
    pub(crate) now: Timestamp,
    /// One row per decision.
    pub(crate) rows: Vec<(i32, Timestamp, Vec<Entry>)>,
    pub(crate) commands: Vec<Command>,
    pub(crate) last: Decision,
}

impl Driver {
    pub(crate) fn new(plan: Plan, class: EffectClass, data: Value) -> Self {
        Self::with(plan, class, event(data), head(1), Ledger::default())
    }

    pub(crate) fn with(plan: Plan, class: EffectClass, event: Event, head: RunHead, ledger: Ledger) -> Self {
        let event = Arc::new(event);
        let run = RunState::new(head, Arc::clone(&event), &plan).with_ledger(ledger);
        let last = Decision {
            entries: Vec::new(),
            commands: Vec::new(),
            status: Status::Running,
            due: None,
            more: false,
        };
        Self {
            plan,
            world: World { class },
            event,
            run,
            now: START,
            rows: Vec::new(),
            commands: Vec::new(),
            last,
        }
    }

    pub(crate) fn input(&mut self, input: Input<'_>) -> &Decision {
        let decision = decide(&self.plan, &self.run, &self.world, input, self.now).unwrap();
        assert_eq!(invariants::decision(&self.run, &decision), []);
        // What is written is what is folded.
        let (at, entries) = decode(&encode(&decision.entries, self.now)).unwrap();
        assert_eq!((at, &entries), (self.now, &decision.entries));
        entries.iter().for_each(|entry| self.run.fold(entry));
        let seq = i32::try_from(self.rows.len()).unwrap();
        self.rows.push((seq, at, entries));
        // Looking at all of a long journal after each decision would take most of the time.
        if self.rows.len() < 40 || decision.status.is_final() {
            assert_eq!(invariants::journal(&self.entries()), []);
        }
        self.commands.extend(decision.commands.iter().cloned());
        self.last = decision;
        &self.last
    }

    pub(crate) fn start(&mut self) -> &Decision {
        self.input(Input::Started)
    }

    /// Goes on while there is more to do at once. Long runs are checked at their end alone.
    pub(crate) fn go_on(&mut self) {
        while self.last.more {
            let decision = decide(&self.plan, &self.run, &self.world, Input::Due, self.now).unwrap();
            decision.entries.iter().for_each(|entry| self.run.fold(entry));
            let seq = i32::try_from(self.rows.len()).unwrap();
            self.rows.push((seq, self.now, decision.entries.clone()));
            self.commands.extend(decision.commands.iter().cloned());
            self.last = decision;
        }
        assert_eq!(invariants::journal(&self.entries()), []);
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.rows
            .iter()
            .flat_map(|(_, _, entries)| entries.iter().cloned())
            .collect()
    }

    /// Moves to the due time of the last decision.
    pub(crate) fn due(&mut self) -> &Decision {
        self.now = self.last.due.expect("something waits");
        self.input(Input::Due)
    }

    /// The process is lost: the run is what its journal says.
    pub(crate) fn crash(&mut self) -> &Decision {
        self.commands.clear();
        let mut run = RunState::new(self.run.head().clone(), Arc::clone(&self.event), &self.plan);
        self.entries().iter().for_each(|entry| run.fold(entry));
        assert_eq!(run.status(), self.run.status());
        self.run = run;
        self.input(Input::Recovered)
    }

    pub(crate) fn next_command(&mut self) -> Command {
        assert!(
            !self.commands.is_empty(),
            "nothing is handed out; last: {:?}",
            self.last
        );
        self.commands.remove(0)
    }

    /// Answers the first open command.
    pub(crate) fn done(&mut self, output: Value) -> Command {
        let command = self.next_command();
        self.answer(command.call(), &done(output));
        command
    }

    pub(crate) fn fail(&mut self, failure: CallFailure) -> Command {
        let command = self.next_command();
        self.answer(command.call(), &failed(failure));
        command
    }

    pub(crate) fn answer(&mut self, call: CallId, result: &CallResult) -> &Decision {
        self.input(Input::Outcome { call, result })
    }

    /// The object of the last `set`.
    pub(crate) fn last_set(&self) -> Value {
        let set = self.entries().into_iter().rev().find_map(|entry| match entry {
            Entry::Set(set) => Some(set.output.value().clone()),
            _ => None,
        });
        set.expect("a step that sets something")
    }

    pub(crate) fn code(&self) -> String {
        match self.run.status() {
            Status::Failed { code, .. } => code,
            other => other.as_str().to_owned(),
        }
    }
}

pub(crate) fn done(output: Value) -> CallResult {
    CallResult {
        outcome: CallOutcome::Done {
            output: Document::from_value(output),
        },
        exchanges: vec![exchange(200, ResponseBody::Output)],
        origin: Origin::Sent,
    }
}

pub(crate) fn failed(failure: CallFailure) -> CallResult {
    let status = failure.http_status;
    let exchanges = status
        .map(|status| exchange(status, ResponseBody::Text("no".to_owned())))
        .into_iter()
        .collect();
    CallResult {
        outcome: CallOutcome::Failed(failure),
        exchanges,
        origin: Origin::Sent,
    }
}

pub(crate) fn failure(code: &str, status: Option<u16>, sent: Sent, retryable: bool) -> CallFailure {
    let retry = if retryable {
        Retry::Retryable { after: None }
    } else {
        Retry::Permanent
    };
    CallFailure {
        code: code.to_owned(),
        message: format!("the call ended in {code}"),
        http_status: status,
        sent,
        retry,
    }
}

fn exchange(status: u16, response_body: ResponseBody) -> Exchange {
    Exchange {
        method: "POST".to_owned(),
        url: "http://127.0.0.1:9900/crm/deals/pi_1".to_owned(),
        request_headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        request_body: Some("{}".to_owned()),
        status: Some(status),
        response_headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
        kept_headers: None,
        response_body,
        response_bytes: 120,
        started_at: START,
        duration_ms: 5,
        error: None,
    }
}

/// Hydration, a branch, a loop: a bit of everything.
pub(crate) const HYDRATED: &str = r#"
name: bench
on: { event: stripe.payment_intent.succeeded, hydrate: always }
steps:
  - id: big
    if: "{{ hydrated.payment_intent.amount > 3 }}"
    then:
      - { id: pay, call: stripe.refunds.create, with: { amount: "{{ hydrated.payment_intent.amount }}" } }
  - id: each
    for_each: "{{ event.data.lines }}"
    do:
      - { id: note, when: "{{ item != 'skip' }}", call: http.request, connection: crm, with: { method: POST, line: "{{ item }}" } }
  - { id: end, set: { count: "{{ steps.each | length }}" } }
"#;

/// What a replay would do, when nothing comes from outside.
pub(crate) fn preview(
    plan: &Plan,
    head: &RunHead,
    event: &Arc<Event>,
    ledger: &Ledger,
    past: Past<'_>,
    world: &World,
    now: Timestamp,
) -> ReplayPreview {
    Rehearsal::begin((plan, head, event), ledger, past, world, now).finish()
}
