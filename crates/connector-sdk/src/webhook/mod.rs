//! The way in, as one connector declares it: proof, handshake, what an event is, what the sender wants back.
//!
//! Order for a host: [`Webhook::unsigned_handshake`]; if it gives an answer, do its errand and reply; otherwise
//! [`Verifier::verify`], then [`Webhook::handshake`] with the parsed [`Webhook::json_body`], then
//! [`Webhook::identify`], store, and [`Webhook::ack`].

mod body;
mod context;
mod failures;
mod handshake;
mod handshake_read;
mod identify;
mod locate;
pub(crate) mod poll;
mod recover;
mod register;

use std::borrow::Cow;

use secrecy::SecretString;
use serde_json::Value;

pub use context::{
    ContextField, MAX_CONTEXT_NAMES, MAX_CONTEXT_VALUE_BYTES, MAX_CONTEXT_VALUES, context_document, parse_context,
};
pub use failures::Failures;
pub use handshake::{Errand, Handshaken, Standing};
pub use identify::{Identified, IdentifyError};
pub use recover::{Level, ListOrder, MIN_SWEEP_EVERY_S, Recover, RecoverCursor};
pub use register::{Hook, MIN_REGISTER_EVERY_S, Register, RegisterAsk, RegisterCall, RegisterSecret};

use crate::fields::{Fields, is_header_name};
use crate::problem::{Problem, Problems};
use crate::redact::SecretNames;
use crate::verify::{
    Evidence, InboundRequest, KeyDocuments, Refusal, RefusalReason, Registration, Unverified, Verifier,
};
use body::BodyForm;
use context::ContextShape;
use handshake::Handshake;
use identify::Identify;

/// An answer to the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Headers to send.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether it may be sent only when the request verified.
    pub after_verify: bool,
}

/// The `webhook` part of a connector.
#[derive(Debug)]
pub struct Webhook {
    verifier: Option<Verifier>,
    handshakes: Vec<Handshake>,
    identify: Identify,
    body: BodyForm,
    context: ContextShape,
    ack: Option<Reply>,
    recover: Option<Recover>,
    register: Option<Register>,
    event_headers: Vec<String>,
}

impl Webhook {
    /// How requests are verified, unless an endpoint overrides it.
    /// `None` with `verify: endpoint`: each endpoint has to state its own, and nothing is accepted without it.
    pub fn verifier(&self) -> Option<&Verifier> {
        self.verifier.as_ref()
    }

