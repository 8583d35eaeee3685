//! A wire between a server and PostgreSQL that counts what is asked, and can be cut right after a commit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A relay on loopback in front of a database. It ends with the runtime of its test.
pub(crate) struct Wire {
    /// The address of the database through the relay.
    pub(crate) url: String,
    taps: Arc<Taps>,
}

#[derive(Default)]
struct Taps {
    /// Statements that went through.
    statements: AtomicU64,
    /// Bytes of a statement whose session is cut when its transaction is over.
    unanswered: Mutex<Option<Vec<u8>>>,
    /// Whether nothing goes through.
    away: tokio::sync::watch::Sender<bool>,
}

impl Taps {
    /// Whether this is the statement whose answer is to be lost.
    fn is_wanted(&self, bytes: &[u8]) -> bool {
        let mut unanswered = self.unanswered.lock().unwrap();
        let is_there = |wanted: &Vec<u8>| bytes.windows(wanted.len()).any(|found| found == wanted);
        unanswered.take_if(|wanted| is_there(wanted)).is_some()
    }
}

/// How PostgreSQL ends what it says outside of a transaction: `ReadyForQuery`, idle.
const IDLE: &[u8] = &[b'Z', 0, 0, 0, 5, b'I'];

impl Wire {
    pub(crate) async fn before(url: &str) -> Self {
        let mut url = reqwest::Url::parse(url).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let taps = Arc::<Taps>::default();
        let shared = Arc::clone(&taps);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *shared.away.borrow() {
                    continue;
                }
                let server = TcpStream::connect(&server).await.unwrap();
                let (relaying, mut away) = (relay(client, server, Arc::clone(&shared)), shared.away.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        () = relaying => {}
                        _ = away.wait_for(|away| *away) => {}
                    }
                });
            }
        });
        Wire {
            url: url.to_string(),
            taps,
        }
    }

    /// Carries out the next transaction that has these bytes in a statement, and loses its answer and the session.
    pub(crate) fn lose_the_answer_to(&self, bytes: &str) {
        *self.taps.unanswered.lock().unwrap() = Some(bytes.as_bytes().to_vec());
    }

    /// Ends every session and takes no other one, as a database does that is stopped; or is there again.
    pub(crate) fn set_away(&self, away: bool) {
        self.taps.away.send_replace(away);
    }

    /// Statements that went through so far.
    pub(crate) fn statements(&self) -> u64 {
        self.taps.statements.load(Ordering::Relaxed)
    }
}

async fn relay(client: TcpStream, server: TcpStream, taps: Arc<Taps>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (cut, mut is_cut) = tokio::sync::watch::channel(false);
    let mut answers = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        let mut tail = Vec::new();
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            let bytes = &buffer[..length];
            tail.extend_from_slice(bytes);
            tail.drain(..tail.len().saturating_sub(IDLE.len()));
            if *is_cut.borrow_and_update() && tail == IDLE {
                return;
            }
            if to_client.write_all(bytes).await.is_err() {
                return;
            }
        }
    });
    let mut pending = Vec::new();
    let mut greeted = false;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = tokio::select! {
            read = from_client.read(&mut buffer) => read.unwrap_or(0),
            _ = &mut answers => 0,
        };
        if length == 0 {
            break;
        }
        let bytes = &buffer[..length];
        pending.extend_from_slice(bytes);
        taps.statements
            .fetch_add(count(&mut pending, &mut greeted), Ordering::Relaxed);
        if taps.is_wanted(bytes) {
            cut.send_replace(true);
        }
        if to_server.write_all(bytes).await.is_err() {
            break;
        }
    }
    answers.abort();
}

/// Takes whole messages out of `pending`; how many of them ask for something to be executed (PostgreSQL, "Message
/// Formats": a type, but not in the first messages, and a length that counts itself).
fn count(pending: &mut Vec<u8>, greeted: &mut bool) -> u64 {
    let mut statements = 0;
    loop {
        let kind_bytes = usize::from(*greeted);
        let Some(length) = pending.get(kind_bytes..kind_bytes + 4) else {
            return statements;
        };
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let Some(message) = pending.get(..kind_bytes + length) else {
            return statements;
        };
        if *greeted {
            // A simple query, and the execution of a prepared one.
            statements += u64::from(matches!(message[0], b'Q' | b'E'));
        } else {
            // Version 3.0 begins the session; what came before asked for encryption.
            *greeted = message[4..8] == [0, 3, 0, 0];
        }
        pending.drain(..kind_bytes + length);
    }
}
