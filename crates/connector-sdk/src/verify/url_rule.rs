//! Which URLs out of a request, or out of a manifest, may be called for a proof.
//!
//! A URL in a forged request is a stranger's wish. It is called only when it is HTTPS on the usual port of a host that
//! the manifest names, and carries nothing beside its path. Plain HTTP is for the loopback addresses alone, named as
//! such: for trials on one machine, where the host's own guard has to permit them too.

use serde_json::Value;
use url::{Host, Url};

use super::{Refusal, RefusalReason};
use crate::fields::Fields;
use crate::pointer;
use crate::problem::Problems;

/// Longest URL out of a request that is looked at, in bytes.
///
/// Limit: URL in a request that is called for a proof | 401, `url_not_allowed` | `handshakes_stop_at_their_bounds` | `weir_webhooks_refused_total`
const MAX_URL_BYTES: usize = 2_048;

#[derive(Debug)]
pub(crate) struct UrlRule {
    hosts: Vec<HostRule>,
    path_suffix: Option<String>,
    /// Whether a query is permitted.
    query: bool,
}

#[derive(Debug)]
enum HostRule {
    /// Labels from left to right; `None` stands for any one label.
    Name(Vec<Option<String>>),
    /// `127.0.0.1`, `[::1]` or `localhost`.
    Loopback(String),
}

impl UrlRule {
    /// Reads `https_host_allow` and, when `for_documents`, `path_suffix` of `fields`.
    pub(crate) fn read(fields: &Fields<'_>, for_documents: bool, problems: &mut Problems) -> Option<Self> {
        fields.required("https_host_allow", problems)?;
        let texts = fields.texts("https_host_allow", problems)?;
        let place = fields.at("https_host_allow");
        if texts.is_empty() {
            problems.add(&place, "bad_value", "the list of permitted hosts is empty");
        }
        let hosts = texts
            .iter()
            .enumerate()
            .map(|(index, text)| HostRule::read(text, &pointer::join(&place, &index.to_string()), problems))
            .collect::<Option<Vec<_>>>()?;
        let path_suffix = match for_documents {
            true => fields.text("path_suffix", problems).map(str::to_owned),
            false => None,
        };
        Some(Self {
            hosts,
            path_suffix,
            query: !for_documents,
        })
    }

    /// The URL, when it may be called.
    pub(crate) fn permit(&self, text: &str) -> Result<Url, Refusal> {
        let refused = |why: &str| Refusal::new(RefusalReason::UrlNotAllowed, format!("a URL in the request {why}"));
        if text.len() > MAX_URL_BYTES {
            return Err(refused("is longer than any that is called"));
        }
        let Ok(url) = Url::parse(text) else {
            return Err(refused("is none"));
        };
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(refused("holds more than host, path and query"));
        }
        if url.query().is_some() && !self.query {
            return Err(refused("has a query"));
        }
        let Some(host) = url.host() else {
            return Err(refused("has no host"));
        };
        let Some(rule) = self.hosts.iter().find(|rule| rule.fits(&host)) else {
            return Err(refused("has a host that the connector does not permit"));
        };
        let usual = url.scheme() == "https" && url.port().is_none();
        let trial = matches!(rule, HostRule::Loopback(_)) && matches!(url.scheme(), "https" | "http");
        if !usual && !trial {
            return Err(refused("is not HTTPS on the usual port"));
        }
        match &self.path_suffix {
            Some(suffix) if !url.path().ends_with(suffix.as_str()) => {
                Err(refused("has a path that the connector does not permit"))
            }
            Some(_) | None => Ok(url),
        }
    }
}

