//! Where secrets go on a request: headers, query parameters, cookies, HTTP Basic. And the scheme that is nothing more.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::secret_text::{Escape, Given, Names, SecretText, value_of};
use super::values::{self, Values};
use crate::encode;
use crate::fields::{Fields, is_header_name};
use crate::http_message::HttpRequest;
use crate::operation::BuildError;
use crate::problem::Problems;
use crate::redact::SecretNames;

/// The keys that [`Places::read`] reads.
pub(super) const PLACE_KEYS: [&str; 4] = ["headers", "query", "cookies", "basic"];

/// Headers that are made of the request itself.
const OWN_HEADERS: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "cookie"];

/// Where secrets go.
#[derive(Debug, Default)]
pub(super) struct Places {
    headers: Vec<(String, SecretText)>,
    queries: Vec<(String, SecretText)>,
    cookies: Vec<(String, SecretText)>,
    basic: Option<(SecretText, SecretText)>,
}

/// Which of them are put on a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'n> {
    All,
    /// What does not use the value of this name.
    Without(&'n str),
    /// What uses it.
    With(&'n str),
}

impl Which<'_> {
    /// Whether what is made of these texts is put on.
    fn takes(self, texts: &[&SecretText]) -> bool {
        let uses = |name: &str| texts.iter().any(|text| text.values().any(|used| used == name));
        match self {
            Self::All => true,
            Self::Without(name) => !uses(name),
            Self::With(name) => uses(name),
        }
    }
}

/// Several secrets at once, each where it belongs.
#[derive(Debug)]
pub struct KeysScheme {
    pub(super) values: Vec<String>,
    pub(super) places: Places,
}

impl Places {
    /// Reads `headers`, `query`, `cookies` and `basic`.
    pub(super) fn read(fields: &Fields<'_>, names: Names<'_>, problems: &mut Problems) -> Self {
        let headers = read_named(fields, "headers", names, problems);
        let queries = read_named(fields, "query", names, problems);
        let cookies = read_named(fields, "cookies", names, problems);
        for (place, names) in [("headers", &headers), ("cookies", &cookies)] {
            for (name, _) in names.iter().filter(|(name, _)| !is_header_name(name)) {
                let message = format!("`{name}` is not the name of one of the {place}");
                problems.add(&crate::pointer::join(&fields.at(place), name), "bad_name", message);
            }
        }
        for (name, _) in &headers {
            if OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                let place = crate::pointer::join(&fields.at("headers"), name);
                let message = format!("the header `{name}` is set by itself");
                match name.eq_ignore_ascii_case("cookie") {
                    true => problems.add_with_suggestion(&place, "conflict", message, "name it under `cookies`"),
                    false => problems.add(&place, "conflict", message),
                }
            }
        }
        let basic = fields
            .get("basic")
            .and_then(|value| read_basic(value, &fields.at("basic"), names, problems));
        if let Some((name, _)) = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("authorization"))
            && basic.is_some()
        {
            let place = crate::pointer::join(&fields.at("headers"), name);
            problems.add(&place, "conflict", "`basic` is the header `Authorization` already");
        }
        Self {
            headers,
            queries,
            cookies,
            basic,
        }
    }

    /// The same, where there has to be at least one.
    pub(super) fn read_some(fields: &Fields<'_>, names: Names<'_>, problems: &mut Problems) -> Self {
        if PLACE_KEYS.iter().all(|key| fields.get(key).is_none()) {
            problems.add(
                fields.place(),
                "missing_key",
                "say where it goes on requests: `headers`, `query`, `cookies` or `basic`",
            );
        }
        Self::read(fields, names, problems)
    }

    fn texts(&self) -> impl Iterator<Item = &SecretText> {
        let named = [&self.headers, &self.queries, &self.cookies];
        let basic = self.basic.iter().flat_map(|(username, password)| [username, password]);
        named.into_iter().flatten().map(|(_, text)| text).chain(basic)
    }

    /// The names of all values that are used.
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.texts().flat_map(SecretText::values)
    }

    /// Puts secrets on a request, in place of what stands there.
    pub(super) fn put(&self, request: &mut HttpRequest, given: Given<'_>, which: Which<'_>) -> Result<(), BuildError> {
        let of = |named: &'_ [(String, SecretText)]| -> Result<Vec<(String, String)>, BuildError> {
            let mut rendered = Vec::with_capacity(named.len());
            for (name, text) in named.iter().filter(|(_, text)| which.takes(&[text])) {
                let value = text.render(given, Escape::No)?;
                rendered.extend(value.map(|value| (name.clone(), value)));
            }
            Ok(rendered)
        };
        for (name, value) in of(&self.headers)? {
            check_header(&name, &value)?;
            request.set_header(&name, value);
        }
        if let Some((username, password)) = &self.basic
            && which.takes(&[username, password])
            && let Some(username) = username.render(given, Escape::No)?
            && let Some(password) = password.render(given, Escape::No)?
        {
            let pair = STANDARD.encode(format!("{username}:{password}"));
            request.set_header("Authorization", format!("Basic {pair}"));
        }
        for (name, value) in of(&self.cookies)? {
            put_cookie(request, &name, &value)?;
        }
        for (name, value) in of(&self.queries)? {
            put_query(&mut request.url, &name, &value);
        }
        Ok(())
    }

    /// The values that stand on a request, as texts that an answer must not show.
    pub(super) fn exposed(&self, given: Given<'_>) -> Vec<String> {
        let mut exposed: Vec<String> = self
            .values()
            .filter_map(|name| value_of(name, given).ok().map(str::to_owned))
            .collect();
        exposed.sort();
        exposed.dedup();
        exposed
    }

    /// Adds the names of headers and parameters that hold a value that `is_secret`.
    pub(super) fn add_secret_names(&self, names: &mut SecretNames, is_secret: &dyn Fn(&str) -> bool) {
        let hides = |text: &SecretText| text.values().any(is_secret);
        let of = |named: &[(String, SecretText)]| -> Vec<String> {
            let hidden = named.iter().filter(|(_, text)| hides(text));
            hidden.map(|(name, _)| name.to_ascii_lowercase()).collect()
        };
        names.headers.extend(of(&self.headers));
        names.queries.extend(of(&self.queries));
    }
}

