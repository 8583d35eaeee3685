//! What a scheme may look at in a request, each thing decoded at most once and only when asked for.

use std::cell::OnceCell;

use serde_json::Value;

use super::{InboundRequest, Refusal, RefusalReason};
use crate::encode;

pub(crate) struct Evidence<'a> {
    pub(crate) request: &'a InboundRequest<'a>,
    json: OnceCell<Option<Value>>,
    form: OnceCell<Vec<(String, String)>>,
}

impl<'a> Evidence<'a> {
    pub(crate) fn new(request: &'a InboundRequest<'a>) -> Self {
        Self {
            request,
            json: OnceCell::new(),
            form: OnceCell::new(),
        }
    }

    /// Every value of a header, in order.
    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.request
            .headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The value of a header that may occur once only.
    pub(crate) fn header(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        let mut values = self.headers(name);
        let first = values.next();
        match values.next() {
            Some(_) => Err(Refusal::new(
                RefusalReason::DuplicatedHeader,
                format!("the header {name} occurs more than once"),
            )),
            None => Ok(first),
        }
    }

    /// The first query parameter of that name, decoded.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.request.url.split_once('?')?;
        let query = query.split('#').next().unwrap_or_default();
        encode::decode_pairs(query)
            .into_iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    /// The last segment of the URL's path, decoded.
    pub(crate) fn last_segment(&self) -> Option<String> {
        let path = self.request.url.split(['?', '#']).next()?;
        let (_, segment) = path.rsplit_once('/')?;
        Some(encode::decode(segment, false)).filter(|segment| !segment.is_empty())
    }

    /// The one value that the endpoint's `context` has under this name.
    pub(crate) fn context(&self, name: &str) -> Result<&'a str, Refusal> {
        match self.contexts(name)? {
            [one] => Ok(one),
            _ => Err(Refusal::new(
                RefusalReason::MissingContext,
                format!("the endpoint has several values under `context.{name}`, and one is needed"),
            )),
        }
    }

    /// All values that the endpoint's `context` has under this name.
    pub(crate) fn contexts(&self, name: &str) -> Result<&'a [String], Refusal> {
        match self.request.registration.get(name) {
            Some(values) if !values.is_empty() => Ok(values),
            Some(_) | None => Err(Refusal::new(
                RefusalReason::MissingContext,
                format!("the endpoint has no `context.{name}`"),
            )),
        }
    }

    pub(crate) fn json(&self) -> Option<&Value> {
        self.json
            .get_or_init(|| serde_json::from_slice(self.request.body).ok())
            .as_ref()
    }

    /// The fields of a form body.
    pub(crate) fn form(&self) -> &[(String, String)] {
        self.form
            .get_or_init(|| encode::decode_pairs(&String::from_utf8_lossy(self.request.body)))
    }

    pub(crate) fn is_form(&self) -> bool {
        is_form(self.headers("content-type").next())
    }
}

/// Whether a content type is a URL-encoded form.
pub(crate) fn is_form(content_type: Option<&str>) -> bool {
    content_type
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
}
