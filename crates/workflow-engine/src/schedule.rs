//! When a schedule fires: cron lines in a time zone, or a fixed span; and what becomes of times that were missed.
//!
//! Pure: time comes in as an argument, and the time zones are compiled in. Which instants have fired is not known here.

mod cron;
mod due;
mod zone;

use std::time::Duration;

use serde_json::{Value, json};

use crate::duration;
use crate::time::Timestamp;
pub(crate) use cron::{Cron, CronError};
pub use due::{Due, MAX_MISSED_COUNTED, SKIP_AFTER};
pub(crate) use zone::Zone;

/// The shortest span between two times of `every`.
///
/// Limit: `every` of a schedule, at least | refused at publish, `out_of_bounds` | `schedules_stop_at_their_bounds`
pub const MIN_EVERY: Duration = Duration::from_secs(1);
/// The longest span between two times of `every`.
///
/// Limit: `every` of a schedule | refused at publish, `out_of_bounds` | `schedules_stop_at_their_bounds`
pub const MAX_EVERY: Duration = Duration::from_secs(366 * 86_400);
/// How many cron lines one schedule may have.
///
/// Limit: cron lines of a schedule | refused at publish, `out_of_bounds` | `schedules_stop_at_their_bounds`
pub const MAX_CRON_LINES: usize = 16;
/// The longest cron line in bytes.
///
/// Limit: a cron line | refused at publish, `bad_cron` | `schedules_stop_at_their_bounds`
pub const MAX_CRON_BYTES: usize = 256;
/// The largest `max_catch_up`: each missed time is a run, and they start one after the other.
///
/// Limit: `max_catch_up` of a schedule | refused at publish, `out_of_bounds` | `schedules_stop_at_their_bounds`
pub const MAX_CATCH_UP: u32 = 1000;
/// The `max_catch_up` when none is given.
pub const DEFAULT_CATCH_UP: u32 = 100;
/// The largest `input` of a schedule, in bytes of JSON: it is stored with each event.
///
/// Limit: `input` of a schedule | refused at publish, `out_of_bounds` | `schedules_stop_at_their_bounds`
pub const MAX_SCHEDULE_INPUT_BYTES: usize = 65_536;

/// What becomes of times that passed while nobody could fire them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// They are dropped, unless the last one passed less than [`SKIP_AFTER`] ago.
    Skip,
    /// One run for the last of them.
    One,
    /// A run for each, oldest first, for the newest `most` of them.
    All {
        /// How many at most.
        most: u32,
    },
}

impl CatchUp {
    /// The word in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::One => "one",
            Self::All { .. } => "all",
        }
    }
}

/// A schedule, parsed.
#[derive(Clone, Debug)]
pub struct Schedule {
    times: Times,
    catch_up: CatchUp,
    input: Value,
}

#[derive(Clone, Debug)]
enum Times {
    Cron { lines: Vec<Cron>, zone: Zone },
    Every(Duration),
}

impl Schedule {
    /// Cron lines, at least one, each time in `zone`.
    pub(crate) fn of_cron(lines: Vec<Cron>, zone: Zone, catch_up: CatchUp, input: Value) -> Self {
        let times = Times::Cron { lines, zone };
        Self { times, catch_up, input }
    }

    /// Every multiple of `span` since 1970-01-01T00:00Z. `span` is whole seconds, at least one.
    pub(crate) fn of_span(span: Duration, catch_up: CatchUp, input: Value) -> Self {
        let times = Times::Every(span);
        Self { times, catch_up, input }
    }

    /// Reads one cron line.
    pub(crate) fn cron(text: &str) -> Result<Cron, CronError> {
        Cron::parse(text)
    }

    /// The first planned instant after `after`. `None`: there is none until the year 9999.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.times {
            Times::Cron { lines, zone } => lines.iter().filter_map(|line| zone.next_after(line, after)).min(),
            Times::Every(span) => {
                let span_ms = i64::try_from(span.as_millis()).ok()?;
                let next = after
                    .as_unix_ms()
                    .div_euclid(span_ms)
                    .checked_add(1)?
                    .checked_mul(span_ms)?;
                Some(Timestamp::from_unix_ms(next))
            }
        }
    }

    /// The next planned instants after `after`, at most `count`.
    pub fn upcoming(&self, after: Timestamp, count: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next_after(after), |last| self.next_after(*last))
            .take(count)
            .collect()
    }

    /// What becomes of times that were missed.
    pub fn catch_up(&self) -> CatchUp {
        self.catch_up
    }

    /// What the author hands to each run; an object.
    pub fn input(&self) -> &Value {
        &self.input
    }

    /// The cron lines as written; empty for `every`.
    pub fn cron_lines(&self) -> Vec<&str> {
        match &self.times {
            Times::Cron { lines, .. } => lines.iter().map(Cron::text).collect(),
            Times::Every(_) => Vec::new(),
        }
    }

    /// The IANA name of the time zone of the cron lines.
    pub fn timezone(&self) -> Option<&str> {
        match &self.times {
            Times::Cron { zone, .. } => Some(zone.name()),
            Times::Every(_) => None,
        }
    }

    /// The span of `every`.
    pub fn every(&self) -> Option<Duration> {
        match &self.times {
            Times::Cron { .. } => None,
            Times::Every(span) => Some(*span),
        }
    }

    /// The times alone, as a document would say them: `{cron, timezone}` or `{every}`.
    pub fn times(&self) -> Value {
        match &self.times {
            Times::Cron { lines, zone } => match lines.as_slice() {
                [line] => json!({ "cron": line.text(), "timezone": zone.name() }),
                lines => json!({ "cron": lines.iter().map(Cron::text).collect::<Vec<_>>(), "timezone": zone.name() }),
            },
            Times::Every(span) => json!({ "every": duration::print(*span) }),
        }
    }

    /// What the event of one planned instant carries.
    ///
    /// `previous` is the planned instant that fired before this one, and `missed` counts those between the two that did
    /// not fire.
    pub fn event_data(&self, scheduled_for: Timestamp, previous: Option<Timestamp>, missed: u64) -> Value {
        json!({
            "scheduled_for": scheduled_for,
            "previous": previous,
            "missed": missed,
            "schedule": self.times(),
            "input": self.input,
        })
    }
}
