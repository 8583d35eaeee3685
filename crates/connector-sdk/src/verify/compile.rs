//! From the vocabulary of manifests to a compiled check. Everything that would weaken a scheme silently
//! is refused here: unsigned timestamps, an address list as the only proof, signatures over nothing.

use serde_json::Value;

use super::compile_key::{read_certificate, read_jwt, read_public_key};
use super::compile_mac::read_mac;
use super::simple::{self, IpCheck, TokenCheck, TokenPlace};
use super::url_rule;
use super::{BodyTest, Check, Guarded, When, WhenTest};
use crate::fields::{Fields, is_header_name};
use crate::pointer::{self, Pointer};
use crate::problem::Problems;

const SCHEMES: [&str; 11] = [
    "hmac", "digest", "pubkey", "x509", "jwt", "token", "basic", "ip", "any_of", "all_of", "mtls",
];

/// Reads a whole scheme.
pub(super) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Check> {
    let fields = Fields::open(value, place, &SCHEMES, problems)?;
    let check = read_scheme(&fields, problems)?;
    if matches!(check, Check::Ip(_)) {
        problems.add(
            place,
            "weak_scheme",
            "an address list is never the only check; combine it in `all_of` with a signature or token",
        );
        return None;
    }
    Some(check)
}

/// Reads the one scheme among `fields` (beside `when`).
fn read_scheme(fields: &Fields<'_>, problems: &mut Problems) -> Option<Check> {
    let mut stated = SCHEMES.iter().filter(|name| fields.get(name).is_some());
    let (Some(name), None) = (stated.next(), stated.next()) else {
        problems.add(
            fields.place(),
            "bad_value",
            "a verification is exactly one of hmac, digest, pubkey, x509, jwt, token, basic, ip, any_of, all_of",
        );
        return None;
    };
    let place = fields.at(name);
    let value = fields.get(name)?;
    match *name {
        "hmac" => read_mac(value, &place, true, problems),
        "digest" => read_mac(value, &place, false, problems),
        "token" => read_token(value, &place, problems),
        "basic" => Fields::open(value, &place, &[], problems).map(|_| Check::Basic),
        "ip" => read_ip(value, &place, problems),
        "any_of" => {
            let checks = read_list(value, &place, problems)?;
            if checks.iter().any(|guarded| !guarded.check.proves()) {
                problems.add(
                    &place,
                    "weak_scheme",
                    "an address list cannot be an alternative to a signature; use `all_of`",
                );
            }
            Some(Check::AnyOf(checks))
        }
        "all_of" => {
            let checks = read_list(value, &place, problems)?;
            if !checks.iter().any(|guarded| guarded.check.proves()) {
                problems.add(
                    &place,
                    "weak_scheme",
                    "`all_of` needs at least one check that proves the sender",
                );
            }
            Some(Check::AllOf(checks))
        }
        "pubkey" => read_public_key(value, &place, problems),
        "x509" => read_certificate(value, &place, problems),
        "jwt" => read_jwt(value, &place, problems),
        _ => {
            problems.add_with_suggestion(
                &place,
                "not_supported",
                "client certificates end at the proxy that holds this server's own certificate",
                "check them there, and combine the proxy's address (`ip`) with a token",
            );
            None
        }
    }
}

fn read_list(value: &Value, place: &str, problems: &mut Problems) -> Option<Vec<Guarded>> {
    let Some(items) = value.as_array().filter(|items| !items.is_empty()) else {
        problems.add(place, "bad_type", "a list of verifications");
        return None;
    };
    let mut known = SCHEMES.to_vec();
    known.push("when");
    let mut checks = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let fields = Fields::open(item, &pointer::join(place, &index.to_string()), &known, problems)?;
        let when = match fields.get("when") {
            Some(when) => Some(read_when(when, &fields.at("when"), problems)?),
            None => None,
        };
        checks.push(Guarded {
            when,
            check: read_scheme(&fields, problems)?,
        });
    }
    Some(checks)
}

