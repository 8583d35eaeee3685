//! Webhook verification as data: schemes are compiled from the manifest, no function knows a provider.
//!
//! Rules that hold for every scheme: the raw bytes are verified before anything is parsed for use;
//! several secrets are tried, any may match; a signature or timestamp header that occurs twice is
//! refused; comparison takes constant time; the algorithm comes from the manifest, never from the
//! message. Whatever is unclear is refused.

mod compile;
mod compile_mac;
mod evidence;
mod mac;
mod parts;
mod sign;
mod simple;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use secrecy::SecretString;
use serde_json::Value;

pub use sign::SignError;

use crate::pointer::Pointer;
use crate::problem::{Problem, Problems};
use crate::redact::SecretNames;
use evidence::Evidence;
pub(crate) use evidence::is_form;
use mac::MacCheck;
use simple::{TokenCheck, TokenPlace};

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
    /// Registration data that a scheme may sign (`ctx:NAME`).
    pub context: &'a BTreeMap<String, String>,
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
    fn new(reason: RefusalReason, detail: impl Into<String>) -> Self {
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
}

impl RefusalReason {
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
        }
    }
}

#[derive(Debug)]
enum Check {
    Mac(Box<MacCheck>),
    Token(TokenCheck),
    Basic,
    Ip(Vec<IpNet>),
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
    /// Compiles a scheme in the vocabulary of manifests (`hmac`, `digest`, `token`, `basic`, `ip`, `any_of`, `all_of`).
    /// `pointer` is where `value` stands in its document and prefixes the pointers of problems.
    ///
    /// # Errors
    /// Every [`Problem`] found; `pubkey`, `x509`, `jwt` and `mtls` are refused with a message of their own.
    pub fn compile(value: &Value, pointer: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let check = compile::read(value, pointer, &mut problems);
        problems.finish(check.map(|check| Self { check }))
    }

    /// Whether the scheme compares with a secret (an `ip` list alone does not, and is refused anyway).
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

    /// Verifies a request against every active secret.
    ///
    /// # Errors
    /// [`Refusal`] unless the scheme is fulfilled.
    pub fn verify(
        &self,
        request: &InboundRequest<'_>,
        secrets: &[SecretString],
        now_unix_ms: i64,
    ) -> Result<(), Refusal> {
        let evidence = Evidence::new(request);
        self.check.verify(&evidence, secrets, now_unix_ms)
    }
}

impl Check {
    fn secret_names(&self, names: &mut SecretNames) {
        match self {
            Self::Token(check) => match &check.at {
                TokenPlace::Header(name) => names.headers.push(name.to_ascii_lowercase()),
                TokenPlace::Query(name) => names.queries.push(name.to_ascii_lowercase()),
                TokenPlace::Json(_) | TokenPlace::Each { .. } => {}
            },
            Self::Mac(_) | Self::Basic | Self::Ip(_) => {}
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
            Self::Ip(_) => false,
            Self::AnyOf(checks) | Self::AllOf(checks) => checks.iter().any(|guarded| guarded.check.needs_secret()),
        }
    }

    fn covers_body(&self) -> bool {
        match self {
            Self::Mac(check) => check.covers_body(),
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
            Self::Ip(_) => Ok(()),
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

    fn verify(&self, evidence: &Evidence<'_>, secrets: &[SecretString], now_unix_ms: i64) -> Result<(), Refusal> {
        if self.needs_secret() && secrets.is_empty() {
            return Err(Refusal::new(RefusalReason::NoSecret, "no secret is configured"));
        }
        match self {
            Self::Mac(check) => check.verify(evidence, secrets, now_unix_ms),
            Self::Token(check) => check.verify(evidence, secrets),
            Self::Basic => simple::verify_basic(evidence, secrets),
            Self::Ip(networks) => simple::verify_ip(evidence, networks),
            Self::AnyOf(checks) => {
                let mut refusal =
                    Refusal::new(RefusalReason::NoSchemeApplies, "no alternative applies to this request");
                for guarded in checks.iter().filter(|guarded| guarded.applies(evidence)) {
                    match guarded.check.verify(evidence, secrets, now_unix_ms) {
                        Ok(()) => return Ok(()),
                        // What failed last says least; a signature that was there and bad says most.
                        Err(next)
                            if refusal.reason == RefusalReason::NoSchemeApplies
                                || next.reason != RefusalReason::MissingSignature =>
                        {
                            refusal = next
                        }
                        Err(_) => {}
                    }
                }
                Err(refusal)
            }
            Self::AllOf(checks) => {
                let mut has_proof = false;
                for guarded in checks.iter().filter(|guarded| guarded.applies(evidence)) {
                    guarded.check.verify(evidence, secrets, now_unix_ms)?;
                    has_proof |= guarded.check.needs_secret();
                }
                match has_proof {
                    true => Ok(()),
                    false => Err(Refusal::new(
                        RefusalReason::NoSchemeApplies,
                        "no check with a secret applies to this request",
                    )),
                }
            }
        }
    }
}

impl Guarded {
    fn applies(&self, evidence: &Evidence<'_>) -> bool {
        self.when.as_ref().is_none_or(|when| when.holds(evidence))
    }
}

impl When {
    /// Reads `{ header: N, … }`, `{ query: N, … }` or `{ body: /ptr, … }` with `equals` or `present`.
    pub(crate) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        compile::read_when(value, place, problems)
    }

    /// Whether the request fulfils it.
    pub(crate) fn holds_for(&self, request: &InboundRequest<'_>) -> bool {
        self.holds(&Evidence::new(request))
    }

    fn holds(&self, evidence: &Evidence<'_>) -> bool {
        match self {
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
