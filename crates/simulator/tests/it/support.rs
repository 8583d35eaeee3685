//! A receiver of webhooks that verifies with the SDK, and small HTTP helpers.

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::sync::{Arc, LazyLock, Mutex};

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::Value;
use weir_connector_sdk::{Connector, InboundRequest, KeyDocuments, Registration, Unverified};

/// What arrived at the receiver.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Reason of the refusal; `None` when the signature was good.
    pub(crate) refused: Option<String>,
    /// Body as it arrived.
    pub(crate) body: String,
    /// Headers, lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

/// A server on loopback that verifies every request with a connector's scheme.
pub(crate) struct Receiver {
    pub(crate) url: String,
    state: Arc<State>,
    handle: ServerHandle,
}

struct State {
    connector: Connector,
    url: String,
    secret: String,
    received: Mutex<Vec<Received>>,
    /// Statuses to answer good requests with, before 200.
    answers: Mutex<VecDeque<u16>>,
}

impl Receiver {
    pub(crate) fn start(connector: &str, secret: &str) -> Self {
        let builtin = weir_connectors::find(connector).expect("a built-in connector");
        let connector =
            Connector::parse(builtin.yaml, &|path| builtin.file(path).map(str::to_owned)).expect("a good manifest");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "http://127.0.0.1:{}/hooks/main/test",
            listener.local_addr().unwrap().port()
        );
        let state = Arc::new(State {
            connector,
            url: url.clone(),
            secret: secret.to_owned(),
            received: Mutex::default(),
            answers: Mutex::default(),
        });
        let data = web::Data::from(Arc::clone(&state));
        let server = HttpServer::new(move || App::new().app_data(data.clone()).default_service(web::to(receive)))
            .workers(1)
            .shutdown_timeout(1)
            .disable_signals()
            .listen(listener)
            .unwrap()
            .run();
        let handle = server.handle();
        tokio::spawn(server);
        Self { url, state, handle }
    }

    /// The next good requests are answered with these statuses.
    pub(crate) fn answer(&self, statuses: &[u16]) {
        self.state.answers.lock().unwrap().extend(statuses);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    pub(crate) async fn stop(self) {
        self.handle.stop(false).await;
    }
}

async fn receive(state: web::Data<State>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let headers: Vec<(String, String)> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let registration = Registration::new();
    // The URL that was called, with its query as it was written.
    let origin = state.url.strip_suffix("/hooks/main/test").unwrap();
    let url = format!("{origin}{}", request.uri());
    let inbound = InboundRequest {
        method: "POST",
        url: &url,
        headers: &headers,
        body: &body,
        registration: &registration,
        client_ip: None,
    };
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let verifier = state.connector.webhook().expect("a way in").verifier();
    let verdict = verifier
        .unwrap()
        .verify(&inbound, &[state.secret.clone().into()], &KeyDocuments::default(), now)
        .map_err(|unverified| match unverified {
            Unverified::Refused(refusal) => refusal.reason.as_str().to_owned(),
            Unverified::Wants(wanted) => format!("wants {}", wanted.url),
        });
    state.received.lock().unwrap().push(Received {
        refused: verdict.as_ref().err().cloned(),
        body: String::from_utf8(body.to_vec()).unwrap(),
        headers: headers.into_iter().collect(),
    });
    if verdict.is_err() {
        return HttpResponse::Unauthorized().finish();
    }
    let status = state.answers.lock().unwrap().pop_front().unwrap_or(200);
    HttpResponse::build(StatusCode::from_u16(status).unwrap()).finish()
}

/// A client without proxy that keeps no connection, so a broken one harms nobody else.
pub(crate) fn client() -> reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .build()
            .unwrap()
    });
    CLIENT.clone()
}

/// Status and JSON of an answer.
pub(crate) async fn json(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}
