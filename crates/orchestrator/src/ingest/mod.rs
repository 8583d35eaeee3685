//! The way in for webhooks: admit, verify, identify, route, persist; only then the provider hears 2xx.
//!
//! Nothing here waits for a workflow. A request that is not exactly right is refused with a reason that a person can
//! find later; a request that is right but cannot be kept now gets 503, so that the provider sends it again.

pub(crate) mod accept;
mod allowance;
mod client_address;
mod key_documents;
mod load;
mod proof;
mod refusals;

pub(crate) use allowance::Allowance;
pub use client_address::client_address;
pub(crate) use key_documents::KeyDocumentCache;
pub(crate) use load::IntakeLoad;
pub(crate) use refusals::{FurtherRefusals, MAX_REFUSED_PER_MINUTE, tell_further_refusals};

use crate::clock::Stopwatch;
use crate::configure::ROUTING_TRIES;
use crate::service::Orchestrator;
use crate::snapshot::{Endpoint, Snapshot};
use accept::{Progress, Taken, not_kept};
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument as _;
use weir_connector_sdk::{InboundRequest, Refusal, RefusalReason};
use weir_workflow_engine::{EndpointId, Timestamp};

/// How far the time in the id of an unknown endpoint may be from now for it to be taken for a new one: many heartbeats,
/// and clocks that differ.
const NEW_ENDPOINT: Duration = Duration::from_secs(60);

/// Which endpoint a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointRef<'a> {
    /// `/hooks/{endpoint id}`.
    Id(EndpointId),
    /// `/hooks/{workspace}/{endpoint name}`.
    Name {
        /// Name of the workspace.
        workspace: &'a str,
        /// Name of the endpoint in it.
        name: &'a str,
    },
}

/// One webhook request without its body.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// Where it was sent.
    pub endpoint: EndpointRef<'a>,
    /// The HTTP method, upper case.
    pub method: &'a str,
    /// Path and query as received.
    pub path_and_query: &'a str,
    /// Header names in lower case with their values; order and duplicates kept.
    pub headers: Vec<(String, String)>,
    /// The address of the socket's other end.
    pub peer: IpAddr,
}

/// What the provider gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header names and values.
    pub headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Vec<u8>,
}

/// Why a request was not taken. The words for people stand in the error catalogue of the HTTP layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestProblem {
    /// What kind of problem.
    pub code: IngestCode,
    /// What exactly, without secrets and without the expected signature.
    pub detail: String,
    /// Seconds after which another try makes sense.
    pub retry_after_s: Option<u32>,
    /// The sender wants the status alone, without a body.
    pub bare: bool,
}

/// The kinds of [`IngestProblem`], one per answer that a sender can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestCode {
    /// No such endpoint (404).
    EndpointUnknown,
    /// Not a POST, and no handshake of the connector either (405).
    MethodNotAllowed,
    /// The body is larger than the limit (413).
    BodyTooLarge,
    /// The client's address is not on the endpoint's list (403).
    AddressNotAllowed,
    /// The signature is missing, wrong, stale or ambiguous (401).
    SignatureRefused,
    /// The sender's keys, or the confirmation of its registration, cannot be had from the provider now (503).
    ProviderUnavailable,
    /// Signed, but not what the connector describes (400).
    BodyInvalid,
    /// Too many accepted runs wait for their turn (503).
    BacklogFull,
    /// The writer's queue is full in rows or bytes (503).
    QueueFull,
    /// The database does not answer (503).
    DatabaseUnavailable,
    /// The process is stopping (503).
    ShuttingDown,
}

impl IngestProblem {
    fn new(code: IngestCode, detail: impl Into<String>) -> Self {
        IngestProblem {
            code,
            detail: detail.into(),
            retry_after_s: None,
            bare: false,
        }
    }

    /// Nothing was kept; the sender should try again after `seconds`.
    fn busy(code: IngestCode, detail: impl Into<String>, seconds: u32) -> Self {
        IngestProblem {
            code,
            detail: detail.into(),
            retry_after_s: Some(seconds),
            bare: false,
        }
    }
}

