//! Connectors with their operations and event types.

use super::super::scalars::{DateTime, Json};
use async_graphql::{Enum, Object, SimpleObject};
use serde_json::json;
use std::sync::Arc;
use weir_connector_sdk::{Effect, EventType as Declared, Hydrate, Operation as DeclaredOperation};
use weir_orchestrator::configure::PublishedVersion;

/// A described provider.
pub(crate) struct Connector(pub(crate) Arc<weir_connector_sdk::Connector>);

/// A described provider: the calls it can make and the events it can report.
#[Object]
impl Connector {
    /// Its name, unique on this server, such as `stripe`.
    async fn name(&self) -> &str {
        self.0.name()
    }

    /// Version of its manifest.
    async fn version(&self) -> &str {
        self.0.version()
    }

    /// Its name for people.
    async fn title(&self) -> &str {
        self.0.title()
    }

    /// The calls it can make.
    async fn operations(&self) -> Vec<Operation<'_>> {
        self.0.operations().map(Operation).collect()
    }

    /// The kinds of events it can report.
    async fn event_types(&self) -> Vec<EventType> {
        self.0
            .events()
            .map(|(name, declared)| EventType::new(name, declared))
            .collect()
    }

    /// Whether it can receive webhooks.
    async fn receives_webhooks(&self) -> bool {
        self.0.webhook().is_some()
    }

    /// The values that an endpoint may or must state of its registration (`context`).
    async fn endpoint_context(&self) -> Vec<EndpointContextField> {
        let fields = self
            .0
            .webhook()
            .into_iter()
            .flat_map(weir_connector_sdk::Webhook::context);
        fields
            .map(|(name, field)| EndpointContextField {
                name: name.to_owned(),
                required: field.required,
                description: field.description.clone(),
            })
            .collect()
    }

    /// JSON Schema of a connection's `config`.
    async fn config_schema(&self) -> Json {
        Json(self.0.config_schema().clone())
    }
}

/// One version of a connector that the workspace published. It never changes.
#[derive(Debug, SimpleObject)]
pub(crate) struct ConnectorVersion {
    /// The connector's name.
    name: String,
    /// Its version.
    version: String,
    /// When it was published.
    published_at: DateTime,
    /// Kinds and names of the connections, endpoints and published workflows that are pinned to it.
    used_by: Vec<String>,
}

impl From<PublishedVersion> for ConnectorVersion {
    fn from(version: PublishedVersion) -> Self {
        ConnectorVersion {
            name: version.name,
            version: version.version,
            published_at: DateTime(version.created_at),
            used_by: version.used_by,
        }
    }
}

/// One value that an endpoint may or must state of its registration at the provider.
#[derive(Debug, SimpleObject)]
pub(crate) struct EndpointContextField {
    /// Its name in `context`.
    name: String,
    /// Whether requests cannot be verified without it.
    required: bool,
    /// What it is and where the provider shows it.
    description: Option<String>,
}

/// One call of a connector.
pub(crate) struct Operation<'a>(&'a DeclaredOperation);

/// One call that a connector can make.
#[Object]
impl Operation<'_> {
    /// Its name, such as `contacts.update`; a workflow writes `connector.operation`.
    async fn name(&self) -> &str {
        self.0.name()
    }

    /// What the call does outside, and how it can be repeated.
    async fn effect(&self) -> EffectClass {
        EffectClass::of(&self.0.effect(&json!({}), &json!({})))
    }

    /// Names of the arguments that must be given.
    async fn required_arguments(&self) -> Vec<String> {
        self.0.required_args().into_iter().map(str::to_owned).collect()
    }

    /// Names of all arguments. Null: any may be given.
    async fn known_arguments(&self) -> Option<Vec<String>> {
        self.0
            .known_args()
            .map(|names| names.into_iter().map(str::to_owned).collect())
    }

    /// JSON Schema of the output, if the connector knows one.
    async fn output_schema(&self) -> Option<Json> {
        self.0.output_schema().cloned().map(Json)
    }
}

/// What a call does outside, and how it can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum EffectClass {
    /// Changes nothing outside.
    Read,
    /// The provider honours an idempotency key: sent again with the same key, it takes effect once.
    Keyed,
    /// Before it is sent again, the provider is asked whether it took place.
    FindBy,
    /// Sets absolute values: sending it again changes nothing more.
    Repeatable,
    /// Cannot be repeated safely: a lost answer makes it `UNKNOWN`, and a person decides.
    Blind,
}

impl EffectClass {
    fn of(effect: &Effect) -> Self {
        match effect {
            Effect::Read => EffectClass::Read,
            Effect::Keyed { .. } => EffectClass::Keyed,
            Effect::FindBy { .. } => EffectClass::FindBy,
            Effect::Repeatable => EffectClass::Repeatable,
            Effect::Blind => EffectClass::Blind,
        }
    }

    /// From the engine's name of the class.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "read" => EffectClass::Read,
            "keyed" => EffectClass::Keyed,
            "find_by" => EffectClass::FindBy,
            "repeatable" => EffectClass::Repeatable,
            "blind" => EffectClass::Blind,
            _ => return None,
        })
    }
}

/// One kind of event that a connector can report.
#[derive(Debug, SimpleObject)]
pub(crate) struct EventType {
    /// Its name at the provider; a workflow writes `connector.type`.
    name: String,
    /// Whether the follow-up reads run when a workflow does not say.
    hydrate_default: HydrateMode,
    /// The follow-up reads that turn the event into full objects.
    reads: Vec<HydrationRead>,
}

impl EventType {
    fn new(name: &str, declared: &Declared) -> Self {
        let reads = declared
            .reads
            .iter()
            .map(|(name, read)| HydrationRead {
                name: name.clone(),
                operation: read.call.clone(),
            })
            .collect();
        let hydrate_default = match declared.hydrate_default {
            Hydrate::Always => HydrateMode::Always,
            Hydrate::Missing => HydrateMode::Missing,
            Hydrate::Never => HydrateMode::Never,
        };
        EventType {
            name: name.to_owned(),
            hydrate_default,
            reads,
        }
    }
}

/// One follow-up read of an event type.
#[derive(Debug, SimpleObject)]
pub(crate) struct HydrationRead {
    /// Its name; expressions write `hydrated.name`.
    name: String,
    /// The operation that it calls.
    operation: String,
}

/// When the follow-up reads of an event run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum HydrateMode {
    /// All of them.
    Always,
    /// Only those that the workflow uses, and those that these need.
    Missing,
    /// None.
    Never,
}

impl From<weir_workflow_engine::HydrateMode> for HydrateMode {
    fn from(mode: weir_workflow_engine::HydrateMode) -> Self {
        match mode {
            weir_workflow_engine::HydrateMode::Always => HydrateMode::Always,
            weir_workflow_engine::HydrateMode::Missing => HydrateMode::Missing,
            weir_workflow_engine::HydrateMode::Never => HydrateMode::Never,
        }
    }
}
