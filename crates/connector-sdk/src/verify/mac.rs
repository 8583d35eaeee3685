//! Signatures over parts of a request: HMAC, and plain digests with the secret among the parts.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq as _};
use url::Url;

use super::evidence::Evidence;
use super::parts::{Part, PartBytes, Signature};
use super::signed::Signed;
use super::{Refusal, RefusalReason};
use crate::pointer::Pointer;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

#[derive(Debug)]
pub(super) struct MacCheck {
    pub(super) keyed: bool,
    pub(super) alg: Algorithm,
    pub(super) signed: Signed,
    pub(super) key: Vec<KeyStep>,
    pub(super) each: Option<Pointer>,
    /// Query parameter that holds the hex SHA-256 of a body which is not a form.
    pub(super) body_hash_query: Option<String>,
    /// Whether the URL is also tried with and without its default port.
    pub(super) url_port_variants: bool,
    /// Texts of which one may follow the parts; never empty.
    pub(super) suffixes: Vec<String>,
    /// Whether the parts out of the request must be Base64 text.
    pub(super) base64_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// For requests that we sign. It is not among [`ALGORITHMS`]: nothing that comes in is proven by it.
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Hex,
    Base64,
    Base64Url,
}

pub(crate) const ALGORITHMS: [(&str, Algorithm); 3] = [
    ("sha1", Algorithm::Sha1),
    ("sha256", Algorithm::Sha256),
    ("sha512", Algorithm::Sha512),
];

pub(crate) const ENCODINGS: [(&str, Encoding); 3] = [
    ("hex", Encoding::Hex),
    ("base64", Encoding::Base64),
    ("base64url", Encoding::Base64Url),
];

#[derive(Debug)]
pub(crate) enum KeyStep {
    Strip(String),
    Base64,
    Hex,
    Sha1,
    /// A field of a secret that is a JSON object.
    Field(String),
}

/// The key bytes of a secret; `None` when a step of the chain cannot be done.
pub(crate) fn derive_key(steps: &[KeyStep], secret: &SecretString) -> Option<Vec<u8>> {
    let mut bytes = secret.expose_secret().as_bytes().to_vec();
    for step in steps {
        bytes = match step {
            KeyStep::Strip(prefix) => match bytes.strip_prefix(prefix.as_bytes()) {
                Some(rest) => rest.to_vec(),
                None => bytes,
            },
            KeyStep::Base64 => BASE64.decode(&bytes).ok()?,
            KeyStep::Hex => hex::decode(&bytes).ok()?,
            KeyStep::Sha1 => Sha1::digest(&bytes).to_vec(),
            KeyStep::Field(name) => {
                let object: Value = serde_json::from_slice(&bytes).ok()?;
                object.get(name)?.as_str()?.as_bytes().to_vec()
            }
        };
    }
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

impl MacCheck {
    pub(super) fn verify(
        &self,
        evidence: &Evidence<'_>,
        secrets: &[SecretString],
        now_unix_ms: i64,
    ) -> Result<(), Refusal> {
        self.verify_body_hash(evidence)?;
        match &self.each {
            None => self.verify_one(evidence, None, secrets, now_unix_ms),
            Some(each) => {
                let items = evidence
                    .json()
                    .and_then(|body| each.expand(body))
                    .filter(|items| !items.is_empty());
                let items = items
                    .ok_or_else(|| Refusal::new(RefusalReason::MissingSignature, "the body has no signed items"))?;
                items
                    .into_iter()
                    .try_for_each(|(_, item)| self.verify_one(evidence, Some(item), secrets, now_unix_ms))
            }
        }
    }

    fn verify_one(
        &self,
        evidence: &Evidence<'_>,
        item: Option<&Value>,
        secrets: &[SecretString],
        now_unix_ms: i64,
    ) -> Result<(), Refusal> {
        let taken = self.signed.take(evidence, item, Some(self.alg.bytes()))?;
        if self.base64_only {
            taken.only_base64()?;
        }
        let mut usable = false;
        let mut matched = Choice::from(0);
        for secret in secrets {
            let Some(key) = self.derive_key(secret) else {
                continue;
            };
            usable = true;
            for url in self.url_variants(evidence.request.url) {
                for suffix in &self.suffixes {
                    let tag = self.tag(&key, &taken.parts, &url, suffix);
                    for candidate in &taken.candidates {
                        matched |= candidate.ct_eq(&tag);
                    }
                }
            }
        }
        if !usable {
            return Err(Refusal::new(
                RefusalReason::UnusableSecret,
                "no configured secret has the form that the scheme needs",
            ));
        }
        if !bool::from(matched) {
            return Err(Refusal::new(
                RefusalReason::BadSignature,
                format!(
                    "{} does not fit the request under any active secret",
                    self.signed.sig.words()
                ),
            ));
        }
        // Only now: a stale answer about a forged request would say more than it knows.
        self.signed.judge_time(&taken, now_unix_ms)
    }

    /// The key bytes of a secret; `None` when a step of the chain cannot be done.
    pub(super) fn derive_key(&self, secret: &SecretString) -> Option<Vec<u8>> {
        derive_key(&self.key, secret)
    }

    pub(super) fn check_secret(&self, secret: &SecretString) -> Result<(), String> {
        match self.derive_key(secret) {
            Some(_) => Ok(()),
            None if self.key.iter().any(|step| matches!(step, KeyStep::Base64)) => {
                Err("the secret is not Base64".to_owned())
            }
            None if self.key.iter().any(|step| matches!(step, KeyStep::Hex)) => {
                Err("the secret is not hexadecimal".to_owned())
            }
            None if self.key.iter().any(|step| matches!(step, KeyStep::Field(_))) => {
                Err("the secret is not a JSON object with the fields that the scheme names".to_owned())
            }
            None => Err("the secret is empty".to_owned()),
        }
    }

    /// The signature of `parts`; `url` stands where a part is the URL, the key where a part is the secret.
    pub(super) fn tag(&self, key: &[u8], parts: &[PartBytes<'_>], url: &str, suffix: &str) -> Vec<u8> {
        let parts = parts.iter().map(|part| match part {
            PartBytes::Bytes(bytes) => bytes.as_ref(),
            PartBytes::Url => url.as_bytes(),
            PartBytes::Secret => key,
        });
        self.alg.tag(self.keyed, key, parts.chain([suffix.as_bytes()]))
    }

    pub(super) fn covers_body(&self) -> bool {
        self.signed.covers_body()
            || (self.body_hash_query.is_some() && self.signed.parts.iter().any(|part| matches!(part, Part::Url)))
    }

    fn url_variants<'u>(&self, url: &'u str) -> Vec<Cow<'u, str>> {
        let mut variants = vec![Cow::Borrowed(url)];
        if self.url_port_variants
            && self.signed.parts.iter().any(|part| matches!(part, Part::Url))
            && let Some(other) = other_port_form(url)
        {
            variants.push(Cow::Owned(other));
        }
        variants
    }

    /// A body outside the signature must be bound to it by its hash in the signed URL.
    fn verify_body_hash(&self, evidence: &Evidence<'_>) -> Result<(), Refusal> {
        let Some(name) = self.body_hash_query.as_ref().filter(|_| !evidence.is_form()) else {
            return Ok(());
        };
        let Some(stated) = evidence.query(name) else {
            // An empty body has nothing to bind.
            return match evidence.request.body.is_empty() {
                true => Ok(()),
                false => Err(Refusal::new(
                    RefusalReason::MissingPart,
                    format!("the query parameter {name} is absent"),
                )),
            };
        };
        let stated = hex::decode(stated).unwrap_or_default();
        match bool::from(stated.ct_eq(Sha256::digest(evidence.request.body).as_slice())) {
            true => Ok(()),
            false => Err(Refusal::new(
                RefusalReason::BadSignature,
                format!("the query parameter {name} does not fit the body"),
            )),
        }
    }
}

