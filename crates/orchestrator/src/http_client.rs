//! The one outgoing HTTP client: pooled, guarded, bounded. Nobody else may build a client.
//!
//! It sends exactly what it is given: no system proxy, no redirects, no retries of its own, no cookies. It speaks
//! HTTP/1.1 only, because there the first byte of a request leaves after the body was asked for: hyper's HTTP/1
//! dispatcher encodes the head into its buffer, polls the body while the buffer has room, and flushes then. That order is
//! what makes [`Departures`] tell the truth; HTTP/2 sends the head first.
//!
//! Every failure says whether a byte of the request may have left.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use reqwest::{Body, Client, Method, Url};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use crate::clock::Clock;
use crate::departures::{Departure, Departures};
use crate::egress::{EgressPolicy, EgressRefused, GuardedResolver};
use crate::lease::Lease;

/// Largest answer read, after decompression. A list page of a provider is well below 1 MiB; more is a mistake or an attack.
///
/// Limit: answer of a provider, after decompression | the call fails, `response_too_large` | `an_answer_above_the_cap_is_not_read` | `weir_calls_total`
pub const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;

/// Time for name resolution, TCP and TLS together. Part of the call's own timeout, not in addition to it.
///
/// Limit: time for a connection to a provider: name, TCP and TLS | the try fails, `connect` | `a_server_that_does_not_take_the_connection_is_given_up` | `weir_calls_total`
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections are closed before common servers do it (Node.js 5 s aside): a request on a connection that the
/// other side is just closing has an unknown outcome.
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(25);

/// Idle connections kept per host; the number of calls in flight is bounded by the runs in memory.
pub const POOL_MAX_IDLE_PER_HOST: usize = 256;

/// Sends requests. Cheap to clone; one pool for the whole process.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: Client,
    policy: EgressPolicy,
}

/// The client could not be built: the trust store is unusable or the user agent is not a header value.
#[derive(Debug, Error)]
#[error("cannot set up the HTTP client")]
pub struct HttpClientError(#[from] reqwest::Error);

/// A request as it goes to the wire.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Vec<u8>>,
    /// What to do when the first byte is about to leave.
    pub(crate) tracking: Tracking,
}

/// How closely the departure of a request is watched.
#[derive(Debug)]
pub(crate) enum Tracking {
    /// Reads: whether it left does not matter.
    Off,
    /// Effects: remember in memory whether it may have left, and let it leave through the gate only.
    Effect(Gate),
}

/// What an effect passes right before its first byte.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) lease: Arc<Lease>,
    /// For effects that the other side cannot recognise as repeated.
    pub(crate) recording: Option<Recording>,
}

impl Gate {
    fn pass(&self) -> Result<(), NotLet> {
        if !self.lease.holds() {
            return Err(NotLet::LeaseOver);
        }
        self.recording.as_ref().map_or(Ok(()), Recording::write)
    }
}

pub(crate) struct Recording {
    pub(crate) log: Arc<Departures>,
    pub(crate) departure: Departure,
    pub(crate) clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording")
            .field("departure", &self.departure)
            .finish_non_exhaustive()
    }
}

impl Recording {
    fn write(&self) -> Result<(), NotLet> {
        self.log
            .departed(&self.departure, self.clock.now())
            .map_err(NotLet::Unrecorded)
    }
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Why there is no complete answer.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) kind: SendErrorKind,
    /// No byte of the request can have left.
    pub(crate) never_left: bool,
    /// Status line, if the answer had begun.
    pub(crate) status: Option<u16>,
}

#[derive(Debug, Error)]
pub(crate) enum SendErrorKind {
    /// The egress guard said no.
    #[error(transparent)]
    Egress(EgressRefused),
    #[error("the host name does not resolve: {0}")]
    Dns(String),
    /// Refused, unreachable, TLS failure, or not in time.
    #[error("no connection: {0}")]
    Connect(String),
    #[error("no complete answer in time")]
    Timeout,
    /// Also when what came back is not HTTP.
    #[error("the connection broke before the answer was complete: {0}")]
    ConnectionLost(String),
    #[error("the answer is larger than {MAX_RESPONSE_BYTES} bytes")]
    TooLarge,
    #[error("not sent, because its departure could not be recorded in the data folder: {0}")]
    NotRecorded(String),
    #[error("not sent, because this server's lease is over")]
    LeaseOver,
    #[error("the request cannot be sent: {0}")]
    Unsendable(String),
}

/// The gate stayed shut.
#[derive(Debug, Error)]
enum NotLet {
    #[error("cannot record the departure of the request: {0}")]
    Unrecorded(io::Error),
    #[error("the lease is over")]
    LeaseOver,
}

impl NotLet {
    fn kind(&self) -> SendErrorKind {
        match self {
            NotLet::Unrecorded(error) => SendErrorKind::NotRecorded(error.to_string()),
            NotLet::LeaseOver => SendErrorKind::LeaseOver,
        }
    }
}

