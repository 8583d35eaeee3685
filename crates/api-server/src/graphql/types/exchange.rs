//! HTTP exchanges as they are shown, with the command line that repeats the request.
//!
//! Fields that need a permission of their own are nullable: without it they are null, and the rest of the page stays.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::scalars::{DateTime, Long};
use super::header::{self, Header};
use crate::auth::Permission;
use async_graphql::{Context, Object};
use std::sync::Arc;
use weir_workflow_engine::{Document, Exchange as Recorded, ResponseBody};

/// One HTTP request and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) recorded: Arc<Recorded>,
    /// The output of the call, when the answer's body is the same and not kept twice.
    pub(crate) output: Option<Document>,
}

/// One HTTP request that a run made, and its answer. Secrets were redacted before it was stored.
#[Object]
impl Exchange {
    /// HTTP method.
    async fn method(&self) -> &str {
        &self.recorded.method
    }

    /// URL, secret parameters redacted. Without `PAYLOAD_READ` only its host: path and parameters may hold contents.
    async fn url(&self, ctx: &Context<'_>) -> String {
        match Caller::of(ctx).may(Permission::PayloadRead) {
            Ok(_) => self.recorded.url.clone(),
            Err(_lacking) => host_alone(&self.recorded.url),
        }
    }

    /// Headers of the request, secret values redacted. Needs `PAYLOAD_READ`.
    async fn request_headers(&self, ctx: &Context<'_>) -> ApiResult<Option<Vec<Header>>> {
        Caller::of(ctx).may(Permission::PayloadRead)?;
        Ok(Some(header::list(&self.recorded.request_headers)))
    }

    /// Body of the request, redacted, at most 16 KiB. Needs `PAYLOAD_READ`.
    async fn request_body(&self, ctx: &Context<'_>) -> ApiResult<Option<&str>> {
        Caller::of(ctx).may(Permission::PayloadRead)?;
        Ok(self.recorded.request_body.as_deref())
    }

    /// Status of the answer. Null: there was none.
    async fn status(&self) -> Option<u16> {
        self.recorded.status
    }

    /// Headers of the answer, secret values redacted. Needs `PAYLOAD_READ`.
    async fn response_headers(&self, ctx: &Context<'_>) -> ApiResult<Option<Vec<Header>>> {
        Caller::of(ctx).may(Permission::PayloadRead)?;
        Ok(Some(header::list(&self.recorded.response_headers)))
    }

    /// Body of the answer, redacted. Needs `PAYLOAD_READ`.
    async fn response_body(&self, ctx: &Context<'_>) -> ApiResult<Option<String>> {
        Caller::of(ctx).may(Permission::PayloadRead)?;
        Ok(match &self.recorded.response_body {
            ResponseBody::Output => self.output.as_ref().map(|output| output.raw().to_owned()),
            ResponseBody::Text(text) => Some(text.clone()),
            ResponseBody::None => None,
        })
    }

    /// Size of the answer's body on the wire, bytes.
    async fn response_bytes(&self) -> Long {
        Long(self.recorded.response_bytes)
    }

    /// When the request began.
    async fn started_at(&self) -> DateTime {
        DateTime(self.recorded.started_at)
    }

    /// From the first byte sent to the last byte received, milliseconds.
    async fn duration_ms(&self) -> u32 {
        self.recorded.duration_ms
    }

    /// Why there was no answer.
    async fn error(&self) -> Option<&str> {
        self.recorded.error.as_deref()
    }

    /// A `curl` command that makes the same request; fill in what is redacted. Needs `PAYLOAD_READ`.
    async fn curl(&self, ctx: &Context<'_>) -> ApiResult<Option<String>> {
        Caller::of(ctx).may(Permission::PayloadRead)?;
        Ok(Some(curl(&self.recorded)))
    }
}

/// Renders a request for a POSIX shell: every part in single quotes, so that nothing in it is expanded.
fn curl(recorded: &Recorded) -> String {
    let mut command = format!("curl -X {} {}", quoted(&recorded.method), quoted(&recorded.url));
    for (name, value) in &recorded.request_headers {
        // curl counts the body itself.
        if !name.eq_ignore_ascii_case("content-length") {
            command.push_str(&format!(" \\\n  -H {}", quoted(&format!("{name}: {value}"))));
        }
    }
    if let Some(body) = &recorded.request_body {
        command.push_str(&format!(" \\\n  --data-raw {}", quoted(body)));
    }
    command
}

fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte));
    if plain {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// `https://api.example.com/…`
fn host_alone(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}/…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_workflow_engine::Timestamp;

    #[test]
    fn curl_repeats_the_request_and_expands_nothing() {
        let recorded = Recorded {
            method: "POST".to_owned(),
            url: "https://api.test/v1/things?q=a&key=[redacted]".to_owned(),
            request_headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                ("content-length".to_owned(), "9".to_owned()),
                ("authorization".to_owned(), "[redacted]".to_owned()),
            ],
            request_body: Some(r#"{"a":"it's $(x)"}"#.to_owned()),
            status: None,
            response_headers: vec![],
            kept_headers: None,
            response_body: ResponseBody::None,
            response_bytes: 0,
            started_at: Timestamp::from_unix_ms(0),
            duration_ms: 1,
            error: None,
        };
        insta::assert_snapshot!(curl(&recorded), @r#"
        curl -X POST 'https://api.test/v1/things?q=a&key=[redacted]' \
          -H 'content-type: application/json' \
          -H 'authorization: [redacted]' \
          --data-raw '{"a":"it'\''s $(x)"}'
        "#);
    }
}
