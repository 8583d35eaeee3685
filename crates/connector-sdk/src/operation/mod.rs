//! One call that a connector can make: from arguments to a request, from an answer to a meaning.
//!
//! Everything is compiled when the manifest is read. Building a request touches no template engine for
//! plain paths, so that the hot path of a run costs well under a microsecond per leaf.

mod build;
mod compile;
mod parts;
mod url;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::answer::{self, Answer, AnswerBody, Meaning, Seen};
use crate::config::Shape;
use crate::connector::Common;
use crate::effect::{Effect, EffectRule};
use crate::encode::Arrays;
use crate::expression::Scope;
use crate::http_message::{HttpRequest, HttpResponse};
use crate::page::{Following, Kind, Page, Paging};
use crate::pointer::Pointer;
use crate::template::{Piece, Template};

pub(crate) use parts::named_headers;

/// What a call is made with.
#[derive(Debug, Clone, Copy)]
pub struct CallContext<'a> {
    /// The connection's settings, an object or null; never secrets.
    pub config: &'a Value,
    /// The arguments, an object or null.
    pub args: &'a Value,
    /// The idempotency key of an effect; put where the operation's [`Effect::Keyed`] says.
    pub idempotency_key: Option<&'a str>,
    /// The page to fetch; `None` is the first.
    pub page: Option<&'a Page>,
}

/// Why a request could not be built. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BuildError {
    /// JSON Pointer into the arguments (`/id`) or, beginning with `/config`, into the connection's settings.
    pub pointer: String,
    /// What is wrong; contains no values.
    pub message: String,
}

impl BuildError {
    pub(crate) fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: message.into(),
        }
    }
}

/// One operation of a connector.
#[derive(Debug)]
pub struct Operation {
    name: String,
    common: Arc<Common>,
    method: MethodRule,
    target: Target,
    query: Query,
    headers: Headers,
    body: Body,
    encoding: Encoding,
    arrays: Option<Arrays>,
    input: Shape,
    /// Arguments that path, query and headers use; the rest of them makes up a `rest` body.
    used: Vec<String>,
    output_schema: Option<Value>,
    items: Option<(String, Pointer)>,
    paging: Option<Paging>,
    etag: bool,
    meaning: Meaning,
    effect: EffectRule,
}

#[derive(Debug)]
enum MethodRule {
    Fixed(&'static str),
    Computed(Template),
}

#[derive(Debug)]
enum Target {
    /// A path on the base URL; computed parts are escaped as path segments.
    Path(Vec<Piece>),
    /// Whole paths or URLs from arguments; the first that is given.
    Given(Vec<Template>),
}

#[derive(Debug)]
enum Query {
    None,
    /// An object of names and values.
    Template(Template),
    /// Every argument that nothing else uses.
    Rest,
}

#[derive(Debug)]
enum Headers {
    Named(Vec<(String, Template)>),
    /// An object of names and values from arguments.
    Given(Template),
}

#[derive(Debug)]
enum Body {
    None,
    Template(Template),
    /// Every argument that nothing else uses.
    Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Json,
    Form,
    /// Text as it is, everything else as JSON.
    Auto,
}

impl Operation {
    /// Its name without the connector, e.g. `invoices.get`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What this call does to the other side. [`Effect::Blind`] when the stated class cannot be worked out.
    pub fn effect(&self, config: &Value, args: &Value) -> Effect {
        let named = self.named(config, args);
        self.effect.evaluate(&Scope {
            named: &named,
            layers: &[arguments(args), &self.input.defaults],
        })
    }

