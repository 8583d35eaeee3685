//! Schedules: when they fire, above all on the days on which clocks change, and what becomes of missed times.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use proptest::prelude::*;
use serde_json::{Value, json};
use weir_workflow_engine::{
    CatchUp, Definition, Due, MAX_CATCH_UP, MAX_CRON_BYTES, MAX_CRON_LINES, MAX_EVERY, MAX_MISSED_COUNTED,
    MAX_SCHEDULE_INPUT_BYTES, MIN_EVERY, SKIP_AFTER, Schedule, Timestamp, Trigger,
};

use crate::support::yaml;

fn parse(schedule: &str) -> Result<Schedule, Vec<String>> {
    let document = yaml(&format!(
        "name: s\non: {{ schedule: {schedule} }}\nsteps: [{{ id: x, set: {{ a: 1 }} }}]"
    ));
    let definition = Definition::parse(&document)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    match definition.trigger() {
        Trigger::Schedule(schedule) => Ok((**schedule).clone()),
        other => panic!("{other:?}"),
    }
}

fn schedule(text: &str) -> Schedule {
    parse(text).unwrap()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Walks from `after` and compares what fires, by the clock of UTC.
fn fires(text: &str, after: &str, expected: &[&str]) {
    let found = schedule(text).upcoming(time(after), expected.len());
    let expected: Vec<Timestamp> = expected.iter().map(|at| time(at)).collect();
    assert_eq!(found, expected, "{text} after {after}");
}

#[test]
fn a_time_that_does_not_exist_fires_right_after_the_gap() {
    // 28 March 2027: 02:00 becomes 03:00 in Berlin.
    fires(
        "{ cron: '30 2 * * *', timezone: Europe/Berlin }",
        "2027-03-27T00:00:00Z",
        &["2027-03-27T01:30:00Z", "2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"],
    );
    // Several times in the gap, and the one right after it, fire once.
    fires(
        "{ cron: '0,30 2,3 * * *', timezone: Europe/Berlin }",
        "2027-03-28T00:00:00Z",
        &["2027-03-28T01:00:00Z", "2027-03-28T01:30:00Z", "2027-03-29T00:00:00Z"],
    );
    // Cairo puts its clocks forward at midnight: the day begins at one o'clock.
    fires(
        "{ cron: '@daily', timezone: Africa/Cairo }",
        "2026-04-22T12:00:00Z",
        &["2026-04-22T22:00:00Z", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"],
    );
}

#[test]
fn a_time_that_comes_twice_fires_once() {
    // 25 October 2026: 03:00 becomes 02:00 in Berlin.
    fires(
        "{ cron: '30 2 * * *', timezone: Europe/Berlin }",
        "2026-10-24T12:00:00Z",
        &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
    );
    // Also when it is asked for between the two.
    fires(
        "{ cron: '30 2 * * *', timezone: Europe/Berlin }",
        "2026-10-25T01:00:00Z",
        &["2026-10-26T01:30:00Z"],
    );
    fires(
        "{ cron: '*/30 2 * * *', timezone: Europe/Berlin }",
        "2026-10-24T12:00:00Z",
        &["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:00:00Z"],
    );
}

#[test]
fn hours_that_begin_with_a_star_are_real_hours() {
    let hourly = "{ cron: '15 * * * *', timezone: Europe/Berlin }";
    fires(
        hourly,
        "2026-10-24T23:30:00Z",
        &["2026-10-25T00:15:00Z", "2026-10-25T01:15:00Z", "2026-10-25T02:15:00Z"],
    );
    fires(
        hourly,
        "2027-03-28T00:00:00Z",
        &["2027-03-28T00:15:00Z", "2027-03-28T01:15:00Z", "2027-03-28T02:15:00Z"],
    );
    // Every other hour on the wall: two o'clock comes twice, and in spring not at all.
    let second = "{ cron: '0 */2 * * *', timezone: Europe/Berlin }";
    fires(
        second,
        "2026-10-24T22:30:00Z",
        &["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T03:00:00Z"],
    );
    fires(
        second,
        "2027-03-27T23:00:00Z",
        &["2027-03-28T02:00:00Z", "2027-03-28T04:00:00Z"],
    );
}

#[test]
fn several_lines_and_seconds() {
    fires(
        "{ cron: ['0 9 * * mon-fri', '0 11 * * sat', '0 9 1 * *'], timezone: America/New_York }",
        "2026-11-27T00:00:00Z",
        &[
            "2026-11-27T14:00:00Z",
            "2026-11-28T16:00:00Z",
            "2026-11-30T14:00:00Z",
            "2026-12-01T14:00:00Z",
            "2026-12-02T14:00:00Z",
        ],
    );
    fires(
        "{ cron: '*/20 59 23 * * *' }",
        "2026-11-27T23:59:20Z",
        &["2026-11-27T23:59:40Z", "2026-11-28T23:59:00Z"],
    );
}

#[test]
fn every_counts_from_1970() {
    fires(
        "{ every: 15m }",
        "2026-11-25T16:27:18.123Z",
        &["2026-11-25T16:30:00Z", "2026-11-25T16:45:00Z"],
    );
    fires("{ every: 1d }", "2026-11-25T00:00:00Z", &["2026-11-26T00:00:00Z"]);
    fires(
        "{ every: 90m }",
        "1969-12-31T23:00:00Z",
        &["1970-01-01T00:00:00Z", "1970-01-01T01:30:00Z"],
    );
}

#[test]
fn what_is_wrong_with_a_schedule_is_said_with_its_place() {
    let check = |text: &str, expected: &[&str]| assert_eq!(parse(text).unwrap_err(), expected, "{text}");
    check(
        "{ crn: '0 9 * * *', every: 1m }",
        &[
            "/on/schedule/crn: `crn` is not supported here; supported: cron, timezone, every, catch_up, max_catch_up, input (did you mean `cron`?)",
        ],
    );
    check(
        "{ cron: '0 9 * * *', every: 1m }",
        &["/on/schedule: a schedule has either `cron` or `every`"],
    );
    check("{}", &["/on/schedule: a schedule has either `cron` or `every`"]);
    check(
        "{ cron: ['0 9 * * *', '0 24 * * *'] }",
        &["/on/schedule/cron/1: `24` at character 3 (hour) is not 0 to 23"],
    );
    check(
        "{ cron: [] }",
        &["/on/schedule/cron: `cron` is one line, or a list of 1 to 16"],
    );
    check(
        "{ cron: 5 }",
        &["/on/schedule/cron: a cron line as text is wanted here, not a number"],
    );
    let zone = |name: &str, near: &str| {
        let expected =
            format!("/on/schedule/timezone: \"{name}\" is not the name of a time zone, such as `Europe/Berlin`{near}");
        check(&format!("{{ cron: '0 9 * * *', timezone: {name} }}"), &[&expected]);
    };
    zone("Europe/Berln", " (did you mean `Europe/Berlin`?)");
    zone("europe/berlin", " (did you mean `Europe/Berlin`?)");
    zone("New York", " (did you mean `America/New_York`?)");
    zone("Middle-earth", "");
    check(
        "{ every: 1m, timezone: UTC }",
        &[
            "/on/schedule/timezone: `every` counts from 1970-01-01T00:00Z and knows no time zone (leave `timezone` out, or write `cron`)",
        ],
    );
    check(
        "{ every: 1500ms }",
        &["/on/schedule/every: `every` must be whole seconds, at least 1s"],
    );
    check(
        "{ every: 0s }",
        &["/on/schedule/every: `every` must be more than nothing and at most 366d"],
    );
    check(
        "{ every: 1m, catch_up: last }",
        &["/on/schedule/catch_up: \"last\" is none of: skip, one, all"],
    );
    check(
        "{ every: 1m, max_catch_up: 5 }",
        &["/on/schedule/max_catch_up: `max_catch_up` belongs to `catch_up: all`"],
    );
    check(
        "{ every: 1m, catch_up: all, max_catch_up: 1001 }",
        &["/on/schedule/max_catch_up: `max_catch_up` must be a whole number from 1 to 1000"],
    );
    check(
        "{ every: 1m, input: [] }",
        &["/on/schedule/input: an object is wanted here, not a list"],
    );
    check(
        "{ every: 1m, input: { day: ['{{ now }}'] } }",
        &[
            "/on/schedule/input/day/0: the input of a schedule is plain data: nothing is evaluated here (compute it in a `set` step from `event.data.scheduled_for`)",
        ],
    );
}

#[test]
fn schedules_stop_at_their_bounds() {
    let refused = |schedule: &str| parse(schedule).is_err();
    let lines = |count: usize| format!("{{ cron: [{}] }}", vec!["'0 9 * * *'"; count].join(", "));
    // A list of minutes of this many bytes.
    let line = |bytes: usize| {
        let rest = "0 * * * *";
        let minutes = "0,".repeat((bytes - rest.len()) / 2);
        format!("{{ cron: '{minutes}{rest}' }}")
    };
    let catch_up = |count: u32| format!("{{ every: 1m, catch_up: all, max_catch_up: {count} }}");
    let input = |bytes: usize| {
        format!(
            "{{ every: 1m, input: {{ a: '{}' }} }}",
            "x".repeat(bytes - r#"{"a":""}"#.len())
        )
    };
    let most = (MAX_CRON_LINES, MAX_CRON_BYTES, MAX_CATCH_UP, MAX_SCHEDULE_INPUT_BYTES);
    let every = |span: Duration| format!("{{ every: {}ms }}", span.as_millis());
    for fits in [
        lines(most.0),
        line(most.1 - 1),
        catch_up(most.2),
        input(most.3),
        every(MIN_EVERY),
        every(MAX_EVERY),
    ] {
        assert!(!refused(&fits), "{:?}", parse(&fits));
    }
    for exceeds in [
        lines(most.0 + 1),
        line(most.1 + 1),
        catch_up(most.2 + 1),
        input(most.3 + 1),
        every(MIN_EVERY - Duration::from_millis(1)),
        every(MAX_EVERY + Duration::from_secs(1)),
    ] {
        assert!(refused(&exceeds), "{exceeds}");
    }
}

#[test]
fn the_event_of_an_instant() {
    let plan = schedule(
        "{ cron: '0 9 * * *', timezone: Europe/Berlin, catch_up: all, max_catch_up: 3, input: { region: eu } }",
    );
    let at = time("2026-11-25T08:00:00Z");
    assert_eq!(plan.catch_up(), CatchUp::All { most: 3 });
    assert_eq!(
        plan.event_data(at, Some(time("2026-11-24T08:00:00Z")), 0),
        json!({
            "scheduled_for": "2026-11-25T08:00:00.000Z",
            "previous": "2026-11-24T08:00:00.000Z",
            "missed": 0,
            "schedule": { "cron": "0 9 * * *", "timezone": "Europe/Berlin" },
            "input": { "region": "eu" },
        })
    );
    let plain = schedule("{ every: 90s }");
    assert_eq!(plain.catch_up(), CatchUp::One);
    assert_eq!(plain.event_data(at, None, 2)["schedule"], json!({ "every": "90s" }));
    assert_eq!(plain.event_data(at, None, 2)["previous"], Value::Null);
}

fn due(text: &str, after: &str, now: &str, fire: &[&str], missed: u64) {
    let fire = fire.iter().map(|at| time(at)).collect();
    assert_eq!(
        schedule(text).due(time(after), time(now)),
        Due { fire, missed },
        "{text} {after} {now}"
    );
}

#[test]
fn an_instant_that_has_just_passed_fires_under_every_policy() {
    for policy in ["skip", "one", "all"] {
        let text = format!("{{ every: 1m, catch_up: {policy} }}");
        due(&text, "2026-11-25T09:00:00Z", "2026-11-25T09:00:59.999Z", &[], 0);
        due(
            &text,
            "2026-11-25T09:00:00Z",
            "2026-11-25T09:01:00Z",
            &["2026-11-25T09:01:00Z"],
            0,
        );
        due(
            &text,
            "2026-11-25T09:00:00Z",
            "2026-11-25T09:01:09.999Z",
            &["2026-11-25T09:01:00Z"],
            0,
        );
        // A clock that was set back: nothing fires again.
        due(&text, "2026-11-25T09:00:00Z", "2026-11-25T08:00:00Z", &[], 0);
    }
}

#[test]
fn after_downtime_the_policy_decides() {
    let (after, now) = ("2026-11-23T08:00:00Z", "2026-11-25T12:00:00Z");
    let daily = |policy: &str| format!("{{ cron: '0 8 * * *', {policy} }}");
    due(&daily("catch_up: skip"), after, now, &[], 2);
    due(&daily("catch_up: one"), after, now, &["2026-11-25T08:00:00Z"], 1);
    due(
        &daily("catch_up: all"),
        after,
        now,
        &["2026-11-24T08:00:00Z", "2026-11-25T08:00:00Z"],
        0,
    );
    due(
        &daily("catch_up: all, max_catch_up: 1"),
        after,
        now,
        &["2026-11-25T08:00:00Z"],
        1,
    );
    // Skipping keeps the one that is hardly late.
    due(
        &daily("catch_up: skip"),
        after,
        "2026-11-25T08:00:05Z",
        &["2026-11-25T08:00:00Z"],
        1,
    );
}

#[test]
fn a_long_downtime_is_bounded_work() {
    let text = format!("{{ cron: '* * * * * *', catch_up: all, max_catch_up: {MAX_CATCH_UP} }}");
    let now = time("2026-11-25T12:00:00.500Z");
    for after in ["2026-11-01T00:00:00Z", "1990-01-01T00:00:00Z"] {
        let found = schedule(&text).due(time(after), now);
        assert_eq!(found.fire.len(), usize::try_from(MAX_CATCH_UP).unwrap());
        assert_eq!(found.fire.last(), Some(&time("2026-11-25T12:00:00Z")));
        assert_eq!(found.missed, MAX_MISSED_COUNTED);
    }
    let yearly = schedule("{ cron: '@yearly' }").due(time("1990-06-01T00:00:00Z"), now);
    assert_eq!((yearly.fire, yearly.missed), (vec![time("2026-01-01T00:00:00Z")], 35));
}

/// A field of a cron line: its text, what it holds, and whether it begins with a star.
#[derive(Clone, Debug)]
struct Field {
    text: String,
    holds: Vec<i8>,
    star: bool,
}

fn field(least: i8, most: i8) -> impl Strategy<Value = Field> {
    let star = (1..=(most - least)).prop_map(move |step| Field {
        text: if step == 1 { "*".to_owned() } else { format!("*/{step}") },
        holds: (least..=most).step_by(usize::try_from(step).unwrap()).collect(),
        star: true,
    });
    let list = proptest::collection::btree_set(least..=most, 1..4).prop_map(|values| Field {
        text: values.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        holds: values.into_iter().collect(),
        star: false,
    });
    let range = (least..=most, least..=most, 1..=4i8).prop_map(move |(one, other, step)| {
        let (low, high) = (one.min(other), one.max(other));
        Field {
            text: format!("{low}-{high}/{step}"),
            holds: (low..=high).step_by(usize::try_from(step).unwrap()).collect(),
            star: false,
        }
    });
    prop_oneof![2 => star, 2 => list, 1 => range]
}

/// Small hours more often: that is when clocks change.
fn hour() -> impl Strategy<Value = Field> {
    let small = proptest::collection::btree_set(0..=4i8, 1..3).prop_map(|values| Field {
        text: values.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        holds: values.into_iter().collect(),
        star: false,
    });
    prop_oneof![field(0, 23), small]
}

#[derive(Clone, Debug)]
struct Line {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Line {
    fn text(&self) -> String {
        let fields = [&self.minute, &self.hour, &self.day, &self.month, &self.weekday];
        fields.map(|field| field.text.as_str()).join(" ")
    }

    fn fits(&self, wall: DateTime) -> bool {
        let day = self.day.holds.contains(&wall.day());
        let weekday = self.weekday.holds.contains(&wall.weekday().to_sunday_zero_offset());
        let days = if self.day.star || self.weekday.star {
            day && weekday
        } else {
            day || weekday
        };
        days && self.month.holds.contains(&wall.month())
            && self.hour.holds.contains(&wall.hour())
            && self.minute.holds.contains(&wall.minute())
    }

    fn real_hours(&self) -> bool {
        self.hour.star || self.hour.holds.len() == 24
    }
}

fn line() -> impl Strategy<Value = Line> {
    let whole = |least, most| {
        Just(Field {
            text: "*".to_owned(),
            holds: (least..=most).collect(),
            star: true,
        })
    };
    let day = prop_oneof![2 => whole(1, 31).boxed(), 1 => field(1, 31).boxed()];
    let month = prop_oneof![3 => whole(1, 12).boxed(), 1 => field(1, 12).boxed()];
    let weekday = prop_oneof![2 => whole(0, 6).boxed(), 1 => field(0, 6).boxed()];
    (field(0, 59), hour(), day, month, weekday).prop_map(|(minute, hour, day, month, weekday)| Line {
        minute,
        hour,
        day,
        month,
        weekday,
    })
}

const ZONES: [(&str, i16); 9] = [
    ("Europe/Berlin", 2026),
    ("America/New_York", 2027),
    // Half an hour.
    ("Australia/Lord_Howe", 2026),
    // At midnight.
    ("Africa/Cairo", 2026),
    ("America/Santiago", 2026),
    // Back before midnight, over the change of the date.
    ("America/Havana", 2026),
    // A whole day is left out.
    ("Pacific/Apia", 2011),
    ("Africa/Casablanca", 2026),
    ("Asia/Kolkata", 2026),
];

/// Every minute from `from` on, looked at one by one.
fn scan(line: &Line, zone: &TimeZone, from: jiff::Timestamp, minutes: i64) -> Vec<Timestamp> {
    let at = |minute: i64| jiff::Timestamp::from_second(from.as_second() + minute * 60).unwrap();
    let mut found = Vec::new();
    let mut shown: Option<DateTime> = None;
    // Begins a day early, so that what was shown before is known.
    for minute in -1440..minutes {
        let wall = zone.to_datetime(at(minute));
        let fires = if line.real_hours() {
            line.fits(wall)
        } else {
            // Everything on the wall that nobody has seen yet, up to what it shows now.
            let mut next = shown.map_or(wall, |shown| shown + jiff::Span::new().minutes(1));
            let mut fires = false;
            while next <= wall {
                fires |= line.fits(next);
                next += jiff::Span::new().minutes(1);
            }
            fires
        };
        shown = shown.max(Some(wall));
        if fires && minute > 0 {
            found.push(Timestamp::from_unix_ms(at(minute).as_millisecond()));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Over the days around a change of the clock, iterating finds what looking at each minute finds, in order.
    #[test]
    fn iterating_is_the_same_as_looking_at_each_minute(
        line in line(), place in 0..ZONES.len(), change in 0..4usize, before_h in 0..40i64,
    ) {
        let (name, year) = ZONES[place];
        let zone = TimeZoneDatabase::bundled().get(name).unwrap();
        let new_year = zone.to_timestamp(jiff::civil::date(year, 1, 1).at(0, 0, 0, 0)).unwrap();
        let changes: Vec<jiff::Timestamp> = zone.following(new_year).take(4).map(|change| change.timestamp()).collect();
        let around = changes.get(change % changes.len().max(1)).copied().unwrap_or(new_year);
        let from = jiff::Timestamp::from_second(around.as_second() - before_h * 3600).unwrap();
        let minutes = 4 * 1440;
        let Ok(schedule) = parse(&format!("{{ cron: '{}', timezone: {name} }}", line.text())) else {
            // Such as 31 February.
            prop_assert!(scan(&line, &zone, from, minutes).is_empty());
            return Ok(());
        };
        let start = Timestamp::from_unix_ms(from.as_millisecond());
        let end = Timestamp::from_unix_ms(start.as_unix_ms() + (minutes - 1) * 60_000);
        let mut found = Vec::new();
        let mut last = start;
        while let Some(next) = schedule.next_after(last).filter(|next| *next <= end) {
            prop_assert!(next > last, "{} after {last} gives {next}", line.text());
            found.push(next);
            last = next;
        }
        prop_assert_eq!(&found, &scan(&line, &zone, from, minutes), "{} in {}", line.text(), name);
        // Asked from any moment it is the same list.
        for window in found.windows(2) {
            let between = Timestamp::from_unix_ms((window[0].as_unix_ms() + window[1].as_unix_ms()) / 2);
            prop_assert_eq!(schedule.next_after(between), Some(window[1]));
        }
    }

    /// Whatever the policy: nothing fires that is not planned, nothing twice, and all is fired or counted as missed.
    #[test]
    fn what_is_due_is_fired_or_counted(
        span_s in 1..4000u64, down_s in 0..20_000i64, start_s in 1_700_000_000..1_700_100_000i64, most in 1..20u32, policy in 0..3usize,
    ) {
        let words = ["skip".to_owned(), "one".to_owned(), format!("all, max_catch_up: {most}")];
        let schedule = schedule(&format!("{{ every: {span_s}s, catch_up: {} }}", words[policy]));
        let after = Timestamp::from_unix_ms(start_s * 1000);
        let now = Timestamp::from_unix_ms((start_s + down_s) * 1000 + 7);
        let planned: Vec<Timestamp> = schedule.upcoming(after, 20_001).into_iter().take_while(|at| *at <= now).collect();
        let due = schedule.due(after, now);
        let keep = planned.len() - due.fire.len();
        let dropped = if policy == 0 && due.fire.is_empty() { planned.len() } else { keep };
        prop_assert_eq!(&due.fire[..], &planned[planned.len() - due.fire.len()..]);
        prop_assert_eq!(due.missed, u64::try_from(dropped).unwrap().min(MAX_MISSED_COUNTED));
        let wanted = match policy {
            0 => usize::from(planned.last().is_some_and(|last| now.since(*last) < SKIP_AFTER)),
            1 => planned.len().min(1),
            _ => planned.len().min(usize::try_from(most).unwrap()),
        };
        prop_assert_eq!(due.fire.len(), wanted);
    }
}
