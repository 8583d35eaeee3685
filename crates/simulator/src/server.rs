//! The fake providers' HTTP side: one handler that routes, disturbs, answers and writes the ledger.
//!
//! Everything a handler does besides a fault's waiting is a few map accesses, so one core serves well
//! above ten thousand requests per second. Faults that break a connection act on the socket itself.

use std::any::Any;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Extensions, ServerHandle};
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};

use crate::api::{ApiAnswer, ApiRequest};
use crate::clock::now_unix_ms;
use crate::control;
use crate::fault::{Direction, Fault};
use crate::idempotency::{KeyVerdict, StoredAnswer};
use crate::ledger::{EffectOutcome, EffectRecord, digest};
use crate::provider::{self, Provider, Route};
use crate::simulator::Inner;
use crate::world::World;

/// Largest request body, in bytes; the fake providers take no uploads.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Serves the fake providers on a bound listener until the handle stops it.
pub(crate) fn serve(inner: &Arc<Inner>, listener: TcpListener, workers: usize) -> std::io::Result<ServerHandle> {
    let data = web::Data::from(Arc::clone(inner));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
            .default_service(web::to(handle))
    })
    .on_connect(keep_socket)
    .workers(workers)
    .backlog(4096)
    .keep_alive(Duration::from_secs(75))
    .shutdown_timeout(1)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    // The server ends when its handle stops it; the task has nothing else to report.
    let _task = tokio::spawn(server);
    Ok(handle)
}

/// A second handle of the connection's socket, for faults that break it.
struct Socket(TcpStream);

fn keep_socket(connection: &dyn Any, extensions: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>()
        && let Ok(copy) = stream.as_fd().try_clone_to_owned()
    {
        extensions.insert(Socket(TcpStream::from(copy)));
    }
}

async fn handle(inner: web::Data<Inner>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let path = request.path();
    if path == "/_sim" || path.starts_with("/_sim/") {
        return control::handle(&inner.into_inner(), &request, &body).await;
    }
    let api = ApiRequest {
        method: request.method().as_str(),
        path,
        segments: path.trim_start_matches('/').split('/').collect(),
        query: request.query_string(),
        headers: request.headers(),
        body: &body,
        now_unix_ms: now_unix_ms(),
    };
    let Some(route) = provider::route(api.method, &api.segments) else {
        inner.world.ledger.count_request("unknown", false);
        return reply(ApiAnswer::text(
            404,
            r#"{"error":"the simulator has no such route"}"#.to_owned(),
        ));
    };
    let line = format!("{} {path}", api.method);
    match inner.world.faults.decide(Direction::Api, route.name, &line) {
        None => reply(perform(&inner.world, route, &api, true)),
        Some(fault) => disturbed(&inner.world, route, &api, &request, fault).await,
    }
}

async fn disturbed(
    world: &World,
    route: Route,
    api: &ApiRequest<'_>,
    request: &HttpRequest,
    fault: Fault,
) -> HttpResponse {
    match fault {
        Fault::Delay { ms } => {
            let answer = perform(world, route, api, true);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            reply(answer)
        }
        Fault::RateLimited { retry_after_s } => {
            world.ledger.count_request(route.name, true);
            reply(provider::failure(route.provider, 429).with_header("retry-after", retry_after_s.to_string()))
        }
        Fault::Status { status, executed } => {
            if executed {
                perform(world, route, api, false);
            } else {
                world.ledger.count_request(route.name, true);
            }
            reply(provider::failure(route.provider, status))
        }
        Fault::TimeOut { hold_ms, executed } => {
            if executed {
                perform(world, route, api, false);
            } else {
                world.ledger.count_request(route.name, true);
            }
            tokio::time::sleep(Duration::from_millis(hold_ms)).await;
            cut(request, None)
        }
        Fault::HangUp { executed } => {
            if executed {
                let answer = perform(world, route, api, false);
                return cut(request, Some(&answer));
            }
            world.ledger.count_request(route.name, true);
            cut(request, None)
        }
        Fault::Drop | Fault::Refuse => {
            world.ledger.count_request(route.name, true);
            cut(request, None)
        }
        Fault::Duplicate { .. } | Fault::Reorder { .. } => reply(perform(world, route, api, true)),
    }
}

