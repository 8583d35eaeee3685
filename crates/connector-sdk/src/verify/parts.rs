//! What a signature is made over, and where a scheme finds each piece of it in a request.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::evidence::Evidence;
use super::{Refusal, RefusalReason};
use crate::pointer::Pointer;

/// Most entries of one signature header that are looked at; rotation needs two.
///
/// Limit: entries of a signature header that are looked at | the rest is not: 401 | `signatures_are_looked_for_within_bounds` | `weir_webhooks_refused_total`
const MAX_ENTRIES: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Header(String),
    /// A field of the signature header.
    SigField(String),
    Json(Pointer),
    Form(String),
    /// Inside the current element of `each`.
    Item(Pointer),
}

#[derive(Debug)]
pub(super) struct Format {
    pub(super) item: Option<String>,
    pub(super) kv: String,
    pub(super) name: EntryName,
}

/// The name of the entries that count.
#[derive(Debug)]
pub(super) enum EntryName {
    Literal(String),
    /// A value of the endpoint's `context`.
    Context(String),
}

impl EntryName {
    pub(super) fn read<'e>(&'e self, evidence: &'e Evidence<'_>) -> Result<&'e str, Refusal> {
        match self {
            Self::Literal(name) => Ok(name),
            Self::Context(name) => evidence.context(name),
        }
    }
}

#[derive(Debug)]
pub(super) enum Part {
    Body,
    Literal(String),
    From(Source),
    FormSorted,
    Method,
    Url,
    UrlDecoded(String),
    Context(String),
    Secret,
    Join {
        separator: String,
        of: Vec<Pointer>,
    },
    /// The CRC-32 of the body, as a decimal number.
    Crc32Decimal,
    /// The values of the headers that a field of the signature names.
    SignedHeaders {
        field: String,
        split: String,
        join: String,
    },
    /// `name`, line feed, value, line feed for each field of the body that is there; which fields, says another one.
    Lines {
        by: Source,
        of: BTreeMap<String, Vec<String>>,
    },
}

#[derive(Debug)]
pub(super) struct TimestampRule {
    pub(super) from: Source,
    pub(super) unit: TimeUnit,
    pub(super) max_age_s: u64,
    pub(super) max_future_s: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeUnit {
    Seconds,
    Milliseconds,
    Iso8601,
}

/// The signature header, taken apart.
pub(super) struct Signature<'a> {
    pub(super) entries: Vec<(&'a str, &'a str)>,
    pub(super) whole: Cow<'a, str>,
}

impl<'a> Signature<'a> {
    pub(super) fn take_apart(whole: &'a str, format: Option<&Format>) -> Self {
        let entries = match format {
            None => Vec::new(),
            Some(format) => {
                let items: Vec<&str> = match &format.item {
                    Some(separator) => whole.split(separator.as_str()).take(MAX_ENTRIES).collect(),
                    None => vec![whole],
                };
                items
                    .into_iter()
                    .filter_map(|item| item.trim().split_once(format.kv.as_str()))
                    .map(|(name, value)| (name.trim(), value.trim()))
                    .collect()
            }
        };
        Self {
            entries,
            whole: Cow::Borrowed(whole),
        }
    }

    /// A field that must not be ambiguous.
    fn field(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        let mut values = self
            .entries
            .iter()
            .filter(|(known, _)| *known == name)
            .map(|(_, value)| *value);
        let first = values.next();
        match values.next() {
            Some(_) => Err(Refusal::new(
                RefusalReason::DuplicatedHeader,
                format!("the signature has the field {name} more than once"),
            )),
            None => Ok(first),
        }
    }
}

