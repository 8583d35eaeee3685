//! Signs webhooks from the same data that verifies them.
//!
//! A signer reads the `verify` block of a connector's manifest and produces the headers that satisfy it.
//! There is no function per provider, and nothing here is shared with the verifier's code: the two are
//! written apart, so each tests the other. It knows what a sender needs: `hmac` and `digest` in every
//! form of the vocabulary, `token`, `basic`, and `any_of` (the first branch that can be signed) and
//! `all_of`. Public-key schemes need a private key that no manifest holds, and are refused.

mod mac;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use thiserror::Error;
use url::Url;

use mac::MacScheme;

/// What is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    /// HTTP method, upper case.
    pub method: &'a str,
    /// The full URL as the receiver knows it.
    pub url: &'a str,
    /// Headers set so far, lower case; parts of the signature are taken from here first.
    pub headers: &'a [(String, String)],
    /// The exact body.
    pub body: &'a [u8],
    /// The delivery's id, for schemes that sign one and find no header for it.
    pub id: &'a str,
    /// The moment of signing, milliseconds since the Unix epoch.
    pub now_unix_ms: i64,
}

/// What a signature adds to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// Headers, lower case.
    pub headers: Vec<(String, String)>,
    /// Query parameters.
    pub query: Vec<(String, String)>,
}

