//! The kinds of documents.

/// The kinds of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One version of a connector.
    Connector,
    /// One account at a provider.
    Connection,
    /// One ingest URL.
    Endpoint,
    /// What to do when an event arrives.
    Workflow,
}

impl Kind {
    /// All kinds, in the order in which they depend on each other.
    pub const ALL: [Kind; 4] = [Kind::Connector, Kind::Connection, Kind::Endpoint, Kind::Workflow];

    /// The value of the document's `kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Connector => "Connector",
            Kind::Connection => "Connection",
            Kind::Endpoint => "Endpoint",
            Kind::Workflow => "Workflow",
        }
    }

    /// All of them, for people.
    pub(super) fn listed() -> String {
        format!("one of {}", Kind::ALL.map(Kind::as_str).join(", "))
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
