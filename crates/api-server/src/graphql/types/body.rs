//! Raw bodies.

use super::super::scalars::{Json, Long};
use async_graphql::Object;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Bytes exactly as they were received.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    /// Size of the whole body; more than `bytes` when only an excerpt was kept.
    pub(crate) size_bytes: u64,
}

/// A body exactly as it was received.
#[Object]
impl Body {
    /// The bytes as text. Null when they are not UTF-8.
    async fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    /// The bytes in base64.
    async fn base64(&self) -> String {
        STANDARD.encode(&self.bytes)
    }

    /// The bytes as JSON. Null when they are none.
    async fn json(&self) -> Option<Json> {
        serde_json::from_slice(&self.bytes).ok().map(Json)
    }

    /// Size of the whole body in bytes.
    async fn size(&self) -> Long {
        Long(self.size_bytes)
    }

    /// Whether only the beginning was kept.
    async fn truncated(&self) -> bool {
        self.size_bytes > self.bytes.len() as u64
    }
}
