//! Requests that set a webhook up: challenges to echo, pings to ignore.
//!
//! An echo sends a stranger's text back, so it is plain text or JSON, never HTML, and the manifest must
//! say whether the request has to verify first.

use serde_json::{Map, Value};

use super::Reply;
use super::locate::{Locator, Seen};
use crate::fields::{Fields, is_header_name};
use crate::pointer;
use crate::problem::Problems;
use crate::verify::{InboundRequest, When};

/// Longest challenge that is echoed, in bytes.
const MAX_CHALLENGE_BYTES: usize = 4_096;

#[derive(Debug)]
pub(super) enum Handshake {
    Echo(Box<Echo>),
    IgnoreType(Vec<String>),
}

#[derive(Debug)]
pub(super) struct Echo {
    when: When,
    read: Read,
    write: Write,
    status: u16,
    signed: bool,
}

#[derive(Debug)]
enum Read {
    Query(String),
    Located(Locator),
}

#[derive(Debug)]
enum Write {
    Text,
    Json(String),
    Header(String),
}

impl Handshake {
    pub(super) fn reply(&self, request: &InboundRequest<'_>, body: Option<&Value>) -> Option<Reply> {
        match self {
            Self::IgnoreType(_) => None,
            Self::Echo(echo) => echo.reply(request, body),
        }
    }

    pub(super) fn ignored_types(&self) -> &[String] {
        match self {
            Self::IgnoreType(types) => types,
            Self::Echo(_) => &[],
        }
    }
}

impl Echo {
    fn reply(&self, request: &InboundRequest<'_>, body: Option<&Value>) -> Option<Reply> {
        if !self.when.holds_for(request) {
            return None;
        }
        let challenge = match &self.read {
            Read::Query(name) => {
                let (_, query) = request.url.split_once('?')?;
                crate::encode::decode_pairs(query)
                    .into_iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value)?
            }
            Read::Located(locator) => {
                let null = Value::Null;
                let body = body.unwrap_or(&null);
                locator.text(&Seen {
                    request: Some(request),
                    envelope: body,
                    unit: body,
                })?
            }
        };
        if challenge.len() > MAX_CHALLENGE_BYTES || challenge.bytes().any(|byte| byte.is_ascii_control()) {
            return None;
        }
        let mut headers = vec![("x-content-type-options".to_owned(), "nosniff".to_owned())];
        let body = match &self.write {
            Write::Text => {
                headers.push(("content-type".to_owned(), "text/plain; charset=utf-8".to_owned()));
                challenge.into_bytes()
            }
            Write::Json(field) => {
                headers.push(("content-type".to_owned(), "application/json".to_owned()));
                Value::Object(Map::from_iter([(field.clone(), Value::String(challenge))]))
                    .to_string()
                    .into_bytes()
            }
            Write::Header(name) => {
                headers.push((name.clone(), challenge));
                Vec::new()
            }
        };
        Some(Reply {
            status: self.status,
            headers,
            body,
            after_verify: self.signed,
        })
    }
}

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
    let later = [
        "hmac_reply",
        "store_secret",
        "confirm_get",
        "allow_origin",
        "status_only",
    ];
    let mut known = vec!["echo", "ignore_type"];
    known.extend(later);
    let fields = Fields::open(value, place, &known, problems)?;
    let (kind, value) = fields.single("a handshake", problems)?;
    let place = fields.at(kind);
    match kind {
        "echo" => read_echo(value, &place, problems).map(|echo| Handshake::Echo(Box::new(echo))),
        "ignore_type" => fields.texts("ignore_type", problems).map(Handshake::IgnoreType),
        other => {
            problems.add(
                &place,
                "not_supported",
                format!("the handshake `{other}` is not part of this release; supported are echo and ignore_type"),
            );
            None
        }
    }
}

fn read_echo(value: &Value, place: &str, problems: &mut Problems) -> Option<Echo> {
    let fields = Fields::open(value, place, &["when", "read", "write", "status", "signed"], problems)?;
    let when = When::read(fields.required("when", problems)?, &fields.at("when"), problems)?;
    let text = fields.required_text("read", problems)?;
    let read = match text.split_once(':') {
        Some(("query", name)) => Read::Query(name.to_owned()),
        Some(("json", pointer)) => Read::Located(Locator::read(
            &Value::String(pointer.to_owned()),
            &fields.at("read"),
            problems,
        )?),
        _ => Read::Located(Locator::read(
            &Value::String(text.to_owned()),
            &fields.at("read"),
            problems,
        )?),
    };
    let text = fields.required_text("write", problems)?;
    let write = match (text, text.split_once(':')) {
        ("text", _) => Write::Text,
        (_, Some(("json", field))) if !field.is_empty() => Write::Json(field.to_owned()),
        (_, Some(("header", name))) if is_header_name(name) => Write::Header(name.to_ascii_lowercase()),
        _ => {
            problems.add_with_suggestion(
                &fields.at("write"),
                "bad_value",
                format!("`{text}` says no form"),
                "text, json:FIELD or header:NAME",
            );
            return None;
        }
    };
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
    fields.required("signed", problems)?;
    let signed = fields.flag("signed", problems)?;
    Some(Echo {
        when,
        read,
        write,
        status: status?,
        signed,
    })
}
