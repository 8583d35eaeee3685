//! A batch on SQLite: one transaction, prepared statements that stay with the connection, no statement text made
//! per batch.
//!
//! Here each fact runs its own statements in order. That is faster than statements of many rows (there is no
//! network between us and the database), and a place in a journal that is taken fails its fact alone.

pub(super) mod gates;
mod mail;

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use weir_workflow_engine::{EventId, RunId, Timestamp};

use super::config::AUDIT;
use super::dedupe::{DedupeKey, KeyHash};
use super::failure::{Failure, Offence};
use super::gates::{GateWork, Moved};
use super::prepare::{AcceptRow, JournalRow, RefusedRow, Row};
use crate::codes::{event_source_code, run_status_code};
use crate::config::AuditEntry;
use crate::fact::{NewDeadLetter, NewRun};
use crate::node::NodeIdentity;
use crate::outcome::AcceptOutcome;
use crate::writer::task::{Verdict, Written};

/// Statements that stay prepared: those of this file and the plain ones.
pub(crate) const STATEMENTS: usize = 96;

/// Writes the rows and commits; a verdict for each.
pub(crate) fn write(connection: &mut Connection, node: &NodeIdentity, rows: &[&Row]) -> Result<Written, Failure> {
    let transaction =
        Transaction::new(connection, TransactionBehavior::Immediate).map_err(|error| Failure::of_sqlite(&error))?;
    // Dropping the transaction rolls it back.
    let written = write_rows(&transaction, node, rows)?;
    transaction
        .commit()
        .map_err(|error| Failure::Unknown(error.to_string()))?;
    Ok(written)
}

fn write_rows(transaction: &Transaction<'_>, node: &NodeIdentity, rows: &[&Row]) -> Result<Written, Failure> {
    let mut batch = Batch::new(transaction, node).map_err(|error| Failure::of_sqlite(&error))?;
    let Some(revision) = batch.proved().map_err(|error| Failure::of_sqlite(&error))? else {
        return Err(Failure::Fenced);
    };
    let mut verdicts = Vec::with_capacity(rows.len());
    for row in rows {
        let written = match row {
            Row::Accept(row) if row.routed_by < revision => Ok(Verdict::Outdated(revision)),
            Row::Accept(row) => batch.accept(row).map(Verdict::Accepted),
            Row::Start(runs) => batch.runs(runs).map(|()| Verdict::Started),
            Row::Run(row) => match batch.journal(row) {
                Err(error) if matches!(Failure::of_sqlite(&error), Failure::Fact(Offence::Journal)) => {
                    Ok(Verdict::Stale)
                }
                written => written.map(|()| Verdict::Written),
            },
            Row::Refused(row) => batch.refused(row).map(|()| Verdict::Written),
            Row::Turn(_) => Ok(Verdict::Written),
        };
        verdicts.push(written.map_err(|error| Failure::of_sqlite(&error))?);
    }
    let mailed = batch.mailed;
    let work = GateWork::collect(rows, |number, _| {
        let verdict = verdicts.get(number);
        matches!(
            verdict,
            Some(Verdict::Accepted(AcceptOutcome::New) | Verdict::Started | Verdict::Written)
        )
    });
    let moved = if work.is_empty() {
        Moved::default()
    } else {
        gates::settle(transaction, node, &work)?
    };
    Ok(Written {
        verdicts,
        mailed,
        moved,
    })
}

/// The open transaction. Statements are looked up once per batch at most.
struct Batch<'a> {
    transaction: &'a Transaction<'a>,
    node: &'a NodeIdentity,
    statements: Statements<'a>,
    /// Keys of this batch, for repeats that carry another time.
    seen: HashMap<KeyHash, EventId>,
    oldest_day: Option<i32>,
    mailed: Vec<RunId>,
}

#[derive(Default)]
struct Statements<'a> {
    dedupe: Option<CachedStatement<'a>>,
    dedupe_find: Option<CachedStatement<'a>>,
    event: Option<CachedStatement<'a>>,
    run: Option<CachedStatement<'a>>,
    journal: Option<CachedStatement<'a>>,
    payload: Option<CachedStatement<'a>>,
    update: Option<CachedStatement<'a>>,
}

fn dead_letter(
    transaction: &Connection,
    run: RunId,
    letter: &NewDeadLetter,
    failed_at: Option<Timestamp>,
) -> rusqlite::Result<()> {
    let text = "INSERT INTO dead_letter (run_id, workspace_id, workflow_id, cause, code, step, message, failed_at, state) \
        SELECT id, workspace_id, workflow_id, ?1, ?2, ?3, ?4, ?5, 0 FROM run WHERE id = ?6 ON CONFLICT DO NOTHING";
    transaction.prepare_cached(text)?.execute(params![
        letter.cause,
        letter.code,
        letter.step,
        letter.message,
        time(failed_at).unwrap_or(0),
        run.as_raw(),
    ])?;
    Ok(())
}

