//! Access that a person gave a connection at its provider.

use super::super::scalars::DateTime;
use async_graphql::SimpleObject;
use weir_storage::GrantRow;

/// Access that a person gave at the provider. The tokens themselves are never shown.
#[derive(Debug, SimpleObject)]
pub(crate) struct ConnectionGrant {
    /// Since when the connection is in its state of health, as far as its access goes.
    since: DateTime,
    /// What is wrong with it, and what to do.
    error: Option<String>,
    /// The provider's id of the account.
    account: Option<String>,
    /// The account's name, for people.
    label: Option<String>,
    /// The scopes that were granted, as the provider writes them.
    scopes: Option<String>,
    /// When a person gave access last. Null: nobody has.
    connected_at: Option<DateTime>,
    /// When the tokens were renewed last.
    refreshed_at: Option<DateTime>,
    /// When the access token ends; it is renewed before.
    expires_at: Option<DateTime>,
    /// Since when a renewal is under way, or is without an answer that was stored.
    refreshing_since: Option<DateTime>,
    /// The server that began that renewal.
    refreshing_by: Option<String>,
}

impl From<GrantRow> for ConnectionGrant {
    fn from(row: GrantRow) -> Self {
        let (since, by) = row.refreshing.unzip();
        ConnectionGrant {
            since: DateTime(row.state_since),
            error: row.error,
            account: row.account,
            label: row.label,
            scopes: row.scopes,
            connected_at: row.connected_at.map(DateTime),
            refreshed_at: row.refreshed_at.map(DateTime),
            expires_at: row.expires_at.map(DateTime),
            refreshing_since: since.map(DateTime),
            refreshing_by: by,
        }
    }
}
