//! A fresh database for each test, on SQLite (a file in a temporary folder) and on PostgreSQL (a database of its
//! own on the server that `WEIR_TEST_POSTGRES_URL` names).

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use weir_storage::{
    Accepted, Database, DatabaseOptions, Dedupe, EventRow, Fact, FactOutcome, NewRun, NodeIdentity, Pending, Removed,
    RunCommit, RunOwner, RunStatus, RunUpdate, Store, WriteError, Writer, WriterEnd, WriterLimits, WriterSeed,
};
use weir_workflow_engine::{EventId, EventSource, IdGenerator, RunId, Timestamp, VersionId, WorkflowId, WorkspaceId};

/// Makes a test of each function twice.
macro_rules! both_databases {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                crate::support::Bed::sqlite().run(super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                crate::support::Bed::postgres().await.run(super::$name).await;
            }
        }
    )*};
}
pub(crate) use both_databases;

pub(crate) const WORKSPACE: WorkspaceId = WorkspaceId::from_raw(11);
pub(crate) const WORKFLOW: WorkflowId = WorkflowId::from_raw(21);
const DAY_MS: i64 = 86_400_000;
/// Noon of a Monday.
pub(crate) const NOON: i64 = 1_795_435_200_000;

/// One database and what makes ids for it.
pub(crate) struct Bed {
    pub(crate) url: String,
    _folder: TempDir,
    server: Option<(String, String)>,
    pub(crate) ids: IdGenerator,
}

/// A running writer and its reader.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    pub(crate) identity: NodeIdentity,
    pub(crate) task: JoinHandle<WriterEnd>,
}