/// Proof that [`Orchestrator::admit`] let a request's body be read.
#[derive(Debug, Clone)]
pub struct Admission {
    endpoint: Arc<Endpoint>,
    client: IpAddr,
    max_body_bytes: usize,
}

impl Admission {
    /// Most bytes of body to read; a body that turns out longer is refused with [`IngestCode::BodyTooLarge`].
    #[must_use]
    pub fn max_body_bytes(&self) -> usize {
        self.max_body_bytes
    }
}

impl Orchestrator {
    /// Decides from the request's head alone whether its body is worth reading. An endpoint that is not known and may
    /// have been made on another node a moment ago is looked for once more, at most once per heartbeat.
    ///
    /// # Errors
    /// Unknown endpoint, address not allowed, declared body too large, backlog full, shutting down.
    pub async fn admit(
        &self,
        delivery: &Delivery<'_>,
        content_length: Option<u64>,
    ) -> Result<Admission, IngestProblem> {
        let snapshot = self.snapshot();
        if self.is_stopping() || snapshot.endpoint(&delivery.endpoint).is_some() {
            return self.admit_by(&snapshot, delivery, content_length);
        }
        let fresh = match may_be_new(&snapshot, &delivery.endpoint, self.clock().now()) {
            true => self.latest_for_strangers().await,
            false => None,
        };
        self.admit_by(&fresh.unwrap_or(snapshot), delivery, content_length)
    }

    fn admit_by(
        &self,
        snapshot: &Snapshot,
        delivery: &Delivery<'_>,
        content_length: Option<u64>,
    ) -> Result<Admission, IngestProblem> {
        if self.is_stopping() {
            return Err(IngestProblem::busy(
                IngestCode::ShuttingDown,
                "the server is stopping",
                2,
            ));
        }
        let found = snapshot.endpoint(&delivery.endpoint);
        let Some(endpoint) = found.filter(|endpoint| endpoint.receives()) else {
            return Err(unknown_endpoint());
        };
        let forwarded = delivery
            .headers
            .iter()
            .filter(|(name, _)| name == "x-forwarded-for")
            .map(|(_, value)| value.as_str());
        let client = client_address(delivery.peer, forwarded, &self.settings().trusted_proxies);
        if !endpoint.allows(client) {
            return Err(self.not_allowed(endpoint, delivery, client));
        }
        let max_body_bytes = self.settings().max_body_bytes;
        if content_length.is_some_and(|length| length > max_body_bytes as u64) {
            return Err(self.body_too_large(endpoint, delivery, client));
        }
        if self.runs().backlog_is_full() {
            metrics::counter!("weir_webhooks_refused_total", "reason" => "backlog_full").increment(1);
            let detail = format!("{} accepted runs wait for their turn", self.settings().max_backlog_runs);
            return Err(IngestProblem::busy(IngestCode::BacklogFull, detail, 5));
        }
        if self.core.queued.is_full() {
            metrics::counter!("weir_webhooks_refused_total", "reason" => "backlog_full").increment(1);
            let detail = format!("{} accepted runs are queued at gates", self.core.queued.seen());
            return Err(IngestProblem::busy(IngestCode::BacklogFull, detail, 5));
        }
        Ok(Admission {
            endpoint: Arc::clone(endpoint),
            client,
            max_body_bytes,
        })
    }

    /// The answer to a body that grew past [`Admission::max_body_bytes`] while it was read.
    #[must_use]
    pub fn too_large(&self, admission: &Admission, delivery: &Delivery<'_>) -> IngestProblem {
        self.body_too_large(&admission.endpoint, delivery, admission.client)
    }

    fn body_too_large(&self, endpoint: &Arc<Endpoint>, delivery: &Delivery<'_>, client: IpAddr) -> IngestProblem {
        let detail = format!("the body is larger than {} bytes", self.settings().max_body_bytes);
        self.note_refusal(endpoint, delivery, client, "body_too_large", &detail, &[]);
        IngestProblem::new(IngestCode::BodyTooLarge, detail)
    }

