//! Grants: one refresh at a time over all nodes, and tokens that are only ever replaced by what came after them.
//!
//! The row of the configuration's revision is taken before the grant's, here and in changes of the configuration, so that
//! two nodes never wait for each other.

use weir_workflow_engine::{ConnectionId, Timestamp, WorkspaceId};

use super::connection::{Connection, Value};
use super::control::prove_lease;
use super::failure::{Failure, Offence};
use crate::codes::grant_state_code;
use crate::grant::{
    AuthorizationAttempt, DroppedGrant, GrantClaim, GrantNote, GrantRefused, GrantSave, GrantState, GrantStep,
    MAX_OPEN_AUTHORIZATIONS, NewGrant,
};
use crate::node::NodeIdentity;
use crate::outcome::FactOutcome;

/// Takes a step. Inside a transaction.
pub(crate) async fn apply(
    connection: &mut Connection,
    node: &NodeIdentity,
    step: &GrantStep,
) -> Result<FactOutcome, Failure> {
    prove_lease(connection, node).await?;
    let rows = match step {
        GrantStep::Claim(claim) => take_lease(connection, node, claim).await?,
        GrantStep::Save(save) => save_tokens(connection, save).await?,
        GrantStep::Note(note) => write_note(connection, node, note).await?,
        GrantStep::Refused(refused) => tell_refused(connection, refused).await?,
        GrantStep::Begin(attempt) => begin(connection, attempt).await?,
        GrantStep::Take { workspace, id } => {
            let text = "DELETE FROM oauth_attempt WHERE workspace_id = $1 AND id = $2";
            connection
                .run(text, vec![workspace.as_raw().into(), (*id).into()])
                .await?
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

fn code(state: GrantState) -> Value {
    i64::from(grant_state_code(state)).into()
}

/// Raises the revision of the configuration when this generation is (`is`) or is not in need of a person: every node
/// hears of what changes that.
async fn announce(connection: &mut Connection, (id, generation): (ConnectionId, i64), is: bool) -> Result<(), Failure> {
    let compared = if is { "=" } else { "<>" };
    let text = format!(
        "UPDATE config_state SET revision = revision + 1 WHERE id = 1 AND EXISTS (SELECT 1 FROM oauth_grant \
         WHERE connection_id = $1 AND generation = $2 AND state {compared} $3)"
    );
    let values = vec![id.as_raw().into(), generation.into(), code(GrantState::NeedsReauth)];
    connection.run(&text, values).await.map(drop)
}

async fn take_lease(connection: &mut Connection, node: &NodeIdentity, claim: &GrantClaim) -> Result<u64, Failure> {
    let dialect = connection.dialect();
    let (now, over) = (dialect.now_ms(), dialect.lease_over("lease_until"));
    // A claim whose node is gone counts for nothing: an incarnation is never used again. That an earlier refresh of the
    // generation had no answer stays written.
    let text = format!(
        "UPDATE oauth_grant SET owner = $1, lease_until = {now} + $2, refreshing_since = coalesce(refreshing_since, $3), \
         refreshing_by = coalesce(refreshing_by, $4) WHERE connection_id = $5 AND workspace_id = $6 AND generation = $7 \
         AND tokens IS NOT NULL AND (owner = 0 OR owner = $8 OR lease_until < {now} \
         OR owner NOT IN (SELECT incarnation FROM node WHERE incarnation <> 0 AND NOT {over}))"
    );
    let lease_ms = i64::try_from(claim.lease.as_millis()).unwrap_or(i64::MAX);
    let values = vec![
        node.incarnation.into(),
        lease_ms.into(),
        time(Some(claim.at)),
        node.name.as_str().into(),
        claim.connection.as_raw().into(),
        claim.workspace.as_raw().into(),
        claim.generation.into(),
        node.incarnation.into(),
    ];
    connection.run(&text, values).await
}

async fn save_tokens(connection: &mut Connection, save: &GrantSave) -> Result<u64, Failure> {
    announce(connection, (save.connection, save.generation), true).await?;
    let text = "UPDATE oauth_grant SET tokens = $1, expires_at = $2, scopes = coalesce($3, scopes), refreshed_at = $4, \
        state_since = CASE WHEN state = $5 THEN state_since ELSE $6 END, state = $7, generation = generation + 1, owner = 0, \
        lease_until = 0, refreshing_since = NULL, refreshing_by = NULL, error = NULL, failures = 0, retry_at = 0 \
        WHERE connection_id = $8 AND workspace_id = $9 AND generation = $10 AND tokens IS NOT NULL";
    let values = vec![
        save.tokens.as_slice().into(),
        time(Some(save.expires_at)),
        Value::Text(save.scopes.clone()),
        time(Some(save.at)),
        code(GrantState::Healthy),
        time(Some(save.at)),
        code(GrantState::Healthy),
        save.connection.as_raw().into(),
        save.workspace.as_raw().into(),
        save.generation.into(),
    ];
    connection.run(text, values).await
}

async fn write_note(connection: &mut Connection, node: &NodeIdentity, note: &GrantNote) -> Result<u64, Failure> {
    let needs = note.state == GrantState::NeedsReauth;
    announce(connection, (note.connection, note.generation), !needs).await?;
    let text = "UPDATE oauth_grant SET state_since = CASE WHEN state = $1 THEN state_since ELSE $2 END, state = $3, \
        error = $4, failures = $5, retry_at = $6, refreshing_since = $7, refreshing_by = $8, \
        owner = CASE WHEN owner = $9 THEN 0 ELSE owner END \
        WHERE connection_id = $10 AND workspace_id = $11 AND generation = $12";
    let values = vec![
        code(note.state),
        time(Some(note.at)),
        code(note.state),
        Value::Text(note.error.clone()),
        i64::from(note.failures).into(),
        time(Some(note.retry_at)),
        time(note.refreshing.as_ref().map(|(since, _)| *since)),
        Value::Text(note.refreshing.as_ref().map(|(_, by)| by.clone())),
        node.incarnation.into(),
        note.connection.as_raw().into(),
        note.workspace.as_raw().into(),
        note.generation.into(),
    ];
    connection.run(text, values).await
}

async fn tell_refused(connection: &mut Connection, refused: &GrantRefused) -> Result<u64, Failure> {
    let text = "INSERT INTO oauth_grant (connection_id, workspace_id, state, generation, owner, lease_until, error, \
        failures, retry_at, state_since) SELECT id, workspace_id, $1, 1, 0, 0, $2, 0, 0, $3 FROM connection \
        WHERE id = $4 AND workspace_id = $5 ON CONFLICT (connection_id) DO UPDATE SET \
        error = CASE WHEN oauth_grant.state = excluded.state THEN excluded.error ELSE oauth_grant.error END";
    let values = vec![
        code(GrantState::NeedsReauth),
        refused.error.as_str().into(),
        time(Some(refused.at)),
        refused.connection.as_raw().into(),
        refused.workspace.as_raw().into(),
    ];
    connection.run(text, values).await
}

async fn begin(connection: &mut Connection, attempt: &AuthorizationAttempt) -> Result<u64, Failure> {
    let text = "DELETE FROM oauth_attempt WHERE expires_at < $1";
    connection.run(text, vec![time(Some(attempt.at))]).await?;
    let kept = i64::from(MAX_OPEN_AUTHORIZATIONS) - 1;
    let text = format!(
        "DELETE FROM oauth_attempt WHERE connection_id = $1 AND id NOT IN (SELECT id FROM oauth_attempt \
         WHERE connection_id = $2 ORDER BY id DESC LIMIT {kept})"
    );
    let id = attempt.connection.as_raw();
    connection.run(&text, vec![id.into(), id.into()]).await?;
    let text = "INSERT INTO oauth_attempt (id, workspace_id, connection_id, sealed, expires_at) \
        SELECT $1, workspace_id, id, $2, $3 FROM connection WHERE id = $4 AND workspace_id = $5";
    let values = vec![
        attempt.id.into(),
        attempt.sealed.as_slice().into(),
        time(Some(attempt.expires_at)),
        id.into(),
        attempt.workspace.as_raw().into(),
    ];
    connection.run(text, values).await
}

/// Stores what a person granted. Inside a change of the configuration.
pub(super) fn put(grant: &NewGrant) -> (&'static str, Vec<Value>) {
    let text = "INSERT INTO oauth_grant (connection_id, workspace_id, state, tokens, generation, owner, lease_until, \
        expires_at, account, label, scopes, instance_url, failures, retry_at, state_since, connected_at) \
        SELECT id, workspace_id, $1, $2, 1, 0, 0, $3, $4, $5, $6, $7, 0, 0, $8, $9 FROM connection \
        WHERE id = $10 AND workspace_id = $11 ON CONFLICT (connection_id) DO UPDATE SET state = excluded.state, \
        tokens = excluded.tokens, generation = oauth_grant.generation + 1, owner = 0, lease_until = 0, \
        refreshing_since = NULL, refreshing_by = NULL, expires_at = excluded.expires_at, account = excluded.account, \
        label = excluded.label, scopes = excluded.scopes, instance_url = excluded.instance_url, error = NULL, failures = 0, \
        retry_at = 0, state_since = excluded.state_since, connected_at = excluded.connected_at, refreshed_at = NULL \
        WHERE oauth_grant.workspace_id = excluded.workspace_id";
    let values = vec![
        code(GrantState::Healthy),
        grant.tokens.as_slice().into(),
        time(Some(grant.expires_at)),
        Value::Text(grant.account.clone()),
        Value::Text(grant.label.clone()),
        Value::Text(grant.scopes.clone()),
        Value::Text(grant.instance_url.clone()),
        time(Some(grant.at)),
        time(Some(grant.at)),
        grant.connection.as_raw().into(),
        grant.workspace.as_raw().into(),
    ];
    (text, values)
}

/// Forgets the tokens of a connection; its account stays known. Inside a change of the configuration.
pub(super) fn forget(grant: &DroppedGrant) -> (&'static str, Vec<Value>) {
    let text = "UPDATE oauth_grant SET tokens = NULL, expires_at = NULL, generation = generation + 1, owner = 0, \
        lease_until = 0, refreshing_since = NULL, refreshing_by = NULL, state = $1, error = $2, failures = 0, retry_at = 0, \
        state_since = $3 WHERE connection_id = $4 AND workspace_id = $5";
    let values = vec![
        code(GrantState::NeedsReauth),
        grant.reason.as_str().into(),
        time(Some(grant.at)),
        grant.connection.as_raw().into(),
        grant.workspace.as_raw().into(),
    ];
    (text, values)
}

/// Deletes all that a connection was granted, with the connection.
pub(super) async fn delete(
    connection: &mut Connection,
    workspace: WorkspaceId,
    id: ConnectionId,
) -> Result<(), Failure> {
    for table in ["oauth_grant", "oauth_attempt"] {
        let text = format!("DELETE FROM {table} WHERE workspace_id = $1 AND connection_id = $2");
        let values = vec![workspace.as_raw().into(), id.as_raw().into()];
        connection.run(&text, values).await?;
    }
    Ok(())
}