impl Source {
    pub(super) fn read<'e>(
        &self,
        evidence: &'e Evidence<'_>,
        signature: Option<&Signature<'_>>,
        item: Option<&'e Value>,
    ) -> Result<Option<Cow<'e, str>>, Refusal> {
        match self {
            Self::Header(name) => Ok(evidence.header(name)?.map(Cow::Borrowed)),
            Self::SigField(name) => match signature {
                Some(signature) => Ok(signature.field(name)?.map(|text| Cow::Owned(text.to_owned()))),
                None => Ok(None),
            },
            Self::Json(pointer) => match evidence.json() {
                Some(body) => Ok(pointer.lookup(body).and_then(plain_text)),
                None => Err(Refusal::new(RefusalReason::MalformedBody, "the body is not JSON")),
            },
            Self::Form(name) => Ok(evidence
                .form()
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| Cow::Borrowed(value.as_str()))),
            Self::Item(pointer) => Ok(item.and_then(|item| pointer.lookup(item)).and_then(plain_text)),
        }
    }

    /// Where a value stands that is no signature, for people.
    pub(super) fn value_words(&self) -> String {
        match self {
            Self::Header(name) => format!("the header {name}"),
            Self::SigField(name) => format!("the signature's field {name}"),
            Self::Json(pointer) => format!("the body's `{pointer}`"),
            Self::Form(name) => format!("the form field {name}"),
            Self::Item(pointer) => format!("the item's `{pointer}`"),
        }
    }

    /// Where a signature stands, for people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Json(_) => "the signature in the body".to_owned(),
            Self::Item(_) => "the signature of an item".to_owned(),
            Self::Header(_) | Self::SigField(_) | Self::Form(_) => self.value_words(),
        }
    }
}

/// The bytes of one signed part.
pub(super) enum PartBytes<'e> {
    Bytes(Cow<'e, [u8]>),
    /// The URL, of which variants are tried.
    Url,
    /// The key itself.
    Secret,
}

impl Part {
    /// The place in the request that it is taken from, where there is just one.
    pub(super) fn source(&self) -> Option<&Source> {
        match self {
            Self::From(source) | Self::Lines { by: source, .. } => Some(source),
            Self::Body
            | Self::Literal(_)
            | Self::FormSorted
            | Self::Method
            | Self::Url
            | Self::UrlDecoded(_)
            | Self::Context(_)
            | Self::Secret
            | Self::Crc32Decimal
            | Self::SignedHeaders { .. }
            | Self::Join { .. } => None,
        }
    }

    pub(super) fn bytes<'e>(
        &'e self,
        evidence: &'e Evidence<'_>,
        signature: &Signature<'_>,
        item: Option<&'e Value>,
    ) -> Result<PartBytes<'e>, Refusal> {
        let borrowed = |text: &'e str| PartBytes::Bytes(Cow::Borrowed(text.as_bytes()));
        Ok(match self {
            Self::Body => PartBytes::Bytes(Cow::Borrowed(evidence.request.body)),
            Self::Literal(text) => borrowed(text),
            Self::From(source) => match source.read(evidence, Some(signature), item)? {
                Some(Cow::Borrowed(text)) => borrowed(text),
                Some(Cow::Owned(text)) => PartBytes::Bytes(Cow::Owned(text.into_bytes())),
                None => {
                    return Err(Refusal::new(
                        RefusalReason::MissingPart,
                        format!("{} is absent", source.value_words()),
                    ));
                }
            },
            Self::FormSorted => PartBytes::Bytes(Cow::Owned(form_sorted(evidence))),
            Self::Method => borrowed(evidence.request.method),
            Self::Url => PartBytes::Url,
            Self::UrlDecoded(set) => PartBytes::Bytes(Cow::Owned(decode_only(evidence.request.url, set).into_bytes())),
            Self::Context(name) => borrowed(evidence.context(name)?),
            Self::Secret => PartBytes::Secret,
            Self::Join { separator, of } => {
                // An absent field counts as empty text, as the senders of this form do.
                let texts: Vec<Cow<'_, str>> = of
                    .iter()
                    .map(|pointer| {
                        item.and_then(|item| pointer.lookup(item))
                            .and_then(plain_text)
                            .unwrap_or(Cow::Borrowed(""))
                    })
                    .collect();
                PartBytes::Bytes(Cow::Owned(texts.join(separator).into_bytes()))
            }
            Self::Crc32Decimal => {
                let sum = crc32fast::hash(evidence.request.body);
                PartBytes::Bytes(Cow::Owned(sum.to_string().into_bytes()))
            }
            Self::SignedHeaders { field, split, join } => {
                let names = signature.field(field)?.ok_or_else(|| {
                    Refusal::new(
                        RefusalReason::MissingPart,
                        format!("the signature's field {field} is absent"),
                    )
                })?;
                PartBytes::Bytes(Cow::Owned(
                    signed_headers(evidence, names, split)?.join(join).into_bytes(),
                ))
            }
            Self::Lines { by, of } => PartBytes::Bytes(Cow::Owned(lines(evidence, by, of)?.into_bytes())),
        })
    }
}

