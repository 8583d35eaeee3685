//! A server that writes down every request it gets, byte for byte, and answers each with the same JSON, unless a test
//! says otherwise; with 400 where a part of the path is `fail`, with 503 where one is `busy`, and after a while where one
//! is `slow`.

use crate::loopback::{Request, next_request};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_millis(700);

/// The server. It ends with the runtime of its test.
pub(crate) struct Upstream {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    next: Arc<Mutex<VecDeque<Reply>>>,
    held: watch::Sender<Vec<&'static str>>,
}

/// How one request is answered instead.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    /// With this status.
    Status(u16),
    /// The connection is closed when the request has been read.
    HangUp,
    /// With 200, these header lines and this body.
    Body(&'static str, &'static str),
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self::answering(r#"{"ok":true}"#).await
    }

    pub(crate) async fn answering(body: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let next: Arc<Mutex<VecDeque<Reply>>> = Arc::default();
        let (kept, script) = (Arc::clone(&requests), Arc::clone(&next));
        let held = watch::Sender::new(Vec::new());
        let holding = held.subscribe();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = (Arc::clone(&script), holding.clone());
                tokio::spawn(serve(stream, Arc::clone(&kept), script, body));
            }
        });
        Upstream {
            url,
            requests,
            next,
            held,
        }
    }

    /// From now on requests with one of these parts in their paths get no answer; the others, and those that wait for
    /// one, do.
    pub(crate) fn hold(&self, parts: &[&'static str]) {
        self.held.send_replace(parts.to_vec());
    }

    /// How many requests had this part in their paths.
    pub(crate) fn count(&self, part: &str) -> usize {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| has(&request.head, part)).count()
    }

    /// Says how the next requests are answered.
    pub(crate) fn next(&self, replies: impl IntoIterator<Item = Reply>) {
        self.next.lock().unwrap().extend(replies);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// Whether a request has this part in its path.
fn has(head: &str, name: &str) -> bool {
    let path = head.split(' ').nth(1).unwrap_or_default();
    path.split(['/', '?']).any(|part| part == name)
}

async fn serve(
    mut stream: TcpStream,
    requests: Arc<Mutex<Vec<Request>>>,
    (next, mut held): (Arc<Mutex<VecDeque<Reply>>>, watch::Receiver<Vec<&'static str>>),
    body: &str,
) {
    let Some(request) = next_request(&mut stream, &mut Vec::new()).await else {
        return;
    };
    let head = request.head.clone();
    let status = match (has(&head, "fail"), has(&head, "busy")) {
        (true, _) => 400,
        (_, true) => 503,
        (false, false) => 200,
    };
    requests.lock().unwrap().push(request);
    if has(&head, "slow") {
        tokio::time::sleep(SLOW).await;
    }
    let free = |parts: &Vec<&'static str>| !parts.iter().any(|part| has(&head, part));
    if held.wait_for(free).await.is_err() {
        return;
    }
    let reply = next.lock().unwrap().pop_front();
    let json = "content-type: application/json\r\n";
    let (status, headers, body) = match reply {
        None => (status, json, body),
        Some(Reply::Status(status)) => (status, json, body),
        Some(Reply::Body(headers, body)) => (200, headers, body),
        Some(Reply::HangUp) => return,
    };
    let answer = format!(
        "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // A caller that hung up is no business of the upstream's.
    let _answered = stream.write_all(answer.as_bytes()).await;
}
