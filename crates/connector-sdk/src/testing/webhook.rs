//! Cases of webhooks: a request is signed with the scheme itself, must be accepted and give the stated
//! events; then every forgery of it must be refused.

use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::{Shared, compare};
use crate::fields::Fields;
use crate::problem::Problems;
use crate::verify::{InboundRequest, KeyDocuments, Registration, Unverified, Verifier};
use crate::webhook::{Identified, Standing, Webhook};

pub(super) const KEYS: [&str; 5] = ["name", "webhook", "events", "reply", "refused"];

/// The moment of every case that states none: 2026-01-01T00:00:00Z.
const DEFAULT_NOW_UNIX_S: u64 = 1_767_225_600;

struct Draft {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    registration: Registration,
    now_unix_ms: i64,
}

impl Draft {
    fn request<'a>(&'a self, headers: &'a [(String, String)], body: &'a [u8]) -> InboundRequest<'a> {
        InboundRequest {
            method: &self.method,
            url: &self.url,
            headers,
            body,
            registration: &self.registration,
            client_ip: None,
        }
    }
}

pub(super) fn run(shared: &Shared<'_>, case: &Fields<'_>, problems: &mut Problems) -> Result<(), String> {
    let webhook = shared.connector.webhook().ok_or("the connector has no webhook")?;
    let keys = [
        "method",
        "url",
        "headers",
        "json",
        "text",
        "body_file",
        "secret",
        "sign",
        "at_unix_s",
        "context",
    ];
    let Some(fields) = case
        .get("webhook")
        .and_then(|value| Fields::open(value, &case.at("webhook"), &keys, problems))
    else {
        return Ok(());
    };
    let draft = read_draft(shared, &fields, problems)?;
    let secret: SecretString = fields
        .text("secret", problems)
        .or(shared.secret)
        .ok_or("the case has no `secret`")?
        .into();
    let mut headers = draft.headers.clone();
    let signed = fields.flag("sign", problems).unwrap_or(true);
    if signed {
        let verifier = webhook
            .verifier()
            .ok_or("the connector leaves verification to the endpoint, so the case cannot be signed")?;
        let added = verifier.sign(&draft.request(&draft.headers, &draft.body), &secret, draft.now_unix_ms);
        headers.extend(added.map_err(|error| format!("the request cannot be signed: {error}"))?);
    }
    let request = draft.request(&headers, &draft.body);
    let secrets = std::slice::from_ref(&secret);
    let verdict = webhook
        .verify(&request, secrets, &KeyDocuments::default(), draft.now_unix_ms)
        .map_err(refusal_of);
    if let Some(wanted) = case.get("refused") {
        let found = verdict.map_or_else(|(reason, _)| json!(reason), |()| json!("accepted"));
        return compare("refused", Some(wanted), &found);
    }
    verdict.map_err(|(reason, detail)| format!("the request was refused: {reason}: {detail}"))?;
    if signed {
        refuse_forgeries(webhook, &draft, &headers, &secret)?;
    }
    let text = webhook.json_body(&request).map_err(|error| error.message)?;
    let body: Value = serde_json::from_slice(&text).map_err(|error| format!("the body is not JSON: {error}"))?;
    let standing = Standing {
        secrets,
        awaits_secret: false,
    };
    let reply = webhook
        .handshake(&request, &body, &standing)
        .map_err(|refusal| format!("the handshake was refused: {refusal}"))?
        .map(|answer| answer.reply);
    let found = reply.map_or(Value::Null, |reply| json!({ "status": reply.status, "body": String::from_utf8_lossy(&reply.body), "after_verify": reply.after_verify }));
    match case.get("reply").and_then(Value::as_object) {
        Some(wanted) => wanted.iter().try_for_each(|(key, value)| {
            compare(
                &format!("reply {key}"),
                Some(value),
                found.get(key).unwrap_or(&Value::Null),
            )
        })?,
        None if found.is_null() => {}
        None => return Err(format!("the request got a handshake reply: {found}")),
    }
    let Some(wanted) = case.get("events").and_then(Value::as_array) else {
        return Ok(());
    };
    let events = webhook
        .identify(&request, &body)
        .map_err(|error| format!("no event: {} at {}", error.message, error.pointer))?;
    if events.len() != wanted.len() {
        return Err(format!("events: expected {}, found {}", wanted.len(), events.len()));
    }
    for (wanted, event) in wanted.iter().zip(&events) {
        let found = event_value(event, shared.connector.event_type(&event.kind).is_some());
        for (key, value) in wanted.as_object().into_iter().flatten() {
            compare(
                &format!("event {key}"),
                Some(value),
                found.get(key).unwrap_or(&Value::Null),
            )?;
        }
    }
    Ok(())
}

