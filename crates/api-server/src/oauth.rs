//! `/oauth/callback`: where providers send people back to. Open to anybody; the state is the permission.
//!
//! What a person sees is a plain page in words of ours. The address holds a code, so nothing about it is cached or handed
//! on with a link.

use crate::measure::Route;
use crate::problem::{Code, Problem};
use crate::shared::Shared;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use weir_orchestrator::Role;
use weir_orchestrator::grants::{Callback, ConnectError};

pub(crate) async fn callback(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let answer = match *request.method() {
        // A HEAD would use the way up: it counts once.
        Method::GET => match shared.plays(Role::Api) {
            Ok(()) => complete(&request, &shared).await,
            Err(problem) => page(&problem),
        },
        _ => Problem::method_not_allowed("GET").to_response(),
    };
    shared.answers.count(Route::Other, answer.status().as_u16());
    answer
}

async fn complete(request: &HttpRequest, shared: &Shared) -> HttpResponse {
    let callback = Callback::of_query(request.query_string());
    match shared.orchestrator.connection_complete(callback).await {
        Ok(connected) => {
            let account = connected
                .account
                .map_or_else(String::new, |account| format!(" to {account}"));
            let text = format!(
                "`{}` is connected{account}.\n\nWhat waited for it goes on by itself. You can close this window.\n",
                connected.connection
            );
            plain(StatusCode::OK, text)
        }
        Err(error) => page(&Problem::new(code_of(&error), error.to_string())),
    }
}

/// Which entry of the catalogue a refusal is.
pub(crate) fn code_of(error: &ConnectError) -> Code {
    match error {
        ConnectError::NotFound | ConnectError::NotGranted { .. } | ConnectError::NotConnected(_) => {
            Code::OauthConnection
        }
        ConnectError::State(_) => Code::OauthState,
        ConnectError::Refused(_) => Code::OauthRefused,
        ConnectError::OtherAccount(_) => Code::OauthAccount,
        ConnectError::Unavailable(_) => Code::DatabaseUnavailable,
    }
}

/// A problem as a person reads it.
fn page(problem: &Problem) -> HttpResponse {
    let entry = problem.code.entry();
    let text = format!(
        "{}.\n\n{}\n\n{}\n\n{}\n",
        entry.title, problem.detail, entry.fix, entry.code
    );
    plain(
        StatusCode::from_u16(entry.status).unwrap_or(StatusCode::BAD_REQUEST),
        text,
    )
}

fn plain(status: StatusCode, text: String) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/plain; charset=utf-8")
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(text)
}
