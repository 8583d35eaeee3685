//! What the checks at publish want to know about connectors and connections: asked for, never fetched here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whether the follow-up reads of an event type run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HydrateMode {
    /// All of them, unless their own `when` says no.
    Always,
    /// Only those that the workflow uses, and those that these need.
    Missing,
    /// None.
    Never,
}

/// What is known of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationInfo {
    /// Names of the arguments that must be given.
    pub required: Vec<String>,
    /// Names of all arguments; `None` when anything may be given.
    pub known: Option<Vec<String>>,
    /// The values that an argument may have, by name, where only some are allowed.
    pub allowed: BTreeMap<String, Vec<Value>>,
    /// JSON Schema of the output.
    pub output_schema: Option<Value>,
    /// Whether it reads a list page by page.
    pub paged: bool,
}

/// What is known of an event type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTypeInfo {
    /// The mode when the workflow does not name one.
    pub hydrate_default: HydrateMode,
    /// The follow-up reads, in the order of the manifest.
    pub reads: Vec<ReadInfo>,
}

/// One follow-up read of an event type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadInfo {
    /// Its name: `hydrated.<name>`.
    pub name: String,
    /// The operation, without the connector.
    pub operation: String,
    /// The arguments with `{{ }}` in their leaves; sees `event`, `ref` and earlier reads by their names.
    pub with: Value,
    /// The read is left out when this is false, null or not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Present when all pages are wanted: the largest number of items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_max: Option<u32>,
    /// The answer is used only when this is true; it sees the answer by the name of the read, beside what `with` sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<String>,
}

/// The connectors and connections of a workspace.
pub trait Catalogue {
    /// The connector of the connection with this name.
    fn connection(&self, name: &str) -> Option<String>;
    /// The names of all connections.
    fn connections(&self) -> Vec<String>;
    /// The names of all connectors.
    fn connectors(&self) -> Vec<String>;
    /// The version of its connector that a connection is pinned to. `None`: it has no choice, or there is no such
    /// connection.
    fn pinned(&self, connection: &str) -> Option<String>;
    /// What is known of an operation, as the connector of this connection has it. `connection` is `None` where any
    /// connection of the connector may be meant.
    fn operation(&self, connector: &str, connection: Option<&str>, operation: &str) -> Option<OperationInfo>;
    /// The names of all operations of a connector.
    fn operations(&self, connector: &str) -> Vec<String>;
    /// What is known of an event type; `connection` as for [`Catalogue::operation`].
    fn event_type(&self, connector: &str, connection: Option<&str>, event_type: &str) -> Option<EventTypeInfo>;
    /// The names of all event types of a connector.
    fn event_types(&self, connector: &str) -> Vec<String>;
    /// The names of all workflows.
    fn workflows(&self) -> Vec<String>;
    /// The workflows of which every run of this one starts a run ([`crate::Definition::always_starts`]).
    fn always_starts(&self, workflow: &str) -> Vec<String>;
    /// What the input of a workflow that is started by hand must look like ([`crate::Trigger::Manual`]). `None`: it has
    /// another trigger, or takes any input.
    fn input_schema(&self, workflow: &str) -> Option<Value>;
}
