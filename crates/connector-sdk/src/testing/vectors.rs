//! Runs request vectors against a connector: whole requests with the verdict that a correct receiver gives.
//!
//! A vector file is JSON: `format` 1, `vectors` (each with `expect: accept | reject`) and `handshakes` (each with
//! `expect_response`, and `expect_effect` when something has to be done). Everything that a verdict hangs on stands in the
//! file: the secrets, the time, public keys, certificates and key sets. Nothing is fetched.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use crate::connector::Connector;
use crate::fields::Fields;
use crate::pointer;
use crate::problem::{Problem, Problems};
use crate::verify::{
    InboundRequest, KeyDocument, KeyDocuments, Refusal, RefusalReason, Registration, Unverified, WantedDocument,
};
use crate::webhook::{Errand, Handshaken, Reply, Standing, Webhook};

/// Most documents that one vector may make a verification ask for.
const MAX_ASKED: usize = 8;

/// How one vector ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorOutcome {
    /// The vector's id.
    pub id: String,
    /// What the file expects, in words.
    pub expected: String,
    /// What came out, in words: a refusal with its reason.
    pub found: String,
    /// What differs; `None` when nothing does.
    pub failure: Option<String>,
}

/// Which vectors of a file are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection<'a> {
    /// Every one.
    All,
    /// Those of this provider.
    Of(&'a str),
    /// Those that name no provider.
    Nameless,
}

/// Runs these vectors of a file.
///
/// # Errors
/// [`Problem`]s with pointers when the text is not a vector file. A vector with another verdict is an outcome.
pub fn run_vectors(
    connector: &Connector,
    text: &str,
    selection: Selection<'_>,
) -> Result<Vec<VectorOutcome>, Vec<Problem>> {
    let mut problems = Problems::default();
    let file: Value = match serde_json::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            problems.add("", "bad_json", format!("the file is not JSON: {error}"));
            return Err(problems.into_list());
        }
    };
    let outcomes = run_file(connector, &file, selection, &mut problems);
    problems.finish(outcomes)
}

/// The providers that a vector file names, in order, each once. `None` stands for the vectors that name none.
///
/// # Errors
/// [`Problem`]s when the text is not JSON.
pub fn vector_providers(text: &str) -> Result<Vec<Option<String>>, Vec<Problem>> {
    let file: Value = serde_json::from_str(text).map_err(|error| {
        let mut problems = Problems::default();
        problems.add("", "bad_json", format!("the file is not JSON: {error}"));
        problems.into_list()
    })?;
    let mut names: Vec<Option<String>> = Vec::new();
    let lists = ["vectors", "handshakes"]
        .into_iter()
        .filter_map(|key| file.get(key)?.as_array());
    for vector in lists.flatten() {
        let name = named_provider(vector);
        if !names.iter().any(|known| known.as_deref() == name) {
            names.push(name.map(str::to_owned));
        }
    }
    Ok(names)
}

fn named_provider(vector: &Value) -> Option<&str> {
    vector.get("provider").and_then(Value::as_str)
}

fn run_file(
    connector: &Connector,
    file: &Value,
    selection: Selection<'_>,
    problems: &mut Problems,
) -> Option<Vec<VectorOutcome>> {
    let known = ["format", "title", "now_unix_default", "notes", "vectors", "handshakes"];
    let fields = Fields::open(file, "", &known, problems)?;
    if fields.required("format", problems)?.as_u64() != Some(1) {
        problems.add("/format", "bad_value", "only vector files of `format` 1 are known");
        return None;
    }
    let Some(webhook) = connector.webhook() else {
        problems.add(
            "",
            "no_webhooks",
            format!("the connector `{}` takes no webhooks", connector.name()),
        );
        return None;
    };
    let default_now = fields.number("now_unix_default", problems);
    let mut outcomes = Vec::new();
    for key in ["vectors", "handshakes"] {
        let Some(list) = fields.get(key) else {
            continue;
        };
        let Some(list) = list.as_array() else {
            problems.add(&fields.at(key), "bad_type", format!("`{key}` is a list"));
            continue;
        };
        for (index, value) in list.iter().enumerate() {
            let named = named_provider(value);
            let is_meant = match selection {
                Selection::All => true,
                Selection::Of(provider) => named == Some(provider),
                Selection::Nameless => named.is_none(),
            };
            if !is_meant {
                continue;
            }
            let place = pointer::join(&fields.at(key), &index.to_string());
            let Some(vector) = Vector::read(value, &place, default_now, problems) else {
                continue;
            };
            outcomes.push(vector.run(webhook));
        }
    }
    Some(outcomes)
}

