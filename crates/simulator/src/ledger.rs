//! The simulator's own ledger: what really happened at the fake providers.
//!
//! The product under test keeps a ledger of what it intended; this one says what arrived. It counts by
//! business identity (one CRM upsert per event, one invoice per deal), so a doubled effect is visible even
//! when each copy had an idempotency key of its own. Every effect is counted; only the newest entries are
//! kept in full.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Entries kept in full; about 250 bytes each.
pub const LEDGER_ENTRIES_MAX: usize = 200_000;

/// Business identities that are counted; beyond it `identities_overflowed` says that counts are incomplete.
pub const LEDGER_IDENTITIES_MAX: usize = 4_000_000;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectOutcome {
    /// The state changed.
    Done,
    /// An absolute write of a value that was there already: repeated, but harmless.
    Repeated,
    /// The answer stored for the idempotency key was given again; nothing changed.
    Replayed,
    /// The provider said no; nothing changed.
    Refused,
}

/// One write that reached a fake provider.
#[derive(Clone, Debug, Serialize)]
pub struct EffectEntry {
    /// Position in the ledger, from 1.
    pub seq: u64,
    /// Arrival, milliseconds since the Unix epoch.
    pub at_unix_ms: i64,
    /// Route name, for example `stripe.invoices.create`.
    pub route: String,
    /// HTTP method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// The idempotency key that came with it.
    pub idempotency_key: Option<String>,
    /// First 16 hex characters of the SHA-256 of the body.
    pub body_digest: String,
    /// What it means in the business; equal identities are the same deed done again.
    pub identity: String,
    /// What became of it.
    pub outcome: EffectOutcome,
    /// The status that was, or would have been, answered.
    pub status: u16,
    /// Whether the answer was written in full; false when a fault cut the connection.
    pub answered: bool,
}

/// A write that is about to be recorded.
#[derive(Debug)]
pub struct EffectRecord<'a> {
    /// Arrival, milliseconds since the Unix epoch.
    pub at_unix_ms: i64,
    /// Route name.
    pub route: &'static str,
    /// HTTP method.
    pub method: &'a str,
    /// Path without query.
    pub path: &'a str,
    /// The idempotency key that came with it.
    pub idempotency_key: Option<&'a str>,
    /// The body as it arrived.
    pub body: &'a [u8],
    /// Business identity; the route and the body's digest when `None`.
    pub identity: Option<String>,
    /// What became of it.
    pub outcome: EffectOutcome,
    /// The status answered.
    pub status: u16,
    /// Whether the answer was written in full.
    pub answered: bool,
}

/// An identity whose effect happened more than once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Doubled {
    /// The business identity.
    pub identity: String,
    /// How often the state changed for it, at least 2.
    pub effects: u32,
}

/// Counters of one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RouteCounts {
    /// Requests, reads included, faulted ones too.
    pub requests: u64,
    /// State changes.
    pub effects: u64,
    /// Absolute writes that changed nothing.
    pub repeated: u64,
    /// Answers given again for an idempotency key.
    pub replayed: u64,
    /// Writes the provider refused.
    pub refused: u64,
    /// Requests that a fault kept from being answered truthfully.
    pub faulted: u64,
}

/// The ledger in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LedgerSummary {
    /// State changes on all routes.
    pub effects: u64,
    /// Identities with at least one state change.
    pub identities: u64,
    /// State changes beyond the first of their identity.
    pub surplus_effects: u64,
    /// Identities with more than one state change, at most 1,000 of them, sorted.
    pub doubled: Vec<Doubled>,
    /// State changes whose answer never left in full.
    pub unanswered_effects: u64,
    /// True when more identities arrived than are counted.
    pub identities_overflowed: bool,
    /// Counters per route.
    pub routes: BTreeMap<&'static str, RouteCounts>,
}

/// The ledger. All methods are short and never wait for anything but its own lock.
#[derive(Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    seq: u64,
    entries: VecDeque<EffectEntry>,
    identities: HashMap<String, u32>,
    overflowed: bool,
    unanswered: u64,
    routes: BTreeMap<&'static str, RouteCounts>,
}

impl Ledger {
    /// Counts a request that is no effect, or one that a fault swallowed before it could be one.
    pub fn count_request(&self, route: &'static str, faulted: bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = inner.routes.entry(route).or_default();
        counts.requests += 1;
        counts.faulted += u64::from(faulted);
    }

