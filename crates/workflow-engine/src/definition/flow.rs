//! Flow control of a workflow: `lane`, `concurrency`, `throttle`, `debounce`, `batch`, `priority`.

use serde_json::Value;

use super::fields::{Fields, wrong_type};
use super::parse::check_before_hydration;
use super::{
    Batch, Concurrency, DEFAULT_MAX_WAITING, Debounce, Lane, MAX_BATCH, MAX_GATHERING, MAX_LIMIT, MAX_MAX_WAITING,
    MAX_PERIOD, MAX_PRIORITY, OnBlock, Priority, Throttle,
};
use crate::expression::{Expression, Template};
use crate::problem::Problem;

const LANE_KEYS: [&str; 4] = ["key", "merge", "max_waiting", "on_block"];
const CONCURRENCY_KEYS: [&str; 2] = ["key", "limit"];
const THROTTLE_KEYS: [&str; 3] = ["key", "limit", "per"];
const DEBOUNCE_KEYS: [&str; 3] = ["key", "for", "max"];
const BATCH_KEYS: [&str; 3] = ["key", "size", "for"];

/// `lane: "…"` or `lane: { key, merge, max_waiting, on_block }`.
pub(super) fn lane(top: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Lane> {
    let lane = top.get("lane")?;
    let place = top.at("lane");
    if lane.is_string() {
        return Some(Lane {
            key: key(lane, &place, problems)?,
            merge: false,
            max_waiting: DEFAULT_MAX_WAITING,
            on_block: OnBlock::Park,
        });
    }
    let fields = Fields::new(lane, place, &LANE_KEYS, problems)?;
    let key = fields
        .required("key", problems)
        .and_then(|text| key(text, &fields.at("key"), problems));
    let merge = flag(&fields, "merge", problems);
    let max_waiting = fields.count("max_waiting", 1, MAX_MAX_WAITING, problems);
    let words = [("park", OnBlock::Park), ("hold", OnBlock::Hold)];
    let on_block = fields.word("on_block", &words, problems);
    Some(Lane {
        key: key?,
        merge,
        max_waiting: max_waiting.unwrap_or(DEFAULT_MAX_WAITING),
        on_block: on_block.unwrap_or(OnBlock::Park),
    })
}

/// `concurrency: 5` or `concurrency: { key, limit }`.
pub(super) fn concurrency(top: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Concurrency> {
    let concurrency = top.get("concurrency")?;
    if concurrency.is_number() {
        let limit = top.count("concurrency", 1, MAX_LIMIT, problems)?;
        return Some(Concurrency { key: None, limit });
    }
    let fields = Fields::new(concurrency, top.at("concurrency"), &CONCURRENCY_KEYS, problems)?;
    fields.required("limit", problems);
    let key = optional_key(&fields, problems);
    let limit = fields.count("limit", 1, MAX_LIMIT, problems)?;
    Some(Concurrency { key, limit })
}

/// `throttle: { key, limit, per }`.
pub(super) fn throttle(top: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Throttle> {
    let fields = Fields::new(top.get("throttle")?, top.at("throttle"), &THROTTLE_KEYS, problems)?;
    for name in ["limit", "per"] {
        fields.required(name, problems);
    }
    let key = optional_key(&fields, problems);
    let limit = fields.count("limit", 1, MAX_LIMIT, problems);
    let per = fields.span("per", MAX_PERIOD, problems);
    Some(Throttle {
        key,
        limit: limit?,
        per: per?,
    })
}

/// `debounce: { key, for, max }`.
pub(super) fn debounce(top: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Debounce> {
    let fields = Fields::new(top.get("debounce")?, top.at("debounce"), &DEBOUNCE_KEYS, problems)?;
    for name in ["key", "for"] {
        fields.required(name, problems);
    }
    let key = optional_key(&fields, problems);
    let quiet = fields.span("for", MAX_GATHERING, problems);
    let max = fields.span("max", MAX_GATHERING, problems);
    let (key, quiet) = (key?, quiet?);
    if max.is_some_and(|max| max < quiet) {
        let message = "`max` must not be shorter than `for`";
        problems.push(Problem::new(fields.at("max"), "out_of_bounds", message));
    }
    Some(Debounce { key, quiet, max })
}

/// `batch: { key, size, for }`.
pub(super) fn batch(top: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Batch> {
    let fields = Fields::new(top.get("batch")?, top.at("batch"), &BATCH_KEYS, problems)?;
    if top.has("debounce") {
        let message = "a workflow has either `debounce` or `batch`: one keeps the last event, the other all of them";
        problems.push(Problem::new(top.at("batch"), "contradiction", message));
    }
    for name in ["size", "for"] {
        fields.required(name, problems);
    }
    let key = optional_key(&fields, problems);
    let size = fields.count("size", 2, MAX_BATCH, problems);
    let within = fields.span("for", MAX_GATHERING, problems);
    Some(Batch {
        key,
        size: size?,
        within: within?,
    })
}

/// `priority: 10` or `priority: "{{ … }}"`.
pub(super) fn priority(top: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Priority> {
    match top.get("priority")? {
        Value::Number(number) => {
            let fits = number
                .as_i64()
                .and_then(|number| i32::try_from(number).ok())
                .filter(|number| (-MAX_PRIORITY..=MAX_PRIORITY).contains(number));
            if fits.is_none() {
                let message = format!("`priority` must be a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}");
                problems.push(Problem::new(top.at("priority"), "out_of_bounds", message));
            }
            fits.map(Priority::Fixed)
        }
        Value::String(_) => {
            let expression = top.expression("priority", problems)?;
            check_before_hydration("`priority`", &expression, &top.at("priority"), problems);
            Some(Priority::Computed(expression))
        }
        other => {
            problems.push(wrong_type(&top.at("priority"), "a number or an expression", other));
            None
        }
    }
}

fn flag(fields: &Fields<'_>, name: &str, problems: &mut Vec<Problem>) -> bool {
    match fields.get(name) {
        Some(Value::Bool(flag)) => *flag,
        Some(other) => {
            problems.push(wrong_type(&fields.at(name), "true or false", other));
            false
        }
        None => false,
    }
}

fn optional_key(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Template> {
    key(fields.get("key")?, &fields.at("key"), problems)
}

/// A key is a text with at least one expression, computed before hydration.
fn key(text: &Value, place: &str, problems: &mut Vec<Problem>) -> Option<Template> {
    if !text.is_string() {
        problems.push(wrong_type(place, "a text with expressions", text).suggest("write \"{{ event.ref.id }}\""));
        return None;
    }
    match Template::compile(text, place) {
        Ok(template) => {
            let expressions: Vec<&Expression> = template.expressions().collect();
            if expressions.is_empty() {
                let message = format!("{text} is the same for every event");
                let hint = "write an expression, such as \"{{ event.ref.id }}\", or `concurrency: 1`";
                problems.push(Problem::new(place, "constant_key", message).suggest(hint));
            }
            for expression in expressions {
                check_before_hydration("a key", expression, place, problems);
            }
            Some(template)
        }
        Err(mut found) => {
            problems.append(&mut found);
            None
        }
    }
}
