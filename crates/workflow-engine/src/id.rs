//! Public identifiers: a visible prefix and 13 Crockford characters over an `i64`.
//!
//! An id sorts by the time it was made. No id is made from chance, and none decides an effect key: ids are local
//! to one database, keys are not.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::time::Timestamp;

/// Crockford's base 32 alphabet, lower case: without i, l, o and u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 13 characters carry 65 bits, enough for the 64 of the number.
const DIGITS: usize = 13;
/// 2024-01-01T00:00:00Z: 41 bits of milliseconds from here last until 2093.
const EPOCH_MS: i64 = 1_704_067_200_000;
const SLOT_BITS: u32 = 10;
const COUNTER_BITS: u32 = 12;
/// One tick of the time part of an id.
const TICK: i64 = 1 << (SLOT_BITS + COUNTER_BITS);
const COUNTER_MASK: i64 = (1 << COUNTER_BITS) - 1;
/// Node slots are numbered from 0 up to this, exclusive.
pub const NODE_SLOTS: u16 = 1 << SLOT_BITS;

/// A text that is not an id of the wanted kind.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text does not begin with the prefix of this kind of id.
    #[error("{text:?} is not an id that begins with {expected}")]
    Prefix {
        /// The text, cut to 64 characters.
        text: String,
        /// The prefix that was wanted, with its underscore.
        expected: &'static str,
    },
    /// What follows the prefix is not 13 Crockford characters of a positive number.
    #[error("{text:?} needs 13 Crockford characters after {expected}")]
    Digits {
        /// The text, cut to 64 characters.
        text: String,
        /// The prefix of the kind of id.
        expected: &'static str,
    },
}

fn print(prefix: &str, raw: i64, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let bits = u64::from_ne_bytes(raw.to_ne_bytes());
    formatter.write_str(prefix)?;
    for place in (0..DIGITS).rev() {
        let digit = usize::try_from((bits >> (place * 5)) & 31).expect("five bits fit into a usize");
        fmt::Write::write_char(formatter, char::from(ALPHABET[digit]))?;
    }
    Ok(())
}

