//! The `hmac` and `digest` blocks: what is signed, with which key, and how the header is put together.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::{Signature, SignerError, Unsigned};
use crate::clock::iso;

/// Characters whose percent-codes `url_decoded` undoes when the scheme names none.
const URL_DECODED_DEFAULT: &str = ":/?@!$'()*,;";

/// An `hmac` or `digest` block.
#[derive(Clone, Debug)]
pub(super) struct MacScheme {
    keyed: bool,
    algorithm: Algorithm,
    /// Header of the signature, lower case.
    header: String,
    item: Option<String>,
    assign: Option<String>,
    name: Option<String>,
    encoding: Encoding,
    key: Vec<String>,
    parts: Vec<String>,
    timestamp: Option<(String, Unit)>,
}

#[derive(Clone, Copy, Debug)]
enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Hex,
    Base64,
    Base64Url,
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Seconds,
    Milliseconds,
    Iso,
}

impl MacScheme {
    pub(super) fn parse(block: &Value, keyed: bool) -> Result<Self, SignerError> {
        let algorithm = match block["alg"].as_str() {
            Some("sha1") => Algorithm::Sha1,
            Some("sha256") => Algorithm::Sha256,
            Some("sha512") => Algorithm::Sha512,
            other => return Err(SignerError::Unsupported(other.unwrap_or("alg").to_owned())),
        };
        let encoding = match block["encoding"].as_str() {
            Some("hex") => Encoding::Hex,
            Some("base64") => Encoding::Base64,
            Some("base64url") => Encoding::Base64Url,
            other => {
                return Err(SignerError::Unsupported(other.unwrap_or("encoding").to_owned()));
            }
        };
        let place = block["sig"].as_str().ok_or(SignerError::Missing("sig"))?;
        let header = place
            .strip_prefix("header:")
            .ok_or_else(|| SignerError::Unsupported(place.to_owned()))?
            .to_lowercase();
        let format = |name: &str| block["format"][name].as_str().map(str::to_owned);
        let timestamp = match block["timestamp"]["from"].as_str() {
            None => None,
            Some(from) => {
                let unit = match block["timestamp"]["unit"].as_str() {
                    None | Some("s") => Unit::Seconds,
                    Some("ms") => Unit::Milliseconds,
                    Some("iso8601") => Unit::Iso,
                    Some(other) => return Err(SignerError::Unsupported(other.to_owned())),
                };
                Some((from.to_owned(), unit))
            }
        };
        Ok(Self {
            keyed,
            algorithm,
            header,
            item: format("item"),
            assign: format("kv"),
            name: format("name"),
            encoding,
            key: words(&block["key"])?,
            parts: words(&block["parts"])?,
            timestamp,
        })
    }

    pub(super) fn sign(
        &self,
        request: &Unsigned<'_>,
        secrets: &[String],
        signature: &mut Signature,
    ) -> Result<(), SignerError> {
        let now = match self.timestamp {
            Some((_, unit)) => unit.render(request.now_unix_ms),
            None => Unit::Seconds.render(request.now_unix_ms),
        };
        // Headers that the scheme signs and nobody has set: the timestamp, and the delivery's id.
        for part in &self.parts {
            let Some(name) = part.strip_prefix("header:").map(str::to_lowercase) else {
                continue;
            };
            let is_set = request
                .headers
                .iter()
                .chain(&signature.headers)
                .any(|(set, _)| *set == name);
            if is_set {
                continue;
            }
            let is_timestamp = self
                .timestamp
                .as_ref()
                .is_some_and(|(from, _)| from.to_lowercase() == format!("header:{name}"));
            let value = if is_timestamp {
                now.clone()
            } else {
                request.id.to_owned()
            };
            signature.headers.push((name, value));
        }
        let mut fields: Vec<(String, String)> = Vec::new();
        let timestamp_field = self.timestamp.as_ref().and_then(|(from, _)| from.strip_prefix("sig:"));
        if let Some(field) = timestamp_field {
            fields.push((field.to_owned(), now));
        }
        let used = if self.item.is_some() {
            secrets
        } else {
            secrets.get(..1).unwrap_or_default()
        };
        let mut signatures = Vec::with_capacity(used.len());
        for secret in used {
            let message = self.message(request, &signature.headers, &fields, secret)?;
            signatures.push(self.encoding.encode(&self.mac(&self.key_bytes(secret)?, &message)));
        }
        let assign = self.assign.as_deref().unwrap_or("=");
        let value = match (&self.name, &self.item) {
            (None, _) => signatures.into_iter().next().unwrap_or_default(),
            (Some(name), item) => {
                let entries: Vec<String> = fields
                    .iter()
                    .map(|(field, value)| format!("{field}{assign}{value}"))
                    .chain(signatures.iter().map(|signature| format!("{name}{assign}{signature}")))
                    .collect();
                entries.join(item.as_deref().unwrap_or(","))
            }
        };
        signature.headers.push((self.header.clone(), value));
        Ok(())
    }

