//! From `hmac` and `digest` in a manifest to a [`MacCheck`]; what looks safe and is not is refused here.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Check;
use super::compile::parse_pointer;
use super::mac::{ALGORITHMS, ENCODINGS, KeyStep, MacCheck};
use super::parts::{EntryName, Format, Part, Source, TimeUnit, TimestampRule};
use super::signed::Signed;
use crate::fields::{Fields, is_header_name};
use crate::pointer;
use crate::problem::Problems;

/// What HubSpot's third scheme decodes; the default of `url_decoded`.
const DECODED_BY_DEFAULT: &str = ":/?@!$'()*,;";

/// Most texts of which one may follow the signed parts; each costs a signature per secret.
///
/// Limit: `suffix_variants` of a signature | the manifest is refused, `bad_value` | `signatures_are_looked_for_within_bounds`
const MAX_SUFFIXES: usize = 4;

pub(super) fn read_mac(value: &Value, place: &str, keyed: bool, problems: &mut Problems) -> Option<Check> {
    let mut known = SIGNED_KEYS.to_vec();
    known.extend([
        "alg",
        "key",
        "each",
        "body_hash_query",
        "url_port_variants",
        "suffix_variants",
        "charset",
    ]);
    let fields = Fields::open(value, place, &known, problems)?;
    fields.required("alg", problems);
    let alg = fields.choice("alg", &ALGORITHMS, problems);
    let each = match fields.get("each") {
        Some(_) => Some(parse_pointer(
            fields.text("each", problems)?,
            &fields.at("each"),
            problems,
        )?),
        None => None,
    };
    let signed = read_signed(&fields, each.is_some(), problems);
    if let Some(signed) = &signed {
        judge_secret(&signed.parts, keyed, &fields.at("parts"), problems);
    }
    let suffixes = match fields.texts("suffix_variants", problems) {
        Some(texts) if texts.is_empty() || texts.len() > MAX_SUFFIXES => {
            problems.add(
                &fields.at("suffix_variants"),
                "bad_value",
                format!("between 1 and {MAX_SUFFIXES} texts"),
            );
            return None;
        }
        Some(texts) => texts,
        None => vec![String::new()],
    };
    let charset = fields.choice("charset", &[("base64", ())], problems);
    Some(Check::Mac(Box::new(MacCheck {
        keyed,
        alg: alg?,
        signed: signed?,
        key: read_key(&fields, problems),
        each,
        body_hash_query: fields.text("body_hash_query", problems).map(str::to_owned),
        url_port_variants: fields.flag("url_port_variants", problems).unwrap_or(false),
        suffixes,
        base64_only: charset.is_some(),
    })))
}

/// The keys that all signatures share.
pub(super) const SIGNED_KEYS: [&str; 5] = ["sig", "format", "encoding", "parts", "timestamp"];

/// Reads where a signature stands, how it is written and what it is over.
pub(super) fn read_signed(fields: &Fields<'_>, in_items: bool, problems: &mut Problems) -> Option<Signed> {
    fields.required("encoding", problems);
    let encoding = fields.choice("encoding", &ENCODINGS, problems);
    let sig = fields
        .required_text("sig", problems)
        .and_then(|text| read_source(text, &fields.at("sig"), problems));
    if matches!(sig, Some(Source::SigField(_))) {
        problems.add(&fields.at("sig"), "bad_value", "`sig` cannot be a field of itself");
    }
    let format = match fields.get("format") {
        Some(format) => Some(read_format(format, &fields.at("format"), problems)?),
        None => None,
    };
    let parts = read_parts(fields, problems);
    let timestamp = match fields.get("timestamp") {
        Some(rule) => Some(read_timestamp(rule, &fields.at("timestamp"), problems)?),
        None => None,
    };
    let signed = Signed {
        sig: sig?,
        format,
        encoding: encoding?,
        parts: parts?,
        timestamp,
    };
    judge(&signed, in_items, fields.place(), problems);
    Some(signed)
}

