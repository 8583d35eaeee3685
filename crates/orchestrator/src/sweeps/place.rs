//! Where a sweep stands in a provider's list, and how it goes on. No IO.
//!
//! Two places are kept apart: where the walk is, and what is safe to keep. The kept cursor never passes an item younger
//! than `settle`, since older ones may still appear behind it; what is read twice is known again by the dedupe.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;
use weir_connector_sdk::{ListOrder, Page, Recover, RecoverCursor};
use weir_storage::REMEMBERED_DAYS;
use weir_workflow_engine::Timestamp;

/// What is stored between two sweeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// What the next request goes on from, for the kinds that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
    /// The time of the newest settled item, by the provider's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Timestamp>,
    /// A walk that was cut: where it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) walk: Option<Walk>,
}

/// A walk over the pages of one list, by the operation's own paging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Walk {
    /// The bound that its requests carry.
    since: Timestamp,
    /// When its first page was asked for.
    began_at: Timestamp,
    /// The page to ask for next; `None`: the first.
    page: Option<Page>,
    /// The newest settled item so far.
    newest: Option<(Timestamp, String)>,
}

/// What a page held, in the list's order.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Id, time and position of each item that is an event.
    pub(crate) items: Vec<SeenItem>,
    /// Items in the page, with those that are none.
    pub(crate) count: usize,
    /// The operation's next page.
    pub(crate) next: Option<Page>,
    /// The token or delta link in the answer.
    pub(crate) token: Option<String>,
    /// What the answer says about more pages.
    pub(crate) more: Option<bool>,
}

/// One item of a page.
#[derive(Debug, Clone)]
pub(crate) struct SeenItem {
    pub(crate) id: String,
    pub(crate) time: Option<Timestamp>,
    pub(crate) position: Option<u64>,
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) since: Timestamp,
    pub(crate) cursor: Option<String>,
    pub(crate) page: Option<Page>,
}

/// What follows a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There is another page.
    More,
    /// All that the provider lists is read. Up to this moment, nothing is missing.
    End { covered_until: Timestamp },
    /// The list cannot be walked.
    Broken(String),
}

/// One sweep on its way through the list.
#[derive(Debug)]
pub(crate) struct Place {
    kept: Kept,
    began_at: Timestamp,
    /// The cursor of the walk, which may be ahead of the kept one.
    at: Option<String>,
    /// Whether an unsettled item was seen: the kept cursor stays before it.
    unsettled: bool,
    asked: BTreeSet<String>,
    /// How many items before the walk's place, for `offset`.
    offset: u64,
    /// The bound for a first request.
    floor: Timestamp,
}

impl Place {
    /// `covered_until`: from when on events are wanted; `floor`: how far back the provider lists.
    pub(crate) fn new(kept: Kept, covered_until: Timestamp, floor: Timestamp, now: Timestamp) -> Self {
        let mut kept = kept;
        // By the provider's clock from the first item on; until then by ours.
        kept.since.get_or_insert(covered_until);
        let offset = kept.cursor.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
        Place {
            at: kept.cursor.clone(),
            kept,
            began_at: now,
            unsettled: false,
            asked: BTreeSet::new(),
            offset,
            floor,
        }
    }

    /// What is to be stored.
    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Forgets a cursor that the provider no longer knows.
    pub(crate) fn forget(&mut self) {
        self.kept.cursor = None;
        self.kept.walk = None;
        self.at = None;
        self.offset = 0;
        self.unsettled = false;
        self.asked.clear();
    }

    /// Whether a request carries something that the provider may have forgotten.
    pub(crate) fn is_continued(&self) -> bool {
        self.at.is_some() || self.kept.walk.as_ref().is_some_and(|walk| walk.page.is_some())
    }

    /// The next request.
    pub(crate) fn question(&mut self, recover: &Recover) -> Question {
        let back = Duration::from_secs(recover.overlap_s.saturating_add(recover.settle_s));
        let since = self
            .kept
            .since
            .map_or(self.floor, |since| earlier(since, back).max(self.floor));
        match recover.cursor {
            RecoverCursor::Id | RecoverCursor::Token | RecoverCursor::Offset | RecoverCursor::Journal
                if self.at.is_some() || recover.cursor != RecoverCursor::Id =>
            {
                Question {
                    since,
                    cursor: self.at.clone(),
                    page: None,
                }
            }
            RecoverCursor::Delta if self.at.is_some() => {
                let page = self.kept.walk.as_ref().and_then(|walk| walk.page.clone());
                let link = self.at.clone().unwrap_or_default();
                Question {
                    since,
                    cursor: self.at.clone(),
                    page: Some(page.unwrap_or(Page {
                        number: 0,
                        items_before: 0,
                        token: link,
                        mark: None,
                    })),
                }
            }
            RecoverCursor::Id
            | RecoverCursor::Time
            | RecoverCursor::Token
            | RecoverCursor::Offset
            | RecoverCursor::Journal
            | RecoverCursor::Delta => {
                let began_at = self.began_at;
                let walk = self.kept.walk.get_or_insert(Walk {
                    since,
                    began_at,
                    page: None,
                    newest: None,
                });
                Question {
                    since: walk.since,
                    cursor: None,
                    page: walk.page.clone(),
                }
            }
        }
    }

