//! Gates on SQLite. One transaction at a time, so the transaction is the lock.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use weir_workflow_engine::{Board, GateKey, RunId, Timestamp, WorkflowId};

use crate::codes::run_status_code;
use crate::node::NodeIdentity;
use crate::writer::failure::Failure;
use crate::writer::gates::{GateChanges, GateRow, GateWork, HOLDS, Moved, TurnRow, gates_of_all, holders};

const TURN: &str = "SELECT run_id, root_id, workspace_id, workflow_id, is_replay, priority, position, stage, gate_id, place, gates FROM turn";

/// Decides about everything the batch does to gates, and writes it. The connection is in a transaction that writes.
pub(crate) fn settle(transaction: &Connection, node: &NodeIdentity, work: &GateWork<'_>) -> Result<Moved, Failure> {
    let board = load(transaction, work)?;
    let changes = work.decide(board);
    write(transaction, node, &changes).map_err(|error| Failure::of_sqlite(&error))?;
    Ok(changes.moved)
}

fn load(transaction: &Connection, work: &GateWork<'_>) -> Result<Board, Failure> {
    let mut board = Board::default();
    for workflow in work.workflows() {
        let tail = tail(transaction, workflow).map_err(|error| Failure::of_sqlite(&error))?;
        board.load_tail(WorkflowId::from_raw(workflow), tail);
    }
    let mut leaving = work.leaving();
    for run in &leaving {
        turn(transaction, &mut board, *run)?;
    }
    for root in work.repaired() {
        // The second part has its index.
        let text = format!(
            "{TURN} WHERE stage = ?1 AND run_id IN \
             (SELECT ?2 UNION ALL SELECT id FROM run WHERE root_id = ?2 AND replay_of IS NOT NULL)"
        );
        for row in turns(transaction, &text, params![HOLDS, root.as_raw()])? {
            row.load(&mut board)?;
        }
    }
    leaving.extend(holders(&board));
    for key in work.gates(&board) {
        gate(transaction, &mut board, &key)?;
    }
    let wanted = board.wanted(leaving.iter().copied(), work.arriving());
    queues(transaction, &mut board, wanted)?;
    for key in gates_of_all(&board) {
        gate(transaction, &mut board, &key)?;
    }
    if work.resumes() {
        let behind = board.wanted_behind();
        queues(transaction, &mut board, behind)?;
        for key in gates_of_all(&board) {
            gate(transaction, &mut board, &key)?;
        }
    }
    Ok(board)
}

/// The first so many runs that wait at these gates.
fn queues(transaction: &Connection, board: &mut Board, wanted: BTreeMap<GateKey, u32>) -> Result<(), Failure> {
    for (key, depth) in wanted {
        let text = format!("{TURN} WHERE gate_id = ?1 ORDER BY place, run_id LIMIT ?2");
        for row in turns(transaction, &text, params![key.bytes(), depth])? {
            row.load(board)?;
        }
    }
    Ok(())
}

fn tail(transaction: &Connection, workflow: i64) -> rusqlite::Result<i64> {
    let mut statement = transaction.prepare_cached("SELECT tail FROM turn_order WHERE workflow_id = ?1")?;
    let mut rows = statement.query(params![workflow])?;
    rows.next()?.map_or(Ok(0), |row| row.get(0))
}

fn turn(transaction: &Connection, board: &mut Board, run: RunId) -> Result<(), Failure> {
    let text = format!("{TURN} WHERE run_id = ?1");
    for row in turns(transaction, &text, params![run.as_raw()])? {
        row.load(board)?;
    }
    Ok(())
}

