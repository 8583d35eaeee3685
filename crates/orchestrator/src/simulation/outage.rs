//! A world in which the provider is away for an hour while events keep coming in.

use std::time::Duration;

use serde_json::json;
use weir_storage::{RunStatus, SyncStore};

use super::budget::Budget;
use super::chance::Chance;
use super::definitions::Written;
use super::flow::{Flow, Limit};
use super::item::Item;
use super::order::limits_were_kept;
use super::world::{BEGIN, Lawful, World, broke, unread};

/// How long it is away.
const AWAY: Duration = Duration::from_secs(3600);
/// How many requests the connection may send in a second.
pub(super) const PER_SECOND: usize = 100;
/// How long requests and answers are on their way: the budget's rules take requests for 20 ms.
const WAY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(30));
/// How often a process dies meanwhile, or another takes its place.
const BLOWS: Duration = Duration::from_secs(400);
/// What happens for one event at most, tries against the closed door included.
const HAPPENINGS_PER_EVENT: u32 = 60;

/// What an hour without the provider was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    pub(super) events: usize,
    /// Runs that had not begun when the provider came back.
    pub(super) waiting_at_its_return: usize,
    /// From its return until the last run was through.
    pub(super) drained_in: Duration,
    /// Most requests that reached the provider in a second.
    pub(super) busiest_second: usize,
    pub(super) processes: usize,
}

/// Lives through the hour, with so many events a second, of which so many runs may be in progress at a time.
pub(super) fn live(store: &mut SyncStore, seed: u64, events_per_second: u32, at_a_time: usize) -> Lawful<Outage> {
    store.clear().expect("the tables can be emptied");
    let document = json!({
        "name": "order",
        "on": { "event": "shop.order", "hydrate": "never" },
        "concurrency": at_a_time,
        "steps": [{
            "id": "deal", "call": "shop.charge", "connection": "shop", "with": { "ref": "deal.{{ event.id }}" },
            "timeout": "10s", "retry": { "tries": 100, "first": "1s", "max": "1m", "factor": 2 },
        }],
    });
    let limit = Limit {
        keyed: false,
        most: at_a_time,
    };
    let written = Written {
        name: "order".to_owned(),
        document,
        earlier: Vec::new(),
        next: None,
        waits: Vec::new(),
        flow: Flow {
            concurrency: Some(limit),
            ..Flow::default()
        },
    };
    let mut world = World::new(store, Chance::new(seed), vec![written])?;
    let events = u32::try_from(AWAY.as_secs()).unwrap_or_default() * events_per_second;
    world.several = true;
    world.away_until = Some(BEGIN.plus(AWAY));
    world.way = WAY;
    world.budget = Some(Budget {
        evenly: true,
        ..Budget::new(PER_SECOND)
    });
    // Journals that tell of an hour of tries take long to read.
    world.folds = 2;
    world.most_happenings = events * HAPPENINGS_PER_EVENT;
    world.start("node-a");
    for number in 0..events {
        let at = BEGIN.plus(Duration::from_secs(1) * number / events_per_second);
        let told = world.tell_of(&format!("order-{number}"), "order", &json!({}));
        world.at(at, Item::Deliver(told));
    }
    let blows = u32::try_from(AWAY.as_secs() / BLOWS.as_secs()).unwrap_or_default();
    for number in 1..=blows {
        let item = if number % 2 == 0 {
            Item::TakeOver
        } else {
            Item::Crash { reboot: false }
        };
        world.at(BEGIN.plus(BLOWS * number), item);
    }
    world.go_on(Some(BEGIN.plus(AWAY)))?;
    let waiting = world.store.runs().map_err(unread)?;
    let waiting_at_its_return = waiting.iter().filter(|run| run.status == RunStatus::Queued).count();
    world.go_on(None)?;
    world.all_was_done_once(usize::try_from(events).unwrap_or_default())?;
    Ok(Outage {
        events: usize::try_from(events).unwrap_or_default(),
        waiting_at_its_return,
        drained_in: world.now.since(BEGIN.plus(AWAY)),
        busiest_second: world.busiest_second,
        processes: world.processes.len(),
    })
}

impl World<'_> {
    /// Every event was acknowledged, its run succeeded, its effect took place once, and the limit was kept.
    fn all_was_done_once(&mut self, events: usize) -> Lawful {
        let lost = self.told.iter().filter(|told| !told.acknowledged).count();
        let runs = self.store.runs().map_err(unread)?;
        let through = runs.iter().filter(|run| run.status == RunStatus::Succeeded).count();
        if lost > 0 || through != events || runs.len() != events {
            let detail = format!(
                "{lost} of {events} not acknowledged, {} runs, {through} succeeded",
                runs.len()
            );
            return broke("nothing is lost while the provider is away", detail);
        }
        if self.provider.counts().count() != events || self.provider.counts().any(|(_, count)| count != 1) {
            return broke("no effect is done twice", "while the provider is away");
        }
        let flow = self.flow_of("order");
        let members = self.members("order", flow)?;
        limits_were_kept(&members)
    }
}
