//! Mutations of published connectors. They are published by `applyDocuments`.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::user_error::{UserError, in_input, of_apply};
use crate::auth::Permission;
use async_graphql::{Context, InputObject, Object, SimpleObject};

/// Mutations of published connectors.
#[derive(Default)]
pub(crate) struct ConnectorMutations;

#[Object]
impl ConnectorMutations {
    /// Deletes a published version of a connector. Refused while a connection, an endpoint or a version of a workflow is
    /// pinned to it. Needs `CONFIG_WRITE`.
    async fn connector_version_delete(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which version.")] input: ConnectorVersionDeleteInput,
    ) -> ApiResult<ConnectorVersionDeletePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::ConfigWrite)?;
        let deleted = orchestrator
            .connector_delete(workspace, &caller.actor(), &input.name, &input.version)
            .await;
        match deleted {
            Ok(()) => Ok(ConnectorVersionDeletePayload {
                deleted: true,
                user_errors: Vec::new(),
            }),
            Err(error) => Ok(ConnectorVersionDeletePayload {
                deleted: false,
                user_errors: of_apply(error, "version", &in_input)?,
            }),
        }
    }
}

/// A published version of a connector.
#[derive(Debug, InputObject)]
pub(crate) struct ConnectorVersionDeleteInput {
    /// The connector's name.
    name: String,
    /// Its version.
    version: String,
}

/// What became of it.
#[derive(Debug, SimpleObject)]
pub(crate) struct ConnectorVersionDeletePayload {
    /// Whether it is gone.
    deleted: bool,
    /// What stands in the way.
    user_errors: Vec<UserError>,
}
