//! The root of everything that can be changed, one file per kind of thing.
//!
//! Each mutation takes one `input` and gives a payload with `userErrors`. Writes go through the orchestrator, which checks,
//! writes the audit entry in the same transaction, and puts the change in force before it answers.

mod backfill;
mod bulk;
mod connection;
mod connector;
mod dead_letter;
mod documents;
mod effect;
mod endpoint;
mod event;
mod grant;
mod operate;
mod run;
mod token;
mod workflow;
mod workflow_state;

use super::caller::Caller;
use super::errors::{ApiError, ApiResult};
use super::user_error::{Place, UserError, UserErrorCode, of_apply};
use crate::auth::Permission;
use crate::problem::Code;
use async_graphql::{Context, ID, InputObject, MergedObject, SimpleObject};
use serde_json::{Map, Value, json};
use std::str::FromStr;
use weir_orchestrator::configure::{ApplyOptions, Expect, Kind, SourceDocument};
use weir_workflow_engine::{IdError, WorkspaceId};

/// Everything that can be changed. What the input did wrong stands in `userErrors`, and then nothing was changed.
#[derive(MergedObject, Default)]
pub(crate) struct Mutation(
    documents::DocumentMutations,
    connector::ConnectorMutations,
    connection::ConnectionMutations,
    grant::GrantMutations,
    endpoint::EndpointMutations,
    backfill::BackfillMutations,
    workflow::WorkflowMutations,
    workflow_state::WorkflowStateMutations,
    run::RunMutations,
    event::EventMutations,
    operate::OperateMutations,
    effect::EffectMutations,
    bulk::BulkMutations,
    dead_letter::DeadLetterMutations,
    token::TokenMutations,
);

/// What to delete.
#[derive(Debug, InputObject)]
pub(crate) struct DeleteInput {
    /// Id of the thing.
    id: ID,
    /// Delete it only if it has this revision.
    expected_revision: Option<i32>,
}

/// What was deleted.
#[derive(Debug, SimpleObject)]
pub(crate) struct DeletePayload {
    /// Id of the thing that is gone. Null: nothing was deleted.
    deleted_id: Option<ID>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

impl DeletePayload {
    fn deleted(id: ID) -> Self {
        DeletePayload {
            deleted_id: Some(id),
            user_errors: Vec::new(),
        }
    }

    fn refused(user_errors: Vec<UserError>) -> Self {
        DeletePayload {
            deleted_id: None,
            user_errors,
        }
    }
}

/// Reads an id of the input; a wrong one is a user error.
fn input_id<T: FromStr<Err = IdError>>(id: &ID, field: &str) -> Result<T, Vec<UserError>> {
    id.as_str()
        .parse()
        .map_err(|error: IdError| vec![UserError::input(UserErrorCode::InvalidId, field, error.to_string())])
}

/// The database did not confirm a change.
fn unavailable(what: &str, cause: &str) -> ApiError {
    tracing::warn!("{what}: {cause}");
    ApiError::new(
        Code::DatabaseUnavailable,
        format!("{what}: the database did not confirm it; look before you try again"),
    )
}

/// Whether a document brings secrets along, so that `SECRET_WRITE` is needed.
fn carries_secrets(document: &Value) -> bool {
    ["credential", "secrets"]
        .iter()
        .any(|key| document.get(key).is_some_and(|value| !value.is_null()))
}

/// Whether a document gives a connection other settings or another version of its connector, and leaves it its
/// credential: these say where the credential is sent, so whoever changes them could have it sent to himself. A set
/// that brings connectors may bring the version that the connection would move to.
fn redirects_credential(caller: &Caller, workspace: WorkspaceId, document: &Value, brings_connectors: bool) -> bool {
    if document.get("kind").and_then(Value::as_str) != Some("Connection") {
        return false;
    }
    let snapshot = caller.any().snapshot();
    let name = document.get("name").and_then(Value::as_str).unwrap_or_default();
    let Some((connection, row)) = snapshot.connection_row(workspace, name) else {
        return false;
    };
    let empty = json!({});
    let config = document
        .get("config")
        .filter(|config| !config.is_null())
        .unwrap_or(&empty);
    let connector = document.get("connector").and_then(Value::as_str).unwrap_or_default();
    let pinned = snapshot.connectors(workspace).pin(connector, Some(&row.connector));
    let may_move = pinned.is_some_and(|pinned| pinned != row.connector)
        || (brings_connectors && row.connector.contains('@') && connector != row.connector);
    row.credential.is_some() && (*config != connection.config || may_move)
}

/// Whether the caller may apply this document.
fn may_apply(caller: &Caller, document: &Value, brings_connectors: bool) -> ApiResult<()> {
    let workspace = caller.may(Permission::ConfigWrite)?;
    if carries_secrets(document) || redirects_credential(caller, workspace, document, brings_connectors) {
        caller.may(Permission::SecretWrite)?;
    }
    Ok(())
}

/// Applies one document. `Ok(Err(..))`: the input was wrong. `conflict_field` is where a conflict is reported.
async fn apply_one(
    ctx: &Context<'_>,
    document: Value,
    expect: Expect,
    conflict_field: &str,
    place: &Place<'_>,
) -> ApiResult<Result<(), Vec<UserError>>> {
    let caller = Caller::of(ctx);
    may_apply(caller, &document, false)?;
    let (orchestrator, workspace) = caller.orchestrator(Permission::ConfigWrite)?;
    let options = ApplyOptions { dry_run: false, expect };
    match orchestrator
        .apply(
            workspace,
            &caller.actor(),
            vec![SourceDocument::from_value(document)],
            options,
        )
        .await
    {
        Ok(_report) => Ok(Ok(())),
        Err(error) => of_apply(error, conflict_field, place).map(Err),
    }
}

/// Deletes a thing that was found by id.
async fn delete(ctx: &Context<'_>, kind: Kind, name: &str, input: DeleteInput) -> ApiResult<DeletePayload> {
    let caller = Caller::of(ctx);
    let (orchestrator, workspace) = caller.orchestrator(Permission::ConfigWrite)?;
    match orchestrator
        .delete(
            workspace,
            &caller.actor(),
            kind,
            name,
            input.expected_revision.map(i64::from),
        )
        .await
    {
        Ok(()) => Ok(DeletePayload::deleted(input.id)),
        Err(error) => of_apply(error, "expectedRevision", &super::user_error::in_input).map(DeletePayload::refused),
    }
}

/// A document of this kind with those fields that have a value.
fn document(kind: Kind, name: &str, fields: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let mut document = Map::new();
    document.insert("kind".to_owned(), kind.as_str().into());
    document.insert("name".to_owned(), name.into());
    document.extend(
        fields
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?))),
    );
    Value::Object(document)
}
