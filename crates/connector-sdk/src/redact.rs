//! Hides secrets in what people and logs see of a request: headers, URLs, bodies.
//!
//! Everything here errs on the side of hiding; a hidden value is replaced as a whole, never shortened.
//! Where it is not sure what is a name and what a value, all of it is hidden.

mod elements;
mod parts;

use std::borrow::Cow;

use serde_json::Value;

use crate::encode;

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

const SECRET_HEADERS: [&str; 12] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "x-auth-token",
    "x-access-token",
    "x-gitlab-token",
    "x-telegram-bot-api-secret-token",
    "x-shopify-access-token",
    "x-amz-security-token",
];

const SECRET_NAMES: [&str; 20] = [
    "access_token",
    "refresh_token",
    "id_token",
    "client_secret",
    "client_assertion",
    "assertion",
    "api_key",
    "apikey",
    "key",
    "token",
    "auth",
    "password",
    "passwd",
    "secret",
    "signature",
    "sig",
    "private_key",
    "x-amz-signature",
    "x-amz-credential",
    "code_verifier",
];

/// Names that are secret for one connector beside the well-known ones, lower case (from its `auth`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretNames {
    /// Header names.
    pub headers: Vec<String>,
    /// Query parameters.
    pub queries: Vec<String>,
}

/// Whether a header of that name carries a secret.
pub fn is_secret_header(name: &str, extra: &SecretNames) -> bool {
    SECRET_HEADERS.iter().any(|known| known.eq_ignore_ascii_case(name))
        || extra.headers.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether a query parameter or form field of that name carries a secret.
pub fn is_secret_query(name: &str, extra: &SecretNames) -> bool {
    SECRET_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
        || extra.queries.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The text with each of these secrets replaced; `None` when it holds none of them. Empty ones are passed over.
pub fn hide<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let held = |secret: &&str| !secret.is_empty() && text.contains(*secret);
    let mut held = secrets.into_iter().filter(held).peekable();
    held.peek()?;
    Some(held.fold(text.to_owned(), |text, secret| text.replace(secret, REDACTED)))
}

/// The headers with the values of secret ones replaced.
pub fn redact_headers(headers: &[(String, String)], extra: &SecretNames) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            (
                name.clone(),
                if is_secret_header(name, extra) {
                    REDACTED.to_owned()
                } else {
                    value.clone()
                },
            )
        })
        .collect()
}

/// The URL without user information and with the values of secret query parameters replaced.
pub fn redact_url(url: &str, extra: &SecretNames) -> String {
    let (rest, fragment) = url
        .split_once('#')
        .map_or((url, None), |(rest, fragment)| (rest, Some(fragment)));
    let (base, query) = rest
        .split_once('?')
        .map_or((rest, None), |(base, query)| (base, Some(query)));
    let mut redacted = without_user_information(base).into_owned();
    if let Some(query) = query {
        let pairs: Vec<String> = query
            .split('&')
            .map(|pair| match pair.split_once('=') {
                Some((name, _)) if is_secret_query(&encode::decode(name, true), extra) => {
                    format!("{name}={REDACTED}")
                }
                Some(_) | None => pair.to_owned(),
            })
            .collect();
        redacted.push('?');
        redacted.push_str(&pairs.join("&"));
    }
    if fragment.is_some() {
        redacted.push_str("#…");
    }
    redacted
}

fn without_user_information(base: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = base.split_once("://") else {
        return Cow::Borrowed(base);
    };
    let (authority, path) = rest
        .split_once('/')
        .map_or((rest, None), |(authority, path)| (authority, Some(path)));
    match authority.rsplit_once('@') {
        Some((_, host)) => Cow::Owned(match path {
            Some(path) => format!("{scheme}://{REDACTED}@{host}/{path}"),
            None => format!("{scheme}://{REDACTED}@{host}"),
        }),
        None => Cow::Borrowed(base),
    }
}

/// Fields whose values are hidden in bodies. Narrower than for URLs: `key` or `code` are ordinary words there.
const SECRET_FIELDS: [&str; 12] = [
    "access_token",
    "refresh_token",
    "id_token",
    "client_secret",
    "client_assertion",
    "assertion",
    "api_key",
    "apikey",
    "password",
    "passwd",
    "secret",
    "private_key",
];

/// A JSON, XML or form body, also one of several parts, with the values of secret fields replaced; other text comes back unchanged. What names a
/// secret field and cannot be read is replaced as a whole, XML from the place on where it is not well-formed.
pub fn redact_body(body: &str) -> Cow<'_, str> {
    let begin = body.trim_start_matches(|character: char| character == BYTE_ORDER_MARK || character.is_whitespace());
    if begin.starts_with('<') {
        return match mentions_secret_anywhere(body) {
            true => Cow::Owned(elements::hide(begin)),
            false => Cow::Borrowed(body),
        };
    }
    if begin.starts_with("--")
        && mentions_secret_anywhere(body)
        && let Some(hidden) = parts::hide(begin)
    {
        return Cow::Owned(hidden);
    }
    if !mentions_secret(body) {
        return Cow::Borrowed(body);
    }
    if let Ok(mut value) = serde_json::from_str::<Value>(begin) {
        hide_fields(&mut value);
        return Cow::Owned(value.to_string());
    }
    // Lines of JSON, JSON that was cut.
    if names_secret_after(body, b"\"") {
        return Cow::Borrowed(REDACTED);
    }
    let pairs: Vec<String> = begin
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret_field(&encode::decode(name, true)) => {
                format!("{name}={REDACTED}")
            }
            Some(_) | None => pair.to_owned(),
        })
        .collect();
    Cow::Owned(pairs.join("&"))
}

/// Some senders write it in front of UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Whether a field name may begin somewhere: at the start, as a quoted name, or as a part of a form.
fn mentions_secret(body: &str) -> bool {
    begins_with_secret(body.as_bytes()) || names_secret_after(body, b"\"&[B\xbf")
}

/// Whether a field name follows one of these bytes. One pass, because this runs for every recorded exchange.
fn names_secret_after(body: &str, marks: &[u8]) -> bool {
    let bytes = body.as_bytes();
    let rest = |index: usize| bytes.get(index + 1..).unwrap_or_default();
    bytes
        .iter()
        .enumerate()
        .any(|(index, byte)| marks.contains(byte) && begins_with_secret(rest(index)))
}

/// Whether a field name stands anywhere, also as a part of another word.
fn mentions_secret_anywhere(text: &str) -> bool {
    let bytes = text.as_bytes();
    (0..bytes.len()).any(|index| begins_with_secret(bytes.get(index..).unwrap_or_default()))
}

fn begins_with_secret(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| b"acirpsACIRPS".contains(first))
        && SECRET_FIELDS.iter().any(|field| {
            bytes
                .get(..field.len())
                .is_some_and(|name| name.eq_ignore_ascii_case(field.as_bytes()))
        })
}

fn is_secret_field(name: &str) -> bool {
    // `metadata[client_secret]` counts by its last part.
    let last = name.trim_end_matches(']').rsplit('[').next().unwrap_or(name);
    SECRET_FIELDS.iter().any(|known| known.eq_ignore_ascii_case(last))
}

fn hide_fields(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                if is_secret_field(name) && !value.is_null() {
                    *value = Value::String(REDACTED.to_owned());
                } else {
                    hide_fields(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
