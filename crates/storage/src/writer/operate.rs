//! What people do to runs, as statements. The texts are the same on both databases.
//!
//! SQLite numbers the parameters of a text as they appear, so each text names them in their order.
//! Runs inside a transaction of its own.

use weir_workflow_engine::{RunId, Timestamp};

use super::connection::{Connection, Dialect, Value};
use super::failure::{Failure, Offence};
use super::gates::{GateWork, Moved};
use super::prepare::{AcceptRow, JournalRow};
use super::{backfill, config, control, mail};
use super::{postgres, sqlite};
use crate::backfill::BackfillAsk;
use crate::codes::{bulk_item_state_code, bulk_status_code, cause_state_code, event_source_code};
use crate::config::AuditEntry;
use crate::fact::{Accepted, NewRun, RunCommit, RunOwner, TurnAsk};
use crate::mail::{Request, RequestOutcome};
use crate::node::{NOBODY, NodeIdentity};
use crate::operation::{BulkChange, BulkItemState, CauseNote, CopiedEvent, ExpectedFamily, Operation, RunOfEvent};
use crate::outcome::FactOutcome;

/// The state of a dead letter whose family was replayed.
const RETRIED: i16 = 1;

/// An operation with its bodies compressed.
#[derive(Debug)]
pub(crate) struct PreparedOperation {
    family: Option<ExpectedFamily>,
    event: Option<Box<AcceptRow>>,
    of_event: Option<RunOfEvent>,
    starts: Vec<NewRun>,
    journal: Vec<JournalRow>,
    requests: Vec<Request>,
    turn: Option<TurnAsk>,
    bulk: Option<BulkChange>,
    backfill: Option<BackfillAsk>,
    note: Option<CauseNote>,
    audit: Vec<AuditEntry>,
}

impl PreparedOperation {
    pub(crate) fn new(operation: Operation) -> Self {
        let event = operation.event.map(|copied| {
            let CopiedEvent { event, dedupe } = *copied;
            let (runs, after_commit) = (Vec::new(), None);
            let accepted = Accepted {
                event,
                dedupe,
                keys: Vec::new(),
                fires: None,
                routed_by: None,
                audit: None,
                runs,
                after_commit,
            };
            let (mut row, _) = AcceptRow::new(accepted);
            // No run by name, and yet not none: a copy, which goes when its original goes.
            row.run_ids = Some(Vec::new());
            Box::new(row)
        });
        Self {
            family: operation.family,
            event,
            of_event: operation.of_event,
            starts: operation.starts,
            journal: operation.journal.into_iter().map(JournalRow::new).collect(),
            requests: operation.requests,
            turn: operation.turn,
            bulk: operation.bulk,
            backfill: operation.backfill,
            note: operation.note,
            audit: operation.audit,
        }
    }

    /// Bytes of its bodies.
    pub(crate) fn size_bytes(&self) -> usize {
        let journal: usize = self.journal.iter().map(JournalRow::size_bytes).sum();
        let requests: usize = self.requests.iter().map(|request| request.body.len()).sum();
        journal + requests + self.event.as_ref().map_or(0, |event| event.body.bytes.len())
    }

    /// Runs that get mail by it.
    pub(crate) fn mailed(&self) -> Vec<RunId> {
        self.requests.iter().map(|request| request.run).collect()
    }
}

