//! The steps of a document.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::fields::{Fields, is_plain, wrong_type};
use super::{
    Action, Call, Case, Choice, DEFAULT_CALL_TIMEOUT, DEFAULT_CASE, ForEach, ITEM, Join, MAX_ALL_ITEMS, MAX_BRANCHES,
    MAX_CALL_TIMEOUT, MAX_CASES, MAX_CONCURRENCY, MAX_STEP_DEPTH, MAX_STEPS, MAX_TRIES, MAX_WORKFLOW_TIMEOUT, OnError,
    Parallel, RetryPolicy, Sleep, SleepHow, Step, Switch, Try, case_label,
};
use crate::expression::{Expression, Template};
use crate::journal::StopStatus;
use crate::problem::{Problem, child};
use crate::run::{STEP_ROOTS, sleep};

/// The keys that say what a step does, and the keys that may stand beside them.
const KINDS: [(&str, &[&str]); 15] = [
    (
        "call",
        &[
            "id",
            "when",
            "call",
            "connection",
            "with",
            "all",
            "retry",
            "timeout",
            "on_error",
            "undo",
        ],
    ),
    ("if", &["id", "when", "if", "then", "else"]),
    ("switch", &["id", "when", "switch", "cases", "default"]),
    ("set", &["id", "when", "set", "on_error"]),
    (
        "for_each",
        &[
            "id",
            "when",
            "for_each",
            "as",
            "key",
            "concurrency",
            "timeout",
            "on_error",
            "do",
        ],
    ),
    ("parallel", &["id", "when", "parallel", "join", "timeout", "on_error"]),
    ("sleep", &["id", "when", "sleep", "on_error"]),
    (
        "wait_for",
        &["id", "when", "wait_for", "timeout", "on_timeout", "on_error"],
    ),
    (
        "approve",
        &[
            "id",
            "when",
            "approve",
            "timeout",
            "on_timeout",
            "on_reject",
            "on_error",
        ],
    ),
    (
        "run",
        &[
            "id",
            "when",
            "run",
            "with",
            "detach",
            "timeout",
            "on_timeout",
            "on_error",
            "undo",
        ],
    ),
    ("emit", &["id", "when", "emit", "on_error", "undo"]),
    ("respond", &["id", "when", "respond", "on_error"]),
    ("try", &["id", "when", "try", "timeout", "catch", "finally"]),
    ("compensate", &["id", "when", "compensate", "on_error"]),
    ("stop", &["id", "when", "stop"]),
];
/// The longest id of a step in bytes: ids are part of paths, paths of keys and of every journal.
///
/// Limit: id of a step | refused at publish, `bad_id` | `definitions_stop_at_their_bounds`
const MAX_ID_BYTES: usize = 64;

/// A parser of steps: ids are unique over all of them.
pub(super) struct Steps<'p> {
    pub(super) problems: &'p mut Vec<Problem>,
    ids: BTreeMap<String, String>,
    count: usize,
}

/// Whether a text can be the id of a step or the name of an item.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.len() <= MAX_ID_BYTES && text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(plain)
}

impl<'p> Steps<'p> {
    pub(super) fn new(problems: &'p mut Vec<Problem>) -> Self {
        Self {
            problems,
            ids: BTreeMap::new(),
            count: 0,
        }
    }

    pub(super) fn parse(&mut self, steps: &Value, pointer: &str) -> Vec<Step> {
        self.block(steps, pointer, 0)
    }

    /// What can be said only when all steps were parsed.
    pub(super) fn finish(self) {
        if self.count > MAX_STEPS {
            let message = format!("{} steps are more than {MAX_STEPS}", self.count);
            self.problems.push(Problem::new("/steps", "too_many_steps", message));
        }
    }

    fn block(&mut self, steps: &Value, pointer: &str, depth: usize) -> Vec<Step> {
        let Value::Array(list) = steps else {
            self.problems.push(wrong_type(pointer, "a list of steps", steps));
            return Vec::new();
        };
        if list.is_empty() {
            self.problems
                .push(Problem::new(pointer, "no_steps", "there is no step here"));
        }
        if depth > MAX_STEP_DEPTH {
            let message = format!("steps are nested deeper than {MAX_STEP_DEPTH}");
            self.problems.push(Problem::new(pointer, "nested_too_deeply", message));
            return Vec::new();
        }
        list.iter()
            .enumerate()
            .filter_map(|(at, step)| self.step(step, &child(pointer, at), depth))
            .collect()
    }

