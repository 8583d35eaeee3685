//! Who asks, where, and of which server.

use crate::auth::Permission;
use async_graphql::{ID, SimpleObject};

/// Who is asking.
#[derive(Debug, SimpleObject)]
pub(crate) struct Viewer {
    /// Name of the token; `admin` for the admin token.
    pub(crate) name: String,
    /// The API token. Null for the admin token.
    pub(crate) token_id: Option<ID>,
    /// What it may do.
    pub(crate) permissions: Vec<Permission>,
    /// Where it may do it.
    pub(crate) workspace: Workspace,
}

/// The tenant: everything belongs to one.
#[derive(Debug, SimpleObject)]
pub(crate) struct Workspace {
    /// Its id.
    pub(crate) id: ID,
    /// Its name, the first part of endpoint URLs by name.
    pub(crate) name: String,
}

/// This server.
#[derive(Debug, SimpleObject)]
pub(crate) struct ServerInfo {
    /// Its version.
    pub(crate) version: String,
    /// Whether it takes webhooks and runs move.
    pub(crate) ready: bool,
    /// What stands in the way, if it is not ready.
    pub(crate) reasons: Vec<String>,
}
