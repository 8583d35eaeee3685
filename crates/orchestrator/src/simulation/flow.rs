//! Random flow control: what the runs of a workflow wait for, with keys of few values so that runs meet.

use serde_json::{Value, json};

use super::chance::Chance;

/// In so many of 100 workflows that events start.
const SHARE: u64 = 40;
/// The values of the key that events carry.
pub(super) const KEYS: &[&str] = &["a", "a", "b"];
const KEY: &str = "{{ event.data.key }}";

/// What the document of a workflow says about the starts of its runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Flow {
    pub(super) lane: Option<Lane>,
    pub(super) concurrency: Option<Limit>,
    pub(super) throttle: Option<Throttle>,
    /// It has `debounce` or `batch`.
    pub(super) gathers: bool,
}

/// Its lanes have keys always.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    /// A failed run keeps it.
    pub(super) holds: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) keyed: bool,
    pub(super) most: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Throttle {
    pub(super) starts: Limit,
    pub(super) per_ms: i64,
}

impl Flow {
    pub(super) fn is_used(&self) -> bool {
        self.lane.is_some() || self.concurrency.is_some() || self.throttle.is_some() || self.gathers
    }
}

/// Gives a workflow flow control, or not.
pub(super) fn add(chance: &mut Chance, document: &mut Value) -> Flow {
    let mut flow = Flow::default();
    if !chance.percent(SHARE) {
        return flow;
    }
    if chance.percent(60) {
        flow.lane = Some(lane(chance, document));
    }
    if chance.percent(35) {
        let limit = limit(chance);
        document["concurrency"] = limit.written();
        flow.concurrency = Some(limit);
    }
    if chance.percent(35) || !flow.is_used() {
        let starts = limit(chance);
        let (per, per_ms) = *chance.pick(&[("10s", 10_000), ("1m", 60_000), ("1h", 3_600_000)]);
        document["throttle"] = starts.written();
        document["throttle"]["per"] = json!(per);
        flow.throttle = Some(Throttle { starts, per_ms });
    }
    if chance.percent(20) {
        flow.gathers = true;
        if chance.percent(50) {
            document["debounce"] = json!({ "key": KEY, "for": "8s" });
            if chance.percent(50) {
                document["debounce"]["max"] = json!("20s");
            }
        } else {
            document["batch"] = json!({ "key": KEY, "size": 2 + chance.below(2), "for": "15s" });
        }
    }
    if chance.percent(30) {
        document["priority"] = json!("{{ event.data.items | length }}");
    }
    flow
}

fn lane(chance: &mut Chance, document: &mut Value) -> Lane {
    let holds = chance.percent(50);
    document["lane"] = json!({ "key": KEY, "on_block": if holds { "hold" } else { "park" } });
    if chance.percent(25) {
        document["lane"]["merge"] = json!(true);
    }
    if chance.percent(25) {
        document["lane"]["max_waiting"] = json!(1 + chance.below(2));
    }
    Lane { holds }
}

fn limit(chance: &mut Chance) -> Limit {
    Limit {
        keyed: chance.percent(50),
        most: if chance.percent(60) { 1 } else { 2 },
    }
}

impl Limit {
    fn written(self) -> Value {
        match self.keyed {
            true => json!({ "key": KEY, "limit": self.most }),
            false => json!({ "limit": self.most }),
        }
    }
}