/// Prepares on first use.
fn get<'s, 'a>(
    slot: &'s mut Option<CachedStatement<'a>>,
    connection: &'a Connection,
    text: &str,
) -> rusqlite::Result<&'s mut CachedStatement<'a>> {
    if slot.is_none() {
        *slot = Some(connection.prepare_cached(text)?);
    }
    Ok(slot.as_mut().expect("it was filled just now"))
}

fn time(value: Option<Timestamp>) -> Option<i64> {
    value.map(Timestamp::as_unix_ms)
}

impl<'a> Batch<'a> {
    fn new(transaction: &'a Transaction<'a>, node: &'a NodeIdentity) -> rusqlite::Result<Self> {
        Ok(Self {
            transaction,
            node,
            statements: Statements::default(),
            seen: HashMap::new(),
            oldest_day: None,
            mailed: Vec::new(),
        })
    }

    /// The revision of the configuration, if this process is still the node.
    fn proved(&self) -> rusqlite::Result<Option<i64>> {
        let text =
            "SELECT (SELECT revision FROM config_state WHERE id = 1) FROM node WHERE slot = ?1 AND incarnation = ?2";
        let mut statement = self.transaction.prepare_cached(text)?;
        let revision = statement.query_row(params![self.node.slot, self.node.incarnation], |row| row.get(0));
        revision.optional()
    }

    fn accept(&mut self, row: &AcceptRow) -> rusqlite::Result<AcceptOutcome> {
        if let Some(of) = self.seen_before(&row.key)? {
            return Ok(AcceptOutcome::Duplicate { of });
        }
        for day in row.key.guards.clone() {
            let text = "INSERT INTO dedupe (day, hash, event_id) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            let statement = get(&mut self.statements.dedupe, self.transaction, text)?;
            if statement.execute(params![day, row.key.hash, row.id().as_raw()])? == 0 {
                // Only a key with one guard gets here unasked, so nothing was written for it yet.
                let of = self.find(day, &row.key.hash)?.unwrap_or_else(|| row.id());
                return Ok(AcceptOutcome::Duplicate { of });
            }
        }
        self.seen.insert(row.key.hash, row.id());
        self.event(row)?;
        self.runs(&row.runs)?;
        mail::arrived(self.transaction, row, &mut self.mailed)?;
        if let Some((workflow, at)) = row.fires {
            let text =
                "UPDATE schedule SET fired_for = ?1 WHERE workflow_id = ?2 AND coalesce(fired_for, begins_at) < ?1";
            let mut statement = self.transaction.prepare_cached(text)?;
            statement.execute(params![at.as_unix_ms(), workflow.as_raw()])?;
        }
        if let Some(entry) = &row.audit {
            self.audit(entry)?;
        }
        Ok(AcceptOutcome::New)
    }

    fn audit(&self, entry: &AuditEntry) -> rusqlite::Result<()> {
        let mut statement = self.transaction.prepare_cached(AUDIT)?;
        let AuditEntry {
            id,
            workspace,
            at,
            actor,
            action,
            subject,
            client_ip,
            request_id,
            detail,
        } = entry;
        let (workspace, at) = (workspace.as_raw(), at.as_unix_ms());
        statement
            .execute(params![
                id, workspace, at, actor, action, subject, client_ip, request_id, detail
            ])
            .map(drop)
    }

    fn seen_before(&mut self, key: &DedupeKey) -> rusqlite::Result<Option<EventId>> {
        if let Some(of) = self.seen.get(&key.hash) {
            return Ok(Some(*of));
        }
        let oldest = match (key.look_back_from, self.oldest_day) {
            (None, _) => i32::MAX,
            (Some(_), Some(oldest)) => oldest,
            (Some(_), None) => {
                let mut statement = self.transaction.prepare_cached("SELECT min(day) FROM dedupe")?;
                let oldest: Option<i32> = statement.query_row([], |row| row.get(0))?;
                *self.oldest_day.insert(oldest.unwrap_or(i32::MAX))
            }
        };
        for day in key.days_to_ask(oldest).into_iter().flatten() {
            if let Some(of) = self.find(day, &key.hash)? {
                return Ok(Some(of));
            }
        }
        Ok(None)
    }

    fn find(&mut self, day: i32, hash: &KeyHash) -> rusqlite::Result<Option<EventId>> {
        let text = "SELECT event_id FROM dedupe WHERE day = ?1 AND hash = ?2";
        let statement = get(&mut self.statements.dedupe_find, self.transaction, text)?;
        let mut rows = statement.query(params![day, hash])?;
        rows.next()?.map(|row| row.get(0).map(EventId::from_raw)).transpose()
    }

