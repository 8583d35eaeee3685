//! One row of the journal as bytes: what is written to disk, with the version of its format.

use serde::{Deserialize, Serialize};

use super::Entry;
use crate::result::HeldBy;
use crate::time::Timestamp;

/// The newest version of the format; [`decode`] reads it and all before it.
///
/// 2 to 5 have more kinds of entries than the one before, 6 has calls that a stop of the server put off, 7 those that wait for a credential. [`encode`] writes the oldest from 3 on that has the entries
/// at hand, so that servers of two releases can share runs that need nothing new.
pub const VERSION: u32 = 7;

/// What [`encode`] writes of entries that need nothing newer.
const PLAIN_VERSION: u32 = 3;

/// Bytes that are not a journal row.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The bytes are damaged or not from here.
    #[error("a journal row of {size_bytes} bytes cannot be read")]
    Damaged {
        /// Size of the row.
        size_bytes: usize,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The row was written by a newer release.
    #[error("a journal row has format {found}, this release reads up to {VERSION}")]
    Newer {
        /// The version in the row.
        found: u32,
    },
}

#[derive(Serialize)]
struct RowOut<'a> {
    v: u32,
    at: i64,
    e: &'a [Entry],
}

#[derive(Deserialize)]
struct RowIn {
    at: i64,
    e: Vec<Entry>,
}

#[derive(Deserialize)]
struct RowVersion {
    v: u32,
}

/// One journal row: the entries of one commit, decided up to `at`.
pub fn encode(entries: &[Entry], at: Timestamp) -> Vec<u8> {
    let needs = |entry: &Entry| match entry {
        Entry::Held(held) => match held.by {
            HeldBy::Token | HeldBy::Reauth => VERSION,
            HeldBy::Stop => 6,
            HeldBy::Budget | HeldBy::Breaker => 5,
        },
        Entry::Hurried(_) => 5,
        Entry::Limited(_) | Entry::RanOver(_) => 4,
        _ => PLAIN_VERSION,
    };
    serde_json::to_vec(&RowOut {
        v: entries.iter().map(needs).max().unwrap_or(PLAIN_VERSION),
        at: at.as_unix_ms(),
        e: entries,
    })
    .expect("entries have text keys only and documents hold valid JSON")
}

/// Reads one journal row.
///
/// # Errors
/// [`JournalError::Newer`] for a row of a later release, [`JournalError::Damaged`] for anything else that is not a row.
pub fn decode(bytes: &[u8]) -> Result<(Timestamp, Vec<Entry>), JournalError> {
    let damaged = |source| JournalError::Damaged {
        size_bytes: bytes.len(),
        source,
    };
    // Rows of this release are read in one pass.
    let is_known = bytes
        .strip_prefix(b"{\"v\":")
        .is_some_and(|rest| matches!(rest, [b'1'..=b'7', b',', ..]));
    if !is_known {
        let RowVersion { v } = serde_json::from_slice(bytes).map_err(damaged)?;
        if v > VERSION {
            return Err(JournalError::Newer { found: v });
        }
    }
    let row: RowIn = serde_json::from_slice(bytes).map_err(damaged)?;
    Ok((Timestamp::from_unix_ms(row.at), row.e))
}