impl Algorithm {
    /// The HMAC under `key`, or the plain digest, of all `bytes` in order.
    pub(crate) fn tag<'b>(self, keyed: bool, key: &[u8], bytes: impl Iterator<Item = &'b [u8]>) -> Vec<u8> {
        match (keyed, self) {
            (true, Self::Md5) => {
                let mut mac = Hmac::<Md5>::new_from_slice(key).expect("HMAC takes keys of every length");
                bytes.for_each(|bytes| mac.update(bytes));
                mac.finalize().into_bytes().to_vec()
            }
            (true, Self::Sha1) => {
                let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of every length");
                bytes.for_each(|bytes| mac.update(bytes));
                mac.finalize().into_bytes().to_vec()
            }
            (true, Self::Sha256) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
                bytes.for_each(|bytes| mac.update(bytes));
                mac.finalize().into_bytes().to_vec()
            }
            (true, Self::Sha512) => {
                let mut mac = Hmac::<Sha512>::new_from_slice(key).expect("HMAC takes keys of every length");
                bytes.for_each(|bytes| mac.update(bytes));
                mac.finalize().into_bytes().to_vec()
            }
            (false, Self::Md5) => bytes
                .fold(Md5::new(), |digest, bytes| digest.chain_update(bytes))
                .finalize()
                .to_vec(),
            (false, Self::Sha1) => bytes
                .fold(Sha1::new(), |digest, bytes| digest.chain_update(bytes))
                .finalize()
                .to_vec(),
            (false, Self::Sha256) => bytes
                .fold(Sha256::new(), |digest, bytes| digest.chain_update(bytes))
                .finalize()
                .to_vec(),
            (false, Self::Sha512) => bytes
                .fold(Sha512::new(), |digest, bytes| digest.chain_update(bytes))
                .finalize()
                .to_vec(),
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl Encoding {
    pub(super) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => hex::decode(text).ok(),
            Self::Base64 => BASE64.decode(text).ok(),
            Self::Base64Url => BASE64_URL.decode(text).ok(),
        }
    }

    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(bytes),
            Self::Base64 => base64::engine::general_purpose::STANDARD.encode(bytes),
            Self::Base64Url => base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

/// The URL with its default port added, or removed when it is there.
fn other_port_form(url: &str) -> Option<String> {
    let parsed = Url::parse(url).ok()?;
    let default = match parsed.scheme() {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    match authority.strip_suffix(default) {
        Some(bare) => Some(format!("{scheme}://{bare}{tail}")),
        None if parsed.port().is_none() => Some(format!("{scheme}://{authority}{default}{tail}")),
        None => None,
    }
}

impl MacCheck {
    /// The parts of a request that is being signed: timestamps and signature fields come from `fields`.
    pub(super) fn parts_for_signing<'e>(
        &'e self,
        evidence: &'e Evidence<'_>,
        fields: &'e [(String, String)],
    ) -> Result<Vec<PartBytes<'e>>, Refusal> {
        let entries = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let signature = Signature {
            entries,
            whole: Cow::Borrowed(""),
        };
        self.signed
            .parts
            .iter()
            .map(|part| part.bytes(evidence, &signature, None))
            .collect()
    }
}