    /// Arguments that must be given.
    pub fn required_args(&self) -> Vec<&str> {
        self.input
            .fields
            .iter()
            .filter(|(name, field)| field.required && !self.input.defaults.contains_key(*name))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Every argument it knows; `None` when it takes others as well.
    pub fn known_args(&self) -> Option<Vec<&str>> {
        (!self.input.open).then(|| self.input.fields.keys().map(String::as_str).collect())
    }

    /// The arguments as a JSON Schema object.
    pub fn input_schema(&self) -> Value {
        self.input.json_schema()
    }

    /// JSON Schema of the output, when the manifest has one.
    pub fn output_schema(&self) -> Option<&Value> {
        self.output_schema.as_ref()
    }

    /// Whether it reads a list page by page.
    pub fn is_paged(&self) -> bool {
        self.paging.is_some()
    }

    /// Whether the provider answers conditional requests for it (`If-None-Match`); the host keeps the tags.
    pub fn etag(&self) -> bool {
        self.etag
    }

    /// Whether it is fixed to a method that changes nothing (GET or HEAD).
    pub fn is_safe_method(&self) -> bool {
        matches!(self.method, MethodRule::Fixed("GET" | "HEAD"))
    }

    /// The request of one call, without credentials.
    ///
    /// # Errors
    /// [`BuildError`] when an argument or setting is missing, unknown, of the wrong shape, or would change
    /// the structure of the request (empty path segments, dot segments, line breaks in headers).
    pub fn request(&self, ctx: &CallContext<'_>) -> Result<HttpRequest, BuildError> {
        build::request(self, ctx)
    }

    /// What an answer to [`Operation::request`] means. Statuses and rules decide; bodies are parsed only when
    /// a rule, a list or paging looks into them.
    pub fn response(&self, ctx: &CallContext<'_>, response: &HttpResponse) -> Answer {
        let seen = Seen::new(response);
        if let Some(failure) = self.meaning.failure(&self.common.meaning, &seen) {
            return failure;
        }
        if response.body.iter().all(u8::is_ascii_whitespace) {
            let output = if self.items.is_some() {
                Value::Array(Vec::new())
            } else {
                Value::Null
            };
            return Answer::Done {
                output: AnswerBody::Value(output),
                next: None,
            };
        }
        if self.items.is_none() && self.paging.is_none() {
            return Answer::Done {
                output: plain_output(response, &seen),
                next: None,
            };
        }
        self.list_output(ctx, response, seen)
    }

    fn list_output(&self, ctx: &CallContext<'_>, response: &HttpResponse, seen: Seen<'_>) -> Answer {
        let Some(body) = seen.body() else {
            return answer::unreadable("unreadable", "the answer is not JSON".to_owned(), response.status);
        };
        let empty = Vec::new();
        let items = match &self.items {
            None => &empty,
            Some((text, pointer)) => match pointer.lookup(body) {
                Some(Value::Array(items)) => items,
                Some(Value::Null) => &empty,
                Some(_) | None => {
                    return answer::unreadable(
                        "unreadable",
                        format!("the answer has no list at `{text}`"),
                        response.status,
                    );
                }
            },
        };
        let following = match &self.paging {
            None => Following::End,
            Some(paging) => {
                let asked = match (&paging.kind, ctx.page) {
                    (Kind::Link { .. } | Kind::NextUrl { .. }, Some(page)) => page.token.clone(),
                    (Kind::Link { .. } | Kind::NextUrl { .. }, None) => {
                        self.request(ctx).map_or_else(|_| String::new(), |request| request.url)
                    }
                    (Kind::Cursor { .. } | Kind::SinceId { .. } | Kind::PageNumber { .. } | Kind::Offset { .. }, _) => {
                        String::new()
                    }
                };
                paging.following(ctx.page, body, items, response, &asked)
            }
        };
        let next = match following {
            Following::Page(page) => Some(page),
            Following::End => None,
            Following::Broken(code, message) => {
                return answer::unreadable(code, message, response.status);
            }
        };
        let output = match &self.items {
            None => AnswerBody::Whole,
            Some((text, _)) => {
                let items = seen
                    .into_body()
                    .and_then(|mut body| body.pointer_mut(text).map(Value::take))
                    .filter(Value::is_array);
                AnswerBody::Value(items.unwrap_or_else(|| Value::Array(Vec::new())))
            }
        };
        Answer::Done { output, next }
    }

    /// The names an operation's expressions see beside the arguments.
    fn named<'a>(&'a self, config: &'a Value, args: &'a Value) -> [(&'static str, &'a Value); 3] {
        [
            ("config", config),
            ("config", &self.common.config_defaults),
            ("args", args),
        ]
    }

    /// Every operation that its `find_by` rules call.
    pub(crate) fn effect_operations(&self) -> Vec<&str> {
        let mut found = Vec::new();
        self.effect.operations(&mut found);
        found
    }
}

/// The arguments as a map; anything but an object has no names.
fn arguments(args: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    args.as_object().unwrap_or(&EMPTY)
}

/// JSON stays as it is; other text becomes a value.
fn plain_output(response: &HttpResponse, seen: &Seen<'_>) -> AnswerBody {
    let is_json = response.header("content-type").is_some_and(|kind| {
        kind.split(';')
            .next()
            .is_some_and(|kind| kind.trim().to_ascii_lowercase().ends_with("json"))
    });
    if is_json || seen.body().is_some() {
        AnswerBody::Whole
    } else {
        AnswerBody::Value(Value::String(String::from_utf8_lossy(&response.body).into_owned()))
    }
}
