//! One cron line: five fields, or six with seconds in front, as Vixie cron reads them, with `L` and `#` of Quartz.
//!
//! Knows the calendar and nothing of time zones. Sources: crontab(5) of Vixie cron 3.0 and cronie 1.7, and the
//! `CronExpression` page of Quartz 2.4 for `L`, `#` and `?` (read November 2026).

use jiff::civil::{Date, DateTime};

use super::MAX_CRON_BYTES;
use crate::problem::nearest;

/// How far a line is searched for its next day: after one cycle of the calendar the same days come again.
const CALENDAR_CYCLE_YEARS: i16 = 400;
/// Where the search begins that proves that a line fires at all.
const FIRST_DAY: Date = jiff::civil::date(2000, 1, 1);

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MACROS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A cron line, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cron {
    text: String,
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    /// `L`: the last day of the month.
    last_day: bool,
    months: u64,
    weekdays: u64,
    /// For each weekday from Sunday: bits 1 to 5 for `#1` to `#5`, bit 0 for `L`, the last of the month.
    nth: [u8; 7],
    /// A day must fit both fields of days, because one of them begins with `*`; otherwise one is enough.
    both_days: bool,
    /// The hours begin with `*`, so that it fires by real hours and not by the clock on the wall.
    every_hour: bool,
}

/// What is wrong with a cron line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CronError {
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl CronError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            suggestion: None,
        }
    }

    fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

/// One field of the line while it is read.
struct Field<'a> {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
    text: &'a str,
    /// Where it stands in the line, counted in characters from 1.
    at: usize,
}

/// What a field says, beside the words that only days know.
#[derive(Default)]
struct Values {
    bits: u64,
    star: bool,
    last: bool,
    nth: [u8; 7],
}

impl Cron {
    pub(super) fn parse(text: &str) -> Result<Self, CronError> {
        let line = text.trim();
        if text.len() > MAX_CRON_BYTES {
            return Err(CronError::new(format!(
                "a cron line has at most {MAX_CRON_BYTES} bytes"
            )));
        }
        if line.starts_with('@') {
            let wanted = line.to_ascii_lowercase();
            let Some((_, stands_for)) = MACROS.iter().find(|(name, _)| *name == wanted) else {
                let known: Vec<&str> = MACROS.iter().map(|(name, _)| *name).collect();
                let error = CronError::new(format!("`{line}` is none of: {}", known.join(", ")));
                return Err(match nearest(&wanted, known) {
                    Some(near) => error.suggest(format!("did you mean `{near}`?")),
                    None => error,
                });
            };
            let mut cron = Self::parse(stands_for)?;
            line.clone_into(&mut cron.text);
            return Ok(cron);
        }
        if line.contains("TZ=") {
            return Err(CronError::new("a cron line names no time zone").suggest("write `timezone:` beside `cron:`"));
        }
        let words = words(text);
        let with_seconds = words.len() == 6;
        if words.len() != 5 && !with_seconds {
            let message = format!(
                "a cron line has 5 fields (minute, hour, day of month, month, day of week), or 6 with seconds in front; \
                 this one has {}",
                words.len()
            );
            return Err(CronError::new(message));
        }
        let mut words = words.into_iter();
        let mut field = |name, least, most, names| {
            let (at, text) = words.next().unwrap_or_default();
            let field = Field {
                name,
                least,
                most,
                names,
                text,
                at,
            };
            field.read()
        };
        let seconds = if with_seconds {
            field("second", 0, 59, &[])?.bits
        } else {
            1
        };
        let minutes = field("minute", 0, 59, &[])?;
        let hours = field("hour", 0, 23, &[])?;
        let days = field(DAY_OF_MONTH, 1, 31, &[])?;
        let months = field("month", 1, 12, &MONTHS)?;
        let weekdays = field(DAY_OF_WEEK, 0, 7, &WEEKDAYS)?;
        let cron = Self {
            text: line.to_owned(),
            seconds,
            minutes: minutes.bits,
            hours: hours.bits,
            days: days.bits,
            last_day: days.last,
            months: months.bits,
            weekdays: (weekdays.bits | weekdays.bits >> 7) & 0x7f,
            nth: weekdays.nth,
            both_days: days.star || weekdays.star,
            every_hour: hours.star || hours.bits == (1 << 24) - 1,
        };
        if cron.next(FIRST_DAY.at(0, 0, 0, 0)).is_none() {
            return Err(CronError::new("there is no such day in any year"));
        }
        Ok(cron)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn every_hour(&self) -> bool {
        self.every_hour
    }

    /// The first time at `from` or later that fits. `None`: there is none.
    pub(super) fn next(&self, from: DateTime) -> Option<DateTime> {
        let last_year = from.year().saturating_add(CALENDAR_CYCLE_YEARS);
        let mut date = from.date();
        let mut time = (from.hour(), from.minute(), from.second());
        while date.year() <= last_year {
            if !has(self.months, date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
                time = (0, 0, 0);
                continue;
            }
            if self.day_fits(date)
                && let Some((hour, minute, second)) = self.next_time(time)
            {
                return Some(date.at(hour, minute, second, 0));
            }
            date = date.tomorrow().ok()?;
            time = (0, 0, 0);
        }
        None
    }

    fn day_fits(&self, date: Date) -> bool {
        let day = date.day();
        let last = date.days_in_month();
        let by_day = has(self.days, day) || self.last_day && day == last;
        let weekday = date.weekday().to_sunday_zero_offset();
        let nth = self
            .nth
            .get(usize::try_from(weekday).unwrap_or(0))
            .copied()
            .unwrap_or(0);
        let by_weekday =
            has(self.weekdays, weekday) || has(nth.into(), (day - 1) / 7 + 1) || nth & 1 == 1 && day + 7 > last;
        if self.both_days {
            by_day && by_weekday
        } else {
            by_day || by_weekday
        }
    }

    fn next_time(&self, (hour, minute, second): (i8, i8, i8)) -> Option<(i8, i8, i8)> {
        let first = |bits: u64, from: i8| (from..64).find(|value| has(bits, *value));
        let (first_minute, first_second) = (first(self.minutes, 0)?, first(self.seconds, 0)?);
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = first(self.seconds, second)
            {
                return Some((hour, minute, second));
            }
            if let Some(minute) = first(self.minutes, minute + 1) {
                return Some((hour, minute, first_second));
            }
        }
        let hour = first(self.hours, hour + 1)?;
        Some((hour, first_minute, first_second))
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| value < 64 && bits >> value & 1 == 1)
}