/// Reads a condition on a request.
pub(super) fn read_when(value: &Value, place: &str, problems: &mut Problems) -> Option<When> {
    let fields = Fields::open(
        value,
        place,
        &["method", "header", "query", "body", "equals", "present"],
        problems,
    )?;
    let equals = fields.get("equals");
    let present = fields.flag("present", problems);
    if equals.is_some() && present.is_some() {
        problems.add(place, "conflict", "state `equals` or `present`, not both");
    }
    let text_test = |problems: &mut Problems| match equals {
        Some(_) => fields
            .text("equals", problems)
            .map(|text| WhenTest::Equals(text.to_owned())),
        None => Some(WhenTest::Present(present.unwrap_or(true))),
    };
    if fields.get("method").is_some() {
        let method = fields.text("method", problems)?;
        let alone = fields.map().len() == 1;
        if !alone || method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            problems.add(
                &fields.at("method"),
                "bad_value",
                "`method` is upper case (GET, HEAD, OPTIONS) and stands alone",
            );
        }
        return Some(When::Method(method.to_owned()));
    }
    match (fields.get("header"), fields.get("query"), fields.get("body")) {
        (Some(_), None, None) => Some(When::Header {
            name: fields.text("header", problems)?.to_ascii_lowercase(),
            test: text_test(problems)?,
        }),
        (None, Some(_), None) => Some(When::Query {
            name: fields.text("query", problems)?.to_owned(),
            test: text_test(problems)?,
        }),
        (None, None, Some(_)) => {
            let pointer = parse_pointer(fields.text("body", problems)?, &fields.at("body"), problems)?;
            let test = equals.map_or(BodyTest::Present(present.unwrap_or(true)), |wanted| {
                BodyTest::Equals(wanted.clone())
            });
            Some(When::Body { pointer, test })
        }
        _ => {
            problems.add(
                place,
                "bad_value",
                "a condition looks at exactly one of `method`, `header`, `query`, `body`",
            );
            None
        }
    }
}

fn read_token(value: &Value, place: &str, problems: &mut Problems) -> Option<Check> {
    let fields = Fields::open(value, place, &["at", "prefix", "each"], problems)?;
    let text = fields.required_text("at", problems)?;
    let at_place = fields.at("at");
    let each = match fields.get("each") {
        Some(_) => Some(parse_pointer(
            fields.text("each", problems)?,
            &fields.at("each"),
            problems,
        )?),
        None => None,
    };
    let at = match (text.split_once(':'), each) {
        (None, None) if text == "path" => TokenPlace::Path,
        (Some(("header", name)), None) if is_header_name(name) => TokenPlace::Header(name.to_ascii_lowercase()),
        (Some(("query", name)), None) if !name.is_empty() => TokenPlace::Query(name.to_owned()),
        (Some(("json", pointer)), None) => TokenPlace::Json(parse_pointer(pointer, &at_place, problems)?),
        (Some(("item", pointer)), Some(each)) => TokenPlace::Each {
            each,
            item: parse_pointer(pointer, &at_place, problems)?,
        },
        _ => {
            problems.add_with_suggestion(
                &at_place,
                "bad_value",
                format!("`{text}` is no place of a token"),
                "header:NAME, query:NAME, path, json:/pointer, or item:/pointer with `each`",
            );
            return None;
        }
    };
    Some(Check::Token(TokenCheck {
        at,
        prefix: fields.text("prefix", problems).unwrap_or_default().to_owned(),
    }))
}

fn read_ip(value: &Value, place: &str, problems: &mut Problems) -> Option<Check> {
    if value.is_object() {
        let fields = Fields::open(value, place, &["url", "at"], problems)?;
        let url = url_rule::read_own(fields.required("url", problems)?, &fields.at("url"), problems);
        fields.required("at", problems)?;
        let texts = fields.texts("at", problems)?;
        let at: Option<Vec<Pointer>> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| parse_pointer(text, &pointer::join(&fields.at("at"), &index.to_string()), problems))
            .collect();
        return Some(Check::Ip(IpCheck::Published { url: url?, at: at? }));
    }
    let Some(items) = value.as_array().filter(|items| !items.is_empty()) else {
        problems.add(
            place,
            "bad_type",
            "`ip` is a list of networks such as 192.0.2.0/24, or { url, at } of a published one",
        );
        return None;
    };
    let mut networks = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        match item.as_str().and_then(simple::parse_network) {
            Some(network) => networks.push(network),
            None => problems.add(
                &pointer::join(place, &index.to_string()),
                "bad_value",
                "not a network such as 192.0.2.0/24",
            ),
        }
    }
    Some(Check::Ip(IpCheck::Listed(networks)))
}

pub(super) fn parse_pointer(text: &str, place: &str, problems: &mut Problems) -> Option<Pointer> {
    let pointer = Pointer::parse(text);
    if pointer.is_none() {
        problems.add(place, "bad_pointer", format!("`{text}` is not a JSON Pointer"));
    }
    pointer
}
