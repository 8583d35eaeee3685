//! `/answers/{token}`: the answer of a run whose caller did not wait long enough for it.
//!
//! The token is the permission: it was told to the caller alone, and opens nothing else.

use crate::hooks::from_reply;
use crate::measure::Route;
use crate::problem::{Code, Problem};
use crate::routes::reads_only;
use crate::shared::Shared;
use actix_web::http::header::{CACHE_CONTROL, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use weir_orchestrator::answers::Answered;
use weir_orchestrator::control::ControlError;
use weir_orchestrator::ingest::Reply;

pub(crate) async fn serve(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let answer = match reads_only(&request) {
        Ok(()) => look(&request, &shared).await,
        Err(problem) => problem.to_response(),
    };
    shared.answers.count(Route::Other, answer.status().as_u16());
    answer
}

async fn look(request: &HttpRequest, shared: &Shared) -> HttpResponse {
    let token = request.match_info().get("token").unwrap_or_default();
    match shared.orchestrator.answer(token).await {
        Ok(Answered::Yes(answer)) => from_reply(Reply {
            status: answer.status,
            headers: answer.headers,
            body: answer.body,
        }),
        Ok(Answered::NotYet) => HttpResponse::Accepted()
            .insert_header((RETRY_AFTER, "1"))
            .insert_header((CACHE_CONTROL, "no-store"))
            .json(json!({ "status": "accepted" })),
        Ok(Answered::Never { status }) => {
            let detail = format!("the run {status} without an answer");
            Problem::new(Code::NoAnswer, detail).to_response()
        }
        Err(ControlError::Unavailable(cause)) => {
            tracing::warn!("an answer cannot be read: {cause}");
            Problem::new(Code::DatabaseUnavailable, "the answer cannot be read now").to_response()
        }
        Err(_unknown) => Problem::new(Code::NotFound, "there is no answer at this address").to_response(),
    }
}
