//! Requests that set a webhook up instead of reporting something: challenges, secrets, confirmations, probes.
//!
//! What a stranger sends is echoed as plain text or JSON only, never as HTML. The manifest must say whether a request
//! has to verify first. What cannot be done here (storing a secret, calling a URL) is handed to the host as an
//! [`Errand`]; the reply may be sent only when the errand is done.

use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::Reply;
use super::context::context_document;
use super::locate::{Locator, Seen};
use crate::expression::{ExpressionError, Scope};
use crate::redact::SecretNames;
use crate::template::Template;
use crate::verify::{
    Algorithm, Allowed, Encoding, Evidence, KeyStep, Refusal, RefusalReason, UrlRule, When, derive_key, matches_any,
};

/// Longest challenge that is echoed, in bytes.
///
/// Limit: challenge that is echoed | not echoed: the request counts as a webhook | `handshakes_stop_at_their_bounds`
const MAX_CHALLENGE_BYTES: usize = 4_096;

/// Longest challenge of an unsigned request that is answered with its HMAC, in bytes; the known senders' have at most 64.
///
/// Limit: challenge of an unsigned request that is answered with its HMAC | 401, `malformed_body` | `handshakes_stop_at_their_bounds` | `weir_webhooks_refused_total`
const MAX_SIGNED_CHALLENGE_BYTES: usize = 256;

/// Shortest secret that is taken from a provider, in bytes.
const MIN_STORED_SECRET_BYTES: usize = 16;

/// Longest secret that is taken from a provider, in bytes.
///
/// Limit: secret that a provider sends for an endpoint | 401, `unexpected_secret` | `handshakes_stop_at_their_bounds` | `weir_webhooks_refused_total`
const MAX_STORED_SECRET_BYTES: usize = 1_024;

/// The answer to a handshake.
#[derive(Debug)]
pub struct Handshaken {
    /// What the sender gets, once the errand is done.
    pub reply: Reply,
    /// What has to be done first.
    pub errand: Option<Errand>,
}

/// What the host has to do for a handshake.
#[derive(Debug)]
pub enum Errand {
    /// Keep this as the endpoint's secret, if it still awaits one.
    StoreSecret(SecretString),
    /// Call this URL with GET and see that it answers 2xx. Scheme and host are permitted by the manifest.
    ConfirmGet(String),
}

/// What a handshake needs to know of its endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// The active secrets, newest first.
    pub secrets: &'a [SecretString],
    /// Whether a registration is under way that has to bring the secret.
    pub awaits_secret: bool,
}

#[derive(Debug)]
pub(super) enum Handshake {
    Challenge(Box<Challenge>),
    StoreSecret(StoreSecret),
    ConfirmGet(ConfirmGet),
    AllowOrigin(AllowOrigin),
    StatusOnly { when: When, status: u16, signed: bool },
    BareRefusals,
    IgnoreType(Vec<String>),
}

/// `echo` and, with a signature, `hmac_reply`.
#[derive(Debug)]
pub(super) struct Challenge {
    pub(super) when: When,
    /// Without it the reply is always the same.
    pub(super) read: Option<Read>,
    pub(super) token: Option<RequiredToken>,
    pub(super) hmac: Option<ChallengeHmac>,
    pub(super) write: Write,
    pub(super) status: u16,
    pub(super) signed: bool,
}

#[derive(Debug)]
pub(super) struct ChallengeHmac {
    pub(super) alg: Algorithm,
    pub(super) encoding: Encoding,
    pub(super) key: Vec<KeyStep>,
    pub(super) prefix: String,
}

/// A word that both sides agreed on, in the query.
#[derive(Debug)]
pub(super) struct RequiredToken {
    pub(super) query: String,
    pub(super) key: Vec<KeyStep>,
}

#[derive(Debug)]
pub(super) enum Read {
    Query(String),
    Located(Locator),
}

#[derive(Debug)]
pub(super) enum Write {
    Text,
    Json(String),
    Header(String),
    /// See `challenge`, `hmac` and `context`.
    TextTemplate(Template),
    JsonTemplate(Template),
}

#[derive(Debug)]
pub(super) struct StoreSecret {
    pub(super) when: Option<When>,
    pub(super) header: Option<String>,
    pub(super) read: Locator,
    /// The header in which the secret goes back.
    pub(super) echo: Option<String>,
    pub(super) status: u16,
}

