//! Who is next: the most urgent class first, first come first served inside a class, and nobody starves.

use std::collections::VecDeque;

use super::class::Class;

/// How often others may go before a class whose calls wait, until one of these goes although its turn has not come: a
/// tenth of what is sent is theirs.
pub const MAX_PASSED_OVER: u32 = 9;

/// A call that waits in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) cost: f64,
}

/// The calls that wait in memory.
#[derive(Debug, Default)]
pub(super) struct Queues {
    by_class: [VecDeque<Waiter>; 4],
    passed_over: [u32; 4],
    next_ticket: u64,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Turn {
    pub(super) class: Class,
    pub(super) waiter: Waiter,
    /// It was passed over so often that it may use what is kept for others.
    pub(super) is_due: bool,
}

impl Queues {
    pub(super) fn is_empty(&self) -> bool {
        self.by_class.iter().all(VecDeque::is_empty)
    }

    pub(super) fn len(&self, class: Class) -> usize {
        self.by_class.get(class.index()).map_or(0, VecDeque::len)
    }

    /// What those cost together that go before a newcomer of this class.
    pub(super) fn cost_ahead(&self, class: Class) -> f64 {
        let ahead = self.by_class.iter().take(class.index() + 1);
        ahead.flatten().map(|waiter| waiter.cost).sum()
    }

    /// What those of one class cost together.
    pub(super) fn cost_of(&self, class: Class) -> f64 {
        let own = self.by_class.get(class.index()).into_iter().flatten();
        own.map(|waiter| waiter.cost).sum()
    }

    pub(super) fn enter(&mut self, class: Class, cost: f64) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some(queue) = self.by_class.get_mut(class.index()) {
            queue.push_back(Waiter { ticket, cost });
        }
        ticket
    }

    /// Whose turn it is; `None` when nobody waits.
    pub(super) fn next(&self) -> Option<Turn> {
        let head = |class: Class| self.by_class.get(class.index())?.front().copied();
        let turn = |class: Class, is_due: bool| head(class).map(|waiter| Turn { class, waiter, is_due });
        let passed_over = |class: &Class| {
            let count = self.passed_over.get(class.index()).copied().unwrap_or(0);
            count >= MAX_PASSED_OVER && head(*class).is_some()
        };
        let due = Class::ALL.into_iter().rev().find(passed_over);
        due.and_then(|class| turn(class, true))
            .or_else(|| Class::ALL.into_iter().find_map(|class| turn(class, false)))
    }

    /// The turn was taken.
    pub(super) fn taken(&mut self, class: Class) {
        if let Some(queue) = self.by_class.get_mut(class.index()) {
            queue.pop_front();
        }
        self.went(class);
    }

    /// One of this class went: those below it that wait were passed over.
    pub(super) fn went(&mut self, class: Class) {
        for other in Class::ALL {
            let waits = self.len(other) > 0;
            if let Some(count) = self.passed_over.get_mut(other.index()) {
                if other == class {
                    *count = 0;
                } else if waits && other > class {
                    *count = count.saturating_add(1);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, ticket: u64) {
        for queue in &mut self.by_class {
            queue.retain(|waiter| waiter.ticket != ticket);
        }
    }
}
