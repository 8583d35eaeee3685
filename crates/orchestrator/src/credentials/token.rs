//! One access token per connection, fetched by one caller at a time.
//!
//! However many calls find the token missing or stale, exactly one of them asks the provider; the others wait for its
//! answer, a failure included. Tokens live in memory only and are never printed.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use secrecy::SecretString;
use tokio::sync::Mutex;
use weir_workflow_engine::Timestamp;

use super::CredentialError;
use crate::grants::Granted;

/// A token is replaced this long before it expires, so that it does not run out under way.
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// Share of a short lifetime that is kept as margin instead of [`EXPIRY_MARGIN`]: a quarter.
const SHORT_LIFETIME_SHARE: u32 = 4;

/// A token and how long it is good for.
pub(crate) struct AccessToken {
    secret: SecretString,
    stale_at: Timestamp,
    granted: Option<Granted>,
}

impl AccessToken {
    /// A token received at `now` that lives for `lifetime`.
    pub(crate) fn new(secret: SecretString, now: Timestamp, lifetime: Duration) -> Self {
        let margin = EXPIRY_MARGIN.min(lifetime / SHORT_LIFETIME_SHARE);
        AccessToken {
            secret,
            stale_at: now.plus(lifetime.saturating_sub(margin)),
            granted: None,
        }
    }

    /// The same, as part of a grant.
    pub(crate) fn of_grant(self, granted: Granted) -> Self {
        AccessToken {
            granted: Some(granted),
            ..self
        }
    }

    /// The same, used until this time although it should have been replaced.
    pub(crate) fn kept_until(self, stale_at: Timestamp) -> Self {
        AccessToken { stale_at, ..self }
    }

    /// Its place in a grant, when it is of one.
    pub(crate) fn granted(&self) -> Option<&Granted> {
        self.granted.as_ref()
    }

    /// Whether it is not to be replaced yet.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.stale_at
    }

    /// The token itself. For the request being sent, nothing else.
    pub(crate) fn secret(&self) -> &SecretString {
        &self.secret
    }
}

/// The token of one connection.
#[derive(Default)]
pub(crate) struct TokenCache {
    current: ArcSwapOption<AccessToken>,
    refresh: Mutex<LastFetch>,
    /// Counts finished fetches; a waiter that saw an older number takes over the answer.
    fetches: AtomicU64,
}

#[derive(Default)]
struct LastFetch {
    error: Option<CredentialError>,
}

impl TokenCache {
    /// The current token, or the one that `fetch` gets.
    ///
    /// # Errors
    /// What the fetch failed with; callers that waited for the same fetch get the same error.
    ///
    /// Cancel-safe: a dropped fetch leaves the cache as it was and the next waiter fetches.
    pub(crate) async fn get<F, Fut>(
        &self,
        now: impl Fn() -> Timestamp,
        fetch: F,
    ) -> Result<Arc<AccessToken>, CredentialError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<AccessToken, CredentialError>>,
    {
        if let Some(token) = self.fresh(now()) {
            return Ok(token);
        }
        let seen = self.fetches.load(Ordering::Acquire);
        let mut last = self.refresh.lock().await;
        if let Some(token) = self.fresh(now()) {
            return Ok(token);
        }
        if self.fetches.load(Ordering::Acquire) != seen
            && let Some(error) = &last.error
        {
            return Err(error.clone());
        }
        let fetched = fetch().await;
        self.fetches.fetch_add(1, Ordering::Release);
        match fetched {
            Ok(token) => {
                let token = Arc::new(token);
                self.current.store(Some(token.clone()));
                last.error = None;
                Ok(token)
            }
            Err(error) => {
                last.error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Forgets `rejected`, unless somebody has replaced it already.
    pub(crate) fn forget(&self, rejected: &Arc<AccessToken>) {
        let current = self.current.load();
        if current.as_ref().is_some_and(|token| Arc::ptr_eq(token, rejected)) {
            self.current.compare_and_swap(&current, None);
        }
    }

    fn fresh(&self, now: Timestamp) -> Option<Arc<AccessToken>> {
        self.current.load_full().filter(|token| token.is_fresh(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::sync::atomic::AtomicUsize;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    fn text(token: &AccessToken) -> String {
        token.secret().expose_secret().to_owned()
    }

    #[tokio::test]
    async fn fifty_callers_cause_one_fetch_and_share_its_failure() {
        let cache = TokenCache::default();
        let fetches = AtomicUsize::new(0);
        let call = |fails: bool| {
            let (cache, fetches) = (&cache, &fetches);
            async move {
                let fetch = || async move {
                    let number = fetches.fetch_add(1, Ordering::SeqCst) + 1;
                    tokio::task::yield_now().await;
                    if fails {
                        Err(CredentialError::transient("down"))
                    } else {
                        Ok(AccessToken::new(
                            format!("token-{number}").into(),
                            at(0),
                            Duration::from_secs(100),
                        ))
                    }
                };
                cache.get(|| at(0), fetch).await.map(|token| text(&token))
            }
        };
        let failed = futures::future::join_all((0..50).map(|_| call(true))).await;
        assert!(failed.iter().all(Result::is_err));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        let tokens = futures::future::join_all((0..50).map(|_| call(false))).await;
        assert!(tokens.iter().all(|token| token.as_deref() == Ok("token-2")));
        assert_eq!(fetches.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_token_is_replaced_before_it_expires_and_when_rejected() {
        let cache = TokenCache::default();
        let get = |now: i64, name: &'static str| {
            let fetch = move || async move { Ok(AccessToken::new(name.into(), at(now), Duration::from_secs(3600))) };
            cache.get(move || at(now), fetch)
        };
        let first = get(0, "first").await.unwrap();
        assert_eq!(
            get(3_539_999, "second").await.unwrap().secret().expose_secret(),
            "first"
        );
        assert_eq!(
            get(3_540_000, "second").await.unwrap().secret().expose_secret(),
            "second"
        );
        cache.forget(&first);
        assert_eq!(
            get(3_540_001, "third").await.unwrap().secret().expose_secret(),
            "second"
        );
        let second = get(3_540_001, "third").await.unwrap();
        cache.forget(&second);
        assert_eq!(get(3_540_001, "third").await.unwrap().secret().expose_secret(), "third");
    }
}
