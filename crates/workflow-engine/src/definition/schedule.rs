//! The `schedule` trigger of a document.

use serde_json::{Map, Value};

use super::fields::{Fields, wrong_type};
use crate::duration;
use crate::problem::Problem;
use crate::schedule::{
    CatchUp, DEFAULT_CATCH_UP, MAX_CATCH_UP, MAX_CRON_LINES, MAX_EVERY, MAX_SCHEDULE_INPUT_BYTES, MIN_EVERY, Schedule,
    Zone,
};

const KEYS: [&str; 6] = ["cron", "timezone", "every", "catch_up", "max_catch_up", "input"];
/// The time zone when none is given.
const DEFAULT_ZONE: &str = "UTC";

pub(super) fn schedule(value: &Value, problems: &mut Vec<Problem>) -> Option<Schedule> {
    let fields = Fields::new(value, "/on/schedule", &KEYS, problems)?;
    let catch_up = catch_up(&fields, problems);
    let input = input(&fields, problems);
    if fields.has("cron") == fields.has("every") {
        let message = "a schedule has either `cron` or `every`";
        problems.push(Problem::new(&fields.pointer, "missing_key", message));
        return None;
    }
    if fields.has("every") {
        if fields.has("timezone") {
            let message = "`every` counts from 1970-01-01T00:00Z and knows no time zone";
            let problem = Problem::new(fields.at("timezone"), "unknown_key", message);
            problems.push(problem.suggest("leave `timezone` out, or write `cron`"));
        }
        return Some(Schedule::of_span(every(&fields, problems)?, catch_up?, input?));
    }
    let zone = match fields.get("timezone") {
        None => Zone::named(DEFAULT_ZONE).ok(),
        Some(_) => zone(&fields, problems),
    };
    let lines = lines(&fields, problems);
    Some(Schedule::of_cron(lines?, zone?, catch_up?, input?))
}

fn every(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<std::time::Duration> {
    let span = fields.span("every", MAX_EVERY, problems)?;
    if span < MIN_EVERY || span.subsec_nanos() != 0 {
        let message = format!("`every` must be whole seconds, at least {}", duration::print(MIN_EVERY));
        problems.push(Problem::new(fields.at("every"), "out_of_bounds", message));
        return None;
    }
    Some(span)
}

fn zone(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Zone> {
    let name = fields.text("timezone", problems)?;
    Zone::named(name)
        .map_err(|error| {
            let message = format!("{name:?} is not the name of a time zone, such as `Europe/Berlin`");
            let problem = Problem::new(fields.at("timezone"), "unknown_timezone", message);
            problems.push(match error.near {
                Some(near) => problem.suggest(format!("did you mean `{near}`?")),
                None => problem,
            });
        })
        .ok()
}

fn lines(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Vec<crate::schedule::Cron>> {
    let place = fields.at("cron");
    let given: Vec<(String, &Value)> = match fields.get("cron")? {
        Value::Array(lines) if (1..=MAX_CRON_LINES).contains(&lines.len()) => {
            let place = |index| crate::problem::child(&place, index);
            lines
                .iter()
                .enumerate()
                .map(|(index, line)| (place(index), line))
                .collect()
        }
        Value::Array(_) => {
            let message = format!("`cron` is one line, or a list of 1 to {MAX_CRON_LINES}");
            problems.push(Problem::new(place, "out_of_bounds", message));
            return None;
        }
        line => vec![(place, line)],
    };
    let mut read = Vec::with_capacity(given.len());
    for (place, line) in &given {
        let Some(text) = line.as_str() else {
            problems.push(wrong_type(place, "a cron line as text", line));
            continue;
        };
        match Schedule::cron(text) {
            Ok(line) => read.push(line),
            Err(error) => {
                let problem = Problem::new(place, "bad_cron", error.message);
                problems.push(match error.suggestion {
                    Some(suggestion) => problem.suggest(suggestion),
                    None => problem,
                });
            }
        }
    }
    (read.len() == given.len()).then_some(read)
}

fn catch_up(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<CatchUp> {
    let all = CatchUp::All { most: DEFAULT_CATCH_UP };
    let words = [("skip", CatchUp::Skip), ("one", CatchUp::One), ("all", all)];
    let chosen = match fields.get("catch_up") {
        None => CatchUp::One,
        Some(_) => fields.word("catch_up", &words, problems)?,
    };
    if !fields.has("max_catch_up") {
        return Some(chosen);
    }
    let most = fields.count("max_catch_up", 1, MAX_CATCH_UP, problems)?;
    if let CatchUp::All { .. } = chosen {
        return Some(CatchUp::All { most });
    }
    let message = "`max_catch_up` belongs to `catch_up: all`";
    problems.push(Problem::new(fields.at("max_catch_up"), "unknown_key", message));
    None
}

fn input(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Value> {
    let Some(input) = fields.get("input") else {
        return Some(Value::Object(Map::new()));
    };
    let place = fields.at("input");
    let before = problems.len();
    if !input.is_object() {
        problems.push(wrong_type(&place, "an object", input));
    } else if input.to_string().len() > MAX_SCHEDULE_INPUT_BYTES {
        let message = format!("`input` is longer than {MAX_SCHEDULE_INPUT_BYTES} bytes");
        problems.push(Problem::new(&place, "out_of_bounds", message));
    }
    no_templates(input, &place, problems);
    (problems.len() == before).then(|| input.clone())
}

/// What looks like an expression here would reach the run as it is.
fn no_templates(value: &Value, place: &str, problems: &mut Vec<Problem>) {
    match value {
        Value::String(text) if text.contains("{{") => {
            let message = "the input of a schedule is plain data: nothing is evaluated here";
            let problem = Problem::new(place, "no_expression", message);
            problems.push(problem.suggest("compute it in a `set` step from `event.data.scheduled_for`"));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                no_templates(item, &crate::problem::child(place, index), problems);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                no_templates(member, &crate::problem::child(place, name), problems);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
