//! A system that answers as a test tells it to, and keeps what it saw.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How one request is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// With this status and JSON.
    Json(u16, &'static str),
    /// The connection is closed when the request has been read: nobody knows whether it was carried out.
    HangUp,
}

/// The system. What is not scripted is answered with `{"ok":true}`.
pub(crate) struct Upstream {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<String>>>,
    script: Arc<Mutex<VecDeque<Reply>>>,
    held: Arc<watch::Sender<bool>>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Upstream {
            url: format!("http://{}", listener.local_addr().unwrap()),
            seen: Arc::default(),
            script: Arc::default(),
            held: Arc::new(watch::Sender::new(false)),
        };
        let (seen, script) = (Arc::clone(&upstream.seen), Arc::clone(&upstream.script));
        let held = upstream.held.subscribe();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&seen), Arc::clone(&script), held.clone()));
            }
        });
        upstream
    }

    /// Says how the next requests are answered.
    pub(crate) fn next(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.lock().unwrap().extend(replies);
    }

    /// Answers nothing until [`Upstream::release`].
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Answers what waits, and everything after it.
    pub(crate) fn release(&self) {
        self.held.send_replace(false);
    }

    /// The requests so far: `METHOD /path`, and the body.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        let told = |text: &String| {
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let line: Vec<&str> = head.lines().next().unwrap().split(' ').take(2).collect();
            (line.join(" "), body.to_owned())
        };
        self.seen.lock().unwrap().iter().map(told).collect()
    }

    /// How many requests there were to a path.
    pub(crate) fn count(&self, path: &str) -> usize {
        let at = |(line, _): &&(String, String)| line.split_once(' ').is_some_and(|(_, found)| found == path);
        self.requests().iter().filter(at).count()
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<String>>>,
    script: Arc<Mutex<VecDeque<Reply>>>,
    mut held: watch::Receiver<bool>,
) {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        received.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&received).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().unwrap())
        });
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        seen.lock().unwrap().push(text);
        received.clear();
        if held.wait_for(|held| !held).await.is_err() {
            return;
        }
        let next = script.lock().unwrap().pop_front();
        let (status, body) = match next {
            Some(Reply::HangUp) => return,
            Some(Reply::Json(status, body)) => (status, body),
            None => (200, r#"{"ok":true}"#),
        };
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
