//! How long a provider asks to wait.

use serde_json::Value;

use super::Source;
use crate::fields::Fields;
use crate::http_message::HttpResponse;
use crate::problem::Problems;

/// What a rule of the manifest says about it.
#[derive(Debug)]
pub(super) enum RetryAfter {
    Seconds(u64),
    Stated(Source, Unit),
}

/// What the stated number counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    /// The moment itself, since 1970.
    EpochSeconds,
    EpochMilliseconds,
}

const UNITS: [(&str, Unit); 4] = [
    ("s", Unit::Seconds),
    ("ms", Unit::Milliseconds),
    ("epoch_s", Unit::EpochSeconds),
    ("epoch_ms", Unit::EpochMilliseconds),
];

impl RetryAfter {
    /// Reads `retry_after` of a rule: a span, `/pointer`, `header:NAME`, or `{ from, unit }`.
    pub(super) fn read(rule: &Fields<'_>, problems: &mut Problems) -> Option<Self> {
        match rule.get("retry_after") {
            Some(value @ Value::Object(_)) => {
                let fields = Fields::open(value, &rule.at("retry_after"), &["from", "unit"], problems)?;
                let unit = match fields.get("unit") {
                    Some(_) => fields.choice("unit", &UNITS, problems)?,
                    None => Unit::Seconds,
                };
                Some(Self::Stated(Source::read(&fields, "from", problems)?, unit))
            }
            Some(Value::String(text)) if text.starts_with('/') || text.starts_with("header:") => Some(Self::Stated(
                Source::read(rule, "retry_after", problems)?,
                Unit::Seconds,
            )),
            Some(_) | None => rule.duration_s("retry_after", problems).map(Self::Seconds),
        }
    }

    /// In milliseconds, when the answer states it.
    pub(super) fn ms<'v>(&self, response: &HttpResponse, body: impl FnOnce() -> Option<&'v Value>) -> Option<u64> {
        let (source, unit) = match self {
            Self::Seconds(seconds) => return Some(seconds.saturating_mul(1_000)),
            Self::Stated(source, unit) => (source, unit),
        };
        let stated = source.number(response, body)?;
        match unit {
            Unit::Seconds => milliseconds(stated),
            Unit::Milliseconds => milliseconds(stated / 1_000.0),
            Unit::EpochSeconds => milliseconds((stated - answered_at_s(response)?).max(0.0)),
            Unit::EpochMilliseconds => milliseconds((stated / 1_000.0 - answered_at_s(response)?).max(0.0)),
        }
    }
}

/// When the provider answered, by its own clock: ours plays no part.
fn answered_at_ms(response: &HttpResponse) -> Option<i64> {
    http_date_ms(response.header("date")?.trim())
}

fn answered_at_s(response: &HttpResponse) -> Option<f64> {
    // Seconds of this era are exact in a double.
    u32::try_from(answered_at_ms(response)? / 1_000).ok().map(f64::from)
}

/// At most a year, so that arithmetic on it is safe everywhere.
fn milliseconds(seconds: f64) -> Option<u64> {
    const YEAR_S: f64 = 366.0 * 86_400.0;
    if !seconds.is_finite() || seconds < 0.0 {
        return None;
    }
    let milliseconds = (seconds.min(YEAR_S) * 1_000.0).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between zero and a year in milliseconds"
    )]
    Some(milliseconds as u64)
}

/// `Retry-After` in milliseconds (RFC 9110 §10.2.3). A date is measured against the answer's own `Date`
/// header, so neither our clock nor its error plays a part; without `Date` a date says nothing.
pub(super) fn retry_after_ms_of(response: &HttpResponse) -> Option<u64> {
    let text = response.header("retry-after")?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return milliseconds(seconds);
    }
    let until = http_date_ms(text)?;
    let now = answered_at_ms(response)?;
    u64::try_from(until.saturating_sub(now)).ok().or(Some(0))
}

/// An IMF-fixdate (RFC 9110 §5.6.7) as Unix milliseconds.
pub(crate) fn http_date_ms(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc2822(text)
        .ok()
        .map(|date| date.timestamp_millis())
}
