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
use weir_connector_sdk::{AuthScheme, Credential, HttpRequest, Values};
use weir_workflow_engine::Timestamp;

use super::CredentialError;
use super::refusal::Refusal;
use crate::grants::Granted;

/// A token is replaced this long before it expires, so that it does not run out under way.
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// Share of a short lifetime that is kept as margin instead of [`EXPIRY_MARGIN`]: a quarter.
const SHORT_LIFETIME_SHARE: u32 = 4;

/// A token and how long it is good for.
pub(crate) struct AccessToken {
    held: Held,
    stale_at: Timestamp,
    granted: Option<Granted>,
}

/// What it is.
enum Held {
    /// A bearer token.
    Bearer(SecretString),
    /// What a login gave, by the names of the connector.
    Session(Values),
}

impl AccessToken {
    /// A token received at `now` that lives for `lifetime`.
    pub(crate) fn new(secret: SecretString, now: Timestamp, lifetime: Duration) -> Self {
        Self::holding(Held::Bearer(secret), now, lifetime)
    }

    /// A session that a login began at `now`.
    pub(crate) fn of_session(values: Values, now: Timestamp, lifetime: Duration) -> Self {
        Self::holding(Held::Session(values), now, lifetime)
    }

    fn holding(held: Held, now: Timestamp, lifetime: Duration) -> Self {
        let margin = EXPIRY_MARGIN.min(lifetime / SHORT_LIFETIME_SHARE);
        AccessToken {
            held,
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

    /// What a login gave, when it is a session.
    pub(crate) fn session(&self) -> Option<&Values> {
        match &self.held {
            Held::Session(values) => Some(values),
            Held::Bearer(_) => None,
        }
    }

    /// Puts it on a request, where its scheme says.
    ///
    /// # Errors
    /// [`CredentialError`] when it cannot stand there.
    pub(crate) fn put_on(
        &self,
        credential: &Credential,
        scheme: &AuthScheme,
        request: &mut HttpRequest,
    ) -> Result<(), CredentialError> {
        match (&self.held, scheme) {
            (Held::Session(values), AuthScheme::Session(scheme)) => scheme
                .put(credential, values, request)
                .map_err(|error| CredentialError::permanent(error.message)),
            (Held::Bearer(token), _) => credential
                .apply_token(token, request)
                .map_err(|error| CredentialError::permanent(error.to_string())),
            (Held::Session(_), _) => Err(CredentialError::permanent("the connector has no session")),
        }
    }
}

/// The token of one connection.
#[derive(Default)]
pub(crate) struct TokenCache {
    current: ArcSwapOption<AccessToken>,
    refresh: Mutex<LastFetch>,
    /// That the credential does not let us in; no login is tried before its time.
    refused: ArcSwapOption<Refusal>,
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
        let refused = self.refused.load_full();
        if let Some(refusal) = refused.as_ref().filter(|refusal| now() < refusal.next_login_at) {
            return Err(refusal.error.clone());
        }
        let fetched = fetch().await;
        self.fetches.fetch_add(1, Ordering::Release);
        match fetched {
            Ok(token) => {
                let token = Arc::new(token);
                self.refused.store(None);
                self.current.store(Some(token.clone()));
                last.error = None;
                Ok(token)
            }
            Err(error) => {
                last.error = Some(error.clone());
                if error.is_refusal {
                    let refusal = Refusal::after(refused.as_deref(), error.clone(), now());
                    self.refused.store(Some(Arc::new(refusal)));
                }
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

    /// That logins are refused.
    pub(crate) fn refusal(&self) -> Option<Arc<Refusal>> {
        self.refused.load_full()
    }

    /// Takes the token out, as nobody is to use it any more.
    pub(crate) async fn take(&self) -> Option<Arc<AccessToken>> {
        // A login that is under way is for calls that came before.
        let _alone = self.refresh.lock().await;
        self.current.swap(None)
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
        match &token.held {
            Held::Bearer(secret) => secret.expose_secret().to_owned(),
            Held::Session(values) => format!("{values:?}"),
        }
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
        assert_eq!(text(&get(3_539_999, "second").await.unwrap()), "first");
        assert_eq!(text(&get(3_540_000, "second").await.unwrap()), "second");
        cache.forget(&first);
        assert_eq!(text(&get(3_540_001, "third").await.unwrap()), "second");
        let second = get(3_540_001, "third").await.unwrap();
        cache.forget(&second);
        assert_eq!(text(&get(3_540_001, "third").await.unwrap()), "third");
    }

    #[tokio::test]
    async fn a_refused_login_is_not_tried_again_before_its_time() {
        let cache = TokenCache::default();
        let logins = AtomicUsize::new(0);
        let call = |now_s: i64, refuses: bool| {
            let (cache, logins, now) = (&cache, &logins, at(now_s * 1_000));
            let fetch = move || async move {
                logins.fetch_add(1, Ordering::SeqCst);
                match refuses {
                    true => Err(CredentialError::refused_login("the login was refused: http_401")),
                    false => Ok(AccessToken::new("token".into(), now, Duration::from_secs(3600))),
                }
            };
            async move {
                cache
                    .get(move || now, fetch)
                    .await
                    .map(drop)
                    .map_err(|error| error.is_refusal)
            }
        };
        let many = futures::future::join_all((0..20).map(|_| call(0, true))).await;
        assert!(many.iter().all(|result| *result == Err(true)));
        assert_eq!(logins.load(Ordering::SeqCst), 1);
        // 5 min, then 10, then 20, and never more than an hour.
        for (now_s, counted) in [(299, 1), (300, 2), (899, 2), (900, 3), (2_099, 3), (2_100, 4)] {
            assert_eq!(call(now_s, true).await, Err(true), "{now_s}");
            assert_eq!(logins.load(Ordering::SeqCst), counted, "{now_s}");
        }
        assert!(cache.refusal().is_some());
        assert_eq!(call(4_500, false).await, Ok(()));
        assert!(cache.refusal().is_none());
        assert!(cache.take().await.is_some() && cache.take().await.is_none());
    }
}