#[derive(Debug)]
pub(super) struct ConfirmGet {
    pub(super) when: When,
    pub(super) read: Locator,
    pub(super) rule: UrlRule,
    pub(super) status: u16,
}

#[derive(Debug)]
pub(super) struct AllowOrigin {
    pub(super) origins: Allowed,
    pub(super) rate: Option<Allowed>,
}

impl Handshake {
    /// Whether the request has to verify first. `None`: it is no answer at all.
    pub(super) fn signed(&self) -> Option<bool> {
        match self {
            Self::Challenge(challenge) => Some(challenge.signed),
            Self::StoreSecret(_) | Self::AllowOrigin(_) => Some(false),
            Self::ConfirmGet(_) => Some(true),
            Self::StatusOnly { signed, .. } => Some(*signed),
            Self::BareRefusals | Self::IgnoreType(_) => None,
        }
    }

    /// The answer, if this handshake is what the request is about.
    pub(super) fn answer(
        &self,
        evidence: &Evidence<'_>,
        body: &Value,
        standing: &Standing<'_>,
    ) -> Result<Option<Handshaken>, Refusal> {
        let seen = Seen {
            request: Some(evidence.request),
            envelope: body,
            unit: body,
        };
        match self {
            Self::Challenge(challenge) => Ok(challenge.answer(evidence, &seen, standing)?.map(plain)),
            Self::StoreSecret(handshake) => handshake.answer(evidence, &seen, standing),
            Self::ConfirmGet(handshake) => handshake.answer(evidence, &seen),
            Self::AllowOrigin(handshake) => Ok(handshake.answer(evidence)?.map(plain)),
            Self::StatusOnly { when, status, signed } => Ok(when.holds(evidence).then(|| {
                plain(Reply {
                    status: *status,
                    headers: Vec::new(),
                    body: Vec::new(),
                    after_verify: *signed,
                })
            })),
            Self::BareRefusals | Self::IgnoreType(_) => Ok(None),
        }
    }

    pub(super) fn ignored_types(&self) -> &[String] {
        match self {
            Self::IgnoreType(types) => types,
            Self::Challenge(_)
            | Self::StoreSecret(_)
            | Self::ConfirmGet(_)
            | Self::AllowOrigin(_)
            | Self::StatusOnly { .. }
            | Self::BareRefusals => &[],
        }
    }

    /// The handshake, if it takes a secret out of bodies.
    pub(super) fn stores_from_body(&self) -> Option<&StoreSecret> {
        match self {
            Self::StoreSecret(handshake) if handshake.header.is_none() => Some(handshake),
            Self::StoreSecret(_)
            | Self::Challenge(_)
            | Self::ConfirmGet(_)
            | Self::AllowOrigin(_)
            | Self::StatusOnly { .. }
            | Self::BareRefusals
            | Self::IgnoreType(_) => None,
        }
    }

    /// Where secrets stand in handshake requests.
    pub(super) fn secret_names(&self, names: &mut SecretNames) {
        match self {
            Self::StoreSecret(handshake) => names.headers.extend(handshake.header.clone()),
            Self::Challenge(challenge) => {
                let token = challenge.token.as_ref();
                names
                    .queries
                    .extend(token.map(|token| token.query.to_ascii_lowercase()));
            }
            Self::ConfirmGet(_)
            | Self::AllowOrigin(_)
            | Self::StatusOnly { .. }
            | Self::BareRefusals
            | Self::IgnoreType(_) => {}
        }
    }
}

fn plain(reply: Reply) -> Handshaken {
    Handshaken { reply, errand: None }
}

