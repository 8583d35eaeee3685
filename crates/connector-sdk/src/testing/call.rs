//! Cases of operations: what is sent for some arguments, and what some answer means.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Shared, compare, differs};
use crate::answer::{Answer, AnswerBody, Executed};
use crate::effect::{Effect, KeyCarrier};
use crate::encode;
use crate::fields::Fields;
use crate::http_message::{HttpRequest, HttpResponse};
use crate::operation::CallContext;
use crate::page::Page;
use crate::problem::Problems;

pub(super) const KEYS: [&str; 11] = [
    "name", "call", "config", "with", "key", "page", "effect", "request", "refused", "response", "outcome",
];

pub(super) fn run(shared: &Shared<'_>, case: &Fields<'_>, problems: &mut Problems) -> Result<(), String> {
    let Some(call) = case.required_text("call", problems) else {
        return Ok(());
    };
    let operation = shared
        .connector
        .operation(call)
        .ok_or_else(|| format!("there is no operation `{call}`"))?;
    let null = Value::Null;
    let page = case.text("page", problems).map(|token| Page {
        number: 1,
        items_before: 0,
        token: token.to_owned(),
        mark: None,
    });
    let ctx = CallContext {
        config: case.get("config").unwrap_or(&shared.config),
        args: case.get("with").unwrap_or(&null),
        idempotency_key: case.text("key", problems),
        page: page.as_ref(),
    };
    compare(
        "effect",
        case.get("effect"),
        &effect_value(&operation.effect(ctx.config, ctx.args)),
    )?;
    let request = match (operation.request(&ctx), case.get("refused")) {
        (Ok(request), None) => request,
        (Ok(_), Some(pointer)) => {
            return Err(format!("expected a refusal at {pointer}, but the request was built"));
        }
        (Err(error), Some(pointer)) => {
            return compare("refused", Some(pointer), &Value::String(error.pointer));
        }
        (Err(error), None) => {
            return Err(format!(
                "the request was refused at {}: {}",
                error.pointer, error.message
            ));
        }
    };
    if let Some(expected) = case.get("request").and_then(|value| {
        Fields::open(
            value,
            &case.at("request"),
            &["method", "url", "headers", "body", "json", "form", "base64"],
            problems,
        )
    }) {
        compare_request(&expected, &request)?;
    }
    let Some(response) = case
        .get("response")
        .and_then(|value| read_response(value, &case.at("response"), problems))
    else {
        return Ok(());
    };
    let answer = operation.response(&ctx, &response);
    let Some(expected) = case
        .get("outcome")
        .and_then(|value| Fields::open(value, &case.at("outcome"), &["done", "next", "failed"], problems))
    else {
        return Err("a case with `response` states its `outcome`".to_owned());
    };
    compare_answer(&expected, &answer, &response)
}

fn compare_request(expected: &Fields<'_>, request: &HttpRequest) -> Result<(), String> {
    compare("method", expected.get("method"), &json!(request.method))?;
    compare("url", expected.get("url"), &json!(request.url))?;
    for (name, wanted) in expected.get("headers").and_then(Value::as_object).into_iter().flatten() {
        let found = request.header(name).map_or(Value::Null, Value::from);
        compare(&format!("header {name}"), Some(wanted), &found)?;
    }
    let text = request.body.as_deref().map(String::from_utf8_lossy);
    if let Some(wanted) = expected.get("body") {
        compare("body", Some(wanted), &text.as_deref().map_or(Value::Null, Value::from))?;
    }
    if let Some(wanted) = expected.get("json") {
        let found = text
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or(Value::Null);
        compare("json body", Some(wanted), &found)?;
    }
    if let Some(wanted) = expected.get("base64") {
        let found = request
            .body
            .as_deref()
            .map_or(Value::Null, |bytes| STANDARD.encode(bytes).into());
        compare("binary body", Some(wanted), &found)?;
    }
    if let Some(wanted) = expected.get("form") {
        let pairs = encode::decode_pairs(text.as_deref().unwrap_or_default());
        let found: Map<String, Value> = pairs
            .into_iter()
            .map(|(name, value)| (name, Value::String(value)))
            .collect();
        compare("form body", Some(wanted), &Value::Object(found))?;
    }
    Ok(())
}

