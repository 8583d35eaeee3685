//! What is kept of an exchange: redacted, bounded, fit for the journal and for people.

use http::HeaderMap;
use weir_connector_sdk::HttpRequest;
use weir_connector_sdk::redact::{self, SecretNames};
use weir_workflow_engine::{Exchange, ResponseBody, Timestamp};

/// Longest request or response body kept in an exchange, bytes. Enough to see what is wrong, small enough for the journal row.
///
/// Limit: body of a request or an answer that a run's record shows | cut; what a step gives is kept whole | `long_bodies_are_cut_after_redaction`
pub const MAX_KEPT_BODY_BYTES: usize = 16 * 1024;

/// Bodies above this are not even looked at: redacting needs the whole text.
///
/// Limit: body that is looked through for secrets, so that a run's record can show it | not kept; the record says how long it was | `long_bodies_are_cut_after_redaction`
const MAX_REDACTED_BODY_BYTES: usize = 1024 * 1024;

/// Most headers kept of one message.
///
/// Limit: headers of a message that a run's record shows | further ones are left out | `headers_are_kept_within_bounds`
const MAX_KEPT_HEADERS: usize = 64;

/// Longest header value kept, bytes.
///
/// Limit: value of a header that a run's record shows | cut | `headers_are_kept_within_bounds`
const MAX_KEPT_HEADER_BYTES: usize = 1024;

/// The beginning of a record, taken before the request is handed over.
pub(super) fn begin(request: &HttpRequest, secrets: &SecretNames, started_at: Timestamp) -> Exchange {
    let mut request_headers = redact::redact_headers(&request.headers, secrets);
    request_headers.truncate(MAX_KEPT_HEADERS);
    for (_, value) in &mut request_headers {
        shorten(value, MAX_KEPT_HEADER_BYTES);
    }
    Exchange {
        method: request.method.clone(),
        url: redact::redact_url(&request.url, secrets),
        request_headers,
        request_body: request.body.as_deref().filter(|body| !body.is_empty()).map(body_text),
        status: None,
        response_headers: Vec::new(),
        kept_headers: None,
        response_body: ResponseBody::None,
        response_bytes: 0,
        started_at,
        duration_ms: 0,
        error: None,
    }
}

/// Shortest credential that is looked for in answers, bytes: shorter ones could be anything.
const MIN_ECHO_BYTES: usize = 8;

/// The credentials that a request carries, as they are written in it.
pub(super) fn credentials_in(request: &HttpRequest, names: &SecretNames) -> Vec<String> {
    let headers = request
        .headers
        .iter()
        .filter(|(name, _)| redact::is_secret_header(name, names));
    // `Bearer TOKEN`, `Basic TEXT`: what comes last is the secret.
    let in_headers = headers.filter_map(|(_, value)| value.split_whitespace().last().map(str::to_owned));
    let query = request.url.split_once('?').map_or("", |(_, query)| query);
    // As it is meant, and as it is written in the URL.
    let in_query = query.split('&').flat_map(|pair| {
        let mut parsed = url::form_urlencoded::parse(pair.as_bytes());
        let secret = parsed.next().filter(|(name, _)| redact::is_secret_query(name, names));
        let written = pair.split_once('=').map_or("", |(_, value)| value);
        secret
            .into_iter()
            .flat_map(move |(_, value)| [value.into_owned(), written.to_owned()])
    });
    in_headers
        .chain(in_query)
        .filter(|secret| secret.len() >= MIN_ECHO_BYTES)
        .collect()
}

/// Those of these secrets that are looked for in answers.
pub(super) fn long_enough(secrets: &[String]) -> impl Iterator<Item = String> + '_ {
    secrets.iter().filter(|secret| secret.len() >= MIN_ECHO_BYTES).cloned()
}

