//! The other direction: signing a request so that the same scheme accepts it. For simulators and tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};

use super::evidence::Evidence;
use super::mac::MacCheck;
use super::parts::{Source, TimeUnit};
use super::simple::TokenPlace;
use super::{Check, InboundRequest, Verifier};

/// Why a request could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SignError(String);

impl Verifier {
    /// The headers (lower-case names) which, added to `draft`, make [`Verifier::verify`] accept it with `secret` at `now_unix_ms`.
    /// Headers that the scheme signs and the draft already has are used as they are.
    ///
    /// # Errors
    /// [`SignError`] when the scheme puts its signature into the body or the URL, or signs a header that the draft lacks.
    pub fn sign(
        &self,
        draft: &InboundRequest<'_>,
        secret: &SecretString,
        now_unix_ms: i64,
    ) -> Result<Vec<(String, String)>, SignError> {
        let mut headers = Vec::new();
        sign(&self.check, draft, secret, now_unix_ms, &mut headers)?;
        Ok(headers)
    }
}

fn sign(
    check: &Check,
    draft: &InboundRequest<'_>,
    secret: &SecretString,
    now_unix_ms: i64,
    headers: &mut Vec<(String, String)>,
) -> Result<(), SignError> {
    match check {
        Check::Mac(check) => sign_mac(check, draft, secret, now_unix_ms, headers),
        Check::Token(check) => match &check.at {
            TokenPlace::Header(name) => {
                headers.push((name.clone(), format!("{}{}", check.prefix, secret.expose_secret())));
                Ok(())
            }
            TokenPlace::Query(_) | TokenPlace::Path | TokenPlace::Json(_) | TokenPlace::Each { .. } => {
                Err(SignError("the token does not stand in a header".to_owned()))
            }
        },
        Check::Basic => {
            headers.push((
                "authorization".to_owned(),
                format!("Basic {}", STANDARD.encode(secret.expose_secret())),
            ));
            Ok(())
        }
        Check::Ip(_) => Ok(()),
        Check::PublicKey(_) | Check::Certificate(_) | Check::Jwt(_) => Err(SignError(
            "only the sender, who has the private key, can sign such requests".to_owned(),
        )),
        Check::AnyOf(checks) => {
            let evidence = Evidence::new(draft);
            // The first alternative that applies as the draft stands, or else the first that can be signed.
            let (first, then): (Vec<_>, Vec<_>) = checks.iter().partition(|guarded| guarded.applies(&evidence));
            let mut result = Err(SignError("no alternative can be signed".to_owned()));
            for guarded in first.into_iter().chain(then) {
                let mut own = Vec::new();
                result = sign(&guarded.check, draft, secret, now_unix_ms, &mut own);
                if result.is_ok() {
                    headers.extend(own);
                    break;
                }
            }
            result
        }
        Check::AllOf(checks) => checks
            .iter()
            .try_for_each(|guarded| sign(&guarded.check, draft, secret, now_unix_ms, headers)),
    }
}

fn sign_mac(
    check: &MacCheck,
    draft: &InboundRequest<'_>,
    secret: &SecretString,
    now_unix_ms: i64,
    headers: &mut Vec<(String, String)>,
) -> Result<(), SignError> {
    let Source::Header(signature_header) = &check.signed.sig else {
        return Err(SignError("the signature does not stand in a header".to_owned()));
    };
    let mut all_headers = draft.headers.to_vec();
    let mut fields = Vec::new();
    if let Some(rule) = &check.signed.timestamp {
        let stamp = match rule.unit {
            TimeUnit::Seconds => now_unix_ms.div_euclid(1_000).to_string(),
            TimeUnit::Milliseconds => now_unix_ms.to_string(),
            TimeUnit::Iso8601 => chrono::DateTime::from_timestamp_millis(now_unix_ms)
                .ok_or_else(|| SignError("the time is out of range".to_owned()))?
                .to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        };
        match &rule.from {
            Source::Header(name) => {
                if !all_headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                    headers.push((name.clone(), stamp.clone()));
                    all_headers.push((name.clone(), stamp));
                }
            }
            Source::SigField(name) => fields.push((name.clone(), stamp)),
            // The body carries its own time.
            Source::Json(_) | Source::Form(_) | Source::Item(_) => {}
        }
    }
    let request = InboundRequest {
        headers: &all_headers,
        ..*draft
    };
    let evidence = Evidence::new(&request);
    let parts = check
        .parts_for_signing(&evidence, &fields)
        .map_err(|refusal| SignError(refusal.detail))?;
    let key = check
        .derive_key(secret)
        .ok_or_else(|| SignError("the secret has not the form that the scheme needs".to_owned()))?;
    let suffix = check.suffixes.first().map_or("", String::as_str);
    let text = check
        .signed
        .encoding
        .encode(&check.tag(&key, &parts, draft.url, suffix));
    let value = match &check.signed.format {
        None => text,
        Some(format) => {
            let name = format
                .name
                .read(&evidence)
                .map_err(|refusal| SignError(refusal.detail))?;
            fields.push((name.to_owned(), text));
            let entries: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}{}{value}", format.kv))
                .collect();
            entries.join(format.item.as_deref().unwrap_or(","))
        }
    };
    headers.push((signature_header.clone(), value));
    Ok(())
}
