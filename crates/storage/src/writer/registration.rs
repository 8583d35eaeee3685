//! Registrations: one node at a time looks after each, proved by its incarnation and the row's generation.
//!
//! As with grants, the row of the configuration's revision is taken before the registration's, so that two nodes never
//! wait for each other.

use std::time::Duration;

use weir_workflow_engine::Timestamp;

use super::connection::{Connection, Value};
use super::control::prove_lease;
use super::failure::{Failure, Offence};
use crate::node::NodeIdentity;
use crate::outcome::FactOutcome;
use crate::registration::{RegistrationClaim, RegistrationDrop, RegistrationRow, RegistrationSave, RegistrationStep};

/// Takes a step. Inside a transaction.
pub(crate) async fn apply(
    connection: &mut Connection,
    node: &NodeIdentity,
    step: &RegistrationStep,
) -> Result<FactOutcome, Failure> {
    prove_lease(connection, node).await?;
    let rows = match step {
        RegistrationStep::Claim(claim) if claim.row.generation == 0 => make(connection, node, claim).await?,
        RegistrationStep::Claim(claim) => take_over(connection, node, claim).await?,
        RegistrationStep::Save(save) => {
            if save.announce {
                announce(connection).await?;
            }
            store(connection, node, save).await?
        }
        RegistrationStep::Drop(dropped) => {
            announce(connection).await?;
            delete(connection, node, dropped).await?
        }
    };
    if rows == 0 {
        return Err(Failure::Fact(Offence::Journal));
    }
    Ok(FactOutcome::Written)
}

fn time(time: Option<Timestamp>) -> Value {
    Value::Int(time.map(Timestamp::as_unix_ms))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn events(row: &RegistrationRow) -> String {
    serde_json::Value::from(row.events.clone()).to_string()
}

/// Every node reads the configuration anew.
async fn announce(connection: &mut Connection) -> Result<(), Failure> {
    let text = "UPDATE config_state SET revision = revision + 1 WHERE id = 1";
    connection.run(text, Vec::new()).await.map(drop)
}

async fn make(connection: &mut Connection, node: &NodeIdentity, claim: &RegistrationClaim) -> Result<u64, Failure> {
    let now = connection.dialect().now_ms();
    let text = format!(
        "INSERT INTO registration (endpoint_id, workspace_id, connection_id, place, events, failures, retry_at, \
         generation, owner, lease_until) SELECT id, workspace_id, $1, $2, $3, 0, 0, 1, $4, {now} + $5 FROM endpoint \
         WHERE id = $6 AND workspace_id = $7 ON CONFLICT (endpoint_id) DO NOTHING"
    );
    let row = &claim.row;
    let values = vec![
        row.connection.as_raw().into(),
        row.place.as_str().into(),
        events(row).as_str().into(),
        node.incarnation.into(),
        millis(claim.lease).into(),
        row.endpoint.as_raw().into(),
        row.workspace.as_raw().into(),
    ];
    connection.run(&text, values).await
}

async fn take_over(
    connection: &mut Connection,
    node: &NodeIdentity,
    claim: &RegistrationClaim,
) -> Result<u64, Failure> {
    let dialect = connection.dialect();
    let (now, over) = (dialect.now_ms(), dialect.lease_over("lease_until"));
    // A claim whose node is gone counts for nothing: an incarnation is never used again.
    let text = format!(
        "UPDATE registration SET owner = $1, lease_until = {now} + $2, generation = generation + 1 \
         WHERE endpoint_id = $3 AND workspace_id = $4 AND generation = $5 AND (owner = 0 OR owner = $6 \
         OR lease_until < {now} OR owner NOT IN (SELECT incarnation FROM node WHERE incarnation <> 0 AND NOT {over}))"
    );
    let values = vec![
        node.incarnation.into(),
        millis(claim.lease).into(),
        claim.row.endpoint.as_raw().into(),
        claim.row.workspace.as_raw().into(),
        claim.row.generation.into(),
        node.incarnation.into(),
    ];
    connection.run(&text, values).await
}

async fn store(connection: &mut Connection, node: &NodeIdentity, save: &RegistrationSave) -> Result<u64, Failure> {
    let now = connection.dialect().now_ms();
    let text = format!(
        "UPDATE registration SET connection_id = $1, place = $2, provider_id = $3, url = $4, events = $5, secrets = $6, \
         secrets_until = $7, expires_at = $8, created_at = $9, renewed_at = $10, checked_at = $11, drift = $12, \
         drifted_at = $13, error = $14, failures = $15, retry_at = $16, owner = $17, lease_until = {now} + $18, \
         generation = generation + 1 WHERE endpoint_id = $19 AND workspace_id = $20 AND generation = $21 AND owner = $22"
    );
    let row = &save.row;
    let owner = save.keep.map_or(0, |_| node.incarnation);
    let values = vec![
        row.connection.as_raw().into(),
        row.place.as_str().into(),
        Value::Text(row.provider_id.clone()),
        Value::Text(row.url.clone()),
        events(row).as_str().into(),
        Value::Bytes(row.secrets.clone()),
        time(row.secrets_until),
        time(row.expires_at),
        time(row.created_at),
        time(row.renewed_at),
        time(row.checked_at),
        Value::Text(row.drift.as_ref().map(|(_, what)| what.clone())),
        time(row.drift.as_ref().map(|(at, _)| *at)),
        Value::Text(row.error.clone()),
        i64::from(row.failures).into(),
        time(Some(row.retry_at)),
        owner.into(),
        millis(save.keep.unwrap_or_default()).into(),
        row.endpoint.as_raw().into(),
        row.workspace.as_raw().into(),
        row.generation.into(),
        node.incarnation.into(),
    ];
    connection.run(&text, values).await
}

async fn delete(connection: &mut Connection, node: &NodeIdentity, dropped: &RegistrationDrop) -> Result<u64, Failure> {
    let text =
        "DELETE FROM registration WHERE endpoint_id = $1 AND workspace_id = $2 AND generation = $3 AND owner = $4";
    let values = vec![
        dropped.endpoint.as_raw().into(),
        dropped.workspace.as_raw().into(),
        dropped.generation.into(),
        node.incarnation.into(),
    ];
    connection.run(text, values).await
}
