//! Registrations as they are stored: the webhooks that were made at providers, and who looks after them.
//!
//! Secrets come here sealed ([`RowIdentity::registration`](crate::RowIdentity::registration)). Every write raises the
//! generation of its row and proves the one before and the claim of its node: of two servers one writes, and the other
//! reads again. A row outlives its endpoint, until its webhook is deleted.

use std::time::Duration;

use weir_workflow_engine::{ConnectionId, EndpointId, Timestamp, WorkspaceId};

/// What is known of a registration.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistrationRow {
    /// Whose webhooks they are.
    pub endpoint: EndpointId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The connection that it was made with.
    pub connection: ConnectionId,
    /// What the endpoint said when it was made, JSON.
    pub place: String,
    /// The provider's id. `None`: nothing is known to be there.
    pub provider_id: Option<String>,
    /// Where it sends to, or is going to: written before it is made.
    pub url: Option<String>,
    /// What it sends, in the provider's names.
    pub events: Vec<String>,
    /// Its secrets, sealed.
    pub secrets: Option<Vec<u8>>,
    /// Until when the first of those counts that the provider no longer uses.
    pub secrets_until: Option<Timestamp>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When it was made or renewed last, which is from when it lives until `expires_at`.
    pub renewed_at: Option<Timestamp>,
    /// When the provider was last asked what there is.
    pub checked_at: Option<Timestamp>,
    /// What was last found to be otherwise than we had left it, and when.
    pub drift: Option<(Timestamp, String)>,
    /// What is wrong, for people.
    pub error: Option<String>,
    /// What failed in a row.
    pub failures: u32,
    /// No call before.
    pub retry_at: Timestamp,
    /// Raised by every write; 0: it is not stored yet.
    pub generation: i64,
}

impl std::fmt::Debug for RegistrationRow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RegistrationRow")
            .field("endpoint", &self.endpoint)
            .field("provider_id", &self.provider_id)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// A step in the upkeep of a registration. What is no longer so fails as [`Stale`](crate::WriteError::Stale): read it again.
#[derive(Clone, Debug)]
pub enum RegistrationStep {
    /// This node looks after it from now on, unless another one that is alive does.
    Claim(RegistrationClaim),
    /// Stores the row as it is now. Its generation is the one before.
    Save(RegistrationSave),
    /// There is nothing at the provider any more.
    Drop(RegistrationDrop),
}

/// See [`RegistrationStep::Claim`]. The generation is one higher afterwards.
#[derive(Clone, Debug)]
pub struct RegistrationClaim {
    /// The row as it is known; with generation 0 it is made, if its endpoint is still there.
    pub row: RegistrationRow,
    /// How long the claim holds at most.
    pub lease: Duration,
}

/// See [`RegistrationStep::Save`]. The generation is one higher afterwards.
#[derive(Clone, Debug)]
pub struct RegistrationSave {
    /// The row with the generation before.
    pub row: RegistrationRow,
    /// How much longer this node keeps it; `None`: it lets go.
    pub keep: Option<Duration>,
    /// Whether every node must hear of it, because other secrets count.
    pub announce: bool,
}

/// See [`RegistrationStep::Drop`].
#[derive(Clone, Copy, Debug)]
pub struct RegistrationDrop {
    /// Which.
    pub endpoint: EndpointId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Its generation.
    pub generation: i64,
}