impl HostRule {
    fn read(text: &str, place: &str, problems: &mut Problems) -> Option<Self> {
        if is_loopback(text) {
            return Some(Self::Loopback(text.to_owned()));
        }
        let labels: Vec<Option<String>> = text
            .split('.')
            .map(|label| (label != "*").then(|| label.to_ascii_lowercase()))
            .collect();
        let good = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        let named = labels.iter().rev().take_while(|label| label.is_some()).count();
        let is_number = |label: &String| label.bytes().all(|byte| byte.is_ascii_digit());
        let is_address = named == labels.len() && labels.iter().flatten().all(is_number);
        if !labels.iter().flatten().all(|label| good(label)) || is_address {
            problems.add_with_suggestion(
                place,
                "bad_value",
                format!("`{text}` is not a host name"),
                "a name such as keys.example.com, with `*` for one label: sns.*.amazonaws.com",
            );
            return None;
        }
        if named < 2 {
            problems.add(
                place,
                "weak_scheme",
                format!("`{text}` permits hosts of anybody; at least the last two labels are named"),
            );
            return None;
        }
        Some(Self::Name(labels))
    }

    fn fits(&self, host: &Host<&str>) -> bool {
        match (self, host) {
            (Self::Name(labels), Host::Domain(name)) => {
                let found: Vec<&str> = name.split('.').collect();
                found.len() == labels.len()
                    && labels
                        .iter()
                        .zip(&found)
                        .all(|(wanted, found)| wanted.as_deref().is_none_or(|wanted| wanted == *found))
            }
            (Self::Name(_), Host::Ipv4(_) | Host::Ipv6(_)) => false,
            (Self::Loopback(known), host) => *known == host.to_string(),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "127.0.0.1" | "[::1]" | "localhost")
}

/// Reads a URL that the manifest itself states: HTTPS, or HTTP to a loopback address.
pub(crate) fn read_own(value: &Value, place: &str, problems: &mut Problems) -> Option<String> {
    let url = value.as_str().and_then(|text| Url::parse(text).ok());
    let Some(url) = url else {
        problems.add(place, "bad_value", "not an absolute URL");
        return None;
    };
    let loopback = url.host_str().is_some_and(is_loopback);
    if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
        problems.add(
            place,
            "weak_scheme",
            "what a proof rests on is fetched by HTTPS (or HTTP from a loopback address)",
        );
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        problems.add(place, "bad_value", "the URL holds more than host, path and query");
        return None;
    }
    Some(url.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(hosts: &[&str]) -> UrlRule {
        let value = json!({ "https_host_allow": hosts, "path_suffix": ".pem" });
        let mut problems = Problems::default();
        let fields = Fields::open(&value, "", &["https_host_allow", "path_suffix"], &mut problems).unwrap();
        let rule = UrlRule::read(&fields, true, &mut problems).unwrap();
        assert!(problems.is_empty());
        rule
    }

    #[test]
    fn only_named_hosts_over_https_are_called() {
        let rule = rule(&["sns.*.amazonaws.com", "127.0.0.1"]);
        let permitted = |url: &str| rule.permit(url).is_ok();
        assert!(permitted("https://sns.eu-west-1.amazonaws.com/a.pem"));
        assert!(permitted("http://127.0.0.1:9000/a.pem"));
        for forged in [
            "https://sns.eu-west-1.amazonaws.com.evil.test/a.pem",
            "https://sns.a.b.amazonaws.com/a.pem",
            "https://evil.test/sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com@evil.test/a.pem",
            "https://user@sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com:8443/a.pem",
            "http://sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com/a.pem?x=1",
            "https://sns.eu-west-1.amazonaws.com/a.pem#x",
            "https://sns.eu-west-1.amazonaws.com/a.txt",
            "https://localhost/a.pem",
            "https://169.254.169.254/a.pem",
            "ftp://127.0.0.1/a.pem",
            "file:///etc/a.pem",
            "a.pem",
        ] {
            assert!(!permitted(forged), "{forged}");
        }
    }

    #[test]
    fn wide_patterns_are_refused() {
        for wide in ["*", "*.com", "example.*", "10.0.0.1", "a b.test", ""] {
            let mut problems = Problems::default();
            assert!(HostRule::read(wide, "/x", &mut problems).is_none(), "{wide}");
        }
    }
}
