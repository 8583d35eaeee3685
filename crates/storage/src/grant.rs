//! Grants as they are stored: what a person allowed at a provider, and who renews its tokens.
//!
//! Tokens come here sealed ([`RowIdentity::grant`](crate::RowIdentity::grant)) and are in no document and no list of
//! the configuration. Every change of them raises the grant's generation, and every write proves the one it was made for:
//! of two servers that had an answer of the provider, the first to store it wins, and the other reads again.

use std::time::Duration;

use weir_workflow_engine::{ConnectionId, Timestamp, WorkspaceId};

/// People on their way to the provider of one connection at once: the oldest are forgotten.
///
/// Limit: addresses of one connection at which a person may let it in, open at once | the oldest one is not taken any more, `OAUTH_STATE` | `the_oldest_authorizations_are_forgotten`
pub const MAX_OPEN_AUTHORIZATIONS: u32 = 8;

/// Whether a connection can be used, as far as its grant goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantState {
    /// Its tokens are good.
    Healthy,
    /// Something is wrong that may mend itself.
    Degraded,
    /// A person has to let us in (again).
    NeedsReauth,
}

impl GrantState {
    /// The name in texts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::NeedsReauth => "needs_reauth",
        }
    }
}

/// A grant in all its columns.
#[derive(Clone, PartialEq, Eq)]
pub struct GrantRow {
    /// Whose it is.
    pub connection: ConnectionId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Whether it can be used.
    pub state: GrantState,
    /// Since when.
    pub state_since: Timestamp,
    /// The tokens, sealed. `None`: there are none.
    pub tokens: Option<Vec<u8>>,
    /// Raised by each change of the tokens.
    pub generation: i64,
    /// Since when a refresh of this generation is under way, or was without its answer being stored, and on which node.
    pub refreshing: Option<(Timestamp, String)>,
    /// When the access token ends.
    pub expires_at: Option<Timestamp>,
    /// The provider's id of the account.
    pub account: Option<String>,
    /// Its name for people.
    pub label: Option<String>,
    /// The scopes that were granted, as the provider writes them.
    pub scopes: Option<String>,
    /// Where the API of the account is, when the provider says so.
    pub instance_url: Option<String>,
    /// What is wrong, for people.
    pub error: Option<String>,
    /// What failed in a row.
    pub failures: u32,
    /// No refresh before.
    pub retry_at: Timestamp,
    /// When a person let us in last.
    pub connected_at: Option<Timestamp>,
    /// When the tokens were renewed last.
    pub refreshed_at: Option<Timestamp>,
}

impl std::fmt::Debug for GrantRow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("GrantRow")
            .field("connection", &self.connection)
            .field("state", &self.state)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// A person let us in: replaces what was there. Part of a change of the configuration, so that every node hears of it.
#[derive(Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// Whose it is.
    pub connection: ConnectionId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The tokens, sealed.
    pub tokens: Vec<u8>,
    /// When the access token ends.
    pub expires_at: Timestamp,
    /// The provider's id of the account.
    pub account: Option<String>,
    /// Its name for people.
    pub label: Option<String>,
    /// The scopes that were granted.
    pub scopes: Option<String>,
    /// Where the API of the account is.
    pub instance_url: Option<String>,
    /// When.
    pub at: Timestamp,
}

impl std::fmt::Debug for NewGrant {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("NewGrant")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// The tokens of a connection are forgotten. Part of a change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedGrant {
    /// Whose they were.
    pub connection: ConnectionId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Why, for people.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// A step in the life of a grant. What is no longer so fails as [`Stale`](crate::WriteError::Stale): read it again.
#[derive(Clone, Debug)]
pub enum GrantStep {
    /// This node refreshes from now on, unless another one that is alive does.
    Claim(GrantClaim),
    /// The provider gave new tokens for a generation. The lease is not asked for: who has them, has them.
    Save(GrantSave),
    /// Something was found out about a generation; the lease of this node, if it has it, ends.
    Note(GrantNote),
    /// A connection could not be made. Kept where no tokens work.
    Refused(GrantRefused),
    /// A person is sent to the provider.
    Begin(AuthorizationAttempt),
    /// A person came back: only the first time counts.
    Take {
        /// The tenant.
        workspace: WorkspaceId,
        /// Which attempt.
        id: i64,
    },
}

/// See [`GrantStep::Claim`].
#[derive(Clone, Debug)]
pub struct GrantClaim {
    /// Whose grant.
    pub connection: ConnectionId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The generation that is to be refreshed.
    pub generation: i64,
    /// How long the claim holds at most.
    pub lease: Duration,
    /// When the request is going to leave.
    pub at: Timestamp,
}

/// See [`GrantStep::Save`].
#[derive(Clone)]
pub struct GrantSave {
    /// Whose grant.
    pub connection: ConnectionId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The generation that was refreshed.
    pub generation: i64,
    /// The new tokens, sealed.
    pub tokens: Vec<u8>,
    /// When the access token ends.
    pub expires_at: Timestamp,
    /// The scopes, when the answer says them.
    pub scopes: Option<String>,
    /// When.
    pub at: Timestamp,
}

impl std::fmt::Debug for GrantSave {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("GrantSave")
            .field("connection", &self.connection)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// See [`GrantStep::Note`].
#[derive(Clone, Debug)]
pub struct GrantNote {
    /// Whose grant.
    pub connection: ConnectionId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// What it was found out about.
    pub generation: i64,
    /// Its state from now on.
    pub state: GrantState,
    /// What is wrong, for people.
    pub error: Option<String>,
    /// What failed in a row.
    pub failures: u32,
    /// No refresh before.
    pub retry_at: Timestamp,
    /// The refresh whose answer was not stored, if there was one.
    pub refreshing: Option<(Timestamp, String)>,
    /// When.
    pub at: Timestamp,
}

/// See [`GrantStep::Refused`].
#[derive(Clone, Debug)]
pub struct GrantRefused {
    /// Which connection.
    pub connection: ConnectionId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// What went wrong, for people.
    pub error: String,
    /// When.
    pub at: Timestamp,
}

/// A person on the way to a provider.
#[derive(Clone)]
pub struct AuthorizationAttempt {
    /// A raw id of the id generator.
    pub id: i64,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// What is being connected.
    pub connection: ConnectionId,
    /// The proof key and who asked, sealed ([`RowIdentity::authorization`](crate::RowIdentity::authorization)).
    pub sealed: Vec<u8>,
    /// Not taken from then on.
    pub expires_at: Timestamp,
    /// When it began.
    pub at: Timestamp,
}

impl std::fmt::Debug for AuthorizationAttempt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("AuthorizationAttempt")
            .field("id", &self.id)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// What snapshots of the configuration know of a grant: no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedAccount {
    /// Whose grant.
    pub connection: ConnectionId,
    /// Whether it can be used; as it was when the configuration changed last.
    pub state: GrantState,
    /// The provider's id of the account.
    pub account: Option<String>,
    /// Where the API of the account is.
    pub instance_url: Option<String>,
}