/// Refuses combinations that look safe and are not.
fn judge(signed: &Signed, in_items: bool, place: &str, problems: &mut Problems) {
    let uses_field = |source: &Source| matches!(source, Source::SigField(_));
    let uses_item = |source: &Source| matches!(source, Source::Item(_));
    let sources: Vec<&Source> = signed
        .parts
        .iter()
        .filter_map(Part::source)
        .chain(signed.timestamp.iter().map(|rule| &rule.from))
        .collect();
    let names_headers = signed
        .parts
        .iter()
        .any(|part| matches!(part, Part::SignedHeaders { .. }));
    if signed.format.is_none() && (names_headers || sources.iter().any(|source| uses_field(source))) {
        problems.add(
            place,
            "missing_key",
            "`sig:FIELD` needs a `format` to take the signature header apart",
        );
    }
    let joins = signed.parts.iter().any(|part| matches!(part, Part::Join { .. }));
    if !in_items && (joins || uses_item(&signed.sig) || sources.iter().any(|source| uses_item(source))) {
        problems.add(
            place,
            "missing_key",
            "`item:` and `join` need `each`: the items they stand in",
        );
    }
    if !signed
        .parts
        .iter()
        .any(|part| !matches!(part, Part::Literal(_) | Part::Secret | Part::Context(_)))
    {
        problems.add(place, "weak_scheme", "the signature covers nothing of the request");
    }
    if let Some(rule) = &signed.timestamp {
        let is_signed = signed.parts.iter().any(|part| match (part, &rule.from) {
            (Part::Lines { of, .. }, Source::Json(pointer)) => of
                .values()
                .all(|names| names.iter().any(|name| pointer::join("", name) == pointer.to_string())),
            (Part::Lines { .. }, _) => false,
            (part, from) => part.source() == Some(from),
        });
        let in_body = matches!(rule.from, Source::Json(_) | Source::Form(_))
            && signed.parts.iter().any(|part| matches!(part, Part::Body));
        if !is_signed && !in_body {
            problems.add(
                &pointer::join(place, "timestamp"),
                "weak_scheme",
                "the timestamp is not among the signed parts, so it proves nothing",
            );
        }
    }
}

/// A secret is the key of an HMAC, and a part of a digest.
pub(super) fn judge_secret(parts: &[Part], keyed: bool, place: &str, problems: &mut Problems) {
    let has_secret = parts.iter().any(|part| matches!(part, Part::Secret));
    if keyed && has_secret {
        problems.add(
            place,
            "bad_value",
            "`secret` is a part of a digest; an hmac has it as its key, and other signatures have none",
        );
    }
    if !keyed && !has_secret {
        problems.add(
            place,
            "weak_scheme",
            "a digest without `secret` among its parts can be made by anybody",
        );
    }
}

fn read_format(value: &Value, place: &str, problems: &mut Problems) -> Option<Format> {
    let fields = Fields::open(value, place, &["item", "kv", "name"], problems)?;
    let kv = fields.required_text("kv", problems)?;
    let name = fields.required_text("name", problems)?;
    let item = fields.text("item", problems);
    if kv.is_empty() || item.is_some_and(str::is_empty) {
        problems.add(place, "bad_value", "separators are not empty");
        return None;
    }
    Some(Format {
        item: item.map(str::to_owned),
        kv: kv.to_owned(),
        name: match name.split_once(':') {
            Some(("ctx", context)) if !context.is_empty() => EntryName::Context(context.to_owned()),
            _ => EntryName::Literal(name.to_owned()),
        },
    })
}

/// The steps from a secret to a key, under `key`.
pub(crate) fn read_key(fields: &Fields<'_>, problems: &mut Problems) -> Vec<KeyStep> {
    let place = fields.at("key");
    let Some(steps) = fields.texts("key", problems) else {
        return Vec::new();
    };
    let mut key = Vec::with_capacity(steps.len());
    for step in steps {
        match (step.as_str(), step.split_once(':')) {
            ("base64", _) => key.push(KeyStep::Base64),
            ("hex", _) => key.push(KeyStep::Hex),
            ("sha1", _) => key.push(KeyStep::Sha1),
            (_, Some(("field", name))) if !name.is_empty() => key.push(KeyStep::Field(name.to_owned())),
            (_, Some(("strip", prefix))) if !prefix.is_empty() => key.push(KeyStep::Strip(prefix.to_owned())),
            (other, _) => problems.add_with_suggestion(
                &place,
                "bad_value",
                format!("`{other}` is not a step to a key"),
                "strip:PREFIX, field:NAME, base64, hex, sha1",
            ),
        }
    }
    key
}

fn read_parts(fields: &Fields<'_>, problems: &mut Problems) -> Option<Vec<Part>> {
    let place = fields.at("parts");
    let Some(items) = fields
        .required("parts", problems)?
        .as_array()
        .filter(|items| !items.is_empty())
    else {
        problems.add(&place, "bad_type", "`parts` is a list of what is signed, in order");
        return None;
    };
    let mut parts = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        if let Some(part) = read_part(item, &pointer::join(&place, &index.to_string()), problems) {
            parts.push(part);
        }
    }
    (parts.len() == items.len()).then_some(parts)
}

