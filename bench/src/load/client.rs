//! A minimal HTTP/1.1 client: one POST at a time over a kept connection.
//!
//! Written by hand because a general client costs several times more CPU per request than the whole
//! sender may use. It understands what a webhook's answer is made of: a status and a sized or chunked body.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest head and longest body that an answer may have, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
}

struct Head {
    status: u16,
    bytes: usize,
    body: Body,
    close: bool,
}

#[derive(Clone, Copy)]
enum Body {
    Sized(usize),
    Chunked,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            input: Vec::with_capacity(1024),
        })
    }

    /// Sends a whole request; gives the status and whether the connection can be used again.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<(u16, bool)> {
        self.stream.write_all(request).await?;
        self.input.clear();
        let head = loop {
            if let Some(head) = parse_head(&self.input)? {
                break head;
            }
            self.read_more().await?;
        };
        match head.body {
            Body::Sized(length) => {
                while self.input.len() < head.bytes + length {
                    self.read_more().await?;
                }
            }
            // The last chunk is empty, and no trailers are expected behind it.
            Body::Chunked => {
                while !self.input.ends_with(b"0\r\n\r\n") {
                    self.read_more().await?;
                }
            }
        }
        Ok((head.status, !head.close))
    }

    async fn read_more(&mut self) -> Result<()> {
        if self.input.len() > MAX_ANSWER_BYTES {
            return Err(invalid("the answer is too long"));
        }
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}

/// `None` as long as the head is incomplete.
fn parse_head(input: &[u8]) -> Result<Option<Head>> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = input
        .get(..end)
        .and_then(|head| str::from_utf8(head).ok())
        .ok_or_else(|| invalid("head is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|line| line.split(' ').next())
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| invalid("no status line"))?;
    let mut body = (status == 204).then_some(Body::Sized(0));
    let mut close = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            body =
                Some(Body::Sized(value.parse().map_err(
                    |_ignored: std::num::ParseIntError| invalid("content-length"),
                )?));
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            body = Some(Body::Chunked);
        } else if name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case("close");
        }
    }
    let body = body.ok_or_else(|| invalid("the answer's length is unknown"))?;
    Ok(Some(Head {
        status,
        bytes: end + 4,
        body,
        close,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_length_and_close() {
        let head = parse_head(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            .unwrap()
            .unwrap();
        assert_eq!((head.status, head.close), (503, true));
        assert!(matches!(head.body, Body::Sized(2)));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap().is_none());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse_head(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}
