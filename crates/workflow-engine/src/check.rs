//! The checks at publish: does a workflow make sense among these connectors and connections.
//!
//! Whatever can be known before the first event is said here, with its place and a hint. What passes is frozen in a
//! [`Resolution`], so that a later change of connectors never changes a published version.

mod calls;
mod cycles;
mod names;
mod schema;
mod waits;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::names::Names;
use crate::catalogue::{Catalogue, HydrateMode, ReadInfo};
use crate::definition::{Definition, Step, Trigger};
use crate::problem::{Problem, child};
use crate::reads;

/// What publish froze: stored beside the version, so that a pinned run never changes its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// Connector of the trigger; absent for manual starts.
    pub connector: Option<String>,
    /// Event type of the trigger, without the connector.
    pub event_type: Option<String>,
    /// Name of the connection whose events it takes; absent when any will do.
    pub connection: Option<String>,
    /// The hydrate mode in effect.
    pub hydrate: HydrateMode,
    /// The follow-up reads of the trigger.
    pub reads: Vec<ReadInfo>,
    /// What each `call` step calls, by step id.
    pub calls: BTreeMap<String, CallResolution>,
    /// The version of its connector that each connection was pinned to, for those that runs may call over and that
    /// have a choice. Runs of this version keep to it, whatever the connection is pinned to since.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pins: BTreeMap<String, String>,
    /// Whether steps say `item` in a loop with `as` and mean the item of a loop around it that has none. Versions from
    /// before this was frozen mean the item of the innermost loop, whatever it is called.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub item_is_outer: bool,
}

/// What a `call` step calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallResolution {
    /// Name of the connection; `None` when it is the connection of the event.
    pub connection: Option<String>,
    /// Name of the connector.
    pub connector: String,
    /// Name of the operation.
    pub operation: String,
}

/// Checks a definition against a catalogue and freezes what it means.
///
/// # Errors
/// Every problem, each with its place and, where one can be guessed, a suggestion.
pub fn check(definition: &Definition, catalogue: &dyn Catalogue) -> Result<Resolution, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut resolution = trigger(definition, catalogue, &mut problems);
    if resolution.hydrate != HydrateMode::Never
        && let Err(found) = reads::read_order(&resolution.reads)
    {
        // A connector that cannot be hydrated is not the author's fault, but nothing can run on it.
        problems.extend(found.into_iter().map(|problem| Problem {
            pointer: "/on/event".to_owned(),
            ..problem
        }));
    }
    for steps in [&definition.steps, &definition.on_failure] {
        calls::resolve(steps, catalogue, &mut resolution, &mut problems);
    }
    waits::check(definition, catalogue, &mut problems);
    cycles::check(definition, catalogue, &mut problems);
    let mut names = Names::new(definition, &resolution, catalogue, &mut problems);
    names.block(&definition.steps);
    names.on_failure(&definition.on_failure);
    let item_is_outer = names.item_is_outer();
    resolution.item_is_outer = item_is_outer;
    resolution.pins = pins(&resolution, catalogue);
    if problems.is_empty() {
        Ok(resolution)
    } else {
        Err(problems)
    }
}

/// Every connection that a run may call over, with its version: those that are named, and when a call or a read goes
/// over the connection of the event, all of that connector.
fn pins(resolution: &Resolution, catalogue: &dyn Catalogue) -> BTreeMap<String, String> {
    let trigger = resolution.connector.as_deref();
    let named = resolution.calls.values().filter_map(|call| call.connection.clone());
    let mut used: BTreeSet<String> = named.chain(resolution.connection.clone()).collect();
    let is_any = resolution.connection.is_none() && trigger.is_some();
    let follows = resolution.calls.values().any(|call| call.connection.is_none()) || !resolution.reads.is_empty();
    if is_any && follows {
        let of_trigger = |name: &String| catalogue.connection(name).as_deref() == trigger;
        used.extend(catalogue.connections().into_iter().filter(of_trigger));
    }
    let pinned = used
        .into_iter()
        .filter_map(|name| Some((catalogue.pinned(&name)?, name)));
    pinned.map(|(version, name)| (name, version)).collect()
}

fn trigger(definition: &Definition, catalogue: &dyn Catalogue, problems: &mut Vec<Problem>) -> Resolution {
    let mut resolution = Resolution {
        connector: None,
        event_type: None,
        connection: None,
        hydrate: HydrateMode::Never,
        reads: Vec::new(),
        calls: BTreeMap::new(),
        pins: BTreeMap::new(),
        item_is_outer: false,
    };
    let Trigger::Event {
        event,
        connection,
        hydrate,
        ..
    } = &definition.trigger
    else {
        return resolution;
    };
    let Some((connector, kind)) = event.split_once('.') else {
        return resolution;
    };
    resolution.connector = Some(connector.to_owned());
    resolution.event_type = Some(kind.to_owned());
    resolution.connection.clone_from(connection);
    let connectors = catalogue.connectors();
    if !connectors.iter().any(|known| known == connector) {
        let problem = Problem::new(
            "/on/event",
            "unknown_connector",
            format!("there is no connector `{connector}`"),
        );
        problems.push(problem.did_you_mean(connector, connectors.iter().map(String::as_str)));
        return resolution;
    }
    match catalogue.event_type(connector, connection.as_deref(), kind) {
        Some(info) => {
            resolution.hydrate = hydrate.unwrap_or(info.hydrate_default);
            resolution.reads = info.reads;
        }
        None => {
            let known = catalogue.event_types(connector);
            let message = format!("the connector `{connector}` has no event type `{kind}`");
            let problem = Problem::new("/on/event", "unknown_event_type", message);
            problems.push(problem.did_you_mean(kind, known.iter().map(String::as_str)));
        }
    }
    if let Some(name) = connection {
        calls::check_connection(name, connector, "/on/connection", catalogue, problems);
    }
    resolution
}

/// The reads that the steps of a workflow use by name.
#[derive(Debug, Default)]
pub(crate) struct HydratedUses {
    names: BTreeSet<String>,
    /// Some expression uses `hydrated` as a whole.
    all: bool,
}

impl HydratedUses {
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    fn collect(&mut self, steps: &[Step]) {
        for step in steps {
            for used in step
                .all_expressions()
                .into_iter()
                .flat_map(|expression| expression.uses())
            {
                if !matches!(used.root.as_str(), "hydrated" | "provenance") {
                    continue;
                }
                match used.first_key() {
                    Some(name) => {
                        self.names.insert(name.to_owned());
                    }
                    None => self.all = true,
                }
            }
            for block in step.blocks() {
                self.collect(block);
            }
        }
    }
}

/// The reads that a workflow uses.
pub(crate) fn hydrated_uses(definition: &Definition) -> HydratedUses {
    let mut uses = HydratedUses::default();
    uses.collect(&definition.steps);
    uses.collect(&definition.on_failure);
    uses
}

fn with_pointer(step: &Step) -> String {
    child(&step.pointer, "with")
}
