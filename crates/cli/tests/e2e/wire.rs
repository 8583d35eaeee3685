//! A wire between a server and PostgreSQL that counts what is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A relay on loopback in front of a database. It ends with the runtime of its test.
pub(crate) struct Wire {
    /// The address of the database through the relay.
    pub(crate) url: String,
    statements: Arc<AtomicU64>,
}

impl Wire {
    pub(crate) async fn before(url: &str) -> Self {
        let mut url = reqwest::Url::parse(url).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let statements = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&statements);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(relay(client, server, Arc::clone(&counted)));
            }
        });
        Wire {
            url: url.to_string(),
            statements,
        }
    }

    /// Statements that went through so far.
    pub(crate) fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }
}

async fn relay(client: TcpStream, server: TcpStream, statements: Arc<AtomicU64>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = tokio::spawn(async move {
        drop(tokio::io::copy(&mut from_server, &mut to_client).await);
    });
    let mut pending = Vec::new();
    let mut greeted = false;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
        let bytes = &buffer[..length];
        pending.extend_from_slice(bytes);
        statements.fetch_add(count(&mut pending, &mut greeted), Ordering::Relaxed);
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