/// Reads `{ status, headers, json | text | base64 }`.
fn read_response(value: &Value, place: &str, problems: &mut Problems) -> Option<HttpResponse> {
    let fields = Fields::open(value, place, &["status", "headers", "json", "text", "base64"], problems)?;
    fields.required("status", problems)?;
    let status = u16::try_from(fields.number("status", problems)?).ok()?;
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in fields.get("headers").and_then(Value::as_object).into_iter().flatten() {
        headers.push((
            name.clone(),
            value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        ));
    }
    let body = match fields.get("json") {
        Some(json) => {
            if !headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
            {
                headers.push(("content-type".to_owned(), "application/json".to_owned()));
            }
            json.to_string().into_bytes()
        }
        None if fields.get("base64").is_some() => {
            let decoded = STANDARD.decode(fields.text("base64", problems)?);
            if decoded.is_err() {
                problems.add(&fields.at("base64"), "bad_value", "not base64");
            }
            decoded.ok()?
        }
        None => fields.text("text", problems).unwrap_or_default().as_bytes().to_vec(),
    };
    Some(HttpResponse { status, headers, body })
}

fn compare_answer(expected: &Fields<'_>, answer: &Answer, response: &HttpResponse) -> Result<(), String> {
    match (answer, expected.get("failed")) {
        (Answer::Done { output, next }, None) => {
            let output = match output {
                AnswerBody::Value(value) => value.clone(),
                AnswerBody::Whole => serde_json::from_slice(&response.body)
                    .map_err(|error| format!("the answer is not JSON: {error}"))?,
            };
            // `done: true` says no more than that the call succeeded.
            if let Some(wanted) = expected.get("done").filter(|wanted| **wanted != Value::Bool(true)) {
                compare("output", Some(wanted), &output)?;
            }
            compare(
                "next page",
                expected.get("next"),
                &next
                    .as_ref()
                    .map_or(Value::Null, |page| Value::from(page.token.as_str())),
            )
        }
        (
            Answer::Failed {
                code,
                message,
                http_status,
                retryable,
                retry_after_ms,
                executed,
            },
            Some(Value::Object(wanted)),
        ) => {
            let executed = match executed {
                Executed::No => "no",
                Executed::Maybe => "maybe",
            };
            let found = json!({ "code": code, "message": message, "status": http_status, "retryable": retryable, "retry_after_ms": retry_after_ms, "executed": executed });
            wanted
                .iter()
                .try_for_each(|(key, value)| compare(key, Some(value), found.get(key).unwrap_or(&Value::Null)))
        }
        (Answer::Failed { code, message, .. }, _) => {
            Err(format!("expected success, but the call failed with {code}: {message}"))
        }
        (Answer::Done { .. }, Some(wanted)) => Err(differs("outcome", wanted, &json!("done"))),
    }
}

fn effect_value(effect: &Effect) -> Value {
    match effect {
        Effect::Read => json!("read"),
        Effect::Repeatable => json!("repeatable"),
        Effect::Blind => json!("blind"),
        Effect::Keyed {
            carrier: KeyCarrier::Header(name),
            window_s,
        } => json!({ "keyed": { "header": name, "window_s": window_s } }),
        Effect::Keyed {
            carrier: KeyCarrier::BodyField(field),
            window_s,
        } => json!({ "keyed": { "field": field, "window_s": window_s } }),
        Effect::FindBy {
            operation,
            with,
            found,
            consistent,
            settle_s,
        } => {
            json!({ "find_by": { "call": operation, "with": with, "found": found, "consistent": consistent, "settle_s": settle_s } })
        }
    }
}
