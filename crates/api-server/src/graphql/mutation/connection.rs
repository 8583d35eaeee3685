//! Mutations of connections.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::scalars::{Json, Secret};
use super::super::types::connection::Connection;
use super::super::user_error::{UserError, in_input};
use super::{DeleteInput, DeletePayload, apply_one, delete, document, input_id};
use crate::auth::Permission;
use async_graphql::{Context, ID, InputObject, MaybeUndefined, Object, SimpleObject};
use weir_orchestrator::configure::{Expect, Kind};
use weir_workflow_engine::ConnectionId;

/// Mutations of connections.
#[derive(Default)]
pub(crate) struct ConnectionMutations;

#[Object]
impl ConnectionMutations {
    /// Creates a connection. Needs `CONFIG_WRITE`, and `SECRET_WRITE` with a credential.
    async fn connection_create(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The new connection.")] input: ConnectionCreateInput,
    ) -> ApiResult<ConnectionPayload> {
        let fields = [
            ("connector", Some(input.connector.into())),
            ("config", input.config.map(|config| config.0)),
            ("credential", input.credential.map(|credential| credential.0)),
        ];
        let document = document(Kind::Connection, &input.name, fields);
        let outcome = apply_one(ctx, document, Expect::Absent, "name", &in_input).await?;
        Ok(ConnectionPayload::of(ctx, &input.name, outcome))
    }

    /// Changes a connection. What is left out stays. Needs `CONFIG_WRITE`, and `SECRET_WRITE` with a credential, or for other settings
    /// of a connection that has one: they say where it is sent.
    async fn connection_update(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: ConnectionUpdateInput,
    ) -> ApiResult<ConnectionPayload> {
        let caller = Caller::of(ctx);
        let workspace = caller.may(Permission::ConfigWrite)?;
        let found = match input_id::<ConnectionId>(&input.id, "id") {
            Ok(id) => Connection::by_id(&caller.any().snapshot(), workspace, id),
            Err(errors) => return Ok(ConnectionPayload::refused(errors)),
        };
        let Some(found) = found else {
            return Ok(ConnectionPayload::refused(vec![UserError::not_found("id")]));
        };
        let row = found.row();
        let config = match input.config {
            MaybeUndefined::Undefined => serde_json::from_str(&row.config).ok(),
            MaybeUndefined::Null => None,
            MaybeUndefined::Value(config) => Some(config.0),
        };
        let fields = [
            ("connector", Some(row.connector.clone().into())),
            ("config", config),
            ("credential", input.credential.map(|credential| credential.0)),
        ];
        let document = document(Kind::Connection, &row.name, fields);
        let outcome = apply_one(
            ctx,
            document,
            Expect::Revision(input.expected_revision.into()),
            "expectedRevision",
            &in_input,
        )
        .await?;
        Ok(ConnectionPayload::of(ctx, &row.name, outcome))
    }

    /// Deletes a connection with its credential. Refused while an endpoint or a published workflow names it. Needs `CONFIG_WRITE`.
    async fn connection_delete(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which connection.")] input: DeleteInput,
    ) -> ApiResult<DeletePayload> {
        let caller = Caller::of(ctx);
        let workspace = caller.may(Permission::ConfigWrite)?;
        let found = match input_id::<ConnectionId>(&input.id, "id") {
            Ok(id) => Connection::by_id(&caller.any().snapshot(), workspace, id),
            Err(errors) => return Ok(DeletePayload::refused(errors)),
        };
        match found {
            Some(found) => delete(ctx, Kind::Connection, &found.row().name, input).await,
            None => Ok(DeletePayload::refused(vec![UserError::not_found("id")])),
        }
    }
}

/// A new connection.
#[derive(Debug, InputObject)]
pub(crate) struct ConnectionCreateInput {
    /// Its name, unique in the workspace: lower-case letters, digits, `-`, `_`, `.`.
    name: String,
    /// Name of its connector.
    connector: String,
    /// Its settings, as the connector's `configSchema` says.
    config: Option<Json>,
    /// Its credential, such as `{bearer: {token: "…"}}` or `{api_key: {key: "…"}}`. Stored encrypted, never shown again.
    #[graphql(secret)]
    credential: Option<Secret>,
}

/// A change of a connection. What is left out stays as it is.
#[derive(Debug, InputObject)]
pub(crate) struct ConnectionUpdateInput {
    /// Which connection.
    id: ID,
    /// The revision that the change was made against.
    expected_revision: i32,
    /// All its settings; null for none.
    config: MaybeUndefined<Json>,
    /// Its new credential.
    #[graphql(secret)]
    credential: Option<Secret>,
}

/// A connection that was created or changed.
#[derive(Debug, SimpleObject)]
pub(crate) struct ConnectionPayload {
    /// The connection as it is now. Null: nothing was changed.
    connection: Option<Connection>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

impl ConnectionPayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        ConnectionPayload {
            connection: None,
            user_errors,
        }
    }

    fn of(ctx: &Context<'_>, name: &str, outcome: Result<(), Vec<UserError>>) -> Self {
        match outcome {
            Ok(()) => {
                let caller = Caller::of(ctx);
                let connection = Connection::by_name(&caller.any().snapshot(), caller.principal().workspace, name);
                ConnectionPayload {
                    connection,
                    user_errors: Vec::new(),
                }
            }
            Err(user_errors) => ConnectionPayload::refused(user_errors),
        }
    }
}
