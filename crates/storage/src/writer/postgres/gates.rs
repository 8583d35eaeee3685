//! Gates on PostgreSQL: a few statements around the one that writes the batch, in one transaction.
//!
//! The rows of the workflows concerned are locked first, in one order for all nodes; whoever comes second then sees what
//! the first one committed. The number of statements does not depend on the number of runs.

use std::collections::BTreeMap;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Executor, Row as _};
use weir_workflow_engine::{Board, GateKey, RunId, Timestamp, WorkflowId};

use crate::codes::run_status_code;
use crate::node::{FREE_RUNS, NOBODY, NodeIdentity};
use crate::writer::failure::Failure;
use crate::writer::gates::{GateChanges, GateRow, GateWork, HOLDS, Moved, TurnRow, gates_of_all, holders};

const TURN: &str = "t.run_id, t.root_id, t.workspace_id, t.workflow_id, t.is_replay::bigint, t.priority::bigint, t.position, \
     t.stage::bigint, t.gate_id, t.place, t.gates";

/// The last positions of the workflows, whose rows stay locked until the transaction ends.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    work: &GateWork<'_>,
) -> Result<Vec<(WorkflowId, i64)>, Failure> {
    let workflows: Vec<i64> = work.workflows().into_iter().collect();
    if workflows.is_empty() {
        return Ok(Vec::new());
    }
    let query = sqlx::query(
        "INSERT INTO turn_order AS o (workflow_id, tail) SELECT w, 0 FROM UNNEST($1::bigint[]) AS w ORDER BY w \
         ON CONFLICT (workflow_id) DO UPDATE SET tail = o.tail RETURNING o.workflow_id, o.tail",
    );
    let rows = all(connection, query.bind(workflows)).await?;
    Ok(rows
        .iter()
        .map(|row| (WorkflowId::from_raw(row.get(0)), row.get(1)))
        .collect())
}

/// Decides about everything the batch does to gates, and writes it. The rows of its workflows are locked.
pub(crate) async fn settle(
    connection: &mut PgConnection,
    node: &NodeIdentity,
    work: &GateWork<'_>,
    tails: Vec<(WorkflowId, i64)>,
) -> Result<Moved, Failure> {
    let mut board = Board::default();
    for (workflow, tail) in tails {
        board.load_tail(workflow, tail);
    }
    let mut leaving = work.leaving();
    load_turns(connection, &mut board, &leaving).await?;
    load_repaired(connection, &mut board, &work.repaired()).await?;
    leaving.extend(holders(&board));
    let keys = work.gates(&board);
    load_gates(connection, &mut board, keys).await?;
    let wanted = board.wanted(leaving.iter().copied(), work.arriving());
    load_queues(connection, &mut board, wanted).await?;
    // Whoever moves may come to gates further on; so may a run that gathers events.
    let further = gates_of_all(&board);
    load_gates(connection, &mut board, further).await?;
    if work.resumes() {
        let behind = board.wanted_behind();
        load_queues(connection, &mut board, behind).await?;
        let further = gates_of_all(&board);
        load_gates(connection, &mut board, further).await?;
    }
    let changes = work.decide(board);
    write(connection, node, changes).await
}

async fn all(
    connection: &mut PgConnection,
    query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
) -> Result<Vec<PgRow>, Failure> {
    let rows = connection.fetch_all(query).await;
    rows.map_err(|error| Failure::of_postgres(&error, false))
}

async fn load_turns(connection: &mut PgConnection, board: &mut Board, runs: &[RunId]) -> Result<(), Failure> {
    if runs.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = runs.iter().map(|run| run.as_raw()).collect();
    let text = format!("SELECT {TURN} FROM turn AS t WHERE t.run_id = ANY($1::bigint[])");
    for row in all(connection, sqlx::query(sqlx::AssertSqlSafe(text)).bind(ids)).await? {
        turn(&row).load(board)?;
    }
    Ok(())
}

