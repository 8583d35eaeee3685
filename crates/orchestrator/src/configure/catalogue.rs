//! Translates what connectors say into what the engine asks: two pure crates that do not know each other.

use crate::published::{Connectors, Version, name_and_version};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use weir_connector_sdk::{Connector, Effect, Hydrate};
use weir_workflow_engine::{
    Catalogue, Definition, EffectClass, EventTypeInfo, HydrateMode, OperationInfo, ReadInfo, Trigger,
};

/// The class of one call, as the connector declares it for this configuration and these arguments.
/// An operation that is gone from the manifest is blind: nothing may be taken for granted.
pub(crate) fn effect_class(connector: &Connector, operation: &str, config: &Value, args: &Value) -> EffectClass {
    let Some(operation) = connector.operation(operation) else {
        return EffectClass::Blind;
    };
    match operation.effect(config, args) {
        Effect::Read => EffectClass::Read,
        Effect::Keyed { window_s, .. } => EffectClass::Keyed {
            window: Duration::from_secs(window_s),
        },
        Effect::FindBy {
            consistent, settle_s, ..
        } => EffectClass::FindBy {
            consistent,
            settle: Duration::from_secs(settle_s),
        },
        Effect::Repeatable => EffectClass::Repeatable,
        Effect::Blind => EffectClass::Blind,
    }
}

/// What a connector says of one event type, in the engine's words.
pub(crate) fn event_type_info(connector: &Connector, event_type: &str) -> Option<EventTypeInfo> {
    let found = connector.event_type(event_type)?;
    Some(EventTypeInfo {
        hydrate_default: match found.hydrate_default {
            Hydrate::Always => HydrateMode::Always,
            Hydrate::Missing => HydrateMode::Missing,
            Hydrate::Never => HydrateMode::Never,
        },
        reads: found
            .reads
            .iter()
            .map(|(name, read)| ReadInfo {
                name: name.clone(),
                operation: read.call.clone(),
                with: read.with.clone(),
                when: read.when.clone(),
                all_max: read.all_max,
                fresh: read.fresh.clone(),
            })
            .collect(),
    })
}

/// The connectors and connections of one workspace, as they will be after the change at hand.
pub(crate) struct Prospect {
    pub(crate) connectors: Connectors,
    /// Connection name to its connector, with the version where it has one.
    pub(crate) connections: BTreeMap<String, String>,
    /// All workflows by their names.
    pub(crate) workflows: BTreeMap<String, Callee>,
}

/// What a workflow that starts another one wants to know of it.
#[derive(Default)]
pub(crate) struct Callee {
    /// The workflows that each of its runs starts.
    always_starts: Vec<String>,
    /// What its trigger wants its input to look like.
    input_schema: Option<Value>,
}

impl Callee {
    /// As this definition says.
    pub(crate) fn of(definition: &Definition) -> Self {
        let input_schema = match definition.trigger() {
            Trigger::Manual { input } => input.clone(),
            Trigger::Event { .. } | Trigger::Schedule(_) => None,
        };
        Self {
            always_starts: definition.always_starts(),
            input_schema,
        }
    }
}

impl Prospect {
    /// The connector that a connection speaks with; where any may be meant, the newest version that one is pinned to.
    fn connector_of(&self, connector: &str, connection: Option<&str>) -> Option<&Arc<Connector>> {
        let is_of = |reference: &&String| name_and_version(reference).0 == connector;
        let named = connection.and_then(|name| self.connections.get(name)).filter(is_of);
        let newest = || {
            let version = |reference: &&String| name_and_version(reference).1.and_then(Version::parse);
            self.connections.values().filter(is_of).max_by_key(version)
        };
        let reference = named.or_else(newest).map_or(connector, String::as_str);
        self.connectors.get(reference)
    }
}

impl Catalogue for Prospect {
    fn connection(&self, name: &str) -> Option<String> {
        let reference = self.connections.get(name)?;
        Some(name_and_version(reference).0.to_owned())
    }

    fn pinned(&self, connection: &str) -> Option<String> {
        self.connections
            .get(connection)
            .filter(|reference| reference.contains('@'))
            .cloned()
    }

    fn connections(&self) -> Vec<String> {
        self.connections.keys().cloned().collect()
    }

    fn connectors(&self) -> Vec<String> {
        self.connectors
            .iter()
            .map(|connector| connector.name().to_owned())
            .collect()
    }

    fn operation(&self, connector: &str, connection: Option<&str>, operation: &str) -> Option<OperationInfo> {
        let operation = self.connector_of(connector, connection)?.operation(operation)?;
        Some(OperationInfo {
            required: operation.required_args().iter().map(ToString::to_string).collect(),
            known: operation
                .known_args()
                .map(|known| known.iter().map(ToString::to_string).collect()),
            allowed: operation
                .allowed_args()
                .map(|(name, values)| (name.to_owned(), values.to_vec()))
                .collect(),
            output_schema: operation.output_schema().cloned(),
            paged: operation.is_paged(),
        })
    }

    fn operations(&self, connector: &str) -> Vec<String> {
        self.connector_of(connector, None)
            .map(|connector| {
                connector
                    .operations()
                    .map(|operation| operation.name().to_owned())
                    .collect()
            })
            .unwrap_or_default()
    }

    fn event_type(&self, connector: &str, connection: Option<&str>, event_type: &str) -> Option<EventTypeInfo> {
        event_type_info(self.connector_of(connector, connection)?, event_type)
    }

    fn event_types(&self, connector: &str) -> Vec<String> {
        self.connector_of(connector, None)
            .map(|connector| connector.events().map(|(name, _)| name.to_owned()).collect())
            .unwrap_or_default()
    }

    fn workflows(&self) -> Vec<String> {
        self.workflows.keys().cloned().collect()
    }

    fn always_starts(&self, workflow: &str) -> Vec<String> {
        let callee = self.workflows.get(workflow);
        callee.map_or_else(Vec::new, |callee| callee.always_starts.clone())
    }

    fn input_schema(&self, workflow: &str) -> Option<Value> {
        self.workflows.get(workflow)?.input_schema.clone()
    }
}