/// Takes the credentials of its request out of an answer: some servers show people what they were sent.
pub(super) fn without(
    credentials: &[String],
    mut headers: Vec<(String, String)>,
    body: Vec<u8>,
) -> (Vec<(String, String)>, Vec<u8>) {
    let hide = |text: &str| redact::hide(text, credentials.iter().map(String::as_str));
    for (_, value) in &mut headers {
        if let Some(hidden) = hide(value) {
            *value = hidden;
        }
    }
    let hidden = std::str::from_utf8(&body).ok().and_then(hide);
    (headers, hidden.map_or(body, String::into_bytes))
}

/// The headers of an answer as the connector contract wants them.
pub(crate) fn header_pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect()
}

/// The headers of an answer as the record keeps them.
pub(super) fn kept_headers(headers: &[(String, String)], secrets: &SecretNames) -> Vec<(String, String)> {
    let kept = headers.len().min(MAX_KEPT_HEADERS);
    let mut kept = redact::redact_headers(headers.split_at(kept).0, secrets);
    for (name, value) in &mut kept {
        if name.eq_ignore_ascii_case("location") {
            *value = redact::redact_url(value, secrets);
        }
        shorten(value, MAX_KEPT_HEADER_BYTES);
    }
    kept
}

/// A body as text for people: redacted first, then cut.
pub(super) fn body_text(body: &[u8]) -> String {
    if body.len() > MAX_REDACTED_BODY_BYTES {
        return format!("[{} bytes, not kept]", body.len());
    }
    let Ok(text) = std::str::from_utf8(body) else {
        return format!("[{} bytes that are not text]", body.len());
    };
    let mut text = redact::redact_body(text).into_owned();
    shorten(&mut text, MAX_KEPT_BODY_BYTES);
    text
}

/// The same, in so many bytes.
pub(super) fn body_text_within(body: &[u8], room: usize) -> String {
    let mut text = body_text(body);
    shorten(&mut text, room);
    text
}

/// Cuts `text` to at most `max_bytes`, at a character boundary, and says so.
fn shorten(text: &mut String, max_bytes: usize) {
    const MARK: &str = "…";
    if text.len() <= max_bytes {
        return;
    }
    text.truncate(text.floor_char_boundary(max_bytes.saturating_sub(MARK.len())));
    text.push_str(MARK);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_bodies_are_cut_after_redaction() {
        let body = format!("{{\"filler\":\"{}\",\"client_secret\":\"s3cret\"}}", "é".repeat(9_000));
        let text = body_text(body.as_bytes());
        assert!(
            text.len() <= MAX_KEPT_BODY_BYTES && text.ends_with('…'),
            "{}",
            text.len()
        );
        let fits = "x".repeat(MAX_KEPT_BODY_BYTES);
        assert_eq!(body_text(fits.as_bytes()), fits);
        let longer = body_text(format!("{fits}x").as_bytes());
        assert!(longer.len() == MAX_KEPT_BODY_BYTES && longer.ends_with("x…"));
        let largest = "x".repeat(MAX_REDACTED_BODY_BYTES);
        assert!(body_text(largest.as_bytes()).starts_with("xxx"));
        assert_eq!(body_text(format!("{largest}x").as_bytes()), "[1048577 bytes, not kept]");
        let short = body_text(br#"{"client_secret":"s3cret","a":1}"#);
        assert!(!short.contains("s3cret") && short.contains("\"a\":1"));
        assert_eq!(body_text(&[0xff, 0xfe]), "[2 bytes that are not text]");
    }

    #[test]
    fn headers_are_kept_within_bounds() {
        let header = |number: usize, length: usize| (format!("x-{number}"), "v".repeat(length));
        let kept = |headers: &[(String, String)]| kept_headers(headers, &SecretNames::default());
        let many: Vec<_> = (0..=MAX_KEPT_HEADERS).map(|number| header(number, 1)).collect();
        assert_eq!(kept(&many), many[..MAX_KEPT_HEADERS]);
        let fits = [header(1, MAX_KEPT_HEADER_BYTES)];
        assert_eq!(kept(&fits), fits);
        let longer = kept(&[header(1, MAX_KEPT_HEADER_BYTES + 1)]);
        assert!(longer[0].1.len() == MAX_KEPT_HEADER_BYTES && longer[0].1.ends_with("v…"));
    }
}