struct Vector {
    id: String,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    registration: Registration,
    client_ip: Option<IpAddr>,
    secrets: Vec<SecretString>,
    keys: Keys,
    registration_pending: Option<bool>,
    now_unix_ms: i64,
    expected: Expected,
}

/// Key material in place of fetching it.
#[derive(Default)]
struct Keys {
    documents: BTreeMap<String, Vec<u8>>,
    /// The answer to whatever key set is wanted.
    jwks: Option<Vec<u8>>,
}

enum Expected {
    Verdict {
        accept: bool,
        reason: Option<String>,
    },
    Response {
        response: Map<String, Value>,
        effect: Option<Value>,
    },
}

/// What a receiver does with a request.
enum Received {
    Accepted,
    Answered(Handshaken),
    Refused(Refusal),
}

impl Vector {
    fn read(value: &Value, place: &str, default_now: Option<u64>, problems: &mut Problems) -> Option<Self> {
        let known = [
            "id",
            "provider",
            "kind",
            "method",
            "url",
            "headers",
            "body_base64",
            "secrets",
            "keys",
            "context",
            "client_ip",
            "now_unix",
            "expect",
            "expect_reason",
            "expect_response",
            "expect_effect",
            "why",
            "basis",
        ];
        let before = problems.len();
        let fields = Fields::open(value, place, &known, problems)?;
        let id = fields.required_text("id", problems)?.to_owned();
        let body = fields.text("body_base64", problems).unwrap_or_default();
        let Ok(body) = STANDARD.decode(body) else {
            problems.add(&fields.at("body_base64"), "bad_value", "not Base64");
            return None;
        };
        let mut secrets = read_secrets(&fields, problems);
        let keys = match fields.get("keys") {
            Some(value) => read_keys(value, &fields.at("keys"), &mut secrets, problems)?,
            None => Keys::default(),
        };
        let context = fields.get("context");
        let client_ip = match fields.text("client_ip", problems).map(str::parse) {
            None => None,
            Some(Ok(address)) => Some(address),
            Some(Err(_)) => {
                problems.add(&fields.at("client_ip"), "bad_value", "not an IP address");
                None
            }
        };
        let now = fields.number("now_unix", problems).or(default_now);
        let Some(now) = now.and_then(|now| i64::try_from(now).ok()) else {
            problems.add(
                place,
                "missing_key",
                "`now_unix` is missing, and the file has no `now_unix_default`",
            );
            return None;
        };
        let expected = read_expected(&fields, problems)?;
        let vector = Self {
            id,
            method: fields.required_text("method", problems)?.to_owned(),
            url: fields.required_text("url", problems)?.to_owned(),
            headers: read_headers(&fields, problems),
            body,
            registration: read_registration(context),
            client_ip,
            secrets,
            keys,
            registration_pending: context
                .and_then(|context| context.get("registration_pending"))
                .and_then(Value::as_bool),
            now_unix_ms: now.saturating_mul(1_000),
            expected,
        };
        (problems.len() == before).then_some(vector)
    }

    fn run(&self, webhook: &Webhook) -> VectorOutcome {
        let received = self.receive(webhook).unwrap_or_else(Received::Refused);
        let (expected, failure) = match &self.expected {
            Expected::Verdict { accept, reason } => judge_verdict(*accept, reason.as_deref(), &received),
            Expected::Response { response, effect } => judge_response(response, effect.as_ref(), &received, webhook),
        };
        VectorOutcome {
            id: self.id.clone(),
            expected,
            found: received.words(),
            failure,
        }
    }

    /// The order of a host.
    fn receive(&self, webhook: &Webhook) -> Result<Received, Refusal> {
        let request = InboundRequest {
            method: &self.method,
            url: &self.url,
            headers: &self.headers,
            body: &self.body,
            registration: &self.registration,
            client_ip: self.client_ip,
        };
        let awaits = || webhook.stores_secret() && self.secrets.is_empty();
        let standing = Standing {
            secrets: &self.secrets,
            awaits_secret: self.registration_pending.unwrap_or_else(awaits),
        };
        if let Some(answer) = webhook.unsigned_handshake(&request, &standing)? {
            return Ok(Received::Answered(answer));
        }
        self.verify(webhook, &request)?;
        let body = webhook.json_body(&request).ok();
        let body: Value = body
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let answer = webhook.handshake(&request, &body, &standing)?;
        Ok(answer.map_or(Received::Accepted, Received::Answered))
    }

