//! Storing an outgoing event, in a transaction of its own.

use weir_workflow_engine::OutgoingId;

use super::connection::{Connection, Value};
use super::control::prove_lease;
use super::failure::Failure;
use crate::blob::Blob;
use crate::node::NodeIdentity;
use crate::outcome::FactOutcome;
use crate::outgoing::Outgoing;

/// Stores it, or finds the one that is stored under its key.
pub(crate) async fn emit(
    connection: &mut Connection,
    node: &NodeIdentity,
    body: &Blob,
    event: &Outgoing,
) -> Result<FactOutcome, Failure> {
    prove_lease(connection, node).await?;
    let text = "INSERT INTO outgoing (id, workspace_id, effect_key, kind, order_key, run_id, step, created_at, codec, body) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
        ON CONFLICT (effect_key) DO UPDATE SET effect_key = excluded.effect_key RETURNING id";
    let values = vec![
        event.id.as_raw().into(),
        event.workspace.as_raw().into(),
        event.effect_key.as_slice().into(),
        event.kind.as_str().into(),
        Value::Text(event.order_key.clone()),
        event.run.as_raw().into(),
        event.step.as_str().into(),
        event.created_at.as_unix_ms().into(),
        Value::from(i32::from(body.codec)),
        body.bytes.as_slice().into(),
    ];
    let rows = connection.numbers(text, values, false).await?;
    let id = rows.iter().flatten().copied().flatten().next();
    Ok(FactOutcome::Emitted(OutgoingId::from_raw(
        id.unwrap_or(event.id.as_raw()),
    )))
}
