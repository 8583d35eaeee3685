//! How long a provider asks to wait.

use serde_json::Value;

use crate::http_message::HttpResponse;

pub(super) fn seconds_to_ms(value: &Value) -> Option<u64> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse::<f64>().ok()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    milliseconds(seconds)
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
    let now = http_date_ms(response.header("date")?.trim())?;
    u64::try_from(until.saturating_sub(now)).ok().or(Some(0))
}

/// An IMF-fixdate (RFC 9110 §5.6.7) as Unix milliseconds.
fn http_date_ms(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc2822(text)
        .ok()
        .map(|date| date.timestamp_millis())
}