    fn verify(&self, webhook: &Webhook, request: &InboundRequest<'_>) -> Result<(), Refusal> {
        let mut documents = KeyDocuments::default();
        for asked in 0.. {
            let wanted = match webhook.verify(request, &self.secrets, &documents, self.now_unix_ms) {
                Ok(()) => return Ok(()),
                Err(Unverified::Refused(refusal)) => return Err(refusal),
                Err(Unverified::Wants(wanted)) => wanted,
            };
            if asked == MAX_ASKED {
                break;
            }
            documents.insert(wanted.url.clone(), self.keys.answer(&wanted));
        }
        Err(Refusal::new(
            RefusalReason::KeysUnavailable,
            "the verification asks for more documents than a vector can have",
        ))
    }
}

impl Keys {
    fn answer(&self, wanted: &WantedDocument) -> KeyDocument {
        let found = self.documents.get(&wanted.url).or(self.jwks.as_ref());
        match found {
            Some(body) => KeyDocument::Here {
                body: Arc::from(body.as_slice()),
                final_word: true,
            },
            None => KeyDocument::Unavailable {
                why: "it is not among the `keys` of the vector".to_owned(),
            },
        }
    }
}

impl Received {
    fn words(&self) -> String {
        match self {
            Self::Accepted => "accept".to_owned(),
            Self::Answered(answer) => {
                let errand = match &answer.errand {
                    None => String::new(),
                    Some(Errand::StoreSecret(_)) => ", stores the secret".to_owned(),
                    Some(Errand::ConfirmGet(url)) => format!(", calls {url}"),
                };
                let proof = if answer.reply.after_verify { "accept, " } else { "" };
                format!("{proof}handshake {}{errand}", answer.reply.status)
            }
            Self::Refused(refusal) => format!("reject {refusal}"),
        }
    }
}

fn judge_verdict(accept: bool, reason: Option<&str>, received: &Received) -> (String, Option<String>) {
    let expected = match (accept, reason) {
        (true, _) => "accept".to_owned(),
        (false, None) => "reject".to_owned(),
        (false, Some(reason)) => format!("reject {reason}"),
    };
    let good = match received {
        Received::Accepted | Received::Answered(_) => accept,
        Received::Refused(refusal) => !accept && reason.is_none_or(|reason| refusal.reason.as_str() == reason),
    };
    let failure = (!good).then(|| format!("expected {expected}"));
    (expected, failure)
}

fn judge_response(
    response: &Map<String, Value>,
    effect: Option<&Value>,
    received: &Received,
    webhook: &Webhook,
) -> (String, Option<String>) {
    let status = response.get("status").cloned().unwrap_or_default();
    let expected = match effect {
        Some(effect) => format!("handshake {status} with {effect}"),
        None => format!("handshake {status}"),
    };
    let (reply, errand) = match received {
        Received::Accepted => {
            let any = Reply {
                status: 200,
                headers: Vec::new(),
                body: Vec::new(),
                after_verify: true,
            };
            (webhook.ack().cloned().unwrap_or(any), None)
        }
        Received::Answered(answer) => (answer.reply.clone(), answer.errand.as_ref()),
        Received::Refused(refusal) => {
            let reply = Reply {
                status: refusal.reason.status(),
                headers: Vec::new(),
                body: Vec::new(),
                after_verify: false,
            };
            (reply, None)
        }
    };
    let failure = differences(response, &reply).or_else(|| {
        let found = match errand {
            None => Value::Null,
            Some(Errand::StoreSecret(_)) => json!("store_secret"),
            Some(Errand::ConfirmGet(url)) => json!({ "http_get": url }),
        };
        let wanted = effect.cloned().unwrap_or_default();
        (found != wanted).then(|| format!("effect: expected {wanted}, found {found}"))
    });
    (expected, failure)
}

/// The first thing in which a reply is not as wanted.
fn differences(wanted: &Map<String, Value>, reply: &Reply) -> Option<String> {
    let header = |name: &str| {
        let mut headers = reply.headers.iter();
        headers
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    };
    let body = String::from_utf8_lossy(&reply.body);
    for (key, value) in wanted {
        let good = match (key.as_str(), value) {
            ("status", Value::Array(any)) => any.contains(&json!(reply.status)),
            ("status", one) => *one == json!(reply.status),
            ("json", json) => serde_json::from_slice::<Value>(&reply.body).ok().as_ref() == Some(json),
            ("body", Value::String(text)) => body == text.as_str(),
            ("body_contains", Value::String(text)) => body.contains(text.as_str()),
            ("content_type", Value::String(kind)) => {
                let found = header("content-type").and_then(|found| found.split(';').next());
                found.is_some_and(|found| found.trim() == kind)
            }
            ("headers", Value::Object(headers)) => headers
                .iter()
                .all(|(name, value)| header(name) == value.as_str() && value.is_string()),
            _ => false,
        };
        if !good {
            return Some(format!(
                "{key}: expected {value}, found status {} with headers {:?} and body {body:?}",
                reply.status,
                reply.headers.iter().map(|(name, _)| name).collect::<Vec<_>>()
            ));
        }
    }
    None
}