/// Reason and detail. Cases have no fetched documents; schemes that need them are tried with vectors.
fn refusal_of(unverified: Unverified) -> (&'static str, String) {
    match unverified {
        Unverified::Refused(refusal) => (refusal.reason.as_str(), refusal.detail),
        Unverified::Wants(wanted) => ("wants_document", wanted.url),
    }
}

fn read_draft(shared: &Shared<'_>, fields: &Fields<'_>, problems: &mut Problems) -> Result<Draft, String> {
    let mut headers: Vec<(String, String)> = texts(fields.get("headers"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let body = match (fields.get("json"), fields.text("body_file", problems)) {
        (Some(json), _) => json.to_string().into_bytes(),
        (None, Some(file)) => (shared.load)(file)
            .ok_or_else(|| format!("the file `{file}` is not there"))?
            .into_bytes(),
        (None, None) => fields.text("text", problems).unwrap_or_default().as_bytes().to_vec(),
    };
    if !headers.iter().any(|(name, _)| name == "content-type") {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    let now_unix_s =
        i64::try_from(fields.number("at_unix_s", problems).unwrap_or(DEFAULT_NOW_UNIX_S)).unwrap_or(i64::MAX);
    Ok(Draft {
        method: fields.text("method", problems).unwrap_or("POST").to_owned(),
        url: fields
            .text("url", problems)
            .unwrap_or("https://hooks.example.test/hooks/ep_case")
            .to_owned(),
        headers,
        body,
        registration: texts(fields.get("context"))
            .map(|(name, value)| (name, vec![value]))
            .collect(),
        now_unix_ms: now_unix_s.saturating_mul(1_000),
    })
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = (String, String)> {
    let map: Option<&Map<String, Value>> = value.and_then(Value::as_object);
    map.into_iter().flatten().map(|(name, value)| {
        (
            name.clone(),
            value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        )
    })
}

/// What an attacker would try first.
fn refuse_forgeries(
    webhook: &Webhook,
    draft: &Draft,
    headers: &[(String, String)],
    secret: &SecretString,
) -> Result<(), String> {
    let refused = |what: &str, request: &InboundRequest<'_>, secret: &SecretString| match webhook.verify(
        request,
        std::slice::from_ref(secret),
        &KeyDocuments::default(),
        draft.now_unix_ms,
    ) {
        Ok(()) => Err(format!("a forgery was accepted: {what}")),
        Err(_) => Ok(()),
    };
    refused(
        "without the signature",
        &draft.request(&draft.headers, &draft.body),
        secret,
    )?;
    // Base64 text that is also valid UTF-8, so that every key chain can decode it.
    refused(
        "signed with another secret",
        &draft.request(headers, &draft.body),
        &SecretString::from("d2Vpci1mb3JnZXJ5LXNlY3JldDphYmNk"),
    )?;
    if webhook.verifier().is_some_and(Verifier::covers_body) {
        let mut body = draft.body.clone();
        match body.last_mut() {
            Some(last) => *last ^= 1,
            None => body.push(b' '),
        }
        refused("with a changed body", &draft.request(headers, &body), secret)?;
    }
    let added: Vec<&(String, String)> = headers.iter().skip(draft.headers.len()).collect();
    for header in added {
        let mut doubled = headers.to_vec();
        doubled.push(header.clone());
        refused(
            &format!("with {} twice", header.0),
            &draft.request(&doubled, &draft.body),
            secret,
        )?;
    }
    Ok(())
}

fn event_value(event: &Identified, is_declared: bool) -> Value {
    let reference = event
        .reference
        .as_ref()
        .map(|(kind, id, version)| json!({ "type": kind, "id": id, "version": version }));
    json!({
        "unit": event.unit_pointer,
        "id": event.id,
        "id_from_provider": event.id_from_provider,
        "type": event.kind,
        "time_unix_ms": event.time_unix_ms,
        "account": event.account,
        "ref": reference,
        "data": event.data_pointer,
        "dedupe_key": event.dedupe_key,
        "by_arrival": event.by_arrival,
        "order_key": event.order_key,
        "ignored": event.ignored,
        "declared": is_declared,
    })
}