/// Any error means that the transaction must be rolled back. `moved` holds only after the commit.
pub(crate) async fn apply(
    connection: &mut Connection,
    node: &NodeIdentity,
    operation: &PreparedOperation,
    moved: &mut Moved,
) -> Result<FactOutcome, Failure> {
    let work = GateWork::of_operation(&operation.starts, operation.turn.as_ref());
    // Locks come first and in one order: a run's row is not touched before them.
    let tails = match connection {
        Connection::Postgres(connection) => postgres::gates::lock(connection, &work).await?,
        Connection::Sqlite(_) => Vec::new(),
    };
    if let Some(expected) = operation.family {
        family(connection, expected).await?;
    }
    if let Some(row) = &operation.event {
        event(connection, row).await?;
    }
    if let (Some(of), Some(start)) = (&operation.of_event, operation.starts.first()) {
        run_of_event(connection, of, start.id).await?;
    }
    for start in &operation.starts {
        run(connection, node, start).await?;
        settle(connection, start).await?;
    }
    for row in &operation.journal {
        journal(connection, row).await?;
    }
    for request in &operation.requests {
        match mail::request(connection, node, request).await? {
            FactOutcome::Request(RequestOutcome::Delivered) => {}
            _ => return Err(Failure::Fact(Offence::Journal)),
        }
    }
    if let Some(change) = &operation.bulk {
        bulk(connection, node, change).await?;
    }
    if let Some(asked) = &operation.backfill {
        backfill::ask(connection, asked).await?;
    }
    if let Some(row) = &operation.note {
        note(connection, row).await?;
    }
    for entry in &operation.audit {
        config::audit(connection, entry).await?;
    }
    if !work.is_empty() {
        *moved = match connection {
            Connection::Sqlite(connection) => sqlite::gates::settle(connection, node, &work)?,
            Connection::Postgres(connection) => postgres::gates::settle(connection, node, &work, tails).await?,
        };
    }
    if operation.starts.is_empty() {
        return Ok(FactOutcome::Written);
    }
    let held = moved.held.iter().copied().collect();
    Ok(FactOutcome::Started { held })
}

/// Locks the first run of the family and counts the others.
async fn family(connection: &mut Connection, expected: ExpectedFamily) -> Result<(), Failure> {
    let root = expected.root.as_raw();
    if connection.dialect() == Dialect::Postgres {
        let text = "SELECT id FROM run WHERE id = $1 FOR UPDATE";
        connection.numbers(text, vec![root.into()], false).await?;
    }
    let text = "SELECT count(*) FROM run WHERE root_id = $1 AND replay_of IS NOT NULL";
    let rows = connection.numbers(text, vec![root.into()], false).await?;
    let found = rows.iter().flatten().copied().flatten().next().unwrap_or(0);
    if u64::try_from(found) == Ok(expected.replays) {
        Ok(())
    } else {
        Err(Failure::Fact(Offence::Journal))
    }
}

/// Notes a run among those of its event, if these are the ones that were seen.
async fn run_of_event(connection: &mut Connection, of: &RunOfEvent, run: RunId) -> Result<(), Failure> {
    let packed = |runs: &[RunId]| -> Vec<u8> { runs.iter().flat_map(|run| run.as_raw().to_be_bytes()).collect() };
    let mut all = of.before.clone();
    all.push(run);
    let mut values = vec![
        packed(&all).as_slice().into(),
        of.event.as_raw().into(),
        of.workspace.as_raw().into(),
    ];
    let seen = match of.before.as_slice() {
        [] => "IS NULL",
        before => {
            values.push(packed(before).as_slice().into());
            "= $4"
        }
    };
    let text = format!("UPDATE event SET run_ids = $1 WHERE id = $2 AND workspace_id = $3 AND run_ids {seen}");
    match connection.run(&text, values).await? {
        0 => Err(Failure::Fact(Offence::Journal)),
        _ => Ok(()),
    }
}

