//! Requests and answers as plain data: what the crate describes and the host sends.
//!
//! `Debug` never shows a secret: headers and URLs go through [`crate::redact`].

use std::fmt;

use crate::redact::{self, SecretNames};

/// A request description. The host adds credentials, sends it, and hands the answer back.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Upper-case method.
    pub method: String,
    /// Absolute URL, percent-encoded.
    pub url: String,
    /// Headers in sending order.
    pub headers: Vec<(String, String)>,
    /// The exact body bytes.
    pub body: Option<Vec<u8>>,
}

impl HttpRequest {
    /// Sets a header, replacing every header of that name (case-insensitive).
    pub fn set_header(&mut self, name: &str, value: impl Into<String>) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
    }

    /// The first header of that name (case-insensitive).
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &redact::redact_url(&self.url, &SecretNames::default()))
            .field(
                "headers",
                &redact::redact_headers(&self.headers, &SecretNames::default()),
            )
            .field("body_bytes", &self.body.as_ref().map(Vec::len))
            .finish()
    }
}

/// An answer as it came over the wire, decompressed.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Headers; names in any case.
    pub headers: Vec<(String, String)>,
    /// The body bytes.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// The first header of that name (case-insensitive).
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse")
            .field("status", &self.status)
            .field(
                "headers",
                &redact::redact_headers(&self.headers, &SecretNames::default()),
            )
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

fn find<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}
