//! What an event is: its id, type, time, account, object, and the key that recognises it again.
//!
//! Losing an event is worse than seeing one twice. Without a provider's id the key is a hash over type,
//! object, time **and** content, so that two events of one second are never taken for one; a manifest that
//! knows better says `dedupe`.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::locate::{Locator, Seen};
use crate::fields::Fields;
use crate::pointer::Pointer;
use crate::problem::Problems;
use crate::verify::InboundRequest;

/// Most events in one request; as many as the store takes in one transaction eight times over.
///
/// Limit: events in one webhook | 400 | `a_request_holds_so_many_events_with_types_of_such_length` | `weir_webhooks_refused_total`
const MAX_EVENTS_PER_REQUEST: usize = 4_096;
/// Longest id, type or key that is kept as it is, in bytes; longer ones are hashed or refused.
///
/// Limit: type of an event; a longer id or dedupe key is hashed | 400 | `a_request_holds_so_many_events_with_types_of_such_length` | `weir_webhooks_refused_total`
const MAX_TEXT_BYTES: usize = 512;

/// One event found in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified {
    /// JSON Pointer of the event object in the body; empty for the whole body.
    pub unit_pointer: String,
    /// The provider's id, or the key when there is none.
    pub id: String,
    /// Whether `id` came from the provider.
    pub id_from_provider: bool,
    /// The type.
    pub kind: String,
    /// When it happened, in Unix milliseconds, when the event says so in a form that can be read.
    pub time_unix_ms: Option<i64>,
    /// The provider's name of the account it belongs to.
    pub account: Option<String>,
    /// The object it is about: type, id, version.
    pub reference: Option<(String, String, Option<String>)>,
    /// JSON Pointer, within the event object, to the data that workflows see as `event.data`.
    pub data_pointer: String,
    /// Recognises the same event again within one source.
    pub dedupe_key: String,
    /// Whether nothing recognises it again: equal deliveries are events of their own, and the host makes the key unique.
    pub by_arrival: bool,
    /// Its place in the account's sequence, when the connector names one: each event has the number after the last.
    pub sequence: Option<u64>,
    /// Events with the same order key must be handled in turn, when the connector names one.
    pub order_key: Option<String>,
    /// Whether it reports nothing (a ping): acknowledge, do not store.
    pub ignored: bool,
}

/// Why a request holds no event that can be named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct IdentifyError {
    /// JSON Pointer into the body.
    pub pointer: String,
    /// What is missing.
    pub message: String,
}

