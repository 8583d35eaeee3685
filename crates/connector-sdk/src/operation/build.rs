//! From arguments to a request. Whatever an argument contains, it cannot leave its place: path segments,
//! query values and headers are escaped or refused.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::body::set_body;
use super::url::url;
use super::{BuildError, CallContext, Headers, MethodRule, Operation, arguments};
use crate::effect::{Effect, KeyCarrier};
use crate::expression::{ExpressionError, Scope};
use crate::fields::{is_header_name, kind_of};
use crate::http_message::HttpRequest;
use crate::page::Place;
use crate::pointer;
use crate::problem::{Problems, nearest};
use crate::template::scalar_text;

/// Characters of a wrong argument that are shown: what it is, not all of it.
const SAMPLE_CHARS: usize = 80;

/// Headers that belong to the connection, not to a call.
const RESERVED_HEADERS: [&str; 7] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
];

pub(super) fn request(operation: &Operation, ctx: &CallContext<'_>) -> Result<HttpRequest, BuildError> {
    check_arguments(operation, ctx.args)?;
    let named = operation.named(ctx.config, ctx.args);
    let layers = [arguments(ctx.args), &operation.input.defaults];
    let scope = Scope {
        named: &named,
        layers: &layers,
    };
    let method = method(operation, &scope)?;
    let mut request = HttpRequest {
        method,
        url: String::new(),
        headers: Vec::with_capacity(6),
        body: None,
    };
    request
        .headers
        .push(("Accept".to_owned(), operation.reading.accept().to_owned()));
    set_headers(operation, &scope, &mut request)?;
    let key = key_carrier(operation, ctx);
    request.url = url(operation, ctx, &scope)?;
    set_body(operation, ctx, &scope, key.as_ref(), &mut request)?;
    if let Some(paging) = &operation.paging
        && let (Some(Place::Header(name)), Some(token)) = (paging.into(), paging.token(ctx.page))
    {
        let text = scalar_text(&token).map_err(|error| BuildError::new("/headers", error.message))?;
        put_header(&mut request, name, &text)?;
    }
    if let Some((KeyCarrier::Header(name), key)) = &key {
        put_header(&mut request, name, key)?;
    }
    Ok(request)
}

fn check_arguments(operation: &Operation, args: &Value) -> Result<(), BuildError> {
    if !(args.is_object() || args.is_null()) {
        return Err(BuildError::new(
            "",
            format!("the arguments must be a mapping, found {}", kind_of(args)),
        ));
    }
    let map = arguments(args);
    for (name, value) in map {
        match operation.input.fields.get(name) {
            Some(field) if field.accepts(value) => {}
            Some(field) => {
                let mut problems = Problems::default();
                field.check(name, value, &pointer::join("", name), &mut problems);
                if let Some(problem) = problems.into_list().into_iter().next() {
                    // Of the wrong type it is null already.
                    let found = args.pointer(&problem.pointer);
                    let found = found.filter(|found| !found.is_null() || problem.code != "bad_type");
                    let found = found.map(|found| format!(": {}", sample(found))).unwrap_or_default();
                    return Err(BuildError {
                        message: with_suggestion(format!("{}{found}", problem.message), problem.suggestion),
                        pointer: problem.pointer,
                    });
                }
            }
            None if operation.input.open => {}
            None => {
                let near = nearest(name, operation.input.fields.keys().map(String::as_str))
                    .map(|near| format!("did you mean `{near}`?"));
                return Err(BuildError::new(
                    pointer::join("", name),
                    with_suggestion(format!("`{name}` is not an argument of {}", operation.name), near),
                ));
            }
        }
    }
    for (name, field) in &operation.input.fields {
        if field.required && !map.contains_key(name) && !operation.input.defaults.contains_key(name) {
            return Err(BuildError::new(
                pointer::join("", name),
                format!("argument `{name}` is missing"),
            ));
        }
    }
    Ok(())
}

