//! Webhooks at providers that Weir made and looks after.

use super::super::scalars::DateTime;
use async_graphql::{Enum, SimpleObject};
use weir_orchestrator::registrations::{RegistrationState, RegistrationView};

/// Where the registration of a webhook stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(name = "RegistrationState")]
pub(crate) enum State {
    /// It is being made.
    Pending,
    /// The provider has it.
    Active,
    /// What was tried last failed, and is tried again: see `error`.
    Failing,
    /// Nothing is to be sent, so nothing is registered.
    Idle,
    /// It is being deleted.
    Removing,
}

/// The webhook of an endpoint at its provider. Its secret is never shown.
#[derive(Debug, SimpleObject)]
pub(crate) struct EndpointRegistration {
    /// Where it stands.
    state: State,
    /// The provider's id.
    provider_id: Option<String>,
    /// Where the provider sends to.
    url: Option<String>,
    /// What it sends, in the provider's names.
    events: Vec<String>,
    /// When it ends; it is renewed before. Null: it does not end by itself.
    expires_at: Option<DateTime>,
    /// When it was made.
    created_at: Option<DateTime>,
    /// When it was made or renewed last.
    renewed_at: Option<DateTime>,
    /// When the provider was last asked whether all is right.
    checked_at: Option<DateTime>,
    /// What was last found to be otherwise at the provider than Weir had left it.
    drift: Option<String>,
    /// When that was.
    drifted_at: Option<DateTime>,
    /// What is wrong, or why nothing is registered.
    error: Option<String>,
    /// When a failure is tried again.
    retry_at: Option<DateTime>,
}

impl From<RegistrationView> for EndpointRegistration {
    fn from(view: RegistrationView) -> Self {
        let (drifted_at, drift) = view.drift.unzip();
        EndpointRegistration {
            state: match view.state {
                RegistrationState::Pending => State::Pending,
                RegistrationState::Active => State::Active,
                RegistrationState::Failing => State::Failing,
                RegistrationState::Idle => State::Idle,
                RegistrationState::Removing => State::Removing,
            },
            provider_id: view.provider_id,
            url: view.url,
            events: view.events,
            expires_at: view.expires_at.map(DateTime),
            created_at: view.created_at.map(DateTime),
            renewed_at: view.renewed_at.map(DateTime),
            checked_at: view.checked_at.map(DateTime),
            drift,
            drifted_at: drifted_at.map(DateTime),
            error: view.error,
            retry_at: view.retry_at.map(DateTime),
        }
    }
}