fn read(text: &str, expected: &'static str) -> Result<i64, IdError> {
    let cut = || text.chars().take(64).collect::<String>();
    let head = text.get(..expected.len());
    let fits = head.is_some_and(|head| head.eq_ignore_ascii_case(expected));
    let Some(digits) = text.get(expected.len()..).filter(|_| fits) else {
        return Err(IdError::Prefix { text: cut(), expected });
    };
    if digits.len() != DIGITS {
        return Err(IdError::Digits { text: cut(), expected });
    }
    let mut number: u128 = 0;
    for byte in digits.bytes() {
        let Some(digit) = ALPHABET.iter().position(|known| *known == byte.to_ascii_lowercase()) else {
            return Err(IdError::Digits { text: cut(), expected });
        };
        number = number << 5 | u128::try_from(digit).expect("a position in the alphabet is below 32");
    }
    match i64::try_from(number) {
        Ok(raw) => Ok(raw),
        Err(_) => Err(IdError::Digits { text: cut(), expected }),
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(i64);

        impl $name {
            /// What the public form begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The id with this number; numbers come from an [`IdGenerator`] or from storage.
            pub const fn from_raw(raw: i64) -> Self {
                Self(raw)
            }

            /// The number inside, as storage keeps it.
            pub const fn as_raw(self) -> i64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                print(Self::PREFIX, self.0, formatter)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                read(text, Self::PREFIX).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A workspace: the tenant.
    WorkspaceId = "ws_";
    /// A connection: one account at a provider.
    ConnectionId = "conn_";
    /// An endpoint: an ingest URL with its verification.
    EndpointId = "ep_";
    /// A workflow over all its versions.
    WorkflowId = "wf_";
    /// One version of a workflow; immutable once published.
    VersionId = "wfv_";
    /// An event.
    EventId = "evt_";
    /// A run.
    RunId = "run_";
    /// An API token.
    TokenId = "tok_";
    /// A refused request.
    RefusalId = "ref_";
    /// An outgoing event.
    OutgoingId = "out_";
    /// An operation on many runs.
    BulkId = "bulk_";
    /// A backfill of an endpoint.
    BackfillId = "fill_";
    /// An entry of the audit trail.
    AuditId = "aud_";
}

impl RunId {
    /// When it was made, by the clock of the node that made it.
    pub const fn made_at(self) -> Timestamp {
        made_at(self.0)
    }
}

impl EndpointId {
    /// When it was made, by the clock of the node that made it.
    pub const fn made_at(self) -> Timestamp {
        made_at(self.0)
    }
}

impl EventId {
    /// The lowest id that an event of this time or later has, by the clock of the node that takes it.
    pub fn first_at(time: Timestamp) -> Self {
        Self(time.as_unix_ms().saturating_sub(EPOCH_MS).max(0).saturating_mul(TICK))
    }
}

const fn made_at(raw: i64) -> Timestamp {
    Timestamp::from_unix_ms(raw / TICK + EPOCH_MS)
}

/// Makes raw ids: 41 bits of milliseconds since 2024, 10 bits of node slot, 12 bits of counter.
///
/// Ids of one generator rise strictly, also when the clock steps back: then the last time is kept and the counter
/// runs on (into the next millisecond when it is full).
#[derive(Debug)]
pub struct IdGenerator {
    slot: i64,
    last: AtomicI64,
}

impl IdGenerator {
    /// A generator for the node in `node_slot`, which has never given out an id above `high_water`.
    ///
    /// `node_slot` must be below [`NODE_SLOTS`]; higher bits are cut off. `high_water` is the largest raw id that
    /// storage has seen from this slot, 0 for none.
    pub fn new(node_slot: u16, high_water: i64) -> Self {
        Self {
            slot: i64::from(node_slot % NODE_SLOTS) << COUNTER_BITS,
            last: AtomicI64::new(high_water.max(0)),
        }
    }

    /// The next raw id, larger than all before it.
    pub fn next_raw(&self, now: Timestamp) -> i64 {
        let tick = now.as_unix_ms().saturating_sub(EPOCH_MS).max(0).saturating_mul(TICK);
        let step = |last: i64| {
            let fresh = tick | self.slot;
            if fresh > last {
                return Some(fresh);
            }
            let same_slot = last & ((TICK - 1) ^ COUNTER_MASK) == self.slot;
            let room = last & COUNTER_MASK < COUNTER_MASK;
            Some(if same_slot && room {
                last + 1
            } else {
                ((last / TICK + 1) * TICK) | self.slot
            })
        };
        match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(last) => step(last).unwrap_or(last),
            Err(last) => last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_from_a_time_on_has_at_least_the_first_id_of_it() {
        let time = Timestamp::from_unix_ms(1_790_000_000_123);
        let first = EventId::first_at(time);
        let next = |slot: u16, time: Timestamp| EventId::from_raw(IdGenerator::new(slot, 0).next_raw(time));
        let before = Timestamp::from_unix_ms(time.as_unix_ms() - 1);
        assert!(next(0, time) >= first && next(NODE_SLOTS - 1, before) < first);
        assert_eq!(EventId::first_at(Timestamp::from_unix_ms(0)), EventId::from_raw(0));
    }

    #[test]
    fn ids_print_and_read_back() {
        let id = RunId::from_raw(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string(), "run_028t5cy4tqkff");
        assert_eq!("RUN_028T5CY4TQKFF".parse::<RunId>().unwrap(), id);
        assert_eq!(
            RunId::from_raw(i64::MAX).to_string().parse::<RunId>().unwrap(),
            RunId::from_raw(i64::MAX)
        );
        let wrong_kind = id.to_string().parse::<EventId>().unwrap_err();
        assert_eq!(
            wrong_kind.to_string(),
            "\"run_028t5cy4tqkff\" is not an id that begins with evt_"
        );
        assert!(matches!(
            "run_028t5cy4tqkfu".parse::<RunId>(),
            Err(IdError::Digits { .. })
        ));
        assert!(matches!(
            "run_zzzzzzzzzzzzz".parse::<RunId>(),
            Err(IdError::Digits { .. })
        ));
    }

    #[test]
    fn generated_ids_rise_even_when_the_clock_steps_back() {
        let ids = IdGenerator::new(7, 0);
        let mut last = 0;
        for round in 0..20_000_i64 {
            let now = Timestamp::from_unix_ms(EPOCH_MS + 1_000_000 - round % 50);
            let next = ids.next_raw(now);
            assert!(next > last, "{next} after {last}");
            assert_eq!((next >> COUNTER_BITS) & 1023, 7);
            assert!(RunId::from_raw(next).made_at() >= now);
            last = next;
        }
        let after_restart = IdGenerator::new(9, last);
        assert!(after_restart.next_raw(Timestamp::from_unix_ms(EPOCH_MS)) > last);
    }
}
