//! What a request carries: from a manifest entry, and from arguments to bytes.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::build::{expression_error, put_header, rest};
use super::protocol::{GraphQl, Soap};
use super::{BuildError, CallContext, Operation, multipart};
use crate::effect::KeyCarrier;
use crate::encode::{self, Arrays};
use crate::expression::{Expression, Scope};
use crate::fields::{Fields, kind_of};
use crate::http_message::HttpRequest;
use crate::page::Place;
use crate::pointer::Pointer;
use crate::problem::Problems;
use crate::template::{IsOptional, Template, scalar_text};
use crate::xml;

/// Where the content of a body comes from.
#[derive(Debug)]
pub(super) enum Body {
    None,
    Template(Template),
    /// Every argument that nothing else uses.
    Rest,
    GraphQl(GraphQl),
    Soap(Soap),
}

/// How the content becomes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Form,
    /// Text as it is, everything else as JSON.
    Auto,
    Xml,
    Text,
    /// Base64 in the value, bytes on the wire.
    Binary,
    /// A form whose parts may be files.
    Multipart,
}

pub(super) const ENCODINGS: [(&str, Encoding); 7] = [
    ("json", Encoding::Json),
    ("form", Encoding::Form),
    ("auto", Encoding::Auto),
    ("xml", Encoding::Xml),
    ("text", Encoding::Text),
    ("binary", Encoding::Binary),
    ("multipart", Encoding::Multipart),
];

impl Encoding {
    /// Whether a body of this kind has fields into which a key or a page can be put.
    pub(super) fn has_fields(self) -> bool {
        match self {
            Self::Json | Self::Form | Self::Auto | Self::Xml | Self::Multipart => true,
            Self::Text | Self::Binary => false,
        }
    }
}

impl Body {
    /// Reads `body`, `graphql` or `soap`, and the encoding that the word itself says.
    pub(super) fn read(
        fields: &Fields<'_>,
        is_optional: IsOptional<'_>,
        load: &dyn Fn(&str) -> Option<String>,
        problems: &mut Problems,
    ) -> (Self, Option<Encoding>) {
        let stated: Vec<&str> = ["body", "graphql", "soap"]
            .into_iter()
            .filter(|key| fields.get(key).is_some())
            .collect();
        let [key] = stated.as_slice() else {
            if let [_, second, ..] = stated.as_slice() {
                let message = "an operation has one of `body`, `graphql` and `soap`";
                problems.add(&fields.at(second), "conflict", message);
            }
            return (Self::None, None);
        };
        if *key != "body" {
            if fields.get("post").is_none() {
                problems.add_with_suggestion(
                    &fields.at(key),
                    "conflict",
                    format!("`{key}` is sent by POST"),
                    "post: /path",
                );
            }
            if fields.get("encode").is_some() {
                let message = format!("`{key}` already says how to encode");
                problems.add(&fields.at("encode"), "conflict", message);
            }
        }
        let value = fields.get(key).unwrap_or(&Value::Null);
        let place = fields.at(key);
        match *key {
            "graphql" => (
                GraphQl::read(value, &place, is_optional, load, problems).map_or(Self::None, Self::GraphQl),
                Some(Encoding::Json),
            ),
            "soap" => (
                Soap::read(value, &place, is_optional, problems).map_or(Self::None, Self::Soap),
                Some(Encoding::Xml),
            ),
            _ => read_plain(value, fields, is_optional, problems),
        }
    }

    pub(super) fn takes_rest(&self) -> bool {
        match self {
            Self::Rest => true,
            Self::GraphQl(graphql) => graphql.takes_rest(),
            Self::None | Self::Template(_) | Self::Soap(_) => false,
        }
    }

    /// Calls `visit` with every expression in it.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(&Expression)) {
        match self {
            Self::None | Self::Rest => {}
            Self::Template(template) => template.visit(visit),
            Self::GraphQl(graphql) => graphql.visit(visit),
            Self::Soap(soap) => soap.visit(visit),
        }
    }
}

fn read_plain(
    value: &Value,
    fields: &Fields<'_>,
    is_optional: IsOptional<'_>,
    problems: &mut Problems,
) -> (Body, Option<Encoding>) {
    match value.as_str() {
        Some("json") => return (Body::Rest, Some(Encoding::Json)),
        Some("form") => return (Body::Rest, Some(Encoding::Form)),
        Some(_) | None => {}
    }
    let template = Template::compile(value, &fields.at("body"), is_optional, problems);
    let is_text = fields.get("encode").and_then(Value::as_str) == Some("text");
    if matches!(&template, Template::Literal(Value::String(_))) && !is_text {
        problems.add(
            &fields.at("body"),
            "bad_value",
            "`body` is `json`, `form`, a template, or one expression; fixed text needs `encode: text`",
        );
    }
    (Body::Template(template), None)
}

