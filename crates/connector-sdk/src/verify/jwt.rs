//! Signed tokens (RFC 7519) as proof: who made them, for whom, until when, and if the scheme says so, for which body.
//!
//! The permitted algorithms are a closed list in the manifest, and a list holds either algorithms with public keys or
//! algorithms with a shared secret, so that no token can have a public key taken for a secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::SecretString;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::allowed::Allowed;
use super::evidence::Evidence;
use super::key_documents::{KeyDocuments, Unverified, WantedDocument};
use super::mac::{KeyStep, derive_key};
use super::{Refusal, RefusalReason};
use crate::pointer::Pointer;

/// Longest token that is looked at, in bytes.
///
/// Limit: signed token (JWT) in a request | 401, `malformed_signature` | `signatures_are_looked_for_within_bounds` | `weir_webhooks_refused_total`
const MAX_TOKEN_BYTES: usize = 16_384;

/// Most tokens in one body.
///
/// Limit: signed tokens in one request | 401, `malformed_signature` | `signatures_are_looked_for_within_bounds` | `weir_webhooks_refused_total`
const MAX_TOKENS: usize = 32;

#[derive(Debug)]
pub(super) struct JwtCheck {
    pub(super) token: TokenSource,
    pub(super) algs: Vec<Algorithm>,
    pub(super) keys: JwtKeys,
    pub(super) issuer: Option<Allowed>,
    pub(super) audience: Option<Allowed>,
    pub(super) claims: Vec<(String, Allowed)>,
    pub(super) leeway_s: u64,
    /// Greatest age by `iat`; without it `exp` is needed.
    pub(super) max_age_s: Option<u64>,
    pub(super) body_hash_claim: Option<String>,
}

#[derive(Debug)]
pub(super) enum TokenSource {
    Bearer,
    Header(String),
    /// One or, with `*`, several; every one must be good.
    Json(Pointer),
}

#[derive(Debug)]
pub(super) enum JwtKeys {
    /// A JSON Web Key Set (RFC 7517) at this URL.
    Jwks(String),
    /// The endpoint's secrets.
    Secrets(Vec<KeyStep>),
}

/// A token, taken apart but not believed.
struct Token<'t> {
    alg: Algorithm,
    kid: Option<String>,
    claims: Map<String, Value>,
    message: &'t str,
    signature: &'t str,
}

impl JwtCheck {
    pub(super) fn verify(
        &self,
        evidence: &Evidence<'_>,
        secrets: &[SecretString],
        documents: &KeyDocuments,
        now_unix_ms: i64,
    ) -> Result<(), Unverified> {
        let tokens = self.tokens(evidence)?;
        let tokens = tokens
            .iter()
            .map(|text| self.take_apart(text))
            .collect::<Result<Vec<_>, _>>()?;
        for token in &tokens {
            self.judge_claims(&token.claims, evidence, now_unix_ms)?;
        }
        for token in &tokens {
            match &self.keys {
                JwtKeys::Secrets(steps) => verify_with_secrets(token, steps, secrets)?,
                JwtKeys::Jwks(url) => verify_with_set(token, url, documents)?,
            }
        }
        Ok(())
    }

