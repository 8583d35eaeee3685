//! Key sets, certificates and address lists of providers, fetched for proofs and kept.
//!
//! Whoever sends requests decides when a document is wanted, and a forger sends many. So each document is fetched by one
//! at a time and not again for a while, whatever came of it; each endpoint has an allowance of fetches; sizes, times and
//! the number of kept documents are bounded; and every call passes the egress guard. What cannot be had makes the
//! request fail closed.

use crate::http_client::{HttpClient, Outgoing, Tracking};
use crate::service::Core;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use weir_connector_sdk::{KeyDocument, WantedDocument};
use weir_workflow_engine::EndpointId;

/// Most documents kept.
const MAX_KEY_DOCUMENTS: usize = 256;
/// Largest document; the known ones have some 100 KiB at most.
const MAX_KEY_DOCUMENT_BYTES: usize = 1024 * 1024;
/// Most fetches that the requests to one endpoint cause in a minute.
const MAX_KEY_FETCHES_PER_MINUTE: u32 = 10;
/// Time for one fetch; senders wait no longer than 3 to 10 s for their answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// A document is used this long before it is fetched again.
const FRESH_MS: i64 = 60 * 60 * 1_000;
/// When it cannot be fetched again, the old one is used this long.
const STALE_MS: i64 = 24 * 60 * 60 * 1_000;
/// Time between two fetches of one document, also when it lacks a key or could not be had.
const AGAIN_MS: i64 = 30 * 1_000;

/// The documents by URL.
#[derive(Debug, Default)]
pub(crate) struct KeyDocumentCache {
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    spent: Mutex<BTreeMap<EndpointId, (i64, u32)>>,
}

#[derive(Debug, Default)]
struct Slot {
    held: tokio::sync::Mutex<Held>,
    /// By the clock's `monotonic_ms`.
    used_at_ms: AtomicI64,
    /// By the clock's `monotonic_ms`; 0 while there is no document.
    fetched_at_ms: AtomicI64,
}

#[derive(Debug, Default)]
struct Held {
    body: Option<(Arc<[u8]>, i64)>,
    tried_at_ms: Option<i64>,
    failure: String,
}

impl KeyDocumentCache {
    /// The document that a verification wants: the kept one, or a fetched one.
    pub(crate) async fn get(&self, core: &Core, endpoint: EndpointId, wanted: &WantedDocument) -> KeyDocument {
        let now_ms = core.clock.monotonic_ms();
        let slot = self.slot(&wanted.url, now_ms);
        // Whoever wants the same document waits here for the one who fetches it.
        let mut held = slot.held.lock().await;
        let now_ms = core.clock.monotonic_ms();
        if held.is_due(wanted.newer, now_ms) {
            if self.take_allowance(endpoint, now_ms) {
                let fetched = fetch(core.performer.http(), &wanted.url).await;
                let now_ms = core.clock.monotonic_ms();
                held.tried_at_ms = Some(now_ms);
                match fetched {
                    Ok(body) => {
                        slot.fetched_at_ms.store(now_ms.max(1), Ordering::Relaxed);
                        held.body = Some((body, now_ms));
                    }
                    Err(why) => {
                        tracing::warn!("a document that proofs of webhooks rest on cannot be had: {why}");
                        held.failure = why;
                    }
                }
            } else if held.body.is_none() {
                return KeyDocument::Unavailable {
                    why: "too many were wanted within a minute".to_owned(),
                };
            }
        }
        held.answer(core.clock.monotonic_ms())
    }

    fn slot(&self, url: &str, now_ms: i64) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if !slots.contains_key(url) && slots.len() >= MAX_KEY_DOCUMENTS {
            // What never came goes before what is there: forgers must not push out the keys of others.
            let oldest = slots
                .iter()
                .min_by_key(|(_, slot)| {
                    let is_here = slot.fetched_at_ms.load(Ordering::Relaxed) != 0;
                    (is_here, slot.used_at_ms.load(Ordering::Relaxed))
                })
                .map(|(url, _)| url.clone());
            if let Some(oldest) = oldest {
                slots.remove(&oldest);
            }
        }
        let slot = slots.entry(url.to_owned()).or_default();
        slot.used_at_ms.store(now_ms, Ordering::Relaxed);
        Arc::clone(slot)
    }

    fn take_allowance(&self, endpoint: EndpointId, now_ms: i64) -> bool {
        let minute = now_ms / 60_000;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.retain(|_, (at, _)| *at == minute);
        let (_, count) = spent.entry(endpoint).or_insert((minute, 0));
        *count += 1;
        *count <= MAX_KEY_FETCHES_PER_MINUTE
    }
}

