//! Somebody asks something of an open run: one piece of mail, in a transaction of its own.

use super::config::audit;
use super::connection::{Connection, Dialect, Value};
use super::control::prove_lease;
use super::failure::Failure;
use crate::codes::mail_kind_code;
use crate::mail::{MailKind, Request, RequestOutcome};
use crate::node::NodeIdentity;
use crate::outcome::FactOutcome;

/// Leaves the request in the inbox, if the run is open and the question, if it answers one, is still asked. Inside a
/// transaction, which must be kept whatever the outcome is: nothing was written when it is not `Delivered`.
pub(crate) async fn request(
    connection: &mut Connection,
    node: &NodeIdentity,
    request: &Request,
) -> Result<FactOutcome, Failure> {
    prove_lease(connection, node).await?;
    // The row stays as it is until our commit: a run cannot end in between, and requests come one after the other.
    let lock = match connection.dialect() {
        Dialect::Sqlite => "",
        Dialect::Postgres => " FOR NO KEY UPDATE",
    };
    let open = connection
        .numbers(
            &format!("SELECT 1 FROM run WHERE id = $1 AND workspace_id = $2 AND status < 2{lock}"),
            vec![request.run.as_raw().into(), request.workspace.as_raw().into()],
            false,
        )
        .await?;
    if open.is_empty() {
        return Ok(FactOutcome::Request(RequestOutcome::NotOpen));
    }
    if let Some(step) = &request.answers {
        let asked = connection
            .run(
                "DELETE FROM wait WHERE run_id = $1 AND step = $2 AND kind = 1",
                vec![request.run.as_raw().into(), step.as_str().into()],
            )
            .await?;
        if asked == 0 {
            return Ok(FactOutcome::Request(RequestOutcome::NotAsked));
        }
    }
    // Mail is heard in the order of its ids. Whoever asks after another one's answer is heard after it, also when the
    // clock of its server is behind.
    connection
        .run(
            "INSERT INTO inbox (run_id, id, kind, body, created_at) \
             SELECT $1, CASE WHEN there.last >= $2 THEN there.last + 1 ELSE $2 END, $3, $4, $5 \
             FROM (SELECT COALESCE(MAX(id), 0) AS last FROM inbox WHERE run_id = $1) AS there",
            vec![
                request.run.as_raw().into(),
                request.id.into(),
                Value::from(i32::from(mail_kind_code(MailKind::Request))),
                request.body.as_str().into(),
                request.at.as_unix_ms().into(),
            ],
        )
        .await?;
    if let Some(entry) = &request.audit {
        audit(connection, entry).await?;
    }
    Ok(FactOutcome::Request(RequestOutcome::Delivered))
}