/// The fields of a line, each with its place in characters from 1.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut rest = text;
    let mut at = 1;
    loop {
        let trimmed = rest.trim_start();
        at += rest.chars().count() - trimmed.chars().count();
        if trimmed.is_empty() {
            return words;
        }
        let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
        let (word, after) = trimmed.split_at(end);
        words.push((at, word));
        at += word.chars().count();
        rest = after;
    }
}

const DAY_OF_MONTH: &str = "day of month";
const DAY_OF_WEEK: &str = "day of week";

impl Field<'_> {
    fn wrong(&self, at: usize, part: &str, why: &str) -> CronError {
        let shown = if part.is_empty() { "nothing" } else { part };
        CronError::new(format!("`{shown}` at character {at} ({}) {why}", self.name))
    }

    fn read(&self) -> Result<Values, CronError> {
        let mut values = Values::default();
        let mut at = self.at;
        for part in self.text.split(',') {
            self.part(part, at, &mut values)?;
            at += part.chars().count() + 1;
        }
        Ok(values)
    }

    fn part(&self, part: &str, at: usize, values: &mut Values) -> Result<(), CronError> {
        if part.is_empty() {
            return Err(self.wrong(at, part, "is no value: a comma stands between two"));
        }
        if self.special(part, at, values)? {
            return Ok(());
        }
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => {
                let step_at = at + range.chars().count() + 1;
                (range, Some(self.step(step, step_at)?))
            }
        };
        // Day 7 is Sunday again; `*` takes it once.
        let most = if self.name == DAY_OF_WEEK { 6 } else { self.most };
        let (from, to) = if range == "*" || range == "?" {
            values.star = true;
            (self.least, most)
        } else if let Some((from, to)) = range.split_once('-') {
            let low = self.value(from, at)?;
            let mut high = self.value(to, at + from.chars().count() + 1)?;
            if self.name == DAY_OF_WEEK && high == 0 && low > 0 {
                high = 7;
            }
            if low > high {
                let split = format!("write `{from}-{},{}-{to}`", self.shown(most), self.shown(self.least));
                return Err(self.wrong(at, range, "ends before it begins").suggest(split));
            }
            (low, high)
        } else {
            let value = self.value(range, at)?;
            (value, if step.is_some() { most.max(value) } else { value })
        };
        let step = step.unwrap_or(1);
        for value in (from..=to).step_by(usize::try_from(step).unwrap_or(1)) {
            values.bits |= 1 << value;
        }
        Ok(())
    }

    /// `L`, `fri#2` and `friL`: whether it was one of them.
    fn special(&self, part: &str, at: usize, values: &mut Values) -> Result<bool, CronError> {
        let upper = part.to_ascii_uppercase();
        if self.name == DAY_OF_MONTH && upper == "L" {
            values.last = true;
            return Ok(true);
        }
        if self.name != DAY_OF_WEEK {
            return Ok(false);
        }
        let (day, bit) = if let Some((day, nth)) = part.split_once('#') {
            let place = at + day.chars().count() + 1;
            let nth = match nth.parse::<u8>() {
                Ok(nth @ 1..=5) => nth,
                Ok(_) | Err(_) => return Err(self.wrong(place, nth, "is not 1 to 5")),
            };
            (day, nth)
        } else if let Some(day) = part.strip_suffix(['L', 'l']) {
            (day, 0)
        } else {
            return Ok(false);
        };
        let day = self.value(day, at)? % 7;
        if let Some(nth) = values.nth.get_mut(usize::try_from(day).unwrap_or(0)) {
            *nth |= 1 << bit;
        }
        Ok(true)
    }

    fn step(&self, text: &str, at: usize) -> Result<u32, CronError> {
        let span = self.most - self.least;
        match text.parse::<u32>() {
            Ok(step) if step >= 1 && step <= span.max(1) && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(step),
            Ok(step) if step > span => {
                let error = self.wrong(at, text, &format!("is a larger step than the field is long ({span})"));
                Err(error.suggest("for spans that do not fit a field write `every:` in place of `cron:`"))
            }
            Ok(_) | Err(_) => Err(self.wrong(at, text, &format!("is no step: 1 to {span} is wanted"))),
        }
    }

    fn value(&self, text: &str, at: usize) -> Result<u32, CronError> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text.parse::<u32>() {
                Ok(value) if (self.least..=self.most).contains(&value) => Ok(value),
                Ok(_) | Err(_) => Err(self.wrong(at, text, &format!("is not {} to {}", self.least, self.most))),
            };
        }
        let lower = text.to_ascii_lowercase();
        if let Some(position) = self.names.iter().position(|name| *name == lower) {
            return Ok(u32::try_from(position).unwrap_or(0) + self.least);
        }
        let mut why = format!("is not {} to {}", self.least, self.most);
        if let (Some(first), Some(last)) = (self.names.first(), self.names.last()) {
            why.push_str(&format!(" or {first} to {last}"));
        }
        let error = self.wrong(at, text, &why);
        let short: String = lower.chars().take(3).collect();
        Err(match self.names.iter().find(|name| **name == short) {
            Some(name) => error.suggest(format!("did you mean `{name}`?")),
            None => error,
        })
    }

    /// A value as its field names it.
    fn shown(&self, value: u32) -> String {
        let name = usize::try_from(value - self.least)
            .ok()
            .and_then(|at| self.names.get(at));
        name.map_or_else(|| value.to_string(), |name| (*name).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(line: &str, from: &str, expected: &[&str]) {
        let cron = Cron::parse(line).unwrap();
        let mut at: DateTime = from.parse().unwrap();
        for expected in expected {
            let found = cron.next(at).unwrap();
            assert_eq!(found, expected.parse().unwrap(), "{line} after {at}");
            at = found.checked_add(jiff::Span::new().seconds(1)).unwrap();
        }
    }

    #[test]
    fn fields_mean_what_crontab_says() {
        times(
            "*/20 9 * * mon-fri",
            "2026-11-20T09:30",
            &["2026-11-20T09:40", "2026-11-23T09:00"],
        );
        times(
            "15,45 8-10/2 * jan,jul *",
            "2026-11-20T00:00",
            &["2027-01-01T08:15", "2027-01-01T08:45", "2027-01-01T10:15"],
        );
        times(
            "5/25 * * * *",
            "2026-11-20T00:00",
            &[
                "2026-11-20T00:05",
                "2026-11-20T00:30",
                "2026-11-20T00:55",
                "2026-11-20T01:05",
            ],
        );
        times(
            "*/30 0 0 1 1 ?",
            "2026-11-20T00:00",
            &["2027-01-01T00:00:00", "2027-01-01T00:00:30", "2028-01-01T00:00"],
        );
        times("@weekly", "2026-11-20T00:00", &["2026-11-22T00:00", "2026-11-29T00:00"]);
        times("0 0 * * 7", "2026-11-20T00:00", &["2026-11-22T00:00"]);
        times(
            "0 0 * * fri-sun",
            "2026-11-20T00:01",
            &["2026-11-21T00:00", "2026-11-22T00:00", "2026-11-27T00:00"],
        );
    }

    #[test]
    fn days_of_month_and_week_are_either_unless_one_begins_with_a_star() {
        times(
            "0 0 13 * fri",
            "2026-11-01T00:00",
            &["2026-11-06T00:00", "2026-11-13T00:00", "2026-11-20T00:00"],
        );
        times(
            "0 0 1 * tue",
            "2026-11-01T00:00",
            &["2026-11-01T00:00", "2026-11-03T00:00"],
        );
        times(
            "0 0 */2 * fri",
            "2026-11-01T00:00",
            &["2026-11-13T00:00", "2026-11-27T00:00"],
        );
    }

    #[test]
    fn last_and_nth_days() {
        times(
            "0 12 L * *",
            "2027-01-31T13:00",
            &["2027-02-28T12:00", "2027-03-31T12:00"],
        );
        times(
            "0 12 * * fri#2",
            "2026-11-01T00:00",
            &["2026-11-13T12:00", "2026-12-11T12:00"],
        );
        times(
            "0 12 * * friL",
            "2026-11-01T00:00",
            &["2026-11-27T12:00", "2026-12-25T12:00"],
        );
        times(
            "0 12 * * 1#5",
            "2026-11-01T00:00",
            &["2026-11-30T12:00", "2027-03-29T12:00"],
        );
        times("0 0 29 2 *", "2097-01-01T00:00", &["2104-02-29T00:00"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let check = |line: &str, message: &str, suggestion: Option<&str>| {
            let error = Cron::parse(line).unwrap_err();
            assert_eq!(
                (error.message.as_str(), error.suggestion.as_deref()),
                (message, suggestion),
                "{line}"
            );
        };
        check("0 25 * * *", "`25` at character 3 (hour) is not 0 to 23", None);
        check(
            "0  9 * *  monday",
            "`monday` at character 11 (day of week) is not 0 to 7 or sun to sat",
            Some("did you mean `mon`?"),
        );
        check(
            "0 9 * foo,jan *",
            "`foo` at character 7 (month) is not 1 to 12 or jan to dec",
            None,
        );
        check(
            "0,,5 9 * * *",
            "`nothing` at character 3 (minute) is no value: a comma stands between two",
            None,
        );
        check(
            "0 22-2 * * *",
            "`22-2` at character 3 (hour) ends before it begins",
            Some("write `22-23,0-2`"),
        );
        check(
            "0 0 * * fri-tue",
            "`fri-tue` at character 9 (day of week) ends before it begins",
            Some("write `fri-sat,sun-tue`"),
        );
        check(
            "*/90 * * * *",
            "`90` at character 3 (minute) is a larger step than the field is long (59)",
            Some("for spans that do not fit a field write `every:` in place of `cron:`"),
        );
        check(
            "*/0 * * * *",
            "`0` at character 3 (minute) is no step: 1 to 59 is wanted",
            None,
        );
        check("+5 * * * *", "`+5` at character 1 (minute) is not 0 to 59", None);
        check("0 0 * * fri#6", "`6` at character 13 (day of week) is not 1 to 5", None);
        check("0 0 30 2 *", "there is no such day in any year", None);
        check(
            "@dail",
            "`@dail` is none of: @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly",
            Some("did you mean `@daily`?"),
        );
        check(
            "CRON_TZ=UTC 0 0 * * *",
            "a cron line names no time zone",
            Some("write `timezone:` beside `cron:`"),
        );
        check(
            "0 9 * *",
            "a cron line has 5 fields (minute, hour, day of month, month, day of week), or 6 with seconds in front; this one has 4",
            None,
        );
    }
}
