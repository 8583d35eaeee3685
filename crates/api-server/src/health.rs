//! `/healthz`, `/readyz`, `/metrics` and the landing page.
//!
//! Health and readiness are open and say nothing about the configuration. Metrics name connectors and workflows, so they
//! are open only to this machine; anybody else needs a token with `METRICS_READ`.

use crate::auth::Permission;
use crate::measure::Route;
use crate::problem::{Code, Problem};
use crate::routes::reads_only;
use crate::shared::Shared;
use actix_web::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

/// Headers that a proxy adds: behind one, a loopback peer is anybody.
const PROXY_HEADERS: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

/// The process answers. Liveness only: says nothing about the database.
pub(crate) async fn healthz(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    counted(&shared, reads_only(&request).map(|()| plain("ok\n".to_owned())))
}

/// Whether webhooks are accepted and runs move; 503 with the reasons if not.
pub(crate) async fn readyz(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let outcome = reads_only(&request).map(|()| {
        let readiness = shared.orchestrator.readiness();
        let mut answer = if readiness.ready {
            HttpResponse::Ok()
        } else {
            HttpResponse::ServiceUnavailable()
        };
        answer.insert_header((CACHE_CONTROL, "no-store"));
        answer.json(json!({ "ready": readiness.ready, "reasons": readiness.reasons, "warnings": readiness.warnings }))
    });
    counted(&shared, outcome)
}

/// Prometheus metrics.
pub(crate) async fn metrics(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let outcome = reads_only(&request)
        .and_then(|()| may_read_metrics(&request, &shared))
        .map(|()| {
            HttpResponse::Ok()
                .content_type("text/plain; version=0.0.4; charset=utf-8")
                .insert_header((CACHE_CONTROL, "no-store"))
                .body((shared.render_metrics)())
        });
    counted(&shared, outcome)
}

fn may_read_metrics(request: &HttpRequest, shared: &Shared) -> Result<(), Problem> {
    let local = request
        .peer_addr()
        .is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    let proxied = PROXY_HEADERS.iter().any(|name| request.headers().contains_key(*name));
    if local && !proxied {
        return Ok(());
    }
    match shared.principal(request) {
        Some(principal) if principal.may(Permission::MetricsRead) => Ok(()),
        Some(_) => Err(Problem::new(Code::Forbidden, "this needs the permission METRICS_READ")),
        None => Err(Problem::new(
            Code::Unauthenticated,
            "metrics are open to this machine only; from elsewhere send a token",
        )),
    }
}

/// What this server offers: HTML for browsers, JSON for everybody else.
pub(crate) async fn landing(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let wants_html = request
        .headers()
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("text/html"));
    let outcome = reads_only(&request).map(|()| match wants_html {
        true => HttpResponse::Ok()
            .content_type("text/html; charset=utf-8")
            .insert_header((
                CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            ))
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .body(LANDING.replace("{version}", env!("CARGO_PKG_VERSION"))),
        false => HttpResponse::Ok().json(json!({
            "name": "weir",
            "version": env!("CARGO_PKG_VERSION"),
            "graphql": "/graphql",
            "graphiql": "/graphiql",
            "hooks": ["/hooks/{endpoint id}", "/hooks/{workspace}/{endpoint name}"],
            "health": "/healthz",
            "readiness": "/readyz",
            "metrics": "/metrics",
        })),
    });
    counted(&shared, outcome)
}

const LANDING: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Weir</title>
<style>body{font:16px/1.6 system-ui,sans-serif;max-width:40rem;margin:12vh auto;padding:0 1rem}code{font-size:.95em}li{margin:.3rem 0}</style></head>
<body><h1>Weir</h1><p>This server runs Weir {version}. It takes webhooks and runs workflows.</p>
<ul>
<li><a href="/graphiql">/graphiql</a>: explore and change everything in the browser (needs a token)</li>
<li><code>/graphql</code>: the same for programs</li>
<li><code>/hooks/…</code>: where providers send their webhooks</li>
<li><a href="/readyz">/readyz</a>: whether it can do its work</li>
<li><a href="/metrics">/metrics</a>: Prometheus metrics (this machine, or a token)</li>
</ul><p>On the command line: <code>weir --help</code>.</p></body></html>
"#;

fn plain(text: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(text)
}

fn counted(shared: &Shared, outcome: Result<HttpResponse, Problem>) -> HttpResponse {
    let answer = outcome.unwrap_or_else(|problem| problem.to_response());
    shared.answers.count(Route::Health, answer.status().as_u16());
    answer
}