    /// Verifies a request the way the manifest says. Fails closed when it leaves that to the endpoint.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify(
        &self,
        request: &InboundRequest<'_>,
        secrets: &[SecretString],
        documents: &KeyDocuments,
        now_unix_ms: i64,
    ) -> Result<(), Unverified> {
        match &self.verifier {
            Some(verifier) => verifier.verify(request, secrets, documents, now_unix_ms),
            None => Err(Refusal::new(
                RefusalReason::NoSchemeApplies,
                "the endpoint states no verification, and its connector leaves that to it",
            )
            .into()),
        }
    }

    /// The answer to a request that sets the webhook up and that its sender does not sign. To be asked before the
    /// verification.
    ///
    /// # Errors
    /// [`Refusal`] when it is such a request and must not be granted.
    pub fn unsigned_handshake(
        &self,
        request: &InboundRequest<'_>,
        standing: &Standing<'_>,
    ) -> Result<Option<Handshaken>, Refusal> {
        let mut unsigned = self
            .handshakes
            .iter()
            .filter(|handshake| handshake.signed() == Some(false))
            .peekable();
        // Most connectors have none: their bodies are not looked at before the proof.
        if unsigned.peek().is_none() {
            return Ok(None);
        }
        let evidence = Evidence::new(request);
        first_answer(unsigned, &evidence, evidence.json().unwrap_or(&Value::Null), standing)
    }

    /// The answer to a verified request that sets the webhook up instead of reporting an event. `body` is the parsed
    /// [`Webhook::json_body`].
    ///
    /// # Errors
    /// [`Refusal`] when it is such a request and must not be granted.
    pub fn handshake(
        &self,
        request: &InboundRequest<'_>,
        body: &Value,
        standing: &Standing<'_>,
    ) -> Result<Option<Handshaken>, Refusal> {
        first_answer(self.handshakes.iter(), &Evidence::new(request), body, standing)
    }

    /// Whether refusals are answered with their status alone, as some senders demand.
    pub fn refuses_barely(&self) -> bool {
        self.handshakes
            .iter()
            .any(|handshake| matches!(handshake, Handshake::BareRefusals))
    }

    /// Whether the provider sends the secret itself while the webhook is registered.
    pub fn stores_secret(&self) -> bool {
        self.handshakes
            .iter()
            .any(|handshake| matches!(handshake, Handshake::StoreSecret(_)))
    }

    /// Whether the provider itself sends the secret of an endpoint whose own verification is `own`. One that replaces the
    /// connector's was written for another secret, which a person has to enter; where the connector leaves verification
    /// to its endpoints, each has its own.
    pub fn sends_secret_for(&self, own: Option<&Verifier>) -> bool {
        let ((Some(verifier), None) | (None, Some(verifier))) = (self.verifier(), own) else {
            return false;
        };
        self.stores_secret() && verifier.needs_secret()
    }

    /// The headers and query parameters in which handshakes carry secrets.
    pub fn handshake_secret_names(&self) -> SecretNames {
        let mut names = SecretNames::default();
        for handshake in &self.handshakes {
            handshake.secret_names(&mut names);
        }
        names
    }

    /// Whether the body holds what a handshake takes for a secret, so that it must not be kept.
    pub fn brings_secret(&self, body: &[u8]) -> bool {
        let mut stores = self
            .handshakes
            .iter()
            .filter_map(Handshake::stores_from_body)
            .peekable();
        // Most connectors have none: their bodies are not parsed for it.
        stores.peek().is_some()
            && serde_json::from_slice(body).is_ok_and(|body: Value| stores.any(|handshake| handshake.finds(&body)))
    }

    /// The body as JSON text: the body itself, what a form holds when the manifest allows forms, or the mapping of an XML
    /// document when it says that bodies are XML.
    ///
    /// # Errors
    /// [`IdentifyError`] for a form without the declared field, and for a body that is not acceptable XML.
    pub fn json_body<'a>(&self, request: &InboundRequest<'a>) -> Result<Cow<'a, [u8]>, IdentifyError> {
        self.body.json(request)
    }

    /// The events in a verified request. `body` is the parsed [`Webhook::json_body`]. An empty list is fine:
    /// some senders report that nothing happened.
    ///
    /// # Errors
    /// [`IdentifyError`] when the body has not the declared form or an event has no type.
    pub fn identify(&self, request: &InboundRequest<'_>, body: &Value) -> Result<Vec<Identified>, IdentifyError> {
        self.identify.events(request, body)
    }

    /// Identifies one item of the list that a sweep reads: as `recover.identify` says, else as a webhook's event.
    ///
    /// # Errors
    /// As [`Webhook::identify`].
    pub fn identify_unit(&self, unit: &Value) -> Result<Identified, IdentifyError> {
        let own = self.recover.as_ref().and_then(|recover| recover.identify(unit));
        own.unwrap_or_else(|| self.identify.listed(unit))
    }

    /// Whether items of the list are identified in the same way as webhooks, so that their times are the same.
    pub fn lists_events(&self) -> bool {
        self.recover.as_ref().is_some_and(|recover| !recover.has_own_identify())
    }

    /// Whether items of the list say when they happened.
    pub fn lists_times(&self) -> bool {
        let recover = self.recover.as_ref();
        recover.is_some_and(|recover| recover.own_identify().unwrap_or(&self.identify).has_time())
    }

    /// The values that an endpoint may or must state of its registration, in the manifest's order.
    pub fn context(&self) -> impl Iterator<Item = (&str, &ContextField)> {
        self.context.fields.iter().map(|(name, field)| (name.as_str(), field))
    }

    /// What is wrong with an endpoint's context, with pointers below `/context`. `own_verify` is the verification by which
    /// the endpoint replaces this one.
    pub fn check_context(&self, given: &Registration, own_verify: Option<&Value>) -> Vec<Problem> {
        self.context.check(given, own_verify)
    }

    /// What the sender wants back for an accepted request; `None`: any 2xx will do.
    pub fn ack(&self) -> Option<&Reply> {
        self.ack.as_ref()
    }

    /// How missed events are listed.
    pub fn recover(&self) -> Option<&Recover> {
        self.recover.as_ref()
    }

    /// How it is registered at the provider. `None`: a person does that there.
    pub fn register(&self) -> Option<&Register> {
        self.register.as_ref()
    }

    /// Headers that become part of the event, lower case.
    pub fn event_headers(&self) -> &[String] {
        &self.event_headers
    }

    pub(crate) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let known = [
            "verify",
            "handshake",
            "form",
            "body",
            "context",
            "identify",
            "split",
            "dedupe",
            "without_id",
            "sequence",
            "order_key",
            "ack",
            "recover",
            "register",
            "event_headers",
        ];
        let fields = Fields::open(value, place, &known, problems)?;
        let verifier = fields.required("verify", problems).and_then(|verify| {
            if verify.as_str() == Some("endpoint") {
                return Some(None);
            }
            match Verifier::compile(verify, &fields.at("verify")) {
                Ok(verifier) => Some(Some(verifier)),
                Err(list) => {
                    problems.extend(list);
                    None
                }
            }
        });
        let handshakes = match fields.get("handshake") {
            Some(value) => handshake_read::read(value, &fields.at("handshake"), problems),
            None => Vec::new(),
        };
        let ignored = handshakes.iter().flat_map(Handshake::ignored_types).cloned().collect();
        let identify = Identify::read(&fields, ignored, problems);
        let event_headers = fields.texts("event_headers", problems).unwrap_or_default();
        for name in event_headers.iter().filter(|name| !is_header_name(name)) {
            problems.add(
                &fields.at("event_headers"),
                "bad_value",
                format!("`{name}` is not a header name"),
            );
        }
        let recover = fields
            .get("recover")
            .and_then(|value| Recover::read(value, &fields.at("recover"), problems));
        if let (Some(recover), Some(identify)) = (&recover, &identify) {
            recover.check_keys(identify, &fields.at("recover"), problems);
        }
        Some(Self {
            verifier: verifier?,
            handshakes,
            identify: identify?,
            body: BodyForm::read(&fields, problems),
            context: ContextShape::read(&fields, problems),
            ack: read_ack(&fields, problems),
            recover,
            register: fields
                .get("register")
                .and_then(|value| Register::read(value, &fields.at("register"), problems)),
            event_headers: event_headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
        })
    }
}

