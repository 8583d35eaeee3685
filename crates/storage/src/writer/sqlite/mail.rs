//! Waiting and inboxes on SQLite. One transaction at a time: nobody can miss anybody.

use rusqlite::{CachedStatement, Transaction, params};
use weir_workflow_engine::{RunId, Timestamp};

use crate::codes::{mail_kind_code, wait_kind_code};
use crate::mail::{MailChange, MailKind, NewWait, WaitKey, WaitKind};
use crate::writer::prepare::{AcceptRow, JournalRow};

/// An event arrived: its keys are kept, and whoever waits for one gets mail.
pub(super) fn arrived(transaction: &Transaction<'_>, row: &AcceptRow, mailed: &mut Vec<RunId>) -> rusqlite::Result<()> {
    let (id, at) = (row.id().as_raw(), row.event.received_at);
    for key in &row.keys {
        transaction
            .prepare_cached("INSERT INTO event_key (key, event_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute(params![key.bytes(), id])?;
        tell(transaction, key, MailKind::Event, id, at, mailed)?;
    }
    Ok(())
}

/// What a commit of a run changes.
pub(super) fn changed(
    transaction: &Transaction<'_>,
    row: &JournalRow,
    change: &MailChange,
    mailed: &mut Vec<RunId>,
) -> rusqlite::Result<()> {
    let run = row.run.as_raw();
    for id in &change.taken {
        transaction
            .prepare_cached("DELETE FROM inbox WHERE run_id = ?1 AND id = ?2")?
            .execute(params![run, id])?;
    }
    for step in &change.closed {
        transaction
            .prepare_cached("DELETE FROM wait WHERE run_id = ?1 AND step = ?2")?
            .execute(params![run, step])?;
    }
    for wait in &change.opened {
        open(transaction, row.run, change, wait, mailed)?;
    }
    for request in &change.sends {
        let statement = transaction.prepare_cached(
            "INSERT INTO inbox (run_id, id, kind, body, created_at) SELECT id, ?1, ?2, ?3, ?4 FROM run \
             WHERE id = ?5 AND workspace_id = ?6 AND status < 2 RETURNING run_id",
        )?;
        let kind = mail_kind_code(MailKind::Request);
        let (at, to) = (request.at.as_unix_ms(), request.run.as_raw());
        let values = params![request.id, kind, request.body, at, to, request.workspace.as_raw()];
        note(statement, values, mailed)?;
    }
    if let Some(root) = change.ends {
        let at = row.update.as_ref().and_then(|update| update.finished_at);
        let at = at.unwrap_or_else(|| Timestamp::from_unix_ms(0));
        tell(transaction, &WaitKey::end_of(root), MailKind::RunEnded, run, at, mailed)?;
    }
    Ok(())
}

fn open(
    transaction: &Transaction<'_>,
    run: RunId,
    change: &MailChange,
    wait: &NewWait,
    mailed: &mut Vec<RunId>,
) -> rusqlite::Result<()> {
    let (key, since) = match wait.kind {
        WaitKind::Event { key, since } => (Some(key), since),
        WaitKind::Approval => (None, 0),
        WaitKind::Run(child) => (Some(WaitKey::end_of(child)), 0),
    };
    transaction
        .prepare_cached(
            "INSERT INTO wait (run_id, step, workspace_id, kind, key, since, title, detail, created_at, due_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            run.as_raw(),
            wait.step,
            change.workspace.as_raw(),
            wait_kind_code(&wait.kind),
            key.map(|key| key.bytes()),
            since,
            wait.title,
            wait.detail,
            wait.created_at.as_unix_ms(),
            wait.due_at.map(Timestamp::as_unix_ms),
        ])?;
    let at = wait.created_at.as_unix_ms();
    match wait.kind {
        WaitKind::Event { key, since } => {
            let statement = transaction.prepare_cached(
                "INSERT INTO inbox (run_id, id, kind, created_at) \
                 SELECT ?1, event_id, ?2, ?3 FROM event_key WHERE key = ?4 AND event_id >= ?5 \
                 ON CONFLICT DO NOTHING RETURNING run_id",
            )?;
            let kind = mail_kind_code(MailKind::Event);
            note(statement, params![run.as_raw(), kind, at, key.bytes(), since], mailed)
        }
        WaitKind::Run(child) => {
            let statement = transaction.prepare_cached(
                "INSERT INTO inbox (run_id, id, kind, created_at) \
                 SELECT ?1, id, ?2, ?3 FROM (SELECT id, status FROM (SELECT id, status FROM run WHERE id = ?4 \
                 UNION ALL SELECT id, status FROM run WHERE root_id = ?4 AND replay_of IS NOT NULL) \
                 ORDER BY status = 2 DESC, status < 2 DESC, id DESC LIMIT 1) WHERE status >= 2 \
                 ON CONFLICT DO NOTHING RETURNING run_id",
            )?;
            let kind = mail_kind_code(MailKind::RunEnded);
            note(statement, params![run.as_raw(), kind, at, child.as_raw()], mailed)
        }
        WaitKind::Approval => Ok(()),
    }
}

/// Leaves mail with every run that waits for this key.
fn tell(
    transaction: &Transaction<'_>,
    key: &WaitKey,
    kind: MailKind,
    id: i64,
    at: Timestamp,
    mailed: &mut Vec<RunId>,
) -> rusqlite::Result<()> {
    let statement = transaction.prepare_cached(
        "INSERT INTO inbox (run_id, id, kind, created_at) \
         SELECT run_id, ?1, ?2, ?3 FROM wait WHERE key = ?4 AND since <= ?1 ON CONFLICT DO NOTHING RETURNING run_id",
    )?;
    let values = params![id, mail_kind_code(kind), at.as_unix_ms(), key.bytes()];
    note(statement, values, mailed)
}

fn note(
    mut statement: CachedStatement<'_>,
    values: &[&dyn rusqlite::ToSql],
    mailed: &mut Vec<RunId>,
) -> rusqlite::Result<()> {
    let mut rows = statement.query(values)?;
    while let Some(row) = rows.next()? {
        mailed.push(RunId::from_raw(row.get(0)?));
    }
    Ok(())
}
