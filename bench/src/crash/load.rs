//! The sender: signed webhooks in a closed loop, right through the crash, and the redelivery after it.
//!
//! An event for which no connection could be had was never sent, so the same event is tried again; an event that was
//! sent and got no answer is left alone until the redelivery, as a provider would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use weir_bench::clock::unix_ms;
use weir_bench::documents::{event_body, follower_body};
use weir_bench::signature::sign;

use crate::book::{Answer, Book};
use crate::client::Connection;

/// Where both documents of the benchmark listen, and the secret they verify with.
const HOOK: &str = "/hooks/main/bench";
pub(crate) const SECRET: &str = "whsec_test";
/// How long a sender waits for an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pause after a failed connection.
const PAUSE: Duration = Duration::from_millis(10);
/// Pause after a refusal: while the database is down they would only make the redelivery longer.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// How often an event is redelivered until it gets a 2xx, and the pause between: longer than a database is away.
const REDELIVERIES: usize = 400;
const REDELIVERY_PAUSE: Duration = Duration::from_millis(250);

/// Load that goes on until it is told to stop.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    senders: JoinSet<()>,
}

impl Load {
    /// Starts `connections` senders; they stop by themselves at `max_flows` events in the book.
    pub(crate) fn start(book: &Arc<Book>, address: SocketAddr, connections: u32, max_flows: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for _ in 0..connections {
            let (book, stop) = (Arc::clone(book), Arc::clone(&stop));
            senders.spawn(async move {
                let mut kept = None;
                while !stop.load(Ordering::Relaxed) && book.open().flows.len() < max_flows {
                    let number = book.take();
                    kept = deliver(&book, address, kept, number, &stop).await;
                }
            });
        }
        Self { stop, senders }
    }

    /// Takes no new event and waits for the answers that are still due.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.senders.join_all().await;
    }
}

/// Sends one event; gives the connection back if it can be used again.
async fn deliver(
    book: &Book,
    address: SocketAddr,
    mut kept: Option<Connection>,
    number: usize,
    stop: &AtomicBool,
) -> Option<Connection> {
    loop {
        let connection = match kept.take() {
            Some(connection) => Some(connection),
            None => Connection::open(address).await.ok(),
        };
        let Some(connection) = connection else {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (answer, kept) = send(book, address, connection, number).await;
        book.answered(number, answer);
        follow(book, &[address], number).await;
        if answer != Answer::Accepted {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
        return kept;
    }
}

/// Sends the events `numbers` again, at most `connections` at a time, each until it is accepted.
pub(crate) async fn redeliver(book: &Arc<Book>, addresses: &[SocketAddr], connections: u32, numbers: Vec<usize>) {
    let queue = Arc::new(std::sync::Mutex::new(numbers));
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let (book, queue, addresses) = (Arc::clone(book), Arc::clone(&queue), addresses.to_vec());
        senders.spawn(async move {
            loop {
                let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
                let Some(number) = next else { return };
                let sent = until_accepted(&addresses, number, |address| request(&book, address, number));
                if sent.await {
                    book.answered(number, Answer::Accepted);
                }
                follow(&book, &addresses, number).await;
            }
        });
    }
    senders.join_all().await;
}

/// Sends a new second event about the payment of flow `number` until it is accepted, when the flow waits for one.
///
/// Whatever the first event's answer was: its run may stand. And a new one each time the first is sent, since a run
/// that begins later looks for what came after its start.
pub(crate) async fn follow(book: &Book, addresses: &[SocketAddr], number: usize) {
    if !book.follows {
        return;
    }
    let follower = book.follow(number);
    let event = |address| {
        let body = follower_body(&book.ids, number, follower, book.created_s);
        signed(address, &body)
    };
    // One that nobody takes leaves its run open, which the verdict sees.
    until_accepted(addresses, number, event).await;
}

/// Sends a request to one address after the other, from the one of `number` on, until it is accepted.
async fn until_accepted(addresses: &[SocketAddr], number: usize, request: impl Fn(SocketAddr) -> Vec<u8>) -> bool {
    for attempt in 0..REDELIVERIES {
        let address = addresses[(number + attempt) % addresses.len()];
        if let Ok(connection) = Connection::open(address).await
            && let (Answer::Accepted, _) = exchange(connection, &request(address)).await
        {
            return true;
        }
        tokio::time::sleep(REDELIVERY_PAUSE).await;
    }
    false
}

pub(crate) async fn send(
    book: &Book,
    address: SocketAddr,
    connection: Connection,
    number: usize,
) -> (Answer, Option<Connection>) {
    exchange(connection, &request(book, address, number)).await
}

async fn exchange(mut connection: Connection, request: &[u8]) -> (Answer, Option<Connection>) {
    match tokio::time::timeout(PATIENCE, connection.send(request)).await {
        Ok(Ok((status, reusable))) => {
            let answer = match status {
                200..=299 => Answer::Accepted,
                _ => Answer::Refused(status),
            };
            (answer, reusable.then_some(connection))
        }
        Ok(Err(_)) | Err(_) => (Answer::Silence, None),
    }
}

fn request(book: &Book, address: SocketAddr, number: usize) -> Vec<u8> {
    // A redelivery repeats the body and signs it anew.
    signed(address, &event_body(&book.ids, number, book.created_s))
}

fn signed(address: SocketAddr, body: &[u8]) -> Vec<u8> {
    let unix_s = unix_ms() / 1000;
    let head = format!(
        "POST {HOOK} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nstripe-signature: {}\r\n\r\n",
        body.len(),
        sign(SECRET, unix_s, body),
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    request
}
