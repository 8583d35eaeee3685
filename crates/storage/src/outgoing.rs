//! Outgoing events: what workflows tell others.

use bytes::Bytes;
use weir_workflow_engine::{OutgoingId, RunId, Timestamp, WorkspaceId};

/// An outgoing event, stored once per effect key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its id, if it is the first under its key.
    pub id: OutgoingId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// What makes it the same event in retries and replays.
    pub effect_key: [u8; 16],
    /// Its type.
    pub kind: String,
    /// Events with the same one keep their order.
    pub order_key: Option<String>,
    /// The run that told it.
    pub run: RunId,
    /// Path of the step that told it.
    pub step: String,
    /// When.
    pub created_at: Timestamp,
    /// What it says, JSON.
    pub body: Bytes,
}

/// An outgoing event as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingRow {
    /// Its id.
    pub id: OutgoingId,
    /// Its type.
    pub kind: String,
    /// Events with the same one keep their order.
    pub order_key: Option<String>,
    /// The run that told it.
    pub run: RunId,
    /// Path of the step that told it.
    pub step: String,
    /// When.
    pub created_at: Timestamp,
    /// What it says, JSON.
    pub body: Vec<u8>,
}
