//! Random workflows over the kinds of steps.
//!
//! Every effect names itself by `ref`, made of what stays the same in redeliveries, replays and takeovers. So the
//! provider knows which requests ask for the same thing, whatever keys they carry.

use serde_json::{Value, json};

use super::chance::Chance;
use super::flow::{self, Flow};

/// Operations of the made-up provider, one of each way in which a call can be repeated.
const CALLS: &[&str] = &["get", "charge", "charge", "create", "lag", "put", "fire", "fire"];
/// How deeply steps stand in steps.
const MAX_DEPTH: u32 = 3;

/// A workflow.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) name: String,
    /// The published version.
    pub(super) document: Value,
    /// Those that were published before.
    pub(super) earlier: Vec<Value>,
    /// What is going to be published, if anything.
    pub(super) next: Option<Value>,
    /// Its steps that wait for an event, by id. The event they wait for names `<event id>/<step id>`.
    pub(super) waits: Vec<String>,
    /// What its runs wait for before they start.
    pub(super) flow: Flow,
}

/// The workflows of a world: some that orders start, and one that others start.
pub(super) fn all(chance: &mut Chance) -> Vec<Written> {
    let mut all = Vec::new();
    for number in 0..=chance.below(2) {
        all.push(workflow(chance, &format!("order{number}"), Kind::Order));
    }
    all.push(workflow(chance, "part", Kind::Part));
    all
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Started by an event.
    Order,
    /// Started by a step of another.
    Part,
}

fn workflow(chance: &mut Chance, name: &str, kind: Kind) -> Written {
    let base = match kind {
        Kind::Order => format!("{name}.{{{{ event.id }}}}"),
        Kind::Part => "{{ event.data.ref }}".to_owned(),
    };
    let mut writing = Writing {
        chance,
        kind,
        base,
        next: 0,
        waits: Vec::new(),
    };
    let mut steps = writing.steps(0, Inside::default());
    if kind == Kind::Order && writing.chance.percent(50) {
        // What comes last shows whether the run got through.
        steps.push(writing.call("charge", Inside::default()));
    }
    let on = match kind {
        Kind::Order => {
            let hydrate = *writing.chance.pick(&["never", "always"]);
            json!({ "event": "shop.order", "hydrate": hydrate })
        }
        Kind::Part => json!({ "manual": {} }),
    };
    let mut document = json!({ "name": name, "on": on, "steps": steps });
    if writing.chance.percent(15) {
        document["on_failure"] = json!([writing.call("put", Inside::default())]);
    }
    if writing.chance.percent(10) {
        document["timeout"] = json!("6h");
    }
    let next = writing.chance.percent(60).then(|| writing.changed(&document["steps"]));
    let waits = std::mem::take(&mut writing.waits);
    let flow = match kind {
        Kind::Order => flow::add(chance, &mut document),
        Kind::Part => Flow::default(),
    };
    let next = next.map(|steps| {
        let mut next = document.clone();
        next["steps"] = steps;
        next
    });
    Written {
        name: name.to_owned(),
        document,
        earlier: Vec::new(),
        next,
        waits,
        flow,
    }
}

/// What a step stands in.
#[derive(Clone, Copy, Default)]
struct Inside {
    /// Of a loop: `item` is there.
    item: bool,
    /// Of something in which a `compensate` cannot stand.
    apart: bool,
}

struct Writing<'a> {
    chance: &'a mut Chance,
    kind: Kind,
    base: String,
    next: u32,
    waits: Vec<String>,
}

