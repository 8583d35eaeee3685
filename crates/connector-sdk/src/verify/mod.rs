//! Webhook verification as data: schemes are compiled from the manifest, no function knows a provider.
//!
//! Rules that hold for every scheme: the raw bytes are verified before anything is parsed for use;
//! several secrets are tried, any may match; a signature or timestamp header that occurs twice is
//! refused; comparison takes constant time; the algorithm comes from the manifest, never from the
//! message. Whatever is unclear is refused.

mod allowed;
mod certificate;
mod compile;
mod compile_key;
mod compile_mac;
mod evidence;
mod jwt;
mod key_documents;
mod mac;
mod parts;
mod public_key;
mod sign;
mod signed;
mod simple;
mod url_rule;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use secrecy::SecretString;
use serde_json::Value;

pub use key_documents::{KeyDocument, KeyDocuments, Unverified, WantedDocument};
pub use sign::SignError;

use crate::pointer::Pointer;
use crate::problem::{Problem, Problems};
use crate::redact::SecretNames;
pub(crate) use allowed::Allowed;
use certificate::CertificateCheck;
pub(crate) use compile_mac::read_key;
pub(crate) use evidence::{Evidence, is_form};
use jwt::{JwtCheck, JwtKeys, TokenSource};
use mac::MacCheck;
pub(crate) use mac::{ALGORITHMS, Algorithm, ENCODINGS, Encoding, KeyStep, derive_key};
use public_key::PublicKeyCheck;
pub(crate) use simple::matches_any;
use simple::{IpCheck, TokenCheck, TokenPlace};
pub(crate) use url_rule::UrlRule;

/// What an endpoint states about its registration with the provider: names with one or several values each.
/// Schemes read it as `ctx:NAME`. Nothing in it is secret.
pub type Registration = BTreeMap<String, Vec<String>>;

/// A request as it arrived, before any of it is trusted.
#[derive(Clone, Copy)]
pub struct InboundRequest<'a> {
    /// Upper-case method.
    pub method: &'a str,
    /// The full public URL that the provider called, with query; from configuration, not from `Host`.
    pub url: &'a str,
    /// Headers in order, duplicates kept, names in lower case.
    pub headers: &'a [(String, String)],
    /// The exact body bytes.
    pub body: &'a [u8],
    /// Registration data that a scheme may sign or compare with (`ctx:NAME`).
    pub registration: &'a Registration,
    /// The client's address, when the host knows it for certain.
    pub client_ip: Option<IpAddr>,
}

impl fmt::Debug for InboundRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundRequest")
            .field("method", &self.method)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A compiled verification scheme.
#[derive(Debug)]
pub struct Verifier {
    check: Check,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Refusal {
    /// The class of the refusal, for counters and filters.
    pub reason: RefusalReason,
    /// For people: names headers and fields, never a secret or an expected signature.
    pub detail: String,
}

impl Refusal {
    pub(crate) fn new(reason: RefusalReason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// Classes of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalReason {
    /// The signature, token or credentials are absent.
    MissingSignature,
    /// They are there but have not the form that the scheme states.
    MalformedSignature,
    /// A header that counts occurs more than once.
    DuplicatedHeader,
    /// No active secret gives this signature, token or pair.
    BadSignature,
    /// Something that the signature covers is absent.
    MissingPart,
    /// The timestamp is absent or not one.
    MalformedTimestamp,
    /// The signature is good but older than the tolerance.
    StaleTimestamp,
    /// The signature is good but from the future beyond the tolerance.
    FutureTimestamp,
    /// The body has not the form from which the scheme reads a field.
    MalformedBody,
    /// No secret is configured.
    NoSecret,
    /// No configured secret has the form that the scheme needs.
    UnusableSecret,
    /// The client's address is not on the list, or not known.
    IpNotAllowed,
    /// None of the alternatives applies to this request.
    NoSchemeApplies,
    /// The endpoint does not state a value that the scheme needs.
    MissingContext,
    /// The request's algorithm is not one of those that the scheme permits.
    AlgorithmNotAllowed,
    /// A signed value (topic, issuer, audience, claim, origin) is not one that is expected here.
    ValueNotAllowed,
    /// The request names a URL that must not be called.
    UrlNotAllowed,
    /// The key that the request names is not among the sender's keys.
    UnknownKey,
    /// The sender's key has run out.
    KeyExpired,
    /// The sender's keys cannot be had now; the request may be good.
    KeysUnavailable,
    /// A secret was sent and none is awaited.
    UnexpectedSecret,
}

impl RefusalReason {
    /// The HTTP status that a sender gets: 403 for addresses, 503 when a later try may succeed, 401 otherwise.
    pub fn status(self) -> u16 {
        match self {
            Self::IpNotAllowed => 403,
            Self::KeysUnavailable => 503,
            Self::MissingSignature
            | Self::MalformedSignature
            | Self::DuplicatedHeader
            | Self::BadSignature
            | Self::MissingPart
            | Self::MalformedTimestamp
            | Self::StaleTimestamp
            | Self::FutureTimestamp
            | Self::MalformedBody
            | Self::NoSecret
            | Self::UnusableSecret
            | Self::NoSchemeApplies
            | Self::MissingContext
            | Self::AlgorithmNotAllowed
            | Self::ValueNotAllowed
            | Self::UrlNotAllowed
            | Self::UnknownKey
            | Self::KeyExpired
            | Self::UnexpectedSecret => 401,
        }
    }