/// Puts the body of a call into its request.
pub(super) fn set_body(
    operation: &Operation,
    ctx: &CallContext<'_>,
    scope: &Scope<'_>,
    key: Option<&(KeyCarrier, &str)>,
    request: &mut HttpRequest,
) -> Result<(), BuildError> {
    let mut body: Option<Cow<'_, Value>> = match &operation.body {
        Body::None => None,
        Body::Template(template) => template
            .render(scope)
            .map_err(|error| expression_error(error, "/body"))?,
        Body::Rest => Some(Cow::Owned(Value::Object(rest(operation, ctx.args)))),
        Body::GraphQl(graphql) => Some(Cow::Owned(graphql.value(operation, ctx.args, scope)?)),
        Body::Soap(soap) => Some(Cow::Owned(soap.content(scope)?)),
    };
    for (pointer, value) in insertions(operation, ctx, key) {
        let mut owned = body.take().map_or(Value::Null, Cow::into_owned);
        if !pointer.write(&mut owned, value) {
            return Err(BuildError::new(
                "/body",
                "the body has no place for a paging value or key: it is not a mapping",
            ));
        }
        body = Some(Cow::Owned(owned));
    }
    if let Body::Soap(soap) = &operation.body {
        let envelope = soap.envelope(body.map_or(Value::Null, Cow::into_owned), scope)?;
        soap.set_headers(request)?;
        request.body = Some(to_xml(&envelope)?);
        return Ok(());
    }
    let Some(body) = body else { return Ok(()) };
    let Some((bytes, kind)) = encoded(operation, &body)? else {
        return Ok(());
    };
    // Nobody else knows the boundary.
    if operation.encoding == Encoding::Multipart || request.header("content-type").is_none() {
        put_header(request, "Content-Type", &kind)?;
    }
    request.body = Some(bytes);
    Ok(())
}

/// Bytes and what they are.
type Encoded<'b> = (Vec<u8>, Cow<'b, str>);

/// The bytes of a body; `None` when there is nothing to send.
fn encoded<'b>(operation: &Operation, body: &'b Value) -> Result<Option<Encoded<'b>>, BuildError> {
    const JSON: &str = "application/json";
    const PLAIN: &str = "text/plain; charset=utf-8";
    let (bytes, kind) = match (operation.encoding, body) {
        (Encoding::Json, _) => (to_json(body), JSON),
        (Encoding::Auto | Encoding::Text | Encoding::Binary, Value::Null) => return Ok(None),
        (Encoding::Auto, Value::String(text)) => (text.clone().into_bytes(), PLAIN),
        (Encoding::Auto, Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            (to_json(body), JSON)
        }
        (Encoding::Form, Value::Object(map)) => {
            let mut form = String::new();
            encode::pairs(&mut form, map, operation.arrays.unwrap_or(Arrays::Indexes));
            (form.into_bytes(), "application/x-www-form-urlencoded")
        }
        (Encoding::Multipart, Value::Object(map)) => {
            let (bytes, kind) = multipart::encode(map)?;
            return Ok(Some((bytes, Cow::Owned(kind))));
        }
        (Encoding::Form | Encoding::Multipart, other) => {
            let message = format!("a form must be a mapping, found {}", kind_of(other));
            return Err(BuildError::new("/body", message));
        }
        (Encoding::Xml, _) => (to_xml(body)?, "application/xml"),
        (Encoding::Text, _) => {
            let text = scalar_text(body).map_err(|error| BuildError::new("/body", error.message))?;
            (text.into_owned().into_bytes(), PLAIN)
        }
        (Encoding::Binary, Value::String(text)) => (from_base64(text)?, "application/octet-stream"),
        // The output of an operation with `answer: binary`, passed on.
        (Encoding::Binary, Value::Object(map)) => {
            let Some(text) = map.get("base64").and_then(Value::as_str) else {
                return Err(BuildError::new(
                    "/body",
                    "a binary body is base64, or a mapping with `base64`",
                ));
            };
            let kind = map.get("content_type").and_then(Value::as_str);
            return Ok(Some((
                from_base64(text)?,
                Cow::Borrowed(kind.unwrap_or("application/octet-stream")),
            )));
        }
        (Encoding::Binary, other) => {
            let message = format!("a binary body is base64, found {}", kind_of(other));
            return Err(BuildError::new("/body", message));
        }
    };
    Ok(Some((bytes, Cow::Borrowed(kind))))
}

/// Where a page and a key go inside a body.
fn insertions(operation: &Operation, ctx: &CallContext<'_>, key: Option<&(KeyCarrier, &str)>) -> Vec<(Pointer, Value)> {
    let mut insertions = Vec::new();
    if let Some(paging) = &operation.paging {
        if let Some(size) = paging.size()
            && let Place::Body(pointer) = &size.into
        {
            insertions.push((pointer.clone(), size.value.into()));
        }
        if let (Some(token), Some(Place::Body(pointer))) = (paging.token(ctx.page), paging.into()) {
            insertions.push((pointer.clone(), token));
        }
    }
    if let Some((KeyCarrier::BodyField(field), key)) = key
        && let Some(pointer) = Pointer::parse(field)
    {
        insertions.push((pointer, (*key).into()));
    }
    insertions
}

fn to_json(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a JSON value with text keys always has a text form")
}

fn to_xml(value: &Value) -> Result<Vec<u8>, BuildError> {
    xml::write(value)
        .map(String::into_bytes)
        .map_err(|(place, message)| BuildError::new(format!("/body{place}"), message))
}

fn from_base64(text: &str) -> Result<Vec<u8>, BuildError> {
    STANDARD
        .decode(text)
        .map_err(|_error| BuildError::new("/body", "a binary body is base64 (RFC 4648 §4), and this text is not"))
}
