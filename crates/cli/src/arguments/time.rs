//! Points in time as people write them on the command line.

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat};

/// A point in time of RFC 3339, or a day, which begins at midnight UTC; as the API takes it.
///
/// # Errors
/// The text is neither; says what is taken.
pub(super) fn parse(text: &str) -> Result<String, String> {
    let at = match (DateTime::parse_from_rfc3339(text), text.parse::<NaiveDate>()) {
        (Ok(at), _) => at.to_utc(),
        (Err(_), Ok(day)) => day.and_time(NaiveTime::MIN).and_utc(),
        (Err(_), Err(_)) => {
            return Err("this is no time: write 2026-11-25T08:00:00Z, or 2026-11-25 for midnight UTC".to_owned());
        }
    };
    Ok(at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn times_and_days_are_taken_and_anything_else_is_explained() {
        assert_eq!(parse("2026-11-25T08:00:00Z").unwrap(), "2026-11-25T08:00:00.000Z");
        assert_eq!(parse("2026-11-25T08:00:00+01:00").unwrap(), "2026-11-25T07:00:00.000Z");
        assert_eq!(parse("2026-11-25").unwrap(), "2026-11-25T00:00:00.000Z");
        for wrong in ["yesterday", "2026-11-25 08:00", "2026-13-01", ""] {
            assert!(
                parse(wrong).unwrap_err().contains("write 2026-11-25T08:00:00Z"),
                "{wrong}"
            );
        }
    }
}
