//! What a connector is, as data: manifests, webhook verification, request building, answers, paging.
//!
//! The crate is pure. It never opens a socket, reads a clock, a file, the environment or a random
//! number, and it never sends anything: it turns text into checked values, and values into request
//! descriptions which the host signs and sends. Secrets pass through two doors only, [`Verifier`] and
//! [`Credential`]; expressions in manifests cannot see them.

#![warn(missing_docs)]

mod answer;
mod auth;
mod budget;
mod config;
mod connector;
mod effect;
mod encode;
mod event_type;
mod expression;
mod fields;
mod files;
mod http_message;
mod operation;
mod page;
mod pointer;
mod problem;
pub mod redact;
mod template;
pub mod testing;
mod verify;
mod webhook;
mod xml;
mod yaml;

pub use answer::{Answer, AnswerBody, Executed};
pub use auth::{
    ApiKeyPlace, Applied, Assertion, AuthError, AuthScheme, AuthTest, AuthorizeAsk, ClientAuth, Credential, KeysScheme,
    NamedKind, OAuth2CodeScheme, OAuth2Scheme, Rotation, ServiceAccountScheme, SessionPart, SessionScheme, SignAt,
    SignedScheme, Token, TokenError, TokenSet, Values,
};
pub use budget::{Bucket, Budget, DEFAULT_RESERVE_PERCENT, Daily, Learn, MAX_WINDOWS, Told, Window, own_budget};
pub use connector::Connector;
pub use effect::{Effect, KeyCarrier};
pub use event_type::{EventType, Hydrate, MAX_READS, Read};
pub use fields::duration_s;
pub use http_message::{HttpRequest, HttpResponse};
pub use operation::{BuildError, CallContext, Operation};
pub use page::Page;
pub use problem::Problem;
pub use verify::{
    InboundRequest, KeyDocument, KeyDocuments, Refusal, RefusalReason, Registration, SignError, Unverified, Verifier,
    WantedDocument,
};
pub use webhook::{
    ContextField, Errand, Failures, Handshaken, Hook, Identified, IdentifyError, Level, ListOrder, MAX_CONTEXT_NAMES,
    MAX_CONTEXT_VALUE_BYTES, MAX_CONTEXT_VALUES, MIN_REGISTER_EVERY_S, MIN_SWEEP_EVERY_S, Recover, RecoverCursor,
    Register, RegisterAsk, RegisterCall, RegisterSecret, Reply, Standing, Webhook, context_document, parse_context,
};
pub use yaml::{YamlDocument, YamlError, parse_yaml};
