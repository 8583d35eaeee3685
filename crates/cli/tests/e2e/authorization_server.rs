//! A provider that people let connections in at: an authorization server (RFC 6749, 7636, 7009, 9207) whose refresh tokens
//! rotate, the API behind it, and faults. It keeps the books that tests look at.

use crate::loopback::{Loopback, Request};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// The app that connections are for.
pub(crate) const CLIENT: (&str, &str) = ("app-1", "app-secret-0123456789");

/// What the provider does with refreshes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// Answers with new tokens.
    Works,
    /// Rotates, and answers 500.
    FailsAfterRotating,
    /// Answers 503, and does nothing.
    IsDown,
    /// Rotates, and does not answer before it is told to ([`AuthorizationServer::set`]).
    Hangs,
}

#[derive(Debug)]
struct Books {
    account: String,
    codes: HashMap<String, (String, String)>,
    access: BTreeSet<String>,
    /// Refresh tokens: whether each is the newest.
    refresh: BTreeMap<String, bool>,
    /// How often a refresh token that was replaced may be used once more.
    grace: u32,
    lifetime_s: u64,
    slow: Duration,
    takes_tokens: bool,
    issued: u32,
    refreshes: u32,
    exchanges: u32,
    revoked: Vec<String>,
    effects: BTreeMap<String, u32>,
    refused: u32,
}

/// The running provider. It ends with the runtime of its test.
#[derive(Clone)]
pub(crate) struct AuthorizationServer {
    pub(crate) url: String,
    books: Arc<Mutex<Books>>,
    mode: watch::Sender<Refresh>,
}

impl AuthorizationServer {
    pub(crate) async fn start() -> Self {
        let loopback = Loopback::bind().await;
        let books = Books {
            account: "1".to_owned(),
            codes: HashMap::new(),
            access: BTreeSet::new(),
            refresh: BTreeMap::new(),
            grace: 0,
            lifetime_s: 3_600,
            slow: Duration::ZERO,
            takes_tokens: true,
            issued: 0,
            refreshes: 0,
            exchanges: 0,
            revoked: Vec::new(),
            effects: BTreeMap::new(),
            refused: 0,
        };
        let server = AuthorizationServer {
            url: loopback.url.clone(),
            books: Arc::new(Mutex::new(books)),
            mode: watch::Sender::new(Refresh::Works),
        };
        let serving = server.clone();
        loopback.serve(move |request| {
            let server = serving.clone();
            async move { server.answer(&request).await }
        });
        server
    }

    /// What happens to refreshes from now on; those that hang are answered.
    pub(crate) fn set(&self, mode: Refresh) {
        self.mode.send_replace(mode);
    }

    /// Who is signed in.
    pub(crate) fn sign_in(&self, account: &str) {
        account.clone_into(&mut self.books.lock().unwrap().account);
    }

    /// How long new access tokens live.
    pub(crate) fn lifetime(&self, seconds: u64) {
        self.books.lock().unwrap().lifetime_s = seconds;
    }

    /// How long the token endpoint takes.
    pub(crate) fn slow(&self, pause: Duration) {
        self.books.lock().unwrap().slow = pause;
    }

    /// How often refresh tokens that were replaced are taken all the same.
    pub(crate) fn grace(&self, times: u32) {
        self.books.lock().unwrap().grace = times;
    }

    /// Whether the API takes any token.
    pub(crate) fn takes_tokens(&self, takes: bool) {
        self.books.lock().unwrap().takes_tokens = takes;
    }

    /// Access tokens end now.
    pub(crate) fn expire(&self) {
        self.books.lock().unwrap().access.clear();
    }

    /// Requests for a refresh so far, answered or not.
    pub(crate) fn refreshes(&self) -> u32 {
        self.books.lock().unwrap().refreshes
    }

    /// Codes that were exchanged.
    pub(crate) fn exchanges(&self) -> u32 {
        self.books.lock().unwrap().exchanges
    }

    /// Tokens that were given back.
    pub(crate) fn revoked(&self) -> usize {
        self.books.lock().unwrap().revoked.len()
    }

    /// Requests that the API refused because of their token.
    pub(crate) fn refused(&self) -> u32 {
        self.books.lock().unwrap().refused
    }

    /// Things made, and how often the most often made one was.
    pub(crate) fn effects(&self) -> (usize, u32) {
        let books = self.books.lock().unwrap();
        (books.effects.len(), books.effects.values().copied().max().unwrap_or(0))
    }

