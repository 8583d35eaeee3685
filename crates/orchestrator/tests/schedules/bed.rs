//! Nodes with a clock that stands still until a test moves it, on a database of their own.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use weir_orchestrator::clock::{Clock as _, ManualClock};
use weir_orchestrator::configure::{Actor, ApplyOptions, Expect, SourceDocument};
use weir_orchestrator::registry::Registry;
use weir_orchestrator::{Options, Orchestrator, Settings};
use weir_storage::{Database, DatabaseOptions, EventFilter, MasterKey, RunStatus, SecretBox, WorkflowState};
use weir_workflow_engine::{RunId, Timestamp};

/// How long a condition may take that normally takes a moment.
const SOON: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Makes a test of each function twice.
macro_rules! both_databases {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                crate::bed::Bed::sqlite().run(super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                crate::bed::Bed::postgres().await.run(super::$name).await;
            }
        }
    )*};
}
pub(crate) use both_databases;

/// One database and the time of day.
pub(crate) struct Bed {
    url: String,
    _folder: TempDir,
    server: Option<(String, String)>,
    pub(crate) clock: Arc<ManualClock>,
}

/// One event of a schedule.
#[derive(Debug)]
pub(crate) struct Fired {
    /// The planned instant, as time of day in UTC.
    pub(crate) at: String,
    pub(crate) data: Value,
    pub(crate) runs: Vec<RunId>,
}

pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let started = tokio::time::Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < SOON, "after {SOON:?} still not: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A workflow with this schedule, whose step keeps what it was told.
pub(crate) fn workflow(name: &str, schedule: &Value) -> Value {
    let step = json!({ "id": "told", "set": {
        "kind": "{{ trigger.kind }}", "for": "{{ trigger.scheduled_for }}", "source": "{{ event.source }}",
        "type": "{{ event.type }}", "data": "{{ event.data }}",
    } });
    json!({ "kind": "Workflow", "name": name, "on": { "schedule": schedule }, "steps": [step] })
}

impl Bed {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("weir.db").display());
        Self::new(url, folder, None)
    }

    pub(crate) async fn postgres() -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        #[expect(
            clippy::disallowed_methods,
            reason = "only the test script knows where the server is"
        )]
        let server = std::env::var("WEIR_TEST_POSTGRES_URL")
            .expect("WEIR_TEST_POSTGRES_URL is not set: run `make test`, which starts a PostgreSQL server and sets it");
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir_schedules_{}_{number}", std::process::id());
        let (before, _) = server.rsplit_once('/').expect("the URL names a database");
        let url = format!("{before}/{name}");
        let mut admin = PgConnection::connect(&server)
            .await
            .expect("the PostgreSQL server answers");
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        admin.execute(create).await.unwrap();
        Self::new(url, tempfile::tempdir().unwrap(), Some((server, name)))
    }

    fn new(url: String, folder: TempDir, server: Option<(String, String)>) -> Self {
        Self {
            url,
            _folder: folder,
            server,
            clock: Arc::new(ManualClock::new(time("2026-11-25T08:59:30Z"))),
        }
    }

    /// Runs a test and cleans up, also when it panics.
    pub(crate) async fn run<F: AsyncFnOnce(&Bed)>(self, test: F) {
        let result = futures::FutureExt::catch_unwind(AssertUnwindSafe(test(&self))).await;
        if let Some((server, name)) = &self.server {
            let mut admin = PgConnection::connect(server).await.unwrap();
            let drop = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
            admin.execute(drop).await.unwrap();
        }
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }

    /// Sets the clock to a time of the day of the tests.
    pub(crate) fn set(&self, time_of_day: &str) {
        self.clock.set(time(&format!("2026-11-25T{time_of_day}Z")));
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        self.node_with(name, Registry::default()).await
    }

    pub(crate) async fn node_with(&self, name: &str, connectors: Registry) -> Node {
        let (store, mut writer) = Database::open(&self.url, DatabaseOptions::default()).await.unwrap();
        let secrets = SecretBox::new(MasterKey::from_base64(MASTER_KEY).unwrap());
        writer.check_key(&secrets).await.unwrap();
        let node = writer.register(name).await.unwrap();
        let orchestrator = Orchestrator::start(Options {
            settings: Settings::default(),
            clock: self.clock.clone(),
            store,
            writer,
            node,
            secrets,
            connectors,
        });
        Node(orchestrator.await.unwrap())
    }

    /// Pauses or resumes a workflow; every node hears of it with its next heartbeat.
    pub(crate) async fn set_paused(&self, node: &Node, workflow: &str, paused: bool) {
        let texts = [
            format!(
                "UPDATE workflow SET paused = {} WHERE name = '{workflow}'",
                i32::from(paused)
            ),
            "UPDATE config_state SET revision = revision + 1".to_owned(),
        ];
        for text in texts {
            if self.server.is_some() {
                let mut connection = PgConnection::connect(&self.url).await.unwrap();
                connection.execute(AssertSqlSafe(text)).await.unwrap();
            } else {
                let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
                connection.execute(AssertSqlSafe(text)).await.unwrap();
            }
        }
        eventually("the node has heard of it", async || {
            let snapshot = node.0.snapshot();
            let found = snapshot.workflow(node.0.default_workspace(), workflow)?;
            ((found.row.state == WorkflowState::Paused) == paused).then_some(())
        })
        .await;
    }
}

