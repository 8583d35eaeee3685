//! One call that a connector can make: from arguments to a request, from an answer to a meaning.
//!
//! Everything is compiled when the manifest is read. Building a request touches no template engine for
//! plain paths, so that the hot path of a run costs well under a microsecond per leaf.

mod body;
mod build;
mod compile;
mod multipart;
mod parts;
mod protocol;
mod url;

use std::sync::Arc;

use serde_json::{Map, Value};

use body::{Body, Encoding};

use crate::answer::{self, Answer, AnswerBody, Executed, Meaning, Protocol, Reading, Seen, reading};
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

/// The code of rules that tell that an access is over.
const AUTH_EXPIRED: &str = "auth_expired";

/// One operation of a connector.
#[derive(Debug)]
pub struct Operation {
    name: String,
    common: Arc<Common>,
    method: MethodRule,
    /// The number of the host on which its path starts.
    host: usize,
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
    /// The part of an answer that is the output.
    result: Option<String>,
    paging: Option<Paging>,
    reading: Reading,
    etag: bool,
    cost: u64,
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

    /// The arguments that may have some values only, with these.
    pub fn allowed_args(&self) -> impl Iterator<Item = (&str, &[Value])> {
        let fields = self.input.fields.iter();
        fields.filter_map(|(name, field)| Some((name.as_str(), field.allowed()?)))
    }

    /// The arguments as a JSON Schema object.
    pub fn input_schema(&self) -> Value {
        self.input.json_schema()
    }

    /// JSON Schema of the output, when the manifest has one.
    pub fn output_schema(&self) -> Option<&Value> {
        self.output_schema.as_ref()
    }

    /// Whether its output is a list.
    pub(crate) fn gives_list(&self) -> bool {
        self.items.is_some()
    }

    /// Whether it reads a list page by page.
    pub fn is_paged(&self) -> bool {
        self.paging.is_some()
    }

    /// Whether the provider answers conditional requests for it (`If-None-Match`); the host keeps the tags.
    pub fn etag(&self) -> bool {
        self.etag
    }

    /// How much of the budget one request takes, at least 1.
    pub fn cost(&self) -> u64 {
        self.cost
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
        let seen = Seen::new(response, &self.reading, self.protocol());
        if let Some(failure) = self.meaning.failure(&self.common.meaning, &seen) {
            return failure;
        }
        if self.reading.is_empty(&response.body) {
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
            return match self.plain_output(response, seen) {
                Ok(output) => Answer::Done { output, next: None },
                Err(message) => answer::unreadable("unreadable", message, response.status),
            };
        }
        self.list_output(ctx, response, seen)
    }

    /// Whether a rule of the manifest says of an answer that the access is over (`code: auth_expired`) and that nothing
    /// was executed: with another token the same request may succeed. A 401 says so without a rule.
    pub fn says_access_is_over(&self, response: &HttpResponse) -> bool {
        if !self.meaning.names(AUTH_EXPIRED) && !self.common.meaning.names(AUTH_EXPIRED) {
            return false;
        }
        let seen = Seen::new(response, &self.reading, self.protocol());
        let failure = self.meaning.failure(&self.common.meaning, &seen);
        matches!(failure, Some(Answer::Failed { code, executed: Executed::No, .. }) if code == AUTH_EXPIRED)
    }

    /// The output of a call that is no list, or why the answer is none.
    fn plain_output(&self, response: &HttpResponse, seen: Seen<'_>) -> Result<AnswerBody, String> {
        if let Some(pointer) = &self.result {
            return self.part_of(pointer, seen);
        }
        if matches!(self.body, Body::GraphQl(_)) {
            let body = seen.into_body().ok_or("the answer is not JSON")?;
            return match body {
                Value::Object(mut map) => Ok(AnswerBody::Value(map.remove("data").unwrap_or(Value::Null))),
                _ => Err("the answer is no GraphQL response".to_owned()),
            };
        }
        match &self.reading {
            Reading::Auto if reading::says_json(response) || seen.body().is_some() => Ok(AnswerBody::Whole),
            Reading::Auto => Ok(AnswerBody::Value(reading::text_or_bytes(response))),
            Reading::Text => Ok(AnswerBody::Value(reading::text(response))),
            Reading::Binary => Ok(AnswerBody::Value(reading::bytes(response))),
            Reading::Json if seen.body().is_some() => Ok(AnswerBody::Whole),
            Reading::Xml { .. } | Reading::Soap { .. } if seen.body().is_some() => {
                Ok(AnswerBody::Value(seen.into_body().unwrap_or(Value::Null)))
            }
            // It was done all the same: the status says so. In SOAP only the answer itself can.
            Reading::Json | Reading::Xml { .. } if !matches!(self.effect, EffectRule::Read) => {
                Ok(AnswerBody::Value(reading::text_or_bytes(response)))
            }
            Reading::Json | Reading::Xml { .. } | Reading::Soap { .. } => Err(seen.unreadable()),
        }
    }

    /// The part of an answer to which `result` points.
    fn part_of(&self, pointer: &str, seen: Seen<'_>) -> Result<AnswerBody, String> {
        let there = seen.body().map(|body| body.pointer(pointer).is_some());
        match there {
            Some(true) => {
                let part = seen
                    .into_body()
                    .and_then(|mut body| body.pointer_mut(pointer).map(Value::take));
                Ok(AnswerBody::Value(part.unwrap_or(Value::Null)))
            }
            // The effect was done: the status says so.
            Some(false) | None if !matches!(self.effect, EffectRule::Read) => Ok(AnswerBody::Value(Value::Null)),
            Some(false) => Err(format!("the answer has nothing at `{pointer}`")),
            None => Err(seen.unreadable()),
        }
    }

    /// What its answers follow beyond HTTP.
    fn protocol(&self) -> Protocol {
        match self.body {
            Body::GraphQl(_) => Protocol::GraphQl,
            Body::Soap(_) => Protocol::Soap,
            Body::None | Body::Template(_) | Body::Rest => Protocol::Http,
        }
    }

    fn list_output(&self, ctx: &CallContext<'_>, response: &HttpResponse, seen: Seen<'_>) -> Answer {
        let Some(body) = seen.body() else {
            return answer::unreadable("unreadable", seen.unreadable(), response.status);
        };
        let items: &[Value] = match &self.items {
            None => &[],
            Some((text, pointer)) => match pointer.lookup(body) {
                Some(Value::Array(items)) => items,
                Some(Value::Null) => &[],
                // XML has no lists: one element is a list of one, and none is an empty one.
                Some(item) if self.reading.is_xml() => std::slice::from_ref(item),
                None if self.reading.is_xml() => &[],
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
                    .and_then(|mut body| body.pointer_mut(text).map(Value::take));
                AnswerBody::Value(match items {
                    Some(items @ Value::Array(_)) => items,
                    None | Some(Value::Null) => Value::Array(Vec::new()),
                    Some(item) => Value::Array(vec![item]),
                })
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
