//! Spans of time as people write them in documents: `500ms`, `30s`, `5m`, `24h`, `7d`.

use std::time::Duration;

/// Reads a span like `1.5s` or `24h`: a decimal number and one of the units ms, s, m, h, d.
///
/// Gives nothing when the text is anything else or the span is above [`Duration::MAX`].
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '.')?;
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit.trim_start() {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3_600e3,
        "d" => 86_400e3,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(number * unit_ms / 1e3).ok()
}

/// The shortest exact way to write a span.
pub(crate) fn print(span: Duration) -> String {
    let ms = span.as_millis();
    for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

/// An optional span as a number of milliseconds, for the journal.
pub(crate) mod as_ms {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
            .serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

/// A span as a number of milliseconds, for the journal.
pub(crate) mod in_ms {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_spans() {
        let check = |text: &str, ms: u64, printed: &str| {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(print(Duration::from_millis(ms)), printed);
        };
        check("500ms", 500, "500ms");
        check("1.5s", 1500, "1500ms");
        check("5m", 300_000, "5m");
        check("24h", 86_400_000, "1d");
        for wrong in ["", "5", "s", "5 weeks", "-1s", "1e3s", "99999999999999999999d"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