fn read_expected(fields: &Fields<'_>, problems: &mut Problems) -> Option<Expected> {
    match (fields.get("expect"), fields.get("expect_response")) {
        (Some(_), None) => Some(Expected::Verdict {
            accept: fields.choice("expect", &[("accept", true), ("reject", false)], problems)?,
            reason: fields.text("expect_reason", problems).map(str::to_owned),
        }),
        (None, Some(response)) => {
            let known = ["status", "json", "body", "body_contains", "content_type", "headers"];
            let response = Fields::open(response, &fields.at("expect_response"), &known, problems)?;
            response.required("status", problems)?;
            Some(Expected::Response {
                response: response.map().clone(),
                effect: fields.get("expect_effect").cloned(),
            })
        }
        _ => {
            problems.add(
                fields.place(),
                "bad_value",
                "a vector has either `expect` (accept, reject) or `expect_response`",
            );
            None
        }
    }
}

fn read_headers(fields: &Fields<'_>, problems: &mut Problems) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    let items = fields.get("headers").and_then(Value::as_array);
    for (index, pair) in items.into_iter().flatten().enumerate() {
        match pair.as_array().map(Vec::as_slice) {
            Some([Value::String(name), Value::String(value)]) => {
                headers.push((name.to_ascii_lowercase(), value.clone()));
            }
            _ => problems.add(
                &pointer::join(&fields.at("headers"), &index.to_string()),
                "bad_type",
                "a header is a list of its name and its value",
            ),
        }
    }
    headers
}

/// Texts as they are; a pair of `username` and `password` joined by a colon; other mappings as JSON text.
fn read_secrets(fields: &Fields<'_>, problems: &mut Problems) -> Vec<SecretString> {
    let mut secrets = Vec::new();
    let items = fields.get("secrets").and_then(Value::as_array);
    for (index, item) in items.into_iter().flatten().enumerate() {
        let pair = |map: &Map<String, Value>| {
            let (user, password) = (map.get("username")?.as_str()?, map.get("password")?.as_str()?);
            Some(format!("{user}:{password}"))
        };
        match item {
            Value::String(text) => secrets.push(text.as_str().into()),
            Value::Object(map) => secrets.push(pair(map).unwrap_or_else(|| item.to_string()).into()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => problems.add(
                &pointer::join(&fields.at("secrets"), &index.to_string()),
                "bad_type",
                "a secret is text, or a mapping",
            ),
        }
    }
    secrets
}

fn read_keys(value: &Value, place: &str, secrets: &mut Vec<SecretString>, problems: &mut Problems) -> Option<Keys> {
    const PUBLIC_KEYS: [&str; 4] = [
        "public_keys_hex",
        "public_keys_base64",
        "public_keys_spki_base64",
        "public_keys_pem",
    ];
    let mut known = PUBLIC_KEYS.to_vec();
    known.extend(["certificates", "documents", "jwks"]);
    let fields = Fields::open(value, place, &known, problems)?;
    let mut keys = Keys::default();
    for name in PUBLIC_KEYS {
        let texts = fields.texts(name, problems).unwrap_or_default();
        secrets.extend(texts.into_iter().map(SecretString::from));
    }
    for name in ["certificates", "documents"] {
        let Some(map) = fields.get(name) else {
            continue;
        };
        let map = Fields::open_any(map, &fields.at(name), problems)?;
        for (url, document) in map.map() {
            let text = document.as_str().map_or_else(|| document.to_string(), str::to_owned);
            keys.documents.insert(url.clone(), text.into_bytes());
        }
    }
    keys.jwks = fields.get("jwks").map(|jwks| jwks.to_string().into_bytes());
    Some(keys)
}

fn read_registration(value: Option<&Value>) -> Registration {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries
        .filter_map(|(name, value)| {
            let values = match value {
                Value::Array(items) => items.iter().filter_map(text).collect(),
                one => vec![text(one)?],
            };
            Some((name.clone(), values))
        })
        .collect()
}
