//! An endpoint as the hot path sees it.

use crate::configure::{Intake, RegisterRule, SweepRule};
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use weir_connector_sdk::{Connector, Level, Registration, Verifier, Webhook};
use weir_storage::EndpointRow;
use weir_workflow_engine::{ConnectionId, EndpointId, Timestamp, WorkspaceId};

/// An ingest URL, ready to verify with.
pub struct Endpoint {
    pub(super) row: EndpointRow,
    pub(super) connector: Arc<Connector>,
    pub(super) connection: Option<(ConnectionId, String)>,
    pub(super) verify: Option<Value>,
    pub(super) own_verifier: Option<Verifier>,
    /// All that count: its own, then those of its registration.
    pub(super) secrets: Vec<SecretString>,
    /// How many of them are its own.
    pub(super) own_secrets: usize,
    pub(super) allow: Vec<IpNet>,
    pub(super) intake: Intake,
    pub(super) context: Registration,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.row.id)
            .field("name", &self.row.name)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.row.id
    }
    /// The tenant.
    #[must_use]
    pub fn workspace(&self) -> WorkspaceId {
        self.row.workspace
    }
    /// Its name, unique in the workspace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.row.name
    }
    /// The connector whose webhooks arrive here.
    #[must_use]
    pub fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }
    /// The connector as it is named in the configuration: with its version, unless it has none or is that of the
    /// connection.
    #[must_use]
    pub fn connector_reference(&self) -> &str {
        &self.row.connector
    }
    /// The fixed connection of its events.
    #[must_use]
    pub fn connection(&self) -> Option<(ConnectionId, &str)> {
        self.connection.as_ref().map(|(id, name)| (*id, name.as_str()))
    }
    /// The verification that replaces the connector's, as it was written.
    #[must_use]
    pub fn verify_override(&self) -> Option<&Value> {
        self.verify.as_ref()
    }
    /// How many secrets are active.
    #[must_use]
    pub fn secret_count(&self) -> usize {
        self.secrets.len()
    }
    /// The networks that may send; empty: all.
    #[must_use]
    pub fn allow(&self) -> &[IpNet] {
        &self.allow
    }
    /// What it says about sweeps and webhooks.
    #[must_use]
    pub fn intake(&self) -> &Intake {
        &self.intake
    }
    /// How its events are told: by the connector's webhooks, or by the list that it polls.
    #[must_use]
    pub fn way_in(&self) -> Option<&Webhook> {
        match &self.intake.poll {
            Some(poll) => self.connector.poll(poll),
            None => self.connector.webhook(),
        }
    }
    /// The list that it polls instead of taking webhooks.
    #[must_use]
    pub fn poll(&self) -> Option<&str> {
        self.intake.poll.as_deref()
    }
    /// From when on a poll takes items: what was before is no news. Many lists know whole seconds, so it begins with one.
    #[must_use]
    pub fn polls_from(&self) -> Option<Timestamp> {
        self.intake.poll.as_ref()?;
        let since = self.intake.since.as_ref().map(|(_, since)| *since);
        let from_ms = since.unwrap_or(self.row.created_at).as_unix_ms();
        Some(Timestamp::from_unix_ms(from_ms - from_ms.rem_euclid(1_000)))
    }
    /// Whether it takes webhooks.
    #[must_use]
    pub fn receives(&self) -> bool {
        !self.intake.sweeps_only
    }
    /// How often it is swept. `None`: on demand alone, or not at all.
    #[must_use]
    pub fn swept_every(&self) -> Option<Duration> {
        let recover = self.way_in()?.recover()?;
        if recover.level == Level::PushOnly || self.connection.is_none() {
            return None;
        }
        match &self.intake.sweep {
            SweepRule::Connector => Some(Duration::from_secs(recover.every_s)),
            SweepRule::Never => None,
            SweepRule::Every(_, every) => Some(*every),
        }
    }
    /// Counted by each change, from 1.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.row.revision
    }
    /// When it was made.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.row.created_at
    }
    /// When it was last changed.
    #[must_use]
    pub fn updated_at(&self) -> Timestamp {
        self.row.updated_at
    }
    /// What it says about the registration of its webhook. `None`: a person sees to that at the provider.
    #[must_use]
    pub fn registers(&self) -> Option<&RegisterRule> {
        self.intake.register.as_deref()
    }
    /// How many secrets people gave it.
    pub(crate) fn own_secret_count(&self) -> usize {
        self.own_secrets
    }
    /// Whether exactly these secrets were given by people.
    pub(crate) fn has_secrets(&self, texts: &[String]) -> bool {
        self.own_secrets == texts.len()
            && self
                .secrets
                .iter()
                .take(self.own_secrets)
                .zip(texts)
                .all(|(secret, text)| secret.expose_secret() == text)
    }
    pub(crate) fn row(&self) -> &EndpointRow {
        &self.row
    }
    pub(crate) fn sealed_secrets(&self) -> Option<Vec<u8>> {
        self.row.secrets.clone()
    }
    pub(crate) fn secrets(&self) -> &[SecretString] {
        &self.secrets
    }
    /// What it knows of its registration at the provider.
    #[must_use]
    pub fn context(&self) -> &Registration {
        &self.context
    }
    /// The verification that replaces the connector's.
    pub(crate) fn own_verifier(&self) -> Option<&Verifier> {
        self.own_verifier.as_ref()
    }
    /// What decides whether a request is authentic. `None` refuses everything: there is no default.
    pub(crate) fn verifier(&self) -> Option<&Verifier> {
        self.own_verifier()
            .or_else(|| self.connector.webhook().and_then(|webhook| webhook.verifier()))
    }
    pub(crate) fn allows(&self, client: IpAddr) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|network| network.contains(&client))
    }
}
