//! The two fake upstreams on one port: the payment API that is read and the CRM that is written.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix_web::web::{Bytes, Data, Path};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use anyhow::Context as _;
use weir_bench::documents::{NO_EVENTS, amount, payment_intent_body};

use crate::arguments::Arguments;
use crate::record::Record;

/// Longer than any pause of a run, so that the upstream never closes a connection under a request.
const KEEP_ALIVE: Duration = Duration::from_secs(600);

struct Upstream {
    record: Arc<Record>,
    get_delay: Duration,
    crm_keys: bool,
}

/// Serves `listener` from a thread of its own until the process ends.
pub(crate) fn start(listener: TcpListener, record: Arc<Record>, arguments: &Arguments) -> anyhow::Result<()> {
    let upstream = Data::new(Upstream {
        record,
        get_delay: Duration::from_millis(arguments.get_delay_ms),
        crm_keys: arguments.crm_keys,
    });
    let server = move || {
        actix_web::rt::System::new().block_on(async move {
            HttpServer::new(move || {
                App::new()
                    .app_data(upstream.clone())
                    .route("/v1/payment_intents/{id}", web::get().to(payment_intent))
                    .route("/v1/events", web::get().to(events))
                    .route("/crm/deals/{id}", web::post().to(deal))
                    .default_service(web::to(unknown))
            })
            .workers(1)
            .keep_alive(KEEP_ALIVE)
            .disable_signals()
            .listen(listener)?
            .run()
            .await
        })
    };
    std::thread::Builder::new()
        .name("upstream".to_owned())
        .spawn(server)
        .context("cannot start the upstreams")?;
    Ok(())
}

async fn payment_intent(upstream: Data<Upstream>, id: Path<String>) -> HttpResponse {
    let began = upstream.record.clock.now_ns();
    let number = upstream.record.fetched(&id);
    let body = payment_intent_body(&id, number.map_or(1, amount));
    if !upstream.get_delay.is_zero() {
        tokio::time::sleep(upstream.get_delay).await;
    }
    let held_us = (upstream.record.clock.now_ns() - began) / 1000;
    upstream.record.held_us.fetch_add(held_us, Relaxed);
    upstream.record.held.fetch_add(1, Relaxed);
    HttpResponse::Ok().content_type("application/json").body(body)
}

async fn events() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(NO_EVENTS)
}

async fn deal(upstream: Data<Upstream>, request: HttpRequest, id: Path<String>, body: Bytes) -> HttpResponse {
    let key = request
        .headers()
        .get("idempotency-key")
        .and_then(|key| key.to_str().ok());
    upstream.record.written(&id, &body, key, upstream.crm_keys);
    HttpResponse::Ok()
        .content_type("application/json")
        .body(format!(r#"{{"id":"{id}","updated":true}}"#))
}

async fn unknown(upstream: Data<Upstream>) -> HttpResponse {
    upstream.record.unknown_paths.fetch_add(1, Relaxed);
    HttpResponse::NotFound().finish()
}
