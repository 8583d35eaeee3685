//! The verdict on one round: two accounts of the same events, compared one by one.
//!
//! The book says what the sender was promised and what the CRM saw; the database says what Weir believes. Pure: the same
//! two accounts give the same verdict.

use std::collections::HashSet;
use std::ops::Range;

use serde::Serialize;

use crate::arguments::Mode;
use crate::book::{Answer, Book, Flow};
use crate::facts::Runs;

/// Most events of a round that are named in its report.
const MAX_EXAMPLES: usize = 8;

/// What stood at the moment of the kill.
#[derive(Debug, Default)]
pub(crate) struct AtKill {
    /// Accepted events: their runs must be on disk.
    pub accepted: Vec<usize>,
    /// Events of which a CRM request had begun to arrive: so must theirs.
    pub left: Vec<usize>,
}

impl AtKill {
    pub(crate) fn of(book: &Book, first: usize) -> Self {
        let pages = book.open();
        let numbers = |holds: fn(&Flow) -> bool| {
            let flows = pages.flows.iter().enumerate().skip(first);
            flows
                .filter(|(_, flow)| holds(flow))
                .map(|(number, _)| number)
                .collect()
        };
        Self {
            accepted: numbers(|flow| flow.answer == Answer::Accepted),
            left: numbers(|flow| flow.departures > 0),
        }
    }
}

/// What the database held when it was read after the kill.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct OnDisk {
    /// Runs that were open.
    pub open_at_kill: usize,
    /// Effects whose request had left and whose result was not committed.
    pub left_uncommitted: usize,
    /// Accepted events without a run: lost whatever follows.
    pub accepted_not_stored: usize,
    /// Effects that left although not even their event was committed.
    pub left_before_commit: usize,
}

impl OnDisk {
    pub(crate) fn of(book: &Book, at_kill: &AtKill, runs: &Runs) -> Self {
        let run = |number: &usize| runs.by_event.get(&book.ids.event(*number));
        let missing = |numbers: &[usize]| numbers.iter().filter(|number| run(number).is_none()).count();
        Self {
            open_at_kill: runs.by_event.values().filter(|run| run.open()).count(),
            left_uncommitted: at_kill
                .left
                .iter()
                .filter(|number| run(number).is_none_or(|run| run.open()))
                .count(),
            accepted_not_stored: missing(&at_kill.accepted),
            left_before_commit: missing(&at_kill.left),
        }
    }

    fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.accepted_not_stored > 0 {
            let count = self.accepted_not_stored;
            found.push(format!("{count} accepted events were not on disk after the kill"));
        }
        if self.left_before_commit > 0 {
            let count = self.left_before_commit;
            found.push(format!("{count} effects left before their event was on disk"));
        }
        found
    }
}

/// The end of a round, counted.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub sent: usize,
    pub accepted: usize,
    pub refused: usize,
    pub unanswered: usize,
    pub redelivered: usize,
    /// Events with exactly one effect.
    pub done_once: usize,
    /// Accepted events without an effect.
    pub lost: usize,
    /// Of these, those whose run says `unknown`.
    pub lost_but_reported: usize,
    /// Events with more than one effect.
    pub doubled: usize,
    /// Runs that ended as `effect_unknown`.
    pub unknown: usize,
    /// Of these, those of which the CRM never saw a byte.
    pub unknown_never_seen: usize,
    pub failed_otherwise: usize,
    pub open: usize,
    /// Events that were taken for two.
    pub run_twice: usize,
    /// Requests that repeated a key and so changed nothing.
    pub repeats: u64,
    /// A few events that violate something or never left, for whoever looks into the database.
    pub examples: Vec<String>,
}

impl Tally {
    pub(crate) fn of(book: &Book, round: Range<usize>, runs: &Runs) -> Self {
        let mut tally = Tally::default();
        let twice: HashSet<&str> = runs.twice.iter().map(String::as_str).collect();
        let pages = book.open();
        let flows = pages.flows.iter().enumerate();
        for (number, flow) in flows.skip(round.start).take(round.len()) {
            let event = book.ids.event(number);
            let run = runs.by_event.get(&event);
            let unknown = run.is_some_and(|run| run.unknown());
            let before = tally.harm();
            tally.sent += 1;
            match flow.answer {
                Answer::Accepted => tally.accepted += 1,
                Answer::Refused(_) => tally.refused += 1,
                Answer::Silence | Answer::Unsent => tally.unanswered += 1,
            }
            tally.redelivered += usize::from(flow.redelivered);
            tally.done_once += usize::from(flow.effects == 1);
            if flow.answer == Answer::Accepted && flow.effects == 0 {
                tally.lost += 1;
                tally.lost_but_reported += usize::from(unknown);
            }
            tally.doubled += usize::from(flow.effects > 1);
            tally.unknown += usize::from(unknown);
            let never_seen = unknown && flow.departures == 0;
            tally.unknown_never_seen += usize::from(never_seen);
            tally.failed_otherwise += usize::from(run.is_some_and(|run| run.failed_otherwise()));
            tally.open += usize::from(run.is_some_and(|run| run.open()));
            tally.run_twice += usize::from(twice.contains(event.as_str()));
            tally.repeats += u64::from(flow.repeats);
            if (never_seen || tally.harm() > before) && tally.examples.len() < MAX_EXAMPLES {
                let run = run.map_or_else(
                    || "no run".to_owned(),
                    |run| format!("run status {} {:?}", run.status, run.error_code),
                );
                tally.examples.push(format!(
                    "{event}: {:?}, {} effects, {} CRM requests, {run}",
                    flow.answer, flow.effects, flow.departures
                ));
            }
        }
        tally
    }