    fn step(&mut self, step: &Value, pointer: &str, depth: usize) -> Option<Step> {
        self.count += 1;
        let Value::Object(map) = step else {
            self.problems.push(wrong_type(pointer, "a step", step));
            return None;
        };
        let kinds: Vec<_> = KINDS.iter().filter(|(kind, _)| map.contains_key(*kind)).collect();
        let (kind, known) = match kinds.as_slice() {
            [one] => **one,
            [] => {
                let names: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
                let message = format!(
                    "this step does nothing that is supported; it needs one of: {}",
                    names.join(", ")
                );
                let mut problem = Problem::new(pointer, "unknown_step", message);
                for key in map.keys().filter(|key| !matches!(key.as_str(), "id" | "when")) {
                    if problem.suggestion.is_none() {
                        problem = problem.did_you_mean(key, names.iter().copied());
                    }
                }
                self.problems.push(problem);
                return None;
            }
            several => {
                let names: Vec<&str> = several.iter().map(|(kind, _)| *kind).collect();
                let message = format!("a step does one thing, this one has {}", names.join(" and "));
                self.problems.push(Problem::new(pointer, "ambiguous_step", message));
                return None;
            }
        };
        let fields = Fields::new(step, pointer, known, self.problems)?;
        let id = self.id(&fields);
        let when = fields.expression("when", self.problems);
        // A `for_each` and a `parallel` say with it what becomes of the others.
        let own = !matches!(kind, "for_each" | "parallel") && known.contains(&"on_error");
        let on_error = match fields.get("on_error").filter(|_| own) {
            Some(steps @ Value::Array(_)) => OnError::Steps(self.block(steps, &fields.at("on_error"), depth + 1)),
            Some(_) => {
                let words = [("fail", OnError::Fail), ("continue", OnError::Continue)];
                fields.word("on_error", &words, self.problems).unwrap_or(OnError::Fail)
            }
            None => OnError::Fail,
        };
        let is_limited = matches!(kind, "for_each" | "parallel" | "try");
        let limit = match is_limited {
            true => fields.span("timeout", MAX_WORKFLOW_TIMEOUT, self.problems),
            false => None,
        };
        let mut handler = |key: &str| {
            let steps = fields.get(key).filter(|_| known.contains(&key));
            steps.map(|steps| self.block(steps, &fields.at(key), depth + 1))
        };
        let on_timeout = handler("on_timeout").unwrap_or_default();
        let on_reject = handler("on_reject").unwrap_or_default();
        let undo = handler("undo").unwrap_or_default();
        let action = match kind {
            "call" => self.call(&fields).map(Action::Call),
            "wait_for" => self.wait_for(&fields).map(Action::WaitFor),
            "approve" => self.approve(&fields).map(Action::Approve),
            "run" => self.child(&fields).map(Action::Run),
            "compensate" => self.compensate(&fields),
            "emit" => self.emit(&fields).map(Action::Emit),
            "respond" => self.respond(&fields).map(Action::Respond),
            "if" => self.branches(&fields, depth),
            "switch" => self.switch(&fields, depth).map(Action::Switch),
            "set" => self.set(&fields),
            "for_each" => self.for_each(&fields, depth).map(Action::ForEach),
            "parallel" => self.parallel(&fields, depth).map(Action::Parallel),
            "sleep" => self.sleep(&fields).map(Action::Sleep),
            "try" => self.guarded(&fields, depth).map(Action::Try),
            _ => self.stop(&fields),
        };
        Some(Step {
            id: id?,
            pointer: pointer.to_owned(),
            when,
            on_error,
            on_timeout,
            on_reject,
            limit,
            undo,
            action: action?,
        })
    }

    fn id(&mut self, fields: &Fields<'_>) -> Option<String> {
        fields.required("id", self.problems)?;
        let id = fields.text("id", self.problems)?;
        if !is_name(id) {
            let message = format!(
                "{id:?} cannot be an id: a small letter, then small letters, digits and `_`, at most {MAX_ID_BYTES}"
            );
            let suggestion: String = id
                .to_lowercase()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .collect();
            let problem = Problem::new(fields.at("id"), "bad_id", message);
            self.problems.push(match is_name(&suggestion) {
                true => problem.suggest(format!("write `{suggestion}`")),
                false => problem,
            });
            return None;
        }
        if let Some(first) = self.ids.get(id) {
            let message = format!("the id `{id}` is taken by the step at {first}");
            self.problems
                .push(Problem::new(fields.at("id"), "duplicate_id", message));
            return None;
        }
        self.ids.insert(id.to_owned(), fields.pointer.clone());
        Some(id.to_owned())
    }

