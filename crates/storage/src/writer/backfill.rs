//! Backfills: what people ask of them, and the steps of the one node that reads the list, proved by its incarnation in
//! each transaction.

use weir_workflow_engine::Timestamp;

use super::connection::{Connection, Value};
use super::control::prove_lease;
use super::failure::{Failure, Offence};
use crate::backfill::{
    BackfillAsk, BackfillLetGo, BackfillMove, BackfillStatus, BackfillStep, MAX_BACKFILLS_KEPT, NewBackfill,
};
use crate::codes::backfill_status_code;
use crate::node::NodeIdentity;
use crate::outcome::FactOutcome;

/// A step of the node that reads the list. Inside a transaction.
pub(crate) async fn apply(
    connection: &mut Connection,
    node: &NodeIdentity,
    step: &BackfillStep,
) -> Result<FactOutcome, Failure> {
    prove_lease(connection, node).await?;
    let rows = match step {
        BackfillStep::Claim(id) => claim(connection, node, id.as_raw()).await?,
        BackfillStep::Move(step) => move_on(connection, node, step).await?,
        BackfillStep::LetGo(step) => let_go(connection, node, step).await?,
    };
    written(rows).map(|()| FactOutcome::Written)
}

/// What a person asks. Inside a transaction of the caller's, which has proved the node.
pub(crate) async fn ask(connection: &mut Connection, asked: &BackfillAsk) -> Result<(), Failure> {
    let rows = match asked {
        BackfillAsk::Begin(new) => begin(connection, new).await?,
        BackfillAsk::Set {
            workspace,
            id,
            from,
            to,
            at,
        } => {
            // Whoever goes on after a pause does not wait for what an earlier failure ordered.
            let text = "UPDATE backfill SET status = $1, finished_at = $2, retry_at = $3, failures = 0 \
                WHERE id = $4 AND workspace_id = $5 AND status = $6";
            let values = vec![
                i64::from(backfill_status_code(*to)).into(),
                time((!to.is_open()).then_some(*at)),
                time(Some(*at)),
                id.as_raw().into(),
                workspace.as_raw().into(),
                i64::from(backfill_status_code(*from)).into(),
            ];
            connection.run(text, values).await?
        }
    };
    written(rows)
}

fn written(rows: u64) -> Result<(), Failure> {
    match rows {
        // Another node reads it, or it does not stand where it was seen.
        0 => Err(Failure::Fact(Offence::Journal)),
        _ => Ok(()),
    }
}

fn time(time: Option<Timestamp>) -> Value {
    Value::Int(time.map(Timestamp::as_unix_ms))
}

fn number(count: u64) -> Value {
    i64::try_from(count).unwrap_or(i64::MAX).into()
}

async fn begin(connection: &mut Connection, new: &NewBackfill) -> Result<u64, Failure> {
    let text = "INSERT INTO backfill (id, workspace_id, endpoint_id, status, owner, actor, since, until, pages, listed, \
        recovered, duplicates, passed_over, failures, created_at, retry_at) \
        SELECT $1, workspace_id, id, 0, 0, $2, $3, $4, 0, 0, 0, 0, 0, 0, $5, $5 FROM endpoint \
        WHERE id = $6 AND workspace_id = $7 ON CONFLICT DO NOTHING";
    let values = vec![
        new.id.as_raw().into(),
        new.actor.as_str().into(),
        time(Some(new.since)),
        time(Some(new.until)),
        time(Some(new.at)),
        new.endpoint.as_raw().into(),
        new.workspace.as_raw().into(),
    ];
    let rows = connection.run(text, values).await?;
    let text = format!(
        "DELETE FROM backfill WHERE endpoint_id = $1 AND status > 1 AND id NOT IN \
         (SELECT id FROM backfill WHERE endpoint_id = $1 ORDER BY id DESC LIMIT {MAX_BACKFILLS_KEPT})"
    );
    connection.run(&text, vec![new.endpoint.as_raw().into()]).await?;
    Ok(rows)
}

async fn claim(connection: &mut Connection, node: &NodeIdentity, id: i64) -> Result<u64, Failure> {
    let over = connection.dialect().lease_over("lease_until");
    // A claim whose node is gone counts for nothing: an incarnation is never used again.
    let text = format!(
        "UPDATE backfill SET owner = $1 WHERE id = $2 AND status = 0 AND (owner = 0 OR owner = $1 OR owner NOT IN \
         (SELECT incarnation FROM node WHERE incarnation <> 0 AND NOT {over}))"
    );
    connection.run(&text, vec![node.incarnation.into(), id.into()]).await
}

async fn move_on(connection: &mut Connection, node: &NodeIdentity, step: &BackfillMove) -> Result<u64, Failure> {
    let text = "UPDATE backfill SET place = coalesce($1, place), reached = coalesce($2, reached), pages = pages + $3, \
        listed = listed + $4, recovered = recovered + $5, duplicates = duplicates + $6, passed_over = passed_over + $7, \
        failures = CASE WHEN $3 > 0 THEN 0 ELSE failures END, error = CASE WHEN $3 > 0 THEN NULL ELSE error END \
        WHERE id = $8 AND owner = $9";
    let values = vec![
        Value::Text(step.place.clone()),
        time(step.reached),
        i64::from(step.pages).into(),
        number(step.listed),
        number(step.recovered),
        number(step.duplicates),
        number(step.passed_over),
        step.id.as_raw().into(),
        node.incarnation.into(),
    ];
    connection.run(text, values).await
}

async fn let_go(connection: &mut Connection, node: &NodeIdentity, step: &BackfillLetGo) -> Result<u64, Failure> {
    let running = backfill_status_code(BackfillStatus::Running);
    // What a person asked meanwhile stands.
    let text = format!(
        "UPDATE backfill SET owner = 0, error = $1, failures = $2, retry_at = $3, \
         finished_at = CASE WHEN status = {running} THEN $4 ELSE finished_at END, \
         status = CASE WHEN status = {running} THEN $5 ELSE status END WHERE id = $6 AND owner = $7"
    );
    let status = step.end.unwrap_or(BackfillStatus::Running);
    let values = vec![
        Value::Text(step.error.clone()),
        i64::from(step.failures).into(),
        time(Some(step.retry_at)),
        time(step.end.map(|_| step.at)),
        i64::from(backfill_status_code(status)).into(),
        step.id.as_raw().into(),
        node.incarnation.into(),
    ];
    connection.run(&text, values).await
}
