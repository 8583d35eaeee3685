//! A wire between the product and PostgreSQL that can be cut with a statement still in it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};

/// What the next statement meets.
#[derive(Default)]
struct Cut {
    /// Statements that went through.
    executed: AtomicUsize,
    armed: AtomicBool,
    /// The bytes on their way, and the server's end of the wire.
    held: Mutex<Option<(Vec<u8>, OwnedWriteHalf)>>,
}

/// A relay on loopback in front of a server.
pub(crate) struct Proxy {
    /// The address of the database through the relay.
    pub(crate) url: String,
    cut: Arc<Cut>,
}

impl Proxy {
    /// A relay to the server that `url` names.
    pub(crate) async fn before(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, database) = rest.split_once('/').unwrap();
        let (user, server) = authority.rsplit_once('@').unwrap_or(("", authority));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let at = if user.is_empty() { "" } else { "@" };
        let cut = Arc::<Cut>::default();
        let proxy = Self {
            url: format!("{scheme}://{user}{at}{here}/{database}"),
            cut: Arc::clone(&cut),
        };
        let server = server.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(relay(client, server, Arc::clone(&cut)));
            }
        });
        proxy
    }

    /// How many statements went through.
    pub(crate) fn executed(&self) -> usize {
        self.cut.executed.load(Ordering::SeqCst)
    }

    /// Cuts the wire when the next statement is in it: the client learns nothing, the server has not seen it yet.
    pub(crate) fn cut(&self) {
        self.cut.armed.store(true, Ordering::SeqCst);
    }

    /// Lets what was in the wire arrive after all.
    pub(crate) async fn deliver(&self) {
        let held = self.cut.held.lock().unwrap().take();
        let (bytes, mut server) = held.expect("a statement was in the wire when it was cut");
        // Whether the server still listens is what the test is about.
        drop(server.write_all(&bytes).await);
        drop(server.shutdown().await);
    }
}

async fn relay(client: TcpStream, server: TcpStream, cut: Arc<Cut>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = tokio::spawn(async move {
        drop(tokio::io::copy(&mut from_server, &mut to_client).await);
    });
    let mut frames = Frames::default();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
        let bytes = buffer.get(..length).unwrap_or_default();
        cut.executed.fetch_add(frames.statements(bytes), Ordering::SeqCst);
        if cut.armed.swap(false, Ordering::SeqCst) {
            *cut.held.lock().unwrap() = Some((bytes.to_vec(), to_server));
            answers.abort();
            return;
        }
        if to_server.write_all(bytes).await.is_err() {
            break;
        }
    }
    answers.abort();
}

/// What a client sends, cut into messages (PostgreSQL, "Message Formats"): a type and a length that counts itself. The
/// first one of a connection has no type.
#[derive(Default)]
struct Frames {
    begun: bool,
    rest: Vec<u8>,
}

impl Frames {
    /// How many statements are carried out by what was completed with these bytes.
    fn statements(&mut self, bytes: &[u8]) -> usize {
        self.rest.extend(bytes);
        let mut found = 0;
        loop {
            let kind = usize::from(self.begun);
            let Some(length) = self.rest.get(kind..kind + 4) else {
                return found;
            };
            let length = usize::try_from(u32::from_be_bytes(length.try_into().unwrap())).unwrap() + kind;
            if self.rest.len() < length {
                return found;
            }
            // Execute, or a simple query.
            found += usize::from(self.begun && matches!(self.rest[0], b'E' | b'Q'));
            // The request for TLS is answered by one byte, and the first message comes after it.
            self.begun |= length != 8;
            self.rest.drain(..length);
        }
    }
}
