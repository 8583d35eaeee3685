//! Requests that are signed: an HMAC over parts of the request, in the order that the provider states.
//!
//! Pure: the moment and the random bytes come from the host, which signs the final request right before it leaves, each
//! try anew. Nothing of it is part of what a call is: neither its key nor its digest.

use std::borrow::Cow;

use secrecy::SecretString;
use url::Url;

use super::credential::Credential;
use super::places::{Places, Which};
use super::secret_text::{Given, value_of};
use super::values::Values;
use crate::http_message::HttpRequest;
use crate::operation::BuildError;
use crate::verify::{Algorithm, Encoding, KeyStep, derive_key};

/// How requests are signed, as a manifest states it.
#[derive(Debug)]
pub struct SignedScheme {
    pub(super) values: Vec<String>,
    /// The value that is the key.
    pub(super) key: String,
    pub(super) key_form: Vec<KeyStep>,
    pub(super) alg: Algorithm,
    pub(super) encoding: Encoding,
    pub(super) parts: Vec<Part>,
    pub(super) separator: String,
    pub(super) body_hash: Option<(Algorithm, Encoding)>,
    pub(super) timestamp: Stamp,
    pub(super) nonce: Nonce,
    pub(super) places: Places,
}

/// One part of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Method,
    /// Host, with the port when it is not the scheme's own.
    Host,
    /// The path, as it is sent.
    Path,
    /// The path, and the query with its question mark when there is one.
    Target,
    /// The query as it is sent, without the question mark.
    Query,
    /// The same with its pairs in the order of their bytes.
    QuerySorted,
    Body,
    BodyHash,
    Timestamp,
    Nonce,
    Literal(String),
    Header(String),
    Value(String),
}

/// How the moment of signing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamp {
    Seconds,
    Milliseconds,
    /// `2026-11-28T06:00:00Z`
    Iso,
    /// `2026-11-28T06:00:00.000Z`
    IsoMilliseconds,
    /// `Sat, 28 Nov 2026 06:00:00 GMT` (RFC 9110 §5.6.7)
    Http,
}

/// How the random bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nonce {
    /// 32 hexadecimal digits.
    Hex,
    /// A UUID of version 4 (RFC 9562 §5.4).
    Uuid,
}

/// When a request is signed, and with what that nobody can guess.
#[derive(Debug, Clone, Copy)]
pub struct SignAt {
    /// The moment, Unix milliseconds.
    pub now_unix_ms: i64,
    /// Random bytes.
    pub nonce: [u8; 16],
}

impl SignedScheme {
    /// The names of what the credential holds.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Signs a request that is otherwise complete, and gives the signature, which no answer may show.
    ///
    /// # Errors
    /// [`BuildError`] when the credential lacks a value, its key has another form, or a signed header is absent.
    pub fn sign(
        &self,
        credential: &Credential,
        at: &SignAt,
        request: &mut HttpRequest,
    ) -> Result<SecretString, BuildError> {
        let values = credential.values()?;
        let key = self.key_of(values)?;
        let body = request.body.as_deref().unwrap_or_default();
        let mut made = Values::default();
        made.set("timestamp", self.timestamp.write(at.now_unix_ms)?);
        made.set("nonce", self.nonce.write(at.nonce));
        if let Some((alg, encoding)) = self.body_hash {
            made.set("body_hash", encoding.encode(&alg.tag(false, &[], [body].into_iter())));
        }
        // What is signed may be what this puts on the request.
        let given = Given {
            values: &[&made, values],
            settings: None,
        };
        self.places.put(request, given, Which::Without("signature"))?;
        let text = self.text(request, &made, values)?;
        let signature = self
            .encoding
            .encode(&self.alg.tag(true, &key, [text.as_slice()].into_iter()));
        made.set("signature", signature.as_str());
        let given = Given {
            values: &[&made, values],
            settings: None,
        };
        self.places.put(request, given, Which::With("signature"))?;
        Ok(signature.into())
    }

