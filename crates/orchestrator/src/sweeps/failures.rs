//! Asks a provider for the deliveries that it says failed.

use super::pass::PAGE_TIMEOUT;
use super::place::earlier;
use crate::budget::Class;
use crate::service::Core;
use crate::snapshot::Endpoint;
use std::sync::Arc;
use std::time::Duration;
use weir_workflow_engine::Timestamp;

/// Whether a delivery failed since the last sweep. Deliveries that are younger than `settle` may still be on their way.
/// One page is enough: one failure is.
///
/// # Errors
/// What the provider answered instead, for people.
pub(super) async fn any(core: &Arc<Core>, endpoint: &Arc<Endpoint>, since: Timestamp) -> Result<bool, String> {
    let recover = endpoint.way_in().and_then(|webhook| webhook.recover());
    let snapshot = core.snapshot.load_full();
    let connection = endpoint
        .connection()
        .and_then(|(_, name)| snapshot.connection(endpoint.workspace(), name));
    let (Some(recover), Some(connection)) = (recover, connection) else {
        return Ok(false);
    };
    let Some(failures) = &recover.failures else {
        return Ok(false);
    };
    let until = earlier(core.clock.now(), Duration::from_secs(recover.settle_s));
    let span = (since.as_unix_ms(), until.as_unix_ms());
    let args = failures.args(span.0);
    let page = core
        .performer
        .list_page(connection, &failures.call, args, None, (Class::Sweep, PAGE_TIMEOUT))
        .await
        .map_err(|failure| format!("{}: {}", failure.code, failure.message))?;
    Ok(page.items.iter().any(|item| failures.tells(item, span)))
}
