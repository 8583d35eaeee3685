//! SQLite for simulations: the real schema, the real statements of the writer, no tasks, no threads, no fsync.
//!
//! A fact is answered when [`SyncStore::write`] returns. One store serves one simulation after the other:
//! [`SyncStore::clear`] empties the tables and keeps the prepared statements. Nothing of this is in the product.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use rusqlite::params;
use weir_workflow_engine::{EventId, GateKind, OutgoingId, RunId, Timestamp, WorkflowId};

use crate::blob;
use crate::entity::{OfSqlite, event, inbox, journal, outgoing, run};
use crate::error::{OpenError, ReadError};
use crate::fact::Fact;
use crate::gates::gate_kind_code;
use crate::mail::{Mail, RequestOutcome};
use crate::node::NodeIdentity;
use crate::outcome::{FactOutcome, WriteError};
use crate::outgoing::OutgoingRow;
use crate::read::{RunRow, StoredEvent, StoredRun};
use crate::writer::connection::Connection;
use crate::writer::control::Registered;
use crate::writer::failure::{Failure, Offence};
use crate::writer::gates::Moved;
use crate::writer::prepare::{Control, Work};
use crate::writer::task::{Verdict, transaction};
use crate::writer::{control, sqlite};

/// What became of a fact, and what the writer would tell its listeners.
#[derive(Debug)]
pub struct Answer {
    /// What whoever submitted it hears.
    pub result: Result<FactOutcome, WriteError>,
    /// Runs that got mail.
    pub mailed: Vec<RunId>,
    /// Runs of this fact that may not start, or are over already.
    pub held: BTreeSet<RunId>,
    /// Runs that waited for their turn and are now this node's to start.
    pub released: Vec<RunId>,
    /// Runs of this node that wait until some time at most.
    pub due: Vec<(RunId, Timestamp)>,
}

impl Answer {
    fn new(result: Result<FactOutcome, WriteError>, mailed: Vec<RunId>, moved: Moved) -> Self {
        // What was decided counts only when it is on disk.
        let moved = if result.is_ok() { moved } else { Moved::default() };
        Self {
            result,
            mailed,
            held: moved.held,
            released: moved.released,
            due: moved.due,
        }
    }

    /// Nothing is known of a fact, though it may be on disk.
    pub fn lost(error: WriteError) -> Self {
        Self::new(Err(error), Vec::new(), Moved::default())
    }
}

/// A database that answers at once.
#[derive(Debug)]
pub struct SyncStore {
    connection: Connection,
    tables: Vec<String>,
}

