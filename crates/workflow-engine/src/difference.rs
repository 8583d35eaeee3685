//! What differs between two versions of a workflow, step by step, for people.
//!
//! Steps are the same when their ids are, wherever they stand; so a step that was moved is told as moved, and a list in
//! which one was inserted does not look changed from there on. Everything else is compared member by member.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What happened.
    pub kind: DifferenceKind,
    /// Id of the innermost step it is in; `None` outside of steps.
    pub step: Option<String>,
    /// JSON Pointer into the newer document; into the older one for what was removed.
    pub pointer: String,
    /// JSON Pointer into the older document, for what was moved.
    pub before_pointer: Option<String>,
    /// What stood there; `None` for what was added or only moved.
    pub before: Option<Value>,
    /// What stands there; `None` for what was removed or only moved.
    pub after: Option<Value>,
}

/// What happened to a part of a workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DifferenceKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has another value.
    Changed,
    /// A step that stands in another place.
    Moved,
}

impl DifferenceKind {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Moved => "moved",
        }
    }
}

/// What differs between two workflow documents, in the order of the newer one. `kind` and formatting do not count.
pub fn differences(before: &Value, after: &Value) -> Vec<Difference> {
    let mut teller = Teller::default();
    teller.compare(&Place::default(), before, after);
    teller.finish()
}

/// Where two values stand.
#[derive(Clone, Default)]
struct Place {
    before: String,
    after: String,
    step: Option<String>,
}

impl Place {
    fn member(&self, name: &str) -> Self {
        let name = name.replace('~', "~0").replace('/', "~1");
        Self {
            before: format!("{}/{name}", self.before),
            after: format!("{}/{name}", self.after),
            step: self.step.clone(),
        }
    }
}

#[derive(Default)]
struct Teller {
    found: Vec<Difference>,
}

impl Teller {
    fn compare(&mut self, place: &Place, before: &Value, after: &Value) {
        if before == after {
            return;
        }
        match (before, after) {
            (Value::Object(old), Value::Object(new)) => self.members(place, old, new),
            (Value::Array(old), Value::Array(new)) if is_steps(old) && is_steps(new) => self.steps(place, old, new),
            _ => self.found.push(Difference {
                kind: DifferenceKind::Changed,
                step: place.step.clone(),
                pointer: place.after.clone(),
                before_pointer: None,
                before: Some(before.clone()),
                after: Some(after.clone()),
            }),
        }
    }

    fn members(&mut self, place: &Place, old: &Map<String, Value>, new: &Map<String, Value>) {
        let is_document = place.after.is_empty();
        for (name, after) in new.iter().filter(|(name, _)| !is_document || *name != "kind") {
            let inner = place.member(name);
            match old.get(name) {
                Some(before) => self.compare(&inner, before, after),
                None => self.only(DifferenceKind::Added, inner.step, inner.after, after),
            }
        }
        for (name, before) in old.iter().filter(|(name, _)| !is_document || *name != "kind") {
            if !new.contains_key(name) {
                let inner = place.member(name);
                self.only(DifferenceKind::Removed, inner.step, inner.before, before);
            }
        }
    }

    fn only(&mut self, kind: DifferenceKind, step: Option<String>, pointer: String, value: &Value) {
        // A list of steps that came or went is told step by step, so that one that was moved is found.
        if let Value::Array(list) = value
            && is_steps(list)
        {
            for (position, step) in list.iter().enumerate() {
                self.only(kind, id(step).map(str::to_owned), format!("{pointer}/{position}"), step);
            }
            return;
        }
        let (before, after) = match kind {
            DifferenceKind::Removed => (Some(value.clone()), None),
            DifferenceKind::Added | DifferenceKind::Changed | DifferenceKind::Moved => (None, Some(value.clone())),
        };
        self.found.push(Difference {
            kind,
            step,
            pointer,
            before_pointer: None,
            before,
            after,
        });
    }

