//! A whole connector: the manifest, checked and compiled.

mod common;
mod read;

use std::borrow::Cow;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;
use url::Url;

use crate::auth::{AuthScheme, AuthTest, Credential};
use crate::budget::{self, Budget};
use crate::event_type::EventType;
use crate::operation::{BuildError, Operation};
use crate::problem::{Problem, Problems};
use crate::redact::SecretNames;
use crate::webhook::Webhook;
use crate::yaml::{YamlDocument, parse_yaml};

pub(crate) use common::Common;
use common::Hosts;

/// One connector.
#[derive(Debug)]
pub struct Connector {
    version: String,
    title: String,
    description: Option<String>,
    common: Arc<Common>,
    config_schema: Value,
    auth: Vec<AuthScheme>,
    auth_test: Option<AuthTest>,
    secret_names: SecretNames,
    budget: Option<Budget>,
    operations: IndexMap<String, Operation>,
    webhook: Option<Webhook>,
    polls: IndexMap<String, Webhook>,
    events: IndexMap<String, EventType>,
}

impl Connector {
    /// Reads one manifest. `load` gives the text of a file beside it (schemas, samples) by its relative name.
    ///
    /// # Errors
    /// Every [`Problem`] found, with lines.
    pub fn parse(yaml: &str, load: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let documents = parse_yaml(yaml).map_err(|error| {
            vec![Problem {
                pointer: String::new(),
                line: Some(error.line),
                code: "bad_yaml",
                message: error.message,
                suggestion: None,
            }]
        })?;
        let [document] = documents.as_slice() else {
            let message = format!("a manifest is one YAML document, found {}", documents.len());
            return Err(vec![Problem {
                pointer: String::new(),
                line: None,
                code: "bad_yaml",
                message,
                suggestion: None,
            }]);
        };
        Self::from_document(document, load)
    }

    /// Reads a manifest from a parsed document (`kind: Connector` documents of `weir apply` included).
    ///
    /// # Errors
    /// As [`Connector::parse`].
    pub fn from_document(document: &YamlDocument, load: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        Self::from_value(&document.value, load).map_err(|mut list| {
            for problem in &mut list {
                problem.line = document.line_of(&problem.pointer);
            }
            list
        })
    }

    /// Reads a manifest that did not come from a text: the problems have no lines.
    ///
    /// # Errors
    /// As [`Connector::parse`].
    pub fn from_value(value: &Value, load: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let connector = Self::read(value, load, &mut problems);
        problems.finish(connector)
    }

    /// JSON Schema (draft 2020-12) of manifests, for editors. It takes every manifest that the parser takes and names the
    /// same keys and words; what the parser says beyond that (names that lead somewhere, keys that exclude each other)
    /// only `weir connector check` tells.
    ///
    /// # Panics
    /// Never: the schema is part of this crate and a test reads it.
    pub fn json_schema() -> Value {
        serde_json::from_str(include_str!("schema.json")).expect("the schema of this crate is JSON")
    }

    /// The name that workflows and connections use.
    pub fn name(&self) -> &str {
        &self.common.name
    }

    /// The manifest's version, three numbers.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The name for people.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// What it is, for people.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// One operation by its name without the connector.
    pub fn operation(&self, name: &str) -> Option<&Operation> {
        self.operations.get(name)
    }

    /// Every operation, in the order of the manifest.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.values()
    }

    /// Every declared event type, in the order of the manifest; `*` stands for all others.
    pub fn events(&self) -> impl Iterator<Item = (&str, &EventType)> {
        self.events.iter().map(|(name, event_type)| (name.as_str(), event_type))
    }

    /// The declaration that covers an event type: its own, or that of `*`.
    pub fn event_type(&self, name: &str) -> Option<&EventType> {
        self.events.get(name).or_else(|| self.events.get("*"))
    }

    /// The way in, when it has one.
    pub fn webhook(&self) -> Option<&Webhook> {
        self.webhook.as_ref()
    }

    /// A list from which events come that nobody sends.
    pub fn poll(&self, name: &str) -> Option<&Webhook> {
        self.polls.get(name)
    }

    /// The names of such lists, in the manifest's order.
    pub fn polls(&self) -> impl Iterator<Item = &str> {
        self.polls.keys().map(String::as_str)
    }

    /// Headers that become part of events, lower case; empty without a webhook.
    pub fn header_allow(&self) -> &[String] {
        self.webhook.as_ref().map_or(&[], Webhook::event_headers)
    }

    /// The ways to authenticate, in the order of the manifest.
    pub fn auth(&self) -> &[AuthScheme] {
        &self.auth
    }

    /// The scheme that fits a credential.
    pub fn scheme_for(&self, credential: &Credential) -> Option<&AuthScheme> {
        self.auth.iter().find(|scheme| scheme.as_str() == credential.kind())
    }

    /// Compares a credential with the names that this connector asks for. Pointers are relative to the credential; one of
    /// another kind has no problems here: see [`Connector::scheme_for`].
    pub fn check_credential(&self, credential: &Credential) -> Vec<Problem> {
        self.scheme_for(credential)
            .map(|scheme| credential.check(scheme))
            .unwrap_or_default()
    }

    /// The call that proves a credential.
    pub fn auth_test(&self) -> Option<&AuthTest> {
        self.auth_test.as_ref()
    }

    /// Header and query names that carry this connector's credentials.
    pub fn secret_names(&self) -> &SecretNames {
        &self.secret_names
    }

    /// The stated request allowance.
    pub fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    /// The settings of a connection as a JSON Schema object.
    pub fn config_schema(&self) -> &Value {
        &self.config_schema
    }

    /// Default settings, an object; operations fall back on them by themselves.
    pub fn config_defaults(&self) -> &Value {
        &self.common.config_defaults
    }

    /// Checks the settings of a connection. Pointers are relative to the settings.
    pub fn check_config(&self, config: &Value) -> Vec<Problem> {
        let mut problems = Problems::default();
        self.common.config.check(config, "", &mut problems);
        if let Some(budget) = config.get("budget").filter(|_| problems.is_empty()) {
            budget::check_own(budget, "/budget", &mut problems);
        }
        if problems.is_empty()
            && matches!(self.common.hosts, Hosts::Listed(_))
            && let Err(error) = self.common.base_url(config)
        {
            problems.add(
                error.pointer.strip_prefix("/config").unwrap_or_default(),
                "bad_value",
                error.message,
            );
        }
        problems.into_list()
    }

    /// Where paths start, without a trailing slash: `config.base_url`, or the first host.
    ///
    /// # Errors
    /// [`BuildError`] when a setting is missing, or would lead to another host.
    pub fn base_url(&self, config: &Value) -> Result<String, BuildError> {
        self.common.base_url(config).map(Cow::into_owned)
    }

    /// Whether requests may go to any host; otherwise only to the origins of [`Connector::base_urls`].
    pub fn calls_any_host(&self) -> bool {
        matches!(self.common.hosts, Hosts::Any)
    }

    /// Where requests may start: the base URLs of all its hosts as far as the settings tell them; for a connector of any
    /// host that of `config.base_url` alone. The credential may travel to their origins and nowhere else.
    pub fn base_urls(&self, config: &Value) -> Vec<Url> {
        self.common.base_urls(config)
    }
}