/// A running node.
pub(crate) struct Node(pub(crate) Orchestrator);

impl Node {
    pub(crate) async fn apply(&self, document: Value) {
        let actor = Actor {
            name: "test".to_owned(),
            token: None,
        };
        let options = ApplyOptions {
            dry_run: false,
            expect: Expect::Any,
        };
        let documents = vec![SourceDocument::from_value(document)];
        let workspace = self.0.default_workspace();
        self.0.apply(workspace, &actor, documents, options).await.unwrap();
    }

    /// What a workflow has fired, oldest first.
    pub(crate) async fn fired(&self, workflow: &str) -> Vec<Fired> {
        let workspace = self.0.default_workspace();
        let filter = EventFilter {
            kind: Some(workflow.to_owned()),
            connector: Some("schedule".to_owned()),
            ..EventFilter::default()
        };
        let page = self.0.store().event_page(workspace, &filter, None, 100).await.unwrap();
        let mut fired = Vec::new();
        for event in page.rows.into_iter().rev() {
            let stored = self.0.store().event_load(workspace, event.id).await.unwrap().unwrap();
            let planned = stored.row.scheduled_for.unwrap().to_string();
            assert_eq!(
                (&planned, stored.row.occurred_at),
                (&stored.row.external_id, stored.row.scheduled_for)
            );
            fired.push(Fired {
                at: planned.replace("2026-11-25T", "").replace(".000Z", ""),
                data: serde_json::from_slice(&stored.row.body).unwrap(),
                runs: stored.runs,
            });
        }
        fired
    }

    /// The planned instants that a workflow has fired, once there are this many.
    pub(crate) async fn times(&self, workflow: &str, count: usize) -> Vec<String> {
        let what = format!("`{workflow}` has fired {count} times");
        eventually(&what, async || {
            let fired = self.fired(workflow).await;
            (fired.len() >= count).then(|| fired.into_iter().map(|fired| fired.at).collect())
        })
        .await
    }

    /// Waits until the clock of this moment has been looked at: a workflow made for it fires.
    pub(crate) async fn has_looked(&self, bed: &Bed) {
        static LOOKS: AtomicU64 = AtomicU64::new(0);
        let name = format!("look-{}", LOOKS.fetch_add(1, Ordering::Relaxed));
        let now = bed.clock.now();
        self.apply(workflow(&name, &json!({ "every": "1s" }))).await;
        bed.clock.advance(Duration::from_secs(1));
        self.times(&name, 1).await;
        let actor = Actor {
            name: "test".to_owned(),
            token: None,
        };
        let kind = weir_orchestrator::configure::Kind::Workflow;
        let workspace = self.0.default_workspace();
        self.0.delete(workspace, &actor, kind, &name, None).await.unwrap();
        bed.clock.set(now);
    }

    /// What the step of a run was told, once the run is over.
    pub(crate) async fn told(&self, run: RunId) -> Value {
        let workspace = self.0.default_workspace();
        let story = eventually("the run is over", async || {
            let story = self.0.run_story(workspace, run).await.unwrap()?;
            (story.run.status == RunStatus::Succeeded).then_some(story)
        })
        .await;
        let output = story.steps[0].output.as_ref().unwrap();
        output.value().clone()
    }

    pub(crate) async fn stop(self) {
        self.0.shutdown().await;
    }
}
