//! Answers that are kept so that the provider can be asked whether they still hold (RFC 9110 §13).
//!
//! A kept answer is never used by itself: only the provider's own 304 brings it back, so what a read gives is as fresh as
//! without it, and costs the provider's allowance nothing where such requests are free. It lives in memory alone, within
//! one bound for the whole process, and belongs to one connection object: other settings or another credential never
//! meet it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use weir_connector_sdk::{HttpRequest, HttpResponse};

use crate::connection::{Connection, Identity};

/// Bytes of all kept answers together. What was not used for the longest time goes first.
const MAX_ANSWERS_BYTES: usize = 16 * 1024 * 1024;

/// Largest answer that is kept, bytes: single objects, not lists of thousands.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// What an entry takes beside its texts, roughly, bytes.
const ENTRY_BYTES: usize = 512;

/// How much older than its answer a modification time has to be, seconds. It counts in seconds, so that of two changes
/// close together the second could not be seen.
const SETTLED_S: i64 = 60;

const IF_NONE_MATCH: &str = "if-none-match";
const IF_MODIFIED_SINCE: &str = "if-modified-since";

/// Whether a header makes a request conditional.
pub(super) fn is_condition(name: &str) -> bool {
    name.eq_ignore_ascii_case(IF_NONE_MATCH) || name.eq_ignore_ascii_case(IF_MODIFIED_SINCE)
}

/// Whose answer to what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    connection: Identity,
    /// Method, URL and headers, without credentials.
    request: String,
}

/// An answer with what it can be asked for again.
#[derive(Debug)]
pub(super) struct Kept {
    validator: Validator,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Validator {
    Tag(String),
    ModifiedAt(String),
}

impl Validator {
    /// The validator of an answer that may be kept.
    fn of(response: &HttpResponse) -> Option<Self> {
        let is_secret = response
            .header("cache-control")
            .is_some_and(|text| text.to_ascii_lowercase().contains("no-store"));
        if response.status != 200 || is_secret {
            return None;
        }
        if let Some(tag) = response.header("etag") {
            return Some(Self::Tag(tag.to_owned()));
        }
        let date = |name: &str| chrono::DateTime::parse_from_rfc2822(response.header(name)?.trim()).ok();
        let (modified_at, answered_at) = (date("last-modified")?, date("date")?);
        let age_s = answered_at.signed_duration_since(modified_at).num_seconds();
        (age_s >= SETTLED_S).then(|| Self::ModifiedAt(response.header("last-modified").unwrap_or_default().to_owned()))
    }
}

/// The kept answers of a process.
#[derive(Debug, Default)]
pub(super) struct KeptAnswers {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Key, (u64, Arc<Kept>)>,
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
}

/// A question whose answer may be "not changed".
#[derive(Debug)]
pub(super) struct Question {
    key: Key,
    kept: Option<Arc<Kept>>,
}

impl KeptAnswers {
    /// Makes a request conditional when its answer is kept. `None` for requests whose answers are never kept.
    pub(super) fn ask(&self, connection: &Connection, request: &mut HttpRequest) -> Option<Question> {
        let is_own = request.header(IF_NONE_MATCH).is_some() || request.header(IF_MODIFIED_SINCE).is_some();
        if request.method != "GET" || request.body.is_some() || is_own {
            return None;
        }
        let mut text = request.url.clone();
        for (name, value) in &request.headers {
            text.push('\n');
            text.push_str(name);
            text.push(':');
            text.push_str(value);
        }
        let key = Key {
            connection: connection.identity.clone(),
            request: text,
        };
        let kept = self.lock().used(&key);
        match kept.as_ref().map(|kept| &kept.validator) {
            Some(Validator::Tag(tag)) => request.set_header(IF_NONE_MATCH, tag.clone()),
            Some(Validator::ModifiedAt(date)) => request.set_header(IF_MODIFIED_SINCE, date.clone()),
            None => {}
        }
        Some(Question { key, kept })
    }