    fn key_of(&self, values: &Values) -> Result<Vec<u8>, BuildError> {
        let Some(secret) = values.get(&self.key) else {
            return Err(BuildError::new(
                "/credential",
                format!("the credential has no `{}`", self.key),
            ));
        };
        derive_key(&self.key_form, secret).ok_or_else(|| {
            let form = match self.key_form.first() {
                Some(KeyStep::Hex) => "hexadecimal",
                Some(KeyStep::Base64) => "Base64",
                Some(KeyStep::Strip(_) | KeyStep::Sha1 | KeyStep::Field(_)) | None => "a key",
            };
            BuildError::new("/credential", format!("`{}` of the credential is not {form}", self.key))
        })
    }

    /// What is signed.
    fn text(&self, request: &HttpRequest, made: &Values, values: &Values) -> Result<Vec<u8>, BuildError> {
        let url = Url::parse(&request.url).map_err(|_error| BuildError::new("", "the request has no valid URL"))?;
        let given = Given {
            values: &[made, values],
            settings: None,
        };
        let mut text = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                text.extend_from_slice(self.separator.as_bytes());
            }
            match part.of(request, &url, given)? {
                Some(part) => text.extend_from_slice(part.as_bytes()),
                None => text.extend_from_slice(request.body.as_deref().unwrap_or_default()),
            }
        }
        Ok(text)
    }
}

impl Part {
    /// The part as text; `None`: the body, which need not be text.
    fn of<'r>(
        &'r self,
        request: &'r HttpRequest,
        url: &'r Url,
        given: Given<'r>,
    ) -> Result<Option<Cow<'r, str>>, BuildError> {
        let query = url.query().unwrap_or_default();
        Ok(Some(match self {
            Self::Body => return Ok(None),
            Self::Method => Cow::Borrowed(request.method.as_str()),
            Self::Host => match (url.host_str().unwrap_or_default(), url.port()) {
                (host, Some(port)) => Cow::Owned(format!("{host}:{port}")),
                (host, None) => Cow::Borrowed(host),
            },
            Self::Path => Cow::Borrowed(url.path()),
            Self::Target => match url.query() {
                Some(query) => Cow::Owned(format!("{}?{query}", url.path())),
                None => Cow::Borrowed(url.path()),
            },
            Self::Query => Cow::Borrowed(query),
            Self::QuerySorted => {
                let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
                pairs.sort_unstable();
                Cow::Owned(pairs.join("&"))
            }
            Self::BodyHash => Cow::Borrowed(value_of("body_hash", given)?),
            Self::Timestamp => Cow::Borrowed(value_of("timestamp", given)?),
            Self::Nonce => Cow::Borrowed(value_of("nonce", given)?),
            Self::Literal(text) => Cow::Borrowed(text),
            Self::Value(name) => Cow::Borrowed(value_of(name, given)?),
            Self::Header(name) => match request.header(name) {
                Some(value) => Cow::Borrowed(value),
                None => {
                    let message = format!("the header {name} is signed, and the request has none");
                    return Err(BuildError::new("", message));
                }
            },
        }))
    }
}

impl Stamp {
    fn write(self, now_unix_ms: i64) -> Result<String, BuildError> {
        let date = |format: &str| {
            let date = chrono::DateTime::from_timestamp_millis(now_unix_ms);
            date.map(|date| date.format(format).to_string())
                .ok_or_else(|| BuildError::new("", "the moment of signing is beyond the calendar"))
        };
        match self {
            Self::Seconds => Ok(now_unix_ms.div_euclid(1_000).to_string()),
            Self::Milliseconds => Ok(now_unix_ms.to_string()),
            Self::Iso => date("%Y-%m-%dT%H:%M:%SZ"),
            Self::IsoMilliseconds => date("%Y-%m-%dT%H:%M:%S%.3fZ"),
            Self::Http => date("%a, %d %b %Y %H:%M:%S GMT"),
        }
    }
}

impl Nonce {
    fn write(self, bytes: [u8; 16]) -> String {
        match self {
            Self::Hex => hex::encode(bytes),
            Self::Uuid => {
                let mut bytes = bytes;
                bytes[6] = (bytes[6] & 0x0f) | 0x40;
                bytes[8] = (bytes[8] & 0x3f) | 0x80;
                let mut text = hex::encode(bytes);
                for place in [8, 13, 18, 23] {
                    text.insert(place, '-');
                }
                text
            }
        }
    }
}