impl HttpClient {
    /// Builds the client. Do it once per process; connections are pooled inside.
    ///
    /// # Errors
    /// [`HttpClientError`]: the system's certificates cannot be loaded or `user_agent` has forbidden characters.
    pub fn new(policy: EgressPolicy, user_agent: &str) -> Result<Self, HttpClientError> {
        let client = Client::builder()
            .user_agent(user_agent)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .http1_only()
            .dns_resolver(GuardedResolver::new(policy.clone()))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(POOL_MAX_IDLE_PER_HOST)
            .build()?;
        Ok(HttpClient { client, policy })
    }

    /// Sends one request and reads its whole answer, at most until `deadline`.
    ///
    /// Cancel-safe in the sense that nothing is left half-registered; a dropped send may or may not have left.
    pub(crate) async fn send(&self, outgoing: Outgoing, deadline: Instant) -> Result<Received, SendError> {
        let Outgoing {
            method,
            url,
            headers,
            body,
            tracking,
        } = outgoing;
        // Names are checked by the resolver; an address in the URL never gets there.
        if let Err(refused) = self.check_literal(&url) {
            return Err(SendError::before(SendErrorKind::Egress(refused)));
        }
        let mut request = reqwest::Request::new(method, url);
        *request.headers_mut() = headers;
        let left = match attach(&mut request, body, tracking) {
            Ok(left) => left,
            Err(shut) => return Err(SendError::before(shut.kind())),
        };
        let response = match timeout_at(deadline, self.client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(SendError::from_client(&error, &left)),
            Err(_elapsed) => {
                return Err(SendError {
                    kind: SendErrorKind::Timeout,
                    never_left: left.never_left(),
                    status: None,
                });
            }
        };
        let status = response.status().as_u16();
        let failed = |kind| SendError {
            kind,
            never_left: false,
            status: Some(status),
        };
        match timeout_at(deadline, read_answer(response)).await {
            Ok(Ok(received)) => Ok(received),
            Ok(Err(kind)) => Err(failed(kind)),
            Err(_elapsed) => Err(failed(SendErrorKind::Timeout)),
        }
    }

    fn check_literal(&self, url: &Url) -> Result<(), EgressRefused> {
        match url.host() {
            Some(url::Host::Ipv4(ip)) => self.policy.check_ip(&ip.to_string(), ip.into()),
            Some(url::Host::Ipv6(ip)) => self.policy.check_ip(&ip.to_string(), ip.into()),
            Some(url::Host::Domain(_)) | None => Ok(()),
        }
    }
}

async fn read_answer(mut response: reqwest::Response) -> Result<Received, SendErrorKind> {
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok())
        .unwrap_or(0);
    if declared > MAX_RESPONSE_BYTES {
        return Err(SendErrorKind::TooLarge);
    }
    let mut body = Vec::with_capacity(declared);
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_RESPONSE_BYTES => {
                return Err(SendErrorKind::TooLarge);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Err(SendErrorKind::ConnectionLost(innermost(&error))),
        }
    }
    Ok(Received { status, headers, body })
}

/// What is known about the departure of a request.
enum Left {
    /// Not watched, or it has no body and may leave at once.
    MayHave,
    /// Set when the body was first asked for.
    WhenPolled(Arc<AtomicBool>),
}

impl Left {
    fn never_left(&self) -> bool {
        match self {
            Left::MayHave => false,
            Left::WhenPolled(flag) => !flag.load(Ordering::Acquire),
        }
    }
}

/// Puts the body into the request, wrapped so that its first poll is noticed.
fn attach(request: &mut reqwest::Request, body: Option<Vec<u8>>, tracking: Tracking) -> Result<Left, NotLet> {
    let body = body.filter(|bytes| !bytes.is_empty());
    let gate = match (tracking, &body) {
        (Tracking::Off, _) => {
            if let Some(bytes) = body {
                *request.body_mut() = Some(Body::from(bytes));
            }
            return Ok(Left::MayHave);
        }
        (Tracking::Effect(gate), None) => {
            gate.pass()?;
            return Ok(Left::MayHave);
        }
        (Tracking::Effect(gate), Some(_)) => gate,
    };
    let left = Arc::new(AtomicBool::new(false));
    *request.body_mut() = Some(Body::wrap(WatchedBody {
        bytes: body.map(Bytes::from),
        gate: Some(gate),
        left: left.clone(),
    }));
    Ok(Left::WhenPolled(left))
}

