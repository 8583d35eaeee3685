//! Takes webhooks and runs the flow.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use anyhow::Context as _;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_bench::{clock, documents::Deal, signature};

use crate::Arguments;
use crate::entity::{event, step};
use crate::store::{Row, Store};

/// Steps of one flow never reach this number, so flow ids leave room for them.
const STEPS_PER_FLOW: i64 = 64;

/// The two fields of the event that the flow uses.
#[derive(Deserialize)]
struct Thin {
    id: String,
    data: ThinData,
}

#[derive(Deserialize)]
struct ThinData {
    object: ThinObject,
}

#[derive(Deserialize)]
struct ThinObject {
    id: String,
}

/// The three fields of the payment intent that the flow maps.
#[derive(Deserialize)]
struct Payment {
    amount: u64,
    currency: String,
    receipt_email: String,
}

struct Bare {
    store: Store,
    client: reqwest::Client,
    secret: String,
    upstream: String,
    ack_only: bool,
    open: Arc<Semaphore>,
    next_flow: Cell<i64>,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn serve(arguments: &Arguments, store: Store) -> anyhow::Result<()> {
    // There is one worker, hence one counter; it starts at the time, so a restart repeats no id.
    let first_flow = clock::unix_ms() * 1000;
    let settings = arguments.clone();
    let pid_file = arguments.pid_file.clone();
    actix_web::rt::System::new().block_on(async move {
        let port = settings.port;
        let server = HttpServer::new(move || {
            let bare = Rc::new(Bare {
                store: store.clone(),
                client: client().expect("a client without special settings can be built"),
                secret: settings.secret.clone(),
                upstream: settings.upstream.clone(),
                ack_only: settings.ack_only,
                open: Arc::new(Semaphore::new(settings.max_open)),
                next_flow: Cell::new(first_flow),
            });
            App::new()
                .app_data(Data::new(bare))
                .route("/hooks/main/bench", web::post().to(webhook))
        })
        .workers(1)
        .shutdown_timeout(5)
        .bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot listen on port {port}"))?;
        if let Some(file) = pid_file {
            std::fs::write(&file, std::process::id().to_string()).context("cannot write the pid file")?;
        }
        Ok(server.run().await?)
    })
}

fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .pool_max_idle_per_host(512)
        .timeout(Duration::from_secs(30))
        .no_proxy()
        .build()
}

async fn webhook(bare: Data<Rc<Bare>>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let header = request
        .headers()
        .get("stripe-signature")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !signature::verify(&bare.secret, header, clock::unix_ms() / 1000, &body) {
        return HttpResponse::Unauthorized().finish();
    }
    let Ok(thin) = serde_json::from_slice::<Thin>(&body) else {
        return HttpResponse::BadRequest().finish();
    };
    let Ok(permit) = Arc::clone(&bare.open).acquire_owned().await else {
        return HttpResponse::ServiceUnavailable().finish();
    };
    let flow = bare.next_flow.get();
    bare.next_flow.set(flow + 1);
    let row = event::Model {
        id: flow,
        external_id: thin.id.clone(),
        received_at: clock::unix_ms(),
        headers: r#"{"content-type":"application/json; charset=utf-8"}"#.to_owned(),
        body: body.to_vec(),
    };
    if bare.store.put(Row::Event(row)).await.is_err() {
        return HttpResponse::ServiceUnavailable().finish();
    }
    if !bare.ack_only {
        actix_web::rt::spawn(run(Rc::clone(&bare), flow, thin, permit));
    }
    HttpResponse::Ok()
        .content_type("application/json")
        .body(format!(r#"{{"flow":{flow}}}"#))
}

/// A flow that fails is simply lost: this program has nobody to tell. The load generator counts it.
async fn run(bare: Rc<Bare>, flow: i64, thin: Thin, permit: OwnedSemaphorePermit) {
    drop(steps(&bare, flow, thin).await);
    drop(permit);
}

async fn steps(bare: &Bare, flow: i64, thin: Thin) -> anyhow::Result<()> {
    let object = &thin.data.object.id;
    let answer = bare
        .client
        .get(format!("{}/v1/payment_intents/{object}", bare.upstream))
        .send()
        .await?;
    let status = answer.status();
    let fetched = answer.bytes().await?;
    put_step(bare, flow, 1, status, &fetched).await?;

    let payment: Payment = serde_json::from_slice(&fetched)?;
    let deal = Deal {
        event_id: thin.id,
        amount: payment.amount,
        currency: payment.currency,
        receipt_email: payment.receipt_email,
    };
    let answer = bare
        .client
        .post(format!("{}/crm/deals/{object}", bare.upstream))
        .header("content-type", "application/json")
        .header("idempotency-key", flow)
        .body(serde_json::to_vec(&deal)?)
        .send()
        .await?;
    let status = answer.status();
    let written = answer.bytes().await?;
    put_step(bare, flow, 2, status, &written).await
}

async fn put_step(bare: &Bare, flow: i64, number: i64, status: reqwest::StatusCode, body: &[u8]) -> anyhow::Result<()> {
    let row = step::Model {
        id: flow * STEPS_PER_FLOW + number,
        status: i32::from(status.as_u16()),
        finished_at: clock::unix_ms(),
        body: body.to_vec(),
    };
    bare.store.put(Row::Step(row)).await
}