fn signed_headers<'e>(evidence: &Evidence<'e>, names: &str, split: &str) -> Result<Vec<&'e str>, Refusal> {
    let named = names.split(split).map(str::trim).filter(|name| !name.is_empty());
    named
        .take(MAX_ENTRIES)
        .map(|name| {
            evidence.header(name)?.ok_or_else(|| {
                Refusal::new(
                    RefusalReason::MissingPart,
                    format!("the signed header {name} is absent"),
                )
            })
        })
        .collect()
}

fn lines(evidence: &Evidence<'_>, by: &Source, of: &BTreeMap<String, Vec<String>>) -> Result<String, Refusal> {
    let kind = by.read(evidence, None, None)?;
    let names = kind.as_deref().and_then(|kind| of.get(kind)).ok_or_else(|| {
        Refusal::new(
            RefusalReason::MalformedBody,
            "the body is of a kind for which the scheme names no signed fields",
        )
    })?;
    let body = evidence
        .json()
        .ok_or_else(|| Refusal::new(RefusalReason::MalformedBody, "the body is not JSON"))?;
    let mut text = String::new();
    for name in names {
        if let Some(value) = body.get(name).and_then(plain_text) {
            text.extend([name, "\n", value.as_ref(), "\n"]);
        }
    }
    Ok(text)
}

impl TimestampRule {
    /// Unix milliseconds of the signed timestamp.
    pub(super) fn read(
        &self,
        evidence: &Evidence<'_>,
        signature: &Signature<'_>,
        item: Option<&Value>,
    ) -> Result<i64, Refusal> {
        let malformed = |detail: String| Refusal::new(RefusalReason::MalformedTimestamp, detail);
        let text = match &self.from {
            Source::SigField(name) => signature.field(name)?.map(Cow::Borrowed),
            source => source.read(evidence, None, item)?,
        };
        let text = text.ok_or_else(|| malformed("the timestamp is absent".to_owned()))?;
        let parsed = match self.unit {
            TimeUnit::Seconds => digits(&text).and_then(|seconds| seconds.checked_mul(1_000)),
            TimeUnit::Milliseconds => digits(&text),
            TimeUnit::Iso8601 => chrono::DateTime::parse_from_rfc3339(text.trim())
                .ok()
                .map(|time| time.timestamp_millis()),
        };
        parsed.ok_or_else(|| malformed("the timestamp cannot be read".to_owned()))
    }

    pub(super) fn judge(&self, stamp_ms: i64, now_unix_ms: i64) -> Result<(), Refusal> {
        // Whole seconds are compared with whole seconds, as the vendors' own libraries do.
        let now = if self.unit == TimeUnit::Seconds {
            now_unix_ms.div_euclid(1_000).saturating_mul(1_000)
        } else {
            now_unix_ms
        };
        let age_ms = now.saturating_sub(stamp_ms);
        let limit = |seconds: u64| i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
        if age_ms > limit(self.max_age_s) {
            return Err(Refusal::new(
                RefusalReason::StaleTimestamp,
                format!("signed {} s ago, {} s are allowed", age_ms / 1_000, self.max_age_s),
            ));
        }
        if age_ms.saturating_neg() > limit(self.max_future_s) {
            return Err(Refusal::new(
                RefusalReason::FutureTimestamp,
                format!(
                    "signed {} s ahead, {} s are allowed",
                    age_ms.saturating_neg() / 1_000,
                    self.max_future_s
                ),
            ));
        }
        Ok(())
    }
}

/// Only ASCII digits: `+5`, ` 5` and `5.0` are not timestamps.
fn digits(text: &str) -> Option<i64> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

fn plain_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Null => None,
        other => crate::template::scalar_text(other).ok(),
    }
}

/// Names and values of the form, sorted by name, without separators; equal names: values sorted, duplicates once.
fn form_sorted(evidence: &Evidence<'_>) -> Vec<u8> {
    if !evidence.is_form() {
        return Vec::new();
    }
    let mut pairs: Vec<&(String, String)> = evidence.form().iter().collect();
    pairs.sort();
    pairs.dedup();
    pairs
        .iter()
        .flat_map(|(name, value)| name.bytes().chain(value.bytes()))
        .collect()
}

/// Decodes the percent escapes of the characters in `set` only.
fn decode_only(url: &str, set: &str) -> String {
    let mut decoded = String::with_capacity(url.len());
    let mut rest = url;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let escape = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .map(char::from)
            .filter(|character| set.contains(*character));
        match escape {
            Some(character) => {
                decoded.push(character);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push('%');
                rest = after;
            }
        }
    }
    decoded.push_str(rest);
    decoded
}
