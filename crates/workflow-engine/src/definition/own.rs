//! The steps that Weir itself carries out: another run, an outgoing event, an answer to whoever sent the event.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::fields::{Fields, wrong_type};
use super::steps::Steps;
use super::{ChildRun, DEFAULT_RESPOND_WITHIN, DEFAULT_WAIT, MAX_RESPOND_WITHIN, MAX_WAIT, Respond};
use crate::expression::Template;
use crate::problem::{Problem, child};

/// The longest type of an outgoing event in bytes.
///
/// Limit: type of an outgoing event | refused at publish, `bad_event` | `definitions_stop_at_their_bounds`
const MAX_TYPE_BYTES: usize = 256;
/// The statuses that an answer can have.
pub const ANSWER_STATUSES: RangeInclusive<u16> = 200..=599;
/// What the sender gets instead of a status that no answer can have.
pub const UNFIT_STATUS: u16 = 500;
/// Headers that an answer does not set, in lower case: they are the connection's, or would act on the server's own pages.
pub const RESERVED_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "content-security-policy",
    "keep-alive",
    "set-cookie",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-content-type-options",
];

impl Steps<'_> {
    /// `run: workflow`, with its input in `with`.
    pub(super) fn child(&mut self, fields: &Fields<'_>) -> Option<ChildRun> {
        let workflow = fields.text("run", self.problems)?;
        let input = match fields.get("with") {
            Some(with @ Value::Object(_)) => with.clone(),
            Some(other) => {
                self.problems.push(wrong_type(&fields.at("with"), "an object", other));
                return None;
            }
            None => json!({}),
        };
        // Told with the places in the document; the template beneath has another shape.
        self.template(&input, &fields.at("with"))?;
        let with = json!({ "workflow": workflow, "input": &input });
        let detach = match fields.get("detach") {
            Some(Value::Bool(detach)) => *detach,
            Some(other) => {
                self.problems
                    .push(wrong_type(&fields.at("detach"), "true or false", other));
                false
            }
            None => false,
        };
        let timeout = fields.span("timeout", MAX_WAIT, self.problems);
        if detach {
            for key in ["timeout", "on_timeout"].into_iter().filter(|key| fields.has(key)) {
                let message = format!("a run that is not waited for has no `{key}`");
                self.problems.push(Problem::new(fields.at(key), "unknown_key", message));
            }
        }
        let place = fields.at("with");
        Some(ChildRun {
            workflow: workflow.to_owned(),
            input,
            with: Template::compile(&with, &place)
                .ok()?
                .moved(&format!("{place}/input"), &place),
            wait: (!detach).then(|| timeout.unwrap_or(DEFAULT_WAIT)),
        })
    }

    /// `emit: { type, key, data }`.
    pub(super) fn emit(&mut self, fields: &Fields<'_>) -> Option<Template> {
        let emit = fields.get("emit")?;
        let inside = Fields::new(emit, fields.at("emit"), &["type", "key", "data"], self.problems)?;
        inside.required("type", self.problems)?;
        let kind = inside.text("type", self.problems)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if kind.is_empty() || kind.len() > MAX_TYPE_BYTES || !kind.bytes().all(plain) {
            let message = format!(
                "{kind:?} is no type of an event: 1 to {MAX_TYPE_BYTES} letters, digits, `.`, `_` and `-`, as `invoice.paid`"
            );
            self.problems
                .push(Problem::new(inside.at("type"), "bad_event", message));
        }
        inside.text("key", self.problems);
        self.template(emit, &inside.pointer)
    }
    /// `respond: { status, headers, body, within }`.
    pub(super) fn respond(&mut self, fields: &Fields<'_>) -> Option<Respond> {
        let keys = ["status", "headers", "body", "within"];
        let respond = fields.get("respond")?;
        let inside = Fields::new(respond, fields.at("respond"), &keys, self.problems)?;
        let status = match inside.get("status") {
            Some(Value::Number(_)) => {
                let (least, most) = (u32::from(*ANSWER_STATUSES.start()), u32::from(*ANSWER_STATUSES.end()));
                inside.count("status", least, most, self.problems).map(Value::from)
            }
            Some(status @ Value::String(_)) => Some(status.clone()),
            Some(other) => {
                self.problems
                    .push(wrong_type(&inside.at("status"), "a status from 200 to 599", other));
                None
            }
            None => Some(Value::from(200)),
        };
        let headers = inside.get("headers").cloned().unwrap_or_else(|| json!({}));
        if !headers.is_object() {
            let problem = wrong_type(&inside.at("headers"), "an object of names and values", &headers);
            self.problems.push(problem);
        }
        for (name, value) in headers.as_object().into_iter().flatten() {
            if let Some(reason) = unfit_header(name, value) {
                let place = child(&inside.at("headers"), name);
                self.problems.push(Problem::new(place, "bad_header", reason));
            }
        }
        let within = inside
            .span("within", MAX_RESPOND_WITHIN, self.problems)
            .unwrap_or(DEFAULT_RESPOND_WITHIN);
        let body = inside.get("body").cloned().unwrap_or(Value::Null);
        let with = json!({ "status": status?, "headers": headers, "body": body });
        Some(Respond {
            with: self.template(&with, &inside.pointer)?,
            within,
        })
    }
}

/// Why an answer cannot have this header, as far as that can be seen before it is sent.
fn unfit_header(name: &str, value: &Value) -> Option<String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Some(format!(
            "{name:?} is no name of a header: letters, digits, and `-`, as `x-request-id`"
        ));
    }
    if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        return Some(format!("an answer cannot set `{name}`: the server does"));
    }
    match value {
        Value::Object(_) | Value::Array(_) | Value::Null => Some(format!("`{name}` is a text or a number")),
        Value::String(text) if text.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) => Some(format!(
            "the value of `{name}` holds a control character, which no header can carry"
        )),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => None,
    }
}
