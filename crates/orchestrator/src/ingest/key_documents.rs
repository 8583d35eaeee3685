//! Key sets, certificates and address lists of providers, fetched for proofs and kept.
//!
//! Whoever sends requests decides when a document is wanted, and a forger sends many. So each document is fetched by one
//! at a time and not again for a while, whatever came of it; each endpoint has an allowance of fetches; sizes, times and
//! the number of kept documents are bounded; and every call passes the egress guard. What cannot be had makes the
//! request fail closed.

use super::Allowance;
use crate::clock::Clock;
use crate::http_client::{HttpClient, Outgoing, Tracking};
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use weir_connector_sdk::redact::{SecretNames, redact_url};
use weir_connector_sdk::{KeyDocument, WantedDocument};
use weir_workflow_engine::EndpointId;

/// Most documents kept.
const MAX_KEY_DOCUMENTS: usize = 256;
/// Largest document; the known ones have some 100 KiB at most.
///
/// Limit: document with the keys of a sender | 503, `PROVIDER_UNAVAILABLE` | `keys_are_fetched_within_bounds` | `weir_webhooks_refused_total`
const MAX_KEY_DOCUMENT_BYTES: usize = 1024 * 1024;
/// Most fetches that the requests to one endpoint cause in a minute.
///
/// Limit: fetches of keys for one endpoint and minute | 503, `PROVIDER_UNAVAILABLE` | `an_endpoint_has_an_allowance_of_fetches` | `weir_webhooks_refused_total`
const MAX_KEY_FETCHES_PER_MINUTE: u32 = 10;
/// Time for one fetch; senders wait no longer than 3 to 10 s for their answer.
///
/// Limit: time of one fetch of keys | 503, `PROVIDER_UNAVAILABLE` | `keys_are_fetched_within_bounds` | `weir_webhooks_refused_total`
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// A document is used this long before it is fetched again.
const FRESH_MS: i64 = 60 * 60 * 1_000;
/// When it cannot be fetched again, the old one is used this long.
const STALE_MS: i64 = 24 * 60 * 60 * 1_000;
/// Time between two fetches of one document, also when it lacks a key or could not be had.
const AGAIN_MS: i64 = 30 * 1_000;

/// The documents by URL.
#[derive(Debug)]
pub(crate) struct KeyDocumentCache {
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    fetches: Allowance,
}

#[derive(Debug, Default)]
struct Slot {
    held: Mutex<Held>,
    /// Held by whoever fetches the document. Looks at what is here do without it.
    fetching: tokio::sync::Mutex<()>,
    /// By the clock's `monotonic_ms`.
    used_at_ms: AtomicI64,
}

#[derive(Debug, Default)]
struct Held {
    body: Option<(Arc<[u8]>, i64)>,
    tried_at_ms: Option<i64>,
    /// Why the last try failed.
    failure: Option<String>,
}

impl Default for KeyDocumentCache {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
            fetches: Allowance::per_minute(MAX_KEY_FETCHES_PER_MINUTE),
        }
    }
}

impl KeyDocumentCache {
    /// The document that a verification wants, as far as it can be told at once. `None`: see [`Self::fetched`].
    pub(super) fn known(&self, wanted: &WantedDocument, now_ms: i64) -> Option<KeyDocument> {
        let slot = self.slot(&wanted.url, now_ms);
        let held = slot.held();
        let is_fetched_by_another = || slot.fetching.try_lock().is_err();
        match held.is_due(wanted.newer, now_ms) {
            false => Some(held.answer(wanted.newer, now_ms)),
            true => held.instead(wanted.newer, now_ms).filter(|_| is_fetched_by_another()),
        }
    }

