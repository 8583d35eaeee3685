//! What makes one suspect that webhooks do not arrive: a silence that is too long, a number that was left out.
//! No IO: whoever asks brings the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use weir_workflow_engine::Timestamp;

/// A silence of so many usual intervals is too long.
const SILENT_INTERVALS: u32 = 5;
/// A shorter silence says nothing, however many webhooks there are in a second.
const SHORTEST_SILENCE: Duration = Duration::from_secs(15);
/// So many webhooks have to come before there is a usual interval.
const ENOUGH_HEARD: u64 = 10;
/// How many of the last webhooks the usual interval stands for, about.
const REMEMBERED_INTERVALS: u32 = 16;
/// Doublings of a silence that was looked into: then it takes days.
const MOST_DOUBTS: u32 = 16;
/// How long what was left out may still come: webhooks overtake each other.
const HOLE_PATIENCE: Duration = Duration::from_secs(10);
/// Accounts of an endpoint whose sequences are followed.
///
/// Limit: accounts of an endpoint whose `sequence` is followed | further ones are not, sweeps find what they miss in their time | `sequences_of_many_accounts_are_bounded`
pub const MAX_SEQUENCES: usize = 1_024;
/// Numbers beyond a hole that are remembered.
///
/// Limit: numbers beyond a hole in a `sequence` that are remembered | the hole counts as open until the next sweep | `a_hole_that_is_never_closed_is_bounded`
pub const MAX_NUMBERS_AHEAD: usize = 1_024;

/// Webhooks that came since the last time that somebody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    /// How many, at least one.
    pub(crate) count: u64,
    /// When the first of them came.
    pub(crate) first: Timestamp,
    /// When the last did.
    pub(crate) last: Timestamp,
}

/// How long it has been silent, and whether that is usual.
#[derive(Debug, Default)]
pub(super) struct Silence {
    last: Option<Timestamp>,
    usual: Option<Duration>,
    heard: u64,
    /// How often the silence since then was looked into.
    doubts: u32,
}

impl Silence {
    /// Webhooks came since this was told last.
    pub(super) fn heard(&mut self, heard: Heard) {
        let Heard { count, first, last } = heard;
        let count_after_first = count.saturating_sub(1);
        let (since, intervals) = match self.last {
            Some(before) => (before, count),
            None => (first, count_after_first),
        };
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        if intervals > 0 {
            let interval = last.since(since) / intervals;
            let new = intervals.min(REMEMBERED_INTERVALS);
            self.usual = Some(match self.usual {
                None => interval,
                Some(usual) => (usual * (REMEMBERED_INTERVALS - new) + interval * new) / REMEMBERED_INTERVALS,
            });
        }
        self.last = self.last.max(Some(last));
        self.heard = self.heard.saturating_add(count);
        self.doubts = 0;
    }

    /// Whether it has been silent for too long. Each look doubles what is too long, until somebody is heard.
    pub(super) fn is_suspicious(&self, now: Timestamp) -> bool {
        let (Some(last), Some(usual)) = (self.last, self.usual) else {
            return false;
        };
        let patience = usual.saturating_mul(SILENT_INTERVALS).max(SHORTEST_SILENCE);
        let patience = patience.saturating_mul(1 << self.doubts.min(MOST_DOUBTS));
        self.heard >= ENOUGH_HEARD && now.since(last) >= patience
    }

    /// The silence is looked into.
    pub(super) fn looked_into(&mut self) {
        self.doubts = self.doubts.saturating_add(1);
    }
}

/// Which numbers of the sequences of an endpoint's accounts were left out.
#[derive(Debug, Default)]
pub(super) struct Holes {
    lines: BTreeMap<String, Line>,
}

#[derive(Debug)]
struct Line {
    /// The first number that has not come.
    next: u64,
    /// The largest number that has.
    top: u64,
    /// The numbers between the two that have.
    ahead: BTreeSet<u64>,
    /// Since when `next` is below `top`.
    open_since: Option<Timestamp>,
}

impl Line {
    fn from(number: u64) -> Self {
        Line {
            next: number.saturating_add(1),
            top: number,
            ahead: BTreeSet::new(),
            open_since: None,
        }
    }

    fn saw(&mut self, number: u64, now: Timestamp) {
        if number < self.next {
            // One that came late or again; far below, the provider has begun anew.
            if self.next - number > MAX_NUMBERS_AHEAD as u64 {
                *self = Line::from(number);
            }
            return;
        }
        self.top = self.top.max(number);
        if number > self.next {
            if self.ahead.len() < MAX_NUMBERS_AHEAD {
                self.ahead.insert(number);
            }
            self.open_since.get_or_insert(now);
            return;
        }
        self.next = number.saturating_add(1);
        while self.ahead.remove(&self.next) {
            self.next = self.next.saturating_add(1);
        }
        self.open_since = (self.next <= self.top).then_some(now);
    }
}

impl Holes {
    /// An event with this number came, by whatever way.
    pub(super) fn saw(&mut self, account: &str, number: u64, now: Timestamp) {
        let has_room = self.lines.len() < MAX_SEQUENCES;
        match self.lines.get_mut(account) {
            Some(line) => line.saw(number, now),
            None if has_room => {
                self.lines.insert(account.to_owned(), Line::from(number));
            }
            None => {}
        }
    }

    /// Whether a number is left out for longer than webhooks overtake each other.
    pub(super) fn is_suspicious(&self, now: Timestamp) -> bool {
        let mut open = self.lines.values().filter_map(|line| line.open_since);
        open.any(|since| now.since(since) >= HOLE_PATIENCE)
    }

    /// A sweep that began at this time has read the whole list: what was left out before is not to be had.
    pub(super) fn swept(&mut self, began_at: Timestamp) {
        for line in self.lines.values_mut() {
            if line.open_since.is_some_and(|since| since <= began_at) {
                *line = Line::from(line.top);
            }
        }
    }
}

#[cfg(test)]
#[path = "suspicion_tests.rs"]
mod tests;
