//! How the body of an answer becomes a value: JSON, XML, text, bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

use crate::fields::{Fields, choose};
use crate::http_message::HttpResponse;
use crate::problem::Problems;
use crate::xml;

/// How an operation's answers are read.
#[derive(Debug, Default)]
pub(crate) enum Reading {
    /// JSON where it is JSON, text where it is text, bytes otherwise.
    #[default]
    Auto,
    /// JSON and nothing else.
    Json,
    /// XML, by the mapping of [`crate::xml`].
    Xml { lists: Vec<String> },
    /// What is in the body of a SOAP envelope.
    Soap { lists: Vec<String> },
    /// Text, whatever it looks like.
    Text,
    /// Bytes, whatever they are.
    Binary,
}

/// Makes the way of reading that a word stands for.
type Make = fn() -> Reading;

const WORDS: [(&str, Make); 4] = [
    ("json", || Reading::Json),
    ("xml", || Reading::Xml { lists: Vec::new() }),
    ("text", || Reading::Text),
    ("binary", || Reading::Binary),
];

impl Reading {
    /// Reads `answer` of an operation: a word, or `{ xml: { lists: [NAME] } }`.
    pub(crate) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        if let Some(word) = value.as_str() {
            return choose(word, &WORDS, place, problems).map(|make| make());
        }
        let fields = Fields::open(value, place, &["xml"], problems)?;
        let xml = fields.required("xml", problems)?;
        let fields = Fields::open(xml, &fields.at("xml"), &["lists"], problems)?;
        let lists = fields.texts("lists", problems).unwrap_or_default();
        Some(Self::Xml { lists })
    }

    pub(crate) fn is_xml(&self) -> bool {
        match self {
            Self::Xml { .. } | Self::Soap { .. } => true,
            Self::Auto | Self::Json | Self::Text | Self::Binary => false,
        }
    }

    /// What the sender is asked for.
    pub(crate) fn accept(&self) -> &'static str {
        match self {
            Self::Auto | Self::Json => "application/json",
            Self::Xml { .. } => "application/xml, text/xml;q=0.9",
            Self::Soap { .. } => "text/xml, application/soap+xml",
            Self::Text => "text/plain, text/*;q=0.9, */*;q=0.1",
            Self::Binary => "*/*",
        }
    }

    /// Whether a body has nothing in it.
    pub(crate) fn is_empty(&self, body: &[u8]) -> bool {
        match self {
            Self::Text | Self::Binary => body.is_empty(),
            Self::Auto | Self::Json | Self::Xml { .. } | Self::Soap { .. } => body.iter().all(u8::is_ascii_whitespace),
        }
    }

    /// What rules, lists and paging look into. The error says why there is nothing to look into.
    pub(crate) fn value(&self, response: &HttpResponse) -> Result<Value, String> {
        let json = || serde_json::from_slice(&response.body).map_err(|_error| "the answer is not JSON".to_owned());
        let lists = match self {
            Self::Xml { lists } | Self::Soap { lists } if !says_json(response) => lists,
            Self::Auto | Self::Json | Self::Xml { .. } | Self::Soap { .. } | Self::Text | Self::Binary => {
                return json();
            }
        };
        let text = xml_text(response)?;
        let document = xml::read(&text, lists).map_err(|error| format!("the answer is not acceptable XML: {error}"))?;
        match self {
            Self::Soap { .. } => body_of(document),
            Self::Auto | Self::Json | Self::Xml { .. } | Self::Text | Self::Binary => Ok(document),
        }
    }
}

/// The content of the body of a SOAP envelope.
fn body_of(document: Value) -> Result<Value, String> {
    let Value::Object(mut document) = document else {
        return Err("the answer is no SOAP envelope".to_owned());
    };
    match document.remove("Envelope") {
        Some(Value::Object(mut envelope)) if envelope.contains_key("Body") => match envelope.remove("Body") {
            Some(Value::Object(mut body)) => {
                body.retain(|key, _| !key.starts_with('@'));
                Ok(Value::Object(body))
            }
            // An empty body is what a call without result gives.
            _ => Ok(Value::Object(Map::new())),
        },
        _ => Err("the answer is no SOAP envelope".to_owned()),
    }
}

/// Whether the answer says of itself that it is JSON.
pub(crate) fn says_json(response: &HttpResponse) -> bool {
    media_type(response).is_some_and(|kind| kind.ends_with("json"))
}

fn media_type(response: &HttpResponse) -> Option<String> {
    let kind = response.header("content-type")?.split(';').next()?.trim();
    Some(kind.to_ascii_lowercase())
}

/// The encoding that `Content-Type` names.
fn charset(response: &HttpResponse) -> Option<&'static Encoding> {
    response
        .header("content-type")?
        .split(';')
        .skip(1)
        .find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("charset")
                .then(|| Encoding::for_label(value.trim().trim_matches('"').as_bytes()))?
        })
}

/// The text of an XML answer: by its byte order mark, `Content-Type`, or its own first line.
fn xml_text(response: &HttpResponse) -> Result<Cow<'_, str>, String> {
    let encoding = charset(response).or_else(|| declared(&response.body)).unwrap_or(UTF_8);
    let (text, encoding, broken) = encoding.decode(&response.body);
    match broken {
        true => Err(format!("the answer is not text in {}", encoding.name())),
        false => Ok(text),
    }
}

/// Longest first line of an XML document that is looked into, bytes.
const DECLARATION_BYTES: usize = 200;

fn declared(body: &[u8]) -> Option<&'static Encoding> {
    let head = body.get(..body.len().min(DECLARATION_BYTES))?;
    let head = String::from_utf8_lossy(head);
    let declaration = head.trim_start().strip_prefix("<?xml")?.split("?>").next()?;
    let value = declaration
        .split_once("encoding")?
        .1
        .trim_start()
        .strip_prefix('=')?
        .trim_start();
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    Encoding::for_label(value.strip_prefix(quote)?.split(quote).next()?.as_bytes())
}

/// The text of an answer. Without a stated encoding UTF-8 where it fits, else the one of the early web.
pub(crate) fn text(response: &HttpResponse) -> Value {
    let guess = || match std::str::from_utf8(&response.body) {
        Ok(_) => UTF_8,
        Err(_) => WINDOWS_1252,
    };
    let (text, ..) = charset(response).unwrap_or_else(guess).decode(&response.body);
    Value::String(text.into_owned())
}

/// Text when the answer is text by what it says or is; otherwise its bytes.
pub(crate) fn text_or_bytes(response: &HttpResponse) -> Value {
    match charset(response).is_some() || std::str::from_utf8(&response.body).is_ok() {
        true => text(response),
        false => bytes(response),
    }
}

/// The bytes of an answer, as a value that can be passed on to an operation with `encode: binary`.
pub(crate) fn bytes(response: &HttpResponse) -> Value {
    json!({
        "content_type": response.header("content-type"),
        "bytes": response.body.len(),
        "sha256": hex::encode(Sha256::digest(&response.body)),
        "base64": STANDARD.encode(&response.body),
    })
}