    pub(super) fn template(&mut self, value: &Value, pointer: &str) -> Option<Template> {
        match Template::compile(value, pointer) {
            Ok(template) => Some(template),
            Err(mut found) => {
                self.problems.append(&mut found);
                None
            }
        }
    }

    fn call(&mut self, fields: &Fields<'_>) -> Option<Call> {
        let call = fields.text("call", self.problems)?;
        if !call
            .split_once('.')
            .is_some_and(|(connector, operation)| !connector.is_empty() && !operation.is_empty())
        {
            let message = format!("{call:?} is not `connector.operation`");
            self.problems.push(Problem::new(fields.at("call"), "bad_call", message));
        }
        let connection = fields.text("connection", self.problems).map(str::to_owned);
        let empty = json!({});
        let with = match fields.get("with") {
            Some(with @ Value::Object(_)) => self.template(with, &fields.at("with")),
            Some(other) => {
                self.problems.push(wrong_type(&fields.at("with"), "an object", other));
                None
            }
            None => self.template(&empty, &fields.at("with")),
        };
        let retry = fields
            .get("retry")
            .map_or_else(RetryPolicy::default, |retry| self.retry(retry, &fields.at("retry")));
        let timeout = fields
            .span("timeout", MAX_CALL_TIMEOUT, self.problems)
            .unwrap_or(DEFAULT_CALL_TIMEOUT);
        let given = fields.get("with").and_then(Value::as_object);
        let arguments = given
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), is_plain(value).then(|| value.clone())))
            .collect();
        let all_max = fields.get("all").and_then(|all| self.all(all, &fields.at("all")));
        Some(Call {
            call: call.to_owned(),
            connection,
            with: with?,
            arguments,
            all_max,
            retry,
            timeout,
        })
    }

    /// `{ max: N }`: every page of a list, up to so many items.
    fn all(&mut self, all: &Value, pointer: &str) -> Option<u32> {
        let fields = Fields::new(all, pointer, &["max"], self.problems)?;
        if fields.get("max").is_none() {
            let problem = Problem::new(pointer, "missing_key", "`max` is missing: how many items at most?");
            self.problems.push(problem.suggest("all: { max: 1000 }"));
        }
        fields.count("max", 1, MAX_ALL_ITEMS, self.problems)
    }

    fn retry(&mut self, retry: &Value, pointer: &str) -> RetryPolicy {
        let mut policy = RetryPolicy::default();
        let Some(fields) = Fields::new(retry, pointer, &["tries", "first", "max", "factor"], self.problems) else {
            return policy;
        };
        policy.tries = fields
            .count("tries", 1, MAX_TRIES, self.problems)
            .unwrap_or(policy.tries);
        policy.first = fields
            .span("first", MAX_WORKFLOW_TIMEOUT, self.problems)
            .unwrap_or(policy.first);
        policy.max = fields
            .span("max", MAX_WORKFLOW_TIMEOUT, self.problems)
            .unwrap_or(policy.max)
            .max(policy.first);
        if let Some(factor) = fields.get("factor") {
            match factor.as_f64().filter(|factor| (1.0..=10.0).contains(factor)) {
                Some(factor) => policy.factor = factor,
                None => {
                    let message = "`factor` must be a number from 1 to 10";
                    self.problems
                        .push(Problem::new(fields.at("factor"), "out_of_bounds", message));
                }
            }
        }
        policy
    }

    fn branches(&mut self, fields: &Fields<'_>, depth: usize) -> Option<Action> {
        let condition = fields.expression("if", self.problems);
        let then = fields.required("then", self.problems);
        let then = then.map(|then| self.block(then, &fields.at("then"), depth + 1));
        let otherwise = fields
            .get("else")
            .map(|steps| self.block(steps, &fields.at("else"), depth + 1));
        Some(Action::If {
            condition: condition?,
            then: then?,
            otherwise: otherwise.unwrap_or_default(),
        })
    }

    /// `switch: "{{ … }}"` with `cases` by value, or `switch` as a list of conditions.
    fn switch(&mut self, fields: &Fields<'_>, depth: usize) -> Option<Switch> {
        let (choice, cases) = match fields.get("switch")? {
            Value::Array(list) => {
                if fields.has("cases") {
                    let message = "a `switch` that lists its conditions has no `cases` beside them";
                    self.problems
                        .push(Problem::new(fields.at("cases"), "unknown_key", message));
                }
                let (conditions, cases) = self.conditions(list, &fields.at("switch"), depth)?;
                (Choice::Conditions(conditions), cases)
            }
            _ => {
                let value = fields.expression("switch", self.problems);
                let cases = fields.required("cases", self.problems)?;
                (Choice::Value(value?), self.cases(cases, &fields.at("cases"), depth)?)
            }
        };
        let default = fields
            .get("default")
            .map(|steps| self.block(steps, &fields.at("default"), depth + 1));
        if cases.is_empty() || cases.len() > MAX_CASES {
            let message = format!("a `switch` has 1 to {MAX_CASES} cases, this one has {}", cases.len());
            self.problems
                .push(Problem::new(&fields.pointer, "out_of_bounds", message));
        }
        Some(Switch {
            choice,
            cases,
            default: default.unwrap_or_default(),
        })
    }

    fn cases(&mut self, cases: &Value, pointer: &str, depth: usize) -> Option<Vec<Case>> {
        let Value::Object(map) = cases else {
            let wanted = "an object of values and their steps";
            self.problems.push(wrong_type(pointer, wanted, cases));
            return None;
        };
        let mut parsed = Vec::with_capacity(map.len());
        for (value, steps) in map {
            let place = child(pointer, value);
            if value == DEFAULT_CASE {
                let message = "the steps for every other value stand in `default` beside `cases`";
                self.problems.push(Problem::new(&place, "bad_case", message));
            }
            parsed.push(Case {
                label: case_label(value),
                steps: self.block(steps, &place, depth + 1),
            });
        }
        Some(parsed)
    }

    fn conditions(&mut self, list: &[Value], pointer: &str, depth: usize) -> Option<(Vec<Expression>, Vec<Case>)> {
        let (mut conditions, mut cases) = (Vec::new(), Vec::new());
        for (number, case) in list.iter().enumerate() {
            let fields = Fields::new(case, child(pointer, number), &["when", "do"], self.problems)?;
            fields.required("when", self.problems);
            conditions.extend(fields.expression("when", self.problems));
            if let Some(steps) = fields.required("do", self.problems) {
                cases.push(Case {
                    label: (number + 1).to_string(),
                    steps: self.block(steps, &fields.at("do"), depth + 1),
                });
            }
        }
        (conditions.len() == list.len() && cases.len() == list.len()).then_some((conditions, cases))
    }

    fn set(&mut self, fields: &Fields<'_>) -> Option<Action> {
        match fields.get("set")? {
            values @ Value::Object(map) => {
                let names = map.keys().cloned().collect();
                Some(Action::Set {
                    values: self.template(values, &fields.at("set"))?,
                    names,
                })
            }
            other => {
                self.problems
                    .push(wrong_type(&fields.at("set"), "an object of names and values", other));
                None
            }
        }
    }

    fn for_each(&mut self, fields: &Fields<'_>, depth: usize) -> Option<ForEach> {
        let list = fields.expression("for_each", self.problems);
        let item_name = fields.text("as", self.problems).unwrap_or(ITEM);
        if !is_name(item_name) || STEP_ROOTS.contains(&item_name) || matches!(item_name, "index" | "error") {
            let message = format!("{item_name:?} cannot be the name of an item");
            self.problems.push(Problem::new(fields.at("as"), "bad_name", message));
        }
        let key = fields.expression("key", self.problems);
        let concurrency = fields
            .count("concurrency", 1, MAX_CONCURRENCY, self.problems)
            .unwrap_or(1);
        let words = [("fail", false), ("collect", true)];
        let collects = fields.word("on_error", &words, self.problems).unwrap_or(false);
        let steps = fields.required("do", self.problems);
        let steps = steps.map(|steps| self.block(steps, &fields.at("do"), depth + 1));
        Some(ForEach {
            list: list?,
            item_name: item_name.to_owned(),
            key,
            concurrency,
            collects,
            steps: steps?,
        })
    }

    fn parallel(&mut self, fields: &Fields<'_>, depth: usize) -> Option<Parallel> {
        let place = fields.at("parallel");
        let branches = match fields.get("parallel")? {
            Value::Object(map) => map,
            other => {
                let wanted = "an object of names and the steps of each branch";
                self.problems.push(wrong_type(&place, wanted, other));
                return None;
            }
        };
        if branches.is_empty() || branches.len() > MAX_BRANCHES {
            let message = format!(
                "a `parallel` has 1 to {MAX_BRANCHES} branches, this one has {}",
                branches.len()
            );
            self.problems.push(Problem::new(&place, "out_of_bounds", message));
        }
        let mut parsed = Vec::with_capacity(branches.len());
        for (name, steps) in branches {
            let place = child(&place, name);
            if !is_name(name) {
                let message = format!(
                    "{name:?} cannot be the name of a branch: a small letter, then small letters, digits and `_`"
                );
                self.problems.push(Problem::new(&place, "bad_name", message));
            }
            parsed.push((name.clone(), self.block(steps, &place, depth + 1)));
        }
        let words = [("all", Join::All), ("any", Join::Any), ("first", Join::First)];
        let join = fields.word("join", &words, self.problems).unwrap_or(Join::All);
        let words = [("fail", false), ("collect", true)];
        let join = match (join, fields.word("on_error", &words, self.problems)) {
            (Join::All, Some(true)) => Join::Collect,
            (join, Some(true)) => {
                let message = "`collect` waits for all branches, so it goes with `join: all` alone";
                self.problems
                    .push(Problem::new(fields.at("on_error"), "bad_join", message));
                join
            }
            (join, _) => join,
        };
        Some(Parallel { join, branches: parsed })
    }

    fn guarded(&mut self, fields: &Fields<'_>, depth: usize) -> Option<Try> {
        if !fields.has("catch") && !fields.has("finally") {
            let message = "a `try` has a `catch`, a `finally` or both";
            self.problems
                .push(Problem::new(&fields.pointer, "missing_key", message));
        }
        let mut block = |key: &str| {
            let steps = fields.get(key)?;
            Some(self.block(steps, &fields.at(key), depth + 1))
        };
        Some(Try {
            steps: block("try")?,
            catch: block("catch").unwrap_or_default(),
            finally: block("finally").unwrap_or_default(),
        })
    }

    /// `compensate: all`: there is nothing to choose, and nothing to misunderstand.
    fn compensate(&mut self, fields: &Fields<'_>) -> Option<Action> {
        let words = [("all", Action::Compensate)];
        fields.word("compensate", &words, self.problems)
    }

    /// `sleep: 5m`, `sleep: { for: … }` or `sleep: { until: … }`.
    fn sleep(&mut self, fields: &Fields<'_>) -> Option<Sleep> {
        let place = fields.at("sleep");
        let (how, value, place) = match fields.get("sleep")? {
            Value::Object(_) => {
                let inside = Fields::new(fields.get("sleep")?, place, &["for", "until"], self.problems)?;
                match (inside.get("for"), inside.get("until")) {
                    (Some(value), None) => (SleepHow::For, value, inside.at("for")),
                    (None, Some(value)) => (SleepHow::Until, value, inside.at("until")),
                    (Some(_), Some(_)) | (None, None) => {
                        let message = "a `sleep` has either `for` or `until`";
                        self.problems.push(Problem::new(&inside.pointer, "bad_sleep", message));
                        return None;
                    }
                }
            }
            value => (SleepHow::For, value, place),
        };
        let template = self.template(value, &place)?;
        if template.expressions().next().is_none() {
            let checked = match how {
                SleepHow::For => sleep::span(value).map(drop),
                SleepHow::Until => sleep::moment(value).map(drop),
            };
            if let Err(message) = checked {
                self.problems.push(Problem::new(place, "bad_sleep", message));
                return None;
            }
        }
        Some(Sleep { how, value: template })
    }

    fn stop(&mut self, fields: &Fields<'_>) -> Option<Action> {
        let stop = Fields::new(
            fields.get("stop")?,
            fields.at("stop"),
            &["status", "reason"],
            self.problems,
        )?;
        let words = [("succeeded", StopStatus::Succeeded), ("failed", StopStatus::Failed)];
        let status = match stop.has("status") {
            true => stop.word("status", &words, self.problems)?,
            false => StopStatus::Succeeded,
        };
        let reason = Value::from(stop.text("reason", self.problems).unwrap_or_default());
        Some(Action::Stop {
            status,
            reason: self.template(&reason, &stop.at("reason"))?,
        })
    }
}
