//! Reads request bodies: never more than the limit, never longer than the patience, and the bytes as they came.

use actix_web::error::PayloadError;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use std::time::Duration;

/// How long a whole body may take. Providers send at once; whoever needs longer holds a connection for nothing.
///
/// Limit: time for the body of a request | 408, `BODY_TIMEOUT` | `senders_that_drip_are_sent_away`
pub(crate) const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// Buffer reserved up front for a body in several pieces, bytes: a declared length is only a claim.
const FIRST_BUFFER_BYTES: usize = 64 * 1024;

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFailure {
    /// Longer than the limit, in bytes.
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// It took longer than [`BODY_PATIENCE`].
    TooSlow,
    /// The sender broke off, or the transfer coding is wrong.
    Broken,
}

/// The length that the sender declares, if it declares one.
pub(crate) fn declared_length(request: &HttpRequest) -> Option<u64> {
    request
        .headers()
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Reads the whole body. The usual small body that arrived in one piece is handed over without a copy.
///
/// Cancel-safe: what was read is dropped, nothing else has happened yet.
pub(crate) async fn read(
    payload: &mut web::Payload,
    declared_bytes: Option<u64>,
    limit_bytes: usize,
) -> Result<Bytes, BodyFailure> {
    if declared_bytes.is_some_and(|length| length > limit_bytes as u64) {
        return Err(BodyFailure::TooLarge { limit_bytes });
    }
    match tokio::time::timeout(BODY_PATIENCE, collect(payload, declared_bytes, limit_bytes)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(BodyFailure::TooSlow),
    }
}

async fn collect(
    payload: &mut web::Payload,
    declared_bytes: Option<u64>,
    limit_bytes: usize,
) -> Result<Bytes, BodyFailure> {
    let Some(first) = payload.next().await else {
        return Ok(Bytes::new());
    };
    let first = checked(first, 0, limit_bytes)?;
    if declared_bytes == Some(first.len() as u64) {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(limit_bytes.min(FIRST_BUFFER_BYTES).max(first.len()));
    whole.extend_from_slice(&first);
    while let Some(piece) = payload.next().await {
        let piece = checked(piece, whole.len(), limit_bytes)?;
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

fn checked(piece: Result<Bytes, PayloadError>, so_far: usize, limit_bytes: usize) -> Result<Bytes, BodyFailure> {
    match piece {
        Ok(piece) if piece.len() > limit_bytes - so_far => Err(BodyFailure::TooLarge { limit_bytes }),
        Ok(piece) => Ok(piece),
        Err(PayloadError::Overflow) => Err(BodyFailure::TooLarge { limit_bytes }),
        Err(_broken) => Err(BodyFailure::Broken),
    }
}
