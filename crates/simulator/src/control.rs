//! The control API, `/_sim/…`: what tests and people in another process do to a simulator.
//!
//! JSON in, JSON out, no keys: the port is loopback only. Errors are `{"error": …}` with 400 or 404.
//!
//! | call | does |
//! |---|---|
//! | `GET /_sim` | seed, ports, behaviour, sizes, ledger and deliveries in numbers |
//! | `GET`, `DELETE /_sim/ledger?route=&identity=&limit=` | summary and newest entries; a new ledger |
//! | `GET /_sim/balance` | acknowledged events against effects |
//! | `GET`, `POST`, `DELETE /_sim/faults`, `DELETE /_sim/faults/{id}` | fault rules |
//! | `GET`, `PUT /_sim/behaviour` | idempotency keys on or off, search lag |
//! | `PUT /_sim/listening/{provider}` | body `true` or `false`: opens or closes the provider's own port |
//! | `GET`, `PUT`, `DELETE /_sim/state/{collection…}/{id}`, `GET /_sim/state/{collection…}/` | objects |
//! | `POST /_sim/happen` | `{scenario, number}`: state without a webhook |
//! | `POST /_sim/send` | a [`Delivery`], or `{scenario, number, url, secrets, forge?}` |
//! | `GET`, `POST`, `DELETE /_sim/streams`, `DELETE /_sim/streams/{id}` | streams |
//! | `GET /_sim/deliveries?limit=` | what was sent |
//! | `POST /_sim/reset` | forgets everything but settings |

use std::sync::{Arc, PoisonError};

use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::delivery::{Delivery, Forge};
use crate::fault::FaultRule;
use crate::provider::Provider;
use crate::scenario::Scenario;
use crate::simulator::{Inner, Simulator};
use crate::stream::StreamOptions;
use crate::world::Behaviour;

/// Entries and deliveries in one answer when the caller names no limit.
const LIMIT_DEFAULT: usize = 100;

/// What went wrong with a control call.
struct Refused(StatusCode, String);

type Answered = Result<Value, Refused>;

/// Answers a control call.
pub(crate) async fn handle(inner: &Arc<Inner>, request: &HttpRequest, body: &[u8]) -> HttpResponse {
    let simulator = Simulator::from_inner(Arc::clone(inner));
    let path = request
        .path()
        .strip_prefix("/_sim")
        .unwrap_or_default()
        .trim_start_matches('/');
    let segments: Vec<&str> = path.split('/').collect();
    let answered = match (request.method(), segments.as_slice()) {
        (method, ["faults", rest @ ..]) => faults(&simulator, method, rest, body),
        (method, ["state", rest @ ..]) => state(&simulator, method, rest, body),
        (method, ["streams", rest @ ..]) => streams(&simulator, method, rest, body),
        (&Method::PUT, ["listening", provider]) => listening(&simulator, provider, body).await,
        (&Method::POST, ["send"]) => send(&simulator, body).await,
        (method, [name]) => single(&simulator, method, name, request.query_string(), body),
        _ => Err(unknown()),
    };
    match answered {
        Ok(value) => HttpResponse::Ok()
            .content_type("application/json")
            .body(value.to_string()),
        Err(Refused(status, error)) => HttpResponse::build(status)
            .content_type("application/json")
            .body(json!({ "error": error }).to_string()),
    }
}

fn unknown() -> Refused {
    Refused(StatusCode::NOT_FOUND, "the control API has no such call".to_owned())
}

fn wrong(error: impl std::fmt::Display) -> Refused {
    Refused(StatusCode::BAD_REQUEST, error.to_string())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(wrong)
}

fn write<T: serde::Serialize>(value: T) -> Answered {
    serde_json::to_value(value).map_err(wrong)
}

fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn limit(query: &str) -> usize {
    parameter(query, "limit")
        .and_then(|limit| limit.parse().ok())
        .unwrap_or(LIMIT_DEFAULT)
}

fn single(simulator: &Simulator, method: &Method, name: &str, query: &str, body: &[u8]) -> Answered {
    match (method, name) {
        (&Method::GET, "") => overview(simulator),
        (&Method::GET, "ledger") => {
            let filter = |name: &str| parameter(query, name).unwrap_or_default();
            let entries = simulator
                .ledger()
                .entries(&filter("route"), &filter("identity"), limit(query));
            Ok(json!({ "summary": write(simulator.ledger().summary())?, "entries": write(entries)? }))
        }
        (&Method::DELETE, "ledger") => {
            simulator.ledger().clear();
            Ok(json!({}))
        }
        (&Method::GET, "balance") => write(simulator.balance()),
        (&Method::GET, "behaviour") => write(simulator.behaviour()),
        (&Method::PUT, "behaviour") => {
            simulator.set_behaviour(&read::<Behaviour>(body)?);
            write(simulator.behaviour())
        }
        (&Method::POST, "happen") => {
            let happen: Happen = read(body)?;
            let occurrence = simulator.happen(happen.scenario, happen.number);
            Ok(
                json!({ "connector": occurrence.connector, "id": occurrence.id, "type": occurrence.kind, "body": occurrence.body }),
            )
        }
        (&Method::GET, "deliveries") => {
            let recent = simulator.deliveries().recent(limit(query));
            Ok(json!({ "summary": write(simulator.deliveries().summary())?, "recent": write(recent)? }))
        }
        (&Method::POST, "reset") => {
            simulator.reset();
            Ok(json!({}))
        }
        _ => Err(unknown()),
    }
}

