//! Refused requests, kept for a day so that a person can see why; bounded, so that nobody can fill the disk with them.
//!
//! What is stored never contains credentials: headers are redacted by name, bodies are cut by storage. A flood of bad
//! requests is counted in full and stored only as far as the budget goes.

use super::Delivery;
use crate::service::Orchestrator;
use crate::snapshot::Endpoint;
use bytes::Bytes;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use weir_connector_sdk::redact;
use weir_storage::{Fact, RefusedRequest};
use weir_workflow_engine::Timestamp;
use weir_workflow_engine::{EndpointId, RefusalId};

/// Most refused requests stored per endpoint and minute; the rest are only counted.
pub(crate) const MAX_REFUSED_PER_MINUTE: u32 = 60;

/// How many refused requests each endpoint may still store in the current minute.
#[derive(Debug, Default)]
pub(crate) struct RefusalBudget {
    spent: Mutex<BTreeMap<EndpointId, (i64, u32)>>,
}

impl RefusalBudget {
    /// Whether one more request of this endpoint may be stored.
    fn take(&self, endpoint: EndpointId, now: Timestamp) -> bool {
        let minute = now.as_unix_ms() / 60_000;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = spent.entry(endpoint).or_insert((minute, 0));
        if entry.0 != minute {
            *entry = (minute, 0);
        }
        entry.1 += 1;
        entry.1 <= MAX_REFUSED_PER_MINUTE
    }
}

impl Orchestrator {
    /// Counts a refusal and, inside the budget, stores it. Never waits: a refusal is not worth a place in a full queue.
    pub(super) fn note_refusal(
        &self,
        endpoint: &Arc<Endpoint>,
        delivery: &Delivery<'_>,
        client: IpAddr,
        reason: &'static str,
        detail: &str,
        body: &[u8],
    ) {
        metrics::counter!("weir_webhooks_refused_total", "reason" => reason).increment(1);
        tracing::debug!(endpoint.name = %endpoint.name(), reason, "webhook refused: {detail}");
        let now = self.clock().now();
        if !self.refusal_budget().take(endpoint.id(), now) {
            return;
        }
        let mut names = endpoint.connector().secret_names().clone();
        let handshakes = endpoint
            .connector()
            .webhook()
            .map(|webhook| webhook.handshake_secret_names());
        let proof = endpoint.verifier().map(|verifier| verifier.secret_names());
        for own in handshakes.into_iter().chain(proof) {
            names.headers.extend(own.headers);
            names.queries.extend(own.queries);
        }
        let mut headers = redact::redact_headers(&delivery.headers, &names);
        let secrets = || endpoint.secrets().iter().map(ExposeSecret::expose_secret);
        for (_, value) in &mut headers {
            if let Some(hidden) = redact::hide(value, secrets()) {
                *value = hidden;
            }
        }
        // Bytes that are no text hold no token that a manifest could have found there.
        let hidden = std::str::from_utf8(body)
            .ok()
            .and_then(|text| redact::hide(text, secrets()));
        let refused = RefusedRequest {
            id: RefusalId::from_raw(self.core.new_id(now)),
            workspace: endpoint.workspace(),
            endpoint: Some(endpoint.id()),
            received_at: now,
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            client_ip: Some(client.to_string()),
            headers: headers_json(headers),
            body: hidden.map_or_else(|| Bytes::copy_from_slice(body), Bytes::from),
        };
        if self.writer().submit(Fact::Refused(refused)).is_err() {
            tracing::debug!(endpoint.name = %endpoint.name(), "refused request counted but not stored: the writer's queue is full");
        }
    }
}

/// Header names to lists of values: a duplicated header is often the reason.
fn headers_json(headers: Vec<(String, String)>) -> String {
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        lists.entry(name).or_default().push(value);
    }
    serde_json::to_string(&lists).unwrap_or_else(|_| "{}".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_per_endpoint_and_minute() {
        let budget = RefusalBudget::default();
        let (a, b) = (EndpointId::from_raw(1), EndpointId::from_raw(2));
        let now = Timestamp::from_unix_ms(1_767_225_600_000);
        let stored = (0..1000).filter(|_| budget.take(a, now)).count();
        assert_eq!(stored, MAX_REFUSED_PER_MINUTE as usize);
        assert!(budget.take(b, now));
        assert!(budget.take(a, now.plus(std::time::Duration::from_secs(60))));
    }
}