async fn run(connection: &mut Connection, node: &NodeIdentity, run: &NewRun) -> Result<(), Failure> {
    let text = "INSERT INTO run (id, workspace_id, workflow_id, version_id, event_id, root_id, replay_of, owner, status, started_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9)";
    let owner = match (run.owner, connection.dialect()) {
        (RunOwner::ThisNode, _) | (RunOwner::Anyone, Dialect::Sqlite) => i16::try_from(node.slot).unwrap_or(i16::MAX),
        (RunOwner::Anyone, Dialect::Postgres) => NOBODY,
    };
    let values = vec![
        run.id.as_raw().into(),
        run.workspace.as_raw().into(),
        run.workflow_id.as_raw().into(),
        run.version_id.as_raw().into(),
        run.event_id.as_raw().into(),
        run.root_id.as_raw().into(),
        Value::Int(run.replay_of.map(|id| id.as_raw())),
        i64::from(owner).into(),
        run.started_at.as_unix_ms().into(),
    ];
    connection.run(text, values).await?;
    match run.owner {
        RunOwner::ThisNode => Ok(()),
        RunOwner::Anyone => control::tell(connection).await,
    }
}

async fn journal(connection: &mut Connection, row: &JournalRow) -> Result<(), Failure> {
    let (codec, body) = row.body.inline();
    let text = "INSERT INTO journal (run_id, seq, codec, body) VALUES ($1, $2, $3, $4)";
    let values = vec![
        row.run.as_raw().into(),
        row.seq.into(),
        i64::from(codec).into(),
        Value::Bytes(body.map(<[u8]>::to_vec)),
    ];
    connection.run(text, values).await?;
    if row.body.is_apart() {
        payload(connection, row.run.as_raw(), row.seq, (row.body.codec, &row.body.bytes)).await?;
    }
    Ok(())
}

async fn payload(connection: &mut Connection, owner: i64, seq: i32, body: (i16, &[u8])) -> Result<(), Failure> {
    let text = "INSERT INTO payload (owner_id, seq, codec, body) VALUES ($1, $2, $3, $4)";
    let values = vec![owner.into(), seq.into(), i64::from(body.0).into(), body.1.into()];
    connection.run(text, values).await.map(drop)
}

/// Takes a family off the dead letters: its replay stands for it.
async fn settle(connection: &mut Connection, run: &NewRun) -> Result<(), Failure> {
    let text = format!(
        "UPDATE dead_letter SET state = {RETRIED} WHERE state = 0 AND (run_id = $1 OR run_id IN \
         (SELECT id FROM run WHERE root_id = $1 AND replay_of IS NOT NULL))"
    );
    connection.run(&text, vec![run.root_id.as_raw().into()]).await.map(drop)
}

async fn note(connection: &mut Connection, note: &CauseNote) -> Result<(), Failure> {
    let text = "INSERT INTO dead_letter_mark (workspace_id, workflow_id, cause, state, up_to, note, actor, at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (workspace_id, workflow_id, cause) DO UPDATE SET \
        state = excluded.state, up_to = excluded.up_to, note = excluded.note, actor = excluded.actor, at = excluded.at";
    let values = vec![
        note.workspace.as_raw().into(),
        note.key.workflow.as_raw().into(),
        note.key.cause.into(),
        i64::from(cause_state_code(note.state)).into(),
        note.up_to.as_raw().into(),
        note.note.as_str().into(),
        note.actor.as_str().into(),
        note.at.as_unix_ms().into(),
    ];
    connection.run(text, values).await.map(drop)
}