/// A value as JSON, or its beginning.
fn sample(value: &Value) -> String {
    let json = value.to_string();
    match json.char_indices().nth(SAMPLE_CHARS) {
        Some((end, _)) => format!("{}…", json.get(..end).unwrap_or_default()),
        None => json,
    }
}

fn with_suggestion(message: String, suggestion: Option<String>) -> String {
    match suggestion {
        Some(suggestion) => format!("{message} ({suggestion})"),
        None => message,
    }
}

pub(super) fn expression_error(error: ExpressionError, place: &str) -> BuildError {
    let pointer = error
        .missing
        .map_or_else(|| place.to_owned(), |root| pointer::join("", &root));
    BuildError::new(pointer, error.message)
}

fn method(operation: &Operation, scope: &Scope<'_>) -> Result<String, BuildError> {
    match &operation.method {
        MethodRule::Fixed(method) => Ok((*method).to_owned()),
        MethodRule::Computed(template) => {
            let method = template
                .render_to_text(scope)
                .map_err(|error| expression_error(error, "/method"))?;
            method
                .filter(|method| !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase()))
                .map(Cow::into_owned)
                .ok_or_else(|| BuildError::new("/method", "not an upper-case HTTP method"))
        }
    }
}

/// Arguments (with defaults) that path, query and headers do not use.
pub(super) fn rest(operation: &Operation, args: &Value) -> Map<String, Value> {
    let args = arguments(args);
    let defaults = operation
        .input
        .defaults
        .iter()
        .filter(|(name, _)| !args.contains_key(*name));
    args.iter()
        .chain(defaults)
        .filter(|(name, _)| !operation.used.iter().any(|used| used == *name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn set_headers(operation: &Operation, scope: &Scope<'_>, request: &mut HttpRequest) -> Result<(), BuildError> {
    for (name, template) in &operation.common.headers {
        if let Some(value) = template
            .render_to_text(scope)
            .map_err(|error| expression_error(error, "/config"))?
        {
            put_header(request, name, &value)?;
        }
    }
    match &operation.headers {
        Headers::Named(headers) => {
            for (name, template) in headers {
                if let Some(value) = template
                    .render_to_text(scope)
                    .map_err(|error| expression_error(error, "/headers"))?
                {
                    put_header(request, name, &value)?;
                }
            }
        }
        Headers::Given(template) => match template
            .render(scope)
            .map_err(|error| expression_error(error, "/headers"))?
            .as_deref()
        {
            None | Some(Value::Null) => {}
            Some(Value::Object(map)) => {
                for (name, value) in map {
                    let place = pointer::join("/headers", name);
                    let text = scalar_text(value).map_err(|error| BuildError::new(place, error.message))?;
                    put_header(request, name, &text)?;
                }
            }
            Some(other) => {
                return Err(BuildError::new(
                    "/headers",
                    format!("the headers must be a mapping, found {}", kind_of(other)),
                ));
            }
        },
    }
    Ok(())
}

pub(super) fn put_header(request: &mut HttpRequest, name: &str, value: &str) -> Result<(), BuildError> {
    let place = || pointer::join("/headers", name);
    if !is_header_name(name) {
        return Err(BuildError::new(place(), "not a header name"));
    }
    if RESERVED_HEADERS
        .iter()
        .any(|reserved| reserved.eq_ignore_ascii_case(name))
    {
        return Err(BuildError::new(
            place(),
            format!("`{name}` is set by the sender itself"),
        ));
    }
    if value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
        return Err(BuildError::new(
            place(),
            "a header value must not contain control characters",
        ));
    }
    request.set_header(name, value);
    Ok(())
}

fn key_carrier<'a>(operation: &Operation, ctx: &CallContext<'a>) -> Option<(KeyCarrier, &'a str)> {
    let key = ctx.idempotency_key?;
    match operation.effect(ctx.config, ctx.args) {
        Effect::Keyed { carrier, .. } => Some((carrier, key)),
        Effect::Read | Effect::FindBy { .. } | Effect::Repeatable | Effect::Blind => None,
    }
}
