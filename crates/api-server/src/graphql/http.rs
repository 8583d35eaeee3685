//! The GraphQL request handler: rules of the transport, limits, execution, and the answer's shape and status.
//!
//! Written by hand instead of the library's integration, which answers 200 to everything, takes any content type, and
//! runs mutations over GET. Nothing is executed before every check has passed.

use super::caller::Caller;
use super::errors::{Stage, server_error};
use super::negotiate::{self, MediaType};
use super::{ApiSchema, limits};
use crate::auth::Principal;
use crate::body::{self, BodyFailure};
use crate::measure::Route;
use crate::problem::{Code, Problem};
use crate::shared::Shared;
use actix_web::http::Method;
use actix_web::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpRequest, HttpResponse, web};
use async_graphql::parser::types::OperationType;
use async_graphql::{Request, Response, ServerError, Variables};
use std::collections::HashMap;
use std::time::Duration;
use weir_orchestrator::Role;

/// Longest time that a request may take, resolvers and all.
///
/// Limit: time of a request | `TIMEOUT`; a mutation goes on and may still be carried out | `a_graphql_request_has_ten_seconds`
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Status of a request that parses but cannot be executed. One constant, since the specification is about to move it.
const NOT_EXECUTED_STATUS: u16 = 400;
/// The methods of `/graphql`.
const METHODS: &str = "GET, POST";

/// What a client asked for, before the library sees it.
struct Asked {
    query: String,
    operation_name: Option<String>,
    variables: Variables,
}

/// A request that passed every check.
struct Prepared {
    request: Request,
    kind: OperationType,
}

/// A request that got no data.
struct Refused {
    problem: Problem,
    /// The request itself was well-formed: clients that accept plain JSON get 200.
    well_formed: bool,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Refused {
            problem,
            well_formed: false,
        }
    }
}

/// `/graphql`.
pub(crate) async fn serve(request: HttpRequest, mut payload: web::Payload, shared: web::Data<Shared>) -> HttpResponse {
    let answer = match negotiate::accept(header(&request, ACCEPT)) {
        None => Problem::new(
            Code::NotAcceptable,
            "this path answers in application/graphql-response+json or application/json",
        )
        .to_response(),
        Some(media) => match answer(&request, &mut payload, &shared).await {
            Ok((response, stage)) => executed(media, response, &stage),
            Err(refused) => not_executed(media, &refused),
        },
    };
    shared.answers.count(Route::Graphql, answer.status().as_u16());
    answer
}

async fn answer(
    request: &HttpRequest,
    payload: &mut web::Payload,
    shared: &Shared,
) -> Result<(Response, Stage), Refused> {
    shared.plays(Role::Api)?;
    let by_get = match *request.method() {
        Method::GET => true,
        Method::POST => false,
        _ => return Err(Problem::method_not_allowed(METHODS).into()),
    };
    let principal = shared.principal(request).ok_or_else(|| {
        Problem::new(
            Code::Unauthenticated,
            "this needs a valid token in the Authorization header",
        )
    })?;
    let asked = if by_get {
        from_query_string(request.query_string())?
    } else {
        from_body(request, payload).await?
    };
    let prepared = prepare(asked, by_get).map_err(|problem| Refused {
        well_formed: problem.code != Code::MethodNotAllowed,
        problem,
    })?;
    run(prepared, principal, shared).await
}