    /// Every secret that was given out.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let books = self.books.lock().unwrap();
        let issued = 1..=books.issued;
        issued
            .flat_map(|number| {
                [
                    format!("access-token-{number:04}"),
                    format!("refresh-token-{number:04}"),
                ]
            })
            .collect()
    }

    /// A person opens an authorize URL and agrees: where the browser is sent.
    pub(crate) fn agree(&self, authorize_url: &str) -> reqwest::Url {
        let url = reqwest::Url::parse(authorize_url).unwrap();
        let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
        assert_eq!(query["response_type"], "code");
        assert_eq!(query["client_id"], CLIENT.0);
        assert_eq!(query["code_challenge_method"], "S256");
        assert_eq!(
            (query["scope"].as_str(), query["access_type"].as_str()),
            ("read,write", "offline")
        );
        let mut books = self.books.lock().unwrap();
        let code = format!("code-{}", books.codes.len() + 1);
        let way = (query["code_challenge"].clone(), query["redirect_uri"].clone());
        books.codes.insert(code.clone(), way);
        let mut back = reqwest::Url::parse(&query["redirect_uri"]).unwrap();
        back.query_pairs_mut()
            .append_pair("code", &code)
            .append_pair("state", &query["state"])
            .append_pair("iss", &self.url);
        back
    }

    async fn answer(&self, request: &Request) -> (u16, Value) {
        let (method, path) = request.line();
        let body = &request.body;
        match (method, path) {
            ("POST", "/token") => self.token(&form(body)).await,
            ("POST", "/revoke") => {
                let token = form(body).remove("token").unwrap_or_default();
                self.books.lock().unwrap().revoked.push(token);
                (200, json!({}))
            }
            _ => {
                let token = request.header("authorization").unwrap_or_default();
                let key = request.header("idempotency-key");
                let mut books = self.books.lock().unwrap();
                let is_known = token
                    .strip_prefix("Bearer ")
                    .is_some_and(|token| books.access.contains(token));
                if !is_known || !books.takes_tokens {
                    books.refused += 1;
                    return (401, json!({ "error": "unauthorized" }));
                }
                match path {
                    "/me" => (
                        200,
                        json!({ "id": books.account, "email": format!("{}@acme.test", books.account) }),
                    ),
                    "/forbidden" => (401, json!({ "error": "not for you" })),
                    _ => {
                        if let Some(key) = key {
                            *books.effects.entry(key.to_owned()).or_default() += 1;
                        }
                        (200, json!({ "ok": true }))
                    }
                }
            }
        }
    }

    async fn token(&self, form: &HashMap<String, String>) -> (u16, Value) {
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if (field("client_id"), field("client_secret")) != CLIENT {
            return (401, json!({ "error": "invalid_client" }));
        }
        let pause = self.books.lock().unwrap().slow;
        match field("grant_type") {
            "authorization_code" => {
                let mut books = self.books.lock().unwrap();
                let Some((challenge, redirect_uri)) = books.codes.remove(field("code")) else {
                    return (400, json!({ "error": "invalid_grant" }));
                };
                let made = URL_SAFE_NO_PAD.encode(Sha256::digest(field("code_verifier").as_bytes()));
                if made != challenge || redirect_uri != field("redirect_uri") {
                    return (400, json!({ "error": "invalid_grant" }));
                }
                books.exchanges += 1;
                (200, books.issue())
            }
            "refresh_token" => {
                let mode = *self.mode.borrow();
                let answer = {
                    let mut books = self.books.lock().unwrap();
                    books.refreshes += 1;
                    match (mode, books.refresh.get(field("refresh_token")).copied()) {
                        (Refresh::IsDown, _) => None,
                        (_, Some(newest)) if newest || books.grace > 0 => {
                            if !newest {
                                books.grace -= 1;
                            }
                            books.refresh.values_mut().for_each(|newest| *newest = false);
                            books.access.clear();
                            Some((200, books.issue()))
                        }
                        _ => Some((400, json!({ "error": "invalid_grant" }))),
                    }
                };
                if mode == Refresh::Hangs {
                    let mut changes = self.mode.subscribe();
                    // The test is over otherwise.
                    let _changed = changes.wait_for(|mode| *mode != Refresh::Hangs).await;
                }
                tokio::time::sleep(pause).await;
                match (mode, answer) {
                    (_, None) => (503, json!({})),
                    (Refresh::FailsAfterRotating, Some((200, _))) => (500, json!({ "oops": true })),
                    (_, Some(answer)) => answer,
                }
            }
            _ => (400, json!({ "error": "unsupported_grant_type" })),
        }
    }
}

impl Books {
    fn issue(&mut self) -> Value {
        self.issued += 1;
        let access = format!("access-token-{:04}", self.issued);
        let refresh = format!("refresh-token-{:04}", self.issued);
        self.access.insert(access.clone());
        self.refresh.insert(refresh.clone(), true);
        json!({ "access_token": access, "refresh_token": refresh, "expires_in": self.lifetime_s, "scope": "read,write" })
    }
}

fn form(body: &[u8]) -> HashMap<String, String> {
    let query = String::from_utf8_lossy(body).into_owned();
    let url = reqwest::Url::parse(&format!("http://form.test/?{query}")).unwrap();
    url.query_pairs().into_owned().collect()
}