    /// The answer to a question: the kept one when the provider says that it still holds. `true`: it did.
    pub(super) fn answer(&self, question: Question, response: HttpResponse) -> (HttpResponse, bool) {
        let Question { key, kept } = question;
        match kept {
            Some(kept) if response.status == 304 => {
                let held = HttpResponse {
                    status: 200,
                    headers: freshened(&kept.headers, response.headers),
                    body: kept.body.clone(),
                };
                return (held, true);
            }
            Some(_) | None => {}
        }
        // A server that is busy, or wants another token, says nothing about the object.
        if !matches!(response.status, 200..=299 | 404 | 410) {
            return (response, false);
        }
        let validator = Validator::of(&response).filter(|_| response.body.len() <= MAX_ANSWER_BYTES);
        let mut entries = self.lock();
        entries.forget(&key);
        if let Some(validator) = validator {
            let kept = Kept {
                validator,
                headers: response.headers.clone(),
                body: response.body.clone(),
            };
            entries.keep(key, Arc::new(kept));
        }
        drop(entries);
        (response, false)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The headers of a kept answer with those that its 304 states anew in their place (RFC 9111 §3.2), except what is told
/// of the body: a 304 has none.
fn freshened(kept: &[(String, String)], stated: Vec<(String, String)>) -> Vec<(String, String)> {
    let is_of_body = |name: &str| {
        name.get(..8)
            .is_some_and(|begin| begin.eq_ignore_ascii_case("content-"))
    };
    let stated: Vec<(String, String)> = stated.into_iter().filter(|(name, _)| !is_of_body(name)).collect();
    let is_stated = |name: &str| stated.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let mut headers: Vec<(String, String)> = kept.iter().filter(|(name, _)| !is_stated(name)).cloned().collect();
    headers.extend(stated);
    headers
}

impl Entries {
    fn used(&mut self, key: &Key) -> Option<Arc<Kept>> {
        let (used, kept) = self.by_key.get_mut(key)?;
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, key.clone());
        Some(Arc::clone(kept))
    }

    fn keep(&mut self, key: Key, kept: Arc<Kept>) {
        self.uses += 1;
        self.bytes += bytes_of(&key, &kept);
        self.by_use.insert(self.uses, key.clone());
        self.by_key.insert(key, (self.uses, kept));
        while self.bytes > MAX_ANSWERS_BYTES {
            let Some((_, oldest)) = self.by_use.first_key_value() else {
                break;
            };
            let oldest = oldest.clone();
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some((used, kept)) = self.by_key.remove(key) {
            self.by_use.remove(&used);
            self.bytes -= bytes_of(key, &kept);
        }
    }
}

fn bytes_of(key: &Key, kept: &Kept) -> usize {
    let headers: usize = kept.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    ENTRY_BYTES + 2 * key.request.len() + headers + kept.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)], bytes: usize) -> HttpResponse {
        HttpResponse {
            status,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: vec![b' '; bytes],
        }
    }

    #[test]
    fn what_can_be_asked_for_again() {
        let check = |headers: &[(&str, &str)], wanted: Option<Validator>| {
            assert_eq!(Validator::of(&response(200, headers, 1)), wanted, "{headers:?}");
        };
        let old = ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT");
        check(&[("etag", "W/\"1\""), old], Some(Validator::Tag("W/\"1\"".to_owned())));
        check(&[("etag", "\"1\""), ("cache-control", "private, No-Store")], None);
        check(
            &[old, ("date", "Thu, 01 Jan 2026 00:01:00 GMT")],
            Some(Validator::ModifiedAt(old.1.to_owned())),
        );
        check(&[old, ("date", "Thu, 01 Jan 2026 00:00:59 GMT")], None);
        check(&[old], None);
        check(&[], None);
        assert_eq!(Validator::of(&response(203, &[("etag", "\"1\"")], 1)), None);
    }

    #[test]
    fn the_answers_of_a_process_have_one_bound() {
        let mut entries = Entries::default();
        let connection = Identity::default();
        let key = |number: usize| Key {
            connection: connection.clone(),
            request: number.to_string(),
        };
        let kept = || {
            Arc::new(Kept {
                validator: Validator::Tag("\"1\"".to_owned()),
                headers: Vec::new(),
                body: vec![0; MAX_ANSWER_BYTES],
            })
        };
        let count = 2 * MAX_ANSWERS_BYTES / MAX_ANSWER_BYTES;
        for number in 0..count {
            entries.keep(key(number), kept());
            assert!(entries.bytes <= MAX_ANSWERS_BYTES);
            // The first is used again and again, and stays.
            assert!(entries.used(&key(0)).is_some(), "{number}");
        }
        assert!(entries.used(&key(1)).is_none());
        assert!(entries.used(&key(count - 1)).is_some());
        assert_eq!(entries.by_key.len(), entries.by_use.len());
        for number in 0..count {
            entries.forget(&key(number));
        }
        assert_eq!((entries.bytes, entries.by_use.len()), (0, 0));
    }
}
