//! Idempotency keys as a provider keeps them: the first answer is stored and given again.
//!
//! The rules are Stripe's (`docs.stripe.com/api/idempotent_requests`): the same key with another request is
//! refused with 400, with a request still in progress 409; an answer is stored once execution began, so a
//! rejected or rate-limited request may be tried again with its key. Keys are forgotten after the window.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// How long a key is remembered: 24 hours, in milliseconds.
pub const KEY_WINDOW_MS: i64 = 24 * 60 * 60 * 1000;

/// Keys kept at the same time; when full, keys past their window are dropped first, then all.
const KEYS_MAX: usize = 1_000_000;

/// The stored answer of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredAnswer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    /// Business identity of the effect that the answer reports.
    pub(crate) identity: Option<String>,
}

/// What a key says about a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyVerdict {
    /// Not seen: carry the request out, then [`IdempotencyKeys::finish`] or [`IdempotencyKeys::release`].
    New,
    /// Seen with the same request: give this answer again.
    Replay(StoredAnswer),
    /// Seen with another request.
    Mismatch,
    /// The first request with this key is still being carried out.
    InProgress,
}

#[derive(Default)]
pub(crate) struct IdempotencyKeys {
    keys: Mutex<HashMap<String, Key>>,
}

struct Key {
    at_unix_ms: i64,
    /// Digest of method, path and body.
    fingerprint: String,
    answer: Option<StoredAnswer>,
}

impl IdempotencyKeys {
    /// Asks for a key and reserves it when it is new.
    pub(crate) fn begin(&self, key: &str, fingerprint: String, now_unix_ms: i64) -> KeyVerdict {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = keys.get(key)
            && now_unix_ms - seen.at_unix_ms < KEY_WINDOW_MS
        {
            if seen.fingerprint != fingerprint {
                return KeyVerdict::Mismatch;
            }
            return seen.answer.clone().map_or(KeyVerdict::InProgress, KeyVerdict::Replay);
        }
        if keys.len() >= KEYS_MAX {
            keys.retain(|_, key| now_unix_ms - key.at_unix_ms < KEY_WINDOW_MS);
            if keys.len() >= KEYS_MAX {
                keys.clear();
            }
        }
        keys.insert(
            key.to_owned(),
            Key {
                at_unix_ms: now_unix_ms,
                fingerprint,
                answer: None,
            },
        );
        KeyVerdict::New
    }

    /// Stores the answer of a reserved key.
    pub(crate) fn finish(&self, key: &str, answer: StoredAnswer) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reserved) = keys.get_mut(key) {
            reserved.answer = Some(answer);
        }
    }

    /// Gives a reserved key back: the request was not carried out.
    pub(crate) fn release(&self, key: &str) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Forgets all keys.
    pub(crate) fn clear(&self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_refuses_and_forgets() {
        let keys = IdempotencyKeys::default();
        let answer = StoredAnswer {
            status: 200,
            body: Bytes::from_static(b"{}"),
            identity: None,
        };
        assert_eq!(keys.begin("k", "a".to_owned(), 0), KeyVerdict::New);
        assert_eq!(keys.begin("k", "a".to_owned(), 1), KeyVerdict::InProgress);
        keys.finish("k", answer.clone());
        assert_eq!(keys.begin("k", "a".to_owned(), 2), KeyVerdict::Replay(answer));
        assert_eq!(keys.begin("k", "b".to_owned(), 3), KeyVerdict::Mismatch);
        assert_eq!(keys.begin("k", "b".to_owned(), KEY_WINDOW_MS), KeyVerdict::New);
        keys.release("k");
        assert_eq!(keys.begin("k", "a".to_owned(), KEY_WINDOW_MS), KeyVerdict::New);
    }
}
