//! Mutations of endpoints.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::scalars::{Json, Secret};
use super::super::types::endpoint::Endpoint;
use super::super::user_error::{UserError, UserErrorCode, in_input};
use super::{DeleteInput, DeletePayload, apply_one, delete, document, input_id};
use crate::auth::Permission;
use async_graphql::{Context, ID, InputObject, MaybeUndefined, Object, SimpleObject};
use serde_json::Value;
use weir_connector_sdk::context_document;
use weir_orchestrator::configure::{Expect, Kind};
use weir_orchestrator::sweeps::SweepRefusal;
use weir_workflow_engine::EndpointId;

/// Mutations of endpoints.
#[derive(Default)]
pub(crate) struct EndpointMutations;

#[Object]
impl EndpointMutations {
    /// Creates an endpoint; its `url` is what the provider gets. Needs `CONFIG_WRITE`, and `SECRET_WRITE` with secrets.
    async fn endpoint_create(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The new endpoint.")] input: EndpointCreateInput,
    ) -> ApiResult<EndpointPayload> {
        let fields = [
            ("connector", input.connector.map(Value::from)),
            ("connection", input.connection.map(Value::from)),
            ("verify", input.verify.map(|verify| verify.0)),
            ("context", input.context.map(|context| context.0)),
            ("secrets", input.secrets.map(secret_list)),
            ("allow", input.allow.map(Value::from)),
            ("receive", input.receive.map(Value::from)),
            ("poll", input.poll.map(Value::from)),
            ("since", input.since.map(Value::from)),
            ("sweep", input.sweep.map(|sweep| sweep.0)),
            ("register", input.register.map(|register| register.0)),
        ];
        let document = document(Kind::Endpoint, &input.name, fields);
        let outcome = apply_one(ctx, document, Expect::Absent, "name", &in_input).await?;
        Ok(EndpointPayload::of(ctx, &input.name, outcome))
    }

    /// Changes an endpoint. What is left out stays; null removes. Needs `CONFIG_WRITE`, and `SECRET_WRITE` with secrets.
    async fn endpoint_update(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: EndpointUpdateInput,
    ) -> ApiResult<EndpointPayload> {
        let caller = Caller::of(ctx);
        let workspace = caller.may(Permission::ConfigWrite)?;
        let found = match input_id::<EndpointId>(&input.id, "id") {
            Ok(id) => Endpoint::by_id(&caller.any().snapshot(), workspace, id),
            Err(errors) => return Ok(EndpointPayload::refused(errors)),
        };
        let Some(found) = found else {
            return Ok(EndpointPayload::refused(vec![UserError::not_found("id")]));
        };
        let now = found.inner();
        let mut said = now.intake().parts();
        let allowed: Vec<String> = now.allow().iter().map(ToString::to_string).collect();
        // Without a connection it keeps its version of the connector, with one that of the connection counts.
        let connector = match &input.connection {
            MaybeUndefined::Value(_) => now.connector().name(),
            MaybeUndefined::Undefined | MaybeUndefined::Null => now.connector_reference(),
        };
        let fields = [
            ("connector", Some(connector.into())),
            (
                "connection",
                patched(input.connection.map_value(Value::from), || {
                    now.connection().map(|(_, name)| name.into())
                }),
            ),
            (
                "verify",
                patched(input.verify.map_value(|verify| verify.0), || {
                    now.verify_override().cloned()
                }),
            ),
            (
                "context",
                patched(input.context.map_value(|context| context.0), || {
                    Some(context_document(now.context()))
                }),
            ),
            ("secrets", input.secrets.map(secret_list)),
            (
                "allow",
                patched(input.allow.map_value(Value::from), || Some(allowed.into())),
            ),
            (
                "receive",
                patched(input.receive.map_value(Value::from), || said.remove("receive")),
            ),
            ("poll", said.remove("poll")),
            (
                "since",
                patched(input.since.map_value(Value::from), || said.remove("since")),
            ),
            (
                "sweep",
                patched(input.sweep.map_value(|sweep| sweep.0), || said.get("sweep").cloned()),
            ),
            (
                "register",
                patched(input.register.map_value(|register| register.0), || {
                    said.get("register").cloned()
                }),
            ),
        ];
        let document = document(Kind::Endpoint, now.name(), fields);
        let outcome = apply_one(
            ctx,
            document,
            Expect::Revision(input.expected_revision.into()),
            "expectedRevision",
            &in_input,
        )
        .await?;
        Ok(EndpointPayload::of(ctx, now.name(), outcome))
    }

    /// Sweeps an endpoint as soon as possible: what its provider lists and never delivered is recovered. Answers at once;
    /// `coverage.lastSweep` of the endpoint says what became of it. Needs `RUN_OPERATE`.
    async fn endpoint_sweep(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which endpoint.")] input: EndpointSweepInput,
    ) -> ApiResult<EndpointPayload> {
        let (orchestrator, workspace) = Caller::of(ctx).orchestrator(Permission::RunOperate)?;
        let id = match input_id::<EndpointId>(&input.id, "id") {
            Ok(id) => id,
            Err(errors) => return Ok(EndpointPayload::refused(errors)),
        };
        match orchestrator.sweep(workspace, id) {
            Ok(()) => Ok(EndpointPayload {
                endpoint: Endpoint::by_id(&orchestrator.snapshot(), workspace, id),
                user_errors: Vec::new(),
            }),
            Err(SweepRefusal::NotFound) => Ok(EndpointPayload::refused(vec![UserError::not_found("id")])),
            Err(refusal) => {
                let error = UserError::input(UserErrorCode::Invalid, "id", refusal.to_string());
                Ok(EndpointPayload::refused(vec![error]))
            }
        }
    }