    fn event(&mut self, row: &AcceptRow) -> rusqlite::Result<()> {
        let event = &row.event;
        let (codec, body) = row.body.inline();
        let text = "INSERT INTO event (id, workspace_id, endpoint_id, connection_id, source, received_at, occurred_at, \
            scheduled_for, connector, kind, external_id, dedupe_scope, dedupe_key, account, ref_kind, ref_id, ref_version, \
            data_pointer, traceparent, run_ids, headers, body_bytes, body_codec, body) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)";
        get(&mut self.statements.event, self.transaction, text)?.execute(params![
            event.id.as_raw(),
            event.workspace.as_raw(),
            event.endpoint.map(|id| id.as_raw()),
            event.connection.map(|id| id.as_raw()),
            event_source_code(event.source),
            event.received_at.as_unix_ms(),
            time(event.occurred_at),
            time(event.scheduled_for),
            event.connector,
            event.kind,
            event.external_id,
            row.scope,
            row.key_text,
            event.account,
            event.ref_kind,
            event.ref_id,
            event.ref_version,
            event.data_pointer,
            event.traceparent,
            row.run_ids,
            event.headers,
            row.body_bytes,
            codec,
            body,
        ])?;
        if row.body.is_apart() {
            self.payload(event.id.as_raw(), 0, row.body.codec, &row.body.bytes)?;
        }
        Ok(())
    }

    fn payload(&mut self, owner: i64, seq: i32, codec: i16, body: &[u8]) -> rusqlite::Result<()> {
        let text = "INSERT INTO payload (owner_id, seq, codec, body) VALUES (?1, ?2, ?3, ?4)";
        get(&mut self.statements.payload, self.transaction, text)?
            .execute(params![owner, seq, codec, body])
            .map(drop)
    }

    fn runs(&mut self, runs: &[NewRun]) -> rusqlite::Result<()> {
        for run in runs {
            let text = "INSERT INTO run (id, workspace_id, workflow_id, version_id, event_id, root_id, replay_of, owner, status, started_at) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9)";
            get(&mut self.statements.run, self.transaction, text)?.execute(params![
                run.id.as_raw(),
                run.workspace.as_raw(),
                run.workflow_id.as_raw(),
                run.version_id.as_raw(),
                run.event_id.as_raw(),
                run.root_id.as_raw(),
                run.replay_of.map(|id| id.as_raw()),
                self.node.slot,
                run.started_at.as_unix_ms(),
            ])?;
        }
        Ok(())
    }

    /// The journal row first: when its place is taken, nothing else of the fact was written.
    fn journal(&mut self, row: &JournalRow) -> rusqlite::Result<()> {
        let (codec, body) = row.body.inline();
        let text = "INSERT INTO journal (run_id, seq, codec, body) VALUES (?1, ?2, ?3, ?4)";
        get(&mut self.statements.journal, self.transaction, text)?.execute(params![
            row.run.as_raw(),
            row.seq,
            codec,
            body
        ])?;
        if row.body.is_apart() {
            self.payload(row.run.as_raw(), row.seq, row.body.codec, &row.body.bytes)?;
        }
        if let Some(update) = &row.update {
            let text = "UPDATE run SET status = ?1, due_at = ?2, finished_at = ?3, error_code = ?4, error_step = ?5 WHERE id = ?6";
            get(&mut self.statements.update, self.transaction, text)?.execute(params![
                run_status_code(update.status),
                time(update.due_at),
                time(update.finished_at),
                update.error_code,
                update.error_step,
                row.run.as_raw(),
            ])?;
            if let Some(letter) = &update.dead_letter {
                dead_letter(self.transaction, row.run, letter, update.finished_at)?;
            }
        }
        if let Some(change) = &row.mail {
            mail::changed(self.transaction, row, change, &mut self.mailed)?;
        }
        Ok(())
    }

    fn refused(&mut self, row: &RefusedRow) -> rusqlite::Result<()> {
        let request = &row.request;
        let endpoint = request.endpoint.map(|id| id.as_raw());
        if row.in_detail {
            let text = "INSERT INTO refused (id, workspace_id, endpoint_id, received_at, reason, detail, client_ip, headers, body_bytes, stored_bytes, body) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
            self.transaction.prepare_cached(text)?.execute(params![
                request.id.as_raw(),
                request.workspace.as_raw(),
                endpoint,
                request.received_at.as_unix_ms(),
                request.reason,
                request.detail,
                request.client_ip,
                request.headers,
                row.body_bytes,
                row.stored_bytes(),
                request.body.as_ref(),
            ])?;
        }
        let text = "INSERT INTO refused_count (workspace_id, endpoint_id, hour, reason, count) VALUES (?1, ?2, ?3, ?4, ?5) \
            ON CONFLICT DO UPDATE SET count = count + excluded.count";
        let values = params![
            request.workspace.as_raw(),
            endpoint.unwrap_or(0),
            row.hour,
            request.reason,
            row.count
        ];
        self.transaction.prepare_cached(text)?.execute(values).map(drop)
    }
}