    /// Steps with the same id are the same step.
    fn steps(&mut self, place: &Place, old: &[Value], new: &[Value]) {
        let positions: BTreeMap<&str, usize> = old
            .iter()
            .enumerate()
            .filter_map(|(at, step)| Some((id(step)?, at)))
            .collect();
        let kept: Vec<usize> = new
            .iter()
            .filter_map(|step| positions.get(id(step)?).copied())
            .collect();
        let in_order = longest_rising(&kept);
        let mut stays = BTreeSet::new();
        for (at, after) in new.iter().enumerate() {
            let name = id(after).map(str::to_owned);
            let pointer = format!("{}/{at}", place.after);
            let Some(position) = id(after).and_then(|id| positions.get(id)).copied() else {
                self.only(DifferenceKind::Added, name, pointer, after);
                continue;
            };
            stays.insert(position);
            let inner = Place {
                before: format!("{}/{position}", place.before),
                after: pointer,
                step: name,
            };
            if !in_order.contains(&position) {
                self.moved(&inner);
            }
            if let Some(before) = old.get(position) {
                self.compare(&inner, before, after);
            }
        }
        for (at, before) in old.iter().enumerate().filter(|(at, _)| !stays.contains(at)) {
            let name = id(before).map(str::to_owned);
            self.only(DifferenceKind::Removed, name, format!("{}/{at}", place.before), before);
        }
    }

    fn moved(&mut self, place: &Place) {
        self.found.push(Difference {
            kind: DifferenceKind::Moved,
            step: place.step.clone(),
            pointer: place.after.clone(),
            before_pointer: Some(place.before.clone()),
            before: None,
            after: None,
        });
    }

    /// A step that went in one place and came in another was moved.
    fn finish(mut self) -> Vec<Difference> {
        let mut gone: BTreeMap<String, (String, Value)> = BTreeMap::new();
        for difference in &self.found {
            if let (DifferenceKind::Removed, Some(step), Some(before)) =
                (difference.kind, &difference.step, &difference.before)
                && id(before) == Some(step)
            {
                gone.insert(step.clone(), (difference.pointer.clone(), before.clone()));
            }
        }
        let mut told = Teller::default();
        let mut moved = BTreeSet::new();
        for difference in std::mem::take(&mut self.found) {
            let is_whole = difference.after.as_ref().and_then(id) == difference.step.as_deref();
            let origin = difference
                .step
                .as_ref()
                .filter(|_| is_whole)
                .and_then(|step| gone.get(step));
            match (difference.kind, origin, &difference.after) {
                (DifferenceKind::Added, Some((from, before)), Some(after)) => {
                    let place = Place {
                        before: from.clone(),
                        after: difference.pointer.clone(),
                        step: difference.step.clone(),
                    };
                    moved.extend(difference.step.clone());
                    told.moved(&place);
                    told.compare(&place, before, after);
                }
                _ => told.found.push(difference),
            }
        }
        let is_origin = |difference: &Difference| {
            let step = difference.step.as_ref().filter(|step| moved.contains(*step));
            let whole = difference.before.as_ref().and_then(id);
            difference.kind == DifferenceKind::Removed && step.is_some() && whole == step.map(String::as_str)
        };
        told.found.retain(|difference| !is_origin(difference));
        told.found
    }
}

fn id(step: &Value) -> Option<&str> {
    step.get("id").and_then(Value::as_str)
}

/// Whether every element is an object with an id.
fn is_steps(list: &[Value]) -> bool {
    !list.is_empty() && list.iter().all(|element| id(element).is_some())
}