    fn message(
        &self,
        request: &Unsigned<'_>,
        added: &[(String, String)],
        fields: &[(String, String)],
        secret: &str,
    ) -> Result<Vec<u8>, SignerError> {
        let mut message = Vec::with_capacity(request.body.len() + 128);
        for part in &self.parts {
            let (kind, rest) = part.split_once(':').unwrap_or((part.as_str(), ""));
            match kind {
                "body" => message.extend_from_slice(request.body),
                "lit" => message.extend_from_slice(rest.as_bytes()),
                "method" => message.extend_from_slice(request.method.as_bytes()),
                "url" => message.extend_from_slice(request.url.as_bytes()),
                "secret" => message.extend_from_slice(secret.as_bytes()),
                "header" => {
                    let name = rest.to_lowercase();
                    let found = request.headers.iter().chain(added).find(|(set, _)| *set == name);
                    message.extend_from_slice(found.ok_or_else(|| SignerError::Part(part.clone()))?.1.as_bytes());
                }
                "sig" => {
                    let found = fields.iter().find(|(field, _)| field == rest);
                    message.extend_from_slice(found.ok_or_else(|| SignerError::Part(part.clone()))?.1.as_bytes());
                }
                "url_decoded" => {
                    let set = if rest.is_empty() { URL_DECODED_DEFAULT } else { rest };
                    message.extend_from_slice(decode_some(request.url, set).as_bytes());
                }
                _ => return Err(SignerError::Unsupported(part.clone())),
            }
        }
        Ok(message)
    }

    fn key_bytes(&self, secret: &str) -> Result<Vec<u8>, SignerError> {
        let mut bytes = secret.as_bytes().to_vec();
        for step in &self.key {
            bytes = match step.as_str() {
                "base64" => STANDARD
                    .decode(&bytes)
                    .map_err(|_cause| SignerError::Secret("not base64"))?,
                "hex" => hex::decode(&bytes).map_err(|_cause| SignerError::Secret("not hex"))?,
                "sha1" => Sha1::digest(&bytes).to_vec(),
                _ => match step.strip_prefix("strip:") {
                    Some(prefix) => bytes
                        .strip_prefix(prefix.as_bytes())
                        .map_or_else(|| bytes.clone(), <[u8]>::to_vec),
                    None => return Err(SignerError::Unsupported(step.clone())),
                },
            };
        }
        Ok(bytes)
    }

    fn mac(&self, key: &[u8], message: &[u8]) -> Vec<u8> {
        match (self.keyed, self.algorithm) {
            (true, Algorithm::Sha1) => keyed::<Hmac<Sha1>>(key, message),
            (true, Algorithm::Sha256) => keyed::<Hmac<Sha256>>(key, message),
            (true, Algorithm::Sha512) => keyed::<Hmac<Sha512>>(key, message),
            (false, Algorithm::Sha1) => Sha1::digest(message).to_vec(),
            (false, Algorithm::Sha256) => Sha256::digest(message).to_vec(),
            (false, Algorithm::Sha512) => Sha512::digest(message).to_vec(),
        }
    }
}

fn keyed<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

impl Encoding {
    fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(bytes),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

impl Unit {
    fn render(self, unix_ms: i64) -> String {
        match self {
            Self::Seconds => (unix_ms / 1000).to_string(),
            Self::Milliseconds => unix_ms.to_string(),
            Self::Iso => iso(unix_ms),
        }
    }
}

/// A list of words; the mapping `{ url_decoded: SET }` becomes `url_decoded:SET`.
fn words(value: &Value) -> Result<Vec<String>, SignerError> {
    let word = |item: &Value| match (item.as_str(), item["url_decoded"].as_str()) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, Some(set)) => Ok(format!("url_decoded:{set}")),
        (None, None) => Err(SignerError::Unsupported(item.to_string())),
    };
    value.as_array().into_iter().flatten().map(word).collect()
}

/// The URL with percent-codes of the characters in `set` undone, and no others.
fn decode_some(url: &str, set: &str) -> String {
    let mut decoded = url.to_owned();
    for character in set
        .chars()
        .filter(|character| character.is_ascii() && !character.is_whitespace())
    {
        let code = format!("%{:02X}", u32::from(character));
        decoded = decoded.replace(&code, &character.to_string());
        decoded = decoded.replace(&code.to_lowercase(), &character.to_string());
    }
    decoded
}
