//! From `handshake` in a manifest to its compiled form.

use serde_json::Value;

use super::handshake::{
    AllowOrigin, Challenge, ChallengeHmac, ConfirmGet, Handshake, Read, RequiredToken, StoreSecret, Write,
};
use super::locate::Locator;
use crate::fields::{Fields, is_header_name};
use crate::pointer;
use crate::problem::Problems;
use crate::template::Template;
use crate::verify::{ALGORITHMS, Allowed, ENCODINGS, UrlRule, When, read_key};

const KINDS: [&str; 7] = [
    "echo",
    "hmac_reply",
    "store_secret",
    "confirm_get",
    "allow_origin",
    "status_only",
    "ignore_type",
];

/// What templates of replies may name.
const NAMES: [&str; 3] = ["challenge", "hmac", "context"];

/// Reads one handshake or a list of them.
pub(super) fn read(value: &Value, place: &str, problems: &mut Problems) -> Vec<Handshake> {
    match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| read_one(item, &pointer::join(place, &index.to_string()), problems))
            .collect(),
        one => read_one(one, place, problems).into_iter().collect(),
    }
}

fn read_one(value: &Value, place: &str, problems: &mut Problems) -> Option<Handshake> {
    let fields = Fields::open(value, place, &KINDS, problems)?;
    let (kind, value) = fields.single("a handshake", problems)?;
    let place = fields.at(kind);
    match kind {
        "echo" => read_challenge(value, &place, false, problems),
        "hmac_reply" => read_challenge(value, &place, true, problems),
        "store_secret" => read_store_secret(value, &place, problems),
        "confirm_get" => read_confirm_get(value, &place, problems),
        "allow_origin" => read_allow_origin(value, &place, problems),
        "status_only" => read_status_only(value, &place, problems),
        "ignore_type" => fields.texts("ignore_type", problems).map(Handshake::IgnoreType),
        // `open` has reported it.
        _ => None,
    }
}

fn read_challenge(value: &Value, place: &str, with_hmac: bool, problems: &mut Problems) -> Option<Handshake> {
    let mut known = vec!["when", "read", "write", "status", "signed", "require_token"];
    if with_hmac {
        known.extend(["alg", "encoding", "key", "prefix"]);
    }
    let fields = Fields::open(value, place, &known, problems)?;
    let when = When::read(fields.required("when", problems)?, &fields.at("when"), problems)?;
    let read = match fields.get("read") {
        Some(_) => Some(read_read(&fields, problems)?),
        None => None,
    };
    let hmac = match with_hmac {
        true => Some(read_hmac(&fields, problems)?),
        false => None,
    };
    let token = match fields.get("require_token") {
        Some(value) => Some(read_required_token(value, &fields.at("require_token"), problems)?),
        None => None,
    };
    let write = read_write(fields.required("write", problems)?, &fields.at("write"), problems)?;
    let fixed =
        matches!(&write, Write::TextTemplate(template) | Write::JsonTemplate(template) if template.is_literal());
    if read.is_none() && (with_hmac || !fixed) {
        problems.add(place, "missing_key", "`read` says where the challenge stands");
    }
    let status = read_status(&fields, problems);
    fields.required("signed", problems)?;
    Some(Handshake::Challenge(Box::new(Challenge {
        when,
        read,
        token,
        hmac,
        write,
        status: status?,
        signed: fields.flag("signed", problems)?,
    })))
}

fn read_hmac(fields: &Fields<'_>, problems: &mut Problems) -> Option<ChallengeHmac> {
    fields.required("alg", problems);
    fields.required("encoding", problems);
    let alg = fields.choice("alg", &ALGORITHMS, problems);
    let encoding = fields.choice("encoding", &ENCODINGS, problems);
    Some(ChallengeHmac {
        alg: alg?,
        encoding: encoding?,
        key: read_key(fields, problems),
        prefix: fields.text("prefix", problems).unwrap_or_default().to_owned(),
    })
}

fn read_required_token(value: &Value, place: &str, problems: &mut Problems) -> Option<RequiredToken> {
    let fields = Fields::open(value, place, &["at", "key"], problems)?;
    let at = fields.required_text("at", problems)?;
    let Some(name) = at.strip_prefix("query:").filter(|name| !name.is_empty()) else {
        problems.add(&fields.at("at"), "bad_value", format!("`{at}` is not query:NAME"));
        return None;
    };
    Some(RequiredToken {
        query: name.to_owned(),
        key: read_key(&fields, problems),
    })
}

fn read_read(fields: &Fields<'_>, problems: &mut Problems) -> Option<Read> {
    let text = fields.required_text("read", problems)?;
    if let Some(("query", name)) = text.split_once(':') {
        return Some(Read::Query(name.to_owned()));
    }
    read_locator(fields, problems).map(Read::Located)
}

/// `json:/pointer` is the same as `/pointer`: a handshake has one body and no units.
fn read_locator(fields: &Fields<'_>, problems: &mut Problems) -> Option<Locator> {
    let text = fields.required_text("read", problems)?;
    let text = text.strip_prefix("json:").unwrap_or(text);
    Locator::read(&Value::String(text.to_owned()), &fields.at("read"), problems)
}

