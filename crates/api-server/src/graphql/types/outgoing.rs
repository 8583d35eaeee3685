//! Outgoing events: what workflows tell others.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::scalars::{DateTime, Json};
use super::run::{self, Run};
use crate::auth::Permission;
use async_graphql::{Context, ID, Object};
use weir_storage::OutgoingRow;

/// An outgoing event.
#[derive(Debug)]
pub(crate) struct OutgoingEvent(pub(crate) OutgoingRow);

/// An event that an `emit` step told. Needs `RUN_READ`.
#[Object]
impl OutgoingEvent {
    /// Its id.
    async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// Its type, such as `invoice.paid`.
    #[graphql(name = "type")]
    async fn kind(&self) -> &str {
        &self.0.kind
    }

    /// Events with the same key keep their order.
    async fn key(&self) -> Option<&str> {
        self.0.order_key.as_deref()
    }

    /// What it says. Needs `PAYLOAD_READ`.
    async fn data(&self, ctx: &Context<'_>) -> ApiResult<Json> {
        Caller::of(ctx).may(Permission::PayloadRead)?;
        Ok(Json(serde_json::from_slice(&self.0.body).unwrap_or_default()))
    }

    /// The run that told it. Null: it is no longer kept.
    async fn run(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        run::load(ctx, self.0.run).await
    }

    /// Path of the step that told it.
    async fn step(&self) -> &str {
        &self.0.step
    }

    /// When.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }
}
