//! `/hooks/…`: takes webhooks. The hot path of the server.
//!
//! The head is judged before the body is read; the body's bytes go on untouched; the answer is what the orchestrator says
//! once the event is on disk. A sender that goes away before the body is complete has sent nothing. One that goes away
//! later changes nothing: the fact is with the writer by then, and the writer hands it to the runs, not this request.

use crate::body::{self, BodyFailure};
use crate::measure::Route;
use crate::problem::{Code, Problem};
use crate::shared::Shared;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use std::net::{IpAddr, Ipv4Addr};
use weir_orchestrator::ingest::{Delivery, EndpointRef, IngestCode, IngestProblem, Reply};
use weir_orchestrator::{Orchestrator, Role};

/// `/hooks/{endpoint id}`.
pub(crate) async fn by_id(request: HttpRequest, payload: web::Payload, shared: web::Data<Shared>) -> HttpResponse {
    let Ok(id) = request.match_info().get("endpoint").unwrap_or_default().parse() else {
        return counted(
            &shared,
            Problem::new(Code::EndpointUnknown, "no endpoint has this address").to_response(),
        );
    };
    let answer = take(&request, payload, &shared, EndpointRef::Id(id)).await;
    counted(&shared, answer)
}

/// `/hooks/{workspace}/{endpoint name}`.
pub(crate) async fn by_name(request: HttpRequest, payload: web::Payload, shared: web::Data<Shared>) -> HttpResponse {
    let path = request.match_info();
    let endpoint = EndpointRef::Name {
        workspace: path.get("workspace").unwrap_or_default(),
        name: path.get("endpoint").unwrap_or_default(),
    };
    let answer = take(&request, payload, &shared, endpoint).await;
    counted(&shared, answer)
}

fn counted(shared: &Shared, answer: HttpResponse) -> HttpResponse {
    shared.answers.count(Route::Hooks, answer.status().as_u16());
    answer
}

async fn take(
    request: &HttpRequest,
    mut payload: web::Payload,
    shared: &Shared,
    endpoint: EndpointRef<'_>,
) -> HttpResponse {
    if let Err(problem) = shared.plays(Role::Ingest) {
        return problem.to_response();
    }
    match deliver(request, &mut payload, &shared.orchestrator, endpoint).await {
        Ok(reply) => from_reply(reply),
        Err(Refused { problem, bare: false }) => problem.to_response(),
        Err(Refused { problem, bare: true }) => problem.without_body(),
    }
}

/// Why a request was not taken, and whether its sender wants the status alone.
struct Refused {
    problem: Problem,
    bare: bool,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Refused { problem, bare: false }
    }
}

impl From<IngestProblem> for Refused {
    fn from(problem: IngestProblem) -> Self {
        Refused {
            bare: problem.bare,
            problem: problem_of(problem),
        }
    }
}

async fn deliver(
    request: &HttpRequest,
    payload: &mut web::Payload,
    orchestrator: &Orchestrator,
    endpoint: EndpointRef<'_>,
) -> Result<Reply, Refused> {
    let declared_bytes = body::declared_length(request);
    let delivery = Delivery {
        endpoint,
        method: request.method().as_str(),
        path_and_query: request.uri().path_and_query().map_or("/", |path| path.as_str()),
        headers: headers(request),
        // A peer is unknown only for sockets that are no network connections.
        peer: request
            .peer_addr()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip()),
    };
    let admission = orchestrator.admit(&delivery, declared_bytes).await?;
    let bytes = match body::read(payload, declared_bytes, admission.max_body_bytes()).await {
        Ok(bytes) => bytes,
        Err(BodyFailure::TooLarge { .. }) => return Err(orchestrator.too_large(&admission, &delivery).into()),
        Err(BodyFailure::TooSlow) => {
            let detail = format!("the body did not arrive within {} s", body::BODY_PATIENCE.as_secs());
            return Err(Problem::new(Code::BodyTimeout, detail).into());
        }
        Err(BodyFailure::Broken) => {
            return Err(Problem::new(Code::BodyInvalid, "the body could not be read to its end").into());
        }
    };
    Ok(orchestrator.ingest(admission, delivery, bytes).await?)
}

/// Names are lower case already; a value that is no UTF-8 is read as Latin-1, as HTTP once meant it.
fn headers(request: &HttpRequest) -> Vec<(String, String)> {
    let map = request.headers();
    let mut headers = Vec::with_capacity(map.len());
    headers.extend(
        map.iter()
            .map(|(name, value)| (name.as_str().to_owned(), header_text(value.as_bytes()))),
    );
    headers
}

fn header_text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_not_utf8) => value.iter().copied().map(char::from).collect(),
    }
}

pub(crate) fn from_reply(reply: Reply) -> HttpResponse {
    let Ok(status) = StatusCode::from_u16(reply.status) else {
        tracing::error!(
            status = reply.status,
            "a connector's reply has a status that HTTP does not know"
        );
        return Problem::new(Code::Internal, "the connector's reply is broken; the event was kept").to_response();
    };
    let mut answer = HttpResponse::build(status);
    for (name, value) in reply.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.append_header((name, value));
        }
    }
    answer.body(reply.body)
}

fn problem_of(problem: IngestProblem) -> Problem {
    let code = match problem.code {
        IngestCode::EndpointUnknown => Code::EndpointUnknown,
        IngestCode::MethodNotAllowed => return Problem::method_not_allowed("POST"),
        IngestCode::BodyTooLarge => Code::BodyTooLarge,
        IngestCode::AddressNotAllowed => Code::AddressNotAllowed,
        IngestCode::SignatureRefused => Code::SignatureRefused,
        IngestCode::ProviderUnavailable => Code::ProviderUnavailable,
        IngestCode::BodyInvalid => Code::BodyInvalid,
        IngestCode::BacklogFull => Code::BacklogFull,
        IngestCode::QueueFull => Code::QueueFull,
        IngestCode::DatabaseUnavailable => Code::DatabaseUnavailable,
        IngestCode::ShuttingDown => Code::ShuttingDown,
    };
    Problem {
        retry_after_s: problem.retry_after_s,
        ..Problem::new(code, problem.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_survive_whatever_their_encoding() {
        assert_eq!(header_text(b"t=1,v1=ab"), "t=1,v1=ab");
        assert_eq!(header_text("größe".as_bytes()), "größe");
        assert_eq!(header_text(b"gr\xf6\xdfe"), "größe");
    }

    #[test]
    fn replies_keep_status_headers_and_body() {
        let reply = Reply {
            status: 202,
            headers: vec![("x-a".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())],
            body: b"ok".to_vec(),
        };
        let answer = from_reply(reply);
        assert_eq!(answer.status().as_u16(), 202);
        assert_eq!(answer.headers().get_all("x-a").count(), 2);
        assert_eq!(
            from_reply(Reply {
                status: 42,
                headers: vec![],
                body: vec![]
            })
            .status()
            .as_u16(),
            500
        );
    }
}
