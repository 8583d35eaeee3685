//! The made-up provider and the network before it: what it really did, whatever anybody was told.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_workflow_engine::Timestamp;

use super::chance::Chance;

/// How long it remembers keys, as its manifest says.
const WINDOW: Duration = Duration::from_secs(24 * 3600);
/// How long its search may lag, as its manifest says.
pub(super) const SETTLE: Duration = Duration::from_secs(30);

/// What its operations do.
pub(super) const MANIFEST: &str = r#"
connector: shop
version: 1.0.0
title: Shop
hosts: ["https://shop.test"]
auth:
  none: {}
operations:
  get: { get: "/objects/{{ ref }}", input: { ref: required } }
  charge: { post: /charges, body: json, input: { ref: required }, effect: { keyed: { header: Idempotency-Key, window: 24h } } }
  create: { post: /objects, body: json, input: { ref: required }, effect: { find_by: { call: get, with: { ref: "{{ ref }}" }, found: "", consistent: true } } }
  lag: { post: /notes, body: json, input: { ref: required }, effect: { find_by: { call: get, with: { ref: "{{ ref }}" }, found: "", consistent: false, settle: 30s } } }
  put: { put: "/objects/{{ ref }}", body: json, input: { ref: required }, effect: repeatable }
  fire: { post: /mails, body: json, input: { ref: required }, effect: blind }
webhook:
  verify: endpoint
  identify:
    id: /id
    type: /type
    ref: { type: lit:object, id: /id }
    data: /data
  recover: { level: C }
events:
  order: { hydrate_default: never, reads: { object: { call: get, with: { ref: "{{ ref.id }}" } } } }
  answer: { hydrate_default: never }
"#;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is carried out and answered.
    Answered,
    /// No connection: no byte left.
    NotConnected,
    /// It gets lost on its way.
    RequestLost,
    /// It is carried out, and the answer gets lost.
    AnswerLost,
    /// The connection breaks at once, and the provider works on for a while.
    Broken,
    /// The answer takes longer than anybody waits; it is carried out at the last moment.
    TooSlow,
    /// 429: refused before anything was done.
    TooMany,
    /// 400: refused for good before anything was done.
    Invalid,
    /// 500 after it was carried out.
    ErrorAfter,
    /// 500 before.
    ErrorBefore,
}

impl Fate {
    /// What requests meet when the provider is away.
    pub(super) const OF_ONE_AWAY: [Self; 4] =
        [Self::NotConnected, Self::NotConnected, Self::RequestLost, Self::TooMany];

    pub(super) fn by(chance: &mut Chance, trouble: u64) -> Self {
        if !chance.percent(trouble) {
            return Self::Answered;
        }
        *chance.pick(&[
            Self::NotConnected,
            Self::NotConnected,
            Self::RequestLost,
            Self::AnswerLost,
            Self::AnswerLost,
            Self::Broken,
            Self::TooSlow,
            Self::TooMany,
            Self::Invalid,
            Self::ErrorAfter,
            Self::ErrorBefore,
        ])
    }

    /// Whether the provider carries the request out.
    pub(super) fn is_done(self) -> bool {
        matches!(
            self,
            Self::Answered | Self::AnswerLost | Self::Broken | Self::TooSlow | Self::ErrorAfter
        )
    }
}

/// What it did.
#[derive(Debug, Default)]
pub(super) struct Provider {
    /// Keys that it knows, with the time it saw each first and what it said.
    keys: BTreeMap<String, (Timestamp, bool)>,
    /// When each thing was done, by its reference.
    done: BTreeMap<String, Vec<Timestamp>>,
    /// Things that may be done more than once.
    repeatable: BTreeMap<String, u32>,
}

impl Provider {
    /// A request arrives that is to be carried out; false when it is answered with an error that stands under its key.
    pub(super) fn carry_out(
        &mut self,
        operation: &str,
        reference: &str,
        key: &str,
        fails: bool,
        now: Timestamp,
    ) -> bool {
        match operation {
            "charge" => {
                if let Some((first, well)) = self.keys.get(key)
                    && now.since(*first) < WINDOW
                {
                    return *well;
                }
                self.keys.insert(key.to_owned(), (now, !fails));
                self.note(reference, now);
            }
            "create" | "lag" | "fire" => self.note(reference, now),
            "put" => *self.repeatable.entry(reference.to_owned()).or_default() += 1,
            _ => {}
        }
        !fails
    }

    fn note(&mut self, reference: &str, now: Timestamp) {
        self.done.entry(reference.to_owned()).or_default().push(now);
    }

    /// Whether a search shows the thing.
    pub(super) fn shows(&self, operation: &str, reference: &str, now: Timestamp) -> bool {
        let lag = if operation == "lag" { SETTLE } else { Duration::ZERO };
        let done = self.done.get(reference);
        done.is_some_and(|times| times.iter().any(|at| now.since(*at) >= lag && *at <= now))
    }

    /// How often each thing was done that must be done once at most.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, usize)> {
        self.done
            .iter()
            .map(|(reference, times)| (reference.as_str(), times.len()))
    }

    /// How often this one was done.
    pub(super) fn count(&self, reference: &str) -> usize {
        let once = self.done.get(reference).map_or(0, Vec::len);
        once + usize::try_from(self.repeatable.get(reference).copied().unwrap_or_default()).unwrap_or(usize::MAX)
    }
}