    /// The stable snake-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingSignature => "missing_signature",
            Self::MalformedSignature => "malformed_signature",
            Self::DuplicatedHeader => "duplicated_header",
            Self::BadSignature => "bad_signature",
            Self::MissingPart => "missing_part",
            Self::MalformedTimestamp => "malformed_timestamp",
            Self::StaleTimestamp => "stale_timestamp",
            Self::FutureTimestamp => "future_timestamp",
            Self::MalformedBody => "malformed_body",
            Self::NoSecret => "no_secret",
            Self::UnusableSecret => "unusable_secret",
            Self::IpNotAllowed => "ip_not_allowed",
            Self::NoSchemeApplies => "no_scheme_applies",
            Self::MissingContext => "missing_context",
            Self::AlgorithmNotAllowed => "algorithm_not_allowed",
            Self::ValueNotAllowed => "value_not_allowed",
            Self::UrlNotAllowed => "url_not_allowed",
            Self::UnknownKey => "unknown_key",
            Self::KeyExpired => "key_expired",
            Self::KeysUnavailable => "keys_unavailable",
            Self::UnexpectedSecret => "unexpected_secret",
        }
    }
}

#[derive(Debug)]
enum Check {
    Mac(Box<MacCheck>),
    PublicKey(Box<PublicKeyCheck>),
    Certificate(Box<CertificateCheck>),
    Jwt(Box<JwtCheck>),
    Token(TokenCheck),
    Basic,
    Ip(IpCheck),
    AnyOf(Vec<Guarded>),
    AllOf(Vec<Guarded>),
}

/// A check that applies only when its condition holds.
#[derive(Debug)]
struct Guarded {
    when: Option<When>,
    check: Check,
}

/// A condition on a request.
#[derive(Debug)]
pub(crate) enum When {
    Method(String),
    Header { name: String, test: WhenTest },
    Query { name: String, test: WhenTest },
    Body { pointer: Pointer, test: BodyTest },
}

#[derive(Debug)]
pub(crate) enum WhenTest {
    Present(bool),
    Equals(String),
}

#[derive(Debug)]
pub(crate) enum BodyTest {
    Present(bool),
    Equals(Value),
}

impl Verifier {
    /// Compiles a scheme in the vocabulary of manifests (`hmac`, `digest`, `pubkey`, `x509`, `jwt`, `token`, `basic`, `ip`,
    /// `any_of`, `all_of`). `pointer` is where `value` stands in its document and prefixes the pointers of problems.
    ///
    /// # Errors
    /// Every [`Problem`] found; `mtls` is refused with a message of its own.
    pub fn compile(value: &Value, pointer: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let check = compile::read(value, pointer, &mut problems);
        problems.finish(check.map(|check| Self { check }))
    }

    /// Whether the endpoint has to have a secret (or public key): no request can be verified without one.
    pub fn needs_secret(&self) -> bool {
        self.check.needs_secret()
    }

    /// Whether a secret has the form that the scheme needs; for the moment when somebody enters it.
    ///
    /// # Errors
    /// A message for people that does not quote the secret.
    pub fn check_secret(&self, secret: &SecretString) -> Result<(), String> {
        self.check.check_secret(secret)
    }

    /// Whether a fulfilled scheme proves that the body came unchanged; tokens and Basic prove the sender only.
    pub fn covers_body(&self) -> bool {
        self.check.covers_body()
    }

    /// The headers and query parameters that carry the secret itself, to be hidden wherever a request is kept or shown.
    pub fn secret_names(&self) -> SecretNames {
        let mut names = SecretNames::default();
        self.check.secret_names(&mut names);
        names
    }