fn first_answer<'h>(
    handshakes: impl Iterator<Item = &'h Handshake>,
    evidence: &Evidence<'_>,
    body: &Value,
    standing: &Standing<'_>,
) -> Result<Option<Handshaken>, Refusal> {
    for handshake in handshakes {
        if let Some(answer) = handshake.answer(evidence, body, standing)? {
            return Ok(Some(answer));
        }
    }
    Ok(None)
}

fn read_ack(fields: &Fields<'_>, problems: &mut Problems) -> Option<Reply> {
    let value = fields.get("ack")?;
    let place = fields.at("ack");
    let ack = Fields::open(value, &place, &["status", "body", "content_type"], problems)?;
    let mut reply = Reply {
        status: 200,
        headers: Vec::new(),
        body: Vec::new(),
        after_verify: true,
    };
    if let Some(status) = ack.number("status", problems) {
        match u16::try_from(status) {
            Ok(status) if (200..300).contains(&status) => reply.status = status,
            Ok(_) | Err(_) => problems.add(&ack.at("status"), "bad_value", "an acknowledgement has a 2xx status"),
        }
    }
    if let Some(body) = ack.text("body", problems) {
        reply.body = body.as_bytes().to_vec();
        let content_type = ack
            .text("content_type", problems)
            .unwrap_or("text/plain; charset=utf-8");
        reply.headers.push(("content-type".to_owned(), content_type.to_owned()));
    } else if ack.get("content_type").is_some() {
        problems.add(&ack.at("content_type"), "missing_key", "`content_type` needs a `body`");
    }
    Some(reply)
}