    /// The document after a fetch, by this request or by another one at the same time.
    ///
    /// Not cancel-safe: those who wait for the same document would fetch it again.
    pub(super) async fn fetched(
        &self,
        clock: &dyn Clock,
        endpoint: EndpointId,
        wanted: &WantedDocument,
        fetch: impl Future<Output = Result<Arc<[u8]>, String>>,
    ) -> KeyDocument {
        let slot = self.slot(&wanted.url, clock.monotonic_ms());
        let _alone = slot.fetching.lock().await;
        let now_ms = clock.monotonic_ms();
        if !slot.held().is_due(wanted.newer, now_ms) {
            return slot.held().answer(wanted.newer, now_ms);
        }
        if !self.fetches.take(endpoint, now_ms) {
            let instead = slot.held().instead(wanted.newer, now_ms);
            return instead.unwrap_or_else(|| KeyDocument::Unavailable {
                why: "too many were wanted within a minute".to_owned(),
            });
        }
        let fetched = fetch.await;
        if let Err(why) = &fetched {
            let url = redact_url(&wanted.url, &SecretNames::default());
            tracing::warn!(%url, "{url}, on which proofs of webhooks rest, cannot be had: {why}");
        }
        let now_ms = clock.monotonic_ms();
        let mut held = slot.held();
        held.learn(fetched, now_ms);
        held.answer(wanted.newer, now_ms)
    }

