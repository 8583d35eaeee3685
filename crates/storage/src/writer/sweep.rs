//! Sweeps: one node per endpoint, proved by its incarnation in each transaction.

use weir_workflow_engine::Timestamp;

use super::connection::{Connection, Value};
use super::control::prove_lease;
use super::failure::{Failure, Offence};
use crate::node::NodeIdentity;
use crate::outcome::FactOutcome;
use crate::sweep::{CoverageCount, SweepBegin, SweepChange, SweepEnd, SweepMove};

/// Begins, moves or ends a sweep. Inside a transaction.
pub(crate) async fn apply(
    connection: &mut Connection,
    node: &NodeIdentity,
    change: &SweepChange,
) -> Result<FactOutcome, Failure> {
    prove_lease(connection, node).await?;
    let rows = match change {
        SweepChange::Begin(begin) => begin_sweep(connection, node, begin).await?,
        SweepChange::Move(step) => move_on(connection, node, step).await?,
        SweepChange::End(end) => end_sweep(connection, node, end).await?,
    };
    if rows == 0 {
        // Another node sweeps it, or has swept it since.
        return Err(Failure::Fact(Offence::Journal));
    }
    Ok(FactOutcome::Written)
}

fn time(time: Option<Timestamp>) -> Value {
    Value::Int(time.map(Timestamp::as_unix_ms))
}

fn number(count: u64) -> Value {
    i64::try_from(count).unwrap_or(i64::MAX).into()
}

async fn begin_sweep(connection: &mut Connection, node: &NodeIdentity, begin: &SweepBegin) -> Result<u64, Failure> {
    let over = connection.dialect().lease_over("lease_until");
    // A claim whose node is gone counts for nothing: an incarnation is never used again.
    let text = format!(
        "INSERT INTO sweep (endpoint_id, workspace_id, owner, covered_until, cause, started_at, pages, recovered, duplicates, failures) \
         VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0, 0) ON CONFLICT (endpoint_id) DO UPDATE SET owner = excluded.owner, \
         cause = excluded.cause, started_at = excluded.started_at, finished_at = NULL, outcome = NULL, error = NULL, \
         pages = 0, recovered = 0, duplicates = 0 \
         WHERE sweep.workspace_id = excluded.workspace_id AND sweep.started_at = $7 AND (sweep.owner = 0 OR sweep.owner = excluded.owner \
         OR sweep.owner NOT IN (SELECT incarnation FROM node WHERE incarnation <> 0 AND NOT {over}))"
    );
    let values = vec![
        begin.endpoint.as_raw().into(),
        begin.workspace.as_raw().into(),
        node.incarnation.into(),
        time(Some(begin.covered_until)),
        begin.cause.as_str().into(),
        time(Some(begin.at)),
        time(begin.after),
    ];
    connection.run(&text, values).await
}

async fn move_on(connection: &mut Connection, node: &NodeIdentity, step: &SweepMove) -> Result<u64, Failure> {
    // The oldest loss stays until somebody has seen it; a later one only makes it longer.
    let text = "UPDATE sweep SET cursor = $1, covered_until = coalesce($2, covered_until), \
        lost_from = coalesce(lost_from, $3), lost_until = coalesce($4, lost_until), pages = pages + $5, \
        recovered = recovered + $6, duplicates = duplicates + $7 WHERE endpoint_id = $8 AND owner = $9";
    let values = vec![
        Value::Text(step.cursor.clone()),
        time(step.covered_until),
        time(step.lost.map(|(from, _)| from)),
        time(step.lost.map(|(_, until)| until)),
        i64::from(step.pages).into(),
        number(step.recovered),
        number(step.duplicates),
        step.endpoint.as_raw().into(),
        node.incarnation.into(),
    ];
    connection.run(text, values).await
}

async fn end_sweep(connection: &mut Connection, node: &NodeIdentity, end: &SweepEnd) -> Result<u64, Failure> {
    let text = "UPDATE sweep SET owner = 0, finished_at = $1, outcome = $2, error = $3, failures = $4 \
        WHERE endpoint_id = $5 AND owner = $6";
    let values = vec![
        time(Some(end.at)),
        end.outcome.as_str().into(),
        Value::Text(end.error.clone()),
        i64::from(end.failures).into(),
        end.endpoint.as_raw().into(),
        node.incarnation.into(),
    ];
    connection.run(text, values).await
}

/// Adds what arrived to the hours of endpoints that are still there. Inside a transaction.
pub(crate) async fn count(
    connection: &mut Connection,
    node: &NodeIdentity,
    counts: &[CoverageCount],
) -> Result<FactOutcome, Failure> {
    prove_lease(connection, node).await?;
    let text = "INSERT INTO coverage (endpoint_id, hour, workspace_id, received, recovered, duplicates, backfilled) \
        SELECT id, $1, workspace_id, $2, $3, $4, $5 FROM endpoint WHERE id = $6 AND workspace_id = $7 \
        ON CONFLICT (endpoint_id, hour) DO UPDATE SET received = coverage.received + excluded.received, \
        recovered = coverage.recovered + excluded.recovered, duplicates = coverage.duplicates + excluded.duplicates, \
        backfilled = coverage.backfilled + excluded.backfilled";
    for count in counts {
        let values = vec![
            i64::from(count.hour).into(),
            number(count.received),
            number(count.recovered),
            number(count.duplicates),
            number(count.backfilled),
            count.endpoint.as_raw().into(),
            count.workspace.as_raw().into(),
        ];
        connection.run(text, values).await?;
    }
    Ok(FactOutcome::Written)
}