impl Bed {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("data").join("weir.db").display());
        Self {
            url,
            _folder: folder,
            server: None,
            ids: IdGenerator::new(0, 0),
        }
    }

    pub(crate) async fn postgres() -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        #[expect(
            clippy::disallowed_methods,
            reason = "only the test script knows where the server is"
        )]
        let server = std::env::var("WEIR_TEST_POSTGRES_URL")
            .expect("WEIR_TEST_POSTGRES_URL is not set: run `make test`, which starts a PostgreSQL server and sets it");
        let name = format!(
            "weir_storage_{}_{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        let (before, _) = server.rsplit_once('/').expect("the URL names a database");
        let url = format!("{before}/{name}");
        let mut admin = PgConnection::connect(&server)
            .await
            .expect("the PostgreSQL server answers");
        admin
            .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .await
            .unwrap();
        Self {
            url,
            _folder: tempfile::tempdir().unwrap(),
            server: Some((server, name)),
            ids: IdGenerator::new(0, 0),
        }
    }

    /// Runs a test and cleans up, also when it panics.
    pub(crate) async fn run<F: AsyncFnOnce(&Bed)>(self, test: F) {
        let result = AssertUnwindSafe(test(&self)).catch_unwind().await;
        if let Some((server, name)) = &self.server {
            let mut admin = PgConnection::connect(server).await.unwrap();
            admin
                .execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
                .await
                .unwrap();
        }
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.server.is_some()
    }

    pub(crate) async fn open(&self) -> (Store, WriterSeed) {
        Database::open(&self.url, DatabaseOptions::default()).await.unwrap()
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        let (store, seed) = self.open().await;
        self.start(store, seed, name).await
    }

    pub(crate) async fn start(&self, store: Store, mut seed: WriterSeed, name: &str) -> Node {
        let identity = seed.register(name).await.unwrap();
        let (writer, task) = seed.start(identity.clone(), WriterLimits::default());
        Node {
            store,
            writer,
            identity,
            task: tokio::spawn(task.run()),
        }
    }

    /// Runs a statement behind the product's back.
    pub(crate) async fn execute(&self, text: &str) {
        if self.is_postgres() {
            PgConnection::connect(&self.url)
                .await
                .unwrap()
                .execute(AssertSqlSafe(text))
                .await
                .unwrap();
        } else {
            SqliteConnection::connect(&self.url)
                .await
                .unwrap()
                .execute(AssertSqlSafe(text))
                .await
                .unwrap();
        }
    }

    /// The answer to a query with one number.
    pub(crate) async fn number(&self, text: &str) -> i64 {
        if self.is_postgres() {
            sqlx::query_scalar(AssertSqlSafe(text))
                .fetch_one(&mut PgConnection::connect(&self.url).await.unwrap())
                .await
                .unwrap()
        } else {
            sqlx::query_scalar(AssertSqlSafe(text))
                .fetch_one(&mut SqliteConnection::connect(&self.url).await.unwrap())
                .await
                .unwrap()
        }
    }

    pub(crate) fn id(&self) -> i64 {
        self.ids.next_raw(at(0))
    }

    /// An event at noon with one run, deduplicated by `key`.
    pub(crate) fn accepted(&self, key: &str) -> Accepted {
        self.accepted_at(key, at(0), None)
    }

    pub(crate) fn accepted_at(&self, key: &str, received_at: Timestamp, anchored_at: Option<Timestamp>) -> Accepted {
        let event_id = EventId::from_raw(self.ids.next_raw(received_at));
        let run_id = RunId::from_raw(self.ids.next_raw(received_at));
        Accepted {
            event: EventRow {
                id: event_id,
                workspace: WORKSPACE,
                endpoint: None,
                connector: "stripe".to_owned(),
                connection: None,
                source: EventSource::Endpoint,
                external_id: key.to_owned(),
                kind: "payment_intent.succeeded".to_owned(),
                account: None,
                ref_kind: Some("payment_intent".to_owned()),
                ref_id: Some("pi_1".to_owned()),
                ref_version: None,
                occurred_at: anchored_at,
                received_at,
                headers: r#"{"content-type":"application/json"}"#.to_owned(),
                body: Bytes::from_static(br#"{"id":"evt_1"}"#),
                data_pointer: "/data".to_owned(),
                scheduled_for: None,
                traceparent: None,
            },
            dedupe: Dedupe {
                scope: "ep".to_owned(),
                key: key.to_owned(),
                anchored_at,
            },
            runs: vec![NewRun {
                id: run_id,
                root_id: run_id,
                replay_of: None,
                workspace: WORKSPACE,
                event_id,
                workflow_id: WORKFLOW,
                version_id: VersionId::from_raw(31),
                started_at: received_at,
                turn: None,
                owner: RunOwner::ThisNode,
            }],
            keys: Vec::new(),
            fires: None,
            routed_by: None,
            audit: None,
            after_commit: None,
        }
    }
}

impl Node {
    pub(crate) fn submit(&self, fact: Fact) -> Pending {
        self.writer.submit(fact).unwrap()
    }

    pub(crate) async fn write(&self, fact: Fact) -> Result<FactOutcome, WriteError> {
        self.submit(fact).await
    }

    /// One slice of retention.
    pub(crate) async fn prune(&self, fact: Fact) -> Removed {
        match self.write(fact).await {
            Ok(FactOutcome::Pruned(removed)) => removed,
            other => panic!("{other:?}"),
        }
    }

    /// Ends the writer and waits until it has let go.
    pub(crate) async fn stop(self) -> WriterEnd {
        drop(self.writer);
        drop(self.store);
        self.task.await.unwrap()
    }
}

/// A time `offset_ms` after noon.
pub(crate) fn at(offset_ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(NOON + offset_ms)
}

pub(crate) fn days(days: i64) -> i64 {
    days * DAY_MS
}

pub(crate) fn commit(run: RunId, seq: i32, journal: &str, status: Option<RunStatus>) -> Fact {
    let update = status.map(|status| RunUpdate {
        status,
        due_at: None,
        finished_at: None,
        error_code: None,
        error_step: None,
        dead_letter: None,
    });
    Fact::Run(RunCommit {
        run,
        seq,
        journal: journal.as_bytes().to_vec(),
        update,
        mail: None,
        leaves: None,
    })
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