    fn tokens<'e>(&self, evidence: &'e Evidence<'_>) -> Result<Vec<&'e str>, Refusal> {
        let missing = |detail: String| Refusal::new(RefusalReason::MissingSignature, detail);
        let tokens = match &self.token {
            TokenSource::Bearer => {
                let header = evidence
                    .header("authorization")?
                    .ok_or_else(|| missing("the header authorization is absent".to_owned()))?;
                let (scheme, token) = header.split_once(' ').unwrap_or_default();
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(malformed("the header authorization holds no bearer token"));
                }
                vec![token.trim()]
            }
            TokenSource::Header(name) => {
                let header = evidence.header(name)?;
                vec![header.ok_or_else(|| missing(format!("the header {name} is absent")))?]
            }
            TokenSource::Json(pointer) => {
                let found = evidence
                    .json()
                    .and_then(|body| pointer.expand(body))
                    .unwrap_or_default();
                let texts: Option<Vec<&str>> = found.iter().map(|(_, value)| value.as_str()).collect();
                texts
                    .filter(|texts| !texts.is_empty())
                    .ok_or_else(|| missing("the body holds no token".to_owned()))?
            }
        };
        if tokens.len() > MAX_TOKENS || tokens.iter().any(|token| token.len() > MAX_TOKEN_BYTES) {
            return Err(malformed("there are more or longer tokens than are looked at"));
        }
        Ok(tokens)
    }

    fn take_apart<'t>(&self, text: &'t str) -> Result<Token<'t>, Refusal> {
        let not_one = || malformed("the token is not a JSON Web Token");
        let (message, signature) = text.rsplit_once('.').ok_or_else(not_one)?;
        let (header, payload) = message.split_once('.').ok_or_else(not_one)?;
        let object = |part: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
            serde_json::from_slice::<Map<String, Value>>(&bytes).ok()
        };
        let header = object(header).ok_or_else(not_one)?;
        let claims = object(payload).ok_or_else(not_one)?;
        let alg: Option<Algorithm> = header
            .get("alg")
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok());
        let alg = alg.filter(|alg| self.algs.contains(alg)).ok_or_else(|| {
            Refusal::new(
                RefusalReason::AlgorithmNotAllowed,
                "the token is signed in a way that the scheme does not permit",
            )
        })?;
        if header.contains_key("crit") {
            return Err(malformed("the token wants something that is not understood (crit)"));
        }
        Ok(Token {
            alg,
            kid: header.get("kid").and_then(Value::as_str).map(str::to_owned),
            claims,
            message,
            signature,
        })
    }

    fn judge_claims(
        &self,
        claims: &Map<String, Value>,
        evidence: &Evidence<'_>,
        now_unix_ms: i64,
    ) -> Result<(), Refusal> {
        self.judge_times(claims, now_unix_ms.div_euclid(1_000))?;
        let named = [("iss", &self.issuer), ("aud", &self.audience)];
        for (name, allowed) in named {
            if let Some(allowed) = allowed {
                allowed.judge(evidence, claims.get(name), &format!("the token's `{name}`"))?;
            }
        }
        for (name, allowed) in &self.claims {
            allowed.judge(evidence, claims.get(name), &format!("the token's `{name}`"))?;
        }
        let Some(name) = &self.body_hash_claim else {
            return Ok(());
        };
        let stated = claims.get(name).and_then(Value::as_str).unwrap_or_default();
        let stated = hex::decode(stated).unwrap_or_default();
        match bool::from(stated.ct_eq(Sha256::digest(evidence.request.body).as_slice())) {
            true => Ok(()),
            false => Err(Refusal::new(
                RefusalReason::BadSignature,
                format!("the token's `{name}` does not fit the body"),
            )),
        }
    }

    fn judge_times(&self, claims: &Map<String, Value>, now_s: i64) -> Result<(), Refusal> {
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            // Seconds, and some signers write fractions of them.
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a time beyond all times is the last or the first"
            )]
            Some(Value::Number(number)) => Ok(number.as_f64().map(|seconds| seconds as i64)),
            Some(_) => Err(Refusal::new(
                RefusalReason::MalformedTimestamp,
                format!("the token's `{name}` is not a time"),
            )),
        };
        let leeway_s = i64::try_from(self.leeway_s).unwrap_or(i64::MAX);
        let (exp, nbf, iat) = (time("exp")?, time("nbf")?, time("iat")?);
        let absent = |name: &str| {
            Refusal::new(
                RefusalReason::MalformedTimestamp,
                format!("the token has no `{name}`, so it would hold for ever"),
            )
        };
        let over = |detail: String| Refusal::new(RefusalReason::StaleTimestamp, detail);
        match (exp, self.max_age_s) {
            (Some(exp), _) if now_s > exp.saturating_add(leeway_s) => {
                return Err(over(format!("the token ended {} s ago", now_s.saturating_sub(exp))));
            }
            (None, None) => return Err(absent("exp")),
            (Some(_), _) | (None, Some(_)) => {}
        }
        if let Some(max_age_s) = self.max_age_s {
            let age_s = now_s.saturating_sub(iat.ok_or_else(|| absent("iat"))?);
            if age_s > i64::try_from(max_age_s).unwrap_or(i64::MAX) {
                return Err(over(format!("the token is {age_s} s old, {max_age_s} s are allowed")));
            }
        }
        let ahead = nbf.max(iat).map_or(0, |begin| begin.saturating_sub(now_s));
        match ahead > leeway_s {
            true => Err(Refusal::new(
                RefusalReason::FutureTimestamp,
                format!("the token begins in {ahead} s, {leeway_s} s are allowed"),
            )),
            false => Ok(()),
        }
    }
}

fn malformed(detail: &str) -> Refusal {
    Refusal::new(RefusalReason::MalformedSignature, detail)
}

fn bad() -> Refusal {
    Refusal::new(
        RefusalReason::BadSignature,
        "the token's signature does not fit under any known key",
    )
}

fn fits(token: &Token<'_>, key: &DecodingKey) -> bool {
    jsonwebtoken::crypto::verify(token.signature, token.message.as_bytes(), key, token.alg).unwrap_or(false)
}

fn verify_with_secrets(token: &Token<'_>, steps: &[KeyStep], secrets: &[SecretString]) -> Result<(), Unverified> {
    let keys: Vec<Vec<u8>> = secrets.iter().filter_map(|secret| derive_key(steps, secret)).collect();
    if keys.is_empty() {
        return Err(Refusal::new(
            RefusalReason::UnusableSecret,
            "no configured secret has the form that the scheme needs",
        )
        .into());
    }
    match keys.iter().any(|key| fits(token, &DecodingKey::from_secret(key))) {
        true => Ok(()),
        false => Err(bad().into()),
    }
}

fn verify_with_set(token: &Token<'_>, url: &str, documents: &KeyDocuments) -> Result<(), Unverified> {
    let (body, final_word) = documents.get(url)?;
    // Keys of a kind that is not known here are passed over instead of spoiling the set.
    let set: Option<Value> = serde_json::from_slice(body).ok();
    let keys = set.as_ref().and_then(|set| set.get("keys")).and_then(Value::as_array);
    let keys = keys.ok_or_else(|| Refusal::new(RefusalReason::KeysUnavailable, format!("{url} is not a key set")))?;
    let set = JwkSet {
        keys: keys
            .iter()
            .filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok())
            .collect(),
    };
    let named = |key: &&Jwk| token.kid.is_none() || key.common.key_id == token.kid;
    let mut candidates = set.keys.iter().filter(named).peekable();
    if candidates.peek().is_none() {
        return Err(match final_word {
            true => Refusal::new(RefusalReason::UnknownKey, "the key of the token is not in the key set").into(),
            false => Unverified::Wants(WantedDocument {
                url: url.to_owned(),
                newer: true,
            }),
        });
    }
    let mut usable = candidates.filter_map(|key| DecodingKey::from_jwk(key).ok());
    match usable.any(|key| fits(token, &key)) {
        true => Ok(()),
        false => Err(bad().into()),
    }
}
