//! How urgent a call is: it follows from how its run began.

use weir_workflow_engine::EventSource;

/// Priority classes, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Class {
    /// Something happened just now: a webhook, a schedule, a person, a program.
    #[default]
    Live,
    /// An event that a sweep recovered.
    Sweep,
    /// An event of a chosen past range.
    Backfill,
    /// A run that repeats another one.
    Replay,
}

impl Class {
    /// All, the most urgent first.
    pub const ALL: [Class; 4] = [Class::Live, Class::Sweep, Class::Backfill, Class::Replay];

    /// The class of the calls of a run.
    #[must_use]
    pub fn of(source: EventSource, is_replay: bool) -> Class {
        match source {
            _ if is_replay => Class::Replay,
            EventSource::Sweep => Class::Sweep,
            EventSource::Backfill => Class::Backfill,
            EventSource::Endpoint
            | EventSource::Poll
            | EventSource::Schedule
            | EventSource::Manual
            | EventSource::Api
            | EventSource::Workflow => Class::Live,
        }
    }

    /// The name in metrics and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Live => "live",
            Class::Sweep => "sweep",
            Class::Backfill => "backfill",
            Class::Replay => "replay",
        }
    }

    /// Whether nobody waits for it at this moment, and there may be many.
    pub(super) const fn is_bulk(self) -> bool {
        match self {
            Class::Live => false,
            Class::Sweep | Class::Backfill | Class::Replay => true,
        }
    }

    pub(super) const fn index(self) -> usize {
        match self {
            Class::Live => 0,
            Class::Sweep => 1,
            Class::Backfill => 2,
            Class::Replay => 3,
        }
    }
}
