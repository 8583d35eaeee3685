//! The simulator's own account of every event: what the sender was told, and what the CRM really saw.
//!
//! Weir never sees it and cannot influence it. One lock guards it; the load it takes part in is thousands of entries a
//! second, not millions.

use std::sync::{Mutex, MutexGuard, PoisonError};

use weir_bench::clock::unix_ms;
use weir_bench::documents::{Deal, Ids};

use crate::arguments::Mode;

/// How the sending of one webhook ended, as far as the sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Not sent yet, or no connection was to be had: Weir cannot know it.
    Unsent,
    /// It was sent and the connection ended without an answer: Weir may have it or not.
    Silence,
    /// Any answer but 2xx: Weir says that it does not have it.
    Refused(u16),
    /// 2xx: Weir must never lose it.
    Accepted,
}

/// One event and what followed from it.
#[derive(Debug)]
pub(crate) struct Flow {
    pub answer: Answer,
    /// Requests to the CRM of which at least the head arrived.
    pub departures: u32,
    /// Requests that changed something at the CRM.
    pub effects: u32,
    /// Requests that repeated a key the CRM had seen, and so changed nothing.
    pub repeats: u32,
    /// Whether it was sent again after the restart, as providers do.
    pub redelivered: bool,
    /// Whether the CRM cut a request off.
    pub cut_off: bool,
    /// How many second events were made for it; each is sent until it is accepted.
    followers: u32,
    keys: Vec<String>,
}

/// Everything that one campaign sent and received.
#[derive(Debug)]
pub(crate) struct Book {
    pub ids: Ids,
    /// Stands in every event as the time it was made, seconds since 1970.
    pub created_s: i64,
    honours_keys: bool,
    /// Whether each event is followed by a second one about the same payment.
    pub follows: bool,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
pub(crate) struct Pages {
    pub flows: Vec<Flow>,
    pub counts: Counts,
}

/// What cannot be charged to one event.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    /// Connections of the upstreams that are open now.
    pub connections: u32,
    /// Requests that ended in the middle, or whose answer could not be written.
    pub broken: u32,
    /// CRM requests without a key although the CRM honours them.
    pub keyless: u32,
    /// CRM bodies that are not what the documents must produce.
    pub wrong_bodies: u32,
    /// Calls for ids that this campaign never made, and calls to unknown paths.
    pub foreign: u32,
}

impl Book {
    pub(crate) fn new(ids: Ids, mode: Mode) -> Self {
        Self {
            ids,
            created_s: unix_ms() / 1000,
            honours_keys: mode.honours_keys(),
            follows: mode.waits(),
            pages: Mutex::default(),
        }
    }

    /// Reads or writes the pages. Never held over a wait.
    pub(crate) fn open(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of a new event.
    pub(crate) fn take(&self) -> usize {
        let mut pages = self.open();
        pages.flows.push(Flow {
            answer: Answer::Unsent,
            departures: 0,
            effects: 0,
            repeats: 0,
            redelivered: false,
            cut_off: false,
            followers: 0,
            keys: Vec::new(),
        });
        pages.flows.len() - 1
    }

    /// Number of a second event about the payment of flow `number`, from 1.
    pub(crate) fn follow(&self, number: usize) -> u32 {
        let mut pages = self.open();
        pages.flows.get_mut(number).map_or(0, |flow| {
            flow.followers += 1;
            flow.followers
        })
    }

    /// Notes an answer; a 2xx stays one whatever a redelivery hears.
    pub(crate) fn answered(&self, number: usize, answer: Answer) {
        if let Some(flow) = self.open().flows.get_mut(number)
            && flow.answer != Answer::Accepted
        {
            flow.answer = answer;
        }
    }

    /// A request to the CRM has begun to arrive.
    pub(crate) fn departed(&self, payment_intent: &str) {
        let mut pages = self.open();
        match self.ids.flow_of(payment_intent) {
            Some(number) if number < pages.flows.len() => pages.flows[number].departures += 1,
            Some(_) | None => pages.counts.foreign += 1,
        }
    }

    /// The CRM cuts a request off.
    pub(crate) fn cut_off(&self, payment_intent: &str) {
        let Some(number) = self.ids.flow_of(payment_intent) else {
            return;
        };
        if let Some(flow) = self.open().flows.get_mut(number) {
            flow.cut_off = true;
        }
    }

    /// The CRM carries a request out.
    pub(crate) fn carried_out(&self, payment_intent: &str, body: &[u8], key: Option<&str>) {
        let Some(number) = self.ids.flow_of(payment_intent) else {
            return;
        };
        let right = serde_json::from_slice::<Deal>(body).is_ok_and(|deal| deal == Deal::expected(&self.ids, number));
        let mut pages = self.open();
        if !right {
            pages.counts.wrong_bodies += 1;
            return;
        }
        if self.honours_keys && key.is_none() {
            pages.counts.keyless += 1;
        }
        let Some(flow) = pages.flows.get_mut(number) else {
            return;
        };
        if let Some(key) = key.filter(|_| self.honours_keys) {
            if flow.keys.iter().any(|seen| seen == key) {
                flow.repeats += 1;
                return;
            }
            flow.keys.push(key.to_owned());
        }
        flow.effects += 1;
    }

    /// Whether the CRM's search finds the deal of `payment_intent`.
    pub(crate) fn finds(&self, payment_intent: &str) -> bool {
        let pages = self.open();
        self.ids
            .flow_of(payment_intent)
            .and_then(|number| pages.flows.get(number))
            .is_some_and(|flow| flow.effects > 0)
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.open().counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(honours_keys: bool, keys: &[Option<&str>]) -> (u32, u32) {
        let book = Book::new(Ids::new(1), if honours_keys { Mode::Keys } else { Mode::Blind });
        let number = book.take();
        let body = serde_json::to_vec(&Deal::expected(&book.ids, number)).unwrap();
        for key in keys {
            book.carried_out(&book.ids.payment_intent(number), &body, *key);
        }
        let pages = book.open();
        (pages.flows[number].effects, pages.flows[number].repeats)
    }

    #[test]
    fn a_key_folds_repeats_only_where_it_is_honoured() {
        assert_eq!(effects(true, &[Some("a"), Some("a")]), (1, 1));
        assert_eq!(effects(true, &[Some("a"), Some("b")]), (2, 0));
        assert_eq!(effects(true, &[None, None]), (2, 0));
        assert_eq!(effects(false, &[Some("a"), Some("a")]), (2, 0));
    }

    #[test]
    fn a_wrong_body_is_no_effect() {
        let book = Book::new(Ids::new(1), Mode::Blind);
        let number = book.take();
        book.carried_out(&book.ids.payment_intent(number), b"{}", None);
        assert_eq!(book.open().flows[number].effects, 0);
        assert_eq!(book.open().counts.wrong_bodies, 1);
    }

    #[test]
    fn an_acceptance_is_never_forgotten() {
        let book = Book::new(Ids::new(1), Mode::Blind);
        let number = book.take();
        book.answered(number, Answer::Accepted);
        book.answered(number, Answer::Silence);
        assert_eq!(book.open().flows[number].answer, Answer::Accepted);
    }
}
