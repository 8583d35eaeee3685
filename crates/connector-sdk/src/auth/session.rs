//! Sessions: a login gives a token that is good for a while, in one request or in several that build on each other.
//!
//! Requests are described and answers are read here; the host sends them, keeps what a login gave and shares it. What an
//! answer holds is never part of a message.

use secrecy::SecretString;
use serde_json::Value;

use super::credential::Credential;
use super::places::{Places, Which};
use super::secret_text::{Escape, Given, SecretText, SecretTree};
use super::token::{TokenError, form_body, read_error};
use super::values::Values;
use crate::answer::{Source, http_date_ms};
use crate::connector::Connector;
use crate::http_message::{HttpRequest, HttpResponse};
use crate::operation::BuildError;

/// Longest that a session is taken to last, seconds: ten years.
const LONGEST_S: u64 = 315_360_000;

/// How sessions begin, what they put on requests, and how they end, as a manifest states it.
#[derive(Debug)]
pub struct SessionScheme {
    pub(super) values: Vec<String>,
    pub(super) logins: Vec<Login>,
    pub(super) lifetime_s: u64,
    pub(super) places: Places,
    pub(super) logout: Option<Ask>,
}

/// One request of a login.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) ask: Ask,
    pub(super) take: Vec<(String, Taken)>,
    pub(super) expires: Option<Expires>,
}

/// A request with secrets in it.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: &'static str,
    pub(super) target: SecretText,
    /// The target is a path on the first host.
    pub(super) is_path: bool,
    pub(super) places: Places,
    pub(super) body: Option<(BodyForm, SecretTree)>,
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyForm {
    Json,
    Form,
}

/// Where a value stands in the answer to a login.
#[derive(Debug)]
pub(super) enum Taken {
    Stated(Source),
    Cookie(String),
}

/// How an answer says how long its session lasts.
#[derive(Debug)]
pub(super) struct Expires {
    pub(super) at: Source,
    pub(super) unit: ExpiryUnit,
}

/// What stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpiryUnit {
    /// So many seconds from now.
    InSeconds,
    /// So many milliseconds from now.
    InMilliseconds,
    /// Unix seconds.
    AtSeconds,
    /// Unix milliseconds.
    AtMilliseconds,
    /// A date: RFC 3339, or as in HTTP headers.
    AtDate,
}

/// What the answer to one request of a login gave.
#[derive(Debug, Clone)]
pub struct SessionPart {
    /// Tokens, by the names of the manifest.
    pub values: Values,
    /// How long they last, where the answer says it, in seconds.
    pub expires_in_s: Option<u64>,
}

impl SessionScheme {
    /// The names of what the credential holds.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// How many requests a login is.
    pub fn logins(&self) -> usize {
        self.logins.len()
    }

    /// How long a session lasts whose answers do not say it, in seconds.
    pub fn default_lifetime_s(&self) -> u64 {
        self.lifetime_s
    }

    /// The request of a login with this number, from 0. `earlier`: what those before it gave.
    ///
    /// # Errors
    /// [`BuildError`] when the credential lacks a value, or a setting is missing.
    pub fn login_request(
        &self,
        number: usize,
        (connector, config): (&Connector, &Value),
        credential: &Credential,
        earlier: &Values,
    ) -> Result<HttpRequest, BuildError> {
        let login = self.logins.get(number);
        let login = login.ok_or_else(|| BuildError::new("", "the login has fewer requests"))?;
        let given = Given {
            values: &[earlier, credential.values()?],
            settings: Some((config, connector.config_defaults())),
        };
        login.ask.request((connector, config), given)
    }

    /// Reads the answer to the request with this number.
    ///
    /// # Errors
    /// [`TokenError`] unless all is there that the manifest takes from it.
    pub fn login_answer(
        &self,
        number: usize,
        response: &HttpResponse,
        now_unix_ms: i64,
    ) -> Result<SessionPart, TokenError> {
        if !(200..300).contains(&response.status) {
            return Err(read_error(response.status, None));
        }
        let body: Option<Value> = serde_json::from_slice(&response.body).ok();
        let unreadable = || TokenError {
            code: "unreadable".to_owned(),
            retryable: false,
        };
        let login = self.logins.get(number).ok_or_else(unreadable)?;
        let mut values = Values::default();
        for (name, place) in &login.take {
            let text = place.read(response, body.as_ref()).ok_or_else(unreadable)?;
            values.set(name, text);
        }
        let expires = login.expires.as_ref();
        Ok(SessionPart {
            values,
            expires_in_s: expires.and_then(|expires| expires.read(response, body.as_ref(), now_unix_ms)),
        })
    }

    /// Puts a session on a request.
    ///
    /// # Errors
    /// [`BuildError`] when a value cannot stand where it belongs.
    pub fn put(&self, credential: &Credential, session: &Values, request: &mut HttpRequest) -> Result<(), BuildError> {
        let given = Given {
            values: &[session, credential.values()?],
            settings: None,
        };
        self.places.put(request, given, Which::All)
    }

