//! The request allowance that a manifest or a connection states, as data for the host's rate limiter.
//!
//! Nothing here waits or counts: it says what may be sent, and what an answer tells about what is left.

mod learn;

use jiff::civil::Time;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;

use crate::fields::{self, Fields};
use crate::pointer;
use crate::problem::{Problem, Problems, nearest};

pub(crate) use learn::read_cost;
pub use learn::{Learn, Told};

/// Most windows of one budget: per second, per minute, per hour, per day.
///
/// Limit: windows of one budget | refused, `bad_value` | `budgets_are_read_and_what_is_wrong_is_said`
pub const MAX_WINDOWS: usize = 4;

/// Share of a budget that is kept for live events when nothing is stated, percent.
pub const DEFAULT_RESERVE_PERCENT: u8 = 20;

/// How many requests a connection may send, and where the provider reports what is left.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Budget {
    /// Allowances per span; each of them holds.
    pub windows: Vec<Window>,
    /// An allowance that refills all the time.
    pub bucket: Option<Bucket>,
    /// Requests that may be open at the same time.
    pub concurrency: Option<u64>,
    /// An allowance that begins anew once a day.
    pub daily: Option<Daily>,
    /// Share that only live events may use, percent below 100.
    pub reserve_percent: Option<u8>,
    /// Where answers tell the real allowance.
    pub learn: Vec<Learn>,
}

/// So many requests in any span of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Requests, or points where operations have a `cost`; at least 1.
    pub requests: u64,
    /// Length in seconds; at least 1.
    pub window_s: u64,
}

/// A bucket: what was not used is kept up to its size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// What fits in; at least 1.
    pub size: u64,
    /// What comes back in one second; above 0.
    pub refill_per_s: f64,
}

/// So many requests from one reset to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Daily {
    /// Requests, or points where operations have a `cost`; at least 1.
    pub requests: u64,
    resets: Time,
    zone: TimeZone,
}

impl Daily {
    /// The first reset after a moment, both in Unix milliseconds.
    pub fn next_reset_ms(&self, after_ms: i64) -> i64 {
        const DAY_MS: i64 = 86_400_000;
        let next = || -> Option<i64> {
            let after = Timestamp::from_millisecond(after_ms).ok()?;
            let mut day = self.zone.to_datetime(after).date();
            // A reset may be skipped by a change of the clock: the day after it is not.
            for _ in 0..3 {
                let reset = self.zone.to_timestamp(day.to_datetime(self.resets)).ok()?;
                if reset > after {
                    return Some(reset.as_millisecond());
                }
                day = day.checked_add(1.day()).ok()?;
            }
            None
        };
        next().unwrap_or_else(|| after_ms.saturating_add(DAY_MS))
    }
}

const KEYS: [&str; 6] = ["window", "bucket", "concurrency", "daily", "reserve", "learn"];

/// Reads the budget that a connection sets for itself; it may say everything but `learn`. Pointers are relative to it.
///
/// # Errors
/// Every [`Problem`] found, without lines.
pub fn own_budget(value: &Value) -> Result<Budget, Vec<Problem>> {
    let mut problems = Problems::default();
    let budget = check_own(value, "", &mut problems);
    problems.finish(budget)
}

pub(crate) fn check_own(value: &Value, place: &str, problems: &mut Problems) -> Option<Budget> {
    if value.get("learn").is_some() {
        let message = "what answers tell is the manifest's to say";
        problems.add(&pointer::join(place, "learn"), "unknown_key", message);
    }
    read(value, place, problems)
}

pub(crate) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Budget> {
    let fields = Fields::open(value, place, &KEYS, problems)?;
    let concurrency = fields.number("concurrency", problems);
    if concurrency == Some(0) {
        problems.add(
            &fields.at("concurrency"),
            "bad_value",
            "at least 1, or nothing can be sent",
        );
    }
    let mut budget = Budget {
        windows: read_windows(&fields, problems),
        bucket: fields
            .get("bucket")
            .and_then(|value| read_bucket(value, &fields.at("bucket"), problems)),
        concurrency,
        daily: None,
        reserve_percent: fields.text("reserve", problems).and_then(|text| {
            let percent = text.strip_suffix('%').and_then(|number| number.parse().ok());
            let percent = percent.filter(|percent: &u8| *percent < 100);
            if percent.is_none() {
                let message = format!("`{text}` is not a share below 100%, such as 20%");
                problems.add(&fields.at("reserve"), "bad_value", message);
            }
            percent
        }),
        learn: learn::read(&fields, problems),
    };
    match fields.get("daily") {
        None => {}
        Some(value @ Value::Object(_)) => budget.daily = read_daily(value, &fields.at("daily"), problems),
        // Without a time of its own the day is any 24 hours.
        Some(_) => match fields.number("daily", problems) {
            Some(requests) if requests > 0 => budget.windows.push(Window {
                requests,
                window_s: 86_400,
            }),
            Some(_) => problems.add(&fields.at("daily"), "bad_value", "at least 1, or nothing can be sent"),
            None => {}
        },
    }
    Some(budget)
}

