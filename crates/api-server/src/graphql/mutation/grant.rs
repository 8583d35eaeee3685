//! Mutations of a connection's access: give it, give it back.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::scalars::DateTime;
use super::super::types::connection::Connection;
use super::super::user_error::{UserError, UserErrorCode};
use super::input_id;
use crate::auth::Permission;
use crate::problem::Code;
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use weir_orchestrator::grants::{ConnectError, Revoked};
use weir_workflow_engine::ConnectionId;

/// Mutations of a connection's access.
#[derive(Default)]
pub(crate) struct GrantMutations;

#[Object]
impl GrantMutations {
    /// Begins to connect: gives the address at the provider where a person lets the connection in. For a connection that
    /// is connected already it is the same: it goes on under its name, with the same account. Needs `CONFIG_WRITE` and
    /// `SECRET_WRITE`.
    async fn connection_authorize(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which connection.")] input: ConnectionAuthorizeInput,
    ) -> ApiResult<ConnectionAuthorizePayload> {
        let caller = Caller::of(ctx);
        caller.may(Permission::SecretWrite)?;
        let (orchestrator, workspace) = caller.orchestrator(Permission::ConfigWrite)?;
        let found = match input_id::<ConnectionId>(&input.id, "id") {
            Ok(id) => Connection::by_id(&orchestrator.snapshot(), workspace, id),
            Err(errors) => return Ok(ConnectionAuthorizePayload::refused(errors)),
        };
        let Some(found) = found else {
            return Ok(ConnectionAuthorizePayload::refused(vec![UserError::not_found("id")]));
        };
        let another = input.another_account.unwrap_or(false);
        let name = found.row().name.as_str();
        match orchestrator
            .connection_authorize(workspace, &caller.actor(), name, another)
            .await
        {
            Ok(authorization) => Ok(ConnectionAuthorizePayload {
                authorize_url: Some(authorization.url),
                redirect_uri: Some(authorization.redirect_uri),
                expires_at: Some(DateTime(authorization.expires_at)),
                user_errors: Vec::new(),
            }),
            Err(error) => Ok(ConnectionAuthorizePayload::refused(user_errors(error)?)),
        }
    }

    /// Gives a connection's access back to the provider, where it takes it, and forgets the tokens. What calls over it
    /// waits until it is connected again. Where its credential logs in by itself, the session of this server ends, and the
    /// next call begins another one. Needs `CONFIG_WRITE` and `SECRET_WRITE`.
    async fn connection_disconnect(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which connection.")] input: ConnectionDisconnectInput,
    ) -> ApiResult<ConnectionDisconnectPayload> {
        let caller = Caller::of(ctx);
        caller.may(Permission::SecretWrite)?;
        let (orchestrator, workspace) = caller.orchestrator(Permission::ConfigWrite)?;
        let found = match input_id::<ConnectionId>(&input.id, "id") {
            Ok(id) => Connection::by_id(&orchestrator.snapshot(), workspace, id),
            Err(errors) => return Ok(ConnectionDisconnectPayload::refused(errors)),
        };
        let Some(found) = found else {
            return Ok(ConnectionDisconnectPayload::refused(vec![UserError::not_found("id")]));
        };
        let name = found.row().name.clone();
        match orchestrator
            .connection_disconnect(workspace, &caller.actor(), &name)
            .await
        {
            Ok(disconnected) => {
                let (revocation, detail) = match disconnected.revoked {
                    Revoked::Yes => (Revocation::Revoked, None),
                    Revoked::NotOffered => (Revocation::NotOffered, None),
                    Revoked::Failed(why) => (Revocation::Failed, Some(why)),
                };
                Ok(ConnectionDisconnectPayload {
                    connection: Connection::by_name(&orchestrator.snapshot(), workspace, &name),
                    revocation: Some(revocation),
                    detail,
                    user_errors: Vec::new(),
                })
            }
            Err(error) => Ok(ConnectionDisconnectPayload::refused(user_errors(error)?)),
        }
    }
}

fn user_errors(error: ConnectError) -> ApiResult<Vec<UserError>> {
    Ok(match error {
        ConnectError::NotFound => vec![UserError::not_found("id")],
        ConnectError::Unavailable(cause) => {
            tracing::warn!("the access of a connection was not changed: {cause}");
            return Err(ApiError::new(
                Code::DatabaseUnavailable,
                "the change could not be written; nothing was changed",
            ));
        }
        error @ (ConnectError::NotGranted { .. }
        | ConnectError::NotConnected(_)
        | ConnectError::State(_)
        | ConnectError::Refused(_)
        | ConnectError::OtherAccount(_)) => vec![UserError::precondition(
            UserErrorCode::NotGranted,
            "id",
            error.to_string(),
            Vec::new(),
        )],
    })
}

/// Which connection is to be let in.
#[derive(Debug, InputObject)]
pub(crate) struct ConnectionAuthorizeInput {
    /// Which connection.
    id: ID,
    /// Take another account than the one that the connection has. Without it, signing in to another one is refused.
    another_account: Option<bool>,
}

/// Where a person lets the connection in.
#[derive(Debug, SimpleObject)]
pub(crate) struct ConnectionAuthorizePayload {
    /// The address at the provider, to be opened in a browser; it works once. Null: there is none.
    authorize_url: Option<String>,
    /// The address that the provider sends people back to. The app at the provider has to know it.
    redirect_uri: Option<String>,
    /// Until when the person may come back.
    expires_at: Option<DateTime>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

impl ConnectionAuthorizePayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        ConnectionAuthorizePayload {
            authorize_url: None,
            redirect_uri: None,
            expires_at: None,
            user_errors,
        }
    }
}

/// Which connection is to lose its access.
#[derive(Debug, InputObject)]
pub(crate) struct ConnectionDisconnectInput {
    /// Which connection.
    id: ID,
}

/// What became of the access at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
enum Revocation {
    /// The provider took it back.
    Revoked,
    /// The connector knows no way to give it back: it ends by itself, or in the account's settings at the provider.
    NotOffered,
    /// The provider did not take it back: end it in the account's settings there.
    Failed,
}

/// A connection that has no tokens any more.
#[derive(Debug, SimpleObject)]
pub(crate) struct ConnectionDisconnectPayload {
    /// The connection. Null: nothing was changed.
    connection: Option<Connection>,
    /// What became of the access at the provider.
    revocation: Option<Revocation>,
    /// Why the provider did not take it back.
    detail: Option<String>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

impl ConnectionDisconnectPayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        ConnectionDisconnectPayload {
            connection: None,
            revocation: None,
            detail: None,
            user_errors,
        }
    }
}
