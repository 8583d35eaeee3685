//! API tokens, without the tokens themselves.

use super::super::scalars::DateTime;
use crate::auth::{self, Permission};
use async_graphql::{ID, Object};
use weir_storage::ApiTokenRow;

/// An API token.
#[derive(Debug)]
pub(crate) struct ApiToken(pub(crate) ApiTokenRow);

/// A token for programs. The token itself is shown once, when it is made. Needs `TOKEN_ADMIN`.
#[Object]
impl ApiToken {
    /// Its id.
    pub(crate) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// What people call it; it stands in the audit trail.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// What it may do.
    async fn permissions(&self) -> Vec<Permission> {
        auth::read_scopes(&self.0.scopes)
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// When it ends. Null: it does not.
    async fn expires_at(&self) -> Option<DateTime> {
        self.0.expires_at.map(DateTime)
    }
}
