//! A provider at which webhooks are made by its API: it hands out secrets once, lets webhooks end, and fails when told to.
//! It speaks in its own way, in Stripe's and in GitHub's, and keeps the books that tests look at.

use crate::loopback::{Loopback, Request};
use crate::support::{Answer, post, stripe_signature};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// What the provider does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Does what it is told.
    Fine,
    /// Makes webhooks, and does not answer before it is told to.
    Hangs,
    /// Answers 500 and does nothing.
    IsDown,
    /// Its list of webhooks has no end.
    Endless,
}

#[derive(Debug, Default)]
struct Books {
    hooks: BTreeMap<String, Value>,
    events: Vec<Value>,
    made: u32,
    updated: u32,
    renewed: u32,
    deleted: u32,
    revoked: bool,
}

/// The running provider. It ends with the runtime of its test.
#[derive(Clone)]
pub(crate) struct HookProvider {
    pub(crate) url: String,
    books: Arc<Mutex<Books>>,
    mood: watch::Sender<Mood>,
}

impl HookProvider {
    pub(crate) async fn start() -> Self {
        let loopback = Loopback::bind().await;
        let provider = HookProvider {
            url: loopback.url.clone(),
            books: Arc::default(),
            mood: watch::Sender::new(Mood::Fine),
        };
        let serving = provider.clone();
        loopback.serve(move |request| {
            let provider = serving.clone();
            async move { provider.answer_when_told(&request).await }
        });
        provider
    }

    /// What happens to requests from now on; those that hang are answered.
    pub(crate) fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// The webhooks that are there.
    pub(crate) fn hooks(&self) -> Vec<Value> {
        self.books.lock().unwrap().hooks.values().cloned().collect()
    }

    /// The only webhook. `None`: there is none, or more.
    pub(crate) fn only_hook(&self) -> Option<Value> {
        let mut hooks = self.hooks();
        (hooks.len() == 1).then(|| hooks.remove(0))
    }

    /// How many were made, changed, renewed and deleted by the API.
    pub(crate) fn counts(&self) -> [u32; 4] {
        let books = self.books.lock().unwrap();
        [books.made, books.updated, books.renewed, books.deleted]
    }

    /// Somebody changes a webhook by hand; `None` deletes it.
    pub(crate) fn by_hand(&self, id: &Value, change: Option<(&str, Value)>) {
        let mut books = self.books.lock().unwrap();
        let id = plain(id);
        match change {
            Some((field, value)) => books.hooks.get_mut(&id).unwrap()[field] = value,
            None => drop(books.hooks.remove(&id)),
        }
    }

    /// Something happens of which no webhook is sent.
    pub(crate) fn happens_unheard(&self, event: Value) {
        self.books.lock().unwrap().events.push(event);
    }

    /// Whether access was given back.
    pub(crate) fn is_revoked(&self) -> bool {
        self.books.lock().unwrap().revoked
    }

    async fn answer_when_told(&self, request: &Request) -> (u16, Value) {
        let (method, target) = request.line();
        let answer = self.answer(method, target, &request.body);
        let mut moods = self.mood.subscribe();
        if *moods.borrow() == Mood::Hangs && method == "POST" {
            // The test is over otherwise.
            let _changed = moods.wait_for(|mood| *mood != Mood::Hangs).await;
        }
        answer
    }