    /// Verifies a request against every active secret and the documents that were fetched for it.
    ///
    /// # Errors
    /// [`Unverified::Refused`] unless the scheme is fulfilled; [`Unverified::Wants`] when that hangs on a document which
    /// is not among `documents`: fetch it, add it, ask again. Each answer wants a document that is not there yet, or a
    /// newer copy of one that is not marked as the final word, so the asking comes to an end.
    pub fn verify(
        &self,
        request: &InboundRequest<'_>,
        secrets: &[SecretString],
        documents: &KeyDocuments,
        now_unix_ms: i64,
    ) -> Result<(), Unverified> {
        let means = Means {
            evidence: &Evidence::new(request),
            secrets,
            documents,
            now_unix_ms,
        };
        self.check.verify(&means)
    }
}

/// All that a check may look at.
struct Means<'a> {
    evidence: &'a Evidence<'a>,
    secrets: &'a [SecretString],
    documents: &'a KeyDocuments,
    now_unix_ms: i64,
}

impl Check {
    fn secret_names(&self, names: &mut SecretNames) {
        match self {
            Self::Token(check) => match &check.at {
                TokenPlace::Header(name) => names.headers.push(name.to_ascii_lowercase()),
                TokenPlace::Query(name) => names.queries.push(name.to_ascii_lowercase()),
                TokenPlace::Path | TokenPlace::Json(_) | TokenPlace::Each { .. } => {}
            },
            Self::Jwt(check) => {
                if let TokenSource::Header(name) = &check.token {
                    names.headers.push(name.to_ascii_lowercase());
                }
            }
            Self::Mac(_) | Self::PublicKey(_) | Self::Certificate(_) | Self::Basic | Self::Ip(_) => {}
            Self::AnyOf(checks) | Self::AllOf(checks) => {
                for guarded in checks {
                    guarded.check.secret_names(names);
                }
            }
        }
    }

    fn needs_secret(&self) -> bool {
        match self {
            Self::Mac(_) | Self::Token(_) | Self::Basic => true,
            Self::PublicKey(check) => check.own_keys.is_empty(),
            Self::Jwt(check) => matches!(check.keys, JwtKeys::Secrets(_)),
            Self::Certificate(_) | Self::Ip(_) => false,
            Self::AnyOf(checks) => checks.iter().all(|guarded| guarded.check.needs_secret()),
            Self::AllOf(checks) => checks.iter().any(|guarded| guarded.check.needs_secret()),
        }
    }

    /// Whether a request that fulfils it proves who sent it; an address does not.
    fn proves(&self) -> bool {
        match self {
            Self::Mac(_) | Self::PublicKey(_) | Self::Certificate(_) | Self::Jwt(_) | Self::Token(_) | Self::Basic => {
                true
            }
            Self::Ip(_) => false,
            Self::AnyOf(checks) => checks.iter().all(|guarded| guarded.check.proves()),
            Self::AllOf(checks) => checks.iter().any(|guarded| guarded.check.proves()),
        }
    }

    fn covers_body(&self) -> bool {
        match self {
            Self::Mac(check) => check.covers_body(),
            Self::PublicKey(check) => check.signed.covers_body(),
            Self::Certificate(check) => check.signed.covers_body(),
            Self::Jwt(check) => check.body_hash_claim.is_some(),
            Self::Token(_) | Self::Basic | Self::Ip(_) => false,
            Self::AnyOf(checks) => checks.iter().all(|guarded| guarded.check.covers_body()),
            Self::AllOf(checks) => checks
                .iter()
                .any(|guarded| guarded.when.is_none() && guarded.check.covers_body()),
        }
    }

    fn check_secret(&self, secret: &SecretString) -> Result<(), String> {
        match self {
            Self::Mac(check) => check.check_secret(secret),
            Self::Token(_) => simple::check_token(secret),
            Self::Basic => simple::check_pair(secret),
            Self::PublicKey(check) if check.own_keys.is_empty() => check.check_secret(secret),
            Self::Jwt(check) => match &check.keys {
                JwtKeys::Secrets(steps) if derive_key(steps, secret).is_none() => {
                    Err("the secret has not the form that the scheme needs".to_owned())
                }
                JwtKeys::Secrets(_) | JwtKeys::Jwks(_) => Ok(()),
            },
            Self::PublicKey(_) | Self::Certificate(_) | Self::Ip(_) => Ok(()),
            Self::AnyOf(checks) => {
                let mut last = Ok(());
                for guarded in checks {
                    last = guarded.check.check_secret(secret);
                    if last.is_ok() {
                        break;
                    }
                }
                last
            }
            Self::AllOf(checks) => checks.iter().try_for_each(|guarded| guarded.check.check_secret(secret)),
        }
    }

