//! The paths of the server, and nothing else.

use crate::measure::Route;
use crate::problem::{self, Code, Problem};
use crate::shared::Shared;
use crate::{answers, graphiql, graphql, health, hooks, oauth};
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::Value;
use weir_connector_sdk::Connector;
use weir_orchestrator::Role;
use weir_workflow_engine::Definition;

/// Adds every path to an application.
pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(web::resource("/hooks/{endpoint}").to(hooks::by_id))
        .service(web::resource("/hooks/{workspace}/{endpoint}").to(hooks::by_name))
        // For senders that can prove themselves only by a secret in the path.
        .service(web::resource("/hooks/{workspace}/{endpoint}/{token}").to(hooks::by_name))
        .service(web::resource("/answers/{token}").to(answers::serve))
        .service(web::resource("/oauth/callback").to(oauth::callback))
        .service(web::resource("/graphql").to(graphql::http::serve))
        .service(web::resource(["/graphiql", "/graphiql/", "/graphiql/{file}"]).to(graphiql_page))
        .service(web::resource("/healthz").to(health::healthz))
        .service(web::resource("/readyz").to(health::readyz))
        .service(web::resource("/metrics").to(health::metrics))
        .service(web::resource("/errors/{code}").to(error_page))
        .service(web::resource("/schemas/workflow.json").to(workflow_schema))
        .service(web::resource("/schemas/connector.json").to(connector_schema))
        .service(web::resource("/").to(health::landing))
        .default_service(web::to(unknown));
}

/// Refuses everything but GET and HEAD; the framework leaves the body out for HEAD.
pub(crate) fn reads_only(request: &HttpRequest) -> Result<(), Problem> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Problem::method_not_allowed("GET, HEAD")),
    }
}

async fn graphiql_page(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let answer = match reads_only(&request).and_then(|()| shared.plays(Role::Api)) {
        Ok(()) => graphiql::serve(request.match_info().get("file").unwrap_or_default()),
        Err(problem) => problem.to_response(),
    };
    shared.answers.count(Route::Graphiql, answer.status().as_u16());
    answer
}

async fn error_page(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let code = Code::by_name(request.match_info().get("code").unwrap_or_default());
    let answer = match (reads_only(&request), code) {
        (Err(problem), _) => problem.to_response(),
        (Ok(()), None) => Problem::new(Code::NotFound, "there is no such error code").to_response(),
        (Ok(()), Some(code)) => HttpResponse::Ok()
            .content_type("text/plain; charset=utf-8")
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((CACHE_CONTROL, "public, max-age=3600"))
            .body(problem::page(code)),
    };
    shared.answers.count(Route::Other, answer.status().as_u16());
    answer
}

/// JSON Schema of workflow documents, for editors. It says nothing about this installation.
async fn workflow_schema(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    schema(&request, &shared, Definition::json_schema)
}

/// JSON Schema of connectors' manifests, for editors. It says nothing about this installation.
async fn connector_schema(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    schema(&request, &shared, Connector::json_schema)
}

fn schema(request: &HttpRequest, shared: &Shared, text: fn() -> Value) -> HttpResponse {
    let answer = match reads_only(request) {
        Ok(()) => HttpResponse::Ok()
            .content_type("application/schema+json")
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((CACHE_CONTROL, "public, max-age=3600"))
            .body(text().to_string()),
        Err(problem) => problem.to_response(),
    };
    shared.answers.count(Route::Other, answer.status().as_u16());
    answer
}

async fn unknown(shared: web::Data<Shared>) -> HttpResponse {
    let answer = Problem::new(Code::NotFound, "this server has nothing at this path").to_response();
    shared.answers.count(Route::Other, answer.status().as_u16());
    answer
}