    fn slot(&self, url: &str, now_ms: i64) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if !slots.contains_key(url) && slots.len() >= MAX_KEY_DOCUMENTS {
            // What never came goes before what is there: forgers must not push out the keys of others.
            let oldest = slots
                .iter()
                .min_by_key(|(_, slot)| {
                    let is_here = slot.held().body.is_some();
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
}

impl Slot {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn learn(&mut self, fetched: Result<Arc<[u8]>, String>, now_ms: i64) {
        self.tried_at_ms = Some(now_ms);
        match fetched {
            Ok(body) => {
                self.body = Some((body, now_ms));
                self.failure = None;
            }
            Err(why) => self.failure = Some(why),
        }
    }

    /// What came of the last try. Where a newer document was wanted and could not be had, the old one is no answer: what
    /// it lacks may be in the newer one.
    fn answer(&self, newer: bool, now_ms: i64) -> KeyDocument {
        let why = self.failure.as_deref();
        match self.usable(now_ms) {
            Some(body) if !newer || why.is_none() => KeyDocument::Here {
                body,
                final_word: why.is_none() && self.tried_lately(now_ms),
            },
            Some(_) | None => KeyDocument::Unavailable {
                why: why.unwrap_or("it has become too old").to_owned(),
            },
        }
    }

    /// What does for a while in place of a fetch.
    fn instead(&self, newer: bool, now_ms: i64) -> Option<KeyDocument> {
        let body = self.usable(now_ms).filter(|_| !newer)?;
        Some(KeyDocument::Here {
            body,
            final_word: false,
        })
    }

    fn usable(&self, now_ms: i64) -> Option<Arc<[u8]>> {
        let (body, at_ms) = self.body.as_ref()?;
        (now_ms - at_ms < STALE_MS).then(|| Arc::clone(body))
    }
}

/// Fetches one document: GET, no redirects, no credentials.
pub(super) async fn fetch(http: &HttpClient, url: &str) -> Result<Arc<[u8]>, String> {
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
    use crate::clock::ManualClock;
    use weir_workflow_engine::Timestamp;

    const URL: &str = "https://keys.test/";

    fn body(text: &str) -> Arc<[u8]> {
        Arc::from(text.as_bytes())
    }

    fn clock() -> ManualClock {
        ManualClock::new(Timestamp::from_unix_ms(1_767_225_600_000))
    }

    fn wanted(newer: bool) -> WantedDocument {
        WantedDocument {
            url: URL.to_owned(),
            newer,
        }
    }

    fn here(document: &KeyDocument) -> Option<bool> {
        match document {
            KeyDocument::Here { final_word, .. } => Some(*final_word),
            KeyDocument::Unavailable { .. } => None,
        }
    }

    #[test]
    fn a_document_is_not_fetched_again_for_a_while() {
        let mut held = Held::default();
        let answer = |held: &Held, newer, now_ms| here(&held.answer(newer, now_ms));
        assert!(held.is_due(false, 0));
        held.learn(Err("down".to_owned()), 0);
        assert!(!held.is_due(false, AGAIN_MS - 1) && held.is_due(false, AGAIN_MS));
        assert_eq!(answer(&held, false, 1), None);
        held.learn(Ok(body("{}")), 0);
        // Right after a fetch nothing newer can be had; later a missing key is worth another look.
        assert_eq!(
            (answer(&held, false, 1), answer(&held, false, AGAIN_MS)),
            (Some(true), Some(false))
        );
        assert!(!held.is_due(true, AGAIN_MS - 1) && held.is_due(true, AGAIN_MS));
        assert!(!held.is_due(false, FRESH_MS - 1) && held.is_due(false, FRESH_MS));
        assert_eq!(
            (answer(&held, false, STALE_MS - 1), answer(&held, false, STALE_MS)),
            (Some(false), None)
        );
    }

    #[test]
    fn a_newer_document_that_cannot_be_had_is_not_the_old_one() {
        let mut held = Held::default();
        held.learn(Ok(body("old")), 0);
        held.learn(Err("it answers with 500".to_owned()), AGAIN_MS);
        // What the old one holds still counts, and what it lacks is no last word.
        assert_eq!(here(&held.answer(false, AGAIN_MS)), Some(false));
        let unavailable = KeyDocument::Unavailable {
            why: "it answers with 500".to_owned(),
        };
        assert_eq!(held.answer(true, AGAIN_MS), unavailable);
        held.learn(Ok(body("new")), 2 * AGAIN_MS);
        assert_eq!(here(&held.answer(true, 2 * AGAIN_MS)), Some(true));
        assert_eq!(
            held.answer(false, 2 * AGAIN_MS + STALE_MS),
            KeyDocument::Unavailable {
                why: "it has become too old".to_owned()
            },
            "an old failure is over"
        );
    }

    #[tokio::test]
    async fn what_is_here_waits_for_no_fetch() {
        let (documents, clock) = (KeyDocumentCache::default(), clock());
        let endpoint = EndpointId::from_raw(1);
        assert_eq!(documents.known(&wanted(false), clock.monotonic_ms()), None);
        let first = documents
            .fetched(&clock, endpoint, &wanted(false), async { Ok(body("1")) })
            .await;
        assert_eq!(here(&first), Some(true));
        clock.advance(Duration::from_millis(AGAIN_MS.unsigned_abs()));
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let newer = wanted(true);
        let fetching = documents.fetched(&clock, endpoint, &newer, async {
            released.await.unwrap();
            Ok(body("2"))
        });
        tokio::pin!(fetching);
        assert!(futures::poll!(&mut fetching).is_pending());
        let known = |newer| documents.known(&wanted(newer), clock.monotonic_ms());
        assert_eq!(known(false).as_ref().map(here), Some(Some(false)));
        assert_eq!(known(true), None);
        // Also an old one does while somebody fetches the new one.
        clock.advance(Duration::from_millis(FRESH_MS.unsigned_abs()));
        assert_eq!(known(false).as_ref().map(here), Some(Some(false)));
        release.send(()).unwrap();
        assert_eq!(here(&fetching.await), Some(true));
        assert_eq!(known(true).as_ref().map(here), Some(Some(true)));
    }

    #[tokio::test]
    async fn an_endpoint_has_an_allowance_of_fetches() {
        let (documents, clock) = (KeyDocumentCache::default(), clock());
        let (a, b) = (EndpointId::from_raw(1), EndpointId::from_raw(2));
        let fetch = async |endpoint, number: u32| {
            let wanted = WantedDocument {
                url: format!("https://sns.test/{number}.pem"),
                newer: false,
            };
            here(
                &documents
                    .fetched(&clock, endpoint, &wanted, async { Ok(body("k")) })
                    .await,
            )
        };
        for number in 0..MAX_KEY_FETCHES_PER_MINUTE {
            assert_eq!(fetch(a, number).await, Some(true));
        }
        assert_eq!(fetch(a, MAX_KEY_FETCHES_PER_MINUTE).await, None);
        assert_eq!(fetch(b, MAX_KEY_FETCHES_PER_MINUTE).await, Some(true));
    }

    #[test]
    fn what_never_came_makes_room_for_others() {
        let documents = KeyDocumentCache::default();
        documents.slot(URL, 0).held().learn(Ok(body("k")), 0);
        for number in 0..1_000 {
            documents.slot(&format!("https://sns.test/{number}.pem"), number);
        }
        let slots = documents.slots.lock().unwrap();
        assert_eq!(slots.len(), MAX_KEY_DOCUMENTS);
        assert!(slots.contains_key(URL));
    }
}
