//! Hides secrets in what people and logs see of a request: headers, URLs, bodies.
//!
//! Everything here errs on the side of hiding; a hidden value is replaced as a whole, never shortened.

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

/// A JSON, XML or form body with the values of secret fields replaced; other text comes back unchanged.
pub fn redact_body(body: &str) -> Cow<'_, str> {
    if body.trim_start().starts_with('<') {
        return hide_elements(body);
    }
    if !mentions_secret(body) {
        return Cow::Borrowed(body);
    }
    if let Ok(mut value) = serde_json::from_str::<Value>(body) {
        hide_fields(&mut value);
        return Cow::Owned(value.to_string());
    }
    let pairs: Vec<String> = body
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

/// One pass over the places where a field name can begin, because this runs for every recorded exchange.
fn mentions_secret(body: &str) -> bool {
    let bytes = body.as_bytes();
    let begins = |start: usize| {
        let rest = bytes.get(start..).unwrap_or_default();
        rest.first().is_some_and(|first| b"acirpsACIRPS".contains(first))
            && SECRET_FIELDS.iter().any(|field| {
                rest.get(..field.len())
                    .is_some_and(|name| name.eq_ignore_ascii_case(field.as_bytes()))
            })
    };
    begins(0)
        || bytes
            .iter()
            .enumerate()
            .any(|(index, byte)| matches!(byte, b'"' | b'&' | b'[' | b'B') && begins(index + 1))
}

fn is_secret_field(name: &str) -> bool {
    // `metadata[client_secret]` counts by its last part.
    let last = name.trim_end_matches(']').rsplit('[').next().unwrap_or(name);
    SECRET_FIELDS.iter().any(|known| known.eq_ignore_ascii_case(last))
}

/// Hides the text of elements that are named like secrets. It does not parse: what is kept may be broken or cut.
fn hide_elements(body: &str) -> Cow<'_, str> {
    let mut hidden = String::new();
    let mut rest = body;
    while let Some((before, after)) = rest.split_once('<') {
        let tag_bytes = after.find('>').unwrap_or(after.len());
        let (tag, content) = after.split_at(tag_bytes);
        let name = tag.split_ascii_whitespace().next().unwrap_or_default();
        let name = name.rsplit(':').next().unwrap_or_default();
        hidden.push_str(before);
        hidden.push('<');
        hide_attributes(&mut hidden, tag);
        rest = content;
        if is_secret_field(name) && !tag.starts_with('/') && !tag.ends_with('/') && !content.is_empty() {
            hidden.push('>');
            hidden.push_str(REDACTED);
            rest = content.find("</").map_or("", |end| content.split_at(end).1);
        }
    }
    hidden.push_str(rest);
    Cow::Owned(hidden)
}

fn hide_attributes(hidden: &mut String, tag: &str) {
    let mut rest = tag;
    while let Some((before, after)) = rest.split_once('=') {
        let name = before
            .trim_end()
            .rsplit([' ', '\t', '\n', '\r', ':'])
            .next()
            .unwrap_or_default();
        hidden.push_str(before);
        hidden.push('=');
        rest = after;
        let value = after.trim_start();
        let quoted = value.chars().next().filter(|quote| matches!(quote, '"' | '\''));
        if let Some(quote) = quoted
            && let Some((value, after)) = value.split_at(1).1.split_once(quote)
        {
            hidden.push(quote);
            hidden.push_str(if is_secret_field(name) { REDACTED } else { value });
            hidden.push(quote);
            rest = after;
        }
    }
    hidden.push_str(rest);
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