/// Gives the body of a reply.
type Render<'r> = dyn for<'s> Fn(&Scope<'s>) -> Result<Option<Vec<u8>>, ExpressionError> + 'r;

impl Challenge {
    fn answer(
        &self,
        evidence: &Evidence<'_>,
        seen: &Seen<'_>,
        standing: &Standing<'_>,
    ) -> Result<Option<Reply>, Refusal> {
        if !self.when.holds(evidence) {
            return Ok(None);
        }
        if let Some(token) = &self.token {
            token.check(evidence, standing.secrets)?;
        }
        let challenge = match &self.read {
            None => String::new(),
            Some(read) => match read.text(evidence, seen) {
                Some(text) if is_echoable(&text) => text,
                Some(_) | None => return Ok(None),
            },
        };
        let hmac = match &self.hmac {
            None => String::new(),
            Some(rule) => {
                if !self.signed && !is_token(&challenge) {
                    return Err(Refusal::new(
                        RefusalReason::MalformedBody,
                        "the challenge is not a plain token, and only such are answered with a signature",
                    ));
                }
                rule.of(&challenge, standing.secrets)?
            }
        };
        self.write(challenge, hmac, evidence).map(Some)
    }

    fn write(&self, challenge: String, hmac: String, evidence: &Evidence<'_>) -> Result<Reply, Refusal> {
        let mut headers = vec![("x-content-type-options".to_owned(), "nosniff".to_owned())];
        let text_type = ("content-type".to_owned(), "text/plain; charset=utf-8".to_owned());
        let json_type = ("content-type".to_owned(), "application/json".to_owned());
        let rendered = |challenge: String, hmac: String, render: &Render<'_>| {
            let (challenge, hmac) = (Value::String(challenge), Value::String(hmac));
            let context = context_document(evidence.request.registration);
            let named = [("challenge", &challenge), ("hmac", &hmac), ("context", &context)];
            let scope = Scope {
                named: &named,
                layers: &[],
            };
            // Challenge and HMAC are there, so it can only be for a value of the endpoint.
            render(&scope).ok().flatten().ok_or_else(|| {
                Refusal::new(
                    RefusalReason::MissingContext,
                    "the endpoint does not state a value that the reply needs",
                )
            })
        };
        let answer = |challenge: String, hmac: String| if self.hmac.is_some() { hmac } else { challenge };
        let body = match &self.write {
            Write::Text => {
                headers.push(text_type);
                answer(challenge, hmac).into_bytes()
            }
            Write::Json(field) => {
                headers.push(json_type);
                let text = Value::String(answer(challenge, hmac));
                Value::Object(Map::from_iter([(field.clone(), text)]))
                    .to_string()
                    .into_bytes()
            }
            Write::Header(name) => {
                headers.push((name.clone(), answer(challenge, hmac)));
                Vec::new()
            }
            Write::TextTemplate(template) => {
                headers.push(text_type);
                rendered(challenge, hmac, &|scope| {
                    let text = template.render_to_text(scope)?;
                    Ok(text.map(|text| text.as_bytes().to_vec()))
                })?
            }
            Write::JsonTemplate(template) => {
                headers.push(json_type);
                rendered(challenge, hmac, &|scope| {
                    let value = template.render(scope)?;
                    Ok(value.map(|value| value.to_string().into_bytes()))
                })?
            }
        };
        Ok(Reply {
            status: self.status,
            headers,
            body,
            after_verify: self.signed,
        })
    }
}

fn is_echoable(text: &str) -> bool {
    text.len() <= MAX_CHALLENGE_BYTES && !text.bytes().any(|byte| byte.is_ascii_control())
}

/// Letters, digits and the marks of Base64: never JSON, a form or a signed text with a timestamp. Otherwise whoever asks
/// for the HMAC of a challenge of their own would get the signature of a forged event.
fn is_token(text: &str) -> bool {
    let stem = text.trim_end_matches('=');
    !stem.is_empty()
        && text.len() <= MAX_SIGNED_CHALLENGE_BYTES
        && stem
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_+/".contains(&byte))
}

impl ChallengeHmac {
    /// With the newest secret that fits.
    fn of(&self, challenge: &str, secrets: &[SecretString]) -> Result<String, Refusal> {
        let key = secrets.iter().find_map(|secret| derive_key(&self.key, secret));
        let key = key.ok_or_else(|| {
            Refusal::new(
                RefusalReason::NoSecret,
                "no secret is configured with which the challenge could be answered",
            )
        })?;
        let tag = self.alg.tag(true, &key, [challenge.as_bytes()].into_iter());
        Ok(format!("{}{}", self.prefix, self.encoding.encode(&tag)))
    }
}

impl RequiredToken {
    fn check(&self, evidence: &Evidence<'_>, secrets: &[SecretString]) -> Result<(), Refusal> {
        let name = &self.query;
        let Some(given) = evidence.query(name) else {
            return Err(Refusal::new(
                RefusalReason::MissingSignature,
                format!("the query parameter {name} is absent"),
            ));
        };
        let keys: Vec<SecretString> = secrets
            .iter()
            .filter_map(|secret| derive_key(&self.key, secret))
            .filter_map(|key| String::from_utf8(key).ok().map(SecretString::from))
            .collect();
        match matches_any(given.as_bytes(), &keys) {
            true => Ok(()),
            false => Err(Refusal::new(
                RefusalReason::BadSignature,
                format!("the query parameter {name} does not hold the agreed token"),
            )),
        }
    }
}