fn overview(simulator: &Simulator) -> Answered {
    let urls: serde_json::Map<String, Value> = Provider::ALL
        .into_iter()
        .map(|provider| (provider.as_str().to_owned(), json!(simulator.base_url_of(provider))))
        .collect();
    Ok(json!({
        "base_url": simulator.base_url(),
        "providers": urls,
        "seed": simulator.world().seed,
        "behaviour": write(simulator.behaviour())?,
        "collections": write(simulator.world().store.sizes())?,
        "ledger": write(simulator.ledger().summary())?,
        "deliveries": write(simulator.deliveries().summary())?,
        "faults": simulator.faults().list().len(),
    }))
}

fn faults(simulator: &Simulator, method: &Method, rest: &[&str], body: &[u8]) -> Answered {
    match (method, rest) {
        (&Method::GET, []) => write(simulator.faults().list()),
        (&Method::POST, []) => {
            let id = simulator.faults().add(read::<FaultRule>(body)?).map_err(wrong)?;
            Ok(json!({ "id": id }))
        }
        (&Method::DELETE, []) => {
            simulator.faults().clear();
            Ok(json!({}))
        }
        (&Method::DELETE, [id]) => {
            if simulator.faults().remove(id.parse().map_err(wrong)?) {
                Ok(json!({}))
            } else {
                Err(Refused(StatusCode::NOT_FOUND, format!("there is no fault rule {id}")))
            }
        }
        _ => Err(unknown()),
    }
}

fn state(simulator: &Simulator, method: &Method, rest: &[&str], body: &[u8]) -> Answered {
    let Some((id, collection)) = rest.split_last() else {
        return Err(unknown());
    };
    let collection = collection.join("/");
    let missing = || Refused(StatusCode::NOT_FOUND, format!("there is no `{id}` in `{collection}`"));
    match *method {
        Method::GET if id.is_empty() => Ok(Value::Array(simulator.objects(&collection))),
        Method::GET => simulator.object(&collection, id).ok_or_else(missing),
        Method::PUT if !id.is_empty() => {
            simulator.put_object(&collection, id, read(body)?);
            simulator.object(&collection, id).ok_or_else(missing)
        }
        Method::DELETE => {
            if simulator.remove_object(&collection, id) {
                Ok(json!({}))
            } else {
                Err(missing())
            }
        }
        _ => Err(unknown()),
    }
}

async fn listening(simulator: &Simulator, provider: &str, body: &[u8]) -> Answered {
    let provider = Provider::from_name(provider).ok_or_else(|| wrong(format!("there is no provider `{provider}`")))?;
    let listening: bool = read(body)?;
    match simulator.set_listening(provider, listening).await {
        Ok(true) => Ok(json!({ "listening": listening })),
        Ok(false) => Err(wrong(
            "the provider has no port of its own; start the simulator with own ports",
        )),
        Err(error) => Err(wrong(error)),
    }
}

/// A numbered occurrence of a scenario.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Happen {
    scenario: Scenario,
    #[serde(default)]
    number: u64,
}

/// A scenario to be delivered once.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendScenario {
    scenario: Scenario,
    #[serde(default)]
    number: u64,
    url: String,
    #[serde(default)]
    signed_url: Option<String>,
    secrets: Vec<String>,
    #[serde(default)]
    forge: Option<Forge>,
}

async fn send(simulator: &Simulator, body: &[u8]) -> Answered {
    let value: Value = read(body)?;
    let delivery = if value.get("scenario").is_some() {
        let wanted: SendScenario = serde_json::from_value(value).map_err(wrong)?;
        let secrets: Vec<&str> = wanted.secrets.iter().map(String::as_str).collect();
        let delivery = simulator.delivery(wanted.scenario, wanted.number, &wanted.url, &secrets);
        Delivery {
            forge: wanted.forge,
            signed_url: wanted.signed_url,
            ..delivery
        }
    } else {
        serde_json::from_value(value).map_err(wrong)?
    };
    write(simulator.send(&delivery).await.map_err(wrong)?)
}

fn streams(simulator: &Simulator, method: &Method, rest: &[&str], body: &[u8]) -> Answered {
    let handles = simulator.streams();
    match (method, rest) {
        (&Method::GET, []) => {
            let listed: Result<Vec<Value>, Refused> = handles
                .values()
                .map(|stream| Ok(json!({ "id": stream.id, "status": write(stream.status())? })))
                .collect();
            Ok(Value::Array(listed?))
        }
        (&Method::POST, []) => {
            let stream = simulator.stream(read::<StreamOptions>(body)?).map_err(wrong)?;
            Ok(json!({ "id": stream.id }))
        }
        (&Method::DELETE, []) => {
            handles.values().for_each(crate::stream::StreamHandle::stop);
            Ok(json!({}))
        }
        (&Method::GET | &Method::DELETE, [id]) => {
            let id: u64 = id.parse().map_err(wrong)?;
            let missing = || Refused(StatusCode::NOT_FOUND, format!("there is no stream {id}"));
            let stream = handles.get(&id).ok_or_else(missing)?;
            if method == Method::DELETE {
                stream.stop();
            }
            write(stream.status())
        }
        _ => Err(unknown()),
    }
}

impl Simulator {
    /// All streams that were started, running or done.
    fn streams(&self) -> std::collections::BTreeMap<u64, crate::stream::StreamHandle> {
        self.inner()
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