/// Executes on the main runtime. A client that goes away, or a request that takes too long, never cuts a mutation
/// half-way: its task goes on; only a query is dropped.
async fn run(prepared: Prepared, principal: Principal, shared: &Shared) -> Result<(Response, Stage), Refused> {
    let stage = Stage::default();
    let caller = Caller::new(shared.orchestrator.clone(), principal);
    let request = prepared.request.data(caller).data(stage.clone());
    let schema: ApiSchema = shared.schema.clone();
    let task = shared.runtime.spawn(async move {
        let execution = schema.execute(request);
        match prepared.kind {
            OperationType::Mutation => Ok(execution.await),
            OperationType::Query | OperationType::Subscription => tokio::time::timeout(TIME_LIMIT, execution).await,
        }
    });
    match tokio::time::timeout(TIME_LIMIT, task).await {
        Ok(Ok(Ok(response))) => Ok((response, stage)),
        Err(_elapsed) | Ok(Ok(Err(_elapsed))) => {
            Err(Problem::new(Code::Timeout, format!("not done within {} s", TIME_LIMIT.as_secs())).into())
        }
        Ok(Err(failed)) => {
            tracing::error!("a GraphQL request panicked or was cut off: {failed}");
            Err(Problem::new(Code::Internal, "the request could not be finished").into())
        }
    }
}

fn from_query_string(query_string: &str) -> Result<Asked, Problem> {
    let parameters = web::Query::<HashMap<String, String>>::from_query(query_string)
        .map_err(|_error| Problem::new(Code::BadRequest, "the query string is malformed"))?;
    let json = |name: &str| -> Result<serde_json::Value, Problem> {
        match parameters.get(name).filter(|text| !text.is_empty()) {
            None => Ok(serde_json::Value::Null),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Problem::new(Code::BadRequest, format!("the parameter {name} is not JSON: {error}"))),
        }
    };
    let text = |name: &str| {
        parameters
            .get(name)
            .filter(|text| !text.is_empty())
            .map_or(serde_json::Value::Null, |text| text.as_str().into())
    };
    if query_string.len() > limits::MAX_QUERY_STRING_BYTES {
        return Err(Problem::new(
            Code::BodyTooLarge,
            format!(
                "the query string is larger than {} bytes",
                limits::MAX_QUERY_STRING_BYTES
            ),
        ));
    }
    asked(
        text("query"),
        text("operationName"),
        json("variables")?,
        json("extensions")?,
    )
}

async fn from_body(request: &HttpRequest, payload: &mut web::Payload) -> Result<Asked, Problem> {
    if !negotiate::is_json(header(request, CONTENT_TYPE)) {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "a POST carries application/json",
        ));
    }
    let bytes = body::read(payload, body::declared_length(request), limits::MAX_BODY_BYTES)
        .await
        .map_err(|failure| match failure {
            BodyFailure::TooLarge { limit_bytes } => Problem::new(
                Code::BodyTooLarge,
                format!("the body is larger than {limit_bytes} bytes"),
            ),
            BodyFailure::TooSlow => Problem::new(Code::BodyTimeout, "the body took too long"),
            BodyFailure::Broken => Problem::new(Code::BadRequest, "the body could not be read"),
        })?;
    match serde_json::from_slice(&bytes) {
        Ok(serde_json::Value::Object(mut body)) => {
            let mut take = |name: &str| body.remove(name).unwrap_or_default();
            asked(
                take("query"),
                take("operationName"),
                take("variables"),
                take("extensions"),
            )
        }
        Ok(serde_json::Value::Array(_)) => Err(Problem::new(
            Code::BadRequest,
            "batches are not supported: send one request at a time",
        )),
        Ok(_) => Err(Problem::new(Code::BadRequest, "the body is not a JSON object")),
        Err(error) => Err(Problem::new(Code::BadRequest, not_json(&error))),
    }
}

/// Why a text could not be read; the parser calls its limit of 128 levels by a name that only its authors know.
fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("recursion limit exceeded") {
        Some(place) => format!("the body's arrays and objects are nested deeper than 127{place}"),
        None => format!("the body is not JSON: {text}"),
    }
}