    fn verify(&self, means: &Means<'_>) -> Result<(), Unverified> {
        let Means {
            evidence,
            secrets,
            documents,
            now_unix_ms,
        } = *means;
        match self {
            Self::AnyOf(checks) => any_of(checks, means),
            Self::AllOf(checks) => all_of(checks, means),
            _ if self.needs_secret() && secrets.is_empty() => {
                Err(Refusal::new(RefusalReason::NoSecret, "no secret is configured").into())
            }
            Self::Mac(check) => Ok(check.verify(evidence, secrets, now_unix_ms)?),
            Self::PublicKey(check) => Ok(check.verify(evidence, secrets, now_unix_ms)?),
            Self::Certificate(check) => check.verify(evidence, documents, now_unix_ms),
            Self::Jwt(check) => check.verify(evidence, secrets, documents, now_unix_ms),
            Self::Token(check) => Ok(check.verify(evidence, secrets)?),
            Self::Basic => Ok(simple::verify_basic(evidence, secrets)?),
            Self::Ip(check) => check.verify(evidence, documents),
        }
    }
}

/// A document is wanted only when no alternative is fulfilled without it.
fn any_of(checks: &[Guarded], means: &Means<'_>) -> Result<(), Unverified> {
    let mut refusal = Refusal::new(RefusalReason::NoSchemeApplies, "no alternative applies to this request");
    let mut wanted = None;
    for guarded in checks.iter().filter(|guarded| guarded.applies(means.evidence)) {
        match guarded.check.verify(means) {
            Ok(()) => return Ok(()),
            Err(Unverified::Wants(wants)) => {
                wanted.get_or_insert(wants);
            }
            // What failed last says least; a signature that was there and bad says most.
            Err(Unverified::Refused(next))
                if refusal.reason == RefusalReason::NoSchemeApplies
                    || next.reason != RefusalReason::MissingSignature =>
            {
                refusal = next;
            }
            Err(Unverified::Refused(_)) => {}
        }
    }
    Err(wanted.map_or(Unverified::Refused(refusal), Unverified::Wants))
}

/// A document is wanted only when nothing is refused without it.
fn all_of(checks: &[Guarded], means: &Means<'_>) -> Result<(), Unverified> {
    let mut has_proof = false;
    let mut wanted = None;
    for guarded in checks.iter().filter(|guarded| guarded.applies(means.evidence)) {
        match guarded.check.verify(means) {
            Ok(()) => {}
            Err(Unverified::Wants(wants)) => {
                wanted.get_or_insert(wants);
            }
            Err(Unverified::Refused(refusal)) => return Err(Unverified::Refused(refusal)),
        }
        has_proof |= guarded.check.proves();
    }
    match (has_proof, wanted) {
        (false, _) => Err(Refusal::new(
            RefusalReason::NoSchemeApplies,
            "no check that proves the sender applies to this request",
        )
        .into()),
        (true, Some(wanted)) => Err(Unverified::Wants(wanted)),
        (true, None) => Ok(()),
    }
}

impl Guarded {
    fn applies(&self, evidence: &Evidence<'_>) -> bool {
        self.when.as_ref().is_none_or(|when| when.holds(evidence))
    }
}

impl When {
    /// Reads `{ method: M }`, `{ header: N, … }`, `{ query: N, … }` or `{ body: /ptr, … }` with `equals` or `present`.
    pub(crate) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        compile::read_when(value, place, problems)
    }

    /// Whether the request fulfils it.
    pub(crate) fn holds(&self, evidence: &Evidence<'_>) -> bool {
        match self {
            Self::Method(method) => evidence.request.method == method,
            Self::Header { name, test } => test.holds(evidence.headers(name).next()),
            Self::Query { name, test } => test.holds(evidence.query(name).as_deref()),
            Self::Body { pointer, test } => {
                let value = evidence.json().and_then(|body| pointer.lookup(body));
                match test {
                    BodyTest::Present(wanted) => value.is_some_and(|value| !value.is_null()) == *wanted,
                    BodyTest::Equals(wanted) => value == Some(wanted),
                }
            }
        }
    }
}

impl WhenTest {
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::Present(wanted) => value.is_some() == *wanted,
            Self::Equals(wanted) => value == Some(wanted.as_str()),
        }
    }
}