fn turns(transaction: &Connection, text: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<TurnRow>, Failure> {
    let read = || -> rusqlite::Result<Vec<TurnRow>> {
        let mut statement = transaction.prepare_cached(text)?;
        let rows = statement.query_map(values, |row| {
            Ok(TurnRow {
                run_id: row.get(0)?,
                root_id: row.get(1)?,
                workspace_id: row.get(2)?,
                workflow_id: row.get(3)?,
                is_replay: row.get(4)?,
                priority: row.get(5)?,
                position: row.get(6)?,
                stage: row.get(7)?,
                gate_id: row.get(8)?,
                place: row.get(9)?,
                gates: row.get(10)?,
            })
        })?;
        rows.collect()
    };
    read().map_err(|error| Failure::of_sqlite(&error))
}

fn gate(transaction: &Connection, board: &mut Board, key: &GateKey) -> Result<(), Failure> {
    let read = || -> rusqlite::Result<Option<GateRow>> {
        let mut statement = transaction.prepare_cached(
            "SELECT id, workspace_id, workflow_id, kind, name, max_inside, inside, waiting, holder, since, \
             per_ms, starts, alarm, idle_at FROM gate WHERE id = ?1",
        )?;
        let mut rows = statement.query(params![key.bytes()])?;
        let row = rows.next()?;
        row.map(|row| {
            Ok(GateRow {
                id: row.get(0)?,
                workspace_id: row.get(1)?,
                workflow_id: row.get(2)?,
                kind: row.get(3)?,
                name: row.get(4)?,
                max_inside: row.get(5)?,
                inside: row.get(6)?,
                waiting: row.get(7)?,
                holder: row.get(8)?,
                since: row.get(9)?,
                per_ms: row.get(10)?,
                starts: row.get(11)?,
                alarm: row.get(12)?,
                idle_at: row.get(13)?,
            })
        })
        .transpose()
    };
    let row = read().map_err(|error| Failure::of_sqlite(&error))?;
    let Some(row) = row else { return Ok(()) };
    match row.load(board)? {
        Some(holder) => turn(transaction, board, holder),
        None => Ok(()),
    }
}

fn write(transaction: &Connection, node: &NodeIdentity, changes: &GateChanges) -> rusqlite::Result<()> {
    for (workflow, tail) in &changes.tails {
        transaction
            .prepare_cached(
                "INSERT INTO turn_order (workflow_id, tail) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET tail = excluded.tail",
            )?
            .execute(params![workflow.as_raw(), tail])?;
    }
    for id in &changes.gates_gone {
        transaction
            .prepare_cached("DELETE FROM gate WHERE id = ?1")?
            .execute(params![id])?;
    }
    for row in &changes.gates {
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO gate (id, workspace_id, workflow_id, kind, name, max_inside, inside, waiting, holder, since, \
                 per_ms, starts, alarm, idle_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?
            .execute(params![
                row.id,
                row.workspace_id,
                row.workflow_id,
                row.kind,
                row.name,
                row.max_inside,
                row.inside,
                row.waiting,
                row.holder,
                row.since,
                row.per_ms,
                row.starts,
                row.alarm,
                row.idle_at,
            ])?;
    }
    for run in &changes.turns_gone {
        transaction
            .prepare_cached("DELETE FROM turn WHERE run_id = ?1")?
            .execute(params![run])?;
    }
    for row in &changes.turns {
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO turn (run_id, root_id, workspace_id, workflow_id, is_replay, priority, position, stage, \
                 gate_id, place, gates) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                row.run_id,
                row.root_id,
                row.workspace_id,
                row.workflow_id,
                row.is_replay,
                row.priority,
                row.position,
                row.stage,
                row.gate_id,
                row.place,
                row.gates,
            ])?;
    }
    for change in &changes.runs {
        transaction
            .prepare_cached(
                "UPDATE run SET owner = ?1, status = ?2, due_at = ?3, finished_at = ?4, error_code = ?5, \
                 started_at = coalesce(?6, started_at) WHERE id = ?7",
            )?
            .execute(params![
                node.slot,
                run_status_code(change.status),
                change.due_at.map(Timestamp::as_unix_ms),
                change.finished_at.map(Timestamp::as_unix_ms),
                change.error_code,
                change.started_at.map(Timestamp::as_unix_ms),
                change.run.as_raw(),
            ])?;
        if let Some(letter) = change.dead_letter() {
            super::dead_letter(transaction, change.run, &letter, change.finished_at)?;
        }
    }
    for (run, into, place) in &changes.merged {
        transaction
            .prepare_cached("INSERT INTO merged (run_id, into_id, place) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
            .execute(params![run.as_raw(), into.as_raw(), place])?;
    }
    Ok(())
}