    /// The request that ends a session; `None` when the manifest knows none.
    ///
    /// # Errors
    /// As [`SessionScheme::login_request`].
    pub fn logout_request(
        &self,
        (connector, config): (&Connector, &Value),
        credential: &Credential,
        session: &Values,
    ) -> Result<Option<HttpRequest>, BuildError> {
        let Some(logout) = &self.logout else {
            return Ok(None);
        };
        let given = Given {
            values: &[session, credential.values()?],
            settings: Some((config, connector.config_defaults())),
        };
        let mut request = logout.request((connector, config), given)?;
        self.places.put(&mut request, given, Which::All)?;
        Ok(Some(request))
    }
}

impl Ask {
    fn request(&self, (connector, config): (&Connector, &Value), given: Given<'_>) -> Result<HttpRequest, BuildError> {
        let absent = || BuildError::new("/config", "the login URL needs a setting that is absent");
        let url = match self.is_path {
            true => {
                let path = self.target.render(given, Escape::All)?.ok_or_else(absent)?;
                format!("{}{path}", connector.base_url(config)?)
            }
            false => self.target.render(given, Escape::Values)?.ok_or_else(absent)?,
        };
        match url::Url::parse(&url) {
            Ok(url) if ["https", "http"].contains(&url.scheme()) && url.has_host() => {}
            Ok(_) | Err(_) => return Err(BuildError::new("/config", "the login URL is not valid")),
        }
        let mut request = HttpRequest {
            method: self.method.to_owned(),
            url,
            headers: vec![("Accept".to_owned(), "application/json".to_owned())],
            body: None,
        };
        if let Some((form, tree)) = &self.body {
            let body = tree.render(given)?.unwrap_or(Value::Null);
            let (kind, bytes) = match (form, &body) {
                (BodyForm::Form, Value::Object(map)) => ("application/x-www-form-urlencoded", form_body(map)),
                (BodyForm::Form, _) => return Err(BuildError::new("", "a form is a mapping")),
                (BodyForm::Json, body) => ("application/json", body.to_string().into_bytes()),
            };
            request.set_header("Content-Type", kind);
            request.body = Some(bytes);
        }
        self.places.put(&mut request, given, Which::All)?;
        Ok(request)
    }
}

impl Taken {
    /// A text, or a number as text; never an empty one.
    fn read(&self, response: &HttpResponse, body: Option<&Value>) -> Option<SecretString> {
        let text = match self {
            Self::Cookie(name) => cookie(response, name)?.to_owned(),
            Self::Stated(source) => match source.lookup(response, || body)?.into_owned() {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
            },
        };
        (!text.is_empty()).then(|| text.into())
    }
}

/// The value of a cookie that an answer sets (RFC 6265 §5.2); the last one counts.
fn cookie<'r>(response: &'r HttpResponse, name: &str) -> Option<&'r str> {
    let set = response.headers.iter().rev();
    let mut set = set.filter(|(header, _)| header.eq_ignore_ascii_case("set-cookie"));
    set.find_map(|(_, text)| {
        let (found, value) = text.split(';').next()?.split_once('=')?;
        (found.trim() == name).then(|| value.trim().trim_matches('"'))
    })
}

impl Expires {
    /// Seconds from now, when something usable stands there. Clocks differ: what is over already by ours is not usable.
    fn read(&self, response: &HttpResponse, body: Option<&Value>, now_unix_ms: i64) -> Option<u64> {
        let number = || self.at.number(response, || body).filter(|number| number.is_finite());
        let (now_s, of_ms) = (seconds(now_unix_ms), 1_000.0);
        let in_s = match self.unit {
            ExpiryUnit::InSeconds => number()?,
            ExpiryUnit::InMilliseconds => number()? / of_ms,
            ExpiryUnit::AtSeconds => number()? - now_s,
            ExpiryUnit::AtMilliseconds => number()? / of_ms - now_s,
            ExpiryUnit::AtDate => {
                let found = self.at.lookup(response, || body)?;
                let text = found.as_str()?.trim();
                let rfc3339 = chrono::DateTime::parse_from_rfc3339(text).ok();
                let at_ms = rfc3339.map(|date| date.timestamp_millis());
                seconds(at_ms.or_else(|| http_date_ms(text))?) - now_s
            }
        };
        whole(in_s)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of this era are exact in a double"
)]
fn seconds(unix_ms: i64) -> f64 {
    unix_ms as f64 / 1_000.0
}

/// Whole seconds within bounds; `None` for less than one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between 1 and ten years"
)]
fn whole(seconds: f64) -> Option<u64> {
    (seconds >= 1.0).then(|| (seconds as u64).min(LONGEST_S))
}