async fn bulk(connection: &mut Connection, node: &NodeIdentity, change: &BulkChange) -> Result<(), Failure> {
    let of_item =
        "WHERE bulk_id = $2 AND run_id = $3 AND state = 0 AND EXISTS (SELECT 1 FROM bulk WHERE id = $2 AND status = 0)";
    let (text, values) = match change {
        BulkChange::Begin { row, items } => {
            let text = "INSERT INTO bulk (id, workspace_id, status, owner, actor, filter, options, total, created_at) \
                VALUES ($1, $2, 0, $3, $4, $5, $6, $7, $8)";
            let values = vec![
                row.id.as_raw().into(),
                row.workspace.as_raw().into(),
                i64::from(node.owner()).into(),
                row.actor.as_str().into(),
                row.filter.as_str().into(),
                row.options.as_str().into(),
                i64::from(row.total).into(),
                row.created_at.as_unix_ms().into(),
            ];
            for (run, confirm) in items {
                let text = "INSERT INTO bulk_item (bulk_id, run_id, confirm, state) VALUES ($1, $2, $3, 0)";
                let values = vec![row.id.as_raw().into(), run.as_raw().into(), confirm.as_str().into()];
                connection.run(text, values).await?;
            }
            (text.to_owned(), values)
        }
        BulkChange::Started { bulk, run, replay } => (
            format!(
                "UPDATE bulk_item SET state = {}, started_run = $1 {of_item}",
                bulk_item_state_code(BulkItemState::Started)
            ),
            vec![
                Value::Int(replay.map(|run| run.as_raw())),
                bulk.as_raw().into(),
                run.as_raw().into(),
            ],
        ),
        BulkChange::Skipped { bulk, run, reason } => (
            format!(
                "UPDATE bulk_item SET state = {}, reason = $1 {of_item}",
                bulk_item_state_code(BulkItemState::Skipped)
            ),
            vec![reason.as_str().into(), bulk.as_raw().into(), run.as_raw().into()],
        ),
        BulkChange::End { bulk, status, at } => (
            "UPDATE bulk SET status = $1, finished_at = $2 WHERE id = $3 AND status = 0".to_owned(),
            vec![
                i64::from(bulk_status_code(*status)).into(),
                at.as_unix_ms().into(),
                bulk.as_raw().into(),
            ],
        ),
    };
    match connection.run(&text, values).await? {
        0 => Err(Failure::Fact(Offence::Journal)),
        _ => Ok(()),
    }
}

async fn event(connection: &mut Connection, row: &AcceptRow) -> Result<(), Failure> {
    let event = &row.event;
    let time = |value: Option<Timestamp>| Value::Int(value.map(Timestamp::as_unix_ms));
    let (codec, body) = row.body.inline();
    let text = "INSERT INTO event (id, workspace_id, endpoint_id, connection_id, source, received_at, occurred_at, \
        scheduled_for, connector, kind, external_id, dedupe_scope, dedupe_key, account, ref_kind, ref_id, ref_version, \
        data_pointer, traceparent, run_ids, headers, body_bytes, body_codec, body) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)";
    let values = vec![
        event.id.as_raw().into(),
        event.workspace.as_raw().into(),
        Value::Int(event.endpoint.map(|id| id.as_raw())),
        Value::Int(event.connection.map(|id| id.as_raw())),
        i64::from(event_source_code(event.source)).into(),
        event.received_at.as_unix_ms().into(),
        time(event.occurred_at),
        time(event.scheduled_for),
        event.connector.as_str().into(),
        event.kind.as_str().into(),
        event.external_id.as_str().into(),
        row.scope.as_str().into(),
        Value::Text(row.key_text.clone()),
        Value::Text(event.account.clone()),
        Value::Text(event.ref_kind.clone()),
        Value::Text(event.ref_id.clone()),
        Value::Text(event.ref_version.clone()),
        event.data_pointer.as_str().into(),
        Value::Text(event.traceparent.clone()),
        Value::Bytes(row.run_ids.clone()),
        event.headers.as_str().into(),
        row.body_bytes.into(),
        i64::from(codec).into(),
        Value::Bytes(body.map(<[u8]>::to_vec)),
    ];
    connection.run(text, values).await?;
    if row.body.is_apart() {
        payload(connection, event.id.as_raw(), 0, (row.body.codec, &row.body.bytes)).await?;
    }
    Ok(())
}

impl JournalRow {
    /// The row of a commit.
    pub(super) fn new(commit: RunCommit) -> Self {
        Self {
            run: commit.run,
            seq: commit.seq,
            body: crate::blob::Blob::encode(&commit.journal),
            update: commit.update,
            mail: commit.mail.filter(|change| !change.is_empty()),
            leaves: commit.leaves,
        }
    }

    fn size_bytes(&self) -> usize {
        self.body.bytes.len()
    }
}
