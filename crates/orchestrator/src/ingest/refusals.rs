//! Refused requests, kept for a day so that a person can see why; bounded, so that nobody can fill the disk with them.
//!
//! What is stored never contains credentials: headers are redacted by name, secrets of the endpoint wherever they stand,
//! and a body that brings a secret as a whole; bodies are cut by storage. A flood of bad requests is counted in full and
//! stored only as far as the allowance goes: what is beyond it is counted in memory and added to the stored counts once
//! a second, so that it causes no writes of its own.

use super::Delivery;
use crate::service::{Core, Orchestrator};
use crate::snapshot::Endpoint;
use bytes::Bytes;
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use weir_connector_sdk::{RefusalReason, redact};
use weir_storage::{Fact, RefusedFurther, RefusedRequest, Writer};
use weir_workflow_engine::{EndpointId, RefusalId, Timestamp, WorkspaceId};

/// Most refused requests stored per endpoint and minute; the rest are only counted.
///
/// Limit: refused requests of one endpoint and minute that are kept | counted only | `a_flood_of_bad_requests_is_counted_in_full_and_kept_in_part` | `weir_webhooks_refused_total`
pub(crate) const MAX_REFUSED_PER_MINUTE: u32 = 60;

/// Time between two additions to the stored counts.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Refusals beyond the allowance that are not stored yet, by endpoint, hour and reason.
#[derive(Debug, Default)]
pub(crate) struct FurtherRefusals {
    open: Mutex<BTreeMap<(EndpointId, i64, &'static str), RefusedFurther>>,
}

impl FurtherRefusals {
    fn add(&self, workspace: WorkspaceId, endpoint: EndpointId, reason: &'static str, now: Timestamp) {
        let hour = now.as_unix_ms().div_euclid(3_600_000);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = open.entry((endpoint, hour, reason)).or_insert_with(|| RefusedFurther {
            workspace,
            endpoint,
            received_at: now,
            reason: reason.to_owned(),
            count: 0,
        });
        known.count = known.count.saturating_add(1);
    }

    /// Hands all of them to the writer; what it has no room for stays.
    fn tell(&self, writer: &Writer) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, further| writer.submit(Fact::RefusedFurther(further.clone())).is_err());
    }
}

/// Adds to the stored counts, until the process stops.
pub(crate) async fn tell_further_refusals(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => core.refused_further.tell(&core.writer),
            () = core.halted.cancelled() => break,
        }
    }
    core.refused_further.tell(&core.writer);
}

impl Orchestrator {
    /// Counts a refusal and, inside the allowance, stores it. Never waits: a refusal is not worth a place in a full queue.
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
        if !self.core.refusals.take(endpoint.id(), now.as_unix_ms()) {
            self.core
                .refused_further
                .add(endpoint.workspace(), endpoint.id(), reason, now);
            return;
        }
        let mut names = endpoint.connector().secret_names().clone();
        let webhook = endpoint.connector().webhook();
        let handshakes = webhook.map(|webhook| webhook.handshake_secret_names());
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
        // A secret that was refused is in force nowhere, so it cannot be looked for; but it may be in force elsewhere.
        let brings_secret = reason == RefusalReason::UnexpectedSecret.as_str()
            || webhook.is_some_and(|webhook| webhook.brings_secret(body));
        // Bytes that are no text hold no token that a manifest could have found there.
        let hidden = match std::str::from_utf8(body) {
            _ if brings_secret && !body.is_empty() => Some(redact::REDACTED.to_owned()),
            Ok(text) => redact::hide(text, secrets()),
            Err(_no_text) => None,
        };
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