/// The failed runs of these families that keep a lane.
async fn load_repaired(connection: &mut PgConnection, board: &mut Board, roots: &[RunId]) -> Result<(), Failure> {
    if roots.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = roots.iter().map(|run| run.as_raw()).collect();
    // The second part has its index.
    let text = format!(
        "SELECT {TURN} FROM turn AS t WHERE t.stage = $1 AND t.run_id IN (SELECT UNNEST($2::bigint[]) \
         UNION ALL SELECT id FROM run WHERE root_id = ANY($2::bigint[]) AND replay_of IS NOT NULL)"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(HOLDS).bind(ids);
    for row in all(connection, query).await? {
        turn(&row).load(board)?;
    }
    Ok(())
}

/// The first so many runs that wait at these gates.
async fn load_queues(
    connection: &mut PgConnection,
    board: &mut Board,
    wanted: BTreeMap<GateKey, u32>,
) -> Result<(), Failure> {
    if wanted.is_empty() {
        return Ok(());
    }
    let (keys, depths): (Vec<Vec<u8>>, Vec<i64>) = wanted
        .into_iter()
        .map(|(key, depth)| (key.bytes().to_vec(), i64::from(depth)))
        .unzip();
    let text = format!(
        "SELECT {TURN} FROM UNNEST($1::bytea[], $2::bigint[]) AS w (gate_id, depth) CROSS JOIN LATERAL \
         (SELECT * FROM turn WHERE turn.gate_id = w.gate_id ORDER BY place, run_id LIMIT w.depth) AS t"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(keys).bind(depths);
    for row in all(connection, query).await? {
        turn(&row).load(board)?;
    }
    Ok(())
}

async fn load_gates(
    connection: &mut PgConnection,
    board: &mut Board,
    keys: impl IntoIterator<Item = GateKey>,
) -> Result<(), Failure> {
    let ids: Vec<Vec<u8>> = keys.into_iter().map(|key| key.bytes().to_vec()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(
        "SELECT id, workspace_id, workflow_id, kind::bigint, name, max_inside::bigint, inside::bigint, waiting::bigint, \
         holder, since, per_ms, starts, alarm, idle_at FROM gate WHERE id = ANY($1::bytea[])",
    );
    let mut holders = Vec::new();
    for row in all(connection, query.bind(ids)).await? {
        let gate = GateRow {
            id: row.get(0),
            workspace_id: row.get(1),
            workflow_id: row.get(2),
            kind: row.get(3),
            name: row.get(4),
            max_inside: row.get(5),
            inside: row.get(6),
            waiting: row.get(7),
            holder: row.get(8),
            since: row.get(9),
            per_ms: row.get(10),
            starts: row.get(11),
            alarm: row.get(12),
            idle_at: row.get(13),
        };
        holders.extend(gate.load(board)?);
    }
    load_turns(connection, board, &holders).await
}

fn turn(row: &PgRow) -> TurnRow {
    TurnRow {
        run_id: row.get(0),
        root_id: row.get(1),
        workspace_id: row.get(2),
        workflow_id: row.get(3),
        is_replay: row.get(4),
        priority: row.get(5),
        position: row.get(6),
        stage: row.get(7),
        gate_id: row.get(8),
        place: row.get(9),
        gates: row.get(10),
    }
}

/// One array per column.
macro_rules! columns {
    ($query:expr, $rows:expr, $($field:ident),*) => {
        $query$(.bind($rows.iter().map(|row| row.$field.clone()).collect::<Vec<_>>()))*
    };
}

async fn write(connection: &mut PgConnection, node: &NodeIdentity, changes: GateChanges) -> Result<Moved, Failure> {
    let (workflows, tails): (Vec<i64>, Vec<i64>) = changes
        .tails
        .iter()
        .map(|(workflow, tail)| (workflow.as_raw(), *tail))
        .unzip();
    let query = sqlx::query(
        "UPDATE turn_order SET tail = u.tail FROM UNNEST($1::bigint[], $2::bigint[]) AS u (workflow_id, tail) \
         WHERE turn_order.workflow_id = u.workflow_id",
    );
    all(connection, query.bind(workflows).bind(tails)).await?;
    if !changes.gates_gone.is_empty() {
        let query = sqlx::query("DELETE FROM gate WHERE id = ANY($1::bytea[])").bind(changes.gates_gone);
        all(connection, query).await?;
    }
    if !changes.gates.is_empty() {
        let query = sqlx::query(
            "INSERT INTO gate (id, workspace_id, workflow_id, kind, name, max_inside, inside, waiting, holder, since, \
             per_ms, starts, alarm, idle_at) \
             SELECT * FROM UNNEST($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[]::smallint[], $5::text[], \
             $6::bigint[]::int[], $7::bigint[]::int[], $8::bigint[]::int[], $9::bigint[], $10::bigint[], \
             $11::bigint[], $12::bytea[], $13::bigint[], $14::bigint[]) ON CONFLICT (id) DO UPDATE SET max_inside = excluded.max_inside, inside = excluded.inside, \
             waiting = excluded.waiting, holder = excluded.holder, since = excluded.since, per_ms = excluded.per_ms, \
             starts = excluded.starts, alarm = excluded.alarm, idle_at = excluded.idle_at",
        );
        let rows = &changes.gates;
        let query = columns!(
            query,
            rows,
            id,
            workspace_id,
            workflow_id,
            kind,
            name,
            max_inside,
            inside,
            waiting,
            holder,
            since,
            per_ms,
            starts,
            alarm,
            idle_at
        );
        all(connection, query).await?;
    }
    if !changes.turns_gone.is_empty() {
        let query = sqlx::query("DELETE FROM turn WHERE run_id = ANY($1::bigint[])").bind(changes.turns_gone);
        all(connection, query).await?;
    }
    if !changes.turns.is_empty() {
        let query = sqlx::query(
            "INSERT INTO turn (run_id, root_id, workspace_id, workflow_id, is_replay, priority, position, stage, gate_id, place, gates) \
             SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]::smallint[], \
             $6::bigint[]::int[], $7::bigint[], $8::bigint[]::smallint[], $9::bytea[], $10::bigint[], $11::bytea[]) \
             ON CONFLICT (run_id) DO UPDATE SET position = excluded.position, stage = excluded.stage, \
             gate_id = excluded.gate_id, place = excluded.place",
        );
        let rows = &changes.turns;
        let query = columns!(
            query,
            rows,
            run_id,
            root_id,
            workspace_id,
            workflow_id,
            is_replay,
            priority,
            position,
            stage,
            gate_id,
            place,
            gates
        );
        all(connection, query).await?;
    }
    if !changes.runs.is_empty() {
        let query = sqlx::query(
            "UPDATE run SET owner = $1, status = u.status, due_at = u.due_at, finished_at = u.finished_at, error_code = u.error_code, \
             started_at = coalesce(u.started_at, run.started_at) \
             FROM UNNEST($2::bigint[], $3::smallint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[]) \
             AS u (id, status, due_at, finished_at, error_code, started_at) \
             WHERE run.id = u.id",
        );
        let rows = &changes.runs;
        let ids: Vec<i64> = rows.iter().map(|row| row.run.as_raw()).collect();
        let statuses: Vec<i16> = rows.iter().map(|row| run_status_code(row.status)).collect();
        let due: Vec<Option<i64>> = rows.iter().map(|row| row.due_at.map(Timestamp::as_unix_ms)).collect();
        let finished: Vec<Option<i64>> = rows
            .iter()
            .map(|row| row.finished_at.map(Timestamp::as_unix_ms))
            .collect();
        let started: Vec<Option<i64>> = rows
            .iter()
            .map(|row| row.started_at.map(Timestamp::as_unix_ms))
            .collect();
        let codes: Vec<Option<&str>> = rows.iter().map(|row| row.error_code).collect();
        let query = query
            .bind(node.owner())
            .bind(ids)
            .bind(statuses)
            .bind(due)
            .bind(finished)
            .bind(codes)
            .bind(started);
        all(connection, query).await?;
    }
    if !changes.runs.is_empty() && node.owner() == NOBODY {
        // Workers hear of them once the batch is committed.
        all(connection, sqlx::query("SELECT pg_notify($1, '')").bind(FREE_RUNS)).await?;
    }
    for change in &changes.runs {
        let Some(letter) = change.dead_letter() else { continue };
        let query = sqlx::query(
            "INSERT INTO dead_letter (run_id, workspace_id, workflow_id, cause, code, step, message, failed_at, state) \
             SELECT id, workspace_id, workflow_id, $1, $2, $3, $4, $5, 0 FROM run WHERE id = $6 ON CONFLICT DO NOTHING",
        );
        let failed_at = change.finished_at.map_or(0, Timestamp::as_unix_ms);
        let query = query.bind(letter.cause).bind(letter.code).bind(letter.step);
        let query = query.bind(letter.message).bind(failed_at).bind(change.run.as_raw());
        all(connection, query).await?;
    }
    if !changes.merged.is_empty() {
        let rows = &changes.merged;
        let runs: Vec<i64> = rows.iter().map(|(run, _, _)| run.as_raw()).collect();
        let into: Vec<i64> = rows.iter().map(|(_, into, _)| into.as_raw()).collect();
        let places: Vec<i64> = rows.iter().map(|(_, _, place)| *place).collect();
        let query = sqlx::query(
            "INSERT INTO merged (run_id, into_id, place) SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) \
             ON CONFLICT DO NOTHING",
        );
        all(connection, query.bind(runs).bind(into).bind(places)).await?;
    }
    Ok(changes.moved)
}