impl KeysScheme {
    /// The names of what the credential holds.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    pub(super) fn put(&self, request: &mut HttpRequest, values: &Values) -> Result<(), BuildError> {
        let given = Given {
            values: &[values],
            settings: None,
        };
        self.places.put(request, given, Which::All)
    }
}

/// Reads `keys`.
pub(super) fn read_keys(value: &Value, place: &str, problems: &mut Problems) -> Option<KeysScheme> {
    let known: Vec<&str> = ["values"].into_iter().chain(PLACE_KEYS).collect();
    let fields = Fields::open(value, place, &known, problems)?;
    let values = values::read_names(&fields, problems);
    let known: Vec<&str> = values.iter().map(String::as_str).collect();
    let names = Names {
        values: &known,
        settings: None,
    };
    let before = problems.len();
    let places = Places::read_some(&fields, names, problems);
    // What was not read may have used it.
    if problems.len() == before {
        let used: Vec<&str> = places.values().collect();
        values::check_used(&values, &used, &fields, problems);
    }
    Some(KeysScheme { values, places })
}

fn read_named(fields: &Fields<'_>, key: &str, names: Names<'_>, problems: &mut Problems) -> Vec<(String, SecretText)> {
    let Some(value) = fields.get(key) else {
        return Vec::new();
    };
    let Some(named) = Fields::open_any(value, &fields.at(key), problems) else {
        return Vec::new();
    };
    let mut read = Vec::with_capacity(named.map().len());
    for (name, value) in named.map() {
        let text = SecretText::read(value, &named.at(name), names, problems);
        read.extend(text.map(|text| (name.clone(), text)));
    }
    read
}

fn read_basic(
    value: &Value,
    place: &str,
    names: Names<'_>,
    problems: &mut Problems,
) -> Option<(SecretText, SecretText)> {
    let fields = Fields::open(value, place, &["username", "password"], problems)?;
    let (username, password) = (
        fields.required("username", problems),
        fields.required("password", problems),
    );
    let username = SecretText::read(username?, &fields.at("username"), names, problems);
    let password = SecretText::read(password?, &fields.at("password"), names, problems);
    Some((username?, password?))
}

fn check_header(name: &str, value: &str) -> Result<(), BuildError> {
    match value.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        true => Err(BuildError::new(
            "/credential",
            format!("the credential holds characters that the header {name} cannot carry"),
        )),
        false => Ok(()),
    }
}

/// Adds a cookie to those that are there, in place of one of that name.
fn put_cookie(request: &mut HttpRequest, name: &str, value: &str) -> Result<(), BuildError> {
    // RFC 6265 §4.1.1.
    if value
        .bytes()
        .any(|byte| byte <= b' ' || byte >= 0x7f || b"\",;\\".contains(&byte))
    {
        let message = format!("the credential holds characters that the cookie {name} cannot carry");
        return Err(BuildError::new("/credential", message));
    }
    let others = request.header("cookie").unwrap_or_default().split(';').map(str::trim);
    let others = others.filter(|pair| !pair.is_empty() && pair.split('=').next() != Some(name));
    let mut pairs: Vec<String> = others.map(str::to_owned).collect();
    pairs.push(format!("{name}={value}"));
    request.set_header("Cookie", pairs.join("; "));
    Ok(())
}

/// Adds a parameter, in place of those of that name.
fn put_query(url: &mut String, name: &str, value: &str) {
    let is_other = |pair: &&str| encode::decode(pair.split('=').next().unwrap_or_default(), true) != name;
    if let Some((base, query)) = url.split_once('?')
        && !query.split('&').all(|pair| is_other(&pair))
    {
        let others: Vec<&str> = query.split('&').filter(is_other).collect();
        *url = match others.is_empty() {
            true => base.to_owned(),
            false => format!("{base}?{}", others.join("&")),
        };
    }
    url.push(if url.contains('?') { '&' } else { '?' });
    encode::percent(url, name);
    url.push('=');
    encode::percent(url, value);
}
