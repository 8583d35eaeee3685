//! Where a key is remembered, and how far back a repeat of it is looked for.
//!
//! Keys stand behind a day number, so that new ones go to one end of the tree however many there are: a random key
//! alone would cost three times as much at ten million rows. A repeat on another day must be caught all the same:
//!
//! 1. A key with a stable time of its own (`anchored_at`, at most [`ANCHOR_DAYS`] old) stands on that day. Every
//!    repeat carries the same time and meets it there, whenever it comes.
//! 2. A key without one, or with one that is older or lies in the future, stands on the day it was received, and
//!    is looked for on every day that is remembered.
//! 3. A time within [`MIDNIGHT_MARGIN_MS`] of midnight stands on both days. So two doors that round the same time
//!    differently still meet, and so do two nodes that receive the same key on both sides of midnight at once.
//! 4. A day is forgotten after [`DEDUPE_DAYS`]; since rule 1 never writes to a day older than [`ANCHOR_DAYS`],
//!    each key is remembered for at least the difference after it was received.

use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};
use weir_workflow_engine::{Timestamp, WorkspaceId};

use crate::fact::Dedupe;

/// How many days a key is remembered: longer than any provider retries (15 days are the most known) and than a
/// sweep reaches back (30 days).
pub const DEDUPE_DAYS: u32 = 45;
/// How old an event's own time may be to name the day.
const ANCHOR_DAYS: u32 = 7;
/// How many days a key is remembered at least, counted from when it was received. Whoever reads lists of older events
/// would take known ones for new.
pub const REMEMBERED_DAYS: u32 = DEDUPE_DAYS - ANCHOR_DAYS;
/// How close to midnight both days count: clocks and roundings differ by less.
const MIDNIGHT_MARGIN_MS: i64 = 5 * 60_000;
const DAY_MS: i64 = 24 * 60 * 60_000;

/// First half of a SHA-256: two different keys never meet by chance.
pub(crate) type KeyHash = [u8; 16];

/// A key, ready to be asked for and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DedupeKey {
    pub(crate) hash: KeyHash,
    /// The days it stands on: one, or two around midnight.
    pub(crate) guards: RangeInclusive<i32>,
    /// The last day to look back from, for keys that may stand on any day.
    pub(crate) look_back_from: Option<i32>,
}

impl DedupeKey {
    pub(crate) fn new(workspace: WorkspaceId, dedupe: &Dedupe, received_at: Timestamp) -> Self {
        let received = received_at.as_unix_ms();
        let anchor = dedupe
            .anchored_at
            .map(Timestamp::as_unix_ms)
            .filter(|anchor| (received - i64::from(ANCHOR_DAYS) * DAY_MS..=received + DAY_MS).contains(anchor));
        let at = anchor.unwrap_or(received);
        let guards = day_of(at.saturating_sub(MIDNIGHT_MARGIN_MS))..=day_of(at.saturating_add(MIDNIGHT_MARGIN_MS));
        // An anchor close to the limit may have been beyond it in an earlier or later delivery: look everywhere.
        let firm =
            anchor.is_some_and(|anchor| anchor <= received && received - anchor < i64::from(ANCHOR_DAYS - 1) * DAY_MS);
        let look_back_from = (!firm).then_some(*guards.end());
        Self {
            hash: hash(workspace, dedupe),
            guards,
            look_back_from,
        }
    }

    /// The days to look at before writing, given the oldest day in the table. `None` when the insert alone can tell.
    pub(crate) fn days_to_ask(&self, oldest: i32) -> Option<RangeInclusive<i32>> {
        let one_guard = self.guards.start() == self.guards.end();
        let Some(last) = self.look_back_from else {
            return (!one_guard).then(|| self.guards.clone());
        };
        let kept = last.saturating_sub(i32::try_from(DEDUPE_DAYS).unwrap_or(i32::MAX));
        // Anchors may lie a day ahead.
        Some(oldest.max(kept).min(*self.guards.start())..=last.saturating_add(1))
    }
}