    fn harm(&self) -> usize {
        let unreported = self.lost - self.lost_but_reported;
        unreported + self.doubled + self.failed_otherwise + self.open + self.run_twice
    }

    /// What must not be, in words; empty when all is well.
    ///
    /// An effect is recorded right before its first byte can leave. A thread that is killed between the two leaves the
    /// record of a request that nobody saw, and Weir rightly calls it unknown: `threads` of the killed servers allow one each.
    pub(crate) fn violations(&self, mode: Mode, on_disk: &OnDisk, threads: usize) -> Vec<String> {
        let mut found = on_disk.violations();
        let mut check = |count: usize, words: &str| {
            if count > 0 {
                found.push(format!("{count} {words}"));
            }
        };
        check(
            self.lost - self.lost_but_reported,
            "accepted events lost without being reported unknown",
        );
        check(self.doubled, "effects doubled");
        check(self.run_twice, "events taken for two");
        check(self.failed_otherwise, "runs failed for another reason");
        check(self.open, "runs still open at the end");
        if mode.allows_unknown() {
            check(
                self.unknown
                    .saturating_sub(on_disk.left_uncommitted + self.unknown_never_seen.min(threads)),
                "more effects unknown than had left uncommitted or were about to",
            );
        } else {
            check(self.unknown, "effects unknown although the provider tells");
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Run;
    use weir_bench::documents::{Deal, Ids};

    fn run(status: i64, error_code: Option<&str>) -> Run {
        Run {
            status,
            error_code: error_code.map(str::to_owned),
            finished_at: None,
        }
    }

    fn left(left_uncommitted: usize) -> OnDisk {
        OnDisk {
            left_uncommitted,
            ..OnDisk::default()
        }
    }

    fn effect(book: &Book, number: usize) {
        let id = book.ids.payment_intent(number);
        let body = serde_json::to_vec(&Deal::expected(&book.ids, number)).unwrap();
        book.departed(&id);
        book.carried_out(&id, &body, None);
    }

    /// Events 0: done once, 1: lost, 2: doubled, 3: unknown and never done, 4: unknown and done, 5: no answer, not done.
    fn crashed() -> (Book, Runs) {
        let book = Book::new(Ids::new(3), Mode::Blind);
        let mut runs = Runs::default();
        for number in 0..6 {
            book.take();
            let answer = match number {
                5 => Answer::Silence,
                _ => Answer::Accepted,
            };
            book.answered(number, answer);
            let run = match number {
                1 | 5 => continue,
                3 | 4 => run(3, Some("effect_unknown")),
                _ => run(2, None),
            };
            runs.by_event.insert(book.ids.event(number), run);
        }
        for number in [0, 2, 2, 4] {
            effect(&book, number);
        }
        (book, runs)
    }

    #[test]
    fn each_kind_of_harm_is_counted_once() {
        let (book, runs) = crashed();
        let tally = Tally::of(&book, 0..6, &runs);
        assert_eq!((tally.accepted, tally.unanswered), (5, 1));
        assert_eq!((tally.lost, tally.lost_but_reported), (2, 1));
        assert_eq!((tally.doubled, tally.done_once), (1, 2));
        assert_eq!((tally.unknown, tally.unknown_never_seen), (2, 1));
        assert_eq!(
            tally.violations(Mode::Blind, &left(2), 0),
            [
                "1 accepted events lost without being reported unknown",
                "1 effects doubled"
            ]
        );
        assert_eq!(tally.violations(Mode::Blind, &left(1), 0).len(), 3);
        assert_eq!(tally.violations(Mode::FindBy, &left(2), 2).len(), 3);
        // One of the two unknown effects was never seen, so two threads explain no more than that one.
        assert_eq!(tally.violations(Mode::Blind, &left(1), 2).len(), 2);
        assert_eq!(tally.violations(Mode::Blind, &left(0), 2).len(), 3);
        // The lost one, the doubled one, and the one that never left although nobody knows it.
        assert_eq!(tally.examples.len(), 3);
    }

    #[test]
    fn what_left_must_have_been_committed_before() {
        let (book, mut runs) = crashed();
        runs.by_event.insert(book.ids.event(4), run(0, None));
        runs.by_event.remove(&book.ids.event(2));
        let on_disk = OnDisk::of(&book, &AtKill::of(&book, 0), &runs);
        let expected = OnDisk {
            open_at_kill: 1,
            left_uncommitted: 2,
            accepted_not_stored: 2,
            left_before_commit: 1,
        };
        assert_eq!(on_disk, expected);
        assert_eq!(on_disk.violations().len(), 2);
    }
}