    /// Records one write.
    pub fn record(&self, record: EffectRecord<'_>) {
        let body_digest = digest(record.body);
        let identity = record
            .identity
            .unwrap_or_else(|| format!("{}:{body_digest}", record.route));
        let mut entry = EffectEntry {
            seq: 0,
            at_unix_ms: record.at_unix_ms,
            route: record.route.to_owned(),
            method: record.method.to_owned(),
            path: record.path.to_owned(),
            idempotency_key: record.idempotency_key.map(str::to_owned),
            body_digest,
            identity,
            outcome: record.outcome,
            status: record.status,
            answered: record.answered,
        };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.seq += 1;
        entry.seq = inner.seq;
        let counts = inner.routes.entry(record.route).or_default();
        counts.requests += 1;
        match record.outcome {
            EffectOutcome::Done => counts.effects += 1,
            EffectOutcome::Repeated => counts.repeated += 1,
            EffectOutcome::Replayed => counts.replayed += 1,
            EffectOutcome::Refused => counts.refused += 1,
        }
        if !record.answered {
            counts.faulted += 1;
        }
        if record.outcome == EffectOutcome::Done {
            inner.unanswered += u64::from(!record.answered);
            if let Some(effects) = inner.identities.get_mut(&entry.identity) {
                *effects += 1;
            } else if inner.identities.len() < LEDGER_IDENTITIES_MAX {
                inner.identities.insert(entry.identity.clone(), 1);
            } else {
                inner.overflowed = true;
            }
        }
        inner.entries.push_back(entry);
        if inner.entries.len() > LEDGER_ENTRIES_MAX {
            inner.entries.pop_front();
        }
    }

    /// How often the state changed for this business identity.
    pub fn effects_of(&self, identity: &str) -> u32 {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.identities.get(identity).copied().unwrap_or_default()
    }

    /// The newest entries (at most `limit`) whose route and identity begin with the given texts, oldest first.
    pub fn entries(&self, route_prefix: &str, identity_prefix: &str, limit: usize) -> Vec<EffectEntry> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted =
            |entry: &&EffectEntry| entry.route.starts_with(route_prefix) && entry.identity.starts_with(identity_prefix);
        let mut found: Vec<EffectEntry> = inner.entries.iter().rev().filter(wanted).take(limit).cloned().collect();
        found.reverse();
        found
    }

    /// The counters of one route.
    pub fn route(&self, route: &str) -> RouteCounts {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.routes.get(route).copied().unwrap_or_default()
    }

    /// The ledger in numbers.
    pub fn summary(&self) -> LedgerSummary {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut summary = LedgerSummary {
            identities: inner.identities.len() as u64,
            unanswered_effects: inner.unanswered,
            identities_overflowed: inner.overflowed,
            routes: inner.routes.clone(),
            ..LedgerSummary::default()
        };
        summary.effects = inner.routes.values().map(|counts| counts.effects).sum();
        for (identity, effects) in &inner.identities {
            summary.surplus_effects += u64::from(effects - 1);
            if *effects > 1 {
                summary.doubled.push(Doubled {
                    identity: identity.clone(),
                    effects: *effects,
                });
            }
        }
        summary
            .doubled
            .sort_by(|left, right| left.identity.cmp(&right.identity));
        summary.doubled.truncate(1000);
        summary
    }

    /// All identities that begin with `prefix` and whose effect happened more than once, sorted.
    pub fn doubled(&self, prefix: &str) -> Vec<Doubled> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut doubled: Vec<Doubled> = inner
            .identities
            .iter()
            .filter(|(identity, effects)| **effects > 1 && identity.starts_with(prefix))
            .map(|(identity, effects)| Doubled {
                identity: identity.clone(),
                effects: *effects,
            })
            .collect();
        doubled.sort_by(|left, right| left.identity.cmp(&right.identity));
        doubled
    }

    /// Starts a new ledger.
    pub fn clear(&self) {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = Inner::default();
    }
}

/// First 16 hex characters of the SHA-256 of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut text = hex::encode(Sha256::digest(bytes));
    text.truncate(16);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ledger: &Ledger, identity: &str, outcome: EffectOutcome, answered: bool) {
        ledger.record(EffectRecord {
            at_unix_ms: 1,
            route: "crm.deals.write",
            method: "POST",
            path: "/crm/deals/1",
            idempotency_key: None,
            body: b"{}",
            identity: Some(identity.to_owned()),
            outcome,
            status: 200,
            answered,
        });
    }

    #[test]
    fn counts_doubled_effects_by_identity_and_not_replays() {
        let ledger = Ledger::default();
        record(&ledger, "event:a", EffectOutcome::Done, false);
        record(&ledger, "event:a", EffectOutcome::Done, true);
        record(&ledger, "event:b", EffectOutcome::Done, true);
        record(&ledger, "event:b", EffectOutcome::Replayed, true);
        record(&ledger, "event:c", EffectOutcome::Repeated, true);
        let summary = ledger.summary();
        assert_eq!(
            summary.doubled,
            [Doubled {
                identity: "event:a".to_owned(),
                effects: 2
            }]
        );
        assert_eq!(
            (summary.effects, summary.identities, summary.surplus_effects),
            (3, 2, 1)
        );
        assert_eq!(summary.unanswered_effects, 1);
        assert_eq!(ledger.effects_of("event:b"), 1);
        assert_eq!(ledger.route("crm.deals.write").replayed, 1);
        assert_eq!(ledger.entries("crm.", "event:b", 10).len(), 2);
    }
}