fn read_write(value: &Value, place: &str, problems: &mut Problems) -> Option<Write> {
    if value.is_object() {
        let fields = Fields::open(value, place, &["text", "json"], problems)?;
        let (kind, value) = fields.single("`write`", problems)?;
        let place = fields.at(kind);
        if kind == "text" && !value.is_string() {
            problems.add(&place, "bad_type", "`text` must be text");
            return None;
        }
        let before = problems.len();
        let template = Template::compile(value, &place, &|_| false, problems);
        let mut unknown = Vec::new();
        template.visit(&mut |expression| {
            let roots = expression.roots().into_iter().filter(|root| !NAMES.contains(root));
            unknown.extend(roots.map(str::to_owned));
        });
        for name in unknown {
            problems.add_with_suggestion(
                &place,
                "bad_expression",
                format!("`{name}` is not known here"),
                format!("known are {}", NAMES.join(", ")),
            );
        }
        return (problems.len() == before).then_some(match kind {
            "text" => Write::TextTemplate(template),
            _ => Write::JsonTemplate(template),
        });
    }
    let text = value.as_str().unwrap_or_default();
    match (text, text.split_once(':')) {
        ("text", _) => Some(Write::Text),
        (_, Some(("json", field))) if !field.is_empty() => Some(Write::Json(field.to_owned())),
        (_, Some(("header", name))) if is_header_name(name) => Some(Write::Header(name.to_ascii_lowercase())),
        _ => {
            problems.add_with_suggestion(
                place,
                "bad_value",
                "not a way to write the challenge",
                "text, json:FIELD, header:NAME, { text: TEMPLATE } or { json: TEMPLATE }",
            );
            None
        }
    }
}

fn read_status(fields: &Fields<'_>, problems: &mut Problems) -> Option<u16> {
    let status = fields.number("status", problems).map_or(Some(200), |status| {
        u16::try_from(status).ok().filter(|status| (200..300).contains(status))
    });
    if status.is_none() {
        problems.add(
            &fields.at("status"),
            "bad_value",
            "a handshake is answered with a 2xx status",
        );
    }
    status
}

fn read_store_secret(value: &Value, place: &str, problems: &mut Problems) -> Option<Handshake> {
    let fields = Fields::open(value, place, &["when", "read", "write", "status"], problems)?;
    let when = match fields.get("when") {
        Some(value) => Some(When::read(value, &fields.at("when"), problems)?),
        None => None,
    };
    let text = fields.required_text("read", problems)?;
    let header = match text.split_once(':') {
        Some(("header", name)) => Some(name.to_ascii_lowercase()),
        Some(("json", pointer)) if pointer.starts_with('/') => None,
        _ => {
            problems.add(
                &fields.at("read"),
                "bad_value",
                format!("`{text}` is not header:NAME or json:/pointer"),
            );
            return None;
        }
    };
    let read = read_locator(&fields, problems)?;
    let echo = match fields.text("write", problems).map(|text| (text, text.split_once(':'))) {
        None => None,
        Some((_, Some(("header", name)))) if is_header_name(name) => Some(name.to_ascii_lowercase()),
        Some((text, _)) => {
            problems.add(
                &fields.at("write"),
                "bad_value",
                format!("`{text}` is not header:NAME, in which the secret goes back"),
            );
            return None;
        }
    };
    Some(Handshake::StoreSecret(StoreSecret {
        when,
        header,
        read,
        echo,
        status: read_status(&fields, problems)?,
    }))
}

fn read_confirm_get(value: &Value, place: &str, problems: &mut Problems) -> Option<Handshake> {
    let fields = Fields::open(value, place, &["when", "read", "https_host_allow", "status"], problems)?;
    let when = When::read(fields.required("when", problems)?, &fields.at("when"), problems)?;
    let read = read_locator(&fields, problems)?;
    Some(Handshake::ConfirmGet(ConfirmGet {
        when,
        read,
        rule: UrlRule::read(&fields, false, problems)?,
        status: read_status(&fields, problems)?,
    }))
}

fn read_allow_origin(value: &Value, place: &str, problems: &mut Problems) -> Option<Handshake> {
    let fields = Fields::open(value, place, &["origins", "rate"], problems)?;
    fields.required("origins", problems)?;
    let origins = Allowed::read(&fields, "origins", problems)?;
    let rate = match fields.get("rate") {
        Some(_) => Some(Allowed::read(&fields, "rate", problems)?),
        None => None,
    };
    if rate.as_ref().is_some_and(|rate| !rate.is_number()) {
        problems.add(
            &fields.at("rate"),
            "bad_value",
            "`rate` is a whole number of requests per minute",
        );
    }
    Some(Handshake::AllowOrigin(AllowOrigin { origins, rate }))
}

fn read_status_only(value: &Value, place: &str, problems: &mut Problems) -> Option<Handshake> {
    if let Some(text) = value.as_str() {
        if text == "refusals" {
            return Some(Handshake::BareRefusals);
        }
        problems.add_with_suggestion(
            place,
            "bad_value",
            format!("`{text}` is not known here"),
            "refusals, or a mapping with `when` and `signed`",
        );
        return None;
    }
    let fields = Fields::open(value, place, &["when", "status", "signed"], problems)?;
    let when = When::read(fields.required("when", problems)?, &fields.at("when"), problems)?;
    fields.required("signed", problems)?;
    Some(Handshake::StatusOnly {
        when,
        status: read_status(&fields, problems)?,
        signed: fields.flag("signed", problems)?,
    })
}
