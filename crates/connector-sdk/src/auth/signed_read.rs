//! Reading `signed` of a manifest.

use serde_json::Value;

use super::places::{PLACE_KEYS, Places};
use super::secret_text::Names;
use super::signed::{Nonce, Part, SignedScheme, Stamp};
use super::values;
use crate::fields::{Fields, is_header_name, kind_of};
use crate::pointer;
use crate::problem::{Problems, nearest};
use crate::verify::{Algorithm, Encoding, KeyStep};

/// Most parts of what is signed.
///
/// Limit: parts of what is signed of a request | the manifest is refused, `too_many` | `what_is_signed_has_so_many_parts`
const MAX_SIGNED_PARTS: usize = 32;

/// The algorithms of signatures that we make. MD5 is there because providers ask for it; none of it is ever trusted.
const SIGNING: [(&str, Algorithm); 4] = [
    ("sha256", Algorithm::Sha256),
    ("sha512", Algorithm::Sha512),
    ("sha1", Algorithm::Sha1),
    ("md5", Algorithm::Md5),
];

const WRITTEN: [(&str, Encoding); 2] = [("hex", Encoding::Hex), ("base64", Encoding::Base64)];

const STAMPS: [(&str, Stamp); 5] = [
    ("s", Stamp::Seconds),
    ("ms", Stamp::Milliseconds),
    ("iso", Stamp::Iso),
    ("iso_ms", Stamp::IsoMilliseconds),
    ("http", Stamp::Http),
];

const NONCES: [(&str, Nonce); 2] = [("hex", Nonce::Hex), ("uuid", Nonce::Uuid)];

/// Parts that are one word.
static WORDS: [(&str, Part); 10] = [
    ("method", Part::Method),
    ("host", Part::Host),
    ("path", Part::Path),
    ("target", Part::Target),
    ("query", Part::Query),
    ("query_sorted", Part::QuerySorted),
    ("body", Part::Body),
    ("body_hash", Part::BodyHash),
    ("timestamp", Part::Timestamp),
    ("nonce", Part::Nonce),
];

/// Parts that begin with a word.
const PREFIXES: [&str; 3] = ["lit:TEXT", "header:NAME", "value:NAME"];

/// Reads `signed`.
pub(super) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<SignedScheme> {
    let own = [
        "values",
        "key",
        "key_encoding",
        "alg",
        "encoding",
        "parts",
        "separator",
        "body_hash",
        "timestamp",
        "nonce",
    ];
    let known: Vec<&str> = own.into_iter().chain(PLACE_KEYS).collect();
    let fields = Fields::open(value, place, &known, problems)?;
    let before = problems.len();
    let values = values::read_names(&fields, problems);
    let key = read_key_name(&fields, &values, problems);
    let key_encodings = [("utf8", None), ("hex", Some(true)), ("base64", Some(false))];
    let key_form = match fields.choice("key_encoding", &key_encodings, problems).flatten() {
        Some(true) => vec![KeyStep::Hex],
        Some(false) => vec![KeyStep::Base64],
        None => Vec::new(),
    };
    fields.required("alg", problems);
    let alg = fields.choice("alg", &SIGNING, problems);
    fields.required("encoding", problems);
    let encoding = fields.choice("encoding", &WRITTEN, problems);
    let body_hash = fields
        .get("body_hash")
        .and_then(|value| read_body_hash(value, &fields.at("body_hash"), problems));
    let parts = read_parts(&fields, &values, problems);
    let mut names: Vec<&str> = values.iter().map(String::as_str).collect();
    names.extend(["signature", "timestamp", "nonce"]);
    if fields.get("body_hash").is_some() {
        names.push("body_hash");
    }
    let names = Names {
        values: &names,
        settings: None,
    };
    let places = Places::read_some(&fields, names, problems);
    let timestamp = fields.choice("timestamp", &STAMPS, problems);
    let nonce = fields.choice("nonce", &NONCES, problems);
    let scheme = SignedScheme {
        key: key?,
        key_form,
        alg: alg?,
        encoding: encoding?,
        parts: parts?,
        separator: fields.text("separator", problems).unwrap_or_default().to_owned(),
        body_hash,
        timestamp: timestamp.unwrap_or(Stamp::Seconds),
        nonce: nonce.unwrap_or(Nonce::Hex),
        places,
        values,
    };
    // What was not read may be what would be missing here.
    if problems.len() == before {
        judge(&scheme, &fields, problems);
    }
    Some(scheme)
}