impl Held {
    /// Whether it should be fetched now.
    fn is_due(&self, newer: bool, now_ms: i64) -> bool {
        let fresh = self.body.as_ref().is_some_and(|(_, at_ms)| now_ms - at_ms < FRESH_MS);
        (newer || !fresh) && !self.tried_lately(now_ms)
    }

    fn tried_lately(&self, now_ms: i64) -> bool {
        self.tried_at_ms.is_some_and(|at_ms| now_ms - at_ms < AGAIN_MS)
    }

    fn answer(&self, now_ms: i64) -> KeyDocument {
        match &self.body {
            Some((body, at_ms)) if now_ms - at_ms < STALE_MS => KeyDocument::Here {
                body: Arc::clone(body),
                final_word: self.tried_lately(now_ms),
            },
            Some(_) | None => KeyDocument::Unavailable {
                why: self.failure.clone(),
            },
        }
    }
}

/// Fetches one document: GET, no redirects, no credentials.
async fn fetch(http: &HttpClient, url: &str) -> Result<Arc<[u8]>, String> {
    let received = get(http, url, FETCH_TIMEOUT).await?;
    if received.len() > MAX_KEY_DOCUMENT_BYTES {
        return Err(format!("it is larger than {MAX_KEY_DOCUMENT_BYTES} bytes"));
    }
    Ok(Arc::from(received))
}

/// The body of a 2xx answer to GET, through the egress guard.
pub(super) async fn get(http: &HttpClient, url: &str, timeout: Duration) -> Result<Vec<u8>, String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    let outgoing = Outgoing {
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        body: None,
        tracking: Tracking::Off,
    };
    let received = http
        .send(outgoing, Instant::now() + timeout)
        .await
        .map_err(|error| error.kind.to_string())?;
    match received.status {
        200..=299 => Ok(received.body),
        status => Err(format!("it answers with {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(held: &Held, now_ms: i64) -> Option<bool> {
        match held.answer(now_ms) {
            KeyDocument::Here { final_word, .. } => Some(final_word),
            KeyDocument::Unavailable { .. } => None,
        }
    }

    #[test]
    fn a_document_is_not_fetched_again_for_a_while() {
        let mut held = Held::default();
        assert!(held.is_due(false, 0));
        held.tried_at_ms = Some(0);
        assert!(!held.is_due(false, AGAIN_MS - 1) && held.is_due(false, AGAIN_MS));
        assert_eq!(here(&held, 1), None);
        held.body = Some((Arc::from(&b"{}"[..]), 0));
        // Right after a fetch nothing newer can be had; later a missing key is worth another look.
        assert_eq!((here(&held, 1), here(&held, AGAIN_MS)), (Some(true), Some(false)));
        assert!(!held.is_due(true, AGAIN_MS - 1) && held.is_due(true, AGAIN_MS));
        assert!(!held.is_due(false, FRESH_MS - 1) && held.is_due(false, FRESH_MS));
        assert_eq!((here(&held, STALE_MS - 1), here(&held, STALE_MS)), (Some(false), None));
    }

    #[test]
    fn an_endpoint_has_an_allowance_of_fetches() {
        let documents = KeyDocumentCache::default();
        let (a, b) = (EndpointId::from_raw(1), EndpointId::from_raw(2));
        let taken = (0..100).filter(|_| documents.take_allowance(a, 0)).count();
        assert_eq!(taken, MAX_KEY_FETCHES_PER_MINUTE as usize);
        assert!(documents.take_allowance(b, 0));
        assert!(documents.take_allowance(a, 60_000));
    }

    #[test]
    fn what_never_came_makes_room_for_others() {
        let documents = KeyDocumentCache::default();
        let good = documents.slot("https://good.test/", 0);
        good.fetched_at_ms.store(1, Ordering::Relaxed);
        for number in 0..1_000 {
            documents.slot(&format!("https://sns.test/{number}.pem"), number);
        }
        let slots = documents.slots.lock().unwrap();
        assert_eq!(slots.len(), MAX_KEY_DOCUMENTS);
        assert!(slots.contains_key("https://good.test/"));
    }
}
