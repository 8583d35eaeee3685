//! How a chosen past range of a provider's list is walked. No IO.
//!
//! Unlike a sweep, a backfill has a beginning and an end in time, and keeps nothing for a next one. What lies outside of
//! the range is not taken, whatever the provider lists; what is read twice is known again by the dedupe.

use crate::sweeps::place::{Seen, earlier};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use weir_connector_sdk::{ListOrder, Page, Recover, RecoverCursor, Webhook};
use weir_workflow_engine::Timestamp;

/// Pages of one backfill: at a hundred items each, a million.
///
/// Limit: pages of one backfill | it ends as `failed` and says where it stood; begin another one for the rest | `a_list_without_an_end_ends_a_backfill`
pub const MAX_BACKFILL_PAGES: u32 = 10_000;
/// A provider may compare whole seconds: an end that is moved includes the second in which it lies.
const SECOND: Duration = Duration::from_secs(1);

/// Events that happened at `since` or later and before `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
}

impl Range {
    pub(crate) fn holds(self, time: Timestamp) -> bool {
        self.since <= time && time < self.until
    }

    /// How much of it is read, in percent, when a walk in this order came to `reached`.
    pub(crate) fn percent(self, order: ListOrder, reached: Option<Timestamp>) -> u8 {
        let ms = |from: Timestamp, to: Timestamp| to.as_unix_ms().saturating_sub(from.as_unix_ms()).max(0);
        let whole = ms(self.since, self.until).max(1);
        let read = match (order, reached) {
            (_, None) => 0,
            (ListOrder::NewestFirst, Some(reached)) => ms(reached, self.until),
            (ListOrder::OldestFirst, Some(reached)) => ms(self.since, reached),
        };
        u8::try_from((i128::from(read) * 100 / i128::from(whole)).min(100)).unwrap_or(100)
    }
}

/// Why a connector's list cannot be read for a chosen range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRange {
    /// A link says what changed since, and nothing else.
    #[error(
        "the provider's list goes on from a link that says what changed since (`cursor: delta`), and cannot begin at a time"
    )]
    Delta,
    /// A position in a journal.
    #[error("the provider's list goes on from a position (`cursor: journal`), and cannot begin at a time")]
    Journal,
    /// A token, and no time to begin at.
    #[error(
        "the provider's list goes on from a token, and `recover.with` does not say `since`: it cannot begin at a time"
    )]
    TokenWithoutTime,
    /// Its items have no time.
    #[error(
        "items of the provider's list do not say when they happened (`identify.time`), so none can be told to lie in the range"
    )]
    NoTimes,
}

/// How the list goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By the operation's own paging.
    Pages,
    /// By the id of the newest item.
    Ids,
    /// By the token of the last answer.
    Tokens,
    /// By the number of items before it.
    Offsets,
}

fn way(recover: &Recover) -> Result<Way, NoRange> {
    match recover.cursor {
        RecoverCursor::Delta => Err(NoRange::Delta),
        RecoverCursor::Journal => Err(NoRange::Journal),
        RecoverCursor::Token if !recover.takes_since() => Err(NoRange::TokenWithoutTime),
        RecoverCursor::Token => Ok(Way::Tokens),
        RecoverCursor::Offset => Ok(Way::Offsets),
        // The page behind the newest id is empty where the newest come first: such a list is walked back from its start.
        RecoverCursor::Id if recover.order == ListOrder::OldestFirst && recover.takes_cursor() => Ok(Way::Ids),
        RecoverCursor::Id | RecoverCursor::Time => Ok(Way::Pages),
    }
}

/// Whether the list can be read for a chosen range.
pub(crate) fn has_ranges(webhook: &Webhook, recover: &Recover) -> Result<(), NoRange> {
    way(recover)?;
    match webhook.lists_times() {
        true => Ok(()),
        false => Err(NoRange::NoTimes),
    }
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) cursor: Option<String>,
    pub(crate) page: Option<Page>,
}

/// What follows a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There is another page.
    More,
    /// The range is read.
    End,
    /// The list cannot be walked.
    Broken(String),
    /// It has more pages than a backfill reads.
    TooLong,
}

/// Where the walk stands; stored after each page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Walk {
    /// The bounds that requests carry: those of the range, or closer ones where the list has no paging of its own.
    since: Timestamp,
    until: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    page: Option<Page>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// The time within the range up to which everything is read, in the order of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reached: Option<Timestamp>,
    /// Pages read so far.
    #[serde(default)]
    pages: u32,
    /// Whether it began anew and no page came since.
    #[serde(default)]
    anew: bool,
}

impl Walk {
    pub(crate) fn new(range: Range) -> Self {
        Walk {
            since: range.since,
            until: range.until,
            page: None,
            cursor: None,
            reached: None,
            pages: 0,
            anew: false,
        }
    }

