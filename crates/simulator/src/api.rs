//! One request to a fake provider and its answer, and the form decoding that several providers share.
//!
//! Handlers here and in [`crate::provider`] are plain functions over the world: they never wait, send or
//! look at faults; the server does that around them.

use actix_web::http::header::HeaderMap;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use crate::ledger::EffectOutcome;

/// A call that arrived at a fake provider.
pub(crate) struct ApiRequest<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// The path without the leading slash, split at slashes.
    pub(crate) segments: Vec<&'a str>,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
    pub(crate) now_unix_ms: i64,
}

impl ApiRequest<'_> {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The first value of a query parameter, decoded.
    pub(crate) fn query_value(&self, name: &str) -> Option<String> {
        self.query_values(name).into_iter().next()
    }

    /// All values of a query parameter; `name`, `name[]` and `name[0]` count as the same.
    pub(crate) fn query_values(&self, name: &str) -> Vec<String> {
        if self.query.is_empty() {
            return Vec::new();
        }
        form_urlencoded::parse(self.query.as_bytes())
            .filter(|(key, _)| {
                key.strip_prefix(name).is_some_and(|rest| {
                    rest.is_empty()
                        || rest
                            .strip_prefix('[')
                            .and_then(|rest| rest.strip_suffix(']'))
                            .is_some_and(|index| index.bytes().all(|byte| byte.is_ascii_digit()))
                })
            })
            .map(|(_, value)| value.into_owned())
            .collect()
    }

    /// A whole number from the query.
    pub(crate) fn query_number(&self, name: &str) -> Option<usize> {
        self.query_value(name)?.parse().ok()
    }

    /// The JSON body; `None` when it is none.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(self.body).ok()
    }

    /// The bracket form body (`a[b][0]=x`) as nested JSON; every leaf is a string.
    pub(crate) fn form(&self) -> Value {
        bracket_form(self.body)
    }

    /// The token of `Authorization: Bearer …`.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let value = self.header("authorization")?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }
}

/// What a fake provider answers.
#[derive(Debug)]
pub(crate) struct ApiAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// Set by handlers that changed something, or refused to.
    pub(crate) effect: Option<AnsweredEffect>,
}

/// The effect behind an answer.
#[derive(Debug)]
pub(crate) struct AnsweredEffect {
    /// Business identity; the body's digest stands in for it when `None`.
    pub(crate) identity: Option<String>,
    pub(crate) outcome: EffectOutcome,
}

impl ApiAnswer {
    /// An answer with a JSON body.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, body.to_string())
    }

    /// An answer whose JSON is already rendered.
    pub(crate) fn text(status: u16, body: String) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::from(body),
            effect: None,
        }
    }

    /// An answer without a body.
    pub(crate) fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            effect: None,
        }
    }

    /// Marks the answer as that of a state change.
    pub(crate) fn done(mut self, identity: Option<String>) -> Self {
        self.effect = Some(AnsweredEffect {
            identity,
            outcome: EffectOutcome::Done,
        });
        self
    }

    /// Marks the answer with any outcome.
    pub(crate) fn with_outcome(mut self, identity: Option<String>, outcome: EffectOutcome) -> Self {
        self.effect = Some(AnsweredEffect { identity, outcome });
        self
    }

    /// Adds a header.
    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Decodes a bracket form into nested JSON: `a[b]=x` makes objects, `a[0]` and `a[]` make lists.
pub(crate) fn bracket_form(body: &[u8]) -> Value {
    let mut root = Value::Object(Map::new());
    for (key, value) in form_urlencoded::parse(body) {
        let mut parts = key.split('[').map(|part| part.strip_suffix(']').unwrap_or(part));
        let Some(first) = parts.next() else { continue };
        let mut path = vec![first.to_owned()];
        path.extend(parts.map(str::to_owned));
        insert(&mut root, &path, value.into_owned());
    }
    root
}

fn insert(target: &mut Value, path: &[String], leaf: String) {
    let Some((head, rest)) = path.split_first() else {
        *target = Value::String(leaf);
        return;
    };
    let index: Option<usize> = if head.is_empty() {
        Some(usize::MAX)
    } else {
        head.parse().ok()
    };
    if let Some(index) = index {
        if !target.is_array() {
            *target = json!([]);
        }
        let Value::Array(items) = target else { return };
        let index = index.min(items.len());
        if index == items.len() {
            items.push(Value::Null);
        }
        insert(&mut items[index], rest, leaf);
        return;
    }
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(fields) = target else {
        return;
    };
    insert(fields.entry(head.clone()).or_insert(Value::Null), rest, leaf);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bracket_forms() {
        let form = b"customer=cus_1&metadata[deal_id]=42&items[0][price]=p1&items[0][quantity]=2&items[1][price]=p2&expand[]=a&expand[]=b";
        assert_eq!(
            bracket_form(form),
            json!({
                "customer": "cus_1",
                "metadata": { "deal_id": "42" },
                "items": [{ "price": "p1", "quantity": "2" }, { "price": "p2" }],
                "expand": ["a", "b"],
            })
        );
        assert_eq!(bracket_form(b"a%5Bb%5D=x%26y"), json!({ "a": { "b": "x&y" } }));
    }
}