    /// Verifies, identifies, routes and persists one webhook. When this returns a 2xx reply, the events and their runs
    /// are on disk; dropping the future after the facts were handed over does not take them back.
    ///
    /// # Errors
    /// See [`IngestCode`]. After any error the sender may send the same request again without harm.
    pub async fn ingest(
        &self,
        admission: Admission,
        delivery: Delivery<'_>,
        body: Bytes,
    ) -> Result<Reply, IngestProblem> {
        let sent = delivery
            .headers
            .iter()
            .find(|(name, _)| name == "traceparent")
            .map(|(_, value)| value.as_str());
        let span = crate::trace::webhook(admission.endpoint.name(), sent);
        let Some(_place) = self.core.intake.enter() else {
            metrics::counter!("weir_webhooks_refused_total", "reason" => "overloaded").increment(1);
            return Err(IngestProblem::busy(
                IngestCode::QueueFull,
                "more webhooks arrive than can be stored in time",
                1,
            ));
        };
        let watch = Stopwatch::start();
        let mut progress = Progress::default();
        let taking = self.verify_and_take(admission, delivery, body, &mut progress);
        let answer = taking.instrument(span).await;
        if !progress.waited && tells_load(&answer) {
            self.core.intake.answered(watch.elapsed());
        }
        answer
    }

    async fn verify_and_take(
        &self,
        admission: Admission,
        delivery: Delivery<'_>,
        body: Bytes,
        progress: &mut Progress,
    ) -> Result<Reply, IngestProblem> {
        let Admission {
            mut endpoint, client, ..
        } = admission;
        let url = format!("{}{}", self.settings().public_url, delivery.path_and_query);
        let now = self.clock().now();
        for _ in 0..ROUTING_TRIES {
            let request = InboundRequest {
                method: delivery.method,
                url: &url,
                headers: &delivery.headers,
                body: &body,
                registration: endpoint.context(),
                client_ip: Some(client),
            };
            if let Some(webhook) = endpoint.connector().webhook() {
                match webhook.unsigned_handshake(&request, &endpoint.standing(now)) {
                    Err(refusal) => return Err(self.refused(&endpoint, &delivery, client, &refusal, &body)),
                    Ok(Some(answer)) => {
                        return self
                            .finish_handshake(&endpoint, &delivery, client, answer, progress)
                            .await;
                    }
                    Ok(None) => {}
                }
            }
            if delivery.method != "POST" {
                return Err(IngestProblem::new(
                    IngestCode::MethodNotAllowed,
                    "webhooks are sent with POST",
                ));
            }
            let taken = match self.verify(&endpoint, &request, now, progress).await {
                Ok(()) => self.take(&endpoint, &delivery, &request, &body, now, progress).await?,
                Err(refusal) if refusal.reason == RefusalReason::KeysUnavailable => {
                    return Err(self.refused(&endpoint, &delivery, client, &refusal, &body));
                }
                Err(refusal) => {
                    // A secret that was rotated a moment ago by another process may not have reached this memory yet.
                    let fresh = self
                        .latest()
                        .await
                        .and_then(|snapshot| snapshot.endpoint(&delivery.endpoint).cloned());
                    let Some(fresh) = fresh else {
                        return Err(self.refused(&endpoint, &delivery, client, &refusal, &body));
                    };
                    let request = InboundRequest {
                        registration: fresh.context(),
                        ..request
                    };
                    if self.verify(&fresh, &request, now, progress).await.is_err() {
                        return Err(self.refused(&endpoint, &delivery, client, &refusal, &body));
                    }
                    self.take(&fresh, &delivery, &request, &body, now, progress).await?
                }
            };
            match taken {
                Taken::Done(reply) => return Ok(reply),
                Taken::Outdated { revision } => {
                    endpoint = self.endpoint_at(revision, &endpoint, &delivery, client).await?;
                }
            }
        }
        Err(not_kept("the configuration keeps changing"))
    }