/// The largest set of numbers that stand in rising order: what is not in it was moved.
fn longest_rising(numbers: &[usize]) -> BTreeSet<usize> {
    // (length, position before) of the longest rising row that ends at each position; lists of steps are short.
    let mut best: Vec<(usize, Option<usize>)> = Vec::with_capacity(numbers.len());
    for (at, number) in numbers.iter().enumerate() {
        let smaller = numbers.iter().enumerate().take(at).filter(|(_, other)| *other < number);
        let longest = smaller
            .filter_map(|(before, _)| best.get(before).map(|(length, _)| (*length, before)))
            .max_by_key(|(length, before)| (*length, std::cmp::Reverse(*before)));
        best.push(longest.map_or((1, None), |(length, before)| (length + 1, Some(before))));
    }
    let last = best
        .iter()
        .enumerate()
        .max_by_key(|(at, (length, _))| (*length, std::cmp::Reverse(*at)));
    let mut next = last.map(|(at, _)| at);
    let mut rising = BTreeSet::new();
    while let Some(at) = next {
        rising.extend(numbers.get(at));
        next = best.get(at).and_then(|(_, before)| *before);
    }
    rising
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(before: Value, after: Value) -> Vec<String> {
        let line = |difference: &Difference| {
            let from = difference
                .before_pointer
                .as_ref()
                .map(|from| format!(" from {from}"))
                .unwrap_or_default();
            let step = difference.step.as_deref().unwrap_or("-");
            format!("{} {step} {}{from}", difference.kind.as_str(), difference.pointer)
        };
        differences(&before, &after).iter().map(line).collect()
    }

    fn step(id: &str) -> Value {
        json!({ "id": id, "set": { "a": 1 } })
    }

    #[test]
    fn steps_are_matched_by_id() {
        let before = json!({ "kind": "Workflow", "name": "w", "steps": [step("a"), step("b"), step("c")] });
        let mut changed = step("b");
        changed["set"]["a"] = json!(2);
        let after = json!({ "name": "w", "timeout": "1h", "steps": [step("new"), step("a"), changed, step("c")] });
        assert_eq!(
            told(before.clone(), after),
            ["added - /timeout", "added new /steps/0", "changed b /steps/2/set/a"]
        );
        assert_eq!(told(before.clone(), before.clone()), Vec::<String>::new());
        assert_eq!(
            told(before, json!({ "name": "w", "steps": [step("c"), step("a")] })),
            ["moved a /steps/1 from /steps/0", "removed b /steps/1"]
        );
    }

    #[test]
    fn a_step_that_stands_in_another_block_was_moved() {
        let before = json!({ "steps": [step("a"), step("b")] });
        let mut moved = step("b");
        moved["set"]["a"] = json!(3);
        let after = json!({ "steps": [step("a"), { "id": "choice", "if": "{{ true }}", "then": [step("x"), moved] }] });
        assert_eq!(
            told(before, after),
            ["added choice /steps/1", "removed b /steps/1"],
            "inside of a step that is new as a whole nothing is told apart"
        );
        let block = |then: Vec<Value>| json!({ "id": "choice", "if": "{{ true }}", "then": then });
        let before = json!({ "steps": [step("b"), block(vec![step("x")])] });
        let mut moved = step("b");
        moved["set"]["a"] = json!(3);
        let after = json!({ "steps": [block(vec![step("x"), moved])] });
        assert_eq!(
            told(before, after),
            [
                "moved b /steps/0/then/1 from /steps/0",
                "changed b /steps/0/then/1/set/a"
            ]
        );
    }

    #[test]
    fn members_and_other_lists_are_compared_as_they_are() {
        let before = json!({ "on": { "event": "stripe.a", "where": "{{ true }}" }, "steps": [{ "id": "a", "with": { "list": [1, 2], "a/b": 1 } }] });
        let after =
            json!({ "on": { "event": "stripe.b" }, "steps": [{ "id": "a", "with": { "list": [1, 3], "a/b": 2 } }] });
        assert_eq!(
            told(before, after),
            [
                "changed - /on/event",
                "removed - /on/where",
                "changed a /steps/0/with/list",
                "changed a /steps/0/with/a~1b"
            ]
        );
    }
}
