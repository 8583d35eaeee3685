//! One account at a provider, ready to be called: settings, credential, and what follows from both, worked out once.
//!
//! A changed configuration is a new object; nothing here is edited. `Debug` shows no secret.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use reqwest::Url;
use serde_json::Value;
use weir_connector_sdk::{Connector, Credential, NamedKind, own_budget};
use weir_storage::GrantedAccount;
use weir_workflow_engine::{ConnectionId, WorkspaceId};

use crate::budget::{Gate, Rules};
use crate::credentials::{AccessToken, TokenCache};
use crate::grants::with_instance;
use crate::perform::{Meters, Targets};

/// A connection. Shared by every call that uses it, so that its token and its meters are shared too.
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Its name, unique in the workspace.
    pub name: String,
    /// What it connects to.
    pub connector: Arc<Connector>,
    /// Its settings; never secrets.
    pub config: Value,
    /// Its secrets.
    pub credential: Option<Credential>,
    /// The provider's id of the account, when known.
    pub account: Option<String>,
    /// Where the API of the account is, when its provider says so.
    pub(crate) instance_url: Option<String>,
    /// The access token of the moment, for schemes that need one.
    pub(crate) token: TokenCache,
    /// The token of an account that is being connected, for the call that says which one it is.
    pub(crate) trial: Option<Arc<AccessToken>>,
    pub(crate) targets: Targets,
    pub(crate) meters: Meters,
    /// What it may send.
    pub(crate) rules: Rules,
    /// Where its requests wait, once there was one.
    pub(crate) gate: OnceLock<Arc<Gate>>,
    pub(crate) identity: Identity,
}

/// Tells a connection object from every other, also from those that come after it is gone: whoever holds the identity
/// keeps its place in memory taken.
#[derive(Debug, Clone, Default)]
pub struct Identity(Arc<()>);

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl Connection {
    /// Prepares a connection. Never fails: a credential that does not fit the connector, or settings without a base URL,
    /// fail the calls, with a message that says so.
    #[must_use]
    pub fn new(
        id: ConnectionId,
        workspace: WorkspaceId,
        name: String,
        connector: Arc<Connector>,
        config: Value,
        credential: Option<Credential>,
        account: Option<String>,
    ) -> Self {
        Connection {
            id,
            workspace,
            name,
            token: TokenCache::default(),
            trial: None,
            targets: Targets::new(&connector, &config),
            meters: Meters::new(connector.name()),
            identity: Identity::default(),
            rules: rules_of(&connector, &config),
            gate: OnceLock::new(),
            connector,
            config,
            credential,
            account,
            instance_url: None,
        }
    }

    /// The same for the account that a person let us in to.
    pub(crate) fn at_account(self, account: Option<String>, instance_url: Option<String>) -> Self {
        let config = with_instance(self.config, instance_url.as_deref());
        Connection {
            // Another place, and the same provider with the same limits.
            targets: Targets::new(&self.connector, &config),
            config,
            account,
            instance_url,
            ..self
        }
    }

    /// Whether its credential logs in for sessions.
    pub(crate) fn has_sessions(&self) -> bool {
        let session = NamedKind::Session;
        matches!(&self.credential, Some(Credential::Named { kind, .. }) if *kind == session)
    }

    /// Why a person has to see to its credential, as this process found out: its provider refuses logins with it.
    #[must_use]
    pub fn refused_login(&self) -> Option<String> {
        self.token.refusal().map(|refusal| refusal.error.message.clone())
    }

    /// Whether it is what it would be with this grant.
    pub(crate) fn is_at(&self, granted: Option<&GrantedAccount>) -> bool {
        let granted = granted.filter(|_| self.is_granted());
        let account = granted.and_then(|granted| granted.account.as_ref());
        let instance_url = granted.and_then(|granted| granted.instance_url.as_ref());
        (self.account.as_ref(), self.instance_url.as_ref()) == (account, instance_url)
    }

    /// The settings as they were written, without what the provider said.
    pub(crate) fn own_config(&self) -> Value {
        let mut config = self.config.clone();
        let base_url = config.get("base_url").and_then(Value::as_str);
        if self.instance_url.is_some()
            && base_url == self.instance_url.as_deref()
            && let Some(settings) = config.as_object_mut()
        {
            settings.remove("base_url");
        }
        config
    }
}

/// The manifest's budget and the one in the settings, which was checked when they were written.
fn rules_of(connector: &Connector, config: &Value) -> Rules {
    let own = config.get("budget").and_then(|budget| own_budget(budget).ok());
    let manifest = connector.budget().filter(|_| is_providers_own(connector, config));
    Rules::new(manifest, own.as_ref())
}

/// Whether requests go to a host that the connector names. Another one is a proxy, a sandbox or a copy for tests, of whose
/// limits the manifest knows nothing.
fn is_providers_own(connector: &Connector, config: &Value) -> bool {
    let mut plain = config.clone();
    if let Some(settings) = plain.as_object_mut() {
        settings.remove("base_url");
    }
    let origin = |config: &Value| Some(Url::parse(&connector.base_url(config).ok()?).ok()?.origin());
    origin(&plain) == origin(config)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("connector", &self.connector.name())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Identity;

    #[test]
    fn an_identity_that_is_held_never_comes_again() {
        // Each object is gone before the next one is made; what was noted of it is not.
        let note = |_| {
            let gone = Identity::default();
            gone.clone()
        };
        assert_eq!((0..1_000).map(note).collect::<HashSet<Identity>>().len(), 1_000);
        let one = Identity::default();
        assert_eq!(one, one.clone());
    }
}