    pub(crate) fn reached(&self) -> Option<Timestamp> {
        self.reached
    }

    /// The next request.
    pub(crate) fn question(&self, recover: &Recover) -> Question {
        let overlap = Duration::from_secs(recover.overlap_s);
        Question {
            since: earlier(self.since, overlap),
            until: self.until.plus(overlap),
            cursor: self.cursor.clone(),
            page: self.page.clone(),
        }
    }

    /// Begins the range anew, because the provider no longer knows the place; what was stored is known again. False:
    /// there is nothing that it could have forgotten.
    pub(crate) fn forget(&mut self, range: Range) -> bool {
        if self.anew || (self.page.is_none() && self.cursor.is_none()) {
            return false;
        }
        *self = Walk {
            reached: self.reached,
            pages: self.pages,
            anew: true,
            ..Walk::new(range)
        };
        true
    }

    /// Takes note of a page whose events are all stored.
    pub(crate) fn advance(&mut self, recover: &Recover, range: Range, seen: &Seen) -> Next {
        let way = match way(recover) {
            Ok(way) => way,
            Err(why) => return Next::Broken(why.to_string()),
        };
        self.anew = false;
        let times = || seen.items.iter().filter_map(|item| item.time);
        // Items may stand a little out of order.
        let margin = Duration::from_secs(recover.overlap_s.saturating_add(recover.settle_s));
        let within = |time: Timestamp| time.clamp(range.since, range.until);
        let is_past = match recover.order {
            ListOrder::NewestFirst => {
                let oldest = times().min().map(within);
                self.reached = oldest
                    .map(|time| self.reached.map_or(time, |known| known.min(time)))
                    .or(self.reached);
                times()
                    .max()
                    .is_some_and(|newest| newest < earlier(range.since, margin))
            }
            ListOrder::OldestFirst => {
                self.reached = self.reached.max(times().max().map(within));
                times().min().is_some_and(|oldest| oldest > range.until.plus(margin))
            }
        };
        self.pages = self.pages.saturating_add(1);
        if is_past {
            return Next::End;
        }
        let next = self.after(way, recover, seen);
        match next {
            Next::More if self.pages >= MAX_BACKFILL_PAGES => Next::TooLong,
            next => next,
        }
    }

    fn after(&mut self, way: Way, recover: &Recover, seen: &Seen) -> Next {
        match way {
            Way::Pages => self.after_page(recover, seen),
            Way::Ids => {
                let last = seen.items.last().map(|item| item.id.clone());
                if last.is_none() && seen.count > 0 && seen.more != Some(false) {
                    return Next::Broken(
                        "no item of a page is what the connector describes: there is no id to go on from".to_owned(),
                    );
                }
                self.go_on(last, seen)
            }
            Way::Tokens => self.go_on(seen.token.clone(), seen),
            Way::Offsets => {
                let before: u64 = self.cursor.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
                let after = before.saturating_add(seen.count as u64);
                self.go_on((seen.count > 0).then(|| after.to_string()), seen)
            }
        }
    }

    fn after_page(&mut self, recover: &Recover, seen: &Seen) -> Next {
        if let Some(next) = &seen.next {
            self.page = Some(next.clone());
            return Next::More;
        }
        self.page = None;
        if seen.more == Some(false) {
            return Next::End;
        }
        // A list without paging of its own is asked again from where it came to, until it comes no further.
        match (recover.order, self.reached) {
            (ListOrder::OldestFirst, Some(reached)) if recover.takes_since() && reached > self.since => {
                self.since = reached;
                Next::More
            }
            (ListOrder::NewestFirst, Some(reached))
                if seen.more == Some(true) && recover.takes_until() && reached.plus(SECOND) < self.until =>
            {
                self.until = reached.plus(SECOND);
                Next::More
            }
            _ if seen.more == Some(true) => Next::Broken(
                "the list says that there is more, and neither `page` of its operation nor a time leads there"
                    .to_owned(),
            ),
            _ => Next::End,
        }
    }

    /// One request after another, each from where the last one came to.
    fn go_on(&mut self, to: Option<String>, seen: &Seen) -> Next {
        if seen.more == Some(false) || (seen.more.is_none() && seen.count == 0) {
            return Next::End;
        }
        match to {
            None => Next::End,
            // Some lists show the item of the cursor once more: then there is nothing newer.
            Some(at) if self.cursor.as_ref() == Some(&at) => match seen.more {
                Some(true) => Next::Broken("the list says that there is more and does not move on".to_owned()),
                Some(false) | None => Next::End,
            },
            Some(at) => {
                self.cursor = Some(at);
                Next::More
            }
        }
    }
}

#[cfg(test)]
#[path = "range_tests.rs"]
mod tests;
