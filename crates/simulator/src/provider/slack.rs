//! Slack's Web API, `chat.postMessage` and `auth.test`: errors come with status 200 and `"ok": false`.
//!
//! Shapes: docs.slack.dev/reference/methods/chat.postMessage. Channels whose name begins with `missing` do
//! not exist.

use serde_json::{Value, json};

use super::{Provider, Route};
use crate::api::{ApiAnswer, ApiRequest};
use crate::ledger::{EffectOutcome, digest};
use crate::world::World;

pub(super) fn route(method: &str, name: &str) -> Option<Route> {
    match (method, name) {
        ("POST", "chat.postMessage") => Some(Route::write(Provider::Slack, "slack.chat.postMessage")),
        ("GET" | "POST", "auth.test") => Some(Route::read(Provider::Slack, "slack.auth.test")),
        _ => None,
    }
}

pub(super) fn answer(world: &World, route: &'static str, request: &ApiRequest<'_>) -> ApiAnswer {
    if route == "slack.auth.test" {
        let body = json!({ "ok": true, "url": "https://acme-test.example.test/", "team": "Acme Test", "team_id": "TSIMULATOR", "user": "weir", "user_id": "USIMULATOR" });
        return ApiAnswer::json(200, &body);
    }
    let is_json = request
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("application/json"));
    let message = if is_json {
        request.json().unwrap_or_default()
    } else {
        request.form()
    };
    let channel = message["channel"].as_str().unwrap_or_default().to_owned();
    let refuse = |error: &str| {
        ApiAnswer::json(200, &json!({ "ok": false, "error": error })).with_outcome(None, EffectOutcome::Refused)
    };
    if channel.is_empty() || channel.trim_start_matches('#').starts_with("missing") {
        return refuse("channel_not_found");
    }
    let has_content = ["text", "blocks", "attachments"]
        .iter()
        .any(|field| match &message[*field] {
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        });
    if !has_content {
        return refuse("no_text");
    }
    let ts = format!("{}.{:06}", request.now_unix_ms / 1000, world.next_number() % 1_000_000);
    let identity = format!("slack:{channel}:{}", digest(message.to_string().as_bytes()));
    let posted =
        json!({ "type": "message", "user": "USIMULATOR", "team": "TSIMULATOR", "ts": ts, "text": message["text"] });
    world.store.put(
        "slack/messages",
        &ts,
        json!({ "channel": channel, "message": message, "ts": ts }),
    );
    ApiAnswer::json(
        200,
        &json!({ "ok": true, "channel": channel, "ts": ts, "message": posted }),
    )
    .done(Some(identity))
}