impl Writing<'_> {
    fn id(&mut self) -> String {
        self.next += 1;
        format!("s{}", self.next)
    }

    fn reference(&mut self, id: &str, inside: Inside) -> String {
        let item = if inside.item { ".{{ item }}" } else { "" };
        // What an edited event changes is another thing, where the step asks for that.
        let edited = match self.kind == Kind::Order && self.chance.percent(30) {
            true => ".r{{ event.data.rev }}",
            false => "",
        };
        format!("{}.{id}{item}{edited}", self.base)
    }

    /// The steps as the next version has them: one more in front or at the end, or one less.
    fn changed(&mut self, steps: &Value) -> Value {
        let mut steps = steps.as_array().cloned().unwrap_or_default();
        match self.chance.below(3) {
            0 => steps.insert(0, self.call("put", Inside::default())),
            1 if steps.len() > 1 => _ = steps.pop(),
            _ => steps.push(self.call("charge", Inside::default())),
        }
        Value::Array(steps)
    }

    fn steps(&mut self, depth: u32, inside: Inside) -> Vec<Value> {
        let most = if depth == 0 { 5 } else { 2 };
        (0..=self.chance.below(most))
            .map(|_| self.step(depth, inside))
            .collect()
    }

    fn step(&mut self, depth: u32, inside: Inside) -> Value {
        let mut step = self.plain(depth, inside);
        if self.chance.percent(8) {
            step["when"] = json!(self.condition());
        }
        step
    }

    /// Known before the run begins, or not.
    fn condition(&mut self) -> &'static str {
        let condition = *self
            .chance
            .pick(&["{{ event.data.items | length > 1 }}", "{{ true }}", "{{ false }}"]);
        if self.kind == Kind::Part {
            "{{ true }}"
        } else {
            condition
        }
    }

    fn plain(&mut self, depth: u32, inside: Inside) -> Value {
        let last = if depth >= MAX_DEPTH { 9 } else { 16 };
        match self.chance.below(last) {
            0..=3 => {
                let operation = *self.chance.pick(CALLS);
                self.call(operation, inside)
            }
            4 => {
                let id = self.id();
                let pause = *self.chance.pick(&["1s", "20s", "10m", "5h", "2d"]);
                json!({ "id": id, "sleep": pause })
            }
            5 => self.wait_for(inside),
            6 => {
                let id = self.id();
                let question = if self.chance.percent(50) { "fail" } else { "continue" };
                json!({ "id": id, "approve": "Shall we?", "timeout": "3h", "on_error": question })
            }
            7 => self.own(inside),
            8 => {
                let id = self.id();
                let reference = self.reference(&id, inside);
                json!({ "id": id, "set": { "ref": reference } })
            }
            9 => {
                let id = self.id();
                let condition = self.condition();
                let (then, other) = (self.steps(depth + 1, inside), self.steps(depth + 1, inside));
                json!({ "id": id, "if": condition, "then": then, "else": other })
            }
            10 if !inside.item && self.kind == Kind::Order => {
                let id = self.id();
                let within = Inside {
                    item: true,
                    apart: true,
                };
                let concurrency = 1 + self.chance.below(3);
                let on_error = *self.chance.pick(&["fail", "collect"]);
                let steps = self.steps(depth + 1, within);
                self.limited(json!({ "id": id, "for_each": "{{ event.data.items }}", "key": "{{ item }}", "concurrency": concurrency, "on_error": on_error, "do": steps }))
            }
            11 => {
                let id = self.id();
                let within = Inside { apart: true, ..inside };
                let join = *self.chance.pick(&["all", "all", "any", "first"]);
                let (left, right) = (self.steps(depth + 1, within), self.steps(depth + 1, within));
                self.limited(json!({ "id": id, "parallel": { "left": left, "right": right }, "join": join }))
            }
            12 => {
                let id = self.id();
                let of = if self.kind == Kind::Part {
                    "{{ 1 }}"
                } else {
                    "{{ event.data.items | length }}"
                };
                let (one, two) = (self.steps(depth + 1, inside), self.steps(depth + 1, inside));
                let other = self.steps(depth + 1, inside);
                json!({ "id": id, "switch": of, "cases": { "1": one, "2": two }, "default": other })
            }
            13 if depth > 0 => {
                let id = self.id();
                let status = *self.chance.pick(&["succeeded", "failed"]);
                json!({ "id": id, "when": self.condition(), "stop": { "status": status, "reason": "enough" } })
            }
            _ => self.guarded(depth, inside),
        }
    }

    fn guarded(&mut self, depth: u32, inside: Inside) -> Value {
        let id = self.id();
        let mut tried = self.steps(depth + 1, inside);
        let mut caught = self.steps(depth + 1, inside);
        if !inside.apart && self.chance.percent(40) {
            let mut first = self.call("charge", inside);
            let undo = self.call("put", inside);
            first["undo"] = json!([undo]);
            tried.insert(0, first);
            let compensate = self.id();
            caught.insert(0, json!({ "id": compensate, "compensate": "all" }));
        }
        let mut step = json!({ "id": id, "try": tried, "catch": caught });
        if self.chance.percent(30) {
            step["finally"] = json!(self.steps(depth + 1, inside));
        }
        self.limited(step)
    }

    /// The same step, perhaps with a time limit.
    fn limited(&mut self, mut step: Value) -> Value {
        if self.chance.percent(25) {
            step["timeout"] = json!(*self.chance.pick(&["5s", "40s", "15m", "6h"]));
        }
        step
    }

    fn call(&mut self, operation: &str, inside: Inside) -> Value {
        let id = self.id();
        let tries = 1 + self.chance.below(5);
        let timeout = *self.chance.pick(&["2s", "10s", "30s"]);
        let reference = self.reference(&id, inside);
        let mut step = json!({
            "id": id, "call": format!("shop.{operation}"), "connection": "shop",
            "with": { "ref": reference },
            "timeout": timeout, "retry": { "tries": tries, "first": "1s", "max": "30s", "factor": 2 },
        });
        match self.chance.below(100) {
            0..25 => step["on_error"] = json!("continue"),
            25..30 => {
                let other = self.id();
                let reference = self.reference(&other, inside);
                step["on_error"] = json!([{
                    "id": other, "call": "shop.put", "connection": "shop", "with": { "ref": reference },
                    "timeout": timeout, "on_error": "continue",
                }]);
            }
            _ => {}
        }
        step
    }

    fn wait_for(&mut self, inside: Inside) -> Value {
        let id = self.id();
        if self.kind == Kind::Part || inside.item {
            return json!({ "id": id, "sleep": "3s" });
        }
        self.waits.push(id.clone());
        let mut step = json!({
            "id": id,
            "wait_for": { "event": "shop.answer", "key": "{{ arrived.data.to }}", "equals": format!("{{{{ event.id ~ '/{id}' }}}}") },
            "timeout": "4h",
        });
        if self.chance.percent(50) {
            step["on_timeout"] = json!([self.call("put", inside)]);
        }
        step
    }

    fn own(&mut self, inside: Inside) -> Value {
        let id = self.id();
        let reference = self.reference(&id, inside);
        if self.chance.percent(30) {
            let within = *self.chance.pick(&["1s", "10s", "55s"]);
            let status = *self.chance.pick(&["{{ 200 }}", "{{ 201 }}", "{{ 422 }}"]);
            return json!({ "id": id, "respond": { "status": status, "body": { "ref": reference }, "within": within } });
        }
        if self.kind == Kind::Part || self.chance.percent(40) {
            return json!({ "id": id, "emit": { "type": "shop.told", "data": { "ref": reference } } });
        }
        let mut step = json!({ "id": id, "run": "part", "with": { "ref": reference } });
        if self.chance.percent(25) {
            step["detach"] = json!(true);
        } else {
            step["timeout"] = json!("12h");
            step["on_error"] = json!("continue");
        }
        step
    }
}
