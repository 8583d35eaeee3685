//! Which methods, content types and `Accept` headers `/graphql` takes. Pure rules, no request is read here.
//!
//! After the draft of GraphQL over HTTP (August 2026). Form encodings and `text/plain` are refused, so that no browser
//! can be made to post here without a preflight.

/// The media type of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    /// `application/graphql-response+json`: the status says whether the request was served.
    GraphqlResponse,
    /// `application/json`: 200 for every well-formed request.
    Json,
}

impl MediaType {
    /// The `Content-Type` header.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            MediaType::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
            MediaType::Json => "application/json; charset=utf-8",
        }
    }
}

/// Chooses the answer's media type. `None`: nothing that we produce is acceptable (406).
pub(crate) fn accept(header: Option<&str>) -> Option<MediaType> {
    let Some(header) = header.filter(|value| !value.trim().is_empty()) else {
        return Some(MediaType::Json);
    };
    let mut best: Option<(u16, MediaType)> = None;
    for range in header.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/graphql-response+json" => MediaType::GraphqlResponse,
            "application/json" | "application/*" | "*/*" => MediaType::Json,
            _ => continue,
        };
        let mut quality = 1000;
        let mut acceptable = true;
        for parameter in parts {
            match parameter
                .split_once('=')
                .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
            {
                Some((name, value)) if name == "q" => quality = thousandths(value),
                Some((name, value)) if name == "charset" => acceptable &= is_utf8(value),
                _ => {}
            }
        }
        if acceptable && quality > 0 && best.is_none_or(|(found, _)| quality > found) {
            best = Some((quality, media));
        }
    }
    best.map(|(_, media)| media)
}

/// Whether a request body of this `Content-Type` is JSON in UTF-8.
pub(crate) fn is_json(header: Option<&str>) -> bool {
    let Some(header) = header else { return false };
    let mut parts = header.split(';').map(str::trim);
    if !parts
        .next()
        .unwrap_or_default()
        .eq_ignore_ascii_case("application/json")
    {
        return false;
    }
    parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => is_utf8(value.trim()),
        _ => true,
    })
}

fn is_utf8(value: &str) -> bool {
    let value = value.trim_matches('"');
    value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
}

/// A quality value such as `0.5` in thousandths; what cannot be read counts as 0, so it is never chosen.
fn thousandths(value: &str) -> u16 {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    match (whole, fraction.len()) {
        ("1", 0..=3) if fraction.bytes().all(|digit| digit == b'0') => 1000,
        ("0", 0..=3) => format!("{fraction:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_header_chooses_the_answer() {
        use MediaType::{GraphqlResponse, Json};
        let cases: &[(Option<&str>, Option<MediaType>)] = &[
            (None, Some(Json)),
            (Some(""), Some(Json)),
            (Some("*/*"), Some(Json)),
            (Some("application/*"), Some(Json)),
            (Some("application/json"), Some(Json)),
            (Some("application/json; charset=utf-8"), Some(Json)),
            (Some("application/json; charset=latin1"), None),
            (Some("application/graphql-response+json"), Some(GraphqlResponse)),
            (Some("APPLICATION/GraphQL-Response+JSON"), Some(GraphqlResponse)),
            (
                Some("application/graphql-response+json, application/json;q=0.9"),
                Some(GraphqlResponse),
            ),
            (
                Some("application/graphql-response+json;q=0.5, application/json"),
                Some(Json),
            ),
            (Some("application/json, multipart/mixed"), Some(Json)),
            (Some("text/html, */*;q=0.1"), Some(Json)),
            (Some("text/html"), None),
            (Some("application/json;q=0"), None),
            (Some("text/event-stream"), None),
        ];
        for (header, expected) in cases {
            assert_eq!(accept(*header), *expected, "Accept: {header:?}");
        }
    }

    #[test]
    fn only_json_in_utf8_is_a_request_body() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert!(is_json(Some(good)), "{good}");
        }
        for bad in [
            "text/plain",
            "application/graphql",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json; charset=utf-16",
            "",
        ] {
            assert!(!is_json(Some(bad)), "{bad}");
        }
        assert!(!is_json(None));
    }
}