    /// Deletes an endpoint: requests to its URL get 404 from now on. Its events stay. Needs `CONFIG_WRITE`.
    async fn endpoint_delete(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which endpoint.")] input: DeleteInput,
    ) -> ApiResult<DeletePayload> {
        let caller = Caller::of(ctx);
        let workspace = caller.may(Permission::ConfigWrite)?;
        let found = match input_id::<EndpointId>(&input.id, "id") {
            Ok(id) => Endpoint::by_id(&caller.any().snapshot(), workspace, id),
            Err(errors) => return Ok(DeletePayload::refused(errors)),
        };
        match found {
            Some(found) => delete(ctx, Kind::Endpoint, found.inner().name(), input).await,
            None => Ok(DeletePayload::refused(vec![UserError::not_found("id")])),
        }
    }
}

fn secret_list(secrets: Vec<Secret>) -> Value {
    secrets.into_iter().map(|secret| secret.0).collect()
}

/// Absent keeps what is, null removes, a value replaces.
fn patched(change: MaybeUndefined<Value>, now: impl FnOnce() -> Option<Value>) -> Option<Value> {
    match change {
        MaybeUndefined::Undefined => now(),
        MaybeUndefined::Null => None,
        MaybeUndefined::Value(value) => Some(value),
    }
}

/// A new endpoint.
#[derive(Debug, InputObject)]
pub(crate) struct EndpointCreateInput {
    /// Its name, unique in the workspace: lower-case letters, digits, `-`, `_`, `.`.
    name: String,
    /// Name of the connector whose webhooks arrive here. May be left out when `connection` is given.
    connector: Option<String>,
    /// Name of the connection that its events belong to.
    connection: Option<String>,
    /// Verification in the vocabulary of manifests; replaces the connector's.
    verify: Option<Json>,
    /// What the endpoint knows of its registration at the provider (`ctx:NAME` in a verification): an object of names to a
    /// text or a list of texts. See `endpointContext` of the connector.
    context: Option<Json>,
    /// The secrets that signatures are checked with, newest first. Stored encrypted, never shown again.
    #[graphql(secret)]
    secrets: Option<Vec<Secret>>,
    /// The networks that may send, in CIDR notation. Left out: all.
    allow: Option<Vec<String>>,
    /// `webhooks` (as when left out), or `never`: no URL and no secrets, events come by sweeps alone.
    receive: Option<String>,
    /// A list of the connector (`polls` of its manifest) from which its events come, instead of webhooks.
    poll: Option<String>,
    /// With `poll`, from when on the first look takes items: a time (RFC 3339) or a day. Left out: from now on.
    since: Option<String>,
    /// `"never"`, or an object like `{ "every": "5m" }`. Left out: as the connector says.
    sweep: Option<Json>,
    /// `true`, or an object like `{ "events": ["push"], "with": { "owner": "acme", "repo": "shop" } }`: Weir makes the
    /// webhook at the provider and looks after it. Left out: a person does.
    register: Option<Json>,
}

/// A change of an endpoint. What is left out stays as it is; null removes it.
#[derive(Debug, InputObject)]
pub(crate) struct EndpointUpdateInput {
    /// Which endpoint.
    id: ID,
    /// The revision that the change was made against.
    expected_revision: i32,
    /// Name of the connection that its events belong to.
    connection: MaybeUndefined<String>,
    /// Verification in the vocabulary of manifests; replaces the connector's.
    verify: MaybeUndefined<Json>,
    /// What the endpoint knows of its registration at the provider, all of it.
    context: MaybeUndefined<Json>,
    /// All secrets, newest first: for a rotation, the new one and the old one.
    #[graphql(secret)]
    secrets: Option<Vec<Secret>>,
    /// The networks that may send, in CIDR notation.
    allow: MaybeUndefined<Vec<String>>,
    /// `webhooks`, or `never`: no URL and no secrets, events come by sweeps alone.
    receive: MaybeUndefined<String>,
    /// With a poll, from when on the first look takes items.
    since: MaybeUndefined<String>,
    /// `"never"`, or an object like `{ "every": "5m" }`.
    sweep: MaybeUndefined<Json>,
    /// `true`, or an object with `events` and `with`: Weir makes the webhook at the provider and looks after it.
    register: MaybeUndefined<Json>,
}

/// A sweep that is asked for.
#[derive(Debug, InputObject)]
pub(crate) struct EndpointSweepInput {
    /// Which endpoint.
    id: ID,
}

/// An endpoint that was created or changed.
#[derive(Debug, SimpleObject)]
pub(crate) struct EndpointPayload {
    /// The endpoint as it is now. Null: nothing was changed.
    endpoint: Option<Endpoint>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

impl EndpointPayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        EndpointPayload {
            endpoint: None,
            user_errors,
        }
    }

    fn of(ctx: &Context<'_>, name: &str, outcome: Result<(), Vec<UserError>>) -> Self {
        match outcome {
            Ok(()) => {
                let caller = Caller::of(ctx);
                let endpoint = Endpoint::by_name(&caller.any().snapshot(), caller.principal().workspace, name);
                EndpointPayload {
                    endpoint,
                    user_errors: Vec::new(),
                }
            }
            Err(user_errors) => EndpointPayload::refused(user_errors),
        }
    }
}