impl SyncStore {
    /// Makes the file with the schema of this release. It belongs to the caller alone, and is worthless after a crash.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let statement = |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Statement {
            task: "open the database of a simulation",
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| statement(error.into()))?;
        runtime.block_on(crate::database::migrate_sqlite(path))?;
        let open = || -> rusqlite::Result<(rusqlite::Connection, Vec<String>)> {
            let connection = rusqlite::Connection::open(path)?;
            connection.set_prepared_statement_cache_capacity(2 * sqlite::STATEMENTS);
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            connection.query_row("PRAGMA journal_mode = MEMORY", [], |_| Ok(()))?;
            connection.pragma_update(None, "synchronous", "OFF")?;
            connection.pragma_update(None, "temp_store", "MEMORY")?;
            let kept = ["seaql_migrations", "config_state"];
            let tables: Vec<String> = connection
                .prepare(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
                )?
                .query_map([], |row| row.get::<_, String>(0))?
                .filter(|name| !name.as_ref().is_ok_and(|name| kept.contains(&name.as_str())))
                .collect::<rusqlite::Result<_>>()?;
            Ok((connection, tables))
        };
        let (connection, tables) = open().map_err(|error| statement(error.into()))?;
        Ok(Self {
            connection: Connection::Sqlite(connection),
            tables,
        })
    }

    fn sqlite(&mut self) -> &mut rusqlite::Connection {
        match &mut self.connection {
            Connection::Sqlite(connection) => connection,
            Connection::Postgres(_) => unreachable!("it was opened on SQLite"),
        }
    }

    /// Empties every table.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] when a statement fails.
    pub fn clear(&mut self) -> Result<(), ReadError> {
        let tables = std::mem::take(&mut self.tables);
        let cleared = tables.iter().try_for_each(|table| {
            let mut statement = self.sqlite().prepare_cached(&format!("DELETE FROM {table}"))?;
            statement.execute([]).map(drop)
        });
        self.tables = tables;
        cleared.map_err(|error| broken(&error))
    }

    /// Takes the place of the node with this name. On SQLite every other node is fenced by it.
    ///
    /// # Errors
    /// What [`Fact`]s are answered with.
    pub fn register(&mut self, name: &str, incarnation: i64) -> Result<NodeIdentity, WriteError> {
        let registering = async {
            self.connection.begin().await?;
            let node = control::register(&mut self.connection, name, incarnation, None).await?;
            self.connection.commit().await?;
            Ok(node)
        };
        match at_once(registering) {
            Ok(Registered::Node(node)) => Ok(node),
            Ok(Registered::NoSlot | Registered::Replaced) => Err(WriteError::Unavailable),
            Err(failure) => Err(failed(failure)),
        }
    }

    /// Writes one fact in a transaction of its own. What is to be called after the commit is left to the caller.
    pub fn write(&mut self, node: &NodeIdentity, fact: Fact) -> Answer {
        match Work::prepare(fact, true).0 {
            Work::Shared(row) => match sqlite::write(self.sqlite(), node, &[&row]) {
                Ok(written) => {
                    let answer = match written.verdicts.into_iter().next() {
                        Some(Verdict::Accepted(outcome)) => Ok(FactOutcome::Accepted(outcome)),
                        Some(Verdict::Started) => Ok(FactOutcome::Started {
                            held: written.moved.held.iter().copied().collect(),
                        }),
                        Some(Verdict::Written) => Ok(FactOutcome::Written),
                        Some(Verdict::Stale) => Err(WriteError::Stale),
                        Some(Verdict::Outdated(revision)) => Err(WriteError::Outdated { revision }),
                        None => Err(WriteError::Unavailable),
                    };
                    Answer::new(answer, written.mailed, written.moved)
                }
                Err(failure) => Answer::lost(failed(failure)),
            },
            Work::Alone(work) => {
                let mut moved = Moved::default();
                let answer = at_once(transaction(&mut self.connection, node, &work, &mut moved)).map_err(failed);
                let mailed = match (&work, &answer) {
                    (Control::Request(request), Ok(FactOutcome::Request(RequestOutcome::Delivered))) => {
                        vec![request.run]
                    }
                    _ => Vec::new(),
                };
                Answer::new(answer, mailed, moved)
            }
        }
    }

    /// Runs of this node that are under way.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn open_runs(&mut self, node: &NodeIdentity) -> Result<Vec<RunId>, ReadError> {
        self.ids(
            "SELECT id FROM run WHERE owner = ?1 AND status = 0 ORDER BY id",
            params![node.slot],
        )
    }

    /// When the runs of this node that sleep, or wait for their turn, want to be looked at.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn due_runs(&mut self, node: &NodeIdentity) -> Result<Vec<(Timestamp, RunId)>, ReadError> {
        let text = "SELECT due_at, id FROM run WHERE owner = ?1 AND due_at IS NOT NULL ORDER BY due_at, id";
        self.read(text, params![node.slot], |row| {
            Ok((Timestamp::from_unix_ms(row.get(0)?), RunId::from_raw(row.get(1)?)))
        })
    }

    /// Open runs of this node with mail.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn runs_with_mail(&mut self, node: &NodeIdentity) -> Result<Vec<RunId>, ReadError> {
        let text = "SELECT DISTINCT run_id FROM inbox JOIN run ON run.id = run_id WHERE owner = ?1 AND status < 2 ORDER BY run_id";
        self.ids(text, params![node.slot])
    }

    /// Every run, oldest first.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn runs(&mut self) -> Result<Vec<RunRow>, ReadError> {
        let models = self.models::<run::Model>("1 = ?1 ORDER BY id", params![1])?;
        models.into_iter().map(crate::read::run::row).collect()
    }

    /// A run with event and journal; `None` when it is not there.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn run(&mut self, id: RunId) -> Result<Option<StoredRun>, ReadError> {
        let models = self.models::<run::Model>("id = ?1", params![id.as_raw()])?;
        let Some(model) = models.into_iter().next() else {
            return Ok(None);
        };
        let run = crate::read::run::row(model)?;
        let event = self.event(run.event_id)?.ok_or_else(|| ReadError::Corrupt {
            row: format!("run {id}"),
            reason: "its event is missing".to_owned(),
        })?;
        let journal = self.journal(id)?;
        Ok(Some(StoredRun { run, event, journal }))
    }

    /// Every event, oldest first.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn events(&mut self) -> Result<Vec<StoredEvent>, ReadError> {
        let models = self.models::<event::Model>("1 = ?1 ORDER BY id", params![1])?;
        models
            .into_iter()
            .map(|model| crate::read::event::stored(model, None))
            .collect()
    }

    /// An event. Its body must be small enough to stand in its row.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn event(&mut self, id: EventId) -> Result<Option<StoredEvent>, ReadError> {
        let models = self.models::<event::Model>("id = ?1", params![id.as_raw()])?;
        let stored = models
            .into_iter()
            .map(|model| crate::read::event::stored(model, None))
            .next();
        stored.transpose()
    }

    /// The journal of a run. Its rows must be small enough to stand in their table.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn journal(&mut self, id: RunId) -> Result<Vec<(i32, Vec<u8>)>, ReadError> {
        let models = self.models::<journal::Model>("run_id = ?1 ORDER BY seq", params![id.as_raw()])?;
        models
            .into_iter()
            .map(|row| {
                let name = || format!("journal {id}/{}", row.seq);
                Ok((row.seq, blob::decode(row.codec, row.body.unwrap_or_default(), name)?))
            })
            .collect()
    }

    /// The inbox of a run, oldest first.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn mail(&mut self, id: RunId) -> Result<Vec<Mail>, ReadError> {
        let models = self.models::<inbox::Model>("run_id = ?1 ORDER BY id", params![id.as_raw()])?;
        models.into_iter().map(crate::read::mail::mail).collect()
    }

    /// Steps that wait, each with its run, those of approvals with `true`.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn waits(&mut self) -> Result<Vec<(RunId, String, bool)>, ReadError> {
        let text = "SELECT run_id, step, kind = 1 FROM wait WHERE 1 = ?1 ORDER BY run_id, step";
        self.read(text, params![1], |row| {
            Ok((RunId::from_raw(row.get(0)?), row.get(1)?, row.get(2)?))
        })
    }

    /// Outgoing events, oldest first.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn outgoing(&mut self) -> Result<Vec<OutgoingRow>, ReadError> {
        let models = self.models::<outgoing::Model>("1 = ?1 ORDER BY id", params![1])?;
        models
            .into_iter()
            .map(|row| {
                let id = OutgoingId::from_raw(row.id);
                Ok(OutgoingRow {
                    id,
                    kind: row.kind,
                    order_key: row.order_key,
                    run: RunId::from_raw(row.run_id),
                    step: row.step,
                    created_at: Timestamp::from_unix_ms(row.created_at),
                    body: blob::decode(row.codec, row.body, || id.to_string())?,
                })
            })
            .collect()
    }

    /// Lanes that failed runs keep: the run and its workflow, oldest first.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn held_lanes(&mut self) -> Result<Vec<(RunId, WorkflowId)>, ReadError> {
        let text = "SELECT holder, workflow_id FROM gate WHERE holder IS NOT NULL AND kind = ?1 ORDER BY holder";
        self.read(text, params![gate_kind_code(GateKind::Lane)], |row| {
            Ok((RunId::from_raw(row.get(0)?), WorkflowId::from_raw(row.get(1)?)))
        })
    }

    /// Runs for whose events other runs stand, each with that one.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn merged(&mut self) -> Result<Vec<(RunId, RunId)>, ReadError> {
        let text = "SELECT run_id, into_id FROM merged WHERE 1 = ?1 ORDER BY run_id";
        self.read(text, params![1], |row| {
            Ok((RunId::from_raw(row.get(0)?), RunId::from_raw(row.get(1)?)))
        })
    }

    /// The events that a run stands for beside its own, in the order of acceptance.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`].
    pub fn merged_events(&mut self, run: RunId) -> Result<Vec<EventId>, ReadError> {
        let text = "SELECT event_id FROM merged JOIN run ON run.id = run_id WHERE into_id = ?1 ORDER BY place";
        self.read(text, params![run.as_raw()], |row| Ok(EventId::from_raw(row.get(0)?)))
    }

    fn ids(&mut self, text: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<RunId>, ReadError> {
        self.read(text, values, |row| Ok(RunId::from_raw(row.get(0)?)))
    }

    fn models<M: OfSqlite>(&mut self, condition: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<M>, ReadError> {
        let text = format!("SELECT * FROM {} WHERE {condition}", M::TABLE);
        self.read(&text, values, M::of_sqlite)
    }

    fn read<T>(
        &mut self,
        text: &str,
        values: &[&dyn rusqlite::ToSql],
        take: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ReadError> {
        let connection = self.sqlite();
        let rows = || -> rusqlite::Result<Vec<T>> {
            let mut statement = connection.prepare_cached(text)?;
            statement.query_map(values, take)?.collect()
        };
        rows().map_err(|error| broken(&error))
    }
}

fn broken(error: &rusqlite::Error) -> ReadError {
    ReadError::Corrupt {
        row: "a row of a simulation".to_owned(),
        reason: error.to_string(),
    }
}

fn failed(failure: Failure) -> WriteError {
    match failure {
        Failure::Fact(Offence::Journal) => WriteError::Stale,
        Failure::Fact(Offence::Other(constraint)) => WriteError::Refused(constraint),
        Failure::Fenced => WriteError::Fenced,
        Failure::Unknown(_) => WriteError::Unknown,
        Failure::Contended(_) | Failure::NotWritten(_) => WriteError::Unavailable,
    }
}

/// The value of a future that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("statements on SQLite do not wait"),
    }
}
