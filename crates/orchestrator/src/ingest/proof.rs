//! Proof and handshakes of one request: what the connector says is done here, and only then is it believed.

use super::key_documents;
use super::{Delivery, IngestCode, IngestProblem, Reply};
use crate::service::Orchestrator;
use crate::snapshot::Endpoint;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use weir_connector_sdk::{
    Errand, Handshaken, InboundRequest, KeyDocuments, Refusal, RefusalReason, Standing, Unverified,
};
use weir_workflow_engine::Timestamp;

/// Most documents that one request may make us look at.
const MAX_DOCUMENTS_PER_REQUEST: usize = 4;
/// How long after its last change an endpoint without secrets takes the one that its provider sends.
pub(crate) const SECRET_AWAITED: Duration = Duration::from_secs(60 * 60);
/// Time for the call that confirms a registration; senders wait 15 s.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(8);

impl Endpoint {
    /// Whether it is to take its secret from the provider now.
    pub(crate) fn awaits_secret(&self, now: Timestamp) -> bool {
        let takes = self
            .connector()
            .webhook()
            .is_some_and(|webhook| webhook.stores_secret());
        takes && self.secret_count() == 0 && now < self.updated_at().plus(SECRET_AWAITED)
    }

    /// What handshakes need to know of it.
    pub(super) fn standing(&self, now: Timestamp) -> Standing<'_> {
        Standing {
            secrets: self.secrets(),
            awaits_secret: self.awaits_secret(now),
        }
    }
}

impl Orchestrator {
    /// Verifies a request; documents that the scheme wants are fetched. Fails closed: an endpoint without verification
    /// refuses everything. `waited` is set when something had to be fetched.
    pub(super) async fn verify(
        &self,
        endpoint: &Arc<Endpoint>,
        request: &InboundRequest<'_>,
        now: Timestamp,
        waited: &mut bool,
    ) -> Result<(), Refusal> {
        let refused = |reason: RefusalReason, detail: &str| Refusal {
            reason,
            detail: detail.to_owned(),
        };
        let Some(verifier) = endpoint.verifier() else {
            return Err(refused(
                RefusalReason::NoSchemeApplies,
                "the endpoint has no verification",
            ));
        };
        let mut documents = KeyDocuments::default();
        for _ in 0..=MAX_DOCUMENTS_PER_REQUEST {
            let wanted = match verifier.verify(request, endpoint.secrets(), &documents, now.as_unix_ms()) {
                Ok(()) => return Ok(()),
                Err(Unverified::Refused(refusal)) => return Err(refusal),
                Err(Unverified::Wants(wanted)) => wanted,
            };
            *waited = true;
            let (core, id, wants) = (Arc::clone(&self.core), endpoint.id(), wanted.clone());
            // On the runtime of outgoing calls, and to its end even when this sender goes away: others wait for it too.
            let fetching = self
                .core
                .runtime
                .spawn(async move { core.key_documents.get(&core, id, &wants).await });
            match fetching.await {
                Ok(document) => documents.insert(wanted.url, document),
                Err(_stopped) => break,
            }
        }
        Err(refused(
            RefusalReason::KeysUnavailable,
            "the documents that the scheme wants cannot be had",
        ))
    }

    /// Does what a handshake asks for, and then gives its reply.
    pub(super) async fn finish_handshake(
        &self,
        endpoint: &Arc<Endpoint>,
        delivery: &Delivery<'_>,
        client: IpAddr,
        answer: Handshaken,
    ) -> Result<Reply, IngestProblem> {
        match answer.errand {
            None => {}
            Some(Errand::StoreSecret(secret)) => {
                let (this, endpoint_id) = (self.clone(), endpoint.id());
                let storing = self
                    .core
                    .runtime
                    .spawn(async move { this.endpoint_take_secret(endpoint_id, secret, client).await });
                match storing.await {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => {
                        let refusal = Refusal {
                            reason: RefusalReason::UnexpectedSecret,
                            detail: "a secret was sent, and the endpoint has one by now".to_owned(),
                        };
                        return Err(self.refused(endpoint, delivery, client, &refusal, &bytes::Bytes::new()));
                    }
                    Ok(Err(_)) | Err(_) => return Err(super::accept::not_kept("the secret could not be stored")),
                }
            }
            Some(Errand::ConfirmGet(url)) => {
                let http = self.core.performer.http().clone();
                let calling = self
                    .core
                    .runtime
                    .spawn(async move { key_documents::get(&http, &url, CONFIRM_TIMEOUT).await });
                if let Ok(Err(why)) | Err(why) = calling.await.map_err(|error| error.to_string()) {
                    tracing::warn!(endpoint.name = %endpoint.name(), "a registration could not be confirmed: {why}");
                    let detail = format!("the registration could not be confirmed at the provider: {why}");
                    return Err(IngestProblem::busy(IngestCode::ProviderUnavailable, detail, 30));
                }
            }
        }
        metrics::counter!("weir_webhooks_handshakes_total").increment(1);
        Ok(Reply {
            status: answer.reply.status,
            headers: answer.reply.headers,
            body: answer.reply.body,
        })
    }
}
