//! How long a `sleep` lasts.

use std::time::Duration;

use serde_json::Value;

use crate::duration;
use crate::expression::sample;
use crate::time::Timestamp;

/// The longest `sleep`: a year and a day.
///
/// Limit: a `sleep` | refused at publish, or the step fails, `bad_sleep` | `what_is_no_span_and_no_moment_fails_the_step`
pub const MAX_SLEEP: Duration = Duration::from_secs(366 * 86_400);

/// Reads the value of `for`: a span as text, or a number of seconds.
///
/// # Errors
/// What it is instead.
pub(crate) fn span(value: &Value) -> Result<Duration, String> {
    let span = match value {
        Value::String(text) => duration::parse(text),
        Value::Number(seconds) => {
            let seconds = seconds.as_f64();
            seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        }
        _ => None,
    };
    match span {
        Some(span) if span <= MAX_SLEEP => Ok(span),
        Some(_) => Err(format!("{value} is longer than {}", duration::print(MAX_SLEEP))),
        None => Err(format!(
            "{} is no span of time such as \"90s\", \"12h\" or \"30d\", and no number of seconds",
            sample(value)
        )),
    }
}

/// Reads the value of `until`: RFC 3339 text, or a number of seconds since 1970 as many APIs write it.
///
/// # Errors
/// What it is instead.
pub(crate) fn moment(value: &Value) -> Result<Timestamp, String> {
    let moment = match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(seconds) => {
            let ms = seconds.as_i64().and_then(|seconds| seconds.checked_mul(1000));
            ms.map(Timestamp::from_unix_ms)
        }
        _ => None,
    };
    moment.ok_or_else(|| {
        format!(
            "{} is no moment such as \"2026-12-01T09:00:00Z\", and no whole number of seconds since 1970",
            sample(value)
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_and_moments_are_read_as_people_and_apis_write_them() {
        assert_eq!(span(&json!("90s")), Ok(Duration::from_secs(90)));
        assert_eq!(span(&json!(1.5)), Ok(Duration::from_millis(1500)));
        for wrong in [json!("soon"), json!(-1), json!(null), json!("367d"), json!(1e300)] {
            assert!(span(&wrong).is_err(), "{wrong}");
        }
        let new_year = Timestamp::from_unix_ms(1_767_225_600_000);
        assert_eq!(moment(&json!("2026-01-01T01:00:00+01:00")), Ok(new_year));
        assert_eq!(moment(&json!(1_767_225_600)), Ok(new_year));
        for wrong in [
            json!("2026-01-01"),
            json!(1.5),
            json!(i64::MAX),
            json!({ "x": "y".repeat(100) }),
        ] {
            let reason = moment(&wrong).unwrap_err();
            assert!(reason.len() < 250, "{reason}");
        }
    }
}