/// A request body of known size that notices when it is first asked for.
struct WatchedBody {
    bytes: Option<Bytes>,
    gate: Option<Gate>,
    left: Arc<AtomicBool>,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = NotLet;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, NotLet>>> {
        let Some(bytes) = self.bytes.take() else {
            return Poll::Ready(None);
        };
        // An error here makes hyper drop the connection with the head still in its buffer: nothing was sent.
        if let Some(gate) = self.gate.take()
            && let Err(error) = gate.pass()
        {
            return Poll::Ready(Some(Err(error)));
        }
        self.left.store(true, Ordering::Release);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

impl SendError {
    fn before(kind: SendErrorKind) -> Self {
        SendError {
            kind,
            never_left: true,
            status: None,
        }
    }

    fn from_client(error: &reqwest::Error, left: &Left) -> Self {
        if let Some(refused) = find_source::<EgressRefused>(error) {
            return SendError::before(SendErrorKind::Egress(refused.clone()));
        }
        if let Some(shut) = find_source::<NotLet>(error) {
            return SendError::before(shut.kind());
        }
        if error.is_dns() {
            return SendError::before(SendErrorKind::Dns(innermost(error)));
        }
        if error.is_connect() {
            return SendError::before(SendErrorKind::Connect(innermost(error)));
        }
        if error.is_builder() {
            return SendError::before(SendErrorKind::Unsendable(innermost(error)));
        }
        SendError {
            kind: if error.is_timeout() {
                SendErrorKind::Timeout
            } else {
                SendErrorKind::ConnectionLost(innermost(error))
            },
            never_left: left.never_left(),
            status: None,
        }
    }
}

fn find_source<E: StdError + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// The last error of the chain: the outer ones repeat the URL, which may hold a secret.
fn innermost(error: &reqwest::Error) -> String {
    let mut last: Option<&dyn StdError> = None;
    let mut source = error.source();
    while let Some(error) = source {
        last = Some(error);
        source = error.source();
    }
    match last {
        Some(error) => error.to_string(),
        None => "request failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use weir_workflow_engine::{EffectKey, Timestamp};

    use crate::clock::ManualClock;
    use crate::departures::Senders;

    fn post(address: std::net::SocketAddr, recording: Recording) -> Outgoing {
        Outgoing {
            method: Method::POST,
            url: format!("http://{address}/pay").parse().unwrap(),
            headers: HeaderMap::new(),
            body: Some(b"{\"amount\":1}".to_vec()),
            tracking: Tracking::Effect(Gate {
                lease: Arc::new(Lease::exclusive(recording.clock.clone())),
                recording: Some(recording),
            }),
        }
    }

    /// The order that the record of departures relies on: when it cannot be written, not even the head has left.
    #[tokio::test]
    async fn no_byte_leaves_before_the_departure_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let start = Timestamp::from_unix_ms(1_000);
        // Room for one record: the second has to rotate, and the folder will be gone.
        let log = Departures::open_on_boot(folder.path(), Senders::ThisProcessOnly, start, Some([1; 16]), 64 + 32);
        let log = Arc::new(log.unwrap());
        let key: EffectKey = serde_json::from_value(format!("weir_{:032x}", 7).into()).unwrap();
        let recording = || Recording {
            log: log.clone(),
            departure: Departure::new(&key, start),
            clock: Arc::new(ManualClock::new(start)),
        };
        let policy = EgressPolicy::new(&["127.0.0.1".to_owned()]).unwrap();
        let client = HttpClient::new(policy, "weir-test").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 1024];
            let count = stream.read(&mut bytes).await.unwrap();
            bytes.truncate(count);
            bytes
        };
        let soon = Instant::now() + Duration::from_millis(200);
        let (sent, bytes) = tokio::join!(client.send(post(address, recording()), soon), received);
        assert!(matches!(sent.unwrap_err().kind, SendErrorKind::ConnectionLost(_)));
        assert!(bytes.starts_with(b"POST /pay HTTP/1.1\r\n"));

        drop(folder);
        let received = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            bytes
        };
        let later = Instant::now() + Duration::from_secs(10);
        let (sent, bytes) = tokio::join!(client.send(post(address, recording()), later), received);
        let error = sent.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::NotRecorded(_)), "{error:?}");
        assert!(error.never_left);
        assert_eq!(bytes, b"");
    }

    #[tokio::test]
    async fn no_byte_of_an_effect_leaves_when_the_lease_is_over() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_unix_ms(0)));
        let lease = Arc::new(Lease::shared(clock));
        let policy = EgressPolicy::new(&["127.0.0.1".to_owned()]).unwrap();
        let client = HttpClient::new(policy, "weir-test").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let outgoing = |body: Option<Vec<u8>>| Outgoing {
            method: Method::POST,
            url: format!("http://{address}/pay").parse().unwrap(),
            headers: HeaderMap::new(),
            body,
            tracking: Tracking::Effect(Gate {
                lease: lease.clone(),
                recording: None,
            }),
        };
        let received = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            bytes
        };
        let later = Instant::now() + Duration::from_secs(10);
        let (sent, bytes) = tokio::join!(client.send(outgoing(Some(b"{}".to_vec())), later), received);
        let error = sent.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::LeaseOver), "{error:?}");
        assert!(error.never_left);
        assert_eq!(bytes, b"");
        let error = client.send(outgoing(None), later).await.unwrap_err();
        assert!(
            matches!(error.kind, SendErrorKind::LeaseOver) && error.never_left,
            "{error:?}"
        );
    }
}