impl IdentifyError {
    pub(super) fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: message.into(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Identify {
    split: Option<(String, Pointer)>,
    id: Option<Locator>,
    kind: Locator,
    time: Option<Locator>,
    account: Option<Locator>,
    reference: Option<Reference>,
    data: String,
    dedupe: Option<Locator>,
    sequence: Option<Locator>,
    /// Whether an event without a key is told by its arrival instead of its content.
    by_arrival: bool,
    order_key: Option<Locator>,
    ignored_types: Vec<String>,
}

#[derive(Debug)]
struct Reference {
    kind: Locator,
    id: Locator,
    version: Option<Locator>,
}

impl Identify {
    pub(super) fn read(webhook: &Fields<'_>, ignored_types: Vec<String>, problems: &mut Problems) -> Option<Self> {
        let value = webhook.required("identify", problems)?;
        let fields = Fields::open(
            value,
            &webhook.at("identify"),
            &["id", "type", "time", "account", "ref", "data"],
            problems,
        )?;
        let locator = |fields: &Fields<'_>, key: &str, problems: &mut Problems| {
            fields
                .get(key)
                .and_then(|value| Locator::read(value, &fields.at(key), problems))
        };
        let split = webhook.text("split", problems).and_then(|text| {
            // `/events` names the array, `/events/*` its elements: both mean the same.
            let full = if text.ends_with("/*") {
                text.to_owned()
            } else {
                format!("{text}/*")
            };
            let pointer = Pointer::parse(&full);
            if pointer.is_none() {
                problems.add(
                    &webhook.at("split"),
                    "bad_pointer",
                    format!("`{text}` is not a JSON Pointer"),
                );
            }
            pointer.map(|pointer| (text.to_owned(), pointer))
        });
        let reference = fields.get("ref").and_then(|value| {
            let fields = Fields::open(value, &fields.at("ref"), &["type", "id", "version"], problems)?;
            fields.required("type", problems)?;
            fields.required("id", problems)?;
            Some(Reference {
                kind: locator(&fields, "type", problems)?,
                id: locator(&fields, "id", problems)?,
                version: locator(&fields, "version", problems),
            })
        });
        let data = fields.text("data", problems).unwrap_or_default();
        if Pointer::parse(data).is_none_or(|pointer| pointer.has_wildcard()) {
            problems.add(
                &fields.at("data"),
                "bad_pointer",
                format!("`{data}` is not a JSON Pointer"),
            );
        }
        fields.required("type", problems)?;
        Some(Self {
            split,
            id: locator(&fields, "id", problems),
            kind: locator(&fields, "type", problems)?,
            time: locator(&fields, "time", problems),
            account: locator(&fields, "account", problems),
            reference,
            data: data.to_owned(),
            dedupe: locator(webhook, "dedupe", problems),
            sequence: locator(webhook, "sequence", problems),
            by_arrival: webhook
                .choice("without_id", &[("content", false), ("arrival", true)], problems)
                .unwrap_or(false),
            order_key: locator(webhook, "order_key", problems),
            ignored_types,
        })
    }

    /// Whether an event has a key that does not depend on how it came.
    pub(super) fn has_key(&self) -> bool {
        let mut keys = self.id.iter().chain(&self.dedupe);
        keys.any(Locator::tells_items_apart)
    }

    /// Whether an event says when it happened.
    pub(super) fn has_time(&self) -> bool {
        self.time.is_some()
    }

    pub(super) fn events(&self, request: &InboundRequest<'_>, body: &Value) -> Result<Vec<Identified>, IdentifyError> {
        let units = match &self.split {
            None => vec![(String::new(), body)],
            Some((text, pointer)) => pointer
                .expand(body)
                .ok_or_else(|| IdentifyError::new(text.as_str(), format!("the body has no list at `{text}`")))?,
        };
        if units.len() > MAX_EVENTS_PER_REQUEST {
            return Err(IdentifyError::new(
                "",
                format!(
                    "the body holds {} events, more than {MAX_EVENTS_PER_REQUEST}",
                    units.len()
                ),
            ));
        }
        units
            .into_iter()
            .map(|(place, unit)| {
                self.event(
                    &Seen {
                        request: Some(request),
                        envelope: body,
                        unit,
                    },
                    place,
                )
            })
            .collect()
    }

    /// An event object from a list, without a request around it.
    pub(super) fn listed(&self, unit: &Value) -> Result<Identified, IdentifyError> {
        self.event(
            &Seen {
                request: None,
                envelope: unit,
                unit,
            },
            String::new(),
        )
    }

    fn event(&self, seen: &Seen<'_>, unit_pointer: String) -> Result<Identified, IdentifyError> {
        let kind = self.kind.text(seen).ok_or_else(|| {
            IdentifyError::new(
                unit_pointer.as_str(),
                "the event has no type where `identify.type` looks",
            )
        })?;
        if kind.len() > MAX_TEXT_BYTES {
            return Err(IdentifyError::new(unit_pointer, "the event's type is too long"));
        }
        let time_unix_ms = self
            .time
            .as_ref()
            .and_then(|locator| locator.value(seen))
            .and_then(|value| unix_ms(&value));
        let reference = self.reference.as_ref().and_then(|reference| {
            Some((
                reference.kind.text(seen)?,
                reference.id.text(seen)?,
                reference.version.as_ref().and_then(|version| version.text(seen)),
            ))
        });
        let provider_id = self
            .id
            .as_ref()
            .and_then(|locator| locator.text(seen))
            .filter(|id| id.len() <= MAX_TEXT_BYTES);
        let stated_key = self.dedupe.as_ref().and_then(|locator| locator.text(seen));
        let by_arrival = self.by_arrival && stated_key.is_none() && provider_id.is_none();
        let dedupe_key = match (stated_key, &provider_id) {
            (Some(key), _) if key.len() <= MAX_TEXT_BYTES => key,
            (Some(key), _) => hash(&[key.as_bytes()]),
            (None, Some(id)) => id.clone(),
            // Two requests without any content would be the same event.
            (None, None) if seen.request.is_some_and(|request| request.body.is_empty()) => {
                return Err(IdentifyError::new(
                    unit_pointer,
                    "the body is empty and no header names the event: send a JSON body, or an id where \
                     `identify.id` looks",
                ));
            }
            (None, None) => content_key(&kind, reference.as_ref(), time_unix_ms, seen),
        };
        let id_from_provider = provider_id.is_some();
        Ok(Identified {
            unit_pointer,
            id: provider_id.unwrap_or_else(|| dedupe_key.clone()),
            id_from_provider,
            time_unix_ms,
            account: self.account.as_ref().and_then(|locator| locator.text(seen)),
            reference,
            data_pointer: self.data.clone(),
            dedupe_key,
            by_arrival,
            sequence: self
                .sequence
                .as_ref()
                .and_then(|locator| locator.text(seen)?.parse().ok()),
            order_key: self.order_key.as_ref().and_then(|locator| locator.text(seen)),
            ignored: self.ignored_types.contains(&kind),
            kind,
        })
    }
}

fn content_key(
    kind: &str,
    reference: Option<&(String, String, Option<String>)>,
    time_unix_ms: Option<i64>,
    seen: &Seen<'_>,
) -> String {
    let (ref_kind, ref_id) = reference.map_or(("", ""), |(kind, id, _)| (kind.as_str(), id.as_str()));
    let time = time_unix_ms.map_or_else(String::new, |time| time.to_string());
    let content = seen.unit.to_string();
    hash(&[
        kind.as_bytes(),
        ref_kind.as_bytes(),
        ref_id.as_bytes(),
        time.as_bytes(),
        content.as_bytes(),
    ])
}

/// A key over several fields; lengths are part of it, so that fields cannot run into each other.
fn hash(fields: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for field in fields {
        digest.update((field.len() as u64).to_be_bytes());
        digest.update(field);
    }
    let bytes = digest.finalize();
    format!("hash_{}", hex::encode(bytes.get(..16).unwrap_or_default()))
}

/// Unix seconds, Unix milliseconds, or RFC 3339; seconds and milliseconds are told apart by their size
/// (as seconds, 10^11 is the year 5138; as milliseconds, it is 1973).
pub(super) fn unix_ms(value: &Value) -> Option<i64> {
    const SMALLEST_MS: f64 = 1e11;
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => match text.parse::<f64>() {
            Ok(number) => number,
            Err(_) => {
                return chrono::DateTime::parse_from_rfc3339(text.trim())
                    .ok()
                    .map(|time| time.timestamp_millis());
            }
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let ms = if number.abs() < SMALLEST_MS {
        number * 1_000.0
    } else {
        number
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to lie within the years 1970 to 9999"
    )]
    (0.0..253_402_300_800_000.0).contains(&ms).then(|| ms.round() as i64)
}
