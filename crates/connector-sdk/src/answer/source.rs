//! Where an answer states something: in its body or in a header.

use std::borrow::Cow;

use serde_json::Value;

use crate::fields::{Fields, is_header_name};
use crate::http_message::HttpResponse;
use crate::pointer::Pointer;
use crate::problem::Problems;

/// A place in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Body(Pointer),
    Header(String),
}

impl Source {
    /// Reads the key `key`, which has to be there.
    pub(crate) fn read(fields: &Fields<'_>, key: &str, problems: &mut Problems) -> Option<Self> {
        let text = fields.required_text(key, problems)?;
        let source = Self::parse(text);
        if source.is_none() {
            problems.add_with_suggestion(
                &fields.at(key),
                "bad_pointer",
                format!("`{text}` is neither a JSON Pointer nor a header"),
                "/pointer or header:NAME",
            );
        }
        source
    }

    /// From `/pointer` or `header:NAME`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("header:") {
            Some(name) => is_header_name(name).then(|| Self::Header(name.to_owned())),
            None => Pointer::parse(text).map(Self::Body),
        }
    }

    /// What stands there; a header as text. The body is asked for only when it is looked into.
    pub(crate) fn lookup<'v>(
        &self,
        response: &HttpResponse,
        body: impl FnOnce() -> Option<&'v Value>,
    ) -> Option<Cow<'v, Value>> {
        match self {
            Self::Body(pointer) => pointer.lookup(body()?).map(Cow::Borrowed),
            Self::Header(name) => response
                .header(name)
                .map(|text| Cow::Owned(Value::String(text.trim().to_owned()))),
        }
    }

    /// The number that stands there, as a number or as text.
    pub(crate) fn number<'v>(&self, response: &HttpResponse, body: impl FnOnce() -> Option<&'v Value>) -> Option<f64> {
        match self.lookup(response, body)?.as_ref() {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}