    /// Takes note of a page whose events are all stored.
    ///
    /// What is settled is judged by the time at which the pass began, or the walk: who stored the page may have left
    /// younger items alone.
    pub(crate) fn advance(&mut self, recover: &Recover, seen: &Seen) -> Next {
        let settled_before = earlier(self.began_at, Duration::from_secs(recover.settle_s));
        let is_settled = |item: &SeenItem| item.time.is_none_or(|time| time <= settled_before);
        let walks = recover.cursor == RecoverCursor::Time
            || recover.cursor == RecoverCursor::Delta
            || (recover.cursor == RecoverCursor::Id && self.at.is_none());
        if walks {
            return self.walk_on(recover, seen);
        }
        if let Some(newest) = seen
            .items
            .iter()
            .filter(|item| is_settled(item))
            .filter_map(|item| item.time)
            .max()
        {
            self.kept.since = self.kept.since.max(Some(newest));
        }
        let ordered: Vec<&SeenItem> = match recover.order {
            ListOrder::OldestFirst => seen.items.iter().collect(),
            ListOrder::NewestFirst => seen.items.iter().rev().collect(),
        };
        let settled = ordered.iter().take_while(|item| is_settled(item)).count();
        let (walk, keep) = match recover.cursor {
            RecoverCursor::Id => (
                ordered.last().map(|item| item.id.clone()),
                settled
                    .checked_sub(1)
                    .and_then(|last| ordered.get(last))
                    .map(|item| item.id.clone()),
            ),
            RecoverCursor::Journal => {
                let place = |item: &&SeenItem| item.position;
                (
                    ordered.iter().filter_map(place).max().map(|place| place.to_string()),
                    ordered
                        .iter()
                        .take(settled)
                        .filter_map(place)
                        .max()
                        .map(|place| place.to_string()),
                )
            }
            RecoverCursor::Offset => {
                let before = self.offset;
                self.offset = before.saturating_add(seen.count as u64);
                let all = (settled == ordered.len()).then_some(self.offset);
                let part = all.unwrap_or_else(|| before.saturating_add(settled as u64));
                (
                    (seen.count > 0).then(|| self.offset.to_string()),
                    (part > before).then(|| part.to_string()),
                )
            }
            // The provider keeps the order itself.
            RecoverCursor::Token | RecoverCursor::Time | RecoverCursor::Delta => {
                (seen.token.clone(), seen.token.clone())
            }
        };
        if !self.unsettled
            && let Some(keep) = keep
        {
            self.kept.cursor = Some(keep);
        }
        self.unsettled |= settled < ordered.len();
        let ends = seen.more == Some(false) || walk.is_none() || (seen.more.is_none() && seen.count == 0);
        if ends {
            return Next::End {
                covered_until: settled_before,
            };
        }
        // Some lists show the item of the cursor once more: then there is nothing newer.
        if walk == self.at && seen.more != Some(true) {
            return Next::End {
                covered_until: settled_before,
            };
        }
        let at = walk.unwrap_or_default();
        if !self.asked.insert(at.clone()) || Some(&at) == self.at.as_ref() {
            return Next::Broken(format!(
                "the list goes in a circle: after `{}` it begins anew",
                short(&at)
            ));
        }
        self.at = Some(at);
        Next::More
    }

    fn walk_on(&mut self, recover: &Recover, seen: &Seen) -> Next {
        let began_at = self.began_at;
        let since = self.floor;
        let walk = self.kept.walk.get_or_insert(Walk {
            since,
            began_at,
            page: None,
            newest: None,
        });
        let settled_before = earlier(walk.began_at, Duration::from_secs(recover.settle_s));
        for item in &seen.items {
            let Some(time) = item.time.filter(|time| *time <= settled_before) else {
                continue;
            };
            // Among items of one moment, the newest stands where the list puts it.
            let is_newer = walk.newest.as_ref().is_none_or(|(newest, _)| match recover.order {
                ListOrder::NewestFirst => time > *newest,
                ListOrder::OldestFirst => time >= *newest,
            });
            if is_newer {
                walk.newest = Some((time, item.id.clone()));
            }
        }
        if let Some(next) = &seen.next {
            walk.page = Some(next.clone());
            return Next::More;
        }
        let done = self.kept.walk.take();
        let newest = done.and_then(|walk| walk.newest);
        match recover.cursor {
            RecoverCursor::Id => self.kept.cursor = newest.as_ref().map(|(_, id)| id.clone()),
            RecoverCursor::Delta => match &seen.token {
                Some(link) => self.kept.cursor = Some(link.clone()),
                None => {
                    return Next::Broken(
                        "the last page holds no link for the next sweep where `next` looks".to_owned(),
                    );
                }
            },
            RecoverCursor::Time | RecoverCursor::Token | RecoverCursor::Offset | RecoverCursor::Journal => {}
        }
        if let Some((time, _)) = newest {
            self.kept.since = self.kept.since.max(Some(time));
        }
        Next::End {
            covered_until: settled_before,
        }
    }
}

/// How long an event that was received is remembered.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(REMEMBERED_DAYS as u64 * 24 * 3600);

/// How far back a sweep looks: as far as the provider lists (`reach_s` in seconds, 0 without bound), but never to where
/// an event that was received could be taken for a new one.
pub(crate) fn floor(reach_s: u64, began_at: Timestamp) -> Timestamp {
    let remembered = earlier(began_at, REMEMBERED);
    match reach_s {
        0 => remembered,
        reach_s => earlier(began_at, Duration::from_secs(reach_s)).max(remembered),
    }
}

pub(crate) fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_ms(time.as_unix_ms().saturating_sub(by_ms))
}

fn short(text: &str) -> &str {
    let end = text.char_indices().nth(80).map_or(text.len(), |(place, _)| place);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
