//! The steps that wait for something from outside: an event, a person.

use serde_json::{Value, json};

use super::fields::{Fields, wrong_type};
use super::steps::Steps;
use super::{Approve, DEFAULT_WAIT, MAX_APPROVERS, MAX_WAIT, WaitFor};
use crate::expression::Expression;
use crate::problem::{Problem, child};
use crate::run::{ARRIVED, EVENT_MEMBERS};

const WAIT_KEYS: [&str; 5] = ["event", "connection", "key", "equals", "where"];
const APPROVE_KEYS: [&str; 3] = ["title", "detail", "by"];

impl Steps<'_> {
    /// `wait_for: { event, connection, key, equals, where }`.
    pub(super) fn wait_for(&mut self, fields: &Fields<'_>) -> Option<WaitFor> {
        let timeout = fields.span("timeout", MAX_WAIT, self.problems).unwrap_or(DEFAULT_WAIT);
        let wait = Fields::new(
            fields.get("wait_for")?,
            fields.at("wait_for"),
            &WAIT_KEYS,
            self.problems,
        )?;
        for key in ["event", "key", "equals"] {
            wait.required(key, self.problems);
        }
        let key = wait.expression("key", self.problems);
        if let Some(key) = &key {
            self.check_key(key);
        }
        let equals = wait.expression("equals", self.problems);
        let filter = wait.expression("where", self.problems);
        let connection = wait.text("connection", self.problems).map(str::to_owned);
        let event = wait.text("event", self.problems)?;
        let parts = event
            .split_once('.')
            .filter(|(connector, kind)| !connector.is_empty() && !kind.is_empty());
        let Some((connector, kind)) = parts else {
            let message = format!("{event:?} is not `connector.event_type`");
            self.problems.push(Problem::new(wait.at("event"), "bad_event", message));
            return None;
        };
        Some(WaitFor {
            connector: connector.to_owned(),
            kind: kind.to_owned(),
            connection,
            key: key?,
            equals: equals?,
            filter,
            timeout,
        })
    }

    /// `key` is computed when the event arrives, whoever may wait for it: it sees that event alone.
    fn check_key(&mut self, key: &Expression) {
        for used in key.uses() {
            let problem = match (used.root.as_str(), used.first_key()) {
                (ARRIVED, Some(member)) if !EVENT_MEMBERS.contains(&member) => {
                    let message = format!("`{ARRIVED}` has no `{member}`; it has {}", EVENT_MEMBERS.join(", "));
                    Problem::new(key.pointer(), "unknown_path", message).did_you_mean(member, EVENT_MEMBERS)
                }
                (ARRIVED, _) => continue,
                (other, _) => {
                    let message = format!(
                        "`key` is computed of every event that arrives, before any run is looked at: it sees \
                         `{ARRIVED}`, not `{other}`"
                    );
                    let hint = "what it has to be for this run stands in `equals`";
                    Problem::new(key.pointer(), "unknown_name", message).suggest(hint)
                }
            };
            self.problems.push(problem);
        }
    }

    /// `approve: "Question?"` or `approve: { title, detail, by }`.
    pub(super) fn approve(&mut self, fields: &Fields<'_>) -> Option<Approve> {
        let timeout = fields.span("timeout", MAX_WAIT, self.problems).unwrap_or(DEFAULT_WAIT);
        let empty = json!({});
        let place = fields.at("approve");
        let (title, title_place, detail, detail_place, by) = match fields.get("approve")? {
            title @ Value::String(_) => (title, place.clone(), &empty, place, Vec::new()),
            other => {
                let inside = Fields::new(other, place, &APPROVE_KEYS, self.problems)?;
                inside.required("title", self.problems)?;
                inside.text("title", self.problems)?;
                let detail = inside.get("detail").unwrap_or(&empty);
                if !detail.is_object() {
                    let problem = wrong_type(&inside.at("detail"), "an object of names and values", detail);
                    self.problems.push(problem);
                }
                let by = self.names(&inside);
                (
                    inside.get("title")?,
                    inside.at("title"),
                    detail,
                    inside.at("detail"),
                    by,
                )
            }
        };
        let is_empty = title.as_str().is_some_and(|title| title.trim().is_empty());
        let title = self.template(title, &title_place);
        let detail = self.template(detail, &detail_place);
        Some(Approve {
            title: title?,
            untitled_at: is_empty.then_some(title_place),
            detail: detail?,
            by,
            timeout,
        })
    }

    fn names(&mut self, fields: &Fields<'_>) -> Vec<String> {
        let Some(by) = fields.get("by") else {
            return Vec::new();
        };
        let names = by.as_array().filter(|names| (1..=MAX_APPROVERS).contains(&names.len()));
        let Some(names) = names else {
            let message = format!("`by` is a list of 1 to {MAX_APPROVERS} names");
            self.problems
                .push(Problem::new(fields.at("by"), "out_of_bounds", message));
            return Vec::new();
        };
        let mut known = Vec::with_capacity(names.len());
        for (number, name) in names.iter().enumerate() {
            match name.as_str() {
                Some(name) => known.push(name.to_owned()),
                None => self
                    .problems
                    .push(wrong_type(&child(&fields.at("by"), number), "a name", name)),
            }
        }
        known
    }
}
