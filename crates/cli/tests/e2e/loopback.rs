//! HTTP/1.1 on loopback for providers that a test plays itself: requests in, JSON out.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Request line and headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The value of a header; names in any letter case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Method and target, such as `GET` and `/orders?page=2`.
    pub(crate) fn line(&self) -> (&str, &str) {
        let mut words = self.head.lines().next().unwrap_or_default().split(' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }
}

/// An address that does not answer yet: connections to it wait.
pub(crate) struct Loopback {
    pub(crate) url: String,
    listener: TcpListener,
}

impl Loopback {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Loopback { url, listener }
    }

    /// Answers each request with a status and JSON, until the runtime of the test ends.
    pub(crate) fn serve<F>(self, answer: impl Fn(Request) -> F + Clone + Send + 'static)
    where
        F: Future<Output = (u16, Value)> + Send + 'static,
    {
        tokio::spawn(async move {
            while let Ok((stream, _)) = self.listener.accept().await {
                tokio::spawn(converse(stream, answer.clone()));
            }
        });
    }
}

async fn converse<F>(mut stream: TcpStream, answer: impl Fn(Request) -> F + Send)
where
    F: Future<Output = (u16, Value)> + Send,
{
    let mut bytes = Vec::new();
    while let Some(request) = next_request(&mut stream, &mut bytes).await {
        let (status, answer) = answer(request).await;
        let text = answer.to_string();
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            // A caller that hung up is no business of the provider's.
            return;
        }
    }
}

/// The next request of a connection. `None`: there is none.
pub(crate) async fn next_request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(bytes).await.unwrap_or_default() == 0 {
            return None;
        }
    };
    let mut request = Request {
        head: String::from_utf8_lossy(&bytes[..end]).into_owned(),
        body: Vec::new(),
    };
    let length = request.header("content-length").and_then(|value| value.parse().ok());
    let whole = end + length.unwrap_or(0);
    while bytes.len() < whole {
        if stream.read_buf(bytes).await.unwrap_or_default() == 0 {
            return None;
        }
    }
    let rest = bytes.split_off(whole);
    request.body = bytes.split_off(end);
    *bytes = rest;
    Some(request)
}