    /// The endpoint as it stands in the configuration at this revision or a later one, if it still takes the request.
    async fn endpoint_at(
        &self,
        revision: i64,
        before: &Arc<Endpoint>,
        delivery: &Delivery<'_>,
        client: IpAddr,
    ) -> Result<Arc<Endpoint>, IngestProblem> {
        let Some(snapshot) = self.at_least(revision).await else {
            return Err(not_kept("the changed configuration cannot be read"));
        };
        match snapshot.endpoint(&delivery.endpoint) {
            None => Err(unknown_endpoint()),
            Some(endpoint) if !endpoint.receives() => Err(unknown_endpoint()),
            Some(endpoint) if !endpoint.allows(client) => Err(self.not_allowed(before, delivery, client)),
            Some(endpoint) => Ok(Arc::clone(endpoint)),
        }
    }

    fn not_allowed(&self, endpoint: &Arc<Endpoint>, delivery: &Delivery<'_>, client: IpAddr) -> IngestProblem {
        let detail = format!("the client address {client} is not in the endpoint's allow list");
        self.note_refusal(endpoint, delivery, client, "address_not_allowed", &detail, &[]);
        IngestProblem::new(IngestCode::AddressNotAllowed, detail)
    }

    fn refused(
        &self,
        endpoint: &Arc<Endpoint>,
        delivery: &Delivery<'_>,
        client: IpAddr,
        refusal: &Refusal,
        body: &Bytes,
    ) -> IngestProblem {
        let detail = refusal.to_string();
        self.note_refusal(endpoint, delivery, client, refusal.reason.as_str(), &detail, body);
        let webhook = endpoint.connector().webhook();
        let problem = match refusal.reason.status() {
            403 => IngestProblem::new(IngestCode::AddressNotAllowed, detail),
            503 => IngestProblem::busy(IngestCode::ProviderUnavailable, detail, 30),
            _ => {
                // Several of these tell of a secret that is not known here: what is refused now is in the provider's list.
                self.core.sweeps.refused(endpoint.id(), self.clock().now());
                IngestProblem::new(IngestCode::SignatureRefused, detail)
            }
        };
        IngestProblem {
            bare: webhook.is_some_and(|webhook| webhook.refuses_barely()),
            ..problem
        }
    }
}

/// Whether the time to this answer tells how busy intake is. What is refused may be answered at once, or after a look at
/// the configuration; neither says anything about the load.
fn tells_load(answer: &Result<Reply, IngestProblem>) -> bool {
    let Err(problem) = answer else {
        return true;
    };
    match problem.code {
        IngestCode::EndpointUnknown
        | IngestCode::MethodNotAllowed
        | IngestCode::BodyTooLarge
        | IngestCode::AddressNotAllowed
        | IngestCode::SignatureRefused
        | IngestCode::ProviderUnavailable => false,
        IngestCode::BodyInvalid
        | IngestCode::BacklogFull
        | IngestCode::QueueFull
        | IngestCode::DatabaseUnavailable
        | IngestCode::ShuttingDown => true,
    }
}

/// Whether an endpoint that this node does not know could have been made since it read the configuration. An id says when
/// it was made; a name says nothing, but its workspace must be there.
fn may_be_new(snapshot: &Snapshot, endpoint: &EndpointRef<'_>, now: Timestamp) -> bool {
    match endpoint {
        EndpointRef::Id(id) => {
            let age_ms = now.as_unix_ms().saturating_sub(id.made_at().as_unix_ms());
            u128::from(age_ms.unsigned_abs()) <= NEW_ENDPOINT.as_millis()
        }
        EndpointRef::Name { workspace, .. } => snapshot.workspace(workspace).is_some(),
    }
}

fn unknown_endpoint() -> IngestProblem {
    metrics::counter!("weir_webhooks_refused_total", "reason" => "endpoint_unknown").increment(1);
    IngestProblem::new(IngestCode::EndpointUnknown, "no endpoint has this address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_tell_nothing_about_the_load() {
        let problem = |code| Err(IngestProblem::new(code, ""));
        assert!(!tells_load(&problem(IngestCode::SignatureRefused)));
        assert!(!tells_load(&problem(IngestCode::AddressNotAllowed)));
        assert!(!tells_load(&problem(IngestCode::ProviderUnavailable)));
        assert!(tells_load(&problem(IngestCode::DatabaseUnavailable)));
        let reply = Reply {
            status: 200,
            headers: Vec::new(),
            body: Vec::new(),
        };
        assert!(tells_load(&Ok(reply)));
    }
}
