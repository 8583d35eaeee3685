//! Reading `session` of a manifest.

use serde_json::Value;

use super::places::{PLACE_KEYS, Places};
use super::secret_text::{Names, SecretText, SecretTree};
use super::session::{Ask, BodyForm, Expires, ExpiryUnit, Login, SessionScheme, Taken};
use super::values;
use crate::answer::Source;
use crate::connector::Common;
use crate::fields::{Fields, is_header_name};
use crate::pointer;
use crate::problem::Problems;

/// Most requests of one login.
///
/// Limit: requests of one login | the manifest is refused, `too_many` | `a_credential_has_so_many_values_and_a_session_so_many_logins`
const MAX_LOGIN_REQUESTS: usize = 4;

/// How long a session lasts that nobody says more about, seconds.
const LIFETIME_S: u64 = 3_600;

const METHODS: [(&str, &str); 5] = [
    ("get", "GET"),
    ("post", "POST"),
    ("put", "PUT"),
    ("patch", "PATCH"),
    ("delete", "DELETE"),
];

#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Milliseconds,
    Date,
}

/// Reads `session`.
pub(super) fn read(value: &Value, place: &str, common: &Common, problems: &mut Problems) -> Option<SessionScheme> {
    let own = ["values", "login", "lifetime", "logout"];
    let known: Vec<&str> = own.into_iter().chain(PLACE_KEYS).collect();
    let fields = Fields::open(value, place, &known, problems)?;
    let before = problems.len();
    let values = values::read_names(&fields, problems);
    let mut names: Vec<String> = values.clone();
    let logins = read_logins(&fields, common, &mut names, problems);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let on_requests = Names {
        values: &all,
        settings: None,
    };
    let places = Places::read_some(&fields, on_requests, problems);
    let logout = fields.get("logout").and_then(|value| {
        let names = Names {
            settings: Some(common),
            ..on_requests
        };
        let place = fields.at("logout");
        let known: Vec<&str> = ask_keys().collect();
        let fields = Fields::open(value, &place, &known, problems)?;
        read_ask(&fields, names, problems)
    });
    let scheme = SessionScheme {
        lifetime_s: fields.duration_s("lifetime", problems).unwrap_or(LIFETIME_S),
        values,
        logins,
        places,
        logout,
    };
    // What was not read may be what would be missing here.
    if problems.len() == before {
        judge(&scheme, &fields, problems);
    }
    Some(scheme)
}

/// Reads `login`: one request, or a list of them. What each gives is added to `names`.
fn read_logins(fields: &Fields<'_>, common: &Common, names: &mut Vec<String>, problems: &mut Problems) -> Vec<Login> {
    let Some(value) = fields.required("login", problems) else {
        return Vec::new();
    };
    let place = fields.at("login");
    let Some(items) = value.as_array() else {
        return read_login(value, &place, common, names, problems).into_iter().collect();
    };
    if items.is_empty() {
        problems.add(&place, "bad_value", "a login is at least one request");
    }
    if items.len() > MAX_LOGIN_REQUESTS {
        let message = format!("{} requests, at most {MAX_LOGIN_REQUESTS} are possible", items.len());
        problems.add(&place, "too_many", message);
    }
    let mut logins = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let place = pointer::join(&place, &index.to_string());
        logins.extend(read_login(item, &place, common, names, problems));
    }
    logins
}

fn read_login(
    value: &Value,
    place: &str,
    common: &Common,
    names: &mut Vec<String>,
    problems: &mut Problems,
) -> Option<Login> {
    let known: Vec<&str> = ask_keys().chain(["take", "expires"]).collect();
    let fields = Fields::open(value, place, &known, problems)?;
    let seen: Vec<&str> = names.iter().map(String::as_str).collect();
    let seen = Names {
        values: &seen,
        settings: Some(common),
    };
    let ask = read_ask(&fields, seen, problems);
    let take = read_take(&fields, names, problems);
    let expires = fields
        .get("expires")
        .and_then(|value| read_expires(value, &fields.at("expires"), problems));
    // Names are known to what follows, also when the request is wrong.
    names.extend(take.iter().map(|(name, _)| name.clone()));
    Some(Login {
        ask: ask?,
        take,
        expires,
    })
}

fn ask_keys() -> impl Iterator<Item = &'static str> {
    let methods = METHODS.into_iter().map(|(word, _)| word);
    methods.chain(["body", "encode"]).chain(PLACE_KEYS)
}