/// Days since 1970 in UTC.
pub(crate) fn day_of(unix_ms: i64) -> i32 {
    let day = unix_ms.div_euclid(DAY_MS);
    i32::try_from(day).unwrap_or(if day < 0 { i32::MIN } else { i32::MAX })
}

/// The first day that is still remembered.
pub(crate) fn first_day_kept(now: Timestamp) -> i32 {
    day_of(now.as_unix_ms()).saturating_sub(i32::try_from(DEDUPE_DAYS).unwrap_or(i32::MAX))
}

fn hash(workspace: WorkspaceId, dedupe: &Dedupe) -> KeyHash {
    let mut hash = Sha256::new();
    hash.update(workspace.as_raw().to_be_bytes());
    hash.update(u64::try_from(dedupe.scope.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(&dedupe.scope);
    hash.update(&dedupe.key);
    let mut short = KeyHash::default();
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 20_000 * DAY_MS + DAY_MS / 2;

    fn key(received_ms: i64, anchor_ms: Option<i64>) -> DedupeKey {
        let dedupe = Dedupe {
            scope: "ep".into(),
            key: "k".into(),
            anchored_at: anchor_ms.map(Timestamp::from_unix_ms),
        };
        DedupeKey::new(WorkspaceId::from_raw(1), &dedupe, Timestamp::from_unix_ms(received_ms))
    }

    #[test]
    fn days_by_rule() {
        let check = |received: i64, anchor: Option<i64>, guards: RangeInclusive<i32>, look_back_from: Option<i32>| {
            let key = key(received, anchor);
            assert_eq!(
                (key.guards, key.look_back_from),
                (guards, look_back_from),
                "{received} {anchor:?}"
            );
        };
        // With a time of its own: that day, whenever it arrives.
        check(NOON, Some(NOON - 1000), 20_000..=20_000, None);
        check(NOON + 3 * DAY_MS, Some(NOON - 1000), 20_000..=20_000, None);
        // Around midnight: both days.
        check(NOON, Some(20_000 * DAY_MS + 1000), 19_999..=20_000, None);
        check(20_001 * DAY_MS - 1000, None, 20_000..=20_001, Some(20_001));
        // Without one, too old a one, one from the future: the day of arrival, and a look at every other day.
        check(NOON, None, 20_000..=20_000, Some(20_000));
        check(NOON, Some(NOON - 8 * DAY_MS), 20_000..=20_000, Some(20_000));
        check(NOON, Some(NOON + 2 * DAY_MS), 20_000..=20_000, Some(20_000));
        // Close to the age limit the day is the anchor's, but the others are asked too.
        check(NOON, Some(NOON - 6 * DAY_MS - 1), 19_994..=19_994, Some(19_994));
    }

    #[test]
    fn days_asked_before_the_insert() {
        assert!(
            key(NOON, Some(NOON)).days_to_ask(19_900).is_none(),
            "the insert itself asks"
        );
        assert_eq!(
            key(NOON, Some(20_000 * DAY_MS)).days_to_ask(19_900),
            Some(19_999..=20_000)
        );
        assert_eq!(key(NOON, None).days_to_ask(19_990), Some(19_990..=20_001));
        assert_eq!(
            key(NOON, None).days_to_ask(19_900),
            Some(19_955..=20_001),
            "no further than is remembered"
        );
        assert_eq!(
            key(NOON, None).days_to_ask(i32::MAX),
            Some(20_000..=20_001),
            "an empty table"
        );
    }

    #[test]
    fn scope_and_key_do_not_run_into_each_other() {
        let of = |workspace, scope: &str, key: &str| {
            hash(
                WorkspaceId::from_raw(workspace),
                &Dedupe {
                    scope: scope.into(),
                    key: key.into(),
                    anchored_at: None,
                },
            )
        };
        let all = [of(1, "a", "bc"), of(1, "ab", "c"), of(2, "a", "bc"), of(1, "a", "bd")];
        for (n, one) in all.iter().enumerate() {
            assert!(!all[n + 1..].contains(one));
        }
    }
}
