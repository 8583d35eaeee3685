//! A loopback HTTP/1.1 server that answers as it is told, among others badly.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    /// The body as text.
    pub(crate) body: String,
    pub(crate) bytes: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Answers with status, extra header lines and body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// Closes the connection without a word.
    HangUp,
    /// Promises more bytes than it sends, then closes.
    HangUpInside,
    /// Never answers.
    Silence,
    /// Waits for [`Server::release`], then answers 200 with this body.
    Gated(String),
    /// Sends these bytes, head and all, and closes the connection.
    Raw(Vec<u8>),
    /// Sends the head, then the same bytes again and again with such pauses, until the client has enough.
    Endless(&'static str, Vec<u8>, Duration),
}

pub(crate) fn json(status: u16, body: serde_json::Value) -> Reply {
    Reply::Answer(
        status,
        vec![("content-type", "application/json".to_owned())],
        body.to_string(),
    )
}

type Script = Box<dyn Fn(&Seen) -> Option<Reply> + Send + Sync>;

struct State {
    seen: Mutex<Vec<Seen>>,
    queued: Mutex<VecDeque<Reply>>,
    script: Mutex<Option<Script>>,
    gate: Semaphore,
    arrived: Semaphore,
    sent_bytes: AtomicUsize,
}

/// The running server; it stops with the test's runtime.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            seen: Mutex::default(),
            queued: Mutex::default(),
            script: Mutex::default(),
            gate: Semaphore::new(0),
            arrived: Semaphore::new(0),
            sent_bytes: AtomicUsize::new(0),
        });
        let server = Server { address, state };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = accepting.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers the next request without a scripted answer with `reply`; later ones with the following replies.
    pub(crate) fn reply(&self, reply: Reply) {
        self.state.queued.lock().unwrap().push_back(reply);
    }

    /// Answers by `script`, where it gives an answer.
    pub(crate) fn script(&self, script: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) {
        *self.state.script.lock().unwrap() = Some(Box::new(script));
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path == path).count()
    }

    /// Bytes that endless answers could send before the client closed their connections.
    pub(crate) fn sent_bytes(&self) -> usize {
        self.state.sent_bytes.load(Ordering::Relaxed)
    }

    /// Waits until one more request has arrived than at the last call.
    pub(crate) async fn arrival(&self) {
        self.state.arrived.acquire().await.unwrap().forget();
    }

    /// Lets one gated request be answered.
    pub(crate) fn release(&self) {
        self.state.gate.add_permits(1);
    }

    async fn serve(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some(seen) = read_request(&mut stream).await {
            let scripted = self
                .state
                .script
                .lock()
                .unwrap()
                .as_ref()
                .and_then(|script| script(&seen));
            let reply = scripted.or_else(|| self.state.queued.lock().unwrap().pop_front());
            self.state.seen.lock().unwrap().push(seen);
            self.state.arrived.add_permits(1);
            match reply.unwrap_or_else(|| json(200, serde_json::json!({}))) {
                Reply::Answer(status, headers, body) => answer(&mut stream, status, &headers, &body).await,
                Reply::HangUp => return,
                Reply::HangUpInside => {
                    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half\":";
                    stream.write_all(head.as_bytes()).await.unwrap();
                    return;
                }
                Reply::Silence => std::future::pending().await,
                Reply::Raw(bytes) => {
                    // The client may be gone already.
                    let _gone = stream.write_all(&bytes).await;
                    let _closed = stream.shutdown().await;
                    return;
                }
                Reply::Endless(head, bytes, pause) => {
                    let mut next = head.as_bytes();
                    while stream.write_all(next).await.is_ok() && stream.flush().await.is_ok() {
                        self.state.sent_bytes.fetch_add(next.len(), Ordering::Relaxed);
                        next = &bytes;
                        tokio::time::sleep(pause).await;
                    }
                    return;
                }
                Reply::Gated(body) => {
                    self.state.gate.acquire().await.unwrap().forget();
                    answer(
                        &mut stream,
                        200,
                        &[("content-type", "application/json".to_owned())],
                        &body,
                    )
                    .await;
                }
            }
        }
    }
}

async fn answer(stream: &mut BufReader<TcpStream>, status: u16, headers: &[(&str, String)], body: &str) {
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    // The client may be gone already.
    let _gone = stream.write_all(text.as_bytes()).await;
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    if stream.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let mut seen = Seen {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        ..Seen::default()
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        assert_ne!(name, "transfer-encoding", "requests have a known length");
        if name == "content-length" {
            length = value.parse().unwrap();
        }
        seen.headers.push((name, value));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    seen.body = String::from_utf8_lossy(&body).into_owned();
    seen.bytes = body;
    Some(seen)
}