/// Why something cannot be signed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SignerError {
    /// The manifest is not readable.
    #[error("the manifest of `{0}` cannot be read")]
    Manifest(String),
    /// There is no such connector, or it has no default scheme and needs the endpoint's.
    #[error("connector `{0}` names no scheme to sign with; give one")]
    NoScheme(String),
    /// A scheme or a word of it that a sender cannot do.
    #[error("cannot sign with `{0}`")]
    Unsupported(String),
    /// A word is missing.
    #[error("`{0}` is missing in the scheme")]
    Missing(&'static str),
    /// The secret has not the form that the scheme asks for.
    #[error("the secret does not fit the scheme: {0}")]
    Secret(&'static str),
    /// A part of the request that the scheme signs is not there.
    #[error("the request has no `{0}`, which the scheme signs")]
    Part(String),
}

/// A scheme to sign with.
#[derive(Clone, Debug)]
pub struct Signer {
    scheme: Scheme,
}

#[derive(Clone, Debug)]
enum Scheme {
    Mac(Box<MacScheme>),
    Token { place: String, prefix: String },
    Basic,
    All(Vec<Scheme>),
}

impl Signer {
    /// The signer of a built-in connector.
    ///
    /// # Errors
    /// [`SignerError`] when there is no such connector, or its manifest leaves the scheme to the endpoint.
    pub fn for_connector(name: &str) -> Result<Self, SignerError> {
        let builtin = weir_connectors::builtin().iter().find(|builtin| builtin.name == name);
        let builtin = builtin.ok_or_else(|| SignerError::NoScheme(name.to_owned()))?;
        Self::from_manifest(name, builtin.yaml)
    }

    /// The signer of a connector whose manifest is at hand.
    ///
    /// # Errors
    /// [`SignerError`] when the manifest is no YAML or has no usable `webhook.verify`.
    pub fn from_manifest(name: &str, yaml: &str) -> Result<Self, SignerError> {
        let documents =
            weir_connector_sdk::parse_yaml(yaml).map_err(|_cause| SignerError::Manifest(name.to_owned()))?;
        let manifest = documents
            .first()
            .ok_or_else(|| SignerError::Manifest(name.to_owned()))?;
        let verify = manifest
            .value
            .pointer("/webhook/verify")
            .ok_or_else(|| SignerError::NoScheme(name.to_owned()))?;
        Self::from_verify(verify)
    }

    /// The signer of a `verify` block.
    ///
    /// # Errors
    /// [`SignerError`] when the block has a word that a sender cannot do.
    pub fn from_verify(verify: &Value) -> Result<Self, SignerError> {
        Ok(Self {
            scheme: Scheme::parse(verify)?,
        })
    }

    /// Signs a request. With several secrets, schemes whose header holds a list carry one signature of
    /// each, as during a rotation; others use the first.
    ///
    /// # Errors
    /// [`SignerError`] when a secret does not fit, or a signed part is not there.
    pub fn sign(&self, request: &Unsigned<'_>, secrets: &[String]) -> Result<Signature, SignerError> {
        let mut signature = Signature::default();
        self.scheme.sign(request, secrets, &mut signature)?;
        Ok(signature)
    }
}

impl Scheme {
    fn parse(verify: &Value) -> Result<Self, SignerError> {
        let Value::Object(fields) = verify else {
            return Err(SignerError::Missing("a scheme"));
        };
        let kinds = ["hmac", "digest", "token", "basic", "any_of", "all_of"];
        let Some(kind) = kinds.into_iter().find(|kind| fields.contains_key(*kind)) else {
            let found = fields.keys().next().cloned().unwrap_or_default();
            return Err(SignerError::Unsupported(found));
        };
        let block = &fields[kind];
        match kind {
            "hmac" => Ok(Self::Mac(Box::new(MacScheme::parse(block, true)?))),
            "digest" => Ok(Self::Mac(Box::new(MacScheme::parse(block, false)?))),
            "token" => {
                let place = block["at"].as_str().ok_or(SignerError::Missing("at"))?;
                let known = place.starts_with("header:") || place.starts_with("query:");
                let prefix = block["prefix"].as_str().unwrap_or_default().to_owned();
                if known {
                    Ok(Self::Token {
                        place: place.to_owned(),
                        prefix,
                    })
                } else {
                    Err(SignerError::Unsupported(place.to_owned()))
                }
            }
            "basic" => Ok(Self::Basic),
            "all_of" => {
                let branches = block.as_array().ok_or(SignerError::Missing("branches"))?;
                Ok(Self::All(branches.iter().map(Self::parse).collect::<Result<_, _>>()?))
            }
            _ => {
                let branches = block.as_array().ok_or(SignerError::Missing("branches"))?;
                let mut refusal = SignerError::Missing("branches");
                for branch in branches {
                    match Self::parse(branch) {
                        Ok(scheme) => return Ok(scheme),
                        Err(error) => refusal = error,
                    }
                }
                Err(refusal)
            }
        }
    }

    fn sign(&self, request: &Unsigned<'_>, secrets: &[String], signature: &mut Signature) -> Result<(), SignerError> {
        let secret = secrets.first().ok_or(SignerError::Secret("there is none"))?;
        match self {
            Self::Mac(mac) => mac.sign(request, secrets, signature),
            Self::Token { place, prefix } => {
                let token = format!("{prefix}{secret}");
                match place.split_once(':') {
                    Some(("query", name)) => signature.query.push((name.to_owned(), token)),
                    Some((_, name)) => signature.headers.push((name.to_lowercase(), token)),
                    None => return Err(SignerError::Unsupported(place.clone())),
                }
                Ok(())
            }
            Self::Basic => {
                if !secret.contains(':') {
                    return Err(SignerError::Secret("Basic needs user:password"));
                }
                signature
                    .headers
                    .push(("authorization".to_owned(), format!("Basic {}", STANDARD.encode(secret))));
                Ok(())
            }
            Self::All(schemes) => schemes
                .iter()
                .try_for_each(|scheme| scheme.sign(request, secrets, signature)),
        }
    }
}

/// The URL with a signature's query parameters.
pub(crate) fn with_query(url: &str, query: &[(String, String)]) -> String {
    if query.is_empty() {
        return url.to_owned();
    }
    match Url::parse(url) {
        Ok(mut parsed) => {
            parsed.query_pairs_mut().extend_pairs(query);
            parsed.into()
        }
        Err(_) => url.to_owned(),
    }
}