impl Read {
    fn text(&self, evidence: &Evidence<'_>, seen: &Seen<'_>) -> Option<String> {
        match self {
            Self::Query(name) => evidence.query(name),
            Self::Located(locator) => locator.text(seen),
        }
    }
}

impl StoreSecret {
    /// Whether a body has something where the secret would stand.
    pub(super) fn finds(&self, body: &Value) -> bool {
        let seen = Seen {
            request: None,
            envelope: body,
            unit: body,
        };
        self.read.text(&seen).is_some()
    }

    fn answer(
        &self,
        evidence: &Evidence<'_>,
        seen: &Seen<'_>,
        standing: &Standing<'_>,
    ) -> Result<Option<Handshaken>, Refusal> {
        if self.when.as_ref().is_some_and(|when| !when.holds(evidence)) {
            return Ok(None);
        }
        if let Some(name) = &self.header {
            evidence.header(name)?;
        }
        let Some(text) = self.read.text(seen) else {
            return Ok(None);
        };
        let refused = |detail: &str| Refusal::new(RefusalReason::UnexpectedSecret, detail);
        // A provider that did not hear the answer sends the secret once more.
        let is_known = matches_any(text.as_bytes(), standing.secrets);
        if !standing.awaits_secret && !is_known {
            return Err(refused(
                "a secret was sent, and this endpoint does not await one; the one it has stays",
            ));
        }
        let fits = (MIN_STORED_SECRET_BYTES..=MAX_STORED_SECRET_BYTES).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused(
                "a secret was sent that is none: too short, too long, or not plain text",
            ));
        }
        let headers = self.echo.iter().map(|name| (name.clone(), text.clone())).collect();
        Ok(Some(Handshaken {
            reply: Reply {
                status: self.status,
                headers,
                body: Vec::new(),
                after_verify: false,
            },
            errand: (!is_known).then(|| Errand::StoreSecret(text.into())),
        }))
    }
}

impl ConfirmGet {
    fn answer(&self, evidence: &Evidence<'_>, seen: &Seen<'_>) -> Result<Option<Handshaken>, Refusal> {
        if !self.when.holds(evidence) {
            return Ok(None);
        }
        let Some(text) = self.read.text(seen) else {
            return Err(Refusal::new(
                RefusalReason::MalformedBody,
                "the request names no URL to confirm it with",
            ));
        };
        let url = self.rule.permit(&text)?;
        Ok(Some(Handshaken {
            reply: Reply {
                status: self.status,
                headers: Vec::new(),
                body: Vec::new(),
                after_verify: true,
            },
            errand: Some(Errand::ConfirmGet(url.to_string())),
        }))
    }
}

impl AllowOrigin {
    /// The validation request of the `CloudEvents` HTTP 1.1 Web Hooks specification §4.1.
    fn answer(&self, evidence: &Evidence<'_>) -> Result<Option<Reply>, Refusal> {
        if evidence.request.method != "OPTIONS" {
            return Ok(None);
        }
        let Some(origin) = evidence.header("webhook-request-origin")? else {
            return Ok(None);
        };
        self.origins
            .judge(evidence, Some(&json!(origin)), "the origin of the sender")?;
        let mut headers = vec![
            ("allow".to_owned(), "POST".to_owned()),
            ("webhook-allowed-origin".to_owned(), origin.to_owned()),
        ];
        if let Some(asked) = evidence.header("webhook-request-rate")? {
            headers.push(("webhook-allowed-rate".to_owned(), self.granted(evidence, asked)?));
        }
        Ok(Some(Reply {
            status: 200,
            headers,
            body: Vec::new(),
            after_verify: false,
        }))
    }

    /// No more than was asked for, and no more than is allowed.
    fn granted(&self, evidence: &Evidence<'_>, asked: &str) -> Result<String, Refusal> {
        let Some(rate) = &self.rate else {
            return Ok("*".to_owned());
        };
        let allowed = rate.number(evidence)?;
        let asked: Option<u64> = asked.trim().parse().ok();
        Ok(asked.map_or(allowed, |asked| asked.min(allowed)).to_string())
    }
}
