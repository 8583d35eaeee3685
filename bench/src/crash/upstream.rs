//! The fake payment API and the fake CRM, on one loopback port.
//!
//! Written on bare TCP because a framework hides what matters here: that a request began to arrive although its sender
//! died, and that a request which arrived is carried out although nobody waits for its answer any more.
//! The CRM carries a request out some milliseconds after it came and answers some milliseconds later, so that kills
//! fall before, between and after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weir_bench::documents::{NO_EVENTS, amount, payment_intent_body};

use crate::book::Book;
use crate::chance::Chance;

/// How long the payment API holds each answer.
const READ_DELAY: Duration = Duration::from_millis(5);
/// Longest time until the CRM carries a request out, and longest time from there to its answer, in milliseconds.
const CRM_DELAY_MAX_MS: u64 = 8;
/// Longest head and body of a request, in bytes.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// What the upstreams do to their callers.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    /// The CRM answers 503 and does nothing.
    pub away: AtomicBool,
    /// Of 1,000 requests to the CRM so many are cut off: half of them before they are carried out, half after.
    pub cuts_per_mille: AtomicU32,
    serving: AtomicU32,
    most: AtomicU32,
}

impl Weather {
    /// Most requests that the CRM carried out at a time.
    pub(crate) fn most_at_a_time(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    fn enter(&self) {
        let now = self.serving.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    fn leave(&self) {
        self.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Request {
    method: String,
    path: String,
    key: Option<String>,
    body: Vec<u8>,
}

struct Head {
    bytes: usize,
    body_bytes: usize,
    request: Request,
}

/// Serves `listener` until the process ends.
pub(crate) async fn serve(listener: TcpListener, book: Arc<Book>, weather: Arc<Weather>, chance: Chance) {
    let mut number = 0;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        number += 1;
        let (book, weather, chance) = (Arc::clone(&book), Arc::clone(&weather), chance.branch(number));
        book.count(|counts| counts.connections += 1);
        tokio::spawn(async move {
            let whole = connection(stream, (&book, &weather), chance).await.is_ok();
            book.count(|counts| {
                counts.connections -= 1;
                counts.broken += u32::from(!whole);
            });
        });
    }
}

/// Serves one connection; an error means that a request or an answer was cut off.
async fn connection(
    mut stream: TcpStream,
    (book, weather): (&Arc<Book>, &Weather),
    mut chance: Chance,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(4096);
    loop {
        let Some(request) = read_request(&mut stream, &mut input, book).await? else {
            return Ok(());
        };
        let Some((status, body)) = answer(request, book, weather, &mut chance).await else {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut output = head.into_bytes();
        output.extend_from_slice(&body);
        stream.write_all(&output).await?;
    }
}

/// The next request, or `None` when the peer ended the connection between two.
async fn read_request(stream: &mut TcpStream, input: &mut Vec<u8>, book: &Book) -> std::io::Result<Option<Request>> {
    let head = loop {
        if let Some(head) = parse_head(input) {
            break head;
        }
        let room = input.len() < MAX_REQUEST_BYTES;
        match stream.read_buf(input).await {
            Ok(0) | Err(_) if input.is_empty() => return Ok(None),
            Ok(bytes) if bytes > 0 && room => {}
            Ok(_) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Err(error) => return Err(error),
        }
    };
    if head.request.method == "POST"
        && let Some(id) = head.request.path.strip_prefix("/crm/deals/")
    {
        book.departed(id);
    }
    let whole = head.bytes + head.body_bytes.min(MAX_REQUEST_BYTES);
    while input.len() < whole {
        if stream.read_buf(input).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let rest = input.split_off(whole);
    let body = input.split_off(head.bytes);
    *input = rest;
    Ok(Some(Request { body, ..head.request }))
}

/// `None` as long as the head is incomplete.
fn parse_head(input: &[u8]) -> Option<Head> {
    let end = input.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(input.get(..end)?);
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let (mut key, mut body_bytes) = (None, 0);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.trim().parse().unwrap_or(0);
        } else if name.eq_ignore_ascii_case("idempotency-key") {
            key = Some(value.trim().to_owned());
        }
    }
    Some(Head {
        bytes: end + 4,
        body_bytes,
        request: Request {
            method,
            path,
            key,
            body: Vec::new(),
        },
    })
}

/// `None`: the connection is cut off without an answer.
async fn answer(
    request: Request,
    book: &Arc<Book>,
    weather: &Weather,
    chance: &mut Chance,
) -> Option<(&'static str, Vec<u8>)> {
    let path = request.path.split('?').next().unwrap_or_default();
    if let Some(id) = path.strip_prefix("/v1/payment_intents/") {
        tokio::time::sleep(READ_DELAY).await;
        let amount = book.ids.flow_of(id).map_or(1, amount);
        return Some(("200 OK", payment_intent_body(id, amount)));
    }
    if path == "/v1/events" {
        return Some(("200 OK", NO_EVENTS.into()));
    }
    Some(match (request.method.as_str(), path.strip_prefix("/crm/deals/")) {
        ("POST", Some(id)) => {
            if weather.away.load(Ordering::Relaxed) {
                return Some(("503 Service Unavailable", b"{}".to_vec()));
            }
            let cut = chance.between(1, 1000) <= u64::from(weather.cuts_per_mille.load(Ordering::Relaxed));
            if cut && chance.between(0, 1) == 0 {
                book.cut_off(id);
                return None;
            }
            // Nobody drops this when the connection ends: what arrived is carried out.
            weather.enter();
            tokio::time::sleep(delay(chance)).await;
            book.carried_out(id, &request.body, request.key.as_deref());
            tokio::time::sleep(delay(chance)).await;
            weather.leave();
            if cut {
                book.cut_off(id);
                return None;
            }
            ("200 OK", deal(id))
        }
        ("GET", Some(id)) => {
            let found = match book.finds(id) {
                true => format!(r#"{{"data":[{{"id":"{id}"}}]}}"#),
                false => r#"{"data":[]}"#.to_owned(),
            };
            ("200 OK", found.into_bytes())
        }
        (_, Some(_) | None) => {
            book.count(|counts| counts.foreign += 1);
            ("404 Not Found", b"{}".to_vec())
        }
    })
}

fn deal(id: &str) -> Vec<u8> {
    format!(r#"{{"id":"{id}","updated":true}}"#).into_bytes()
}

fn delay(chance: &mut Chance) -> Duration {
    Duration::from_millis(chance.between(0, CRM_DELAY_MAX_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Mode;
    use weir_bench::documents::{Deal, Ids};

    #[tokio::test]
    async fn a_request_whose_sender_is_gone_is_carried_out() {
        let book = Arc::new(Book::new(Ids::new(1), Mode::Blind));
        let number = book.take();
        let id = book.ids.payment_intent(number);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::clone(&book), Arc::default(), Chance::new(1)));
        let body = serde_json::to_vec(&Deal::expected(&book.ids, number)).unwrap();
        let head = format!(
            "POST /crm/deals/{id} HTTP/1.1\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        drop(stream);
        while book.open().flows[number].effects == 0 {
            tokio::task::yield_now().await;
        }
        assert!(book.finds(&id));
        assert_eq!(book.open().flows[number].departures, 1);
        server.abort();
    }

    #[test]
    fn the_key_and_the_length_are_read() {
        let head =
            parse_head(b"POST /crm/deals/pi_1 HTTP/1.1\r\nIdempotency-Key: k\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        assert_eq!((head.body_bytes, head.request.key.as_deref()), (3, Some("k")));
        assert!(parse_head(b"POST / HTTP/1.1\r\n").is_none());
    }
}