/// `100/10s`.
fn allowance(text: &str) -> Option<Window> {
    let (requests, window) = text.split_once('/')?;
    let (requests, window_s) = (requests.trim().parse().ok()?, fields::duration_s(window.trim())?);
    (requests > 0 && window_s > 0).then_some(Window { requests, window_s })
}

fn read_windows(fields: &Fields<'_>, problems: &mut Problems) -> Vec<Window> {
    let texts: Vec<(String, &str)> = match fields.get("window") {
        None => return Vec::new(),
        Some(Value::String(text)) => vec![(fields.at("window"), text)],
        Some(Value::Array(items)) if items.len() <= MAX_WINDOWS => items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let place = pointer::join(&fields.at("window"), &index.to_string());
                (place, item.as_str().unwrap_or_default())
            })
            .collect(),
        Some(_) => {
            let message = format!("an allowance such as 100/60s, or a list of at most {MAX_WINDOWS}");
            problems.add(&fields.at("window"), "bad_value", message);
            return Vec::new();
        }
    };
    let mut windows = Vec::with_capacity(texts.len());
    for (place, text) in texts {
        match allowance(text) {
            Some(window) => windows.push(window),
            None => problems.add(
                &place,
                "bad_value",
                format!("`{text}` is not an allowance such as 100/60s"),
            ),
        }
    }
    windows
}

fn read_bucket(value: &Value, place: &str, problems: &mut Problems) -> Option<Bucket> {
    let fields = Fields::open(value, place, &["size", "refill"], problems)?;
    fields.required("size", problems)?;
    let size = fields.number("size", problems).filter(|size| *size > 0);
    if size.is_none() {
        problems.add(&fields.at("size"), "bad_value", "a whole number of at least 1");
    }
    let text = fields.required_text("refill", problems)?;
    let Some(refill) = allowance(text) else {
        let message = format!("`{text}` is not what comes back in a span, such as 2/1s");
        problems.add(&fields.at("refill"), "bad_value", message);
        return None;
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate; nobody allows 2^52 requests in a second"
    )]
    let refill_per_s = refill.requests as f64 / refill.window_s as f64;
    Some(Bucket {
        size: size?,
        refill_per_s,
    })
}

fn read_daily(value: &Value, place: &str, problems: &mut Problems) -> Option<Daily> {
    let fields = Fields::open(value, place, &["requests", "resets", "timezone"], problems)?;
    fields.required("requests", problems)?;
    let requests = fields.number("requests", problems).filter(|requests| *requests > 0);
    if requests.is_none() {
        problems.add(&fields.at("requests"), "bad_value", "a whole number of at least 1");
    }
    let text = fields.required_text("resets", problems)?;
    let resets = Time::strptime("%H:%M", text).ok();
    if resets.is_none() {
        let message = format!("`{text}` is not a time of the day such as 00:00");
        problems.add(&fields.at("resets"), "bad_value", message);
    }
    let name = fields.text("timezone", problems).unwrap_or("UTC");
    let zones = TimeZoneDatabase::bundled();
    let zone = zones.get(name).ok().filter(|zone| zone.iana_name() == Some(name));
    if zone.is_none() {
        let known: Vec<String> = zones.available().map(|known| known.to_string()).collect();
        let near = nearest(name, known.iter().map(String::as_str));
        let suggestion = near.map_or_else(
            || "a name of the IANA database such as Europe/Berlin".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("there is no time zone `{name}`");
        problems.add_with_suggestion(&fields.at("timezone"), "bad_value", message, suggestion);
    }
    Some(Daily {
        requests: requests?,
        resets: resets?,
        zone: zone?,
    })
}