fn read_ask(fields: &Fields<'_>, names: Names<'_>, problems: &mut Problems) -> Option<Ask> {
    let mut stated = METHODS
        .into_iter()
        .filter_map(|(word, method)| fields.get(word).map(|value| (word, method, value)));
    let (Some((word, method, target)), None) = (stated.next(), stated.next()) else {
        let words: Vec<&str> = METHODS.into_iter().map(|(word, _)| word).collect();
        let message = format!("a request has exactly one of: {}", words.join(", "));
        problems.add(fields.place(), "missing_key", message);
        return None;
    };
    let text = target.as_str().unwrap_or_default();
    let is_path = text.starts_with('/');
    if !is_path && !text.starts_with("https://") && !text.starts_with("{{") {
        problems.add(
            &fields.at(word),
            "bad_value",
            format!("`{word}` begins with / for a path on the first host, with https://, or with an expression"),
        );
        return None;
    }
    let target = SecretText::read(target, &fields.at(word), names, problems);
    if !is_path
        && text.starts_with("{{")
        && target
            .as_ref()
            .is_some_and(|target| target.values().next().is_some_and(|name| starts_with_name(text, name)))
    {
        problems.add(
            &fields.at(word),
            "bad_value",
            "where a login goes is no secret: name a setting (`{{ config.login_url }}`)",
        );
    }
    let forms = [("json", BodyForm::Json), ("form", BodyForm::Form)];
    let form = fields.choice("encode", &forms, problems).unwrap_or(BodyForm::Json);
    let body = fields.get("body").and_then(|value| {
        if !value.is_object() && form == BodyForm::Form {
            problems.add(&fields.at("body"), "bad_type", "a form is a mapping");
        }
        SecretTree::read(value, &fields.at("body"), names, problems)
    });
    if body.is_none() && fields.get("encode").is_some() {
        problems.add(
            &fields.at("encode"),
            "conflict",
            "`encode` says how the `body` is written, and there is none",
        );
    }
    Some(Ask {
        method,
        target: target?,
        is_path,
        places: Places::read(fields, names, problems),
        body: body.map(|body| (form, body)),
    })
}

/// Whether a text begins with `{{ name }}`.
fn starts_with_name(text: &str, name: &str) -> bool {
    let first = text.strip_prefix("{{").and_then(|rest| rest.split("}}").next());
    first.is_some_and(|first| first.trim() == name)
}

/// Reads `take`: names, and where in the answer they stand.
fn read_take(fields: &Fields<'_>, names: &[String], problems: &mut Problems) -> Vec<(String, Taken)> {
    let Some(value) = fields.required("take", problems) else {
        return Vec::new();
    };
    let Some(named) = Fields::open_any(value, &fields.at("take"), problems) else {
        return Vec::new();
    };
    if named.map().is_empty() {
        problems.add(
            named.place(),
            "bad_value",
            "say what the answer gives: `take: { token: /token }`",
        );
    }
    let mut take = Vec::with_capacity(named.map().len());
    for name in named.map().keys() {
        let place = named.at(name);
        values::check_name(name, &place, problems);
        if names.contains(name) {
            problems.add(&place, "conflict", format!("`{name}` is named twice"));
        }
        let Some(text) = named.text(name, problems) else {
            continue;
        };
        let found = match text.strip_prefix("cookie:") {
            Some(cookie) => is_header_name(cookie).then(|| Taken::Cookie(cookie.to_owned())),
            None => Source::parse(text).map(Taken::Stated),
        };
        if found.is_none() {
            problems.add_with_suggestion(
                &place,
                "bad_pointer",
                format!("`{text}` is neither a JSON Pointer nor a header nor a cookie"),
                "/pointer, header:NAME or cookie:NAME",
            );
        }
        take.extend(found.map(|found| (name.clone(), found)));
    }
    take
}

fn read_expires(value: &Value, place: &str, problems: &mut Problems) -> Option<Expires> {
    let fields = Fields::open(value, place, &["in", "at", "unit"], problems)?;
    let key = match (fields.get("in"), fields.get("at")) {
        (Some(_), None) => "in",
        (None, Some(_)) => "at",
        (Some(_), Some(_)) | (None, None) => {
            let message = "say where it stands: `in` for a span, or `at` for a moment";
            problems.add(place, "missing_key", message);
            return None;
        }
    };
    let units = [("s", Unit::Seconds), ("ms", Unit::Milliseconds), ("date", Unit::Date)];
    let unit = match (key, fields.choice("unit", &units, problems)) {
        ("in", Some(Unit::Seconds) | None) => ExpiryUnit::InSeconds,
        ("in", Some(Unit::Milliseconds)) => ExpiryUnit::InMilliseconds,
        ("in", Some(Unit::Date)) => {
            problems.add(
                &fields.at("unit"),
                "conflict",
                "a date is a moment: say `at` in place of `in`",
            );
            return None;
        }
        (_, Some(Unit::Seconds)) => ExpiryUnit::AtSeconds,
        (_, Some(Unit::Milliseconds)) => ExpiryUnit::AtMilliseconds,
        (_, Some(Unit::Date) | None) => ExpiryUnit::AtDate,
    };
    Some(Expires {
        at: Source::read(&fields, key, problems)?,
        unit,
    })
}

/// What a login gives has to be for something, and so has what it is asked for.
fn judge(scheme: &SessionScheme, fields: &Fields<'_>, problems: &mut Problems) {
    let mut used: Vec<&str> = scheme.places.values().collect();
    let is_taken = |name: &&str| {
        let mut taken = scheme.logins.iter().flat_map(|login| &login.take);
        taken.any(|(known, _)| known == name)
    };
    if !used.iter().any(is_taken) {
        problems.add_with_suggestion(
            fields.place(),
            "missing_key",
            "what the login gives is put nowhere",
            "headers: { Authorization: \"Bearer {{ token }}\" }",
        );
    }
    for ask in scheme.logins.iter().map(|login| &login.ask).chain(&scheme.logout) {
        used.extend(ask.target.values().chain(ask.places.values()));
        if let Some((_, body)) = &ask.body {
            body.add_values(&mut used);
        }
    }
    values::check_used(&scheme.values, &used, fields, problems);
}
