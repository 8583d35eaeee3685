//! From `hmac` and `digest` in a manifest to a [`MacCheck`]; what looks safe and is not is refused here.

use serde_json::Value;

use super::Check;
use super::compile::parse_pointer;
use super::mac::{Algorithm, Encoding, KeyStep, MacCheck};
use super::parts::{Format, Part, Source, TimeUnit, TimestampRule};
use crate::fields::{Fields, is_header_name};
use crate::pointer;
use crate::problem::Problems;

/// What HubSpot's third scheme decodes; the default of `url_decoded`.
const DECODED_BY_DEFAULT: &str = ":/?@!$'()*,;";

pub(super) fn read_mac(value: &Value, place: &str, keyed: bool, problems: &mut Problems) -> Option<Check> {
    let known = [
        "alg",
        "sig",
        "format",
        "encoding",
        "key",
        "parts",
        "timestamp",
        "each",
        "body_hash_query",
        "url_port_variants",
    ];
    let fields = Fields::open(value, place, &known, problems)?;
    fields.required("alg", problems);
    let alg = fields.choice(
        "alg",
        &[
            ("sha1", Algorithm::Sha1),
            ("sha256", Algorithm::Sha256),
            ("sha512", Algorithm::Sha512),
        ],
        problems,
    );
    fields.required("encoding", problems);
    let encodings = [
        ("hex", Encoding::Hex),
        ("base64", Encoding::Base64),
        ("base64url", Encoding::Base64Url),
    ];
    let encoding = fields.choice("encoding", &encodings, problems);
    let each = match fields.get("each") {
        Some(_) => Some(parse_pointer(
            fields.text("each", problems)?,
            &fields.at("each"),
            problems,
        )?),
        None => None,
    };
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
    let parts = read_parts(&fields, keyed, problems);
    let timestamp = match fields.get("timestamp") {
        Some(rule) => Some(read_timestamp(rule, &fields.at("timestamp"), problems)?),
        None => None,
    };
    let check = MacCheck {
        keyed,
        alg: alg?,
        sig: sig?,
        format,
        encoding: encoding?,
        key: read_key(&fields, problems),
        parts: parts?,
        timestamp,
        each,
        body_hash_query: fields.text("body_hash_query", problems).map(str::to_owned),
        url_port_variants: fields.flag("url_port_variants", problems).unwrap_or(false),
    };
    judge(&check, place, problems);
    Some(Check::Mac(Box::new(check)))
}

/// Refuses combinations that look safe and are not.
fn judge(check: &MacCheck, place: &str, problems: &mut Problems) {
    let uses_field = |source: &Source| matches!(source, Source::SigField(_));
    let uses_item = |source: &Source| matches!(source, Source::Item(_));
    let sources: Vec<&Source> = check
        .parts
        .iter()
        .filter_map(|part| match part {
            Part::From(source) => Some(source),
            Part::Body
            | Part::Literal(_)
            | Part::FormSorted
            | Part::Method
            | Part::Url
            | Part::UrlDecoded(_)
            | Part::Context(_)
            | Part::Secret
            | Part::Join { .. } => None,
        })
        .chain(check.timestamp.iter().map(|rule| &rule.from))
        .collect();
    if check.format.is_none() && sources.iter().any(|source| uses_field(source)) {
        problems.add(
            place,
            "missing_key",
            "`sig:FIELD` needs a `format` to take the signature header apart",
        );
    }
    let joins = check.parts.iter().any(|part| matches!(part, Part::Join { .. }));
    if check.each.is_none() && (joins || uses_item(&check.sig) || sources.iter().any(|source| uses_item(source))) {
        problems.add(
            place,
            "missing_key",
            "`item:` and `join` need `each`: the items they stand in",
        );
    }
    if !check
        .parts
        .iter()
        .any(|part| !matches!(part, Part::Literal(_) | Part::Secret))
    {
        problems.add(place, "weak_scheme", "the signature covers nothing of the request");
    }
    if let Some(rule) = &check.timestamp {
        let signed = check
            .parts
            .iter()
            .any(|part| matches!(part, Part::From(source) if *source == rule.from));
        let in_body = matches!(rule.from, Source::Json(_) | Source::Form(_))
            && check.parts.iter().any(|part| matches!(part, Part::Body));
        if !signed && !in_body {
            problems.add(
                &pointer::join(place, "timestamp"),
                "weak_scheme",
                "the timestamp is not among the signed parts, so it proves nothing",
            );
        }
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
        name: name.to_owned(),
    })
}

fn read_key(fields: &Fields<'_>, problems: &mut Problems) -> Vec<KeyStep> {
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
            (_, Some(("strip", prefix))) if !prefix.is_empty() => key.push(KeyStep::Strip(prefix.to_owned())),
            (other, _) => problems.add_with_suggestion(
                &place,
                "bad_value",
                format!("`{other}` is not a step to a key"),
                "strip:PREFIX, base64, hex, sha1",
            ),
        }
    }
    key
}

fn read_parts(fields: &Fields<'_>, keyed: bool, problems: &mut Problems) -> Option<Vec<Part>> {
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
    let has_secret = parts.iter().any(|part| matches!(part, Part::Secret));
    if keyed && has_secret {
        problems.add(
            &place,
            "bad_value",
            "`secret` is a part of a digest; an hmac has it as its key",
        );
    }
    if !keyed && !has_secret {
        problems.add(
            &place,
            "weak_scheme",
            "a digest without `secret` among its parts can be made by anybody",
        );
    }
    (parts.len() == items.len()).then_some(parts)
}

fn read_part(value: &Value, place: &str, problems: &mut Problems) -> Option<Part> {
    if value.is_object() {
        let fields = Fields::open(value, place, &["url_decoded", "join", "of"], problems)?;
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
        (_, Some(("lit", literal))) => Some(Part::Literal(literal.to_owned())),
        (_, Some(("ctx", name))) => Some(Part::Context(name.to_owned())),
        _ => read_source(text, place, problems).map(Part::From),
    }
}

fn read_source(text: &str, place: &str, problems: &mut Problems) -> Option<Source> {
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
                "body, lit:TEXT, header:NAME, sig:FIELD, json:/pointer, form:FIELD, item:/pointer, form_sorted, method, url, url_decoded, ctx:NAME, secret",
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