fn read_part(value: &Value, place: &str, problems: &mut Problems) -> Option<Part> {
    if value.is_object() {
        if value.get("signed_headers").is_some() {
            return read_signed_headers(value, place, problems);
        }
        if value.get("lines_by").is_some() {
            return read_lines(value, place, problems);
        }
        let known = ["url_decoded", "join", "of", "signed_headers", "lines_by"];
        let fields = Fields::open(value, place, &known, problems)?;
        if let Some(set) = fields.text("url_decoded", problems) {
            return Some(Part::UrlDecoded(set.to_owned()));
        }
        let separator = fields.required_text("join", problems)?.to_owned();
        let of = fields
            .texts("of", problems)?
            .iter()
            .map(|text| parse_pointer(text, &fields.at("of"), problems))
            .collect::<Option<Vec<_>>>()?;
        return Some(Part::Join { separator, of });
    }
    let Some(text) = value.as_str() else {
        problems.add(place, "bad_type", "a part is text or a mapping");
        return None;
    };
    match (text, text.split_once(':')) {
        ("body", _) => Some(Part::Body),
        ("method", _) => Some(Part::Method),
        ("url", _) => Some(Part::Url),
        ("url_decoded", _) => Some(Part::UrlDecoded(DECODED_BY_DEFAULT.to_owned())),
        ("form_sorted", _) => Some(Part::FormSorted),
        ("secret", _) => Some(Part::Secret),
        ("crc32_decimal", _) => Some(Part::Crc32Decimal),
        (_, Some(("lit", literal))) => Some(Part::Literal(literal.to_owned())),
        (_, Some(("ctx", name))) => Some(Part::Context(name.to_owned())),
        _ => read_source(text, place, problems).map(Part::From),
    }
}

fn read_signed_headers(value: &Value, place: &str, problems: &mut Problems) -> Option<Part> {
    let fields = Fields::open(value, place, &["signed_headers", "split", "join"], problems)?;
    let text = fields.required_text("signed_headers", problems)?;
    let Some(field) = text.strip_prefix("sig:").filter(|field| !field.is_empty()) else {
        problems.add(
            &fields.at("signed_headers"),
            "bad_value",
            format!("`{text}` is not sig:FIELD, the field of the signature that names the headers"),
        );
        return None;
    };
    let split = fields.text("split", problems).unwrap_or(" ");
    if split.is_empty() {
        problems.add(&fields.at("split"), "bad_value", "separators are not empty");
        return None;
    }
    Some(Part::SignedHeaders {
        field: field.to_owned(),
        split: split.to_owned(),
        join: fields.text("join", problems).unwrap_or(".").to_owned(),
    })
}

fn read_lines(value: &Value, place: &str, problems: &mut Problems) -> Option<Part> {
    let fields = Fields::open(value, place, &["lines_by", "of"], problems)?;
    let by = read_source(
        fields.required_text("lines_by", problems)?,
        &fields.at("lines_by"),
        problems,
    )?;
    let kinds = Fields::open_any(fields.required("of", problems)?, &fields.at("of"), problems)?;
    let mut of = BTreeMap::new();
    for kind in kinds.map().keys() {
        let names = kinds.texts(kind, problems)?;
        if names.is_empty() {
            problems.add(
                &kinds.at(kind),
                "weak_scheme",
                "the signature covers nothing of the request",
            );
        }
        of.insert(kind.clone(), names);
    }
    Some(Part::Lines { by, of })
}

pub(super) fn read_source(text: &str, place: &str, problems: &mut Problems) -> Option<Source> {
    match text.split_once(':') {
        Some(("header", name)) if is_header_name(name) => Some(Source::Header(name.to_ascii_lowercase())),
        Some(("sig", name)) if !name.is_empty() => Some(Source::SigField(name.to_owned())),
        Some(("form", name)) if !name.is_empty() => Some(Source::Form(name.to_owned())),
        Some(("json", pointer)) => parse_pointer(pointer, place, problems).map(Source::Json),
        Some(("item", pointer)) => parse_pointer(pointer, place, problems).map(Source::Item),
        _ => {
            problems.add_with_suggestion(
                place,
                "bad_value",
                format!("`{text}` is not known here"),
                "body, lit:TEXT, header:NAME, sig:FIELD, json:/pointer, form:FIELD, item:/pointer, form_sorted, method, url, url_decoded, crc32_decimal, secret",
            );
            None
        }
    }
}

fn read_timestamp(value: &Value, place: &str, problems: &mut Problems) -> Option<TimestampRule> {
    let fields = Fields::open(value, place, &["from", "unit", "max_age_s", "max_future_s"], problems)?;
    let from = read_source(fields.required_text("from", problems)?, &fields.at("from"), problems)?;
    fields.required("unit", problems)?;
    let unit = fields.choice(
        "unit",
        &[
            ("s", TimeUnit::Seconds),
            ("ms", TimeUnit::Milliseconds),
            ("iso8601", TimeUnit::Iso8601),
        ],
        problems,
    )?;
    fields.required("max_age_s", problems)?;
    let max_age_s = fields.number("max_age_s", problems)?;
    // Clocks err in both directions; a signature from far ahead would stay valid for as long.
    let max_future_s = fields.number("max_future_s", problems).unwrap_or(max_age_s);
    Some(TimestampRule {
        from,
        unit,
        max_age_s,
        max_future_s,
    })
}
