//! Proof and handshakes of one request: what the connector says is done here, and only then is it believed.

use super::accept::{Progress, not_kept};
use super::key_documents;
use super::{Delivery, IngestCode, IngestProblem, Reply};
use crate::service::Orchestrator;
use crate::snapshot::Endpoint;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use weir_connector_sdk::{
    Errand, Handshaken, InboundRequest, KeyDocument, KeyDocuments, Refusal, RefusalReason, Standing, Unverified,
    WantedDocument,
};
use weir_workflow_engine::Timestamp;

/// Most documents that one request may make us look at.
const MAX_DOCUMENTS_PER_REQUEST: usize = 4;
/// How long after its last change an endpoint without secrets takes the one that its provider sends.
pub(crate) const SECRET_AWAITED: Duration = Duration::from_secs(60 * 60);
/// Time for the call that confirms a registration; senders wait 15 s.
///
/// Limit: time of a call that confirms a registration | 503, `PROVIDER_UNAVAILABLE` | `a_confirmation_that_takes_too_long_is_asked_for_again`
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(8);

impl Endpoint {
    /// Whether it is to take its secret from the provider now.
    pub(crate) fn awaits_secret(&self, now: Timestamp) -> bool {
        let webhook = self.connector().webhook();
        let takes = webhook.is_some_and(|webhook| webhook.sends_secret_for(self.own_verifier()));
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
    /// refuses everything.
    pub(super) async fn verify(
        &self,
        endpoint: &Arc<Endpoint>,
        request: &InboundRequest<'_>,
        now: Timestamp,
        progress: &mut Progress,
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
        let mut asked = 0;
        loop {
            let wanted = match verifier.verify(request, endpoint.secrets(), &documents, now.as_unix_ms()) {
                Ok(()) => return Ok(()),
                Err(Unverified::Refused(refusal)) => return Err(refusal),
                Err(Unverified::Wants(wanted)) => wanted,
            };
            if asked == MAX_DOCUMENTS_PER_REQUEST {
                return Err(refused(
                    RefusalReason::KeysUnavailable,
                    "the scheme wants more documents than are fetched for one request",
                ));
            }
            asked += 1;
            let document = match self.core.key_documents.known(&wanted, self.clock().monotonic_ms()) {
                Some(known) => known,
                None => {
                    progress.waited = true;
                    self.fetch_key_document(endpoint, wanted.clone()).await?
                }
            };
            documents.insert(wanted.url, document);
        }
    }

    /// On the runtime of outgoing calls, and to its end even when this sender goes away: others wait for it too.
    async fn fetch_key_document(
        &self,
        endpoint: &Arc<Endpoint>,
        wanted: WantedDocument,
    ) -> Result<KeyDocument, Refusal> {
        let (core, id) = (Arc::clone(&self.core), endpoint.id());
        let fetching = self.core.runtime.spawn(async move {
            let fetch = key_documents::fetch(core.performer.http(), &wanted.url);
            core.key_documents
                .fetched(core.clock.as_ref(), id, &wanted, fetch)
                .await
        });
        fetching.await.map_err(|stopped| {
            tracing::error!("the fetch of a key document ended early: {stopped}");
            Refusal {
                reason: RefusalReason::KeysUnavailable,
                detail: "a document that the scheme wants cannot be had".to_owned(),
            }
        })
    }

    /// Does what a handshake asks for, and then gives its reply.
    pub(super) async fn finish_handshake(
        &self,
        endpoint: &Arc<Endpoint>,
        delivery: &Delivery<'_>,
        client: IpAddr,
        answer: Handshaken,
        progress: &mut Progress,
    ) -> Result<Reply, IngestProblem> {
        // Nothing is acknowledged, or the provider is waited for.
        progress.waited = true;
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
                    Ok(Err(error)) => {
                        tracing::warn!(endpoint.name = %endpoint.name(), "the secret that a provider sent could not be stored: {error}");
                        return Err(not_kept("the secret could not be stored"));
                    }
                    Err(stopped) => {
                        tracing::error!(endpoint.name = %endpoint.name(), "storing the secret that a provider sent ended early: {stopped}");
                        return Err(not_kept("it is not known whether the secret was stored"));
                    }
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
