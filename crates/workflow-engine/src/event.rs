//! One event as a run sees it: immutable, complete in itself.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::document::Document;
use crate::id::EventId;
use crate::run::whole_event;
use crate::time::Timestamp;

/// Where an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventSource {
    /// A webhook request to an endpoint.
    Endpoint,
    /// A reconciliation pass over the provider's list API.
    Sweep,
    /// A pass over a chosen past range of the provider's list API.
    Backfill,
    /// A polling trigger.
    Poll,
    /// A schedule.
    Schedule,
    /// A person pressed the button.
    Manual,
    /// A program asked for it.
    Api,
    /// A step of another run.
    Workflow,
}

impl EventSource {
    /// The name in expressions, storage and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Sweep => "sweep",
            Self::Backfill => "backfill",
            Self::Poll => "poll",
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::Api => "api",
            Self::Workflow => "workflow",
        }
    }
}

/// What kind of object an event is about, and which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRef {
    /// Kind of object, `type` in expressions.
    pub kind: String,
    /// Its id at the provider.
    pub id: String,
    /// Its version at the provider, when the event tells it.
    pub version: Option<String>,
}

/// One received or recovered fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The provider's id of the event.
    pub id: String,
    /// Our id of the event.
    pub uid: EventId,
    /// The provider's type of the event, `type` in expressions.
    pub kind: String,
    /// When it happened, by the provider's clock.
    pub time: Option<Timestamp>,
    /// When we took it.
    pub received_at: Timestamp,
    /// Where it came from.
    pub source: EventSource,
    /// The account at the provider that it belongs to.
    pub account: Option<String>,
    /// What it is about.
    pub reference: Option<EventRef>,
    /// Allow-listed request headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The whole unit as it was received.
    pub body: Document,
    /// What the connector's `identify.data` selects from the body; the body itself by default.
    pub data: Document,
    /// Name of the connector that read it.
    pub connector: String,
    /// Name of the connection it belongs to.
    pub connection: Option<String>,
    /// Name of the endpoint that took it.
    pub endpoint: Option<String>,
    /// The planned instant, when a schedule made it.
    pub scheduled_for: Option<Timestamp>,
    /// All events of a batch, this one first, where a run stands for several: the list that `event.batch` is.
    pub batch: Option<Document>,
}

impl Event {
    /// The event for which a run stands that stands for all of these, this one first.
    pub fn with_batch(mut self, events: &[Self]) -> Self {
        self.batch = None;
        let list = std::iter::once(&self).chain(events).map(whole_event).collect();
        self.batch = Some(Document::from_value(Value::Array(list)));
        self
    }

    /// About how many bytes it holds.
    pub fn size_bytes(&self) -> usize {
        self.body.size_bytes() + self.batch.as_ref().map_or(0, Document::size_bytes)
    }
}