/// Carries a request out and writes the ledger.
fn perform(world: &World, route: Route, api: &ApiRequest<'_>, answered: bool) -> ApiAnswer {
    let mut answer = match provider::refuse_stranger(world, route, api) {
        Some(refusal) => refusal,
        None => execute(world, route, api),
    };
    if !route.writes {
        world.ledger.count_request(route.name, !answered);
        return answer;
    }
    let (identity, outcome) = match answer.effect.take() {
        Some(effect) => (effect.identity, effect.outcome),
        None => (None, EffectOutcome::Refused),
    };
    world.ledger.record(EffectRecord {
        at_unix_ms: api.now_unix_ms,
        route: route.name,
        method: api.method,
        path: api.path,
        idempotency_key: api.header("idempotency-key"),
        body: api.body,
        identity,
        outcome,
        status: answer.status,
        answered,
    });
    answer
}

/// Carries a request out under its idempotency key, where the provider honours one.
fn execute(world: &World, route: Route, api: &ApiRequest<'_>) -> ApiAnswer {
    let behaviour = world.behaviour();
    let honours_keys = match route.provider {
        Provider::Stripe => behaviour.stripe_keys,
        Provider::Crm => behaviour.crm_keys,
        Provider::Hubspot | Provider::Slack | Provider::Github | Provider::Feed => false,
    };
    let key = api
        .header("idempotency-key")
        .filter(|key| honours_keys && route.writes && !key.is_empty());
    let Some(key) = key else {
        return provider::answer(world, route, api);
    };
    let key = format!("{}:{key}", route.provider.as_str());
    let fingerprint = format!("{} {} {}", api.method, api.path, digest(api.body));
    match world.keys.begin(&key, fingerprint, api.now_unix_ms) {
        KeyVerdict::New => {
            let answer = provider::answer(world, route, api);
            match &answer.effect {
                Some(effect) if matches!(effect.outcome, EffectOutcome::Done | EffectOutcome::Repeated) => {
                    let identity = effect.identity.clone();
                    world.keys.finish(
                        &key,
                        StoredAnswer {
                            status: answer.status,
                            body: answer.body.clone(),
                            identity,
                        },
                    );
                }
                Some(_) | None => world.keys.release(&key),
            }
            answer
        }
        KeyVerdict::Replay(StoredAnswer { status, body, identity }) => ApiAnswer {
            status,
            headers: Vec::new(),
            body,
            effect: None,
        }
        .with_header("idempotent-replayed", "true")
        .with_outcome(identity, EffectOutcome::Replayed),
        KeyVerdict::Mismatch => provider::key_conflict(route, false).with_outcome(None, EffectOutcome::Refused),
        KeyVerdict::InProgress => provider::key_conflict(route, true).with_outcome(None, EffectOutcome::Refused),
    }
}

fn reply(answer: ApiAnswer) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    for (name, value) in answer.headers {
        response.insert_header((name, value));
    }
    if answer.body.is_empty() {
        return response.finish();
    }
    response.content_type("application/json").body(answer.body)
}

/// Breaks the connection; with an answer, after about half of its body.
fn cut(request: &HttpRequest, answer: Option<&ApiAnswer>) -> HttpResponse {
    if let Some(Socket(socket)) = request.conn_data::<Socket>() {
        if let Some(answer) = answer {
            let head = format!(
                "HTTP/1.1 {} Simulated\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                answer.status,
                answer.body.len()
            );
            let half = answer.body.len() / 2;
            let mut bytes = head.into_bytes();
            bytes.extend(answer.body.iter().take(half));
            // The connection is to break anyway; a failed write breaks it a little earlier.
            let _written = (&*socket).write_all(&bytes);
        }
        let _closed = socket.shutdown(Shutdown::Both);
    }
    HttpResponse::build(StatusCode::INTERNAL_SERVER_ERROR)
        .force_close()
        .finish()
}