fn asked(
    query: serde_json::Value,
    operation_name: serde_json::Value,
    variables: serde_json::Value,
    extensions: serde_json::Value,
) -> Result<Asked, Problem> {
    use serde_json::Value;
    let wrong = |name: &str, wanted: &str| Err(Problem::new(Code::BadRequest, format!("{name} must be {wanted}")));
    let query = match query {
        Value::String(query) => query,
        Value::Null => return wrong("query", "given"),
        _ => return wrong("query", "a string"),
    };
    let operation_name = match operation_name {
        Value::String(name) => Some(name),
        Value::Null => None,
        _ => return wrong("operationName", "a string"),
    };
    let variables = match variables {
        Value::Object(_) => Variables::from_json(variables),
        Value::Null => Variables::default(),
        _ => return wrong("variables", "an object"),
    };
    match extensions {
        Value::Object(_) | Value::Null => Ok(Asked {
            query,
            operation_name,
            variables,
        }),
        _ => wrong("extensions", "an object"),
    }
}

/// Parses and checks; the parsed document travels along, so it is parsed once.
fn prepare(asked: Asked, by_get: bool) -> Result<Prepared, Problem> {
    limits::scan(&asked.query)?;
    let mut request = Request::new(asked.query).variables(asked.variables);
    request.operation_name = asked.operation_name.filter(|name| !name.is_empty());
    let name = request.operation_name.clone();
    let variables = std::mem::take(&mut request.variables);
    let document = request
        .parsed_query()
        .map_err(|error| Problem::new(Code::ParseFailed, error.message))?;
    limits::check(document)?;
    let operation = limits::chosen_operation(document, name.as_deref())?;
    limits::check_operation(operation, &variables, by_get)?;
    let kind = operation.ty;
    Ok(Prepared {
        request: request.variables(variables),
        kind,
    })
}

fn executed(media: MediaType, mut response: Response, stage: &Stage) -> HttpResponse {
    stage.complete(&mut response.errors);
    without_repetition(&mut response.errors);
    let status = match (stage.executed(), media) {
        (true, _) | (false, MediaType::Json) => 200,
        (false, MediaType::GraphqlResponse) => NOT_EXECUTED_STATUS,
    };
    let mut text = String::from("{");
    if !response.errors.is_empty() {
        push_errors(&mut text, &response.errors);
    }
    if stage.executed() {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str("\"data\":");
        text.push_str(&serde_json::to_string(&response.data).expect("GraphQL values are JSON"));
    }
    text.push('}');
    reply(status, media, text)
}

fn not_executed(media: MediaType, refused: &Refused) -> HttpResponse {
    let mut text = String::from("{");
    push_errors(&mut text, &[server_error(&refused.problem)]);
    text.push('}');
    if refused.well_formed && media == MediaType::Json {
        return reply(200, media, text);
    }
    let mut answer = refused.problem.with_body(media.content_type(), text);
    harden(&mut answer);
    answer
}

/// Leaves the first error about the cost of the request: once that is used up, thousands of fields may say so.
fn without_repetition(errors: &mut Vec<ServerError>) {
    let about_cost = async_graphql::Value::from(Code::CostExceeded.entry().code);
    let mut said = false;
    errors.retain(|error| {
        let code = error.extensions.as_ref().and_then(|extensions| extensions.get("code"));
        code != Some(&about_cost) || !std::mem::replace(&mut said, true)
    });
}

fn push_errors(text: &mut String, errors: &[ServerError]) {
    text.push_str("\"errors\":");
    text.push_str(&serde_json::to_string(errors).expect("errors are JSON"));
}

fn reply(status: u16, media: MediaType, text: String) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status).expect("a valid status");
    let mut answer = HttpResponse::build(status)
        .content_type(media.content_type())
        .body(text);
    harden(&mut answer);
    answer
}

fn harden(answer: &mut HttpResponse) {
    use actix_web::http::header::HeaderValue;
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

fn header(request: &HttpRequest, name: HeaderName) -> Option<&str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::not_json;

    #[test]
    fn a_limit_of_the_parser_is_said_in_words() {
        let reason = |text: &str| not_json(&serde_json::from_str::<serde_json::Value>(text).unwrap_err());
        assert_eq!(
            reason(&"[".repeat(200)),
            "the body's arrays and objects are nested deeper than 127 at line 1 column 128"
        );
        assert_eq!(
            reason("{"),
            "the body is not JSON: EOF while parsing an object at line 1 column 1"
        );
    }
}