    fn answer(&self, method: &str, target: &str, body: &[u8]) -> (u16, Value) {
        let mood = *self.mood.borrow();
        let mut books = self.books.lock().unwrap();
        let path = target.split('?').next().unwrap_or_default();
        let said = said(body);
        match (method, path) {
            ("POST", "/token") => {
                let tokens = json!({ "access_token": "access-token-0001", "refresh_token": "refresh-token-0001", "expires_in": 3600 });
                return (200, tokens);
            }
            ("POST", "/revoke") => {
                books.revoked = true;
                return (200, json!({}));
            }
            ("GET", "/events" | "/v1/events") => {
                return (200, json!({ "data": books.events, "has_more": false }));
            }
            _ if books.revoked => return (401, json!({ "message": "no access" })),
            _ if mood == Mood::IsDown => return (500, json!({ "message": "it is down" })),
            _ => {}
        }
        for (place, kind) in [
            ("/hooks", Kind::Own),
            ("/v1/webhook_endpoints", Kind::Stripe),
            ("/repos/acme/shop/hooks", Kind::GitHub),
        ] {
            let Some(rest) = path.strip_prefix(place) else {
                continue;
            };
            let id = rest
                .trim_start_matches('/')
                .split('/')
                .next()
                .unwrap_or_default()
                .to_owned();
            return match (method, id.is_empty()) {
                ("GET", true) => {
                    let hooks: Vec<Value> = books.hooks.values().map(|hook| kind.shown(hook)).collect();
                    match (kind, mood) {
                        (Kind::GitHub, _) => (200, Value::Array(hooks)),
                        (_, Mood::Endless) => {
                            let page: u32 = target
                                .rsplit('=')
                                .next()
                                .and_then(|page| page.parse().ok())
                                .unwrap_or(0);
                            let next = format!("/hooks?page={}", page + 1);
                            (200, json!({ "data": [{ "id": "other", "to": "x" }], "next": next }))
                        }
                        _ => (200, json!({ "data": hooks, "has_more": false })),
                    }
                }
                ("POST", true) => {
                    books.made += 1;
                    let number = books.made;
                    let hook = kind.made(number, &said);
                    books.hooks.insert(plain(&hook["id"]), hook.clone());
                    (201, hook)
                }
                ("DELETE", false) => match books.hooks.remove(&id) {
                    Some(_) => {
                        books.deleted += 1;
                        (200, json!({}))
                    }
                    None => (404, json!({ "message": "there is none" })),
                },
                (_, false) => {
                    let is_renewal = rest.ends_with("/renew");
                    let Some(hook) = books.hooks.get_mut(&id) else {
                        return (404, json!({ "message": "there is none" }));
                    };
                    for (name, value) in said {
                        hook[name] = value;
                    }
                    let hook = kind.shown(hook);
                    match is_renewal {
                        true => books.renewed += 1,
                        false => books.updated += 1,
                    }
                    (200, hook)
                }
                _ => (405, json!({})),
            };
        }
        (404, json!({ "message": "no such thing" }))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Own,
    Stripe,
    GitHub,
}

impl Kind {
    fn made(self, number: u32, said: &Map<String, Value>) -> Value {
        let mut hook = Value::Object(said.clone());
        match self {
            Kind::Own => {
                hook["id"] = json!(format!("hook-{number}"));
                hook["state"] = json!("on");
                if hook.get("secret").is_none() {
                    hook["secret"] = json!(format!("own-secret-{number:08}"));
                }
            }
            Kind::Stripe => {
                hook["id"] = json!(format!("we_{number}"));
                hook["status"] = json!("enabled");
                hook["secret"] = json!(format!("whsec_{number:08}"));
            }
            Kind::GitHub => hook["id"] = json!(1_000 + number),
        }
        hook
    }

    /// What it tells of one that was made before: no secret.
    fn shown(self, hook: &Value) -> Value {
        let mut shown = hook.clone();
        if let Some(fields) = shown.as_object_mut() {
            fields.remove("secret");
        }
        if self == Kind::GitHub {
            shown["config"]["secret"] = json!("********");
        }
        shown
    }
}

/// Sends an event to where a webhook of the provider's own kind says, signed with its secret.
pub(crate) async fn send(hook: &Value, event: &Value) -> Answer {
    send_to(hook["to"].as_str().unwrap(), hook["secret"].as_str().unwrap(), event).await
}

/// Sends an event signed with a secret.
pub(crate) async fn send_to(url: &str, secret: &str, event: &Value) -> Answer {
    let body = event.to_string();
    let signature = hex_hmac(secret, &body);
    let headers = [
        ("x-signature", signature.as_str()),
        ("content-type", "application/json"),
    ];
    post(url, &headers, body).await
}

/// The same in Stripe's way.
pub(crate) async fn send_as_stripe(hook: &Value, body: String, now_s: u64) -> Answer {
    let signature = stripe_signature(hook["secret"].as_str().unwrap(), body.as_bytes(), now_s);
    let headers = [
        ("stripe-signature", signature.as_str()),
        ("content-type", "application/json"),
    ];
    post(hook["url"].as_str().unwrap(), &headers, body).await
}

/// The same in GitHub's way.
pub(crate) async fn send_as_github(hook: &Value, kind: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let signature = format!("sha256={}", hex_hmac(hook["config"]["secret"].as_str().unwrap(), &body));
    let headers = [
        ("x-hub-signature-256", signature.as_str()),
        ("x-github-event", kind),
        ("x-github-delivery", "d-1"),
        ("content-type", "application/json"),
    ];
    post(hook["config"]["url"].as_str().unwrap(), &headers, body).await
}

fn hex_hmac(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let digest = mac.finalize().into_bytes();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An id as text.
pub(crate) fn plain(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

/// What a request says: JSON, or a form with lists in brackets.
fn said(body: &[u8]) -> Map<String, Value> {
    if let Ok(Value::Object(fields)) = serde_json::from_slice(body) {
        return fields;
    }
    let query = String::from_utf8_lossy(body).into_owned();
    let url = reqwest::Url::parse(&format!("http://form.test/?{query}")).unwrap();
    let mut fields = Map::new();
    for (name, value) in url.query_pairs() {
        match name.split_once('[') {
            Some((list, _)) => {
                let list = fields.entry(list.to_owned()).or_insert_with(|| json!([]));
                list.as_array_mut().unwrap().push(json!(value));
            }
            None => drop(fields.insert(name.into_owned(), json!(value))),
        }
    }
    fields
}