fn read_key_name(fields: &Fields<'_>, values: &[String], problems: &mut Problems) -> Option<String> {
    let key = fields.required_text("key", problems)?;
    check_value(key, values, &fields.at("key"), problems);
    Some(key.to_owned())
}

fn check_value(name: &str, values: &[String], place: &str, problems: &mut Problems) {
    if values.iter().any(|known| known == name) {
        return;
    }
    let suggestion = match nearest(name, values.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of: {}", values.join(", ")),
    };
    let message = format!("`{name}` is not one of the `values`");
    problems.add_with_suggestion(place, "unknown_name", message, suggestion);
}

fn read_body_hash(value: &Value, place: &str, problems: &mut Problems) -> Option<(Algorithm, Encoding)> {
    let fields = Fields::open(value, place, &["alg", "encoding"], problems)?;
    fields.required("alg", problems);
    fields.required("encoding", problems);
    let alg = fields.choice("alg", &SIGNING, problems);
    let encoding = fields.choice("encoding", &WRITTEN, problems);
    Some((alg?, encoding?))
}

fn read_parts(fields: &Fields<'_>, values: &[String], problems: &mut Problems) -> Option<Vec<Part>> {
    let value = fields.required("parts", problems)?;
    let place = fields.at("parts");
    let Some(items) = value.as_array().filter(|items| !items.is_empty()) else {
        let message = format!("`parts` is a list of at least one part, found {}", kind_of(value));
        problems.add(&place, "bad_type", message);
        return None;
    };
    if items.len() > MAX_SIGNED_PARTS {
        let message = format!("{} parts, at most {MAX_SIGNED_PARTS} are possible", items.len());
        problems.add(&place, "too_many", message);
    }
    let mut parts = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let place = pointer::join(&place, &index.to_string());
        let Some(text) = item.as_str() else {
            problems.add(&place, "bad_type", format!("a part is text, found {}", kind_of(item)));
            continue;
        };
        parts.extend(read_part(text, values, &place, problems));
    }
    Some(parts)
}

fn read_part(text: &str, values: &[String], place: &str, problems: &mut Problems) -> Option<Part> {
    match text.split_once(':') {
        Some(("lit", literal)) => return Some(Part::Literal(literal.to_owned())),
        Some(("header", name)) if is_header_name(name) => return Some(Part::Header(name.to_owned())),
        Some(("value", name)) => {
            check_value(name, values, place, problems);
            return Some(Part::Value(name.to_owned()));
        }
        Some(_) | None => {}
    }
    let found = WORDS.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let words = || WORDS.iter().map(|(word, _)| *word);
        let suggestion = match nearest(text, words()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of: {}", words().chain(PREFIXES).collect::<Vec<_>>().join(", ")),
        };
        let message = format!("`{text}` is not a part of a request");
        problems.add_with_suggestion(place, "bad_value", message, suggestion);
    }
    found.map(|(_, part)| part.clone())
}

/// What a provider could not check, or what is asked for in vain.
fn judge(scheme: &SignedScheme, fields: &Fields<'_>, problems: &mut Problems) {
    let put: Vec<&str> = scheme.places.values().collect();
    if !put.contains(&"signature") {
        problems.add_with_suggestion(
            fields.place(),
            "missing_key",
            "the signature is put nowhere",
            "headers: { X-Signature: \"{{ signature }}\" }",
        );
    }
    for (part, name) in [(Part::Timestamp, "timestamp"), (Part::Nonce, "nonce")] {
        if scheme.parts.contains(&part) && !put.contains(&name) {
            problems.add_with_suggestion(
                &fields.at("parts"),
                "conflict",
                format!("`{name}` is signed and not sent, so that nobody can check it"),
                format!("headers: {{ X-{}: \"{{{{ {name} }}}}\" }}", capital(name)),
            );
        }
    }
    if scheme.parts.contains(&Part::BodyHash) && scheme.body_hash.is_none() {
        problems.add_with_suggestion(
            fields.place(),
            "missing_key",
            "`body_hash` is a part, and it is not said which",
            "body_hash: { alg: sha256, encoding: hex }",
        );
    }
    let mut used = put;
    used.push(scheme.key.as_str());
    used.extend(scheme.parts.iter().filter_map(|part| match part {
        Part::Value(name) => Some(name.as_str()),
        Part::Method
        | Part::Host
        | Part::Path
        | Part::Target
        | Part::Query
        | Part::QuerySorted
        | Part::Body
        | Part::BodyHash
        | Part::Timestamp
        | Part::Nonce
        | Part::Literal(_)
        | Part::Header(_) => None,
    }));
    values::check_used(&scheme.values, &used, fields, problems);
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}
